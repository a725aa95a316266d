/*
 * jobs_table.h - a job and the jobs' table, as jobs.c and jobs_calls.c share
 * them.
 */
#ifndef ENGINE_JOBS_TABLE_H
#define ENGINE_JOBS_TABLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "engine/jobs.h"

#define EVENTS_MAX 256   /* remembered of a job */
#define EVENT_GAP_MS 100 /* between two progress events */
#define PERSIST_GAP_MS 5000
#define CURVE_MAX 2000 /* points; then every second one goes */
#define ENDED_KEPT 64  /* ended jobs whose events stay in memory */
#define JSON_MAX ((size_t)16 << 20)

enum lane { LANE_TUNER, LANE_BACKUP, LANES };

struct event {
    char type[16];
    char *data;
};

struct job {
    struct jobs *jobs;
    atomic_size_t refs;
    /* constant */
    int64_t id;
    const char *kind;
    enum lane lane;
    struct collection *collection; /* or NULL */
    int64_t collection_id;
    char *options;
    char *resume;
    int64_t created_ms;
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an event, or the end */
    enum job_state state;
    char phase[32];
    double progress;
    double eta_seconds;
    char *result;
    char *error;
    int64_t started_ms, finished_ms;
    struct event events[EVENTS_MAX]; /* event i at i % EVENTS_MAX, from 1 */
    int64_t n_events;
    struct job_point *curve;
    size_t n_curve;
    size_t curve_stride; /* of the points offered, every n-th is taken */
    size_t curve_seen;
    bool cancelled;
    bool over_budget;
    /* tuner's alone */
    int64_t deadline_ms; /* monotonic; 0: none */
    int64_t last_event_ms;
    int64_t last_persist_ms;
    struct job *next; /* in its lane */
};

struct jobs {
    struct engine *engine;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job **all; /* those this process knows, oldest first */
    size_t n, cap;
    size_t n_queueing; /* being written: they will need room */
    struct job *first[LANES], *last[LANES];
    pthread_t threads[LANES];
    size_t n_threads;
    atomic_bool stopping;
};

/* A reference to a job that this process knows, or NULL. */
struct job *jobs_find(struct jobs *jobs, int64_t id);
void job_unref(struct job *j);
bool job_state_is_final(enum job_state state);
/* {"columns": ["step", "loss", ...], "rows": [[...], ...]}; with the job's
   lock held. */
void job_write_curve(const struct job *j, struct buf *out);
/* What a row of the store has as its curve, in that form; earlier versions
   kept [[step, loss], ...]. */
void job_copy_curve(const char *stored, size_t len, struct buf *out);
/* The points that an interrupted run stored, as far as they can be read. */
void job_read_curve(struct job *j, const char *stored, size_t len);
/* Take a job that waits out of its lane, with the lane's reference; false
   when it has begun. */
bool jobs_leave_lane(struct jobs *jobs, struct job *j);

#endif
