#include "kern/panels.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "kern/kern.h"

/* Steps of k that a panel keeps in the first cache: 24 KB of floats. */
#define DEPTH 384
#define ROW_MAX 127
#define TINY 1e-30f /* a step below it has no use, nor an inverse */
#define WIDER 1.015625f

#define ALIGNED(n) (((n) + PANELS_ALIGN - 1) / PANELS_ALIGN * PANELS_ALIGN)

size_t
panels_bytes(enum panels_type type, size_t N, size_t K)
{
    switch (type) {
    case PANELS_BF16:
        return ALIGNED(N * K * sizeof(uint16_t));
    case PANELS_INT8: /* the steps behind the codes */
        return ALIGNED(N * K + N * sizeof(float));
    case PANELS_F32:
        break;
    }
    return ALIGNED(N * K * sizeof(float));
}

/* ------------------------------------------------------------- packing */

static void
pack_f32(const struct panels *p, const float *W)
{
    float *packed = p->data;

    for (size_t j = 0; j < p->N; j += KERN_PANEL, packed += p->K * KERN_PANEL)
        for (size_t k = 0; k < p->K; k++)
            for (size_t l = 0; l < KERN_PANEL; l++)
                packed[k * KERN_PANEL + l] = W[(j + l) * p->K + k];
}

static uint16_t
to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static void
pack_bf16(const struct panels *p, const float *W)
{
    uint16_t *packed = p->data;

    for (size_t j = 0; j < p->N; j += KERN_PANEL, packed += p->K * KERN_PANEL)
        for (size_t k = 0; k < p->K; k++)
            for (size_t l = 0; l < KERN_PANEL; l++)
                packed[k / 2 * 2 * KERN_PANEL + 2 * l + k % 2] =
                    to_bf16(W[(j + l) * p->K + k]);
}

/* Output j's codes to their places, its step; the largest squared norm of a
   strip. */
static int32_t
pack_codes(uint8_t *panel, float *step, const float *w, size_t l, size_t K)
{
    float top = kern()->absmax(w, K);
    float inv = top > KERN_WEIGHT_MAX * TINY ? KERN_WEIGHT_MAX / top : 0;
    int32_t strips[2] = {0, 0}, most = 0;

    *step = inv > 0 ? top / KERN_WEIGHT_MAX : 0;
    for (size_t k = 0; k < K; k++) {
        int32_t code = (int32_t)lrintf(w[k] * inv);

        panel[k / 4 * 4 * KERN_PANEL + 4 * l + k % 4] =
            (uint8_t)(code + KERN_WEIGHT_MAX);
        if (k % KERN_STRIP_DIMS == 0)
            strips[0] = strips[1] = 0;
        strips[k / 2 % 2] += code * code;
        most = MAX(most, strips[k / 2 % 2]);
    }
    return most;
}

/* The codes, then [N] steps. */
static void
pack_int8(struct panels *p, const float *W)
{
    uint8_t *codes = p->data;
    int32_t most = 1;

    for (size_t j = 0; j < p->N; j++) {
        float step;
        int32_t norm = pack_codes(codes + j / KERN_PANEL * KERN_PANEL * p->K,
            &step, W + j * p->K, j % KERN_PANEL, p->K);

        memcpy(codes + p->N * p->K + j * sizeof step, &step, sizeof step);
        most = MAX(most, norm);
    }
    p->row_norm = (float)INT16_MAX / sqrtf((float)most);
}

void
panels_pack(struct panels *p, const float *W)
{
    switch (p->type) {
    case PANELS_F32:
        pack_f32(p, W);
        break;
    case PANELS_BF16:
        pack_bf16(p, W);
        break;
    case PANELS_INT8:
        pack_int8(p, W);
        break;
    }
}

/* ------------------------------------------------------------ products */

size_t
panels_work_bytes(enum panels_type type, size_t M, size_t K)
{
    return type == PANELS_INT8 ? ALIGNED(M * KERN_ROW_BYTES(K)) : 0;
}

/* A row of codes with the smallest step that the strips allow, about. */
static void
code_row(uint8_t *row, const float *x, size_t n, float row_norm)
{
    float step = kern()->absmax(x, n) / ROW_MAX;
    float most = row_norm * row_norm;

    for (;;) {
        float inv = step > TINY ? 1 / step : 0;
        int32_t square = kern()->code_row(row, x, inv, n);

        if (square < 0 || inv == 0)
            step = square < 0 ? NAN : 0;
        if (!((float)square > most))
            break;
        step *= MAX(sqrtf((float)square) / row_norm, WIDER);
    }
    memcpy(row + n, &step, sizeof step);
}

void
panels_begin(
    const struct panels *p, void *work, const float *X, size_t ldx, size_t M)
{
    uint8_t *row = work;

    if (p->type == PANELS_INT8)
        for (size_t i = 0; i < M; i++)
            code_row(
                row + i * KERN_ROW_BYTES(p->K), X + i * ldx, p->K, p->row_norm);
}

static void
product_codes(float *C, size_t ldc, const struct panels *p, size_t from,
    size_t n, const void *work, size_t M)
{
    const uint8_t *codes = p->data;
    const float *steps = (const float *)(const void *)(codes + p->N * p->K);
    const struct kern_codes c = {
        .M = M, .N = n, .K = p->K, .ldc = ldc, .step = steps + from};

    kern()->product_codes(C, work, codes + from * p->K, &c);
}

void
panels_product(float *C, size_t ldc, const struct panels *p, size_t from,
    size_t n, const float *X, size_t ldx, const void *work, size_t M)
{
    bool half = p->type == PANELS_BF16;
    const uint16_t *halves = p->data;
    const float *floats = p->data;
    struct kern_product c = {.M = M,
        .N = n,
        .ldc = ldc,
        .a_row = ldx,
        .a_col = 1,
        .b_row = KERN_PANEL,
        .b_panel = p->K * KERN_PANEL};

    if (p->type == PANELS_INT8) {
        product_codes(C, ldc, p, from, n, work, M);
        return;
    }
    for (size_t k = 0; k < p->K; k += DEPTH) {
        size_t at = from * p->K + k * KERN_PANEL;

        c.K = MIN(p->K - k, (size_t)DEPTH);
        c.add = k > 0;
        if (half)
            kern()->product_bf16(C, X + k, halves + at, &c);
        else
            kern()->product(C, X + k, floats + at, &c);
    }
}
