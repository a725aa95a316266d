/*
 * Goal: hash_bytes and hash_u64 never change and spread well; SHA-256 is the
 * standard's.
 * Method: values from tests/golden/base_values.py (an implementation by the
 * text, not by the C); avalanche and collisions over short strings; the
 * vectors of FIPS 180-4.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"

static const struct {
    size_t n;
    uint64_t seed_0, seed_42;
} pins[] = {
    {0, UINT64_C(0x57b630e0964af7bd), UINT64_C(0x5216d69f06dca7e8)},
    {1, UINT64_C(0xf654ca61c9556cb8), UINT64_C(0x9736f06d1b45aee4)},
    {2, UINT64_C(0x6cec844275a3f45c), UINT64_C(0x95e1e5cc5173deb0)},
    {3, UINT64_C(0x2332b03defb97ea6), UINT64_C(0xf1123d70fb534949)},
    {4, UINT64_C(0x21f26221d99cfa5c), UINT64_C(0x5e314ee057e53bb2)},
    {5, UINT64_C(0x1adb6ca42198f49c), UINT64_C(0x410ef3f3322543db)},
    {7, UINT64_C(0x29e3efdfef1e78f0), UINT64_C(0xc5397cef37dbbdd7)},
    {8, UINT64_C(0x78dc80f39a294211), UINT64_C(0x8bb3c7cbccc54f7b)},
    {9, UINT64_C(0x507f4d39f4319af5), UINT64_C(0x2066f0a9c0670685)},
    {15, UINT64_C(0x0b44142dadce05d9), UINT64_C(0xeb12581e057d699a)},
    {16, UINT64_C(0x62d98e2d1bc60189), UINT64_C(0x43d09edda357da42)},
    {17, UINT64_C(0xbf48a17240e7229a), UINT64_C(0x1a4c39c6e2c2f994)},
    {24, UINT64_C(0x8dbb761298ae6c36), UINT64_C(0x003ef29b720ab940)},
    {31, UINT64_C(0x10cc218169696aa2), UINT64_C(0x9c4b22e9ebc6d81e)},
    {32, UINT64_C(0x5a3e229767940096), UINT64_C(0x56fe8b009ede8b68)},
    {33, UINT64_C(0xae5b8d9dcbef1381), UINT64_C(0xa7966019798cb282)},
    {48, UINT64_C(0xe2003e995bd6d7b9), UINT64_C(0x39d50b9e8e2c3f32)},
    {49, UINT64_C(0x3542a5401f741ea5), UINT64_C(0xd9e297d935da6cfe)},
    {64, UINT64_C(0xba5e1e9600d2ca37), UINT64_C(0x7d34b1aee51c4257)},
    {100, UINT64_C(0x98146f463dfb6590), UINT64_C(0x6dcc26c8d60c9c8f)},
};

static void
test_pinned_values(void **state)
{
    (void)state;
    unsigned char text[101];

    for (size_t at = 0; at < 2; at++) { /* alignment does not matter */
        for (size_t i = 0; i < 100; i++) {
            text[at + i] = (unsigned char)(i + 1);
        }
        for (size_t i = 0; i < sizeof(pins) / sizeof(pins[0]); i++) {
            assert_true(hash_bytes(text + at, pins[i].n, 0) == pins[i].seed_0);
            assert_true(
                hash_bytes(text + at, pins[i].n, 42) == pins[i].seed_42);
        }
    }
    assert_true(hash_bytes(NULL, 0, 0) == pins[0].seed_0);
    assert_true(hash_u64(0) == 0);
    assert_true(hash_u64(1) == UINT64_C(0x5692161d100b05e5));
    assert_true(hash_u64(2) == UINT64_C(0xdbd238973a2b148a));
    assert_true(hash_u64(UINT64_MAX) == UINT64_C(0xb4d055fcf2cbbd7b));
}

static unsigned
bits_set(uint64_t v)
{
    unsigned n = 0;

    for (; v != 0; v &= v - 1) {
        n++;
    }
    return n;
}

/* One flipped input bit flips about half of the output, whatever the length. */
static void
test_avalanche(void **state)
{
    (void)state;
    unsigned char text[40];
    uint64_t x = 1;

    for (size_t n = 1; n <= sizeof(text); n++) {
        uint64_t flips = 0, tries = 0;
        for (size_t round = 0; round < 40; round++) {
            for (size_t i = 0; i < n; i++) {
                text[i] = (unsigned char)(x = hash_u64(x + i));
            }
            uint64_t before = hash_bytes(text, n, round);
            for (size_t bit = 0; bit < 8 * n; bit++) {
                text[bit / 8] ^= (unsigned char)(1U << bit % 8);
                flips += bits_set(before ^ hash_bytes(text, n, round));
                text[bit / 8] ^= (unsigned char)(1U << bit % 8);
                tries++;
            }
        }
        double mean = (double)flips / (double)tries;
        assert_true(mean > 30.5 && mean < 33.5);
    }
}

static int
compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* All strings of up to 3 small letters, and numbers as text: no two alike, and
   the low 16 bits (a table's bucket) evenly filled. */
static void
test_short_strings_spread(void **state)
{
    (void)state;
    enum { N = 26 + 676 + 17576 + 100000 };
    uint64_t *hash = malloc(N * sizeof(*hash));
    unsigned *bucket = calloc(65536, sizeof(*bucket));
    size_t n = 0;
    char s[16];

    assert_non_null(hash);
    assert_non_null(bucket);
    for (int a = 0; a < 26; a++) {
        s[0] = (char)('a' + a);
        hash[n++] = hash_bytes(s, 1, 9);
        for (int b = 0; b < 26; b++) {
            s[1] = (char)('a' + b);
            hash[n++] = hash_bytes(s, 2, 9);
            for (int c = 0; c < 26; c++) {
                s[2] = (char)('a' + c);
                hash[n++] = hash_bytes(s, 3, 9);
            }
        }
    }
    for (int i = 0; i < 100000; i++) {
        int len = snprintf(s, sizeof(s), "%d", i);
        hash[n++] = hash_bytes(s, (size_t)len, 9);
    }
    assert_int_equal(n, N);
    double chi = 0;
    for (size_t i = 0; i < n; i++) {
        bucket[hash[i] & 0xffff]++;
    }
    for (size_t i = 0; i < 65536; i++) {
        double d = (double)bucket[i] - (double)n / 65536;
        chi += d * d / ((double)n / 65536);
    }
    /* 65,535 degrees of freedom, standard deviation 362: 6 of them. */
    assert_true(chi > 63363 && chi < 67707);
    qsort(hash, n, sizeof(*hash), compare);
    for (size_t i = 1; i < n; i++) {
        assert_true(hash[i - 1] != hash[i]);
    }
    free(hash);
    free(bucket);
}

static void
check_sha(const char *text, size_t n, const char *want)
{
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX];
    struct sha256 ctx;

    sha256_of(text, n, digest);
    sha256_hex(digest, hex);
    assert_string_equal(hex, want);
    sha256_start(&ctx);
    for (size_t i = 0; i < n; i++) { /* in pieces */
        sha256_add(&ctx, text + i, 1);
    }
    sha256_add(&ctx, NULL, 0);
    sha256_finish(&ctx, digest);
    sha256_hex(digest, hex);
    assert_string_equal(hex, want);
}

static void
test_sha256_vectors(void **state)
{
    (void)state;
    static char a[1000000];

    check_sha("", 0,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_sha("abc", 3,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(a, 'a', sizeof(a));
    check_sha(a, sizeof(a),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pinned_values),
        cmocka_unit_test(test_avalanche),
        cmocka_unit_test(test_short_strings_spread),
        cmocka_unit_test(test_sha256_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
