/*
 * panels.h - products with a weight matrix that is packed once and used often.
 *
 * A matrix W [N, K] (out, in) is packed as the panels that the kernels take of
 * W^T: panel j holds outputs 16 j to 16 j + 15. N and K are multiples of
 * KERN_PANEL. Weights are kept as
 *
 *   f32   4 bytes each, as they are
 *   bf16  2 bytes, rounded to nearest even; the sums are f32's
 *   int8  1 byte: each output its step, max |w| / 64 (kern/kern.h has the
 *         codes). Rows of X become codes too, each with a step of its own, of
 *         at most 127 to its largest value: panels_begin. Sums are exact, so
 *         products have the same bits in all kernel tables.
 *
 * On one core of a Zen 3 processor, 192 rows of MiniLM's shapes: f32 90 to 97
 * GFLOP/s (dnnl_sgemm 70 to 92 with the packing that it repeats), bf16 94 to
 * 100, int8 228 to 254.
 */
#ifndef KERN_PANELS_H
#define KERN_PANELS_H

#include <stddef.h>

#define PANELS_ALIGN 64

enum panels_type { PANELS_F32, PANELS_BF16, PANELS_INT8 };

struct panels {
    enum panels_type type;
    size_t N, K;
    void *data;     /* [panels_bytes], aligned to PANELS_ALIGN; borrowed */
    float row_norm; /* int8: limit of a row's codes over a strip */
};

/* Of data; a multiple of PANELS_ALIGN. */
size_t panels_bytes(enum panels_type type, size_t N, size_t K);

/* Fill data from W [N, K], finite. */
void panels_pack(struct panels *p, const float *W);

/* Bytes of the work of products of M rows; a multiple of PANELS_ALIGN. */
size_t panels_work_bytes(enum panels_type type, size_t M, size_t K);

/* What the products by p want of X [M, K], rows ldx apart, into work: codes,
   or nothing for other types. */
void panels_begin(
    const struct panels *p, void *work, const float *X, size_t ldx, size_t M);

/*
 * panels_product - outputs [from, from + n) of C = X W^T, one thread.
 *
 *   C       [M, n] rows ldc apart; overwritten, no overlap
 *   from, n multiples of KERN_PANEL
 *   X       [M, K] rows ldx apart
 *   work    from panels_begin, with these rows
 *
 * Allocates nothing, cannot fail. f32 accumulates in float, in the order of k:
 * |error| <= K 2^-23 sum_k |x_ik w_jk|, and bf16 so with w rounded (2^-8 of
 * it). int8: steps s of the row and t of the output, |error| <= sum_k (s / 2
 * |w_jk| + t / 2 |x_ik| + s t / 4), and 3 * 2^-24 of the sum. A row of C
 * depends on its row of X alone but for rounding. A row with a value that is
 * not finite gives int8 NaNs.
 */
void panels_product(float *C, size_t ldc, const struct panels *p, size_t from,
    size_t n, const float *X, size_t ldx, const void *work, size_t M);

#endif
