/* The pictures of a batch: checked, decoded, embedded, written. */
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "engine/ingest_internal.h"
#include "engine/pictures.h"

#define CHECK_AT_ONCE 256

/* ---- gathering ----------------------------------------------------------- */

/* A refusal by the decoder, with the place of the picture in the request. */
static enum err
at_image(const char *prefix, const struct fault *why, struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    json_pointer(at, prefix, "image");
    return fault_set(fault, why->err, at, "%s", why->detail);
}

enum err
ingest_picture_add(struct ingest *b, const struct engine_item *item,
    const char *prefix, struct ingest_picture **out, struct fault *fault)
{
    *out = NULL;
    if (!item->image.bytes) {
        return OK;
    }
    const struct image_limits limits = {
        .bytes_max = b->c->engine->image_bytes_max,
        .pixels_max = b->c->engine->image_pixels_max};
    struct ingest_picture *p = arena_calloc(&b->arena, 1, sizeof(*p));
    if (!p) {
        return ERR_NOMEM;
    }
    struct fault why = {.err = OK};
    enum err err = image_inspect(
        &p->facts, item->image.bytes, item->image.n, &limits, &why);
    if (err) {
        (void)fault_of(&why, err, "looking at the picture");
        return at_image(prefix, &why, fault);
    }
    p->prefix = arena_strndup(&b->arena, prefix, strlen(prefix));
    p->file.bytes = arena_strndup(&b->arena, item->image.bytes, item->image.n);
    p->file.n = item->image.n;
    if (!p->prefix || !p->file.bytes) {
        return ERR_NOMEM;
    }
    sha256_of(p->file.bytes, p->file.n, p->sha256);
    *out = p;
    return OK;
}

void
ingest_picture_hash(
    const struct ingest_picture *picture, uint8_t out[ITEM_HASH_BYTES])
{
    document_hash(picture ? picture->sha256 : (const uint8_t *)"",
        picture ? SHA256_BYTES : 0, out);
}

/* ---- what is there already ----------------------------------------------- */

struct comparing {
    struct ingest_entry *const *entries;
    const int64_t *items;
    size_t at;
};

static enum err
compare_picture(void *arg, const struct image_row *row)
{
    struct comparing *cmp = arg;
    while (cmp->items[cmp->at] != row->item) {
        cmp->at++; /* no picture, or not asked for */
    }
    struct ingest_entry *e = cmp->entries[cmp->at++];
    e->has_image = true;
    if (e->picture) {
        e->picture->same =
            memcmp(e->picture->sha256, row->sha256, SHA256_BYTES) == 0;
    }
    return OK;
}

enum err
ingest_pictures_known(struct ingest *b, struct db *db,
    struct ingest_entry *const *entries, const int64_t *items, size_t n)
{
    int64_t *wanted = arena_alloc(&b->arena, n + 1, sizeof(*wanted));
    bool any = false;
    if (!wanted) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        bool want = entries[i]->picture || entries[i]->no_image;
        wanted[i] = want ? items[i] : 0;
        any = any || want;
    }
    struct comparing cmp = {.entries = entries, .items = wanted};
    return any ? images_get_many(db, wanted, n, false, compare_picture, &cmp)
               : OK;
}

/* ---- decoding ------------------------------------------------------------ */

/* The entry of a line; NULL for line 0. */
static struct ingest_entry *
entry_of_line(struct ingest *b, uint64_t line)
{
    for (size_t i = 0; i < b->n && line; i++) {
        if (b->entries[i].line == line) {
            return &b->entries[i];
        }
    }
    return NULL;
}

/* A superseded line counts again: the one that superseded it is refused. */
static void
bring_back(struct ingest *b, const struct ingest_entry *e, bool *again)
{
    struct ingest_entry *earlier = entry_of_line(b, e->supersedes);
    if (earlier) {
        earlier->status = ENGINE_CREATED;
        earlier->superseded_by = 0;
        *again = true;
    }
}

/* The line whose picture this one has is refused in its place: the lines around
   it follow on each other, and those after it inherit what the one before it
   leaves. Gives the line. */
static struct ingest_entry *
disinherit(struct ingest *b, const struct ingest_picture *picture, bool *again)
{
    struct ingest_entry *first = NULL;
    for (size_t i = 0; i < b->n; i++) {
        if (b->entries[i].picture == picture && !b->entries[i].inherits) {
            first = &b->entries[i];
        }
    }
    ASSERT(first);
    struct ingest_entry *before = entry_of_line(b, first->supersedes);
    struct ingest_entry *after = entry_of_line(b, first->superseded_by);
    for (size_t i = 0; i < b->n; i++) {
        struct ingest_entry *e = &b->entries[i];
        if (e->picture == picture && e->inherits) {
            e->picture = before ? before->picture : NULL;
            e->no_image = before && before->no_image;
            e->inherits = e->picture || e->no_image;
            if (b->reads_images) {
                ingest_picture_hash(e->picture, e->hash);
            }
        }
    }
    if (after) {
        after->supersedes = first->supersedes;
    }
    if (before) {
        before->superseded_by = first->superseded_by;
    }
    *again = true;
    return first;
}

/* A picture cannot be decoded. */
static enum err
refuse(struct ingest *b, struct ingest_entry *e, const struct fault *why,
    bool *again, struct fault *fault)
{
    if (b->options.all_or_nothing || why->err == ERR_NOMEM) {
        return at_image(e->picture->prefix, why, fault);
    }
    struct fault *copy = arena_alloc(&b->arena, 1, sizeof(*copy));
    if (!copy) {
        return ERR_NOMEM;
    }
    (void)at_image(e->picture->prefix, why, copy);
    if (e->inherits) {
        e = disinherit(b, e->picture, again);
    } else {
        bring_back(b, e, again);
    }
    e->fault = copy;
    e->status = ENGINE_REFUSED;
    e->supersedes = e->superseded_by = 0;
    return OK;
}

static bool
must_decode(const struct ingest *b, const struct ingest_entry *e)
{
    if (!ingest_entry_writes(e) || !e->picture) {
        return false;
    }
    if (!b->reads_images) {
        return !e->picture->same && !e->picture->good;
    }
    bool other_space = b->shadow && b->shadow->index != b->live->index;
    return !e->known && (other_space || !ingest_takes_given(b, e));
}

/* Decode the pictures of which[0..n) that must be, refuse those that cannot. */
static enum err
decode_some(struct ingest *b, const uint32_t *which, struct picture *pictures,
    size_t n, uint32_t side, uint32_t channels, bool *again,
    struct fault *fault)
{
    for (size_t i = 0; i < n; i++) {
        const struct ingest_entry *e = &b->entries[which[i]];
        bool decode = e->picture && must_decode(b, e);
        pictures[i].bytes = decode ? e->picture->file.bytes : NULL;
        pictures[i].n = decode ? e->picture->file.n : 0;
    }
    pictures_decode(b->c->engine, pictures, n, side, channels, PICTURES_SENT,
        b->c->engine->encode_pool);
    enum err err = OK;
    for (size_t i = 0; i < n && !err; i++) {
        struct ingest_entry *e = &b->entries[which[i]];
        if (pictures[i].fault.err) {
            err = refuse(b, e, &pictures[i].fault, again, fault);
        } else if (pictures[i].bytes) {
            e->picture->good = true;
        }
    }
    return err;
}

enum err
ingest_pictures_check(struct ingest *b, bool *again, struct fault *fault)
{
    struct picture *pictures = NULL;
    uint32_t *which = NULL;
    enum err err = OK;
    for (size_t at = 0; at < b->n && !err;) {
        size_t n = 0;
        for (; at < b->n && n < CHECK_AT_ONCE; at++) {
            const struct ingest_entry *e = &b->entries[at];
            if (must_decode(b, e) && !e->picture->good) {
                if (!pictures) {
                    pictures = arena_calloc(
                        &b->arena, CHECK_AT_ONCE, sizeof(*pictures));
                    which =
                        arena_alloc(&b->arena, CHECK_AT_ONCE, sizeof(*which));
                    if (!pictures || !which) {
                        return ERR_NOMEM;
                    }
                }
                which[n++] = (uint32_t)at;
            }
        }
        if (n) {
            err = decode_some(
                b, which, pictures, n, PICTURES_CHECK_SIDE, 3, again, fault);
        }
    }
    return err;
}

enum err
ingest_pictures_settle(struct ingest *b, struct fault *fault)
{
    bool again = true;
    enum err err = OK;
    while (again && !err) {
        again = false;
        err = ingest_pictures_check(b, &again, fault);
    }
    return err;
}

/* ---- embedding ----------------------------------------------------------- */

/* A block of pictures on its way. */
struct block {
    size_t max, n;
    uint32_t side, channels;
    uint8_t *pixels;             /* [max, side, side, channels] */
    uint32_t *which;             /* [max] entries */
    struct picture *pictures;    /* [max] */
    struct image *images;        /* [max] over pixels */
    const struct image **of_row; /* [rows of the block] NULL: none to encode */
};

static void
block_release(struct block *block)
{
    mem_free(block->pixels);
    mem_free(block->which);
    mem_free(block->pictures);
    mem_free(block->images);
    mem_free(block->of_row);
}

static enum err
block_new(struct block *block, const struct encoder *encoder, size_t n)
{
    *block = (struct block){.side = encoder_image_side(encoder),
        .channels = encoder_image_channels(encoder)};
    block->max = MIN(n, pictures_in_block(block->side, block->channels));
    size_t size = (size_t)block->side * block->side * block->channels;
    block->pixels = mem_alloc(block->max, size);
    block->which = mem_alloc(block->max, sizeof(*block->which));
    block->pictures = mem_calloc(block->max, sizeof(*block->pictures));
    block->images = mem_calloc(block->max, sizeof(*block->images));
    block->of_row = mem_calloc(block->max, sizeof(struct image *));
    return block->pixels && block->which && block->pictures && block->images &&
                   block->of_row
               ? OK
               : ERR_NOMEM;
}

/* Vectors and infos of the block's rows from first on by one encoder. Those
   with a picture are packed, so that it gets full runs of them, and then spread
   over their rows from the end; the others are zero. */
static enum err
encode_rows(struct ingest *b, const struct block *block,
    const struct encoder *encoder, float *out, size_t first)
{
    size_t dims = b->c->fixed.dims, n = b->n_rows - first, m = 0;
    struct encoder_info *infos = b->infos + first;
    for (size_t i = 0; i < n; i++) {
        if (block->of_row[i]) {
            b->inputs[first + m++] =
                (struct encoder_input){.image = block->of_row[i]};
        }
    }
    out += first * dims;
    if (m) {
        enum err err = encoder_encode(encoder, b->inputs + first, m, out, infos,
            m >= INGEST_POOL_FROM ? b->c->engine->encode_pool : NULL);
        if (err) {
            return err;
        }
    }
    for (size_t i = n; i-- > 0;) {
        if (block->of_row[i]) {
            m--;
            memmove(out + i * dims, out + m * dims, dims * sizeof(*out));
            infos[i] = infos[m];
        } else {
            memset(out + i * dims, 0, dims * sizeof(*out));
            infos[i] = (struct encoder_info){.empty = true};
        }
    }
    return OK;
}

/* Rows for what is left of a block, and their vectors. */
static enum err
encode_block(struct ingest *b, struct block *block)
{
    struct engine *engine = b->c->engine;
    size_t dims = b->c->fixed.dims, first = b->n_rows;
    size_t size = (size_t)block->side * block->side * block->channels;
    for (size_t i = 0; i < block->n; i++) {
        struct ingest_entry *e = &b->entries[block->which[i]];
        if (e->status != ENGINE_CREATED) {
            continue;
        }
        block->images[i] = (struct image){.width = block->side,
            .height = block->side,
            .channels = block->channels,
            .pixels = block->pixels + i * size};
        block->of_row[b->n_rows - first] =
            block->pictures[i].bytes ? &block->images[i] : NULL;
        e->row = (uint32_t)b->n_rows;
        b->row_entry[b->n_rows++] = block->which[i];
    }
    int64_t start = clock_mono_ns();
    enum err err = OK;
    /* The shadow first, so that the infos that stay are the live encoder's. */
    if (b->shadow && b->shadow->index != b->live->index) {
        err = encode_rows(b, block, encoder_ref_get(b->shadow->encoder),
            b->shadow_vectors, first);
    }
    if (!err) {
        err = encode_rows(b, block, encoder_ref_get(b->live->encoder),
            b->live_vectors, first);
    }
    for (size_t row = first; row < b->n_rows && !err; row++) {
        struct ingest_entry *e = &b->entries[b->row_entry[row]];
        e->info = b->infos[row];
        if (ingest_takes_given(b, e)) {
            memcpy(b->live_vectors + row * dims, e->vector,
                dims * sizeof(*e->vector));
        }
    }
    engine->totals.texts_encoded += b->n_rows - first;
    engine->totals.encode_ns += (uint64_t)(clock_mono_ns() - start);
    return err;
}

enum err
ingest_pictures_encode(struct ingest *b, bool *again, struct fault *fault)
{
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        n += ingest_entry_writes(&b->entries[i]) && !b->entries[i].known;
    }
    if (!n) {
        return OK;
    }
    struct block block;
    enum err err = block_new(&block, encoder_ref_get(b->live->encoder), n);
    size_t size = (size_t)block.side * block.side * block.channels;
    for (size_t at = 0; at < b->n && !err && !*again;) {
        for (block.n = 0; at < b->n && block.n < block.max; at++) {
            const struct ingest_entry *e = &b->entries[at];
            if (ingest_entry_writes(e) && !e->known) {
                block.which[block.n++] = (uint32_t)at;
            }
        }
        for (size_t i = 0; i < block.n; i++) {
            block.pictures[i] =
                (struct picture){.out = block.pixels + i * size};
        }
        err = decode_some(b, block.which, block.pictures, block.n, block.side,
            block.channels, again, fault);
        if (!err && !*again) {
            err = encode_block(b, &block);
        }
    }
    block_release(&block);
    return err;
}

/* ---- writing ------------------------------------------------------------- */

enum err
ingest_pictures_submit(struct ingest *b)
{
    size_t n = 0, n_drops = 0;
    for (size_t i = 0; i < b->n; i++) {
        const struct ingest_entry *e = &b->entries[i];
        n += ingest_entry_writes(e) && e->picture;
        n_drops += ingest_entry_writes(e) && e->no_image;
    }
    b->n_image_rows = b->n_drops = 0;
    if (n + n_drops == 0) {
        return OK;
    }
    b->image_rows = arena_alloc(&b->arena, n + 1, sizeof(*b->image_rows));
    b->image_puts = arena_alloc(&b->arena, n + 1, sizeof(*b->image_puts));
    b->drop_items = arena_alloc(&b->arena, n_drops + 1, sizeof(*b->drop_items));
    b->drop_puts = arena_alloc(&b->arena, n_drops + 1, sizeof(*b->drop_puts));
    if (!b->image_rows || !b->image_puts || !b->drop_items || !b->drop_puts) {
        return ERR_NOMEM;
    }
    uint32_t put = 0; /* as ingest_submit counts them */
    for (size_t i = 0; i < b->n; i++) {
        const struct ingest_entry *e = &b->entries[i];
        if (!ingest_entry_writes(e)) {
            continue;
        }
        const struct ingest_picture *p = e->picture;
        if (p) {
            struct image_row *row = &b->image_rows[b->n_image_rows];
            *row = (struct image_row){.format = (int)p->facts.format,
                .width = p->facts.width,
                .height = p->facts.height,
                .n_bytes = (int64_t)p->file.n};
            memcpy(row->sha256, p->sha256, sizeof(row->sha256));
            if (!b->c->fixed.vector_only) {
                row->bytes =
                    (struct store_text){.s = p->file.bytes, .len = p->file.n};
            }
            b->image_puts[b->n_image_rows++] = put;
        } else if (e->no_image) {
            b->drop_puts[b->n_drops++] = put;
        }
        put++;
    }
    return OK;
}

enum err
ingest_pictures_put(struct ingest *b, struct db *db)
{
    enum err err = OK;
    for (size_t i = 0; i < b->n_image_rows; i++) {
        b->image_rows[i].item = b->results[b->image_puts[i]].item;
    }
    if (b->n_image_rows) {
        err = images_put(db, b->c->id, b->image_rows, b->n_image_rows);
    }
    for (size_t i = 0; i < b->n_drops; i++) {
        b->drop_items[i] = b->results[b->drop_puts[i]].item;
    }
    if (!err && b->n_drops) {
        err = images_delete(db, b->c->id, b->drop_items, b->n_drops, NULL);
    }
    return err;
}
