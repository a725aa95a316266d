/*
 * bench_transformer_quality.c - what linear layers in bf16 and int8 cost in
 * quality, on a published encoder.
 *
 * usage: KINDRED_DATA=FOLDER bench_transformer_quality [THREADS]
 *
 * Below FOLDER: models/use-lite (model.safetensors, vocab.tsv), stsb/dev.tsv
 * (score, two texts) and banking77/{train,test}.tsv (label, text). A line is
 * a way to compute: Pearson's correlation of scores and cosines on STS-B's dev
 * split; how many test texts of BANKING77 have a nearest train text of their
 * label; the mean and the largest cosine distance from the vectors in f32 over
 * the texts of both; bytes of the packed weights; seconds for all texts.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fsio.h"
#include "kern/gemm.h"
#include "tests/golden/use_lite.h"
#include "text/tokenizer.h"

#define TEXTS_MAX 20000
#define PIECES_MAX 8000
#define BATCH 512
#define QUERIES 64 /* at a time */

struct text {
    const char *s, *label; /* label, or NULL: a text of STS-B */
    size_t len, label_len;
    double score; /* of an STS-B pair, at its first text */
};

static struct text texts[TEXTS_MAX];
static size_t n_texts;

static void
die(const char *what)
{
    (void)fprintf(stderr, "bench_transformer_quality: %s\n", what);
    exit(1);
}

static void
read_data(struct buf *out, const char *name)
{
    const char *data = getenv("KINDRED_DATA");
    char path[4096];

    (void)snprintf(path, sizeof path, "%s/%s", data == NULL ? "" : data, name);
    buf_init(out, (size_t)64 << 20);
    if (data == NULL || fsio_read(path, out, NULL) != OK)
        die("KINDRED_DATA does not name a folder with the data");
}

static struct tokenizer *
read_tokenizer(void)
{
    static struct tokenizer_piece pieces[PIECES_MAX];
    struct tokenizer *t = NULL;
    struct buf file;
    size_t n = 0;

    read_data(&file, "models/use-lite/vocab.tsv");
    for (char *s = file.data; *s != '\0' && n < PIECES_MAX; n++) {
        pieces[n].id = (uint32_t)strtoul(s, &s, 10);
        pieces[n].s = ++s;
        s += strcspn(s, "\t");
        pieces[n].len = (size_t)(s - pieces[n].s);
        pieces[n].score = strtod(s, &s);
        pieces[n].hidden = pieces[n].id < 6;
        s += *s == '\n';
    }
    if (tokenizer_from_pieces(pieces, n, 0, &t, NULL) != OK)
        die("vocab.tsv is not a vocabulary");
    buf_release(&file);
    return t;
}

/* The fields of a line, and the next line. */
static const char *
split(const char *line, const char *field[3], size_t len[3])
{
    for (size_t i = 0; i < 3; i++) {
        field[i] = line;
        len[i] = strcspn(line, "\t\n");
        line += len[i];
        line += *line == '\t';
    }
    return line + (*line == '\n');
}

static void
add_text(const char *s, size_t len, const char *label, size_t label_len,
    double score)
{
    if (n_texts == TEXTS_MAX)
        die("too many texts");
    texts[n_texts++] = (struct text){s, label, len, label_len, score};
}

/* The texts stay in file; how many. */
static size_t
read_texts(struct buf *file, const char *name, bool pairs)
{
    size_t first = n_texts, len[3];
    const char *field[3], *line;

    read_data(file, name);
    line = split(file->data, field, len);
    while (*line != '\0') {
        line = split(line, field, len);
        if (pairs) {
            double score = strtod(field[0], NULL);
            add_text(field[1], len[1], NULL, 0, score);
            add_text(field[2], len[2], NULL, 0, 0);
        } else {
            add_text(field[1], len[1], field[0], len[0], 0);
        }
    }
    return n_texts - first;
}

static void
encode(const struct transformer *t, const float *params,
    enum transformer_compute compute, const struct tokenizer *tokenizer,
    struct pool *pool, float *out)
{
    static uint32_t ids[BATCH * LITE_TOKENS];
    size_t offsets[BATCH + 1] = {0}, full;
    struct tokenizer_workspace *space = tokenizer_workspace_new();
    struct transformer_ready *ready = NULL;
    struct transformer_work *work = NULL;

    if (space == NULL || transformer_ready_new(&ready, t, compute) != OK ||
        transformer_work_new(&work) != OK)
        die("out of memory");
    transformer_ready_weights(ready, t, params, pool);
    for (size_t at = 0; at < n_texts; at += BATCH) {
        struct transformer_batch batch = {
            ids, offsets, MIN(n_texts - at, (size_t)BATCH)};

        for (size_t i = 0; i < batch.n; i++) {
            size_t n;
            if (tokenizer_encode(tokenizer, texts[at + i].s, texts[at + i].len,
                    LITE_TOKENS, space, ids + offsets[i], &n, &full) != OK)
                die("a text cannot be tokenized");
            offsets[i + 1] = offsets[i] + n;
        }
        if (transformer_encode(t, params, ready, work, &batch,
                out + at * LITE_DIMS, pool) != OK)
            die("out of memory");
    }
    transformer_work_free(work);
    transformer_ready_free(ready);
    tokenizer_workspace_free(space);
}

static double
cosine(const float *a, const float *b)
{
    double ab = kern()->dot_f64(a, b, LITE_DIMS);
    double aa = kern()->dot_f64(a, a, LITE_DIMS);
    double bb = kern()->dot_f64(b, b, LITE_DIMS);

    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

/* Of the first n texts, which are pairs. */
static double
pearson(const float *v, size_t n)
{
    double x = 0, y = 0, xx = 0, yy = 0, xy = 0, m = (double)(n / 2);

    for (size_t i = 0; i < n; i += 2) {
        double c = cosine(v + i * LITE_DIMS, v + (i + 1) * LITE_DIMS);
        x += c;
        y += texts[i].score;
        xx += c * c;
        yy += texts[i].score * texts[i].score;
        xy += c * texts[i].score;
    }
    return (xy - x * y / m) / sqrt((xx - x * x / m) * (yy - y * y / m));
}

/* Of the queries behind the items: the share whose nearest has their label. */
static double
nearest(const float *v, size_t first, size_t n_items, size_t n_queries)
{
    float *sim = malloc(QUERIES * n_items * sizeof *sim);
    size_t right = 0;

    if (sim == NULL)
        die("out of memory");
    for (size_t at = 0; at < n_queries; at += QUERIES) {
        size_t n = MIN(n_queries - at, (size_t)QUERIES);

        gemm_f32(sim, n_items, v + (first + n_items + at) * LITE_DIMS,
            LITE_DIMS, false, v + first * LITE_DIMS, LITE_DIMS, true, n,
            n_items, LITE_DIMS, 1, 0);
        for (size_t i = 0; i < n; i++) {
            const struct text *query = &texts[first + n_items + at + i];
            const struct text *best = &texts[first];
            const float *row = sim + i * n_items;
            float top = row[0];
            for (size_t j = 1; j < n_items; j++)
                if (row[j] > top) {
                    top = row[j];
                    best = &texts[first + j];
                }
            right += best->label_len == query->label_len &&
                     memcmp(best->label, query->label, best->label_len) == 0;
        }
    }
    free(sim);
    return (double)right / (double)n_queries;
}

int
main(int argc, char **argv)
{
    static const char *const names[] = {"f32", "bf16", "int8"};
    struct buf weights, files[3];
    struct transformer t;
    struct pool *pool;

    kern_init();
    struct tokenizer *tokenizer = read_tokenizer();
    size_t n_pairs = read_texts(&files[0], "stsb/dev.tsv", true);
    size_t n_items = read_texts(&files[1], "banking77/train.tsv", false);
    size_t n_queries = read_texts(&files[2], "banking77/test.tsv", false);
    read_data(&weights, "models/use-lite/model.safetensors");
    float *params = lite_load(&t, &weights);
    float *out = malloc(2 * n_texts * LITE_DIMS * sizeof *out);
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    if (out == NULL || pool_new(&pool, MAX(threads, (size_t)1), false) != OK)
        die("out of memory");
    (void)printf("kernels %s; STS-B dev %zu pairs, BANKING77 %zu in %zu\n",
        kern()->name, n_pairs / 2, n_queries, n_items);
    for (size_t c = 0; c < ARRAY_LEN(names); c++) {
        float *v = out + (c == 0 ? 0 : n_texts * LITE_DIMS);
        double far, sum = 0, most = 0;
        int64_t start = clock_mono_ns();

        encode(&t, params, (enum transformer_compute)c, tokenizer, pool, v);
        double took = (double)(clock_mono_ns() - start) * 1e-9;
        for (size_t i = 0; i < n_texts; i++) {
            far = 1 - cosine(v + i * LITE_DIMS, out + i * LITE_DIMS);
            sum += far;
            most = fmax(most, far);
        }
        (void)printf("%-4s  Pearson %.4f  1-NN %.4f  distance %.1e mean %.1e "
                     "most  weights %.1f MB  %.1f s\n",
            names[c], pearson(v, n_pairs),
            nearest(v, n_pairs, n_items, n_queries), sum / (double)n_texts,
            most,
            (double)transformer_ready_bytes(&t, (enum transformer_compute)c) *
                1e-6,
            took);
        (void)fflush(stdout);
    }
    free(out);
    free(params);
    buf_release(&weights);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        buf_release(&files[i]);
    tokenizer_free(tokenizer);
    pool_free(pool);
    return 0;
}
