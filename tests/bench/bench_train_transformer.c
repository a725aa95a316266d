/*
 * bench_train_transformer.c - how fast a transformer of MiniLM's shape (6 x
 * 384, 12 heads, feed-forward 1,536, 30,522 words, random weights) learns, and
 * what memory that takes. bench_model_transformer.sh has PyTorch do the same in
 * turn.
 *
 * usage: bench_train_transformer [KEY=VALUE ...]
 *
 *   pairs    of a step: two sequences each (64)
 *   length   tokens of a sequence (32)
 *   micro    sequences that are forward and backward at once, 0: all (0). A
 *            loss over all pairs needs their vectors first: each sequence is
 *            encoded once before
 *   frozen   parts from the bottom that stay as they are (0)
 *   threads  (1), steps  that are measured (5)
 *
 * Forward with the tape, a gradient of noise, backward; no optimiser. The
 * medians of the steps, by the clock and by the processors' time, which a busy
 * machine disturbs least; the operations are those of linear layers and
 * attention, the encoding before micro-batches not counted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/check.h"
#include "model/transformer.h"

static double pairs = 64, length = 32, micro = 0, frozen = 0, threads = 1,
              steps = 5;

static const struct transformer_config minilm = {.layers = 6,
    .hidden = 384,
    .heads = 12,
    .ffn = 1536,
    .vocab = 30522,
    .max_positions = 512,
    .token_types = 2,
    .embedding_scale = 1,
    .embedding_norm = true,
    .norm_eps = 1e-12f,
    .act = KERN_ACT_GELU,
    .pooling = TOKENPOOL_MEAN,
    .normalise = true};

static void
die(const char *what)
{
    fprintf(stderr, "bench_train_transformer: %s\n", what);
    exit(1);
}

static void
read_option(const char *arg)
{
    const struct {
        const char *key;
        double *to;
    } options[] = {{"pairs=", &pairs}, {"length=", &length}, {"micro=", &micro},
        {"frozen=", &frozen}, {"threads=", &threads}, {"steps=", &steps}};

    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (strncmp(arg, options[i].key, strlen(options[i].key)) == 0) {
            *options[i].to = strtod(strchr(arg, '=') + 1, NULL);
            return;
        }
    die("arguments are KEY=VALUE");
}

struct bench {
    struct transformer t;
    float *params, *d_params, *out, *d_out;
    uint8_t *marks;
    uint32_t *ids;
    size_t *offsets; /* of a micro-batch */
    size_t n, micro;
    struct transformer_tape *tape;
    struct pool *pool;
};

static void *
room(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (p == NULL)
        die("out of memory");
    return p;
}

static float *
noise(size_t n, float range, struct rng *rng)
{
    float *x = room(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = range * (rng_float(rng) - 0.5f);
    return x;
}

static void
open_bench(struct bench *b)
{
    size_t L = (size_t)length;
    struct rng rng;

    rng_seed(&rng, 1);
    b->n = 2 * (size_t)pairs;
    b->micro = micro > 0 ? MIN((size_t)micro, b->n) : b->n;
    if (transformer_plan(&b->t, &minilm, NULL) != OK)
        die("no plan");
    b->params = noise(b->t.n_params, 0.07f, &rng);
    b->d_params = room(b->t.n_params, sizeof(float));
    b->out = room(b->n * b->t.n_dims, sizeof(float));
    b->d_out = noise(b->n * b->t.n_dims, 0.01f, &rng);
    b->marks = room(minilm.vocab, 1);
    b->ids = room(b->n * L, sizeof *b->ids);
    b->offsets = room(b->micro + 1, sizeof *b->offsets);
    for (size_t i = 0; i < b->n * L; i++)
        b->ids[i] = (uint32_t)rng_below(&rng, minilm.vocab);
    for (size_t i = 0; i <= b->micro; i++)
        b->offsets[i] = i * L;
    if (transformer_tape_new(&b->tape, &b->t, (size_t)frozen) != OK ||
        pool_new(&b->pool, (size_t)threads, false) != OK)
        die("out of memory");
}

static void
forward(struct bench *b, size_t from)
{
    const struct transformer_batch batch = {
        b->ids + from * (size_t)length, b->offsets, MIN(b->n - from, b->micro)};

    if (transformer_forward(&b->t, b->params, b->tape, &batch,
            b->out + from * b->t.n_dims, b->pool) != OK)
        die("out of memory");
}

static void
step(struct bench *b)
{
    for (size_t i = 0; i < b->n && b->micro < b->n; i += b->micro)
        forward(b, i);
    for (size_t i = 0; i < b->n; i += b->micro) {
        forward(b, i);
        if (transformer_backward(&b->t, b->params, b->tape,
                b->d_out + i * b->t.n_dims, b->d_params, b->marks,
                b->pool) != OK)
            die("out of memory");
    }
}

static double
now(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of a pair, forward and backward with nothing frozen. */
static double
operations(const struct transformer *t)
{
    double H = t->config.hidden, F = t->config.ffn, L = length;
    return 2 * 3 * t->config.layers * L *
           (2 * (4 * H * H + 2 * H * F) + 4 * L * H);
}

int
main(int argc, char **argv)
{
    struct bench b;
    double wall[64], cpu[64];
    struct rusage usage;

    for (int i = 1; i < argc; i++)
        read_option(argv[i]);
    size_t n = MIN((size_t)steps, ARRAY_LEN(wall));
    if (!(pairs >= 1 && length >= 1 && length <= 512 && threads >= 1 && n > 0))
        die("a size is too small or too large");
    kern_init();
    open_bench(&b);
    step(&b);
    for (size_t i = 0; i < n; i++) {
        double at = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
        step(&b);
        wall[i] = now(CLOCK_MONOTONIC) - at;
        cpu[i] = now(CLOCK_PROCESS_CPUTIME_ID) - used;
    }
    qsort(wall, n, sizeof *wall, by_size);
    qsort(cpu, n, sizeof *cpu, by_size);
    (void)getrusage(RUSAGE_SELF, &usage);
    double rate = pairs / wall[n / 2], rate_cpu = pairs / cpu[n / 2];
    printf("train %.1f pairs/s, %.1f per processor second (%.1f GFLOP/s), best "
           "%.1f; step %.2f s, tape %.0f MB, peak memory %.0f MB\n",
        rate, rate_cpu, rate_cpu * operations(&b.t) * 1e-9, pairs / cpu[0],
        wall[n / 2], (double)transformer_tape_bytes(b.tape) * 1e-6,
        (double)usage.ru_maxrss * 1024e-6);
    pool_free(b.pool);
    transformer_tape_free(b.tape);
    free(b.params);
    free(b.d_params);
    free(b.out);
    free(b.d_out);
    free(b.marks);
    free(b.ids);
    free(b.offsets);
    return 0;
}
