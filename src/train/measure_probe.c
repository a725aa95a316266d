/*
 * measure_probe.c - multinomial logistic regression by L-BFGS.
 *
 * Weights W [D + 1, C] in one block, the last row the biases. The rows are
 * standardised once; a pass over them is cut into fixed shards whose losses and
 * gradients are added in their order.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/gemm.h"
#include "kern/kern.h"
#include "train/measure.h"

#define ROWS_A_SHARD 2048
#define MEMORY 10      /* pairs of steps that L-BFGS remembers */
#define ITERATIONS 300 /* at most */
#define TRIES 20       /* halvings of a step */
#define FLAT 1e-6      /* a relative gain below it ends the search */
#define HELD_OUT 5     /* every fifth row */

struct probe {
    size_t D, C;
    size_t n_weights; /* (D + 1) C */
    size_t cap_shards;
    float *mean, *inv_deviation; /* [D] */
    float *train, *test;         /* standardised; train's held-out rows last */
    uint32_t *train_label;
    float *W, *gradient, *trial, *trial_gradient, *direction; /* [n_weights] */
    float *s, *y; /* [MEMORY, n_weights] steps and gradient changes */
    double rho[MEMORY];
    float *by_shard; /* [cap_shards, n_weights] */
    double *loss;    /* [cap_shards] */
    float *logits;   /* [threads, ROWS_A_SHARD, C] */
    /* a pass */
    const float *rows;
    const uint32_t *label;
    size_t n, *hits; /* [cap_shards] */
    const float *at; /* weights */
    bool with_gradient;
    struct pool *pool;
};

static void
pass_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct probe *p = arg;
    size_t C = p->C, first = shard_i * ROWS_A_SHARD;
    size_t n = MIN(p->n - first, (size_t)ROWS_A_SHARD);
    const float *X = p->rows + first * p->D, *bias = p->at + p->D * C;
    float *S = p->logits + thread_i * ROWS_A_SHARD * C;
    float *g = p->by_shard + shard_i * p->n_weights;
    double loss = 0;
    size_t hits = 0;

    gemm_f32(S, C, X, p->D, false, p->at, C, false, n, C, p->D, 1, 0);
    if (p->with_gradient)
        memset(g + p->D * C, 0, C * sizeof *g);
    for (size_t i = 0; i < n; i++) {
        float *s = S + i * C;
        uint32_t own = p->label[first + i];
        size_t best = 0;
        for (size_t c = 0; c < C; c++) {
            s[c] += bias[c];
            if (s[c] > s[best])
                best = c;
        }
        hits += best == own;
        float of_own = s[own], top = s[best];
        float sum = kern()->exp_shift(s, top, C);
        loss += log((double)sum) - (double)(of_own - top);
        for (size_t c = 0; c < C; c++)
            s[c] /= sum;
        s[own] -= 1;
        for (size_t c = 0; c < C && p->with_gradient; c++)
            g[p->D * C + c] += s[c];
    }
    p->loss[shard_i] = loss;
    p->hits[shard_i] = hits;
    if (p->with_gradient) /* dW = X^T (softmax - onehot) */
        gemm_f32(g, C, X, p->D, true, S, C, false, p->D, C, n, 1, 0);
}

/* The share of n rows that the weights at classify right. */
static double
accuracy_of(struct probe *p, const float *at, const float *rows,
    const uint32_t *label, size_t n)
{
    size_t n_shards = (n + ROWS_A_SHARD - 1) / ROWS_A_SHARD, hits = 0;
    p->rows = rows;
    p->label = label;
    p->n = n;
    p->at = at;
    p->with_gradient = false;
    pool_run(p->pool, n_shards, pass_worker, p);
    for (size_t i = 0; i < n_shards; i++)
        hits += p->hits[i];
    return n == 0 ? 0 : (double)hits / (double)n;
}

/* The objective over the first n rows of train, and its gradient. */
static double
objective(
    struct probe *p, const float *at, float *gradient, size_t n, double l2)
{
    size_t n_shards = (n + ROWS_A_SHARD - 1) / ROWS_A_SHARD;
    double loss = 0, norm = 0;

    p->rows = p->train;
    p->label = p->train_label;
    p->n = n;
    p->at = at;
    p->with_gradient = true;
    pool_run(p->pool, n_shards, pass_worker, p);
    for (size_t i = 0; i < n_shards; i++)
        loss += p->loss[i];
    for (size_t w = 0; w < p->n_weights; w++) {
        double g = 0;
        for (size_t i = 0; i < n_shards; i++)
            g += (double)p->by_shard[i * p->n_weights + w];
        g /= (double)n;
        if (w < p->D * p->C) {
            norm += (double)at[w] * (double)at[w];
            g += l2 * (double)at[w];
        }
        gradient[w] = (float)g;
    }
    return loss / (double)n + l2 / 2 * norm;
}

static double
dot(const float *a, const float *b, size_t n)
{
    return kern()->dot_f64(a, b, n);
}

/* direction = -H gradient (Nocedal 1980, two-loop recursion). */
static void
find_direction(struct probe *p, size_t n_kept, size_t newest)
{
    size_t N = p->n_weights;
    double alpha[MEMORY];

    memcpy(p->direction, p->gradient, N * sizeof *p->direction);
    for (size_t k = 0; k < n_kept; k++) {
        size_t i = (newest + MEMORY - k) % MEMORY;
        alpha[i] = p->rho[i] * dot(p->s + i * N, p->direction, N);
        kern()->axpy(p->direction, (float)-alpha[i], p->y + i * N, N);
    }
    if (n_kept > 0) {
        const float *y = p->y + newest * N;
        kern()->scale(
            p->direction, (float)(1 / (p->rho[newest] * dot(y, y, N))), N);
    }
    for (size_t k = n_kept; k-- > 0;) {
        size_t i = (newest + MEMORY - k) % MEMORY;
        double beta = p->rho[i] * dot(p->y + i * N, p->direction, N);
        kern()->axpy(p->direction, (float)(alpha[i] - beta), p->s + i * N, N);
    }
    kern()->scale(p->direction, -1, N);
}

/* Minimise over the first n rows, from W on. */
static void
minimise(struct probe *p, size_t n, double l2)
{
    size_t N = p->n_weights, n_kept = 0, newest = MEMORY - 1;
    double f = objective(p, p->W, p->gradient, n, l2);

    for (size_t it = 0; it < ITERATIONS; it++) {
        find_direction(p, n_kept, newest);
        double slope = dot(p->direction, p->gradient, N);
        double step = n_kept > 0 ? 1 : 1 / fmax(sqrt(-slope), 1), next = f;
        bool found = false;
        if (!(slope < 0))
            break;
        for (size_t t = 0; t < TRIES && !found; t++, step /= 2) {
            memcpy(p->trial, p->W, N * sizeof *p->trial);
            kern()->axpy(p->trial, (float)step, p->direction, N);
            next = objective(p, p->trial, p->trial_gradient, n, l2);
            found = next <= f + 1e-4 * step * slope; /* Armijo */
        }
        if (!found)
            break;
        size_t i = (newest + 1) % MEMORY;
        for (size_t w = 0; w < N; w++) {
            p->s[i * N + w] = p->trial[w] - p->W[w];
            p->y[i * N + w] = p->trial_gradient[w] - p->gradient[w];
        }
        double sy = dot(p->s + i * N, p->y + i * N, N);
        if (sy > 0) {
            p->rho[i] = 1 / sy;
            newest = i;
            n_kept = MIN(n_kept + 1, (size_t)MEMORY);
        }
        memcpy(p->W, p->trial, N * sizeof *p->W);
        memcpy(p->gradient, p->trial_gradient, N * sizeof *p->gradient);
        if (f - next <= FLAT * fabs(f))
            break;
        f = next;
    }
}

/* Rows [n, D] of set, to mean 0 and variance 1, those of a remainder of i by
   HELD_OUT after the others. */
static void
standardise(const struct probe *p, const struct measure_set *set, float *out,
    uint32_t *label, bool split)
{
    size_t at = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < set->n; i++) {
            bool held = split && i % HELD_OUT == HELD_OUT - 1;
            if (held != (pass == 1))
                continue;
            for (size_t d = 0; d < p->D; d++)
                out[at * p->D + d] = (set->rows[i * p->D + d] - p->mean[d]) *
                                     p->inv_deviation[d];
            if (label != NULL)
                label[at] = set->label[i];
            at++;
        }
    }
}

static void
find_moments(struct probe *p, const struct measure_set *set)
{
    for (size_t d = 0; d < p->D; d++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < set->n; i++)
            sum += (double)set->rows[i * p->D + d];
        double mean = sum / (double)set->n;
        for (size_t i = 0; i < set->n; i++) {
            double x = (double)set->rows[i * p->D + d] - mean;
            squares += x * x;
        }
        double deviation = sqrt(squares / (double)set->n);
        p->mean[d] = (float)mean;
        p->inv_deviation[d] = deviation > 1e-12 ? (float)(1 / deviation) : 0;
    }
}

static void
probe_release(struct probe *p)
{
    void *const blocks[] = {p->mean, p->inv_deviation, p->train, p->test,
        p->train_label, p->W, p->gradient, p->trial, p->trial_gradient,
        p->direction, p->s, p->y, p->by_shard, p->loss, p->logits, p->hits};
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
        mem_free(blocks[i]);
}

static enum err
probe_init(struct probe *p, size_t n_train, size_t n_test)
{
    size_t N = p->n_weights, n_max = MAX(n_train, n_test);

    p->cap_shards = (n_max + ROWS_A_SHARD - 1) / ROWS_A_SHARD;
    p->mean = mem_alloc(p->D, sizeof *p->mean);
    p->inv_deviation = mem_alloc(p->D, sizeof *p->inv_deviation);
    p->train = mem_alloc_aligned(n_train * p->D, sizeof *p->train);
    p->test = mem_alloc_aligned(n_test * p->D, sizeof *p->test);
    p->train_label = mem_alloc(n_train, sizeof *p->train_label);
    p->W = mem_calloc(N, sizeof *p->W);
    p->gradient = mem_alloc(N, sizeof *p->gradient);
    p->trial = mem_alloc(N, sizeof *p->trial);
    p->trial_gradient = mem_alloc(N, sizeof *p->trial_gradient);
    p->direction = mem_alloc(N, sizeof *p->direction);
    p->s = mem_alloc(MEMORY * N, sizeof *p->s);
    p->y = mem_alloc(MEMORY * N, sizeof *p->y);
    p->by_shard = mem_alloc_aligned(p->cap_shards * N, sizeof *p->by_shard);
    p->loss = mem_alloc(p->cap_shards, sizeof *p->loss);
    p->hits = mem_alloc(p->cap_shards, sizeof *p->hits);
    p->logits = mem_alloc_aligned(
        pool_threads(p->pool) * ROWS_A_SHARD * p->C, sizeof *p->logits);
    const void *const blocks[] = {p->mean, p->inv_deviation, p->train, p->test,
        p->train_label, p->W, p->gradient, p->trial, p->trial_gradient,
        p->direction, p->s, p->y, p->by_shard, p->loss, p->logits, p->hits};
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        if (blocks[i] == NULL)
            return ERR_NOMEM;
    }
    return OK;
}

enum err
measure_probe(struct measure_probe *out, const struct measure_set *train,
    const struct measure_set *test, size_t D, size_t n_classes,
    struct pool *pool)
{
    struct probe p = {
        .D = D, .C = n_classes, .n_weights = (D + 1) * n_classes, .pool = pool};
    struct measure_probe best = {.held_out = -1};
    enum err err = probe_init(&p, train->n, test->n);

    ASSERT(train->n >= HELD_OUT && test->n > 0 && n_classes > 0);
    if (err == OK) {
        size_t n_held = train->n / HELD_OUT, n_fit = train->n - n_held;
        find_moments(&p, train);
        standardise(&p, train, p.train, p.train_label, true);
        standardise(&p, test, p.test, NULL, false);
        /* from the strongest on, each beginning where the last one ended */
        for (double l2 = 0.1; l2 > 5e-6; l2 /= 10) {
            minimise(&p, n_fit, l2);
            double accuracy = accuracy_of(
                &p, p.W, p.train + n_fit * D, p.train_label + n_fit, n_held);
            if (accuracy > best.held_out) {
                best.held_out = accuracy;
                best.l2 = l2;
            }
        }
        memset(p.W, 0, p.n_weights * sizeof *p.W);
        minimise(&p, train->n, best.l2);
        best.accuracy = accuracy_of(&p, p.W, p.test, test->label, test->n);
        *out = best;
    }
    probe_release(&p);
    return err;
}
