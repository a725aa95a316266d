#include "server/intake.h"

#include <string.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "server/intake_private.h"
#include "server/media.h"

/* ---- the worker's side --------------------------------------------------- */

/* The body is over, or must not go on: the reply. */
static void
finish(struct intake *intake, enum err err, struct fault *fault)
{
    struct request *req = intake->req;
    if (err != OK && fault->err == OK)
        (void)fault_set(fault, err, "", "%s", err_text(err));
    intake->kind->finish(intake, err, fault);
    pthread_mutex_lock(&req->lock);
    intake->finished = true;
    /* Early end: the loop throws the rest of the body away. */
    req->done = true;
    request_resume_locked(req);
    pthread_mutex_unlock(&req->lock);
}

/* Take what the loop has filled; true: the body is complete. */
static bool
swap(struct intake *intake)
{
    struct request *req = intake->req;
    pthread_mutex_lock(&req->lock);
    struct buf full = intake->fill;
    intake->fill = intake->work;
    intake->work = full;
    intake->yield = false;
    bool last = intake->body_ended;
    if (!last) /* there is room again */
        request_resume_locked(req);
    pthread_mutex_unlock(&req->lock);
    return last;
}

void
intake_work(struct request *req)
{
    struct intake *intake = req->intake;
    for (;;) {
        pthread_mutex_lock(&req->lock);
        bool aborted = intake->aborted;
        bool have = intake->fill.len > 0 || intake->body_ended;
        bool yield = intake->yield;
        if (!aborted && !intake->finished && !have && !yield) {
            intake->busy = false;
            pthread_mutex_unlock(&req->lock);
            return;
        }
        if (!have) /* asked to leave while idle */
            intake->yield = false;
        pthread_mutex_unlock(&req->lock);
        if (aborted || intake->finished) {
            /* What is committed stays; the rest was not acknowledged. It
               stays busy: there is nothing left to do. */
            intake->kind->drop(intake);
            return;
        }

        struct fault fault = {0};
        enum err err;
        bool last = false;
        if (!have) {
            err = intake->kind->leave(intake, &fault);
        } else {
            if (!intake->kind->enter(intake))
                return; /* still busy: who leaves hands us over again */
            last = swap(intake);
            err = intake->kind->take(intake, last, &fault);
        }
        if (err != OK || last) {
            finish(intake, err, &fault);
            return;
        }
    }
}

/* ---- the loop's side ----------------------------------------------------- */

enum err
intake_new(struct request *req)
{
    enum err err = req->route->body == BODY_TAR
                       ? intake_file_new(&req->intake, req)
                       : intake_lines_new(&req->intake, req);
    if (err != OK)
        return err;
    req->intake->req = req;
    buf_init(&req->intake->fill, INTAKE_FILL_BYTES + 1);
    buf_init(&req->intake->work, INTAKE_FILL_BYTES + 1);
    return OK;
}

void
intake_free(struct intake *intake)
{
    if (!intake)
        return;
    intake->kind->release(intake);
    buf_release(&intake->fill);
    buf_release(&intake->work);
    mem_free(intake);
}

bool
intake_is_over(struct request *req)
{
    pthread_mutex_lock(&req->lock);
    bool over = req->intake->finished;
    pthread_mutex_unlock(&req->lock);
    return over;
}

size_t
intake_bytes(struct request *req, const char *bytes, size_t n)
{
    struct intake *intake = req->intake;
    bool start = false;
    size_t taken = n;
    pthread_mutex_lock(&req->lock);
    if (!intake->finished) {
        taken = MIN(n, INTAKE_FILL_BYTES - intake->fill.len);
        buf_add(&intake->fill, bytes, taken);
        if (buf_status(&intake->fill) != OK) {
            /* Out of memory: try again when the worker has taken some. */
            intake->fill.err = OK;
            taken = 0;
        }
        if (taken < n)
            request_suspend_locked(req);
        if (!intake->busy && intake->fill.len > 0) {
            intake->busy = true;
            start = true;
        }
    }
    pthread_mutex_unlock(&req->lock);
    if (start)
        http_hand_over(req);
    return taken;
}

void
intake_end(struct request *req)
{
    struct intake *intake = req->intake;
    bool start = false;
    pthread_mutex_lock(&req->lock);
    if (!intake->finished) {
        intake->body_ended = true;
        request_suspend_locked(req);
        if (!intake->busy) {
            intake->busy = true;
            start = true;
        }
    }
    pthread_mutex_unlock(&req->lock);
    if (start)
        http_hand_over(req);
}

void
intake_abort(struct request *req)
{
    struct intake *intake = req->intake;
    bool start = false;
    pthread_mutex_lock(&req->lock);
    intake->aborted = true;
    if (!intake->busy && !intake->finished) {
        intake->busy = true;
        start = true;
    }
    pthread_mutex_unlock(&req->lock);
    if (start)
        http_hand_over(req);
}
