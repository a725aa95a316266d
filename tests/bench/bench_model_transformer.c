/*
 * bench_model_transformer.c - how fast a transformer of MiniLM's shape (6 x
 * 384, 12 heads, feed-forward 1,536, 30,522 words, random weights) encodes and
 * trains.
 *
 * usage: bench_model_transformer [KEY=VALUE ...]
 *
 *   tokens   of a batch that is encoded (4096)
 *   seconds  of each figure, about (0.5)
 *   peak     f32 GFLOP/s of a core, 0: measured here by the product's kernel
 *            on one tile in the first cache (0)
 *   pairs    of a training step (32), train  0: no training (1)
 *   length   only this one (0: 16, 32 and 128), threads  only so many (0)
 *   mix      real texts instead: a file of their lengths in tokens, one a line
 *            (make_lengths)
 *
 * A line is a length of all sequences and a way to compute: sentences/s,
 * GFLOP/s (linear layers and attention), the share of the peak in f32 of the
 * threads used, and with one thread the latency of one sequence. The ways take
 * turns, and figures are medians. A pair that trains is two sequences forward
 * and backward, with a gradient of noise. Real texts are encoded once, in the
 * file's order, as many at a time as have the tokens of a batch. Figures of one
 * thread are by the processor time that it took, which a busy machine disturbs
 * least; those of two by the clock. bench_model_transformer.sh has PyTorch do
 * the same in turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "model/transformer.h"

static double tokens = 4096, budget = 0.5, peak = 0, pairs = 32, train = 1,
              only_length = 0, only_threads = 0;
static const char *mix;

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
    fprintf(stderr, "bench_model_transformer: %s\n", what);
    exit(1);
}

static void
read_option(const char *arg)
{
    const struct {
        const char *key;
        double *to;
    } options[] = {{"tokens=", &tokens}, {"seconds=", &budget},
        {"peak=", &peak}, {"pairs=", &pairs}, {"train=", &train},
        {"length=", &only_length}, {"threads=", &only_threads}};

    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (strncmp(arg, options[i].key, strlen(options[i].key)) == 0) {
            *options[i].to = strtod(strchr(arg, '=') + 1, NULL);
            return;
        }
    if (strncmp(arg, "mix=", 4) != 0)
        die("arguments are KEY=VALUE");
    mix = arg + 4;
}

static int64_t
now_ns(size_t threads)
{
    struct timespec t;
    (void)clock_gettime(
        threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#define COMPUTES 3
static const char *const names[COMPUTES] = {"f32", "bf16", "int8"};

struct bench {
    struct transformer t;
    float *params, *d_params, *out, *d_out;
    uint8_t *marks;
    struct transformer_ready *ready[COMPUTES], *now;
    struct transformer_work *work;
    struct transformer_tape *tape;
    uint32_t *ids;
    size_t *offsets;
    struct transformer_batch batch;
    struct pool *pool;
};

/* Operations of a sequence of L tokens, forward. */
static double
operations(const struct transformer *t, double L)
{
    double H = t->config.hidden, F = t->config.ffn;
    return t->config.layers * L * (2 * (4 * H * H + 2 * H * F) + 4 * L * H);
}

static double
measure_peak(void)
{
    enum { M = 48, K = 128 };
    static float A[M * K], B[K * KERN_PANEL], C[M * KERN_PANEL];
    struct kern_product p = {.M = M,
        .N = KERN_PANEL,
        .K = K,
        .ldc = KERN_PANEL,
        .a_row = K,
        .a_col = 1,
        .b_row = KERN_PANEL};
    double best = 0;

    for (int round = 0; round < 20; round++) {
        int64_t start = now_ns(1);
        for (int i = 0; i < 2000; i++)
            kern()->product(C, A, B, &p);
        double ns = (double)(now_ns(1) - start);
        best = MAX(best, 2000 * 2.0 * M * K * KERN_PANEL / ns);
    }
    return best;
}

static void
lengths(struct bench *b, size_t n, size_t L)
{
    struct rng rng;
    rng_seed(&rng, n + L);
    for (size_t i = 0; i <= n; i++)
        b->offsets[i] = i * L;
    for (size_t i = 0; i < n * L; i++)
        b->ids[i] = (uint32_t)rng_below(&rng, minilm.vocab);
    b->batch = (struct transformer_batch){b->ids, b->offsets, n};
}

/* The lengths of the file's texts; the caller frees. */
static size_t *
read_mix(size_t *n)
{
    FILE *file = fopen(mix, "r");
    size_t *texts = NULL, length;

    *n = 0;
    while (file != NULL && fscanf(file, "%zu", &length) == 1) {
        if (length < 1 || length > MIN(minilm.max_positions, (size_t)tokens))
            die("a text is too short or too long");
        if ((*n & (*n - 1)) == 0) /* a power of two: as many again */
            texts = realloc(texts, MAX(2 * *n, 1) * sizeof *texts);
        if (texts == NULL)
            die("out of memory");
        texts[(*n)++] = length;
    }
    if (*n == 0 || !feof(file))
        die("mix: a file of numbers");
    (void)fclose(file);
    return texts;
}

/* A batch of the texts, as many as fit. */
static void
some_of(struct bench *b, const size_t *texts, size_t n)
{
    size_t *offsets = b->offsets, k = 0;
    struct rng rng;

    offsets[0] = 0;
    for (; k < n && offsets[k] + texts[k] <= (size_t)tokens; k++)
        offsets[k + 1] = offsets[k] + texts[k];
    rng_seed(&rng, n);
    for (size_t i = 0; i < offsets[k]; i++)
        b->ids[i] = (uint32_t)rng_below(&rng, minilm.vocab);
    b->batch = (struct transformer_batch){b->ids, offsets, k};
}

static void
encode(struct bench *b)
{
    if (transformer_encode(&b->t, b->params, b->now, b->work, &b->batch, b->out,
            b->pool) != OK)
        die("out of memory");
}

static void
forward(struct bench *b)
{
    if (transformer_forward(
            &b->t, b->params, b->tape, &b->batch, b->out, b->pool) != OK)
        die("out of memory");
}

static void
step(struct bench *b)
{
    forward(b);
    if (transformer_backward(&b->t, b->params, b->tape, b->d_out, b->d_params,
            b->marks, b->pool) != OK)
        die("out of memory");
}

/* The median seconds of a call. */
static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double
seconds(struct bench *b, void (*fn)(struct bench *))
{
    double took[256], sum = 0;
    size_t n = 0, threads = pool_threads(b->pool);

    fn(b);
    while ((sum < budget || n < 3) && n < ARRAY_LEN(took)) {
        int64_t start = now_ns(threads);
        fn(b);
        took[n] = (double)(now_ns(threads) - start) * 1e-9;
        sum += took[n++];
    }
    qsort(took, n, sizeof *took, by_size);
    return took[n / 2];
}

static void
open_bench(struct bench *b)
{
    size_t cap = (size_t)MAX(tokens, 2 * 128 * pairs) + 1;
    struct rng rng;

    rng_seed(&rng, 1);
    if (transformer_plan(&b->t, &minilm, NULL) != OK)
        die("no plan");
    b->params = calloc(b->t.n_params, sizeof(float));
    b->d_params = calloc(b->t.n_params, sizeof(float));
    b->out = calloc(cap * 384, sizeof(float));
    b->d_out = calloc(cap * 384, sizeof(float));
    b->marks = calloc(minilm.vocab, 1);
    b->ids = calloc(cap, sizeof *b->ids);
    b->offsets = calloc(cap + 1, sizeof *b->offsets);
    if (b->params == NULL || b->d_params == NULL || b->out == NULL ||
        b->d_out == NULL || b->marks == NULL || b->ids == NULL ||
        b->offsets == NULL || transformer_work_new(&b->work) != OK ||
        transformer_tape_new(&b->tape, &b->t, 0) != OK)
        die("out of memory");
    for (size_t i = 0; i < b->t.n_params; i++)
        b->params[i] = 0.02f * (float)rng_normal(&rng);
    for (size_t i = 0; i < cap * 384; i++)
        b->d_out[i] = 0.01f * (rng_float(&rng) - 0.5f);
    for (size_t c = 0; c < COMPUTES; c++) {
        if (transformer_ready_new(
                &b->ready[c], &b->t, (enum transformer_compute)c) != OK)
            die("out of memory");
        transformer_ready_weights(b->ready[c], &b->t, b->params, NULL);
    }
}

/* The median seconds of a call in each way to compute, in turn. */
static void
encode_in_turn(struct bench *b, double out[COMPUTES])
{
    double took[COMPUTES][256], sum = 0;
    size_t n = 0, threads = pool_threads(b->pool);

    while ((sum < COMPUTES * budget || n < 4) && n < ARRAY_LEN(took[0])) {
        for (size_t c = 0; c < COMPUTES; c++) {
            b->now = b->ready[c];
            int64_t start = now_ns(threads);
            encode(b);
            took[c][n] = (double)(now_ns(threads) - start) * 1e-9;
            sum += took[c][n];
        }
        n++;
    }
    /* the first is warming up */
    for (size_t c = 0; c < COMPUTES; c++) {
        qsort(took[c] + 1, n - 1, sizeof *took[c], by_size);
        out[c] = took[c][1 + (n - 1) / 2];
    }
}

static void
bench_encode(struct bench *b, size_t threads, size_t L)
{
    double work = operations(&b->t, (double)L), took[COMPUTES], one[COMPUTES];
    size_t n = (size_t)tokens / L;

    lengths(b, n, L);
    encode_in_turn(b, took);
    if (threads == 1) {
        lengths(b, 1, L);
        encode_in_turn(b, one);
    }
    for (size_t c = 0; c < COMPUTES; c++) {
        double rate = (double)n / took[c];
        printf("threads %zu length %3zu %-4s: %7.1f sentences/s, %5.1f "
               "GFLOP/s, %3.0f%% of the peak, %.2f of f32",
            threads, L, names[c], rate, rate * work * 1e-9,
            rate * work * 1e-7 / (peak * (double)threads), took[0] / took[c]);
        if (threads == 1)
            printf("; one %.2f ms", one[c] * 1e3);
        printf("\n");
    }
}

/* Adds the seconds of the batch in each way to compute. */
static void
add_batch(struct bench *b, double took[COMPUTES])
{
    size_t threads = pool_threads(b->pool);

    for (size_t c = 0; c < COMPUTES; c++) {
        b->now = b->ready[c];
        int64_t start = now_ns(threads);
        encode(b);
        took[c] += (double)(now_ns(threads) - start) * 1e-9;
    }
}

static void
bench_mix(struct bench *b, size_t threads, const size_t *texts, size_t n)
{
    double work = 0, warm[COMPUTES] = {0}, took[COMPUTES] = {0};

    for (size_t i = 0; i < n; i++)
        work += operations(&b->t, (double)texts[i]);
    some_of(b, texts, n);
    add_batch(b, warm);
    for (size_t from = 0; from < n; from += b->batch.n) {
        some_of(b, texts + from, n - from);
        add_batch(b, took);
    }
    for (size_t c = 0; c < COMPUTES; c++)
        printf("threads %zu mix %-4s: %7.1f texts/s, %5.1f GFLOP/s, %3.0f%% "
               "of the peak, %.2f of f32\n",
            threads, names[c], (double)n / took[c], work / took[c] * 1e-9,
            work / took[c] * 1e-7 / (peak * (double)threads),
            took[0] / took[c]);
}

static void
bench_train(struct bench *b, size_t threads, size_t L)
{
    double work = operations(&b->t, (double)L);

    lengths(b, 2 * (size_t)pairs, L);
    double first = seconds(b, forward);
    double rate = pairs / seconds(b, step);
    printf("threads %zu length %3zu trains %6.1f pairs/s, %5.1f GFLOP/s, "
           "%.0f%% of it forward, tape %.0f MB\n",
        threads, L, rate, rate * 2 * 3 * work * 1e-9,
        first * rate / pairs * 100,
        (double)transformer_tape_bytes(b->tape) * 1e-6);
}

int
main(int argc, char **argv)
{
    static const size_t all[] = {16, 32, 128};
    struct bench b = {.pool = NULL};
    size_t *texts = NULL, n_texts = 0;

    for (int i = 1; i < argc; i++)
        read_option(argv[i]);
    if (mix != NULL)
        texts = read_mix(&n_texts);
    kern_init();
    open_bench(&b);
    if (!(peak > 0))
        peak = measure_peak();
    printf("kernels %s, peak of a core %.0f GFLOP/s in f32, weights",
        kern()->name, peak);
    for (size_t c = 0; c < COMPUTES; c++)
        printf(" %s %.1f MB", names[c],
            (double)transformer_ready_bytes(&b.t, (enum transformer_compute)c) *
                1e-6);
    printf("\n");
    for (size_t threads = 1; threads <= 2; threads++) {
        if (only_threads > 0 && (size_t)only_threads != threads)
            continue;
        if (pool_new(&b.pool, threads, false) != OK)
            die("no threads");
        if (mix != NULL)
            bench_mix(&b, threads, texts, n_texts);
        for (size_t i = 0; i < ARRAY_LEN(all) && mix == NULL; i++) {
            if (only_length > 0 && (size_t)only_length != all[i])
                continue;
            bench_encode(&b, threads, all[i]);
            if (train > 0)
                bench_train(&b, threads, all[i]);
            (void)fflush(stdout);
        }
        pool_free(b.pool);
    }
    free(texts);
    return 0;
}
