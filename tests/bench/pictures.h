/*
 * pictures.h - sets of small labelled pictures for the benchmarks, and what
 * anybody gets of them without training.
 *
 * File: the 8 bytes "KPICSET1", then n, side, channels (1 or 3), n_labels as
 * 32-bit integers, label [n] (class, for judging), thing [n] (pictures of one
 * thing share its number), both 32 bits, then pixels [n, side, side, channels].
 * The byte order is that of the machine: a set is made where it is used, by
 * tests/bench/data_images.sh. Every function ends the program with a message
 * when something is wrong.
 */
#ifndef BENCH_PICTURES_H
#define BENCH_PICTURES_H

#include <stddef.h>
#include <stdint.h>
#include "base/pool.h"

struct pictures {
    uint32_t n, side, channels, n_labels;
    uint32_t *label; /* [n] < n_labels */
    uint32_t *thing; /* [n] */
    uint8_t *pixels; /* [n, side, side, channels] */
};

void pictures_read(struct pictures *out, const char *path);
void pictures_write(const struct pictures *set, const char *path);
void pictures_release(struct pictures *set);
/* Members of one picture: side x side x channels. */
size_t pictures_members(const struct pictures *set);

/*
 * The three baselines, each of one size: train [n, D], test [n, D], unit rows.
 * raw: the pixels; centred: less the mean training picture; pca: the centred
 * ones in the span of the first PICTURES_PCA principal directions of the
 * training set (block power iteration; the cosine does not depend on the basis
 * of the span).
 */
#define PICTURES_PCA 128
enum pictures_baseline {
    PICTURES_RAW,
    PICTURES_CENTRED,
    PICTURES_PCA_128,
    PICTURES_BASELINES
};
extern const char *const pictures_baseline_names[PICTURES_BASELINES];
struct pictures_rows {
    float *train, *test; /* mem_free */
    size_t dims;
};
void pictures_baseline(struct pictures_rows *out, enum pictures_baseline which,
    const struct pictures *train, const struct pictures *test,
    struct pool *pool);

/* The share of rows [n, D] whose nearest other row (cosine; unit rows) is a
   picture of the same thing, of those whose thing has several pictures; 0 when
   none has. */
double pictures_same_thing(const float *rows, const struct pictures *set,
    size_t dims, struct pool *pool);

#endif
