/*
 * transformer_train.c - the forward pass with a tape, and the backward pass.
 *
 * Backward goes by layers. First the layer's matrices are packed. Then every
 * shard takes the gradient of its tokens through the layer, and leaves the
 * gradients of what its linear layers made; then the weights' gradients are
 * products over all tokens of the batch, cut into blocks of the matrices. So
 * each parameter's sum has one order, whatever the number of threads, and no
 * thread has gradients of its own. Only the norms' gains and biases are summed
 * by shards, and those in order.
 */
#include "model/transformer_net.h"

#include <string.h>

#include "base/alloc.h"
#include "kern/gemm.h"
#include "model/transformer_linear.h"
#include "nn/attention.h"
#include "nn/l2norm.h"

#define PACK_ROWS 192 /* of a matrix that are packed by one job */
#define MATRICES 5
#define WORD_RANGES 16 /* of the vocabulary, each a job */

struct transformer_tape {
    struct transformer_work work;
    struct transformer_ready *ready;
    size_t ready_bytes;
    size_t n_frozen;
    size_t first; /* the first layer that learns */
    struct transformer_batch batch;
    size_t T, cap_tokens, cap_sequences, cap_shards;
    size_t token_floats;
    /* all tokens' arrays: one block of those below */
    float *block;
    struct transformer_acts acts[TRANSFORMER_LAYERS_MAX];
    float *embed, *embed_stats; /* [T, E] before the norm, [T, 2] */
    float *last;                /* [T, H] */
    /* gradients, of one layer at a time */
    float *d;    /* [T, width] of the layer's output, then of its input */
    float *ds1;  /* [T, H] of res(x) + Wo o */
    float *ds2;  /* [T, H] of Wd act(u) + its residual */
    float *du;   /* [T, ffn] */
    float *g;    /* [T, ffn] act(u), again */
    float *dqkv; /* [T, 3 width] */
    /* of sequences */
    float *z;    /* [n, n_dims] before normalisation; out with it */
    float *act;  /* [n, n_dims] what the dense head's tanh made */
    float *norm; /* [n] */
    float *dz;   /* [n, n_dims] */
    float *df;   /* [n, H] */
    /* of shards: gain and bias of norm1, of norm2, [4 width] each */
    float *sums;
    float *packed; /* the matrices of the layer that is differentiated */
    size_t packed_floats;
    float *factors; /* of threads: the work of the weights' gradients */
    size_t cap_threads;
};

enum err
transformer_tape_new(
    struct transformer_tape **out, const struct transformer *t, size_t n_frozen)
{
    struct transformer_tape *tape;
    enum err err;

    ASSERT(n_frozen <= (size_t)t->config.layers + 1);
    tape = mem_calloc(1, sizeof *tape);
    if (tape == NULL)
        return ERR_NOMEM;
    tape->n_frozen = n_frozen;
    tape->first = n_frozen > 0 ? n_frozen - 1 : 0;
    tape->ready_bytes = transformer_ready_bytes(t, TRANSFORMER_F32);
    err = transformer_ready_new(&tape->ready, t, TRANSFORMER_F32);
    if (err != OK)
        transformer_tape_free(tape);
    else
        *out = tape;
    return err;
}

void
transformer_tape_free(struct transformer_tape *tape)
{
    if (tape == NULL)
        return;
    transformer_work_release(&tape->work);
    transformer_ready_free(tape->ready);
    mem_free(tape->block);
    mem_free(tape->z);
    mem_free(tape->sums);
    mem_free(tape->packed);
    mem_free(tape->factors);
    mem_free(tape);
}

size_t
transformer_tape_bytes(const struct transformer_tape *tape)
{
    return tape->ready_bytes + transformer_work_bytes(&tape->work) +
           (tape->cap_tokens * tape->token_floats + tape->packed_floats +
               tape->cap_threads * transformer_linear_work_floats()) *
               sizeof(float);
}

/* ---------------------------------------------------------------- room */

/* Cut a block into arrays, or with base NULL only count. */
struct carve {
    float *base;
    size_t at;
};

static float *
take(struct carve *c, size_t n)
{
    float *p = c->base == NULL ? NULL : c->base + c->at;
    c->at += (n + 15) / 16 * 16;
    return p;
}

static size_t
carve_layer(struct carve *c, const struct transformer *t,
    struct transformer_acts *acts, size_t i, size_t T)
{
    size_t W = t->layers[i].in, H = t->config.hidden;
    size_t before = c->at;

    acts->a = take(c, T * W);
    acts->qkv = take(c, T * 3 * W);
    acts->o = take(c, T * W);
    acts->n1 = take(c, T * t->layers[i].norm1_n);
    acts->b = take(c, T * H);
    acts->u = take(c, T * t->config.ffn);
    acts->n2 = take(c, T * H);
    acts->stats1 = take(c, T * 2);
    acts->stats2 = take(c, T * 2);
    return c->at - before;
}

static size_t
carve_tape(struct transformer_tape *tape, const struct transformer *t,
    float *base, size_t T)
{
    struct carve c = {.base = base};
    size_t H = t->config.hidden, F = t->config.ffn;

    for (size_t i = tape->first; i < t->config.layers; i++)
        (void)carve_layer(&c, t, &tape->acts[i], i, T);
    if (tape->n_frozen == 0 && t->config.embedding_norm) {
        tape->embed = take(&c, T * t->embedding);
        tape->embed_stats = take(&c, T * 2);
    }
    tape->last = take(&c, T * H);
    tape->d = take(&c, T * t->width);
    tape->ds1 = take(&c, T * H);
    tape->ds2 = take(&c, T * H);
    tape->du = take(&c, T * F);
    tape->g = take(&c, T * F);
    tape->dqkv = take(&c, T * 3 * t->width);
    return c.at;
}

static size_t
carve_sequences(struct transformer_tape *tape, const struct transformer *t,
    float *base, size_t n)
{
    struct carve c = {.base = base};

    tape->z = take(&c, n * t->n_dims);
    tape->act = take(&c, n * t->n_dims);
    tape->dz = take(&c, n * t->n_dims);
    tape->df = take(&c, n * t->config.hidden);
    tape->norm = take(&c, n);
    return c.at;
}

static enum err
tape_reserve(
    struct transformer_tape *tape, const struct transformer *t, size_t n)
{
    size_t T = tape->T, width = 4 * t->width;

    if (T > tape->cap_tokens || tape->block == NULL) {
        size_t cap = MAX(T, (size_t)1), floats = carve_tape(tape, t, NULL, cap);
        mem_free(tape->block);
        tape->cap_tokens = 0;
        tape->block = mem_alloc_aligned(floats, sizeof(float));
        if (tape->block == NULL)
            return ERR_NOMEM;
        tape->cap_tokens = cap;
        tape->token_floats = floats / cap;
        (void)carve_tape(tape, t, tape->block, cap);
    }
    if (n > tape->cap_sequences || tape->z == NULL) {
        size_t cap = MAX(n, (size_t)1);
        tape->cap_sequences = 0;
        mem_free(tape->z);
        size_t floats = carve_sequences(tape, t, NULL, cap); /* z is NULL */
        float *block = mem_alloc_aligned(floats, sizeof(float));
        if (block == NULL)
            return ERR_NOMEM;
        (void)carve_sequences(tape, t, block, cap);
        tape->cap_sequences = cap;
    }
    if (tape->work.n_shards > tape->cap_shards || tape->sums == NULL) {
        mem_free(tape->sums);
        tape->cap_shards = 0;
        tape->sums = mem_alloc_aligned(
            MAX(tape->work.n_shards, (size_t)1) * width, sizeof(float));
        if (tape->sums == NULL)
            return ERR_NOMEM;
        tape->cap_shards = tape->work.n_shards;
    }
    return OK;
}

/* Floats of the matrices of a layer, which stand between these two. */
static size_t
matrices_span(const struct transformer_layer *l)
{
    return l->down_b - l->qkv_w;
}

static enum err
backward_reserve(struct transformer_tape *tape, const struct transformer *t)
{
    size_t most = 0;

    for (size_t i = tape->first; i < t->config.layers; i++)
        most = MAX(most, matrices_span(&t->layers[i]));
    if (tape->packed == NULL) {
        tape->packed = mem_alloc_aligned(most, sizeof(float));
        if (tape->packed == NULL)
            return ERR_NOMEM;
        tape->packed_floats = most;
    }
    if (tape->work.n_threads > tape->cap_threads) {
        mem_free(tape->factors);
        tape->cap_threads = 0;
        tape->factors = mem_alloc_aligned(tape->work.n_threads,
            transformer_linear_work_floats() * sizeof(float));
        if (tape->factors == NULL)
            return ERR_NOMEM;
        tape->cap_threads = tape->work.n_threads;
    }
    return OK;
}

/* ------------------------------------------------------------- forward */

struct pass {
    struct transformer_run run; /* of no shard yet */
    struct transformer_tape *tape;
    float *out;
    const float *d_out;
    float *d_params;
    uint8_t *marks;
    size_t layer;
};

static struct transformer_run
run_of(const struct pass *pass, size_t shard_i, size_t thread_i)
{
    struct transformer_run r = pass->run;
    r.shard = &pass->tape->work.shards[shard_i];
    r.s = &pass->tape->work.scratch[thread_i];
    return r;
}

/* A layer's arrays from the shard's first token on; scratch below the first
   layer that learns. */
static struct transformer_acts
acts_of(const struct pass *pass, const struct transformer_run *r, size_t i)
{
    const struct transformer *t = r->t;
    size_t at = r->shard->token, W = t->layers[i].in, H = t->config.hidden;
    struct transformer_acts acts = pass->tape->acts[i];

    if (i < pass->tape->first)
        return r->s->acts;
    acts.a += at * W;
    acts.qkv += at * 3 * W;
    acts.o += at * W;
    acts.n1 += at * t->layers[i].norm1_n;
    acts.b += at * H;
    acts.u += at * t->config.ffn;
    acts.n2 += at * H;
    acts.stats1 += at * 2;
    acts.stats2 += at * 2;
    return acts;
}

/* Where the input of layer i of this shard is; behind the last, its output. */
static float *
input_of(const struct pass *pass, const struct transformer_run *r, size_t i)
{
    if (i == r->t->config.layers)
        return pass->tape->last + r->shard->token * r->t->config.hidden;
    const struct transformer_acts acts = acts_of(pass, r, i);
    return transformer_acts_input(r->t, &acts);
}

static void
forward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    struct transformer_tape *tape = pass->tape;
    struct transformer_run r = run_of(pass, shard_i, thread_i);
    const struct transformer *t = r.t;
    size_t first = r.shard->first, token = r.shard->token;
    float *x = input_of(pass, &r, 0), *e = x, *stats = NULL;
    float *f = tape->work.f + first * t->config.hidden;

    if (tape->n_frozen == 0 && t->config.embedding_norm) {
        e = tape->embed + token * t->embedding;
        stats = tape->embed_stats + token * 2;
    }
    transformer_embed(&r, e);
    transformer_embed_norm(&r, x, stats, e);
    for (size_t i = 0; i < t->config.layers; i++) {
        const struct transformer_acts acts = acts_of(pass, &r, i);
        float *g = i < tape->first ? acts.u : r.s->g;
        transformer_layer_forward(&r, i, &acts, g, input_of(pass, &r, i + 1));
    }
    transformer_pool(&r, f, input_of(pass, &r, t->config.layers));
    transformer_head(&r, tape->z + first * t->n_dims,
        tape->act + first * t->n_dims, tape->norm + first, f);
    memcpy(pass->out + first * t->n_dims, tape->z + first * t->n_dims,
        r.shard->n * t->n_dims * sizeof(float));
}

enum err
transformer_forward(const struct transformer *t, const float *params,
    struct transformer_tape *tape, const struct transformer_batch *batch,
    float *out, struct pool *pool)
{
    struct pass pass = {.run = {.t = t,
                            .params = params,
                            .ready = tape->ready,
                            .batch = &tape->batch},
        .tape = tape,
        .out = out};
    enum err err = transformer_work_begin(&tape->work, t, batch, pool);

    tape->T = 0;
    tape->batch = (struct transformer_batch){.n = 0};
    if (err != OK)
        return err;
    tape->T = batch->offsets[batch->n];
    err = tape_reserve(tape, t, batch->n);
    if (err != OK) {
        tape->T = 0;
        return err;
    }
    tape->batch = *batch;
    transformer_ready_weights(tape->ready, t, params, pool);
    pool_run(pool, tape->work.n_shards, forward_worker, &pass);
    return OK;
}

/* ------------------------------------------------ backward, activations */

/* dX [T, K] = (+=) dY W, for Y = X W^T and the layer's matrix at w_at. */
static void
linear_grad(const struct transformer_run *r, const struct pass *pass, float *dX,
    const float *dY, size_t w_at, size_t N, size_t K, bool add)
{
    size_t first = r->t->layers[pass->layer].qkv_w;

    transformer_linear_input(dX, dY, pass->tape->packed + (w_at - first),
        r->shard->tokens, N, K, add);
}

/* forward: o = attention(qkv) */
static void
attend_grad(const struct transformer_run *r, float *dqkv, const float *d_o,
    const float *qkv, size_t W)
{
    const size_t *offsets = r->batch->offsets;
    struct attention a = {
        .heads = r->t->config.heads, .d = W / r->t->config.heads};

    for (size_t i = r->shard->first; i < r->shard->first + r->shard->n; i++) {
        size_t at = offsets[i] - r->shard->token;
        a.L = offsets[i + 1] - offsets[i];
        if (a.L > 0)
            attention_backward(dqkv + at * 3 * W, d_o + at * W,
                qkv + at * 3 * W, &a, r->s->attention);
    }
}

/* Shard of layer pass->layer: d of its output becomes d of its input. */
static void
layer_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    struct transformer_tape *tape = pass->tape;
    struct transformer_run r = run_of(pass, shard_i, thread_i);
    const struct transformer *t = r.t;
    const struct transformer_layer *l = &t->layers[pass->layer];
    const struct transformer_acts acts = acts_of(pass, &r, pass->layer);
    bool pre = t->config.norm == TRANSFORMER_NORM_PRE;
    size_t T = r.shard->tokens, at = r.shard->token;
    size_t W = l->in, H = t->config.hidden, F = t->config.ffn;
    float *sums1 = tape->sums + shard_i * 4 * t->width;
    float *sums2 = sums1 + 2 * t->width, *tmp = r.s->residual;
    float *d_out = tape->d + at * t->width; /* [T, H] */
    float *d_in = d_out;                    /* [T, W], when d_out is used */
    float *ds1 = tape->ds1 + at * H, *ds2 = tape->ds2 + at * H;
    float *du = tape->du + at * F, *dqkv = tape->dqkv + at * 3 * W;
    const struct kern_norm norm1 =
        transformer_norm_of(t, r.params, l->norm1, l->norm1_n);
    const struct kern_norm norm2 =
        transformer_norm_of(t, r.params, l->norm2, H);

    memset(sums1, 0, 4 * t->width * sizeof *sums1);
    /* post: x' = LN2(n2); pre: x' = n2 + Wd act(u) */
    if (pre)
        memcpy(ds2, d_out, T * H * sizeof *ds2);
    else
        kern()->layernorm_grad(
            ds2, sums2, sums2 + H, d_out, acts.n2, acts.stats2, &norm2, T, 0);
    linear_grad(&r, pass, du, ds2, l->down_w, H, F, false);
    kern()->activate_grad(du, tape->g + at * F, acts.u, t->config.act, T * F);
    /* the residual around u = Wu b; post: b = LN1(n1); pre: b = LN2(n2) */
    memcpy(ds1, ds2, T * H * sizeof *ds1);
    linear_grad(&r, pass, pre ? tmp : ds1, du, l->up_w, F, H, !pre);
    if (pre)
        kern()->layernorm_grad(
            ds1, sums2, sums2 + H, tmp, acts.n2, acts.stats2, &norm2, T, 1);
    else
        kern()->layernorm_grad(
            ds1, sums1, sums1 + H, ds1, acts.n1, acts.stats1, &norm1, T, 0);
    /* res(x) + Wo o, o = attention(Wqkv a) */
    linear_grad(&r, pass, tmp, ds1, l->out_w, H, W, false);
    attend_grad(&r, dqkv, tmp, acts.qkv, W);
    if (l->res_w != 0)
        linear_grad(&r, pass, d_in, ds1, l->res_w, H, W, false);
    else
        memcpy(d_in, ds1, T * H * sizeof *d_in);
    /* post: a = x; pre: a = LN1(x) */
    linear_grad(&r, pass, pre ? tmp : d_in, dqkv, l->qkv_w, 3 * W, W, !pre);
    if (pre)
        kern()->layernorm_grad(
            d_in, sums1, sums1 + W, tmp, acts.n1, acts.stats1, &norm1, T, 1);
}

/* ---------------------------------------------------- backward, matrices */

/* Y = X W^T + b over all tokens. */
struct matrix {
    const float *dY; /* [T, N] */
    const float *X;  /* [T, K] */
    size_t w_at, b_at, N, K;
};

static size_t
layer_matrices(const struct pass *pass, struct matrix out[MATRICES])
{
    const struct transformer *t = pass->run.t;
    const struct transformer_tape *tape = pass->tape;
    const struct transformer_layer *l = &t->layers[pass->layer];
    const struct transformer_acts *acts = &tape->acts[pass->layer];
    size_t W = l->in, H = t->config.hidden, F = t->config.ffn;

    out[0] = (struct matrix){tape->dqkv, acts->a, l->qkv_w, l->qkv_b, 3 * W, W};
    out[1] = (struct matrix){tape->ds1, acts->o, l->out_w, l->out_b, H, W};
    out[2] = (struct matrix){tape->du, acts->b, l->up_w, l->up_b, F, H};
    out[3] = (struct matrix){tape->ds2, tape->g, l->down_w, l->down_b, H, F};
    if (l->res_w == 0)
        return 4;
    out[4] = (struct matrix){
        tape->ds1, transformer_acts_input(t, acts), l->res_w, l->res_b, H, W};
    return 5;
}

static size_t
pack_jobs(const struct matrix *m)
{
    return (m->N + PACK_ROWS - 1) / PACK_ROWS;
}

static size_t
grad_jobs(const struct matrix *m)
{
    return transformer_linear_blocks(m->N, m->K);
}

/* Jobs of all the layer's matrices. */
static size_t
n_jobs(const struct pass *pass, size_t (*jobs_of)(const struct matrix *m))
{
    struct matrix m[MATRICES];
    size_t n = layer_matrices(pass, m), jobs = 0;

    for (size_t i = 0; i < n; i++)
        jobs += jobs_of(&m[i]);
    return jobs;
}

/* The matrix of a job, and which of its jobs it is. */
static struct matrix
matrix_of(const struct pass *pass, size_t (*jobs_of)(const struct matrix *m),
    size_t *job)
{
    struct matrix m[MATRICES];
    size_t i = 0;

    (void)layer_matrices(pass, m);
    for (; *job >= jobs_of(&m[i]); i++)
        *job -= jobs_of(&m[i]);
    return m[i];
}

static void
pack_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    const struct matrix m = matrix_of(pass, pack_jobs, &shard_i);
    size_t from = shard_i * PACK_ROWS;
    (void)thread_i;

    transformer_linear_pack(
        pass->tape->packed + (m.w_at - pass->run.t->layers[pass->layer].qkv_w),
        pass->run.params + m.w_at, m.N, m.K, from,
        MIN(m.N - from, (size_t)PACK_ROWS));
}

/* A block of the gradients over T rows. */
static void
matrix_grad(const struct pass *pass, const struct matrix *m, size_t T,
    size_t block, size_t thread_i)
{
    const struct transformer_linear l = {.dY = m->dY,
        .X = m->X,
        .dW = pass->d_params + m->w_at,
        .db = pass->d_params + m->b_at,
        .T = T,
        .N = m->N,
        .K = m->K};

    transformer_linear_block(&l, block,
        pass->tape->factors + thread_i * transformer_linear_work_floats());
}

/* Gain and bias of a norm of width n: from the shards' sums at `at`. */
static void
sum_shards(const struct pass *pass, size_t norm_at, size_t at, size_t n)
{
    const struct transformer_tape *tape = pass->tape;
    for (size_t s = 0; s < tape->work.n_shards; s++)
        kern()->axpy(pass->d_params + norm_at, 1,
            tape->sums + s * 4 * pass->run.t->width + at, 2 * n);
}

static void
weights_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    const struct transformer *t = pass->run.t;
    const struct transformer_layer *l = &t->layers[pass->layer];

    if (shard_i < n_jobs(pass, grad_jobs)) {
        const struct matrix m = matrix_of(pass, grad_jobs, &shard_i);
        matrix_grad(pass, &m, pass->tape->T, shard_i, thread_i);
        return;
    }
    sum_shards(pass, l->norm1, 0, l->norm1_n);
    sum_shards(pass, l->norm2, 2 * t->width, t->config.hidden);
}

/* ------------------------------------------------- backward, both ends */

/* forward: out = unit(z), z = tanh(y), y = D f + b, each where it is there;
   one job, the rows are few */
static void
head_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    const struct transformer *t = pass->run.t;
    const struct transformer_config *c = &t->config;
    struct transformer_tape *tape = pass->tape;
    size_t n = tape->batch.n, D = t->n_dims;
    const struct matrix dense = {
        tape->dz, tape->work.f, t->dense_w, t->dense_b, D, c->hidden};
    (void)shard_i;

    for (size_t i = 0; i < n; i++) {
        float *dz = tape->dz + i * D;
        if (!(tape->norm[i] > 0))
            memset(dz, 0, D * sizeof *dz);
        else if (c->normalise)
            l2norm_backward(dz, pass->d_out + i * D, tape->z + i * D,
                tape->norm + i, 1, D, NULL);
        else
            memcpy(dz, pass->d_out + i * D, D * sizeof *dz);
    }
    if (c->dense == 0) {
        memcpy(tape->df, tape->dz, n * D * sizeof *tape->df);
        return;
    }
    for (size_t i = 0; i < n * D && c->dense_tanh; i++)
        tape->dz[i] *= 1 - tape->act[i] * tape->act[i];
    for (size_t i = 0; i < grad_jobs(&dense); i++)
        matrix_grad(pass, &dense, n, i, thread_i);
    gemm_f32(tape->df, c->hidden, tape->dz, D, false,
        pass->run.params + t->dense_w, c->hidden, false, n, c->hidden, D, 1, 0);
}

static void
pool_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    struct transformer_tape *tape = pass->tape;
    struct transformer_run r = run_of(pass, shard_i, thread_i);
    const size_t *offsets = r.batch->offsets;
    size_t H = r.t->config.hidden;
    float *d = tape->d + r.shard->token * r.t->width;
    const float *x = input_of(pass, &r, r.t->config.layers);

    for (size_t i = r.shard->first; i < r.shard->first + r.shard->n; i++) {
        size_t at = offsets[i] - r.shard->token;
        if (offsets[i + 1] > offsets[i])
            tokenpool_backward(d + at * H, tape->df + i * H, x + at * H,
                offsets[i + 1] - offsets[i], H, r.t->config.pooling);
    }
}

/* forward: x = LN(embed) */
static void
embed_norm_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    struct transformer_tape *tape = pass->tape;
    struct transformer_run r = run_of(pass, shard_i, thread_i);
    const struct transformer *t = r.t;
    size_t at = r.shard->token, E = t->embedding;
    float *sums = tape->sums + shard_i * 4 * t->width;
    float *d = tape->d + at * t->width;
    const struct kern_norm norm = transformer_norm_of(t, r.params, t->norm, E);

    memset(sums, 0, 2 * E * sizeof *sums);
    kern()->layernorm_grad(d, sums, sums + E, d, tape->embed + at * E,
        tape->embed_stats + at * 2, &norm, r.shard->tokens, 0);
}

/* forward: embed = scale word[id] + position[t + offset] + type[0]. Jobs: the
   ranges of the vocabulary; then positions, types and the norm. */
static void
embed_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *pass = arg;
    const struct transformer_tape *tape = pass->tape;
    const struct transformer *t = pass->run.t;
    const struct transformer_config *c = &t->config;
    const struct transformer_batch *batch = &tape->batch;
    size_t E = t->embedding;
    size_t low = (size_t)c->vocab * shard_i / WORD_RANGES;
    size_t high = (size_t)c->vocab * (shard_i + 1) / WORD_RANGES;
    bool words = shard_i < WORD_RANGES;
    (void)thread_i;

    for (size_t s = 0; s < tape->work.n_shards; s++) {
        const struct transformer_shard *shard = &tape->work.shards[s];
        const float *d = tape->d + shard->token * t->width;
        for (size_t i = shard->first; i < shard->first + shard->n; i++)
            for (size_t j = batch->offsets[i]; j < batch->offsets[i + 1];
                 j++, d += E) {
                size_t id = batch->ids[j];
                size_t row = j - batch->offsets[i] + c->position_offset;
                if (words && id >= low && id < high) {
                    kern()->axpy(pass->d_params + t->word + id * E,
                        c->embedding_scale, d, E);
                    pass->marks[id] = 1;
                }
                if (!words && c->positions == TRANSFORMER_POSITIONS_LEARNED)
                    kern()->axpy(
                        pass->d_params + t->position + row * E, 1, d, E);
                if (!words && c->token_types > 0)
                    kern()->axpy(pass->d_params + t->type, 1, d, E);
            }
    }
    if (!words && c->embedding_norm)
        sum_shards(pass, t->norm, 0, E);
}

enum err
transformer_backward(const struct transformer *t, const float *params,
    struct transformer_tape *tape, const float *d_out, float *d_params,
    uint8_t *marks, struct pool *pool)
{
    struct pass pass = {.run = {.t = t,
                            .params = params,
                            .ready = tape->ready,
                            .batch = &tape->batch},
        .tape = tape,
        .d_out = d_out,
        .d_params = d_params,
        .marks = marks};
    enum err err;

    if (tape->batch.n == 0)
        return OK;
    /* the pool may have more threads than the forward pass had */
    err = transformer_work_begin(&tape->work, t, &tape->batch, pool);
    if (err == OK)
        err = backward_reserve(tape, t);
    if (err != OK)
        return err;
    size_t n_shards = tape->work.n_shards;
    pool_run(pool, 1, head_worker, &pass);
    pool_run(pool, n_shards, pool_worker, &pass);
    for (size_t i = t->config.layers; i-- > tape->first;) {
        pass.layer = i;
        pool_run(pool, n_jobs(&pass, pack_jobs), pack_worker, &pass);
        pool_run(pool, n_shards, layer_worker, &pass);
        pool_run(pool, n_jobs(&pass, grad_jobs) + 1, weights_worker, &pass);
    }
    if (tape->n_frozen > 0)
        return OK;
    if (t->config.embedding_norm)
        pool_run(pool, n_shards, embed_norm_worker, &pass);
    pool_run(pool, WORD_RANGES + 1, embed_worker, &pass);
    return OK;
}
