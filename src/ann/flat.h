/*
 * flat.h - the insides of the exact index, for this folder only.
 *
 * flat.c keeps the rows, search.c answers, track.c holds the best rows of one
 * query while a pass runs.
 */
#ifndef ANN_FLAT_H
#define ANN_FLAT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "ann/ann.h"
#include "ann/fairlock.h"
#include "base/pool.h"
#include "kern/kern.h"

/* Rows grow by chunks, and a pass works on spans: the dots of one span and all
   queries of a pass stay in the second-level cache. */
#define FLAT_CHUNK_ROWS 8192
#define FLAT_SPAN_ROWS 1024
#define FLAT_CHUNK_SPANS (FLAT_CHUNK_ROWS / FLAT_SPAN_ROWS)
#define FLAT_PAGE_ORDS 4096

/* Queries that share a pass at most: ten tiles of the AVX2 scan. */
#define FLAT_PASS_QUERIES 50

#define FLAT_NO_ROW UINT32_MAX

/* One allocation each. Row r of the index is row r % FLAT_CHUNK_ROWS of chunk
   r / FLAT_CHUNK_ROWS. */
struct flat_chunk {
    uint8_t *codes;  /* blocks of kern.h */
    float *vectors;  /* [FLAT_CHUNK_ROWS, n_dims] */
    float *scale;    /* as code.h */
    float *residual; /* as code.h */
    uint32_t *ords;
    float span_residual[FLAT_CHUNK_SPANS]; /* at least the largest inside */
};

struct flat_page {
    uint32_t row[FLAT_PAGE_ORDS]; /* FLAT_NO_ROW where absent */
};

struct search_pass; /* search.c: the scratch memory of a pass */
struct search_job;

struct ann {
    size_t n_dims; /* immutable, as the next two */
    size_t n_code; /* KERN_CODE_DIMS(n_dims) */
    struct pool *pool;

    struct fairlock *lock; /* guards the rows: all down to max_norm */
    struct flat_chunk **chunks;
    size_t n_chunks;
    size_t cap_chunks;
    struct flat_page **pages; /* by ordinal / FLAT_PAGE_ORDS; NULL: none */
    size_t n_pages;
    size_t n_rows;
    size_t n_promised; /* rows that puts in progress may add */
    double max_norm;   /* at least |x| of every row */

    pthread_mutex_t queue_lock; /* guards the next five */
    struct search_job *first;   /* searches that wait for a pass, in order */
    struct search_job *last;
    size_t n_waiting;   /* how many these are */
    size_t n_last_pass; /* queries of the last pass */
    bool leading;       /* somebody runs passes */

    struct search_pass *pass; /* the leader's; the pointer is immutable */
};

/* The row of an ordinal or FLAT_NO_ROW. Under the lock. */
uint32_t flat_row_of(const struct ann *ann, uint32_t ord);

static inline const float *
flat_vector(const struct ann *ann, uint32_t row)
{
    const struct flat_chunk *chunk = ann->chunks[row / FLAT_CHUNK_ROWS];

    return chunk->vectors + row % FLAT_CHUNK_ROWS * ann->n_dims;
}

static inline uint32_t
flat_ord(const struct ann *ann, uint32_t row)
{
    return ann->chunks[row / FLAT_CHUNK_ROWS]->ords[row % FLAT_CHUNK_ROWS];
}

/* The scratch memory of the passes of an index. */
enum err search_pass_new(
    struct search_pass **out, size_t n_code, size_t n_threads) NODISCARD;
void search_pass_free(struct search_pass *pass);
size_t search_pass_bytes(const struct search_pass *pass);

#endif
