/* Collections and the names that point to them. */
#include "server/ep.h"
#include "engine/engine.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/problem.h"

void
ep_collections_list(struct request *req)
{
    struct fault fault = {0};
    struct engine_collection_info *list = NULL;
    size_t n = 0;
    if (engine_collections_list(
            req->daemon->engine, &req->arena, &list, &n, &fault) != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"collections\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        codec_write_collection(out, &list[i]);
    }
    buf_add_str(out, "]}");
}

void
ep_collection_put(struct request *req)
{
    struct fault fault = {0};
    const char *settings = NULL;
    const char *name = request_param(req, "collection");
    struct engine_collection_info info;
    bool created = false;
    enum err err = codec_read_object(
        req->body.data, req->body.len, &req->arena, &settings, &fault);
    if (err == OK)
        err = engine_collection_put(req->daemon->engine, name, settings,
            &created, &req->arena, &info, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    codec_write_collection(reply_json(req, created ? 201 : 200), &info);
    if (created)
        reply_header_f(req, "Location", "/v1/collections/%s", info.name);
}

void
ep_collection_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_collection_info info;
    enum err err = engine_collection_get(req->daemon->engine,
        request_param(req, "collection"), &req->arena, &info, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_collection(reply_json(req, 200), &info);
}

void
ep_collection_patch(struct request *req)
{
    struct fault fault = {0};
    const char *patch = NULL;
    struct engine_collection_info info;
    enum err err = codec_read_object(
        req->body.data, req->body.len, &req->arena, &patch, &fault);
    if (err == OK)
        err = engine_collection_patch(req->daemon->engine,
            request_param(req, "collection"), patch, &req->arena, &info,
            &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_collection(reply_json(req, 200), &info);
}

void
ep_collection_delete(struct request *req)
{
    struct fault fault = {0};
    enum err err = engine_collection_delete(
        req->daemon->engine, request_param(req, "collection"), &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        req->reply.status = 204;
}

/* ---- aliases ------------------------------------------------------------- */

static void
write_alias(struct buf *out, const char *alias, const char *collection)
{
    buf_add_str(out, "{\"alias\":");
    buf_json_cstr(out, alias);
    buf_add_str(out, ",\"collection\":");
    buf_json_cstr(out, collection);
    buf_add_char(out, '}');
}

void
ep_aliases_list(struct request *req)
{
    struct fault fault = {0};
    struct engine_alias *list = NULL;
    size_t n = 0;
    if (engine_aliases_list(
            req->daemon->engine, &req->arena, &list, &n, &fault) != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"aliases\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        write_alias(out, list[i].alias, list[i].collection);
    }
    buf_add_str(out, "]}");
}

void
ep_alias_put(struct request *req)
{
    struct fault fault = {0};
    const char *collection = NULL;
    const char *alias = request_param(req, "alias");
    bool created = false;
    enum err err = codec_read_alias(
        req->body.data, req->body.len, &req->arena, &collection, &fault);
    if (err == OK)
        err = engine_alias_put(
            req->daemon->engine, alias, collection, &created, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        write_alias(reply_json(req, created ? 201 : 200), alias, collection);
}

void
ep_alias_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_alias alias;
    enum err err = engine_alias_get(req->daemon->engine,
        request_param(req, "alias"), &req->arena, &alias, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        write_alias(reply_json(req, 200), alias.alias, alias.collection);
}

void
ep_alias_delete(struct request *req)
{
    struct fault fault = {0};
    enum err err = engine_alias_delete(
        req->daemon->engine, request_param(req, "alias"), &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        req->reply.status = 204;
}
