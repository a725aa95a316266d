/*
 * store.h - the one SQLite file that holds everything that is not derived:
 * opening, reading, and the writer thread with its group commit.
 *
 * DIR/kindred.db is opened in WAL mode with synchronous=FULL. All changes go
 * through ONE writer thread: callers hand in operations, the writer takes all
 * that wait, runs each inside a savepoint of one transaction, commits once and
 * then acknowledges them in the order in which they were queued. So an
 * operation that fails leaves no trace, spoils no other, and many small
 * requests share one fsync.
 *
 * Reading goes through a pool of read connections; each reader sees one
 * snapshot, never waits for the writer, and should be short, because the
 * write-ahead log cannot be reset under it: long lists are cut into pages.
 *
 * The functions that change or read rows stand in the other headers of this
 * folder (collections.h items.h images.h vectors.h pairs.h generations.h
 * weights.h jobs.h replies.h purge.h). All take a struct db *: inside an
 * operation that is the writer's connection, between store_read_begin and
 * store_read_end a reader's. A changing function on a reader's connection gives
 * ERR_READ_ONLY.
 *
 * The store knows nothing of JSON, of encoders or of HTTP: it keeps strings,
 * numbers and blobs.
 *
 * When space runs out the operations concerned get ERR_FULL, nothing of them
 * stays, and the next one is tried afresh. After an input/output error of a
 * write, commit, fsync or checkpoint the store is read-only until it is opened
 * again (a failed fsync must not be retried: the kernel may have dropped the
 * pages); every later write gets ERR_READ_ONLY and reads go on. Whether what
 * got ERR_IO is on disk is known only after opening again.
 *
 * Failpoints: store_before_commit, store_after_commit, store_publish,
 * store_weights_chunk, store_reembed_commit, store_backup_step.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/err.h"

struct store; /* carries its own locks; any thread may call it */
struct db;    /* one connection; used by one thread at a time */

/*
 * Bytes that the store keeps or gives. s == NULL is SQL NULL ("absent"), which
 * is not the same as an empty string. In what the store gives, text has a NUL
 * after len bytes.
 */
struct store_text {
    const char *s;
    size_t len;
};

/* A store_text over a C string (NULL stays NULL). */
struct store_text store_text_of(const char *s);

/* All-zero is valid: every zero means the default. */
struct store_options {
    bool synchronous_normal; /* false: FULL. NORMAL may lose acknowledged
                                writes in a power cut, never consistency */
    size_t read_connections; /* 8: readers at one time, opened lazily */
    size_t queue_ops_max;    /* 4,096 waiting operations, then ERR_BUSY */
    size_t batch_ops_max;    /* 512 operations in one commit at most */
    size_t writer_cache_kib; /* 32,768: page cache of the writer */
    size_t reader_cache_kib; /* 2,048: page cache of each reader */
    size_t checkpoint_pages; /* 2,048 pages of 16 KiB: the log is copied into
                                the file past this, under load past 8 times
                                as much */
    int64_t max_pages_test;  /* tests: PRAGMA max_page_count; 0 = none */
    bool no_lock_test;       /* tests: do not take the folder's lock */
};

/*
 * store_open - open or create DIR/kindred.db, migrate it, start the writer.
 *
 *   dir      the data folder, made when missing; borrowed
 *   options  borrowed; NULL means all defaults
 *   out      gives the store; store_close
 *   fault    why not, for the operator
 *
 * Takes the folder's lock (fsio_lock_dir), so nobody else should. Each
 * migration is one transaction: a crash in one leaves the version before it.
 * ERR_LOCKED (another process has the folder), ERR_NEWER (both versions in the
 * fault), ERR_CORRUPT (not our file, or damaged where the quick check looks:
 * the header, the schema, the first and last page of every table),
 * ERR_FULL, ERR_IO, ERR_NOMEM. Quick: independent of the number of rows.
 */
enum err store_open(struct store **out, const char *dir,
    const struct store_options *options, struct fault *fault) NODISCARD;

/*
 * store_close - run what is queued, stop the writer, checkpoint, close.
 *
 * NULL is fine. No reader may be open and no other thread may be inside.
 */
void store_close(struct store *store);

/* The folder given to store_open; valid until store_close. */
const char *store_dir(const struct store *store);

/* ---- writing --------------------------------------------------------- */

/*
 * The body of an operation; runs in the writer thread inside a savepoint. Any
 * result but OK undoes what it did. It may run more than once (when the shared
 * transaction was lost to a full disk, each operation is tried again alone),
 * so it must set its results afresh each time and touch nothing outside arg.
 * It must not block, encode, or call store_write.
 */
typedef enum err store_op_fn(struct db *db, void *arg);

/*
 * Called exactly once for an operation that was accepted, in the writer
 * thread, in queue order, when its fate is final: OK is on disk; anything else
 * left nothing. Here memory follows the database: indexes are updated and the
 * live pointer is swapped before anybody learns of the commit. Must be quick;
 * may call store_write_async, never store_write.
 */
typedef void store_done_fn(void *arg, enum err err);

struct store_op {
    store_op_fn *run;
    store_done_fn *done; /* may be NULL */
    void *arg;           /* borrowed until done has returned */
};

/*
 * store_write - run one operation and wait until its fate is final.
 *
 * Gives the operation's own error, or ERR_BUSY (queue full), ERR_FULL,
 * ERR_READ_ONLY, ERR_IO, ERR_CANCELLED (closing). done has returned before
 * this returns; it is not called when the operation was not accepted
 * (ERR_BUSY, ERR_CANCELLED, ERR_NOMEM, or ERR_READ_ONLY at once).
 */
enum err store_write(struct store *store, const struct store_op *op) NODISCARD;

/* The same with only a body: store_op with done == NULL. */
enum err store_run(struct store *store, store_op_fn *run, void *arg) NODISCARD;

/*
 * store_write_async - hand an operation over and return at once.
 *
 * op is copied. OK means accepted: op->done will be called. Otherwise
 * (ERR_BUSY, ERR_CANCELLED, ERR_NOMEM, ERR_READ_ONLY) nothing will be called.
 */
enum err store_write_async(
    struct store *store, const struct store_op *op) NODISCARD;

/* Wait until everything queued before this call is final. */
enum err store_drain(struct store *store) NODISCARD;

/* ---- reading --------------------------------------------------------- */

/*
 * store_read_begin - take a read connection; all reads until store_read_end
 * see one snapshot, which includes every write acknowledged before this call.
 *
 * Waits while all connections are taken. ERR_IO, ERR_NOMEM, ERR_CORRUPT.
 * Do not hold it while encoding or while waiting for anything, and do not
 * begin a second one in the same thread (it could wait for ever).
 */
enum err store_read_begin(struct store *store, struct db **out) NODISCARD;

/* End the snapshot and give the connection back; NULL is fine. */
void store_read_end(struct store *store, struct db *db);

/* ---- facts ----------------------------------------------------------- */

struct store_stats {
    uint64_t ops;        /* operations that reached their end */
    uint64_t ops_failed; /* of these, not OK */
    uint64_t commits;    /* transactions that held them */
    uint64_t checkpoints;
    size_t queue_ops;   /* waiting now */
    int64_t file_bytes; /* database file */
    int64_t log_bytes;  /* write-ahead log, as of the last commit */
    bool read_only;
    bool disk_full; /* the last operation to end met a full disk */
    int schema_version;
};

void store_get_stats(struct store *store, struct store_stats *out);

/* True after an input/output error; cheap. */
bool store_is_read_only(const struct store *store);

/* The schema version that this program writes. */
int store_schema_version(void);

/* Tests: behave as if a commit had failed with an input/output error. */
void store_fail_commit_test(struct store *store);

/* Tests: change PRAGMA max_page_count (0 = none) in the writer. */
enum err store_limit_pages_test(struct store *store, int64_t pages) NODISCARD;

/* ---- settings of the whole file -------------------------------------- */

/* Value of a key, copied into arena; ERR_NOT_FOUND. */
enum err settings_get(struct db *db, const char *key, struct arena *arena,
    struct store_text *out) NODISCARD;
/* Set, or remove with value.s == NULL. */
enum err settings_put(
    struct db *db, const char *key, struct store_text value) NODISCARD;

/* ---- backup and checks ----------------------------------------------- */

#define STORE_BACKUP_NAME_MAX 100

/* Told after each step; false stops the backup with ERR_CANCELLED. */
typedef bool store_progress_fn(void *ctx, int64_t done, int64_t total);

/*
 * store_backup - a consistent copy, made while serving.
 *
 *   name      [A-Za-z0-9._-], 1..STORE_BACKUP_NAME_MAX, not starting with a
 *             dot; the file is DIR/backups/NAME.db
 *   progress  may be NULL
 *   bytes     gives the size of the copy
 *
 * Copies in steps from one read snapshot to a temporary file, checks its
 * structure, fsyncs it, renames it, fsyncs the folder. ERR_EXISTS,
 * ERR_INVALID (name), ERR_FULL, ERR_IO, ERR_CANCELLED; nothing is left behind,
 * and what a crash left is removed at the next opening.
 * A backup is opened by putting it into an empty folder as kindred.db.
 */
enum err store_backup(struct store *store, const char *name,
    store_progress_fn *progress, void *ctx, int64_t *bytes,
    struct fault *fault) NODISCARD;

struct store_backup_info {
    char name[STORE_BACKUP_NAME_MAX + 1]; /* without ".db" */
    int64_t bytes;
    int64_t created_ms;
};

/* Finished backups by name. Gives an array (mem_free), NULL when none. */
enum err store_list_backups(
    struct store *store, struct store_backup_info **out, size_t *n) NODISCARD;

/* Path of a finished backup, for sending it; ERR_NOT_FOUND, ERR_INVALID. */
enum err store_backup_path(struct store *store, const char *name, char *path,
    size_t path_bytes) NODISCARD;

/*
 * store_check - PRAGMA integrity_check, foreign keys, and the invariants that
 * the file alone can show.
 *
 * Exactly one live generation in every collection that has one at all, and it
 * is the one that the collection names; every item has a vector in the live
 * space; no vector of an unknown space or item; vectors have their space's
 * size; the kept counters are right; kept weights are complete, and they and
 * kept pictures match their checksum. ERR_CORRUPT with the first violation in
 * the fault. Reads the whole file: minutes for a large one.
 */
enum err store_check(struct store *store, struct fault *fault) NODISCARD;

#endif
