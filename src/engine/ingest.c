#include "engine/ingest.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "store/pairs.h"
#include "engine/ingest_internal.h"

#define ENCODE_TRIES 100   /* a generation moves seldom: this is never */
#define BUSY_TRIES 2000    /* of 5 ms each */
#define SCRATCH_TRIES 5000 /* of 1 ms each */

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
    b->reads_images = collection_reads_images(c);
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

bool
ingest_grow(void *pointer, size_t cap, size_t size)
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
    while (b->table[at] != INGEST_NONE) {
        const struct ingest_entry *e = &b->entries[b->table[at]];
        if (e->id_len == len && memcmp(e->id, id, len) == 0) {
            break;
        }
        at = (at + 1) & mask;
    }
    return at;
}

const struct ingest_entry *
ingest_find(const struct ingest *b, const char *id, size_t len)
{
    if (!b || b->table_size == 0) {
        return NULL;
    }
    uint32_t i = b->table[table_slot(b, id, len)];
    return i == INGEST_NONE ? NULL : &b->entries[i];
}

bool
ingest_entry_writes(const struct ingest_entry *e)
{
    return e->status == ENGINE_CREATED && !e->unchanged;
}

bool
ingest_takes_given(const struct ingest *b, const struct ingest_entry *e)
{
    if (!e->vector || !b->live->encoder) {
        return e->vector != NULL;
    }
    const char *trusted = b->options.trusted;
    return trusted && strcmp(trusted, b->live->fingerprint) == 0;
}

static bool
reserve_entry(struct ingest *b)
{
    if (b->n == b->cap) {
        size_t cap = MAX(4, b->cap * 2);
        if (!ingest_grow(&b->entries, cap, sizeof(*b->entries))) {
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
            const struct ingest_entry *e = &b->entries[i];
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
    bool may_lack = settings_reads(&b->c->fixed) != SETTINGS_READS_TEXT ||
                    document_uses_metadata(b->c->template) ||
                    b->options.rewrites || item->image.bytes;
    if (!item->title.s && !item->text.s && !may_lack) {
        at_field(at, prefix, "text");
        return fault_set(fault, ERR_INVALID, at,
            "an item needs a title, a text or a picture");
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
hash_entry(struct ingest *b, struct ingest_entry *e)
{
    e->doc_at = b->documents.len;
    if (b->reads_images) {
        ingest_picture_hash(e->picture, e->hash);
        return OK;
    }
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

/* The picture that the superseded line would have given or taken away. */
static void
inherit(struct ingest_entry *e, const struct ingest_entry *earlier)
{
    if (!e->picture && !e->no_image) {
        e->picture = earlier->picture;
        e->no_image = earlier->no_image;
        e->inherits = true;
    }
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
    struct ingest_picture *picture = NULL;
    if (!err) {
        err = ingest_picture_add(b, item, prefix, &picture, fault);
    }
    if (err) {
        return fault_of(fault, err, "taking the item");
    }
    if (!reserve_entry(b)) {
        return fault_of(fault, ERR_NOMEM, "taking the item");
    }
    struct ingest_entry e = {.line = line,
        .id_len = strlen(item->id),
        .vector = vector,
        .picture = picture,
        .no_image = item->no_image && !picture,
        .row = INGEST_NONE,
        .put = INGEST_NONE};
    struct engine_text metadata = item->metadata;
    if (metadata.s && metadata.len == 2) {
        metadata.s = NULL; /* {} is stored as none */
    }
    e.id = arena_strndup(&b->arena, item->id, e.id_len);
    bool ok = e.id && copy_text(b, item->title, &e.title) &&
              copy_text(b, item->text, &e.text) &&
              copy_text(b, metadata, &e.metadata);
    if (!ok) {
        return fault_of(fault, ERR_NOMEM, "taking the item");
    }
    size_t slot = table_slot(b, e.id, e.id_len);
    struct ingest_entry *earlier =
        b->table[slot] == INGEST_NONE ? NULL : &b->entries[b->table[slot]];
    if (earlier) {
        inherit(&e, earlier);
    }
    err = hash_entry(b, &e);
    if (err) {
        return fault_of(fault, err, "taking the item");
    }
    if (earlier) {
        earlier->status = ENGINE_SUPERSEDED;
        earlier->superseded_by = line;
        e.supersedes = earlier->line;
    }
    b->table[slot] = (uint32_t)b->n;
    b->bytes += e.doc_len + e.metadata.len + (picture ? picture->file.n : 0);
    if (b->reads_images) {
        b->bytes += e.title.len + e.text.len;
    }
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
    struct ingest_entry e = {.line = line,
        .status = ENGINE_REFUSED,
        .row = INGEST_NONE,
        .put = INGEST_NONE};
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

/* ---- committing ---------------------------------------------------------- */

static bool
reserve_puts(struct ingest *b, size_t n)
{
    if (n <= b->cap_puts) {
        return true;
    }
    if (!ingest_grow(&b->puts, n, sizeof(*b->puts)) ||
        !ingest_grow(&b->results, n, sizeof(*b->results)) ||
        !ingest_grow(&b->put_entry, n, sizeof(*b->put_entry)) ||
        !ingest_grow(&b->ids, n, sizeof(*b->ids)) ||
        !ingest_grow(&b->ords, n, sizeof(*b->ords))) {
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
        const struct ingest_entry *e = &b->entries[b->put_entry[i]];
        err = r->err;
        if (!err && r->content_changed && e->row == INGEST_NONE) {
            /* Someone else changed it since it was looked at. */
            err = ERR_CONFLICT;
        }
        if (!err && !r->created && !e->known && ingest_keeps_picture(b, e)) {
            /* It was not there, and so it had no picture to keep. */
            err = ERR_CONFLICT;
        }
        if (!err && e->row != INGEST_NONE) {
            b->row_items[e->row] = r->item;
        }
    }
    if (!err) {
        err = ingest_pictures_put(b, db);
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
        struct ingest_entry *e = &b->entries[b->put_entry[i]];
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
        if (b->entries[b->put_entry[i]].row != INGEST_NONE) {
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
        struct ingest_entry *e = &b->entries[i];
        e->put = INGEST_NONE;
        if (!ingest_entry_writes(e)) {
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
    enum err err = ingest_pictures_submit(b);
    if (err) {
        return fault_of(fault, err, "writing the items");
    }
    b->done = false;
    b->err = OK;
    if (b->n_puts == 0) {
        b->submitted = b->done = true;
        return OK;
    }
    err = reserve_memory(b);
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
    const struct ingest_entry *e = &b->entries[i];
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
