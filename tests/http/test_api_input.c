/*
 * Goal: bad input gets a problem document that names the field, and stores
 *   nothing.
 * Method: a table of requests with the status and the JSON pointer they must
 *   get, against one daemon; after the table the collections must be as they
 *   were before it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/http_kit.h"

#define D "/v1/collections/docs"
#define X "/v1/collections/ext"
#define A "/v1/admin/collections/docs"
#define PUT(p, b)                                                              \
    {                                                                          \
        .method = "PUT", .path = (p), .body = (b)                              \
    }
#define POST(p, b)                                                             \
    {                                                                          \
        .method = "POST", .path = (p), .body = (b)                             \
    }
#define GET(p)                                                                 \
    {                                                                          \
        .path = (p)                                                            \
    }

static char big_text[10u << 20];         /* an item with a text of 10 MB */
static char long_text[(1u << 20) + 200]; /* one over the limit of a text */
static char long_id[700];
static char deep[300];
static char bomb[300000];

static const struct kit_case cases[] = {
    /* malformed JSON and wrong types */
    {"malformed JSON", PUT(D "/items/a", "{\"text\": "), 400, NULL, NULL},
    {"not an object", PUT(D "/items/a", "[1]"), 422, NULL, NULL},
    {"a bare word", PUT(D "/items/a", "text"), 400, NULL, NULL},
    {"something after it", PUT(D "/items/a", "{\"text\":\"x\"} x"), 400, NULL,
        NULL},
    {"empty body", PUT(D "/items/a", ""), 400, NULL, "empty"},
    {"a key twice", PUT(D "/items/a", "{\"text\":\"x\",\"text\":\"y\"}"), 422,
        NULL, NULL},
    {"text of wrong type", PUT(D "/items/a", "{\"text\": 5}"), 422, "/text",
        NULL},
    {"title null", PUT(D "/items/a", "{\"title\": null}"), 422, "/title", NULL},
    {"metadata array", PUT(D "/items/a", "{\"text\":\"x\",\"metadata\":[]}"),
        422, "/metadata", NULL},
    {"unknown field", PUT(D "/items/a", "{\"text\":\"x\",\"txet\":\"y\"}"), 422,
        "/txet", NULL},
    {"unknown field in an array",
        POST(D "/items", "[{\"id\":\"a\",\"text\":\"x\"},"
                         "{\"id\":\"b\",\"text\":\"x\",\"z\":1}]"),
        422, "/1/z", NULL},
    {"array not closed", POST(D "/items", "[{\"id\":\"a\"}"), 400, NULL, NULL},
    {"no array", POST(D "/items", "{\"id\":\"a\"}"), 422, NULL, "array"},
    {"id missing", POST(D "/items", "[{\"text\":\"x\"}]"), 422, "/0/id", NULL},
    {"id is a number", POST(D "/items", "[{\"id\":1,\"text\":\"x\"}]"), 422,
        "/0/id", NULL},
    {"another id in the body",
        PUT(D "/items/a", "{\"id\":\"b\",\"text\":\"x\"}"), 422, "/id", NULL},
    {"an image that is none", PUT(D "/items/a", "{\"image\":\"AAAA\"}"), 422,
        "/image", NULL},
    {"an image that is no base64", PUT(D "/items/a", "{\"image\":\"A-A=\"}"),
        422, "/image", "character 1"},
    {"NUL escaped", PUT(D "/items/a", "{\"text\":\"a\\u0000b\"}"), 400, NULL,
        NULL},
    {"lone surrogate", PUT(D "/items/a", "{\"text\":\"\\ud800\"}"), 400, NULL,
        NULL},
    {"invalid UTF-8", PUT(D "/items/a", "{\"text\":\"a\xff\"}"), 400, NULL,
        NULL},
    {"control character in an id",
        POST(D "/items", "[{\"id\":\"a\\nb\",\"text\":\"x\"}]"), 422, "/0/id",
        NULL},
    {"empty id", POST(D "/items", "[{\"id\":\"\",\"text\":\"x\"}]"), 422,
        "/0/id", NULL},
    {"id over 512 bytes", PUT(long_id, "{\"text\":\"x\"}"), 422, "/id", "512"},
    {"invalid UTF-8 in a path", PUT(D "/items/a%ff", "{\"text\":\"x\"}"), 422,
        "/id", NULL},
    {"broken escape in a path", GET(D "/items/a%2"), 400, NULL, NULL},
    {"NUL in a path", GET(D "/items/a%00b"), 400, NULL, NULL},
    {"broken escape in a query", GET(D "/items?cursor=%zz"), 400, NULL, NULL},
    {"argument twice", GET(D "/items?limit=1&limit=2"), 400, NULL, NULL},
    {"unknown argument", GET(D "/items?limits=1"), 422, NULL, "limits"},
    {"limit of 0", GET(D "/items?limit=0"), 422, "/limit", NULL},
    {"limit over 1000", GET(D "/items?limit=1001"), 422, "/limit", "1000"},
    {"limit that is none", GET(D "/items?limit=ten"), 422, "/limit", NULL},
    {"cursor that is none", GET(D "/items?cursor=zzz"), 422, "/cursor", NULL},
    {"filter that is no JSON", GET(D "/items?filter=%7B"), 400, "/filter",
        NULL},
    {"wait for nothing", PUT(D "/items/a?wait=never", "{\"text\":\"x\"}"), 422,
        "/wait", NULL},
    {"If-Match that is no tag",
        {.method = "PUT",
            .path = D "/items/a",
            .body = "{\"text\":\"x\"}",
            .headers = {"If-Match: 17"}},
        422, NULL, NULL},
    {"text of 10 MB", PUT(D "/items/a", big_text), 413, NULL, "8388608"},
    {"text over the limit", PUT(D "/items/a", long_text), 413, "/text",
        "1048576"},
    {"nested too deep", PUT(D "/items/a", deep), 422, NULL, "deep"},
    {"many values in few bytes", PUT(D "/items/a", bomb), 413, NULL, "65536"},
    {"unknown collection", PUT("/v1/collections/nope/items/a", "{}"), 404, NULL,
        "nope"},
    {"unknown id", GET(D "/items/nope"), 404, NULL, "nope"},

    /* vectors */
    {"NaN", POST(X "/search", "{\"vector\":[1,NaN,0,0,0,0,0,0]}"), 400,
        "/vector/1", NULL},
    {"1e300 as a float", POST(X "/search", "{\"vector\":[1,1e300]}"), 422,
        "/vector/1", NULL},
    {"1e999", POST(X "/search", "{\"vector\":[1,1e999]}"), 422, "/vector/1",
        NULL},
    {"a word in a vector", POST(X "/search", "{\"vector\":[1,\"a\"]}"), 422,
        "/vector/1", NULL},
    {"vector of wrong type", POST(X "/search", "{\"vector\":5}"), 422,
        "/vector", NULL},
    {"empty vector", POST(X "/search", "{\"vector\":[]}"), 422, "/vector",
        NULL},
    {"wrong dimension", POST(X "/search", "{\"vector\":[1,2,3]}"), 409, NULL,
        "8"},
    {"base64 of 3 bytes", POST(X "/search", "{\"vector\":\"AAAA\"}"), 422,
        "/vector", NULL},
    {"base64 that is none", POST(X "/search", "{\"vector\":\"****\"}"), 422,
        "/vector", NULL},
    {"base64 of a NaN", POST(X "/search", "{\"vector\":\"AADAfw==\"}"), 422,
        "/vector", "finite"},
    {"item of another dimension",
        PUT(X "/items/a", "{\"text\":\"x\",\"vector\":[1,2]}"), 409, "/vector",
        NULL},
    {"external item without vector", PUT(X "/items/a", "{\"text\":\"x\"}"), 422,
        "/vector", NULL},
    {"vector where the encoder makes it",
        PUT(D "/items/a", "{\"text\":\"x\",\"vector\":[1,2]}"), 422, "/vector",
        NULL},
    {"fingerprint of another space",
        POST(X "/search",
            "{\"vector\":[1,0,0,0,0,0,0,0],\"fingerprint\":\"00\"}"),
        409, "/fingerprint", NULL},
    {"fingerprint without vector",
        POST(D "/search", "{\"text\":\"x\",\"fingerprint\":\"00\"}"), 422,
        "/fingerprint", NULL},

    /* search */
    {"empty text as a query", POST(D "/search", "{\"text\":\"\"}"), 422,
        "/text", NULL},
    {"text without any feature", POST(D "/search", "{\"text\":\" ,. \"}"), 422,
        "/text", NULL},
    {"no source", POST(D "/search", "{\"k\":1}"), 422, NULL, "only one"},
    {"two sources", POST(D "/search", "{\"text\":\"a\",\"id\":\"b\"}"), 422,
        NULL, "only one"},
    {"k = 0", POST(D "/search", "{\"text\":\"a\",\"k\":0}"), 422, "/k", NULL},
    {"k over the limit", POST(D "/search", "{\"text\":\"a\",\"k\":1001}"), 422,
        "/k", "1000"},
    {"k that is a fraction", POST(D "/search", "{\"text\":\"a\",\"k\":1.5}"),
        422, "/k", NULL},
    {"min_cosine of 2", POST(D "/search", "{\"text\":\"a\",\"min_cosine\":2}"),
        422, "/min_cosine", NULL},
    {"probability of 2",
        POST(D "/search", "{\"text\":\"a\",\"min_probability\":2}"), 422,
        "/min_probability", NULL},
    {"with something", POST(D "/search", "{\"text\":\"a\",\"with\":[\"x\"]}"),
        422, "/with/0", NULL},
    {"filter with unknown operator",
        POST(D "/search", "{\"text\":\"a\",\"filter\":{\"a\":{\"$x\":1}}}"),
        422, "/filter/a/$x", NULL},
    {"filter of wrong type", POST(D "/search", "{\"text\":\"a\",\"filter\":3}"),
        422, "/filter", NULL},
    {"unknown id in a query", POST(D "/search", "{\"id\":\"nope\"}"), 404,
        "/id", NULL},
    {"unknown example",
        POST(D "/search", "{\"examples\":{\"positive\":[\"nope\"]}}"), 404,
        "/examples/positive/0", NULL},
    {"no positive example",
        POST(D "/search", "{\"examples\":{\"positive\":[]}}"), 422,
        "/examples/positive", NULL},
    {"hybrid", POST(D "/search", "{\"text\":\"a\",\"hybrid\":{}}"), 501,
        "/hybrid", NULL},
    {"group_by", POST(D "/search", "{\"text\":\"a\",\"group_by\":\"x\"}"), 501,
        "/group_by", NULL},
    {"search by image among texts", POST(D "/search", "{\"image\":\"AAAA\"}"),
        422, "/image", NULL},
    {"batch without queries", POST(D "/search/batch", "{\"queries\":[]}"), 422,
        "/queries", NULL},
    {"one bad query of a batch",
        POST(D "/search/batch",
            "{\"queries\":[{\"text\":\"one\"},{\"text\":\"\"},7]}"),
        200, NULL, "urn:kindred:problem:invalid"},

    /* pairs */
    {"pair without positive",
        POST(D "/pairs", "[{\"anchor\":{\"id\":\"one\"}}]"), 422, "/0/positive",
        NULL},
    {"pair that names a missing item",
        POST(D "/pairs", "[{\"anchor\":{\"text\":\"a\"},\"positive\":"
                         "{\"id\":\"nope\"}}]"),
        404, "/0/positive/id", "nope"},
    {"anchor equal to its positive",
        POST(D "/pairs", "[{\"anchor\":{\"id\":\"one\"},\"positive\":"
                         "{\"id\":\"one\"}}]"),
        422, "/0/positive", NULL},
    {"side with id and text",
        POST(D "/pairs", "[{\"anchor\":{\"id\":\"one\",\"text\":\"a\"},"
                         "\"positive\":{\"id\":\"two\"}}]"),
        422, "/0/anchor", NULL},
    {"weight of 0",
        POST(D "/pairs", "[{\"anchor\":{\"text\":\"a\"},\"positive\":"
                         "{\"id\":\"one\"},\"weight\":0}]"),
        422, "/0/weight", NULL},
    {"negative that is a string",
        POST(D "/pairs", "[{\"anchor\":{\"text\":\"a\"},\"positive\":"
                         "{\"id\":\"one\"},\"negatives\":[\"two\"]}]"),
        422, "/0/negatives/0", NULL},
    {"feedback on a forgotten search",
        POST(D "/feedback", "{\"search_id\":\"s1\",\"item_id\":\"one\"}"), 404,
        "/search_id", NULL},
    {"feedback without item", POST(D "/feedback", "{\"search_id\":\"s1\"}"),
        422, "/item_id", NULL},
    {"pair number that is none", GET(D "/pairs/x1"), 404, NULL, NULL},

    /* encoding */
    {"unknown model",
        POST("/v1/embeddings", "{\"model\":\"nope\",\"input\":\"a\"}"), 404,
        NULL, "model_not_found"},
    {"token ids",
        POST("/v1/embeddings", "{\"model\":\"docs\",\"input\":[1,2]}"), 422,
        NULL, "token ids"},
    {"empty input",
        POST("/v1/embeddings", "{\"model\":\"docs\",\"input\":[\"a\",\"\"]}"),
        422, NULL, "\"param\":\"input\""},
    {"no input", POST("/v1/embeddings", "{\"model\":\"docs\",\"input\":[]}"),
        422, NULL, "input"},
    {"unknown format",
        POST("/v1/embeddings", "{\"model\":\"docs\",\"input\":\"a\","
                               "\"encoding_format\":\"hex\"}"),
        422, NULL, "encoding_format"},
    {"too many dimensions",
        POST("/v1/embeddings",
            "{\"model\":\"docs\",\"input\":\"a\",\"dimensions\":4000}"),
        422, NULL, "dimensions"},
    {"malformed on the OpenAI route", POST("/v1/embeddings", "{"), 400, NULL,
        "\"error\""},
    {"tokenize an unknown model",
        POST("/v1/tokenize", "{\"inputs\":\"a\",\"model\":\"nope\"}"), 404,
        "/model", NULL},
    {"similarity without sentences",
        POST("/v1/similarity", "{\"inputs\":{\"source_sentence\":\"a\"}}"), 422,
        "/inputs/sentences", NULL},

    /* collections, aliases, training, jobs */
    {"collection with a bad name", PUT("/v1/collections/Docs%21", "{}"), 422,
        NULL, NULL},
    {"unknown setting", PUT("/v1/collections/new", "{\"colour\":1}"), 422,
        "/colour", NULL},
    {"unknown encoder", PUT("/v1/collections/new", "{\"encoder\":\"gpt\"}"),
        422, "/encoder", NULL},
    {"dims of 0", PUT("/v1/collections/new", "{\"dims\":0}"), 422, "/dims",
        NULL},
    {"other fixed settings", PUT(D, "{\"dims\":64}"), 409, NULL, NULL},
    {"patch of a fixed setting",
        {.method = "PATCH", .path = D, .body = "{\"dims\":64}"}, 409, NULL,
        NULL},
    {"alias of nothing", PUT("/v1/aliases/cur", "{\"collection\":\"nope\"}"),
        404, NULL, NULL},
    {"alias without collection", PUT("/v1/aliases/cur", "{}"), 422,
        "/collection", NULL},
    {"training without enough pairs", POST(A "/train", "{}"), 422, NULL, "200"},
    {"unknown training option", POST(A "/train", "{\"epochz\":1}"), 422,
        "/epochz", NULL},
    {"promote an unknown generation", POST(A "/generations/99/promote", "{}"),
        404, NULL, NULL},
    {"rollback without a previous one", POST(A "/rollback", "{}"), 409, NULL,
        NULL},
    {"weights of an unknown generation", GET(D "/generations/99/weights"), 404,
        NULL, NULL},
    {"unknown job", GET("/v1/jobs/99"), 404, NULL, NULL},
    {"backup by a path", GET("/v1/admin/backups/..%2Fkindred.db"), 404, NULL,
        NULL},
    {"unknown outcomes",
        {.method = "POST",
            .path = D "/items?outcomes=some",
            .body = "{}",
            .type = "application/x-ndjson"},
        422, NULL, NULL},
};

static void
expect_items(const char *path, long long n)
{
    struct kit_reply reply = kit_get(kit_table_daemon, path);
    assert_int_equal(reply.status, 200);
    assert_int_equal(json_integer_value(kit_at(reply.json, "/items")), n);
    kit_reply_free(&reply);
}

static void
test_nothing_stored(void **state)
{
    (void)state;
    expect_items(D, 2);
    expect_items(X, 0);
    struct kit_reply reply = kit_get(kit_table_daemon, D);
    assert_int_equal(json_integer_value(kit_at(reply.json, "/pairs/total")), 0);
    kit_reply_free(&reply);
    reply = kit_get(kit_table_daemon, "/v1/collections");
    assert_int_equal(json_array_size(kit_at(reply.json, "/collections")), 2);
    kit_reply_free(&reply);
}

/* The last of equal ids wins, and the answer says so. */
static void
test_duplicates_in_a_batch(void **state)
{
    (void)state;
    struct kit_reply reply = kit_send(kit_table_daemon, "POST", D "/items",
        "[{\"id\":\"d\",\"text\":\"first\"},{\"id\":\"d\",\"text\":\"last\"}]");
    assert_int_equal(reply.status, 200);
    assert_int_equal(json_integer_value(kit_at(reply.json, "/superseded")), 1);
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/items/0/outcome")),
        "superseded");
    assert_int_equal(
        json_integer_value(kit_at(reply.json, "/items/0/superseded_by")), 1);
    kit_reply_free(&reply);
    reply = kit_get(kit_table_daemon, D "/items/d");
    assert_string_equal(json_string_value(kit_at(reply.json, "/text")), "last");
    kit_reply_free(&reply);
}

static void
fill(char *out, size_t size, const char *head, char with, const char *tail)
{
    size_t h = strlen(head);
    size_t t = strlen(tail);
    memcpy(out, head, h);
    memset(out + h, with, size - h - t - 1);
    memcpy(out + size - t - 1, tail, t + 1);
}

static void
set_up(struct kit_daemon *daemon)
{
    fill(big_text, sizeof(big_text), "{\"text\":\"", 'a', "\"}");
    fill(long_text, sizeof(long_text), "{\"text\":\"", 'a', "\"}");
    fill(long_id, sizeof(long_id), D "/items/", 'x', "");
    fill(bomb, sizeof(bomb), "{\"metadata\":{\"a\":[1", ',', "]}}");
    for (size_t i = 0; i + 1 < sizeof(bomb); i++)
        if (bomb[i] == ',' && i % 2 == 0)
            bomb[i] = '1';
    memset(deep, 0, sizeof(deep));
    strcpy(deep, "{\"metadata\":{\"a\":");
    for (int i = 0; i < 60; i++)
        strcat(deep, "[");
    for (int i = 0; i < 60; i++)
        strcat(deep, "]");
    strcat(deep, "}}");
    static const char *const first[][3] = {{"PUT", D, "{}"},
        {"PUT", X, "{\"encoder\":\"external\",\"dims\":8}"},
        {"PUT", D "/items/one", "{\"text\":\"one small item\"}"},
        {"PUT", D "/items/two", "{\"text\":\"two small items\"}"}};
    for (size_t i = 0; i < 4; i++) {
        struct kit_reply reply =
            kit_send(daemon, first[i][0], first[i][1], first[i][2]);
        if (reply.status != 201) {
            (void)fprintf(
                stderr, "%s: %ld %s\n", first[i][1], reply.status, reply.body);
            exit(1);
        }
        kit_reply_free(&reply);
    }
}

int
main(void)
{
    static struct kit_daemon daemon;
    if (!kit_start(&daemon, NULL)) {
        (void)fprintf(stderr, "the daemon did not start, see %s\n", daemon.log);
        return 1;
    }
    kit_table_daemon = &daemon;
    set_up(&daemon);
    const struct CMUnitTest after[] = {
        cmocka_unit_test(test_nothing_stored),
        cmocka_unit_test(test_duplicates_in_a_batch),
    };
    int failed =
        kit_run_cases("bad input", cases, sizeof(cases) / sizeof(cases[0]));
    failed += cmocka_run_group_tests_name("after it", after, NULL, NULL);
    failed += kit_stop(&daemon) != 0;
    kit_clean(&daemon);
    return failed != 0;
}
