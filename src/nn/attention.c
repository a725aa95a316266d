#include "nn/attention.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "kern/kern.h"

#define SCORES 8192 /* of a block of rows: 32 KB */
#define ROWS_MIN 12 /* rows of such a block, at least */

static size_t
padded(size_t L)
{
    return (L + KERN_PANEL - 1) / KERN_PANEL * KERN_PANEL;
}

/* Rows of scores at a time: a multiple of the kernels' tiles. */
static size_t
rows_of(size_t L)
{
    size_t rows = SCORES / padded(L) / ROWS_MIN * ROWS_MIN;
    return MIN(MAX(rows, (size_t)ROWS_MIN), L);
}

size_t
attention_workspace_floats(size_t L, size_t d)
{
    /* both shrink as L grows: of shorter sequences as well */
    size_t scores = MAX((size_t)SCORES, ROWS_MIN * padded(L));
    return padded(L) * d * 2 + scores;
}

size_t
attention_grad_workspace_floats(size_t L, size_t d)
{
    size_t scores = MAX((size_t)SCORES, ROWS_MIN * padded(L));
    return padded(L) * d * 3 + 2 * scores;
}

/* Panels of x^T, for x [L, d] with rows ld apart: key j is column j. Nobody
   reads what becomes of the columns from L on; they are zero because a stray
   denormal in them would be slow. */
static void
pack_turned(float *to, const float *x, size_t ld, size_t L, size_t d)
{
    for (size_t j = 0; j < L; j += KERN_PANEL, to += d * KERN_PANEL) {
        size_t n = MIN(L - j, (size_t)KERN_PANEL);

        if (n < KERN_PANEL)
            memset(to, 0, d * KERN_PANEL * sizeof *to);
        for (size_t l = 0; l < n; l++)
            for (size_t i = 0; i < d; i++)
                to[i * KERN_PANEL + l] = x[(j + l) * ld + i];
    }
}

/* Panels of x. */
static void
pack(float *to, const float *x, size_t ld, size_t L, size_t d)
{
    for (size_t i = 0; i < d; i += KERN_PANEL)
        for (size_t j = 0; j < L; j++, to += KERN_PANEL)
            memcpy(to, x + j * ld + i, KERN_PANEL * sizeof *to);
}

/* C [M, N] = A B, for A rows lda apart and B packed with K rows. */
static void
product(float *C, size_t ldc, const float *A, size_t lda, const float *B,
    size_t M, size_t N, size_t K)
{
    const struct kern_product p = {.M = M,
        .N = N,
        .K = K,
        .ldc = ldc,
        .a_row = lda,
        .a_col = 1,
        .b_row = KERN_PANEL,
        .b_panel = K * KERN_PANEL};

    kern()->product(C, A, B, &p);
}

/* C [M, N] = (+=) A^T B, for A [K, M] and B [K, N]. */
static void
product_turned(float *C, size_t ldc, const float *A, size_t lda, const float *B,
    size_t ldb, size_t M, size_t N, size_t K, bool add)
{
    const struct kern_product p = {.M = M,
        .N = N,
        .K = K,
        .ldc = ldc,
        .a_row = 1,
        .a_col = lda,
        .b_row = ldb,
        .b_panel = KERN_PANEL,
        .add = add};

    kern()->product(C, A, B, &p);
}

void
attention_forward(
    float *o, const float *qkv, const struct attention *a, float *work)
{
    size_t L = a->L, d = a->d, W = a->heads * d, ld = 3 * W, Lp = padded(L);
    size_t rows = rows_of(L);
    float scale = 1.0f / sqrtf((float)d);
    float *keys = work, *values = keys + Lp * d, *scores = values + Lp * d;

    for (size_t h = 0; h < a->heads; h++) {
        const float *q = qkv + h * d;

        pack_turned(keys, q + W, ld, L, d);
        pack(values, q + 2 * W, ld, L, d);
        for (size_t i = 0; i < L; i += rows) {
            size_t m = MIN(rows, L - i);

            product(scores, Lp, q + i * ld, ld, keys, m, Lp, d);
            kern()->softmax(scores, Lp, scale, m, L);
            product(o + i * W + h * d, W, scores, Lp, values, m, d, L);
        }
    }
}

/* forward: P = softmax(scale q k^T), o = P v */
void
attention_backward(float *dqkv, const float *d_o, const float *qkv,
    const struct attention *a, float *work)
{
    size_t L = a->L, d = a->d, W = a->heads * d, ld = 3 * W, Lp = padded(L);
    size_t rows = rows_of(L);
    float scale = 1.0f / sqrtf((float)d);
    float *turned = work, *values = turned + Lp * d, *keys = values + Lp * d;
    float *p = keys + Lp * d, *ds = p + MAX((size_t)SCORES, ROWS_MIN * Lp);

    for (size_t h = 0; h < a->heads; h++) {
        const float *q = qkv + h * d;
        float *dq = dqkv + h * d;

        pack_turned(turned, q + W, ld, L, d);
        pack_turned(values, q + 2 * W, ld, L, d);
        pack(keys, q + W, ld, L, d);
        for (size_t i = 0; i < L; i += rows) {
            size_t m = MIN(rows, L - i);
            const float *dy = d_o + i * W + h * d;

            product(p, Lp, q + i * ld, ld, turned, m, Lp, d);
            kern()->softmax(p, Lp, scale, m, L);
            product(ds, Lp, dy, W, values, m, Lp, d);
            product_turned(
                dq + 2 * W, ld, p, Lp, dy, W, L, d, m, i > 0); /* dv */
            kern()->softmax_grad(ds, p, Lp, scale, m, L);
            product(dq + i * ld, ld, ds, Lp, keys, m, d, L);
            product_turned(
                dq + W, ld, ds, Lp, q + i * ld, ld, L, d, m, i > 0); /* dk */
        }
    }
}
