/* The registry of collections and aliases, and what is done to them. */
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "store/jobs.h"
#include "store/pairs.h"
#include "engine/internal.h"

/* ---- one collection ------------------------------------------------------ */

enum err
collection_new(struct collection **out, struct engine *engine, int64_t id,
    const char *name, int64_t created_ms, struct settings_fixed *fixed,
    const char *patched)
{
    struct collection *c = mem_calloc(1, sizeof(*c));
    if (!c) {
        return ERR_NOMEM;
    }
    c->engine = engine;
    c->refs = 1;
    c->id = id;
    c->created_ms = created_ms;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->building, NULL);
    pthread_mutex_init(&c->admin, NULL);
    c->policy_last_ms = clock_mono_ms();
    c->name = mem_strdup(name);
    c->patched = mem_strdup(patched);
    enum err err = c->name && c->patched ? OK : ERR_NOMEM;
    if (!err) {
        err = document_template_new(&c->template, fixed->template_text, NULL);
    }
    if (!err) {
        err = roster_new(&c->roster);
    }
    if (!err) {
        err = columns_new(&c->columns);
    }
    if (!err) {
        err = settings_policy(patched, &c->policy, NULL, NULL);
    }
    if (err) {
        collection_unref(c);
        return err;
    }
    c->fixed = *fixed;
    *fixed = (struct settings_fixed){.dims = 0};
    *out = c;
    return OK;
}

struct collection *
collection_ref(struct collection *c)
{
    c->refs++;
    return c;
}

void
collection_unref(struct collection *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1) {
        return;
    }
    snapshot_unref(c->live);
    snapshot_unref(c->shadow);
    roster_free(c->roster);
    columns_free(c->columns);
    document_template_free(c->template);
    settings_fixed_release(&c->fixed);
    mem_free(c->patched);
    mem_free(c->name);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->building);
    pthread_mutex_destroy(&c->admin);
    mem_free(c);
}

void
collection_snapshots(
    struct collection *c, struct snapshot **live, struct snapshot **shadow)
{
    pthread_mutex_lock(&c->lock);
    *live = snapshot_ref(c->live);
    if (shadow) {
        *shadow = snapshot_ref(c->shadow);
    }
    pthread_mutex_unlock(&c->lock);
}

struct snapshot *
collection_live(struct collection *c)
{
    struct snapshot *live;
    collection_snapshots(c, &live, NULL);
    return live;
}

struct snapshot *
collection_shadow(struct collection *c)
{
    pthread_mutex_lock(&c->lock);
    struct snapshot *shadow = snapshot_ref(c->shadow);
    pthread_mutex_unlock(&c->lock);
    return shadow;
}

bool
collection_reads_images(const struct collection *c)
{
    return settings_reads(&c->fixed) == SETTINGS_READS_IMAGE;
}

void
collection_policy(struct collection *c, struct train_policy *out)
{
    pthread_mutex_lock(&c->lock);
    *out = c->policy;
    pthread_mutex_unlock(&c->lock);
}

/* ---- the registry -------------------------------------------------------- */

static struct collection *
find_name(struct engine *engine, const char *name)
{
    size_t lo = 0, hi = engine->n_collections;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(engine->collections[mid]->name, name);
        if (order == 0) {
            return engine->collections[mid];
        }
        if (order < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return NULL;
}

static struct alias_entry *
find_alias(struct engine *engine, const char *alias)
{
    for (size_t i = 0; i < engine->n_aliases; i++) {
        if (strcmp(engine->aliases[i].alias, alias) == 0) {
            return &engine->aliases[i];
        }
    }
    return NULL;
}

enum err
collection_find(struct engine *engine, const char *name,
    struct collection **out, struct fault *fault)
{
    pthread_rwlock_rdlock(&engine->registry);
    struct collection *c = find_name(engine, name);
    if (!c) {
        struct alias_entry *a = find_alias(engine, name);
        c = a ? a->collection : NULL;
    }
    if (c) {
        *out = collection_ref(c);
    }
    pthread_rwlock_unlock(&engine->registry);
    if (!c) {
        return fault_set(fault, ERR_NOT_FOUND, "",
            "there is no collection or alias \"%.64s\"", name);
    }
    return OK;
}

struct collection *
collection_by_id(struct engine *engine, int64_t id)
{
    struct collection *found = NULL;
    pthread_rwlock_rdlock(&engine->registry);
    for (size_t i = 0; i < engine->n_collections; i++) {
        if (engine->collections[i]->id == id) {
            found = collection_ref(engine->collections[i]);
            break;
        }
    }
    pthread_rwlock_unlock(&engine->registry);
    return found;
}

static bool
reserve_collections(struct engine *engine)
{
    if (engine->n_collections < engine->cap_collections) {
        return true;
    }
    size_t cap = engine->cap_collections * 2 + 8;
    struct collection **v =
        mem_realloc(engine->collections, cap, sizeof(struct collection *));
    if (!v) {
        return false;
    }
    engine->collections = v;
    engine->cap_collections = cap;
    return true;
}

enum err
collection_register(struct collection *c)
{
    struct engine *engine = c->engine;
    pthread_rwlock_wrlock(&engine->registry);
    bool ok = reserve_collections(engine);
    if (ok) {
        size_t i = engine->n_collections++;
        while (i > 0 && strcmp(engine->collections[i - 1]->name, c->name) > 0) {
            engine->collections[i] = engine->collections[i - 1];
            i--;
        }
        engine->collections[i] = c;
    }
    pthread_rwlock_unlock(&engine->registry);
    return ok ? OK : ERR_NOMEM;
}

void
collection_unregister(struct collection *c)
{
    struct engine *engine = c->engine;
    pthread_rwlock_wrlock(&engine->registry);
    size_t kept = 0;
    for (size_t i = 0; i < engine->n_collections; i++) {
        if (engine->collections[i] != c) {
            engine->collections[kept++] = engine->collections[i];
        }
    }
    engine->n_collections = kept;
    kept = 0;
    for (size_t i = 0; i < engine->n_aliases; i++) {
        if (engine->aliases[i].collection == c) {
            mem_free(engine->aliases[i].alias);
        } else {
            engine->aliases[kept++] = engine->aliases[i];
        }
    }
    engine->n_aliases = kept;
    pthread_rwlock_unlock(&engine->registry);
    pthread_mutex_lock(&c->lock);
    c->deleted = true;
    pthread_mutex_unlock(&c->lock);
}

enum err
collection_set_alias(
    struct engine *engine, const char *alias, struct collection *c)
{
    enum err err = OK;
    pthread_rwlock_wrlock(&engine->registry);
    struct alias_entry *a = find_alias(engine, alias);
    if (a) {
        a->collection = c;
    } else {
        if (engine->n_aliases == engine->cap_aliases) {
            size_t cap = engine->cap_aliases * 2 + 8;
            struct alias_entry *v =
                mem_realloc(engine->aliases, cap, sizeof(*v));
            if (v) {
                engine->aliases = v;
                engine->cap_aliases = cap;
            } else {
                err = ERR_NOMEM;
            }
        }
        char *copy = err ? NULL : mem_strdup(alias);
        if (copy) {
            engine->aliases[engine->n_aliases++] =
                (struct alias_entry){.alias = copy, .collection = c};
        } else {
            err = ERR_NOMEM;
        }
    }
    pthread_rwlock_unlock(&engine->registry);
    return err;
}

/* ---- creating ------------------------------------------------------------ */

struct create_op {
    const char *name;
    struct store_text fixed;
    struct store_text patched;
    const struct settings_fixed *settings;
    uint8_t fingerprint[SHA256_BYTES];
    int64_t imported; /* the encoder's row, 0: its settings say all */
    int64_t now_ms;
    int64_t id;
    int64_t generation_id;
    int64_t generation;
    int64_t space;
};

static enum err
run_create(struct db *db, void *arg)
{
    struct create_op *op = arg;
    enum err err = collections_create(db, store_text_of(op->name), op->fixed,
        op->patched, op->now_ms, &op->id);
    if (err) {
        return err;
    }
    struct generation_new first = {.dims = (int)op->settings->dims,
        .temperature = TEMPERATURE_START,
        .family = store_text_of(op->settings->family),
        .config = store_text_of(op->settings->config_json),
        .encoder = op->imported};
    memcpy(first.fingerprint, op->fingerprint, SHA256_BYTES);
    err = generations_create(db, op->id, &first, op->now_ms, &op->generation_id,
        &op->generation, &op->space);
    if (err) {
        return err;
    }
    struct generation_publish publish = {.collection = op->id,
        .generation = op->generation,
        .now_ms = op->now_ms};
    return generations_publish(db, &publish);
}

static enum err
create_in_memory(struct engine *engine, const struct create_op *op,
    struct settings_fixed *fixed, struct encoder_ref *encoder)
{
    struct collection *c = NULL;
    struct space_index *index = NULL;
    enum err err = collection_new(
        &c, engine, op->id, op->name, op->now_ms, fixed, op->patched.s);
    if (!err) {
        err = space_index_new(&index, op->space, c->fixed.dims, op->fingerprint,
            engine->scan_pool);
    }
    if (!err) {
        err = snapshot_new(&c->live, op->generation, op->generation_id,
            encoder_ref_more(encoder), index, TEMPERATURE_START);
    }
    if (!err) {
        err = collection_register(c);
    }
    if (err) {
        collection_unref(c);
    }
    return err;
}

static enum err
run_delete(struct db *db, void *arg)
{
    return collections_delete(db, *(const int64_t *)arg);
}

/* The encoder that a new collection starts with (takes `encoder`), and its
   complete settings. */
static enum err
take_encoder(struct engine *engine, struct settings_fixed *fixed,
    struct encoder *encoder, int64_t imported, struct encoder_ref **ref,
    struct fault *fault)
{
    struct encoder_source source = {.family = fixed->family,
        .config_json = fixed->config_json,
        .store = engine->store,
        .imported = imported};
    struct fault why = {.err = OK};
    enum err err =
        encoder_ref_share(ref, &engine->encoders, &source, encoder, &why);
    if (err && why.err) {
        char at[FAULT_POINTER_MAX];
        json_pointer(at, "/encoder_config",
            why.pointer[0] == '/' ? why.pointer + 1 : "");
        return fault_set(
            fault, err, why.pointer[0] ? at : "", "%s", why.detail);
    }
    char *config =
        err ? NULL : mem_strdup(encoder_config_json(encoder_ref_get(*ref)));
    if (config) {
        mem_free(fixed->config_json);
        fixed->config_json = config;
    }
    return err || config ? err : ERR_NOMEM;
}

static enum err
create(struct engine *engine, const char *name, const char *body,
    struct fault *fault)
{
    struct settings_fixed fixed = {.dims = 0};
    struct encoder *encoder = NULL;
    struct encoder_ref *ref = NULL;
    int64_t imported = 0;
    struct buf fixed_json, patched_json;
    buf_init(&fixed_json, SETTINGS_BYTES_MAX * 2);
    buf_init(&patched_json, SETTINGS_BYTES_MAX * 2);
    enum err err =
        imported_parse(engine, body, NULL, &fixed, &encoder, &imported, fault);
    if (!err) {
        err = settings_patch(NULL, body, &patched_json, fault);
    }
    if (!err && (encoder || imported)) {
        err = take_encoder(engine, &fixed, encoder, imported, &ref, fault);
        encoder = NULL;
    }
    if (!err) {
        settings_fixed_write(&fixed, &fixed_json);
        err = buf_status(&fixed_json);
    }
    struct create_op op = {.name = name,
        .fixed = {.s = fixed_json.data, .len = fixed_json.len},
        .patched = {.s = patched_json.data, .len = patched_json.len},
        .settings = &fixed,
        .imported = imported,
        .now_ms = clock_wall_ms()};
    if (!err) {
        space_fingerprint(encoder_ref_get(ref), fixed.dims, fixed.template_text,
            op.fingerprint);
        err = store_run(engine->store, run_create, &op);
    }
    if (!err) {
        err = create_in_memory(engine, &op, &fixed, ref);
        if (err) {
            /* Memory was out: the row goes again, or stays until a restart
               loads it, if not even that works. */
            enum err undo = store_run(engine->store, run_delete, &op.id);
            if (undo) {
                log_warn("engine", "create undo=%s", err_text(undo));
            }
        } else {
            log_info("engine", "collection created name=%s id=%lld encoder=%s",
                name, (long long)op.id, encoder_ref_get(ref) ? "own" : "none");
        }
    }
    if (err == ERR_NOT_FOUND) {
        err = fault_set(fault, ERR_INVALID, "/encoder",
            "the encoder \"%.60s\" was deleted meanwhile", fixed.encoder);
    }
    encoder_free(encoder);
    encoder_ref_less(ref);
    settings_fixed_release(&fixed);
    buf_release(&fixed_json);
    buf_release(&patched_json);
    return fault_of(fault, err, "creating the collection");
}

/* Do the fixed settings that a body gives agree with the collection's? */
static enum err
agree_fixed(struct collection *c, const char *body, struct fault *fault)
{
    struct json *root = NULL;
    enum err err =
        json_parse(body, strlen(body), SETTINGS_BYTES_MAX, &root, fault);
    if (err) {
        return err;
    }
    static const char *const keys[] = {
        "encoder", "family", "dims", "template", "encoder_config", "images"};
    bool any = false;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        any = any || json_find(root, keys[i]);
    }
    json_free(root);
    if (!any) {
        return OK;
    }
    struct settings_fixed asked = {.dims = 0};
    struct encoder *encoder = NULL;
    int64_t imported;
    err = imported_parse(
        c->engine, body, &c->fixed, &asked, &encoder, &imported, fault);
    if (err) {
        return err;
    }
    encoder_free(encoder);
    const char *pointer = NULL;
    if (strcmp(asked.encoder, c->fixed.encoder) != 0) {
        pointer = "/encoder";
    } else if (asked.dims != c->fixed.dims) {
        pointer = "/dims";
    } else if (strcmp(asked.template_text, c->fixed.template_text) != 0) {
        pointer = "/template";
    } else if (asked.vector_only != c->fixed.vector_only) {
        pointer = "/images";
    } else if (!settings_fixed_equal(&asked, &c->fixed)) {
        pointer = "/encoder_config";
    }
    settings_fixed_release(&asked);
    if (pointer) {
        return fault_set(fault, ERR_CONFLICT, pointer,
            "the collection exists with another value, which is fixed at its "
            "creation; it has %s, %zu dimensions",
            c->fixed.encoder, c->fixed.dims);
    }
    return OK;
}

enum err
engine_collection_put(struct engine *engine, const char *name,
    const char *settings_json, bool *created, struct arena *arena,
    struct engine_collection_info *out, struct fault *fault)
{
    enum err err = check_name(name, "a collection", "", fault);
    if (!err) {
        err = settings_check_keys(settings_json, fault);
    }
    if (err) {
        return err;
    }
    bool made = false;
    pthread_mutex_lock(&engine->creating);
    pthread_rwlock_rdlock(&engine->registry);
    struct collection *c = find_name(engine, name);
    bool is_alias = find_alias(engine, name) != NULL;
    if (c) {
        collection_ref(c);
    }
    pthread_rwlock_unlock(&engine->registry);
    if (c) {
        err = agree_fixed(c, settings_json, fault);
    } else if (is_alias) {
        err = fault_set(fault, ERR_CONFLICT, "", "\"%.64s\" is an alias", name);
    } else {
        err = create(engine, name, settings_json, fault);
        made = !err;
    }
    pthread_mutex_unlock(&engine->creating);
    collection_unref(c);
    if (!err) {
        err = engine_collection_get(engine, name, arena, out, fault);
    }
    if (!err) {
        *created = made;
    }
    return err;
}

/* ---- reading ------------------------------------------------------------- */

static enum err
describe(struct collection *c, struct db *db, struct arena *arena,
    struct engine_collection_info *out)
{
    struct collection_row row;
    struct pair_counts pairs;
    enum err err = collections_get(db, c->id, arena, &row);
    if (!err) {
        err = pairs_count(db, c->id, row.pairs_seen, &pairs);
    }
    int64_t n_images = 0, image_bytes = 0;
    if (!err) {
        err = images_count(db, c->id, &n_images, &image_bytes);
    }
    if (err) {
        return err;
    }
    struct buf settings;
    buf_init(&settings, SETTINGS_BYTES_MAX * 4);
    settings_fixed_write(&c->fixed, &settings);
    pthread_mutex_lock(&c->lock);
    if (settings.len > 0) {
        settings.data[settings.len - 1] = ','; /* join the two objects */
    }
    buf_add_str(&settings, c->patched + 1);
    struct snapshot *live = snapshot_ref(c->live);
    pthread_mutex_unlock(&c->lock);

    const struct encoder *encoder = encoder_ref_get(live->encoder);
    struct engine_collection_info info = {.created_ms = row.created_ms,
        .n_items = (int64_t)roster_count(c->roster),
        .reads = settings_reads_names[settings_reads(&c->fixed)],
        .n_images = n_images,
        .image_bytes = (uint64_t)image_bytes,
        .n_pairs_train = pairs.active[PAIR_TRAIN],
        .n_pairs_tune = pairs.active[PAIR_TUNE],
        .n_pairs_judge = pairs.active[PAIR_JUDGE],
        .n_pairs_aside = pairs.set_aside,
        .n_groups_judge = pairs.judge_groups,
        .generation = live->generation,
        .generation_previous = row.previous_generation,
        .generation_building = row.shadow_generation,
        .job_running = jobs_of_collection(c->engine->jobs, c->id),
        .temperature = live->temperature,
        .dims = c->fixed.dims,
        .trained = encoder && encoder_is_trained(encoder),
        .vector_bytes = ann_bytes(live->index->ann),
        .encoder_bytes = encoder ? encoder_bytes(encoder) : 0,
        .roster_bytes = roster_bytes(c->roster) + columns_bytes(c->columns)};
    for (size_t i = 0; i < PAIR_SPLITS; i++) {
        info.n_pairs += pairs.active[i];
        info.n_pairs_new += pairs.active_new[i];
    }
    memcpy(info.fingerprint, live->fingerprint, SHA256_HEX);
    snapshot_unref(live);
    err = buf_status(&settings);
    if (!err) {
        info.name = arena_strndup(arena, c->name, strlen(c->name));
        info.settings_json = arena_strndup(arena, settings.data, settings.len);
        err = info.name && info.settings_json ? OK : ERR_NOMEM;
    }
    buf_release(&settings);

    pthread_rwlock_rdlock(&c->engine->registry);
    struct engine *engine = c->engine;
    size_t n = 0;
    const char **aliases =
        arena_calloc(arena, MAX(engine->n_aliases, 1), sizeof(*aliases));
    for (size_t i = 0; aliases && i < engine->n_aliases; i++) {
        if (engine->aliases[i].collection == c) {
            const char *alias = engine->aliases[i].alias;
            aliases[n] = arena_strndup(arena, alias, strlen(alias));
            n += aliases[n] != NULL;
        }
    }
    pthread_rwlock_unlock(&engine->registry);
    info.aliases = aliases;
    info.n_aliases = n;
    if (!err && !aliases) {
        err = ERR_NOMEM;
    }
    if (!err) {
        *out = info;
    }
    return err;
}

static enum err
describe_alone(struct collection *c, struct arena *arena,
    struct engine_collection_info *out, struct fault *fault)
{
    struct db *db;
    enum err err = store_read_begin(c->engine->store, &db);
    if (!err) {
        err = describe(c, db, arena, out);
        store_read_end(c->engine->store, db);
    }
    return fault_of(fault, err, "reading the collection");
}

enum err
engine_collection_get(struct engine *engine, const char *name,
    struct arena *arena, struct engine_collection_info *out,
    struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, name, &c, fault);
    if (!err) {
        err = describe_alone(c, arena, out, fault);
        collection_unref(c);
    }
    return err;
}

enum err
engine_collections_list(struct engine *engine, struct arena *arena,
    struct engine_collection_info **out, size_t *n, struct fault *fault)
{
    pthread_rwlock_rdlock(&engine->registry);
    size_t count = engine->n_collections;
    struct collection **all =
        arena_calloc(arena, MAX(count, 1), sizeof(struct collection *));
    for (size_t i = 0; all && i < count; i++) {
        all[i] = collection_ref(engine->collections[i]);
    }
    pthread_rwlock_unlock(&engine->registry);
    struct engine_collection_info *infos =
        arena_calloc(arena, MAX(count, 1), sizeof(*infos));
    enum err err = all && infos ? OK : ERR_NOMEM;
    struct db *db = NULL;
    if (!err) {
        err = store_read_begin(engine->store, &db);
    }
    size_t given = 0;
    for (size_t i = 0; all && i < count; i++) {
        if (!err) {
            err = describe(all[i], db, arena, &infos[given]);
            given += !err;
            err = err == ERR_NOT_FOUND ? OK : err; /* deleted meanwhile */
        }
        collection_unref(all[i]);
    }
    store_read_end(engine->store, db);
    if (!err) {
        *out = infos;
        *n = given;
    }
    return fault_of(fault, err, "listing the collections");
}

/* ---- changing ------------------------------------------------------------ */

struct patch_op {
    struct collection *c;
    struct store_text patched;
    char *copy; /* becomes the collection's */
    struct train_policy policy;
    int64_t now_ms;
};

static enum err
run_patch(struct db *db, void *arg)
{
    struct patch_op *op = arg;
    return collections_patch(db, op->c->id, op->patched, op->now_ms);
}

static void
done_patch(void *arg, enum err err)
{
    struct patch_op *op = arg;
    if (!err) {
        pthread_mutex_lock(&op->c->lock);
        char *old = op->c->patched;
        op->c->patched = op->copy;
        op->c->policy = op->policy;
        pthread_mutex_unlock(&op->c->lock);
        op->copy = old;
    }
}

static enum err
patch(struct collection *c, const char *body, struct fault *fault)
{
    struct buf text;
    buf_init(&text, SETTINGS_BYTES_MAX * 2);
    struct patch_op op = {.c = c, .now_ms = clock_wall_ms()};
    /* One patch at a time, or one of two would be lost. */
    pthread_mutex_lock(&c->engine->creating);
    pthread_mutex_lock(&c->lock);
    char *present = mem_strdup(c->patched);
    pthread_mutex_unlock(&c->lock);
    enum err err = present ? OK : ERR_NOMEM;
    if (!err) {
        err = settings_patch(present, body, &text, fault);
    }
    if (!err) {
        err = settings_policy(text.data, &op.policy, NULL, fault);
    }
    if (!err) {
        op.copy = mem_strndup(text.data, text.len);
        op.patched = (struct store_text){.s = text.data, .len = text.len};
        err = op.copy ? OK : ERR_NOMEM;
    }
    if (!err) {
        struct store_op write = {
            .run = run_patch, .done = done_patch, .arg = &op};
        err = store_write(c->engine->store, &write);
    }
    pthread_mutex_unlock(&c->engine->creating);
    mem_free(op.copy);
    mem_free(present);
    buf_release(&text);
    return err;
}

enum err
engine_collection_patch(struct engine *engine, const char *name,
    const char *patch_json, struct arena *arena,
    struct engine_collection_info *out, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, name, &c, fault);
    if (err) {
        return err;
    }
    err = settings_check_keys(patch_json, fault);
    if (!err) {
        err = agree_fixed(c, patch_json, fault);
    }
    if (!err) {
        err = patch(c, patch_json, fault);
    }
    if (!err) {
        err = describe_alone(c, arena, out, fault);
    }
    collection_unref(c);
    return fault_of(fault, err, "changing the collection");
}

static void
done_delete(void *arg, enum err err)
{
    struct collection *c = arg;
    if (!err) {
        collection_unregister(c);
    }
}

static enum err
run_delete_checked(struct db *db, void *arg)
{
    struct collection *c = arg;
    int64_t job;
    enum err err =
        jobs_find_unfinished(db, c->id, (struct store_text){.s = NULL}, &job);
    if (!err) {
        return ERR_CONFLICT;
    }
    return err == ERR_NOT_FOUND ? collections_delete(db, c->id) : err;
}

enum err
engine_collection_delete(
    struct engine *engine, const char *name, struct fault *fault)
{
    struct collection *c = NULL;
    pthread_rwlock_rdlock(&engine->registry);
    struct collection *found = find_name(engine, name);
    if (found) {
        c = collection_ref(found);
    }
    bool is_alias = find_alias(engine, name) != NULL;
    pthread_rwlock_unlock(&engine->registry);
    if (!c) {
        return fault_set(fault, is_alias ? ERR_CONFLICT : ERR_NOT_FOUND, "",
            is_alias ? "\"%.64s\" is an alias; name the collection itself"
                     : "there is no collection \"%.64s\"",
            name);
    }
    struct store_op op = {
        .run = run_delete_checked, .done = done_delete, .arg = c};
    enum err err = store_write(engine->store, &op);
    if (err == ERR_CONFLICT) {
        fault_set(fault, err, "",
            "job %lld of the collection is not finished; cancel it first",
            (long long)jobs_of_collection(engine->jobs, c->id));
        if (fault) {
            fault->extra_id = jobs_of_collection(engine->jobs, c->id);
        }
    }
    if (!err) {
        log_info("engine", "collection deleted id=%lld", (long long)c->id);
        collection_unref(c); /* the registry's */
        keeper_wake(engine->keeper);
    }
    collection_unref(c);
    return fault_of(fault, err, "deleting the collection");
}

/* ---- aliases ------------------------------------------------------------- */

struct alias_op {
    const char *alias;
    int64_t collection;
    int64_t now_ms;
    bool created;
};

static enum err
run_alias_put(struct db *db, void *arg)
{
    struct alias_op *op = arg;
    return aliases_put(
        db, store_text_of(op->alias), op->collection, op->now_ms, &op->created);
}

static enum err
run_alias_delete(struct db *db, void *arg)
{
    struct alias_op *op = arg;
    return aliases_delete(db, store_text_of(op->alias));
}

enum err
engine_alias_put(struct engine *engine, const char *alias,
    const char *collection, bool *created, struct fault *fault)
{
    enum err err = check_name(alias, "an alias", "", fault);
    if (err) {
        return err;
    }
    pthread_mutex_lock(&engine->creating);
    pthread_rwlock_rdlock(&engine->registry);
    struct collection *c = find_name(engine, collection);
    bool taken = find_name(engine, alias) != NULL;
    if (c) {
        collection_ref(c);
    }
    pthread_rwlock_unlock(&engine->registry);
    struct alias_op op = {.alias = alias, .now_ms = clock_wall_ms()};
    if (taken) {
        err = fault_set(fault, ERR_CONFLICT, "",
            "there is a collection named \"%.64s\"", alias);
    } else if (!c) {
        err = fault_set(fault, ERR_NOT_FOUND, "/collection",
            "there is no collection \"%.64s\"", collection);
    } else {
        op.collection = c->id;
        err = store_run(engine->store, run_alias_put, &op);
    }
    if (!err) {
        err = collection_set_alias(engine, alias, c);
    }
    pthread_mutex_unlock(&engine->creating);
    collection_unref(c);
    if (!err) {
        *created = op.created;
    }
    return fault_of(fault, err, "setting the alias");
}

enum err
engine_alias_get(struct engine *engine, const char *alias, struct arena *arena,
    struct engine_alias *out, struct fault *fault)
{
    struct engine_alias found = {.alias = NULL};
    pthread_rwlock_rdlock(&engine->registry);
    struct alias_entry *a = find_alias(engine, alias);
    if (a) {
        const char *name = a->collection->name;
        found.alias = arena_strndup(arena, alias, strlen(alias));
        found.collection = arena_strndup(arena, name, strlen(name));
    }
    pthread_rwlock_unlock(&engine->registry);
    if (!a) {
        return fault_set(
            fault, ERR_NOT_FOUND, "", "there is no alias \"%.64s\"", alias);
    }
    if (!found.alias || !found.collection) {
        return fault_of(fault, ERR_NOMEM, "reading the alias");
    }
    *out = found;
    return OK;
}

enum err
engine_aliases_list(struct engine *engine, struct arena *arena,
    struct engine_alias **out, size_t *n, struct fault *fault)
{
    enum err err = OK;
    pthread_rwlock_rdlock(&engine->registry);
    size_t count = engine->n_aliases;
    struct engine_alias *list =
        arena_calloc(arena, MAX(count, 1), sizeof(*list));
    for (size_t i = 0; list && i < count && !err; i++) {
        const struct alias_entry *a = &engine->aliases[i];
        const char *name = a->collection->name;
        list[i].alias = arena_strndup(arena, a->alias, strlen(a->alias));
        list[i].collection = arena_strndup(arena, name, strlen(name));
        err = list[i].alias && list[i].collection ? OK : ERR_NOMEM;
    }
    pthread_rwlock_unlock(&engine->registry);
    if (!list) {
        err = ERR_NOMEM;
    }
    if (!err) {
        *out = list;
        *n = count;
    }
    return fault_of(fault, err, "listing the aliases");
}

enum err
engine_alias_delete(
    struct engine *engine, const char *alias, struct fault *fault)
{
    struct alias_op op = {.alias = alias};
    pthread_mutex_lock(&engine->creating);
    enum err err = store_run(engine->store, run_alias_delete, &op);
    if (!err) {
        pthread_rwlock_wrlock(&engine->registry);
        struct alias_entry *a = find_alias(engine, alias);
        if (a) {
            mem_free(a->alias);
            *a = engine->aliases[--engine->n_aliases];
        }
        pthread_rwlock_unlock(&engine->registry);
    }
    pthread_mutex_unlock(&engine->creating);
    if (err == ERR_NOT_FOUND) {
        return fault_set(fault, err, "", "there is no alias \"%.64s\"", alias);
    }
    return fault_of(fault, err, "deleting the alias");
}
