/*
 * Goal: base64 is RFC 4648's, and the decoder takes one spelling only.
 * Method: the RFC's vectors, random bytes there and back, each way of being
 * not quite base64.
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

#include "base/base64.h"
#include "base/rng.h"

static void
check(const char *bytes, const char *text)
{
    struct buf buf;
    char back[64];
    size_t n = 0;

    buf_init(&buf, 100);
    base64_encode(&buf, bytes, strlen(bytes));
    assert_string_equal(buf.data == NULL ? "" : buf.data, text);
    assert_int_equal(base64_encoded_len(strlen(bytes)), strlen(text));
    assert_int_equal(
        base64_decode(text, strlen(text), back, sizeof(back), &n), OK);
    assert_int_equal(n, strlen(bytes));
    assert_memory_equal(back, bytes, n);
    buf_release(&buf);
}

static void
test_vectors(void **state)
{
    (void)state;
    check("", "");
    check("f", "Zg==");
    check("fo", "Zm8=");
    check("foo", "Zm9v");
    check("foob", "Zm9vYg==");
    check("fooba", "Zm9vYmE=");
    check("foobar", "Zm9vYmFy");
    check("\xff\xef\xbe", "/+++");
}

static void
test_there_and_back(void **state)
{
    (void)state;
    struct rng rng;
    static unsigned char bytes[3000], back[3000];
    size_t n;

    rng_seed(&rng, 5);
    for (size_t len = 0; len < sizeof(bytes); len += len < 40 ? 1 : 97) {
        struct buf buf;
        for (size_t i = 0; i < len; i++) {
            bytes[i] = (unsigned char)rng_u64(&rng);
        }
        buf_init(&buf, 8192);
        base64_encode(&buf, bytes, len);
        assert_int_equal(buf.len, base64_encoded_len(len));
        assert_int_equal(
            base64_decode(buf.len == 0 ? "" : buf.data, buf.len, back, len, &n),
            OK);
        assert_int_equal(n, len);
        assert_memory_equal(back, bytes, len);
        if (len > 0) { /* one byte too few */
            assert_int_equal(
                base64_decode(buf.data, buf.len, back, len - 1, &n),
                ERR_TOO_LARGE);
        }
        buf_release(&buf);
    }
}

static void
test_bad_spellings(void **state)
{
    (void)state;
    static const char *const bad[] = {"Z", "Zg", "Zg=", "Zg===", "=",
        "====", "Z===", "Zg==Zg==", "Zm8=Zg==", "Zh==", "Zm9=", "Zm9v ", "Zm 9",
        "Zm\n9", "Zm-_", "Zm9v\n", "Z=g=", "Zg=x", "Zm\xc3\xa4"};
    char out[64];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t n = 77;
        if (base64_decode(bad[i], strlen(bad[i]), out, sizeof(out), &n) !=
                ERR_SYNTAX ||
            n != 77) {
            fail_msg("%s was accepted", bad[i]);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_bad_spellings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
