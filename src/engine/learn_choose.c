/*
 * learn_choose.c - how far to move from the live weights to the trained ones,
 * on the tune split over a pool of items (Wortsman et al. 2022,
 * arXiv:2109.01903).
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/learn_round.h"

#define POOL_ITEMS_MAX 20000           /* of the pool that chooses the blend */
#define POOL_ITEMS_PRETRAINED_MAX 4000 /* of a network that takes longer */
#define POOL_PICTURE_BYTES_MAX ((size_t)512 << 20)
#define MINED_A_QUESTION 10

static const float blends[] = {1.0f, 0.75f, 0.5f};

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

float *
learn_encode_anchors(struct learn_round *r, const struct encoder *encoder,
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
mine(struct learn_round *r, const float *vectors, uint32_t *out, size_t max)
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

static bool
is_adapter(const struct learn_round *r)
{
    return r->options.train.update == TRAIN_ADAPTER;
}

/* Items that the pool holds at most: of pictures what fits into memory. */
static size_t
pool_max(const struct learn_round *r)
{
    size_t bytes = learn_picture_bytes(&r->form);
    size_t most =
        r->form.pretrained ? POOL_ITEMS_PRETRAINED_MAX : POOL_ITEMS_MAX;
    return bytes == 0 ? most : MIN(most, POOL_PICTURE_BYTES_MAX / bytes);
}

/* All tune positives, the mined items, and random ones. */
static enum err
tune_pool_fill(
    struct learn_round *r, struct tune_pool *pool, const float *vectors)
{
    const struct learn_questions *q = &r->data.tune;
    size_t span = roster_span(r->c->roster);
    size_t n = 0, max = pool_max(r);
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
    n += mine(r, vectors, pool->ords + n,
        MIN(MINED_A_QUESTION * q->n, max - MIN(n, max)));
    n = unique_ords(pool->ords, n);
    rng_seed_stream(&rng, r->options.train.seed, 3);
    size_t room = n < max ? max - n : 0;
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

/* The metric of an encoder over the pool; NULL: of the live one, whose items
   have their vectors, as with another adapter. */
static enum err
tune_figure(struct learn_round *r, const struct tune_pool *pool,
    const struct encoder *encoder, double *out)
{
    const struct learn_questions *q = &r->data.tune;
    const struct encoder *of =
        encoder != NULL ? encoder : encoder_ref_get(r->live->encoder);
    size_t D = encoder_dims(of);
    struct ann *index = NULL;
    struct judge_ranks ranks = {0};
    float *rows = mem_alloc_aligned(pool->n * D + 1, sizeof *rows);
    float *anchors = learn_encode_anchors(r, of, q);
    bool of_items = encoder != NULL && !is_adapter(r);
    enum err err = rows == NULL || anchors == NULL ? ERR_NOMEM : OK;

    if (err == OK)
        err = ann_new(&index, D, NULL);
    if (err == OK && of_items) {
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

/* What there is to blend: an adapter, or all that a family has, which is the
   first part of a parent with an adapter. */
struct blended {
    float *p;
    const float *live; /* or (NULL) the identity */
    size_t n;
    size_t D;
};

static struct blended
find_blended(struct learn_round *r)
{
    const struct encoder *live = encoder_ref_get(r->live->encoder);
    struct blended b = {.D = encoder_dims(live)};

    b.p = encoder_params(r->candidate, &b.n);
    if (is_adapter(r)) {
        b.p = encoder_adapter(r->candidate);
        b.live = encoder_adapter_const(live);
        b.n = b.D * b.D;
    } else {
        size_t n_live;
        b.live = encoder_params_const(live, &n_live);
    }
    return b;
}

/* out = live + blend (trained - live): Wortsman et al. 2022, eq. 1. */
static void
blend_params(const struct blended *b, const float *trained, float blend)
{
    for (size_t i = 0; i < b->n; i++) {
        float live = b->live != NULL ? b->live[i] : i % (b->D + 1) == 0;
        b->p[i] = live + blend * (trained[i] - live);
    }
}

static enum err
try_blends(struct learn_round *r, const struct tune_pool *pool)
{
    const struct blended b = find_blended(r);
    float *trained = mem_alloc_aligned(b.n, sizeof *trained);
    enum err err = trained == NULL ? ERR_NOMEM : OK;

    if (err == OK)
        memcpy(trained, b.p, b.n * sizeof *trained);
    if (err == OK)
        err = tune_figure(r, pool, NULL, &r->chosen.before);
    r->chosen.n_pool = pool->n;
    for (size_t i = 0; i < ARRAY_LEN(blends) && err == OK; i++) {
        double figure;
        blend_params(&b, trained, blends[i]);
        err = tune_figure(r, pool, r->candidate, &figure);
        if (err == OK && (i == 0 || figure > r->chosen.after)) {
            r->chosen.after = figure;
            r->chosen.blend = (double)blends[i];
        }
        if (err == OK && job_stopped(r->job))
            err = ERR_CANCELLED;
        job_set_progress(r->job,
            LEARN_AT_CHOOSE + (LEARN_AT_SAVE - LEARN_AT_CHOOSE) *
                                  (double)(i + 1) / (double)ARRAY_LEN(blends),
            -1);
    }
    if (err == OK)
        blend_params(&b, trained, (float)r->chosen.blend);
    mem_free(trained);
    return err;
}

enum err
learn_choose(struct learn_round *r)
{
    struct tune_pool pool = {0};
    float *vectors = NULL;
    enum err err = OK;

    r->chosen = (struct learn_chosen){.blend = 1};
    if (r->data.tune.n < LEARN_TUNE_MIN)
        return OK;
    job_set_phase(r->job, "choose", LEARN_AT_CHOOSE);
    arena_init(&pool.arena, LEARN_TEXT_BYTES_MAX);
    vectors = learn_encode_anchors(
        r, encoder_ref_get(r->live->encoder), &r->data.tune);
    err = vectors == NULL ? ERR_NOMEM : tune_pool_fill(r, &pool, vectors);
    if (err == OK)
        err = try_blends(r, &pool);
    tune_pool_release(&pool);
    mem_free(vectors);
    return err;
}
