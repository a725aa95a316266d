/*
 * Goal: the built-in document frequencies are there, in the form of prior.h,
 * and tell common words from rare ones; prior_idf_of is its formula.
 *
 * Method: the table's bounds, words whose rank is no matter of doubt, and the
 * formula in double.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/check.h"
#include "base/embed.h"
#include "text/hashed.h"
#include "text/prior.h"

static float
idf(const char *word)
{
    uint64_t feature = hashed_word(word, strlen(word));
    return prior_idf((size_t)prior_slot_bits(feature) & (prior_slots() - 1));
}

static void
test_table(void **state)
{
    size_t n = prior_slots();
    size_t n_rare = 0;

    (void)state;
    assert_int_equal(n, 65536);
    assert_int_equal(embedded_prior_df.len, n);
    for (size_t i = 0; i < n; i++) {
        float v = prior_idf(i);
        assert_true(v > 0 && v <= 1);
        n_rare += v > 0.5f;
    }
    /* most slots are rare features, some are not */
    assert_true(n_rare > n / 2 && n_rare < n);
}

static void
test_common_and_rare(void **state)
{
    static const char *const ladder[] = {"the", "person", "plant", "lizard"};
    (void)state;
    for (size_t i = 0; i + 1 < ARRAY_LEN(ladder); i++)
        assert_true(idf(ladder[i]) < idf(ladder[i + 1]));
    assert_true(idf("the") < 0.2f);
}

static void
test_formula(void **state)
{
    static const uint32_t counts[] = {1, 2, 10, 1000, 14707, 1000000};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        uint32_t n = counts[i];
        float last = 2;
        for (uint32_t df = 0; df <= n; df += n / 7 + 1) {
            double want = log(1 + n / (df + 0.5)) / log(1 + 2.0 * n);
            float got = prior_idf_of(df, n);
            assert_true(fabs((double)got - want) <= 1e-6);
            assert_true(got < last && got > 0);
            last = got;
        }
        assert_true(fabsf(prior_idf_of(0, n) - 1) <= 1e-6f);
    }
}

static void
test_bits(void **state)
{
    (void)state;
    assert_true(prior_slot_bits(UINT64_C(0x123456789abcdef0)) ==
                UINT64_C(0x123456789a));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_common_and_rare),
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
