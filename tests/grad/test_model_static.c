/*
 * Goal: the static encoder's backward pass is the derivative of its forward
 * pass, for every group of parameters that is learned.
 *
 * Method: a random projection of the output is the objective, so its gradient
 * by the output is the projection. Central differences over the step really
 * taken in float; the error is relative to the larger of the two numbers, with
 * a floor for small ones. One value of every touched row, every touched
 * feature weight and every position weight is compared, and parameters outside
 * the gradient's segments must not change the objective (but for the document
 * frequencies, which are never learned). The texts have words that occur
 * several times and in several texts, a script without spaces, enough words
 * for many positions, and nothing at all; then the same again under dropout,
 * with the noise held by its seed.
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
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "model/encoder.h"
#include "model/static_encoder.h"

#define DIMS 32
#define CONFIG "{\"dims\":32,\"buckets\":1024,\"ngram_min\":3,\"ngram_max\":4}"
#define TOLERANCE 0.02
#define FLOOR 0.02 /* gradients are of size 0.1 to 10 */

static const char *const texts[] = {
    "the red fox sees the red fox and the fox runs", "zz red", "",
    "one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty fox again "
    "one two three and more words until the buckets of positions are used up "
    "a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc dd ee ff gg",
    "\xE5\x8C\x97\xE4\xBA\xAC\xE5\xA4\xA7\xE5\xAD\xA6 fox", "  ,;. !!",
    "caf\xC3\xA9 cafe", "fox"};
#define N ARRAY_LEN(texts)

struct bench {
    struct encoder *encoder;
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct encoder_input inputs[N];
    float out[N * DIMS];
    float projection[N * DIMS];
    float *params;
    size_t n_params;
    const struct encoder_noise *noise; /* what to use but for its rng */
    uint64_t noise_seed;
};

/* Parameters away from their start, so that no derivative is special. */
static void
open_bench(struct bench *b, const struct encoder_noise *noise)
{
    struct rng rng;
    const struct static_encoder *e;

    memset(b, 0, sizeof *b);
    b->noise = noise;
    b->noise_seed = 77;
    assert_int_equal(
        encoder_new(&b->encoder, "static", CONFIG, NULL, NULL), OK);
    assert_int_equal(encoder_tape_new(&b->tape, b->encoder), OK);
    assert_int_equal(encoder_grads_new(&b->grads, b->encoder), OK);
    b->params = encoder_params(b->encoder, &b->n_params);
    e = self_of(b->encoder);
    rng_seed(&rng, 5);
    for (size_t i = 0; i < b->n_params; i++) {
        if (i < e->theta_at)
            b->params[i] = (float)rng_normal(&rng);
        else
            b->params[i] += 0.3f * (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < N; i++)
        b->inputs[i] = (struct encoder_input){.text = texts[i], .len = strlen(texts[i])};
    for (size_t i = 0; i < N * DIMS; i++)
        b->projection[i] = (float)rng_normal(&rng);
}

static void
close_bench(struct bench *b)
{
    encoder_grads_free(b->grads);
    encoder_tape_free(b->tape);
    encoder_free(b->encoder);
}

static double
objective(struct bench *b, struct pool *pool)
{
    struct rng rng;
    struct encoder_noise noise = {0};
    double sum = 0;

    rng_seed(&rng, b->noise_seed);
    if (b->noise != NULL) {
        noise = *b->noise;
        noise.rng = &rng;
    }
    assert_int_equal(encoder_forward(b->encoder, b->tape, b->inputs, N,
                         b->noise == NULL ? NULL : &noise, b->out, pool),
        OK);
    for (size_t i = 0; i < N * DIMS; i++)
        sum += (double)b->out[i] * (double)b->projection[i];
    return sum;
}

static void
backward(struct bench *b, struct pool *pool)
{
    assert_int_equal(
        encoder_backward(b->encoder, b->tape, b->projection, b->grads, pool),
        OK);
}

static double
difference(struct bench *b, size_t i, float step)
{
    float at = b->params[i];
    volatile float up = at + step, down = at - step;

    b->params[i] = up;
    double high = objective(b, NULL);
    b->params[i] = down;
    double low = objective(b, NULL);
    b->params[i] = at;
    return (high - low) / ((double)up - (double)down);
}

static void
compare(struct bench *b, size_t i, float step, const char *group)
{
    double numeric = difference(b, i, step);
    double exact = (double)b->grads->d_params[i];
    double size = fmax(fabs(numeric), fabs(exact));
    double err = fabs(numeric - exact) / fmax(size, FLOOR);

    if (!(err <= TOLERANCE))
        print_error("%s, parameter %zu: %g by differences, %g by backward\n",
            group, i, numeric, exact);
    assert_true(err <= TOLERANCE);
}

static bool
in_segments(const struct encoder_grads *grads, size_t i)
{
    for (size_t s = 0; s < grads->n_segments; s++) {
        if (i >= grads->segments[s].start &&
            i - grads->segments[s].start < grads->segments[s].n)
            return true;
    }
    return false;
}

static void
check_all(const struct encoder_noise *noise)
{
    struct bench b;
    struct rng rng;
    size_t n_rows = 0, n_theta = 0, n_rho = 0;

    open_bench(&b, noise);
    const struct static_encoder *e = self_of(b.encoder);
    objective(&b, NULL);
    backward(&b, NULL);
    rng_seed(&rng, 9);
    assert_true(b.grads->n_segments > 0);
    for (size_t s = 0; s < b.grads->n_segments; s++) {
        struct encoder_segment seg = b.grads->segments[s];
        assert_true(seg.n > 0 && seg.start + seg.n <= b.n_params);
        if (s > 0)
            assert_true(seg.start >= b.grads->segments[s - 1].start +
                                         b.grads->segments[s - 1].n);
        if (seg.start < e->theta_at) {
            compare(&b, seg.start + rng_below(&rng, seg.n), 0.05f, "rows");
            n_rows++;
            /* a row is listed because it was used */
            double sum = 0;
            for (size_t i = seg.start; i < seg.start + seg.n; i++)
                sum += fabs((double)b.grads->d_params[i]);
            assert_true(sum > 0);
        } else {
            bool theta = seg.start < e->rho_at;
            for (size_t i = seg.start; i < seg.start + seg.n; i++) {
                if (b.grads->d_params[i] == 0)
                    continue;
                compare(&b, i, 0.03f, theta ? "theta" : "rho");
                n_theta += theta;
                n_rho += !theta;
            }
        }
    }
    print_message("%zu rows, %zu feature weights, %zu position weights\n",
        n_rows, n_theta, n_rho);
    assert_true(n_rows > 300 && n_theta > 150 && n_rho >= 13);
    /* the zeros of touched lines, and what no segment lists */
    for (int i = 0; i < 200; i++) {
        size_t at = (size_t)rng_below(&rng, e->phi_at);
        if (in_segments(b.grads, at) && b.grads->d_params[at] != 0)
            continue;
        assert_true(b.grads->d_params[at] == 0);
        assert_true(difference(&b, at, 0.05f) == 0);
    }
    for (size_t i = e->phi_at; i < b.n_params; i++)
        assert_true(b.grads->d_params[i] == 0);
    close_bench(&b);
}

static void
test_every_group(void **state)
{
    (void)state;
    check_all(NULL);
}

static void
test_under_noise(void **state)
{
    const struct encoder_noise noise = {
        .token_dropout = 0.2f, .feature_dropout = 0.3f};
    (void)state;
    check_all(&noise);
}

/* Noise does something, and the same seed does the same. */
static void
test_noise_is_seeded(void **state)
{
    const struct encoder_noise noise = {
        .token_dropout = 0.2f, .feature_dropout = 0.3f};
    const struct encoder_noise features = {.feature_dropout = 0.3f};
    const struct encoder_noise tokens = {.token_dropout = 0.2f};
    const struct encoder_noise *kinds[] = {&noise, &features, &tokens};
    struct bench b;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        open_bench(&b, kinds[i]);
        double first = objective(&b, NULL);
        double again = objective(&b, NULL);
        b.noise_seed = 78;
        double other = objective(&b, NULL);
        b.noise = NULL;
        double without = objective(&b, NULL);
        assert_true(first == again);
        assert_true(fabs(first - other) > 1e-3);
        assert_true(fabs(first - without) > 1e-3);
        close_bench(&b);
    }
}

/* A second backward pass adds the same again. */
static void
test_twice_doubles(void **state)
{
    struct bench b;

    (void)state;
    open_bench(&b, NULL);
    objective(&b, NULL);
    backward(&b, NULL);
    float *once = malloc(b.n_params * sizeof *once);
    assert_non_null(once);
    memcpy(once, b.grads->d_params, b.n_params * sizeof *once);
    size_t n = b.grads->n_segments;
    backward(&b, NULL);
    assert_int_equal(b.grads->n_segments, n);
    for (size_t i = 0; i < b.n_params; i++) {
        double want = 2 * (double)once[i];
        double err = fabs((double)b.grads->d_params[i] - want);
        assert_true(err <= 1e-5 * fmax(fabs(want), 1));
    }
    encoder_grads_clear(b.grads);
    assert_int_equal(b.grads->n_segments, 0);
    for (size_t i = 0; i < b.n_params; i++)
        assert_true(b.grads->d_params[i] == 0);
    backward(&b, NULL);
    assert_memory_equal(b.grads->d_params, once, b.n_params * sizeof *once);
    free(once);
    close_bench(&b);
}

/* The same bits with any number of threads, and what encode gives. */
static void
test_pools_agree(void **state)
{
    const struct encoder_noise noise = {
        .token_dropout = 0.1f, .feature_dropout = 0.1f};
    struct bench b;
    float out[N * DIMS];

    (void)state;
    open_bench(&b, &noise);
    objective(&b, NULL);
    backward(&b, NULL);
    memcpy(out, b.out, sizeof out);
    float *want = malloc(b.n_params * sizeof *want);
    assert_non_null(want);
    memcpy(want, b.grads->d_params, b.n_params * sizeof *want);
    for (size_t threads = 1; threads <= 3; threads++) {
        struct pool *pool;
        assert_int_equal(pool_new(&pool, threads, false), OK);
        encoder_grads_clear(b.grads);
        objective(&b, pool);
        backward(&b, pool);
        assert_memory_equal(b.out, out, sizeof out);
        assert_memory_equal(b.grads->d_params, want, b.n_params * sizeof *want);
        pool_free(pool);
    }
    b.noise = NULL;
    objective(&b, NULL);
    assert_int_equal(
        encoder_encode(b.encoder, b.inputs, N, out, NULL, NULL), OK);
    for (size_t i = 0; i < N * DIMS; i++)
        assert_true(fabsf(out[i] - b.out[i]) <= 1e-6f);
    free(want);
    close_bench(&b);
}

/* A batch of texts without any feature moves nothing. */
static void
test_empty_texts(void **state)
{
    struct bench b;

    (void)state;
    open_bench(&b, NULL);
    for (size_t i = 0; i < N; i++)
        b.inputs[i] = (struct encoder_input){.text = " ...", .len = i % 5};
    assert_true(objective(&b, NULL) == 0);
    backward(&b, NULL);
    for (size_t i = 0; i < b.n_params; i++)
        assert_true(b.grads->d_params[i] == 0);
    close_bench(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_group),
        cmocka_unit_test(test_under_noise),
        cmocka_unit_test(test_noise_is_seeded),
        cmocka_unit_test(test_twice_doubles),
        cmocka_unit_test(test_pools_agree),
        cmocka_unit_test(test_empty_texts),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
