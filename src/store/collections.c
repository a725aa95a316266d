#include "store/collections.h"

#include "store/db.h"
#include "store/jobs.h"

#define COLUMNS                                                                \
    "c.id, c.name, c.fixed, c.patched, c.live_generation,"                     \
    " c.previous_generation, c.shadow_generation, c.next_generation,"          \
    " c.change_seq, c.n_items, c.pairs_seen, c.created_ms, c.updated_ms"

static const char CREATE[] =
    "INSERT INTO collections (name, fixed, patched, created_ms, updated_ms)"
    " VALUES (?1, ?2, ?3, ?4, ?4)";
static const char GET_BY_ID[] =
    "SELECT " COLUMNS " FROM collections c WHERE c.id = ?1 AND c.deleted = 0";
static const char GET_BY_NAME[] =
    "SELECT " COLUMNS " FROM collections c WHERE c.name = ?1 AND c.deleted = 0";
static const char GET_BY_ALIAS[] =
    "SELECT " COLUMNS " FROM aliases a JOIN collections c"
    " ON c.id = a.collection WHERE a.alias = ?1 AND c.deleted = 0";
static const char LIST[] =
    "SELECT " COLUMNS " FROM collections c WHERE c.deleted = 0"
    " AND c.name > ?1 ORDER BY c.name LIMIT ?2";
static const char PATCH[] =
    "UPDATE collections SET patched = ?2, updated_ms = ?3"
    " WHERE id = ?1 AND deleted = 0";
static const char MARK_DELETED[] =
    "UPDATE collections SET deleted = 1, live_generation = 0,"
    " previous_generation = 0, shadow_generation = 0"
    " WHERE id = ?1 AND deleted = 0";
static const char DELETE_ALIASES_OF[] =
    "DELETE FROM aliases WHERE collection = ?1";
static const char FAIL_JOBS_OF[] =
    "UPDATE jobs SET state = ?2, error = 'the collection was deleted',"
    " finished_ms = max(created_ms, started_ms)"
    " WHERE collection = ?1 AND state <= 1";
static const char GET_ROLES[] =
    "SELECT live_generation, shadow_generation FROM collections"
    " WHERE id = ?1 AND deleted = 0";
static const char SEE_PAIRS[] =
    "UPDATE collections SET pairs_seen = max(pairs_seen, ?2)"
    " WHERE id = ?1 AND deleted = 0";

static const char NAME_IS_ALIAS[] = "SELECT 1 FROM aliases WHERE alias = ?1";
static const char NAME_IS_COLLECTION[] =
    "SELECT 1 FROM collections WHERE name = ?1 AND deleted = 0";
static const char IS_COLLECTION[] =
    "SELECT 1 FROM collections WHERE id = ?1 AND deleted = 0";
static const char PUT_ALIAS[] =
    "INSERT INTO aliases (alias, collection, updated_ms) VALUES (?1, ?2, ?3)"
    " ON CONFLICT (alias) DO UPDATE SET collection = excluded.collection,"
    " updated_ms = excluded.updated_ms";
static const char DELETE_ALIAS[] = "DELETE FROM aliases WHERE alias = ?1";
static const char GET_ALIAS[] =
    "SELECT c.name FROM aliases a JOIN collections c ON c.id = a.collection"
    " WHERE a.alias = ?1";
static const char LIST_ALIASES[] =
    "SELECT a.alias, c.name FROM aliases a JOIN collections c"
    " ON c.id = a.collection WHERE a.alias > ?1 ORDER BY a.alias LIMIT ?2";

/* From the start of an order of names: every name is greater. */
static struct store_text
from_start(struct store_text after)
{
    return after.s == NULL ? store_text_of("") : after;
}

static void
read_row(struct query *q, struct collection_row *row)
{
    *row = (struct collection_row){
        .id = query_get_int(q, 0),
        .name = query_get_text(q, 1),
        .fixed = query_get_text(q, 2),
        .patched = query_get_text(q, 3),
        .live_generation = query_get_int(q, 4),
        .previous_generation = query_get_int(q, 5),
        .shadow_generation = query_get_int(q, 6),
        .next_generation = query_get_int(q, 7),
        .change_seq = query_get_int(q, 8),
        .n_items = query_get_int(q, 9),
        .pairs_seen = query_get_int(q, 10),
        .created_ms = query_get_int(q, 11),
        .updated_ms = query_get_int(q, 12),
    };
}

/* The rest of a query for one row. */
static enum err
keep_row(struct query *q, struct arena *arena, struct collection_row *out)
{
    struct collection_row row;
    enum err err;

    if (query_row(q)) {
        read_row(q, &row);
        if (q->err == OK) {
            q->err = text_keep(arena, &row.name);
        }
        if (q->err == OK) {
            q->err = text_keep(arena, &row.fixed);
        }
        if (q->err == OK) {
            q->err = text_keep(arena, &row.patched);
        }
    } else if (q->err == OK) {
        q->err = ERR_NOT_FOUND;
    }
    err = query_end(q);
    if (err == OK) {
        *out = row;
    }
    return err;
}

/* OK when a one-parameter query gives a row, ERR_NOT_FOUND otherwise. */
static enum err
exists_text(struct db *db, const char *sql, struct store_text v)
{
    struct query q;

    query_start(&q, db, sql);
    query_text(&q, v);
    if (!query_row(&q) && q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    return query_end(&q);
}

enum err
collections_create(struct db *db, struct store_text name,
    struct store_text fixed, struct store_text patched, int64_t now_ms,
    int64_t *id)
{
    enum err err = exists_text(db, NAME_IS_ALIAS, name);
    struct query q;

    if (err != ERR_NOT_FOUND) {
        return err == OK ? ERR_EXISTS : err;
    }
    query_start(&q, db, CREATE);
    query_text(&q, name);
    query_text(&q, fixed);
    query_text(&q, patched);
    query_int(&q, now_ms);
    err = query_run(&q, NULL);
    if (err == OK) {
        *id = sqlite3_last_insert_rowid(db->sql);
    }
    return err;
}

enum err
collections_get(
    struct db *db, int64_t id, struct arena *arena, struct collection_row *out)
{
    struct query q;

    query_start(&q, db, GET_BY_ID);
    query_int(&q, id);
    return keep_row(&q, arena, out);
}

enum err
collections_find(struct db *db, struct store_text name, struct arena *arena,
    struct collection_row *out)
{
    struct query q;
    enum err err;

    query_start(&q, db, GET_BY_NAME);
    query_text(&q, name);
    err = keep_row(&q, arena, out);
    if (err != ERR_NOT_FOUND) {
        return err;
    }
    query_start(&q, db, GET_BY_ALIAS);
    query_text(&q, name);
    return keep_row(&q, arena, out);
}

enum err
collections_list(struct db *db, struct store_text after, size_t limit,
    collection_row_fn *fn, void *ctx)
{
    struct collection_row row;
    struct query q;

    query_start(&q, db, LIST);
    query_text(&q, from_start(after));
    query_int(&q, (int64_t)limit);
    while (query_row(&q)) {
        read_row(&q, &row);
        if (q.err == OK) {
            q.err = fn(ctx, &row);
        }
    }
    return query_end(&q);
}

/* Run an update of one row; ERR_NOT_FOUND when it changed none. */
static enum err
run_on_one(struct query *q)
{
    int64_t changes = 0;
    enum err err = query_run(q, &changes);

    return err == OK && changes == 0 ? ERR_NOT_FOUND : err;
}

enum err
collections_patch(
    struct db *db, int64_t id, struct store_text patched, int64_t now_ms)
{
    struct query q;

    query_start(&q, db, PATCH);
    query_int(&q, id);
    query_text(&q, patched);
    query_int(&q, now_ms);
    return run_on_one(&q);
}

enum err
collections_delete(struct db *db, int64_t id)
{
    struct query q;
    enum err err;

    query_start(&q, db, MARK_DELETED);
    query_int(&q, id);
    err = run_on_one(&q);
    if (err != OK) {
        return err;
    }
    query_start(&q, db, DELETE_ALIASES_OF);
    query_int(&q, id);
    err = query_run(&q, NULL);
    if (err != OK) {
        return err;
    }
    query_start(&q, db, FAIL_JOBS_OF);
    query_int(&q, id);
    query_int(&q, JOB_FAILED);
    return query_run(&q, NULL);
}

enum err
collections_expect(struct db *db, int64_t id, int64_t live_generation,
    int64_t shadow_generation)
{
    struct query q;

    query_start(&q, db, GET_ROLES);
    query_int(&q, id);
    if (query_row(&q)) {
        if (query_get_int(&q, 0) != live_generation ||
            query_get_int(&q, 1) != shadow_generation) {
            q.err = ERR_CONFLICT;
        }
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    return query_end(&q);
}

enum err
collections_see_pairs(struct db *db, int64_t id, int64_t pair_id)
{
    struct query q;

    query_start(&q, db, SEE_PAIRS);
    query_int(&q, id);
    query_int(&q, pair_id);
    return run_on_one(&q);
}

/* ---- aliases ------------------------------------------------------------- */

enum err
aliases_put(struct db *db, struct store_text alias, int64_t collection,
    int64_t now_ms, bool *created)
{
    enum err err = exists_text(db, NAME_IS_COLLECTION, alias);
    struct query q;
    bool is_new;

    if (err != ERR_NOT_FOUND) {
        return err == OK ? ERR_EXISTS : err;
    }
    query_start(&q, db, IS_COLLECTION);
    query_int(&q, collection);
    if (!query_row(&q) && q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err != OK) {
        return err;
    }
    err = exists_text(db, NAME_IS_ALIAS, alias);
    if (err != OK && err != ERR_NOT_FOUND) {
        return err;
    }
    is_new = err == ERR_NOT_FOUND;
    query_start(&q, db, PUT_ALIAS);
    query_text(&q, alias);
    query_int(&q, collection);
    query_int(&q, now_ms);
    err = query_run(&q, NULL);
    if (err == OK && created != NULL) {
        *created = is_new;
    }
    return err;
}

enum err
aliases_delete(struct db *db, struct store_text alias)
{
    struct query q;

    query_start(&q, db, DELETE_ALIAS);
    query_text(&q, alias);
    return run_on_one(&q);
}

enum err
aliases_get(struct db *db, struct store_text alias, struct arena *arena,
    struct store_text *collection)
{
    struct store_text name = {NULL, 0};
    struct query q;
    enum err err;

    query_start(&q, db, GET_ALIAS);
    query_text(&q, alias);
    if (query_row(&q)) {
        name = query_get_text(&q, 0);
        if (q.err == OK) {
            q.err = text_keep(arena, &name);
        }
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *collection = name;
    }
    return err;
}

enum err
aliases_list(struct db *db, struct store_text after, size_t limit,
    alias_row_fn *fn, void *ctx)
{
    struct query q;

    query_start(&q, db, LIST_ALIASES);
    query_text(&q, from_start(after));
    query_int(&q, (int64_t)limit);
    while (query_row(&q)) {
        struct store_text alias = query_get_text(&q, 0);
        struct store_text name = query_get_text(&q, 1);
        if (q.err == OK) {
            q.err = fn(ctx, alias, name);
        }
    }
    return query_end(&q);
}
