#include "store/encoders.h"

#include "store/weights_internal.h"

/* A generation that is kept and has the weights of encoder ?1 or of e. */
#define REFERS                                                                 \
    " FROM generations g JOIN collections c ON c.id = g.collection"            \
    " WHERE c.deleted = 0 AND g.encoder <> 0 AND g.weights = 0"                \
    " AND (g.state IN (0, 1, 2) OR g.pinned = 1) AND g.encoder = "
#define SELECT                                                                 \
    "SELECT e.id, e.name, e.family, e.config, e.card, e.dims, e.max_tokens,"   \
    " e.n_params, e.fingerprint, e.created_ms, e.weights_bytes,"               \
    " (SELECT count(DISTINCT g.collection)" REFERS                             \
    "e.id) FROM encoders e WHERE e.weights = 2 "

static const char CREATE[] =
    "INSERT INTO encoders (name, family, config, card, dims, max_tokens,"
    " n_params, fingerprint, created_ms)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
static const char DISCARD[] =
    "UPDATE encoders SET weights = 3 WHERE id = ?1 AND weights = 1";
static const char DISCARD_PARTIAL[] =
    "UPDATE encoders SET weights = 3 WHERE weights = 1";
static const char GET_BY_NAME[] = SELECT "AND e.name = ?1";
static const char GET_BY_ID[] = SELECT "AND e.id = ?1";
static const char LIST[] = SELECT "AND e.name > ?1 ORDER BY e.name LIMIT ?2";
static const char GET_REFERENCE[] =
    "SELECT g.collection" REFERS "?1 ORDER BY g.id LIMIT 1";
static const char DELETE[] =
    "UPDATE encoders SET weights = 3 WHERE id = ?1 AND weights = 2";
static const char DROP_WEIGHTS[] =
    "UPDATE generations SET weights = 3"
    " WHERE encoder = ?1 AND encoder <> 0 AND weights = 0";

/* ---- reading ------------------------------------------------------------- */

static void
read_row(struct query *q, struct encoder_row *row)
{
    *row = (struct encoder_row){
        .id = query_get_int(q, 0),
        .facts = {.name = query_get_text(q, 1),
            .family = query_get_text(q, 2),
            .config = query_get_text(q, 3),
            .card = query_get_text(q, 4),
            .dims = (int)query_get_int(q, 5),
            .max_tokens = query_get_int(q, 6),
            .n_params = query_get_int(q, 7)},
        .created_ms = query_get_int(q, 9),
        .weights_bytes = query_get_int(q, 10),
        .n_collections = query_get_int(q, 11),
    };
    query_get_bytes(
        q, 8, row->facts.fingerprint, sizeof(row->facts.fingerprint));
}

/* The row of a query that finds one at most, copied into arena. */
static enum err
finish_row(struct query *q, struct arena *arena, struct encoder_row *out)
{
    struct encoder_row row;
    enum err err;

    if (query_row(q)) {
        read_row(q, &row);
        struct store_text *texts[] = {&row.facts.name, &row.facts.family,
            &row.facts.config, &row.facts.card};
        for (size_t i = 0; i < ARRAY_LEN(texts) && q->err == OK; i++) {
            q->err = text_keep(arena, texts[i]);
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

enum err
encoders_get(struct db *db, struct store_text name, struct arena *arena,
    struct encoder_row *out)
{
    struct query q;

    query_start(&q, db, GET_BY_NAME);
    query_text(&q, name);
    return finish_row(&q, arena, out);
}

enum err
encoders_get_by_id(
    struct db *db, int64_t id, struct arena *arena, struct encoder_row *out)
{
    struct query q;

    query_start(&q, db, GET_BY_ID);
    query_int(&q, id);
    return finish_row(&q, arena, out);
}

enum err
encoders_list(struct db *db, struct store_text after, size_t limit,
    encoder_row_fn *fn, void *ctx)
{
    struct encoder_row row;
    struct query q;

    query_start(&q, db, LIST);
    query_text(&q, after.s == NULL ? store_text_of("") : after);
    query_int(&q, (int64_t)limit);
    while (query_row(&q)) {
        read_row(&q, &row);
        if (q.err == OK) {
            q.err = fn(ctx, &row);
        }
    }
    return query_end(&q);
}

/* ---- changing ------------------------------------------------------------ */

enum err
encoders_create(struct db *db, const struct encoder_facts *facts,
    int64_t now_ms, int64_t *id)
{
    struct query q;
    enum err err;

    query_start(&q, db, CREATE);
    query_text(&q, facts->name);
    query_text(&q, facts->family);
    query_text(&q, facts->config);
    query_text(&q, facts->card);
    query_int(&q, facts->dims);
    query_int(&q, facts->max_tokens);
    query_int(&q, facts->n_params);
    query_blob(&q, facts->fingerprint, sizeof(facts->fingerprint));
    query_int(&q, now_ms);
    err = query_run(&q, NULL);
    if (err == OK) {
        *id = sqlite3_last_insert_rowid(db->sql);
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

enum err
encoders_discard(struct db *db, int64_t id)
{
    int64_t changes = 0;
    enum err err = run_with_id(db, DISCARD, id, &changes);

    return err == OK && changes == 0 ? ERR_NOT_FOUND : err;
}

enum err
encoders_discard_partial(struct db *db)
{
    return db_run(db, DISCARD_PARTIAL);
}

enum err
encoders_delete(struct db *db, int64_t id, int64_t *collection)
{
    struct query q;
    int64_t refers = 0, changes = 0;
    enum err err;

    query_start(&q, db, GET_REFERENCE);
    query_int(&q, id);
    if (query_row(&q)) {
        refers = query_get_int(&q, 0);
    }
    err = query_end(&q);
    if (err == OK && refers != 0) {
        *collection = refers;
        return ERR_CONFLICT;
    }
    if (err == OK) {
        err = run_with_id(db, DELETE, id, &changes);
    }
    if (err == OK && changes == 0) {
        return ERR_NOT_FOUND;
    }
    return err == OK ? run_with_id(db, DROP_WEIGHTS, id, NULL) : err;
}

/* ---- weights ------------------------------------------------------------- */

enum err
encoder_weights_create(
    struct weights_writer **out, struct store *store, int64_t encoder_id)
{
    return weights_create_in(out, store, &weights_of_encoders, encoder_id);
}

enum err
encoder_weights_open(struct weights_reader **out, struct store *store,
    int64_t encoder_id, uint64_t *n_bytes)
{
    return weights_open_in(
        out, store, &weights_of_encoders, encoder_id, n_bytes);
}

enum err
encoder_weights_read(
    struct store *store, int64_t encoder_id, weights_chunk_fn *fn, void *ctx)
{
    return weights_read_in(store, &weights_of_encoders, encoder_id, fn, ctx);
}
