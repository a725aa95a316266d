/*
 * transformer.h - the network of transformer sentence encoders: token ids in,
 * one vector a sequence out, forward and backward, in f32; forward also with
 * linear layers in bf16 or int8.
 *
 * One network with a configuration. For a sequence of tokens t with ids:
 *
 *   x   = scale word[id_t] + position[t + offset] + type[0]   (then LN)
 *   a layer, norm post (BERT: Devlin et al. 2019, arXiv:1810.04805):
 *       x <- LN1(res(x) + Wo attention(Wqkv x)),
 *       x <- LN2(x + Wd act(Wu x))
 *   norm pre (Xiong et al. 2020, arXiv:2002.04745, fig. 1b; no norm at the
 *   end):
 *       x <- res(x) + Wo attention(Wqkv LN1(x)),
 *       x <- x + Wd act(Wu LN2(x))
 *   out = unit(tanh(D pool(x) + b)), each of the two where it is asked for
 *
 * Every linear layer has a bias. res is the identity, or in a first layer whose
 * input is narrower than hidden a linear layer of its own.
 *
 * The tokens of all sequences stand one behind the other, [T, width], and
 * nothing is padded. Sequences are cut into shards of about equal tokens by
 * their lengths alone; a shard goes through all layers by itself, so that its
 * activations stay in the cache and no result depends on the number of threads.
 *
 * The parameters are one flat block that the caller owns; transformer_tensors
 * names its parts as published checkpoints do. All functions that take a const
 * struct transformer may run at once in many threads; a work, a tape and a
 * ready that is being filled belong to one caller.
 */
#ifndef MODEL_TRANSFORMER_H
#define MODEL_TRANSFORMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "model/encoder.h"
#include "model/family.h"
#include "nn/tokenpool.h"

#define TRANSFORMER_LAYERS_MAX 64
#define TRANSFORMER_WIDTH_MAX 4096
#define TRANSFORMER_FFN_MAX 16384
#define TRANSFORMER_VOCAB_MAX (1u << 20)
#define TRANSFORMER_POSITIONS_MAX 16384
#define TRANSFORMER_TYPES_MAX 16
#define TRANSFORMER_PARAMS_MAX ((size_t)1 << 30)

enum transformer_norm { TRANSFORMER_NORM_POST, TRANSFORMER_NORM_PRE };
enum transformer_positions {
    TRANSFORMER_POSITIONS_LEARNED,
    TRANSFORMER_POSITIONS_SINUSOIDAL /* sines, then cosines; 1 to 10^-4 */
};

/* Widths are multiples of KERN_PANEL, and so is a head's part of them. */
struct transformer_config {
    uint32_t layers;
    uint32_t hidden;
    uint32_t heads;
    uint32_t ffn;
    uint32_t vocab;
    uint32_t embedding; /* width of the embeddings; 0: hidden */
    enum transformer_positions positions;
    uint32_t max_positions;   /* rows of the table */
    uint32_t position_offset; /* row of the first token (RoBERTa: 2) */
    uint32_t token_types;     /* 0: none; all tokens are of type 0 */
    float embedding_scale;    /* of the words; finite, not 0 */
    bool embedding_norm;
    enum transformer_norm norm;
    float norm_eps;
    enum kern_act act;
    enum tokenpool pooling;
    uint32_t dense;  /* width of the dense head; 0: none */
    bool dense_tanh; /* else it is linear */
    bool normalise;
};

/* Where a layer's parameters are; res_w is 0 without a projection, and norms
   stand where the configuration has them. */
struct transformer_layer {
    size_t in; /* width of its input */
    size_t qkv_w, qkv_b;
    size_t out_w, out_b;
    size_t res_w, res_b;
    size_t norm1, norm2; /* the gain; the bias behind it */
    size_t norm1_n;      /* width */
    size_t up_w, up_b;
    size_t down_w, down_b;
};

struct transformer {
    struct transformer_config config;
    size_t n_params;
    size_t n_dims;                     /* of an output row */
    size_t max_tokens;                 /* of a sequence */
    size_t embedding;                  /* width */
    size_t width;                      /* the larger of it and hidden */
    size_t word, position, type, norm; /* the tables, and their norm's gain */
    size_t dense_w, dense_b;
    struct transformer_layer layers[TRANSFORMER_LAYERS_MAX];
};

/* A layout from a configuration. ERR_INVALID with a pointer to the field, and
   ERR_TOO_LARGE for more than TRANSFORMER_PARAMS_MAX parameters; takes no
   memory. */
enum err transformer_plan(struct transformer *t,
    const struct transformer_config *config, struct fault *fault) NODISCARD;

/* The parts of the parameters, ascending and without gaps; out may be NULL to
   count them. q, k and v of a layer are adjacent, [out, in] as published. */
size_t transformer_tensors(
    const struct transformer *t, struct encoder_tensor *out, size_t max);

/* Untrained parameters: weights and tables normal with deviation 0.02, gains 1,
   biases 0. */
void transformer_init(
    const struct transformer *t, float *params, struct rng *rng);

/* Sequences: the ids of all, sequence i at [offsets[i], offsets[i + 1]). */
struct transformer_batch {
    const uint32_t *ids;
    const size_t *offsets; /* [n + 1], ascending from 0 */
    size_t n;
};

/* How the linear layers of the blocks are kept and multiplied: kern/panels.h.
   Embeddings, the dense head and all between are f32. Training is in f32. */
enum transformer_compute {
    TRANSFORMER_F32,
    TRANSFORMER_BF16,
    TRANSFORMER_INT8
};

/* The weights as the kernels want them: packed once for parameters that stay as
   they are, and position tables that are no parameters. */
struct transformer_ready;

enum err transformer_ready_new(struct transformer_ready **out,
    const struct transformer *t, enum transformer_compute compute) NODISCARD;
void transformer_ready_free(struct transformer_ready *ready);
size_t transformer_ready_bytes(
    const struct transformer *t, enum transformer_compute compute);
void transformer_ready_weights(struct transformer_ready *ready,
    const struct transformer *t, const float *params, struct pool *pool);

/* Scratch of calls that encode; it grows with what they need. */
struct transformer_work;

enum err transformer_work_new(struct transformer_work **out) NODISCARD;
void transformer_work_free(struct transformer_work *work);
size_t transformer_work_bytes(const struct transformer_work *work);

/*
 * transformer_encode - one vector a sequence.
 *
 *   out    [n, n_dims]  overwritten; zero for a sequence without tokens
 *   ready  filled from these params
 *
 * ERR_INVALID for an id from vocab on and a sequence over max_tokens, before
 * anything is computed; ERR_NOMEM. The same bits for any pool; in another batch
 * a sequence's vector differs by rounding at most.
 */
enum err transformer_encode(const struct transformer *t, const float *params,
    const struct transformer_ready *ready, struct transformer_work *work,
    const struct transformer_batch *batch, float *out,
    struct pool *pool) NODISCARD;

/*
 * Training. n_frozen parts from the bottom stay as they are and are neither
 * kept on the tape nor differentiated: 1 is the embeddings, 1 + l also the
 * first l layers.
 *
 * The tape keeps of every token and trained layer of input width W the input of
 * its norms and linear layers and the queries, keys and values: with H = hidden
 *
 *   post  4 * (5 W + 3 H + ffn + 4) bytes
 *   pre   4 * (6 W + 2 H + ffn + 4) bytes
 *
 * (MiniLM, 6 layers of 384: 108 KB a token), and one layer's gradients of all
 * tokens: 4 * (2 H + 2 ffn + 3 W + max(W, H)) bytes (21 KB). Scores, and what
 * the activation made, are computed again. Beside it are one layer's matrices
 * (7 MB) and 0.4 MB a thread.
 */
struct transformer_tape;

enum err transformer_tape_new(struct transformer_tape **out,
    const struct transformer *t, size_t n_frozen) NODISCARD;
void transformer_tape_free(struct transformer_tape *tape);
size_t transformer_tape_bytes(const struct transformer_tape *tape);

/*
 * transformer_forward - as transformer_encode, keeping what backward needs.
 * transformer_backward - d_params += d loss / d params, from d_out [n, n_dims].
 *
 *   batch  its arrays stay as they are between the two, and so do params
 *   marks  [vocab] set to 1 for the word rows that got a gradient
 *
 * Reductions run in an order that the lengths alone decide: the same bits for
 * any pool. ERR_INVALID (as above), ERR_NOMEM.
 */
enum err transformer_forward(const struct transformer *t, const float *params,
    struct transformer_tape *tape, const struct transformer_batch *batch,
    float *out, struct pool *pool) NODISCARD;
enum err transformer_backward(const struct transformer *t, const float *params,
    struct transformer_tape *tape, const float *d_out, float *d_params,
    uint8_t *marks, struct pool *pool) NODISCARD;

/* The segments of such a gradient: runs of marked words, and all that is not
   frozen. Gains and biases take no weight decay. */
size_t transformer_n_segments_max(const struct transformer *t);
size_t transformer_segments(const struct transformer *t, size_t n_frozen,
    const uint8_t *marks, struct encoder_segment *out);

#endif
