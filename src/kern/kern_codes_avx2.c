/*
 * kern_codes_avx2.c - products of integer codes for AVX2.
 *
 * vpmaddubsw multiplies 32 bytes and adds them by twos in 16 bits; the products
 * of a strip (kern.h) are added there, and widened once a segment. So a step of
 * four dims is two instructions for 32 products, and one in eight more: 2.5
 * times the products of f32, measured. Widening each step is 2.0 times, and
 * multiplying in 16 bits by vpmaddwd 1.6; they need no strips.
 */
#include "kern/tables.h"

#ifdef __AVX2__

#include <immintrin.h>
#include <string.h>

#include "kern/kern_codes_avx2.h"

#define LANES 8
#define TILE 6
#define STEP 4 /* dims */

/* --- rows ----------------------------------------------------------------- */

/* Eight rounded codes; *far is set where one is too large, or no number. */
static __m256i
code_8(const float *x, __m256 inv_step, __m256 *far)
{
    const __m256 top = _mm256_set1_ps(127.0f), sign = _mm256_set1_ps(-0.0f);
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), inv_step);

    *far = _mm256_or_ps(*far, _mm256_cmp_ps(_mm256_andnot_ps(sign, v),
                                  _mm256_set1_ps(128.0f), _CMP_NLE_UQ));
    v = _mm256_max_ps(v, _mm256_xor_ps(top, sign));
    return _mm256_cvtps_epi32(_mm256_min_ps(v, top));
}

/* Sixteen codes as 16 bits, in order. */
static __m256i
code_16(const float *x, __m256 inv_step, __m256 *far)
{
    __m256i v = _mm256_packs_epi32(
        code_8(x, inv_step, far), code_8(x + LANES, inv_step, far));

    return _mm256_permute4x64_epi64(v, 0xd8);
}

int32_t
code_row_avx2(uint8_t *row, const float *x, float inv_step, size_t n)
{
    const __m256 inv = _mm256_set1_ps(inv_step);
    __m256 far = _mm256_setzero_ps();
    __m128i most = _mm_setzero_si128(), total = most;
    uint8_t *less = row + n + 8;

    for (size_t k = 0; k < n; k += KERN_STRIP_DIMS, less += 4) {
        __m256i a = code_16(x + k, inv, &far), b = _mm256_setzero_si256();

        if (n - k > KERN_PANEL)
            b = code_16(x + k + KERN_PANEL, inv, &far);

        __m256i bytes =
            _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);

        if (n - k > KERN_PANEL)
            _mm256_storeu_si256((__m256i *)(void *)(row + k), bytes);
        else
            _mm_storeu_si128(
                (__m128i *)(void *)(row + k), _mm256_castsi256_si128(bytes));

        /* pairs of codes: the strips take turns in the lanes of 32 bits */
        __m256i pairs =
            _mm256_add_epi32(_mm256_madd_epi16(a, a), _mm256_madd_epi16(b, b));
        __m128i s = _mm_add_epi32(
            _mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));

        most =
            _mm_max_epi32(most, _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e)));

        /* and in the halves of those here */
        pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
        s = _mm_add_epi16(
            _mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
        total = _mm_add_epi32(total, _mm_madd_epi16(s, _mm_set1_epi16(1)));
        s = _mm_add_epi16(s, _mm_shuffle_epi32(s, 0x4e));
        s = _mm_add_epi16(s, _mm_shuffle_epi32(s, 0xb1));
        s = _mm_mullo_epi16(s, _mm_set1_epi16(-KERN_WEIGHT_MAX));

        int32_t both = _mm_cvtsi128_si32(s);

        memcpy(less, &both, 4);
    }
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
    most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0xb1));

    int32_t all = -KERN_WEIGHT_MAX * _mm_cvtsi128_si32(total);

    memcpy(row + n + 4, &all, 4);
    return _mm256_movemask_ps(far) != 0 ? -1 : _mm_cvtsi128_si32(most);
}

/* --- the product ---------------------------------------------------------- */

/* m rows by one panel: inlined with m constant, so that acc are registers. */
static inline __attribute__((always_inline)) void
tile(float *C, const uint8_t *A, const uint8_t *B, const float *column_step,
    const struct kern_codes *p, const size_t m)
{
    const __m256i ones = _mm256_set1_epi16(1);
    size_t stride = KERN_ROW_BYTES(p->K);
    const uint8_t *less = A + p->K + 8;
    __m256i wide[TILE][2];

    for (size_t i = 0; i < m; i++)
        wide[i][0] = wide[i][1] = _mm256_setzero_si256();
    for (size_t left = p->K, n; left > 0; left -= n, less += 4) {
        __m256i acc[TILE][2];

        n = left < KERN_STRIP_DIMS ? left : KERN_STRIP_DIMS;
        for (size_t i = 0; i < m; i++)
            acc[i][0] = acc[i][1] = broadcast_4(less + i * stride);
        for (size_t k = 0; k < n; k += KERN_PANEL) {
#pragma GCC unroll 4
            for (size_t e = 0; e < KERN_PANEL; e += STEP) {
                __m256i b0 = load_si(B), b1 = load_si(B + STEP * LANES);

                for (size_t i = 0; i < m; i++) {
                    __m256i a = broadcast_4(A + i * stride);

                    ADD_16(acc[i][0], _mm256_maddubs_epi16(b0, a));
                    ADD_16(acc[i][1], _mm256_maddubs_epi16(b1, a));
                }
                A += STEP;
                B += STEP * KERN_PANEL;
            }
        }
        for (size_t i = 0; i < m; i++)
            for (size_t h = 0; h < 2; h++)
                wide[i][h] = _mm256_add_epi32(
                    wide[i][h], _mm256_madd_epi16(acc[i][h], ones));
    }
    for (size_t i = 0; i < m; i++) {
        __m256 step = _mm256_castsi256_ps(broadcast_4(A + i * stride));

        for (size_t h = 0; h < 2; h++)
            _mm256_storeu_ps(C + i * p->ldc + h * LANES,
                _mm256_mul_ps(_mm256_cvtepi32_ps(wide[i][h]),
                    _mm256_mul_ps(
                        step, _mm256_loadu_ps(column_step + h * LANES))));
    }
}

void
product_codes_avx2(
    float *C, const uint8_t *A, const uint8_t *B, const struct kern_codes *p)
{
    size_t stride = KERN_ROW_BYTES(p->K);

    for (size_t j = 0; j < p->N; j += KERN_PANEL, B += p->K * KERN_PANEL) {
        const float *step = p->step + j;
        size_t i = 0;

        for (; i + TILE <= p->M; i += TILE)
            tile(C + i * p->ldc + j, A + i * stride, B, step, p, TILE);

        float *c = C + i * p->ldc + j;
        const uint8_t *a = A + i * stride;

        switch (p->M - i) {
        case 1:
            tile(c, a, B, step, p, 1);
            break;
        case 2:
            tile(c, a, B, step, p, 2);
            break;
        case 3:
            tile(c, a, B, step, p, 3);
            break;
        case 4:
            tile(c, a, B, step, p, 4);
            break;
        case 5:
            tile(c, a, B, step, p, 5);
            break;
        default:
            break;
        }
    }
}

#endif
