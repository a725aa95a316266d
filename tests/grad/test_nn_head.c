/*
 * Goal: the projection head and the unit rows at its end are what their headers
 * say, and their backward passes are the derivatives.
 *
 * Method: the forward pass written down again in double from the formula; the
 * objective is a random projection of y; its central differences by every input
 * and parameter, for 0 to 3 layers, with and without the last bias, at sizes on
 * both sides of a shard. Where a step crosses a ReLU's kink the difference is
 * no derivative: such entries are recognised by the second step and left out.
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
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "nn/head.h"
#include "nn/l2norm.h"

#define N_MAX 70
#define DIMS_MAX 70
#define PARAMS_MAX (3 * (DIMS_MAX + 1) * DIMS_MAX)
#define TOLERANCE 1e-4

struct problem {
    struct head_shape shape;
    size_t n, n_params;
    float x[N_MAX * DIMS_MAX], params[PARAMS_MAX], y[N_MAX * DIMS_MAX];
    float dy[N_MAX * DIMS_MAX], dx[N_MAX * DIMS_MAX], d_params[PARAMS_MAX];
    float tape[N_MAX * DIMS_MAX * 6];
    double x64[N_MAX * DIMS_MAX], params64[PARAMS_MAX];
};

static void
make(struct problem *p, struct head_shape shape, size_t n, uint64_t seed)
{
    struct rng rng;

    memset(p, 0, sizeof *p);
    p->shape = shape;
    p->n = n;
    p->n_params = head_n_params(&shape);
    assert_true(p->n_params <= PARAMS_MAX);
    assert_true(head_tape_floats(&shape, n) <= ARRAY_LEN(p->tape));
    rng_seed(&rng, seed);
    head_init(&shape, p->params, &rng);
    for (size_t i = 0; i < n * shape.n_in; i++)
        p->x[i] = (float)rng_normal(&rng);
    float norm[N_MAX];
    l2norm_forward(p->x, norm, p->x, n, shape.n_in, NULL);
    for (size_t i = 0; i < n * shape.n_out; i++)
        p->dy[i] = (float)rng_normal(&rng);
    /* biases start as zeros: give them something to be differentiated at */
    struct head_part parts[HEAD_PARTS_MAX];
    size_t n_parts = head_parts(&shape, parts);
    for (size_t i = 0; i < n_parts; i++) {
        for (size_t j = 0; j < parts[i].n && parts[i].is_bias; j++)
            p->params[parts[i].start + j] = 0.3f * (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < n * shape.n_in; i++)
        p->x64[i] = (double)p->x[i];
    for (size_t i = 0; i < p->n_params; i++)
        p->params64[i] = (double)p->params[i];
}

/* The header's formula for row i, into y. */
static void
reference_row(const struct problem *p, size_t i, double *y)
{
    const struct head_shape *s = &p->shape;
    double h[DIMS_MAX], square = 0;
    size_t in = s->n_in, at = 0;

    for (size_t d = 0; d < in; d++)
        h[d] = p->x64[i * in + d] * (s->n_layers > 0 ? sqrt((double)in) : 1);
    for (size_t l = 1; l <= s->n_layers; l++) {
        bool last = l == s->n_layers;
        size_t out = last ? s->n_out : s->n_hidden;
        double next[DIMS_MAX];
        for (size_t o = 0; o < out; o++) {
            next[o] = 0;
            for (size_t d = 0; d < in; d++)
                next[o] += h[d] * p->params64[at + d * out + o];
            if (!last || s->last_bias)
                next[o] += p->params64[at + in * out + o];
            if (!last && next[o] < 0)
                next[o] = 0;
        }
        at += in * out + (!last || s->last_bias ? out : 0);
        memcpy(h, next, out * sizeof *h);
        in = out;
    }
    for (size_t d = 0; d < in; d++)
        square += h[d] * h[d];
    for (size_t d = 0; d < in; d++)
        y[d] = s->n_layers > 0 ? h[d] / sqrt(square) : h[d];
}

static double
objective(const struct problem *p)
{
    double sum = 0, y[DIMS_MAX];
    for (size_t i = 0; i < p->n; i++) {
        reference_row(p, i, y);
        for (size_t d = 0; d < p->shape.n_out; d++)
            sum += y[d] * (double)p->dy[i * p->shape.n_out + d];
    }
    return sum;
}

static double
difference(const struct problem *p, double *x, double step)
{
    double at = *x;
    *x = at + step;
    double up = objective(p);
    *x = at - step;
    double down = objective(p);
    *x = at;
    return (up - down) / (2 * step);
}

/* Some entries of a gradient against differences; how many were compared. */
static size_t
compare(struct problem *p, const float *got, double *x, size_t n, size_t every)
{
    double scale = 0;
    size_t n_compared = 0;
    for (size_t i = 0; i < n; i++)
        scale = fmax(scale, fabs((double)got[i]));
    for (size_t i = 0; i < n; i += every) {
        double a = difference(p, &x[i], 1e-5), b = difference(p, &x[i], 1e-6);
        if (fabs(a - b) > 1e-5 * scale)
            continue;
        double err = fabs((double)got[i] - a);
        if (!(err <= TOLERANCE * scale))
            print_error("%zu: got %g, want %g\n", i, (double)got[i], a);
        assert_true(err <= TOLERANCE * scale);
        n_compared++;
    }
    return n_compared;
}

static void
check(struct problem *p, size_t every)
{
    const struct head_shape *s = &p->shape;
    double y[DIMS_MAX];
    size_t n_x = p->n * s->n_in;

    head_forward(s, p->y, p->tape, p->params, p->x, p->n, NULL);
    for (size_t i = 0; i < p->n; i++) {
        reference_row(p, i, y);
        for (size_t d = 0; d < s->n_out; d++)
            assert_true(fabs((double)p->y[i * s->n_out + d] - y[d]) <= 1e-5);
    }
    head_backward(s, p->dx, p->d_params, p->tape, p->params, p->x, p->y, p->dy,
        p->n, NULL);
    size_t n = compare(p, p->dx, p->x64, n_x, every);
    assert_true(n > n_x / every / 2);
    if (p->n_params == 0)
        return;
    n = compare(p, p->d_params, p->params64, p->n_params, every);
    assert_true(n > p->n_params / every / 2);

    /* accumulated: twice is double; no dx is no dx */
    static float once[PARAMS_MAX];
    memcpy(once, p->d_params, sizeof once);
    head_backward(s, NULL, p->d_params, p->tape, p->params, p->x, p->y, p->dy,
        p->n, NULL);
    for (size_t i = 0; i < p->n_params; i++)
        assert_true(fabs((double)p->d_params[i] - 2 * (double)once[i]) <=
                    1e-5 * fmax(fabs((double)once[i]), 1));
}

static void
test_gradients(void **state)
{
    static struct problem p;

    (void)state;
    for (size_t layers = 0; layers <= HEAD_LAYERS_MAX; layers++) {
        for (int bias = 0; bias < 2; bias++) {
            struct head_shape shape = {.n_layers = layers,
                .n_in = 7,
                .n_hidden = 11,
                .n_out = layers > 0 ? 5 : 7,
                .last_bias = bias};
            make(&p, shape, 9, layers);
            check(&p, 1);
        }
    }
}

static void
test_across_shards(void **state)
{
    static struct problem p;
    struct head_shape shape = {
        .n_layers = 2, .n_in = 70, .n_hidden = 68, .n_out = 66};

    (void)state;
    make(&p, shape, 70, 5);
    check(&p, 211);
}

static void
test_parts_cover_the_parameters(void **state)
{
    struct head_part parts[HEAD_PARTS_MAX];

    (void)state;
    for (size_t layers = 0; layers <= HEAD_LAYERS_MAX; layers++) {
        for (int bias = 0; bias < 2; bias++) {
            struct head_shape shape = {.n_layers = layers,
                .n_in = 8,
                .n_hidden = 6,
                .n_out = layers > 0 ? 4 : 8,
                .last_bias = bias};
            size_t at = 0, n = head_parts(&shape, parts), n_biases = 0;
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(parts[i].start, at);
                at += parts[i].n;
                n_biases += parts[i].is_bias;
            }
            assert_int_equal(at, head_n_params(&shape));
            assert_int_equal(
                n_biases, layers == 0 ? 0 : layers - (bias ? 0 : 1));
        }
    }
}

/* Unit rows in give members of about one in every layer: the initial weights
   keep the size, and no bias is set. */
static void
test_initial_weights(void **state)
{
    static float params[2 * 256 * 256 + 256];
    struct head_shape shape = {
        .n_layers = 2, .n_in = 256, .n_hidden = 256, .n_out = 256};
    struct rng rng;
    double square = 0;

    (void)state;
    rng_seed(&rng, 1);
    memset(params, 0xff, sizeof params);
    head_init(&shape, params, &rng);
    for (size_t i = 0; i < 256 * 256; i++)
        square += (double)params[i] * (double)params[i];
    assert_true(fabs(square / 256 - 2) <= 0.05);
    square = 0;
    for (size_t i = 0; i < 256; i++)
        assert_true(params[256 * 256 + i] == 0);
    for (size_t i = 0; i < 256 * 256; i++) {
        double w = (double)params[256 * 256 + 256 + i];
        square += w * w;
    }
    assert_true(fabs(square / 256 - 1) <= 0.025);
}

static void
test_pools_agree(void **state)
{
    static struct problem p, again;
    struct head_shape shape = {
        .n_layers = 3, .n_in = 70, .n_hidden = 69, .n_out = 65};

    (void)state;
    make(&p, shape, N_MAX, 6);
    head_forward(&shape, p.y, p.tape, p.params, p.x, p.n, NULL);
    head_backward(
        &shape, p.dx, p.d_params, p.tape, p.params, p.x, p.y, p.dy, p.n, NULL);
    for (size_t threads = 1; threads <= 3; threads++) {
        struct pool *pool;
        assert_int_equal(pool_new(&pool, threads, false), OK);
        make(&again, shape, N_MAX, 6);
        head_forward(
            &shape, again.y, again.tape, again.params, again.x, again.n, pool);
        head_backward(&shape, again.dx, again.d_params, again.tape,
            again.params, again.x, again.y, again.dy, again.n, pool);
        pool_free(pool);
        assert_memory_equal(p.y, again.y, sizeof p.y);
        assert_memory_equal(p.dx, again.dx, sizeof p.dx);
        assert_memory_equal(p.d_params, again.d_params, sizeof p.d_params);
    }
}

/* Rows of zeros come through as zeros and send nothing back. */
static void
test_zero_rows(void **state)
{
    float x[3 * 4] = {3, 0, 4, 0, 0, 0, 0, 0, 1e-35f, 0, 0, 0};
    float dy[3 * 4] = {1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4};
    float y[3 * 4], dx[3 * 4], norm[3];

    (void)state;
    l2norm_forward(y, norm, x, 3, 4, NULL);
    assert_true(fabsf(y[0] - 0.6f) <= 1e-7f && fabsf(y[2] - 0.8f) <= 1e-7f);
    assert_true(norm[0] == 5 && norm[1] == 0);
    l2norm_backward(dx, dy, y, norm, 3, 4, NULL);
    /* along the row itself nothing changes */
    assert_true(fabsf(dx[0] * 0.6f + dx[2] * 0.8f) <= 1e-6f);
    assert_true(fabsf(dx[1] - 0.4f) <= 1e-6f);
    for (size_t i = 4; i < 12; i++)
        assert_true(y[i] == 0 && dx[i] == 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_across_shards),
        cmocka_unit_test(test_parts_cover_the_parameters),
        cmocka_unit_test(test_initial_weights),
        cmocka_unit_test(test_pools_agree),
        cmocka_unit_test(test_zero_rows),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
