/*
 * Goal: attention, layer normalisation, activations and the pooling of tokens
 * are what their formulas say, and their backward passes the derivatives.
 *
 * Method: attention forward against plain double arithmetic, for lengths around
 * the tiles and blocks of rows. Then a random projection of the output as the
 * objective and central differences over the step really taken, relative error
 * with a floor, for every table of kernels and all inputs of small cases.
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
#include "nn/attention.h"
#include "nn/tokenpool.h"

#define TOLERANCE 0.01
#define FLOOR 0.2
#define STEP 0.01f

static void
noise(float *p, size_t n, struct rng *rng)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_normal(rng);
}

static double
dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

typedef double loss_fn(void *arg);

/* Every `skip`-th of n inputs: its exact derivative is d. */
static void
check_all(float *x, const float *d, size_t n, size_t skip, loss_fn *loss,
    void *arg, const char *what)
{
    for (size_t i = 0; i < n; i += skip) {
        float keep = x[i];
        x[i] = keep + STEP;
        double high = (double)x[i], up = loss(arg);
        x[i] = keep - STEP;
        double low = (double)x[i], down = loss(arg);
        x[i] = keep;
        double numeric = (up - down) / (high - low), exact = (double)d[i];
        double err = fabs(numeric - exact) /
                     fmax(fmax(fabs(numeric), fabs(exact)), FLOOR);
        if (!(err <= TOLERANCE))
            print_error("%s %zu: %g by differences, %g by backward\n", what, i,
                numeric, exact);
        assert_true(err <= TOLERANCE);
    }
}

/* ----------------------------------------------------------- attention */

#define HEADS 2
#define L_MAX 1400

struct attend {
    struct attention a;
    float *qkv, *o, *d_o, *dqkv, *work;
};

static void
attend_open(struct attend *t, size_t L, size_t d, struct rng *rng)
{
    size_t W = HEADS * d;
    *t = (struct attend){.a = {.L = L, .heads = HEADS, .d = d},
        .qkv = malloc(L * 3 * W * sizeof(float)),
        .o = malloc(L * W * sizeof(float)),
        .d_o = malloc(L * W * sizeof(float)),
        .dqkv = malloc(L * 3 * W * sizeof(float)),
        .work = mem_alloc_aligned(attention_grad_workspace_floats(L, d) +
                                      attention_workspace_floats(L, d),
            sizeof(float))};
    noise(t->qkv, L * 3 * W, rng);
    noise(t->d_o, L * W, rng);
    /* what the rows before had in their scratch is of no consequence */
    memset(t->work, 0xff,
        (attention_grad_workspace_floats(L, d) +
            attention_workspace_floats(L, d)) *
            sizeof(float));
    memset(t->dqkv, 0xff, L * 3 * W * sizeof(float));
}

static void
attend_close(struct attend *t)
{
    free(t->qkv);
    free(t->o);
    free(t->d_o);
    free(t->dqkv);
    mem_free(t->work);
}

static double
attend_loss(void *arg)
{
    struct attend *t = arg;
    attention_forward(t->o, t->qkv, &t->a, t->work);
    return dot(t->o, t->d_o, t->a.L * HEADS * t->a.d);
}

static void
attention_is_the_formula(void **state)
{
    static const size_t lengths[] = {1, 2, 15, 16, 17, 70, 131, 700, L_MAX};
    static const size_t sizes[] = {16, 32, 64, 128};
    static double p[L_MAX];
    struct rng rng;
    struct attend t;
    (void)state;

    rng_seed(&rng, 1);
    for (size_t l = 0; l < ARRAY_LEN(lengths); l++)
        for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
            size_t L = lengths[l], d = sizes[s], W = HEADS * d;
            attend_open(&t, L, d, &rng);
            (void)attend_loss(&t);
            for (size_t i = 0; i < L; i += 1 + L / 5)
                for (size_t h = 0; h < HEADS; h++) {
                    const float *q = t.qkv + i * 3 * W + h * d;
                    double sum = 0;
                    for (size_t j = 0; j < L; j++) {
                        const float *k = t.qkv + (j * 3 + 1) * W + h * d;
                        p[j] = exp(dot(q, k, d) / sqrt((double)d));
                        sum += p[j];
                    }
                    for (size_t c = 0; c < d; c++) {
                        double want = 0;
                        for (size_t j = 0; j < L; j++)
                            want += p[j] / sum *
                                    (double)t.qkv[(j * 3 + 2) * W + h * d + c];
                        assert_true(fabs((double)t.o[i * W + h * d + c] -
                                         want) <= 2e-5);
                    }
                }
            attend_close(&t);
        }
}

static void
attention_gradient(void **state)
{
    static const size_t lengths[] = {1, 5, 16, 23, 140};
    struct rng rng;
    struct attend t;
    (void)state;

    rng_seed(&rng, 2);
    for (size_t l = 0; l < ARRAY_LEN(lengths); l++)
        for (size_t d = 16; d <= 64; d *= 2) {
            size_t L = lengths[l], n = L * 3 * HEADS * d;
            attend_open(&t, L, d, &rng);
            attention_backward(t.dqkv, t.d_o, t.qkv, &t.a, t.work);
            check_all(t.qkv, t.dqkv, n, 1 + n / 300, attend_loss, &t, "qkv");
            attend_close(&t);
        }
}

/* --------------------------------------- normalisation and activations */

#define NORM_ROWS 2
#define NORM_N 48

struct rows {
    const struct kern *k;
    enum kern_act act;
    struct kern_norm norm;
    float x[NORM_ROWS * NORM_N], y[NORM_ROWS * NORM_N], dy[NORM_ROWS * NORM_N];
    float dx[NORM_ROWS * NORM_N], copy[NORM_ROWS * NORM_N];
    float gain[NORM_N], bias[NORM_N], dgain[NORM_N], dbias[NORM_N];
    float stats[2 * NORM_ROWS];
};

static double
norm_loss(void *arg)
{
    struct rows *r = arg;
    memcpy(r->copy, r->x, sizeof r->x);
    r->k->layernorm(r->y, r->stats, r->copy, NULL, NULL, &r->norm, NORM_ROWS);
    return dot(r->y, r->dy, NORM_ROWS * NORM_N);
}

static void
layernorm_gradient(void **state)
{
    static struct rows r;
    struct rng rng;
    (void)state;

    rng_seed(&rng, 3);
    for (size_t t = 0; (r.k = kern_supported(t)) != NULL; t++) {
        size_t n = NORM_ROWS * NORM_N;
        r.norm = (struct kern_norm){r.gain, r.bias, 1e-3f, NORM_N};
        noise(r.x, n, &rng);
        noise(r.dy, n, &rng);
        noise(r.gain, NORM_N, &rng);
        noise(r.bias, NORM_N, &rng);
        memset(r.dgain, 0, sizeof r.dgain);
        memset(r.dbias, 0, sizeof r.dbias);
        (void)norm_loss(&r);
        r.k->layernorm_grad(
            r.dx, r.dgain, r.dbias, r.dy, r.x, r.stats, &r.norm, NORM_ROWS, 0);
        check_all(r.x, r.dx, n, 1, norm_loss, &r, "x");
        check_all(r.gain, r.dgain, NORM_N, 1, norm_loss, &r, "gain");
        check_all(r.bias, r.dbias, NORM_N, 1, norm_loss, &r, "bias");
        /* added to itself, and in the place of dy */
        memcpy(r.copy, r.dx, sizeof r.dx);
        r.k->layernorm_grad(
            r.dx, r.dgain, r.dbias, r.dy, r.x, r.stats, &r.norm, NORM_ROWS, 1);
        r.k->layernorm_grad(
            r.dy, r.dgain, r.dbias, r.dy, r.x, r.stats, &r.norm, NORM_ROWS, 0);
        for (size_t i = 0; i < n; i++)
            assert_true(fabsf(r.dx[i] - 2 * r.copy[i]) <= 1e-5f &&
                        fabsf(r.dy[i] - r.copy[i]) <= 1e-6f);
    }
}

static double
act_loss(void *arg)
{
    struct rows *r = arg;
    memcpy(r->copy, r->x, sizeof r->x);
    r->k->activate(r->y, r->copy, NORM_N, NULL, r->act, NORM_ROWS, NORM_N);
    return dot(r->y, r->dy, NORM_ROWS * NORM_N);
}

static void
activation_gradient(void **state)
{
    static struct rows r;
    struct rng rng;
    (void)state;

    rng_seed(&rng, 4);
    for (size_t t = 0; (r.k = kern_supported(t)) != NULL; t++)
        for (int act = KERN_ACT_NONE; act <= (int)KERN_ACT_GELU_TANH; act++) {
            size_t n = NORM_ROWS * NORM_N;
            r.act = (enum kern_act)act;
            noise(r.x, n, &rng);
            noise(r.dy, n, &rng);
            /* away from the corner */
            for (size_t i = 0; i < n; i++)
                r.x[i] += r.x[i] > 0 ? 2 * STEP : -2 * STEP;
            memcpy(r.dx, r.dy, sizeof r.dy);
            r.k->activate_grad(r.dx, r.y, r.x, r.act, n);
            check_all(r.x, r.dx, n, 1, act_loss, &r, "u");
        }
}

/* ------------------------------------------------------------- pooling */

#define POOL_L 5
#define POOL_H 16

struct pool_case {
    enum tokenpool how;
    size_t L;
    float x[POOL_L * POOL_H], dx[POOL_L * POOL_H], f[POOL_H], df[POOL_H];
};

static double
pool_loss(void *arg)
{
    struct pool_case *p = arg;
    tokenpool_forward(p->f, p->x, p->L, POOL_H, p->how);
    return dot(p->f, p->df, POOL_H);
}

static void
pooling_gradient(void **state)
{
    static struct pool_case p;
    struct rng rng;
    (void)state;

    rng_seed(&rng, 5);
    for (p.L = 1; p.L <= POOL_L; p.L++)
        for (int how = 0; how <= (int)TOKENPOOL_MAX; how++) {
            p.how = (enum tokenpool)how;
            /* no two of a column nearer than the steps */
            for (size_t i = 0; i < POOL_L * POOL_H; i++)
                p.x[i] = (float)((i * 37) % 101) * 0.1f;
            noise(p.df, POOL_H, &rng);
            (void)pool_loss(&p);
            for (size_t i = 0; i < POOL_H; i++) {
                float want = p.x[i];
                for (size_t t = 1; t < p.L && how != TOKENPOOL_CLS; t++) {
                    float x = p.x[t * POOL_H + i];
                    want = how == TOKENPOOL_MAX ? fmaxf(want, x) : want + x;
                }
                if (how == TOKENPOOL_MEAN)
                    want /= (float)p.L;
                assert_true(fabsf(p.f[i] - want) <= 1e-5f);
            }
            tokenpool_backward(p.dx, p.df, p.x, p.L, POOL_H, p.how);
            check_all(
                p.x, p.dx, p.L * POOL_H, 1, pool_loss, &p, "pooled token");
        }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_the_formula),
        cmocka_unit_test(attention_gradient),
        cmocka_unit_test(layernorm_gradient),
        cmocka_unit_test(activation_gradient),
        cmocka_unit_test(pooling_gradient),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
