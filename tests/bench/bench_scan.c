/*
 * bench_scan.c - how fast the exact index answers on one core.
 *
 * For 60,000 rows of 256 and of 512 dims, random unit vectors and clustered
 * ones, with the log of the sum of exponentials (temperature 0.05) in every
 * answer: single searches one after another (p50, p99), 8 and 32 threads that
 * search at once, and ann_search_many, all pinned to one core. Each figure
 * stands beside what the machine could do at best, measured here: reading
 * the bytes of the codes, and the scan kernel on rows that stay in the
 * first-level cache. On a machine that does other work too, look at the
 * queries in a second of this process's own time.
 *
 * bench_scan [rows=60000] [dims=256] [data=random] [seconds=2] [core=1]
 */
#define _GNU_SOURCE /* affinity */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "ann/ann.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "kern/kern.h"

#define K 10
#define TEMPERATURE 0.05
#define N_QUERIES 512
#define MANY 50
#define LATENCIES 100000

struct options {
    size_t rows;
    size_t dims; /* 0: 256 and 512 */
    const char *data;
    double seconds;
    int core; /* -1: not pinned */
};

static double
now_s(void)
{
    return (double)clock_mono_ns() * 1e-9;
}

/* Of this process: what counts when others use the machine as well. */
static double
cpu_s(void)
{
    return (double)clock() / (double)CLOCKS_PER_SEC;
}

static void
pin(int core)
{
    cpu_set_t set;

    if (core < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        fprintf(stderr, "bench_scan: core %d is not to be had\n", core);
}

static void *
must(void *p)
{
    if (p == NULL)
        exit(1);
    return p;
}

/* --- data ----------------------------------------------------------------- */

static void
normalise(float *x, size_t n)
{
    double s = kern()->dot_f64(x, x, n);

    kern()->scale(x, (float)(1.0 / sqrt(s)), n);
}

/* Random: every direction alike. Clustered: 300 centres, each with its own
   spread around it, so that many cosines are large and close together. */
static void
fill(float *x, size_t n, size_t dims, bool clustered, uint64_t seed)
{
    struct rng rng, rows;
    const size_t n_centres = 300;
    float *centres = must(mem_alloc(n_centres * dims, sizeof(float)));

    rng_seed(&rng, 5);
    for (size_t i = 0; i < n_centres * dims; i++)
        centres[i] = (float)rng_normal(&rng);
    rng_seed(&rows, seed);
    for (size_t r = 0; r < n; r++) {
        size_t centre = (size_t)rng_below(&rows, n_centres);
        float spread = clustered ? 0.2f + 0.004f * (float)(centre % 200) : 1.0f;

        for (size_t d = 0; d < dims; d++) {
            float base = clustered ? centres[centre * dims + d] : 0.0f;

            x[r * dims + d] = base + spread * (float)rng_normal(&rows);
        }
        normalise(x + r * dims, dims);
    }
    mem_free(centres);
}

/* --- what the machine could do -------------------------------------------- */

static double
read_rate(size_t n_bytes)
{
    size_t n = n_bytes / 64 * 8;
    uint64_t *x = must(mem_alloc_aligned(n, sizeof(*x)));
    volatile uint64_t sink = 0;
    double best = 0.0, until = now_s() + 0.5;

    for (size_t i = 0; i < n; i++)
        x[i] = i;
    do {
        double t = now_s();
        uint64_t s[8] = {0};

        for (size_t i = 0; i < n; i += 8)
            for (size_t l = 0; l < 8; l++)
                s[l] += x[i + l];
        for (size_t l = 0; l < 8; l++)
            sink += s[l];
        t = now_s() - t;
        best = fmax(best, (double)n * 8.0 / t);
    } while (now_s() < until);
    mem_free(x);
    return best;
}

/* Multiply-adds a second of the scan, 32 rows in the first-level cache. */
static double
scan_rate(size_t dims, size_t n_queries)
{
    size_t n = KERN_CODE_DIMS(dims);
    uint8_t *rows = must(mem_alloc_aligned(32 * n, 1));
    uint8_t *queries = must(mem_alloc_aligned(n_queries, KERN_QUERY_BYTES(n)));
    int32_t *out = must(mem_alloc_aligned(n_queries * 32, sizeof(*out)));
    double best = 0.0, until = now_s() + 0.5;

    for (size_t i = 0; i < 32 * n; i++)
        rows[i] = (uint8_t)(128 + i % 15);
    for (size_t q = 0; q < n_queries; q++) {
        uint8_t *query = queries + q * KERN_QUERY_BYTES(n);

        for (size_t i = 0; i < n; i++)
            query[i] = (uint8_t)(i % 9);
        kern_scan_prepare(query, n);
    }
    do {
        const int rounds = 50;
        double t = now_s();

        for (int i = 0; i < rounds; i++)
            kern()->scan(out, 32, rows, 2, queries, n_queries, n);
        t = now_s() - t;
        best = fmax(best, rounds * 32.0 * (double)(n * n_queries) / t);
    } while (now_s() < until);
    mem_free(rows);
    mem_free(queries);
    mem_free(out);
    return best;
}

/* --- searches ------------------------------------------------------------- */

struct load {
    struct ann *ann;
    const float *queries;
    size_t dims;
    double until;
    int core;
    size_t first;
    size_t n_done;
    size_t n_rescored;
    size_t n_latencies;
    float *latencies; /* microseconds */
};

static struct ann_query
query_of(const struct load *load, size_t i)
{
    return (struct ann_query){
        .vector = load->queries + i % N_QUERIES * load->dims,
        .k = K,
        .min_cosine = -2.0,
        .temperature = TEMPERATURE,
        .skip = ANN_NONE};
}

static void *
search_until(void *arg)
{
    struct load *load = arg;
    struct ann_hit hits[K];
    struct ann_result result = {.hits = hits};

    pin(load->core);
    for (size_t i = load->first; now_s() < load->until; i++) {
        struct ann_query query = query_of(load, i);
        double t = now_s();

        if (ann_search(load->ann, &query, &result) != OK)
            exit(1);
        t = now_s() - t;
        load->n_done++;
        load->n_rescored += result.n_rescored;
        if (load->n_latencies < LATENCIES)
            load->latencies[load->n_latencies++] = (float)(t * 1e6);
    }
    return NULL;
}

static void *
search_many_until(void *arg)
{
    struct load *load = arg;
    struct ann_hit hits[MANY][K];
    struct ann_result results[MANY];
    struct ann_query queries[MANY];

    pin(load->core);
    for (size_t i = load->first; now_s() < load->until; i += MANY) {
        double t = now_s();

        for (size_t q = 0; q < MANY; q++) {
            queries[q] = query_of(load, i + q);
            results[q] = (struct ann_result){.hits = hits[q]};
        }
        if (ann_search_many(load->ann, queries, results, MANY) != OK)
            exit(1);
        t = now_s() - t;
        load->n_done += MANY;
        for (size_t q = 0; q < MANY; q++)
            load->n_rescored += results[q].n_rescored;
        if (load->n_latencies < LATENCIES)
            load->latencies[load->n_latencies++] = (float)(t * 1e6);
    }
    return NULL;
}

static int
by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void
run_load(const char *what, struct load *load, void *(*fn)(void *),
    size_t n_threads, double seconds, size_t rows)
{
    pthread_t thread[64];
    struct load part[64];
    float *all = must(mem_alloc(n_threads * LATENCIES, sizeof(*all)));
    size_t n_all = 0, n_done = 0, n_rescored = 0;
    double start = now_s(), cpu = cpu_s();

    for (size_t i = 0; i < n_threads; i++) {
        part[i] = *load;
        part[i].until = start + seconds;
        part[i].first = i * 37;
        part[i].latencies = must(mem_alloc(LATENCIES, sizeof(float)));
        if (pthread_create(&thread[i], NULL, fn, &part[i]) != 0)
            exit(1);
    }
    for (size_t i = 0; i < n_threads; i++) {
        pthread_join(thread[i], NULL);
        memcpy(
            all + n_all, part[i].latencies, part[i].n_latencies * sizeof(*all));
        n_all += part[i].n_latencies;
        n_done += part[i].n_done;
        n_rescored += part[i].n_rescored;
        mem_free(part[i].latencies);
    }
    seconds = now_s() - start;
    cpu = cpu_s() - cpu;
    qsort(all, n_all, sizeof(*all), by_value);

    double qps = (double)n_done / seconds;
    double bytes = (double)(rows * KERN_CODE_DIMS(load->dims));

    printf("  %-18s %6.0f queries/s %6.0f a CPU second  p50 %6.0f us  "
           "p99 %6.0f us  %5.1f GMAC/s  %4.1f rescored\n",
        what, qps, (double)n_done / cpu, (double)all[n_all / 2],
        (double)all[n_all * 99 / 100], qps * bytes * 1e-9,
        (double)n_rescored / (double)n_done);
    fflush(stdout);
    mem_free(all);
}

static void
bench(const struct options *o, size_t dims, bool clustered)
{
    float *x = must(mem_alloc(o->rows * dims, sizeof(float)));
    float *q = must(mem_alloc(N_QUERIES * dims, sizeof(float)));
    uint32_t *ords = must(mem_alloc(o->rows, sizeof(*ords)));
    struct ann *ann;
    double bytes = (double)(o->rows * KERN_CODE_DIMS(dims));

    fill(x, o->rows, dims, clustered, 1);
    fill(q, N_QUERIES, dims, clustered, 2);
    for (size_t i = 0; i < o->rows; i++)
        ords[i] = (uint32_t)i;
    if (ann_new(&ann, dims, NULL) != OK)
        exit(1);

    double t = now_s();

    if (ann_put_many(ann, ords, x, o->rows) != OK)
        exit(1);
    t = now_s() - t;

    double read = read_rate((size_t)bytes);
    double macs = scan_rate(dims, MANY);

    printf("%zu x %zu %s, table %s: put %.0f rows/s, %.0f bytes a row\n",
        o->rows, dims, clustered ? "clustered" : "random", kern()->name,
        (double)o->rows / t, (double)ann_bytes(ann) / (double)o->rows);
    printf("  at best: reading %.1f GB/s = %.0f single queries/s; scanning "
           "%.1f GMAC/s = %.0f queries/s\n",
        read * 1e-9, read / bytes, macs * 1e-9, macs / bytes);

    struct load load = {
        .ann = ann, .queries = q, .dims = dims, .core = o->core};

    run_load("single", &load, search_until, 1, o->seconds, o->rows);
    run_load("8 threads", &load, search_until, 8, o->seconds, o->rows);
    run_load("32 threads", &load, search_until, 32, o->seconds, o->rows);
    run_load(
        "ann_search_many 50", &load, search_many_until, 1, o->seconds, o->rows);

    struct ann_hit hits[K];
    struct ann_result result = {.hits = hits};
    struct ann_query query = query_of(&load, 0);
    double error = 0.0;

    for (size_t i = 0; i < N_QUERIES; i++) {
        query.vector = q + i * dims;
        if (ann_search(ann, &query, &result) != OK)
            exit(1);
        error += result.log_sum_exp_error / N_QUERIES;
    }
    printf("  mean bound of the log-sum-exp's error %.3g\n", error);
    ann_free(ann);
    mem_free(x);
    mem_free(q);
    mem_free(ords);
}

int
main(int argc, char **argv)
{
    struct options o = {.rows = 60000, .data = "", .seconds = 2.0, .core = 1};

    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');

        if (value == NULL) {
            fprintf(stderr,
                "bench_scan [rows=N] [dims=D] [data=random|clustered] "
                "[seconds=S] [core=C, -1: any]\n");
            return 2;
        }
        *value++ = '\0';
        if (strcmp(argv[i], "rows") == 0)
            o.rows = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "dims") == 0)
            o.dims = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "data") == 0)
            o.data = value;
        else if (strcmp(argv[i], "seconds") == 0)
            o.seconds = strtod(value, NULL);
        else if (strcmp(argv[i], "core") == 0)
            o.core = (int)strtol(value, NULL, 10);
    }
    kern_init();
    pin(o.core);
    for (size_t dims = 256; dims <= 512; dims *= 2)
        for (int clustered = 0; clustered < 2; clustered++)
            if ((o.dims == 0 || dims == 256) &&
                (o.data[0] == '\0' ||
                    strcmp(o.data, clustered ? "clustered" : "random") == 0))
                bench(&o, o.dims != 0 ? o.dims : dims, clustered != 0);
    return 0;
}
