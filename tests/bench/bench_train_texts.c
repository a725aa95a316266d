/*
 * bench_train_texts.c - what a training run is worth and how fast it is, on
 * the library itself (the service on top: clients/kindred eval).
 *
 * usage: bench_train_texts pairs FILE.tsv [KEY=VALUE ...]
 *        bench_train_texts intents TRAIN.tsv TEST.tsv [KEY=VALUE ...]
 *
 * pairs: package, source, section, tags, summary, description, with a header.
 * Rows with a description, copies of a (summary, description) dropped; judged
 * are the sources with crc32 mod 10 = 0, trained on those with 2 to 9; 2,000
 * judged summaries against all descriptions (first 150 words).
 * intents: label, text. A pair is a text with a random other one of its label;
 * the figure is the share of test texts whose nearest train text has their
 * label. KEY=VALUE: lr epochs batch tau tokens features group seed dims buckets
 * positives (pairs of one text) refit ngram_max mechanism loss queue momentum
 * bank_sample decay micro; folder=DIR takes a published encoder (sentence-
 * transformers' layout) and its defaults
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "model/published.h"
#include "train/judge.h"
#include "train/loop.h"

#define MAX_ROWS 100000
#define JUDGED 2000

static struct pool *pool;
static char config[200] = "{}";
static bool refit = true;    /* take the texts' own document frequencies */
static const char *folder;   /* a published encoder; NULL: static */
static size_t positives = 4; /* pairs of one text, intents */

static void
die(const char *what)
{
    fprintf(stderr, "bench_train_texts: %s\n", what);
    exit(1);
}

static double
seconds_since(int64_t start_ns)
{
    return (double)(clock_mono_ns() - start_ns) * 1e-9;
}

static uint32_t
crc32_of(const char *s)
{
    uint32_t c = ~0u;
    for (; *s != '\0'; s++) {
        c ^= (unsigned char)*s;
        for (int i = 0; i < 8; i++)
            c = (c >> 1) ^ (0xEDB88320u & (0u - (c & 1)));
    }
    return ~c;
}

static struct encoder_input
first_words(const char *s, size_t n)
{
    const char *p = s;
    for (size_t w = 0; *p != '\0' && w < n; w++) {
        while (*p == ' ')
            p++;
        while (*p != '\0' && *p != ' ')
            p++;
    }
    return (struct encoder_input){.text = s, .len = (size_t)(p - s)};
}

static struct batch_side
key_text(struct encoder_input in)
{
    return (struct batch_side){
        .input = in, .key = hash_bytes(in.text, in.len, 1)};
}

static int
name_among(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    die(name);
    return 0;
}

static void
set_options(struct train_options *o, int argc, char **argv)
{
    char dims[40] = "512", buckets[40] = "65536", ngram_max[40] = "5";
    for (int i = 0; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL)
            die(argv[i]);
        *value++ = '\0';
        double v = atof(value);
        if (strcmp(argv[i], "lr") == 0)
            o->schedule.lr = (float)v;
        else if (strcmp(argv[i], "epochs") == 0)
            o->epochs = v;
        else if (strcmp(argv[i], "batch") == 0)
            o->batch = (size_t)v;
        else if (strcmp(argv[i], "tau") == 0)
            o->temperature = (float)v;
        else if (strcmp(argv[i], "tokens") == 0)
            o->token_dropout = (float)v;
        else if (strcmp(argv[i], "features") == 0)
            o->feature_dropout = (float)v;
        else if (strcmp(argv[i], "group") == 0)
            o->group_share = (float)v;
        else if (strcmp(argv[i], "refit") == 0)
            refit = v > 0;
        else if (strcmp(argv[i], "ngram_max") == 0)
            snprintf(ngram_max, sizeof ngram_max, "%s", value);
        else if (strcmp(argv[i], "positives") == 0)
            positives = (size_t)v;
        else if (strcmp(argv[i], "seed") == 0)
            o->seed = (uint64_t)v;
        else if (strcmp(argv[i], "dims") == 0)
            snprintf(dims, sizeof dims, "%s", value);
        else if (strcmp(argv[i], "loss") == 0)
            o->loss = (enum train_loss)name_among(
                train_loss_names, TRAIN_LOSSES, value);
        else if (strcmp(argv[i], "queue") == 0)
            o->queue = (size_t)v;
        else if (strcmp(argv[i], "momentum") == 0)
            o->momentum = (float)v;
        else if (strcmp(argv[i], "bank_sample") == 0)
            o->bank_sample = (size_t)v;
        else if (strcmp(argv[i], "micro") == 0)
            o->micro_batch = (size_t)v;
        else if (strcmp(argv[i], "decay") == 0)
            o->optimizer.weight_decay = (float)v;
        else if (strcmp(argv[i], "mechanism") == 0 ||
                 strcmp(argv[i], "folder") == 0)
            continue; /* the first to be set */
        else if (strcmp(argv[i], "buckets") == 0)
            snprintf(buckets, sizeof buckets, "%s", value);
        else
            die(argv[i]);
    }
    snprintf(
        config, sizeof config, "{\"dims\":%s,\"buckets\":%s}", dims, buckets);
}

struct walk {
    const struct encoder_input *texts;
    size_t i, n;
};

static bool
next_text(void *arg, struct encoder_input *text)
{
    struct walk *w = arg;
    if (w->i == w->n)
        return false;
    *text = w->texts[w->i++];
    return true;
}

static struct encoder *
new_encoder(const struct encoder_input *texts, size_t n)
{
    struct encoder *e;
    struct fault fault = {0};
    struct walk walk = {.texts = texts, .n = n};
    if (folder != NULL) {
        if (published_import(&e, folder, NULL, &fault) != OK)
            die(fault.detail);
        return e;
    }
    if (encoder_new(&e, "static", config, NULL, &fault) != OK)
        die(fault.detail);
    if (refit && encoder_refit(e, next_text, &walk) != OK)
        die("out of memory");
    return e;
}

static void
train(struct encoder *e, const struct batch_example *examples, size_t n,
    const struct train_options *o)
{
    struct train_result result;
    struct fault fault = {0};
    struct train_bank bank = {0};
    bool has_bank = o->mechanism == TRAIN_MEMORY_BANK;
    uint64_t *keys = NULL;
    if (has_bank) { /* the positives, as they are before training */
        struct encoder_input *inputs = mem_alloc(n, sizeof *inputs);
        keys = mem_alloc(n, sizeof *keys);
        bank.vectors = mem_alloc_aligned(n * encoder_dims(e), sizeof(float));
        bank.keys = keys;
        bank.n = n;
        if (inputs == NULL || keys == NULL || bank.vectors == NULL)
            die("out of memory");
        for (size_t i = 0; i < n; i++) {
            inputs[i] = examples[i].positive.input;
            keys[i] = examples[i].positive.key;
        }
        if (encoder_encode(e, inputs, n, bank.vectors, NULL, pool) != OK)
            die("out of memory");
        mem_free(inputs);
    }
    int64_t start = clock_mono_ns();
    if (train_run(e, examples, n, o, has_bank ? &bank : NULL, NULL, pool, NULL,
            NULL, &result, &fault) != OK)
        die(fault.detail);
    double s = seconds_since(start);
    printf("trained: %zu examples, %zu steps, %.1f s, %.0f pairs/s, loss "
           "%.3f\n",
        n, result.n_steps, s, (double)(result.n_steps * MIN(o->batch, n)) / s,
        result.loss);
    mem_free(bank.vectors);
    mem_free(keys);
}

/* ---------------------------------------------------------------- pairs */

struct package {
    char *source;
    struct encoder_input summary, description;
};

static size_t
load_packages(const char *path, struct package *rows)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0, n = 0;
    ssize_t len;
    uint64_t *seen = mem_calloc(1 << 20, sizeof *seen);
    if (f == NULL || seen == NULL)
        die(path);
    (void)!getline(&line, &cap, f);
    while ((len = getline(&line, &cap, f)) > 0 && n < MAX_ROWS) {
        char *column[6] = {0};
        char *p = line;
        if (line[len - 1] == '\n')
            line[len - 1] = '\0';
        for (int i = 0; i < 6 && p != NULL; i++) {
            column[i] = p;
            p = strchr(p, '\t');
            if (p != NULL)
                *p++ = '\0';
        }
        if (column[5] == NULL || column[4][0] == '\0' || column[5][0] == '\0')
            continue;
        uint64_t key = hash_bytes(column[4], strlen(column[4]), 1) ^
                       (3 * hash_bytes(column[5], strlen(column[5]), 2));
        size_t s = key & ((1 << 20) - 1);
        while (seen[s] != 0 && seen[s] != key)
            s = (s + 1) & ((1 << 20) - 1);
        if (seen[s] == key)
            continue;
        seen[s] = key;
        rows[n].source = mem_strdup(column[1]);
        char *summary = mem_strdup(column[4]);
        rows[n].summary =
            (struct encoder_input){.text = summary, .len = strlen(summary)};
        rows[n].description = first_words(mem_strdup(column[5]), 150);
        n++;
    }
    free(line);
    fclose(f);
    mem_free(seen);
    return n;
}

static void
judge_packages(const struct encoder *e, const struct encoder_input *items,
    size_t n, const struct encoder_input *queries,
    const struct judge_question *questions, size_t n_queries, const char *tag)
{
    size_t D = encoder_dims(e);
    float *X = mem_alloc_aligned(n * D, sizeof *X);
    float *Q = mem_alloc_aligned(n_queries * D, sizeof *Q);
    uint32_t *ords = mem_alloc(n, sizeof *ords);
    struct ann *index;
    struct judge_ranks ranks;
    if (X == NULL || Q == NULL || ords == NULL)
        die("out of memory");
    int64_t start = clock_mono_ns();
    if (encoder_encode(e, items, n, X, NULL, pool) != OK)
        die("out of memory");
    double long_s = seconds_since(start);
    start = clock_mono_ns();
    if (encoder_encode(e, queries, n_queries, Q, NULL, pool) != OK)
        die("out of memory");
    double short_s = seconds_since(start);
    for (size_t i = 0; i < n; i++)
        ords[i] = (uint32_t)i;
    if (ann_new(&index, D, NULL) != OK ||
        ann_put_many(index, ords, X, n) != OK ||
        judge_rank(&ranks, index, Q, questions, n_queries, false, pool) != OK)
        die("out of memory");
    printf("%-10s nDCG@10 %.4f  MRR@10 %.4f  recall@1 %.4f  @10 %.4f  @100 "
           "%.4f | %.0f descriptions/s, %.0f summaries/s\n",
        tag, judge_mean(&ranks, JUDGE_NDCG_10),
        judge_mean(&ranks, JUDGE_MRR_10), judge_mean(&ranks, JUDGE_RECALL_1),
        judge_mean(&ranks, JUDGE_RECALL_10),
        judge_mean(&ranks, JUDGE_RECALL_100), (double)n / long_s,
        (double)n_queries / short_s);
    fflush(stdout);
    judge_ranks_release(&ranks);
    ann_free(index);
    mem_free(X);
    mem_free(Q);
    mem_free(ords);
}

static void
bench_pairs(const char *path, const struct train_options *o)
{
    struct package *rows = mem_calloc(MAX_ROWS, sizeof *rows);
    size_t n = load_packages(path, rows);
    struct encoder_input *items = mem_alloc(n, sizeof *items);
    struct encoder_input *queries = mem_alloc(n, sizeof *queries);
    uint32_t *relevant = mem_alloc(n, sizeof *relevant);
    struct judge_question *questions = mem_calloc(n, sizeof *questions);
    struct batch_example *examples = mem_calloc(n, sizeof *examples);
    size_t n_judged = 0, n_examples = 0;
    struct rng rng;

    for (size_t i = 0; i < n; i++) {
        uint32_t split = crc32_of(rows[i].source) % 10;
        items[i] = rows[i].description;
        if (split == 0)
            relevant[n_judged++] = (uint32_t)i;
        if (split >= 2)
            examples[n_examples++] = (struct batch_example){
                .anchor = key_text(rows[i].summary),
                .positive = key_text(rows[i].description),
                .weight = 1,
                .group = hash_bytes(rows[i].source, strlen(rows[i].source), 7)};
    }
    rng_seed(&rng, 5);
    rng_shuffle_u32(&rng, relevant, n_judged);
    n_judged = MIN(n_judged, (size_t)JUDGED);
    for (size_t i = 0; i < n_judged; i++) {
        queries[i] = rows[relevant[i]].summary;
        questions[i] = (struct judge_question){
            .relevant = &relevant[i], .n_relevant = 1, .skip = ANN_NONE};
    }
    printf("%zu descriptions, %zu train pairs, %zu judged\n", n, n_examples,
        n_judged);
    struct encoder *e = new_encoder(items, n);
    judge_packages(e, items, n, queries, questions, n_judged, "untrained");
    train(e, examples, n_examples, o);
    judge_packages(e, items, n, queries, questions, n_judged, "trained");
    /* all summaries, for a steady encoding figure */
    for (size_t i = 0; i < n; i++)
        queries[i] = rows[i].summary;
    float *X = mem_alloc_aligned(n * encoder_dims(e), sizeof *X);
    for (int tries = 0; tries < 3 && X != NULL; tries++) {
        int64_t start = clock_mono_ns();
        if (encoder_encode(e, queries, n, X, NULL, pool) != OK)
            die("out of memory");
        printf("all summaries: %.0f/s\n", (double)n / seconds_since(start));
    }
    mem_free(X);
    encoder_free(e);
}

/* -------------------------------------------------------------- intents */

struct intents {
    char **label;
    struct encoder_input *text;
    size_t n;
};

static void
load_intents(struct intents *out, const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    if (f == NULL)
        die(path);
    out->label = mem_alloc(MAX_ROWS, sizeof *out->label);
    out->text = mem_alloc(MAX_ROWS, sizeof *out->text);
    while ((len = getline(&line, &cap, f)) > 0 && out->n < MAX_ROWS) {
        char *tab = strchr(line, '\t');
        if (tab == NULL)
            continue;
        if (line[len - 1] == '\n')
            line[len - 1] = '\0';
        *tab = '\0';
        out->label[out->n] = mem_strdup(line);
        char *text = mem_strdup(tab + 1);
        out->text[out->n++] =
            (struct encoder_input){.text = text, .len = strlen(text)};
    }
    free(line);
    fclose(f);
}

static void
judge_intents(const struct encoder *e, const struct intents *train_set,
    const struct intents *test, const char *tag)
{
    size_t D = encoder_dims(e);
    float *X = mem_alloc_aligned(train_set->n * D, sizeof *X);
    float *Q = mem_alloc_aligned(test->n * D, sizeof *Q);
    size_t hits = 0;
    if (X == NULL || Q == NULL ||
        encoder_encode(e, train_set->text, train_set->n, X, NULL, pool) != OK ||
        encoder_encode(e, test->text, test->n, Q, NULL, pool) != OK)
        die("out of memory");
    for (size_t i = 0; i < test->n; i++) {
        float best = -2;
        size_t at = 0;
        for (size_t j = 0; j < train_set->n; j++) {
            float s = kern()->dot_f32(Q + i * D, X + j * D, D);
            if (s > best) {
                best = s;
                at = j;
            }
        }
        hits += strcmp(test->label[i], train_set->label[at]) == 0;
    }
    printf("%-10s 1-NN accuracy %.4f\n", tag, (double)hits / (double)test->n);
    fflush(stdout);
    mem_free(X);
    mem_free(Q);
}

static void
bench_intents(const char *train_path, const char *test_path,
    const struct train_options *o)
{
    struct intents train_set = {0}, test = {0};
    load_intents(&train_set, train_path);
    load_intents(&test, test_path);
    struct batch_example *examples =
        mem_calloc(train_set.n * positives, sizeof *examples);
    size_t n = 0;
    struct rng rng;
    rng_seed(&rng, 9);
    for (size_t i = 0; i < train_set.n; i++) {
        for (size_t found = 0, tries = 0; found < positives && tries < 100000;
             tries++) {
            size_t j = (size_t)rng_below(&rng, train_set.n);
            if (i == j || strcmp(train_set.label[i], train_set.label[j]) != 0)
                continue;
            examples[n++] =
                (struct batch_example){.anchor = key_text(train_set.text[i]),
                    .positive = key_text(train_set.text[j]),
                    .label = hash_bytes(
                        train_set.label[i], strlen(train_set.label[i]), 2),
                    .weight = 1};
            found++;
        }
    }
    struct encoder *e = new_encoder(train_set.text, train_set.n);
    judge_intents(e, &train_set, &test, "untrained");
    train(e, examples, n, o);
    judge_intents(e, &train_set, &test, "trained");
    encoder_free(e);
}

int
main(int argc, char **argv)
{
    struct train_options o;
    enum train_mechanism mechanism = TRAIN_IN_BATCH;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "mechanism=", 10) == 0)
            mechanism = (enum train_mechanism)name_among(
                train_mechanism_names, TRAIN_MECHANISMS, argv[i] + 10);
        else if (strncmp(argv[i], "folder=", 7) == 0)
            folder = argv[i] + 7;
    train_options_default(&o, TRAIN_PAIRS, mechanism, ENCODER_READS_TEXT, 0);
    if (folder != NULL)
        train_options_pretrained(&o);
    kern_init();
    if (pool_new(&pool, 2, false) != OK)
        die("no threads");
    if (argc >= 3 && strcmp(argv[1], "pairs") == 0) {
        set_options(&o, argc - 3, argv + 3);
        bench_pairs(argv[2], &o);
    } else if (argc >= 4 && strcmp(argv[1], "intents") == 0) {
        set_options(&o, argc - 4, argv + 4);
        bench_intents(argv[2], argv[3], &o);
    } else {
        die("usage: pairs FILE.tsv | intents TRAIN.tsv TEST.tsv");
    }
    pool_free(pool);
    return 0;
}
