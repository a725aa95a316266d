/*
 * ann.h - the nearest-neighbour index of one space.
 *
 * The index holds unit vectors (or zero vectors, whose cosine is 0) under
 * ordinals: small dense numbers that the caller gives its items. flat.c is
 * the exact index: int8 codes scanned in memory, every candidate within the
 * error bound of the k-th rescored from the f32 vectors in double, so that
 * the answer is the true top k. A graph index will stand behind the same
 * calls.
 *
 * Bound. With codes q', x' of q, x:
 *   |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|
 * from residual norms stored per row (rounded up), plus the rounding of the
 * scan itself.
 *
 * Threads: every call is safe from any thread. Concurrent ann_search calls
 * share one pass over the codes. ann_put and ann_remove take the write lock
 * for the time of a row copy.
 */
#ifndef ANN_ANN_H
#define ANN_ANN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/pool.h"

struct ann;

/* Ordinals that a search may return: bit ord & 63 of word ord >> 6. */
struct ann_filter {
    const uint64_t *bits;
    size_t n_words;   /* ordinals past the end are not allowed */
    size_t n_allowed; /* how many bits are set */
};

struct ann_query {
    const float *vector;             /* [D], unit; borrowed */
    size_t k;                        /* > 0 */
    double min_cosine;               /* hits below are left out; -2 for all */
    double temperature;              /* > 0: for log_sum_exp; 0: not wanted */
    const struct ann_filter *filter; /* NULL: all */
    uint32_t skip;                   /* one ordinal left out, or ANN_NONE */
    /* order of equal cosines: < 0 when a comes first; NULL: by ordinal */
    int (*tie)(void *arg, uint32_t a, uint32_t b);
    void *tie_arg;
};

#define ANN_NONE UINT32_MAX

struct ann_hit {
    uint32_t ord;
    double cosine; /* of the stored f32 vector and the query, in double */
};

struct ann_result {
    struct ann_hit *hits; /* caller's array of at least k */
    size_t n_hits;        /* best first */
    bool exact;           /* hits are the true top k */
    size_t n_scanned;     /* rows whose code was compared */
    size_t n_rescored;    /* rows compared in double */
    /* log sum_j exp(cos_j / temperature) over the allowed rows, and a bound
       of the absolute error of that logarithm */
    double log_sum_exp;
    double log_sum_exp_error;
};

/* An empty index for vectors of n_dims floats. pool (may be NULL) splits large
   single scans; borrowed. */
enum err ann_new(struct ann **out, size_t n_dims, struct pool *pool) NODISCARD;
void ann_free(struct ann *ann);

/* Room for n rows in all, so that the puts that follow do not grow. */
enum err ann_reserve(struct ann *ann, size_t n_rows) NODISCARD;

/* Insert, or replace the vector of an ordinal. vector [D] is copied. Found by
   every search that starts after the return. */
enum err ann_put(struct ann *ann, uint32_t ord, const float *vector) NODISCARD;
/* n of them; vectors [n, D]. All or (ERR_NOMEM) none. */
enum err ann_put_many(struct ann *ann, const uint32_t *ords,
    const float *vectors, size_t n) NODISCARD;

/* Remove an ordinal; an absent one is fine. */
void ann_remove(struct ann *ann, uint32_t ord);

/* Copy the stored vector [D]; ERR_NOT_FOUND. */
enum err ann_get(const struct ann *ann, uint32_t ord, float *out) NODISCARD;

size_t ann_count(const struct ann *ann);
size_t ann_dims(const struct ann *ann);
size_t ann_bytes(const struct ann *ann); /* heap in use */

/*
 * ann_search - the k nearest rows to a unit vector.
 *
 * Errors: ERR_NOMEM. Cost: one pass over the codes (shared with the other
 * searches that wait at that moment), plus a rescoring of the candidates.
 */
enum err ann_search(struct ann *ann, const struct ann_query *query,
    struct ann_result *result) NODISCARD;

/* n queries in shared passes, as if searched one by one. */
enum err ann_search_many(struct ann *ann, const struct ann_query *queries,
    struct ann_result *results, size_t n) NODISCARD;

/* Walk the rows in blocks under the read lock: vectors [n, D] and their
   ordinals, borrowed for the call. Stops early when fn returns false. */
typedef bool ann_visit_fn(
    void *arg, const uint32_t *ords, const float *vectors, size_t n);
void ann_visit(const struct ann *ann, ann_visit_fn *fn, void *arg);

#endif
