/*
 * learn_data.c - reading a round's data.
 *
 * Pairs are read by split in pages of short read transactions, then the
 * documents of the items that they name, each once.
 */
#include "engine/learn_data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "engine/learn.h"
#include "store/pairs.h"
#include "train/views.h"

#define PAGE 1000
#define SEED_TEXT 0x6c726e
#define INSTANCE_SHARES 10 /* one share judges, one tunes, the rest train */

/* One pair as read; texts of items come later. */
struct raw {
    int64_t id;
    int64_t anchor_item, positive_item; /* 0: a text */
    uint32_t anchor_ord, positive_ord;
    struct encoder_input anchor, positive;
    const char *negatives; /* JSON or NULL */
    uint64_t group;
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

static uint64_t
key_of(const struct encoder_input *text)
{
    return hash_bytes(text->text, text->len, SEED_TEXT);
}

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

/* ------------------------------------------------------------ documents */

struct page {
    struct collection *c;
    struct buf texts;
    int64_t items[PAGE];
    size_t start[PAGE + 1];
    size_t n;
};

static enum err
render_item(void *ctx, const struct item_row *row)
{
    struct page *page = ctx;
    struct engine_text title = {row->title.s, row->title.len};
    struct engine_text text = {row->text.s, row->text.len};
    struct engine_text metadata = {row->metadata.s, row->metadata.len};
    enum err err =
        document_render(page->c->template, title, text, metadata, &page->texts);
    if (err != OK)
        return err;
    page->items[page->n++] = row->item;
    page->start[page->n] = page->texts.len;
    return OK;
}

static unsigned
wanted(const struct collection *c)
{
    return document_uses_metadata(c->template)
               ? ITEM_WANT_ALL
               : ITEM_WANT_TITLE | ITEM_WANT_TEXT;
}

static void
page_clear(struct page *page)
{
    buf_clear(&page->texts);
    page->n = 0;
    page->start[0] = 0;
}

enum err
learn_walk_documents(struct engine *engine, struct collection *c,
    learn_document_fn *fn, void *arg)
{
    struct page *page = mem_alloc(1, sizeof *page);
    int64_t after = 0;
    bool more = true;
    enum err err = OK;

    if (page == NULL)
        return ERR_NOMEM;
    page->c = c;
    buf_init(&page->texts, LEARN_TEXT_BYTES_MAX);
    while (more) {
        struct db *db;
        page_clear(page);
        err = store_read_begin(engine->store, &db);
        if (err != OK)
            break;
        err = items_walk(db, c->id, after, PAGE, wanted(c), render_item, page);
        store_read_end(engine->store, db);
        if (err != OK || page->n == 0)
            break;
        for (size_t i = 0; i < page->n && more; i++)
            more = fn(arg, page->items[i], page->texts.data + page->start[i],
                page->start[i + 1] - page->start[i]);
        after = page->items[page->n - 1];
    }
    buf_release(&page->texts);
    mem_free(page);
    return err;
}

enum err
learn_documents(struct engine *engine, struct collection *c,
    const int64_t *items, size_t n, struct arena *arena,
    struct encoder_input *out)
{
    struct page *page = mem_alloc(1, sizeof *page);
    enum err err = OK;

    if (page == NULL)
        return ERR_NOMEM;
    page->c = c;
    buf_init(&page->texts, LEARN_TEXT_BYTES_MAX);
    for (size_t first = 0; first < n && err == OK; first += PAGE) {
        size_t count = MIN(n - first, (size_t)PAGE);
        struct db *db;
        page_clear(page);
        err = store_read_begin(engine->store, &db);
        if (err != OK)
            break;
        err = items_get_many(
            db, items + first, count, wanted(c), render_item, page);
        store_read_end(engine->store, db);
        /* rows come in the order asked, without those that are gone */
        size_t got = 0;
        for (size_t i = first; i < first + count && err == OK; i++) {
            out[i] = (struct encoder_input){0};
            if (got == page->n || page->items[got] != items[i])
                continue;
            size_t len = page->start[got + 1] - page->start[got];
            out[i].len = len;
            out[i].text = arena_strndup(
                arena, len > 0 ? page->texts.data + page->start[got] : "", len);
            if (out[i].text == NULL)
                err = ERR_NOMEM;
            got++;
        }
    }
    buf_release(&page->texts);
    mem_free(page);
    return err;
}

static int
compare_items(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Fill in the texts of the sides that are items. */
static enum err
resolve(struct engine *engine, struct collection *c, struct learn_data *data,
    struct raws *const *all, size_t n_all)
{
    size_t n = 0, unique = 0;
    int64_t *items = NULL;
    struct encoder_input *texts = NULL;
    enum err err = ERR_NOMEM;

    for (size_t a = 0; a < n_all; a++)
        n += 2 * all[a]->n;
    items = mem_alloc(n, sizeof *items);
    texts = mem_alloc(n, sizeof *texts);
    if (items == NULL || texts == NULL)
        goto out;
    n = 0;
    for (size_t a = 0; a < n_all; a++) {
        for (size_t i = 0; i < all[a]->n; i++) {
            const struct raw *raw = &all[a]->rows[i];
            if (raw->anchor_item != 0)
                items[n++] = raw->anchor_item;
            if (raw->positive_item != 0)
                items[n++] = raw->positive_item;
        }
    }
    qsort(items, n, sizeof *items, compare_items);
    for (size_t i = 0; i < n; i++) {
        if (unique == 0 || items[unique - 1] != items[i])
            items[unique++] = items[i];
    }
    err = learn_documents(engine, c, items, unique, &data->arena, texts);
    for (size_t a = 0; a < n_all && err == OK; a++) {
        for (size_t i = 0; i < all[a]->n; i++) {
            struct raw *raw = &all[a]->rows[i];
            int64_t *at;
            if (raw->anchor_item != 0) {
                at = bsearch(&raw->anchor_item, items, unique, sizeof *items,
                    compare_items);
                raw->anchor = texts[at - items];
            }
            if (raw->positive_item != 0) {
                at = bsearch(&raw->positive_item, items, unique, sizeof *items,
                    compare_items);
                raw->positive = texts[at - items];
            }
        }
    }
out:
    mem_free(items);
    mem_free(texts);
    return err;
}

/* ------------------------------------------------------------- examples */

static struct batch_side
text_of(const struct encoder_input *input)
{
    return (struct batch_side){.input = *input, .key = key_of(input)};
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
    size_t n = 0;
    for (size_t i = 0;
         i < json_count(root) && n < BATCH_NEGATIVES_MAX && err == OK; i++) {
        const struct json *one = json_item(root, i);
        const char *s = NULL;
        size_t len = 0;
        struct encoder_input text = {0};
        struct roster_entry entry;
        if (json_get_str(one, "", "text", JSON_REQUIRED, &s, &len, NULL) ==
            OK) {
            text.text = arena_strndup(&data->arena, s, len);
            text.len = len;
            if (text.text == NULL)
                err = ERR_NOMEM;
        } else if (json_get_str(one, "", "id", JSON_REQUIRED, &s, &len, NULL) ==
                       OK &&
                   roster_find(c->roster, s, &entry)) {
            err =
                learn_documents(engine, c, &entry.item, 1, &data->arena, &text);
        }
        if (err == OK && text.text != NULL)
            out[n++] = text_of(&text);
    }
    json_free(root);
    example->negatives = out;
    example->n_negatives = n;
    return err;
}

static enum err
add_examples(struct engine *engine, struct collection *c,
    struct learn_data *data, const struct raws *raws, const uint32_t *pick,
    size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct raw *raw = &raws->rows[pick == NULL ? i : pick[i]];
        if (raw->anchor.text == NULL || raw->positive.text == NULL ||
            raw->anchor.len == 0 || raw->positive.len == 0)
            continue;
        struct batch_example example = {.anchor = text_of(&raw->anchor),
            .positive = text_of(&raw->positive),
            .weight = raw->weight,
            .group = raw->group};
        if (raw->negatives != NULL) {
            enum err err =
                read_negatives(engine, c, data, raw->negatives, &example);
            if (err != OK)
                return err;
        }
        if (example.anchor.key != example.positive.key)
            data->examples[data->n_examples++] = example;
    }
    return OK;
}

/* New pairs, and an equal share of earlier ones at random; all of them when
   nothing is new. */
static enum err
choose_examples(struct engine *engine, struct collection *c,
    struct learn_data *data, const struct raws *raws,
    const struct learn_options *options)
{
    size_t n_old = 0;
    while (n_old < raws->n && raws->rows[n_old].id <= data->pairs_seen)
        n_old++;
    size_t n_new = raws->n - n_old;
    size_t first_new = n_old;
    if (n_new > LEARN_EXAMPLES_MAX) {
        first_new = raws->n - LEARN_EXAMPLES_MAX;
        n_new = LEARN_EXAMPLES_MAX;
    }
    size_t n_replay =
        n_new == 0 ? n_old
                   : MIN(n_old, (size_t)((double)n_new * options->replay));
    n_replay = MIN(n_replay, LEARN_EXAMPLES_MAX);
    uint32_t *pick = mem_alloc(n_old + n_new, sizeof *pick);
    data->examples =
        arena_alloc(&data->arena, n_replay + n_new + 1, sizeof *data->examples);
    if (pick == NULL || data->examples == NULL) {
        mem_free(pick);
        return ERR_NOMEM;
    }
    struct rng rng;
    rng_seed_stream(&rng, options->train.seed, 2);
    for (size_t i = 0; i < n_old; i++)
        pick[i] = (uint32_t)i;
    if (n_replay < n_old)
        rng_shuffle_u32(&rng, pick, n_old);
    for (size_t i = 0; i < n_new; i++)
        pick[n_replay + i] = (uint32_t)(first_new + i);
    data->n_new = n_new;
    data->n_replayed = n_replay;
    enum err err = add_examples(engine, c, data, raws, pick, n_replay + n_new);
    mem_free(pick);
    return err;
}

/* ------------------------------------------------------------ questions */

static enum err
questions_alloc(struct learn_data *data, struct learn_questions *out, size_t n)
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
                       : questions_alloc(data, out, MIN(raws->n, max));

    for (size_t i = 0; i < raws->n && err == OK; i++) {
        const struct raw *raw = &raws->rows[i];
        if (raw->positive_item == 0 || raw->anchor.text == NULL ||
            raw->anchor.len == 0 || raw->positive_ord == raw->anchor_ord)
            continue;
        order[n++] = (struct by_anchor){
            .order = hash_u64(key_of(&raw->anchor)), .raw = (uint32_t)i};
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

/* ------------------------------------------------------------ instances */

struct instances {
    struct learn_data *data;
    struct collection *c;
    struct item_map map;
    size_t cap;
    enum err err;
};

static void
add_view_question(struct instances *in, struct learn_questions *q, size_t max,
    int64_t item, const struct encoder_input *text)
{
    uint32_t ord = item_map_find(&in->map, item);
    struct view anchor;
    uint32_t *relevant;

    if (q->n == max || ord == ANN_NONE)
        return;
    views_judge(text->text, text->len, &anchor);
    relevant = arena_alloc(&in->data->arena, 1, sizeof *relevant);
    if (relevant == NULL) {
        in->err = ERR_NOMEM;
        return;
    }
    *relevant = ord;
    q->questions[q->n] = (struct judge_question){.relevant = relevant,
        .n_relevant = 1,
        .skip = ANN_NONE,
        .group = (uint64_t)item};
    q->anchors[q->n] =
        (struct encoder_input){.text = anchor.text, .len = anchor.len};
    q->n++;
}

static bool
add_instance(void *arg, int64_t item, const char *text, size_t len)
{
    struct instances *in = arg;
    struct learn_data *data = in->data;
    uint64_t share = hash_u64((uint64_t)item) % INSTANCE_SHARES;
    struct encoder_input copy = {.len = len};

    if (len == 0 || data->n_examples == in->cap)
        return data->n_examples < in->cap;
    bool judged = data->views && share < 2;
    struct learn_questions *q = share == 0 ? &data->judge : &data->tune;
    size_t max = share == 0 ? LEARN_QUESTIONS_MAX : LEARN_TUNE_MAX;
    if (judged && q->n == max)
        return true;
    copy.text = arena_strndup(&data->arena, text, len);
    if (copy.text == NULL) {
        in->err = ERR_NOMEM;
        return false;
    }
    if (judged) {
        add_view_question(in, q, max, item, &copy);
        return in->err == OK;
    }
    data->examples[data->n_examples++] = (struct batch_example){
        .anchor = text_of(&copy), .positive = text_of(&copy), .weight = 1};
    return true;
}

/* Items as examples; without pairs to judge by, a share of them as questions
   of their own. */
static enum err
collect_instances(struct engine *engine, struct collection *c,
    struct learn_data *data, struct fault *fault)
{
    struct instances in = {.data = data, .c = c};
    enum err err = item_map_new(&in.map, c->roster);

    if (err != OK)
        return err;
    in.cap = MIN(roster_count(c->roster) + 1024, LEARN_EXAMPLES_MAX);
    data->examples = arena_alloc(&data->arena, in.cap, sizeof *data->examples);
    data->n_examples = 0;
    err = data->examples == NULL ? ERR_NOMEM : OK;
    if (err == OK && data->views) {
        err = questions_alloc(data, &data->judge, LEARN_QUESTIONS_MAX);
        if (err == OK)
            err = questions_alloc(data, &data->tune, LEARN_TUNE_MAX);
    }
    if (err == OK)
        err = learn_walk_documents(engine, c, add_instance, &in);
    if (err == OK)
        err = in.err;
    item_map_release(&in.map);
    if (err == OK && data->views) {
        struct train_policy policy;
        collection_policy(c, &policy);
        data->judge.n_groups = data->judge.n;
        data->tune.n_groups = data->tune.n;
        if ((int64_t)data->judge.n < policy.min_groups)
            err = fault_set(fault, ERR_INVALID, "",
                "training on instances without pairs needs %" PRId64
                " items to judge by, a tenth of the collection; there are %zu",
                policy.min_groups, data->judge.n);
    }
    return err;
}

/* -------------------------------------------------------------- the whole */

struct facts {
    struct pair_counts counts;
    int64_t pairs_seen;
};

static enum err
read_facts(struct engine *engine, struct collection *c, struct facts *out)
{
    struct collection_row row;
    struct arena arena;
    struct db *db;
    enum err err = store_read_begin(engine->store, &db);

    if (err != OK)
        return err;
    arena_init(&arena, SMALL_ARENA_BYTES);
    err = collections_get(db, c->id, &arena, &row);
    if (err == OK) {
        out->pairs_seen = row.pairs_seen;
        err = pairs_count(db, c->id, row.pairs_seen, &out->counts);
    }
    store_read_end(engine->store, db);
    arena_release(&arena);
    return err;
}

static bool
pairs_can_judge(struct collection *c, const struct facts *facts)
{
    struct train_policy policy;
    collection_policy(c, &policy);
    return facts->counts.judge_groups >= policy.min_groups;
}

static bool
takes_pairs(struct collection *c, const struct learn_options *options,
    const struct facts *facts)
{
    struct train_policy policy;
    collection_policy(c, &policy);
    if (options->pretext != LEARN_AUTO)
        return options->pretext == LEARN_PAIRS;
    return pairs_can_judge(c, facts) &&
           facts->counts.active[PAIR_TRAIN] >= policy.min_pairs;
}

static enum err
check_pairs(
    struct collection *c, const struct facts *facts, struct fault *fault)
{
    struct train_policy policy;
    collection_policy(c, &policy);
    if (facts->counts.active[PAIR_TRAIN] >= policy.min_pairs &&
        pairs_can_judge(c, facts))
        return OK;
    return fault_set(fault, ERR_INVALID, "",
        "training on pairs needs at least %" PRId64 " train pairs and %" PRId64
        " judged groups; there are %" PRId64 " and %" PRId64,
        policy.min_pairs, policy.min_groups, facts->counts.active[PAIR_TRAIN],
        facts->counts.judge_groups);
}

enum err
learn_check_options(const char *options_json, struct fault *fault)
{
    struct learn_options options;
    return learn_options_parse(options_json, NULL, &options, fault);
}

enum err
learn_check_data(struct engine *engine, struct collection *c,
    const char *options_json, struct fault *fault)
{
    struct learn_options options;
    struct facts facts;
    struct train_policy policy;
    enum err err = learn_options_parse(options_json, NULL, &options, fault);

    if (err == OK)
        err = read_facts(engine, c, &facts);
    if (err != OK)
        return err;
    bool little = facts.counts.active[PAIR_TRAIN] > 0 &&
                  options.pretext == LEARN_AUTO &&
                  !takes_pairs(c, &options, &facts);
    if (options.pretext == LEARN_PAIRS || little)
        return check_pairs(c, &facts, fault);
    if (takes_pairs(c, &options, &facts) || pairs_can_judge(c, &facts))
        return OK;
    collection_policy(c, &policy);
    if ((int64_t)roster_count(c->roster) / INSTANCE_SHARES < policy.min_groups)
        return fault_set(fault, ERR_INVALID, "",
            "training needs pairs (at least %" PRId64
            " in the train split, there are %" PRId64
            ") or, on instances, %" PRId64 " items; there are %zu",
            policy.min_pairs, facts.counts.active[PAIR_TRAIN],
            policy.min_groups * INSTANCE_SHARES, roster_count(c->roster));
    return OK;
}

enum err
learn_collect(struct learn_data *out, struct engine *engine,
    struct collection *c, struct learn_options *options, int64_t pairs_upto,
    struct fault *fault)
{
    struct raws train = {0}, tune = {0}, judge = {0};
    struct raws *const all[] = {&train, &tune, &judge};
    struct facts facts;
    enum err err;

    *out = (struct learn_data){0};
    arena_init(&out->arena, LEARN_TEXT_BYTES_MAX);
    err = read_facts(engine, c, &facts);
    if (err != OK)
        return err;
    out->pairs_seen = facts.pairs_seen;
    out->pairs_upto = pairs_upto > 0 ? pairs_upto : facts.counts.last_pair;
    bool pairs = takes_pairs(c, options, &facts);
    if (pairs) {
        err = check_pairs(c, &facts, fault);
        if (err == OK)
            err = read_split(
                engine, c, out, PAIR_TRAIN, 0, out->pairs_upto, &train);
    }
    out->views = !pairs && !pairs_can_judge(c, &facts);
    if (err == OK && !out->views)
        err = read_split(engine, c, out, PAIR_TUNE, 0, out->pairs_upto, &tune);
    if (err == OK && !out->views)
        err =
            read_split(engine, c, out, PAIR_JUDGE, 0, out->pairs_upto, &judge);
    if (err == OK && !out->views)
        err = resolve(engine, c, out, all, ARRAY_LEN(all));
    if (err == OK && !out->views)
        err = make_questions(out, &tune, LEARN_TUNE_MAX, &out->tune);
    if (err == OK && !out->views)
        err = make_questions(out, &judge, LEARN_QUESTIONS_MAX, &out->judge);
    if (err == OK && pairs)
        err = choose_examples(engine, c, out, &train, options);
    if (err == OK && !pairs)
        err = collect_instances(engine, c, out, fault);
    if (err == OK)
        options->train.pretext = pairs ? TRAIN_PAIRS : TRAIN_INSTANCES;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]->rows);
    return err;
}

void
learn_data_release(struct learn_data *data)
{
    arena_release(&data->arena);
    *data = (struct learn_data){0};
}
