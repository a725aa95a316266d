/*
 * measure.h - what eval computes, and how sure it is.
 *
 * All sums are in double over at most some 1e6 terms: rounding is far below
 * the last digit printed.
 */
#ifndef KINDRED_MEASURE_H
#define KINDRED_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#define MEASURE_RESAMPLES 2000

struct estimate {
    double value;
    double low; /* 95% percentile bootstrap interval */
    double high;
};

/*
 * Of one ranked list. gain[i] is the judged relevance of rank i (0 for not
 * relevant), ideal[0..n_ideal) all judged relevances, in any order.
 *
 * measure_ndcg: sum gain_i / log2(i + 2) over the first k, divided by the same
 * of the best order (Jarvelin & Kekalainen 2002, with the linear gain and the
 * discount of trec_eval).
 */
double measure_ndcg(const double *gain, size_t n, const double *ideal,
    size_t n_ideal, size_t k);
/* The share of the n_relevant that are among the first k. */
double measure_recall(
    const double *gain, size_t n, size_t n_relevant, size_t k);
/* 1 / rank of the first relevant among the first k, or 0. */
double measure_rr(const double *gain, size_t n, size_t k);

/* Ranks from 1, ties share their mean; then Pearson. n >= 2. */
double measure_spearman(const double *x, const double *y, size_t n);
double measure_pearson(const double *x, const double *y, size_t n);

/* The mean of v with its interval over resampled queries. */
struct estimate measure_mean(const double *v, size_t n, uint64_t seed);

/* A correlation with its interval over resampled pairs. */
struct estimate measure_correlation(
    double (*fn)(const double *, const double *, size_t), const double *x,
    const double *y, size_t n, uint64_t seed);

#endif
