/*
 * gemm.h - dense f32 matrix products, the front of the numeric library
 * (oneDNN; CBLAS with -DKINDRED_CBLAS for machines where that is faster).
 *
 * One thread a call: the callers split their work over their own pool into
 * fixed shards, so results do not depend on the number of threads.
 */
#ifndef KERN_GEMM_H
#define KERN_GEMM_H

#include <stdbool.h>
#include <stddef.h>

/*
 * gemm_f32 - C = alpha op(A) op(B) + beta C, row-major.
 *
 *   C [M, N]  rows ldc apart; overwritten when beta is 0
 *   A [M, K]  rows lda apart; stored [K, M] when trans_a
 *   B [K, N]  rows ldb apart; stored [N, K] when trans_b
 *
 * No overlap of C with A or B. Accumulates in float:
 * |error| <= K 2^-23 sum_k |a_ik b_kj|. Sizes below 2^31.
 */
void gemm_f32(float *C, size_t ldc, const float *A, size_t lda, bool trans_a,
    const float *B, size_t ldb, bool trans_b, size_t M, size_t N, size_t K,
    float alpha, float beta);

#endif
