/*
 * Goal: AdamW moves what a gradient touched and nothing else, as its paper
 * says, with each segment's own rate; the schedule rises, falls and ends.
 *
 * Method: the update in double over many steps, with sparse segments that
 * change from step to step; the schedule at its corners and as a curve.
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
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "train/optimizer.h"

#define N 1000
#define SEGMENTS 40
#define STEPS 30

static const struct adamw_options usual = {
    .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.02f};

struct twin {
    double p[N], m[N], v[N];
};

static void
reference_step(struct twin *t, const float *g, size_t first, size_t n,
    double lr, size_t step)
{
    double b1 = (double)usual.beta1, b2 = (double)usual.beta2;
    for (size_t i = first; i < first + n; i++) {
        t->m[i] = b1 * t->m[i] + (1 - b1) * (double)g[i];
        t->v[i] = b2 * t->v[i] + (1 - b2) * (double)g[i] * (double)g[i];
        double mean = t->m[i] / (1 - pow(b1, (double)step));
        double spread = sqrt(t->v[i] / (1 - pow(b2, (double)step)));
        t->p[i] -= lr * (mean / (spread + (double)usual.eps) +
                            (double)usual.weight_decay * t->p[i]);
    }
}

/* Random disjoint segments with random gradients; the rest is zero. */
static void
fill(struct rng *rng, struct encoder_grads *g)
{
    size_t at = 0;
    g->n_segments = 0;
    memset(g->d_params, 0, N * sizeof(float));
    while (g->n_segments < SEGMENTS) {
        size_t start = at + (size_t)rng_below(rng, 20);
        size_t n = 1 + (size_t)rng_below(rng, 20);
        if (start + n > N)
            break;
        g->segments[g->n_segments] = (struct encoder_segment){.start = start,
            .n = n,
            .lr_scale = g->n_segments % 3 == 0 ? 0.5f : 1};
        for (size_t i = start; i < start + n; i++)
            g->d_params[i] =
                (float)(rng_normal(rng) * pow(10, -(double)(i % 5)));
        g->n_segments++;
        at = start + n;
    }
}

static void
test_against_double(void **state)
{
    static struct twin twin;
    float p[N], d[N], before[N], copy[N];
    struct encoder_segment segments[SEGMENTS];
    struct encoder_grads grads = {.d_params = d, .segments = segments};
    struct adamw *adamw;
    struct rng rng;

    (void)state;
    rng_seed(&rng, 1);
    memset(&twin, 0, sizeof twin);
    for (size_t i = 0; i < N; i++) {
        p[i] = (float)rng_normal(&rng);
        twin.p[i] = (double)p[i];
    }
    assert_int_equal(adamw_new(&adamw, N, &usual), OK);
    for (size_t step = 1; step <= STEPS; step++) {
        fill(&rng, &grads);
        unsigned char touched[N] = {0};
        memcpy(before, p, sizeof p);
        memcpy(copy, d, sizeof d);
        adamw_step(adamw, p, &grads, 0.01f, NULL);
        for (size_t s = 0; s < grads.n_segments; s++) {
            reference_step(&twin, copy, segments[s].start, segments[s].n,
                (double)0.01f * (double)segments[s].lr_scale, step);
            memset(touched + segments[s].start, 1, segments[s].n);
        }
        assert_true(grads.n_segments > 10); /* listed still */
        for (size_t i = 0; i < N; i++) {
            assert_true(d[i] == 0);
            if (!touched[i])
                assert_true(p[i] == before[i]);
            double err = fabs((double)p[i] - twin.p[i]);
            assert_true(err <= 1e-5 * fmax(fabs(twin.p[i]), 1));
        }
    }
    adamw_free(adamw);
    adamw_free(NULL);
}

static void
test_pools_agree(void **state)
{
    float want[N];

    (void)state;
    for (size_t threads = 0; threads <= 3; threads++) {
        float p[N], d[N];
        struct encoder_segment segments[SEGMENTS];
        struct encoder_grads grads = {.d_params = d, .segments = segments};
        struct adamw *adamw;
        struct pool *pool = NULL;
        struct rng rng;
        if (threads > 0)
            assert_int_equal(pool_new(&pool, threads, false), OK);
        rng_seed(&rng, 4);
        memset(p, 0, sizeof p);
        assert_int_equal(adamw_new(&adamw, N, &usual), OK);
        for (int step = 0; step < 5; step++) {
            fill(&rng, &grads);
            adamw_step(adamw, p, &grads, 0.01f, pool);
        }
        if (threads == 0)
            memcpy(want, p, sizeof p);
        assert_memory_equal(p, want, sizeof p);
        adamw_free(adamw);
        pool_free(pool);
    }
}

static void
test_memory_runs_out(void **state)
{
    struct adamw *adamw = NULL;

    (void)state;
    for (uint64_t n = 1; n <= 3; n++) {
        alloc_fail_at(n);
        assert_int_equal(adamw_new(&adamw, N, &usual), ERR_NOMEM);
        assert_null(adamw);
    }
    alloc_fail_at(0);
}

static void
test_schedule(void **state)
{
    static const size_t lengths[] = {1, 2, 3, 10, 1000};
    static const float warmups[] = {0, 0.1f, 0.5f, 1};

    (void)state;
    for (size_t l = 0; l < ARRAY_LEN(lengths); l++) {
        for (size_t w = 0; w < ARRAY_LEN(warmups); w++) {
            size_t n = lengths[l];
            float last = 0;
            bool falling = false;
            for (size_t step = 0; step < n; step++) {
                float rate = schedule_cosine(step, n, warmups[w]);
                assert_true(rate > 0 && rate <= 1);
                if (step > 0 && rate < last)
                    falling = true;
                if (falling)
                    assert_true(rate <= last);
                last = rate;
            }
        }
    }
    /* linear at first, the peak at the end of it, near nothing at the end */
    assert_true(fabsf(schedule_cosine(4, 100, 0.1f) - 0.5f) <= 1e-6f);
    assert_true(fabsf(schedule_cosine(9, 100, 0.1f) - 1) <= 1e-6f);
    assert_true(fabsf(schedule_cosine(54, 100, 0.1f) - 0.5f) <= 0.02f);
    assert_true(schedule_cosine(99, 100, 0.1f) < 0.002f);
    assert_true(fabsf(schedule_cosine(0, 1000, 0) - 1) <= 1e-4f);
    assert_true(fabsf(schedule_cosine(999, 1000, 1) - 1) <= 1e-6f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_pools_agree),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_schedule),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
