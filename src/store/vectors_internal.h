/*
 * vectors_internal.h - what items, purge and the checks share with vectors.
 * Internal to this folder.
 */
#ifndef STORE_VECTORS_INTERNAL_H
#define STORE_VECTORS_INTERNAL_H

#include "store/db.h"
#include "store/items.h"
#include "store/vectors.h"

/* The key of a vector, and of the first possible one of a space. */
#define VECTOR_KEY_BITS 40
#define VECTOR_KEY(space, item) ((int64_t)(space) << VECTOR_KEY_BITS | (item))

/* Living spaces of one collection at one time; a round has two, a few more
   are pinned or wait for their end. */
#define SPACE_SET_MAX 64

struct space_set {
    size_t n;
    int64_t space[SPACE_SET_MAX];
    int64_t removed[SPACE_SET_MAX]; /* vectors, not yet counted off */
};

/* Never more than SPACE_SET_MAX: spaces_ensure refuses the next one. */
enum err space_set_load(
    struct db *db, int64_t collection, struct space_set *set) NODISCARD;
/* Remove the item's vector from every space. */
enum err space_set_remove(
    struct db *db, struct space_set *set, int64_t item) NODISCARD;
/* Count off what was removed. */
enum err space_set_save(struct db *db, struct space_set *set) NODISCARD;

/* Add to a space's counter. */
enum err space_count(struct db *db, int64_t space, int64_t n) NODISCARD;

/* The nine columns of an item in the order that items.c has. */
void item_row_read(struct query *q, unsigned want, struct item_row *row);
enum err item_rows_give(
    struct query *q, unsigned want, item_row_fn *fn, void *ctx) NODISCARD;

#endif
