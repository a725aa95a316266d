#include "model/adapter.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/gemm.h"
#include "nn/l2norm.h"

#define ROWS_A_SHARD 64

void
adapter_identity(float *A, size_t D)
{
    memset(A, 0, D * D * sizeof *A);
    for (size_t i = 0; i < D; i++)
        A[i * D + i] = 1;
}

/* ------------------------------------------------------- rows of queries */

/* The rows of a batch that are queries, side by side. */
struct rows {
    size_t n, cap, D;
    size_t *at;  /* [n] where each stands in the batch */
    float *x;    /* [n, D] */
    float *y;    /* [n, D] */
    float *norm; /* [n] of A x */
};

static void
rows_release(struct rows *r)
{
    mem_free(r->at);
    mem_free(r->x);
    mem_free(r->y);
    mem_free(r->norm);
    *r = (struct rows){.n = 0};
}

static enum err
rows_reserve(struct rows *r, size_t n, size_t D)
{
    if (n <= r->cap)
        return OK;
    rows_release(r);
    r->at = mem_alloc(n, sizeof *r->at);
    r->x = mem_alloc_aligned(n * D, sizeof *r->x);
    r->y = mem_alloc_aligned(n * D, sizeof *r->y);
    r->norm = mem_alloc(n, sizeof *r->norm);
    if (r->at == NULL || r->x == NULL || r->y == NULL || r->norm == NULL) {
        rows_release(r);
        return ERR_NOMEM;
    }
    r->cap = n;
    return OK;
}

static enum err
rows_gather(struct rows *r, const struct encoder_input *inputs, size_t n,
    const float *from, size_t D)
{
    size_t n_queries = 0, kept = 0;

    for (size_t i = 0; i < n; i++)
        n_queries += inputs[i].query;
    enum err err = rows_reserve(r, n_queries, D);
    if (err != OK)
        return err;
    for (size_t i = 0; i < n; i++) {
        if (!inputs[i].query)
            continue;
        memcpy(r->x + kept * D, from + i * D, D * sizeof *from);
        r->at[kept++] = i;
    }
    r->n = kept;
    r->D = D;
    return OK;
}

/* A product of matrices, whose rows are cut into shards. */
struct product {
    const struct rows *r;
    const float *A, *dz;
    float *dA;
};

/* y = x A^T */
static void
forward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct product *p = arg;
    const struct rows *r = p->r;
    size_t D = r->D, first = shard_i * ROWS_A_SHARD;

    (void)thread_i;
    gemm_f32(r->y + first * D, D, r->x + first * D, D, false, p->A, D, true,
        MIN(r->n - first, (size_t)ROWS_A_SHARD), D, D, 1, 0);
}

/* dA += dz^T x, from y = x A^T */
static void
backward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct product *p = arg;
    const struct rows *r = p->r;
    size_t D = r->D, first = shard_i * ROWS_A_SHARD;

    (void)thread_i;
    gemm_f32(p->dA + first * D, D, p->dz + first, D, true, r->x, D, false,
        MIN(D - first, (size_t)ROWS_A_SHARD), D, r->n, 1, 1);
}

static void
run_shards(pool_fn *worker, struct product *p, size_t n, struct pool *pool)
{
    pool_run(pool, (n + ROWS_A_SHARD - 1) / ROWS_A_SHARD, worker, p);
}

/* The rows through A, back to where they stood. */
static void
rows_map(struct rows *r, const float *A, float *to, struct pool *pool)
{
    struct product p = {.r = r, .A = A};
    size_t D = r->D;

    run_shards(forward_worker, &p, r->n, pool);
    l2norm_forward(r->y, r->norm, r->y, r->n, D, pool);
    for (size_t i = 0; i < r->n; i++)
        memcpy(to + r->at[i] * D, r->y + i * D, D * sizeof *to);
}

enum err
adapter_map(const float *A, size_t D, const struct encoder_input *inputs,
    size_t n, float *rows, struct pool *pool)
{
    struct rows r = {.n = 0};
    enum err err = rows_gather(&r, inputs, n, rows, D);

    if (err == OK)
        rows_map(&r, A, rows, pool);
    rows_release(&r);
    return err;
}

/* ---------------------------------------------------------------- training */

struct adapter_tape {
    struct encoder_tape base;
    struct rows rows;
};

static struct adapter_tape *
tape_of(struct encoder_tape *tape)
{
    return (struct adapter_tape *)(void *)tape;
}

enum err
adapter_tape_new(struct encoder_tape **out)
{
    struct adapter_tape *t = mem_calloc(1, sizeof *t);

    if (t == NULL)
        return ERR_NOMEM;
    t->base.family = &adapter_family;
    *out = &t->base;
    return OK;
}

static void
tape_free(struct encoder_tape *tape)
{
    struct adapter_tape *t = tape_of(tape);
    rows_release(&t->rows);
    mem_free(t);
}

enum err
adapter_forward(const struct encoder *encoder, struct encoder_tape *tape,
    const struct encoder_input *inputs, size_t n, float *out, struct pool *pool)
{
    struct rows *r = &tape_of(tape)->rows;
    size_t D = encoder->n_dims;
    enum err err = encoder_encode_plain(encoder, inputs, n, out, NULL, pool);

    if (err == OK)
        err = rows_gather(r, inputs, n, out, D);
    if (err != OK)
        return err;
    rows_map(r, encoder->params + encoder->n_params, out, pool);
    tape->bytes =
        r->cap * (2 * D * sizeof(float) + sizeof *r->norm + sizeof *r->at);
    return OK;
}

enum err
adapter_backward(const struct encoder *encoder, struct encoder_tape *tape,
    const float *d_out, struct encoder_grads *grads, struct pool *pool)
{
    const struct rows *r = &tape_of(tape)->rows;
    size_t D = encoder->n_dims;
    float *dz = mem_alloc_aligned(r->n * D + 1, sizeof *dz);
    struct product p = {
        .r = r, .dz = dz, .dA = grads->d_params + encoder->n_params};

    if (dz == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < r->n; i++)
        memcpy(dz + i * D, d_out + r->at[i] * D, D * sizeof *dz);
    l2norm_backward(dz, dz, r->y, r->norm, r->n, D, pool);
    if (r->n > 0)
        run_shards(backward_worker, &p, D, pool);
    grads->segments[0] = (struct encoder_segment){.start = encoder->n_params,
        .n = D * D,
        .lr_scale = 1,
        .no_decay = true};
    grads->n_segments = 1;
    mem_free(dz);
    return OK;
}

/* ------------------------------------------------------------------ alone */

static size_t
one(const struct encoder *encoder)
{
    (void)encoder;
    return 1;
}

const struct encoder_family adapter_family = {.name = "adapter",
    .reads = ENCODER_READS_TEXT,
    .tape_free = tape_free,
    .n_marks = one,
    .n_segments_max = one};

enum err
encoder_adapter_alone(struct encoder **out, const struct encoder *encoder)
{
    size_t D = encoder->n_dims;
    struct encoder *alone = mem_calloc(1, sizeof *alone);
    char config[48];

    ASSERT(encoder->n_adapter > 0);
    if (alone == NULL)
        return ERR_NOMEM;
    (void)snprintf(config, sizeof config, "{\"dims\":%zu}", D);
    alone->family = &adapter_family;
    alone->n_dims = D;
    alone->n_adapter = D * D;
    alone->trained = alone->unsealed = true;
    alone->struct_bytes = sizeof *alone;
    alone->params = mem_alloc_aligned(D * D, sizeof(float));
    alone->config_json = mem_strdup(config);
    alone->cache = mem_calloc(1, sizeof *alone->cache);
    if (alone->params == NULL || alone->config_json == NULL ||
        alone->cache == NULL) {
        encoder_free(alone);
        return ERR_NOMEM;
    }
    memcpy(alone->params, encoder->params + encoder->n_params,
        D * D * sizeof(float));
    *out = alone;
    return OK;
}
