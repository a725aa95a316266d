/*
 * eval knn - weighted nearest neighbours over the items' own vectors: how well
 * does the space tell the values of a metadata field apart?
 *
 * Of the k nearest labelled items each votes for its label with exp(cosine /
 * t); k = 200 and t = 0.1 as in Wu et al. 2018 (arXiv:1805.01978), sec. 3.4.
 * The neighbours are the service's own answers to a search by id.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "eval.h"
#include "http.h"
#include "settings.h"
#include "term.h"

#define KNN_BATCH 32

struct knn {
    struct eval *eval;
    json_t *labels;     /* {label: its number} */
    json_t *label_of;   /* {id: label's number} */
    json_t *ids;        /* of the queries */
    json_t *test_field; /* {"split": "test"}, or NULL: leave one out */
    double *votes;      /* [labels] */
    double *right;      /* [queries] */
    double *right_1;
    size_t n_skipped; /* without the field */
    struct buf text;  /* of the label being read */
};

/* A scalar as a label; false for null, arrays, objects. */
static bool
label_text(const json_t *value, struct buf *out)
{
    buf_clear(out);
    if (json_is_string(value)) {
        buf_add_str(out, json_string_value(value));
    } else if (json_is_number(value) || json_is_boolean(value)) {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        buf_add_str(out, text != NULL ? text : "");
        free(text);
    } else {
        return false;
    }
    return out->len > 0 && buf_status(out) == OK;
}

static void
item_take(void *arg, json_t *item)
{
    struct knn *knn = arg;
    struct buf *text = &knn->text;
    const char *id = json_string_value(json_object_get(item, "id"));
    const json_t *metadata = json_object_get(item, "metadata");
    const json_t *label = json_object_get(metadata, knn->eval->opts->label);
    if (id == NULL || !label_text(label, text)) {
        knn->n_skipped++;
        return;
    }
    json_t *number = json_object_get(knn->labels, text->data);
    if (number == NULL) {
        number = json_integer((json_int_t)json_object_size(knn->labels));
        json_object_set_new(knn->labels, text->data, number);
    }
    json_object_set(knn->label_of, id, number);
    bool is_query = true;
    const char *key;
    json_t *value;
    if (knn->test_field != NULL)
        json_object_foreach(knn->test_field, key, value) is_query =
            json_equal(json_object_get(metadata, key), value) == 1;
    long long limit = knn->eval->opts->limit;
    if (is_query && (limit == ARGS_INT_UNSET ||
                        (long long)json_array_size(knn->ids) < limit))
        json_array_append(knn->ids, json_object_get(item, "id"));
}

/* The vote of one query's neighbours. */
static void
query_vote(struct knn *knn, size_t query_i, const char *id, const json_t *hits)
{
    size_t n_labels = json_object_size(knn->labels);
    size_t k = (size_t)knn->eval->opts->neighbours;
    json_int_t truth = json_integer_value(json_object_get(knn->label_of, id));
    json_int_t nearest = -1;
    size_t used = 0;
    size_t best = 0;
    size_t i;
    const json_t *hit;
    memset(knn->votes, 0, n_labels * sizeof(*knn->votes));
    json_array_foreach(hits, i, hit)
    {
        const char *other = json_string_value(json_object_get(hit, "id"));
        const json_t *number = json_object_get(knn->label_of, other);
        if (other == NULL || number == NULL || strcmp(other, id) == 0)
            continue;
        if (used++ == k)
            break;
        size_t label = (size_t)json_integer_value(number);
        double cosine = json_number_value(json_object_get(hit, "cosine"));
        knn->votes[label] += exp(cosine / knn->eval->opts->vote_temperature);
        if (nearest < 0)
            nearest = (json_int_t)label;
    }
    for (size_t l = 1; l < n_labels; l++)
        if (knn->votes[l] > knn->votes[best])
            best = l;
    knn->right[query_i] = nearest >= 0 && (json_int_t)best == truth ? 1.0 : 0.0;
    knn->right_1[query_i] = nearest == truth ? 1.0 : 0.0;
}

/* Neighbours are asked from the items that are not held out. */
static json_t *
batch_make(const struct knn *knn, size_t from, size_t to)
{
    json_t *queries = json_array();
    for (size_t i = from; i < to; i++) {
        json_t *query = json_object();
        /* One more: without a held-out part the item may find itself. */
        json_int_t k = (json_int_t)knn->eval->opts->neighbours + 1;
        json_object_set(query, "id", json_array_get(knn->ids, i));
        json_object_set_new(query, "k", json_integer(k > 1000 ? 1000 : k));
        if (knn->test_field != NULL)
            json_object_set_new(
                query, "filter", json_pack("{s:O}", "$not", knn->test_field));
        json_array_append_new(queries, query);
    }
    return json_pack("{s:o}", "queries", queries);
}

static int
queries_run(struct knn *knn)
{
    struct eval *eval = knn->eval;
    size_t n = json_array_size(knn->ids);
    struct progress progress;
    int rc = EXIT_DONE;
    progress_start(&progress, "queries");
    for (size_t from = 0; from < n && rc == EXIT_DONE; from += KNN_BATCH) {
        size_t to = from + KNN_BATCH < n ? from + KNN_BATCH : n;
        json_t *answer = NULL;
        json_t *body = batch_make(knn, from, to);
        path_collection(&eval->path, eval->name, "/search/batch");
        rc = http_json(
            eval->cli->http, "POST", eval->path.data, body, &answer, NULL);
        for (size_t i = from; i < to && rc == EXIT_DONE; i++) {
            const char *id = json_string_value(json_array_get(knn->ids, i));
            const json_t *result =
                json_array_get(json_object_get(answer, "results"), i - from);
            const json_t *hits = json_object_get(result, "hits");
            if (hits == NULL) {
                const char *why = problem_text(result);
                complain("item %s: %s", id, why != NULL ? why : "no answer");
                rc = EXIT_REFUSED;
                break;
            }
            query_vote(knn, i, id, hits);
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

static int
figures_make(struct knn *knn)
{
    struct eval *eval = knn->eval;
    size_t n = json_array_size(knn->ids);
    char name[48];
    if (n == 0 || json_object_size(knn->labels) < 2) {
        complain("eval knn: %zu items to ask for, %zu values of metadata "
                 "\"%s\"; it needs 2 values and an item",
            n, json_object_size(knn->labels), eval->opts->label);
        return EXIT_REFUSED;
    }
    if (knn->n_skipped > 0)
        say(eval->cli, "%zu items without the field are left out",
            knn->n_skipped);
    knn->votes =
        must_calloc(json_object_size(knn->labels), sizeof(*knn->votes));
    knn->right = must_calloc(n, sizeof(*knn->right));
    knn->right_1 = must_calloc(n, sizeof(*knn->right_1));
    int rc = queries_run(knn);
    if (rc != EXIT_DONE)
        return rc;
    snprintf(name, sizeof(name), "kNN accuracy (k %lld, t %g)",
        eval->opts->neighbours, eval->opts->vote_temperature);
    eval_add_figure(eval, name, measure_mean(knn->right, n, EVAL_SEED));
    eval_add_figure(
        eval, "1-NN accuracy", measure_mean(knn->right_1, n, EVAL_SEED));
    eval->n_items = json_object_size(knn->label_of);
    eval->n_queries = n;
    return EXIT_DONE;
}

int
eval_knn(struct eval *eval, const char *collection)
{
    const struct eval_opts *opts = eval->opts;
    struct knn knn = {.eval = eval};
    snprintf(eval->name, sizeof(eval->name), "%s", collection);
    if (opts->label == NULL) {
        complain("eval knn: name the metadata field: --label FIELD");
        return EXIT_USAGE;
    }
    if (opts->neighbours < 1 || opts->neighbours > 1000 ||
        !(opts->vote_temperature > 0.0)) {
        complain("eval knn: -k is 1 to 1000, --vote-temperature above 0");
        return EXIT_USAGE;
    }
    if (opts->test_field != NULL) {
        knn.test_field = json_object();
        if (!setting_add(knn.test_field, opts->test_field)) {
            json_decref(knn.test_field);
            return EXIT_USAGE;
        }
    }
    knn.labels = json_object();
    knn.label_of = json_object();
    knn.ids = json_array();
    buf_init(&knn.text, 1 << 20);
    int rc = http_pages(
        eval->cli->http, eval->name, "items", "labels", item_take, &knn);
    buf_release(&knn.text);
    if (rc == EXIT_DONE)
        rc = figures_make(&knn);
    json_decref(knn.labels);
    json_decref(knn.label_of);
    json_decref(knn.ids);
    json_decref(knn.test_field);
    mem_free(knn.votes);
    mem_free(knn.right);
    mem_free(knn.right_1);
    return rc;
}
