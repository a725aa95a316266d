#include "store/generations.h"

#include <string.h>

#include "base/failpoint.h"
#include "store/collections.h"
#include "store/db.h"
#include "store/jobs.h"

#define COLUMNS                                                                \
    "g.id, g.generation, g.collection, g.parent, g.space, g.dims,"             \
    " g.fingerprint, g.state, g.pinned, g.temperature, g.family, g.config,"    \
    " g.report, g.seed, g.job, g.pairs_upto, g.judge_uses, g.created_ms,"      \
    " g.published_ms, g.weights, ifnull((SELECT e.weights_bytes"               \
    " FROM encoders e WHERE e.id = g.encoder AND g.weights = 0),"              \
    " g.weights_bytes), g.weights_sha256,"                                     \
    " s.space IS NOT NULL, g.encoder"
#define JOINED                                                                 \
    " FROM generations g LEFT JOIN spaces s"                                   \
    " ON s.space = g.space AND s.dead = 0 "

static const char GET[] =
    "SELECT " COLUMNS JOINED "WHERE g.collection = ?1 AND g.generation = ?2";
static const char LIST[] =
    "SELECT " COLUMNS JOINED "WHERE g.collection = ?1 AND g.generation > ?2"
    " ORDER BY g.generation LIMIT ?3";
static const char TAKE_NUMBER[] =
    "UPDATE collections SET next_generation = next_generation + 1"
    " WHERE id = ?1 AND deleted = 0 RETURNING next_generation - 1";
static const char CREATE[] =
    "INSERT INTO generations (collection, generation, parent, space, dims,"
    " fingerprint, state, temperature, family, config, report, seed, job,"
    " pairs_upto, created_ms, encoder)"
    " SELECT ?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,"
    " ?15 WHERE ?15 = 0"
    " OR EXISTS (SELECT 1 FROM encoders WHERE id = ?15 AND weights = 2)";
static const char SET_STATE[] = "UPDATE generations SET state = ?3"
                                " WHERE collection = ?1 AND generation = ?2";
static const char REVIVE[] = "UPDATE generations SET state = 0, space = ?3"
                             " WHERE collection = ?1 AND generation = ?2";
static const char SET_LIVE[] =
    "UPDATE generations SET state = 1, published_ms = ?3"
    " WHERE collection = ?1 AND generation = ?2";
static const char SET_REPORT[] = "UPDATE generations SET report = ?3"
                                 " WHERE collection = ?1 AND generation = ?2";
static const char SET_TEMPERATURE[] =
    "UPDATE generations SET temperature = ?3"
    " WHERE collection = ?1 AND generation = ?2";
static const char SET_PINNED[] = "UPDATE generations SET pinned = ?3"
                                 " WHERE collection = ?1 AND generation = ?2";
static const char COUNT_JUDGE[] =
    "UPDATE generations SET judge_uses = judge_uses + 1"
    " WHERE collection = ?1 AND generation = ?2 RETURNING judge_uses";
static const char SET_SHADOW[] =
    "UPDATE collections SET shadow_generation = ?2"
    " WHERE id = ?1 AND deleted = 0 RETURNING change_seq";
static const char CLEAR_SHADOW[] =
    "UPDATE collections SET shadow_generation = 0"
    " WHERE id = ?1 AND shadow_generation = ?2";
static const char GET_ROLES[] =
    "SELECT live_generation, previous_generation, n_items FROM collections"
    " WHERE id = ?1 AND deleted = 0";
static const char SET_ROLES[] =
    "UPDATE collections SET live_generation = ?2, previous_generation = ?3,"
    " shadow_generation = 0, pairs_seen = max(pairs_seen, ?4)"
    " WHERE id = ?1";
static const char LIST_BUILDING[] =
    "SELECT id, collection, generation FROM generations WHERE state = 0"
    " ORDER BY id";

/* Weights that nobody may need: of retired and discarded generations, and of
   refused ones that are not the newest. */
static const char DROP_WEIGHTS[] =
    "UPDATE generations SET weights = 3, weights_purge = 1"
    " WHERE collection = ?1 AND pinned = 0 AND weights IN (1, 2)"
    " AND (state IN (4, 5) OR (state = 3 AND generation <"
    " (SELECT max(generation) FROM generations WHERE collection = ?1)))";
/* Spaces that no kept generation names. */
static const char KILL_SPACES[] =
    "UPDATE spaces SET dead = 1 WHERE collection = ?1 AND dead = 0"
    " AND space NOT IN (SELECT space FROM generations WHERE collection = ?1"
    " AND (state IN (0, 1, 2) OR pinned = 1))";

static const char *const STATE_NAMES[] = {
    "building", "live", "previous", "refused", "retired", "discarded"};

const char *
generation_state_name(enum generation_state state)
{
    ASSERT((size_t)state < ARRAY_LEN(STATE_NAMES));
    return STATE_NAMES[state];
}

/* ---- reading ------------------------------------------------------------- */

static void
read_row(struct query *q, struct generation_row *row)
{
    *row = (struct generation_row){
        .id = query_get_int(q, 0),
        .generation = query_get_int(q, 1),
        .collection = query_get_int(q, 2),
        .parent = query_get_int(q, 3),
        .space = query_get_int(q, 4),
        .dims = (int)query_get_int(q, 5),
        .state = (enum generation_state)query_get_int(q, 7),
        .pinned = query_get_int(q, 8) != 0,
        .temperature = query_get_double(q, 9),
        .family = query_get_text(q, 10),
        .config = query_get_text(q, 11),
        .report = query_get_text(q, 12),
        .seed = (uint64_t)query_get_int(q, 13),
        .job = query_get_int(q, 14),
        .pairs_upto = query_get_int(q, 15),
        .judge_uses = query_get_int(q, 16),
        .created_ms = query_get_int(q, 17),
        .published_ms = query_get_int(q, 18),
        .weights = (enum weights_state)query_get_int(q, 19),
        .weights_bytes = query_get_int(q, 20),
        .space_kept = query_get_int(q, 22) != 0,
        .encoder = query_get_int(q, 23),
    };
    query_get_bytes(q, 6, row->fingerprint, SPACE_FINGERPRINT_BYTES);
    if (row->weights == WEIGHTS_COMPLETE) {
        query_get_bytes(q, 21, row->weights_sha256, 32);
    }
}

/* The row of a generation; its strings are kept in arena, or left out when
   that is NULL. */
static enum err
get_row(struct db *db, int64_t collection, int64_t generation,
    struct arena *arena, struct generation_row *out)
{
    const struct store_text absent = {NULL, 0};
    struct generation_row row;
    struct query q;
    enum err err;

    query_start(&q, db, GET);
    query_int(&q, collection);
    query_int(&q, generation);
    if (query_row(&q)) {
        read_row(&q, &row);
        struct store_text *texts[] = {&row.family, &row.config, &row.report};
        for (size_t i = 0; i < ARRAY_LEN(texts) && q.err == OK; i++) {
            if (arena == NULL) {
                *texts[i] = absent;
            } else {
                q.err = text_keep(arena, texts[i]);
            }
        }
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *out = row;
    }
    return err;
}

enum err
generations_get(struct db *db, int64_t collection, int64_t generation,
    struct arena *arena, struct generation_row *out)
{
    return get_row(db, collection, generation, arena, out);
}

enum err
generations_list(struct db *db, int64_t collection, int64_t after, size_t limit,
    generation_row_fn *fn, void *ctx)
{
    struct generation_row row;
    struct query q;

    query_start(&q, db, LIST);
    query_int(&q, collection);
    query_int(&q, after);
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

/* A query that gives one number of one row; ERR_NOT_FOUND without it. */
static enum err
finish_number(struct query *q, int64_t *out)
{
    int64_t v = 0;
    enum err err;

    if (query_row(q)) {
        v = query_get_int(q, 0);
        /* RETURNING: the statement is done only at its end. */
        while (query_row(q)) {
        }
    } else if (q->err == OK) {
        q->err = ERR_NOT_FOUND;
    }
    err = query_end(q);
    if (err == OK && out != NULL) {
        *out = v;
    }
    return err;
}

static enum err
run_on_one(struct query *q)
{
    int64_t changes = 0;
    enum err err = query_run(q, &changes);

    return err == OK && changes == 0 ? ERR_NOT_FOUND : err;
}

enum err
generations_create(struct db *db, int64_t collection,
    const struct generation_new *new_generation, int64_t now_ms, int64_t *id,
    int64_t *generation, int64_t *space)
{
    int64_t number = 0, in_space = 0;
    struct query q;
    enum err err;

    query_start(&q, db, TAKE_NUMBER);
    query_int(&q, collection);
    err = finish_number(&q, &number);
    if (err == OK) {
        err = spaces_ensure(db, collection, new_generation->fingerprint,
            new_generation->dims, &in_space);
    }
    if (err != OK) {
        return err;
    }
    query_start(&q, db, CREATE);
    query_int(&q, collection);
    query_int(&q, number);
    query_int(&q, new_generation->parent);
    query_int(&q, in_space);
    query_int(&q, new_generation->dims);
    query_blob(&q, new_generation->fingerprint, SPACE_FINGERPRINT_BYTES);
    query_double(&q, new_generation->temperature);
    query_text(&q, new_generation->family);
    query_text(&q, new_generation->config);
    query_text(&q, new_generation->report);
    query_int(&q, (int64_t)new_generation->seed);
    query_int(&q, new_generation->job);
    query_int(&q, new_generation->pairs_upto);
    query_int(&q, now_ms);
    query_int(&q, new_generation->encoder);
    err = run_on_one(&q);
    if (err == OK) {
        *id = sqlite3_last_insert_rowid(db->sql);
        *generation = number;
        *space = in_space;
    }
    return err;
}

/* A statement of (collection, generation, value) on one row. */
static void
start_on_one(struct query *q, struct db *db, const char *sql,
    int64_t collection, int64_t generation)
{
    query_start(q, db, sql);
    query_int(q, collection);
    query_int(q, generation);
}

static enum err
set_state(struct db *db, int64_t collection, int64_t generation,
    enum generation_state state)
{
    struct query q;

    start_on_one(&q, db, SET_STATE, collection, generation);
    query_int(&q, state);
    return run_on_one(&q);
}

static enum err
clear_shadow(struct db *db, int64_t collection, int64_t generation)
{
    struct query q;

    start_on_one(&q, db, CLEAR_SHADOW, collection, generation);
    return query_run(&q, NULL);
}

static bool
is_kept(const struct generation_row *row)
{
    return row->pinned || row->state == GENERATION_BUILDING ||
           row->state == GENERATION_LIVE || row->state == GENERATION_PREVIOUS;
}

enum err
generations_set_shadow(
    struct db *db, int64_t collection, int64_t generation, int64_t *change_seq)
{
    struct generation_row row;
    struct query q;
    enum err err;

    if (generation != 0) {
        err = get_row(db, collection, generation, NULL, &row);
        if (err != OK) {
            return err;
        }
        if (!is_kept(&row) || row.state == GENERATION_LIVE || !row.space_kept) {
            return ERR_CONFLICT;
        }
    }
    start_on_one(&q, db, SET_SHADOW, collection, generation);
    return finish_number(&q, change_seq);
}

enum err
generations_end(struct db *db, int64_t collection, int64_t generation,
    enum generation_state state)
{
    struct generation_row row;
    enum err err = get_row(db, collection, generation, NULL, &row);

    ASSERT(state == GENERATION_REFUSED || state == GENERATION_DISCARDED);
    if (err != OK) {
        return err;
    }
    if (row.state != GENERATION_BUILDING) {
        return ERR_CONFLICT;
    }
    if (row.published_ms != 0) {
        state = GENERATION_RETIRED;
    }
    err = set_state(db, collection, generation, state);
    if (err == OK) {
        err = clear_shadow(db, collection, generation);
    }
    if (err == OK) {
        err = generations_sweep(db, collection);
    }
    return err;
}

enum err
generations_revive(
    struct db *db, int64_t collection, int64_t generation, int64_t *space)
{
    struct generation_row row;
    struct query q;
    int64_t in_space = 0;
    enum err err = get_row(db, collection, generation, NULL, &row);

    if (err != OK) {
        return err;
    }
    if (row.state == GENERATION_LIVE || row.state == GENERATION_PREVIOUS ||
        row.state == GENERATION_BUILDING ||
        (row.weights != WEIGHTS_NONE && row.weights != WEIGHTS_COMPLETE)) {
        return ERR_CONFLICT;
    }
    err = spaces_ensure(db, collection, row.fingerprint, row.dims, &in_space);
    if (err != OK) {
        return err;
    }
    start_on_one(&q, db, REVIVE, collection, generation);
    query_int(&q, in_space);
    err = run_on_one(&q);
    if (err == OK) {
        *space = in_space;
    }
    return err;
}

enum err
generations_set_report(struct db *db, int64_t collection, int64_t generation,
    struct store_text report)
{
    struct query q;

    start_on_one(&q, db, SET_REPORT, collection, generation);
    query_text(&q, report);
    return run_on_one(&q);
}

enum err
generations_set_temperature(
    struct db *db, int64_t collection, int64_t generation, double temperature)
{
    struct query q;

    start_on_one(&q, db, SET_TEMPERATURE, collection, generation);
    query_double(&q, temperature);
    return run_on_one(&q);
}

enum err
generations_set_pinned(
    struct db *db, int64_t collection, int64_t generation, bool pinned)
{
    struct generation_row row;
    struct query q;
    enum err err = get_row(db, collection, generation, NULL, &row);

    if (err != OK) {
        return err;
    }
    if (pinned && (!row.space_kept || row.weights == WEIGHTS_DROPPED ||
                      row.weights == WEIGHTS_PARTIAL)) {
        return ERR_CONFLICT;
    }
    start_on_one(&q, db, SET_PINNED, collection, generation);
    query_int(&q, pinned);
    err = run_on_one(&q);
    return err == OK ? generations_sweep(db, collection) : err;
}

enum err
generations_count_judge(
    struct db *db, int64_t collection, int64_t generation, int64_t *judge_uses)
{
    struct query q;

    start_on_one(&q, db, COUNT_JUDGE, collection, generation);
    return finish_number(&q, judge_uses);
}

/* ---- the switch ---------------------------------------------------------- */

struct roles {
    int64_t live;
    int64_t previous;
    int64_t n_items;
};

static enum err
get_roles(struct db *db, int64_t collection, struct roles *roles)
{
    struct query q;

    query_start(&q, db, GET_ROLES);
    query_int(&q, collection);
    if (query_row(&q)) {
        roles->live = query_get_int(&q, 0);
        roles->previous = query_get_int(&q, 1);
        roles->n_items = query_get_int(&q, 2);
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    return query_end(&q);
}

/* The states change in an order in which no two generations are live, or
   previous, at a time: the indexes refuse that. */
static enum err
switch_states(struct db *db, const struct generation_publish *publish,
    const struct generation_row *row, const struct roles *roles)
{
    struct query q;
    enum err err = OK;

    if (roles->previous == publish->generation) {
        err = set_state(
            db, publish->collection, roles->previous, GENERATION_BUILDING);
    } else if (roles->previous != 0) {
        err = set_state(
            db, publish->collection, roles->previous, GENERATION_RETIRED);
    }
    if (err == OK && roles->live != 0) {
        err = set_state(
            db, publish->collection, roles->live, GENERATION_PREVIOUS);
    }
    if (err != OK) {
        return err;
    }
    start_on_one(&q, db, SET_LIVE, publish->collection, publish->generation);
    query_int(&q, publish->now_ms);
    err = run_on_one(&q);
    if (err != OK) {
        return err;
    }
    query_start(&q, db, SET_ROLES);
    query_int(&q, publish->collection);
    query_int(&q, publish->generation);
    query_int(&q, roles->live);
    query_int(&q, row->pairs_upto);
    return run_on_one(&q);
}

static enum err
end_job(struct db *db, const struct generation_publish *publish)
{
    struct job_update update = {.state = (enum job_state)publish->job_state,
        .progress = 1,
        .result = publish->job_result};

    if (publish->job == 0) {
        return OK;
    }
    return jobs_update(db, publish->job, &update, publish->now_ms);
}

enum err
generations_publish(struct db *db, const struct generation_publish *publish)
{
    struct generation_row row;
    struct roles roles = {0};
    int64_t n_vectors = 0;
    enum err err = get_roles(db, publish->collection, &roles);

    if (err == OK) {
        err = get_row(db, publish->collection, publish->generation, NULL, &row);
    }
    if (err != OK) {
        return err;
    }
    if (roles.live != publish->expected_live) {
        return ERR_CONFLICT;
    }
    if (roles.live == publish->generation) {
        return end_job(db, publish);
    }
    if (!row.space_kept || row.state == GENERATION_DISCARDED ||
        (row.weights != WEIGHTS_NONE && row.weights != WEIGHTS_COMPLETE)) {
        return ERR_CONFLICT;
    }
    /* Vectors of old content are removed with the content, so the numbers are
       equal only when every item has its vector. */
    err = vectors_count(db, row.space, &n_vectors);
    if (err == OK && n_vectors != roles.n_items) {
        err = ERR_CONFLICT;
    }
    if (err == OK) {
        err = switch_states(db, publish, &row, &roles);
    }
    if (err == OK) {
        err = generations_sweep(db, publish->collection);
    }
    if (err == OK) {
        err = end_job(db, publish);
    }
    if (err == OK) {
        failpoint("store_publish");
    }
    return err;
}

enum err
generations_sweep(struct db *db, int64_t collection)
{
    struct query q;
    enum err err;

    query_start(&q, db, DROP_WEIGHTS);
    query_int(&q, collection);
    err = query_run(&q, NULL);
    if (err != OK) {
        return err;
    }
    query_start(&q, db, KILL_SPACES);
    query_int(&q, collection);
    return query_run(&q, NULL);
}

static bool
is_among(const int64_t *ids, size_t n, int64_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

enum err
generations_discard_building(
    struct db *db, const int64_t *keep, size_t n_keep, size_t *n)
{
    int64_t collection = 0, generation = 0;
    size_t n_discarded = 0;
    enum err err = OK;
    bool found = true;

    /* One at a time, so that no cursor is open on what changes. */
    while (found && err == OK) {
        struct query q;
        found = false;
        query_start(&q, db, LIST_BUILDING);
        while (!found && query_row(&q)) {
            if (!is_among(keep, n_keep, query_get_int(&q, 0))) {
                collection = query_get_int(&q, 1);
                generation = query_get_int(&q, 2);
                found = true;
            }
        }
        err = query_end(&q);
        if (err == OK && found) {
            err = generations_end(
                db, collection, generation, GENERATION_DISCARDED);
            n_discarded++;
        }
    }
    if (err == OK && n != NULL) {
        *n = n_discarded;
    }
    return err;
}
