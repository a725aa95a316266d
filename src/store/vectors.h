/*
 * vectors.h - spaces, and the stored f32 vector of each item in each space.
 *
 * A space belongs to a collection and has a fingerprint (SHA-256 over all that
 * determines an item's vector) and a number of dimensions. Vectors are kept
 * under one integer key, space * 2^40 + item, so that a space is one range of
 * the table, read in order. On disk a vector is dims little-endian f32.
 *
 * Spaces are made by generations_create and die when no kept generation names
 * them; the vectors of a dead space are removed by purge in short transactions.
 */
#ifndef STORE_VECTORS_H
#define STORE_VECTORS_H

#include "store/items.h"
#include "store/store.h"

#define SPACE_FINGERPRINT_BYTES 32
#define SPACE_DIMS_MAX 65536
#define SPACE_NUMBER_MAX (((int64_t)1 << 22) - 1)

struct space_row {
    int64_t space;
    int64_t collection;
    int dims;
    uint8_t fingerprint[SPACE_FINGERPRINT_BYTES];
    int64_t n_vectors; /* kept as a counter */
};

typedef enum err space_row_fn(void *ctx, const struct space_row *row);

/*
 * spaces_ensure - the collection's living space with this fingerprint, made
 * when missing. A space that no generation names is swept away by the next
 * generations_sweep, so call generations_create in the same operation.
 * ERR_CONFLICT when it exists with other dims, ERR_TOO_LARGE when the
 * collection has 64 living spaces.
 */
enum err spaces_ensure(struct db *db, int64_t collection,
    const uint8_t fingerprint[SPACE_FINGERPRINT_BYTES], int dims,
    int64_t *space) NODISCARD;
/* ERR_NOT_FOUND (also for a dead one). */
enum err spaces_get(
    struct db *db, int64_t space, struct space_row *out) NODISCARD;
/* All living ones of a collection. */
enum err spaces_list(
    struct db *db, int64_t collection, space_row_fn *fn, void *ctx) NODISCARD;

/*
 * vectors_put - set the vectors of n items in a space, replacing.
 *
 *   items    [n] numbers, of items that exist (the caller's operation has just
 *            put them); 0 is skipped with its row
 *   vectors  [n, dims] row after row; borrowed
 *
 * ERR_NOT_FOUND without the space, ERR_INVALID when dims is not the space's.
 * Fastest with rising item numbers.
 */
enum err vectors_put(struct db *db, int64_t space, const int64_t *items,
    size_t n, const float *vectors, int dims) NODISCARD;

/*
 * vectors_backfill - set vectors that were made from what vectors_walk_missing
 * showed some time ago.
 *
 *   hashes  [n, ITEM_HASH_BYTES] content_hash of what was embedded
 *   n_put   gives how many were stored
 *
 * A row whose item is gone, has other content by now, or has a vector already
 * is skipped: what ingest wrote later always wins. Else as vectors_put.
 */
enum err vectors_backfill(struct db *db, int64_t space, const int64_t *items,
    const uint8_t (*hashes)[ITEM_HASH_BYTES], size_t n, const float *vectors,
    int dims, size_t *n_put) NODISCARD;

/* Remove the vectors of n items from one space; missing ones are fine. */
enum err vectors_delete(
    struct db *db, int64_t space, const int64_t *items, size_t n) NODISCARD;

/*
 * vectors_read_block - the next vectors of a space in the order of the items.
 *
 *   after_item  0 to start, then the last item given
 *   cap         rows that fit into the outputs
 *   items       [cap] overwritten
 *   vectors     [cap, dims] overwritten
 *   n           rows given; fewer than cap: the end
 *
 * The way to load a space: one memcpy a row. ERR_CORRUPT when a row has
 * another size; ERR_INVALID when dims is not the space's.
 */
enum err vectors_read_block(struct db *db, int64_t space, int64_t after_item,
    size_t cap, int dims, int64_t *items, float *vectors, size_t *n) NODISCARD;

/*
 * vectors_get - the vectors of given items.
 *
 *   vectors  [n, dims]; rows not found are zeroed
 *   found    [n]; may be NULL
 */
enum err vectors_get(struct db *db, int64_t space, const int64_t *items,
    size_t n, int dims, float *vectors, bool *found) NODISCARD;

/* Number of vectors in the space: O(1). */
enum err vectors_count(struct db *db, int64_t space, int64_t *n) NODISCARD;

/*
 * vectors_walk_missing - a page of the space's collection's items that have no
 * vector in it, by item number after after_item: the work list of
 * re-embedding. Rows carry the strings wanted and content_hash.
 *
 * An item changed behind the walk's position is missing again: go round until
 * a walk from 0 finds nothing (vectors_count == items_count tells in O(1)).
 */
enum err vectors_walk_missing(struct db *db, int64_t space, int64_t after_item,
    size_t limit, unsigned want, item_row_fn *fn, void *ctx) NODISCARD;

#endif
