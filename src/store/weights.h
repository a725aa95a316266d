/*
 * weights.h - the bytes of a generation's encoder, in chunks of 1 MiB.
 *
 * Written chunk by chunk in transactions of their own, so that the writer
 * serves others between; unreadable until the last transaction marks them
 * complete with their length and SHA-256, which every read verifies.
 * Those of imported encoders are written and read alike (encoders.h).
 *
 * These functions take the store, run their own transactions, and must not be
 * called from within an operation or while a reader is open in this thread.
 */
#ifndef STORE_WEIGHTS_H
#define STORE_WEIGHTS_H

#include "base/hash.h"
#include "store/store.h"

#define WEIGHTS_CHUNK_BYTES ((size_t)1 << 20)

struct weights_writer;

/*
 * weights_create - begin to write the weights of a generation (row id).
 *
 * Partial bytes of an earlier attempt are removed. ERR_NOT_FOUND;
 * ERR_CONFLICT unless the generation is building. End with weights_finish or
 * weights_abort.
 */
enum err weights_create(struct weights_writer **out, struct store *store,
    int64_t generation_id) NODISCARD;
/* Append; waits for the disk once for every chunk. Any error is final.
   Failpoint store_weights_chunk. */
enum err weights_add(
    struct weights_writer *writer, const void *bytes, size_t n) NODISCARD;
/* Write the rest, mark complete; frees the writer whatever the outcome.
   sha256 (may be NULL) gives the checksum. */
enum err weights_finish(
    struct weights_writer *writer, uint8_t sha256[SHA256_BYTES]) NODISCARD;
/* Give up; the partial bytes are left for the sweep. NULL is fine. */
void weights_abort(struct weights_writer *writer);

/* All of the above for bytes in memory. */
enum err weights_save(struct store *store, int64_t generation_id,
    const void *bytes, size_t n) NODISCARD;

typedef enum err weights_chunk_fn(void *ctx, const void *bytes, size_t n);

/*
 * weights_read - stream the bytes of a generation (row id) to fn, in order.
 *
 * Each chunk is read in a short snapshot of its own. fn has seen all bytes
 * before the checksum is known: trust them only when this returns OK.
 * ERR_NOT_FOUND when there are none (or no complete ones), ERR_CORRUPT when
 * they do not match their checksum.
 */
enum err weights_read(struct store *store, int64_t generation_id,
    weights_chunk_fn *fn, void *ctx) NODISCARD;

/*
 * A reader that gives the bytes piece by piece and does not compare those of a
 * generation with their checksum: for a caller that knows them by a fingerprint
 * of its own. Errors as of weights_read; weights_next gives exactly n bytes or
 * ERR_CORRUPT past the end.
 */
struct weights_reader;
enum err weights_open(struct weights_reader **out, struct store *store,
    int64_t generation_id, uint64_t *n_bytes) NODISCARD;
enum err weights_next(
    struct weights_reader *reader, void *out, size_t n) NODISCARD;
void weights_close(struct weights_reader *reader); /* NULL is fine */

#endif
