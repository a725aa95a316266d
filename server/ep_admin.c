/* Export, import and backup. */
#include <string.h>
#include "server/ep.h"
#include "engine/engine.h"
#include "server/args.h"
#include "server/codec.h"
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

void
ep_export(struct request *req)
{
    static const char *const names[] = {"items", "pairs", "vectors", "images"};
    struct fault fault = {0};
    struct engine_export_options options = {.items = true, .pairs = true};
    struct engine_stream *stream = NULL;
    bool images = true;
    enum err err = args_only(req, names, ARRAY_LEN(names), &fault);
    if (err == OK)
        err = args_bool(req, "items", &options.items, &fault);
    if (err == OK)
        err = args_bool(req, "pairs", &options.pairs, &fault);
    if (err == OK)
        err = args_bool(req, "vectors", &options.vectors, &fault);
    if (err == OK)
        err = args_bool(req, "images", &images, &fault);
    options.no_images = !images;
    if (err == OK)
        err = engine_export_new(&stream, req->daemon->engine,
            request_param(req, "collection"), &options, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    reply_stream(req, "application/x-ndjson", stream_next, stream_done, stream,
        engine_stream_bytes(stream));
}

/* The body is a stream, always; what comes here is a mistake of the table. */
void
ep_import(struct request *req)
{
    problem_reply_status(req, 415, "send Content-Type: application/x-ndjson");
}

void
ep_backup_start(struct request *req)
{
    struct fault fault = {0};
    struct engine_job job;
    int64_t job_id = 0;
    enum err err = codec_read_nothing(req->body.data, req->body.len, &fault);
    if (err == OK)
        err = engine_backup_start(req->daemon->engine, &job_id, &fault);
    if (err == OK)
        err = engine_job_get(
            req->daemon->engine, job_id, &req->arena, &job, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    codec_write_job(reply_json(req, 202), &job);
    reply_header_f(req, "Location", "/v1/jobs/%lld", (long long)job_id);
}

void
ep_backups_list(struct request *req)
{
    struct fault fault = {0};
    struct engine_backup *list = NULL;
    size_t n = 0;
    enum err err = engine_backups_list(
        req->daemon->engine, &req->arena, &list, &n, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"backups\":[");
    for (size_t i = 0; i < n; i++) {
        buf_add_str(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        buf_json_cstr(out, list[i].name);
        buf_printf(out, ",\"bytes\":%llu,\"created_ms\":%lld}",
            (unsigned long long)list[i].bytes, (long long)list[i].created_ms);
    }
    buf_add_str(out, "]}");
}

void
ep_backup_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_stream *stream = NULL;
    enum err err = engine_backup_open(
        &stream, req->daemon->engine, request_param(req, "name"), &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    reply_stream(req, "application/vnd.sqlite3", stream_next, stream_done,
        stream, engine_stream_bytes(stream));
}
