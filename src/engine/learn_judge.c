/*
 * learn_judge.c - calibration of the serving temperature on the tune split and
 * the comparison of both generations on the judge split, over all items.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/learn_round.h"

#define NEIGHBOURS 10

enum err
learn_calibrate(struct learn_round *r)
{
    const struct learn_questions *q = &r->data.tune;
    const struct encoder *encoder = encoder_ref_get(r->shadow->encoder);
    struct snapshot *const of[] = {r->live, r->shadow};
    double temperature[] = {r->live->temperature, r->shadow->temperature};
    enum err err = OK;

    job_set_phase(r->job, "calibrate", LEARN_AT_JUDGE);
    if (q->n < LEARN_TUNE_MIN) {
        r->calibrated[2].temperature = r->shadow->temperature;
        return OK;
    }
    for (size_t i = 0; i < 2 && err == OK; i++) {
        struct judge_ranks ranks;
        if (i == 0)
            encoder = encoder_ref_get(r->live->encoder);
        else
            encoder = encoder_ref_get(r->shadow->encoder);
        float *anchors = learn_encode_anchors(r, encoder, q);
        err = anchors == NULL
                  ? ERR_NOMEM
                  : judge_rank(&ranks, of[i]->index->ann, anchors, q->questions,
                        q->n, true, r->engine->tuner_pool);
        mem_free(anchors);
        if (err != OK)
            break;
        judge_calibration_at(&r->calibrated[i], &ranks, temperature[i]);
        if (i == 1)
            judge_calibrate(&r->calibrated[2], &ranks);
        judge_ranks_release(&ranks);
    }
    return err;
}

/* The older judged pairs alone: what the round must not forget. */
static void
judge_frozen(struct learn_round *r, const struct judge_ranks *before,
    const struct judge_ranks *after)
{
    double b = 0, a = 0;
    r->n_frozen = 0;
    for (size_t i = 0; i < r->data.judge.n; i++) {
        if (!r->data.judge.frozen[i])
            continue;
        b += judge_value(before, i, r->options.metric);
        a += judge_value(after, i, r->options.metric);
        r->n_frozen++;
    }
    r->frozen_before = r->n_frozen > 0 ? b / (double)r->n_frozen : 0;
    r->frozen_after = r->n_frozen > 0 ? a / (double)r->n_frozen : 0;
}

/* Share of the NEIGHBOURS nearest items that both generations give. */
static double
neighbour_overlap(
    struct learn_round *r, const float *before, const float *after)
{
    const struct learn_questions *q = &r->data.judge;
    size_t D = ann_dims(r->live->index->ann);
    double shared = 0, all = 0;

    for (size_t i = 0; i < MIN(q->n, (size_t)200); i++) {
        struct ann_hit a[NEIGHBOURS], b[NEIGHBOURS];
        struct ann_result in_a = {.hits = a}, in_b = {.hits = b};
        struct ann_query query = {.vector = before + i * D,
            .k = NEIGHBOURS,
            .min_cosine = -2,
            .skip = q->questions[i].skip};
        if (ann_search(r->live->index->ann, &query, &in_a) != OK)
            break;
        query.vector = after + i * D;
        if (ann_search(r->shadow->index->ann, &query, &in_b) != OK)
            break;
        for (size_t j = 0; j < in_a.n_hits; j++) {
            for (size_t k = 0; k < in_b.n_hits; k++)
                shared += a[j].ord == b[k].ord;
        }
        all += (double)in_a.n_hits;
    }
    return all > 0 ? shared / all : 0;
}

static enum err
count_judge(struct db *db, void *arg)
{
    struct learn_round *r = arg;
    return generations_count_judge(
        db, r->c->id, r->shadow->generation, &r->judge_uses);
}

/* One example of a gain or loss: its anchor, cut, and both ranks. */
static void
write_example(struct learn_round *r, size_t i, const struct judge_ranks *before,
    const struct judge_ranks *after)
{
    const struct judge_question *q = &r->data.judge.questions[i];
    uint32_t ord = q->skip != ANN_NONE ? q->skip : q->relevant[0];
    size_t k = before->start[i];

    buf_add_str(&r->report, "{\"anchor\":");
    learn_report_text(r, &r->data.judge.anchors[i], ord);
    buf_printf(&r->report,
        ",\"rank_before\":%" PRIu32 ",\"rank_after\":%" PRIu32 "}",
        before->rank[k] + 1, after->rank[k] + 1);
}

struct moved {
    double by;
    uint32_t question;
};

static int
compare_moved(const void *a, const void *b)
{
    const struct moved *x = a, *y = b;
    if (x->by != y->by)
        return x->by > y->by ? -1 : 1;
    return (x->question > y->question) - (x->question < y->question);
}

/* "gains" and "losses": the questions whose first positive moved most. */
static enum err
write_changes(struct learn_round *r, const struct judge_ranks *before,
    const struct judge_ranks *after)
{
    size_t n = r->data.judge.n;
    struct moved *moved = mem_alloc(n, sizeof *moved);
    if (moved == NULL)
        return ERR_NOMEM;
    r->n_changed = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t b = before->rank[before->start[i]];
        uint32_t a = after->rank[after->start[i]];
        r->n_changed += a != b;
        moved[i].question = (uint32_t)i;
        moved[i].by = 1 / ((double)a + 1) - 1 / ((double)b + 1);
    }
    qsort(moved, n, sizeof *moved, compare_moved);
    buf_add_str(&r->report, ",\"gains\":[");
    for (size_t i = 0; i < n && i < LEARN_SHOWN && moved[i].by > 0; i++) {
        if (i > 0)
            buf_add_char(&r->report, ',');
        write_example(r, moved[i].question, before, after);
    }
    buf_add_str(&r->report, "],\"losses\":[");
    for (size_t i = 0; i < n && i < LEARN_SHOWN; i++) {
        const struct moved *m = &moved[n - 1 - i];
        if (m->by >= 0)
            break;
        if (i > 0)
            buf_add_char(&r->report, ',');
        write_example(r, m->question, before, after);
    }
    buf_add_char(&r->report, ']');
    mem_free(moved);
    return OK;
}

enum err
learn_judge(struct learn_round *r)
{
    const struct learn_questions *q = &r->data.judge;
    struct judge_ranks before = {0}, after = {0};
    float *of_live = NULL, *of_shadow = NULL;
    enum err err;

    job_set_phase(r->job, "judge", (1 + LEARN_AT_JUDGE) / 2);
    of_live = learn_encode_anchors(r, encoder_ref_get(r->live->encoder), q);
    of_shadow = learn_encode_anchors(r, encoder_ref_get(r->shadow->encoder), q);
    err = of_live == NULL || of_shadow == NULL ? ERR_NOMEM : OK;
    if (err == OK)
        err = judge_rank(&before, r->live->index->ann, of_live, q->questions,
            q->n, false, r->engine->tuner_pool);
    if (err == OK)
        err = judge_rank(&after, r->shadow->index->ann, of_shadow, q->questions,
            q->n, false, r->engine->tuner_pool);
    for (int m = 0; m < JUDGE_MEASURES && err == OK; m++)
        err = judge_compare(&r->difference[m], &before, &after, q->questions,
            (enum judge_measure)m, r->options.train.seed);
    if (err == OK) {
        judge_frozen(r, &before, &after);
        r->overlap = neighbour_overlap(r, of_live, of_shadow);
        err = write_changes(r, &before, &after);
    }
    if (err == OK)
        err = learn_measure(r, of_live, of_shadow);
    if (err == OK)
        err = store_run(r->engine->store, count_judge, r);
    judge_ranks_release(&before);
    judge_ranks_release(&after);
    mem_free(of_live);
    mem_free(of_shadow);
    return err;
}
