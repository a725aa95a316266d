/* Items, one by one and in arrays; NDJSON goes through intake.h. */
#include <string.h>
#include "server/ep.h"
#include "engine/engine.h"
#include "server/args.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/problem.h"

static enum err
check_wait(const struct request *req, struct fault *fault)
{
    static const char *const names[] = {"wait", "outcomes"};
    enum err err = args_only(req, names, ARRAY_LEN(names), fault);
    return err == OK ? args_wait(req, fault) : err;
}

void
ep_written(
    struct request *req, const struct engine_outcome *outcome, const char *id)
{
    bool created = outcome->status == ENGINE_CREATED;
    codec_write_written(reply_json(req, created ? 201 : 200), outcome, id);
    reply_header_f(req, "ETag", "\"%lld\"", (long long)outcome->version);
}

void
ep_item_put(struct request *req)
{
    struct fault fault = {0};
    struct engine_item item;
    struct engine_condition condition;
    struct engine_outcome outcome;
    const char *id = request_param(req, "id");
    enum err err = check_wait(req, &fault);
    if (err == OK)
        err = args_condition(req, &condition, &fault);
    if (err == OK)
        err = codec_read_item(
            req->body.data, req->body.len, id, &req->arena, &item, &fault);
    if (err == OK)
        err = engine_item_put(req->daemon->engine,
            request_param(req, "collection"), &item, &condition, &outcome,
            &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        ep_written(req, &outcome, id);
}

void
ep_item_get(struct request *req)
{
    static const char *const names[] = {"vector"};
    struct fault fault = {0};
    struct engine_item_view item;
    bool with_vector = false;
    enum err err = args_only(req, names, ARRAY_LEN(names), &fault);
    if (err == OK)
        err = args_bool(req, "vector", &with_vector, &fault);
    if (err == OK)
        err = engine_item_get(req->daemon->engine,
            request_param(req, "collection"), request_param(req, "id"),
            with_vector, &req->arena, &item, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    if (args_not_modified(req, item.version))
        req->reply.status = 304;
    else
        codec_write_item(reply_json(req, 200), &item);
    reply_header_f(req, "ETag", "\"%lld\"", (long long)item.version);
}

void
ep_item_patch(struct request *req)
{
    struct fault fault = {0};
    struct engine_condition condition;
    struct engine_outcome outcome;
    const char *metadata = NULL;
    const char *id = request_param(req, "id");
    enum err err = check_wait(req, &fault);
    if (err == OK)
        err = args_condition(req, &condition, &fault);
    if (err == OK)
        err = codec_read_metadata_patch(
            req->body.data, req->body.len, &req->arena, &metadata, &fault);
    if (err == OK)
        err = engine_item_patch(req->daemon->engine,
            request_param(req, "collection"), id, metadata, &condition,
            &outcome, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        ep_written(req, &outcome, id);
}

void
ep_item_delete(struct request *req)
{
    struct fault fault = {0};
    struct engine_condition condition;
    enum err err = check_wait(req, &fault);
    if (err == OK)
        err = args_condition(req, &condition, &fault);
    if (err == OK)
        err = engine_item_delete(req->daemon->engine,
            request_param(req, "collection"), request_param(req, "id"),
            &condition, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        req->reply.status = 204;
}

void
ep_items_add(struct request *req)
{
    struct fault fault = {0};
    struct engine_item *items = NULL;
    size_t n = 0;
    struct engine_outcome *outcomes = NULL;
    enum err err = check_wait(req, &fault);
    if (err == OK)
        err = codec_read_items(
            req->body.data, req->body.len, &req->arena, &items, &n, &fault);
    if (err == OK) {
        outcomes = arena_calloc(&req->arena, n + 1, sizeof(*outcomes));
        if (!outcomes)
            err = fault_set(&fault, ERR_NOMEM, "", "out of memory");
    }
    if (err == OK)
        err = engine_items_put(req->daemon->engine,
            request_param(req, "collection"), items, n, outcomes, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    size_t superseded = 0;
    buf_add_str(out, "{\"items\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        superseded += outcomes[i].status == ENGINE_SUPERSEDED;
        codec_write_outcome(out, &outcomes[i],
            outcomes[i].status == ENGINE_CREATED ? 201 : 200, "index");
    }
    buf_printf(out, "],\"count\":%zu,\"superseded\":%zu}", n, superseded);
}

void
ep_items_list(struct request *req)
{
    static const char *const names[] = {"cursor", "limit", "filter", "vector"};
    struct fault fault = {0};
    struct engine_item_page page;
    bool with_vector = false;
    int64_t limit = 0;
    enum err err = args_only(req, names, ARRAY_LEN(names), &fault);
    if (err == OK)
        err = args_bool(req, "vector", &with_vector, &fault);
    if (err == OK)
        err = args_int(req, "limit", 1, ENGINE_PAGE_MAX, &limit, &fault);
    if (err == OK)
        err = engine_items_list(req->daemon->engine,
            request_param(req, "collection"), request_query(req, "cursor"),
            (size_t)limit, request_query(req, "filter"), with_vector,
            &req->arena, &page, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"items\":[");
    for (size_t i = 0; i < page.n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        codec_write_item(out, &page.items[i]);
    }
    buf_add_str(out, "],\"next_cursor\":");
    if (page.next_cursor)
        buf_json_cstr(out, page.next_cursor);
    else
        buf_add_str(out, "null");
    buf_add_char(out, '}');
}

void
ep_items_delete(struct request *req)
{
    struct fault fault = {0};
    struct codec_delete what;
    int64_t n_deleted = 0;
    int64_t n_missing = 0;
    enum err err = check_wait(req, &fault);
    if (err == OK)
        err = codec_read_delete(
            req->body.data, req->body.len, &req->arena, &what, &fault);
    if (err == OK)
        err = engine_items_delete(req->daemon->engine,
            request_param(req, "collection"), what.ids, what.n_ids,
            what.filter_json, &n_deleted, &n_missing, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    buf_printf(reply_json(req, 200), "{\"deleted\":%lld,\"missing\":%lld}",
        (long long)n_deleted, (long long)n_missing);
}
