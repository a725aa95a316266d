/*
 * bench_image_folder.c - how fast the decoder alone takes a list of files: the
 * limit of everything that indexes them.
 *
 * usage: bench_image_folder SIDE THREADS <LIST
 *
 * LIST: one file a line. All are read first; then they are decoded for an
 * encoder of SIDE pixels, and fitted. Median of three rounds.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/pool.h"
#include "image/decode.h"

#define FILES_MAX 20000
#define ROUNDS 3

struct work {
    struct buf files[FILES_MAX];
    uint32_t side;
    atomic_size_t bad;
};

static void
die(const char *what)
{
    fprintf(stderr, "bench_image_folder: %s\n", what);
    exit(1);
}

static void
take(void *arg, size_t i, size_t thread_i)
{
    struct work *work = arg;
    struct image_limits limits = {.side_wanted = work->side};
    struct image image = {0};
    uint8_t *out = mem_alloc((size_t)work->side * work->side, 3);
    (void)thread_i;
    if (out == NULL)
        die("out of memory");
    if (image_decode(&image, work->files[i].data, work->files[i].len, &limits,
            NULL) == OK)
        image_fit(out, work->side, 3, &image);
    else
        atomic_fetch_add(&work->bad, 1);
    image_release(&image);
    mem_free(out);
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
    static struct work work;
    static char bytes[65536];
    char line[4096];
    struct pool *pool;
    double s[ROUNDS];
    size_t n = 0, total = 0;
    if (argc != 3)
        die("usage: SIDE THREADS <LIST");
    work.side = (uint32_t)strtoul(argv[1], NULL, 10);
    size_t n_threads = (size_t)strtoul(argv[2], NULL, 10);
    if (work.side == 0 || n_threads == 0 || n_threads > 64 ||
        pool_new(&pool, n_threads, false) != OK)
        die("SIDE and THREADS are numbers above 0");
    while (n < FILES_MAX && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        FILE *f = fopen(line, "rb");
        size_t got;
        if (f == NULL)
            die(line);
        buf_init(&work.files[n], IMAGE_BYTES_MAX);
        while ((got = fread(bytes, 1, sizeof bytes, f)) > 0)
            buf_add(&work.files[n], bytes, got);
        fclose(f);
        if (buf_status(&work.files[n]) != OK)
            die(line);
        total += work.files[n++].len;
    }
    if (n == 0)
        die("no file");
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = clock_mono_ns();
        pool_run(pool, n, take, &work);
        s[round] = (double)(clock_mono_ns() - start) * 1e-9;
    }
    qsort(s, ROUNDS, sizeof *s, compare);
    printf("decoded for %u pixels by %zu threads: %.0f pictures/s (%.1f KB "
           "each, %zu refused)\n",
        work.side, n_threads, (double)n / s[ROUNDS / 2],
        (double)total / (double)n / 1000, atomic_load(&work.bad) / ROUNDS);
    for (size_t i = 0; i < n; i++)
        buf_release(&work.files[i]);
    pool_free(pool);
    return 0;
}
