#include "train/loop.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "train/views.h"

#define POINTS 200
#define LOG_SCALE_MAX 4.60517019 /* ln 100: Radford et al. 2021, sec. 2.5 */
#define LOG_SCALE_LR 0.01        /* peak, in units of ln(1 / tau) */
#define NEGATIVES_A_BATCH 1024   /* given negatives that fit in a batch */

const char *const train_mechanism_names[TRAIN_MECHANISMS] = {
    "in_batch", "momentum_queue", "memory_bank"};
const char *const train_loss_names[TRAIN_LOSSES] = {
    "infonce", "symmetric", "four_way", "nt_xent", "dcl", "supcon"};

void
train_options_default(struct train_options *options, enum train_pretext pretext,
    enum train_mechanism mechanism, enum encoder_reads reads, uint32_t channels)
{
    (void)reads;
    (void)channels;
    *options = (struct train_options){.pretext = pretext,
        .mechanism = mechanism,
        .loss = TRAIN_SYMMETRIC,
        .seed = 1,
        .batch = 1024,
        .epochs = 3,
        .schedule = {.kind = SCHEDULE_COSINE, .lr = 0.03f, .warmup = 0.1f},
        .temperature = 0.03f,
        .learn_temperature = false,
        .token_dropout = 0.1f,
        .feature_dropout = 0.25f,
        .group_share = 0.5f};
    optimizer_options_default(&options->optimizer, OPTIMIZER_ADAMW);
    options->optimizer.weight_decay = 0;
    if (pretext == TRAIN_INSTANCES)
        options->epochs = 1;
}

struct run {
    struct encoder *encoder;
    const struct batch_example *examples;
    const struct train_options *options;
    struct pool *pool;
    struct batch_plan *plan;
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct optimizer *optimizer;
    struct encoder_input *inputs; /* [2 B + N] anchors, positives, negatives */
    uint64_t *keys;               /* [B + N] of positives and negatives */
    float *weight;                /* [B] */
    float *z, *dz;                /* [2 B + N, D] */
    float *workspace;
    size_t max_negatives; /* N */
    struct rng rng;       /* views and noise */
    double log_scale;     /* ln(1 / tau) */
    double scale_m, scale_v;
    /* sums since the last point */
    double loss, accuracy, positive, negative;
    size_t n_sum, n_pairs;
};

static void
run_release(struct run *r)
{
    batch_plan_free(r->plan);
    encoder_tape_free(r->tape);
    encoder_grads_free(r->grads);
    optimizer_free(r->optimizer);
    mem_free(r->inputs);
    mem_free(r->keys);
    mem_free(r->weight);
    mem_free(r->z);
    mem_free(r->dz);
    mem_free(r->workspace);
}

static enum err
run_init(struct run *r, size_t n, size_t B, uint64_t *bytes)
{
    const struct train_options *o = r->options;
    size_t D = encoder_dims(r->encoder);
    size_t n_params;
    size_t N = 0;
    enum err err;

    for (size_t i = 0; i < n; i++)
        N = MAX(N, r->examples[i].n_negatives);
    r->max_negatives = MIN(N * B, (size_t)NEGATIVES_A_BATCH);
    size_t rows = 2 * B + r->max_negatives;
    size_t M = B + r->max_negatives;
    (void)encoder_params(r->encoder, &n_params);
    err = batch_plan_new(&r->plan, r->examples, n, B, o->group_share, o->seed);
    if (err == OK)
        err = encoder_tape_new(&r->tape, r->encoder);
    if (err == OK)
        err = encoder_grads_new(&r->grads, r->encoder);
    if (err == OK)
        err = optimizer_new(&r->optimizer, n_params, &o->optimizer);
    if (err != OK)
        return err;
    size_t scratch = infonce_workspace_floats(B, M);
    r->inputs = mem_alloc(rows, sizeof *r->inputs);
    r->keys = mem_alloc(M, sizeof *r->keys);
    r->weight = mem_alloc(B, sizeof *r->weight);
    r->z = mem_alloc_aligned(rows * D, sizeof *r->z);
    r->dz = mem_alloc_aligned(rows * D, sizeof *r->dz);
    r->workspace = mem_alloc_aligned(scratch, sizeof *r->workspace);
    if (r->inputs == NULL || r->keys == NULL || r->weight == NULL ||
        r->z == NULL || r->dz == NULL || r->workspace == NULL)
        return ERR_NOMEM;
    rng_seed_stream(&r->rng, o->seed, 1);
    r->log_scale = log(1.0 / (double)o->temperature);
    *bytes = (3 * n_params + 2 * rows * D + scratch) * sizeof(float);
    return OK;
}

/* Lay the batch out: anchors, then positives, then given negatives. Returns
   how many keys there are. */
static size_t
fill_batch(struct run *r, const uint32_t *index, size_t n)
{
    size_t M = n;
    for (size_t i = 0; i < n; i++) {
        const struct batch_example *e = &r->examples[index[i]];
        r->weight[i] = e->weight;
        if (r->options->pretext == TRAIN_INSTANCES) {
            struct view anchor, key;
            views_text(e->anchor.input.text, e->anchor.input.len, &r->rng,
                &anchor, &key);
            r->inputs[i] =
                (struct encoder_input){.text = anchor.text, .len = anchor.len};
            r->inputs[n + i] =
                (struct encoder_input){.text = key.text, .len = key.len};
            r->keys[i] = e->anchor.key;
            continue;
        }
        r->inputs[i] = e->anchor.input;
        r->inputs[n + i] = e->positive.input;
        r->keys[i] = e->positive.key;
    }
    if (r->options->pretext == TRAIN_INSTANCES)
        return M;
    for (size_t i = 0; i < n; i++) {
        const struct batch_example *e = &r->examples[index[i]];
        for (size_t j = 0; j < e->n_negatives && M - n < r->max_negatives;
             j++) {
            r->inputs[n + M] = e->negatives[j].input;
            r->keys[M++] = e->negatives[j].key;
        }
    }
    return M;
}

/* AdamW of one number: the log of the inverse temperature. */
static void
step_temperature(struct run *r, double gradient, double lr, size_t step)
{
    r->scale_m = 0.9 * r->scale_m + 0.1 * gradient;
    r->scale_v = 0.999 * r->scale_v + 0.001 * gradient * gradient;
    double m = r->scale_m / (1 - pow(0.9, (double)(step + 1)));
    double v = r->scale_v / (1 - pow(0.999, (double)(step + 1)));
    r->log_scale -= lr * m / (sqrt(v) + 1e-8);
    r->log_scale = MIN(MAX(r->log_scale, 0.0), LOG_SCALE_MAX);
}

static enum err
run_step(struct run *r, size_t step, size_t n_steps, struct fault *fault)
{
    const struct train_options *o = r->options;
    size_t D = encoder_dims(r->encoder);
    size_t n_params;
    const uint32_t *index;
    size_t B;
    enum err err = batch_plan_next(r->plan, &index, &B);

    if (err != OK)
        return err;
    if (B < 2)
        return fault_set(
            fault, ERR_INVALID, "", "training needs two examples that differ");
    size_t M = fill_batch(r, index, B);
    struct infonce_in in = {.B = B,
        .M = M,
        .D = D,
        .q = r->z,
        .k = r->z + B * D,
        .weight = r->weight,
        .tau = (float)exp(-r->log_scale),
        .symmetric = o->loss == TRAIN_SYMMETRIC};
    struct infonce_out out = {.dq = r->dz, .dk = r->dz + B * D};
    struct encoder_noise noise = {.rng = &r->rng,
        .token_dropout = o->token_dropout,
        .feature_dropout = o->feature_dropout};
    err = batch_masks(r->plan, index, B, r->keys, M, &in.mask, &in.n_mask);
    if (err == OK)
        err = encoder_forward(
            r->encoder, r->tape, r->inputs, B + M, &noise, r->z, r->pool);
    if (err != OK)
        return err;
    infonce(&in, &out, r->workspace, r->pool);
    if (!isfinite(out.loss))
        return fault_set(fault, ERR_INVALID, "",
            "the loss stopped being a number at step %zu: the learning rate "
            "is too high",
            step + 1);
    encoder_grads_clear(r->grads);
    err = encoder_backward(r->encoder, r->tape, r->dz, r->grads, r->pool);
    if (err != OK)
        return err;
    float lr = schedule_rate(&o->schedule, step, n_steps);
    optimizer_step(r->optimizer, encoder_params(r->encoder, &n_params),
        r->grads, lr, r->pool);
    if (o->learn_temperature)
        step_temperature(r, out.d_log_scale,
            LOG_SCALE_LR * (double)(lr / o->schedule.lr), step);
    r->loss += out.loss;
    r->accuracy += out.accuracy;
    r->positive += out.positive;
    r->negative += out.negative;
    r->n_sum++;
    r->n_pairs += B;
    return OK;
}

static void
take_point(struct run *r, struct train_point *point, size_t step,
    size_t n_steps, int64_t start_ms)
{
    double n = (double)r->n_sum;
    double seconds = (double)(clock_mono_ms() - start_ms + 1) / 1000;
    *point = (struct train_point){.step = step + 1,
        .n_steps = n_steps,
        .loss = r->loss / n,
        .accuracy = r->accuracy / n,
        .positive = r->positive / n,
        .negative = r->negative / n,
        .temperature = exp(-r->log_scale),
        .lr = (double)schedule_rate(&r->options->schedule, step, n_steps),
        .pairs_per_second = (double)r->n_pairs / seconds};
    r->loss = r->accuracy = r->positive = r->negative = 0;
    r->n_sum = 0;
}

enum err
train_run(struct encoder *encoder, const struct batch_example *examples,
    size_t n, const struct train_options *options, struct train_bank *bank,
    const struct train_checkpoint *checkpoint, struct pool *pool,
    train_progress_fn *progress, void *arg, struct train_result *result,
    struct fault *fault)
{
    struct run r = {.encoder = encoder,
        .examples = examples,
        .options = options,
        .pool = pool};
    struct train_point point = {0};
    uint64_t bytes = 0;
    enum err err;

    (void)bank;
    (void)checkpoint;
    if (n < 2)
        return fault_set(
            fault, ERR_INVALID, "", "training needs two examples that differ");
    size_t B = MAX(MIN(options->batch, n), (size_t)2);
    size_t n_steps = (size_t)ceil(options->epochs * (double)n / (double)B);
    if (options->max_steps > 0)
        n_steps = MIN(n_steps, options->max_steps);
    n_steps = MAX(n_steps, (size_t)1);
    size_t every = MAX(n_steps / POINTS, (size_t)1);
    int64_t start_ms = clock_mono_ms();

    err = run_init(&r, n, B, &bytes);
    for (size_t step = 0; err == OK && step < n_steps; step++) {
        err = run_step(&r, step, n_steps, fault);
        if (err != OK)
            break;
        bool at_point = (step + 1) % every == 0 || step + 1 == n_steps;
        if (at_point)
            take_point(&r, &point, step, n_steps, start_ms);
        if (progress != NULL && !progress(arg, at_point ? &point : NULL))
            err = ERR_CANCELLED;
    }
    if (err == OK)
        *result = (struct train_result){.n_steps = n_steps,
            .loss = point.loss,
            .temperature = point.temperature,
            .pairs_per_second = point.pairs_per_second,
            .peak_bytes = bytes};
    run_release(&r);
    return err;
}
