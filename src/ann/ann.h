/*
 * ann.h - the nearest-neighbour index of one space.
 *
 * The index holds unit vectors (or zero vectors, whose cosine is 0) under
 * ordinals: small dense numbers that the caller gives its items. The exact
 * index (flat.c, search.c): codes of a byte a dim scanned in memory, every
 * row whose bound reaches the k-th rescored from the f32 vectors in double, so
 * that the answer is the true top k of the cosines as computed in double. A
 * graph index will stand behind the same calls.
 *
 * Bound. For a query q and a row x with codes q', x' and the residuals
 * dq = q - q', dx = x - x',
 *   |q.x - q'.x'| <= sin(q', x') (|q| |dx| + |x| |dq|) + |dq| |dx|
 * plus the rounding of the scan (code.h derives it).
 *
 * Cost. A search of n rows reads n D bytes, shared with the searches that wait
 * at that moment. Narrow filters (under a sixteenth of the rows) and small
 * collections (up to 256 rows) are compared in double throughout. Memory: 5 D
 * bytes (D rounded up to 16 for the fifth) + 16 a row; scratch of about 220 KB
 * for each thread of the pool.
 *
 * Threads: every call is safe from any thread. ann_put and ann_remove take the
 * write lock for the time of a few row copies; neither side starves the other
 * (fairlock.h), so a search waits for at most one of them, and a writer for the
 * pass that runs.
 *
 * Values must be finite and no larger than 1e15: anything else is the caller's
 * mistake (asserted). Vectors need not be unit for the answer to be right, only
 * for the name "cosine" to be.
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
    const float *vector; /* [D], unit; borrowed */
    size_t k;            /* > 0 */
    double min_cosine;   /* hits below are left out (the sum is not); -2: all */
    double temperature;  /* > 0: for log_sum_exp; 0: not wanted */
    const struct ann_filter *filter; /* NULL: all */
    uint32_t skip; /* one ordinal left out, of the sum too; or ANN_NONE */
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
    size_t n_scanned;     /* rows whose code was compared; 0: none needed */
    size_t n_rescored;    /* rows compared in double */
    /* log sum_j exp(cos_j / temperature) over the allowed rows (-inf if there
       are none), and a bound of the absolute error of that logarithm. The
       bound is a worst case: about (the bound of a cosine) / temperature, .01
       to .025 for random vectors; it falls to nothing as the rescored rows
       carry more of the sum. 0 where no temperature was given. */
    double log_sum_exp;
    double log_sum_exp_error;
};

/* An empty index for vectors of n_dims floats, 1 to 65,536. pool (may be NULL)
   splits large passes; borrowed. A pass waits for the pool's other callers, so
   theirs should be short too. */
enum err ann_new(struct ann **out, size_t n_dims, struct pool *pool) NODISCARD;
void ann_free(struct ann *ann);

/* Room for n rows in all, so that the puts that follow do not grow. */
enum err ann_reserve(struct ann *ann, size_t n_rows) NODISCARD;

/* Insert, or replace the vector of an ordinal. vector [D] is copied. Found by
   every search that starts after the return. */
enum err ann_put(struct ann *ann, uint32_t ord, const float *vector) NODISCARD;
/* n of them; vectors [n, D]; of an ordinal that comes twice the last one
   stays. All or (ERR_NOMEM) none; a search meanwhile may see some. */
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
   ordinals, borrowed for the call. Stops early when fn returns false. While fn
   works no writer gets in, nor (behind a writer) a search: it should only copy,
   and must not call this index. */
typedef bool ann_visit_fn(
    void *arg, const uint32_t *ords, const float *vectors, size_t n);
void ann_visit(const struct ann *ann, ann_visit_fn *fn, void *arg);

#endif
