#include "train/projection.h"

#include <string.h>

#include "base/alloc.h"
#include "nn/head.h"

#define ROWS_AT_ONCE 1024

struct projection {
    struct head_shape shape;
    size_t n_params;
    float *params;
    struct encoder_grads grads; /* its segments are the head's parts */
    struct encoder_segment segments[HEAD_PARTS_MAX];
    struct optimizer *optimizer;
    float *tape;
    size_t n_tape; /* floats */
    /* the last forward pass */
    const float *e;
    float *z;
    size_t n;
};

enum err
projection_new(struct projection **out, size_t n_layers, size_t D, size_t P,
    uint64_t seed, const struct optimizer_options *optimizer)
{
    struct projection *h = mem_calloc(1, sizeof *h);
    struct head_part parts[HEAD_PARTS_MAX];
    struct rng rng;

    if (h == NULL)
        return ERR_NOMEM;
    h->shape = (struct head_shape){
        .n_layers = n_layers, .n_in = D, .n_hidden = P, .n_out = P};
    h->n_params = head_n_params(&h->shape);
    h->n_tape = head_tape_floats(&h->shape, ROWS_AT_ONCE);
    h->params = mem_alloc_aligned(h->n_params, sizeof *h->params);
    h->grads.d_params = mem_calloc(h->n_params, sizeof *h->grads.d_params);
    h->tape = mem_alloc_aligned(h->n_tape, sizeof *h->tape);
    enum err err = optimizer_new(&h->optimizer, h->n_params, optimizer);
    if (err == OK &&
        (h->params == NULL || h->grads.d_params == NULL || h->tape == NULL))
        err = ERR_NOMEM;
    if (err != OK) {
        projection_free(h);
        return err;
    }
    h->grads.segments = h->segments;
    h->grads.n_segments = head_parts(&h->shape, parts);
    for (size_t i = 0; i < h->grads.n_segments; i++)
        h->segments[i] = (struct encoder_segment){.start = parts[i].start,
            .n = parts[i].n,
            .lr_scale = 1,
            .no_decay = parts[i].is_bias};
    rng_seed_stream(&rng, seed, 4);
    head_init(&h->shape, h->params, &rng);
    *out = h;
    return OK;
}

void
projection_free(struct projection *h)
{
    if (h == NULL)
        return;
    optimizer_free(h->optimizer);
    mem_free(h->params);
    mem_free(h->grads.d_params);
    mem_free(h->tape);
    mem_free(h);
}

size_t
projection_bytes(const struct projection *h)
{
    return (2 * h->n_params + optimizer_state_floats(h->optimizer) +
               h->n_tape) *
           sizeof(float);
}

/* Rows i and after, as many as are worked on at once. */
static void
forward_rows(struct projection *h, const float *params, const float *e,
    float *z, size_t i, size_t n, struct pool *pool)
{
    head_forward(&h->shape, z + i * h->shape.n_out, h->tape, params,
        e + i * h->shape.n_in, MIN(n - i, (size_t)ROWS_AT_ONCE), pool);
}

void
projection_forward(
    struct projection *h, const float *e, size_t n, float *z, struct pool *pool)
{
    h->e = e;
    h->z = z;
    h->n = n;
    for (size_t i = 0; i < n; i += ROWS_AT_ONCE)
        forward_rows(h, h->params, e, z, i, n, pool);
}

void
projection_backward(
    struct projection *h, const float *dz, float *de, struct pool *pool)
{
    size_t D = h->shape.n_in, P = h->shape.n_out;
    size_t n_pieces = (h->n + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;

    /* from the last piece, whose tape is there; z is written again as it was */
    for (size_t p = n_pieces; p-- > 0;) {
        size_t i = p * ROWS_AT_ONCE;
        if (p + 1 < n_pieces)
            forward_rows(h, h->params, h->e, h->z, i, h->n, pool);
        head_backward(&h->shape, de + i * D, h->grads.d_params, h->tape,
            h->params, h->e + i * D, h->z + i * P, dz + i * P,
            MIN(h->n - i, (size_t)ROWS_AT_ONCE), pool);
    }
}

void
projection_step(struct projection *h, float lr, struct pool *pool)
{
    optimizer_step(h->optimizer, h->params, &h->grads, lr, pool);
}

void
projection_encode(struct projection *h, const float *params, const float *e,
    size_t n, float *z, struct pool *pool)
{
    for (size_t i = 0; i < n; i += ROWS_AT_ONCE)
        forward_rows(h, params == NULL ? h->params : params, e, z, i, n, pool);
}

float *
projection_params(struct projection *h, size_t *n_params)
{
    *n_params = h->n_params;
    return h->params;
}

void
projection_state(struct projection *h, struct state *s)
{
    state_bytes(s, h->params, h->n_params * sizeof *h->params);
    state_bytes(s, optimizer_state(h->optimizer),
        optimizer_state_floats(h->optimizer) * sizeof(float));
}
