/*
 * lora.h - low-rank adaptation: of a matrix W0 [out, in] of the encoder only
 * the two factors of a difference are trained,
 *
 *   W = W0 + s B A,   A [r, in], B [out, r],  s = alpha / r
 *
 * A normal with deviation 1 / sqrt(3 in) (the deviation of the uniform numbers
 * that the authors' code takes), B zero, so that W begins as W0. From the
 * gradient dW that encoder_backward gives
 *
 *   dB = s dW A^T,   dA = s B^T dW
 *
 * and an optimiser of its own steps the factors, all in one flat block. W is
 * then written into the encoder's parameters, as a fresh sum: what is encoded
 * with, saved and served is a plain encoder. Source: Hu et al. 2021
 * (arXiv:2106.09685), sec. 4.1.
 *
 * All but the targets stays as it is, whatever gradient it has. Memory: the
 * targets once more, and the factors with their gradient and moments.
 */
#ifndef TRAIN_LORA_H
#define TRAIN_LORA_H

#include "model/encoder.h"
#include "train/optimizer.h"

#define LORA_RANK_MAX 256

/* Matrices of a transformer's layers. */
enum lora_target {
    LORA_QUERY,
    LORA_KEY,
    LORA_VALUE,
    LORA_OUTPUT,
    LORA_UP,
    LORA_DOWN,
    LORA_TARGETS
};
extern const char *const lora_target_names[LORA_TARGETS];

struct lora_options {
    size_t rank; /* r, 1..LORA_RANK_MAX */
    float alpha;
    bool targets[LORA_TARGETS];
};

struct lora;
struct state;

/* The targets' values as they are become W0. ERR_INVALID when the encoder has
   none of the targets, ERR_NOMEM. */
enum err lora_new(struct lora **out, const struct encoder *encoder,
    const struct lora_options *options,
    const struct optimizer_options *optimizer, uint64_t seed,
    struct fault *fault) NODISCARD;
void lora_free(struct lora *lora);
size_t lora_n_factors(const struct lora *lora); /* numbers that are trained */
size_t lora_bytes(const struct lora *lora);

/* Where W_i and its factors are, for tests: false past the last. */
struct lora_part {
    size_t w;             /* start in the encoder's parameters */
    size_t out, in;       /* W [out, in] */
    float *a, *b;         /* [r, in], [out, r] */
    const float *da, *db; /* of the last lora_gradient */
};
bool lora_part(const struct lora *lora, size_t i, struct lora_part *out);

/*
 * lora_step - dA and dB from d_params [n_params], a step of the optimiser, and
 * params with the new W. The two halves of it:
 *
 * lora_gradient - overwrites the gradient of the factors.
 * lora_merge - writes W_i of all targets.
 *
 * Allocate nothing, cannot fail; the same bits for any pool.
 */
void lora_step(struct lora *lora, float *params, const float *d_params,
    float lr, struct pool *pool);
void lora_gradient(struct lora *lora, const float *d_params, struct pool *pool);
void lora_merge(const struct lora *lora, float *params, struct pool *pool);

/* Its part of a checkpoint. */
void lora_state(struct lora *lora, struct state *s);

#endif
