/*
 * Goal: ranks, measures, intervals and calibration are what judge.h says.
 *
 * Method: ranks against counting in double over an index with duplicates,
 * skipped and absent items; measures, NLL and calibration error against
 * numbers worked out by hand; the interval against repeated draws from a
 * known difference; the temperature recovered from positives that were drawn
 * by the softmax itself.
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
#include "base/rng.h"
#include "kern/kern.h"
#include "train/judge.h"

#define DIMS 16
#define ITEMS 5000
#define QUESTIONS 70
#define RELEVANT 3

static float items[ITEMS * DIMS];
static float anchors[QUESTIONS * DIMS];
static uint32_t relevant[QUESTIONS][RELEVANT];
static struct judge_question questions[QUESTIONS];
static struct ann *ann;

static uint32_t
ord_of(size_t item)
{
    return (uint32_t)(2 * item + 5);
}

static void
unit(struct rng *rng, float *v)
{
    double square = 0;
    for (size_t d = 0; d < DIMS; d++) {
        v[d] = (float)rng_normal(rng);
        square += (double)v[d] * (double)v[d];
    }
    for (size_t d = 0; d < DIMS; d++)
        v[d] = (float)((double)v[d] / sqrt(square));
}

/* Every seventh item is the one before it again; some questions skip their
   best item, some look for what is not there. */
static int
set_up(void **state)
{
    struct rng rng;

    (void)state;
    rng_seed(&rng, 1);
    assert_int_equal(ann_new(&ann, DIMS, NULL), OK);
    for (size_t i = 0; i < ITEMS; i++) {
        if (i % 7 == 6)
            memcpy(
                items + i * DIMS, items + (i - 1) * DIMS, DIMS * sizeof *items);
        else
            unit(&rng, items + i * DIMS);
        assert_int_equal(ann_put(ann, ord_of(i), items + i * DIMS), OK);
    }
    for (size_t q = 0; q < QUESTIONS; q++) {
        size_t near = (size_t)rng_below(&rng, ITEMS);
        unit(&rng, anchors + q * DIMS);
        if (q % 5 == 0) /* the anchor is an item itself */
            memcpy(
                anchors + q * DIMS, items + near * DIMS, DIMS * sizeof *items);
        for (size_t k = 0; k < RELEVANT; k++)
            relevant[q][k] = ord_of((size_t)rng_below(&rng, ITEMS));
        if (q % 6 == 1)
            relevant[q][1] = 4; /* no item has that */
        if (q % 6 == 2)
            relevant[q][0] = ord_of(7 * (size_t)rng_below(&rng, 700) + 5);
        questions[q] = (struct judge_question){.relevant = relevant[q],
            .n_relevant = 1 + q % RELEVANT,
            .skip = q % 5 == 0 ? ord_of(near) : ANN_NONE,
            .group = q / 2};
        if (q % 6 == 3) /* a question for its own item is for nothing */
            questions[q].skip = relevant[q][0];
    }
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ann_free(ann);
    return 0;
}

static double
cosine(size_t q, size_t item)
{
    double sum = 0;
    for (size_t d = 0; d < DIMS; d++)
        sum += (double)anchors[q * DIMS + d] * (double)items[item * DIMS + d];
    return sum;
}

static void
check_question(const struct judge_ranks *ranks, size_t q)
{
    double top = -1;
    size_t n = 0, counted = 0;

    for (size_t i = 0; i < ITEMS; i++) {
        if (ord_of(i) == questions[q].skip)
            continue;
        top = fmax(top, cosine(q, i));
        n++;
    }
    assert_true(fabs((double)ranks->top[q] - top) <= 1e-6);
    for (size_t k = 0; k < questions[q].n_relevant; k++) {
        size_t at = ranks->start[q] + k;
        uint32_t ord = relevant[q][k];
        if (ord == 4 || ord == questions[q].skip) {
            assert_true(ranks->rank[at] == JUDGE_ABSENT);
            continue;
        }
        double own = cosine(q, (ord - 5) / 2);
        size_t above = 0, tied = 0;
        for (size_t i = 0; i < ITEMS; i++) {
            if (ord_of(i) == questions[q].skip)
                continue;
            above += cosine(q, i) > own + 1e-6;
            tied += fabs(cosine(q, i) - own) <= 1e-6;
        }
        /* half of the others that tie are before it; floats may see one tie
           more or less than doubles */
        size_t rank = above + (tied - 1) / 2;
        assert_true(ranks->rank[at] + 1 >= rank && ranks->rank[at] <= rank + 1);
        if (tied == 1)
            assert_int_equal(ranks->rank[at], above);
        assert_true(fabs((double)ranks->cosine[at] - own) <= 1e-6);
    }
    if (ranks->bins == NULL)
        return;
    for (size_t b = 0; b < JUDGE_BINS; b++)
        counted += ranks->bins[q * JUDGE_BINS + b];
    assert_int_equal(counted, n);
}

static void
test_ranks(void **state)
{
    (void)state;
    for (size_t threads = 0; threads <= 3; threads++) {
        struct pool *pool = NULL;
        struct judge_ranks ranks;
        if (threads > 0)
            assert_int_equal(pool_new(&pool, threads, false), OK);
        assert_int_equal(judge_rank(&ranks, ann, anchors, questions, QUESTIONS,
                             threads % 2 == 0, pool),
            OK);
        assert_int_equal(ranks.n, QUESTIONS);
        assert_true((ranks.bins != NULL) == (threads % 2 == 0));
        for (size_t q = 0; q < QUESTIONS; q++) {
            assert_int_equal(
                ranks.start[q + 1] - ranks.start[q], questions[q].n_relevant);
            check_question(&ranks, q);
        }
        judge_ranks_release(&ranks);
        judge_ranks_release(&ranks);
        pool_free(pool);
    }
}

/* Nothing to search, and nothing to ask. */
/* All items in one place: the positive is in the middle, never on top. */
static void
test_collapse(void **state)
{
    struct ann *flat;
    struct judge_ranks ranks;
    uint32_t wanted = 3;
    struct judge_question question = {
        .relevant = &wanted, .n_relevant = 1, .skip = ANN_NONE};

    (void)state;
    assert_int_equal(ann_new(&flat, DIMS, NULL), OK);
    for (uint32_t i = 0; i < 101; i++)
        assert_int_equal(ann_put(flat, i, items), OK);
    assert_int_equal(
        judge_rank(&ranks, flat, items, &question, 1, false, NULL), OK);
    assert_int_equal(ranks.rank[0], 50);
    judge_ranks_release(&ranks);
    ann_free(flat);
}

static void
test_empty_index(void **state)
{
    struct ann *none;
    struct judge_ranks ranks;

    (void)state;
    assert_int_equal(ann_new(&none, DIMS, NULL), OK);
    assert_int_equal(
        judge_rank(&ranks, none, anchors, questions, 3, true, NULL), OK);
    for (size_t i = 0; i < ranks.start[3]; i++)
        assert_true(ranks.rank[i] == JUDGE_ABSENT);
    assert_true(judge_mean(&ranks, JUDGE_NDCG_10) == 0);
    judge_ranks_release(&ranks);
    assert_int_equal(
        judge_rank(&ranks, ann, anchors, questions, 0, true, NULL), OK);
    assert_true(judge_mean(&ranks, JUDGE_NDCG_10) == 0);
    judge_ranks_release(&ranks);
    ann_free(none);
}

static void
test_memory_runs_out(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct judge_ranks ranks = {0};
        struct judge_difference difference;
        alloc_fail_at(n);
        enum err err =
            judge_rank(&ranks, ann, anchors, questions, 5, true, NULL);
        if (err == OK)
            err = judge_compare(
                &difference, &ranks, &ranks, questions, JUDGE_NDCG_10, 1);
        uint64_t seen = alloc_fail_at(0);
        judge_ranks_release(&ranks);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        if (seen < n)
            break;
    }
}

/* ------------------------------------------------------------- measures */

static void
near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-9))
        print_error("got %.12g, want %.12g\n", got, want);
    assert_true(fabs(got - want) <= 1e-9);
}

static void
test_measures_by_hand(void **state)
{
    size_t start[] = {0, 1, 3, 4, 6, 8, 20};
    uint32_t rank[] = {0, 2, JUDGE_ABSENT, 10, 99, 100, 1, 0, 0, 1, 2, 3, 4, 5,
        6, 7, 8, 9, 10, 11};
    struct judge_ranks ranks = {.n = 6, .start = start, .rank = rank};
    static const double want[6][JUDGE_MEASURES] = {
        /* nDCG@10, MRR@10, recall@1, @10, @100 */
        {1, 1, 1, 1, 1},                            /* found on top */
        {0.3065735963827292, 1 / 3.0, 0, 0.5, 0.5}, /* third; one is gone */
        {0, 0, 0, 0, 1},                            /* eleventh */
        {0, 0, 0, 0, 0.5},                          /* 100th and 101st */
        {1, 1, 1, 1, 1},                            /* both on top */
        {1, 1, 1, 1, 1}};                           /* twelve of them */
    double sum = 0;

    (void)state;
    for (size_t q = 0; q < 6; q++) {
        for (int m = 0; m < JUDGE_MEASURES; m++)
            near(judge_value(&ranks, q, (enum judge_measure)m), want[q][m]);
        sum += want[q][JUDGE_NDCG_10];
    }
    near(judge_mean(&ranks, JUDGE_NDCG_10), sum / 6);
    for (int m = 0; m < JUDGE_MEASURES; m++)
        assert_int_equal(judge_measure_find(judge_measure_names[m]), m);
    assert_int_equal(judge_measure_find("ndcg"), JUDGE_MEASURES);
    assert_int_equal(judge_measure_find(""), JUDGE_MEASURES);
}

/* ------------------------------------------------------------- interval */

#define PAIRED 200

struct paired {
    size_t start[PAIRED + 1];
    uint32_t before[PAIRED], after[PAIRED];
    struct judge_question questions[PAIRED];
};

static void
compare(struct paired *p, struct judge_difference *out, uint64_t seed)
{
    struct judge_ranks before = {
        .n = PAIRED, .start = p->start, .rank = p->before};
    struct judge_ranks after = {
        .n = PAIRED, .start = p->start, .rank = p->after};
    for (size_t q = 0; q <= PAIRED; q++)
        p->start[q] = q;
    assert_int_equal(
        judge_compare(out, &before, &after, p->questions, JUDGE_RECALL_1, seed),
        OK);
    assert_int_equal(out->n_questions, PAIRED);
    assert_true(out->low <= out->gain && out->gain <= out->high);
}

static void
test_interval_of_certain_gains(void **state)
{
    static struct paired p;
    struct judge_difference d, again;

    (void)state;
    for (size_t q = 0; q < PAIRED; q++) {
        p.before[q] = p.after[q] = q % 2;
        p.questions[q].group = q;
    }
    compare(&p, &d, 1);
    near(d.before, 0.5);
    near(d.after, 0.5);
    near(d.low, 0);
    near(d.high, 0);
    assert_int_equal(d.n_groups, PAIRED);
    memset(p.after, 0, sizeof p.after); /* every miss is mended */
    compare(&p, &d, 1);
    near(d.gain, 0.5);
    assert_true(d.low > 0.35 && d.high < 0.65);
    compare(&p, &again, 1);
    assert_memory_equal(&d, &again, sizeof d);
    for (size_t q = 0; q < PAIRED; q++) {
        p.before[q] = 0;
        p.after[q] = 1;
    }
    compare(&p, &d, 1); /* and every hit lost */
    near(d.gain, -1);
    near(d.high, -1);
}

/* Of 100 experiments with a true gain of 0.1, about 95% cover it. */
static void
test_interval_covers(void **state)
{
    static struct paired p;
    struct judge_difference d;
    struct rng rng;
    int covered = 0;

    (void)state;
    rng_seed(&rng, 5);
    for (uint64_t round = 0; round < 100; round++) {
        for (size_t q = 0; q < PAIRED; q++) {
            p.before[q] = rng_double(&rng) >= 0.4;
            p.after[q] = rng_double(&rng) >= 0.5;
            p.questions[q].group = rng_u64(&rng);
        }
        compare(&p, &d, round);
        covered += d.low <= 0.1 && 0.1 <= d.high;
    }
    assert_true(covered >= 88);
}

/* Questions of a group are drawn together: fewer groups, wider interval. */
static void
test_groups_widen(void **state)
{
    static struct paired p;
    struct judge_difference alone, grouped;

    (void)state;
    for (size_t q = 0; q < PAIRED; q++) {
        p.before[q] = 1;
        p.after[q] = q / 20 % 2;
        p.questions[q].group = q;
    }
    compare(&p, &alone, 3);
    for (size_t q = 0; q < PAIRED; q++)
        p.questions[q].group = q / 20;
    compare(&p, &grouped, 3);
    assert_int_equal(grouped.n_groups, 10);
    near(grouped.gain, alone.gain);
    assert_true(grouped.high - grouped.low > 3 * (alone.high - alone.low));
}

/* ---------------------------------------------------------- calibration */

/* The middle of a bin, so that the histogram is exact. */
static float
middle(size_t bin)
{
    return (float)(((double)bin + 0.5) * 2 / JUDGE_BINS - 1);
}

static void
test_calibration_by_hand(void **state)
{
    enum { N = 20 };
    size_t start[N + 1];
    uint32_t rank[N];
    float cos[N], top[N];
    uint32_t *bins = calloc(N * JUDGE_BINS, sizeof *bins);
    struct judge_ranks ranks = {.n = N,
        .start = start,
        .rank = rank,
        .cosine = cos,
        .top = top,
        .bins = bins};
    struct judge_calibration c;

    (void)state;
    assert_non_null(bins);
    for (size_t q = 0; q <= N; q++)
        start[q] = q;
    for (size_t q = 0; q < N; q++) {
        /* ten with two equal candidates, of which eight positives came first;
           ten with one candidate, which is the positive six times */
        bins[q * JUDGE_BINS + 3000] = q < 10 ? 2 : 1;
        top[q] = cos[q] = middle(3000);
        rank[q] = q < 8 ? 0 : q < 10 ? 1 : q < 16 ? 0 : JUDGE_ABSENT;
    }
    for (double t = 0.01; t < 1; t *= 3) {
        judge_calibration_at(&c, &ranks, t);
        near(c.temperature, t);
        /* |8 - 10 / 2| and |6 - 10| of 20; cosines are float */
        assert_true(fabs(c.error - 0.35) <= 1e-5);
        assert_true(fabs(c.nll - 10 * log(2) / 16) <= 1e-5);
    }
    /* a second candidate below: p = 1 / (1 + e^(-gap / t)) */
    bins[3000] = 1;
    bins[2900] = 1;
    ranks.n = 1;
    judge_calibration_at(&c, &ranks, 0.05);
    double p = 1 / (1 + exp(-100.0 * 2 / JUDGE_BINS / 0.05));
    assert_true(fabs(c.nll + log(p)) <= 1e-5);
    assert_true(fabs(c.error - (1 - p)) <= 1e-5);
    ranks.n = 0;
    judge_calibration_at(&c, &ranks, 0.05);
    near(c.nll, 0);
    near(c.error, 0);
    free(bins);
}

/* Positives drawn by softmax(cosine / tau) calibrate to tau. */
static void
test_temperature_is_recovered(void **state)
{
    enum { N = 800, CANDIDATES = 60 };
    static const double taus[] = {0.02, 0.08, 0.3};
    static size_t start[N + 1];
    static uint32_t rank[N];
    static float cos[N], top[N];
    uint32_t *bins = malloc(N * JUDGE_BINS * sizeof *bins);
    struct judge_ranks ranks = {.n = N,
        .start = start,
        .rank = rank,
        .cosine = cos,
        .top = top,
        .bins = bins};
    struct rng rng;

    (void)state;
    assert_non_null(bins);
    rng_seed(&rng, 8);
    for (size_t t = 0; t < ARRAY_LEN(taus); t++) {
        struct judge_calibration c, cold, hot;
        memset(bins, 0, N * JUDGE_BINS * sizeof *bins);
        for (size_t q = 0; q < N; q++) {
            float s[CANDIDATES];
            double sum = 0;
            start[q + 1] = q + 1;
            top[q] = -1;
            for (size_t j = 0; j < CANDIDATES; j++) {
                size_t b = (size_t)rng_below(&rng, JUDGE_BINS * 3 / 5);
                s[j] = middle(b);
                bins[q * JUDGE_BINS + b]++;
                sum += exp((double)s[j] / taus[t]);
                top[q] = fmaxf(top[q], s[j]);
            }
            double draw = rng_double(&rng) * sum;
            size_t chosen = 0;
            while (chosen + 1 < CANDIDATES &&
                   (draw -= exp((double)s[chosen] / taus[t])) > 0)
                chosen++;
            cos[q] = s[chosen];
            rank[q] = 0;
            for (size_t j = 0; j < CANDIDATES; j++)
                rank[q] += s[j] > s[chosen];
        }
        judge_calibrate(&c, &ranks);
        assert_true(fabs(log(c.temperature / taus[t])) < 0.12);
        assert_true(c.error < 0.08);
        judge_calibration_at(&cold, &ranks, taus[t] / 4);
        judge_calibration_at(&hot, &ranks, taus[t] * 4);
        assert_true(cold.nll > c.nll && hot.nll > c.nll);
        assert_true(cold.error > c.error && hot.error > c.error);
    }
    free(bins);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_empty_index),
        cmocka_unit_test(test_collapse),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_measures_by_hand),
        cmocka_unit_test(test_interval_of_certain_gains),
        cmocka_unit_test(test_interval_covers),
        cmocka_unit_test(test_groups_widen),
        cmocka_unit_test(test_calibration_by_hand),
        cmocka_unit_test(test_temperature_is_recovered),
    };
    kern_init();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
