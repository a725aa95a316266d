/*
 * learn_vectors.c - what an adapter learns from: the vectors of all sides as
 * the encoder without it makes them.
 *
 * They do not change while it learns, so each content is encoded once; what
 * is an item has its vector in the live index already. Only pairs whose anchor
 * is a query are of use. The anchors that tune and judge keep theirs too, for
 * the live encoder and the candidate alike.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/learn_round.h"

#define SIDES_AT_ONCE 256

/* A side, where its vector goes, and where it may lie already. */
struct side {
    struct encoder_input *input;
    uint64_t key;
    bool query;   /* of texts: a query's differs from an item's */
    uint32_t ord; /* ANN_NONE: it is no item */
    size_t slot;  /* among the vectors */
};

struct sides {
    struct learn_round *r;
    struct side *v; /* [n], sorted by content */
    size_t n, cap;
    float *vectors; /* [slots, D] in the arena */
    size_t D;
};

static int
compare_sides(const void *a, const void *b)
{
    const struct side *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->query != y->query)
        return x->query ? 1 : -1;
    return (x->ord > y->ord) - (x->ord < y->ord);
}

static bool
is_same(const struct side *a, const struct side *b)
{
    return a->key == b->key && a->query == b->query;
}

static void
add_side(
    struct sides *s, struct encoder_input *input, uint64_t key, uint32_t ord)
{
    bool text = input->image == NULL;
    ASSERT(s->n < s->cap);
    s->v[s->n++] = (struct side){
        .input = input, .key = key, .query = text && input->query, .ord = ord};
}

/* ---- examples ------------------------------------------------------------ */

/* Which examples there is room for: the last ones are the newest. */
static size_t
first_that_fits(const struct learn_round *r, size_t *n_sides)
{
    const struct learn_data *d = &r->data;
    size_t max = LEARN_VECTOR_BYTES_MAX / (r->form.dims * sizeof(float));
    size_t first = d->n_examples, sum = 0;

    while (first > 0) {
        const struct batch_example *e = &d->examples[first - 1];
        size_t more = e->anchor.input.query ? 2 + e->n_negatives : 0;
        if (sum + more > max)
            break;
        sum += more;
        first--;
    }
    *n_sides = sum;
    return first;
}

static enum err
copy_example(struct sides *s, const struct batch_example *e,
    const struct learn_ords *ords, struct batch_example *out)
{
    struct arena *arena = &s->r->data.arena;
    struct batch_side *negatives =
        arena_alloc(arena, e->n_negatives + 1, sizeof *negatives);

    if (negatives == NULL)
        return ERR_NOMEM;
    *out = *e;
    out->negatives = negatives;
    add_side(s, &out->anchor.input, e->anchor.key, ords->anchor);
    add_side(s, &out->positive.input, e->positive.key, ords->positive);
    for (size_t i = 0; i < e->n_negatives; i++) {
        negatives[i] = e->negatives[i];
        add_side(s, &negatives[i].input, negatives[i].key, ANN_NONE);
    }
    return OK;
}

static enum err
copy_examples(struct sides *s, size_t first)
{
    struct learn_round *r = s->r;
    struct learn_data *d = &r->data;
    enum err err = OK;

    r->vectors =
        arena_alloc(&d->arena, d->n_examples - first + 1, sizeof *r->vectors);
    if (r->vectors == NULL)
        return ERR_NOMEM;
    r->n_vectors = 0;
    for (size_t i = first; i < d->n_examples && err == OK; i++)
        if (d->examples[i].anchor.input.query)
            err = copy_example(
                s, &d->examples[i], &d->ords[i], &r->vectors[r->n_vectors++]);
    d->n_left_out += first;
    if (err == OK && r->n_vectors < 2)
        err = fault_set(&r->fault, ERR_INVALID, "",
            "an adapter learns from pairs whose anchor is asked with, a text "
            "or a picture: %zu of %zu pairs are such ones",
            r->n_vectors, d->n_examples);
    return err;
}

static void
add_anchors(struct sides *s, struct learn_questions *q)
{
    for (size_t i = 0; i < q->n; i++)
        add_side(
            s, &q->anchors[i], learn_key(&q->anchors[i]), q->questions[i].skip);
}

/* ---- vectors ------------------------------------------------------------- */

/* Encode the sides of these numbers. */
static enum err
encode(struct sides *s, const size_t *todo, size_t n)
{
    struct learn_round *r = s->r;
    const struct encoder *encoder = encoder_ref_get(r->live->encoder);
    struct encoder_input inputs[SIDES_AT_ONCE];
    float *rows = mem_alloc_aligned(SIDES_AT_ONCE * s->D, sizeof *rows);
    enum err err = rows == NULL ? ERR_NOMEM : OK;

    for (size_t i = 0; i < n && err == OK; i += SIDES_AT_ONCE) {
        size_t m = MIN(n - i, (size_t)SIDES_AT_ONCE);
        for (size_t j = 0; j < m; j++) {
            inputs[j] = *s->v[todo[i + j]].input;
            inputs[j].vector = NULL;
        }
        err = encoder_encode_plain(
            encoder, inputs, m, rows, NULL, r->engine->tuner_pool);
        for (size_t j = 0; j < m && err == OK; j++)
            memcpy(s->vectors + s->v[todo[i + j]].slot * s->D, rows + j * s->D,
                s->D * sizeof *rows);
        job_set_progress(
            r->job, LEARN_AT_TRAIN * (double)(i + m) / (double)n, -1);
        engine_yield_to_searches(r->engine);
        if (err == OK && job_stopped(r->job))
            err = ERR_CANCELLED;
    }
    mem_free(rows);
    return err;
}

/* One slot for each content. */
static size_t
number_slots(struct sides *s)
{
    size_t n = 0;

    qsort(s->v, s->n, sizeof *s->v, compare_sides);
    for (size_t i = 0; i < s->n; i++) {
        n += i == 0 || !is_same(&s->v[i], &s->v[i - 1]);
        s->v[i].slot = n - 1;
    }
    return n;
}

/* Of each content the first side, which is an item where any is. */
static enum err
find_vectors(struct sides *s)
{
    struct ann *ann = s->r->live->index->ann;
    size_t n_slots = number_slots(s), n_todo = 0;
    size_t *todo = mem_alloc(n_slots + 1, sizeof *todo);

    s->vectors =
        arena_alloc(&s->r->data.arena, n_slots * s->D + 1, sizeof(float));
    if (todo == NULL || s->vectors == NULL) {
        mem_free(todo);
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < s->n; i++) {
        const struct side *side = &s->v[i];
        float *vector = s->vectors + side->slot * s->D;
        side->input->vector = vector;
        if (i > 0 && side->slot == s->v[i - 1].slot)
            continue;
        if (side->ord == ANN_NONE || ann_get(ann, side->ord, vector) != OK)
            todo[n_todo++] = i;
    }
    enum err err = encode(s, todo, n_todo);
    mem_free(todo);
    return err;
}

enum err
learn_vectors(struct learn_round *r)
{
    struct sides s = {.r = r, .D = r->form.dims};
    size_t first = first_that_fits(r, &s.cap);

    s.cap += r->data.tune.n + r->data.judge.n;
    s.v = mem_alloc(s.cap + 1, sizeof *s.v);
    enum err err = s.v == NULL ? ERR_NOMEM : copy_examples(&s, first);
    if (err == OK) {
        job_set_phase(r->job, "encode", 0);
        add_anchors(&s, &r->data.tune);
        add_anchors(&s, &r->data.judge);
        err = find_vectors(&s);
    }
    mem_free(s.v);
    return err;
}
