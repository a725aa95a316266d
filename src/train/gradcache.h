/*
 * gradcache.h - forward and backward over more rows than fit in memory.
 *
 * What a tape keeps for the backward pass is by far the most that training
 * needs, and it grows with the rows. The loss, though, needs of a row only its
 * vector, and the backward pass only the gradient of that vector. So rows are
 * encoded in pieces: first all of them, keeping vectors alone and the state of
 * the generator before each piece; then, once the loss has said the gradient
 * of every vector, each piece forward again, with the same noise, and
 * backward. The gradient is that of the whole. The last piece's tape is still
 * there, so it is not made twice; when all rows are one piece nothing is.
 * Pieces are of a fixed number of rows, and of texts, whose lengths differ, of
 * fewer where the tape would hold more than GRADCACHE_TAPE_BYTES.
 * Source: Gao et al. 2021 (arXiv:2101.06983), sec. 3.
 */
#ifndef TRAIN_GRADCACHE_H
#define TRAIN_GRADCACHE_H

#include "train/inputs.h"

#define GRADCACHE_TAPE_BYTES ((size_t)1 << 30)

struct gradcache;

/* piece: rows encoded at once at most; n_max: rows in all. ERR_NOMEM. */
enum err gradcache_new(struct gradcache **out, const struct encoder *encoder,
    size_t piece, size_t n_max) NODISCARD;
void gradcache_free(struct gradcache *cache);
size_t gradcache_bytes(const struct gradcache *cache); /* heap in use */

/*
 * gradcache_forward - the vectors of the first n rows of a step.
 *
 *   noise  its generator is advanced; kept for the backward pass
 *   out    [n, D] overwritten
 *
 * Errors: ERR_NOMEM.
 */
enum err gradcache_forward(struct gradcache *cache,
    const struct encoder *encoder, struct inputs *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool) NODISCARD;

/* grads += the gradient, from d_out [n, D] of the rows of the last forward
   pass; the encoder must not have changed. scratch [piece, D]. ERR_NOMEM. */
enum err gradcache_backward(struct gradcache *cache,
    const struct encoder *encoder, struct inputs *inputs, const float *d_out,
    struct encoder_grads *grads, float *scratch, struct pool *pool) NODISCARD;

/* Vectors of rows first to first + n, in pieces and without a gradient.
   out [n, D]. ERR_NOMEM. */
enum err gradcache_encode(struct gradcache *cache,
    const struct encoder *encoder, struct inputs *inputs, size_t first,
    size_t n, float *out, struct pool *pool) NODISCARD;

#endif
