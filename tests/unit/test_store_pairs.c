/*
 * Goal: a pair counts once however often it is posted; splits stay; pairs of
 * missing items are out of use and come back; counts and walks agree.
 * Method: a dozen pairs by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/pairs.h"
#include "tests/support/store_kit.h"

struct call {
    int64_t collection;
    struct pair_put puts[16];
    struct pair_result results[16];
    size_t n;
    struct store_text ids[4];
    enum pair_reason reason;
    size_t n_pairs;
    int64_t pair;
};

static enum err
op_put(struct db *db, void *arg)
{
    struct call *call = arg;

    return pairs_put(
        db, call->collection, call->puts, call->n, 9000, call->results);
}

static enum err
op_aside(struct db *db, void *arg)
{
    struct call *call = arg;

    return pairs_set_aside(
        db, call->collection, call->ids, call->n, call->reason, &call->n_pairs);
}

static enum err
op_back(struct db *db, void *arg)
{
    struct call *call = arg;

    return pairs_bring_back(
        db, call->collection, call->ids, call->n, &call->n_pairs);
}

static enum err
op_reason(struct db *db, void *arg)
{
    struct call *call = arg;

    return pairs_set_reason(db, call->collection, call->pair, call->reason);
}

static enum err
op_delete(struct db *db, void *arg)
{
    struct call *call = arg;

    return pairs_delete(db, call->collection, call->pair);
}

static struct db *
begin(struct kit *kit)
{
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    return db;
}

static struct pair_counts
get_counts(struct kit *kit, int64_t since)
{
    struct pair_counts counts;
    struct db *db = begin(kit);

    assert_int_equal(pairs_count(db, kit->collection, since, &counts), OK);
    store_read_end(kit->store, db);
    return counts;
}

/* Pair i of a set: text anchors, item positives p<i % 4>, split i % 3. */
static struct pair_put
make_put(int i)
{
    static const char *const IDS[] = {"p0", "p1", "p2", "p3"};
    struct pair_put put = {.anchor_text = store_text_of("a question"),
        .positive_id = store_text_of(IDS[i % 4]),
        .group = store_text_of("g"),
        .origin = store_text_of("api"),
        .group_hash = 0xffffffffffffff00u + (unsigned)(i % 2),
        .weight = 1 + i,
        .split = (enum pair_split)(i % 3)};

    put.key[0] = (uint8_t)i;
    return put;
}

static void
open_with_pairs(struct kit *kit, struct call *call, size_t n)
{
    kit_open(kit, NULL);
    kit_make_collection(kit, "c");
    assert_int_equal(kit_put_items(kit, "p", 4, 1, true), OK);
    *call = (struct call){.collection = kit->collection, .n = n};
    for (size_t i = 0; i < n; i++) {
        call->puts[i] = make_put((int)i);
    }
    assert_int_equal(store_run(kit->store, op_put, call), OK);
}

static void
test_put_once(void **state)
{
    struct pair_row row;
    enum pair_split split;
    struct call call;
    struct kit kit;
    struct db *db;
    int64_t pair;
    (void)state;

    open_with_pairs(&kit, &call, 3);
    assert_true(call.results[0].created);
    assert_true(call.results[0].pair < call.results[1].pair);

    /* Again, with another split and text: only the weight changes. */
    struct pair_put again = make_put(1);
    again.split = PAIR_JUDGE;
    again.anchor_text = store_text_of("another question");
    again.weight = 0.5;
    call.puts[0] = again;
    call.n = 1;
    pair = call.results[1].pair;
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_false(call.results[0].created);
    assert_int_equal(call.results[0].pair, pair);
    assert_true(call.results[0].weight == 2.5);

    db = begin(&kit);
    assert_int_equal(pairs_get(db, kit.collection, pair, &kit.arena, &row), OK);
    assert_int_equal(row.split, PAIR_TUNE);
    assert_int_equal(row.state, PAIR_ACTIVE);
    assert_string_equal(row.anchor_text.s, "a question");
    assert_string_equal(row.positive_id.s, "p1");
    assert_null(row.anchor_id.s);
    assert_null(row.negatives.s);
    assert_string_equal(row.group.s, "g");
    assert_string_equal(row.origin.s, "api");
    assert_true(row.group_hash == 0xffffffffffffff01u);
    assert_true(row.weight == 2.5);
    assert_int_equal(row.created_ms, 9000);
    assert_int_equal(row.key[0], 1);
    assert_int_equal(
        pairs_find(db, kit.collection, again.key, &pair, &split), OK);
    assert_int_equal(pair, row.pair);
    assert_int_equal(split, PAIR_TUNE);
    again.key[0] = 99;
    assert_int_equal(pairs_find(db, kit.collection, again.key, &pair, &split),
        ERR_NOT_FOUND);
    assert_int_equal(pairs_get(db, kit.collection + 1, pair, &kit.arena, &row),
        ERR_NOT_FOUND);
    store_read_end(kit.store, db);
    kit_close(&kit);
}

static void
test_refused(void **state)
{
    struct call call;
    struct kit kit;
    (void)state;

    open_with_pairs(&kit, &call, 1);
    call.n = 2;
    call.puts[0] = make_put(5);
    call.puts[1] = make_put(6);
    call.puts[1].anchor_id = store_text_of("p0"); /* and a text: both */
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_INVALID);
    assert_int_equal(get_counts(&kit, 0).last_pair, 1); /* all or nothing */
    call.puts[1] = make_put(6);
    call.puts[1].positive_id.s = NULL;
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_INVALID);
    call.puts[1] = make_put(6);
    call.puts[1].weight = 0;
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_INVALID);
    call.puts[1] = make_put(6);
    call.collection = 4711;
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_NOT_FOUND);
    kit_close(&kit);
}

struct seen {
    size_t n;
    int64_t pairs[32];
};

static enum err
see(void *ctx, const struct pair_row *row)
{
    struct seen *seen = ctx;

    seen->pairs[seen->n++] = row->pair;
    return OK;
}

static void
test_walks_and_counts(void **state)
{
    struct pair_counts counts;
    struct seen seen = {0};
    struct call call;
    struct kit kit;
    struct db *db;
    (void)state;

    open_with_pairs(&kit, &call, 12);
    counts = get_counts(&kit, call.results[5].pair);
    assert_int_equal(counts.active[PAIR_TRAIN], 4);
    assert_int_equal(counts.active[PAIR_TUNE], 4);
    assert_int_equal(counts.active[PAIR_JUDGE], 4);
    assert_int_equal(counts.active_new[PAIR_TRAIN], 2);
    assert_int_equal(counts.active_new[PAIR_JUDGE], 2);
    assert_int_equal(counts.set_aside, 0);
    assert_int_equal(counts.judge_groups, 2);
    assert_int_equal(counts.last_pair, call.results[11].pair);

    db = begin(&kit);
    assert_int_equal(pairs_list(db, kit.collection, 0, 5, see, &seen), OK);
    assert_int_equal(
        pairs_list(db, kit.collection, seen.pairs[4], 100, see, &seen), OK);
    assert_int_equal(seen.n, 12);
    for (size_t i = 0; i < 12; i++) {
        assert_int_equal(seen.pairs[i], call.results[i].pair);
    }
    seen.n = 0;
    assert_int_equal(
        pairs_walk(db, kit.collection, PAIR_TUNE, call.results[1].pair,
            call.results[7].pair, 100, see, &seen),
        OK);
    assert_int_equal(seen.n, 2); /* 4 and 7 */
    assert_int_equal(seen.pairs[0], call.results[4].pair);
    assert_int_equal(seen.pairs[1], call.results[7].pair);
    store_read_end(kit.store, db);

    call.pair = call.results[3].pair;
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(store_run(kit.store, op_delete, &call), ERR_NOT_FOUND);
    assert_int_equal(get_counts(&kit, 0).active[PAIR_TRAIN], 3);
    kit_close(&kit);
}

static void
test_set_aside_and_back(void **state)
{
    struct call call, change = {0};
    struct pair_row row;
    struct kit kit;
    struct db *db;
    (void)state;

    open_with_pairs(&kit, &call, 8); /* p1: pairs 1 and 5 */
    call.n = 1;
    call.puts[0] = make_put(8); /* two items: p2 -> p0 */
    call.puts[0].anchor_text.s = NULL;
    call.puts[0].anchor_id = store_text_of("p2");
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    int64_t both = call.results[0].pair;

    change.collection = kit.collection;
    change.n = 1;
    change.ids[0] = store_text_of("p1");
    change.reason = PAIR_ITEM_CHANGED;
    assert_int_equal(store_run(kit.store, op_aside, &change), OK);
    assert_int_equal(change.n_pairs, 2);
    assert_int_equal(get_counts(&kit, 0).set_aside, 2);

    /* Changed is not brought back by the item, but by posting it again. */
    assert_int_equal(store_run(kit.store, op_back, &change), OK);
    assert_int_equal(change.n_pairs, 0);
    call.puts[0] = make_put(1);
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_int_equal(get_counts(&kit, 0).set_aside, 1);

    /* Deleted outranks changed: pairs 1 and 5. */
    change.reason = PAIR_ITEM_DELETED;
    assert_int_equal(store_run(kit.store, op_aside, &change), OK);
    assert_int_equal(change.n_pairs, 2);
    assert_int_equal(store_run(kit.store, op_aside, &change), OK);
    assert_int_equal(change.n_pairs, 0);
    assert_int_equal(store_run(kit.store, op_back, &change), OK);
    assert_int_equal(change.n_pairs, 2);
    assert_int_equal(get_counts(&kit, 0).set_aside, 0);

    /* With two items both must be there. */
    assert_int_equal(kit_delete_item(&kit, "p0"), OK);
    assert_int_equal(kit_delete_item(&kit, "p2"), OK);
    change.n = 2;
    change.ids[0] = store_text_of("p0");
    change.ids[1] = store_text_of("p2");
    assert_int_equal(store_run(kit.store, op_aside, &change), OK);
    assert_int_equal(change.n_pairs, 5);
    assert_int_equal(store_run(kit.store, op_back, &change), OK);
    assert_int_equal(change.n_pairs, 0);
    assert_int_equal(kit_put_items(&kit, "p", 1, 1, true), OK); /* p0 */
    change.n = 1;
    assert_int_equal(store_run(kit.store, op_back, &change), OK);
    assert_int_equal(change.n_pairs, 2);
    db = begin(&kit);
    assert_int_equal(pairs_get(db, kit.collection, both, &kit.arena, &row), OK);
    assert_int_equal(row.state, PAIR_SET_ASIDE);
    assert_int_equal(row.reason, PAIR_ITEM_DELETED);
    store_read_end(kit.store, db);
    assert_int_equal(kit_put_items(&kit, "p", 4, 1, true), OK); /* p2 */
    change.ids[0] = store_text_of("p2");
    assert_int_equal(store_run(kit.store, op_back, &change), OK);
    assert_int_equal(change.n_pairs, 3);

    /* For its own sake: neither items nor posting again bring it back. */
    change.pair = both;
    change.reason = PAIR_CONTRADICTED;
    assert_int_equal(store_run(kit.store, op_reason, &change), OK);
    change.reason = PAIR_ITEM_DELETED;
    assert_int_equal(store_run(kit.store, op_aside, &change), OK);
    assert_int_equal(store_run(kit.store, op_back, &change), OK);
    call.puts[0] = make_put(8);
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    db = begin(&kit);
    assert_int_equal(pairs_get(db, kit.collection, both, &kit.arena, &row), OK);
    assert_int_equal(row.reason, PAIR_CONTRADICTED);
    store_read_end(kit.store, db);
    change.reason = PAIR_REASON_NONE;
    assert_int_equal(store_run(kit.store, op_reason, &change), OK);
    assert_int_equal(get_counts(&kit, 0).set_aside, 0);
    change.pair = 4711;
    assert_int_equal(store_run(kit.store, op_reason, &change), ERR_NOT_FOUND);
    kit_check(&kit);
    kit_close(&kit);
}

static void
test_barred_at_once(void **state)
{
    struct call call;
    struct kit kit;
    (void)state;

    open_with_pairs(&kit, &call, 2);
    call.n = 1;
    call.puts[0] = make_put(7);
    call.puts[0].reason = PAIR_BARRED;
    assert_int_equal(store_run(kit.store, op_put, &call), OK);
    assert_true(call.results[0].created);
    assert_int_equal(get_counts(&kit, 0).set_aside, 1);
    kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_once),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_walks_and_counts),
        cmocka_unit_test(test_set_aside_and_back),
        cmocka_unit_test(test_barred_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
