/*
 * Goal: a training run learns, is the same for the same seed with any number
 * of threads, keeps its options, reports its progress and can be cancelled.
 *
 * Method: a tiny task that cannot be solved without learning: the two sides
 * of a pair share no word and no n-gram. Then the same run again and again
 * with one thing changed.
 */
#include <math.h>
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
#include "base/hash.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "model/encoder.h"
#include "tests/support/train_kit.h"
#include "train/loop.h"

#define PAIRS 48

static char anchors[PAIRS][64], positives[PAIRS][64], titles[PAIRS][128];
static struct batch_example examples[PAIRS];
static struct batch_side negatives[PAIRS][2];

static struct batch_side
text_of(const char *s)
{
    size_t len = strlen(s);
    return (struct batch_side){
        .input = {.text = s, .len = len}, .key = hash_bytes(s, len, 1)};
}

static int
fill(void **state)
{
    (void)state;
    for (size_t i = 0; i < PAIRS; i++) {
        snprintf(anchors[i], sizeof anchors[i], "a%zub c%zud shared", i, i);
        snprintf(positives[i], sizeof positives[i], "x%zuy z%zuw common", i, i);
        snprintf(titles[i], sizeof titles[i],
            "title%zu of %zu\nthe body%zu says many%zu things about %zu", i, i,
            i, i, i);
    }
    for (size_t i = 0; i < PAIRS; i++) {
        for (size_t j = 0; j < 2; j++)
            negatives[i][j] = text_of(positives[(i + j + 1) % PAIRS]);
        examples[i] = (struct batch_example){.anchor = text_of(anchors[i]),
            .positive = text_of(positives[i]),
            .weight = 1,
            .group = i / 8 + 1};
    }
    return 0;
}

static struct encoder *
make(void)
{
    struct encoder *encoder = NULL;
    assert_int_equal(encoder_new(&encoder, "static",
                         "{\"dims\":32,\"buckets\":1024}", NULL, NULL),
        OK);
    return encoder;
}

static struct train_options
small_run(void)
{
    struct train_options o;
    train_options_default(
        &o, TRAIN_PAIRS, TRAIN_IN_BATCH, ENCODER_READS_TEXT, 0);
    o.batch = 16;
    o.epochs = 10;
    o.schedule.lr = 0.1f;
    o.temperature = 0.1f;
    return o;
}

struct seen {
    size_t n_calls, n_points, last_step;
    size_t cancel_at; /* 0: never */
    struct train_point first, last;
};

static bool
watch(void *arg, const struct train_point *point)
{
    struct seen *seen = arg;
    seen->n_calls++;
    if (point != NULL) {
        assert_true(point->step > seen->last_step);
        assert_true(point->step <= point->n_steps);
        assert_true(isfinite(point->loss) && point->lr > 0);
        assert_true(point->accuracy >= 0 && point->accuracy <= 1.000001);
        assert_true(point->pairs_per_second > 0);
        seen->last_step = point->step;
        if (seen->n_points++ == 0)
            seen->first = *point;
        seen->last = *point;
    }
    return seen->n_calls != seen->cancel_at;
}

static enum err
run(struct encoder *encoder, const struct train_options *options,
    struct pool *pool, struct seen *seen, struct train_result *result)
{
    struct fault fault = {0};
    memset(seen, 0, sizeof *seen);
    enum err err = train_run(encoder, examples, PAIRS, options, NULL, NULL,
        pool, watch, seen, result, &fault);
    if (err != OK)
        print_error("%s: %s\n", err_text(err), fault.detail);
    return err;
}

static void
test_it_learns(void **state)
{
    struct train_options o = small_run();
    struct encoder *encoder = make();
    struct train_result result;
    struct seen seen;

    (void)state;
    assert_int_equal(run(encoder, &o, NULL, &seen, &result), OK);
    assert_int_equal(result.n_steps, 30); /* 10 epochs of 48 by 16 */
    assert_int_equal(seen.n_calls, 30);
    assert_int_equal(seen.last.step, 30);
    assert_true(seen.last.loss < 0.3 * seen.first.loss);
    assert_true(seen.last.accuracy > 0.9);
    assert_true(seen.last.positive > seen.last.negative + 0.5);
    assert_true(result.loss == seen.last.loss);
    assert_true(fabs(result.temperature - 0.1) <= 1e-6);
    assert_true(result.peak_bytes > 0 && result.pairs_per_second > 0);
    assert_true(encoder_is_trained(encoder));
    /* and encode agrees: a text finds its other side */
    float out[2 * PAIRS * 32];
    struct encoder_input inputs[2 * PAIRS];
    size_t hits = 0;
    for (size_t i = 0; i < PAIRS; i++) {
        inputs[i] = (struct encoder_input){
            .text = anchors[i], .len = strlen(anchors[i])};
        inputs[PAIRS + i] = (struct encoder_input){
            .text = positives[i], .len = strlen(positives[i])};
    }
    assert_int_equal(
        encoder_encode(encoder, inputs, 2 * PAIRS, out, NULL, NULL), OK);
    for (size_t i = 0; i < PAIRS; i++) {
        size_t best = 0;
        double top = -2;
        for (size_t j = 0; j < PAIRS; j++) {
            double dot =
                kern()->dot_f64(out + i * 32, out + (PAIRS + j) * 32, 32);
            if (dot > top) {
                top = dot;
                best = j;
            }
        }
        hits += best == i;
    }
    assert_true(hits >= PAIRS * 9 / 10);
    encoder_free(encoder);
}

static void
fingerprint_of_run(
    uint8_t out[SHA256_BYTES], const struct train_options *o, size_t threads)
{
    struct encoder *encoder = make();
    struct pool *pool = NULL;
    struct train_result result;
    struct seen seen;

    if (threads > 0)
        assert_int_equal(pool_new(&pool, threads, false), OK);
    assert_int_equal(run(encoder, o, pool, &seen, &result), OK);
    encoder_fingerprint(encoder, out);
    pool_free(pool);
    encoder_free(encoder);
}

static void
test_same_seed_same_bits(void **state)
{
    struct train_options o = small_run();
    uint8_t want[SHA256_BYTES], got[SHA256_BYTES];

    (void)state;
    for (int pretext = 0; pretext < 2; pretext++) {
        o.pretext = pretext == 0 ? TRAIN_PAIRS : TRAIN_INSTANCES;
        o.seed = 1;
        o.max_steps = 8;
        o.learn_temperature = true;
        fingerprint_of_run(want, &o, 0);
        for (size_t threads = 1; threads <= 3; threads++) {
            fingerprint_of_run(got, &o, threads);
            assert_memory_equal(got, want, sizeof got);
        }
        o.seed = 2;
        fingerprint_of_run(got, &o, 1);
        assert_memory_not_equal(got, want, sizeof got);
    }
}

/* Every option that should matter does. */
static void
test_options_matter(void **state)
{
    const struct train_options usual = small_run();
    struct train_options o[9];
    uint8_t prints[ARRAY_LEN(o)][SHA256_BYTES];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(o); i++) {
        o[i] = usual;
        o[i].max_steps = 4;
    }
    o[1].schedule.lr = 0.05f;
    o[2].temperature = 0.2f;
    o[3].loss = TRAIN_INFONCE;
    o[4].token_dropout = 0.4f;
    o[5].feature_dropout = 0.6f;
    o[6].learn_temperature = !usual.learn_temperature;
    o[7].optimizer.weight_decay = 0.3f;
    o[8].schedule.warmup = 1;
    for (size_t i = 0; i < ARRAY_LEN(o); i++) {
        fingerprint_of_run(prints[i], &o[i], 0);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(prints[i], prints[j], SHA256_BYTES);
    }
}

static void
test_steps(void **state)
{
    static const struct {
        size_t batch, min_steps, max_steps, want;
        double epochs;
    } cases[] = {{16, 0, 0, 3, 1}, {16, 0, 0, 5, 1.5}, {48, 0, 0, 1, 1},
        {1000, 0, 0, 2, 2}, {32, 0, 0, 2, 1}, {16, 0, 7, 7, 10},
        {16, 0, 50, 3, 1}, {16, 0, 0, 1, 0}, {16, 5, 0, 5, 1}, {16, 2, 0, 3, 1},
        {16, 9, 4, 4, 1}};
    struct train_result result;
    struct seen seen;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct encoder *encoder = make();
        struct train_options o = small_run();
        o.batch = cases[i].batch;
        o.min_steps = cases[i].min_steps;
        o.max_steps = cases[i].max_steps;
        o.epochs = cases[i].epochs;
        assert_int_equal(run(encoder, &o, NULL, &seen, &result), OK);
        assert_int_equal(result.n_steps, cases[i].want);
        assert_int_equal(seen.n_calls, cases[i].want);
        encoder_free(encoder);
    }
}

/* In a long run a point comes every few steps, and the last one always. */
static void
test_points(void **state)
{
    struct encoder *encoder = make();
    struct train_options o = small_run();
    struct train_result result;
    struct seen seen;

    (void)state;
    o.batch = 2;
    o.epochs = 21;
    assert_int_equal(run(encoder, &o, NULL, &seen, &result), OK);
    assert_int_equal(seen.n_calls, 504);
    assert_true(seen.n_points >= 200 && seen.n_points <= 300);
    assert_int_equal(seen.last.step, 504);
    /* no one need watch */
    o.max_steps = 2;
    assert_int_equal(train_run(encoder, examples, PAIRS, &o, NULL, NULL, NULL,
                         NULL, NULL, &result, NULL),
        OK);
    encoder_free(encoder);
}

static void
test_cancel(void **state)
{
    struct encoder *encoder = make();
    struct train_options o = small_run();
    struct train_result result = {.n_steps = 77};
    struct fault fault = {0};
    struct seen seen = {.cancel_at = 4};

    (void)state;
    assert_int_equal(train_run(encoder, examples, PAIRS, &o, NULL, NULL, NULL,
                         watch, &seen, &result, &fault),
        ERR_CANCELLED);
    assert_int_equal(seen.n_calls, 4);
    assert_int_equal(result.n_steps, 77); /* untouched */
    encoder_free(encoder);
}

static void
test_learned_temperature(void **state)
{
    struct encoder *encoder = make();
    struct train_options o = small_run();
    struct train_result result;
    struct seen seen;

    (void)state;
    o.learn_temperature = true;
    o.temperature = 0.5f;
    assert_int_equal(run(encoder, &o, NULL, &seen, &result), OK);
    /* once positives win, a sharper softmax has less loss */
    assert_true(result.temperature < 0.49 && result.temperature >= 0.01);
    assert_true(seen.last.temperature == result.temperature);
    encoder_free(encoder);
    encoder = make();
    /* the cap: 1 / tau is at most 100, however easy the task has become */
    o.learn_temperature = false;
    o.temperature = 0.1f;
    assert_int_equal(run(encoder, &o, NULL, &seen, &result), OK);
    o.learn_temperature = true;
    o.temperature = 0.0105f;
    o.token_dropout = o.feature_dropout = 0;
    o.schedule.lr = 1e-6f;
    assert_int_equal(run(encoder, &o, NULL, &seen, &result), OK);
    assert_true(result.temperature >= 0.01 - 1e-6);
    encoder_free(encoder);
}

/* The run is its parts in the order of the header, and nothing else. */
static void
test_against_its_parts(void **state)
{
    enum { B = 16, STEPS = 9, DIMS = 32 };
    struct train_options o = small_run();
    struct encoder *want = make(), *got = make();
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct optimizer *optimizer;
    struct batch_plan *plan;
    struct encoder_input inputs[2 * B];
    float z[2 * B * DIMS], dz[2 * B * DIMS];
    float *workspace = malloc(infonce_workspace_floats(B, B) * sizeof(float));
    struct train_result result;
    struct seen seen;
    size_t n_params;

    (void)state;
    o.token_dropout = o.feature_dropout = 0;
    o.optimizer.weight_decay = 0.5f; /* shows who is touched when */
    assert_non_null(workspace);
    assert_int_equal(encoder_tape_new(&tape, want), OK);
    assert_int_equal(encoder_grads_new(&grads, want), OK);
    float *params = encoder_params(want, &n_params);
    assert_int_equal(optimizer_new(&optimizer, n_params, &o.optimizer), OK);
    assert_int_equal(
        batch_plan_new(&plan, examples, PAIRS, B, o.group_share, o.seed), OK);
    for (size_t step = 0; step < STEPS; step++) {
        const uint32_t *index;
        size_t n;
        uint64_t keys[B];
        float weight[B];
        struct infonce_in in = {.B = B,
            .M = B,
            .D = DIMS,
            .q = z,
            .k = z + B * DIMS,
            .weight = weight,
            .tau = (float)exp(log((double)o.temperature)),
            .symmetric = o.loss == TRAIN_SYMMETRIC};
        struct infonce_out out = {.dq = dz, .dk = dz + B * DIMS};
        assert_int_equal(batch_plan_next(plan, &index, &n), OK);
        assert_int_equal(n, B);
        for (size_t i = 0; i < B; i++) {
            const struct batch_example *e = &examples[index[i]];
            inputs[i] = (struct encoder_input){
                .text = e->anchor.input.text, .len = e->anchor.input.len};
            inputs[B + i] = (struct encoder_input){
                .text = e->positive.input.text, .len = e->positive.input.len};
            keys[i] = e->positive.key;
            weight[i] = e->weight;
        }
        assert_int_equal(
            batch_masks(plan, index, B, keys, B, &in.mask, &in.n_mask), OK);
        assert_int_equal(
            encoder_forward(want, tape, inputs, 2 * B, NULL, z, NULL), OK);
        infonce(&in, &out, workspace, NULL);
        encoder_grads_clear(grads);
        assert_int_equal(encoder_backward(want, tape, dz, grads, NULL), OK);
        optimizer_step(optimizer, params, grads,
            schedule_rate(&o.schedule, step, STEPS), NULL);
    }
    o.epochs = 3;
    assert_int_equal(run(got, &o, NULL, &seen, &result), OK);
    assert_int_equal(result.n_steps, STEPS);
    const float *p = encoder_params_const(got, &n_params);
    for (size_t i = 0; i < n_params; i++)
        assert_true(fabsf(p[i] - params[i]) <= 1e-5f);
    free(workspace);
    batch_plan_free(plan);
    optimizer_free(optimizer);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    encoder_free(want);
    encoder_free(got);
}

static void
test_instances(void **state)
{
    static struct batch_example items[PAIRS];
    struct encoder *encoder = make();
    struct train_options o;
    struct train_result result;
    struct seen seen = {0};

    (void)state;
    train_options_default(
        &o, TRAIN_INSTANCES, TRAIN_IN_BATCH, ENCODER_READS_TEXT, 0);
    o.batch = 16;
    o.epochs = 10;
    for (size_t i = 0; i < PAIRS; i++) {
        items[i].anchor = items[i].positive = text_of(titles[i]);
        items[i].weight = 1;
    }
    assert_int_equal(train_run(encoder, items, PAIRS, &o, NULL, NULL, NULL,
                         watch, &seen, &result, NULL),
        OK);
    assert_true(seen.last.loss < seen.first.loss);
    encoder_free(encoder);
}

/* Given negatives enter the sum: the first loss is larger with them. */
static void
test_given_negatives(void **state)
{
    struct encoder *encoder = make();
    struct train_options o = small_run();
    struct train_result result;
    struct seen with, without;

    (void)state;
    o.loss = TRAIN_INFONCE;
    o.token_dropout = o.feature_dropout = 0;
    o.batch = 8;
    o.group_share = 0;
    assert_int_equal(run(encoder, &o, NULL, &without, &result), OK);
    encoder_free(encoder);
    for (size_t i = 0; i < PAIRS; i++) {
        examples[i].negatives = negatives[i];
        examples[i].n_negatives = i % 3;
    }
    encoder = make();
    assert_int_equal(run(encoder, &o, NULL, &with, &result), OK);
    assert_true(with.first.loss > without.first.loss + 0.2);
    assert_true(with.last.loss < 0.5 * with.first.loss);
    encoder_free(encoder);
    fill(NULL);
}

static void
test_refusals(void **state)
{
    struct encoder *encoder = make();
    struct train_options o = small_run();
    struct train_result result;
    struct fault fault = {0};
    struct seen seen = {0};
    struct batch_example same[4];

    (void)state;
    for (size_t n = 0; n < 2; n++)
        assert_int_equal(train_run(encoder, examples, n, &o, NULL, NULL, NULL,
                             watch, &seen, &result, &fault),
            ERR_INVALID);
    assert_true(fault.detail[0] != '\0');
    for (size_t i = 0; i < 4; i++)
        same[i] = examples[0];
    assert_int_equal(train_run(encoder, same, 4, &o, NULL, NULL, NULL, watch,
                         &seen, &result, &fault),
        ERR_INVALID);
    assert_non_null(strstr(fault.detail, "differ"));
    assert_int_equal(seen.n_calls, 0);
    o.schedule.lr = 1e38f;
    assert_int_equal(train_run(encoder, examples, PAIRS, &o, NULL, NULL, NULL,
                         watch, &seen, &result, &fault),
        ERR_INVALID);
    assert_non_null(strstr(fault.detail, "learning rate"));
    encoder_free(encoder);
}

/* What goes wrong in the update of the last step has no later loss to show. */
static void
test_last_step_is_checked(void **state)
{
    struct encoder *words = make(), *pictures = NULL;
    struct batch_example images[TRAIN_KIT_N];
    struct train_options o = small_run();
    struct train_result result;
    struct fault fault = {0};

    (void)state;
    o.max_steps = 1;
    o.optimizer.weight_decay = 1;
    o.schedule.kind = SCHEDULE_CONSTANT;
    o.schedule.warmup = 0;
    o.schedule.lr = 3e38f;
    assert_int_equal(train_run(words, examples, PAIRS, &o, NULL, NULL, NULL,
                         NULL, NULL, &result, &fault),
        ERR_INVALID);
    assert_non_null(strstr(fault.detail, "at step 1:"));
    assert_non_null(strstr(fault.detail, "learning rate"));

    assert_int_equal(
        encoder_new(&pictures, "vision", TRAIN_KIT_PICTURES, NULL, NULL), OK);
    train_kit_pictures(images);
    train_options_default(
        &o, TRAIN_INSTANCES, TRAIN_IN_BATCH, ENCODER_READS_IMAGE, 1);
    o.batch = 8;
    o.max_steps = 1;
    o.optimizer.weight_decay = 1;
    o.schedule.kind = SCHEDULE_CONSTANT;
    o.schedule.warmup = 0;
    o.schedule.lr = 3e38f;
    fault = (struct fault){0};
    assert_int_equal(train_run(pictures, images, TRAIN_KIT_N, &o, NULL, NULL,
                         NULL, NULL, NULL, &result, &fault),
        ERR_INVALID);
    assert_non_null(strstr(fault.detail, "stopped being a number"));
    encoder_free(words);
    encoder_free(pictures);
}

static void
test_memory_runs_out(void **state)
{
    struct train_options o = small_run();

    (void)state;
    o.max_steps = 2;
    o.batch = 6;
    for (uint64_t n = 1;; n++) {
        struct encoder *encoder = make();
        struct train_result result;
        struct fault fault = {0};
        alloc_fail_at(n);
        enum err err = train_run(encoder, examples, 12, &o, NULL, NULL, NULL,
            NULL, NULL, &result, &fault);
        uint64_t seen = alloc_fail_at(0);
        encoder_free(encoder);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        if (seen < n)
            break;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_learns),
        cmocka_unit_test(test_same_seed_same_bits),
        cmocka_unit_test(test_options_matter),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_learned_temperature),
        cmocka_unit_test(test_against_its_parts),
        cmocka_unit_test(test_instances),
        cmocka_unit_test(test_given_negatives),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_last_step_is_checked),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, fill, NULL);
}
