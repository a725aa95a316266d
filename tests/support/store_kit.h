/*
 * store_kit.h - what tests of the data layer share: a store in a temporary
 * folder, and a collection with a live generation in it.
 */
#ifndef TESTS_SUPPORT_STORE_KIT_H
#define TESTS_SUPPORT_STORE_KIT_H

#include "base/arena.h"
#include "store/collections.h"
#include "store/generations.h"
#include "store/items.h"
#include "store/store.h"
#include "store/vectors.h"

#define KIT_DIMS 4

struct kit {
    char dir[128];
    struct store *store;
    struct arena arena;
    int64_t collection;
    int64_t generation; /* number of the live one */
    int64_t generation_id;
    int64_t space; /* live */
};

/* A temporary folder with an empty store; kit_make_collection is apart. All
   abort on failure. */
void kit_open(struct kit *kit, const struct store_options *options);
void kit_reopen(struct kit *kit, const struct store_options *options);
void kit_close(struct kit *kit); /* removes the folder too */
void kit_make_dir(char *dir, size_t n);
void kit_remove_dir(const char *dir); /* with what is in it */
void kit_make_collection(struct kit *kit, const char *name);

/* A generation of the kit's collection in a space of its own, building. */
void kit_make_generation(struct kit *kit, uint8_t fingerprint, int64_t *id,
    int64_t *generation, int64_t *space);

/* Put n items "<prefix>0".. with text "text of <id>", hash bytes `version`,
   and a vector in the live space (filled with the item's number). */
enum err kit_put_items(struct kit *kit, const char *prefix, size_t n,
    uint8_t version, bool with_vectors);
enum err kit_delete_item(struct kit *kit, const char *id);

/* Vectors in a space for the items that lack one; gives how many. */
size_t kit_backfill(struct kit *kit, int64_t space);

enum err kit_publish(
    struct kit *kit, int64_t generation, int64_t expected_live);

/* store_check, with the fault printed. */
void kit_check(struct kit *kit);

/* The whole weights of a generation in one block (mem_free), checked against
   their checksum. As weights_read. */
enum err weights_load(struct store *store, int64_t generation_id, void **bytes,
    size_t *n) NODISCARD;

#endif
