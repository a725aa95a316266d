#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine.h"
#include "server/auth.h"
#include "server/events.h"
#include "server/idempotency.h"
#include "server/intake.h"
#include "server/media.h"
#include "server/metrics.h"
#include "server/outflow.h"
#include "server/problem.h"

#define CONNECTION_BYTES 65536       /* header and read buffer of one */
#define ARENA_BYTES_MAX (96u << 20)  /* of one request */
#define DISCARD_BYTES_MAX (1u << 20) /* of a body whose answer is known */
#define LISTEN_BACKLOG 1024

/* ---- requests ------------------------------------------------------------ */

void
request_ref(struct request *req)
{
    atomic_fetch_add(&req->refs, 1);
}

void
request_unref(struct request *req)
{
    if (atomic_fetch_sub(&req->refs, 1) != 1)
        return;
    struct http *http = req->daemon->http;
    intake_free(req->intake);
    http_unreserve(req, req->reserved_bytes);
    reply_release(&req->reply);
    buf_release(&req->body);
    arena_release(&req->arena);
    pthread_mutex_destroy(&req->lock);
    mem_free(req);
    atomic_fetch_sub(&http->n_requests, 1);
}

void
request_suspend_locked(struct request *req)
{
    ASSERT(!req->suspended);
    req->suspended = true;
    MHD_suspend_connection(req->connection);
}

void
request_resume_locked(struct request *req)
{
    if (!req->suspended)
        return;
    req->suspended = false;
    MHD_resume_connection(req->connection);
}

void
request_finish(struct request *req)
{
    pthread_mutex_lock(&req->lock);
    req->done = true;
    request_resume_locked(req);
    pthread_mutex_unlock(&req->lock);
}

bool
http_reserve(struct request *req, size_t n)
{
    struct http *http = req->daemon->http;
    size_t max = (size_t)req->daemon->config.body_memory_bytes;
    size_t before = atomic_fetch_add(&http->body_bytes, n);
    if (before > max || n > max - before) {
        atomic_fetch_sub(&http->body_bytes, n);
        return false;
    }
    req->reserved_bytes += n;
    return true;
}

void
http_unreserve(struct request *req, size_t n)
{
    ASSERT(n <= req->reserved_bytes);
    req->reserved_bytes -= n;
    atomic_fetch_sub(&req->daemon->http->body_bytes, n);
}

void
request_progress(struct request *req, size_t n_bytes)
{
    struct conn *conn = req->conn;
    pthread_mutex_lock(&conn->http->conns_lock);
    conn->body_bytes += n_bytes;
    pthread_mutex_unlock(&conn->http->conns_lock);
}

static struct uri_param *
param_find(const struct uri_param *params, size_t n, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (params[i].name_len == len &&
            memcmp(params[i].name, name, len) == 0) {
            union {
                const struct uri_param *in;
                struct uri_param *out;
            } both = {&params[i]};
            return both.out;
        }
    return NULL;
}

const char *
request_param(const struct request *req, const char *name)
{
    const struct uri_param *p = param_find(req->params, req->n_params, name);
    return p ? p->value : NULL;
}

const char *
request_query(const struct request *req, const char *name)
{
    const struct uri_param *p = param_find(req->query, req->n_query, name);
    return p ? p->value : NULL;
}

/* A request identifier that is fit for a header and a log line. */
static bool
is_request_id(const char *s)
{
    size_t n = strlen(s);
    if (n == 0 || n > REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
                (s[i] >= '0' && s[i] <= '9') || strchr("-_.:", s[i])))
            return false;
    return true;
}

static void
make_request_id(struct request *req)
{
    static _Atomic uint64_t counter;
    uint64_t n = atomic_fetch_add(&counter, 1);
    (void)snprintf(req->id, sizeof(req->id), "%016llx",
        (unsigned long long)hash_u64(
            n ^ ((uint64_t)req->daemon->started_ms << 20)));
}

/* The library calls this as soon as the request line is read. */
static void *
request_new(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct http *http = cls;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct conn *conn = info ? info->socket_context : NULL;
    if (!conn || !conn->http)
        return NULL;
    struct request *req = mem_calloc(1, sizeof(*req));
    if (!req)
        return NULL;
    req->daemon = http->daemon;
    req->conn = conn;
    req->connection = connection;
    req->start_ns = clock_mono_ns();
    req->method = "";
    atomic_init(&req->refs, 1);
    pthread_mutex_init(&req->lock, NULL);
    arena_init(&req->arena, ARENA_BYTES_MAX);
    buf_init(&req->body, 0); /* its maximum is the route's */
    reply_init(&req->reply);
    make_request_id(req);
    atomic_fetch_add(&http->n_requests, 1);

    size_t path_len = strcspn(uri, "?");
    req->path = arena_strndup(&req->arena, uri, path_len);
    char *query = NULL;
    size_t query_len = 0;
    if (uri[path_len] == '?') {
        query_len = strlen(uri + path_len + 1);
        query = arena_strndup(&req->arena, uri + path_len + 1, query_len);
    }
    if (!req->path || (query_len > 0 && !query)) {
        request_unref(req);
        return NULL;
    }
    if (query && uri_query(query, query_len, req->query, &req->n_query) != OK)
        req->n_query = SIZE_MAX; /* refused in begin */
    conn_phase_set(
        conn, CONN_HEADER, http->daemon->config.header_deadline_ms, NULL);
    return req;
}

/* The library is through with the request, sent or broken. */
static void
request_completed(void *cls, struct MHD_Connection *connection, void **context,
    enum MHD_RequestTerminationCode code)
{
    (void)connection;
    struct http *http = cls;
    struct request *req = *context;
    *context = NULL;
    if (!req)
        return;
    const struct config *config = &http->daemon->config;
    conn_phase_set(req->conn, CONN_IDLE, config->keep_alive_ms, NULL);
    if (req->intake)
        intake_abort(req);
    int64_t took_ns = clock_mono_ns() - req->start_ns;
    int status = req->status_sent;
    metrics_count(http->daemon->metrics, req->route, status, took_ns);
    if (atomic_load_explicit(&http->daemon->log_requests, memory_order_relaxed))
        log_info("http", "request id=%s route=%s status=%d ms=%.3f whole=%d",
            req->id, req->route ? req->route->name : "-", status,
            (double)took_ns * 1e-6,
            code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    request_unref(req);
}

/* ---- before the body ----------------------------------------------------- */

static const char *
header(struct request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

/* A copy: a worker may outlive the connection. */
static const char *
header_copy(struct request *req, const char *name)
{
    const char *value = header(req, name);
    if (!value)
        return "";
    const char *copy = arena_strndup(&req->arena, value, strlen(value));
    return copy ? copy : "";
}

static bool refuse(struct request *req, int status, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* Always false, so that checks can return it. */
static bool
refuse(struct request *req, int status, const char *fmt, ...)
{
    char detail[FAULT_DETAIL_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    problem_reply_status(req, status, detail);
    req->done = true;
    return false;
}

/* The name part of "name:port" or "[v6]:port" is an address or localhost. */
static bool
is_local_name(const char *host)
{
    struct in_addr in;
    char name[256];
    if (host[0] == '[')
        return strchr(host, ']') != NULL;
    size_t len = strcspn(host, ":");
    if (len == 0 || len >= sizeof(name))
        return false;
    memcpy(name, host, len);
    name[len] = '\0';
    return strcasecmp(name, "localhost") == 0 ||
           inet_pton(AF_INET, name, &in) == 1;
}

/*
 * A browser must not be made to act on us: a page of another origin may send
 * requests here, with the user's network but not with our keys. So a foreign
 * Origin is refused, and without keys also a Host that is a name, which is how
 * a page reaches a loopback address under its own name.
 */
static bool
check_browser(struct request *req)
{
    const char *host = header(req, MHD_HTTP_HEADER_HOST);
    const char *origin = header(req, "Origin");
    if (origin) {
        const char *name = strstr(origin, "://");
        if (!name || !host || strcasecmp(name + 3, host) != 0)
            return refuse(req, 403,
                "the Origin header names another site than the Host header");
    }
    if (host && host[0] != '\0' && !auth_enabled(req->daemon->auth) &&
        !is_local_name(host))
        return refuse(req, 403,
            "without keys the Host header must be an address or localhost");
    return true;
}

static bool
find_route(struct request *req, const char *method)
{
    struct uri_slice found[URI_PARAMS_MAX];
    char allow[128];
    size_t path_len = strlen(req->path);
    req->route = route_find(method, req->path, path_len, found, &req->n_params,
        allow, sizeof(allow));
    if (!req->route) {
        req->n_params = 0;
        if (strcmp(method, "OPTIONS") == 0 &&
            (allow[0] != '\0' || strcmp(req->path, "*") == 0)) {
            req->reply.status = 204;
            reply_header_f(req, "Allow", "%s",
                allow[0] ? allow : "GET, HEAD, POST, PUT, PATCH, DELETE");
            req->done = true;
            return false;
        }
        if (allow[0] == '\0')
            return refuse(req, 404, "there is nothing at this path");
        (void)refuse(req, 405, "this path takes %s", allow);
        reply_header_f(req, "Allow", "%s", allow);
        return false;
    }
    for (size_t i = 0; i < req->n_params; i++) {
        struct uri_param *p = &req->params[i];
        p->name = found[i].name;
        p->name_len = found[i].name_len;
        p->value = arena_alloc(&req->arena, found[i].raw_len + 1, 1);
        if (!p->value)
            return refuse(req, 503, "out of memory");
        if (uri_decode(p->value, &p->value_len, found[i].raw, found[i].raw_len,
                false) != OK) {
            req->n_params = i;
            return refuse(
                req, 400, "the path holds a broken percent escape or a NUL");
        }
    }
    return true;
}

static bool
check_key(struct request *req)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        req->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    static const char *const names[] = {"no", "a read", "a write", "an admin"};
    enum scope needed = req->route->scope;
    switch (auth_check(req->daemon->auth,
        header(req, MHD_HTTP_HEADER_AUTHORIZATION), needed,
        info ? info->client_addr : NULL, &req->scope)) {
    case AUTH_GRANTED:
        return true;
    case AUTH_FORBIDDEN:
        return refuse(req, 403, "this needs %s key", names[needed]);
    case AUTH_LIMITED:
        return refuse(
            req, 429, "too many wrong keys from this address; wait a minute");
    case AUTH_MISSING:
        break;
    }
    return refuse(req, 401,
        "this needs %s key, as \"Authorization: Bearer KEY\"", names[needed]);
}

static bool
check_body(struct request *req, bool has_body, long long content_length)
{
    const struct config *config = &req->daemon->config;
    const struct media_body body = {
        req->headers.content_type, has_body, content_length};
    char detail[FAULT_DETAIL_MAX];
    int status = media_check(req->route, config, &body, detail);
    if (status != 0)
        return refuse(req, status, "%s", detail);
    buf_init(&req->body, media_body_max(req->route, config));
    return true;
}

/*
 * All that can be refused before the body is. The reply of a refusal waits
 * for the end of the body, when that is near: then the connection lives on.
 */
static enum MHD_Result
request_begin(struct request *req, const char *method)
{
    const struct config *config = &req->daemon->config;
    req->begun = true;
    const char *id = header(req, "X-Request-Id");
    if (id && is_request_id(id))
        memcpy(req->id, id, strlen(id) + 1);
    const char *length = header(req, MHD_HTTP_HEADER_CONTENT_LENGTH);
    bool chunked = header(req, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL;
    long long content_length = length ? strtoll(length, NULL, 10) : 0;
    bool has_body = chunked || content_length > 0;
    req->headers.content_type = header_copy(req, MHD_HTTP_HEADER_CONTENT_TYPE);
    req->headers.if_match = header_copy(req, MHD_HTTP_HEADER_IF_MATCH);
    req->headers.if_none_match =
        header_copy(req, MHD_HTTP_HEADER_IF_NONE_MATCH);
    req->headers.idempotency_key = header_copy(req, "Idempotency-Key");
    req->headers.last_event_id = header_copy(req, "Last-Event-ID");
    req->close_after = atomic_load(&req->daemon->draining);

    bool fine = check_browser(req) && find_route(req, method) && check_key(req);
    if (fine && req->n_query == SIZE_MAX)
        fine = refuse(req, 400,
            "the query has a broken escape, a name twice or over %d arguments",
            URI_QUERY_MAX);
    if (req->n_query == SIZE_MAX)
        req->n_query = 0;
    if (fine)
        fine = check_body(req, has_body, content_length);
    if (fine && media_is_stream(req->route, req->headers.content_type)) {
        enum err err = intake_new(req);
        if (err == ERR_INVALID)
            fine = refuse(req, 422, "outcomes must be \"all\" or \"errors\"");
        else if (err != OK)
            fine = refuse(req, 503, "out of memory");
    }
    req->discard = !fine || req->route->body == BODY_NONE;
    conn_phase_set(req->conn, CONN_BODY, config->body_deadline_ms, req);
    if (!fine && has_body &&
        (content_length > DISCARD_BYTES_MAX || header(req, "Expect")))
        return reply_send(req); /* and the library closes the connection */
    return MHD_YES;
}

/* ---- the body ------------------------------------------------------------ */

static enum MHD_Result
request_body(struct request *req, const char *bytes, size_t *n)
{
    size_t taken = *n;
    request_progress(req, taken);
    if (!req->discard && req->intake && intake_is_over(req))
        req->discard = true;
    if (!req->discard && req->intake) {
        *n = taken - intake_bytes(req, bytes, taken);
        return MHD_YES;
    }
    *n = 0;
    if (!req->discard && req->body.len + taken > req->body.max_bytes) {
        (void)refuse(req, 413, "the body is longer than the limit of %zu bytes",
            req->body.max_bytes);
        req->discard = true;
    }
    if (!req->discard) {
        /* Reserved in steps, so that a small body costs one addition. */
        size_t need = req->body.len + taken;
        bool room = need <= req->reserved_bytes ||
                    http_reserve(req, need - req->reserved_bytes);
        if (!room) {
            atomic_fetch_add(&req->daemon->http->n_refused, 1);
            (void)refuse(req, 503,
                "the memory for request bodies is used up; try again");
            req->discard = true;
        }
    }
    if (!req->discard) {
        buf_add(&req->body, bytes, taken);
        if (buf_status(&req->body) != OK) {
            (void)refuse(req, 503, "out of memory");
            req->discard = true;
        }
        return MHD_YES;
    }
    buf_release(&req->body);
    if (!req->intake) /* its own accounts are the worker's */
        http_unreserve(req, req->reserved_bytes);
    req->discarded += taken;
    if (req->discarded > DISCARD_BYTES_MAX && req->status_sent == 0) {
        req->status_sent = req->reply.status ? req->reply.status : 413;
        conn_leave(req->conn, req->status_sent,
            req->reply.refusal ? req->reply.refusal
                               : "the body is over the limit",
            req->id);
    }
    return MHD_YES;
}

/* ---- after the body ------------------------------------------------------ */

static struct queue *
queue_of(struct request *req)
{
    struct http *http = req->daemon->http;
    return req->route->pool == POOL_READ ? http->read_queue : http->write_queue;
}

void
http_hand_over(struct request *req)
{
    request_ref(req);
    atomic_fetch_add(&req->daemon->http->n_working, 1);
    enum err err = queue_try_push(queue_of(req), req);
    ASSERT(err == OK); /* sized for every connection; closed after the last */
}

static enum MHD_Result
reply_overdue(struct request *req)
{
    /* The worker still owns request.reply and the arena. */
    struct buf doc;
    struct fault fault = {.err = ERR_TIMEOUT};
    (void)snprintf(fault.detail, sizeof(fault.detail),
        "no answer within %lld ms; whether it was done is not known",
        req->daemon->config.work_deadline_ms);
    buf_init(&doc, 4096);
    problem_write(&doc, 503, &fault, req->id);
    struct MHD_Response *response = NULL;
    if (buf_status(&doc) == OK)
        response = MHD_create_response_from_buffer(
            doc.len, doc.data, MHD_RESPMEM_MUST_COPY);
    buf_release(&doc);
    if (!response)
        return MHD_NO;
    (void)MHD_add_response_header(
        response, "Content-Type", "application/problem+json");
    (void)MHD_add_response_header(response, "Retry-After", "1");
    (void)MHD_add_response_header(response, "X-Request-Id", req->id);
    req->status_sent = 503;
    req->queued = true;
    enum MHD_Result ret = MHD_queue_response(req->connection, 503, response);
    MHD_destroy_response(response);
    return ret;
}

static enum MHD_Result
request_complete(struct request *req)
{
    struct http *http = req->daemon->http;
    const struct config *config = &req->daemon->config;

    pthread_mutex_lock(&req->lock);
    bool done = req->done;
    bool overdue = req->overdue;
    pthread_mutex_unlock(&req->lock);
    if (overdue)
        return reply_overdue(req);
    if (done)
        return reply_send(req);
    if (req->intake) {
        conn_phase_set(req->conn, CONN_WORK, config->work_deadline_ms, req);
        intake_end(req);
        return MHD_YES;
    }
    if (req->route->pool == POOL_QUICK) {
        req->route->fn(req);
        req->done = true;
        return reply_send(req);
    }
    if (queue_length(queue_of(req)) >= (size_t)config->queue_max) {
        atomic_fetch_add(&http->n_refused, 1);
        (void)refuse(req, 503, "too many requests wait for a worker");
        return reply_send(req);
    }
    conn_phase_set(req->conn, CONN_WORK, config->work_deadline_ms, req);
    pthread_mutex_lock(&req->lock);
    request_suspend_locked(req);
    pthread_mutex_unlock(&req->lock);
    http_hand_over(req);
    return MHD_YES;
}

static enum MHD_Result
handle(void *cls, struct MHD_Connection *connection, const char *url,
    const char *method, const char *version, const char *upload,
    size_t *upload_size, void **context)
{
    (void)cls;
    (void)connection;
    (void)url;
    (void)version;
    struct request *req = *context;
    if (!req)
        return MHD_NO; /* no memory for it */
    if (!req->begun)
        return request_begin(req, method);
    if (*upload_size > 0)
        return request_body(req, upload, upload_size);
    if (req->queued)
        return MHD_YES;
    return request_complete(req);
}

/* ---- workers ------------------------------------------------------------- */

void
request_answer(struct request *req)
{
    if (!(req->route->flags & ROUTE_IDEMPOTENT) ||
        req->headers.idempotency_key[0] == '\0')
        req->route->fn(req);
    else
        idempotency_run(req);
    if (req->reply.status == 0) {
        struct fault fault = {.err = ERR_INTERNAL};
        problem_reply(req, &fault);
    }
    if (buf_status(&req->reply.body) != OK) {
        struct fault fault = {.err = buf_status(&req->reply.body)};
        problem_reply(req, &fault);
    }
}

static void
work(struct request *req)
{
    if (req->outflow) {
        outflow_work(req);
        return;
    }
    if (req->intake) {
        intake_work(req);
        return;
    }
    request_answer(req);
    request_finish(req);
}

static void *
worker_main(void *arg)
{
    struct queue *queue = arg;
    struct request *req;
    while ((req = queue_pop(queue)) != NULL) {
        struct http *http = req->daemon->http;
        work(req);
        request_unref(req);
        atomic_fetch_sub(&http->n_working, 1);
    }
    return NULL;
}

/* ---- start and stop ------------------------------------------------------ */

struct address {
    struct sockaddr_storage storage;
    socklen_t len;
};

static bool
is_loopback(const struct address *address)
{
    if (address->storage.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &address->storage, sizeof(in));
        return (ntohl(in.sin_addr.s_addr) >> 24) == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &address->storage, sizeof(in6));
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

static enum err
parse_listen(const char *listen_at, struct address *out, struct fault *fault)
{
    char host[256];
    const char *colon = strrchr(listen_at, ':');
    size_t len = colon ? (size_t)(colon - listen_at) : 0;
    const char *start = listen_at;
    if (len >= 2 && start[0] == '[' && start[len - 1] == ']') {
        start++;
        len -= 2;
    }
    if (!colon || len == 0 || len >= sizeof(host))
        return fault_set(fault, ERR_INVALID, "",
            "listen: \"%.100s\" is not ADDRESS:PORT", listen_at);
    memcpy(host, start, len);
    host[len] = '\0';
    char *end = NULL;
    long port = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end != '\0' || port < 0 || port > 65535)
        return fault_set(fault, ERR_INVALID, "",
            "listen: \"%.100s\" has no port within 0..65535", listen_at);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    hints.ai_flags = AI_NUMERICHOST;
    struct addrinfo *found = NULL;
    if (strcmp(host, "localhost") == 0)
        (void)snprintf(host, sizeof(host), "127.0.0.1");
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0 || !found)
        return fault_set(fault, ERR_INVALID, "",
            "listen: \"%.100s\" is not a numeric address", host);
    memset(out, 0, sizeof(*out));
    memcpy(&out->storage, found->ai_addr, found->ai_addrlen);
    out->len = found->ai_addrlen;
    freeaddrinfo(found);
    return OK;
}

static enum err
read_listen(
    const struct daemon *daemon, struct address *out, struct fault *fault)
{
    enum err err = parse_listen(daemon->config.listen, out, fault);
    if (err == OK && !auth_enabled(daemon->auth) && !is_loopback(out))
        err = fault_set(fault, ERR_INVALID, "",
            "listen: %.100s is reachable by others; without keys only a "
            "loopback address is accepted (set key_*_file)",
            daemon->config.listen);
    return err;
}

enum err
http_check_listen(const struct daemon *daemon, struct fault *fault)
{
    struct address address;
    return read_listen(daemon, &address, fault);
}

static enum err
open_socket(
    const struct daemon *daemon, int *out, unsigned *port, struct fault *fault)
{
    struct address address;
    const char *listen_at = daemon->config.listen;
    enum err err = read_listen(daemon, &address, fault);
    if (err != OK)
        return err;
    int fd = socket(address.storage.ss_family,
        SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fault_set(fault, ERR_IO, "", "no socket: %s", strerror(errno));
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof(bound);
    if (bind(fd, (const struct sockaddr *)(const void *)&address.storage,
            address.len) != 0 ||
        listen(fd, LISTEN_BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)(void *)&bound, &bound_len) != 0) {
        int why = errno;
        (void)close(fd);
        if (why == EADDRINUSE)
            return fault_set(fault, ERR_BUSY, "",
                "%.100s: the port is in use by another program", listen_at);
        return fault_set(
            fault, ERR_IO, "", "%.100s: %s", listen_at, strerror(why));
    }
    if (bound.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &bound, sizeof(in));
        *port = ntohs(in.sin_port);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, &bound, sizeof(in6));
        *port = ntohs(in6.sin6_port);
    }
    *out = fd;
    return OK;
}

/* Nothing is decoded by the library; uri.h does it. */
static size_t
keep_escapes(void *cls, struct MHD_Connection *connection, char *s)
{
    (void)cls;
    (void)connection;
    return strlen(s);
}

static void library_log(void *cls, const char *fmt, va_list ap)
    PRINTF_LIKE(2, 0);

static void
library_log(void *cls, const char *fmt, va_list ap)
{
    (void)cls;
    static struct log_limit limit;
    char text[256];
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    log_limited(&limit, LOG_DEBUG, "http", "library says=\"%s\"", text);
}

/* MHD_quiesce_daemon would close the door instead, but it and the loops race
   to take the listening socket out of their epoll sets, and the library aborts
   the process when it loses (0.9.75 and later). */
static enum MHD_Result
admit(void *cls, const struct sockaddr *address, socklen_t len)
{
    struct http *http = cls;
    (void)address;
    (void)len;
    return atomic_load(&http->daemon->draining) ? MHD_NO : MHD_YES;
}

static enum err
start_threads(struct http *http, struct fault *fault)
{
    const struct config *config = &http->daemon->config;
    size_t n_read = (size_t)config->read_workers;
    size_t n = n_read + (size_t)config->write_workers;
    http->workers = mem_calloc(n, sizeof(*http->workers));
    if (!http->workers)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    for (size_t i = 0; i < n; i++) {
        if (pthread_create(&http->workers[i], NULL, worker_main,
                i < n_read ? http->read_queue : http->write_queue) != 0)
            return fault_set(fault, ERR_NOMEM, "", "no thread for a worker");
        http->n_workers++;
    }
    if (pthread_create(&http->sweeper, NULL, conn_sweep, http) != 0)
        return fault_set(fault, ERR_NOMEM, "", "no thread for the sweeper");
    http->sweeper_runs = true;
    return OK;
}

static void
join_threads(struct http *http)
{
    if (http->read_queue)
        queue_close(http->read_queue);
    if (http->write_queue)
        queue_close(http->write_queue);
    for (size_t i = 0; i < http->n_workers; i++)
        (void)pthread_join(http->workers[i], NULL);
    http->n_workers = 0;
    if (http->sweeper_runs) {
        pthread_mutex_lock(&http->conns_lock);
        http->stopping = true;
        pthread_cond_signal(&http->sweep);
        pthread_mutex_unlock(&http->conns_lock);
        (void)pthread_join(http->sweeper, NULL);
        http->sweeper_runs = false;
    }
}

enum err
http_start(struct daemon *daemon, struct fault *fault)
{
    const struct config *config = &daemon->config;
    struct http *http = mem_calloc(1, sizeof(*http));
    if (!http)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    http->daemon = daemon;
    pthread_mutex_init(&http->conns_lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&http->sweep, &attr);
    (void)pthread_condattr_destroy(&attr);
    daemon->http = http; /* before any thread that reads it */

    int fd = -1;
    /* Room for what the limit admits and for one entry of every connection
       beside it (streams), so that a push of an admitted one cannot fail. */
    size_t entries =
        (size_t)(config->queue_max + 2 * config->connections_max + 64);
    enum err err = queue_new(&http->read_queue, entries);
    if (err == OK)
        err = queue_new(&http->write_queue, entries);
    if (err == OK)
        err = open_socket(daemon, &fd, &http->port, fault);
    if (err == OK)
        err = start_threads(http, fault);
    if (err == OK) {
        unsigned loops = (unsigned)config->http_threads;
        struct MHD_OptionItem pool[] = {
            {MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)loops, NULL},
            {MHD_OPTION_END, 0, NULL}};
        if (loops == 1) /* a pool of one is refused */
            pool[0].option = MHD_OPTION_END;
        http->mhd =
            MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD |
                                 MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG,
                0, admit, http, handle, http, MHD_OPTION_EXTERNAL_LOGGER,
                library_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
                MHD_OPTION_CONNECTION_LIMIT, (unsigned)config->connections_max,
                MHD_OPTION_PER_IP_CONNECTION_LIMIT,
                (unsigned)config->connections_per_address,
                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
                MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK,
                keep_escapes, NULL, MHD_OPTION_URI_LOG_CALLBACK, request_new,
                http, MHD_OPTION_NOTIFY_COMPLETED, request_completed, http,
                MHD_OPTION_NOTIFY_CONNECTION, conn_opened, http,
                MHD_OPTION_ARRAY, pool, MHD_OPTION_END);
        if (!http->mhd)
            err = fault_set(
                fault, ERR_INTERNAL, "", "the HTTP library did not start");
    }
    if (err != OK) {
        if (fd >= 0)
            (void)close(fd);
        join_threads(http);
        http_free(http);
        daemon->http = NULL;
        return err;
    }
    return OK;
}

unsigned
http_port(const struct http *http)
{
    return http->port;
}

bool
http_stop(struct http *http)
{
    int64_t until_ms = clock_mono_ms() + http->daemon->config.drain_ms;
    while (clock_mono_ms() < until_ms && (atomic_load(&http->n_requests) > 0 ||
                                             atomic_load(&http->n_conns) > 0))
        clock_sleep_ms(5);
    if (atomic_load(&http->n_requests) > 0) {
        /* Answer for those that overrun, cut the rest off. */
        pthread_mutex_lock(&http->conns_lock);
        for (struct conn *conn = http->conns; conn; conn = conn->next) {
            if (conn->phase == CONN_WORK && conn->req)
                conn_overrun(conn->req);
            else
                (void)shutdown(conn->fd, SHUT_RDWR);
        }
        pthread_mutex_unlock(&http->conns_lock);
        int64_t more_ms = clock_mono_ms() + 500;
        while (clock_mono_ms() < more_ms && atomic_load(&http->n_requests) > 0)
            clock_sleep_ms(5);
    }
    if (atomic_load(&http->n_working) > 0 || atomic_load(&http->n_requests) > 0)
        return false;
    MHD_stop_daemon(http->mhd);
    http->mhd = NULL;
    join_threads(http);
    return true;
}

void
http_free(struct http *http)
{
    if (!http)
        return;
    queue_free(http->read_queue);
    queue_free(http->write_queue);
    mem_free(http->workers);
    pthread_cond_destroy(&http->sweep);
    pthread_mutex_destroy(&http->conns_lock);
    mem_free(http);
}

void
http_numbers(struct http *http, struct http_numbers *out)
{
    out->connections = atomic_load(&http->n_conns);
    out->requests = atomic_load(&http->n_requests);
    out->queue_read = queue_length(http->read_queue);
    out->queue_write = queue_length(http->write_queue);
    out->body_bytes = atomic_load(&http->body_bytes);
    out->deadlines = atomic_load(&http->n_deadlines);
    out->refused = atomic_load(&http->n_refused);
}
