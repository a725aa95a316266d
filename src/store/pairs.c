#include "store/pairs.h"

#include <string.h>

#include "store/db.h"

#define COLUMNS                                                                \
    "pair, key, anchor_id, anchor_text, positive_id, positive_text,"           \
    " negatives, grp, origin, group_hash, weight, split, state, reason,"       \
    " created_ms"

static const char IS_COLLECTION[] =
    "SELECT 1 FROM collections WHERE id = ?1 AND deleted = 0";
static const char FIND[] =
    "SELECT pair, split, state, reason, weight FROM pairs"
    " WHERE collection = ?1 AND key = ?2";
static const char INSERT[] =
    "INSERT INTO pairs (collection, key, anchor_id, anchor_text, positive_id,"
    " positive_text, negatives, grp, origin, group_hash, weight, split, state,"
    " reason, created_ms)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,"
    " ?15)";
static const char ADD_WEIGHT[] =
    "UPDATE pairs SET weight = weight + ?2 WHERE pair = ?1";
static const char SET_REASON[] =
    "UPDATE pairs SET state = (?3 <> 0), reason = ?3"
    " WHERE collection = ?1 AND pair = ?2";
static const char GET[] =
    "SELECT " COLUMNS " FROM pairs WHERE pair = ?2 AND collection = ?1";
static const char LIST[] =
    "SELECT " COLUMNS " FROM pairs INDEXED BY pairs_by_collection"
    " WHERE collection = ?1 AND pair > ?2 ORDER BY pair LIMIT ?3";
static const char WALK[] =
    "SELECT " COLUMNS " FROM pairs INDEXED BY pairs_by_split"
    " WHERE collection = ?1 AND state = 0 AND split = ?2 AND pair > ?3"
    " AND pair <= ?4 ORDER BY pair LIMIT ?5";
static const char COUNT_SPLITS[] =
    "SELECT split, count(*), sum(pair > ?2)"
    " FROM pairs INDEXED BY pairs_by_split"
    " WHERE collection = ?1 AND state = 0 GROUP BY split";
static const char COUNT_ASIDE[] =
    "SELECT count(*) FROM pairs INDEXED BY pairs_by_split"
    " WHERE collection = ?1 AND state = 1";
static const char COUNT_GROUPS[] =
    "SELECT count(DISTINCT group_hash) FROM pairs INDEXED BY pairs_judged"
    " WHERE collection = ?1 AND state = 0 AND split = 2";
static const char LAST_PAIR[] =
    "SELECT ifnull(max(pair), 0) FROM pairs INDEXED BY pairs_by_collection"
    " WHERE collection = ?1";
static const char DELETE[] =
    "DELETE FROM pairs WHERE collection = ?1 AND pair = ?2";

/* Deleted outranks changed; what was set aside for its own sake stays so. */
static const char ASIDE_BY_ANCHOR[] =
    "UPDATE pairs INDEXED BY pairs_by_anchor SET state = 1, reason = ?3"
    " WHERE collection = ?1 AND anchor_id = ?2"
    " AND (state = 0 OR (reason = 2 AND ?3 = 1))";
static const char ASIDE_BY_POSITIVE[] =
    "UPDATE pairs INDEXED BY pairs_by_positive SET state = 1, reason = ?3"
    " WHERE collection = ?1 AND positive_id = ?2"
    " AND (state = 0 OR (reason = 2 AND ?3 = 1))";
static const char ANY_ASIDE[] = "SELECT 1 FROM pairs INDEXED BY pairs_by_split"
                                " WHERE collection = ?1 AND state = 1 LIMIT 1";
static const char BACK_BY_ANCHOR[] =
    "UPDATE pairs INDEXED BY pairs_by_anchor SET state = 0, reason = 0"
    " WHERE collection = ?1 AND anchor_id = ?2 AND reason = 1"
    " AND (positive_id IS NULL OR EXISTS (SELECT 1 FROM items i"
    " WHERE i.collection = ?1 AND i.ext_id = positive_id))"
    " AND EXISTS (SELECT 1 FROM items i"
    " WHERE i.collection = ?1 AND i.ext_id = anchor_id)";
static const char BACK_BY_POSITIVE[] =
    "UPDATE pairs INDEXED BY pairs_by_positive SET state = 0, reason = 0"
    " WHERE collection = ?1 AND positive_id = ?2 AND reason = 1"
    " AND (anchor_id IS NULL OR EXISTS (SELECT 1 FROM items i"
    " WHERE i.collection = ?1 AND i.ext_id = anchor_id))"
    " AND EXISTS (SELECT 1 FROM items i"
    " WHERE i.collection = ?1 AND i.ext_id = positive_id)";

/* ---- changing ------------------------------------------------------------ */

static enum err
expect_collection(struct db *db, int64_t collection)
{
    struct query q;

    query_start(&q, db, IS_COLLECTION);
    query_int(&q, collection);
    if (!query_row(&q) && q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    return query_end(&q);
}

static enum err
set_reason(
    struct db *db, int64_t collection, int64_t pair, enum pair_reason reason)
{
    struct query q;
    int64_t changes = 0;
    enum err err;

    query_start(&q, db, SET_REASON);
    query_int(&q, collection);
    query_int(&q, pair);
    query_int(&q, reason);
    err = query_run(&q, &changes);
    return err == OK && changes == 0 ? ERR_NOT_FOUND : err;
}

static enum err
insert_pair(struct db *db, int64_t collection, const struct pair_put *put,
    int64_t now_ms, struct pair_result *result)
{
    struct query q;
    enum err err;

    query_start(&q, db, INSERT);
    query_int(&q, collection);
    query_blob(&q, put->key, PAIR_KEY_BYTES);
    query_text(&q, put->anchor_id);
    query_text(&q, put->anchor_text);
    query_text(&q, put->positive_id);
    query_text(&q, put->positive_text);
    query_text(&q, put->negatives);
    query_text(&q, put->group);
    query_text(&q, put->origin);
    query_int(&q, (int64_t)put->group_hash);
    query_double(&q, put->weight);
    query_int(&q, put->split);
    query_int(
        &q, put->reason == PAIR_REASON_NONE ? PAIR_ACTIVE : PAIR_SET_ASIDE);
    query_int(&q, put->reason);
    query_int(&q, now_ms);
    err = query_run(&q, NULL);
    if (err == OK) {
        result->pair = sqlite3_last_insert_rowid(db->sql);
        result->created = true;
        result->weight = put->weight;
    }
    return err;
}

struct known_pair {
    int64_t pair; /* 0: none */
    enum pair_split split;
    enum pair_reason reason;
    double weight;
};

static enum err
find_pair(struct db *db, int64_t collection, const uint8_t *key,
    struct known_pair *known)
{
    struct query q;

    *known = (struct known_pair){0};
    query_start(&q, db, FIND);
    query_int(&q, collection);
    query_blob(&q, key, PAIR_KEY_BYTES);
    if (query_row(&q)) {
        known->pair = query_get_int(&q, 0);
        known->split = (enum pair_split)query_get_int(&q, 1);
        known->reason = (enum pair_reason)query_get_int(&q, 3);
        known->weight = query_get_double(&q, 4);
    }
    return query_end(&q);
}

static enum err
put_one(struct db *db, int64_t collection, const struct pair_put *put,
    int64_t now_ms, struct pair_result *result)
{
    struct known_pair known;
    struct query q;
    enum err err = find_pair(db, collection, put->key, &known);

    if (err != OK) {
        return err;
    }
    if (known.pair == 0) {
        return insert_pair(db, collection, put, now_ms, result);
    }
    query_start(&q, db, ADD_WEIGHT);
    query_int(&q, known.pair);
    query_double(&q, put->weight);
    err = query_run(&q, NULL);
    if (err == OK && put->reason == PAIR_REASON_NONE &&
        (known.reason == PAIR_ITEM_DELETED ||
            known.reason == PAIR_ITEM_CHANGED)) {
        err = set_reason(db, collection, known.pair, PAIR_REASON_NONE);
    }
    if (err == OK) {
        result->pair = known.pair;
        result->weight = known.weight + put->weight;
    }
    return err;
}

enum err
pairs_put(struct db *db, int64_t collection, const struct pair_put *puts,
    size_t n, int64_t now_ms, struct pair_result *results)
{
    enum err err = expect_collection(db, collection);

    for (size_t i = 0; i < n && err == OK; i++) {
        const struct pair_put *put = &puts[i];
        results[i] = (struct pair_result){0};
        if ((put->anchor_id.s == NULL) == (put->anchor_text.s == NULL) ||
            (put->positive_id.s == NULL) == (put->positive_text.s == NULL) ||
            !(put->weight > 0)) {
            return ERR_INVALID;
        }
        err = put_one(db, collection, put, now_ms, &results[i]);
    }
    return err;
}

enum err
pairs_delete(struct db *db, int64_t collection, int64_t pair)
{
    struct query q;
    int64_t changes = 0;
    enum err err;

    query_start(&q, db, DELETE);
    query_int(&q, collection);
    query_int(&q, pair);
    err = query_run(&q, &changes);
    return err == OK && changes == 0 ? ERR_NOT_FOUND : err;
}

enum err
pairs_set_reason(
    struct db *db, int64_t collection, int64_t pair, enum pair_reason reason)
{
    return set_reason(db, collection, pair, reason);
}

static enum err
run_for_item(struct db *db, const char *sql, int64_t collection,
    struct store_text ext_id, enum pair_reason reason, int64_t *n_pairs)
{
    struct query q;
    int64_t changes = 0;
    enum err err;

    query_start(&q, db, sql);
    query_int(&q, collection);
    query_text(&q, ext_id);
    if (reason != PAIR_REASON_NONE) {
        query_int(&q, reason);
    }
    err = query_run(&q, &changes);
    *n_pairs += changes;
    return err;
}

enum err
pairs_set_aside(struct db *db, int64_t collection,
    const struct store_text *ext_ids, size_t n, enum pair_reason reason,
    size_t *n_pairs)
{
    int64_t sum = 0;
    enum err err = OK;

    ASSERT(reason != PAIR_REASON_NONE);
    for (size_t i = 0; i < n && err == OK; i++) {
        err = run_for_item(
            db, ASIDE_BY_ANCHOR, collection, ext_ids[i], reason, &sum);
        if (err == OK) {
            err = run_for_item(
                db, ASIDE_BY_POSITIVE, collection, ext_ids[i], reason, &sum);
        }
    }
    if (err == OK && n_pairs != NULL) {
        *n_pairs = (size_t)sum;
    }
    return err;
}

enum err
pairs_bring_back(struct db *db, int64_t collection,
    const struct store_text *ext_ids, size_t n, size_t *n_pairs)
{
    int64_t sum = 0;
    struct query q;
    bool any;
    enum err err;

    query_start(&q, db, ANY_ASIDE);
    query_int(&q, collection);
    any = query_row(&q);
    err = query_end(&q);
    for (size_t i = 0; i < n && err == OK && any; i++) {
        err = run_for_item(
            db, BACK_BY_ANCHOR, collection, ext_ids[i], PAIR_REASON_NONE, &sum);
        if (err == OK) {
            err = run_for_item(db, BACK_BY_POSITIVE, collection, ext_ids[i],
                PAIR_REASON_NONE, &sum);
        }
    }
    if (err == OK && n_pairs != NULL) {
        *n_pairs = (size_t)sum;
    }
    return err;
}

/* ---- reading ------------------------------------------------------------- */

static void
read_row(struct query *q, struct pair_row *row)
{
    *row = (struct pair_row){
        .pair = query_get_int(q, 0),
        .anchor_id = query_get_text(q, 2),
        .anchor_text = query_get_text(q, 3),
        .positive_id = query_get_text(q, 4),
        .positive_text = query_get_text(q, 5),
        .negatives = query_get_text(q, 6),
        .group = query_get_text(q, 7),
        .origin = query_get_text(q, 8),
        .group_hash = (uint64_t)query_get_int(q, 9),
        .weight = query_get_double(q, 10),
        .split = (enum pair_split)query_get_int(q, 11),
        .state = (enum pair_state)query_get_int(q, 12),
        .reason = (enum pair_reason)query_get_int(q, 13),
        .created_ms = query_get_int(q, 14),
    };
    query_get_bytes(q, 1, row->key, PAIR_KEY_BYTES);
}

static enum err
give_rows(struct query *q, pair_row_fn *fn, void *ctx)
{
    struct pair_row row;

    while (query_row(q)) {
        read_row(q, &row);
        if (q->err == OK) {
            q->err = fn(ctx, &row);
        }
    }
    return query_end(q);
}

enum err
pairs_get(struct db *db, int64_t collection, int64_t pair, struct arena *arena,
    struct pair_row *out)
{
    struct pair_row row;
    struct query q;
    enum err err;

    query_start(&q, db, GET);
    query_int(&q, collection);
    query_int(&q, pair);
    if (query_row(&q)) {
        read_row(&q, &row);
        struct store_text *texts[] = {&row.anchor_id, &row.anchor_text,
            &row.positive_id, &row.positive_text, &row.negatives, &row.group,
            &row.origin};
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
pairs_find(struct db *db, int64_t collection, const uint8_t key[PAIR_KEY_BYTES],
    int64_t *pair, enum pair_split *split)
{
    struct known_pair known;
    enum err err = find_pair(db, collection, key, &known);

    if (err == OK && known.pair == 0) {
        err = ERR_NOT_FOUND;
    }
    if (err == OK) {
        *pair = known.pair;
        *split = known.split;
    }
    return err;
}

enum err
pairs_list(struct db *db, int64_t collection, int64_t after_pair, size_t limit,
    pair_row_fn *fn, void *ctx)
{
    struct query q;

    query_start(&q, db, LIST);
    query_int(&q, collection);
    query_int(&q, after_pair);
    query_int(&q, (int64_t)limit);
    return give_rows(&q, fn, ctx);
}

enum err
pairs_walk(struct db *db, int64_t collection, enum pair_split split,
    int64_t after_pair, int64_t upto_pair, size_t limit, pair_row_fn *fn,
    void *ctx)
{
    struct query q;

    query_start(&q, db, WALK);
    query_int(&q, collection);
    query_int(&q, split);
    query_int(&q, after_pair);
    query_int(&q, upto_pair);
    query_int(&q, (int64_t)limit);
    return give_rows(&q, fn, ctx);
}

static enum err
count_one(struct db *db, const char *sql, int64_t collection, int64_t *out)
{
    struct query q;

    query_start(&q, db, sql);
    query_int(&q, collection);
    if (query_row(&q)) {
        *out = query_get_int(&q, 0);
    }
    return query_end(&q);
}

enum err
pairs_count(struct db *db, int64_t collection, int64_t since_pair,
    struct pair_counts *out)
{
    struct pair_counts counts = {0};
    struct query q;
    enum err err;

    query_start(&q, db, COUNT_SPLITS);
    query_int(&q, collection);
    query_int(&q, since_pair);
    while (query_row(&q)) {
        int64_t split = query_get_int(&q, 0);
        ASSERT(split >= 0 && split < PAIR_SPLITS);
        counts.active[split] = query_get_int(&q, 1);
        counts.active_new[split] = query_get_int(&q, 2);
    }
    err = query_end(&q);
    if (err == OK) {
        err = count_one(db, COUNT_ASIDE, collection, &counts.set_aside);
    }
    if (err == OK) {
        err = count_one(db, COUNT_GROUPS, collection, &counts.judge_groups);
    }
    if (err == OK) {
        err = count_one(db, LAST_PAIR, collection, &counts.last_pair);
    }
    if (err == OK) {
        *out = counts;
    }
    return err;
}
