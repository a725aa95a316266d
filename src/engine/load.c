/* Start-up: every collection of the file comes into memory. */
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/jobs.h"
#include "store/pairs.h"
#include "engine/internal.h"

#define WALK_PAGE 10000
#define LOAD_ROWS 2048
#define UNFINISHED_MAX 1024

/* ---- generations that a crash left half-made ----------------------------- */

struct unfinished {
    int64_t shadow; /* generation, of the collection looked at */
    int64_t jobs[UNFINISHED_MAX];
    int64_t reembed_of[UNFINISHED_MAX]; /* collection of a "reembed" job */
    size_t n;
    int64_t keep[UNFINISHED_MAX]; /* generation rows */
    size_t n_keep;
};

static enum err
take_job(void *arg, const struct job_row *row)
{
    struct unfinished *u = arg;
    if (u->n < UNFINISHED_MAX) {
        bool reembed =
            row->kind.s && strcmp(row->kind.s, JOB_KIND_REEMBED) == 0;
        u->jobs[u->n] = row->id;
        u->reembed_of[u->n++] = reembed ? row->collection : 0;
    }
    return OK;
}

static enum err
take_generation(void *arg, const struct generation_row *row)
{
    struct unfinished *u = arg;
    /* It becomes the shadow once its weights are saved; before that it is only
       a name, and the round begins again. */
    bool usable = row->state == GENERATION_BUILDING && row->job &&
                  row->generation == u->shadow &&
                  row->weights != WEIGHTS_PARTIAL;
    for (size_t i = 0; i < u->n && usable; i++) {
        if (u->jobs[i] == row->job && u->n_keep < UNFINISHED_MAX) {
            u->keep[u->n_keep++] = row->id;
        }
    }
    return OK;
}

struct shadow_fix {
    struct unfinished *unfinished;
    int64_t collections[UNFINISHED_MAX]; /* whose shadow role must end */
    size_t n;
    struct db *db;
};

static enum err
take_collection(void *arg, const struct collection_row *row)
{
    struct shadow_fix *fix = arg;
    struct unfinished *u = fix->unfinished;
    size_t before = u->n_keep;
    u->shadow = row->shadow_generation;
    enum err err =
        generations_list(fix->db, row->id, 0, 1000000, take_generation, u);
    /* A shadow has a purpose while its round or its re-embedding lives. */
    bool wanted = u->n_keep > before;
    for (size_t i = 0; i < u->n; i++) {
        wanted = wanted || u->reembed_of[i] == row->id;
    }
    if (row->shadow_generation && !wanted && fix->n < UNFINISHED_MAX) {
        fix->collections[fix->n++] = row->id;
    }
    return err;
}

static enum err
run_fix(struct db *db, void *arg)
{
    const struct shadow_fix *fix = arg;
    enum err err = generations_discard_building(
        db, fix->unfinished->keep, fix->unfinished->n_keep, NULL);
    for (size_t i = 0; i < fix->n && !err; i++) {
        int64_t seq;
        err = generations_set_shadow(db, fix->collections[i], 0, &seq);
    }
    return err;
}

/* After a crash: what is half-made is kept for its job, or discarded. */
static enum err
settle_generations(struct engine *engine)
{
    struct unfinished *u = mem_calloc(1, sizeof(*u));
    struct shadow_fix *fix = mem_calloc(1, sizeof(*fix));
    enum err err = u && fix ? OK : ERR_NOMEM;
    struct db *db = NULL;
    if (!err) {
        err = store_read_begin(engine->store, &db);
    }
    if (!err) {
        fix->unfinished = u;
        fix->db = db;
        err = jobs_list_unfinished(db, take_job, u);
    }
    if (!err) {
        err = collections_list(
            db, (struct store_text){.s = NULL}, 1000000, take_collection, fix);
    }
    store_read_end(engine->store, db);
    if (!err) {
        err = store_run(engine->store, run_fix, fix);
    }
    mem_free(u);
    mem_free(fix);
    return err;
}

/* ---- items and vectors --------------------------------------------------- */

struct walk {
    struct collection *c;
    int64_t *items; /* in order of their numbers */
    uint32_t *ords;
    size_t n, cap;
    size_t page;
    int64_t last;
};

static enum err
take_item(void *arg, const struct item_row *row)
{
    struct walk *w = arg;
    if (w->n == w->cap) {
        size_t cap = w->cap * 2 + 1024;
        int64_t *items = mem_realloc(w->items, cap, sizeof(*items));
        if (items) {
            w->items = items;
        }
        uint32_t *ords = mem_realloc(w->ords, cap, sizeof(*ords));
        if (ords) {
            w->ords = ords;
        }
        if (!items || !ords) {
            return ERR_NOMEM;
        }
        w->cap = cap;
    }
    enum err err = roster_put(w->c->roster, row->ext_id.s, row->item,
        row->change_seq, &w->ords[w->n], NULL);
    if (!err) {
        w->items[w->n++] = row->item;
        w->page++;
        w->last = row->item;
    }
    return err;
}

static enum err
load_roster(struct collection *c, struct walk *w)
{
    enum err err;
    do {
        struct db *db;
        w->page = 0;
        err = store_read_begin(c->engine->store, &db);
        if (!err) {
            err = items_walk(db, c->id, w->last, WALK_PAGE, 0, take_item, w);
            store_read_end(c->engine->store, db);
        }
    } while (!err && w->page == WALK_PAGE);
    return err;
}

/* All vectors of a space; items without one (a shadow's) are passed over. */
static enum err
load_index(
    struct collection *c, struct space_index *index, const struct walk *w)
{
    size_t dims = c->fixed.dims, n = LOAD_ROWS, at = 0;
    int64_t after = 0;
    enum err err = space_index_reserve(index, w->n);
    int64_t *items = mem_alloc(LOAD_ROWS, sizeof(*items));
    uint32_t *ords = mem_alloc(LOAD_ROWS, sizeof(*ords));
    float *vectors = mem_alloc_aligned(LOAD_ROWS * dims, sizeof(*vectors));
    if (!err && (!items || !ords || !vectors)) {
        err = ERR_NOMEM;
    }
    while (!err && n == LOAD_ROWS) {
        struct db *db;
        err = store_read_begin(c->engine->store, &db);
        if (!err) {
            err = vectors_read_block(db, index->space, after, LOAD_ROWS,
                (int)dims, items, vectors, &n);
            store_read_end(c->engine->store, db);
        }
        size_t kept = 0;
        for (size_t i = 0; i < n && !err; i++) {
            while (at < w->n && w->items[at] < items[i]) {
                at++;
            }
            if (at == w->n || w->items[at] != items[i]) {
                err = ERR_CORRUPT; /* a vector of an item that is not there */
                break;
            }
            ords[kept++] = w->ords[at];
        }
        if (!err && n) {
            after = items[n - 1];
            err = ann_put_many(index->ann, ords, vectors, kept);
        }
    }
    mem_free(items);
    mem_free(ords);
    mem_free(vectors);
    return err;
}

/* Loading the live encoder takes as long as loading its vectors: both at once.
   The stub lends the snapshot its index. */
struct encoder_loading {
    pthread_t thread;
    struct collection *c;
    struct snapshot *stub;
    struct snapshot *live;
    struct fault fault;
    enum err err;
};

static void *
load_live(void *arg)
{
    struct encoder_loading *l = arg;
    l->err =
        load_snapshot(l->c, l->stub->generation, l->stub, &l->live, &l->fault);
    return NULL;
}

/* The live generation without its encoder, with an empty index. */
static enum err
make_stub(struct collection *c, int64_t generation, struct snapshot **out,
    struct fault *fault)
{
    struct generation_row row;
    struct space_index *index;
    struct arena arena;
    struct db *db;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = store_read_begin(c->engine->store, &db);
    if (!err) {
        err = generations_get(db, c->id, generation, &arena, &row);
        store_read_end(c->engine->store, db);
    }
    if (!err && (size_t)row.dims != c->fixed.dims) {
        err = fault_set(fault, ERR_CORRUPT, "",
            "generation %lld of \"%s\" does not fit its collection",
            (long long)generation, c->name);
    }
    if (!err) {
        err = space_index_new(&index, row.space, c->fixed.dims, row.fingerprint,
            c->engine->scan_pool);
    }
    if (!err) {
        err =
            snapshot_new(out, generation, row.id, NULL, index, row.temperature);
    }
    arena_release(&arena);
    return err;
}

static enum err
load_live_whole(struct collection *c, int64_t generation, struct walk *walk,
    struct fault *fault)
{
    struct encoder_loading l = {.c = c, .fault = {.err = OK}};
    enum err err = make_stub(c, generation, &l.stub, fault);
    if (err) {
        return err;
    }
    if (pthread_create(&l.thread, NULL, load_live, &l) != 0) {
        snapshot_unref(l.stub);
        return ERR_NOMEM;
    }
    err = load_roster(c, walk);
    if (!err) {
        err = load_index(c, l.stub->index, walk);
    }
    pthread_join(l.thread, NULL);
    if (l.err) {
        err = l.err;
        if (fault && l.fault.err) {
            *fault = l.fault;
        }
    } else {
        c->live = l.live;
    }
    snapshot_unref(l.stub);
    return err;
}

static enum err
load_one(struct engine *engine, const struct collection_row *row,
    struct fault *fault)
{
    struct settings_fixed fixed = {.dims = 0};
    struct collection *c = NULL;
    struct walk walk = {.n = 0};
    int64_t start = clock_mono_ms();
    enum err err = settings_fixed_read(row->fixed.s, row->fixed.len, &fixed);
    if (!err) {
        err = collection_new(&c, engine, row->id, row->name.s, row->created_ms,
            &fixed, row->patched.s ? row->patched.s : "{}");
    }
    settings_fixed_release(&fixed);
    if (err) {
        return err;
    }
    c->previous_generation = row->previous_generation;
    walk.c = c;
    err = load_live_whole(c, row->live_generation, &walk, fault);
    if (!err && ann_count(c->live->index->ann) != walk.n) {
        err = fault_set(fault, ERR_CORRUPT, "",
            "collection \"%s\": %zu items but %zu vectors", c->name, walk.n,
            ann_count(c->live->index->ann));
    }
    if (!err && row->shadow_generation) {
        err = load_snapshot(
            c, row->shadow_generation, c->live, &c->shadow, fault);
        if (!err && c->shadow->index != c->live->index) {
            err = load_index(c, c->shadow->index, &walk);
        }
    }
    struct pair_counts counts;
    struct db *db;
    if (!err) {
        err = store_read_begin(engine->store, &db);
        if (!err) {
            err = pairs_count(db, c->id, 0, &counts);
            store_read_end(engine->store, db);
            c->has_pairs = !err && counts.last_pair > 0;
        }
    }
    if (!err) {
        err = collection_register(c);
    }
    if (!err) {
        log_info("engine", "loaded collection=%lld items=%zu ms=%lld",
            (long long)c->id, walk.n, (long long)(clock_mono_ms() - start));
    } else {
        collection_unref(c);
    }
    mem_free(walk.items);
    mem_free(walk.ords);
    return err;
}

/* ---- all of them --------------------------------------------------------- */

struct names {
    struct arena arena;
    struct store_text *v;
    size_t n, cap;
};

static enum err
take_name(void *arg, const struct collection_row *row)
{
    struct names *names = arg;
    if (names->n == names->cap) {
        size_t cap = names->cap * 2 + 64;
        struct store_text *v = mem_realloc(names->v, cap, sizeof(*v));
        if (!v) {
            return ERR_NOMEM;
        }
        names->v = v;
        names->cap = cap;
    }
    struct store_text t = {
        .s = arena_strndup(&names->arena, row->name.s, row->name.len),
        .len = row->name.len};
    names->v[names->n] = t;
    names->n += t.s != NULL;
    return t.s ? OK : ERR_NOMEM;
}

static enum err
take_alias(void *arg, struct store_text alias, struct store_text collection)
{
    struct engine *engine = arg;
    struct collection *c;
    enum err err = collection_find(engine, collection.s, &c, NULL);
    if (!err) {
        err = collection_set_alias(engine, alias.s, c);
        collection_unref(c);
    }
    return err;
}

enum err
load_collections(struct engine *engine, struct fault *fault)
{
    struct names names = {.n = 0};
    struct db *db = NULL;
    struct store_text start = {.s = NULL};
    arena_init(&names.arena, SIZE_MAX / 2);
    enum err err = settle_generations(engine);
    if (!err) {
        err = store_read_begin(engine->store, &db);
    }
    if (!err) {
        err = collections_list(db, start, 1000000, take_name, &names);
        store_read_end(engine->store, db);
    }
    for (size_t i = 0; i < names.n && !err; i++) {
        struct arena arena;
        struct collection_row row;
        arena_init(&arena, SMALL_ARENA_BYTES);
        err = store_read_begin(engine->store, &db);
        if (!err) {
            err = collections_find(db, names.v[i], &arena, &row);
            store_read_end(engine->store, db);
        }
        if (!err) {
            err = load_one(engine, &row, fault);
        }
        arena_release(&arena);
    }
    if (!err) {
        err = store_read_begin(engine->store, &db);
    }
    if (!err) {
        err = aliases_list(db, start, 1000000, take_alias, engine);
        store_read_end(engine->store, db);
    }
    mem_free(names.v);
    arena_release(&names.arena);
    if (err == ERR_NOT_FOUND || err == ERR_EXISTS || err == ERR_INVALID ||
        err == ERR_SYNTAX || err == ERR_TOO_LARGE || err == ERR_CONFLICT) {
        /* Nobody has asked for anything yet: the file contradicts itself. */
        return fault_set(fault, ERR_CORRUPT, "",
            "the file is damaged (loading the collections: %s); restore a "
            "backup",
            err_text(err));
    }
    return fault_of(fault, err, "loading the collections");
}
