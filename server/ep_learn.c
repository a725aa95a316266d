/* Training, generations and the jobs that do the work. */
#include <stdlib.h>
#include <string.h>
#include "server/ep.h"
#include "engine/engine.h"
#include "server/args.h"
#include "server/codec.h"
#include "server/events.h"
#include "server/http.h"
#include "server/problem.h"

static enum err
stream_next(void *state, struct buf *chunk, bool *end)
{
    return engine_stream_next(state, chunk, end, NULL);
}

static void
stream_done(void *state)
{
    engine_stream_free(state);
}

/* 202 with where to look. */
static void
accept_job(struct request *req, int64_t job_id)
{
    struct fault fault = {0};
    struct engine_job job;
    enum err err =
        engine_job_get(req->daemon->engine, job_id, &req->arena, &job, &fault);
    struct buf *out = reply_json(req, 202);
    if (err == OK)
        codec_write_job(out, &job);
    else
        buf_printf(out, "{\"id\":%lld}", (long long)job_id);
    reply_header_f(req, "Location", "/v1/jobs/%lld", (long long)job_id);
}

void
ep_train(struct request *req)
{
    struct fault fault = {0};
    const char *options = NULL;
    int64_t job_id = 0;
    enum err err = codec_read_object(
        req->body.data, req->body.len, &req->arena, &options, &fault);
    if (err == OK)
        err = engine_train(req->daemon->engine,
            request_param(req, "collection"), options, &job_id, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        accept_job(req, job_id);
}

/* ---- generations --------------------------------------------------------- */

void
ep_generations_list(struct request *req)
{
    struct fault fault = {0};
    struct engine_generation *list = NULL;
    size_t n = 0;
    enum err err = engine_generations_list(req->daemon->engine,
        request_param(req, "collection"), &req->arena, &list, &n, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"generations\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        codec_write_generation(out, &list[i]);
    }
    buf_add_str(out, "]}");
}

void
ep_generation_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_generation generation;
    int64_t id = 0;
    enum err err = args_path_id(req, "generation", &id, &fault);
    if (err == OK)
        err = engine_generation_get(req->daemon->engine,
            request_param(req, "collection"), id, &req->arena, &generation,
            &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_generation(reply_json(req, 200), &generation);
}

typedef enum err open_fn(struct engine_stream **out, struct engine *engine,
    const char *collection, int64_t generation, struct fault *fault);

/* A file that is made of a generation. */
static void
reply_file(
    struct request *req, open_fn *open, const char *type, const char *suffix)
{
    struct fault fault = {0};
    struct engine_stream *stream = NULL;
    int64_t id = 0;
    enum err err = args_path_id(req, "generation", &id, &fault);
    if (err == OK)
        err = open(&stream, req->daemon->engine,
            request_param(req, "collection"), id, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    reply_stream(req, type, stream_next, stream_done, stream,
        engine_stream_bytes(stream));
    reply_header_f(req, "Content-Disposition",
        "attachment; filename=\"generation-%lld.%s\"", (long long)id, suffix);
}

void
ep_weights(struct request *req)
{
    reply_file(
        req, engine_weights_new, "application/octet-stream", "safetensors");
}

void
ep_folder(struct request *req)
{
    reply_file(req, engine_folder_new, "application/x-tar", "tar");
}

static void
reply_switch(struct request *req, const struct engine_switch *done)
{
    if (done->job_id != 0) {
        accept_job(req, done->job_id);
        return;
    }
    buf_printf(reply_json(req, 200), "{\"generation\":%lld,\"live\":true}",
        (long long)done->generation);
}

void
ep_promote(struct request *req)
{
    struct fault fault = {0};
    struct engine_switch done;
    int64_t id = 0;
    enum err err = codec_read_nothing(req->body.data, req->body.len, &fault);
    if (err == OK)
        err = args_path_id(req, "generation", &id, &fault);
    if (err == OK)
        err = engine_generation_promote(req->daemon->engine,
            request_param(req, "collection"), id, &done, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        reply_switch(req, &done);
}

void
ep_rollback(struct request *req)
{
    struct fault fault = {0};
    struct engine_switch done;
    enum err err = codec_read_nothing(req->body.data, req->body.len, &fault);
    if (err == OK)
        err = engine_rollback(req->daemon->engine,
            request_param(req, "collection"), &done, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        reply_switch(req, &done);
}

/* ---- jobs ---------------------------------------------------------------- */

void
ep_jobs_list(struct request *req)
{
    static const char *const names[] = {"collection", "before", "limit"};
    struct fault fault = {0};
    struct engine_job *list = NULL;
    size_t n = 0;
    int64_t before = 0;
    int64_t limit = 0;
    int64_t next = 0;
    enum err err = args_only(req, names, ARRAY_LEN(names), &fault);
    if (err == OK)
        err = args_int(req, "before", 1, INT64_MAX, &before, &fault);
    if (err == OK)
        err = args_int(req, "limit", 1, ENGINE_PAGE_MAX, &limit, &fault);
    if (err == OK)
        err = engine_jobs_list(req->daemon->engine,
            request_query(req, "collection"), before, (size_t)limit,
            &req->arena, &list, &n, &next, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"jobs\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        codec_write_job(out, &list[i]);
    }
    buf_add_str(out, "],\"next_before\":");
    if (next > 0)
        buf_json_int(out, next);
    else
        buf_add_str(out, "null");
    buf_add_char(out, '}');
}

void
ep_job_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_job job;
    int64_t id = 0;
    enum err err = args_path_id(req, "job", &id, &fault);
    if (err == OK)
        err =
            engine_job_get(req->daemon->engine, id, &req->arena, &job, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_job(reply_json(req, 200), &job);
}

void
ep_job_cancel(struct request *req)
{
    struct fault fault = {0};
    struct engine_job job;
    int64_t id = 0;
    enum err err = args_path_id(req, "job", &id, &fault);
    if (err == OK)
        err = engine_job_cancel(req->daemon->engine, id, &fault);
    if (err == OK)
        err =
            engine_job_get(req->daemon->engine, id, &req->arena, &job, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_job(reply_json(req, 202), &job);
}

static void
write_event(void *arg, const struct engine_event *event)
{
    struct buf *out = arg;
    buf_printf(
        out, "id: %lld\nevent: %s\ndata: ", (long long)event->id, event->type);
    buf_add_str(out, event->data);
    buf_add_str(out, "\n\n");
}

void
ep_job_events(struct request *req)
{
    struct fault fault = {0};
    struct engine_job job;
    int64_t id = 0;
    int64_t after = 0;
    const char *last = req->headers.last_event_id;
    enum err err = args_path_id(req, "job", &id, &fault);
    if (err == OK && last[0] != '\0') {
        char *end = NULL;
        after = strtoll(last, &end, 10);
        if (*end != '\0' || after < 0)
            err = fault_set(&fault, ERR_INVALID, "",
                "Last-Event-ID must be the number of an event");
    }
    if (err == OK)
        err =
            engine_job_get(req->daemon->engine, id, &req->arena, &job, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct reply *reply = &req->reply;
    reply->status = 200;
    reply->content_type = "text/event-stream";
    reply_header(req, "Cache-Control", "no-store");
    if (job.finished_ms != 0) {
        /* All there will ever be is here: an ordinary answer. */
        bool ended = false;
        err = engine_job_events(req->daemon->engine, id, after, write_event,
            &reply->body, &ended, &fault);
        if (err != OK)
            problem_reply(req, &fault);
        else if (reply->body.len == 0)
            buf_add_str(&reply->body, ": nothing new\n\n");
        return;
    }
    if (!events_has_room(req->daemon->events)) {
        problem_reply_status(req, 503, "too many event streams are open");
        return;
    }
    reply->events_job = id;
    reply->events_after = after;
}
