/*
 * inputs.h - what one step of training encodes: a view of each side of each
 * example, then the given negatives.
 *
 * Rows of a step: anchors 0..B-1, positives B..2B-1, given negatives from 2B
 * on. Instances are two views of one item; the sides of a pair of texts are
 * taken as they are, those of a pair of pictures as one view each. Pictures
 * are rendered in pieces, on the pool, when a piece is asked for: a view
 * depends on (seed, step, row) alone, so that it can be made again and any pool
 * gives the same pixels. Owned by one thread.
 */
#ifndef TRAIN_INPUTS_H
#define TRAIN_INPUTS_H

#include "base/pool.h"
#include "train/batch.h"
#include "train/loop.h"

struct inputs;

/*
 * inputs_new - for steps of at most B examples.
 *
 *   encoder        what it reads and the size of its pictures are taken from it
 *   options        pretext, seed, char_noise, views; borrowed
 *   max_negatives  given negatives that fit in a step; more are left out
 *   piece          rows that inputs_rows is asked for at most
 *
 * Errors: ERR_NOMEM.
 */
enum err inputs_new(struct inputs **out, const struct encoder *encoder,
    const struct train_options *options, size_t B, size_t max_negatives,
    size_t piece) NODISCARD;
void inputs_free(struct inputs *inputs);
size_t inputs_bytes(const struct inputs *inputs); /* heap in use */

/*
 * inputs_fill - lay out a step.
 *
 *   index  [B]  into examples
 *   step        counts from 0
 *   rng         advanced by views of texts
 *
 * Errors: ERR_NOMEM.
 */
enum err inputs_fill(struct inputs *inputs,
    const struct batch_example *examples, const uint32_t *index, size_t B,
    size_t step, struct rng *rng) NODISCARD;

size_t inputs_keys(const struct inputs *inputs); /* M: positives, negatives */
/* [M] of the positives, then the given negatives */
const uint64_t *inputs_key(const struct inputs *inputs);

/* Rows first to first + n, ready to encode; valid until the next call for
   other rows. ERR_NOMEM. */
enum err inputs_rows(struct inputs *inputs, size_t first, size_t n,
    const struct encoder_input **out, struct pool *pool) NODISCARD;

/* All rows where they are texts, which are there from the start; else NULL. */
const struct encoder_input *inputs_texts(const struct inputs *inputs);

/* Time spent on making views since the last call, as the caller waits for it.
 */
int64_t inputs_take_ns(struct inputs *inputs);

#endif
