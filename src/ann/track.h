/*
 * track.h - what one query keeps while a pass goes over the rows.
 *
 * A candidate is a row whose codes gave a, with the bound b of code.h: its
 * cosine is in [a - b, a + b]. `floor` is a number that the k-th best cosine
 * is known to reach (the k-th largest a - b so far, or min_cosine), so a row
 * with a + b < floor can't be among the best k. The k largest a - b stand in a
 * heap, so that the floor rises with every row that can raise it. Owned by one
 * thread.
 *
 * The sum over rows is kept relative to exp(shift / temperature), with the
 * bound of each span weighted by its part of the sum.
 */
#ifndef ANN_TRACK_H
#define ANN_TRACK_H

#include <stddef.h>
#include <stdint.h>
#include "ann/ann.h"
#include "ann/code.h"
#include "ann/flat.h"

struct track_candidate {
    uint32_t row;
    float a;
    float b;
};

struct track {
    struct track_candidate *rows;
    size_t n_rows;
    size_t cap_rows;
    float *lows; /* the largest a - b, at most k; a heap when they are k */
    size_t n_lows;
    size_t cap_lows;
    size_t k;
    double floor;

    double sum;        /* sum exp((a_r - shift) / temperature) */
    double sum_bounds; /* the same with b of the row's span as a factor */
    double shift;
    double top;       /* largest a seen; kept where the shift follows it */
    double bound_max; /* largest span bound seen */
    size_t n_scanned;
    size_t n_seen; /* of these, the rows that the query may see */
    enum err err;  /* why the track is incomplete, or OK */
};

enum err track_init(
    struct track *track, const struct ann_query *query) NODISCARD;
void track_release(struct track *track);

/* Note a row, unless it is below the floor. */
enum err track_offer(
    struct track *track, uint32_t row, float a, float b) NODISCARD;

/* Drop the candidates that the floor has passed. */
void track_prune(struct track *track);

/* Take out the candidate with the largest a + b; n_rows > 0, and since the
   last offer or merge only after track_order. */
struct track_candidate track_pop(struct track *track);
void track_order(struct track *track);

/* Add what another track of the same query found in other rows. */
enum err track_merge(
    struct track *into, const struct track *from, double temperature) NODISCARD;

/* Move the sum to another shift. */
void track_reshift(struct track *track, double shift, double temperature);

#endif
