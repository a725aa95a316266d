/*
 * Time of the contrastive objectives with their gradients, by layout and size,
 * and the scratch that they take. Arguments: threads (2), seconds a case (1).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "nn/infonce.h"

static const struct {
    const char *name;
    enum infonce_layout layout;
    size_t B, M, D;
    bool symmetric, joint, gradient_of_keys;
} cases[] = {
    {"infonce", INFONCE_KEYS, 1024, 1024, 512, false, false, true},
    {"symmetric", INFONCE_KEYS, 1024, 1024, 512, true, false, true},
    {"symmetric", INFONCE_KEYS, 1024, 2048, 512, true, false, true},
    {"symmetric", INFONCE_KEYS, 4096, 4096, 512, true, false, true},
    {"NT-Xent", INFONCE_VIEWS, 128, 256, 128, false, false, true},
    {"NT-Xent", INFONCE_VIEWS, 512, 1024, 128, false, false, true},
    {"NT-Xent", INFONCE_VIEWS, 4096, 8192, 128, false, false, true},
    {"four-way", INFONCE_VIEWS, 1024, 2048, 512, false, true, true},
    {"MoCo", INFONCE_APART, 32, 4096, 128, false, false, false},
    {"MoCo", INFONCE_APART, 256, 16384, 128, false, false, false},
    {"MoCo", INFONCE_APART, 256, 65536, 128, false, false, false},
};

static float *
random_rows(struct rng *rng, size_t n, size_t D)
{
    float *rows = mem_alloc_aligned(n * D, sizeof *rows);
    if (rows == NULL)
        exit(1);
    for (size_t i = 0; i < n * D; i++)
        rows[i] = (float)rng_normal(rng) / sqrtf((float)D);
    return rows;
}

int
main(int argc, char **argv)
{
    struct pool *pool;
    struct rng rng;
    size_t threads = argc > 1 ? (size_t)atoi(argv[1]) : 2;
    double seconds = argc > 2 ? atof(argv[2]) : 1;

    kern_init();
    rng_seed(&rng, 1);
    if (pool_new(&pool, threads, false) != OK)
        return 1;
    printf("%-10s %6s %6s %5s %10s %12s\n", "objective", "B", "M", "D", "ms",
        "scratch MiB");
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        size_t B = cases[c].B, M = cases[c].M, D = cases[c].D;
        bool views = cases[c].layout == INFONCE_VIEWS;
        size_t rows = views ? M : B;
        size_t floats = infonce_workspace_floats(rows, M);
        float *q = random_rows(&rng, rows, D), *k = random_rows(&rng, M, D);
        float *dq = random_rows(&rng, rows, D), *dk = random_rows(&rng, M, D);
        float *workspace = random_rows(&rng, floats, 1);
        struct infonce_in in = {.layout = cases[c].layout,
            .B = B,
            .M = M,
            .D = D,
            .q = q,
            .k = k,
            .positive = k,
            .tau = 0.1f,
            .symmetric = cases[c].symmetric,
            .joint = cases[c].joint};
        struct infonce_out out = {
            .dq = dq, .dk = cases[c].gradient_of_keys ? dk : NULL};
        double best = INFINITY;
        int64_t start = clock_mono_ns(), now = start;
        while ((double)(now - start) < seconds * 1e9) {
            int64_t from = now;
            infonce(&in, &out, workspace, pool);
            now = clock_mono_ns();
            best = fmin(best, (double)(now - from));
        }
        printf("%-10s %6zu %6zu %5zu %10.2f %12.1f\n", cases[c].name, B, M, D,
            best / 1e6, (double)floats * sizeof(float) / (1 << 20));
        mem_free(q);
        mem_free(k);
        mem_free(dq);
        mem_free(dk);
        mem_free(workspace);
    }
    pool_free(pool);
    return 0;
}
