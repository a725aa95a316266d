/* Answers kept for requests that come again with the same Idempotency-Key. */
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "store/replies.h"
#include "engine/internal.h"

#define REPLY_KEPT_MS INT64_C(86400000)
#define HEADERS_BYTES_MAX 4096

static void
hash_key(const char *key, uint8_t out[SHA256_BYTES])
{
    sha256_of(key, strlen(key), out);
}

static enum err
read_headers(
    struct store_text headers, struct arena *arena, struct engine_reply *out)
{
    struct json *root = NULL;
    const char *type = "application/json", *location = "";
    enum err err = json_parse(headers.s ? headers.s : "{}",
        headers.s ? headers.len : 2, HEADERS_BYTES_MAX, &root, NULL);
    if (!err) {
        err = json_get_str(
            root, "", "content_type", JSON_OPTIONAL, &type, NULL, NULL);
    }
    if (!err) {
        err = json_get_str(
            root, "", "location", JSON_OPTIONAL, &location, NULL, NULL);
    }
    if (!err) {
        out->content_type = arena_strndup(arena, type, strlen(type));
        out->location = arena_strndup(arena, location, strlen(location));
        err = out->content_type && out->location ? OK : ERR_NOMEM;
    }
    json_free(root);
    return err;
}

enum err
engine_reply_get(struct engine *engine, const char *key,
    const uint8_t request[SHA256_BYTES], struct arena *arena,
    struct engine_reply *out, struct fault *fault)
{
    uint8_t hash[SHA256_BYTES];
    struct reply_row row;
    struct db *db;
    hash_key(key, hash);
    enum err err = store_read_begin(engine->store, &db);
    if (!err) {
        err = replies_get(db, hash, clock_wall_ms(), arena, &row);
        store_read_end(engine->store, db);
    }
    if (err == ERR_NOT_FOUND) {
        return fault_set(fault, err, "", "the key is new");
    }
    if (!err && memcmp(row.body_hash, request, SHA256_BYTES) != 0) {
        return fault_set(fault, ERR_INVALID, "",
            "this Idempotency-Key was used with another request");
    }
    struct engine_reply reply = {.status = 0};
    if (!err) {
        reply.status = row.status;
        reply.body = (struct engine_text){.s = row.body.s ? row.body.s : "",
            .len = row.body.s ? row.body.len : 0};
        err = read_headers(row.headers, arena, &reply);
    }
    if (!err) {
        *out = reply;
    }
    return fault_of(fault, err, "looking for an earlier answer");
}

struct put_op {
    uint8_t key[SHA256_BYTES];
    struct reply_row row;
    int64_t now_ms;
};

static enum err
run_put(struct db *db, void *arg)
{
    const struct put_op *op = arg;
    return replies_put(db, op->key, &op->row, op->now_ms);
}

enum err
engine_reply_put(struct engine *engine, const char *key,
    const uint8_t request[SHA256_BYTES], const struct engine_reply *reply,
    struct fault *fault)
{
    struct buf headers;
    buf_init(&headers, HEADERS_BYTES_MAX);
    buf_add_str(&headers, "{\"content_type\":");
    buf_json_cstr(&headers, reply->content_type ? reply->content_type : "");
    buf_add_str(&headers, ",\"location\":");
    buf_json_cstr(&headers, reply->location ? reply->location : "");
    buf_add_char(&headers, '}');
    enum err err = buf_status(&headers);
    if (!err) {
        struct put_op op = {.now_ms = clock_wall_ms()};
        op.row = (struct reply_row){.status = reply->status,
            .headers = {.s = headers.data, .len = headers.len},
            .body = {.s = reply->body.s, .len = reply->body.len},
            .expires_ms = op.now_ms + REPLY_KEPT_MS};
        memcpy(op.row.body_hash, request, SHA256_BYTES);
        hash_key(key, op.key);
        err = store_run(engine->store, run_put, &op);
    }
    buf_release(&headers);
    return fault_of(fault, err, "keeping the answer");
}
