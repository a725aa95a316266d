/*
 * published_export.c - an encoder as a folder that sentence-transformers
 * loads: bert, xlm-roberta or distilbert where the network is one of theirs,
 * else "kindred" with all settings in config.json.
 */
#include "model/published.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fsio.h"
#include "model/published_parts.h"
#include "model/transformer_encoder.h"

#define POOLING "1_Pooling"
#define DENSE "2_Dense"
#define DISTILBERT_NORM_EPS 1e-12f

/* A folder on its way. */
struct folder {
    const struct transformer_encoder *e;
    const struct published_type *type; /* NULL: "kindred" */
    const struct json *tokenizer;
    const struct json *card; /* NULL: none */
    const char *dir, *name;
    int64_t pad; /* number of the pad token; -1: none */
};

/* The type's functions write one file each. */
typedef void write_fn(const struct folder *f, struct buf *out);

static const char *
truth(bool value)
{
    return value ? "true" : "false";
}

/* ------------------------------------------------------------- tokenizer */

/* What other programs call special, and the names that such tokens have. */
static const struct {
    const char *role, *names[2];
} specials[] = {{"pad_token", {"[PAD]", "<pad>"}},
    {"unk_token", {"[UNK]", "<unk>"}}, {"cls_token", {"[CLS]", "<s>"}},
    {"sep_token", {"[SEP]", "</s>"}}, {"mask_token", {"[MASK]", "<mask>"}}};

/* The added token of a name, or (NULL) of a number. */
static const struct json *
find_added(const struct json *tokenizer, const char *name, int64_t id)
{
    const struct json *list = json_find(tokenizer, "added_tokens");

    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *token = json_item(list, i);
        const struct json *content = json_find(token, "content");
        const struct json *number = json_find(token, "id");
        if (name != NULL ? strcmp(json_str(content, NULL), name) == 0
                         : json_i64(number) == id)
            return token;
    }
    return NULL;
}

/* The token that has a role; NULL: none. The pad token of a type whose
   positions begin behind it is the one of that number. */
static const struct json *
find_special(const struct folder *f, size_t role)
{
    uint32_t offset = f->e->net.config.position_offset;
    const struct json *token = NULL;

    if (role == 0 && offset > 0)
        return find_added(f->tokenizer, NULL, (int64_t)offset - 1);
    for (size_t i = 0; i < 2 && token == NULL; i++)
        token = find_added(f->tokenizer, specials[role].names[i], 0);
    return token;
}

static void
put_specials(const struct folder *f, struct buf *out, const char *comma)
{
    for (size_t i = 0; i < ARRAY_LEN(specials); i++) {
        const struct json *token = find_special(f, i);
        if (token == NULL)
            continue;
        buf_printf(out, "%s\"%s\":", comma, specials[i].role);
        buf_json_cstr(out, json_str(json_find(token, "content"), NULL));
        comma = ",";
    }
}

static void
put_special_tokens_map(const struct folder *f, struct buf *out)
{
    buf_add_char(out, '{');
    put_specials(f, out, "");
    buf_add_char(out, '}');
}

static void
put_tokenizer_config(const struct folder *f, struct buf *out)
{
    buf_printf(out,
        "{\"tokenizer_class\":\"PreTrainedTokenizerFast\","
        "\"model_max_length\":%zu,",
        encoder_max_tokens(&f->e->base));
    if (published_is_distilbert(f->type))
        buf_add_str(
            out, "\"model_input_names\":[\"input_ids\",\"attention_mask\"],");
    buf_add_str(out, "\"clean_up_tokenization_spaces\":false");
    put_specials(f, out, ",");
    buf_add_char(out, '}');
}

static void
put_tokenizer(const struct folder *f, struct buf *out)
{
    size_t n;
    const void *bytes = encoder_asset(&f->e->base, &n);

    buf_add(out, bytes, n);
}

/* --------------------------------------------------------------- config */

/* The published type that has this network exactly; NULL: none. */
static const struct published_type *
choose_type(const struct transformer_encoder *e, const struct json *tokenizer)
{
    const struct transformer_config *c = &e->net.config;
    bool plain = e->net.embedding == c->hidden && c->embedding_norm &&
                 c->positions == TRANSFORMER_POSITIONS_LEARNED &&
                 c->norm == TRANSFORMER_NORM_POST &&
                 !(fabsf(c->embedding_scale - 1) > 0) &&
                 (c->dense > 0 || c->dense_tanh);
    const char *name = "bert";

    if (!plain)
        return NULL;
    if (c->position_offset > 0)
        name =
            c->token_types > 0 && find_added(tokenizer, NULL,
                                      (int64_t)c->position_offset - 1) != NULL
                ? "xlm-roberta"
                : "";
    else if (c->token_types == 0)
        name = c->act != KERN_ACT_GELU_TANH &&
                       !(fabsf(c->norm_eps - DISTILBERT_NORM_EPS) > 0)
                   ? "distilbert"
                   : "";
    for (size_t i = 0; i < PUBLISHED_TYPES; i++) {
        if (strcmp(published_types[i].name, name) == 0)
            return &published_types[i];
    }
    return NULL;
}

/* Where the weights were published first. */
static void
put_source(const struct folder *f, struct buf *out)
{
    const struct json *source = json_find(f->card, "source");

    if (source == NULL || json_kind(source) != JSON_KIND_STRING)
        return;
    buf_add_str(out, "\"_name_or_path\":");
    json_dump(source, out);
    buf_add_char(out, ',');
}

static void
put_kindred(const struct folder *f, struct buf *out)
{
    buf_add_str(out, "{\"model_type\":\"kindred\",");
    put_source(f, out);
    buf_add_str(out, encoder_config_json(&f->e->base) + 1);
}

static void
put_config(const struct folder *f, struct buf *out)
{
    static const char *const acts[] = {[KERN_ACT_RELU] = "relu",
        [KERN_ACT_GELU] = "gelu",
        [KERN_ACT_GELU_TANH] = "gelu_new"};
    static const char *const computes[] = {
        [TRANSFORMER_BF16] = "bf16", [TRANSFORMER_INT8] = "int8"};
    const struct transformer_config *c = &f->e->net.config;
    const struct published_type *type = f->type;

    if (type == NULL) {
        put_kindred(f, out);
        return;
    }
    buf_printf(out, "{\"model_type\":\"%s\",\"architectures\":[\"%s\"],",
        type->name, type->architecture);
    put_source(f, out);
    buf_printf(out,
        "\"%s\":%u,\"%s\":%u,\"%s\":%u,\"%s\":%u,\"%s\":\"%s\","
        "\"vocab_size\":%u,\"max_position_embeddings\":%u,",
        type->layers, (unsigned)c->layers, type->hidden, (unsigned)c->hidden,
        type->heads, (unsigned)c->heads, type->ffn, (unsigned)c->ffn, type->act,
        acts[c->act], (unsigned)c->vocab, (unsigned)c->max_positions);
    if (type->token_types != NULL)
        buf_printf(
            out, "\"%s\":%u,", type->token_types, (unsigned)c->token_types);
    if (type->norm_eps != NULL) {
        buf_printf(out, "\"%s\":", type->norm_eps);
        buf_json_float(out, c->norm_eps);
        buf_add_char(out, ',');
    }
    if (f->pad >= 0)
        buf_printf(out, "\"pad_token_id\":%lld,", (long long)f->pad);
    if (f->e->compute != TRANSFORMER_F32)
        buf_printf(out, "\"kindred_compute\":\"%s\",", computes[f->e->compute]);
    buf_add_str(out, "\"torch_dtype\":\"float32\"}");
}

/* -------------------------------------------------------------- modules */

static void
put_module(struct buf *out, size_t i, const char *path, const char *type)
{
    buf_printf(out,
        "%s{\"idx\":%zu,\"name\":\"%zu\",\"path\":\"%s\","
        "\"type\":\"sentence_transformers.models.%s\"}",
        i == 0 ? "" : ",", i, i, path, type);
}

static void
put_modules(const struct folder *f, struct buf *out)
{
    const struct transformer_config *c = &f->e->net.config;

    buf_add_char(out, '[');
    put_module(out, 0, "", "Transformer");
    put_module(out, 1, POOLING, "Pooling");
    if (c->dense > 0)
        put_module(out, 2, DENSE, "Dense");
    if (c->normalise)
        put_module(out, c->dense > 0 ? 3 : 2,
            c->dense > 0 ? "3_Normalize" : "2_Normalize", "Normalize");
    buf_add_char(out, ']');
}

static void
put_pooling(const struct folder *f, struct buf *out)
{
    const struct transformer_config *c = &f->e->net.config;

    buf_printf(out,
        "{\"word_embedding_dimension\":%u,\"pooling_mode_cls_token\":%s,"
        "\"pooling_mode_mean_tokens\":%s,\"pooling_mode_max_tokens\":%s,"
        "\"pooling_mode_mean_sqrt_len_tokens\":false}",
        (unsigned)c->hidden, truth(c->pooling == TOKENPOOL_CLS),
        truth(c->pooling == TOKENPOOL_MEAN),
        truth(c->pooling == TOKENPOOL_MAX));
}

static void
put_dense(const struct folder *f, struct buf *out)
{
    const struct transformer_config *c = &f->e->net.config;

    buf_printf(out,
        "{\"in_features\":%u,\"out_features\":%u,\"bias\":true,"
        "\"activation_function\":\"torch.nn.modules.%s\"}",
        (unsigned)c->hidden, (unsigned)c->dense,
        c->dense_tanh ? "activation.Tanh" : "linear.Identity");
}

static void
put_length(const struct folder *f, struct buf *out)
{
    buf_printf(out, "{\"max_seq_length\":%zu,\"do_lower_case\":false}",
        encoder_max_tokens(&f->e->base));
}

static void
put_prompts(const struct folder *f, struct buf *out)
{
    buf_add_str(out, "{\"prompts\":{\"query\":");
    buf_json_string(out, f->e->prefix[1], f->e->prefix_len[1]);
    buf_add_str(out, ",\"document\":");
    buf_json_string(out, f->e->prefix[0], f->e->prefix_len[0]);
    buf_add_str(out, "},\"default_prompt_name\":null,"
                     "\"similarity_fn_name\":\"cosine\"}");
}

/* ----------------------------------------------------------------- card */

static void
put_card(const struct folder *f, struct buf *out)
{
    const struct json *license = json_find(f->card, "license");
    const struct json *languages = json_find(f->card, "languages");
    const struct json *source = json_find(f->card, "source");

    buf_add_str(out, "---\nlibrary_name: sentence-transformers\n"
                     "pipeline_tag: sentence-similarity\ntags:\n"
                     "- sentence-transformers\n- feature-extraction\n"
                     "- sentence-similarity\n");
    if (license != NULL && json_kind(license) == JSON_KIND_STRING) {
        buf_add_str(out, "license: ");
        json_dump(license, out);
        buf_add_char(out, '\n');
    }
    if (languages != NULL && json_count(languages) > 0) {
        buf_add_str(out, "language: ");
        json_dump(languages, out);
        buf_add_char(out, '\n');
    }
    buf_printf(out,
        "---\n# %s\n\nA sentence encoder of %zu dimensions for texts of at "
        "most %zu tokens, written by kindred.\n",
        f->name, encoder_dims(&f->e->base), encoder_max_tokens(&f->e->base));
    if (source != NULL && json_kind(source) == JSON_KIND_STRING)
        buf_printf(out, "It began as %s.\n", json_str(source, NULL));
    if (f->type == NULL)
        buf_add_str(out, "\nIts network is of no published type: config.json "
                         "is kindred's own, which kindred imports.\n");
    else
        buf_add_str(out,
            "\n```python\nfrom sentence_transformers import "
            "SentenceTransformer\n\nmodel = SentenceTransformer(\".\")\n"
            "vectors = model.encode([\"a sentence\", \"another one\"])\n"
            "```\n");
}

/* --------------------------------------------------------------- writing */

static enum err
write_file(const struct folder *f, const char *folder, const char *name,
    write_fn *write, struct fault *fault)
{
    char path[4096];
    struct buf text;
    int n = snprintf(path, sizeof path, "%s/%s%s%s", f->dir, folder,
        folder[0] == '\0' ? "" : "/", name);

    if (n < 0 || (size_t)n >= sizeof path)
        return fault_set(
            fault, ERR_INVALID, "", "the path is too long: %.64s", f->dir);
    buf_init(&text, TOKENIZER_FILE_BYTES_MAX);
    write(f, &text);
    enum err err = buf_status(&text);
    if (err == OK)
        err = fsio_write_atomic(path, text.data, text.len, fault);
    buf_release(&text);
    return err;
}

static enum err
make_dir(const struct folder *f, const char *folder, struct fault *fault)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", f->dir, folder);

    if (n < 0 || (size_t)n >= sizeof path)
        return fault_set(
            fault, ERR_INVALID, "", "the path is too long: %.64s", f->dir);
    return fsio_make_dir(path, fault);
}

static enum err
write_files(const struct folder *f, struct fault *fault)
{
    static const struct {
        const char *folder, *name;
        write_fn *write;
    } files[] = {{"", "modules.json", put_modules},
        {"", "config.json", put_config},
        {"", "sentence_bert_config.json", put_length},
        {"", "config_sentence_transformers.json", put_prompts},
        {"", "tokenizer.json", put_tokenizer},
        {"", "tokenizer_config.json", put_tokenizer_config},
        {"", "special_tokens_map.json", put_special_tokens_map},
        {"", "README.md", put_card}, {POOLING, "config.json", put_pooling},
        {DENSE, "config.json", put_dense}};
    bool dense = f->e->net.config.dense > 0;
    size_t n = ARRAY_LEN(files) - (dense ? 0 : 1);
    enum err err = make_dir(f, POOLING, fault);

    if (err == OK && dense)
        err = make_dir(f, DENSE, fault);
    for (size_t i = 0; i < n && err == OK; i++)
        err = write_file(
            f, files[i].folder, files[i].name, files[i].write, fault);
    if (err == OK)
        err = published_weights_write(
            &f->e->base, f->dir, f->type, dense ? DENSE : NULL, fault);
    return err;
}

static enum err
export_transformer(const struct transformer_encoder *e, const char *dir,
    const char *name, const char *card, struct fault *fault)
{
    struct json *tokenizer = NULL, *said = NULL;
    size_t n;
    const char *asset = encoder_asset(&e->base, &n);
    enum err err =
        json_parse(asset, n, TOKENIZER_FILE_BYTES_MAX, &tokenizer, fault);

    if (err == OK && card != NULL)
        err = json_parse(card, strlen(card), PUBLISHED_FILE_MAX, &said, fault);
    if (err == OK) {
        struct folder f = {.e = e,
            .type = choose_type(e, tokenizer),
            .tokenizer = tokenizer,
            .card = said,
            .dir = dir,
            .name = name,
            .pad = -1};
        const struct json *pad = find_special(&f, 0);
        if (pad != NULL)
            f.pad = json_i64(json_find(pad, "id"));
        err = write_files(&f, fault);
    }
    json_free(tokenizer);
    json_free(said);
    return err;
}

enum err
published_export(const struct encoder *encoder, const char *dir,
    const char *name, const char *card, struct fault *fault)
{
    const char *family = encoder_family(encoder);

    if (encoder_adapter_const(encoder) != NULL)
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "an adapter maps queries alone, which a published folder cannot "
            "say: export the generation before it");
    if (strcmp(family, "transformer") == 0)
        return export_transformer(
            transformer_of(encoder), dir, name, card, fault);
    if (strcmp(family, "static") == 0)
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "an encoder of family \"static\" hashes the words and n-grams of "
            "any text, and its published form, StaticEmbedding, has a closed "
            "vocabulary: there is no folder with the same vectors");
    return fault_set(fault, ERR_UNSUPPORTED, "",
        "encoders of family \"%s\" have no published form", family);
}
