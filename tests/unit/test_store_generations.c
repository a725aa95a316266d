/*
 * Goal: exactly one generation is live; a switch is whole or not at all, and
 * refused unless every item has its vector; what nobody needs goes, what is
 * kept stays; weights are readable only when complete and undamaged.
 * Method: a lineage walked through by hand: promotions, rollback, refusal,
 * discarding, pinning, reviving; blobs of sizes around the chunk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sqlite3.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "store/jobs.h"
#include "store/purge.h"
#include "store/weights.h"
#include "tests/support/store_kit.h"

static struct db *
begin(struct kit *kit)
{
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    return db;
}

static struct generation_row
get(struct kit *kit, int64_t generation)
{
    struct generation_row row;
    struct db *db = begin(kit);

    assert_int_equal(
        generations_get(db, kit->collection, generation, &kit->arena, &row),
        OK);
    store_read_end(kit->store, db);
    return row;
}

static struct collection_row
get_collection(struct kit *kit)
{
    struct collection_row row;
    struct db *db = begin(kit);

    assert_int_equal(
        collections_get(db, kit->collection, &kit->arena, &row), OK);
    store_read_end(kit->store, db);
    return row;
}

struct call {
    int64_t collection, generation;
    enum generation_state state;
    bool pinned;
    int64_t number;
    const int64_t *keep;
    size_t n_keep, n;
};

static enum err
op_end(struct db *db, void *arg)
{
    struct call *c = arg;

    return generations_end(db, c->collection, c->generation, c->state);
}

static enum err
op_pin(struct db *db, void *arg)
{
    struct call *c = arg;

    return generations_set_pinned(db, c->collection, c->generation, c->pinned);
}

static enum err
op_shadow(struct db *db, void *arg)
{
    struct call *c = arg;

    return generations_set_shadow(db, c->collection, c->generation, &c->number);
}

static enum err
op_revive(struct db *db, void *arg)
{
    struct call *c = arg;

    return generations_revive(db, c->collection, c->generation, &c->number);
}

static enum err
op_facts(struct db *db, void *arg)
{
    struct call *c = arg;
    enum err err = generations_set_report(
        db, c->collection, c->generation, store_text_of("{\"r\":1}"));

    if (err == OK) {
        err = generations_set_temperature(
            db, c->collection, c->generation, 0.125);
    }
    if (err == OK) {
        err = generations_count_judge(
            db, c->collection, c->generation, &c->number);
    }
    return err;
}

static enum err
op_discard(struct db *db, void *arg)
{
    struct call *c = arg;

    return generations_discard_building(db, c->keep, c->n_keep, &c->n);
}

static enum err
op_expect(struct db *db, void *arg)
{
    struct call *c = arg;

    return collections_expect(db, c->collection, c->generation, c->number);
}

static void
open_with_items(struct kit *kit, struct call *call)
{
    kit_open(kit, NULL);
    kit_make_collection(kit, "c");
    assert_int_equal(kit_put_items(kit, "i", 5, 1, true), OK);
    *call = (struct call){.collection = kit->collection};
}

static void
test_first(void **state)
{
    struct generation_row row;
    struct call call;
    struct kit kit;
    (void)state;

    open_with_items(&kit, &call);
    row = get(&kit, 1);
    assert_int_equal(row.state, GENERATION_LIVE);
    assert_string_equal(generation_state_name(row.state), "live");
    assert_int_equal(row.parent, 0);
    assert_int_equal(row.fingerprint[0], 1);
    assert_true(row.space_kept);
    assert_int_equal(row.weights, WEIGHTS_NONE);
    assert_true(row.seed == 0xfedcba9876543210);
    assert_null(row.report.s);
    assert_int_equal(row.published_ms, 1000);
    assert_int_equal(get_collection(&kit).live_generation, 1);
    assert_int_equal(get_collection(&kit).next_generation, 2);

    call.generation = 1;
    assert_int_equal(store_run(kit.store, op_facts, &call), OK);
    assert_int_equal(call.number, 1);
    assert_int_equal(store_run(kit.store, op_facts, &call), OK);
    assert_int_equal(call.number, 2);
    row = get(&kit, 1);
    assert_string_equal(row.report.s, "{\"r\":1}");
    assert_true(row.temperature == 0.125);
    assert_int_equal(row.judge_uses, 2);
    call.generation = 9;
    assert_int_equal(store_run(kit.store, op_facts, &call), ERR_NOT_FOUND);
    kit_close(&kit);
}

static void
test_promote_and_roll_back(void **state)
{
    int64_t id, second, third, space, space3;
    struct call call;
    struct kit kit;
    (void)state;

    open_with_items(&kit, &call);
    kit_make_generation(&kit, 2, &id, &second, &space);
    assert_int_equal(second, 2);
    assert_int_equal(get(&kit, 2).state, GENERATION_BUILDING);
    /* Not before each item has its vector. */
    assert_int_equal(kit_publish(&kit, 2, 1), ERR_CONFLICT);
    assert_int_equal(kit_backfill(&kit, space), 5);
    assert_int_equal(kit_publish(&kit, 2, 5), ERR_CONFLICT);
    assert_int_equal(kit_publish(&kit, 7, 1), ERR_NOT_FOUND);
    assert_int_equal(kit_publish(&kit, 2, 1), OK);
    assert_int_equal(get(&kit, 1).state, GENERATION_PREVIOUS);
    assert_int_equal(get(&kit, 2).state, GENERATION_LIVE);
    assert_int_equal(get(&kit, 2).published_ms, 3000);
    assert_int_equal(get_collection(&kit).previous_generation, 1);
    assert_int_equal(get_collection(&kit).pairs_seen, 7);
    kit_check(&kit);

    /* Back and forth; publishing the live one is nothing. */
    assert_int_equal(kit_publish(&kit, 1, 2), OK);
    assert_int_equal(get(&kit, 1).state, GENERATION_LIVE);
    assert_int_equal(get(&kit, 2).state, GENERATION_PREVIOUS);
    assert_int_equal(kit_publish(&kit, 1, 1), OK);
    kit_check(&kit);
    assert_int_equal(kit_publish(&kit, 2, 1), OK);

    /* A third: the first is retired, its space goes. */
    kit_make_generation(&kit, 3, &id, &third, &space3);
    assert_int_equal(kit_backfill(&kit, space3), 5);
    assert_int_equal(kit_publish(&kit, 3, 2), OK);
    assert_int_equal(get(&kit, 1).state, GENERATION_RETIRED);
    assert_false(get(&kit, 1).space_kept);
    assert_true(get(&kit, 2).space_kept);
    assert_int_equal(kit_publish(&kit, 1, 3), ERR_CONFLICT);
    kit_check(&kit);
    int64_t n = 0;
    assert_int_equal(purge_run(kit.store, NULL, &n), OK);
    assert_int_equal(n, 5 + 1); /* vectors and the space itself */
    kit_check(&kit);

    /* Seed-only: it can be made again from nothing. */
    call.generation = 1;
    assert_int_equal(store_run(kit.store, op_revive, &call), OK);
    assert_int_equal(get(&kit, 1).state, GENERATION_BUILDING);
    assert_int_equal(kit_backfill(&kit, call.number), 5);
    kit.space = call.number;
    assert_int_equal(kit_publish(&kit, 1, 3), OK);
    assert_int_equal(get(&kit, 1).state, GENERATION_LIVE);
    assert_int_equal(get(&kit, 2).state, GENERATION_RETIRED);
    kit_check(&kit);
    kit_close(&kit);
}

/* A new generation in the live space: nothing to embed, nothing to purge. */
static void
test_same_space(void **state)
{
    int64_t id, second, space;
    struct call call;
    struct kit kit;
    (void)state;

    open_with_items(&kit, &call);
    kit_make_generation(&kit, 1, &id, &second, &space);
    assert_int_equal(space, kit.space);
    assert_int_equal(kit_publish(&kit, 2, 1), OK);
    call.generation = 2;
    kit_check(&kit);
    assert_true(get(&kit, 1).space_kept);
    kit_close(&kit);
}

static void
test_shadow(void **state)
{
    int64_t id, second, space;
    struct call call;
    struct kit kit;
    (void)state;

    open_with_items(&kit, &call);
    kit_make_generation(&kit, 2, &id, &second, &space);
    struct call expect = {
        .collection = kit.collection, .generation = 1, .number = 0};
    assert_int_equal(store_run(kit.store, op_expect, &expect), OK);
    call.generation = 2;
    assert_int_equal(store_run(kit.store, op_shadow, &call), OK);
    assert_int_equal(call.number, 5); /* five changes so far */
    assert_int_equal(store_run(kit.store, op_expect, &expect), ERR_CONFLICT);
    expect.number = 2;
    assert_int_equal(store_run(kit.store, op_expect, &expect), OK);
    expect.generation = 2;
    assert_int_equal(store_run(kit.store, op_expect, &expect), ERR_CONFLICT);
    kit_check(&kit);

    call.generation = 1;
    assert_int_equal(store_run(kit.store, op_shadow, &call), ERR_CONFLICT);
    call.generation = 8;
    assert_int_equal(store_run(kit.store, op_shadow, &call), ERR_NOT_FOUND);
    call.generation = 2;
    call.state = GENERATION_REFUSED;
    assert_int_equal(store_run(kit.store, op_end, &call), OK);
    assert_int_equal(get_collection(&kit).shadow_generation, 0);
    assert_int_equal(store_run(kit.store, op_end, &call), ERR_CONFLICT);
    call.generation = 0;
    assert_int_equal(store_run(kit.store, op_shadow, &call), OK);
    expect.collection = 99;
    assert_int_equal(store_run(kit.store, op_expect, &expect), ERR_NOT_FOUND);
    kit_check(&kit);
    kit_close(&kit);
}

static void
test_refused_keeps_weights_for_a_while(void **state)
{
    int64_t id2, id3, number, space;
    struct call call;
    struct kit kit;
    void *bytes = NULL;
    size_t n = 0;
    (void)state;

    open_with_items(&kit, &call);
    kit_make_generation(&kit, 2, &id2, &number, &space);
    assert_int_equal(weights_save(kit.store, id2, "weights", 7), OK);
    call.generation = 2;
    call.state = GENERATION_REFUSED;
    assert_int_equal(store_run(kit.store, op_end, &call), OK);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    assert_int_equal(weights_load(kit.store, id2, &bytes, &n), OK);
    mem_free(bytes);
    assert_false(get(&kit, 2).space_kept);

    /* It may be forced while it is the newest. */
    assert_int_equal(kit_publish(&kit, 2, 1), ERR_CONFLICT);
    assert_int_equal(store_run(kit.store, op_revive, &call), OK);
    assert_int_equal(store_run(kit.store, op_revive, &call), ERR_CONFLICT);
    assert_int_equal(kit_backfill(&kit, call.number), 5);
    assert_int_equal(store_run(kit.store, op_end, &call), OK);

    /* The next one ends that. */
    kit_make_generation(&kit, 3, &id3, &number, &space);
    assert_int_equal(weights_save(kit.store, id3, "weights", 7), OK);
    call.generation = 3;
    call.state = GENERATION_DISCARDED;
    assert_int_equal(store_run(kit.store, op_end, &call), OK);
    assert_int_equal(weights_load(kit.store, id2, &bytes, &n), ERR_NOT_FOUND);
    assert_int_equal(weights_load(kit.store, id3, &bytes, &n), ERR_NOT_FOUND);
    assert_int_equal(get(&kit, 2).weights, WEIGHTS_DROPPED);
    call.generation = 2;
    assert_int_equal(store_run(kit.store, op_revive, &call), ERR_CONFLICT);
    kit_check(&kit);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    kit_check(&kit);
    kit_close(&kit);
}

static void
test_pinned(void **state)
{
    int64_t id, number, space2, space3;
    struct call call;
    struct kit kit;
    (void)state;

    open_with_items(&kit, &call);
    call.generation = 1;
    call.pinned = true;
    assert_int_equal(store_run(kit.store, op_pin, &call), OK);
    kit_make_generation(&kit, 2, &id, &number, &space2);
    assert_int_equal(kit_backfill(&kit, space2), 5);
    assert_int_equal(kit_publish(&kit, 2, 1), OK);
    kit_make_generation(&kit, 3, &id, &number, &space3);
    assert_int_equal(kit_backfill(&kit, space3), 5);
    assert_int_equal(kit_publish(&kit, 3, 2), OK);
    assert_int_equal(get(&kit, 1).state, GENERATION_RETIRED);
    assert_true(get(&kit, 1).space_kept);
    assert_true(get(&kit, 1).pinned);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    assert_int_equal(kit_publish(&kit, 1, 3), OK); /* whole: at once */
    assert_int_equal(kit_publish(&kit, 3, 1), OK);
    assert_int_equal(get(&kit, 2).state, GENERATION_RETIRED);
    call.pinned = false;
    assert_int_equal(store_run(kit.store, op_pin, &call), OK);
    assert_true(get(&kit, 1).space_kept); /* it is the previous one */
    call.generation = 2;
    call.pinned = true;
    assert_int_equal(store_run(kit.store, op_pin, &call), ERR_CONFLICT);
    call.generation = 55;
    assert_int_equal(store_run(kit.store, op_pin, &call), ERR_NOT_FOUND);
    kit_check(&kit);
    kit_close(&kit);
}

static void
test_discard_at_start(void **state)
{
    int64_t keep, id, number, space;
    struct call call;
    struct kit kit;
    (void)state;

    open_with_items(&kit, &call);
    kit_make_generation(&kit, 2, &keep, &number, &space);
    kit_make_generation(&kit, 3, &id, &number, &space);
    call.generation = 3;
    assert_int_equal(store_run(kit.store, op_shadow, &call), OK);
    call.keep = &keep;
    call.n_keep = 1;
    assert_int_equal(store_run(kit.store, op_discard, &call), OK);
    assert_int_equal(call.n, 1);
    assert_int_equal(get(&kit, 2).state, GENERATION_BUILDING);
    assert_int_equal(get(&kit, 3).state, GENERATION_DISCARDED);
    assert_int_equal(get_collection(&kit).shadow_generation, 0);
    call.n_keep = 0;
    assert_int_equal(store_run(kit.store, op_discard, &call), OK);
    assert_int_equal(call.n, 1);
    kit_check(&kit);
    kit_close(&kit);
}

/* ---- weights ------------------------------------------------------------- */

/* The same bytes in pieces of another size, and nothing after them. */
static void
check_reader(struct kit *kit, int64_t id, const unsigned char *bytes, size_t n)
{
    struct weights_reader *reader;
    unsigned char piece[50000];
    uint64_t n_bytes;
    assert_int_equal(weights_open(&reader, kit->store, id, &n_bytes), OK);
    assert_int_equal(n_bytes, n);
    for (size_t at = 0; at < n;) {
        size_t part = n - at < sizeof(piece) ? n - at : sizeof(piece);
        assert_int_equal(weights_next(reader, piece, part), OK);
        assert_memory_equal(piece, bytes + at, part);
        at += part;
    }
    assert_int_equal(weights_next(reader, piece, 1), ERR_CORRUPT);
    weights_close(reader);
    assert_int_equal(
        weights_open(&reader, kit->store, 4711, &n_bytes), ERR_NOT_FOUND);
}

static void
test_weights_sizes(void **state)
{
    static const size_t SIZES[] = {0, 1, WEIGHTS_CHUNK_BYTES - 1,
        WEIGHTS_CHUNK_BYTES, WEIGHTS_CHUNK_BYTES + 1,
        3 * WEIGHTS_CHUNK_BYTES + 12345};
    unsigned char *bytes = mem_alloc(4 * WEIGHTS_CHUNK_BYTES, 1);
    struct rng rng;
    struct kit kit;
    struct call call;
    (void)state;

    rng_seed(&rng, 5);
    for (size_t i = 0; i < 4 * WEIGHTS_CHUNK_BYTES; i++) {
        bytes[i] = (unsigned char)rng_u64(&rng);
    }
    open_with_items(&kit, &call);
    for (size_t s = 0; s < sizeof(SIZES) / sizeof(SIZES[0]); s++) {
        struct weights_writer *writer = NULL;
        uint8_t sha[SHA256_BYTES], expected[SHA256_BYTES];
        int64_t id, number, space;
        void *back = NULL;
        size_t n = 0, at = 0;
        kit_make_generation(&kit, 2, &id, &number, &space);
        assert_int_equal(weights_create(&writer, kit.store, id), OK);
        assert_int_equal(weights_load(kit.store, id, &back, &n), ERR_NOT_FOUND);
        while (at < SIZES[s]) {
            size_t part = 1 + rng_below(&rng, 700000);
            part = part > SIZES[s] - at ? SIZES[s] - at : part;
            assert_int_equal(weights_add(writer, bytes + at, part), OK);
            at += part;
        }
        assert_int_equal(weights_load(kit.store, id, &back, &n), ERR_NOT_FOUND);
        assert_int_equal(weights_finish(writer, sha), OK);
        sha256_of(bytes, SIZES[s], expected);
        assert_memory_equal(sha, expected, SHA256_BYTES);
        assert_int_equal(weights_load(kit.store, id, &back, &n), OK);
        assert_int_equal(n, SIZES[s]);
        assert_memory_equal(back, bytes, n);
        mem_free(back);
        check_reader(&kit, id, bytes, SIZES[s]);
        assert_int_equal(get(&kit, number).weights_bytes, (int64_t)SIZES[s]);
        assert_memory_equal(
            get(&kit, number).weights_sha256, expected, SHA256_BYTES);
    }
    kit_check(&kit);
    kit_close(&kit);
    mem_free(bytes);
}

static void
test_weights_states(void **state)
{
    struct weights_writer *writer = NULL;
    int64_t id, number, space;
    struct kit kit;
    struct call call;
    void *back = NULL;
    size_t n = 0;
    (void)state;

    open_with_items(&kit, &call);
    assert_int_equal(weights_create(&writer, kit.store, 4711), ERR_NOT_FOUND);
    assert_int_equal(weights_create(&writer, kit.store, kit.generation_id),
        ERR_CONFLICT); /* live */
    assert_int_equal(weights_load(kit.store, 4711, &back, &n), ERR_NOT_FOUND);

    /* Given up, then done again; the old bytes do not shine through. */
    kit_make_generation(&kit, 2, &id, &number, &space);
    unsigned char *bytes = mem_calloc(3, WEIGHTS_CHUNK_BYTES);
    assert_int_equal(weights_create(&writer, kit.store, id), OK);
    assert_int_equal(weights_add(writer, bytes, 3 * WEIGHTS_CHUNK_BYTES), OK);
    weights_abort(writer);
    assert_int_equal(get(&kit, number).weights, WEIGHTS_PARTIAL);
    assert_int_equal(kit_backfill(&kit, space), 5);
    assert_int_equal(kit_publish(&kit, number, 1), ERR_CONFLICT);
    assert_int_equal(weights_save(kit.store, id, "short", 5), OK);
    assert_int_equal(weights_load(kit.store, id, &back, &n), OK);
    assert_int_equal(n, 5);
    assert_memory_equal(back, "short", 5);
    mem_free(back);
    assert_int_equal(kit_publish(&kit, number, 1), OK);

    /* Discarded while it is written. */
    kit_make_generation(&kit, 3, &id, &number, &space);
    assert_int_equal(weights_create(&writer, kit.store, id), OK);
    assert_int_equal(weights_add(writer, bytes, WEIGHTS_CHUNK_BYTES), OK);
    call.generation = number;
    call.state = GENERATION_DISCARDED;
    assert_int_equal(store_run(kit.store, op_end, &call), OK);
    assert_int_equal(
        weights_add(writer, bytes, WEIGHTS_CHUNK_BYTES), ERR_CONFLICT);
    assert_int_equal(weights_finish(writer, NULL), ERR_CONFLICT);
    mem_free(bytes);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    kit_check(&kit);
    kit_close(&kit);
}

static void
run_sql(const struct kit *kit, const char *sql)
{
    char path[256];
    sqlite3 *raw = NULL;

    snprintf(path, sizeof(path), "%s/kindred.db", kit->dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    sqlite3_busy_timeout(raw, 5000);
    assert_int_equal(sqlite3_exec(raw, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(raw);
}

static enum err
ignore(void *ctx, const void *bytes, size_t n)
{
    (void)bytes;
    *(size_t *)ctx += n;
    return OK;
}

/* Bits that rot, chunks that are cut or lost: all are seen, by the reader and
   by the check. */
static void
test_weights_damaged(void **state)
{
    static const char *const DAMAGE[] = {
        "UPDATE weights SET bytes = zeroblob(length(bytes)) WHERE key & 3 = 1",
        "UPDATE weights SET bytes = substr(bytes, 2) WHERE key & 3 = 0",
        "DELETE FROM weights WHERE key & 3 = 2",
        "UPDATE generations SET weights_sha256 = zeroblob(32)",
        "UPDATE generations SET weights_bytes = weights_bytes - 1",
    };
    (void)state;

    for (size_t d = 0; d < sizeof(DAMAGE) / sizeof(DAMAGE[0]); d++) {
        int64_t id, number, space;
        struct fault fault = {0};
        struct call call;
        struct kit kit;
        void *back = NULL;
        size_t n = 0;
        unsigned char *bytes = mem_alloc(3, WEIGHTS_CHUNK_BYTES);
        memset(bytes, 7, 3 * WEIGHTS_CHUNK_BYTES);
        open_with_items(&kit, &call);
        kit_make_generation(&kit, 2, &id, &number, &space);
        assert_int_equal(
            weights_save(kit.store, id, bytes, 3 * WEIGHTS_CHUNK_BYTES - 5),
            OK);
        mem_free(bytes);
        kit_check(&kit);
        run_sql(&kit, DAMAGE[d]);
        assert_int_equal(weights_load(kit.store, id, &back, &n), ERR_CORRUPT);
        assert_int_equal(weights_read(kit.store, id, ignore, &n), ERR_CORRUPT);
        assert_int_equal(store_check(kit.store, &fault), ERR_CORRUPT);
        assert_non_null(strstr(fault.detail, "weights"));
        kit_close(&kit);
    }
}

/* ---- the switch and its job ---------------------------------------------- */

struct job_call {
    struct generation_publish publish;
    int64_t job;
};

static enum err
op_make_job(struct db *db, void *arg)
{
    struct job_call *c = arg;
    struct job_row row = {
        .kind = store_text_of("train"), .collection = c->publish.collection};

    return jobs_create(db, &row, true, 1, &c->job);
}

static enum err
op_publish(struct db *db, void *arg)
{
    struct job_call *c = arg;

    return generations_publish(db, &c->publish);
}

static void
test_publish_ends_job(void **state)
{
    int64_t id, number, space;
    struct job_row row;
    struct call call;
    struct kit kit;
    (void)state;

    open_with_items(&kit, &call);
    kit_make_generation(&kit, 2, &id, &number, &space);
    assert_int_equal(kit_backfill(&kit, space), 5);
    struct job_call job = {.publish = {.collection = kit.collection}};
    assert_int_equal(store_run(kit.store, op_make_job, &job), OK);
    job.publish = (struct generation_publish){.collection = kit.collection,
        .generation = 2,
        .expected_live = 1,
        .job = 4711,
        .job_state = JOB_PROMOTED,
        .job_result = store_text_of("{\"ok\":1}"),
        .now_ms = 50};
    /* Without its job the switch does not happen. */
    assert_int_equal(store_run(kit.store, op_publish, &job), ERR_NOT_FOUND);
    assert_int_equal(get_collection(&kit).live_generation, 1);
    job.publish.job = job.job;
    assert_int_equal(store_run(kit.store, op_publish, &job), OK);
    struct db *db = begin(&kit);
    assert_int_equal(jobs_get(db, job.job, &kit.arena, &row), OK);
    store_read_end(kit.store, db);
    assert_int_equal(row.state, JOB_PROMOTED);
    assert_string_equal(row.result.s, "{\"ok\":1}");
    assert_int_equal(row.finished_ms, 50);
    assert_int_equal(get_collection(&kit).live_generation, 2);
    kit_check(&kit);
    kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first),
        cmocka_unit_test(test_promote_and_roll_back),
        cmocka_unit_test(test_same_space),
        cmocka_unit_test(test_shadow),
        cmocka_unit_test(test_refused_keeps_weights_for_a_while),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_discard_at_start),
        cmocka_unit_test(test_weights_sizes),
        cmocka_unit_test(test_weights_states),
        cmocka_unit_test(test_weights_damaged),
        cmocka_unit_test(test_publish_ends_job),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
