/*
 * Goal: a buffer keeps its maximum and its first failure, and the JSON written
 * into it reads back as what it was.
 * Method: limits by one byte; every byte value and bad UTF-8 in strings;
 * millions of float bit patterns written, read by strtof and by strtod, and
 * compared in length with the shortest of printf's forms.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"

static void
test_append_and_take(void **state)
{
    (void)state;
    struct buf buf;
    size_t len;

    buf_init(&buf, 1 << 20);
    buf_add_str(&buf, "a");
    buf_add(&buf, "\0b", 2);
    buf_add_char(&buf, 'c');
    buf_printf(&buf, "%d-%s", 42, "x");
    assert_int_equal(buf_status(&buf), OK);
    assert_int_equal(buf.len, 8);
    assert_memory_equal(buf.data, "a\0bc42-x", 9);
    buf_add(&buf, NULL, 0);
    char *data = buf_take(&buf, &len);
    assert_int_equal(len, 8);
    assert_null(buf.data);
    mem_free(data);
    buf_add_str(&buf, "again");
    assert_string_equal(buf.data, "again");
    buf_clear(&buf);
    assert_string_equal(buf.data, "");
    buf_release(&buf);
    buf_release(&buf);
    buf_release(NULL);
}

static void
test_the_maximum_is_exact(void **state)
{
    (void)state;
    for (size_t max = 0; max < 600; max += 7) {
        struct buf buf;
        buf_init(&buf, max);
        for (size_t i = 0; i < max; i++) {
            buf_add_char(&buf, 'x');
        }
        assert_int_equal(buf_status(&buf), OK);
        assert_int_equal(buf.len, max);
        buf_add_char(&buf, 'y');
        assert_int_equal(buf_status(&buf), ERR_TOO_LARGE);
        assert_int_equal(buf.len, max);
        buf_add(&buf, "", 0); /* failed stays failed */
        assert_int_equal(buf_status(&buf), ERR_TOO_LARGE);
        buf_clear(&buf);
        assert_int_equal(buf_status(&buf), OK);
        assert_int_equal(buf.len, 0);
        buf_release(&buf);
    }
}

static void
test_printf_at_the_maximum(void **state)
{
    (void)state;
    char text[1000];

    memset(text, 'z', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct buf buf;
    buf_init(&buf, 999);
    buf_printf(&buf, "%s", text);
    assert_int_equal(buf_status(&buf), OK);
    assert_string_equal(buf.data, text);
    buf_release(&buf);
    buf_init(&buf, 998);
    buf_add_str(&buf, "a");
    buf_printf(&buf, "%s", text);
    assert_int_equal(buf_status(&buf), ERR_TOO_LARGE);
    assert_string_equal(buf.data, "a");
    buf_release(&buf);
}

static void
test_no_memory(void **state)
{
    (void)state;
    uint64_t n = 0;
    enum err err;

    do {
        struct buf buf;
        buf_init(&buf, 1 << 20);
        alloc_fail_at(++n);
        for (int i = 0; i < 1000; i++) {
            buf_printf(&buf, "%d,", i);
        }
        alloc_fail_at(0);
        err = buf_status(&buf);
        assert_true(err == OK || err == ERR_NOMEM);
        buf_release(&buf);
    } while (err != OK);
    assert_true(n > 3);
}

static void
check_string(const char *in, size_t len, const char *want)
{
    struct buf buf;

    buf_init(&buf, 1 << 20);
    buf_json_string(&buf, in, len);
    assert_int_equal(buf_status(&buf), OK);
    assert_string_equal(buf.data, want);
    buf_release(&buf);
}

static void
test_json_strings(void **state)
{
    (void)state;
    check_string("", 0, "\"\"");
    check_string("plain", 5, "\"plain\"");
    check_string("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    check_string("\n\r\t\b\0\x1f", 6, "\"\\n\\r\\t\\u0008\\u0000\\u001f\"");
    check_string("\x7f", 1, "\"\\u007f\"");
    check_string("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9,
        "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
    /* Overlong, surrogate, too high, cut, lone continuation: one U+FFFD for
       each byte that begins nothing. */
    check_string("\xc0\x80", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    check_string("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    check_string("\xf4\x90\x80\x80", 4,
        "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    check_string("a\xe2\x82", 3, "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
    check_string("\x80z", 2, "\"\xef\xbf\xbdz\"");
    check_string("\xff", 1, "\"\xef\xbf\xbd\"");
    struct buf buf;
    buf_init(&buf, 100);
    buf_json_cstr(&buf, "x");
    assert_string_equal(buf.data, "\"x\"");
    buf_release(&buf);
}

static void
check_double(double v, const char *want)
{
    struct buf buf;

    buf_init(&buf, 100);
    buf_json_double(&buf, v);
    assert_string_equal(buf.data, want);
    buf_release(&buf);
}

static void
check_float(float v, const char *want)
{
    struct buf buf;

    buf_init(&buf, 100);
    buf_json_float(&buf, v);
    assert_string_equal(buf.data, want);
    buf_release(&buf);
}

static void
test_json_numbers(void **state)
{
    (void)state;
    check_double(0, "0");
    check_double(-0.0, "-0.0");
    check_double(1, "1");
    check_double(-123456789012345.0, "-123456789012345");
    check_double(0.1, "0.1");
    check_double(1.0 / 3, "0.3333333333333333");
    check_double(1e300, "1e+300");
    check_double(5e-324, "4.94065645841247e-324");
    check_double(NAN, "null");
    check_double(HUGE_VAL, "null");
    check_double(-HUGE_VAL, "null");
    check_float(0.1F, "0.1");
    check_float(-0.25F, "-0.25");
    check_float(1.0F / 3, "0.33333334");
    check_float(8388607.0F, "8388607");
    check_float(16777216.0F, "16777216");
    check_float(1234.5F, "1234.5");
    check_float(-0.0F, "-0.0");
    check_float(0.001F, "0.001");
    check_float(9.999999e-5F, "0.00009999999");
    check_float(3e-9F, "3e-09");
    check_float(FLT_MAX, "3.4028235e+38");
    check_float(NAN, "null");
    check_float(HUGE_VALF, "null");

    struct buf buf;
    buf_init(&buf, 100);
    buf_json_int(&buf, INT64_MIN);
    buf_add_char(&buf, ' ');
    buf_json_int(&buf, INT64_MAX);
    buf_add_char(&buf, ' ');
    buf_json_int(&buf, 0);
    assert_string_equal(buf.data, "-9223372036854775808 9223372036854775807 0");
    buf_release(&buf);
}

/* Significant digits of a number's text. */
static int
count_digits(const char *s)
{
    char kept[64];
    int n = 0;

    for (; *s != '\0' && *s != 'e'; s++) {
        if (*s >= '0' && *s <= '9' && (n > 0 || *s != '0')) {
            kept[n++] = *s;
        }
    }
    while (n > 0 && kept[n - 1] == '0') {
        n--;
    }
    return n;
}

static void
test_floats_read_back(void **state)
{
    (void)state;
    struct rng rng;
    struct buf buf;
    size_t longer = 0, n = 400000;

    rng_seed(&rng, 3);
    buf_init(&buf, 100);
    for (size_t i = 0; i < n; i++) {
        float v;
        if (i % 2 == 0) {
            uint32_t bits = (uint32_t)rng_u64(&rng);
            memcpy(&v, &bits, sizeof(v));
        } else {
            v = (float)rng_normal(&rng) * 0.05F; /* an embedding's */
        }
        if (!isfinite(v)) {
            continue;
        }
        buf_clear(&buf);
        buf_json_float(&buf, v);
        float once = strtof(buf.data, NULL);
        float twice = (float)strtod(buf.data, NULL);
        assert_memory_equal(&once, &v, sizeof(v));
        assert_memory_equal(&twice, &v, sizeof(v));

        char text[40];
        for (int d = 6; d <= 9; d++) {
            snprintf(text, sizeof(text), "%.*g", d, (double)v);
            if (strtof(text, NULL) == v) {
                break;
            }
        }
        longer += count_digits(buf.data) > count_digits(text);
    }
    /* Only a tie through double costs one digit more, and is rare. */
    assert_true(longer < 10);
    buf_release(&buf);
}

static void
test_doubles_read_back(void **state)
{
    (void)state;
    struct rng rng;
    struct buf buf;

    rng_seed(&rng, 4);
    buf_init(&buf, 100);
    for (size_t i = 0; i < 100000; i++) {
        uint64_t bits = rng_u64(&rng);
        double v;
        memcpy(&v, &bits, sizeof(v));
        if (i % 3 == 0) {
            v = (double)(int64_t)rng_below(&rng, 1000000000) / 1000;
        }
        if (!isfinite(v)) {
            continue;
        }
        buf_clear(&buf);
        buf_json_double(&buf, v);
        double back = strtod(buf.data, NULL);
        assert_memory_equal(&back, &v, sizeof(v));
    }
    buf_release(&buf);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_and_take),
        cmocka_unit_test(test_the_maximum_is_exact),
        cmocka_unit_test(test_printf_at_the_maximum),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_json_numbers),
        cmocka_unit_test(test_floats_read_back),
        cmocka_unit_test(test_doubles_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
