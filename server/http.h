/*
 * http.h - the HTTP shell: connections, bodies, workers, deadlines, replies.
 *
 * A request goes through these hands. An event loop (libmicrohttpd) reads the
 * header and finds the route, the key and the limits; it reads the body into
 * memory, suspends the connection and queues the request. A worker thread
 * runs the route's handler, which fills request.reply, and resumes the
 * connection; the loop sends the reply. A loop never runs a handler that may
 * block: only routes marked POOL_QUICK are answered there.
 *
 * Rules that keep this right:
 * - a connection is suspended, under the request's lock, before anyone is told
 *   of it; whoever resumes it does so under that lock, and only if the flag
 *   says that it is suspended;
 * - the first call of the library's handler never queues a reply unless the
 *   connection shall be closed after it (it would be);
 * - bytes that find no room are left unread and the connection suspended;
 * - while suspended the library sees neither time-outs nor disconnects: the
 *   sweeper thread applies our own absolute deadlines to every connection.
 *
 * A request is counted: the connection holds it until the library has
 * completed it, a worker holds it while it is queued or at work, a streaming
 * reply holds it until it is sent. A worker that overruns its deadline loses
 * the race for the reply, not the memory it works with.
 */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "server/daemon.h"
#include "server/route.h"
#include "server/uri.h"

struct MHD_Connection;
struct conn;
struct intake;
struct outflow;
struct request;

#define REQUEST_ID_MAX 64
#define REPLY_HEADERS_MAX 8

/* A long answer made in pieces: on a worker, one call at a time, append the
   next piece (at most 1 MiB) and set *end with the last. An error cuts the
   answer off, so that the client sees that it is not whole. */
typedef enum err reply_next_fn(void *state, struct buf *chunk, bool *end);
typedef void reply_done_fn(void *state);

/*
 * What a handler leaves. status 0 means that it left nothing (an internal
 * error). The body is one of: buf; a file from its start; a stream.
 */
struct reply {
    int status;
    const char *content_type; /* constant, or in the arena; NULL: none */
    const char *refusal;      /* its sentence, in the arena; NULL: it is none */
    struct buf body;
    int fd; /* >= 0: send this file; the reply owns it */
    uint64_t fd_bytes;
    reply_next_fn *next; /* not NULL: a stream */
    reply_done_fn *done; /* called once at its end, however it ends */
    void *state;
    int64_t stream_bytes; /* -1: unknown */
    int64_t events_job;   /* > 0: an event stream of this job */
    int64_t events_after;
    struct {
        const char *name;  /* constant */
        const char *value; /* constant or in the arena */
    } headers[REPLY_HEADERS_MAX];
    size_t n_headers;
};

/* Headers that handlers read; "" when absent. In the arena. */
struct request_headers {
    const char *content_type;
    const char *if_match;
    const char *if_none_match;
    const char *idempotency_key;
    const char *last_event_id;
};

struct request {
    struct daemon *daemon;
    const struct route *route; /* NULL when none matched */
    struct arena arena;        /* the loop's until the hand-over, then the
                                  worker's */
    struct uri_param params[URI_PARAMS_MAX]; /* decoded path segments */
    size_t n_params;
    struct uri_param query[URI_QUERY_MAX];
    size_t n_query;
    struct request_headers headers;
    struct buf body;
    struct reply reply;
    enum scope scope; /* what the caller's key allows */
    char id[REQUEST_ID_MAX + 1];
    const char *path;      /* undecoded, without the query; in the arena */
    struct intake *intake; /* a body that is taken in as a stream */

    /* The shell's. */
    pthread_mutex_t lock; /* suspended, done, overdue; an intake's buffers */
    bool suspended;
    bool done;    /* the reply is complete */
    bool overdue; /* the sweeper has answered; the worker's reply is dropped */
    bool begun;   /* loop only, as the rest */
    bool queued;  /* a response was handed to the library */
    bool discard; /* body bytes are thrown away */
    bool close_after;
    uint64_t discarded;
    size_t reserved_bytes; /* of the memory for bodies */
    int64_t start_ns;
    struct conn *conn;
    struct MHD_Connection *connection;
    const char *method;
    int status_sent;
    atomic_int refs;
    struct outflow *outflow;
};

/* Whether the address is one that we may listen on: ERR_INVALID when it is
   none, or not loopback and there are no keys. */
enum err http_check_listen(
    const struct daemon *daemon, struct fault *fault) NODISCARD;

/* Open the socket, start loops, workers and the sweeper; sets daemon->http.
   Errors have a fault; ERR_BUSY: the address is in use. */
enum err http_start(struct daemon *daemon, struct fault *fault) NODISCARD;

unsigned http_port(const struct http *http);

/*
 * http_stop - take no new connection, answer what runs, end streams, stop.
 *
 * True when all was answered within drain_ms. False: some handler still runs
 * in the engine; the threads are left as they are and the caller must leave
 * the process without closing the engine.
 */
bool http_stop(struct http *http);
void http_free(struct http *http);

struct http_numbers {
    uint64_t connections;
    uint64_t requests; /* now */
    uint64_t queue_read;
    uint64_t queue_write;
    uint64_t body_bytes;
    uint64_t deadlines; /* connections cut off, ever */
    uint64_t refused;   /* requests refused for load, ever */
};
void http_numbers(struct http *http, struct http_numbers *out);

/* ---- for the parts of the shell ------------------------------------------ */

void request_ref(struct request *req);
void request_unref(struct request *req);

/* Queue a request for a worker; it must be suspended, or an intake that is
   marked busy. Takes a reference. Never fails: the queue has room for every
   connection (the limit for new work is tested before). */
void http_hand_over(struct request *req);

/* Run the route's handler; it leaves a reply in any case. Worker only. */
void request_answer(struct request *req);

/* The reply is complete: let the loop send it. Any thread but a loop. */
void request_finish(struct request *req);

/* Resume if suspended. The caller holds req->lock. */
void request_resume_locked(struct request *req);
/* Suspend; loop only, inside a callback of the connection, lock held. */
void request_suspend_locked(struct request *req);

/* Take n more bytes of the memory for bodies; false when it is used up. Given
   back when the request ends, or by http_unreserve. */
bool http_reserve(struct request *req, size_t n);
void http_unreserve(struct request *req, size_t n);

/* A body made progress: its deadline starts anew. */
void request_progress(struct request *req, size_t n_bytes);

/* ---- for handlers -------------------------------------------------------- */

/* The value of a path segment or a query argument; NULL when absent. */
const char *request_param(const struct request *req, const char *name);
const char *request_query(const struct request *req, const char *name);

/* Start a reply with a body of JSON; the handler appends to the returned
   buffer. */
struct buf *reply_json(struct request *req, int status);
void reply_header(struct request *req, const char *name, const char *value);
/* The same with a printed value, in the arena. */
void reply_header_f(struct request *req, const char *name, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
void reply_text(struct request *req, int status, const char *text);
/* A stream of the engine or another; next and done as above. */
void reply_stream(struct request *req, const char *content_type,
    reply_next_fn *next, reply_done_fn *done, void *state, int64_t bytes);
/* Throw away what the handler has made so far. */
void reply_reset(struct request *req);

#endif
