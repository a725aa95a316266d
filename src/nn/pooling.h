/*
 * pooling.h - a map to one row of features, by averages over a grid of cells.
 *
 * Cell i of G along a side of H pixels holds pixels floor(i H / G) to
 * ceil((i + 1) H / G) - 1; cells meet in a pixel where G does not divide H.
 * G = 1 is the global average.
 */
#ifndef NN_POOLING_H
#define NN_POOLING_H

#include <stddef.h>

/*
 * pooling_forward - f [G, G, C] overwritten, from one image x [C/b, H, H, b].
 * pooling_backward - dx overwritten, from df [G, G, C].
 *
 *   f_gc = sum over the cell's n_g pixels of x_cp / n_g
 *   dx_cp = sum over the cells of p of df_gc / n_g
 */
void pooling_forward(
    float *f, const float *x, size_t C, size_t H, size_t G, size_t b);
void pooling_backward(
    float *dx, const float *df, size_t C, size_t H, size_t G, size_t b);

#endif
