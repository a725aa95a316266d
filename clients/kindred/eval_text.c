/* Tasks about pairs of texts and their labels: similarity and intents. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/rng.h"
#include "eval.h"
#include "http.h"
#include "settings.h"
#include "term.h"

#define EMBED_BATCH 128

/* ---- similarity ---------------------------------------------------------- */

/* Vectors of the texts as [n, *dims], one block the caller frees. */
static int
embed_texts(struct eval *eval, const json_t *texts, float **out, size_t *dims)
{
    size_t n = json_array_size(texts);
    float *block = NULL;
    struct progress progress;
    int rc = EXIT_DONE;
    *dims = 0;
    progress_start(&progress, "texts");
    for (size_t from = 0; from < n && rc == EXIT_DONE; from += EMBED_BATCH) {
        size_t to = from + EMBED_BATCH < n ? from + EMBED_BATCH : n;
        json_t *input = json_array();
        json_t *body = json_object();
        json_t *answer = NULL;
        for (size_t i = from; i < to; i++)
            json_array_append(input, json_array_get(texts, i));
        json_object_set_new(body, "model", json_string(eval->name));
        json_object_set_new(body, "input", input);
        json_object_set_new(body, "encoding_format", json_string("base64"));
        rc = http_json(
            eval->cli->http, "POST", "/v1/embeddings", body, &answer, NULL);
        const json_t *data = json_object_get(answer, "data");
        for (size_t i = from; i < to && rc == EXIT_DONE; i++) {
            const json_t *row = json_array_get(data, i - from);
            const char *text =
                json_string_value(json_object_get(row, "embedding"));
            size_t len = text != NULL ? strlen(text) : 0;
            size_t got = 0;
            if (*dims == 0 && len > 0) {
                *dims = len / 4 * 3 / sizeof(float);
                block = must_calloc(n * *dims, sizeof(*block));
            }
            if (len == 0 ||
                base64_decode(text, len, block + i * *dims,
                    *dims * sizeof(float), &got) != OK ||
                got != *dims * sizeof(float)) {
                complain("the embedding of text %zu is not what was asked "
                         "for",
                    i + 1);
                rc = EXIT_REFUSED;
            }
        }
        json_decref(answer);
        json_decref(body);
        char tail[64];
        snprintf(tail, sizeof(tail), "%zu of %zu", to, n);
        progress_show(&progress, (double)to / (double)n, tail, false);
    }
    progress_clear();
    if (rc != EXIT_DONE) {
        mem_free(block);
        return rc;
    }
    *out = block;
    return rc;
}

static double
cosine(const float *a, const float *b, size_t n)
{
    double ab = 0.0;
    double aa = 0.0;
    double bb = 0.0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0.0 && bb > 0.0 ? ab / sqrt(aa * bb) : 0.0;
}

int
eval_sts(struct eval *eval, const char *file)
{
    json_t *texts = json_array();
    double *gold = NULL;
    double *made = NULL;
    float *vectors = NULL;
    size_t n = 0;
    size_t dims = 0;
    struct buf line;
    int rc = EXIT_REFUSED;
    buf_init(&line, INPUT_RECORD_MAX * 2);
    struct lines *lines = lines_open(file);
    if (lines == NULL) {
        complain("%s: %s", file, strerror(errno));
        goto out;
    }
    enum input_got got;
    while ((got = lines_next(lines, &line)) == INPUT_RECORD) {
        char *fields[4];
        char *end = NULL;
        if (line.len == 0)
            continue;
        if (eval->opts->limit != ARGS_INT_UNSET &&
            (long long)n >= eval->opts->limit)
            break;
        size_t n_fields = tsv_split(line.data, fields, ARRAY_LEN(fields));
        double score = strtod(fields[0], &end);
        if (end == fields[0] && lines_number(lines) == 1)
            continue; /* the heading */
        json_t *a = n_fields >= 3 ? json_string(fields[1]) : NULL;
        json_t *b = n_fields >= 3 ? json_string(fields[2]) : NULL;
        if (end == fields[0] || a == NULL || b == NULL) {
            complain("%s:%llu: not score, text, text in UTF-8", file,
                (unsigned long long)lines_number(lines));
            json_decref(a);
            json_decref(b);
            goto out;
        }
        gold = must_realloc(gold, n + 1, sizeof(*gold));
        gold[n++] = score;
        json_array_append_new(texts, a);
        json_array_append_new(texts, b);
    }
    if (got == INPUT_FAILED)
        goto out;
    if (n < 2) {
        complain("%s: fewer than two pairs", file);
        goto out;
    }
    rc = eval_begin(eval);
    if (rc == EXIT_DONE)
        rc = embed_texts(eval, texts, &vectors, &dims);
    if (rc != EXIT_DONE)
        goto out;
    made = must_alloc(n, sizeof(*made));
    for (size_t i = 0; i < n; i++)
        made[i] =
            cosine(vectors + 2 * i * dims, vectors + (2 * i + 1) * dims, dims);
    eval_add_figure(eval, "Spearman",
        measure_correlation(measure_spearman, gold, made, n, EVAL_SEED));
    eval_add_figure(eval, "Pearson",
        measure_correlation(measure_pearson, gold, made, n, EVAL_SEED));
    eval->n_queries = n;
out:
    lines_close(lines);
    buf_release(&line);
    json_decref(texts);
    mem_free(gold);
    mem_free(made);
    mem_free(vectors);
    return rc;
}

/* ---- intents ------------------------------------------------------------- */

struct intent {
    const json_t *labels;
    double *right;
};

static void
on_nearest(void *arg, size_t query_i, const json_t *hits)
{
    struct intent *intent = arg;
    const char *label =
        json_string_value(json_array_get(intent->labels, query_i));
    const char *found = json_string_value(json_object_get(
        json_object_get(json_array_get(hits, 0), "metadata"), "label"));
    intent->right[query_i] =
        found != NULL && strcmp(found, label) == 0 ? 1.0 : 0.0;
}

/* label, text with or without a heading; line numbers beside if asked for. */
static int
labelled_read(const char *file, long long limit, json_t *labels, json_t *texts,
    json_t *numbers)
{
    struct buf line;
    struct lines *lines = lines_open(file);
    if (lines == NULL) {
        complain("%s: %s", file, strerror(errno));
        return EXIT_REFUSED;
    }
    enum input_got got;
    buf_init(&line, INPUT_RECORD_MAX * 2);
    while ((got = lines_next(lines, &line)) == INPUT_RECORD) {
        char *fields[3];
        if (line.len == 0)
            continue;
        if (limit != ARGS_INT_UNSET &&
            (long long)json_array_size(labels) >= limit)
            break;
        size_t n = tsv_split(line.data, fields, ARRAY_LEN(fields));
        if (lines_number(lines) == 1 && n >= 2 &&
            strcmp(fields[0], "label") == 0)
            continue;
        json_t *label = n >= 2 ? json_string(fields[0]) : NULL;
        json_t *text = n >= 2 ? json_string(fields[1]) : NULL;
        if (label == NULL || text == NULL) {
            complain("%s:%llu: not label, text in UTF-8", file,
                (unsigned long long)lines_number(lines));
            json_decref(label);
            json_decref(text);
            got = INPUT_FAILED;
            break;
        }
        json_array_append_new(labels, label);
        json_array_append_new(texts, text);
        if (numbers != NULL)
            json_array_append_new(
                numbers, json_integer((json_int_t)lines_number(lines)));
    }
    buf_release(&line);
    lines_close(lines);
    return got == INPUT_FAILED ? EXIT_REFUSED : EXIT_DONE;
}

/* Write pairs of training items that share a label, in random order. */
static void
pairs_write(
    FILE *file, const json_t *labels, const json_t *numbers, long long rounds)
{
    size_t n = json_array_size(labels);
    uint32_t *order = must_alloc(n + 1, sizeof(*order));
    size_t *next = must_alloc(n + 1, sizeof(*next));
    struct rng rng;
    rng_seed(&rng, EVAL_SEED);
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (long long r = 0; r < rounds; r++) {
        /* Each text with the one of its label that came before it in this
           round's order; the first of a label with the last. */
        json_t *first = json_object();
        json_t *last = json_object();
        rng_shuffle_u32(&rng, order, n);
        for (size_t j = 0; j < n; j++) {
            size_t i = order[j];
            const char *label = json_string_value(json_array_get(labels, i));
            const json_t *before = json_object_get(last, label);
            if (before != NULL)
                next[json_integer_value(before)] = i;
            else
                json_object_set_new(first, label, json_integer((json_int_t)i));
            json_object_set_new(last, label, json_integer((json_int_t)i));
        }
        const char *label;
        json_t *end;
        json_object_foreach(last, label, end) next[json_integer_value(end)] =
            (size_t)json_integer_value(json_object_get(first, label));
        for (size_t j = 0; j < n; j++) {
            size_t i = order[j];
            if (next[i] == i)
                continue;
            fprintf(file,
                "{\"anchor\":{\"id\":\"train-%lld\"},"
                "\"positive\":{\"id\":\"train-%lld\"}}\n",
                (long long)json_integer_value(json_array_get(numbers, i)),
                (long long)json_integer_value(
                    json_array_get(numbers, next[i])));
        }
        json_decref(first);
        json_decref(last);
    }
    mem_free(order);
    mem_free(next);
}

/* Pairs from the labels, then one round of training. */
static int
intent_learn(struct eval *eval, const json_t *labels, const json_t *numbers)
{
    const char *folder = getenv("TMPDIR");
    struct buf path;
    int rc = EXIT_REFUSED;
    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s/kindred-pairs-XXXXXX",
        folder != NULL && folder[0] != '\0' ? folder : "/tmp");
    int fd = mkstemp(path.data);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL) {
        complain("%s: %s", path.data, strerror(errno));
        goto out;
    }
    pairs_write(file, labels, numbers, eval->opts->rounds);
    bool bad = ferror(file) != 0;
    if (fclose(file) != 0 || bad) {
        complain("%s: %s", path.data, strerror(errno));
        goto out;
    }
    struct input_options options = {.format = "ndjson", .pairs = true};
    uint64_t n_items = eval->n_items;
    rc =
        eval_load(eval, &options, path.data, "pairs", "/pairs?outcomes=errors");
    eval->n_items = n_items;
    if (rc != EXIT_DONE)
        goto out;
    json_t *body = json_object();
    json_t *started = NULL;
    json_t *job = NULL;
    path_admin(&eval->path, eval->name, "/train");
    rc = settings_add(body, &eval->opts->train) ? EXIT_DONE : EXIT_USAGE;
    if (rc == EXIT_DONE)
        rc = http_json(
            eval->cli->http, "POST", eval->path.data, body, &started, NULL);
    if (rc == EXIT_DONE)
        rc = job_follow(eval->cli, job_id_of(NULL, started), &job);
    if (rc == EXIT_DONE) {
        const char *reason = json_string_value(
            json_object_get(json_object_get(job, "result"), "reason"));
        const char *state = json_string_value(json_object_get(job, "state"));
        say(eval->cli, "%s: %s", state != NULL ? state : "?",
            reason != NULL ? reason : "");
    }
    json_decref(job);
    json_decref(started);
    json_decref(body);
out:
    if (fd >= 0)
        unlink(path.data);
    buf_release(&path);
    return rc;
}

int
eval_intent(struct eval *eval, char *train, const char *test)
{
    json_t *labels = json_array();
    json_t *texts = json_array();
    json_t *train_labels = json_array();
    json_t *train_texts = json_array();
    json_t *train_numbers = json_array();
    double *right = NULL;
    int rc = labelled_read(test, eval->opts->limit, labels, texts, NULL);
    if (rc == EXIT_DONE)
        rc = labelled_read(
            train, ARGS_INT_UNSET, train_labels, train_texts, train_numbers);
    if (rc == EXIT_DONE)
        rc = eval_begin(eval);
    if (rc != EXIT_DONE)
        goto out;
    struct input_options options = {.format = "tsv",
        .heading = true,
        .id_prefix = "train-",
        .text = "2",
        .meta = {.n = 1, .v = {"label=1"}}};
    rc = eval_load(eval, &options, train, "items", "/items?outcomes=errors");
    if (rc != EXIT_DONE)
        goto out;
    size_t n = json_array_size(labels);
    right = must_calloc(n + 1, sizeof(*right));
    struct intent intent = {.labels = labels, .right = right};
    rc = eval_search(eval, texts, 1, "metadata", on_nearest, &intent);
    if (rc != EXIT_DONE)
        goto out;
    eval_add_figure(eval,
        eval->opts->learn ? "1-NN untrained" : "1-NN accuracy",
        measure_mean(right, n, EVAL_SEED));
    eval->n_queries = n;
    if (eval->opts->learn) {
        rc = intent_learn(eval, train_labels, train_numbers);
        if (rc == EXIT_DONE)
            rc = eval_search(eval, texts, 1, "metadata", on_nearest, &intent);
        if (rc == EXIT_DONE)
            eval_add_figure(
                eval, "1-NN trained", measure_mean(right, n, EVAL_SEED));
    }
out:
    json_decref(labels);
    json_decref(texts);
    json_decref(train_labels);
    json_decref(train_texts);
    json_decref(train_numbers);
    mem_free(right);
    return rc;
}
