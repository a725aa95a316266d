/*
 * Goal: the trie finds the strings that it was built from and no others, and
 * pieces keep their numbers.
 * Method: random keys over small and full alphabets against a list that is
 * searched one by one; the byte 0 in what is looked up; key sets that are
 * empty, nested, dense at one node; every failing allocation.
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

#include "base/alloc.h"
#include "base/rng.h"
#include "text/trie.h"

#define N_KEYS 3000
#define KEY_BYTES 12

static char bytes[N_KEYS][KEY_BYTES];
static struct trie_key keys[N_KEYS];

/* Random keys of an alphabet, sorted, without repetitions; returns how many. */
static size_t
make_keys(struct rng *rng, size_t n, unsigned n_letters)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        keys[i].s = bytes[i];
        keys[i].len = 1 + (uint32_t)rng_below(rng, KEY_BYTES);
        for (uint32_t k = 0; k < keys[i].len; k++)
            bytes[i][k] = (char)(1 + rng_below(rng, n_letters));
    }
    (void)trie_sort(keys, n);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || keys[kept - 1].len != keys[i].len ||
            memcmp(keys[kept - 1].s, keys[i].s, keys[i].len) != 0)
            keys[kept++] = keys[i];
    }
    for (size_t i = 0; i < kept; i++)
        keys[i].value = (uint32_t)rng_below(rng, TRIE_VALUE_MAX + 1);
    assert_int_equal(trie_sort(keys, kept), kept);
    return kept;
}

/* The longest key at the beginning of s, or NULL. */
static const struct trie_key *
naive_longest(size_t n, const char *s, size_t len)
{
    const struct trie_key *best = NULL;
    for (size_t i = 0; i < n; i++) {
        if (keys[i].len <= len && memcmp(keys[i].s, s, keys[i].len) == 0 &&
            (best == NULL || best->len < keys[i].len))
            best = &keys[i];
    }
    return best;
}

static void
check_lookups(struct rng *rng, const struct trie *trie, size_t n,
    unsigned n_letters, size_t n_lookups)
{
    char s[KEY_BYTES + 4];
    uint32_t value;
    for (size_t i = 0; i < n_lookups; i++) {
        size_t len = (size_t)rng_below(rng, sizeof s + 1);
        for (size_t k = 0; k < len; k++)
            s[k] = (char)rng_below(rng, n_letters + 2);
        const struct trie_key *want = naive_longest(n, s, len);
        assert_int_equal(
            trie_longest(trie, s, len, &value), want == NULL ? 0 : want->len);
        if (want != NULL)
            assert_int_equal(value, want->value);
        assert_int_equal(
            trie_find(trie, s, len, &value), want != NULL && want->len == len);
    }
}

static void
test_random_keys(void **state)
{
    static const unsigned alphabets[] = {1, 2, 5, 100, 253};
    struct rng rng;
    uint32_t value;
    (void)state;
    rng_seed(&rng, 3);
    for (size_t a = 0; a < ARRAY_LEN(alphabets); a++) {
        for (size_t n = 1; n <= N_KEYS; n = n * 7 + 3) {
            struct trie trie;
            size_t kept = make_keys(&rng, n, alphabets[a]);
            assert_int_equal(trie_build(&trie, keys, kept), OK);
            assert_int_equal(trie.n_units % 256, 0);
            for (size_t i = 0; i < kept; i++) {
                assert_true(trie_find(&trie, keys[i].s, keys[i].len, &value));
                assert_int_equal(value, keys[i].value);
            }
            check_lookups(&rng, &trie, kept, alphabets[a], 500);
            trie_release(&trie);
        }
    }
}

static void
test_no_keys(void **state)
{
    struct trie trie;
    uint32_t value;
    (void)state;
    assert_int_equal(trie_build(&trie, NULL, 0), OK);
    for (int c = 0; c < 256; c++) {
        char s = (char)c;
        assert_false(trie_find(&trie, &s, 1, &value));
        assert_int_equal(trie_longest(&trie, &s, 1, &value), 0);
    }
    trie_release(&trie);
    trie_release(&trie);
}

static void
test_repeated_key(void **state)
{
    struct trie_key two[] = {{"b", 1, 0}, {"ab", 2, 1}, {"b", 1, 2}};
    (void)state;
    assert_int_equal(trie_sort(two, 3), 2);
    assert_int_equal(two[0].value, 1);
}

/* A node with every byte as a child, and values as large as they may be. */
static void
test_dense_node(void **state)
{
    static char s[255][2];
    static struct trie_key dense[510];
    struct trie trie;
    uint32_t value;
    (void)state;
    for (int c = 1; c < 256; c++) {
        s[c - 1][0] = s[c - 1][1] = (char)c;
        dense[2 * c - 2] =
            (struct trie_key){s[c - 1], 1, TRIE_VALUE_MAX - (uint32_t)c};
        dense[2 * c - 1] = (struct trie_key){s[c - 1], 2, (uint32_t)c};
    }
    assert_int_equal(trie_sort(dense, 510), 510);
    assert_int_equal(trie_build(&trie, dense, 510), OK);
    for (int c = 1; c < 256; c++) {
        assert_true(trie_find(&trie, s[c - 1], 1, &value));
        assert_int_equal(value, TRIE_VALUE_MAX - (uint32_t)c);
        assert_true(trie_find(&trie, s[c - 1], 2, &value));
        assert_int_equal(value, c);
    }
    trie_release(&trie);
}

static void
test_memory_runs_out(void **state)
{
    struct rng rng;
    enum err err = ERR_NOMEM;
    (void)state;
    rng_seed(&rng, 4);
    size_t n = make_keys(&rng, 2000, 200), at = 0;
    while (err == ERR_NOMEM) {
        struct trie trie = {0};
        alloc_fail_at(++at);
        err = trie_build(&trie, keys, n);
        alloc_fail_at(0);
        assert_true((err == OK) == (trie.units != NULL));
        trie_release(&trie);
    }
    assert_int_equal(err, OK);
    assert_true(at > 5);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_keys),
        cmocka_unit_test(test_no_keys),
        cmocka_unit_test(test_repeated_key),
        cmocka_unit_test(test_dense_node),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
