/*
 * transformer_encoder.h - texts by a published transformer: its tokenizer, its
 * prefixes, its network (transformer.h), as a family of encoders.
 *
 * A text is the prefix of its side (a query's or an item's) and the text
 * without the white space around it, cut to max_tokens with the special tokens.
 * A text without any token of its own has the zero vector, as in every family.
 *
 * Settings, those with * are required:
 *
 *   layers*, hidden*, heads*, ffn*, vocab*, max_positions*
 *   embedding        width of the embeddings; hidden
 *   positions        "learned", "sinusoidal"
 *   position_offset  0
 *   token_types      0
 *   embedding_scale  1
 *   embedding_norm   true
 *   norm             "post", "pre"
 *   norm_eps         1e-12
 *   act              "gelu", "gelu_tanh", "relu"
 *   pooling          "mean", "cls", "max"
 *   dense, dense_tanh, normalise    0, true, true
 *   max_tokens       max_positions - position_offset, which is the most
 *   query_prefix, item_prefix       ""
 *   compute          "f32", "bf16", "int8": of encoding; training is in f32
 *   tokenizer*       SHA-256 of the asset, a tokenizer.json
 */
#ifndef MODEL_TRANSFORMER_ENCODER_H
#define MODEL_TRANSFORMER_ENCODER_H

#include "model/family.h"
#include "model/transformer.h"
#include "text/tokenizer.h"

#define TRANSFORMER_PREFIX_MAX 256 /* bytes */

/* What is made of the asset. */
struct transformer_asset {
    struct tokenizer *tokenizer;
    size_t n_special; /* tokens around every text */
    size_t n_before;  /* of those, before it */
};

struct transformer_encoder {
    struct encoder base;
    struct transformer net;
    enum transformer_compute compute;
    char prefix[2][TRANSFORMER_PREFIX_MAX + 1]; /* [query] */
    size_t prefix_len[2];
    size_t n_bare[2]; /* tokens of a text of which nothing is left */
};

static inline const struct transformer_encoder *
transformer_of(const struct encoder *encoder)
{
    return (const struct transformer_encoder *)(const void *)encoder;
}

/* Texts as sequences of tokens; the memory grows to what the largest batch
   needed. */
struct transformer_tokens {
    struct tokenizer_workspace *workspace;
    uint32_t *ids;
    size_t *offsets; /* [n + 1] */
    size_t n_ids, cap_ids, cap_offsets;
    char *text; /* a prefix and a text */
    size_t cap_text;
};

void transformer_tokens_release(struct transformer_tokens *tokens);

/*
 * transformer_tokens_read - tokens for n texts; a text without tokens of its
 * own gives none. Of one that is more than tokenizer_encode takes the beginning
 * is read, and info says that it was truncated.
 *
 *   noise  NULL: none; tokens other than the special ones are dropped by
 *          token_dropout, but not all of them
 *   info   [n]  overwritten; may be NULL
 *
 * ERR_NOMEM.
 */
enum err transformer_tokens_read(struct transformer_tokens *tokens,
    const struct transformer_encoder *e, const struct encoder_input *inputs,
    size_t n, const struct encoder_noise *noise,
    struct encoder_info *info) NODISCARD;

/* transformer_settings.c: the settings into what e has of them, and e as its
   complete settings, keys in order. Faults point into config. */
enum err transformer_settings_read(struct transformer_encoder *e,
    const struct json *config, struct fault *fault) NODISCARD;
void transformer_settings_write(const struct transformer_encoder *e,
    const struct json *config, struct buf *out);

#endif
