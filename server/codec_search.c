#include <string.h>
#include "server/codec.h"
#include "base/alloc.h"
#include "base/json.h"
#include "server/scan.h"

/* ---- queries ------------------------------------------------------------- */

struct query_reader {
    const struct json *root;
    const struct scan_slice *slices;
    size_t n_slices;
    struct arena *arena;
    struct fault *fault;
};

static enum err
read_examples(const struct query_reader *r, struct engine_query *query)
{
    static const char *const keys[] = {"positive", "negative"};
    const struct json *examples = NULL;
    enum err err = json_get_object(
        r->root, "", "examples", JSON_OPTIONAL, &examples, r->fault);
    if (err != OK || !examples)
        return err;
    err =
        json_only_keys(examples, "/examples", keys, ARRAY_LEN(keys), r->fault);
    if (err == OK)
        err = codec_get_strings(examples, "/examples", "positive",
            ENGINE_EXAMPLES_MAX, r->arena, &query->positive, &query->n_positive,
            r->fault);
    if (err == OK)
        err = codec_get_strings(examples, "/examples", "negative",
            ENGINE_EXAMPLES_MAX, r->arena, &query->negative, &query->n_negative,
            r->fault);
    if (err == OK && query->n_positive == 0)
        err = fault_set(r->fault, ERR_INVALID, "/examples/positive",
            "at least one positive example is needed");
    return err;
}

static enum err
read_with(const struct query_reader *r, struct engine_query *query)
{
    const char *const *with = NULL;
    size_t n = 0;
    enum err err = codec_get_strings(
        r->root, "", "with", 8, r->arena, &with, &n, r->fault);
    if (err != OK || !with)
        return err;
    query->with_text = query->with_metadata = query->with_vector = false;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(with[i], "text") == 0) {
            query->with_text = true;
        } else if (strcmp(with[i], "metadata") == 0) {
            query->with_metadata = true;
        } else if (strcmp(with[i], "vector") == 0) {
            query->with_vector = true;
        } else {
            (void)fault_set(r->fault, ERR_INVALID, "",
                "\"%.40s\" is none of text, metadata, vector", with[i]);
            codec_prefix(r->fault, "/with", i);
            return ERR_INVALID;
        }
    }
    return OK;
}

/* What later versions bring is told apart from what nobody knows. */
static enum err
refuse_later(const struct json *root, struct fault *fault)
{
    static const char *const later[][2] = {
        {"hybrid", "/hybrid"}, {"group_by", "/group_by"}};
    for (size_t i = 0; i < ARRAY_LEN(later); i++)
        if (json_find(root, later[i][0]))
            return fault_set(fault, ERR_UNSUPPORTED, later[i][1],
                "\"%s\" is not in this version", later[i][0]);
    return OK;
}

/* Exactly one way to say what is looked for. */
static enum err
check_source(const struct engine_query *query, struct fault *fault)
{
    int n = (query->text.s != NULL) + (query->image.bytes != NULL) +
            (query->vector != NULL) + (query->id != NULL) +
            (query->positive != NULL);
    if (n != 1)
        return fault_set(fault, ERR_INVALID, "",
            "one of \"text\", \"image\", \"vector\", \"id\" and \"examples\" "
            "is "
            "needed, and only one");
    if (query->fingerprint && !query->vector)
        return fault_set(fault, ERR_INVALID, "/fingerprint",
            "a fingerprint belongs to a vector");
    return OK;
}

static enum err
query_members(const struct query_reader *r, struct engine_query *query)
{
    static const char *const keys[] = {"text", "image", "vector", "fingerprint",
        "id", "examples", "k", "filter", "exact", "min_cosine",
        "min_probability", "with", "explain", "truncate"};
    static const struct json_range cosine = {-1, 1, true};
    static const struct json_range probability = {0, 1, true};
    const struct json *root = r->root;
    struct fault *fault = r->fault;
    bool truncate = true;
    enum err err = refuse_later(root, fault);
    if (err == OK)
        err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = codec_get_text(
            root, "", "text", false, r->arena, &query->text, fault);
    if (err == OK)
        err = codec_get_vector(root, "", r->slices, r->n_slices, r->arena,
            &query->vector, &query->n_vector, fault);
    if (err == OK)
        err = codec_get_image(root, "", r->slices, r->n_slices, r->arena,
            &query->image, NULL, fault);
    if (err == OK)
        err = codec_get_string(root, "", "fingerprint", false, r->arena,
            &query->fingerprint, fault);
    if (err == OK)
        err = codec_get_string(
            root, "", "id", false, r->arena, &query->id, fault);
    if (err == OK)
        err = read_examples(r, query);
    if (err == OK)
        err = json_get_i64(
            root, "", "k", JSON_OPTIONAL, 1, ENGINE_K_MAX, &query->k, fault);
    if (err == OK)
        err = codec_get_json(
            root, "", "filter", r->arena, &query->filter_json, NULL, fault);
    if (err == OK)
        err = json_get_bool(
            root, "", "exact", JSON_OPTIONAL, &query->exact, fault);
    if (err == OK)
        err = json_get_f64(root, "", "min_cosine", JSON_OPTIONAL, &cosine,
            &query->min_cosine, fault);
    if (err == OK)
        err = json_get_f64(root, "", "min_probability", JSON_OPTIONAL,
            &probability, &query->min_probability, fault);
    if (err == OK)
        err = read_with(r, query);
    if (err == OK)
        err = json_get_bool(
            root, "", "explain", JSON_OPTIONAL, &query->explain, fault);
    if (err == OK)
        err = json_get_bool(
            root, "", "truncate", JSON_OPTIONAL, &truncate, fault);
    query->no_truncate = !truncate;
    return err == OK ? check_source(query, fault) : err;
}

enum err
codec_read_query(const char *s, size_t len, struct arena *arena,
    struct engine_query *query, struct fault *fault)
{
    struct scan_slice text;
    struct scan_slice *slices = NULL;
    size_t n_slices = 0;
    struct json *root = NULL;
    struct engine_query got = ENGINE_QUERY_DEFAULT;
    enum err err = scan_cut(s, len, SCAN_OBJECT, SCAN_VALUES_MAX, arena, &text,
        &slices, &n_slices, fault);
    if (err == OK)
        err = codec_parse(text.s, text.len, &root, fault);
    if (err != OK)
        return err;
    const struct query_reader r = {root, slices, n_slices, arena, fault};
    err = query_members(&r, &got);
    json_free(root);
    if (err == OK)
        *query = got;
    return err;
}

enum err
codec_read_queries(const char *s, size_t len, struct arena *arena,
    struct engine_query **queries, struct fault **faults, size_t *n,
    struct fault *fault)
{
    static const char *const keys[] = {"queries"};
    struct scan_slice text;
    struct scan_slice *slices = NULL;
    size_t n_slices = 0;
    struct json *root = NULL;
    const struct json *array = NULL;
    enum err err = scan_cut(s, len, SCAN_QUERIES, 4 * SCAN_VALUES_MAX, arena,
        &text, &slices, &n_slices, fault);
    if (err == OK)
        err = codec_parse(text.s, text.len, &root, fault);
    if (err != OK)
        return err;
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = json_get_array(root, "", "queries", JSON_REQUIRED, &array, fault);
    size_t count = json_count(array);
    if (err == OK && count == 0)
        err = fault_set(
            fault, ERR_INVALID, "/queries", "at least one query is needed");
    if (err == OK && count > CODEC_BATCH_QUERIES)
        err = fault_set(fault, ERR_TOO_LARGE, "/queries",
            "%zu queries; the limit of one request is %d", count,
            CODEC_BATCH_QUERIES);
    struct engine_query *list = NULL;
    struct fault *refusals = NULL;
    if (err == OK) {
        list = arena_calloc(arena, count, sizeof(*list));
        refusals = arena_calloc(arena, count, sizeof(*refusals));
        if (!list || !refusals)
            err = fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    for (size_t i = 0; err == OK && i < count; i++) {
        const struct query_reader r = {
            json_item(array, i), slices, n_slices, arena, &refusals[i]};
        list[i] = ENGINE_QUERY_DEFAULT;
        enum err one;
        if (json_kind(r.root) != JSON_KIND_OBJECT)
            one = fault_set(
                r.fault, ERR_INVALID, "", "a query must be a JSON object");
        else
            one = query_members(&r, &list[i]);
        if (one == ERR_NOMEM)
            err = fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    json_free(root);
    if (err != OK)
        return err;
    *queries = list;
    *faults = refusals;
    *n = count;
    return OK;
}

/*
 * Ten significant digits. The shortest text that reads back the same double
 * costs a microsecond, and a page of hits has hundreds of such numbers; their
 * own error bounds are wider than the eleventh digit.
 */
static void
put_real(struct buf *out, double v)
{
    static const double powers[] = {1e9, 1e10, 1e11, 1e12, 1e13, 1e14};
    double size = v < 0 ? -v : v;
    if (!(size >= 1e-4 && size < 10)) { /* other sizes, and NaN */
        if (v == 0)
            buf_add_char(out, '0');
        else
            buf_json_double(out, v);
        return;
    }
    /* size * 10^decimals has ten digits, so it is exact in an int64. */
    size_t decimals = 9;
    for (double at = 1; size < at; at /= 10)
        decimals++;
    int64_t n = (int64_t)(size * powers[decimals - 9] + 0.5);
    char text[24];
    size_t at = sizeof(text);
    while (decimals > 0 && n % 10 == 0) {
        n /= 10;
        decimals--;
    }
    for (size_t i = 0; i < decimals; i++) {
        text[--at] = (char)('0' + n % 10);
        n /= 10;
    }
    if (decimals > 0)
        text[--at] = '.';
    do {
        text[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    if (v < 0)
        text[--at] = '-';
    buf_add(out, text + at, sizeof(text) - at);
}

static void
write_hit(struct buf *out, const struct engine_hit *hit,
    const struct engine_query *query, size_t dims)
{
    buf_add_str(out, "{\"id\":");
    buf_json_cstr(out, hit->id);
    buf_add_str(out, ",\"cosine\":");
    put_real(out, hit->cosine);
    buf_add_str(out, ",\"score\":");
    if (hit->score > -1e8 && hit->score < 1e8)
        buf_printf(out, "%.6f", hit->score);
    else
        buf_json_double(out, hit->score);
    buf_add_str(out, ",\"probability\":");
    put_real(out, hit->probability);
    if (query->with_text) {
        if (hit->title.s) {
            buf_add_str(out, ",\"title\":");
            buf_json_string(out, hit->title.s, hit->title.len);
        }
        if (hit->text.s) {
            buf_add_str(out, ",\"text\":");
            buf_json_string(out, hit->text.s, hit->text.len);
        }
    }
    if (query->with_metadata && hit->metadata_json) {
        buf_add_str(out, ",\"metadata\":");
        buf_add_str(out, hit->metadata_json);
    }
    if (query->with_vector && hit->vector) {
        buf_add_str(out, ",\"vector\":");
        codec_put_floats(out, hit->vector, dims);
    }
    buf_add_char(out, '}');
}

void
codec_write_answer(struct buf *out, const struct engine_answer *answer,
    const struct engine_query *query)
{
    buf_add_str(out, "{\"search_id\":");
    buf_json_cstr(out, answer->search_id);
    buf_printf(out, ",\"generation\":%lld,\"exact\":%s,\"temperature\":",
        (long long)answer->generation, answer->exact ? "true" : "false");
    buf_json_double(out, answer->temperature);
    buf_printf(out, ",\"truncated\":%s", answer->truncated ? "true" : "false");
    if (query->text.s)
        buf_printf(out, ",\"tokens\":%u,\"tokens_full\":%u", answer->n_tokens,
            answer->n_tokens_full);
    buf_add_str(out, ",\"probability_error\":");
    buf_json_double(out, answer->probability_error);
    buf_printf(out, ",\"took_ms\":%.3f,\"hits\":[", answer->took_ms);
    for (size_t i = 0; i < answer->n_hits; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        write_hit(out, &answer->hits[i], query, answer->dims);
    }
    buf_add_char(out, ']');
    if (query->explain)
        buf_printf(out,
            ",\"explain\":{\"candidates\":%zu,\"scanned\":%zu,"
            "\"rescored\":%zu,\"encode_ms\":%.3f,\"scan_ms\":%.3f,"
            "\"fetch_ms\":%.3f}",
            answer->n_candidates, answer->n_scanned, answer->n_rescored,
            answer->encode_ms, answer->scan_ms, answer->fetch_ms);
    buf_add_char(out, '}');
}

/* ---- encoding ------------------------------------------------------------ */

/* A member that is a string or an array of strings. */
static enum err
get_inputs(const struct json *object, const char *at, const char *key,
    struct arena *arena, struct engine_text **out, size_t *n,
    struct fault *fault)
{
    char pointer[FAULT_POINTER_MAX];
    json_pointer(pointer, at, key);
    const struct json *value = json_find(object, key);
    if (!value)
        return fault_set(fault, ERR_INVALID, pointer, "\"%s\" is needed", key);
    bool single = json_kind(value) == JSON_KIND_STRING;
    if (!single && json_kind(value) != JSON_KIND_ARRAY)
        return fault_set(fault, ERR_INVALID, pointer,
            "this must be a string or an array of strings");
    size_t count = single ? 1 : json_count(value);
    if (count == 0)
        return fault_set(
            fault, ERR_INVALID, pointer, "at least one text is needed");
    if (count > CODEC_EMBED_INPUTS)
        return fault_set(fault, ERR_TOO_LARGE, pointer,
            "%zu texts; the limit of one request is %d", count,
            CODEC_EMBED_INPUTS);
    struct engine_text *list = arena_calloc(arena, count, sizeof(*list));
    if (!list)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    for (size_t i = 0; i < count; i++) {
        const struct json *text = single ? value : json_item(value, i);
        if (json_kind(text) != JSON_KIND_STRING) {
            bool ids = json_kind(text) == JSON_KIND_INT ||
                       json_kind(text) == JSON_KIND_ARRAY;
            (void)fault_set(fault, ERR_INVALID, "",
                ids ? "token ids are not taken: this encoder's features are "
                      "words, which have no ids; send the text"
                    : "this must be a string");
            codec_prefix(fault, pointer, i);
            return ERR_INVALID;
        }
        const char *s = json_str(text, &list[i].len);
        list[i].s = arena_strndup(arena, s, list[i].len);
        if (!list[i].s)
            return fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    *out = list;
    *n = count;
    return OK;
}

static enum err
parse_counted(
    const char *s, size_t len, struct json **root, struct fault *fault)
{
    struct scan_slice text;
    struct scan_slice *slices = NULL;
    size_t n_slices = 0;
    enum err err = scan_cut(s, len, SCAN_PLAIN, 4 * SCAN_VALUES_MAX, NULL,
        &text, &slices, &n_slices, fault);
    return err == OK ? codec_parse(s, len, root, fault) : err;
}

enum err
codec_read_embed(const char *s, size_t len, struct arena *arena,
    struct codec_embed *out, struct fault *fault)
{
    struct codec_embed got = {0};
    struct json *root = NULL;
    const char *format = NULL;
    int64_t dims = 0;
    enum err err = parse_counted(s, len, &root, fault);
    if (err != OK)
        return err;
    err = codec_get_string(root, "", "model", true, arena, &got.model, fault);
    if (err == OK)
        err = get_inputs(root, "", "input", arena, &got.inputs, &got.n, fault);
    if (err == OK)
        err = codec_get_string(
            root, "", "encoding_format", false, arena, &format, fault);
    if (err == OK && format) {
        got.base64 = strcmp(format, "base64") == 0;
        if (!got.base64 && strcmp(format, "float") != 0)
            err = fault_set(fault, ERR_INVALID, "/encoding_format",
                "\"%.40s\" is neither float nor base64", format);
    }
    if (err == OK)
        err = json_get_i64(root, "", "dimensions", JSON_OPTIONAL, 1,
            CODEC_VECTOR_MAX, &dims, fault);
    json_free(root);
    got.dims = (size_t)dims;
    if (err == OK)
        *out = got;
    return err;
}

enum err
codec_read_tokenize(const char *s, size_t len, struct arena *arena,
    struct codec_embed *out, struct fault *fault)
{
    static const char *const keys[] = {"inputs", "model", "add_special_tokens"};
    struct codec_embed got = {.model = "static"};
    struct json *root = NULL;
    bool special = true;
    enum err err = parse_counted(s, len, &root, fault);
    if (err != OK)
        return err;
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = codec_get_string(
            root, "", "model", false, arena, &got.model, fault);
    if (err == OK) /* there are none; taken for compatibility */
        err = json_get_bool(
            root, "", "add_special_tokens", JSON_OPTIONAL, &special, fault);
    if (err == OK)
        err = get_inputs(root, "", "inputs", arena, &got.inputs, &got.n, fault);
    json_free(root);
    if (err == OK)
        *out = got;
    return err;
}

enum err
codec_read_similarity(const char *s, size_t len, struct arena *arena,
    struct codec_similarity *out, struct fault *fault)
{
    static const char *const keys[] = {"inputs", "model"};
    static const char *const inner[] = {"source_sentence", "sentences"};
    struct codec_similarity got = {.model = "static"};
    const struct json *inputs = NULL;
    struct json *root = NULL;
    enum err err = parse_counted(s, len, &root, fault);
    if (err != OK)
        return err;
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = codec_get_string(
            root, "", "model", false, arena, &got.model, fault);
    if (err == OK)
        err =
            json_get_object(root, "", "inputs", JSON_REQUIRED, &inputs, fault);
    if (err == OK)
        err = json_only_keys(inputs, "/inputs", inner, ARRAY_LEN(inner), fault);
    if (err == OK)
        err = codec_get_text(inputs, "/inputs", "source_sentence", true, arena,
            &got.source, fault);
    if (err == OK)
        err = get_inputs(inputs, "/inputs", "sentences", arena, &got.sentences,
            &got.n, fault);
    json_free(root);
    if (err == OK)
        *out = got;
    return err;
}
