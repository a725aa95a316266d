#include "nn/pooling.h"

#include <string.h>

struct cell {
    size_t row, end_row, col, end_col;
    float share; /* 1 / pixels */
};

static struct cell
cell_of(size_t g, size_t H, size_t G)
{
    size_t i = g / G, j = g % G;
    struct cell c = {.row = i * H / G,
        .end_row = ((i + 1) * H + G - 1) / G,
        .col = j * H / G,
        .end_col = ((j + 1) * H + G - 1) / G};
    c.share = 1.0f / (float)((c.end_row - c.row) * (c.end_col - c.col));
    return c;
}

void
pooling_forward(
    float *f, const float *x, size_t C, size_t H, size_t G, size_t b)
{
    for (size_t g = 0; g < G * G; g++) {
        struct cell cell = cell_of(g, H, G);
        for (size_t c = 0; c < C; c += b, f += b) {
            memset(f, 0, b * sizeof *f);
            for (size_t i = cell.row; i < cell.end_row; i++)
                for (size_t j = cell.col; j < cell.end_col; j++) {
                    const float *p = x + c * H * H + (i * H + j) * b;
                    for (size_t l = 0; l < b; l++)
                        f[l] += p[l];
                }
            for (size_t l = 0; l < b; l++)
                f[l] *= cell.share;
        }
    }
}

void
pooling_backward(
    float *dx, const float *df, size_t C, size_t H, size_t G, size_t b)
{
    memset(dx, 0, C * H * H * sizeof *dx);
    for (size_t g = 0; g < G * G; g++) {
        struct cell cell = cell_of(g, H, G);
        for (size_t c = 0; c < C; c += b, df += b)
            for (size_t i = cell.row; i < cell.end_row; i++)
                for (size_t j = cell.col; j < cell.end_col; j++) {
                    float *p = dx + c * H * H + (i * H + j) * b;
                    for (size_t l = 0; l < b; l++)
                        p[l] += df[l] * cell.share;
                }
    }
}
