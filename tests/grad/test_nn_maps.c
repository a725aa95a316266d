/*
 * Goal: the layers of a convolutional network that are not convolutions -
 * group normalisation, weight standardisation, pooling - are what their
 * formulas say, and their backward passes the derivatives.
 *
 * Method: the forward pass against the formula in double. A random projection
 * of the output is the objective; central differences over the step really
 * taken, relative error with a floor. Every input is compared on small maps,
 * for both block sizes, with and without ReLU and residual, for every table of
 * kernels. Values near the ReLU's corner are left out. Gradients that
 * accumulate are doubled by a second call.
 */
#include <math.h>
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
#include "base/rng.h"
#include "kern/kern.h"
#include "nn/groupnorm.h"
#include "nn/pooling.h"
#include "nn/standardize.h"

#define CHANNELS 32
#define HW_MAX 49
#define N_MAX (CHANNELS * HW_MAX)
#define TOLERANCE 0.01
#define FLOOR 0.2
#define STEP 0.01f

static void
noise(float *p, size_t n, struct rng *rng, float scale, float shift)
{
    for (size_t i = 0; i < n; i++)
        p[i] = scale * (float)rng_normal(rng) + shift;
}

static void
compare(double numeric, double exact, const char *what, size_t i)
{
    double err =
        fabs(numeric - exact) / fmax(fmax(fabs(numeric), fabs(exact)), FLOOR);
    if (!(err <= TOLERANCE))
        print_error("%s %zu: %g by differences, %g by backward\n", what, i,
            numeric, exact);
    assert_true(err <= TOLERANCE);
}

static double
dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* --------------------------------------------------- group normalisation */

struct map {
    size_t HW, b, n;
    bool relu, has_residual;
    float x[N_MAX], residual[N_MAX], y[N_MAX], dy[N_MAX], dx[N_MAX];
    float gain[CHANNELS], bias[CHANNELS], dgain[CHANNELS], dbias[CHANNELS];
    float stats[GROUPNORM_STATS(CHANNELS)];
    struct groupnorm norm;
};

static size_t
channel_of(const struct map *m, size_t i)
{
    return i / (m->HW * m->b) * m->b + i % m->b;
}

static void
make_map(struct map *m, size_t HW, size_t b, bool relu, bool residual)
{
    struct rng rng;
    rng_seed(&rng, 3 + HW + b);
    m->HW = HW;
    m->b = b;
    m->n = CHANNELS * HW;
    m->relu = relu;
    m->has_residual = residual;
    noise(m->x, m->n, &rng, 2, 5);
    noise(m->residual, m->n, &rng, 1, 0);
    noise(m->gain, CHANNELS, &rng, 0.5f, 1);
    noise(m->bias, CHANNELS, &rng, 0.5f, 0);
    noise(m->dy, m->n, &rng, 1, 0);
    m->norm = (struct groupnorm){.C = CHANNELS,
        .HW = HW,
        .b = b,
        .gain = m->gain,
        .bias = m->bias,
        .relu = relu};
}

static double
norm_objective(struct map *m)
{
    groupnorm_forward(
        m->y, m->stats, m->x, m->has_residual ? m->residual : NULL, &m->norm);
    return dot(m->y, m->dy, m->n);
}

/* The formula, in double; returns the value before the ReLU. */
static double
norm_reference(const struct map *m, size_t i)
{
    size_t c = channel_of(m, i), run = GROUPNORM_CHANNELS * m->HW;
    size_t start = i / run * run;
    double mean = 0, var = 0;
    for (size_t j = start; j < start + run; j++)
        mean += (double)m->x[j] / (double)run;
    for (size_t j = start; j < start + run; j++)
        var +=
            ((double)m->x[j] - mean) * ((double)m->x[j] - mean) / (double)run;
    double u =
        (double)m->gain[c] * ((double)m->x[i] - mean) / sqrt(var + 1e-5) +
        (double)m->bias[c];
    return m->has_residual ? u + (double)m->residual[i] : u;
}

static double
norm_slope(struct map *m, float *at)
{
    float was = *at;
    volatile float up = was + STEP, down = was - STEP;
    *at = up;
    double high = norm_objective(m);
    *at = down;
    double low = norm_objective(m);
    *at = was;
    return (high - low) / ((double)up - (double)down);
}

/* No value so near to the corner that a step could cross it; steps of one
   input move the others of its group by little. */
static void
keep_from_corner(struct map *m)
{
    for (size_t i = 0; i < m->n && m->relu; i++) {
        if (fabs(norm_reference(m, i)) < 0.1)
            m->dy[i] = 0;
    }
}

static void
check_norm(size_t HW, size_t b, bool relu, bool residual)
{
    static struct map m;
    static float again[N_MAX], dy[N_MAX];

    memset(&m, 0, sizeof m);
    make_map(&m, HW, b, relu, residual);
    keep_from_corner(&m);
    norm_objective(&m);
    for (size_t i = 0; i < m.n; i++) {
        double u = norm_reference(&m, i);
        double want = relu && u < 0 ? 0 : u;
        assert_true(fabs((double)m.y[i] - want) <= 2e-5 * (1 + fabs(want)));
    }
    groupnorm_again(again, m.stats, m.x, residual ? m.residual : NULL, &m.norm);
    assert_memory_equal(again, m.y, m.n * sizeof *again);
    for (int times = 0; times < 2; times++) {
        memcpy(dy, m.dy, sizeof dy);
        groupnorm_backward(
            m.dx, m.dgain, m.dbias, dy, m.y, m.stats, m.x, &m.norm);
    }
    float twice_gain[CHANNELS], twice_bias[CHANNELS];
    memcpy(twice_gain, m.dgain, sizeof twice_gain);
    memcpy(twice_bias, m.dbias, sizeof twice_bias);
    /* du is the residual's gradient */
    for (size_t i = 0; i < m.n; i++) {
        float want = relu && !(m.y[i] > 0) ? 0 : m.dy[i];
        assert_true(!(dy[i] < want) && !(dy[i] > want));
    }
    /* in place it is the same */
    memcpy(dy, m.dy, sizeof dy);
    memset(m.dgain, 0, sizeof m.dgain);
    memset(m.dbias, 0, sizeof m.dbias);
    groupnorm_backward(dy, m.dgain, m.dbias, dy, m.y, m.stats, m.x, &m.norm);
    assert_memory_equal(dy, m.dx, m.n * sizeof *dy);
    for (size_t i = 0; i < CHANNELS; i++) {
        assert_true(fabsf(twice_gain[i] - 2 * m.dgain[i]) <= 1e-4f);
        assert_true(fabsf(twice_bias[i] - 2 * m.dbias[i]) <= 1e-4f);
    }
    for (size_t i = 0; i < m.n; i++)
        compare(norm_slope(&m, &m.x[i]), (double)m.dx[i], "x", i);
    for (size_t i = 0; i < CHANNELS; i++) {
        compare(norm_slope(&m, &m.gain[i]), (double)m.dgain[i], "gain", i);
        compare(norm_slope(&m, &m.bias[i]), (double)m.dbias[i], "bias", i);
    }
}

static void
group_normalisation(void **state)
{
    static const size_t sizes[] = {1, 2, 9, 16};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (size_t b = 8; b <= 16; b += 8)
            for (int kind = 0; kind < 4; kind++)
                check_norm(sizes[i], b, kind & 1, kind & 2);
}

/* A large mean and a group longer than a run of float sums. */
static void
statistics_of_long_groups(void **state)
{
    enum { LONG = 16 * 1024 };
    static float x[LONG], y[LONG];
    float gain[16], bias[16], stats[2];
    struct rng rng;
    (void)state;

    rng_seed(&rng, 4);
    noise(x, LONG, &rng, 0.5f, 300);
    double mean = 0, var = 0;
    for (size_t i = 0; i < LONG; i++)
        mean += (double)x[i] / LONG;
    for (size_t i = 0; i < LONG; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / LONG;
    for (size_t i = 0; i < 16; i++)
        gain[i] = 1, bias[i] = 0;
    struct groupnorm norm = {
        .C = 16, .HW = LONG / 16, .b = 8, .gain = gain, .bias = bias};
    groupnorm_forward(y, stats, x, NULL, &norm);
    assert_true(fabs((double)stats[0] - mean) <= 1e-4);
    assert_true(fabs((double)stats[1] * sqrt(var + 1e-5) - 1) <= 1e-4);
}

/* ------------------------------------------------------ standardisation */

static void
weight_standardisation(void **state)
{
    enum { ROWS = 3, K = 27 };
    static float w[ROWS * K], z[ROWS * K], dz[ROWS * K], dw[ROWS * K];
    struct rng rng;
    (void)state;

    rng_seed(&rng, 8);
    noise(w, ROWS * K, &rng, 0.3f, 0.2f);
    noise(dz, ROWS * K, &rng, 1, 0);
    standardize_forward(z, w, ROWS, K);
    for (size_t r = 0; r < ROWS; r++) {
        double sum = 0, square = 0;
        for (size_t i = 0; i < K; i++) {
            sum += (double)z[r * K + i];
            square += (double)z[r * K + i] * (double)z[r * K + i];
        }
        assert_true(fabs(sum) <= 1e-5 && fabs(square - 1) <= 1e-5);
    }
    memset(dw, 0, sizeof dw);
    standardize_backward(dw, dz, w, ROWS, K);
    for (size_t i = 0; i < ROWS * K; i++) {
        float was = w[i];
        volatile float up = was + STEP, down = was - STEP;
        w[i] = up;
        standardize_forward(z, w, ROWS, K);
        double high = dot(z, dz, ROWS * K);
        w[i] = down;
        standardize_forward(z, w, ROWS, K);
        double low = dot(z, dz, ROWS * K);
        w[i] = was;
        compare(
            (high - low) / ((double)up - (double)down), (double)dw[i], "w", i);
    }
    memcpy(z, dw, sizeof z);
    standardize_backward(dw, dz, w, ROWS, K);
    for (size_t i = 0; i < ROWS * K; i++)
        assert_true(fabsf(dw[i] - 2 * z[i]) <= 1e-5f * fabsf(z[i]) + 1e-7f);
}

/* -------------------------------------------------------------- pooling */

static void
check_pooling(size_t H, size_t G, size_t b)
{
    static float x[N_MAX], f[16 * CHANNELS], df[16 * CHANNELS], dx[N_MAX];
    struct rng rng;

    rng_seed(&rng, H * 10 + G);
    noise(x, CHANNELS * H * H, &rng, 1, 0);
    noise(df, G * G * CHANNELS, &rng, 1, 0);
    pooling_forward(f, x, CHANNELS, H, G, b);
    for (size_t g = 0; g < G * G; g++)
        for (size_t c = 0; c < CHANNELS; c++) {
            size_t r0 = g / G * H / G, r1 = ((g / G + 1) * H + G - 1) / G;
            size_t c0 = g % G * H / G, c1 = ((g % G + 1) * H + G - 1) / G;
            double sum = 0;
            for (size_t i = r0; i < r1; i++)
                for (size_t j = c0; j < c1; j++)
                    sum += (double)x[(c / b * H * H + i * H + j) * b + c % b];
            sum /= (double)((r1 - r0) * (c1 - c0));
            assert_true(fabs((double)f[g * CHANNELS + c] - sum) <= 1e-5);
        }
    /* linear: <df, f(x)> = <dx(df), x> for every x, one member at a time */
    memset(dx, 0xFF, sizeof dx);
    pooling_backward(dx, df, CHANNELS, H, G, b);
    for (size_t i = 0; i < CHANNELS * H * H; i++) {
        memset(x, 0, sizeof x);
        x[i] = 1;
        pooling_forward(f, x, CHANNELS, H, G, b);
        assert_true(fabs(dot(f, df, G * G * CHANNELS) - (double)dx[i]) <= 1e-5);
    }
}

static void
pooling(void **state)
{
    (void)state;
    for (size_t b = 8; b <= 16; b += 8) {
        check_pooling(7, 1, b);
        check_pooling(7, 2, b);
        check_pooling(7, 4, b);
        check_pooling(4, 4, b);
        check_pooling(1, 1, b);
        check_pooling(1, 2, b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_normalisation),
        cmocka_unit_test(statistics_of_long_groups),
        cmocka_unit_test(weight_standardisation),
        cmocka_unit_test(pooling),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL); /* scalar */
    kern_init();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
