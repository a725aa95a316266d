/* From a filter to the set of rows that pass: builds missing columns. */
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/json.h"
#include "engine/internal.h"

#define WALK_PAGE 2000
#define EVAL_TRIES 8 /* a column may be dropped between build and use */

struct walk {
    struct collection *c;
    const char *const *paths; /* those to fill */
    size_t n_paths;
    int64_t last_item;
    size_t n;
};

static enum err
fill_row(void *arg, const struct item_row *row)
{
    struct walk *walk = arg;
    struct roster_entry in;
    walk->n++;
    walk->last_item = row->item;
    /* Gone, or another item under this id by now: ingest has said more. */
    if (!row->metadata.s || !roster_find(walk->c->roster, row->ext_id.s, &in) ||
        in.item != row->item) {
        return OK;
    }
    struct json *tree = NULL;
    enum err err = json_parse(row->metadata.s, row->metadata.len,
        ENGINE_METADATA_BYTES_MAX, &tree, NULL);
    for (size_t i = 0; i < walk->n_paths && !err; i++) {
        err = columns_fill(walk->c->columns, walk->paths[i], in.ord, tree);
    }
    json_free(tree);
    return err;
}

/* Make the columns that a filter lacks, all in one walk over the items. */
static enum err
build(struct collection *c, const struct filter *filter)
{
    const char *const *paths;
    const char *missing[COLUMNS_MAX];
    size_t n = filter_paths(filter, &paths), n_missing = 0;
    enum err err = OK;
    pthread_mutex_lock(&c->building);
    for (size_t i = 0; i < n && !err; i++) {
        if (!columns_has(c->columns, paths[i])) {
            missing[n_missing++] = paths[i];
            err = columns_add(c->columns, paths[i]);
        }
    }
    /* What is under way in the writer may have been committed before the
       columns were there and be indexed after this read begins; columns_set
       of it comes either before (the read sees it) or after columns_add (it
       wins), because a commit is read only when it is done or later done. */
    struct walk walk = {
        .c = c, .paths = missing, .n_paths = n_missing, .n = WALK_PAGE};
    while (!err && n_missing && walk.n == WALK_PAGE) {
        struct db *db;
        walk.n = 0;
        err = store_read_begin(c->engine->store, &db);
        if (!err) {
            err = items_walk(db, c->id, walk.last_item, WALK_PAGE,
                ITEM_WANT_METADATA, fill_row, &walk);
            store_read_end(c->engine->store, db);
        }
    }
    for (size_t i = 0; i < n_missing && !err; i++) {
        columns_ready(c->columns, missing[i]);
    }
    pthread_mutex_unlock(&c->building);
    return err;
}

static size_t
count_bits(const uint64_t *words, size_t n_words)
{
    size_t n = 0;
    for (size_t w = 0; w < n_words; w++) {
        for (uint64_t bits = words[w]; bits; bits &= bits - 1) {
            n++;
        }
    }
    return n;
}

enum err
select_rows(struct collection *c, const char *filter_json, const char *pointer,
    struct arena *arena, struct ann_filter *out, struct fault *fault)
{
    struct filter *filter;
    enum err err = filter_compile(arena, filter_json, pointer, &filter, fault);
    if (err) {
        return err;
    }
    uint64_t *bits = NULL;
    size_t n_words = 0;
    err = ERR_NOT_FOUND;
    for (int i = 0; err == ERR_NOT_FOUND && i < EVAL_TRIES; i++) {
        n_words = (roster_span(c->roster) + 63) / 64;
        uint64_t *live = mem_alloc(MAX(n_words, 1), sizeof(*live));
        bits = arena_alloc(arena, MAX(n_words, 1), sizeof(*bits));
        if (!live || !bits) {
            mem_free(live);
            return fault_of(fault, ERR_NOMEM, "filtering");
        }
        roster_mark(c->roster, live, n_words);
        err = filter_eval(filter, c->columns, bits, live, n_words);
        mem_free(live);
        if (err == ERR_NOT_FOUND) {
            enum err built = build(c, filter);
            if (built) {
                return fault_of(fault, built, "filtering");
            }
        }
    }
    if (err) {
        return fault_of(
            fault, err == ERR_NOT_FOUND ? ERR_BUSY : err, "filtering");
    }
    size_t n = count_bits(bits, n_words);
    *out =
        (struct ann_filter){.bits = bits, .n_words = n_words, .n_allowed = n};
    return OK;
}

enum err
engine_filter_check(const char *filter_json, struct fault *fault)
{
    struct arena arena;
    struct filter *filter;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err =
        filter_compile(&arena, filter_json, "/filter", &filter, fault);
    arena_release(&arena);
    return fault_of(fault, err, "reading the filter");
}
