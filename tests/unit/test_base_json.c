/*
 * Goal: json.h accepts what is JSON within its limits and nothing else, its
 * getters name the member that is wrong, its dump is canonical, and the direct
 * float reader equals strtod, bit for bit.
 * Method: tables of good and bad texts; every getter with each wrong type; a
 * failing n-th allocation; random numbers in many spellings, among them those
 * that lie on or beside a tie of two floats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/rng.h"

static struct json *
parse(const char *text)
{
    struct json *root = NULL;
    struct fault fault = {0};

    assert_int_equal(
        json_parse(text, strlen(text), 1 << 20, &root, &fault), OK);
    assert_non_null(root);
    return root;
}

static void
refuse(const char *text, size_t len, enum err want)
{
    struct json *root = NULL;
    struct fault fault = {0};

    assert_int_equal(json_parse(text, len, 1 << 20, &root, &fault), want);
    assert_null(root);
    assert_int_equal(fault.err, want);
    assert_true(fault.detail[0] != '\0');
    /* A fault is optional. */
    assert_int_equal(json_parse(text, len, 1 << 20, &root, NULL), want);
}

static void
test_bad_texts(void **state)
{
    (void)state;
    static const char *const bad[] = {"", " ", "{", "[1,]", "{\"a\":}",
        "{\"a\" 1}", "{a:1}", "NaN", "[NaN]", "Infinity", "[-Infinity]",
        "[1] x", "\"a", "\"\xff\"", "\"\\ud800\"", "\"\\u0000\"", "[01]",
        "[+1]", "[.5]", "[1.]", "[0x10]", "'a'", "[1 2]", "nul", "// c\n1",
        "\xef\xbb\xbf{}"};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        refuse(bad[i], strlen(bad[i]), ERR_SYNTAX);
    }
    refuse("1\0", 2, ERR_SYNTAX);
    refuse("{\"a\":1,\"a\":2}", 13, ERR_INVALID);
    refuse("{\"b\":{\"a\":1,\"\\u0061\":2}}", 24, ERR_INVALID);
    refuse("[1e999]", 7, ERR_INVALID);
    refuse("[99999999999999999999]", 22, ERR_INVALID);
}

static void
test_limits(void **state)
{
    (void)state;
    char text[200];
    struct json *root = NULL;
    struct fault fault = {0};

    assert_int_equal(json_parse("[1,2]", 5, 5, &root, &fault), OK);
    json_free(root);
    root = NULL;
    assert_int_equal(json_parse("[1,2]", 5, 4, &root, &fault), ERR_TOO_LARGE);
    assert_null(root);

    for (size_t depth = 1; depth <= 64; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        root = NULL;
        enum err err = json_parse(text, 2 * depth, 1000, &root, &fault);
        assert_int_equal(err, depth <= JSON_DEPTH_MAX ? OK : ERR_INVALID);
        json_free(root);
    }
    /* Brackets in strings, after escaped quotes too, are not depth. */
    const char *flat =
        "[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[{{{\\\\\"]";
    json_free(parse(flat));
    json_free(NULL);
}

static void
test_nodes(void **state)
{
    (void)state;
    struct json *root = parse("{\"n\":null,\"b\":true,\"i\":-7,\"r\":2.5,"
                              "\"s\":\"h\\u00e4\",\"a\":[1,[]],\"o\":{}}");
    size_t len, n = 0;
    char order[16];

    assert_int_equal(json_kind(root), JSON_KIND_OBJECT);
    assert_int_equal(json_count(root), 7);
    assert_int_equal(json_kind(json_find(root, "n")), JSON_KIND_NULL);
    assert_true(json_bool(json_find(root, "b")));
    assert_int_equal(json_i64(json_find(root, "i")), -7);
    assert_true(json_f64(json_find(root, "i")) == -7);
    assert_int_equal(json_kind(json_find(root, "r")), JSON_KIND_REAL);
    assert_true(json_f64(json_find(root, "r")) == 2.5);
    assert_string_equal(json_str(json_find(root, "s"), &len), "h\xc3\xa4");
    assert_int_equal(len, 3);
    const struct json *a = json_find(root, "a");
    assert_int_equal(json_count(a), 2);
    assert_int_equal(json_i64(json_item(a, 0)), 1);
    assert_int_equal(json_kind(json_item(a, 1)), JSON_KIND_ARRAY);
    assert_null(json_find(root, "zz"));
    assert_null(json_find(a, "zz"));
    assert_int_equal(json_count(json_find(root, "i")), 0);
    for (void *it = json_first(root); it != NULL; it = json_next(root, it)) {
        order[n++] = json_it_key(it)[0];
        assert_ptr_equal(json_it_value(it), json_find(root, json_it_key(it)));
    }
    order[n] = '\0';
    assert_string_equal(order, "nbirsao");
    json_free(root);
}

static void
test_getters(void **state)
{
    (void)state;
    struct json *root = parse("{\"s\":\"x\",\"i\":5,\"r\":0.5,\"b\":false,"
                              "\"o\":{\"k\":1},\"a\":[1],\"big\":1e300,"
                              "\"z\":null,\"a/b~c\":1}");
    struct fault f = {0};
    const struct json *node = NULL;
    const char *s = "default";
    size_t len = 99;
    int64_t i = -1;
    double d = -1;
    bool b = true;
    struct json_range unit = {0, 1, true}, any = {-HUGE_VAL, HUGE_VAL, true};

    assert_int_equal(
        json_get_str(root, "", "s", JSON_REQUIRED, &s, &len, &f), OK);
    assert_string_equal(s, "x");
    assert_int_equal(len, 1);
    assert_int_equal(
        json_get_i64(root, "", "i", JSON_REQUIRED, 5, 5, &i, &f), OK);
    assert_int_equal(i, 5);
    assert_int_equal(
        json_get_f64(root, "", "r", JSON_REQUIRED, &unit, &d, &f), OK);
    assert_true(d == 0.5);
    assert_int_equal(
        json_get_f64(root, "", "i", JSON_REQUIRED, NULL, &d, &f), OK);
    assert_true(d == 5);
    assert_int_equal(
        json_get_f64(root, "", "big", JSON_REQUIRED, NULL, &d, &f), OK);
    assert_int_equal(json_get_bool(root, "", "b", JSON_REQUIRED, &b, &f), OK);
    assert_false(b);
    assert_int_equal(
        json_get_object(root, "", "o", JSON_REQUIRED, &node, &f), OK);
    assert_int_equal(json_count(node), 1);
    assert_int_equal(
        json_get_array(root, "", "a", JSON_REQUIRED, &node, &f), OK);

    /* Absent: the default stays, or a refusal. */
    i = 77;
    assert_int_equal(
        json_get_i64(root, "", "no", JSON_OPTIONAL, 0, 1, &i, &f), OK);
    assert_int_equal(i, 77);
    assert_int_equal(
        json_get_i64(root, "/x", "no", JSON_REQUIRED, 0, 1, &i, &f),
        ERR_INVALID);
    assert_string_equal(f.pointer, "/x/no");
    assert_string_equal(f.detail, "no is missing");

    /* Out of range. */
    assert_int_equal(
        json_get_i64(root, "", "i", JSON_REQUIRED, 6, 9, &i, &f), ERR_INVALID);
    assert_string_equal(f.detail, "i must be from 6 to 9");
    assert_int_equal(
        json_get_i64(root, "", "i", JSON_REQUIRED, 0, 4, &i, &f), ERR_INVALID);
    assert_int_equal(
        json_get_f64(root, "", "i", JSON_OPTIONAL, &unit, &d, &f), ERR_INVALID);
    assert_int_equal(json_get_f64(root, "", "big", JSON_OPTIONAL, &any, &d, &f),
        ERR_INVALID);
    assert_non_null(strstr(f.detail, "32-bit float"));
    assert_string_equal(f.pointer, "/big");

    /* The outputs of refusals were not touched. */
    assert_int_equal(i, 77);
    assert_true(d == 1e300);
    json_free(root);
}

static void
test_getters_refuse_other_types(void **state)
{
    (void)state;
    struct json *root = parse("{\"s\":\"1\",\"i\":5,\"r\":0.5,\"b\":false,"
                              "\"o\":{},\"a\":[],\"z\":null}");
    static const char *const keys[] = {"s", "i", "r", "b", "o", "a", "z"};
    const struct json *node;
    const char *s;
    int64_t i;
    double d;
    bool b;

    for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
        const char *key = keys[k];
        char pointer[8];
        struct fault f = {0};
        enum err want[6];
        snprintf(pointer, sizeof(pointer), "/%s", key);
        want[0] = json_get_str(root, "", key, JSON_OPTIONAL, &s, NULL, &f);
        want[1] = json_get_i64(
            root, "", key, JSON_OPTIONAL, INT64_MIN, INT64_MAX, &i, &f);
        want[2] = json_get_f64(root, "", key, JSON_OPTIONAL, NULL, &d, &f);
        want[3] = json_get_bool(root, "", key, JSON_OPTIONAL, &b, &f);
        want[4] = json_get_object(root, "", key, JSON_OPTIONAL, &node, &f);
        want[5] = json_get_array(root, "", key, JSON_OPTIONAL, &node, &f);
        assert_string_equal(f.pointer, pointer);
        assert_int_equal(want[0] == OK, k == 0);
        assert_int_equal(want[1] == OK, k == 1);
        assert_int_equal(want[2] == OK, k == 1 || k == 2);
        assert_int_equal(want[3] == OK, k == 3);
        assert_int_equal(want[4] == OK, k == 4);
        assert_int_equal(want[5] == OK, k == 5);
    }
    struct fault f = {0};
    assert_int_equal(
        json_get_bool(json_find(root, "a"), "/a", "x", JSON_OPTIONAL, &b, &f),
        ERR_INVALID);
    assert_string_equal(f.pointer, "/a");
    json_free(root);
}

static void
test_unknown_keys_and_pointers(void **state)
{
    (void)state;
    struct json *root = parse("{\"a\":1,\"b/c~d\":2}");
    static const char *const keys[] = {"a", "b/c~d"};
    struct fault f = {0};
    char out[FAULT_POINTER_MAX], long_key[400];

    assert_int_equal(json_only_keys(root, "", keys, 2, &f), OK);
    assert_int_equal(json_only_keys(root, "/at", keys, 1, &f), ERR_INVALID);
    assert_string_equal(f.pointer, "/at/b~1c~0d");
    assert_int_equal(
        json_only_keys(json_find(root, "a"), "", keys, 2, &f), ERR_INVALID);
    json_free(root);

    memset(long_key, '~', sizeof(long_key) - 1);
    long_key[sizeof(long_key) - 1] = '\0';
    json_pointer(out, "/x", long_key);
    assert_true(strlen(out) < FAULT_POINTER_MAX);
    json_pointer(out, long_key, "x");
    assert_true(strlen(out) < FAULT_POINTER_MAX);
}

static void
check_dump(const char *text, const char *want)
{
    struct json *root = parse(text);
    struct buf buf;

    buf_init(&buf, 1 << 20);
    json_dump(root, &buf);
    assert_int_equal(buf_status(&buf), OK);
    assert_string_equal(buf.data, want);
    json_free(root);
    /* The canonical text is its own canonical text. */
    root = parse(want);
    buf_clear(&buf);
    json_dump(root, &buf);
    assert_string_equal(buf.data, want);
    json_free(root);
    buf_release(&buf);
}

static void
test_dump_is_canonical(void **state)
{
    (void)state;
    check_dump(" { \"b\" : [ 1 , 1.0, 1e0 ] , \"a\" : { } } ",
        "{\"a\":{},\"b\":[1,1,1]}");
    check_dump("[0.1, 1e-7, true, false, null, \"\\u00e4\\n\", []]",
        "[0.1,1e-07,true,false,null,\"\xc3\xa4\\n\",[]]");
    check_dump("{\"aa\":1,\"a\":2,\"B\":3,\"\":4}",
        "{\"\":4,\"B\":3,\"a\":2,\"aa\":1}");
    check_dump("9223372036854775807", "9223372036854775807");
    check_dump("\"x\"", "\"x\"");

    struct json *root = parse("{\"a\":[1,2,3]}");
    struct buf buf;
    buf_init(&buf, 5);
    json_dump(root, &buf);
    assert_int_equal(buf_status(&buf), ERR_TOO_LARGE);
    buf_release(&buf);
    json_free(root);
}

static void
test_no_memory(void **state)
{
    (void)state;
    const char *text = "{\"a\":[1,2.5,\"x\",{\"b\":null}],\"c\":true}";
    uint64_t n = 0;
    enum err err;

    do {
        struct json *root = NULL;
        struct fault fault = {0};
        struct buf buf;
        buf_init(&buf, 1000);
        alloc_fail_at(++n);
        err = json_parse(text, strlen(text), 1000, &root, &fault);
        if (err == OK) {
            json_dump(root, &buf);
            err = buf_status(&buf);
        } else {
            assert_null(root);
        }
        alloc_fail_at(0);
        assert_true(err == OK || err == ERR_NOMEM);
        json_free(root);
        buf_release(&buf);
    } while (err != OK);
    assert_true(n > 10);
}

/* ---- floats ---------------------------------------------------------------
 */

static void
test_floats_good(void **state)
{
    (void)state;
    float out[8];
    size_t n = 99;
    const char *end, *text = " [ 1 ,-2.5e0,0.1 , 1E2,\n-0,0e5, 1e-400 ] tail";
    struct fault f = {0};

    assert_int_equal(
        json_read_floats(text, strlen(text), out, 8, &n, &end, &f), OK);
    assert_int_equal(n, 7);
    static const float want[] = {1, -2.5F, 0.1F, 100, -0.0F, 0, 0};
    assert_memory_equal(out, want, sizeof(want));
    assert_string_equal(end, " tail");
    assert_int_equal(json_read_floats("[]", 2, out, 0, &n, NULL, &f), OK);
    assert_int_equal(n, 0);
    assert_int_equal(json_read_floats("[ ]", 3, NULL, 0, &n, NULL, &f), OK);
}

static void
test_floats_bad(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err err;
        const char *pointer;
    } bad[] = {{"", ERR_SYNTAX, ""}, {"  ", ERR_SYNTAX, ""},
        {"{}", ERR_INVALID, ""}, {"1", ERR_INVALID, ""},
        {"[", ERR_SYNTAX, "/0"}, {"[1", ERR_SYNTAX, "/0"},
        {"[1,", ERR_SYNTAX, "/1"}, {"[1,]", ERR_SYNTAX, "/1"},
        {"[,1]", ERR_SYNTAX, "/0"}, {"[1 2]", ERR_SYNTAX, "/0"},
        {"[1,,2]", ERR_SYNTAX, "/1"}, {"[01]", ERR_SYNTAX, "/0"},
        {"[-]", ERR_SYNTAX, "/0"}, {"[+1]", ERR_SYNTAX, "/0"},
        {"[.5]", ERR_SYNTAX, "/0"}, {"[1.]", ERR_SYNTAX, "/0"},
        {"[1.e5]", ERR_SYNTAX, "/0"}, {"[1e]", ERR_SYNTAX, "/0"},
        {"[1e+]", ERR_SYNTAX, "/0"}, {"[1,NaN]", ERR_SYNTAX, "/1"},
        {"[nan]", ERR_SYNTAX, "/0"}, {"[-Infinity]", ERR_SYNTAX, "/0"},
        {"[0x10]", ERR_SYNTAX, "/0"}, {"[1,2,1e300]", ERR_INVALID, "/2"},
        {"[-1e39]", ERR_INVALID, "/0"}, {"[1e999999999999]", ERR_INVALID, "/0"},
        {"[3.4028236e38]", ERR_INVALID, "/0"}, {"[null]", ERR_INVALID, "/0"},
        {"[1,true]", ERR_INVALID, "/1"}, {"[\"1\"]", ERR_INVALID, "/0"},
        {"[[1]]", ERR_INVALID, "/0"}, {"[{}]", ERR_INVALID, "/0"},
        {"[1,2,3,4,5]", ERR_TOO_LARGE, ""}, {"[1]]", OK, ""}};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        float out[4];
        size_t n = 77, len = strlen(bad[i].text);
        struct fault f = {0};
        /* In a block of its own size, for the sanitizers. */
        char *exact = malloc(len + (len == 0));
        assert_non_null(exact);
        memcpy(exact, bad[i].text, len);
        enum err err = json_read_floats(exact, len, out, 4, &n, NULL, &f);
        if (err != bad[i].err) {
            fail_msg("%s: %s", bad[i].text, err_text(err));
        }
        if (err != OK) {
            assert_int_equal(n, 77);
            assert_string_equal(f.pointer, bad[i].pointer);
        }
        free(exact);
    }
    char text[700];
    float out[1];
    size_t n;
    memset(text, '1', sizeof(text));
    text[0] = '[';
    text[2] = '.';
    text[699] = ']';
    assert_int_equal(
        json_read_floats(text, 700, out, 1, &n, NULL, NULL), ERR_INVALID);
    text[400] = ']';
    assert_int_equal(json_read_floats(text, 401, out, 1, &n, NULL, NULL), OK);
}

static void
check_number(const char *text)
{
    char array[64];
    float got = 99, want = (float)strtod(text, NULL);
    size_t n;
    int len = snprintf(array, sizeof(array), "[%s]", text);
    enum err err =
        json_read_floats(array, (size_t)len, &got, 1, &n, NULL, NULL);

    if (!isfinite(want)) {
        assert_int_equal(err, ERR_INVALID);
        return;
    }
    if (err != OK || memcmp(&got, &want, sizeof(got)) != 0) {
        fail_msg("%s: %a, not %a", text, (double)got, (double)want);
    }
}

static void
test_floats_equal_strtod(void **state)
{
    (void)state;
    struct rng rng;
    char text[64];

    rng_seed(&rng, 11);
    for (size_t i = 0; i < 300000; i++) {
        uint64_t bits = rng_u64(&rng);
        uint32_t bits32 = (uint32_t)rng_u64(&rng);
        double d;
        float f;
        switch (i % 8) {
        case 0: /* an embedding by another program */
            snprintf(text, sizeof(text), "%.17g", rng_normal(&rng) * 0.05);
            break;
        case 1:
            snprintf(text, sizeof(text), "%.9g", rng_normal(&rng) * 0.05);
            break;
        case 2: /* any double */
            memcpy(&d, &bits, sizeof(d));
            if (!isfinite(d)) {
                continue;
            }
            snprintf(text, sizeof(text), "%.17g", d);
            break;
        case 3: /* any float */
            memcpy(&f, &bits32, sizeof(f));
            if (!isfinite(f)) {
                continue;
            }
            snprintf(text, sizeof(text), "%.*g", (int)rng_below(&rng, 12) + 1,
                (double)f);
            break;
        case 4: /* the middle between two floats, and its neighbours */
            f = (float)rng_normal(&rng);
            d = ((double)f + (double)nextafterf(f, 9)) / 2;
            d = i % 3 == 0 ? d : nextafter(d, i % 3 == 1 ? -9 : 9);
            snprintf(text, sizeof(text), "%.*g", 16 + (int)(bits % 8), d);
            break;
        case 5: /* digits and exponents at random */
            snprintf(text, sizeof(text), "%s%lu.%lue%d", i % 2 ? "-" : "",
                (unsigned long)rng_below(&rng, 1000),
                (unsigned long)(bits >> rng_below(&rng, 64)),
                (int)rng_below(&rng, 100) - 50);
            break;
        case 6: /* integers */
            snprintf(text, sizeof(text), "%ld",
                (long)(int64_t)bits >> rng_below(&rng, 64));
            break;
        default: /* around the edge of what is a float */
            snprintf(text, sizeof(text), "%.9fe%d",
                3.4 + rng_double(&rng) * 0.01,
                i % 16 < 8 ? 38 : -38 - (int)rng_below(&rng, 10));
            break;
        }
        check_number(text);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_getters_refuse_other_types),
        cmocka_unit_test(test_unknown_keys_and_pointers),
        cmocka_unit_test(test_dump_is_canonical),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_floats_good),
        cmocka_unit_test(test_floats_bad),
        cmocka_unit_test(test_floats_equal_strtod),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
