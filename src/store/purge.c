#include "store/purge.h"

#include "store/db.h"
#include "store/vectors_internal.h"
#include "store/weights_internal.h"

/* Rows of a step; about 2 MB of vectors, some 10 ms. */
#define STEP_ROWS 1024
/* Chunks of weights and pictures count for this many rows. */
#define ROWS_OF_A_CHUNK 256
#define ROWS_OF_AN_IMAGE 16
/* Free pages at the end of the file are kept for what comes next up to here;
   a step gives back as many at most. */
#define FREE_PAGES_KEPT 4096
#define FREE_PAGES_STEP 256

static const char DEAD_SPACE[] =
    "SELECT space FROM spaces INDEXED BY spaces_dead WHERE dead = 1 LIMIT 1";
static const char KILL_SPACES_OF[] =
    "UPDATE spaces SET dead = 1 WHERE collection = ?1 AND dead = 0";
static const char DELETE_VECTORS[] =
    "DELETE FROM embeddings WHERE key IN (SELECT key FROM embeddings"
    " WHERE key >= ?1 AND key <= ?2 ORDER BY key LIMIT ?3)";
static const char DELETE_SPACE[] = "DELETE FROM spaces WHERE space = ?1";

/* Chunks that nobody needs, and their owner. */
static const struct dropped {
    const char *find;
    const char *delete_chunks;
    const char *gone;
} DROPPED[] = {{"SELECT id FROM generations INDEXED BY generations_purge"
                " WHERE weights_purge = 1 LIMIT 1",
                   "DELETE FROM weights WHERE key IN (SELECT key FROM weights"
                   " WHERE key >= ?1 AND key <= ?2 ORDER BY key LIMIT ?3)",
                   "UPDATE generations SET weights_purge = 0 WHERE id = ?1"},
    {"SELECT id FROM encoders INDEXED BY encoders_purge"
     " WHERE weights = 3 LIMIT 1",
        "DELETE FROM encoder_weights WHERE key IN (SELECT key"
        " FROM encoder_weights WHERE key >= ?1 AND key <= ?2"
        " ORDER BY key LIMIT ?3)",
        "DELETE FROM encoders WHERE id = ?1"}};
static const char DROP_WEIGHTS_OF[] =
    "UPDATE generations SET weights = 3, weights_purge = 1"
    " WHERE collection = ?1 AND weights IN (1, 2)";

static const char DELETED_COLLECTION[] =
    "SELECT id FROM collections INDEXED BY collections_deleted"
    " WHERE deleted = 1 LIMIT 1";
static const char DELETE_IMAGES[] =
    "DELETE FROM images WHERE item IN (SELECT item FROM items"
    " INDEXED BY items_by_collection WHERE collection = ?1"
    " ORDER BY item LIMIT ?2)";
static const char DELETE_ITEMS[] =
    "DELETE FROM items WHERE item IN (SELECT item FROM items"
    " INDEXED BY items_by_collection WHERE collection = ?1"
    " ORDER BY item LIMIT ?2)"
    " AND NOT EXISTS (SELECT 1 FROM images p WHERE p.item = items.item)";
static const char DELETE_PAIRS[] =
    "DELETE FROM pairs WHERE pair IN (SELECT pair FROM pairs"
    " WHERE collection = ?1 LIMIT ?2)";
static const char DELETE_GENERATIONS[] =
    "DELETE FROM generations WHERE collection = ?1";
static const char DELETE_COLLECTION[] = "DELETE FROM collections WHERE id = ?1";

static const char COUNT_FREE[] = "PRAGMA freelist_count";
static const char GIVE_BACK[] = "PRAGMA incremental_vacuum(256)";

/* The first number that a statement without parameters gives; 0: none. */
static enum err
find_one(struct db *db, const char *sql, int64_t *id)
{
    enum err err = db_get_int(db, sql, id);

    if (err == ERR_NOT_FOUND) {
        *id = 0;
        return OK;
    }
    return err;
}

static enum err
run_with_id(struct db *db, const char *sql, int64_t id, int64_t *changes)
{
    struct query q;

    query_start(&q, db, sql);
    query_int(&q, id);
    return query_run(&q, changes);
}

static enum err
delete_range(struct db *db, const char *sql, int64_t first, int64_t last,
    size_t max_rows, int64_t *changes)
{
    struct query q;

    query_start(&q, db, sql);
    query_int(&q, first);
    query_int(&q, last);
    query_int(&q, (int64_t)max_rows);
    return query_run(&q, changes);
}

static enum err
purge_space(struct db *db, size_t max_rows, int64_t *n)
{
    int64_t space = 0, changes = 0;
    enum err err = find_one(db, DEAD_SPACE, &space);

    if (err != OK || space == 0) {
        return err;
    }
    err = delete_range(db, DELETE_VECTORS, VECTOR_KEY(space, 0),
        VECTOR_KEY(space, ITEM_NUMBER_MAX), max_rows, &changes);
    if (err == OK && changes == 0) {
        err = run_with_id(db, DELETE_SPACE, space, &changes);
    }
    *n = changes;
    return err;
}

static enum err
purge_weights(
    struct db *db, const struct dropped *dropped, size_t max_rows, int64_t *n)
{
    int64_t id = 0, changes = 0;
    enum err err = find_one(db, dropped->find, &id);

    if (err != OK || id == 0) {
        return err;
    }
    err = delete_range(db, dropped->delete_chunks, WEIGHTS_KEY(id, 0),
        WEIGHTS_KEY(id, WEIGHTS_CHUNKS_MAX), max_rows / ROWS_OF_A_CHUNK + 1,
        &changes);
    if (err == OK && changes == 0) {
        err = run_with_id(db, dropped->gone, id, &changes);
    }
    *n = changes;
    return err;
}

static enum err
delete_some(struct db *db, const char *sql, int64_t collection, size_t max_rows,
    int64_t *changes)
{
    struct query q;

    query_start(&q, db, sql);
    query_int(&q, collection);
    query_int(&q, (int64_t)max_rows);
    return query_run(&q, changes);
}

/* The pictures of the first items, then of those items that have none (left)
   many: the first ones are always among them, so every step gets on. */
static enum err
purge_items(struct db *db, int64_t collection, size_t max_rows, int64_t *n)
{
    int64_t n_images = 0, n_items = 0;
    enum err err = delete_some(db, DELETE_IMAGES, collection,
        max_rows / ROWS_OF_AN_IMAGE + 1, &n_images);

    if (err == OK) {
        err = delete_some(db, DELETE_ITEMS, collection, max_rows, &n_items);
    }
    *n = n_images + n_items;
    return err;
}

/* Spaces and weights of a deleted collection are marked first and go by the
   steps above, so what is left here are its rows. */
static enum err
purge_collection(struct db *db, size_t max_rows, int64_t *n)
{
    int64_t id = 0;
    enum err err = find_one(db, DELETED_COLLECTION, &id);

    if (err != OK || id == 0) {
        return err;
    }
    err = run_with_id(db, KILL_SPACES_OF, id, n);
    if (err == OK && *n == 0) {
        err = run_with_id(db, DROP_WEIGHTS_OF, id, n);
    }
    if (err == OK && *n == 0) {
        err = purge_items(db, id, max_rows, n);
    }
    if (err == OK && *n == 0) {
        err = delete_some(db, DELETE_PAIRS, id, max_rows, n);
    }
    if (err == OK && *n == 0) {
        err = run_with_id(db, DELETE_GENERATIONS, id, n);
    }
    if (err == OK && *n == 0) {
        err = run_with_id(db, DELETE_COLLECTION, id, n);
    }
    return err;
}

static enum err
purge_free_pages(struct db *db, int64_t *n)
{
    int64_t n_free = 0;
    enum err err = db_get_int(db, COUNT_FREE, &n_free);

    if (err != OK || n_free <= FREE_PAGES_KEPT) {
        return err;
    }
    err = db_run(db, GIVE_BACK);
    *n = FREE_PAGES_STEP;
    return err;
}

enum err
purge_step(struct db *db, size_t max_rows, size_t *n)
{
    int64_t n_rows = 0;
    enum err err = purge_space(db, max_rows, &n_rows);

    for (size_t i = 0; i < ARRAY_LEN(DROPPED); i++) {
        if (err == OK && n_rows == 0) {
            err = purge_weights(db, &DROPPED[i], max_rows, &n_rows);
        }
    }
    if (err == OK && n_rows == 0) {
        err = purge_collection(db, max_rows, &n_rows);
    }
    if (err == OK && n_rows == 0) {
        err = purge_free_pages(db, &n_rows);
    }
    if (err == OK) {
        *n = (size_t)n_rows;
    }
    return err;
}

static enum err
step_op(struct db *db, void *arg)
{
    return purge_step(db, STEP_ROWS, arg);
}

enum err
purge_run(struct store *store, const atomic_bool *stop, int64_t *n_rows)
{
    int64_t sum = 0;
    size_t n = 1;
    enum err err = OK;

    while (err == OK && n > 0) {
        if (stop != NULL && atomic_load(stop)) {
            err = ERR_CANCELLED;
            break;
        }
        n = 0;
        err = store_run(store, step_op, &n);
        sum += (int64_t)n;
    }
    if (n_rows != NULL) {
        *n_rows = sum;
    }
    return err;
}
