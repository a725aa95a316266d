#include "store/writer.h"

#include "base/alloc.h"
#include "base/failpoint.h"
#include "base/log.h"

static const char BEGIN[] = "BEGIN IMMEDIATE";
static const char COMMIT[] = "COMMIT";
static const char ROLLBACK[] = "ROLLBACK";
static const char SAVE[] = "SAVEPOINT one";
static const char KEEP[] = "RELEASE one";
static const char UNDO[] = "ROLLBACK TO one";

/* How much longer than checkpoint_pages the log may get under load. */
#define LOG_PAGES_FACTOR 8

/* An operation in the queue. A waiting caller's lives on its stack, a posted
   one's on the heap. */
struct entry {
    struct store_op op;
    struct entry *next;
    pthread_cond_t *wake; /* NULL: posted, freed by the writer */
    enum err err;
    bool outside;
    bool final; /* under the lock */
};

struct writer {
    struct db *db; /* the thread's */
    size_t batch_ops_max;
    size_t queue_ops_max;
    size_t checkpoint_pages;
    struct entry **batch; /* [batch_ops_max], the thread's */
    pthread_t thread;

    pthread_mutex_t lock; /* the next five */
    pthread_cond_t work;
    struct entry *first;
    struct entry *last;
    size_t n_queued;
    bool closing;

    atomic_bool read_only;
    atomic_bool disk_full;
    atomic_bool fail_commit; /* a test asks for it */
    atomic_uint_fast64_t n_ops;
    atomic_uint_fast64_t n_failed;
    atomic_uint_fast64_t n_commits;
    atomic_uint_fast64_t n_checkpoints;
    atomic_llong log_bytes;
};

/* ---- the thread ---------------------------------------------------------- */

static void
become_read_only(struct writer *writer)
{
    if (!atomic_exchange(&writer->read_only, true)) {
        log_error("store", "read_only reason=write_failed");
    }
}

static void
roll_back(struct writer *writer)
{
    if (!sqlite3_get_autocommit(writer->db->sql)) {
        db_try(writer->db, ROLLBACK);
    }
}

static enum err
commit(struct writer *writer)
{
    enum err err;

    failpoint("store_before_commit");
    if (atomic_exchange(&writer->fail_commit, false)) {
        writer->db->io_failed = true;
        return ERR_IO;
    }
    err = db_run(writer->db, COMMIT);
    if (err == OK) {
        failpoint("store_after_commit");
        atomic_fetch_add(&writer->n_commits, 1);
        atomic_store(&writer->log_bytes,
            (long long)writer->db->log_pages * (DB_PAGE_BYTES + 24));
    }
    return err;
}

/* Tell everybody, in order, what became of entries that share one fate or
   have their own in entry->err. */
static void
acknowledge(struct writer *writer, struct entry **entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct entry *entry = entries[i];
        atomic_fetch_add(&writer->n_ops, 1);
        if (entry->err != OK) {
            atomic_fetch_add(&writer->n_failed, 1);
        }
        if (!entry->outside) {
            atomic_store(&writer->disk_full, entry->err == ERR_FULL);
        }
        if (entry->op.done != NULL) {
            entry->op.done(entry->op.arg, entry->err);
        }
        if (entry->wake == NULL) {
            mem_free(entry);
            continue;
        }
        pthread_mutex_lock(&writer->lock);
        entry->final = true;
        pthread_cond_signal(entry->wake);
        pthread_mutex_unlock(&writer->lock);
        /* The entry is on its caller's stack: it is gone now. */
    }
}

/* One operation in a transaction of its own. */
static void
run_alone(struct writer *writer, struct entry *entry)
{
    if (atomic_load(&writer->read_only)) {
        entry->err = ERR_READ_ONLY;
        return;
    }
    entry->err = db_run(writer->db, BEGIN);
    if (entry->err == OK) {
        entry->err = entry->op.run(writer->db, entry->op.arg);
    }
    if (entry->err == OK) {
        entry->err = commit(writer);
    }
    if (entry->err != OK) {
        roll_back(writer);
    }
    if (writer->db->io_failed) {
        become_read_only(writer);
    }
}

/* One operation inside a savepoint. False when the shared transaction is lost
   or must not be committed. */
static bool
run_saved(struct writer *writer, struct entry *entry)
{
    struct db *db = writer->db;
    enum err err = db_run(db, SAVE);

    if (err != OK) {
        return false;
    }
    entry->err = entry->op.run(db, entry->op.arg);
    /* SQLite gives up the whole transaction after some errors. */
    if (sqlite3_get_autocommit(db->sql) || db->io_failed) {
        return false;
    }
    if (entry->err != OK && db_run(db, UNDO) != OK) {
        return false;
    }
    return db_run(db, KEEP) == OK;
}

/* All in one transaction; false when nothing of it was kept. */
static bool
run_together(struct writer *writer, struct entry **entries, size_t n)
{
    bool kept = db_run(writer->db, BEGIN) == OK;

    for (size_t i = 0; i < n && kept; i++) {
        kept = run_saved(writer, entries[i]);
    }
    kept = kept && commit(writer) == OK;
    if (!kept) {
        roll_back(writer);
    }
    return kept;
}

static void
run_batch(struct writer *writer, struct entry **entries, size_t n)
{
    /* While a backup copies, even a single operation gets a savepoint: to roll
       a whole transaction back would make the copy start again. */
    if ((n > 1 || writer->db->n_backups > 0) &&
        !atomic_load(&writer->read_only) && run_together(writer, entries, n)) {
        acknowledge(writer, entries, n);
        return;
    }
    if (writer->db->io_failed) {
        /* What was not synced must not be tried again. */
        become_read_only(writer);
        for (size_t i = 0; i < n; i++) {
            entries[i]->err = ERR_IO;
        }
        acknowledge(writer, entries, n);
        writer->db->io_failed = false;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        run_alone(writer, entries[i]);
        acknowledge(writer, &entries[i], 1);
    }
    writer->db->io_failed = false;
}

static void
checkpoint(struct writer *writer)
{
    struct db *db = writer->db;
    int log_frames = 0, copied = 0, rc;
    size_t limit = writer->checkpoint_pages;

    /* While others wait the log may grow a while longer. */
    pthread_mutex_lock(&writer->lock);
    limit *= writer->n_queued > 0 ? LOG_PAGES_FACTOR : 1;
    pthread_mutex_unlock(&writer->lock);
    if ((size_t)db->log_pages < limit || atomic_load(&writer->read_only)) {
        return;
    }
    rc = sqlite3_wal_checkpoint_v2(
        db->sql, NULL, SQLITE_CHECKPOINT_PASSIVE, &log_frames, &copied);
    db->log_pages = 0;
    atomic_fetch_add(&writer->n_checkpoints, 1);
    /* Busy: a reader or another process is in the way; the next commit that
       finds the log long tries again. A full disk: the log stays. */
    if (rc != SQLITE_OK && rc != SQLITE_BUSY) {
        if (db_error(db, rc) != OK && db->io_failed) {
            become_read_only(writer);
            db->io_failed = false;
        }
    }
}

/* Take a batch; an entry that runs outside comes alone. */
static size_t
take_batch(struct writer *writer)
{
    size_t n = 0;

    pthread_mutex_lock(&writer->lock);
    while (writer->first == NULL && !writer->closing) {
        pthread_cond_wait(&writer->work, &writer->lock);
    }
    while (writer->first != NULL && n < writer->batch_ops_max &&
           (n == 0 || !writer->first->outside)) {
        struct entry *entry = writer->first;
        writer->first = entry->next;
        if (writer->first == NULL) {
            writer->last = NULL;
        }
        writer->n_queued--;
        writer->batch[n++] = entry;
        if (entry->outside) {
            break;
        }
    }
    pthread_mutex_unlock(&writer->lock);
    return n;
}

static void *
writer_main(void *arg)
{
    struct writer *writer = arg;
    size_t n;

    while ((n = take_batch(writer)) > 0) {
        struct entry *entry = writer->batch[0];
        if (entry->outside) {
            entry->err = entry->op.run(writer->db, entry->op.arg);
            acknowledge(writer, writer->batch, 1);
        } else {
            run_batch(writer, writer->batch, n);
            checkpoint(writer);
        }
    }
    return NULL;
}

/* ---- callers ------------------------------------------------------------- */

/* Under the lock. */
static enum err
enqueue(struct writer *writer, struct entry *entry)
{
    if (writer->closing) {
        return ERR_CANCELLED;
    }
    if (!entry->outside && atomic_load(&writer->read_only)) {
        return ERR_READ_ONLY;
    }
    if (!entry->outside && writer->n_queued >= writer->queue_ops_max) {
        return ERR_BUSY;
    }
    if (writer->last == NULL) {
        writer->first = entry;
    } else {
        writer->last->next = entry;
    }
    writer->last = entry;
    writer->n_queued++;
    pthread_cond_signal(&writer->work);
    return OK;
}

static enum err
run_and_wait(struct writer *writer, const struct store_op *op, bool outside)
{
    pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
    struct entry entry = {.op = *op, .wake = &wake, .outside = outside};
    enum err err;

    ASSERT(!pthread_equal(pthread_self(), writer->thread));
    pthread_mutex_lock(&writer->lock);
    err = enqueue(writer, &entry);
    while (err == OK && !entry.final) {
        pthread_cond_wait(&wake, &writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    pthread_cond_destroy(&wake);
    return err == OK ? entry.err : err;
}

enum err
writer_run(struct writer *writer, const struct store_op *op)
{
    return run_and_wait(writer, op, false);
}

enum err
writer_run_outside(struct writer *writer, store_op_fn *fn, void *arg)
{
    struct store_op op = {.run = fn, .arg = arg};

    return run_and_wait(writer, &op, true);
}

enum err
writer_post(struct writer *writer, const struct store_op *op)
{
    struct entry *entry = mem_calloc(1, sizeof(*entry));
    enum err err;

    if (entry == NULL) {
        return ERR_NOMEM;
    }
    entry->op = *op;
    pthread_mutex_lock(&writer->lock);
    err = enqueue(writer, entry);
    pthread_mutex_unlock(&writer->lock);
    if (err != OK) {
        mem_free(entry);
    }
    return err;
}

enum err
writer_new(
    struct writer **out, struct db *db, const struct store_options *options)
{
    struct writer *writer = mem_calloc(1, sizeof(*writer));

    if (writer == NULL) {
        db_close(db);
        return ERR_NOMEM;
    }
    writer->db = db;
    writer->batch_ops_max = options->batch_ops_max;
    writer->queue_ops_max = options->queue_ops_max;
    writer->checkpoint_pages = options->checkpoint_pages;
    writer->batch = mem_calloc(options->batch_ops_max, sizeof(*writer->batch));
    if (writer->batch == NULL) {
        db_close(db);
        mem_free(writer);
        return ERR_NOMEM;
    }
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->work, NULL);
    if (pthread_create(&writer->thread, NULL, writer_main, writer) != 0) {
        pthread_cond_destroy(&writer->work);
        pthread_mutex_destroy(&writer->lock);
        db_close(db);
        mem_free(writer->batch);
        mem_free(writer);
        return ERR_NOMEM;
    }
    *out = writer;
    return OK;
}

void
writer_free(struct writer *writer)
{
    if (writer == NULL) {
        return;
    }
    pthread_mutex_lock(&writer->lock);
    writer->closing = true;
    pthread_cond_signal(&writer->work);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(writer->thread, NULL);
    ASSERT(writer->first == NULL);
    pthread_cond_destroy(&writer->work);
    pthread_mutex_destroy(&writer->lock);
    db_close(writer->db);
    mem_free(writer->batch);
    mem_free(writer);
}

void
writer_get_stats(struct writer *writer, struct store_stats *out)
{
    out->ops = atomic_load(&writer->n_ops);
    out->ops_failed = atomic_load(&writer->n_failed);
    out->commits = atomic_load(&writer->n_commits);
    out->checkpoints = atomic_load(&writer->n_checkpoints);
    out->log_bytes = atomic_load(&writer->log_bytes);
    out->read_only = atomic_load(&writer->read_only);
    out->disk_full = atomic_load(&writer->disk_full);
    pthread_mutex_lock(&writer->lock);
    out->queue_ops = writer->n_queued;
    pthread_mutex_unlock(&writer->lock);
}

bool
writer_is_read_only(const struct writer *writer)
{
    return atomic_load(&writer->read_only);
}

void
writer_fail_commit_test(struct writer *writer)
{
    atomic_store(&writer->fail_commit, true);
}
