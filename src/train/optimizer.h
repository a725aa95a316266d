/*
 * optimizer.h - AdamW over the touched segments of a flat block of
 * parameters, and the schedule of its learning rate.
 *
 * Moments of a parameter move only in steps that touch it ("lazy" Adam, as is
 * usual for tables of embeddings); the bias correction counts all steps.
 * Source: Loshchilov & Hutter 2019, arXiv:1711.05101, alg. 2.
 */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "base/pool.h"
#include "model/encoder.h"

struct adamw_options {
    float beta1, beta2, eps, weight_decay;
};

struct adamw; /* two floats a parameter */

enum err adamw_new(struct adamw **out, size_t n_params,
    const struct adamw_options *options) NODISCARD;
void adamw_free(struct adamw *adamw);

/* params -= lr * step, then the gradient is zero again (its segments stay
   listed until encoder_grads_clear). */
void adamw_step(struct adamw *adamw, float *params, struct encoder_grads *grads,
    float lr, struct pool *pool);

/* Linear warm-up over the first share of the steps, then half a cosine to 0;
   step counts from 0. A factor of the learning rate, in (0, 1]. */
float schedule_cosine(size_t step, size_t n_steps, float warmup_share);

#endif
