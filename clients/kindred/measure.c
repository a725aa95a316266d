#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli.h"

static int
ascending(const void *a, const void *b)
{
    double x;
    double y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

double
measure_ndcg(
    const double *gain, size_t n, const double *ideal, size_t n_ideal, size_t k)
{
    double dcg = 0.0;
    for (size_t i = 0; i < n && i < k; i++)
        dcg += gain[i] / log2((double)i + 2.0);
    if (n_ideal == 0)
        return 0.0;
    double *best = must_alloc(n_ideal, sizeof(*best));
    memcpy(best, ideal, n_ideal * sizeof(*best));
    qsort(best, n_ideal, sizeof(*best), ascending);
    double top = 0.0;
    for (size_t i = 0; i < n_ideal && i < k; i++)
        top += best[n_ideal - 1 - i] / log2((double)i + 2.0);
    mem_free(best);
    return top > 0.0 ? dcg / top : 0.0;
}

double
measure_recall(const double *gain, size_t n, size_t n_relevant, size_t k)
{
    size_t found = 0;
    for (size_t i = 0; i < n && i < k; i++)
        found += gain[i] > 0.0 ? 1 : 0;
    return n_relevant > 0 ? (double)found / (double)n_relevant : 0.0;
}

double
measure_rr(const double *gain, size_t n, size_t k)
{
    for (size_t i = 0; i < n && i < k; i++)
        if (gain[i] > 0.0)
            return 1.0 / (double)(i + 1);
    return 0.0;
}

double
measure_pearson(const double *x, const double *y, size_t n)
{
    double mx = 0.0;
    double my = 0.0;
    for (size_t i = 0; i < n; i++) {
        mx += x[i];
        my += y[i];
    }
    mx /= (double)n;
    my /= (double)n;
    double xy = 0.0;
    double xx = 0.0;
    double yy = 0.0;
    for (size_t i = 0; i < n; i++) {
        double dx = x[i] - mx;
        double dy = y[i] - my;
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
    }
    return xx > 0.0 && yy > 0.0 ? xy / sqrt(xx * yy) : 0.0;
}

struct ranked {
    double v;
    size_t i;
};

static int
by_value(const void *a, const void *b)
{
    const struct ranked *x = a;
    const struct ranked *y = b;
    return (x->v > y->v) - (x->v < y->v);
}

static void
ranks_of(double *rank, const double *v, size_t n)
{
    struct ranked *order = must_alloc(n, sizeof(*order));
    for (size_t i = 0; i < n; i++)
        order[i] = (struct ranked){.v = v[i], .i = i};
    qsort(order, n, sizeof(*order), by_value);
    for (size_t from = 0; from < n;) {
        size_t to = from + 1;
        while (to < n && !(order[to].v > order[from].v))
            to++;
        double mean = ((double)from + (double)to + 1.0) / 2.0;
        for (size_t i = from; i < to; i++)
            rank[order[i].i] = mean;
        from = to;
    }
    mem_free(order);
}

double
measure_spearman(const double *x, const double *y, size_t n)
{
    double *rx = must_alloc(n, sizeof(*rx));
    double *ry = must_alloc(n, sizeof(*ry));
    ranks_of(rx, x, n);
    ranks_of(ry, y, n);
    double rho = measure_pearson(rx, ry, n);
    mem_free(rx);
    mem_free(ry);
    return rho;
}

static void
interval(struct estimate *estimate, double *draws)
{
    qsort(draws, MEASURE_RESAMPLES, sizeof(*draws), ascending);
    estimate->low = draws[MEASURE_RESAMPLES / 40];
    estimate->high = draws[MEASURE_RESAMPLES - 1 - MEASURE_RESAMPLES / 40];
}

struct estimate
measure_mean(const double *v, size_t n, uint64_t seed)
{
    struct estimate estimate = {0};
    if (n == 0)
        return estimate;
    for (size_t i = 0; i < n; i++)
        estimate.value += v[i];
    estimate.value /= (double)n;
    double *draws = must_alloc(MEASURE_RESAMPLES, sizeof(*draws));
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t r = 0; r < MEASURE_RESAMPLES; r++) {
        double sum = 0.0;
        for (size_t i = 0; i < n; i++)
            sum += v[rng_below(&rng, n)];
        draws[r] = sum / (double)n;
    }
    interval(&estimate, draws);
    mem_free(draws);
    return estimate;
}

struct estimate
measure_correlation(double (*fn)(const double *, const double *, size_t),
    const double *x, const double *y, size_t n, uint64_t seed)
{
    struct estimate estimate = {0};
    if (n < 2)
        return estimate;
    estimate.value = fn(x, y, n);
    double *draws = must_alloc(MEASURE_RESAMPLES, sizeof(*draws));
    double *bx = must_alloc(n, sizeof(*bx));
    double *by = must_alloc(n, sizeof(*by));
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t r = 0; r < MEASURE_RESAMPLES; r++) {
        for (size_t i = 0; i < n; i++) {
            size_t j = (size_t)rng_below(&rng, n);
            bx[i] = x[j];
            by[i] = y[j];
        }
        draws[r] = fn(bx, by, n);
    }
    interval(&estimate, draws);
    mem_free(draws);
    mem_free(bx);
    mem_free(by);
    return estimate;
}
