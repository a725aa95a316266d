/*
 * vision_train.c - the vision encoder's forward pass with a tape, its backward
 * pass, and the refit of the channels' mean and deviation.
 *
 * Runs of pictures are dealt out to a fixed number of lanes, run r to lane r
 * mod lanes; a lane adds up its gradients run by run, and the lanes are summed
 * in order. So every bit is the same for any number of threads.
 */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "image/image.h"
#include "kern/gemm.h"
#include "kern/kern.h"
#include "model/vision_encoder.h"
#include "nn/l2norm.h"
#include "nn/standardize.h"

#define LANES_MAX 16
#define LANES_MIN 4
#define LANES_FLOATS ((size_t)8 << 20) /* of all lanes, but for LANES_MIN */

struct vision_tape {
    struct encoder_tape base;
    struct vision_ready *ready;
    struct vision_scratch *scratch; /* [n_threads] */
    size_t n_threads;
    size_t n;     /* pictures of the last forward */
    size_t cap;   /* pictures that the next four have room for */
    float *act;   /* [n * keep.floats], run after run */
    float *stats; /* [n, n_stats] */
    float *f;     /* [n, F] */
    float *z;     /* [n, D] */
    float *norm;  /* [n] |y| */
    float *lanes; /* [n_lanes, n_params] */
    size_t n_lanes;
};

static struct vision_tape *
tape_of(struct encoder_tape *tape)
{
    return (struct vision_tape *)(void *)tape;
}

enum err
vision_tape_new(struct encoder_tape **out, const struct encoder *encoder)
{
    const struct vision_encoder *e = vision_of(encoder);
    struct vision_tape *t = mem_calloc(1, sizeof *t);
    enum err err = t == NULL ? ERR_NOMEM : OK;

    if (err != OK)
        return err;
    t->base.family = encoder->family;
    t->n_lanes = MAX(MIN(LANES_FLOATS / e->base.n_params, (size_t)LANES_MAX),
        (size_t)LANES_MIN);
    t->lanes =
        mem_alloc_aligned(t->n_lanes * e->base.n_params, sizeof *t->lanes);
    err = t->lanes == NULL ? ERR_NOMEM : vision_ready_new(&t->ready, e, true);
    if (err != OK)
        vision_tape_free(&t->base);
    else
        *out = &t->base;
    return err;
}

void
vision_tape_free(struct encoder_tape *tape)
{
    struct vision_tape *t = tape_of(tape);
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n_threads; i++)
        vision_scratch_free(&t->scratch[i]);
    mem_free(t->scratch);
    vision_ready_free(t->ready);
    mem_free(t->act);
    mem_free(t->stats);
    mem_free(t->f);
    mem_free(t->z);
    mem_free(t->norm);
    mem_free(t->lanes);
    mem_free(t);
}

size_t
vision_tape_input_bytes(
    const struct encoder *encoder, const struct encoder_input *input)
{
    (void)input; /* all pictures are brought to one size */
    const struct vision_encoder *e = vision_of(encoder);
    return (e->keep.floats + e->n_stats + e->n_features + e->base.n_dims + 1) *
           sizeof(float);
}

static bool
renew(float **p, size_t n, size_t floats)
{
    mem_free(*p);
    *p = floats == 0 || n > SIZE_MAX / floats
             ? NULL
             : mem_alloc_aligned(n * floats, sizeof(float));
    return *p != NULL;
}

/* Room for n pictures and for the pool's threads. */
static enum err
tape_reserve(struct vision_tape *t, const struct vision_encoder *e, size_t n,
    size_t n_threads)
{
    if (n > t->cap) {
        t->cap = 0;
        if (!renew(&t->act, n, e->keep.floats) ||
            !renew(&t->stats, n, e->n_stats) ||
            !renew(&t->f, n, e->n_features) ||
            !renew(&t->z, n, e->base.n_dims) || !renew(&t->norm, n, 1))
            return ERR_NOMEM;
        t->cap = n;
        t->base.bytes = n * vision_tape_input_bytes(&e->base, NULL);
    }
    if (n_threads > t->n_threads) {
        struct vision_scratch *grown =
            mem_realloc(t->scratch, n_threads, sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        t->scratch = grown;
        while (t->n_threads < n_threads) {
            enum err err = vision_scratch_new(
                &t->scratch[t->n_threads], e, t->ready, true);
            if (err != OK)
                return err;
            t->n_threads++;
        }
    }
    return OK;
}

struct pass {
    const struct vision_encoder *e;
    struct vision_tape *t;
    const struct encoder_input *inputs;
    float *out;
    const float *d_out;
    struct encoder_grads *grads;
    _Atomic int err;
};

/* Runs of n pictures, and run i's first picture and length. */
static size_t
n_runs(const struct vision_encoder *e, size_t n)
{
    return n / e->run + n % e->run;
}

static size_t
run_at(const struct vision_encoder *e, size_t n, size_t i, size_t *first)
{
    size_t full = n / e->run;
    *first = i < full ? i * e->run : full * e->run + (i - full);
    return i < full ? e->run : 1;
}

/* ------------------------------------------------------------- forward */

static void
forward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    const struct vision_encoder *e = pass->e;
    struct vision_tape *t = pass->t;
    struct vision_scratch *s = &t->scratch[thread_i];
    size_t first, n = run_at(e, t->n, shard_i, &first);
    size_t D = e->base.n_dims, n_in = (size_t)e->base.image_side *
                                      e->base.image_side *
                                      e->base.image_channels;
    float *act = t->act + first * e->keep.floats;
    float *f = t->f + first * e->n_features;
    float *z = t->z + first * D;

    for (size_t i = 0; i < n; i++)
        vision_input(act + e->keep.input * n + i * n_in, e,
            pass->inputs[first + i].image, s->pixels);
    enum err err = vision_forward_run(
        e, t->ready, &e->keep, f, act, t->stats + first * e->n_stats, n, s);
    if (err != OK) {
        pass->err = (int)err;
        return;
    }
    vision_head(z, t->norm + first, e, f, n);
    for (size_t i = 0; i < n; i++) {
        if (pass->inputs[first + i].image == NULL) {
            t->norm[first + i] = 0;
            memset(z + i * D, 0, D * sizeof *z);
        }
    }
    memcpy(pass->out + first * D, z, n * D * sizeof *z);
}

enum err
vision_forward(const struct encoder *encoder, struct encoder_tape *tape,
    const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool)
{
    const struct vision_encoder *e = vision_of(encoder);
    struct vision_tape *t = tape_of(tape);
    struct pass pass = {.e = e, .t = t, .inputs = inputs, .out = out};

    (void)noise; /* of words; views of pictures have theirs already */
    t->n = 0;
    enum err err = tape_reserve(t, e, n, pool_threads(pool));
    if (err != OK)
        return err;
    t->n = n;
    vision_ready_weights(t->ready, e, pool);
    pool_run(pool, n_runs(e, n), forward_worker, &pass);
    if (pass.err != OK)
        t->n = 0;
    return (enum err)pass.err;
}

/* ------------------------------------------------------------ backward */

/* forward: z = y / |y|, y = W f + bias */
static enum err
backward_run(struct pass *pass, float *lane, size_t first, size_t n,
    struct vision_scratch *s)
{
    const struct vision_encoder *e = pass->e;
    struct vision_tape *t = pass->t;
    size_t D = e->base.n_dims, F = e->n_features;
    const float *f = t->f + first * F;
    float *dy = e->linear ? s->dy : s->df;

    l2norm_backward(dy, pass->d_out + first * D, t->z + first * D,
        t->norm + first, n, D, NULL);
    if (e->linear) {
        for (size_t i = 0; i < n; i++)
            kern()->axpy(lane + e->linear_bias_at, 1, dy + i * D, D);
        gemm_f32(
            lane + e->linear_at, F, dy, D, true, f, F, false, D, F, n, 1, 1);
        gemm_f32(s->df, F, dy, D, false, e->base.params + e->linear_at, F,
            false, n, F, D, 1, 0);
    }
    return vision_backward_run(e, t->ready, lane, s->df,
        t->act + first * e->keep.floats, t->stats + first * e->n_stats, n, s);
}

static void
backward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    const struct vision_encoder *e = pass->e;
    struct vision_tape *t = pass->t;
    size_t runs = n_runs(e, t->n);
    float *lane = t->lanes + shard_i * e->base.n_params;

    memset(lane, 0, e->base.n_params * sizeof *lane);
    for (size_t r = shard_i; r < runs; r += t->n_lanes) {
        size_t first, n = run_at(e, t->n, r, &first);
        enum err err =
            backward_run(pass, lane, first, n, &t->scratch[thread_i]);
        if (err != OK)
            pass->err = (int)err;
    }
}

/* d_params of n floats from at += the sum of the lanes there. */
static void
sum_lanes(const struct pass *pass, float *to, size_t at, size_t n)
{
    const struct vision_tape *t = pass->t;
    size_t n_params = pass->e->base.n_params;
    size_t used = MIN(t->n_lanes, n_runs(pass->e, t->n));
    for (size_t l = 0; l < used; l++)
        kern()->axpy(to, 1, t->lanes + l * n_params + at, n);
}

/* Shard i < n_convs: that convolution; the last: what is behind them. */
static void
finish_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    const struct vision_encoder *e = pass->e;
    struct vision_tape *t = pass->t;
    float *d = pass->grads->d_params;
    (void)thread_i;

    if (shard_i == e->n_convs) {
        if (e->linear)
            sum_lanes(pass, d + e->linear_at, e->linear_at,
                e->mean_at - e->linear_at);
        return;
    }
    const struct vision_conv *c = &e->convs[shard_i];
    const struct conv_shape shape = {.n = 1,
        .ic = c->ic,
        .oc = c->oc,
        .side = c->side,
        .kernel = c->kernel,
        .stride = c->stride};
    /* the first lane takes the sum, z the unpacked gradient; both are free */
    float *sum = t->lanes + c->w_at;
    size_t used = MIN(t->n_lanes, n_runs(e, t->n));
    for (size_t l = 1; l < used; l++)
        kern()->axpy(sum, 1, t->lanes + l * e->base.n_params + c->w_at, c->n_w);
    conv_unpack(t->ready->z + c->w_at, sum, &shape);
    standardize_backward(d + c->w_at, t->ready->z + c->w_at,
        e->base.params + c->w_at, c->oc, c->n_w / c->oc);
    sum_lanes(pass, d + c->gain_at, c->gain_at, c->oc);
    sum_lanes(pass, d + c->bias_at, c->bias_at, c->oc);
}

size_t
vision_n_marks(const struct encoder *encoder)
{
    (void)encoder;
    return 0;
}

size_t
vision_n_segments_max(const struct encoder *encoder)
{
    return 3 * vision_of(encoder)->n_convs + 2;
}

static void
list_segments(const struct vision_encoder *e, struct encoder_grads *grads)
{
    struct encoder_segment *s = grads->segments;
    for (size_t i = 0; i < e->n_convs; i++) {
        const struct vision_conv *c = &e->convs[i];
        *s++ = (struct encoder_segment){
            .start = c->w_at, .n = c->n_w, .lr_scale = 1};
        *s++ = (struct encoder_segment){
            .start = c->gain_at, .n = c->oc, .lr_scale = 1, .no_decay = true};
        *s++ = (struct encoder_segment){
            .start = c->bias_at, .n = c->oc, .lr_scale = 1, .no_decay = true};
    }
    if (e->linear) {
        *s++ = (struct encoder_segment){.start = e->linear_at,
            .n = e->linear_bias_at - e->linear_at,
            .lr_scale = 1};
        *s++ = (struct encoder_segment){.start = e->linear_bias_at,
            .n = e->base.n_dims,
            .lr_scale = 1,
            .no_decay = true};
    }
    grads->n_segments = (size_t)(s - grads->segments);
}

enum err
vision_backward(const struct encoder *encoder, struct encoder_tape *tape,
    const float *d_out, struct encoder_grads *grads, struct pool *pool)
{
    const struct vision_encoder *e = vision_of(encoder);
    struct vision_tape *t = tape_of(tape);
    struct pass pass = {.e = e, .t = t, .d_out = d_out, .grads = grads};
    enum err err = tape_reserve(t, e, 0, pool_threads(pool));

    if (err != OK)
        return err;
    if (t->n > 0) {
        pool_run(
            pool, MIN(t->n_lanes, n_runs(e, t->n)), backward_worker, &pass);
        if (pass.err != OK)
            return (enum err)pass.err;
        pool_run(pool, e->n_convs + 1, finish_worker, &pass);
    }
    list_segments(e, grads);
    return OK;
}

/* --------------------------------------------------------------- refit */

enum err
vision_refit(struct encoder *encoder, encoder_next_fn *next, void *arg)
{
    const struct vision_encoder *e = vision_of(encoder);
    size_t C = encoder->image_channels;
    size_t n_bytes = (size_t)encoder->image_side * encoder->image_side * C;
    uint8_t *pixels = mem_alloc(n_bytes, 1);
    struct encoder_input in;
    double sum[3] = {0}, square[3] = {0};
    double n = 0;

    if (pixels == NULL)
        return ERR_NOMEM;
    while (next(arg, &in)) {
        uint64_t s[3] = {0}, q[3] = {0};
        if (in.image == NULL)
            continue;
        image_fit(pixels, encoder->image_side, (uint32_t)C, in.image);
        for (size_t i = 0; i < n_bytes; i++) {
            s[i % C] += pixels[i];
            q[i % C] += (uint64_t)pixels[i] * pixels[i];
        }
        for (size_t c = 0; c < C; c++) {
            sum[c] += (double)s[c];
            square[c] += (double)q[c];
        }
        n += (double)(n_bytes / C);
    }
    for (size_t c = 0; c < C && n > 0; c++) {
        double mean = sum[c] / n / 255;
        double var = square[c] / n / (255.0 * 255.0) - mean * mean;
        encoder->params[e->mean_at + c] = (float)mean;
        encoder->params[e->std_at + c] =
            fmaxf(sqrtf((float)fmax(var, 0)), VISION_STD_MIN);
    }
    mem_free(pixels);
    return OK;
}
