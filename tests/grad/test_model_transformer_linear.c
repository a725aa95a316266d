/*
 * Goal: the gradients of a linear layer are the sums that they are said to be.
 *
 * Method: against sums in double, within the stated bound; sizes below, at and
 * beyond the kernels' tiles and the blocks and steps that sums are cut into;
 * matrices packed in two parts; what is there is added to.
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
#include "model/transformer_linear.h"

static const struct {
    size_t T, N, K;
} sizes[] = {{1, 16, 16}, {7, 32, 48}, {128, 48, 32}, {130, 400, 16},
    {300, 64, 432}, {257, 416, 400}};

struct layer {
    size_t T, N, K;
    float *X, *dY, *W, *packed, *dX, *dW, *db, *work;
};

static float *
noise(size_t n, struct rng *rng)
{
    float *x = mem_alloc_aligned(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(rng);
    return x;
}

static void
layer_open(struct layer *l, size_t i)
{
    struct rng rng;

    rng_seed(&rng, i + 1);
    *l = (struct layer){.T = sizes[i].T, .N = sizes[i].N, .K = sizes[i].K};
    l->X = noise(l->T * l->K, &rng);
    l->dY = noise(l->T * l->N, &rng);
    l->W = noise(l->N * l->K, &rng);
    l->packed = noise(l->N * l->K, &rng);
    l->dX = noise(l->T * l->K, &rng);
    l->dW = noise(l->N * l->K, &rng);
    l->db = noise(l->N, &rng);
    l->work = noise(transformer_linear_work_floats(), &rng);
}

static void
layer_close(struct layer *l)
{
    mem_free(l->X);
    mem_free(l->dY);
    mem_free(l->W);
    mem_free(l->packed);
    mem_free(l->dX);
    mem_free(l->dW);
    mem_free(l->db);
    mem_free(l->work);
}

/* was + sum a_i b_i, of strided a and b (NULL: ones). */
static void
check_sum(float got, float was, const float *a, size_t a_step, const float *b,
    size_t b_step, size_t n)
{
    double sum = (double)was, all = fabs((double)was);

    for (size_t i = 0; i < n; i++) {
        double term = (double)a[i * a_step];
        if (b != NULL)
            term *= (double)b[i * b_step];
        sum += term;
        all += fabs(term);
    }
    assert_true(fabs((double)got - sum) <= (double)(n + 1) * 0x1p-23 * all);
}

static void
input_gradient(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (int add = 0; add < 2; add++) {
            struct layer l;
            layer_open(&l, i);
            float *was = mem_calloc(l.T * l.K, sizeof *was);
            assert_non_null(was);
            if (add)
                memcpy(was, l.dX, l.T * l.K * sizeof *was);
            transformer_linear_pack(l.packed, l.W, l.N, l.K, 0, l.N / 2);
            transformer_linear_pack(
                l.packed, l.W, l.N, l.K, l.N / 2, l.N - l.N / 2);
            transformer_linear_input(
                l.dX, l.dY, l.packed, l.T, l.N, l.K, add != 0);
            for (size_t t = 0; t < l.T; t++)
                for (size_t k = 0; k < l.K; k++)
                    check_sum(l.dX[t * l.K + k], was[t * l.K + k],
                        l.dY + t * l.N, 1, l.W + k, l.K, l.N);
            mem_free(was);
            layer_close(&l);
        }
}

static void
weights_gradient(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct layer l, was;
        layer_open(&l, i);
        layer_open(&was, i);
        const struct transformer_linear job = {.dY = l.dY,
            .X = l.X,
            .dW = l.dW,
            .db = l.db,
            .T = l.T,
            .N = l.N,
            .K = l.K};
        for (size_t b = transformer_linear_blocks(l.N, l.K); b-- > 0;)
            transformer_linear_block(&job, b, l.work);
        for (size_t n = 0; n < l.N; n++) {
            check_sum(l.db[n], was.db[n], l.dY + n, l.N, NULL, 0, l.T);
            for (size_t k = 0; k < l.K; k++)
                check_sum(l.dW[n * l.K + k], was.dW[n * l.K + k], l.dY + n, l.N,
                    l.X + k, l.K, l.T);
        }
        layer_close(&l);
        layer_close(&was);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(input_gradient),
        cmocka_unit_test(weights_gradient),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
