/*
 * Goal: collections and aliases share one name space; deleting one frees its
 * name at once and its rows in short steps, whatever is interrupted; jobs and
 * kept replies have the life that their headers promise.
 * Method: by hand; a purge is stopped and the store reopened between steps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/jobs.h"
#include "store/pairs.h"
#include "store/purge.h"
#include "store/replies.h"
#include "store/weights.h"
#include "tests/support/store_kit.h"

static struct db *
begin(struct kit *kit)
{
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    return db;
}

struct call {
    const char *name;
    const char *text;
    int64_t collection;
    bool created;
    size_t n;
    int64_t id;
    struct job_row job;
    bool only;
    struct job_update update;
    int64_t now_ms;
    const int64_t *keep;
    size_t n_keep;
};

static enum err
op_create(struct db *db, void *arg)
{
    struct call *c = arg;

    return collections_create(db, store_text_of(c->name), store_text_of("{}"),
        store_text_of("{}"), 1, &c->collection);
}

static enum err
op_patch(struct db *db, void *arg)
{
    struct call *c = arg;

    return collections_patch(db, c->collection, store_text_of(c->text), 77);
}

static enum err
op_delete(struct db *db, void *arg)
{
    struct call *c = arg;

    return collections_delete(db, c->collection);
}

static enum err
op_see_pairs(struct db *db, void *arg)
{
    struct call *c = arg;

    return collections_see_pairs(db, c->collection, c->id);
}

static enum err
op_alias(struct db *db, void *arg)
{
    struct call *c = arg;

    return aliases_put(
        db, store_text_of(c->name), c->collection, 1, &c->created);
}

static enum err
op_alias_delete(struct db *db, void *arg)
{
    struct call *c = arg;

    return aliases_delete(db, store_text_of(c->name));
}

/* ---- collections --------------------------------------------------------- */

static enum err
count_collection(void *ctx, const struct collection_row *row)
{
    struct {
        size_t n;
        char names[8][16];
    } *seen = ctx;

    snprintf(seen->names[seen->n++], 16, "%s", row->name.s);
    return OK;
}

static void
test_collections(void **state)
{
    struct collection_row row;
    struct call c = {0};
    struct kit kit;
    struct db *db;
    struct {
        size_t n;
        char names[8][16];
    } seen = {0};
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "docs");
    c.name = "docs";
    assert_int_equal(store_run(kit.store, op_create, &c), ERR_EXISTS);
    c.name = "b";
    assert_int_equal(store_run(kit.store, op_create, &c), OK);
    c.name = "a";
    assert_int_equal(store_run(kit.store, op_create, &c), OK);

    db = begin(&kit);
    assert_int_equal(
        collections_find(db, store_text_of("docs"), &kit.arena, &row), OK);
    assert_int_equal(row.id, kit.collection);
    assert_string_equal(row.fixed.s, "{\"dims\":4}");
    assert_int_equal(row.live_generation, 1);
    assert_int_equal(row.n_items, 0);
    assert_int_equal(row.created_ms, 1000);
    assert_int_equal(
        collections_find(db, store_text_of("no"), &kit.arena, &row),
        ERR_NOT_FOUND);
    assert_int_equal(collections_get(db, 99, &kit.arena, &row), ERR_NOT_FOUND);
    assert_int_equal(
        collections_list(db, store_text_of(NULL), 2, count_collection, &seen),
        OK);
    assert_int_equal(collections_list(db, store_text_of(seen.names[1]), 2,
                         count_collection, &seen),
        OK);
    store_read_end(kit.store, db);
    assert_int_equal(seen.n, 3);
    assert_string_equal(seen.names[0], "a");
    assert_string_equal(seen.names[1], "b");
    assert_string_equal(seen.names[2], "docs");

    c.text = "{\"x\":1}";
    assert_int_equal(store_run(kit.store, op_patch, &c), OK);
    c.id = 12;
    assert_int_equal(store_run(kit.store, op_see_pairs, &c), OK);
    c.id = 3;
    assert_int_equal(store_run(kit.store, op_see_pairs, &c), OK);
    db = begin(&kit);
    assert_int_equal(collections_get(db, c.collection, &kit.arena, &row), OK);
    store_read_end(kit.store, db);
    assert_string_equal(row.patched.s, "{\"x\":1}");
    assert_int_equal(row.updated_ms, 77);
    assert_int_equal(row.pairs_seen, 12);
    c.collection = 99;
    assert_int_equal(store_run(kit.store, op_patch, &c), ERR_NOT_FOUND);
    assert_int_equal(store_run(kit.store, op_see_pairs, &c), ERR_NOT_FOUND);
    kit_close(&kit);
}

static enum err
count_alias(void *ctx, struct store_text alias, struct store_text collection)
{
    assert_true(alias.len > 0 && collection.len > 0);
    ++*(int *)ctx;
    return OK;
}

static void
test_aliases(void **state)
{
    struct collection_row row;
    struct store_text name;
    struct call c = {0};
    struct kit kit;
    struct db *db;
    int n = 0;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "docs");
    c.name = "new";
    c.collection = kit.collection;
    assert_int_equal(store_run(kit.store, op_alias, &c), OK);
    assert_true(c.created);
    c.name = "docs2";
    assert_int_equal(store_run(kit.store, op_create, &c), OK);
    c.name = "new";
    assert_int_equal(store_run(kit.store, op_alias, &c), OK);
    assert_false(c.created);
    db = begin(&kit);
    assert_int_equal(
        aliases_get(db, store_text_of("new"), &kit.arena, &name), OK);
    assert_string_equal(name.s, "docs2");
    assert_int_equal(
        collections_find(db, store_text_of("new"), &kit.arena, &row), OK);
    assert_string_equal(row.name.s, "docs2");
    assert_int_equal(
        aliases_list(db, store_text_of(NULL), 10, count_alias, &n), OK);
    assert_int_equal(n, 1);
    assert_int_equal(
        aliases_list(db, store_text_of("new"), 10, count_alias, &n), OK);
    assert_int_equal(n, 1);
    store_read_end(kit.store, db);

    /* One name space. */
    assert_int_equal(store_run(kit.store, op_create, &c), ERR_EXISTS);
    c.name = "docs";
    assert_int_equal(store_run(kit.store, op_alias, &c), ERR_EXISTS);
    c.name = "x";
    c.collection = 99;
    assert_int_equal(store_run(kit.store, op_alias, &c), ERR_NOT_FOUND);
    c.name = "new";
    assert_int_equal(store_run(kit.store, op_alias_delete, &c), OK);
    assert_int_equal(store_run(kit.store, op_alias_delete, &c), ERR_NOT_FOUND);
    db = begin(&kit);
    assert_int_equal(aliases_get(db, store_text_of("new"), &kit.arena, &name),
        ERR_NOT_FOUND);
    store_read_end(kit.store, db);
    kit_close(&kit);
}

/* ---- deleting and purging ------------------------------------------------ */

static enum err
op_pair(struct db *db, void *arg)
{
    struct call *c = arg;
    struct pair_put put = {.anchor_text = store_text_of("q"),
        .positive_id = store_text_of("g0"),
        .weight = 1};
    struct pair_result result;

    return pairs_put(db, c->collection, &put, 1, 1, &result);
}

static enum err
op_job(struct db *db, void *arg)
{
    struct call *c = arg;

    return jobs_create(db, &c->job, c->only, c->now_ms, &c->id);
}

static enum err
op_purge_step(struct db *db, void *arg)
{
    struct call *c = arg;

    return purge_step(db, 100, &c->n);
}

static void
test_delete_and_purge(void **state)
{
    int64_t id, number, space, n_rows = 0;
    struct collection_row row;
    struct job_row job;
    struct call c = {0};
    struct kit kit;
    struct db *db;
    atomic_bool stop = true;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "stays");
    assert_int_equal(kit_put_items(&kit, "s", 10, 1, true), OK);
    struct kit stays = kit;
    kit_make_collection(&kit, "goes");
    assert_int_equal(kit_put_items(&kit, "g", 350, 1, true), OK);
    kit_make_generation(&kit, 2, &id, &number, &space);
    assert_int_equal(weights_save(kit.store, id, "bytes", 5), OK);
    c.collection = kit.collection;
    assert_int_equal(store_run(kit.store, op_pair, &c), OK);
    c.name = "alias";
    assert_int_equal(store_run(kit.store, op_alias, &c), OK);
    c.job = (struct job_row){
        .kind = store_text_of("train"), .collection = kit.collection};
    assert_int_equal(store_run(kit.store, op_job, &c), OK);

    assert_int_equal(store_run(kit.store, op_delete, &c), OK);
    assert_int_equal(store_run(kit.store, op_delete, &c), ERR_NOT_FOUND);
    assert_int_equal(kit_put_items(&kit, "x", 1, 1, false), ERR_NOT_FOUND);
    assert_int_equal(store_run(kit.store, op_pair, &c), ERR_NOT_FOUND);
    db = begin(&kit);
    assert_int_equal(
        collections_find(db, store_text_of("goes"), &kit.arena, &row),
        ERR_NOT_FOUND);
    assert_int_equal(
        collections_find(db, store_text_of("alias"), &kit.arena, &row),
        ERR_NOT_FOUND);
    assert_int_equal(jobs_get(db, c.id, &kit.arena, &job), OK);
    assert_int_equal(job.state, JOB_FAILED);
    assert_true(job.error.len > 0);
    store_read_end(kit.store, db);
    kit_check(&kit);

    /* The name is free while rows of the old one are still there. */
    struct kit again = kit;
    kit_make_collection(&again, "goes");
    assert_int_equal(kit_put_items(&again, "g", 3, 1, true), OK);

    assert_int_equal(purge_run(kit.store, &stop, &n_rows), ERR_CANCELLED);
    assert_int_equal(n_rows, 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(store_run(kit.store, op_purge_step, &c), OK);
        assert_true(c.n > 0);
        kit_check(&kit);
        kit_reopen(&kit, NULL);
    }
    assert_int_equal(purge_run(kit.store, NULL, &n_rows), OK);
    assert_true(n_rows > 100);
    assert_int_equal(store_run(kit.store, op_purge_step, &c), OK);
    assert_int_equal(c.n, 0);
    kit_check(&kit);

    int64_t n = -1;
    db = begin(&kit);
    assert_int_equal(items_count(db, stays.collection, &n), OK);
    assert_int_equal(n, 10);
    assert_int_equal(vectors_count(db, stays.space, &n), OK);
    assert_int_equal(n, 10);
    assert_int_equal(items_count(db, again.collection, &n), OK);
    assert_int_equal(n, 3);
    assert_int_equal(items_count(db, kit.collection, &n), ERR_NOT_FOUND);
    assert_int_equal(jobs_get(db, c.id, &kit.arena, &job), OK); /* stays */
    store_read_end(kit.store, db);
    kit_close(&kit);
}

/* A large deletion gives pages back to the file system. */
static void
test_purge_shrinks_file(void **state)
{
    struct store_stats before, after;
    struct call c = {0};
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "big");
    int64_t id, number, space;
    kit_make_generation(&kit, 2, &id, &number, &space);
    char *bytes = calloc(96, 1 << 20);
    assert_non_null(bytes);
    assert_int_equal(weights_save(kit.store, id, bytes, (size_t)96 << 20), OK);
    free(bytes);
    kit_reopen(&kit, NULL);
    store_get_stats(kit.store, &before);
    c.collection = kit.collection;
    assert_int_equal(store_run(kit.store, op_delete, &c), OK);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    kit_reopen(&kit, NULL);
    store_get_stats(kit.store, &after);
    assert_true(before.file_bytes > (int64_t)96 << 20);
    assert_true(after.file_bytes < (int64_t)80 << 20);
    kit_check(&kit);
    kit_close(&kit);
}

/* ---- jobs ---------------------------------------------------------------- */

static enum err
op_update(struct db *db, void *arg)
{
    struct call *c = arg;

    return jobs_update(db, c->id, &c->update, c->now_ms);
}

static enum err
op_fail(struct db *db, void *arg)
{
    struct call *c = arg;

    return jobs_fail_unfinished(
        db, c->keep, c->n_keep, store_text_of("interrupted"), c->now_ms, &c->n);
}

static enum err
collect_job(void *ctx, const struct job_row *row)
{
    struct {
        size_t n;
        int64_t ids[16];
    } *seen = ctx;

    seen->ids[seen->n++] = row->id;
    return OK;
}

static void
test_jobs(void **state)
{
    struct {
        size_t n;
        int64_t ids[16];
    } seen = {0};
    struct job_row row;
    struct call c = {.now_ms = 10};
    struct kit kit;
    struct db *db;
    int64_t first, second, found = 0;
    (void)state;

    kit_open(&kit, NULL);
    c.job = (struct job_row){.kind = store_text_of("train"),
        .collection = 3,
        .collection_name = store_text_of("docs"),
        .params = store_text_of("{}")};
    c.only = true;
    assert_int_equal(store_run(kit.store, op_job, &c), OK);
    first = c.id;
    c.id = 0;
    assert_int_equal(store_run(kit.store, op_job, &c), ERR_BUSY);
    assert_int_equal(c.id, first);
    c.only = false;
    assert_int_equal(store_run(kit.store, op_job, &c), OK);
    second = c.id;
    c.job.collection = 4;
    c.job.kind = store_text_of("reembed");
    c.only = true;
    assert_int_equal(store_run(kit.store, op_job, &c), OK);

    /* Queued, running, progress, done. */
    c.id = first;
    c.now_ms = 20;
    c.update = (struct job_update){.state = JOB_RUNNING,
        .progress = 0.25,
        .phase = store_text_of("train"),
        .resume = store_text_of("{\"step\":1}")};
    assert_int_equal(store_run(kit.store, op_update, &c), OK);
    c.now_ms = 30;
    c.update = (struct job_update){.state = JOB_RUNNING,
        .progress = 0.5,
        .curve = store_text_of("[[1,2]]")};
    assert_int_equal(store_run(kit.store, op_update, &c), OK);
    db = begin(&kit);
    assert_int_equal(jobs_get(db, first, &kit.arena, &row), OK);
    assert_int_equal(row.state, JOB_RUNNING);
    assert_string_equal(job_state_name(row.state), "running");
    assert_true(row.progress == 0.5);
    assert_string_equal(row.kind.s, "train");
    assert_string_equal(row.collection_name.s, "docs");
    assert_string_equal(row.phase.s, "train");
    assert_string_equal(row.resume.s, "{\"step\":1}");
    assert_string_equal(row.curve.s, "[[1,2]]");
    assert_null(row.result.s);
    assert_int_equal(row.created_ms, 10);
    assert_int_equal(row.started_ms, 20);
    assert_int_equal(row.finished_ms, 0);
    assert_int_equal(
        jobs_find_unfinished(db, 3, store_text_of("train"), &found), OK);
    assert_int_equal(found, first);
    assert_int_equal(
        jobs_find_unfinished(db, 4, store_text_of(NULL), &found), OK);
    assert_int_equal(
        jobs_find_unfinished(db, 4, store_text_of("train"), &found),
        ERR_NOT_FOUND);
    store_read_end(kit.store, db);
    c.now_ms = 40;
    c.update = (struct job_update){
        .state = JOB_DONE, .progress = 1, .result = store_text_of("{}")};
    assert_int_equal(store_run(kit.store, op_update, &c), OK);
    assert_int_equal(store_run(kit.store, op_update, &c), ERR_CONFLICT);
    c.id = 4711;
    assert_int_equal(store_run(kit.store, op_update, &c), ERR_NOT_FOUND);

    /* Lists: newest first, filtered, paged. */
    db = begin(&kit);
    struct job_filter filter = {.state = -1, .limit = 2};
    assert_int_equal(jobs_list(db, &filter, collect_job, &seen), OK);
    filter.before = seen.ids[1];
    assert_int_equal(jobs_list(db, &filter, collect_job, &seen), OK);
    assert_int_equal(seen.n, 3);
    assert_true(seen.ids[0] > seen.ids[1] && seen.ids[1] > seen.ids[2]);
    seen.n = 0;
    filter =
        (struct job_filter){.collection = 3, .state = JOB_DONE, .limit = 10};
    assert_int_equal(jobs_list(db, &filter, collect_job, &seen), OK);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.ids[0], first);
    seen.n = 0;
    assert_int_equal(jobs_list_unfinished(db, collect_job, &seen), OK);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.ids[0], second);
    assert_int_equal(jobs_get(db, 4711, &kit.arena, &row), ERR_NOT_FOUND);
    store_read_end(kit.store, db);

    /* What a crash interrupted. */
    c.keep = &second;
    c.n_keep = 1;
    assert_int_equal(store_run(kit.store, op_fail, &c), OK);
    assert_int_equal(c.n, 1);
    db = begin(&kit);
    assert_int_equal(jobs_get(db, second, &kit.arena, &row), OK);
    assert_int_equal(row.state, JOB_QUEUED);
    assert_int_equal(jobs_get(db, second + 1, &kit.arena, &row), OK);
    assert_int_equal(row.state, JOB_FAILED);
    assert_string_equal(row.error.s, "interrupted");
    store_read_end(kit.store, db);
    kit_close(&kit);
}

/* ---- replies ------------------------------------------------------------- */

struct reply_call {
    uint8_t key[SHA256_BYTES];
    struct reply_row row;
    int64_t now_ms;
    size_t n;
};

static enum err
op_reply(struct db *db, void *arg)
{
    struct reply_call *c = arg;

    return replies_put(db, c->key, &c->row, c->now_ms);
}

static enum err
op_expire(struct db *db, void *arg)
{
    struct reply_call *c = arg;

    return replies_expire(db, c->now_ms, 2, &c->n);
}

static void
test_replies(void **state)
{
    struct reply_call c = {.row = {.status = 201,
                               .body = {"{}", 2},
                               .body_hash = {5},
                               .expires_ms = 100},
        .now_ms = 10};
    struct reply_row row;
    struct kit kit;
    struct db *db;
    (void)state;

    kit_open(&kit, NULL);
    assert_int_equal(store_run(kit.store, op_reply, &c), OK);
    assert_int_equal(store_run(kit.store, op_reply, &c), ERR_EXISTS);
    db = begin(&kit);
    assert_int_equal(replies_get(db, c.key, 99, &kit.arena, &row), OK);
    assert_int_equal(row.status, 201);
    assert_int_equal(row.body_hash[0], 5);
    assert_string_equal(row.body.s, "{}");
    assert_null(row.headers.s);
    assert_int_equal(
        replies_get(db, c.key, 100, &kit.arena, &row), ERR_NOT_FOUND);
    store_read_end(kit.store, db);
    /* After its time the key may be used again. */
    c.now_ms = 100;
    c.row.expires_ms = 200;
    c.row.headers = store_text_of("Location: /x");
    assert_int_equal(store_run(kit.store, op_reply, &c), OK);
    for (uint8_t i = 1; i < 5; i++) {
        c.key[0] = i;
        assert_int_equal(store_run(kit.store, op_reply, &c), OK);
    }
    assert_int_equal(store_run(kit.store, op_expire, &c), OK);
    assert_int_equal(c.n, 0);
    c.now_ms = 200;
    for (size_t n = 5; n > 0; n -= c.n) {
        assert_int_equal(store_run(kit.store, op_expire, &c), OK);
        assert_int_equal(c.n, n > 2 ? 2 : n);
    }
    kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collections),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_delete_and_purge),
        cmocka_unit_test(test_purge_shrinks_file),
        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_replies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
