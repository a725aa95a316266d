#include "engine/jobs.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "engine/internal.h"
#include "engine/jobs_table.h"
#include "engine/learn.h"
#include "engine/learn_checkpoint.h"

/* ---- a job --------------------------------------------------------------- */

void
job_unref(struct job *j)
{
    if (!j || atomic_fetch_sub(&j->refs, 1) != 1) {
        return;
    }
    for (size_t i = 0; i < EVENTS_MAX; i++) {
        mem_free(j->events[i].data);
    }
    mem_free(j->curve);
    mem_free(j->options);
    mem_free(j->resume);
    mem_free(j->result);
    mem_free(j->error);
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->changed);
    collection_unref(j->collection);
    mem_free(j);
}

static const char *
known_kind(const char *kind)
{
    static const char *const kinds[] = {
        JOB_KIND_TRAIN, JOB_KIND_REEMBED, JOB_KIND_BACKUP};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i], kind) == 0) {
            return kinds[i];
        }
    }
    return NULL;
}

static enum err
job_new(struct job **out, struct jobs *jobs, const char *kind,
    struct collection *c, const char *options)
{
    struct job *j = mem_calloc(1, sizeof(*j));
    if (!j) {
        return ERR_NOMEM;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, &attr);
    pthread_condattr_destroy(&attr);
    j->jobs = jobs;
    j->refs = 1;
    j->kind = known_kind(kind);
    j->lane = strcmp(kind, JOB_KIND_BACKUP) == 0 ? LANE_BACKUP : LANE_TUNER;
    j->eta_seconds = -1;
    j->curve_stride = 1;
    snprintf(j->phase, sizeof(j->phase), "queued");
    if (c) {
        j->collection = collection_ref(c);
        j->collection_id = c->id;
    }
    j->options = mem_strdup(options ? options : "{}");
    if (!j->options || !j->kind) {
        job_unref(j);
        return ERR_NOMEM;
    }
    *out = j;
    return OK;
}

bool
job_state_is_final(enum job_state state)
{
    return state != JOB_QUEUED && state != JOB_RUNNING;
}

int64_t
job_id(const struct job *j)
{
    return j->id;
}

const char *
job_options(const struct job *j)
{
    return j->options;
}

const char *
job_resume(const struct job *j)
{
    return j->resume;
}

bool
job_stopped(struct job *j)
{
    if (j->jobs->stopping) {
        return true;
    }
    pthread_mutex_lock(&j->lock);
    if (j->deadline_ms && clock_mono_ms() > j->deadline_ms) {
        j->cancelled = j->over_budget = true;
    }
    bool stopped = j->cancelled;
    pthread_mutex_unlock(&j->lock);
    return stopped;
}

bool
job_is_cancelled(struct job *j)
{
    pthread_mutex_lock(&j->lock);
    bool cancelled = j->cancelled;
    pthread_mutex_unlock(&j->lock);
    return cancelled;
}

/* ---- events -------------------------------------------------------------- */

/* Takes data. With the job's lock held. */
static void
push_event(struct job *j, const char *type, char *data)
{
    j->n_events++;
    struct event *e = &j->events[j->n_events % EVENTS_MAX];
    mem_free(e->data);
    snprintf(e->type, sizeof(e->type), "%s", type);
    e->data = data;
    pthread_cond_broadcast(&j->changed);
}

static void
tell(struct job *j)
{
    struct engine *engine = j->jobs->engine;
    if (engine->event_hook) {
        engine->event_hook(engine->event_hook_arg, j->id);
    }
}

void
job_event(struct job *j, const char *type, const char *data_json)
{
    char *copy = mem_strdup(data_json);
    if (!copy) {
        return; /* an event is news, not a record */
    }
    pthread_mutex_lock(&j->lock);
    push_event(j, type, copy);
    pthread_mutex_unlock(&j->lock);
    tell(j);
}

static void
progress_event(struct job *j)
{
    struct buf data;
    buf_init(&data, 4096);
    pthread_mutex_lock(&j->lock);
    buf_add_str(&data, "{\"phase\":");
    buf_json_cstr(&data, j->phase);
    buf_add_str(&data, ",\"progress\":");
    buf_json_double(&data, round(j->progress * 1e4) / 1e4);
    buf_add_str(&data, ",\"eta_seconds\":");
    if (j->eta_seconds < 0) {
        buf_add_str(&data, "null");
    } else {
        buf_json_double(&data, round(j->eta_seconds * 10) / 10);
    }
    buf_add_char(&data, '}');
    pthread_mutex_unlock(&j->lock);
    if (buf_status(&data) == OK) {
        job_event(j, "progress", data.data);
    }
    buf_release(&data);
}

/* ---- what is stored ------------------------------------------------------ */

struct update_op {
    int64_t id;
    struct job_update update;
};

static enum err
run_update(struct db *db, void *arg)
{
    const struct update_op *op = arg;
    return jobs_update(db, op->id, &op->update, clock_wall_ms());
}

/* Write the row as memory has it, but for its state and what came of it;
   resume may be NULL. */
static enum err
persist_as(struct job *j, enum job_state state, const char *result,
    const char *error, const char *resume)
{
    struct buf curve;
    char phase[sizeof(j->phase)];
    buf_init(&curve, JSON_MAX);
    pthread_mutex_lock(&j->lock);
    job_write_curve(j, &curve);
    memcpy(phase, j->phase, sizeof(phase));
    struct update_op op = {.id = j->id,
        .update = {.state = state,
            .progress = j->progress,
            .phase = store_text_of(phase),
            .resume = store_text_of(resume),
            .result = store_text_of(result),
            .error = store_text_of(error)}};
    pthread_mutex_unlock(&j->lock);
    if (buf_status(&curve) == OK) {
        op.update.curve =
            (struct store_text){.s = curve.data, .len = curve.len};
    }
    enum err err = store_run(j->jobs->engine->store, run_update, &op);
    buf_release(&curve);
    j->last_persist_ms = clock_mono_ms();
    if (err) {
        log_warn("engine", "job persist id=%lld err=%s", (long long)j->id,
            err_text(err));
    }
    return err;
}

/* A job that goes on; resume may be NULL. */
static enum err
persist(struct job *j, const char *resume)
{
    pthread_mutex_lock(&j->lock);
    enum job_state state = j->state;
    pthread_mutex_unlock(&j->lock);
    return persist_as(j, state, NULL, NULL, resume);
}

void
job_set_phase(struct job *j, const char *phase, double progress)
{
    pthread_mutex_lock(&j->lock);
    snprintf(j->phase, sizeof(j->phase), "%s", phase);
    j->progress = progress;
    j->eta_seconds = -1;
    pthread_mutex_unlock(&j->lock);
    progress_event(j);
    j->last_event_ms = clock_mono_ms();
    (void)!persist(j, NULL);
}

void
job_set_progress(struct job *j, double progress, double eta_seconds)
{
    pthread_mutex_lock(&j->lock);
    j->progress = MIN(MAX(progress, j->progress), 1);
    j->eta_seconds = eta_seconds;
    pthread_mutex_unlock(&j->lock);
    int64_t now = clock_mono_ms();
    if (now - j->last_event_ms >= EVENT_GAP_MS) {
        j->last_event_ms = now;
        progress_event(j);
    }
    if (now - j->last_persist_ms >= PERSIST_GAP_MS) {
        (void)!persist(j, NULL);
    }
}

enum err
job_save_resume(struct job *j, const char *json)
{
    return persist(j, json);
}

/* ---- the end ------------------------------------------------------------- */

static void
count_end(struct engine *engine, enum job_state state)
{
    engine->totals.jobs_promoted += state == JOB_PROMOTED;
    engine->totals.jobs_refused += state == JOB_REFUSED;
    engine->totals.jobs_failed += state == JOB_FAILED;
}

static void
end_in_memory(
    struct job *j, enum job_state state, const char *result, const char *error)
{
    struct buf data;
    buf_init(&data, JSON_MAX);
    buf_add_str(&data, "{\"state\":");
    buf_json_cstr(&data, job_state_name(state));
    buf_add_str(&data, ",\"result\":");
    buf_add_str(&data, result ? result : "null");
    buf_add_str(&data, ",\"error\":");
    if (error) {
        buf_json_cstr(&data, error);
    } else {
        buf_add_str(&data, "null");
    }
    buf_add_char(&data, '}');
    char *copy = mem_strdup(
        buf_status(&data) == OK ? data.data : "{\"state\":\"unknown\"}");
    buf_release(&data);
    pthread_mutex_lock(&j->lock);
    j->state = state;
    j->progress =
        state == JOB_PROMOTED || state == JOB_DONE || state == JOB_REFUSED
            ? 1
            : j->progress;
    j->eta_seconds = 0;
    j->finished_ms = clock_wall_ms();
    mem_free(j->result);
    mem_free(j->error);
    j->result = result ? mem_strdup(result) : NULL;
    j->error = error ? mem_strdup(error) : NULL;
    snprintf(j->phase, sizeof(j->phase), "ended");
    push_event(j, "end", copy);
    pthread_mutex_unlock(&j->lock);
    count_end(j->jobs->engine, state);
    if (j->collection) {
        j->collection->policy_round_ended = true;
    }
    log_info("engine", "job end id=%lld kind=%s state=%s", (long long)j->id,
        j->kind, job_state_name(state));
}

void
job_end(
    struct job *j, enum job_state state, const char *result, const char *error)
{
    ASSERT(job_state_is_final(state));
    char budget[96];
    pthread_mutex_lock(&j->lock);
    bool over = j->over_budget, ended = job_state_is_final(j->state);
    pthread_mutex_unlock(&j->lock);
    if (ended) {
        return;
    }
    if (over && state == JOB_CANCELLED) {
        snprintf(
            budget, sizeof(budget), "the round's budget of time was used up");
        state = JOB_FAILED;
        error = budget;
    }
    /* The file first: what is told has been stored. A reader that sees the
       event finds the row ended. */
    (void)!persist_as(j, state, result, error, NULL);
    end_in_memory(j, state, result, error);
    tell(j);
}

void
job_ended_by(struct job *j, enum job_state state, const char *result)
{
    pthread_mutex_lock(&j->lock);
    bool ended = job_state_is_final(j->state);
    pthread_mutex_unlock(&j->lock);
    if (!ended) {
        end_in_memory(j, state, result, NULL);
        tell(j);
    }
}

/* ---- the table ----------------------------------------------------------- */

enum err
jobs_open(struct jobs **out, struct engine *engine)
{
    struct jobs *jobs = mem_calloc(1, sizeof(*jobs));
    if (!jobs) {
        return ERR_NOMEM;
    }
    jobs->engine = engine;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->wake, NULL);
    *out = jobs;
    return OK;
}

static bool
has_ended(struct job *j)
{
    pthread_mutex_lock(&j->lock);
    bool ended = job_state_is_final(j->state);
    pthread_mutex_unlock(&j->lock);
    return ended;
}

/* Forget the oldest ended job when there are many. With the lock held. */
static void
forget_ended(struct jobs *jobs)
{
    size_t ended = 0;
    for (size_t i = 0; i < jobs->n; i++) {
        ended += has_ended(jobs->all[i]);
    }
    for (size_t i = 0; i < jobs->n && ended > ENDED_KEPT; i++) {
        if (has_ended(jobs->all[i])) {
            job_unref(jobs->all[i]);
            memmove(&jobs->all[i], &jobs->all[i + 1],
                (jobs->n - i - 1) * sizeof(struct job *));
            jobs->n--;
            return;
        }
    }
}

static bool
reserve(struct jobs *jobs, size_t more)
{
    if (jobs->n + more <= jobs->cap) {
        return true;
    }
    size_t cap = jobs->cap * 2 + more + 16;
    struct job **v = mem_realloc(jobs->all, cap, sizeof(struct job *));
    if (v) {
        jobs->all = v;
        jobs->cap = cap;
    }
    return v != NULL;
}

/* The table and its lane take one reference each. With the lock held. */
static void
enqueue(struct jobs *jobs, struct job *j)
{
    ASSERT(jobs->n < jobs->cap);
    forget_ended(jobs);
    jobs->all[jobs->n++] = j;
    j->refs++;
    if (jobs->last[j->lane]) {
        jobs->last[j->lane]->next = j;
    } else {
        jobs->first[j->lane] = j;
    }
    jobs->last[j->lane] = j;
    pthread_cond_broadcast(&jobs->wake);
}

struct job *
jobs_find(struct jobs *jobs, int64_t id)
{
    struct job *found = NULL;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->n && !found; i++) {
        if (jobs->all[i]->id == id) {
            found = jobs->all[i];
            found->refs++;
        }
    }
    pthread_mutex_unlock(&jobs->lock);
    return found;
}

int64_t
jobs_of_collection(struct jobs *jobs, int64_t collection)
{
    int64_t id = 0;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->n && !id; i++) {
        struct job *j = jobs->all[i];
        pthread_mutex_lock(&j->lock);
        if (j->collection_id == collection && !job_state_is_final(j->state)) {
            id = j->id;
        }
        pthread_mutex_unlock(&j->lock);
    }
    pthread_mutex_unlock(&jobs->lock);
    return id;
}

size_t
jobs_unfinished(struct jobs *jobs, int64_t *ids, size_t max)
{
    size_t n = 0;
    pthread_mutex_lock(&jobs->lock);
    for (size_t i = 0; i < jobs->n && n < max; i++) {
        struct job *j = jobs->all[i];
        pthread_mutex_lock(&j->lock);
        if (!job_state_is_final(j->state)) {
            ids[n++] = j->id;
        }
        pthread_mutex_unlock(&j->lock);
    }
    pthread_mutex_unlock(&jobs->lock);
    return n;
}

/* ---- queueing ------------------------------------------------------------ */

struct queue_op {
    struct jobs *jobs;
    struct job *job;
    int64_t running;
    int64_t id;
    int64_t now_ms;
};

static enum err
run_queue(struct db *db, void *arg)
{
    struct queue_op *op = arg;
    struct job *j = op->job;
    enum err err = ERR_NOT_FOUND;
    op->running = 0;
    if (j->collection_id) {
        err = jobs_find_unfinished(
            db, j->collection_id, (struct store_text){.s = NULL}, &op->running);
    }
    if (err != ERR_NOT_FOUND) {
        return err ? err : ERR_CONFLICT;
    }
    struct job_row row = {.kind = store_text_of(j->kind),
        .collection = j->collection_id,
        .params = store_text_of(j->options)};
    if (j->collection) {
        row.collection_name = store_text_of(j->collection->name);
    }
    return jobs_create(db, &row, false, op->now_ms, &op->id);
}

static void
done_queue(void *arg, enum err err)
{
    struct queue_op *op = arg;
    if (!err) {
        op->job->id = op->id;
        op->job->created_ms = op->now_ms;
        pthread_mutex_lock(&op->jobs->lock);
        enqueue(op->jobs, op->job);
        pthread_mutex_unlock(&op->jobs->lock);
    }
}

enum err
jobs_queue(struct jobs *jobs, struct collection *c, const char *kind,
    const char *options_json, int64_t *id, struct fault *fault)
{
    if (jobs->stopping) {
        return fault_set(fault, ERR_BUSY, "", "the service is stopping");
    }
    struct job *j;
    enum err err = job_new(&j, jobs, kind, c, options_json);
    if (err) {
        return fault_of(fault, err, "queueing the job");
    }
    pthread_mutex_lock(&jobs->lock);
    bool ok = reserve(jobs, 1 + ++jobs->n_queueing);
    pthread_mutex_unlock(&jobs->lock);
    struct queue_op op = {.jobs = jobs, .job = j, .now_ms = clock_wall_ms()};
    struct store_op write = {.run = run_queue, .done = done_queue, .arg = &op};
    err = ok ? store_write(jobs->engine->store, &write) : ERR_NOMEM;
    pthread_mutex_lock(&jobs->lock);
    jobs->n_queueing--;
    pthread_mutex_unlock(&jobs->lock);
    if (err) {
        job_unref(j);
    }
    if (err == ERR_CONFLICT) {
        fault_set(fault, err, "", "job %lld of this collection is not finished",
            (long long)op.running);
        if (fault) {
            fault->extra_id = op.running;
        }
        return err;
    }
    if (!err) {
        *id = op.id;
        log_info(
            "engine", "job queued id=%lld kind=%s", (long long)op.id, kind);
        jobs->engine->totals.jobs_started++;
        /* our reference went to the lane */
    }
    return fault_of(fault, err, "queueing the job");
}

static enum err
resume_row(void *arg, const struct job_row *row)
{
    struct jobs *jobs = arg;
    char kind[32];
    snprintf(kind, sizeof(kind), "%s", row->kind.s);
    struct collection *c = collection_by_id(jobs->engine, row->collection);
    if (!known_kind(kind) || (row->collection && !c)) {
        collection_unref(c);
        return OK; /* fails below, not being kept */
    }
    struct job *j;
    enum err err =
        job_new(&j, jobs, kind, c, row->params.s ? row->params.s : "{}");
    collection_unref(c);
    if (err) {
        return err;
    }
    j->id = row->id;
    j->created_ms = row->created_ms;
    j->started_ms = row->started_ms;
    j->progress = row->progress;
    if (row->resume.s) {
        j->resume = mem_strndup(row->resume.s, row->resume.len);
    }
    if (row->curve.s) {
        job_read_curve(j, row->curve.s, row->curve.len);
    }
    pthread_mutex_lock(&jobs->lock);
    bool ok = reserve(jobs, 1);
    if (ok) {
        enqueue(jobs, j);
    }
    pthread_mutex_unlock(&jobs->lock);
    if (!ok) {
        job_unref(j);
        return ERR_NOMEM;
    }
    log_info("engine", "job resumed id=%lld kind=%s", (long long)row->id, kind);
    return OK;
}

struct fail_op {
    int64_t keep[1024];
    size_t n_keep;
};

static enum err
run_fail(struct db *db, void *arg)
{
    const struct fail_op *op = arg;
    return jobs_fail_unfinished(db, op->keep, op->n_keep,
        store_text_of("the service stopped while the job ran"), clock_wall_ms(),
        NULL);
}

enum err
jobs_resume(struct jobs *jobs)
{
    struct db *db;
    enum err err = store_read_begin(jobs->engine->store, &db);
    if (err) {
        return err;
    }
    err = jobs_list_unfinished(db, resume_row, jobs);
    store_read_end(jobs->engine->store, db);
    if (err) {
        return err;
    }
    struct fail_op *op = mem_calloc(1, sizeof(*op));
    if (!op) {
        return ERR_NOMEM;
    }
    op->n_keep = jobs_unfinished(jobs, op->keep, ARRAY_LEN(op->keep));
    learn_checkpoint_sweep(jobs->engine->data_dir, op->keep, op->n_keep);
    err = store_run(jobs->engine->store, run_fail, op);
    mem_free(op);
    return err;
}

/* ---- running ------------------------------------------------------------- */

static bool
backup_progress(void *arg, int64_t done, int64_t total)
{
    struct job *j = arg;
    job_set_progress(j, total ? (double)done / (double)total : 0, -1);
    return !job_stopped(j);
}

static enum err
run_backup(struct engine *engine, struct job *j, struct fault *fault)
{
    char name[STORE_BACKUP_NAME_MAX];
    struct buf result;
    int64_t bytes;
    job_set_phase(j, "copy", 0);
    snprintf(name, sizeof(name), "backup-%lld-%lld", (long long)clock_wall_ms(),
        (long long)j->id);
    enum err err =
        store_backup(engine->store, name, backup_progress, j, &bytes, fault);
    if (!err) {
        buf_init(&result, 4096);
        buf_printf(&result, "{\"name\":\"%s\",\"bytes\":%lld}", name,
            (long long)bytes);
        job_end(j, JOB_DONE, result.data, NULL);
        buf_release(&result);
    }
    return err;
}

static void
run_job(struct jobs *jobs, struct job *j)
{
    struct engine *engine = jobs->engine;
    struct fault fault = {.err = OK};
    pthread_mutex_lock(&j->lock);
    bool cancelled = j->cancelled;
    if (!cancelled) {
        j->state = JOB_RUNNING;
        j->started_ms = j->started_ms ? j->started_ms : clock_wall_ms();
    }
    pthread_mutex_unlock(&j->lock);
    enum err err = ERR_CANCELLED;
    if (!cancelled) {
        struct train_policy policy = {.budget_seconds = 0};
        if (j->collection) {
            collection_policy(j->collection, &policy);
        }
        if (policy.budget_seconds && strcmp(j->kind, JOB_KIND_TRAIN) == 0) {
            j->deadline_ms = clock_mono_ms() + policy.budget_seconds * 1000;
        }
        job_set_phase(j, "start", j->progress);
        if (strcmp(j->kind, JOB_KIND_TRAIN) == 0) {
            err = learn_run(engine, j->collection, j);
        } else if (strcmp(j->kind, JOB_KIND_REEMBED) == 0) {
            err = lineage_promote_run(engine, j->collection, j);
        } else {
            err = run_backup(engine, j, &fault);
        }
    }
    pthread_mutex_lock(&j->lock);
    bool ended = job_state_is_final(j->state);
    cancelled = j->cancelled;
    pthread_mutex_unlock(&j->lock);
    if (jobs->stopping && !ended && !cancelled) {
        return; /* goes on at the next start */
    }
    if (j->collection) {
        lineage_clean_up(j->collection);
    }
    if (!ended && cancelled) {
        job_end(j, JOB_CANCELLED, NULL, NULL);
    } else if (!ended) {
        job_end(j, JOB_FAILED, NULL,
            fault.err ? fault.detail
            : err     ? err_text(err)
                      : "the job ended without a result");
    }
    keeper_wake(engine->keeper);
}

struct lane_start {
    struct jobs *jobs;
    enum lane lane;
};

static void *
lane_thread(void *arg)
{
    struct lane_start *start = arg;
    struct jobs *jobs = start->jobs;
    enum lane lane = start->lane;
    mem_free(start);
    pool_give_way();
    for (;;) {
        pthread_mutex_lock(&jobs->lock);
        while (!jobs->first[lane] && !jobs->stopping) {
            pthread_cond_wait(&jobs->wake, &jobs->lock);
        }
        struct job *j = jobs->stopping ? NULL : jobs->first[lane];
        if (j) {
            jobs->first[lane] = j->next;
            jobs->last[lane] = j->next ? jobs->last[lane] : NULL;
            j->next = NULL;
        }
        pthread_mutex_unlock(&jobs->lock);
        if (!j) {
            return NULL;
        }
        run_job(jobs, j);
        job_unref(j);
    }
}

enum err
jobs_start(struct jobs *jobs)
{
    for (size_t i = 0; i < LANES; i++) {
        struct lane_start *start = mem_alloc(1, sizeof(*start));
        if (!start) {
            return ERR_NOMEM;
        }
        *start = (struct lane_start){.jobs = jobs, .lane = (enum lane)i};
        if (pthread_create(&jobs->threads[i], NULL, lane_thread, start)) {
            mem_free(start);
            return ERR_NOMEM;
        }
        jobs->n_threads++;
    }
    return OK;
}

void
jobs_stop(struct jobs *jobs)
{
    if (!jobs) {
        return;
    }
    pthread_mutex_lock(&jobs->lock);
    jobs->stopping = true;
    pthread_cond_broadcast(&jobs->wake);
    for (size_t i = 0; i < jobs->n; i++) {
        pthread_mutex_lock(&jobs->all[i]->lock);
        pthread_cond_broadcast(&jobs->all[i]->changed);
        pthread_mutex_unlock(&jobs->all[i]->lock);
    }
    pthread_mutex_unlock(&jobs->lock);
}

void
jobs_close(struct jobs *jobs)
{
    if (!jobs) {
        return;
    }
    jobs_stop(jobs);
    for (size_t i = 0; i < jobs->n_threads; i++) {
        pthread_join(jobs->threads[i], NULL);
    }
    for (size_t i = 0; i < LANES; i++) {
        while (jobs->first[i]) {
            struct job *j = jobs->first[i];
            jobs->first[i] = j->next;
            job_unref(j);
        }
    }
    for (size_t i = 0; i < jobs->n; i++) {
        job_unref(jobs->all[i]);
    }
    mem_free(jobs->all);
    pthread_mutex_destroy(&jobs->lock);
    pthread_cond_destroy(&jobs->wake);
    mem_free(jobs);
}

bool
jobs_leave_lane(struct jobs *jobs, struct job *j)
{
    bool found = false;
    pthread_mutex_lock(&jobs->lock);
    struct job *before = NULL;
    for (struct job *at = jobs->first[j->lane]; at && !found; at = at->next) {
        if (at == j) {
            found = true;
            break;
        }
        before = at;
    }
    if (found) {
        if (before) {
            before->next = j->next;
        } else {
            jobs->first[j->lane] = j->next;
        }
        if (jobs->last[j->lane] == j) {
            jobs->last[j->lane] = before;
        }
        j->next = NULL;
    }
    pthread_mutex_unlock(&jobs->lock);
    return found;
}
