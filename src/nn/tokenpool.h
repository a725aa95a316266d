/*
 * tokenpool.h - the tokens of a sequence to one row.
 *
 *   TOKENPOOL_CLS   f = x_0
 *   TOKENPOOL_MEAN  f = sum_t x_t / L
 *   TOKENPOOL_MAX   f_i = max_t x_ti; the first where several are equal
 *
 * L > 0. Nothing is padded, so nothing is masked.
 */
#ifndef NN_TOKENPOOL_H
#define NN_TOKENPOOL_H

#include <stddef.h>

enum tokenpool { TOKENPOOL_CLS, TOKENPOOL_MEAN, TOKENPOOL_MAX };

/*
 * tokenpool_forward - f [H] overwritten, from x [L, H].
 * tokenpool_backward - dx [L, H] overwritten, from df [H] and, for the maximum,
 * x. Sums in float.
 */
void tokenpool_forward(
    float *f, const float *x, size_t L, size_t H, enum tokenpool how);
void tokenpool_backward(float *dx, const float *df, const float *x, size_t L,
    size_t H, enum tokenpool how);

#endif
