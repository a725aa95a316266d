/*
 * jobs.h - long work: one thread that runs queued jobs one at a time, and what
 * a job's body tells the world.
 *
 * A job is a row in the store (queued, running, ended) and, while this process
 * knows it, a struct job with its progress and its last events. The body runs
 * in the tuner thread and calls the job_* functions below; it checks
 * job_stopped between short pieces of work. Three things stop a body:
 * cancelling (the body discards what it made and ends cancelled), shutting
 * down (the body leaves everything in the store as it is and returns
 * ERR_CANCELLED without job_end: the job goes on at the next start from what
 * job_save_resume kept), and the budget (as cancelling, it ends as failed).
 *
 * Threads: struct job carries its lock; bodies run in the tuner thread only.
 */
#ifndef ENGINE_JOBS_H
#define ENGINE_JOBS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "store/jobs.h"
#include "engine/engine.h"

struct collection;
struct job;
struct jobs; /* the engine's table */

#define JOB_KIND_TRAIN "train"
#define JOB_KIND_REEMBED "reembed"
#define JOB_KIND_BACKUP "backup"

enum err jobs_open(struct jobs **out, struct engine *engine) NODISCARD;
/* Queue again what a crash or a stop interrupted; call before jobs_start. */
enum err jobs_resume(struct jobs *jobs) NODISCARD;
enum err jobs_start(struct jobs *jobs) NODISCARD;
/* Interrupt the running job and start no other. */
void jobs_stop(struct jobs *jobs);
void jobs_close(struct jobs *jobs);

/*
 * jobs_queue - a new job of a collection (NULL: of none).
 * ERR_CONFLICT with the unfinished job's id in extra_id when the collection
 * has one.
 */
enum err jobs_queue(struct jobs *jobs, struct collection *collection,
    const char *kind, const char *options_json, int64_t *job_id,
    struct fault *fault) NODISCARD;

/* The unfinished job of a collection, 0: none. */
int64_t jobs_of_collection(struct jobs *jobs, int64_t collection);
/* Does this thread's caller see a running job whose generation must be kept?
   Ids of all unfinished jobs, [max]; returns how many. */
size_t jobs_unfinished(struct jobs *jobs, int64_t *ids, size_t max);

/* ---- for the bodies ------------------------------------------------------ */

int64_t job_id(const struct job *job);
const char *job_options(const struct job *job); /* JSON object */
/* What job_save_resume kept in an earlier run, or NULL at the first. */
const char *job_resume(const struct job *job);

/* True: stop soon. job_is_cancelled tells why: cancelled by a person or by
   the budget (discard), or else a shutdown (leave all as it is). */
bool job_stopped(struct job *job);
bool job_is_cancelled(struct job *job);

/* A new phase, from progress (0..1) on: an event, and stored. */
void job_set_phase(struct job *job, const char *phase, double progress);
/* Progress in all; eta_seconds < 0 when it is unknown. An event at most ten
   times a second. */
void job_set_progress(struct job *job, double progress, double eta_seconds);
/* An event of this type with JSON data of one line. */
void job_event(struct job *job, const char *type, const char *data_json);
/* A point of the curves; thinned to about 1,000 points. One that is not after
   the last one replaces what was there (a run that goes on from earlier). */
struct job_point {
    int64_t step;
    double loss, accuracy, positive, negative, temperature, spread, staleness;
};
void job_add_point(struct job *job, const struct job_point *point);
/* Keep JSON from which a later run goes on (NULL: what was kept before), with
   the curves so far; waits for the disk. */
enum err job_save_resume(struct job *job, const char *json) NODISCARD;

/*
 * job_end - the job's last word, once; waits for the disk.
 *   state   JOB_PROMOTED, _REFUSED, _DONE, _FAILED or _CANCELLED
 *   result  JSON, or NULL
 *   error   a sentence, or NULL
 * job_ended_by - the same after a transaction that has ended the row itself
 * (generations_publish).
 */
void job_end(struct job *job, enum job_state state, const char *result,
    const char *error);
void job_ended_by(struct job *job, enum job_state state, const char *result);

#endif
