/*
 * Goal: pictures go in and out whole, change and vanish with their items, are
 * counted, purged with their collection, and a file of schema version 1 opens.
 * Method: small pictures of invented bytes by hand; random puts and removals
 * against a naive model; a file that the first schema made, brought up to date;
 * damage by hand that store_check must name.
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

#include "base/embed.h"
#include "base/hash.h"
#include "base/rng.h"
#include "store/images.h"
#include "store/purge.h"
#include "tests/support/store_kit.h"

#define MODEL_ITEMS 24

struct call {
    int64_t collection;
    struct image_row rows[4];
    int64_t items[4];
    size_t n, n_removed;
};

static enum err
op_put(struct db *db, void *arg)
{
    struct call *call = arg;

    return images_put(db, call->collection, call->rows, call->n);
}

static enum err
op_delete(struct db *db, void *arg)
{
    struct call *call = arg;

    return images_delete(
        db, call->collection, call->items, call->n, &call->n_removed);
}

static struct image_row
make_row(int64_t item, const char *bytes, size_t n)
{
    struct image_row row = {.item = item,
        .format = 2,
        .width = 7,
        .height = 9,
        .n_bytes = (int64_t)n,
        .bytes = {.s = bytes, .len = n}};

    sha256_of(bytes, n, row.sha256);
    return row;
}

static enum err
put_one(struct kit *kit, struct image_row row)
{
    struct call call = {.collection = kit->collection, .n = 1};

    call.rows[0] = row;
    return store_run(kit->store, op_put, &call);
}

static void
expect_counts(struct kit *kit, int64_t n, int64_t n_bytes)
{
    struct db *db = NULL;
    int64_t count = -1, bytes = -1;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    assert_int_equal(images_count(db, kit->collection, &count, &bytes), OK);
    store_read_end(kit->store, db);
    assert_int_equal(count, n);
    assert_int_equal(bytes, n_bytes);
}

static enum err
get(struct kit *kit, int64_t item, bool want, struct image_row *out)
{
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    enum err err = images_get(db, item, want, &kit->arena, out);
    store_read_end(kit->store, db);
    return err;
}

static void
test_put_get_replace(void **state)
{
    /* With a NUL inside, larger than a page. */
    static char large[100000];
    struct image_row row;
    struct kit kit;
    (void)state;

    for (size_t i = 0; i < sizeof(large); i++) {
        large[i] = (char)(i * 7);
    }
    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", 3, 1, true), OK);
    assert_int_equal(get(&kit, 1, true, &row), ERR_NOT_FOUND);
    assert_int_equal(put_one(&kit, make_row(1, large, sizeof(large))), OK);
    assert_int_equal(get(&kit, 1, true, &row), OK);
    assert_int_equal(row.item, 1);
    assert_int_equal(row.format, 2);
    assert_int_equal(row.width, 7);
    assert_int_equal(row.height, 9);
    assert_int_equal(row.n_bytes, sizeof(large));
    assert_true(row.kept);
    assert_int_equal(row.bytes.len, sizeof(large));
    assert_memory_equal(row.bytes.s, large, sizeof(large));
    expect_counts(&kit, 1, sizeof(large));
    assert_int_equal(get(&kit, 1, false, &row), OK);
    assert_null(row.bytes.s);
    assert_true(row.kept);

    /* The facts alone. */
    struct image_row facts = make_row(2, large, 10);
    facts.bytes.s = NULL;
    assert_int_equal(put_one(&kit, facts), OK);
    assert_int_equal(get(&kit, 2, true, &row), OK);
    assert_false(row.kept);
    assert_null(row.bytes.s);
    assert_int_equal(row.n_bytes, 10);
    expect_counts(&kit, 2, sizeof(large));

    /* Replaced, and the same again. */
    assert_int_equal(put_one(&kit, make_row(1, "abc", 3)), OK);
    assert_int_equal(put_one(&kit, make_row(1, "abc", 3)), OK);
    expect_counts(&kit, 2, 3);
    assert_int_equal(get(&kit, 1, true, &row), OK);
    assert_memory_equal(row.bytes.s, "abc", 3);
    /* The same file, now kept: not the same. */
    assert_int_equal(put_one(&kit, make_row(2, large, 10)), OK);
    expect_counts(&kit, 2, 13);
    kit_check(&kit);

    /* No item, no collection. */
    assert_int_equal(put_one(&kit, make_row(99, "x", 1)), ERR_NOT_FOUND);
    struct call call = {.collection = 77, .n = 1};
    call.rows[0] = make_row(1, "x", 1);
    assert_int_equal(store_run(kit.store, op_put, &call), ERR_NOT_FOUND);
    /* It survives a restart. */
    kit_reopen(&kit, NULL);
    assert_int_equal(get(&kit, 1, true, &row), OK);
    assert_memory_equal(row.bytes.s, "abc", 3);
    kit_close(&kit);
}

static void
test_goes_with_its_item(void **state)
{
    struct image_row row;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", 3, 1, true), OK);
    for (int64_t item = 1; item <= 3; item++) {
        assert_int_equal(put_one(&kit, make_row(item, "abcd", 4)), OK);
    }
    assert_int_equal(kit_delete_item(&kit, "i1"), OK);
    assert_int_equal(get(&kit, 2, true, &row), ERR_NOT_FOUND);
    expect_counts(&kit, 2, 8);
    /* New content keeps the picture: whether it must change is not known
       here. */
    assert_int_equal(kit_put_items(&kit, "i", 1, 2, true), OK);
    expect_counts(&kit, 2, 8);
    struct call call = {
        .collection = kit.collection, .items = {1, 2, 3}, .n = 3};
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(call.n_removed, 2);
    expect_counts(&kit, 0, 0);
    kit_check(&kit);
    kit_close(&kit);
}

struct seen {
    int64_t items[MODEL_ITEMS];
    size_t lens[MODEL_ITEMS];
    size_t n;
};

static enum err
see(void *ctx, const struct image_row *row)
{
    struct seen *seen = ctx;

    assert_true(seen->n < MODEL_ITEMS);
    seen->items[seen->n] = row->item;
    seen->lens[seen->n++] = row->bytes.len;
    return OK;
}

/* Random changes against an array. */
static void
test_model(void **state)
{
    static const char bytes[] = "0123456789abcdef";
    size_t len[MODEL_ITEMS + 1] = {0}; /* 0: none */
    struct rng rng;
    struct kit kit;
    (void)state;

    rng_seed(&rng, 7);
    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", MODEL_ITEMS, 1, true), OK);
    for (int round = 0; round < 300; round++) {
        size_t item = 1 + rng_below(&rng, MODEL_ITEMS);
        if (rng_below(&rng, 3) > 0) {
            len[item] = 1 + rng_below(&rng, 16);
            assert_int_equal(
                put_one(&kit, make_row((int64_t)item, bytes, len[item])), OK);
        } else {
            struct call call = {
                .collection = kit.collection, .items = {(int64_t)item}, .n = 1};
            assert_int_equal(store_run(kit.store, op_delete, &call), OK);
            assert_int_equal(call.n_removed, len[item] > 0);
            len[item] = 0;
        }
        if (round % 30) {
            continue;
        }
        int64_t n = 0, sum = 0, all[MODEL_ITEMS];
        struct seen walked = {.n = 0}, got = {.n = 0};
        struct db *db = NULL;
        assert_int_equal(store_read_begin(kit.store, &db), OK);
        int64_t after = 0;
        for (;;) { /* pages of 5 */
            size_t before = walked.n;
            assert_int_equal(
                images_walk(db, kit.collection, after, 5, true, see, &walked),
                OK);
            if (walked.n == before) {
                break;
            }
            after = walked.items[walked.n - 1];
        }
        for (size_t i = 0; i < MODEL_ITEMS; i++) {
            all[i] = (int64_t)i + 1;
        }
        assert_int_equal(
            images_get_many(db, all, MODEL_ITEMS, true, see, &got), OK);
        store_read_end(kit.store, db);
        for (size_t i = 1; i <= MODEL_ITEMS; i++) {
            if (len[i]) {
                assert_int_equal(walked.items[n], i);
                assert_int_equal(walked.lens[n], len[i]);
                assert_int_equal(got.items[n], i);
                assert_int_equal(got.lens[n], len[i]);
                n++;
                sum += (int64_t)len[i];
            }
        }
        assert_int_equal(walked.n, n);
        assert_int_equal(got.n, n);
        expect_counts(&kit, n, sum);
    }
    kit_check(&kit);
    kit_close(&kit);
}

static enum err
op_drop_collection(struct db *db, void *arg)
{
    struct kit *kit = arg;

    return collections_delete(db, kit->collection);
}

static int64_t
ask(const struct kit *kit, const char *sql)
{
    char path[256];
    sqlite3 *raw = NULL;
    sqlite3_stmt *stmt = NULL;

    snprintf(path, sizeof(path), "%s/kindred.db", kit->dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(raw, sql, -1, &stmt, NULL), SQLITE_OK);
    int rc = sqlite3_step(stmt);
    assert_true(rc == SQLITE_ROW || rc == SQLITE_DONE);
    int64_t v = rc == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_finalize(stmt);
    sqlite3_close(raw);
    return v;
}

/* Every third item has a picture; small steps reach the end. */
static void
test_purge(void **state)
{
    struct kit kit;
    int64_t n_rows = 0;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", 1500, 1, true), OK);
    for (int64_t item = 1; item <= 1500; item += 3) {
        assert_int_equal(put_one(&kit, make_row(item, "abcd", 4)), OK);
    }
    assert_int_equal(store_run(kit.store, op_drop_collection, &kit), OK);
    assert_int_equal(purge_run(kit.store, NULL, &n_rows), OK);
    assert_true(n_rows >= 1500 + 500);
    assert_int_equal(ask(&kit, "SELECT count(*) FROM images"), 0);
    assert_int_equal(ask(&kit, "SELECT count(*) FROM items"), 0);
    assert_int_equal(ask(&kit, "SELECT count(*) FROM collections"), 0);
    kit_check(&kit);
    kit_close(&kit);
}

static void
test_check_finds(void **state)
{
    static const struct {
        const char *damage, *repair, *word;
    } CASES[] = {
        {"UPDATE collections SET n_images = n_images + 1",
            "UPDATE collections SET n_images = n_images - 1",
            "counters of pictures"},
        {"UPDATE collections SET image_bytes = image_bytes + 1",
            "UPDATE collections SET image_bytes = image_bytes - 1",
            "counters of pictures"},
        {"UPDATE images SET bytes = x'61'", "UPDATE images SET bytes = x'6162'",
            "another size"},
        {"UPDATE images SET bytes = x'6163'",
            "UPDATE images SET bytes = x'6162'", "picture of item 1"},
    };
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", 1, 1, true), OK);
    assert_int_equal(put_one(&kit, make_row(1, "ab", 2)), OK);
    kit_check(&kit);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        struct fault fault = {.err = OK};
        ask(&kit, CASES[i].damage);
        assert_int_equal(store_check(kit.store, &fault), ERR_CORRUPT);
        assert_non_null(strstr(fault.detail, CASES[i].word));
        ask(&kit, CASES[i].repair);
        kit_check(&kit);
    }
    kit_close(&kit);
}

/* A copy has the pictures. */
static void
test_backup(void **state)
{
    char path[512], to[512], dir[128];
    struct fault fault = {.err = OK};
    struct image_row row;
    struct kit kit, copy;
    int64_t bytes;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", 1, 1, true), OK);
    assert_int_equal(put_one(&kit, make_row(1, "ab", 2)), OK);
    assert_int_equal(
        store_backup(kit.store, "b", NULL, NULL, &bytes, &fault), OK);
    assert_int_equal(store_backup_path(kit.store, "b", path, sizeof(path)), OK);
    kit_make_dir(dir, sizeof(dir));
    snprintf(to, sizeof(to), "%s/kindred.db", dir);
    assert_int_equal(rename(path, to), 0);
    copy = kit;
    assert_int_equal(store_open(&copy.store, dir, NULL, &fault), OK);
    kit_check(&copy);
    assert_int_equal(get(&copy, 1, true, &row), OK);
    assert_memory_equal(row.bytes.s, "ab", 2);
    store_close(copy.store);
    kit_remove_dir(dir);
    kit.arena = copy.arena;
    kit_close(&kit);
}

/* tests/golden/store_v1.sql over the first schema file is a data file that the
   version before pictures left. */
static void
test_from_version_1(void **state)
{
    static char rows[8192];
    char dir[128], path[256];
    struct fault fault = {.err = OK};
    struct image_row row;
    sqlite3 *raw = NULL;
    struct kit kit = {.collection = 1};
    int64_t n = 0;
    (void)state;

    FILE *f = fopen("tests/golden/store_v1.sql", "rb");
    if (f == NULL) {
        print_message("skipped: not run from the root of the tree\n");
        skip();
    }
    size_t len = fread(rows, 1, sizeof(rows) - 1, f);
    fclose(f);
    assert_in_range(len, 1000, sizeof(rows) - 2);
    rows[len] = '\0';
    kit_make_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/kindred.db", dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    assert_int_equal(sqlite3_exec(raw, (const char *)embedded_schema[0].bytes,
                         NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_exec(raw, rows, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(raw);

    assert_int_equal(store_open(&kit.store, dir, NULL, &fault), OK);
    kit_check(&kit);
    struct db *db = NULL;
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    assert_int_equal(items_count(db, 1, &n), OK);
    store_read_end(kit.store, db);
    assert_int_equal(n, 3);
    expect_counts(&kit, 0, 0);
    arena_init(&kit.arena, 1 << 20);
    assert_int_equal(put_one(&kit, make_row(2, "ab", 2)), OK);
    assert_int_equal(get(&kit, 2, true, &row), OK);
    assert_int_equal(kit_delete_item(&kit, "plum"), OK);
    expect_counts(&kit, 0, 0);
    kit_check(&kit);
    arena_release(&kit.arena);
    store_close(kit.store);
    kit_remove_dir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get_replace),
        cmocka_unit_test(test_goes_with_its_item),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_purge),
        cmocka_unit_test(test_check_finds),
        cmocka_unit_test(test_backup),
        cmocka_unit_test(test_from_version_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
