#include "nn/groupnorm.h"

#include <math.h>
#include "base/check.h"
#include "kern/kern.h"

#define EPS 1e-5
#define RUN 256 /* pixels whose sums are float */
#define LANES 16

/* A group is 16 / b blocks of [HW, b], one behind the other. */

/* Sum of (x - shift), or of its square, over the n floats of a group. */
static double
sum_of(const float *x, size_t n, float shift, bool square)
{
    double total = 0;
    for (size_t at = 0; at < n; at += RUN * LANES) {
        float sum[LANES], squares[LANES];
        size_t floats = MIN(n - at, (size_t)RUN * LANES);
        kern()->rows_moments(
            sum, squares, x + at, shift, floats / LANES, LANES);
        for (size_t l = 0; l < LANES; l++)
            total += (double)(square ? squares[l] : sum[l]);
    }
    return total;
}

void
groupnorm_again(float *y, const float *stats, const float *x,
    const float *residual, const struct groupnorm *norm)
{
    size_t b = norm->b;
    for (size_t c = 0; c < norm->C; c += b) {
        const float *s = stats + 2 * (c / GROUPNORM_CHANNELS);
        size_t at = c * norm->HW;
        float scale[LANES], add[LANES];
        for (size_t l = 0; l < b; l++) {
            scale[l] = norm->gain[c + l] * s[1];
            add[l] = norm->bias[c + l] - scale[l] * s[0];
        }
        kern()->rows_affine(y + at, x + at,
            residual == NULL ? NULL : residual + at, scale, add, norm->relu,
            norm->HW, b);
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

/* One group. forward: u = gain (x - mu) r + bias (+ residual), y = max(u, 0) */
static void
backward_group(float *dx, float *dgain, float *dbias, float *dy, const float *y,
    const float *stats, const float *x, const float *gain, size_t HW, size_t b)
{
    float mu = stats[0], r = stats[1];
    float scale[GROUPNORM_CHANNELS];
    double mean = 0, mean_h = 0; /* of gain du and gain du h, times m */
    double m = (double)(GROUPNORM_CHANNELS * HW);

    for (size_t c = 0; c < GROUPNORM_CHANNELS; c += b) {
        size_t at = c * HW;
        float sum[LANES], sum_x[LANES];
        kern()->rows_grad_sums(
            sum, sum_x, dy + at, y == NULL ? NULL : y + at, x + at, mu, HW, b);
        for (size_t l = 0; l < b; l++) {
            dbias[c + l] += sum[l];
            dgain[c + l] += sum_x[l] * r;
            scale[c + l] = gain[c + l] * r;
            mean += (double)gain[c + l] * (double)sum[l];
            mean_h += (double)gain[c + l] * (double)(sum_x[l] * r);
        }
    }
    /* dx = scale du + slope x + add */
    double slope = -(double)r * (double)r * mean_h / m;
    double add = -(double)r * mean / m - slope * (double)mu;
    for (size_t c = 0; c < GROUPNORM_CHANNELS; c += b)
        kern()->rows_grad(dx + c * HW, dy + c * HW, x + c * HW, scale + c,
            (float)slope, (float)add, HW, b);
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
        backward_group(dx + at, dgain + c, dbias + c, dy + at,
            norm->relu ? y + at : NULL, stats + 2 * g, x + at, norm->gain + c,
            norm->HW, norm->b);
    }
}
