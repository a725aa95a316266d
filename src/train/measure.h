/*
 * measure.h - how good embeddings are, by what frozen ones can do: nearest
 * neighbours, a linear probe, alignment and uniformity.
 *
 * Rows are floats [n, D], labels are classes below n_classes. Everything is
 * deterministic, for any pool.
 */
#ifndef TRAIN_MEASURE_H
#define TRAIN_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/pool.h"

/* Rows with their classes; borrowed. */
struct measure_set {
    const float *rows;     /* [n, D] */
    const uint32_t *label; /* [n] */
    size_t n;
};

struct measure_knn_options {
    size_t k;          /* neighbours, > 0; usual: 200 */
    float temperature; /* t, > 0; usual: 0.1 */
    size_t n_classes;
};

/*
 * measure_knn - the share of test rows whose class their neighbours vote for.
 *
 *   train, test  unit rows
 *   predicted    [test->n] overwritten; may be NULL
 *
 * The k rows of train with the greatest cosine vote with exp(cos / t); of
 * equal cosines the lower row counts first, of equal votes the lower class.
 * Cost: n_train n_test D multiplications. Errors: ERR_NOMEM.
 * Source: Wu et al. 2018 (arXiv:1805.01978), sec. 3.4.
 */
enum err measure_knn(double *accuracy, uint32_t *predicted,
    const struct measure_set *train, const struct measure_set *test, size_t D,
    const struct measure_knn_options *options, struct pool *pool) NODISCARD;

struct measure_probe {
    double accuracy; /* on test */
    double held_out; /* on a fifth of train, with the same l2 */
    double l2;       /* chosen there */
};

/*
 * measure_probe - multinomial logistic regression on frozen rows.
 *
 * Features are brought to mean 0 and variance 1 of train. Minimises the mean
 * cross-entropy plus l2 / 2 |W|^2 (no penalty on the biases) by L-BFGS (Liu &
 * Nocedal 1989) over all rows; l2 is the power of ten in [1e-5, 1e-1] that
 * does best on every fifth row when the others train. Memory: a copy of train
 * and test. Errors: ERR_NOMEM.
 */
enum err measure_probe(struct measure_probe *out,
    const struct measure_set *train, const struct measure_set *test, size_t D,
    size_t n_classes, struct pool *pool) NODISCARD;

/*
 * measure_alignment - mean |x_i - y_i|^2 over n pairs of unit rows.
 * measure_uniformity - log of the mean of exp(-2 |x_i - x_j|^2) over all pairs
 * of different rows of n > 1 unit rows; the lower, the more evenly spread.
 * Cost: n D, n^2 D. ERR_NOMEM.
 * Source: Wang & Isola 2020 (arXiv:2005.10242), eq. 1 and 2, alpha 2, t 2.
 */
double measure_alignment(const float *x, const float *y, size_t n, size_t D);
enum err measure_uniformity(double *out, const float *x, size_t n, size_t D,
    struct pool *pool) NODISCARD;

#endif
