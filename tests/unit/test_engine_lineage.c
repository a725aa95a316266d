/*
 * Goal: a candidate becomes live in one step, with every item in its space,
 * while writes go on; what is discarded leaves nothing; going back is one
 * call; all of it holds over a restart. Jobs are told of, cancelled, resumed.
 * Method: candidates made by changing a clone's parameters; a writer thread
 * beside; after each step the store's own check and a search for every item.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/internal.h"
#include "tests/support/engine_kit.h"

#define N_ITEMS 3000

static void
text_of(char out[64], int i, int version)
{
    snprintf(out, 64, "thing %d of version %d, number %d", i, version, i * 31);
}

/* Items 0..N_ITEMS - 1 but every skip-th, in one array. */
static void
write_items(struct engine_kit *kit, int version, int skip)
{
    struct fault fault = {.err = OK};
    struct engine_item *items = calloc(N_ITEMS, sizeof(*items));
    struct engine_outcome *outcomes = calloc(N_ITEMS, sizeof(*outcomes));
    char(*texts)[64] = calloc(N_ITEMS, 64);
    char(*ids)[16] = calloc(N_ITEMS, 16);
    size_t n = 0;
    for (int i = 0; i < N_ITEMS; i++) {
        if (skip && i % skip == 0) {
            continue;
        }
        text_of(texts[n], i, version);
        snprintf(ids[n], 16, "i%d", i);
        items[n] = (struct engine_item){
            .id = ids[n], .text = engine_kit_text(texts[n])};
        n++;
    }
    assert_int_equal(
        engine_items_put(kit->engine, "docs", items, n, outcomes, &fault), OK);
    free(items);
    free(outcomes);
    free(texts);
    free(ids);
}

static void
fill(struct engine_kit *kit)
{
    engine_kit_collection(kit, "docs");
    write_items(kit, 0, 0);
}

static struct collection *
find(struct engine_kit *kit)
{
    struct collection *c;
    assert_int_equal(collection_find(kit->engine, "docs", &c, NULL), OK);
    return c;
}

/* A generation of other weights, registered as the shadow. */
static struct snapshot *
register_candidate(struct collection *c, float factor)
{
    struct fault fault = {.err = OK};
    struct snapshot *live = collection_live(c), *shadow;
    struct candidate candidate = {.temperature = 0.07, .seed = 3};
    assert_int_equal(
        encoder_clone(&candidate.encoder, encoder_ref_get(live->encoder)), OK);
    size_t n;
    float *params = encoder_params(candidate.encoder, &n);
    for (size_t i = 0; i < n; i += 2) {
        params[i] *= factor;
    }
    enum err err = lineage_register(c, &candidate, 0, &shadow, &fault);
    if (err) {
        fail_msg("register: %s %s", err_text(err), fault.detail);
    }
    snapshot_unref(live);
    return shadow;
}

/* The index has, bit by bit, the vectors that the file has. */
static void
check_index(struct engine_kit *kit, struct collection *c)
{
    struct snapshot *live = collection_live(c);
    size_t dims = c->fixed.dims, n;
    int64_t after = 0, items[256];
    float *vectors = calloc(256 * dims, sizeof(float));
    float *x = calloc(dims, sizeof(float));
    struct item_map map;
    assert_int_equal(item_map_new(&map, c->roster), OK);
    do {
        struct db *db;
        assert_int_equal(store_read_begin(kit->engine->store, &db), OK);
        assert_int_equal(vectors_read_block(db, live->index->space, after, 256,
                             (int)dims, items, vectors, &n),
            OK);
        store_read_end(kit->engine->store, db);
        for (size_t i = 0; i < n; i++) {
            uint32_t ord = item_map_find(&map, items[i]);
            assert_int_not_equal(ord, ROSTER_NONE);
            assert_int_equal(ann_get(live->index->ann, ord, x), OK);
            assert_memory_equal(x, vectors + i * dims, dims * sizeof(float));
            after = items[i];
        }
    } while (n == 256);
    item_map_release(&map);
    free(vectors);
    free(x);
    snapshot_unref(live);
}

/* Every item finds itself by its own text, and the file agrees. */
static void
check_all(struct engine_kit *kit, int64_t generation)
{
    struct fault fault = {.err = OK};
    struct collection *c = find(kit);
    struct snapshot *live = collection_live(c);
    assert_int_equal(live->generation, generation);
    assert_int_equal(ann_count(live->index->ann), roster_count(c->roster));
    struct engine_item_page page = {.next_cursor = NULL};
    do {
        engine_kit_fresh(kit);
        char cursor[32] = "";
        assert_int_equal(
            engine_items_list(kit->engine, "docs", page.next_cursor, 500, NULL,
                false, &kit->arena, &page, &fault),
            OK);
        for (size_t i = 0; i < page.n; i += 7) {
            struct engine_query q = ENGINE_QUERY_DEFAULT;
            struct engine_answer a;
            q.text = page.items[i].text;
            q.k = 3;
            assert_int_equal(
                engine_search(kit->engine, "docs", &q, &kit->arena, &a, &fault),
                OK);
            assert_int_equal(a.generation, generation);
            if (a.hits[0].cosine < 0.9999) {
                fail_msg("%s: %f", page.items[i].id, a.hits[0].cosine);
            }
        }
        if (page.next_cursor) {
            snprintf(cursor, sizeof(cursor), "%s", page.next_cursor);
            static char kept[32];
            memcpy(kept, cursor, sizeof(kept));
            page.next_cursor = kept;
        }
    } while (page.next_cursor);
    snapshot_unref(live);
    check_index(kit, c);
    enum err err = store_check(kit->engine->store, &fault);
    if (err) {
        fail_msg("store_check: %s", fault.detail);
    }
    collection_unref(c);
}

struct writer {
    struct engine_kit *kit;
    atomic_bool stop;
    int n;
};

static void *
write_on(void *arg)
{
    struct writer *w = arg;
    while (!w->stop) {
        char id[16], text[64];
        int i = (w->n * 7919) % (N_ITEMS + 500);
        snprintf(id, sizeof(id), "i%d", i);
        if (w->n % 11 == 3) {
            enum err err =
                engine_item_delete(w->kit->engine, "docs", id, NULL, NULL);
            assert_true(err == OK || err == ERR_NOT_FOUND);
        } else {
            text_of(text, i, w->n);
            engine_kit_put(w->kit, "docs", id, text, NULL);
        }
        w->n++;
    }
    return NULL;
}

static void
publish_under_writes_and_go_back(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    engine_kit_open(&kit);
    fill(&kit);
    struct writer w = {.kit = &kit};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
    struct collection *c = find(&kit);
    struct snapshot *shadow = register_candidate(c, 1.7f);
    struct reembed_options options = {.pool = kit.engine->tuner_pool};
    enum err err = ERR_CONFLICT;
    for (int i = 0; err == ERR_CONFLICT && i < 50; i++) {
        assert_int_equal(reembed_run(c, shadow, &options), OK);
        err = lineage_publish(
            c, shadow, 0.09, "{\"a\":1}", NULL, JOB_DONE, NULL, &fault);
    }
    assert_int_equal(err, OK);
    w.stop = true;
    pthread_join(thread, NULL);
    check_all(&kit, 2);
    w.stop = false;
    assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
    clock_sleep_ms(50);
    struct engine_switch done;
    err = engine_rollback(kit.engine, "docs", &done, &fault);
    if (err) {
        fail_msg("rollback: %s", fault.detail);
    }
    assert_int_equal(done.generation, 1);
    assert_int_equal(done.job_id, 0);
    clock_sleep_ms(50);
    w.stop = true;
    pthread_join(thread, NULL);
    assert_true(w.n > 20);
    snapshot_unref(shadow);
    collection_unref(c);
    check_all(&kit, 1);
    assert_int_equal(
        engine_generation_promote(kit.engine, "docs", 2, &done, &fault), OK);
    check_all(&kit, 2);
    engine_kit_reopen(&kit);
    check_all(&kit, 2);
    struct engine_answer a = engine_kit_search(&kit, "docs", "thing", 1, NULL);
    assert_true(a.temperature > 0.0899 && a.temperature < 0.0901);
    struct engine_generation *list;
    size_t n;
    assert_int_equal(engine_generations_list(
                         kit.engine, "docs", &kit.arena, &list, &n, &fault),
        OK);
    assert_int_equal(n, 2);
    assert_string_equal(list[0].state, "previous");
    assert_string_equal(list[1].state, "live");
    assert_string_equal(list[1].report_json, "{\"a\":1}");
    struct engine_stream *weights;
    assert_int_equal(
        engine_weights_new(&weights, kit.engine, "docs", 2, &fault), OK);
    struct buf chunk;
    bool end = false;
    buf_init(&chunk, 1 << 26);
    while (!end) {
        assert_int_equal(engine_stream_next(weights, &chunk, &end, &fault), OK);
    }
    assert_int_equal(chunk.len, engine_stream_bytes(weights));
    assert_int_equal(chunk.len, list[1].weights_bytes);
    buf_release(&chunk);
    engine_stream_free(weights);
    engine_kit_close(&kit);
}

static void
discard_leaves_nothing(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    engine_kit_open(&kit);
    fill(&kit);
    struct collection *c = find(&kit);
    struct snapshot *shadow = register_candidate(c, 0.3f);
    struct reembed_options options = {.pool = NULL};
    assert_int_equal(reembed_run(c, shadow, &options), OK);
    assert_int_equal(lineage_discard(c, shadow->generation, GENERATION_REFUSED,
                         "{\"no\":1}", &fault),
        OK);
    snapshot_unref(shadow);
    shadow = collection_shadow(c);
    assert_null(shadow);
    /* A candidate left by a crash: no job asks for it, it is discarded. */
    shadow = register_candidate(c, 0.4f);
    snapshot_unref(shadow);
    collection_unref(c);
    engine_kit_reopen(&kit);
    c = find(&kit);
    assert_null(collection_shadow(c));
    collection_unref(c);
    check_all(&kit, 1);
    struct engine_generation g;
    assert_int_equal(
        engine_generation_get(kit.engine, "docs", 2, &kit.arena, &g, &fault),
        OK);
    assert_string_equal(g.state, "refused");
    struct engine_switch done;
    assert_int_equal(
        engine_generation_promote(kit.engine, "docs", 3, &done, &fault),
        ERR_CONFLICT);
    assert_int_equal(
        engine_generation_promote(kit.engine, "docs", 9, &done, &fault),
        ERR_NOT_FOUND);
    assert_int_equal(
        engine_rollback(kit.engine, "docs", &done, &fault), ERR_CONFLICT);
    engine_kit_close(&kit);
}

struct told {
    int n;
    int64_t last;
    char end[256];
};

static void
hear(void *arg, const struct engine_event *event)
{
    struct told *told = arg;
    assert_true(event->id > told->last);
    told->last = event->id;
    told->n++;
    if (strcmp(event->type, "end") == 0) {
        snprintf(told->end, sizeof(told->end), "%s", event->data);
    }
}

static void
backup_job(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    engine_kit_open(&kit);
    fill(&kit);
    int64_t job;
    assert_int_equal(engine_backup_start(kit.engine, &job, &fault), OK);
    struct told told = {.n = 0};
    bool ended = false;
    for (int i = 0; !ended && i < 100; i++) {
        assert_int_equal(engine_job_wait_events(kit.engine, job, told.last, 100,
                             hear, &told, &ended, &fault),
            OK);
    }
    assert_non_null(strstr(told.end, "\"state\":\"done\""));
    assert_non_null(strstr(told.end, "backup-"));
    struct engine_backup *list;
    size_t n;
    assert_int_equal(
        engine_backups_list(kit.engine, &kit.arena, &list, &n, &fault), OK);
    assert_int_equal(n, 1);
    struct engine_stream *stream;
    assert_int_equal(
        engine_backup_open(&stream, kit.engine, list[0].name, &fault), OK);
    assert_int_equal(engine_stream_bytes(stream), list[0].bytes);
    engine_stream_free(stream);
    assert_int_equal(
        engine_backup_open(&stream, kit.engine, "../kindred", &fault),
        ERR_NOT_FOUND);
    assert_int_equal(engine_job_cancel(kit.engine, job, &fault), ERR_CONFLICT);
    assert_int_equal(
        engine_job_cancel(kit.engine, job + 7, &fault), ERR_NOT_FOUND);
    engine_kit_reopen(&kit);
    /* Of an earlier run only the end is known. */
    memset(&told, 0, sizeof(told));
    ended = false;
    assert_int_equal(
        engine_job_events(kit.engine, job, 0, hear, &told, &ended, &fault), OK);
    assert_true(ended);
    assert_int_equal(told.n, 1);
    struct engine_job *jobs;
    int64_t next;
    assert_int_equal(engine_jobs_list(kit.engine, NULL, 0, 0, &kit.arena, &jobs,
                         &n, &next, &fault),
        OK);
    assert_int_equal(n, 1);
    assert_string_equal(jobs[0].state, "done");
    engine_kit_close(&kit);
}

/* A rollback that lacks many vectors is a job; a stop in the middle of it is
   taken up at the next start. */
static void
long_rollback_is_a_job(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    engine_kit_open(&kit);
    fill(&kit);
    struct collection *c = find(&kit);
    struct snapshot *shadow = register_candidate(c, 1.5f);
    struct reembed_options options = {.pool = NULL};
    assert_int_equal(reembed_run(c, shadow, &options), OK);
    assert_int_equal(
        lineage_publish(c, shadow, 0.07, NULL, NULL, JOB_DONE, NULL, &fault),
        OK);
    snapshot_unref(shadow);
    collection_unref(c);
    write_items(&kit, 5, 4);
    struct engine_switch done;
    assert_int_equal(engine_rollback(kit.engine, "docs", &done, &fault), OK);
    assert_true(done.job_id > 0);
    struct engine_switch again;
    enum err err = engine_rollback(kit.engine, "docs", &again, &fault);
    if (err == ERR_CONFLICT) { /* unless it was quick */
        assert_int_equal(fault.extra_id, done.job_id);
    }
    engine_kit_reopen(&kit);
    struct told told = {.n = 0};
    bool ended = false;
    for (int i = 0; !ended && i < 100; i++) {
        assert_int_equal(engine_job_wait_events(kit.engine, done.job_id,
                             told.last, 100, hear, &told, &ended, &fault),
            OK);
    }
    assert_non_null(strstr(told.end, "\"state\":\"done\""));
    check_all(&kit, 1);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publish_under_writes_and_go_back),
        cmocka_unit_test(discard_leaves_nothing),
        cmocka_unit_test(backup_job),
        cmocka_unit_test(long_rollback_is_a_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
