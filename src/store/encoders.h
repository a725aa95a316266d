/*
 * encoders.h - imported encoders: published elsewhere, kept under a name.
 *
 * A row comes first, as partial; its weights follow (encoder_weights_create,
 * then as of weights.h), and from weights_finish on it is there, under its
 * name. A first generation of a collection refers to it instead of having
 * weights of its own; while such a generation is kept, it cannot be deleted.
 */
#ifndef STORE_ENCODERS_H
#define STORE_ENCODERS_H

#include "store/store.h"
#include "store/weights.h"

struct encoder_facts {
    struct store_text name;
    struct store_text family;
    struct store_text config; /* JSON text of the encoder */
    struct store_text card;   /* JSON text or absent */
    int dims;
    int64_t max_tokens;
    int64_t n_params;
    uint8_t fingerprint[SHA256_BYTES]; /* of the encoder */
};

struct encoder_row {
    int64_t id;
    struct encoder_facts facts;
    int64_t created_ms;
    int64_t weights_bytes;
    int64_t n_collections; /* with a kept generation that has its weights */
};

/* Rows are borrowed until the function returns; not OK stops the list and is
   passed up. */
typedef enum err encoder_row_fn(void *ctx, const struct encoder_row *row);

/* A partial encoder, which no name finds yet; id is for encoder_weights_create.
   Its weights_finish gives ERR_EXISTS when there is another of its name. */
enum err encoders_create(struct db *db, const struct encoder_facts *facts,
    int64_t now_ms, int64_t *id) NODISCARD;

/* Give up a partial encoder: mark it for purge. ERR_NOT_FOUND when it is not
   partial. */
enum err encoders_discard(struct db *db, int64_t id) NODISCARD;
/* At start: every partial one. */
enum err encoders_discard_partial(struct db *db) NODISCARD;

/* Copied into arena; ERR_NOT_FOUND. */
enum err encoders_get(struct db *db, struct store_text name,
    struct arena *arena, struct encoder_row *out) NODISCARD;
enum err encoders_get_by_id(struct db *db, int64_t id, struct arena *arena,
    struct encoder_row *out) NODISCARD;

/* By name; after.s NULL: from the first. */
enum err encoders_list(struct db *db, struct store_text after, size_t limit,
    encoder_row_fn *fn, void *ctx) NODISCARD;

/*
 * encoders_delete - mark it for purge; generations that only name it from then
 * on have dropped weights.
 *
 * ERR_NOT_FOUND; ERR_CONFLICT while a kept generation refers to it: collection
 * then gives the row of the first such collection.
 */
enum err encoders_delete(
    struct db *db, int64_t id, int64_t *collection) NODISCARD;

/* As weights_create, weights_open and weights_read, of an encoder's row id;
   ERR_CONFLICT for the first unless it is partial. The reader compares the
   bytes with their checksum: ERR_CORRUPT for the last of damaged ones. */
enum err encoder_weights_create(struct weights_writer **out,
    struct store *store, int64_t encoder_id) NODISCARD;
enum err encoder_weights_open(struct weights_reader **out, struct store *store,
    int64_t encoder_id, uint64_t *n_bytes) NODISCARD;
enum err encoder_weights_read(struct store *store, int64_t encoder_id,
    weights_chunk_fn *fn, void *ctx) NODISCARD;

#endif
