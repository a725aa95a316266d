#include "nn/tokenpool.h"

#include <string.h>

#include "kern/kern.h"

void
tokenpool_forward(
    float *f, const float *x, size_t L, size_t H, enum tokenpool how)
{
    memcpy(f, x, H * sizeof *f);
    if (how == TOKENPOOL_CLS)
        return;
    for (size_t t = 1; t < L; t++) {
        const float *row = x + t * H;

        if (how == TOKENPOOL_MEAN)
            kern()->axpy(f, 1, row, H);
        else
            for (size_t i = 0; i < H; i++)
                f[i] = row[i] > f[i] ? row[i] : f[i];
    }
    if (how == TOKENPOOL_MEAN)
        kern()->scale(f, 1.0f / (float)L, H);
}

void
tokenpool_backward(float *dx, const float *df, const float *x, size_t L,
    size_t H, enum tokenpool how)
{
    memset(dx, 0, L * H * sizeof *dx);
    if (how == TOKENPOOL_CLS)
        memcpy(dx, df, H * sizeof *dx);
    if (how == TOKENPOOL_MEAN)
        for (size_t t = 0; t < L; t++)
            kern()->axpy(dx + t * H, 1.0f / (float)L, df, H);
    for (size_t i = 0; i < H && how == TOKENPOOL_MAX; i++) {
        size_t top = 0;

        for (size_t t = 1; t < L; t++)
            if (x[t * H + i] > x[top * H + i])
                top = t;
        dx[top * H + i] = df[i];
    }
}
