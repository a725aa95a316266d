/*
 * Goal: a backup made while others write is a whole, working store with
 * everything acknowledged before it began; a failed one leaves nothing; the
 * check finds what breaks the rules; migrations are atomic.
 * Method: writers run during the copy, which is then opened and checked; the
 * file is changed by hand, rule by rule; migrations that fail half-way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/alloc.h"
#include "base/fsio.h"
#include "store/migrate.h"
#include "tests/support/store_kit.h"

/* ---- backup -------------------------------------------------------------- */

struct writing {
    struct kit *kit;
    atomic_bool stop;
    atomic_int n_acknowledged;
};

static void *
keep_writing(void *arg)
{
    struct writing *w = arg;
    long failures = 0;

    for (int i = 0; !atomic_load(&w->stop) && i < 100000; i++) {
        char prefix[24];
        snprintf(prefix, sizeof(prefix), "w%d-", i);
        failures += kit_put_items(w->kit, prefix, 3, 1, true) != OK;
        atomic_store(&w->n_acknowledged, i + 1);
        /* An operation that fails undoes its pages while the copy runs. */
        failures += kit_delete_item(w->kit, "nobody") != ERR_NOT_FOUND;
    }
    return (void *)failures;
}

struct watch {
    struct writing *writing;
    int steps;
    int n_before;
    bool monotone;
    int64_t last;
};

static bool
watch_progress(void *ctx, int64_t done, int64_t total)
{
    struct watch *watch = ctx;

    watch->steps++;
    watch->monotone = watch->monotone && done <= total;
    watch->last = total - done;
    return true;
}

static void
test_backup_while_writing(void **state)
{
    struct writing writing = {0};
    struct watch watch = {.writing = &writing, .monotone = true};
    struct store_backup_info *list = NULL;
    struct fault fault = {0};
    struct store *copy = NULL;
    struct kit kit;
    pthread_t thread;
    int64_t bytes = 0, n = 0;
    size_t n_list = 0;
    char path[512], dir[128], to[512];
    void *failures;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "first", 20000, 1, true), OK);
    writing.kit = &kit;
    assert_int_equal(pthread_create(&thread, NULL, keep_writing, &writing), 0);
    while (atomic_load(&writing.n_acknowledged) < 5) {
    }
    watch.n_before = atomic_load(&writing.n_acknowledged);
    assert_int_equal(
        store_backup(kit.store, "one", watch_progress, &watch, &bytes, &fault),
        OK);
    assert_true(watch.steps > 2 && watch.monotone && watch.last == 0);
    assert_int_equal(
        store_backup(kit.store, "one", NULL, NULL, &bytes, &fault), ERR_EXISTS);
    atomic_store(&writing.stop, true);
    pthread_join(thread, &failures);
    assert_null(failures);

    assert_int_equal(store_list_backups(kit.store, &list, &n_list), OK);
    assert_int_equal(n_list, 1);
    assert_string_equal(list[0].name, "one");
    assert_int_equal(list[0].bytes, bytes);
    mem_free(list);
    assert_int_equal(
        store_backup_path(kit.store, "one", path, sizeof(path)), OK);
    assert_int_equal(
        store_backup_path(kit.store, "one", path, 5), ERR_TOO_LARGE);
    assert_int_equal(
        store_backup_path(kit.store, "two", path, sizeof(path)), ERR_NOT_FOUND);
    assert_int_equal(
        store_backup_path(kit.store, "../x", path, sizeof(path)), ERR_INVALID);

    /* It is a store of its own. */
    kit_make_dir(dir, sizeof(dir));
    snprintf(to, sizeof(to), "%s/kindred.db", dir);
    assert_int_equal(rename(path, to), 0);
    assert_int_equal(store_open(&copy, dir, NULL, &fault), OK);
    assert_int_equal(store_check(copy, &fault), OK);
    struct db *db = NULL;
    assert_int_equal(store_read_begin(copy, &db), OK);
    assert_int_equal(items_count(db, kit.collection, &n), OK);
    store_read_end(copy, db);
    assert_true(n >= 20000 + 3 * watch.n_before);
    store_close(copy);
    kit_remove_dir(dir);
    kit_check(&kit);
    kit_close(&kit);
}

static bool
stop_soon(void *ctx, int64_t done, int64_t total)
{
    (void)done;
    (void)total;
    return --*(int *)ctx > 0;
}

static void
test_backup_refused(void **state)
{
    static const char *const BAD[] = {
        "", ".hidden", "a/b", "..", "a b", "\xc3\xa9"};
    struct store_backup_info *list = NULL;
    char long_name[STORE_BACKUP_NAME_MAX + 2];
    struct fault fault = {0};
    struct kit kit;
    int64_t bytes = 0;
    size_t n_list = 7;
    int steps = 2;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", 20000, 1, true), OK);
    assert_int_equal(store_list_backups(kit.store, &list, &n_list), OK);
    assert_int_equal(n_list, 0);
    assert_null(list);
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        assert_int_equal(
            store_backup(kit.store, BAD[i], NULL, NULL, &bytes, &fault),
            ERR_INVALID);
    }
    memset(long_name, 'a', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    assert_int_equal(
        store_backup(kit.store, long_name, NULL, NULL, &bytes, &fault),
        ERR_INVALID);
    assert_int_equal(
        store_backup(kit.store, "x", stop_soon, &steps, &bytes, &fault),
        ERR_CANCELLED);
    assert_int_equal(store_list_backups(kit.store, &list, &n_list), OK);
    assert_int_equal(n_list, 0);
    char path[256];
    snprintf(path, sizeof(path), "%s/backups", kit.dir);
    assert_int_equal(rmdir(path), 0); /* nothing is left in it */
    /* And the writer is as it was. */
    assert_int_equal(kit_put_items(&kit, "j", 10, 1, true), OK);
    assert_int_equal(
        store_backup(kit.store, "x", NULL, NULL, &bytes, &fault), OK);
    kit_check(&kit);
    kit_close(&kit);
}

/* ---- the check ----------------------------------------------------------- */

static void
run_sql(const char *dir, const char *sql)
{
    char path[256];
    sqlite3 *raw = NULL;

    snprintf(path, sizeof(path), "%s/kindred.db", dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    sqlite3_busy_timeout(raw, 5000);
    assert_int_equal(sqlite3_exec(raw, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(raw);
}

static void
test_check_finds(void **state)
{
    static const char *const BREAK[][2] = {
        {"UPDATE collections SET live_generation = 2",
            "does not name its live"},
        {"UPDATE generations SET state = 4 WHERE state = 1",
            "does not name its live"},
        {"UPDATE generations SET state = 4 WHERE state = 1;"
         "UPDATE collections SET live_generation = 0",
            "lost its live generation"},
        {"UPDATE collections SET previous_generation = 1",
            "does not name its previous"},
        {"UPDATE collections SET shadow_generation = 7", "shadow"},
        {"UPDATE spaces SET dead = 1", "without its space"},
        {"UPDATE spaces SET dims = 5", "without its space"},
        {"DELETE FROM embeddings WHERE key = 1 << 40 | 3",
            "item 3 has no vector"},
        {"INSERT INTO embeddings VALUES (99 << 40 | 3, zeroblob(16))",
            "unknown space 99"},
        {"INSERT INTO embeddings VALUES (1 << 40 | 4711, zeroblob(16))",
            "missing item 4711"},
        {"UPDATE embeddings SET vector = zeroblob(12)"
         " WHERE key = 1 << 40 | 2",
            "item 2 has another size"},
        {"UPDATE spaces SET n_vectors = 6", "counter of space 1"},
        {"UPDATE collections SET n_items = 6", "counter of items"},
        {"UPDATE items SET change_seq = 900 WHERE item = 5", "newer"},
        {"UPDATE counters SET value = 4", "over the counter"},
        {"UPDATE items SET collection = 2 WHERE item = 5", "missing one"},
        {"INSERT INTO weights VALUES (77 << 20, zeroblob(5))",
            "unknown generation row 77"},
        {"UPDATE generations SET weights = 2, weights_bytes = 5,"
         " weights_sha256 = zeroblob(32)",
            "weights of generation row 1"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(BREAK) / sizeof(BREAK[0]); i++) {
        struct fault fault = {0};
        struct kit kit;
        kit_open(&kit, NULL);
        kit_make_collection(&kit, "c");
        assert_int_equal(kit_put_items(&kit, "i", 5, 1, true), OK);
        kit_check(&kit);
        run_sql(kit.dir, BREAK[i][0]);
        assert_int_equal(store_check(kit.store, &fault), ERR_CORRUPT);
        if (strstr(fault.detail, BREAK[i][1]) == NULL) {
            fail_msg("%s: %s", BREAK[i][0], fault.detail);
        }
        kit_close(&kit);
    }
}

/* ---- migrations ---------------------------------------------------------- */

static struct embedded_file
file_of(const char *name, const char *sql)
{
    return (struct embedded_file){
        name, (const unsigned char *)sql, strlen(sql)};
}

static int64_t
get_number(struct db *db, const char *sql)
{
    int64_t v = -1;

    assert_int_equal(db_get_int(db, sql, &v), OK);
    return v;
}

static void
test_migrations(void **state)
{
    static const char COUNT_X[] = "SELECT count(*) FROM x";
    static const char COUNT_TABLES[] =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('y', 'z')";
    static const char VERSION[] = "PRAGMA user_version";
    char dir[128], path[256];
    struct fault fault = {0};
    struct db *db = NULL;
    (void)state;

    kit_make_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/m.db", dir);
    assert_int_equal(db_open(&db, path, DB_WRITER, &fault), OK);
    struct embedded_file files[] = {
        file_of("0001_a.sql", "CREATE TABLE x (v); INSERT INTO x VALUES (1);"
                              " PRAGMA user_version = 1;"),
        file_of("0002_b.sql",
            "CREATE TABLE y (v); INSERT INTO x VALUES (2);"
            " INSERT INTO nowhere VALUES (3); PRAGMA user_version = 2;"),
        {NULL, NULL, 0},
    };
    assert_int_equal(migrate_version(files), 2);
    /* The first stays, nothing of the second does. */
    assert_true(migrate_run(db, files, &fault) != OK);
    assert_non_null(strstr(fault.detail, "0002_b.sql"));
    assert_int_equal(get_number(db, VERSION), 1);
    assert_int_equal(get_number(db, COUNT_X), 1);
    assert_int_equal(get_number(db, COUNT_TABLES), 0);
    /* A file that forgets its version is refused as a whole. */
    files[1] = file_of("0002_b.sql", "CREATE TABLE z (v);");
    assert_int_equal(migrate_run(db, files, &fault), ERR_INTERNAL);
    assert_int_equal(get_number(db, COUNT_TABLES), 0);
    files[1] =
        file_of("0002_b.sql", "CREATE TABLE y (v); PRAGMA user_version = 2;");
    assert_int_equal(migrate_run(db, files, &fault), OK);
    assert_int_equal(migrate_run(db, files, &fault), OK); /* once only */
    assert_int_equal(get_number(db, VERSION), 2);
    assert_int_equal(get_number(db, COUNT_X), 1);
    db_close(db);
    kit_remove_dir(dir);
}

/* The first file of the shipped schema leaves an index for all that its
   comments promise; the planner must use them. */
static void
test_plans(void **state)
{
    static const char *const QUERIES[] = {
        "EXPLAIN QUERY PLAN SELECT * FROM items WHERE collection = 1 AND"
        " ext_id > 'a' ORDER BY ext_id LIMIT 5",
        "EXPLAIN QUERY PLAN SELECT * FROM items INDEXED BY"
        " items_by_collection WHERE collection = 1 AND item > 5"
        " ORDER BY item LIMIT 5",
        "EXPLAIN QUERY PLAN SELECT * FROM items INDEXED BY items_by_change"
        " WHERE collection = 1 AND change_seq > 5 ORDER BY change_seq LIMIT 5",
        "EXPLAIN QUERY PLAN SELECT pair FROM pairs INDEXED BY pairs_by_split"
        " WHERE collection = 1 AND state = 0 AND split = 2 AND pair > 5"
        " AND pair <= 9 ORDER BY pair LIMIT 3",
        "EXPLAIN QUERY PLAN SELECT pair FROM pairs INDEXED BY"
        " pairs_by_collection WHERE collection = 1 AND pair > 5"
        " ORDER BY pair LIMIT 3",
        "EXPLAIN QUERY PLAN SELECT id FROM jobs INDEXED BY jobs_by_collection"
        " WHERE id < 7 AND collection = 4 ORDER BY id DESC LIMIT 3",
    };
    char path[256];
    sqlite3 *raw = NULL;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    snprintf(path, sizeof(path), "%s/kindred.db", kit.dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    for (size_t i = 0; i < sizeof(QUERIES) / sizeof(QUERIES[0]); i++) {
        sqlite3_stmt *stmt = NULL;
        int n = 0;
        assert_int_equal(
            sqlite3_prepare_v2(raw, QUERIES[i], -1, &stmt, NULL), SQLITE_OK);
        while (sqlite3_step(stmt) == SQLITE_ROW) {
            const char *line = (const char *)sqlite3_column_text(stmt, 3);
            /* A range of an index, and no sorting. */
            if (strncmp(line, "SEARCH", 6) != 0) {
                fail_msg("%s: %s", QUERIES[i], line);
            }
            n++;
        }
        assert_int_equal(n, 1);
        sqlite3_finalize(stmt);
    }
    sqlite3_close(raw);
    kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup_while_writing),
        cmocka_unit_test(test_backup_refused),
        cmocka_unit_test(test_check_finds),
        cmocka_unit_test(test_migrations),
        cmocka_unit_test(test_plans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
