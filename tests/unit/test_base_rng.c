/*
 * Goal: a seed gives one sequence on every machine; the distributions are what
 * they are called; bounded numbers are unbiased.
 * Method: values from tests/golden/base_values.py, moments of 200,000 draws
 * (bounds of 6 standard errors), a chi-square over a bound that is no power of
 * two.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "base/rng.h"

static void
check_first(struct rng *rng, const uint64_t want[4])
{
    for (size_t i = 0; i < 4; i++) {
        assert_true(rng_u64(rng) == want[i]);
    }
}

static void
test_golden_sequences(void **state)
{
    (void)state;
    struct rng rng;
    static const uint64_t seed_0[4] = {UINT64_C(0x99ec5f36cb75f2b4),
        UINT64_C(0xbf6e1f784956452a), UINT64_C(0x1a5f849d4933e6e0),
        UINT64_C(0x6aa594f1262d2d2c)};
    static const uint64_t seed_42[4] = {UINT64_C(0x15780b2e0c2ec716),
        UINT64_C(0x6104d9866d113a7e), UINT64_C(0xae17533239e499a1),
        UINT64_C(0xecb8ad4703b360a1)};
    static const uint64_t stream_0[4] = {UINT64_C(0x4fa257184348bb94),
        UINT64_C(0x7c2c9a11c6af5cf1), UINT64_C(0x74a4342d6693dd9d),
        UINT64_C(0x24aa4e0a755d6680)};
    static const uint64_t stream_1[4] = {UINT64_C(0xf5d6dc4a343f53ac),
        UINT64_C(0x5779502ad8c94a72), UINT64_C(0x5e771957337d0cea),
        UINT64_C(0x472ca2fdf7b0f832)};

    rng_seed(&rng, 0);
    check_first(&rng, seed_0);
    rng_seed(&rng, 42);
    check_first(&rng, seed_42);
    rng_seed_stream(&rng, 42, 0);
    check_first(&rng, stream_0);
    rng_seed_stream(&rng, 42, 1);
    check_first(&rng, stream_1);
}

static void
test_uniform_moments(void **state)
{
    (void)state;
    struct rng rng;
    double sum = 0, sum_f = 0, squares = 0;
    size_t n = 200000;

    rng_seed(&rng, 1);
    for (size_t i = 0; i < n; i++) {
        double v = rng_double(&rng);
        float f = rng_float(&rng);
        assert_true(v >= 0 && v < 1);
        assert_true(f >= 0 && f < 1);
        sum += v;
        squares += v * v;
        sum_f += (double)f;
    }
    double error = sqrt(1.0 / 12 / (double)n);
    assert_true(fabs(sum / (double)n - 0.5) <= 6 * error);
    assert_true(fabs(sum_f / (double)n - 0.5) <= 6 * error);
    assert_true(fabs(squares / (double)n - 1.0 / 3) <= 6 * error);
}

static void
test_normal_moments(void **state)
{
    (void)state;
    struct rng rng;
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, far = 0;
    size_t n = 200000;

    rng_seed(&rng, 2);
    for (size_t i = 0; i < n; i++) {
        double v = rng_normal(&rng);
        m1 += v;
        m2 += v * v;
        m3 += v * v * v;
        m4 += v * v * v * v;
        far += fabs(v) > 1.959963985;
    }
    double r = 6 / sqrt((double)n);
    assert_true(fabs(m1 / (double)n) <= r);
    assert_true(fabs(m2 / (double)n - 1) <= r * sqrt(2));
    assert_true(fabs(m3 / (double)n) <= r * sqrt(15));
    assert_true(fabs(m4 / (double)n - 3) <= r * sqrt(96));
    assert_true(fabs(far / (double)n - 0.05) <= r * 0.218);
}

/* Polar method again, with libm's logarithm, over the same numbers. */
static void
test_normal_uses_a_true_logarithm(void **state)
{
    (void)state;
    struct rng a, b;

    rng_seed(&a, 5);
    b = a;
    for (size_t i = 0; i < 100000; i++) {
        double u, v, s;
        do {
            u = 2 * rng_double(&b) - 1;
            v = 2 * rng_double(&b) - 1;
            s = u * u + v * v;
        } while (s <= 0 || s >= 1);
        double want = u * sqrt(-2 * log(s) / s);
        double got = rng_normal(&a);
        assert_true(fabs(got - want) <= 1e-14 * (1 + fabs(want)));
    }
}

static void
test_below_is_unbiased(void **state)
{
    (void)state;
    struct rng rng;
    enum { K = 7 };
    size_t count[K] = {0}, n = 140000;
    double chi = 0;

    rng_seed(&rng, 3);
    for (size_t i = 0; i < n; i++) {
        uint64_t v = rng_below(&rng, K);
        assert_true(v < K);
        count[v]++;
    }
    for (size_t i = 0; i < K; i++) {
        double d = (double)count[i] - (double)n / K;
        chi += d * d / ((double)n / K);
    }
    assert_true(chi <= 30); /* 6 degrees of freedom: 4e-5 by chance */
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(rng_below(&rng, 1), 0);
        assert_true(rng_below(&rng, UINT64_MAX) < UINT64_MAX);
    }
    /* 3/4 of 2^64: without the rejection every third value comes twice as
       often, with a plain modulus the lower third does. */
    uint64_t big = UINT64_C(0xc000000000000000);
    size_t low = 0, third = 0;
    for (size_t i = 0; i < 60000; i++) {
        uint64_t v = rng_below(&rng, big);
        low += v < big / 3;
        third += v % 3 == 0;
    }
    assert_true(low > 19000 && low < 21000);
    assert_true(third > 19000 && third < 21000);
}

static void
test_shuffle_is_a_fair_permutation(void **state)
{
    (void)state;
    struct rng rng;
    size_t first[5] = {0};

    rng_seed(&rng, 4);
    for (size_t round = 0; round < 50000; round++) {
        uint32_t v[5] = {0, 1, 2, 3, 4};
        unsigned seen = 0;
        rng_shuffle_u32(&rng, v, 5);
        for (size_t i = 0; i < 5; i++) {
            seen |= 1U << v[i];
        }
        assert_int_equal(seen, 31);
        first[v[0]]++;
    }
    for (size_t i = 0; i < 5; i++) {
        assert_true(first[i] > 9400 && first[i] < 10600);
    }
    rng_shuffle_u32(&rng, NULL, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_sequences),
        cmocka_unit_test(test_uniform_moments),
        cmocka_unit_test(test_normal_moments),
        cmocka_unit_test(test_normal_uses_a_true_logarithm),
        cmocka_unit_test(test_below_is_unbiased),
        cmocka_unit_test(test_shuffle_is_a_fair_permutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
