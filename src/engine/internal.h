/*
 * internal.h - what the files of engine/ know of each other: the engine, a
 * collection, and how to hold them.
 *
 * Locks, in this order, each held for the time of a few instructions or one
 * table look-up: engine.registry < collection.lock < the index's, the roster's,
 * the columns'. collection.admin (one switch of generations at a time) and
 * collection.building (one column at a time) are held over store calls and are
 * taken before all others; no query waits for them but one that needs a new
 * column.
 *
 * What lives in memory changes in the store's writer thread only, in the done
 * part of the operation that changed the file; so memory follows the file in
 * commit order.
 */
#ifndef ENGINE_INTERNAL_H
#define ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/pool.h"
#include "store/collections.h"
#include "store/encoders.h"
#include "store/generations.h"
#include "store/images.h"
#include "store/items.h"
#include "store/store.h"
#include "store/vectors.h"
#include "engine/columns.h"
#include "engine/document.h"
#include "engine/engine.h"
#include "engine/filter.h"
#include "engine/jobs.h"
#include "engine/roster.h"
#include "engine/settings.h"
#include "engine/snapshot.h"

struct batcher;
struct impressions;
struct keeper;
struct picture_gate;
struct weights_writer;

#define TEMPERATURE_START 0.05 /* of an untrained generation */
#define SMALL_ARENA_BYTES ((size_t)4 << 20)

struct collection {
    struct engine *engine;
    atomic_size_t refs;
    int64_t id;
    char *name;
    int64_t created_ms;
    struct settings_fixed fixed;
    struct document_template *template;
    struct roster *roster;
    struct columns *columns;
    pthread_mutex_t building; /* a column */
    pthread_mutex_t admin;    /* register, publish, promote, discard */

    pthread_mutex_t lock; /* over the following */
    struct snapshot *live;
    struct snapshot *shadow; /* NULL: none */
    int64_t previous_generation;
    char *patched;
    struct train_policy policy;
    bool deleted;

    atomic_size_t pending_rows; /* reserved for operations under way */
    atomic_bool has_pairs;
    /* keeper's alone */
    int64_t policy_pairs_upto;      /* pairs up to here had their round */
    int64_t policy_last_ms;         /* monotonic, when a round last ended */
    atomic_bool policy_round_ended; /* set by the tuner */
};

struct alias_entry {
    char *alias;
    struct collection *collection; /* borrowed: the registry's */
};

struct engine_totals {
    atomic_uint_fast64_t searches, searches_failed, search_ns, rows_scanned,
        rows_rescored, items_written, items_unchanged, items_deleted,
        texts_encoded, encode_ns, images_decoded, decode_ns, pairs_written,
        feedback, commit_conflicts, searches_running, jobs_started,
        jobs_promoted, jobs_refused, jobs_failed, reembedded;
};

struct engine {
    char *data_dir;
    size_t n_threads;
    size_t text_bytes_max;
    size_t image_bytes_max;
    uint64_t image_pixels_max;
    struct store *store;
    struct pool *encode_pool;  /* large batches of ingest and embeddings */
    struct pool *scan_pool;    /* single scans of large indexes */
    struct pool *tuner_pool;   /* idle priority: training, re-embedding */
    struct picture_gate *gate; /* large pictures take turns */
    struct batcher *batcher;   /* texts of queries */
    struct encoder_registry encoders;

    pthread_rwlock_t registry;       /* over the following */
    struct collection **collections; /* by name */
    size_t n_collections;
    size_t cap_collections;
    struct alias_entry *aliases;
    size_t n_aliases;
    size_t cap_aliases;

    pthread_mutex_t importing; /* one encoder at a time */
    pthread_mutex_t asking;    /* over asked */
    struct encoder_ref *asked; /* the imported encoder that was last used by its
                                  name, so that the next use need not load it */

    pthread_mutex_t creating; /* one collection or alias at a time */
    pthread_mutex_t families; /* over the following */
    char *static_config;      /* complete settings of the default encoder,
                                 once they are known */
    char *vision_config;      /* the same of pictures' */
    size_t vision_dims;
    struct impressions *impressions;
    struct jobs *jobs;
    struct keeper *keeper;
    engine_event_hook *event_hook;
    void *event_hook_arg;
    struct engine_totals totals;
    atomic_bool ready;
};

/* ---- collections (collection.c, load.c) ---------------------------------- */

/* By name or alias; a reference. ERR_NOT_FOUND with the name. */
enum err collection_find(struct engine *engine, const char *name,
    struct collection **out, struct fault *fault) NODISCARD;
/* By the store's number; NULL: gone. A reference. */
struct collection *collection_by_id(struct engine *engine, int64_t id);
struct collection *collection_ref(struct collection *c);
void collection_unref(struct collection *c);

/* References of the live and the shadow snapshot (NULL: none) as of one
   moment; shadow may be NULL when it is not wanted. */
void collection_snapshots(
    struct collection *c, struct snapshot **live, struct snapshot **shadow);
struct snapshot *collection_live(struct collection *c);
struct snapshot *collection_shadow(struct collection *c); /* or NULL */

void collection_policy(struct collection *c, struct train_policy *out);

/* An unregistered collection in memory, empty, one reference. Takes fixed's
   strings on success. */
enum err collection_new(struct collection **out, struct engine *engine,
    int64_t id, const char *name, int64_t created_ms,
    struct settings_fixed *fixed, const char *patched) NODISCARD;
/* Does its encoder read pictures? */
bool collection_reads_images(const struct collection *c);
/* Put it into the registry, which takes the reference. */
enum err collection_register(struct collection *c) NODISCARD;
/* Take it out; gives the registry's reference to the caller. */
void collection_unregister(struct collection *c);

/* Point an alias at a collection, in memory. */
enum err collection_set_alias(
    struct engine *engine, const char *alias, struct collection *c) NODISCARD;

/* load.c: bring every collection of the file into memory. */
enum err load_collections(struct engine *engine, struct fault *fault) NODISCARD;
/*
 * load_snapshot - a generation as a snapshot with its encoder and an index:
 * that of `same` when it is of the same space, else a new empty one.
 */
enum err load_snapshot(struct collection *c, int64_t generation,
    struct snapshot *same, struct snapshot **out,
    struct fault *fault) NODISCARD;

/* lineage.c: the encoder of a generation whose weights are there; NULL when it
   is external. */
enum err load_encoder(struct engine *engine, const struct generation_row *row,
    struct encoder_ref **out, struct fault *fault) NODISCARD;
/* An encoder through a writer that was just created; ends it in any case. */
enum err save_encoder(
    struct weights_writer *writer, const struct encoder *encoder) NODISCARD;

/* Item numbers with their ordinals, by number. */
struct item_map {
    int64_t *items;
    uint32_t *ords;
    size_t n;
};
enum err item_map_new(struct item_map *out, struct roster *roster) NODISCARD;
void item_map_release(struct item_map *map);
uint32_t item_map_find(const struct item_map *map, int64_t item);

/* ---- imported encoders (encoders.c) -------------------------------------- */

/* By name, in the arena. ERR_NOT_FOUND without a fault. */
enum err imported_find(struct engine *engine, const char *name,
    struct arena *arena, struct encoder_row *out) NODISCARD;
/* As settings_fixed_parse, with the imported encoders of the file; imported
   gives the encoder's row, 0: it is none of them. */
enum err imported_parse(struct engine *engine, const char *body,
    const struct settings_fixed *base, struct settings_fixed *out,
    struct encoder **encoder, int64_t *imported, struct fault *fault) NODISCARD;
/* The encoder with its own settings, kept loaded for the next use. */
enum err imported_share(struct engine *engine, const struct encoder_row *row,
    struct encoder_ref **out, struct fault *fault) NODISCARD;
/* At start: what a crash left half-imported goes. */
enum err imported_start(struct engine *engine) NODISCARD;

/* ---- names and texts (check.c) ------------------------------------------- */

enum err check_item_id(
    const char *id, const char *pointer, struct fault *fault) NODISCARD;
enum err check_name(const char *name, const char *what, const char *pointer,
    struct fault *fault) NODISCARD;
/* Well-formed UTF-8? */
bool check_utf8(const char *s, size_t len);
/* "PREFIX/i" into out. */
void pointer_index(char out[FAULT_POINTER_MAX], const char *prefix, size_t i);
/* The text of an error that came from below without a fault of its own. */
enum err fault_of(struct fault *fault, enum err err, const char *what);
/* x / |x| in place; false when it is zero or not finite. */
bool normalize(float *x, size_t n);

/* In the writer thread: an item's metadata (NULL: none) into the columns. */
void index_metadata(
    struct collection *c, uint32_t ord, const char *metadata, size_t len);

/* ---- filters (select.c) -------------------------------------------------- */

/* An ann_filter's bits for a filter, columns built as needed; bits in the
   arena. Call between roster_enter and roster_leave. */
enum err select_rows(struct collection *c, const char *filter_json,
    const char *pointer, struct arena *arena, struct ann_filter *out,
    struct fault *fault) NODISCARD;

/* ---- lineage (lineage.c): for the learner -------------------------------- */

/* A candidate generation, as training made it. */
struct candidate {
    struct encoder *encoder; /* taken */
    double temperature;
    uint64_t seed;
    int64_t pairs_upto;      /* highest pair id that was collected */
    const char *report_json; /* or NULL */
};

/*
 * lineage_register - a candidate becomes a building generation and the
 * collection's shadow: its weights are saved, and from the change sequence S0
 * on every write is embedded for it as well.
 *
 *   job   the job that makes it, 0: none
 *   out   gives the shadow's snapshot; snapshot_unref
 *
 * On failure nothing of it is left but perhaps a row that says "discarded".
 * ERR_CONFLICT when the collection has a shadow already.
 */
enum err lineage_register(struct collection *c, struct candidate *candidate,
    int64_t job, struct snapshot **out, struct fault *fault) NODISCARD;

/* The generation becomes live with this temperature and report; the live one
   previous. The job (NULL: none) ends as state with result, in the same
   transaction. ERR_CONFLICT when items are missing in its space: embed them
   (reembed_run) and try again. */
enum err lineage_publish(struct collection *c, struct snapshot *snapshot,
    double temperature, const char *report_json, struct job *job,
    enum job_state state, const char *result_json,
    struct fault *fault) NODISCARD;

/* A building generation ends as GENERATION_REFUSED or _DISCARDED, with a
   report (or NULL); it is no shadow any more. */
enum err lineage_discard(struct collection *c, int64_t generation,
    enum generation_state state, const char *report_json,
    struct fault *fault) NODISCARD;

/* After a job: a candidate that it left behind is discarded, and the shadow
   role of a kept generation (a rollback that was given up) ends. */
void lineage_clean_up(struct collection *c);

/* The body of a "reembed" job: promote the generation of its options. */
enum err lineage_promote_run(
    struct engine *engine, struct collection *c, struct job *job) NODISCARD;

/* ---- re-embedding (reembed.c) -------------------------------------------- */

/* Told now and then; false stops. */
typedef bool reembed_progress_fn(void *arg, int64_t done, int64_t total);

struct reembed_options {
    struct pool *pool;             /* NULL: the calling thread alone */
    bool gentle;                   /* pause while searches run */
    reembed_progress_fn *progress; /* or NULL */
    void *progress_arg;
};
/*
 * reembed_run - embed for the shadow every item that it lacks, until none is
 * missing; its index is then complete. Resumable: what is stored stays.
 * ERR_CANCELLED when progress says so; ERR_CONFLICT when the snapshot is not
 * the collection's shadow any more.
 */
enum err reembed_run(struct collection *c, struct snapshot *shadow,
    const struct reembed_options *options) NODISCARD;
/* Bring the vectors that the file has in the shadow's space into its index. */
enum err reembed_load_index(
    struct collection *c, struct snapshot *shadow) NODISCARD;

/* ---- others -------------------------------------------------------------- */

/* A few milliseconds of pause (2 at most) when searches are running: between
   the micro-batches of a job. */
void engine_yield_to_searches(struct engine *engine);

enum err keeper_start(struct keeper **out, struct engine *engine) NODISCARD;
void keeper_stop(struct keeper *keeper);
void keeper_wake(struct keeper *keeper); /* something may need purging */

#endif
