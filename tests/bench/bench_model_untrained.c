/*
 * bench_model_untrained.c - what the default encoder is worth before any
 * training: nDCG@10 and recall@100 on retrieval folders.
 *
 * usage: bench_model_untrained FOLDER [CONFIG_JSON [refit]]
 *
 * FOLDER holds corpus.jsonl {id,title,text}, queries.jsonl {id,text} and
 * qrels.tsv (query, document, relevance). The mean over 8 seeds is printed:
 * random rows make one seed's figure noisy. With "refit" the weights come
 * from the corpus' own document frequencies instead of the built-in ones.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/pool.h"
#include "kern/kern.h"
#include "model/encoder.h"

#define N_SEEDS 8

struct texts {
    char **id;
    struct encoder_input *text;
    size_t n;
};

static void
die(const char *what)
{
    fprintf(stderr, "bench_model_untrained: %s\n", what);
    exit(1);
}

static void
load_texts(struct texts *out, const char *folder, const char *file)
{
    char path[4096];
    char *line = NULL;
    size_t cap = 0, room = 0;
    ssize_t len;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        die(path);
    while ((len = getline(&line, &cap, f)) > 0) {
        struct json *tree;
        const char *id = "", *title = "", *text = "";
        size_t n_id = 0, n_title = 0, n_text = 0;
        if (json_parse(line, (size_t)len, 1 << 24, &tree, NULL) != OK)
            die("malformed line");
        if (json_get_str(tree, "", "id", JSON_REQUIRED, &id, &n_id, NULL) != OK)
            die("a line without id");
        (void)!json_get_str(
            tree, "", "title", JSON_OPTIONAL, &title, &n_title, NULL);
        (void)!json_get_str(
            tree, "", "text", JSON_OPTIONAL, &text, &n_text, NULL);
        if (out->n == room) {
            room = room * 2 + 1024;
            out->id = mem_realloc(out->id, room, sizeof *out->id);
            out->text = mem_realloc(out->text, room, sizeof *out->text);
        }
        char *whole = mem_alloc(n_title + n_text + 2, 1);
        if (whole == NULL || out->id == NULL || out->text == NULL)
            die("out of memory");
        memcpy(whole, title, n_title);
        whole[n_title] = '\n';
        memcpy(whole + n_title + 1, text, n_text);
        out->id[out->n] = mem_strndup(id, n_id);
        out->text[out->n++] =
            (struct encoder_input){.text = whole, .len = n_title + 1 + n_text};
        json_free(tree);
    }
    free(line);
    fclose(f);
}

static size_t
find(const struct texts *t, const char *id)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->id[i], id) == 0)
            return i;
    }
    return SIZE_MAX;
}

static float *
load_gains(const char *folder, const struct texts *q, const struct texts *d)
{
    char path[4096], a[256], b[256];
    float gain;
    float *G = mem_calloc(q->n * d->n, sizeof *G);
    snprintf(path, sizeof path, "%s/qrels.tsv", folder);
    FILE *f = fopen(path, "r");
    if (f == NULL || G == NULL)
        die(path);
    while (fscanf(f, "%255s %255s %f", a, b, &gain) == 3) {
        size_t i = find(q, a), j = find(d, b);
        if (i != SIZE_MAX && j != SIZE_MAX)
            G[i * d->n + j] = gain;
    }
    fclose(f);
    return G;
}

static int
compare_down(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x < *y) - (*x > *y);
}

struct scored {
    float score, gain;
};

/* nDCG@10 and recall@100 of one query's scored documents. */
static void
judge(struct scored *s, size_t n, float *gains, double *ndcg, double *recall)
{
    double dcg = 0, ideal = 0, found = 0, all = 0;
    qsort(s, n, sizeof *s, compare_down);
    for (size_t i = 0; i < n; i++)
        gains[i] = s[i].gain;
    for (size_t i = 0; i < n; i++) {
        if (i < 10)
            dcg += (double)gains[i] / log2((double)i + 2);
        found += i < 100 && gains[i] > 0;
        all += gains[i] > 0;
    }
    qsort(gains, n, sizeof *gains, compare_down);
    for (size_t i = 0; i < MIN(n, (size_t)10); i++)
        ideal += (double)gains[i] / log2((double)i + 2);
    *ndcg += ideal > 0 ? dcg / ideal : 0;
    *recall += all > 0 ? found / all : 0;
}

struct walk {
    const struct texts *texts;
    size_t i;
};

static bool
next_text(void *arg, struct encoder_input *text)
{
    struct walk *w = arg;
    if (w->i == w->texts->n)
        return false;
    *text = w->texts->text[w->i++];
    return true;
}

int
main(int argc, char **argv)
{
    struct texts docs = {0}, queries = {0};
    struct pool *pool = NULL;
    double ndcg = 0, recall = 0;
    const char *config = argc > 2 ? argv[2] : "{}";

    if (argc < 2)
        die("usage: bench_model_untrained FOLDER [CONFIG_JSON [refit]]");
    kern_init();
    load_texts(&docs, argv[1], "corpus.jsonl");
    load_texts(&queries, argv[1], "queries.jsonl");
    float *G = load_gains(argv[1], &queries, &docs);
    if (pool_new(&pool, 2, false) != OK)
        die("no threads");
    struct scored *scored = mem_alloc(docs.n, sizeof *scored);
    float *gains = mem_alloc(docs.n, sizeof *gains);
    for (int seed = 0; seed < N_SEEDS; seed++) {
        char with_seed[4200];
        struct encoder *e;
        struct fault fault = {0};
        snprintf(with_seed, sizeof with_seed, "%.*s%s\"seed\":%d}",
            (int)strlen(config) - 1, config, strlen(config) > 2 ? "," : "",
            seed + 1);
        if (encoder_new(&e, "static", with_seed, NULL, &fault) != OK)
            die(fault.detail);
        struct walk walk = {.texts = &docs};
        if (argc > 3 && encoder_refit(e, next_text, &walk) != OK)
            die("out of memory");
        size_t D = encoder_dims(e);
        float *X = mem_alloc_aligned(docs.n * D, sizeof *X);
        float *Q = mem_alloc_aligned(queries.n * D, sizeof *Q);
        if (X == NULL || Q == NULL || scored == NULL || gains == NULL ||
            encoder_encode(e, docs.text, docs.n, X, NULL, pool) != OK ||
            encoder_encode(e, queries.text, queries.n, Q, NULL, pool) != OK)
            die("out of memory");
        for (size_t i = 0; i < queries.n; i++) {
            for (size_t j = 0; j < docs.n; j++)
                scored[j] =
                    (struct scored){kern()->dot_f32(Q + i * D, X + j * D, D),
                        G[i * docs.n + j]};
            judge(scored, docs.n, gains, &ndcg, &recall);
        }
        mem_free(X);
        mem_free(Q);
        encoder_free(e);
    }
    double n = (double)queries.n * N_SEEDS;
    printf("%s %s: %zu documents, %zu queries, nDCG@10 %.4f, "
           "recall@100 %.4f (mean of %d seeds)\n",
        argv[1], config, docs.n, queries.n, ndcg / n, recall / n, N_SEEDS);
    pool_free(pool);
    return 0;
}
