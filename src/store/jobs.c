#include "store/jobs.h"

#include "store/db.h"

#define COLUMNS                                                                \
    "id, kind, collection, collection_name, state, phase, progress, params,"   \
    " curve, resume, result, error, created_ms, started_ms, finished_ms"

static const char CREATE[] =
    "INSERT INTO jobs (kind, collection, collection_name, state, params,"
    " created_ms) VALUES (?1, ?2, ?3, 0, ?4, ?5)";
static const char UPDATE[] =
    "UPDATE jobs SET state = ?2, progress = ?3, phase = ifnull(?4, phase),"
    " curve = ifnull(?5, curve), resume = ifnull(?6, resume),"
    " result = ifnull(?7, result), error = ifnull(?8, error),"
    " started_ms = iif(started_ms = 0 AND ?2 = 1, ?9, started_ms),"
    " finished_ms = iif(?2 > 1, ?9, 0)"
    " WHERE id = ?1 AND state <= 1";
static const char EXISTS[] = "SELECT 1 FROM jobs WHERE id = ?1";
static const char GET[] = "SELECT " COLUMNS " FROM jobs WHERE id = ?1";
static const char LIST_ALL[] =
    "SELECT " COLUMNS " FROM jobs WHERE id < ?1 AND (?2 < 0 OR state = ?2)"
    " ORDER BY id DESC LIMIT ?3";
static const char LIST_OF[] =
    "SELECT " COLUMNS " FROM jobs INDEXED BY jobs_by_collection"
    " WHERE id < ?1 AND (?2 < 0 OR state = ?2) AND collection = ?4"
    " ORDER BY id DESC LIMIT ?3";
static const char FIND_UNFINISHED[] =
    "SELECT id FROM jobs INDEXED BY jobs_unfinished WHERE state <= 1"
    " AND collection = ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY id LIMIT 1";
static const char LIST_UNFINISHED[] =
    "SELECT " COLUMNS " FROM jobs WHERE state <= 1 ORDER BY id";
static const char NEXT_UNFINISHED[] =
    "SELECT id FROM jobs WHERE state <= 1 AND id > ?1 ORDER BY id LIMIT 1";

static const char *const STATE_NAMES[] = {
    "queued", "running", "promoted", "refused", "done", "failed", "cancelled"};

const char *
job_state_name(enum job_state state)
{
    ASSERT((size_t)state < ARRAY_LEN(STATE_NAMES));
    return STATE_NAMES[state];
}

static void
read_row(struct query *q, struct job_row *row)
{
    *row = (struct job_row){
        .id = query_get_int(q, 0),
        .kind = query_get_text(q, 1),
        .collection = query_get_int(q, 2),
        .collection_name = query_get_text(q, 3),
        .state = (enum job_state)query_get_int(q, 4),
        .phase = query_get_text(q, 5),
        .progress = query_get_double(q, 6),
        .params = query_get_text(q, 7),
        .curve = query_get_text(q, 8),
        .resume = query_get_text(q, 9),
        .result = query_get_text(q, 10),
        .error = query_get_text(q, 11),
        .created_ms = query_get_int(q, 12),
        .started_ms = query_get_int(q, 13),
        .finished_ms = query_get_int(q, 14),
    };
}

static enum err
give_rows(struct query *q, job_row_fn *fn, void *ctx)
{
    struct job_row row;

    while (query_row(q)) {
        read_row(q, &row);
        if (q->err == OK) {
            q->err = fn(ctx, &row);
        }
    }
    return query_end(q);
}

enum err
jobs_find_unfinished(
    struct db *db, int64_t collection, struct store_text kind, int64_t *id)
{
    struct query q;
    int64_t found = 0;
    enum err err;

    query_start(&q, db, FIND_UNFINISHED);
    query_int(&q, collection);
    query_text(&q, kind);
    if (query_row(&q)) {
        found = query_get_int(&q, 0);
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *id = found;
    }
    return err;
}

enum err
jobs_create(struct db *db, const struct job_row *row, bool only, int64_t now_ms,
    int64_t *id)
{
    struct query q;
    enum err err;

    if (only) {
        err = jobs_find_unfinished(db, row->collection, row->kind, id);
        if (err != ERR_NOT_FOUND) {
            return err == OK ? ERR_BUSY : err;
        }
    }
    query_start(&q, db, CREATE);
    query_text(&q, row->kind);
    query_int(&q, row->collection);
    query_text(&q, row->collection_name);
    query_text(&q, row->params);
    query_int(&q, now_ms);
    err = query_run(&q, NULL);
    if (err == OK) {
        *id = sqlite3_last_insert_rowid(db->sql);
    }
    return err;
}

enum err
jobs_update(
    struct db *db, int64_t id, const struct job_update *update, int64_t now_ms)
{
    struct query q;
    int64_t changes = 0;
    enum err err;

    query_start(&q, db, UPDATE);
    query_int(&q, id);
    query_int(&q, update->state);
    query_double(&q, update->progress);
    query_text(&q, update->phase);
    query_text(&q, update->curve);
    query_text(&q, update->resume);
    query_text(&q, update->result);
    query_text(&q, update->error);
    query_int(&q, now_ms);
    err = query_run(&q, &changes);
    if (err != OK || changes > 0) {
        return err;
    }
    query_start(&q, db, EXISTS);
    query_int(&q, id);
    if (query_row(&q)) {
        q.err = ERR_CONFLICT;
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    return query_end(&q);
}

enum err
jobs_get(struct db *db, int64_t id, struct arena *arena, struct job_row *out)
{
    struct job_row row;
    struct query q;
    enum err err;

    query_start(&q, db, GET);
    query_int(&q, id);
    if (query_row(&q)) {
        read_row(&q, &row);
        struct store_text *texts[] = {&row.kind, &row.collection_name,
            &row.phase, &row.params, &row.curve, &row.resume, &row.result,
            &row.error};
        for (size_t i = 0; i < ARRAY_LEN(texts) && q.err == OK; i++) {
            q.err = text_keep(arena, texts[i]);
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
jobs_list(
    struct db *db, const struct job_filter *filter, job_row_fn *fn, void *ctx)
{
    struct query q;

    query_start(&q, db, filter->collection == 0 ? LIST_ALL : LIST_OF);
    query_int(&q, filter->before == 0 ? INT64_MAX : filter->before);
    query_int(&q, filter->state);
    query_int(&q, (int64_t)filter->limit);
    if (filter->collection != 0) {
        query_int(&q, filter->collection);
    }
    return give_rows(&q, fn, ctx);
}

enum err
jobs_list_unfinished(struct db *db, job_row_fn *fn, void *ctx)
{
    struct query q;

    query_start(&q, db, LIST_UNFINISHED);
    return give_rows(&q, fn, ctx);
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
jobs_fail_unfinished(struct db *db, const int64_t *keep, size_t n_keep,
    struct store_text error, int64_t now_ms, size_t *n)
{
    struct job_update update = {.state = JOB_FAILED, .error = error};
    int64_t id = 0;
    size_t n_failed = 0;
    enum err err = OK;

    for (;;) {
        struct query q;
        bool found;
        query_start(&q, db, NEXT_UNFINISHED);
        query_int(&q, id);
        found = query_row(&q);
        if (found) {
            id = query_get_int(&q, 0);
        }
        err = query_end(&q);
        if (err != OK || !found) {
            break;
        }
        if (is_among(keep, n_keep, id)) {
            continue;
        }
        err = jobs_update(db, id, &update, now_ms);
        if (err != OK) {
            break;
        }
        n_failed++;
    }
    if (err == OK && n != NULL) {
        *n = n_failed;
    }
    return err;
}
