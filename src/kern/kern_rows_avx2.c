/*
 * kern_rows_avx2.c - what normalisation does with a map, for AVX2 and FMA.
 *
 * A map of 8 channels is a run of vectors, one of 16 channels a run in which
 * two kinds alternate. All loops here go two vectors at a time, so that an even
 * vector always meets the constants and the sums of the even kind; with 8
 * channels both kinds are the same and their sums are added at the end.
 */
#include "kern/tables.h"

#ifdef __AVX2__

#include <immintrin.h>
#include <math.h>

#define LANES 8

/* The second kind's constants: lanes 8 to 15 of 16, or those of 8 again. */
static __m256
second(const float *p, size_t b)
{
    return _mm256_loadu_ps(b == 16 ? p + LANES : p);
}

static void
store_sums(float *out, __m256 even, __m256 odd, size_t b)
{
    if (b == 16) {
        _mm256_storeu_ps(out, even);
        _mm256_storeu_ps(out + LANES, odd);
    } else {
        _mm256_storeu_ps(out, _mm256_add_ps(even, odd));
    }
}

void
rows_moments_avx2(float *sum, float *square, const float *x, float shift,
    size_t n_rows, size_t b)
{
    const __m256 mean = _mm256_set1_ps(shift);
    __m256 s[4], q[4];
    size_t n = n_rows * b, i = 0;

    for (size_t k = 0; k < 4; k++)
        s[k] = q[k] = _mm256_setzero_ps();
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (size_t k = 0; k < 4; k++) {
            __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i + k * LANES), mean);

            s[k] = _mm256_add_ps(s[k], v);
            q[k] = _mm256_fmadd_ps(v, v, q[k]);
        }
    for (size_t k = 0; i < n; i += LANES, k = (k + 1) % 2) {
        __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), mean);

        s[k] = _mm256_add_ps(s[k], v);
        q[k] = _mm256_fmadd_ps(v, v, q[k]);
    }
    store_sums(sum, _mm256_add_ps(s[0], s[2]), _mm256_add_ps(s[1], s[3]), b);
    store_sums(square, _mm256_add_ps(q[0], q[2]), _mm256_add_ps(q[1], q[3]), b);
}

void
rows_affine_avx2(float *y, const float *x, const float *residual,
    const float *scale, const float *add, int relu, size_t n_rows, size_t b)
{
    const __m256 s[2] = {_mm256_loadu_ps(scale), second(scale, b)};
    const __m256 a[2] = {_mm256_loadu_ps(add), second(add, b)};
    const __m256 floor = relu ? _mm256_setzero_ps() : _mm256_set1_ps(-INFINITY);
    size_t n = n_rows * b, i = 0;

    if (residual != NULL) {
        for (; i + 2 * LANES <= n; i += 2 * LANES)
            for (size_t k = 0; k < 2; k++) {
                size_t at = i + k * LANES;
                __m256 v = _mm256_add_ps(
                    _mm256_fmadd_ps(s[k], _mm256_loadu_ps(x + at), a[k]),
                    _mm256_loadu_ps(residual + at));

                _mm256_storeu_ps(y + at, _mm256_max_ps(floor, v));
            }
        if (i < n) {
            __m256 v = _mm256_add_ps(
                _mm256_fmadd_ps(s[0], _mm256_loadu_ps(x + i), a[0]),
                _mm256_loadu_ps(residual + i));

            _mm256_storeu_ps(y + i, _mm256_max_ps(floor, v));
        }
        return;
    }
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (size_t k = 0; k < 2; k++) {
            size_t at = i + k * LANES;
            __m256 v = _mm256_fmadd_ps(s[k], _mm256_loadu_ps(x + at), a[k]);

            _mm256_storeu_ps(y + at, _mm256_max_ps(floor, v));
        }
    if (i < n) {
        __m256 v = _mm256_fmadd_ps(s[0], _mm256_loadu_ps(x + i), a[0]);

        _mm256_storeu_ps(y + i, _mm256_max_ps(floor, v));
    }
}

/* dy where y > 0, put back, and its two sums. */
static inline void
grad_sums_step(__m256 *sum, __m256 *sum_x, float *dy, const float *y,
    const float *x, __m256 mean)
{
    __m256 d = _mm256_loadu_ps(dy);

    if (y != NULL) {
        d = _mm256_and_ps(d,
            _mm256_cmp_ps(_mm256_loadu_ps(y), _mm256_setzero_ps(), _CMP_GT_OQ));
        _mm256_storeu_ps(dy, d);
    }
    *sum = _mm256_add_ps(*sum, d);
    *sum_x =
        _mm256_fmadd_ps(d, _mm256_sub_ps(_mm256_loadu_ps(x), mean), *sum_x);
}

static inline void
grad_sums(float *sum, float *sum_x, float *dy, const float *y, const float *x,
    float shift, size_t n, size_t b, int masked)
{
    const __m256 mean = _mm256_set1_ps(shift);
    __m256 s[4], q[4];
    size_t i = 0;

    for (size_t k = 0; k < 4; k++)
        s[k] = q[k] = _mm256_setzero_ps();
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (size_t k = 0; k < 4; k++)
            grad_sums_step(&s[k], &q[k], dy + i + k * LANES,
                masked ? y + i + k * LANES : NULL, x + i + k * LANES, mean);
    for (size_t k = 0; i < n; i += LANES, k = (k + 1) % 2)
        grad_sums_step(
            &s[k], &q[k], dy + i, masked ? y + i : NULL, x + i, mean);
    store_sums(sum, _mm256_add_ps(s[0], s[2]), _mm256_add_ps(s[1], s[3]), b);
    store_sums(sum_x, _mm256_add_ps(q[0], q[2]), _mm256_add_ps(q[1], q[3]), b);
}

void
rows_grad_sums_avx2(float *sum, float *sum_x, float *dy, const float *y,
    const float *x, float shift, size_t n_rows, size_t b)
{
    if (y != NULL)
        grad_sums(sum, sum_x, dy, y, x, shift, n_rows * b, b, 1);
    else
        grad_sums(sum, sum_x, dy, y, x, shift, n_rows * b, b, 0);
}

void
rows_grad_avx2(float *dx, const float *dy, const float *x, const float *scale,
    float slope, float add, size_t n_rows, size_t b)
{
    const __m256 s[2] = {_mm256_loadu_ps(scale), second(scale, b)};
    const __m256 m = _mm256_set1_ps(slope), a = _mm256_set1_ps(add);
    size_t n = n_rows * b, i = 0;

    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (size_t k = 0; k < 2; k++) {
            size_t at = i + k * LANES;
            __m256 v = _mm256_fmadd_ps(m, _mm256_loadu_ps(x + at), a);

            _mm256_storeu_ps(
                dx + at, _mm256_fmadd_ps(s[k], _mm256_loadu_ps(dy + at), v));
        }
    if (i < n) {
        __m256 v = _mm256_fmadd_ps(m, _mm256_loadu_ps(x + i), a);

        _mm256_storeu_ps(
            dx + i, _mm256_fmadd_ps(s[0], _mm256_loadu_ps(dy + i), v));
    }
}

#endif
