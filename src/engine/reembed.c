/* Re-embedding: bring a shadow space up to its collection. */
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "engine/internal.h"
#include "engine/pictures.h"

#define BATCH_ITEMS 512
#define BATCH_NETWORK_ITEMS 64 /* it takes a thousand times as long a text */
#define BATCH_BYTES ((size_t)4 << 20) /* of documents */
#define BATCH_READINGS 16             /* of pictures' files */
#define LOAD_ROWS 1024

/* ---- item numbers to ordinals -------------------------------------------- */

struct map_pair {
    int64_t item;
    uint32_t ord;
};

static int
by_item(const void *a, const void *b)
{
    const struct map_pair *x = a, *y = b;
    return (x->item > y->item) - (x->item < y->item);
}

enum err
item_map_new(struct item_map *out, struct roster *roster)
{
    size_t span = roster_span(roster);
    struct map_pair *pairs = mem_alloc(MAX(span, 1), sizeof(*pairs));
    uint32_t *ords = mem_alloc(MAX(span, 1), sizeof(*ords));
    int64_t *items = mem_alloc(MAX(span, 1), sizeof(*items));
    enum err err = pairs && ords && items ? OK : ERR_NOMEM;
    size_t n = 0;
    if (!err) {
        for (size_t i = 0; i < span; i++) {
            ords[i] = (uint32_t)i;
        }
        roster_items(roster, ords, span, items);
        bool sorted = true;
        for (size_t i = 0; i < span; i++) {
            if (items[i]) {
                pairs[n] =
                    (struct map_pair){.item = items[i], .ord = (uint32_t)i};
                sorted = sorted && (n == 0 || pairs[n - 1].item < items[i]);
                n++;
            }
        }
        if (!sorted) {
            qsort(pairs, n, sizeof(*pairs), by_item);
        }
        for (size_t i = 0; i < n; i++) {
            items[i] = pairs[i].item;
            ords[i] = pairs[i].ord;
        }
        *out = (struct item_map){.items = items, .ords = ords, .n = n};
    } else {
        mem_free(ords);
        mem_free(items);
    }
    mem_free(pairs);
    return err;
}

void
item_map_release(struct item_map *map)
{
    mem_free(map->items);
    mem_free(map->ords);
    *map = (struct item_map){.n = 0};
}

uint32_t
item_map_find(const struct item_map *map, int64_t item)
{
    size_t lo = 0, hi = map->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (map->items[mid] == item) {
            return map->ords[mid];
        }
        if (map->items[mid] < item) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return ROSTER_NONE;
}

/* ---- what the file has already ------------------------------------------- */

/* One block, read and indexed in the writer thread, so that it cannot
   overtake, nor be overtaken by, what ingest writes of the same items. */
struct load_op {
    struct collection *c;
    struct snapshot *shadow;
    const struct item_map *map;
    int64_t after;
    int64_t *items;
    uint32_t *ords;
    float *vectors;
    size_t n;
    enum err err;
};

static enum err
run_load(struct db *db, void *arg)
{
    struct load_op *op = arg;
    return vectors_read_block(db, op->shadow->index->space, op->after,
        LOAD_ROWS, (int)op->c->fixed.dims, op->items, op->vectors, &op->n);
}

static void
done_load(void *arg, enum err err)
{
    struct load_op *op = arg;
    size_t dims = op->c->fixed.dims, kept = 0;
    if (err) {
        return;
    }
    for (size_t i = 0; i < op->n; i++) {
        uint32_t ord = item_map_find(op->map, op->items[i]);
        if (ord == ROSTER_NONE) {
            continue; /* newer than the map: ingest has indexed it */
        }
        if (kept != i) {
            memcpy(op->vectors + kept * dims, op->vectors + i * dims,
                dims * sizeof(float));
        }
        op->ords[kept++] = ord;
    }
    op->err = ann_put_many(op->shadow->index->ann, op->ords, op->vectors, kept);
    if (op->n) {
        op->after = op->items[op->n - 1];
    }
}

enum err
reembed_load_index(struct collection *c, struct snapshot *shadow)
{
    int64_t n_vectors = 0;
    struct db *db;
    enum err err = store_read_begin(c->engine->store, &db);
    if (!err) {
        err = vectors_count(db, shadow->index->space, &n_vectors);
        store_read_end(c->engine->store, db);
    }
    if (err || ann_count(shadow->index->ann) >= (size_t)n_vectors) {
        return err;
    }
    struct item_map map = {.n = 0};
    struct load_op op = {.c = c, .shadow = shadow, .map = &map};
    err = item_map_new(&map, c->roster);
    op.items = mem_alloc(LOAD_ROWS, sizeof(*op.items));
    op.ords = mem_alloc(LOAD_ROWS, sizeof(*op.ords));
    op.vectors =
        mem_alloc_aligned(LOAD_ROWS * c->fixed.dims, sizeof(*op.vectors));
    if (!err && (!op.items || !op.ords || !op.vectors)) {
        err = ERR_NOMEM;
    }
    if (!err) {
        err = space_index_reserve(shadow->index,
            roster_span(c->roster) + c->pending_rows + BATCH_ITEMS);
    }
    struct store_op write = {.run = run_load, .done = done_load, .arg = &op};
    do {
        if (!err) {
            err = store_write(c->engine->store, &write);
        }
        err = err ? err : op.err;
    } while (!err && op.n == LOAD_ROWS);
    item_map_release(&map);
    mem_free(op.items);
    mem_free(op.ords);
    mem_free(op.vectors);
    return err;
}

/* ---- what is missing ----------------------------------------------------- */

struct batch {
    struct collection *c;
    struct snapshot *shadow;
    struct arena arena; /* ids */
    struct buf documents;
    struct picture_files *files; /* NULL: it reads text */
    uint8_t *pixels;             /* [max, side, side, channels] */
    uint32_t side, channels;
    struct image images[BATCH_ITEMS];
    size_t n, max;
    int64_t items[BATCH_ITEMS];
    const char *ids[BATCH_ITEMS];
    uint8_t hashes[BATCH_ITEMS][ITEM_HASH_BYTES];
    size_t doc_at[BATCH_ITEMS + 1];
    struct encoder_input inputs[BATCH_ITEMS];
    bool found[BATCH_ITEMS];
    uint32_t ords[BATCH_ITEMS];
    float *vectors;
    size_t n_put;
    enum err err; /* of indexing */
};

static enum err
take_row(void *arg, const struct item_row *row)
{
    struct batch *b = arg;
    struct engine_text title = {.s = row->title.s, .len = row->title.len};
    struct engine_text text = {.s = row->text.s, .len = row->text.len};
    struct engine_text metadata = {
        .s = row->metadata.s, .len = row->metadata.len};
    b->ids[b->n] = arena_strndup(&b->arena, row->ext_id.s, row->ext_id.len);
    if (!b->ids[b->n]) {
        return ERR_NOMEM;
    }
    b->doc_at[b->n] = b->documents.len;
    if (!b->files) {
        enum err err = document_render(
            b->c->template, title, text, metadata, &b->documents);
        if (err) {
            return err;
        }
    }
    b->items[b->n] = row->item;
    memcpy(b->hashes[b->n], row->content_hash, ITEM_HASH_BYTES);
    b->n++;
    b->doc_at[b->n] = b->documents.len;
    /* Not an error: the page is full. */
    return b->documents.len > BATCH_BYTES ? ERR_TOO_LARGE : OK;
}

/* Append the next missing items after this one to the batch. */
static enum err
collect_rows(struct batch *b, int64_t after)
{
    struct db *db;
    size_t first = b->n, n_read = 0;
    unsigned want = b->files ? 0 : ITEM_WANT_TITLE | ITEM_WANT_TEXT;
    if (!b->files && document_uses_metadata(b->c->template)) {
        want |= ITEM_WANT_METADATA;
    }
    enum err err = store_read_begin(b->c->engine->store, &db);
    if (err) {
        return err;
    }
    err = vectors_walk_missing(
        db, b->shadow->index->space, after, b->max - first, want, take_row, b);
    err = err == ERR_TOO_LARGE ? OK : err;
    /* Files of the same moment as the hashes; rows without theirs come again
       with the next reading. */
    if (!err && b->files && b->n > first) {
        err = picture_files_read(
            b->files, db, b->items + first, b->n - first, &n_read);
        b->n = first + n_read;
    }
    store_read_end(b->c->engine->store, db);
    return err;
}

/* The next missing items after this one. Pictures fill the batch in several
   readings, and are decoded after each, while no read is open. */
static enum err
collect(struct batch *b, int64_t after, struct pool *pool)
{
    size_t size = (size_t)b->side * b->side * b->channels;
    enum err err = OK;
    bool more = true;
    arena_release(&b->arena);
    arena_init(&b->arena, BATCH_READINGS * SMALL_ARENA_BYTES);
    buf_clear(&b->documents);
    b->n = 0;
    for (int i = 0; i < BATCH_READINGS && more && !err; i++) {
        size_t first = b->n;
        err = collect_rows(b, first ? b->items[first - 1] : after);
        if (!err && b->files && b->n > first) {
            err = picture_files_decode(b->files, b->c, b->side, b->channels,
                pool, b->pixels + first * size, b->images + first);
        }
        more = b->files && b->n > first && b->n < b->max;
    }
    return err;
}

static enum err
run_backfill(struct db *db, void *arg)
{
    struct batch *b = arg;
    int dims = (int)b->c->fixed.dims;
    int64_t space = b->shadow->index->space;
    enum err err = vectors_backfill(db, space, b->items,
        (const uint8_t(*)[ITEM_HASH_BYTES])b->hashes, b->n, b->vectors, dims,
        &b->n_put);
    /* Rows that ingest has written meanwhile were skipped: take what is there,
       so that the index gets exactly what the file has. */
    if (!err && b->n_put < b->n) {
        err =
            vectors_get(db, space, b->items, b->n, dims, b->vectors, b->found);
    } else if (!err) {
        memset(b->found, true, sizeof(b->found));
    }
    return err;
}

static void
done_backfill(void *arg, enum err err)
{
    struct batch *b = arg;
    size_t dims = b->c->fixed.dims, kept = 0;
    if (err) {
        return;
    }
    for (size_t i = 0; i < b->n; i++) {
        struct roster_entry in;
        if (!b->found[i] || !roster_find(b->c->roster, b->ids[i], &in) ||
            in.item != b->items[i]) {
            continue;
        }
        if (kept != i) {
            memcpy(b->vectors + kept * dims, b->vectors + i * dims,
                dims * sizeof(float));
        }
        b->ords[kept++] = in.ord;
    }
    b->err = ann_put_many(b->shadow->index->ann, b->ords, b->vectors, kept);
}

static enum err
encode_batch(struct batch *b, struct pool *pool)
{
    const struct encoder *encoder = encoder_ref_get(b->shadow->encoder);
    if (!encoder) {
        return ERR_CONFLICT; /* no one but the client can embed these */
    }
    for (size_t i = 0; i < b->n; i++) {
        if (b->files) {
            struct image *image = &b->images[i];
            b->inputs[i] =
                (struct encoder_input){.image = image->pixels ? image : NULL};
            continue;
        }
        size_t len = b->doc_at[i + 1] - b->doc_at[i];
        b->inputs[i] = (struct encoder_input){
            .text = len ? b->documents.data + b->doc_at[i] : "", .len = len};
    }
    return encoder_encode(encoder, b->inputs, b->n, b->vectors, NULL, pool);
}

static bool
is_shadow(struct collection *c, const struct snapshot *shadow)
{
    struct snapshot *now = collection_shadow(c);
    bool same = now && now->generation == shadow->generation;
    snapshot_unref(now);
    return same;
}

/* Items that have and lack a vector. */
static enum err
count_missing(struct batch *b, int64_t *n_items, int64_t *n_vectors)
{
    struct db *db;
    enum err err = store_read_begin(b->c->engine->store, &db);
    if (!err) {
        err = items_count(db, b->c->id, n_items);
        if (!err) {
            err = vectors_count(db, b->shadow->index->space, n_vectors);
        }
        store_read_end(b->c->engine->store, db);
    }
    return err;
}

static enum err
backfill(struct batch *b, const struct reembed_options *options)
{
    struct engine *engine = b->c->engine;
    int64_t n_items, n_vectors, after = 0;
    enum err err = count_missing(b, &n_items, &n_vectors);
    int64_t done = n_vectors;
    while (!err) {
        if (options->progress && !options->progress(options->progress_arg,
                                     MIN(done, n_items), n_items)) {
            return ERR_CANCELLED;
        }
        if (!is_shadow(b->c, b->shadow)) {
            return ERR_CONFLICT;
        }
        err = collect(b, after, options->pool);
        if (!err && b->n == 0 && after == 0) {
            break; /* a walk from the start found nothing */
        }
        if (!err && b->n == 0) {
            after = 0;
            continue;
        }
        if (!err) {
            err = encode_batch(b, options->pool);
        }
        if (!err) {
            err = space_index_reserve(b->shadow->index,
                roster_span(b->c->roster) + b->c->pending_rows + b->n);
        }
        struct store_op write = {
            .run = run_backfill, .done = done_backfill, .arg = b};
        if (!err) {
            failpoint("reembed_batch");
            err = store_write(engine->store, &write);
            if (err == ERR_BUSY) {
                clock_sleep_ms(5);
                err = OK;
                continue;
            }
        }
        err = err ? err : b->err;
        if (!err) {
            after = b->items[b->n - 1];
            done += (int64_t)b->n_put;
            engine->totals.reembedded += b->n_put;
            failpoint("reembed_committed");
            if (options->gentle) {
                engine_yield_to_searches(engine);
            }
        }
    }
    return err;
}

/* Room for the pictures of a batch, where the encoder reads them. */
static enum err
prepare_pictures(struct batch *b)
{
    const struct encoder *encoder = encoder_ref_get(b->shadow->encoder);
    b->max = encoder && encoder_n_parts(encoder) > 0 ? BATCH_NETWORK_ITEMS
                                                     : BATCH_ITEMS;
    if (!encoder || encoder_reads(encoder) != ENCODER_READS_IMAGE) {
        return OK;
    }
    b->side = encoder_image_side(encoder);
    b->channels = encoder_image_channels(encoder);
    b->max = MIN(pictures_in_block(b->side, b->channels), (size_t)BATCH_ITEMS);
    b->pixels = mem_alloc(b->max, (size_t)b->side * b->side * b->channels);
    enum err err = picture_files_new(&b->files);
    if (err || !b->pixels) {
        return ERR_NOMEM;
    }
    /* Nobody but the client can embed what is not kept. */
    return b->c->fixed.vector_only ? ERR_CONFLICT : OK;
}

enum err
reembed_run(struct collection *c, struct snapshot *shadow,
    const struct reembed_options *options)
{
    struct batch *b = mem_calloc(1, sizeof(*b));
    if (!b) {
        return ERR_NOMEM;
    }
    b->c = c;
    b->shadow = shadow;
    arena_init(&b->arena, SMALL_ARENA_BYTES);
    buf_init(&b->documents, SIZE_MAX / 2);
    b->vectors =
        mem_alloc_aligned(BATCH_ITEMS * c->fixed.dims, sizeof(*b->vectors));
    enum err err = b->vectors ? prepare_pictures(b) : ERR_NOMEM;
    if (!err && !is_shadow(c, shadow)) {
        err = ERR_CONFLICT;
    }
    if (!err) {
        err = reembed_load_index(c, shadow);
    }
    if (!err) {
        err = backfill(b, options);
    }
    mem_free(b->vectors);
    mem_free(b->pixels);
    picture_files_free(b->files);
    buf_release(&b->documents);
    arena_release(&b->arena);
    mem_free(b);
    return err;
}
