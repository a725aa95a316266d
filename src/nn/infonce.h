/*
 * infonce.h - the contrastive objectives and their gradients: one core.
 *
 * Anchors stand in rows, keys in columns; s_ij = x_i . y_j / tau for unit rows
 * x, y. Each anchor i has candidates A(i), which make its denominator, and
 * positives P(i), its own one and perhaps others:
 *
 *   l_i = log sum_{a in A(i)} exp s_ia - (1 / |P(i)|) sum_{p in P(i)} s_ip
 *   L   = sum_i w_i l_i / sum_i w_i
 *
 * The layout says what rows, columns and own positives are:
 *
 *   INFONCE_KEYS   q_i against k_j, j < M; its own positive is k_i. symmetric
 *                  adds the other direction: L = (L + L') / 2, l'_j by the
 *                  columns j < B over the anchors.
 *   INFONCE_APART  q_i against its own positive_i and k_j, j < M, which are
 *                  negatives of all; no other anchor's positive is used.
 *   INFONCE_VIEWS  rows z_i, i < M, all against all, never against itself;
 *                  z_i and z_(i+B) are positives of each other for i < B; rows
 *                  from 2 B on are keys only, none is an anchor. w_i counts for
 *                  both rows of the pair.
 *
 * and these settings change A or P:
 *
 *   mask       (i, j) is in neither A(i) nor P(i)
 *   decoupled  A(i) holds no positive
 *   label      keys of the anchor's label are in P(i) too; 0 is no label
 *   joint      VIEWS: both rows of a pair have one denominator, the sum over
 *              A(i) and A(i+B), in which their own s counts twice
 *
 * The objectives of the literature:
 *
 *   InfoNCE     KEYS                      van den Oord et al. 2018
 *                                         (arXiv:1807.03748), eq. 4
 *   symmetric   KEYS, symmetric           Radford et al. 2021
 *                                         (arXiv:2103.00020), fig. 3
 *   MoCo        APART, k the queue        He et al. 2020
 *                                         (arXiv:1911.05722), eq. 1, alg. 1
 *   NT-Xent     VIEWS                     Chen et al. 2020
 *                                         (arXiv:2002.05709), eq. 1
 *   four-way    VIEWS, joint              Li et al. 2023
 *                                         (arXiv:2308.03281), improved loss
 *   DCL         VIEWS or any, decoupled   Yeh et al. 2022
 *                                         (arXiv:2110.06848), L_DC
 *   SupCon      VIEWS or any, label       Khosla et al. 2020
 *                                         (arXiv:2004.11362), eq. 2 (L_out)
 *
 * An anchor without a candidate (all masked, decoupled) adds nothing to the
 * sum. Logits are made in panels of at most 2^22 floats (or 64 rows), twice
 * where column sums need all rows first, so memory is flat in B and M.
 */
#ifndef NN_INFONCE_H
#define NN_INFONCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/pool.h"

enum infonce_layout { INFONCE_KEYS, INFONCE_APART, INFONCE_VIEWS };

struct infonce_mask {
    uint32_t row, col; /* never an anchor and its own positive */
};

struct infonce_in {
    enum infonce_layout layout;
    size_t B;              /* anchors; VIEWS: pairs */
    size_t M;              /* keys; KEYS: M >= B; VIEWS: rows, M >= 2 B */
    size_t D;              /* dims */
    const float *q;        /* [B, D] unit rows; VIEWS: z [M, D] */
    const float *k;        /* [M, D] unit rows; VIEWS: not read */
    const float *positive; /* [B, D] unit rows; APART only */
    const float *weight;   /* [B] >= 0, not all 0; NULL: all 1 */
    /* ascending by row, none twice; VIEWS: (j, i) stands with every (i, j) */
    const struct infonce_mask *mask;
    size_t n_mask;
    const uint64_t *label;     /* [B], VIEWS: [M]; NULL: none */
    const uint64_t *key_label; /* [M], with label; VIEWS: not read */
    float tau;                 /* > 0 */
    bool symmetric;            /* KEYS only */
    bool decoupled;            /* not with label */
    bool joint;                /* VIEWS only */
};

struct infonce_out {
    double loss;
    double d_log_scale; /* d loss / d log(1 / tau) */
    double accuracy;    /* share of anchors whose own positive is above all
                           negatives */
    double positive;    /* mean cosine of own positives */
    double negative;    /* mean cosine of unmasked negatives */
    float *dq;          /* as q, overwritten; NULL: no gradient wanted */
    float *dk;          /* [n_dk, D] overwritten; NULL: not wanted */
    size_t n_dk;        /* the first keys, whose gradient is wanted; 0: all */
};

/* Floats of scratch that infonce needs for at most n rows (B; VIEWS: M) and at
   most M keys. */
size_t infonce_workspace_floats(size_t n_rows, size_t M);

/*
 * infonce - loss and gradient.
 *
 * With a_i = w_i / sum w (half of it in both directions), p_ij the softmax of
 * row i over A(i), p'_ij that of column j (weight a'_j):
 *
 *   g_ij = a_i p_ij - a_i [j in P(i)] / |P(i)| + the same of column j
 *   dq_i = (1 / tau) sum_j g_ij k_j,  dk_j = (1 / tau) sum_i g_ij q_i
 *
 * In VIEWS g is symmetric, the columns' half being the rows' of the other
 * view, and dz_i = (1 / tau) sum_j g_ij z_j. With joint, p_ij = 2 exp(s_ij) /
 * (Z_i + Z_(i+B)). In APART the positives get no gradient.
 *
 *   workspace  [infonce_workspace_floats(B, M)], VIEWS: (M, M)
 *
 * Allocates nothing, cannot fail, O(B M D). The same inputs give the same bits
 * for any pool. Accumulates in float (gemm.h) and sums of a row in double.
 */
void infonce(const struct infonce_in *in, struct infonce_out *out,
    float *workspace, struct pool *pool);

#endif
