#include "store/items.h"

#include <string.h>

#include "store/db.h"
#include "store/images_internal.h"
#include "store/vectors.h"
#include "store/vectors_internal.h"

#define COLUMNS                                                                \
    "item, change_seq, created_ms, updated_ms, content_hash, ext_id, title,"   \
    " metadata, text"

/* The counter of items never goes back, so a number is never used again. */
static const char GET_COUNTER[] =
    "SELECT value FROM counters WHERE name = 'item'";
static const char SET_COUNTER[] =
    "UPDATE counters SET value = ?1 WHERE name = 'item'";
static const char GET_SEQ[] =
    "SELECT change_seq FROM collections WHERE id = ?1 AND deleted = 0";
static const char SET_SEQ[] =
    "UPDATE collections SET change_seq = ?2, n_items = n_items + ?3"
    " WHERE id = ?1";
static const char FIND[] =
    "SELECT item, change_seq, created_ms, updated_ms, content_hash"
    " FROM items WHERE collection = ?1 AND ext_id = ?2";
static const char INSERT[] =
    "INSERT INTO items (item, collection, change_seq, created_ms, updated_ms,"
    " content_hash, ext_id, title, metadata, text)"
    " VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8, ?9)";
static const char UPDATE[] =
    "UPDATE items SET change_seq = ?2, updated_ms = ?3, content_hash = ?4,"
    " title = ?5, metadata = ?6, text = ?7 WHERE item = ?1";
static const char UPDATE_METADATA[] =
    "UPDATE items SET change_seq = ?2, updated_ms = ?3, metadata = ?4"
    " WHERE item = ?1";
static const char DELETE[] = "DELETE FROM items WHERE item = ?1";
static const char GET[] =
    "SELECT " COLUMNS " FROM items WHERE collection = ?1 AND ext_id = ?2";
static const char GET_BY_NUMBER[] =
    "SELECT " COLUMNS " FROM items WHERE item = ?1";
static const char LIST[] =
    "SELECT " COLUMNS " FROM items WHERE collection = ?1 AND ext_id > ?2"
    " ORDER BY ext_id LIMIT ?3";
static const char WALK[] =
    "SELECT " COLUMNS " FROM items INDEXED BY items_by_collection"
    " WHERE collection = ?1 AND item > ?2 ORDER BY item LIMIT ?3";
static const char WALK_CHANGES[] =
    "SELECT " COLUMNS " FROM items INDEXED BY items_by_change"
    " WHERE collection = ?1 AND change_seq > ?2"
    " ORDER BY change_seq LIMIT ?3";
static const char COUNT[] =
    "SELECT n_items FROM collections WHERE id = ?1 AND deleted = 0";

/* ---- changing ------------------------------------------------------------ */

/* What an operation on many items carries along: the counters are read once
   and written once. */
struct change {
    struct db *db;
    int64_t collection;
    int64_t now_ms;
    int64_t seq;       /* the last one given out */
    int64_t item;      /* the last number given out; 0: not read yet */
    int64_t n_items;   /* by how many the collection grew */
    struct query find; /* kept prepared and bound over the loop */
    struct space_set spaces;
    struct image_counters images; /* what deletions take away */
};

static enum err
change_begin(
    struct change *change, struct db *db, int64_t collection, int64_t now_ms)
{
    struct query q;
    enum err err;

    *change =
        (struct change){.db = db, .collection = collection, .now_ms = now_ms};
    query_start(&q, db, GET_SEQ);
    query_int(&q, collection);
    if (query_row(&q)) {
        change->seq = query_get_int(&q, 0);
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err != OK) {
        return err;
    }
    return space_set_load(db, collection, &change->spaces);
}

static enum err
change_end(struct change *change)
{
    struct query q;
    enum err err;

    query_start(&q, change->db, SET_SEQ);
    query_int(&q, change->collection);
    query_int(&q, change->seq);
    query_int(&q, change->n_items);
    err = query_run(&q, NULL);
    if (err == OK && change->item > 0) {
        query_start(&q, change->db, SET_COUNTER);
        query_int(&q, change->item);
        err = query_run(&q, NULL);
    }
    if (err == OK) {
        err = space_set_save(change->db, &change->spaces);
    }
    if (err == OK) {
        err = image_counters_save(
            change->db, change->collection, &change->images);
    }
    return err;
}

/* The next number of an item. */
static enum err
take_number(struct change *change, int64_t *item)
{
    enum err err = OK;

    if (change->item == 0) {
        err = db_get_int(change->db, GET_COUNTER, &change->item);
    }
    if (err == OK && change->item >= ITEM_NUMBER_MAX) {
        err = ERR_TOO_LARGE;
    }
    if (err == OK) {
        *item = ++change->item;
    }
    return err;
}

/* The present row of an id, without its strings; item 0 when there is none. */
static enum err
find_one(struct query *q, int64_t collection, struct store_text ext_id,
    struct item_row *row)
{
    *row = (struct item_row){0};
    query_again(q);
    query_int(q, collection);
    query_text(q, ext_id);
    if (query_row(q)) {
        row->item = query_get_int(q, 0);
        row->change_seq = query_get_int(q, 1);
        row->created_ms = query_get_int(q, 2);
        row->updated_ms = query_get_int(q, 3);
        query_get_bytes(q, 4, row->content_hash, ITEM_HASH_BYTES);
    }
    return q->err;
}

static bool
meets_condition(const struct item_row *old, int64_t if_match, bool if_absent,
    struct item_result *result)
{
    if ((if_match == 0 || (old->item != 0 && old->change_seq == if_match)) &&
        (!if_absent || old->item == 0)) {
        return true;
    }
    result->err = ERR_PRECONDITION;
    result->change_seq = old->change_seq;
    return false;
}

static enum err
insert_one(struct change *change, struct query *insert,
    const struct item_put *put, struct item_result *result)
{
    int64_t item = 0;
    enum err err = take_number(change, &item);

    if (err != OK) {
        return err;
    }
    query_again(insert);
    query_int(insert, item);
    query_int(insert, change->collection);
    query_int(insert, ++change->seq);
    query_int(insert, change->now_ms);
    query_blob(insert, put->content_hash, ITEM_HASH_BYTES);
    query_text(insert, put->ext_id);
    query_text(insert, put->title);
    query_text(insert, put->metadata);
    query_text(insert, put->text);
    if (query_row(insert) || insert->err != OK) {
        return insert->err == OK ? ERR_INTERNAL : insert->err;
    }
    change->n_items++;
    *result = (struct item_result){.item = item,
        .change_seq = change->seq,
        .created = true,
        .content_changed = true};
    return OK;
}

static enum err
update_one(struct change *change, struct query *update,
    const struct item_put *put, const struct item_row *old,
    struct item_result *result)
{
    bool changed =
        memcmp(put->content_hash, old->content_hash, ITEM_HASH_BYTES) != 0;

    query_again(update);
    query_int(update, old->item);
    query_int(update, ++change->seq);
    query_int(update, change->now_ms);
    query_blob(update, put->content_hash, ITEM_HASH_BYTES);
    query_text(update, put->title);
    query_text(update, put->metadata);
    query_text(update, put->text);
    if (query_row(update) || update->err != OK) {
        return update->err == OK ? ERR_INTERNAL : update->err;
    }
    *result = (struct item_result){.item = old->item,
        .change_seq = change->seq,
        .content_changed = changed};
    memcpy(result->old_hash, old->content_hash, ITEM_HASH_BYTES);
    if (!changed) {
        return OK;
    }
    return space_set_remove(change->db, &change->spaces, old->item);
}

enum err
items_put(struct db *db, int64_t collection, const struct item_put *puts,
    size_t n, int64_t now_ms, struct item_result *results)
{
    struct change change;
    struct query find, insert, update;
    enum err err = change_begin(&change, db, collection, now_ms);

    if (err != OK) {
        return err;
    }
    query_start(&find, db, FIND);
    query_start(&insert, db, INSERT);
    query_start(&update, db, UPDATE);
    for (size_t i = 0; i < n && err == OK; i++) {
        struct item_row old;
        results[i] = (struct item_result){0};
        err = find_one(&find, collection, puts[i].ext_id, &old);
        if (err != OK || !meets_condition(&old, puts[i].if_match,
                             puts[i].if_absent, &results[i])) {
            continue;
        }
        if (old.item == 0) {
            err = insert_one(&change, &insert, &puts[i], &results[i]);
        } else {
            err = update_one(&change, &update, &puts[i], &old, &results[i]);
        }
    }
    query_close(&update);
    query_close(&insert);
    query_close(&find);
    if (err == OK) {
        err = change_end(&change);
    }
    return err;
}

enum err
items_patch(struct db *db, int64_t collection, struct store_text ext_id,
    struct store_text metadata, int64_t if_match, int64_t now_ms,
    struct item_result *result)
{
    struct item_result local = {0};
    struct change change;
    struct item_row old;
    struct query q;
    enum err err = change_begin(&change, db, collection, now_ms);

    if (err != OK) {
        return err;
    }
    query_start(&q, db, FIND);
    err = find_one(&q, collection, ext_id, &old);
    query_close(&q);
    if (err != OK) {
        return err;
    }
    if (!meets_condition(&old, if_match, false, &local) || old.item == 0) {
        local.err = old.item == 0 ? ERR_NOT_FOUND : ERR_PRECONDITION;
        *result = local;
        return local.err;
    }
    query_start(&q, db, UPDATE_METADATA);
    query_int(&q, old.item);
    query_int(&q, ++change.seq);
    query_int(&q, now_ms);
    query_text(&q, metadata);
    err = query_run(&q, NULL);
    if (err == OK) {
        err = change_end(&change);
    }
    if (err == OK) {
        local.item = old.item;
        local.change_seq = change.seq;
        memcpy(local.old_hash, old.content_hash, ITEM_HASH_BYTES);
        *result = local;
    }
    return err;
}

static enum err
delete_one(struct change *change, struct query *delete_q,
    const struct item_row *old, struct item_result *result)
{
    enum err err = image_remove(change->db, old->item, &change->images);

    if (err != OK) {
        return err;
    }
    query_again(delete_q);
    query_int(delete_q, old->item);
    if (query_row(delete_q) || delete_q->err != OK) {
        return delete_q->err == OK ? ERR_INTERNAL : delete_q->err;
    }
    change->n_items--;
    /* A deletion counts as a change, so that two states of a collection never
       have one change_seq. */
    result->item = old->item;
    result->change_seq = ++change->seq;
    memcpy(result->old_hash, old->content_hash, ITEM_HASH_BYTES);
    return space_set_remove(change->db, &change->spaces, old->item);
}

enum err
items_delete(struct db *db, int64_t collection,
    const struct store_text *ext_ids, size_t n, int64_t if_match,
    struct item_result *results)
{
    struct change change;
    struct query find, delete_q;
    enum err err = change_begin(&change, db, collection, 0);

    if (err != OK) {
        return err;
    }
    query_start(&find, db, FIND);
    query_start(&delete_q, db, DELETE);
    for (size_t i = 0; i < n && err == OK; i++) {
        struct item_row old;
        results[i] = (struct item_result){0};
        err = find_one(&find, collection, ext_ids[i], &old);
        if (err == OK && old.item == 0) {
            results[i].err = ERR_NOT_FOUND;
        } else if (err == OK &&
                   meets_condition(&old, if_match, false, &results[i])) {
            /* The cursor on the row must be closed before the row goes. */
            query_again(&find);
            err = delete_one(&change, &delete_q, &old, &results[i]);
        }
    }
    query_close(&delete_q);
    query_close(&find);
    if (err == OK) {
        err = change_end(&change);
    }
    return err;
}

/* ---- reading ------------------------------------------------------------- */

void
item_row_read(struct query *q, unsigned want, struct item_row *row)
{
    *row = (struct item_row){
        .item = query_get_int(q, 0),
        .change_seq = query_get_int(q, 1),
        .created_ms = query_get_int(q, 2),
        .updated_ms = query_get_int(q, 3),
        .ext_id = query_get_text(q, 5),
    };
    query_get_bytes(q, 4, row->content_hash, ITEM_HASH_BYTES);
    if ((want & ITEM_WANT_TITLE) != 0) {
        row->title = query_get_text(q, 6);
    }
    if ((want & ITEM_WANT_METADATA) != 0) {
        row->metadata = query_get_text(q, 7);
    }
    if ((want & ITEM_WANT_TEXT) != 0) {
        row->text = query_get_text(q, 8);
    }
}

enum err
item_rows_give(struct query *q, unsigned want, item_row_fn *fn, void *ctx)
{
    struct item_row row;

    while (query_row(q)) {
        item_row_read(q, want, &row);
        if (q->err == OK) {
            q->err = fn(ctx, &row);
        }
    }
    return query_end(q);
}

static enum err
keep_item(struct arena *arena, struct item_row *row)
{
    enum err err = text_keep(arena, &row->ext_id);

    if (err == OK) {
        err = text_keep(arena, &row->title);
    }
    if (err == OK) {
        err = text_keep(arena, &row->metadata);
    }
    if (err == OK) {
        err = text_keep(arena, &row->text);
    }
    return err;
}

enum err
items_get(struct db *db, int64_t collection, struct store_text ext_id,
    unsigned want, struct arena *arena, struct item_row *out)
{
    struct item_row row;
    struct query q;
    enum err err;

    query_start(&q, db, GET);
    query_int(&q, collection);
    query_text(&q, ext_id);
    if (query_row(&q)) {
        item_row_read(&q, want, &row);
        if (q.err == OK) {
            q.err = keep_item(arena, &row);
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
items_find(struct db *db, int64_t collection, const struct store_text *ext_ids,
    size_t n, struct item_row *out)
{
    struct query q;

    query_start(&q, db, FIND);
    for (size_t i = 0; i < n; i++) {
        if (find_one(&q, collection, ext_ids[i], &out[i]) != OK) {
            break;
        }
    }
    return query_end(&q);
}

enum err
items_get_many(struct db *db, const int64_t *items, size_t n, unsigned want,
    item_row_fn *fn, void *ctx)
{
    struct item_row row;
    struct query q;

    query_start(&q, db, GET_BY_NUMBER);
    for (size_t i = 0; i < n && q.err == OK; i++) {
        query_again(&q);
        query_int(&q, items[i]);
        if (!query_row(&q)) {
            continue;
        }
        item_row_read(&q, want, &row);
        if (q.err == OK) {
            q.err = fn(ctx, &row);
        }
    }
    return query_end(&q);
}

enum err
items_list(struct db *db, int64_t collection, struct store_text after,
    size_t limit, unsigned want, item_row_fn *fn, void *ctx)
{
    struct query q;

    query_start(&q, db, LIST);
    query_int(&q, collection);
    query_text(&q, after.s == NULL ? store_text_of("") : after);
    query_int(&q, (int64_t)limit);
    return item_rows_give(&q, want, fn, ctx);
}

enum err
items_walk(struct db *db, int64_t collection, int64_t after_item, size_t limit,
    unsigned want, item_row_fn *fn, void *ctx)
{
    struct query q;

    query_start(&q, db, WALK);
    query_int(&q, collection);
    query_int(&q, after_item);
    query_int(&q, (int64_t)limit);
    return item_rows_give(&q, want, fn, ctx);
}

enum err
items_walk_changes(struct db *db, int64_t collection, int64_t after_seq,
    size_t limit, unsigned want, item_row_fn *fn, void *ctx)
{
    struct query q;

    query_start(&q, db, WALK_CHANGES);
    query_int(&q, collection);
    query_int(&q, after_seq);
    query_int(&q, (int64_t)limit);
    return item_rows_give(&q, want, fn, ctx);
}

enum err
items_count(struct db *db, int64_t collection, int64_t *n)
{
    struct query q;
    int64_t count = 0;
    enum err err;

    query_start(&q, db, COUNT);
    query_int(&q, collection);
    if (query_row(&q)) {
        count = query_get_int(&q, 0);
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err == OK) {
        *n = count;
    }
    return err;
}
