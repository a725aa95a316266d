/*
 * Goal: encoder.h's promises for the vision family: settings are refused by
 * name, vectors have length one and hardly depend on company, not at all on
 * threads, weights come back as they were saved, what is derived from the
 * weights follows them, and hostile weights do no harm.
 *
 * Method: examples of each refusal; a picture alone against the same picture
 * in batches of many sizes and pools; a clone written to between two calls;
 * every allocation failed once. The network is a small one.
 */
#include <math.h>
#include <pthread.h>
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
#include "base/buf.h"
#include "base/check.h"
#include "base/pool.h"
#include "base/rng.h"
#include "image/image.h"
#include "kern/kern.h"
#include "model/vision_encoder.h"

#define SMALL                                                                  \
    "{\"input\":28,\"channels\":1,\"width\":16,\"blocks\":1,\"dims\":16}"
#define DIMS 16
#define N 19 /* two runs of eight, three of one */

static struct image images[N];
static struct encoder_input inputs[N];

static int
make_images(void **state)
{
    struct rng rng;
    (void)state;
    rng_seed(&rng, 2);
    for (size_t i = 0; i < N; i++) {
        if (image_new(&images[i], 28, 28, 1) != OK)
            return -1;
        size_t edge = rng_below(&rng, 28);
        for (size_t j = 0; j < 28 * 28; j++)
            images[i].pixels[j] =
                (uint8_t)(rng_below(&rng, 128) + (j % 28 < edge ? 100 : 0));
        inputs[i].image = &images[i];
    }
    return 0;
}

static int
drop_images(void **state)
{
    (void)state;
    for (size_t i = 0; i < N; i++)
        image_release(&images[i]);
    return 0;
}

static struct encoder *
make(const char *config)
{
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    enum err err = encoder_new(&encoder, "vision", config, NULL, &fault);
    if (err != OK)
        print_error("%s: %s %s\n", config, fault.pointer, fault.detail);
    assert_int_equal(err, OK);
    return encoder;
}

static struct encoder *
make_trained(void)
{
    struct encoder *encoder = make(SMALL);
    struct rng rng;
    size_t n;
    float *params = encoder_params(encoder, &n);
    rng_seed(&rng, 6);
    for (size_t i = 0; i < n; i++)
        params[i] += 0.3f * rng_float(&rng);
    encoder_seal(encoder);
    return encoder;
}

static void
encode(const struct encoder *e, size_t n, float *out, struct pool *pool)
{
    assert_int_equal(encoder_encode(e, inputs, n, out, NULL, pool), OK);
}

/* ------------------------------------------------------------ settings */

static void
refusals(void **state)
{
    static const struct {
        const char *config, *pointer;
    } bad[] = {{"{\"input\":27}", "/input"}, {"{\"input\":225}", "/input"},
        {"{\"input\":-28}", "/input"}, {"{\"input\":32.0}", "/input"},
        {"{\"input\":\"32\"}", "/input"}, {"{\"channels\":0}", "/channels"},
        {"{\"channels\":2}", "/channels"}, {"{\"channels\":4}", "/channels"},
        {"{\"width\":8}", "/width"}, {"{\"width\":24}", "/width"},
        {"{\"width\":272}", "/width"}, {"{\"blocks\":0}", "/blocks"},
        {"{\"blocks\":5}", "/blocks"}, {"{\"stages\":0}", "/stages"},
        {"{\"stages\":5}", "/stages"}, {"{\"stem_stride\":0}", "/stem_stride"},
        {"{\"stem_stride\":3}", "/stem_stride"},
        {"{\"stem_stride\":5}", "/stem_stride"}, {"{\"grid\":0}", "/grid"},
        {"{\"grid\":33}", "/grid"}, {"{\"grid\":\"mean\"}", "/grid"},
        {"{\"input\":32,\"grid\":9}", "/grid"}, {"{\"dims\":7}", "/dims"},
        {"{\"dims\":1025}", "/dims"}, {"{\"linear\":1}", "/linear"},
        {"{\"linear\":false,\"dims\":64,\"grid\":2}", "/dims"},
        {"{\"linear\":false,\"width\":128,\"stages\":3,\"grid\":4}", "/linear"},
        {"{\"seed\":-1}", "/seed"}, {"{\"pool\":\"mean\"}", "/pool"},
        {"{\"width\":256,\"stages\":4}", "/width"},
        {"{\"input\":224,\"stem_stride\":1,\"width\":64,\"grid\":1}",
            "/stem_stride"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct encoder *encoder = NULL;
        struct fault fault = {0};
        enum err err =
            encoder_new(&encoder, "vision", bad[i].config, NULL, &fault);
        if (err != ERR_INVALID || strcmp(fault.pointer, bad[i].pointer) != 0)
            print_error("%s: %s at \"%s\"\n", bad[i].config, err_text(err),
                fault.pointer);
        assert_int_equal(err, ERR_INVALID);
        assert_string_equal(fault.pointer, bad[i].pointer);
        assert_true(fault.detail[0] != '\0');
        assert_null(encoder);
    }
}

static void
settings(void **state)
{
    static const struct {
        const char *config, *full;
        size_t dims;
    } good[] = {
        {"{}",
            "{\"blocks\":2,\"channels\":3,\"dims\":512,\"grid\":8,\"input\":32,"
            "\"linear\":true,\"seed\":1,\"stages\":2,\"stem_stride\":2,"
            "\"width\":16}",
            512},
        {"{\"input\":224,\"linear\":false,\"width\":16,\"grid\":1}",
            "{\"blocks\":2,\"channels\":3,\"dims\":128,\"grid\":1,"
            "\"input\":224,\"linear\":false,\"seed\":1,\"stages\":4,"
            "\"stem_stride\":4,\"width\":16}",
            128},
        {"{\"input\":28,\"seed\":9223372036854775807,\"dims\":128,"
         "\"width\":32,\"channels\":1}",
            "{\"blocks\":2,\"channels\":1,\"dims\":128,\"grid\":7,"
            "\"input\":28,\"linear\":true,\"seed\":9223372036854775807,"
            "\"stages\":2,\"stem_stride\":2,\"width\":32}",
            128}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct encoder *a, *b;
        struct buf config;
        uint8_t print_a[SHA256_BYTES], print_b[SHA256_BYTES];
        buf_init(&config, 4096);
        assert_int_equal(
            encoder_new(&a, "vision", good[i].config, &config, NULL), OK);
        buf_add_char(&config, '\0');
        assert_string_equal(config.data, good[i].full);
        assert_string_equal(encoder_config_json(a), good[i].full);
        assert_int_equal(encoder_dims(a), good[i].dims);
        b = make(config.data);
        assert_string_equal(encoder_config_json(b), good[i].full);
        encoder_fingerprint(a, print_a);
        encoder_fingerprint(b, print_b);
        assert_memory_equal(print_a, print_b, sizeof print_a);
        encoder_free(a);
        encoder_free(b);
        buf_release(&config);
    }
    struct encoder *e = make(SMALL);
    assert_string_equal(encoder_family(e), "vision");
    assert_int_equal(encoder_reads(e), ENCODER_READS_IMAGE);
    assert_int_equal(encoder_image_side(e), 28);
    assert_int_equal(encoder_image_channels(e), 1);
    assert_int_equal(
        encoder_tokenize(e, "word", 4, NULL, NULL), ERR_UNSUPPORTED);
    assert_false(encoder_is_trained(e));
    encoder_free(e);
}

static void
seeds_differ(void **state)
{
    struct encoder *a = make("{\"seed\":1}"), *b = make("{\"seed\":2}");
    size_t n;
    (void)state;
    const float *pa = encoder_params_const(a, &n);
    const float *pb = encoder_params_const(b, &n);
    assert_true(memcmp(pa, pb, n * sizeof *pa) != 0);
    encoder_free(a);
    encoder_free(b);
}

/* ------------------------------------------------------------- vectors */

static void
vectors(void **state)
{
    struct encoder *e = make_trained();
    struct encoder_info info[N];
    float all[N * DIMS], part[N * DIMS];
    struct pool *pool;

    (void)state;
    inputs[5].image = NULL;
    assert_int_equal(encoder_encode(e, inputs, N, all, info, NULL), OK);
    for (size_t i = 0; i < N; i++) {
        double square = 0, same = 0;
        for (size_t d = 0; d < DIMS; d++) {
            square += (double)all[i * DIMS + d] * (double)all[i * DIMS + d];
            same += (double)all[i * DIMS + d] * (double)all[d];
        }
        assert_true(fabs(square - (i == 5 ? 0 : 1)) <= 1e-5);
        assert_true(i == 0 || same < 0.99999);
        assert_int_equal(info[i].empty, i == 5);
        assert_int_equal(info[i].n_tokens, i != 5);
    }
    /* any company, a little rounding apart; any pool, none */
    for (size_t n = 1; n <= N; n++) {
        encode(e, n, part, NULL);
        for (size_t i = 0; i < n * DIMS; i++)
            assert_true(fabsf(part[i] - all[i]) <= 1e-5f);
    }
    for (size_t t = 1; t <= 3; t++) {
        assert_int_equal(pool_new(&pool, t, false), OK);
        encode(e, N, part, pool);
        assert_memory_equal(part, all, sizeof all);
        pool_free(pool);
    }
    /* training sees the same */
    struct encoder_tape *tape;
    assert_int_equal(encoder_tape_new(&tape, e), OK);
    assert_int_equal(encoder_forward(e, tape, inputs, N, NULL, part, NULL), OK);
    for (size_t i = 0; i < N * DIMS; i++)
        assert_true(fabsf(part[i] - all[i]) <= 1e-6f);
    encoder_tape_free(tape);
    inputs[5].image = &images[5];
    encoder_free(e);
}

/* The weights as the kernels want them count once they are there. */
static void
bytes(void **state)
{
    struct encoder *e = make_trained();
    struct encoder *copy;
    float out[DIMS];
    size_t n, before = encoder_bytes(e);

    (void)state;
    (void)encoder_params_const(e, &n);
    assert_true(before >= n * sizeof(float));
    encode(e, 1, out, NULL);
    assert_true(encoder_bytes(e) >= before + 2 * n * sizeof(float));
    assert_true(encoder_bytes(e) <= before + 2 * n * sizeof(float) + 4096);
    assert_int_equal(encoder_clone(&copy, e), OK);
    assert_int_equal(encoder_bytes(copy), before);
    encoder_free(copy);
    (void)encoder_params(e, &n);
    assert_int_equal(encoder_bytes(e), before);
    encoder_free(e);
}

/* A picture of another size and kind is fitted, and then it is the same. */
static void
other_pictures(void **state)
{
    struct encoder *e = make_trained();
    struct image large, fitted;
    struct encoder_input in[2] = {{.image = &large}, {.image = &fitted}};
    struct rng rng;
    float out[2 * DIMS];
    (void)state;

    rng_seed(&rng, 1);
    assert_int_equal(image_new(&large, 90, 60, 3), OK);
    assert_int_equal(image_new(&fitted, 28, 28, 1), OK);
    for (size_t i = 0; i < 90 * 60 * 3; i++)
        large.pixels[i] = (uint8_t)(rng_below(&rng, 50) + i / 100 % 200);
    image_fit(fitted.pixels, 28, 1, &large);
    assert_int_equal(encoder_encode(e, in, 2, out, NULL, NULL), OK);
    assert_memory_equal(out, out + DIMS, DIMS * sizeof *out);
    image_release(&large);
    image_release(&fitted);
    encoder_free(e);
}

/* What encode remembers of the weights follows them. */
static void
weights_change(void **state)
{
    struct encoder *e = make_trained(), *clone;
    float before[N * DIMS], out[N * DIMS], changed[N * DIMS];
    size_t n;
    (void)state;

    encode(e, N, before, NULL);
    assert_int_equal(encoder_clone(&clone, e), OK);
    encode(clone, N, out, NULL);
    assert_memory_equal(out, before, sizeof out);
    float *params = encoder_params(clone, &n);
    encode(clone, N, out, NULL);
    assert_memory_equal(out, before, sizeof out);
    params[10] += 1; /* without another call of encoder_params */
    encode(clone, N, changed, NULL);
    assert_true(memcmp(changed, before, sizeof out) != 0);
    encoder_seal(clone);
    encode(clone, N, out, NULL);
    assert_memory_equal(out, changed, sizeof out);
    encode(clone, N, out, NULL);
    assert_memory_equal(out, changed, sizeof out);
    params = encoder_params(clone, &n);
    params[10] -= 1;
    encoder_seal(clone);
    encode(clone, N, out, NULL);
    for (size_t i = 0; i < N * DIMS; i++)
        assert_true(fabsf(out[i] - before[i]) <= 1e-4f);
    encode(e, N, out, NULL);
    assert_memory_equal(out, before, sizeof out);
    encoder_free(clone);
    encoder_free(e);
}

static void *
encode_often(void *arg)
{
    static _Thread_local float out[N * DIMS];
    for (int i = 0; i < 20; i++) {
        if (encoder_encode(arg, inputs, 9, out, NULL, NULL) != OK)
            return arg;
    }
    float *result = mem_alloc(9 * DIMS, sizeof *result);
    if (result != NULL)
        memcpy(result, out, 9 * DIMS * sizeof *out);
    return result;
}

/* Several threads that ask first at the same time. */
static void
threads_share(void **state)
{
    struct encoder *e = make_trained();
    float want[9 * DIMS];
    pthread_t threads[4];
    (void)state;

    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, e), 0);
    for (size_t i = 0; i < 4; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_non_null(result);
        assert_ptr_not_equal(result, e);
        encode(e, 9, want, NULL);
        assert_memory_equal(result, want, sizeof want);
        mem_free(result);
    }
    encoder_free(e);
}

/* --------------------------------------------------------- saved form */

struct stream {
    struct buf bytes;
    size_t at;
};

static enum err
write_stream(void *arg, const void *bytes, size_t n)
{
    struct stream *s = arg;
    buf_add(&s->bytes, bytes, n);
    return buf_status(&s->bytes);
}

static enum err
read_stream(void *arg, void *bytes, size_t n)
{
    struct stream *s = arg;
    if (n > s->bytes.len - s->at)
        return ERR_CORRUPT;
    memcpy(bytes, s->bytes.data + s->at, n);
    s->at += n;
    return OK;
}

static void
saved_and_loaded(void **state)
{
    struct encoder *e = make_trained(), *back = NULL;
    uint8_t print_a[SHA256_BYTES], print_b[SHA256_BYTES];
    float want[N * DIMS], out[N * DIMS];
    struct stream s = {.at = 0};
    static const char *const names[] = {"\"stem.weight\"", "\"stem.gain\"",
        "\"stage0.block0.conv1.weight\"", "\"stage1.block0.conv2.bias\"",
        "\"stage1.block0.shortcut.weight\"", "\"linear.weight\"",
        "\"linear.bias\"", "\"input.mean\"", "\"input.std\""};
    (void)state;

    buf_init(&s.bytes, 1 << 22);
    assert_int_equal(encoder_save(e, write_stream, &s), OK);
    assert_int_equal(s.bytes.len, encoder_save_bytes(e));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_non_null(strstr(s.bytes.data + 8, names[i]));
    assert_int_equal(encoder_load(&back, "vision", encoder_config_json(e),
                         read_stream, &s, s.bytes.len, NULL),
        OK);
    encoder_fingerprint(e, print_a);
    encoder_fingerprint(back, print_b);
    assert_memory_equal(print_a, print_b, sizeof print_a);
    encode(e, N, want, NULL);
    encode(back, N, out, NULL);
    assert_memory_equal(want, out, sizeof out);
    encoder_free(back);
    /* another network's settings do not fit */
    back = NULL;
    s.at = 0;
    struct fault fault = {0};
    assert_int_equal(
        encoder_load(&back, "vision",
            "{\"input\":28,\"channels\":3,\"width\":16,\"blocks\":1,"
            "\"dims\":16}",
            read_stream, &s, s.bytes.len, &fault),
        ERR_CORRUPT);
    assert_non_null(strstr(fault.detail, "stem.weight"));
    assert_null(back);
    buf_release(&s.bytes);
    encoder_free(e);
}

/* The largest network: its names and tensors fit. */
static void
largest_is_saved(void **state)
{
    struct encoder *e = make("{\"input\":28,\"width\":16,\"stages\":4,"
                             "\"blocks\":4,\"stem_stride\":4}");
    struct stream s = {.at = 0};
    size_t n;
    (void)state;
    (void)encoder_params(e, &n);
    buf_init(&s.bytes, 1 << 26);
    assert_int_equal(encoder_save(e, write_stream, &s), OK);
    assert_int_equal(s.bytes.len, encoder_save_bytes(e));
    assert_true(s.bytes.len > n * sizeof(float));
    buf_release(&s.bytes);
    encoder_free(e);
}

/* Finite numbers that no training gives: no NaN comes out. */
static void
hostile_weights(void **state)
{
    static const float values[] = {0, 3e38f, -3e38f, 1e-38f, 1e20f};
    float out[N * DIMS];
    struct encoder_info info[N];
    (void)state;

    for (size_t v = 0; v < ARRAY_LEN(values); v++)
        for (size_t every = 1; every <= 3; every += 2) {
            struct encoder *e = make_trained();
            size_t n;
            float *params = encoder_params(e, &n);
            for (size_t i = 0; i < n; i += every)
                params[i] = values[v];
            assert_int_equal(encoder_encode(e, inputs, N, out, info, NULL), OK);
            for (size_t i = 0; i < N; i++) {
                double square = 0;
                for (size_t d = 0; d < DIMS; d++)
                    square +=
                        (double)out[i * DIMS + d] * (double)out[i * DIMS + d];
                assert_true(fabs(square - 1) <= 1e-4 || !(fabs(square) > 0));
                assert_int_equal(info[i].empty, !(fabs(square) > 0));
            }
            encoder_free(e);
        }
}

/* --------------------------------------------------------------- refit */

struct walk {
    size_t at, n;
};

static bool
next_image(void *arg, struct encoder_input *in)
{
    struct walk *w = arg;
    if (w->at == w->n)
        return false;
    *in = inputs[w->at++];
    return true;
}

static void
refit(void **state)
{
    struct encoder *e = make(SMALL);
    const struct vision_encoder *v = vision_of(e);
    struct walk walk = {0, N}, none = {0, 0};
    float before[DIMS], after[DIMS];
    double sum = 0, square = 0, n = N * 28 * 28;
    (void)state;

    encode(e, 1, before, NULL);
    assert_int_equal(encoder_refit(e, next_image, &none), OK);
    assert_true(fabsf(e->params[v->mean_at] - 0.5f) <= 0);
    assert_int_equal(encoder_refit(e, next_image, &walk), OK);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < 28 * 28; j++) {
            sum += images[i].pixels[j] / 255.0;
            square += images[i].pixels[j] / 255.0 * images[i].pixels[j] / 255;
        }
    assert_true(fabs((double)e->params[v->mean_at] - sum / n) <= 1e-5);
    assert_true(fabs((double)e->params[v->std_at] -
                     sqrt(square / n - sum / n * sum / n)) <= 1e-5);
    assert_true(encoder_is_trained(e));
    encode(e, 1, after, NULL);
    assert_true(memcmp(before, after, sizeof after) != 0);
    encoder_free(e);
}

/* -------------------------------------------------------------- memory */

static enum err
train_once(struct encoder *e, struct encoder_tape *tape,
    struct encoder_grads *grads, size_t n)
{
    float out[N * DIMS], d_out[N * DIMS] = {1};
    enum err err = encoder_forward(e, tape, inputs, n, NULL, out, NULL);
    if (err == OK)
        err = encoder_backward(e, tape, d_out, grads, NULL);
    return err;
}

/* A tape takes memory by the largest batch that it saw, once. */
static void
memory_does_not_grow(void **state)
{
    struct encoder *e = make_trained();
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    (void)state;

    assert_int_equal(encoder_tape_new(&tape, e), OK);
    assert_int_equal(encoder_grads_new(&grads, e), OK);
    assert_int_equal(train_once(e, tape, grads, N), OK);
    assert_int_equal(
        encoder_tape_bytes(tape), N * encoder_tape_input_bytes(e, NULL));
    (void)alloc_fail_at(1000000);
    for (size_t n = 0; n <= N; n++)
        assert_int_equal(train_once(e, tape, grads, n), OK);
    assert_int_equal(alloc_fail_at(0), 0);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    encoder_free(e);
}

static enum err
everything(void)
{
    struct encoder *e = NULL, *clone = NULL;
    struct encoder_tape *tape = NULL;
    struct encoder_grads *grads = NULL;
    struct walk walk = {0, N};
    float out[N * DIMS];
    enum err err = encoder_new(&e, "vision", SMALL, NULL, NULL);
    if (err == OK)
        err = encoder_encode(e, inputs, N, out, NULL, NULL);
    if (err == OK)
        err = encoder_clone(&clone, e);
    if (err == OK)
        err = encoder_refit(clone, next_image, &walk);
    if (err == OK)
        err = encoder_tape_new(&tape, clone);
    if (err == OK)
        err = encoder_grads_new(&grads, clone);
    if (err == OK)
        err = train_once(clone, tape, grads, N);
    if (err == OK)
        err = encoder_encode(clone, inputs, 3, out, NULL, NULL);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    encoder_free(clone);
    encoder_free(e);
    return err;
}

static void
memory_runs_out(void **state)
{
    size_t failed = 0;
    (void)state;

    assert_int_equal(everything(), OK);
    for (uint64_t n = 1;; n++) {
        (void)alloc_fail_at(n);
        enum err err = everything();
        if (alloc_fail_at(0) < n) {
            assert_int_equal(err, OK);
            break;
        }
        assert_int_equal(err, ERR_NOMEM);
        failed++;
    }
    assert_true(failed > 30);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),
        cmocka_unit_test(settings),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(vectors),
        cmocka_unit_test(bytes),
        cmocka_unit_test(other_pictures),
        cmocka_unit_test(weights_change),
        cmocka_unit_test(threads_share),
        cmocka_unit_test(saved_and_loaded),
        cmocka_unit_test(largest_is_saved),
        cmocka_unit_test(hostile_weights),
        cmocka_unit_test(refit),
        cmocka_unit_test(memory_does_not_grow),
        cmocka_unit_test(memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, make_images, drop_images);
}
