/*
 * infonce.h - the contrastive objective and its gradient.
 *
 * For anchors q_i and keys k_j, unit rows, with k_i the positive of q_i:
 *
 *   s_ij = q_i . k_j / tau
 *   L    = sum_i w_i [ (1 - c) l_i + c l'_i ] / sum_i w_i
 *   l_i  = -s_ii + log sum_j exp s_ij      anchor -> key
 *   l'_i = -s_ii + log sum_j exp s_ji      key -> anchor (the first B keys)
 *
 * c is 1/2 in the symmetric form and 0 else; masked (i, j) are left out of
 * both sums. Source: van den Oord et al. 2018 (arXiv:1807.03748), eq. 4, with
 * the temperature of Chen et al. 2020 (arXiv:2002.05709), eq. 1, and the
 * symmetric form of Radford et al. 2021 (arXiv:2103.00020), fig. 3.
 */
#ifndef NN_INFONCE_H
#define NN_INFONCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/pool.h"

struct infonce_mask {
    uint32_t row, col; /* row != col */
};

struct infonce_in {
    size_t B, M, D;      /* anchors, keys (M >= B), dims */
    const float *q;      /* [B, D] unit rows */
    const float *k;      /* [M, D] unit rows; k[i] is the positive of q[i] */
    const float *weight; /* [B] >= 0, not all 0; NULL: all 1 */
    const struct infonce_mask *mask; /* ascending by row */
    size_t n_mask;
    float tau; /* > 0 */
    bool symmetric;
};

struct infonce_out {
    double loss;
    double d_log_scale; /* d loss / d log(1 / tau) */
    double accuracy;    /* share of anchors whose positive is on top */
    double positive;    /* mean cosine of positives */
    double negative;    /* mean cosine of unmasked negatives */
    float *dq;          /* [B, D] overwritten; NULL: no gradient wanted */
    float *dk;          /* [M, D] overwritten */
};

/* Floats of scratch that infonce needs. */
size_t infonce_workspace_floats(size_t B, size_t M);

/*
 * infonce - loss and gradient.
 *
 *   dq_i = (1 / tau) sum_j g_ij k_j,  dk_j = (1 / tau) sum_i g_ij q_i
 *   g_ij = w_i ((1 - c) p_ij + c p'_ij - [i = j]) / sum w,   with p'_ij from
 *          the column's weight w_j
 *
 * workspace [infonce_workspace_floats(B, M)]; allocates nothing, cannot
 * fail, O(B M D). The same inputs give the same bits for any pool.
 */
void infonce(const struct infonce_in *in, struct infonce_out *out,
    float *workspace, struct pool *pool);

#endif
