#include "model/transformer_linear.h"

#include <string.h>

#include "base/check.h"
#include "kern/kern.h"

#define INPUT_DEPTH 384 /* steps of a panel that stays in the first cache */

/* A block of dW: so many rows and columns, in steps of so many tokens. Both
   factors of a step are copied and then stay in the second cache; a strip of
   the one and a panel of the other in the first. */
#define BLOCK 384
#define DEPTH 128
#define STRIP 48 /* rows; a multiple of KERN_PANEL and the kernels' tiles */

void
transformer_linear_pack(
    float *packed, const float *W, size_t N, size_t K, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++)
        for (size_t j = 0; j < K; j += KERN_PANEL)
            memcpy(packed + j * N + i * KERN_PANEL, W + i * K + j,
                KERN_PANEL * sizeof *packed);
}

void
transformer_linear_input(float *dX, const float *dY, const float *packed,
    size_t T, size_t N, size_t K, bool add)
{
    struct kern_product p = {.M = T,
        .N = K,
        .ldc = K,
        .a_row = N,
        .a_col = 1,
        .b_row = KERN_PANEL,
        .b_panel = N * KERN_PANEL,
        .add = add};

    for (size_t i = 0; i < N; i += INPUT_DEPTH, p.add = 1) {
        p.K = MIN(N - i, (size_t)INPUT_DEPTH);
        kern()->product(dX, dY + i, packed + i * KERN_PANEL, &p);
    }
}

static size_t
n_blocks(size_t n)
{
    return (n + BLOCK - 1) / BLOCK;
}

size_t
transformer_linear_blocks(size_t N, size_t K)
{
    return n_blocks(N) * n_blocks(K);
}

size_t
transformer_linear_work_floats(void)
{
    return (size_t)2 * DEPTH * BLOCK;
}

/* Columns [0, n) of x [T, ld] in strips of `width`, [T, width] each. */
static void
copy_strips(
    float *to, const float *x, size_t ld, size_t T, size_t n, size_t width)
{
    for (size_t t = 0; t < T; t++, x += ld)
        for (size_t i = 0; i < n; i += width) {
            size_t w = MIN(n - i, width);
            for (size_t j = 0; j < w; j += KERN_PANEL)
                memcpy(
                    to + i * T + t * w + j, x + i + j, KERN_PANEL * sizeof *to);
        }
}

void
transformer_linear_block(
    const struct transformer_linear *l, size_t block, float *work)
{
    size_t row = block / n_blocks(l->K) * BLOCK;
    size_t col = block % n_blocks(l->K) * BLOCK;
    size_t rows = MIN(l->N - row, (size_t)BLOCK);
    float *strips = work, *panels = work + DEPTH * BLOCK;
    struct kern_product p = {.N = MIN(l->K - col, (size_t)BLOCK),
        .ldc = l->K,
        .a_row = 1,
        .b_row = KERN_PANEL,
        .add = 1};

    for (size_t t = 0; t < l->T; t += p.K) {
        const float *dY = l->dY + t * l->N + row;

        p.K = MIN(l->T - t, (size_t)DEPTH);
        p.b_panel = p.K * KERN_PANEL;
        copy_strips(strips, dY, l->N, p.K, rows, STRIP);
        copy_strips(panels, l->X + t * l->K + col, l->K, p.K, p.N, KERN_PANEL);
        for (size_t i = 0; i < p.K && col == 0; i++)
            kern()->axpy(l->db + row, 1, dY + i * l->N, rows);
        for (size_t i = 0; i < rows; i += STRIP) {
            p.M = p.a_col = MIN(rows - i, (size_t)STRIP);
            kern()->product(
                l->dW + (row + i) * l->K + col, strips + i * p.K, panels, &p);
        }
    }
}
