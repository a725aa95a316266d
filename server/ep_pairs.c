/* Pairs and feedback: what the service learns from. */
#include "server/ep.h"
#include "engine/engine.h"
#include "server/args.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/problem.h"

void
ep_pairs_add(struct request *req)
{
    struct fault fault = {0};
    struct engine_pair *pairs = NULL;
    size_t n = 0;
    struct engine_outcome *outcomes = NULL;
    enum err err = codec_read_pairs(
        req->body.data, req->body.len, &req->arena, &pairs, &n, &fault);
    if (err == OK) {
        outcomes = arena_calloc(&req->arena, n + 1, sizeof(*outcomes));
        if (!outcomes)
            err = fault_set(&fault, ERR_NOMEM, "", "out of memory");
    }
    if (err == OK)
        err = engine_pairs_add(req->daemon->engine,
            request_param(req, "collection"), pairs, n, outcomes, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"pairs\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        codec_write_outcome(out, &outcomes[i],
            outcomes[i].status == ENGINE_CREATED ? 201 : 200, "index");
    }
    buf_printf(out, "],\"count\":%zu}", n);
}

void
ep_pairs_list(struct request *req)
{
    static const char *const names[] = {"cursor", "limit"};
    struct fault fault = {0};
    struct engine_pair_page page;
    int64_t limit = 0;
    enum err err = args_only(req, names, ARRAY_LEN(names), &fault);
    if (err == OK)
        err = args_int(req, "limit", 1, ENGINE_PAGE_MAX, &limit, &fault);
    if (err == OK)
        err = engine_pairs_list(req->daemon->engine,
            request_param(req, "collection"), request_query(req, "cursor"),
            (size_t)limit, &req->arena, &page, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"pairs\":[");
    for (size_t i = 0; i < page.n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        codec_write_pair(out, &page.pairs[i]);
    }
    buf_add_str(out, "],\"next_cursor\":");
    if (page.next_cursor)
        buf_json_cstr(out, page.next_cursor);
    else
        buf_add_str(out, "null");
    buf_add_char(out, '}');
}

void
ep_pair_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_pair_view pair;
    int64_t id = 0;
    enum err err = args_path_id(req, "pair", &id, &fault);
    if (err == OK)
        err = engine_pair_get(req->daemon->engine,
            request_param(req, "collection"), id, &req->arena, &pair, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_pair(reply_json(req, 200), &pair);
}

void
ep_pair_delete(struct request *req)
{
    struct fault fault = {0};
    int64_t id = 0;
    enum err err = args_path_id(req, "pair", &id, &fault);
    if (err == OK)
        err = engine_pair_delete(
            req->daemon->engine, request_param(req, "collection"), id, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        req->reply.status = 204;
}

void
ep_feedback(struct request *req)
{
    struct fault fault = {0};
    struct codec_feedback pick;
    struct engine_outcome outcome;
    enum err err = codec_read_feedback(
        req->body.data, req->body.len, &req->arena, &pick, &fault);
    if (err == OK)
        err = engine_feedback(req->daemon->engine,
            request_param(req, "collection"), pick.search_id, pick.item_id,
            pick.weight, &req->arena, &outcome, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    bool created = outcome.status == ENGINE_CREATED;
    struct buf *out = reply_json(req, created ? 201 : 200);
    buf_printf(out, "{\"pair\":%lld,\"outcome\":\"%s\",\"split\":",
        (long long)outcome.pair_id, created ? "created" : "updated");
    if (outcome.split)
        buf_json_cstr(out, outcome.split);
    else
        buf_add_str(out, "null");
    buf_add_char(out, '}');
}
