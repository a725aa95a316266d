/* The engine's life and figures. */
#include "engine/engine.h"

#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "kern/kern.h"
#include "engine/impressions.h"
#include "engine/batcher.h"
#include "engine/internal.h"
#include "engine/learn.h"
#include "engine/pictures.h"
#include "engine/stream.h"

#define IMPRESSIONS_DEFAULT 10000
#define WRITER_CACHE_KIB 12288 /* it stays resident */

static size_t
processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : MIN((size_t)n, 64);
}

static enum err
start(struct engine *engine, const struct engine_config *config,
    struct fault *fault)
{
    size_t tuners =
        config->n_tuner_threads ? config->n_tuner_threads : engine->n_threads;
    size_t impressions =
        config->impressions_max ? config->impressions_max : IMPRESSIONS_DEFAULT;
    enum err err = pool_new(&engine->encode_pool, engine->n_threads, false);
    if (!err) {
        err = picture_gate_new(&engine->gate, config->picture_waits_max);
    }
    if (!err) {
        err = batcher_new(
            &engine->batcher, engine->n_threads, engine->encode_pool);
    }
    if (!err) {
        err = pool_new(&engine->scan_pool, engine->n_threads, false);
    }
    if (!err) {
        err = pool_new(&engine->tuner_pool, tuners, true);
    }
    if (!err) {
        err = impressions_new(&engine->impressions, impressions);
    }
    if (!err) {
        struct store_options options = {.writer_cache_kib = WRITER_CACHE_KIB};
        err = store_open(&engine->store, config->data_dir, &options, fault);
    }
    if (!err) {
        stream_sweep(engine->data_dir);
        err = imported_start(engine);
    }
    if (!err) {
        err = load_collections(engine, fault);
    }
    if (!err) {
        err = jobs_open(&engine->jobs, engine);
    }
    if (!err) {
        err = jobs_resume(engine->jobs);
    }
    if (!err) {
        err = keeper_start(&engine->keeper, engine);
    }
    if (!err) {
        err = jobs_start(engine->jobs);
    }
    return fault_of(fault, err, "starting");
}

enum err
engine_open(struct engine **out, const struct engine_config *config,
    struct fault *fault)
{
    struct engine *engine = mem_calloc(1, sizeof(*engine));
    if (!engine) {
        return fault_of(fault, ERR_NOMEM, "starting");
    }
    int64_t began = clock_mono_ms();
    mem_setup();
    kern_init(); /* before any thread of ours starts */
    pthread_rwlock_init(&engine->registry, NULL);
    pthread_mutex_init(&engine->creating, NULL);
    pthread_mutex_init(&engine->families, NULL);
    pthread_mutex_init(&engine->importing, NULL);
    pthread_mutex_init(&engine->asking, NULL);
    encoder_registry_init(&engine->encoders);
    engine->n_threads = config->n_threads ? config->n_threads : processors();
    engine->text_bytes_max =
        config->text_bytes_max ? config->text_bytes_max : ENGINE_TEXT_BYTES_MAX;
    engine->image_bytes_max =
        MIN(config->image_bytes_max ? config->image_bytes_max : IMAGE_BYTES_MAX,
            IMAGE_STORED_BYTES_MAX);
    engine->image_pixels_max =
        config->image_pixels_max ? config->image_pixels_max : IMAGE_PIXELS_MAX;
    engine->event_hook = config->event_hook;
    engine->event_hook_arg = config->event_hook_arg;
    engine->data_dir = mem_strdup(config->data_dir);
    enum err err = engine->data_dir ? start(engine, config, fault)
                                    : fault_of(fault, ERR_NOMEM, "starting");
    if (err) {
        engine_close(engine);
        return err;
    }
    engine->ready = true;
    log_info("engine", "open collections=%zu ms=%lld", engine->n_collections,
        (long long)(clock_mono_ms() - began));
    *out = engine;
    return OK;
}

void
engine_close(struct engine *engine)
{
    if (!engine) {
        return;
    }
    engine->ready = false;
    jobs_stop(engine->jobs);
    keeper_stop(engine->keeper);
    engine->keeper = NULL;
    jobs_close(engine->jobs);
    store_close(engine->store);
    for (size_t i = 0; i < engine->n_collections; i++) {
        collection_unref(engine->collections[i]);
    }
    for (size_t i = 0; i < engine->n_aliases; i++) {
        mem_free(engine->aliases[i].alias);
    }
    mem_free(engine->collections);
    mem_free(engine->aliases);
    impressions_free(engine->impressions);
    pool_free(engine->encode_pool);
    pool_free(engine->scan_pool);
    pool_free(engine->tuner_pool);
    picture_gate_free(engine->gate);
    batcher_free(engine->batcher);
    encoder_ref_less(engine->asked);
    encoder_registry_release(&engine->encoders);
    pthread_rwlock_destroy(&engine->registry);
    pthread_mutex_destroy(&engine->creating);
    pthread_mutex_destroy(&engine->families);
    pthread_mutex_destroy(&engine->importing);
    pthread_mutex_destroy(&engine->asking);
    mem_free(engine->static_config);
    mem_free(engine->vision_config);
    mem_free(engine->data_dir);
    mem_free(engine);
}

void
engine_stop_jobs(struct engine *engine)
{
    jobs_stop(engine->jobs);
}

void
engine_health(const struct engine *engine, struct engine_health *out)
{
    struct store_stats stats;
    store_get_stats(engine->store, &stats);
    *out = (struct engine_health){.ready = engine->ready,
        .read_only = stats.read_only,
        .disk_full = stats.disk_full};
}

void
engine_yield_to_searches(struct engine *engine)
{
    for (int i = 0; i < 2 && engine->totals.searches_running; i++) {
        clock_sleep_ms(1);
    }
}

/* ---- figures ------------------------------------------------------------- */

void
engine_counters(const struct engine *engine, struct engine_counters *out)
{
    const struct engine_totals *t = &engine->totals;
    struct store_stats s;
    store_get_stats(engine->store, &s);
    *out = (struct engine_counters){.searches = t->searches,
        .searches_failed = t->searches_failed,
        .search_ns = t->search_ns,
        .rows_scanned = t->rows_scanned,
        .rows_rescored = t->rows_rescored,
        .items_written = t->items_written,
        .items_unchanged = t->items_unchanged,
        .items_deleted = t->items_deleted,
        .texts_encoded = t->texts_encoded,
        .encode_ns = t->encode_ns,
        .images_decoded = t->images_decoded,
        .decode_ns = t->decode_ns,
        .pairs_written = t->pairs_written,
        .feedback = t->feedback,
        .commits = s.commits,
        .commit_ops = s.ops,
        .commit_conflicts = t->commit_conflicts,
        .write_queue = s.queue_ops,
        .searches_running = t->searches_running,
        .jobs_started = t->jobs_started,
        .jobs_promoted = t->jobs_promoted,
        .jobs_refused = t->jobs_refused,
        .jobs_failed = t->jobs_failed,
        .reembedded = t->reembedded};
}

static const char *const image_types[] = {
    "image/jpeg", "image/png", "image/webp", NULL};

/* The complete settings of pictures' default encoder, made when they are asked
   for the first time; under engine->families. */
static enum err
know_vision(struct engine *engine)
{
    struct encoder *encoder;
    struct buf config;
    if (engine->vision_config) {
        return OK;
    }
    buf_init(&config, SETTINGS_BYTES_MAX);
    enum err err = encoder_new(&encoder, "vision", "{}", &config, NULL);
    if (!err) {
        engine->vision_dims = encoder_dims(encoder);
        engine->vision_config = mem_strdup(config.data ? config.data : "{}");
        encoder_free(encoder);
        err = engine->vision_config ? OK : ERR_NOMEM;
    }
    buf_release(&config);
    return err;
}

/* The encoders on offer; their default settings come from the encoder. */
static enum err
describe_encoders(
    struct engine *engine, struct arena *arena, struct engine_info *info)
{
    struct engine_encoder_info *e = arena_calloc(arena, 3, sizeof(*e));
    if (!e) {
        return ERR_NOMEM;
    }
    const char *config = "{}", *vision = "{}";
    pthread_mutex_lock(&engine->families);
    if (know_vision(engine) == OK) {
        vision = arena_strndup(
            arena, engine->vision_config, strlen(engine->vision_config));
    }
    if (engine->static_config) {
        config = arena_strndup(
            arena, engine->static_config, strlen(engine->static_config));
    }
    pthread_mutex_unlock(&engine->families);
    e[0] = (struct engine_encoder_info){.name = "static",
        .reads = "text",
        .description = "hashed words and character n-grams with learned "
                       "weights; any language, no download; trainable",
        .config_json = config,
        .dims_default = 512,
        .dims_min = 32,
        .dims_max = ENCODER_DIMS_MAX};
    e[1] = (struct engine_encoder_info){.name = "vision",
        .reads = "image",
        .description = "a convolutional network over pictures; no download; "
                       "trainable on the pictures themselves",
        .config_json = vision,
        .dims_default = engine->vision_dims,
        .dims_min = ENCODER_DIMS_MIN,
        .dims_max = 1024};
    e[2] = (struct engine_encoder_info){.name = SETTINGS_EXTERNAL,
        .reads = "nothing",
        .description = "the client brings a vector with each item",
        .config_json = "{}",
        .dims_default = SETTINGS_EXTERNAL_DIMS,
        .dims_min = ENCODER_DIMS_MIN,
        .dims_max = ENCODER_DIMS_MAX};
    info->encoders = e;
    info->n_encoders = 3;
    return config && vision ? OK : ERR_NOMEM;
}

/* Of an encoder that no other collection shares. */
static uint64_t
own_encoder_bytes(const struct snapshot *snapshot)
{
    const struct encoder_ref *ref = snapshot->encoder;
    return ref && !encoder_ref_is_shared(ref)
               ? encoder_bytes(encoder_ref_get(ref))
               : 0;
}

enum err
engine_info(struct engine *engine, struct arena *arena, struct engine_info *out,
    struct fault *fault)
{
    struct store_stats stats;
    store_get_stats(engine->store, &stats);
    struct engine_info info = {.kernels = kern()->name,
        .n_threads = engine->n_threads,
        .text_bytes_max = engine->text_bytes_max,
        .image_bytes_max = engine->image_bytes_max,
        .image_pixels_max = engine->image_pixels_max,
        .image_types = image_types,
        .encoder_bytes = encoder_registry_bytes(&engine->encoders),
        .file_bytes = (uint64_t)(stats.file_bytes + stats.log_bytes),
        .schema_version = stats.schema_version};
    enum err err = describe_encoders(engine, arena, &info);
    pthread_rwlock_rdlock(&engine->registry);
    info.n_collections = engine->n_collections;
    for (size_t i = 0; i < engine->n_collections; i++) {
        struct collection *c = engine->collections[i];
        struct snapshot *live, *shadow;
        collection_snapshots(c, &live, &shadow);
        info.n_items += (int64_t)roster_count(c->roster);
        info.roster_bytes +=
            roster_bytes(c->roster) + columns_bytes(c->columns);
        info.vector_bytes += ann_bytes(live->index->ann);
        info.encoder_bytes += own_encoder_bytes(live);
        if (shadow) {
            info.vector_bytes += ann_bytes(shadow->index->ann);
            info.encoder_bytes += own_encoder_bytes(shadow);
        }
        snapshot_unref(live);
        snapshot_unref(shadow);
    }
    pthread_rwlock_unlock(&engine->registry);
    if (!err) {
        *out = info;
    }
    return fault_of(fault, err, "describing the service");
}

/* ---- training ------------------------------------------------------------ */

enum err
engine_train(struct engine *engine, const char *collection,
    const char *options_json, int64_t *id, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct buf given, merged;
    struct train_policy policy;
    buf_init(&given, SETTINGS_BYTES_MAX);
    buf_init(&merged, SETTINGS_BYTES_MAX);
    int64_t running = jobs_of_collection(engine->jobs, c->id);
    if (strcmp(c->fixed.encoder, SETTINGS_EXTERNAL) == 0) {
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "the collection brings its own vectors: there is no encoder to "
            "train");
    } else if (c->fixed.vector_only) {
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "the collection keeps only the vectors of its pictures "
            "(\"images\": \"vector\"): there is nothing to train on");
    } else if (running) {
        err = fault_set(fault, ERR_CONFLICT, "",
            "job %lld of this collection is not finished", (long long)running);
        if (fault) {
            fault->extra_id = running;
        }
    }
    if (!err) {
        pthread_mutex_lock(&c->lock);
        err = settings_policy(c->patched, &policy, &given, NULL);
        pthread_mutex_unlock(&c->lock);
    }
    if (!err) {
        err = learn_merge_options(
            given.data, options_json ? options_json : "{}", &merged, fault);
    }
    if (!err) {
        err = learn_check_options(merged.data, fault);
    }
    if (!err) {
        err = learn_check_data(engine, c, merged.data, fault);
    }
    if (!err) {
        err =
            jobs_queue(engine->jobs, c, JOB_KIND_TRAIN, merged.data, id, fault);
    }
    buf_release(&given);
    buf_release(&merged);
    collection_unref(c);
    return fault_of(fault, err, "starting a round");
}
