/*
 * l2norm.h - rows to unit length, and back.
 *
 *   y_i  = x_i / |x_i|; zero for a row shorter than 1e-30
 *   dx_i = (dy_i - y_i (y_i . dy_i)) / |x_i|; zero for such a row
 *
 * Norms and products accumulate in double, so y is right to 2 ulp. y may be x,
 * dx may be dy; no other overlap. Allocate nothing, cannot fail, O(n D); rows
 * are independent, so the same bits for any pool.
 */
#ifndef NN_L2NORM_H
#define NN_L2NORM_H

#include <stddef.h>
#include "base/pool.h"

/* y [n, D] and norm [n] overwritten from x [n, D]. */
void l2norm_forward(float *y, float *norm, const float *x, size_t n, size_t D,
    struct pool *pool);

/* dx [n, D] overwritten from dy, y [n, D] and norm [n]. */
void l2norm_backward(float *dx, const float *dy, const float *y,
    const float *norm, size_t n, size_t D, struct pool *pool);

#endif
