#include "engine/learn_mine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/kern.h"

#define BLOCK 64      /* pairs searched at once */
#define CANDIDATES 32 /* nearest items that are looked at */
#define PICTURE_BYTES_MAX ((size_t)512 << 20)

size_t
learn_mine_choose(const struct learn_candidate *candidates, size_t n,
    double positive, size_t max, uint32_t *out,
    struct learn_mine_counts *counts)
{
    double limit = positive - LEARN_MINE_MARGIN * fabs(positive);
    size_t taken = 0;

    for (size_t i = 0; i < n && taken < max; i++) {
        const struct learn_candidate *c = &candidates[i];
        if (c->known) {
            counts->known++;
        } else if (c->barred) {
            counts->barred++;
        } else if (!(c->cosine <= limit)) {
            counts->near++;
        } else {
            out[taken++] = (uint32_t)i;
        }
    }
    return taken;
}

/* An anchor's key with one of its positives'. */
struct known {
    uint64_t anchor, positive;
};

struct mining {
    struct learn_mined *out;
    struct learn_data *data;
    struct collection *c;
    struct snapshot *live;
    size_t max; /* negatives a pair */
    int64_t items_upto;
    size_t D;
    struct known *known;      /* [n_examples] sorted */
    struct batch_side **side; /* [n_sides] by ordinal; NULL: not read */
    size_t n_sides;
    size_t picture_bytes; /* taken */
    struct encoder_input *inputs;
    float *anchors, *positives; /* [BLOCK, D] */
    struct ann_hit *hits;       /* [BLOCK, CANDIDATES] */
    struct ann_query queries[BLOCK];
    struct ann_result results[BLOCK];
};

static int
compare_known(const void *a, const void *b)
{
    const struct known *x = a, *y = b;
    if (x->anchor != y->anchor)
        return x->anchor < y->anchor ? -1 : 1;
    return (x->positive > y->positive) - (x->positive < y->positive);
}

static int
compare_keys(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static int
compare_ords(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void
mining_release(struct mining *m)
{
    mem_free(m->known);
    mem_free(m->side);
    mem_free(m->inputs);
    mem_free(m->anchors);
    mem_free(m->positives);
    mem_free(m->hits);
}

static enum err
mining_init(struct mining *m)
{
    size_t n = m->data->n_examples;

    m->D = ann_dims(m->live->index->ann);
    m->n_sides = roster_span(m->c->roster);
    m->known = mem_alloc(n + 1, sizeof *m->known);
    m->side = mem_calloc(m->n_sides + 1, sizeof *m->side);
    m->inputs = mem_alloc(BLOCK, sizeof *m->inputs);
    m->anchors = mem_alloc_aligned(BLOCK * m->D, sizeof *m->anchors);
    m->positives = mem_alloc_aligned(BLOCK * m->D, sizeof *m->positives);
    m->hits = mem_alloc((size_t)BLOCK * CANDIDATES, sizeof *m->hits);
    if (m->known == NULL || m->side == NULL || m->inputs == NULL ||
        m->anchors == NULL || m->positives == NULL || m->hits == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        m->known[i] = (struct known){.anchor = m->data->examples[i].anchor.key,
            .positive = m->data->examples[i].positive.key};
    qsort(m->known, n, sizeof *m->known, compare_known);
    return OK;
}

/* ---- the items that are near --------------------------------------------- */

/* Read what the block's hits hold and nobody has read yet. */
static enum err
read_sides(struct mining *m, size_t n)
{
    struct arena *arena = &m->data->arena;
    struct engine *engine = m->c->engine;
    uint32_t ords[BLOCK * CANDIDATES];
    int64_t items[BLOCK * CANDIDATES];
    struct encoder_input inputs[BLOCK * CANDIDATES];
    size_t n_ords = 0, kept = 0;
    enum err err;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < m->results[i].n_hits; j++) {
            uint32_t ord = m->results[i].hits[j].ord;
            if (ord < m->n_sides && m->side[ord] == NULL)
                ords[n_ords++] = ord;
        }
    }
    qsort(ords, n_ords, sizeof *ords, compare_ords);
    for (size_t i = 0; i < n_ords; i++) {
        if (kept == 0 || ords[kept - 1] != ords[i])
            ords[kept++] = ords[i];
    }
    size_t bytes = learn_picture_bytes(&m->data->form);
    if (kept == 0 || m->picture_bytes + kept * bytes > PICTURE_BYTES_MAX)
        return OK;
    m->picture_bytes += kept * bytes;
    roster_items(m->c->roster, ords, kept, items);
    for (size_t i = 0; i < kept; i++) {
        if (items[i] > m->items_upto)
            items[i] = 0;
    }
    err =
        learn_inputs(engine, m->c, &m->data->form, items, kept, arena, inputs);
    for (size_t i = 0; i < kept && err == OK; i++) {
        if (items[i] == 0 || learn_is_absent(&inputs[i]))
            continue;
        struct batch_side *side = arena_alloc(arena, 1, sizeof *side);
        if (side == NULL)
            return ERR_NOMEM;
        *side = (struct batch_side){
            .input = inputs[i], .key = learn_key(&inputs[i])};
        m->side[ords[i]] = side;
    }
    return err;
}

static bool
is_known(const struct mining *m, uint32_t example, uint32_t ord, uint64_t key)
{
    const struct batch_example *e = &m->data->examples[example];
    const struct learn_ords *ords = &m->data->ords[example];
    const struct known pair = {.anchor = e->anchor.key, .positive = key};
    uint64_t side = learn_side(ords->anchor, &e->anchor.input);
    return ord == ords->positive || learn_is_known(m->data, side, ord) ||
           key == e->anchor.key || key == e->positive.key ||
           bsearch(&pair, m->known, m->data->n_examples, sizeof pair,
               compare_known) != NULL;
}

/* ---- one pair ------------------------------------------------------------ */

static void
note_suspect(struct mining *m, uint32_t example, const struct ann_hit *hit,
    double positive)
{
    struct learn_mined *out = m->out;
    size_t at = out->n_suspects;

    while (
        at > 0 && hit->cosine - positive > out->suspects[at - 1].cosine -
                                               out->suspects[at - 1].positive)
        at--;
    if (at == LEARN_MINE_SUSPECTS)
        return;
    out->n_suspects = MIN(out->n_suspects + 1, (size_t)LEARN_MINE_SUSPECTS);
    memmove(&out->suspects[at + 1], &out->suspects[at],
        (out->n_suspects - at - 1) * sizeof *out->suspects);
    out->suspects[at] = (struct learn_suspect){.example = example,
        .ord = hit->ord,
        .positive = positive,
        .cosine = hit->cosine};
}

/* The example's own negatives first, then those of the candidates chosen. */
static enum err
give(struct mining *m, struct batch_example *e, const struct ann_hit *const *of,
    const uint32_t *chosen, size_t n)
{
    struct batch_side *all =
        arena_alloc(&m->data->arena, e->n_negatives + n, sizeof *all);

    if (all == NULL)
        return ERR_NOMEM;
    if (e->n_negatives > 0)
        memcpy(all, e->negatives, e->n_negatives * sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[e->n_negatives + i] = *m->side[of[chosen[i]]->ord];
    e->negatives = all;
    e->n_negatives += n;
    m->out->n_negatives += n;
    m->out->n_pairs++;
    return OK;
}

static enum err
mine_pair(struct mining *m, uint32_t example, size_t row)
{
    struct batch_example *e = &m->data->examples[example];
    const struct ann_result *result = &m->results[row];
    struct learn_candidate candidates[CANDIDATES] = {{.known = false}};
    const struct ann_hit *of[CANDIDATES];
    uint32_t chosen[BATCH_NEGATIVES_MAX];
    size_t n = 0;
    double positive = kern()->dot_f64(
        m->anchors + row * m->D, m->positives + row * m->D, m->D);

    for (size_t j = 0; j < result->n_hits; j++) {
        const struct ann_hit *hit = &result->hits[j];
        if (hit->ord >= m->n_sides || m->side[hit->ord] == NULL)
            continue;
        uint64_t key = m->side[hit->ord]->key;
        of[n] = hit;
        candidates[n++] = (struct learn_candidate){.cosine = hit->cosine,
            .known = is_known(m, example, hit->ord, key),
            .barred = bsearch(&key, m->data->barred, m->data->n_barred,
                          sizeof key, compare_keys) != NULL};
    }
    size_t max = MIN(m->max, BATCH_NEGATIVES_MAX - e->n_negatives);
    size_t near = m->out->refused.near;
    size_t taken = learn_mine_choose(
        candidates, n, positive, max, chosen, &m->out->refused);
    for (size_t i = 0; i < n && m->out->refused.near > near; i++) {
        if (!candidates[i].known && !candidates[i].barred) {
            note_suspect(m, example, of[i], positive);
            break;
        }
    }
    return taken > 0 ? give(m, e, of, chosen, taken) : OK;
}

static enum err
encode_side(struct mining *m, uint32_t first, size_t n, bool anchor, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const struct batch_example *e = &m->data->examples[first + i];
        m->inputs[i] = anchor ? e->anchor.input : e->positive.input;
    }
    return encoder_encode(encoder_ref_get(m->live->encoder), m->inputs, n, out,
        NULL, m->c->engine->tuner_pool);
}

static enum err
mine_block(struct mining *m, uint32_t first, size_t n)
{
    enum err err = encode_side(m, first, n, true, m->anchors);

    if (err == OK)
        err = encode_side(m, first, n, false, m->positives);
    for (size_t i = 0; i < n; i++) {
        m->queries[i] = (struct ann_query){.vector = m->anchors + i * m->D,
            .k = CANDIDATES,
            .min_cosine = -2,
            .skip = m->data->ords[first + i].anchor};
        m->results[i] = (struct ann_result){.hits = m->hits + i * CANDIDATES};
    }
    if (err == OK)
        err = ann_search_many(m->live->index->ann, m->queries, m->results, n);
    if (err == OK)
        err = read_sides(m, n);
    for (size_t i = 0; i < n && err == OK; i++)
        err = mine_pair(m, first + (uint32_t)i, i);
    return err;
}

enum err
learn_mine(struct learn_mined *out, struct learn_data *data,
    struct collection *c, struct snapshot *live,
    const struct learn_options *options, int64_t items_upto, struct job *job)
{
    struct mining *m = mem_calloc(1, sizeof *m);
    enum err err;

    if (m == NULL)
        return ERR_NOMEM;
    *out = (struct learn_mined){.n_pairs = 0};
    *m = (struct mining){.out = out,
        .data = data,
        .c = c,
        .live = live,
        .max = options->train.hard_negatives,
        .items_upto = items_upto};
    err = mining_init(m);
    for (size_t i = 0; i < data->n_examples && err == OK; i += BLOCK) {
        err = mine_block(
            m, (uint32_t)i, MIN(data->n_examples - i, (size_t)BLOCK));
        engine_yield_to_searches(c->engine);
        if (err == OK && job != NULL && job_stopped(job))
            err = ERR_CANCELLED;
    }
    mining_release(m);
    mem_free(m);
    return err;
}
