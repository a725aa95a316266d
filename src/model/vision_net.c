/*
 * vision_net.c - a run of pictures through the network, forward and backward,
 * by one thread; and the weights as the kernels want them.
 */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "image/image.h"
#include "kern/gemm.h"
#include "kern/kern.h"
#include "model/vision_encoder.h"
#include "nn/l2norm.h"
#include "nn/pooling.h"
#include "nn/standardize.h"

#define ALIGN_FLOATS 16
#define NORM_MIN 1e-30f /* as in nn/l2norm.h */
#define ALIGNED(n) (((n) + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS)

static struct conv_shape
shape_of(const struct vision_conv *c, size_t n)
{
    return (struct conv_shape){.n = (uint32_t)n,
        .ic = c->ic,
        .oc = c->oc,
        .side = c->side,
        .kernel = c->kernel,
        .stride = c->stride};
}

/* ------------------------------------------------------------- weights */

enum err
vision_ready_new(
    struct vision_ready **out, const struct vision_encoder *e, bool train)
{
    struct vision_ready *r = mem_calloc(1, sizeof *r);
    enum err err = r == NULL ? ERR_NOMEM : OK;

    if (err == OK) {
        r->z = mem_alloc_aligned(e->base.n_params, sizeof *r->z);
        r->w = mem_alloc_aligned(e->base.n_params, sizeof *r->w);
        if (train)
            r->w_data = mem_alloc_aligned(e->base.n_params, sizeof *r->w);
        if (r->z == NULL || r->w == NULL || (train && r->w_data == NULL))
            err = ERR_NOMEM;
    }
    for (size_t i = 0; i < e->n_convs && err == OK; i++) {
        unsigned passes = 1u << CONV_FORWARD;
        if (train)
            passes |= 1u << CONV_BACKWARD_WEIGHTS;
        if (train && i > 0)
            passes |= 1u << CONV_BACKWARD_DATA;
        for (size_t j = 0; j < 2 && err == OK; j++) {
            struct conv_shape shape =
                shape_of(&e->convs[i], j == 0 ? e->run : 1);
            err = conv_new(&r->conv[i][j], &shape, passes);
            if (err == OK)
                r->workspace_bytes = MAX(
                    r->workspace_bytes, conv_workspace_bytes(r->conv[i][j]));
        }
    }
    if (err != OK)
        vision_ready_free(r);
    else
        *out = r;
    return err;
}

void
vision_ready_free(struct vision_ready *ready)
{
    if (ready == NULL)
        return;
    for (size_t i = 0; i < VISION_CONVS_MAX; i++)
        for (size_t j = 0; j < 2; j++)
            conv_free(ready->conv[i][j]);
    mem_free(ready->w);
    mem_free(ready->w_data);
    mem_free(ready->z);
    mem_free(ready);
}

struct ready_job {
    struct vision_ready *ready;
    const struct vision_encoder *e;
};

static void
ready_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct ready_job *job = arg;
    const struct vision_conv *c = &job->e->convs[shard_i];
    struct conv_shape shape = shape_of(c, 1);
    float *z = job->ready->z + c->w_at;
    (void)thread_i;
    standardize_forward(
        z, job->e->base.params + c->w_at, c->oc, c->n_w / c->oc);
    conv_pack(job->ready->w + c->w_at, z, &shape, CONV_FORWARD);
    if (job->ready->w_data != NULL && shard_i > 0)
        conv_pack(job->ready->w_data + c->w_at, z, &shape, CONV_BACKWARD_DATA);
}

void
vision_ready_weights(struct vision_ready *ready, const struct vision_encoder *e,
    struct pool *pool)
{
    struct ready_job job = {.ready = ready, .e = e};
    pool_run(pool, e->n_convs, ready_worker, &job);
}

/* ------------------------------------------------------------- scratch */

enum err
vision_scratch_new(struct vision_scratch *s, const struct vision_encoder *e,
    const struct vision_ready *ready, bool train)
{
    size_t sizes[] = {e->run * e->map_max,          /* maps[0] */
        train ? e->run * e->map_max : 0,            /* maps[1] */
        train ? e->run * e->map_max : 0,            /* maps[2] */
        train ? e->run * e->map_max : 0,            /* maps[3] */
        train ? e->w_max : 0,                       /* dw */
        train ? 0 : e->run * e->n_features,         /* features */
        train ? e->run * e->n_features : 0,         /* df */
        train ? e->run * e->base.n_dims : 0,        /* dy */
        train ? 0 : e->run * e->lean.floats,        /* act */
        train ? 0 : e->run * e->n_stats,            /* stats */
        ready->workspace_bytes / sizeof(float) + 1, /* workspace */
        ((size_t)e->base.image_side * e->base.image_side *
                e->base.image_channels +
            3) /
            4 /* pixels */};
    float **places[] = {&s->maps[0], &s->maps[1], &s->maps[2], &s->maps[3],
        &s->dw, &s->features, &s->df, &s->dy, &s->act, &s->stats, &s->workspace,
        NULL};
    size_t total = 0;

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        total += ALIGNED(sizes[i]);
    s->block = mem_alloc_aligned(total, sizeof(float));
    if (s->block == NULL)
        return ERR_NOMEM;
    float *at = s->block;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        if (places[i] != NULL)
            *places[i] = at;
        else
            s->pixels = (uint8_t *)at;
        at += ALIGNED(sizes[i]);
    }
    return OK;
}

void
vision_scratch_free(struct vision_scratch *s)
{
    mem_free(s->block);
    s->block = NULL;
}

/* --------------------------------------------------------------- input */

void
vision_input(float *out, const struct vision_encoder *e,
    const struct image *image, uint8_t *pixels)
{
    size_t side = e->base.image_side, C = e->base.image_channels;
    size_t n = side * side;

    if (image == NULL) {
        memset(out, 0, n * C * sizeof *out);
        return;
    }
    const uint8_t *from = pixels;
    if (image->width == side && image->height == side && image->channels == C)
        from = image->pixels;
    else
        image_fit(pixels, (uint32_t)side, (uint32_t)C, image);
    for (size_t c = 0; c < C; c++) {
        float std = e->base.params[e->std_at + c];
        float scale =
            1.0f / (255.0f * (std > VISION_STD_MIN ? std : VISION_STD_MIN));
        float shift = -255.0f * e->base.params[e->mean_at + c] * scale;
        for (size_t i = 0; i < n; i++)
            out[c * n + i] = (float)from[i * C + c] * scale + shift;
    }
}

/* ------------------------------------------------------------- forward */

static struct groupnorm
norm_of(const struct vision_encoder *e, const struct vision_conv *c, bool relu)
{
    return (struct groupnorm){.C = c->oc,
        .HW = (size_t)c->side_out * c->side_out,
        .b = conv_block(),
        .gain = e->base.params + c->gain_at,
        .bias = e->base.params + c->bias_at,
        .relu = relu};
}

/* What a pass over one run needs everywhere. */
struct run {
    const struct vision_encoder *e;
    const struct vision_ready *ready;
    const struct vision_places *places;
    float *act;
    float *stats;
    size_t n;
    struct vision_scratch *s;
};

static const struct conv *
conv_of(const struct run *r, size_t i)
{
    return r->ready->conv[i][r->n == r->e->run ? 0 : 1];
}

static float *
map_of(const struct run *r, size_t place)
{
    return r->act + place * r->n;
}

/* c = conv i of x, then y = norm(c) (+ residual); again: c and its statistics
   are there already. */
static enum err
forward_conv(const struct run *r, size_t i, const float *x)
{
    const struct vision_conv *c = &r->e->convs[i];
    return conv_run(conv_of(r, i), CONV_FORWARD, map_of(r, r->places->c[i]), x,
        r->ready->w + c->w_at, r->s->workspace);
}

enum how { FIRST, AGAIN };

static void
normalize(const struct run *r, size_t i, float *y, const float *residual,
    bool relu, enum how how)
{
    const struct vision_conv *c = &r->e->convs[i];
    const struct groupnorm norm = norm_of(r->e, c, relu);
    const float *x = map_of(r, r->places->c[i]);

    for (size_t j = 0; j < r->n; j++) {
        float *stats = r->stats + j * r->e->n_stats + c->stats_at;
        const float *res = residual == NULL ? NULL : residual + j * c->map;
        if (how == FIRST)
            groupnorm_forward(
                y + j * c->map, stats, x + j * c->map, res, &norm);
        else
            groupnorm_again(y + j * c->map, stats, x + j * c->map, res, &norm);
    }
}

static enum err
forward_block(const struct run *r, size_t i)
{
    const struct vision_block *b = &r->e->blocks[i];
    const float *x = map_of(r, r->places->x[i]);
    float *out = map_of(r, r->places->x[i + 1]);
    float *y = r->s->maps[0];
    enum err err = forward_conv(r, b->conv1, x);

    if (err == OK) {
        normalize(r, b->conv1, y, NULL, true, FIRST);
        err = forward_conv(r, b->conv2, y);
    }
    if (err == OK && b->shortcut != 0) {
        err = forward_conv(r, b->shortcut, x);
        if (err == OK)
            normalize(r, b->shortcut, y, NULL, false, FIRST);
        x = y;
    }
    if (err == OK)
        normalize(r, b->conv2, out, x, true, FIRST);
    return err;
}

enum err
vision_forward_run(const struct vision_encoder *e,
    const struct vision_ready *ready, const struct vision_places *places,
    float *f, float *act, float *stats, size_t n, struct vision_scratch *s)
{
    const struct run r = {e, ready, places, act, stats, n, s};
    const struct vision_conv *last =
        &e->convs[e->blocks[e->n_all_blocks - 1].conv2];
    enum err err = forward_conv(&r, 0, map_of(&r, places->input));

    if (err == OK)
        normalize(&r, 0, map_of(&r, places->x[0]), NULL, true, FIRST);
    for (size_t i = 0; i < e->n_all_blocks && err == OK; i++)
        err = forward_block(&r, i);
    for (size_t j = 0; j < n && err == OK; j++)
        pooling_forward(f + j * e->n_features,
            map_of(&r, places->x[e->n_all_blocks]) + j * last->map, last->oc,
            last->side_out, e->grid, conv_block());
    return err;
}

void
vision_head(float *z, float *norm, const struct vision_encoder *e,
    const float *f, size_t n)
{
    size_t D = e->base.n_dims, F = e->n_features;
    if (e->linear) {
        for (size_t j = 0; j < n; j++)
            memcpy(
                z + j * D, e->base.params + e->linear_bias_at, D * sizeof *z);
        gemm_f32(z, D, f, F, false, e->base.params + e->linear_at, F, true, n,
            D, F, 1, 1);
    } else {
        memcpy(z, f, n * D * sizeof *z);
    }
    l2norm_forward(z, norm, z, n, D, NULL);
    for (size_t j = 0; j < n; j++) {
        if (norm[j] > NORM_MIN && norm[j] < INFINITY)
            continue;
        norm[j] = 0; /* weights that no training gives */
        memset(z + j * D, 0, D * sizeof *z);
    }
}

/* ------------------------------------------------------------ backward */

/* Convolution i from the gradient dc of its output: its weights' gradient into
   the lane, and dx of its input unless dx is NULL. */
static enum err
backward_conv(const struct run *r, size_t i, float *lane, float *dx,
    const float *dc, const float *x)
{
    const struct vision_conv *c = &r->e->convs[i];
    enum err err = conv_run(
        conv_of(r, i), CONV_BACKWARD_WEIGHTS, r->s->dw, x, dc, r->s->workspace);
    if (err == OK)
        kern()->axpy(lane + c->w_at, 1, r->s->dw, c->n_w);
    if (err == OK && dx != NULL)
        err = conv_run(conv_of(r, i), CONV_BACKWARD_DATA, dx, dc,
            r->ready->w_data + c->w_at, r->s->workspace);
    return err;
}

/* forward: y = norm(c) (+ residual); dc may be dy. */
static void
backward_norm(const struct run *r, size_t i, float *lane, float *dc, float *dy,
    const float *y, bool relu)
{
    const struct vision_conv *c = &r->e->convs[i];
    const struct groupnorm norm = norm_of(r->e, c, relu);
    const float *x = map_of(r, r->places->c[i]);

    for (size_t j = 0; j < r->n; j++) {
        size_t at = j * c->map;
        groupnorm_backward(dc + at, lane + c->gain_at, lane + c->bias_at,
            dy + at, y == NULL ? NULL : y + at,
            r->stats + j * r->e->n_stats + c->stats_at, x + at, &norm);
    }
}

/* forward: x' = ReLU(N2(C2 * y) + S(x)), y = ReLU(N1(C1 * x)). dx' stands in
 *d, which becomes dx; t[0..2] are three other maps. */
static enum err
backward_block(
    const struct run *r, size_t i, float *lane, float **d, float *t[3])
{
    const struct vision_block *b = &r->e->blocks[i];
    const float *x = map_of(r, r->places->x[i]);
    const float *out = map_of(r, r->places->x[i + 1]);
    size_t n_in = (size_t)r->e->convs[b->conv1].ic *
                  r->e->convs[b->conv1].side * r->e->convs[b->conv1].side *
                  r->n;
    float *y = t[0], *du = *d;

    /* du: behind the ReLU of the sum */
    backward_norm(r, b->conv2, lane, t[1], du, out, true);
    normalize(r, b->conv1, y, NULL, true, AGAIN);
    enum err err = backward_conv(r, b->conv2, lane, t[2], t[1], y);
    if (err == OK) {
        backward_norm(r, b->conv1, lane, t[2], t[2], y, true);
        err = backward_conv(r, b->conv1, lane, t[1], t[2], x);
    }
    if (err == OK && b->shortcut != 0) {
        backward_norm(r, b->shortcut, lane, du, du, NULL, false);
        err = backward_conv(r, b->shortcut, lane, t[2], du, x);
        du = t[2];
    }
    if (err == OK)
        kern()->axpy(t[1], 1, du, n_in);
    float *old = *d;
    *d = t[1];
    t[1] = old;
    return err;
}

enum err
vision_backward_run(const struct vision_encoder *e,
    const struct vision_ready *ready, float *lane, const float *df, float *act,
    const float *stats, size_t n, struct vision_scratch *s)
{
    const struct run r = {
        e, ready, &e->keep, act, (float *)(uintptr_t)stats, n, s};
    const struct vision_conv *last =
        &e->convs[e->blocks[e->n_all_blocks - 1].conv2];
    float *d = s->maps[0];
    float *t[3] = {s->maps[1], s->maps[2], s->maps[3]};
    enum err err = OK;

    for (size_t j = 0; j < n; j++)
        pooling_backward(d + j * last->map, df + j * e->n_features, last->oc,
            last->side_out, e->grid, conv_block());
    for (size_t i = e->n_all_blocks; i-- > 0 && err == OK;)
        err = backward_block(&r, i, lane, &d, t);
    if (err == OK) {
        backward_norm(&r, 0, lane, d, d, map_of(&r, e->keep.x[0]), true);
        err = backward_conv(&r, 0, lane, NULL, d, map_of(&r, e->keep.input));
    }
    return err;
}
