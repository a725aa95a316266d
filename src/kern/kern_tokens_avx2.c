/*
 * kern_tokens_avx2.c - what a transformer does between and in its matrix
 * products, for AVX2 and FMA. All but the product serve the AVX-512 table too:
 * they are bound by memory, and a few hundredths of the whole.
 *
 * The product holds a tile of six rows by one panel of 16 columns in twelve
 * registers; a step of k is two loads, six broadcasts and twelve multiply-adds.
 * The panel (K * 64 bytes) stays in the first cache while all rows pass by it.
 */
#include "kern/tables.h"

#ifdef __AVX2__

#include <immintrin.h>
#include <math.h>

#include "kern/kern_exp_avx2.h"

#define LANES 8
#define TILE 6

static float
sum_ps(__m256 v)
{
    __m128 s =
        _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static float
max_ps(__m256 v)
{
    __m128 m =
        _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Lanes below n of 8: all ones. */
static __m256i
mask_of(size_t n)
{
    return _mm256_cmpgt_epi32(
        _mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* --- the product ---------------------------------------------------------- */

/* m rows by one panel: inlined with m constant, so that s are registers. */
static inline __attribute__((always_inline)) void
tile(float *C, const float *A, const float *B, const struct kern_product *p,
    const size_t m)
{
    __m256 s[TILE][2];
    size_t a_row = p->a_row, a_col = p->a_col, b_row = p->b_row;

    for (size_t i = 0; i < m; i++) {
        s[i][0] = s[i][1] = _mm256_setzero_ps();
        if (p->add) {
            s[i][0] = _mm256_loadu_ps(C + i * p->ldc);
            s[i][1] = _mm256_loadu_ps(C + i * p->ldc + LANES);
        }
    }
    for (size_t k = p->K; k > 0; k--, A += a_col, B += b_row) {
        __m256 b0 = _mm256_loadu_ps(B), b1 = _mm256_loadu_ps(B + LANES);

        for (size_t i = 0; i < m; i++) {
            __m256 a = _mm256_broadcast_ss(A + i * a_row);

            s[i][0] = _mm256_fmadd_ps(a, b0, s[i][0]);
            s[i][1] = _mm256_fmadd_ps(a, b1, s[i][1]);
        }
    }
    for (size_t i = 0; i < m; i++) {
        _mm256_storeu_ps(C + i * p->ldc, s[i][0]);
        _mm256_storeu_ps(C + i * p->ldc + LANES, s[i][1]);
    }
}

void
product_avx2(
    float *C, const float *A, const float *B, const struct kern_product *p)
{
    for (size_t j = 0; j < p->N; j += KERN_PANEL, B += p->b_panel) {
        size_t i = 0;

        for (; i + TILE <= p->M; i += TILE)
            tile(C + i * p->ldc + j, A + i * p->a_row, B, p, TILE);

        float *c = C + i * p->ldc + j;
        const float *a = A + i * p->a_row;

        switch (p->M - i) {
        case 1:
            tile(c, a, B, p, 1);
            break;
        case 2:
            tile(c, a, B, p, 2);
            break;
        case 3:
            tile(c, a, B, p, 3);
            break;
        case 4:
            tile(c, a, B, p, 4);
            break;
        case 5:
            tile(c, a, B, p, 5);
            break;
        default:
            break;
        }
    }
}

/* acc += a b, spelt out: from intrinsics gcc 12 begins the second half of a
   pair before the first is done, and spills it. */
#define FMA(acc, a, b)                                                         \
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b))

/* m rows by one panel of pairs: a float's upper half is a bfloat16, so the pair
   is taken apart by a shift and a mask. */
static inline __attribute__((always_inline)) void
tile_bf16(float *C, const float *A, const uint16_t *B,
    const struct kern_product *p, const size_t m)
{
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    __m256 s[TILE][2];
    size_t a_row = p->a_row;

    for (size_t i = 0; i < m; i++) {
        s[i][0] = s[i][1] = _mm256_setzero_ps();
        if (p->add) {
            s[i][0] = _mm256_loadu_ps(C + i * p->ldc);
            s[i][1] = _mm256_loadu_ps(C + i * p->ldc + LANES);
        }
    }
    for (size_t k = p->K; k > 0; k -= 2, A += 2, B += 2 * KERN_PANEL) {
        __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)B);
        __m256i w1 =
            _mm256_loadu_si256((const __m256i *)(const void *)(B + 2 * LANES));
        __m256 b0 = _mm256_castsi256_ps(_mm256_slli_epi32(w0, 16));
        __m256 b1 = _mm256_castsi256_ps(_mm256_slli_epi32(w1, 16));

        for (size_t i = 0; i < m; i++) {
            __m256 a = _mm256_broadcast_ss(A + i * a_row);

            FMA(s[i][0], a, b0);
            FMA(s[i][1], a, b1);
        }
        b0 = _mm256_castsi256_ps(_mm256_and_si256(w0, upper));
        b1 = _mm256_castsi256_ps(_mm256_and_si256(w1, upper));
        for (size_t i = 0; i < m; i++) {
            __m256 a = _mm256_broadcast_ss(A + i * a_row + 1);

            FMA(s[i][0], a, b0);
            FMA(s[i][1], a, b1);
        }
    }
    for (size_t i = 0; i < m; i++) {
        _mm256_storeu_ps(C + i * p->ldc, s[i][0]);
        _mm256_storeu_ps(C + i * p->ldc + LANES, s[i][1]);
    }
}

void
product_bf16_avx2(
    float *C, const float *A, const uint16_t *B, const struct kern_product *p)
{
    for (size_t j = 0; j < p->N; j += KERN_PANEL, B += p->b_panel) {
        size_t i = 0;

        for (; i + TILE <= p->M; i += TILE)
            tile_bf16(C + i * p->ldc + j, A + i * p->a_row, B, p, TILE);

        float *c = C + i * p->ldc + j;
        const float *a = A + i * p->a_row;

        switch (p->M - i) {
        case 1:
            tile_bf16(c, a, B, p, 1);
            break;
        case 2:
            tile_bf16(c, a, B, p, 2);
            break;
        case 3:
            tile_bf16(c, a, B, p, 3);
            break;
        case 4:
            tile_bf16(c, a, B, p, 4);
            break;
        case 5:
            tile_bf16(c, a, B, p, 5);
            break;
        default:
            break;
        }
    }
}

/* --- softmax -------------------------------------------------------------- */

static void
softmax_row(float *x, float scale, size_t n)
{
    const __m256 v = _mm256_set1_ps(scale), least = _mm256_set1_ps(-INFINITY);
    const __m256i end = mask_of(n % LANES);
    size_t whole = n - n % LANES;
    __m256 top = least, sum = _mm256_setzero_ps(), e = sum;

    for (size_t i = 0; i < whole; i += LANES)
        top = _mm256_max_ps(top, _mm256_mul_ps(v, _mm256_loadu_ps(x + i)));
    if (whole < n)
        top = _mm256_max_ps(
            top, _mm256_blendv_ps(least,
                     _mm256_mul_ps(v, _mm256_maskload_ps(x + whole, end)),
                     _mm256_castsi256_ps(end)));

    const __m256 shift = _mm256_set1_ps(max_ps(top));

    for (size_t i = 0; i < whole; i += LANES) {
        e = exp_shift_8(_mm256_mul_ps(v, _mm256_loadu_ps(x + i)), shift);
        _mm256_storeu_ps(x + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    if (whole < n) {
        e = exp_shift_8(
            _mm256_mul_ps(v, _mm256_maskload_ps(x + whole, end)), shift);
        e = _mm256_and_ps(e, _mm256_castsi256_ps(end));
        sum = _mm256_add_ps(sum, e);
    }

    const __m256 inv = _mm256_set1_ps(1.0f / sum_ps(sum));

    for (size_t i = 0; i < whole; i += LANES)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(inv, _mm256_loadu_ps(x + i)));
    if (whole < n)
        _mm256_maskstore_ps(x + whole, end, _mm256_mul_ps(inv, e));
}

void
softmax_avx2(float *x, size_t ld, float scale, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows; r++)
        softmax_row(x + r * ld, scale, n);
}

void
softmax_grad_avx2(
    float *dp, const float *p, size_t ld, float scale, size_t n_rows, size_t n)
{
    const __m256 v = _mm256_set1_ps(scale);
    const __m256i end = mask_of(n % LANES);
    size_t whole = n - n % LANES;

    for (size_t r = 0; r < n_rows; r++, dp += ld, p += ld) {
        __m256 sum = _mm256_setzero_ps(), last_p = sum, last_dp = sum;

        for (size_t i = 0; i < whole; i += LANES)
            sum = _mm256_fmadd_ps(
                _mm256_loadu_ps(p + i), _mm256_loadu_ps(dp + i), sum);
        if (whole < n) {
            last_p = _mm256_maskload_ps(p + whole, end);
            last_dp = _mm256_maskload_ps(dp + whole, end);
            sum = _mm256_fmadd_ps(last_p, last_dp, sum);
        }

        const __m256 along = _mm256_set1_ps(sum_ps(sum));

        for (size_t i = 0; i < whole; i += LANES)
            _mm256_storeu_ps(
                dp + i, _mm256_mul_ps(_mm256_mul_ps(v, _mm256_loadu_ps(p + i)),
                            _mm256_sub_ps(_mm256_loadu_ps(dp + i), along)));
        if (whole < n)
            _mm256_maskstore_ps(dp + whole, end,
                _mm256_mul_ps(
                    _mm256_mul_ps(v, last_p), _mm256_sub_ps(last_dp, along)));
    }
}

/* --- activations ---------------------------------------------------------- */

/* erf by the rational function of degree 13 / 8 that is usual for floats, its
   argument held within [-4, 4], beyond which erf is 1 but for 2e-8. */
static __m256
erf_ps(__m256 x)
{
    static const float over[] = {2.77068142495902e-08f, -2.10102402082508e-06f,
        -5.69250639462346e-05f, -7.34990630326855e-04f, -2.95459980854025e-03f,
        -1.60960333262415e-02f};
    static const float under[] = {-2.13374055278905e-04f,
        -1.68282697438203e-03f, -7.37332916720468e-03f, -1.42647390514189e-02f};

    x = _mm256_max_ps(x, _mm256_set1_ps(-4.0f));
    x = _mm256_min_ps(x, _mm256_set1_ps(4.0f));

    const __m256 x2 = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(-2.72614225801306e-10f);
    __m256 q = _mm256_set1_ps(-1.45660718464996e-05f);

    for (size_t i = 0; i < sizeof over / sizeof *over; i++)
        p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(over[i]));
    for (size_t i = 0; i < sizeof under / sizeof *under; i++)
        q = _mm256_fmadd_ps(q, x2, _mm256_set1_ps(under[i]));
    return _mm256_div_ps(_mm256_mul_ps(x, p), q);
}

/* The factor that gelu takes of u: Phi(u) by erf, or by tanh, which is
   1 / (1 + e^(-2 inner)). */
static __m256
cdf_erf(__m256 u)
{
    const __m256 half = _mm256_set1_ps(0.5f);

    return _mm256_fmadd_ps(
        half, erf_ps(_mm256_mul_ps(u, _mm256_set1_ps(0.70710678f))), half);
}

#define TANH_SCALE 0.79788456f /* sqrt(2 / pi) */
#define TANH_CUBE 0.044715f

static __m256
cdf_tanh(__m256 u)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 inner =
        _mm256_fmadd_ps(_mm256_mul_ps(u, u), _mm256_set1_ps(TANH_CUBE), one);

    inner =
        _mm256_mul_ps(_mm256_mul_ps(inner, u), _mm256_set1_ps(-2 * TANH_SCALE));
    return _mm256_div_ps(
        one, _mm256_add_ps(one, exp_shift_8(inner, _mm256_setzero_ps())));
}

static inline __attribute__((always_inline)) __m256
act_8(__m256 u, const enum kern_act act)
{
    switch (act) {
    case KERN_ACT_RELU:
        return _mm256_max_ps(u, _mm256_setzero_ps());
    case KERN_ACT_GELU:
        return _mm256_mul_ps(u, cdf_erf(u));
    case KERN_ACT_GELU_TANH:
        return _mm256_mul_ps(u, cdf_tanh(u));
    case KERN_ACT_NONE:
        break;
    }
    return u;
}

/* All rows, inlined with act constant. */
static inline __attribute__((always_inline)) void
activate_by(float *y, float *u, size_t ld, const float *bias,
    const enum kern_act act, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows; r++, y += ld, u += ld)
        for (size_t i = 0; i < n; i += LANES) {
            __m256 v = _mm256_loadu_ps(u + i);

            if (bias != NULL) {
                v = _mm256_add_ps(v, _mm256_loadu_ps(bias + i));
                _mm256_storeu_ps(u + i, v);
            }
            _mm256_storeu_ps(y + i, act_8(v, act));
        }
}

void
activate_avx2(float *y, float *u, size_t ld, const float *bias,
    enum kern_act act, size_t n_rows, size_t n)
{
    switch (act) {
    case KERN_ACT_NONE:
        activate_by(y, u, ld, bias, KERN_ACT_NONE, n_rows, n);
        break;
    case KERN_ACT_RELU:
        activate_by(y, u, ld, bias, KERN_ACT_RELU, n_rows, n);
        break;
    case KERN_ACT_GELU:
        activate_by(y, u, ld, bias, KERN_ACT_GELU, n_rows, n);
        break;
    case KERN_ACT_GELU_TANH:
        activate_by(y, u, ld, bias, KERN_ACT_GELU_TANH, n_rows, n);
        break;
    }
}

/* d gelu = cdf + u phi(u), phi the density */
static __m256
slope_erf(__m256 u, __m256 cdf)
{
    __m256 arg = _mm256_mul_ps(_mm256_mul_ps(u, u), _mm256_set1_ps(-0.5f));
    __m256 phi = _mm256_mul_ps(
        _mm256_set1_ps(0.39894228f), exp_shift_8(arg, _mm256_setzero_ps()));

    return _mm256_fmadd_ps(u, phi, cdf);
}

/* with inner = s (u + c u^3): cdf + u 2 cdf (1 - cdf) s (1 + 3 c u^2) */
static __m256
slope_tanh(__m256 u, __m256 cdf)
{
    const __m256 s = _mm256_set1_ps(2 * TANH_SCALE);
    __m256 rise = _mm256_fmadd_ps(
        _mm256_mul_ps(u, u), _mm256_set1_ps(2 * TANH_SCALE * 3 * TANH_CUBE), s);
    __m256 both = _mm256_fnmadd_ps(cdf, cdf, cdf);

    return _mm256_fmadd_ps(_mm256_mul_ps(u, both), rise, cdf);
}

void
activate_grad_avx2(
    float *du, float *y, const float *u, enum kern_act act, size_t n)
{
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);

    for (size_t i = 0; i < n; i += LANES) {
        __m256 v = _mm256_loadu_ps(u + i), cdf = one, slope = one;

        switch (act) {
        case KERN_ACT_RELU:
            cdf = _mm256_and_ps(one, _mm256_cmp_ps(v, zero, _CMP_GT_OQ));
            slope = cdf;
            break;
        case KERN_ACT_GELU:
            cdf = cdf_erf(v);
            slope = slope_erf(v, cdf);
            break;
        case KERN_ACT_GELU_TANH:
            cdf = cdf_tanh(v);
            slope = slope_tanh(v, cdf);
            break;
        case KERN_ACT_NONE:
            break;
        }
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, cdf));
        _mm256_storeu_ps(du + i, _mm256_mul_ps(slope, _mm256_loadu_ps(du + i)));
    }
}

/* --- layer normalisation -------------------------------------------------- */

/* x += add + add_bias, and the sum of it. */
static float
add_row(float *x, const float *add, const float *add_bias, size_t n)
{
    __m256 s[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};

    for (size_t i = 0; i < n; i += 2 * LANES)
        for (size_t k = 0; k < 2; k++) {
            size_t at = i + k * LANES;
            __m256 v = _mm256_loadu_ps(x + at);

            if (add != NULL)
                v = _mm256_add_ps(v, _mm256_loadu_ps(add + at));
            if (add_bias != NULL)
                v = _mm256_add_ps(v, _mm256_loadu_ps(add_bias + at));
            _mm256_storeu_ps(x + at, v);
            s[k] = _mm256_add_ps(s[k], v);
        }
    return sum_ps(_mm256_add_ps(s[0], s[1]));
}

static float
sum_squares(const float *x, float mean, size_t n)
{
    const __m256 mu = _mm256_set1_ps(mean);
    __m256 s[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};

    for (size_t i = 0; i < n; i += 2 * LANES)
        for (size_t k = 0; k < 2; k++) {
            __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i + k * LANES), mu);

            s[k] = _mm256_fmadd_ps(v, v, s[k]);
        }
    return sum_ps(_mm256_add_ps(s[0], s[1]));
}

void
layernorm_avx2(float *y, float *stats, float *x, const float *add,
    const float *add_bias, const struct kern_norm *norm, size_t n_rows)
{
    size_t n = norm->n;

    for (size_t r = 0; r < n_rows; r++, x += n, y += n) {
        float mean = add_row(x, add != NULL ? add + r * n : NULL, add_bias, n) /
                     (float)n;
        float inv =
            1.0f / sqrtf(sum_squares(x, mean, n) / (float)n + norm->eps);
        const __m256 mu = _mm256_set1_ps(mean), s = _mm256_set1_ps(inv);

        for (size_t i = 0; i < n; i += LANES) {
            __m256 h =
                _mm256_mul_ps(s, _mm256_sub_ps(_mm256_loadu_ps(x + i), mu));

            _mm256_storeu_ps(
                y + i, _mm256_fmadd_ps(h, _mm256_loadu_ps(norm->gain + i),
                           _mm256_loadu_ps(norm->bias + i)));
        }
        if (stats != NULL) {
            stats[2 * r] = mean;
            stats[2 * r + 1] = inv;
        }
    }
}

void
layernorm_grad_avx2(float *dx, float *dgain, float *dbias, const float *dy,
    const float *x, const float *stats, const struct kern_norm *norm,
    size_t n_rows, int add)
{
    size_t n = norm->n;

    for (size_t r = 0; r < n_rows; r++, dx += n, dy += n, x += n) {
        const __m256 mu = _mm256_set1_ps(stats[2 * r]);
        const __m256 inv = _mm256_set1_ps(stats[2 * r + 1]);
        __m256 sum = _mm256_setzero_ps(), along = sum;

        for (size_t i = 0; i < n; i += LANES) {
            __m256 d = _mm256_loadu_ps(dy + i);
            __m256 h =
                _mm256_mul_ps(inv, _mm256_sub_ps(_mm256_loadu_ps(x + i), mu));
            __m256 g = _mm256_mul_ps(d, _mm256_loadu_ps(norm->gain + i));

            sum = _mm256_add_ps(sum, g);
            along = _mm256_fmadd_ps(g, h, along);
            _mm256_storeu_ps(
                dgain + i, _mm256_fmadd_ps(d, h, _mm256_loadu_ps(dgain + i)));
            _mm256_storeu_ps(
                dbias + i, _mm256_add_ps(d, _mm256_loadu_ps(dbias + i)));
        }

        const __m256 m = _mm256_set1_ps(sum_ps(sum) / (float)n);
        const __m256 a = _mm256_set1_ps(sum_ps(along) / (float)n);

        for (size_t i = 0; i < n; i += LANES) {
            __m256 h =
                _mm256_mul_ps(inv, _mm256_sub_ps(_mm256_loadu_ps(x + i), mu));
            __m256 d = _mm256_fmsub_ps(
                _mm256_loadu_ps(dy + i), _mm256_loadu_ps(norm->gain + i), m);

            d = _mm256_mul_ps(inv, _mm256_fnmadd_ps(h, a, d));
            if (add)
                d = _mm256_add_ps(d, _mm256_loadu_ps(dx + i));
            _mm256_storeu_ps(dx + i, d);
        }
    }
}

#endif
