#include "server/codec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/base64.h"
#include "base/json.h"
#include "server/scan.h"

/* ---- reading ------------------------------------------------------------- */

enum err
codec_parse(const char *s, size_t len, struct json **out, struct fault *fault)
{
    struct json *root = NULL;
    char first = scan_first(s, len);
    if (first == 0)
        return fault_set(fault, ERR_SYNTAX, "",
            "the body is empty; a JSON object is needed");
    enum err err = json_parse(s, len, len, &root, fault);
    if (err != OK)
        return err;
    if (json_kind(root) != JSON_KIND_OBJECT) {
        json_free(root);
        return fault_set(fault, ERR_INVALID, "", "this must be a JSON object");
    }
    *out = root;
    return OK;
}

/* A tree is only made of text that the scanner has counted. */
static enum err
count_values(const char *s, size_t len, struct fault *fault)
{
    struct scan_slice text;
    struct scan_slice *slices = NULL;
    size_t n_slices = 0;
    return scan_cut(s, len, SCAN_PLAIN, SCAN_VALUES_MAX, NULL, &text, &slices,
        &n_slices, fault);
}

enum err
codec_read_object(const char *s, size_t len, struct arena *arena,
    const char **text, struct fault *fault)
{
    struct json *root = NULL;
    if (scan_first(s, len) == 0) {
        *text = "{}";
        return OK;
    }
    enum err err = count_values(s, len, fault);
    if (err == OK)
        err = codec_parse(s, len, &root, fault);
    if (err != OK)
        return err;
    json_free(root);
    char *copy = arena_strndup(arena, s, len);
    if (!copy)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    *text = copy;
    return OK;
}

enum err
codec_read_nothing(const char *s, size_t len, struct fault *fault)
{
    struct json *root = NULL;
    if (scan_first(s, len) == 0)
        return OK;
    enum err err = count_values(s, len, fault);
    if (err == OK)
        err = codec_parse(s, len, &root, fault);
    if (err != OK)
        return err;
    err = json_only_keys(root, "", NULL, 0, fault);
    json_free(root);
    return err;
}

enum err
codec_read_alias(const char *s, size_t len, struct arena *arena,
    const char **collection, struct fault *fault)
{
    static const char *const keys[] = {"collection"};
    struct json *root = NULL;
    enum err err = count_values(s, len, fault);
    if (err == OK)
        err = codec_parse(s, len, &root, fault);
    if (err != OK)
        return err;
    const char *name = NULL;
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err =
            codec_get_string(root, "", "collection", true, arena, &name, fault);
    json_free(root);
    if (err == OK)
        *collection = name;
    return err;
}

enum err
codec_get_text(const struct json *object, const char *at, const char *key,
    bool required, struct arena *arena, struct engine_text *out,
    struct fault *fault)
{
    const char *s = NULL;
    size_t len = 0;
    enum err err = json_get_str(object, at, key,
        required ? JSON_REQUIRED : JSON_OPTIONAL, &s, &len, fault);
    if (err != OK || !s)
        return err;
    char *copy = arena_strndup(arena, s, len);
    if (!copy)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    out->s = copy;
    out->len = len;
    return OK;
}

enum err
codec_get_string(const struct json *object, const char *at, const char *key,
    bool required, struct arena *arena, const char **out, struct fault *fault)
{
    struct engine_text text = {NULL, 0};
    enum err err =
        codec_get_text(object, at, key, required, arena, &text, fault);
    if (err == OK && text.s)
        *out = text.s;
    return err;
}

enum err
codec_get_strings(const struct json *object, const char *at, const char *key,
    size_t max, struct arena *arena, const char *const **out, size_t *n,
    struct fault *fault)
{
    const struct json *array = NULL;
    enum err err =
        json_get_array(object, at, key, JSON_OPTIONAL, &array, fault);
    if (err != OK || !array)
        return err;
    char pointer[FAULT_POINTER_MAX];
    json_pointer(pointer, at, key);
    size_t count = json_count(array);
    if (count > max)
        return fault_set(fault, ERR_INVALID, pointer,
            "%zu values; the limit is %zu", count, max);
    const char **list = arena_calloc(arena, count + 1, sizeof(*list));
    if (!list)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    for (size_t i = 0; i < count; i++) {
        const struct json *value = json_item(array, i);
        if (json_kind(value) != JSON_KIND_STRING) {
            (void)fault_set(fault, ERR_INVALID, "", "this must be a string");
            codec_prefix(fault, pointer, i);
            return ERR_INVALID;
        }
        size_t len;
        const char *s = json_str(value, &len);
        list[i] = arena_strndup(arena, s, len);
        if (!list[i])
            return fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    *out = list;
    *n = count;
    return OK;
}

enum err
codec_get_json(const struct json *object, const char *at, const char *key,
    struct arena *arena, const char **out, size_t *len, struct fault *fault)
{
    const struct json *value = NULL;
    enum err err =
        json_get_object(object, at, key, JSON_OPTIONAL, &value, fault);
    if (err != OK || !value)
        return err;
    struct buf text;
    buf_init(&text, (size_t)64 << 20);
    json_dump(value, &text);
    err = buf_status(&text);
    char *copy = err == OK ? arena_strndup(arena, text.data, text.len) : NULL;
    if (copy) {
        *out = copy;
        if (len)
            *len = text.len;
    }
    buf_release(&text);
    return copy ? OK : fault_set(fault, ERR_NOMEM, "", "out of memory");
}

void
codec_prefix(struct fault *fault, const char *prefix, size_t i)
{
    char joined[FAULT_POINTER_MAX];
    if (!fault)
        return;
    int n = snprintf(
        joined, sizeof(joined), "%.100s/%zu%.80s", prefix, i, fault->pointer);
    if (n > 0)
        memcpy(fault->pointer, joined, sizeof(joined));
}

static enum err
read_base64(const char *s, size_t len, struct arena *arena, const float **out,
    size_t *n, const char *pointer, struct fault *fault)
{
    size_t n_bytes = 0;
    size_t max = MIN(len, CODEC_VECTOR_MAX * sizeof(float));
    float *v = arena_alloc(arena, max + sizeof(float), 1);
    if (!v)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    enum err err = base64_decode(s, len, v, max, &n_bytes);
    if (err == ERR_TOO_LARGE)
        return fault_set(fault, ERR_INVALID, pointer, "more than %d dimensions",
            CODEC_VECTOR_MAX);
    if (err != OK || n_bytes % sizeof(float) != 0 || n_bytes == 0)
        return fault_set(fault, ERR_INVALID, pointer,
            "this must be base64 of little-endian 32-bit floats");
    for (size_t i = 0; i < n_bytes / sizeof(float); i++)
        if (!isfinite(v[i]))
            return fault_set(fault, ERR_INVALID, pointer,
                "element %zu is not a finite number", i);
    *out = v;
    *n = n_bytes / sizeof(float);
    return OK;
}

static enum err
read_array(const struct scan_slice *slice, struct arena *arena,
    const float **out, size_t *n, const char *pointer, struct fault *fault)
{
    size_t count = 1;
    for (size_t i = 0; i < slice->len && count <= CODEC_VECTOR_MAX; i++)
        count += slice->s[i] == ',';
    count = MIN(count, CODEC_VECTOR_MAX);
    float *v = arena_alloc(arena, count, sizeof(*v));
    if (!v)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    struct fault inner = {0};
    const char *end = NULL;
    enum err err =
        json_read_floats(slice->s, slice->len, v, count, n, &end, &inner);
    if (err == ERR_TOO_LARGE)
        return fault_set(fault, ERR_INVALID, pointer, "more than %d dimensions",
            CODEC_VECTOR_MAX);
    if (err == OK && end != slice->s + slice->len) {
        err = ERR_SYNTAX;
        (void)fault_set(
            &inner, err, "", "malformed JSON: the array of numbers is broken");
    }
    if (err != OK) {
        char joined[2 * FAULT_POINTER_MAX];
        (void)snprintf(joined, sizeof(joined), "%s%s", pointer, inner.pointer);
        joined[FAULT_POINTER_MAX - 1] = '\0';
        return fault_set(fault, err, joined, "%s", inner.detail);
    }
    if (*n == 0)
        return fault_set(fault, ERR_INVALID, pointer, "the vector is empty");
    *out = v;
    return OK;
}

enum err
codec_get_vector(const struct json *object, const char *at,
    const struct scan_slice *slices, size_t n_slices, struct arena *arena,
    const float **out, size_t *n, struct fault *fault)
{
    const struct json *value = json_find(object, "vector");
    char pointer[FAULT_POINTER_MAX];
    if (!value)
        return OK;
    json_pointer(pointer, at, "vector");
    if (json_kind(value) == JSON_KIND_STRING) {
        size_t len;
        const char *s = json_str(value, &len);
        return read_base64(s, len, arena, out, n, pointer, fault);
    }
    if (json_kind(value) == JSON_KIND_ARRAY && json_count(value) == 1 &&
        json_kind(json_item(value, 0)) == JSON_KIND_INT) {
        int64_t i = json_i64(json_item(value, 0));
        if (i >= 0 && (uint64_t)i < n_slices && slices[i].s[0] == '[')
            return read_array(&slices[i], arena, out, n, pointer, fault);
    }
    return fault_set(fault, ERR_INVALID, pointer,
        "this must be an array of numbers, or base64 of 32-bit floats");
}

/* ---- writing ------------------------------------------------------------- */

void
codec_put_floats(struct buf *out, const float *v, size_t n)
{
    buf_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        buf_json_float(out, v[i]);
    }
    buf_add_char(out, ']');
}

static void
put_id_or_null(struct buf *out, const char *name, int64_t id)
{
    buf_printf(out, ",\"%s\":", name);
    if (id == 0)
        buf_add_str(out, "null");
    else
        buf_json_int(out, id);
}

void
codec_write_collection(
    struct buf *out, const struct engine_collection_info *info)
{
    buf_add_str(out, "{\"name\":");
    buf_json_cstr(out, info->name);
    buf_add_str(out, ",\"settings\":");
    buf_add_str(out, info->settings_json);
    buf_printf(out,
        ",\"created_ms\":%lld,\"dims\":%zu,\"items\":%lld,\"trained\":%s,"
        "\"generation\":%lld",
        (long long)info->created_ms, info->dims, (long long)info->n_items,
        info->trained ? "true" : "false", (long long)info->generation);
    put_id_or_null(out, "previous_generation", info->generation_previous);
    put_id_or_null(out, "building_generation", info->generation_building);
    put_id_or_null(out, "running_job", info->job_running);
    buf_add_str(out, ",\"temperature\":");
    buf_json_double(out, info->temperature);
    buf_add_str(out, ",\"fingerprint\":");
    buf_json_cstr(out, info->fingerprint);
    buf_printf(out,
        ",\"pairs\":{\"total\":%lld,\"new\":%lld,\"train\":%lld,"
        "\"tune\":%lld,\"judge\":%lld,\"aside\":%lld,\"judge_groups\":%lld}",
        (long long)info->n_pairs, (long long)info->n_pairs_new,
        (long long)info->n_pairs_train, (long long)info->n_pairs_tune,
        (long long)info->n_pairs_judge, (long long)info->n_pairs_aside,
        (long long)info->n_groups_judge);
    buf_printf(out,
        ",\"memory\":{\"vectors\":%llu,\"encoder\":%llu,\"roster\":%llu}",
        (unsigned long long)info->vector_bytes,
        (unsigned long long)info->encoder_bytes,
        (unsigned long long)info->roster_bytes);
    buf_printf(out,
        ",\"reads\":\"%s\",\"images\":{\"items\":%lld,\"bytes\":%llu}",
        info->reads, (long long)info->n_images,
        (unsigned long long)info->image_bytes);
    buf_add_str(out, ",\"aliases\":[");
    for (size_t i = 0; i < info->n_aliases; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        buf_json_cstr(out, info->aliases[i]);
    }
    buf_add_str(out, "]}");
}

static void
put_json_or_null(struct buf *out, const char *name, const char *json)
{
    buf_printf(out, ",\"%s\":", name);
    buf_add_str(out, json && json[0] ? json : "null");
}

void
codec_write_generation(
    struct buf *out, const struct engine_generation *generation)
{
    buf_printf(out, "{\"generation\":%lld,\"state\":\"%s\"",
        (long long)generation->generation, generation->state);
    buf_printf(out, ",\"whole\":%s,\"pinned\":%s,\"trained\":%s",
        generation->whole ? "true" : "false",
        generation->pinned ? "true" : "false",
        generation->trained ? "true" : "false");
    put_id_or_null(out, "parent", generation->parent);
    put_id_or_null(out, "job", generation->job_id);
    buf_add_str(out, ",\"space\":");
    buf_json_cstr(out, generation->space);
    buf_add_str(out, ",\"temperature\":");
    buf_json_double(out, generation->temperature);
    buf_printf(out, ",\"created_ms\":%lld", (long long)generation->created_ms);
    put_id_or_null(out, "promoted_ms", generation->promoted_ms);
    buf_printf(out, ",\"family\":\"%s\",\"dims\":%zu,\"weights_bytes\":%llu",
        generation->family, generation->dims,
        (unsigned long long)generation->weights_bytes);
    put_id_or_null(out, "parameters", (int64_t)generation->n_params);
    buf_add_str(out, ",\"encoder\":");
    if (generation->encoder) {
        buf_json_cstr(out, generation->encoder);
    } else {
        buf_add_str(out, "null");
    }
    put_json_or_null(out, "card", generation->card_json);
    put_json_or_null(out, "config", generation->config_json);
    put_json_or_null(out, "report", generation->report_json);
    buf_add_char(out, '}');
}

void
codec_write_job(struct buf *out, const struct engine_job *job)
{
    buf_printf(out,
        "{\"id\":%lld,\"kind\":\"%s\",\"collection\":", (long long)job->id,
        job->kind);
    buf_json_cstr(out, job->collection);
    buf_printf(out, ",\"state\":\"%s\",\"phase\":", job->state);
    buf_json_cstr(out, job->phase);
    buf_add_str(out, ",\"progress\":");
    buf_json_double(out, job->progress);
    buf_add_str(out, ",\"eta_seconds\":");
    if (job->eta_seconds < 0)
        buf_add_str(out, "null");
    else
        buf_json_double(out, job->eta_seconds);
    put_json_or_null(out, "options", job->options_json);
    put_json_or_null(out, "curves", job->curve_json);
    put_json_or_null(out, "result", job->result_json);
    buf_add_str(out, ",\"error\":");
    if (job->error)
        buf_json_cstr(out, job->error);
    else
        buf_add_str(out, "null");
    buf_printf(out, ",\"created_ms\":%lld", (long long)job->created_ms);
    put_id_or_null(out, "started_ms", job->started_ms);
    put_id_or_null(out, "finished_ms", job->finished_ms);
    buf_add_char(out, '}');
}

void
codec_write_encoder(struct buf *out, const struct engine_encoder *encoder)
{
    buf_add_str(out, "{\"name\":");
    buf_json_cstr(out, encoder->name);
    buf_printf(out,
        ",\"family\":\"%s\",\"reads\":\"%s\",\"dims\":%zu,"
        "\"max_tokens\":%zu,\"parameters\":%llu,\"weights_bytes\":%llu,"
        "\"fingerprint\":\"%s\"",
        encoder->family, encoder->reads, encoder->dims, encoder->max_tokens,
        (unsigned long long)encoder->n_params,
        (unsigned long long)encoder->weights_bytes, encoder->fingerprint);
    put_json_or_null(out, "config", encoder->config_json);
    put_json_or_null(out, "card", encoder->card_json);
    buf_printf(out, ",\"created_ms\":%lld,\"collections\":%zu}",
        (long long)encoder->created_ms, encoder->n_collections);
}

void
codec_write_families(struct buf *out, const struct engine_info *info)
{
    buf_add_char(out, '[');
    for (size_t i = 0; i < info->n_encoders; i++) {
        const struct engine_encoder_info *e = &info->encoders[i];
        buf_add_str(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        buf_json_cstr(out, e->name);
        buf_printf(out, ",\"reads\":\"%s\",\"description\":", e->reads);
        buf_json_cstr(out, e->description);
        buf_printf(out,
            ",\"dims\":{\"default\":%zu,\"min\":%zu,\"max\":%zu},\"config\":",
            e->dims_default, e->dims_min, e->dims_max);
        buf_add_str(
            out, e->config_json && e->config_json[0] ? e->config_json : "null");
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}
