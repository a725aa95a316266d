#include "server/outflow.h"

#include <string.h>
#include "server/http_private.h"
#include "base/alloc.h"

#define PIECE_BYTES_MAX (1u << 20)

/* req->lock guards all that is not constant. */
struct outflow {
    struct request *req; /* counted */
    struct buf piece;    /* a worker's while working */
    size_t at;           /* sent so far of piece */
    bool working;
    bool ended;
    bool failed;
};

/* The library wants bytes. */
static ssize_t
outflow_read(void *cls, uint64_t pos, char *out, size_t max)
{
    (void)pos;
    struct outflow *flow = cls;
    struct request *req = flow->req;
    ssize_t n = 0;
    bool ask = false;
    pthread_mutex_lock(&req->lock);
    if (!flow->working && flow->at < flow->piece.len) {
        n = (ssize_t)MIN(flow->piece.len - flow->at, max);
        memcpy(out, flow->piece.data + flow->at, (size_t)n);
        flow->at += (size_t)n;
    } else if (flow->failed) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (flow->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        request_suspend_locked(req);
        ask = !flow->working;
        flow->working = true;
    }
    pthread_mutex_unlock(&req->lock);
    if (ask)
        http_hand_over(req);
    if (n > 0)
        conn_phase_set(
            req->conn, CONN_REPLY, req->daemon->config.keep_alive_ms, req);
    return n;
}

void
outflow_work(struct request *req)
{
    struct outflow *flow = req->outflow;
    bool end = false;
    /* working: nobody else looks at the piece. */
    buf_clear(&flow->piece);
    enum err err = req->reply.next(req->reply.state, &flow->piece, &end);
    if (err == OK)
        err = buf_status(&flow->piece);
    pthread_mutex_lock(&req->lock);
    flow->at = 0;
    flow->working = false;
    flow->ended = end;
    flow->failed = err != OK || (!end && flow->piece.len == 0);
    if (flow->failed)
        flow->at = flow->piece.len;
    request_resume_locked(req);
    pthread_mutex_unlock(&req->lock);
}

static void
outflow_done(void *cls)
{
    struct outflow *flow = cls;
    struct request *req = flow->req;
    buf_release(&flow->piece);
    if (req->outflow == flow)
        req->outflow = NULL;
    mem_free(flow);
    request_unref(req);
}

struct MHD_Response *
outflow_new(struct request *req)
{
    struct outflow *flow = mem_calloc(1, sizeof(*flow));
    if (!flow)
        return NULL;
    buf_init(&flow->piece, PIECE_BYTES_MAX + (64u << 10));
    flow->req = req;
    request_ref(req);
    req->outflow = flow;
    int64_t bytes = req->reply.stream_bytes;
    struct MHD_Response *response = MHD_create_response_from_callback(
        bytes >= 0 ? (uint64_t)bytes : MHD_SIZE_UNKNOWN, 65536, outflow_read,
        flow, outflow_done);
    if (!response)
        outflow_done(flow);
    return response;
}
