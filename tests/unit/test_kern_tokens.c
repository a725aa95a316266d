/*
 * Goal: what the kernel tables have for transformers computes what kern.h says,
 * within the stated bounds.
 *
 * Method: each entry of each table that the processor can run, against plain
 * double arithmetic written here: products of every small shape around the
 * tiles, by strides, transposed, added; softmax of lengths 1..130 with values
 * far apart; activations over [-30, 30] and their derivatives; normalised rows
 * of widths 16 to 1,024 around a mean that is large. Guard words behind outputs
 * catch writes past the end.
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
#include "base/rng.h"
#include "kern/kern.h"

#define EPS 0x1p-23
#define GUARD 12345.0f

typedef void case_fn(const struct kern *k, struct rng *rng);

static void
for_all(case_fn *fn)
{
    const struct kern *k;

    for (size_t i = 0; (k = kern_supported(i)) != NULL; i++) {
        struct rng rng;

        rng_seed(&rng, 3);
        fn(k, &rng);
    }
}

static void
fill(float *x, size_t n, struct rng *rng, double scale)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(scale * rng_normal(rng));
}

/* --- products ------------------------------------------------------------- */

#define M_MAX 27
#define N_MAX 64
#define K_MAX 40
#define LDC (N_MAX + 3)

static void
check_product(const struct kern *k, struct rng *rng, size_t M, size_t N,
    size_t K, bool turned, bool panels, bool add)
{
    static float A[M_MAX * K_MAX], B[K_MAX * N_MAX], C[M_MAX * LDC + 1],
        before[M_MAX * LDC + 1];
    struct kern_product p = {.M = M,
        .N = N,
        .K = K,
        .ldc = LDC,
        .a_row = turned ? 1 : K_MAX,
        .a_col = turned ? M_MAX : 1,
        .b_row = panels ? KERN_PANEL : N_MAX,
        .b_panel = panels ? K * KERN_PANEL : KERN_PANEL,
        .add = add};

    fill(A, ARRAY_LEN(A), rng, 1);
    fill(B, ARRAY_LEN(B), rng, 1);
    for (size_t i = 0; i < ARRAY_LEN(C); i++)
        C[i] = GUARD;
    memcpy(before, C, sizeof C);
    k->product(C, A, B, &p);
    for (size_t i = 0; i < ARRAY_LEN(C); i++) {
        size_t row = i / LDC, col = i % LDC;

        if (row >= M || col >= N) {
            assert_true(C[i] == GUARD);
            continue;
        }
        double sum = add ? (double)before[i] : 0, mass = fabs(sum);
        for (size_t s = 0; s < K; s++) {
            double term = (double)A[row * p.a_row + s * p.a_col] *
                          (double)B[col / KERN_PANEL * p.b_panel + s * p.b_row +
                                    col % KERN_PANEL];
            sum += term;
            mass += fabs(term);
        }
        assert_true(fabs((double)C[i] - sum) <= (double)(K + 1) * EPS * mass);
    }
}

static void
case_product(const struct kern *k, struct rng *rng)
{
    static const size_t depths[] = {0, 1, 3, 16, K_MAX};

    for (size_t M = 0; M <= M_MAX; M++)
        for (size_t N = 0; N <= N_MAX; N += KERN_PANEL)
            for (size_t d = 0; d < ARRAY_LEN(depths); d++)
                for (int way = 0; way < 8; way++)
                    check_product(k, rng, M, N, depths[d], way & 1, way & 2,
                        (way & 4) != 0);
}

static void
products(void **state)
{
    (void)state;
    for_all(case_product);
}

/* --- softmax -------------------------------------------------------------- */

static void
case_softmax(const struct kern *k, struct rng *rng)
{
    enum { MAX_N = 130, ROWS = 2, LD = MAX_N + 2 };
    float x[ROWS * LD], p[ROWS * LD], dp[ROWS * LD], ds[ROWS * LD];

    for (size_t n = 1; n <= MAX_N; n++) {
        fill(x, ARRAY_LEN(x), rng, 20);
        fill(dp, ARRAY_LEN(dp), rng, 1);
        for (size_t i = 0; i < ROWS * LD; i++)
            if (i % LD >= n)
                x[i] = dp[i] = GUARD;
        memcpy(p, x, sizeof x);
        memcpy(ds, dp, sizeof dp);
        k->softmax(p, LD, 0.3f, ROWS, n);
        k->softmax_grad(ds, p, LD, 0.3f, ROWS, n);
        for (size_t r = 0; r < ROWS; r++) {
            double top = -INFINITY, sum = 0, along = 0, mass = 0;

            for (size_t i = 0; i < n; i++)
                top = fmax(top, 0.3f * (double)x[r * LD + i]);
            for (size_t i = 0; i < n; i++)
                sum += exp(0.3f * (double)x[r * LD + i] - top);
            for (size_t i = 0; i < n; i++) {
                along += (double)p[r * LD + i] * (double)dp[r * LD + i];
                mass += fabs((double)p[r * LD + i] * (double)dp[r * LD + i]);
            }
            for (size_t i = 0; i < n; i++) {
                size_t at = r * LD + i;
                double want = exp(0.3f * (double)x[at] - top) / sum;
                double grad = 0.3f * (double)p[at] * ((double)dp[at] - along);

                /* the product by the scale is rounded: 20 * 2^-24 */
                assert_true(fabs((double)p[at] - want) <= 5e-6 * want + 1e-37);
                assert_true(fabs((double)ds[at] - grad) <=
                            0.3f * (double)p[at] * (double)(n + 4) * EPS *
                                (fabs((double)dp[at]) + mass));
            }
            for (size_t i = n; i < LD; i++)
                assert_true(p[r * LD + i] == GUARD && ds[r * LD + i] == GUARD);
        }
    }
}

static void
softmax(void **state)
{
    (void)state;
    for_all(case_softmax);
}

/* --- activations ---------------------------------------------------------- */

static double
act_of(double u, enum kern_act act)
{
    double inner =
        sqrt(2 / 3.14159265358979323846) * (u + 0.044715 * u * u * u);

    if (act == KERN_ACT_RELU)
        return fmax(u, 0);
    if (act == KERN_ACT_GELU)
        return u * 0.5 * erfc(-u / sqrt(2));
    return act == KERN_ACT_NONE ? u : u / (1 + exp(-2 * inner));
}

static void
case_activate(const struct kern *k, struct rng *rng)
{
    enum { N = 64, ROWS = 40, LD = N + 8 };
    static float u[ROWS * LD], y[ROWS * LD], du[ROWS * LD], given[ROWS * LD];
    float bias[N];

    fill(bias, N, rng, 1);
    for (int a = KERN_ACT_NONE; a <= (int)KERN_ACT_GELU_TANH; a++) {
        enum kern_act act = (enum kern_act)a;

        for (size_t i = 0; i < ROWS * LD; i++) {
            u[i] = i % LD < N ? (float)(60.0 * rng_double(rng) - 30) : GUARD;
            if (i < ROWS * LD / 2 && i % LD < N)
                u[i] *= 0.1f;
            y[i] = GUARD;
        }
        memcpy(given, u, sizeof u);
        k->activate(y, u, LD, bias, act, ROWS, N);
        for (size_t i = 0; i < ROWS * LD; i++) {
            if (i % LD >= N) {
                assert_true(y[i] == GUARD && u[i] == GUARD);
                continue;
            }
            assert_true(u[i] == given[i] + bias[i % LD]);
            assert_true(fabs((double)y[i] - act_of((double)u[i], act)) <=
                        4e-7 * fabs((double)u[i]));
        }
        memcpy(given, u, sizeof u);
        k->activate(u, u, LD, NULL, act, ROWS, N);
        assert_memory_equal(u, y, sizeof u);
        fill(du, ROWS * LD, rng, 1);
        memcpy(y, du, sizeof du);
        k->activate_grad(du, u, given, act, ROWS * LD);
        for (size_t i = 0; i < ROWS * LD; i++) {
            double v = (double)given[i], h = 1e-5;
            double slope = (act_of(v + h, act) - act_of(v - h, act)) / (2 * h);

            if (i % LD >= N)
                continue;
            if (act == KERN_ACT_RELU)
                slope = v > 0 ? 1 : 0;
            assert_true(fabs((double)u[i] - act_of(v, act)) <= 4e-7 * fabs(v));
            assert_true(fabs((double)du[i] - slope * (double)y[i]) <=
                        2e-6 * fabs((double)y[i]));
        }
    }
}

static void
activations(void **state)
{
    (void)state;
    for_all(case_activate);
}

/* --- layer normalisation -------------------------------------------------- */

#define ROWS 3
#define WIDTH 1024

static void
check_norm(const struct kern *k, struct rng *rng, size_t n, double shift)
{
    static float x[ROWS * WIDTH], y[ROWS * WIDTH], more[ROWS * WIDTH],
        given[ROWS * WIDTH], gain[WIDTH], bias[WIDTH], add_bias[WIDTH];
    float stats[2 * ROWS];
    const struct kern_norm norm = {gain, bias, 1e-5f, n};

    fill(gain, n, rng, 1);
    fill(bias, n, rng, 1);
    fill(add_bias, n, rng, 1);
    fill(more, ROWS * n, rng, 1);
    fill(x, ROWS * n, rng, 1);
    for (size_t i = 0; i < ROWS * n; i++)
        x[i] += (float)shift;
    memcpy(given, x, sizeof x);
    k->layernorm(y, stats, x, more, add_bias, &norm, ROWS);
    for (size_t r = 0; r < ROWS; r++) {
        double mean = 0, var = 0;

        for (size_t i = r * n; i < (r + 1) * n; i++) {
            double want = (double)given[i] + (double)more[i] +
                          (double)add_bias[i - r * n];
            assert_true(
                fabs((double)x[i] - want) <= 2 * EPS * (fabs(shift) + 20));
            mean += (double)x[i] / (double)n;
        }
        for (size_t i = r * n; i < (r + 1) * n; i++)
            var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
        double inv = 1 / sqrt(var + 1e-5);
        double error = (double)n * EPS * (fabs(shift) + 8) / 8;
        assert_true(fabs((double)stats[2 * r] - mean) <= error);
        assert_true(fabs((double)stats[2 * r + 1] - inv) <= error * inv);
        for (size_t i = r * n; i < (r + 1) * n; i++) {
            double h = ((double)x[i] - mean) * inv;
            double want = (double)gain[i - r * n] * h + (double)bias[i - r * n];
            assert_true(
                fabs((double)y[i] - want) <= 2 * error * (fabs(want) + 4));
        }
    }
    /* in place, and with nothing to add, the same */
    memcpy(given, x, sizeof x);
    k->layernorm(x, NULL, x, NULL, NULL, &norm, ROWS);
    for (size_t i = 0; i < ROWS * n; i++)
        assert_true(fabsf(x[i] - y[i]) <= 1e-5f * (fabsf(y[i]) + 1));
}

static void
case_layernorm(const struct kern *k, struct rng *rng)
{
    for (size_t n = 16; n <= WIDTH; n += n < 128 ? 16 : 128) {
        check_norm(k, rng, n, 0);
        check_norm(k, rng, n, 50);
    }
}

static void
layernorm(void **state)
{
    (void)state;
    for_all(case_layernorm);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(softmax),
        cmocka_unit_test(activations),
        cmocka_unit_test(layernorm),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
