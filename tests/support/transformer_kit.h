/*
 * transformer_kit.h - a tiny transformer for tests: a WordPiece tokenizer of
 * 44 pieces, two layers of width 32, random parameters from a seed.
 */
#ifndef TESTS_TRANSFORMER_KIT_H
#define TESTS_TRANSFORMER_KIT_H

#include <stddef.h>
#include <stdint.h>
#include "model/encoder.h"

#define TRANSFORMER_KIT_DIMS 32
#define TRANSFORMER_KIT_TOKENS 24 /* of a text, the special ones with them */
#define TRANSFORMER_KIT_PIECES 44
#define TRANSFORMER_KIT_CLS 2 /* before every text */
#define TRANSFORMER_KIT_SEP 3 /* behind it */

/* The settings, without the braces, so that a test may add others. */
#define TRANSFORMER_KIT_MEMBERS                                                \
    "\"layers\":2,\"hidden\":32,\"heads\":2,\"ffn\":64,\"vocab\":48,"          \
    "\"max_positions\":24,\"token_types\":2"
#define TRANSFORMER_KIT_CONFIG "{" TRANSFORMER_KIT_MEMBERS "}"
#define TRANSFORMER_KIT_PREFIXES                                               \
    "{" TRANSFORMER_KIT_MEMBERS                                                \
    ",\"query_prefix\":\"query: \",\"item_prefix\":\"passage: \"}"
/* All that the network can do differently. */
#define TRANSFORMER_KIT_OTHER                                                  \
    "{\"layers\":2,\"hidden\":32,\"embedding\":16,\"heads\":1,\"ffn\":48,"     \
    "\"vocab\":44,\"positions\":\"sinusoidal\",\"max_positions\":30,"          \
    "\"position_offset\":2,\"embedding_scale\":4.5,\"embedding_norm\":false,"  \
    "\"norm\":\"pre\",\"norm_eps\":1e-5,\"act\":\"gelu_tanh\","                \
    "\"pooling\":\"cls\",\"dense\":48,\"dense_tanh\":false,"                   \
    "\"max_tokens\":20}"

/* A tokenizer.json: lower case, [CLS] before a text and [SEP] behind it. The
   text is static. */
const char *transformer_kit_tokenizer(size_t *len);
/* The number of a piece. */
uint32_t transformer_kit_id(const char *piece);

/* Parameters large enough that every layer tells texts apart; seals. */
void transformer_kit_fill(struct encoder *encoder, uint64_t seed);
/* encoder_build with the tokenizer above, then transformer_kit_fill. */
enum err transformer_kit_build(struct encoder **out, const char *config,
    uint64_t seed, struct fault *fault) NODISCARD;

/* n_words of the vocabulary from a seed, with spaces between them; gives the
   length. */
size_t transformer_kit_text(
    char *out, size_t size, size_t n_words, uint64_t seed);

#endif
