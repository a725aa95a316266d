/*
 * transformer.c - a transformer's configuration, checked, and the layout of
 * its parameters.
 */
#include "model/transformer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"

/* ------------------------------------------------------- configuration */

struct bound {
    const char *field;
    uint32_t value, min, max;
    bool panels; /* a multiple of KERN_PANEL */
};

static enum err
check_bounds(const struct bound *b, size_t n, struct fault *fault)
{
    for (size_t i = 0; i < n; i++, b++) {
        if (b->value < b->min || b->value > b->max)
            return fault_set(fault, ERR_INVALID, b->field,
                "%s is %u, not within %u and %u", b->field + 1, b->value,
                b->min, b->max);
        if (b->panels && b->value % KERN_PANEL != 0)
            return fault_set(fault, ERR_INVALID, b->field,
                "%s is %u, not a multiple of %d", b->field + 1, b->value,
                KERN_PANEL);
    }
    return OK;
}

static enum err
check_config(const struct transformer_config *c, struct fault *fault)
{
    uint32_t embedding = c->embedding == 0 ? c->hidden : c->embedding;
    const struct bound bounds[] = {
        {"/layers", c->layers, 1, TRANSFORMER_LAYERS_MAX, false},
        {"/hidden", c->hidden, KERN_PANEL, TRANSFORMER_WIDTH_MAX, true},
        {"/embedding", embedding, KERN_PANEL, TRANSFORMER_WIDTH_MAX, true},
        {"/heads", c->heads, 1, TRANSFORMER_WIDTH_MAX, false},
        {"/ffn", c->ffn, KERN_PANEL, TRANSFORMER_FFN_MAX, true},
        {"/vocab", c->vocab, 1, TRANSFORMER_VOCAB_MAX, false},
        {"/max_positions", c->max_positions, 1, TRANSFORMER_POSITIONS_MAX,
            false},
        {"/token_types", c->token_types, 0, TRANSFORMER_TYPES_MAX, false},
        {"/dense", c->dense, 0, TRANSFORMER_WIDTH_MAX, true},
        {"/positions", (uint32_t)c->positions, 0,
            TRANSFORMER_POSITIONS_SINUSOIDAL, false},
        {"/norm", (uint32_t)c->norm, 0, TRANSFORMER_NORM_PRE, false},
        {"/act", (uint32_t)c->act, KERN_ACT_RELU, KERN_ACT_GELU_TANH, false},
        {"/pooling", (uint32_t)c->pooling, 0, TOKENPOOL_MAX, false},
    };
    const uint32_t widths[] = {embedding, c->hidden};
    enum err err = check_bounds(bounds, ARRAY_LEN(bounds), fault);

    if (err != OK)
        return err;
    for (size_t i = 0; i < (c->layers > 1 ? 2 : 1); i++) {
        if (widths[i] % c->heads != 0 || widths[i] / c->heads % KERN_PANEL != 0)
            return fault_set(fault, ERR_INVALID, "/heads",
                "%u heads do not cut a width of %u into multiples of %d",
                c->heads, widths[i], KERN_PANEL);
    }
    if (c->position_offset >= c->max_positions)
        return fault_set(fault, ERR_INVALID, "/position_offset",
            "position_offset is %u of %u max_positions", c->position_offset,
            c->max_positions);
    if (!(c->norm_eps > 0 && c->norm_eps <= 0.1f))
        return fault_set(fault, ERR_INVALID, "/norm_eps",
            "norm_eps is %g, not within 0 and 0.1", (double)c->norm_eps);
    if (!isfinite(c->embedding_scale) || !(fabsf(c->embedding_scale) > 0))
        return fault_set(fault, ERR_INVALID, "/embedding_scale",
            "embedding_scale is %g", (double)c->embedding_scale);
    return OK;
}

/* -------------------------------------------------------------- layout */

/* The parts in their order, to whom it may concern. */
struct parts {
    struct encoder_tensor *out; /* NULL: none are written */
    size_t max, n;
    size_t at; /* parameters so far */
};

static size_t
part(struct parts *p, size_t rows, size_t cols, const char *prefix, size_t i,
    const char *name)
{
    size_t start = p->at;

    if (p->out != NULL && p->n < p->max) {
        struct encoder_tensor *to = &p->out[p->n];

        to->start = start;
        to->dims[0] = rows;
        to->dims[1] = cols;
        if (prefix == NULL)
            (void)snprintf(to->name, sizeof to->name, "%s", name);
        else
            (void)snprintf(
                to->name, sizeof to->name, "%s.%zu.%s", prefix, i, name);
    }
    p->n++;
    p->at += rows * (cols == 0 ? 1 : cols);
    return start;
}

#define LAYER "encoder.layer"

static void
norm_parts(struct parts *p, size_t *at, size_t width, size_t i,
    const char *weight, const char *bias)
{
    *at = part(p, width, 0, LAYER, i, weight);
    (void)part(p, width, 0, LAYER, i, bias);
}

static void
layer_parts(struct parts *p, const struct transformer_config *c,
    struct transformer_layer *l, size_t i)
{
    size_t W = l->in, H = c->hidden, F = c->ffn;
    bool pre = c->norm == TRANSFORMER_NORM_PRE;

    l->norm1_n = pre ? W : H;
    if (pre)
        norm_parts(p, &l->norm1, W, i, "attention.LayerNorm.weight",
            "attention.LayerNorm.bias");
    l->qkv_w = part(p, W, W, LAYER, i, "attention.self.query.weight");
    (void)part(p, W, W, LAYER, i, "attention.self.key.weight");
    (void)part(p, W, W, LAYER, i, "attention.self.value.weight");
    l->qkv_b = part(p, W, 0, LAYER, i, "attention.self.query.bias");
    (void)part(p, W, 0, LAYER, i, "attention.self.key.bias");
    (void)part(p, W, 0, LAYER, i, "attention.self.value.bias");
    l->out_w = part(p, H, W, LAYER, i, "attention.output.dense.weight");
    l->out_b = part(p, H, 0, LAYER, i, "attention.output.dense.bias");
    l->res_w = l->res_b = 0;
    if (W != H) {
        l->res_w = part(p, H, W, LAYER, i, "attention.output.residual.weight");
        l->res_b = part(p, H, 0, LAYER, i, "attention.output.residual.bias");
    }
    if (!pre)
        norm_parts(p, &l->norm1, H, i, "attention.output.LayerNorm.weight",
            "attention.output.LayerNorm.bias");
    else
        norm_parts(p, &l->norm2, H, i, "intermediate.LayerNorm.weight",
            "intermediate.LayerNorm.bias");
    l->up_w = part(p, F, H, LAYER, i, "intermediate.dense.weight");
    l->up_b = part(p, F, 0, LAYER, i, "intermediate.dense.bias");
    l->down_w = part(p, H, F, LAYER, i, "output.dense.weight");
    l->down_b = part(p, H, 0, LAYER, i, "output.dense.bias");
    if (!pre)
        norm_parts(p, &l->norm2, H, i, "output.LayerNorm.weight",
            "output.LayerNorm.bias");
}

#define EMBEDDINGS "embeddings."

static void
all_parts(struct parts *p, struct transformer *t)
{
    const struct transformer_config *c = &t->config;
    size_t E = t->embedding;

    t->word =
        part(p, c->vocab, E, NULL, 0, EMBEDDINGS "word_embeddings.weight");
    if (c->positions == TRANSFORMER_POSITIONS_LEARNED)
        t->position = part(p, c->max_positions, E, NULL, 0,
            EMBEDDINGS "position_embeddings.weight");
    if (c->token_types > 0)
        t->type = part(p, c->token_types, E, NULL, 0,
            EMBEDDINGS "token_type_embeddings.weight");
    if (c->embedding_norm) {
        t->norm = part(p, E, 0, NULL, 0, EMBEDDINGS "LayerNorm.weight");
        (void)part(p, E, 0, NULL, 0, EMBEDDINGS "LayerNorm.bias");
    }
    for (size_t i = 0; i < c->layers; i++) {
        t->layers[i].in = i == 0 ? E : c->hidden;
        layer_parts(p, c, &t->layers[i], i);
    }
    if (c->dense > 0) {
        t->dense_w = part(p, c->dense, c->hidden, NULL, 0, "linear.weight");
        t->dense_b = part(p, c->dense, 0, NULL, 0, "linear.bias");
    }
}

enum err
transformer_plan(struct transformer *t, const struct transformer_config *config,
    struct fault *fault)
{
    struct transformer plan = {.config = *config};
    struct parts parts = {.out = NULL};
    enum err err = check_config(config, fault);

    if (err != OK)
        return err;
    plan.embedding =
        config->embedding == 0 ? config->hidden : config->embedding;
    plan.width = MAX(plan.embedding, (size_t)config->hidden);
    plan.n_dims = config->dense > 0 ? config->dense : config->hidden;
    plan.max_tokens = config->max_positions - config->position_offset;
    all_parts(&parts, &plan); /* below 2^38 by the bounds */
    plan.n_params = parts.at;
    if (plan.n_params > TRANSFORMER_PARAMS_MAX)
        return fault_set(fault, ERR_TOO_LARGE, "",
            "%zu parameters are over the limit of %zu", plan.n_params,
            TRANSFORMER_PARAMS_MAX);
    *t = plan;
    return OK;
}

size_t
transformer_tensors(
    const struct transformer *t, struct encoder_tensor *out, size_t max)
{
    struct transformer again = *t;
    struct parts parts = {.out = out, .max = max};

    all_parts(&parts, &again);
    return parts.n;
}

static bool
is_gain(const char *name)
{
    return strstr(name, "LayerNorm.weight") != NULL;
}

void
transformer_init(const struct transformer *t, float *params, struct rng *rng)
{
    struct transformer again = *t;
    struct encoder_tensor tensor[32 * TRANSFORMER_LAYERS_MAX];
    struct parts parts = {.out = tensor, .max = ARRAY_LEN(tensor)};

    all_parts(&parts, &again);
    for (size_t i = 0; i < parts.n; i++) {
        const struct encoder_tensor *p = &tensor[i];
        bool vector = p->dims[1] == 0;
        size_t n = p->dims[0] * (vector ? 1 : p->dims[1]);

        for (size_t j = p->start; j < p->start + n; j++)
            params[j] = vector ? (is_gain(p->name) ? 1.0f : 0.0f)
                               : 0.02f * (float)rng_normal(rng);
    }
}

/* ------------------------------------------------------------ segments */

size_t
transformer_n_segments_max(const struct transformer *t)
{
    return t->config.vocab / 2 + 1 + transformer_tensors(t, NULL, 0);
}

static void
add_segment(struct encoder_segment **to, size_t start, size_t end, bool vector)
{
    if (start < end)
        *(*to)++ = (struct encoder_segment){.start = start,
            .n = end - start,
            .lr_scale = 1,
            .no_decay = vector};
}

static void
word_segments(const struct transformer *t, const uint8_t *marks,
    struct encoder_segment **to)
{
    size_t E = t->embedding, vocab = t->config.vocab;

    for (size_t i = 0; i < vocab;) {
        size_t first = i;
        while (i < vocab && marks[i] != 0)
            i++;
        add_segment(to, t->word + first * E, t->word + i * E, false);
        while (i < vocab && marks[i] == 0)
            i++;
    }
}

size_t
transformer_segments(const struct transformer *t, size_t n_frozen,
    const uint8_t *marks, struct encoder_segment *out)
{
    const struct transformer_config *c = &t->config;
    struct encoder_segment *to = out;
    bool pre = c->norm == TRANSFORMER_NORM_PRE;
    size_t E = t->embedding, tables = t->word + c->vocab * E;
    size_t end = c->embedding_norm ? t->norm : t->layers[0].norm1;

    if (!c->embedding_norm && !pre)
        end = t->layers[0].qkv_w;
    if (n_frozen == 0) {
        word_segments(t, marks, &to);
        add_segment(&to, tables, end, false);
        if (c->embedding_norm)
            add_segment(&to, t->norm, t->norm + 2 * E, true);
    }
    for (size_t i = n_frozen > 0 ? n_frozen - 1 : 0; i < c->layers; i++) {
        const struct transformer_layer *l = &t->layers[i];
        size_t last = l->down_b + c->hidden + (pre ? 0 : 2 * c->hidden);

        if (pre)
            add_segment(&to, l->norm1, l->qkv_w, true);
        add_segment(&to, l->qkv_w, l->qkv_b, false);
        add_segment(&to, l->qkv_b, l->out_w, true);
        add_segment(&to, l->out_w, l->out_b, false);
        add_segment(&to, l->out_b, l->out_b + c->hidden, true);
        if (l->res_w != 0) {
            add_segment(&to, l->res_w, l->res_b, false);
            add_segment(&to, l->res_b, l->res_b + c->hidden, true);
        }
        add_segment(&to, pre ? l->norm2 : l->norm1, l->up_w, true);
        add_segment(&to, l->up_w, l->up_b, false);
        add_segment(&to, l->up_b, l->down_w, true);
        add_segment(&to, l->down_w, l->down_b, false);
        add_segment(&to, l->down_b, last, true);
    }
    if (c->dense > 0) {
        add_segment(&to, t->dense_w, t->dense_b, false);
        add_segment(&to, t->dense_b, t->dense_b + c->dense, true);
    }
    return (size_t)(to - out);
}
