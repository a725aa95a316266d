/*
 * kern_avx512.c - the table for AVX-512 F, BW, VL and VNNI. Compiled with
 * those and -mavx2 -mfma; it uses nothing of DQ.
 *
 * vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds the products by
 * fours into 16 sums of 32 bits: one block of 16 rows, four dims, one query. It
 * neither saturates nor wraps for codes within +-127 and up to 65,536 dims, so
 * queries have all of a byte here. 24 accumulators (four blocks by six queries)
 * keep two such units busy with 10 loads for 24 multiplications.
 */
#include "kern/tables.h"

#ifdef __AVX512VNNI__

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define EXP_ARG_MAX 87.0f
#define LOG2_E 1.44269504f

/* Lanes below n of 16. */
static __mmask16
lanes(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

static __m512d
low_pd(__m512 v)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(v));
}

static __m512d
high_pd(__m512 v)
{
    return _mm512_cvtps_pd(
        _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
}

/* --- reductions ----------------------------------------------------------- */

static float
dot_f32(const float *a, const float *b, size_t n)
{
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 64 <= n; i += 64) {
        s0 =
            _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), s0);
        s1 = _mm512_fmadd_ps(
            _mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16), s1);
        s2 = _mm512_fmadd_ps(
            _mm512_loadu_ps(a + i + 32), _mm512_loadu_ps(b + i + 32), s2);
        s3 = _mm512_fmadd_ps(
            _mm512_loadu_ps(a + i + 48), _mm512_loadu_ps(b + i + 48), s3);
    }
    for (; i < n; i += 16) {
        __mmask16 m = lanes(n - i);

        s0 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, a + i),
            _mm512_maskz_loadu_ps(m, b + i), s0);
    }
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
}

static double
dot_f64(const float *a, const float *b, size_t n)
{
    __m512d s0 = _mm512_setzero_pd(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 32 <= n; i += 32) {
        __m512 a0 = _mm512_loadu_ps(a + i), b0 = _mm512_loadu_ps(b + i);
        __m512 a1 = _mm512_loadu_ps(a + i + 16);
        __m512 b1 = _mm512_loadu_ps(b + i + 16);

        s0 = _mm512_fmadd_pd(low_pd(a0), low_pd(b0), s0);
        s1 = _mm512_fmadd_pd(high_pd(a0), high_pd(b0), s1);
        s2 = _mm512_fmadd_pd(low_pd(a1), low_pd(b1), s2);
        s3 = _mm512_fmadd_pd(high_pd(a1), high_pd(b1), s3);
    }
    for (; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 a0 = _mm512_maskz_loadu_ps(m, a + i);
        __m512 b0 = _mm512_maskz_loadu_ps(m, b + i);

        s0 = _mm512_fmadd_pd(low_pd(a0), low_pd(b0), s0);
        s1 = _mm512_fmadd_pd(high_pd(a0), high_pd(b0), s1);
    }
    return _mm512_reduce_add_pd(
        _mm512_add_pd(_mm512_add_pd(s0, s1), _mm512_add_pd(s2, s3)));
}

static float
absmax(const float *x, size_t n)
{
    __m512 top = _mm512_setzero_ps();

    for (size_t i = 0; i < n; i += 16)
        top = _mm512_max_ps(
            top, _mm512_abs_ps(_mm512_maskz_loadu_ps(lanes(n - i), x + i)));
    return _mm512_reduce_max_ps(top);
}

static float
max(const float *x, size_t n)
{
    __m512 least = _mm512_set1_ps(-INFINITY), top = least;

    for (size_t i = 0; i < n; i += 16)
        top = _mm512_max_ps(
            top, _mm512_mask_loadu_ps(least, lanes(n - i), x + i));
    return _mm512_reduce_max_ps(top);
}

/* --- elementwise ---------------------------------------------------------- */

static void
axpy(float *y, float a, const float *x, size_t n)
{
    __m512 va = _mm512_set1_ps(a);
    size_t i = 0;

    for (; i + 32 <= n; i += 32) {
        __m512 y0 =
            _mm512_fmadd_ps(va, _mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i));
        __m512 y1 = _mm512_fmadd_ps(
            va, _mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(y + i + 16));

        _mm512_storeu_ps(y + i, y0);
        _mm512_storeu_ps(y + i + 16, y1);
    }
    for (; i < n; i += 16) {
        __mmask16 m = lanes(n - i);

        _mm512_mask_storeu_ps(y + i, m,
            _mm512_fmadd_ps(va, _mm512_maskz_loadu_ps(m, x + i),
                _mm512_maskz_loadu_ps(m, y + i)));
    }
}

/* 128 columns of a gather: eight accumulators over all rows. */
static void
gather_128(float *y, const float *rows, size_t stride, const uint32_t *idx,
    const float *w, size_t n_rows)
{
    __m512 s[8];

    for (size_t l = 0; l < 8; l++)
        s[l] = _mm512_loadu_ps(y + 16 * l);
    for (size_t r = 0; r < n_rows; r++) {
        const float *row = rows + (size_t)idx[r] * stride;
        __m512 wr = _mm512_set1_ps(w[r]);

        if (r + 4 < n_rows) {
            const char *ahead =
                (const char *)(rows + (size_t)idx[r + 4] * stride);

            for (size_t line = 0; line < 512; line += 64)
                _mm_prefetch(ahead + line, _MM_HINT_T0);
        }
        for (size_t l = 0; l < 8; l++)
            s[l] = _mm512_fmadd_ps(wr, _mm512_loadu_ps(row + 16 * l), s[l]);
    }
    for (size_t l = 0; l < 8; l++)
        _mm512_storeu_ps(y + 16 * l, s[l]);
}

static void
gather(float *y, const float *rows, size_t stride, const uint32_t *idx,
    const float *w, size_t n_rows, size_t n)
{
    size_t i = 0;

    for (; i + 128 <= n; i += 128)
        gather_128(y + i, rows + i, stride, idx, w, n_rows);
    if (i < n)
        for (size_t r = 0; r < n_rows; r++)
            axpy(y + i, w[r], rows + (size_t)idx[r] * stride + i, n - i);
}

static void
scale(float *y, float a, size_t n)
{
    __m512 va = _mm512_set1_ps(a);

    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);

        _mm512_mask_storeu_ps(
            y + i, m, _mm512_mul_ps(va, _mm512_maskz_loadu_ps(m, y + i)));
    }
}

static void
quantize(int8_t *code, const float *x, float inv_step, int code_max, size_t n,
    size_t n_padded)
{
    __m512 vs = _mm512_set1_ps(inv_step);
    __m512 top = _mm512_set1_ps((float)code_max);
    __m512 bottom = _mm512_set1_ps(-(float)code_max);

    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), vs);

        v = _mm512_min_ps(_mm512_max_ps(v, bottom), top);
        _mm512_mask_cvtepi32_storeu_epi8(code + i, m, _mm512_cvtps_epi32(v));
    }
    if (n_padded > n)
        memset(code + n, 0, n_padded - n);
}

static void
adamw(float *p, const float *g, float *m, float *v, size_t n,
    const struct kern_adamw *opt)
{
    __m512 beta1 = _mm512_set1_ps(opt->beta1);
    __m512 beta2 = _mm512_set1_ps(opt->beta2);
    __m512 keep1 = _mm512_set1_ps(1.0f - opt->beta1);
    __m512 keep2 = _mm512_set1_ps(1.0f - opt->beta2);
    __m512 decay = _mm512_set1_ps(1.0f - opt->lr * opt->weight_decay);
    __m512 rate = _mm512_set1_ps(opt->lr * opt->correct1);
    __m512 correct2 = _mm512_set1_ps(opt->correct2);
    __m512 eps = _mm512_set1_ps(opt->eps);

    for (size_t i = 0; i < n; i += 16) {
        __mmask16 in = lanes(n - i);
        __m512 gi = _mm512_maskz_loadu_ps(in, g + i);
        __m512 mi = _mm512_fmadd_ps(
            beta1, _mm512_maskz_loadu_ps(in, m + i), _mm512_mul_ps(keep1, gi));
        __m512 vi = _mm512_fmadd_ps(beta2, _mm512_maskz_loadu_ps(in, v + i),
            _mm512_mul_ps(keep2, _mm512_mul_ps(gi, gi)));
        __m512 root = _mm512_sqrt_ps(_mm512_mul_ps(vi, correct2));
        __m512 step =
            _mm512_div_ps(_mm512_mul_ps(rate, mi), _mm512_add_ps(root, eps));

        _mm512_mask_storeu_ps(m + i, in, mi);
        _mm512_mask_storeu_ps(v + i, in, vi);
        _mm512_mask_storeu_ps(p + i, in,
            _mm512_fmsub_ps(decay, _mm512_maskz_loadu_ps(in, p + i), step));
    }
}

static void
fetch(const void *p, size_t n)
{
    for (size_t at = 0; at < n; at += 64)
        _mm_prefetch((const char *)p + at, _MM_HINT_T0);
}

/* --- the exponential ------------------------------------------------------ */

/* 2^x for |x| <= 126: as in kern_avx2.c, with the exponent by vscalefps. */
static __m512
exp2_ps(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(12582912.0f); /* 1.5 * 2^23 */
    __m512 whole = _mm512_sub_ps(_mm512_add_ps(x, magic), magic);
    __m512 f = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(9.5701016e-3f);

    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5917860e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4024745e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9312181e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9999926e-1f));
    return _mm512_scalef_ps(p, whole);
}

static __m512
clamp_arg(__m512 x)
{
    x = _mm512_max_ps(x, _mm512_set1_ps(-EXP_ARG_MAX * LOG2_E));
    return _mm512_min_ps(x, _mm512_set1_ps(EXP_ARG_MAX * LOG2_E));
}

/* As exp_shift_8 in kern_avx2.c. */
static __m512
exp_shift_16(__m512 x, __m512 shift)
{
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    const __m512 high = _mm512_set1_ps(LOG2_E);
    const __m512 low = _mm512_set1_ps(1.92596298e-8f);
    __m512 arg = _mm512_sub_ps(x, shift);
    __mmask16 keep =
        _mm512_cmp_ps_mask(arg, _mm512_set1_ps(-EXP_ARG_MAX), _CMP_GE_OQ);
    arg = _mm512_max_ps(arg, _mm512_set1_ps(-EXP_ARG_MAX));
    arg = _mm512_min_ps(arg, _mm512_set1_ps(EXP_ARG_MAX));

    __m512 whole = _mm512_sub_ps(_mm512_fmadd_ps(arg, high, magic), magic);
    __m512 f = _mm512_fmsub_ps(arg, high, whole);
    __m512 p = _mm512_set1_ps(1.3276472e-3f);

    f = _mm512_fmadd_ps(arg, low, f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.67554133e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55071327e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40221197e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93146967e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.00000007f));
    return _mm512_maskz_scalef_ps(keep, p, whole);
}

static float
exp_shift(float *x, float shift, size_t n)
{
    __m512 vs = _mm512_set1_ps(shift), sum = _mm512_setzero_ps();

    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 e = _mm512_maskz_mov_ps(
            m, exp_shift_16(_mm512_maskz_loadu_ps(m, x + i), vs));

        _mm512_mask_storeu_ps(x + i, m, e);
        sum = _mm512_add_ps(sum, e);
    }
    return _mm512_reduce_add_ps(sum);
}

/* --- the scan ------------------------------------------------------------- */

#define B_TILE 4
#define Q_TILE 6

static int32_t
load_4(const uint8_t *p)
{
    int32_t v;

    memcpy(&v, p, 4);
    return v;
}

/* b blocks by q queries: inlined with both constant, so that the arrays are
   registers. */
static inline __attribute__((always_inline)) void
scan_tile(int32_t *out, size_t out_stride, const uint8_t *blocks,
    const uint8_t *queries, size_t query_stride, size_t n, const size_t b,
    const size_t q)
{
    __m512i acc[Q_TILE][B_TILE];
    size_t block_bytes = n * KERN_BLOCK_ROWS;

    for (size_t k = 0; k < q; k++)
        for (size_t j = 0; j < b; j++)
            acc[k][j] =
                _mm512_set1_epi32(load_4(queries + k * query_stride + n));
    for (size_t d = 0; d < n; d += 4) {
        __m512i r[B_TILE];

        for (size_t j = 0; j < b; j++)
            r[j] = _mm512_loadu_si512(
                blocks + j * block_bytes + d * KERN_BLOCK_ROWS);
        for (size_t k = 0; k < q; k++) {
            __m512i v =
                _mm512_set1_epi32(load_4(queries + k * query_stride + d));

            for (size_t j = 0; j < b; j++)
                acc[k][j] = _mm512_dpbusd_epi32(acc[k][j], r[j], v);
        }
    }
    for (size_t k = 0; k < q; k++)
        for (size_t j = 0; j < b; j++)
            _mm512_storeu_si512(
                out + k * out_stride + j * KERN_BLOCK_ROWS, acc[k][j]);
}

/* b blocks by all queries, b constant. */
static inline __attribute__((always_inline)) void
scan_blocks(int32_t *out, size_t out_stride, const uint8_t *blocks,
    const uint8_t *queries, size_t n_queries, size_t n, const size_t b)
{
    size_t stride = KERN_QUERY_BYTES(n);

    for (; n_queries >= Q_TILE; n_queries -= Q_TILE) {
        scan_tile(out, out_stride, blocks, queries, stride, n, b, Q_TILE);
        queries += Q_TILE * stride;
        out += Q_TILE * out_stride;
    }
    for (; n_queries >= 2; n_queries -= 2) {
        scan_tile(out, out_stride, blocks, queries, stride, n, b, 2);
        queries += 2 * stride;
        out += 2 * out_stride;
    }
    if (n_queries > 0)
        scan_tile(out, out_stride, blocks, queries, stride, n, b, 1);
}

static void
scan(int32_t *out, size_t out_stride, const uint8_t *blocks, size_t n_blocks,
    const uint8_t *queries, size_t n_queries, size_t n)
{
    size_t block_bytes = n * KERN_BLOCK_ROWS;

    for (; n_blocks >= B_TILE; n_blocks -= B_TILE) {
        scan_blocks(out, out_stride, blocks, queries, n_queries, n, B_TILE);
        blocks += B_TILE * block_bytes;
        out += B_TILE * KERN_BLOCK_ROWS;
    }
    for (; n_blocks > 0; n_blocks--) {
        scan_blocks(out, out_stride, blocks, queries, n_queries, n, 1);
        blocks += block_bytes;
        out += KERN_BLOCK_ROWS;
    }
}

static size_t
select_rows(uint32_t *rows, double *sum, const int32_t *dots,
    const float *row_scale, size_t n, const struct kern_select *opt)
{
    __m512 q_scale = _mm512_set1_ps(opt->q_scale);
    __m512 threshold = _mm512_set1_ps(opt->threshold);
    __m512 shift = _mm512_set1_ps(opt->shift);
    __m512 mul = _mm512_set1_ps(opt->inv_temperature * LOG2_E);
    int want_sum = opt->inv_temperature > 0.0f;
    double total = 0.0;
    size_t n_rows = 0;

    for (size_t r = 0; r < n;) {
        /* float sums over at most 1,024 rows, 64 to a lane */
        size_t end = n - r > 1024 ? r + 1024 : n;
        __m512 part = _mm512_setzero_ps();

        for (; r < end; r += 16) {
            __mmask16 m = lanes(end - r);
            __m512 v =
                _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(m, dots + r));

            v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, row_scale + r));
            v = _mm512_mul_ps(v, q_scale);

            unsigned bits =
                _mm512_mask_cmp_ps_mask(m, v, threshold, _CMP_GE_OQ);

            for (; bits != 0; bits &= bits - 1)
                rows[n_rows++] = (uint32_t)r + (uint32_t)__builtin_ctz(bits);
            if (want_sum) {
                __m512 arg = _mm512_mul_ps(_mm512_sub_ps(v, shift), mul);

                part =
                    _mm512_mask_add_ps(part, m, part, exp2_ps(clamp_arg(arg)));
            }
        }
        total +=
            _mm512_reduce_add_pd(_mm512_add_pd(low_pd(part), high_pd(part)));
    }
    if (want_sum)
        *sum = total;
    return n_rows;
}

const struct kern kern_avx512vnni = {
    .name = "avx512vnni",
    .query_max = 127,
    .query_norm = INT16_MAX,
    .row_norm = INT16_MAX,
    .dot_f32 = dot_f32,
    .dot_f64 = dot_f64,
    .axpy = axpy,
    .gather = gather,
    .scale = scale,
    .absmax = absmax,
    .quantize = quantize,
    .scan = scan,
    .select = select_rows,
    .exp_shift = exp_shift,
    .max = max,
    .fetch = fetch,
    .adamw = adamw,
    .rows_moments = rows_moments_avx2,
    .rows_affine = rows_affine_avx2,
    .rows_grad_sums = rows_grad_sums_avx2,
    .rows_grad = rows_grad_avx2,
    .product = product_avx512,
    .product_bf16 = product_bf16_avx512,
    .code_row = code_row_avx2,
    .product_codes = product_codes_avx512,
    .softmax = softmax_avx2,
    .softmax_grad = softmax_grad_avx2,
    .activate = activate_avx2,
    .activate_grad = activate_grad_avx2,
    .layernorm = layernorm_avx2,
    .layernorm_grad = layernorm_grad_avx2,
};

#endif
