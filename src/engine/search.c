/* Search: a query to a vector, the index, and the answer's bodies. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "kern/kern.h"
#include "engine/batcher.h"
#include "engine/impressions.h"
#include "engine/internal.h"
#include "engine/pictures.h"

/* One query on its way. */
struct task {
    const struct engine_query *query;
    struct engine_answer *answer;
    struct fault *fault;
    float *vector;
    uint32_t *skips; /* ordinals left out of the answer */
    size_t n_skips;
    size_t index_k; /* asked of the index: k and room for the skips */
    struct ann_filter rows;
    bool has_rows;
    struct ann_hit *hits;
    int64_t *items;
    struct encoder_info info; /* of a text that is encoded */
    bool encoded;             /* vector and info are there */
    double started_ms, encode_ms, scan_ms;
};

/* What all tasks of a call share. */
struct run {
    struct engine *engine;
    struct collection *c;
    struct snapshot *live;
    struct arena *arena;
    size_t dims;
};

static double
now_ms(void)
{
    return (double)clock_mono_ns() / 1e6;
}

/* ---- checking ------------------------------------------------------------ */

static enum err
check_query(const struct engine_query *q, struct fault *fault)
{
    int kinds = (q->text.s != NULL) + (q->image.bytes != NULL) +
                (q->vector != NULL) + (q->id != NULL) +
                (q->n_positive + q->n_negative > 0);
    if (kinds != 1) {
        return fault_set(fault, ERR_INVALID, "",
            "a query has exactly one of \"text\", \"image\", \"vector\", "
            "\"id\", \"examples\"; this one has %d",
            kinds);
    }
    if (q->k < 1 || q->k > ENGINE_K_MAX) {
        return fault_set(fault, ERR_INVALID, "/k",
            "k is from 1 to %d, here it is %lld", ENGINE_K_MAX,
            (long long)q->k);
    }
    if (isnan(q->min_cosine) || q->min_cosine > 1) {
        return fault_set(
            fault, ERR_INVALID, "/min_cosine", "a cosine is from -1 to 1");
    }
    if (!(q->min_probability >= 0 && q->min_probability <= 1)) {
        return fault_set(fault, ERR_INVALID, "/min_probability",
            "a probability is from 0 to 1");
    }
    if (q->n_positive + q->n_negative > ENGINE_EXAMPLES_MAX) {
        return fault_set(fault, ERR_TOO_LARGE, "/examples",
            "%zu examples, the limit is %d", q->n_positive + q->n_negative,
            ENGINE_EXAMPLES_MAX);
    }
    return OK;
}

/* ---- the query's vector -------------------------------------------------- */

static enum err
check_text(struct run *run, struct task *t, const struct encoder *encoder)
{
    const struct engine_query *q = t->query;
    if (!encoder) {
        return fault_set(t->fault, ERR_INVALID, "/text",
            "this collection has no encoder of its own: query by \"vector\", "
            "\"id\" or \"examples\"");
    }
    if (encoder_reads(encoder) == ENCODER_READS_IMAGE) {
        return fault_set(t->fault, ERR_INVALID, "/text",
            "this collection's encoder reads pictures: query by \"image\", "
            "\"id\", \"vector\" or \"examples\"");
    }
    if (q->text.len > run->engine->text_bytes_max) {
        return fault_set(t->fault, ERR_TOO_LARGE, "/text",
            "the text has %zu bytes, the limit is %zu", q->text.len,
            run->engine->text_bytes_max);
    }
    return OK;
}

static struct encoder_input
text_input(const struct task *t)
{
    return (struct encoder_input){
        .text = t->query->text.s, .len = t->query->text.len, .query = true};
}

static enum err
from_text(struct run *run, struct task *t)
{
    const struct engine_query *q = t->query;
    const struct encoder *encoder = encoder_ref_get(run->live->encoder);
    struct encoder_info info = t->info;
    enum err err = check_text(run, t, encoder);
    if (!err && !t->encoded) {
        struct encoder_input input = text_input(t);
        err = batcher_encode(
            run->engine->batcher, encoder, &input, 1, t->vector, &info);
    }
    if (err) {
        return err;
    }
    if (info.empty) {
        return fault_set(t->fault, ERR_INVALID, "/text",
            "the text has no word or number to search for");
    }
    bool truncated = info.n_tokens < info.n_tokens_full;
    if (truncated && q->no_truncate) {
        return fault_set(t->fault, ERR_INVALID, "/text",
            "the text has %u tokens, the encoder takes %u",
            (unsigned)info.n_tokens_full, (unsigned)info.n_tokens);
    }
    t->answer->truncated = truncated;
    t->answer->n_tokens = info.n_tokens;
    t->answer->n_tokens_full = info.n_tokens_full;
    run->engine->totals.texts_encoded++;
    return OK;
}

static enum err
from_image(struct run *run, struct task *t)
{
    const struct encoder *encoder = encoder_ref_get(run->live->encoder);
    if (!encoder || encoder_reads(encoder) != ENCODER_READS_IMAGE) {
        return fault_set(t->fault, ERR_INVALID, "/image",
            "this collection's encoder does not read pictures: query by "
            "%s\"vector\", \"id\" or \"examples\"",
            encoder ? "\"text\", " : "");
    }
    uint32_t side = encoder_image_side(encoder);
    uint32_t channels = encoder_image_channels(encoder);
    struct picture picture = {
        .bytes = t->query->image.bytes, .n = t->query->image.n};
    picture.out = arena_alloc(run->arena, (size_t)side * side, channels);
    if (!picture.out) {
        return ERR_NOMEM;
    }
    pictures_decode(run->engine, &picture, 1, side, channels,
        PICTURES_SENT | PICTURES_ASKED, NULL);
    if (picture.fault.err) {
        return fault_set(
            t->fault, picture.fault.err, "/image", "%s", picture.fault.detail);
    }
    struct image image = {.width = side,
        .height = side,
        .channels = channels,
        .pixels = picture.out};
    struct encoder_input input = {.image = &image, .query = true};
    struct encoder_info info = {.empty = false};
    enum err err = encoder_encode(encoder, &input, 1, t->vector, &info, NULL);
    if (!err && info.empty) {
        err = fault_set(t->fault, ERR_INVALID, "/image",
            "the encoder sees nothing in the picture");
    }
    return err;
}

static enum err
from_vector(struct run *run, struct task *t)
{
    const struct engine_query *q = t->query;
    if (q->fingerprint && strcmp(q->fingerprint, run->live->fingerprint) != 0) {
        return fault_set(t->fault, ERR_CONFLICT, "/fingerprint",
            "the vector is of another space; the collection's is %.16s... "
            "(generation %lld)",
            run->live->fingerprint, (long long)run->live->generation);
    }
    if (q->n_vector != run->dims) {
        return fault_set(t->fault, ERR_CONFLICT, "/vector",
            "a vector of %zu numbers, the collection has %zu dimensions",
            q->n_vector, run->dims);
    }
    for (size_t i = 0; i < run->dims; i++) {
        if (!isfinite(q->vector[i])) {
            return fault_set(t->fault, ERR_INVALID, "/vector",
                "number %zu of the vector is not finite", i);
        }
    }
    memcpy(t->vector, q->vector, run->dims * sizeof(*t->vector));
    if (!normalize(t->vector, run->dims)) {
        return fault_set(t->fault, ERR_INVALID, "/vector",
            "the vector is zero and has no direction");
    }
    return OK;
}

/* Add an item's vector, times a weight; it is left out of the answer. */
static enum err
add_item(struct run *run, struct task *t, const char *id, float weight,
    const char *pointer)
{
    struct roster_entry in;
    float *x = arena_alloc(run->arena, run->dims, sizeof(*x));
    if (!x) {
        return ERR_NOMEM;
    }
    if (!roster_find(run->c->roster, id, &in) ||
        ann_get(run->live->index->ann, in.ord, x) != OK) {
        return fault_set(t->fault, ERR_NOT_FOUND, pointer,
            "there is no item \"%.200s\"", id);
    }
    kern()->axpy(t->vector, weight, x, run->dims);
    t->skips[t->n_skips++] = in.ord;
    return OK;
}

static enum err
from_items(struct run *run, struct task *t)
{
    const struct engine_query *q = t->query;
    size_t n = q->id ? 1 : q->n_positive + q->n_negative;
    t->skips = arena_alloc(run->arena, n, sizeof(*t->skips));
    if (!t->skips) {
        return ERR_NOMEM;
    }
    memset(t->vector, 0, run->dims * sizeof(*t->vector));
    enum err err = OK;
    if (q->id) {
        err = add_item(run, t, q->id, 1, "/id");
    }
    for (size_t i = 0; i < q->n_positive && !err && !q->id; i++) {
        char at[FAULT_POINTER_MAX];
        pointer_index(at, "/examples/positive", i);
        err = add_item(run, t, q->positive[i], 1.0f / (float)q->n_positive, at);
    }
    for (size_t i = 0; i < q->n_negative && !err && !q->id; i++) {
        char at[FAULT_POINTER_MAX];
        pointer_index(at, "/examples/negative", i);
        err =
            add_item(run, t, q->negative[i], -1.0f / (float)q->n_negative, at);
    }
    if (!err && !normalize(t->vector, run->dims)) {
        err = fault_set(t->fault, ERR_INVALID, q->id ? "/id" : "/examples",
            q->id ? "the item has nothing to search for: no word, no picture"
                  : "the examples cancel each other out");
    }
    return err;
}

/* ---- asking the index ---------------------------------------------------- */

/* One or two hundred skipped rows are not worth a filter: the index is asked
   for that many more, and its own skip takes the first. With a filter they
   leave its bits, so that probabilities leave them out as well. */
static enum err
leave_out(struct run *run, struct task *t)
{
    if (t->n_skips <= 1 && !t->has_rows) {
        return OK;
    }
    if (!t->has_rows) {
        size_t n_words = (roster_span(run->c->roster) + 63) / 64;
        uint64_t *bits =
            arena_alloc(run->arena, MAX(n_words, 1), sizeof(*bits));
        if (!bits) {
            return ERR_NOMEM;
        }
        roster_mark(run->c->roster, bits, n_words);
        t->rows = (struct ann_filter){.bits = bits,
            .n_words = n_words,
            .n_allowed = roster_count(run->c->roster)};
        t->has_rows = true;
    }
    uint64_t *bits =
        arena_alloc(run->arena, MAX(t->rows.n_words, 1), sizeof(*bits));
    if (!bits) {
        return ERR_NOMEM;
    }
    memcpy(bits, t->rows.bits, t->rows.n_words * sizeof(*bits));
    for (size_t i = 0; i < t->n_skips; i++) {
        uint32_t ord = t->skips[i];
        uint64_t bit = UINT64_C(1) << (ord & 63);
        if (ord >> 6 < t->rows.n_words && (bits[ord >> 6] & bit)) {
            bits[ord >> 6] &= ~bit;
            t->rows.n_allowed -= t->rows.n_allowed > 0;
        }
    }
    t->rows.bits = bits;
    return OK;
}

static enum err
prepare(struct run *run, struct task *t)
{
    const struct engine_query *q = t->query;
    double from = now_ms();
    enum err err = check_query(q, t->fault);
    if (err) {
        return err;
    }
    if (!t->vector) {
        t->vector = arena_alloc(run->arena, run->dims, sizeof(*t->vector));
    }
    if (!t->vector) {
        return ERR_NOMEM;
    }
    if (q->text.s) {
        err = from_text(run, t);
    } else if (q->image.bytes) {
        err = from_image(run, t);
    } else if (q->vector) {
        err = from_vector(run, t);
    } else {
        err = from_items(run, t);
    }
    t->encode_ms += now_ms() - from;
    if (!err && q->filter_json) {
        err = select_rows(
            run->c, q->filter_json, "/filter", run->arena, &t->rows, t->fault);
        t->has_rows = !err;
    }
    if (!err) {
        err = leave_out(run, t);
    }
    if (!err) {
        t->index_k = (size_t)q->k;
        t->hits = arena_alloc(run->arena, t->index_k, sizeof(*t->hits));
        err = t->hits ? OK : ERR_NOMEM;
    }
    return err;
}

static int
tie_by_id(void *arg, uint32_t a, uint32_t b)
{
    return roster_compare(arg, a, b);
}

static struct ann_query
index_query(struct run *run, const struct task *t)
{
    return (struct ann_query){.vector = t->vector,
        .k = t->index_k,
        .min_cosine = t->query->min_cosine,
        .temperature = run->live->temperature,
        .filter = t->has_rows ? &t->rows : NULL,
        .skip = t->n_skips == 1 && !t->has_rows ? t->skips[0] : ANN_NONE,
        .tie = tie_by_id,
        .tie_arg = run->c->roster};
}

/* ---- the answer ---------------------------------------------------------- */

static enum err
name_hits(struct run *run, struct task *t, const struct ann_result *r)
{
    struct engine_answer *a = t->answer;
    double tau = run->live->temperature;
    a->hits = arena_calloc(run->arena, MAX(r->n_hits, 1), sizeof(*a->hits));
    t->items = arena_alloc(run->arena, MAX(r->n_hits, 1), sizeof(*t->items));
    if (!a->hits || !t->items) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < r->n_hits; i++) {
        double score = r->hits[i].cosine / tau;
        double probability = exp(score - r->log_sum_exp);
        probability = probability > 1 ? 1 : probability;
        if (probability < t->query->min_probability) {
            break; /* the following are less probable still */
        }
        struct engine_hit *hit = &a->hits[a->n_hits];
        enum err err = roster_name(run->c->roster, r->hits[i].ord, run->arena,
            &hit->id, &t->items[a->n_hits]);
        if (err == ERR_NOT_FOUND) {
            continue;
        }
        if (err) {
            return err;
        }
        hit->cosine = r->hits[i].cosine;
        hit->score = score;
        hit->probability = probability;
        if (t->query->with_vector) {
            float *x = arena_alloc(run->arena, run->dims, sizeof(*x));
            if (!x) {
                return ERR_NOMEM;
            }
            if (ann_get(run->live->index->ann, r->hits[i].ord, x) == OK) {
                hit->vector = x;
            }
        }
        a->n_hits++;
    }
    return OK;
}

struct fetch {
    struct run *run;
    struct task *t;
    bool *found;
};

static enum err
fetch_row(void *arg, const struct item_row *row)
{
    struct fetch *f = arg;
    struct engine_answer *a = f->t->answer;
    struct arena *arena = f->run->arena;
    for (size_t i = 0; i < a->n_hits; i++) {
        if (f->t->items[i] != row->item) {
            continue;
        }
        struct engine_hit *hit = &a->hits[i];
        f->found[i] = true;
        if (row->title.s) {
            hit->title.s = arena_strndup(arena, row->title.s, row->title.len);
            hit->title.len = row->title.len;
        }
        if (row->text.s) {
            hit->text.s = arena_strndup(arena, row->text.s, row->text.len);
            hit->text.len = row->text.len;
        }
        if (f->t->query->with_metadata) {
            hit->metadata_json =
                row->metadata.s
                    ? arena_strndup(arena, row->metadata.s, row->metadata.len)
                    : "{}";
        }
        if ((row->title.s && !hit->title.s) || (row->text.s && !hit->text.s) ||
            (f->t->query->with_metadata && !hit->metadata_json)) {
            return ERR_NOMEM;
        }
        break;
    }
    return OK;
}

/* Titles, texts, metadata from the store. A hit whose item was deleted since
   the scan is left out. */
static enum err
fetch_bodies(struct run *run, struct task *t, struct db **db)
{
    const struct engine_query *q = t->query;
    struct engine_answer *a = t->answer;
    unsigned want = (q->with_text ? ITEM_WANT_TITLE | ITEM_WANT_TEXT : 0U) |
                    (q->with_metadata ? (unsigned)ITEM_WANT_METADATA : 0U);
    if (!want || a->n_hits == 0) {
        return OK;
    }
    enum err err = OK;
    if (!*db) {
        err = store_read_begin(run->engine->store, db);
    }
    struct fetch f = {.run = run, .t = t};
    f.found = arena_calloc(run->arena, a->n_hits, sizeof(*f.found));
    if (!err && !f.found) {
        err = ERR_NOMEM;
    }
    if (!err) {
        err = items_get_many(*db, t->items, a->n_hits, want, fetch_row, &f);
    }
    size_t kept = 0;
    for (size_t i = 0; i < a->n_hits && !err; i++) {
        if (f.found[i]) {
            a->hits[kept] = a->hits[i];
            t->items[kept++] = t->items[i];
        }
    }
    a->n_hits = err ? a->n_hits : kept;
    return err;
}

static enum err
finish(
    struct run *run, struct task *t, const struct ann_result *r, struct db **db)
{
    struct engine_answer *a = t->answer;
    a->generation = run->live->generation;
    a->exact = r->exact;
    a->temperature = run->live->temperature;
    a->probability_error = expm1(r->log_sum_exp_error);
    a->dims = run->dims;
    a->n_candidates =
        t->has_rows ? t->rows.n_allowed : ann_count(run->live->index->ann);
    a->n_scanned = r->n_scanned;
    a->n_rescored = r->n_rescored;
    a->encode_ms = t->encode_ms;
    a->scan_ms = t->scan_ms;
    enum err err = name_hits(run, t, r);
    double fetch_start = now_ms();
    if (!err) {
        err = fetch_bodies(run, t, db);
    }
    a->fetch_ms = now_ms() - fetch_start;
    if (!err) {
        struct impression seen = {.collection = run->c->id,
            .text = t->query->text,
            .id = t->query->id,
            .by_image = t->query->image.bytes != NULL,
            .items = t->items,
            .n_items = a->n_hits};
        impressions_add(run->engine->impressions, &seen, a->search_id);
        a->took_ms = now_ms() - t->started_ms;
    }
    struct engine_totals *totals = &run->engine->totals;
    totals->rows_scanned += r->n_scanned;
    totals->rows_rescored += r->n_rescored;
    return err;
}

static void
count(struct engine *engine, double started_ms, bool failed)
{
    engine->totals.searches++;
    engine->totals.searches_failed += failed;
    engine->totals.search_ns += (uint64_t)((now_ms() - started_ms) * 1e6);
}

static enum err
begin(struct run *run, struct engine *engine, const char *collection,
    struct arena *arena, struct fault *fault)
{
    *run = (struct run){.engine = engine, .arena = arena};
    enum err err = collection_find(engine, collection, &run->c, fault);
    if (!err) {
        run->live = collection_live(run->c);
        run->dims = run->c->fixed.dims;
    }
    return err;
}

static void
end(struct run *run)
{
    snapshot_unref(run->live);
    collection_unref(run->c);
}

/* May the text be encoded? prepare says why not, to whom it concerns. */
static bool
is_text(struct run *run, const struct task *t, const struct encoder *encoder)
{
    struct fault unused = {.err = OK};
    struct task probe = *t;
    probe.fault = &unused;
    return t->query->text.s && !check_query(t->query, &unused) &&
           !check_text(run, &probe, encoder);
}

/* The texts of a call, together, and before it enters the roster: no removed
   item waits for a network. */
static enum err
encode_texts(struct run *run, struct task *tasks, size_t n)
{
    const struct encoder *encoder = encoder_ref_get(run->live->encoder);
    struct task **which = arena_alloc(run->arena, n, sizeof(*which));
    size_t m = 0;
    for (size_t i = 0; i < n && which; i++) {
        if (is_text(run, &tasks[i], encoder)) {
            which[m++] = &tasks[i];
        }
    }
    if (m == 0) {
        return which ? OK : ERR_NOMEM;
    }
    struct encoder_input *inputs = arena_alloc(run->arena, m, sizeof(*inputs));
    struct encoder_info *infos = arena_alloc(run->arena, m, sizeof(*infos));
    float *vectors = arena_alloc(run->arena, m * run->dims, sizeof(*vectors));
    if (!inputs || !infos || !vectors) {
        return ERR_NOMEM;
    }
    for (size_t j = 0; j < m; j++) {
        inputs[j] = text_input(which[j]);
    }
    int64_t start = clock_mono_ns();
    if (batcher_encode(
            run->engine->batcher, encoder, inputs, m, vectors, infos)) {
        return OK; /* a refusal of one is not the others': each goes alone */
    }
    int64_t took = clock_mono_ns() - start;
    run->engine->totals.encode_ns += (uint64_t)took;
    for (size_t j = 0; j < m; j++) {
        which[j]->vector = vectors + j * run->dims;
        which[j]->info = infos[j];
        which[j]->encoded = true;
        which[j]->encode_ms = (double)took / 1e6;
    }
    return OK;
}

enum err
engine_search(struct engine *engine, const char *collection,
    const struct engine_query *query, struct arena *arena,
    struct engine_answer *out, struct fault *fault)
{
    struct run run;
    enum err err = begin(&run, engine, collection, arena, fault);
    if (err) {
        return err;
    }
    struct engine_answer answer = {.n_hits = 0};
    struct task t = {.query = query,
        .answer = &answer,
        .fault = fault,
        .started_ms = now_ms()};
    struct db *db = NULL;
    engine->totals.searches_running++;
    err = encode_texts(&run, &t, 1);
    unsigned slot = roster_enter(run.c->roster);
    if (!err) {
        err = prepare(&run, &t);
    }
    if (!err) {
        struct ann_query q = index_query(&run, &t);
        struct ann_result r = {.hits = t.hits};
        double start = now_ms();
        err = ann_search(run.live->index->ann, &q, &r);
        t.scan_ms = now_ms() - start;
        if (!err) {
            err = finish(&run, &t, &r, &db);
        }
    }
    roster_leave(run.c->roster, slot);
    engine->totals.searches_running--;
    store_read_end(engine->store, db);
    count(engine, t.started_ms, err != OK);
    end(&run);
    if (!err) {
        *out = answer;
    }
    return fault_of(fault, err, "searching");
}

/* All prepared tasks in shared passes. */
static enum err
scan_all(struct run *run, struct task *tasks, size_t n)
{
    struct ann_query *queries = arena_alloc(run->arena, n, sizeof(*queries));
    struct ann_result *results = arena_calloc(run->arena, n, sizeof(*results));
    size_t *which = arena_alloc(run->arena, n, sizeof(*which));
    if (!queries || !results || !which) {
        return ERR_NOMEM;
    }
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (!tasks[i].fault->err) {
            queries[m] = index_query(run, &tasks[i]);
            results[m].hits = tasks[i].hits;
            which[m++] = i;
        }
    }
    double start = now_ms();
    enum err err = OK;
    if (m) {
        err = ann_search_many(run->live->index->ann, queries, results, m);
    }
    double took = now_ms() - start;
    struct db *db = NULL;
    for (size_t j = 0; j < m && !err; j++) {
        struct task *t = &tasks[which[j]];
        t->scan_ms = took;
        enum err one = finish(run, t, &results[j], &db);
        if (one) {
            (void)fault_of(t->fault, one, "searching");
        }
    }
    store_read_end(run->engine->store, db);
    return err;
}

enum err
engine_search_batch(struct engine *engine, const char *collection,
    const struct engine_query *queries, size_t n, struct arena *arena,
    struct engine_answer *answers, struct fault *faults, struct fault *fault)
{
    if (n == 0 || n > ENGINE_BATCH_QUERIES_MAX) {
        return fault_set(fault, ERR_INVALID, "/queries",
            "a batch has 1 to %d queries, this one %zu",
            ENGINE_BATCH_QUERIES_MAX, n);
    }
    struct run run;
    enum err err = begin(&run, engine, collection, arena, fault);
    if (err) {
        return err;
    }
    struct task *tasks = arena_calloc(arena, n, sizeof(*tasks));
    if (!tasks) {
        end(&run);
        return fault_of(fault, ERR_NOMEM, "searching");
    }
    double started = now_ms();
    engine->totals.searches_running++;
    for (size_t i = 0; i < n; i++) {
        faults[i] = (struct fault){.err = OK};
        answers[i] = (struct engine_answer){.n_hits = 0};
        tasks[i] = (struct task){.query = &queries[i],
            .answer = &answers[i],
            .fault = &faults[i],
            .started_ms = started};
    }
    err = encode_texts(&run, tasks, n);
    unsigned slot = roster_enter(run.c->roster);
    for (size_t i = 0; i < n && !err; i++) {
        enum err one = prepare(&run, &tasks[i]);
        if (one) {
            (void)fault_of(&faults[i], one, "searching");
        }
    }
    if (!err) {
        err = scan_all(&run, tasks, n);
    }
    roster_leave(run.c->roster, slot);
    engine->totals.searches_running--;
    for (size_t i = 0; i < n; i++) {
        count(engine, i ? now_ms() : started, faults[i].err != OK);
    }
    end(&run);
    return fault_of(fault, err, "searching");
}
