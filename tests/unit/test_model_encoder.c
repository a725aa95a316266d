/*
 * Goal: encoder.h's promises for the static family: settings are refused by
 * name, vectors have length one and do not depend on company or threads,
 * weights come back as they were saved, and damaged weights are refused.
 *
 * Method: examples of each refusal; a text alone against the same text in
 * batches of many sizes and pools; the saved bytes edited one way at a time;
 * every allocation failed once.
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
#include "base/buf.h"
#include "base/check.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "model/encoder.h"
#include "model/static_encoder.h"
#include "text/hashed.h"
#include "text/prior.h"
#include "text/words.h"

#define DIMS 32
#define SMALL "{\"dims\":32,\"buckets\":1024}"

static struct encoder *
make(const char *config)
{
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    enum err err = encoder_new(&encoder, "static", config, NULL, &fault);
    if (err != OK)
        print_error("%s: %s %s\n", config, fault.pointer, fault.detail);
    assert_int_equal(err, OK);
    return encoder;
}

/* A small encoder with weights that look trained. */
static struct encoder *
make_trained(uint64_t seed)
{
    struct encoder *encoder = make(SMALL);
    struct rng rng;
    size_t n;
    float *params = encoder_params(encoder, &n);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++)
        params[i] += 0.2f * (float)rng_normal(&rng);
    return encoder;
}

/* ------------------------------------------------------------ settings */

static void
test_config_refusals(void **state)
{
    static const struct {
        const char *config, *pointer;
    } bad[] = {{"{\"dims\":31}", "/dims"}, {"{\"dims\":0}", "/dims"},
        {"{\"dims\":48}", "/dims"}, {"{\"dims\":8192}", "/dims"},
        {"{\"dims\":64.0}", "/dims"}, {"{\"dims\":\"64\"}", "/dims"},
        {"{\"dims\":null}", "/dims"}, {"{\"buckets\":1000}", "/buckets"},
        {"{\"buckets\":512}", "/buckets"}, {"{\"buckets\":3000}", "/buckets"},
        {"{\"buckets\":2097152}", "/buckets"},
        {"{\"ngram_min\":1}", "/ngram_min"},
        {"{\"ngram_min\":7}", "/ngram_min"},
        {"{\"ngram_max\":7}", "/ngram_max"},
        {"{\"ngram_max\":-1}", "/ngram_max"},
        {"{\"max_words\":0}", "/max_words"},
        {"{\"max_words\":65537}", "/max_words"}, {"{\"seed\":-1}", "/seed"},
        {"{\"seed\":true}", "/seed"}, {"{\"surplus\":1}", "/surplus"},
        {"[]", ""}, {"7", ""}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct encoder *encoder = NULL;
        struct fault fault = {0};
        enum err err =
            encoder_new(&encoder, "static", bad[i].config, NULL, &fault);
        if (err != ERR_INVALID || strcmp(fault.pointer, bad[i].pointer) != 0)
            print_error("%s: %s at \"%s\"\n", bad[i].config, err_text(err),
                fault.pointer);
        assert_int_equal(err, ERR_INVALID);
        assert_string_equal(fault.pointer, bad[i].pointer);
        assert_int_equal(fault.err, ERR_INVALID);
        assert_true(fault.detail[0] != '\0');
        assert_null(encoder);
    }
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    assert_int_equal(
        encoder_new(&encoder, "oracle", "{}", NULL, &fault), ERR_UNSUPPORTED);
    assert_non_null(strstr(fault.detail, "oracle"));
    assert_int_not_equal(
        encoder_new(&encoder, "static", "{\"dims\":", NULL, &fault), OK);
    assert_int_not_equal(encoder_new(&encoder, "static", "", NULL, &fault), OK);
    assert_null(encoder);
}

/* What is left out is filled in, and the whole makes the same encoder. */
static void
test_canonical_config(void **state)
{
    struct buf config;
    struct encoder *a, *b;
    uint8_t print_a[SHA256_BYTES], print_b[SHA256_BYTES];

    (void)state;
    buf_init(&config, 4096);
    assert_int_equal(
        encoder_new(&a, "static",
            " {\"seed\":9, \"dims\":64,\"buckets\":2048 } ", &config, NULL),
        OK);
    assert_string_equal(config.data,
        "{\"buckets\":2048,\"dims\":64,\"max_words\":8192,\"ngram_max\":5,"
        "\"ngram_min\":3,\"seed\":9}");
    assert_string_equal(encoder_config_json(a), config.data);
    assert_string_equal(encoder_family(a), "static");
    assert_int_equal(encoder_dims(a), 64);
    assert_int_equal(encoder_max_tokens(a), 8192);
    assert_false(encoder_is_trained(a));
    size_t n_params;
    (void)encoder_params_const(a, &n_params);
    assert_false(encoder_is_trained(a));
    assert_int_equal(n_params, 2048 * 64 + 2 * 4 * 2048 + 16);
    assert_true(encoder_bytes(a) >= n_params * sizeof(float));
    b = make(config.data);
    encoder_fingerprint(a, print_a);
    encoder_fingerprint(b, print_b);
    assert_memory_equal(print_a, print_b, SHA256_BYTES);
    encoder_free(a);
    encoder_free(b);
    encoder_free(NULL);
    buf_release(&config);
}

static void
test_untrained_params(void **state)
{
    struct encoder *encoder = make(SMALL);
    const struct static_encoder *e = self_of(encoder);
    size_t n_params, n_up = 0;
    const float *params = encoder_params_const(encoder, &n_params);

    (void)state;
    for (size_t i = 0; i < e->theta_at; i++) {
        assert_true(params[i] == 1 || params[i] == -1);
        n_up += params[i] > 0;
    }
    /* 32,768 coins: 6 standard deviations of 90 */
    assert_true(n_up > 16384 - 543 && n_up < 16384 + 543);
    for (size_t i = e->theta_at; i < e->rho_at; i++)
        assert_true(params[i] == 0);
    for (size_t b = 1; b < STATIC_POSITIONS; b++)
        assert_true(params[e->rho_at + b] <= params[e->rho_at + b - 1]);
    for (size_t w = 0; w < e->n_weights; w++) {
        float idf = 1;
        for (size_t s = w; s < prior_slots(); s += e->n_weights)
            idf = fminf(idf, prior_idf(s));
        float want = STATIC_IDF_POWER * logf(idf);
        assert_true(fabsf(params[e->phi_at + w] - want) <= 1e-6f);
    }
    encoder_free(encoder);
}

static void
test_position_buckets(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < 400; p++) {
        size_t b = position_bucket(p), next = position_bucket(p + 1);
        assert_true(b < STATIC_POSITIONS && (next == b || next == b + 1));
    }
    assert_int_equal(position_bucket(0), 0);
    assert_int_equal(position_bucket(4), 4);
    assert_int_equal(position_bucket(5), 4);
    assert_int_equal(position_bucket(6), 5);
    assert_int_equal(position_bucket(191), 14);
    assert_int_equal(position_bucket(192), 15);
    assert_int_equal(position_bucket(UINT32_MAX), 15);
}

/* Dropout leaves n-grams out, never the word, and keeps the sum's mean. */
static void
test_dropout_gains(void **state)
{
    struct encoder *encoder = make_trained(2);
    const struct static_encoder *e = self_of(encoder);
    uint64_t features[HASHED_FEATURES_MAX];
    float full[HASHED_FEATURES_MAX], gains[HASHED_FEATURES_MAX];
    struct rng rng;
    size_t n_zero = 0, rounds = 500;

    (void)state;
    rng_seed(&rng, 3);
    size_t n = hashed_features(features, "dropout", 7, 3, 5);
    static_word_gains(e, features, n, full, NULL, 0.5f);
    for (size_t r = 0; r < rounds; r++) {
        static_word_gains(e, features, n, gains, &rng, 0.25f);
        assert_true(gains[0] == full[0]);
        for (size_t i = 1; i < n; i++) {
            n_zero += gains[i] == 0;
            if (gains[i] > 0)
                assert_true(fabsf(gains[i] * 0.75f / full[i] - 1) <= 1e-6f);
        }
    }
    double share = (double)n_zero / (double)(rounds * (n - 1));
    assert_true(fabs(share - 0.25) < 0.03);
    encoder_free(encoder);
}

/* ------------------------------------------------------------ encoding */

#define N_TEXTS 300

static char texts[N_TEXTS][200];
static struct encoder_input inputs[N_TEXTS];

static void
fill_texts(void)
{
    static const char *const odd[] = {"", "...", "caf\xC3\xA9 na\xC3\xAFve",
        "\xE5\x8C\x97\xE4\xBA\xAC\xE5\xA4\xA7\xE5\xAD\xA6", "x", "\xFF\xFE"};
    struct rng rng;

    rng_seed(&rng, 6);
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t len = 0;
        if (i % 10 == 3) {
            strcpy(texts[i], odd[i / 10 % ARRAY_LEN(odd)]);
            len = strlen(texts[i]);
        }
        for (size_t n = i % 10 == 3 ? 0 : 1 + rng_below(&rng, 20); n > 0; n--)
            len += (size_t)sprintf(texts[i] + len, "word%llu ",
                (unsigned long long)rng_below(&rng, 90));
        inputs[i] = (struct encoder_input){.text = texts[i], .len = len};
    }
}

static void
test_unit_vectors(void **state)
{
    struct encoder *encoder = make_trained(1);
    static float out[N_TEXTS * DIMS];
    struct encoder_info info[N_TEXTS];
    size_t n_empty = 0;

    (void)state;
    assert_int_equal(
        encoder_encode(encoder, inputs, N_TEXTS, out, info, NULL), OK);
    for (size_t i = 0; i < N_TEXTS; i++) {
        double square = 0;
        for (size_t d = 0; d < DIMS; d++)
            square += (double)out[i * DIMS + d] * (double)out[i * DIMS + d];
        if (info[i].empty) {
            assert_true(square == 0 && info[i].n_tokens == 0);
            n_empty++;
        } else {
            assert_true(fabs(sqrt(square) - 1) <= 1e-6);
            assert_true(info[i].n_tokens > 0);
        }
        assert_int_equal(info[i].n_tokens, info[i].n_tokens_full);
    }
    assert_true(n_empty >= 5);
    encoder_free(encoder);
}

static void
test_alone_or_in_company(void **state)
{
    static const size_t sizes[] = {1, 2, 7, 127, 128, 129, 256, 300};
    struct encoder *encoder = make_trained(1);
    static float alone[N_TEXTS * DIMS], out[N_TEXTS * DIMS];
    struct encoder_info want[N_TEXTS], info[N_TEXTS];

    (void)state;
    for (size_t i = 0; i < N_TEXTS; i++)
        assert_int_equal(encoder_encode(encoder, &inputs[i], 1,
                             alone + i * DIMS, &want[i], NULL),
            OK);
    for (size_t threads = 0; threads <= 3; threads++) {
        struct pool *pool = NULL;
        if (threads > 0)
            assert_int_equal(pool_new(&pool, threads, false), OK);
        for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
            memset(out, 0xFF, sizeof out);
            assert_int_equal(encoder_encode(encoder, inputs, sizes[s], out,
                                 threads == 2 ? NULL : info, pool),
                OK);
            for (size_t i = 0; i < sizes[s] * DIMS; i++)
                assert_true(fabsf(out[i] - alone[i]) <= 1e-6f);
            for (size_t i = 0; threads != 2 && i < sizes[s]; i++) {
                assert_int_equal(info[i].n_tokens, want[i].n_tokens);
                assert_int_equal(info[i].empty, want[i].empty);
            }
        }
        pool_free(pool);
    }
    assert_int_equal(encoder_encode(encoder, inputs, 0, out, NULL, NULL), OK);
    encoder_free(encoder);
}

static void
test_truncation(void **state)
{
    struct encoder *encoder =
        make("{\"dims\":32,\"buckets\":1024,\"max_words\":4}");
    struct encoder_input pair[2] = {
        {.text = "a b c d e f", .len = 11}, {.text = "a b c d", .len = 7}};
    float out[2 * DIMS];
    struct encoder_info info[2];

    (void)state;
    assert_int_equal(encoder_encode(encoder, pair, 2, out, info, NULL), OK);
    assert_memory_equal(out, out + DIMS, DIMS * sizeof *out);
    assert_int_equal(info[0].n_tokens, 4);
    assert_int_equal(info[0].n_tokens_full, 6);
    assert_int_equal(info[1].n_tokens_full, 4);
    encoder_free(encoder);
}

static void
count_token(void *arg, const char *token, size_t len, uint32_t id)
{
    size_t *n = arg;
    assert_true(len > 0 && token != NULL && id <= INT32_MAX);
    ++*n;
}

static void
test_tokens(void **state)
{
    struct encoder *encoder = make(SMALL);
    size_t n = 0;

    (void)state;
    assert_int_equal(
        encoder_tokenize(encoder, "One two, caf\xC3\xA9", 14, count_token, &n),
        OK);
    assert_int_equal(n, 3);
    encoder_free(encoder);
}

/* --------------------------------------------------------- saved weights */

static enum err
write_buf(void *arg, const void *bytes, size_t n)
{
    buf_add(arg, bytes, n);
    return OK;
}

struct reader {
    const char *bytes;
    size_t len, at;
};

static enum err
read_bytes(void *arg, void *bytes, size_t n)
{
    struct reader *r = arg;
    if (n > r->len - r->at)
        return ERR_IO;
    memcpy(bytes, r->bytes + r->at, n);
    r->at += n;
    return OK;
}

static enum err
load(struct encoder **out, const char *bytes, size_t len, struct fault *fault)
{
    struct reader r = {.bytes = bytes, .len = len};
    memset(fault, 0, sizeof *fault);
    return encoder_load(out, "static", SMALL, read_bytes, &r, len, fault);
}

static void
save(const struct encoder *encoder, struct buf *out)
{
    buf_init(out, 16 << 20);
    assert_int_equal(encoder_save(encoder, write_buf, out), OK);
    assert_int_equal(buf_status(out), OK);
    assert_int_equal(out->len, encoder_save_bytes(encoder));
}

static void
test_round_trip(void **state)
{
    struct encoder *encoder = make_trained(4), *again = NULL, *clone = NULL;
    struct buf bytes;
    struct fault fault;
    size_t n, m;
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];

    (void)state;
    save(encoder, &bytes);
    assert_int_equal(load(&again, bytes.data, bytes.len, &fault), OK);
    assert_true(encoder_is_trained(again));
    const float *p = encoder_params_const(encoder, &n);
    const float *q = encoder_params_const(again, &m);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n * sizeof *p);
    assert_int_equal(encoder_clone(&clone, encoder), OK);
    q = encoder_params_const(clone, &m);
    assert_ptr_not_equal(p, q);
    assert_memory_equal(p, q, n * sizeof *p);
    encoder_fingerprint(encoder, a);
    encoder_fingerprint(again, b);
    assert_memory_equal(a, b, sizeof a);
    encoder_fingerprint(clone, b);
    assert_memory_equal(a, b, sizeof a);
    buf_release(&bytes);
    encoder_free(encoder);
    encoder_free(again);
    encoder_free(clone);
}

/* An untrained encoder has nothing to save; no bytes load as its seed. */
static void
test_untrained_saves_nothing(void **state)
{
    struct encoder *encoder = make(SMALL), *again = NULL;
    struct buf bytes;
    struct fault fault;
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];

    (void)state;
    save(encoder, &bytes);
    assert_int_equal(bytes.len, 0);
    assert_int_equal(load(&again, "", 0, &fault), OK);
    assert_false(encoder_is_trained(again));
    encoder_fingerprint(encoder, a);
    encoder_fingerprint(again, b);
    assert_memory_equal(a, b, sizeof a);
    encoder_free(encoder);
    encoder_free(again);
    buf_release(&bytes);
}

static void
test_fingerprint_changes(void **state)
{
    static const char *const configs[] = {SMALL,
        "{\"dims\":32,\"buckets\":1024,\"seed\":2}",
        "{\"dims\":32,\"buckets\":1024,\"ngram_max\":4}",
        "{\"dims\":32,\"buckets\":1024,\"max_words\":99}",
        "{\"dims\":64,\"buckets\":1024}", "{\"dims\":32,\"buckets\":2048}"};
    uint8_t prints[ARRAY_LEN(configs) + 2][SHA256_BYTES];
    size_t n_params, n = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(configs); i++) {
        struct encoder *encoder = make(configs[i]);
        encoder_fingerprint(encoder, prints[n++]);
        encoder_free(encoder);
    }
    struct encoder *encoder = make(SMALL);
    float *params = encoder_params(encoder, &n_params);
    params[0] = nextafterf(params[0], 2);
    encoder_fingerprint(encoder, prints[n++]);
    params[0] = 1;
    params[n_params - 1] += 1e-3f;
    encoder_fingerprint(encoder, prints[n++]);
    encoder_free(encoder);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(prints[i], prints[j], SHA256_BYTES);
    }
}

static void
expect_corrupt(const char *bytes, size_t len, const char *named)
{
    struct encoder *encoder = NULL;
    struct fault fault;
    enum err err = load(&encoder, bytes, len, &fault);
    if (err != ERR_CORRUPT || strstr(fault.detail, named) == NULL)
        print_error(
            "%s: %s, wanted \"%s\"\n", err_text(err), fault.detail, named);
    assert_int_equal(err, ERR_CORRUPT);
    assert_int_equal(fault.err, ERR_CORRUPT);
    assert_non_null(strstr(fault.detail, named));
    assert_null(encoder);
}

/* The saved bytes with one text of the header replaced. */
static void
edit_header(
    struct buf *out, const struct buf *bytes, const char *from, const char *to)
{
    size_t n_header = 0;
    for (size_t i = 0; i < 8; i++)
        n_header |= (size_t)(unsigned char)bytes->data[i] << (8 * i);
    const char *at = strstr(bytes->data + 8, from);
    assert_non_null(at);
    size_t before = (size_t)(at - bytes->data) - 8;
    assert_true(before < n_header);
    size_t n = n_header - strlen(from) + strlen(to);
    buf_init(out, 16 << 20);
    for (size_t i = 0; i < 8; i++)
        buf_add_char(out, (char)(n >> (8 * i)));
    buf_add(out, bytes->data + 8, before);
    buf_add_str(out, to);
    size_t rest = 8 + before + strlen(from);
    buf_add(out, bytes->data + rest, bytes->len - rest);
    assert_int_equal(buf_status(out), OK);
}

static void
test_damaged_headers(void **state)
{
    static const struct {
        const char *from, *to, *named;
    } edits[] = {
        {"\"table.0\"", "\"tablet0\"", "table.0"},
        {"\"log_idf\"", "\"log_idx\"", "log_idf"},
        {"\"dtype\":\"F32\"", "\"dtype\":\"F16\"", "table.0"},
        {"\"dtype\":\"F32\"", "\"dtype\":7", "table.0"},
        {"\"dtype\":\"F32\",", "", "table.0"},
        {"[1024,16]", "[16,1024]", "table.0"},
        {"[1024,16]", "[16384]", "table.0"},
        {"[1024,16]", "[1024,16,1]", "table.0"},
        {"[1024,16]", "[1024,16.0]", "table.0"},
        {"[1024,16]", "\"1024,16\"", "table.0"},
        {"\"shape\":[16]", "\"shape\":[17]", "position_weight"},
        {"\"shape\":[4096]", "\"shape\":[4095]", "feature_weight"},
        {"[0,65536]", "[4,65536]", "table.0"},
        {"[0,65536]", "[0,65532]", "table.0"},
        {"[0,65536]", "[0,9223372036854775807]", "table.0"},
        {"[0,65536]", "[-4,65536]", "table.0"},
        {"[0,65536]", "[0]", "table.0"},
        {"[65536,131072]", "[0,65536]", "table.1"}, /* overlap */
        {"[65536,131072]", "[65537,131073]", "table.1"},
        {"{\"dtype\":\"F32\",\"shape\":[16]",
            "[{\"dtype\":\"F32\"}],\"x\":{\"a\":[16]", "position_weight"},
        {"\"__metadata__\":{",
            "\"more\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
            "\"__metadata__\":{",
            "6 tensors, not 5"},
        {"\"__metadata__\"", "\"__metadate__\"", "6 tensors, not 5"},
        {"{\"__metadata__\"", "[\"__metadata__\"", "not JSON"},
        {"{\"__metadata__\"", "{\"__metadata__\":1,\"__metadata__\"",
            "not JSON"},
        {"}}", "}", "not JSON"},
    };
    struct encoder *encoder = make_trained(4);
    struct buf bytes, edited;

    (void)state;
    save(encoder, &bytes);
    for (size_t i = 0; i < ARRAY_LEN(edits); i++) {
        edit_header(&edited, &bytes, edits[i].from, edits[i].to);
        expect_corrupt(edited.data, edited.len, edits[i].named);
        buf_release(&edited);
    }
    /* and the editing itself does no damage: without metadata it loads */
    struct encoder *again = NULL;
    struct fault fault;
    edit_header(&edited, &bytes, ",\"table.0\"", " ,\"table.0\"");
    assert_int_equal(load(&again, edited.data, edited.len, &fault), OK);
    buf_release(&edited);
    encoder_free(again);
    encoder_free(encoder);
    buf_release(&bytes);
}

static void
test_damaged_sizes(void **state)
{
    static const struct {
        unsigned char length[8];
        const char *named;
    } lies[] = {{{0}, "not JSON"}, {{1}, "not JSON"},
        {{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, "claims"},
        {{0, 0, 0, 0, 0, 0, 0, 0x80}, "claims"}, {{1, 0, 0x10}, "claims"}};
    struct encoder *encoder = make_trained(4);
    struct buf bytes;
    char head[8];

    (void)state;
    save(encoder, &bytes);
    memcpy(head, bytes.data, 8);
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        memcpy(bytes.data, lies[i].length, 8);
        expect_corrupt(bytes.data, bytes.len, lies[i].named);
    }
    memcpy(bytes.data, head, 8);
    for (size_t n = 1; n < 8; n++)
        expect_corrupt(bytes.data, n, "cut short");
    expect_corrupt(bytes.data, 8, "claims");
    expect_corrupt(bytes.data, 100, "claims");
    expect_corrupt(bytes.data, bytes.len - 1, "bytes of tensors");
    expect_corrupt(bytes.data, bytes.len - 4, "bytes of tensors");
    buf_add(&bytes, "four", 4);
    expect_corrupt(bytes.data, bytes.len, "bytes of tensors");
    encoder_free(encoder);
    buf_release(&bytes);
}

static void
test_damaged_values(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    struct encoder *encoder = make_trained(4);
    const struct static_encoder *e = self_of(encoder);
    const struct {
        size_t at;
        const char *name;
    } places[] = {{0, "table.0"}, {1024 * 16, "table.1"},
        {e->theta_at - 1, "table.1"}, {e->theta_at, "feature_weight"},
        {e->rho_at + 15, "position_weight"},
        {encoder->n_params - 1, "log_idf"}};
    struct buf bytes;

    (void)state;
    save(encoder, &bytes);
    char *data = bytes.data + bytes.len - encoder->n_params * sizeof(float);
    for (size_t i = 0; i < ARRAY_LEN(places) * ARRAY_LEN(bad); i++) {
        char *at = data + places[i / 3].at * sizeof(float);
        char old[sizeof(float)];
        memcpy(old, at, sizeof old);
        memcpy(at, &bad[i % 3], sizeof old);
        expect_corrupt(bytes.data, bytes.len, places[i / 3].name);
        memcpy(at, old, sizeof old);
    }
    encoder_free(encoder);
    buf_release(&bytes);
}

static enum err
fail_after(void *arg, const void *bytes, size_t n)
{
    size_t *left = arg;
    (void)bytes;
    (void)n;
    return (*left)-- == 0 ? ERR_FULL : OK;
}

/* Errors of the stream come back as they are. */
static void
test_stream_errors(void **state)
{
    struct encoder *encoder = make_trained(4), *again = NULL;
    struct buf bytes;
    struct fault fault;

    (void)state;
    for (size_t n = 0; n < 7; n++) { /* length, header, five tensors */
        size_t left = n;
        assert_int_equal(encoder_save(encoder, fail_after, &left), ERR_FULL);
    }
    save(encoder, &bytes);
    for (size_t cut = 1; cut < bytes.len; cut += bytes.len / 9) {
        struct reader r = {.bytes = bytes.data, .len = bytes.len - cut};
        assert_int_equal(encoder_load(&again, "static", SMALL, read_bytes, &r,
                             bytes.len, &fault),
            ERR_IO);
        assert_null(again);
    }
    struct reader none = {.bytes = bytes.data};
    assert_int_equal(encoder_load(&again, "static", SMALL, read_bytes, &none,
                         bytes.len, &fault),
        ERR_IO);
    encoder_free(encoder);
    buf_release(&bytes);
}

/* ---------------------------------------------------------------- refit */

struct texts_left {
    const char *const *text;
    size_t n;
};

static bool
next_text(void *arg, struct encoder_input *text)
{
    struct texts_left *left = arg;
    if (left->n == 0)
        return false;
    *text = (struct encoder_input){.text = *left->text, .len = strlen(*left->text)};
    left->text++;
    left->n--;
    return true;
}

static void
test_refit(void **state)
{
    static const char *const corpus[] = {
        "common rare rare rarely", "common", "common other", "common"};
    struct encoder *encoder = make(SMALL);
    const struct static_encoder *e = self_of(encoder);
    struct texts_left left = {corpus, 4}, none = {corpus, 0};
    uint8_t before[SHA256_BYTES], after[SHA256_BYTES];
    size_t n;

    (void)state;
    encoder_fingerprint(encoder, before);
    assert_int_equal(encoder_refit(encoder, next_text, &none), OK);
    encoder_fingerprint(encoder, after);
    assert_memory_equal(before, after, sizeof before); /* nothing to learn */
    assert_int_equal(encoder_refit(encoder, next_text, &left), OK);
    assert_true(encoder_is_trained(encoder));
    const float *phi = encoder_params_const(encoder, &n) + e->phi_at;
    static const struct {
        const char *word;
        uint32_t df;
    } counts[] = {{"common", 4}, {"rare", 1}, {"other", 1}, {"never", 0}};
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        uint64_t f = hashed_word(counts[i].word, strlen(counts[i].word));
        float want = STATIC_IDF_POWER * logf(prior_idf_of(counts[i].df, 4));
        assert_true(fabsf(phi[weight_of(e, f)] - want) <= 1e-6f);
    }
    /* an n-gram of two words of one text counts once */
    uint64_t features[HASHED_FEATURES_MAX];
    float once = STATIC_IDF_POWER * logf(prior_idf_of(1, 4));
    (void)hashed_features(features, "rare", 4, 3, 5);
    assert_true(fabsf(phi[weight_of(e, features[1])] - once) <= 1e-6f);
    encoder_free(encoder);
}

/* --------------------------------------------------------------- torture */

static enum err
whole_life(const struct buf *bytes)
{
    static const char *const corpus[] = {"one two three", "two caf\xC3\xA9"};
    struct encoder *encoder = NULL, *clone = NULL;
    struct encoder_tape *tape = NULL;
    struct encoder_grads *grads = NULL;
    struct buf config, saved;
    struct fault fault;
    static float out[12 * DIMS];
    enum err err;

    buf_init(&config, 4096);
    buf_init(&saved, 16 << 20);
    err = encoder_new(&encoder, "static", SMALL, &config, &fault);
    if (err == OK)
        err = encoder_clone(&clone, encoder);
    encoder_free(encoder);
    encoder = NULL;
    if (err == OK)
        err = load(&encoder, bytes->data, bytes->len, &fault);
    if (err == OK)
        err = encoder_encode(encoder, inputs, 12, out, NULL, NULL);
    if (err == OK)
        err = encoder_tape_new(&tape, encoder);
    if (err == OK)
        err = encoder_grads_new(&grads, encoder);
    for (size_t n = 2; n <= 12 && err == OK; n += 10) {
        err = encoder_forward(encoder, tape, inputs, n, NULL, out, NULL);
        if (err == OK)
            err = encoder_backward(encoder, tape, out, grads, NULL);
    }
    struct texts_left left = {corpus, 2};
    if (err == OK)
        err = encoder_refit(clone, next_text, &left);
    if (err == OK)
        err = encoder_save(clone, write_buf, &saved);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    encoder_free(encoder);
    encoder_free(clone);
    if (err == OK)
        err = buf_status(&saved);
    buf_release(&config);
    buf_release(&saved);
    return err;
}

static void
test_memory_runs_out(void **state)
{
    struct encoder *encoder = make_trained(4);
    struct buf bytes;

    (void)state;
    save(encoder, &bytes);
    encoder_free(encoder);
    for (uint64_t n = 1;; n++) {
        alloc_fail_at(n);
        enum err err = whole_life(&bytes);
        uint64_t seen = alloc_fail_at(0);
        if (seen < n) {
            assert_int_equal(err, OK);
            break;
        }
        if (err != ERR_NOMEM)
            print_error("allocation %u: %s\n", (unsigned)n, err_text(err));
        assert_int_equal(err, ERR_NOMEM);
        assert_true(n < 5000);
    }
    buf_release(&bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_refusals),
        cmocka_unit_test(test_canonical_config),
        cmocka_unit_test(test_untrained_params),
        cmocka_unit_test(test_position_buckets),
        cmocka_unit_test(test_dropout_gains),
        cmocka_unit_test(test_unit_vectors),
        cmocka_unit_test(test_alone_or_in_company),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_untrained_saves_nothing),
        cmocka_unit_test(test_fingerprint_changes),
        cmocka_unit_test(test_damaged_headers),
        cmocka_unit_test(test_damaged_sizes),
        cmocka_unit_test(test_damaged_values),
        cmocka_unit_test(test_stream_errors),
        cmocka_unit_test(test_refit),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    fill_texts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
