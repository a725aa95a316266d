/*
 * Goal: vectors come back as they were put, in the order of their items, space
 * by space; the counters are right; the backfill never overwrites what is
 * newer and ends with nothing missing.
 * Method: two spaces of one collection, with changes between the reading of
 * the work list and the writing of its vectors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/store_kit.h"

static struct db *
begin(struct kit *kit)
{
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    return db;
}

struct call {
    int64_t space;
    size_t n;
    int64_t items[16];
    uint8_t hashes[16][ITEM_HASH_BYTES];
    float vectors[16 * KIT_DIMS];
    int dims;
    size_t n_put;
};

static enum err
op_put(struct db *db, void *arg)
{
    struct call *call = arg;

    return vectors_put(
        db, call->space, call->items, call->n, call->vectors, call->dims);
}

static enum err
op_backfill(struct db *db, void *arg)
{
    struct call *call = arg;

    return vectors_backfill(db, call->space, call->items,
        (const uint8_t(*)[ITEM_HASH_BYTES])call->hashes, call->n, call->vectors,
        call->dims, &call->n_put);
}

static enum err
op_delete(struct db *db, void *arg)
{
    struct call *call = arg;

    return vectors_delete(db, call->space, call->items, call->n);
}

static enum err
note(void *ctx, const struct item_row *row)
{
    struct call *call = ctx;

    call->items[call->n] = row->item;
    memcpy(call->hashes[call->n], row->content_hash, ITEM_HASH_BYTES);
    call->n++;
    return OK;
}

static int64_t
count(struct kit *kit, int64_t space)
{
    struct db *db = begin(kit);
    int64_t n = -1;

    assert_int_equal(vectors_count(db, space, &n), OK);
    store_read_end(kit->store, db);
    return n;
}

static void
test_read_back(void **state)
{
    int64_t items[300];
    float vectors[300 * KIT_DIMS];
    bool found[3];
    struct kit kit;
    struct db *db;
    size_t n = 0, total = 0;
    int64_t after = 0;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "v", 250, 1, true), OK);
    db = begin(&kit);
    do {
        assert_int_equal(vectors_read_block(db, kit.space, after, 64, KIT_DIMS,
                             items, vectors, &n),
            OK);
        for (size_t i = 0; i < n; i++) {
            assert_true(items[i] > after);
            after = items[i];
            for (size_t d = 0; d < KIT_DIMS; d++) {
                assert_true(vectors[i * KIT_DIMS + d] == (float)items[i]);
            }
        }
        total += n;
    } while (n == 64);
    assert_int_equal(total, 250);
    assert_int_equal(vectors_read_block(db, kit.space, 0, 300, KIT_DIMS + 1,
                         items, vectors, &n),
        ERR_INVALID);
    assert_int_equal(
        vectors_read_block(db, 4711, 0, 300, KIT_DIMS, items, vectors, &n),
        ERR_NOT_FOUND);

    int64_t wanted[] = {after, 4711, 1};
    assert_int_equal(
        vectors_get(db, kit.space, wanted, 3, KIT_DIMS, vectors, found), OK);
    assert_true(found[0] && !found[1] && found[2]);
    assert_true(vectors[0] == (float)after && vectors[8] == 1.0F);
    assert_true(vectors[4] == 0.0F);
    store_read_end(kit.store, db);
    assert_int_equal(count(&kit, kit.space), 250);
    kit_close(&kit);
}

static void
test_put_replaces(void **state)
{
    struct call call = {.n = 3, .dims = KIT_DIMS};
    float vectors[2 * KIT_DIMS];
    struct kit kit;
    struct db *db;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "v", 2, 1, false), OK);
    call.space = kit.space;
    call.items[0] = 1;
    call.items[1] = 0; /* skipped */
    call.items[2] = 2;
    call.vectors[0] = 5;
    call.vectors[8] = 6;
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(count(&kit, kit.space), 2);
    call.vectors[0] = 7;
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(count(&kit, kit.space), 2);
    db = begin(&kit);
    assert_int_equal(vectors_get(db, kit.space, (int64_t[]){1, 2}, 2, KIT_DIMS,
                         vectors, NULL),
        OK);
    assert_true(vectors[0] == 7.0F && vectors[4] == 6.0F);
    store_read_end(kit.store, db);

    call.dims = KIT_DIMS - 1;
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_INVALID);
    call.dims = KIT_DIMS;
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(count(&kit, kit.space), 0);
    call.space = 999;
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_NOT_FOUND);
    kit_close(&kit);
}

struct space_call {
    int64_t collection;
    int64_t space;
};

static enum err
op_one_more(struct db *db, void *arg)
{
    static const uint8_t FINGERPRINT[SPACE_FINGERPRINT_BYTES] = {200};
    struct space_call *call = arg;

    return spaces_ensure(
        db, call->collection, FINGERPRINT, KIT_DIMS, &call->space);
}

static void
test_spaces(void **state)
{
    int64_t id, generation, space, same;
    struct space_row row;
    struct kit kit;
    struct db *db;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    kit_make_generation(&kit, 9, &id, &generation, &space);
    assert_true(space != kit.space);
    kit_make_generation(&kit, 9, &id, &generation, &same);
    assert_int_equal(space, same); /* one fingerprint, one space */
    db = begin(&kit);
    assert_int_equal(spaces_get(db, space, &row), OK);
    assert_int_equal(row.dims, KIT_DIMS);
    assert_int_equal(row.fingerprint[0], 9);
    assert_int_equal(row.collection, kit.collection);
    assert_int_equal(spaces_get(db, 777, &row), ERR_NOT_FOUND);
    store_read_end(kit.store, db);

    /* Every change of an item looks at all of them, so there is an end. */
    for (uint8_t f = 10; f < 10 + 62; f++) {
        kit_make_generation(&kit, f, &id, &generation, &same);
    }
    struct space_call call = {.collection = kit.collection};
    assert_int_equal(store_run(kit.store, op_one_more, &call), ERR_TOO_LARGE);
    assert_int_equal(kit_put_items(&kit, "s", 3, 1, true), OK);
    kit_close(&kit);
}

/* While vectors are made outside of the store the items change. */
static void
test_backfill_races(void **state)
{
    struct call call = {.dims = KIT_DIMS};
    int64_t id, generation, space;
    struct kit kit;
    struct db *db;
    float vector[KIT_DIMS];
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "b", 6, 1, true), OK);
    kit_make_generation(&kit, 2, &id, &generation, &space);
    call.space = space;
    db = begin(&kit);
    assert_int_equal(vectors_walk_missing(db, space, 0, 4, 0, note, &call), OK);
    store_read_end(kit.store, db);
    assert_int_equal(call.n, 4);

    /* b0 goes, one comes, b1 changes, b2 gets its vector from elsewhere. */
    assert_int_equal(kit_delete_item(&kit, "b0"), OK);
    assert_int_equal(kit_put_items(&kit, "b1x", 1, 1, true), OK);
    struct call newer = {.space = space,
        .n = 1,
        .items = {call.items[2]},
        .vectors = {42},
        .dims = KIT_DIMS};
    assert_int_equal(store_run(kit.store, op_put, &newer), OK);
    call.hashes[1][0] ^= 0xff; /* as if b1 had had other content */

    call.vectors[8] = 1;
    assert_int_equal(store_run(kit.store, op_backfill, &call), OK);
    assert_int_equal(call.n_put, 1); /* b3 alone */
    db = begin(&kit);
    assert_int_equal(
        vectors_get(db, space, &call.items[2], 1, KIT_DIMS, vector, NULL), OK);
    assert_true(vector[0] == 42.0F);
    store_read_end(kit.store, db);
    assert_int_equal(count(&kit, space), 2);

    /* The rest: b1, b4, b5 and b1x0. */
    assert_int_equal(kit_backfill(&kit, space), 4);
    assert_int_equal(count(&kit, space), 6);
    kit_check(&kit);

    /* A content change empties both spaces for that item. */
    assert_int_equal(kit_put_items(&kit, "b1x", 1, 2, true), OK);
    assert_int_equal(count(&kit, kit.space), 6);
    assert_int_equal(count(&kit, space), 5);
    assert_int_equal(kit_backfill(&kit, space), 1);
    assert_int_equal(kit_delete_item(&kit, "b1x0"), OK);
    assert_int_equal(count(&kit, kit.space), 5);
    assert_int_equal(count(&kit, space), 5);
    kit_check(&kit);
    kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_back),
        cmocka_unit_test(test_put_replaces),
        cmocka_unit_test(test_spaces),
        cmocka_unit_test(test_backfill_races),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
