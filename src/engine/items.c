/* Single items, arrays of them, pages, deletion. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "store/pairs.h"
#include "engine/ingest.h"
#include "engine/internal.h"
#include "engine/pictures.h"

#define DELETE_CHUNK 500 /* items removed in one transaction */
#define PATCH_TRIES 20

/* ---- writing ------------------------------------------------------------- */

enum err
engine_item_put(struct engine *engine, const char *collection,
    const struct engine_item *item, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault)
{
    struct collection *c;
    struct ingest *batch = NULL;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    bool asks =
        condition && (condition->must_be_absent || condition->must_exist ||
                         condition->n_versions);
    struct ingest_options options = {
        .all_or_nothing = true, .condition = asks ? condition : NULL};
    err = ingest_new(&batch, c, &options);
    if (!err) {
        err = ingest_add(batch, item, 1, "", fault);
    }
    if (!err) {
        err = ingest_encode(batch, NULL, fault);
    }
    if (!err) {
        err = ingest_submit(batch, fault);
    }
    if (!err) {
        err = ingest_wait(batch, fault);
    }
    if (!err) {
        ingest_outcome(batch, 0, outcome);
        outcome->id = item->id;
    }
    ingest_free(batch);
    collection_unref(c);
    return fault_of(fault, err, "writing the item");
}

enum err
engine_items_put(struct engine *engine, const char *collection,
    const struct engine_item *items, size_t n, struct engine_outcome *outcomes,
    struct fault *fault)
{
    if (n > ENGINE_BATCH_ITEMS_MAX) {
        return fault_set(fault, ERR_TOO_LARGE, "",
            "%zu items in one array, the limit is %d (NDJSON has none)", n,
            ENGINE_BATCH_ITEMS_MAX);
    }
    struct collection *c;
    struct ingest *batch = NULL;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct ingest_options options = {.all_or_nothing = true};
    err = ingest_new(&batch, c, &options);
    for (size_t i = 0; i < n && !err; i++) {
        char prefix[FAULT_POINTER_MAX];
        pointer_index(prefix, "", i);
        err = ingest_add(batch, &items[i], i + 1, prefix, fault);
    }
    if (!err) {
        err = ingest_encode(batch, NULL, fault);
    }
    if (!err) {
        err = ingest_submit(batch, fault);
    }
    if (!err) {
        err = ingest_wait(batch, fault);
    }
    for (size_t i = 0; i < n && !err; i++) {
        ingest_outcome(batch, i, &outcomes[i]);
        outcomes[i].id = items[i].id;
    }
    ingest_free(batch);
    collection_unref(c);
    return fault_of(fault, err, "writing the items");
}

/* ---- reading ------------------------------------------------------------- */

static struct engine_text
text_of(struct store_text t)
{
    return (struct engine_text){.s = t.s, .len = t.s ? t.len : 0};
}

/* The stored vector of an item, copied to the arena; none leaves NULL. */
static enum err
add_vector(struct collection *c, const struct snapshot *live,
    struct arena *arena, struct engine_item_view *view)
{
    struct roster_entry in;
    float *vector = arena_alloc(arena, c->fixed.dims, sizeof(*vector));
    if (!vector) {
        return ERR_NOMEM;
    }
    if (roster_find(c->roster, view->id, &in) &&
        ann_get(live->index->ann, in.ord, vector) == OK) {
        view->vector = vector;
        view->n_vector = c->fixed.dims;
    }
    return OK;
}

/* The facts of its picture. */
static enum err
add_picture(struct db *db, struct arena *arena, int64_t item,
    struct engine_item_view *view)
{
    struct image_row row;
    enum err err = images_get(db, item, false, arena, &row);
    if (!err) {
        picture_facts(&row, &view->image);
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err
missing(struct fault *fault, const char *pointer, const char *id)
{
    return fault_set(
        fault, ERR_NOT_FOUND, pointer, "there is no item \"%.200s\"", id);
}

enum err
engine_item_get(struct engine *engine, const char *collection, const char *id,
    bool with_vector, struct arena *arena, struct engine_item_view *out,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct snapshot *live = collection_live(c);
    struct db *db = NULL;
    struct item_row row;
    struct engine_item_view view = {.id = NULL};
    err = store_read_begin(engine->store, &db);
    if (!err) {
        err =
            items_get(db, c->id, store_text_of(id), ITEM_WANT_ALL, arena, &row);
        if (!err) {
            err = add_picture(db, arena, row.item, &view);
        }
        store_read_end(engine->store, db);
    }
    if (!err) {
        view = (struct engine_item_view){.id = row.ext_id.s,
            .image = view.image,
            .title = text_of(row.title),
            .text = text_of(row.text),
            .metadata_json = row.metadata.s ? row.metadata.s : "{}",
            .version = row.change_seq,
            .created_ms = row.created_ms,
            .updated_ms = row.updated_ms};
        if (with_vector) {
            err = add_vector(c, live, arena, &view);
        }
    }
    snapshot_unref(live);
    collection_unref(c);
    if (err == ERR_NOT_FOUND) {
        return missing(fault, "", id);
    }
    if (!err) {
        *out = view;
    }
    return fault_of(fault, err, "reading the item");
}

/* ---- metadata alone ------------------------------------------------------ */

static void
write_member(struct buf *out, bool *first, const char *key)
{
    buf_add_str(out, *first ? "" : ",");
    buf_json_cstr(out, key);
    buf_add_char(out, ':');
    *first = false;
}

/* RFC 7396: members of patch replace those of target, null removes; target
   NULL counts as an empty object. */
static void
merge(struct buf *out, const struct json *target, const struct json *patch)
{
    if (json_kind(patch) != JSON_KIND_OBJECT) {
        json_dump(patch, out);
        return;
    }
    bool first = true;
    bool object = target && json_kind(target) == JSON_KIND_OBJECT;
    buf_add_char(out, '{');
    for (void *it = object ? json_first(target) : NULL; it;
         it = json_next(target, it)) {
        const struct json *change = json_find(patch, json_it_key(it));
        if (!change) {
            write_member(out, &first, json_it_key(it));
            json_dump(json_it_value(it), out);
        } else if (json_kind(change) != JSON_KIND_NULL) {
            write_member(out, &first, json_it_key(it));
            merge(out, json_it_value(it), change);
        }
    }
    for (void *it = json_first(patch); it; it = json_next(patch, it)) {
        bool known = object && json_find(target, json_it_key(it));
        if (!known && json_kind(json_it_value(it)) != JSON_KIND_NULL) {
            write_member(out, &first, json_it_key(it));
            merge(out, NULL, json_it_value(it));
        }
    }
    buf_add_char(out, '}');
}

struct patch_op {
    struct collection *c;
    struct store_text id;
    struct store_text metadata;
    int64_t if_match;
    struct item_result result;
};

static enum err
run_patch(struct db *db, void *arg)
{
    struct patch_op *op = arg;
    return items_patch(db, op->c->id, op->id, op->metadata, op->if_match,
        clock_wall_ms(), &op->result);
}

static void
done_patch(void *arg, enum err err)
{
    struct patch_op *op = arg;
    if (err) {
        return;
    }
    uint32_t ord;
    enum err put = roster_put(op->c->roster, op->id.s, op->result.item,
        op->result.change_seq, &ord, NULL);
    ASSERT(put == OK);
    if (columns_any(op->c->columns)) {
        index_metadata(op->c, ord, op->metadata.s, op->metadata.len);
    }
    op->c->engine->totals.items_written++;
}

/* Does the condition hold for an item that is there with this version? */
static bool
condition_holds(const struct engine_condition *condition, int64_t version)
{
    if (!condition) {
        return true;
    }
    if (condition->must_be_absent) {
        return false;
    }
    for (size_t i = 0; i < condition->n_versions; i++) {
        if (condition->versions[i] == version) {
            return true;
        }
    }
    return condition->n_versions == 0;
}

static enum err
not_as_asked(struct fault *fault)
{
    return fault_set(
        fault, ERR_PRECONDITION, "", "the item is not as the condition says");
}

/* The template shows metadata: the item is written anew, as a whole. */
static enum err
patch_whole(struct engine *engine, struct collection *c,
    const struct item_row *row, const struct buf *metadata,
    struct engine_outcome *outcome, struct fault *fault)
{
    struct engine_item item = {.id = row->ext_id.s,
        .title = text_of(row->title),
        .text = text_of(row->text),
        .metadata = {.s = metadata->data, .len = metadata->len}};
    struct engine_condition same = {
        .versions = &row->change_seq, .n_versions = 1};
    return engine_item_put(engine, c->name, &item, &same, outcome, fault);
}

static enum err
patch_once(struct engine *engine, struct collection *c, const char *id,
    const struct json *patch, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault)
{
    struct arena arena;
    arena_init(&arena, SMALL_ARENA_BYTES + 2 * engine->text_bytes_max);
    struct buf merged;
    buf_init(&merged, ENGINE_METADATA_BYTES_MAX);
    struct db *db;
    struct item_row row;
    struct json *old = NULL;
    enum err err = store_read_begin(engine->store, &db);
    if (!err) {
        err = items_get(
            db, c->id, store_text_of(id), ITEM_WANT_ALL, &arena, &row);
        store_read_end(engine->store, db);
    }
    if (err == ERR_NOT_FOUND) {
        err = missing(fault, "", id);
    }
    if (!err && !condition_holds(condition, row.change_seq)) {
        err = not_as_asked(fault);
    }
    if (!err && row.metadata.s) {
        err = json_parse(row.metadata.s, row.metadata.len,
            ENGINE_METADATA_BYTES_MAX, &old, fault);
    }
    if (!err) {
        merge(&merged, old, patch);
        err = buf_status(&merged);
        if (err == ERR_TOO_LARGE) {
            err = fault_set(fault, err, "/metadata",
                "the metadata would have more than %d bytes",
                ENGINE_METADATA_BYTES_MAX);
        }
    }
    json_free(old);
    bool external = strcmp(c->fixed.encoder, SETTINGS_EXTERNAL) == 0;
    if (!err && document_uses_metadata(c->template) && !external) {
        err = patch_whole(engine, c, &row, &merged, outcome, fault);
        /* Someone wrote between: the caller tries again. */
        err = err == ERR_PRECONDITION ? ERR_CONFLICT : err;
    } else if (!err) {
        struct patch_op op = {.c = c,
            .id = store_text_of(id),
            .metadata = {.s = merged.len == 2 ? NULL : merged.data,
                .len = merged.len},
            .if_match = row.change_seq};
        struct store_op write = {
            .run = run_patch, .done = done_patch, .arg = &op};
        err = store_write(engine->store, &write);
        err = err == ERR_PRECONDITION ? ERR_CONFLICT : err;
        if (!err) {
            *outcome = (struct engine_outcome){.line = 1,
                .status = ENGINE_UPDATED,
                .version = op.result.change_seq};
        }
    }
    buf_release(&merged);
    arena_release(&arena);
    return err;
}

enum err
engine_item_patch(struct engine *engine, const char *collection, const char *id,
    const char *metadata_json, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault)
{
    struct collection *c;
    struct json *patch = NULL;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct fault why = {.err = OK};
    err = json_parse(metadata_json, strlen(metadata_json),
        ENGINE_METADATA_BYTES_MAX, &patch, &why);
    if (err) {
        err = fault_set(fault, err, "/metadata", "%s", why.detail);
    } else if (json_kind(patch) != JSON_KIND_OBJECT) {
        err = fault_set(
            fault, ERR_INVALID, "/metadata", "metadata is a JSON object");
    }
    for (int i = 0; !err; i++) {
        err = patch_once(engine, c, id, patch, condition, outcome, fault);
        if (err != ERR_CONFLICT || i == PATCH_TRIES) {
            break;
        }
        err = OK;
    }
    json_free(patch);
    collection_unref(c);
    if (!err) {
        outcome->id = id;
    }
    return fault_of(fault, err, "patching the item");
}

/* ---- deletion ------------------------------------------------------------ */

struct delete_op {
    struct collection *c;
    const struct store_text *ids;
    size_t n;
    const struct engine_condition *condition;
    struct item_result *results;
    size_t n_deleted;
};

static enum err
run_delete(struct db *db, void *arg)
{
    struct delete_op *op = arg;
    struct collection *c = op->c;
    if (op->condition) {
        struct item_row now;
        enum err err = items_find(db, c->id, op->ids, 1, &now);
        if (err) {
            return err;
        }
        if (!now.item) {
            return ERR_NOT_FOUND;
        }
        if (!condition_holds(op->condition, now.change_seq)) {
            return ERR_PRECONDITION;
        }
    }
    enum err err = items_delete(db, c->id, op->ids, op->n, 0, op->results);
    if (!err && c->has_pairs) {
        err =
            pairs_set_aside(db, c->id, op->ids, op->n, PAIR_ITEM_DELETED, NULL);
    }
    return err;
}

static void
done_delete(void *arg, enum err err)
{
    struct delete_op *op = arg;
    struct collection *c = op->c;
    op->n_deleted = 0;
    if (err) {
        return;
    }
    struct snapshot *live, *shadow;
    collection_snapshots(c, &live, &shadow);
    for (size_t i = 0; i < op->n; i++) {
        struct roster_entry in;
        if (op->results[i].err || !roster_find(c->roster, op->ids[i].s, &in)) {
            continue;
        }
        /* The roster last: an ordinal may be used again only when no index
           gives it any more. */
        ann_remove(live->index->ann, in.ord);
        if (shadow) {
            ann_remove(shadow->index->ann, in.ord);
        }
        columns_clear(c->columns, in.ord);
        roster_remove(c->roster, op->ids[i].s);
        op->n_deleted++;
    }
    snapshot_unref(live);
    snapshot_unref(shadow);
    c->engine->totals.items_deleted += op->n_deleted;
}

static enum err
delete_ids(struct collection *c, const struct store_text *ids, size_t n,
    const struct engine_condition *condition, int64_t *n_deleted)
{
    struct item_result *results =
        mem_alloc(MIN(n, DELETE_CHUNK) + 1, sizeof(*results));
    if (!results) {
        return ERR_NOMEM;
    }
    enum err err = OK;
    for (size_t at = 0; at < n && !err; at += DELETE_CHUNK) {
        struct delete_op op = {.c = c,
            .ids = ids + at,
            .n = MIN(n - at, DELETE_CHUNK),
            .condition = condition,
            .results = results};
        struct store_op write = {
            .run = run_delete, .done = done_delete, .arg = &op};
        err = store_write(c->engine->store, &write);
        if (!err) {
            *n_deleted += (int64_t)op.n_deleted;
        }
    }
    mem_free(results);
    return err;
}

enum err
engine_item_delete(struct engine *engine, const char *collection,
    const char *id, const struct engine_condition *condition,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    bool asks =
        condition && (condition->must_be_absent || condition->n_versions);
    struct store_text ext_id = store_text_of(id);
    int64_t n_deleted = 0;
    err = delete_ids(c, &ext_id, 1, asks ? condition : NULL, &n_deleted);
    collection_unref(c);
    if (err == ERR_PRECONDITION) {
        return not_as_asked(fault);
    }
    if (err == ERR_NOT_FOUND || (!err && n_deleted == 0)) {
        return missing(fault, "", id);
    }
    return fault_of(fault, err, "deleting the item");
}

/* The ids of a set of ordinals. */
static enum err
names_of(struct collection *c, const struct ann_filter *rows,
    struct arena *arena, struct store_text **out, size_t *n)
{
    struct store_text *ids =
        arena_alloc(arena, MAX(rows->n_allowed, 1), sizeof(*ids));
    if (!ids) {
        return ERR_NOMEM;
    }
    size_t count = 0;
    for (size_t ord = 0; ord < rows->n_words * 64; ord++) {
        const char *id;
        int64_t item;
        if (!(rows->bits[ord >> 6] >> (ord & 63) & 1)) {
            continue;
        }
        enum err err = roster_name(c->roster, (uint32_t)ord, arena, &id, &item);
        if (err == ERR_NOMEM) {
            return err;
        }
        if (!err && count < rows->n_allowed) {
            ids[count++] = store_text_of(id);
        }
    }
    *out = ids;
    *n = count;
    return OK;
}

enum err
engine_items_delete(struct engine *engine, const char *collection,
    const char *const *ids, size_t n_ids, const char *filter_json,
    int64_t *n_deleted, int64_t *n_missing, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct arena arena;
    arena_init(&arena, SIZE_MAX / 2);
    struct store_text *list = NULL;
    size_t n = 0;
    if (ids) {
        list = arena_alloc(&arena, MAX(n_ids, 1), sizeof(*list));
        err = list ? OK : ERR_NOMEM;
        for (; n < n_ids && !err; n++) {
            list[n] = store_text_of(ids[n]);
        }
    } else {
        struct ann_filter rows;
        unsigned slot = roster_enter(c->roster);
        err = select_rows(c, filter_json, "/filter", &arena, &rows, fault);
        if (!err) {
            err = names_of(c, &rows, &arena, &list, &n);
        }
        roster_leave(c->roster, slot);
    }
    int64_t deleted = 0;
    if (!err) {
        err = delete_ids(c, list, n, NULL, &deleted);
    }
    arena_release(&arena);
    collection_unref(c);
    if (!err) {
        *n_deleted = deleted;
        *n_missing = ids ? (int64_t)n - deleted : 0;
    }
    return fault_of(fault, err, "deleting items");
}

/* ---- pages --------------------------------------------------------------- */

struct page {
    struct collection *c;
    struct db *db;
    const struct snapshot *live;
    struct arena *arena;
    bool with_vector;
    struct engine_item_view *items;
    size_t n;
    size_t max;
    int64_t last_item;
};

static struct engine_text
copy_text(struct arena *arena, struct store_text t, bool *ok)
{
    struct engine_text out = {.s = NULL};
    if (t.s) {
        out.s = arena_strndup(arena, t.s, t.len);
        out.len = t.len;
        *ok = *ok && out.s;
    }
    return out;
}

static enum err
page_row(void *arg, const struct item_row *row)
{
    struct page *page = arg;
    if (page->n == page->max) {
        return OK;
    }
    bool ok = true;
    struct engine_item_view view = {.version = row->change_seq,
        .created_ms = row->created_ms,
        .updated_ms = row->updated_ms};
    view.title = copy_text(page->arena, row->title, &ok);
    view.text = copy_text(page->arena, row->text, &ok);
    view.id = copy_text(page->arena, row->ext_id, &ok).s;
    const char *metadata = copy_text(page->arena, row->metadata, &ok).s;
    view.metadata_json = metadata ? metadata : "{}";
    if (!ok) {
        return ERR_NOMEM;
    }
    enum err err = add_picture(page->db, page->arena, row->item, &view);
    if (!err && page->with_vector) {
        err = add_vector(page->c, page->live, page->arena, &view);
    }
    if (!err) {
        page->items[page->n++] = view;
        page->last_item = row->item;
    }
    return err;
}

static int
by_number(const void *a, const void *b)
{
    int64_t x, y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

/* The numbers of the items that pass a filter and follow one, in order. */
static enum err
filtered_numbers(struct collection *c, const char *filter_json, int64_t after,
    size_t limit, struct arena *arena, int64_t **out, size_t *n,
    struct fault *fault)
{
    struct ann_filter rows;
    unsigned slot = roster_enter(c->roster);
    enum err err = select_rows(c, filter_json, "/filter", arena, &rows, fault);
    int64_t *items = NULL;
    uint32_t *ords = NULL;
    size_t count = 0;
    if (!err) {
        items = arena_alloc(arena, rows.n_allowed + 1, sizeof(*items));
        ords = arena_alloc(arena, rows.n_allowed + 1, sizeof(*ords));
        err = items && ords ? OK : ERR_NOMEM;
    }
    for (size_t ord = 0; !err && ord < rows.n_words * 64; ord++) {
        if (rows.bits[ord >> 6] >> (ord & 63) & 1) {
            ords[count++] = (uint32_t)ord;
        }
    }
    if (!err) {
        roster_items(c->roster, ords, count, items);
    }
    roster_leave(c->roster, slot);
    if (err) {
        return err;
    }
    qsort(items, count, sizeof(*items), by_number);
    size_t first = 0;
    while (first < count && items[first] <= after) {
        first++;
    }
    *out = items + first;
    *n = MIN(count - first, limit);
    return OK;
}

/* A cursor is the number of the last item, in hexadecimal. */
static enum err
read_cursor(const char *cursor, int64_t *after, struct fault *fault)
{
    *after = 0;
    if (!cursor) {
        return OK;
    }
    char *end = NULL;
    bool ok = cursor[0] == 'c' && strlen(cursor) <= 16 &&
              strspn(cursor + 1, "0123456789abcdef") == strlen(cursor) - 1;
    if (ok) {
        *after = (int64_t)strtoull(cursor + 1, &end, 16);
    }
    if (!ok || end == cursor + 1) {
        return fault_set(fault, ERR_INVALID, "/cursor",
            "not a cursor that this service gave");
    }
    return OK;
}

enum err
engine_items_list(struct engine *engine, const char *collection,
    const char *cursor, size_t limit, const char *filter_json, bool with_vector,
    struct arena *arena, struct engine_item_page *out, struct fault *fault)
{
    if (limit > ENGINE_PAGE_MAX) {
        return fault_set(fault, ERR_INVALID, "/limit",
            "a page has at most %d items", ENGINE_PAGE_MAX);
    }
    limit = limit ? limit : ENGINE_PAGE_DEFAULT;
    struct collection *c;
    int64_t after;
    enum err err = read_cursor(cursor, &after, fault);
    if (!err) {
        err = collection_find(engine, collection, &c, fault);
    }
    if (err) {
        return err;
    }
    struct page page = {.c = c,
        .live = NULL,
        .arena = arena,
        .with_vector = with_vector,
        .max = limit};
    struct snapshot *live = collection_live(c);
    page.live = live;
    /* One more than asked tells whether there is another page. */
    page.items = arena_alloc(arena, limit, sizeof(*page.items));
    int64_t *items = NULL;
    size_t n = 0;
    err = page.items ? OK : ERR_NOMEM;
    if (!err && filter_json) {
        err = filtered_numbers(
            c, filter_json, after, limit + 1, arena, &items, &n, fault);
    }
    struct db *db = NULL;
    if (!err) {
        err = store_read_begin(engine->store, &db);
        page.db = db;
    }
    if (!err && filter_json) {
        err = items_get_many(
            db, items, MIN(n, limit), ITEM_WANT_ALL, page_row, &page);
        if (!err && n > limit) {
            page.last_item = items[limit - 1];
        }
    } else if (!err) {
        err =
            items_walk(db, c->id, after, limit, ITEM_WANT_ALL, page_row, &page);
    }
    store_read_end(engine->store, db);
    bool more = filter_json ? n > limit : page.n == limit;
    char text[32];
    snprintf(text, sizeof(text), "c%llx", (unsigned long long)page.last_item);
    struct engine_item_page result = {.items = page.items, .n = page.n};
    if (!err && more) {
        result.next_cursor = arena_strndup(arena, text, strlen(text));
        err = result.next_cursor ? OK : ERR_NOMEM;
    }
    snapshot_unref(live);
    collection_unref(c);
    if (!err) {
        *out = result;
    }
    return fault_of(fault, err, "listing the items");
}
