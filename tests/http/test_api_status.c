/*
 * Goal: every status that openapi.json documents for an endpoint is given by
 *   it, and the document and the daemon name the same endpoints.
 * Method: calls are made in the order of a collection's life (tables and a few
 *   hand-written steps); those that every endpoint shares (unknown collection,
 *   malformed body, wrong Content-Type, body over the limit, keys) are made
 *   from the document itself. The kit remembers what was seen; at the end
 *   every documented (endpoint, status) must have been seen, but those that
 *   need a fault of the machine, which are listed here with the reason.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/http_kit.h"
#include "tests/support/image_kit.h"

#define D "/v1/collections/docs"
#define A "/v1/admin/collections/docs"
#define TAR "application/x-tar"

static json_t *openapi;
static struct kit_daemon open_daemon;  /* no keys */
static struct kit_daemon keyed_daemon; /* three keys, small limits */

#define KEY_READ "read-key-0123456789"
#define KEY_WRITE "write-key-0123456789"
#define KEY_ADMIN "admin-key-0123456789"

/* ---- helping --------------------------------------------------------------
 */

static const char *const methods[] = {"get", "put", "post", "patch", "delete"};

typedef void each_fn(const char *method, const char *path, json_t *operation);

static void
for_each_operation(each_fn *fn)
{
    const char *path;
    json_t *item;
    json_object_foreach(json_object_get(openapi, "paths"), path,
        item) for (size_t m = 0; m < 5; m++)
    {
        json_t *operation = json_object_get(item, methods[m]);
        if (operation)
            fn(methods[m], path, operation);
    }
}

/* "/v1/collections/{collection}/items/{id}" with values put in. */
static void
fill_path(char out[512], const char *pattern, const char *collection)
{
    size_t n = 0;
    while (*pattern && n < 500) {
        if (*pattern == '{') {
            const char *value =
                strncmp(pattern, "{collection}", 12) == 0 ? collection : "1";
            n += (size_t)snprintf(out + n, 512 - n, "%s", value);
            pattern += strcspn(pattern, "}") + 1;
        } else {
            out[n++] = *pattern++;
        }
    }
    out[n] = '\0';
}

static const char *
upper(const char *method)
{
    static char text[8];
    size_t i = 0;
    for (; method[i] && i < 7; i++)
        text[i] = (char)(method[i] - 'a' + 'A');
    text[i] = '\0';
    return text;
}

static struct buf png; /* a picture */

/* png.data as the body is sent whole. */
static long
call_status(struct kit_daemon *daemon, const char *method, const char *path,
    const char *type, const char *body, const char *header)
{
    const struct kit_call call = {.method = method,
        .path = path,
        .type = type,
        .body = body,
        .body_len = body && body == png.data ? png.len : 0,
        .headers = {header}};
    struct kit_reply reply = kit_do(daemon, &call);
    long status = reply.status;
    kit_reply_free(&reply);
    return status;
}

static bool
documents(json_t *operation, const char *status)
{
    return json_object_get(json_object_get(operation, "responses"), status) !=
           NULL;
}

/* The type that a body of this operation has: JSON if it takes it. */
static const char *
body_type(json_t *operation)
{
    json_t *content =
        json_object_get(json_object_get(operation, "requestBody"), "content");
    if (!content)
        return NULL;
    return json_object_get(content, "application/json") ? "application/json"
           : json_object_get(content, "image/png")      ? "image/png"
           : json_object_get(content, TAR)              ? TAR
                                           : "application/x-ndjson";
}

static bool
is_picture(json_t *operation)
{
    const char *type = body_type(operation);
    return type && strcmp(type, "image/png") == 0;
}

static bool
is_tar(json_t *operation)
{
    const char *type = body_type(operation);
    return type && strcmp(type, TAR) == 0;
}

static bool
is_lines(json_t *operation)
{
    const char *type = body_type(operation);
    return type && strcmp(type, "application/x-ndjson") == 0;
}

/* ---- what endpoints share --------------------------------------------------
 */

/* A path that is malformed, a body that is, one of another type, one over the
   limit (of the keyed daemon, which is small). */
static void
probe_shared(const char *method, const char *path, json_t *operation)
{
    char filled[512];
    char broken[600];
    static char big[9000];
    fill_path(filled, path, "nope");
    const char *type = body_type(operation);
    const char *m = upper(method);
    if (type && documents(operation, "415")) {
        long status =
            call_status(&open_daemon, m, filled, "text/plain", "x", NULL);
        if (status != 415)
            print_error("%s %s: %ld\n", m, path, status);
        assert_int_equal(status, 415);
    }
    bool tree = type && !is_lines(operation) && !is_picture(operation) &&
                !is_tar(operation);
    if (documents(operation, "400") && tree)
        assert_int_equal(
            call_status(&open_daemon, m, filled, type, "[{\"a\":", NULL), 400);
    if (documents(operation, "400") && !tree) {
        (void)snprintf(broken, sizeof(broken), "%s?a=%%zz", filled);
        assert_int_equal(call_status(&open_daemon, m, broken, type,
                             type ? "{}" : NULL, NULL),
            400);
    }
    if (type && documents(operation, "413")) {
        memset(big, 'a', sizeof(big) - 1);
        if (!is_lines(operation))
            assert_int_equal(call_status(&keyed_daemon, m, filled, type, big,
                                 "Authorization: Bearer " KEY_ADMIN),
                413);
    }
    if (documents(operation, "404") && strstr(path, "{collection}")) {
        const char *body = NULL;
        if (type)
            body = is_picture(operation) ? png.data
                   : strcmp(m, "POST") == 0 && strstr(path, "/items") &&
                           !strstr(path, "delete")
                       ? "[{\"id\":\"a\",\"text\":\"b\"}]"
                   : strstr(path, "/pairs")
                       ? "[{\"anchor\":{\"text\":\"a\"},\"positive\":"
                         "{\"text\":\"b\"}}]"
                   : strstr(path, "/batch") ? "{\"queries\":[{\"text\":\"a\"}]}"
                   : strstr(path, "/search") ? "{\"text\":\"a\"}"
                   : strstr(path, "/feedback")
                       ? "{\"search_id\":\"a\",\"item_id\":\"b\"}"
                   : strstr(path, "/delete") ? "{\"ids\":[\"a\"]}"
                   : strcmp(m, "PATCH") == 0 && strstr(path, "/items")
                       ? "{\"metadata\":{}}"
                       : "{}";
        long status = call_status(&open_daemon, m, filled, type, body, NULL);
        if (status != 404)
            print_error("%s %s: %ld\n", m, path, status);
        assert_int_equal(status, 404);
    }
}

static void
test_shared(void **state)
{
    (void)state;
    for_each_operation(probe_shared);
}

/* Every endpoint with every key: the matrix. */
static void
probe_keys(const char *method, const char *path, json_t *operation)
{
    static const char *const headers[] = {NULL,
        "Authorization: Bearer " KEY_READ, "Authorization: Bearer " KEY_WRITE,
        "Authorization: Bearer " KEY_ADMIN,
        "Authorization: Bearer wrong-key-0123456789"};
    static const char *const scopes[] = {"none", "read", "write", "admin"};
    const char *scope =
        json_string_value(json_object_get(operation, "x-scope"));
    char filled[512];
    int needed = 0;
    fill_path(filled, path, "nope");
    while (strcmp(scopes[needed], scope) != 0)
        needed++;
    for (int held = 0; held < 4; held++) {
        long status = call_status(&keyed_daemon, upper(method), filled,
            body_type(operation), body_type(operation) ? "{" : NULL,
            headers[held]);
        long want = needed == 0 ? 0 : held == 0 ? 401 : held < needed ? 403 : 0;
        if (want ? status != want : status == 401 || status == 403)
            print_error("%s %s with key %d: %ld\n", method, path, held, status);
        if (want)
            assert_int_equal(status, want);
        else
            assert_true(status != 401 && status != 403);
    }
}

static void
test_keys(void **state)
{
    (void)state;
    for_each_operation(probe_keys);
}

/* Then guesses, until the limit: after that every endpoint says 429. */
static void
probe_limit(const char *method, const char *path, json_t *operation)
{
    char filled[512];
    fill_path(filled, path, "nope");
    if (documents(operation, "429"))
        assert_int_equal(call_status(&keyed_daemon, upper(method), filled, NULL,
                             NULL, "Authorization: Bearer wrong-key-9999"),
            429);
}

static void
test_guesses(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(call_status(&keyed_daemon, "GET", "/v1/info", NULL,
                             NULL, "Authorization: Bearer wrong-key-0123"),
            401);
    for_each_operation(probe_limit);
    /* A right key from there is not looked at either; what needs none goes. */
    assert_int_equal(call_status(&keyed_daemon, "GET", "/v1/info", NULL, NULL,
                         "Authorization: Bearer " KEY_READ),
        429);
    assert_int_equal(
        call_status(&keyed_daemon, "GET", "/healthz", NULL, NULL, NULL), 200);
}

/* ---- a collection's life ---------------------------------------------------
 */

#define PUT(p, b)                                                              \
    {                                                                          \
        .method = "PUT", .path = (p), .body = (b)                              \
    }
#define POST(p, b)                                                             \
    {                                                                          \
        .method = "POST", .path = (p), .body = (b)                             \
    }
#define PATCH(p, b)                                                            \
    {                                                                          \
        .method = "PATCH", .path = (p), .body = (b)                            \
    }
#define DELETE(p)                                                              \
    {                                                                          \
        .method = "DELETE", .path = (p)                                        \
    }
#define GET(p)                                                                 \
    {                                                                          \
        .path = (p)                                                            \
    }
#define LINES(p, b)                                                            \
    {                                                                          \
        .method = "POST", .path = (p), .body = (b),                            \
        .type = "application/x-ndjson"                                         \
    }

static const struct kit_case life[] = {
    {"root", GET("/"), 200, NULL, "kindred"},
    {"healthz", GET("/healthz"), 200, NULL, "ok"},
    {"livez", GET("/livez"), 200, NULL, "ok"},
    {"readyz", GET("/readyz"), 200, NULL, "ok"},
    {"metrics", GET("/metrics"), 200, NULL, "kindred_resident_bytes"},
    {"info", GET("/v1/info"), 200, NULL, "\"kernels\""},
    {"encoders", GET("/v1/encoders"), 200, NULL, "static"},
    {"no encoder", GET("/v1/encoders/nope"), 404, NULL, "nope"},
    {"delete no encoder", DELETE("/v1/admin/encoders/nope"), 404, NULL, "nope"},
    {"import nonsense",
        {.method = "PUT",
            .path = "/v1/admin/encoders/nope",
            .body = "x",
            .type = TAR},
        422, NULL, "tar"},
    {"make", PUT(D, "{}"), 201, NULL, "\"generation\":1"},
    {"make again", PUT(D, "{}"), 200, NULL, NULL},
    {"make without body", {.method = "PUT", .path = D}, 200, NULL, NULL},
    {"other settings", PUT(D, "{\"dims\":64}"), 409, NULL, NULL},
    {"bad settings", PUT("/v1/collections/x", "{\"a\":1}"), 422, "/a", NULL},
    {"list", GET("/v1/collections"), 200, NULL, "\"docs\""},
    {"get", GET(D), 200, NULL, "\"items\":0"},
    {"patch", PATCH(D, "{\"description\":\"x\"}"), 200, NULL, "\"x\""},
    {"patch what is fixed", PATCH(D, "{\"dims\":64}"), 409, NULL, NULL},
    {"patch nonsense", PATCH(D, "{\"colour\":64}"), 422, "/colour", NULL},

    {"alias", PUT("/v1/aliases/cur", "{\"collection\":\"docs\"}"), 201, NULL,
        NULL},
    {"alias again", PUT("/v1/aliases/cur", "{\"collection\":\"docs\"}"), 200,
        NULL, NULL},
    {"alias of nothing", PUT("/v1/aliases/no", "{\"collection\":\"nope\"}"),
        404, NULL, NULL},
    {"alias of wrong type", PUT("/v1/aliases/no", "{\"collection\":1}"), 422,
        "/collection", NULL},
    {"alias named as a collection",
        PUT("/v1/aliases/docs", "{\"collection\":\"docs\"}"), 409, NULL, NULL},
    {"aliases", GET("/v1/aliases"), 200, NULL, "\"cur\""},
    {"get alias", GET("/v1/aliases/cur"), 200, NULL, "\"docs\""},
    {"get no alias", GET("/v1/aliases/nope"), 404, NULL, NULL},
    {"by alias", GET("/v1/collections/cur"), 200, NULL, "\"docs\""},
    {"delete alias", DELETE("/v1/aliases/cur"), 204, NULL, NULL},
    {"delete no alias", DELETE("/v1/aliases/cur"), 404, NULL, NULL},

    {"put item", PUT(D "/items/a", "{\"text\":\"a small web server\"}"), 201,
        NULL, "created"},
    {"put item again", PUT(D "/items/a", "{\"text\":\"a small web server\"}"),
        200, NULL, "unchanged"},
    {"put another text", PUT(D "/items/a", "{\"text\":\"a web server\"}"), 200,
        NULL, "updated"},
    {"put if absent",
        {.method = "PUT",
            .path = D "/items/a",
            .body = "{\"text\":\"x\"}",
            .headers = {"If-None-Match: *"}},
        412, NULL, NULL},
    {"put if version 9999",
        {.method = "PUT",
            .path = D "/items/a",
            .body = "{\"text\":\"x\"}",
            .headers = {"If-Match: \"9999\""}},
        412, NULL, NULL},
    {"put nonsense", PUT(D "/items/a", "{\"text\":1}"), 422, "/text", NULL},
    {"put a vector of another dimension",
        PUT("/v1/collections/ext/items/a", "{\"text\":\"a\",\"vector\":[1]}"),
        409, "/vector", NULL},
    {"put with %2F and +", PUT(D "/items/g%2B%2B%2Fx+y", "{\"text\":\"g\"}"),
        201, NULL, "g++/x+y"},
    {"get it", GET(D "/items/g%2b%2b%2fx%2By"), 200, NULL, "g++/x+y"},
    {"get item", GET(D "/items/a?vector=true"), 200, NULL, "\"vector\":["},
    {"get no item", GET(D "/items/b"), 404, NULL, NULL},
    {"get with nonsense", GET(D "/items/a?vector=2"), 422, "/vector", NULL},
    {"get if changed", {.path = D "/items/a", .headers = {"If-None-Match: *"}},
        304, NULL, NULL},
    {"patch item", PATCH(D "/items/a", "{\"metadata\":{\"lang\":\"en\"}}"), 200,
        NULL, "updated"},
    {"patch no item", PATCH(D "/items/b", "{\"metadata\":{}}"), 404, NULL,
        NULL},
    {"patch text", PATCH(D "/items/a", "{\"text\":\"b\"}"), 422, "/text", NULL},
    {"patch if version 9999",
        {.method = "PATCH",
            .path = D "/items/a",
            .body = "{\"metadata\":{}}",
            .headers = {"If-Match: \"9999\""}},
        412, NULL, NULL},
    {"array",
        POST(D "/items", "[{\"id\":\"b\",\"text\":\"a C compiler\"},"
                         "{\"id\":\"c\",\"text\":\"a mail client\"}]"),
        200, NULL, "\"count\":2"},
    {"bad array", POST(D "/items", "[{\"id\":\"b\"},{\"id\":5}]"), 422, "/1/id",
        NULL},
    {"NDJSON", LINES(D "/items", "{\"id\":\"d\",\"text\":\"an editor\"}\n{x\n"),
        200, NULL, "{\"lines\":2,\"refused\":1,\"errors\":true}"},
    {"list items", GET(D "/items?limit=2"), 200, NULL, "next_cursor"},
    {"list filtered", GET(D "/items?filter=%7B%22lang%22%3A%22en%22%7D"), 200,
        NULL, "\"id\":\"a\""},
    {"list nonsense", GET(D "/items?limit=x"), 422, "/limit", NULL},

    {"search", POST(D "/search", "{\"text\":\"web server\",\"k\":2}"), 200,
        NULL, "\"hits\":[{\"id\":\"a\""},
    {"search by id", POST(D "/search", "{\"id\":\"a\"}"), 200, NULL, NULL},
    {"search by examples",
        POST(D "/search", "{\"examples\":{\"positive\":[\"a\"],"
                          "\"negative\":[\"c\"]}}"),
        200, NULL, NULL},
    {"search with all",
        POST(D "/search", "{\"text\":\"web\",\"with\":[\"text\",\"metadata\","
                          "\"vector\"],\"explain\":true,\"exact\":true,"
                          "\"min_cosine\":-1,\"filter\":{\"lang\":\"en\"}}"),
        200, NULL, "\"explain\":{"},
    {"search nonsense", POST(D "/search", "{\"text\":\"a\",\"k\":0}"), 422,
        "/k", NULL},
    {"search hybrid", POST(D "/search", "{\"text\":\"a\",\"hybrid\":{}}"), 501,
        "/hybrid", NULL},
    {"search in another dimension",
        POST("/v1/collections/ext/search", "{\"vector\":[1,2]}"), 409, NULL,
        NULL},
    {"batch",
        POST(D "/search/batch",
            "{\"queries\":[{\"text\":\"web server\"},{\"id\":\"nope\"}]}"),
        200, NULL, "\"status\":404"},
    {"bad batch", POST(D "/search/batch", "{\"queries\":1}"), 422, "/queries",
        NULL},

    {"pairs",
        POST(D "/pairs",
            "[{\"anchor\":{\"text\":\"httpd\"},\"positive\":{\"id\":\"a\"},"
            "\"negatives\":[{\"id\":\"b\"}],\"group\":\"g\",\"weight\":2}]"),
        200, NULL, "\"split\":"},
    {"pairs by lines",
        LINES(D "/pairs", "{\"anchor\":{\"text\":\"gcc\"},\"positive\":"
                          "{\"id\":\"b\"}}\n"),
        200, NULL, "\"lines\":1"},
    {"bad pairs", POST(D "/pairs", "[{\"anchor\":{}}]"), 422, "/0/anchor",
        NULL},
    {"list pairs", GET(D "/pairs?limit=1"), 200, NULL, "\"pair\":1"},
    {"list pairs nonsense", GET(D "/pairs?limit=x"), 422, "/limit", NULL},
    {"get pair", GET(D "/pairs/1"), 200, NULL, "httpd"},
    {"get no pair", GET(D "/pairs/77"), 404, NULL, NULL},
    {"feedback on nothing",
        POST(D "/feedback", "{\"search_id\":\"x\",\"item_id\":\"a\"}"), 404,
        NULL, NULL},
    {"feedback nonsense", POST(D "/feedback", "{\"search_id\":1}"), 422,
        "/search_id", NULL},

    {"embeddings",
        POST("/v1/embeddings",
            "{\"model\":\"docs\",\"input\":[\"a\",\"b\"],\"dimensions\":8,"
            "\"encoding_format\":\"base64\",\"user\":\"me\"}"),
        200, NULL, "\"usage\":{\"prompt_tokens\":2,"},
    {"embeddings of no model",
        POST("/v1/embeddings", "{\"model\":\"nope\",\"input\":\"a\"}"), 404,
        NULL, "model_not_found"},
    {"embeddings nonsense",
        POST("/v1/embeddings", "{\"model\":\"docs\",\"input\":5}"), 422, NULL,
        "\"param\":\"input\""},
    {"tokenize",
        POST("/v1/tokenize", "{\"inputs\":\"Web Server\",\"model\":\"docs\"}"),
        200, NULL, "\"text\":\"web\""},
    {"tokenize with no model",
        POST("/v1/tokenize", "{\"inputs\":\"a\",\"model\":\"nope\"}"), 404,
        NULL, NULL},
    {"tokenize nonsense", POST("/v1/tokenize", "{\"inputs\":5}"), 422,
        "/inputs", NULL},
    {"similarity",
        POST("/v1/similarity", "{\"inputs\":{\"source_sentence\":\"web\","
                               "\"sentences\":[\"web\",\"mail\"]}}"),
        200, NULL, NULL},
    {"similarity with no model",
        POST("/v1/similarity",
            "{\"model\":\"nope\",\"inputs\":{\"source_sentence\":\"web\","
            "\"sentences\":[\"web\"]}}"),
        404, NULL, NULL},
    {"similarity nonsense", POST("/v1/similarity", "{\"inputs\":5}"), 422,
        "/inputs", NULL},

    {"generations", GET(D "/generations"), 200, NULL, "\"live\""},
    {"generation", GET(D "/generations/1"), 200, NULL, "\"live\""},
    {"no generation", GET(D "/generations/9"), 404, NULL, NULL},
    {"weights", GET(D "/generations/1/weights"), 200, NULL, NULL},
    {"no folder of it", GET(D "/generations/9/folder"), 404, NULL, NULL},
    {"too few pairs", POST(A "/train", "{}"), 422, NULL, "200"},
    {"promote the live one", POST(A "/generations/1/promote", "{}"), 200, NULL,
        "\"generation\":1"},
    {"promote nonsense", POST(A "/generations/1/promote", "[]"), 422, NULL,
        NULL},
    {"roll back nothing", POST(A "/rollback", "{}"), 409, NULL, NULL},
    {"roll back nonsense", POST(A "/rollback", "[]"), 422, NULL, NULL},
    {"export", GET(A "/export?vectors=true"), 200, NULL, "kindred_export"},
    {"export nonsense", GET(A "/export?vectors=7"), 422, "/vectors", NULL},
    {"import nonsense", LINES(A "/import?outcomes=some", "{}\n"), 422, NULL,
        NULL},
    {"import", LINES(A "/import", "{\"item\":{\"id\":\"i\",\"text\":\"x\"}}\n"),
        200, NULL, "\"lines\":"},

    {"jobs", GET("/v1/jobs"), 200, NULL, "\"jobs\":["},
    {"jobs nonsense", GET("/v1/jobs?limit=0"), 422, "/limit", NULL},
    {"no job", GET("/v1/jobs/999"), 404, NULL, NULL},
    {"cancel no job", DELETE("/v1/jobs/999"), 404, NULL, NULL},
    {"events of no job", GET("/v1/jobs/999/events"), 404, NULL, NULL},
    {"backups", GET("/v1/admin/backups"), 200, NULL, "\"backups\":["},
    {"no backup", GET("/v1/admin/backups/nope"), 404, NULL, NULL},
    {"backup nonsense", POST("/v1/admin/backup", "{\"a\":1}"), 422, NULL, NULL},

    {"delete by ids", POST(D "/items/delete", "{\"ids\":[\"d\",\"z\"]}"), 200,
        NULL, "{\"deleted\":1,\"missing\":1}"},
    {"delete by both", POST(D "/items/delete", "{\"ids\":[],\"filter\":{}}"),
        422, NULL, NULL},
    {"delete pair", DELETE(D "/pairs/2"), 204, NULL, NULL},
    {"delete it again", DELETE(D "/pairs/2"), 404, NULL, NULL},
    {"delete if version 9999",
        {.method = "DELETE",
            .path = D "/items/a",
            .headers = {"If-Match: \"9999\""}},
        412, NULL, NULL},
    {"delete with nonsense", DELETE(D "/items/a?wait=x"), 422, "/wait", NULL},
    {"delete item", DELETE(D "/items/c"), 204, NULL, NULL},
    {"delete no item", DELETE(D "/items/c"), 404, NULL, NULL},
};

/* ---- steps that need an answer of the step before --------------------------
 */

static void
test_feedback(void **state)
{
    (void)state;
    struct kit_reply reply = kit_send(
        &open_daemon, "POST", D "/search", "{\"text\":\"c compiler\"}");
    const char *id = json_string_value(kit_at(reply.json, "/search_id"));
    char body[128];
    assert_non_null(id);
    (void)snprintf(
        body, sizeof(body), "{\"search_id\":\"%s\",\"item_id\":\"b\"}", id);
    kit_reply_free(&reply);
    reply = kit_send(&open_daemon, "POST", D "/feedback", body);
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    reply = kit_send(&open_daemon, "POST", D "/feedback", body);
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
}

static void
test_backup(void **state)
{
    (void)state;
    struct kit_reply reply =
        kit_send(&open_daemon, "POST", "/v1/admin/backup", "{}");
    assert_int_equal(reply.status, 202);
    long long job = json_integer_value(kit_at(reply.json, "/id"));
    kit_reply_free(&reply);
    assert_string_equal(kit_wait_job(&open_daemon, job, 60), "done");
    char path[160];
    (void)snprintf(path, sizeof(path), "/v1/jobs/%lld", job);
    reply = kit_get(&open_daemon, path);
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_send(&open_daemon, "DELETE", path, NULL);
    assert_int_equal(reply.status, 409);
    kit_reply_free(&reply);
    (void)snprintf(path, sizeof(path), "/v1/jobs/%lld/events", job);
    reply = kit_get(&open_daemon, path);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body, "event: end"));
    kit_reply_free(&reply);
    const struct kit_call wrong = {
        .path = path, .headers = {"Last-Event-ID: x"}};
    reply = kit_do(&open_daemon, &wrong);
    assert_int_equal(reply.status, 422);
    kit_reply_free(&reply);
    reply = kit_get(&open_daemon, "/v1/admin/backups");
    const char *name = json_string_value(kit_at(reply.json, "/backups/0/name"));
    assert_non_null(name);
    (void)snprintf(path, sizeof(path), "/v1/admin/backups/%s", name);
    kit_reply_free(&reply);
    reply = kit_get(&open_daemon, path);
    assert_int_equal(reply.status, 200);
    assert_true(reply.len > 4096);
    assert_memory_equal(reply.body, "SQLite format 3", 15);
    kit_reply_free(&reply);
}

#define PHOTOS "/v1/collections/photos"
#define IMAGE PHOTOS "/items/p/image"
#define VIEWS PHOTOS "/items/p/views"

static void
test_pictures(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        const char *path;
        const char *type; /* of a picture as the body */
        const char *header;
        long status;
    } calls[] = {
        {"PUT", IMAGE, "image/png", NULL, 201},
        {"PUT", IMAGE, "application/octet-stream", NULL, 200},
        {"PUT", IMAGE, "image/jpeg", NULL, 415},
        {"PUT", IMAGE, "image/png", "If-None-Match: *", 412},
        {"PUT", IMAGE "?wait=x", "image/png", NULL, 422},
        {"GET", IMAGE, NULL, NULL, 200},
        {"HEAD", IMAGE, NULL, NULL, 200},
        {"GET", IMAGE, NULL, "If-None-Match: *", 304},
        {"GET", IMAGE "?n=1", NULL, NULL, 422},
        {"GET", VIEWS, NULL, NULL, 200},
        {"GET", VIEWS "?n=0", NULL, NULL, 422},
        {"GET", D "/items/a/views", NULL, NULL, 409},
        {"PUT", "/v1/collections/ext/items/x/image", "image/png", NULL, 409},
        {"GET", PHOTOS "/items/q/views", NULL, NULL, 404},
        {"GET", PHOTOS "/generations/1/folder", NULL, NULL, 409},
        {"POST", PHOTOS "/search/image", "image/png", NULL, 200},
        {"POST", PHOTOS "/search/image?k=0", "image/png", NULL, 422},
        {"DELETE", IMAGE, NULL, "If-Match: \"9999\"", 412},
        {"DELETE", IMAGE "?wait=x", NULL, NULL, 422},
        {"DELETE", IMAGE, NULL, NULL, 200},
        {"DELETE", IMAGE, NULL, NULL, 404},
        {"GET", IMAGE, NULL, NULL, 404},
    };
    assert_int_equal(
        call_status(&open_daemon, "PUT", PHOTOS, NULL,
            "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28}}", NULL),
        201);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        long status = call_status(&open_daemon, calls[i].method, calls[i].path,
            calls[i].type, calls[i].type ? png.data : NULL, calls[i].header);
        if (status != calls[i].status)
            print_error("%s %s: %ld\n", calls[i].method, calls[i].path, status);
        assert_int_equal(status, calls[i].status);
    }
}

/* A body over the limit of a line-taking endpoint is refused by the line. */
static void
test_deletes_collection(void **state)
{
    (void)state;
    assert_int_equal(
        call_status(&open_daemon, "DELETE", D, NULL, NULL, NULL), 204);
    assert_int_equal(
        call_status(&open_daemon, "DELETE", D, NULL, NULL, NULL), 404);
}

/* ---- the end ---------------------------------------------------------------
 */

/* Statuses that no request alone can cause. */
static bool
needs_a_fault(const char *method, const char *path, long status)
{
    /* shared by all, and tested in test_api_shell.c: time-outs and load */
    if (status == 408 || status == 503 || status == 500)
        return true;
    /* an encoder that is there: test_api_encoders.c */
    if (strstr(path, "/encoders/{name}") && (status < 300 || status == 409))
        return true;
    if (strstr(path, "/folder") && status == 200)
        return true;
    /* a full disk: the store's own tests */
    if (status == 507)
        return true;
    /* a round or a switch that runs: test_api_learn.c */
    if (strstr(path, "/train") && (status == 202 || status == 409))
        return true;
    if (strstr(path, "/promote") && (status == 202 || status == 409))
        return true;
    if (strstr(path, "/rollback") && (status == 200 || status == 202))
        return true;
    if (strcmp(method, "delete") == 0 && strcmp(path, "/v1/jobs/{job}") == 0 &&
        status == 202)
        return true;
    if (strcmp(method, "delete") == 0 && status == 409 &&
        strcmp(path, "/v1/collections/{collection}") == 0)
        return true;
    /* NDJSON has no limit but the line's, which is an outcome */
    if (strstr(path, "/import") && status == 413)
        return true;
    /* only one backup at a time, and it is over at once here */
    return strstr(path, "/admin/backup") && status == 409;
}

static size_t n_missing;

static void
check_seen(const char *method, const char *path, json_t *operation)
{
    const char *status;
    json_t *response;
    json_object_foreach(
        json_object_get(operation, "responses"), status, response)
    {
        long code = strtol(status, NULL, 10);
        if (!needs_a_fault(method, path, code) &&
            !kit_saw(method, path, code)) {
            print_error("never seen: %s %s %s\n", method, path, status);
            n_missing++;
        }
    }
}

static void
test_all_seen(void **state)
{
    (void)state;
    for_each_operation(check_seen);
    assert_int_equal(n_missing, 0);
}

static void
start_all(void)
{
    struct image image;
    image_kit_paint(&image, 32, 32, 3, 1);
    buf_init(&png, 1u << 20);
    image_kit_png(&png, &image, NULL);
    image_release(&image);
    static const char *const keyed[] = {"--body-bytes-max", "4096",
        "--image-bytes-max", "4096", "--encoder-bytes-max", "4096",
        "--auth-failures-per-minute", "5", NULL};
    (void)setenv("KINDRED_KEY_READ", KEY_READ, 1);
    (void)setenv("KINDRED_KEY_WRITE", KEY_WRITE, 1);
    (void)setenv("KINDRED_KEY_ADMIN", KEY_ADMIN, 1);
    bool fine = kit_start(&keyed_daemon, keyed);
    (void)unsetenv("KINDRED_KEY_READ");
    (void)unsetenv("KINDRED_KEY_WRITE");
    (void)unsetenv("KINDRED_KEY_ADMIN");
    fine = kit_start(&open_daemon, NULL) && fine;
    struct kit_reply reply = {0};
    if (fine) {
        reply = kit_get(&open_daemon, "/openapi.json");
        openapi = json_incref(reply.json);
        kit_reply_free(&reply);
        reply = kit_send(&open_daemon, "PUT", "/v1/collections/ext",
            "{\"encoder\":\"external\",\"dims\":8}");
        kit_reply_free(&reply);
    }
    if (!fine || !openapi) {
        (void)fprintf(stderr, "a daemon did not start: %s\n", open_daemon.log);
        exit(1);
    }
}

int
main(void)
{
    start_all();
    kit_table_daemon = &open_daemon;
    const struct CMUnitTest before[] = {
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_guesses),
    };
    const struct CMUnitTest after[] = {
        cmocka_unit_test(test_feedback),
        cmocka_unit_test(test_backup),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_deletes_collection),
        cmocka_unit_test(test_all_seen),
    };
    int failed = cmocka_run_group_tests_name("shared", before, NULL, NULL);
    failed += kit_run_cases("life", life, sizeof(life) / sizeof(life[0]));
    failed += cmocka_run_group_tests_name("after it", after, NULL, NULL);
    failed += kit_stop(&open_daemon) != 0;
    failed += kit_stop(&keyed_daemon) != 0;
    kit_clean(&open_daemon);
    kit_clean(&keyed_daemon);
    json_decref(openapi);
    buf_release(&png);
    return failed != 0;
}
