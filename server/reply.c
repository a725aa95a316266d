#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "base/log.h"
#include "server/events.h"
#include "server/outflow.h"
#include "server/problem.h"

#define REPLY_BYTES_MAX (256u << 20)
/* Slowest reader that is waited for, beside keep_alive_ms. */
#define REPLY_BYTES_PER_MS 16

void
reply_init(struct reply *reply)
{
    memset(reply, 0, sizeof(*reply));
    buf_init(&reply->body, REPLY_BYTES_MAX);
    reply->fd = -1;
    reply->stream_bytes = -1;
}

void
reply_release(struct reply *reply)
{
    buf_release(&reply->body);
    if (reply->fd >= 0)
        (void)close(reply->fd);
    reply->fd = -1;
    if (reply->done)
        reply->done(reply->state);
    reply->done = NULL;
    reply->next = NULL;
}

void
reply_reset(struct request *req)
{
    reply_release(&req->reply);
    reply_init(&req->reply);
}

struct buf *
reply_json(struct request *req, int status)
{
    req->reply.status = status;
    req->reply.content_type = "application/json";
    return &req->reply.body;
}

void
reply_text(struct request *req, int status, const char *text)
{
    req->reply.status = status;
    req->reply.content_type = "text/plain; charset=utf-8";
    buf_add_str(&req->reply.body, text);
}

void
reply_header(struct request *req, const char *name, const char *value)
{
    struct reply *reply = &req->reply;
    ASSERT(reply->n_headers < REPLY_HEADERS_MAX);
    reply->headers[reply->n_headers].name = name;
    reply->headers[reply->n_headers].value = value;
    reply->n_headers++;
}

void
reply_header_f(struct request *req, const char *name, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(text))
        return;
    char *value = arena_strndup(&req->arena, text, (size_t)n);
    if (value)
        reply_header(req, name, value);
}

void
reply_stream(struct request *req, const char *content_type, reply_next_fn *next,
    reply_done_fn *done, void *state, int64_t bytes)
{
    struct reply *reply = &req->reply;
    reply->status = 200;
    reply->content_type = content_type;
    reply->next = next;
    reply->done = done;
    reply->state = state;
    reply->stream_bytes = bytes;
}

static struct MHD_Response *
make_response(struct request *req)
{
    struct reply *reply = &req->reply;
    struct MHD_Response *response = NULL;
    if (reply->events_job > 0)
        return events_response(req->daemon->events, req);
    if (reply->next)
        return outflow_new(req);
    if (reply->fd >= 0) {
        response = MHD_create_response_from_fd64(reply->fd_bytes, reply->fd);
        if (response)
            reply->fd = -1; /* the response closes it */
        return response;
    }
    if (reply->body.len == 0)
        return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    size_t len;
    char *data = buf_take(&reply->body, &len);
    response =
        MHD_create_response_from_buffer_with_free_callback(len, data, mem_free);
    if (!response)
        mem_free(data);
    return response;
}

enum MHD_Result
reply_send(struct request *req)
{
    struct reply *reply = &req->reply;
    const struct config *config = &req->daemon->config;
    uint64_t bytes = reply->fd >= 0 ? reply->fd_bytes : reply->body.len;
    struct MHD_Response *response = make_response(req);
    if (!response)
        return MHD_NO;
    if (reply->content_type)
        (void)MHD_add_response_header(
            response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->content_type);
    (void)MHD_add_response_header(response, "X-Request-Id", req->id);
    (void)MHD_add_response_header(
        response, "X-Content-Type-Options", "nosniff");
    for (size_t i = 0; i < reply->n_headers; i++)
        (void)MHD_add_response_header(
            response, reply->headers[i].name, reply->headers[i].value);
    if (req->close_after || atomic_load(&req->daemon->draining))
        (void)MHD_add_response_header(
            response, MHD_HTTP_HEADER_CONNECTION, "close");
    req->status_sent = reply->status;
    req->queued = true;
    conn_phase_set(req->conn, CONN_REPLY,
        config->keep_alive_ms + (int64_t)(bytes / REPLY_BYTES_PER_MS), req);
    enum MHD_Result ret =
        MHD_queue_response(req->connection, (unsigned)reply->status, response);
    MHD_destroy_response(response);
    return ret;
}
