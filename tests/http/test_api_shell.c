/*
 * Goal: the HTTP shell keeps its manners whatever a client does: deadlines,
 *   limits, streams in bounded memory, repeated requests, events, the drain.
 * Method: one daemon with short deadlines and small limits; requests through
 *   libcurl where a client behaves, through a plain socket where it does not.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/support/http_kit.h"

#define D "/v1/collections/docs"
#define NDJSON "application/x-ndjson"

static struct kit_daemon daemon_;

static const char *const flags[] = {"--header-deadline-ms", "400",
    "--body-deadline-ms", "500", "--keep-alive-ms", "1500", "--body-bytes-max",
    "65536", "--line-bytes-max", "4096", "--spool-memory-bytes", "4096",
    "--event-keep-alive-ms", "200", "--streams-max", "2", "--drain-ms", "5000",
    NULL};

static double
now_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What a raw exchange answers must begin with and hold. */
static void
expect_raw(const char *sent, const char *first, const char *contains)
{
    char *got = kit_raw(&daemon_, sent, strlen(sent), NULL);
    bool right = strncmp(got, first, strlen(first)) == 0 &&
                 (!contains || strstr(got, contains));
    if (!right)
        print_error("sent: %.60s\ngot: %.400s\n", sent, got);
    free(got);
    assert_true(right);
}

/* ---- methods, paths, headers ----------------------------------------------
 */

static const struct kit_case manners[] = {
    {"nothing there", {.path = "/v2"}, 404, NULL, "urn:kindred:problem"},
    {"trailing slash", {.path = "/healthz/"}, 404, NULL, NULL},
    {"wrong method", {.method = "DELETE", .path = "/healthz"}, 405, NULL,
        "GET, HEAD, OPTIONS"},
    {"unknown method", {.method = "BREW", .path = "/healthz"}, 405, NULL, NULL},
    {"OPTIONS", {.method = "OPTIONS", .path = D}, 204, NULL, NULL},
    {"HEAD", {.method = "HEAD", .path = "/v1/info"}, 200, NULL, NULL},
    {"HEAD of nothing", {.method = "HEAD", .path = D "/items/nope"}, 404, NULL,
        NULL},
    {"form instead of JSON",
        {.path = D "/search",
            .body = "{}",
            .type = "application/x-www-form-urlencoded"},
        415, NULL, "application/json"},
    {"JSON with a charset",
        {.path = D "/search",
            .body = "{\"text\":\"a\"}",
            .type = "application/json; charset=utf-8"},
        200, NULL, NULL},
    {"a body that a GET does not need",
        {.method = "GET",
            .path = "/healthz",
            .body = "x",
            .type = "text/plain"},
        200, NULL, "ok"},
    {"chunked",
        {.path = D "/search", .body = "{\"text\":\"a\"}", .chunked = true}, 200,
        NULL, NULL},
    {"a page of another site",
        {.path = "/v1/info", .headers = {"Origin: http://evil.example"}}, 403,
        NULL, "Origin"},
    {"our own page",
        {.path = "/v1/info",
            .headers = {"Origin: http://localhost:1", "Host: localhost:1"}},
        200, NULL, NULL},
    {"another name for loopback",
        {.path = "/v1/info", .headers = {"Host: evil.example"}}, 403, NULL,
        "Host"},
    {"a key where none is asked",
        {.path = "/v1/info", .headers = {"Authorization: Bearer nonsense"}},
        200, NULL, NULL},
};

static void
test_allow_header(void **state)
{
    (void)state;
    struct kit_reply reply = kit_send(&daemon_, "POST", D, NULL);
    assert_int_equal(reply.status, 405);
    assert_string_equal(
        kit_header(&reply, "Allow"), "PUT, GET, HEAD, PATCH, DELETE, OPTIONS");
    kit_reply_free(&reply);
}

static void
test_request_id(void **state)
{
    (void)state;
    const struct kit_call mine = {
        .path = "/healthz", .headers = {"X-Request-Id: mine-17"}};
    struct kit_reply reply = kit_do(&daemon_, &mine);
    assert_string_equal(kit_header(&reply, "X-Request-Id"), "mine-17");
    kit_reply_free(&reply);
    const struct kit_call bad = {
        .path = "/v2", .headers = {"X-Request-Id: a b\tc"}};
    reply = kit_do(&daemon_, &bad);
    const char *id = kit_header(&reply, "X-Request-Id");
    assert_non_null(id);
    assert_int_equal(strlen(id), 16);
    assert_string_equal(
        id, json_string_value(kit_at(reply.json, "/request_id")));
    kit_reply_free(&reply);
}

static void
test_pipelined(void **state)
{
    (void)state;
    char text[4096] = "";
    for (int i = 0; i < 20; i++)
        strcat(text, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    strcat(text, "GET /livez HTTP/1.1\r\nHost: localhost\r\n"
                 "Connection: close\r\n\r\n");
    char *got = kit_raw(&daemon_, text, strlen(text), NULL);
    int n = 0;
    for (const char *at = got; (at = strstr(at, "200 OK")); at++)
        n++;
    free(got);
    assert_int_equal(n, 21);
}

static void
test_malformed_http(void **state)
{
    (void)state;
    expect_raw("GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 400", NULL);
    expect_raw("POST " D "/search HTTP/1.1\r\nHost: localhost\r\n"
               "Content-Length: -5\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 400", NULL);
    char *big = malloc(100000);
    memset(big, 'a', 99999);
    big[99999] = '\0';
    memcpy(big, "GET / HTTP/1.1\r\nHost: localhost\r\nX: ", 36);
    expect_raw(big, "HTTP/1.1 431", NULL);
    free(big);
    /* and it still answers */
    struct kit_reply reply = kit_get(&daemon_, "/healthz");
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
}

/* ---- deadlines and limits --------------------------------------------------
 */

static void
expect_408(const char *sent, double within)
{
    double from = now_seconds();
    expect_raw(sent, "HTTP/1.1 408", "too-slow");
    assert_true(now_seconds() - from < within);
}

static void
test_slow_clients(void **state)
{
    (void)state;
    expect_408("", 1.5);
    expect_408("GET /healthz HTTP/1.1\r\nHost: loc", 1.5);
    expect_408("POST " D "/search HTTP/1.1\r\nHost: localhost\r\n"
               "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        1.5);
    expect_408("POST " D "/items HTTP/1.1\r\nHost: localhost\r\n"
               "Content-Type: " NDJSON "\r\nContent-Length: 100\r\n\r\n{",
        1.5);
    /* An idle connection is closed without a word. */
    double from = now_seconds();
    expect_raw(
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200", NULL);
    assert_true(now_seconds() - from < 4);
}

static void
test_body_limit(void **state)
{
    (void)state;
    size_t size = 3u << 20;
    char *body = malloc(size + 1);
    memset(body, 'a', size);
    body[size] = '\0';
    /* told beforehand, small enough to be read to its end */
    struct kit_call call = {
        .path = D "/search", .body = body, .body_len = 70000};
    struct kit_reply reply = kit_do(&daemon_, &call);
    assert_int_equal(reply.status, 413);
    assert_non_null(strstr(reply.body, "65536"));
    kit_reply_free(&reply);
    /* told beforehand, refused unread */
    call.body_len = size;
    reply = kit_do(&daemon_, &call);
    assert_int_equal(reply.status, 413);
    kit_reply_free(&reply);
    /* not told */
    call.chunked = true;
    reply = kit_do(&daemon_, &call);
    assert_true(reply.status == 413 || reply.status == 0);
    kit_reply_free(&reply);
    call.body_len = 70000;
    reply = kit_do(&daemon_, &call);
    assert_int_equal(reply.status, 413);
    kit_reply_free(&reply);
    free(body);
    /* with Expect, refused before any of it is sent */
    expect_raw("POST " D "/search HTTP/1.1\r\nHost: localhost\r\n"
               "Content-Type: application/json\r\nContent-Length: 99999999\r\n"
               "Expect: 100-continue\r\n\r\n",
        "HTTP/1.1 413", "65536");
    expect_raw("POST " D "/search HTTP/1.1\r\nHost: localhost\r\n"
               "Content-Type: application/json\r\nContent-Length: 12\r\n"
               "Connection: close\r\nExpect: 100-continue\r\n\r\n"
               "{\"text\":\"a\"}",
        "HTTP/1.1 100", "200 OK");
}

/* ---- NDJSON ----------------------------------------------------------------
 */

static void
test_lines(void **state)
{
    (void)state;
    char *text = calloc(1, 20000);
    strcpy(text, "{\"id\":\"l1\",\"text\":\"first\"}\r\n\n  \n{\"id\":\"l2\"");
    strcat(text, "\n{\"id\":\"l3\",\"text\":\"");
    memset(text + strlen(text), 'x', 9000);
    strcat(text, "\"}\n{\"id\":\"l4\",\"text\":\"dup\"}\n"
                 "{\"id\":\"l4\",\"text\":\"last\"}");
    const struct kit_call call = {
        .path = D "/items", .body = text, .type = NDJSON, .chunked = true};
    struct kit_reply reply = kit_do(&daemon_, &call);
    assert_int_equal(reply.status, 200);
    assert_string_equal(kit_header(&reply, "Content-Type"), NDJSON);
    /* blank lines are counted, not reported */
    assert_non_null(
        strstr(reply.body, "{\"line\":1,\"id\":\"l1\",\"status\":201"));
    assert_non_null(strstr(reply.body, "{\"line\":4,\"status\":400"));
    assert_non_null(strstr(reply.body, "{\"line\":5,\"status\":413"));
    assert_non_null(strstr(reply.body, "\"superseded_by\":7"));
    assert_non_null(strstr(reply.body, "{\"line\":7,\"id\":\"l4\""));
    assert_non_null(
        strstr(reply.body, "{\"lines\":5,\"refused\":2,\"errors\":true}\n"));
    kit_reply_free(&reply);
    free(text);
    reply = kit_get(&daemon_, D "/items/l4");
    assert_string_equal(json_string_value(kit_at(reply.json, "/text")), "last");
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, D "/items/l3");
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);
}

/* More outcomes than the spool keeps in memory; only errors; both in order. */
static void
test_many_lines(void **state)
{
    (void)state;
    size_t n = 20000;
    char *text = malloc(n * 64);
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += (size_t)sprintf(text + len,
            i % 1000 == 7 ? "{\"id\":\"m%zu\"\n"
                          : "{\"id\":\"m%zu\",\"text\":\"number %zu\"}\n",
            i, i);
    struct kit_call call = {
        .path = D "/items", .body = text, .body_len = len, .type = NDJSON};
    struct kit_reply reply = kit_do(&daemon_, &call);
    assert_int_equal(reply.status, 200);
    size_t line = 0;
    for (const char *at = reply.body; (at = strstr(at, "{\"line\":")); at++) {
        line++;
        assert_int_equal(strtoul(at + 8, NULL, 10), line);
    }
    assert_int_equal(line, n);
    assert_non_null(strstr(
        reply.body, "{\"lines\":20000,\"refused\":20,\"errors\":true}\n"));
    kit_reply_free(&reply);
    call.path = D "/items?outcomes=errors";
    reply = kit_do(&daemon_, &call);
    line = 0;
    for (const char *at = reply.body; (at = strstr(at, "{\"line\":")); at++)
        line++;
    assert_int_equal(line, 20);
    kit_reply_free(&reply);
    free(text);
}

struct upload {
    pthread_t thread;
    const char *text;
    bool right;
};

/* A slow upload by hand: the kit's curl is not for threads. */
static void *
slow_upload(void *arg)
{
    struct upload *upload = arg;
    char *got = kit_raw(&daemon_, upload->text, strlen(upload->text), NULL);
    upload->right = strstr(got, "{\"lines\":1,\"refused\":0") != NULL;
    free(got);
    return NULL;
}

/* More uploads at once than may have a bulk open: all are served. */
static void
test_uploads_at_once(void **state)
{
    (void)state;
    struct upload uploads[12];
    char texts[12][300];
    for (int i = 0; i < 12; i++) {
        char body[64];
        int n =
            snprintf(body, sizeof(body), "{\"id\":\"u%d\",\"text\":\"x\"}", i);
        (void)snprintf(texts[i], sizeof(texts[i]),
            "POST " D "/items HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: close\r\nContent-Type: " NDJSON
            "\r\nContent-Length: %d\r\n\r\n%s",
            n, body);
        uploads[i].text = texts[i];
        assert_int_equal(
            pthread_create(&uploads[i].thread, NULL, slow_upload, &uploads[i]),
            0);
    }
    for (int i = 0; i < 12; i++) {
        (void)pthread_join(uploads[i].thread, NULL);
        assert_true(uploads[i].right);
    }
}

/* An upload that breaks off: what was not acknowledged may be gone, and the
   daemon goes on. */
static void
test_broken_upload(void **state)
{
    (void)state;
    const char text[] = "POST " D "/items HTTP/1.1\r\nHost: localhost\r\n"
                        "Content-Type: " NDJSON "\r\nContent-Length: 5000\r\n"
                        "\r\n{\"id\":\"broken\",\"text\":\"x\"}\n";
    expect_raw(text, "HTTP/1.1 408", NULL);
    struct kit_reply reply = kit_get(&daemon_, "/healthz");
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
}

/* ---- repeated requests ------------------------------------------------------
 */

static void
test_idempotency(void **state)
{
    (void)state;
    struct kit_call call = {.path = D "/items",
        .body = "[{\"id\":\"k1\",\"text\":\"once\"}]",
        .headers = {"Idempotency-Key: key-1"}};
    struct kit_reply first = kit_do(&daemon_, &call);
    struct kit_reply second = kit_do(&daemon_, &call);
    assert_int_equal(first.status, 200);
    assert_int_equal(second.status, 200);
    assert_string_equal(first.body, second.body);
    assert_null(kit_header(&first, "Idempotency-Replayed"));
    assert_string_equal(kit_header(&second, "Idempotency-Replayed"), "true");
    kit_reply_free(&first);
    kit_reply_free(&second);
    call.body = "[{\"id\":\"k1\",\"text\":\"twice\"}]";
    first = kit_do(&daemon_, &call);
    assert_int_equal(first.status, 422);
    kit_reply_free(&first);
    first = kit_get(&daemon_, D "/items/k1");
    assert_string_equal(json_string_value(kit_at(first.json, "/text")), "once");
    kit_reply_free(&first);
    /* a refusal is an answer too */
    call.body = "[{\"id\":5}]";
    call.headers[0] = "Idempotency-Key: key-2";
    first = kit_do(&daemon_, &call);
    second = kit_do(&daemon_, &call);
    assert_int_equal(first.status, 422);
    assert_int_equal(second.status, 422);
    assert_string_equal(kit_header(&second, "Idempotency-Replayed"), "true");
    kit_reply_free(&first);
    kit_reply_free(&second);
}

/* ---- conditions
 * -------------------------------------------------------------- */

static void
test_conditions(void **state)
{
    (void)state;
    struct kit_reply reply =
        kit_send(&daemon_, "PUT", D "/items/etag", "{\"text\":\"one\"}");
    assert_int_equal(reply.status, 201);
    char match[64];
    (void)snprintf(match, sizeof(match), "If-Match: \"1\", %s",
        kit_header(&reply, "ETag"));
    char none[64];
    (void)snprintf(
        none, sizeof(none), "If-None-Match: %s", kit_header(&reply, "ETag"));
    kit_reply_free(&reply);
    const struct kit_call same = {.path = D "/items/etag", .headers = {none}};
    reply = kit_do(&daemon_, &same);
    assert_int_equal(reply.status, 304);
    assert_int_equal(reply.len, 0);
    kit_reply_free(&reply);
    const struct kit_call put = {.method = "PUT",
        .path = D "/items/etag",
        .body = "{\"text\":\"two\"}",
        .headers = {match}};
    reply = kit_do(&daemon_, &put);
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_do(&daemon_, &put); /* the tag has moved on */
    assert_int_equal(reply.status, 412);
    kit_reply_free(&reply);
    reply = kit_do(&daemon_, &same);
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
}

/* ---- the end
 * ------------------------------------------------------------------ */

static void
test_metrics_count(void **state)
{
    (void)state;
    struct kit_reply reply = kit_get(&daemon_, "/metrics");
    assert_int_equal(reply.status, 200);
    static const char *const wanted[] = {
        "kindred_http_requests_total{route=\"search\",status=\"200\"}",
        "kindred_http_request_seconds_bucket{route=\"search\",le=\"+Inf\"}",
        "kindred_http_deadlines_total ",
        "kindred_collection_items{collection=\"docs\"}",
        "kindred_collection_generation{collection=\"docs\"} 1",
        "kindred_searches_total ", "kindred_commits_total ",
        "kindred_resident_bytes "};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (!strstr(reply.body, wanted[i]))
            print_error("missing: %s\n", wanted[i]);
        assert_non_null(strstr(reply.body, wanted[i]));
    }
    assert_null(strstr(reply.body, "kindred_http_deadlines_total 0\n"));
    kit_reply_free(&reply);
}

static void
test_hang_up(void **state)
{
    (void)state;
    (void)kill(daemon_.pid, SIGHUP);
    for (int i = 0; i < 20; i++) {
        struct kit_reply reply = kit_get(&daemon_, "/healthz");
        assert_int_equal(reply.status, 200);
        kit_reply_free(&reply);
    }
}

/* Requests that run when SIGTERM comes are answered; exit code 0. */
static void
test_drain(void **state)
{
    (void)state;
    struct upload uploads[6];
    char texts[6][300];
    for (int i = 0; i < 6; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]),
            "POST " D "/items HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: " NDJSON "\r\nContent-Length: 26\r\n\r\n"
            "{\"id\":\"drain%d\",\"text\":\"x\"}",
            i);
        uploads[i].text = texts[i];
        (void)pthread_create(
            &uploads[i].thread, NULL, slow_upload, &uploads[i]);
    }
    struct timespec t = {.tv_nsec = 50000000};
    (void)nanosleep(&t, NULL);
    double from = now_seconds();
    assert_int_equal(kit_stop(&daemon_), 0);
    assert_true(now_seconds() - from < 10);
    for (int i = 0; i < 6; i++)
        (void)pthread_join(uploads[i].thread, NULL);
    /* What was acknowledged is there after a start. */
    int n_right = 0;
    assert_true(kit_start_again(&daemon_, flags));
    for (int i = 0; i < 6; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), D "/items/drain%d", i);
        struct kit_reply reply = kit_get(&daemon_, path);
        assert_true(!uploads[i].right || reply.status == 200);
        n_right += uploads[i].right;
        kit_reply_free(&reply);
    }
    assert_true(n_right > 0); /* or the drain was not looked at */
}

int
main(void)
{
    if (!kit_start(&daemon_, flags)) {
        (void)fprintf(
            stderr, "the daemon did not start, see %s\n", daemon_.log);
        return 1;
    }
    kit_table_daemon = &daemon_;
    struct kit_reply reply = kit_send(&daemon_, "PUT", D, "{}");
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "PUT", D "/items/a", "{\"text\":\"first\"}");
    kit_reply_free(&reply);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allow_header),
        cmocka_unit_test(test_request_id),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_malformed_http),
        cmocka_unit_test(test_slow_clients),
        cmocka_unit_test(test_body_limit),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_many_lines),
        cmocka_unit_test(test_uploads_at_once),
        cmocka_unit_test(test_broken_upload),
        cmocka_unit_test(test_idempotency),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_metrics_count),
        cmocka_unit_test(test_hang_up),
        cmocka_unit_test(test_drain),
    };
    int failed =
        kit_run_cases("manners", manners, sizeof(manners) / sizeof(manners[0]));
    failed += cmocka_run_group_tests_name("shell", tests, NULL, NULL);
    failed += kit_stop(&daemon_) != 0;
    kit_clean(&daemon_);
    return failed != 0;
}
