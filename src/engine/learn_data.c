/*
 * learn_data.c - reading a round's data.
 *
 * Pairs are read by split in pages of short read transactions; those that
 * train are chosen; then the documents or pictures of the items that they name
 * are read, each once.
 */
#include "engine/learn_data.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/json.h"
#include "store/pairs.h"

#define PAGE 1000

static _Atomic size_t picture_room = LEARN_PICTURE_BYTES_MAX;

size_t
learn_picture_room(size_t bytes)
{
    return atomic_exchange(&picture_room, bytes);
}

/* One pair as read; what its items hold comes later. */
struct raw {
    int64_t id;
    int64_t anchor_item, positive_item; /* 0: a text */
    uint32_t anchor_ord, positive_ord;
    struct encoder_input anchor, positive;
    const char *negatives; /* JSON or NULL */
    uint64_t group;
    uint64_t label; /* of the positive, else of the anchor */
    float weight;
};

struct raws {
    struct raw *rows;
    size_t n, cap;
};

struct reading {
    struct learn_data *data;
    struct collection *c;
    struct raws *out;
    int64_t last;
};

static enum err
copy_side(struct reading *r, struct store_text id, struct store_text text,
    struct encoder_input *out, int64_t *item, uint32_t *ord)
{
    struct roster_entry entry;

    *ord = ANN_NONE;
    if (id.s != NULL) {
        if (!roster_find(r->c->roster, id.s, &entry))
            return ERR_NOT_FOUND;
        *item = entry.item;
        *ord = entry.ord;
        return OK;
    }
    out->text = arena_strndup(&r->data->arena, text.s, text.len);
    out->len = text.len;
    return out->text == NULL ? ERR_NOMEM : OK;
}

static enum err
read_pair(void *ctx, const struct pair_row *row)
{
    struct reading *r = ctx;
    struct raw raw = {.id = row->pair,
        .group = row->group_hash,
        .weight = (float)row->weight};
    enum err err = copy_side(r, row->anchor_id, row->anchor_text, &raw.anchor,
        &raw.anchor_item, &raw.anchor_ord);

    r->last = row->pair;
    if (err == OK)
        err = copy_side(r, row->positive_id, row->positive_text, &raw.positive,
            &raw.positive_item, &raw.positive_ord);
    raw.anchor.query = raw.anchor.text != NULL; /* what items are comes later */
    if (err == ERR_NOT_FOUND)
        return OK; /* deleted this moment: the pair is set aside */
    if (err == OK && row->negatives.s != NULL) {
        raw.negatives = arena_strndup(
            &r->data->arena, row->negatives.s, row->negatives.len);
        if (raw.negatives == NULL)
            err = ERR_NOMEM;
    }
    if (err != OK)
        return err;
    if (r->out->n == r->out->cap) {
        size_t cap = r->out->cap * 2 + 1024;
        void *grown = mem_realloc(r->out->rows, cap, sizeof *r->out->rows);
        if (grown == NULL)
            return ERR_NOMEM;
        r->out->rows = grown;
        r->out->cap = cap;
    }
    r->out->rows[r->out->n++] = raw;
    return OK;
}

/* The active pairs of a split with after < id <= upto. */
static enum err
read_split(struct engine *engine, struct collection *c, struct learn_data *data,
    enum pair_split split, int64_t after, int64_t upto, struct raws *out)
{
    struct reading r = {.data = data, .c = c, .out = out, .last = after};
    for (;;) {
        struct db *db;
        int64_t before = r.last;
        enum err err = store_read_begin(engine->store, &db);
        if (err != OK)
            return err;
        err = pairs_walk(db, c->id, split, r.last, upto, PAGE, read_pair, &r);
        store_read_end(engine->store, db);
        if (err != OK || r.last == before)
            return err;
    }
}

/* ---- what was put together ----------------------------------------------- */

#define SEED_ITEM 0x6974656d

uint64_t
learn_side(uint32_t ord, const struct encoder_input *input)
{
    return ord == ANN_NONE ? learn_key(input)
                           : hash_u64(((uint64_t)SEED_ITEM << 32) ^ ord);
}

static int
compare_known_items(const void *a, const void *b)
{
    const struct learn_known *x = a, *y = b;
    if (x->side != y->side)
        return x->side < y->side ? -1 : 1;
    return (x->ord > y->ord) - (x->ord < y->ord);
}

bool
learn_is_known(const struct learn_data *data, uint64_t side, uint32_t ord)
{
    const struct learn_known pair = {.side = side, .ord = ord};
    return data->n_known > 0 && bsearch(&pair, data->known, data->n_known,
                                    sizeof pair, compare_known_items) != NULL;
}

/* Before a part of the pairs is chosen: one that is left out is no less true.
 */
static enum err
note_known(struct learn_data *data, const struct raws *raws)
{
    data->known =
        arena_alloc(&data->arena, 2 * raws->n + 1, sizeof *data->known);
    if (data->known == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < raws->n; i++) {
        const struct raw *raw = &raws->rows[i];
        if (raw->positive_ord != ANN_NONE)
            data->known[data->n_known++] = (struct learn_known){
                .side = learn_side(raw->anchor_ord, &raw->anchor),
                .ord = raw->positive_ord};
        if (raw->anchor_ord != ANN_NONE)
            data->known[data->n_known++] = (struct learn_known){
                .side = learn_side(raw->positive_ord, &raw->positive),
                .ord = raw->anchor_ord};
    }
    qsort(data->known, data->n_known, sizeof *data->known, compare_known_items);
    return OK;
}

/* ---- sides that are items ------------------------------------------------ */

static int
compare_items(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Items that sides name, each once, with what the encoder reads of them. */
struct named {
    int64_t *items; /* sorted */
    struct encoder_input *inputs;
    uint64_t *labels;
    size_t n;
};

static void
named_release(struct named *named)
{
    mem_free(named->items);
    mem_free(named->inputs);
    mem_free(named->labels);
}

static enum err
named_collect(struct named *out, struct raws *const *all, size_t n_all)
{
    size_t n = 0, unique = 0;

    for (size_t a = 0; a < n_all; a++)
        n += 2 * all[a]->n;
    out->items = mem_alloc(n, sizeof *out->items);
    if (out->items == NULL)
        return ERR_NOMEM;
    n = 0;
    for (size_t a = 0; a < n_all; a++) {
        for (size_t i = 0; i < all[a]->n; i++) {
            const struct raw *raw = &all[a]->rows[i];
            if (raw->anchor_item != 0)
                out->items[n++] = raw->anchor_item;
            if (raw->positive_item != 0)
                out->items[n++] = raw->positive_item;
        }
    }
    qsort(out->items, n, sizeof *out->items, compare_items);
    for (size_t i = 0; i < n; i++) {
        if (unique == 0 || out->items[unique - 1] != out->items[i])
            out->items[unique++] = out->items[i];
    }
    out->n = unique;
    out->inputs = mem_alloc(unique, sizeof *out->inputs);
    out->labels = mem_alloc(unique, sizeof *out->labels);
    return out->inputs == NULL || out->labels == NULL ? ERR_NOMEM : OK;
}

static void
take_named(const struct named *named, int64_t item, struct encoder_input *input,
    uint64_t *label)
{
    const int64_t *at = bsearch(
        &item, named->items, named->n, sizeof *named->items, compare_items);
    size_t i = (size_t)(at - named->items);
    *input = named->inputs[i];
    if (named->labels[i] != 0)
        *label = named->labels[i];
}

/* Fill in the sides that are items. One picture is searched with like another:
   as an anchor it is a query. */
static enum err
resolve(struct engine *engine, struct collection *c, struct learn_data *data,
    const char *label, struct raws *const *all, size_t n_all)
{
    struct named named = {.n = 0};
    enum err err = named_collect(&named, all, n_all);

    if (err == OK)
        err = learn_inputs(engine, c, &data->form, named.items, named.n,
            &data->arena, named.inputs);
    if (err == OK)
        err = learn_labels(engine, label, named.items, named.n, named.labels);
    for (size_t a = 0; a < n_all && err == OK; a++) {
        for (size_t i = 0; i < all[a]->n; i++) {
            struct raw *raw = &all[a]->rows[i];
            if (raw->anchor_item != 0)
                take_named(&named, raw->anchor_item, &raw->anchor, &raw->label);
            raw->anchor.query |= raw->anchor.image != NULL;
            if (raw->positive_item != 0)
                take_named(
                    &named, raw->positive_item, &raw->positive, &raw->label);
        }
    }
    named_release(&named);
    return err;
}

/* ---- examples ------------------------------------------------------------ */

static struct batch_side
side_of(const struct encoder_input *input)
{
    return (struct batch_side){.input = *input, .key = learn_key(input)};
}

/* Given negatives: texts and items of a pair, as stored:
   [{"text": "..."} | {"id": "..."}, ...]. */
static enum err
read_negatives(struct engine *engine, struct collection *c,
    struct learn_data *data, const char *json, struct batch_example *example)
{
    struct json *root;
    struct batch_side *out =
        arena_alloc(&data->arena, BATCH_NEGATIVES_MAX, sizeof *out);
    if (out == NULL)
        return ERR_NOMEM;
    if (json_parse(json, strlen(json), 1 << 24, &root, NULL) != OK)
        return OK;
    enum err err = OK;
    size_t n = 0, bytes = learn_picture_bytes(&data->form);
    for (size_t i = 0;
         i < json_count(root) && n < BATCH_NEGATIVES_MAX && err == OK; i++) {
        const struct json *one = json_item(root, i);
        const char *s = NULL;
        size_t len = 0;
        struct encoder_input input = {0};
        struct roster_entry entry;
        if (data->form.reads == ENCODER_READS_TEXT &&
            json_get_str(one, "", "text", JSON_REQUIRED, &s, &len, NULL) ==
                OK) {
            input.text = arena_strndup(&data->arena, s, len);
            input.len = len;
            if (input.text == NULL)
                err = ERR_NOMEM;
        } else if (json_get_str(one, "", "id", JSON_REQUIRED, &s, &len, NULL) ==
                       OK &&
                   roster_find(c->roster, s, &entry)) {
            if (data->negative_bytes + bytes > picture_room / 2) {
                data->n_left_out++;
                continue;
            }
            data->negative_bytes += bytes;
            err = learn_inputs(
                engine, c, &data->form, &entry.item, 1, &data->arena, &input);
        }
        if (err == OK && !learn_is_absent(&input))
            out[n++] = side_of(&input);
    }
    json_free(root);
    example->negatives = out;
    example->n_negatives = n;
    return err;
}

static enum err
add_examples(struct engine *engine, struct collection *c,
    struct learn_data *data, const struct raws *raws)
{
    data->examples =
        arena_alloc(&data->arena, raws->n + 1, sizeof *data->examples);
    data->ords = arena_alloc(&data->arena, raws->n + 1, sizeof *data->ords);
    if (data->examples == NULL || data->ords == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < raws->n; i++) {
        const struct raw *raw = &raws->rows[i];
        if (learn_is_absent(&raw->anchor) || learn_is_absent(&raw->positive)) {
            data->n_absent++;
            continue;
        }
        struct batch_example example = {.anchor = side_of(&raw->anchor),
            .positive = side_of(&raw->positive),
            .weight = raw->weight,
            .group = raw->group,
            .label = raw->label};
        if (raw->negatives != NULL) {
            enum err err =
                read_negatives(engine, c, data, raw->negatives, &example);
            if (err != OK)
                return err;
        }
        if (example.anchor.key == example.positive.key)
            continue;
        data->ords[data->n_examples] = (struct learn_ords){
            .anchor = raw->anchor_ord, .positive = raw->positive_ord};
        data->examples[data->n_examples++] = example;
    }
    return OK;
}

struct known {
    uint64_t anchor, positive;
};

static int
compare_known(const void *a, const void *b)
{
    const struct known *x = a, *y = b;
    if (x->anchor != y->anchor)
        return x->anchor < y->anchor ? -1 : 1;
    return (x->positive > y->positive) - (x->positive < y->positive);
}

/* Pairs that say of one text that it is right and wrong for an anchor. What
   is known as a positive is masked as a negative by the batches; a person
   should look at both. */
static enum err
find_contradictions(struct learn_data *data)
{
    size_t n = data->n_examples;
    struct known *known = mem_alloc(n + 1, sizeof *known);

    if (known == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        known[i] = (struct known){.anchor = data->examples[i].anchor.key,
            .positive = data->examples[i].positive.key};
    qsort(known, n, sizeof *known, compare_known);
    for (size_t i = 0; i < n; i++) {
        const struct batch_example *e = &data->examples[i];
        for (size_t j = 0; j < e->n_negatives; j++) {
            const struct known pair = {
                .anchor = e->anchor.key, .positive = e->negatives[j].key};
            if (bsearch(&pair, known, n, sizeof pair, compare_known) == NULL)
                continue;
            if (data->n_contradictory < LEARN_CONTRADICTIONS)
                data->contradictory[data->n_contradictory] =
                    (struct learn_contradiction){.example = (uint32_t)i,
                        .negative = e->negatives[j].input};
            data->n_contradictory++;
            break;
        }
    }
    mem_free(known);
    return OK;
}

/* How many pairs fit into memory at once. */
static size_t
pairs_max(const struct learn_data *data)
{
    size_t bytes = learn_picture_bytes(&data->form);
    return bytes == 0 ? LEARN_EXAMPLES_MAX
                      : MIN(LEARN_EXAMPLES_MAX, picture_room / (2 * bytes));
}

static int
compare_ids(const void *a, const void *b)
{
    const struct raw *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* By anchor, in an order that is random but fixed. */
static int
compare_by_anchor(const void *a, const void *b)
{
    const struct raw *x = a, *y = b;
    uint64_t of_x = hash_u64((uint64_t)x->anchor_item);
    uint64_t of_y = hash_u64((uint64_t)y->anchor_item);
    if (of_x != of_y)
        return of_x < of_y ? -1 : 1;
    return compare_ids(a, b);
}

/* Of pairs that judge, whose pictures do not all fit into memory, always the
   same anchors with all that belongs to them. */
static void
thin_out(const struct learn_data *data, struct raws *raws)
{
    size_t max = pairs_max(data) / 2, n = max;

    if (raws->n <= max)
        return;
    qsort(raws->rows, raws->n, sizeof *raws->rows, compare_by_anchor);
    while (n > 0 && raws->rows[n].anchor_item == raws->rows[n - 1].anchor_item)
        n--;
    raws->n = n = n > 0 ? n : max; /* one anchor has more than fit */
    qsort(raws->rows, n, sizeof *raws->rows, compare_ids);
}

/* New pairs, and an equal share of earlier ones at random before them; all of
   them when nothing is new. raws becomes what was chosen. */
static enum err
choose_pairs(struct learn_data *data, struct raws *raws,
    const struct learn_options *options)
{
    size_t n_old = 0, max = pairs_max(data);

    while (n_old < raws->n && raws->rows[n_old].id <= data->pairs_seen)
        n_old++;
    size_t n_new = raws->n - n_old;
    size_t first_new = n_old;
    if (n_new > max) {
        data->n_left_out = n_new - max;
        first_new = raws->n - max;
        n_new = max;
    }
    size_t n_replay =
        n_new == 0 ? n_old
                   : MIN(n_old, (size_t)((double)n_new * options->replay));
    size_t room = data->form.reads == ENCODER_READS_IMAGE ? max - n_new : max;
    if (n_replay > room) {
        data->n_left_out += n_replay - room;
        n_replay = room;
    }
    uint32_t *pick = mem_alloc(n_old + 1, sizeof *pick);
    struct raw *chosen = mem_alloc(n_replay + n_new + 1, sizeof *chosen);
    if (pick == NULL || chosen == NULL) {
        mem_free(pick);
        mem_free(chosen);
        return ERR_NOMEM;
    }
    struct rng rng;
    rng_seed_stream(&rng, options->train.seed, 2);
    for (size_t i = 0; i < n_old; i++)
        pick[i] = (uint32_t)i;
    if (n_replay < n_old)
        rng_shuffle_u32(&rng, pick, n_old);
    for (size_t i = 0; i < n_replay; i++)
        chosen[i] = raws->rows[pick[i]];
    for (size_t i = 0; i < n_new; i++)
        chosen[n_replay + i] = raws->rows[first_new + i];
    mem_free(pick);
    mem_free(raws->rows);
    *raws = (struct raws){.rows = chosen, .n = n_replay + n_new};
    data->n_new = n_new;
    data->n_replayed = n_replay;
    return OK;
}

/* ---- questions ----------------------------------------------------------- */

enum err
learn_questions_alloc(
    struct learn_data *data, struct learn_questions *out, size_t n)
{
    out->questions = arena_calloc(&data->arena, n + 1, sizeof *out->questions);
    out->anchors = arena_calloc(&data->arena, n + 1, sizeof *out->anchors);
    out->frozen = arena_calloc(&data->arena, n + 1, sizeof *out->frozen);
    return out->questions == NULL || out->anchors == NULL || out->frozen == NULL
               ? ERR_NOMEM
               : OK;
}

struct by_anchor {
    uint64_t order; /* of the anchor, random but fixed */
    uint32_t raw;
};

static int
compare_anchors(const void *a, const void *b)
{
    const struct by_anchor *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (x->raw > y->raw) - (x->raw < y->raw);
}

static int
compare_u64(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static size_t
count_groups(const struct learn_questions *q)
{
    size_t n = 0;
    uint64_t *groups = mem_alloc(q->n, sizeof *groups);
    if (groups == NULL)
        return 0;
    for (size_t i = 0; i < q->n; i++)
        groups[i] = q->questions[i].group;
    qsort(groups, q->n, sizeof *groups, compare_u64);
    for (size_t i = 0; i < q->n; i++)
        n += i == 0 || groups[i] != groups[i - 1];
    mem_free(groups);
    return n;
}

/* One question an anchor, with all its positives of the split that are items
   of the collection; at most max questions, always the same ones. */
static enum err
make_questions(struct learn_data *data, const struct raws *raws, size_t max,
    struct learn_questions *out)
{
    struct by_anchor *order = mem_alloc(raws->n, sizeof *order);
    size_t n = 0;
    enum err err = order == NULL
                       ? ERR_NOMEM
                       : learn_questions_alloc(data, out, MIN(raws->n, max));

    for (size_t i = 0; i < raws->n && err == OK; i++) {
        const struct raw *raw = &raws->rows[i];
        if (raw->positive_item == 0 || learn_is_absent(&raw->anchor) ||
            raw->positive_ord == raw->anchor_ord ||
            (data->form.reads == ENCODER_READS_IMAGE &&
                learn_is_absent(&raw->positive)))
            continue;
        order[n++] = (struct by_anchor){
            .order = hash_u64(learn_key(&raw->anchor)), .raw = (uint32_t)i};
    }
    if (err == OK)
        qsort(order, n, sizeof *order, compare_anchors);
    for (size_t i = 0; i < n && err == OK && out->n < max;) {
        size_t end = i + 1;
        while (end < n && order[end].order == order[i].order)
            end++;
        uint32_t *relevant =
            arena_alloc(&data->arena, end - i, sizeof *relevant);
        if (relevant == NULL) {
            err = ERR_NOMEM;
            break;
        }
        const struct raw *first = &raws->rows[order[i].raw];
        for (size_t j = i; j < end; j++)
            relevant[j - i] = raws->rows[order[j].raw].positive_ord;
        out->questions[out->n] = (struct judge_question){.relevant = relevant,
            .n_relevant = end - i,
            .skip = first->anchor_ord,
            .group = first->group};
        out->anchors[out->n] = first->anchor;
        out->frozen[out->n] = first->id <= data->pairs_seen;
        out->n++;
        i = end;
    }
    mem_free(order);
    if (err == OK)
        out->n_groups = count_groups(out);
    return err;
}

/* The keys of every side of these pairs: what no example may be told is wrong
   or right by mining. */
static enum err
bar(struct learn_data *data, const struct raws *tune, const struct raws *judge)
{
    const struct raws *const all[] = {tune, judge};
    size_t n = 0;

    data->barred = arena_alloc(
        &data->arena, 2 * (tune->n + judge->n) + 1, sizeof *data->barred);
    if (data->barred == NULL)
        return ERR_NOMEM;
    for (size_t a = 0; a < ARRAY_LEN(all); a++) {
        for (size_t i = 0; i < all[a]->n; i++) {
            const struct raw *raw = &all[a]->rows[i];
            if (!learn_is_absent(&raw->anchor))
                data->barred[n++] = learn_key(&raw->anchor);
            if (!learn_is_absent(&raw->positive))
                data->barred[n++] = learn_key(&raw->positive);
        }
    }
    qsort(data->barred, n, sizeof *data->barred, compare_u64);
    data->n_barred = n;
    return OK;
}

/* ---- the whole ----------------------------------------------------------- */

static enum err
collect_pairs(struct engine *engine, struct collection *c,
    struct learn_data *data, const struct learn_options *options, bool train_on,
    struct raws *train, struct raws *tune, struct raws *judge)
{
    struct raws *const all[] = {train, tune, judge};
    enum err err = OK;

    if (train_on)
        err =
            read_split(engine, c, data, PAIR_TRAIN, 0, data->pairs_upto, train);
    if (err == OK)
        err = read_split(engine, c, data, PAIR_TUNE, 0, data->pairs_upto, tune);
    if (err == OK)
        err =
            read_split(engine, c, data, PAIR_JUDGE, 0, data->pairs_upto, judge);
    if (err == OK && train_on)
        err = note_known(data, train);
    if (err == OK && train_on)
        err = choose_pairs(data, train, options);
    if (err == OK && data->form.reads == ENCODER_READS_IMAGE) {
        thin_out(data, tune);
        thin_out(data, judge);
    }
    if (err == OK)
        err = resolve(engine, c, data, options->label, all, ARRAY_LEN(all));
    if (err == OK)
        err = bar(data, tune, judge);
    if (err == OK)
        err = make_questions(data, tune, LEARN_TUNE_MAX, &data->tune);
    if (err == OK)
        err = make_questions(data, judge, LEARN_QUESTIONS_MAX, &data->judge);
    if (err == OK && train_on)
        err = add_examples(engine, c, data, train);
    if (err == OK && train_on)
        err = find_contradictions(data);
    return err;
}

enum err
learn_collect(struct learn_data *out, struct engine *engine,
    struct collection *c, const struct learn_form *form,
    const struct learn_options *options, const struct learn_resume *resume,
    struct fault *fault)
{
    struct raws train = {0}, tune = {0}, judge = {0};
    bool pairs = resume->pretext == LEARN_PAIRS;
    enum err err = OK;

    *out = (struct learn_data){.form = *form,
        .views = resume->views,
        .pairs_upto = resume->pairs_upto,
        .pairs_seen = resume->pairs_seen};
    arena_init(&out->arena, LEARN_TEXT_BYTES_MAX);
    if (!out->views)
        err = collect_pairs(
            engine, c, out, options, pairs, &train, &tune, &judge);
    if (err == OK && !pairs)
        err = learn_collect_instances(
            engine, c, out, options, resume->items_upto, fault);
    mem_free(train.rows);
    mem_free(tune.rows);
    mem_free(judge.rows);
    return err;
}

void
learn_data_release(struct learn_data *data)
{
    arena_release(&data->arena);
    *data = (struct learn_data){0};
}
