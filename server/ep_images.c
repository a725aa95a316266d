/* Pictures: an item's, its views, and search by one. */
#include <string.h>
#include "server/ep.h"
#include "engine/engine.h"
#include "image/decode.h"
#include "server/args.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/media.h"
#include "server/problem.h"

#define VIEWS_DEFAULT 8

/* A picture of a kind that is not taken is a body of the wrong type here. */
static void
refuse(struct request *req, const struct fault *fault)
{
    if (fault->err == ERR_UNSUPPORTED && fault->pointer[0] != '\0')
        problem_reply_as(req, 415, fault);
    else
        problem_reply(req, fault);
}

/* The body as a picture; what Content-Type claims must be what the bytes are.
   Whether they are whole is the decoder's to say. */
static enum err
read_picture(
    struct request *req, struct engine_image *image, struct fault *fault)
{
    const char *claim = req->headers.content_type;
    enum image_format format = image_format_of(req->body.data, req->body.len);
    const char *type = image_format_type(format);
    if (req->body.len == 0)
        return fault_set(fault, ERR_INVALID, "/image",
            "the body is empty; it must be a picture's bytes");
    if (type && media_is(claim, "image/jpg"))
        claim = "image/jpeg";
    if (type && claim[0] != '\0' &&
        !media_is(claim, "application/octet-stream") && !media_is(claim, type))
        return fault_set(fault, ERR_UNSUPPORTED, "/image",
            "Content-Type says %.40s, but the bytes are %s", claim, type);
    image->bytes = req->body.data;
    image->n = req->body.len;
    return OK;
}

void
ep_image_put(struct request *req)
{
    static const char *const names[] = {"wait"};
    struct fault fault = {0};
    struct engine_image image = {0};
    struct engine_condition condition;
    struct engine_outcome outcome = {0};
    const char *id = request_param(req, "id");
    enum err err = args_only(req, names, ARRAY_LEN(names), &fault);
    if (err == OK)
        err = args_wait(req, &fault);
    if (err == OK)
        err = args_condition(req, &condition, &fault);
    if (err == OK)
        err = read_picture(req, &image, &fault);
    if (err == OK)
        err = engine_image_put(req->daemon->engine,
            request_param(req, "collection"), id, &image, &condition, &outcome,
            &fault);
    if (err != OK)
        refuse(req, &fault);
    else
        ep_written(req, &outcome, id);
}

void
ep_image_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_item_view item;
    struct engine_image_facts facts;
    int64_t version = 0;
    const char *collection = request_param(req, "collection");
    const char *id = request_param(req, "id");
    enum err err = args_only(req, NULL, 0, &fault);
    /* What is known of it first: unchanged bytes are not even read, and others
       only when there is room, as slow readers hold them. */
    if (err == OK)
        err = engine_item_get(req->daemon->engine, collection, id, false,
            &req->arena, &item, &fault);
    if (err == OK && item.image.type && item.image.kept) {
        if (args_not_modified(req, item.version)) {
            req->reply.status = 304;
            reply_header_f(req, "ETag", "\"%lld\"", (long long)item.version);
            return;
        }
        uint64_t most = (uint64_t)req->daemon->config.body_memory_bytes;
        if (!http_reserve(req, (size_t)MIN(item.image.n_bytes, most)))
            err = fault_set(&fault, ERR_BUSY, "",
                "the memory for bodies is used up; try again");
    }
    if (err == OK)
        err = engine_image_get(req->daemon->engine, collection, id, &facts,
            &version, &req->reply.body, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    req->reply.status = 200;
    req->reply.content_type = facts.type;
    reply_header_f(req, "ETag", "\"%lld\"", (long long)version);
}

void
ep_image_delete(struct request *req)
{
    static const char *const names[] = {"wait"};
    struct fault fault = {0};
    struct engine_condition condition;
    struct engine_outcome outcome = {0};
    const char *id = request_param(req, "id");
    enum err err = args_only(req, names, ARRAY_LEN(names), &fault);
    if (err == OK)
        err = args_wait(req, &fault);
    if (err == OK)
        err = args_condition(req, &condition, &fault);
    if (err == OK)
        err = engine_image_delete(req->daemon->engine,
            request_param(req, "collection"), id, &condition, &outcome, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        ep_written(req, &outcome, id);
}

/* ---- views --------------------------------------------------------------- */

/* The options of views that a query may hold; their ranges are the engine's. */
static const char *const view_names[] = {"crop_min", "crop_max", "ratio",
    "flip", "jitter", "brightness", "contrast", "saturation", "hue", "grey",
    "blur", "solarise", "rotate", "erase"};

/* As training's "views" object; NULL when none is given. */
static enum err
read_views(struct request *req, const char **json, struct fault *fault)
{
    struct buf text;
    bool any = false;
    enum err err = OK;
    buf_init(&text, 4096);
    buf_add_char(&text, '{');
    for (size_t i = 0; err == OK && i < ARRAY_LEN(view_names); i++) {
        double v = 0;
        if (!request_query(req, view_names[i]))
            continue;
        err = args_f64(req, view_names[i], -1e6, 1e6, &v, fault);
        buf_printf(&text, "%s\"%s\":", any ? "," : "", view_names[i]);
        buf_json_double(&text, v);
        any = true;
    }
    buf_add_char(&text, '}');
    if (err == OK && any) {
        *json = buf_status(&text) == OK
                    ? arena_strndup(&req->arena, text.data, text.len)
                    : NULL;
        if (!*json)
            err = fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    buf_release(&text);
    return err;
}

static enum err
check_view_names(struct request *req, struct fault *fault)
{
    const char *names[ARRAY_LEN(view_names) + 2];
    memcpy(names, view_names, sizeof(view_names));
    names[ARRAY_LEN(view_names)] = "n";
    names[ARRAY_LEN(view_names) + 1] = "seed";
    return args_only(req, names, ARRAY_LEN(names), fault);
}

void
ep_image_views(struct request *req)
{
    static const char prefix[] = "/views";
    struct fault fault = {0};
    const char *views = NULL;
    int64_t n = VIEWS_DEFAULT;
    int64_t seed = 1;
    enum err err = check_view_names(req, &fault);
    if (err == OK)
        err = args_int(req, "n", 1, ENGINE_VIEWS_MAX, &n, &fault);
    if (err == OK)
        err = args_int(req, "seed", 0, INT64_MAX, &seed, &fault);
    if (err == OK)
        err = read_views(req, &views, &fault);
    if (err == OK)
        err = engine_item_views(req->daemon->engine,
            request_param(req, "collection"), request_param(req, "id"),
            (size_t)n, views, (uint64_t)seed, &req->reply.body, &fault);
    if (err == OK) {
        req->reply.status = 200;
        req->reply.content_type = "image/png";
        return;
    }
    /* Here they are arguments, not members of an object. */
    size_t len = sizeof(prefix) - 1;
    if (strncmp(fault.pointer, prefix, len) == 0 && fault.pointer[len] == '/')
        memmove(fault.pointer, fault.pointer + len,
            strlen(fault.pointer + len) + 1);
    problem_reply(req, &fault);
}

/* ---- search -------------------------------------------------------------- */

/* "text,metadata" as the query's "with". */
static enum err
read_with(struct request *req, struct engine_query *query, struct fault *fault)
{
    const char *s = request_query(req, "with");
    while (s && *s) {
        size_t len = strcspn(s, ",");
        if (len == 4 && memcmp(s, "text", len) == 0)
            query->with_text = true;
        else if (len == 8 && memcmp(s, "metadata", len) == 0)
            query->with_metadata = true;
        else if (len == 6 && memcmp(s, "vector", len) == 0)
            query->with_vector = true;
        else
            return fault_set(fault, ERR_INVALID, "/with",
                "\"%.*s\" is none of text, metadata, vector",
                (int)MIN(len, (size_t)40), s);
        s += len + (s[len] == ',');
    }
    return OK;
}

static enum err
read_query(struct request *req, struct engine_query *query, struct fault *fault)
{
    static const char *const names[] = {"k", "filter", "with", "min_cosine",
        "min_probability", "exact", "explain"};
    enum err err = args_only(req, names, ARRAY_LEN(names), fault);
    if (err == OK)
        err = args_int(req, "k", 1, ENGINE_K_MAX, &query->k, fault);
    if (err == OK)
        err = args_f64(req, "min_cosine", -1, 1, &query->min_cosine, fault);
    if (err == OK)
        err = args_f64(
            req, "min_probability", 0, 1, &query->min_probability, fault);
    if (err == OK)
        err = args_bool(req, "exact", &query->exact, fault);
    if (err == OK)
        err = args_bool(req, "explain", &query->explain, fault);
    if (err == OK)
        err = read_with(req, query, fault);
    query->filter_json = request_query(req, "filter");
    return err;
}

void
ep_search_image(struct request *req)
{
    struct fault fault = {0};
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    struct engine_answer answer;
    enum err err = read_query(req, &query, &fault);
    if (err == OK)
        err = read_picture(req, &query.image, &fault);
    if (err == OK)
        err =
            engine_search(req->daemon->engine, request_param(req, "collection"),
                &query, &req->arena, &answer, &fault);
    if (err != OK)
        refuse(req, &fault);
    else
        codec_write_answer(reply_json(req, 200), &answer, &query);
}
