/*
 * loop.h - one training run: batches, forward, InfoNCE, backward, AdamW.
 *
 * The encoder is the caller's private clone and changes in place. The number
 * of steps is fixed at the start; nothing of the clock enters, so the same
 * encoder, examples, options and kernel table give the same bits with any
 * number of threads.
 */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include <stdbool.h>
#include "model/encoder.h"
#include "train/batch.h"
#include "train/optimizer.h"

enum train_pretext { TRAIN_PAIRS, TRAIN_INSTANCES };

struct train_options {
    enum train_pretext pretext;
    uint64_t seed;
    size_t batch;      /* examples a step */
    double epochs;     /* over the examples */
    size_t max_steps;  /* 0: as the epochs say */
    float lr;          /* peak learning rate */
    float warmup;      /* share of the steps */
    float temperature; /* tau, at the start if it is learned */
    bool learn_temperature;
    bool symmetric;        /* both directions of InfoNCE */
    float token_dropout;   /* share of words left out of each text */
    float feature_dropout; /* share of n-grams left out */
    float group_share;     /* see batch.h */
    struct adamw_options adamw;
};

/* What measurement found best for the pretext; see src/README.md. */
void train_options_default(
    struct train_options *options, enum train_pretext pretext);

/* A moment of the run, for progress and for the curves of its record. */
struct train_point {
    size_t step, n_steps; /* step counts from 1 */
    double loss;          /* mean since the last point */
    double accuracy;      /* share of anchors that find their key first */
    double positive;      /* mean cosine of positives */
    double negative;      /* mean cosine of negatives */
    double temperature;
    double lr;
    double pairs_per_second;
};

/* Called after every step; false cancels. point is NULL except every few
   steps (about 200 times a run) and at the last. */
typedef bool train_progress_fn(void *arg, const struct train_point *point);

struct train_result {
    size_t n_steps;
    double loss;        /* of the last point */
    double temperature; /* at the end */
    double pairs_per_second;
    uint64_t peak_bytes; /* heap that the run took, the clone apart */
};

/*
 * train_run - train encoder in place.
 *
 *   examples  [n]  n >= 2 distinct ones; for TRAIN_INSTANCES the anchor and
 *                  the positive are both the item's text
 *
 * Errors: ERR_NOMEM, ERR_CANCELLED (the encoder is then half trained and
 * should be dropped), ERR_INVALID when no two examples differ or the loss
 * stops being a number. Source of the objective: nn/infonce.h.
 */
enum err train_run(struct encoder *encoder,
    const struct batch_example *examples, size_t n,
    const struct train_options *options, struct pool *pool,
    train_progress_fn *progress, void *arg, struct train_result *result,
    struct fault *fault) NODISCARD;

#endif
