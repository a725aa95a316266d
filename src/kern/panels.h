/*
 * panels.h - products with a weight matrix that is packed once and used often.
 *
 * A matrix W [N, K] (out, in) is packed as the panels that kern.product takes
 * of W^T: panel j holds outputs 16 j to 16 j + 15, [K, 16] each, N * K floats
 * in all. N is a multiple of KERN_PANEL. On one core of a Zen 3 processor,
 * 128 rows of MiniLM's shapes: 92 GFLOP/s, dnnl_sgemm 70 to 92 with the packing
 * that it repeats; 16 rows: 97 against 64 to 70.
 */
#ifndef KERN_PANELS_H
#define KERN_PANELS_H

#include <stddef.h>

/* packed [N * K] overwritten, from W [N, K]. */
void panels_pack(float *packed, const float *W, size_t N, size_t K);

/*
 * panels_product - C [M, N] = X W^T, one thread.
 *
 *   C       rows ldc apart; overwritten, no overlap
 *   X       [M, K] rows ldx apart
 *   packed  by panels_pack, 64-byte aligned for speed
 *
 * Allocates nothing, cannot fail. Accumulates in float, in the order of k:
 * |error| <= K 2^-23 sum_k |x_ik w_jk|. A row of C depends on its row of X
 * alone but for rounding.
 */
void panels_product(float *C, size_t ldc, const float *X, size_t ldx,
    const float *packed, size_t M, size_t N, size_t K);

#endif
