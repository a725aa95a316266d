/*
 * Goal: the family transformer keeps encoder.h's promises: a text is its prefix
 * and itself, cut and told so; texts without tokens have no vector; a clone
 * stands alone; training sees the same vectors, and its gradient is that of the
 * loss. Settings and the saved form are in test_model_transformer_settings.c.
 *
 * Method: a tiny encoder of the kit; texts with a prefix against the same
 * letters without; four threads against one, to the bit; central differences of
 * single parameters through encoder_forward, |error| <= 2 % of the tensor's
 * largest difference.
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
#include "base/buf.h"
#include "base/check.h"
#include "kern/kern.h"
#include "model/transformer_encoder.h"
#include "tests/support/transformer_kit.h"

#define D TRANSFORMER_KIT_DIMS
#define DIMS_MAX 48 /* of the configurations here */

static struct encoder *
make(const char *config, uint64_t seed)
{
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    enum err err = transformer_kit_build(&encoder, config, seed, &fault);
    if (err != OK)
        print_error("%s: %s %s\n", config, fault.pointer, fault.detail);
    assert_int_equal(err, OK);
    return encoder;
}

static struct encoder_input
text_of(const char *s)
{
    return (struct encoder_input){.text = s, .len = strlen(s)};
}

static struct encoder_info
encode(const struct encoder *encoder, struct encoder_input input, float *out)
{
    struct encoder_info info;
    memset(out, 0xFF, encoder_dims(encoder) * sizeof *out);
    assert_int_equal(encoder_encode(encoder, &input, 1, out, &info, NULL), OK);
    return info;
}

static float
farthest(const float *a, const float *b, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fabsf(a[i] - b[i]) <= most ? most : fabsf(a[i] - b[i]);
    return most;
}

static void
test_what_it_says(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_OTHER, 1);
    size_t n_asset, n_params, len;
    const char *tokenizer = transformer_kit_tokenizer(&len);
    const char *asset = encoder_asset(e, &n_asset);

    (void)state;
    assert_string_equal(encoder_family(e), "transformer");
    assert_int_equal(encoder_reads(e), ENCODER_READS_TEXT);
    assert_int_equal(encoder_dims(e), 48);
    assert_int_equal(encoder_max_tokens(e), 20);
    assert_int_equal(encoder_n_parts(e), 3);
    assert_true(encoder_is_trained(e));
    assert_int_equal(n_asset, len);
    assert_memory_equal(asset, tokenizer, len);
    assert_ptr_not_equal(asset, tokenizer);
    (void)encoder_params_const(e, &n_params);
    assert_int_equal(n_params, transformer_of(e)->net.n_params);
    encoder_free(e);
    assert_int_equal(encoder_new(&e, "static", "{}", NULL, NULL), OK);
    assert_null(encoder_asset(e, &n_asset));
    assert_int_equal(n_asset, 0);
    encoder_free(e);
}

/* The prefix of its side, and nothing else, is what a text gets. */
static void
test_prefixes(void **state)
{
    struct encoder *with = make(TRANSFORMER_KIT_PREFIXES, 5);
    struct encoder *bare = make(TRANSFORMER_KIT_CONFIG, 5);
    struct encoder_input text = text_of("the old red cat");
    float query[D], item[D], want[D];

    (void)state;
    assert_int_equal(encode(with, text, item).n_tokens, 8);
    text.query = true;
    assert_int_equal(encode(with, text, query).n_tokens, 8);
    assert_true(farthest(query, item, D) > 0.01f);
    (void)encode(bare, text_of("passage: the old red cat"), want);
    assert_memory_equal(item, want, sizeof want);
    (void)encode(bare, text_of("query: the old red cat"), want);
    assert_memory_equal(query, want, sizeof want);
    encoder_free(with);
    encoder_free(bare);
}

/* A prefix that is one token with the text leaves as many as it has alone. */
static void
test_prefix_meets_text(void **state)
{
    struct encoder *with =
        make("{" TRANSFORMER_KIT_MEMBERS ",\"item_prefix\":\"gre\"}", 5);
    struct encoder *bare = make(TRANSFORMER_KIT_CONFIG, 5);
    float out[D], want[D];

    (void)state;
    struct encoder_info info = encode(with, text_of("en"), out);
    assert_false(info.empty);
    assert_int_equal(info.n_tokens, 3);
    (void)encode(bare, text_of("green"), want);
    assert_memory_equal(out, want, sizeof want);
    /* the white space around a text is none of it */
    (void)encode(with, text_of("\n\t en \r\n"), out);
    assert_memory_equal(out, want, sizeof want);
    encoder_free(with);
    encoder_free(bare);
}

static void
test_empty_texts(void **state)
{
    static const char *const configs[] = {TRANSFORMER_KIT_CONFIG,
        TRANSFORMER_KIT_PREFIXES, TRANSFORMER_KIT_OTHER};
    const struct encoder_input inputs[] = {text_of(""), {.text = NULL},
        text_of(" \t\n "), text_of("\xE2\x80\x8B"),
        {.text = " ", .len = 1, .query = true}};
    enum { N = ARRAY_LEN(inputs) };
    float out[N * DIMS_MAX];
    struct encoder_info info[N];

    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(configs); c++) {
        struct encoder *e = make(configs[c], 2);
        size_t dims = encoder_dims(e);
        struct encoder_tape *tape;
        struct encoder_grads *grads;

        memset(out, 0xFF, sizeof out);
        memset(info, 0xFF, sizeof info);
        assert_int_equal(encoder_encode(e, inputs, N, out, info, NULL), OK);
        for (size_t i = 0; i < N * dims; i++)
            assert_true(out[i] == 0);
        for (size_t i = 0; i < N; i++) {
            assert_true(info[i].empty);
            assert_int_equal(info[i].n_tokens, 0);
            assert_int_equal(info[i].n_tokens_full, 0);
        }
        assert_int_equal(encoder_tape_new(&tape, e), OK);
        assert_int_equal(encoder_grads_new(&grads, e), OK);
        memset(out, 0xFF, sizeof out);
        assert_int_equal(
            encoder_forward(e, tape, inputs, N, NULL, out, NULL), OK);
        for (size_t i = 0; i < N * dims; i++)
            assert_true(out[i] == 0);
        for (size_t i = 0; i < N * dims; i++)
            out[i] = 1;
        assert_int_equal(encoder_backward(e, tape, out, grads, NULL), OK);
        for (size_t i = 0; i < transformer_of(e)->net.n_params; i++)
            assert_true(grads->d_params[i] == 0);
        assert_int_equal(encoder_encode(e, inputs, 0, NULL, NULL, NULL), OK);
        encoder_grads_free(grads);
        encoder_tape_free(tape);
        encoder_free(e);
    }
}

static void
test_truncation(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_CONFIG, 2);
    struct encoder *with = make(TRANSFORMER_KIT_PREFIXES, 2);
    char text[1024], shorter[1024], prefixed[1100];
    float out[D], want[D];

    (void)state;
    (void)transformer_kit_text(text, sizeof text, 40, 6);
    (void)transformer_kit_text(shorter, sizeof shorter, 22, 6);
    struct encoder_info info = encode(e, text_of(text), out);
    assert_int_equal(info.n_tokens, TRANSFORMER_KIT_TOKENS);
    assert_int_equal(info.n_tokens_full, 42);
    assert_false(info.empty);
    info = encode(e, text_of(shorter), want);
    assert_int_equal(info.n_tokens, 24);
    assert_int_equal(info.n_tokens_full, 24);
    assert_memory_equal(out, want, sizeof want);
    info = encode(with, text_of(text), out);
    assert_int_equal(info.n_tokens, 24);
    assert_int_equal(info.n_tokens_full, 44);
    snprintf(prefixed, sizeof prefixed, "passage: %s", text);
    (void)encode(e, text_of(prefixed), want);
    assert_memory_equal(out, want, sizeof want);
    encoder_free(e);
    encoder_free(with);
}

/* Of a text that the tokenizer does not take there is still the beginning. */
static void
test_huge_texts(void **state)
{
    enum { N = (5 << 20) / 4, ONE = (3 << 19) / 3 };
    static const char joined[] = "\xEF\xB7\xBA"; /* 11 times as long in NFKC */
    struct encoder *e, *with = make(TRANSFORMER_KIT_PREFIXES, 2);
    char *text = malloc(4 * N);
    size_t len;
    struct buf tokenizer;
    float out[D], want[D];

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < N; i++)
        memcpy(text + 4 * i, "cat ", 4);
    struct encoder_info info = encode(
        with, (struct encoder_input){.text = text, .len = (size_t)4 * N}, out);
    assert_int_equal(info.n_tokens, 24);
    assert_true(info.n_tokens_full > 1 << 19);
    (void)encode(
        with, (struct encoder_input){.text = text, .len = 4 * 30}, want);
    assert_memory_equal(out, want, sizeof want);
    /* one word of that length: cut, and told so */
    memset(text, 'x', (size_t)4 * N);
    info = encode(
        with, (struct encoder_input){.text = text, .len = (size_t)4 * N}, out);
    assert_int_equal(info.n_tokens, 5);
    assert_true(info.n_tokens_full > 5);
    encoder_free(with);

    const char *kit = transformer_kit_tokenizer(&len);
    const char *at = strstr(kit, "{\"type\":\"BertNormalizer\"");
    assert_non_null(at);
    buf_init(&tokenizer, 1 << 16);
    buf_add(&tokenizer, kit, (size_t)(at - kit));
    buf_add_str(&tokenizer, "{\"type\":\"NFKC\"}");
    buf_add_str(&tokenizer, strchr(at, '}') + 1);
    assert_int_equal(buf_status(&tokenizer), OK);
    assert_int_equal(encoder_build(&e, "transformer", TRANSFORMER_KIT_CONFIG,
                         tokenizer.data, tokenizer.len, NULL),
        OK);
    transformer_kit_fill(e, 2);
    for (size_t i = 0; i < ONE; i++)
        memcpy(text + 3 * i, joined, 3);
    info = encode(
        e, (struct encoder_input){.text = text, .len = (size_t)3 * ONE}, out);
    assert_int_equal(info.n_tokens, 24);
    assert_true(info.n_tokens_full > 24);
    buf_release(&tokenizer);
    encoder_free(e);
    free(text);
}

/* More texts than are tokenized at once, alone and in company. */
static void
test_many_texts(void **state)
{
    enum { N = 1030 };
    static char texts[N][128];
    static struct encoder_input inputs[N];
    static struct encoder_info info[N];
    static float out[N * D];
    struct encoder *e = make(TRANSFORMER_KIT_CONFIG, 2);
    struct pool *pool;

    (void)state;
    for (size_t i = 0; i < N; i++) {
        (void)transformer_kit_text(texts[i], sizeof texts[i], i % 13, i);
        inputs[i] = text_of(texts[i]);
    }
    assert_int_equal(pool_new(&pool, 2, false), OK);
    assert_int_equal(encoder_encode(e, inputs, N, out, info, pool), OK);
    for (size_t i = 0; i < N; i += i < 1020 ? 7 : 1) {
        float alone[D];
        double square = 0;
        struct encoder_info one = encode(e, inputs[i], alone);
        assert_true(farthest(alone, out + i * D, D) <= 1e-5f);
        assert_int_equal(info[i].n_tokens, i % 13 == 0 ? 0 : i % 13 + 2);
        assert_int_equal(one.n_tokens, info[i].n_tokens);
        assert_int_equal(info[i].empty, i % 13 == 0);
        for (size_t d = 0; d < D; d++)
            square += (double)alone[d] * (double)alone[d];
        assert_true(fabs(sqrt(square) - (i % 13 != 0)) <= 1e-5);
    }
    pool_free(pool);
    encoder_free(e);
}

struct taken {
    uint32_t ids[64];
    char pieces[64][16];
    size_t n;
};

static void
take_token(void *arg, const char *token, size_t len, uint32_t id)
{
    struct taken *t = arg;
    assert_true(t->n < 64 && len < 16);
    t->ids[t->n] = id;
    memcpy(t->pieces[t->n], token, len);
    t->pieces[t->n++][len] = '\0';
}

/* All of a long text, the special ones with them, and no prefix. */
static void
test_tokenize(void **state)
{
    static const char *const want[] = {
        "[CLS]", "cat", "##s", "[UNK]", ".", "[SEP]"};
    struct encoder *e = make(TRANSFORMER_KIT_PREFIXES, 2);
    struct taken t = {.n = 0};
    char text[1024];

    (void)state;
    assert_int_equal(encoder_tokenize(e, "CATS zz.", 8, take_token, &t), OK);
    assert_int_equal(t.n, ARRAY_LEN(want));
    for (size_t i = 0; i < t.n; i++) {
        assert_string_equal(t.pieces[i], want[i]);
        assert_int_equal(t.ids[i], transformer_kit_id(want[i]));
    }
    t.n = 0;
    size_t len = transformer_kit_text(text, sizeof text, 50, 6);
    assert_int_equal(encoder_tokenize(e, text, len, take_token, &t), OK);
    assert_int_equal(t.n, 52);
    assert_int_equal(t.ids[51], TRANSFORMER_KIT_SEP);
    size_t at = 0;
    for (size_t i = 1; i < 51; i++) { /* the words, in their order */
        assert_memory_equal(text + at, t.pieces[i], strlen(t.pieces[i]));
        at += strlen(t.pieces[i]) + 1;
    }
    t.n = 0;
    assert_int_equal(encoder_tokenize(e, "", 0, take_token, &t), OK);
    assert_int_equal(t.n, 2);
    encoder_free(e);
}

static const char *const corpus[] = {"the cat eats", "big house and small tree",
    "", "cold river under old stone with fish", "zz", "dogs jumping", "a bird",
    ("the new red fish walked on a warm stone . not the old blue one , with "
     "the "
     "cat and the dog under the tree")};

enum { N_CORPUS = ARRAY_LEN(corpus) };

static void
fill_corpus(struct encoder_input *inputs)
{
    for (size_t i = 0; i < N_CORPUS; i++) {
        inputs[i] = text_of(corpus[i]);
        inputs[i].query = i % 2;
    }
}

struct worker {
    const struct encoder *encoder;
    float out[N_CORPUS * D];
    bool same;
};

static void *
encode_often(void *arg)
{
    struct worker *w = arg;
    struct encoder_input inputs[N_CORPUS];
    float again[N_CORPUS * D];

    fill_corpus(inputs);
    w->same = true;
    for (int i = 0; i < 40; i++) {
        if (encoder_encode(w->encoder, inputs, N_CORPUS,
                i == 0 ? w->out : again, NULL, NULL) != OK)
            w->same = false;
        if (i > 0 && memcmp(again, w->out, sizeof again) != 0)
            w->same = false;
    }
    return NULL;
}

/* From the first call on, which makes what all share. */
static void
test_threads(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_PREFIXES, 9),
                   *other = make(TRANSFORMER_KIT_PREFIXES, 9);
    struct encoder_input inputs[N_CORPUS];
    float want[N_CORPUS * D];
    pthread_t threads[4];
    static struct worker workers[4];

    (void)state;
    fill_corpus(inputs);
    assert_int_equal(
        encoder_encode(other, inputs, N_CORPUS, want, NULL, NULL), OK);
    for (size_t i = 0; i < 4; i++) {
        workers[i].encoder = e;
        assert_int_equal(
            pthread_create(&threads[i], NULL, encode_often, &workers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(workers[i].same);
        assert_memory_equal(workers[i].out, want, sizeof want);
    }
    encoder_free(e);
    encoder_free(other);
}

/* While parameters may change nothing of them is remembered. */
static void
test_unsealed(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_CONFIG, 9);
    struct encoder *other = make(TRANSFORMER_KIT_CONFIG, 9);
    struct encoder_input text = text_of(corpus[0]);
    size_t n, sealed, bare = encoder_bytes(e);
    float a[D], b[D], want[D];

    (void)state;
    (void)encode(e, text, a);
    sealed = encoder_bytes(e);
    assert_true(sealed > bare);
    float *params = encoder_params(e, &n);
    assert_int_equal(encoder_bytes(e), bare);
    (void)encode(e, text, b);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(encoder_bytes(e), bare);
    const struct transformer *net = &transformer_of(e)->net;
    params[net->layers[1].up_w] += 3;
    encoder_params(other, &n)[net->layers[1].up_w] += 3;
    encoder_seal(other);
    (void)encode(e, text, b);
    (void)encode(other, text, want);
    assert_memory_equal(b, want, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    encoder_seal(e);
    (void)encode(e, text, b);
    assert_memory_equal(b, want, sizeof b);
    assert_int_equal(encoder_bytes(e), sealed);
    encoder_free(e);
    encoder_free(other);
}

static void
test_clone(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_PREFIXES, 9), *clone;
    struct encoder_input text = text_of(corpus[1]);
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];
    float want[D], out[D];
    size_t n, n_asset;

    (void)state;
    (void)encode(e, text, want);
    assert_int_equal(encoder_clone(&clone, e), OK);
    assert_ptr_equal(encoder_asset(clone, &n_asset), encoder_asset(e, &n));
    assert_int_equal(n_asset, n);
    assert_ptr_not_equal(
        encoder_params_const(clone, &n), encoder_params_const(e, &n));
    encoder_fingerprint(e, a);
    encoder_fingerprint(clone, b);
    assert_memory_equal(a, b, sizeof a);
    encoder_params(clone, &n)[0] += 1;
    encoder_fingerprint(e, b);
    assert_memory_equal(a, b, sizeof a);
    encoder_params(clone, &n)[0] -= 1;
    encoder_free(e);
    (void)encode(clone, text, out);
    assert_memory_equal(out, want, sizeof want);
    encoder_free(clone);
}

/* ------------------------------------------------------------ training */

/* Of p of a text's tokens nothing is left, but the special ones stay, and one
   of its own. */
static void
test_token_dropout(void **state)
{
    static const float rates[] = {0.3f, 0.95f, 1};
    struct encoder *e = make(TRANSFORMER_KIT_CONFIG, 1);
    const struct transformer_encoder *t = transformer_of(e);
    struct encoder_input inputs[] = {
        text_of("cat"), text_of(""), text_of(corpus[7]), text_of(corpus[3])};
    struct transformer_tokens all = {.n_ids = 0}, some = {.n_ids = 0};
    struct rng rng;

    (void)state;
    rng_seed(&rng, 4);
    assert_int_equal(
        transformer_tokens_read(&all, t, inputs, 4, NULL, NULL), OK);
    for (size_t p = 0; p < ARRAY_LEN(rates); p++) {
        struct encoder_noise noise = {.rng = &rng, .token_dropout = rates[p]};
        size_t n_kept = 0, rounds = 400;
        for (size_t round = 0; round < rounds; round++) {
            assert_int_equal(
                transformer_tokens_read(&some, t, inputs, 4, &noise, NULL), OK);
            assert_int_equal(some.offsets[1], 3);
            assert_int_equal(some.offsets[2], 3);
            for (size_t i = 0; i < 4; i++) {
                const uint32_t *ids = some.ids + some.offsets[i];
                size_t n = some.offsets[i + 1] - some.offsets[i];
                size_t at = all.offsets[i], end = all.offsets[i + 1];
                if (i == 1)
                    continue;
                assert_true(n >= 3);
                assert_int_equal(ids[0], TRANSFORMER_KIT_CLS);
                assert_int_equal(ids[n - 1], TRANSFORMER_KIT_SEP);
                for (size_t j = 0; j < n; j++, at++) { /* in their order */
                    while (at < end && all.ids[at] != ids[j])
                        at++;
                    assert_true(at < end);
                }
            }
            n_kept += some.offsets[3] - some.offsets[2] - 3;
        }
        /* 22 tokens of its own, one of them spared: 8,400 trials */
        double share = (double)n_kept / (double)(rounds * 21);
        assert_true(fabs(share - (1 - (double)rates[p])) <= 0.03);
    }
    transformer_tokens_release(&all);
    transformer_tokens_release(&some);
    encoder_free(e);
}

static void
test_forward_is_encode(void **state)
{
    static const char *const configs[] = {TRANSFORMER_KIT_CONFIG,
        TRANSFORMER_KIT_PREFIXES, TRANSFORMER_KIT_OTHER};
    struct encoder_input inputs[N_CORPUS];
    float a[N_CORPUS * DIMS_MAX], b[N_CORPUS * DIMS_MAX];

    (void)state;
    fill_corpus(inputs);
    for (size_t c = 0; c < ARRAY_LEN(configs); c++) {
        struct encoder *e = make(configs[c], 2);
        size_t n = N_CORPUS * encoder_dims(e);
        struct encoder_tape *tape;

        assert_int_equal(
            encoder_encode(e, inputs, N_CORPUS, a, NULL, NULL), OK);
        for (size_t parts = 0; parts <= encoder_n_parts(e); parts++) {
            encoder_freeze(e, parts);
            assert_int_equal(encoder_tape_new(&tape, e), OK);
            memset(b, 0xFF, sizeof b);
            assert_int_equal(
                encoder_forward(e, tape, inputs, N_CORPUS, NULL, b, NULL), OK);
            assert_true(farthest(a, b, n) <= 1e-5f);
            encoder_tape_free(tape);
        }
        encoder_free(e);
    }
}

static const struct encoder_tensor *
tensor_named(const struct encoder *e, const char *name)
{
    static struct encoder_tensor all[64];
    size_t n =
        transformer_tensors(&transformer_of(e)->net, all, ARRAY_LEN(all));
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    print_error("no tensor %s\n", name);
    fail();
    return NULL;
}

/* sum c z over the corpus. */
static double
objective(const struct encoder *e, struct encoder_tape *tape, const float *c)
{
    struct encoder_input inputs[N_CORPUS];
    float z[N_CORPUS * DIMS_MAX];
    double sum = 0;

    fill_corpus(inputs);
    assert_int_equal(
        encoder_forward(e, tape, inputs, N_CORPUS, NULL, z, NULL), OK);
    for (size_t i = 0; i < N_CORPUS * encoder_dims(e); i++)
        sum += (double)c[i] * (double)z[i];
    return sum;
}

/* Eight parameters of a tensor, from `first` on and `step` apart. */
static void
check_tensor(struct encoder *e, struct encoder_tape *tape, const float *c,
    const float *gradient, const char *name, size_t first, size_t step)
{
    const struct encoder_tensor *t = tensor_named(e, name);
    size_t n;
    float *params = encoder_params(e, &n);
    double want[8], top = 0;

    for (size_t i = 0; i < 8; i++) {
        float *p = &params[t->start + first + i * step], old = *p;
        *p = old + 0.01f;
        double up = objective(e, tape, c), high = (double)*p;
        *p = old - 0.01f;
        double down = objective(e, tape, c), low = (double)*p;
        *p = old;
        want[i] = (up - down) / (high - low);
        top = fmax(top, fabs(want[i]));
    }
    assert_true(top > 1e-3);
    for (size_t i = 0; i < 8; i++) {
        double got = (double)gradient[t->start + first + i * step];
        if (!(fabs(got - want[i]) <= 0.02 * top))
            print_error("%s[%zu]: %g, by differences %g\n", name,
                first + i * step, got, want[i]);
        assert_true(fabs(got - want[i]) <= 0.02 * top);
    }
}

static bool
in_segments(const struct encoder_grads *grads, size_t at)
{
    for (size_t i = 0; i < grads->n_segments; i++)
        if (at >= grads->segments[i].start &&
            at < grads->segments[i].start + grads->segments[i].n)
            return true;
    return false;
}

static void
check_segments(const struct encoder_grads *grads, size_t n_params)
{
    size_t end = 0;
    for (size_t i = 0; i < grads->n_segments; i++) {
        assert_true(
            grads->segments[i].start >= end && grads->segments[i].n > 0);
        end = grads->segments[i].start + grads->segments[i].n;
    }
    assert_true(end <= n_params);
    for (size_t i = 0; i < n_params; i++)
        assert_true(grads->d_params[i] == 0 || in_segments(grads, i));
}

static void
test_gradient(void **state)
{
    static const struct {
        const char *config, *names[8];
    } cases[] = {
        {TRANSFORMER_KIT_PREFIXES,
            {"embeddings.position_embeddings.weight",
                "embeddings.LayerNorm.weight",
                "encoder.layer.0.attention.self.query.weight",
                "encoder.layer.1.attention.self.value.bias",
                "encoder.layer.1.output.LayerNorm.bias",
                "encoder.layer.0.intermediate.dense.weight"}},
        {TRANSFORMER_KIT_OTHER,
            {"linear.weight", "linear.bias",
                "encoder.layer.0.attention.output.residual.weight",
                "encoder.layer.1.intermediate.LayerNorm.weight",
                "encoder.layer.1.output.dense.weight"}},
    };
    float c[N_CORPUS * DIMS_MAX];
    struct rng rng;

    (void)state;
    rng_seed(&rng, 8);
    for (size_t i = 0; i < ARRAY_LEN(c); i++)
        c[i] = (float)rng_normal(&rng);
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        struct encoder *e = make(cases[k].config, 6);
        const struct transformer *net = &transformer_of(e)->net;
        struct encoder_tape *tape;
        struct encoder_grads *grads;
        size_t E = net->embedding, cat = transformer_kit_id("cat") * E;

        assert_int_equal(encoder_tape_new(&tape, e), OK);
        assert_int_equal(encoder_grads_new(&grads, e), OK);
        (void)objective(e, tape, c);
        assert_int_equal(encoder_backward(e, tape, c, grads, NULL), OK);
        check_segments(grads, net->n_params);
        assert_true(in_segments(grads, net->word + cat));
        size_t mask = transformer_kit_id("[MASK]") * E; /* no text has it */
        assert_false(in_segments(grads, net->word + mask));
        float *once = malloc(net->n_params * sizeof *once);
        assert_non_null(once);
        memcpy(once, grads->d_params, net->n_params * sizeof *once);
        check_tensor(
            e, tape, c, once, "embeddings.word_embeddings.weight", cat, 2);
        for (size_t i = 0; cases[k].names[i] != NULL; i++)
            check_tensor(e, tape, c, once, cases[k].names[i], 1, 3);
        /* backward adds, and clear leaves nothing */
        (void)objective(e, tape, c);
        assert_int_equal(encoder_backward(e, tape, c, grads, NULL), OK);
        for (size_t i = 0; i < net->n_params; i++)
            assert_true(fabsf(grads->d_params[i] - 2 * once[i]) <=
                        1e-4f + 1e-4f * fabsf(once[i]));
        encoder_grads_clear(grads);
        for (size_t i = 0; i < net->n_params; i++)
            assert_true(grads->d_params[i] == 0);
        free(once);
        encoder_grads_free(grads);
        encoder_tape_free(tape);
        encoder_free(e);
    }
}

/* What is frozen has no gradient; what is not has the one it had. A tape keeps
   to what held when it was made. */
static void
test_freeze(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_CONFIG, 6);
    const struct transformer *net = &transformer_of(e)->net;
    float c[N_CORPUS * D], *whole = malloc(net->n_params * sizeof *whole);
    struct rng rng;

    (void)state;
    assert_non_null(whole);
    rng_seed(&rng, 8);
    for (size_t i = 0; i < ARRAY_LEN(c); i++)
        c[i] = (float)rng_normal(&rng);
    const size_t starts[] = {0, net->layers[0].qkv_w, net->layers[1].qkv_w,
        net->n_params}; /* of the parts; norm post */
    for (size_t n_last = 4; n_last-- > 0;) {
        struct encoder_tape *tape;
        struct encoder_grads *grads;
        size_t start = starts[3 - n_last];

        encoder_freeze(e, n_last);
        assert_int_equal(encoder_tape_new(&tape, e), OK);
        assert_int_equal(encoder_grads_new(&grads, e), OK);
        encoder_freeze(e, n_last == 3 ? 1 : 3); /* too late for the tape */
        (void)objective(e, tape, c);
        assert_int_equal(encoder_backward(e, tape, c, grads, NULL), OK);
        check_segments(grads, net->n_params);
        if (n_last == 3)
            memcpy(whole, grads->d_params, net->n_params * sizeof *whole);
        for (size_t i = 0; i < start; i++)
            assert_false(in_segments(grads, i) || grads->d_params[i] != 0);
        for (size_t i = MAX(start, net->layers[0].qkv_w); i < net->n_params;
             i++)
            assert_true(in_segments(grads, i) &&
                        fabsf(grads->d_params[i] - whole[i]) <= 1e-4f);
        encoder_grads_free(grads);
        encoder_tape_free(tape);
    }
    encoder_freeze(e, 99);
    assert_int_equal(e->n_frozen, 0);
    free(whole);
    encoder_free(e);
}

/* What a text's tape is said to need is about what it needs. */
static void
test_tape_bytes(void **state)
{
    enum { N = 128 };
    struct encoder *e = make(TRANSFORMER_KIT_PREFIXES, 6), *other;
    struct encoder_input inputs[N], text = text_of("cat");
    struct encoder_tape *tape;
    char full[1024];
    static float out[N * D];
    size_t bytes[2], most = encoder_tape_input_bytes(e, NULL);

    (void)state;
    (void)transformer_kit_text(full, sizeof full, 40, 1);
    for (size_t i = 0; i < N; i++)
        inputs[i] = text_of(full);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(encoder_tape_new(&tape, e), OK);
        assert_int_equal(
            encoder_forward(e, tape, inputs, N / 2 * (i + 1), NULL, out, NULL),
            OK);
        bytes[i] = encoder_tape_bytes(tape);
        encoder_tape_free(tape);
    }
    double each = (double)(bytes[1] - bytes[0]) / (N / 2);
    assert_true(fabs(each / (double)most - 1) <= 0.15);
    assert_int_equal(encoder_tape_input_bytes(e, &inputs[0]), most);
    size_t item = encoder_tape_input_bytes(e, &text);
    assert_true(item > 0 && item < most);
    assert_int_equal(item * TRANSFORMER_KIT_TOKENS, most * 6);
    encoder_freeze(e, 1);
    assert_true(encoder_tape_input_bytes(e, NULL) < most);
    encoder_free(e);
    assert_int_equal(encoder_new(&other, "static", "{}", NULL, NULL), OK);
    assert_int_equal(encoder_tape_input_bytes(other, NULL), 0);
    assert_int_equal(encoder_n_parts(other), 0);
    encoder_free(other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_it_says),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_prefix_meets_text),
        cmocka_unit_test(test_empty_texts),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_huge_texts),
        cmocka_unit_test(test_many_texts),
        cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_unsealed),
        cmocka_unit_test(test_clone),
        cmocka_unit_test(test_token_dropout),
        cmocka_unit_test(test_forward_is_encode),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_freeze),
        cmocka_unit_test(test_tape_bytes),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
