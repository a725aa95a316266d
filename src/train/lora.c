#include "train/lora.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/gemm.h"
#include "train/state.h"

#define LAYER "encoder.layer."

const char *const lora_target_names[LORA_TARGETS] = {
    "query", "key", "value", "output", "up", "down"};

/* Behind "encoder.layer.N.". */
static const char *const tensor_names[LORA_TARGETS] = {
    "attention.self.query.weight", "attention.self.key.weight",
    "attention.self.value.weight", "attention.output.dense.weight",
    "intermediate.dense.weight", "output.dense.weight"};

struct target {
    size_t w; /* start in the parameters */
    size_t out, in;
    size_t w0;   /* start in the copies */
    size_t a, b; /* starts in the factors */
};

struct lora {
    size_t rank;
    float scale; /* alpha / rank */
    struct target *targets;
    size_t n_targets;
    float *w0; /* the targets as they began */
    size_t n_w0;
    float *factors;
    size_t n_factors;
    struct encoder_grads grads; /* of the factors; its segments are they */
    struct optimizer *optimizer;
};

/* ---- targets ------------------------------------------------------------- */

static bool
is_target(
    const struct encoder_tensor *tensor, const struct lora_options *options)
{
    const char *name = tensor->name;

    if (strncmp(name, LAYER, sizeof LAYER - 1) != 0)
        return false;
    name += sizeof LAYER - 1;
    while (isdigit((unsigned char)*name))
        name++;
    for (size_t i = 0; i < LORA_TARGETS && *name == '.'; i++)
        if (options->targets[i] && strcmp(name + 1, tensor_names[i]) == 0)
            return true;
    return false;
}

static enum err
find_targets(struct lora *lora, const struct encoder *encoder,
    const struct lora_options *options)
{
    size_t n = encoder_tensors(encoder, NULL, 0), r = options->rank;
    struct encoder_tensor *all = mem_alloc(n, sizeof *all);

    lora->targets = mem_alloc(n, sizeof *lora->targets);
    if (all == NULL || lora->targets == NULL) {
        mem_free(all);
        return ERR_NOMEM;
    }
    (void)encoder_tensors(encoder, all, n);
    for (size_t i = 0; i < n; i++) {
        size_t out = all[i].dims[0], in = all[i].dims[1];
        if (!is_target(&all[i], options))
            continue;
        lora->targets[lora->n_targets++] = (struct target){.w = all[i].start,
            .out = out,
            .in = in,
            .w0 = lora->n_w0,
            .a = lora->n_factors,
            .b = lora->n_factors + r * in};
        lora->n_w0 += out * in;
        lora->n_factors += r * (in + out);
    }
    mem_free(all);
    return OK;
}

/* A random, B zero; each a segment. */
static void
fill(struct lora *lora, const float *params, uint64_t seed)
{
    struct rng rng;

    rng_seed_stream(&rng, seed, 6);
    memset(lora->factors, 0, lora->n_factors * sizeof *lora->factors);
    for (size_t i = 0; i < lora->n_targets; i++) {
        const struct target *t = &lora->targets[i];
        double spread = 1 / sqrt(3 * (double)t->in);
        memcpy(
            lora->w0 + t->w0, params + t->w, t->out * t->in * sizeof *params);
        for (size_t j = t->a; j < t->b; j++)
            lora->factors[j] = (float)(spread * rng_normal(&rng));
        lora->grads.segments[2 * i] = (struct encoder_segment){
            .start = t->a, .n = lora->rank * t->in, .lr_scale = 1};
        lora->grads.segments[2 * i + 1] = (struct encoder_segment){
            .start = t->b, .n = t->out * lora->rank, .lr_scale = 1};
    }
    lora->grads.n_segments = 2 * lora->n_targets;
}

enum err
lora_new(struct lora **out, const struct encoder *encoder,
    const struct lora_options *options,
    const struct optimizer_options *optimizer, uint64_t seed,
    struct fault *fault)
{
    struct lora *lora = mem_calloc(1, sizeof *lora);
    size_t n_params;
    const float *params = encoder_params_const(encoder, &n_params);

    if (lora == NULL)
        return ERR_NOMEM;
    ASSERT(options->rank >= 1 && options->rank <= LORA_RANK_MAX);
    lora->rank = options->rank;
    lora->scale = options->alpha / (float)options->rank;
    enum err err = find_targets(lora, encoder, options);
    if (err == OK && lora->n_targets == 0)
        err = fault_set(fault, ERR_INVALID, "/lora/targets",
            "the encoder has none of the matrices that are to be adapted");
    if (err == OK) {
        lora->w0 = mem_alloc_aligned(lora->n_w0, sizeof *lora->w0);
        lora->factors = mem_alloc_aligned(lora->n_factors, sizeof(float));
        lora->grads.d_params =
            mem_alloc_aligned(lora->n_factors, sizeof(float));
        lora->grads.segments =
            mem_alloc(2 * lora->n_targets, sizeof *lora->grads.segments);
        if (lora->w0 == NULL || lora->factors == NULL ||
            lora->grads.d_params == NULL || lora->grads.segments == NULL)
            err = ERR_NOMEM;
    }
    if (err == OK)
        err = optimizer_new(&lora->optimizer, lora->n_factors, optimizer);
    if (err != OK) {
        lora_free(lora);
        return err;
    }
    fill(lora, params, seed);
    *out = lora;
    return OK;
}

void
lora_free(struct lora *lora)
{
    if (lora == NULL)
        return;
    optimizer_free(lora->optimizer);
    mem_free(lora->targets);
    mem_free(lora->w0);
    mem_free(lora->factors);
    mem_free(lora->grads.d_params);
    mem_free(lora->grads.segments);
    mem_free(lora);
}

size_t
lora_n_factors(const struct lora *lora)
{
    return lora->n_factors;
}

size_t
lora_bytes(const struct lora *lora)
{
    return (lora->n_w0 + 2 * lora->n_factors +
               optimizer_state_floats(lora->optimizer)) *
           sizeof(float);
}

bool
lora_part(const struct lora *lora, size_t i, struct lora_part *out)
{
    if (i >= lora->n_targets)
        return false;
    const struct target *t = &lora->targets[i];
    *out = (struct lora_part){.w = t->w,
        .out = t->out,
        .in = t->in,
        .a = lora->factors + t->a,
        .b = lora->factors + t->b,
        .da = lora->grads.d_params + t->a,
        .db = lora->grads.d_params + t->b};
    return true;
}

/* ---- a step -------------------------------------------------------------- */

struct pass {
    const struct lora *lora;
    const float *d_params;
    float *params;
};

/* From W = W0 + s B A: dB = s dW A^T, dA = s B^T dW. */
static void
gradient_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *p = arg;
    const struct lora *lora = p->lora;
    const struct target *t = &lora->targets[shard_i];
    const float *A = lora->factors + t->a, *B = lora->factors + t->b;
    const float *dW = p->d_params + t->w;
    float *dA = lora->grads.d_params + t->a, *dB = lora->grads.d_params + t->b;
    size_t r = lora->rank;

    (void)thread_i;
    gemm_f32(dB, r, dW, t->in, false, A, t->in, true, t->out, r, t->in,
        lora->scale, 0);
    gemm_f32(dA, t->in, B, r, true, dW, t->in, false, r, t->in, t->out,
        lora->scale, 0);
}

void
lora_gradient(struct lora *lora, const float *d_params, struct pool *pool)
{
    struct pass p = {.lora = lora, .d_params = d_params};
    pool_run(pool, lora->n_targets, gradient_worker, &p);
}

static void
merge_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *p = arg;
    const struct lora *lora = p->lora;
    const struct target *t = &lora->targets[shard_i];
    float *W = p->params + t->w;

    (void)thread_i;
    memcpy(W, lora->w0 + t->w0, t->out * t->in * sizeof *W);
    gemm_f32(W, t->in, lora->factors + t->b, lora->rank, false,
        lora->factors + t->a, t->in, false, t->out, t->in, lora->rank,
        lora->scale, 1);
}

void
lora_merge(const struct lora *lora, float *params, struct pool *pool)
{
    struct pass p = {.lora = lora, .params = params};
    pool_run(pool, lora->n_targets, merge_worker, &p);
}

void
lora_step(struct lora *lora, float *params, const float *d_params, float lr,
    struct pool *pool)
{
    lora_gradient(lora, d_params, pool);
    optimizer_step(lora->optimizer, lora->factors, &lora->grads, lr, pool);
    lora_merge(lora, params, pool);
}

void
lora_state(struct lora *lora, struct state *s)
{
    state_bytes(s, lora->factors, lora->n_factors * sizeof *lora->factors);
    state_bytes(s, optimizer_state(lora->optimizer),
        optimizer_state_floats(lora->optimizer) * sizeof(float));
}
