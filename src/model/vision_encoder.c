#include "model/vision_encoder.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "image/image.h"
#include "kern/kern.h"

#define ALIGN_FLOATS 16
#define ALIGNED(n) (((n) + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS)

#define GRID_DEFAULT 8        /* or the last map's side, when that is less */
#define MACS_MAX 4e9          /* multiply-adds a picture */
#define KEEP_MAX (32.0 * 1e6) /* floats of a picture's maps */
#define RUN_FLOATS (1u << 16) /* of a run's largest map */

/* ------------------------------------------------------------- encode */

/* The encoder's own weights, ready for the kernels: made by the first that
   asks; others who ask meanwhile make theirs and drop it. */
static enum err
shared_ready(const struct vision_encoder *e, struct vision_ready **out)
{
    _Atomic(void *) *place = e->base.cache;
    void *there = atomic_load(place);
    if (there == NULL) {
        struct vision_ready *mine;
        enum err err = vision_ready_new(&mine, e, false);
        if (err != OK)
            return err;
        vision_ready_weights(mine, e, NULL);
        if (atomic_compare_exchange_strong(place, &there, mine))
            there = mine;
        else
            vision_ready_free(mine);
    }
    *out = there;
    return OK;
}

struct encode_job {
    const struct vision_encoder *e;
    const struct vision_ready *ready;
    struct vision_scratch *scratch;
    const struct encoder_input *inputs;
    size_t n;
    float *out;
    struct encoder_info *info;
    _Atomic int err;
};

/* n pictures: a run or one. */
static enum err
encode_run(
    const struct encode_job *job, struct vision_scratch *s, size_t at, size_t n)
{
    const struct vision_encoder *e = job->e;
    size_t D = e->base.n_dims;
    size_t n_in = (size_t)e->base.image_side * e->base.image_side *
                  e->base.image_channels;
    float norm[VISION_RUN_MAX];

    for (size_t i = 0; i < n; i++)
        vision_input(s->act + e->lean.input * n + i * n_in, e,
            job->inputs[at + i].image, s->pixels);
    enum err err = vision_forward_run(
        e, job->ready, &e->lean, s->features, s->act, s->stats, n, s);
    if (err != OK)
        return err;
    vision_head(job->out + at * D, norm, e, s->features, n);
    for (size_t i = 0; i < n; i++) {
        bool none = job->inputs[at + i].image == NULL;
        if (none)
            memset(job->out + (at + i) * D, 0, D * sizeof *job->out);
        if (job->info != NULL)
            job->info[at + i] = (struct encoder_info){.n_tokens = !none,
                .n_tokens_full = !none,
                .empty = none || !(norm[i] > 0)};
    }
    return OK;
}

/* Shard i is a run, or the pictures that are left, one after the other. */
static void
encode_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct encode_job *job = arg;
    size_t run = job->e->run;
    size_t at = shard_i * run;
    size_t end = MIN(at + run, job->n);
    size_t n = end - at == run ? run : 1;

    for (; at < end; at += n) {
        enum err err = encode_run(job, &job->scratch[thread_i], at, n);
        if (err != OK)
            job->err = (int)err;
    }
}

static enum err
vision_encode(const struct encoder *encoder, const struct encoder_input *inputs,
    size_t n, float *out, struct encoder_info *info, struct pool *pool)
{
    const struct vision_encoder *e = vision_of(encoder);
    size_t n_shards = (n + e->run - 1) / e->run;
    struct encode_job job = {
        .e = e, .inputs = inputs, .n = n, .out = out, .info = info};
    struct vision_ready *own = NULL, *ready = NULL;
    size_t n_threads;
    enum err err;

    if (n_shards < 2)
        pool = NULL;
    n_threads = pool_threads(pool);
    if (encoder->unsealed) {
        err = vision_ready_new(&own, e, false);
        if (err == OK)
            vision_ready_weights(own, e, pool);
        ready = own;
    } else {
        err = shared_ready(e, &ready);
    }
    if (err != OK)
        return err;
    job.ready = ready;
    job.scratch = mem_calloc(n_threads, sizeof *job.scratch);
    if (job.scratch == NULL)
        err = ERR_NOMEM;
    for (size_t i = 0; i < n_threads && err == OK; i++)
        err = vision_scratch_new(&job.scratch[i], e, ready, false);
    if (err == OK) {
        pool_run(pool, n_shards, encode_worker, &job);
        err = (enum err)job.err;
    }
    for (size_t i = 0; i < n_threads && job.scratch != NULL; i++)
        vision_scratch_free(&job.scratch[i]);
    mem_free(job.scratch);
    vision_ready_free(own);
    return err;
}

static void
vision_cache_free(void *cache)
{
    vision_ready_free(cache);
}

static size_t
vision_cache_bytes(const struct encoder *encoder)
{
    return sizeof(struct vision_ready) +
           2 * encoder->n_params * sizeof(float); /* z, w */
}

static enum err
vision_tokenize(const struct encoder *encoder, const char *text, size_t len,
    encoder_token_fn *fn, void *arg)
{
    (void)encoder;
    (void)text;
    (void)len;
    (void)fn;
    (void)arg;
    return ERR_UNSUPPORTED;
}

/* ---------------------------------------------------- making and naming */

static void
name_conv(const struct vision_encoder *e, size_t i, char *out, size_t size)
{
    for (size_t b = 0; b < e->n_all_blocks; b++) {
        const struct vision_block *block = &e->blocks[b];
        const char *what = i == block->conv1   ? "conv1"
                           : i == block->conv2 ? "conv2"
                                               : "shortcut";
        if (i != block->conv1 && i != block->conv2 && i != block->shortcut)
            continue;
        if (i == 0)
            break;
        (void)snprintf(out, size, "stage%zu.block%zu.%s", b / e->n_blocks,
            b % e->n_blocks, what);
        return;
    }
    (void)snprintf(out, size, "stem");
}

static size_t
vision_tensors(
    const struct encoder *encoder, struct encoder_tensor *out, size_t max)
{
    const struct vision_encoder *e = vision_of(encoder);
    struct encoder_tensor *t = out;
    char name[56];

    if (out == NULL)
        return 3 * e->n_convs + (e->linear ? 4 : 2);
    ASSERT(3 * e->n_convs + (e->linear ? 4 : 2) <= max);
    for (size_t i = 0; i < e->n_convs; i++) {
        const struct vision_conv *c = &e->convs[i];
        name_conv(e, i, name, sizeof name);
        *t = (struct encoder_tensor){
            .start = c->w_at, .dims = {c->oc, c->n_w / c->oc}};
        (void)snprintf(t->name, sizeof t->name, "%s.weight", name);
        t++;
        *t = (struct encoder_tensor){.start = c->gain_at, .dims = {c->oc, 0}};
        (void)snprintf(t->name, sizeof t->name, "%s.gain", name);
        t++;
        *t = (struct encoder_tensor){.start = c->bias_at, .dims = {c->oc, 0}};
        (void)snprintf(t->name, sizeof t->name, "%s.bias", name);
        t++;
    }
    if (e->linear) {
        *t++ = (struct encoder_tensor){
            "linear.weight", e->linear_at, {e->base.n_dims, e->n_features}};
        *t++ = (struct encoder_tensor){
            "linear.bias", e->linear_bias_at, {e->base.n_dims, 0}};
    }
    *t++ = (struct encoder_tensor){
        "input.mean", e->mean_at, {e->base.image_channels, 0}};
    *t++ = (struct encoder_tensor){
        "input.std", e->std_at, {e->base.image_channels, 0}};
    return (size_t)(t - out);
}

/* He et al. 2015 (arXiv:1502.01852), sec. 2.2; the scale does not matter to
   standardised weights but for the size of a step. */
static void
fill_untrained(struct vision_encoder *e)
{
    struct rng rng;
    float *p = e->base.params;

    rng_seed(&rng, e->seed);
    for (size_t i = 0; i < e->n_convs; i++) {
        const struct vision_conv *c = &e->convs[i];
        double scale = sqrt(2.0 / (double)(c->n_w / c->oc));
        for (size_t j = 0; j < c->n_w; j++)
            p[c->w_at + j] = (float)(scale * rng_normal(&rng));
        for (size_t j = 0; j < c->oc; j++) {
            p[c->gain_at + j] = 1;
            p[c->bias_at + j] = 0;
        }
    }
    for (size_t b = 0; b < e->n_all_blocks; b++) {
        const struct vision_conv *c = &e->convs[e->blocks[b].conv2];
        memset(p + c->gain_at, 0, c->oc * sizeof *p);
    }
    if (e->linear) {
        double scale = sqrt(1.0 / (double)e->n_features);
        for (size_t j = 0; j < e->n_features * e->base.n_dims; j++)
            p[e->linear_at + j] = (float)(scale * rng_normal(&rng));
        memset(p + e->linear_bias_at, 0, e->base.n_dims * sizeof *p);
    }
    for (size_t c = 0; c < e->base.image_channels; c++) {
        p[e->mean_at + c] = 0.5f;
        p[e->std_at + c] = 0.25f;
    }
}

/* Add a convolution to the plan; returns its number. */
static size_t
add_conv(struct vision_encoder *e, uint32_t ic, uint32_t oc, uint32_t side,
    uint32_t kernel, uint32_t stride)
{
    struct vision_conv *c = &e->convs[e->n_convs];
    ASSERT(e->n_convs < VISION_CONVS_MAX);
    *c = (struct vision_conv){.ic = ic,
        .oc = oc,
        .side = side,
        .kernel = kernel,
        .stride = stride,
        .side_out = (side - 1) / stride + 1};
    c->n_w = (size_t)oc * ic * kernel * kernel;
    c->map = (size_t)oc * c->side_out * c->side_out;
    c->w_at = e->base.n_params;
    c->gain_at = c->w_at + c->n_w;
    c->bias_at = c->gain_at + oc;
    e->base.n_params = c->bias_at + oc;
    c->stats_at = e->n_stats;
    e->n_stats += GROUPNORM_STATS(oc);
    e->map_max = MAX(e->map_max, c->map);
    e->w_max = MAX(e->w_max, c->n_w);
    return e->n_convs++;
}

static void
plan_convs(struct vision_encoder *e)
{
    uint32_t side = e->base.image_side;
    uint32_t channels = e->width;
    uint32_t kernel = e->stem_stride == 1 ? 3 : e->stem_stride == 2 ? 5 : 7;

    size_t last = add_conv(
        e, e->base.image_channels, channels, side, kernel, e->stem_stride);
    for (uint32_t s = 0; s < e->n_stages; s++)
        for (uint32_t b = 0; b < e->n_blocks; b++) {
            struct vision_block *block = &e->blocks[e->n_all_blocks++];
            uint32_t ic = channels;
            uint32_t stride = s > 0 && b == 0 ? 2 : 1;
            side = e->convs[last].side_out;
            channels = e->width << s;
            block->conv1 = add_conv(e, ic, channels, side, 3, stride);
            block->conv2 = add_conv(
                e, channels, channels, e->convs[block->conv1].side_out, 3, 1);
            if (stride > 1)
                block->shortcut = add_conv(e, ic, channels, side, 1, stride);
            last = block->conv2;
        }
    uint32_t map = e->convs[last].side_out;
    e->grid = MIN(e->grid, map);
    e->n_features = (size_t)channels * e->grid * e->grid;
    if (!e->linear)
        e->base.n_dims = e->n_features;
}

static void
plan_params(struct vision_encoder *e)
{
    if (e->linear) {
        e->linear_at = e->base.n_params;
        e->linear_bias_at = e->linear_at + e->base.n_dims * e->n_features;
        e->base.n_params = e->linear_bias_at + e->base.n_dims;
    }
    e->mean_at = e->base.n_params;
    e->std_at = e->mean_at + e->base.image_channels;
    e->base.n_params = e->std_at + e->base.image_channels;
}

/* keep: every map has a place of its own. lean: the outputs of convolutions
   share one but for conv2's, which waits for the shortcut's; blocks take two
   in turn. */
static void
plan_places(const struct vision_encoder *e, struct vision_places *p, bool keep)
{
    size_t input = ALIGNED((size_t)e->base.image_side * e->base.image_side *
                           e->base.image_channels);
    size_t map = ALIGNED(e->map_max);
    p->input = 0;
    p->floats = input;
    if (!keep) {
        for (size_t i = 0; i < e->n_convs; i++)
            p->c[i] = input;
        for (size_t i = 0; i <= e->n_all_blocks; i++)
            p->x[i] = input + map * (2 + i % 2);
        for (size_t i = 0; i < e->n_all_blocks; i++)
            p->c[e->blocks[i].conv2] = input + map;
        p->floats = input + 4 * map;
        return;
    }
    for (size_t i = 0; i < e->n_convs; i++) {
        p->c[i] = p->floats;
        p->floats += ALIGNED(e->convs[i].map);
    }
    for (size_t i = 0; i <= e->n_all_blocks; i++) {
        size_t c = i == 0 ? 0 : e->blocks[i - 1].conv2;
        p->x[i] = p->floats;
        p->floats += ALIGNED(e->convs[c].map);
    }
}

struct settings {
    int64_t input, channels, width, blocks, stages, stem_stride, dims, seed,
        grid;
    bool linear;
};

/* What a size of picture wants when nothing is said: a map of 14 to 32 behind
   the stem, and of 4 to 8 at the end. */
static void
default_shape(struct settings *s)
{
    s->stem_stride = s->input <= 64 ? 2 : 4;
    int64_t map = (s->input - 1) / s->stem_stride + 1;
    s->stages = map <= 16 ? 2 : map <= 32 ? 3 : 4;
}

static enum err
read_settings(
    struct settings *s, const struct json *config, struct fault *fault)
{
    static const char *const keys[] = {"input", "channels", "width", "blocks",
        "stages", "stem_stride", "grid", "dims", "linear", "seed"};
    *s = (struct settings){.input = 32,
        .channels = 3,
        .width = 16,
        .blocks = 2,
        .grid = GRID_DEFAULT,
        .dims = 512,
        .seed = 1,
        .linear = true};
    enum err err = json_only_keys(config, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = json_get_i64(
            config, "", "input", JSON_OPTIONAL, 28, 224, &s->input, fault);
    default_shape(s);
    if (err == OK)
        err = json_get_i64(
            config, "", "channels", JSON_OPTIONAL, 1, 3, &s->channels, fault);
    if (err == OK && s->channels == 2)
        err = fault_set(fault, ERR_INVALID, "/channels",
            "channels is 1 (grey) or 3 (colour), not 2");
    if (err == OK)
        err = json_get_i64(
            config, "", "width", JSON_OPTIONAL, 16, 256, &s->width, fault);
    if (err == OK && s->width % GROUPNORM_CHANNELS != 0)
        err = fault_set(fault, ERR_INVALID, "/width",
            "width is a multiple of %d, not %lld", GROUPNORM_CHANNELS,
            (long long)s->width);
    if (err == OK)
        err = json_get_i64(config, "", "blocks", JSON_OPTIONAL, 1,
            VISION_BLOCKS_MAX, &s->blocks, fault);
    if (err == OK)
        err = json_get_i64(config, "", "stages", JSON_OPTIONAL, 1,
            VISION_STAGES_MAX, &s->stages, fault);
    if (err == OK)
        err = json_get_i64(config, "", "stem_stride", JSON_OPTIONAL, 1, 4,
            &s->stem_stride, fault);
    if (err == OK && s->stem_stride == 3)
        err = fault_set(
            fault, ERR_INVALID, "/stem_stride", "stem_stride is 1, 2 or 4");
    if (err == OK)
        err = json_get_i64(config, "", "grid", JSON_OPTIONAL, 1,
            VISION_GRID_MAX, &s->grid, fault);
    if (err == OK)
        err = json_get_bool(
            config, "", "linear", JSON_OPTIONAL, &s->linear, fault);
    if (err == OK)
        err = json_get_i64(
            config, "", "dims", JSON_OPTIONAL, 8, 1024, &s->dims, fault);
    if (err == OK)
        err = json_get_i64(
            config, "", "seed", JSON_OPTIONAL, 0, INT64_MAX, &s->seed, fault);
    return err;
}

/* Refuse what would take too much memory or time, before any is taken. */
static enum err
check_size(const struct vision_encoder *e, const struct settings *s,
    const struct json *config, struct fault *fault)
{
    double macs = 0;
    for (size_t i = 0; i < e->n_convs; i++)
        macs += (double)e->convs[i].n_w * (double)e->convs[i].side_out *
                (double)e->convs[i].side_out;
    if (e->base.n_params > VISION_PARAMS_MAX)
        return fault_set(fault, ERR_INVALID, "/width",
            "the network would have %zu parameters, more than %zu: less "
            "width, stages or blocks",
            e->base.n_params, VISION_PARAMS_MAX);
    if (macs > MACS_MAX || (double)e->keep.floats > KEEP_MAX)
        return fault_set(fault, ERR_INVALID, "/stem_stride",
            "a picture would take %.1f billion multiplications and %zu "
            "values in memory, more than %.0f billion and %.0f: a larger "
            "stem_stride, a smaller input or less width",
            macs * 1e-9, e->keep.floats, MACS_MAX * 1e-9, KEEP_MAX);
    if (json_find(config, "grid") != NULL && s->grid != (int64_t)e->grid)
        return fault_set(fault, ERR_INVALID, "/grid",
            "the last map has %u x %u cells, a grid of %lld does not fit",
            (unsigned)e->grid, (unsigned)e->grid, (long long)s->grid);
    if (!s->linear && e->n_features > ENCODER_DIMS_MAX)
        return fault_set(fault, ERR_INVALID, "/linear",
            "without a linear layer the vectors would have %zu dims, at most "
            "%d: a smaller grid or width",
            e->n_features, ENCODER_DIMS_MAX);
    if (!s->linear && json_find(config, "dims") != NULL &&
        (size_t)s->dims != e->n_features)
        return fault_set(fault, ERR_INVALID, "/dims",
            "without a linear layer the vectors have %zu dims, not %lld",
            e->n_features, (long long)s->dims);
    return OK;
}

static enum err
vision_make(struct encoder **out, const struct json *config, bool fill,
    struct buf *canonical, struct fault *fault)
{
    struct settings s;
    enum err err = read_settings(&s, config, fault);
    if (err != OK)
        return err;
    struct vision_encoder *e = mem_calloc(1, sizeof *e);
    if (e == NULL)
        return ERR_NOMEM;
    e->base.n_dims = (size_t)s.dims;
    e->base.max_tokens = 1;
    e->base.struct_bytes = sizeof *e;
    e->base.image_side = (uint32_t)s.input;
    e->base.image_channels = (uint32_t)s.channels;
    e->width = (uint32_t)s.width;
    e->n_blocks = (uint32_t)s.blocks;
    e->n_stages = (uint32_t)s.stages;
    e->stem_stride = (uint32_t)s.stem_stride;
    e->grid = (uint32_t)s.grid;
    e->linear = s.linear;
    e->seed = (uint64_t)s.seed;
    plan_convs(e);
    plan_params(e);
    plan_places(e, &e->keep, true);
    plan_places(e, &e->lean, false);
    e->run = VISION_RUN_MAX;
    while (e->run > 1 && e->run * e->map_max > RUN_FLOATS)
        e->run /= 2;
    err = check_size(e, &s, config, fault);
    if (err == OK) {
        e->base.params = mem_alloc_aligned(e->base.n_params, sizeof(float));
        if (e->base.params == NULL)
            err = ERR_NOMEM;
    }
    if (err != OK) {
        mem_free(e);
        return err;
    }
    if (fill)
        fill_untrained(e);
    buf_printf(canonical,
        "{\"blocks\":%lld,\"channels\":%lld,\"dims\":%zu,\"grid\":%u,"
        "\"input\":%lld,\"linear\":%s,\"seed\":%lld,\"stages\":%lld,"
        "\"stem_stride\":%lld,\"width\":%lld}",
        (long long)s.blocks, (long long)s.channels, e->base.n_dims,
        (unsigned)e->grid, (long long)s.input, s.linear ? "true" : "false",
        (long long)s.seed, (long long)s.stages, (long long)s.stem_stride,
        (long long)s.width);
    *out = &e->base;
    return OK;
}

const struct encoder_family vision_encoder_family = {.name = "vision",
    .reads = ENCODER_READS_IMAGE,
    .make = vision_make,
    .tensors = vision_tensors,
    .encode = vision_encode,
    .tokenize = vision_tokenize,
    .tape_new = vision_tape_new,
    .tape_free = vision_tape_free,
    .tape_input_bytes = vision_tape_input_bytes,
    .forward = vision_forward,
    .backward = vision_backward,
    .n_marks = vision_n_marks,
    .n_segments_max = vision_n_segments_max,
    .refit = vision_refit,
    .cache_free = vision_cache_free,
    .cache_bytes = vision_cache_bytes};
