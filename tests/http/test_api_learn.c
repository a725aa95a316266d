/*
 * Goal: the loop over HTTP: a round of learning is asked for, followed,
 *   judged, switched, rolled back; while it runs a second one and a deletion
 *   are refused; the collection can be exported and imported again.
 * Method: 800 made-up items and 600 pairs whose anchors are synonyms that only
 *   training can know; everything through the API, with one daemon.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/http_kit.h"

#define D "/v1/collections/learn"
#define A "/v1/admin/collections/learn"
#define N_ITEMS 800
#define N_PAIRS 700

static struct kit_daemon daemon_;
static long long trained; /* the generation of the first round */

static struct kit_reply
send_lines(const char *path, const char *text)
{
    const struct kit_call call = {
        .path = path, .body = text, .type = "application/x-ndjson"};
    return kit_do(&daemon_, &call);
}

static long long
integer_at(const char *path, const char *pointer)
{
    struct kit_reply reply = kit_get(&daemon_, path);
    long long n = json_integer_value(kit_at(reply.json, pointer));
    kit_reply_free(&reply);
    return n;
}

/* Item i is about the topics i % 20 and i / 20; a query says them in words
   that no item has. */
static void
test_fill(void **state)
{
    (void)state;
    char *text = malloc(N_ITEMS * 160);
    size_t len = 0;
    for (int i = 0; i < N_ITEMS; i++)
        len += (size_t)sprintf(text + len,
            "{\"id\":\"i%d\",\"text\":\"alpha%dq beta%dz thing\"}\n", i, i % 20,
            i / 20);
    struct kit_reply reply = kit_send(&daemon_, "PUT", D,
        "{\"dims\":64,\"encoder_config\":{\"buckets\":4096}}");
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    reply = send_lines(D "/items?outcomes=errors", text);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body, "\"errors\":false"));
    kit_reply_free(&reply);
    len = 0;
    for (int i = 0; i < N_PAIRS; i++)
        len += (size_t)sprintf(text + len,
            "{\"anchor\":{\"text\":\"gamma%dv delta%dw\"},\"positive\":"
            "{\"id\":\"i%d\"}}\n",
            i % 20, i / 20, i);
    reply = send_lines(D "/pairs?outcomes=errors", text);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body, "\"errors\":false"));
    kit_reply_free(&reply);
    free(text);
    assert_int_equal(integer_at(D, "/items"), N_ITEMS);
    assert_int_equal(integer_at(D, "/pairs/total"), N_PAIRS);
}

/* Start a round; its job. While it runs: 409 with the job, in three places. */
static void
test_round(void **state)
{
    (void)state;
    struct kit_reply reply =
        kit_send(&daemon_, "POST", A "/train", "{\"seed\":1}");
    if (reply.status != 202)
        print_error("%s\n", reply.body);
    assert_int_equal(reply.status, 202);
    long long job = json_integer_value(kit_at(reply.json, "/id"));
    char where[64];
    (void)snprintf(where, sizeof(where), "/v1/jobs/%lld", job);
    assert_string_equal(kit_header(&reply, "Location"), where);
    kit_reply_free(&reply);
    /* It may be over before the second one comes; then that one is a round. */
    reply = kit_send(&daemon_, "POST", A "/train", "{}");
    if (reply.status == 409) {
        assert_int_equal(json_integer_value(kit_at(reply.json, "/job")), job);
        assert_string_equal(kit_header(&reply, "Location"), where);
    } else {
        assert_int_equal(reply.status, 202);
    }
    kit_reply_free(&reply);
    /* The events until the end, and again from the middle. */
    (void)snprintf(where, sizeof(where), "/v1/jobs/%lld/events", job);
    reply = kit_get(&daemon_, where);
    assert_int_equal(reply.status, 200);
    assert_string_equal(
        kit_header(&reply, "Content-Type"), "text/event-stream");
    assert_non_null(strstr(reply.body, "event: progress"));
    assert_non_null(strstr(reply.body, "event: end"));
    const char *second = strstr(reply.body, "id: 2\n");
    kit_reply_free(&reply);
    if (second) {
        const struct kit_call later = {
            .path = where, .headers = {"Last-Event-ID: 1"}};
        reply = kit_do(&daemon_, &later);
        assert_null(strstr(reply.body, "id: 1\n"));
        assert_non_null(strstr(reply.body, "event: end"));
        kit_reply_free(&reply);
    }
    const char *end = kit_wait_job(&daemon_, job, 120);
    if (strcmp(end, "promoted") != 0) {
        (void)snprintf(where, sizeof(where), "/v1/jobs/%lld", job);
        reply = kit_get(&daemon_, where);
        print_error("%s: %.1500s\n", end, reply.body);
        kit_reply_free(&reply);
    }
    assert_string_equal(end, "promoted");
    trained = integer_at(D, "/generation");
    assert_true(trained > 1);
}

static void
test_answers_changed(void **state)
{
    (void)state;
    struct kit_reply reply = kit_send(
        &daemon_, "POST", D "/search", "{\"text\":\"gamma3v delta7w\"}");
    assert_int_equal(reply.status, 200);
    assert_int_equal(
        json_integer_value(kit_at(reply.json, "/generation")), trained);
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, D "/generations");
    assert_int_equal(
        json_array_size(kit_at(reply.json, "/generations")) >= 2, 1);
    assert_non_null(strstr(reply.body, "\"previous\""));
    assert_non_null(strstr(reply.body, "ndcg"));
    kit_reply_free(&reply);
    char path[96];
    (void)snprintf(path, sizeof(path), D "/generations/%lld/weights", trained);
    reply = kit_get(&daemon_, path);
    assert_int_equal(reply.status, 200);
    /* A safetensors file: the length of its header, then the header. */
    assert_true(reply.len > 1000);
    assert_int_equal(reply.body[8], '{');
    kit_reply_free(&reply);
}

/* Done at once, or by a job. */
static void
finish_switch(struct kit_reply *reply)
{
    if (reply->status == 202) {
        long long job = json_integer_value(kit_at(reply->json, "/id"));
        assert_string_equal(kit_wait_job(&daemon_, job, 60), "done");
    } else {
        assert_int_equal(reply->status, 200);
    }
    kit_reply_free(reply);
}

static void
test_rollback_and_promote(void **state)
{
    (void)state;
    struct kit_reply reply = kit_send(
        &daemon_, "PUT", D "/items/late", "{\"text\":\"alpha3q late\"}");
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "POST", A "/rollback", NULL);
    finish_switch(&reply);
    assert_int_equal(integer_at(D, "/generation"), 1);
    /* what was written since the switch is found in the old space too */
    reply = kit_send(
        &daemon_, "POST", D "/search", "{\"text\":\"alpha3q late\",\"k\":1}");
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/hits/0/id")), "late");
    kit_reply_free(&reply);
    char path[96];
    (void)snprintf(path, sizeof(path), A "/generations/%lld/promote", trained);
    reply = kit_send(&daemon_, "POST", path, "{}");
    finish_switch(&reply);
    assert_int_equal(integer_at(D, "/generation"), trained);
}

static void
test_cancel(void **state)
{
    (void)state;
    struct kit_reply reply =
        kit_send(&daemon_, "POST", A "/train", "{\"seed\":2,\"force\":true}");
    assert_int_equal(reply.status, 202);
    long long job = json_integer_value(kit_at(reply.json, "/id"));
    kit_reply_free(&reply);
    char path[64];
    (void)snprintf(path, sizeof(path), "/v1/jobs/%lld", job);
    reply = kit_send(&daemon_, "DELETE", D, NULL);
    bool running = reply.status == 409;
    kit_reply_free(&reply);
    if (!running) /* it was over already: nothing to cancel */
        skip();
    reply = kit_send(&daemon_, "DELETE", path, NULL);
    assert_true(reply.status == 202 || reply.status == 409);
    kit_reply_free(&reply);
    const char *end = kit_wait_job(&daemon_, job, 60);
    assert_true(strcmp(end, "cancelled") == 0 || strcmp(end, "promoted") == 0 ||
                strcmp(end, "refused") == 0);
}

static void
test_export_and_import(void **state)
{
    (void)state;
    long long n_items = integer_at(D, "/items");
    long long n_pairs = integer_at(D, "/pairs/total");
    struct kit_reply all = kit_get(&daemon_, A "/export");
    assert_int_equal(all.status, 200);
    struct kit_reply reply = kit_send(&daemon_, "PUT", "/v1/collections/copy",
        "{\"dims\":64,\"encoder_config\":{\"buckets\":4096}}");
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    reply = send_lines(
        "/v1/admin/collections/copy/import?outcomes=errors", all.body);
    assert_int_equal(reply.status, 200);
    if (!strstr(reply.body, "\"errors\":false"))
        print_error("%.500s\n", reply.body);
    assert_non_null(strstr(reply.body, "\"errors\":false"));
    kit_reply_free(&reply);
    kit_reply_free(&all);
    assert_int_equal(integer_at("/v1/collections/copy", "/items"), n_items);
    assert_int_equal(
        integer_at("/v1/collections/copy", "/pairs/total"), n_pairs);
}

/* The state is the same after a stop and a start. */
static void
test_start_again(void **state)
{
    (void)state;
    long long live = integer_at(D, "/generation");
    long long n_items = integer_at(D, "/items");
    assert_int_equal(kit_stop(&daemon_), 0);
    assert_true(kit_start_again(&daemon_, NULL));
    assert_int_equal(integer_at(D, "/generation"), live);
    assert_int_equal(integer_at(D, "/items"), n_items);
}

int
main(void)
{
    if (!kit_start(&daemon_, NULL)) {
        (void)fprintf(
            stderr, "the daemon did not start, see %s\n", daemon_.log);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_round),
        cmocka_unit_test(test_answers_changed),
        cmocka_unit_test(test_rollback_and_promote),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_export_and_import),
        cmocka_unit_test(test_start_again),
    };
    int failed = cmocka_run_group_tests_name("learn", tests, NULL, NULL);
    failed += kit_stop(&daemon_) != 0;
    kit_clean(&daemon_);
    return failed != 0;
}
