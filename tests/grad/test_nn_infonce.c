/*
 * Goal: infonce returns the loss of its header and that loss's gradient.
 *
 * Method: the loss is written down again from the formula, in double and
 * without any of the implementation's rearrangements; its central differences
 * are the wanted gradient, by q, by k and by log(1 / tau). Symmetric and not,
 * with weights (zeros among them), masks, given negatives, temperatures from
 * 0.01 to 1, and sizes on both sides of the implementation's shards and
 * blocks. The rounding of logits as large as 1 / tau is the tolerance's ground.
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
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "nn/infonce.h"

#define DIMS 16
#define B_MAX 150
#define M_MAX 420
#define TOLERANCE 1e-4 /* of a gradient, relative to the gradients' scale */

struct problem {
    struct infonce_in in;
    struct infonce_out out;
    float q[B_MAX * DIMS], k[M_MAX * DIMS], dq[B_MAX * DIMS], dk[M_MAX * DIMS];
    float weight[B_MAX];
    struct infonce_mask mask[B_MAX * 4];
    double q64[B_MAX * DIMS], k64[M_MAX * DIMS]; /* what the reference reads */
    double log_scale;
    unsigned char masked[B_MAX][M_MAX];
    float workspace[B_MAX * M_MAX * 2];
};

static void
random_rows(struct rng *rng, float *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double square = 0;
        for (size_t d = 0; d < DIMS; d++) {
            rows[i * DIMS + d] = (float)rng_normal(rng);
            square += (double)rows[i * DIMS + d] * (double)rows[i * DIMS + d];
        }
        for (size_t d = 0; d < DIMS; d++)
            rows[i * DIMS + d] =
                (float)((double)rows[i * DIMS + d] / sqrt(square));
    }
}

static void
make(struct problem *p, size_t B, size_t M, double tau, bool symmetric,
    bool weights, bool masks, uint64_t seed)
{
    struct rng rng;

    memset(p, 0, sizeof *p);
    rng_seed(&rng, seed);
    random_rows(&rng, p->q, B);
    random_rows(&rng, p->k, M);
    /* positives near their anchors, as in a trained encoder */
    for (size_t i = 0; i < B; i++) {
        double square = 0;
        for (size_t d = 0; d < DIMS; d++) {
            float v = p->k[i * DIMS + d] + 0.7f * p->q[i * DIMS + d];
            p->k[i * DIMS + d] = v;
            square += (double)v * (double)v;
        }
        for (size_t d = 0; d < DIMS; d++)
            p->k[i * DIMS + d] =
                (float)((double)p->k[i * DIMS + d] / sqrt(square));
    }
    p->in = (struct infonce_in){.B = B,
        .M = M,
        .D = DIMS,
        .q = p->q,
        .k = p->k,
        .tau = (float)tau,
        .symmetric = symmetric};
    p->out = (struct infonce_out){.dq = p->dq, .dk = p->dk};
    if (weights) {
        for (size_t i = 0; i < B; i++)
            p->weight[i] = i % 3 == 2 ? 0 : 0.25f + 2 * rng_float(&rng);
        p->in.weight = p->weight;
    }
    for (size_t i = 0; masks && i < B; i++) {
        for (size_t n = (size_t)rng_below(&rng, 4); n > 0; n--) {
            size_t j = (size_t)rng_below(&rng, M);
            if (j == i || p->masked[i][j])
                continue;
            p->masked[i][j] = 1;
            p->mask[p->in.n_mask++] =
                (struct infonce_mask){.row = (uint32_t)i, .col = (uint32_t)j};
        }
    }
    p->in.mask = p->mask;
    p->log_scale = -log((double)p->in.tau);
    for (size_t i = 0; i < B * DIMS; i++)
        p->q64[i] = (double)p->q[i];
    for (size_t i = 0; i < M * DIMS; i++)
        p->k64[i] = (double)p->k[i];
}

static double
cosine(const struct problem *p, size_t i, size_t j)
{
    double sum = 0;
    for (size_t d = 0; d < DIMS; d++)
        sum += p->q64[i * DIMS + d] * p->k64[j * DIMS + d];
    return sum;
}

/* The header's formula. Cosines over 0.01 are within e^100: no overflow. */
static double
reference(const struct problem *p)
{
    double scale = exp(p->log_scale);
    double loss = 0, total = 0;
    double c = p->in.symmetric ? 0.5 : 0;

    for (size_t i = 0; i < p->in.B; i++) {
        double w = p->in.weight == NULL ? 1 : (double)p->in.weight[i];
        double own = cosine(p, i, i) * scale;
        double row = 0, column = 0;
        for (size_t j = 0; j < p->in.M; j++) {
            if (!p->masked[i][j])
                row += exp(cosine(p, i, j) * scale);
        }
        for (size_t j = 0; c > 0 && j < p->in.B; j++) {
            if (!p->masked[j][i])
                column += exp(cosine(p, j, i) * scale);
        }
        loss += w * (1 - c) * (log(row) - own);
        if (c > 0)
            loss += w * c * (log(column) - own);
        total += w;
    }
    return loss / total;
}

static double
difference(const struct problem *p, double *x, double step)
{
    double at = *x;
    volatile double up = at + step, down = at - step;
    *x = up;
    double high = reference(p);
    *x = down;
    double low = reference(p);
    *x = at;
    return (high - low) / (up - down);
}

static void
near(double got, double want, double scale, const char *what, size_t i)
{
    double err = fabs(got - want) / fmax(fabs(want), scale);
    if (!(err <= TOLERANCE))
        print_error("%s %zu: got %.9g, want %.9g\n", what, i, got, want);
    assert_true(err <= TOLERANCE);
}

static void
check(struct problem *p, size_t n_values)
{
    struct rng rng;
    size_t B = p->in.B, M = p->in.M;
    double tau = (double)p->in.tau;
    double top_q = 0, top_k = 0;

    infonce(&p->in, &p->out, p->workspace, NULL);
    near(p->out.loss, reference(p), 1, "loss", 0);
    for (size_t i = 0; i < B * DIMS; i++)
        top_q = fmax(top_q, fabs((double)p->dq[i]));
    for (size_t i = 0; i < M * DIMS; i++)
        top_k = fmax(top_k, fabs((double)p->dk[i]));
    /* where every positive has won, rounding of p - 1 is what is left */
    top_q = fmax(top_q, 0.02 / tau);
    top_k = fmax(top_k, 0.02 / tau);
    rng_seed(&rng, 3);
    for (size_t i = 0; i < n_values; i++) {
        size_t q = (size_t)rng_below(&rng, B * DIMS);
        size_t k = (size_t)rng_below(&rng, M * DIMS);
        if (B * DIMS <= n_values)
            q = i % (B * DIMS);
        if (M * DIMS <= n_values)
            k = i % (M * DIMS);
        near((double)p->dq[q], difference(p, &p->q64[q], 1e-4 * tau), top_q,
            "dq", q);
        near((double)p->dk[k], difference(p, &p->k64[k], 1e-4 * tau), top_k,
            "dk", k);
    }
    near(p->out.d_log_scale, difference(p, &p->log_scale, 1e-5),
        0.1 + 0.02 / tau, "d_log_scale", 0);
}

static void
test_small(void **state)
{
    static const double taus[] = {0.01, 0.05, 0.2, 1};
    static const struct {
        size_t B, M;
    } sizes[] = {{2, 2}, {2, 5}, {3, 3}, {7, 7}, {5, 9}};
    static struct problem p;

    (void)state;
    for (size_t t = 0; t < sizeof taus / sizeof taus[0]; t++) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            for (unsigned how = 0; how < 8; how++) {
                make(&p, sizes[s].B, sizes[s].M, taus[t], how & 1,
                    (how & 2) != 0, (how & 4) != 0, 100 * s + how);
                check(&p, sizes[s].M * DIMS);
            }
        }
    }
}

/* Sizes past a shard of rows (64), of columns (128), a block of 256. */
static void
test_across_shards(void **state)
{
    static const struct {
        size_t B, M;
    } sizes[] = {{64, 64}, {65, 65}, {70, 129}, {130, 300}, {150, 420}};
    static struct problem p;

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (unsigned symmetric = 0; symmetric < 2; symmetric++) {
            make(&p, sizes[s].B, sizes[s].M, 0.05, symmetric, true, true, s);
            check(&p, 5);
        }
    }
}

/* A column whose first shard is 2 / tau below its second: no overflow. */
static void
test_shards_far_apart(void **state)
{
    static struct problem p;

    (void)state;
    make(&p, 130, 130, 0.01, true, false, false, 1);
    for (size_t i = 0; i < 130; i++) {
        for (size_t d = 0; d < DIMS; d++) {
            p.k[i * DIMS + d] = d == 0 ? 1 : 0;
            p.q[i * DIMS + d] = d > 0 ? 0 : i < 64 ? -1 : 1;
            p.k64[i * DIMS + d] = (double)p.k[i * DIMS + d];
            p.q64[i * DIMS + d] = (double)p.q[i * DIMS + d];
        }
    }
    check(&p, 5);
}

static void
test_figures(void **state)
{
    static struct problem p;
    double positive = 0, negative = 0, hits = 0;

    (void)state;
    make(&p, 9, 14, 0.1, true, true, true, 4);
    infonce(&p.in, &p.out, p.workspace, NULL);
    for (size_t i = 0; i < 9; i++) {
        double own = cosine(&p, i, i), sum = 0, n = 0;
        bool hit = true;
        for (size_t j = 0; j < 14; j++) {
            if (j == i || p.masked[i][j])
                continue;
            sum += cosine(&p, i, j);
            n++;
            hit = hit && own >= cosine(&p, i, j);
        }
        positive += own / 9;
        negative += sum / n / 9;
        hits += hit / 9.0;
    }
    assert_true(hits < 1 && hits > 0);
    near(p.out.positive, positive, 1, "positive", 0);
    near(p.out.negative, negative, 1, "negative", 0);
    near(p.out.accuracy, hits, 1, "accuracy", 0);
}

/* All keys equal: every key is as likely, so log M (log B both ways). */
static void
test_equal_keys(void **state)
{
    static struct problem p;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        size_t M = 6 + 4 * i;
        make(&p, 6, M, 0.05, false, i == 2, false, i);
        for (size_t j = 1; j < M; j++)
            memcpy(p.k + j * DIMS, p.k, DIMS * sizeof(float));
        infonce(&p.in, &p.out, p.workspace, NULL);
        near(p.out.loss, log((double)M), 1, "loss", i);
        near(p.out.d_log_scale, 0, 1, "d_log_scale", i);
    }
}

/* What a mask leaves out has no say at all, and gets no gradient. */
static void
test_masked_key_is_mute(void **state)
{
    static struct problem p, other;

    (void)state;
    make(&p, 4, 6, 0.05, true, false, false, 8);
    for (uint32_t i = 0; i < 4; i++)
        p.mask[p.in.n_mask++] = (struct infonce_mask){.row = i, .col = 5};
    infonce(&p.in, &p.out, p.workspace, NULL);
    make(&other, 4, 5, 0.05, true, false, false, 9);
    memcpy(other.q, p.q, sizeof p.q);
    memcpy(other.k, p.k, 5 * DIMS * sizeof(float));
    infonce(&other.in, &other.out, other.workspace, NULL);
    near(p.out.loss, other.out.loss, 1, "loss", 0);
    for (size_t d = 0; d < DIMS; d++)
        assert_true(p.dk[5 * DIMS + d] == 0);
    for (size_t i = 0; i < 4 * DIMS; i++)
        near((double)p.dq[i], (double)other.dq[i], 1, "dq", i);
}

static void
test_pools_and_no_gradient(void **state)
{
    static struct problem p, again;

    (void)state;
    make(&p, 150, 400, 0.05, true, true, true, 12);
    make(&again, 150, 400, 0.05, true, true, true, 12);
    infonce(&p.in, &p.out, p.workspace, NULL);
    for (size_t threads = 1; threads <= 3; threads++) {
        struct pool *pool;
        assert_int_equal(pool_new(&pool, threads, false), OK);
        infonce(&again.in, &again.out, again.workspace, pool);
        pool_free(pool);
        assert_memory_equal(&p.out.loss, &again.out.loss, sizeof(double));
        assert_memory_equal(p.dq, again.dq, sizeof p.dq);
        assert_memory_equal(p.dk, again.dk, sizeof p.dk);
    }
    again.out.dq = NULL;
    again.out.dk = NULL;
    infonce(&again.in, &again.out, again.workspace, NULL);
    assert_memory_equal(&p.out.loss, &again.out.loss, sizeof(double));
    assert_true(infonce_workspace_floats(B_MAX, M_MAX) <=
                sizeof p.workspace / sizeof(float));
}

/* What was taken for many keys does for fewer, which make the larger panel. */
static void
test_workspace_of_fewer_keys(void **state)
{
    enum { ROWS = 1024, KEYS_MAX = 5120, KEYS = 4096, GUARD = 64 };
    size_t n = infonce_workspace_floats(ROWS, KEYS_MAX);
    float *workspace = calloc(n + GUARD, sizeof *workspace);
    float *x = calloc(KEYS, sizeof *x), *dx = calloc(ROWS, sizeof *dx);
    struct infonce_in in = {
        .B = ROWS, .M = KEYS, .D = 1, .q = x, .k = x, .tau = 1};
    struct infonce_out out = {.dq = dx};

    (void)state;
    assert_true(workspace != NULL && x != NULL && dx != NULL);
    for (size_t i = 0; i < KEYS; i++)
        x[i] = 1;
    for (size_t i = 0; i < GUARD; i++)
        workspace[n + i] = 7;
    infonce(&in, &out, workspace, NULL);
    for (size_t i = 0; i < GUARD; i++)
        assert_true(workspace[n + i] >= 7 && workspace[n + i] <= 7);
    assert_true(fabs(out.loss - log(KEYS)) <= 1e-4);
    free(workspace);
    free(x);
    free(dx);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_across_shards),
        cmocka_unit_test(test_shards_far_apart),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_equal_keys),
        cmocka_unit_test(test_masked_key_is_mute),
        cmocka_unit_test(test_pools_and_no_gradient),
        cmocka_unit_test(test_workspace_of_fewer_keys),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
