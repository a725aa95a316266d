/*
 * Goal: the route table and openapi.json name the same endpoints with the same
 *   keys and bodies, and the table finds the right one.
 * Method: both are walked and compared, each way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/embed.h"
#include "base/json.h"
#include "server/route.h"

static struct json *openapi;

static const struct json *
operation_of(const struct route *route)
{
    char method[8] = "";
    for (size_t i = 0; route->method[i] && i < 7; i++)
        method[i] = (char)(route->method[i] - 'A' + 'a');
    const struct json *paths = json_find(openapi, "paths");
    const struct json *path = json_find(paths, route->pattern);
    return path ? json_find(path, method) : NULL;
}

static void
test_every_route_is_documented(void **state)
{
    (void)state;
    static const char *const scopes[] = {"none", "read", "write", "admin"};
    for (size_t i = 0; i < n_routes; i++) {
        const struct json *operation = operation_of(&routes[i]);
        if (!operation)
            print_error("%s %s\n", routes[i].method, routes[i].pattern);
        assert_non_null(operation);
        assert_string_equal(json_str(json_find(operation, "operationId"), NULL),
            routes[i].name);
        assert_string_equal(json_str(json_find(operation, "x-scope"), NULL),
            scopes[routes[i].scope]);
        const struct json *body = json_find(operation, "requestBody");
        assert_int_equal(body != NULL, routes[i].body != BODY_NONE);
        if (body) {
            const struct json *content = json_find(body, "content");
            enum body_kind kind = routes[i].body;
            assert_int_equal(json_find(content, "application/json") != NULL,
                kind == BODY_JSON || kind == BODY_LINES);
            assert_int_equal(json_find(content, "application/x-ndjson") != NULL,
                kind == BODY_LINES || kind == BODY_STREAM);
            assert_int_equal(
                json_find(content, "image/webp") != NULL, kind == BODY_IMAGE);
            assert_int_equal(json_find(content, "application/x-tar") != NULL,
                kind == BODY_TAR);
            assert_int_equal(json_bool(json_find(body, "required")),
                !(routes[i].flags & ROUTE_BODY_OPTIONAL));
        }
    }
}

static void
test_everything_documented_is_a_route(void **state)
{
    (void)state;
    const struct json *paths = json_find(openapi, "paths");
    size_t n = 0;
    for (void *it = json_first(paths); it; it = json_next(paths, it))
        n += json_count(json_it_value(it));
    assert_int_equal(n, n_routes);
}

static void
test_find(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        const char *path;
        const char *name; /* NULL: none */
        const char *allow;
    } cases[] = {{"GET", "/v1/collections/x/items/delete", "getItem", NULL},
        {"POST", "/v1/collections/x/items/delete", "deleteItems", NULL},
        {"HEAD", "/v1/collections/x/items/a%2Fb", "getItem", NULL},
        {"POST", "/v1/collections/x/search", "search", NULL},
        {"GET", "/v1/collections/x/search", NULL, "POST, OPTIONS"},
        {"PUT", "/v1/collections/x/items/delete", "putItem", NULL},
        {"GET", "/nope", NULL, ""},
        {"GET", "/v1/collections/x/items/a/image", "getItemImage", NULL},
        {"POST", "/v1/collections/x/items/a/image", NULL,
            "PUT, GET, HEAD, DELETE, OPTIONS"},
        {"POST", "/v1/collections/x/search/image", "searchImage", NULL},
        {"PUT", "/v1/collections/x/items/a/views", NULL, "GET, HEAD, OPTIONS"},
        {"PUT", "/v1/jobs", NULL, "GET, HEAD, OPTIONS"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct uri_slice params[URI_PARAMS_MAX];
        size_t n = 0;
        char allow[128];
        const struct route *route = route_find(cases[i].method, cases[i].path,
            strlen(cases[i].path), params, &n, allow, sizeof(allow));
        if (cases[i].name) {
            assert_non_null(route);
            assert_string_equal(route->name, cases[i].name);
        } else {
            assert_null(route);
            assert_string_equal(allow, cases[i].allow);
        }
    }
}

static int
load(void **state)
{
    (void)state;
    return (int)json_parse((const char *)embedded_openapi.bytes,
        embedded_openapi.len, embedded_openapi.len, &openapi, NULL);
}

static int
unload(void **state)
{
    (void)state;
    json_free(openapi);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route_is_documented),
        cmocka_unit_test(test_everything_documented_is_a_route),
        cmocka_unit_test(test_find),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
