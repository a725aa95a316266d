/*
 * Goal: the head of a run is nn/head.h with its optimiser; many rows, worked on
 * in pieces, give what all at once would.
 *
 * Method: 2,500 rows against head_forward and head_backward over all; the
 * momentum copy's encode; the state written and read.
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
#include "base/alloc.h"
#include "base/check.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "nn/head.h"
#include "train/projection.h"

#define D 24
#define P 16

static float *
randoms(size_t n, uint64_t seed, size_t unit)
{
    float *x = malloc(n * sizeof *x);
    struct rng rng;
    assert_non_null(x);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&rng);
    for (size_t i = 0; unit > 0 && i < n; i += unit) {
        double norm = sqrt(kern()->dot_f64(x + i, x + i, unit));
        for (size_t d = 0; d < unit; d++)
            x[i + d] /= (float)norm;
    }
    return x;
}

static double
difference(const float *a, const float *b, size_t n)
{
    double d = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        norm += pow((double)a[i], 2);
    }
    return sqrt(d / norm);
}

static void
test_pieces(void **state)
{
    enum { N = 2500 };
    struct optimizer_options sgd;

    (void)state;
    optimizer_options_default(&sgd, OPTIMIZER_SGD);
    sgd.momentum = 0;
    sgd.weight_decay = 0;
    for (size_t layers = 1; layers <= 3; layers++) {
        struct head_shape shape = {
            .n_layers = layers, .n_in = D, .n_hidden = P, .n_out = P};
        struct projection *head;
        size_t n_params;
        float *e = randoms(N * D, 1, D), *dz = randoms(N * P, 2, 0);
        float *z = malloc(N * P * sizeof *z), *want_z = malloc(N * P * 4);
        float *de = malloc(N * D * sizeof *de), *want_de = malloc(N * D * 4);
        float *tape = malloc(head_tape_floats(&shape, N) * sizeof *tape);
        assert_int_equal(projection_new(&head, layers, D, P, 7, &sgd), OK);
        float *params = projection_params(head, &n_params);
        assert_int_equal(n_params, head_n_params(&shape));
        float *old = malloc(n_params * sizeof *old);
        float *d_params = calloc(n_params, sizeof *d_params);
        assert_true(z && want_z && de && want_de && tape && old && d_params);
        memcpy(old, params, n_params * sizeof *old);
        head_forward(&shape, want_z, tape, params, e, N, NULL);
        head_backward(
            &shape, want_de, d_params, tape, params, e, want_z, dz, N, NULL);
        projection_encode(head, NULL, e, N, z, NULL);
        assert_true(difference(want_z, z, N * P) <= 1e-6);
        memset(z, 0, N * P * sizeof *z);
        projection_forward(head, e, N, z, NULL);
        assert_true(difference(want_z, z, N * P) <= 1e-6);
        projection_backward(head, dz, de, NULL);
        assert_true(difference(want_de, de, N * D) <= 1e-6);
        projection_step(head, 1, NULL);
        for (size_t i = 0; i < n_params; i++)
            old[i] -= params[i]; /* plain descent at rate 1: the gradient */
        assert_true(difference(d_params, old, n_params) <= 1e-5);
        /* under other parameters: all zero but for the last layer's */
        memset(old, 0, n_params * sizeof *old);
        projection_encode(head, old, e, N, z, NULL);
        for (size_t i = 0; i < N * P; i++)
            assert_true(fabsf(z[i]) <= 0);
        projection_free(head);
        void *const blocks[] = {
            e, dz, z, want_z, de, want_de, tape, old, d_params};
        for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
            free(blocks[i]);
    }
}

static void
test_memory_runs_out(void **state)
{
    struct optimizer_options adamw;

    (void)state;
    optimizer_options_default(&adamw, OPTIMIZER_ADAMW);
    for (uint64_t n = 1;; n++) {
        struct projection *head = NULL;
        alloc_fail_at(n);
        enum err err = projection_new(&head, 2, D, P, 1, &adamw);
        uint64_t seen = alloc_fail_at(0);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        projection_free(head);
        if (err == OK)
            break;
        assert_null(head);
    }
    projection_free(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
