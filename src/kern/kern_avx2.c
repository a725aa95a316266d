/*
 * kern_avx2.c - the table for AVX2 and FMA. Compiled with -mavx2 -mfma.
 *
 * The scan is 2 vpmaddubsw and 2 vpaddw a cycle at best (64 products), so
 * everything else is kept out of its way: ten accumulators stay in registers
 * (two vectors of eight rows by five queries; with six gcc 12 spills), a query
 * costs one broadcast load for two multiplications, and sums stay in 16 bits
 * over a segment of 64 dims (kern.h says why they fit), so that widening is one
 * step in sixteen.
 */
#include "kern/tables.h"

#ifdef __AVX2__

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kern/kern_codes_avx2.h"
#include "kern/kern_exp_avx2.h"

/* --- reductions ----------------------------------------------------------- */

static float
sum_ps(__m256 v)
{
    __m128 s =
        _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

static double
sum_pd(__m256d v)
{
    __m128d s =
        _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));

    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* Lanes below n of 8: all ones. */
static __m256i
mask_of(size_t n)
{
    return _mm256_cmpgt_epi32(
        _mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static float
dot_f32(const float *a, const float *b, size_t n)
{
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 32 <= n; i += 32) {
        s0 =
            _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
        s1 = _mm256_fmadd_ps(
            _mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), s1);
        s2 = _mm256_fmadd_ps(
            _mm256_loadu_ps(a + i + 16), _mm256_loadu_ps(b + i + 16), s2);
        s3 = _mm256_fmadd_ps(
            _mm256_loadu_ps(a + i + 24), _mm256_loadu_ps(b + i + 24), s3);
    }
    for (; i + 8 <= n; i += 8)
        s0 =
            _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
    if (i < n) {
        __m256i m = mask_of(n - i);

        s1 = _mm256_fmadd_ps(
            _mm256_maskload_ps(a + i, m), _mm256_maskload_ps(b + i, m), s1);
    }
    return sum_ps(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
}

static __m256d
madd_pd(const float *a, const float *b, __m256d s)
{
    return _mm256_fmadd_pd(
        _mm256_cvtps_pd(_mm_loadu_ps(a)), _mm256_cvtps_pd(_mm_loadu_ps(b)), s);
}

static double
dot_f64(const float *a, const float *b, size_t n)
{
    __m256d s0 = _mm256_setzero_pd(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        s0 = madd_pd(a + i, b + i, s0);
        s1 = madd_pd(a + i + 4, b + i + 4, s1);
        s2 = madd_pd(a + i + 8, b + i + 8, s2);
        s3 = madd_pd(a + i + 12, b + i + 12, s3);
    }
    for (; i + 4 <= n; i += 4)
        s0 = madd_pd(a + i, b + i, s0);

    double tail = 0.0;

    for (; i < n; i++)
        tail += (double)a[i] * (double)b[i];
    return tail +
           sum_pd(_mm256_add_pd(_mm256_add_pd(s0, s1), _mm256_add_pd(s2, s3)));
}

static float
absmax(const float *x, size_t n)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 m0 = _mm256_setzero_ps(), m1 = m0;
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        m0 = _mm256_max_ps(m0, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
        m1 = _mm256_max_ps(
            m1, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + 8)));
    }
    m0 = _mm256_max_ps(m0, m1);

    float lane[8];
    float m = 0.0f;

    _mm256_storeu_ps(lane, m0);
    for (size_t l = 0; l < 8; l++)
        m = lane[l] > m ? lane[l] : m;
    for (; i < n; i++)
        m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

static float
max(const float *x, size_t n)
{
    __m256 m0 = _mm256_set1_ps(-INFINITY);
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        m0 = _mm256_max_ps(m0, _mm256_loadu_ps(x + i));

    float lane[8];
    float m = -INFINITY;

    _mm256_storeu_ps(lane, m0);
    for (size_t l = 0; l < 8; l++)
        m = lane[l] > m ? lane[l] : m;
    for (; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

/* --- elementwise ---------------------------------------------------------- */

static void
axpy(float *y, float a, const float *x, size_t n)
{
    __m256 va = _mm256_set1_ps(a);
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        __m256 y0 =
            _mm256_fmadd_ps(va, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i));
        __m256 y1 = _mm256_fmadd_ps(
            va, _mm256_loadu_ps(x + i + 8), _mm256_loadu_ps(y + i + 8));

        _mm256_storeu_ps(y + i, y0);
        _mm256_storeu_ps(y + i + 8, y1);
    }
    for (; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}

/* Columns [i, i + 64) of a gather: eight accumulators over all rows. */
static void
gather_64(float *y, const float *rows, size_t stride, const uint32_t *idx,
    const float *w, size_t n_rows)
{
    __m256 s[8];

    for (size_t l = 0; l < 8; l++)
        s[l] = _mm256_loadu_ps(y + 8 * l);
    for (size_t r = 0; r < n_rows; r++) {
        const float *row = rows + (size_t)idx[r] * stride;
        __m256 wr = _mm256_set1_ps(w[r]);

        if (r + 4 < n_rows) {
            const char *ahead =
                (const char *)(rows + (size_t)idx[r + 4] * stride);

            for (size_t line = 0; line < 256; line += 64)
                _mm_prefetch(ahead + line, _MM_HINT_T0);
        }
        for (size_t l = 0; l < 8; l++)
            s[l] = _mm256_fmadd_ps(wr, _mm256_loadu_ps(row + 8 * l), s[l]);
    }
    for (size_t l = 0; l < 8; l++)
        _mm256_storeu_ps(y + 8 * l, s[l]);
}

/* Rows of 64 columns at a time keep the sums in registers; the first sweep
   also asks for the whole of the rows that come. */
static void
gather(float *y, const float *rows, size_t stride, const uint32_t *idx,
    const float *w, size_t n_rows, size_t n)
{
    size_t i = 0;

    for (; i + 64 <= n; i += 64)
        gather_64(y + i, rows + i, stride, idx, w, n_rows);
    if (i < n)
        for (size_t r = 0; r < n_rows; r++)
            axpy(y + i, w[r], rows + (size_t)idx[r] * stride + i, n - i);
}

static void
scale(float *y, float a, size_t n)
{
    __m256 va = _mm256_set1_ps(a);
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(va, _mm256_loadu_ps(y + i)));
    for (; i < n; i++)
        y[i] *= a;
}

static __m256i
round_8(const float *x, __m256 inv_step, __m256 limit)
{
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), inv_step);

    v = _mm256_max_ps(v, _mm256_sub_ps(_mm256_setzero_ps(), limit));
    return _mm256_cvtps_epi32(_mm256_min_ps(v, limit));
}

static void
quantize(int8_t *code, const float *x, float inv_step, int code_max, size_t n,
    size_t n_padded)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256 vs = _mm256_set1_ps(inv_step);
    __m256 limit = _mm256_set1_ps((float)code_max);
    size_t i = 0;

    for (; i + 32 <= n; i += 32) {
        __m256i lo = _mm256_packs_epi32(
            round_8(x + i, vs, limit), round_8(x + i + 8, vs, limit));
        __m256i hi = _mm256_packs_epi32(
            round_8(x + i + 16, vs, limit), round_8(x + i + 24, vs, limit));
        __m256i bytes = _mm256_packs_epi16(lo, hi);

        _mm256_storeu_si256((__m256i *)(void *)(code + i),
            _mm256_permutevar8x32_epi32(bytes, order));
    }
    for (; i < n; i++) {
        float v = x[i] * inv_step;

        v = v > (float)code_max ? (float)code_max : v;
        v = v < -(float)code_max ? -(float)code_max : v;
        code[i] = (int8_t)_mm_cvtss_si32(_mm_set_ss(v));
    }
    if (n_padded > n)
        memset(code + n, 0, n_padded - n);
}

static void
adamw(float *p, const float *g, float *m, float *v, size_t n,
    const struct kern_adamw *opt)
{
    float keep1 = 1.0f - opt->beta1;
    float keep2 = 1.0f - opt->beta2;
    float decay = 1.0f - opt->lr * opt->weight_decay;
    float rate = opt->lr * opt->correct1;
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 gi = _mm256_loadu_ps(g + i);
        __m256 mi = _mm256_mul_ps(_mm256_set1_ps(keep1), gi);
        __m256 vi = _mm256_mul_ps(_mm256_set1_ps(keep2), _mm256_mul_ps(gi, gi));

        mi = _mm256_fmadd_ps(
            _mm256_set1_ps(opt->beta1), _mm256_loadu_ps(m + i), mi);
        vi = _mm256_fmadd_ps(
            _mm256_set1_ps(opt->beta2), _mm256_loadu_ps(v + i), vi);
        _mm256_storeu_ps(m + i, mi);
        _mm256_storeu_ps(v + i, vi);

        __m256 root =
            _mm256_sqrt_ps(_mm256_mul_ps(vi, _mm256_set1_ps(opt->correct2)));
        __m256 step = _mm256_div_ps(_mm256_mul_ps(_mm256_set1_ps(rate), mi),
            _mm256_add_ps(root, _mm256_set1_ps(opt->eps)));

        _mm256_storeu_ps(p + i, _mm256_fmsub_ps(_mm256_set1_ps(decay),
                                    _mm256_loadu_ps(p + i), step));
    }
    for (; i < n; i++) {
        m[i] = opt->beta1 * m[i] + keep1 * g[i];
        v[i] = opt->beta2 * v[i] + keep2 * g[i] * g[i];
        p[i] = decay * p[i] -
               rate * m[i] / (sqrtf(v[i] * opt->correct2) + opt->eps);
    }
}

static void
fetch(const void *p, size_t n)
{
    for (size_t at = 0; at < n; at += 64)
        _mm_prefetch((const char *)p + at, _MM_HINT_T0);
}

/* --- the exponential ------------------------------------------------------ */

/* 2^x for |x| <= 126: the nearest integer goes into the exponent, the rest,
   |f| <= 1/2, into the polynomial of degree 4 with the least largest relative
   error, 2.6e-6 (fitted by reweighted least squares). */
static __m256
exp2_ps(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f); /* 1.5 * 2^23 */
    __m256 t = _mm256_add_ps(x, magic);
    __m256 f = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
    __m256 p = _mm256_set1_ps(9.5701016e-3f);

    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.5917860e-2f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.4024745e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.9312181e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.9999926e-1f));

    __m256i e = _mm256_slli_epi32(_mm256_castps_si256(t), 23);

    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
}

static __m256
clamp_arg(__m256 x)
{
    x = _mm256_max_ps(x, _mm256_set1_ps(-EXP_ARG_MAX * LOG2_E));
    return _mm256_min_ps(x, _mm256_set1_ps(EXP_ARG_MAX * LOG2_E));
}

static float
exp_shift(float *x, float shift, size_t n)
{
    __m256 s0 = _mm256_setzero_ps(), s1 = s0;
    __m256 vs = _mm256_set1_ps(shift);
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        __m256 e0 = exp_shift_8(_mm256_loadu_ps(x + i), vs);
        __m256 e1 = exp_shift_8(_mm256_loadu_ps(x + i + 8), vs);

        _mm256_storeu_ps(x + i, e0);
        _mm256_storeu_ps(x + i + 8, e1);
        s0 = _mm256_add_ps(s0, e0);
        s1 = _mm256_add_ps(s1, e1);
    }
    for (; i < n; i += 8) {
        __m256i m = mask_of(n - i);
        __m256 e = exp_shift_8(_mm256_maskload_ps(x + i, m), vs);

        e = _mm256_and_ps(e, _mm256_castsi256_ps(m));
        _mm256_maskstore_ps(x + i, m, e);
        s0 = _mm256_add_ps(s0, e);
    }
    return sum_ps(_mm256_add_ps(s0, s1));
}

/* --- the scan ------------------------------------------------------------- */

#define Q_TILE 5

/* One block of 16 rows by q queries: inlined with q constant, so that the
   arrays are registers. A cache line of `ahead` is fetched for each of the
   block, unless that is NULL. */
static inline __attribute__((always_inline)) void
scan_tile(int32_t *out, size_t out_stride, const uint8_t *block,
    const uint8_t *ahead, const uint8_t *queries, size_t query_stride, size_t n,
    const size_t q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i wide[Q_TILE][2];

    for (size_t k = 0; k < q; k++)
        wide[k][0] = wide[k][1] = _mm256_setzero_si256();

    for (size_t seg = 0; seg < n; seg += KERN_SEG_DIMS) {
        size_t end = seg + KERN_SEG_DIMS < n ? seg + KERN_SEG_DIMS : n;
        __m256i acc[Q_TILE][2];

        for (size_t k = 0; k < q; k++) {
            acc[k][0] = acc[k][1] = broadcast_4(
                queries + k * query_stride + n + 4 + seg / KERN_SEG_DIMS * 4);
        }
        for (size_t d = seg; d < end; d += KERN_CODE_ALIGN) {
#pragma GCC unroll 4
            for (size_t e = 0; e < KERN_CODE_ALIGN; e += 4) {
                __m256i r0 = load_si(block + (d + e) * KERN_BLOCK_ROWS);
                __m256i r1 = load_si(block + (d + e) * KERN_BLOCK_ROWS + 32);

                if (ahead != NULL)
                    _mm_prefetch(
                        (const char *)ahead + (d + e) * KERN_BLOCK_ROWS,
                        _MM_HINT_T0);

                for (size_t k = 0; k < q; k++) {
                    __m256i v = broadcast_4(queries + k * query_stride + d + e);

                    ADD_16(acc[k][0], _mm256_maddubs_epi16(r0, v));
                    ADD_16(acc[k][1], _mm256_maddubs_epi16(r1, v));
                }
            }
        }
        for (size_t k = 0; k < q; k++) {
            for (size_t h = 0; h < 2; h++) {
                wide[k][h] = _mm256_add_epi32(
                    wide[k][h], _mm256_madd_epi16(acc[k][h], ones));
            }
        }
    }
    for (size_t k = 0; k < q; k++) {
        int32_t *dst = out + k * out_stride;

        _mm256_storeu_si256((__m256i *)(void *)dst, wide[k][0]);
        _mm256_storeu_si256((__m256i *)(void *)(dst + 8), wide[k][1]);
    }
}

static void
scan_some(int32_t *out, size_t out_stride, const uint8_t *block,
    const uint8_t *ahead, const uint8_t *queries, size_t stride, size_t n,
    size_t q)
{
    switch (q) {
    case 5:
        if (ahead == NULL)
            scan_tile(out, out_stride, block, NULL, queries, stride, n, 5);
        else
            scan_tile(out, out_stride, block, ahead, queries, stride, n, 5);
        break;
    case 4:
        scan_tile(out, out_stride, block, ahead, queries, stride, n, 4);
        break;
    case 3:
        scan_tile(out, out_stride, block, ahead, queries, stride, n, 3);
        break;
    case 2:
        scan_tile(out, out_stride, block, ahead, queries, stride, n, 2);
        break;
    default:
        scan_tile(out, out_stride, block, ahead, queries, stride, n, 1);
    }
}

static void
scan(int32_t *out, size_t out_stride, const uint8_t *blocks, size_t n_blocks,
    const uint8_t *queries, size_t n_queries, size_t n)
{
    size_t stride = KERN_QUERY_BYTES(n);

    for (size_t b = 0; b < n_blocks && n > 0; b++) {
        const uint8_t *block = blocks + b * n * KERN_BLOCK_ROWS;
        const uint8_t *query = queries;
        int32_t *dst = out + b * KERN_BLOCK_ROWS;
        size_t left = n_queries;

        while (left > 0) {
            /* 6 to 9 are two halves rather than five and a small rest */
            size_t q = left >= 2 * Q_TILE ? Q_TILE
                       : left > Q_TILE    ? (left + 1) / 2
                                          : left;
            /* the first queries meet the block as it comes from afar, and
               send for the next one */
            const uint8_t *ahead = left == n_queries && b + 1 < n_blocks
                                       ? block + n * KERN_BLOCK_ROWS
                                       : NULL;

            scan_some(dst, out_stride, block, ahead, query, stride, n, q);
            query += q * stride;
            dst += q * out_stride;
            left -= q;
        }
    }
}

/* The argument of the power of two, and whether the row is listed, come from
   dots * scale with the query's part folded into the constants. */
struct select_constants {
    __m256 threshold;
    __m256 mul;
    __m256 add;
};

static __m256
select_term(__m256 v, const struct select_constants *c)
{
    return exp2_ps(clamp_arg(_mm256_fmadd_ps(v, c->mul, c->add)));
}

static __m256
select_value(const int32_t *dots, const float *row_scale)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_loadu_si256(
                             (const __m256i *)(const void *)dots)),
        _mm256_loadu_ps(row_scale));
}

/* Append the rows of v, the first being r, that reach the threshold. */
static size_t
list_rows(uint32_t *rows, size_t n_rows, size_t r, __m256 v, __m256 threshold,
    __m256 in)
{
    unsigned bits = (unsigned)_mm256_movemask_ps(
        _mm256_and_ps(in, _mm256_cmp_ps(v, threshold, _CMP_GE_OQ)));

    for (; bits != 0; bits &= bits - 1)
        rows[n_rows++] = (uint32_t)r + (uint32_t)__builtin_ctz(bits);
    return n_rows;
}

/* The whole vectors of a span, 32 rows at a time, then by 8; the rest is the
   caller's. part: float sums of at most 512 rows, 64 to a lane. */
static inline __attribute__((always_inline)) size_t
select_part(uint32_t *rows, size_t n_rows, __m256 *part, const int32_t *dots,
    const float *row_scale, size_t from, size_t to,
    const struct select_constants *c, const int want_sum)
{
    const __m256 all = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    __m256 s0 = _mm256_setzero_ps(), s1 = s0;
    size_t r = from;

    for (; r + 32 <= to; r += 32) {
        __m256 v0 = select_value(dots + r, row_scale + r);
        __m256 v1 = select_value(dots + r + 8, row_scale + r + 8);
        __m256 v2 = select_value(dots + r + 16, row_scale + r + 16);
        __m256 v3 = select_value(dots + r + 24, row_scale + r + 24);
        __m256 top =
            _mm256_max_ps(_mm256_max_ps(v0, v1), _mm256_max_ps(v2, v3));

        if (_mm256_movemask_ps(_mm256_cmp_ps(top, c->threshold, _CMP_GE_OQ)) !=
            0) {
            n_rows = list_rows(rows, n_rows, r, v0, c->threshold, all);
            n_rows = list_rows(rows, n_rows, r + 8, v1, c->threshold, all);
            n_rows = list_rows(rows, n_rows, r + 16, v2, c->threshold, all);
            n_rows = list_rows(rows, n_rows, r + 24, v3, c->threshold, all);
        }
        if (want_sum) {
            s0 = _mm256_add_ps(s0, select_term(v0, c));
            s1 = _mm256_add_ps(s1, select_term(v1, c));
            s0 = _mm256_add_ps(s0, select_term(v2, c));
            s1 = _mm256_add_ps(s1, select_term(v3, c));
        }
    }
    for (; r < to; r += 8) {
        __m256i m = mask_of(to - r < 8 ? to - r : 8);
        __m256 in = _mm256_castsi256_ps(m);
        __m256 v = _mm256_mul_ps(
            _mm256_cvtepi32_ps(_mm256_maskload_epi32((const int *)dots + r, m)),
            _mm256_maskload_ps(row_scale + r, m));

        n_rows = list_rows(rows, n_rows, r, v, c->threshold, in);
        if (want_sum)
            s0 = _mm256_add_ps(s0, _mm256_and_ps(in, select_term(v, c)));
    }
    *part = _mm256_add_ps(s0, s1);
    return n_rows;
}

static size_t
select_rows(uint32_t *rows, double *sum, const int32_t *dots,
    const float *row_scale, size_t n, const struct kern_select *opt)
{
    float mul = opt->inv_temperature * LOG2_E;
    float none = opt->threshold > 0.0f ? INFINITY : -INFINITY;
    struct select_constants c = {
        .threshold = _mm256_set1_ps(
            opt->q_scale > 0.0f ? opt->threshold / opt->q_scale : none),
        .mul = _mm256_set1_ps(opt->q_scale * mul),
        .add = _mm256_set1_ps(-opt->shift * mul)};
    __m256d total = _mm256_setzero_pd();
    size_t n_rows = 0;
    __m256 part;

    if (!(opt->inv_temperature > 0.0f))
        return select_part(rows, 0, &part, dots, row_scale, 0, n, &c, 0);
    for (size_t r = 0; r < n; r += 512) {
        n_rows = select_part(rows, n_rows, &part, dots, row_scale, r,
            n - r > 512 ? r + 512 : n, &c, 1);
        total = _mm256_add_pd(
            total, _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(part)),
                       _mm256_cvtps_pd(_mm256_extractf128_ps(part, 1))));
    }
    *sum = sum_pd(total);
    return n_rows;
}

const struct kern kern_avx2 = {
    .name = "avx2",
    .query_max = 64,
    .query_norm = 146,
    .row_norm = 224,
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
    .product = product_avx2,
    .product_bf16 = product_bf16_avx2,
    .code_row = code_row_avx2,
    .product_codes = product_codes_avx2,
    .softmax = softmax_avx2,
    .softmax_grad = softmax_grad_avx2,
    .activate = activate_avx2,
    .activate_grad = activate_grad_avx2,
    .layernorm = layernorm_avx2,
    .layernorm_grad = layernorm_grad_avx2,
};

#endif
