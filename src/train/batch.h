/*
 * batch.h - training examples and how they are put into batches.
 *
 * No two examples of a batch share an anchor or a positive; the ones that
 * would are put off to a later batch, at most to the end of the epoch. A
 * share of the examples stays beside its group (in the Debian collection:
 * packages of one source), so that a batch also holds near negatives; the
 * others are spread at random.
 * What remains false is masked: key j is no negative of anchor i when it is
 * the text of the anchor, a known positive of the same anchor text, or a text
 * that pairs connect with it in several steps, as long as what is connected is
 * a small part of all texts (labels given as pairs make such small classes).
 */
#ifndef TRAIN_BATCH_H
#define TRAIN_BATCH_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/rng.h"
#include "model/encoder.h"
#include "nn/infonce.h"

#define BATCH_NEGATIVES_MAX 8 /* given negatives of one pair */

/* Masks of a step are listed, 8 bytes each, and at worst every key of it is
   masked for every row: rows times keys is at most this, 2 GiB. */
#define BATCH_MASKS_SIDE ((size_t)1 << 14)
#define BATCH_MASKS_MAX (BATCH_MASKS_SIDE * BATCH_MASKS_SIDE)

/* One side of an example. */
struct batch_side {
    struct encoder_input input; /* what it points to is borrowed for the run */
    uint64_t key; /* hash of the content: equal ones are equal keys */
};

/* One positive pair, or, for instances, one item (positive == anchor). */
struct batch_example {
    struct batch_side anchor;
    struct batch_side positive;
    const struct batch_side *negatives; /* [n_negatives]; borrowed */
    size_t n_negatives;
    float weight;   /* > 0 */
    uint64_t group; /* hash of the group, 0: none */
    uint64_t label; /* hash of the item's label, for SupCon; 0: none */
};

struct batch_plan;

/*
 * batch_plan_new - an endless sequence of batches over n examples.
 *
 *   size         examples a batch, <= n
 *   group_share  of the examples that stay with their group
 *   seed         of the order
 *
 * borrows examples. Errors: ERR_NOMEM.
 */
enum err batch_plan_new(struct batch_plan **out,
    const struct batch_example *examples, size_t n, size_t size,
    float group_share, uint64_t seed) NODISCARD;
void batch_plan_free(struct batch_plan *plan);

/* The next batch: indices into examples, valid until the next call. It is
   smaller than size only when the examples hold fewer distinct ones, and never
   smaller than 2. *n 0: the examples hold no 2 distinct ones. */
enum err batch_plan_next(
    struct batch_plan *plan, const uint32_t **index, size_t *n) NODISCARD;

/*
 * batch_masks - pairs (i, j) of a batch where key j is no negative of i.
 *
 *   keys   [M]  keys of the batch's positives, then of any negatives;
 *               n M <= BATCH_MASKS_MAX
 *   out    sorted by row; valid until the next call
 */
enum err batch_masks(struct batch_plan *plan, const uint32_t *index, size_t n,
    const uint64_t *keys, size_t M, const struct infonce_mask **out,
    size_t *n_out) NODISCARD;

/* The same the other way round: the rows are the batch's positives, and keys
   begin with those of its anchors. Errors: ERR_NOMEM. */
enum err batch_masks_back(struct batch_plan *plan, const uint32_t *index,
    size_t n, const uint64_t *keys, size_t M, const struct infonce_mask **out,
    size_t *n_out) NODISCARD;

/*
 * batch_masks_views - pairs (i, j) of views where neither is a negative of the
 * other: texts that are equal or that pairs connect. Both (i, j) and (j, i)
 * are listed, never a row with itself or with its own other side.
 *
 *   n          of the batch
 *   keys  [M]  of its anchors, its positives, then of any negatives;
 *              M <= BATCH_MASKS_SIDE
 */
enum err batch_masks_views(struct batch_plan *plan, size_t n,
    const uint64_t *keys, size_t M, const struct infonce_mask **out,
    size_t *n_out) NODISCARD;

#endif
