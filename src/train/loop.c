#include "train/loop.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "train/run.h"

#define POINTS 200
#define LOG_SCALE_MAX 4.60517019 /* ln 100: Radford et al. 2021, sec. 2.5 */
#define LOG_SCALE_LR 0.01        /* peak, in units of ln(1 / tau) */
#define PICTURES_A_PIECE 256     /* encoded at once, unless asked otherwise */
#define COLLAPSED 0.1            /* a spread below it ... */
#define COLLAPSED_POINTS 5       /* ... for so many points is a collapse */

static const struct mechanism *const mechanisms[TRAIN_MECHANISMS] = {
    &mechanism_in_batch, &mechanism_momentum_queue, &mechanism_memory_bank};

static void
run_release(struct run *r)
{
    if (r->mechanism != NULL)
        r->mechanism->release(r);
    batch_plan_free(r->plan);
    inputs_free(r->inputs);
    gradcache_free(r->cache);
    encoder_grads_free(r->grads);
    optimizer_free(r->optimizer);
    lora_free(r->lora);
    if (r->head != NULL) {
        mem_free(r->z);
        mem_free(r->dz);
    }
    projection_free(r->head);
    mem_free(r->e);
    mem_free(r->de);
    mem_free(r->scratch);
    mem_free(r->weight);
    mem_free(r->labels);
    mem_free(r->workspace);
}

enum err
run_reserve(struct run *r, size_t B, size_t M)
{
    size_t n = infonce_workspace_floats(B, M);
    mem_free(r->workspace);
    r->workspace = mem_alloc_aligned(n, sizeof *r->workspace);
    r->bytes += n * sizeof(float);
    return r->workspace == NULL ? ERR_NOMEM : OK;
}

/* Vectors and their gradients for n rows. */
static enum err
take_rows(struct run *r, size_t n)
{
    r->e = mem_alloc_aligned(n * r->D, sizeof *r->e);
    r->de = mem_alloc_aligned(n * r->D, sizeof *r->de);
    r->z = r->e;
    r->dz = r->de;
    if (r->head != NULL) {
        r->z = mem_alloc_aligned(n * r->P, sizeof *r->z);
        r->dz = mem_alloc_aligned(n * r->P, sizeof *r->dz);
    }
    r->scratch = mem_alloc_aligned(r->piece * r->D, sizeof *r->scratch);
    r->weight = mem_alloc(r->B_max, sizeof *r->weight);
    r->labels = mem_alloc(r->B_max, sizeof *r->labels);
    r->bytes += (2 * n * (r->D + r->P) + r->piece * r->D) * sizeof(float);
    if (r->e == NULL || r->de == NULL || r->z == NULL || r->dz == NULL ||
        r->scratch == NULL || r->weight == NULL || r->labels == NULL)
        return ERR_NOMEM;
    return OK;
}

size_t
run_piece(const struct encoder *encoder, const struct train_options *options,
    size_t rows)
{
    bool pictures = encoder_reads(encoder) == ENCODER_READS_IMAGE;
    size_t piece = options->micro_batch;

    if (piece == 0)
        piece = pictures ? PICTURES_A_PIECE : rows;
    if (pictures) {
        size_t each = encoder_tape_input_bytes(encoder, NULL);
        piece = MIN(piece, MAX(GRADCACHE_TAPE_BYTES / each, (size_t)1));
    }
    return MIN(piece, rows);
}

/* What of the encoder learns, and by what. */
static enum err
take_update(struct run *r, struct fault *fault)
{
    const struct train_options *o = r->options;
    size_t n_parts = encoder_n_parts(r->encoder);
    enum err err = train_options_check_parts(o, n_parts, fault);

    if (err != OK)
        return err;
    encoder_freeze(r->encoder, o->update == TRAIN_LAST   ? o->layers
                               : o->update == TRAIN_LORA ? n_parts - 1
                                                         : n_parts);
    if (o->update == TRAIN_LORA)
        return lora_new(
            &r->lora, r->encoder, &o->lora, &o->optimizer, o->seed, fault);
    return optimizer_new(&r->optimizer, r->n_params, &o->optimizer);
}

static enum err
run_init(struct run *r, struct fault *fault)
{
    const struct train_options *o = r->options;
    size_t N = 0;
    enum err err;

    if (o->pretext == TRAIN_PAIRS) {
        for (size_t i = 0; i < r->n_examples; i++)
            N = MAX(N, r->examples[i].n_negatives);
    }
    r->max_negatives = MIN(N * r->B_max, RUN_NEGATIVES_MAX);
    size_t rows = 2 * r->B_max + r->max_negatives;
    r->piece = run_piece(r->encoder, o, rows);
    r->D = encoder_dims(r->encoder);
    r->P = o->head_layers == 0 ? r->D : o->head_dims;
    (void)encoder_params(r->encoder, &r->n_params);
    rng_seed_stream(&r->rng, o->seed, 1);
    r->log_scale = log(1.0 / (double)o->temperature);

    err = take_update(r, fault);
    if (err == OK)
        err = batch_plan_new(&r->plan, r->examples, r->n_examples, r->B_max,
            o->group_share, o->seed);
    if (err == OK)
        err = inputs_new(
            &r->inputs, r->encoder, o, r->B_max, r->max_negatives, r->piece);
    if (err == OK)
        err = gradcache_new(&r->cache, r->encoder, r->piece, rows);
    if (err == OK)
        err = encoder_grads_new(&r->grads, r->encoder);
    if (err == OK && o->head_layers > 0)
        err = projection_new(
            &r->head, o->head_layers, r->D, r->P, o->seed, &o->optimizer);
    if (err == OK)
        err = take_rows(r, rows);
    if (err != OK)
        return err;
    r->mechanism = mechanisms[o->mechanism];
    err = r->mechanism->init(r);
    r->bytes += r->n_params * sizeof(float) + inputs_bytes(r->inputs) +
                (r->lora != NULL ? lora_bytes(r->lora)
                                 : optimizer_state_floats(r->optimizer) *
                                       sizeof(float)) +
                (r->head == NULL ? 0 : projection_bytes(r->head));
    return err;
}

/* AdamW of one number: the log of the inverse temperature. */
static void
step_temperature(struct run *r, double gradient, double lr)
{
    r->scale_m = 0.9 * r->scale_m + 0.1 * gradient;
    r->scale_v = 0.999 * r->scale_v + 0.001 * gradient * gradient;
    double m = r->scale_m / (1 - pow(0.9, (double)(r->step + 1)));
    double v = r->scale_v / (1 - pow(0.999, (double)(r->step + 1)));
    r->log_scale -= lr * m / (sqrt(v) + 1e-8);
    r->log_scale = MIN(MAX(r->log_scale, 0.0), LOG_SCALE_MAX);
}

/* The next batch: its rows, weights and labels. */
static enum err
take_batch(struct run *r, struct fault *fault)
{
    enum err err = batch_plan_next(r->plan, &r->index, &r->B);

    if (err != OK)
        return err;
    if (r->B < 2)
        return fault_set(
            fault, ERR_INVALID, "", "training needs two examples that differ");
    err = inputs_fill(r->inputs, r->examples, r->index, r->B, r->step, &r->rng);
    if (err != OK)
        return err;
    for (size_t i = 0; i < r->B; i++) {
        r->weight[i] = r->examples[r->index[i]].weight;
        r->labels[i] = r->examples[r->index[i]].label;
    }
    r->M = inputs_keys(r->inputs);
    r->n_rows = r->mechanism->n_rows(r);
    r->tau = (float)exp(-r->log_scale);
    r->staleness = 0;
    return OK;
}

static enum err
refuse_nan(size_t step, struct fault *fault)
{
    return fault_set(fault, ERR_INVALID, "",
        "the loss stopped being a number at step %zu: the learning rate "
        "is too high",
        step);
}

static void
step_encoder(struct run *r, float lr)
{
    float *params = encoder_params(r->encoder, &r->n_params);

    if (r->lora != NULL)
        lora_step(r->lora, params, r->grads->d_params, lr, r->pool);
    else
        optimizer_step(r->optimizer, params, r->grads, lr, r->pool);
}

static enum err
run_step(struct run *r, size_t n_steps, struct fault *fault)
{
    const struct train_options *o = r->options;
    const struct encoder_noise noise = {.rng = &r->rng,
        .token_dropout = o->token_dropout,
        .feature_dropout = o->feature_dropout};
    struct infonce_out out = {0};
    enum err err = take_batch(r, fault);

    if (err == OK && r->mechanism->keys != NULL)
        err = r->mechanism->keys(r);
    if (err == OK)
        err = gradcache_forward(
            r->cache, r->encoder, r->inputs, r->n_rows, &noise, r->e, r->pool);
    if (err == OK && r->head != NULL)
        projection_forward(r->head, r->e, r->n_rows, r->z, r->pool);
    if (err == OK)
        err = r->mechanism->loss(r, &out);
    if (err != OK)
        return err;
    if (!isfinite(out.loss))
        return refuse_nan(r->step + 1, fault);
    if (r->head != NULL)
        projection_backward(r->head, r->dz, r->de, r->pool);
    encoder_grads_clear(r->grads);
    err = gradcache_backward(
        r->cache, r->encoder, r->inputs, r->de, r->grads, r->scratch, r->pool);
    if (err != OK)
        return err;
    float lr = schedule_rate(&o->schedule, r->step, n_steps);
    step_encoder(r, lr);
    if (r->head != NULL)
        projection_step(r->head, lr, r->pool);
    if (o->learn_temperature)
        step_temperature(
            r, out.d_log_scale, LOG_SCALE_LR * (double)(lr / o->schedule.lr));
    if (r->mechanism->after != NULL)
        r->mechanism->after(r);
    r->loss += out.loss;
    r->accuracy += out.accuracy;
    r->positive += out.positive;
    r->negative += out.negative;
    r->stale += r->staleness;
    r->n_sum++;
    r->n_pairs += r->B;
    r->n_views += r->n_rows;
    r->view_ns += (uint64_t)inputs_take_ns(r->inputs);
    return OK;
}

/* The root of the mean squared distance of this step's embeddings from their
   mean: for unit vectors, sqrt(1 - |mean|^2). */
static double
spread_of(const struct run *r)
{
    double of_mean = 0, of_rows = 0;

    for (size_t d = 0; d < r->D; d++) {
        double sum = 0;
        for (size_t i = 0; i < r->n_rows; i++) {
            double x = (double)r->e[i * r->D + d];
            sum += x;
            of_rows += x * x;
        }
        of_mean += sum * sum;
    }
    double n = (double)r->n_rows;
    return sqrt(fmax(of_rows / n - of_mean / (n * n), 0));
}

static void
take_point(
    struct run *r, struct train_point *point, size_t n_steps, int64_t start_ns)
{
    double n = (double)r->n_sum;
    double seconds =
        (double)(r->total_ns + (uint64_t)(clock_mono_ns() - start_ns) + 1) /
        1e9;
    *point = (struct train_point){.step = r->step + 1,
        .n_steps = n_steps,
        .loss = r->loss / n,
        .accuracy = r->accuracy / n,
        .positive = r->positive / n,
        .negative = r->negative / n,
        .spread = spread_of(r),
        .staleness = r->stale / n,
        .temperature = exp(-r->log_scale),
        .lr = (double)schedule_rate(&r->options->schedule, r->step, n_steps),
        .pairs_per_second = (double)r->n_pairs / seconds};
    r->loss = r->accuracy = r->positive = r->negative = r->stale = 0;
    r->n_sum = 0;
    bool begun = 10 * point->step > n_steps; /* untrained ones may be close */
    r->n_collapsed =
        begun && point->spread < COLLAPSED ? r->n_collapsed + 1 : 0;
}

/* A checkpoint after a step that was not the last, when one is due. */
static enum err
save_state(
    struct run *r, const struct train_checkpoint *checkpoint, int64_t *start_ns)
{
    if (checkpoint == NULL || checkpoint->due == NULL ||
        !checkpoint->due(checkpoint->arg))
        return OK;
    int64_t now = clock_mono_ns();
    r->total_ns += (uint64_t)(now - *start_ns);
    *start_ns = now;
    return checkpoint_save(r, checkpoint);
}

/* What no later loss would show: a step's loss comes before its update, and a
   row without a finite norm is a zero vector. */
static bool
is_finite(const struct run *r)
{
    size_t n;
    const float *params = encoder_params_const(r->encoder, &n);
    float sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += params[i] * 0; /* NaN and infinity stay NaN */
    return sum == 0 && isfinite(r->log_scale);
}

static enum err
run_steps(struct run *r, const struct train_checkpoint *checkpoint,
    train_progress_fn *progress, void *arg, struct train_result *result,
    struct fault *fault)
{
    const struct train_options *o = r->options;
    double epochs = o->epochs * (double)r->n_examples / (double)r->B_max;
    size_t n_steps = MAX((size_t)ceil(epochs), o->min_steps);
    struct train_point point = {0};
    int64_t start_ns = clock_mono_ns();
    enum err err = OK;

    if (o->max_steps > 0)
        n_steps = MIN(n_steps, o->max_steps);
    n_steps = MAX(n_steps, (size_t)1);
    size_t every = MAX(n_steps / POINTS, (size_t)1);
    for (size_t i = 0; i < r->step && err == OK; i++) /* after a resume */
        err = batch_plan_next(r->plan, &r->index, &r->B);
    while (err == OK && r->step < n_steps) {
        err = run_step(r, n_steps, fault);
        if (err != OK)
            break;
        bool last = r->step + 1 == n_steps;
        bool at_point = last || (r->step + 1) % every == 0;
        if (at_point)
            take_point(r, &point, n_steps, start_ns);
        r->step++;
        if (progress != NULL && !progress(arg, at_point ? &point : NULL)) {
            /* who stops it may want to go on later */
            err = last ? OK : save_state(r, checkpoint, &start_ns);
            err = err == OK ? ERR_CANCELLED : err;
        } else if (r->n_collapsed >= COLLAPSED_POINTS) {
            result->collapsed = true;
            err = fault_set(fault, ERR_INVALID, "",
                "the embeddings collapsed: at step %zu their spread is %.3f, "
                "where 1 is the whole sphere and 0 a single point; try a lower "
                "learning rate, more negatives or another temperature",
                r->step, point.spread);
        } else if (!last) {
            err = save_state(r, checkpoint, &start_ns);
        }
    }
    if (err == OK && !is_finite(r))
        err = refuse_nan(r->step, fault);
    if (err != OK)
        return err;
    uint64_t ns = r->total_ns + (uint64_t)(clock_mono_ns() - start_ns) + 1;
    *result = (struct train_result){.n_steps = n_steps,
        .loss = point.loss,
        .temperature = point.temperature,
        .pairs_per_second = point.pairs_per_second,
        .staleness = point.staleness,
        .n_factors = r->lora == NULL ? 0 : lora_n_factors(r->lora),
        .n_views = (size_t)r->n_views,
        .view_share = (double)r->view_ns / (double)ns,
        .peak_bytes = r->bytes + gradcache_bytes(r->cache)};
    return OK;
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
        .n_examples = n,
        .options = options,
        .bank = bank,
        .pool = pool,
        .B_max = MAX(MIN(options->batch, n), (size_t)2)};
    enum err err = train_options_check(options, fault);

    if (err == OK)
        err = train_options_check_dims(options, encoder_dims(encoder), fault);
    if (err != OK)
        return err;
    if (n < 2)
        return fault_set(
            fault, ERR_INVALID, "", "training needs two examples that differ");
    err = run_init(&r, fault);
    if (err == OK && checkpoint != NULL && checkpoint->load != NULL)
        err = checkpoint_load(&r, checkpoint, fault);
    if (err == OK)
        err = run_steps(&r, checkpoint, progress, arg, result, fault);
    run_release(&r);
    return err;
}
