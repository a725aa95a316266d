#include "engine/learn_bank.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

#define SEED_ROW 0x62616e6b

/* What is known of an ordinal. */
struct row {
    uint64_t key;  /* of an example's side; 0: of none */
    bool left_out; /* it tunes or judges */
};

static void
leave_out(struct row *rows, size_t n_rows, const struct learn_questions *q)
{
    for (size_t i = 0; i < q->n; i++) {
        for (size_t j = 0; j < q->questions[i].n_relevant; j++) {
            uint32_t ord = q->questions[i].relevant[j];
            if (ord < n_rows)
                rows[ord].left_out = true;
        }
        if (q->questions[i].skip < n_rows)
            rows[q->questions[i].skip].left_out = true;
    }
}

static void
note_side(struct row *rows, size_t n_rows, uint32_t ord, uint64_t key)
{
    if (ord < n_rows)
        rows[ord].key = key;
}

static void
note_examples(struct row *rows, size_t n_rows, const struct learn_data *data)
{
    for (size_t i = 0; i < data->n_examples; i++) {
        const struct batch_example *e = &data->examples[i];
        note_side(rows, n_rows, data->ords[i].anchor, e->anchor.key);
        note_side(rows, n_rows, data->ords[i].positive, e->positive.key);
    }
    leave_out(rows, n_rows, &data->tune);
    leave_out(rows, n_rows, &data->judge);
}

/* A row by its vector: equal content has equal vectors. */
struct twin {
    uint64_t vector;
    uint32_t row;
};

static int
compare_twins(const void *a, const void *b)
{
    const struct twin *x = a, *y = b;
    if (x->vector != y->vector)
        return x->vector < y->vector ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* An item that holds what an example's side holds gets its key, so that it is
   masked where the side is. */
static enum err
name_twins(struct learn_bank *bank, size_t D, const bool *named)
{
    size_t n = bank->train.n;
    struct twin *twins = mem_alloc(n + 1, sizeof *twins);

    if (twins == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        twins[i] = (struct twin){.row = (uint32_t)i,
            .vector = hash_bytes(
                bank->train.vectors + i * D, D * sizeof(float), SEED_ROW)};
    qsort(twins, n, sizeof *twins, compare_twins);
    for (size_t i = 0, end; i < n; i = end) {
        uint64_t key = 0;
        for (end = i; end < n && twins[end].vector == twins[i].vector; end++) {
            if (key == 0 && named[twins[end].row])
                key = bank->keys[twins[end].row];
        }
        for (size_t j = i; j < end && key != 0; j++) {
            if (!named[twins[j].row])
                bank->keys[twins[j].row] = key;
        }
    }
    mem_free(twins);
    return OK;
}

/* Copy the vectors of the map's items, at most max rows. */
static enum err
fill(struct learn_bank *out, const struct item_map *map, const struct row *rows,
    size_t n_rows, struct snapshot *live, uint64_t seed, int64_t items_upto,
    size_t max)
{
    size_t D = ann_dims(live->index->ann), n_named = 0, n_others = 0, n = 0;
    struct rng rng;

    for (size_t i = 0; i < map->n && map->items[i] <= items_upto; i++) {
        uint32_t ord = map->ords[i];
        if (ord >= n_rows || rows[ord].left_out)
            continue;
        n_named += rows[ord].key != 0;
        n_others += rows[ord].key == 0;
    }
    size_t take = max - MIN(n_named, max);
    take = MIN(take, n_others);
    n_named = MIN(n_named, max);
    out->train.vectors =
        mem_alloc_aligned((n_named + take) * D + 1, sizeof(float));
    out->keys = mem_alloc(n_named + take + 1, sizeof *out->keys);
    bool *is_named = mem_alloc(n_named + take + 1, sizeof *is_named);
    if (out->train.vectors == NULL || out->keys == NULL || is_named == NULL) {
        mem_free(is_named);
        return ERR_NOMEM;
    }
    rng_seed_stream(&rng, seed, 5);
    for (size_t i = 0; i < map->n && map->items[i] <= items_upto; i++) {
        uint32_t ord = map->ords[i];
        if (ord >= n_rows || rows[ord].left_out)
            continue;
        bool named = rows[ord].key != 0;
        if (named ? n_named == 0 : rng_below(&rng, n_others--) >= take)
            continue;
        n_named -= named;
        take -= !named;
        if (ann_get(live->index->ann, ord, out->train.vectors + n * D) != OK)
            continue; /* deleted this moment */
        is_named[n] = named;
        out->keys[n++] = named ? rows[ord].key
                               : hash_u64((uint64_t)map->items[i] ^ SEED_ROW);
    }
    out->train.keys = out->keys;
    out->train.n = n;
    enum err err = name_twins(out, D, is_named);
    mem_free(is_named);
    return err;
}

enum err
learn_bank_load(struct learn_bank *out, const struct learn_data *data,
    struct collection *c, struct snapshot *live, uint64_t seed,
    int64_t items_upto, struct fault *fault)
{
    size_t n_rows = roster_span(c->roster);
    size_t max =
        LEARN_BANK_BYTES_MAX / (ann_dims(live->index->ann) * sizeof(float));
    struct row *rows = mem_calloc(n_rows + 1, sizeof *rows);
    struct item_map map = {.n = 0};
    enum err err = rows == NULL ? ERR_NOMEM : item_map_new(&map, c->roster);

    *out = (struct learn_bank){.keys = NULL};
    if (err == OK) {
        note_examples(rows, n_rows, data);
        err = fill(out, &map, rows, n_rows, live, seed, items_upto, max);
    }
    if (err == OK && out->train.n == 0)
        err = fault_set(fault, ERR_INVALID, "",
            "the memory bank has no vectors: every item tunes or judges");
    item_map_release(&map);
    mem_free(rows);
    return err;
}

void
learn_bank_release(struct learn_bank *bank)
{
    mem_free(bank->train.vectors);
    mem_free(bank->keys);
    *bank = (struct learn_bank){.keys = NULL};
}
