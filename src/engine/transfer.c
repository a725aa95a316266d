#include "engine/transfer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/base64.h"
#include "base/check.h"
#include "base/json.h"
#include "store/pairs.h"
#include "engine/internal.h"
#include "engine/pairs.h"
#include "engine/stream.h"

#define PAGE_ROWS 256

/* ---- writing ------------------------------------------------------------- */

enum phase { PHASE_HEAD, PHASE_ITEMS, PHASE_PAIRS, PHASE_END };

struct export
{
    struct engine *engine;
    struct collection *c;
    struct engine_export_options options;
    int64_t space;
    size_t dims;
    char fingerprint[SHA256_HEX];
    enum phase phase;
    int64_t last;
    size_t n; /* rows of this page */
    struct buf *chunk;
    struct db *db;
    float *vector;
    struct arena arena; /* a picture's bytes */
    struct buf rest;    /* of a line that did not fit into a piece */
    size_t rest_at;
};

static void
free_export(void *state)
{
    struct export *e = state;
    collection_unref(e->c);
    mem_free(e->vector);
    arena_release(&e->arena);
    buf_release(&e->rest);
    mem_free(e);
}

static void
write_text(struct buf *out, const char *name, struct store_text t)
{
    if (t.s) {
        buf_printf(out, ",\"%s\":", name);
        buf_json_string(out, t.s, t.len);
    }
}

/* "image" of an item, if it has one that is kept. */
static enum err
write_image(struct export *e, int64_t item, struct buf *out)
{
    struct image_row row;
    arena_release(&e->arena);
    arena_init(&e->arena, IMAGE_STORED_BYTES_MAX + SMALL_ARENA_BYTES);
    enum err err = images_get(e->db, item, true, &e->arena, &row);
    if (!err && row.bytes.s) {
        buf_add_str(out, ",\"image\":\"");
        base64_encode(out, row.bytes.s, row.bytes.len);
        buf_add_char(out, '"');
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

/* A vector stands for the picture that it was made from where its bytes are not
   kept: it goes wherever pictures go. */
static bool
takes_vectors(const struct export *e)
{
    return e->options.vectors ||
           (e->c->fixed.vector_only && !e->options.no_images);
}

/* "vector" of an item, if it has one. Of an item without a picture it is zero:
   no vector, so that none is taken for a picture's. */
static enum err
write_vector(struct export *e, int64_t item, struct buf *out)
{
    bool found = false;
    enum err err =
        vectors_get(e->db, e->space, &item, 1, (int)e->dims, e->vector, &found);
    if (found && e->c->fixed.vector_only) {
        double norm2 = 0;
        for (size_t i = 0; i < e->dims; i++) {
            norm2 += (double)e->vector[i] * e->vector[i];
        }
        found = norm2 > 0;
    }
    if (!err && found) {
        buf_add_str(out, ",\"vector\":\"");
        base64_encode(out, e->vector, e->dims * sizeof(*e->vector));
        buf_add_char(out, '"');
    }
    return err;
}

/* Move what waits into the piece, as far as it has room. */
static enum err
drain_rest(struct export *e, struct buf *chunk)
{
    size_t room =
        chunk->len < STREAM_PIECE_BYTES ? STREAM_PIECE_BYTES - chunk->len : 0;
    size_t n = MIN(room, e->rest.len - e->rest_at);
    buf_add(chunk, e->rest.data + e->rest_at, n);
    e->rest_at += n;
    if (e->rest_at == e->rest.len) {
        buf_release(&e->rest);
        buf_init(&e->rest, 2 * TRANSFER_LINE_BYTES_MAX);
        e->rest_at = 0;
    }
    return buf_status(chunk);
}

static enum err
write_item(void *arg, const struct item_row *row)
{
    struct export *e = arg;
    struct buf *out = e->options.no_images ? e->chunk : &e->rest;
    buf_add_str(out, "{\"item\":{\"id\":");
    buf_json_string(out, row->ext_id.s, row->ext_id.len);
    write_text(out, "title", row->title);
    write_text(out, "text", row->text);
    if (row->metadata.s) {
        buf_add_str(out, ",\"metadata\":");
        buf_add(out, row->metadata.s, row->metadata.len);
    }
    enum err err = e->options.no_images ? OK : write_image(e, row->item, out);
    if (!err && takes_vectors(e)) {
        err = write_vector(e, row->item, out);
    }
    buf_add_str(out, "}}\n");
    e->last = row->item;
    e->n++;
    err = err ? err : buf_status(out);
    if (!err && out == &e->rest) {
        err = drain_rest(e, e->chunk);
    }
    if (err) {
        return err == ERR_TOO_LARGE ? ERR_INTERNAL : err;
    }
    /* Not an error: the piece is long enough. */
    return e->chunk->len >= STREAM_PIECE_BYTES ? ERR_TOO_LARGE : OK;
}

static void
write_side(struct buf *out, const char *name, const struct engine_side *side)
{
    buf_printf(out, "\"%s\":", name);
    buf_add_str(out, side->id ? "{\"id\":" : "{\"text\":");
    if (side->id) {
        buf_json_cstr(out, side->id);
    } else {
        buf_json_string(out, side->text.s, side->text.len);
    }
    buf_add_char(out, '}');
}

static enum err
write_pair(void *arg, const struct pair_row *row)
{
    struct export *e = arg;
    struct buf *out = e->chunk;
    buf_add_str(out, "{\"pair\":{");
    struct engine_side anchor = {.id = row->anchor_id.s,
        .text = {.s = row->anchor_text.s, .len = row->anchor_text.len}};
    struct engine_side positive = {.id = row->positive_id.s,
        .text = {.s = row->positive_text.s, .len = row->positive_text.len}};
    write_side(out, "anchor", &anchor);
    buf_add_char(out, ',');
    write_side(out, "positive", &positive);
    if (row->negatives.s) {
        buf_add_str(out, ",\"negatives\":");
        buf_add(out, row->negatives.s, row->negatives.len);
    }
    buf_add_str(out, ",\"weight\":");
    buf_json_double(out, row->weight);
    write_text(out, "group", row->group);
    buf_add_str(out, "}}\n");
    e->last = row->pair;
    e->n++;
    return out->len >= STREAM_PIECE_BYTES ? ERR_TOO_LARGE : buf_status(out);
}

static void
write_head(struct export *e)
{
    struct buf *out = e->chunk;
    buf_printf(out, "{\"kindred_export\":%d,\"collection\":", TRANSFER_VERSION);
    buf_json_cstr(out, e->c->name);
    buf_printf(out, ",\"fingerprint\":\"%s\",\"settings\":", e->fingerprint);
    settings_fixed_write(&e->c->fixed, out);
    buf_add_str(out, "}\n");
}

static enum err
next_of_export(void *state, struct buf *chunk, bool *end, struct fault *fault)
{
    (void)fault;
    struct export *e = state;
    enum err err = OK;
    e->chunk = chunk;
    *end = false;
    if (e->rest.len) {
        return drain_rest(e, chunk);
    }
    if (e->phase == PHASE_HEAD) {
        write_head(e);
        e->phase = e->options.items ? PHASE_ITEMS : PHASE_PAIRS;
    }
    if (e->phase == PHASE_PAIRS && !e->options.pairs) {
        e->phase = PHASE_END;
    }
    if (e->phase != PHASE_END) {
        e->n = 0;
        err = store_read_begin(e->engine->store, &e->db);
        if (err) {
            return err;
        }
        if (e->phase == PHASE_ITEMS) {
            err = items_walk(e->db, e->c->id, e->last, PAGE_ROWS, ITEM_WANT_ALL,
                write_item, e);
        } else {
            err =
                pairs_list(e->db, e->c->id, e->last, PAGE_ROWS, write_pair, e);
        }
        store_read_end(e->engine->store, e->db);
        e->db = NULL;
        bool more = err == ERR_TOO_LARGE || e->n == PAGE_ROWS;
        err = err == ERR_TOO_LARGE ? buf_status(chunk) : err;
        if (!err && !more) {
            e->phase = e->phase == PHASE_ITEMS && e->options.pairs ? PHASE_PAIRS
                                                                   : PHASE_END;
            e->last = 0;
        }
    }
    *end = e->phase == PHASE_END;
    return err;
}

enum err
engine_export_new(struct engine_stream **out, struct engine *engine,
    const char *collection, const struct engine_export_options *options,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct export *e = mem_calloc(1, sizeof(*e));
    if (!e) {
        collection_unref(c);
        return fault_of(fault, ERR_NOMEM, "exporting");
    }
    struct snapshot *live = collection_live(c);
    arena_init(&e->arena, SMALL_ARENA_BYTES);
    buf_init(&e->rest, 2 * TRANSFER_LINE_BYTES_MAX);
    e->engine = engine;
    e->c = c;
    e->options = *options;
    e->space = live->index->space;
    e->dims = c->fixed.dims;
    memcpy(e->fingerprint, live->fingerprint, SHA256_HEX);
    snapshot_unref(live);
    e->vector = mem_alloc(e->dims, sizeof(*e->vector));
    if (!e->vector) {
        free_export(e);
        return fault_of(fault, ERR_NOMEM, "exporting");
    }
    err = stream_new(out, next_of_export, free_export, e, -1);
    return fault_of(fault, err, "exporting");
}

/* ---- reading ------------------------------------------------------------- */

struct transfer_line {
    struct collection *c;
    char fingerprint[SHA256_HEX];
    bool vector_only; /* the export's collection keeps no pictures */
    struct json *tree;
    struct buf metadata;
    float *vector;
    size_t dims;
    uint8_t *image; /* decoded from base64 */
    struct engine_item item;
    struct engine_pair pair;
    struct engine_side negatives[ENGINE_NEGATIVES_MAX];
};

enum err
transfer_line_new(struct transfer_line **out, struct collection *c)
{
    struct transfer_line *t = mem_calloc(1, sizeof(*t));
    if (!t) {
        return ERR_NOMEM;
    }
    t->c = collection_ref(c);
    t->dims = c->fixed.dims;
    buf_init(&t->metadata, 2 * ENGINE_METADATA_BYTES_MAX);
    t->vector = mem_alloc(t->dims, sizeof(*t->vector));
    if (!t->vector) {
        transfer_line_free(t);
        return ERR_NOMEM;
    }
    *out = t;
    return OK;
}

void
transfer_line_free(struct transfer_line *t)
{
    if (t) {
        json_free(t->tree);
        buf_release(&t->metadata);
        mem_free(t->vector);
        mem_free(t->image);
        collection_unref(t->c);
        mem_free(t);
    }
}

const struct engine_item *
transfer_line_item(const struct transfer_line *t)
{
    return &t->item;
}

const struct engine_pair *
transfer_line_pair(const struct transfer_line *t)
{
    return &t->pair;
}

const char *
transfer_line_fingerprint(const struct transfer_line *t)
{
    return t->fingerprint;
}

static enum err
read_head(struct transfer_line *t, struct fault *fault)
{
    int64_t version;
    const char *print = "", *images = "keep";
    const struct json *settings = NULL;
    size_t len = 0;
    enum err err = json_get_i64(t->tree, "", "kindred_export", JSON_REQUIRED, 1,
        INT64_MAX, &version, fault);
    if (!err && version > TRANSFER_VERSION) {
        err = fault_set(fault, ERR_INVALID, "/kindred_export",
            "an export of version %lld, this program reads up to %d",
            (long long)version, TRANSFER_VERSION);
    }
    if (!err) {
        err = json_get_str(
            t->tree, "", "fingerprint", JSON_OPTIONAL, &print, &len, fault);
    }
    if (!err) {
        err = json_get_object(
            t->tree, "", "settings", JSON_OPTIONAL, &settings, fault);
    }
    if (!err && settings) {
        err = json_get_str(settings, "/settings", "images", JSON_OPTIONAL,
            &images, NULL, fault);
    }
    if (!err) {
        snprintf(t->fingerprint, sizeof(t->fingerprint), "%.*s",
            len == SHA256_HEX - 1 ? (int)len : 0, print);
        t->vector_only = strcmp(images, "vector") == 0;
    }
    return err;
}

/* Is there a use for a vector whose picture is gone? Only where the same
   encoder made the others and nothing will ever be embedded again. */
static enum err
check_lone_vector(const struct transfer_line *t, struct fault *fault)
{
    struct snapshot *live = collection_live(t->c);
    bool same = strcmp(t->fingerprint, live->fingerprint) == 0;
    snapshot_unref(live);
    if (!t->c->fixed.vector_only) {
        return fault_set(fault, ERR_CONFLICT, "/item/vector",
            "its picture is not in the export, whose collection keeps only "
            "vectors: import it into one with \"images\": \"vector\"");
    }
    return same ? OK
                : fault_set(fault, ERR_CONFLICT, "/item/vector",
                      "another encoder made it (fingerprint %.12s...), and "
                      "its picture is not in the export: nothing can embed it "
                      "again",
                      t->fingerprint);
}

static enum err
read_vector(
    struct transfer_line *t, const struct json *object, struct fault *fault)
{
    const char *text = NULL;
    size_t len = 0, n = 0;
    enum err err = json_get_str(
        object, "/item", "vector", JSON_OPTIONAL, &text, &len, fault);
    if (err || !text) {
        return err;
    }
    size_t bytes = t->dims * sizeof(*t->vector);
    err = base64_decode(text, len, t->vector, bytes, &n);
    if (err || n != bytes) {
        return fault_set(fault, err ? err : ERR_CONFLICT, "/item/vector",
            "not the base64 of %zu little-endian f32 numbers", t->dims);
    }
    t->item.vector = t->vector;
    t->item.n_vector = t->dims;
    return t->vector_only ? check_lone_vector(t, fault) : OK;
}

static enum err
read_image(
    struct transfer_line *t, const struct json *object, struct fault *fault)
{
    const char *text = NULL;
    size_t len = 0, n = 0;
    mem_free(t->image);
    t->image = NULL;
    enum err err = json_get_str(
        object, "/item", "image", JSON_OPTIONAL, &text, &len, fault);
    if (err || !text) {
        return err;
    }
    size_t max = len / 4 * 3 + 3;
    t->image = mem_alloc(max, 1);
    if (!t->image) {
        return ERR_NOMEM;
    }
    err = base64_decode(text, len, t->image, max, &n);
    if (err) {
        return fault_set(fault, ERR_INVALID, "/item/image", "not base64");
    }
    t->item.image = (struct engine_image){.bytes = t->image, .n = n};
    return OK;
}

static enum err
get_text(const struct json *object, const char *at, const char *key,
    struct engine_text *out, struct fault *fault)
{
    return json_get_str(
        object, at, key, JSON_OPTIONAL, &out->s, &out->len, fault);
}

static enum err
read_item(
    struct transfer_line *t, const struct json *object, struct fault *fault)
{
    static const char *const keys[] = {
        "id", "title", "text", "metadata", "image", "vector"};
    const struct json *metadata = NULL;
    t->item = (struct engine_item){.id = NULL};
    enum err err =
        json_only_keys(object, "/item", keys, ARRAY_LEN(keys), fault);
    if (!err) {
        err = json_get_str(
            object, "/item", "id", JSON_REQUIRED, &t->item.id, NULL, fault);
    }
    if (!err) {
        err = get_text(object, "/item", "title", &t->item.title, fault);
    }
    if (!err) {
        err = get_text(object, "/item", "text", &t->item.text, fault);
    }
    if (!err) {
        err = json_get_object(
            object, "/item", "metadata", JSON_OPTIONAL, &metadata, fault);
    }
    if (!err && metadata) {
        buf_clear(&t->metadata);
        json_dump(metadata, &t->metadata);
        err = buf_status(&t->metadata);
        t->item.metadata =
            (struct engine_text){.s = t->metadata.data, .len = t->metadata.len};
    }
    if (!err) {
        err = read_image(t, object, fault);
    }
    return err ? err : read_vector(t, object, fault);
}

static enum err
read_side(const struct json *object, const char *at, struct engine_side *out,
    struct fault *fault)
{
    static const char *const keys[] = {"id", "text"};
    *out = (struct engine_side){.id = NULL};
    if (json_kind(object) != JSON_KIND_OBJECT) {
        return fault_set(fault, ERR_INVALID, at,
            "a side of a pair is {\"id\": ...} or {\"text\": ...}");
    }
    enum err err = json_only_keys(object, at, keys, ARRAY_LEN(keys), fault);
    if (!err) {
        err = json_get_str(
            object, at, "id", JSON_OPTIONAL, &out->id, NULL, fault);
    }
    return err ? err : get_text(object, at, "text", &out->text, fault);
}

static enum err
read_pair(
    struct transfer_line *t, const struct json *object, struct fault *fault)
{
    static const char *const keys[] = {
        "anchor", "positive", "negatives", "weight", "group"};
    const struct json *anchor, *positive, *negatives = NULL;
    t->pair = (struct engine_pair){.weight = 1, .negatives = t->negatives};
    enum err err =
        json_only_keys(object, "/pair", keys, ARRAY_LEN(keys), fault);
    if (!err) {
        err = json_get_object(
            object, "/pair", "anchor", JSON_REQUIRED, &anchor, fault);
    }
    if (!err) {
        err = read_side(anchor, "/pair/anchor", &t->pair.anchor, fault);
    }
    if (!err) {
        err = json_get_object(
            object, "/pair", "positive", JSON_REQUIRED, &positive, fault);
    }
    if (!err) {
        err = read_side(positive, "/pair/positive", &t->pair.positive, fault);
    }
    if (!err) {
        err = json_get_array(
            object, "/pair", "negatives", JSON_OPTIONAL, &negatives, fault);
    }
    size_t n = err || !negatives ? 0 : json_count(negatives);
    if (n > ENGINE_NEGATIVES_MAX) {
        err = fault_set(fault, ERR_TOO_LARGE, "/pair/negatives",
            "a pair has at most %d negatives", ENGINE_NEGATIVES_MAX);
    }
    for (size_t i = 0; i < n && !err; i++) {
        char at[FAULT_POINTER_MAX];
        pointer_index(at, "/pair/negatives", i);
        err = read_side(json_item(negatives, i), at, &t->negatives[i], fault);
    }
    t->pair.n_negatives = n;
    if (!err) {
        err = json_get_f64(object, "/pair", "weight", JSON_OPTIONAL, NULL,
            &t->pair.weight, fault);
    }
    if (!err) {
        err = json_get_str(object, "/pair", "group", JSON_OPTIONAL,
            &t->pair.group, NULL, fault);
    }
    return err;
}

enum err
transfer_line_read(struct transfer_line *t, const char *text, size_t len,
    enum transfer_kind *kind, struct fault *fault)
{
    size_t blank = 0;
    while (blank < len && strchr(" \t\r\n", text[blank]) && text[blank]) {
        blank++;
    }
    *kind = TRANSFER_NOTHING;
    if (blank == len) {
        return OK;
    }
    json_free(t->tree);
    t->tree = NULL;
    enum err err =
        json_parse(text, len, TRANSFER_LINE_BYTES_MAX, &t->tree, fault);
    if (err) {
        return err;
    }
    const struct json *item = json_find(t->tree, "item");
    const struct json *pair = json_find(t->tree, "pair");
    if (json_find(t->tree, "kindred_export")) {
        return read_head(t, fault);
    }
    if (item && json_kind(item) == JSON_KIND_OBJECT) {
        *kind = TRANSFER_ITEM;
        return read_item(t, item, fault);
    }
    if (pair && json_kind(pair) == JSON_KIND_OBJECT) {
        *kind = TRANSFER_PAIR;
        return read_pair(t, pair, fault);
    }
    return fault_set(
        fault, ERR_INVALID, "", "a line of an export has \"item\" or \"pair\"");
}
