#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "server/problem.h"

#define SWEEP_MS 50
#define BODY_STREAM_STEP 1024 /* bytes that prove that a stream is alive */
#define LEAVING_MS 2000       /* for who still sends to see the answer */

void
conn_opened(void *cls, struct MHD_Connection *connection, void **context,
    enum MHD_ConnectionNotificationCode code)
{
    struct http *http = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(
            connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct conn *conn = mem_calloc(1, sizeof(*conn));
        *context = conn;
        if (!conn || !info)
            return; /* its requests are refused for lack of memory */
        conn->fd = info->connect_fd;
        conn->http = http;
        conn->phase = CONN_HEADER;
        conn->deadline_ms =
            clock_mono_ms() + http->daemon->config.header_deadline_ms;
        pthread_mutex_lock(&http->conns_lock);
        conn->next = http->conns;
        if (conn->next)
            conn->next->prev = conn;
        http->conns = conn;
        pthread_mutex_unlock(&http->conns_lock);
        atomic_fetch_add(&http->n_conns, 1);
        return;
    }
    struct conn *conn = *context;
    *context = NULL;
    if (!conn)
        return;
    if (conn->http) {
        pthread_mutex_lock(&http->conns_lock);
        if (conn->prev)
            conn->prev->next = conn->next;
        else
            http->conns = conn->next;
        if (conn->next)
            conn->next->prev = conn->prev;
        pthread_mutex_unlock(&http->conns_lock);
        atomic_fetch_sub(&http->n_conns, 1);
    }
    mem_free(conn);
}

void
conn_phase_set(struct conn *conn, enum conn_phase phase, int64_t for_ms,
    struct request *req)
{
    int64_t now_ms = clock_mono_ms();
    pthread_mutex_lock(&conn->http->conns_lock);
    conn->phase = phase;
    conn->deadline_ms = now_ms + for_ms;
    conn->body_bytes = 0;
    conn->req = req;
    pthread_mutex_unlock(&conn->http->conns_lock);
}

static const char *
reason_of(int status)
{
    return status == 408   ? "Request Timeout"
           : status == 413 ? "Content Too Large"
           : status == 503 ? "Service Unavailable"
                           : MHD_get_reason_phrase_for((unsigned)status);
}

static void
answer(
    struct conn *conn, int status, const char *detail, const char *request_id)
{
    char text[1536];
    struct fault fault = {0};
    struct buf doc;
    (void)snprintf(fault.detail, sizeof(fault.detail), "%s", detail);
    buf_init(&doc, 1024);
    problem_write(&doc, status, &fault, request_id);
    int n = snprintf(text, sizeof(text),
        "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\n"
        "Content-Length: %zu\r\nConnection: close\r\n%s%s%s%s\r\n%s",
        status, reason_of(status), doc.len, request_id ? "X-Request-Id: " : "",
        request_id ? request_id : "", request_id ? "\r\n" : "",
        status == 503 ? "Retry-After: 1\r\n" : "", doc.data ? doc.data : "");
    buf_release(&doc);
    if (n > 0 && (size_t)n < sizeof(text))
        (void)send(conn->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void
cut_off(struct conn *conn)
{
    (void)shutdown(conn->fd, SHUT_RDWR);
    conn->cut = true;
}

void
conn_leave(
    struct conn *conn, int status, const char *detail, const char *request_id)
{
    pthread_mutex_lock(&conn->http->conns_lock);
    if (!conn->cut) {
        answer(conn, status, detail, request_id);
        (void)shutdown(conn->fd, SHUT_WR);
        conn->phase = CONN_LEAVING;
        conn->deadline_ms = clock_mono_ms() + LEAVING_MS;
    }
    pthread_mutex_unlock(&conn->http->conns_lock);
}

/* The worker takes too long: answer for it. The caller holds conns_lock, so
   the request cannot go; lock order: conns before request. */
void
conn_overrun(struct request *req)
{
    pthread_mutex_lock(&req->lock);
    if (!req->done && !req->overdue) {
        req->overdue = true;
        request_resume_locked(req);
    }
    pthread_mutex_unlock(&req->lock);
}

static bool
is_suspended(struct request *req)
{
    pthread_mutex_lock(&req->lock);
    bool suspended = req->suspended;
    pthread_mutex_unlock(&req->lock);
    return suspended;
}

/* The connection is past its deadline; conns_lock is held. */
static void
enforce(struct conn *conn, int64_t now_ms)
{
    struct http *http = conn->http;
    const struct config *config = &http->daemon->config;
    bool stream = conn->req && conn->req->intake;
    switch (conn->phase) {
    case CONN_HEADER:
        answer(conn, 408, "the header did not come in time", NULL);
        cut_off(conn);
        break;
    case CONN_IDLE:
    case CONN_LEAVING:
        cut_off(conn);
        return;
    case CONN_BODY:
        /* Bytes that wait for us are not the client's slowness. */
        if (stream &&
            (conn->body_bytes >= BODY_STREAM_STEP || is_suspended(conn->req))) {
            conn->body_bytes = 0;
            conn->deadline_ms = now_ms + config->body_deadline_ms;
            return;
        }
        answer(conn, 408, "the body did not come in time", conn->req->id);
        cut_off(conn);
        conn->req->status_sent = 408;
        break;
    case CONN_WORK:
        conn->deadline_ms = now_ms + config->work_deadline_ms;
        if (stream)
            return; /* bounded by the work that it asked for */
        conn_overrun(conn->req);
        break;
    case CONN_REPLY:
        cut_off(conn);
        break;
    }
    atomic_fetch_add(&http->n_deadlines, 1);
}

void *
conn_sweep(void *arg)
{
    struct http *http = arg;
    pthread_mutex_lock(&http->conns_lock);
    while (!http->stopping) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += SWEEP_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        (void)pthread_cond_timedwait(&http->sweep, &http->conns_lock, &until);
        int64_t now_ms = clock_mono_ms();
        bool draining = atomic_load(&http->daemon->draining);
        for (struct conn *conn = http->conns; conn; conn = conn->next) {
            if (conn->cut)
                continue;
            if (now_ms >= conn->deadline_ms) {
                enforce(conn, now_ms);
            } else if (draining && conn->phase == CONN_IDLE) {
                cut_off(conn);
            }
        }
    }
    pthread_mutex_unlock(&http->conns_lock);
    return NULL;
}
