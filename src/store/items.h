/*
 * items.h - the things that are searched: title, text and metadata.
 *
 * An item has the client's id (ext_id) and a number that is never used again.
 * Every change of an item takes the next value of its collection's change
 * counter, which is also its ETag, so changes have one total order.
 *
 * A vector in the store always belongs to the present content of its item:
 * when the content changes (content_hash differs) or the item is deleted, its
 * vectors in all spaces go in the same transaction, and what is missing is
 * found by vectors_walk_missing. The caller puts the new vectors in the same
 * operation (vectors_put). An item's picture stands apart (images.h); it goes
 * with its item.
 */
#ifndef STORE_ITEMS_H
#define STORE_ITEMS_H

#include "store/store.h"

#define ITEM_HASH_BYTES 16
#define ITEM_NUMBER_MAX (((int64_t)1 << 40) - 1)

struct item_put {
    struct store_text ext_id;                /* required */
    struct store_text title, text, metadata; /* each may be absent */
    uint8_t content_hash[ITEM_HASH_BYTES];   /* over what is embedded */
    int64_t if_match; /* required change_seq of the present row; 0: any */
    bool if_absent;   /* only when there is no such item */
};

struct item_result {
    enum err err;         /* OK, ERR_PRECONDITION, ERR_NOT_FOUND */
    int64_t item;         /* number; 0 on error */
    int64_t change_seq;   /* the new one; on ERR_PRECONDITION the present
                             one, or 0 when there is no such item */
    bool created;         /* there was none before */
    bool content_changed; /* created, or content_hash differs: the item has
                             no vectors until the caller puts them */
    uint8_t old_hash[ITEM_HASH_BYTES]; /* of the row before; zero if created */
};

/* Which strings a reader wants; the others are given as absent. */
enum item_want {
    ITEM_WANT_TITLE = 1,
    ITEM_WANT_TEXT = 2,
    ITEM_WANT_METADATA = 4,
    ITEM_WANT_ALL = 7
};

struct item_row {
    int64_t item;
    int64_t change_seq;
    int64_t created_ms, updated_ms;
    struct store_text ext_id;
    struct store_text title, text, metadata;
    uint8_t content_hash[ITEM_HASH_BYTES];
};

/* Rows are borrowed until the function returns; not OK stops the walk and is
   passed up. */
typedef enum err item_row_fn(void *ctx, const struct item_row *row);

/*
 * items_put - insert or replace n items, in order (the last of two with one id
 * wins).
 *
 *   puts     [n], borrowed
 *   results  [n], overwritten
 *
 * A failed precondition concerns that item alone; results[i].err says so, and
 * the others go on (a caller that wants all or nothing fails its operation).
 * A row that is put again as it was, bytes and all, still takes a new
 * change_seq. ERR_NOT_FOUND without the collection; ERR_TOO_LARGE when the
 * numbers are used up.
 */
enum err items_put(struct db *db, int64_t collection,
    const struct item_put *puts, size_t n, int64_t now_ms,
    struct item_result *results) NODISCARD;

/* Replace the metadata alone (.s NULL removes it); vectors stay. The outcome
   of ERR_NOT_FOUND and ERR_PRECONDITION is also returned. */
enum err items_patch(struct db *db, int64_t collection,
    struct store_text ext_id, struct store_text metadata, int64_t if_match,
    int64_t now_ms, struct item_result *result) NODISCARD;

/*
 * items_delete - remove n items by id with their vectors in every space and
 * their pictures.
 *
 *   if_match  as in items_put, for all of them; 0: any
 *   results   [n]: item (number) of each that was removed, else err
 *             ERR_NOT_FOUND or ERR_PRECONDITION. The function itself is OK.
 */
enum err items_delete(struct db *db, int64_t collection,
    const struct store_text *ext_ids, size_t n, int64_t if_match,
    struct item_result *results) NODISCARD;

/* One item, copied into arena; ERR_NOT_FOUND. */
enum err items_get(struct db *db, int64_t collection, struct store_text ext_id,
    unsigned want, struct arena *arena, struct item_row *out) NODISCARD;

/*
 * items_find - numbers, hashes and change_seq of n ids.
 *
 *   out  [n]: item is 0 where there is none; strings are absent
 */
enum err items_find(struct db *db, int64_t collection,
    const struct store_text *ext_ids, size_t n, struct item_row *out) NODISCARD;

/*
 * items_get_many - the rows of n item numbers, in the order given, those that
 * are gone left out (compare row->item). Of any collection.
 */
enum err items_get_many(struct db *db, const int64_t *items, size_t n,
    unsigned want, item_row_fn *fn, void *ctx) NODISCARD;

/* A page in the order of ext_id (bytes), after `after` (.s NULL: start). */
enum err items_list(struct db *db, int64_t collection, struct store_text after,
    size_t limit, unsigned want, item_row_fn *fn, void *ctx) NODISCARD;

/* A page in the order of item numbers, after after_item (0: start). */
enum err items_walk(struct db *db, int64_t collection, int64_t after_item,
    size_t limit, unsigned want, item_row_fn *fn, void *ctx) NODISCARD;

/* A page in the order of change_seq, after after_seq: what was written since.
   Deleted items do not show. */
enum err items_walk_changes(struct db *db, int64_t collection,
    int64_t after_seq, size_t limit, unsigned want, item_row_fn *fn,
    void *ctx) NODISCARD;

/* Number of items, kept as a counter: O(1). */
enum err items_count(struct db *db, int64_t collection, int64_t *n) NODISCARD;

#endif
