/* Jobs as the world sees them: lists, cancelling, events. */
#include <pthread.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "engine/internal.h"
#include "engine/jobs_table.h"

/* ---- the engine's calls -------------------------------------------------- */

static const char *
copy_text(struct arena *arena, struct store_text t, const char *none, bool *ok)
{
    if (!t.s) {
        return none;
    }
    const char *copy = arena_strndup(arena, t.s, t.len);
    *ok = *ok && copy;
    return copy;
}

/* A row as the world sees it, with what memory knows better. */
static enum err
view_row(struct jobs *jobs, const struct job_row *row, struct arena *arena,
    struct engine_job *out)
{
    bool ok = true;
    struct engine_job v = {.id = row->id,
        .state = job_state_name(row->state),
        .progress = row->progress,
        .eta_seconds = job_state_is_final(row->state) ? 0 : -1,
        .created_ms = row->created_ms,
        .started_ms = row->started_ms,
        .finished_ms = row->finished_ms};
    v.kind = copy_text(arena, row->kind, "", &ok);
    v.collection = copy_text(arena, row->collection_name, "", &ok);
    v.phase = copy_text(arena, row->phase, "", &ok);
    v.options_json = copy_text(arena, row->params, "{}", &ok);
    v.result_json = copy_text(arena, row->result, "null", &ok);
    v.error = copy_text(arena, row->error, NULL, &ok);
    struct job *j = jobs_find(jobs, row->id);
    struct buf curve;
    buf_init(&curve, JSON_MAX);
    bool runs = false;
    if (j) {
        pthread_mutex_lock(&j->lock);
        /* A job is over when memory says so too: until then its collection
           is not free, whatever its row says. */
        runs = !job_state_is_final(row->state) || !job_state_is_final(j->state);
        if (!job_state_is_final(j->state)) {
            v.state = job_state_name(j->state);
            v.finished_ms = 0;
            v.result_json = "null";
            v.error = NULL;
        }
        if (runs) {
            v.progress = j->progress;
            v.eta_seconds = j->eta_seconds;
            v.started_ms = j->started_ms;
            v.phase = copy_text(arena, store_text_of(j->phase), "", &ok);
            job_write_curve(j, &curve);
        }
        pthread_mutex_unlock(&j->lock);
        job_unref(j);
    }
    if (!runs) {
        job_copy_curve(row->curve.s, row->curve.s ? row->curve.len : 0, &curve);
    }
    ok = ok && buf_status(&curve) == OK;
    if (ok) {
        v.curve_json = copy_text(arena,
            (struct store_text){.s = curve.data, .len = curve.len}, "", &ok);
    }
    buf_release(&curve);
    if (!ok) {
        return ERR_NOMEM;
    }
    *out = v;
    return OK;
}

static enum err
no_job(struct fault *fault, int64_t id)
{
    return fault_set(
        fault, ERR_NOT_FOUND, "", "there is no job %lld", (long long)id);
}

enum err
engine_job_get(struct engine *engine, int64_t id, struct arena *arena,
    struct engine_job *out, struct fault *fault)
{
    struct db *db = NULL;
    struct job_row row;
    enum err err = store_read_begin(engine->store, &db);
    if (!err) {
        err = jobs_get(db, id, arena, &row);
    }
    store_read_end(engine->store, db);
    if (err == ERR_NOT_FOUND) {
        return no_job(fault, id);
    }
    if (!err) {
        err = view_row(engine->jobs, &row, arena, out);
    }
    return fault_of(fault, err, "reading the job");
}

struct list {
    struct jobs *jobs;
    struct arena *arena;
    struct engine_job *v;
    size_t n;
};

static enum err
list_row(void *arg, const struct job_row *row)
{
    struct list *list = arg;
    enum err err = view_row(list->jobs, row, list->arena, &list->v[list->n]);
    list->n += !err;
    return err;
}

enum err
engine_jobs_list(struct engine *engine, const char *collection, int64_t before,
    size_t limit, struct arena *arena, struct engine_job **out, size_t *n,
    int64_t *next_before, struct fault *fault)
{
    if (limit > ENGINE_PAGE_MAX || before < 0) {
        return fault_set(fault, ERR_INVALID, before < 0 ? "/before" : "/limit",
            "a page has at most %d jobs, from a positive id", ENGINE_PAGE_MAX);
    }
    limit = limit ? limit : ENGINE_PAGE_DEFAULT;
    struct job_filter filter = {.state = -1, .before = before, .limit = limit};
    enum err err = OK;
    if (collection) {
        struct collection *c;
        err = collection_find(engine, collection, &c, fault);
        if (err) {
            return err;
        }
        filter.collection = c->id;
        collection_unref(c);
    }
    struct list list = {.jobs = engine->jobs, .arena = arena};
    list.v = arena_alloc(arena, limit, sizeof(*list.v));
    struct db *db = NULL;
    err = list.v ? store_read_begin(engine->store, &db) : ERR_NOMEM;
    if (!err) {
        err = jobs_list(db, &filter, list_row, &list);
    }
    store_read_end(engine->store, db);
    if (!err) {
        *out = list.v;
        *n = list.n;
        *next_before = list.n == limit ? list.v[list.n - 1].id : 0;
    }
    return fault_of(fault, err, "listing the jobs");
}

enum err
engine_job_cancel(struct engine *engine, int64_t id, struct fault *fault)
{
    struct job *j = jobs_find(engine->jobs, id);
    if (j && jobs_leave_lane(engine->jobs, j)) {
        job_end(j, JOB_CANCELLED, NULL, NULL);
        job_unref(j); /* the lane's */
        job_unref(j);
        return OK;
    }
    if (j) {
        pthread_mutex_lock(&j->lock);
        bool ended = job_state_is_final(j->state);
        j->cancelled = j->cancelled || !ended;
        pthread_mutex_unlock(&j->lock);
        job_unref(j);
        if (!ended) {
            return OK;
        }
    } else {
        struct arena arena;
        struct engine_job view;
        arena_init(&arena, JSON_MAX);
        enum err err = engine_job_get(engine, id, &arena, &view, fault);
        arena_release(&arena);
        if (err) {
            return err;
        }
    }
    return fault_set(
        fault, ERR_CONFLICT, "", "job %lld has ended already", (long long)id);
}

/* ---- reading events ------------------------------------------------------ */

/* Copies of the events after after_id, so that fn runs without the lock. */
static enum err
give_events(struct job *j, int64_t after_id, engine_event_fn *fn, void *arg,
    bool *ended)
{
    enum err err = OK;
    for (;;) {
        pthread_mutex_lock(&j->lock);
        int64_t oldest = MAX(1, j->n_events - EVENTS_MAX + 1);
        int64_t id = MAX(after_id + 1, oldest);
        bool any = id <= j->n_events;
        *ended = job_state_is_final(j->state);
        struct event copy = {.data = NULL};
        if (any) {
            const struct event *e = &j->events[id % EVENTS_MAX];
            memcpy(copy.type, e->type, sizeof(copy.type));
            copy.data = mem_strdup(e->data ? e->data : "{}");
        }
        pthread_mutex_unlock(&j->lock);
        if (!any) {
            return err;
        }
        if (!copy.data) {
            return ERR_NOMEM;
        }
        struct engine_event event = {
            .id = id, .type = copy.type, .data = copy.data};
        fn(arg, &event);
        mem_free(copy.data);
        after_id = id;
    }
}

/* A job of an earlier run: its end is all that is known. */
static enum err
give_stored_end(struct engine *engine, int64_t id, int64_t after_id,
    engine_event_fn *fn, void *arg, bool *ended, struct fault *fault)
{
    struct arena arena;
    struct engine_job view;
    struct buf data;
    arena_init(&arena, JSON_MAX);
    buf_init(&data, JSON_MAX);
    enum err err = engine_job_get(engine, id, &arena, &view, fault);
    if (!err) {
        buf_add_str(&data, "{\"state\":");
        buf_json_cstr(&data, view.state);
        buf_add_str(&data, ",\"result\":");
        buf_add_str(&data, view.result_json);
        buf_add_str(&data, ",\"error\":");
        if (view.error) {
            buf_json_cstr(&data, view.error);
        } else {
            buf_add_str(&data, "null");
        }
        buf_add_char(&data, '}');
        err = buf_status(&data);
    }
    if (!err) {
        *ended = true;
        if (after_id < 1) {
            struct engine_event event = {
                .id = 1, .type = "end", .data = data.data};
            fn(arg, &event);
        }
    }
    buf_release(&data);
    arena_release(&arena);
    return err;
}

enum err
engine_job_events(struct engine *engine, int64_t id, int64_t after_id,
    engine_event_fn *fn, void *arg, bool *ended, struct fault *fault)
{
    return engine_job_wait_events(
        engine, id, after_id, 0, fn, arg, ended, fault);
}

enum err
engine_job_wait_events(struct engine *engine, int64_t id, int64_t after_id,
    int64_t timeout_ms, engine_event_fn *fn, void *arg, bool *ended,
    struct fault *fault)
{
    struct job *j = jobs_find(engine->jobs, id);
    if (!j) {
        return give_stored_end(engine, id, after_id, fn, arg, ended, fault);
    }
    int64_t until = clock_mono_ns() + timeout_ms * 1000000;
    struct timespec when = {
        .tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    pthread_mutex_lock(&j->lock);
    int timed_out = timeout_ms <= 0;
    while (!timed_out && j->n_events <= after_id &&
           !job_state_is_final(j->state) && !engine->jobs->stopping) {
        timed_out = pthread_cond_timedwait(&j->changed, &j->lock, &when);
    }
    pthread_mutex_unlock(&j->lock);
    enum err err = give_events(j, MAX(after_id, 0), fn, arg, ended);
    job_unref(j);
    return fault_of(fault, err, "reading the events");
}
