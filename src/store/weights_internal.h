/*
 * weights_internal.h - blobs in chunks: the keys, what tells the two tables of
 * them apart, and the check of one blob. Internal to this folder.
 */
#ifndef STORE_WEIGHTS_INTERNAL_H
#define STORE_WEIGHTS_INTERNAL_H

#include "store/db.h"
#include "store/weights.h"

#define WEIGHTS_CHUNK_BITS 20
#define WEIGHTS_CHUNKS_MAX (((int64_t)1 << WEIGHTS_CHUNK_BITS) - 1)
#define WEIGHTS_KEY(owner_id, chunk)                                           \
    ((int64_t)(owner_id) << WEIGHTS_CHUNK_BITS | (chunk))

/* Chunks and the rows that own them: generations or encoders. ?1 is the
   owner's id, of chunks their key. */
struct weights_table {
    const char *get;          /* weights, bytes, SHA-256 */
    const char *set_partial;  /* changes no row unless it may be written */
    const char *set_complete; /* ?2 bytes, ?3 SHA-256; unless it is partial */
    const char *put_chunk;    /* ?2 bytes */
    const char *get_chunk;
    const char *delete_chunks; /* keys ?1 to ?2 */
    bool checked; /* readers compare the checksum: nobody else would */
};
extern const struct weights_table weights_of_generations;
extern const struct weights_table weights_of_encoders;

enum err weights_create_in(struct weights_writer **out, struct store *store,
    const struct weights_table *table, int64_t id) NODISCARD;
enum err weights_open_in(struct weights_reader **out, struct store *store,
    const struct weights_table *table, int64_t id, uint64_t *n_bytes) NODISCARD;
enum err weights_read_in(struct store *store, const struct weights_table *table,
    int64_t id, weights_chunk_fn *fn, void *ctx) NODISCARD;

/* ERR_CORRUPT unless the complete weights match their length and checksum. */
enum err weights_check(
    struct db *db, const struct weights_table *table, int64_t id) NODISCARD;

#endif
