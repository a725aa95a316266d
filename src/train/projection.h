/*
 * projection.h - the projection head of a run, with its optimiser.
 *
 * The loss compares head(embedding), the collection serves the embedding: the
 * head takes what the objective throws away. It lives as long as the run.
 * Source: Chen et al. 2020 (arXiv:2002.05709), sec. 4.2. Owned by one thread.
 */
#ifndef TRAIN_PROJECTION_H
#define TRAIN_PROJECTION_H

#include "base/pool.h"
#include "train/optimizer.h"
#include "train/state.h"

struct projection;

/*
 * projection_new - a head of n_layers > 0 layers from D to P dims.
 *
 *   seed  of its weights
 *
 * Errors: ERR_NOMEM.
 */
enum err projection_new(struct projection **out, size_t n_layers, size_t D,
    size_t P, uint64_t seed,
    const struct optimizer_options *optimizer) NODISCARD;
void projection_free(struct projection *head);
size_t projection_bytes(const struct projection *head);

/* z [n, P] unit rows from e [n, D]; both are borrowed until the backward pass.
   What that pass needs is kept for some rows only and made again for others, so
   that memory does not grow with n. */
void projection_forward(struct projection *head, const float *e, size_t n,
    float *z, struct pool *pool);
/* de [n, D] overwritten, from dz [n, P]; adds to the head's gradient. */
void projection_backward(
    struct projection *head, const float *dz, float *de, struct pool *pool);
void projection_step(struct projection *head, float lr, struct pool *pool);

/* As forward, under other parameters (a momentum copy; NULL: its own), without
   a gradient and for any n. It uses the tape: before the forward pass or after
   the backward pass of a step, not between. */
void projection_encode(struct projection *head, const float *params,
    const float *e, size_t n, float *z, struct pool *pool);

float *projection_params(struct projection *head, size_t *n_params);
void projection_state(struct projection *head, struct state *s);

#endif
