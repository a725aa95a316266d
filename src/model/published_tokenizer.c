/*
 * published_tokenizer.c - the tokenizer.json of a folder, as it is or made of
 * what older folders have.
 */
#include "model/published_parts.h"

#include <string.h>

#include "text/tokenizer.h"

#define LOWERCASE "{\"type\":\"Lowercase\"}"

/* ------------------------------------------------------------ vocab.txt */

/* The members of a tokenizer_config.json that BERT's cleaning takes. */
struct bert_options {
    bool lowercase, ideographs;
    const char *accents; /* "true", "false", "null": as lowercase */
};

static enum err
read_options(
    struct bert_options *out, const struct json *config, struct fault *fault)
{
    const struct json *accents = json_find(config, "strip_accents");
    bool strip = false;
    enum err err = OK;

    *out = (struct bert_options){true, true, "null"};
    if (config == NULL)
        return OK;
    err = json_get_bool(
        config, "", "do_lower_case", JSON_OPTIONAL, &out->lowercase, fault);
    if (err == OK)
        err = json_get_bool(config, "", "tokenize_chinese_chars", JSON_OPTIONAL,
            &out->ideographs, fault);
    if (err == OK && accents != NULL && json_kind(accents) != JSON_KIND_NULL) {
        err = json_get_bool(
            config, "", "strip_accents", JSON_REQUIRED, &strip, fault);
        out->accents = strip ? "true" : "false";
    }
    return err;
}

/* The number of a piece that the tokenizer has. */
static uint32_t
number_of(const struct tokenizer *t, const char *piece)
{
    size_t len, n = strlen(piece);

    for (uint32_t id = 0; id < tokenizer_n_ids(t); id++) {
        const char *s = tokenizer_piece(t, id, &len);
        if (s != NULL && len == n && memcmp(s, piece, n) == 0)
            return id;
    }
    return UINT32_MAX;
}

static void
put_added(struct buf *out, const struct tokenizer *t)
{
    static const char *const special[] = {
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    const char *comma = "";

    for (size_t i = 0; i < ARRAY_LEN(special); i++) {
        uint32_t id = number_of(t, special[i]);
        if (id == UINT32_MAX)
            continue;
        buf_printf(out,
            "%s{\"id\":%u,\"content\":\"%s\",\"single_word\":false,"
            "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
            "\"special\":true}",
            comma, id, special[i]);
        comma = ",";
    }
}

static void
put_bert(struct buf *out, const struct tokenizer *t,
    const struct bert_options *options)
{
    const char *comma = "";
    size_t len;

    buf_add_str(out, "{\"version\":\"1.0\",\"truncation\":null,"
                     "\"padding\":null,\"added_tokens\":[");
    put_added(out, t);
    buf_printf(out,
        "],\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
        "\"handle_chinese_chars\":%s,\"strip_accents\":%s,\"lowercase\":%s},"
        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},",
        options->ideographs ? "true" : "false", options->accents,
        options->lowercase ? "true" : "false");
    buf_printf(out,
        "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\","
        "%u],\"cls\":[\"[CLS]\",%u]},\"decoder\":{\"type\":\"WordPiece\","
        "\"prefix\":\"##\",\"cleanup\":true},",
        number_of(t, "[SEP]"), number_of(t, "[CLS]"));
    buf_add_str(out, "\"model\":{\"type\":\"WordPiece\",\"unk_token\":"
                     "\"[UNK]\",\"continuing_subword_prefix\":\"##\","
                     "\"max_input_chars_per_word\":100,\"vocab\":{");
    for (uint32_t id = 0; id < tokenizer_n_ids(t); id++, comma = ",") {
        const char *piece = tokenizer_piece(t, id, &len);
        buf_add_str(out, comma);
        buf_json_string(out, piece, len);
        buf_printf(out, ":%u", id);
    }
    buf_add_str(out, "}}}");
}

static enum err
from_vocab(struct buf *out, const char *folder,
    const struct published_source *from, struct fault *fault)
{
    char path[PUBLISHED_PATH_MAX];
    struct tokenizer *t = NULL;
    struct json *config = NULL;
    struct bert_options options;
    struct buf vocab;
    enum err err = published_path(path, folder, "vocab.txt", fault);

    if (err != OK)
        return err;
    buf_init(&vocab, TOKENIZER_FILE_BYTES_MAX);
    err = from->read(from->arg, path, &vocab, fault);
    if (err == ERR_NOT_FOUND)
        err = fault_set(
            fault, err, "", "there is neither tokenizer.json nor vocab.txt");
    else if (err == OK)
        err = published_blame(
            tokenizer_from_vocab(
                vocab.len == 0 ? "" : vocab.data, vocab.len, true, &t, fault),
            path, fault);
    else
        err = published_blame(err, path, fault);
    if (err == OK)
        err = published_tokenizer_config(&config, from, folder, fault);
    if (err == OK)
        err = published_blame(read_options(&options, config, fault),
            "tokenizer_config.json", fault);
    if (err == OK) {
        put_bert(out, t, &options);
        err = buf_status(out);
    }
    tokenizer_free(t);
    json_free(config);
    buf_release(&vocab);
    return err;
}

/* ------------------------------------------------------- tokenizer.json */

/* Does it make lower case of every text already? */
static bool
is_lowercase(const struct json *normalizer)
{
    const char *type = "";
    bool on = true;

    return normalizer != NULL && json_kind(normalizer) == JSON_KIND_OBJECT &&
           json_get_str(normalizer, "", "type", JSON_OPTIONAL, &type, NULL,
               NULL) == OK &&
           strcmp(type, "BertNormalizer") == 0 &&
           json_get_bool(
               normalizer, "", "lowercase", JSON_OPTIONAL, &on, NULL) == OK &&
           on;
}

/* The same tokenizer with Lowercase before all other steps. */
static enum err
put_lowercase(struct buf *out, struct fault *fault)
{
    struct json *root = NULL;
    struct buf text;
    enum err err =
        json_parse(out->data, out->len, out->max_bytes, &root, fault);

    if (err != OK)
        return err;
    const struct json *old = json_find(root, "normalizer");
    if (json_kind(root) != JSON_KIND_OBJECT || is_lowercase(old)) {
        json_free(root);
        return OK;
    }
    buf_init(&text, out->max_bytes);
    buf_add_str(&text,
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" LOWERCASE);
    if (old != NULL && json_kind(old) != JSON_KIND_NULL) {
        buf_add_char(&text, ',');
        json_dump(old, &text);
    }
    buf_add_str(&text, "]}");
    for (void *it = json_first(root); it != NULL; it = json_next(root, it)) {
        if (strcmp(json_it_key(it), "normalizer") == 0)
            continue;
        buf_add_char(&text, ',');
        buf_json_cstr(&text, json_it_key(it));
        buf_add_char(&text, ':');
        json_dump(json_it_value(it), &text);
    }
    buf_add_char(&text, '}');
    json_free(root);
    err = buf_status(&text);
    if (err == OK) {
        buf_clear(out);
        buf_add(out, text.data, text.len);
        err = buf_status(out);
    }
    buf_release(&text);
    return err;
}

/* A tokenizer.json as encoder_build will read it: here its faults get the
   file's name. */
static enum err
check_tokenizer(const struct buf *text, const char *path, struct fault *fault)
{
    struct tokenizer *t = NULL;
    enum err err = tokenizer_from_json(
        text->len == 0 ? "" : text->data, text->len, &t, fault);

    tokenizer_free(t);
    return published_blame(err, path, fault);
}

enum err
published_tokenizer_read(struct buf *out, const struct published_plan *plan,
    const struct published_source *source, struct fault *fault)
{
    const char *folder = plan->modules.transformer;
    char path[PUBLISHED_PATH_MAX];
    enum err err = published_path(path, folder, "tokenizer.json", fault);

    if (err != OK)
        return err;
    err = source->read(source->arg, path, out, fault);
    if (err == ERR_NOT_FOUND)
        err = from_vocab(out, folder, source, fault);
    else
        err = published_blame(err, path, fault);
    if (err == OK)
        err = check_tokenizer(out, path, fault);
    if (err == OK && plan->lowercase)
        err = published_blame(put_lowercase(out, fault), path, fault);
    return err;
}
