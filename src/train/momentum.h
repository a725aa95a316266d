/*
 * momentum.h - theta_k <- m theta_k + (1 - m) theta_q.
 *
 * Source: He et al. 2020 (arXiv:1911.05722), eq. 2.
 */
#ifndef TRAIN_MOMENTUM_H
#define TRAIN_MOMENTUM_H

#include <stddef.h>
#include "base/pool.h"

/* k [n], q [n] borrowed; m in [0, 1). Each product and the sum round once.
   The same bits for any pool. */
void momentum_update(
    float *k, const float *q, size_t n, float m, struct pool *pool);

#endif
