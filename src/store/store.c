#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fsio.h"
#include "base/log.h"
#include "store/migrate.h"
#include "store/writer.h"

static const char SET_WAL[] = "PRAGMA journal_mode = WAL";
static const char SET_SYNC_FULL[] = "PRAGMA synchronous = FULL";
static const char SET_SYNC_NORMAL[] = "PRAGMA synchronous = NORMAL";
static const char BEGIN[] = "BEGIN";
static const char COMMIT[] = "COMMIT";
static const char ROLLBACK[] = "ROLLBACK";

/* The first and the last page of every table and of every index, by walking
   down its left and right edges. */
static const char *const PROBES[] = {
    "SELECT min(key) FROM settings",
    "SELECT max(key) FROM settings",
    "SELECT count(*) FROM counters",
    "SELECT min(id) FROM collections",
    "SELECT max(id) FROM collections",
    "SELECT min(name) FROM collections WHERE deleted = 0",
    "SELECT max(name) FROM collections WHERE deleted = 0",
    "SELECT min(alias) FROM aliases",
    "SELECT max(alias) FROM aliases",
    "SELECT item, ext_id FROM items ORDER BY item LIMIT 1",
    "SELECT item, ext_id FROM items ORDER BY item DESC LIMIT 1",
    "SELECT collection, ext_id FROM items INDEXED BY items_by_ext_id"
    " ORDER BY collection, ext_id LIMIT 1",
    "SELECT collection, ext_id FROM items INDEXED BY items_by_ext_id"
    " ORDER BY collection DESC, ext_id DESC LIMIT 1",
    "SELECT collection, change_seq FROM items INDEXED BY items_by_change"
    " ORDER BY collection, change_seq LIMIT 1",
    "SELECT collection, change_seq FROM items INDEXED BY items_by_change"
    " ORDER BY collection DESC, change_seq DESC LIMIT 1",
    "SELECT min(space) FROM spaces",
    "SELECT max(space) FROM spaces",
    "SELECT key, vector FROM embeddings ORDER BY key LIMIT 1",
    "SELECT key, vector FROM embeddings ORDER BY key DESC LIMIT 1",
    "SELECT min(id) FROM generations",
    "SELECT max(id) FROM generations",
    "SELECT key FROM weights ORDER BY key LIMIT 1",
    "SELECT key FROM weights ORDER BY key DESC LIMIT 1",
    "SELECT min(name) FROM encoders WHERE weights = 2",
    "SELECT max(name) FROM encoders WHERE weights = 2",
    "SELECT key FROM encoder_weights ORDER BY key LIMIT 1",
    "SELECT key FROM encoder_weights ORDER BY key DESC LIMIT 1",
    "SELECT min(pair) FROM pairs",
    "SELECT max(pair) FROM pairs",
    "SELECT min(id) FROM jobs",
    "SELECT max(id) FROM jobs",
    "SELECT min(key_hash) FROM replies",
    "SELECT max(key_hash) FROM replies",
};

static const char GET_SETTING[] = "SELECT value FROM settings WHERE key = ?1";
static const char PUT_SETTING[] =
    "INSERT INTO settings (key, value) VALUES (?1, ?2)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value";
static const char DELETE_SETTING[] = "DELETE FROM settings WHERE key = ?1";
static const char COUNT_PAGES[] = "PRAGMA page_count";
static const char GET_PAGE_BYTES[] = "PRAGMA page_size";

/* ---- paths --------------------------------------------------------------- */

char *
store_join_path(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = mem_alloc(n, 1);

    if (path != NULL) {
        snprintf(path, n, "%s/%s", dir, name);
    }
    return path;
}

enum err
store_sync_path(const char *path, bool is_dir)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | (is_dir ? O_DIRECTORY : 0));
    int rc;

    if (fd < 0) {
        return ERR_IO;
    }
    rc = fsync(fd);
    close(fd);
    return rc == 0 ? OK : ERR_IO;
}

/* ---- opening ------------------------------------------------------------- */

static void
fill_options(struct store *store, const struct store_options *options)
{
    struct store_options *o = &store->options;

    *o = options == NULL ? (struct store_options){0} : *options;
    o->read_connections = o->read_connections == 0 ? 8 : o->read_connections;
    o->queue_ops_max = o->queue_ops_max == 0 ? 4096 : o->queue_ops_max;
    o->batch_ops_max = o->batch_ops_max == 0 ? 512 : o->batch_ops_max;
    if (o->writer_cache_kib == 0) {
        o->writer_cache_kib = 32768;
    }
    if (o->reader_cache_kib == 0) {
        o->reader_cache_kib = 2048;
    }
    if (o->checkpoint_pages == 0) {
        o->checkpoint_pages = 2048;
    }
}

/* A file that ends before its last page was cut: nothing but a full check
   would notice until that page is needed. */
static enum err
check_length(struct store *store, struct db *db, struct fault *fault)
{
    char *log_path = NULL;
    int64_t pages = 0, page_bytes = 0;
    struct stat file, log;
    enum err err = db_get_int(db, COUNT_PAGES, &pages);

    if (err == OK) {
        err = db_get_int(db, GET_PAGE_BYTES, &page_bytes);
    }
    if (err != OK) {
        return fault_set(fault, err, "", "cannot read %s", store->path);
    }
    log_path = mem_alloc(strlen(store->path) + 5, 1);
    if (log_path == NULL) {
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    snprintf(log_path, strlen(store->path) + 5, "%s-wal", store->path);
    /* Pages may still be in the log alone. */
    bool has_log = stat(log_path, &log) == 0 && log.st_size > 0;
    mem_free(log_path);
    if (stat(store->path, &file) != 0) {
        return OK;
    }
    if (file.st_size > 0 && file.st_size < page_bytes) {
        return fault_set(fault, ERR_CORRUPT, "",
            "%s is damaged: it ends within its first page", store->path);
    }
    if (has_log) {
        return OK;
    }
    if (file.st_size < pages * page_bytes) {
        return fault_set(fault, ERR_CORRUPT, "",
            "%s is damaged: it should have %lld bytes and has %lld",
            store->path, (long long)(pages * page_bytes),
            (long long)file.st_size);
    }
    return OK;
}

static enum err
check_edges(struct store *store, struct db *db, struct fault *fault)
{
    for (size_t i = 0; i < ARRAY_LEN(PROBES); i++) {
        sqlite3_stmt *stmt = NULL;
        int rc = sqlite3_prepare_v2(db->sql, PROBES[i], -1, &stmt, NULL);
        if (rc == SQLITE_OK) {
            rc = sqlite3_step(stmt);
        }
        enum err err = db_error(db, rc);
        sqlite3_finalize(stmt);
        /* A schema that lacks what its version promises is damage too. */
        if (err == ERR_INTERNAL) {
            err = ERR_CORRUPT;
        }
        if (err != OK) {
            return fault_set(fault, err, "", "%s: %s; restore a backup",
                store->path,
                err == ERR_CORRUPT ? "the file is damaged" : err_text(err));
        }
    }
    return OK;
}

static enum err
open_writer(struct store *store, struct fault *fault)
{
    const struct store_options *o = &store->options;
    struct db *db = NULL;
    bool is_new = access(store->path, F_OK) != 0;
    enum err err = db_open(&db, store->path, DB_WRITER, fault);

    if (err != OK) {
        return err;
    }
    err = migrate_check(db, store->path, fault);
    if (err == OK && !is_new) {
        err = check_length(store, db, fault);
    }
    if (err != OK) {
        db_close(db);
        return err;
    }
    err = db_run(db, SET_WAL);
    if (err == OK) {
        err =
            db_run(db, o->synchronous_normal ? SET_SYNC_NORMAL : SET_SYNC_FULL);
    }
    if (err == OK) {
        err = db_set_pragma(db, "wal_autocheckpoint", 0);
    }
    if (err == OK) {
        /* wal_autocheckpoint replaced our hook: take it back. */
        db_watch_log(db);
        err = db_set_pragma(db, "journal_size_limit", 64 << 20);
    }
    if (err == OK) {
        err = db_set_pragma(db, "cache_size", -(int64_t)o->writer_cache_kib);
    }
    if (err == OK && o->max_pages_test > 0) {
        err = db_set_pragma(db, "max_page_count", o->max_pages_test);
    }
    if (err != OK) {
        fault_set(
            fault, err, "", "cannot open %s: %s", store->path, err_text(err));
    } else {
        err = migrate_run(db, embedded_schema, fault);
    }
    if (err == OK) {
        err = check_edges(store, db, fault);
    }
    if (err == OK && is_new) {
        err = store_sync_path(store->dir, true);
    }
    if (err != OK) {
        db_close(db);
        return err;
    }
    err = writer_new(&store->writer, db, o);
    if (err != OK) {
        fault_set(fault, err, "", "cannot start the writer thread");
    }
    return err;
}

enum err
store_open(struct store **out, const char *dir,
    const struct store_options *options, struct fault *fault)
{
    struct store *store = mem_calloc(1, sizeof(*store));
    enum err err = OK;

    ASSERT(sqlite3_threadsafe() != 0);
    if (store == NULL) {
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    store->lock_fd = -1;
    fill_options(store, options);
    store->dir = mem_strdup(dir);
    store->path = store_join_path(dir, "kindred.db");
    store->schema_version = migrate_version(embedded_schema);
    if (store->dir == NULL || store->path == NULL) {
        err = fault_set(fault, ERR_NOMEM, "", "out of memory");
        goto out;
    }
    err = fsio_make_dir(dir, fault);
    if (err != OK) {
        goto out;
    }
    if (!store->options.no_lock_test) {
        err = fsio_lock_dir(dir, &store->lock_fd, fault);
        if (err != OK) {
            store->lock_fd = -1;
            goto out;
        }
    }
    err = open_writer(store, fault);
    if (err != OK) {
        goto out;
    }
    pthread_mutex_init(&store->readers_lock, NULL);
    pthread_cond_init(&store->reader_free, NULL);
    store->readers_ready = true;
    if (!store->options.no_lock_test) {
        store_sweep_backups(store);
    }
    log_info("store", "opened schema=%d", store->schema_version);
    *out = store;
    store = NULL;
out:
    store_close(store);
    return err;
}

void
store_close(struct store *store)
{
    if (store == NULL) {
        return;
    }
    if (store->readers_ready) {
        ASSERT(store->n_taken == 0);
    }
    while (store->free_readers != NULL) {
        struct db *db = store->free_readers;
        store->free_readers = db->next;
        db_close(db);
    }
    /* The last connection copies the log and removes it. */
    writer_free(store->writer);
    if (store->readers_ready) {
        pthread_cond_destroy(&store->reader_free);
        pthread_mutex_destroy(&store->readers_lock);
    }
    if (store->lock_fd >= 0) {
        fsio_unlock(store->lock_fd);
    }
    mem_free(store->path);
    mem_free(store->dir);
    mem_free(store);
}

/* ---- writing ------------------------------------------------------------- */

enum err
store_write(struct store *store, const struct store_op *op)
{
    return writer_run(store->writer, op);
}

enum err
store_run(struct store *store, store_op_fn *run, void *arg)
{
    struct store_op op = {.run = run, .arg = arg};

    return writer_run(store->writer, &op);
}

enum err
store_write_async(struct store *store, const struct store_op *op)
{
    return writer_post(store->writer, op);
}

static enum err
do_nothing(struct db *db, void *arg)
{
    (void)db;
    (void)arg;
    return OK;
}

enum err
store_drain(struct store *store)
{
    return writer_run_outside(store->writer, do_nothing, NULL);
}

/* ---- reading ------------------------------------------------------------- */

enum err
store_open_reader(struct store *store, struct db **out, struct fault *fault)
{
    struct db *db = NULL;
    enum err err = db_open(&db, store->path, DB_READER, fault);

    if (err == OK) {
        err = db_set_pragma(
            db, "cache_size", -(int64_t)store->options.reader_cache_kib);
    }
    if (err != OK) {
        db_close(db);
        return err;
    }
    *out = db;
    return OK;
}

enum err
store_read_begin(struct store *store, struct db **out)
{
    struct db *db = NULL;
    enum err err = OK;

    pthread_mutex_lock(&store->readers_lock);
    while (store->free_readers == NULL &&
           store->n_readers >= store->options.read_connections) {
        pthread_cond_wait(&store->reader_free, &store->readers_lock);
    }
    store->n_taken++;
    if (store->free_readers != NULL) {
        db = store->free_readers;
        store->free_readers = db->next;
        db->next = NULL;
    } else {
        store->n_readers++; /* the right to open one */
    }
    pthread_mutex_unlock(&store->readers_lock);

    if (db == NULL) {
        err = store_open_reader(store, &db, NULL);
    }
    if (err == OK) {
        err = db_run(db, BEGIN);
    }
    if (err == OK) {
        *out = db;
        return OK;
    }
    db_close(db);
    pthread_mutex_lock(&store->readers_lock);
    store->n_readers--;
    store->n_taken--;
    pthread_cond_signal(&store->reader_free);
    pthread_mutex_unlock(&store->readers_lock);
    return err;
}

void
store_read_end(struct store *store, struct db *db)
{
    bool usable;

    if (db == NULL) {
        return;
    }
    usable = sqlite3_get_autocommit(db->sql) || db_run(db, COMMIT) == OK ||
             db_run(db, ROLLBACK) == OK;
    if (!usable) {
        db_close(db);
        db = NULL;
    }
    pthread_mutex_lock(&store->readers_lock);
    if (db != NULL) {
        db->next = store->free_readers;
        store->free_readers = db;
    } else {
        store->n_readers--;
    }
    store->n_taken--;
    pthread_cond_signal(&store->reader_free);
    pthread_mutex_unlock(&store->readers_lock);
}

/* ---- facts --------------------------------------------------------------- */

const char *
store_dir(const struct store *store)
{
    return store->dir;
}

void
store_get_stats(struct store *store, struct store_stats *out)
{
    struct stat file;

    *out = (struct store_stats){0};
    writer_get_stats(store->writer, out);
    out->schema_version = store->schema_version;
    out->file_bytes = stat(store->path, &file) == 0 ? file.st_size : 0;
}

bool
store_is_read_only(const struct store *store)
{
    return writer_is_read_only(store->writer);
}

int
store_schema_version(void)
{
    return migrate_version(embedded_schema);
}

void
store_fail_commit_test(struct store *store)
{
    writer_fail_commit_test(store->writer);
}

static enum err
limit_pages(struct db *db, void *arg)
{
    int64_t *pages = arg;

    return db_set_pragma(
        db, "max_page_count", *pages == 0 ? 0xfffffffe : *pages);
}

enum err
store_limit_pages_test(struct store *store, int64_t pages)
{
    return writer_run_outside(store->writer, limit_pages, &pages);
}

/* ---- settings ------------------------------------------------------------ */

enum err
settings_get(
    struct db *db, const char *key, struct arena *arena, struct store_text *out)
{
    struct query q;
    struct store_text value = {NULL, 0};
    enum err err;

    query_start(&q, db, GET_SETTING);
    query_text(&q, store_text_of(key));
    if (query_row(&q)) {
        value = query_get_text(&q, 0);
        err = text_keep(arena, &value);
        q.err = q.err == OK ? err : q.err;
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *out = value;
    }
    return err;
}

enum err
settings_put(struct db *db, const char *key, struct store_text value)
{
    struct query q;

    query_start(&q, db, value.s == NULL ? DELETE_SETTING : PUT_SETTING);
    query_text(&q, store_text_of(key));
    if (value.s != NULL) {
        query_text(&q, value);
    }
    return query_run(&q, NULL);
}
