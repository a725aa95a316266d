/* Pairs and feedback: what the service learns from. */
#include "engine/pairs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "store/pairs.h"
#include "text/words.h"
#include "engine/impressions.h"
#include "engine/internal.h"

#define SPLIT_SEED 0x706169727321 /* fixed for ever: splits depend on it */
#define PAIR_TEXT_BYTES_MAX 65536 /* of one side */

struct entry {
    uint64_t line;
    struct pair_put put;
    uint8_t reverse[PAIR_KEY_BYTES];
    struct fault fault; /* why it is refused; err OK: it is not */
    char prefix[32];
    struct pair_result result;
    bool stored;
};

struct pair_batch {
    struct collection *c;
    struct arena arena;
    bool all_or_nothing;
    const char *origin;
    struct entry *entries;
    size_t n, cap;
    size_t bytes;
    size_t refused_i; /* all or nothing: which entry failed it */
};

enum err
pair_batch_new(struct pair_batch **out, struct collection *c,
    bool all_or_nothing, const char *origin)
{
    struct pair_batch *b = mem_calloc(1, sizeof(*b));
    if (!b) {
        return ERR_NOMEM;
    }
    b->c = collection_ref(c);
    b->all_or_nothing = all_or_nothing;
    b->origin = origin;
    arena_init(&b->arena, SIZE_MAX / 2);
    *out = b;
    return OK;
}

void
pair_batch_free(struct pair_batch *b)
{
    if (b) {
        arena_release(&b->arena);
        mem_free(b->entries);
        collection_unref(b->c);
        mem_free(b);
    }
}

void
pair_batch_clear(struct pair_batch *b)
{
    arena_release(&b->arena);
    arena_init(&b->arena, SIZE_MAX / 2);
    b->n = b->bytes = 0;
}

size_t
pair_batch_count(const struct pair_batch *b)
{
    return b->n;
}

size_t
pair_batch_bytes(const struct pair_batch *b)
{
    return b->bytes;
}

/* ---- what makes two sides the same --------------------------------------- */

static void
add_word(void *arg, const char *word, size_t len, int spaceless)
{
    (void)spaceless;
    struct buf *out = arg;
    if (out->len) {
        buf_add_char(out, ' ');
    }
    buf_add(out, word, len);
}

/* A side in one spelling: "i" and the id, or "t" and the normalised words (the
   text itself when it has none). */
static enum err
canonical_side(const struct engine_side *side, struct buf *out)
{
    buf_clear(out);
    if (side->id) {
        buf_add_str(out, "i");
        buf_add_str(out, side->id);
        return buf_status(out);
    }
    struct buf words;
    buf_init(&words, 4 * PAIR_TEXT_BYTES_MAX);
    enum err err = words_split(side->text.s, side->text.len, add_word, &words);
    buf_add_str(out, "t");
    if (words.len) {
        buf_add(out, words.data, words.len);
    } else {
        buf_add(out, side->text.s, side->text.len);
    }
    buf_release(&words);
    return err ? err : buf_status(out);
}

static void
pair_key(uint8_t key[PAIR_KEY_BYTES], const struct buf *a, const struct buf *b)
{
    uint8_t digest[SHA256_BYTES];
    struct sha256 sha;
    sha256_start(&sha);
    sha256_add(&sha, a->data, a->len + 1); /* with the NUL between */
    sha256_add(&sha, b->data, b->len);
    sha256_finish(&sha, digest);
    memcpy(key, digest, PAIR_KEY_BYTES);
}

/* 80/10/10 by the hash of the group, else of the anchor. */
static enum pair_split
split_of(uint64_t hash)
{
    uint64_t tenth = hash_u64(hash) % 10;
    return tenth < 8 ? PAIR_TRAIN : tenth == 8 ? PAIR_TUNE : PAIR_JUDGE;
}

/* ---- checking ------------------------------------------------------------ */

static enum err
check_side(struct pair_batch *b, const struct engine_side *side,
    const char *prefix, const char *name, struct fault *fault)
{
    char at[FAULT_POINTER_MAX], inner[FAULT_POINTER_MAX];
    json_pointer(at, prefix, name);
    if ((side->id != NULL) + (side->text.s != NULL) != 1) {
        return fault_set(fault, ERR_INVALID, at,
            "a side of a pair is an \"id\" or a \"text\"");
    }
    if (side->id) {
        json_pointer(inner, at, "id");
        enum err err = check_item_id(side->id, inner, fault);
        struct roster_entry in;
        if (!err && !roster_find(b->c->roster, side->id, &in)) {
            err = fault_set(fault, ERR_NOT_FOUND, inner,
                "there is no item \"%.200s\"", side->id);
        }
        return err;
    }
    json_pointer(inner, at, "text");
    if (collection_reads_images(b->c)) {
        return fault_set(fault, ERR_INVALID, inner,
            "this collection's encoder reads pictures: a side of a pair is the "
            "id of an item");
    }
    if (side->text.len == 0) {
        return fault_set(fault, ERR_INVALID, inner, "the text is empty");
    }
    if (side->text.len > PAIR_TEXT_BYTES_MAX) {
        return fault_set(fault, ERR_TOO_LARGE, inner,
            "the text has %zu bytes, the limit in a pair is %d", side->text.len,
            PAIR_TEXT_BYTES_MAX);
    }
    if (!check_utf8(side->text.s, side->text.len)) {
        return fault_set(fault, ERR_INVALID, inner, "not valid UTF-8");
    }
    return OK;
}

static enum err
check_pair(struct pair_batch *b, const struct engine_pair *pair,
    const char *prefix, struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    enum err err = check_side(b, &pair->anchor, prefix, "anchor", fault);
    if (!err) {
        err = check_side(b, &pair->positive, prefix, "positive", fault);
    }
    json_pointer(at, prefix, "negatives");
    if (!err && pair->n_negatives > ENGINE_NEGATIVES_MAX) {
        err = fault_set(fault, ERR_TOO_LARGE, at,
            "%zu negatives, a pair has at most %d", pair->n_negatives,
            ENGINE_NEGATIVES_MAX);
    }
    for (size_t i = 0; i < pair->n_negatives && !err; i++) {
        char index[24];
        snprintf(index, sizeof(index), "%zu", i);
        err = check_side(b, &pair->negatives[i], at, index, fault);
    }
    if (!err && !(pair->weight > 0 && pair->weight <= 1e6)) {
        json_pointer(at, prefix, "weight");
        err = fault_set(
            fault, ERR_INVALID, at, "a weight is over 0 and at most 1000000");
    }
    size_t group = pair->group ? strlen(pair->group) : 0;
    if (!err && pair->group && (group == 0 || group > ENGINE_GROUP_BYTES_MAX)) {
        json_pointer(at, prefix, "group");
        err = fault_set(fault, ERR_INVALID, at,
            "a group has 1 to %d bytes, this one %zu", ENGINE_GROUP_BYTES_MAX,
            group);
    }
    return err;
}

/* ---- taking -------------------------------------------------------------- */

static bool
copy_side(struct arena *arena, const struct engine_side *from,
    struct store_text *id, struct store_text *text)
{
    *id = *text = (struct store_text){.s = NULL};
    if (from->id) {
        id->len = strlen(from->id);
        id->s = arena_strndup(arena, from->id, id->len);
        return id->s != NULL;
    }
    text->len = from->text.len;
    text->s = arena_strndup(arena, from->text.s, text->len);
    return text->s != NULL;
}

/* [{"id": ..}, {"text": ..}], or absent. */
static enum err
write_negatives(struct pair_batch *b, const struct engine_pair *pair,
    struct store_text *out)
{
    *out = (struct store_text){.s = NULL};
    if (pair->n_negatives == 0) {
        return OK;
    }
    struct buf json;
    buf_init(&json, SIZE_MAX / 2);
    buf_add_char(&json, '[');
    for (size_t i = 0; i < pair->n_negatives; i++) {
        const struct engine_side *side = &pair->negatives[i];
        buf_add_str(&json, i ? "," : "");
        buf_add_str(&json, side->id ? "{\"id\":" : "{\"text\":");
        if (side->id) {
            buf_json_cstr(&json, side->id);
        } else {
            buf_json_string(&json, side->text.s, side->text.len);
        }
        buf_add_char(&json, '}');
    }
    buf_add_char(&json, ']');
    enum err err = buf_status(&json);
    if (!err) {
        out->s = arena_strndup(&b->arena, json.data, json.len);
        out->len = json.len;
        err = out->s ? OK : ERR_NOMEM;
    }
    buf_release(&json);
    return err;
}

/* Keys, group hash and split of a checked pair. */
static enum err
identify(const struct engine_pair *pair, struct entry *e, const char *prefix,
    struct fault *fault)
{
    struct buf anchor, positive;
    buf_init(&anchor, SIZE_MAX / 2);
    buf_init(&positive, SIZE_MAX / 2);
    enum err err = canonical_side(&pair->anchor, &anchor);
    if (!err) {
        err = canonical_side(&pair->positive, &positive);
    }
    if (!err && anchor.len == positive.len &&
        memcmp(anchor.data, positive.data, anchor.len) == 0) {
        char at[FAULT_POINTER_MAX];
        json_pointer(at, prefix, "positive");
        err = fault_set(
            fault, ERR_INVALID, at, "the positive is the anchor itself");
    }
    if (!err) {
        pair_key(e->put.key, &anchor, &positive);
        pair_key(e->reverse, &positive, &anchor);
        e->put.group_hash =
            pair->group
                ? hash_bytes(pair->group, strlen(pair->group), SPLIT_SEED)
                : hash_bytes(anchor.data, anchor.len, SPLIT_SEED + 1);
        e->put.split = split_of(e->put.group_hash);
    }
    buf_release(&anchor);
    buf_release(&positive);
    return err;
}

static enum err
reserve_entry(struct pair_batch *b)
{
    if (b->n == b->cap) {
        size_t cap = b->cap * 2 + 4;
        struct entry *v = mem_realloc(b->entries, cap, sizeof(*v));
        if (!v) {
            return ERR_NOMEM;
        }
        b->entries = v;
        b->cap = cap;
    }
    return OK;
}

enum err
pair_batch_add(struct pair_batch *b, const struct engine_pair *pair,
    uint64_t line, const char *prefix, struct fault *fault)
{
    enum err err = check_pair(b, pair, prefix, fault);
    if (!err) {
        err = reserve_entry(b);
    }
    struct entry e = {.line = line};
    snprintf(e.prefix, sizeof(e.prefix), "%s", prefix);
    if (!err) {
        err = identify(pair, &e, prefix, fault);
    }
    if (!err) {
        e.put.weight = pair->weight;
        e.put.origin = store_text_of(b->origin);
        bool ok = copy_side(&b->arena, &pair->anchor, &e.put.anchor_id,
                      &e.put.anchor_text) &&
                  copy_side(&b->arena, &pair->positive, &e.put.positive_id,
                      &e.put.positive_text);
        if (pair->group) {
            e.put.group.len = strlen(pair->group);
            e.put.group.s =
                arena_strndup(&b->arena, pair->group, e.put.group.len);
            ok = ok && e.put.group.s;
        }
        err = ok ? write_negatives(b, pair, &e.put.negatives) : ERR_NOMEM;
    }
    if (!err) {
        b->bytes += e.put.anchor_text.len + e.put.positive_text.len +
                    e.put.negatives.len + 256;
        b->entries[b->n++] = e;
    }
    return fault_of(fault, err, "taking the pair");
}

enum err
pair_batch_add_refused(
    struct pair_batch *b, uint64_t line, const struct fault *why)
{
    enum err err = reserve_entry(b);
    if (!err) {
        b->entries[b->n++] = (struct entry){.line = line, .fault = *why};
    }
    return err;
}

/* ---- committing ---------------------------------------------------------- */

/* The items that a pair names must be there when it is stored. */
static enum err
check_items(struct pair_batch *b, struct db *db, struct entry *e)
{
    struct store_text ids[2];
    const char *fields[2];
    struct item_row rows[2];
    size_t n = 0;
    if (e->put.anchor_id.s) {
        fields[n] = "/anchor/id";
        ids[n++] = e->put.anchor_id;
    }
    if (e->put.positive_id.s) {
        fields[n] = "/positive/id";
        ids[n++] = e->put.positive_id;
    }
    if (n == 0) {
        return OK;
    }
    enum err err = items_find(db, b->c->id, ids, n, rows);
    for (size_t i = 0; i < n && !err; i++) {
        if (!rows[i].item) {
            char at[FAULT_POINTER_MAX];
            snprintf(at, sizeof(at), "%s%s", e->prefix, fields[i]);
            err = fault_set(&e->fault, ERR_NOT_FOUND, at,
                "there is no item \"%.200s\"", ids[i].s);
        }
    }
    return err;
}

/* A copy or reverse in another split would let a judged pair be learnt. */
static enum err
check_mirror(struct pair_batch *b, struct db *db, struct entry *e)
{
    int64_t pair;
    enum pair_split split;
    e->put.reason = PAIR_REASON_NONE;
    enum err err = pairs_find(db, b->c->id, e->reverse, &pair, &split);
    if (err == ERR_NOT_FOUND) {
        return OK;
    }
    if (!err && split != e->put.split) {
        e->put.reason = PAIR_BARRED;
    }
    return err;
}

static enum err
run_pairs(struct db *db, void *arg)
{
    struct pair_batch *b = arg;
    int64_t now = clock_wall_ms();
    for (size_t i = 0; i < b->n; i++) {
        struct entry *e = &b->entries[i];
        e->stored = false;
        if (e->fault.err && !e->put.origin.s) {
            continue; /* refused before */
        }
        e->fault.err = OK;
        enum err err = check_items(b, db, e);
        if (err == ERR_NOT_FOUND && !b->all_or_nothing && e->fault.err) {
            continue;
        }
        if (!err) {
            err = check_mirror(b, db, e);
        }
        if (!err) {
            err = pairs_put(db, b->c->id, &e->put, 1, now, &e->result);
        }
        if (!err && !e->result.created) {
            /* The split is the one of the first posting. */
            err = pairs_find(
                db, b->c->id, e->put.key, &e->result.pair, &e->put.split);
        }
        if (err) {
            b->refused_i = i;
            return err;
        }
        e->stored = true;
    }
    return OK;
}

static void
done_pairs(void *arg, enum err err)
{
    struct pair_batch *b = arg;
    if (!err) {
        b->c->has_pairs = true;
    }
}

enum err
pair_batch_commit(struct pair_batch *b, struct fault *fault)
{
    if (b->n == 0) {
        return OK;
    }
    /* Before the commit: ingest that runs after it must see it. */
    b->c->has_pairs = true;
    struct store_op op = {.run = run_pairs, .done = done_pairs, .arg = b};
    enum err err = OK;
    for (int i = 0; i < 2000; i++) {
        err = store_write(b->c->engine->store, &op);
        if (err != ERR_BUSY) {
            break;
        }
        clock_sleep_ms(5);
    }
    if (err == ERR_NOT_FOUND && b->entries[b->refused_i].fault.err) {
        if (fault) {
            *fault = b->entries[b->refused_i].fault;
        }
        return err;
    }
    if (err == ERR_NOT_FOUND) {
        return fault_set(fault, err, "", "the collection has been deleted");
    }
    for (size_t i = 0; i < b->n && !err; i++) {
        b->c->engine->totals.pairs_written += b->entries[i].stored;
    }
    return fault_of(fault, err, "writing the pairs");
}

static const char *
split_name(enum pair_split split)
{
    return split == PAIR_TRAIN  ? "train"
           : split == PAIR_TUNE ? "tune"
                                : "judge";
}

static const char *
reason_name(enum pair_reason reason)
{
    switch (reason) {
    case PAIR_ITEM_DELETED:
        return "an item of it was deleted";
    case PAIR_ITEM_CHANGED:
        return "an item of it has changed";
    case PAIR_CONTRADICTED:
        return "it contradicts others";
    case PAIR_BARRED:
        return "its reverse is in another split";
    case PAIR_REASON_NONE:
        break;
    }
    return NULL;
}

void
pair_batch_outcome(
    const struct pair_batch *b, size_t i, struct engine_outcome *out)
{
    const struct entry *e = &b->entries[i];
    *out = (struct engine_outcome){.line = e->line, .fault = e->fault};
    if (!e->stored) {
        out->status = ENGINE_REFUSED;
        return;
    }
    out->status = e->result.created ? ENGINE_CREATED : ENGINE_UPDATED;
    out->pair_id = e->result.pair;
    out->split = split_name(e->put.split);
    out->aside = e->result.created ? reason_name(e->put.reason) : NULL;
}

/* ---- the engine's calls -------------------------------------------------- */

static enum err
add_pairs(struct engine *engine, const char *collection,
    const struct engine_pair *pairs, size_t n, bool indexed, const char *origin,
    struct engine_outcome *outcomes, struct fault *fault)
{
    struct collection *c;
    struct pair_batch *b = NULL;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    err = pair_batch_new(&b, c, true, origin);
    for (size_t i = 0; i < n && !err; i++) {
        char prefix[FAULT_POINTER_MAX] = "";
        if (indexed) {
            pointer_index(prefix, "", i);
        }
        err = pair_batch_add(b, &pairs[i], i + 1, prefix, fault);
    }
    if (!err) {
        err = pair_batch_commit(b, fault);
    }
    for (size_t i = 0; i < n && !err; i++) {
        pair_batch_outcome(b, i, &outcomes[i]);
    }
    pair_batch_free(b);
    collection_unref(c);
    return fault_of(fault, err, "writing the pairs");
}

enum err
engine_pairs_add(struct engine *engine, const char *collection,
    const struct engine_pair *pairs, size_t n, struct engine_outcome *outcomes,
    struct fault *fault)
{
    if (n > ENGINE_BATCH_ITEMS_MAX) {
        return fault_set(fault, ERR_TOO_LARGE, "",
            "%zu pairs in one array, the limit is %d (NDJSON has none)", n,
            ENGINE_BATCH_ITEMS_MAX);
    }
    return add_pairs(
        engine, collection, pairs, n, true, "api", outcomes, fault);
}

static bool
view_side(struct arena *arena, struct store_text id, struct store_text text,
    struct engine_side *out)
{
    *out = (struct engine_side){.id = NULL};
    if (id.s) {
        out->id = arena_strndup(arena, id.s, id.len);
        return out->id != NULL;
    }
    out->text.s = arena_strndup(arena, text.s ? text.s : "", text.len);
    out->text.len = text.len;
    return out->text.s != NULL;
}

static enum err
view_negatives(
    struct arena *arena, struct store_text json, struct engine_pair_view *view)
{
    struct json *tree = NULL;
    if (!json.s) {
        return OK;
    }
    enum err err = json_parse(json.s, json.len, SIZE_MAX / 2, &tree, NULL);
    size_t n = err ? 0 : json_count(tree);
    view->negatives = arena_calloc(arena, MAX(n, 1), sizeof(*view->negatives));
    if (!err && !view->negatives) {
        err = ERR_NOMEM;
    }
    for (size_t i = 0; i < n && !err; i++) {
        const struct json *side = json_item(tree, i);
        const struct json *id = json_find(side, "id");
        const struct json *text = json_find(side, "text");
        struct store_text t = {.s = NULL};
        const struct json *either = id ? id : text;
        if (either && json_kind(either) == JSON_KIND_STRING) {
            t.s = json_str(either, &t.len);
        }
        struct store_text none = {.s = NULL};
        if (!view_side(
                arena, id ? t : none, id ? none : t, &view->negatives[i])) {
            err = ERR_NOMEM;
        }
    }
    view->n_negatives = n;
    json_free(tree);
    return err;
}

enum err
pair_view(const struct pair_row *row, struct arena *arena,
    struct engine_pair_view *out)
{
    struct engine_pair_view view = {.id = row->pair,
        .weight = row->weight,
        .split = split_name(row->split),
        .aside = row->state == PAIR_SET_ASIDE ? reason_name(row->reason) : NULL,
        .origin = "api",
        .created_ms = row->created_ms};
    bool ok =
        view_side(arena, row->anchor_id, row->anchor_text, &view.anchor) &&
        view_side(arena, row->positive_id, row->positive_text, &view.positive);
    if (row->group.s) {
        view.group = arena_strndup(arena, row->group.s, row->group.len);
        ok = ok && view.group;
    }
    if (row->origin.s) {
        view.origin = arena_strndup(arena, row->origin.s, row->origin.len);
        ok = ok && view.origin;
    }
    enum err err =
        ok ? view_negatives(arena, row->negatives, &view) : ERR_NOMEM;
    if (!err) {
        *out = view;
    }
    return err;
}

struct list {
    struct arena *arena;
    struct engine_pair_view *pairs;
    size_t n;
};

static enum err
list_row(void *arg, const struct pair_row *row)
{
    struct list *list = arg;
    enum err err = pair_view(row, list->arena, &list->pairs[list->n]);
    list->n += !err;
    return err;
}

enum err
engine_pairs_list(struct engine *engine, const char *collection,
    const char *cursor, size_t limit, struct arena *arena,
    struct engine_pair_page *out, struct fault *fault)
{
    if (limit > ENGINE_PAGE_MAX) {
        return fault_set(fault, ERR_INVALID, "/limit",
            "a page has at most %d pairs", ENGINE_PAGE_MAX);
    }
    limit = limit ? limit : ENGINE_PAGE_DEFAULT;
    int64_t after = 0;
    if (cursor) {
        size_t len = strlen(cursor);
        if (len < 2 || len > 16 || cursor[0] != 'p' ||
            strspn(cursor + 1, "0123456789abcdef") != len - 1) {
            return fault_set(fault, ERR_INVALID, "/cursor",
                "not a cursor that this service gave");
        }
        after = (int64_t)strtoull(cursor + 1, NULL, 16);
    }
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct list list = {.arena = arena};
    list.pairs = arena_alloc(arena, limit, sizeof(*list.pairs));
    struct db *db = NULL;
    err = list.pairs ? store_read_begin(engine->store, &db) : ERR_NOMEM;
    if (!err) {
        err = pairs_list(db, c->id, after, limit, list_row, &list);
    }
    store_read_end(engine->store, db);
    collection_unref(c);
    struct engine_pair_page page = {.pairs = list.pairs, .n = list.n};
    if (!err && list.n == limit) {
        char text[32];
        snprintf(text, sizeof(text), "p%llx",
            (unsigned long long)list.pairs[list.n - 1].id);
        page.next_cursor = arena_strndup(arena, text, strlen(text));
        err = page.next_cursor ? OK : ERR_NOMEM;
    }
    if (!err) {
        *out = page;
    }
    return fault_of(fault, err, "listing the pairs");
}

static enum err
no_pair(struct fault *fault, int64_t pair)
{
    return fault_set(
        fault, ERR_NOT_FOUND, "", "there is no pair %lld", (long long)pair);
}

enum err
engine_pair_get(struct engine *engine, const char *collection, int64_t pair,
    struct arena *arena, struct engine_pair_view *out, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct db *db = NULL;
    struct pair_row row;
    err = store_read_begin(engine->store, &db);
    if (!err) {
        err = pairs_get(db, c->id, pair, arena, &row);
    }
    store_read_end(engine->store, db);
    collection_unref(c);
    if (err == ERR_NOT_FOUND) {
        return no_pair(fault, pair);
    }
    if (!err) {
        err = pair_view(&row, arena, out);
    }
    return fault_of(fault, err, "reading the pair");
}

struct delete_op {
    int64_t collection;
    int64_t pair;
};

static enum err
run_delete(struct db *db, void *arg)
{
    const struct delete_op *op = arg;
    return pairs_delete(db, op->collection, op->pair);
}

enum err
engine_pair_delete(struct engine *engine, const char *collection, int64_t pair,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct delete_op op = {.collection = c->id, .pair = pair};
    err = store_run(engine->store, run_delete, &op);
    collection_unref(c);
    if (err == ERR_NOT_FOUND) {
        return no_pair(fault, pair);
    }
    return fault_of(fault, err, "deleting the pair");
}

/* ---- feedback ------------------------------------------------------------ */

/* Was the item in the answer? By its number: an item that was deleted and
   made again is another one. */
static enum err
check_pick(struct collection *c, const struct impression *seen,
    const char *item_id, struct fault *fault)
{
    struct roster_entry in;
    if (!roster_find(c->roster, item_id, &in)) {
        return fault_set(fault, ERR_NOT_FOUND, "/item_id",
            "there is no item \"%.200s\"", item_id);
    }
    for (size_t i = 0; i < seen->n_items; i++) {
        if (seen->items[i] == in.item) {
            return OK;
        }
    }
    return fault_set(fault, ERR_INVALID, "/item_id",
        "the item \"%.200s\" was not in that answer", item_id);
}

enum err
engine_feedback(struct engine *engine, const char *collection,
    const char *search_id, const char *item_id, double weight,
    struct arena *arena, struct engine_outcome *outcome, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct impression seen;
    err = impressions_get(engine->impressions, search_id, arena, &seen);
    if (err == ERR_NOT_FOUND || (!err && seen.collection != c->id)) {
        err = fault_set(fault, ERR_NOT_FOUND, "/search_id",
            "this answer is not remembered any more, or was never given");
    }
    if (!err && seen.by_image) {
        err = fault_set(fault, ERR_INVALID, "/search_id",
            "the query of this answer was a picture: store the picture as an "
            "item first, and search by its id");
    }
    if (!err) {
        err = check_pick(c, &seen, item_id, fault);
    }
    if (!err) {
        struct engine_pair pair = {.anchor = {.id = seen.id, .text = seen.text},
            .positive = {.id = item_id},
            .weight = weight};
        err = add_pairs(
            engine, c->name, &pair, 1, false, "feedback", outcome, fault);
    }
    if (!err) {
        engine->totals.feedback++;
    }
    collection_unref(c);
    return fault_of(fault, err, "taking the feedback");
}
