/* NDJSON in, outcomes out, and the gate before it. */
#include <string.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "base/log.h"
#include "engine/engine.h"
#include "server/codec.h"
#include "server/intake_private.h"
#include "server/media.h"
#include "server/ndjson.h"
#include "server/problem.h"
#include "server/spool.h"

#define LINE_MAP 8192 /* more lines than a bulk holds unreported */
/* An unfinished line beyond this counts as memory for bodies. */
#define LINE_FREE_BYTES 65536

struct lines_intake {
    struct intake base;

    /* the worker's while busy */
    struct ndjson lines;
    struct engine_bulk *bulk; /* open: we are inside the gate */
    struct spool spool;
    struct arena line_arena;
    int64_t *line_of; /* [LINE_MAP] line in the body of a line of the bulk */
    uint64_t n_given; /* to the present bulk */
    uint64_t n_lines; /* reported */
    uint64_t n_refused;
    bool errors_only;
    bool no_room; /* why the present line is skipped, rather than its length */

    /* gate->lock */
    struct lines_intake *next; /* in one of the gate's two lists */
    struct lines_intake *prev;
    bool inside;
};

/* base is the first member. */
static struct lines_intake *
lines_of(struct intake *intake)
{
    return (struct lines_intake *)(void *)intake;
}

/* Who is inside, and who waits in the order of coming. */
struct gate {
    pthread_mutex_t lock;
    size_t places;
    size_t n_inside;
    struct lines_intake *inside;
    struct lines_intake *waiting_first;
    struct lines_intake *waiting_last;
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
inside_add(struct gate *gate, struct lines_intake *intake)
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
inside_remove(struct gate *gate, struct lines_intake *intake)
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
    for (struct lines_intake *it = gate->inside; it; it = it->next) {
        struct request *req = it->base.req;
        bool asked = false;
        pthread_mutex_lock(&req->lock);
        if (!it->base.busy && !it->base.yield) {
            it->base.busy = true;
            it->base.yield = true;
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
gate_enter(struct lines_intake *intake)
{
    struct gate *gate = intake->base.req->daemon->gate;
    bool entered = false;
    pthread_mutex_lock(&gate->lock);
    if (intake->inside) {
        entered = true; /* let in by who left */
    } else if (gate->n_inside < gate->places) {
        inside_add(gate, intake);
        entered = true;
    } else {
        request_ref(intake->base.req);
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
gate_leave(struct lines_intake *intake)
{
    struct gate *gate = intake->base.req->daemon->gate;
    struct lines_intake *next = NULL;
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
        http_hand_over(next->base.req);
        request_unref(next->base.req);
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
body_line(const struct lines_intake *intake, uint64_t bulk_line)
{
    return intake->line_of[bulk_line % LINE_MAP];
}

static void
take_outcome(void *arg, const struct engine_outcome *outcome)
{
    struct lines_intake *intake = arg;
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
open_bulk(struct lines_intake *intake, struct fault *fault)
{
    static const enum engine_bulk_kind kinds[] = {
        [LINES_ITEMS] = ENGINE_BULK_ITEMS,
        [LINES_PAIRS] = ENGINE_BULK_PAIRS,
        [LINES_IMPORT] = ENGINE_BULK_IMPORT};
    struct request *req = intake->base.req;
    intake->n_given = 0;
    return engine_bulk_new(&intake->bulk, req->daemon->engine,
        request_param(req, "collection"), kinds[req->route->lines],
        take_outcome, intake, fault);
}

/* Fails only when the whole stream must end. */
static enum err
give_line(struct lines_intake *intake, const struct ndjson_line *line,
    struct fault *fault)
{
    struct request *req = intake->base.req;
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
close_bulk(struct lines_intake *intake, bool commit, struct fault *fault)
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
make_reply(struct lines_intake *intake, enum err err, struct fault *fault)
{
    struct request *req = intake->base.req;
    if (err != OK && intake->n_lines == 0) {
        problem_reply(req, fault);
        return;
    }
    /* Lines that are committed and reported stay so; why the rest is missing
       stands in the last line. */
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
account_line(struct lines_intake *intake)
{
    struct request *req = intake->base.req;
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

/* ---- the hands of intake_private.h ----------------------------------------
 */

static bool
lines_enter(struct intake *intake)
{
    return gate_enter(lines_of(intake));
}

static enum err
lines_leave(struct intake *base, struct fault *fault)
{
    struct lines_intake *intake = lines_of(base);
    return intake->inside ? close_bulk(intake, true, fault) : OK;
}

static enum err
lines_take(struct intake *base, bool last, struct fault *fault)
{
    struct lines_intake *intake = lines_of(base);
    struct ndjson_line line;
    enum err err = OK;
    if (base->work.len > 0)
        err = ndjson_feed(&intake->lines, base->work.data, base->work.len);
    buf_clear(&base->work);
    if (last)
        ndjson_end(&intake->lines);
    if (err == OK && !intake->bulk)
        err = open_bulk(intake, fault);
    while (err == OK && ndjson_next(&intake->lines, &line))
        err = give_line(intake, &line, fault);
    /* One that waits for more holds no line's pictures. */
    arena_release(&intake->line_arena);
    if (err == OK && !last)
        account_line(intake);
    return err;
}

static void
lines_finish(struct intake *base, enum err err, struct fault *fault)
{
    struct lines_intake *intake = lines_of(base);
    struct fault end_fault = {0};
    enum err end_err = OK;
    if (intake->inside)
        end_err = close_bulk(intake, err == OK, &end_fault);
    make_reply(
        intake, err != OK ? err : end_err, err != OK ? fault : &end_fault);
}

static void
lines_drop(struct intake *base)
{
    struct lines_intake *intake = lines_of(base);
    if (intake->inside)
        (void)close_bulk(intake, false, NULL);
}

static void
lines_release(struct intake *base)
{
    struct lines_intake *intake = lines_of(base);
    ASSERT(!intake->inside);
    ndjson_release(&intake->lines);
    spool_release(&intake->spool);
    arena_release(&intake->line_arena);
    mem_free(intake->line_of);
}

static const struct intake_kind lines_kind = {lines_enter, lines_leave,
    lines_take, lines_finish, lines_drop, lines_release};

enum err
intake_lines_new(struct intake **out, const struct request *req)
{
    const struct config *config = &req->daemon->config;
    const char *outcomes = request_query(req, "outcomes");
    if (outcomes && strcmp(outcomes, "errors") != 0 &&
        strcmp(outcomes, "all") != 0)
        return ERR_INVALID;
    struct lines_intake *intake = mem_calloc(1, sizeof(*intake));
    if (!intake)
        return ERR_NOMEM;
    intake->line_of = mem_calloc(LINE_MAP, sizeof(*intake->line_of));
    if (!intake->line_of) {
        mem_free(intake);
        return ERR_NOMEM;
    }
    ndjson_init(&intake->lines, media_line_max(req->route, config));
    spool_init(
        &intake->spool, config->data, (size_t)config->spool_memory_bytes);
    arena_init(&intake->line_arena, (size_t)config->line_bytes_max * 8);
    intake->errors_only = outcomes && strcmp(outcomes, "errors") == 0;
    intake->base.kind = &lines_kind;
    *out = &intake->base;
    return OK;
}
