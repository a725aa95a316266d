/* The lineage of generations: registering a candidate, publishing, discarding,
   going back to a kept one. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"
#include "store/encoders.h"
#include "store/weights.h"
#include "engine/internal.h"

/* A rollback that lacks at most so many vectors is done at once, while the
   caller waits; else it is a job. */
#define PROMOTE_AT_ONCE_MISSING 2000
#define PUBLISH_TRIES 20 /* items may come between the backfill and it */

/* ---- loading ------------------------------------------------------------- */

enum err
load_encoder(struct engine *engine, const struct generation_row *row,
    struct encoder_ref **out, struct fault *fault)
{
    const char *family = row->family.s;
    *out = NULL;
    if (strcmp(family, SETTINGS_EXTERNAL) == 0) {
        return OK;
    }
    if (row->weights == WEIGHTS_NONE) {
        struct encoder_source source = {.family = family,
            .config_json = row->config.s,
            .store = engine->store,
            .imported = row->encoder};
        return encoder_ref_share(out, &engine->encoders, &source, NULL, fault);
    }
    struct weights_reader *reader = NULL;
    struct encoder *encoder = NULL;
    uint64_t n;
    enum err err = weights_open(&reader, engine->store, row->id, &n);
    if (!err) { /* the space's fingerprint checks the bytes */
        err = encoder_read_weights(
            &encoder, family, row->config.s, reader, n, fault);
    }
    weights_close(reader);
    if (!err) {
        err = encoder_ref_new(out, encoder);
        if (err) {
            encoder_free(encoder);
        }
    }
    return err;
}

static enum err
load_from_row(struct collection *c, const struct generation_row *row,
    struct snapshot *same, struct snapshot **out, struct fault *fault)
{
    struct encoder_ref *encoder;
    struct space_index *index;
    if ((size_t)row->dims != c->fixed.dims || !row->family.s ||
        !row->config.s) {
        return fault_set(fault, ERR_CORRUPT, "",
            "generation %lld of \"%s\" does not fit its collection",
            (long long)row->generation, c->name);
    }
    enum err err = load_encoder(c->engine, row, &encoder, fault);
    if (err) {
        return err;
    }
    uint8_t print[SHA256_BYTES];
    space_fingerprint(
        encoder_ref_get(encoder), c->fixed.dims, c->fixed.template_text, print);
    if (memcmp(print, row->fingerprint, SHA256_BYTES) != 0) {
        encoder_ref_less(encoder);
        return fault_set(fault, ERR_CORRUPT, "",
            "the weights of generation %lld of \"%s\" do not match their "
            "fingerprint",
            (long long)row->generation, c->name);
    }
    if (same && same->index->space == row->space) {
        index = space_index_ref(same->index);
    } else {
        err = space_index_new(&index, row->space, c->fixed.dims,
            row->fingerprint, c->engine->scan_pool);
        if (err) {
            encoder_ref_less(encoder);
            return err;
        }
    }
    return snapshot_new(
        out, row->generation, row->id, encoder, index, row->temperature);
}

static enum err
read_generation(struct collection *c, int64_t generation, struct arena *arena,
    struct generation_row *out)
{
    struct db *db;
    enum err err = store_read_begin(c->engine->store, &db);
    if (!err) {
        err = generations_get(db, c->id, generation, arena, out);
        store_read_end(c->engine->store, db);
    }
    return err;
}

enum err
load_snapshot(struct collection *c, int64_t generation, struct snapshot *same,
    struct snapshot **out, struct fault *fault)
{
    struct arena arena;
    struct generation_row row;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = read_generation(c, generation, &arena, &row);
    if (!err) {
        err = load_from_row(c, &row, same, out, fault);
    }
    arena_release(&arena);
    return fault_of(fault, err, "loading a generation");
}

/* ---- the shadow role ----------------------------------------------------- */

struct shadow_op {
    struct collection *c;
    struct snapshot *shadow; /* a reference for the collection, or NULL */
    struct snapshot *old;    /* to drop when it is done */
};

static enum err
run_shadow(struct db *db, void *arg)
{
    struct shadow_op *op = arg;
    int64_t seq;
    return generations_set_shadow(
        db, op->c->id, op->shadow ? op->shadow->generation : 0, &seq);
}

static void
done_shadow(void *arg, enum err err)
{
    struct shadow_op *op = arg;
    if (!err) {
        pthread_mutex_lock(&op->c->lock);
        op->old = op->c->shadow;
        op->c->shadow = op->shadow;
        op->shadow = NULL;
        pthread_mutex_unlock(&op->c->lock);
    }
}

/* From the commit on every write is embedded for it, too. */
static enum err
set_shadow(struct collection *c, struct snapshot *shadow)
{
    struct shadow_op op = {.c = c, .shadow = snapshot_ref(shadow)};
    struct store_op write = {
        .run = run_shadow, .done = done_shadow, .arg = &op};
    enum err err = store_write(c->engine->store, &write);
    snapshot_unref(op.shadow);
    snapshot_unref(op.old);
    return err;
}

/* ---- registering --------------------------------------------------------- */

struct create_op {
    struct collection *c;
    struct generation_new new_generation;
    int64_t id, generation, space;
};

static enum err
run_create(struct db *db, void *arg)
{
    struct create_op *op = arg;
    return generations_create(db, op->c->id, &op->new_generation,
        clock_wall_ms(), &op->id, &op->generation, &op->space);
}

static enum err
write_weights(void *arg, const void *bytes, size_t n)
{
    return weights_add(arg, bytes, n);
}

enum err
save_encoder(struct weights_writer *writer, const struct encoder *encoder)
{
    enum err err = encoder_save(encoder, write_weights, writer);
    if (err) {
        weights_abort(writer);
        return err;
    }
    return weights_finish(writer, NULL);
}

static enum err
save_weights(struct store *store, int64_t id, const struct encoder *encoder)
{
    struct weights_writer *writer;
    enum err err = weights_create(&writer, store, id);
    return err ? err : save_encoder(writer, encoder);
}

static enum err discard_locked(struct collection *c, int64_t generation,
    enum generation_state state, const char *report_json);

static enum err
register_locked(struct collection *c, struct encoder_ref *ref,
    const struct candidate *candidate, int64_t job, struct snapshot **out,
    struct fault *fault)
{
    const struct encoder *encoder = encoder_ref_get(ref);
    struct snapshot *live, *shadow, *made = NULL;
    collection_snapshots(c, &live, &shadow);
    struct create_op op = {.c = c,
        .new_generation = {.parent = live->generation,
            .dims = (int)c->fixed.dims,
            .temperature = candidate->temperature,
            .family = store_text_of(encoder_family(encoder)),
            .config = store_text_of(encoder_config_json(encoder)),
            .report = store_text_of(candidate->report_json),
            .seed = candidate->seed,
            .job = job,
            .pairs_upto = candidate->pairs_upto}};
    space_fingerprint(encoder, c->fixed.dims, c->fixed.template_text,
        op.new_generation.fingerprint);
    enum err err = OK;
    if (shadow) {
        err = fault_set(fault, ERR_CONFLICT, "",
            "generation %lld is being built already",
            (long long)shadow->generation);
    }
    if (!err) {
        err = store_run(c->engine->store, run_create, &op);
    }
    if (!err) {
        failpoint("learn_created");
        if (encoder_is_trained(encoder)) {
            err = save_weights(c->engine->store, op.id, encoder);
        }
        failpoint("learn_saved");
        struct space_index *index = NULL;
        if (!err && op.space == live->index->space) {
            index = space_index_ref(live->index);
        } else if (!err) {
            err = space_index_new(&index, op.space, c->fixed.dims,
                op.new_generation.fingerprint, c->engine->scan_pool);
        }
        if (!err) {
            err = snapshot_new(&made, op.generation, op.id,
                encoder_ref_more(ref), index, candidate->temperature);
        }
        if (!err) {
            err = set_shadow(c, made);
        }
        if (err) {
            snapshot_unref(made);
            enum err undo =
                discard_locked(c, op.generation, GENERATION_DISCARDED, NULL);
            if (undo) {
                log_warn("engine", "register undo=%s", err_text(undo));
            }
        } else {
            failpoint("learn_registered");
            *out = made;
        }
    }
    snapshot_unref(live);
    snapshot_unref(shadow);
    return err;
}

enum err
lineage_register(struct collection *c, struct candidate *candidate, int64_t job,
    struct snapshot **out, struct fault *fault)
{
    struct encoder_ref *ref;
    enum err err = encoder_ref_new(&ref, candidate->encoder);
    if (err) {
        encoder_free(candidate->encoder);
    } else {
        pthread_mutex_lock(&c->admin);
        err = register_locked(c, ref, candidate, job, out, fault);
        pthread_mutex_unlock(&c->admin);
        encoder_ref_less(ref);
    }
    candidate->encoder = NULL;
    return fault_of(fault, err, "registering a generation");
}

/* ---- publishing ---------------------------------------------------------- */

struct publish_op {
    struct collection *c;
    struct snapshot *next;             /* becomes live */
    struct snapshot *old, *old_shadow; /* to drop when it is done */
    double temperature;
    bool set_temperature;
    struct store_text report;
    struct generation_publish publish;
};

static enum err
run_publish(struct db *db, void *arg)
{
    struct publish_op *op = arg;
    int64_t collection = op->publish.collection;
    int64_t generation = op->publish.generation;
    enum err err = OK;
    if (op->report.s) {
        err = generations_set_report(db, collection, generation, op->report);
    }
    if (!err && op->set_temperature) {
        err = generations_set_temperature(
            db, collection, generation, op->temperature);
    }
    if (!err) {
        err = generations_publish(db, &op->publish);
    }
    return err;
}

static void
done_publish(void *arg, enum err err)
{
    struct publish_op *op = arg;
    if (err) {
        return;
    }
    failpoint("publish");
    pthread_mutex_lock(&op->c->lock);
    op->old = op->c->live;
    op->old_shadow = op->c->shadow;
    op->c->previous_generation = op->old->generation;
    op->c->live = op->next;
    op->c->shadow = NULL;
    op->next = NULL;
    pthread_mutex_unlock(&op->c->lock);
}

static enum err
publish_locked(struct collection *c, struct snapshot *snapshot,
    double temperature, const char *report_json, struct job *job,
    enum job_state state, const char *result_json)
{
    struct snapshot *live = collection_live(c);
    struct publish_op op = {.c = c,
        .temperature = temperature,
        .set_temperature = temperature > snapshot->temperature ||
                           temperature < snapshot->temperature,
        .report = store_text_of(report_json),
        .publish = {.collection = c->id,
            .generation = snapshot->generation,
            .expected_live = live->generation,
            .job = job ? job_id(job) : 0,
            .job_state = (int)state,
            .job_result = store_text_of(result_json),
            .now_ms = clock_wall_ms()}};
    snapshot_unref(live);
    enum err err = snapshot_new(&op.next, snapshot->generation,
        snapshot->generation_id, encoder_ref_more(snapshot->encoder),
        space_index_ref(snapshot->index), temperature);
    if (!err) {
        struct store_op write = {
            .run = run_publish, .done = done_publish, .arg = &op};
        err = store_write(c->engine->store, &write);
    }
    snapshot_unref(op.next);
    /* The old index dies here or with its last reader, not in the writer. */
    snapshot_unref(op.old);
    snapshot_unref(op.old_shadow);
    if (!err) {
        log_info("engine", "published collection=%lld generation=%lld",
            (long long)c->id, (long long)snapshot->generation);
        if (job) {
            job_ended_by(job, state, result_json);
        }
        keeper_wake(c->engine->keeper);
    }
    return err;
}

enum err
lineage_publish(struct collection *c, struct snapshot *snapshot,
    double temperature, const char *report_json, struct job *job,
    enum job_state state, const char *result_json, struct fault *fault)
{
    failpoint("learn_publish");
    pthread_mutex_lock(&c->admin);
    enum err err = publish_locked(
        c, snapshot, temperature, report_json, job, state, result_json);
    pthread_mutex_unlock(&c->admin);
    return fault_of(fault, err, "publishing the generation");
}

/* ---- discarding ---------------------------------------------------------- */

struct discard_op {
    struct collection *c;
    int64_t generation;
    enum generation_state state;
    struct store_text report;
    struct snapshot *old;
};

static enum err
run_discard(struct db *db, void *arg)
{
    struct discard_op *op = arg;
    enum err err = OK;
    if (op->report.s) {
        err = generations_set_report(db, op->c->id, op->generation, op->report);
    }
    return err ? err
               : generations_end(db, op->c->id, op->generation, op->state);
}

static void
done_discard(void *arg, enum err err)
{
    struct discard_op *op = arg;
    if (err) {
        return;
    }
    pthread_mutex_lock(&op->c->lock);
    if (op->c->shadow && op->c->shadow->generation == op->generation) {
        op->old = op->c->shadow;
        op->c->shadow = NULL;
    }
    pthread_mutex_unlock(&op->c->lock);
}

static enum err
discard_locked(struct collection *c, int64_t generation,
    enum generation_state state, const char *report_json)
{
    struct discard_op op = {.c = c,
        .generation = generation,
        .state = state,
        .report = store_text_of(report_json)};
    struct store_op write = {
        .run = run_discard, .done = done_discard, .arg = &op};
    failpoint("learn_discard");
    enum err err = store_write(c->engine->store, &write);
    snapshot_unref(op.old);
    if (!err) {
        keeper_wake(c->engine->keeper);
    }
    return err;
}

enum err
lineage_discard(struct collection *c, int64_t generation,
    enum generation_state state, const char *report_json, struct fault *fault)
{
    pthread_mutex_lock(&c->admin);
    enum err err = discard_locked(c, generation, state, report_json);
    pthread_mutex_unlock(&c->admin);
    return fault_of(fault, err, "discarding the generation");
}

/* A shadow that no one works on: end what it is. */
static void
clean_up_locked(struct collection *c)
{
    struct snapshot *shadow = collection_shadow(c);
    if (!shadow) {
        return;
    }
    struct arena arena;
    struct generation_row row;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = read_generation(c, shadow->generation, &arena, &row);
    if (!err && row.state == GENERATION_BUILDING) {
        err = discard_locked(c, shadow->generation, GENERATION_DISCARDED, NULL);
    } else if (!err) {
        err = set_shadow(c, NULL);
    }
    arena_release(&arena);
    if (err) {
        log_warn("engine", "clean_up collection=%lld err=%s", (long long)c->id,
            err_text(err));
    }
    snapshot_unref(shadow);
}

void
lineage_clean_up(struct collection *c)
{
    pthread_mutex_lock(&c->admin);
    clean_up_locked(c);
    pthread_mutex_unlock(&c->admin);
}

/* ---- going to a kept generation ------------------------------------------ */

/* Embed what the generation lacks and make it live. */
static enum err
promote_locked(struct collection *c, int64_t generation, struct job *job,
    const struct reembed_options *options, struct fault *fault)
{
    struct snapshot *live, *shadow;
    collection_snapshots(c, &live, &shadow);
    enum err err = OK;
    if (shadow && shadow->generation != generation) {
        err = fault_set(fault, ERR_CONFLICT, "",
            "generation %lld is being built already",
            (long long)shadow->generation);
    }
    if (!err && !shadow) {
        err = load_snapshot(c, generation, live, &shadow, fault);
        if (!err) {
            err = set_shadow(c, shadow);
        }
    }
    char result[96];
    snprintf(result, sizeof(result), "{\"generation\":%lld,\"from\":%lld}",
        (long long)generation, (long long)live->generation);
    for (int i = 0; !err; i++) {
        err = reembed_run(c, shadow, options);
        if (!err) {
            err = publish_locked(
                c, shadow, shadow->temperature, NULL, job, JOB_DONE, result);
            if (err != ERR_CONFLICT || i == PUBLISH_TRIES) {
                break;
            }
            err = OK; /* an item came without this space: once more */
        }
    }
    snapshot_unref(live);
    snapshot_unref(shadow);
    return err;
}

struct progress {
    struct job *job;
    int64_t started_ms;
};

static bool
tell_progress(void *arg, int64_t done, int64_t total)
{
    struct progress *p = arg;
    double part = total ? (double)done / (double)total : 1;
    double seconds = (double)(clock_mono_ms() - p->started_ms) / 1000;
    double eta = part > 0.01 ? seconds * (1 - part) / part : -1;
    job_set_progress(p->job, part, eta);
    return !job_stopped(p->job);
}

enum err
lineage_promote_run(
    struct engine *engine, struct collection *c, struct job *job)
{
    struct json *root = NULL;
    struct fault fault = {.err = OK};
    int64_t generation = 0;
    const char *text = job_options(job);
    enum err err = json_parse(text, strlen(text), 4096, &root, &fault);
    if (!err) {
        err = json_get_i64(root, "", "generation", JSON_REQUIRED, 1, INT64_MAX,
            &generation, &fault);
    }
    json_free(root);
    struct progress progress = {.job = job, .started_ms = clock_mono_ms()};
    struct reembed_options options = {.pool = engine->tuner_pool,
        .gentle = true,
        .progress = tell_progress,
        .progress_arg = &progress};
    job_set_phase(job, "reembed", 0);
    if (!err) {
        pthread_mutex_lock(&c->admin);
        err = promote_locked(c, generation, job, &options, &fault);
        pthread_mutex_unlock(&c->admin);
    }
    if (err && err != ERR_CANCELLED) {
        job_end(
            job, JOB_FAILED, NULL, fault.err ? fault.detail : err_text(err));
    }
    return err;
}

struct needs {
    struct generation_row row;
    int64_t n_missing;
};

static enum err
look_at(struct collection *c, int64_t generation, struct arena *arena,
    struct needs *out)
{
    struct db *db;
    enum err err = store_read_begin(c->engine->store, &db);
    if (err) {
        return err;
    }
    int64_t n_items = 0, n_vectors = 0;
    err = generations_get(db, c->id, generation, arena, &out->row);
    if (!err) {
        err = items_count(db, c->id, &n_items);
    }
    if (!err && out->row.space_kept) {
        err = vectors_count(db, out->row.space, &n_vectors);
    }
    store_read_end(c->engine->store, db);
    out->n_missing = n_items - n_vectors;
    return err;
}

static bool
is_whole(const struct generation_row *row)
{
    return row->space_kept &&
           (row->weights == WEIGHTS_NONE || row->weights == WEIGHTS_COMPLETE);
}

static enum err
refuse_running(struct collection *c, struct fault *fault)
{
    int64_t job = jobs_of_collection(c->engine->jobs, c->id);
    if (!job) {
        return OK;
    }
    fault_set(fault, ERR_CONFLICT, "",
        "job %lld of this collection is not finished", (long long)job);
    if (fault) {
        fault->extra_id = job;
    }
    return ERR_CONFLICT;
}

static enum err
promote(struct engine *engine, struct collection *c, int64_t generation,
    struct engine_switch *out, struct fault *fault)
{
    struct arena arena;
    struct needs needs;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = look_at(c, generation, &arena, &needs);
    if (err == ERR_NOT_FOUND) {
        err = fault_set(fault, err, "", "there is no generation %lld",
            (long long)generation);
    }
    struct engine_switch done = {.generation = generation};
    bool live = !err && needs.row.state == GENERATION_LIVE;
    bool kept =
        !err && (needs.row.state == GENERATION_PREVIOUS || needs.row.pinned);
    if (!err && !live && (!kept || !is_whole(&needs.row))) {
        err = fault_set(fault, ERR_CONFLICT, "",
            "of generation %lld (%s) only the report is kept",
            (long long)generation, generation_state_name(needs.row.state));
    }
    if (!err && !live) {
        err = refuse_running(c, fault);
    }
    if (!err && !live && needs.n_missing <= PROMOTE_AT_ONCE_MISSING) {
        struct reembed_options options = {.pool = engine->encode_pool};
        pthread_mutex_lock(&c->admin);
        err = promote_locked(c, generation, NULL, &options, fault);
        if (err) {
            clean_up_locked(c);
        }
        pthread_mutex_unlock(&c->admin);
    } else if (!err && !live) {
        char text[64];
        snprintf(
            text, sizeof(text), "{\"generation\":%lld}", (long long)generation);
        err = jobs_queue(
            engine->jobs, c, JOB_KIND_REEMBED, text, &done.job_id, fault);
    }
    arena_release(&arena);
    if (!err) {
        *out = done;
    }
    return fault_of(fault, err, "switching generations");
}

enum err
engine_generation_promote(struct engine *engine, const char *collection,
    int64_t generation, struct engine_switch *out, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (!err) {
        err = promote(engine, c, generation, out, fault);
        collection_unref(c);
    }
    return err;
}

enum err
engine_rollback(struct engine *engine, const char *collection,
    struct engine_switch *out, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    pthread_mutex_lock(&c->lock);
    int64_t previous = c->previous_generation;
    pthread_mutex_unlock(&c->lock);
    if (previous == 0) {
        err = fault_set(fault, ERR_CONFLICT, "",
            "the collection has no previous generation to go back to");
    } else {
        err = promote(engine, c, previous, out, fault);
    }
    collection_unref(c);
    return err;
}

/* ---- reading ------------------------------------------------------------- */

/* The imported encoder that a collection began with; id 0 without one. */
static enum err
read_origin(struct db *db, const struct collection *c, struct arena *arena,
    struct encoder_row *out)
{
    struct generation_row first;
    *out = (struct encoder_row){.id = 0};
    enum err err = generations_get(db, c->id, 1, arena, &first);
    if (!err && first.encoder != 0) {
        err = encoders_get_by_id(db, first.encoder, arena, out);
    }
    return err == ERR_NOT_FOUND ? OK : err; /* deleted: nothing is known */
}

static enum err
view(const struct generation_row *row, const struct encoder_row *origin,
    struct arena *arena, struct engine_generation *out)
{
    struct store_text report =
        row->report.s ? row->report : store_text_of("null");
    struct engine_generation v = {.generation = row->generation,
        .state = generation_state_name(row->state),
        .whole = is_whole(row) && row->state != GENERATION_BUILDING,
        .pinned = row->pinned,
        .parent = row->parent,
        .job_id = row->job,
        .temperature = row->temperature,
        .trained = row->weights != WEIGHTS_NONE || row->encoder != 0,
        .created_ms = row->created_ms,
        .promoted_ms = row->published_ms,
        .dims = (size_t)row->dims,
        .weights_bytes = (uint64_t)row->weights_bytes};
    sha256_hex(row->fingerprint, v.space);
    v.family = arena_strndup(arena, row->family.s ? row->family.s : "",
        row->family.s ? row->family.len : 0);
    if (origin->id != 0) {
        v.encoder = origin->facts.name.s;
        v.card_json = origin->facts.card.s;
        v.n_params = (uint64_t)origin->facts.n_params;
    }
    v.report_json = arena_strndup(arena, report.s, report.len);
    v.config_json = arena_strndup(arena, row->config.s ? row->config.s : "{}",
        row->config.s ? row->config.len : 2);
    if (!v.report_json || !v.config_json || !v.family) {
        return ERR_NOMEM;
    }
    *out = v;
    return OK;
}

struct list {
    struct arena *arena;
    struct encoder_row origin;
    struct engine_generation *v;
    size_t n, cap;
};

static enum err
list_row(void *arg, const struct generation_row *row)
{
    struct list *list = arg;
    if (list->n == list->cap) {
        size_t cap = list->cap * 2 + 16;
        struct engine_generation *v = arena_alloc(list->arena, cap, sizeof(*v));
        if (!v) {
            return ERR_NOMEM;
        }
        if (list->n) {
            memcpy(v, list->v, list->n * sizeof(*v));
        }
        list->v = v;
        list->cap = cap;
    }
    enum err err = view(row, &list->origin, list->arena, &list->v[list->n]);
    list->n += !err;
    return err;
}

enum err
engine_generations_list(struct engine *engine, const char *collection,
    struct arena *arena, struct engine_generation **out, size_t *n,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct list list = {.arena = arena};
    struct db *db;
    err = store_read_begin(engine->store, &db);
    if (!err) {
        err = read_origin(db, c, arena, &list.origin);
        if (!err) {
            err = generations_list(db, c->id, 0, 100000, list_row, &list);
        }
        store_read_end(engine->store, db);
    }
    collection_unref(c);
    if (!err) {
        *out = list.v;
        *n = list.n;
    }
    return fault_of(fault, err, "listing the generations");
}

enum err
engine_generation_get(struct engine *engine, const char *collection,
    int64_t generation, struct arena *arena, struct engine_generation *out,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct generation_row row;
    struct encoder_row origin;
    struct db *db;
    err = store_read_begin(engine->store, &db);
    if (!err) {
        err = generations_get(db, c->id, generation, arena, &row);
        bool absent = err == ERR_NOT_FOUND;
        if (!err) {
            err = read_origin(db, c, arena, &origin);
        }
        store_read_end(engine->store, db);
        if (absent) {
            collection_unref(c);
            return fault_set(fault, err, "", "there is no generation %lld",
                (long long)generation);
        }
    }
    collection_unref(c);
    if (!err) {
        err = view(&row, &origin, arena, out);
    }
    return fault_of(fault, err, "reading the generation");
}
