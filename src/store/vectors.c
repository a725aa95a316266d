#include "store/vectors.h"

#include <string.h>

#include "base/failpoint.h"
#include "store/vectors_internal.h"

#define SPACE_COLUMNS "space, collection, dims, fingerprint, n_vectors"

static const char GET_SPACE[] =
    "SELECT " SPACE_COLUMNS " FROM spaces WHERE space = ?1 AND dead = 0";
static const char FIND_SPACE[] =
    "SELECT " SPACE_COLUMNS
    " FROM spaces WHERE collection = ?1 AND fingerprint = ?2 AND dead = 0";
static const char LIST_SPACES[] =
    "SELECT " SPACE_COLUMNS
    " FROM spaces WHERE collection = ?1 AND dead = 0 ORDER BY space";
static const char CREATE_SPACE[] =
    "INSERT INTO spaces (collection, fingerprint, dims) VALUES (?1, ?2, ?3)";
static const char COUNT_SPACES[] =
    "SELECT count(*) FROM spaces WHERE collection = ?1 AND dead = 0";
static const char COUNT_SPACE[] =
    "UPDATE spaces SET n_vectors = n_vectors + ?2 WHERE space = ?1";

static const char INSERT[] =
    "INSERT INTO embeddings (key, vector) VALUES (?1, ?2)"
    " ON CONFLICT (key) DO NOTHING";
static const char UPDATE[] = "UPDATE embeddings SET vector = ?2 WHERE key = ?1";
static const char DELETE[] = "DELETE FROM embeddings WHERE key = ?1";
static const char GET[] = "SELECT vector FROM embeddings WHERE key = ?1";
static const char READ_RANGE[] =
    "SELECT key, vector FROM embeddings WHERE key > ?1 AND key <= ?2"
    " ORDER BY key LIMIT ?3";
static const char GET_HASH[] =
    "SELECT content_hash, collection FROM items WHERE item = ?1";
static const char WALK_MISSING[] =
    "SELECT i.item, i.change_seq, i.created_ms, i.updated_ms, i.content_hash,"
    " i.ext_id, i.title, i.metadata, i.text"
    " FROM items i INDEXED BY items_by_collection"
    " WHERE i.collection = ?1 AND i.item > ?2 AND NOT EXISTS"
    " (SELECT 1 FROM embeddings e WHERE e.key = ?3 + i.item)"
    " ORDER BY i.item LIMIT ?4";

/* ---- spaces -------------------------------------------------------------- */

static void
read_space(struct query *q, struct space_row *row)
{
    *row = (struct space_row){
        .space = query_get_int(q, 0),
        .collection = query_get_int(q, 1),
        .dims = (int)query_get_int(q, 2),
        .n_vectors = query_get_int(q, 4),
    };
    query_get_bytes(q, 3, row->fingerprint, SPACE_FINGERPRINT_BYTES);
}

static enum err
keep_space(struct query *q, struct space_row *out)
{
    struct space_row row;
    enum err err;

    if (query_row(q)) {
        read_space(q, &row);
    } else if (q->err == OK) {
        q->err = ERR_NOT_FOUND;
    }
    err = query_end(q);
    if (err == OK) {
        *out = row;
    }
    return err;
}

enum err
spaces_get(struct db *db, int64_t space, struct space_row *out)
{
    struct query q;

    query_start(&q, db, GET_SPACE);
    query_int(&q, space);
    return keep_space(&q, out);
}

/* Room for one more in a space_set, which every change of an item loads. */
static enum err
expect_room(struct db *db, int64_t collection)
{
    struct query q;

    query_start(&q, db, COUNT_SPACES);
    query_int(&q, collection);
    if (query_row(&q) && query_get_int(&q, 0) >= SPACE_SET_MAX) {
        q.err = ERR_TOO_LARGE;
    }
    return query_end(&q);
}

enum err
spaces_ensure(struct db *db, int64_t collection,
    const uint8_t fingerprint[SPACE_FINGERPRINT_BYTES], int dims,
    int64_t *space)
{
    struct space_row row;
    struct query q;
    enum err err;

    query_start(&q, db, FIND_SPACE);
    query_int(&q, collection);
    query_blob(&q, fingerprint, SPACE_FINGERPRINT_BYTES);
    err = keep_space(&q, &row);
    if (err == OK) {
        if (row.dims != dims) {
            return ERR_CONFLICT;
        }
        *space = row.space;
        return OK;
    }
    if (err == ERR_NOT_FOUND) {
        err = expect_room(db, collection);
    }
    if (err != OK) {
        return err;
    }
    query_start(&q, db, CREATE_SPACE);
    query_int(&q, collection);
    query_blob(&q, fingerprint, SPACE_FINGERPRINT_BYTES);
    query_int(&q, dims);
    err = query_run(&q, NULL);
    if (err == OK) {
        *space = sqlite3_last_insert_rowid(db->sql);
    }
    return err;
}

enum err
spaces_list(struct db *db, int64_t collection, space_row_fn *fn, void *ctx)
{
    struct space_row row;
    struct query q;

    query_start(&q, db, LIST_SPACES);
    query_int(&q, collection);
    while (query_row(&q)) {
        read_space(&q, &row);
        if (q.err == OK) {
            q.err = fn(ctx, &row);
        }
    }
    return query_end(&q);
}

enum err
space_count(struct db *db, int64_t space, int64_t n)
{
    struct query q;

    if (n == 0) {
        return OK;
    }
    query_start(&q, db, COUNT_SPACE);
    query_int(&q, space);
    query_int(&q, n);
    return query_run(&q, NULL);
}

static enum err
add_to_set(void *ctx, const struct space_row *row)
{
    struct space_set *set = ctx;

    if (set->n == SPACE_SET_MAX) {
        return ERR_TOO_LARGE;
    }
    set->space[set->n] = row->space;
    set->removed[set->n] = 0;
    set->n++;
    return OK;
}

enum err
space_set_load(struct db *db, int64_t collection, struct space_set *set)
{
    set->n = 0;
    return spaces_list(db, collection, add_to_set, set);
}

enum err
space_set_remove(struct db *db, struct space_set *set, int64_t item)
{
    enum err err = OK;

    for (size_t i = 0; i < set->n && err == OK; i++) {
        struct query q;
        int64_t changes = 0;
        query_start(&q, db, DELETE);
        query_int(&q, VECTOR_KEY(set->space[i], item));
        err = query_run(&q, &changes);
        set->removed[i] += changes;
    }
    return err;
}

enum err
space_set_save(struct db *db, struct space_set *set)
{
    enum err err = OK;

    for (size_t i = 0; i < set->n && err == OK; i++) {
        err = space_count(db, set->space[i], -set->removed[i]);
    }
    return err;
}

/* ---- writing vectors ----------------------------------------------------- */

static enum err
check_dims(struct db *db, int64_t space, int dims, struct space_row *row)
{
    enum err err = spaces_get(db, space, row);

    return err == OK && row->dims != dims ? ERR_INVALID : err;
}

/* Run a statement of (key, vector); changed tells whether a row was. */
static enum err
write_row(
    struct query *q, int64_t key, const float *vector, int dims, bool *changed)
{
    query_again(q);
    query_int(q, key);
    query_blob(q, vector, (size_t)dims * sizeof(float));
    if (query_row(q) || q->err != OK) {
        return q->err == OK ? ERR_INTERNAL : q->err;
    }
    *changed = sqlite3_changes(q->db->sql) > 0;
    return OK;
}

enum err
vectors_put(struct db *db, int64_t space, const int64_t *items, size_t n,
    const float *vectors, int dims)
{
    struct query insert, update;
    struct space_row row;
    int64_t n_new = 0;
    enum err err = check_dims(db, space, dims, &row);

    if (err != OK) {
        return err;
    }
    query_start(&insert, db, INSERT);
    query_start(&update, db, UPDATE);
    for (size_t i = 0; i < n && err == OK; i++) {
        const float *vector = vectors + i * (size_t)dims;
        bool changed = false;
        if (items[i] == 0) {
            continue;
        }
        ASSERT(items[i] > 0 && items[i] <= ITEM_NUMBER_MAX);
        err = write_row(
            &insert, VECTOR_KEY(space, items[i]), vector, dims, &changed);
        n_new += changed;
        if (err == OK && !changed) {
            err = write_row(
                &update, VECTOR_KEY(space, items[i]), vector, dims, &changed);
        }
    }
    query_close(&update);
    query_close(&insert);
    return err == OK ? space_count(db, space, n_new) : err;
}

/* Whether the item is still there with the content that was embedded. */
static enum err
is_current(struct query *q, int64_t collection, int64_t item,
    const uint8_t hash[ITEM_HASH_BYTES], bool *current)
{
    uint8_t now[ITEM_HASH_BYTES];

    *current = false;
    query_again(q);
    query_int(q, item);
    if (query_row(q)) {
        query_get_bytes(q, 0, now, sizeof(now));
        *current = q->err == OK && query_get_int(q, 1) == collection &&
                   memcmp(now, hash, sizeof(now)) == 0;
    }
    return q->err;
}

enum err
vectors_backfill(struct db *db, int64_t space, const int64_t *items,
    const uint8_t (*hashes)[ITEM_HASH_BYTES], size_t n, const float *vectors,
    int dims, size_t *n_put)
{
    struct query insert, find;
    struct space_row row;
    int64_t n_new = 0;
    enum err err = check_dims(db, space, dims, &row);

    if (err != OK) {
        return err;
    }
    query_start(&find, db, GET_HASH);
    query_start(&insert, db, INSERT);
    for (size_t i = 0; i < n && err == OK; i++) {
        bool current = false, changed = false;
        if (items[i] == 0) {
            continue;
        }
        ASSERT(items[i] > 0 && items[i] <= ITEM_NUMBER_MAX);
        err = is_current(&find, row.collection, items[i], hashes[i], &current);
        if (err == OK && current) {
            err = write_row(&insert, VECTOR_KEY(space, items[i]),
                vectors + i * (size_t)dims, dims, &changed);
        }
        n_new += changed;
    }
    query_close(&insert);
    query_close(&find);
    if (err == OK) {
        err = space_count(db, space, n_new);
    }
    if (err == OK) {
        failpoint("store_reembed_commit");
        *n_put = (size_t)n_new;
    }
    return err;
}

enum err
vectors_delete(struct db *db, int64_t space, const int64_t *items, size_t n)
{
    struct space_row row;
    int64_t n_gone = 0;
    enum err err = spaces_get(db, space, &row);

    for (size_t i = 0; i < n && err == OK; i++) {
        struct query q;
        int64_t changes = 0;
        query_start(&q, db, DELETE);
        query_int(&q, VECTOR_KEY(space, items[i]));
        err = query_run(&q, &changes);
        n_gone += changes;
    }
    return err == OK ? space_count(db, space, -n_gone) : err;
}

/* ---- reading vectors ----------------------------------------------------- */

/* Little-endian f32 is the memory of every machine that this is built for. */
_Static_assert(
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vectors are little-endian");

enum err
vectors_read_block(struct db *db, int64_t space, int64_t after_item, size_t cap,
    int dims, int64_t *items, float *vectors, size_t *n)
{
    struct space_row row;
    struct query q;
    size_t n_read = 0;
    enum err err = check_dims(db, space, dims, &row);

    if (err != OK) {
        return err;
    }
    query_start(&q, db, READ_RANGE);
    query_int(&q, VECTOR_KEY(space, after_item));
    query_int(&q, VECTOR_KEY(space, ITEM_NUMBER_MAX));
    query_int(&q, (int64_t)cap);
    while (n_read < cap && query_row(&q)) {
        items[n_read] = query_get_int(&q, 0) & ITEM_NUMBER_MAX;
        query_get_bytes(&q, 1, vectors + n_read * (size_t)dims,
            (size_t)dims * sizeof(float));
        n_read++;
    }
    err = query_end(&q);
    if (err == OK) {
        *n = n_read;
    }
    return err;
}

enum err
vectors_get(struct db *db, int64_t space, const int64_t *items, size_t n,
    int dims, float *vectors, bool *found)
{
    struct space_row row;
    struct query q;
    enum err err = check_dims(db, space, dims, &row);

    if (err != OK) {
        return err;
    }
    query_start(&q, db, GET);
    for (size_t i = 0; i < n && q.err == OK; i++) {
        float *vector = vectors + i * (size_t)dims;
        bool is_there;
        query_again(&q);
        query_int(&q, VECTOR_KEY(space, items[i]));
        is_there = query_row(&q);
        if (is_there) {
            query_get_bytes(&q, 0, vector, (size_t)dims * sizeof(float));
        } else {
            memset(vector, 0, (size_t)dims * sizeof(float));
        }
        if (found != NULL) {
            found[i] = is_there;
        }
    }
    return query_end(&q);
}

enum err
vectors_count(struct db *db, int64_t space, int64_t *n)
{
    struct space_row row;
    enum err err = spaces_get(db, space, &row);

    if (err == OK) {
        *n = row.n_vectors;
    }
    return err;
}

enum err
vectors_walk_missing(struct db *db, int64_t space, int64_t after_item,
    size_t limit, unsigned want, item_row_fn *fn, void *ctx)
{
    struct space_row row;
    struct query q;
    enum err err = spaces_get(db, space, &row);

    if (err != OK) {
        return err;
    }
    query_start(&q, db, WALK_MISSING);
    query_int(&q, row.collection);
    query_int(&q, after_item);
    query_int(&q, VECTOR_KEY(space, 0));
    query_int(&q, (int64_t)limit);
    return item_rows_give(&q, want, fn, ctx);
}
