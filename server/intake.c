#include "server/intake.h"

#include <string.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "base/log.h"
#include "engine/engine.h"
#include "server/codec.h"
#include "server/media.h"
#include "server/ndjson.h"
#include "server/problem.h"
#include "server/spool.h"

#define FILL_BYTES 65536 /* read ahead of the worker */
#define LINE_MAP 8192    /* more lines than a bulk holds unreported */
/* An unfinished line beyond this counts as memory for bodies. */
#define LINE_FREE_BYTES 65536

struct intake {
    struct request *req; /* borrowed: the intake is part of it */

    /* req->lock */
    struct buf fill; /* written by the loop, swapped out by the worker */
    bool busy;       /* a worker has it, or it is queued or waits */
    bool body_ended;
    bool aborted; /* the connection is gone: drop everything */
    bool yield;   /* give the gate up when idle */

    /* the worker's while busy */
    struct buf work;
    struct ndjson lines;
    struct engine_bulk *bulk; /* open: we are inside the gate */
    struct spool spool;
    struct arena line_arena;
    int64_t *line_of; /* [LINE_MAP] line in the body of a line of the bulk */
    uint64_t n_given; /* to the present bulk */
    uint64_t n_lines; /* reported */
    uint64_t n_refused;
    bool errors_only;
    bool no_room;  /* why the present line is skipped, rather than its length */
    bool finished; /* the reply is made */

    /* gate->lock */
    struct intake *next; /* in one of the gate's two lists */
    struct intake *prev;
    bool inside;
};

/* Who is inside, and who waits in the order of coming. */
struct gate {
    pthread_mutex_t lock;
    size_t places;
    size_t n_inside;
    struct intake *inside;
    struct intake *waiting_first;
    struct intake *waiting_last;
};

enum err
gate_new(struct gate **out, size_t places)
{
    struct gate *gate = mem_calloc(1, sizeof(*gate));
    if (!gate)
        return ERR_NOMEM;
    pthread_mutex_init(&gate->lock, NULL);
    gate->places = places;
    *out = gate;
    return OK;
}

void
gate_free(struct gate *gate)
{
    if (!gate)
        return;
    pthread_mutex_destroy(&gate->lock);
    mem_free(gate);
}

/* Lists of the gate; its lock is held. */
static void
inside_add(struct gate *gate, struct intake *intake)
{
    intake->inside = true;
    intake->prev = NULL;
    intake->next = gate->inside;
    if (intake->next)
        intake->next->prev = intake;
    gate->inside = intake;
    gate->n_inside++;
}

static void
inside_remove(struct gate *gate, struct intake *intake)
{
    if (intake->prev)
        intake->prev->next = intake->next;
    else
        gate->inside = intake->next;
    if (intake->next)
        intake->next->prev = intake->prev;
    intake->next = intake->prev = NULL;
    intake->inside = false;
    gate->n_inside--;
}

/* Ask one that is inside and idle to leave. The gate's lock is held. */
static void
ask_to_leave(struct gate *gate)
{
    for (struct intake *it = gate->inside; it; it = it->next) {
        struct request *req = it->req;
        bool asked = false;
        pthread_mutex_lock(&req->lock);
        if (!it->busy && !it->yield) {
            it->busy = true;
            it->yield = true;
            asked = true;
            http_hand_over(req);
        }
        pthread_mutex_unlock(&req->lock);
        if (asked)
            return;
    }
}

/* True: inside. False: queued at the gate; intake_work runs again later. */
static bool
gate_enter(struct intake *intake)
{
    struct gate *gate = intake->req->daemon->gate;
    bool entered = false;
    pthread_mutex_lock(&gate->lock);
    if (intake->inside) {
        entered = true; /* let in by who left */
    } else if (gate->n_inside < gate->places) {
        inside_add(gate, intake);
        entered = true;
    } else {
        request_ref(intake->req);
        if (gate->waiting_last)
            gate->waiting_last->next = intake;
        else
            gate->waiting_first = intake;
        gate->waiting_last = intake;
        ask_to_leave(gate);
    }
    pthread_mutex_unlock(&gate->lock);
    return entered;
}

static void
gate_leave(struct intake *intake)
{
    struct gate *gate = intake->req->daemon->gate;
    struct intake *next = NULL;
    pthread_mutex_lock(&gate->lock);
    inside_remove(gate, intake);
    next = gate->waiting_first;
    if (next) {
        gate->waiting_first = next->next;
        if (!gate->waiting_first)
            gate->waiting_last = NULL;
        next->next = NULL;
        inside_add(gate, next);
    }
    pthread_mutex_unlock(&gate->lock);
    if (next) {
        /* It is busy, so nobody else hands it over. */
        http_hand_over(next->req);
        request_unref(next->req);
    }
}

/* ---- outcomes ------------------------------------------------------------ */

static int
outcome_status(const struct engine_outcome *outcome)
{
    switch (outcome->status) {
    case ENGINE_CREATED:
        return 201;
    case ENGINE_UPDATED:
    case ENGINE_UNCHANGED:
    case ENGINE_SUPERSEDED:
    case ENGINE_DELETED:
        return 200;
    case ENGINE_REFUSED:
        break;
    }
    return problem_fault_status(&outcome->fault);
}

static int64_t
body_line(const struct intake *intake, uint64_t bulk_line)
{
    return intake->line_of[bulk_line % LINE_MAP];
}

static void
take_outcome(void *arg, const struct engine_outcome *outcome)
{
    struct intake *intake = arg;
    bool refused = outcome->status == ENGINE_REFUSED;
    intake->n_lines++;
    if (refused)
        intake->n_refused++;
    if (intake->errors_only && !refused)
        return;
    struct engine_outcome shown = *outcome;
    shown.line = (uint64_t)body_line(intake, outcome->line);
    if (outcome->superseded_by != 0)
        shown.superseded_by =
            (uint64_t)body_line(intake, outcome->superseded_by);
    if (outcome->supersedes != 0)
        shown.supersedes = (uint64_t)body_line(intake, outcome->supersedes);
    struct buf *out = spool_text(&intake->spool);
    codec_write_outcome(out, &shown, outcome_status(outcome), "line");
    buf_add_char(out, '\n');
    spool_commit(&intake->spool);
}

/* ---- lines --------------------------------------------------------------- */

static enum err
open_bulk(struct intake *intake, struct fault *fault)
{
    static const enum engine_bulk_kind kinds[] = {
        [LINES_ITEMS] = ENGINE_BULK_ITEMS,
        [LINES_PAIRS] = ENGINE_BULK_PAIRS,
        [LINES_IMPORT] = ENGINE_BULK_IMPORT};
    struct request *req = intake->req;
    intake->n_given = 0;
    return engine_bulk_new(&intake->bulk, req->daemon->engine,
        request_param(req, "collection"), kinds[req->route->lines],
        take_outcome, intake, fault);
}

/* Fails only when the whole stream must end. */
static enum err
give_line(
    struct intake *intake, const struct ndjson_line *line, struct fault *fault)
{
    struct request *req = intake->req;
    const struct config *config = &req->daemon->config;
    struct fault why = {0};
    enum err err;
    intake->n_given++;
    intake->line_of[intake->n_given % LINE_MAP] = line->line_no;
    if (line->too_long && intake->no_room) {
        intake->no_room = false;
        (void)fault_set(&why, ERR_BUSY, "",
            "the memory for bodies is used up; send the line again");
        return engine_bulk_refused(intake->bulk, NULL, &why, fault);
    }
    if (line->too_long) {
        (void)fault_set(&why, ERR_TOO_LARGE, "",
            "the line is longer than the limit of %zu bytes",
            intake->lines.line_bytes_max);
        return engine_bulk_refused(intake->bulk, NULL, &why, fault);
    }
    if (req->route->lines == LINES_IMPORT)
        return engine_bulk_line(intake->bulk, line->text, line->len, fault);
    arena_release(&intake->line_arena);
    arena_init(&intake->line_arena, (size_t)config->line_bytes_max * 8);
    if (req->route->lines == LINES_ITEMS) {
        struct engine_item item = {0};
        err = codec_read_item(
            line->text, line->len, NULL, &intake->line_arena, &item, &why);
        return err == OK
                   ? engine_bulk_item(intake->bulk, &item, fault)
                   : engine_bulk_refused(intake->bulk, item.id, &why, fault);
    }
    struct engine_pair pair = {0};
    err = codec_read_pair(
        line->text, line->len, &intake->line_arena, &pair, &why);
    return err == OK ? engine_bulk_pair(intake->bulk, &pair, fault)
                     : engine_bulk_refused(intake->bulk, NULL, &why, fault);
}

/* Commit what the bulk holds and give the place to who waits. */
static enum err
close_bulk(struct intake *intake, bool commit, struct fault *fault)
{
    enum err err = OK;
    if (intake->bulk && commit)
        err = engine_bulk_finish(intake->bulk, NULL, NULL, fault);
    engine_bulk_free(intake->bulk);
    intake->bulk = NULL;
    gate_leave(intake);
    return err;
}

/* The stream is over: make the reply. */
static void
make_reply(struct intake *intake, enum err err, struct fault *fault)
{
    struct request *req = intake->req;
    if (err != OK) {
        if (fault->err == OK)
            (void)fault_set(fault, err, "", "%s", err_text(err));
        if (intake->n_lines == 0) {
            problem_reply(req, fault);
            return;
        }
        /* Some lines are committed and reported: keep that, and say in the
           last line why the rest is missing. */
    }
    struct buf *out = spool_text(&intake->spool);
    buf_printf(out, "{\"lines\":%llu,\"refused\":%llu,\"errors\":%s",
        (unsigned long long)intake->n_lines,
        (unsigned long long)intake->n_refused,
        intake->n_refused > 0 || err != OK ? "true" : "false");
    if (err != OK) {
        buf_add_str(out, ",\"problem\":");
        problem_write(out, 0, fault, req->id);
    }
    buf_add_str(out, "}\n");
    uint64_t bytes = 0;
    int fd = -1;
    err = spool_finish(&intake->spool, &fd, &bytes);
    if (err != OK) {
        (void)fault_set(fault, err, "",
            "%llu lines were taken in, but their outcomes could not be kept: "
            "%s",
            (unsigned long long)intake->n_lines, err_text(err));
        problem_reply(req, fault);
        return;
    }
    req->reply.status = 200;
    req->reply.content_type = "application/x-ndjson";
    if (fd >= 0) {
        req->reply.fd = fd;
        req->reply.fd_bytes = bytes;
    } else {
        buf_release(&req->reply.body);
        req->reply.body = intake->spool.memory;
        buf_init(&intake->spool.memory, 0);
    }
}

/*
 * A line that is not complete grows in the splitter. Beyond a small size it
 * must be paid from the memory for bodies; where that is used up the line is
 * given up: for now, or for good when it is more than there ever is.
 */
static void
account_line(struct intake *intake)
{
    struct request *req = intake->req;
    size_t held = intake->lines.pending.len - intake->lines.at;
    size_t due = held > LINE_FREE_BYTES ? held : 0;
    if (due > req->reserved_bytes) {
        if (!http_reserve(req, due - req->reserved_bytes)) {
            ndjson_skip_line(&intake->lines);
            intake->no_room =
                due <= (size_t)req->daemon->config.body_memory_bytes;
        }
    } else if (due < req->reserved_bytes) {
        http_unreserve(req, req->reserved_bytes - due);
    }
    /* A long line is gone: do not keep its memory. */
    if (held == 0 && intake->lines.pending.cap > 4 * LINE_FREE_BYTES)
        ndjson_shrink(&intake->lines);
}

/* Take in what the worker has; true when the stream must end with *err. */
static bool
take_bytes(struct intake *intake, bool last, enum err *err, struct fault *fault)
{
    struct ndjson_line line;
    *err = OK;
    if (intake->work.len > 0)
        *err = ndjson_feed(&intake->lines, intake->work.data, intake->work.len);
    buf_clear(&intake->work);
    if (last)
        ndjson_end(&intake->lines);
    if (*err == OK && !intake->bulk)
        *err = open_bulk(intake, fault);
    while (*err == OK && ndjson_next(&intake->lines, &line))
        *err = give_line(intake, &line, fault);
    /* One that waits for more holds no line's pictures. */
    arena_release(&intake->line_arena);
    if (*err == OK && !last)
        account_line(intake);
    return *err != OK || last;
}

void
intake_work(struct request *req)
{
    struct intake *intake = req->intake;
    for (;;) {
        bool last = false;
        pthread_mutex_lock(&req->lock);
        bool aborted = intake->aborted;
        bool have = intake->fill.len > 0 || intake->body_ended;
        bool yield = intake->yield;
        if (!aborted && !intake->finished && !have && !yield) {
            intake->busy = false;
            pthread_mutex_unlock(&req->lock);
            return;
        }
        pthread_mutex_unlock(&req->lock);
        if (aborted || intake->finished) {
            /* What is committed stays; the rest was not acknowledged. It
               stays busy: there is nothing left to do. */
            if (intake->inside)
                (void)close_bulk(intake, false, NULL);
            return;
        }

        struct fault fault = {0};
        enum err err = OK;
        if (!have) { /* asked to leave while idle */
            pthread_mutex_lock(&req->lock);
            intake->yield = false;
            pthread_mutex_unlock(&req->lock);
            if (intake->inside)
                err = close_bulk(intake, true, &fault);
            if (err == OK)
                continue;
            last = true;
        } else {
            if (!gate_enter(intake))
                return; /* still busy: who leaves hands us over again */
            pthread_mutex_lock(&req->lock);
            struct buf swap = intake->fill;
            intake->fill = intake->work;
            intake->work = swap;
            intake->yield = false;
            last = intake->body_ended;
            if (!last) /* there is room again */
                request_resume_locked(req);
            pthread_mutex_unlock(&req->lock);
            last = take_bytes(intake, last, &err, &fault);
        }
        if (!last)
            continue;
        struct fault end_fault = {0};
        enum err end_err = OK;
        if (intake->inside)
            end_err = close_bulk(intake, err == OK, &end_fault);
        make_reply(
            intake, err != OK ? err : end_err, err != OK ? &fault : &end_fault);
        pthread_mutex_lock(&req->lock);
        intake->finished = true;
        /* Early end: the loop throws the rest of the body away. */
        req->done = true;
        request_resume_locked(req);
        pthread_mutex_unlock(&req->lock);
        return;
    }
}

/* ---- the loop's side ----------------------------------------------------- */

enum err
intake_new(struct request *req)
{
    const struct config *config = &req->daemon->config;
    const char *outcomes = request_query(req, "outcomes");
    if (outcomes && strcmp(outcomes, "errors") != 0 &&
        strcmp(outcomes, "all") != 0)
        return ERR_INVALID;
    struct intake *intake = mem_calloc(1, sizeof(*intake));
    if (!intake)
        return ERR_NOMEM;
    intake->line_of = mem_calloc(LINE_MAP, sizeof(*intake->line_of));
    if (!intake->line_of) {
        mem_free(intake);
        return ERR_NOMEM;
    }
    intake->req = req;
    buf_init(&intake->fill, FILL_BYTES + 1);
    buf_init(&intake->work, FILL_BYTES + 1);
    ndjson_init(&intake->lines, media_line_max(req->route, config));
    spool_init(
        &intake->spool, config->data, (size_t)config->spool_memory_bytes);
    arena_init(&intake->line_arena, (size_t)config->line_bytes_max * 8);
    intake->errors_only = outcomes && strcmp(outcomes, "errors") == 0;
    req->intake = intake;
    return OK;
}

void
intake_free(struct intake *intake)
{
    if (!intake)
        return;
    ASSERT(!intake->inside);
    buf_release(&intake->fill);
    buf_release(&intake->work);
    ndjson_release(&intake->lines);
    spool_release(&intake->spool);
    arena_release(&intake->line_arena);
    mem_free(intake->line_of);
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
        taken = MIN(n, FILL_BYTES - intake->fill.len);
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
