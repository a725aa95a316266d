/*
 * eval.h - the inside of the eval command: one run, its collection, its
 * figures. Each task is a function that returns an exit code.
 */
#ifndef KINDRED_EVAL_H
#define KINDRED_EVAL_H

#include <jansson.h>

#include "cli.h"
#include "input.h"
#include "measure.h"

#define EVAL_FIGURES_MAX 16
#define EVAL_SEED 20 /* of every sample and resample: runs are comparable */

struct eval_opts {
    const char *name;
    bool use;
    bool keep;
    bool learn;
    bool each_compute;
    long long rounds;
    long long limit;
    const char *write_to;
    const char *label; /* knn */
    const char *test_field;
    long long neighbours;
    double vote_temperature;
    struct text_list set;
    struct text_list train;
};

/* One line of the table at the end. */
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
    struct figure figures[EVAL_FIGURES_MAX];
    size_t n_figures;
    uint64_t n_items;
    size_t n_queries;
};

void eval_add_figure(
    struct eval *eval, const char *name, struct estimate estimate);

/* Make the collection, or check the one that --use names. */
int eval_begin(struct eval *eval);

/* Send a file as items or pairs. Refused lines are told, not fatal: an empty
   document of a test collection is simply never found. */
int eval_load(struct eval *eval, const struct input_options *options,
    char *file, const char *what, const char *suffix);

/* Search every text for its k nearest; fn gets the hits of query query_i in
   rank order. with_field: "metadata" or NULL. */
typedef void eval_hits_fn(void *arg, size_t query_i, const json_t *hits);
int eval_search(struct eval *eval, const json_t *texts, size_t k,
    const char *with_field, eval_hits_fn *fn, void *arg);

/* The tasks: eval_retrieval.c, eval_text.c, eval_knn.c */
int eval_retrieval(struct eval *eval, const char *folder);
int eval_judged(struct eval *eval);
int eval_run_file(
    struct eval *eval, const char *qrels_path, const char *run_path);
int eval_sts(struct eval *eval, const char *file);
int eval_knn(struct eval *eval, const char *collection);
int eval_intent(struct eval *eval, char *train, const char *test);

#endif
