/*
 * transformer_linear.h - the gradients of linear layers, Y = X W^T + b, by the
 * kernels' product.
 *
 *   dX = dY W,  dW += dY^T X,  db += sum of the rows of dY
 *
 * with Y and dY [T, N], X and dX [T, K], W [N, K]; N and K are multiples of
 * KERN_PANEL. One thread a call. Allocate nothing, cannot fail; float sums, in
 * an order that the sizes alone decide: |error| <= n 2^-23 sum |terms| for n
 * terms.
 */
#ifndef MODEL_TRANSFORMER_LINEAR_H
#define MODEL_TRANSFORMER_LINEAR_H

#include <stdbool.h>
#include <stddef.h>

/* Rows [from, from + n) of W into packed [N K], as the panels that dX takes. */
void transformer_linear_pack(
    float *packed, const float *W, size_t N, size_t K, size_t from, size_t n);

/* dX = (+=) dY W. */
void transformer_linear_input(float *dX, const float *dY, const float *packed,
    size_t T, size_t N, size_t K, bool add);

struct transformer_linear {
    const float *dY, *X;
    float *dW, *db;
    size_t T, N, K;
};

/* dW and db are cut into blocks, each a job of its own. */
size_t transformer_linear_blocks(size_t N, size_t K);
size_t transformer_linear_work_floats(void);
void transformer_linear_block(
    const struct transformer_linear *l, size_t block, float *work);

#endif
