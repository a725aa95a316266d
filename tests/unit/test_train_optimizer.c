/*
 * Goal: AdamW, SGD and LARS move what a gradient touched and nothing else, as
 * their papers say, with each segment's own rate, decay and, in LARS, trust;
 * their state can be carried to another optimiser between two steps; the
 * schedules rise, fall and end.
 *
 * Method: the updates in double over many steps, with sparse segments that
 * change from step to step, among them fixed ones and ones without decay; one
 * segment longer than the block of the implementation; a run that is cut in
 * two against one that is not; the schedules at their corners and as curves.
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

#define N 4000
#define SEGMENTS 40
#define STEPS 30

static struct optimizer_options
usual(enum optimizer_kind kind)
{
    struct optimizer_options o;
    optimizer_options_default(&o, kind);
    o.weight_decay = 0.02f;
    o.trust = 0.1f;
    return o;
}

struct twin {
    double p[N], m[N], v[N];
};

static void
reference_adamw(struct twin *t, const struct optimizer_options *o,
    const float *g, size_t i, double lr, double decay, size_t step)
{
    double b1 = (double)o->beta1, b2 = (double)o->beta2;
    t->m[i] = b1 * t->m[i] + (1 - b1) * (double)g[i];
    t->v[i] = b2 * t->v[i] + (1 - b2) * (double)g[i] * (double)g[i];
    double mean = t->m[i] / (1 - pow(b1, (double)step));
    double spread = sqrt(t->v[i] / (1 - pow(b2, (double)step)));
    t->p[i] -= lr * (mean / (spread + (double)o->eps) + decay * t->p[i]);
}

static void
reference_step(struct twin *t, const struct optimizer_options *o,
    const float *g, const struct encoder_segment *seg, double lr, size_t step)
{
    double decay = seg->no_decay ? 0 : (double)o->weight_decay;
    double p_square = 0, g_square = 0, ratio = 1;

    lr *= (double)seg->lr_scale;
    if (!(lr > 0))
        return;
    for (size_t i = seg->start; i < seg->start + seg->n; i++) {
        p_square += t->p[i] * t->p[i];
        g_square += (double)g[i] * (double)g[i];
    }
    if (!seg->no_decay && p_square > 0 && g_square > 0)
        ratio = (double)o->trust * sqrt(p_square) /
                (sqrt(g_square) + decay * sqrt(p_square));
    for (size_t i = seg->start; i < seg->start + seg->n; i++) {
        if (o->kind == OPTIMIZER_ADAMW) {
            reference_adamw(t, o, g, i, lr, decay, step);
        } else if (o->kind == OPTIMIZER_SGD) {
            t->v[i] = (double)o->momentum * t->v[i] + (double)g[i];
            t->p[i] -= lr * (t->v[i] + decay * t->p[i]);
        } else {
            t->v[i] = (double)o->momentum * t->v[i] +
                      lr * ratio * ((double)g[i] + decay * t->p[i]);
            t->p[i] -= t->v[i];
        }
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
        size_t i_segment = g->n_segments;
        size_t n = 1 + (size_t)rng_below(rng, 20);
        if (i_segment == 3)
            n += 1100 + (size_t)rng_below(rng, 1000);
        if (start + n > N)
            break;
        g->segments[g->n_segments] = (struct encoder_segment){.start = start,
            .n = n,
            .lr_scale = i_segment % 7 == 5   ? 0
                        : i_segment % 3 == 0 ? 0.5f
                                             : 1,
            .no_decay = i_segment % 4 == 1};
        for (size_t i = start; i < start + n; i++)
            g->d_params[i] =
                (float)(rng_normal(rng) * pow(10, -(double)(i % 5)));
        if (i_segment == 6) /* listed, yet nothing came: LARS has no ratio */
            memset(g->d_params + start, 0, n * sizeof(float));
        g->n_segments++;
        at = start + n;
    }
}

static void
check_against_double(enum optimizer_kind kind)
{
    static struct twin twin;
    static float p[N], d[N], before[N], copy[N];
    struct encoder_segment segments[SEGMENTS];
    struct encoder_grads grads = {.d_params = d, .segments = segments};
    struct optimizer_options options = usual(kind);
    struct optimizer *optimizer;
    struct rng rng;

    rng_seed(&rng, 1);
    memset(&twin, 0, sizeof twin);
    for (size_t i = 0; i < N; i++) {
        /* some rows of zeros: LARS has no ratio for them */
        p[i] = i % 100 < 20 ? 0 : (float)rng_normal(&rng);
        twin.p[i] = (double)p[i];
    }
    assert_int_equal(optimizer_new(&optimizer, N, &options), OK);
    for (size_t step = 1; step <= STEPS; step++) {
        fill(&rng, &grads);
        unsigned char touched[N] = {0};
        memcpy(before, p, sizeof p);
        memcpy(copy, d, sizeof d);
        optimizer_step(optimizer, p, &grads, 0.01f, NULL);
        for (size_t s = 0; s < grads.n_segments; s++) {
            reference_step(
                &twin, &options, copy, &segments[s], (double)0.01f, step);
            if (segments[s].lr_scale > 0)
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
    optimizer_free(optimizer);
    optimizer_free(NULL);
}

static void
test_against_double(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < OPTIMIZER_KINDS; kind++)
        check_against_double((enum optimizer_kind)kind);
}

/* The published difference: LARS's step has the length lr trust |p|, whatever
   the gradient's. */
static void
test_trust(void **state)
{
    struct optimizer_options options = usual(OPTIMIZER_LARS);
    float p[8], d[8], before[8];
    struct encoder_segment segment = {.n = 8, .lr_scale = 1};
    struct encoder_grads grads = {
        .d_params = d, .segments = &segment, .n_segments = 1};

    (void)state;
    options.weight_decay = 0;
    for (int e = -6; e <= 6; e += 3) {
        struct optimizer *optimizer;
        double moved = 0, length = 0;
        for (size_t i = 0; i < 8; i++) {
            before[i] = p[i] = 1 + (float)i;
            d[i] = (float)((double)(1 + i % 3) * pow(10, e));
        }
        assert_int_equal(optimizer_new(&optimizer, 8, &options), OK);
        optimizer_step(optimizer, p, &grads, 0.5f, NULL);
        for (size_t i = 0; i < 8; i++) {
            double step = (double)before[i] - (double)p[i];
            moved += step * step;
            length += (double)before[i] * (double)before[i];
        }
        assert_true(fabs(sqrt(moved / length) - 0.5 * 0.1) <= 1e-5);
        optimizer_free(optimizer);
    }
}

static void
test_pools_agree(void **state)
{
    static float want[N], p[N], d[N];

    (void)state;
    for (size_t run = 0; run < 4 * OPTIMIZER_KINDS; run++) {
        struct optimizer_options options =
            usual((enum optimizer_kind)(run / 4));
        size_t threads = run % 4;
        struct encoder_segment segments[SEGMENTS];
        struct encoder_grads grads = {.d_params = d, .segments = segments};
        struct optimizer *optimizer;
        struct pool *pool = NULL;
        struct rng rng;
        if (threads > 0)
            assert_int_equal(pool_new(&pool, threads, false), OK);
        rng_seed(&rng, 4);
        for (size_t i = 0; i < N; i++)
            p[i] = 1;
        assert_int_equal(optimizer_new(&optimizer, N, &options), OK);
        for (int step = 0; step < 5; step++) {
            fill(&rng, &grads);
            optimizer_step(optimizer, p, &grads, 0.01f, pool);
        }
        if (threads == 0)
            memcpy(want, p, sizeof p);
        assert_memory_equal(p, want, sizeof p);
        optimizer_free(optimizer);
        pool_free(pool);
    }
}

/* Steps 4 to 8 by another optimiser that was given the state: the same bits. */
static void
test_state_goes_on(void **state)
{
    static float p[N], want[N], d[N];

    (void)state;
    for (size_t run = 0; run < 2 * OPTIMIZER_KINDS; run++) {
        struct optimizer_options options =
            usual((enum optimizer_kind)(run / 2));
        struct encoder_segment segments[SEGMENTS];
        struct encoder_grads grads = {.d_params = d, .segments = segments};
        struct optimizer *optimizer, *next;
        struct rng rng;
        bool cut = run % 2 == 1;
        rng_seed(&rng, 9);
        for (size_t i = 0; i < N; i++)
            p[i] = 1;
        assert_int_equal(optimizer_new(&optimizer, N, &options), OK);
        for (int step = 0; step < 8; step++) {
            fill(&rng, &grads);
            optimizer_step(optimizer, p, &grads, 0.01f, NULL);
            if (cut && step == 3) {
                assert_int_equal(optimizer_new(&next, N, &options), OK);
                size_t n = optimizer_state_floats(optimizer);
                assert_int_equal(n, optimizer_state_floats(next));
                memcpy(optimizer_state(next), optimizer_state(optimizer),
                    n * sizeof(float));
                optimizer_free(optimizer);
                optimizer = next;
            }
        }
        if (!cut)
            memcpy(want, p, sizeof p);
        assert_memory_equal(p, want, sizeof p);
        optimizer_free(optimizer);
    }
}

static void
test_memory_runs_out(void **state)
{
    struct optimizer_options options = usual(OPTIMIZER_ADAMW);
    struct optimizer *optimizer = NULL;

    (void)state;
    for (uint64_t n = 1; n <= 2; n++) {
        alloc_fail_at(n);
        assert_int_equal(optimizer_new(&optimizer, N, &options), ERR_NOMEM);
        assert_null(optimizer);
    }
    alloc_fail_at(0);
}

static float
rate(enum schedule_kind kind, size_t step, size_t n_steps, float warmup)
{
    struct schedule_options o = {.kind = kind, .lr = 1, .warmup = warmup};
    return schedule_rate(&o, step, n_steps);
}

static void
test_schedules_are_curves(void **state)
{
    static const size_t lengths[] = {1, 2, 3, 10, 1000};
    static const float warmups[] = {0, 0.1f, 0.5f, 1};

    (void)state;
    for (size_t c = 0; c < SCHEDULE_KINDS * 20; c++) {
        enum schedule_kind kind = (enum schedule_kind)(c / 20);
        size_t n = lengths[c / 4 % 5];
        float last = 0;
        bool falling = false;
        for (size_t step = 0; step < n; step++) {
            float now = rate(kind, step, n, warmups[c % 4]);
            assert_true(now > 0 && now <= 1);
            if (step > 0 && now < last)
                falling = true;
            if (falling)
                assert_true(now <= last);
            last = now;
        }
    }
}

static void
near(float got, float want, float tolerance)
{
    assert_true(fabsf(got - want) <= tolerance);
}

static void
test_schedules_at_corners(void **state)
{
    struct schedule_options o = {.kind = SCHEDULE_CONSTANT, .lr = 0.25f};

    (void)state;
    for (size_t kind = 0; kind < SCHEDULE_KINDS; kind++) {
        near(rate((enum schedule_kind)kind, 4, 100, 0.1f), 0.5f, 1e-6f);
        near(rate((enum schedule_kind)kind, 9, 100, 0.1f), 1, 1e-6f);
        near(rate((enum schedule_kind)kind, 0, 1000, 0), 1, 1e-4f);
        near(rate((enum schedule_kind)kind, 499, 1000, 1), 0.5f, 1e-6f);
    }
    /* the peak after warm-up, near nothing at the end */
    near(rate(SCHEDULE_COSINE, 54, 100, 0.1f), 0.5f, 0.02f);
    assert_true(rate(SCHEDULE_COSINE, 99, 100, 0.1f) < 0.002f);
    near(rate(SCHEDULE_COSINE, 999, 1000, 1), 1, 1e-6f);
    near(rate(SCHEDULE_STEP, 59, 100, 0.1f), 1, 0);
    near(rate(SCHEDULE_STEP, 60, 100, 0.1f), 0.1f, 0);
    near(rate(SCHEDULE_STEP, 79, 100, 0.1f), 0.1f, 0);
    near(rate(SCHEDULE_STEP, 80, 100, 0.1f), 0.01f, 0);
    near(rate(SCHEDULE_CONSTANT, 99, 100, 0.1f), 1, 0);
    near(schedule_rate(&o, 7, 10), 0.25f, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_trust),
        cmocka_unit_test(test_pools_agree),
        cmocka_unit_test(test_state_goes_on),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_schedules_are_curves),
        cmocka_unit_test(test_schedules_at_corners),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
