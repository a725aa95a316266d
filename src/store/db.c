#include "store/db.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"

#define BUSY_TIMEOUT_MS 5000
/* One bound value or row; above every limit of the engine. */
#define LENGTH_BYTES_MAX (64 << 20)

static const char CONFIG_NEW_FILE[] = "PRAGMA page_size = 16384;"
                                      "PRAGMA auto_vacuum = INCREMENTAL;";
static const char CONFIG_ALL[] = "PRAGMA foreign_keys = ON;"
                                 "PRAGMA cell_size_check = ON;"
                                 "PRAGMA temp_store = MEMORY;"
                                 "PRAGMA mmap_size = 0;";
static const char CONFIG_READER[] = "PRAGMA query_only = ON;";

struct store_text
store_text_of(const char *s)
{
    struct store_text text = {s, s == NULL ? 0 : strlen(s)};

    return text;
}

enum err
text_keep(struct arena *arena, struct store_text *text)
{
    const char *copy;

    if (text->s == NULL) {
        return OK;
    }
    copy = arena_strndup(arena, text->s, text->len);
    if (copy == NULL) {
        return ERR_NOMEM;
    }
    text->s = copy;
    return OK;
}

/* ---- errors -------------------------------------------------------------- */

/* Whether an extended I/O code says that something was not written or not
   synced. A failed read or a lack of memory leaves the file as it was. */
static bool
is_write_failure(int rc)
{
    switch (rc) {
    case SQLITE_IOERR_READ:
    case SQLITE_IOERR_SHORT_READ:
    case SQLITE_IOERR_NOMEM:
    case SQLITE_IOERR_SHMMAP:
    case SQLITE_IOERR_SHMOPEN:
    case SQLITE_IOERR_SHMSIZE:
    case SQLITE_IOERR_FSTAT:
        return false;
    default:
        return (rc & 0xff) == SQLITE_IOERR;
    }
}

static enum err
constraint_error(int rc)
{
    switch (rc) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
        return ERR_EXISTS;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return ERR_NOT_FOUND;
    default:
        return ERR_INVALID;
    }
}

enum err
db_error(struct db *db, int rc)
{
    static struct log_limit limit;
    int extended = db->sql == NULL ? rc : sqlite3_extended_errcode(db->sql);
    const char *words = db->sql == NULL ? "" : sqlite3_errmsg(db->sql);

    if (rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE) {
        return OK;
    }
    if ((extended & 0xff) != (rc & 0xff)) {
        extended = rc;
    }
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return ERR_NOMEM;
    case SQLITE_FULL:
        log_limited(&limit, LOG_WARN, "store", "disk_full");
        return ERR_FULL;
    case SQLITE_IOERR:
        if (extended == SQLITE_IOERR_NOMEM) {
            return ERR_NOMEM;
        }
        /* The shared index of the log could not grow. */
        if (extended == SQLITE_IOERR_SHMSIZE) {
            return ERR_FULL;
        }
        db->io_failed = db->io_failed || is_write_failure(extended);
        log_limited(&limit, LOG_ERROR, "store", "io_error code=%d errno=%d",
            extended, db->sql == NULL ? 0 : sqlite3_system_errno(db->sql));
        return ERR_IO;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        log_limited(
            &limit, LOG_ERROR, "store", "damaged_file code=%d", extended);
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_READONLY:
        return ERR_READ_ONLY;
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return ERR_IO;
    case SQLITE_TOOBIG:
        return ERR_TOO_LARGE;
    case SQLITE_CONSTRAINT:
        return constraint_error(extended);
    default:
        log_limited(&limit, LOG_ERROR, "store", "unexpected code=%d words=%s",
            extended, words);
        return ERR_INTERNAL;
    }
}

/* ---- connections --------------------------------------------------------- */

static int
count_log_pages(void *arg, sqlite3 *sql, const char *name, int pages)
{
    struct db *db = arg;

    (void)sql;
    (void)name;
    db->log_pages = pages;
    return SQLITE_OK;
}

void
db_watch_log(struct db *db)
{
    sqlite3_wal_hook(db->sql, count_log_pages, db);
}

/* is_new: SQLite would write these into a file that has them already, before
   anybody has looked whether it is ours to write. */
static enum err
configure(struct db *db, enum db_mode mode, bool is_new)
{
    int rc = sqlite3_extended_result_codes(db->sql, 1);

    if (rc == SQLITE_OK) {
        rc = sqlite3_busy_timeout(db->sql, BUSY_TIMEOUT_MS);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_db_config(
            db->sql, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_db_config(
            db->sql, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
    }
    sqlite3_limit(db->sql, SQLITE_LIMIT_LENGTH, LENGTH_BYTES_MAX);
    sqlite3_limit(db->sql, SQLITE_LIMIT_ATTACHED, 0);
    if (rc == SQLITE_OK && mode == DB_WRITER && is_new) {
        rc = sqlite3_exec(db->sql, CONFIG_NEW_FILE, NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_exec(db->sql, CONFIG_ALL, NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK && mode == DB_READER) {
        rc = sqlite3_exec(db->sql, CONFIG_READER, NULL, NULL, NULL);
    }
    return db_error(db, rc);
}

enum err
db_open(
    struct db **out, const char *path, enum db_mode mode, struct fault *fault)
{
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    struct db *db = mem_calloc(1, sizeof(*db));
    struct stat file;
    bool is_new = stat(path, &file) != 0 || file.st_size == 0;
    enum err err;
    int rc;

    if (db == NULL) {
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    flags |= mode == DB_READER ? SQLITE_OPEN_READONLY
                               : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    rc = sqlite3_open_v2(path, &db->sql, flags, NULL);
    err = rc == SQLITE_OK ? configure(db, mode, is_new) : db_error(db, rc);
    if (err != OK) {
        fault_set(fault, err, "", "cannot open %s: %s", path,
            err == ERR_CORRUPT ? "it is damaged or not a database"
            : db->sql == NULL  ? "out of memory"
                               : sqlite3_errmsg(db->sql));
        db_close(db);
        return err;
    }
    *out = db;
    return OK;
}

void
db_close(struct db *db)
{
    if (db == NULL) {
        return;
    }
    for (size_t i = 0; i < DB_SLOTS; i++) {
        sqlite3_finalize(db->slots[i].stmt);
    }
    /* Only statements and backups of ours could keep it open. */
    int rc = sqlite3_close(db->sql);
    ASSERT(rc == SQLITE_OK);
    mem_free(db);
}

enum err
db_set_pragma(struct db *db, const char *name, int64_t value)
{
    char sql[128];
    int n =
        snprintf(sql, sizeof(sql), "PRAGMA %s = %lld", name, (long long)value);

    ASSERT(n > 0 && (size_t)n < sizeof(sql));
    return db_error(db, sqlite3_exec(db->sql, sql, NULL, NULL, NULL));
}

/* ---- statements ---------------------------------------------------------- */

/* The slot of a statement, or an empty one to put it in; NULL when full. */
static struct db_slot *
find_slot(struct db *db, const char *sql)
{
    size_t i = (size_t)(((uintptr_t)sql >> 3) * 0x9E3779B97F4A7C15u >> 40);

    for (size_t n = 0; n < DB_SLOTS; n++) {
        struct db_slot *slot = &db->slots[(i + n) % DB_SLOTS];
        if (slot->sql == sql || slot->sql == NULL) {
            return slot;
        }
    }
    return NULL;
}

void
query_start(struct query *q, struct db *db, const char *sql)
{
    struct db_slot *slot = find_slot(db, sql);
    int rc;

    *q = (struct query){.db = db};
    if (slot != NULL && slot->sql == sql && !slot->busy) {
        slot->busy = true;
        q->slot = slot;
        q->stmt = slot->stmt;
        return;
    }
    rc = sqlite3_prepare_v3(
        db->sql, sql, -1, SQLITE_PREPARE_PERSISTENT, &q->stmt, NULL);
    q->err = db_error(db, rc);
    if (q->err != OK) {
        return;
    }
    /* A statement that is in use (a walk inside a walk) gets a twin. */
    if (slot != NULL && slot->sql == NULL && db->n_slots < DB_SLOTS / 2) {
        *slot = (struct db_slot){sql, q->stmt, true};
        db->n_slots++;
        q->slot = slot;
    }
}

static void
note_bind(struct query *q, int rc)
{
    if (rc != SQLITE_OK) {
        q->err = rc == SQLITE_TOOBIG ? ERR_TOO_LARGE : db_error(q->db, rc);
    }
}

void
query_int(struct query *q, int64_t v)
{
    if (q->err == OK) {
        note_bind(q, sqlite3_bind_int64(q->stmt, ++q->n_bound, v));
    }
}

void
query_double(struct query *q, double v)
{
    if (q->err == OK) {
        note_bind(q, sqlite3_bind_double(q->stmt, ++q->n_bound, v));
    }
}

void
query_text(struct query *q, struct store_text v)
{
    int rc;

    if (q->err != OK) {
        return;
    }
    q->n_bound++;
    if (v.s == NULL) {
        rc = sqlite3_bind_null(q->stmt, q->n_bound);
    } else {
        rc = sqlite3_bind_text64(
            q->stmt, q->n_bound, v.s, v.len, SQLITE_STATIC, SQLITE_UTF8);
    }
    note_bind(q, rc);
}

void
query_blob(struct query *q, const void *p, size_t n)
{
    if (q->err == OK) {
        note_bind(
            q, sqlite3_bind_blob64(q->stmt, ++q->n_bound, p, n, SQLITE_STATIC));
    }
}

bool
query_row(struct query *q)
{
    int rc;

    if (q->err != OK) {
        return false;
    }
    rc = sqlite3_step(q->stmt);
    if (rc == SQLITE_ROW) {
        return true;
    }
    q->err = db_error(q->db, rc);
    return false;
}

void
query_again(struct query *q)
{
    q->n_bound = 0;
    if (q->stmt != NULL) {
        /* The result of the last step was looked at already. */
        (void)sqlite3_reset(q->stmt);
    }
}

enum err
query_end(struct query *q)
{
    if (q->slot == NULL) {
        sqlite3_finalize(q->stmt);
    } else {
        (void)sqlite3_reset(q->stmt);
        (void)sqlite3_clear_bindings(q->stmt);
        q->slot->busy = false;
    }
    q->stmt = NULL;
    return q->err;
}

void
query_close(struct query *q)
{
    enum err err = query_end(q);

    (void)err;
}

enum err
query_run(struct query *q, int64_t *changes)
{
    while (query_row(q)) {
    }
    if (q->err == OK && changes != NULL) {
        *changes = sqlite3_changes64(q->db->sql);
    }
    return query_end(q);
}

int64_t
query_get_int(struct query *q, int column)
{
    return sqlite3_column_int64(q->stmt, column);
}

double
query_get_double(struct query *q, int column)
{
    return sqlite3_column_double(q->stmt, column);
}

struct store_text
query_get_text(struct query *q, int column)
{
    struct store_text text = {NULL, 0};

    if (sqlite3_column_type(q->stmt, column) == SQLITE_NULL) {
        return text;
    }
    text.s = (const char *)sqlite3_column_text(q->stmt, column);
    if (text.s == NULL) {
        q->err = q->err == OK ? ERR_NOMEM : q->err;
        return text;
    }
    text.len = (size_t)sqlite3_column_bytes(q->stmt, column);
    return text;
}

struct store_text
query_get_blob(struct query *q, int column)
{
    struct store_text blob = {.s = NULL};

    if (sqlite3_column_type(q->stmt, column) != SQLITE_NULL) {
        const void *bytes = sqlite3_column_blob(q->stmt, column);
        int n = sqlite3_column_bytes(q->stmt, column);
        if (bytes == NULL && n > 0 && q->err == OK) {
            q->err = ERR_NOMEM;
        }
        blob.s = bytes == NULL ? "" : bytes;
        blob.len = bytes == NULL ? 0 : (size_t)n;
    }
    return blob;
}

void
query_get_bytes(struct query *q, int column, void *out, size_t n)
{
    const void *p = sqlite3_column_blob(q->stmt, column);

    if (p == NULL || (size_t)sqlite3_column_bytes(q->stmt, column) != n) {
        q->err = q->err == OK ? ERR_CORRUPT : q->err;
        memset(out, 0, n);
        return;
    }
    memcpy(out, p, n);
}

enum err
db_run(struct db *db, const char *sql)
{
    struct query q;

    query_start(&q, db, sql);
    return query_run(&q, NULL);
}

void
db_try(struct db *db, const char *sql)
{
    enum err err = db_run(db, sql);

    (void)err;
}

enum err
db_get_int(struct db *db, const char *sql, int64_t *out)
{
    struct query q;
    int64_t v = 0;
    enum err err;

    query_start(&q, db, sql);
    if (query_row(&q)) {
        v = query_get_int(&q, 0);
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *out = v;
    }
    return err;
}
