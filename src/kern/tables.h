/* tables.h - the tables that kern.c chooses from; for this folder only. */
#ifndef KERN_TABLES_H
#define KERN_TABLES_H

#include "kern/kern.h"

extern const struct kern kern_scalar;

/* kern_tokens_scalar.c */
void product_scalar(
    float *C, const float *A, const float *B, const struct kern_product *p);
void product_bf16_scalar(
    float *C, const float *A, const uint16_t *B, const struct kern_product *p);
int32_t code_row_scalar(uint8_t *row, const float *x, float inv_step, size_t n);
void product_codes_scalar(
    float *C, const uint8_t *A, const uint8_t *B, const struct kern_codes *p);
void softmax_scalar(float *x, size_t ld, float scale, size_t n_rows, size_t n);
void softmax_grad_scalar(
    float *dp, const float *p, size_t ld, float scale, size_t n_rows, size_t n);
void activate_scalar(float *y, float *u, size_t ld, const float *bias,
    enum kern_act act, size_t n_rows, size_t n);
void activate_grad_scalar(
    float *du, float *y, const float *u, enum kern_act act, size_t n);
void layernorm_scalar(float *y, float *stats, float *x, const float *add,
    const float *add_bias, const struct kern_norm *norm, size_t n_rows);
void layernorm_grad_scalar(float *dx, float *dgain, float *dbias,
    const float *dy, const float *x, const float *stats,
    const struct kern_norm *norm, size_t n_rows, int add);

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

/* kern_tokens_avx2.c, for both tables but for the product */
void product_avx2(
    float *C, const float *A, const float *B, const struct kern_product *p);
void product_bf16_avx2(
    float *C, const float *A, const uint16_t *B, const struct kern_product *p);
void softmax_avx2(float *x, size_t ld, float scale, size_t n_rows, size_t n);
void softmax_grad_avx2(
    float *dp, const float *p, size_t ld, float scale, size_t n_rows, size_t n);
void activate_avx2(float *y, float *u, size_t ld, const float *bias,
    enum kern_act act, size_t n_rows, size_t n);
void activate_grad_avx2(
    float *du, float *y, const float *u, enum kern_act act, size_t n);
void layernorm_avx2(float *y, float *stats, float *x, const float *add,
    const float *add_bias, const struct kern_norm *norm, size_t n_rows);
void layernorm_grad_avx2(float *dx, float *dgain, float *dbias, const float *dy,
    const float *x, const float *stats, const struct kern_norm *norm,
    size_t n_rows, int add);

/* kern_codes_avx2.c, for both tables but for the product */
int32_t code_row_avx2(uint8_t *row, const float *x, float inv_step, size_t n);
void product_codes_avx2(
    float *C, const uint8_t *A, const uint8_t *B, const struct kern_codes *p);

/* kern_product_avx512.c */
void product_avx512(
    float *C, const float *A, const float *B, const struct kern_product *p);
void product_bf16_avx512(
    float *C, const float *A, const uint16_t *B, const struct kern_product *p);
void product_codes_avx512(
    float *C, const uint8_t *A, const uint8_t *B, const struct kern_codes *p);
#endif

#endif
