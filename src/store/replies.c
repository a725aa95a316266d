#include "store/replies.h"

#include "store/db.h"

static const char GET[] =
    "SELECT body_hash, status, headers, body, expires_ms FROM replies"
    " WHERE key_hash = ?1 AND expires_ms > ?2";
static const char PUT[] =
    "INSERT INTO replies (key_hash, body_hash, status, headers, body,"
    " expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
static const char DELETE_EXPIRED[] =
    "DELETE FROM replies WHERE key_hash = ?1 AND expires_ms <= ?2";
static const char EXPIRE[] =
    "DELETE FROM replies WHERE key_hash IN (SELECT key_hash FROM replies"
    " WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";

enum err
replies_get(struct db *db, const uint8_t key_hash[SHA256_BYTES], int64_t now_ms,
    struct arena *arena, struct reply_row *out)
{
    struct reply_row row = {0};
    struct query q;
    enum err err;

    query_start(&q, db, GET);
    query_blob(&q, key_hash, SHA256_BYTES);
    query_int(&q, now_ms);
    if (query_row(&q)) {
        query_get_bytes(&q, 0, row.body_hash, SHA256_BYTES);
        row.status = (int)query_get_int(&q, 1);
        row.headers = query_get_text(&q, 2);
        row.body = query_get_text(&q, 3);
        row.expires_ms = query_get_int(&q, 4);
        if (q.err == OK) {
            q.err = text_keep(arena, &row.headers);
        }
        if (q.err == OK) {
            q.err = text_keep(arena, &row.body);
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
replies_put(struct db *db, const uint8_t key_hash[SHA256_BYTES],
    const struct reply_row *reply, int64_t now_ms)
{
    struct query q;
    enum err err;

    query_start(&q, db, DELETE_EXPIRED);
    query_blob(&q, key_hash, SHA256_BYTES);
    query_int(&q, now_ms);
    err = query_run(&q, NULL);
    if (err != OK) {
        return err;
    }
    query_start(&q, db, PUT);
    query_blob(&q, key_hash, SHA256_BYTES);
    query_blob(&q, reply->body_hash, SHA256_BYTES);
    query_int(&q, reply->status);
    query_text(&q, reply->headers);
    query_text(&q, reply->body);
    query_int(&q, reply->expires_ms);
    return query_run(&q, NULL);
}

enum err
replies_expire(struct db *db, int64_t now_ms, size_t max_rows, size_t *n)
{
    struct query q;
    int64_t changes = 0;
    enum err err;

    query_start(&q, db, EXPIRE);
    query_int(&q, now_ms);
    query_int(&q, (int64_t)max_rows);
    err = query_run(&q, &changes);
    if (err == OK && n != NULL) {
        *n = (size_t)changes;
    }
    return err;
}
