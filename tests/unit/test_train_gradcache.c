/*
 * Goal: encoding in pieces changes memory, not the gradient.
 *
 * Method: one step's rows forward and backward as a whole and in pieces of
 * every kind of size, with noise and dropout on, texts and pictures: the same
 * vectors bit by bit, the same gradient to 1e-6 of its size, the generator in
 * the same state. Then whole runs, and the bytes of a run as its batch grows.
 * Texts for which a tape of their own would be large, being words of many
 * kilobytes, yet are few tokens: the pieces that follow from their lengths
 * against the same pieces made by hand, to the byte that the tape holds.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/pool.h"
#include "kern/kern.h"
#include "tests/support/train_kit.h"
#include "tests/support/transformer_kit.h"
#include "train/gradcache.h"

#define B 20

static struct batch_example examples[TRAIN_KIT_N];

static struct encoder *
make(bool pictures)
{
    struct encoder *encoder = NULL;
    assert_int_equal(
        encoder_new(&encoder, pictures ? "vision" : "static",
            pictures ? TRAIN_KIT_PICTURES : TRAIN_KIT_TEXT, NULL, NULL),
        OK);
    if (pictures)
        train_kit_pictures(examples);
    else
        train_kit_items(examples);
    return encoder;
}

struct pass {
    float *z, *d_params;
    struct rng rng;
};

/* Step 3 of a run: rows, vectors, and the gradient of sum c_i z_i. */
static void
one_pass(struct pass *out, const struct encoder *encoder,
    const struct train_options *o, size_t piece, bool noisy, struct pool *pool)
{
    size_t D = encoder_dims(encoder), n_params;
    uint32_t index[B];
    struct inputs *inputs;
    struct gradcache *cache;
    struct encoder_grads *grads;
    float *scratch = malloc(piece * D * sizeof *scratch);
    float *d_out = malloc(2 * B * D * sizeof *d_out);
    struct encoder_noise noise = {.rng = &out->rng,
        .token_dropout = noisy ? 0.2f : 0,
        .feature_dropout = noisy ? 0.3f : 0};

    (void)encoder_params_const(encoder, &n_params);
    assert_non_null(scratch);
    assert_non_null(d_out);
    for (uint32_t i = 0; i < B; i++)
        index[i] = (i * 7) % TRAIN_KIT_N;
    rng_seed(&out->rng, 1);
    for (size_t i = 0; i < 2 * B * D; i++)
        d_out[i] = (float)rng_normal(&out->rng);
    assert_int_equal(inputs_new(&inputs, encoder, o, B, 0, piece), OK);
    assert_int_equal(gradcache_new(&cache, encoder, piece, 2 * B), OK);
    assert_int_equal(encoder_grads_new(&grads, encoder), OK);
    assert_int_equal(inputs_fill(inputs, examples, index, B, 3, &out->rng), OK);
    out->z = malloc(2 * B * D * sizeof *out->z);
    out->d_params = malloc(n_params * sizeof *out->d_params);
    assert_true(out->z != NULL && out->d_params != NULL);
    assert_int_equal(
        gradcache_forward(cache, encoder, inputs, 2 * B, &noise, out->z, pool),
        OK);
    assert_int_equal(
        gradcache_backward(cache, encoder, inputs, d_out, grads, scratch, pool),
        OK);
    memcpy(out->d_params, grads->d_params, n_params * sizeof *out->d_params);
    free(scratch);
    free(d_out);
    inputs_free(inputs);
    gradcache_free(cache);
    encoder_grads_free(grads);
}

static void
pass_release(struct pass *p)
{
    free(p->z);
    free(p->d_params);
}

static double
difference(const float *a, const float *b, size_t n)
{
    double d = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        norm += pow((double)a[i], 2);
    }
    return sqrt(d / norm);
}

static void
test_same_gradient(void **state)
{
    static const size_t pieces[] = {1, 3, 8, 19, 20, 39};
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(&pool, 2, false), OK);
    for (int pictures = 0; pictures < 2; pictures++) {
        struct encoder *encoder = make(pictures);
        struct train_options o;
        size_t n_params, D = encoder_dims(encoder);
        (void)encoder_params_const(encoder, &n_params);
        train_options_default(
            &o, TRAIN_INSTANCES, TRAIN_IN_BATCH, encoder_reads(encoder), 1);
        o.char_noise = 0.3f;
        for (int noisy = 0; noisy < 2; noisy++) {
            struct pass whole;
            one_pass(&whole, encoder, &o, 2 * B, noisy, NULL);
            for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
                struct pass cut, again;
                one_pass(&cut, encoder, &o, pieces[p], noisy, NULL);
                one_pass(&again, encoder, &o, pieces[p], noisy, pool);
                if (!noisy || pictures) { /* dropout draws by the piece */
                    assert_true(difference(whole.z, cut.z, 2 * B * D) <= 1e-6);
                    assert_true(difference(whole.d_params, cut.d_params,
                                    n_params) <= 1e-6);
                }
                assert_memory_equal(cut.z, again.z, 2 * B * D * sizeof *cut.z);
                assert_memory_equal(cut.d_params, again.d_params,
                    n_params * sizeof *cut.d_params);
                assert_memory_equal(&cut.rng, &again.rng, sizeof cut.rng);
                pass_release(&cut);
                pass_release(&again);
            }
            pass_release(&whole);
        }
        encoder_free(encoder);
    }
    pool_free(pool);
}

/* The second forward pass drops what the first one dropped: against the sum of
   the pieces' own gradients, each made at once. */
static void
test_same_noise_twice(void **state)
{
    enum { PIECE = 7 };
    struct encoder *encoder = make(false);
    size_t D = encoder_dims(encoder), n_params;
    struct train_options o;
    struct pass cut;
    struct inputs *inputs;
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    uint32_t index[B];
    float *z = malloc(2 * B * D * sizeof *z);
    float *d_out = malloc(2 * B * D * sizeof *d_out);
    struct rng rng;
    struct encoder_noise noise = {
        .rng = &rng, .token_dropout = 0.2f, .feature_dropout = 0.3f};

    (void)state;
    assert_true(z != NULL && d_out != NULL);
    (void)encoder_params_const(encoder, &n_params);
    train_options_default(
        &o, TRAIN_INSTANCES, TRAIN_IN_BATCH, ENCODER_READS_TEXT, 0);
    one_pass(&cut, encoder, &o, PIECE, true, NULL);
    for (uint32_t i = 0; i < B; i++)
        index[i] = (i * 7) % TRAIN_KIT_N;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < 2 * B * D; i++)
        d_out[i] = (float)rng_normal(&rng);
    assert_int_equal(inputs_new(&inputs, encoder, &o, B, 0, PIECE), OK);
    assert_int_equal(encoder_tape_new(&tape, encoder), OK);
    assert_int_equal(encoder_grads_new(&grads, encoder), OK);
    assert_int_equal(inputs_fill(inputs, examples, index, B, 3, &rng), OK);
    for (size_t i = 0; i < 2 * B; i += PIECE) {
        const struct encoder_input *rows;
        size_t n = MIN((size_t)PIECE, 2 * B - i);
        assert_int_equal(inputs_rows(inputs, i, n, &rows, NULL), OK);
        assert_int_equal(
            encoder_forward(encoder, tape, rows, n, &noise, z + i * D, NULL),
            OK);
        assert_int_equal(
            encoder_backward(encoder, tape, d_out + i * D, grads, NULL), OK);
    }
    assert_memory_equal(z, cut.z, 2 * B * D * sizeof *z);
    assert_memory_equal(&rng, &cut.rng, sizeof rng);
    assert_true(difference(grads->d_params, cut.d_params, n_params) <= 1e-6);
    pass_release(&cut);
    free(z);
    free(d_out);
    inputs_free(inputs);
    encoder_tape_free(tape);
    encoder_grads_free(grads);
    encoder_free(encoder);
}

/* A whole run in pieces ends where the run at once ends. */
static void
test_runs_agree(void **state)
{
    (void)state;
    for (int pictures = 0; pictures < 2; pictures++) {
        struct encoder *whole = make(pictures), *cut = make(pictures);
        struct train_options o;
        struct train_result result;
        size_t n_params;
        /* views of texts are drawn from the generator that noise draws from,
           by the piece: pairs have none */
        train_options_default(&o, pictures ? TRAIN_INSTANCES : TRAIN_PAIRS,
            TRAIN_IN_BATCH, encoder_reads(whole), 1);
        if (!pictures)
            train_kit_pairs(examples);
        o.loss = TRAIN_NT_XENT;
        o.batch = 16;
        o.max_steps = 5;
        o.token_dropout = o.feature_dropout = 0;
        /* Adam divides by the size of tiny gradients, and with it their noise
           grows; momentum keeps it small */
        optimizer_options_default(&o.optimizer, OPTIMIZER_SGD);
        o.schedule.lr = 0.1f;
        o.micro_batch = 32;
        assert_int_equal(train_run(whole, examples, TRAIN_KIT_N, &o, NULL, NULL,
                             NULL, NULL, NULL, &result, NULL),
            OK);
        o.micro_batch = 5;
        assert_int_equal(train_run(cut, examples, TRAIN_KIT_N, &o, NULL, NULL,
                             NULL, NULL, NULL, &result, NULL),
            OK);
        const float *a = encoder_params_const(whole, &n_params);
        const float *b = encoder_params_const(cut, &n_params);
        assert_true(difference(a, b, n_params) <= 1e-5);
        encoder_free(whole);
        encoder_free(cut);
    }
}

/* Sixteen times the batch: what grows is vectors and a panel of logits, a small
   part of what the tape would be without pieces. */
static void
test_memory_is_flat(void **state)
{
    enum { N = 1024 };
    static struct batch_example many[N];
    uint64_t bytes[3];

    (void)state;
    struct encoder *encoder = make(true);
    for (size_t i = 0; i < N; i++) { /* of one picture: memory is the same */
        many[i] = examples[i % TRAIN_KIT_N];
        many[i].anchor.key = many[i].positive.key = hash_u64(i);
    }
    for (int c = 0; c < 3; c++) {
        struct train_options o;
        struct train_result result;
        train_options_default(
            &o, TRAIN_INSTANCES, TRAIN_IN_BATCH, ENCODER_READS_IMAGE, 1);
        o.batch = c == 0 ? 64 : N;
        o.micro_batch = c == 2 ? 2 * N : 128;
        o.max_steps = 1;
        assert_int_equal(train_run(encoder, many, N, &o, NULL, NULL, NULL, NULL,
                             NULL, &result, NULL),
            OK);
        bytes[c] = result.peak_bytes;
    }
    assert_true(5 * (bytes[1] - bytes[0]) < bytes[2] - bytes[0]);
    assert_true(bytes[2] > 4 * bytes[1]);
    encoder_free(encoder);
}

/* ------------------------------------------- pieces by the bytes of texts */

#define ROWS 8
#define HALF_BYTES 49000  /* a tape of 0.58 GiB, by the formula */
#define THIRD_BYTES 24000 /* of 0.29 GiB */
/* 38,400 bytes of tape a token */
#define DEEP                                                                   \
    "{\"layers\":64,\"hidden\":16,\"heads\":1,\"ffn\":16,\"vocab\":44,"        \
    "\"max_positions\":16384,\"positions\":\"sinusoidal\"}"

struct cut_case {
    size_t piece;
    size_t bytes[ROWS];
    size_t starts[ROWS + 1]; /* of the pieces, then ROWS */
};

/* Five words and one of what is left, which no piece covers. */
static void
fill_rows(struct batch_example *to, char *texts, const size_t *bytes)
{
    for (size_t i = 0; i < ROWS; i++) {
        char *text = texts + i * (HALF_BYTES + 1);
        size_t len = transformer_kit_text(text, 256, 5, i);
        memset(text + len, 'x', HALF_BYTES - len);
        text[len] = ' ';
        struct batch_side *side =
            i < ROWS / 2 ? &to[i].anchor : &to[i - ROWS / 2].positive;
        side->input = (struct encoder_input){.text = text, .len = bytes[i]};
        side->key = i;
    }
}

static void
check_case(const struct encoder *encoder, const struct cut_case *c)
{
    static const uint32_t index[ROWS / 2] = {0, 1, 2, 3};
    struct batch_example rows[ROWS / 2] = {{.weight = 1}};
    size_t D = encoder_dims(encoder), n_params, n = ROWS * D;
    struct train_options o;
    struct inputs *inputs;
    struct gradcache *cache;
    struct encoder_tape *tape;
    struct encoder_grads *grads, *by_hand;
    const struct encoder_input *row;
    struct rng rng, again;
    struct encoder_noise noise = {.rng = &rng, .token_dropout = 0.3f};
    float z[ROWS * 16], same[ROWS * 16], d_out[ROWS * 16], scratch[ROWS * 16];
    char *texts = malloc(ROWS * (HALF_BYTES + 1));

    assert_non_null(texts);
    (void)encoder_params_const(encoder, &n_params);
    fill_rows(rows, texts, c->bytes);
    train_options_default(
        &o, TRAIN_PAIRS, TRAIN_IN_BATCH, ENCODER_READS_TEXT, 1);
    rng_seed(&rng, 1);
    for (size_t i = 0; i < n; i++)
        d_out[i] = (float)rng_normal(&rng);
    assert_int_equal(inputs_new(&inputs, encoder, &o, ROWS / 2, 0, ROWS), OK);
    assert_int_equal(gradcache_new(&cache, encoder, c->piece, ROWS), OK);
    assert_int_equal(encoder_tape_new(&tape, encoder), OK);
    assert_int_equal(encoder_grads_new(&grads, encoder), OK);
    assert_int_equal(encoder_grads_new(&by_hand, encoder), OK);
    assert_int_equal(inputs_fill(inputs, rows, index, ROWS / 2, 0, &rng), OK);
    again = rng;
    assert_int_equal(
        gradcache_forward(cache, encoder, inputs, ROWS, &noise, z, NULL), OK);
    assert_int_equal(
        gradcache_backward(cache, encoder, inputs, d_out, grads, scratch, NULL),
        OK);
    noise.rng = &again;
    for (size_t p = 0; c->starts[p] < ROWS; p++) {
        size_t first = c->starts[p], m = c->starts[p + 1] - first;
        assert_int_equal(inputs_rows(inputs, first, m, &row, NULL), OK);
        assert_int_equal(encoder_forward(encoder, tape, row, m, &noise,
                             same + first * D, NULL),
            OK);
        assert_int_equal(
            encoder_backward(encoder, tape, d_out + first * D, by_hand, NULL),
            OK);
    }
    assert_int_equal(gradcache_bytes(cache), encoder_tape_bytes(tape));
    assert_memory_equal(z, same, n * sizeof *z);
    assert_memory_equal(&rng, &again, sizeof rng);
    assert_true(
        difference(by_hand->d_params, grads->d_params, n_params) <= 1e-5);
    inputs_free(inputs);
    gradcache_free(cache);
    encoder_tape_free(tape);
    encoder_grads_free(grads);
    encoder_grads_free(by_hand);
    free(texts);
}

static void
test_cut_by_bytes(void **state)
{
    enum { H = HALF_BYTES, T = THIRD_BYTES, S = 60 };
    static const struct cut_case cases[] = {
        {8, {S, S, S, S, S, S, S, S}, {0, 8}},
        {3, {S, S, S, S, S, S, S, S}, {0, 3, 6, 8}},
        {8, {T, T, T, T, T, T, T, T}, {0, 3, 6, 8}},
        {2, {T, T, T, T, T, T, T, T}, {0, 2, 4, 6, 8}},
        {8, {H, H, H, H, H, H, H, H}, {0, 1, 2, 3, 4, 5, 6, 7, 8}},
        {8, {H, T, S, S, S, S, S, S}, {0, 8}},
        {8, {S, S, S, H, T, T, S, S}, {0, 5, 8}},
        {4, {S, H, H, S, S, S, S, S}, {0, 2, 6, 8}},
    };
    struct encoder *encoder;

    (void)state;
    assert_int_equal(transformer_kit_build(&encoder, DEEP, 1, NULL), OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check_case(encoder, &cases[i]);
    encoder_free(encoder);
}

static void
test_memory_runs_out(void **state)
{
    struct encoder *encoder = make(true);

    (void)state;
    for (uint64_t n = 1;; n++) {
        struct encoder *clone;
        struct train_options o;
        struct train_result result;
        train_options_default(
            &o, TRAIN_INSTANCES, TRAIN_IN_BATCH, ENCODER_READS_IMAGE, 1);
        o.batch = 4;
        o.micro_batch = 3;
        o.max_steps = 1;
        assert_int_equal(encoder_clone(&clone, encoder), OK);
        alloc_fail_at(n);
        enum err err = train_run(clone, examples, 8, &o, NULL, NULL, NULL, NULL,
            NULL, &result, NULL);
        uint64_t seen = alloc_fail_at(0);
        encoder_free(clone);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        if (err == OK)
            break;
    }
    encoder_free(encoder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_gradient),
        cmocka_unit_test(test_same_noise_twice),
        cmocka_unit_test(test_runs_agree),
        cmocka_unit_test(test_memory_is_flat),
        cmocka_unit_test(test_cut_by_bytes),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
