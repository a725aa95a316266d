/*
 * Goal: the measures of frozen embeddings compute what their sources define.
 *
 * Method: nearest neighbours against a sort of all cosines; the probe on
 * classes that a plane separates, on noise, and against its own optimality
 * condition (a held-out choice of l2, and no gain from more classes); alignment
 * and uniformity against double loops. All with several pools.
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
#include "base/alloc.h"
#include "base/check.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "train/measure.h"

#define D 24
#define CLASSES 5

static void
unit_rows(float *x, uint32_t *label, size_t n, double noise, uint64_t seed)
{
    struct rng rng, of_class;
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        double norm = 0;
        label[i] = (uint32_t)rng_below(&rng, CLASSES);
        rng_seed(&of_class, 100 + label[i]);
        for (size_t d = 0; d < D; d++) {
            double v = rng_normal(&of_class) + noise * rng_normal(&rng);
            x[i * D + d] = (float)v;
            norm += v * v;
        }
        for (size_t d = 0; d < D; d++)
            x[i * D + d] /= (float)sqrt(norm);
    }
}

struct found {
    float score;
    uint32_t row;
};

static int
compare_found(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* Rows of small integers, so that every order of additions gives the same
   cosine and ties are many. */
static void
integer_rows(float *x, uint32_t *label, size_t n, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        label[i] = (uint32_t)rng_below(&rng, CLASSES);
        for (size_t d = 0; d < D; d++)
            x[i * D + d] = ((float)rng_below(&rng, 5) - 2) / 16;
    }
}

static void
test_knn_is_a_sort(void **state)
{
    enum { N = 5000, M = 131 };
    static float train[N * D], test[M * D];
    static uint32_t label[N], want[M], got[M], predicted[M];
    static struct found found[N];
    const struct measure_set a = {train, label, N}, b = {test, got, M};
    static const size_t ks[] = {1, 7, 200, 4999, 9999};
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(&pool, 3, false), OK);
    integer_rows(train, label, N, 1);
    integer_rows(test, got, M, 2);
    for (size_t t = 0; t < ARRAY_LEN(ks); t++) {
        struct measure_knn_options o = {
            .k = ks[t], .temperature = 0.1f, .n_classes = CLASSES};
        double accuracy, hits = 0;
        for (size_t q = 0; q < M; q++) {
            double votes[CLASSES] = {0};
            for (size_t i = 0; i < N; i++)
                found[i] = (struct found){
                    (float)kern()->dot_f64(test + q * D, train + i * D, D),
                    (uint32_t)i};
            qsort(found, N, sizeof *found, compare_found);
            for (size_t i = 0; i < MIN(ks[t], (size_t)N); i++)
                votes[label[found[i].row]] +=
                    exp((double)found[i].score / (double)0.1f);
            want[q] = 0;
            for (uint32_t c = 1; c < CLASSES; c++) {
                if (votes[c] > votes[want[q]])
                    want[q] = c;
            }
            hits += want[q] == got[q];
        }
        assert_int_equal(
            measure_knn(&accuracy, predicted, &a, &b, D, &o, pool), OK);
        assert_memory_equal(predicted, want, sizeof want);
        assert_true(fabs(accuracy - hits / M) <= 1e-12);
        assert_int_equal(measure_knn(&accuracy, NULL, &a, &b, D, &o, NULL), OK);
        assert_true(fabs(accuracy - hits / M) <= 1e-12);
    }
    pool_free(pool);
}

static void
test_knn_finds_classes(void **state)
{
    enum { N = 400, M = 200 };
    static float train[N * D], test[M * D];
    static uint32_t a_label[N], b_label[M];
    const struct measure_set a = {train, a_label, N}, b = {test, b_label, M};
    struct measure_knn_options o = {
        .k = 20, .temperature = 0.1f, .n_classes = CLASSES};
    double accuracy;

    (void)state;
    unit_rows(train, a_label, N, 0.3, 3);
    unit_rows(test, b_label, M, 0.3, 4);
    assert_int_equal(measure_knn(&accuracy, NULL, &a, &b, D, &o, NULL), OK);
    assert_true(accuracy >= 0.99);
    for (size_t i = 0; i < M; i++)
        b_label[i] = (b_label[i] + 1) % CLASSES;
    assert_int_equal(measure_knn(&accuracy, NULL, &a, &b, D, &o, NULL), OK);
    assert_true(accuracy <= 0.01);
}

static void
test_probe(void **state)
{
    enum { N = 5000, M = 1000 };
    static float train[N * D], test[M * D];
    static uint32_t a_label[N], b_label[M];
    const struct measure_set a = {train, a_label, N}, b = {test, b_label, M};
    struct measure_probe clear, again, noisy, none;
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(&pool, 2, false), OK);
    unit_rows(train, a_label, N, 0.4, 5);
    unit_rows(test, b_label, M, 0.4, 6);
    assert_int_equal(measure_probe(&clear, &a, &b, D, CLASSES, NULL), OK);
    assert_true(clear.accuracy >= 0.99 && clear.held_out >= 0.99);
    assert_int_equal(measure_probe(&again, &a, &b, D, CLASSES, pool), OK);
    assert_memory_equal(&again, &clear, sizeof clear);
    unit_rows(train, a_label, N, 3, 7);
    unit_rows(test, b_label, M, 3, 8);
    assert_int_equal(measure_probe(&noisy, &a, &b, D, CLASSES, pool), OK);
    assert_true(noisy.accuracy < clear.accuracy && noisy.accuracy > 0.35);
    /* labels without a meaning: chance */
    struct rng rng;
    rng_seed(&rng, 9);
    for (size_t i = 0; i < N; i++)
        a_label[i] = (uint32_t)rng_below(&rng, CLASSES);
    assert_int_equal(measure_probe(&none, &a, &b, D, CLASSES, pool), OK);
    assert_true(none.accuracy < 0.3);
    pool_free(pool);
}

/* Two dimensions carry the classes, at scales that differ by 1,000, beside one
   that is constant: standardising makes them count alike. */
static void
test_probe_scales(void **state)
{
    enum { N = 1000, M = 500, DIMS = 3 };
    static float rows[(N + M) * DIMS];
    static uint32_t label[N + M];
    const struct measure_set a = {rows, label, N},
                             b = {rows + N * DIMS, label + N, M};
    struct measure_probe out;
    struct rng rng;

    (void)state;
    rng_seed(&rng, 10);
    for (size_t i = 0; i < N + M; i++) {
        label[i] = (uint32_t)rng_below(&rng, 4);
        rows[i * DIMS] = (float)((label[i] & 1) + 0.1 * rng_normal(&rng));
        rows[i * DIMS + 1] =
            (float)(1e-3 * ((label[i] >> 1) + 0.1 * rng_normal(&rng)));
        rows[i * DIMS + 2] = 7;
    }
    assert_int_equal(measure_probe(&out, &a, &b, DIMS, 4, NULL), OK);
    assert_true(out.accuracy >= 0.99);
}

static void
test_alignment_and_uniformity(void **state)
{
    enum { N = 300 };
    static float x[N * D], y[N * D];
    static uint32_t label[N];
    double align = 0, uniform = 0, got, again;
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(&pool, 2, false), OK);
    unit_rows(x, label, N, 0.5, 11);
    unit_rows(y, label, N, 0.5, 12);
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) {
            double d2 = 0, e2 = 0;
            for (size_t d = 0; d < D; d++) {
                double u = (double)x[i * D + d] - (double)x[j * D + d];
                double v = (double)x[i * D + d] - (double)y[j * D + d];
                d2 += u * u;
                e2 += v * v;
            }
            if (i != j)
                uniform += exp(-2 * d2);
            else
                align += e2;
        }
    }
    got = measure_alignment(x, y, N, D);
    assert_true(fabs(got - align / N) <= 1e-6 * got);
    assert_true(measure_alignment(x, x, N, D) <= 0);
    assert_int_equal(measure_uniformity(&got, x, N, D, NULL), OK);
    uniform = log(uniform / (N * (N - 1.0)));
    assert_true(fabs(got - uniform) <= 1e-4);
    assert_int_equal(measure_uniformity(&again, x, N, D, pool), OK);
    assert_memory_equal(&again, &got, sizeof got);
    /* all in one place: log 1 */
    for (size_t i = 1; i < N; i++)
        memcpy(x + i * D, x, D * sizeof *x);
    assert_int_equal(measure_uniformity(&got, x, N, D, NULL), OK);
    assert_true(fabs(got) <= 1e-4);
    pool_free(pool);
}

static void
test_memory_runs_out(void **state)
{
    enum { N = 50 };
    static float x[N * D];
    static uint32_t label[N];
    const struct measure_set a = {x, label, N};
    struct measure_knn_options o = {
        .k = 5, .temperature = 0.1f, .n_classes = CLASSES};

    (void)state;
    unit_rows(x, label, N, 0.5, 13);
    for (int which = 0; which < 3; which++) {
        for (uint64_t n = 1;; n++) {
            double value = 77;
            struct measure_probe probe = {.accuracy = 77};
            enum err err;
            alloc_fail_at(n);
            if (which == 0)
                err = measure_knn(&value, NULL, &a, &a, D, &o, NULL);
            else if (which == 1)
                err = measure_uniformity(&value, x, N, D, NULL);
            else
                err = measure_probe(&probe, &a, &a, D, CLASSES, NULL);
            uint64_t seen = alloc_fail_at(0);
            assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
            if (err == OK)
                break;
            assert_true(value > 76 && probe.accuracy > 76);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_knn_is_a_sort),
        cmocka_unit_test(test_knn_finds_classes),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_probe_scales),
        cmocka_unit_test(test_alignment_and_uniformity),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
