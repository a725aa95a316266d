/*
 * Goal: items are inserted, replaced, patched and removed under their
 * conditions; each change takes the next number of one counter; numbers are
 * never used again; walks and pages give each row once, in order.
 * Method: small collections by hand, and a random sequence of changes against
 * a naive model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tests/support/store_kit.h"

struct call {
    int64_t collection;
    struct item_put puts[8];
    struct store_text ids[8];
    size_t n;
    int64_t if_match;
    struct item_result results[8];
};

static enum err
op_put(struct db *db, void *arg)
{
    struct call *call = arg;

    return items_put(
        db, call->collection, call->puts, call->n, 5000, call->results);
}

static enum err
op_delete(struct db *db, void *arg)
{
    struct call *call = arg;

    return items_delete(db, call->collection, call->ids, call->n,
        call->if_match, call->results);
}

static enum err
op_patch(struct db *db, void *arg)
{
    struct call *call = arg;

    return items_patch(db, call->collection, call->puts[0].ext_id,
        call->puts[0].metadata, call->if_match, 6000, &call->results[0]);
}

static struct item_put
make_put(const char *id, const char *text, uint8_t version)
{
    struct item_put put = {
        .ext_id = store_text_of(id), .text = store_text_of(text)};

    memset(put.content_hash, version, ITEM_HASH_BYTES);
    return put;
}

static struct db *
begin(struct kit *kit)
{
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    return db;
}

static int64_t
get_count(struct kit *kit)
{
    struct db *db = begin(kit);
    int64_t n = -1;

    assert_int_equal(items_count(db, kit->collection, &n), OK);
    store_read_end(kit->store, db);
    return n;
}

static void
test_put_get(void **state)
{
    struct call call = {.n = 2};
    struct item_row row;
    struct kit kit;
    struct db *db;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    call.collection = kit.collection;
    call.puts[0] = make_put("a", "text a", 1);
    call.puts[0].title = store_text_of("");
    call.puts[1] = make_put("b\xc3\xa9", NULL, 1);
    call.puts[1].metadata = (struct store_text){"{\"a\":\"x\0y\"}", 11};
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(call.results[i].err, OK);
        assert_true(call.results[i].created);
        assert_true(call.results[i].content_changed);
        assert_int_equal(call.results[i].change_seq, i + 1);
        assert_true(call.results[i].item > 0);
    }

    db = begin(&kit);
    assert_int_equal(items_get(db, kit.collection, store_text_of("a"),
                         ITEM_WANT_ALL, &kit.arena, &row),
        OK);
    assert_int_equal(row.item, call.results[0].item);
    assert_string_equal(row.ext_id.s, "a");
    assert_string_equal(row.text.s, "text a");
    assert_non_null(row.title.s); /* empty is not absent */
    assert_int_equal(row.title.len, 0);
    assert_null(row.metadata.s);
    assert_int_equal(row.created_ms, 5000);
    assert_int_equal(row.content_hash[15], 1);
    assert_int_equal(items_get(db, kit.collection, call.puts[1].ext_id,
                         ITEM_WANT_METADATA, &kit.arena, &row),
        OK);
    assert_null(row.text.s);
    assert_int_equal(row.metadata.len, 11);
    assert_memory_equal(row.metadata.s, "{\"a\":\"x\0y\"}", 12);
    assert_int_equal(items_get(db, kit.collection, store_text_of("zz"),
                         ITEM_WANT_ALL, &kit.arena, &row),
        ERR_NOT_FOUND);
    assert_int_equal(items_get(db, kit.collection + 1, store_text_of("a"),
                         ITEM_WANT_ALL, &kit.arena, &row),
        ERR_NOT_FOUND);
    store_read_end(kit.store, db);
    assert_int_equal(get_count(&kit), 2);

    call.collection = 4711;
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_NOT_FOUND);
    kit_close(&kit);
}

static void
test_replace_and_hash(void **state)
{
    struct call call = {.n = 1};
    struct item_row row;
    int64_t item, n = 0;
    struct kit kit;
    struct db *db;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "a", 1, 7, true), OK);
    call.collection = kit.collection;

    /* The same content: the vector stays. */
    call.puts[0] = make_put("a0", "other text", 7);
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    item = call.results[0].item;
    assert_false(call.results[0].created);
    assert_false(call.results[0].content_changed);
    assert_int_equal(call.results[0].old_hash[3], 7);
    assert_int_equal(call.results[0].change_seq, 2);
    db = begin(&kit);
    assert_int_equal(vectors_count(db, kit.space, &n), OK);
    assert_int_equal(n, 1);
    assert_int_equal(items_get(db, kit.collection, store_text_of("a0"),
                         ITEM_WANT_ALL, &kit.arena, &row),
        OK);
    assert_string_equal(row.text.s, "other text");
    assert_null(row.title.s);
    assert_int_equal(row.created_ms, 1000);
    assert_int_equal(row.updated_ms, 5000);
    store_read_end(kit.store, db);

    /* Other content: its vector is gone until it is put again. */
    call.puts[0] = make_put("a0", "new", 8);
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(call.results[0].item, item);
    assert_true(call.results[0].content_changed);
    assert_int_equal(call.results[0].old_hash[3], 7);
    db = begin(&kit);
    assert_int_equal(vectors_count(db, kit.space, &n), OK);
    assert_int_equal(n, 0);
    store_read_end(kit.store, db);
    assert_int_equal(get_count(&kit), 1);
    assert_int_equal(kit_backfill(&kit, kit.space), 1);
    kit_check(&kit);
    kit_close(&kit);
}

static void
test_conditions(void **state)
{
    struct call call = {.n = 3};
    struct kit kit;
    int64_t seq;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "a", 1, 1, true), OK);
    call.collection = kit.collection;
    call.puts[0] = make_put("a0", "x", 1);
    call.puts[0].if_absent = true;
    call.puts[1] = make_put("new", "x", 1);
    call.puts[1].if_absent = true;
    call.puts[2] = make_put("gone", "x", 1);
    call.puts[2].if_match = 1;
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(call.results[0].err, ERR_PRECONDITION);
    assert_int_equal(call.results[0].change_seq, 1);
    assert_int_equal(call.results[1].err, OK);
    assert_int_equal(call.results[2].err, ERR_PRECONDITION);
    assert_int_equal(call.results[2].change_seq, 0);

    seq = call.results[1].change_seq;
    call.n = 1;
    call.puts[0] = make_put("new", "y", 1);
    call.puts[0].if_match = seq + 1;
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(call.results[0].err, ERR_PRECONDITION);
    assert_int_equal(call.results[0].change_seq, seq);
    call.puts[0].if_match = seq;
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(call.results[0].err, OK);
    assert_true(call.results[0].change_seq > seq);
    seq = call.results[0].change_seq;

    /* Patching changes the metadata alone. */
    call.puts[0].metadata = store_text_of("{\"p\":1}");
    call.if_match = seq - 1;
    assert_int_equal(store_run(kit.store, op_patch, &call), ERR_PRECONDITION);
    call.if_match = seq;
    assert_int_equal(store_run(kit.store, op_patch, &call), OK);
    assert_true(call.results[0].change_seq > seq);
    assert_false(call.results[0].content_changed);
    call.puts[0].ext_id = store_text_of("nowhere");
    call.if_match = 0;
    assert_int_equal(store_run(kit.store, op_patch, &call), ERR_NOT_FOUND);

    struct item_row row;
    struct db *db = begin(&kit);
    assert_int_equal(items_get(db, kit.collection, store_text_of("new"),
                         ITEM_WANT_ALL, &kit.arena, &row),
        OK);
    assert_string_equal(row.metadata.s, "{\"p\":1}");
    assert_string_equal(row.text.s, "y");
    assert_int_equal(row.updated_ms, 6000);
    store_read_end(kit.store, db);

    /* Deleting under a condition. */
    call.n = 2;
    call.ids[0] = store_text_of("new");
    call.ids[1] = store_text_of("nowhere");
    call.if_match = 1;
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(call.results[0].err, ERR_PRECONDITION);
    assert_int_equal(call.results[1].err, ERR_NOT_FOUND);
    call.if_match = 0;
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(call.results[0].err, OK);
    assert_int_equal(call.results[0].item, row.item);
    assert_int_equal(get_count(&kit), 1);

    /* The number is not used again. */
    call.n = 1;
    call.puts[0] = make_put("new", "y", 1);
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_true(call.results[0].item > row.item);
    kit_close(&kit);
}

/* ---- walks --------------------------------------------------------------- */

struct seen {
    size_t n;
    char ids[64][16];
    int64_t items[64];
    int64_t seqs[64];
};

static enum err
see(void *ctx, const struct item_row *row)
{
    struct seen *seen = ctx;

    snprintf(seen->ids[seen->n], 16, "%s", row->ext_id.s);
    seen->items[seen->n] = row->item;
    seen->seqs[seen->n] = row->change_seq;
    seen->n++;
    return OK;
}

static enum err
stop_at_two(void *ctx, const struct item_row *row)
{
    (void)row;
    return ++*(int *)ctx == 2 ? ERR_CANCELLED : OK;
}

static void
test_walks(void **state)
{
    struct call call = {.n = 1};
    struct seen seen = {0};
    struct kit kit;
    struct db *db;
    int n = 0;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "other");
    assert_int_equal(kit_put_items(&kit, "z", 3, 1, true), OK);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "p", 10, 1, true), OK);
    call.collection = kit.collection;
    call.puts[0] = make_put("p3", "again", 1);
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(kit_delete_item(&kit, "p5"), OK);

    db = begin(&kit);
    /* By id, in pages of four. */
    struct store_text after = {NULL, 0};
    size_t before;
    do {
        before = seen.n;
        assert_int_equal(
            items_list(db, kit.collection, after, 4, 0, see, &seen), OK);
        after = store_text_of(seen.ids[seen.n - 1]);
    } while (seen.n - before == 4);
    assert_int_equal(seen.n, 9);
    for (size_t i = 1; i < seen.n; i++) {
        assert_true(strcmp(seen.ids[i - 1], seen.ids[i]) < 0);
    }
    /* By number. */
    seen.n = 0;
    int64_t after_item = 0;
    do {
        before = seen.n;
        assert_int_equal(
            items_walk(db, kit.collection, after_item, 4, 0, see, &seen), OK);
        after_item = seen.items[seen.n - 1];
    } while (seen.n - before == 4);
    assert_int_equal(seen.n, 9);
    for (size_t i = 1; i < seen.n; i++) {
        assert_true(seen.items[i - 1] < seen.items[i]);
    }
    /* What was written after the tenth change. */
    seen.n = 0;
    assert_int_equal(
        items_walk_changes(db, kit.collection, 10, 100, 0, see, &seen), OK);
    assert_int_equal(seen.n, 1);
    assert_string_equal(seen.ids[0], "p3");
    assert_int_equal(seen.seqs[0], 11);
    seen.n = 0;
    assert_int_equal(
        items_walk_changes(db, kit.collection, 0, 100, 0, see, &seen), OK);
    assert_int_equal(seen.n, 9);
    /* A callback may stop the walk, and may walk itself. */
    assert_int_equal(items_walk(db, kit.collection, 0, 100, 0, stop_at_two, &n),
        ERR_CANCELLED);
    assert_int_equal(n, 2);

    /* Many by number; the missing ones are left out. */
    int64_t wanted[] = {seen.items[4], 99999, seen.items[0]};
    int64_t first = seen.items[4], second = seen.items[0];
    seen.n = 0;
    assert_int_equal(
        items_get_many(db, wanted, 3, ITEM_WANT_ALL, see, &seen), OK);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.items[0], first);
    assert_int_equal(seen.items[1], second);

    struct store_text ids[] = {
        store_text_of("p1"), store_text_of("p5"), store_text_of("p9")};
    struct item_row rows[3];
    assert_int_equal(items_find(db, kit.collection, ids, 3, rows), OK);
    assert_true(rows[0].item != 0 && rows[2].item != 0);
    assert_int_equal(rows[1].item, 0);
    store_read_end(kit.store, db);
    kit_check(&kit);
    kit_close(&kit);
}

static enum err
walk_inside(void *ctx, const struct item_row *row)
{
    struct {
        struct db *db;
        int64_t collection;
        struct seen *seen;
    } *w = ctx;

    (void)row;
    return items_walk(w->db, w->collection, 0, 10, 0, see, w->seen);
}

static void
test_walk_in_walk(void **state)
{
    struct seen seen = {0};
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "w", 5, 1, true), OK);
    struct {
        struct db *db;
        int64_t collection;
        struct seen *seen;
    } w = {begin(&kit), kit.collection, &seen};
    assert_int_equal(
        items_walk(w.db, kit.collection, 0, 10, 0, walk_inside, &w), OK);
    assert_int_equal(seen.n, 25);
    store_read_end(kit.store, w.db);
    kit_close(&kit);
}

/* ---- a model ------------------------------------------------------------- */

#define MODEL_IDS 20

static void
test_against_model(void **state)
{
    int version[MODEL_IDS] = {0}; /* 0: absent */
    struct rng rng;
    struct kit kit;
    (void)state;

    rng_seed(&rng, 3);
    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    for (int step = 0; step < 400; step++) {
        struct call call = {.collection = kit.collection, .n = 1};
        size_t i = rng_below(&rng, MODEL_IDS);
        char id[16];
        snprintf(id, sizeof(id), "m%zu", i);
        if (rng_below(&rng, 3) == 0) {
            call.ids[0] = store_text_of(id);
            assert_int_equal(store_run(kit.store, op_delete, &call), OK);
            assert_int_equal(
                call.results[0].err, version[i] ? OK : ERR_NOT_FOUND);
            version[i] = 0;
            continue;
        }
        int next = 1 + (int)rng_below(&rng, 3);
        call.puts[0] = make_put(id, "t", (uint8_t)next);
        assert_int_equal(store_run(kit.store, op_put, &call), OK);
        assert_int_equal(call.results[0].created, version[i] == 0);
        assert_int_equal(call.results[0].content_changed, version[i] != next);
        version[i] = next;
        if (step % 7 == 0) {
            (void)kit_backfill(&kit, kit.space);
        }
    }
    int64_t n = 0;
    for (size_t i = 0; i < MODEL_IDS; i++) {
        n += version[i] != 0;
    }
    assert_int_equal(get_count(&kit), n);
    (void)kit_backfill(&kit, kit.space);
    struct db *db = begin(&kit);
    int64_t n_vectors = 0;
    assert_int_equal(vectors_count(db, kit.space, &n_vectors), OK);
    assert_int_equal(n_vectors, n);
    store_read_end(kit.store, db);
    kit_check(&kit);
    kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get),
        cmocka_unit_test(test_replace_and_hash),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_walk_in_walk),
        cmocka_unit_test(test_against_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
