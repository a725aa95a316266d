#include "kern/panels.h"

#include "base/check.h"
#include "kern/kern.h"

/* Steps of k that a panel keeps in the first cache: 24 KB. */
#define DEPTH 384

void
panels_pack(float *packed, const float *W, size_t N, size_t K)
{
    for (size_t j = 0; j < N; j += KERN_PANEL, packed += K * KERN_PANEL)
        for (size_t k = 0; k < K; k++)
            for (size_t l = 0; l < KERN_PANEL; l++)
                packed[k * KERN_PANEL + l] = W[(j + l) * K + k];
}

void
panels_product(float *C, size_t ldc, const float *X, size_t ldx,
    const float *packed, size_t M, size_t N, size_t K)
{
    struct kern_product p = {.M = M,
        .N = N,
        .ldc = ldc,
        .a_row = ldx,
        .a_col = 1,
        .b_row = KERN_PANEL,
        .b_panel = K * KERN_PANEL};

    for (size_t k = 0; k < K; k += DEPTH) {
        p.K = MIN(K - k, (size_t)DEPTH);
        p.add = k > 0;
        kern()->product(C, X + k, packed + k * KERN_PANEL, &p);
    }
}
