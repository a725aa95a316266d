/*
 * kern_product_avx512.c - the matrix product for AVX-512: a tile of twelve rows
 * by two panels in 24 registers; a step of k is two loads and twelve
 * broadcasts for 24 multiply-adds.
 */
#include "kern/tables.h"

#ifdef __AVX512F__

#include <immintrin.h>

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

#endif
