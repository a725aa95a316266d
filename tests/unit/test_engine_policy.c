/*
 * Goal: a policy starts rounds by itself, once for the pairs that came; a
 * round runs through the jobs' table to a judged end; it can be cancelled; a
 * second one is refused with the first one's id.
 * Method: a small collection of topics, pairs whose groups are the topics,
 * minima of a few.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/engine_kit.h"

#define ITEMS 400
#define WAIT_MS 60000

static void
fill(struct engine_kit *kit)
{
    engine_kit_collection(kit, "docs");
    struct engine_item *items = calloc(ITEMS, sizeof(*items));
    struct engine_outcome *outcomes = calloc(ITEMS, sizeof(*outcomes));
    char(*texts)[96] = calloc(ITEMS, 96);
    char(*ids)[16] = calloc(ITEMS, 16);
    for (int i = 0; i < ITEMS; i++) {
        snprintf(ids[i], 16, "i%d", i);
        snprintf(texts[i], 96, "topic%d subject%d filler words of no use %d",
            i / 4, i, i % 9);
        items[i] = (struct engine_item){
            .id = ids[i], .text = engine_kit_text(texts[i])};
    }
    struct fault fault = {.err = OK};
    assert_int_equal(
        engine_items_put(kit->engine, "docs", items, ITEMS, outcomes, &fault),
        OK);
    free(items);
    free(outcomes);
    free(texts);
    free(ids);
}

static void
post_pairs(struct engine_kit *kit)
{
    struct fault fault = {.err = OK};
    for (int i = 0; i < ITEMS; i++) {
        char anchor[64], id[16], group[16];
        snprintf(anchor, sizeof(anchor), "question about wish%d", i);
        snprintf(id, sizeof(id), "i%d", i);
        snprintf(group, sizeof(group), "g%d", i / 4);
        struct engine_pair p = {.anchor = {.text = engine_kit_text(anchor)},
            .positive = {.id = id},
            .weight = 1,
            .group = group};
        struct engine_outcome o;
        assert_int_equal(
            engine_pairs_add(kit->engine, "docs", &p, 1, &o, &fault), OK);
    }
}

/* The newest job of the collection once it has ended; NULL after a while. */
static const struct engine_job *
wait_for_end(struct engine_kit *kit, size_t *n)
{
    static struct engine_job job;
    int64_t until = clock_mono_ms() + WAIT_MS;
    while (clock_mono_ms() < until) {
        struct engine_job *jobs;
        int64_t next;
        struct fault fault = {.err = OK};
        engine_kit_fresh(kit);
        assert_int_equal(engine_jobs_list(kit->engine, "docs", 0, 10,
                             &kit->arena, &jobs, n, &next, &fault),
            OK);
        if (*n && jobs[0].finished_ms) {
            job = jobs[0];
            return &job;
        }
        clock_sleep_ms(50);
    }
    return NULL;
}

static void
policy_starts_a_round(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct engine_collection_info info;
    engine_kit_open(&kit);
    fill(&kit);
    post_pairs(&kit);
    assert_int_equal(engine_collection_patch(kit.engine, "docs",
                         "{\"train\":{\"every_pairs\":100,\"min_pairs\":50,"
                         "\"min_groups\":5}}",
                         &kit.arena, &info, &fault),
        OK);
    size_t n;
    const struct engine_job *job = wait_for_end(&kit, &n);
    assert_non_null(job);
    assert_string_equal(job->kind, "train");
    if (strcmp(job->state, "promoted") != 0 &&
        strcmp(job->state, "refused") != 0) {
        fail_msg("%s: %s", job->state, job->error ? job->error : "");
    }
    assert_non_null(strstr(job->result_json, "reason"));
    /* No pairs came since: no other round. */
    clock_sleep_ms(2500);
    assert_non_null(wait_for_end(&kit, &n));
    assert_int_equal(n, 1);
    engine_kit_close(&kit);
}

static void
refused_and_cancelled(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct engine_collection_info info;
    engine_kit_open(&kit);
    fill(&kit);
    int64_t job, second;
    assert_int_equal(
        engine_train(kit.engine, "docs", NULL, &job, &fault), ERR_INVALID);
    assert_non_null(strstr(fault.detail, "200"));
    assert_int_equal(engine_collection_patch(kit.engine, "docs",
                         "{\"train\":{\"min_pairs\":50,\"min_groups\":5}}",
                         &kit.arena, &info, &fault),
        OK);
    post_pairs(&kit);
    assert_int_equal(
        engine_train(kit.engine, "docs", "{\"nope\":1}", &job, &fault),
        ERR_INVALID);
    assert_int_equal(engine_train(kit.engine, "docs", NULL, &job, &fault), OK);
    fault = (struct fault){.err = OK};
    enum err err = engine_train(kit.engine, "docs", NULL, &second, &fault);
    if (err) { /* unless the first was quick */
        assert_int_equal(err, ERR_CONFLICT);
        assert_int_equal(fault.extra_id, job);
    }
    err = engine_job_cancel(kit.engine, job, &fault);
    assert_true(err == OK || err == ERR_CONFLICT);
    size_t n;
    const struct engine_job *ended = wait_for_end(&kit, &n);
    assert_non_null(ended);
    if (!err && n == 1) {
        assert_string_equal(ended->state, "cancelled");
    }
    assert_int_equal(
        engine_collection_get(kit.engine, "docs", &kit.arena, &info, &fault),
        OK);
    assert_int_equal(info.generation_building, 0);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_starts_a_round),
        cmocka_unit_test(refused_and_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
