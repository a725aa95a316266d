/*
 * Goal: a word's features are the n-grams of hashed.h, and never change:
 * trained weights depend on the values.
 *
 * Method: values pinned from tests/golden/make_learning.py's independent
 * hash; the list for every range of lengths against a naive enumeration by
 * characters; the most features that a word can have.
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
#include "base/check.h"
#include "base/hash.h"
#include "text/hashed.h"
#include "text/words.h"

static void
test_pinned(void **state)
{
    static const uint64_t any[] = {UINT64_C(0xb329ba5691263ba9),
        UINT64_C(0x6b51f82a6c717c2c), UINT64_C(0xb908bdff5fdf845b),
        UINT64_C(0xe3a3f987158140ff), UINT64_C(0x214ee358fd439334),
        UINT64_C(0x585bca98700006b7)};
    uint64_t out[HASHED_FEATURES_MAX];

    (void)state;
    assert_int_equal(hashed_features(out, "any", 3, 3, 5), ARRAY_LEN(any));
    for (size_t i = 0; i < ARRAY_LEN(any); i++)
        assert_true(out[i] == any[i]);
    assert_true(hashed_word("any", 3) == any[0]);
    assert_true(hashed_word("caf\xC3\xA9", 5) == UINT64_C(0x168ce98a98f4ca25));
}

/* Every n-gram by its text, found by counting characters again each time. */
static size_t
naive(
    uint64_t *out, const char *word, size_t len, unsigned n_min, unsigned n_max)
{
    char marked[WORDS_MAX_BYTES + 3];
    size_t n_out = 0, n_chars = 0;

    snprintf(marked, sizeof marked, "<%.*s>", (int)len, word);
    for (size_t i = 0; marked[i] != '\0'; i++)
        n_chars += ((unsigned char)marked[i] & 0xC0) != 0x80;
    for (size_t n = n_min; n <= n_max && n < n_chars; n++) {
        for (size_t first = 0; first + n <= n_chars; first++) {
            size_t seen = 0, from = 0, to = 0;
            for (size_t i = 0; marked[i] != '\0'; i++) {
                if (((unsigned char)marked[i] & 0xC0) == 0x80)
                    continue;
                if (seen == first)
                    from = i;
                if (seen == first + n)
                    to = i;
                seen++;
            }
            if (to == 0)
                to = strlen(marked);
            /* the seed that keeps n-grams apart from words */
            out[n_out++] = hash_bytes(marked + from, to - from, 0x72656400);
        }
    }
    return n_out;
}

static void
test_against_naive(void **state)
{
    static const char *const words[] = {"a", "ab", "any", "strength",
        "\xE5\x8C\x97", "caf\xC3\xA9", "\xCE\xB1\xCE\xB2\xCE\xB3\xCE\xB4",
        "x\xF0\x9D\x92\x9Cz"};
    uint64_t out[HASHED_FEATURES_MAX], want[HASHED_FEATURES_MAX];

    (void)state;
    for (size_t w = 0; w < ARRAY_LEN(words); w++) {
        size_t len = strlen(words[w]);
        for (unsigned n_min = HASHED_N_MIN; n_min <= HASHED_N_MAX; n_min++) {
            for (unsigned n_max = 0; n_max <= HASHED_N_MAX; n_max++) {
                size_t n = hashed_features(out, words[w], len, n_min, n_max);
                size_t m = naive(want, words[w], len, n_min, n_max);
                assert_int_equal(n, m + 1);
                assert_true(out[0] == hashed_word(words[w], len));
                assert_true(
                    m == 0 || memcmp(out + 1, want, m * sizeof *want) == 0);
            }
        }
    }
}

static void
test_counts(void **state)
{
    uint64_t out[HASHED_FEATURES_MAX + 1];
    char word[WORDS_MAX_BYTES];

    (void)state;
    /* the header's example: any, <an, any, ny> */
    assert_int_equal(hashed_features(out, "any", 3, 3, 3), 4);
    /* of 5 characters with the marks: 3 + 2, and none of 5 */
    assert_int_equal(hashed_features(out, "any", 3, 3, 6), 6);
    /* n_min over n_max: the word alone */
    assert_int_equal(hashed_features(out, "any", 3, 3, 2), 1);
    assert_int_equal(hashed_features(out, "any", 3, 3, 0), 1);
    /* a word of one letter: <a, a> and not <a> */
    assert_int_equal(hashed_features(out, "a", 1, 2, 6), 3);
    memset(word, 'x', sizeof word);
    out[HASHED_FEATURES_MAX] = 42;
    size_t n =
        hashed_features(out, word, sizeof word, HASHED_N_MIN, HASHED_N_MAX);
    assert_int_equal(n, 1 + 65 + 64 + 63 + 62 + 61);
    assert_true(n <= HASHED_FEATURES_MAX && out[HASHED_FEATURES_MAX] == 42);
}

/* "any" the word is not "any" the part of a longer word. */
static void
test_words_and_parts_differ(void **state)
{
    uint64_t out[HASHED_FEATURES_MAX];

    (void)state;
    size_t n = hashed_features(out, "many", 4, 2, 6);
    for (size_t i = 1; i < n; i++) {
        assert_true(out[i] != hashed_word("any", 3));
        for (size_t j = 0; j < i; j++)
            assert_true(out[i] != out[j]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_against_naive),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_words_and_parts_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
