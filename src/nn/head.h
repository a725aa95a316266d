/*
 * head.h - the projection head: a small perceptron between the encoder and the
 * objective, dropped after training.
 *
 *   h_0 = sqrt(n_in) x
 *   h_l = relu(h_(l-1) W_l + b_l)          l < n_layers
 *   y   = unit(h_(L-1) W_L [+ b_L])        the last layer, L = n_layers
 *
 * x are the encoder's unit vectors; their members are of size one after the
 * scaling, so that the usual initial weights (He et al. 2015, arXiv:1502.01852,
 * sec. 2.2) fit. Without layers y is x. Sources: Chen et al. 2020
 * (arXiv:2002.05709), sec. 2.1, for g; Chen et al. 2020 (arXiv:2003.04297) for
 * MoCo v2's two layers. We have no batch normalisation in it: what it would
 * tell of the other samples of a batch is nothing that it should know.
 *
 * The parameters are one flat block (W_1, b_1, W_2, ..., W_l stored [in, out])
 * that the caller owns, copies and gives to an optimiser like the encoder's; a
 * momentum head is a second block.
 */
#ifndef NN_HEAD_H
#define NN_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include "base/pool.h"
#include "base/rng.h"

#define HEAD_LAYERS_MAX 3
#define HEAD_PARTS_MAX (2 * HEAD_LAYERS_MAX)

struct head_shape {
    size_t n_layers; /* 0..HEAD_LAYERS_MAX */
    size_t n_in;     /* dims of the encoder */
    size_t n_hidden; /* dims between two layers */
    size_t n_out;    /* dims of y; n_in without layers */
    bool last_bias;  /* b_L */
};

/* A run of the parameters. */
struct head_part {
    size_t start, n;
    bool is_bias; /* takes no weight decay */
};

size_t head_n_params(const struct head_shape *shape);
/* The parts, ascending and without gaps; returns how many. */
size_t head_parts(
    const struct head_shape *shape, struct head_part out[HEAD_PARTS_MAX]);

/* Weights normal with variance 2 / in (1 / in in the last layer), biases 0. */
void head_init(const struct head_shape *shape, float *params, struct rng *rng);

/* Floats that a forward pass over n rows leaves for its backward pass, with
   that pass's scratch. */
size_t head_tape_floats(const struct head_shape *shape, size_t n);

/*
 * head_forward, head_backward
 *
 *   y         [n, n_out]  overwritten: unit rows (zero where the sum was)
 *   tape      [head_tape_floats(shape, n)]  written by forward, read by
 *             backward; x, y and params stay as they were between the two
 *   params    [head_n_params]
 *   x         [n, n_in]   unit rows
 *   dx        [n, n_in]   overwritten; NULL: not wanted
 *   d_params  [head_n_params]  accumulated (+=)
 *   dy        [n, n_out]  d loss / d y
 *
 * No overlap. Allocate nothing, cannot fail, O(n * n_params). Accumulate in
 * float (gemm.h) over fixed shards: the same bits for any pool.
 */
void head_forward(const struct head_shape *shape, float *y, float *tape,
    const float *params, const float *x, size_t n, struct pool *pool);
void head_backward(const struct head_shape *shape, float *dx, float *d_params,
    float *tape, const float *params, const float *x, const float *y,
    const float *dy, size_t n, struct pool *pool);

#endif
