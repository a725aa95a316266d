#include "train/judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "kern/gemm.h"
#include "kern/kern.h"

#define QUESTIONS_A_SHARD 32
#define ROWS_A_BLOCK 1024
#define ROWS_AT_ONCE 8192
#define TIE 1e-6f
#define POSITIVES_MAX 1024 /* of one question that are ranked */

const char *const judge_measure_names[JUDGE_MEASURES] = {
    "ndcg_10", "mrr_10", "recall_1", "recall_10", "recall_100"};

enum judge_measure
judge_measure_find(const char *name)
{
    for (int i = 0; i < JUDGE_MEASURES; i++) {
        if (strcmp(name, judge_measure_names[i]) == 0)
            return (enum judge_measure)i;
    }
    return JUDGE_MEASURES;
}

/* ---------------------------------------------------------------- ranks */

struct ranking {
    const struct ann *index;
    const float *vectors;
    const struct judge_question *questions;
    size_t n, D;
    struct judge_ranks *out;
    float *scores;  /* [threads, QUESTIONS_A_SHARD, ROWS_A_BLOCK] */
    uint32_t *tied; /* [positives] candidates that tie with one, itself too */
    struct pool *pool;
    /* the block being compared */
    const uint32_t *ords;
    const float *rows;
    size_t n_rows;
};

static void
compare_one(
    const struct ranking *r, size_t q, float *scores, size_t first, size_t n)
{
    struct judge_ranks *out = r->out;
    const struct judge_question *question = &r->questions[q];
    size_t start = out->start[q];
    size_t n_relevant = out->start[q + 1] - start;
    uint32_t *bins = out->bins == NULL ? NULL : out->bins + q * JUDGE_BINS;

    for (size_t j = 0; j < n; j++) {
        float s = scores[j];
        if (r->ords[first + j] == question->skip) {
            scores[j] = -2; /* outranks nothing below either */
            continue;
        }
        if (s > out->top[q])
            out->top[q] = s;
        if (bins != NULL) {
            float at = (s + 1.0f) * (JUDGE_BINS / 2);
            bins[at < 0 ? 0 : at >= JUDGE_BINS ? JUDGE_BINS - 1 : (size_t)at]++;
        }
    }
    for (size_t k = start; k < start + n_relevant; k++) {
        if (out->rank[k] == JUDGE_ABSENT)
            continue;
        float bar = out->cosine[k] + TIE, floor = out->cosine[k] - TIE;
        uint32_t above = 0, reach = 0;
        for (size_t j = 0; j < n; j++) {
            above += scores[j] > bar;
            reach += scores[j] >= floor;
        }
        out->rank[k] += above;
        r->tied[k] += reach - above;
    }
}

static void
block_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct ranking *r = arg;
    size_t q0 = shard_i * QUESTIONS_A_SHARD;
    size_t nq = MIN(r->n - q0, (size_t)QUESTIONS_A_SHARD);
    float *scores = r->scores + thread_i * QUESTIONS_A_SHARD * ROWS_A_BLOCK;

    for (size_t first = 0; first < r->n_rows; first += ROWS_A_BLOCK) {
        size_t n = MIN(r->n_rows - first, (size_t)ROWS_A_BLOCK);
        gemm_f32(scores, ROWS_A_BLOCK, r->vectors + q0 * r->D, r->D, false,
            r->rows + first * r->D, r->D, true, nq, n, r->D, 1, 0);
        for (size_t i = 0; i < nq; i++)
            compare_one(r, q0 + i, scores + i * ROWS_A_BLOCK, first, n);
    }
}

/* Ordinals alone, because the index is locked against writers while it is
   visited; the rows are copied one by one afterwards. */
struct ordinals {
    uint32_t *ords;
    size_t n, cap;
    bool nomem;
};

static bool
take_ordinals(void *arg, const uint32_t *ords, const float *vectors, size_t n)
{
    struct ordinals *o = arg;
    (void)vectors;
    if (o->n + n > o->cap) {
        size_t cap = o->cap * 2 + n;
        void *grown = mem_realloc(o->ords, cap, sizeof *o->ords);
        if (grown == NULL) {
            o->nomem = true;
            return false;
        }
        o->ords = grown;
        o->cap = cap;
    }
    memcpy(o->ords + o->n, ords, n * sizeof *ords);
    o->n += n;
    return true;
}

/* Compare all questions with all rows, ROWS_AT_ONCE at a time; a row that is
   removed meanwhile is passed over. */
static enum err
compare_all(struct ranking *r)
{
    struct ordinals o = {.cap = 0};
    float *rows = mem_alloc_aligned(ROWS_AT_ONCE * r->D, sizeof *rows);
    enum err err = rows == NULL ? ERR_NOMEM : OK;

    if (err == OK)
        ann_visit(r->index, take_ordinals, &o);
    if (o.nomem)
        err = ERR_NOMEM;
    for (size_t at = 0; at < o.n && err == OK;) {
        size_t n = 0;
        uint32_t *ords = o.ords + at;
        for (; at < o.n && n < ROWS_AT_ONCE; at++) {
            if (ann_get(r->index, o.ords[at], rows + n * r->D) == OK)
                ords[n++] = o.ords[at];
        }
        r->ords = ords;
        r->rows = rows;
        r->n_rows = n;
        pool_run(r->pool, (r->n + QUESTIONS_A_SHARD - 1) / QUESTIONS_A_SHARD,
            block_worker, r);
    }
    mem_free(o.ords);
    mem_free(rows);
    return err;
}

void
judge_ranks_release(struct judge_ranks *ranks)
{
    mem_free(ranks->start);
    mem_free(ranks->rank);
    mem_free(ranks->cosine);
    mem_free(ranks->top);
    mem_free(ranks->bins);
    *ranks = (struct judge_ranks){0};
}

/* The positives' own cosines; what is not indexed is absent. */
static enum err
place_positives(struct ranking *r)
{
    float *row = mem_alloc_aligned(r->D, sizeof *row);
    if (row == NULL)
        return ERR_NOMEM;
    for (size_t q = 0; q < r->n; q++) {
        const struct judge_question *question = &r->questions[q];
        for (size_t k = r->out->start[q]; k < r->out->start[q + 1]; k++) {
            uint32_t ord = question->relevant[k - r->out->start[q]];
            bool there =
                ord != question->skip && ann_get(r->index, ord, row) == OK;
            r->out->rank[k] = there ? 0 : JUDGE_ABSENT;
            r->out->cosine[k] =
                there ? kern()->dot_f32(r->vectors + q * r->D, row, r->D) : -1;
        }
    }
    mem_free(row);
    return OK;
}

enum err
judge_rank(struct judge_ranks *out, const struct ann *index,
    const float *vectors, const struct judge_question *questions, size_t n,
    bool with_bins, struct pool *pool)
{
    struct judge_ranks ranks = {.n = n};
    struct ranking r = {.index = index,
        .vectors = vectors,
        .questions = questions,
        .n = n,
        .D = ann_dims(index),
        .out = &ranks,
        .pool = pool};
    size_t total = 0;
    enum err err = ERR_NOMEM;

    for (size_t q = 0; q < n; q++)
        total += MIN(questions[q].n_relevant, (size_t)POSITIVES_MAX);
    ranks.start = mem_alloc(n + 1, sizeof *ranks.start);
    ranks.rank = mem_calloc(total, sizeof *ranks.rank);
    ranks.cosine = mem_calloc(total, sizeof *ranks.cosine);
    ranks.top = mem_alloc(n, sizeof *ranks.top);
    r.scores =
        mem_alloc_aligned(pool_threads(pool) * QUESTIONS_A_SHARD * ROWS_A_BLOCK,
            sizeof *r.scores);
    r.tied = mem_calloc(total, sizeof *r.tied);
    if (with_bins)
        ranks.bins = mem_calloc(n * JUDGE_BINS, sizeof *ranks.bins);
    if (ranks.start == NULL || ranks.rank == NULL || ranks.cosine == NULL ||
        ranks.top == NULL || r.scores == NULL || r.tied == NULL ||
        (with_bins && ranks.bins == NULL))
        goto out;
    ranks.start[0] = 0;
    for (size_t q = 0; q < n; q++) {
        ranks.start[q + 1] = ranks.start[q] + MIN(questions[q].n_relevant,
                                                  (size_t)POSITIVES_MAX);
        ranks.top[q] = -1;
    }
    err = place_positives(&r);
    if (err == OK && n > 0)
        err = compare_all(&r);
    for (size_t k = 0; k < total && err == OK; k++) {
        if (ranks.rank[k] != JUDGE_ABSENT && r.tied[k] > 1)
            ranks.rank[k] += (r.tied[k] - 1) / 2;
    }
out:
    mem_free(r.scores);
    mem_free(r.tied);
    if (err != OK)
        judge_ranks_release(&ranks);
    else
        *out = ranks;
    return err;
}

/* ------------------------------------------------------------- measures */

double
judge_value(const struct judge_ranks *ranks, size_t question,
    enum judge_measure measure)
{
    static const uint32_t depth[JUDGE_MEASURES] = {10, 10, 1, 10, 100};
    size_t start = ranks->start[question];
    size_t n = ranks->start[question + 1] - start;
    double found = 0, gain = 0, ideal = 0, best = 0;

    for (size_t k = start; k < start + n; k++) {
        uint32_t rank = ranks->rank[k];
        if (rank >= depth[measure])
            continue;
        found++;
        gain += 1 / log2((double)rank + 2);
        best = fmax(best, 1 / ((double)rank + 1));
    }
    switch (measure) {
    case JUDGE_NDCG_10:
        for (size_t i = 0; i < MIN(n, (size_t)10); i++)
            ideal += 1 / log2((double)i + 2);
        return fmin(gain / ideal, 1);
    case JUDGE_MRR_10:
        return best;
    default:
        return found / (double)MIN(n, (size_t)depth[measure]);
    }
}

double
judge_mean(const struct judge_ranks *ranks, enum judge_measure measure)
{
    double sum = 0;
    for (size_t q = 0; q < ranks->n; q++)
        sum += judge_value(ranks, q, measure);
    return ranks->n == 0 ? 0 : sum / (double)ranks->n;
}

struct group_sum {
    uint64_t group;
    double gain; /* sum over its questions */
    double n;
};

static int
compare_groups(const void *a, const void *b)
{
    const struct group_sum *x = a, *y = b;
    return (x->group > y->group) - (x->group < y->group);
}

static int
compare_doubles(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

enum err
judge_compare(struct judge_difference *out, const struct judge_ranks *before,
    const struct judge_ranks *after, const struct judge_question *questions,
    enum judge_measure measure, uint64_t seed)
{
    size_t n = before->n;
    struct group_sum *groups = mem_alloc(n, sizeof *groups);
    double *draws = mem_alloc(JUDGE_RESAMPLES, sizeof *draws);
    size_t n_groups = 0;
    struct rng rng;

    ASSERT(after->n == n);
    if (groups == NULL || draws == NULL) {
        mem_free(groups);
        mem_free(draws);
        return ERR_NOMEM;
    }
    for (size_t q = 0; q < n; q++)
        groups[q] = (struct group_sum){.group = questions[q].group,
            .gain = judge_value(after, q, measure) -
                    judge_value(before, q, measure),
            .n = 1};
    qsort(groups, n, sizeof *groups, compare_groups);
    for (size_t q = 0; q < n; q++) {
        if (n_groups > 0 && groups[n_groups - 1].group == groups[q].group) {
            groups[n_groups - 1].gain += groups[q].gain;
            groups[n_groups - 1].n++;
        } else {
            groups[n_groups++] = groups[q];
        }
    }
    rng_seed(&rng, seed);
    for (size_t i = 0; i < JUDGE_RESAMPLES; i++) {
        double gain = 0, count = 0;
        for (size_t j = 0; j < n_groups; j++) {
            const struct group_sum *g = &groups[rng_below(&rng, n_groups)];
            gain += g->gain;
            count += g->n;
        }
        draws[i] = count > 0 ? gain / count : 0;
    }
    qsort(draws, JUDGE_RESAMPLES, sizeof *draws, compare_doubles);
    *out = (struct judge_difference){.before = judge_mean(before, measure),
        .after = judge_mean(after, measure),
        .low = draws[JUDGE_RESAMPLES * 25 / 1000],
        .high = draws[JUDGE_RESAMPLES * 975 / 1000],
        .n_questions = n,
        .n_groups = n_groups};
    out->gain = out->after - out->before;
    mem_free(groups);
    mem_free(draws);
    return OK;
}

/* ---------------------------------------------------------- calibration */

#define CALIBRATION_BINS 10
#define TEMPERATURE_MIN 0.005
#define TEMPERATURE_MAX 1.0

/* log sum over the histogram of exp(cosine / tau), from the top bin down. */
static double
log_sum(const uint32_t *bins, double tau)
{
    double sum = 0, top = -2;
    for (size_t b = JUDGE_BINS; b-- > 0;) {
        if (bins[b] == 0)
            continue;
        double cosine = ((double)b + 0.5) * 2 / JUDGE_BINS - 1;
        if (top < -1)
            top = cosine;
        double term = exp((cosine - top) / tau);
        if (term < 1e-15)
            break;
        sum += bins[b] * term;
    }
    return top / tau + log(sum);
}

void
judge_calibration_at(struct judge_calibration *out,
    const struct judge_ranks *ranks, double temperature)
{
    double nll = 0, n_nll = 0;
    double hits[CALIBRATION_BINS] = {0}, claimed[CALIBRATION_BINS] = {0},
           count[CALIBRATION_BINS] = {0};

    ASSERT(ranks->bins != NULL || ranks->n == 0);
    for (size_t q = 0; q < ranks->n; q++) {
        double log_z = log_sum(ranks->bins + q * JUDGE_BINS, temperature);
        bool hit = false;
        for (size_t k = ranks->start[q]; k < ranks->start[q + 1]; k++) {
            if (ranks->rank[k] == JUDGE_ABSENT)
                continue;
            nll += log_z - (double)ranks->cosine[k] / temperature;
            n_nll++;
            hit = hit || ranks->rank[k] == 0;
        }
        double p = fmin(exp((double)ranks->top[q] / temperature - log_z), 1);
        size_t b =
            MIN((size_t)(p * CALIBRATION_BINS), (size_t)CALIBRATION_BINS - 1);
        hits[b] += hit;
        claimed[b] += p;
        count[b]++;
    }
    out->temperature = temperature;
    out->nll = n_nll > 0 ? nll / n_nll : 0;
    out->error = 0;
    for (size_t b = 0; b < CALIBRATION_BINS; b++)
        out->error += fabs(hits[b] - claimed[b]) / fmax((double)ranks->n, 1);
}

static double
nll_at(const struct judge_ranks *ranks, double log_tau)
{
    struct judge_calibration c;
    judge_calibration_at(&c, ranks, exp(log_tau));
    return c.nll;
}

void
judge_calibrate(struct judge_calibration *out, const struct judge_ranks *ranks)
{
    const double golden = 0.6180339887498949;
    double low = log(TEMPERATURE_MIN), high = log(TEMPERATURE_MAX);
    double a = high - golden * (high - low), b = low + golden * (high - low);
    double at_a = nll_at(ranks, a), at_b = nll_at(ranks, b);

    for (int i = 0; i < 24; i++) {
        if (at_a <= at_b) {
            high = b;
            b = a;
            at_b = at_a;
            a = high - golden * (high - low);
            at_a = nll_at(ranks, a);
        } else {
            low = a;
            a = b;
            at_a = at_b;
            b = low + golden * (high - low);
            at_b = nll_at(ranks, b);
        }
    }
    judge_calibration_at(out, ranks, exp((low + high) / 2));
}
