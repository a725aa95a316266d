/* What of a batch is new, and its vectors. */
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "engine/batcher.h"
#include "engine/ingest_internal.h"

/* ---- what is there already ----------------------------------------------- */

struct compare {
    struct ingest *b;
    struct ingest_entry **entries; /* of the items asked for */
    const int64_t *items;
    size_t at;
};

static bool
same_text(struct engine_text a, struct store_text b)
{
    return (a.s == NULL) == (b.s == NULL) &&
           (!a.s || (a.len == b.len && memcmp(a.s, b.s, a.len) == 0));
}

static enum err
compare_row(void *arg, const struct item_row *row)
{
    struct compare *cmp = arg;
    while (cmp->items[cmp->at] != row->item) {
        cmp->at++; /* it is gone */
    }
    struct ingest_entry *e = cmp->entries[cmp->at++];
    e->known = true;
    bool same_picture =
        e->picture ? e->picture->same : !(e->no_image && e->has_image);
    if (!cmp->b->options.condition && same_picture &&
        same_text(e->title, row->title) && same_text(e->text, row->text) &&
        same_text(e->metadata, row->metadata)) {
        e->unchanged = true;
        e->version = row->change_seq;
    }
    return OK;
}

bool
ingest_keeps_picture(const struct ingest *b, const struct ingest_entry *e)
{
    return b->reads_images && !e->picture && !e->no_image;
}

/* What is looked up of the present rows. */
struct lookup {
    struct store_text *ids;
    struct ingest_entry **entries;
    bool *stale; /* the row may change before ours is written: its hash alone
                    is taken, which the operation compares again */
    struct item_row *found;
    int64_t *items;
    size_t n;
};

static bool
lookup_new(struct ingest *b, struct lookup *l)
{
    l->ids = arena_alloc(&b->arena, b->n, sizeof(*l->ids));
    l->items = arena_alloc(&b->arena, b->n, sizeof(*l->items));
    l->found = arena_alloc(&b->arena, b->n, sizeof(*l->found));
    l->stale = arena_alloc(&b->arena, b->n, sizeof(*l->stale));
    l->entries = arena_alloc(&b->arena, b->n, sizeof(struct ingest_entry *));
    l->n = 0;
    return l->ids && l->items && l->found && l->stale && l->entries;
}

static void
ask_for(struct ingest *b, const struct ingest *pending, struct lookup *l)
{
    for (size_t i = 0; i < b->n; i++) {
        struct ingest_entry *e = &b->entries[i];
        struct roster_entry in;
        e->known = e->unchanged = e->has_image = false;
        if (e->picture) {
            e->picture->same = false;
        }
        if (e->status != ENGINE_CREATED ||
            !roster_find(b->c->roster, e->id, &in)) {
            continue;
        }
        bool stale = b->force || ingest_find(pending, e->id, e->id_len);
        if (stale && !ingest_keeps_picture(b, e)) {
            continue;
        }
        l->ids[l->n] = (struct store_text){.s = e->id, .len = e->id_len};
        l->stale[l->n] = stale;
        l->entries[l->n++] = e;
    }
}

/* The present rows' hashes: those that agree are compared as a whole. */
static enum err
compare_found(struct ingest *b, struct db *db, struct lookup *l)
{
    size_t n = 0, n_there = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct ingest_entry *e = l->entries[i];
        const struct item_row *row = &l->found[i];
        if (!row->item) {
            continue;
        }
        if (ingest_keeps_picture(b, e)) {
            memcpy(e->hash, row->content_hash, ITEM_HASH_BYTES);
            e->known = true;
        }
        if (!l->stale[i]) {
            l->found[n_there] = *row;
            l->items[n_there] = row->item;
            l->entries[n_there++] = e;
        }
    }
    enum err err = ingest_pictures_known(b, db, l->entries, l->items, n_there);
    for (size_t i = 0; i < n_there && !err; i++) {
        if (memcmp(l->found[i].content_hash, l->entries[i]->hash,
                ITEM_HASH_BYTES) == 0) {
            l->entries[n] = l->entries[i];
            l->items[n++] = l->items[i];
        }
    }
    struct compare cmp = {.b = b, .entries = l->entries, .items = l->items};
    if (!err && n) {
        err = items_get_many(db, l->items, n, ITEM_WANT_ALL, compare_row, &cmp);
    }
    return err;
}

/* Mark the entries whose content or whole row is in the store already. */
static enum err
find_known(struct ingest *b, const struct ingest *pending)
{
    struct lookup l;
    if (!lookup_new(b, &l)) {
        return ERR_NOMEM;
    }
    ask_for(b, pending, &l);
    if (l.n == 0) {
        return OK;
    }
    struct db *db;
    enum err err = store_read_begin(b->c->engine->store, &db);
    if (err) {
        return err;
    }
    err = items_find(db, b->c->id, l.ids, l.n, l.found);
    if (!err) {
        err = compare_found(b, db, &l);
    }
    store_read_end(b->c->engine->store, db);
    return err;
}

/* ---- encoding ------------------------------------------------------------ */

/* Room for n rows in all that rows have. */
static bool
reserve_rows(struct ingest *b, size_t n)
{
    if (n > b->cap_rows) {
        if (!ingest_grow(&b->inputs, n, sizeof(*b->inputs)) ||
            !ingest_grow(&b->infos, n, sizeof(*b->infos)) ||
            !ingest_grow(&b->row_entry, n, sizeof(*b->row_entry)) ||
            !ingest_grow(&b->row_items, n, sizeof(*b->row_items))) {
            return false;
        }
        b->cap_rows = n;
    }
    size_t floats = n * b->c->fixed.dims;
    if (floats > b->rows_cap_live) {
        mem_free(b->live_vectors);
        b->live_vectors = mem_alloc_aligned(floats, sizeof(float));
        b->rows_cap_live = b->live_vectors ? floats : 0;
    }
    if (b->shadow && floats > b->rows_cap_shadow) {
        mem_free(b->shadow_vectors);
        b->shadow_vectors = mem_alloc_aligned(floats, sizeof(float));
        b->rows_cap_shadow = b->shadow_vectors ? floats : 0;
    }
    return b->rows_cap_live >= floats &&
           (!b->shadow || b->rows_cap_shadow >= floats);
}

/* Encode the batch's documents that are new, for one snapshot. Vectors that
   were given stand for the live one's. */
static enum err
encode_for(struct ingest *b, const struct snapshot *snapshot, float *out,
    bool take_given)
{
    size_t dims = b->c->fixed.dims, n = 0, at = 0;
    const struct encoder *encoder = encoder_ref_get(snapshot->encoder);
    struct engine *engine = b->c->engine;
    /* Rows that come with their vector stand between the others: encode the
       runs of those without. */
    int64_t start = clock_mono_ns();
    while (at < b->n_rows) {
        struct ingest_entry *e = &b->entries[b->row_entry[at]];
        if (e->vector && (take_given || !encoder)) {
            memcpy(out + at * dims, e->vector, dims * sizeof(*out));
            at++;
            continue;
        }
        size_t end = at;
        while (end < b->n_rows) {
            e = &b->entries[b->row_entry[end]];
            if (e->vector && (take_given || !encoder)) {
                break;
            }
            b->inputs[end] = (struct encoder_input){
                .text = e->doc_len ? b->documents.data + e->doc_at : "",
                .len = e->doc_len};
            end++;
        }
        enum err err = batcher_encode(engine->batcher, encoder, b->inputs + at,
            end - at, out + at * dims, b->infos + at);
        if (err) {
            return err;
        }
        for (size_t i = at; i < end; i++) {
            b->entries[b->row_entry[i]].info = b->infos[i];
        }
        n += end - at;
        at = end;
    }
    engine->totals.texts_encoded += n;
    engine->totals.encode_ns += (uint64_t)(clock_mono_ns() - start);
    return OK;
}

/* Rows for the entries whose documents are new, in their order. */
static void
assign_rows(struct ingest *b)
{
    b->n_rows = 0;
    for (size_t i = 0; i < b->n; i++) {
        struct ingest_entry *e = &b->entries[i];
        bool encode = ingest_entry_writes(e) && !e->known;
        e->row = encode ? (uint32_t)b->n_rows : INGEST_NONE;
        if (encode) {
            b->row_entry[b->n_rows++] = (uint32_t)i;
        }
    }
}

static enum err
encode_documents(struct ingest *b, bool *again, struct fault *fault)
{
    enum err err = ingest_pictures_check(b, again, fault);
    if (err || *again) {
        return err;
    }
    assign_rows(b);
    /* The shadow first, so that the infos that stay are the live encoder's. */
    if (b->shadow && b->shadow->index != b->live->index && b->n_rows) {
        err = encode_for(b, b->shadow, b->shadow_vectors, false);
    }
    if (!err && b->n_rows) {
        const char *trusted = b->options.trusted;
        err = encode_for(b, b->live, b->live_vectors,
            trusted && strcmp(trusted, b->live->fingerprint) == 0);
    }
    return err;
}

static enum err
encode_once(struct ingest *b, const struct ingest *pending, bool *again,
    struct fault *fault)
{
    *again = false;
    enum err err = find_known(b, pending);
    if (err) {
        return fault_of(fault, err, "reading the items");
    }
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        n += ingest_entry_writes(&b->entries[i]) && !b->entries[i].known;
        b->entries[i].row = INGEST_NONE;
    }
    b->n_rows = 0;
    if (!reserve_rows(b, n)) {
        return fault_of(fault, ERR_NOMEM, "encoding");
    }
    err = b->reads_images ? ingest_pictures_encode(b, again, fault)
                          : encode_documents(b, again, fault);
    return fault_of(fault, err, "encoding");
}

enum err
ingest_encode(
    struct ingest *b, const struct ingest *pending, struct fault *fault)
{
    snapshot_unref(b->live);
    snapshot_unref(b->shadow);
    b->live = b->shadow = NULL;
    collection_snapshots(b->c, &b->live, &b->shadow);
    bool again = true;
    enum err err = OK;
    while (again && !err) {
        err = encode_once(b, pending, &again, fault);
        if (!err && again) {
            err = ingest_pictures_settle(b, fault);
        }
    }
    return err;
}
