/*
 * images_internal.h - what items share with images. Internal to this folder.
 */
#ifndef STORE_IMAGES_INTERNAL_H
#define STORE_IMAGES_INTERNAL_H

#include "store/db.h"
#include "store/images.h"

/* By how much the counters of a collection change. */
struct image_counters {
    int64_t n, n_bytes;
};

/* Remove one item's picture, if it has one, and count it off. */
enum err image_remove(
    struct db *db, int64_t item, struct image_counters *counters) NODISCARD;
/* Bring the collection's row up to date; ERR_NOT_FOUND when something changed
   and there is none. */
enum err image_counters_save(struct db *db, int64_t collection,
    const struct image_counters *counters) NODISCARD;

#endif
