#include "server/idempotency.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "base/log.h"
#include "engine/engine.h"
#include "server/http.h"
#include "server/problem.h"

#define KEY_BYTES_MAX 200
#define RUNNING_MAX 512 /* more than there can be workers */

/* Keys of the requests that run now. */
static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *running[RUNNING_MAX]; /* running_lock; borrowed */

static bool
running_enter(const char *key)
{
    bool entered = false;
    size_t free_i = RUNNING_MAX;
    pthread_mutex_lock(&running_lock);
    for (size_t i = 0; i < RUNNING_MAX; i++) {
        if (!running[i])
            free_i = i;
        else if (strcmp(running[i], key) == 0)
            goto out;
    }
    if (free_i < RUNNING_MAX) {
        running[free_i] = key;
        entered = true;
    }
out:
    pthread_mutex_unlock(&running_lock);
    return entered;
}

static void
running_leave(const char *key)
{
    pthread_mutex_lock(&running_lock);
    for (size_t i = 0; i < RUNNING_MAX; i++)
        if (running[i] == key)
            running[i] = NULL;
    pthread_mutex_unlock(&running_lock);
}

static void
digest_request(const struct request *req, uint8_t digest[SHA256_BYTES])
{
    struct sha256 ctx;
    sha256_start(&ctx);
    sha256_add(&ctx, req->route->method, strlen(req->route->method) + 1);
    sha256_add(&ctx, req->path, strlen(req->path) + 1);
    for (size_t i = 0; i < req->n_query; i++) {
        sha256_add(&ctx, req->query[i].name, req->query[i].name_len + 1);
        sha256_add(&ctx, req->query[i].value, req->query[i].value_len + 1);
    }
    if (req->body.len > 0)
        sha256_add(&ctx, req->body.data, req->body.len);
    sha256_finish(&ctx, digest);
}

static bool
is_key(const char *key)
{
    size_t n = strlen(key);
    if (n > KEY_BYTES_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (key[i] < ' ' || key[i] > '~')
            return false;
    return true;
}

static void
repeat_answer(struct request *req, const struct engine_reply *kept)
{
    struct buf *out = reply_json(req, kept->status);
    /* Both live in the arena. */
    req->reply.content_type = kept->content_type;
    if (kept->location[0] != '\0')
        reply_header(req, "Location", kept->location);
    reply_header(req, "Idempotency-Replayed", "true");
    if (kept->body.len > 0)
        buf_add(out, kept->body.s, kept->body.len);
}

static void
keep_answer(
    struct request *req, const char *key, const uint8_t digest[SHA256_BYTES])
{
    static struct log_limit limit;
    const struct reply *reply = &req->reply;
    if (reply->status >= 500 || reply->status == 429 || reply->next ||
        reply->fd >= 0)
        return;
    struct engine_reply kept = {.status = reply->status,
        .content_type = reply->content_type ? reply->content_type : "",
        .location = "",
        .body = {reply->body.data ? reply->body.data : "", reply->body.len}};
    for (size_t i = 0; i < reply->n_headers; i++)
        if (strcmp(reply->headers[i].name, "Location") == 0)
            kept.location = reply->headers[i].value;
    struct fault fault = {0};
    enum err err =
        engine_reply_put(req->daemon->engine, key, digest, &kept, &fault);
    if (err != OK)
        log_limited(&limit, LOG_WARN, "http",
            "idempotency_not_kept request=%s code=%d", req->id, (int)err);
}

void
idempotency_run(struct request *req)
{
    struct fault fault = {0};
    if (!is_key(req->headers.idempotency_key)) {
        problem_reply_status(req, 400,
            "Idempotency-Key must be 1 to 200 printable ASCII characters");
        return;
    }
    char key[KEY_BYTES_MAX + 16];
    (void)snprintf(key, sizeof(key), "%d:%s", (int)req->scope,
        req->headers.idempotency_key);
    uint8_t digest[SHA256_BYTES];
    digest_request(req, digest);
    if (!running_enter(key)) {
        problem_reply_status(
            req, 409, "a request with this Idempotency-Key is running now");
        return;
    }
    struct engine_reply kept;
    enum err err = engine_reply_get(
        req->daemon->engine, key, digest, &req->arena, &kept, &fault);
    if (err == OK) {
        repeat_answer(req, &kept);
    } else if (err == ERR_NOT_FOUND) {
        req->route->fn(req);
        keep_answer(req, key, digest);
    } else {
        if (fault.err == OK)
            fault.err = err;
        problem_reply(req, &fault);
    }
    running_leave(key);
}
