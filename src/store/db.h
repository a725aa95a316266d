/*
 * db.h - one SQLite connection with its prepared statements. Internal to this
 * folder; with its .c files the only code that knows SQLite.
 *
 * A statement is named by the address of its text, a static constant; it is
 * prepared once a connection and reused. A query binds its parameters in order
 * and remembers the first error, so that callers look once, at the end:
 *
 *     query_start(&q, db, SELECT_BY_ID);
 *     query_int(&q, id);
 *     while (query_row(&q)) { ... query_get_int(&q, 0) ... }
 *     err = query_end(&q);
 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include <sqlite3.h>

#include "store/store.h"

#define DB_SLOTS 256 /* statements kept by a connection; a power of two */
#define DB_PAGE_BYTES 16384
#define DB_APPLICATION_ID 1802396786 /* "kndr" */

struct db_slot {
    const char *sql; /* NULL: empty */
    sqlite3_stmt *stmt;
    bool busy; /* a query is using it */
};

struct db {
    sqlite3 *sql;
    struct db_slot slots[DB_SLOTS];
    size_t n_slots;
    bool io_failed;  /* a write or sync failed with an I/O error */
    int log_pages;   /* of the write-ahead log after the last commit */
    int n_backups;   /* that copy from this connection */
    struct db *next; /* in the pool of free readers */
};

enum db_mode { DB_WRITER, DB_READER, DB_PLAIN };

/*
 * db_open - a connection with all that is set on every connection.
 *
 * DB_WRITER creates the file when missing; DB_READER cannot write; DB_PLAIN
 * reads and writes and leaves the journal mode alone (copies).
 */
enum err db_open(struct db **out, const char *path, enum db_mode mode,
    struct fault *fault) NODISCARD;
void db_close(struct db *db); /* NULL is fine */

/* Set an integer pragma: the one text that is built, from a constant name and
   a number, because a pragma's value cannot be bound. */
enum err db_set_pragma(
    struct db *db, const char *name, int64_t value) NODISCARD;

/* Keep log_pages true after every commit of this connection. (Setting
   wal_autocheckpoint replaces the hook that does it.) */
void db_watch_log(struct db *db);

/* The code of the connection's last result rc; notes and logs storage
   errors. */
enum err db_error(struct db *db, int rc) NODISCARD;

/* Run a statement without parameters or rows. */
enum err db_run(struct db *db, const char *sql) NODISCARD;

/* The same where nothing can be done about a failure: a rollback. */
void db_try(struct db *db, const char *sql);

/* The first column of the first row as a number. */
enum err db_get_int(struct db *db, const char *sql, int64_t *out) NODISCARD;

struct query {
    struct db *db;
    sqlite3_stmt *stmt;
    struct db_slot *slot; /* NULL: the statement is this query's own */
    enum err err;
    int n_bound;
};

void query_start(struct query *q, struct db *db, const char *sql);
void query_int(struct query *q, int64_t v);
void query_double(struct query *q, double v);
void query_text(struct query *q, struct store_text v);     /* borrowed to end */
void query_blob(struct query *q, const void *p, size_t n); /* borrowed */
/* True on a row; false at the end or on an error. */
bool query_row(struct query *q);
/* Release the statement; the first error. */
enum err query_end(struct query *q) NODISCARD;
/* Release the statement; its error was looked at already. */
void query_close(struct query *q);
/* Step to the end and release: for statements without rows. changes (may be
   NULL) gives the number of rows changed. */
enum err query_run(struct query *q, int64_t *changes) NODISCARD;
/* Run again with other parameters without giving the statement back. */
void query_again(struct query *q);

int64_t query_get_int(struct query *q, int column);
double query_get_double(struct query *q, int column);
struct store_text query_get_text(struct query *q, int column); /* borrowed */
/* Any bytes, NULL as absent; borrowed until the row is left. */
struct store_text query_get_blob(struct query *q, int column);
/* Copies exactly n bytes; ERR_CORRUPT (kept in q) when the size differs. */
void query_get_bytes(struct query *q, int column, void *out, size_t n);

/* Copy *text into arena, NULL staying NULL. */
enum err text_keep(struct arena *arena, struct store_text *text) NODISCARD;

#endif
