/*
 * learn_train.c - a candidate from the live encoder: a clone, what it takes
 * from the corpus, hard negatives, the bank, and the run with its checkpoints.
 * An adapter is trained alone, on vectors.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "engine/learn_bank.h"
#include "engine/learn_checkpoint.h"
#include "engine/learn_round.h"

#define LR_TRAINED 0.3f /* of the default rate, when the parent is trained */

/* ---- progress ------------------------------------------------------------ */

static void
tell_point(struct learn_round *r, const struct train_point *p)
{
    char data[480];
    double share = (double)p->step / (double)p->n_steps;
    double spent = (double)(clock_mono_ms() - r->start_ms) / 1000;
    const struct job_point point = {.step = (int64_t)p->step,
        .loss = p->loss,
        .accuracy = p->accuracy,
        .positive = p->positive,
        .negative = p->negative,
        .temperature = p->temperature,
        .spread = p->spread,
        .staleness = p->staleness};

    job_set_progress(r->job,
        LEARN_AT_TRAIN + share * (LEARN_AT_CHOOSE - LEARN_AT_TRAIN),
        share > 0.02 ? spent / share * (1 - share) : -1);
    job_add_point(r->job, &point);
    snprintf(data, sizeof data,
        "{\"step\":%zu,\"steps\":%zu,\"loss\":%.6f,\"accuracy\":%.4f,"
        "\"positive\":%.4f,\"negative\":%.4f,\"temperature\":%.5f,"
        "\"spread\":%.4f,\"staleness\":%.1f,\"lr\":%.6f,"
        "\"pairs_per_second\":%.0f}",
        p->step, p->n_steps, p->loss, p->accuracy, p->positive, p->negative,
        p->temperature, p->spread, p->staleness, p->lr, p->pairs_per_second);
    job_event(r->job, "metrics", data);
}

static bool
on_step(void *arg, const struct train_point *point)
{
    struct learn_round *r = arg;

    engine_yield_to_searches(r->engine);
    if (point != NULL)
        tell_point(r, point);
    failpoint("learn_step");
    return !job_stopped(r->job);
}

/* ---- what is taken from the corpus --------------------------------------- */

struct refit {
    struct learn_round *round;
    struct encoder_input *texts; /* NULL: the examples' anchors */
    size_t n, next, cap;
    bool nomem;
};

static bool
keep_text(void *arg, int64_t item, const char *text, size_t len)
{
    struct refit *f = arg;
    if (f->n == f->cap || item > f->round->resume.items_upto)
        return false;
    f->texts[f->n].text = arena_strndup(&f->round->data.arena, text, len);
    f->texts[f->n].len = len;
    f->nomem = f->texts[f->n].text == NULL;
    f->n += !f->nomem;
    return !f->nomem;
}

static bool
next_input(void *arg, struct encoder_input *input)
{
    struct refit *f = arg;
    if (f->next == f->n)
        return false;
    *input = f->texts != NULL ? f->texts[f->next]
                              : f->round->data.examples[f->next].anchor.input;
    f->next++;
    return true;
}

/* An untrained parent weighs its features by a general corpus: take the
   collection's own frequencies. A trained one has learned on top of its. */
static enum err
refit_encoder(struct learn_round *r)
{
    struct refit f = {.round = r};
    enum err err = OK;

    if (r->form.reads == ENCODER_READS_IMAGE) {
        f.n = r->data.n_examples;
        return encoder_refit(r->candidate, next_input, &f);
    }
    f.cap = MIN(roster_count(r->c->roster) + 1024, LEARN_EXAMPLES_MAX);
    f.texts = mem_calloc(f.cap, sizeof *f.texts);
    if (f.texts == NULL)
        return ERR_NOMEM;
    err = learn_walk_documents(r->engine, r->c, keep_text, &f);
    if (err == OK && f.nomem)
        err = ERR_NOMEM;
    if (err == OK)
        err = encoder_refit(r->candidate, next_input, &f);
    mem_free(f.texts);
    return err;
}

/* *trained: is it what an earlier round, or a publisher, made? */
static enum err
make_candidate(struct learn_round *r, bool *trained)
{
    const struct encoder *parent = encoder_ref_get(r->live->encoder);
    bool adapter = r->options.train.update == TRAIN_ADAPTER;
    enum err err;

    encoder_free(r->candidate);
    r->candidate = NULL;
    r->adapter_dropped = encoder_adapter_const(parent) != NULL && !adapter;
    if (adapter)
        err = encoder_with_adapter(&r->candidate, parent);
    else if (r->adapter_dropped)
        err = encoder_without_adapter(&r->candidate, parent);
    else
        err = encoder_clone(&r->candidate, parent);
    if (err != OK)
        return err;
    *trained = encoder_is_trained(r->candidate);
    return *trained ? OK : refit_encoder(r);
}

static size_t
count_moved(const float *before, const float *after, size_t n)
{
    size_t n_moved = 0;
    for (size_t i = 0; i < n; i++)
        n_moved += before[i] < after[i] || before[i] > after[i];
    return n_moved;
}

/* ---- the run ------------------------------------------------------------- */

struct learning {
    struct encoder *encoder;
    const struct batch_example *examples;
    size_t n;
    struct train_bank *bank; /* NULL: none */
};

static enum err
run(struct learn_round *r, const struct learning *what,
    struct learn_checkpoint *checkpoint)
{
    const struct train_checkpoint *state = learn_checkpoint_train(checkpoint);
    int64_t start = clock_mono_ns();
    bool resumes = state->load != NULL;
    enum err err = train_run(what->encoder, what->examples, what->n,
        &r->options.train, what->bank, state, r->engine->tuner_pool, on_step, r,
        &r->trained, &r->fault);

    if (err == ERR_CORRUPT && resumes) {
        log_info("learn", "checkpoint_unused job=%" PRId64 " reason=\"%s\"",
            job_id(r->job), r->fault.detail);
        r->fault = (struct fault){.err = OK};
        learn_checkpoint_forget(checkpoint);
        err = train_run(what->encoder, what->examples, what->n,
            &r->options.train, what->bank, state, r->engine->tuner_pool,
            on_step, r, &r->trained, &r->fault);
    } else if (resumes) {
        log_info("learn", "checkpoint_resumed job=%" PRId64, job_id(r->job));
    }
    if (state->load == NULL) /* else a part of the run was before */
        r->train_seconds = (double)(clock_mono_ns() - start) / 1e9;
    return err;
}

/* With a checkpoint for the time of the run. */
static enum err
run_saved(struct learn_round *r, const struct learning *what)
{
    struct learn_checkpoint *checkpoint = NULL;
    enum err err = learn_checkpoint_open(
        &checkpoint, r->engine->data_dir, r->live->index->fingerprint, r->job);

    if (err == OK)
        err = run(r, what, checkpoint);
    learn_checkpoint_close(checkpoint);
    return err;
}

/* The candidate's adapter, on vectors. */
static enum err
run_adapter(struct learn_round *r)
{
    size_t n = r->form.dims * r->form.dims;
    struct learning what = {.examples = r->vectors, .n = r->n_vectors};
    enum err err = encoder_adapter_alone(&what.encoder, r->candidate);

    if (err == OK)
        err = run_saved(r, &what);
    if (err == OK) {
        const float *after = encoder_adapter_const(what.encoder);
        float *A = encoder_adapter(r->candidate);
        r->n_moved = count_moved(A, after, n);
        memcpy(A, after, n * sizeof *A);
    }
    encoder_free(what.encoder);
    return err;
}

/* The candidate's family. */
static enum err
run_family(struct learn_round *r)
{
    const struct encoder *parent = encoder_ref_get(r->live->encoder);
    const struct train_options *t = &r->options.train;
    struct learn_bank bank = {.keys = NULL};
    bool of_bank = t->mechanism == TRAIN_MEMORY_BANK;
    struct learning what = {.encoder = r->candidate,
        .examples = r->data.examples,
        .n = r->data.n_examples,
        .bank = of_bank ? &bank.train : NULL};
    enum err err = OK;

    if (of_bank)
        err = learn_bank_load(&bank, &r->data, r->c, r->live, t->seed,
            r->resume.items_upto, &r->fault);
    if (err == OK)
        err = run_saved(r, &what);
    if (err == OK) {
        size_t n_live, n;
        const float *before = encoder_params_const(parent, &n_live);
        const float *after = encoder_params_const(r->candidate, &n);
        r->n_moved = count_moved(before, after, n);
    }
    learn_bank_release(&bank);
    return err;
}

enum err
learn_train_candidate(struct learn_round *r)
{
    struct train_options *t = &r->options.train;
    bool adapter = t->update == TRAIN_ADAPTER, trained = false;
    enum err err = OK;

    r->start_ms = clock_mono_ms();
    if (t->hard_negatives > 0 && t->pretext == TRAIN_PAIRS) {
        job_set_phase(r->job, "mine", LEARN_AT_TRAIN / 2);
        err = learn_mine(&r->mined, &r->data, r->c, r->live, &r->options,
            r->resume.items_upto, r->job);
    }
    if (err == OK && adapter)
        err = learn_vectors(r);
    if (err != OK)
        return err;
    job_set_phase(r->job, "train", LEARN_AT_TRAIN);
    r->start_ms = clock_mono_ms();
    err = make_candidate(r, &trained);
    if (trained && !adapter && !r->form.pretrained && !r->options.lr_given)
        t->schedule.lr *= LR_TRAINED;
    if (err == OK)
        err = adapter ? run_adapter(r) : run_family(r);
    return err;
}
