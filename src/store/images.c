#include "store/images.h"

#include <string.h>

#include "store/images_internal.h"

#define FACTS                                                                  \
    "p.item, p.format, p.width, p.height, p.n_bytes, p.sha256,"                \
    " p.bytes IS NOT NULL"

static const char GET_OLD[] =
    "SELECT sha256, n_bytes, bytes IS NOT NULL FROM images WHERE item = ?1";
static const char PUT[] =
    "INSERT INTO images (item, format, width, height, n_bytes, sha256, bytes)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
    " ON CONFLICT (item) DO UPDATE SET format = excluded.format,"
    " width = excluded.width, height = excluded.height,"
    " n_bytes = excluded.n_bytes, sha256 = excluded.sha256,"
    " bytes = excluded.bytes";
static const char REMOVE[] = "DELETE FROM images WHERE item = ?1";
static const char COUNT_MORE[] =
    "UPDATE collections SET n_images = n_images + ?2,"
    " image_bytes = image_bytes + ?3 WHERE id = ?1";
static const char IS_COLLECTION[] =
    "SELECT 1 FROM collections WHERE id = ?1 AND deleted = 0";
static const char GET_FACTS[] =
    "SELECT " FACTS " FROM images p WHERE p.item = ?1";
static const char GET_BYTES[] =
    "SELECT " FACTS ", p.bytes FROM images p WHERE p.item = ?1";
static const char WALK_FACTS[] =
    "SELECT " FACTS " FROM items i INDEXED BY items_by_collection"
    " CROSS JOIN images p ON p.item = i.item"
    " WHERE i.collection = ?1 AND i.item > ?2 ORDER BY i.item LIMIT ?3";
static const char WALK_BYTES[] =
    "SELECT " FACTS ", p.bytes FROM items i INDEXED BY items_by_collection"
    " CROSS JOIN images p ON p.item = i.item"
    " WHERE i.collection = ?1 AND i.item > ?2 ORDER BY i.item LIMIT ?3";
static const char COUNT[] = "SELECT n_images, image_bytes FROM collections"
                            " WHERE id = ?1 AND deleted = 0";

/* ---- changing ------------------------------------------------------------ */

enum err
image_counters_save(
    struct db *db, int64_t collection, const struct image_counters *counters)
{
    struct query q;
    int64_t changes = 0;
    enum err err;

    if (counters->n == 0 && counters->n_bytes == 0) {
        return OK;
    }
    query_start(&q, db, COUNT_MORE);
    query_int(&q, collection);
    query_int(&q, counters->n);
    query_int(&q, counters->n_bytes);
    err = query_run(&q, &changes);
    return err == OK && changes == 0 ? ERR_NOT_FOUND : err;
}

/* What an item has now: found false when it has no picture. */
struct old_image {
    bool found, kept;
    int64_t n_bytes;
    uint8_t sha256[IMAGE_SHA256_BYTES];
};

static enum err
get_old(struct db *db, int64_t item, struct old_image *old)
{
    struct query q;

    *old = (struct old_image){.found = false};
    query_start(&q, db, GET_OLD);
    query_int(&q, item);
    if (query_row(&q)) {
        old->found = true;
        query_get_bytes(&q, 0, old->sha256, sizeof(old->sha256));
        old->n_bytes = query_get_int(&q, 1);
        old->kept = query_get_int(&q, 2) != 0;
    }
    return query_end(&q);
}

enum err
image_remove(struct db *db, int64_t item, struct image_counters *counters)
{
    struct old_image old;
    struct query q;
    enum err err = get_old(db, item, &old);

    if (err != OK || !old.found) {
        return err;
    }
    query_start(&q, db, REMOVE);
    query_int(&q, item);
    err = query_run(&q, NULL);
    if (err == OK) {
        counters->n--;
        counters->n_bytes -= old.kept ? old.n_bytes : 0;
    }
    return err;
}

static enum err
put_one(
    struct db *db, const struct image_row *row, struct image_counters *counters)
{
    struct old_image old;
    struct query q;
    bool keep = row->bytes.s != NULL;
    enum err err = get_old(db, row->item, &old);

    if (err != OK ||
        (old.found && old.kept == keep &&
            memcmp(old.sha256, row->sha256, sizeof(old.sha256)) == 0)) {
        return err;
    }
    query_start(&q, db, PUT);
    query_int(&q, row->item);
    query_int(&q, row->format);
    query_int(&q, row->width);
    query_int(&q, row->height);
    query_int(&q, row->n_bytes);
    query_blob(&q, row->sha256, sizeof(row->sha256));
    if (keep) {
        query_blob(&q, row->bytes.s, row->bytes.len);
    } else {
        query_text(&q, (struct store_text){.s = NULL});
    }
    err = query_run(&q, NULL);
    if (err == OK) {
        counters->n += !old.found;
        counters->n_bytes += (keep ? row->n_bytes : 0) -
                             (old.found && old.kept ? old.n_bytes : 0);
    }
    return err;
}

static enum err
find_collection(struct db *db, int64_t collection)
{
    struct query q;

    query_start(&q, db, IS_COLLECTION);
    query_int(&q, collection);
    if (!query_row(&q) && q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    return query_end(&q);
}

enum err
images_put(
    struct db *db, int64_t collection, const struct image_row *rows, size_t n)
{
    struct image_counters counters = {.n = 0};
    enum err err = find_collection(db, collection);

    for (size_t i = 0; i < n && err == OK; i++) {
        if (rows[i].item != 0) {
            err = put_one(db, &rows[i], &counters);
        }
    }
    return err == OK ? image_counters_save(db, collection, &counters) : err;
}

enum err
images_delete(struct db *db, int64_t collection, const int64_t *items, size_t n,
    size_t *n_removed)
{
    struct image_counters counters = {.n = 0};
    enum err err = OK;

    for (size_t i = 0; i < n && err == OK; i++) {
        err = image_remove(db, items[i], &counters);
    }
    if (err == OK) {
        err = image_counters_save(db, collection, &counters);
    }
    if (err == OK && n_removed != NULL) {
        *n_removed = (size_t)-counters.n;
    }
    return err;
}

/* ---- reading ------------------------------------------------------------- */

static void
read_row(struct query *q, bool want_bytes, struct image_row *row)
{
    *row = (struct image_row){
        .item = query_get_int(q, 0),
        .format = (int)query_get_int(q, 1),
        .width = (uint32_t)query_get_int(q, 2),
        .height = (uint32_t)query_get_int(q, 3),
        .n_bytes = query_get_int(q, 4),
        .kept = query_get_int(q, 6) != 0,
    };
    query_get_bytes(q, 5, row->sha256, sizeof(row->sha256));
    if (want_bytes) {
        row->bytes = query_get_blob(q, 7);
    }
}

enum err
images_get(struct db *db, int64_t item, bool want_bytes, struct arena *arena,
    struct image_row *out)
{
    struct image_row row;
    struct query q;
    enum err err;

    query_start(&q, db, want_bytes ? GET_BYTES : GET_FACTS);
    query_int(&q, item);
    if (query_row(&q)) {
        read_row(&q, want_bytes, &row);
        if (q.err == OK) {
            q.err = text_keep(arena, &row.bytes);
        }
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *out = row;
    }
    return err;
}

enum err
images_get_many(struct db *db, const int64_t *items, size_t n, bool want_bytes,
    image_row_fn *fn, void *ctx)
{
    struct image_row row;
    struct query q;

    query_start(&q, db, want_bytes ? GET_BYTES : GET_FACTS);
    for (size_t i = 0; i < n && q.err == OK; i++) {
        query_again(&q);
        query_int(&q, items[i]);
        if (!query_row(&q)) {
            continue;
        }
        read_row(&q, want_bytes, &row);
        if (q.err == OK) {
            q.err = fn(ctx, &row);
        }
    }
    return query_end(&q);
}

enum err
images_walk(struct db *db, int64_t collection, int64_t after_item, size_t limit,
    bool want_bytes, image_row_fn *fn, void *ctx)
{
    struct image_row row;
    struct query q;

    query_start(&q, db, want_bytes ? WALK_BYTES : WALK_FACTS);
    query_int(&q, collection);
    query_int(&q, after_item);
    query_int(&q, (int64_t)limit);
    while (query_row(&q)) {
        read_row(&q, want_bytes, &row);
        if (q.err == OK) {
            q.err = fn(ctx, &row);
        }
    }
    return query_end(&q);
}

enum err
images_count(struct db *db, int64_t collection, int64_t *n, int64_t *n_bytes)
{
    struct query q;
    int64_t count = 0, bytes = 0;
    enum err err;

    query_start(&q, db, COUNT);
    query_int(&q, collection);
    if (query_row(&q)) {
        count = query_get_int(&q, 0);
        bytes = query_get_int(&q, 1);
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *n = count;
        *n_bytes = bytes;
    }
    return err;
}
