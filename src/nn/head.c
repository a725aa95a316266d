#include "nn/head.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kern/gemm.h"
#include "kern/kern.h"
#include "nn/l2norm.h"

#define ROWS_A_SHARD 64

/* One layer's place in the parameters. */
struct layer {
    size_t in, out;
    size_t W, b; /* starts; b used if bias */
    bool bias, last;
};

static struct layer
layer_of(const struct head_shape *s, size_t l)
{
    struct layer y = {0};
    size_t at = 0;

    for (size_t i = 0; i <= l; i++) {
        y.last = i + 1 == s->n_layers;
        y.in = i == 0 ? s->n_in : s->n_hidden;
        y.out = y.last ? s->n_out : s->n_hidden;
        y.bias = !y.last || s->last_bias;
        y.W = at;
        y.b = at + y.in * y.out;
        at = y.b + (y.bias ? y.out : 0);
    }
    return y;
}

size_t
head_n_params(const struct head_shape *shape)
{
    if (shape->n_layers == 0)
        return 0;
    struct layer last = layer_of(shape, shape->n_layers - 1);
    return last.b + (last.bias ? last.out : 0);
}

size_t
head_parts(const struct head_shape *shape, struct head_part out[HEAD_PARTS_MAX])
{
    size_t n = 0;
    ASSERT(shape->n_layers <= HEAD_LAYERS_MAX);
    for (size_t l = 0; l < shape->n_layers; l++) {
        struct layer y = layer_of(shape, l);
        out[n++] = (struct head_part){.start = y.W, .n = y.in * y.out};
        if (y.bias)
            out[n++] =
                (struct head_part){.start = y.b, .n = y.out, .is_bias = true};
    }
    return n;
}

void
head_init(const struct head_shape *shape, float *params, struct rng *rng)
{
    for (size_t l = 0; l < shape->n_layers; l++) {
        struct layer y = layer_of(shape, l);
        double spread = sqrt((y.last ? 1.0 : 2.0) / (double)y.in);
        for (size_t i = 0; i < y.in * y.out; i++)
            params[y.W + i] = (float)(spread * rng_normal(rng));
        if (y.bias)
            memset(params + y.b, 0, y.out * sizeof *params);
    }
}

/* The tape: the hidden rows of each layer but the last, the lengths before
   y was made unit, and two buffers for gradients of rows. */
static size_t
widest(const struct head_shape *s)
{
    return s->n_layers > 1 ? MAX(s->n_hidden, s->n_out) : s->n_out;
}

size_t
head_tape_floats(const struct head_shape *shape, size_t n)
{
    if (shape->n_layers == 0)
        return 0;
    return n *
           ((shape->n_layers - 1) * shape->n_hidden + 1 + 2 * widest(shape));
}

struct pass {
    struct layer layer;
    float scale;     /* of x: sqrt(n_in) in the first layer */
    const float *x;  /* [n, in] */
    float *y;        /* [n, out]; forward */
    const float *dy; /* [n, out] */
    float *dx;       /* [n, in] */
    const float *params;
    float *d_params;
    size_t n;
};

static struct pass
pass_of(const struct head_shape *s, size_t l, size_t n)
{
    struct pass p = {.layer = layer_of(s, l), .n = n};
    p.scale = l == 0 ? sqrtf((float)s->n_in) : 1;
    return p;
}

/* y = scale x W + b, and the ReLU of it but in the last layer */
static void
forward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *p = arg;
    size_t in = p->layer.in, out = p->layer.out;
    size_t first = shard_i * ROWS_A_SHARD;
    size_t n = MIN(p->n - first, (size_t)ROWS_A_SHARD);
    float *y = p->y + first * out;

    (void)thread_i;
    gemm_f32(y, out, p->x + first * in, in, false, p->params + p->layer.W, out,
        false, n, out, in, p->scale, 0);
    for (size_t i = 0; i < n && p->layer.bias; i++)
        kern()->axpy(y + i * out, 1, p->params + p->layer.b, out);
    for (size_t i = 0; i < n * out && !p->layer.last; i++)
        y[i] = MAX(y[i], 0);
}

static size_t
shards(size_t n)
{
    return (n + ROWS_A_SHARD - 1) / ROWS_A_SHARD;
}

void
head_forward(const struct head_shape *shape, float *y, float *tape,
    const float *params, const float *x, size_t n, struct pool *pool)
{
    const float *from = x;
    float *hidden = tape;

    ASSERT(shape->n_layers <= HEAD_LAYERS_MAX);
    if (shape->n_layers == 0) {
        ASSERT(shape->n_out == shape->n_in);
        memcpy(y, x, n * shape->n_in * sizeof *y);
        return;
    }
    for (size_t l = 0; l < shape->n_layers; l++) {
        struct pass p = pass_of(shape, l, n);
        p.params = params;
        p.x = from;
        p.y = p.layer.last ? y : hidden;
        pool_run(pool, shards(n), forward_worker, &p);
        from = p.y;
        if (!p.layer.last)
            hidden += n * shape->n_hidden;
    }
    l2norm_forward(y, hidden, y, n, shape->n_out, pool);
}

/* of y = scale x W + b: dW += scale x^T dy for a shard of W's rows, db += the
   sum of dy */
static void
weights_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *p = arg;
    size_t in = p->layer.in, out = p->layer.out;
    size_t first = shard_i * ROWS_A_SHARD;
    size_t rows = MIN(in - first, (size_t)ROWS_A_SHARD);

    (void)thread_i;
    gemm_f32(p->d_params + p->layer.W + first * out, out, p->x + first, in,
        true, p->dy, out, false, rows, out, p->n, p->scale, 1);
    for (size_t i = 0; i < p->n && shard_i == 0 && p->layer.bias; i++)
        kern()->axpy(p->d_params + p->layer.b, 1, p->dy + i * out, out);
}

/* of y = scale x W with x = relu(...): dx = scale dy W^T where x > 0; the
   encoder's x, in the first layer, is no ReLU's */
static void
rows_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct pass *p = arg;
    size_t in = p->layer.in, out = p->layer.out;
    size_t first = shard_i * ROWS_A_SHARD;
    size_t n = MIN(p->n - first, (size_t)ROWS_A_SHARD);
    const float *x = p->x + first * in;
    float *dx = p->dx + first * in;

    (void)thread_i;
    gemm_f32(dx, in, p->dy + first * out, out, false, p->params + p->layer.W,
        out, true, n, in, out, p->scale, 0);
    for (size_t i = 0; i < n * in && p->layer.W > 0; i++)
        dx[i] = x[i] > 0 ? dx[i] : 0;
}

void
head_backward(const struct head_shape *shape, float *dx, float *d_params,
    float *tape, const float *params, const float *x, const float *y,
    const float *dy, size_t n, struct pool *pool)
{
    size_t L = shape->n_layers;

    if (L == 0) {
        if (dx != NULL)
            memcpy(dx, dy, n * shape->n_in * sizeof *dx);
        return;
    }
    float *norm = tape + (L - 1) * n * shape->n_hidden;
    float *given = norm + n, *made = given + n * widest(shape);
    l2norm_backward(given, dy, y, norm, n, shape->n_out, pool);
    for (size_t l = L; l-- > 0;) {
        struct pass p = pass_of(shape, l, n);
        p.params = params;
        p.d_params = d_params;
        p.x = l == 0 ? x : tape + (l - 1) * n * shape->n_hidden;
        p.dy = given;
        p.dx = l == 0 ? dx : made;
        pool_run(pool, shards(p.layer.in), weights_worker, &p);
        if (p.dx != NULL)
            pool_run(pool, shards(n), rows_worker, &p);
        made = given;
        given = p.dx;
    }
}
