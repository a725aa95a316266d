#include "train/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

/* An anchor's key with one of its positives' keys, sorted by both. */
struct known {
    uint64_t anchor, positive;
};

struct slot {
    uint64_t order;
    uint32_t example;
};

struct batch_plan {
    const struct batch_example *examples;
    size_t n_examples, size;
    float group_share;
    struct rng rng;
    struct slot *slots; /* [n_examples] the epoch's order */
    uint32_t *waiting;  /* examples put off, oldest first */
    size_t n_waiting;
    size_t next;         /* into slots */
    uint32_t *index;     /* [size] */
    struct known *known; /* [n_examples] sorted */
    struct known *back;  /* the same with the sides exchanged; NULL: not yet */
    uint64_t *seen;      /* open addressing, keys of the batch */
    size_t n_seen;       /* a power of two */
    struct infonce_mask *masks;
    size_t cap_masks;
    struct known *columns; /* [cap_columns] key with its column */
    size_t cap_columns;
    uint64_t *texts;     /* [n_texts] sorted distinct keys */
    uint32_t *component; /* [n_texts] its root, NO_COMPONENT when too large */
    size_t n_texts;
    struct known *classes; /* [cap_columns] component with its column */
};

#define NO_COMPONENT UINT32_MAX
#define MASKS_GROWN_MAX ((size_t)1 << 24) /* at once */
#define COMPONENT_SHARE 20 /* a component holds at most 1/20 of the texts */

static int
compare_known(const void *a, const void *b)
{
    const struct known *x = a, *y = b;
    if (x->anchor != y->anchor)
        return x->anchor < y->anchor ? -1 : 1;
    return x->positive < y->positive ? -1 : x->positive > y->positive;
}

static int
compare_slots(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->example < y->example ? -1 : x->example > y->example;
}

static int
compare_keys(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static uint32_t
component_of(const struct batch_plan *plan, uint64_t key)
{
    const uint64_t *at = bsearch(
        &key, plan->texts, plan->n_texts, sizeof *plan->texts, compare_keys);
    return at == NULL ? NO_COMPONENT : plan->component[at - plan->texts];
}

/* The root of a text's tree; halves the path on its way. */
static uint32_t
find_root(uint32_t *parent, uint32_t i)
{
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

/* Texts that pairs connect, however far, are taken to mean the same, as long
   as they are few: a component that holds a large part of all texts (users'
   clicks connect everything in the end) says nothing. */
static enum err
find_components(struct batch_plan *plan)
{
    size_t n = 0;
    uint32_t *size = NULL;

    plan->texts = mem_alloc(2 * plan->n_examples, sizeof *plan->texts);
    if (plan->texts == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < plan->n_examples; i++) {
        plan->texts[2 * i] = plan->examples[i].anchor.key;
        plan->texts[2 * i + 1] = plan->examples[i].positive.key;
    }
    qsort(plan->texts, 2 * plan->n_examples, sizeof *plan->texts, compare_keys);
    for (size_t i = 0; i < 2 * plan->n_examples; i++) {
        if (n == 0 || plan->texts[n - 1] != plan->texts[i])
            plan->texts[n++] = plan->texts[i];
    }
    plan->n_texts = n;
    plan->component = mem_alloc(n, sizeof *plan->component);
    size = mem_calloc(n, sizeof *size);
    if (plan->component == NULL || size == NULL) {
        mem_free(size);
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++)
        plan->component[i] = (uint32_t)i;
    for (size_t i = 0; i < plan->n_examples; i++) {
        const uint64_t *a = bsearch(&plan->examples[i].anchor.key, plan->texts,
            n, sizeof *plan->texts, compare_keys);
        const uint64_t *b = bsearch(&plan->examples[i].positive.key,
            plan->texts, n, sizeof *plan->texts, compare_keys);
        uint32_t x = find_root(plan->component, (uint32_t)(a - plan->texts));
        uint32_t y = find_root(plan->component, (uint32_t)(b - plan->texts));
        plan->component[MAX(x, y)] = MIN(x, y);
    }
    for (size_t i = 0; i < n; i++)
        size[find_root(plan->component, (uint32_t)i)]++;
    for (size_t i = n; i-- > 0;) { /* roots come before their members */
        uint32_t root = find_root(plan->component, (uint32_t)i);
        if (root != i)
            plan->component[i] = root;
    }
    for (size_t i = n; i-- > 0;) {
        uint32_t root = plan->component[i];
        if (size[root] > MAX(n / COMPONENT_SHARE, (size_t)2))
            plan->component[i] = NO_COMPONENT;
    }
    mem_free(size);
    return OK;
}

enum err
batch_plan_new(struct batch_plan **out, const struct batch_example *examples,
    size_t n, size_t size, float group_share, uint64_t seed)
{
    struct batch_plan *plan = mem_calloc(1, sizeof *plan);
    if (plan == NULL)
        return ERR_NOMEM;
    ASSERT(size >= 2);
    plan->examples = examples;
    plan->n_examples = n;
    plan->size = size;
    plan->group_share = group_share;
    rng_seed(&plan->rng, seed);
    plan->next = n;
    plan->n_seen = 64;
    while (plan->n_seen < 8 * size)
        plan->n_seen *= 2;
    plan->slots = mem_alloc(n, sizeof *plan->slots);
    plan->waiting = mem_alloc(n, sizeof *plan->waiting);
    plan->index = mem_alloc(size, sizeof *plan->index);
    plan->known = mem_alloc(n, sizeof *plan->known);
    plan->seen = mem_alloc(plan->n_seen, sizeof *plan->seen);
    if (plan->slots == NULL || plan->waiting == NULL || plan->index == NULL ||
        plan->known == NULL || plan->seen == NULL) {
        batch_plan_free(plan);
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++)
        plan->known[i] = (struct known){.anchor = examples[i].anchor.key,
            .positive = examples[i].positive.key};
    qsort(plan->known, n, sizeof *plan->known, compare_known);
    if (find_components(plan) != OK) {
        batch_plan_free(plan);
        return ERR_NOMEM;
    }
    *out = plan;
    return OK;
}

void
batch_plan_free(struct batch_plan *plan)
{
    if (plan == NULL)
        return;
    mem_free(plan->slots);
    mem_free(plan->waiting);
    mem_free(plan->index);
    mem_free(plan->known);
    mem_free(plan->back);
    mem_free(plan->seen);
    mem_free(plan->masks);
    mem_free(plan->columns);
    mem_free(plan->classes);
    mem_free(plan->texts);
    mem_free(plan->component);
    mem_free(plan);
}

/* A new order: groups in random order with their members side by side, except
   for the examples that are dealt out at random. */
static void
start_epoch(struct batch_plan *plan)
{
    uint64_t salt = rng_u64(&plan->rng);
    for (size_t i = 0; i < plan->n_examples; i++) {
        const struct batch_example *example = &plan->examples[i];
        uint64_t order = rng_u64(&plan->rng);
        bool stays = rng_float(&plan->rng) < plan->group_share;
        if (example->group != 0 && stays)
            order = (hash_u64(example->group ^ salt) & ~(uint64_t)0xFFFF) |
                    (order & 0xFFFF);
        plan->slots[i] = (struct slot){.order = order, .example = (uint32_t)i};
    }
    qsort(plan->slots, plan->n_examples, sizeof *plan->slots, compare_slots);
    plan->next = 0;
    plan->n_waiting = 0;
}

/* Note a key; false when the batch has it already. 0 is not a key here. */
static bool
claim(struct batch_plan *plan, uint64_t key, bool only_look)
{
    key |= 1;
    size_t s = hash_u64(key) & (plan->n_seen - 1);
    while (plan->seen[s] != 0) {
        if (plan->seen[s] == key)
            return false;
        s = (s + 1) & (plan->n_seen - 1);
    }
    if (!only_look)
        plan->seen[s] = key;
    return true;
}

/* Take an example unless it shares a text with the batch. An anchor's text
   and a key's are told apart, except that both must be new. */
static bool
take(struct batch_plan *plan, uint32_t i, size_t *n)
{
    uint64_t anchor = hash_u64(plan->examples[i].anchor.key);
    uint64_t positive = hash_u64(plan->examples[i].positive.key + 1);
    if (!claim(plan, anchor, true) || !claim(plan, positive, true))
        return false;
    (void)claim(plan, anchor, false);
    (void)claim(plan, positive, false);
    plan->index[(*n)++] = i;
    return true;
}

enum err
batch_plan_next(struct batch_plan *plan, const uint32_t **index, size_t *n_out)
{
    size_t n = 0, left = 0;
    bool started = false;

    memset(plan->seen, 0, plan->n_seen * sizeof *plan->seen);
    for (size_t i = 0; i < plan->n_waiting; i++) {
        if (n == plan->size || !take(plan, plan->waiting[i], &n))
            plan->waiting[left++] = plan->waiting[i];
    }
    plan->n_waiting = left;
    while (n < plan->size) {
        if (plan->next == plan->n_examples) {
            /* a batch may end in the next epoch, which has all examples, so
               that what still waits is let go; it may not see a third */
            if (started)
                break;
            start_epoch(plan);
            started = true;
        }
        uint32_t i = plan->slots[plan->next++].example;
        if (!take(plan, i, &n) && plan->n_waiting < plan->n_examples)
            plan->waiting[plan->n_waiting++] = i;
    }
    *index = plan->index;
    *n_out = n < 2 ? 0 : n;
    return OK;
}

static enum err
add_mask(struct batch_plan *plan, size_t *n, size_t row, uint64_t col)
{
    if (*n == plan->cap_masks) {
        size_t cap =
            plan->cap_masks + MIN(plan->cap_masks, MASKS_GROWN_MAX) + 256;
        void *grown = mem_realloc(plan->masks, cap, sizeof *plan->masks);
        if (grown == NULL)
            return ERR_NOMEM;
        plan->masks = grown;
        plan->cap_masks = cap;
    }
    plan->masks[(*n)++] =
        (struct infonce_mask){.row = (uint32_t)row, .col = (uint32_t)col};
    return OK;
}

/* First of n sorted pairs whose anchor is at least key. */
static size_t
lower_bound(const struct known *known, size_t n, uint64_t key)
{
    size_t low = 0;
    while (n > 0) {
        size_t half = n / 2;
        if (known[low + half].anchor < key) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

/* Mask the columns of a value, but for the row's own one (and, between views,
   for the row itself). */
static enum err
mask_equal(struct batch_plan *plan, const struct known *columns, size_t M,
    uint64_t value, size_t row, size_t own, size_t *n_masks)
{
    enum err err = OK;
    for (size_t c = lower_bound(columns, M, value);
         c < M && columns[c].anchor == value && err == OK; c++) {
        if (columns[c].positive != own &&
            (own == row || columns[c].positive != row))
            err = add_mask(plan, n_masks, row, columns[c].positive);
    }
    return err;
}

/* The keys of a batch by value, and by component. */
static enum err
sort_columns(struct batch_plan *plan, const uint64_t *keys, size_t M)
{
    if (M == 0)
        return OK;
    if (M > plan->cap_columns) {
        mem_free(plan->columns);
        mem_free(plan->classes);
        plan->cap_columns = 0;
        plan->columns = mem_alloc(M, sizeof *plan->columns);
        plan->classes = mem_alloc(M, sizeof *plan->classes);
        if (plan->columns == NULL || plan->classes == NULL)
            return ERR_NOMEM;
        plan->cap_columns = M;
    }
    for (size_t j = 0; j < M; j++) {
        plan->columns[j] = (struct known){.anchor = keys[j], .positive = j};
        plan->classes[j] = (struct known){
            .anchor = component_of(plan, keys[j]), .positive = j};
    }
    qsort(plan->columns, M, sizeof *plan->columns, compare_known);
    qsort(plan->classes, M, sizeof *plan->classes, compare_known);
    return OK;
}

/* Columns that a side of known connects with a text. */
static enum err
mask_known(struct batch_plan *plan, const struct known *known, uint64_t text,
    size_t M, size_t row, size_t own, size_t *n_masks)
{
    uint64_t last = text;
    enum err err = OK;

    for (size_t k = lower_bound(known, plan->n_examples, text);
         k < plan->n_examples && known[k].anchor == text && err == OK; k++) {
        uint64_t other = known[k].positive;
        if (other != last && other != text)
            err = mask_equal(plan, plan->columns, M, other, row, own, n_masks);
        last = other;
    }
    return err;
}

/* Masks of rows that are anchors, or positives when back is true; known is
   sorted by that side. */
static enum err
mask_rows(struct batch_plan *plan, const uint32_t *index, size_t n, bool back,
    const uint64_t *keys, size_t M, size_t *n_out)
{
    const struct known *known = back ? plan->back : plan->known;
    size_t n_masks = 0;

    ASSERT(n == 0 || M <= BATCH_MASKS_MAX / n);
    enum err err = sort_columns(plan, keys, M);
    for (size_t i = 0; i < n && err == OK; i++) {
        const struct batch_example *e = &plan->examples[index[i]];
        uint64_t own = back ? e->positive.key : e->anchor.key;
        uint32_t component = component_of(plan, own);
        if (component != NO_COMPONENT) { /* holds all that is known */
            err = mask_equal(plan, plan->classes, M, component, i, i, &n_masks);
            continue;
        }
        err = mask_equal(plan, plan->columns, M, own, i, i, &n_masks);
        if (err == OK)
            err = mask_known(plan, known, own, M, i, i, &n_masks);
    }
    *n_out = n_masks;
    return err;
}

enum err
batch_masks(struct batch_plan *plan, const uint32_t *index, size_t n,
    const uint64_t *keys, size_t M, const struct infonce_mask **out,
    size_t *n_out)
{
    enum err err = mask_rows(plan, index, n, false, keys, M, n_out);
    *out = plan->masks;
    return err;
}

static enum err
need_back(struct batch_plan *plan)
{
    if (plan->back != NULL)
        return OK;
    plan->back = mem_alloc(plan->n_examples, sizeof *plan->back);
    if (plan->back == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < plan->n_examples; i++)
        plan->back[i] = (struct known){.anchor = plan->known[i].positive,
            .positive = plan->known[i].anchor};
    qsort(plan->back, plan->n_examples, sizeof *plan->back, compare_known);
    return OK;
}

enum err
batch_masks_back(struct batch_plan *plan, const uint32_t *index, size_t n,
    const uint64_t *keys, size_t M, const struct infonce_mask **out,
    size_t *n_out)
{
    enum err err = need_back(plan);
    if (err == OK)
        err = mask_rows(plan, index, n, true, keys, M, n_out);
    *out = plan->masks;
    return err;
}

static int
compare_masks(const void *a, const void *b)
{
    const struct infonce_mask *x = a, *y = b;
    return (x->col > y->col) - (x->col < y->col);
}

enum err
batch_masks_views(struct batch_plan *plan, size_t n, const uint64_t *keys,
    size_t M, const struct infonce_mask **out, size_t *n_out)
{
    size_t n_masks = 0;

    ASSERT(M <= BATCH_MASKS_SIDE);
    enum err err = need_back(plan);
    if (err == OK)
        err = sort_columns(plan, keys, M);
    for (size_t i = 0; i < M && err == OK; i++) {
        size_t own = i < n ? i + n : i < 2 * n ? i - n : i;
        size_t start = n_masks;
        uint32_t component = component_of(plan, keys[i]);
        if (component != NO_COMPONENT) {
            err =
                mask_equal(plan, plan->classes, M, component, i, own, &n_masks);
            continue;
        }
        err = mask_equal(plan, plan->columns, M, keys[i], i, own, &n_masks);
        if (err == OK)
            err = mask_known(plan, plan->known, keys[i], M, i, own, &n_masks);
        if (err == OK)
            err = mask_known(plan, plan->back, keys[i], M, i, own, &n_masks);
        if (n_masks == start || err != OK)
            continue;
        /* a text may be reached from both sides */
        qsort(plan->masks + start, n_masks - start, sizeof *plan->masks,
            compare_masks);
        size_t kept = start + 1;
        for (size_t j = kept; j < n_masks; j++) {
            if (plan->masks[j].col != plan->masks[kept - 1].col)
                plan->masks[kept++] = plan->masks[j];
        }
        n_masks = kept;
    }
    *out = plan->masks;
    *n_out = n_masks;
    return err;
}
