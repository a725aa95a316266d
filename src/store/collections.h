/*
 * collections.h - collections, their settings, and aliases.
 *
 * A collection row also carries what must move in one transaction with its
 * items: the change counter, the live, previous and shadow generation, and the
 * number of items. Names of collections and aliases are one name space.
 */
#ifndef STORE_COLLECTIONS_H
#define STORE_COLLECTIONS_H

#include "store/store.h"

struct collection_row {
    int64_t id;
    struct store_text name;
    struct store_text fixed;     /* JSON text, never changed after creation */
    struct store_text patched;   /* JSON text, replaced by collections_patch */
    int64_t live_generation;     /* number; 0 while there is none */
    int64_t previous_generation; /* number; 0 */
    int64_t shadow_generation;   /* number of the candidate that every write
                                    must be embedded for as well; 0 */
    int64_t next_generation;     /* the number that the next one will get */
    int64_t change_seq;          /* of the last change of an item */
    int64_t n_items;
    int64_t pairs_seen; /* pairs with an id over this are new: they came
                           after the collecting of the last promoted round */
    int64_t created_ms;
    int64_t updated_ms;
};

/* Rows are borrowed until the function returns; not OK stops the list and is
   passed up. */
typedef enum err collection_row_fn(void *ctx, const struct collection_row *row);

/*
 * collections_create - a new, empty collection without any generation.
 *
 * ERR_EXISTS when a collection or an alias has the name. Gives its id. Make
 * its first generation (generations_create, generations_publish) in the same
 * operation.
 */
enum err collections_create(struct db *db, struct store_text name,
    struct store_text fixed, struct store_text patched, int64_t now_ms,
    int64_t *id) NODISCARD;

/* By id / by name or alias; the row's strings are copied into arena.
   ERR_NOT_FOUND (also for one that is being deleted). */
enum err collections_get(struct db *db, int64_t id, struct arena *arena,
    struct collection_row *out) NODISCARD;
enum err collections_find(struct db *db, struct store_text name,
    struct arena *arena, struct collection_row *out) NODISCARD;

/* Those with a name after `after` (.s NULL: from the start), by name. */
enum err collections_list(struct db *db, struct store_text after, size_t limit,
    collection_row_fn *fn, void *ctx) NODISCARD;

/* Replace the patchable settings. ERR_NOT_FOUND. */
enum err collections_patch(struct db *db, int64_t id, struct store_text patched,
    int64_t now_ms) NODISCARD;

/*
 * collections_delete - the collection is gone for every later reader, its name
 * is free, aliases to it are removed, its unfinished jobs fail. Its rows are
 * removed afterwards, in short transactions, by purge (purge.h).
 * ERR_NOT_FOUND.
 */
enum err collections_delete(struct db *db, int64_t id) NODISCARD;

/*
 * collections_expect - ERR_CONFLICT unless the live and the shadow generation
 * are these (numbers, 0 for none); ERR_NOT_FOUND when it was deleted. For
 * operations whose vectors were made outside of the writer.
 */
enum err collections_expect(struct db *db, int64_t id, int64_t live_generation,
    int64_t shadow_generation) NODISCARD;

/* Raise pairs_seen to at least pair_id (generations_publish does it too). */
enum err collections_see_pairs(
    struct db *db, int64_t id, int64_t pair_id) NODISCARD;

/* ---- aliases --------------------------------------------------------- */

typedef enum err alias_row_fn(
    void *ctx, struct store_text alias, struct store_text collection);

/* Point an alias to a collection, new or not (created tells; may be NULL).
   ERR_EXISTS when a collection has that name, ERR_NOT_FOUND when the
   collection is missing. */
enum err aliases_put(struct db *db, struct store_text alias, int64_t collection,
    int64_t now_ms, bool *created) NODISCARD;
/* ERR_NOT_FOUND. */
enum err aliases_delete(struct db *db, struct store_text alias) NODISCARD;
/* Name of the collection that the alias points to; ERR_NOT_FOUND. */
enum err aliases_get(struct db *db, struct store_text alias,
    struct arena *arena, struct store_text *collection) NODISCARD;
/* Those after `after` in the order of their names. */
enum err aliases_list(struct db *db, struct store_text after, size_t limit,
    alias_row_fn *fn, void *ctx) NODISCARD;

#endif
