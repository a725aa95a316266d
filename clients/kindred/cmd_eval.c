/*
 * eval - how good a collection's encoder is, measured on files and through
 * the service, as its users would see it.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cli.h"
#include "http.h"
#include "lines.h"
#include "measure.h"
#include "send.h"
#include "settings.h"
#include "term.h"

#define SEARCH_BATCH 64
#define EMBED_BATCH 128
#define RETRIEVAL_K 100
#define SEED 20

struct eval_opts {
    const char *name;
    bool use;
    bool keep;
    bool learn;
    long long rounds;
    long long limit;
    const char *write_to;
    struct text_list set;
};
static const struct eval_opts eval_defaults = {
    .limit = ARGS_INT_UNSET, .rounds = 1};

#define EVAL(field) offsetof(struct eval_opts, field)
static const struct opt eval_opts[] = {
    {"name", 0, OPT_TEXT, EVAL(name), "NAME",
        "the collection to make (default a new name)"},
    {"use", 0, OPT_FLAG, EVAL(use), NULL,
        "measure the existing collection that --name or -c names; it is "
        "kept"},
    {"keep", 0, OPT_FLAG, EVAL(keep), NULL,
        "do not delete the collection afterwards"},
    {"set", 's', OPT_LIST, EVAL(set), "KEY=VALUE",
        "a setting of the collection that is made (dims=256)"},
    {"learn", 0, OPT_FLAG, EVAL(learn), NULL,
        "intent: make pairs of the training labels, train, measure again"},
    {"rounds", 0, OPT_INT, EVAL(rounds), "N",
        "with --learn: pairs for each training text (default 1)"},
    {"limit", 0, OPT_INT, EVAL(limit), "N", "at most N queries"},
    {"write", 0, OPT_TEXT, EVAL(write_to), "FOLDER",
        "judged: write the queries there, as retrieval reads them"},
};

/* One figure of the table at the end. */
#define FIGURES_MAX 16
struct figure {
    char name[48];
    struct estimate estimate;
};

struct eval {
    struct cli *cli;
    const struct eval_opts *opts;
    char name[128]; /* the collection */
    bool made;      /* by us: to be deleted */
    struct buf path;
    struct figure figures[FIGURES_MAX];
    size_t n_figures;
    uint64_t n_items;
    size_t n_queries;
};

static void
figure_add(struct eval *eval, const char *name, struct estimate estimate)
{
    ASSERT(eval->n_figures < FIGURES_MAX);
    struct figure *figure = &eval->figures[eval->n_figures++];
    snprintf(figure->name, sizeof(figure->name), "%s", name);
    figure->estimate = estimate;
}

/* ---- the collection ------------------------------------------------------ */

static int
collection_begin(struct eval *eval)
{
    struct cli *cli = eval->cli;
    const struct eval_opts *opts = eval->opts;
    if (opts->use)
        snprintf(eval->name, sizeof(eval->name), "%s",
            opts->name != NULL ? opts->name : cli->global.collection);
    else if (opts->name != NULL)
        snprintf(eval->name, sizeof(eval->name), "%s", opts->name);
    else
        snprintf(eval->name, sizeof(eval->name), "eval-%lld-%ld",
            (long long)clock_wall_ms(), (long)getpid());
    path_collection(&eval->path, eval->name, "");
    if (opts->use)
        return http_json(cli->http, "GET", eval->path.data, NULL, NULL, NULL);
    json_t *body = json_object();
    long status = 0;
    int rc = EXIT_USAGE;
    if (settings_add(body, &opts->set))
        rc = http_json(cli->http, "PUT", eval->path.data, body, NULL, &status);
    json_decref(body);
    /* Never index into, and never delete, what was there before. */
    if (rc == EXIT_DONE && status != 201) {
        complain("eval: collection %s exists; --use measures it as it is",
            eval->name);
        return EXIT_REFUSED;
    }
    eval->made = rc == EXIT_DONE;
    return rc;
}

static int
collection_end(struct eval *eval)
{
    if (!eval->made || eval->opts->keep)
        return EXIT_DONE;
    path_collection(&eval->path, eval->name, "");
    return http_json(
        eval->cli->http, "DELETE", eval->path.data, NULL, NULL, NULL);
}

/* Send a file as items or pairs. Refused lines are told, not fatal: an empty
   document of a test collection is simply never found. */
static int
load_file(struct eval *eval, const struct input_options *options, char *file,
    const char *what, const char *suffix)
{
    bool usage = false;
    struct send_counts counts;
    struct input *input = input_open(options, &file, 1, &usage);
    if (input == NULL)
        return EXIT_REFUSED;
    path_collection(&eval->path, eval->name, suffix);
    int rc =
        send_input(eval->cli, input, eval->path.data, what, NULL, 3, &counts);
    input_close(input);
    if (rc == EXIT_SOME_FAILED) {
        say(eval->cli, "%llu %s refused, the rest is measured",
            (unsigned long long)counts.failed, what);
        rc = EXIT_DONE;
    }
    eval->n_items += counts.records - counts.failed;
    return rc;
}

/* ---- batches of searches ------------------------------------------------- */

/* Gets the hits of query query_i, in rank order. */
typedef void hits_fn(void *arg, size_t query_i, const json_t *hits);

static int
search_all(struct eval *eval, const json_t *texts, size_t k,
    const char *with_field, hits_fn *fn, void *arg)
{
    size_t n = json_array_size(texts);
    struct progress progress;
    int rc = EXIT_DONE;
    progress_start(&progress, "queries");
    for (size_t from = 0; from < n && rc == EXIT_DONE; from += SEARCH_BATCH) {
        size_t to = from + SEARCH_BATCH < n ? from + SEARCH_BATCH : n;
        json_t *queries = json_array();
        for (size_t i = from; i < to; i++) {
            json_t *query = json_object();
            json_t *with = json_array();
            if (with_field != NULL)
                json_array_append_new(with, json_string(with_field));
            json_object_set(query, "text", json_array_get(texts, i));
            json_object_set_new(query, "k", json_integer((json_int_t)k));
            json_object_set_new(query, "with", with);
            json_array_append_new(queries, query);
        }
        json_t *body = json_object();
        json_t *answer = NULL;
        json_object_set_new(body, "queries", queries);
        path_collection(&eval->path, eval->name, "/search/batch");
        rc = http_json(
            eval->cli->http, "POST", eval->path.data, body, &answer, NULL);
        const json_t *results = json_object_get(answer, "results");
        for (size_t i = from; i < to && rc == EXIT_DONE; i++) {
            const json_t *result = json_array_get(results, i - from);
            const json_t *hits = json_object_get(result, "hits");
            if (hits == NULL) {
                const char *why = problem_text(result);
                complain(
                    "query %zu: %s", i + 1, why != NULL ? why : "no answer");
                rc = EXIT_REFUSED;
                break;
            }
            fn(arg, i, hits);
        }
        json_decref(answer);
        json_decref(body);
        char tail[64];
        double seconds = progress_seconds(&progress);
        snprintf(tail, sizeof(tail), "%zu of %zu  %.0f/s", to, n,
            seconds > 0.0 ? (double)to / seconds : 0.0);
        progress_show(&progress, (double)to / (double)n, tail, false);
    }
    progress_clear();
    return rc;
}

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
        figure_add(
            eval, retrieval_names[m], measure_mean(retrieval->v[m], n, SEED));
        mem_free(retrieval->v[m]);
    }
    eval->n_queries = n;
}

static int
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
    rc = collection_begin(eval);
    if (rc != EXIT_DONE)
        goto out;
    /* A folder without a corpus measures what the collection holds. */
    if (!eval->opts->use || access(corpus.data, F_OK) == 0) {
        struct input_options options = {.format = "ndjson"};
        rc = load_file(
            eval, &options, corpus.data, "items", "/items?outcomes=errors");
        if (rc != EXIT_DONE)
            goto out;
    }
    struct retrieval retrieval;
    retrieval_init(&retrieval, ids, qrels);
    rc = search_all(eval, texts, RETRIEVAL_K, NULL, on_ranked, &retrieval);
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

/* Every judged pair with a text as anchor and an item as positive, page by
   page; split once at intake, so the list is the same before and after a
   round. */
static int
judged_read(struct eval *eval, json_t *pairs)
{
    struct buf path;
    char *cursor = NULL;
    int rc = EXIT_DONE;
    buf_init(&path, 1 << 16);
    do {
        json_t *page = NULL;
        size_t i;
        json_t *pair;
        path_collection(&path, eval->name, "/pairs?limit=1000");
        if (cursor != NULL) {
            buf_add_str(&path, "&cursor=");
            path_add_segment(&path, cursor);
        }
        rc = http_json(eval->cli->http, "GET", path.data, NULL, &page, NULL);
        mem_free(cursor);
        cursor = NULL;
        if (rc != EXIT_DONE)
            break;
        json_array_foreach(json_object_get(page, "pairs"), i, pair)
        {
            const char *split =
                json_string_value(json_object_get(pair, "split"));
            const json_t *anchor = json_object_get(pair, "anchor");
            const json_t *positive = json_object_get(pair, "positive");
            if (split != NULL && strcmp(split, "judge") == 0 &&
                json_is_string(json_object_get(anchor, "text")) &&
                json_is_string(json_object_get(positive, "id")) &&
                !json_is_string(json_object_get(pair, "aside")))
                json_array_append(pairs, pair);
        }
        const char *next =
            json_string_value(json_object_get(page, "next_cursor"));
        if (next != NULL)
            cursor = must_strdup(next);
        json_decref(page);
    } while (cursor != NULL);
    mem_free(cursor);
    buf_release(&path);
    return rc;
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

static int
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
    rng_seed(&rng, SEED);
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
    rc = search_all(eval, texts, RETRIEVAL_K, NULL, on_ranked, &retrieval);
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
static int
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

static int
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
    rc = collection_begin(eval);
    if (rc == EXIT_DONE)
        rc = embed_texts(eval, texts, &vectors, &dims);
    if (rc != EXIT_DONE)
        goto out;
    made = must_alloc(n, sizeof(*made));
    for (size_t i = 0; i < n; i++)
        made[i] =
            cosine(vectors + 2 * i * dims, vectors + (2 * i + 1) * dims, dims);
    figure_add(eval, "Spearman",
        measure_correlation(measure_spearman, gold, made, n, SEED));
    figure_add(eval, "Pearson",
        measure_correlation(measure_pearson, gold, made, n, SEED));
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
    rng_seed(&rng, SEED);
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

/* Pairs from the labels, one round of training, whatever the judge says. */
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
        load_file(eval, &options, path.data, "pairs", "/pairs?outcomes=errors");
    eval->n_items = n_items;
    if (rc != EXIT_DONE)
        goto out;
    json_t *body = json_object();
    json_t *started = NULL;
    json_t *job = NULL;
    path_admin(&eval->path, eval->name, "/train");
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

static int
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
        rc = collection_begin(eval);
    if (rc != EXIT_DONE)
        goto out;
    struct input_options options = {.format = "tsv",
        .heading = true,
        .id_prefix = "train-",
        .text = "2",
        .meta = {.n = 1, .v = {"label=1"}}};
    rc = load_file(eval, &options, train, "items", "/items?outcomes=errors");
    if (rc != EXIT_DONE)
        goto out;
    size_t n = json_array_size(labels);
    right = must_calloc(n + 1, sizeof(*right));
    struct intent intent = {.labels = labels, .right = right};
    rc = search_all(eval, texts, 1, "metadata", on_nearest, &intent);
    if (rc != EXIT_DONE)
        goto out;
    figure_add(eval, eval->opts->learn ? "1-NN untrained" : "1-NN accuracy",
        measure_mean(right, n, SEED));
    eval->n_queries = n;
    if (eval->opts->learn) {
        rc = intent_learn(eval, train_labels, train_numbers);
        if (rc == EXIT_DONE)
            rc = search_all(eval, texts, 1, "metadata", on_nearest, &intent);
        if (rc == EXIT_DONE)
            figure_add(eval, "1-NN trained", measure_mean(right, n, SEED));
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

/* ---- the command --------------------------------------------------------- */

static void
figures_print(const struct eval *eval, const char *task, const char *what)
{
    if (eval->cli->global.json) {
        json_t *all = json_object();
        json_t *figures = json_object();
        for (size_t i = 0; i < eval->n_figures; i++) {
            const struct figure *figure = &eval->figures[i];
            json_t *one = json_object();
            json_object_set_new(
                one, "value", json_real(figure->estimate.value));
            json_object_set_new(one, "low", json_real(figure->estimate.low));
            json_object_set_new(one, "high", json_real(figure->estimate.high));
            json_object_set_new(figures, figure->name, one);
        }
        json_object_set_new(all, "task", json_string(task));
        json_object_set_new(all, "data", json_string(what));
        json_object_set_new(
            all, "items", json_integer((json_int_t)eval->n_items));
        json_object_set_new(
            all, "queries", json_integer((json_int_t)eval->n_queries));
        json_object_set_new(all, "figures", figures);
        print_json(all);
        json_decref(all);
        return;
    }
    struct table table;
    printf("%s on %s: ", task, what);
    if (eval->n_items > 0)
        printf("%llu items, ", (unsigned long long)eval->n_items);
    printf("%zu queries\n", eval->n_queries);
    table_init(&table, "lrr", "figure", "value", "95% interval");
    for (size_t i = 0; i < eval->n_figures; i++) {
        const struct estimate *estimate = &eval->figures[i].estimate;
        char value[32];
        char range[64];
        snprintf(value, sizeof(value), "%.4f", estimate->value);
        snprintf(
            range, sizeof(range), "%.4f..%.4f", estimate->low, estimate->high);
        table_row(&table, eval->figures[i].name, value, range);
    }
    table_print(&table);
    table_release(&table);
}

/* The task: its first argument names it, or the paths tell. */
static const char *
task_of(size_t *n_args, char ***args)
{
    static const struct {
        const char *name;
        size_t n_paths;
    } tasks[] = {
        {"retrieval", 1}, {"sts", 1}, {"intent", 2}, {"run", 2}, {"judged", 0}};
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        if (strcmp((*args)[0], tasks[i].name) != 0)
            continue;
        (*args)++;
        (*n_args)--;
        if (*n_args != tasks[i].n_paths) {
            complain("eval %s takes %zu path%s, not %zu", tasks[i].name,
                tasks[i].n_paths, tasks[i].n_paths == 1 ? "" : "s", *n_args);
            return NULL;
        }
        return tasks[i].name;
    }
    struct stat st;
    if (*n_args == 1 && stat((*args)[0], &st) == 0)
        return S_ISDIR(st.st_mode) ? "retrieval" : "sts";
    if (*n_args == 2)
        return "intent";
    complain("eval: %s is neither a task nor a file; see kindred help eval",
        (*args)[0]);
    return NULL;
}

static int
eval_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const char *task = task_of(&n_args, &args);
    if (task == NULL)
        return EXIT_USAGE;
    struct eval eval = {.cli = cli, .opts = opts};
    int rc;
    buf_init(&eval.path, 1 << 16);
    if (strcmp(task, "retrieval") == 0)
        rc = eval_retrieval(&eval, args[0]);
    else if (strcmp(task, "sts") == 0)
        rc = eval_sts(&eval, args[0]);
    else if (strcmp(task, "intent") == 0)
        rc = eval_intent(&eval, args[0], args[1]);
    else if (strcmp(task, "judged") == 0)
        rc = eval_judged(&eval);
    else
        rc = eval_run_file(&eval, args[0], args[1]);
    if (rc == EXIT_DONE)
        figures_print(&eval, task, n_args > 0 ? args[n_args - 1] : eval.name);
    int end = collection_end(&eval);
    buf_release(&eval.path);
    return rc != EXIT_DONE ? rc : end;
}

const struct command command_eval = {.name = "eval",
    .synopsis = "[retrieval|sts|intent|judged|run] PATH ...",
    .summary = "measure quality on files, through the service",
    .detail =
        "  retrieval FOLDER   corpus.jsonl {id,title,text}, queries.jsonl "
        "{id,text},\n"
        "                     qrels.tsv (query, item, relevance): nDCG@10 "
        "(graded),\n"
        "                     recall@100, MRR@10, recall@10; without a corpus "
        "and with\n"
        "                     --use, on what the collection holds\n"
        "  sts FILE           tsv score, text, text: Spearman and Pearson\n"
        "  intent TRAIN TEST  tsv label, text: 1-NN accuracy; with --learn "
        "before and\n"
        "                     after training on pairs of the labels\n"
        "  judged             the collection's own judged pairs, text to item, "
        "as the\n"
        "                     retrieval figures of the live generation\n"
        "  run QRELS RUN      the retrieval figures of a ranking made "
        "elsewhere (tsv\n"
        "                     query, item, best first)\n"
        "Each in a collection that is made for it and deleted afterwards. "
        "Intervals: 95%,\npercentile bootstrap over queries, 2,000 resamples, "
        "fixed seed.\n",
    .opts = eval_opts,
    .n_opts = ARRAY_LEN(eval_opts),
    .defaults = &eval_defaults,
    .opts_bytes = sizeof(struct eval_opts),
    .args_min = 1,
    .args_max = 3,
    .run = eval_run};
