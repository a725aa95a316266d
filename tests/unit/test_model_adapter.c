/*
 * Goal: an adapter maps queries and nothing else, behind any family; its
 * encoder is in the space of the one without it; it is saved, loaded, copied
 * and taken off again; damaged bytes of it are refused; its gradient is that of
 * its formula, alone and behind a family alike.
 * Method: static and vision encoders with a random matrix, against the product
 * in double; a random projection of the output as the objective, central
 * differences; the saved stream with every bit of the matrix in question.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/pool.h"
#include "kern/kern.h"
#include "model/encoder.h"
#include "tests/support/train_kit.h"

#define D 32
#define N 70 /* more than a shard */

static struct batch_example examples[TRAIN_KIT_N];
static struct encoder_input inputs[N];

/* Every other input is a query. */
static void
fill_inputs(bool pictures)
{
    if (pictures)
        train_kit_pictures(examples);
    else
        train_kit_items(examples);
    for (size_t i = 0; i < N; i++) {
        inputs[i] = examples[i % TRAIN_KIT_N].anchor.input;
        inputs[i].query = i % 2 == 0;
    }
}

static struct encoder *
make(bool pictures)
{
    struct encoder *encoder = NULL;
    assert_int_equal(
        encoder_new(&encoder, pictures ? "vision" : "static",
            pictures ? TRAIN_KIT_PICTURES : TRAIN_KIT_TEXT, NULL, NULL),
        OK);
    return encoder;
}

static struct encoder *
with_random_adapter(const struct encoder *encoder, uint64_t seed)
{
    struct encoder *out = NULL;
    struct rng rng;
    assert_int_equal(encoder_with_adapter(&out, encoder), OK);
    float *A = encoder_adapter(out);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < (size_t)D * D; i++)
        A[i] += 0.3f * (float)rng_normal(&rng);
    return out;
}

static void
by_hand(double out[D], const float *A, const float *x)
{
    double norm = 0;
    for (size_t i = 0; i < D; i++) {
        out[i] = 0;
        for (size_t j = 0; j < D; j++)
            out[i] += (double)A[i * D + j] * (double)x[j];
        norm += out[i] * out[i];
    }
    for (size_t i = 0; i < D; i++)
        out[i] = norm > 0 ? out[i] / sqrt(norm) : 0;
}

static void
queries_are_mapped_items_are_not(void **state)
{
    (void)state;
    for (int pictures = 0; pictures < 2; pictures++) {
        static float plain[N * D], mapped[N * D], again[N * D];
        struct encoder_input given[N];
        struct encoder *encoder = make(pictures), *same, *other;
        struct pool *pool;
        fill_inputs(pictures);
        assert_int_equal(pool_new(&pool, 3, false), OK);
        assert_int_equal(
            encoder_encode(encoder, inputs, N, plain, NULL, NULL), OK);
        assert_null(encoder_adapter_const(encoder));
        assert_int_equal(encoder_with_adapter(&same, encoder), OK);
        assert_int_equal(
            encoder_encode(same, inputs, N, mapped, NULL, NULL), OK);
        for (size_t i = 0; i < N * D; i++)
            assert_true(fabsf(mapped[i] - plain[i]) <= 1e-6f);
        other = with_random_adapter(encoder, 5);
        assert_int_equal(
            encoder_encode(other, inputs, N, mapped, NULL, pool), OK);
        for (size_t i = 0; i < N; i++) {
            double want[D];
            if (!inputs[i].query) {
                assert_memory_equal(
                    mapped + i * D, plain + i * D, D * sizeof(float));
                continue;
            }
            by_hand(want, encoder_adapter_const(other), plain + i * D);
            for (size_t d = 0; d < D; d++)
                assert_true(fabs((double)mapped[i * D + d] - want[d]) <= 1e-5);
        }
        /* the vectors of the one without it in the inputs' stead */
        for (size_t i = 0; i < N; i++)
            given[i] = (struct encoder_input){
                .vector = plain + i * D, .query = inputs[i].query};
        assert_int_equal(
            encoder_encode(other, given, N, again, NULL, NULL), OK);
        assert_memory_equal(again, mapped, sizeof again);
        assert_int_equal(
            encoder_encode_plain(other, inputs, N, again, NULL, NULL), OK);
        assert_memory_equal(again, plain, sizeof again);
        pool_free(pool);
        encoder_free(encoder);
        encoder_free(same);
        encoder_free(other);
    }
}

/* ---- as weights ---------------------------------------------------------- */

struct stream {
    uint8_t *bytes;
    size_t n, cap, at;
};

static enum err
put(void *arg, const void *bytes, size_t n)
{
    struct stream *s = arg;
    if (s->n + n > s->cap) {
        s->cap = 2 * (s->n + n);
        s->bytes = realloc(s->bytes, s->cap);
        assert_non_null(s->bytes);
    }
    memcpy(s->bytes + s->n, bytes, n);
    s->n += n;
    return OK;
}

static enum err
get(void *arg, void *bytes, size_t n)
{
    struct stream *s = arg;
    if (s->at + n > s->n)
        return ERR_CORRUPT;
    memcpy(bytes, s->bytes + s->at, n);
    s->at += n;
    return OK;
}

static enum err
load(struct encoder **out, struct stream *s, const char *config,
    struct fault *fault)
{
    s->at = 0;
    return encoder_load(out, "static", config, get, s, s->n, fault);
}

static bool
same_params(const struct encoder *a, const struct encoder *b)
{
    size_t n, m;
    const float *p = encoder_params_const(a, &n);
    const float *q = encoder_params_const(b, &m);
    return n == m && memcmp(p, q, n * sizeof *p) == 0;
}

static void
it_is_saved_and_checked(void **state)
{
    struct encoder *encoder = make(false), *back = NULL;
    struct encoder *adapted = with_random_adapter(encoder, 9);
    const char *config = encoder_config_json(adapted);
    struct stream s = {.n = 0};
    struct fault fault = {.err = OK};

    (void)state;
    assert_non_null(strstr(config, ",\"adapter\":true}"));
    assert_true(encoder_is_trained(adapted));
    assert_int_equal(encoder_save(adapted, put, &s), OK);
    assert_int_equal(encoder_save_bytes(adapted), s.n);
    assert_non_null(strstr((char *)s.bytes + 8, "\"adapter.weight\":{"));
    assert_int_equal(load(&back, &s, config, &fault), OK);
    assert_true(same_params(back, adapted));
    assert_string_equal(encoder_config_json(back), config);
    encoder_free(back);
    back = NULL;
    /* any bit of the matrix, which no fingerprint has */
    for (size_t i = 0; i < (size_t)D * D; i += 97) {
        size_t at = s.n - ((size_t)D * D - i) * sizeof(float);
        s.bytes[at] ^= 1;
        assert_int_equal(load(&back, &s, config, &fault), ERR_CORRUPT);
        assert_non_null(strstr(fault.detail, "adapter.weight"));
        assert_null(back);
        s.bytes[at] ^= 1;
    }
    /* or of its sum; settings without it have another number of tensors */
    char *sum = strstr((char *)s.bytes + 8, "\"adapter\":\"");
    assert_non_null(sum);
    sum[13] = sum[13] == '0' ? '1' : '0';
    assert_int_equal(load(&back, &s, config, &fault), ERR_CORRUPT);
    sum[13] = sum[13] == '0' ? '1' : '0';
    assert_int_equal(
        load(&back, &s, encoder_config_json(encoder), &fault), ERR_CORRUPT);
    /* settings alone make none */
    assert_int_equal(
        encoder_new(&back, "static", config, NULL, &fault), ERR_INVALID);
    assert_string_equal(fault.pointer, "/adapter");
    assert_int_equal(encoder_new(&back, "static", "{\"adapter\":3,\"dims\":32}",
                         NULL, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/adapter");
    assert_int_equal(
        encoder_new(&back, "static",
            "{\"adapter\":false,\"dims\":32,\"buckets\":1024}", NULL, &fault),
        OK);
    assert_string_equal(
        encoder_config_json(back), encoder_config_json(encoder));
    encoder_free(back);
    encoder_free(adapted);
    encoder_free(encoder);
    free(s.bytes);
}

static void
its_space_is_that_of_the_items(void **state)
{
    struct encoder *encoder = make(false), *copy, *bare;
    struct encoder *adapted = with_random_adapter(encoder, 2);
    struct encoder *other = with_random_adapter(encoder, 3);
    uint8_t want[SHA256_BYTES], print[SHA256_BYTES];
    size_t n, m;

    (void)state;
    encoder_fingerprint(encoder, want);
    encoder_fingerprint(adapted, print);
    assert_memory_equal(print, want, sizeof want);
    encoder_fingerprint(other, print);
    assert_memory_equal(print, want, sizeof want);
    assert_int_equal(encoder_clone(&copy, adapted), OK);
    assert_true(same_params(copy, adapted));
    assert_false(same_params(other, adapted));
    assert_true(encoder_bytes(copy) >= encoder_bytes(encoder) + D * D * 4);
    encoder_free(copy);
    /* from an adapter on */
    assert_int_equal(encoder_with_adapter(&copy, adapted), OK);
    assert_true(same_params(copy, adapted));
    assert_string_equal(
        encoder_config_json(copy), encoder_config_json(adapted));
    /* and without it again, as untrained as it was */
    assert_int_equal(encoder_without_adapter(&bare, copy), OK);
    assert_string_equal(
        encoder_config_json(bare), encoder_config_json(encoder));
    assert_true(same_params(bare, encoder));
    assert_false(encoder_is_trained(bare));
    encoder_free(bare);
    /* one parameter of the family is another space, and trained */
    encoder_params(copy, &n)[0] += 1;
    encoder_fingerprint(copy, print);
    assert_memory_not_equal(print, want, sizeof want);
    assert_int_equal(encoder_without_adapter(&bare, copy), OK);
    assert_true(encoder_is_trained(bare));
    (void)encoder_params_const(encoder, &m);
    assert_int_equal(n, m + (size_t)D * D);
    encoder_free(bare);
    encoder_free(copy);
    encoder_free(other);
    encoder_free(adapted);
    encoder_free(encoder);
}

/* ---- gradient ------------------------------------------------------------ */

static double
objective(const struct encoder *encoder, struct encoder_tape *tape,
    const struct encoder_input *in, const float *g, struct pool *pool)
{
    static float out[N * D];
    const struct encoder_noise none = {.rng = NULL};
    double sum = 0;
    assert_int_equal(
        encoder_forward(encoder, tape, in, N, &none, out, pool), OK);
    for (size_t i = 0; i < N * D; i++)
        sum += (double)g[i] * (double)out[i];
    return sum;
}

static void
check_gradient(
    struct encoder *encoder, const struct encoder_input *in, const float *g)
{
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct pool *pool;
    size_t n;
    float *params = encoder_params(encoder, &n);
    float *A = encoder_adapter(encoder);
    size_t at = (size_t)(A - params);
    double worst = 0;

    assert_int_equal(pool_new(&pool, 2, false), OK);
    assert_int_equal(encoder_tape_new(&tape, encoder), OK);
    assert_int_equal(encoder_grads_new(&grads, encoder), OK);
    (void)objective(encoder, tape, in, g, pool);
    assert_true(encoder_tape_bytes(tape) >= N / 2 * D * 2 * sizeof(float));
    assert_int_equal(encoder_backward(encoder, tape, g, grads, pool), OK);
    assert_int_equal(grads->n_segments, 1);
    assert_int_equal(grads->segments[0].start, at);
    assert_int_equal(grads->segments[0].n, D * D);
    for (size_t i = 0; i < at; i++)
        assert_true(grads->d_params[i] == 0);
    for (size_t i = 0; i < (size_t)D * D; i += 11) {
        float was = A[i], h = 1e-2f;
        A[i] = was + h;
        float up = A[i];
        double a = objective(encoder, tape, in, g, NULL);
        A[i] = was - h;
        double b = objective(encoder, tape, in, g, NULL);
        double want = (a - b) / ((double)up - (double)A[i]);
        double got = (double)grads->d_params[at + i];
        A[i] = was;
        worst = fmax(worst, fabs(got - want) / fmax(fabs(want), 0.1));
    }
    assert_true(worst <= 5e-3);
    /* twice is double */
    float once = grads->d_params[at + 5];
    (void)objective(encoder, tape, in, g, NULL);
    assert_int_equal(encoder_backward(encoder, tape, g, grads, NULL), OK);
    assert_true(grads->d_params[at + 5] == 2 * once);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    pool_free(pool);
}

static void
its_gradient_is_that_of_its_formula(void **state)
{
    static float plain[N * D], g[N * D];
    struct encoder_input given[N];
    struct encoder *encoder = make(false), *alone;
    struct encoder *adapted = with_random_adapter(encoder, 4);
    struct rng rng;

    (void)state;
    fill_inputs(false);
    rng_seed(&rng, 8);
    for (size_t i = 0; i < N * D; i++)
        g[i] = (float)rng_normal(&rng);
    assert_int_equal(encoder_encode(encoder, inputs, N, plain, NULL, NULL), OK);
    for (size_t i = 0; i < N; i++)
        given[i] = (struct encoder_input){
            .vector = plain + i * D, .query = inputs[i].query};
    assert_int_equal(encoder_adapter_alone(&alone, adapted), OK);
    check_gradient(adapted, inputs, g);
    check_gradient(alone, given, g);
    /* a batch of items has none */
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    for (size_t i = 0; i < N; i++)
        given[i].query = false;
    assert_int_equal(encoder_tape_new(&tape, alone), OK);
    assert_int_equal(encoder_grads_new(&grads, alone), OK);
    (void)objective(alone, tape, given, g, NULL);
    assert_int_equal(encoder_backward(alone, tape, g, grads, NULL), OK);
    for (size_t i = 0; i < (size_t)D * D; i++)
        assert_true(grads->d_params[i] == 0);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    encoder_free(alone);
    encoder_free(adapted);
    encoder_free(encoder);
}

static void
memory_runs_out(void **state)
{
    struct encoder *encoder = make(false);
    (void)state;
    fill_inputs(false);
    for (uint64_t n = 1;; n++) {
        static float out[N * D];
        struct encoder *with = NULL, *alone = NULL, *without = NULL;
        alloc_fail_at(n);
        enum err err = encoder_with_adapter(&with, encoder);
        if (err == OK)
            err = encoder_adapter_alone(&alone, with);
        if (err == OK)
            err = encoder_encode(with, inputs, N, out, NULL, NULL);
        if (err == OK)
            err = encoder_without_adapter(&without, with);
        uint64_t seen = alloc_fail_at(0);
        encoder_free(with);
        encoder_free(alone);
        encoder_free(without);
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
        cmocka_unit_test(queries_are_mapped_items_are_not),
        cmocka_unit_test(it_is_saved_and_checked),
        cmocka_unit_test(its_space_is_that_of_the_items),
        cmocka_unit_test(its_gradient_is_that_of_its_formula),
        cmocka_unit_test(memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
