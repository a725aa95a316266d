/*
 * Goal: when memory runs out anywhere in an operation, the operation fails
 * with its code or succeeds, the next one works, and file and memory agree.
 * Method: for each operation fail the n-th allocation, for n from 1 until the
 * operation no longer meets it; then count the items both ways.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "engine/internal.h"
#include "tests/support/engine_kit.h"

#define FAILURES_MAX 400

struct torture {
    struct engine_kit kit;
    int n; /* of the call */
    struct fault fault;
};

typedef enum err operation_fn(struct torture *t);

static enum err
put(struct torture *t)
{
    char id[32], text[64];
    struct engine_outcome o;
    struct fault fault = {.err = OK};
    snprintf(id, sizeof(id), "put%d", t->n);
    snprintf(text, sizeof(text), "a text with the number %d", t->n);
    struct engine_item item = {.id = id,
        .text = engine_kit_text(text),
        .metadata = engine_kit_text("{\"a\":[1,\"x\"],\"b\":true}")};
    return engine_item_put(t->kit.engine, "docs", &item, NULL, &o, &fault);
}

static enum err
patch(struct torture *t)
{
    struct engine_outcome o;
    char text[32];
    snprintf(text, sizeof(text), "{\"a\":%d}", t->n);
    return engine_item_patch(
        t->kit.engine, "docs", "first", text, NULL, &o, NULL);
}

static enum err
search(struct torture *t)
{
    struct arena arena;
    struct engine_answer a;
    struct fault fault = {.err = OK};
    arena_init(&arena, 1 << 22);
    struct engine_query q = ENGINE_QUERY_DEFAULT;
    q.text = engine_kit_text("a text");
    q.filter_json = "{\"a\":{\"$exists\":true}}";
    q.with_text = q.with_metadata = true;
    enum err err = engine_search(t->kit.engine, "docs", &q, &arena, &a, &fault);
    arena_release(&arena);
    return err;
}

static enum err
delete_one(struct torture *t)
{
    char id[32];
    struct engine_outcome o;
    snprintf(id, sizeof(id), "del%d", t->n);
    alloc_fail_at(0);
    struct engine_item item = {.id = id, .text = engine_kit_text("gone")};
    assert_int_equal(
        engine_item_put(t->kit.engine, "docs", &item, NULL, &o, NULL), OK);
    alloc_fail_at((uint64_t)t->n);
    return engine_item_delete(t->kit.engine, "docs", id, NULL, NULL);
}

static enum err
pair(struct torture *t)
{
    char text[32];
    struct engine_outcome o;
    snprintf(text, sizeof(text), "question %d", t->n);
    struct engine_pair p = {.anchor = {.text = engine_kit_text(text)},
        .positive = {.id = "first"},
        .weight = 1,
        .group = "g"};
    return engine_pairs_add(t->kit.engine, "docs", &p, 1, &o, NULL);
}

static enum err
collection(struct torture *t)
{
    char name[32];
    bool created;
    struct arena arena;
    struct engine_collection_info info;
    arena_init(&arena, 1 << 22);
    snprintf(name, sizeof(name), "c%d", t->n);
    enum err err = engine_collection_put(t->kit.engine, name,
        "{\"dims\":32,\"encoder_config\":{\"buckets\":1024}}", &created, &arena,
        &info, &t->fault);
    arena_release(&arena);
    return err;
}

static void
ignore(void *arg, const struct engine_outcome *outcome)
{
    (void)arg;
    (void)outcome;
}

static enum err
bulk(struct torture *t)
{
    struct engine_bulk *b;
    uint64_t lines;
    enum err err = engine_bulk_new(
        &b, t->kit.engine, "docs", ENGINE_BULK_ITEMS, ignore, NULL, NULL);
    if (err) {
        return err;
    }
    for (int i = 0; i < 5 && !err; i++) {
        char id[32];
        snprintf(id, sizeof(id), "bulk%d-%d", t->n, i);
        struct engine_item item = {.id = id, .text = engine_kit_text(id)};
        err = engine_bulk_item(b, &item, NULL);
    }
    if (!err) {
        err = engine_bulk_finish(b, &lines, NULL, NULL);
    }
    engine_bulk_free(b);
    return err;
}

static void
torture(struct torture *t, operation_fn *operation, const char *what)
{
    int failures = 0;
    for (t->n = 1; t->n <= FAILURES_MAX; t->n++) {
        alloc_fail_at((uint64_t)t->n);
        enum err err = operation(t);
        uint64_t seen = alloc_fail_at(0);
        if (err && err != ERR_NOMEM) {
            fail_msg("%s, allocation %d: %s: %s %s", what, t->n, err_text(err),
                t->fault.pointer, t->fault.detail);
        }
        failures += err != OK;
        if (seen < (uint64_t)t->n) {
            break;
        }
    }
    assert_true(t->n <= FAILURES_MAX);
    assert_true(failures > 0);
    /* File and memory agree on what is there. */
    struct fault fault = {.err = OK};
    struct collection *c;
    assert_int_equal(collection_find(t->kit.engine, "docs", &c, &fault), OK);
    struct db *db;
    int64_t n;
    assert_int_equal(store_read_begin(t->kit.engine->store, &db), OK);
    assert_int_equal(items_count(db, c->id, &n), OK);
    store_read_end(t->kit.engine->store, db);
    struct snapshot *live = collection_live(c);
    assert_int_equal(n, roster_count(c->roster));
    assert_int_equal(n, ann_count(live->index->ann));
    assert_int_equal(c->pending_rows, 0);
    snapshot_unref(live);
    collection_unref(c);
}

static void
out_of_memory(void **state)
{
    (void)state;
    struct torture t = {.n = 0};
    engine_kit_open(&t.kit);
    engine_kit_collection(&t.kit, "docs");
    engine_kit_put(&t.kit, "docs", "first", "the first text", "{\"a\":1}");
    torture(&t, put, "put");
    torture(&t, search, "search");
    torture(&t, put, "put with columns");
    torture(&t, patch, "patch");
    torture(&t, delete_one, "delete");
    torture(&t, pair, "pair");
    torture(&t, bulk, "bulk");
    torture(&t, collection, "collection");
    engine_kit_reopen(&t.kit);
    struct fault fault = {.err = OK};
    assert_int_equal(store_check(t.kit.engine->store, &fault), OK);
    engine_kit_close(&t.kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
