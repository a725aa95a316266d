#include "engine/ingest.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "store/pairs.h"
#include "engine/internal.h"

#define NONE UINT32_MAX
#define ENCODE_TRIES 100   /* a generation moves seldom: this is never */
#define BUSY_TRIES 2000    /* of 5 ms each */
#define SCRATCH_TRIES 5000 /* of 1 ms each */
#define POOL_FROM_ITEMS 8  /* fewer are encoded by the calling thread alone */

struct entry {
    uint64_t line;
    const char *id;
    size_t id_len;
    struct engine_text title, text, metadata;
    const float *vector;    /* given, unit or zero; else NULL */
    size_t doc_at, doc_len; /* in the batch's documents */
    uint8_t hash[ITEM_HASH_BYTES];
    enum engine_status status; /* REFUSED, SUPERSEDED: does nothing */
    uint64_t superseded_by, supersedes;
    bool unchanged; /* nothing to write */
    bool known;     /* the present row has this hash: keep its vectors */
    uint32_t row;   /* of the encoded vectors, or NONE */
    uint32_t put;   /* index among the puts, or NONE */
    int64_t version;
    struct encoder_info info;
    struct fault *fault;
};

struct ingest {
    struct collection *c;
    struct ingest_options options;
    struct arena arena;
    struct entry *entries;
    size_t n, cap;
    size_t bytes;
    uint32_t *table; /* id -> entry, open addressing */
    size_t table_size;
    struct buf documents;

    struct snapshot *live, *shadow;
    float *live_vectors, *shadow_vectors;  /* [n_rows, dims] */
    size_t rows_cap_live, rows_cap_shadow; /* floats */
    struct encoder_input *inputs;
    struct encoder_info *infos;
    size_t cap_rows;
    uint32_t *row_entry; /* [n_rows] */
    size_t n_rows;
    bool force; /* take nothing for unchanged */

    struct item_put *puts;
    struct item_result *results;
    uint32_t *put_entry;
    int64_t *row_items; /* [n_rows] numbers, as put */
    struct store_text *ids;
    uint32_t *ords;
    size_t cap_puts, n_puts;
    size_t reserved;

    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool submitted, done;
    enum err err;
};

enum err
ingest_new(struct ingest **out, struct collection *c,
    const struct ingest_options *options)
{
    struct ingest *b = mem_calloc(1, sizeof(*b));
    if (!b) {
        return ERR_NOMEM;
    }
    b->c = collection_ref(c);
    b->options = *options;
    arena_init(&b->arena, SIZE_MAX / 2);
    buf_init(&b->documents, SIZE_MAX / 2);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->cond, NULL);
    *out = b;
    return OK;
}

static void
drop_snapshots(struct ingest *b)
{
    snapshot_unref(b->live);
    snapshot_unref(b->shadow);
    b->live = b->shadow = NULL;
}

void
ingest_clear(struct ingest *b)
{
    ASSERT(!b->submitted);
    drop_snapshots(b);
    arena_release(&b->arena);
    arena_init(&b->arena, SIZE_MAX / 2);
    buf_clear(&b->documents);
    b->n = b->n_rows = b->n_puts = b->bytes = 0;
    b->force = false;
    if (b->table) {
        memset(b->table, 0xff, b->table_size * sizeof(*b->table));
    }
}

void
ingest_free(struct ingest *b)
{
    if (!b) {
        return;
    }
    if (b->submitted) {
        /* The writer has it: its memory must stay until it is done. */
        pthread_mutex_lock(&b->lock);
        while (!b->done) {
            pthread_cond_wait(&b->cond, &b->lock);
        }
        pthread_mutex_unlock(&b->lock);
        b->submitted = false;
    }
    atomic_fetch_sub(&b->c->pending_rows, b->reserved);
    drop_snapshots(b);
    arena_release(&b->arena);
    buf_release(&b->documents);
    mem_free(b->entries);
    mem_free(b->table);
    mem_free(b->live_vectors);
    mem_free(b->shadow_vectors);
    mem_free(b->inputs);
    mem_free(b->infos);
    mem_free(b->row_entry);
    mem_free(b->row_items);
    mem_free(b->puts);
    mem_free(b->results);
    mem_free(b->put_entry);
    mem_free(b->ids);
    mem_free(b->ords);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->cond);
    collection_unref(b->c);
    mem_free(b);
}

size_t
ingest_count(const struct ingest *b)
{
    return b->n;
}

size_t
ingest_bytes(const struct ingest *b)
{
    return b->bytes;
}

/* ---- gathering ----------------------------------------------------------- */

static bool
grow(void *pointer, size_t cap, size_t size)
{
    void *p;
    memcpy(&p, pointer, sizeof(p));
    void *q = mem_realloc(p, cap, size);
    if (q) {
        memcpy(pointer, &q, sizeof(q));
    }
    return q != NULL;
}

static size_t
table_slot(const struct ingest *b, const char *id, size_t len)
{
    size_t mask = b->table_size - 1;
    size_t at = hash_bytes(id, len, 0x1d5) & mask;
    while (b->table[at] != NONE) {
        const struct entry *e = &b->entries[b->table[at]];
        if (e->id_len == len && memcmp(e->id, id, len) == 0) {
            break;
        }
        at = (at + 1) & mask;
    }
    return at;
}

/* The entry of an id in a batch, or NULL. */
static const struct entry *
find_entry(const struct ingest *b, const char *id, size_t len)
{
    if (!b || b->table_size == 0) {
        return NULL;
    }
    uint32_t i = b->table[table_slot(b, id, len)];
    return i == NONE ? NULL : &b->entries[i];
}

static bool
reserve_entry(struct ingest *b)
{
    if (b->n == b->cap) {
        size_t cap = MAX(4, b->cap * 2);
        if (!grow(&b->entries, cap, sizeof(*b->entries))) {
            return false;
        }
        b->cap = cap;
    }
    if ((b->n + 1) * 2 <= b->table_size) {
        return true;
    }
    size_t size = MAX(16, b->table_size * 2);
    uint32_t *table = mem_alloc(size, sizeof(*table));
    if (!table) {
        return false;
    }
    memset(table, 0xff, size * sizeof(*table));
    mem_free(b->table);
    b->table = table;
    b->table_size = size;
    for (size_t i = 0; i < b->n; i++) {
        if (b->entries[i].status != ENGINE_REFUSED) {
            const struct entry *e = &b->entries[i];
            b->table[table_slot(b, e->id, e->id_len)] = (uint32_t)i;
        }
    }
    return true;
}

static void
at_field(char out[FAULT_POINTER_MAX], const char *prefix, const char *field)
{
    json_pointer(out, prefix, field);
}

static enum err
check_text(struct ingest *b, const struct engine_item *item, const char *prefix,
    struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    size_t max = b->c->engine->text_bytes_max;
    size_t total = (item->title.s ? item->title.len : 0) +
                   (item->text.s ? item->text.len : 0);
    if (total > max) {
        at_field(at, prefix, item->text.s ? "text" : "title");
        return fault_set(fault, ERR_TOO_LARGE, at,
            "title and text have %zu bytes, the limit is %zu", total, max);
    }
    bool title_ok =
        !item->title.s || check_utf8(item->title.s, item->title.len);
    if (!title_ok ||
        (item->text.s && !check_utf8(item->text.s, item->text.len))) {
        at_field(at, prefix, title_ok ? "text" : "title");
        return fault_set(fault, ERR_INVALID, at, "not valid UTF-8");
    }
    bool external = strcmp(b->c->fixed.encoder, SETTINGS_EXTERNAL) == 0;
    if (!item->title.s && !item->text.s && !external &&
        !document_uses_metadata(b->c->template)) {
        at_field(at, prefix, "text");
        return fault_set(
            fault, ERR_INVALID, at, "an item needs a title or a text");
    }
    return OK;
}

static enum err
check_metadata(
    struct engine_text metadata, const char *prefix, struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    if (!metadata.s) {
        return OK;
    }
    at_field(at, prefix, "metadata");
    if (metadata.len > ENGINE_METADATA_BYTES_MAX) {
        return fault_set(fault, ERR_TOO_LARGE, at,
            "metadata has %zu bytes, the limit is %d", metadata.len,
            ENGINE_METADATA_BYTES_MAX);
    }
    struct json *tree = NULL;
    struct fault why = {.err = OK};
    enum err err = json_parse(
        metadata.s, metadata.len, ENGINE_METADATA_BYTES_MAX, &tree, &why);
    if (err) {
        return fault_set(fault, err, at, "%s", why.detail);
    }
    bool object = json_kind(tree) == JSON_KIND_OBJECT;
    json_free(tree);
    return object
               ? OK
               : fault_set(fault, ERR_INVALID, at, "metadata is a JSON object");
}

static enum err
check_vector(struct ingest *b, const struct engine_item *item,
    const char *prefix, float **out, struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    at_field(at, prefix, "vector");
    bool external = strcmp(b->c->fixed.encoder, SETTINGS_EXTERNAL) == 0;
    size_t dims = b->c->fixed.dims;
    if (!item->vector) {
        return external ? fault_set(fault, ERR_INVALID, at,
                              "an item of this collection brings its vector "
                              "of %zu numbers",
                              dims)
                        : OK;
    }
    if (!external && !b->options.trusted) {
        return fault_set(fault, ERR_INVALID, at,
            "the collection's encoder makes the vectors; only a collection "
            "with \"encoder\": \"external\" takes them");
    }
    if (item->n_vector != dims) {
        return fault_set(fault, ERR_CONFLICT, at,
            "a vector of %zu numbers, the collection has %zu dimensions",
            item->n_vector, dims);
    }
    for (size_t i = 0; i < dims; i++) {
        if (!isfinite(item->vector[i])) {
            return fault_set(fault, ERR_INVALID, at,
                "number %zu of the vector is not finite", i);
        }
    }
    float *copy = arena_alloc(&b->arena, dims, sizeof(*copy));
    if (!copy) {
        return ERR_NOMEM;
    }
    memcpy(copy, item->vector, dims * sizeof(*copy));
    if (!normalize(copy, dims)) {
        memset(copy, 0, dims * sizeof(*copy));
    }
    *out = copy;
    return OK;
}

static bool
copy_text(struct ingest *b, struct engine_text from, struct engine_text *to)
{
    *to = (struct engine_text){.s = NULL};
    if (from.s) {
        to->s = arena_strndup(&b->arena, from.s, from.len);
        to->len = from.len;
        return to->s != NULL;
    }
    return true;
}

static enum err
hash_entry(struct ingest *b, struct entry *e)
{
    e->doc_at = b->documents.len;
    enum err err = document_render(
        b->c->template, e->title, e->text, e->metadata, &b->documents);
    if (err) {
        return err;
    }
    e->doc_len = b->documents.len - e->doc_at;
    if (strcmp(b->c->fixed.encoder, SETTINGS_EXTERNAL) == 0) {
        document_hash(
            e->vector, b->c->fixed.dims * sizeof(*e->vector), e->hash);
    } else {
        document_hash(e->doc_len ? b->documents.data + e->doc_at : "",
            e->doc_len, e->hash);
    }
    return OK;
}

enum err
ingest_add(struct ingest *b, const struct engine_item *item, uint64_t line,
    const char *prefix, struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    at_field(at, prefix, "id");
    enum err err = check_item_id(item->id, at, fault);
    if (!err) {
        err = check_text(b, item, prefix, fault);
    }
    if (!err) {
        err = check_metadata(item->metadata, prefix, fault);
    }
    float *vector = NULL;
    if (!err) {
        err = check_vector(b, item, prefix, &vector, fault);
    }
    if (err) {
        return fault_of(fault, err, "taking the item");
    }
    if (!reserve_entry(b)) {
        return fault_of(fault, ERR_NOMEM, "taking the item");
    }
    struct entry e = {.line = line,
        .id_len = strlen(item->id),
        .vector = vector,
        .row = NONE,
        .put = NONE};
    struct engine_text metadata = item->metadata;
    if (metadata.s && metadata.len == 2) {
        metadata.s = NULL; /* {} is stored as none */
    }
    e.id = arena_strndup(&b->arena, item->id, e.id_len);
    bool ok = e.id && copy_text(b, item->title, &e.title) &&
              copy_text(b, item->text, &e.text) &&
              copy_text(b, metadata, &e.metadata);
    err = ok ? hash_entry(b, &e) : ERR_NOMEM;
    if (err) {
        return fault_of(fault, err, "taking the item");
    }
    size_t slot = table_slot(b, e.id, e.id_len);
    if (b->table[slot] != NONE) {
        struct entry *earlier = &b->entries[b->table[slot]];
        earlier->status = ENGINE_SUPERSEDED;
        earlier->superseded_by = line;
        e.supersedes = earlier->line;
    }
    b->table[slot] = (uint32_t)b->n;
    b->bytes += e.doc_len + e.metadata.len;
    b->entries[b->n++] = e;
    return OK;
}

enum err
ingest_add_refused(
    struct ingest *b, const char *id, uint64_t line, const struct fault *why)
{
    if (!reserve_entry(b)) {
        return ERR_NOMEM;
    }
    struct entry e = {
        .line = line, .status = ENGINE_REFUSED, .row = NONE, .put = NONE};
    e.fault = arena_alloc(&b->arena, 1, sizeof(*e.fault));
    if (id) {
        e.id_len = strlen(id);
        e.id = arena_strndup(&b->arena, id, e.id_len);
    }
    if (!e.fault || (id && !e.id)) {
        return ERR_NOMEM;
    }
    *e.fault = *why;
    b->entries[b->n++] = e;
    b->bytes += sizeof(*e.fault);
    return OK;
}

/* ---- what is there already ----------------------------------------------- */

struct compare {
    struct ingest *b;
};

static bool
same_text(struct engine_text a, struct store_text b)
{
    return (a.s == NULL) == (b.s == NULL) &&
           (!a.s || (a.len == b.len && memcmp(a.s, b.s, a.len) == 0));
}

static enum err
compare_row(void *arg, const struct item_row *row)
{
    struct compare *cmp = arg;
    const struct entry *found =
        find_entry(cmp->b, row->ext_id.s, row->ext_id.len);
    if (!found) {
        return OK;
    }
    struct entry *e = &cmp->b->entries[found - cmp->b->entries];
    if (memcmp(row->content_hash, e->hash, ITEM_HASH_BYTES) != 0) {
        return OK; /* changed between two reads of one snapshot: cannot be */
    }
    e->known = true;
    if (!cmp->b->options.condition && same_text(e->title, row->title) &&
        same_text(e->text, row->text) &&
        same_text(e->metadata, row->metadata)) {
        e->unchanged = true;
        e->version = row->change_seq;
    }
    return OK;
}

/* Mark the entries whose content or whole row is in the store already. */
static enum err
find_known(struct ingest *b, const struct ingest *pending)
{
    size_t n = 0;
    struct store_text *ids = arena_alloc(&b->arena, b->n, sizeof(*ids));
    int64_t *items = arena_alloc(&b->arena, b->n, sizeof(*items));
    struct item_row *found = arena_alloc(&b->arena, b->n, sizeof(*found));
    struct entry **asked = arena_alloc(&b->arena, b->n, sizeof(struct entry *));
    if (!ids || !items || !found || !asked) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < b->n; i++) {
        struct entry *e = &b->entries[i];
        struct roster_entry in;
        e->known = e->unchanged = false;
        if (e->status == ENGINE_CREATED && !b->force &&
            roster_find(b->c->roster, e->id, &in) &&
            !find_entry(pending, e->id, e->id_len)) {
            ids[n] = (struct store_text){.s = e->id, .len = e->id_len};
            asked[n++] = e;
        }
    }
    if (n == 0) {
        return OK;
    }
    struct db *db;
    enum err err = store_read_begin(b->c->engine->store, &db);
    if (err) {
        return err;
    }
    err = items_find(db, b->c->id, ids, n, found);
    size_t n_same = 0;
    for (size_t i = 0; i < n && !err; i++) {
        if (found[i].item && memcmp(found[i].content_hash, asked[i]->hash,
                                 ITEM_HASH_BYTES) == 0) {
            items[n_same++] = found[i].item;
        }
    }
    struct compare cmp = {.b = b};
    if (!err && n_same) {
        err =
            items_get_many(db, items, n_same, ITEM_WANT_ALL, compare_row, &cmp);
    }
    store_read_end(b->c->engine->store, db);
    return err;
}

/* ---- encoding ------------------------------------------------------------ */

static bool
reserve_rows(struct ingest *b, size_t n)
{
    if (n > b->cap_rows) {
        if (!grow(&b->inputs, n, sizeof(*b->inputs)) ||
            !grow(&b->infos, n, sizeof(*b->infos)) ||
            !grow(&b->row_entry, n, sizeof(*b->row_entry)) ||
            !grow(&b->row_items, n, sizeof(*b->row_items))) {
            return false;
        }
        b->cap_rows = n;
    }
    size_t floats = n * b->c->fixed.dims;
    if (floats > b->rows_cap_live) {
        mem_free(b->live_vectors);
        b->live_vectors = mem_alloc_aligned(floats, sizeof(float));
        b->rows_cap_live = b->live_vectors ? floats : 0;
    }
    if (b->shadow && floats > b->rows_cap_shadow) {
        mem_free(b->shadow_vectors);
        b->shadow_vectors = mem_alloc_aligned(floats, sizeof(float));
        b->rows_cap_shadow = b->shadow_vectors ? floats : 0;
    }
    return b->rows_cap_live >= floats &&
           (!b->shadow || b->rows_cap_shadow >= floats);
}

/* Encode the batch's documents that are new, for one snapshot. Vectors that
   were given stand for the live one's. */
static enum err
encode_for(struct ingest *b, const struct snapshot *snapshot, float *out,
    bool take_given)
{
    size_t dims = b->c->fixed.dims, n = 0, at = 0;
    const struct encoder *encoder = encoder_ref_get(snapshot->encoder);
    struct engine *engine = b->c->engine;
    /* Rows that come with their vector stand between the others: encode the
       runs of those without. */
    int64_t start = clock_mono_ns();
    while (at < b->n_rows) {
        struct entry *e = &b->entries[b->row_entry[at]];
        if (e->vector && (take_given || !encoder)) {
            memcpy(out + at * dims, e->vector, dims * sizeof(*out));
            at++;
            continue;
        }
        size_t end = at;
        while (end < b->n_rows) {
            e = &b->entries[b->row_entry[end]];
            if (e->vector && (take_given || !encoder)) {
                break;
            }
            b->inputs[end] = (struct encoder_input){
                .text = e->doc_len ? b->documents.data + e->doc_at : "",
                .len = e->doc_len};
            end++;
        }
        enum err err = encoder_encode(encoder, b->inputs + at, end - at,
            out + at * dims, b->infos + at,
            end - at >= POOL_FROM_ITEMS ? engine->encode_pool : NULL);
        if (err) {
            return err;
        }
        for (size_t i = at; i < end; i++) {
            b->entries[b->row_entry[i]].info = b->infos[i];
        }
        n += end - at;
        at = end;
    }
    engine->totals.texts_encoded += n;
    engine->totals.encode_ns += (uint64_t)(clock_mono_ns() - start);
    return OK;
}

enum err
ingest_encode(
    struct ingest *b, const struct ingest *pending, struct fault *fault)
{
    enum err err = find_known(b, pending);
    if (err) {
        return fault_of(fault, err, "reading the items");
    }
    drop_snapshots(b);
    collection_snapshots(b->c, &b->live, &b->shadow);
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        struct entry *e = &b->entries[i];
        bool encode = e->status == ENGINE_CREATED && !e->unchanged && !e->known;
        e->row = encode ? (uint32_t)n : NONE;
        n += encode;
    }
    if (!reserve_rows(b, n)) {
        return fault_of(fault, ERR_NOMEM, "encoding");
    }
    b->n_rows = n;
    for (size_t i = 0; i < b->n; i++) {
        if (b->entries[i].row != NONE) {
            b->row_entry[b->entries[i].row] = (uint32_t)i;
        }
    }
    /* The shadow first, so that the infos that stay are the live encoder's. */
    if (b->shadow && b->shadow->index != b->live->index && n) {
        err = encode_for(b, b->shadow, b->shadow_vectors, false);
    }
    if (!err && n) {
        const char *trusted = b->options.trusted;
        err = encode_for(b, b->live, b->live_vectors,
            trusted && strcmp(trusted, b->live->fingerprint) == 0);
    }
    return fault_of(fault, err, "encoding");
}

/* ---- committing ---------------------------------------------------------- */

static bool
reserve_puts(struct ingest *b, size_t n)
{
    if (n <= b->cap_puts) {
        return true;
    }
    if (!grow(&b->puts, n, sizeof(*b->puts)) ||
        !grow(&b->results, n, sizeof(*b->results)) ||
        !grow(&b->put_entry, n, sizeof(*b->put_entry)) ||
        !grow(&b->ids, n, sizeof(*b->ids)) ||
        !grow(&b->ords, n, sizeof(*b->ords))) {
        return false;
    }
    b->cap_puts = n;
    return true;
}

static struct store_text
as_store(struct engine_text t)
{
    return (struct store_text){.s = t.s, .len = t.len};
}

static enum err
check_condition(
    struct ingest *b, struct db *db, const struct engine_condition *condition)
{
    struct item_row now;
    enum err err = items_find(db, b->c->id, &b->puts[0].ext_id, 1, &now);
    if (err) {
        return err;
    }
    bool ok = !(condition->must_be_absent && now.item) &&
              !(condition->must_exist && !now.item);
    if (ok && condition->n_versions) {
        ok = false;
        for (size_t i = 0; i < condition->n_versions; i++) {
            ok = ok || (now.item && now.change_seq == condition->versions[i]);
        }
    }
    return ok ? OK : ERR_PRECONDITION;
}

/* Pairs follow their items: those of changed ones are set aside, those of
   items that are there again come back. */
static enum err
follow_pairs(struct ingest *b, struct db *db)
{
    if (!b->c->has_pairs) {
        return OK;
    }
    size_t n_changed = 0, n_created = 0;
    for (size_t i = 0; i < b->n_puts; i++) {
        if (b->results[i].content_changed && !b->results[i].created) {
            b->ids[n_changed++] = b->puts[i].ext_id;
        }
    }
    enum err err = OK;
    if (n_changed) {
        err = pairs_set_aside(
            db, b->c->id, b->ids, n_changed, PAIR_ITEM_CHANGED, NULL);
    }
    for (size_t i = 0; i < b->n_puts; i++) {
        if (b->results[i].created) {
            b->ids[n_created++] = b->puts[i].ext_id;
        }
    }
    if (!err && n_created) {
        err = pairs_bring_back(db, b->c->id, b->ids, n_created, NULL);
    }
    return err;
}

static enum err
run_ingest(struct db *db, void *arg)
{
    struct ingest *b = arg;
    enum err err = collections_expect(db, b->c->id, b->live->generation,
        b->shadow ? b->shadow->generation : 0);
    if (!err && b->options.condition && b->n_puts == 1) {
        err = check_condition(b, db, b->options.condition);
    }
    if (!err) {
        err = items_put(
            db, b->c->id, b->puts, b->n_puts, clock_wall_ms(), b->results);
    }
    for (size_t i = 0; i < b->n_puts && !err; i++) {
        const struct item_result *r = &b->results[i];
        const struct entry *e = &b->entries[b->put_entry[i]];
        err = r->err;
        if (!err && r->content_changed && e->row == NONE) {
            /* Someone else changed it since it was looked at. */
            err = ERR_CONFLICT;
        }
        if (!err && e->row != NONE) {
            b->row_items[e->row] = r->item;
        }
    }
    int dims = (int)b->c->fixed.dims;
    if (!err && b->n_rows) {
        err = vectors_put(db, b->live->index->space, b->row_items, b->n_rows,
            b->live_vectors, dims);
    }
    if (!err && b->n_rows && b->shadow &&
        b->shadow->index->space != b->live->index->space) {
        err = vectors_put(db, b->shadow->index->space, b->row_items, b->n_rows,
            b->shadow_vectors, dims);
    }
    return err ? err : follow_pairs(b, db);
}

void
index_metadata(
    struct collection *c, uint32_t ord, const char *metadata, size_t len)
{
    struct json *tree = NULL;
    enum err err = OK;
    if (metadata) {
        err = json_parse(metadata, len, ENGINE_METADATA_BYTES_MAX, &tree, NULL);
    }
    if (err) {
        columns_forget(c->columns);
    } else {
        columns_set(c->columns, ord, tree);
    }
    json_free(tree);
}

/* The rows are on disk, so they must get into the index: room for them was
   made before, what is wanted still is a moment's scratch memory. */
static void
put_vectors(
    struct ann *ann, const uint32_t *ords, const float *vectors, size_t n)
{
    enum err err = ann_put_many(ann, ords, vectors, n);
    for (int i = 0; err && i < SCRATCH_TRIES; i++) {
        clock_sleep_ms(1);
        err = ann_put_many(ann, ords, vectors, n);
    }
    ASSERT(err == OK);
}

/* Memory follows the file; room for all of it was made before. */
static void
index_batch(struct ingest *b)
{
    struct collection *c = b->c;
    bool columns = columns_any(c->columns);
    for (size_t i = 0; i < b->n_puts; i++) {
        struct entry *e = &b->entries[b->put_entry[i]];
        const struct item_result *r = &b->results[i];
        enum err err = roster_put(
            c->roster, e->id, r->item, r->change_seq, &b->ords[i], NULL);
        ASSERT(err == OK);
        e->version = r->change_seq;
        e->status = r->created ? ENGINE_CREATED : ENGINE_UPDATED;
        if (columns) {
            index_metadata(c, b->ords[i], e->metadata.s, e->metadata.len);
        }
    }
    /* puts and rows are both in the order of the entries */
    size_t n = 0;
    for (size_t i = 0; i < b->n_puts; i++) {
        if (b->entries[b->put_entry[i]].row != NONE) {
            b->ords[n++] = b->ords[i];
        }
    }
    ASSERT(n == b->n_rows);
    if (n) {
        put_vectors(b->live->index->ann, b->ords, b->live_vectors, n);
        if (b->shadow && b->shadow->index != b->live->index) {
            put_vectors(b->shadow->index->ann, b->ords, b->shadow_vectors, n);
        }
    }
    c->engine->totals.items_written += b->n_puts;
}

static void
done_ingest(void *arg, enum err err)
{
    struct ingest *b = arg;
    if (!err) {
        index_batch(b);
    }
    pthread_mutex_lock(&b->lock);
    b->err = err;
    b->done = true;
    pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->lock);
}

/* Room in roster and indexes for this batch and all others under way. */
static enum err
reserve_memory(struct ingest *b)
{
    size_t id_bytes = 0;
    for (size_t i = 0; i < b->n_puts; i++) {
        id_bytes += b->puts[i].ext_id.len;
    }
    if (b->reserved < b->n_puts) {
        atomic_fetch_add(&b->c->pending_rows, b->n_puts - b->reserved);
        b->reserved = b->n_puts;
    }
    size_t pending = b->c->pending_rows;
    enum err err = roster_reserve(
        b->c->roster, pending, id_bytes + (pending - b->n_puts) * 64);
    size_t span = roster_span(b->c->roster) + pending;
    if (!err) {
        err = space_index_reserve(b->live->index, span);
    }
    if (!err && b->shadow) {
        err = space_index_reserve(b->shadow->index, span);
    }
    return err;
}

enum err
ingest_submit(struct ingest *b, struct fault *fault)
{
    if (!reserve_puts(b, b->n)) {
        return fault_of(fault, ERR_NOMEM, "writing the items");
    }
    b->n_puts = 0;
    for (size_t i = 0; i < b->n; i++) {
        struct entry *e = &b->entries[i];
        e->put = NONE;
        if (e->status != ENGINE_CREATED || e->unchanged) {
            continue;
        }
        e->put = (uint32_t)b->n_puts;
        b->put_entry[b->n_puts] = (uint32_t)i;
        struct item_put *p = &b->puts[b->n_puts++];
        *p = (struct item_put){.ext_id = {.s = e->id, .len = e->id_len},
            .title = as_store(e->title),
            .text = as_store(e->text),
            .metadata = as_store(e->metadata)};
        memcpy(p->content_hash, e->hash, ITEM_HASH_BYTES);
    }
    b->done = false;
    b->err = OK;
    if (b->n_puts == 0) {
        b->submitted = b->done = true;
        return OK;
    }
    enum err err = reserve_memory(b);
    struct store_op op = {.run = run_ingest, .done = done_ingest, .arg = b};
    for (int i = 0; !err; i++) {
        err = store_write_async(b->c->engine->store, &op);
        if (err != ERR_BUSY || i == BUSY_TRIES) {
            break;
        }
        clock_sleep_ms(5);
        err = OK;
    }
    if (err) {
        return fault_of(fault, err, "writing the items");
    }
    b->submitted = true;
    return OK;
}

static enum err
wait_once(struct ingest *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->done) {
        pthread_cond_wait(&b->cond, &b->lock);
    }
    enum err err = b->err;
    pthread_mutex_unlock(&b->lock);
    b->submitted = false;
    return err;
}

enum err
ingest_wait(struct ingest *b, struct fault *fault)
{
    enum err err = wait_once(b);
    for (int i = 0; err == ERR_CONFLICT && i < ENCODE_TRIES; i++) {
        b->c->engine->totals.commit_conflicts++;
        /* The publishing operation swaps the pointer when it is done, which
           may be a moment after ours was refused. */
        if (i > 2) {
            clock_sleep_ms(5);
        }
        b->force = true;
        err = ingest_encode(b, NULL, fault);
        if (!err) {
            err = ingest_submit(b, fault);
        }
        if (!err) {
            err = wait_once(b);
        }
    }
    atomic_fetch_sub(&b->c->pending_rows, b->reserved);
    b->reserved = 0;
    for (size_t i = 0; i < b->n && !err; i++) {
        b->c->engine->totals.items_unchanged += b->entries[i].unchanged;
    }
    if (err == ERR_PRECONDITION) {
        return fault_set(
            fault, err, "", "the item is not as the condition says");
    }
    if (err == ERR_NOT_FOUND) {
        return fault_set(fault, err, "", "the collection has been deleted");
    }
    return fault_of(fault, err, "writing the items");
}

void
ingest_outcome(const struct ingest *b, size_t i, struct engine_outcome *out)
{
    const struct entry *e = &b->entries[i];
    *out = (struct engine_outcome){.line = e->line,
        .id = e->id,
        .status = e->unchanged ? ENGINE_UNCHANGED : e->status,
        .version = e->version,
        .truncated = e->info.n_tokens < e->info.n_tokens_full,
        .n_tokens = e->info.n_tokens,
        .n_tokens_full = e->info.n_tokens_full,
        .superseded_by = e->superseded_by,
        .supersedes = e->supersedes};
    if (e->fault) {
        out->fault = *e->fault;
    }
}
