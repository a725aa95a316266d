/*
 * http_private.h - what http.c, conn.c and reply.c share of the shell.
 */
#ifndef SERVER_HTTP_PRIVATE_H
#define SERVER_HTTP_PRIVATE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include "base/queue.h"
#include "server/http.h"

/* What a connection is doing, for its deadline. */
enum conn_phase {
    CONN_HEADER, /* waiting for the end of the first header */
    CONN_IDLE,   /* between requests */
    CONN_BODY,
    CONN_WORK,
    CONN_REPLY,
    CONN_LEAVING /* answered; the rest of its body is thrown away */
};

/*
 * One open connection. In the list from accept to close; everything is
 * guarded by the list's lock. While it is in the list its socket is open, so
 * the sweeper may shut it down.
 */
struct conn {
    struct conn *next;
    struct conn *prev;
    int fd;
    enum conn_phase phase;
    int64_t deadline_ms; /* monotonic */
    uint64_t body_bytes; /* since the deadline was set */
    bool cut;            /* shut down already */
    struct request *req; /* borrowed: cleared before the request goes */
    struct http *http;
};

struct http {
    struct daemon *daemon;
    struct MHD_Daemon *mhd;
    unsigned port;
    struct queue *read_queue;
    struct queue *write_queue;
    pthread_t *workers;
    size_t n_workers;
    pthread_t sweeper;
    bool sweeper_runs;

    pthread_mutex_t conns_lock;
    struct conn *conns;   /* conns_lock */
    pthread_cond_t sweep; /* conns_lock: wake the sweeper */
    bool stopping;        /* conns_lock */

    _Atomic size_t n_conns;
    _Atomic size_t n_requests;
    _Atomic size_t n_working; /* handlers running or queued */
    _Atomic size_t body_bytes;
    _Atomic uint64_t n_deadlines;
    _Atomic uint64_t n_refused;
};

/* conn.c */
void conn_opened(void *cls, struct MHD_Connection *connection, void **context,
    enum MHD_ConnectionNotificationCode code);
void conn_phase_set(struct conn *conn, enum conn_phase phase, int64_t for_ms,
    struct request *req);
/* Write a problem document to the socket, past the library: the only way to
   answer while the library still reads a body. Then nothing more is written,
   and reading goes on for a moment: a client that is cut off while it sends
   sees a broken pipe and not the answer. */
void conn_leave(
    struct conn *conn, int status, const char *detail, const char *request_id);
/* A worker takes too long: let the loop answer for it. The caller holds
   conns_lock. */
void conn_overrun(struct request *req);
void *conn_sweep(void *http);

/* reply.c */
void reply_init(struct reply *reply);
void reply_release(struct reply *reply);
/* Hand req->reply to the library. */
enum MHD_Result reply_send(struct request *req);

#endif
