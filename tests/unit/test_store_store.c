/*
 * Goal: writes are grouped, ordered, isolated from one another and durable;
 * readers see one snapshot; a store that is damaged, newer, in use, full or
 * failing says so and harms nothing.
 * Method: a store in a temporary folder; many threads of small operations;
 * files damaged by hand; page limits and a failing commit through test hooks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "store/weights.h"
#include "tests/support/store_kit.h"

static enum err
do_nothing(struct db *db, void *arg)
{
    (void)db;
    (void)arg;
    return OK;
}

/* ---- settings and snapshots ---------------------------------------------- */

static enum err
put_setting(struct db *db, void *arg)
{
    const char **pair = arg;

    return settings_put(db, pair[0], store_text_of(pair[1]));
}

static void
test_settings(void **state)
{
    struct kit kit;
    struct store_text value = {NULL, 0};
    struct db *db = NULL, *other = NULL;
    (void)state;

    kit_open(&kit, NULL);
    assert_int_equal(
        store_run(kit.store, put_setting, (const char *[]){"a", "1"}), OK);
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    assert_int_equal(settings_get(db, "a", &kit.arena, &value), OK);
    assert_string_equal(value.s, "1");
    assert_int_equal(settings_get(db, "b", &kit.arena, &value), ERR_NOT_FOUND);
    /* A reader cannot write. */
    assert_int_equal(settings_put(db, "a", store_text_of("no")), ERR_READ_ONLY);

    /* This snapshot stays as it is; a later one sees the write. */
    assert_int_equal(
        store_run(kit.store, put_setting, (const char *[]){"a", "2"}), OK);
    assert_int_equal(settings_get(db, "a", &kit.arena, &value), OK);
    assert_string_equal(value.s, "1");
    assert_int_equal(store_read_begin(kit.store, &other), OK);
    assert_int_equal(settings_get(other, "a", &kit.arena, &value), OK);
    assert_string_equal(value.s, "2");
    store_read_end(kit.store, other);
    store_read_end(kit.store, db);
    store_read_end(kit.store, NULL);

    assert_int_equal(
        store_run(kit.store, put_setting, (const char *[]){"a", NULL}), OK);
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    assert_int_equal(settings_get(db, "a", &kit.arena, &value), ERR_NOT_FOUND);
    store_read_end(kit.store, db);
    assert_string_equal(store_dir(kit.store), kit.dir);
    kit_check(&kit);
    kit_close(&kit);
}

/* ---- group commit -------------------------------------------------------- */

#define THREADS 16
#define PER_THREAD 60

struct small {
    struct kit *kit;
    int thread;
    int n;
    bool fail;
    bool exists; /* not: the operation was undone */
};

static enum err
put_one_then_maybe_fail(struct db *db, void *arg)
{
    const struct small *small = arg;
    char key[32];
    enum err err;

    snprintf(key, sizeof(key), "%d-%d", small->thread, small->n);
    err = settings_put(db, key, store_text_of("x"));
    return err == OK && small->fail ? ERR_PRECONDITION : err;
}

static void *
write_many(void *arg)
{
    struct small small = *(struct small *)arg;
    long failures = 0;

    for (small.n = 0; small.n < PER_THREAD; small.n++) {
        small.fail = (small.n + small.thread) % 3 == 0;
        enum err err =
            store_run(small.kit->store, put_one_then_maybe_fail, &small);
        failures += err != (small.fail ? ERR_PRECONDITION : OK);
    }
    return (void *)failures;
}

/* Each operation has its own outcome, though many share a transaction. */
static void
test_group_commit(void **state)
{
    pthread_t threads[THREADS];
    struct small small[THREADS];
    struct store_text value;
    struct store_stats stats;
    struct db *db = NULL;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    for (int i = 0; i < THREADS; i++) {
        small[i] = (struct small){.kit = &kit, .thread = i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, write_many, &small[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failures;
        pthread_join(threads[i], &failures);
        assert_null(failures);
    }
    store_get_stats(kit.store, &stats);
    assert_int_equal(stats.ops, THREADS * PER_THREAD);
    assert_int_equal(stats.ops_failed, THREADS * PER_THREAD / 3);
    assert_true(stats.commits < stats.ops);
    assert_int_equal(stats.queue_ops, 0);
    assert_false(stats.read_only);
    assert_false(stats.disk_full);
    assert_int_equal(stats.schema_version, store_schema_version());

    kit_reopen(&kit, NULL);
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    for (int t = 0; t < THREADS; t++) {
        for (int n = 0; n < PER_THREAD; n++) {
            char key[32];
            snprintf(key, sizeof(key), "%d-%d", t, n);
            assert_int_equal(settings_get(db, key, &kit.arena, &value),
                (n + t) % 3 == 0 ? ERR_NOT_FOUND : OK);
        }
    }
    store_read_end(kit.store, db);
    kit_close(&kit);
}

/* ---- asynchronous operations --------------------------------------------- */

struct posted {
    struct kit *kit;
    int n;
    atomic_int *next;
    enum err outcome;
    bool ordered;
    atomic_bool *hold; /* run waits while set */
    bool then_fail;    /* the commit after this one fails */
};

static enum err
run_posted(struct db *db, void *arg)
{
    struct posted *posted = arg;

    while (posted->hold != NULL && atomic_load(posted->hold)) {
        clock_sleep_ms(1);
    }
    if (posted->n % 5 == 4) {
        return ERR_INVALID;
    }
    return settings_put(db, "posted", store_text_of("x"));
}

static void
done_posted(void *arg, enum err err)
{
    struct posted *posted = arg;

    if (posted->then_fail) {
        store_fail_commit_test(posted->kit->store);
    }
    posted->outcome = err;
    posted->ordered = atomic_fetch_add(posted->next, 1) == posted->n;
}

static void
test_async_order_and_bound(void **state)
{
    enum { N = 64 };
    struct store_options options = {.queue_ops_max = N - 1};
    struct posted posted[N + 1];
    atomic_int next = 0;
    atomic_bool hold = true;
    struct kit kit;
    (void)state;

    kit_open(&kit, &options);
    /* The first keeps the writer busy, the rest fill the queue. */
    for (int i = 0; i < N + 1; i++) {
        posted[i] = (struct posted){.kit = &kit,
            .n = i,
            .next = &next,
            .hold = i == 0 ? &hold : NULL,
            .outcome = ERR_COUNT};
        struct store_op op = {run_posted, done_posted, &posted[i]};
        enum err err = store_write_async(kit.store, &op);
        assert_int_equal(err, i < N ? OK : ERR_BUSY);
        struct store_stats stats;
        do {
            store_get_stats(kit.store, &stats);
        } while (i == 0 && stats.queue_ops > 0);
    }
    assert_int_equal(store_run(kit.store, run_posted, &posted[1]), ERR_BUSY);
    atomic_store(&hold, false);
    assert_int_equal(store_drain(kit.store), OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(posted[i].outcome, i % 5 == 4 ? ERR_INVALID : OK);
        assert_true(posted[i].ordered);
    }
    assert_int_equal(posted[N].outcome, ERR_COUNT);
    kit_close(&kit);
}

/* What is queued when the store is closed is still done. */
static void
test_close_drains(void **state)
{
    enum { N = 200 };
    struct posted posted[N];
    atomic_int next = 0;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    for (int i = 0; i < N; i++) {
        posted[i] = (struct posted){.kit = &kit, .n = i, .next = &next};
        assert_int_equal(
            store_write_async(kit.store,
                &(struct store_op){run_posted, done_posted, &posted[i]}),
            OK);
    }
    kit_reopen(&kit, NULL);
    assert_int_equal(atomic_load(&next), N);
    kit_close(&kit);
}

/* ---- readers ------------------------------------------------------------- */

static void *
read_many(void *arg)
{
    struct kit *kit = arg;
    long failures = 0;

    for (int i = 0; i < 200; i++) {
        struct db *db = NULL;
        int64_t n = -1, m = -1;
        failures += store_read_begin(kit->store, &db) != OK;
        /* Two tables, one snapshot: an item and its vector come together. */
        failures += items_count(db, kit->collection, &n) != OK;
        failures += vectors_count(db, kit->space, &m) != OK;
        failures += n != m;
        store_read_end(kit->store, db);
    }
    return (void *)failures;
}

static void
test_readers_share_a_small_pool(void **state)
{
    struct store_options options = {.read_connections = 2};
    pthread_t threads[6];
    struct kit kit;
    (void)state;

    kit_open(&kit, &options);
    kit_make_collection(&kit, "c");
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_many, &kit), 0);
    }
    for (int i = 0; i < 30; i++) {
        char prefix[16];
        snprintf(prefix, sizeof(prefix), "r%d-", i);
        assert_int_equal(kit_put_items(&kit, prefix, 5, 1, true), OK);
    }
    for (size_t i = 0; i < 6; i++) {
        void *failures;
        pthread_join(threads[i], &failures);
        assert_null(failures);
    }
    kit_check(&kit);
    kit_close(&kit);
}

/* ---- storage errors ------------------------------------------------------ */

static void
test_failed_commit_is_read_only(void **state)
{
    struct store_text value;
    struct db *db = NULL;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    assert_int_equal(
        store_run(kit.store, put_setting, (const char *[]){"a", "1"}), OK);
    store_fail_commit_test(kit.store);
    assert_int_equal(
        store_run(kit.store, put_setting, (const char *[]){"a", "2"}), ERR_IO);
    assert_true(store_is_read_only(kit.store));
    assert_int_equal(
        store_run(kit.store, put_setting, (const char *[]){"a", "3"}),
        ERR_READ_ONLY);
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    assert_int_equal(settings_get(db, "a", &kit.arena, &value), OK);
    assert_string_equal(value.s, "1");
    store_read_end(kit.store, db);
    kit_reopen(&kit, NULL);
    assert_false(store_is_read_only(kit.store));
    assert_int_equal(
        store_run(kit.store, put_setting, (const char *[]){"a", "4"}), OK);
    kit_close(&kit);
}

/* A failed group: everyone of it learns, in order. */
static void
test_failed_group_commit(void **state)
{
    enum { N = 9 };
    struct posted posted[N];
    atomic_int next = 0;
    atomic_bool hold = true;
    struct store_stats stats;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    for (int i = 0; i < N; i++) {
        posted[i] = (struct posted){.kit = &kit,
            .n = i * 5,
            .next = &next,
            .then_fail = i == 0,
            .hold = i == 0 ? &hold : NULL};
        assert_int_equal(
            store_write_async(kit.store,
                &(struct store_op){run_posted, done_posted, &posted[i]}),
            OK);
        do {
            store_get_stats(kit.store, &stats);
        } while (i == 0 && stats.queue_ops > 0);
    }
    atomic_store(&hold, false);
    assert_int_equal(store_drain(kit.store), OK);
    assert_int_equal(posted[0].outcome, OK);
    for (int i = 1; i < N; i++) {
        assert_int_equal(posted[i].outcome, ERR_IO);
    }
    assert_int_equal(atomic_load(&next), N);
    kit_close(&kit);
}

static void
test_full_disk_recovers(void **state)
{
    enum { N = 6 };
    struct store_stats stats;
    struct kit kit;
    size_t n_ok = 0;
    enum err err = OK;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    store_get_stats(kit.store, &stats);
    assert_int_equal(store_limit_pages_test(kit.store, 80), OK);
    for (; err == OK; n_ok++) {
        char prefix[16];
        snprintf(prefix, sizeof(prefix), "f%zu-", n_ok);
        err = kit_put_items(&kit, prefix, 50, 1, true);
        assert_true(n_ok < 10000);
    }
    assert_int_equal(err, ERR_FULL);
    store_get_stats(kit.store, &stats);
    assert_true(stats.disk_full);
    assert_false(stats.read_only);
    assert_int_equal(kit_put_items(&kit, "again", 50, 1, true), ERR_FULL);
    kit_check(&kit); /* nothing of the refused ones stayed */
    assert_int_equal(store_limit_pages_test(kit.store, 0), OK);
    assert_int_equal(kit_put_items(&kit, "later", 50, 1, true), OK);
    store_get_stats(kit.store, &stats);
    assert_false(stats.disk_full);
    kit_check(&kit);
    kit_close(&kit);
}

struct big {
    struct kit *kit;
    bool big;
    enum err outcome;
    atomic_bool *hold;
};

static enum err
run_big(struct db *db, void *arg)
{
    struct big *big = arg;
    char *text;
    enum err err;

    while (big->hold != NULL && atomic_load(big->hold)) {
        clock_sleep_ms(1);
    }
    if (!big->big) {
        return settings_put(db, "small", store_text_of("x"));
    }
    text = mem_alloc(4000000, 1);
    memset(text, 'x', 4000000);
    err = settings_put(db, "big", (struct store_text){text, 4000000});
    mem_free(text);
    return err;
}

static void
done_big(void *arg, enum err err)
{
    ((struct big *)arg)->outcome = err;
}

/* One operation that does not fit must not take its neighbours along. */
static void
test_full_disk_isolated(void **state)
{
    enum { N = 8 };
    struct big big[N];
    atomic_bool hold = true;
    struct store_stats stats;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    assert_int_equal(store_limit_pages_test(kit.store, 100), OK);
    for (int i = 0; i < N; i++) {
        big[i] = (struct big){.kit = &kit,
            .big = i == 4,
            .hold = i == 0 ? &hold : NULL,
            .outcome = ERR_COUNT};
        assert_int_equal(store_write_async(kit.store,
                             &(struct store_op){run_big, done_big, &big[i]}),
            OK);
        do {
            store_get_stats(kit.store, &stats);
        } while (i == 0 && stats.queue_ops > 0);
    }
    atomic_store(&hold, false);
    assert_int_equal(store_drain(kit.store), OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(big[i].outcome, i == 4 ? ERR_FULL : OK);
    }
    kit_close(&kit);
}

/* ---- opening ------------------------------------------------------------- */

static void
run_sql(const struct kit *kit, const char *sql)
{
    char path[256];
    sqlite3 *raw = NULL;

    snprintf(path, sizeof(path), "%s/kindred.db", kit->dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    assert_int_equal(sqlite3_exec(raw, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(raw);
}

static enum err
open_again(struct kit *kit, struct fault *fault)
{
    memset(fault, 0, sizeof(*fault));
    store_close(kit->store);
    kit->store = NULL;
    return store_open(&kit->store, kit->dir, NULL, fault);
}

static void
test_newer_schema(void **state)
{
    struct fault fault;
    struct kit kit;
    char known[16];
    (void)state;

    kit_open(&kit, NULL);
    store_close(kit.store);
    kit.store = NULL;
    run_sql(&kit, "PRAGMA user_version = 4711");
    assert_int_equal(open_again(&kit, &fault), ERR_NEWER);
    assert_non_null(strstr(fault.detail, "4711"));
    snprintf(known, sizeof(known), "%d", store_schema_version());
    assert_non_null(strstr(fault.detail, known));
    char back[64];
    snprintf(back, sizeof(back), "PRAGMA user_version = %s", known);
    run_sql(&kit, back);
    assert_int_equal(open_again(&kit, &fault), OK);
    kit_close(&kit);
}

static void
test_locked(void **state)
{
    struct store *second = NULL;
    struct fault fault = {0};
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    assert_int_equal(store_open(&second, kit.dir, NULL, &fault), ERR_LOCKED);
    assert_null(second);
    assert_true(strlen(fault.detail) > 0);
    kit_close(&kit);
}

static void
db_file(const struct kit *kit, char *path, size_t n)
{
    snprintf(path, n, "%s/kindred.db", kit->dir);
}

static void
test_not_our_file(void **state)
{
    struct fault fault;
    struct kit kit;
    char path[256];
    FILE *f;
    (void)state;

    kit_open(&kit, NULL);
    store_close(kit.store);
    kit.store = NULL;
    db_file(&kit, path, sizeof(path));

    /* A database of another program. */
    unlink(path);
    run_sql(&kit, "CREATE TABLE other (x)");
    assert_int_equal(open_again(&kit, &fault), ERR_CORRUPT);
    assert_non_null(strstr(fault.detail, "not made by kindred"));

    /* No database at all. */
    f = fopen(path, "w");
    for (int i = 0; i < 100000; i++) {
        fputc("nonsense"[i % 8], f);
    }
    fclose(f);
    assert_int_equal(open_again(&kit, &fault), ERR_CORRUPT);

    /* An empty file is as good as none. */
    f = fopen(path, "w");
    fclose(f);
    assert_int_equal(open_again(&kit, &fault), OK);
    kit_check(&kit);
    kit_close(&kit);
}

static void
fill(struct kit *kit)
{
    kit_open(kit, NULL);
    kit_make_collection(kit, "c");
    assert_int_equal(kit_put_items(kit, "d", 4000, 1, true), OK);
    store_close(kit->store);
    kit->store = NULL;
}

static void
test_truncated(void **state)
{
    struct fault fault;
    struct kit kit;
    struct stat st;
    char path[256];
    (void)state;

    fill(&kit);
    db_file(&kit, path, sizeof(path));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 5 * 16384), 0);
    assert_int_equal(open_again(&kit, &fault), ERR_CORRUPT);
    assert_non_null(strstr(fault.detail, "damaged"));
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(open_again(&kit, &fault), ERR_CORRUPT);
    kit_close(&kit);
}

/* Overwrite single pages: opening finds it, or the full check does, or (a free
   page) nothing is wrong. Nothing may crash. */
static void
test_overwritten_pages(void **state)
{
    struct kit kit;
    struct stat st;
    char path[256], page[16384], garbage[16384];
    int n_found = 0, n_pages;
    (void)state;

    fill(&kit);
    db_file(&kit, path, sizeof(path));
    assert_int_equal(stat(path, &st), 0);
    n_pages = (int)(st.st_size / 16384);
    memset(garbage, 0xa5, sizeof(garbage));
    for (int p = 0; p < n_pages; p++) {
        struct fault fault;
        int fd = open(path, O_RDWR);
        off_t at = (off_t)p * 16384;
        assert_int_equal(pread(fd, page, sizeof(page), at), 16384);
        assert_int_equal(pwrite(fd, garbage, sizeof(garbage), at), 16384);
        close(fd);
        enum err err = open_again(&kit, &fault);
        if (err == OK) {
            err = store_check(kit.store, &fault);
        }
        assert_true(err == OK || err == ERR_CORRUPT);
        n_found += err == ERR_CORRUPT;
        store_close(kit.store);
        kit.store = NULL;
        fd = open(path, O_RDWR);
        assert_int_equal(pwrite(fd, page, sizeof(page), at), 16384);
        close(fd);
    }
    /* The map of pages (auto-vacuum) is checked too; nothing is free here. */
    assert_int_equal(n_found, n_pages);
    struct fault fault;
    assert_int_equal(open_again(&kit, &fault), OK);
    kit_check(&kit);
    kit_close(&kit);
}

/* The n-th allocation fails, for every n: a clear error, no leak (sanitizer
   builds see it), no change. */
static void
test_out_of_memory(void **state)
{
    struct kit kit;
    bool failed = true;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    store_close(kit.store);
    kit.store = NULL;
    for (uint64_t n = 1; failed; n++) {
        struct store *store = NULL;
        struct store_backup_info *list = NULL;
        struct db *db = NULL;
        struct fault fault = {0};
        char path[256];
        void *bytes = NULL;
        size_t n_list = 0;
        assert_true(n < 200);
        alloc_fail_at(n);
        enum err err = store_open(&store, kit.dir, NULL, &fault);
        if (err == OK) {
            err = store_read_begin(store, &db);
        }
        if (err == OK) {
            store_read_end(store, db);
            struct store_op op = {do_nothing, NULL, NULL};
            err = store_write_async(store, &op);
        }
        if (err == OK) {
            err = store_list_backups(store, &list, &n_list);
            mem_free(list);
        }
        if (err == OK) {
            err = store_backup_path(store, "none", path, sizeof(path));
            err = err == ERR_NOT_FOUND ? OK : err;
        }
        if (err == OK) {
            err = weights_load(store, kit.generation_id, &bytes, &n_list);
            err = err == ERR_NOT_FOUND ? OK : err;
        }
        if (err == OK) {
            err = store_check(store, &fault);
        }
        failed = err != OK;
        alloc_fail_at(0);
        assert_true(err == OK || err == ERR_NOMEM);
        store_close(store);
    }
    kit_reopen(&kit, NULL);
    kit_check(&kit);
    kit_close(&kit);
}

static void
test_synchronous_normal(void **state)
{
    struct store_options options = {.synchronous_normal = true};
    struct kit kit;
    (void)state;

    kit_open(&kit, &options);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "n", 10, 1, true), OK);
    kit_reopen(&kit, NULL);
    kit_check(&kit);
    kit_close(&kit);
}

/* The log is copied into the file and does not grow without end. */
static void
test_checkpoints(void **state)
{
    struct store_options options = {.checkpoint_pages = 16};
    struct store_stats stats;
    struct kit kit;
    struct stat st;
    char path[256];
    (void)state;

    kit_open(&kit, &options);
    kit_make_collection(&kit, "c");
    for (int i = 0; i < 60; i++) {
        char prefix[16];
        snprintf(prefix, sizeof(prefix), "k%d-", i);
        assert_int_equal(kit_put_items(&kit, prefix, 100, 1, true), OK);
    }
    store_get_stats(kit.store, &stats);
    assert_true(stats.checkpoints > 2);
    assert_true(stats.file_bytes > 10 * 16384);
    snprintf(path, sizeof(path), "%s/kindred.db-wal", kit.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 200 * 16384);
    kit_check(&kit);
    kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_async_order_and_bound),
        cmocka_unit_test(test_close_drains),
        cmocka_unit_test(test_readers_share_a_small_pool),
        cmocka_unit_test(test_failed_commit_is_read_only),
        cmocka_unit_test(test_failed_group_commit),
        cmocka_unit_test(test_full_disk_recovers),
        cmocka_unit_test(test_full_disk_isolated),
        cmocka_unit_test(test_newer_schema),
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_not_our_file),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_overwritten_pages),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_synchronous_normal),
        cmocka_unit_test(test_checkpoints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
