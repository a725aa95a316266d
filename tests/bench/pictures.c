/* pictures.c - see pictures.h. */
#include "tests/bench/pictures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/rng.h"
#include "kern/gemm.h"

#define MAGIC "KPICSET1"
#define SHARD 1000 /* rows of one shard of work */
#define ROUNDS 24  /* of the power iteration */

static void
die(const char *what, const char *why)
{
    fprintf(stderr, "pictures: %s: %s\n", what, why);
    exit(1);
}

static void *
need(void *p)
{
    if (p == NULL)
        die("memory", "none left");
    return p;
}

/* ------------------------------------------------------------------ files */

size_t
pictures_members(const struct pictures *set)
{
    return (size_t)set->side * set->side * set->channels;
}

static void
move(FILE *f, void *p, size_t n, const char *path)
{
    if (fread(p, 1, n, f) != n)
        die(path, "too short");
}

void
pictures_read(struct pictures *out, const char *path)
{
    char magic[sizeof MAGIC] = "";
    uint32_t head[4];
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        die(path, "cannot be read (tests/bench/data_images.sh makes it)");
    move(f, magic, sizeof MAGIC - 1, path);
    move(f, head, sizeof head, path);
    if (strcmp(magic, MAGIC) != 0 || head[0] == 0 || head[1] == 0 ||
        head[1] > 512 || (head[2] != 1 && head[2] != 3))
        die(path, "not a set of pictures");
    *out = (struct pictures){.n = head[0],
        .side = head[1],
        .channels = head[2],
        .n_labels = head[3]};
    size_t n = out->n, bytes = n * pictures_members(out);
    out->label = need(mem_alloc(n, sizeof *out->label));
    out->thing = need(mem_alloc(n, sizeof *out->thing));
    out->pixels = need(mem_alloc(bytes, 1));
    move(f, out->label, n * sizeof *out->label, path);
    move(f, out->thing, n * sizeof *out->thing, path);
    move(f, out->pixels, bytes, path);
    fclose(f);
    for (size_t i = 0; i < n; i++)
        if (out->label[i] >= out->n_labels)
            die(path, "a label out of range");
}

void
pictures_write(const struct pictures *set, const char *path)
{
    uint32_t head[4] = {set->n, set->side, set->channels, set->n_labels};
    FILE *f = fopen(path, "wb");
    if (f == NULL)
        die(path, "cannot be written");
    fwrite(MAGIC, 1, sizeof MAGIC - 1, f);
    fwrite(head, sizeof head, 1, f);
    fwrite(set->label, sizeof *set->label, set->n, f);
    fwrite(set->thing, sizeof *set->thing, set->n, f);
    fwrite(set->pixels, pictures_members(set), set->n, f);
    if (ferror(f) || fclose(f) != 0)
        die(path, "cannot be written");
}

void
pictures_release(struct pictures *set)
{
    mem_free(set->label);
    mem_free(set->thing);
    mem_free(set->pixels);
    *set = (struct pictures){0};
}

/* -------------------------------------------------------------- baselines */

const char *const pictures_baseline_names[PICTURES_BASELINES] = {
    "raw pixels", "centred pixels", "PCA 128"};

/* Rows of floats in [0, 1], less the mean (or NULL). */
static float *
floats(const struct pictures *set, const float *mean)
{
    size_t D = pictures_members(set);
    float *x = need(mem_alloc_aligned((size_t)set->n * D, sizeof *x));
    for (size_t i = 0; i < set->n; i++)
        for (size_t j = 0; j < D; j++)
            x[i * D + j] = (float)set->pixels[i * D + j] / 255 -
                           (mean == NULL ? 0 : mean[j]);
    return x;
}

static float *
mean_of(const struct pictures *set)
{
    size_t D = pictures_members(set);
    float *mean = need(mem_calloc(D, sizeof *mean));
    double *sum = need(mem_calloc(D, sizeof *sum));
    for (size_t i = 0; i < set->n; i++)
        for (size_t j = 0; j < D; j++)
            sum[j] += set->pixels[i * D + j];
    for (size_t j = 0; j < D; j++)
        mean[j] = (float)(sum[j] / (255.0 * set->n));
    mem_free(sum);
    return mean;
}

static void
unit_rows(float *x, size_t n, size_t D)
{
    for (size_t i = 0; i < n; i++) {
        double s = 0;
        for (size_t j = 0; j < D; j++)
            s += (double)x[i * D + j] * x[i * D + j];
        float f = s > 0 ? (float)(1 / sqrt(s)) : 0;
        for (size_t j = 0; j < D; j++)
            x[i * D + j] *= f;
    }
}

struct product {
    float *out;     /* [n, K] or, of a turn, [n_shards, D, K] */
    const float *x; /* [n, D] */
    const float *v; /* [D, K], or [n, K] */
    size_t n, D, K;
};

/* out = X V, by shards of rows */
static void
project_shard(void *arg, size_t shard_i, size_t thread_i)
{
    struct product *p = arg;
    size_t start = shard_i * SHARD, n = MIN(SHARD, p->n - start);
    (void)thread_i;
    gemm_f32(p->out + start * p->K, p->K, p->x + start * p->D, p->D, false,
        p->v, p->K, false, n, p->K, p->D, 1, 0);
}

static void
project(float *out, const float *x, const float *v, size_t n, size_t D,
    size_t K, struct pool *pool)
{
    struct product p = {.out = out, .x = x, .v = v, .n = n, .D = D, .K = K};
    pool_run(pool, (n + SHARD - 1) / SHARD, project_shard, &p);
}

/* out = X^T Y, by shards of the picture's members */
static void
turn_shard(void *arg, size_t shard_i, size_t thread_i)
{
    struct product *p = arg;
    size_t step = (p->D + 7) / 8, start = shard_i * step;
    (void)thread_i;
    if (start < p->D)
        gemm_f32(p->out + start * p->K, p->K, p->x + start, p->D, true, p->v,
            p->K, false, MIN(step, p->D - start), p->K, p->n, 1, 0);
}

/* Gram-Schmidt, twice over each column. */
static void
orthonormal(float *v, size_t D, size_t K)
{
    for (size_t k = 0; k < K; k++) {
        for (int twice = 0; twice < 2; twice++)
            for (size_t m = 0; m < k; m++) {
                double dot = 0;
                for (size_t j = 0; j < D; j++)
                    dot += (double)v[j * K + k] * v[j * K + m];
                for (size_t j = 0; j < D; j++)
                    v[j * K + k] -= (float)dot * v[j * K + m];
            }
        double s = 0;
        for (size_t j = 0; j < D; j++)
            s += (double)v[j * K + k] * v[j * K + k];
        float f = s > 0 ? (float)(1 / sqrt(s)) : 0;
        for (size_t j = 0; j < D; j++)
            v[j * K + k] *= f;
    }
}

/* The leading K directions of centred rows x: V <- orth(X^T (X V)). */
static float *
principal(const float *x, size_t n, size_t D, size_t K, struct pool *pool)
{
    float *v = need(mem_alloc_aligned(D * K, sizeof *v));
    float *y = need(mem_alloc_aligned(n * K, sizeof *y));
    struct rng rng;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < D * K; i++)
        v[i] = (float)rng_normal(&rng);
    for (int round = 0; round < ROUNDS; round++) {
        orthonormal(v, D, K);
        project(y, x, v, n, D, K, pool);
        struct product p = {.out = v, .x = x, .v = y, .n = n, .D = D, .K = K};
        pool_run(pool, 8, turn_shard, &p);
    }
    orthonormal(v, D, K);
    mem_free(y);
    return v;
}

void
pictures_baseline(struct pictures_rows *out, enum pictures_baseline which,
    const struct pictures *train, const struct pictures *test,
    struct pool *pool)
{
    size_t D = pictures_members(train);
    if (D != pictures_members(test))
        die("train and test", "of different sizes");
    float *mean = which == PICTURES_RAW ? NULL : mean_of(train);
    *out = (struct pictures_rows){
        .train = floats(train, mean), .test = floats(test, mean), .dims = D};
    mem_free(mean);
    if (which == PICTURES_PCA_128) {
        size_t K = MIN((size_t)PICTURES_PCA, MIN(D, (size_t)train->n));
        float *v = principal(out->train, train->n, D, K, pool);
        float *a = need(mem_alloc_aligned(train->n * K, sizeof *a));
        float *b = need(mem_alloc_aligned(test->n * K, sizeof *b));
        project(a, out->train, v, train->n, D, K, pool);
        project(b, out->test, v, test->n, D, K, pool);
        mem_free(out->train);
        mem_free(out->test);
        mem_free(v);
        *out = (struct pictures_rows){.train = a, .test = b, .dims = K};
    }
    unit_rows(out->train, train->n, out->dims);
    unit_rows(out->test, test->n, out->dims);
}

/* ------------------------------------------------------------- same thing */

struct nearest {
    const float *rows;
    size_t n, D;
    uint32_t *best; /* [n] row of the nearest other */
};

static void
nearest_shard(void *arg, size_t shard_i, size_t thread_i)
{
    struct nearest *w = arg;
    size_t start = shard_i * 100, n = MIN((size_t)100, w->n - start);
    float *s = need(mem_alloc_aligned(n * w->n, sizeof *s));
    (void)thread_i;
    gemm_f32(s, w->n, w->rows + start * w->D, w->D, false, w->rows, w->D, true,
        n, w->n, w->D, 1, 0);
    for (size_t i = 0; i < n; i++) {
        size_t at = start + i == 0;
        for (size_t j = 0; j < w->n; j++)
            if (j != start + i && s[i * w->n + j] > s[i * w->n + at])
                at = j;
        w->best[start + i] = (uint32_t)at;
    }
    mem_free(s);
}

double
pictures_same_thing(const float *rows, const struct pictures *set, size_t dims,
    struct pool *pool)
{
    struct nearest w = {.rows = rows, .n = set->n, .D = dims};
    uint32_t n_things = 0;
    size_t hits = 0, counted = 0;
    for (size_t i = 0; i < w.n; i++)
        n_things = MAX(n_things, set->thing[i] + 1);
    uint32_t *count = need(mem_calloc(n_things, sizeof *count));
    for (size_t i = 0; i < w.n; i++)
        counted += ++count[set->thing[i]] == 2 ? 2 : count[set->thing[i]] > 2;
    if (counted > 0) {
        w.best = need(mem_alloc(w.n, sizeof *w.best));
        pool_run(pool, (w.n + 99) / 100, nearest_shard, &w);
        for (size_t i = 0; i < w.n; i++)
            hits += count[set->thing[i]] > 1 &&
                    set->thing[w.best[i]] == set->thing[i];
    }
    mem_free(count);
    mem_free(w.best);
    return counted == 0 ? 0 : (double)hits / (double)counted;
}
