/*
 * standardize.h - weight standardisation: what a convolution uses in place of
 * its stored weights.
 *
 * For each row w of K = I k k weights of one output channel:
 *
 *   mu = sum w / K,  v = sum (w - mu)^2,  s = 1 / sqrt(v + 1e-6)
 *   z = (w - mu) s
 *
 * so that a row of z has mean 0 and norm 1. Source: Qiao et al. 2019
 * (arXiv:1903.10520), eqs. 6 and 7, divided by sqrt(K) as in Brock et al. 2021
 * (arXiv:2101.08692), eq. 1; the gain of the normalisation behind the
 * convolution serves for theirs.
 */
#ifndef NN_STANDARDIZE_H
#define NN_STANDARDIZE_H

#include <stddef.h>

/*
 * standardize_forward - z [rows, K] overwritten, from w [rows, K]; z may be w.
 * standardize_backward - dw += d loss / d w, from dz [rows, K] and w.
 *
 *   dw = s (dz - mean(dz) - z (z . dz)),  sums in double
 */
void standardize_forward(float *z, const float *w, size_t rows, size_t K);
void standardize_backward(
    float *dw, const float *dz, const float *w, size_t rows, size_t K);

#endif
