/* Search, one query or many. */
#include "server/ep.h"
#include "engine/engine.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/problem.h"

void
ep_search(struct request *req)
{
    struct fault fault = {0};
    struct engine_query query;
    struct engine_answer answer;
    enum err err = codec_read_query(
        req->body.data, req->body.len, &req->arena, &query, &fault);
    if (err == OK)
        err =
            engine_search(req->daemon->engine, request_param(req, "collection"),
                &query, &req->arena, &answer, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_answer(reply_json(req, 200), &answer, &query);
}

/* Those that could be read, run together; the others keep their fault. */
struct batch {
    struct engine_query *queries;
    struct fault *faults;
    size_t n;
    struct engine_answer *answers;
};

static enum err
run_batch(struct request *req, struct batch *batch, struct fault *fault)
{
    struct arena *arena = &req->arena;
    struct engine_query *good = arena_calloc(arena, batch->n, sizeof(*good));
    size_t *place = arena_calloc(arena, batch->n, sizeof(*place));
    struct engine_answer *answers =
        arena_calloc(arena, batch->n, sizeof(*answers));
    struct fault *faults = arena_calloc(arena, batch->n, sizeof(*faults));
    batch->answers = arena_calloc(arena, batch->n, sizeof(*batch->answers));
    if (!good || !place || !answers || !faults || !batch->answers)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    size_t n_good = 0;
    for (size_t i = 0; i < batch->n; i++)
        if (batch->faults[i].err == OK) {
            good[n_good] = batch->queries[i];
            place[n_good++] = i;
        }
    if (n_good == 0) { /* then at least say whether the collection is there */
        struct engine_collection_info info;
        return engine_collection_get(req->daemon->engine,
            request_param(req, "collection"), arena, &info, fault);
    }
    /* More than the engine takes at once is split here. */
    for (size_t at = 0; at < n_good;) {
        size_t n = MIN(n_good - at, (size_t)ENGINE_BATCH_QUERIES_MAX);
        enum err err = engine_search_batch(req->daemon->engine,
            request_param(req, "collection"), good + at, n, arena, answers + at,
            faults + at, fault);
        if (err != OK)
            return err;
        at += n;
    }
    for (size_t i = 0; i < n_good; i++) {
        batch->answers[place[i]] = answers[i];
        batch->faults[place[i]] = faults[i];
    }
    return OK;
}

void
ep_search_batch(struct request *req)
{
    struct fault fault = {0};
    struct batch batch = {0};
    enum err err = codec_read_queries(req->body.data, req->body.len,
        &req->arena, &batch.queries, &batch.faults, &batch.n, &fault);
    if (err == OK)
        err = run_batch(req, &batch, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"results\":[");
    for (size_t i = 0; i < batch.n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        if (batch.faults[i].err != OK)
            problem_write(out, 0, &batch.faults[i], NULL);
        else
            codec_write_answer(out, &batch.answers[i], &batch.queries[i]);
    }
    buf_add_str(out, "]}");
}
