/*
 * encoder.h - what every encoder is: a batch in, unit vectors out.
 *
 * An encoder is a family (static, vision, transformer), a configuration and
 * one flat block of parameters; a transformer has an asset besides, the bytes
 * of its tokenizer. It is immutable while it is shared: any
 * number of threads may encode with it at once. Training works on a private
 * clone: encoder_forward keeps on a tape what encoder_backward needs, the
 * gradient comes as a second block of the parameters' shape together with the
 * segments that are not zero, and an optimiser walks those segments knowing
 * nothing of the family.
 *
 * The fingerprint is SHA-256 over the family, the configuration and the
 * family's parameters: two encoders with the same fingerprint give the items
 * the same vectors (up to the stated rounding of the kernels).
 *
 * Any encoder may have an adapter behind it (encoder_with_adapter), which
 * changes queries alone. The fingerprint leaves it out: what is embedded stays
 * where it is.
 */
#ifndef MODEL_ENCODER_H
#define MODEL_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/rng.h"

#define ENCODER_DIMS_MIN 8
#define ENCODER_DIMS_MAX 4096

struct encoder;
struct encoder_tape;
struct image;

/* What a family reads. */
enum encoder_reads { ENCODER_READS_TEXT, ENCODER_READS_IMAGE };

/* One thing to encode; borrowed. The member that the family reads is used. */
struct encoder_input {
    const char *text; /* UTF-8 */
    size_t len;
    const struct image *image; /* any size; NULL: none (a zero vector) */
    bool query; /* it is asked with, else an item: a transformer may put
                   another prefix before each, an adapter changes it */
    const float *vector; /* [D] NULL, or what the encoder without its adapter
                            made of it already, which is then taken; of all
                            inputs of a call or of none */
};

/* What an encoder did with one input. */
struct encoder_info {
    uint32_t n_tokens;      /* tokens that were used (static: words) */
    uint32_t n_tokens_full; /* tokens of the whole text; more: truncated */
    bool empty;             /* no feature at all: the vector is zero */
};

/* A part of the parameters. */
struct encoder_segment {
    size_t start;
    size_t n;
    float lr_scale; /* of the optimiser's learning rate for these; 0: fixed */
    bool no_decay;  /* no weight decay: gains, biases */
};

struct encoder_grads {
    float *d_params; /* [n_params], zero outside the segments */
    struct encoder_segment *segments; /* disjoint, ascending */
    size_t n_segments;
    uint8_t *marks; /* the family's notes of what is not zero */
    size_t n_marks;
};

/*
 * encoder_new - an untrained encoder.
 *
 *   family       "static", "vision"
 *   config_json  the family's settings, {} for all defaults: for static
 *                {"dims": 512, "buckets": 65536, "seed": 1, ...}; for vision
 *                {"input": 32, "channels": 3, "width": 16, "stages": 2, ...}
 *   config       given the complete canonical settings, as stored with a
 *                generation (caller inits and releases); may be NULL
 *
 * Errors: ERR_INVALID with a pointer into config_json, ERR_UNSUPPORTED for an
 * unknown family, ERR_NOMEM.
 */
enum err encoder_new(struct encoder **out, const char *family,
    const char *config_json, struct buf *config, struct fault *fault) NODISCARD;

/*
 * encoder_build - an encoder of a family that has an asset, from its parts.
 *
 *   asset  [n_asset] copied; transformer: a tokenizer.json
 *
 * Its parameters are undefined until the caller has set all of them
 * (encoder_params, then encoder_seal). Errors as of encoder_new and those of
 * what the asset is, with a detail that says so.
 */
enum err encoder_build(struct encoder **out, const char *family,
    const char *config_json, const void *asset, size_t n_asset,
    struct fault *fault) NODISCARD;
/* Borrowed from the encoder; NULL where the family has none. */
const void *encoder_asset(const struct encoder *encoder, size_t *n);

void encoder_free(struct encoder *encoder);

/* A private copy to train. */
enum err encoder_clone(
    struct encoder **out, const struct encoder *encoder) NODISCARD;

const char *encoder_family(const struct encoder *encoder);
enum encoder_reads encoder_reads(const struct encoder *encoder);
/* The pictures that it is best given: side x side pixels of 1 (grey) or 3 (RGB)
   channels; others are fitted (image_fit). 0 when it reads text. */
uint32_t encoder_image_side(const struct encoder *encoder);
uint32_t encoder_image_channels(const struct encoder *encoder);
size_t encoder_dims(const struct encoder *encoder);
size_t encoder_max_tokens(const struct encoder *encoder);
bool encoder_is_trained(const struct encoder *encoder); /* else: its seed */
const char *encoder_config_json(const struct encoder *encoder);
/* Heap in use, with what encoding remembers of the parameters. */
size_t encoder_bytes(const struct encoder *encoder);

/*
 * encoder_encode - vectors for n texts or pictures.
 *
 *   out   [n, D]  overwritten: unit rows, or zero for an input without features
 *   info  [n]     overwritten; may be NULL
 *   pool          splits large batches; NULL: the calling thread alone
 *
 * Errors: ERR_NOMEM. Safe from any thread.
 */
enum err encoder_encode(const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info, struct pool *pool) NODISCARD;

/* The same without the adapter. */
enum err encoder_encode_plain(const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info, struct pool *pool) NODISCARD;

/* The tokens of a text as the family sees them: fn is called once a token.
   ERR_UNSUPPORTED where it reads pictures. */
typedef void encoder_token_fn(
    void *arg, const char *token, size_t len, uint32_t id);
enum err encoder_tokenize(const struct encoder *encoder, const char *text,
    size_t len, encoder_token_fn *fn, void *arg) NODISCARD;

/* Parameters: one flat block. Writing is for the owner of a private clone;
   once encoder_params was called nothing is remembered from one call to the
   next, until encoder_seal says that the writing is over. */
float *encoder_params(struct encoder *encoder, size_t *n_params);
const float *encoder_params_const(
    const struct encoder *encoder, size_t *n_params);
void encoder_seal(struct encoder *encoder); /* before it is shared */

/* One tensor of the saved form: a named run of the flat parameters. */
struct encoder_tensor {
    char name[64];
    size_t start;   /* into the parameters */
    size_t dims[2]; /* rows, columns; a vector has dims[1] = 0 */
};
/* The parts of the parameters, ascending; out may be NULL to count them. */
size_t encoder_tensors(
    const struct encoder *encoder, struct encoder_tensor *out, size_t max);

/*
 * An adapter is a matrix A [D, D] behind an encoder: a query's vector is
 * unit(A x), x being that of the encoder without it; an item's is x. It is the
 * last of the parameters, tensor "adapter.weight", and the settings have
 * "adapter": true. A linear map between vector spaces, as Mikolov et al. 2013
 * (arXiv:1309.4168).
 *
 * encoder_with_adapter     a private copy with the adapter that the encoder
 *                          has, or the identity
 * encoder_without_adapter  a private copy without; untrained again when its
 *                          parameters are those of its settings
 * encoder_adapter_alone    the adapter of such a copy as an encoder of its own,
 *                          whose inputs are vectors: trained in little memory
 * encoder_adapter          A of a private copy or of one alone; NULL: none
 */
enum err encoder_with_adapter(
    struct encoder **out, const struct encoder *encoder) NODISCARD;
enum err encoder_without_adapter(
    struct encoder **out, const struct encoder *encoder) NODISCARD;
enum err encoder_adapter_alone(
    struct encoder **out, const struct encoder *encoder) NODISCARD;
float *encoder_adapter(struct encoder *encoder);
const float *encoder_adapter_const(const struct encoder *encoder);

void encoder_fingerprint(
    const struct encoder *encoder, uint8_t out[SHA256_BYTES]);

/*
 * encoder_save / encoder_load - the weights as a safetensors stream (an
 * untrained encoder saves no tensor: its configuration is enough).
 * write and read move exactly n bytes or return an error, which is passed on.
 * encoder_load checks sizes, types, overlaps, NaN before it takes memory by
 * them: ERR_CORRUPT with a fault naming the tensor.
 */
typedef enum err encoder_write_fn(void *arg, const void *bytes, size_t n);
typedef enum err encoder_read_fn(void *arg, void *bytes, size_t n);
enum err encoder_save(const struct encoder *encoder, encoder_write_fn *write,
    void *arg) NODISCARD;
enum err encoder_load(struct encoder **out, const char *family,
    const char *config_json, encoder_read_fn *read, void *arg, uint64_t n_bytes,
    struct fault *fault) NODISCARD;
uint64_t encoder_save_bytes(const struct encoder *encoder);

/*
 * Training. A tape belongs to one encoder and one thread at a time. An encoder
 * with an adapter trains that alone.
 *
 * encoder_freeze - train only the last n parts of a private clone (transformer:
 * layers; the embeddings lie below the first), from the next encoder_tape_new
 * on; n = encoder_n_parts trains all, 0 for a family without parts.
 */
size_t encoder_n_parts(const struct encoder *encoder);
void encoder_freeze(struct encoder *encoder, size_t n_last);
enum err encoder_tape_new(
    struct encoder_tape **out, const struct encoder *encoder) NODISCARD;
void encoder_tape_free(struct encoder_tape *tape);
/* Heap that it holds for the largest batch so far. */
size_t encoder_tape_bytes(const struct encoder_tape *tape);
/* Heap that it will hold for an input, about, or for the largest there may be
   (NULL); 0: it is little. */
size_t encoder_tape_input_bytes(
    const struct encoder *encoder, const struct encoder_input *input);

/* Dropout and noise of one training forward pass. */
struct encoder_noise {
    struct rng *rng;       /* NULL: none */
    float token_dropout;   /* probability that a token is left out */
    float feature_dropout; /* probability that a token's feature is */
};

/*
 * encoder_forward - as encoder_encode, keeping what backward needs.
 * encoder_backward - d_params += d loss / d params, from d_out [n, D].
 * The gradient's segments list every part it touched since
 * encoder_grads_clear. Reductions run over fixed shards: the same inputs give
 * the same bits for any pool.
 */
enum err encoder_forward(const struct encoder *encoder,
    struct encoder_tape *tape, const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool) NODISCARD;
enum err encoder_backward(const struct encoder *encoder,
    struct encoder_tape *tape, const float *d_out, struct encoder_grads *grads,
    struct pool *pool) NODISCARD;

enum err encoder_grads_new(
    struct encoder_grads **out, const struct encoder *encoder) NODISCARD;
void encoder_grads_free(struct encoder_grads *grads);
void encoder_grads_clear(struct encoder_grads *grads);

/*
 * encoder_refit - set what an encoder takes from a corpus without training
 * (static: the document frequencies behind its feature weights; vision: the
 * mean and the deviation of the channels), from the inputs that next gives
 * until it returns false. Only for a private
 * clone.
 */
typedef bool encoder_next_fn(void *arg, struct encoder_input *input);
enum err encoder_refit(
    struct encoder *encoder, encoder_next_fn *next, void *arg) NODISCARD;

#endif
