/*
 * transformer_net.c - a shard of sequences through the network, by one thread,
 * and all shards of a batch over a pool.
 *
 * A linear layer with what follows it goes by runs of 256 columns, so that the
 * bias and the activation find them in the second cache.
 */
#include "model/transformer_net.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/panels.h"
#include "nn/attention.h"
#include "nn/l2norm.h"

#define ALIGN_FLOATS 16
#define ALIGNED(n) (((n) + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS)
#define NORM_MIN 1e-30f /* as in nn/l2norm.h */

/* Tokens of a shard: weights are read once a shard, so it should have many;
   activations should stay in the cache and threads should have work, so it
   should have few. A batch of little is cut in four where that leaves 48. */
#define SHARD_TOKENS 192
#define SHARD_TOKENS_MIN 48
#define SHARDS 4

#define COLUMNS 256

/* --------------------------------------------------------------- ready */

/* The matrices of a layer. */
enum { QKV, OUT, UP, DOWN, RES, MATRICES };

struct transformer_ready {
    float *position; /* [max_positions, E], or NULL */
    uint8_t *block;  /* the packed weights */
    /* [layers][MATRICES], then the dense head's, in f32: its outputs are the
       dims of a vector, and it runs once a sequence. Some are empty. */
    struct panels panels[];
};

struct matrix {
    enum panels_type type;
    size_t at, N, K;
};

static size_t
n_matrices(const struct transformer *t)
{
    return (size_t)t->config.layers * MATRICES + 1;
}

/* Matrix i of all; N is 0 where there is none. */
static struct matrix
matrix_at(
    const struct transformer *t, enum transformer_compute compute, size_t i)
{
    static const enum panels_type types[] = {[TRANSFORMER_F32] = PANELS_F32,
        [TRANSFORMER_BF16] = PANELS_BF16,
        [TRANSFORMER_INT8] = PANELS_INT8};
    size_t H = t->config.hidden, F = t->config.ffn;

    if (i == n_matrices(t) - 1)
        return (struct matrix){PANELS_F32, t->dense_w, t->config.dense, H};
    const struct transformer_layer *l = &t->layers[i / MATRICES];
    const struct matrix all[MATRICES] = {
        [QKV] = {0, l->qkv_w, 3 * l->in, l->in},
        [OUT] = {0, l->out_w, H, l->in},
        [UP] = {0, l->up_w, F, H},
        [DOWN] = {0, l->down_w, H, F},
        [RES] = {0, l->res_w, l->res_w == 0 ? 0 : H, l->in}};
    struct matrix m = all[i % MATRICES];
    m.type = types[compute];
    return m;
}

static size_t
packed_bytes(const struct transformer *t, enum transformer_compute compute)
{
    size_t sum = 0;

    for (size_t i = 0; i < n_matrices(t); i++) {
        struct matrix m = matrix_at(t, compute, i);
        sum += panels_bytes(m.type, m.N, m.K);
    }
    return sum;
}

static size_t
sines_floats(const struct transformer *t)
{
    return t->config.positions == TRANSFORMER_POSITIONS_SINUSOIDAL
               ? t->config.max_positions * t->embedding
               : 0;
}

static void
fill_sines(float *row, const struct transformer *t)
{
    size_t half = t->embedding / 2;

    for (size_t p = 0; p < t->config.max_positions; p++, row += t->embedding)
        for (size_t i = 0; i < half; i++) {
            double rate = exp(-log(1e4) * (double)i / (double)(half - 1));
            row[i] = (float)sin((double)p * rate);
            row[half + i] = (float)cos((double)p * rate);
        }
}

enum err
transformer_ready_new(struct transformer_ready **out,
    const struct transformer *t, enum transformer_compute compute)
{
    size_t n = n_matrices(t), sines = sines_floats(t);
    struct transformer_ready *r =
        mem_calloc(1, sizeof *r + n * sizeof *r->panels);

    if (r == NULL)
        return ERR_NOMEM;
    r->block = mem_alloc_aligned(packed_bytes(t, compute), 1);
    if (sines > 0)
        r->position = mem_alloc_aligned(sines, sizeof *r->position);
    if (r->block == NULL || (sines > 0 && r->position == NULL)) {
        transformer_ready_free(r);
        return ERR_NOMEM;
    }
    uint8_t *at = r->block;
    for (size_t i = 0; i < n; i++) {
        struct matrix m = matrix_at(t, compute, i);
        r->panels[i] =
            (struct panels){.type = m.type, .N = m.N, .K = m.K, .data = at};
        at += panels_bytes(m.type, m.N, m.K);
    }
    if (sines > 0)
        fill_sines(r->position, t);
    *out = r;
    return OK;
}

void
transformer_ready_free(struct transformer_ready *ready)
{
    if (ready == NULL)
        return;
    mem_free(ready->block);
    mem_free(ready->position);
    mem_free(ready);
}

size_t
transformer_ready_bytes(
    const struct transformer *t, enum transformer_compute compute)
{
    return packed_bytes(t, compute) + sines_floats(t) * sizeof(float);
}

struct ready_job {
    struct transformer_ready *ready;
    const struct transformer *t;
    const float *params;
};

static void
ready_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct ready_job *job = arg;
    struct panels *p = &job->ready->panels[shard_i];
    (void)thread_i;

    panels_pack(
        p, job->params + matrix_at(job->t, TRANSFORMER_F32, shard_i).at);
}

void
transformer_ready_weights(struct transformer_ready *ready,
    const struct transformer *t, const float *params, struct pool *pool)
{
    struct ready_job job = {.ready = ready, .t = t, .params = params};
    pool_run(pool, n_matrices(t), ready_worker, &job);
}

/* ---------------------------------------------------------------- work */

enum err
transformer_work_new(struct transformer_work **out)
{
    struct transformer_work *work = mem_calloc(1, sizeof *work);
    if (work == NULL)
        return ERR_NOMEM;
    *out = work;
    return OK;
}

void
transformer_work_release(struct transformer_work *work)
{
    for (size_t i = 0; i < work->n_threads; i++)
        mem_free(work->scratch[i].block);
    mem_free(work->scratch);
    mem_free(work->shards);
    mem_free(work->f);
    memset(work, 0, sizeof *work);
}

void
transformer_work_free(struct transformer_work *work)
{
    if (work == NULL)
        return;
    transformer_work_release(work);
    mem_free(work);
}

size_t
transformer_work_bytes(const struct transformer_work *work)
{
    return work->n_threads * work->scratch_bytes +
           work->cap_shards * sizeof *work->shards;
}

/* Arrays whose lives do not meet share their memory: u and qkv; n2 and o; norm
   post n1 and b; norm pre b and a, and the layer's output and n1; g, which only
   training has beside u, and the codes of a product's input, which only
   encoding has. */
static enum err
scratch_new(struct transformer_scratch *s, const struct transformer *t,
    size_t tokens, size_t length, size_t *bytes)
{
    bool pre = t->config.norm == TRANSFORMER_NORM_PRE;
    size_t T = tokens, W = t->width, F = t->config.ffn;
    size_t d = W / t->config.heads;
    size_t work = panels_work_bytes(PANELS_INT8, T, MAX(W, F));
    float *a, *o, *n1, *n2;
    size_t sizes[] = {T * W, T * W, T * W, pre ? T * W : 0, T * MAX(3 * W, F),
        MAX(T * F, work / sizeof(float)), T * W,
        MAX(attention_workspace_floats(length, d),
            attention_grad_workspace_floats(length, d))};
    float **places[] = {
        &a, &o, &n1, &n2, &s->acts.u, &s->g, &s->residual, &s->attention};
    size_t total = 0;

    memset(s, 0, sizeof *s); /* no statistics are kept */
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        total += ALIGNED(sizes[i]);
    s->block = mem_alloc_aligned(total, sizeof(float));
    if (s->block == NULL)
        return ERR_NOMEM;
    *bytes = total * sizeof(float);
    float *at = s->block;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        *places[i] = at;
        at += ALIGNED(sizes[i]);
    }
    s->acts.qkv = s->acts.u;
    s->acts.a = a;
    s->acts.o = o;
    s->acts.n1 = n1;
    s->acts.n2 = pre ? n2 : o;
    s->acts.b = pre ? a : n1;
    s->next = pre ? n1 : a;
    return OK;
}

static enum err
reserve_scratch(struct transformer_work *work, const struct transformer *t,
    size_t tokens, size_t length, size_t n_threads)
{
    if (tokens > work->cap_tokens || length > work->cap_length) {
        for (size_t i = 0; i < work->n_threads; i++)
            mem_free(work->scratch[i].block);
        work->n_threads = 0;
        work->cap_tokens = MAX(work->cap_tokens, tokens);
        work->cap_length = MAX(work->cap_length, length);
    }
    if (n_threads > work->n_threads) {
        struct transformer_scratch *grown =
            mem_realloc(work->scratch, n_threads, sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        work->scratch = grown;
        while (work->n_threads < n_threads) {
            enum err err = scratch_new(&work->scratch[work->n_threads], t,
                work->cap_tokens, work->cap_length, &work->scratch_bytes);
            if (err != OK)
                return err;
            work->n_threads++;
        }
    }
    return OK;
}

static enum err
reserve_sequences(
    struct transformer_work *work, const struct transformer *t, size_t n)
{
    if (n > work->cap_shards) {
        struct transformer_shard *grown =
            mem_realloc(work->shards, n, sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        work->shards = grown;
        work->cap_shards = n;
    }
    if (n > work->cap_sequences) {
        mem_free(work->f);
        work->cap_sequences = 0;
        work->f = mem_alloc_aligned(n * t->config.hidden, sizeof *work->f);
        if (work->f == NULL)
            return ERR_NOMEM;
        work->cap_sequences = n;
    }
    return OK;
}

static enum err
check_batch(const struct transformer *t, const struct transformer_batch *batch,
    size_t *longest)
{
    *longest = 0;
    for (size_t i = 0; i < batch->n; i++)
        *longest = MAX(*longest, batch->offsets[i + 1] - batch->offsets[i]);
    if (*longest > t->max_tokens)
        return ERR_INVALID;
    for (size_t i = 0; i < batch->offsets[batch->n]; i++)
        if (batch->ids[i] >= t->config.vocab)
            return ERR_INVALID;
    return OK;
}

/* Neighbours, as long as they are together at most `most` tokens. */
static void
cut(struct transformer_work *work, const struct transformer_batch *batch,
    size_t most)
{
    struct transformer_shard *s = NULL;

    work->n_shards = 0;
    for (size_t i = 0; i < batch->n; i++) {
        size_t len = batch->offsets[i + 1] - batch->offsets[i];
        if (s == NULL || s->tokens + len > most) {
            s = &work->shards[work->n_shards++];
            *s = (struct transformer_shard){
                .first = i, .token = batch->offsets[i]};
        }
        s->n++;
        s->tokens += len;
    }
}

enum err
transformer_work_begin(struct transformer_work *work,
    const struct transformer *t, const struct transformer_batch *batch,
    struct pool *pool)
{
    size_t longest, most = (batch->offsets[batch->n] + SHARDS - 1) / SHARDS;
    enum err err = check_batch(t, batch, &longest);

    most = MIN(MAX(most, (size_t)SHARD_TOKENS_MIN), (size_t)SHARD_TOKENS);
    work->n_shards = 0;
    if (err == OK)
        err = reserve_sequences(work, t, batch->n);
    if (err == OK)
        err = reserve_scratch(
            work, t, MAX(most, longest), MAX(longest, 1u), pool_threads(pool));
    if (err == OK)
        cut(work, batch, most);
    return err;
}

/* ------------------------------------------------------------- forward */

struct kern_norm
transformer_norm_of(
    const struct transformer *t, const float *params, size_t at, size_t n)
{
    return (struct kern_norm){.gain = params + at,
        .bias = params + at + n,
        .eps = t->config.norm_eps,
        .n = n};
}

/* u = X W^T + bias, y = act(u): [T, N], from X [T, K]. */
static void
linear(const struct transformer_run *r, float *y, float *u, const float *X,
    const struct panels *w, const float *bias, enum kern_act act)
{
    size_t T = r->shard->tokens, N = w->N;

    panels_begin(w, r->s->g, X, w->K, T);
    for (size_t j = 0; j < N; j += COLUMNS) {
        size_t n = MIN(N - j, (size_t)COLUMNS);
        panels_product(u + j, N, w, j, n, X, w->K, r->s->g, T);
        kern()->activate(y + j, u + j, N, bias + j, act, T, n);
    }
}

/* y = X W^T, its bias to come. */
static void
linear_bare(const struct transformer_run *r, float *y, const float *X,
    const struct panels *w)
{
    panels_begin(w, r->s->g, X, w->K, r->shard->tokens);
    panels_product(y, w->N, w, 0, w->N, X, w->K, r->s->g, r->shard->tokens);
}

void
transformer_embed(const struct transformer_run *r, float *x)
{
    const struct transformer *t = r->t;
    const struct transformer_config *c = &t->config;
    const size_t *offsets = r->batch->offsets;
    const float *position = r->ready->position;
    size_t E = t->embedding;

    if (c->positions == TRANSFORMER_POSITIONS_LEARNED)
        position = r->params + t->position;
    for (size_t i = r->shard->first; i < r->shard->first + r->shard->n; i++)
        for (size_t j = offsets[i]; j < offsets[i + 1]; j++, x += E) {
            size_t row = j - offsets[i] + c->position_offset;
            memcpy(x, position + row * E, E * sizeof *x);
            kern()->axpy(x, c->embedding_scale,
                r->params + t->word + r->batch->ids[j] * E, E);
            if (c->token_types > 0)
                kern()->axpy(x, 1, r->params + t->type, E);
        }
}

void
transformer_embed_norm(
    const struct transformer_run *r, float *y, float *stats, float *x)
{
    const struct kern_norm norm =
        transformer_norm_of(r->t, r->params, r->t->norm, r->t->embedding);

    if (r->t->config.embedding_norm)
        kern()->layernorm(y, stats, x, NULL, NULL, &norm, r->shard->tokens);
    else if (y != x)
        memcpy(y, x, r->shard->tokens * norm.n * sizeof *x);
}

float *
transformer_acts_input(
    const struct transformer *t, const struct transformer_acts *acts)
{
    return t->config.norm == TRANSFORMER_NORM_PRE ? acts->n1 : acts->a;
}

static void
attend(const struct transformer_run *r, const struct transformer_acts *acts,
    size_t W)
{
    const size_t *offsets = r->batch->offsets;
    struct attention a = {
        .heads = r->t->config.heads, .d = W / r->t->config.heads};

    for (size_t i = r->shard->first; i < r->shard->first + r->shard->n; i++) {
        size_t at = offsets[i] - r->shard->token;
        a.L = offsets[i + 1] - offsets[i];
        if (a.L > 0)
            attention_forward(
                acts->o + at * W, acts->qkv + at * 3 * W, &a, r->s->attention);
    }
}

void
transformer_layer_forward(const struct transformer_run *r, size_t i,
    const struct transformer_acts *acts, float *g, float *next)
{
    const struct transformer *t = r->t;
    const struct transformer_layer *l = &t->layers[i];
    const struct panels *w = &r->ready->panels[i * MATRICES];
    const float *p = r->params, *residual = transformer_acts_input(t, acts);
    size_t T = r->shard->tokens, W = l->in;
    size_t H = t->config.hidden;
    bool pre = t->config.norm == TRANSFORMER_NORM_PRE;
    const struct kern_norm norm1 =
        transformer_norm_of(t, p, l->norm1, l->norm1_n);
    const struct kern_norm norm2 = transformer_norm_of(t, p, l->norm2, H);

    if (pre)
        kern()->layernorm(
            acts->a, acts->stats1, acts->n1, NULL, NULL, &norm1, T);
    linear(
        r, acts->qkv, acts->qkv, acts->a, &w[QKV], p + l->qkv_b, KERN_ACT_NONE);
    attend(r, acts, W);
    if (l->res_w != 0) {
        linear(r, r->s->residual, r->s->residual, residual, &w[RES],
            p + l->res_b, KERN_ACT_NONE);
        residual = r->s->residual;
    }
    if (pre) {
        linear_bare(r, acts->n2, acts->o, &w[OUT]);
        kern()->layernorm(
            acts->b, acts->stats2, acts->n2, residual, p + l->out_b, &norm2, T);
    } else {
        linear_bare(r, acts->n1, acts->o, &w[OUT]);
        kern()->layernorm(
            acts->b, acts->stats1, acts->n1, residual, p + l->out_b, &norm1, T);
    }
    linear(r, g, acts->u, acts->b, &w[UP], p + l->up_b, t->config.act);
    if (pre) {
        linear(r, next, next, g, &w[DOWN], p + l->down_b, KERN_ACT_NONE);
        kern()->axpy(next, 1, acts->n2, T * H);
    } else {
        linear_bare(r, acts->n2, g, &w[DOWN]);
        kern()->layernorm(
            next, acts->stats2, acts->n2, acts->b, p + l->down_b, &norm2, T);
    }
}

void
transformer_pool(const struct transformer_run *r, float *f, const float *x)
{
    const size_t *offsets = r->batch->offsets;
    size_t H = r->t->config.hidden;

    for (size_t i = r->shard->first; i < r->shard->first + r->shard->n; i++) {
        size_t at = offsets[i] - r->shard->token;
        if (offsets[i + 1] > offsets[i])
            tokenpool_forward(f, x + at * H, offsets[i + 1] - offsets[i], H,
                r->t->config.pooling);
        else
            memset(f, 0, H * sizeof *f);
        f += H;
    }
}

void
transformer_head(const struct transformer_run *r, float *out, float *z,
    float *norm, const float *f)
{
    const struct transformer *t = r->t;
    const struct transformer_config *c = &t->config;
    const size_t *offsets = r->batch->offsets;
    size_t n = r->shard->n, D = t->n_dims;

    if (c->dense > 0) {
        panels_product(z, D, &r->ready->panels[n_matrices(t) - 1], 0, D, f,
            c->hidden, NULL, n);
        kern()->activate(z, z, D, r->params + t->dense_b, KERN_ACT_NONE, n, D);
        for (size_t i = 0; i < n * D && c->dense_tanh; i++)
            z[i] = tanhf(z[i]);
    } else if (z != f) {
        memcpy(z, f, n * D * sizeof *z);
    }
    if (out != z)
        memcpy(out, z, n * D * sizeof *z);
    for (size_t i = 0; i < n; i++) {
        size_t seq = r->shard->first + i;
        float *row = out + i * D, length = 1;
        if (c->normalise)
            l2norm_forward(row, &length, row, 1, D, NULL);
        if (offsets[seq + 1] == offsets[seq] ||
            !(length > NORM_MIN && length < INFINITY)) {
            length = 0;
            memset(row, 0, D * sizeof *row);
        }
        if (norm != NULL)
            norm[i] = length;
    }
}

struct encode_job {
    struct transformer_run run; /* of no shard yet */
    struct transformer_work *work;
    float *out;
};

static void
encode_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct encode_job *job = arg;
    const struct transformer *t = job->run.t;
    struct transformer_run r = job->run;
    r.shard = &job->work->shards[shard_i];
    r.s = &job->work->scratch[thread_i];
    float *x = transformer_acts_input(t, &r.s->acts);
    float *f = job->work->f + r.shard->first * t->config.hidden;
    float *out = job->out + r.shard->first * t->n_dims;

    transformer_embed(&r, x);
    transformer_embed_norm(&r, x, NULL, x);
    for (size_t i = 0; i < t->config.layers; i++)
        transformer_layer_forward(&r, i, &r.s->acts, r.s->acts.u, r.s->next);
    transformer_pool(&r, f, r.s->next);
    transformer_head(&r, out, out, NULL, f);
}

enum err
transformer_encode(const struct transformer *t, const float *params,
    const struct transformer_ready *ready, struct transformer_work *work,
    const struct transformer_batch *batch, float *out, struct pool *pool)
{
    struct encode_job job = {
        .run = {.t = t, .params = params, .ready = ready, .batch = batch},
        .work = work,
        .out = out};
    enum err err = transformer_work_begin(work, t, batch, pool);

    if (err == OK)
        pool_run(pool, work->n_shards, encode_worker, &job);
    return err;
}
