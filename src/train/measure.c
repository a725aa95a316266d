#include "train/measure.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/gemm.h"
#include "kern/kern.h"

#define QUERIES_A_SHARD 256
#define ROWS_A_BLOCK 1024
#define SLACK 1024 /* candidates beyond k before they are thinned out */

struct candidate {
    float score;
    uint32_t row;
};

struct knn {
    const struct measure_set *train, *test;
    const struct measure_knn_options *options;
    size_t D, k;
    struct scratch {
        float *scores;                /* [QUERIES_A_SHARD, ROWS_A_BLOCK] */
        struct candidate *candidates; /* [QUERIES_A_SHARD, k + SLACK] */
        double *votes;                /* [n_classes] */
    } * scratch;                      /* [threads] */
    uint32_t *predicted;              /* [test->n] */
};

static bool
before(const struct candidate *a, const struct candidate *b)
{
    return a->score > b->score || (a->score == b->score && a->row < b->row);
}

/* Put the k first of n candidates in front, k < n (Hoare 1961, FIND). */
static void
select_first(struct candidate *c, size_t n, size_t k)
{
    ptrdiff_t low = 0, high = (ptrdiff_t)n - 1, at = (ptrdiff_t)k;
    while (low < high) {
        struct candidate pivot = c[at];
        ptrdiff_t i = low, j = high;
        do {
            while (before(&c[i], &pivot))
                i++;
            while (before(&pivot, &c[j]))
                j--;
            if (i <= j) {
                struct candidate t = c[i];
                c[i++] = c[j];
                c[j--] = t;
            }
        } while (i <= j);
        if (j < at)
            low = i;
        if (at < i)
            high = j;
    }
}

static uint32_t
vote(const struct knn *knn, const struct candidate *c, size_t n, double *votes)
{
    size_t n_classes = knn->options->n_classes, best = 0;

    memset(votes, 0, n_classes * sizeof *votes);
    for (size_t i = 0; i < n; i++)
        votes[knn->train->label[c[i].row]] +=
            exp((double)c[i].score / (double)knn->options->temperature);
    for (size_t l = 1; l < n_classes; l++) {
        if (votes[l] > votes[best])
            best = l;
    }
    return (uint32_t)best;
}

static void
knn_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct knn *knn = arg;
    const struct measure_set *train = knn->train;
    struct scratch *s = &knn->scratch[thread_i];
    size_t first = shard_i * QUERIES_A_SHARD, cap = knn->k + SLACK;
    size_t n = MIN(knn->test->n - first, (size_t)QUERIES_A_SHARD);
    size_t n_found[QUERIES_A_SHARD] = {0};
    float least[QUERIES_A_SHARD];

    for (size_t q = 0; q < n; q++)
        least[q] = -INFINITY;
    for (size_t from = 0; from < train->n; from += ROWS_A_BLOCK) {
        size_t m = MIN(train->n - from, (size_t)ROWS_A_BLOCK);
        gemm_f32(s->scores, m, knn->test->rows + first * knn->D, knn->D, false,
            train->rows + from * knn->D, knn->D, true, n, m, knn->D, 1, 0);
        for (size_t q = 0; q < n; q++) {
            const float *score = s->scores + q * m;
            struct candidate *c = s->candidates + q * cap;
            for (size_t i = 0; i < m; i++) {
                /* an equal one comes later, so it is no better */
                if (!(score[i] > least[q]))
                    continue;
                c[n_found[q]++] = (struct candidate){
                    .score = score[i], .row = (uint32_t)(from + i)};
                if (n_found[q] < cap)
                    continue;
                select_first(c, cap, knn->k);
                n_found[q] = knn->k;
                least[q] = c[0].score;
                for (size_t j = 1; j < knn->k; j++)
                    least[q] = MIN(least[q], c[j].score);
            }
        }
    }
    for (size_t q = 0; q < n; q++) {
        struct candidate *c = s->candidates + q * cap;
        if (n_found[q] > knn->k)
            select_first(c, n_found[q], knn->k);
        knn->predicted[first + q] =
            vote(knn, c, MIN(n_found[q], knn->k), s->votes);
    }
}

static void
knn_release(struct knn *knn, size_t n_threads)
{
    for (size_t t = 0; knn->scratch != NULL && t < n_threads; t++) {
        mem_free(knn->scratch[t].scores);
        mem_free(knn->scratch[t].candidates);
        mem_free(knn->scratch[t].votes);
    }
    mem_free(knn->scratch);
}

enum err
measure_knn(double *accuracy, uint32_t *predicted,
    const struct measure_set *train, const struct measure_set *test, size_t D,
    const struct measure_knn_options *options, struct pool *pool)
{
    size_t n_threads = pool_threads(pool), hits = 0;
    struct knn knn = {.train = train,
        .test = test,
        .options = options,
        .D = D,
        .k = MIN(options->k, train->n),
        .predicted = predicted};
    uint32_t *own = NULL;
    enum err err = OK;

    ASSERT(options->k > 0 && options->temperature > 0 && test->n > 0);
    if (predicted == NULL)
        knn.predicted = own = mem_alloc(test->n, sizeof *own);
    knn.scratch = mem_calloc(n_threads, sizeof *knn.scratch);
    if (knn.predicted == NULL || knn.scratch == NULL)
        err = ERR_NOMEM;
    for (size_t t = 0; t < n_threads && err == OK; t++) {
        struct scratch *s = &knn.scratch[t];
        s->scores = mem_alloc_aligned(
            (size_t)QUERIES_A_SHARD * ROWS_A_BLOCK, sizeof *s->scores);
        s->candidates =
            mem_alloc(QUERIES_A_SHARD * (knn.k + SLACK), sizeof *s->candidates);
        s->votes = mem_alloc(options->n_classes, sizeof *s->votes);
        if (s->scores == NULL || s->candidates == NULL || s->votes == NULL)
            err = ERR_NOMEM;
    }
    if (err == OK) {
        pool_run(pool, (test->n + QUERIES_A_SHARD - 1) / QUERIES_A_SHARD,
            knn_worker, &knn);
        for (size_t i = 0; i < test->n; i++)
            hits += knn.predicted[i] == test->label[i];
        *accuracy = (double)hits / (double)test->n;
    }
    knn_release(&knn, n_threads);
    mem_free(own);
    return err;
}

double
measure_alignment(const float *x, const float *y, size_t n, size_t D)
{
    double sum = 0;
    for (size_t i = 0; i < n * D; i++) {
        double d = (double)x[i] - (double)y[i];
        sum += d * d;
    }
    return sum / (double)n;
}

struct uniformity {
    const float *x;
    size_t n, D;
    float *scores; /* [threads, QUERIES_A_SHARD, ROWS_A_BLOCK] */
    double *sum;   /* [shards] */
};

static void
uniformity_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct uniformity *u = arg;
    size_t first = shard_i * QUERIES_A_SHARD;
    size_t n = MIN(u->n - first, (size_t)QUERIES_A_SHARD);
    float *S = u->scores + thread_i * QUERIES_A_SHARD * ROWS_A_BLOCK;
    double sum = 0;

    /* -2 |x - y|^2 = 4 x.y - 4 for unit rows */
    for (size_t from = 0; from < u->n; from += ROWS_A_BLOCK) {
        size_t m = MIN(u->n - from, (size_t)ROWS_A_BLOCK);
        gemm_f32(S, m, u->x + first * u->D, u->D, false, u->x + from * u->D,
            u->D, true, n, m, u->D, 4, 0);
        for (size_t i = 0; i < n; i++) {
            if (first + i >= from && first + i < from + m)
                S[i * m + first + i - from] = -INFINITY;
            sum += (double)kern()->exp_shift(S + i * m, 4, m);
        }
    }
    u->sum[shard_i] = sum;
}

enum err
measure_uniformity(
    double *out, const float *x, size_t n, size_t D, struct pool *pool)
{
    size_t n_shards = (n + QUERIES_A_SHARD - 1) / QUERIES_A_SHARD;
    struct uniformity u = {.x = x, .n = n, .D = D};
    enum err err = ERR_NOMEM;
    double sum = 0;

    ASSERT(n > 1);
    u.scores = mem_alloc_aligned(
        pool_threads(pool) * QUERIES_A_SHARD * ROWS_A_BLOCK, sizeof *u.scores);
    u.sum = mem_alloc(n_shards, sizeof *u.sum);
    if (u.scores != NULL && u.sum != NULL) {
        pool_run(pool, n_shards, uniformity_worker, &u);
        for (size_t i = 0; i < n_shards; i++)
            sum += u.sum[i];
        *out = log(sum / ((double)n * (double)(n - 1)));
        err = OK;
    }
    mem_free(u.scores);
    mem_free(u.sum);
    return err;
}
