/*
 * images.h - the pictures of items: what is known of each and, where they are
 * kept, the bytes of its file.
 *
 * A picture belongs to an item that exists, is changed in the operation that
 * changes the item (items_put gives the new version; nothing here does), and
 * goes with it. Whether it is what the item's vectors were made of only the
 * caller knows, and says by the item's content_hash.
 */
#ifndef STORE_IMAGES_H
#define STORE_IMAGES_H

#include "store/items.h"
#include "store/store.h"

#define IMAGE_SHA256_BYTES 32
#define IMAGE_STORED_BYTES_MAX ((size_t)48 << 20)

struct image_row {
    int64_t item;
    int format; /* a number of the caller's, 1..255 */
    uint32_t width, height;
    int64_t n_bytes; /* of the file, kept or not; > 0 */
    uint8_t sha256[IMAGE_SHA256_BYTES];
    bool kept;               /* the bytes are in the store */
    struct store_text bytes; /* absent unless kept and asked for */
};

/* Rows are borrowed until the function returns; not OK stops the walk and is
   passed up. */
typedef enum err image_row_fn(void *ctx, const struct image_row *row);

/*
 * images_put - set the pictures of n items of a collection, replacing.
 *
 *   rows  [n] borrowed; bytes.s NULL (and kept not looked at): only the facts.
 *         Item 0 is skipped
 *
 * Where the same file is stored already (by its SHA-256) nothing is written.
 * ERR_NOT_FOUND without the collection or the item.
 */
enum err images_put(struct db *db, int64_t collection,
    const struct image_row *rows, size_t n) NODISCARD;

/* Remove the pictures of n items of a collection; missing ones are fine.
   n_removed may be NULL. */
enum err images_delete(struct db *db, int64_t collection, const int64_t *items,
    size_t n, size_t *n_removed) NODISCARD;

/* One picture, its bytes (if wanted) copied into arena; ERR_NOT_FOUND. */
enum err images_get(struct db *db, int64_t item, bool want_bytes,
    struct arena *arena, struct image_row *out) NODISCARD;

/* The pictures of n item numbers, in the order given, items without one left
   out (compare row->item). */
enum err images_get_many(struct db *db, const int64_t *items, size_t n,
    bool want_bytes, image_row_fn *fn, void *ctx) NODISCARD;

/* A page of a collection's pictures in the order of item numbers, after
   after_item (0: start). */
enum err images_walk(struct db *db, int64_t collection, int64_t after_item,
    size_t limit, bool want_bytes, image_row_fn *fn, void *ctx) NODISCARD;

/* Items with a picture, and the bytes that are kept: O(1). */
enum err images_count(
    struct db *db, int64_t collection, int64_t *n, int64_t *n_bytes) NODISCARD;

#endif
