/*
 * ingest.h - a batch of items on its way into a collection.
 *
 *   gather    ingest_add copies items into the batch and checks each, of its
 *             picture the header
 *   encode    ingest_encode takes the live and the shadow snapshot, finds out
 *             which documents or pictures are new, decodes and encodes those,
 *             without a lock
 *   commit    ingest_submit hands one operation to the writer: rows, vectors
 *             of both spaces, pairs set aside; it fails with ERR_CONFLICT when
 *             a generation moved or another writer changed what was thought
 *             unchanged, and ingest_wait then encodes again
 *   index     when it is committed, the writer thread brings roster, columns
 *             and indexes up to date, before anybody is told
 *
 * A batch belongs to one thread; between submit and wait the writer has it.
 */
#ifndef ENGINE_INGEST_H
#define ENGINE_INGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "engine/engine.h"

struct collection;
struct ingest;

#define INGEST_ITEMS_MAX 1024 /* of a bulk's batch */
#define INGEST_BYTES_MAX ((size_t)8 << 20)

struct ingest_options {
    bool all_or_nothing; /* a failed condition fails the batch */
    /* Import: vectors are taken along when this, the fingerprint of the space
       that they are of, is the live one's; else the text is encoded. NULL:
       only an external collection takes vectors. May change between calls. */
    const char *trusted;
    const struct engine_condition *condition; /* of a single item; or NULL */
    bool rewrites; /* title and text are those of the present row */
};

enum err ingest_new(struct ingest **out, struct collection *c,
    const struct ingest_options *options) NODISCARD;
void ingest_free(struct ingest *batch);
/* Empty it for the next gathering; keeps memory. */
void ingest_clear(struct ingest *batch);

/*
 * ingest_add - copy one item into the batch.
 *
 *   line     for the outcome
 *   prefix   JSON pointer of the item in the request ("" or "/3")
 *
 * An item that must be refused gives its error and fault and is not in the
 * batch. An id that is in the batch already supersedes the earlier.
 */
enum err ingest_add(struct ingest *batch, const struct engine_item *item,
    uint64_t line, const char *prefix, struct fault *fault) NODISCARD;
/* A line that is reported in its order and does nothing. */
enum err ingest_add_refused(struct ingest *batch, const char *id, uint64_t line,
    const struct fault *why) NODISCARD;

size_t ingest_count(const struct ingest *batch);
size_t ingest_bytes(const struct ingest *batch);

/* pending: a batch of the same stream that is submitted and not yet done: what
   it holds counts as changed. NULL: none. A picture that cannot be decoded
   refuses its item here, or an all-or-nothing batch as a whole. */
enum err ingest_encode(struct ingest *batch, const struct ingest *pending,
    struct fault *fault) NODISCARD;
enum err ingest_submit(struct ingest *batch, struct fault *fault) NODISCARD;
/* Wait until it is committed and searchable, encoding again as needed. */
enum err ingest_wait(struct ingest *batch, struct fault *fault) NODISCARD;

/* Outcome i < ingest_count, in the order of adding; after ingest_wait. */
void ingest_outcome(
    const struct ingest *batch, size_t i, struct engine_outcome *out);

#endif
