/*
 * checkpoint.c - the state of a run between two steps.
 *
 * Layout, in the byte order and float format of the machine: the magic word;
 * the kernels that made it; the fingerprint of what the encoder was made from;
 * a fingerprint of what the run was asked to do; numbers; the encoder's
 * parameters; the optimiser, before it the factors that it steps where they
 * are low-rank ones; head; the mechanism's part; SHA-256 of all before. The
 * order of the batches is not in it: it follows from the seed, and the plan
 * is walked to the step again.
 */
#include <stdio.h>
#include <string.h>

#include "kern/conv.h"
#include "kern/kern.h"
#include "train/run.h"

#define MAGIC "kindred train 2\n"
#define KERNELS_BYTES 32

/* Of everything that a step's bits depend on. */
static void
fingerprint(const struct run *r, uint8_t out[SHA256_BYTES])
{
    const struct train_options *o = r->options;
    const double numbers[] = {o->pretext, o->mechanism, o->loss,
        (double)o->batch, (double)r->piece, o->epochs, (double)o->min_steps,
        (double)o->max_steps, o->optimizer.kind, (double)o->optimizer.beta1,
        (double)o->optimizer.beta2, (double)o->optimizer.eps,
        (double)o->optimizer.momentum, (double)o->optimizer.trust,
        (double)o->optimizer.weight_decay, o->schedule.kind,
        (double)o->schedule.lr, (double)o->schedule.warmup,
        (double)o->temperature, o->learn_temperature, (double)o->token_dropout,
        (double)o->feature_dropout, (double)o->char_noise,
        (double)o->group_share, (double)o->momentum, (double)o->queue,
        (double)o->bank_sample, (double)o->head_layers, (double)o->head_dims,
        (double)r->n_examples, (double)r->n_params, o->update,
        (double)o->layers, (double)o->lora.rank, (double)o->lora.alpha,
        r->bank == NULL ? 0 : (double)r->bank->n};
    struct sha256 sum;
    const char *config = encoder_config_json(r->encoder);

    sha256_start(&sum);
    sha256_add(&sum, encoder_family(r->encoder),
        strlen(encoder_family(r->encoder)) + 1);
    sha256_add(&sum, config, strlen(config) + 1);
    sha256_add(&sum, &o->seed, sizeof o->seed);
    sha256_add(&sum, numbers, sizeof numbers);
    sha256_add(&sum, o->lora.targets, sizeof o->lora.targets);
    if (encoder_reads(r->encoder) == ENCODER_READS_IMAGE)
        sha256_add(&sum, &o->views, sizeof o->views);
    for (size_t i = 0; i < r->n_examples; i++) {
        const struct batch_example *e = &r->examples[i];
        const uint64_t keys[] = {
            e->anchor.key, e->positive.key, e->group, e->label, e->n_negatives};
        sha256_add(&sum, keys, sizeof keys);
        sha256_add(&sum, &e->weight, sizeof e->weight);
        for (size_t j = 0; j < e->n_negatives; j++)
            sha256_add(&sum, &e->negatives[j].key, sizeof keys[0]);
    }
    if (r->bank != NULL) /* which row is whose */
        sha256_add(&sum, r->bank->keys, r->bank->n * sizeof *r->bank->keys);
    sha256_finish(&sum, out);
}

/* What follows the fingerprint, in either direction. */
static void
body(struct run *r, struct state *s, uint64_t *step)
{
    float *params = encoder_params(r->encoder, &r->n_params);

    state_bytes(s, step, sizeof *step);
    state_bytes(s, &r->rng, sizeof r->rng);
    state_bytes(s, &r->log_scale, sizeof r->log_scale);
    state_bytes(s, &r->scale_m, sizeof r->scale_m);
    state_bytes(s, &r->scale_v, sizeof r->scale_v);
    state_bytes(s, &r->loss, sizeof r->loss);
    state_bytes(s, &r->accuracy, sizeof r->accuracy);
    state_bytes(s, &r->positive, sizeof r->positive);
    state_bytes(s, &r->negative, sizeof r->negative);
    state_bytes(s, &r->stale, sizeof r->stale);
    state_bytes(s, &r->n_sum, sizeof r->n_sum);
    state_bytes(s, &r->n_pairs, sizeof r->n_pairs);
    state_bytes(s, &r->n_views, sizeof r->n_views);
    state_bytes(s, &r->n_collapsed, sizeof r->n_collapsed);
    state_bytes(s, &r->total_ns, sizeof r->total_ns);
    state_bytes(s, &r->view_ns, sizeof r->view_ns);
    state_aside(s, params, r->n_params * sizeof *params);
    if (r->lora != NULL)
        lora_state(r->lora, s);
    else
        state_bytes(s, optimizer_state(r->optimizer),
            optimizer_state_floats(r->optimizer) * sizeof(float));
    if (r->head != NULL)
        projection_state(r->head, s);
    if (r->mechanism->state != NULL && s->err == OK)
        s->err = r->mechanism->state(r, s);
}

/* The bits of a step are those of one kernel table, and of one width of the
   convolutions. */
static void
name_kernels(char out[KERNELS_BYTES])
{
    memset(out, 0, KERNELS_BYTES);
    (void)snprintf(out, KERNELS_BYTES, "%s/%zu", kern()->name, conv_block());
}

/* Bytes that a state must have as this run has them; unfit: the answer when it
   has others. */
static void
same_bytes(struct state *s, const void *own, size_t n, const char **reason,
    const char *unfit)
{
    uint8_t bytes[SHA256_BYTES];

    ASSERT(n <= sizeof bytes);
    memcpy(bytes, own, n);
    state_bytes(s, bytes, n);
    if (s->err == OK && memcmp(bytes, own, n) != 0) {
        s->err = ERR_CORRUPT;
        *reason = unfit;
    }
}

/* *reason is set when the state does not fit. */
static void
head_of(struct run *r, struct state *s,
    const struct train_checkpoint *checkpoint, const char **reason)
{
    char kernels[KERNELS_BYTES];
    uint8_t print[SHA256_BYTES];

    name_kernels(kernels);
    fingerprint(r, print);
    same_bytes(s, MAGIC, sizeof MAGIC, reason,
        "the saved state of the training is of another form");
    same_bytes(s, kernels, sizeof kernels, reason,
        "the saved state of the training was made by other kernels");
    same_bytes(s, checkpoint->origin, SHA256_BYTES, reason,
        "the saved state of the training began from another encoder");
    same_bytes(s, print, sizeof print, reason,
        "the saved state of the training is of another run");
}

enum err
checkpoint_save(struct run *r, const struct train_checkpoint *checkpoint)
{
    const char *reason;
    uint64_t step = r->step;
    struct state s;
    enum err err = checkpoint->begin(checkpoint->arg);

    if (err != OK)
        return err;
    state_init_write(&s, checkpoint->save, checkpoint->arg);
    head_of(r, &s, checkpoint, &reason);
    body(r, &s, &step);
    err = state_finish(&s);
    state_release(&s);
    return err == OK ? checkpoint->saved(checkpoint->arg) : err;
}

enum err
checkpoint_load(struct run *r, const struct train_checkpoint *checkpoint,
    struct fault *fault)
{
    const char *reason = "the saved state of the training is damaged";
    uint64_t step = 0;
    struct state s;

    state_init_read(&s, checkpoint->load, checkpoint->arg);
    head_of(r, &s, checkpoint, &reason);
    body(r, &s, &step);
    enum err err = state_finish(&s);
    if (err == OK) {
        state_accept(&s);
        r->step = (size_t)step;
    }
    state_release(&s);
    if (err == ERR_CORRUPT)
        return fault_set(fault, ERR_CORRUPT, "", "%s", reason);
    return err;
}
