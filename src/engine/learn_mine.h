/*
 * learn_mine.h - hard negatives for pairs, from the live index.
 *
 * Of the items nearest to an anchor those are given to its pair as negatives
 * that are surely not positives: at least 5% below the positive's own score
 * (Moreira et al. 2024, arXiv:2407.15831, with a share of the positive's
 * score), no known positive of the anchor, and no side of a tuned or judged
 * pair, which must not influence training. A cap holds for each pair. What
 * was refused by the score alone is either an easy confusion or a positive
 * that nobody confirmed: the report shows some.
 */
#ifndef ENGINE_LEARN_MINE_H
#define ENGINE_LEARN_MINE_H

#include "engine/learn_data.h"

#define LEARN_MINE_MARGIN 0.05 /* of the positive's score */
#define LEARN_MINE_SUSPECTS 5  /* shown */

/* An item that is near an anchor, best first. */
struct learn_candidate {
    double cosine;
    bool known;  /* the anchor itself, or one of its positives */
    bool barred; /* a side of a tuned or judged pair */
};

/* Why candidates were not taken. */
struct learn_mine_counts {
    size_t near;   /* too near to the positive's score */
    size_t known;  /* a known positive */
    size_t barred; /* of a tuned or judged pair */
};

/*
 * learn_mine_choose - which candidates become negatives: the nearest ones that
 * pass every guard.
 *
 *   positive  cosine of the anchor with its positive
 *   max       of them at most
 *   out       [max] their indices
 *   counts    added to, for candidates above the last one taken
 *
 * Returns how many were taken. Pure.
 */
size_t learn_mine_choose(const struct learn_candidate *candidates, size_t n,
    double positive, size_t max, uint32_t *out,
    struct learn_mine_counts *counts);

struct learn_suspect {
    uint32_t example;
    uint32_t ord; /* of the item */
    double positive, cosine;
};

struct learn_mined {
    size_t n_negatives; /* that were given to pairs */
    size_t n_pairs;     /* that got some */
    struct learn_mine_counts refused;
    struct learn_suspect suspects[LEARN_MINE_SUSPECTS]; /* worst first */
    size_t n_suspects;
};

/*
 * learn_mine - add negatives to the examples of data.
 *
 *   live  whose encoder and index find them
 *   job   asked between short pieces of work whether to stop; may be NULL
 *
 * Same index and examples, same negatives. Items written after the round
 * began (items_upto) are not looked at. Cost: one search a pair. Errors:
 * ERR_NOMEM, ERR_CANCELLED, those of the store.
 */
enum err learn_mine(struct learn_mined *out, struct learn_data *data,
    struct collection *c, struct snapshot *live,
    const struct learn_options *options, int64_t items_upto,
    struct job *job) NODISCARD;

#endif
