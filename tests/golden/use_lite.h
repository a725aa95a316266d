/*
 * use_lite.h - the published weights of use-lite in our layout, for
 * tests and benchmarks. Its matrices are [in, out].
 */
#ifndef TESTS_GOLDEN_USE_LITE_H
#define TESTS_GOLDEN_USE_LITE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/check.h"
#include "base/json.h"
#include "model/transformer.h"

#define LITE_DIMS 512
#define LITE_TOKENS 128

struct lite_tensors {
    struct json *header;
    const char *data;
    size_t n; /* bytes of data */
};

/* A tensor of rows x cols values to its place, [in, out] to [out, in] when
   turned; cols 0 for a vector. */
static void
lite_copy(const struct lite_tensors *from, float *to, const char *name,
    size_t rows, size_t cols, bool turned)
{
    const struct json *entry = json_find(from->header, name);
    ASSERT(entry != NULL);
    const struct json *at = json_find(entry, "data_offsets");
    size_t start = (size_t)json_i64(json_item(at, 0));
    size_t n = rows * MAX(cols, (size_t)1);

    ASSERT((size_t)json_i64(json_item(at, 1)) == start + 4 * n);
    ASSERT(start + 4 * n <= from->n);
    for (size_t i = 0; i < n; i++) {
        size_t k = turned ? i % cols * rows + i / cols : i;
        memcpy(&to[i], from->data + start + 4 * k, 4);
    }
}

static void
lite_layer(const struct lite_tensors *from, const struct transformer *t,
    float *params, size_t i)
{
    const struct transformer_layer *l = &t->layers[i];
    size_t W = l->in, H = t->config.hidden, F = t->config.ffn;
    const struct {
        const char *name;
        size_t at, rows, cols; /* rows = out */
    } parts[] = {{"attn_ln.scale", l->norm1, W, 0},
        {"attn_ln.bias", l->norm1 + W, W, 0},
        {"qkv.weight", l->qkv_w, 3 * W, W}, {"qkv.bias", l->qkv_b, 3 * W, 0},
        {"attn_out.weight", l->out_w, H, W}, {"attn_out.bias", l->out_b, H, 0},
        {"ffn_ln.scale", l->norm2, H, 0}, {"ffn_ln.bias", l->norm2 + H, H, 0},
        {"ffn1.weight", l->up_w, F, H}, {"ffn1.bias", l->up_b, F, 0},
        {"ffn2.weight", l->down_w, H, F}, {"ffn2.bias", l->down_b, H, 0},
        {"residual.weight", l->res_w, H, W}, {"residual.bias", l->res_b, H, 0}};
    size_t n = ARRAY_LEN(parts) - (l->res_w == 0 ? 2 : 0);
    char name[64];

    for (size_t j = 0; j < n; j++) {
        (void)snprintf(name, sizeof name, "layer%zu.%s", i, parts[j].name);
        lite_copy(from, params + parts[j].at, name, parts[j].rows,
            parts[j].cols, parts[j].cols > 0);
    }
}

/* The plan, and parameters that the caller frees, from model.safetensors. */
static float *
lite_load(struct transformer *t, const struct buf *file)
{
    static const struct transformer_config config = {.layers = 2,
        .hidden = 512,
        .heads = 4,
        .ffn = 1536,
        .vocab = 8002,
        .embedding = 256,
        .positions = TRANSFORMER_POSITIONS_SINUSOIDAL,
        .max_positions = 128,
        .embedding_scale = 2,
        .norm = TRANSFORMER_NORM_PRE,
        .norm_eps = 1e-6f,
        .act = KERN_ACT_RELU,
        .pooling = TOKENPOOL_MEAN,
        .dense = LITE_DIMS,
        .dense_tanh = true,
        .normalise = true};
    struct lite_tensors from;
    uint64_t len;

    ASSERT(file->len > 8);
    memcpy(&len, file->data, 8);
    ASSERT(len < file->len - 8);
    ASSERT(json_parse(file->data + 8, len, 1 << 20, &from.header, NULL) == OK);
    from.data = file->data + 8 + len;
    from.n = file->len - 8 - len;
    ASSERT(transformer_plan(t, &config, NULL) == OK);
    /* theirs and the 128 rates of the sines */
    ASSERT(t->n_params + 128 == 6975872);
    float *params = calloc(t->n_params, sizeof *params);
    ASSERT(params != NULL);
    lite_copy(&from, params + t->word, "embeddings", 8002, 256, false);
    for (size_t i = 0; i < config.layers; i++)
        lite_layer(&from, t, params, i);
    lite_copy(&from, params + t->dense_w, "head.weight", 512, 512, true);
    lite_copy(&from, params + t->dense_b, "head.bias", 512, 0, false);
    json_free(from.header);
    return params;
}

#endif
