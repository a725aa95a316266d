/*
 * kern_product_avx512.c - the matrix products for AVX-512: a tile of twelve
 * rows by two panels in 24 registers; a step of k (of codes: four, by vpdpbusd)
 * is two loads and twelve broadcasts for 24 multiply-adds.
 */
#include "kern/tables.h"

#ifdef __AVX512F__

#include <immintrin.h>
#include <string.h>

#define TILE 12
#define PANELS 2

/* m rows by w panels: inlined with both constant, so that s are registers. */
static inline __attribute__((always_inline)) void
tile(float *C, const float *A, const float *B, const struct kern_product *p,
    const size_t m, const size_t w)
{
    __m512 s[TILE][PANELS];
    size_t a_row = p->a_row, a_col = p->a_col, b_row = p->b_row;

    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < w; j++)
            s[i][j] = p->add ? _mm512_loadu_ps(C + i * p->ldc + j * KERN_PANEL)
                             : _mm512_setzero_ps();
    for (size_t k = p->K; k > 0; k--, A += a_col, B += b_row) {
        __m512 b[PANELS];

        for (size_t j = 0; j < w; j++)
            b[j] = _mm512_loadu_ps(B + j * p->b_panel);
        for (size_t i = 0; i < m; i++) {
            __m512 a = _mm512_set1_ps(A[i * a_row]);

            for (size_t j = 0; j < w; j++)
                s[i][j] = _mm512_fmadd_ps(a, b[j], s[i][j]);
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < w; j++)
            _mm512_storeu_ps(C + i * p->ldc + j * KERN_PANEL, s[i][j]);
}

/* All rows by w panels. */
static inline __attribute__((always_inline)) void
columns(float *C, const float *A, const float *B, const struct kern_product *p,
    const size_t w)
{
    size_t i = 0;

    for (; i + TILE <= p->M; i += TILE)
        tile(C + i * p->ldc, A + i * p->a_row, B, p, TILE, w);
    for (; i + 4 <= p->M; i += 4)
        tile(C + i * p->ldc, A + i * p->a_row, B, p, 4, w);
    for (; i < p->M; i++)
        tile(C + i * p->ldc, A + i * p->a_row, B, p, 1, w);
}

void
product_avx512(
    float *C, const float *A, const float *B, const struct kern_product *p)
{
    size_t j = 0;

    for (; j + PANELS * KERN_PANEL <= p->N; j += PANELS * KERN_PANEL)
        columns(C + j, A, B + j / KERN_PANEL * p->b_panel, p, PANELS);
    if (j < p->N)
        columns(C + j, A, B + j / KERN_PANEL * p->b_panel, p, 1);
}

/* --- weights in bfloat16 -------------------------------------------------- */

/* m rows by one panel of pairs: a float's upper half is a bfloat16, so the pair
   is taken apart by a shift and a mask. */
static inline __attribute__((always_inline)) void
tile_bf16(float *C, const float *A, const uint16_t *B,
    const struct kern_product *p, const size_t m)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    __m512 s[TILE];

    for (size_t i = 0; i < m; i++)
        s[i] = p->add ? _mm512_loadu_ps(C + i * p->ldc) : _mm512_setzero_ps();
    for (size_t k = p->K; k > 0; k -= 2, A += 2, B += 2 * KERN_PANEL) {
        __m512i pair = _mm512_loadu_si512(B);
        __m512 b0 = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
        __m512 b1 = _mm512_castsi512_ps(_mm512_and_si512(pair, upper));

        for (size_t i = 0; i < m; i++) {
            const float *a = A + i * p->a_row;

            s[i] = _mm512_fmadd_ps(_mm512_set1_ps(*a), b0, s[i]);
            s[i] = _mm512_fmadd_ps(_mm512_set1_ps(a[1]), b1, s[i]);
        }
    }
    for (size_t i = 0; i < m; i++)
        _mm512_storeu_ps(C + i * p->ldc, s[i]);
}

void
product_bf16_avx512(
    float *C, const float *A, const uint16_t *B, const struct kern_product *p)
{
    for (size_t j = 0; j < p->N; j += KERN_PANEL, B += p->b_panel) {
        size_t i = 0;

        for (; i + TILE <= p->M; i += TILE)
            tile_bf16(C + i * p->ldc + j, A + i * p->a_row, B, p, TILE);
        for (; i + 4 <= p->M; i += 4)
            tile_bf16(C + i * p->ldc + j, A + i * p->a_row, B, p, 4);
        for (; i < p->M; i++)
            tile_bf16(C + i * p->ldc + j, A + i * p->a_row, B, p, 1);
    }
}

/* --- codes ---------------------------------------------------------------- */

static int32_t
load_4(const uint8_t *p)
{
    int32_t v;

    memcpy(&v, p, 4);
    return v;
}

static inline __attribute__((always_inline)) void
tile_codes(float *C, const uint8_t *A, const uint8_t *B,
    const float *column_step, const struct kern_codes *p, const size_t m,
    const size_t w)
{
    __m512i s[TILE][PANELS];
    size_t stride = KERN_ROW_BYTES(p->K), panel = p->K * KERN_PANEL;

    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < w; j++)
            s[i][j] = _mm512_set1_epi32(load_4(A + i * stride + p->K + 4));
    for (size_t k = p->K; k > 0; k -= 4, A += 4, B += 4 * KERN_PANEL) {
        __m512i b[PANELS];

        for (size_t j = 0; j < w; j++)
            b[j] = _mm512_loadu_si512(B + j * panel);
        for (size_t i = 0; i < m; i++) {
            __m512i a = _mm512_set1_epi32(load_4(A + i * stride));

            for (size_t j = 0; j < w; j++)
                s[i][j] = _mm512_dpbusd_epi32(s[i][j], b[j], a);
        }
    }
    for (size_t i = 0; i < m; i++) {
        __m512 step =
            _mm512_castsi512_ps(_mm512_set1_epi32(load_4(A + i * stride)));

        for (size_t j = 0; j < w; j++)
            _mm512_storeu_ps(C + i * p->ldc + j * KERN_PANEL,
                _mm512_mul_ps(_mm512_cvtepi32_ps(s[i][j]),
                    _mm512_mul_ps(
                        step, _mm512_loadu_ps(column_step + j * KERN_PANEL))));
    }
}

static inline __attribute__((always_inline)) void
columns_codes(float *C, const uint8_t *A, const uint8_t *B, const float *step,
    const struct kern_codes *p, const size_t w)
{
    size_t i = 0, stride = KERN_ROW_BYTES(p->K);

    for (; i + TILE <= p->M; i += TILE)
        tile_codes(C + i * p->ldc, A + i * stride, B, step, p, TILE, w);
    for (; i + 4 <= p->M; i += 4)
        tile_codes(C + i * p->ldc, A + i * stride, B, step, p, 4, w);
    for (; i < p->M; i++)
        tile_codes(C + i * p->ldc, A + i * stride, B, step, p, 1, w);
}

void
product_codes_avx512(
    float *C, const uint8_t *A, const uint8_t *B, const struct kern_codes *p)
{
    size_t j = 0;

    for (; j + PANELS * KERN_PANEL <= p->N; j += PANELS * KERN_PANEL)
        columns_codes(C + j, A, B + j * p->K, p->step + j, p, PANELS);
    if (j < p->N)
        columns_codes(C + j, A, B + j * p->K, p->step + j, p, 1);
}

#endif
