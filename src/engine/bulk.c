/* Bulk: a stream of lines, encoded batch by batch while the one before
   commits, and answered in order. */
#include <string.h>
#include "base/alloc.h"
#include "base/base64.h"
#include "base/check.h"
#include "base/json.h"
#include "engine/ingest.h"
#include "engine/internal.h"
#include "engine/pairs.h"
#include "engine/transfer.h"

struct engine_bulk {
    struct engine *engine;
    struct collection *c;
    enum engine_bulk_kind kind;
    engine_outcome_fn *fn;
    void *arg;
    uint64_t line;
    uint64_t n_refused;
    struct ingest *filling;    /* items being gathered */
    struct ingest *committing; /* submitted, or empty */
    bool under_way;            /* committing is with the writer */
    struct pair_batch *pairs;
    struct transfer_line *transfer; /* ENGINE_BULK_IMPORT */
};

enum err
engine_bulk_new(struct engine_bulk **out, struct engine *engine,
    const char *collection, enum engine_bulk_kind kind, engine_outcome_fn *fn,
    void *arg, struct fault *fault)
{
    struct engine_bulk *b = mem_calloc(1, sizeof(*b));
    if (!b) {
        return fault_of(fault, ERR_NOMEM, "starting the stream");
    }
    b->engine = engine;
    b->kind = kind;
    b->fn = fn;
    b->arg = arg;
    bool import = kind == ENGINE_BULK_IMPORT;
    struct ingest_options options = {.all_or_nothing = false};
    enum err err = collection_find(engine, collection, &b->c, fault);
    if (!err && import) {
        err = transfer_line_new(&b->transfer, b->c);
    }
    if (!err && import) {
        options.trusted = transfer_line_fingerprint(b->transfer);
    }
    if (!err && kind != ENGINE_BULK_PAIRS) {
        err = ingest_new(&b->filling, b->c, &options);
    }
    if (!err && kind != ENGINE_BULK_PAIRS) {
        err = ingest_new(&b->committing, b->c, &options);
    }
    if (!err && kind != ENGINE_BULK_ITEMS) {
        err = pair_batch_new(&b->pairs, b->c, false, import ? "import" : "api");
    }
    if (err) {
        engine_bulk_free(b);
        return fault_of(fault, err, "starting the stream");
    }
    *out = b;
    return OK;
}

void
engine_bulk_free(struct engine_bulk *b)
{
    if (b) {
        ingest_free(b->filling);
        ingest_free(b->committing); /* waits for the writer */
        pair_batch_free(b->pairs);
        transfer_line_free(b->transfer);
        collection_unref(b->c);
        mem_free(b);
    }
}

static void
report(struct engine_bulk *b, const struct engine_outcome *outcome)
{
    b->n_refused += outcome->status == ENGINE_REFUSED;
    b->fn(b->arg, outcome);
}

/* Wait for the batch that the writer has and report it. */
static enum err
settle(struct engine_bulk *b, struct fault *fault)
{
    if (!b->under_way) {
        return OK;
    }
    b->under_way = false;
    enum err err = ingest_wait(b->committing, fault);
    if (err) {
        return err;
    }
    size_t n = ingest_count(b->committing);
    for (size_t i = 0; i < n; i++) {
        struct engine_outcome outcome;
        ingest_outcome(b->committing, i, &outcome);
        report(b, &outcome);
    }
    ingest_clear(b->committing);
    return OK;
}

/* Encode the gathered items while the batch before commits, wait for that,
   hand this one over. Never two at the writer: a batch that must be encoded
   again would overtake the next. */
static enum err
turn_over(struct engine_bulk *b, struct fault *fault)
{
    if (!b->filling || ingest_count(b->filling) == 0) {
        return OK;
    }
    enum err err =
        ingest_encode(b->filling, b->under_way ? b->committing : NULL, fault);
    if (!err) {
        err = settle(b, fault);
    }
    if (!err) {
        struct ingest *full = b->filling;
        b->filling = b->committing;
        b->committing = full;
        err = ingest_submit(full, fault);
        b->under_way = !err;
    }
    return err;
}

static enum err
commit_pairs(struct engine_bulk *b, struct fault *fault)
{
    if (!b->pairs || pair_batch_count(b->pairs) == 0) {
        return OK;
    }
    enum err err = pair_batch_commit(b->pairs, fault);
    if (err) {
        return err;
    }
    size_t n = pair_batch_count(b->pairs);
    for (size_t i = 0; i < n; i++) {
        struct engine_outcome outcome;
        pair_batch_outcome(b->pairs, i, &outcome);
        report(b, &outcome);
    }
    pair_batch_clear(b->pairs);
    return OK;
}

/* All items so far are committed and reported, before pairs that name them. */
static enum err
finish_items(struct engine_bulk *b, struct fault *fault)
{
    enum err err = turn_over(b, fault);
    return err ? err : settle(b, fault);
}

static bool
full(size_t n, size_t bytes)
{
    return n >= INGEST_ITEMS_MAX || bytes >= INGEST_BYTES_MAX;
}

/* Does an error belong to the line, or does it end the stream? */
static bool
ends_stream(enum err err)
{
    switch (err) {
    case ERR_NOMEM:
    case ERR_IO:
    case ERR_FULL:
    case ERR_READ_ONLY:
    case ERR_CORRUPT:
    case ERR_INTERNAL:
    case ERR_BUSY:
    case ERR_CANCELLED:
        return true;
    default:
        return false;
    }
}

static enum err
add_item(
    struct engine_bulk *b, const struct engine_item *item, struct fault *fault)
{
    struct fault why = {.err = OK};
    enum err err = commit_pairs(b, fault);
    if (err) {
        return err;
    }
    err = ingest_add(b->filling, item, b->line, "", &why);
    if (err && ends_stream(err)) {
        return fault_of(fault, err, "taking the line");
    }
    if (err) {
        err = ingest_add_refused(b->filling, item->id, b->line, &why);
    }
    if (!err && full(ingest_count(b->filling), ingest_bytes(b->filling))) {
        err = turn_over(b, fault);
    }
    return fault_of(fault, err, "taking the line");
}

static enum err
add_pair(
    struct engine_bulk *b, const struct engine_pair *pair, struct fault *fault)
{
    struct fault why = {.err = OK};
    enum err err = finish_items(b, fault);
    if (err) {
        return err;
    }
    err = pair_batch_add(b->pairs, pair, b->line, "", &why);
    if (err && ends_stream(err)) {
        return fault_of(fault, err, "taking the line");
    }
    if (err) {
        err = pair_batch_add_refused(b->pairs, b->line, &why);
    }
    if (!err && full(pair_batch_count(b->pairs), pair_batch_bytes(b->pairs))) {
        err = commit_pairs(b, fault);
    }
    return fault_of(fault, err, "taking the line");
}

static enum err
add_refused(struct engine_bulk *b, const char *id, const struct fault *why,
    struct fault *fault)
{
    enum err err;
    /* It stands with whatever is being gathered, so that order is kept. */
    if (b->pairs && (!b->filling || pair_batch_count(b->pairs) > 0)) {
        err = pair_batch_add_refused(b->pairs, b->line, why);
        if (!err &&
            full(pair_batch_count(b->pairs), pair_batch_bytes(b->pairs))) {
            err = commit_pairs(b, fault);
        }
    } else {
        err = ingest_add_refused(b->filling, id, b->line, why);
        if (!err && full(ingest_count(b->filling), ingest_bytes(b->filling))) {
            err = turn_over(b, fault);
        }
    }
    return fault_of(fault, err, "taking the line");
}

enum err
engine_bulk_item(
    struct engine_bulk *b, const struct engine_item *item, struct fault *fault)
{
    ASSERT(b->kind == ENGINE_BULK_ITEMS);
    b->line++;
    return add_item(b, item, fault);
}

enum err
engine_bulk_pair(
    struct engine_bulk *b, const struct engine_pair *pair, struct fault *fault)
{
    ASSERT(b->kind == ENGINE_BULK_PAIRS);
    b->line++;
    return add_pair(b, pair, fault);
}

enum err
engine_bulk_refused(struct engine_bulk *b, const char *id,
    const struct fault *why, struct fault *fault)
{
    b->line++;
    return add_refused(b, id, why, fault);
}

enum err
engine_bulk_line(
    struct engine_bulk *b, const char *line, size_t len, struct fault *fault)
{
    ASSERT(b->kind == ENGINE_BULK_IMPORT);
    struct fault why = {.err = OK};
    b->line++;
    enum transfer_kind kind;
    enum err err = transfer_line_read(b->transfer, line, len, &kind, &why);
    if (err && ends_stream(err)) {
        return fault_of(fault, err, "reading the line");
    }
    if (err) {
        return add_refused(b, NULL, &why, fault);
    }
    switch (kind) {
    case TRANSFER_ITEM:
        return add_item(b, transfer_line_item(b->transfer), fault);
    case TRANSFER_PAIR:
        return add_pair(b, transfer_line_pair(b->transfer), fault);
    case TRANSFER_NOTHING:
        break;
    }
    return OK;
}

enum err
engine_bulk_flush(struct engine_bulk *b, struct fault *fault)
{
    enum err err = finish_items(b, fault);
    return err ? err : commit_pairs(b, fault);
}

enum err
engine_bulk_finish(struct engine_bulk *b, uint64_t *n_lines,
    uint64_t *n_refused, struct fault *fault)
{
    enum err err = engine_bulk_flush(b, fault);
    if (!err) {
        if (n_lines) {
            *n_lines = b->line;
        }
        if (n_refused) {
            *n_refused = b->n_refused;
        }
    }
    return err;
}
