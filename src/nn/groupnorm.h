/*
 * groupnorm.h - normalisation of a map over groups of channels, with the gain,
 * the bias, the sum and the ReLU that follow it, in one pass.
 *
 * For one image, a group G of 16 channels and all pixels p, m = 16 HW values:
 *
 *   mu = sum x / m,  v = sum (x - mu)^2 / m,  r = 1 / sqrt(v + 1e-5)
 *   u_cp = gain_c (x_cp - mu) r + bias_c + residual_cp
 *   y_cp = max(u_cp, 0)   or u_cp
 *
 * Nothing passes from one image of a batch to another. Source: Wu & He 2018
 * (arXiv:1803.08494), eqs. 1 to 7.
 *
 * Maps stand as in kern/conv.h: [C/b, HW, b], so that a group is one run of
 * memory for b = 8 and for b = 16. C is a multiple of 16.
 */
#ifndef NN_GROUPNORM_H
#define NN_GROUPNORM_H

#include <stdbool.h>
#include <stddef.h>

#define GROUPNORM_CHANNELS 16

/* Floats of the statistics of one image: mu and r of each group. */
#define GROUPNORM_STATS(C) (2 * ((C) / GROUPNORM_CHANNELS))

struct groupnorm {
    size_t C, HW, b;
    const float *gain, *bias; /* [C] */
    bool relu;
};

/*
 * groupnorm_forward - y and stats of one image.
 * groupnorm_again - the same y, to the bit, from x and stats.
 *
 *   y         [C/b, HW, b] overwritten; may be residual, not x
 *   stats     [GROUPNORM_STATS(C)] overwritten; read by groupnorm_again
 *   x         [C/b, HW, b]
 *   residual  [C/b, HW, b] or NULL
 *
 * mu and v: sums of 16 float lanes over runs of 4,096 values, added in double.
 */
void groupnorm_forward(float *y, float *stats, const float *x,
    const float *residual, const struct groupnorm *norm);
void groupnorm_again(float *y, const float *stats, const float *x,
    const float *residual, const struct groupnorm *norm);

/*
 * groupnorm_backward - gradients of one image.
 *
 *   dx      [C/b, HW, b] overwritten; may be dy
 *   dgain   [C] accumulated (+=), as dbias
 *   dy      [C/b, HW, b] d loss / d y; with relu it becomes d loss / d u (which
 *           is the residual's gradient), unless dx is dy
 *   y       of the forward pass; only with relu
 *   x       [C/b, HW, b]
 *
 *   du = dy [y > 0],  dbias_c = sum_p du_cp,  dgain_c = sum_p du_cp h_cp
 *   with h = (x - mu) r
 *   dx = r (gain du - sum_G(gain du) / m - h sum_G(gain du h) / m)
 */
void groupnorm_backward(float *dx, float *dgain, float *dbias, float *dy,
    const float *y, const float *stats, const float *x,
    const struct groupnorm *norm);

#endif
