/* tables.h - the tables that kern.c chooses from; for this folder only. */
#ifndef KERN_TABLES_H
#define KERN_TABLES_H

#include "kern/kern.h"

extern const struct kern kern_scalar;
#ifdef __x86_64__
extern const struct kern kern_avx2;
extern const struct kern kern_avx512vnni;

/* kern_rows_avx2.c, for both tables */
void rows_moments_avx2(float *sum, float *square, const float *x, float shift,
    size_t n_rows, size_t b);
void rows_affine_avx2(float *y, const float *x, const float *residual,
    const float *scale, const float *add, int relu, size_t n_rows, size_t b);
void rows_grad_sums_avx2(float *sum, float *sum_x, float *dy, const float *y,
    const float *x, float shift, size_t n_rows, size_t b);
void rows_grad_avx2(float *dx, const float *dy, const float *x,
    const float *scale, float slope, float add, size_t n_rows, size_t b);
#endif

#endif
