/*
 * Goal: a run that was killed after any step and goes on from its saved state
 * ends with the same bits; a state that does not fit, or was damaged, changes
 * nothing.
 *
 * Method: every mechanism, texts and pictures, head and learned temperature
 * on, and the layers of a transformer, whole and by low-rank factors: the run
 * at once against the run stopped after step k and resumed in a fresh encoder
 * and bank; every byte of a state flipped, every length cut; a state of other
 * options or examples.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "tests/support/train_kit.h"
#include "tests/support/transformer_kit.h"
#include "train/loop.h"

#define N TRAIN_KIT_N
#define D 32
#define STEPS 9

/* What the encoder is. */
enum kind { TEXTS, PICTURES, NETWORK };

static struct batch_example examples[N];

/* A file in memory, with the step at which it is due. */
struct file {
    uint8_t *bytes;
    size_t n, cap, at;
    size_t steps, due_at;
    size_t n_begun, n_saved;
    enum err fail;
};

static bool
is_due(void *arg)
{
    struct file *f = arg;
    return ++f->steps == f->due_at;
}

static enum err
begin(void *arg)
{
    struct file *f = arg;
    f->n = 0;
    f->n_begun++;
    return OK;
}

static enum err
put(void *arg, const void *bytes, size_t n)
{
    struct file *f = arg;
    if (f->fail != OK)
        return f->fail;
    if (f->n + n > f->cap) {
        f->cap = 2 * (f->n + n);
        f->bytes = realloc(f->bytes, f->cap);
        assert_non_null(f->bytes);
    }
    memcpy(f->bytes + f->n, bytes, n);
    f->n += n;
    return OK;
}

static enum err
saved(void *arg)
{
    ((struct file *)arg)->n_saved++;
    return OK;
}

static enum err
get(void *arg, void *bytes, size_t n)
{
    struct file *f = arg;
    if (f->at + n > f->n)
        return ERR_CORRUPT;
    memcpy(bytes, f->bytes + f->at, n);
    f->at += n;
    return OK;
}

/* One run: an encoder and a bank of its own. */
struct trial {
    struct encoder *encoder;
    float vectors[N * D];
    uint64_t keys[N];
    struct train_bank bank;
    struct train_result result;
    struct fault fault;
    uint8_t origin; /* first byte of the checkpoint's */
    size_t n_calls, stop_at;
    double last_loss;
};

static enum err
make(struct encoder **out, enum kind kind)
{
    if (kind == NETWORK)
        return transformer_kit_build(out, TRANSFORMER_KIT_CONFIG, 3, NULL);
    return encoder_new(out, kind == PICTURES ? "vision" : "static",
        kind == PICTURES ? TRAIN_KIT_PICTURES : TRAIN_KIT_TEXT, NULL, NULL);
}

static void
trial_init(struct trial *t, enum kind kind)
{
    struct encoder_input inputs[N];
    memset(t, 0, sizeof *t);
    assert_int_equal(make(&t->encoder, kind), OK);
    for (size_t i = 0; i < N; i++) {
        inputs[i] = examples[i].positive.input;
        t->keys[i] = examples[i].positive.key;
    }
    assert_int_equal(
        encoder_encode(t->encoder, inputs, N, t->vectors, NULL, NULL), OK);
    t->bank =
        (struct train_bank){.vectors = t->vectors, .keys = t->keys, .n = N};
}

static bool
count(void *arg, const struct train_point *point)
{
    struct trial *t = arg;
    if (point != NULL)
        t->last_loss = point->loss;
    return ++t->n_calls != t->stop_at;
}

static enum err
trial_run(struct trial *t, const struct train_options *o, struct file *file,
    bool load)
{
    struct train_checkpoint c = {.origin = {t->origin},
        .due = is_due,
        .begin = begin,
        .save = put,
        .saved = saved,
        .load = load ? get : NULL,
        .arg = file};
    if (file != NULL)
        file->at = 0;
    return train_run(t->encoder, examples, N, o, &t->bank,
        file == NULL ? NULL : &c, NULL, count, t, &t->result, &t->fault);
}

static struct train_options
options_of(enum train_mechanism mechanism, bool pictures)
{
    struct train_options o;
    train_options_default(&o, TRAIN_INSTANCES, mechanism,
        pictures ? ENCODER_READS_IMAGE : ENCODER_READS_TEXT, pictures);
    o.batch = 10;
    o.micro_batch = 8;
    o.epochs = 50;
    o.max_steps = STEPS;
    o.queue = 25; /* full after three steps */
    o.bank_sample = 30;
    o.head_layers = 2;
    o.head_dims = 16;
    o.learn_temperature = true;
    o.char_noise = 0.2f;
    return o;
}

/* Pairs of texts of the tokenizer's words. */
static void
fill_words(void)
{
    static char texts[2 * N][96];
    train_kit_items(examples);
    for (size_t i = 0; i < 2 * N; i++) {
        struct batch_side *side =
            i % 2 == 0 ? &examples[i / 2].anchor : &examples[i / 2].positive;
        side->input.len = transformer_kit_text(texts[i], 96, 4 + i % 5, i);
        side->input.text = texts[i];
        side->key = i + 1;
    }
}

static void
fill(enum kind kind)
{
    if (kind == PICTURES)
        train_kit_pictures(examples);
    else if (kind == TEXTS)
        train_kit_items(examples);
    else
        fill_words();
}

static void
same(const struct trial *a, const struct trial *b)
{
    size_t n;
    const float *p = encoder_params_const(a->encoder, &n);
    assert_memory_equal(p, encoder_params_const(b->encoder, &n), n * sizeof *p);
    assert_memory_equal(a->vectors, b->vectors, sizeof a->vectors);
    assert_memory_equal(&a->last_loss, &b->last_loss, sizeof a->last_loss);
    assert_memory_equal(
        &a->result.temperature, &b->result.temperature, sizeof(double));
    assert_int_equal(a->result.n_steps, b->result.n_steps);
    assert_int_equal(a->result.n_views, b->result.n_views);
}

static void
check_resume(enum kind kind, const struct train_options *o)
{
    static struct trial whole, killed, resumed;

    fill(kind);
    trial_init(&whole, kind);
    assert_int_equal(trial_run(&whole, o, NULL, false), OK);
    for (size_t k = 1; k < STEPS; k += kind == TEXTS ? 2 : 3) {
        struct file file = {.due_at = k};
        trial_init(&killed, kind);
        killed.stop_at = k + 1; /* one step beyond the saved one */
        file.steps = 0;
        assert_int_equal(trial_run(&killed, o, &file, false), ERR_CANCELLED);
        assert_true(file.n_saved >= 1);
        file.due_at = 0;
        trial_init(&resumed, kind);
        assert_int_equal(trial_run(&resumed, o, &file, true), OK);
        assert_true(resumed.n_calls < STEPS);
        same(&whole, &resumed);
        encoder_free(killed.encoder);
        encoder_free(resumed.encoder);
        free(file.bytes);
    }
    encoder_free(whole.encoder);
}

static void
test_resume_same_bits(void **state)
{
    (void)state;
    for (int pictures = 0; pictures < 2; pictures++) {
        for (int m = 0; m < TRAIN_MECHANISMS; m++) {
            struct train_options o =
                options_of((enum train_mechanism)m, pictures);
            check_resume(pictures ? PICTURES : TEXTS, &o);
        }
    }
}

static void
test_resume_with_every_optimizer(void **state)
{
    (void)state;
    for (int kind = 0; kind < OPTIMIZER_KINDS; kind++) {
        struct train_options o = options_of(TRAIN_MOMENTUM_QUEUE, false);
        optimizer_options_default(&o.optimizer, (enum optimizer_kind)kind);
        o.loss = TRAIN_SYMMETRIC;
        check_resume(TEXTS, &o);
    }
}

/* The factors are not in the encoder's parameters, and their moments are not
   those of a whole run. */
static void
test_resume_of_every_update(void **state)
{
    (void)state;
    for (int update = 0; update < TRAIN_ADAPTER; update++) {
        struct train_options o = options_of(TRAIN_IN_BATCH, false);
        o.pretext = TRAIN_PAIRS;
        o.char_noise = 0;
        train_options_update(&o, (enum train_update)update);
        o.schedule.lr = 0.001f;
        o.lora.targets[LORA_DOWN] = true;
        check_resume(NETWORK, &o);
    }
}

/* A state of a run of the given options after its fourth step. */
static void
make_state(struct file *file, const struct train_options *o)
{
    static struct trial t;
    trial_init(&t, TEXTS);
    *file = (struct file){.due_at = 4};
    assert_int_equal(trial_run(&t, o, file, false), OK);
    assert_int_equal(file->n_saved, 1);
    file->due_at = 0;
    encoder_free(t.encoder);
}

/* Refused, and the encoder and the bank are as they were. */
static void
refused(const struct train_options *o, struct file *file, enum err want)
{
    static struct trial t, untouched;
    trial_init(&t, TEXTS);
    trial_init(&untouched, TEXTS);
    size_t n;
    assert_int_equal(trial_run(&t, o, file, true), want);
    assert_int_equal(t.n_calls, 0);
    if (want == ERR_CORRUPT)
        assert_true(t.fault.detail[0] != '\0');
    const float *p = encoder_params_const(t.encoder, &n);
    assert_memory_equal(
        p, encoder_params_const(untouched.encoder, &n), n * sizeof *p);
    assert_memory_equal(t.vectors, untouched.vectors, sizeof t.vectors);
    encoder_free(t.encoder);
    encoder_free(untouched.encoder);
}

static void
test_damage_is_refused(void **state)
{
    struct train_options o = options_of(TRAIN_MEMORY_BANK, false);
    struct file file;
    struct rng rng;

    (void)state;
    fill(TEXTS);
    make_state(&file, &o);
    rng_seed(&rng, 1);
    for (int i = 0; i < 36; i++) {
        size_t at = i < 18 ? (size_t)i * 6 : (size_t)rng_below(&rng, file.n);
        uint8_t bit = (uint8_t)(1U << rng_below(&rng, 8));
        file.bytes[at] ^= bit;
        refused(&o, &file, ERR_CORRUPT);
        file.bytes[at] ^= bit;
    }
    size_t n = file.n;
    for (int i = 0; i < 10; i++) {
        file.n = i < 5 ? (size_t)i * 21 : n - 1 - (size_t)rng_below(&rng, n);
        refused(&o, &file, ERR_CORRUPT);
    }
    free(file.bytes);
}

static void
test_queue_numbers_are_checked(void **state)
{
    struct train_options o = options_of(TRAIN_MOMENTUM_QUEUE, false);
    struct file file;

    (void)state;
    fill(TEXTS);
    make_state(&file, &o);
    /* any number may stand where the count of the queue does */
    for (size_t at = 113; at + 8 <= file.n; at += file.n / 24) {
        uint8_t old[8];
        memcpy(old, file.bytes + at, 8);
        memset(file.bytes + at, 0xFF, 8);
        refused(&o, &file, ERR_CORRUPT);
        memcpy(file.bytes + at, old, 8);
    }
    free(file.bytes);
}

static void
test_other_runs_are_refused(void **state)
{
    const struct train_options o = options_of(TRAIN_IN_BATCH, false);
    struct train_options other[14];
    struct file file;

    (void)state;
    fill(TEXTS);
    make_state(&file, &o);
    for (size_t i = 0; i < ARRAY_LEN(other); i++)
        other[i] = o;
    other[0].seed++;
    other[1].schedule.lr *= 1.01f;
    other[2].batch = 11;
    other[3].micro_batch = 9;
    other[4].loss = TRAIN_DCL;
    other[5].token_dropout = 0.5f;
    other[6].optimizer.kind = OPTIMIZER_SGD;
    other[7].head_layers = 1;
    other[8].mechanism = TRAIN_MOMENTUM_QUEUE;
    other[8].loss = TRAIN_SYMMETRIC;
    other[9].max_steps = STEPS + 1;
    other[10].layers++;
    other[11].lora.rank++;
    other[12].lora.alpha *= 2;
    other[13].lora.targets[LORA_KEY] = true;
    for (size_t i = 0; i < ARRAY_LEN(other); i++)
        refused(&other[i], &file, ERR_CORRUPT);
    examples[7].weight = 2;
    refused(&o, &file, ERR_CORRUPT);
    examples[7].weight = 1;
    examples[7].anchor.key++;
    refused(&o, &file, ERR_CORRUPT);
    fill(TEXTS);
    free(file.bytes);
}

/* A bank of as many rows, but of other items: the rows that were saved would
   stand beside the wrong keys. */
static void
test_another_bank_is_refused(void **state)
{
    const struct train_options o = options_of(TRAIN_MEMORY_BANK, false);
    static struct trial t;
    struct file file;

    (void)state;
    fill(TEXTS);
    make_state(&file, &o);
    trial_init(&t, TEXTS);
    t.keys[11]++;
    assert_int_equal(trial_run(&t, &o, &file, true), ERR_CORRUPT);
    t.keys[11]--;
    assert_int_equal(trial_run(&t, &o, &file, true), OK);
    encoder_free(t.encoder);
    free(file.bytes);
}

/* From another encoder than the one that the state began from, or by other
   kernels, other bits would come out. */
static void
test_other_beginnings_are_refused(void **state)
{
    const struct train_options o = options_of(TRAIN_IN_BATCH, false);
    static struct trial t;
    struct file file;

    (void)state;
    fill(TEXTS);
    make_state(&file, &o);
    trial_init(&t, TEXTS);
    t.origin = 1;
    assert_int_equal(trial_run(&t, &o, &file, true), ERR_CORRUPT);
    assert_non_null(strstr(t.fault.detail, "another encoder"));
    t.origin = 0;
    assert_int_equal(trial_run(&t, &o, &file, true), OK);
    encoder_free(t.encoder);

    if (strcmp(kern()->name, "scalar") == 0) {
        print_message("one kernel table only: no other to resume with\n");
    } else {
        trial_init(&t, TEXTS);
        assert_int_equal(setenv("KINDRED_KERNELS", "scalar", 1), 0);
        kern_init();
        assert_string_equal(kern()->name, "scalar");
        assert_int_equal(trial_run(&t, &o, &file, true), ERR_CORRUPT);
        assert_non_null(strstr(t.fault.detail, "other kernels"));
        assert_int_equal(unsetenv("KINDRED_KERNELS"), 0);
        kern_init();
        encoder_free(t.encoder);
    }
    free(file.bytes);
}

/* What the caller's functions say is passed on. */
static void
test_errors_are_passed_on(void **state)
{
    struct train_options o = options_of(TRAIN_IN_BATCH, false);
    struct file file = {.due_at = 2, .fail = ERR_FULL};
    static struct trial t;

    (void)state;
    fill(TEXTS);
    trial_init(&t, TEXTS);
    assert_int_equal(trial_run(&t, &o, &file, false), ERR_FULL);
    assert_int_equal(file.n_begun, 1);
    assert_int_equal(file.n_saved, 0);
    encoder_free(t.encoder);
    free(file.bytes);
}

static void
test_memory_runs_out(void **state)
{
    struct train_options o = options_of(TRAIN_MEMORY_BANK, false);
    struct file file;

    (void)state;
    fill(TEXTS);
    make_state(&file, &o);
    for (uint64_t n = 1;; n++) {
        static struct trial t;
        trial_init(&t, TEXTS);
        alloc_fail_at(n);
        enum err err = trial_run(&t, &o, &file, true);
        uint64_t seen = alloc_fail_at(0);
        encoder_free(t.encoder);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        if (err == OK)
            break;
    }
    free(file.bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_same_bits),
        cmocka_unit_test(test_resume_with_every_optimizer),
        cmocka_unit_test(test_resume_of_every_update),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_queue_numbers_are_checked),
        cmocka_unit_test(test_other_runs_are_refused),
        cmocka_unit_test(test_another_bank_is_refused),
        cmocka_unit_test(test_other_beginnings_are_refused),
        cmocka_unit_test(test_errors_are_passed_on),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
