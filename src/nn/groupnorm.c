#include "nn/groupnorm.h"

#include <math.h>
#include <string.h>
#include "base/check.h"

#define EPS 1e-5
#define RUN 256 /* pixels whose sums are float */
#define LANES 16

/*
 * A group is n = 16 HW floats in a row, and the channel of float i of block j
 * is j b + i mod b. With b = 8 or 16, 16 lanes side by side always hold whole
 * blocks of channels: lane l belongs to channel l mod b. All loops run over
 * such lanes; for b = 8 and an odd HW a block ends in the middle of them, so
 * they are 8 wide there.
 */

/* Sum of (x - shift)^power over n floats, n a multiple of 8. */
static double
sum_of(const float *x, size_t n, float shift, bool square)
{
    double sum = 0;
    for (size_t start = 0; start < n; start += RUN * LANES) {
        size_t end = MIN(n, start + RUN * LANES);
        float acc[LANES] = {0};
        size_t i = start;
        if (square) {
            for (; i + LANES <= end; i += LANES)
                for (size_t l = 0; l < LANES; l++) {
                    float v = x[i + l] - shift;
                    acc[l] += v * v;
                }
        } else {
            for (; i + LANES <= end; i += LANES)
                for (size_t l = 0; l < LANES; l++)
                    acc[l] += x[i + l] - shift;
        }
        for (; i < end; i++) {
            float v = x[i] - shift;
            acc[i % 8] += square ? v * v : v;
        }
        for (size_t l = 0; l < LANES; l++)
            sum += (double)acc[l];
    }
    return sum;
}

/* y = max(scale x + shift (+ residual), 0), for one block of b channels. */
static inline void
apply_block(float *y, const float *x, const float *residual, const float *scale,
    const float *shift, size_t HW, size_t b, float floor)
{
    if (residual != NULL) {
        for (size_t p = 0; p < HW; p++, y += b, x += b, residual += b)
            for (size_t l = 0; l < b; l++) {
                float u = scale[l] * x[l] + shift[l] + residual[l];
                y[l] = u > floor ? u : floor;
            }
    } else {
        for (size_t p = 0; p < HW; p++, y += b, x += b)
            for (size_t l = 0; l < b; l++) {
                float u = scale[l] * x[l] + shift[l];
                y[l] = u > floor ? u : floor;
            }
    }
}

void
groupnorm_again(float *y, const float *stats, const float *x,
    const float *residual, const struct groupnorm *norm)
{
    size_t b = norm->b;
    float floor = norm->relu ? 0 : -INFINITY;
    for (size_t c = 0; c < norm->C; c += b) {
        const float *s = stats + 2 * (c / GROUPNORM_CHANNELS);
        size_t at = c * norm->HW;
        float scale[LANES], shift[LANES];
        for (size_t l = 0; l < b; l++) {
            scale[l] = norm->gain[c + l] * s[1];
            shift[l] = norm->bias[c + l] - scale[l] * s[0];
        }
        const float *r = residual == NULL ? NULL : residual + at;
        if (b == 8)
            apply_block(y + at, x + at, r, scale, shift, norm->HW, 8, floor);
        else
            apply_block(y + at, x + at, r, scale, shift, norm->HW, 16, floor);
    }
}

void
groupnorm_forward(float *y, float *stats, const float *x, const float *residual,
    const struct groupnorm *norm)
{
    size_t m = GROUPNORM_CHANNELS * norm->HW;
    ASSERT(norm->C % GROUPNORM_CHANNELS == 0);
    ASSERT(norm->b == 8 || norm->b == 16);
    for (size_t g = 0; g < norm->C / GROUPNORM_CHANNELS; g++) {
        double mean = sum_of(x + g * m, m, 0, false) / (double)m;
        double var = sum_of(x + g * m, m, (float)mean, true) / (double)m;
        stats[2 * g] = (float)mean;
        stats[2 * g + 1] = (float)(1 / sqrt(var + EPS));
    }
    groupnorm_again(y, stats, x, residual, norm);
}

/* Of one block: dy masked in place, sums of du and of du (x - mu) a channel. */
static inline void
backward_sums(float *sum, float *sum_x, float *dy, const float *y,
    const float *x, float mu, size_t HW, size_t b, bool relu)
{
    float s[LANES] = {0}, sx[LANES] = {0};
    for (size_t p = 0; p < HW; p++, dy += b, x += b) {
        if (relu) {
            for (size_t l = 0; l < b; l++)
                dy[l] = y[l] > 0 ? dy[l] : 0;
            y += b;
        }
        for (size_t l = 0; l < b; l++) {
            s[l] += dy[l];
            sx[l] += dy[l] * (x[l] - mu);
        }
    }
    memcpy(sum, s, b * sizeof *s);
    memcpy(sum_x, sx, b * sizeof *sx);
}

static inline void
backward_apply(float *dx, const float *dy, const float *x, const float *scale,
    float slope, float offset, size_t HW, size_t b)
{
    for (size_t p = 0; p < HW; p++, dx += b, dy += b, x += b)
        for (size_t l = 0; l < b; l++)
            dx[l] = scale[l] * dy[l] + (slope * x[l] + offset);
}

/* One group. forward: u = gain (x - mu) r + bias */
static inline void
backward_group(float *dx, float *dgain, float *dbias, float *dy, const float *y,
    const float *stats, const float *x, const float *gain, size_t HW, size_t b,
    bool relu)
{
    float mu = stats[0], r = stats[1];
    float scale[GROUPNORM_CHANNELS];
    double mean = 0, mean_h = 0; /* of gain du and gain du h, times m */
    double m = (double)(GROUPNORM_CHANNELS * HW);

    for (size_t c = 0; c < GROUPNORM_CHANNELS; c += b) {
        float sum[LANES], sum_x[LANES];
        backward_sums(sum, sum_x, dy + c * HW, relu ? y + c * HW : NULL,
            x + c * HW, mu, HW, b, relu);
        for (size_t l = 0; l < b; l++) {
            dbias[c + l] += sum[l];
            dgain[c + l] += sum_x[l] * r;
            scale[c + l] = gain[c + l] * r;
            mean += (double)gain[c + l] * (double)sum[l];
            mean_h += (double)gain[c + l] * (double)(sum_x[l] * r);
        }
    }
    /* dx = scale du + slope x + offset */
    double slope = -(double)r * (double)r * mean_h / m;
    double offset = -(double)r * mean / m - slope * (double)mu;
    for (size_t c = 0; c < GROUPNORM_CHANNELS; c += b)
        backward_apply(dx + c * HW, dy + c * HW, x + c * HW, scale + c,
            (float)slope, (float)offset, HW, b);
}

void
groupnorm_backward(float *dx, float *dgain, float *dbias, float *dy,
    const float *y, const float *stats, const float *x,
    const struct groupnorm *norm)
{
    size_t m = GROUPNORM_CHANNELS * norm->HW;
    for (size_t g = 0; g < norm->C / GROUPNORM_CHANNELS; g++) {
        size_t c = g * GROUPNORM_CHANNELS;
        size_t at = g * m;
        const float *yg = norm->relu ? y + at : NULL;
        if (norm->b == 8)
            backward_group(dx + at, dgain + c, dbias + c, dy + at, yg,
                stats + 2 * g, x + at, norm->gain + c, norm->HW, 8, norm->relu);
        else
            backward_group(dx + at, dgain + c, dbias + c, dy + at, yg,
                stats + 2 * g, x + at, norm->gain + c, norm->HW, 16,
                norm->relu);
    }
}
