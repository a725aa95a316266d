#include "train/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/kern.h"

#define N_SHARDS 64

struct adamw {
    struct adamw_options options;
    float *m, *v; /* [n_params] */
    size_t n_steps;
};

enum err
adamw_new(
    struct adamw **out, size_t n_params, const struct adamw_options *options)
{
    struct adamw *a = mem_calloc(1, sizeof *a);
    if (a == NULL)
        return ERR_NOMEM;
    a->options = *options;
    a->m = mem_calloc(n_params, sizeof *a->m);
    a->v = mem_calloc(n_params, sizeof *a->v);
    if (a->m == NULL || a->v == NULL) {
        adamw_free(a);
        return ERR_NOMEM;
    }
    *out = a;
    return OK;
}

void
adamw_free(struct adamw *adamw)
{
    if (adamw == NULL)
        return;
    mem_free(adamw->m);
    mem_free(adamw->v);
    mem_free(adamw);
}

struct step {
    struct adamw *adamw;
    float *params;
    struct encoder_grads *grads;
    float lr;
    struct kern_adamw rule;
};

static void
step_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct step *s = arg;
    struct encoder_grads *g = s->grads;
    size_t end = g->n_segments * (shard_i + 1) / N_SHARDS;

    (void)thread_i;
    for (size_t i = g->n_segments * shard_i / N_SHARDS; i < end; i++) {
        const struct encoder_segment *seg = &g->segments[i];
        struct kern_adamw rule = s->rule;
        rule.lr = s->lr * seg->lr_scale;
        kern()->adamw(s->params + seg->start, g->d_params + seg->start,
            s->adamw->m + seg->start, s->adamw->v + seg->start, seg->n, &rule);
        memset(g->d_params + seg->start, 0, seg->n * sizeof(float));
    }
}

void
adamw_step(struct adamw *adamw, float *params, struct encoder_grads *grads,
    float lr, struct pool *pool)
{
    const struct adamw_options *o = &adamw->options;
    float t = (float)++adamw->n_steps;
    struct step step = {.adamw = adamw,
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

float
schedule_cosine(size_t step, size_t n_steps, float warmup_share)
{
    const float pi = 3.14159265f;
    float done = ((float)step + 1.0f) / (float)n_steps;
    if (done < warmup_share)
        return done / warmup_share;
    if (warmup_share >= 1)
        return 1;
    /* the last step still moves: the cosine ends one step later */
    float rest = (done - warmup_share) / (1.0f - warmup_share) *
                 ((float)n_steps / ((float)n_steps + 1.0f));
    return 0.5f * (1.0f + cosf(pi * rest));
}
