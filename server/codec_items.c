#include <string.h>
#include "server/codec.h"
#include "base/alloc.h"
#include "base/json.h"
#include "server/problem.h"
#include "server/scan.h"

/* ---- items --------------------------------------------------------------- */

static enum err
item_members(const struct json *root, const char *path_id,
    const struct scan_slice *slices, size_t n_slices, struct arena *arena,
    struct engine_item *item, struct fault *fault)
{
    static const char *const keys[] = {
        "id", "title", "text", "metadata", "image", "vector"};
    enum err err = codec_get_string(
        root, "", "id", path_id == NULL, arena, &item->id, fault);
    if (err != OK)
        return err;
    if (path_id) {
        if (item->id && strcmp(item->id, path_id) != 0)
            return fault_set(fault, ERR_INVALID, "/id",
                "the id in the body is not the one in the path");
        item->id = path_id;
    }
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = codec_get_text(
            root, "", "title", false, arena, &item->title, fault);
    if (err == OK)
        err =
            codec_get_text(root, "", "text", false, arena, &item->text, fault);
    if (err == OK)
        err = codec_get_json(root, "", "metadata", arena, &item->metadata.s,
            &item->metadata.len, fault);
    if (err == OK)
        err = codec_get_vector(root, "", slices, n_slices, arena, &item->vector,
            &item->n_vector, fault);
    if (err == OK)
        err = codec_get_image(root, "", slices, n_slices, arena, &item->image,
            &item->no_image, fault);
    return err;
}

enum err
codec_read_item(const char *s, size_t len, const char *path_id,
    struct arena *arena, struct engine_item *item, struct fault *fault)
{
    struct scan_slice text;
    struct scan_slice *slices = NULL;
    size_t n_slices = 0;
    struct json *root = NULL;
    memset(item, 0, sizeof(*item));
    enum err err = scan_cut(s, len, SCAN_OBJECT, SCAN_VALUES_MAX, arena, &text,
        &slices, &n_slices, fault);
    if (err == OK)
        err = codec_parse(text.s, text.len, &root, fault);
    if (err != OK)
        return err;
    err = item_members(root, path_id, slices, n_slices, arena, item, fault);
    json_free(root);
    return err;
}

enum err
codec_read_items(const char *s, size_t len, struct arena *arena,
    struct engine_item **items, size_t *n, struct fault *fault)
{
    struct scan_slice *parts = NULL;
    size_t count = 0;
    enum err err = scan_elements(
        s, len, ENGINE_BATCH_ITEMS_MAX, arena, &parts, &count, fault);
    if (err != OK)
        return err;
    struct engine_item *list = arena_calloc(arena, count + 1, sizeof(*list));
    if (!list)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    for (size_t i = 0; i < count; i++) {
        err = codec_read_item(
            parts[i].s, parts[i].len, NULL, arena, &list[i], fault);
        if (err != OK) {
            codec_prefix(fault, "", i);
            return err;
        }
    }
    *items = list;
    *n = count;
    return OK;
}

enum err
codec_read_metadata_patch(const char *s, size_t len, struct arena *arena,
    const char **metadata, struct fault *fault)
{
    static const char *const keys[] = {"metadata"};
    const char *text = NULL;
    struct json *root = NULL;
    enum err err = codec_read_object(s, len, arena, &text, fault);
    if (err == OK)
        err = codec_parse(text, strlen(text), &root, fault);
    if (err != OK)
        return err;
    const char *found = NULL;
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = codec_get_json(root, "", "metadata", arena, &found, NULL, fault);
    json_free(root);
    if (err == OK && !found)
        err = fault_set(
            fault, ERR_INVALID, "/metadata", "\"metadata\" is needed");
    if (err == OK)
        *metadata = found;
    return err;
}

enum err
codec_read_delete(const char *s, size_t len, struct arena *arena,
    struct codec_delete *out, struct fault *fault)
{
    static const char *const keys[] = {"ids", "filter"};
    const char *text = NULL;
    struct json *root = NULL;
    struct codec_delete got = {0};
    enum err err = codec_read_object(s, len, arena, &text, fault);
    if (err == OK)
        err = codec_parse(text, strlen(text), &root, fault);
    if (err != OK)
        return err;
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = codec_get_strings(root, "", "ids", SCAN_VALUES_MAX, arena,
            &got.ids, &got.n_ids, fault);
    if (err == OK)
        err = codec_get_json(
            root, "", "filter", arena, &got.filter_json, NULL, fault);
    json_free(root);
    if (err == OK && (got.ids != NULL) == (got.filter_json != NULL))
        err = fault_set(fault, ERR_INVALID, "",
            "one of \"ids\" and \"filter\" is needed, and not both");
    if (err == OK)
        *out = got;
    return err;
}

/* ---- pairs --------------------------------------------------------------- */

static enum err
read_side(const struct json *object, const char *at, struct arena *arena,
    struct engine_side *side, struct fault *fault)
{
    static const char *const keys[] = {"id", "text"};
    enum err err = json_only_keys(object, at, keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err =
            codec_get_string(object, at, "id", false, arena, &side->id, fault);
    if (err == OK)
        err = codec_get_text(
            object, at, "text", false, arena, &side->text, fault);
    if (err == OK && (side->id != NULL) == (side->text.s != NULL))
        err = fault_set(fault, ERR_INVALID, at,
            "one of \"id\" and \"text\" is needed, and not both");
    return err;
}

static enum err
read_negatives(const struct json *root, struct arena *arena,
    struct engine_pair *pair, struct fault *fault)
{
    const struct json *array = NULL;
    enum err err =
        json_get_array(root, "", "negatives", JSON_OPTIONAL, &array, fault);
    if (err != OK || !array)
        return err;
    size_t n = json_count(array);
    if (n > ENGINE_NEGATIVES_MAX)
        return fault_set(fault, ERR_INVALID, "/negatives",
            "%zu negatives; the limit is %d", n, ENGINE_NEGATIVES_MAX);
    struct engine_side *sides = arena_calloc(arena, n + 1, sizeof(*sides));
    if (!sides)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    for (size_t i = 0; i < n; i++) {
        const struct json *value = json_item(array, i);
        if (json_kind(value) != JSON_KIND_OBJECT)
            err = fault_set(fault, ERR_INVALID, "",
                "this must be {\"id\": ...} or {\"text\": ...}");
        else
            err = read_side(value, "", arena, &sides[i], fault);
        if (err != OK) {
            codec_prefix(fault, "/negatives", i);
            return err;
        }
    }
    pair->negatives = sides;
    pair->n_negatives = n;
    return OK;
}

static enum err
pair_members(const struct json *root, struct arena *arena,
    struct engine_pair *pair, struct fault *fault)
{
    static const char *const keys[] = {
        "anchor", "positive", "negatives", "weight", "group"};
    static const struct json_range positive = {0, 1e30, true};
    const struct json *anchor = NULL;
    const struct json *other = NULL;
    enum err err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err =
            json_get_object(root, "", "anchor", JSON_REQUIRED, &anchor, fault);
    if (err == OK)
        err = read_side(anchor, "/anchor", arena, &pair->anchor, fault);
    if (err == OK)
        err =
            json_get_object(root, "", "positive", JSON_REQUIRED, &other, fault);
    if (err == OK)
        err = read_side(other, "/positive", arena, &pair->positive, fault);
    if (err == OK)
        err = read_negatives(root, arena, pair, fault);
    if (err == OK)
        err = json_get_f64(
            root, "", "weight", JSON_OPTIONAL, &positive, &pair->weight, fault);
    if (err == OK && !(pair->weight > 0))
        err = fault_set(
            fault, ERR_INVALID, "/weight", "the weight must be above 0");
    if (err == OK)
        err = codec_get_string(
            root, "", "group", false, arena, &pair->group, fault);
    return err;
}

enum err
codec_read_pair(const char *s, size_t len, struct arena *arena,
    struct engine_pair *pair, struct fault *fault)
{
    struct scan_slice text;
    struct scan_slice *slices = NULL;
    size_t n_slices = 0;
    struct json *root = NULL;
    memset(pair, 0, sizeof(*pair));
    pair->weight = 1;
    enum err err = scan_cut(s, len, SCAN_OBJECT, SCAN_VALUES_MAX, arena, &text,
        &slices, &n_slices, fault);
    if (err == OK)
        err = codec_parse(s, len, &root, fault);
    if (err != OK)
        return err;
    err = pair_members(root, arena, pair, fault);
    json_free(root);
    return err;
}

enum err
codec_read_pairs(const char *s, size_t len, struct arena *arena,
    struct engine_pair **pairs, size_t *n, struct fault *fault)
{
    struct scan_slice *parts = NULL;
    size_t count = 0;
    enum err err = scan_elements(
        s, len, ENGINE_BATCH_ITEMS_MAX, arena, &parts, &count, fault);
    if (err != OK)
        return err;
    struct engine_pair *list = arena_calloc(arena, count + 1, sizeof(*list));
    if (!list)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    for (size_t i = 0; i < count; i++) {
        err = codec_read_pair(parts[i].s, parts[i].len, arena, &list[i], fault);
        if (err != OK) {
            codec_prefix(fault, "", i);
            return err;
        }
    }
    *pairs = list;
    *n = count;
    return OK;
}

enum err
codec_read_feedback(const char *s, size_t len, struct arena *arena,
    struct codec_feedback *out, struct fault *fault)
{
    static const char *const keys[] = {"search_id", "item_id", "weight"};
    static const struct json_range positive = {0, 1e30, true};
    struct codec_feedback got = {.weight = 1};
    const char *text = NULL;
    struct json *root = NULL;
    enum err err = codec_read_object(s, len, arena, &text, fault);
    if (err == OK)
        err = codec_parse(text, strlen(text), &root, fault);
    if (err != OK)
        return err;
    err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = codec_get_string(
            root, "", "search_id", true, arena, &got.search_id, fault);
    if (err == OK)
        err = codec_get_string(
            root, "", "item_id", true, arena, &got.item_id, fault);
    if (err == OK)
        err = json_get_f64(
            root, "", "weight", JSON_OPTIONAL, &positive, &got.weight, fault);
    if (err == OK && !(got.weight > 0))
        err = fault_set(
            fault, ERR_INVALID, "/weight", "the weight must be above 0");
    json_free(root);
    if (err == OK)
        *out = got;
    return err;
}

/* ---- writing ------------------------------------------------------------- */

static const char *
status_word(enum engine_status status)
{
    switch (status) {
    case ENGINE_CREATED:
        return "created";
    case ENGINE_UPDATED:
        return "updated";
    case ENGINE_UNCHANGED:
        return "unchanged";
    case ENGINE_SUPERSEDED:
        return "superseded";
    case ENGINE_DELETED:
        return "deleted";
    case ENGINE_REFUSED:
        break;
    }
    return "refused";
}

void
codec_write_outcome(struct buf *out, const struct engine_outcome *outcome,
    int status, const char *counter)
{
    uint64_t base = strcmp(counter, "index") == 0 ? 1 : 0;
    buf_printf(out, "{\"%s\":%llu", counter,
        (unsigned long long)(outcome->line - base));
    if (outcome->id) {
        buf_add_str(out, ",\"id\":");
        buf_json_cstr(out, outcome->id);
    }
    buf_printf(out, ",\"status\":%d,\"outcome\":\"%s\"", status,
        status_word(outcome->status));
    if (outcome->pair_id != 0)
        buf_printf(out, ",\"pair\":%lld", (long long)outcome->pair_id);
    if (outcome->split)
        buf_printf(out, ",\"split\":\"%s\"", outcome->split);
    if (outcome->aside) {
        buf_add_str(out, ",\"aside\":");
        buf_json_cstr(out, outcome->aside);
    }
    if (outcome->version != 0)
        buf_printf(out, ",\"version\":%lld", (long long)outcome->version);
    if (outcome->truncated)
        buf_printf(out, ",\"truncated\":true,\"tokens\":%u,\"tokens_full\":%u",
            outcome->n_tokens, outcome->n_tokens_full);
    if (outcome->superseded_by != 0)
        buf_printf(out, ",\"superseded_by\":%llu",
            (unsigned long long)(outcome->superseded_by - base));
    if (outcome->supersedes != 0)
        buf_printf(out, ",\"supersedes\":%llu",
            (unsigned long long)(outcome->supersedes - base));
    if (outcome->status == ENGINE_REFUSED) {
        buf_add_str(out, ",\"problem\":");
        problem_write(out, status, &outcome->fault, NULL);
    }
    buf_add_char(out, '}');
}

static void
put_text(struct buf *out, const char *name, const struct engine_text *text)
{
    if (!text->s)
        return;
    buf_printf(out, ",\"%s\":", name);
    buf_json_string(out, text->s, text->len);
}

static void
put_image(struct buf *out, const struct engine_image_facts *image)
{
    if (!image->type)
        return;
    buf_printf(out,
        ",\"image\":{\"type\":\"%s\",\"width\":%u,\"height\":%u,"
        "\"bytes\":%llu,\"sha256\":\"%s\",\"kept\":%s}",
        image->type, image->width, image->height,
        (unsigned long long)image->n_bytes, image->sha256,
        image->kept ? "true" : "false");
}

void
codec_write_item(struct buf *out, const struct engine_item_view *item)
{
    buf_add_str(out, "{\"id\":");
    buf_json_cstr(out, item->id);
    put_text(out, "title", &item->title);
    put_text(out, "text", &item->text);
    buf_add_str(out, ",\"metadata\":");
    buf_add_str(out, item->metadata_json);
    buf_printf(out, ",\"version\":%lld,\"created_ms\":%lld,\"updated_ms\":%lld",
        (long long)item->version, (long long)item->created_ms,
        (long long)item->updated_ms);
    put_image(out, &item->image);
    if (item->vector) {
        buf_add_str(out, ",\"vector\":");
        codec_put_floats(out, item->vector, item->n_vector);
    }
    buf_add_char(out, '}');
}

void
codec_write_written(
    struct buf *out, const struct engine_outcome *outcome, const char *id)
{
    buf_add_str(out, "{\"id\":");
    buf_json_cstr(out, id);
    buf_printf(out, ",\"outcome\":\"%s\",\"version\":%lld,\"truncated\":%s",
        status_word(outcome->status), (long long)outcome->version,
        outcome->truncated ? "true" : "false");
    if (outcome->truncated)
        buf_printf(out, ",\"tokens\":%u,\"tokens_full\":%u", outcome->n_tokens,
            outcome->n_tokens_full);
    buf_add_char(out, '}');
}

static void
put_side(struct buf *out, const struct engine_side *side)
{
    if (side->id) {
        buf_add_str(out, "{\"id\":");
        buf_json_cstr(out, side->id);
    } else {
        buf_add_str(out, "{\"text\":");
        buf_json_string(out, side->text.s ? side->text.s : "", side->text.len);
    }
    buf_add_char(out, '}');
}

void
codec_write_pair(struct buf *out, const struct engine_pair_view *pair)
{
    buf_printf(out, "{\"pair\":%lld,\"anchor\":", (long long)pair->id);
    put_side(out, &pair->anchor);
    buf_add_str(out, ",\"positive\":");
    put_side(out, &pair->positive);
    buf_add_str(out, ",\"negatives\":[");
    for (size_t i = 0; i < pair->n_negatives; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        put_side(out, &pair->negatives[i]);
    }
    buf_add_str(out, "],\"weight\":");
    buf_json_double(out, pair->weight);
    buf_add_str(out, ",\"group\":");
    if (pair->group)
        buf_json_cstr(out, pair->group);
    else
        buf_add_str(out, "null");
    buf_printf(out, ",\"split\":\"%s\",\"aside\":", pair->split);
    if (pair->aside)
        buf_json_cstr(out, pair->aside);
    else
        buf_add_str(out, "null");
    buf_printf(out, ",\"origin\":\"%s\",\"created_ms\":%lld}", pair->origin,
        (long long)pair->created_ms);
}
