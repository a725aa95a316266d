/*
 * transformer_net.h - the network of make_transformer.py: its parameters and
 * its sequences, by the same formulas.
 */
#ifndef TESTS_GOLDEN_TRANSFORMER_NET_H
#define TESTS_GOLDEN_TRANSFORMER_NET_H

#include "base/check.h"
#include "model/transformer.h"

#define GOLDEN_PAIRS 6
#define GOLDEN_POSITIONS 9
#define GOLDEN_VOCAB 24
#define GOLDEN_TOKENS (2 * GOLDEN_PAIRS * GOLDEN_POSITIONS)

static const struct transformer_config golden_config = {.layers = 2,
    .hidden = 64,
    .heads = 2,
    .ffn = 96,
    .vocab = GOLDEN_VOCAB,
    .max_positions = GOLDEN_POSITIONS,
    .token_types = 2,
    .embedding_scale = 1,
    .embedding_norm = true,
    .norm_eps = 1e-6f,
    .act = KERN_ACT_GELU,
    .pooling = TOKENPOOL_MEAN,
    .normalise = true};

static inline double
golden_noise(size_t at)
{
    uint32_t x = (uint32_t)at * 2654435761u + 12345u;
    x = (x ^ (x >> 15)) * 2246822519u;
    return (double)(x >> 8) / (1 << 24) - 0.5;
}

static inline void
golden_fill(const struct transformer *t, float *params)
{
    struct encoder_tensor all[64];
    size_t n = transformer_tensors(t, all, ARRAY_LEN(all));

    for (size_t i = 0; i < n; i++) {
        bool vector = all[i].dims[1] == 0, table = i < 3;
        size_t size = all[i].dims[0] * (vector ? 1 : all[i].dims[1]);
        size_t len = strlen(all[i].name);
        bool gain = vector && strcmp(all[i].name + len - 6, "weight") == 0;
        for (size_t j = all[i].start; j < all[i].start + size; j++) {
            double x = golden_noise(j);
            params[j] = (float)(gain ? 1 + x / 2 : x * (table ? 2 : 0.5));
        }
    }
}

static inline struct transformer_batch
golden_sequences(size_t step, uint32_t ids[GOLDEN_TOKENS],
    size_t offsets[2 * GOLDEN_PAIRS + 1])
{
    size_t at = 0;
    for (size_t i = 0; i < 2 * (size_t)GOLDEN_PAIRS; i++) {
        size_t n = 1 + (5 * i + step) % GOLDEN_POSITIONS;
        offsets[i] = at;
        for (size_t k = 0; k < n; k++, at++)
            ids[at] = (uint32_t)((7 * at + step) % GOLDEN_VOCAB);
    }
    offsets[2 * GOLDEN_PAIRS] = at;
    return (struct transformer_batch){ids, offsets, 2 * (size_t)GOLDEN_PAIRS};
}

/* 1 - cosine, in double. */
static inline double
golden_distance(const float *a, const double *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * (double)a[i];
        bb += b[i] * b[i];
    }
    return 1 - ab / sqrt(aa * bb);
}

#endif
