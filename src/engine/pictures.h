/*
 * pictures.h - picture files as an encoder sees them: decoded and fitted, many
 * at once, in bounded memory.
 *
 * A fitted picture is side x side pixels of 1 or 3 channels (image_fit). The
 * work is cut into one shard a picture. Pictures whose decoding takes much
 * memory (image_facts.decode_bytes) take turns, so that all threads together
 * take about PICTURES_LARGE_BYTES for them at most, or for one.
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

/*
 * The turns of large pictures; one an engine. Who decodes enters with the
 * bytes that it takes, waits until they fit beside the others' or are alone,
 * first come first served, and leaves with the same number. Who asks (on a
 * thread that searches need) gets ERR_BUSY instead of waiting while askers_max
 * of its like wait.
 */
struct picture_gate;
enum err picture_gate_new(
    struct picture_gate **out, size_t askers_max) NODISCARD;
void picture_gate_free(struct picture_gate *gate); /* NULL is fine */
enum err picture_gate_enter(
    struct picture_gate *gate, uint64_t bytes, bool asks) NODISCARD;
void picture_gate_leave(struct picture_gate *gate, uint64_t bytes);
/* How many wait, as of now. */
size_t picture_gate_waiting(struct picture_gate *gate);

/* A file to decode. */
struct picture {
    const void *bytes; /* NULL: none, nothing is done */
    size_t n;
    uint8_t *out;       /* [side, side, channels]; NULL: only checked */
    struct fault fault; /* set; err OK: out is filled. Its pointer is empty */
};

/* They come from outside: the engine's limits hold. Else they were accepted
   before, and only the hard limits hold. */
#define PICTURES_SENT 1u
/* Who asks: see the gate. */
#define PICTURES_ASKED 2u

/*
 * pictures_decode - all of them, on the pool (NULL: the calling thread).
 *
 *   how  PICTURES_SENT and PICTURES_ASKED, or 0
 *
 * What is wrong with a picture is in its fault; ERR_NOMEM and ERR_BUSY there
 * too.
 */
void pictures_decode(struct engine *engine, struct picture *pictures, size_t n,
    uint32_t side, uint32_t channels, unsigned how, struct pool *pool);

/* How many fitted pictures PICTURES_BLOCK_BYTES hold; 8..512. */
size_t pictures_in_block(uint32_t side, uint32_t channels);

/*
 * Files of stored pictures, read and not yet decoded, so that no read is open
 * while they are.
 */
struct picture_files;
enum err picture_files_new(struct picture_files **out) NODISCARD;
void picture_files_free(struct picture_files *files); /* NULL is fine */
/* Read those of the first of n > 0 items, borrowed until they are decoded, in
   the place of those before: until PICTURES_READ_BYTES are reached.
   n_read  how many items that is, 1 at least */
enum err picture_files_read(struct picture_files *files, struct db *db,
    const int64_t *items, size_t n, size_t *n_read) NODISCARD;
/* Decode those of the n_read items: as pictures_load. */
enum err picture_files_decode(struct picture_files *files, struct collection *c,
    uint32_t side, uint32_t channels, struct pool *pool, uint8_t *pixels,
    struct image *out) NODISCARD;

/*
 * pictures_load - the stored pictures of n items, for training.
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

/* What a stored row says of its picture. */
void picture_facts(const struct image_row *row, struct engine_image_facts *out);

#endif
