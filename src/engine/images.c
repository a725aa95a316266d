/* Pictures of single items: set, read, taken away, and shown as training shows
   them to the encoder. */
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "engine/ingest.h"
#include "engine/internal.h"
#include "engine/learn.h"
#include "engine/pictures.h"

#define WRITE_TRIES 20
#define TILE_LEAST 96 /* pixels: smaller views are magnified */
#define TILE_GAP 4

/* ---- writing ------------------------------------------------------------- */

/* An item as it is, with what its picture is. */
struct present {
    struct item_row row;
    struct image_row image;
    bool found, has_image;
};

static enum err
read_present(struct collection *c, const char *id, struct arena *arena,
    struct present *out)
{
    struct db *db;
    *out = (struct present){.found = false};
    enum err err = store_read_begin(c->engine->store, &db);
    if (err) {
        return err;
    }
    err = items_get(
        db, c->id, store_text_of(id), ITEM_WANT_ALL, arena, &out->row);
    out->found = !err;
    if (!err) {
        err = images_get(db, out->row.item, false, arena, &out->image);
        out->has_image = !err;
    }
    store_read_end(c->engine->store, db);
    return err == ERR_NOT_FOUND ? OK : err;
}

static struct engine_text
text_of(struct store_text t)
{
    return (struct engine_text){.s = t.s, .len = t.s ? t.len : 0};
}

/* Write the item as it is but for its picture, if it is still so. */
static enum err
write_item(struct collection *c, const char *id, const struct present *now,
    const struct engine_image *image, struct engine_outcome *outcome,
    struct fault *fault)
{
    struct engine_condition same = {.must_be_absent = !now->found,
        .versions = &now->row.change_seq,
        .n_versions = now->found};
    struct engine_item item = {.id = id,
        .image = image ? *image : (struct engine_image){.bytes = NULL},
        .no_image = !image};
    if (now->found) {
        item.title = text_of(now->row.title);
        item.text = text_of(now->row.text);
        item.metadata = text_of(now->row.metadata);
    }
    struct ingest_options options = {
        .all_or_nothing = true, .condition = &same, .rewrites = true};
    struct ingest *batch = NULL;
    enum err err = ingest_new(&batch, c, &options);
    if (!err) {
        err = ingest_add(batch, &item, 1, "", fault);
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
    }
    ingest_free(batch);
    return err;
}

static enum err
no_item(struct fault *fault, const char *id)
{
    return fault_set(
        fault, ERR_NOT_FOUND, "", "there is no item \"%.200s\"", id);
}

static enum err
no_picture(struct fault *fault, const char *id)
{
    return fault_set(
        fault, ERR_NOT_FOUND, "", "the item \"%.200s\" has no picture", id);
}

/* Does what the caller asks of the item hold? */
static enum err
check_condition(const struct engine_condition *condition,
    const struct present *now, struct fault *fault)
{
    bool ok = true;
    if (condition) {
        ok = !(condition->must_be_absent && now->found) &&
             !(condition->must_exist && !now->found);
        bool one = condition->n_versions == 0;
        for (size_t i = 0; i < condition->n_versions; i++) {
            one = one ||
                  (now->found && now->row.change_seq == condition->versions[i]);
        }
        ok = ok && one;
    }
    return ok ? OK
              : fault_set(fault, ERR_PRECONDITION, "",
                    "the item is not as the condition says");
}

static bool
is_same(const struct present *now, const struct engine_image *image)
{
    uint8_t sha256[SHA256_BYTES];
    if (!now->has_image || now->image.n_bytes != (int64_t)image->n) {
        return false;
    }
    sha256_of(image->bytes, image->n, sha256);
    return memcmp(sha256, now->image.sha256, sizeof(sha256)) == 0;
}

/* image NULL: take it away. */
static enum err
write_once(struct collection *c, const char *id,
    const struct engine_image *image, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault)
{
    struct arena arena;
    arena_init(&arena, SMALL_ARENA_BYTES + 2 * c->engine->text_bytes_max);
    struct present now;
    enum err err = read_present(c, id, &arena, &now);
    if (!err && !image && !now.has_image) {
        err = now.found ? no_picture(fault, id) : no_item(fault, id);
    }
    if (!err) {
        err = check_condition(condition, &now, fault);
    }
    if (!err && image && is_same(&now, image)) {
        *outcome = (struct engine_outcome){.line = 1,
            .status = ENGINE_UNCHANGED,
            .version = now.row.change_seq};
        c->engine->totals.items_unchanged++;
    } else if (!err) {
        err = write_item(c, id, &now, image, outcome, fault);
        /* Someone wrote between: the caller tries again. */
        err = err == ERR_PRECONDITION ? ERR_CONFLICT : err;
    }
    arena_release(&arena);
    return err;
}

static enum err
write_picture(struct engine *engine, const char *collection, const char *id,
    const struct engine_image *image, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    err = check_item_id(id, "/id", fault);
    if (!err && settings_reads(&c->fixed) == SETTINGS_READS_NOTHING) {
        /* Its vector would have to come along. */
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "an item of an external collection is written as a whole, with "
            "its vector");
    }
    for (int i = 0; !err; i++) {
        struct fault why = {.err = OK};
        err = write_once(c, id, image, condition, outcome, &why);
        if (err != ERR_CONFLICT || i == WRITE_TRIES) {
            if (err && fault) {
                *fault = why;
            }
            break;
        }
        err = OK;
    }
    collection_unref(c);
    if (!err) {
        outcome->id = id;
    }
    return fault_of(fault, err, "writing the picture");
}

enum err
engine_image_put(struct engine *engine, const char *collection, const char *id,
    const struct engine_image *image, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault)
{
    struct engine_image given = *image;
    if (!given.bytes) {
        given.bytes = ""; /* nothing is a file too, and refused as one */
    }
    return write_picture(
        engine, collection, id, &given, condition, outcome, fault);
}

enum err
engine_image_delete(struct engine *engine, const char *collection,
    const char *id, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault)
{
    return write_picture(
        engine, collection, id, NULL, condition, outcome, fault);
}

/* ---- reading ------------------------------------------------------------- */

/* Facts and bytes of an item's picture; the bytes in the arena. */
static enum err
read_picture(struct collection *c, const char *id, struct arena *arena,
    struct image_row *out, int64_t *version, struct fault *fault)
{
    struct db *db;
    struct item_row item;
    enum err err = store_read_begin(c->engine->store, &db);
    if (err) {
        return err;
    }
    err = items_get(db, c->id, store_text_of(id), 0, arena, &item);
    if (err == ERR_NOT_FOUND) {
        err = no_item(fault, id);
    } else if (!err) {
        *version = item.change_seq;
        err = images_get(db, item.item, true, arena, out);
        if (err == ERR_NOT_FOUND) {
            err = no_picture(fault, id);
        } else if (!err && !out->kept) {
            err = fault_set(fault, ERR_NOT_FOUND, "",
                "the collection keeps only the vectors of its pictures "
                "(\"images\": \"vector\")");
        }
    }
    store_read_end(c->engine->store, db);
    return err;
}

enum err
engine_image_get(struct engine *engine, const char *collection, const char *id,
    struct engine_image_facts *facts, int64_t *version, struct buf *out,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct arena arena;
    arena_init(&arena, IMAGE_STORED_BYTES_MAX + SMALL_ARENA_BYTES);
    struct image_row row;
    int64_t seq = 0;
    err = read_picture(c, id, &arena, &row, &seq, fault);
    if (!err) {
        buf_add(out, row.bytes.s, row.bytes.len);
        err = buf_status(out);
    }
    if (!err) {
        picture_facts(&row, facts);
        *version = seq;
    }
    arena_release(&arena);
    collection_unref(c);
    return fault_of(fault, err, "reading the picture");
}

/* ---- views --------------------------------------------------------------- */

/* A sheet of square tiles, row by row, on white. */
struct sheet {
    struct image image;
    uint32_t side, scale, columns;
};

static enum err
sheet_new(struct sheet *sheet, uint32_t side, uint32_t channels, size_t n)
{
    uint32_t columns = 1;
    while ((size_t)columns * columns < n) {
        columns++;
    }
    uint32_t rows = (uint32_t)((n + columns - 1) / columns);
    *sheet = (struct sheet){.side = side,
        .scale = (TILE_LEAST + side - 1) / side,
        .columns = columns};
    uint32_t tile = side * sheet->scale + TILE_GAP;
    enum err err = image_new(&sheet->image, columns * tile + TILE_GAP,
        rows * tile + TILE_GAP, channels);
    if (!err) {
        memset(sheet->image.pixels, 0xff,
            (size_t)sheet->image.width * sheet->image.height * channels);
    }
    return err;
}

/* Each pixel as a square of scale x scale: what the encoder gets is shown as
   it is. */
static void
sheet_put(struct sheet *sheet, size_t i, const uint8_t *pixels)
{
    uint32_t channels = sheet->image.channels, scale = sheet->scale;
    uint32_t tile = sheet->side * scale + TILE_GAP;
    size_t left = TILE_GAP + i % sheet->columns * tile;
    size_t top = TILE_GAP + i / sheet->columns * tile;
    for (uint32_t y = 0; y < sheet->side * scale; y++) {
        uint8_t *to = sheet->image.pixels +
                      ((top + y) * sheet->image.width + left) * channels;
        const uint8_t *from =
            pixels + (size_t)(y / scale) * sheet->side * channels;
        for (uint32_t x = 0; x < sheet->side * scale; x++) {
            memcpy(to + (size_t)x * channels,
                from + (size_t)(x / scale) * channels, channels);
        }
    }
}

/* The picture as the encoder sees it, and n views of it, as one file. */
static enum err
draw(const struct image *picture, uint32_t side, size_t n,
    const struct augment_options *options, uint64_t seed, struct buf *out)
{
    uint32_t channels = picture->channels;
    struct sheet sheet = {.side = 0};
    uint8_t *view = mem_alloc((size_t)side * side, channels);
    float *scratch =
        mem_alloc(augment_workspace_floats(side, channels), sizeof(*scratch));
    enum err err =
        view && scratch ? sheet_new(&sheet, side, channels, n + 1) : ERR_NOMEM;
    if (!err) {
        image_fit(view, side, channels, picture);
        sheet_put(&sheet, 0, view);
        for (size_t i = 0; i < n; i++) {
            struct rng rng;
            rng_seed_stream(&rng, seed, i);
            augment(view, side, channels, picture, options, &rng, scratch);
            sheet_put(&sheet, i + 1, view);
        }
        err = image_write_png(&sheet.image, out);
    }
    image_release(&sheet.image);
    mem_free(scratch);
    mem_free(view);
    return err;
}

static enum err
draw_views(struct collection *c, const struct encoder *encoder, const char *id,
    size_t n, const struct augment_options *options, uint64_t seed,
    struct buf *out, struct fault *fault)
{
    uint32_t side = encoder_image_side(encoder);
    uint32_t channels = encoder_image_channels(encoder);
    struct arena arena;
    arena_init(&arena, SIZE_MAX / 2);
    struct image_row row;
    int64_t version;
    enum err err = read_picture(c, id, &arena, &row, &version, fault);
    struct picture picture = {.n = 0};
    struct image fitted = {.width = side,
        .height = side,
        .channels = channels,
        .pixels = arena_alloc(&arena, (size_t)side * side, channels)};
    if (!err) {
        picture = (struct picture){
            .bytes = row.bytes.s, .n = row.bytes.len, .out = fitted.pixels};
        err = fitted.pixels ? OK : ERR_NOMEM;
    }
    if (!err) {
        pictures_decode(
            c->engine, &picture, 1, side, channels, PICTURES_ASKED, NULL);
        err = picture.fault.err;
        if (err && fault) {
            *fault = picture.fault;
        }
    }
    if (!err) {
        err = draw(&fitted, side, n, options, seed, out);
    }
    arena_release(&arena);
    return err;
}

enum err
engine_item_views(struct engine *engine, const char *collection, const char *id,
    size_t n, const char *options_json, uint64_t seed, struct buf *out,
    struct fault *fault)
{
    if (n < 1 || n > ENGINE_VIEWS_MAX) {
        return fault_set(fault, ERR_INVALID, "/n",
            "n is from 1 to %d, here it is %zu", ENGINE_VIEWS_MAX, n);
    }
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct snapshot *live = collection_live(c);
    const struct encoder *encoder = encoder_ref_get(live->encoder);
    if (!encoder || encoder_reads(encoder) != ENCODER_READS_IMAGE) {
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "the collection's encoder does not read pictures: it is shown no "
            "views of them");
    }
    struct augment_options options;
    if (!err) {
        err = learn_views_parse(options_json ? options_json : "{}", "/views",
            encoder_image_channels(encoder), &options, fault);
    }
    if (!err) {
        err = draw_views(c, encoder, id, n, &options, seed, out, fault);
    }
    snapshot_unref(live);
    collection_unref(c);
    return fault_of(fault, err, "making views");
}
