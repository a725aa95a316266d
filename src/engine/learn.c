/*
 * learn.c - the states of a training round (learn.h), and its report.
 */
#include "engine/learn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"
#include "engine/learn_data.h"

#define POOL_ITEMS_MAX 20000 /* of the pool that chooses the blend */
#define MINED_A_QUESTION 10
#define REPORT_BYTES_MAX ((size_t)1 << 20)
#define EXAMPLES_SHOWN 5
#define SHOWN_BYTES 160
#define TUNE_MIN 10 /* questions; fewer choose and calibrate nothing */
#define NEIGHBOURS 10
#define LR_TRAINED 0.3f /* of the default rate, when the parent is trained */

static const float blends[] = {1.0f, 0.75f, 0.5f};

/* Shares of a round's progress at which its states begin. */
static const double at_train = 0.03, at_choose = 0.55, at_save = 0.65,
                    at_reembed = 0.70, at_judge = 0.92;

struct chosen {
    double blend;
    double before, after; /* of the metric on the pool, live and blended */
    size_t n_pool;
};

struct round {
    struct engine *engine;
    struct collection *c;
    struct job *job;
    struct learn_options options;
    struct learn_form form;
    struct learn_resume resume;
    struct learn_data data;
    struct snapshot *live, *shadow;
    struct encoder *candidate;
    struct train_result trained;
    struct chosen chosen;
    bool resumed; /* trained in an earlier run of the daemon */
    struct judge_calibration calibrated[3]; /* live, as trained, calibrated */
    struct judge_difference difference[JUDGE_MEASURES];
    double frozen_before, frozen_after;
    size_t n_frozen;
    double overlap; /* of the two generations' nearest neighbours */
    size_t n_changed;
    int64_t judge_uses;
    int64_t start_ms;
    struct buf report;
    struct fault fault;
};

/* ---------------------------------------------------------------- train */

static bool
on_step(void *arg, const struct train_point *point)
{
    struct round *r = arg;
    char data[320];

    engine_yield_to_searches(r->engine);
    if (point != NULL) {
        double share = (double)point->step / (double)point->n_steps;
        double spent = (double)(clock_mono_ms() - r->start_ms) / 1000;
        job_set_progress(r->job, at_train + share * (at_choose - at_train),
            share > 0.02 ? spent / share * (1 - share) : -1);
        job_add_loss(r->job, (int64_t)point->step, point->loss);
        snprintf(data, sizeof data,
            "{\"step\":%zu,\"steps\":%zu,\"loss\":%.6f,\"accuracy\":%.4f,"
            "\"positive\":%.4f,\"negative\":%.4f,\"temperature\":%.5f,"
            "\"lr\":%.6f,\"pairs_per_second\":%.0f}",
            point->step, point->n_steps, point->loss, point->accuracy,
            point->positive, point->negative, point->temperature, point->lr,
            point->pairs_per_second);
        job_event(r->job, "metrics", data);
    }
    failpoint("learn_step");
    return !job_stopped(r->job);
}

struct refit {
    struct engine *engine;
    struct collection *c;
    struct learn_data *data;
    struct encoder_input *texts;
    size_t n, next, cap;
    bool nomem;
};

static bool
keep_text(void *arg, int64_t item, const char *text, size_t len)
{
    struct refit *f = arg;
    (void)item;
    if (f->n == f->cap)
        return false;
    f->texts[f->n].text = arena_strndup(&f->data->arena, text, len);
    f->texts[f->n].len = len;
    f->nomem = f->texts[f->n].text == NULL;
    f->n += !f->nomem;
    return !f->nomem;
}

static bool
next_text(void *arg, struct encoder_input *text)
{
    struct refit *f = arg;
    if (f->next == f->n)
        return false;
    *text = f->texts[f->next++];
    return true;
}

/* An untrained parent weighs its features by a general corpus: take the
   collection's own frequencies. A trained one has learned on top of its. */
static enum err
refit_encoder(struct round *r)
{
    struct refit f = {.engine = r->engine, .c = r->c, .data = &r->data};
    f.cap = MIN(roster_count(r->c->roster) + 1024, LEARN_EXAMPLES_MAX);
    f.texts = mem_alloc(f.cap, sizeof *f.texts);
    if (f.texts == NULL)
        return ERR_NOMEM;
    enum err err = learn_walk_documents(r->engine, r->c, keep_text, &f);
    if (err == OK && f.nomem)
        err = ERR_NOMEM;
    if (err == OK)
        err = encoder_refit(r->candidate, next_text, &f);
    mem_free(f.texts);
    return err;
}

static enum err
train_candidate(struct round *r)
{
    const struct encoder *parent = encoder_ref_get(r->live->encoder);
    struct train_options *t = &r->options.train;
    enum err err;

    job_set_phase(r->job, "train", at_train);
    r->start_ms = clock_mono_ms();
    if (encoder_is_trained(parent) && !r->options.lr_given)
        t->schedule.lr *= LR_TRAINED;
    err = encoder_clone(&r->candidate, parent);
    if (err == OK && !encoder_is_trained(parent))
        err = refit_encoder(r);
    if (err == OK)
        err = train_run(r->candidate, r->data.examples, r->data.n_examples, t,
            NULL, NULL, r->engine->tuner_pool, on_step, r, &r->trained,
            &r->fault);
    return err;
}

/* --------------------------------------------------------------- choose */

/* The items that the blends are tried on, with their documents. */
struct tune_pool {
    uint32_t *ords;
    int64_t *items;
    struct encoder_input *texts;
    size_t n;
    struct arena arena;
};

static int
compare_ords(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static size_t
unique_ords(uint32_t *ords, size_t n)
{
    size_t kept = 0;
    qsort(ords, n, sizeof *ords, compare_ords);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || ords[kept - 1] != ords[i])
            ords[kept++] = ords[i];
    }
    return kept;
}

/* Vectors [n, D] of a set of questions' anchors; NULL when memory is out. */
static float *
encode_anchors(struct round *r, const struct encoder *encoder,
    const struct learn_questions *q)
{
    float *vectors =
        mem_alloc_aligned(q->n * encoder_dims(encoder) + 1, sizeof *vectors);
    if (vectors != NULL && encoder_encode(encoder, q->anchors, q->n, vectors,
                               NULL, r->engine->tuner_pool) != OK) {
        mem_free(vectors);
        vectors = NULL;
    }
    return vectors;
}

/* The nearest live items of every tune question: the hard ones. */
static size_t
mine(struct round *r, const float *vectors, uint32_t *out, size_t max)
{
    const struct learn_questions *q = &r->data.tune;
    size_t D = ann_dims(r->live->index->ann);
    size_t n = 0;
    for (size_t i = 0; i < q->n && n + MINED_A_QUESTION <= max; i++) {
        struct ann_hit hits[MINED_A_QUESTION];
        struct ann_query query = {.vector = vectors + i * D,
            .k = MINED_A_QUESTION,
            .min_cosine = -2,
            .skip = q->questions[i].skip};
        struct ann_result result = {.hits = hits};
        if (ann_search(r->live->index->ann, &query, &result) != OK)
            break;
        for (size_t j = 0; j < result.n_hits; j++)
            out[n++] = hits[j].ord;
        engine_yield_to_searches(r->engine);
    }
    return n;
}

static void
tune_pool_release(struct tune_pool *pool)
{
    mem_free(pool->ords);
    mem_free(pool->items);
    mem_free(pool->texts);
    arena_release(&pool->arena);
}

/* All tune positives, the mined items, and random ones. */
static enum err
tune_pool_fill(struct round *r, struct tune_pool *pool, const float *vectors)
{
    const struct learn_questions *q = &r->data.tune;
    size_t span = roster_span(r->c->roster);
    size_t n = 0;
    struct rng rng;

    for (size_t i = 0; i < q->n; i++)
        n += q->questions[i].n_relevant;
    size_t cap = n + MINED_A_QUESTION * q->n + POOL_ITEMS_MAX;
    pool->ords = mem_alloc(cap, sizeof *pool->ords);
    pool->items = mem_calloc(cap, sizeof *pool->items);
    pool->texts = mem_calloc(cap, sizeof *pool->texts);
    if (pool->ords == NULL || pool->items == NULL || pool->texts == NULL)
        return ERR_NOMEM;
    n = 0;
    for (size_t i = 0; i < q->n; i++) {
        for (size_t j = 0; j < q->questions[i].n_relevant; j++)
            pool->ords[n++] = q->questions[i].relevant[j];
    }
    n += mine(r, vectors, pool->ords + n, MINED_A_QUESTION * q->n);
    n = unique_ords(pool->ords, n);
    rng_seed_stream(&rng, r->options.train.seed, 3);
    size_t room = n < POOL_ITEMS_MAX ? POOL_ITEMS_MAX - n : 0;
    if (span <= room) {
        n = 0;
        for (size_t i = 0; i < span; i++)
            pool->ords[n++] = (uint32_t)i;
    } else {
        for (size_t i = 0; i < room; i++)
            pool->ords[n++] = (uint32_t)rng_below(&rng, span);
        n = unique_ords(pool->ords, n);
    }
    roster_items(r->c->roster, pool->ords, n, pool->items);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (pool->items[i] == 0)
            continue;
        pool->items[kept] = pool->items[i];
        pool->ords[kept++] = pool->ords[i];
    }
    pool->n = kept;
    return learn_inputs(r->engine, r->c, &r->form, pool->items, pool->n,
        &pool->arena, pool->texts);
}

/* The metric of an encoder over the pool; NULL: of the live vectors. */
static enum err
tune_figure(struct round *r, const struct tune_pool *pool,
    const struct encoder *encoder, double *out)
{
    const struct learn_questions *q = &r->data.tune;
    const struct encoder *of =
        encoder != NULL ? encoder : encoder_ref_get(r->live->encoder);
    size_t D = encoder_dims(of);
    struct ann *index = NULL;
    struct judge_ranks ranks = {0};
    float *rows = mem_alloc_aligned(pool->n * D + 1, sizeof *rows);
    float *anchors = encode_anchors(r, of, q);
    enum err err = rows == NULL || anchors == NULL ? ERR_NOMEM : OK;

    if (err == OK)
        err = ann_new(&index, D, NULL);
    if (err == OK && encoder != NULL) {
        err = encoder_encode(
            encoder, pool->texts, pool->n, rows, NULL, r->engine->tuner_pool);
    } else {
        for (size_t i = 0; i < pool->n && err == OK; i++) {
            if (ann_get(r->live->index->ann, pool->ords[i], rows + i * D) != OK)
                memset(rows + i * D, 0, D * sizeof *rows);
        }
    }
    if (err == OK)
        err = ann_put_many(index, pool->ords, rows, pool->n);
    if (err == OK)
        err = judge_rank(&ranks, index, anchors, q->questions, q->n, false,
            r->engine->tuner_pool);
    if (err == OK)
        *out = judge_mean(&ranks, r->options.metric);
    judge_ranks_release(&ranks);
    ann_free(index);
    mem_free(rows);
    mem_free(anchors);
    return err;
}

/* out = live + blend (trained - live): Wortsman et al. 2022, eq. 1. */
static void
blend_params(
    float *out, const float *live, const float *trained, size_t n, float blend)
{
    for (size_t i = 0; i < n; i++)
        out[i] = live[i] + blend * (trained[i] - live[i]);
}

static enum err
try_blends(struct round *r, const struct tune_pool *pool)
{
    const struct encoder *live = encoder_ref_get(r->live->encoder);
    size_t n_params;
    const float *p_live = encoder_params_const(live, &n_params);
    float *p = encoder_params(r->candidate, &n_params);
    float *trained = mem_alloc_aligned(n_params, sizeof *trained);
    enum err err = trained == NULL ? ERR_NOMEM : OK;

    if (err == OK)
        memcpy(trained, p, n_params * sizeof *p);
    if (err == OK)
        err = tune_figure(r, pool, NULL, &r->chosen.before);
    r->chosen.n_pool = pool->n;
    for (size_t i = 0; i < ARRAY_LEN(blends) && err == OK; i++) {
        double figure;
        blend_params(p, p_live, trained, n_params, blends[i]);
        err = tune_figure(r, pool, r->candidate, &figure);
        if (err == OK && (i == 0 || figure > r->chosen.after)) {
            r->chosen.after = figure;
            r->chosen.blend = (double)blends[i];
        }
        if (err == OK && job_stopped(r->job))
            err = ERR_CANCELLED;
        job_set_progress(r->job,
            at_choose + (at_save - at_choose) * (double)(i + 1) /
                            (double)ARRAY_LEN(blends),
            -1);
    }
    if (err == OK)
        blend_params(p, p_live, trained, n_params, (float)r->chosen.blend);
    mem_free(trained);
    return err;
}

static enum err
choose(struct round *r)
{
    struct tune_pool pool = {0};
    float *vectors = NULL;
    enum err err = OK;

    r->chosen = (struct chosen){.blend = 1};
    if (r->data.tune.n < TUNE_MIN)
        return OK;
    job_set_phase(r->job, "choose", at_choose);
    arena_init(&pool.arena, LEARN_TEXT_BYTES_MAX);
    vectors =
        encode_anchors(r, encoder_ref_get(r->live->encoder), &r->data.tune);
    err = vectors == NULL ? ERR_NOMEM : tune_pool_fill(r, &pool, vectors);
    if (err == OK)
        err = try_blends(r, &pool);
    tune_pool_release(&pool);
    mem_free(vectors);
    return err;
}

/* ---------------------------------------------------------------- judge */

static enum err
calibrate(struct round *r)
{
    const struct learn_questions *q = &r->data.tune;
    const struct encoder *encoder = encoder_ref_get(r->shadow->encoder);
    struct snapshot *const of[] = {r->live, r->shadow};
    double temperature[] = {r->live->temperature, r->shadow->temperature};
    enum err err = OK;

    job_set_phase(r->job, "calibrate", at_judge);
    if (q->n < TUNE_MIN) {
        r->calibrated[2].temperature = r->shadow->temperature;
        return OK;
    }
    for (size_t i = 0; i < 2 && err == OK; i++) {
        struct judge_ranks ranks;
        if (i == 0)
            encoder = encoder_ref_get(r->live->encoder);
        else
            encoder = encoder_ref_get(r->shadow->encoder);
        float *anchors = encode_anchors(r, encoder, q);
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
judge_frozen(struct round *r, const struct judge_ranks *before,
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
neighbour_overlap(struct round *r, const float *before, const float *after)
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
    struct round *r = arg;
    return generations_count_judge(
        db, r->c->id, r->shadow->generation, &r->judge_uses);
}

/* One example of a gain or loss: its anchor, cut, and both ranks. */
static void
write_example(struct round *r, size_t i, const struct judge_ranks *before,
    const struct judge_ranks *after)
{
    const struct encoder_input *anchor = &r->data.judge.anchors[i];
    size_t len = MIN(anchor->len, (size_t)SHOWN_BYTES);
    size_t k = before->start[i];

    while (len > 0 && len < anchor->len &&
           ((unsigned char)anchor->text[len] & 0xC0) == 0x80)
        len--;
    buf_add_str(&r->report, "{\"anchor\":");
    buf_json_string(&r->report, anchor->text, len);
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
write_changes(struct round *r, const struct judge_ranks *before,
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
    for (size_t i = 0; i < n && i < EXAMPLES_SHOWN && moved[i].by > 0; i++) {
        if (i > 0)
            buf_add_char(&r->report, ',');
        write_example(r, moved[i].question, before, after);
    }
    buf_add_str(&r->report, "],\"losses\":[");
    for (size_t i = 0; i < n && i < EXAMPLES_SHOWN; i++) {
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

static enum err
judge(struct round *r)
{
    const struct learn_questions *q = &r->data.judge;
    struct judge_ranks before = {0}, after = {0};
    float *of_live = NULL, *of_shadow = NULL;
    enum err err;

    job_set_phase(r->job, "judge", (1 + at_judge) / 2);
    of_live = encode_anchors(r, encoder_ref_get(r->live->encoder), q);
    of_shadow = encode_anchors(r, encoder_ref_get(r->shadow->encoder), q);
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
        err = store_run(r->engine->store, count_judge, r);
    judge_ranks_release(&before);
    judge_ranks_release(&after);
    mem_free(of_live);
    mem_free(of_shadow);
    return err;
}

/* --------------------------------------------------------------- report */

static void
write_measures(struct buf *out, const char *key,
    const struct judge_difference *d, bool after)
{
    buf_printf(out, ",\"%s\":{", key);
    for (int m = 0; m < JUDGE_MEASURES; m++) {
        buf_printf(out, "%s\"%s\":", m > 0 ? "," : "", judge_measure_names[m]);
        buf_json_double(out, after ? d[m].after : d[m].before);
    }
    buf_add_char(out, '}');
}

static void
write_calibration(
    struct buf *out, const char *key, const struct judge_calibration *c)
{
    buf_printf(out, "\"%s\":{\"temperature\":", key);
    buf_json_double(out, c->temperature);
    buf_add_str(out, ",\"nll\":");
    buf_json_double(out, c->nll);
    buf_add_str(out, ",\"calibration_error\":");
    buf_json_double(out, c->error);
    buf_add_char(out, '}');
}

/* Whether to promote, and why, in words. */
static bool
verdict(const struct round *r, char *reason, size_t n)
{
    const struct judge_difference *d = &r->difference[r->options.metric];
    double lost = r->frozen_before - r->frozen_after;
    bool gain = d->low > 0;
    bool forgets = r->n_frozen > 0 && lost > r->options.margin;
    bool promote = (gain && !forgets) || r->options.force;
    int len = snprintf(reason, n,
        "%s %.3f -> %.3f, interval %+.3f..%+.3f over %zu judged groups",
        judge_measure_names[r->options.metric], d->before, d->after, d->low,
        d->high, d->n_groups);

    if (len < 0 || (size_t)len >= n)
        return promote;
    if (forgets)
        len += snprintf(reason + len, n - (size_t)len,
            "; the %zu older judged questions lose %.3f, more than %.3f",
            r->n_frozen, lost, r->options.margin);
    snprintf(reason + len, n - (size_t)len, ": %s",
        promote           ? gain && !forgets ? "promoted" : "promoted by force"
        : forgets && gain ? "not promoted, it forgets"
                          : "not promoted");
    return promote;
}

/* The parts of the report that do not need a judge; ends open. */
static void
write_training(struct round *r)
{
    struct buf *b = &r->report;
    buf_add_str(b, "\"train\":{\"options\":");
    learn_options_write(&r->options, r->form.reads, b);
    buf_printf(b, ",\"examples\":%zu,\"new_pairs\":%zu,\"replayed_pairs\":%zu",
        r->data.n_examples, r->data.n_new, r->data.n_replayed);
    if (!r->resumed) {
        buf_printf(b, ",\"steps\":%zu,\"loss\":", r->trained.n_steps);
        buf_json_double(b, r->trained.loss);
        buf_add_str(b, ",\"temperature\":");
        buf_json_double(b, r->trained.temperature);
        buf_printf(b, ",\"pairs_per_second\":%.0f,\"peak_bytes\":%" PRIu64,
            r->trained.pairs_per_second, r->trained.peak_bytes);
        buf_add_str(b, "},\"choose\":{\"blend\":");
        buf_json_double(b, r->chosen.blend);
        buf_printf(b, ",\"pool\":%zu,\"before\":", r->chosen.n_pool);
        buf_json_double(b, r->chosen.before);
        buf_add_str(b, ",\"after\":");
        buf_json_double(b, r->chosen.after);
    }
    buf_add_char(b, '}');
}

static void
write_judgement(struct round *r, const char *reason, bool promote)
{
    struct buf *b = &r->report;
    const struct judge_difference *d = &r->difference[r->options.metric];

    buf_printf(b,
        ",\"judge\":\"%s\",\"metric\":\"%s\",\"questions\":%zu,"
        "\"groups\":%zu,\"judge_uses\":%" PRId64,
        r->data.views ? "views" : "pairs",
        judge_measure_names[r->options.metric], d->n_questions, d->n_groups,
        r->judge_uses);
    write_measures(b, "before", r->difference, false);
    write_measures(b, "after", r->difference, true);
    buf_add_str(b, ",\"gain\":");
    buf_json_double(b, d->gain);
    buf_add_str(b, ",\"interval\":[");
    buf_json_double(b, d->low);
    buf_add_char(b, ',');
    buf_json_double(b, d->high);
    buf_printf(b, "],\"frozen\":{\"questions\":%zu,\"before\":", r->n_frozen);
    buf_json_double(b, r->frozen_before);
    buf_add_str(b, ",\"after\":");
    buf_json_double(b, r->frozen_after);
    buf_add_str(b, ",\"margin\":");
    buf_json_double(b, r->options.margin);
    buf_printf(
        b, "},\"questions_changed\":%zu,\"neighbour_overlap\":", r->n_changed);
    buf_json_double(b, r->overlap);
    buf_add_str(b, ",\"calibration\":{");
    write_calibration(b, "live", &r->calibrated[0]);
    buf_add_char(b, ',');
    write_calibration(b, "trained", &r->calibrated[1]);
    buf_add_char(b, ',');
    write_calibration(b, "calibrated", &r->calibrated[2]);
    buf_printf(b, "},\"promoted\":%s,\"forced\":%s,\"reason\":",
        promote ? "true" : "false", r->options.force ? "true" : "false");
    buf_json_cstr(b, reason);
}

/* {"reason", "generation", "judge": report} */
static void
write_result(const struct round *r, const char *reason, int64_t generation,
    struct buf *out)
{
    buf_add_str(out, "{\"reason\":");
    buf_json_cstr(out, reason);
    buf_printf(out, ",\"generation\":%" PRId64 ",\"judge\":", generation);
    buf_add(out, r->report.data, r->report.len);
    buf_add_char(out, '}');
}

/* --------------------------------------------------------------- states */

static enum err
refuse_early(struct round *r)
{
    char reason[256];
    struct buf result;

    snprintf(reason, sizeof reason,
        "%s %.3f -> %.3f on the %zu tune questions over %zu items: no better "
        "than the live generation, not judged, not promoted",
        judge_measure_names[r->options.metric], r->chosen.before,
        r->chosen.after, r->data.tune.n, r->chosen.n_pool);
    buf_clear(&r->report);
    buf_add_char(&r->report, '{');
    write_training(r);
    buf_add_str(&r->report, ",\"promoted\":false,\"reason\":");
    buf_json_cstr(&r->report, reason);
    buf_add_char(&r->report, '}');
    buf_init(&result, REPORT_BYTES_MAX);
    write_result(r, reason, 0, &result);
    enum err err = buf_status(&result);
    if (err == OK)
        job_end(r->job, JOB_REFUSED, result.data, NULL);
    buf_release(&result);
    return err;
}

static enum err
save_candidate(struct round *r)
{
    struct candidate candidate = {.encoder = r->candidate,
        .temperature = r->trained.temperature,
        .seed = r->options.train.seed,
        .pairs_upto = r->data.pairs_upto};

    job_set_phase(r->job, "save", at_save);
    failpoint("learn_before_save");
    r->candidate = NULL; /* taken, whatever comes */
    return lineage_register(
        r->c, &candidate, job_id(r->job), &r->shadow, &r->fault);
}

static bool
on_reembed(void *arg, int64_t done, int64_t total)
{
    struct round *r = arg;
    double share = total > 0 ? (double)done / (double)total : 1;
    job_set_progress(r->job, at_reembed + share * (at_judge - at_reembed), -1);
    return !job_stopped(r->job);
}

static enum err
embed_shadow(struct round *r)
{
    struct reembed_options options = {.pool = r->engine->tuner_pool,
        .gentle = true,
        .progress = on_reembed,
        .progress_arg = r};
    return reembed_run(r->c, r->shadow, &options);
}

/* Publish or refuse, with the report as the job's result. */
static enum err
decide(struct round *r)
{
    char reason[512];
    struct buf result;
    bool promote = verdict(r, reason, sizeof reason);
    int64_t generation = r->shadow->generation;
    enum err err;

    write_judgement(r, reason, promote);
    buf_add_char(&r->report, '}');
    buf_init(&result, REPORT_BYTES_MAX);
    write_result(r, reason, generation, &result);
    err = buf_status(&r->report);
    if (err == OK)
        err = buf_status(&result);
    failpoint("learn_before_publish");
    for (int tries = 0; err == OK && promote && tries < 5; tries++) {
        err = lineage_publish(r->c, r->shadow, r->calibrated[2].temperature,
            r->report.data, r->job, JOB_PROMOTED, result.data, &r->fault);
        if (err != ERR_CONFLICT || tries == 4)
            break;
        err = embed_shadow(r);
    }
    if (err == OK && !promote) {
        err = lineage_discard(
            r->c, generation, GENERATION_REFUSED, r->report.data, &r->fault);
        if (err == OK)
            job_end(r->job, JOB_REFUSED, result.data, NULL);
    }
    if (err == OK)
        log_info("learn",
            "round_ended collection=%s generation=%" PRId64
            " promoted=%d questions=%zu",
            r->c->name, generation, promote, r->data.judge.n);
    buf_release(&result);
    return err;
}

/* From the shadow on. */
static enum err
finish(struct round *r)
{
    enum err err;

    job_set_phase(r->job, "reembed", at_reembed);
    err = embed_shadow(r);
    if (err == OK)
        err = calibrate(r);
    if (err == OK && job_stopped(r->job))
        err = ERR_CANCELLED;
    if (err == OK) {
        buf_clear(&r->report);
        buf_add_char(&r->report, '{');
        write_training(r);
        err = judge(r);
    }
    if (err == OK && job_stopped(r->job))
        err = ERR_CANCELLED;
    return err == OK ? decide(r) : err;
}

/* Up to the saved candidate; *ended when the round was refused before. */
static enum err
begin(struct round *r, bool *ended)
{
    char resume[160];
    enum err err;

    snprintf(resume, sizeof resume,
        "{\"pretext\":%d,\"views\":%s,\"pairs_seen\":%" PRId64
        ",\"pairs_upto\":%" PRId64 ",\"items_upto\":%" PRId64 "}",
        (int)r->resume.pretext, r->resume.views ? "true" : "false",
        r->resume.pairs_seen, r->resume.pairs_upto, r->resume.items_upto);
    err = job_save_resume(r->job, resume);
    if (err == OK)
        err = train_candidate(r);
    if (err == OK)
        err = choose(r);
    if (err == OK && r->data.tune.n >= TUNE_MIN && !r->options.force &&
        !(r->chosen.after > r->chosen.before)) {
        *ended = true;
        return refuse_early(r);
    }
    if (err == OK)
        err = save_candidate(r);
    return err;
}

/* What an earlier run of the job kept; unknown when there was none. */
static void
read_resume(const char *json, struct learn_resume *out)
{
    struct learn_resume r = {.known = true};
    int64_t pretext = 0;
    struct json *root;
    enum err err;

    if (json == NULL || json_parse(json, strlen(json), 4096, &root, NULL) != OK)
        return;
    err = json_get_i64(root, "", "pretext", JSON_REQUIRED, LEARN_PAIRS,
        LEARN_INSTANCES, &pretext, NULL);
    if (err == OK)
        err = json_get_bool(root, "", "views", JSON_REQUIRED, &r.views, NULL);
    if (err == OK)
        err = json_get_i64(root, "", "pairs_seen", JSON_REQUIRED, 0, INT64_MAX,
            &r.pairs_seen, NULL);
    if (err == OK)
        err = json_get_i64(root, "", "pairs_upto", JSON_REQUIRED, 0, INT64_MAX,
            &r.pairs_upto, NULL);
    if (err == OK)
        err = json_get_i64(root, "", "items_upto", JSON_REQUIRED, 0, INT64_MAX,
            &r.items_upto, NULL);
    r.pretext = (enum learn_pretext)pretext;
    if (err == OK)
        *out = r;
    json_free(root);
}

/* Is the collection's shadow the candidate that an earlier run of this job
   saved? The file says so, not the job: a crash may come between the two. */
static enum err
find_saved(struct round *r)
{
    struct snapshot *shadow = collection_shadow(r->c);
    struct generation_row row;
    struct arena arena;
    struct db *db;
    enum err err;

    if (shadow == NULL)
        return OK;
    arena_init(&arena, SMALL_ARENA_BYTES);
    err = store_read_begin(r->engine->store, &db);
    if (err == OK) {
        err = generations_get(db, r->c->id, shadow->generation, &arena, &row);
        store_read_end(r->engine->store, db);
    }
    r->resumed = err == OK && row.state == GENERATION_BUILDING &&
                 row.job == job_id(r->job);
    if (r->resumed)
        r->shadow = shadow;
    else
        snapshot_unref(shadow);
    arena_release(&arena);
    return err == ERR_NOT_FOUND ? OK : err;
}

/* What a round that did not reach its end leaves: nothing when it was
   cancelled or failed; everything when the daemon stops. */
static enum err
give_up(struct round *r, enum err err)
{
    bool shutdown = err == ERR_CANCELLED && !job_is_cancelled(r->job);
    if (shutdown)
        return ERR_CANCELLED;
    if (r->shadow != NULL) {
        enum err swept = lineage_discard(
            r->c, r->shadow->generation, GENERATION_DISCARDED, NULL, NULL);
        if (swept != OK)
            log_warn("learn", "discard_failed generation=%" PRId64 " err=%s",
                r->shadow->generation, err_text(swept));
    }
    if (err == ERR_CANCELLED)
        job_end(r->job, JOB_CANCELLED, NULL, NULL);
    else
        job_end(r->job, JOB_FAILED, NULL,
            r->fault.detail[0] != '\0' ? r->fault.detail : err_text(err));
    return OK;
}

enum err
learn_run(struct engine *engine, struct collection *c, struct job *job)
{
    struct round *r = mem_calloc(1, sizeof *r);
    bool ended = false;
    enum err err;

    if (r == NULL)
        return ERR_NOMEM;
    r->engine = engine;
    r->c = c;
    r->job = job;
    buf_init(&r->report, REPORT_BYTES_MAX);
    read_resume(job_resume(job), &r->resume);
    r->live = collection_live(c);
    job_set_phase(job, "collect", 0);
    err = find_saved(r);
    if (err == OK && encoder_ref_get(r->live->encoder) == NULL)
        err = fault_set(&r->fault, ERR_UNSUPPORTED, "",
            "a collection of external vectors has no encoder to train");
    if (err == OK) {
        learn_form_of(encoder_ref_get(r->live->encoder), &r->form);
        err = learn_plan(engine, c, &r->form, job_options(job), &r->resume,
            &r->options, &r->fault);
    }
    if (err == OK)
        err = learn_collect(
            &r->data, engine, c, &r->form, &r->options, &r->resume, &r->fault);
    if (err == OK && !r->resumed)
        err = begin(r, &ended);
    if (err == OK && !ended)
        err = finish(r);
    if (err != OK)
        err = give_up(r, err);
    learn_data_release(&r->data);
    encoder_free(r->candidate);
    snapshot_unref(r->live);
    snapshot_unref(r->shadow);
    buf_release(&r->report);
    mem_free(r);
    return err;
}
