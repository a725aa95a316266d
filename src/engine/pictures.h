/*
 * pictures.h - picture files as an encoder sees them: decoded and fitted, many
 * at once, in bounded memory.
 *
 * A fitted picture is side x side pixels of 1 or 3 channels (image_fit). The
 * work is cut into one shard a picture. Pictures whose decoded form is large
 * wait for each other, so that all threads together hold about
 * PICTURES_LARGE_BYTES of them at most, or one.
 */
#ifndef ENGINE_PICTURES_H
#define ENGINE_PICTURES_H

#include <stddef.h>
#include <stdint.h>
#include "base/pool.h"
#include "image/decode.h"
#include "engine/engine.h"

#define PICTURES_LARGE_BYTES ((size_t)384 << 20)
#define PICTURES_READ_BYTES ((size_t)8 << 20) /* of files read at a time */
#define PICTURES_BLOCK_BYTES                                                   \
    ((size_t)16 << 20) /* of fitted pixels at a time                           \
                        */
#define PICTURES_CHECK_SIDE                                                    \
    32 /* of pictures that nothing but a check reads                           \
        */

struct collection;
struct db;
struct image_row;

/* The turns of large pictures; one an engine. */
struct picture_gate;
enum err picture_gate_new(struct picture_gate **out) NODISCARD;
void picture_gate_free(struct picture_gate *gate); /* NULL is fine */

/* A file to decode. */
struct picture {
    const void *bytes; /* NULL: none, nothing is done */
    size_t n;
    uint8_t *out;       /* [side, side, channels]; NULL: only checked */
    struct fault fault; /* set; err OK: out is filled. Its pointer is empty */
};

/*
 * pictures_decode - all of them, on the pool (NULL: the calling thread).
 *
 *   sent  they come from outside: the engine's limits hold. Else they were
 *         accepted before, and only the hard limits hold
 *
 * What is wrong with a picture is in its fault; ERR_NOMEM there too.
 */
void pictures_decode(struct engine *engine, struct picture *pictures, size_t n,
    uint32_t side, uint32_t channels, bool sent, struct pool *pool);

/* How many fitted pictures PICTURES_BLOCK_BYTES hold; 8..512. */
size_t pictures_in_block(uint32_t side, uint32_t channels);

/*
 * pictures_load - the stored pictures of n items, for training and
 * re-embedding.
 *
 *   items   [n] numbers; 0: none
 *   pixels  [n, side, side, channels] the caller's; rows of items without a
 *           picture are left as they are
 *   out     [n] views into pixels; pixels NULL for an item that is gone, has no
 *           picture, whose bytes are not kept, or (logged) cannot be decoded
 *   pool    that decodes; NULL: the calling thread alone
 *
 * Files are read PICTURES_READ_BYTES at a time, and no reader is held while
 * they are decoded. Errors: ERR_NOMEM and those of the store.
 */
enum err pictures_load(struct collection *c, const int64_t *items, size_t n,
    uint32_t side, uint32_t channels, struct pool *pool, uint8_t *pixels,
    struct image *out) NODISCARD;

/* The same in a read that the caller holds, which is open all the while: for
   few items whose rows must be of the same moment. */
enum err pictures_load_from(struct collection *c, struct db *db,
    const int64_t *items, size_t n, uint32_t side, uint32_t channels,
    struct pool *pool, uint8_t *pixels, struct image *out) NODISCARD;

/* What a stored row says of its picture. */
void picture_facts(const struct image_row *row, struct engine_image_facts *out);

#endif
