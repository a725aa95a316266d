/*
 * jobs.h - long work: training, re-embedding, import, backup.
 *
 * A job's row is written when it begins, changes phase and ends; progress in
 * between lives in memory. Rows stay readable after the end and after their
 * collection is gone.
 */
#ifndef STORE_JOBS_H
#define STORE_JOBS_H

#include "store/store.h"

/* Values are on disk. QUEUED and RUNNING are unfinished, the rest final. */
enum job_state {
    JOB_QUEUED = 0,
    JOB_RUNNING = 1,
    JOB_PROMOTED = 2,
    JOB_REFUSED = 3,
    JOB_DONE = 4,
    JOB_FAILED = 5,
    JOB_CANCELLED = 6
};

/* "queued", "running", ... */
const char *job_state_name(enum job_state state);

struct job_row {
    int64_t id;
    struct store_text kind;
    int64_t collection;                /* 0: none */
    struct store_text collection_name; /* absent: none */
    enum job_state state;
    struct store_text phase;  /* or absent */
    double progress;          /* 0..1 */
    struct store_text params; /* JSON text or absent */
    struct store_text curve;  /* JSON text: loss curve; or absent */
    struct store_text resume; /* JSON text: where to go on; or absent */
    struct store_text result; /* JSON text or absent */
    struct store_text error;  /* a sentence or absent */
    int64_t created_ms, started_ms, finished_ms; /* 0: not yet */
};

/* Rows are borrowed until the function returns; not OK stops the list and is
   passed up. */
typedef enum err job_row_fn(void *ctx, const struct job_row *row);

/*
 * jobs_create - a new queued job. row: kind, collection, collection_name and
 * params are taken, the rest is ignored. With `only` set ERR_BUSY, and *id the
 * running one, when the collection has an unfinished job of the kind.
 */
enum err jobs_create(struct db *db, const struct job_row *row, bool only,
    int64_t now_ms, int64_t *id) NODISCARD;

/* What to change; an absent text leaves the old one. */
struct job_update {
    enum job_state state;
    double progress;
    struct store_text phase, curve, resume, result, error;
};

/* Sets started_ms on the first RUNNING and finished_ms on a final state.
   ERR_NOT_FOUND; ERR_CONFLICT when the job is final already. */
enum err jobs_update(struct db *db, int64_t id, const struct job_update *update,
    int64_t now_ms) NODISCARD;

/* Copied into arena; ERR_NOT_FOUND. */
enum err jobs_get(struct db *db, int64_t id, struct arena *arena,
    struct job_row *out) NODISCARD;

struct job_filter {
    int64_t collection; /* 0: any */
    int state;          /* -1: any; else enum job_state */
    int64_t before;     /* ids below this; 0: from the newest */
    size_t limit;
};

/* Newest first. */
enum err jobs_list(struct db *db, const struct job_filter *filter,
    job_row_fn *fn, void *ctx) NODISCARD;

/* The collection's unfinished job of a kind (.s NULL: of any);
   ERR_NOT_FOUND. */
enum err jobs_find_unfinished(struct db *db, int64_t collection,
    struct store_text kind, int64_t *id) NODISCARD;

/* All unfinished jobs, oldest first: what a crash interrupted. */
enum err jobs_list_unfinished(
    struct db *db, job_row_fn *fn, void *ctx) NODISCARD;

/* At start: every unfinished job but those in keep fails with this sentence.
   n (may be NULL) gives how many. */
enum err jobs_fail_unfinished(struct db *db, const int64_t *keep, size_t n_keep,
    struct store_text error, int64_t now_ms, size_t *n) NODISCARD;

#endif
