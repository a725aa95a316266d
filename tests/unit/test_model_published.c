/*
 * Goal: a published folder is imported exactly or refused with the file and the
 * reason, and what is exported is imported as the same encoder.
 * Method: the small folder of tests/data/published with weights made here; one
 * text of a file in the place of another for everything that is accepted and
 * everything that is refused; networks of all published types there and back;
 * failing allocations and writes. Below KINDRED_DATA: the files of
 * all-MiniLM-L6-v2 with weights made here, and use-lite against its vectors.
 */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/fsio.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "model/published.h"
#include "model/safetensors.h"
#include "model/transformer_encoder.h"
#include "tests/support/use_lite_folder.h"

#define DATA "tests/data/published"
#define DIMS 32
#define WORDS 326
#define MODULES_WITH(module)                                                   \
    "[{\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"  \
    "{\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models."         \
    "Pooling\"}," module "]"
#define MODULE(path, type)                                                     \
    "{\"path\":\"" path "\",\"type\":\"sentence_transformers.models." type "\"}"

static char dir[] = "/tmp/kindred-published-XXXXXX";
static char other[] = "/tmp/kindred-published-out-XXXXXX";

/* ---------------------------------------------------------------- folders */

/* All below a folder. */
static void
empty_folder(const char *path)
{
    DIR *d = opendir(path);
    const struct dirent *entry;

    assert_non_null(d);
    while ((entry = readdir(d)) != NULL) {
        char full[512];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int n = snprintf(full, sizeof full, "%s/%s", path, entry->d_name);
        assert_true(n > 0 && (size_t)n < sizeof full);
        if (unlink(full) != 0) {
            empty_folder(full);
            assert_int_equal(rmdir(full), 0);
        }
    }
    assert_int_equal(closedir(d), 0);
}

static void
read_text(const char *from, const char *name, struct buf *out)
{
    char path[512];

    buf_init(out, 1 << 26);
    (void)snprintf(path, sizeof path, "%s/%s", from, name);
    assert_int_equal(fsio_read(path, out, NULL), OK);
}

static void
put(const char *name, const char *text)
{
    char path[512];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    (void)mkdir(path, 0700);
    *slash = '/';
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void
drop(const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(remove(path), 0);
}

static const char *const names[] = {"modules.json", "config.json",
    "sentence_bert_config.json", "config_sentence_transformers.json",
    "1_Pooling/config.json", "tokenizer.json", "tokenizer_config.json",
    "README.md"};

/* The folder of tests/data anew, without weights. */
static void
fresh(void)
{
    empty_folder(dir);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf text;
        read_text(DATA, names[i], &text);
        put(names[i], text.data);
        buf_release(&text);
    }
}

/* The first `from` of a file becomes `to`; NULL from: all of it, NULL to: the
   file is not there. */
static void
edit(const char *name, const char *from, const char *to)
{
    struct buf text, out;

    if (to == NULL) {
        drop(name);
        return;
    }
    if (from == NULL) {
        put(name, to);
        return;
    }
    read_text(dir, name, &text);
    const char *at = strstr(text.data, from);
    if (at == NULL)
        print_error("no %s in %s\n", from, name);
    assert_non_null(at);
    buf_init(&out, 1 << 26);
    buf_add(&out, text.data, (size_t)(at - text.data));
    buf_add_str(&out, to);
    buf_add_str(&out, at + strlen(from));
    put(name, out.data);
    buf_release(&text);
    buf_release(&out);
}

/* ---------------------------------------------------------------- weights */

/* The network of tests/data. */
static const struct transformer_config tiny = {.layers = 2,
    .hidden = DIMS,
    .heads = 2,
    .ffn = 64,
    .vocab = WORDS,
    .max_positions = 64,
    .token_types = 2,
    .embedding_scale = 1,
    .embedding_norm = true,
    .norm_eps = 1e-12f,
    .act = KERN_ACT_GELU,
    .pooling = TOKENPOOL_MEAN,
    .dense_tanh = true,
    .normalise = true};

/* How a file differs from the plain one. */
struct style {
    const char *prefix;
    enum safetensors_type type;
    const char *without;            /* a tensor's name */
    const char *more, *more2;       /* surplus tensors */
    const char *wrong;              /* one row more */
    const char *nan;                /* a NaN in it */
    const char *as, *instead;       /* one tensor's other name */
    bool older;                     /* gamma and beta */
    const char *const *layer_names; /* in our order; NULL: ours */
};

/* A tensor's name in such a file; NULL: not in it. */
static const char *
styled_name(
    char out[256], const char *name, const struct style *style, size_t *layer_i)
{
    const char *prefix = style->prefix == NULL ? "" : style->prefix;
    const char *norm = strstr(name, "LayerNorm.");
    unsigned layer;

    if (style->without != NULL && strcmp(style->without, name) == 0)
        return NULL;
    if (style->as != NULL && strcmp(style->as, name) == 0)
        name = style->instead;
    (void)snprintf(out, 256, "%s%s", prefix, name);
    if (style->older && norm != NULL)
        (void)snprintf(out, 256, "%s%.*s%s", prefix, (int)(norm + 10 - name),
            name, norm[10] == 'w' ? "gamma" : "beta");
    if (style->layer_names != NULL &&
        sscanf(name, "encoder.layer.%u.", &layer) == 1)
        (void)snprintf(out, 256, "%stransformer.layer.%u.%s", prefix, layer,
            style->layer_names[(*layer_i)++ % 16]);
    return out;
}

static void
write_values(
    FILE *file, const float *values, size_t n, enum safetensors_type type)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        uint16_t half = (uint16_t)(bits >> 16);
        if (type == SAFETENSORS_F32)
            assert_int_equal(fwrite(&values[i], 4, 1, file), 1);
        else
            assert_int_equal(fwrite(&half, 2, 1, file), 1);
    }
}

static void
write_tensors(const char *path, const struct encoder_tensor *tensors, size_t n,
    const float *params, const struct style *style)
{
    const char *const more[] = {style->more, style->more2};
    struct safetensors_head head;
    char name[256];
    size_t layer_i = 0;
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    safetensors_begin(&head);
    for (size_t i = 0; i < n; i++) {
        const char *wrong = style->wrong == NULL ? "" : style->wrong;
        size_t shape[2] = {tensors[i].dims[0], tensors[i].dims[1]};
        if (styled_name(name, tensors[i].name, style, &layer_i) == NULL)
            continue;
        shape[0] -= strcmp(tensors[i].name, wrong) == 0 ? 1 : 0;
        safetensors_add(
            &head, name, style->type, shape, tensors[i].dims[1] > 0 ? 2 : 1);
    }
    for (size_t i = 0; i < 2; i++)
        if (more[i] != NULL)
            safetensors_add(
                &head, more[i], SAFETENSORS_I64, (const size_t[]){1, 2}, 2);
    assert_int_equal(safetensors_end(&head), OK);
    assert_int_equal(
        fwrite(head.text.data, 1, head.text.len, file), head.text.len);
    for (size_t i = 0; i < n; i++) {
        const char *nan = style->nan == NULL ? "" : style->nan;
        const char *wrong = style->wrong == NULL ? "" : style->wrong;
        size_t rows = tensors[i].dims[0];
        if (styled_name(name, tensors[i].name, style, &layer_i) == NULL)
            continue;
        rows -= strcmp(tensors[i].name, wrong) == 0 ? 1 : 0;
        size_t count = rows * MAX(tensors[i].dims[1], (size_t)1);
        float *values = calloc(count, sizeof *values);
        memcpy(values, params + tensors[i].start, count * sizeof *values);
        if (strcmp(tensors[i].name, nan) == 0)
            values[count - 1] = NAN;
        write_values(file, values, count, style->type);
        free(values);
    }
    for (size_t i = 0; i < 2; i++)
        if (more[i] != NULL)
            write_values(file, params, 4, SAFETENSORS_F32);
    assert_int_equal(fclose(file), 0);
    safetensors_head_release(&head);
}

/* Weights for a network, its dense head in 2_Dense; gives the parameters. */
static float *
make_weights(const struct transformer_config *config, const struct style *style,
    size_t *n_params)
{
    static const struct style plain = {.prefix = NULL};
    static struct encoder_tensor tensors[2048];
    struct transformer t;
    struct rng rng;
    char path[512];

    assert_int_equal(transformer_plan(&t, config, NULL), OK);
    float *params = calloc(t.n_params, sizeof *params);
    rng_seed(&rng, 7);
    for (size_t i = 0; i < t.n_params; i++) {
        uint32_t bits;
        params[i] = rng_float(&rng) - 0.5f;
        memcpy(&bits, &params[i], 4);
        bits &= 0xFFFF0000; /* so that BF16 has it */
        memcpy(&params[i], &bits, 4);
    }
    size_t n = transformer_tensors(&t, tensors, ARRAY_LEN(tensors));
    assert_true(n <= ARRAY_LEN(tensors));
    size_t n_head = config->dense > 0 ? 2 : 0;
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_tensors(
        path, tensors, n - n_head, params, style == NULL ? &plain : style);
    if (n_head > 0) {
        (void)snprintf(path, sizeof path, "%s/2_Dense", dir);
        (void)mkdir(path, 0700);
        (void)snprintf(path, sizeof path, "%s/2_Dense/model.safetensors", dir);
        write_tensors(path, tensors + n - n_head, n_head, params,
            style == NULL ? &plain : style);
    }
    *n_params = t.n_params;
    return params;
}

static struct encoder *
import(const char *from)
{
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    enum err err = published_import(&encoder, from, NULL, &fault);

    if (err != OK)
        print_error("%s: %s\n", err_text(err), fault.detail);
    assert_int_equal(err, OK);
    assert_non_null(encoder);
    return encoder;
}

static void
expect_params(const struct encoder *encoder, const float *params, size_t n)
{
    size_t n_params;
    const float *have = encoder_params_const(encoder, &n_params);

    assert_int_equal(n_params, n);
    assert_memory_equal(have, params, n * sizeof *have);
}

/* The folder's encoder has these settings, and the parameters made for it. */
static void
expect_network(const struct transformer_config *config,
    const struct style *style, const char *settings)
{
    size_t n;
    float *params = make_weights(config, style, &n);
    struct encoder *encoder = import(dir);

    expect_params(encoder, params, n);
    if (strstr(encoder_config_json(encoder), settings) == NULL)
        print_error("%s not in %s\n", settings, encoder_config_json(encoder));
    assert_non_null(strstr(encoder_config_json(encoder), settings));
    encoder_free(encoder);
    free(params);
}

/* ----------------------------------------------------------------- import */

static void
vector_of(
    const struct encoder *encoder, const char *text, bool query, float *out)
{
    struct encoder_input input = {
        .text = text, .len = strlen(text), .query = query};

    assert_int_equal(encoder_encode(encoder, &input, 1, out, NULL, NULL), OK);
}

static void
test_import(void **state)
{
    static const char *const settings =
        "{\"act\":\"gelu\",\"compute\":\"f32\",\"dense\":0,"
        "\"dense_tanh\":true,\"dims\":32,\"embedding\":32,"
        "\"embedding_norm\":true,\"embedding_scale\":1,\"ffn\":64,\"heads\":2,"
        "\"hidden\":32,\"item_prefix\":\"passage: \",\"layers\":2,"
        "\"max_positions\":64,\"max_tokens\":48,\"norm\":\"post\","
        "\"norm_eps\":1e-12,\"normalise\":true,\"pooling\":\"mean\","
        "\"position_offset\":0,\"positions\":\"learned\","
        "\"query_prefix\":\"query: \",\"token_types\":2,\"tokenizer\":\"";
    struct encoder *encoder = NULL;
    struct buf card;
    float a[DIMS], b[DIMS];
    size_t n, n_asset;

    (void)state;
    fresh();
    float *params = make_weights(&tiny, NULL, &n);
    buf_init(&card, 4096);
    assert_int_equal(published_import(&encoder, dir, &card, NULL), OK);
    assert_string_equal(card.data, "{\"source\":\"example/tiny\",\"license\":"
                                   "\"mit\",\"languages\":[\"en\",\"de\"]}");
    expect_params(encoder, params, n);
    assert_int_equal(
        strncmp(encoder_config_json(encoder), settings, strlen(settings)), 0);
    struct buf file;
    read_text(DATA, "tokenizer.json", &file);
    const char *asset = encoder_asset(encoder, &n_asset);
    assert_int_equal(n_asset, file.len);
    assert_memory_equal(asset, file.data, n_asset);
    assert_true(encoder_is_trained(encoder));
    vector_of(encoder, "Bread and tea.", true, a);
    vector_of(encoder, "bread AND tea.", true, b);
    assert_memory_equal(a, b, sizeof a);
    vector_of(encoder, "Bread and tea.", false, b);
    assert_memory_not_equal(a, b, sizeof a);
    buf_release(&file);
    buf_release(&card);
    encoder_free(encoder);
    free(params);
}

static void
test_styles(void **state)
{
    static const struct style styles[] = {{.prefix = "bert."},
        {.prefix = "0.auto_model."}, {.type = SAFETENSORS_BF16},
        {.older = true, .prefix = "bert."},
        {.more = "pooler.dense.weight", .more2 = "embeddings.position_ids"},
        {.prefix = "bert.",
            .more = "cls.predictions.bias",
            .more2 = "bert.pooler.dense.bias"},
        {.prefix = "roberta.", .more = "lm_head.bias"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(styles); i++) {
        fresh();
        expect_network(&tiny, &styles[i], "\"layers\":2");
    }
}

static void
test_accepted(void **state)
{
    static const struct {
        const char *name, *from, *to, *settings;
    } cases[] = {{"modules.json", NULL, NULL, "\"pooling\":\"mean\""},
        {"modules.json", NULL, NULL, "\"normalise\":true"},
        {"modules.json", NULL, MODULES_WITH(MODULE("n", "Normalize")),
            "\"normalise\":true"},
        {"modules.json", "Normalize\"\n", "Normalize\"\n,\"more\":{}",
            "\"normalise\":true"},
        {"1_Pooling/config.json", NULL, "{\"pooling_mode_cls_token\":true}",
            "\"pooling\":\"cls\""},
        {"1_Pooling/config.json", NULL, "{\"pooling_mode_max_tokens\":true}",
            "\"pooling\":\"max\""},
        {"1_Pooling/config.json", NULL, "{\"pooling_mode\":\"max\"}",
            "\"pooling\":\"max\""},
        {"config.json", "\"gelu\"", "\"gelu_new\"", "\"act\":\"gelu_tanh\""},
        {"config.json", "\"gelu\"", "\"gelu_pytorch_tanh\"",
            "\"act\":\"gelu_tanh\""},
        {"config.json", "\"gelu\"", "\"relu\"", "\"act\":\"relu\""},
        {"config.json", "1e-12", "1e-5", "\"norm_eps\":0.00001"},
        {"config.json", "\"layer_norm_eps\": 1e-12,", "", "\"norm_eps\":1e-12"},
        {"config.json", "\"use_cache\"", "\"is_decoder\":false,\"use_cache\"",
            ""},
        {"config.json", "\"use_cache\"", "\"pruned_heads\":{},\"use_cache\"",
            ""},
        {"config.json", "\"use_cache\"",
            "\"kindred_compute\":\"int8\",\"use_cache\"",
            "\"compute\":\"int8\""},
        {"sentence_bert_config.json", "48", "512", "\"max_tokens\":64"},
        {"sentence_bert_config.json", "48", "null", "\"max_tokens\":64"},
        {"sentence_bert_config.json", NULL, NULL, "\"max_tokens\":64"},
        {"tokenizer_config.json", NULL, NULL, "\"max_tokens\":48"},
        {"config_sentence_transformers.json", NULL, NULL,
            "\"query_prefix\":\"\""},
        {"config_sentence_transformers.json", "\"query\"", "\"other\"",
            "\"query_prefix\":\"\""},
        {"config_sentence_transformers.json", "\"passage\"", "\"document\"",
            "\"item_prefix\":\"passage: \""},
        {"config_sentence_transformers.json", "\"passage\"", "\"corpus\"",
            "\"item_prefix\":\"passage: \""},
        {"config_sentence_transformers.json", "\"passage\"", "\"item\"",
            "\"item_prefix\":\"passage: \""},
        {"config_sentence_transformers.json", NULL,
            "{\"prompts\":{\"x\":\"all: \",\"query\":\"\"},"
            "\"default_prompt_name\":\"x\"}",
            "\"item_prefix\":\"all: \""},
        {"config_sentence_transformers.json", NULL,
            "{\"prompts\":{\"x\":\"all: \",\"query\":\"\"},"
            "\"default_prompt_name\":\"x\"}",
            "\"query_prefix\":\"\""},
        {"README.md", NULL, NULL, ""},
        {"README.md", NULL, "---\nlicense:\n", ""}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t n;
        fresh();
        free(make_weights(&tiny, NULL, &n));
        edit(cases[i].name, cases[i].from, cases[i].to);
        struct encoder *encoder = import(dir);
        if (strstr(encoder_config_json(encoder), cases[i].settings) == NULL)
            print_error("case %zu: %s\n", i, encoder_config_json(encoder));
        assert_non_null(
            strstr(encoder_config_json(encoder), cases[i].settings));
        encoder_free(encoder);
    }
}

/* Older folders have the network's files in a folder of their own. */
static void
test_subfolder(void **state)
{
    static const char *const moved[] = {"config.json", "tokenizer.json",
        "sentence_bert_config.json", "model.safetensors"};
    char from[512], to[512];
    size_t n;

    (void)state;
    fresh();
    float *params = make_weights(&tiny, NULL, &n);
    edit("modules.json", "\"path\": \"\"", "\"path\": \"0_Transformer\"");
    put("0_Transformer/vocab.txt", "");
    for (size_t i = 0; i < ARRAY_LEN(moved); i++) {
        (void)snprintf(from, sizeof from, "%s/%s", dir, moved[i]);
        (void)snprintf(to, sizeof to, "%s/0_Transformer/%s", dir, moved[i]);
        assert_int_equal(rename(from, to), 0);
    }
    struct encoder *encoder = import(dir);
    expect_params(encoder, params, n);
    assert_int_equal(encoder_max_tokens(encoder), 48);
    encoder_free(encoder);
    free(params);
}

/* The limits that only the length of the tokenizer says. */
static void
test_model_max_length(void **state)
{
    size_t n;

    (void)state;
    fresh();
    free(make_weights(&tiny, NULL, &n));
    edit("sentence_bert_config.json", NULL, "{}");
    edit("tokenizer_config.json", NULL,
        "{\"a\":\"\\\"1234567890123456789012\",\"model_max_length\":17}");
    struct encoder *encoder = import(dir);
    assert_int_equal(encoder_max_tokens(encoder), 17);
    encoder_free(encoder);
}

static void
test_types(void **state)
{
    static const char *const distilbert[] = {"attention.q_lin.weight",
        "attention.k_lin.weight", "attention.v_lin.weight",
        "attention.q_lin.bias", "attention.k_lin.bias", "attention.v_lin.bias",
        "attention.out_lin.weight", "attention.out_lin.bias",
        "sa_layer_norm.weight", "sa_layer_norm.bias", "ffn.lin1.weight",
        "ffn.lin1.bias", "ffn.lin2.weight", "ffn.lin2.bias",
        "output_layer_norm.weight", "output_layer_norm.bias"};
    static const struct style style = {
        .layer_names = distilbert, .more = "vocab_projector.bias"};
    struct transformer_config config = tiny;

    (void)state;
    fresh();
    edit("config.json", "\"bert\"", "\"xlm-roberta\"");
    config.position_offset = 1; /* pad_token_id is 0 */
    edit("sentence_bert_config.json", "48", "64");
    expect_network(&config, NULL, "\"max_tokens\":63");
    edit("config.json", "\"xlm-roberta\"", "\"roberta\"");
    edit("config.json", "\"pad_token_id\": 0,", "");
    expect_network(&config, NULL, "\"position_offset\":2");
    fresh();
    edit("config.json", NULL,
        "{\"model_type\":\"distilbert\",\"dim\":32,\"n_layers\":2,"
        "\"n_heads\":2,\"hidden_dim\":64,\"activation\":\"gelu\","
        "\"vocab_size\":326,\"max_position_embeddings\":64}");
    config = tiny;
    config.token_types = 0;
    expect_network(&config, &style, "\"token_types\":0");
}

static void
test_dense(void **state)
{
    struct transformer_config config = tiny;
    static const struct style no_bias = {.without = "linear.bias"};
    size_t n, n_params;

    (void)state;
    config.dense = 16;
    fresh();
    edit("modules.json", NULL, MODULES_WITH(MODULE("2_Dense", "Dense")));
    put("2_Dense/config.json",
        "{\"in_features\":32,\"out_features\":16,\"bias\":true,"
        "\"activation_function\":\"torch.nn.modules.activation.Tanh\"}");
    expect_network(&config, NULL, "\"dense\":16,\"dense_tanh\":true");
    expect_network(&config, NULL, "\"normalise\":false");
    edit("2_Dense/config.json", "activation.Tanh", "linear.Identity");
    expect_network(&config, NULL, "\"dense\":16,\"dense_tanh\":false");
    edit("2_Dense/config.json", "true", "false");
    free(make_weights(&config, &no_bias, &n));
    struct encoder *encoder = import(dir);
    const float *params = encoder_params_const(encoder, &n_params);
    assert_int_equal(n_params, n);
    for (size_t i = n - 16; i < n; i++)
        assert_true(fpclassify(params[i]) == FP_ZERO);
    encoder_free(encoder);
}

/* ------------------------------------------------------------- tokenizers */

/* vocab.txt in the place of tokenizer.json. */
static void
put_vocab(const char *more)
{
    struct tokenizer *t;
    struct buf file, text;
    size_t len;

    read_text(DATA, "tokenizer.json", &file);
    assert_int_equal(tokenizer_from_json(file.data, file.len, &t, NULL), OK);
    buf_init(&text, 1 << 20);
    for (uint32_t i = 0; i < tokenizer_n_ids(t); i++) {
        const char *piece = tokenizer_piece(t, i, &len);
        buf_add(&text, piece, len);
        buf_add_char(&text, '\n');
    }
    buf_add_str(&text, more);
    put("vocab.txt", text.data);
    tokenizer_free(t);
    buf_release(&file);
    buf_release(&text);
}

static void
test_vocab(void **state)
{
    static const char *const texts[] = {"Bread, and TEA!", "caf\xC3\xA9 x[SEP]",
        "\xE4\xBD\xA0\xE5\xA5\xBD", ""};
    float a[DIMS], b[DIMS];
    size_t n;

    (void)state;
    fresh();
    free(make_weights(&tiny, NULL, &n));
    struct encoder *one = import(dir);
    put_vocab("");
    drop("tokenizer.json");
    struct encoder *two = import(dir);
    edit("tokenizer_config.json", "\"do_lower_case\": true",
        "\"do_lower_case\": false, \"strip_accents\": true");
    struct encoder *three = import(dir);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        vector_of(one, texts[i], true, a);
        vector_of(two, texts[i], true, b);
        assert_memory_equal(a, b, sizeof a);
        vector_of(three, texts[i], true, b);
        assert_int_equal(memcmp(a, b, sizeof a) != 0, i == 0);
    }
    encoder_free(one);
    encoder_free(two);
    encoder_free(three);
}

/* do_lower_case of the folder makes lower case before any tokenizer. */
static void
test_lowercase(void **state)
{
    static const char *const normalizers[] = {
        "{\"type\":\"BertNormalizer\",\"lowercase\":false}", "null",
        "{\"type\":\"NFKC\"}"};
    float a[DIMS], b[DIMS];
    size_t n, n_asset;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(normalizers); i++) {
        fresh();
        free(make_weights(&tiny, NULL, &n));
        edit("tokenizer.json",
            "{\"type\":\"BertNormalizer\",\"clean_text\":true,"
            "\"handle_chinese_chars\":true,\"strip_accents\":null,"
            "\"lowercase\":true}",
            normalizers[i]);
        struct encoder *cased = import(dir);
        edit("sentence_bert_config.json", "false", "true");
        struct encoder *lower = import(dir);
        vector_of(cased, "bread", true, a);
        vector_of(cased, "BREAD", true, b);
        assert_memory_not_equal(a, b, sizeof a);
        vector_of(lower, "BREAD", true, b);
        assert_memory_equal(a, b, sizeof a);
        encoder_free(cased);
        encoder_free(lower);
    }
    fresh();
    free(make_weights(&tiny, NULL, &n));
    edit("sentence_bert_config.json", "false", "true");
    struct encoder *same = import(dir);
    struct buf file;
    read_text(DATA, "tokenizer.json", &file);
    (void)encoder_asset(same, &n_asset);
    assert_int_equal(n_asset, file.len); /* it was lower case already */
    buf_release(&file);
    encoder_free(same);
}

/* --------------------------------------------------------------- refusals */

struct refusal {
    const char *name, *from, *to;
    enum err err;
    const char *why;
};

static void
expect_refusal(const struct refusal *r)
{
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    enum err err = published_import(&encoder, dir, NULL, &fault);

    if (err != r->err || strstr(fault.detail, r->why) == NULL)
        print_error("%s, %s -> %s: %s, \"%s\"\n", r->name,
            r->from == NULL ? "all" : r->from, r->to == NULL ? "none" : r->to,
            err_text(err), fault.detail);
    assert_int_equal(err, r->err);
    assert_int_equal(fault.err, err);
    assert_non_null(strstr(fault.detail, r->why));
    assert_null(encoder);
    assert_int_equal(published_import(&encoder, dir, NULL, NULL), err);
}

static void
expect_refusals(const struct refusal *cases, size_t n_cases)
{
    for (size_t i = 0; i < n_cases; i++) {
        size_t n;
        fresh();
        free(make_weights(&tiny, NULL, &n));
        edit(cases[i].name, cases[i].from, cases[i].to);
        expect_refusal(&cases[i]);
    }
}

static void
test_modules_refused(void **state)
{
    static const char m[] = "modules.json", p[] = "1_Pooling/config.json";
    static const struct refusal cases[] = {
        {m, NULL, "{}", ERR_INVALID, "modules.json: not a list"},
        {m, NULL, "[", ERR_INVALID, "modules.json"},
        {m, NULL, "[]", ERR_UNSUPPORTED, "modules.json"},
        {m, NULL, "[7]", ERR_INVALID, "modules.json"},
        {m, NULL, "[{}]", ERR_INVALID, "type"},
        {m, "\"1_Pooling\"", "\"../1_Pooling\"", ERR_INVALID, "leaves"},
        {m, "\"1_Pooling\"", "\"a/..\"", ERR_INVALID, "leaves"},
        {m, "\"1_Pooling\"", "\"/tmp\"", ERR_INVALID, "absolute"},
        {m, "\"1_Pooling\"", "\"none\"", ERR_NOT_FOUND, "none/config.json"},
        {m, "models.Pooling", "models.LSTM", ERR_UNSUPPORTED, "models.LSTM"},
        {m, "sentence_transformers.models.Pooling", "my.Pooling",
            ERR_UNSUPPORTED, "my.Pooling"},
        {m, "models.Normalize", "models.Transformer", ERR_UNSUPPORTED,
            "Transformer behind Pooling"},
        {m, "models.Transformer", "models.Pooling", ERR_UNSUPPORTED,
            "Pooling behind nothing"},
        {m, "models.Pooling", "models.Normalize", ERR_UNSUPPORTED,
            "Normalize behind Transformer"},
        {m, NULL,
            MODULES_WITH(MODULE("n", "Normalize") "," MODULE("n", "Dense")),
            ERR_UNSUPPORTED, "Dense behind Normalize"},
        {m, NULL, "[" MODULE("", "Transformer") "]", ERR_UNSUPPORTED,
            "Pooling"},
        {m, NULL, "[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8]", ERR_TOO_LARGE,
            "17 modules"},
        {p, NULL, "{}", ERR_INVALID, "no pooling"},
        {p, NULL, "[]", ERR_INVALID, p},
        {p, "max_tokens\": false", "max_tokens\": true", ERR_UNSUPPORTED,
            "several"},
        {p, "sqrt_len_tokens\": false", "sqrt_len_tokens\": true",
            ERR_UNSUPPORTED, "pooling_mode_mean_sqrt_len_tokens"},
        {p, NULL, "{\"pooling_mode_weightedmean_tokens\":true}",
            ERR_UNSUPPORTED, "pooling_mode_weightedmean_tokens"},
        {p, NULL, "{\"pooling_mode_lasttoken\":true}", ERR_UNSUPPORTED,
            "pooling_mode_lasttoken"},
        {p, NULL, "{\"pooling_mode\":\"lasttoken\"}", ERR_UNSUPPORTED,
            "lasttoken"},
        {p, "{", "{\"include_prompt\":false,", ERR_UNSUPPORTED,
            "include_prompt"},
        {p, "{", "{\"include_prompt\":0,", ERR_INVALID, "include_prompt"},
    };
    char path[512];

    (void)state;
    expect_refusals(cases, ARRAY_LEN(cases));
    fresh();
    drop("config.json");
    (void)snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(mkfifo(path, 0600), 0); /* which nobody writes to */
    expect_refusal(&(struct refusal){"config.json", NULL, NULL, ERR_INVALID,
        "config.json: not a regular file"});
}

static void
test_config_refused(void **state)
{
    static const char c[] = "config.json";
    static const struct refusal cases[] = {
        {c, NULL, NULL, ERR_NOT_FOUND, "config.json"},
        {c, NULL, "nonsense", ERR_INVALID, "config.json"},
        {c, NULL, "[]", ERR_INVALID, "config.json: not a JSON object"},
        {c, "\"bert\"", "\"mpnet\"", ERR_UNSUPPORTED, "\"mpnet\""},
        {c, "\"model_type\"", "\"other_type\"", ERR_INVALID, "model_type"},
        {c, "\"absolute\"", "\"relative_key\"", ERR_UNSUPPORTED,
            "relative_key"},
        {c, "\"use_cache\"", "\"is_decoder\":true,\"use_cache\"",
            ERR_UNSUPPORTED, "is_decoder"},
        {c, "\"use_cache\"", "\"add_cross_attention\":true,\"use_cache\"",
            ERR_UNSUPPORTED, "add_cross_attention"},
        {c, "\"use_cache\"", "\"auto_map\":{\"a\":\"b\"},\"use_cache\"",
            ERR_UNSUPPORTED, "auto_map"},
        {c, "\"use_cache\"",
            "\"quantization_config\":{\"a\":\"b\"},\"use_cache\"",
            ERR_UNSUPPORTED, "quantization_config"},
        {c, "\"use_cache\"", "\"pruned_heads\":{\"0\":[1]},\"use_cache\"",
            ERR_UNSUPPORTED, "pruned_heads"},
        {c, "\"gelu\"", "\"silu\"", ERR_UNSUPPORTED, "silu"},
        {c, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000",
            ERR_INVALID, "num_hidden_layers"},
        {c, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", ERR_INVALID,
            "num_hidden_layers"},
        {c, "\"hidden_size\": 32", "\"hidden_size\": 1000000000", ERR_INVALID,
            "hidden_size"},
        {c, "\"hidden_size\": 32", "\"hidden_size\": 33", ERR_INVALID,
            "hidden"},
        {c, "\"hidden_size\": 32,", "", ERR_INVALID, "hidden_size"},
        {c, "\"num_attention_heads\": 2", "\"num_attention_heads\": 3",
            ERR_INVALID, "heads"},
        {c, "\"vocab_size\": 326", "\"vocab_size\": 322", ERR_INVALID,
            "322 rows"},
        {c, "\"vocab_size\": 326", "\"vocab_size\": -1", ERR_INVALID,
            "vocab_size"},
        {c, "\"type_vocab_size\": 2", "\"type_vocab_size\": 1000", ERR_INVALID,
            "type_vocab_size"},
        {c, "1e-12", "\"1e-12\"", ERR_INVALID, "layer_norm_eps"},
        {c, "1e-12", "0", ERR_INVALID, "norm_eps"},
        {c, "\"use_cache\"", "\"kindred_compute\":\"fp8\",\"use_cache\"",
            ERR_INVALID, "fp8"},
        {"sentence_bert_config.json", "48", "0", ERR_INVALID,
            "sentence_bert_config.json: /max_seq_length"},
        {"sentence_bert_config.json", "48", "\"48\"", ERR_INVALID,
            "max_seq_length"},
        {"sentence_bert_config.json", "48", "2", ERR_INVALID, "max_tokens"},
        {"sentence_bert_config.json", "false", "0", ERR_INVALID,
            "do_lower_case"},
        {"config_sentence_transformers.json", NULL, "{\"prompts\":[]}",
            ERR_INVALID, "prompts"},
        {"config_sentence_transformers.json", "\"query: \"", "7", ERR_INVALID,
            "query"},
        {"config_sentence_transformers.json", "null", "\"none\"", ERR_INVALID,
            "default_prompt_name"},
        {"tokenizer.json", NULL, NULL, ERR_NOT_FOUND, "tokenizer.json"},
        {"tokenizer.json", NULL, "", ERR_INVALID, "tokenizer.json"},
        {"tokenizer.json", "WordPiece\",\"unk", "BPE\",\"unk", ERR_UNSUPPORTED,
            "tokenizer.json: /model/type"},
        {"README.md", NULL, "---\nlicense: [", ERR_NOT_FOUND,
            "model.safetensors"},
    };

    (void)state;
    expect_refusals(cases, ARRAY_LEN(cases) - 1);
    fresh();
    expect_refusal(&cases[ARRAY_LEN(cases) - 1]);
    fresh();
    edit("config.json", "\"bert\"", "\"roberta\"");
    edit("config.json", "\"pad_token_id\": 0", "\"pad_token_id\": 63");
    expect_refusal(&(struct refusal){
        "config.json", NULL, NULL, ERR_INVALID, "64 positions"});
    fresh();
    edit("sentence_bert_config.json", NULL, "{}");
    edit("tokenizer_config.json", NULL, "{\"model_max_length\":\"7\"}");
    expect_refusal(&(struct refusal){
        "tokenizer_config.json", NULL, NULL, ERR_INVALID, "model_max_length"});
}

static void
test_tokenizers_refused(void **state)
{
    static const struct refusal twice = {"vocab.txt", NULL, "x", ERR_INVALID,
                                    "vocab.txt"},
                                flag = {"tokenizer_config.json", NULL, "x",
                                    ERR_INVALID,
                                    "tokenizer_config.json: /do_lower_case"};
    size_t n;

    (void)state;
    fresh();
    free(make_weights(&tiny, NULL, &n));
    drop("tokenizer.json");
    put_vocab("the\n");
    expect_refusal(&twice);
    put_vocab("");
    edit("tokenizer_config.json", "true", "1");
    expect_refusal(&flag);
}

static void
test_dense_refused(void **state)
{
    static const char d[] = "2_Dense/config.json";
    static const struct refusal cases[] = {
        {d, "Tanh", "ReLU", ERR_UNSUPPORTED, "ReLU"},
        {d, "16", "0", ERR_INVALID, "out_features"},
        {d, "16", "17", ERR_INVALID, "dense"},
        {d, "32", "16", ERR_INVALID, "in_features"},
        {d, "true", "false", ERR_UNSUPPORTED, "linear.bias"},
        {d, "16", "32", ERR_INVALID, "2_Dense/model.safetensors"},
        {"2_Dense/model.safetensors", NULL, NULL, ERR_NOT_FOUND,
            "2_Dense/model.safetensors"},
        {"modules.json", "Dense\"},",
            "Dense\"}," MODULE("2_Dense", "Dense") ",", ERR_UNSUPPORTED,
            "Dense behind Dense"}};
    struct transformer_config config = tiny;
    size_t n;

    (void)state;
    config.dense = 16;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fresh();
        free(make_weights(&config, NULL, &n));
        edit("modules.json", NULL,
            MODULES_WITH(
                MODULE("2_Dense", "Dense") "," MODULE("n", "Normalize")));
        put(d, "{\"in_features\":32,\"out_features\":16,\"bias\":true,"
               "\"activation_function\":\"torch.nn.modules.activation.Tanh\"}");
        edit(cases[i].name, cases[i].from, cases[i].to);
        expect_refusal(&cases[i]);
    }
}

static void
test_weights_refused(void **state)
{
#define QUERY "encoder.layer.1.attention.self.query.weight"
    static const struct {
        struct style style;
        enum err err;
        const char *why;
    } cases[] = {{{.without = QUERY}, ERR_INVALID, "no tensor \"" QUERY "\""},
        {{.prefix = "bert.", .without = QUERY}, ERR_INVALID,
            "no tensor \"bert." QUERY "\""},
        {{.without = "embeddings.word_embeddings.weight"}, ERR_INVALID,
            "word_embeddings"},
        {{.more = "encoder.layer.2.output.dense.bias"}, ERR_UNSUPPORTED,
            "encoder.layer.2.output.dense.bias"},
        {{.more = "linear.bias"}, ERR_UNSUPPORTED, "linear.bias"},
        {{.wrong = QUERY}, ERR_INVALID, QUERY},
        {{.wrong = "embeddings.LayerNorm.bias"}, ERR_INVALID,
            "embeddings.LayerNorm.bias"},
        {{.nan = "output.dense.bias", .without = "x"}, OK, ""},
        {{.nan = QUERY}, ERR_CORRUPT, QUERY},
        {{.nan = QUERY, .type = SAFETENSORS_BF16}, ERR_CORRUPT, QUERY},
        {{.type = SAFETENSORS_I16}, ERR_UNSUPPORTED, "I16"},
        {{.as = QUERY, .instead = "encoder.layer.1.x"}, ERR_INVALID, QUERY}};
    size_t n;
    char path[512];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct refusal r = {
            path, "style", cases[i].why, cases[i].err, cases[i].why};
        fresh();
        free(make_weights(&tiny, &cases[i].style, &n));
        if (r.err == OK)
            encoder_free(import(dir));
        else
            expect_refusal(&r);
    }
    fresh();
    put("pytorch_model.bin", "x");
    expect_refusal(&(struct refusal){
        path, NULL, NULL, ERR_UNSUPPORTED, "python3 -c 'import torch"});
    struct fault fault = {0};
    struct encoder *encoder = NULL;
    assert_int_equal(
        published_import(&encoder, dir, NULL, &fault), ERR_UNSUPPORTED);
    assert_non_null(strstr(fault.detail, "{\"format\": \"pt\"})'"));
    drop("pytorch_model.bin");
    put("model.safetensors.index.json", "{}");
    expect_refusal(
        &(struct refusal){path, NULL, NULL, ERR_UNSUPPORTED, "several files"});
    put("model.safetensors", "xxxxxxxxxxxx");
    expect_refusal(&(struct refusal){
        path, NULL, NULL, ERR_CORRUPT, "model.safetensors: the header"});
}

/* ----------------------------------------------------------------- export */

/* A settings text is built with random weights, exported, imported: all of it
   is the same, and config.json is of the type. */
static void
round_trip(const char *settings, const char *type)
{
    struct encoder *encoder = NULL, *again = NULL;
    struct fault fault = {0};
    struct buf asset, card, config;
    uint8_t print_a[SHA256_BYTES], print_b[SHA256_BYTES];
    static const char said[] = "{\"source\":\"a/b\",\"license\":\"mit\","
                               "\"languages\":[\"en\",\"fr\"]}";
    struct rng rng;
    size_t n, n_again;

    empty_folder(other);
    read_text(DATA, "tokenizer.json", &asset);
    enum err err = encoder_build(
        &encoder, "transformer", settings, asset.data, asset.len, &fault);
    if (err != OK)
        print_error("%s: %s %s\n", settings, fault.pointer, fault.detail);
    assert_int_equal(err, OK);
    float *params = encoder_params(encoder, &n);
    rng_seed(&rng, 3);
    for (size_t i = 0; i < n; i++)
        params[i] = (float)rng_normal(&rng);
    encoder_seal(encoder);
    err = published_export(encoder, other, "tiny", said, &fault);
    if (err != OK)
        print_error("export: %s\n", fault.detail);
    assert_int_equal(err, OK);
    buf_init(&card, 4096);
    err = published_import(&again, other, &card, &fault);
    if (err != OK)
        print_error("%s: %s\n", settings, fault.detail);
    assert_int_equal(err, OK);
    assert_string_equal(card.data, said);
    read_text(other, "config.json", &config);
    if (strstr(config.data, type) == NULL)
        print_error("%s\n", config.data);
    assert_non_null(strstr(config.data, type));
    assert_string_equal(
        encoder_config_json(encoder), encoder_config_json(again));
    const float *b = encoder_params_const(again, &n_again);
    assert_int_equal(n, n_again);
    assert_memory_equal(params, b, n * sizeof *b);
    encoder_fingerprint(encoder, print_a);
    encoder_fingerprint(again, print_b);
    assert_memory_equal(print_a, print_b, sizeof print_a);
    buf_release(&asset);
    buf_release(&card);
    buf_release(&config);
    encoder_free(encoder);
    encoder_free(again);
}

#define TINY                                                                   \
    "\"layers\":2,\"hidden\":32,\"heads\":2,\"ffn\":64,\"vocab\":326,"         \
    "\"max_positions\":64"
#define TYPE(type) "\"model_type\":\"" type "\""

static void
test_round_trips(void **state)
{
    static const struct {
        const char *settings, *type;
    } cases[] = {
        {"{" TINY ",\"token_types\":2}", TYPE("bert")},
        {"{" TINY ",\"token_types\":1,\"position_offset\":1}",
            TYPE("xlm-roberta")},
        {"{" TINY "}", TYPE("distilbert")},
        {"{" TINY ",\"act\":\"relu\"}", TYPE("distilbert")},
        {"{" TINY ",\"act\":\"gelu_tanh\"}", TYPE("kindred")},
        {"{" TINY ",\"norm_eps\":1e-5}", TYPE("kindred")},
        /* no added token has number 9 */
        {"{" TINY ",\"token_types\":1,\"position_offset\":10}",
            TYPE("kindred")},
        {"{" TINY ",\"position_offset\":1}", TYPE("kindred")},
        {"{" TINY ",\"token_types\":2,\"dense_tanh\":false}", TYPE("kindred")},
        {"{" TINY ",\"token_types\":2,\"embedding_scale\":2}", TYPE("kindred")},
        {"{" TINY ",\"token_types\":2,\"embedding_norm\":false}",
            TYPE("kindred")},
        {"{" TINY ",\"token_types\":2,\"embedding\":64}", TYPE("kindred")},
        {"{" TINY ",\"token_types\":2,\"positions\":\"sinusoidal\"}",
            TYPE("kindred")},
        {"{" TINY ",\"norm\":\"pre\",\"dense\":16,\"pooling\":\"max\"}",
            TYPE("kindred")},
        {"{" TINY ",\"norm\":\"pre\",\"normalise\":false,"
         "\"query_prefix\":\"\xC3\xA9\\\"\"}",
            TYPE("kindred")},
        {"{" TINY ",\"token_types\":2,\"dense\":16,\"dense_tanh\":false,"
         "\"normalise\":false,\"pooling\":\"cls\",\"compute\":\"int8\"}",
            TYPE("bert")},
        {"{" TINY ",\"token_types\":3,\"dense\":48,\"pooling\":\"max\","
         "\"act\":\"gelu_tanh\",\"norm_eps\":1e-5,\"max_tokens\":31,"
         "\"query_prefix\":\"query: \\\"\xC3\xA9\\u0001\","
         "\"item_prefix\":\"i \",\"compute\":\"bf16\"}",
            TYPE("bert")},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        round_trip(cases[i].settings, cases[i].type);
}

/* A kindred config.json and its modules must not say different things. */
static void
test_kindred(void **state)
{
    static const char settings[] = "{\"model_type\":\"kindred\"," TINY
                                   ",\"token_types\":2,\"normalise\":true}";
    static const struct refusal cases[] = {
        {"config.json", "\"normalise\":true", "\"normalise\":false",
            ERR_INVALID, "modules.json"},
        {"config.json", "\"normalise\":true", "\"pooling\":\"cls\"",
            ERR_INVALID, "modules.json"},
        {"config.json", "\"normalise\":true", "\"dense\":16", ERR_INVALID,
            "modules.json"},
        {"config.json", "\"normalise\":true", "\"norm\":\"both\"", ERR_INVALID,
            "config.json: /norm"},
        {"config.json", "\"normalise\":true", "\"surplus\":1", ERR_INVALID,
            "config.json: /surplus"},
        {"config.json", "\"layers\":2", "\"layers\":1000000000", ERR_INVALID,
            "config.json: /layers"},
        {"config.json", "\"normalise\":true", "\"tokenizer\":\"00\"",
            ERR_INVALID, "SHA-256"}};
    size_t n;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fresh();
        free(make_weights(&tiny, NULL, &n));
        put("config.json", settings);
        edit(cases[i].name, cases[i].from, cases[i].to);
        expect_refusal(&cases[i]);
    }
    fresh();
    put("config.json", settings);
    drop("modules.json");
    expect_network(&tiny, NULL, "\"max_tokens\":64");
}

static void
test_export_refused(void **state)
{
    static const struct {
        const char *family, *config, *why;
    } cases[] = {
        {"static", "{\"dims\":32,\"buckets\":1024}", "StaticEmbedding"},
        {"vision", "{\"input\":28,\"channels\":1,\"width\":16,\"stages\":1}",
            "vision"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct encoder *encoder;
        struct fault fault = {0};
        assert_int_equal(
            encoder_new(&encoder, cases[i].family, cases[i].config, NULL, NULL),
            OK);
        assert_int_equal(published_export(encoder, other, "x", NULL, &fault),
            ERR_UNSUPPORTED);
        assert_non_null(strstr(fault.detail, cases[i].why));
        encoder_free(encoder);
    }
    size_t n;
    struct encoder *adapted, *encoder;
    struct fault fault = {0};
    fresh();
    free(make_weights(&tiny, NULL, &n));
    encoder = import(dir);
    assert_int_equal(encoder_with_adapter(&adapted, encoder), OK);
    assert_int_equal(published_export(adapted, other, "x", NULL, &fault),
        ERR_UNSUPPORTED);
    assert_non_null(strstr(fault.detail, "adapter"));
    encoder_free(adapted);
    encoder_free(encoder);
}

/* A failed write, and every fortieth failing allocation. */
static void
test_failures(void **state)
{
    struct encoder *encoder, *again = NULL;
    struct buf card;
    enum err err = ERR_IO;
    size_t n;

    (void)state;
    fresh();
    free(make_weights(&tiny, NULL, &n));
    encoder = import(dir);
    for (uint64_t i = 1; err != OK; i++) {
        struct fault fault = {0};
        empty_folder(other);
        (void)fsio_fail_at(i);
        err = published_export(encoder, other, "x", NULL, &fault);
        (void)fsio_fail_at(0);
        assert_true(err == OK || (err == ERR_IO && fault.err == ERR_IO));
        assert_true(i < 100);
    }
    err = ERR_NOMEM;
    for (uint64_t i = 1; err != OK; i += i < 100 ? 1 : 40) {
        (void)alloc_fail_at(i);
        buf_init(&card, 4096);
        err = published_import(&again, dir, &card, NULL);
        (void)alloc_fail_at(0);
        assert_true(err == OK || (err == ERR_NOMEM && card.len == 0));
        buf_release(&card);
    }
    encoder_free(again);
    err = ERR_NOMEM;
    for (uint64_t i = 1; err != OK; i += i < 100 ? 1 : 40) {
        empty_folder(other);
        (void)alloc_fail_at(i);
        err = published_export(encoder, other, "x", "{}", NULL);
        (void)alloc_fail_at(0);
        assert_true(err == OK || err == ERR_NOMEM);
    }
    encoder_free(encoder);
}

/* ------------------------------------------------------ published folders */

/* A folder below KINDRED_DATA, or skip. */
static void
find_data(char path[512], const char *model, const char *file)
{
    const char *data = getenv("KINDRED_DATA");
    char full[600];

    (void)snprintf(path, 512, "%s/models/%s", data == NULL ? "" : data, model);
    (void)snprintf(full, sizeof full, "%s/%s", path, file);
    if (data == NULL || access(full, R_OK) != 0) {
        print_message("SKIPPED: KINDRED_DATA does not name a folder with "
                      "models/%s/%s\n",
            model, file);
        skip();
    }
}

static void
test_minilm(void **state)
{
    static const char *const files[] = {"modules.json", "config.json",
        "sentence_bert_config.json", "config_sentence_transformers.json",
        "1_Pooling/config.json", "tokenizer.json", "tokenizer_config.json",
        "vocab.txt", "README.md"};
    struct transformer_config config = tiny;
    struct encoder *encoder = NULL;
    struct buf card;
    char from[512];
    float a[384], b[384];
    size_t n;

    (void)state;
    find_data(from, "all-MiniLM-L6-v2-noweights", "config.json");
    empty_folder(dir);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct buf text;
        read_text(from, files[i], &text);
        put(files[i], text.data);
        buf_release(&text);
    }
    config.layers = 6;
    config.hidden = 384;
    config.heads = 12;
    config.ffn = 1536;
    config.vocab = 30522;
    config.max_positions = 512;
    float *params = make_weights(&config, NULL, &n);
    buf_init(&card, 4096);
    assert_int_equal(published_import(&encoder, dir, &card, NULL), OK);
    expect_params(encoder, params, n);
    assert_int_equal(encoder_max_tokens(encoder), 256);
    assert_string_equal(card.data,
        "{\"source\":\"nreimers/MiniLM-L6-H384-uncased\","
        "\"license\":\"apache-2.0\",\"languages\":[\"en\"]}");
    drop("tokenizer.json"); /* and vocab.txt means the same */
    struct encoder *again = import(dir);
    vector_of(encoder,
        "Gr\xC3\xBC\xC3\x9F"
        "e, \xE4\xBD\xA0 [MASK] tokenizers",
        true, a);
    vector_of(again,
        "Gr\xC3\xBC\xC3\x9F"
        "e, \xE4\xBD\xA0 [MASK] tokenizers",
        true, b);
    assert_memory_equal(a, b, sizeof a);
    buf_release(&card);
    encoder_free(encoder);
    encoder_free(again);
    free(params);
}

/* Expected ids, in the order of the tokens. */
struct ids {
    const struct json *list;
    size_t n;
};

static void
compare_id(void *arg, const char *token, size_t len, uint32_t id)
{
    struct ids *ids = arg;

    (void)token;
    (void)len;
    assert_true(ids->n < json_count(ids->list));
    assert_int_equal(id, json_i64(json_item(ids->list, ids->n)));
    ids->n++;
}

static void
test_use_lite(void **state)
{
    struct fault fault = {0};
    struct buf file;
    struct json *golden;
    char from[512];

    (void)state;
    find_data(from, "use-lite", "model.safetensors");
    empty_folder(other);
    enum err err = use_lite_folder(from, other, &fault);
    if (err != OK)
        print_error("%s: %s\n", fault.pointer, fault.detail);
    assert_int_equal(err, OK);
    struct encoder *encoder = import(other);
    read_text(from, "golden.json", &file);
    assert_int_equal(
        json_parse(file.data, file.len, file.len, &golden, NULL), OK);
    assert_true(json_count(golden) > 10);
    for (size_t i = 0; i < json_count(golden); i++) {
        const struct json *entry = json_item(golden, i);
        const struct json *want = json_find(entry, "embedding");
        const char *text = json_str(json_find(entry, "text"), NULL);
        struct ids ids = {json_find(entry, "ids"), 0};
        float have[512];
        double dot = 0, norm = 0;

        assert_int_equal(
            encoder_tokenize(encoder, text, strlen(text), compare_id, &ids),
            OK);
        assert_int_equal(ids.n, json_count(ids.list));
        vector_of(encoder, text, false, have);
        for (size_t j = 0; j < 512; j++) {
            double v = json_f64(json_item(want, j));
            dot += v * (double)have[j];
            norm += v * v;
        }
        if (ids.n == 0)
            continue; /* no token, no vector */
        if (!(1 - dot / sqrt(norm) <= 1e-5))
            print_error("%s: cosine %.9f\n", text, dot / sqrt(norm));
        assert_true(1 - dot / sqrt(norm) <= 1e-5);
    }
    json_free(golden);
    buf_release(&file);
    encoder_free(encoder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_styles),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_subfolder),
        cmocka_unit_test(test_model_max_length),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_vocab),
        cmocka_unit_test(test_lowercase),
        cmocka_unit_test(test_modules_refused),
        cmocka_unit_test(test_config_refused),
        cmocka_unit_test(test_tokenizers_refused),
        cmocka_unit_test(test_dense_refused),
        cmocka_unit_test(test_weights_refused),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_kindred),
        cmocka_unit_test(test_export_refused),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_minilm),
        cmocka_unit_test(test_use_lite),
    };

    kern_init();
    if (mkdtemp(dir) == NULL || mkdtemp(other) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    empty_folder(dir);
    empty_folder(other);
    (void)rmdir(dir);
    (void)rmdir(other);
    return failed;
}
