/*
 * kern.h - the inner loops, as one table per instruction set.
 *
 * kern_init picks the fastest table that this processor has and whose
 * self-test agrees with the scalar reference; after it, `kern()` is constant.
 * A table is a whole: no entry is NULL. Kernels never allocate, never fail,
 * take unaligned pointers, and accept n = 0. Float reductions accumulate in
 * several float lanes: |error| <= n * 2^-23 * sum |a_i b_i| is the stated
 * bound of each; nothing may depend on the bits of one table.
 *
 * Integer codes of the vector scan
 * --------------------------------
 * A row is coded in bytes -127..127, a query in -query_max..query_max, both
 * padded with zeros to a multiple of KERN_CODE_ALIGN dims. Rows stand in
 * blocks of KERN_BLOCK_ROWS, transposed by fours: byte d of row r of a block
 * is at (d / 4) * 4 * KERN_BLOCK_ROWS + 4 * r + d % 4, stored as code + 128, so
 * that every lane of a vector register works for a row of its own and one
 * unsigned-by-signed multiply-add takes it as it is. The 128 is taken off again
 * by the sums that kern_scan_prepare puts behind a query.
 *
 * The AVX2 table adds products in 16 bits. Its pairs fit because 2 * 255 * 64 <
 * 2^15, its sums because 16-bit addition is modular and the true sum over a
 * *stripe* is small: a stripe is dims {i, i + 1, i + 4, i + 5, ..., i + 60,
 * i + 61} (i = 0 or 2 modulo 64), and by Cauchy-Schwarz its part of the dot is
 * at most row_norm * query_norm < 2^15, where a row's codes have at most the
 * first as Euclidean norm over every stripe, and a query's the second.
 * kern_stripe_norm2 is the check; a coder that finds a longer stripe takes
 * a larger step. Other tables add in 32 bits and have no such limit; codes are
 * made and scanned by one process, so they may depend on the table.
 *
 * Integer codes of products
 * -------------------------
 * The same way of multiplying, with the bits where a transformer wants them: a
 * weight is a byte -64..64 stored as code + 64, an activation -127..127. The
 * weights of KERN_PANEL outputs stand transposed by fours as the rows of a scan
 * do: byte k of output l of a panel is at (k / 4) * 4 * KERN_PANEL + 4 * l +
 * k % 4. Products of two fit 16 bits because 2 * 128 * 127 < 2^15, and sums
 * over a *strip* because the norms of both sides over it are kept to
 * weight_norm * row_norm < 2^15; a strip is dims {i, i + 1, i + 4, i + 5, ...,
 * i + 28, i + 29} (i = 0 or 2 modulo 32). All tables take the same codes, made
 * to the same bits, so their sums and products are equal to the bit.
 *
 * A row of activations of n dims is KERN_ROW_BYTES(n): the codes, their step
 * as a float, -64 times the sum of all as int32, then for each segment of 32
 * the same of its two strips, as two int16 (modulo 2^16). kern/panels.h makes
 * both.
 */
#ifndef KERN_KERN_H
#define KERN_KERN_H

#include <stddef.h>
#include <stdint.h>

#define KERN_CODE_ALIGN 16
#define KERN_BLOCK_ROWS 16
#define KERN_ROW_MAX 127 /* codes of a row */
#define KERN_SEG_DIMS 64 /* dims that hold two stripes */
#define KERN_PANEL 16    /* columns of a panel of a matrix product */
#define KERN_WEIGHT_MAX 64
#define KERN_STRIP_DIMS 32 /* dims that hold two strips */

/* n dims, rounded up to KERN_CODE_ALIGN */
#define KERN_CODE_DIMS(n)                                                      \
    (((n) + KERN_CODE_ALIGN - 1) / KERN_CODE_ALIGN * KERN_CODE_ALIGN)
/* Bytes of a prepared query of n dims (n a multiple of KERN_CODE_ALIGN). */
#define KERN_QUERY_BYTES(n)                                                    \
    ((n) + 4 * (1 + ((n) + KERN_SEG_DIMS - 1) / KERN_SEG_DIMS))
/* Bytes of a row of activations (n a multiple of KERN_PANEL). */
#define KERN_ROW_BYTES(n)                                                      \
    ((n) + 4 * (2 + ((n) + KERN_STRIP_DIMS - 1) / KERN_STRIP_DIMS))

struct kern_adamw {
    float lr;           /* learning rate of this step */
    float beta1, beta2; /* decay of the moments */
    float eps;
    float weight_decay; /* decoupled: p -= lr * weight_decay * p */
    float correct1;     /* 1 / (1 - beta1^t) */
    float correct2;     /* 1 / (1 - beta2^t) */
};

/* What kern.select does with the dots of one query. The value of row r is
   v_r = dots[r] * scale[r] * q_scale, in float. */
struct kern_select {
    float q_scale;
    float threshold; /* rows with v_r >= threshold are listed */
    float shift;
    float inv_temperature; /* 0: no sum is wanted */
};

/* C [M, N] rows ldc apart; A(i, k) at A[i a_row + k a_col]; B(k, j) at
   B[j / 16 b_panel + k b_row + j % 16]: panels of 16 columns (kern/panels.h),
   or with b_panel 16 a row-major matrix. */
struct kern_product {
    size_t M, N, K; /* N a multiple of KERN_PANEL */
    size_t ldc;
    size_t a_row, a_col;
    size_t b_row, b_panel;
    int add; /* C += A B, else C = A B */
};

/* C [M, N] rows ldc apart, from M rows of codes and panels of weights. */
struct kern_codes {
    size_t M, N, K; /* N and K multiples of KERN_PANEL; K <= 65,536 */
    size_t ldc;
    const float *step; /* [N] of the weights' codes */
};

/* What stands between two linear layers; gelu(x) = x Phi(x), and its
   approximation by tanh (Hendrycks & Gimpel 2016, arXiv:1606.08415, sec. 2). */
enum kern_act {
    KERN_ACT_NONE,
    KERN_ACT_RELU,
    KERN_ACT_GELU,
    KERN_ACT_GELU_TANH
};

struct kern_norm {
    const float *gain, *bias; /* [n] */
    float eps;
    size_t n; /* a multiple of KERN_PANEL */
};

struct kern {
    const char *name; /* "scalar", "avx2", "avx512vnni" */
    int query_max;    /* largest code of a query for this table's scan */
    int query_norm;   /* largest norm of a query's codes over a stripe */
    int row_norm;     /* the same of a row's */

    /* sum a_i b_i, float accumulation */
    float (*dot_f32)(const float *a, const float *b, size_t n);
    /* sum a_i b_i in double: products exact, error <= n 2^-53 sum |a_i b_i| */
    double (*dot_f64)(const float *a, const float *b, size_t n);
    /* y_i += a x_i */
    void (*axpy)(float *y, float a, const float *x, size_t n);
    /* y_i += sum_r w_r * rows[idx_r * stride + i], r < n_rows: a gathered,
       weighted sum of rows (accumulated); prefetches the rows ahead */
    void (*gather)(float *y, const float *rows, size_t stride,
        const uint32_t *idx, const float *w, size_t n_rows, size_t n);
    /* y_i *= a */
    void (*scale)(float *y, float a, size_t n);
    /* max |x_i|, 0 for n = 0 */
    float (*absmax)(const float *x, size_t n);
    /* code_i = x_i * inv_step rounded to nearest even, clamped to +-max;
       max <= 127; bytes n to n_padded become 0 */
    void (*quantize)(int8_t *code, const float *x, float inv_step, int max,
        size_t n, size_t n_padded);
    /* out[q * out_stride + r] = sum_i query_q[i] * row_r[i], exact, for every
       row r of n_blocks blocks; n a multiple of KERN_CODE_ALIGN, n <= 65,536;
       queries prepared, KERN_QUERY_BYTES(n) apart. Queries are blocked in
       registers. */
    void (*scan)(int32_t *out, size_t out_stride, const uint8_t *blocks,
        size_t n_blocks, const uint8_t *queries, size_t n_queries, size_t n);
    /* Over r < n: list the rows of threshold and above, ascending, in rows
       [n]; return how many. *sum (may be NULL when inv_temperature is 0) is
       set to sum_r exp((v_r - shift) * inv_temperature), the argument
       clamped to [-87, 87], relative error <= 1e-5 per term beyond that of
       the argument's rounding (4 * 2^-24 of |v_r| + |shift|, times
       inv_temperature). */
    size_t (*select)(uint32_t *rows, double *sum, const int32_t *dots,
        const float *scale, size_t n, const struct kern_select *opt);
    /* x_i = exp(x_i - shift), returns the sum in float lanes; relative error
       of a term <= 4e-7 beyond that of the rounded x_i - shift; arguments below
       -87 give 0, those above 87 count as 87 */
    float (*exp_shift)(float *x, float shift, size_t n);
    /* max x_i; -inf for n = 0 */
    float (*max)(const float *x, size_t n);
    /* ask the memory for n bytes that will be read soon; changes nothing */
    void (*fetch)(const void *p, size_t n);
    /* one AdamW step on n parameters p with gradient g and moments m, v
       (Loshchilov & Hutter 2019, arXiv:1711.05101, alg. 2) */
    void (*adamw)(float *p, const float *g, float *m, float *v, size_t n,
        const struct kern_adamw *opt);

    /* What normalisation does with a map: n_rows rows of b = 8 or 16 channels
       side by side, [n_rows, b]. Sums are over rows, in float lanes. */

    /* sum_l = sum (x_l - shift), square_l = sum (x_l - shift)^2 */
    void (*rows_moments)(float *sum, float *square, const float *x, float shift,
        size_t n_rows, size_t b);
    /* y_l = scale_l x_l + add_l (+ residual_l), or 0 where that is below and
       relu is set; y may be residual, which may be NULL */
    void (*rows_affine)(float *y, const float *x, const float *residual,
        const float *scale, const float *add, int relu, size_t n_rows,
        size_t b);
    /* dy_l = 0 where not y_l > 0 (y NULL: as it is); sum_l = sum dy_l,
       sum_x_l = sum dy_l (x_l - shift) */
    void (*rows_grad_sums)(float *sum, float *sum_x, float *dy, const float *y,
        const float *x, float shift, size_t n_rows, size_t b);
    /* dx_l = scale_l dy_l + slope x_l + add; dx may be dy */
    void (*rows_grad)(float *dx, const float *dy, const float *x,
        const float *scale, float slope, float add, size_t n_rows, size_t b);

    /* What a transformer does between and in its products. */

    /* C = (+=) A B; C overlaps nothing */
    void (*product)(
        float *C, const float *A, const float *B, const struct kern_product *p);
    /* the same with B in bfloat16, in panels of pairs of k: B(k, j) at
       B[j / 16 b_panel + 32 (k / 2) + 2 (j % 16) + k % 2]; K is even, a_col 1,
       b_row is not looked at */
    void (*product_bf16)(float *C, const float *A, const uint16_t *B,
        const struct kern_product *p);
    /* a row of activations but for its step: code_i = x_i inv_step rounded to
       nearest even, clamped to +-127; n a multiple of KERN_PANEL. The largest
       squared norm of a strip, or -1 when some |x_i inv_step| <= 128 is not
       true. */
    int32_t (*code_row)(uint8_t *row, const float *x, float inv_step, size_t n);
    /* C = A B by codes: the exact sum, rounded to float, times the product of
       both steps */
    void (*product_codes)(float *C, const uint8_t *A, const uint8_t *B,
        const struct kern_codes *p);
    /* each row of x [n_rows, n], rows ld apart, becomes softmax(scale x): exp
       as exp_shift; n > 0 */
    void (*softmax)(float *x, size_t ld, float scale, size_t n_rows, size_t n);
    /* dp = scale p (dp - sum p dp), row by row: the gradient by x of
       p = softmax(scale x) */
    void (*softmax_grad)(float *dp, const float *p, size_t ld, float scale,
        size_t n_rows, size_t n);
    /* u += bias (NULL: nothing), y = act(u), rows ld apart; y may be u; n a
       multiple of KERN_PANEL; |error| <= 4e-7 |u| */
    void (*activate)(float *y, float *u, size_t ld, const float *bias,
        enum kern_act act, size_t n_rows, size_t n);
    /* y = act(u), du *= act'(u), |error| <= 2e-6 |du|; n a multiple of
       KERN_PANEL */
    void (*activate_grad)(
        float *du, float *y, const float *u, enum kern_act act, size_t n);
    /* x += add + add_bias (either may be NULL), then y = gain h + bias,
       h = (x - mu) r, mu = mean x, r = 1 / sqrt(mean (x - mu)^2 + eps);
       stats [n_rows, 2] = mu, r unless NULL; y may be x. Rows stand side by
       side. Source: Ba et al. 2016 (arXiv:1607.06450), eq. 4. */
    void (*layernorm)(float *y, float *stats, float *x, const float *add,
        const float *add_bias, const struct kern_norm *norm, size_t n_rows);
    /* dx = (+= with add) r (g - mean g - h mean(g h)), g = gain dy; dgain +=
       sum dy h, dbias += sum dy; x as layernorm left it; dx may be dy */
    void (*layernorm_grad)(float *dx, float *dgain, float *dbias,
        const float *dy, const float *x, const float *stats,
        const struct kern_norm *norm, size_t n_rows, int add);
};

/* Choose the table; once, before threads start. KINDRED_KERNELS=NAME in the
   environment asks for one table (tests); an unknown or unsupported one is
   ignored with a warning. */
void kern_init(void);

/* The chosen table (scalar before kern_init). */
const struct kern *kern(void);

/* Table i that this processor can run and whose self-test passed, scalar at
   0; NULL past the last. For tests and benchmarks. */
const struct kern *kern_available(size_t i);

/* Table i that this processor can run, whatever its self-test says; NULL past
   the last. For tests. */
const struct kern *kern_supported(size_t i);

/* 0 when the table agrees with the scalar reference on the self-test's
   inputs, else the 1-based number of the first entry that differs. */
int kern_self_test(const struct kern *table);

/* The largest squared norm of the codes over a stripe; n as for scan. */
int32_t kern_stripe_norm2(const int8_t *code, size_t n);

/* Behind the n codes at the start of query, write the sums that scan needs. */
void kern_scan_prepare(uint8_t *query, size_t n);

/* Put the codes [n] of a row into its block, or (NULL) zeros. */
void kern_block_put(uint8_t *block, size_t row, const int8_t *code, size_t n);
/* Copy a row's bytes from one place to another. */
void kern_block_move(uint8_t *to_block, size_t to_row,
    const uint8_t *from_block, size_t from_row, size_t n);

#endif
