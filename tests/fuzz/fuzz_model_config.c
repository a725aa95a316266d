/*
 * fuzz_model_config - the configurations of a published folder, any bytes.
 *
 * The input is the files one behind the other with a byte 0xFF between them,
 * which UTF-8 has not, in the order of the list below; a file that is missing
 * or empty is not there. Of a path only the last part counts, and whether it is
 * in a folder that begins with 1, 2 or otherwise.
 *
 * Checked beside the absence of crashes: no path that is asked for leaves the
 * folder; a refusal is a documented one and has its reason; what is accepted
 * are settings in JSON, which make an encoder or are refused with a reason, and
 * a card in JSON. Networks that are large are not made.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "model/published_parts.h"
#include "model/transformer_encoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

#define LARGE 256

static const char *const names[] = {"modules.json", "config.json",
    "1/config.json", "2/config.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "tokenizer_config.json", "README.md",
    "vocab.txt", "tokenizer.json"};

static const char tokenizer[] =
    "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1}}}";

struct input {
    const uint8_t *data;
    size_t size;
};

/* The file's place in the list. */
static size_t
place_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *last = slash == NULL ? path : slash + 1;
    size_t i = 0;

    if (slash != NULL && strcmp(last, "config.json") == 0 &&
        (path[0] == '1' || path[0] == '2'))
        return path[0] == '1' ? 2 : 3;
    while (i < ARRAY_LEN(names) && strcmp(names[i], last) != 0)
        i++;
    return i;
}

static enum err
read_input(void *arg, const char *path, struct buf *out, struct fault *fault)
{
    const struct input *input = arg;
    size_t at = 0, place = place_of(path), n;

    MUST(path[0] != '/' && strstr(path, "/../") == NULL);
    MUST(strncmp(path, "../", 3) != 0);
    for (size_t i = 0; i < place && at < input->size; i++) {
        while (at < input->size && input->data[at] != 0xFF)
            at++;
        at += at < input->size;
    }
    for (n = 0; at + n < input->size && input->data[at + n] != 0xFF; n++)
        continue;
    if (n == 0)
        return fault_set(fault, ERR_NOT_FOUND, "", "not there");
    buf_add(out, input->data + at, n);
    return buf_status(out);
}

static void
check_refusal(enum err err, const struct fault *fault)
{
    MUST(err == ERR_NOT_FOUND || err == ERR_UNSUPPORTED || err == ERR_INVALID ||
         err == ERR_TOO_LARGE);
    MUST(fault->err == err && fault->detail[0] != '\0');
}

/* Is the network one that is quickly made? */
static bool
is_small(const struct json *settings)
{
    for (void *it = json_first(settings); it != NULL;
         it = json_next(settings, it)) {
        const struct json *value = json_it_value(it);
        if (json_kind(value) == JSON_KIND_INT && json_i64(value) > LARGE)
            return false;
    }
    return true;
}

static void
check_settings(const struct published_plan *plan)
{
    struct json *settings = NULL;
    struct encoder *encoder = NULL;
    struct fault fault = {0};

    MUST(json_parse(plan->settings.data, plan->settings.len,
             PUBLISHED_SETTINGS_MAX, &settings, NULL) == OK);
    MUST(json_kind(settings) == JSON_KIND_OBJECT);
    if (is_small(settings)) {
        enum err err = encoder_build(&encoder, "transformer",
            plan->settings.data, tokenizer, sizeof tokenizer - 1, &fault);
        if (err != OK)
            check_refusal(err, &fault);
        else
            MUST(encoder_max_tokens(encoder) > 0);
    }
    encoder_free(encoder);
    json_free(settings);
}

static void
check_card(
    const struct published_plan *plan, const struct published_source *source)
{
    struct json *card = NULL;
    struct buf text;

    buf_init(&text, 1 << 20);
    MUST(published_card_read(&text, plan, source, NULL) == OK);
    MUST(json_parse(text.data, text.len, 1 << 20, &card, NULL) == OK);
    MUST(json_count(card) == 3);
    json_free(card);
    buf_release(&text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    const struct published_source source = {read_input, &input};
    struct published_plan plan;
    struct fault fault = {0};
    struct buf asset;

    enum err err = published_plan_read(&plan, &source, &fault);
    if (err != OK) {
        check_refusal(err, &fault);
    } else {
        check_settings(&plan);
        check_card(&plan, &source);
        buf_init(&asset, 1 << 20);
        err = published_tokenizer_read(&asset, &plan, &source, &fault);
        if (err != OK)
            check_refusal(err, &fault);
        buf_release(&asset);
    }
    published_plan_release(&plan);
    return 0;
}
