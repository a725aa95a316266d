/*
 * weights_internal.h - the keys of chunks, and the check of one blob. Internal
 * to this folder.
 */
#ifndef STORE_WEIGHTS_INTERNAL_H
#define STORE_WEIGHTS_INTERNAL_H

#include "store/db.h"

#define WEIGHTS_CHUNK_BITS 20
#define WEIGHTS_CHUNKS_MAX (((int64_t)1 << WEIGHTS_CHUNK_BITS) - 1)
#define WEIGHTS_KEY(generation_id, chunk)                                      \
    ((int64_t)(generation_id) << WEIGHTS_CHUNK_BITS | (chunk))

/* ERR_CORRUPT unless the complete weights match their length and checksum. */
enum err weights_check(struct db *db, int64_t generation_id) NODISCARD;

#endif
