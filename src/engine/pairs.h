/*
 * pairs.h - a batch of pairs on its way into a collection.
 *
 * As ingest.h, without encoding: checked as they are added, the items they
 * name checked again in the transaction. At intake a pair gets its split, by a
 * hash of its group or else of its normalised anchor, and for ever; a pair
 * whose reverse stands in another split is kept but set aside, so that no
 * judged pair is ever learnt.
 */
#ifndef ENGINE_PAIRS_H
#define ENGINE_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/err.h"
#include "store/pairs.h"
#include "engine/engine.h"

struct collection;
struct pair_batch;

enum err pair_batch_new(struct pair_batch **out, struct collection *c,
    bool all_or_nothing, const char *origin) NODISCARD;
void pair_batch_free(struct pair_batch *batch);
void pair_batch_clear(struct pair_batch *batch);
enum err pair_batch_add(struct pair_batch *batch,
    const struct engine_pair *pair, uint64_t line, const char *prefix,
    struct fault *fault) NODISCARD;
enum err pair_batch_add_refused(
    struct pair_batch *batch, uint64_t line, const struct fault *why) NODISCARD;
size_t pair_batch_count(const struct pair_batch *batch);
size_t pair_batch_bytes(const struct pair_batch *batch);
/* Commit and wait. */
enum err pair_batch_commit(
    struct pair_batch *batch, struct fault *fault) NODISCARD;
void pair_batch_outcome(
    const struct pair_batch *batch, size_t i, struct engine_outcome *out);

/* A stored pair as the world sees it, copied to the arena. */
enum err pair_view(const struct pair_row *row, struct arena *arena,
    struct engine_pair_view *out) NODISCARD;

#endif
