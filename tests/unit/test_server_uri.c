/*
 * Goal: a path or query is decoded exactly once, whole or not at all.
 * Method: tables; every single byte there and back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/uri.h"

static void
test_decode(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        bool plus;
        const char *out; /* NULL: refused */
    } cases[] = {{"", false, ""}, {"abc", false, "abc"}, {"g++", false, "g++"},
        {"g++", true, "g  "}, {"g%2B%2b", true, "g++"}, {"a%2Fb", false, "a/b"},
        {"%25", false, "%"}, {"%2525", false, "%25"}, {"%", false, NULL},
        {"%2", false, NULL}, {"%zz", false, NULL}, {"%2g", false, NULL},
        {"a%00b", false, NULL}, {"%ff", false, "\xff"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[32];
        size_t len = 99;
        enum err err = uri_decode(
            out, &len, cases[i].in, strlen(cases[i].in), cases[i].plus);
        if (!cases[i].out) {
            assert_int_equal(err, ERR_SYNTAX);
            continue;
        }
        assert_int_equal(err, OK);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(len, strlen(cases[i].out));
    }
}

static void
test_every_byte(void **state)
{
    (void)state;
    for (int c = 1; c < 256; c++) {
        char in[2] = {(char)c, '\0'};
        char coded[8];
        char back[8];
        size_t len = 0;
        assert_true(uri_encode(coded, sizeof(coded), in, 1));
        assert_int_equal(
            uri_decode(back, &len, coded, strlen(coded), true), OK);
        assert_int_equal(len, 1);
        assert_int_equal((unsigned char)back[0], c);
    }
    char small[3];
    assert_false(uri_encode(small, sizeof(small), "/", 1));
    assert_string_equal(small, "");
}

static void
test_match(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        const char *path;
        int n; /* parameters; -1: no match */
        const char *last;
    } cases[] = {{"/", "/", 0, NULL}, {"/", "", -1, NULL},
        {"/a", "/a", 0, NULL}, {"/a", "/a/", -1, NULL}, {"/a", "/b", -1, NULL},
        {"/a", "/ab", -1, NULL}, {"/a/{x}", "/a/1", 1, "1"},
        {"/a/{x}", "/a/", -1, NULL}, {"/a/{x}", "/a", -1, NULL},
        {"/a/{x}", "/a/1/2", -1, NULL},
        {"/a/{x}/b/{y}", "/a/1/b/%2F", 2, "%2F"},
        {"/a/{x}/b", "/a/1/b", 1, "1"}, {"/a/{x}/b", "/a//b", -1, NULL},
        {"/a/b", "/a/%62", -1, NULL}, {"/a", "*", -1, NULL}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct uri_slice params[URI_PARAMS_MAX];
        size_t n = 0;
        bool matched = uri_match(
            cases[i].pattern, cases[i].path, strlen(cases[i].path), params, &n);
        assert_int_equal(matched, cases[i].n >= 0);
        if (!matched)
            continue;
        assert_int_equal(n, cases[i].n);
        if (cases[i].last) {
            assert_int_equal(params[n - 1].raw_len, strlen(cases[i].last));
            assert_memory_equal(
                params[n - 1].raw, cases[i].last, params[n - 1].raw_len);
        }
    }
}

static void
test_query(void **state)
{
    (void)state;
    struct uri_param args[URI_QUERY_MAX];
    size_t n = 0;
    char fine[] = "a=1&b=x+y%26z&&c&d=";
    assert_int_equal(uri_query(fine, strlen(fine), args, &n), OK);
    assert_int_equal(n, 4);
    assert_string_equal(args[0].name, "a");
    assert_string_equal(args[0].value, "1");
    assert_string_equal(args[1].value, "x y&z");
    assert_string_equal(args[2].name, "c");
    assert_string_equal(args[2].value, "");
    assert_string_equal(args[3].value, "");
    char twice[] = "a=1&%61=2";
    assert_int_equal(uri_query(twice, strlen(twice), args, &n), ERR_INVALID);
    char broken[] = "a=%";
    assert_int_equal(uri_query(broken, strlen(broken), args, &n), ERR_SYNTAX);
    char many[200] = "";
    for (int i = 0; i < URI_QUERY_MAX + 1; i++)
        (void)snprintf(
            many + strlen(many), sizeof(many) - strlen(many), "a%d=1&", i);
    assert_int_equal(uri_query(many, strlen(many), args, &n), ERR_TOO_LARGE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_query),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
