#include "train/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/kern.h"

#define N_SHARDS 64
/* Floats of a segment that stay in the nearest cache between two loops. */
#define BLOCK 1024
/* The state opens with the count of steps in two floats, each below 2^20,
   because one float counts to 2^24 only; then come the moments. */
#define HEADER 16
#define COUNT_BASE 1048576.0f

const char *const optimizer_names[OPTIMIZER_KINDS] = {"adamw", "sgd", "lars"};
const char *const schedule_names[SCHEDULE_KINDS] = {
    "cosine", "step", "constant"};

struct optimizer {
    struct optimizer_options options;
    size_t n_params;
    float *state; /* HEADER, then m or the velocity, then AdamW's v */
    float *m, *v; /* [n_params] each, into state; v of AdamW alone */
};

void
optimizer_options_default(
    struct optimizer_options *options, enum optimizer_kind kind)
{
    *options = (struct optimizer_options){.kind = kind,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .eps = 1e-8f,
        .momentum = 0.9f,
        .trust = 0.001f};
    if (kind == OPTIMIZER_ADAMW)
        options->weight_decay = 0.01f;
    else if (kind == OPTIMIZER_SGD)
        options->weight_decay = 1e-3f;
    else
        options->weight_decay = 1e-6f;
}

enum err
optimizer_new(struct optimizer **out, size_t n_params,
    const struct optimizer_options *options)
{
    size_t n_moments = options->kind == OPTIMIZER_ADAMW ? 2 : 1;
    struct optimizer *o = mem_calloc(1, sizeof *o);
    if (o == NULL)
        return ERR_NOMEM;
    o->options = *options;
    o->n_params = n_params;
    o->state = mem_calloc(HEADER + n_moments * n_params, sizeof(float));
    if (o->state == NULL) {
        optimizer_free(o);
        return ERR_NOMEM;
    }
    o->m = o->state + HEADER;
    o->v = n_moments == 2 ? o->m + n_params : NULL;
    *out = o;
    return OK;
}

void
optimizer_free(struct optimizer *optimizer)
{
    if (optimizer == NULL)
        return;
    mem_free(optimizer->state);
    mem_free(optimizer);
}

size_t
optimizer_state_floats(const struct optimizer *optimizer)
{
    size_t n_moments = optimizer->v == NULL ? 1 : 2;
    return HEADER + n_moments * optimizer->n_params;
}

float *
optimizer_state(struct optimizer *optimizer)
{
    return optimizer->state;
}

struct step {
    struct optimizer *optimizer;
    float *params;
    struct encoder_grads *grads;
    float lr;
    struct kern_adamw rule; /* AdamW's, but for the segment's part */
};

static void
step_adamw(const struct step *s, const struct encoder_segment *seg)
{
    struct optimizer *o = s->optimizer;
    struct kern_adamw rule = s->rule;
    rule.lr = s->lr * seg->lr_scale;
    if (seg->no_decay)
        rule.weight_decay = 0;
    kern()->adamw(s->params + seg->start, s->grads->d_params + seg->start,
        o->m + seg->start, o->v + seg->start, seg->n, &rule);
}

/* v = momentum v + g;  p = (1 - lr decay) p - lr v */
static void
step_sgd(const struct step *s, const struct encoder_segment *seg)
{
    const struct optimizer_options *o = &s->optimizer->options;
    float lr = s->lr * seg->lr_scale;
    float decay = seg->no_decay ? 0 : o->weight_decay;

    for (size_t at = 0; at < seg->n; at += BLOCK) {
        size_t n = MIN(seg->n - at, (size_t)BLOCK);
        float *p = s->params + seg->start + at;
        float *v = s->optimizer->m + seg->start + at;
        kern()->scale(v, o->momentum, n);
        kern()->axpy(v, 1, s->grads->d_params + seg->start + at, n);
        if (decay > 0)
            kern()->scale(p, 1 - lr * decay, n);
        kern()->axpy(p, -lr, v, n);
    }
}

/* trust |p| / (|g| + decay |p|); 1 where a norm says nothing */
static float
trust_ratio(const struct step *s, const struct encoder_segment *seg)
{
    const struct optimizer_options *o = &s->optimizer->options;
    const float *p = s->params + seg->start;
    const float *g = s->grads->d_params + seg->start;
    double p_norm = sqrt(kern()->dot_f64(p, p, seg->n));
    double g_norm = sqrt(kern()->dot_f64(g, g, seg->n));
    double below = g_norm + (double)o->weight_decay * p_norm;
    if (!(p_norm > 0) || !(g_norm > 0) || !(below > 0))
        return 1;
    return (float)((double)o->trust * p_norm / below);
}

/* v = momentum v + lr ratio (g + decay p);  p = p - v */
static void
step_lars(const struct step *s, const struct encoder_segment *seg)
{
    const struct optimizer_options *o = &s->optimizer->options;
    float decay = seg->no_decay ? 0 : o->weight_decay;
    float lr = s->lr * seg->lr_scale;
    if (!seg->no_decay)
        lr *= trust_ratio(s, seg);

    for (size_t at = 0; at < seg->n; at += BLOCK) {
        size_t n = MIN(seg->n - at, (size_t)BLOCK);
        float *p = s->params + seg->start + at;
        float *v = s->optimizer->m + seg->start + at;
        kern()->scale(v, o->momentum, n);
        kern()->axpy(v, lr, s->grads->d_params + seg->start + at, n);
        if (decay > 0)
            kern()->axpy(v, lr * decay, p, n);
        kern()->axpy(p, -1, v, n);
    }
}

static void
step_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct step *s = arg;
    struct encoder_grads *g = s->grads;
    size_t end = g->n_segments * (shard_i + 1) / N_SHARDS;

    (void)thread_i;
    for (size_t i = g->n_segments * shard_i / N_SHARDS; i < end; i++) {
        const struct encoder_segment *seg = &g->segments[i];
        if (seg->lr_scale > 0) {
            if (s->optimizer->options.kind == OPTIMIZER_ADAMW)
                step_adamw(s, seg);
            else if (s->optimizer->options.kind == OPTIMIZER_SGD)
                step_sgd(s, seg);
            else
                step_lars(s, seg);
        }
        memset(g->d_params + seg->start, 0, seg->n * sizeof(float));
    }
}

/* The number of this step, from 1; noted in the state. */
static float
count_step(struct optimizer *o)
{
    o->state[0] += 1;
    if (o->state[0] >= COUNT_BASE) {
        o->state[0] = 0;
        o->state[1] += 1;
    }
    return o->state[1] * COUNT_BASE + o->state[0];
}

void
optimizer_step(struct optimizer *optimizer, float *params,
    struct encoder_grads *grads, float lr, struct pool *pool)
{
    const struct optimizer_options *o = &optimizer->options;
    float t = count_step(optimizer);
    struct step step = {.optimizer = optimizer,
        .params = params,
        .grads = grads,
        .lr = lr,
        .rule = {.beta1 = o->beta1,
            .beta2 = o->beta2,
            .eps = o->eps,
            .weight_decay = o->weight_decay,
            .correct1 = 1.0f / (1.0f - powf(o->beta1, t)),
            .correct2 = 1.0f / (1.0f - powf(o->beta2, t))}};
    pool_run(pool, N_SHARDS, step_worker, &step);
}

/* Half a cosine over what warm-up left, a share done of all steps. */
static float
cosine_rate(float done, float warmup, size_t n_steps)
{
    const float pi = 3.14159265f;
    if (warmup >= 1)
        return 1;
    /* the last step still moves: the cosine ends one step later */
    float rest = (done - warmup) / (1.0f - warmup) *
                 ((float)n_steps / ((float)n_steps + 1.0f));
    return 0.5f * (1.0f + cosf(pi * rest));
}

float
schedule_rate(
    const struct schedule_options *options, size_t step, size_t n_steps)
{
    float done = ((float)step + 1.0f) / (float)n_steps;
    float rate = 1;
    if (done < options->warmup)
        rate = done / options->warmup;
    else if (options->kind == SCHEDULE_COSINE)
        rate = cosine_rate(done, options->warmup, n_steps);
    else if (options->kind == SCHEDULE_STEP && 5 * step >= 4 * n_steps)
        rate = 0.01f;
    else if (options->kind == SCHEDULE_STEP && 5 * step >= 3 * n_steps)
        rate = 0.1f;
    return options->lr * rate;
}
