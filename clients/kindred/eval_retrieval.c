/* Tasks whose answer is a ranked list: test collections, the collection's own
   judged pairs, rankings from elsewhere. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "eval.h"
#include "http.h"

#define RETRIEVAL_K 100

/* ---- retrieval ----------------------------------------------------------- */

/* qrels.tsv: query, item, relevance. {"qid": {"docid": rel}} */
static json_t *
qrels_read(const char *path)
{
    struct lines *lines = lines_open(path);
    struct buf line;
    if (lines == NULL) {
        complain("%s: %s", path, strerror(errno));
        return NULL;
    }
    json_t *qrels = json_object();
    enum input_got got;
    buf_init(&line, INPUT_RECORD_MAX * 2);
    while ((got = lines_next(lines, &line)) == INPUT_RECORD) {
        char *fields[4];
        if (line.len == 0)
            continue;
        size_t n = tsv_split(line.data, fields, ARRAY_LEN(fields));
        if (n < 3) {
            complain("%s:%llu: not query, item, relevance", path,
                (unsigned long long)lines_number(lines));
            got = INPUT_FAILED;
            break;
        }
        char *end = NULL;
        double relevance = strtod(fields[2], &end);
        if (end == fields[2] && lines_number(lines) == 1)
            continue; /* a heading */
        json_t *items = json_object_get(qrels, fields[0]);
        if (items == NULL) {
            items = json_object();
            json_object_set_new(qrels, fields[0], items);
        }
        if (json_object_set_new(items, fields[1], json_real(relevance)) != 0) {
            complain("%s:%llu: no UTF-8", path,
                (unsigned long long)lines_number(lines));
            got = INPUT_FAILED;
            break;
        }
    }
    buf_release(&line);
    lines_close(lines);
    if (got == INPUT_FAILED) {
        json_decref(qrels);
        return NULL;
    }
    return qrels;
}

/* queries.jsonl {"id", "text"}: those with a relevant item. */
static int
queries_read(const char *path, const json_t *qrels, long long limit,
    json_t *ids, json_t *texts)
{
    struct lines *lines = lines_open(path);
    struct buf line;
    if (lines == NULL) {
        complain("%s: %s", path, strerror(errno));
        return EXIT_REFUSED;
    }
    enum input_got got;
    buf_init(&line, INPUT_RECORD_MAX * 2);
    while ((got = lines_next(lines, &line)) == INPUT_RECORD) {
        if (line.len == 0)
            continue;
        json_t *query = json_loadb(line.data, line.len, 0, NULL);
        const char *id = json_string_value(json_object_get(query, "id"));
        json_t *text = json_object_get(query, "text");
        if (id == NULL || !json_is_string(text)) {
            complain("%s:%llu: no {\"id\": ..., \"text\": ...}", path,
                (unsigned long long)lines_number(lines));
            json_decref(query);
            got = INPUT_FAILED;
            break;
        }
        bool relevant = false;
        const char *key;
        json_t *value;
        json_object_foreach(json_object_get(qrels, id), key, value) relevant =
            relevant || json_number_value(value) > 0.0;
        if (relevant && (limit == ARGS_INT_UNSET ||
                            (long long)json_array_size(ids) < limit)) {
            json_array_append(ids, json_object_get(query, "id"));
            json_array_append(texts, text);
        }
        json_decref(query);
    }
    buf_release(&line);
    lines_close(lines);
    if (got == INPUT_FAILED)
        return EXIT_REFUSED;
    if (json_array_size(ids) == 0) {
        complain("%s: no query has a relevant item", path);
        return EXIT_REFUSED;
    }
    return EXIT_DONE;
}

enum { NDCG, RECALL, RR, RECALL_10, N_RETRIEVAL };
static const char *const retrieval_names[N_RETRIEVAL] = {
    "nDCG@10", "recall@100", "MRR@10", "recall@10"};

struct retrieval {
    const json_t *ids;
    const json_t *qrels;
    double *v[N_RETRIEVAL];
};

/* Figures of one ranked list of item ids. */
static void
list_measure(
    struct retrieval *retrieval, size_t query_i, const char **ids, size_t n)
{
    double gain[RETRIEVAL_K];
    const char *qid =
        json_string_value(json_array_get(retrieval->ids, query_i));
    json_t *judged = json_object_get(retrieval->qrels, qid);
    double *ideal = must_alloc(json_object_size(judged) + 1, sizeof(*ideal));
    size_t n_ideal = 0;
    size_t n_relevant = 0;
    const char *key;
    json_t *value;
    json_object_foreach(judged, key, value)
    {
        ideal[n_ideal++] = json_number_value(value);
        n_relevant += json_number_value(value) > 0.0 ? 1 : 0;
    }
    for (size_t i = 0; i < n; i++)
        gain[i] = json_number_value(json_object_get(judged, ids[i]));
    retrieval->v[NDCG][query_i] = measure_ndcg(gain, n, ideal, n_ideal, 10);
    retrieval->v[RECALL][query_i] = measure_recall(gain, n, n_relevant, 100);
    retrieval->v[RR][query_i] = measure_rr(gain, n, 10);
    retrieval->v[RECALL_10][query_i] = measure_recall(gain, n, n_relevant, 10);
    mem_free(ideal);
}

static void
on_ranked(void *arg, size_t query_i, const json_t *hits)
{
    const char *ids[RETRIEVAL_K];
    size_t n = 0;
    size_t i;
    const json_t *hit;
    json_array_foreach(hits, i, hit)
    {
        const char *id = json_string_value(json_object_get(hit, "id"));
        if (n < RETRIEVAL_K)
            ids[n++] = id != NULL ? id : "";
    }
    list_measure(arg, query_i, ids, n);
}

static void
retrieval_init(
    struct retrieval *retrieval, const json_t *ids, const json_t *qrels)
{
    retrieval->ids = ids;
    retrieval->qrels = qrels;
    for (size_t m = 0; m < N_RETRIEVAL; m++)
        retrieval->v[m] = must_calloc(json_array_size(ids) + 1, sizeof(double));
}

static void
retrieval_finish(struct eval *eval, struct retrieval *retrieval)
{
    size_t n = json_array_size(retrieval->ids);
    for (size_t m = 0; m < N_RETRIEVAL; m++) {
        eval_add_figure(eval, retrieval_names[m],
            measure_mean(retrieval->v[m], n, EVAL_SEED));
        mem_free(retrieval->v[m]);
    }
    eval->n_queries = n;
}

int
eval_retrieval(struct eval *eval, const char *folder)
{
    struct buf corpus;
    struct buf queries;
    struct buf qrels_path;
    json_t *qrels = NULL;
    json_t *ids = json_array();
    json_t *texts = json_array();
    int rc = EXIT_REFUSED;
    buf_init(&corpus, 1 << 16);
    buf_init(&queries, 1 << 16);
    buf_init(&qrels_path, 1 << 16);
    buf_printf(&corpus, "%s/corpus.jsonl", folder);
    buf_printf(&queries, "%s/queries.jsonl", folder);
    buf_printf(&qrels_path, "%s/qrels.tsv", folder);
    qrels = qrels_read(qrels_path.data);
    if (qrels == NULL)
        goto out;
    rc = queries_read(queries.data, qrels, eval->opts->limit, ids, texts);
    if (rc != EXIT_DONE)
        goto out;
    rc = eval_begin(eval);
    if (rc != EXIT_DONE)
        goto out;
    /* A folder without a corpus measures what the collection holds. */
    if (!eval->opts->use || access(corpus.data, F_OK) == 0) {
        struct input_options options = {.format = "ndjson"};
        rc = eval_load(
            eval, &options, corpus.data, "items", "/items?outcomes=errors");
        if (rc != EXIT_DONE)
            goto out;
    }
    struct retrieval retrieval;
    retrieval_init(&retrieval, ids, qrels);
    rc = eval_search(eval, texts, RETRIEVAL_K, NULL, on_ranked, &retrieval);
    retrieval_finish(eval, &retrieval);
out:
    json_decref(qrels);
    json_decref(ids);
    json_decref(texts);
    buf_release(&corpus);
    buf_release(&queries);
    buf_release(&qrels_path);
    return rc;
}

/* ---- the collection's own judged pairs ----------------------------------- */

/* A judged pair with a text as anchor and an item as positive. */
static void
judged_take(void *arg, json_t *pair)
{
    const char *split = json_string_value(json_object_get(pair, "split"));
    const json_t *anchor = json_object_get(pair, "anchor");
    const json_t *positive = json_object_get(pair, "positive");
    if (split != NULL && strcmp(split, "judge") == 0 &&
        json_is_string(json_object_get(anchor, "text")) &&
        json_is_string(json_object_get(positive, "id")) &&
        !json_is_string(json_object_get(pair, "aside")))
        json_array_append(arg, pair);
}

/* All of them; split once at intake, so the list is the same before and after
   a round. */
static int
judged_read(struct eval *eval, json_t *pairs)
{
    return http_pages(
        eval->cli->http, eval->name, "pairs", NULL, judged_take, pairs);
}

/* A text without tabs and newlines, for a TSV. */
static void
print_flat(FILE *file, const char *s)
{
    for (; *s != '\0'; s++)
        putc(*s == '\t' || *s == '\n' || *s == '\r' ? ' ' : *s, file);
}

/* queries.jsonl, queries.tsv and qrels.tsv. */
static int
judged_write(const char *folder, const json_t *ids, const json_t *texts,
    const json_t *qrels)
{
    static const char *const names[] = {
        "queries.jsonl", "queries.tsv", "qrels.tsv"};
    FILE *files[ARRAY_LEN(names)] = {0};
    int rc = EXIT_DONE;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
        complain("%s: %s", folder, strerror(errno));
        return EXIT_REFUSED;
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf path;
        buf_init(&path, 1 << 16);
        buf_printf(&path, "%s/%s", folder, names[i]);
        files[i] = path.data != NULL ? fopen(path.data, "w") : NULL;
        if (files[i] == NULL) {
            complain("%s/%s: %s", folder, names[i], strerror(errno));
            rc = EXIT_REFUSED;
        }
        buf_release(&path);
    }
    for (size_t i = 0; rc == EXIT_DONE && i < json_array_size(ids); i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        const char *text = json_string_value(json_array_get(texts, i));
        const char *item;
        json_t *value;
        struct buf line;
        buf_init(&line, 1 << 24);
        buf_add_str(&line, "{\"id\":");
        buf_json_cstr(&line, id);
        buf_add_str(&line, ",\"text\":");
        buf_json_cstr(&line, text);
        buf_add_str(&line, "}");
        fprintf(files[0], "%s\n", line.data != NULL ? line.data : "");
        buf_release(&line);
        fprintf(files[1], "%s\t", id);
        print_flat(files[1], text);
        putc('\n', files[1]);
        json_object_foreach(json_object_get(qrels, id), item, value)
            fprintf(files[2], "%s\t%s\t1\n", id, item);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (files[i] != NULL && fclose(files[i]) != 0) {
            complain("%s/%s: %s", folder, names[i], strerror(errno));
            rc = EXIT_REFUSED;
        }
    return rc;
}

int
eval_judged(struct eval *eval)
{
    snprintf(eval->name, sizeof(eval->name), "%s",
        eval->opts->name != NULL ? eval->opts->name
                                 : eval->cli->global.collection);
    json_t *pairs = json_array();
    json_t *by_text = json_object(); /* anchor text -> query id */
    json_t *ids = json_array();
    json_t *texts = json_array();
    json_t *qrels = json_object();
    uint32_t *order = NULL;
    int rc = judged_read(eval, pairs);
    size_t n = json_array_size(pairs);
    if (rc == EXIT_DONE && n == 0) {
        complain("%s: no judged pair from a text to an item", eval->name);
        rc = EXIT_REFUSED;
    }
    if (rc != EXIT_DONE)
        goto out;
    /* A sample that does not depend on the order of intake. */
    order = must_alloc(n, sizeof(*order));
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    struct rng rng;
    rng_seed(&rng, EVAL_SEED);
    rng_shuffle_u32(&rng, order, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(pairs, order[i]);
        json_t *text = json_object_get(json_object_get(pair, "anchor"), "text");
        const char *item = json_string_value(
            json_object_get(json_object_get(pair, "positive"), "id"));
        json_t *id = json_object_get(by_text, json_string_value(text));
        if (id == NULL) {
            if (eval->opts->limit != ARGS_INT_UNSET &&
                (long long)json_array_size(ids) >= eval->opts->limit)
                continue;
            char name[32];
            snprintf(name, sizeof(name), "q%zu", json_array_size(ids) + 1);
            id = json_string(name);
            json_object_set_new(by_text, json_string_value(text), id);
            json_array_append(ids, id);
            json_array_append(texts, text);
            json_object_set_new(qrels, name, json_object());
        }
        json_object_set_new(json_object_get(qrels, json_string_value(id)), item,
            json_real(1.0));
    }
    if (eval->opts->write_to != NULL)
        rc = judged_write(eval->opts->write_to, ids, texts, qrels);
    if (rc != EXIT_DONE)
        goto out;
    struct retrieval retrieval;
    retrieval_init(&retrieval, ids, qrels);
    rc = eval_search(eval, texts, RETRIEVAL_K, NULL, on_ranked, &retrieval);
    retrieval_finish(eval, &retrieval);
out:
    mem_free(order);
    json_decref(pairs);
    json_decref(by_text);
    json_decref(ids);
    json_decref(texts);
    json_decref(qrels);
    return rc;
}

/* ---- a ranked list from elsewhere --------------------------------------- */

/* run: query, item [, anything], in rank order; the same figures for a list
   that another program made. */
int
eval_run_file(struct eval *eval, const char *qrels_path, const char *run_path)
{
    json_t *qrels = qrels_read(qrels_path);
    if (qrels == NULL)
        return EXIT_REFUSED;
    json_t *ids = json_array();
    json_t *ranked = json_object();
    struct buf line;
    enum input_got got = INPUT_FAILED;
    buf_init(&line, INPUT_RECORD_MAX * 2);
    struct lines *lines = lines_open(run_path);
    if (lines == NULL) {
        complain("%s: %s", run_path, strerror(errno));
        goto out;
    }
    while ((got = lines_next(lines, &line)) == INPUT_RECORD) {
        char *fields[3];
        if (line.len == 0)
            continue;
        if (tsv_split(line.data, fields, ARRAY_LEN(fields)) < 2) {
            complain("%s:%llu: not query, item", run_path,
                (unsigned long long)lines_number(lines));
            got = INPUT_FAILED;
            break;
        }
        json_t *list = json_object_get(ranked, fields[0]);
        if (list == NULL) {
            list = json_array();
            json_object_set_new(ranked, fields[0], list);
        }
        if (json_array_size(list) < RETRIEVAL_K)
            json_array_append_new(list, json_string(fields[1]));
    }
    if (got == INPUT_FAILED)
        goto out;
    const char *qid;
    json_t *judged;
    /* A judged query that the run leaves out counts as found nothing. */
    json_object_foreach(qrels, qid, judged)
        json_array_append_new(ids, json_string(qid));
    struct retrieval retrieval;
    retrieval_init(&retrieval, ids, qrels);
    for (size_t q = 0; q < json_array_size(ids); q++) {
        const char *list[RETRIEVAL_K];
        const json_t *items =
            json_object_get(ranked, json_string_value(json_array_get(ids, q)));
        size_t n = json_array_size(items);
        for (size_t i = 0; i < n; i++) {
            const char *id = json_string_value(json_array_get(items, i));
            list[i] = id != NULL ? id : "";
        }
        list_measure(&retrieval, q, list, n);
    }
    retrieval_finish(eval, &retrieval);
out:
    lines_close(lines);
    buf_release(&line);
    json_decref(ids);
    json_decref(ranked);
    json_decref(qrels);
    return got == INPUT_FAILED ? EXIT_REFUSED : EXIT_DONE;
}
