/*
 * learn_measure.c - measures that need no judged pairs, of the live and the
 * candidate generation alike: alignment and uniformity on what is judged, and
 * the vote of the nearest neighbours on the labels of a sample of items that
 * do not vote (train/measure.h). They are reported; they decide nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "engine/learn_round.h"
#include "train/measure.h"

#define UNIFORM_MAX 2000 /* rows */
#define KNN_MAX 5000     /* labelled items that vote */
#define KNN_TESTED 1000  /* of them */
#define KNN_K 200
#define KNN_TEMPERATURE 0.1f

static struct snapshot *
generation(struct learn_round *r, int which)
{
    return which == 0 ? r->live : r->shadow;
}

/* ---- alignment and uniformity -------------------------------------------- */

/* Rows of the ordinals that both generations have. */
static void
get_rows(struct snapshot *s, const uint32_t *ords, size_t n, float *out)
{
    size_t D = ann_dims(s->index->ann);
    for (size_t i = 0; i < n; i++) {
        if (ann_get(s->index->ann, ords[i], out + i * D) != OK)
            memset(out + i * D, 0, D * sizeof *out); /* deleted meanwhile */
    }
}

static enum err
measure_judged(struct learn_round *r, int which, const float *anchors)
{
    const struct learn_questions *q = &r->data.judge;
    struct snapshot *s = generation(r, which);
    size_t D = ann_dims(s->index->ann), n = q->n;
    size_t n_uniform = MIN(n, (size_t)UNIFORM_MAX);
    uint32_t *ords = mem_alloc(n + 1, sizeof *ords);
    float *rows = mem_alloc_aligned(n * D + 1, sizeof *rows);
    enum err err = ords == NULL || rows == NULL ? ERR_NOMEM : OK;

    for (size_t i = 0; i < n && err == OK; i++)
        ords[i] = q->questions[i].relevant[0];
    if (err == OK) {
        get_rows(s, ords, n, rows);
        r->measures.alignment[which] = measure_alignment(anchors, rows, n, D);
        err = measure_uniformity(&r->measures.uniformity[which], rows,
            n_uniform, D, r->engine->tuner_pool);
    }
    if (err == OK) {
        r->measures.n_aligned = n;
        r->measures.n_uniform = n_uniform;
    }
    mem_free(ords);
    mem_free(rows);
    return err;
}

/* ---- the neighbours' vote ------------------------------------------------ */

struct labelled {
    uint64_t order; /* random but fixed: which items are taken */
    uint64_t label;
    uint32_t ord;
    uint32_t class; /* labels counted from 0 */
};

static int
by_order(const void *a, const void *b)
{
    const struct labelled *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (x->ord > y->ord) - (x->ord < y->ord);
}

static int
by_label(const void *a, const void *b)
{
    const struct labelled *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return by_order(a, b);
}

/* A sample of the items that have a label, with their classes; *n items of
 *n_classes. */
static enum err
sample_labelled(
    struct learn_round *r, struct labelled **out, size_t *n, size_t *n_classes)
{
    struct item_map map = {.n = 0};
    enum err err = item_map_new(&map, r->c->roster);
    struct labelled *all = mem_alloc(map.n + 1, sizeof *all);
    uint64_t *labels = mem_alloc(map.n + 1, sizeof *labels);
    size_t kept = 0, classes = 0;

    if (err == OK && (all == NULL || labels == NULL))
        err = ERR_NOMEM;
    if (err == OK)
        err =
            learn_labels(r->engine, r->options.label, map.items, map.n, labels);
    for (size_t i = 0; i < map.n && err == OK; i++) {
        if (labels[i] != 0)
            all[kept++] = (struct labelled){.label = labels[i],
                .ord = map.ords[i],
                .order = hash_u64((uint64_t)map.items[i])};
    }
    if (err == OK) {
        qsort(all, kept, sizeof *all, by_order);
        kept = MIN(kept, (size_t)KNN_MAX);
        qsort(all, kept, sizeof *all, by_label);
        for (size_t i = 0; i < kept; i++) {
            classes += i == 0 || all[i].label != all[i - 1].label;
            all[i].class = (uint32_t)(classes - 1);
        }
        qsort(all, kept, sizeof *all, by_order);
        *out = all;
        *n = kept;
        *n_classes = classes;
        all = NULL;
    }
    item_map_release(&map);
    mem_free(all);
    mem_free(labels);
    return err;
}

/* The classes of the first n_tested rows by the vote of the others. */
static enum err
vote(struct learn_round *r, int which, const struct labelled *all, size_t n,
    size_t n_tested, size_t n_classes)
{
    struct snapshot *s = generation(r, which);
    size_t D = ann_dims(s->index->ann);
    float *rows = mem_alloc_aligned(n * D + 1, sizeof *rows);
    uint32_t *ords = mem_alloc(n + 1, sizeof *ords);
    uint32_t *class = mem_alloc(n + 1, sizeof *class);
    enum err err =
        rows == NULL || ords == NULL || class == NULL ? ERR_NOMEM : OK;
    const struct measure_knn_options options = {
        .k = KNN_K, .temperature = KNN_TEMPERATURE, .n_classes = n_classes};

    for (size_t i = 0; i < n && err == OK; i++) {
        ords[i] = all[i].ord;
        class[i] = all[i].class;
    }
    if (err == OK) {
        get_rows(s, ords, n, rows);
        const struct measure_set test = {
            .rows = rows, .label = class, .n = n_tested};
        const struct measure_set train = {.rows = rows + n_tested * D,
            .label = class + n_tested,
            .n = n - n_tested};
        err = measure_knn(&r->measures.knn[which], NULL, &train, &test, D,
            &options, r->engine->tuner_pool);
    }
    mem_free(rows);
    mem_free(ords);
    mem_free(class);
    return err;
}

static enum err
measure_labels(struct learn_round *r)
{
    struct labelled *all = NULL;
    size_t n = 0, n_classes = 0;
    enum err err;

    if (r->options.label[0] == '\0')
        return OK;
    err = sample_labelled(r, &all, &n, &n_classes);
    size_t n_tested = MIN(n / 5, (size_t)KNN_TESTED);
    if (err == OK && n_classes > 1 && n_tested > 0) {
        err = vote(r, 0, all, n, n_tested, n_classes);
        if (err == OK)
            err = vote(r, 1, all, n, n_tested, n_classes);
        if (err == OK)
            r->measures.n_knn = n_tested;
    }
    mem_free(all);
    return err;
}

enum err
learn_measure(
    struct learn_round *r, const float *of_live, const float *of_shadow)
{
    enum err err = OK;

    if (r->data.judge.n > 1) {
        err = measure_judged(r, 0, of_live);
        if (err == OK)
            err = measure_judged(r, 1, of_shadow);
    }
    return err == OK ? measure_labels(r) : err;
}
