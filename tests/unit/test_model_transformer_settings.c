/*
 * Goal: settings and tokenizers of the family transformer are refused by name,
 * settings have one complete form, and what is saved comes back, or is refused
 * when it was damaged.
 *
 * Method: each setting put out of its range; saved bytes edited one way at a
 * time, or cut short; every allocation of a whole life failed once.
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
#include "base/buf.h"
#include "base/check.h"
#include "base/json.h"
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

/* ------------------------------------------------------------ settings */

/* The kit's settings with one member set to a value, or taken out (NULL). */
static void
write_config(struct buf *out, const char *key, const char *value)
{
    struct json *base = NULL;
    assert_int_equal(json_parse(TRANSFORMER_KIT_CONFIG,
                         strlen(TRANSFORMER_KIT_CONFIG), 4096, &base, NULL),
        OK);
    buf_init(out, 1 << 16);
    buf_add_char(out, '{');
    for (void *it = json_first(base); it != NULL; it = json_next(base, it))
        if (strcmp(json_it_key(it), key) != 0) {
            buf_printf(
                out, "%s\"%s\":", out->len > 1 ? "," : "", json_it_key(it));
            json_dump(json_it_value(it), out);
        }
    if (value != NULL)
        buf_printf(out, ",\"%s\":%s", key, value);
    buf_add_char(out, '}');
    assert_int_equal(buf_status(out), OK);
    json_free(base);
}

static void
expect_refused(const char *config, enum err want, const char *pointer)
{
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    enum err err = transformer_kit_build(&encoder, config, 1, &fault);

    if (err != want || strcmp(fault.pointer, pointer) != 0)
        print_error("%.300s: %s at \"%s\": %s\n", config, err_text(err),
            fault.pointer, fault.detail);
    assert_int_equal(err, want);
    assert_string_equal(fault.pointer, pointer);
    assert_int_equal(fault.err, want);
    assert_true(fault.detail[0] != '\0');
    assert_null(encoder);
}

static void
test_settings_refused(void **state)
{
    static const struct {
        const char *key;
        const char *values[8]; /* to the first NULL */
    } bad[] = {
        {"layers", {"0", "65", "-1", "1.5", "\"2\"", "null", "4294967296"}},
        {"hidden", {"0", "8", "24", "4112"}},
        {"heads", {"0", "3", "4", "4097"}},
        {"ffn", {"0", "20", "16400"}},
        {"vocab", {"0", "43", "1048577"}},
        {"max_positions", {"0", "16385"}},
        {"embedding", {"8", "24", "4112", "-16"}},
        {"positions", {"\"rotary\"", "\"\"", "0"}},
        {"position_offset", {"24", "25", "-1"}},
        {"token_types", {"17", "-1"}},
        {"embedding_scale", {"0", "1e7", "1e-60", "\"1\""}},
        {"embedding_norm", {"1", "null"}},
        {"norm", {"\"rms\"", "true"}},
        {"norm_eps", {"0", "-1e-5", "0.2", "1e-60"}},
        {"act", {"\"silu\"", "\"none\"", "2"}},
        {"pooling", {"\"last\"", "[]"}},
        {"dense", {"8", "24", "4112"}},
        {"dense_tanh", {"\"yes\""}},
        {"normalise", {"0"}},
        {"max_tokens", {"0", "25", "-1", "2", "1"}},
        {"query_prefix", {"7", "null"}},
        {"item_prefix", {"[\"a\"]"}},
        {"compute", {"\"f16\"", "8"}},
        {"dims", {"31", "0", "-32", "\"32\""}},
        {"tokenizer", {"\"\"", "\"00\"", "7"}},
        {"surplus", {"1"}},
    };
    static const char *const required[] = {
        "layers", "hidden", "heads", "ffn", "vocab", "max_positions"};
    char pointer[32];
    struct buf config;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        for (size_t j = 0; j < 8 && bad[i].values[j] != NULL; j++) {
            write_config(&config, bad[i].key, bad[i].values[j]);
            snprintf(pointer, sizeof pointer, "/%s", bad[i].key);
            expect_refused(config.data, ERR_INVALID, pointer);
            buf_release(&config);
        }
    for (size_t i = 0; i < ARRAY_LEN(required); i++) {
        write_config(&config, required[i], NULL);
        snprintf(pointer, sizeof pointer, "/%s", required[i]);
        expect_refused(config.data, ERR_INVALID, pointer);
        buf_release(&config);
    }
    expect_refused("{\"layers\":64,\"hidden\":4096,\"heads\":64,\"ffn\":16384,"
                   "\"vocab\":48,\"max_positions\":24}",
        ERR_TOO_LARGE, "");
    expect_refused("{\"layers\":", ERR_SYNTAX, "");
}

/* A prefix has an end in bytes, and one in tokens: a text needs one more. */
static void
test_long_prefixes(void **state)
{
    static const char *const keys[] = {"query_prefix", "item_prefix"};
    char value[TRANSFORMER_PREFIX_MAX + 4], pointer[32];
    struct buf config;

    (void)state;
    for (size_t side = 0; side < 2; side++)
        for (size_t n = TRANSFORMER_PREFIX_MAX; n < sizeof value - 2; n++) {
            memset(value, 'a', sizeof value);
            value[0] = value[n + 1] = '"';
            value[n + 2] = '\0';
            write_config(&config, keys[side], value);
            snprintf(pointer, sizeof pointer, "/%s", keys[side]);
            if (n > TRANSFORMER_PREFIX_MAX)
                expect_refused(config.data, ERR_INVALID, pointer);
            else
                encoder_free(make(config.data, 1)); /* one [UNK] */
            buf_release(&config);
        }
    expect_refused("{" TRANSFORMER_KIT_MEMBERS ",\"max_tokens\":5,"
                   "\"item_prefix\":\"red green blue\"}",
        ERR_INVALID, "/item_prefix");
    expect_refused("{" TRANSFORMER_KIT_MEMBERS ",\"max_tokens\":5,"
                   "\"query_prefix\":\"red green blue\"}",
        ERR_INVALID, "/query_prefix");
    encoder_free(make("{" TRANSFORMER_KIT_MEMBERS ",\"max_tokens\":6,"
                      "\"query_prefix\":\"red green blue\"}",
        1));
    encoder_free(make("{" TRANSFORMER_KIT_MEMBERS ",\"max_tokens\":3}", 1));
}

static void
expect_unmade(enum err err, const struct fault *fault, enum err want,
    const char *pointer, const char *word)
{
    if (err != want || strstr(fault->detail, word) == NULL)
        print_error(
            "%s at \"%s\": %s\n", err_text(err), fault->pointer, fault->detail);
    assert_int_equal(err, want);
    assert_string_equal(fault->pointer, pointer);
    assert_non_null(strstr(fault->detail, word));
}

static enum err
build(struct encoder **out, const char *config, const char *asset,
    struct fault *fault)
{
    return encoder_build(
        out, "transformer", config, asset, strlen(asset), fault);
}

/* What is wrong with the tokenizer is not to be looked for in the settings. */
static void
test_assets_refused(void **state)
{
    struct encoder *e = NULL;
    struct fault f = {0};
    size_t len;
    const char *tokenizer = transformer_kit_tokenizer(&len);

    (void)state;
    expect_unmade(build(&e, TRANSFORMER_KIT_CONFIG, "", &f), &f, ERR_SYNTAX, "",
        "tokenizer");
    expect_unmade(build(&e, TRANSFORMER_KIT_CONFIG,
                      "{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", &f),
        &f, ERR_UNSUPPORTED, "", "tokenizer, at \"/model/type\": ");
    assert_non_null(strstr(f.detail, "BPE"));
    expect_unmade(encoder_build(&e, "transformer", TRANSFORMER_KIT_CONFIG,
                      tokenizer, ENCODER_ASSET_MAX_BYTES + 1, &f),
        &f, ERR_TOO_LARGE, "", "67108865 bytes");
    expect_unmade(encoder_build(&e, "static", "{}", tokenizer, len, &f), &f,
        ERR_UNSUPPORTED, "/family", "static");
    expect_unmade(encoder_build(&e, "oracle", "{}", tokenizer, len, &f), &f,
        ERR_UNSUPPORTED, "/family", "oracle");
    assert_int_equal(build(&e, "[]", tokenizer, &f), ERR_INVALID);
    assert_int_equal(build(&e, "7", tokenizer, &f), ERR_INVALID);
    assert_int_equal(build(&e, "[]", tokenizer, NULL), ERR_INVALID);
    assert_null(e);
}

/* Weights cannot be made up. */
static void
test_new_refused(void **state)
{
    struct encoder *made = make(TRANSFORMER_KIT_CONFIG, 1), *e = NULL;
    struct fault f = {0};
    struct buf config;

    (void)state;
    expect_unmade(
        encoder_new(&e, "transformer", TRANSFORMER_KIT_CONFIG, NULL, &f), &f,
        ERR_UNSUPPORTED, "", "import one");
    expect_unmade(encoder_new(&e, "transformer", "{}", NULL, &f), &f,
        ERR_UNSUPPORTED, "", "import one");
    expect_unmade(
        encoder_new(&e, "transformer", encoder_config_json(made), NULL, &f), &f,
        ERR_UNSUPPORTED, "", "import one");
    expect_unmade(encoder_load(&e, "transformer", encoder_config_json(made),
                      NULL, NULL, 0, &f),
        &f, ERR_UNSUPPORTED, "", "import one");
    write_config(&config, "tokenizer", "7");
    expect_unmade(encoder_new(&e, "transformer", config.data, NULL, &f), &f,
        ERR_INVALID, "/tokenizer", "");
    buf_release(&config);
    assert_null(e);
    encoder_free(made);
}

static void
expect_canonical(const char *config, const char *want)
{
    struct encoder *a = make(config, 3), *b;
    uint8_t digest[SHA256_BYTES], print_a[SHA256_BYTES], print_b[SHA256_BYTES];
    char hex[SHA256_HEX], whole[2048];
    size_t len;
    const char *tokenizer = transformer_kit_tokenizer(&len);

    sha256_of(tokenizer, len, digest);
    sha256_hex(digest, hex);
    snprintf(whole, sizeof whole, "{%s,\"tokenizer\":\"%s\",\"vocab\":%zu}",
        want, hex, (size_t)transformer_of(a)->net.config.vocab);
    assert_string_equal(encoder_config_json(a), whole);
    b = make(encoder_config_json(a), 3);
    assert_string_equal(encoder_config_json(b), whole);
    encoder_fingerprint(a, print_a);
    encoder_fingerprint(b, print_b);
    assert_memory_equal(print_a, print_b, SHA256_BYTES);
    encoder_free(a);
    encoder_free(b);
}

/* What is left out is filled in, and the whole makes the same encoder. */
static void
test_canonical_settings(void **state)
{
    (void)state;
    expect_canonical(TRANSFORMER_KIT_CONFIG,
        "\"act\":\"gelu\",\"compute\":\"f32\",\"dense\":0,\"dense_tanh\":true,"
        "\"dims\":32,\"embedding\":32,\"embedding_norm\":true,"
        "\"embedding_scale\":1,\"ffn\":64,\"heads\":2,\"hidden\":32,"
        "\"item_prefix\":\"\",\"layers\":2,\"max_positions\":24,"
        "\"max_tokens\":24,\"norm\":\"post\",\"norm_eps\":1e-12,"
        "\"normalise\":true,\"pooling\":\"mean\",\"position_offset\":0,"
        "\"positions\":\"learned\",\"query_prefix\":\"\",\"token_types\":2");
    expect_canonical(TRANSFORMER_KIT_OTHER,
        "\"act\":\"gelu_tanh\",\"compute\":\"f32\",\"dense\":48,"
        "\"dense_tanh\":false,\"dims\":48,\"embedding\":16,"
        "\"embedding_norm\":false,\"embedding_scale\":4.5,\"ffn\":48,"
        "\"heads\":1,\"hidden\":32,\"item_prefix\":\"\",\"layers\":2,"
        "\"max_positions\":30,\"max_tokens\":20,\"norm\":\"pre\","
        "\"norm_eps\":0.00001,\"normalise\":true,\"pooling\":\"cls\","
        "\"position_offset\":2,\"positions\":\"sinusoidal\","
        "\"query_prefix\":\"\",\"token_types\":0");
    expect_canonical("{" TRANSFORMER_KIT_MEMBERS
                     ",\"compute\":\"int8\",\"act\":\"relu\","
                     "\"pooling\":\"max\",\"normalise\":false,"
                     "\"position_offset\":2,\"embedding_scale\":22.627417,"
                     "\"query_prefix\":\"\\\"q\\\\\\u00e9: \"}",
        "\"act\":\"relu\",\"compute\":\"int8\",\"dense\":0,\"dense_tanh\":true,"
        "\"dims\":32,\"embedding\":32,\"embedding_norm\":true,"
        "\"embedding_scale\":22.627417,\"ffn\":64,\"heads\":2,\"hidden\":32,"
        "\"item_prefix\":\"\",\"layers\":2,\"max_positions\":24,"
        "\"max_tokens\":22,\"norm\":\"post\",\"norm_eps\":1e-12,"
        "\"normalise\":false,\"pooling\":\"max\",\"position_offset\":2,"
        "\"positions\":\"learned\",\"query_prefix\":\"\\\"q\\\\\xC3\xA9: \","
        "\"token_types\":2");
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

static void
save(const struct encoder *e, struct buf *out)
{
    buf_init(out, 1 << 20);
    assert_int_equal(encoder_save(e, write_buf, out), OK);
    assert_int_equal(buf_status(out), OK);
    assert_int_equal(out->len, encoder_save_bytes(e));
}

static enum err
load(struct encoder **out, const char *config, const char *bytes, size_t len,
    struct fault *fault)
{
    struct reader r = {.bytes = bytes, .len = len};
    memset(fault, 0, sizeof *fault);
    return encoder_load(out, "transformer", config, read_bytes, &r, len, fault);
}

static void
test_round_trip(void **state)
{
    static const char *const configs[] = {
        TRANSFORMER_KIT_PREFIXES, TRANSFORMER_KIT_OTHER};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(configs); i++) {
        struct encoder *e = make(configs[i], 3), *again = NULL;
        struct encoder_input text = text_of("cold river");
        struct buf bytes;
        struct fault fault;
        size_t n, m;
        uint8_t a[SHA256_BYTES], b[SHA256_BYTES];
        float out[DIMS_MAX], want[DIMS_MAX];

        save(e, &bytes);
        assert_int_equal(
            load(&again, encoder_config_json(e), bytes.data, bytes.len, &fault),
            OK);
        assert_true(encoder_is_trained(again));
        const float *p = encoder_params_const(e, &n);
        const float *q = encoder_params_const(again, &m);
        assert_int_equal(n, m);
        assert_memory_equal(p, q, n * sizeof *p);
        const char *asset = encoder_asset(e, &n);
        const char *same = encoder_asset(again, &m);
        assert_int_equal(n, m);
        assert_memory_equal(asset, same, n);
        encoder_fingerprint(e, a);
        encoder_fingerprint(again, b);
        assert_memory_equal(a, b, sizeof a);
        assert_string_equal(encoder_config_json(e), encoder_config_json(again));
        assert_int_equal(encoder_encode(e, &text, 1, want, NULL, NULL), OK);
        encoder_free(e);
        assert_int_equal(encoder_encode(again, &text, 1, out, NULL, NULL), OK);
        assert_memory_equal(out, want, encoder_dims(again) * sizeof *out);
        encoder_free(again);
        buf_release(&bytes);
    }
}

static void
expect_corrupt(
    const char *config, const char *bytes, size_t len, const char *named)
{
    struct encoder *e = NULL;
    struct fault fault;
    enum err err = load(&e, config, bytes, len, &fault);
    if (err != ERR_CORRUPT || strstr(fault.detail, named) == NULL)
        print_error(
            "%s: %s, wanted \"%s\"\n", err_text(err), fault.detail, named);
    assert_int_equal(err, ERR_CORRUPT);
    assert_int_equal(fault.err, ERR_CORRUPT);
    assert_non_null(strstr(fault.detail, named));
    assert_null(e);
}

/* The saved bytes with one text of the header, behind `after`, replaced. */
static void
edit_header(struct buf *out, const struct buf *bytes, const char *after,
    const char *from, const char *to)
{
    size_t n_header = 0;
    for (size_t i = 0; i < 8; i++)
        n_header |= (size_t)(unsigned char)bytes->data[i] << (8 * i);
    const char *at = strstr(bytes->data + 8, after);
    assert_non_null(at);
    at = strstr(at, from);
    assert_non_null(at);
    size_t before = (size_t)(at - bytes->data) - 8;
    assert_true(before < n_header);
    size_t n = n_header - strlen(from) + strlen(to);
    buf_init(out, 1 << 20);
    for (size_t i = 0; i < 8; i++)
        buf_add_char(out, (char)(n >> (8 * i)));
    buf_add(out, bytes->data + 8, before);
    buf_add_str(out, to);
    size_t rest = 8 + before + strlen(from);
    buf_add(out, bytes->data + rest, bytes->len - rest);
    assert_int_equal(buf_status(out), OK);
}

#define ASSET "\"tokenizer\":{"
#define ASSET_NAMED "\"tokenizer\""

static void
test_damaged(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_PREFIXES, 3);
    const char *config = encoder_config_json(e);
    struct buf bytes, edited;
    size_t len, n_params;
    (void)transformer_kit_tokenizer(&len);
    (void)encoder_params_const(e, &n_params);
    size_t at = n_params * sizeof(float);
    char shape[64], whole[256], moved[64], offsets[64];
    (void)state;

    save(e, &bytes);
    snprintf(shape, sizeof shape, "\"shape\":[%zu]", len);
    snprintf(offsets, sizeof offsets, "[%zu,%zu]", at, at + len);
    snprintf(moved, sizeof moved, "[%zu,%zu]", at - 4, at + len);
    snprintf(whole, sizeof whole,
        "," ASSET "\"dtype\":\"U8\",%s,\"data_offsets\":%s}", shape, offsets);
    const struct {
        const char *from, *to, *named;
    } edits[] = {
        {"\"U8\"", "\"I8\"", ASSET_NAMED},
        {"\"U8\"", "\"F32\"", ASSET_NAMED},
        {"\"dtype\":\"U8\",", "", ASSET_NAMED},
        {shape, "\"shape\":[1]", ASSET_NAMED},
        {shape, "\"shape\":[1,1]", ASSET_NAMED},
        {shape, "\"shape\":\"all\"", ASSET_NAMED},
        {offsets, moved, ASSET_NAMED},
        {offsets, "[0]", ASSET_NAMED},
        {"tokenizer", "tokenizes", "lack the \"tokenizer\""},
        {"{", "7,\"more\":{", ASSET_NAMED},
        {"{", "{},\"more\":{", ASSET_NAMED},
        {"}}", "},\"more\":{}}", "tensors, not"},
    };
    for (size_t i = 0; i < ARRAY_LEN(edits); i++) {
        edit_header(&edited, &bytes, ASSET, edits[i].from, edits[i].to);
        expect_corrupt(config, edited.data, edited.len, edits[i].named);
        buf_release(&edited);
    }
    edit_header(&edited, &bytes, "," ASSET, whole, ""); /* no asset at all */
    expect_corrupt(config, edited.data, edited.len - len, ASSET_NAMED);
    buf_release(&edited);
    edit_header(&edited, &bytes, "encoder.layer.1.", "F32", "F16");
    expect_corrupt(config, edited.data, edited.len, "encoder.layer.1.");
    buf_release(&edited);
    for (size_t i = 0; i < 3; i++) { /* one letter of the asset */
        size_t where = bytes.len - 1 - i * (len - 1) / 2;
        bytes.data[where] ^= 1;
        expect_corrupt(config, bytes.data, bytes.len, ASSET_NAMED);
        bytes.data[where] ^= 1;
    }
    for (size_t cut = 1; cut < bytes.len; cut += bytes.len / 23) {
        struct reader r = {.bytes = bytes.data, .len = bytes.len - cut};
        struct encoder *none = NULL;
        struct fault fault = {0};
        assert_int_equal(encoder_load(&none, "transformer", config, read_bytes,
                             &r, bytes.len, &fault),
            ERR_IO);
        assert_int_equal(
            load(&none, config, bytes.data, bytes.len - cut, &fault),
            ERR_CORRUPT);
        assert_null(none);
    }
    buf_add_char(&bytes, ' ');
    expect_corrupt(config, bytes.data, bytes.len, ASSET_NAMED);
    /* a header over 1 MiB is not even read */
    struct reader r = {.bytes = "\1\0\20\0\0\0\0\0", .len = 8};
    struct encoder *none = NULL;
    struct fault fault = {0};
    assert_int_equal(encoder_load(&none, "transformer", config, read_bytes, &r,
                         4 << 20, &fault),
        ERR_CORRUPT);
    assert_non_null(strstr(fault.detail, "claims 1048577"));
    buf_release(&bytes);
    encoder_free(e);
}

/* --------------------------------------------------------------- torture */

enum { N = 3 };

static void
count_token(void *arg, const char *token, size_t len, uint32_t id)
{
    size_t *n = arg;
    (void)token;
    (void)len;
    (void)id;
    ++*n;
}

static enum err
whole_life(const char *config, const struct buf *bytes)
{
    struct encoder *e = NULL, *clone = NULL;
    struct encoder_tape *tape = NULL;
    struct encoder_grads *grads = NULL;
    const struct encoder_input inputs[N] = {text_of("the old red cat"),
        text_of(""), {.text = "fish", .len = 4, .query = true}};
    size_t n_tokens = 0;
    struct fault fault;
    float out[N * D];
    struct buf saved;
    enum err err;

    buf_init(&saved, 1 << 20);
    err = transformer_kit_build(&e, TRANSFORMER_KIT_PREFIXES, 1, &fault);
    if (err == OK)
        err = encoder_clone(&clone, e);
    encoder_free(e);
    e = NULL;
    if (err == OK)
        err = load(&e, config, bytes->data, bytes->len, &fault);
    for (size_t n = 1; n <= N && err == OK; n += N - 1)
        err = encoder_encode(e, inputs, n, out, NULL, NULL);
    if (err == OK)
        err = encoder_tokenize(e, "the cat", 7, count_token, &n_tokens);
    if (err == OK)
        err = encoder_tape_new(&tape, clone);
    if (err == OK)
        err = encoder_grads_new(&grads, clone);
    for (size_t n = 1; n <= N && err == OK; n += N - 1) {
        err = encoder_forward(clone, tape, inputs, n, NULL, out, NULL);
        if (err == OK)
            err = encoder_backward(clone, tape, out, grads, NULL);
    }
    if (err == OK)
        err = encoder_save(clone, write_buf, &saved);
    if (err == OK)
        err = buf_status(&saved);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    encoder_free(e);
    encoder_free(clone);
    buf_release(&saved);
    return err;
}

static void
test_memory_runs_out(void **state)
{
    struct encoder *e = make(TRANSFORMER_KIT_PREFIXES, 3);
    struct buf bytes;

    (void)state;
    save(e, &bytes);
    for (uint64_t n = 1;; n++) {
        alloc_fail_at(n);
        enum err err = whole_life(encoder_config_json(e), &bytes);
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
    encoder_free(e);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings_refused),
        cmocka_unit_test(test_long_prefixes),
        cmocka_unit_test(test_assets_refused),
        cmocka_unit_test(test_new_refused),
        cmocka_unit_test(test_canonical_settings),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
