/*
 * eval - how good a collection's encoder is, measured on files and through
 * the service, as its users would see it.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli.h"
#include "eval.h"
#include "http.h"
#include "send.h"
#include "settings.h"
#include "term.h"

#define SEARCH_BATCH 64

static const struct eval_opts eval_defaults = {.limit = ARGS_INT_UNSET,
    .rounds = 4,
    .neighbours = 200,
    .vote_temperature = 0.1};

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
    {"each-compute", 0, OPT_FLAG, EVAL(each_compute), NULL,
        "retrieval, sts, intent with an imported encoder (-s encoder=NAME): "
        "measure it in f32, bf16 and int8, side by side"},
    {"learn", 0, OPT_FLAG, EVAL(learn), NULL,
        "intent: make pairs of the training labels, train, measure again"},
    {"rounds", 0, OPT_INT, EVAL(rounds), "N",
        "with --learn: pairs for each training text (default 4)"},
    {"train", 0, OPT_LIST, EVAL(train), "KEY=VALUE",
        "with --learn: an option of the round (epochs=1, force=true)"},
    {"limit", 0, OPT_INT, EVAL(limit), "N", "at most N queries"},
    {"write", 0, OPT_TEXT, EVAL(write_to), "FOLDER",
        "judged: write the queries there, as retrieval reads them"},
    {"label", 0, OPT_TEXT, EVAL(label), "FIELD",
        "knn: the metadata field that is to be told"},
    {"test-field", 0, OPT_TEXT, EVAL(test_field), "FIELD=VALUE",
        "knn: ask for the items with this metadata, among all others "
        "(default: each among the rest)"},
    {"neighbours", 'k', OPT_INT, EVAL(neighbours), "N",
        "knn: how many vote (default 200)"},
    {"vote-temperature", 0, OPT_NUMBER, EVAL(vote_temperature), "T",
        "knn: a vote weighs exp(cosine / T) (default 0.1)"},
};

void
eval_add_figure(struct eval *eval, const char *name, struct estimate estimate)
{
    ASSERT(eval->n_figures < EVAL_FIGURES_MAX);
    struct figure *figure = &eval->figures[eval->n_figures++];
    snprintf(figure->name, sizeof(figure->name), "%s", name);
    figure->estimate = estimate;
}

/* ---- the collection ------------------------------------------------------ */

int
eval_begin(struct eval *eval)
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

int
eval_load(struct eval *eval, const struct input_options *options, char *file,
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

int
eval_search(struct eval *eval, const json_t *texts, size_t k,
    const char *with_field, eval_hits_fn *fn, void *arg)
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

/* ---- the command --------------------------------------------------------- */

static json_t *
figures_json(const struct eval *eval)
{
    json_t *figures = json_object();
    for (size_t i = 0; i < eval->n_figures; i++) {
        const struct figure *figure = &eval->figures[i];
        json_t *one = json_object();
        json_object_set_new(one, "value", json_real(figure->estimate.value));
        json_object_set_new(one, "low", json_real(figure->estimate.low));
        json_object_set_new(one, "high", json_real(figure->estimate.high));
        json_object_set_new(figures, figure->name, one);
    }
    return figures;
}

static void
figures_print(const struct eval *eval, const char *task, const char *what)
{
    if (eval->cli->global.json) {
        json_t *all = json_object();
        json_t *figures = figures_json(eval);
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
    } tasks[] = {{"retrieval", 1}, {"sts", 1}, {"intent", 2}, {"run", 2},
        {"judged", 0}, {"knn", 1}};
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

/* One run of a task, with the end of its collection. */
static int
run_task(struct eval *eval, const char *task, char **args)
{
    int rc;
    buf_init(&eval->path, 1 << 16);
    if (strcmp(task, "retrieval") == 0)
        rc = eval_retrieval(eval, args[0]);
    else if (strcmp(task, "sts") == 0)
        rc = eval_sts(eval, args[0]);
    else if (strcmp(task, "intent") == 0)
        rc = eval_intent(eval, args[0], args[1]);
    else if (strcmp(task, "knn") == 0)
        rc = eval_knn(eval, args[0]);
    else if (strcmp(task, "judged") == 0)
        rc = eval_judged(eval);
    else
        rc = eval_run_file(eval, args[0], args[1]);
    int end = collection_end(eval);
    buf_release(&eval->path);
    return rc != EXIT_DONE ? rc : end;
}

/* ---- the ways to compute, side by side ----------------------------------- */

#define COMPUTES 3
static const char *const computes[COMPUTES] = {"f32", "bf16", "int8"};

static void
computes_print(
    const struct eval runs[COMPUTES], const char *task, const char *what)
{
    if (runs[0].cli->global.json) {
        json_t *all = json_object(), *each = json_object();
        for (size_t i = 0; i < COMPUTES; i++)
            json_object_set_new(each, computes[i], figures_json(&runs[i]));
        json_object_set_new(all, "task", json_string(task));
        json_object_set_new(all, "data", json_string(what));
        json_object_set_new(all, "computes", each);
        print_json(all);
        json_decref(all);
        return;
    }
    struct table table;
    printf("%s on %s: %zu queries\n", task, what, runs[0].n_queries);
    table_init(&table, "lrrrrr", "figure", "f32", "bf16", "int8", "bf16 - f32",
        "int8 - f32");
    for (size_t i = 0; i < runs[0].n_figures; i++) {
        char value[COMPUTES][32], off[COMPUTES][32];
        for (size_t c = 0; c < COMPUTES; c++) {
            double v = runs[c].figures[i].estimate.value;
            snprintf(value[c], sizeof(value[c]), "%.4f", v);
            snprintf(off[c], sizeof(off[c]), "%+.4f",
                v - runs[0].figures[i].estimate.value);
        }
        table_row(&table, runs[0].figures[i].name, value[0], value[1], value[2],
            off[1], off[2]);
    }
    table_print(&table);
    table_release(&table);
}

static int
run_each_compute(struct cli *cli, const struct eval_opts *opts,
    const char *task, size_t n_args, char **args)
{
    struct eval_opts each[COMPUTES];
    struct eval runs[COMPUTES];
    bool takes = strcmp(task, "retrieval") == 0 || strcmp(task, "sts") == 0 ||
                 strcmp(task, "intent") == 0;
    if (!takes || opts->use || opts->name != NULL || opts->learn ||
        opts->set.n == ARGS_LIST_MAX) {
        complain("eval: --each-compute is for retrieval, sts and intent, each "
                 "time in a collection that is made for it: not with --use, "
                 "--name or --learn");
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < COMPUTES; i++) {
        static const char *const set[COMPUTES] = {"encoder_config.compute=f32",
            "encoder_config.compute=bf16", "encoder_config.compute=int8"};
        each[i] = *opts;
        each[i].set.v[each[i].set.n++] = set[i];
        runs[i] = (struct eval){.cli = cli, .opts = &each[i]};
        int rc = run_task(&runs[i], task, args);
        if (rc != EXIT_DONE)
            return rc;
    }
    computes_print(runs, task, args[n_args - 1]);
    return EXIT_DONE;
}

static int
eval_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct eval_opts *o = opts;
    const char *task = task_of(&n_args, &args);
    if (task == NULL)
        return EXIT_USAGE;
    if (o->each_compute)
        return run_each_compute(cli, o, task, n_args, args);
    struct eval eval = {.cli = cli, .opts = opts};
    int rc = run_task(&eval, task, args);
    if (rc == EXIT_DONE)
        figures_print(&eval, task, n_args > 0 ? args[n_args - 1] : eval.name);
    return rc;
}

const struct command command_eval = {.name = "eval",
    .synopsis = "[retrieval|sts|intent|judged|run|knn] PATH ...",
    .summary = "measure quality on files or labels, through the service",
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
        "  knn COLLECTION     whether the nearest items have the same metadata "
        "--label:\n"
        "                     weighted vote of the 200 nearest, on the vectors "
        "as they are\n"
        "  run QRELS RUN      the retrieval figures of a ranking made "
        "elsewhere (tsv\n"
        "                     query, item, best first)\n"
        "Files are measured in a collection that is made for them and deleted "
        "afterwards.\nIntervals: 95%, percentile bootstrap over queries, 2,000 "
        "resamples, fixed seed.\n",
    .opts = eval_opts,
    .n_opts = ARRAY_LEN(eval_opts),
    .defaults = &eval_defaults,
    .opts_bytes = sizeof(struct eval_opts),
    .args_min = 1,
    .args_max = 3,
    .run = eval_run};
