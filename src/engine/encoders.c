/* Imported encoders: from a folder into the file, and found there by name. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "model/published.h"
#include "engine/internal.h"

#define CARD_BYTES_MAX 65536
#define LIST_MAX 100000

/* ---- for the engine ------------------------------------------------------ */

enum err
imported_find(struct engine *engine, const char *name, struct arena *arena,
    struct encoder_row *out)
{
    struct db *db;
    enum err err = store_read_begin(engine->store, &db);
    if (!err) {
        err = encoders_get(db, store_text_of(name), arena, out);
        store_read_end(engine->store, db);
    }
    return err;
}

struct names {
    char *out;
    size_t size, len;
};

static enum err
take_name(void *arg, const struct encoder_row *row)
{
    struct names *n = arg;
    char quoted[ENGINE_NAME_BYTES_MAX + 8];
    int len = snprintf(quoted, sizeof(quoted), "%s\"%s\"", n->len ? ", " : "",
        row->facts.name.s);
    if (len > 0 && n->len + (size_t)len < n->size) {
        memcpy(n->out + n->len, quoted, (size_t)len + 1);
        n->len += (size_t)len;
    }
    return OK;
}

static enum err
list(struct engine *engine, encoder_row_fn *fn, void *arg)
{
    static const struct store_text first = {.s = NULL};
    struct db *db;
    enum err err = store_read_begin(engine->store, &db);
    if (!err) {
        err = encoders_list(db, first, LIST_MAX, fn, arg);
        store_read_end(engine->store, db);
    }
    return err;
}

static enum err
list_names(struct engine *engine, char *out, size_t size)
{
    struct names names = {.out = out, .size = size};
    out[0] = '\0';
    return list(engine, take_name, &names);
}

/* Where settings find imported encoders; the last one found is in row. */
struct finding {
    struct engine *engine;
    struct arena arena;
    struct encoder_row row;
};

static enum err
find_imported(void *arg, const char *name, struct settings_imported *out,
    struct fault *fault)
{
    struct finding *f = arg;
    enum err err = imported_find(f->engine, name, &f->arena, &f->row);
    char names[320];
    if (err == ERR_NOT_FOUND) {
        err = list_names(f->engine, names, sizeof(names));
        return err ? err
                   : fault_set(fault, ERR_INVALID, "/encoder",
                         "\"%.60s\" is none of \"static\", \"vision\", "
                         "\"%s\", and no imported encoder (%s)",
                         name, SETTINGS_EXTERNAL,
                         names[0] ? names : "there are none");
    }
    if (!err) {
        *out = (struct settings_imported){.family = f->row.facts.family.s,
            .config_json = f->row.facts.config.s,
            .dims = (size_t)f->row.facts.dims};
    }
    return err;
}

enum err
imported_parse(struct engine *engine, const char *body,
    const struct settings_fixed *base, struct settings_fixed *out,
    struct encoder **encoder, int64_t *imported, struct fault *fault)
{
    struct finding finding = {.engine = engine};
    struct settings_finder finder = {.find = find_imported, .arg = &finding};
    arena_init(&finding.arena, SMALL_ARENA_BYTES);
    enum err err =
        settings_fixed_parse(body, base, &finder, out, encoder, fault);
    *imported = finding.row.id;
    arena_release(&finding.arena);
    return err;
}

enum err
imported_share(struct engine *engine, const struct encoder_row *row,
    struct encoder_ref **out, struct fault *fault)
{
    struct encoder_source source = {.family = row->facts.family.s,
        .config_json = row->facts.config.s,
        .store = engine->store,
        .imported = row->id};
    enum err err =
        encoder_ref_share(out, &engine->encoders, &source, NULL, fault);
    if (err) {
        return err;
    }
    pthread_mutex_lock(&engine->asking);
    struct encoder_ref *old = engine->asked;
    engine->asked = encoder_ref_more(*out);
    pthread_mutex_unlock(&engine->asking);
    encoder_ref_less(old);
    return OK;
}

static void
forget_asked(struct engine *engine)
{
    pthread_mutex_lock(&engine->asking);
    struct encoder_ref *old = engine->asked;
    engine->asked = NULL;
    pthread_mutex_unlock(&engine->asking);
    encoder_ref_less(old);
}

static enum err
run_start(struct db *db, void *arg)
{
    (void)arg;
    return encoders_discard_partial(db);
}

enum err
imported_start(struct engine *engine)
{
    return store_run(engine->store, run_start, NULL);
}

/* ---- importing ----------------------------------------------------------- */

struct import_op {
    struct encoder_facts facts;
    int64_t now_ms;
    int64_t id;
};

/* What a failed import could not even give up (a full disk) goes as well: no
   other is under way. */
static enum err
run_create(struct db *db, void *arg)
{
    struct import_op *op = arg;
    enum err err = encoders_discard_partial(db);
    return err ? err : encoders_create(db, &op->facts, op->now_ms, &op->id);
}

static enum err
run_discard(struct db *db, void *arg)
{
    return encoders_discard(db, *(const int64_t *)arg);
}

static enum err
save(struct store *store, int64_t id, const struct encoder *encoder)
{
    struct weights_writer *writer;
    enum err err = encoder_weights_create(&writer, store, id);
    return err ? err : save_encoder(writer, encoder);
}

static enum err
check_import_name(const char *name, struct fault *fault)
{
    enum err err = check_name(name, "an encoder", "", fault);
    if (!err && settings_is_family(name)) {
        err = fault_set(fault, ERR_INVALID, "",
            "\"%s\" is the name of a family of encoders", name);
    }
    return err;
}

/* What the file is to know of it; strings are borrowed. */
static enum err
describe(const char *name, const struct encoder *encoder,
    const struct buf *card, struct encoder_facts *out, struct fault *fault)
{
    size_t dims = encoder_dims(encoder), n_params;
    if (dims < ENCODER_DIMS_MIN || dims > ENCODER_DIMS_MAX) {
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "the encoder has %zu dimensions; collections have %d to %d", dims,
            ENCODER_DIMS_MIN, ENCODER_DIMS_MAX);
    }
    (void)encoder_params_const(encoder, &n_params);
    *out = (struct encoder_facts){.name = store_text_of(name),
        .family = store_text_of(encoder_family(encoder)),
        .config = store_text_of(encoder_config_json(encoder)),
        .card = {.s = card->data, .len = card->len},
        .dims = (int)dims,
        .max_tokens = (int64_t)encoder_max_tokens(encoder),
        .n_params = (int64_t)n_params};
    encoder_fingerprint(encoder, out->fingerprint);
    return OK;
}

/* Is it there already? ERR_NOT_FOUND: no. */
static enum err
confirm(struct engine *engine, const struct encoder_facts *facts,
    struct fault *fault)
{
    struct encoder_row row;
    struct arena arena;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = imported_find(engine, facts->name.s, &arena, &row);
    if (!err &&
        memcmp(row.facts.fingerprint, facts->fingerprint, SHA256_BYTES) != 0) {
        err = fault_set(fault, ERR_CONFLICT, "",
            "there is another encoder \"%s\"; delete that one or choose "
            "another "
            "name",
            facts->name.s);
    }
    arena_release(&arena);
    return err;
}

static enum err
import(struct engine *engine, const char *name, const struct encoder *encoder,
    const struct buf *card, bool *created, struct fault *fault)
{
    struct import_op op = {.now_ms = clock_wall_ms()};
    enum err err = describe(name, encoder, card, &op.facts, fault);
    if (!err) {
        err = confirm(engine, &op.facts, fault);
    }
    if (err != ERR_NOT_FOUND) {
        return err;
    }
    err = store_run(engine->store, run_create, &op);
    if (err) {
        return err;
    }
    failpoint("encoder_created");
    err = save(engine->store, op.id, encoder);
    if (err) {
        enum err undo = store_run(engine->store, run_discard, &op.id);
        if (undo) {
            log_warn("engine", "import undo=%s", err_text(undo));
        }
    }
    keeper_wake(engine->keeper); /* this import's remains, or another's */
    if (err) {
        return err;
    }
    *created = true;
    log_info("engine", "encoder imported name=%s id=%lld params=%lld", name,
        (long long)op.id, (long long)op.facts.n_params);
    return OK;
}

enum err
engine_encoder_import(struct engine *engine, const char *name, const char *dir,
    bool *created, struct arena *arena, struct engine_encoder *out,
    struct fault *fault)
{
    struct encoder *encoder = NULL;
    struct buf card;
    bool made = false;
    enum err err = check_import_name(name, fault);
    if (err) {
        return err;
    }
    buf_init(&card, CARD_BYTES_MAX);
    /* One at a time: it is in memory whole, and the name is looked up first. */
    pthread_mutex_lock(&engine->importing);
    err = published_import(&encoder, dir, &card, fault);
    if (!err) {
        err = import(engine, name, encoder, &card, &made, fault);
    }
    pthread_mutex_unlock(&engine->importing);
    encoder_free(encoder);
    buf_release(&card);
    if (!err) {
        err = engine_encoder_get(engine, name, arena, out, fault);
    }
    if (!err) {
        *created = made;
    }
    return fault_of(fault, err, "importing the encoder");
}

/* ---- reading ------------------------------------------------------------- */

static enum err
view(const struct encoder_row *row, struct arena *arena,
    struct engine_encoder *out)
{
    const struct encoder_facts *f = &row->facts;
    struct store_text card = f->card.s ? f->card : store_text_of("{}");
    enum settings_reads reads = settings_family_reads(f->family.s);
    struct engine_encoder v = {
        .name = arena_strndup(arena, f->name.s, f->name.len),
        .family = arena_strndup(arena, f->family.s, f->family.len),
        .reads = settings_reads_names[reads],
        .dims = (size_t)f->dims,
        .max_tokens = (size_t)f->max_tokens,
        .n_params = (uint64_t)f->n_params,
        .weights_bytes = (uint64_t)row->weights_bytes,
        .config_json = arena_strndup(arena, f->config.s, f->config.len),
        .card_json = arena_strndup(arena, card.s, card.len),
        .created_ms = row->created_ms,
        .n_collections = (size_t)row->n_collections};
    sha256_hex(f->fingerprint, v.fingerprint);
    *out = v;
    return v.name && v.family && v.config_json && v.card_json ? OK : ERR_NOMEM;
}

struct views {
    struct arena *arena;
    struct engine_encoder *v;
    size_t n, cap;
};

static enum err
take_view(void *arg, const struct encoder_row *row)
{
    struct views *views = arg;
    if (views->n == views->cap) {
        size_t cap = views->cap * 2 + 16;
        struct engine_encoder *v = arena_alloc(views->arena, cap, sizeof(*v));
        if (!v) {
            return ERR_NOMEM;
        }
        if (views->n) {
            memcpy(v, views->v, views->n * sizeof(*v));
        }
        views->v = v;
        views->cap = cap;
    }
    enum err err = view(row, views->arena, &views->v[views->n]);
    views->n += !err;
    return err;
}

enum err
engine_encoders_list(struct engine *engine, struct arena *arena,
    struct engine_encoder **out, size_t *n, struct fault *fault)
{
    struct views views = {.arena = arena};
    enum err err = list(engine, take_view, &views);
    if (!err) {
        *out = views.v;
        *n = views.n;
    }
    return fault_of(fault, err, "listing the encoders");
}

static enum err
find_or_refuse(struct engine *engine, const char *name, struct arena *arena,
    struct encoder_row *out, struct fault *fault)
{
    enum err err = imported_find(engine, name, arena, out);
    if (err == ERR_NOT_FOUND) {
        err = fault_set(
            fault, err, "", "there is no imported encoder \"%.64s\"", name);
    }
    return err;
}

enum err
engine_encoder_get(struct engine *engine, const char *name, struct arena *arena,
    struct engine_encoder *out, struct fault *fault)
{
    struct encoder_row row;
    enum err err = find_or_refuse(engine, name, arena, &row, fault);
    if (!err) {
        err = view(&row, arena, out);
    }
    return fault_of(fault, err, "reading the encoder");
}

/* ---- deleting ------------------------------------------------------------ */

struct delete_op {
    int64_t id;
    int64_t collection; /* that needs it */
};

static enum err
run_delete(struct db *db, void *arg)
{
    struct delete_op *op = arg;
    return encoders_delete(db, op->id, &op->collection);
}

enum err
engine_encoder_delete(
    struct engine *engine, const char *name, struct fault *fault)
{
    struct encoder_row row;
    struct arena arena;
    struct delete_op op = {.id = 0};
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = find_or_refuse(engine, name, &arena, &row, fault);
    if (!err) {
        op.id = row.id;
        err = store_run(engine->store, run_delete, &op);
    }
    if (err == ERR_CONFLICT) {
        struct collection *c = collection_by_id(engine, op.collection);
        fault_set(fault, err, "",
            "the collection \"%s\" has a generation with the weights of this "
            "encoder",
            c ? c->name : "");
        collection_unref(c);
    }
    if (!err) {
        log_info("engine", "encoder deleted id=%lld", (long long)op.id);
        forget_asked(engine);
        keeper_wake(engine->keeper);
    }
    arena_release(&arena);
    return fault_of(fault, err, "deleting the encoder");
}
