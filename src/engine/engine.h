/*
 * engine.h - everything the daemon can do, without HTTP.
 *
 * One engine owns one data folder. Requests and results are plain structs;
 * metadata, filters, settings and reports travel as JSON text, which the
 * engine validates or makes. Collections are named by their name or by an
 * alias of it in every call.
 *
 * Memory. Inputs are borrowed for the call. Results live in the caller's arena
 * and stay valid until it is released; strings in results are never NULL
 * unless the field says so. On failure outputs are untouched.
 *
 * Refusals. Every call that a person can cause to fail takes a fault, which
 * then holds the code, a JSON pointer into the request and one sentence. The
 * pointers follow the request's shape in API terms ("/metadata", "/k",
 * "/anchor/id"); for an array of things they start with the index ("/3/id").
 *
 * Threads. Every call is safe from any thread and may block: on the disk (a
 * write returns once it is committed), on the encoder, on a writer's queue. No
 * call blocks on a job. So they belong on worker threads, never on an HTTP
 * loop; the only exceptions, which never block, are marked "any thread, at
 * once". struct engine_bulk and struct engine_stream belong to one thread at a
 * time. Callbacks run on the calling thread unless it is said otherwise.
 * engine_close may only run when no other call runs.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"

struct engine;

#define ENGINE_ID_BYTES_MAX 512  /* item ids */
#define ENGINE_NAME_BYTES_MAX 64 /* collections, aliases: [A-Za-z0-9_-.] */
#define ENGINE_METADATA_BYTES_MAX 65536
#define ENGINE_GROUP_BYTES_MAX 512
#define ENGINE_TEXT_BYTES_MAX ((size_t)1 << 20) /* default; see config */
#define ENGINE_K_DEFAULT 10
#define ENGINE_K_MAX 1000
#define ENGINE_EXAMPLES_MAX 100       /* ids in one query by examples */
#define ENGINE_BATCH_QUERIES_MAX 1000 /* queries in one search batch */
#define ENGINE_BATCH_ITEMS_MAX 10000  /* items or pairs in one array */
#define ENGINE_NEGATIVES_MAX 64       /* negatives of one pair */
#define ENGINE_PAGE_DEFAULT 100
#define ENGINE_PAGE_MAX 1000
#define ENGINE_EMBED_INPUTS_MAX 2048 /* texts in one embeddings call */
#define ENGINE_VIEWS_MAX 64          /* views on one sheet */
#define ENGINE_SEARCH_ID_BYTES 24    /* with the NUL */

/* Text with its length; s == NULL means that it was not given. */
struct engine_text {
    const char *s;
    size_t len;
};

/* A picture file as it was sent: JPEG, PNG or WebP, told by its bytes; bytes ==
   NULL means that it was not given. */
struct engine_image {
    const void *bytes;
    size_t n;
};

/* ---- life ---------------------------------------------------------------- */

/* Called on an engine thread after a job got a new event or ended; must not
   block nor call the engine, only wake whoever will read the events. */
typedef void engine_event_hook(void *arg, int64_t job_id);

struct engine_config {
    const char *data_dir;      /* made when absent; locked while open */
    size_t n_threads;          /* encode and scan threads; 0: the processors */
    size_t n_tuner_threads;    /* idle-priority training threads; 0: as above */
    size_t text_bytes_max;     /* 0: ENGINE_TEXT_BYTES_MAX */
    size_t image_bytes_max;    /* of a picture's file; 0: 32 MiB */
    uint64_t image_pixels_max; /* width x height; 0: 64 million */
    size_t picture_waits_max;  /* queries by picture and views that may wait
                                  for memory to decode theirs; more of them
                                  get ERR_BUSY */
    size_t impressions_max;    /* answers remembered for feedback; 0: 10,000 */
    engine_event_hook *event_hook; /* may be NULL */
    void *event_hook_arg;
};

/*
 * engine_open - take the data folder, bring its schema up to date, load every
 * collection, resume interrupted jobs.
 *
 * Errors: ERR_LOCKED (another daemon; its pid in the detail), ERR_NEWER,
 * ERR_CORRUPT, ERR_IO, ERR_FULL, ERR_NOMEM, all with a fault.
 */
enum err engine_open(struct engine **out, const struct engine_config *config,
    struct fault *fault) NODISCARD;

/* Stop jobs (an interrupted one resumes at the next start), let the writer
   finish what is queued, close the file. NULL is fine. */
void engine_close(struct engine *engine);

/* Refuse new jobs and interrupt the running one, for a drain; at once. */
void engine_stop_jobs(struct engine *engine);

/* Any thread, at once. read_only: a write failed in a way that makes further
   writes unsafe; reads go on. */
struct engine_health {
    bool ready;
    bool read_only;
    bool disk_full; /* the last commit met a full disk */
};
void engine_health(const struct engine *engine, struct engine_health *out);

/* ---- information --------------------------------------------------------- */

struct engine_encoder_info {
    const char *name;        /* "static", "vision", "external" */
    const char *reads;       /* "text", "image", "nothing" */
    const char *description; /* one sentence */
    const char *config_json; /* all settings with their defaults */
    size_t dims_default;
    size_t dims_min;
    size_t dims_max;
};

struct engine_info {
    const char *kernels; /* the chosen table */
    size_t n_threads;
    const struct engine_encoder_info *encoders;
    size_t n_encoders;
    size_t text_bytes_max;
    size_t image_bytes_max;
    uint64_t image_pixels_max;
    const char *const *image_types; /* media types, ends with NULL */
    size_t n_collections;
    int64_t n_items;       /* of all collections */
    uint64_t vector_bytes; /* heap of all indexes */
    uint64_t encoder_bytes;
    uint64_t roster_bytes; /* ids and filter columns */
    uint64_t file_bytes;   /* the database file */
    int64_t schema_version;
};
enum err engine_info(struct engine *engine, struct arena *arena,
    struct engine_info *out, struct fault *fault) NODISCARD;

/* Running totals since the start. Any thread, at once. */
struct engine_counters {
    uint64_t searches; /* queries, each of a batch counted */
    uint64_t searches_failed;
    uint64_t search_ns; /* summed over queries */
    uint64_t rows_scanned;
    uint64_t rows_rescored;
    uint64_t items_written;
    uint64_t items_unchanged;
    uint64_t items_deleted;
    uint64_t texts_encoded;
    uint64_t encode_ns;
    uint64_t images_decoded;
    uint64_t decode_ns; /* summed over threads */
    uint64_t pairs_written;
    uint64_t feedback;
    uint64_t commits;          /* transactions of the writer */
    uint64_t commit_ops;       /* operations in them */
    uint64_t commit_conflicts; /* encoded again: the generation had moved */
    uint64_t write_queue;      /* operations waiting now */
    uint64_t searches_running; /* now */
    uint64_t jobs_started;
    uint64_t jobs_promoted;
    uint64_t jobs_refused;
    uint64_t jobs_failed;
    uint64_t reembedded; /* items embedded by jobs */
};
void engine_counters(const struct engine *engine, struct engine_counters *out);

/* ---- collections and aliases --------------------------------------------- */

struct engine_collection_info {
    const char *name;
    /* complete settings: {"encoder", "dims", "template", "encoder_config",
       "images", "description", "train": {...}}; no "template" when the encoder
       reads pictures; "family" after an imported encoder's name */
    const char *settings_json;
    int64_t created_ms;
    int64_t n_items;
    int64_t n_pairs;     /* not set aside */
    int64_t n_pairs_new; /* since the last promotion */
    int64_t n_pairs_train;
    int64_t n_pairs_tune;
    int64_t n_pairs_judge;
    int64_t n_pairs_aside;
    int64_t n_groups_judge;      /* distinct groups of the judge split */
    int64_t generation;          /* live */
    int64_t generation_previous; /* 0: none */
    int64_t generation_building; /* 0: none */
    int64_t job_running;         /* 0: none */
    double temperature;
    char fingerprint[SHA256_HEX]; /* of the live space */
    size_t dims;
    bool trained;
    uint64_t vector_bytes;
    uint64_t encoder_bytes;
    uint64_t roster_bytes;
    const char *const *aliases;
    size_t n_aliases;
    const char *reads; /* what its encoder reads: "text", "image", "nothing" */
    int64_t n_images;  /* items with a picture */
    uint64_t image_bytes; /* of the pictures that are kept */
};

/*
 * engine_collection_put - make a collection, or confirm it.
 *
 *   settings_json  object; {} for all defaults. Fixed for ever: "encoder"
 *                  ("static", "vision", "external", or an imported one's
 *                  name), "family" (as the encoder has it), "dims", "template"
 *                  (refused for "vision"), "encoder_config" (of an imported
 *                  one only what differs: "compute", "max_tokens",
 *                  "query_prefix", "item_prefix"), "images" ("keep";
 *                  or "vector" for "vision": the bytes of pictures are not
 *                  kept, so it can be neither trained nor re-embedded);
 *                  patchable: "description", "train"
 *   created        set
 *
 * An existing collection with equal fixed settings (those that are given) is
 * confirmed and not changed; with others ERR_CONFLICT. ERR_INVALID names the
 * field; a name that is an alias is ERR_CONFLICT.
 */
enum err engine_collection_put(struct engine *engine, const char *name,
    const char *settings_json, bool *created, struct arena *arena,
    struct engine_collection_info *out, struct fault *fault) NODISCARD;
enum err engine_collection_get(struct engine *engine, const char *name,
    struct arena *arena, struct engine_collection_info *out,
    struct fault *fault) NODISCARD;
enum err engine_collections_list(struct engine *engine, struct arena *arena,
    struct engine_collection_info **out, size_t *n,
    struct fault *fault) NODISCARD;
/* {"description": ..., "train": {...}}: given members replace, inside "train"
   too; a fixed setting is ERR_CONFLICT when it differs. */
enum err engine_collection_patch(struct engine *engine, const char *name,
    const char *patch_json, struct arena *arena,
    struct engine_collection_info *out, struct fault *fault) NODISCARD;
/* Items, pairs, generations, aliases, all. ERR_CONFLICT with the job's id in
   extra_id while a job of it runs. */
enum err engine_collection_delete(
    struct engine *engine, const char *name, struct fault *fault) NODISCARD;

struct engine_alias {
    const char *alias;
    const char *collection;
};
/* Point an alias at a collection, atomically. */
enum err engine_alias_put(struct engine *engine, const char *alias,
    const char *collection, bool *created, struct fault *fault) NODISCARD;
enum err engine_alias_get(struct engine *engine, const char *alias,
    struct arena *arena, struct engine_alias *out,
    struct fault *fault) NODISCARD;
enum err engine_aliases_list(struct engine *engine, struct arena *arena,
    struct engine_alias **out, size_t *n, struct fault *fault) NODISCARD;
enum err engine_alias_delete(
    struct engine *engine, const char *alias, struct fault *fault) NODISCARD;

/* ---- items --------------------------------------------------------------- */

/*
 * What is embedded is what the collection's encoder reads: the document that
 * its template makes of title, text and metadata, or the picture. The rest is
 * kept, and found by filters, but not embedded. An item of a collection of
 * pictures that has none yet has the zero vector, which no query finds.
 *
 * A write replaces title, text and metadata. The picture is replaced when one
 * is given, taken away by no_image, and else kept. Refusals of a picture point
 * at "/image": ERR_UNSUPPORTED (not JPEG, PNG or WebP; animated; 16 bits;
 * CMYK), ERR_TOO_LARGE (bytes, pixels), ERR_INVALID (damaged, empty).
 */
struct engine_item {
    const char *id;
    struct engine_text title;
    struct engine_text text;
    struct engine_text metadata; /* a JSON object, or not given: {} */
    struct engine_image image;   /* any collection; the bytes are checked */
    bool no_image;               /* "image": null */
    const float *vector;         /* NULL; needed by an external collection */
    size_t n_vector;
};

/* What If-Match and If-None-Match ask; all zero asks nothing. */
struct engine_condition {
    bool must_be_absent;     /* If-None-Match: * */
    bool must_exist;         /* If-Match: * */
    const int64_t *versions; /* If-Match: one of these */
    size_t n_versions;       /* 0: not given */
};

enum engine_status {
    ENGINE_CREATED,
    ENGINE_UPDATED,
    ENGINE_UNCHANGED,  /* same content and metadata: nothing was written */
    ENGINE_SUPERSEDED, /* a later line of the same batch has this id */
    ENGINE_DELETED,
    ENGINE_REFUSED /* see the fault */
};

/* What became of one line, item or pair. */
struct engine_outcome {
    uint64_t line;  /* 1-based line, or the index + 1 in an array */
    const char *id; /* item id; NULL when unknown (pairs, bad lines);
                       borrowed: valid during the callback, or from the
                       input or the arena */
    enum engine_status status;
    int64_t version;   /* ETag: the change sequence; 0 when refused */
    int64_t pair_id;   /* pairs: the row; else 0 */
    const char *split; /* pairs: "train", "tune", "judge"; else NULL */
    const char *aside; /* pairs: why it is set aside, or NULL */
    bool truncated;    /* the text was longer than the encoder takes */
    uint32_t n_tokens;
    uint32_t n_tokens_full;
    uint64_t superseded_by; /* ENGINE_SUPERSEDED: the later line */
    uint64_t supersedes;    /* an earlier line of this batch, or 0 */
    struct fault fault;     /* ENGINE_REFUSED */
};

/* What is known of an item's picture. */
struct engine_image_facts {
    const char *type; /* "image/jpeg", ...; NULL: the item has no picture */
    uint32_t width, height; /* as shown: after orientation */
    uint64_t n_bytes;       /* of the file */
    char sha256[SHA256_HEX];
    bool kept; /* the bytes are there ("images": "keep") */
};

struct engine_item_view {
    const char *id;
    struct engine_text title; /* s NULL when it has none */
    struct engine_text text;
    const char *metadata_json;
    int64_t version;
    int64_t created_ms;
    int64_t updated_ms;
    const float *vector; /* NULL unless asked for */
    size_t n_vector;
    struct engine_image_facts image;
};

/* Write one item; outcome: created, updated, unchanged. ERR_PRECONDITION when
   the condition does not hold (ERR_NOT_FOUND never). */
enum err engine_item_put(struct engine *engine, const char *collection,
    const struct engine_item *item, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault) NODISCARD;
enum err engine_item_get(struct engine *engine, const char *collection,
    const char *id, bool with_vector, struct arena *arena,
    struct engine_item_view *out, struct fault *fault) NODISCARD;
/* Merge metadata (RFC 7396); nothing is re-embedded unless the collection's
   template uses a field that changed. */
enum err engine_item_patch(struct engine *engine, const char *collection,
    const char *id, const char *metadata_json,
    const struct engine_condition *condition, struct engine_outcome *outcome,
    struct fault *fault) NODISCARD;
enum err engine_item_delete(struct engine *engine, const char *collection,
    const char *id, const struct engine_condition *condition,
    struct fault *fault) NODISCARD;

/*
 * Pictures alone.
 *
 * engine_image_put - set the picture of an item, which is made when there is
 * none (without title and text); the rest of it stays. ENGINE_CREATED is the
 * item, not the picture.
 * engine_image_get - facts, and the bytes appended to out, whose maximum must
 * be image_bytes_max at least; version is the item's. ERR_NOT_FOUND without the
 * item, its picture, or its bytes (the detail says which).
 * engine_image_delete - take the picture away. ERR_NOT_FOUND as above.
 */
enum err engine_image_put(struct engine *engine, const char *collection,
    const char *id, const struct engine_image *image,
    const struct engine_condition *condition, struct engine_outcome *outcome,
    struct fault *fault) NODISCARD;
enum err engine_image_get(struct engine *engine, const char *collection,
    const char *id, struct engine_image_facts *facts, int64_t *version,
    struct buf *out, struct fault *fault) NODISCARD;
enum err engine_image_delete(struct engine *engine, const char *collection,
    const char *id, const struct engine_condition *condition,
    struct engine_outcome *outcome, struct fault *fault) NODISCARD;

/*
 * engine_item_views - what training shows its encoder of a picture: one PNG
 * file with the picture as the encoder sees it first, then n random views.
 *
 *   n             1..ENGINE_VIEWS_MAX, "/n"
 *   options_json  NULL for the defaults of training, else its "views" object
 *                 ({"flip": 0, ...}); pointers "/views/..."
 *   seed          the same gives the same views
 *   out           the file is appended
 *
 * ERR_UNSUPPORTED when the collection's encoder does not read pictures;
 * ERR_NOT_FOUND as engine_image_get.
 */
enum err engine_item_views(struct engine *engine, const char *collection,
    const char *id, size_t n, const char *options_json, uint64_t seed,
    struct buf *out, struct fault *fault) NODISCARD;

/* All or nothing, one transaction; outcomes [n]. Of equal ids the last wins:
   earlier ones are ENGINE_SUPERSEDED. */
enum err engine_items_put(struct engine *engine, const char *collection,
    const struct engine_item *items, size_t n, struct engine_outcome *outcomes,
    struct fault *fault) NODISCARD;

struct engine_item_page {
    struct engine_item_view *items;
    size_t n;
    const char *next_cursor; /* NULL at the end */
};
/* In the order of their insertion. cursor NULL for the first page; filter NULL
   for all; limit 0 for the default. ERR_INVALID "/cursor", "/limit",
   "/filter...". */
enum err engine_items_list(struct engine *engine, const char *collection,
    const char *cursor, size_t limit, const char *filter_json, bool with_vector,
    struct arena *arena, struct engine_item_page *out,
    struct fault *fault) NODISCARD;

/* Delete by ids (absent ones are counted as missing), or by a filter when ids
   is NULL ("{}" deletes all). In short transactions. */
enum err engine_items_delete(struct engine *engine, const char *collection,
    const char *const *ids, size_t n_ids, const char *filter_json,
    int64_t *n_deleted, int64_t *n_missing, struct fault *fault) NODISCARD;

/* ---- search -------------------------------------------------------------- */

/* One query; exactly one of text, image, vector, id, examples. Start from
   ENGINE_QUERY_DEFAULT. ERR_INVALID "/text" when the encoder reads pictures,
   "/image" when it does not. */
struct engine_query {
    struct engine_text text;
    struct engine_image image;
    const float *vector; /* any length but 0: normalised by the engine */
    size_t n_vector;
    const char *fingerprint; /* hex of the space of vector, or NULL */
    const char *id;
    const char *const *positive; /* examples */
    size_t n_positive;
    const char *const *negative;
    size_t n_negative;
    int64_t k;
    const char *filter_json; /* NULL: none */
    double min_cosine;       /* -1..1; below -1: not given */
    double min_probability;  /* 0: not given */
    bool exact;
    bool no_truncate; /* "truncate": false */
    bool with_text;   /* title and text */
    bool with_metadata;
    bool with_vector;
    bool explain;
};
#define ENGINE_QUERY_DEFAULT                                                   \
    (struct engine_query)                                                      \
    {                                                                          \
        .k = ENGINE_K_DEFAULT, .min_cosine = -2                                \
    }

struct engine_hit {
    const char *id;
    double cosine;
    double score;
    double probability;
    struct engine_text title; /* with_text */
    struct engine_text text;
    const char *metadata_json; /* NULL unless with_metadata */
    const float *vector;       /* NULL unless with_vector; [dims] */
};

struct engine_answer {
    char search_id[ENGINE_SEARCH_ID_BYTES];
    int64_t generation;
    bool exact;
    double temperature;
    bool truncated;
    uint32_t n_tokens; /* of the query's text */
    uint32_t n_tokens_full;
    double probability_error; /* bound of the relative error of every
                                 probability */
    double took_ms;
    struct engine_hit *hits;
    size_t n_hits;
    size_t dims;
    /* for "explain"; encode_ms holds the decoding of a picture */
    size_t n_candidates; /* rows that passed the filter */
    size_t n_scanned;
    size_t n_rescored;
    double encode_ms;
    double scan_ms;
    double fetch_ms;
};

enum err engine_search(struct engine *engine, const char *collection,
    const struct engine_query *query, struct arena *arena,
    struct engine_answer *out, struct fault *fault) NODISCARD;

/* n queries over one snapshot in shared passes. answers [n], faults [n]:
   faults[i].err != OK means that query i was refused and its answer is not
   set. Fails as a whole only for the collection, the size, or memory. */
enum err engine_search_batch(struct engine *engine, const char *collection,
    const struct engine_query *queries, size_t n, struct arena *arena,
    struct engine_answer *answers, struct fault *faults,
    struct fault *fault) NODISCARD;

/* Check a filter without running it. */
enum err engine_filter_check(
    const char *filter_json, struct fault *fault) NODISCARD;

/* ---- encoding ------------------------------------------------------------ */

struct engine_embedding {
    const float *vector; /* [dims], unit or zero */
    uint32_t n_tokens;
    uint32_t n_tokens_full;
};
struct engine_embeddings {
    const char *model;  /* the collection's real name, or the encoder */
    int64_t generation; /* 0 for a bare encoder */
    char fingerprint[SHA256_HEX];
    size_t dims;
    struct engine_embedding *rows;
    size_t n;
    uint64_t n_tokens; /* summed */
};
/* model: a collection, an alias, or an encoder's name ("static", or an imported
   one's; inputs are encoded as items are), looked for in this order. dims 0 for
   all; fewer cuts and normalises again. ERR_INVALID "/dimensions",
   "/input/3" (empty), "/model" (it reads pictures, as for the two calls after
   this), ERR_NOT_FOUND "/model". */
enum err engine_embed(struct engine *engine, const char *model,
    const struct engine_text *inputs, size_t n, size_t dims, bool no_truncate,
    struct arena *arena, struct engine_embeddings *out,
    struct fault *fault) NODISCARD;

struct engine_token {
    const char *text; /* as the encoder sees it (normalised) */
    size_t len;
    uint32_t id;
};
enum err engine_tokenize(struct engine *engine, const char *model,
    const struct engine_text *text, struct arena *arena,
    struct engine_token **out, size_t *n, struct fault *fault) NODISCARD;

/* cosines [n] of source with each sentence. */
enum err engine_similarity(struct engine *engine, const char *model,
    const struct engine_text *source, const struct engine_text *sentences,
    size_t n, double *cosines, struct fault *fault) NODISCARD;

/* ---- pairs and feedback -------------------------------------------------- */

/* A side of a pair: id or text, one of them. Where the encoder reads pictures,
   an id: ERR_INVALID "/anchor/text". */
struct engine_side {
    const char *id;
    struct engine_text text;
};
struct engine_pair {
    struct engine_side anchor;
    struct engine_side positive;
    const struct engine_side *negatives;
    size_t n_negatives;
    double weight;     /* > 0, finite; 1 is the default */
    const char *group; /* or NULL */
};

/* All or nothing. Pointers are those of the pair ("/anchor/id"), after the
   index ("/0/anchor/id"). A pair that is there already adds its weight:
   ENGINE_UPDATED. */
enum err engine_pairs_add(struct engine *engine, const char *collection,
    const struct engine_pair *pairs, size_t n, struct engine_outcome *outcomes,
    struct fault *fault) NODISCARD;

struct engine_pair_view {
    int64_t id;
    struct engine_side anchor;
    struct engine_side positive;
    struct engine_side *negatives;
    size_t n_negatives;
    double weight;
    const char *group; /* NULL: none */
    const char *split;
    const char *aside;  /* NULL: in use */
    const char *origin; /* "api", "feedback", "import" */
    int64_t created_ms;
};
struct engine_pair_page {
    struct engine_pair_view *pairs;
    size_t n;
    const char *next_cursor; /* NULL at the end */
};
enum err engine_pairs_list(struct engine *engine, const char *collection,
    const char *cursor, size_t limit, struct arena *arena,
    struct engine_pair_page *out, struct fault *fault) NODISCARD;
enum err engine_pair_get(struct engine *engine, const char *collection,
    int64_t pair, struct arena *arena, struct engine_pair_view *out,
    struct fault *fault) NODISCARD;
enum err engine_pair_delete(struct engine *engine, const char *collection,
    int64_t pair, struct fault *fault) NODISCARD;

/* A pick in an earlier answer becomes a pair: the query is the anchor, the
   item the positive. ERR_NOT_FOUND "/search_id" when it is forgotten (the ring
   is bounded and in memory), ERR_INVALID "/item_id" when the item was not in
   that answer or the query was not by text or id (a picture must be stored as
   an item first). */
enum err engine_feedback(struct engine *engine, const char *collection,
    const char *search_id, const char *item_id, double weight,
    struct arena *arena, struct engine_outcome *outcome,
    struct fault *fault) NODISCARD;

/* ---- bulk: NDJSON of any length in bounded memory ------------------------ */

/*
 * A bulk takes items, pairs or the lines of an export one by one, encodes a
 * batch while the one before commits, and reports one outcome a line in line
 * order through the callback, which runs inside engine_bulk_* calls on the
 * calling thread. A refused line does not stop the others. An outcome other
 * than refused is reported only after its commit. Memory: at most 3 batches of
 * 1,024 lines or 8 MiB of text and pictures each, and the line that exceeds it.
 * Pictures of a batch are decoded by all threads.
 */
struct engine_bulk;
typedef void engine_outcome_fn(void *arg, const struct engine_outcome *outcome);

enum engine_bulk_kind {
    ENGINE_BULK_ITEMS,
    ENGINE_BULK_PAIRS,
    ENGINE_BULK_IMPORT /* raw lines of engine_export_new, see below */
};

enum err engine_bulk_new(struct engine_bulk **out, struct engine *engine,
    const char *collection, enum engine_bulk_kind kind, engine_outcome_fn *fn,
    void *arg, struct fault *fault) NODISCARD;

/* Each takes the next line: the counting starts at 1 and goes on by 1. They
   fail only when the whole stream must end (ERR_READ_ONLY, ERR_FULL, ERR_IO,
   ERR_NOMEM, ERR_NOT_FOUND once the collection is deleted): outcomes of what
   was committed have then been reported, the rest never will. */
enum err engine_bulk_item(struct engine_bulk *bulk,
    const struct engine_item *item, struct fault *fault) NODISCARD;
enum err engine_bulk_pair(struct engine_bulk *bulk,
    const struct engine_pair *pair, struct fault *fault) NODISCARD;
/* A line that could not be parsed: reported in its order with this fault. */
enum err engine_bulk_refused(struct engine_bulk *bulk, const char *id,
    const struct fault *why, struct fault *fault) NODISCARD;
/* A raw line of an export (ENGINE_BULK_IMPORT). An empty one is skipped and
   not reported, but counted. */
enum err engine_bulk_line(struct engine_bulk *bulk, const char *line,
    size_t len, struct fault *fault) NODISCARD;
/* Start the batch now without waiting for it to fill: for a slow stream. */
enum err engine_bulk_flush(
    struct engine_bulk *bulk, struct fault *fault) NODISCARD;
/* Commit all, report all. Either count may be NULL. */
enum err engine_bulk_finish(struct engine_bulk *bulk, uint64_t *n_lines,
    uint64_t *n_refused, struct fault *fault) NODISCARD;
/* Also before finish: what is committed stays. */
void engine_bulk_free(struct engine_bulk *bulk);

/* ---- streams: long answers in pieces ------------------------------------- */

struct engine_stream;
/* Append the next piece (about 64-256 KiB) to chunk, which has room for 1 MiB;
   *end is set when nothing follows. Holds no lock and no read transaction
   between calls, so a slow reader costs nothing. */
enum err engine_stream_next(struct engine_stream *stream, struct buf *chunk,
    bool *end, struct fault *fault) NODISCARD;
/* The whole length in bytes, or -1 when it is not known. */
int64_t engine_stream_bytes(const struct engine_stream *stream);
void engine_stream_free(struct engine_stream *stream);

struct engine_export_options {
    bool items;
    bool pairs;
    bool vectors;   /* each item with its vector of the live space */
    bool no_images; /* else each with its picture's bytes, base64, or where
                       they are not kept with the vector made from it */
};
/* NDJSON: first {"kindred_export": 1, "collection": ..., "fingerprint": ...,
   "settings": ...}, then {"item": {...}} and {"pair": {...}} lines. */
enum err engine_export_new(struct engine_stream **out, struct engine *engine,
    const char *collection, const struct engine_export_options *options,
    struct fault *fault) NODISCARD;

/* ---- generations --------------------------------------------------------- */

struct engine_generation {
    int64_t generation;
    const char *state; /* "live", "previous", "refused", "retired",
                          "building", "discarded" */
    bool whole;        /* vectors and weights are kept: promotable at once */
    bool pinned;
    int64_t parent;         /* 0: none */
    int64_t job_id;         /* 0: none */
    char space[SHA256_HEX]; /* fingerprint of the space */
    double temperature;
    bool trained;
    int64_t created_ms;
    int64_t promoted_ms;     /* 0: never */
    const char *report_json; /* the judge's report, "null" when there is none */
    const char *family;      /* of the encoder, as its settings are */
    size_t dims;
    const char *config_json;
    uint64_t weights_bytes; /* of the safetensors file */
    /* Of the imported encoder that the first generation was; all 0 and NULL
       without one. */
    const char *encoder;   /* its name */
    uint64_t n_params;     /* which no round changes, but for an adapter */
    const char *card_json; /* what its publisher says */
};
enum err engine_generations_list(struct engine *engine, const char *collection,
    struct arena *arena, struct engine_generation **out, size_t *n,
    struct fault *fault) NODISCARD;
enum err engine_generation_get(struct engine *engine, const char *collection,
    int64_t generation, struct arena *arena, struct engine_generation *out,
    struct fault *fault) NODISCARD;
/* The weights as a safetensors file. ERR_NOT_FOUND when only the report of
   that generation is kept. */
enum err engine_weights_new(struct engine_stream **out, struct engine *engine,
    const char *collection, int64_t generation, struct fault *fault) NODISCARD;

/* The encoder of a generation as a folder that sentence-transformers loads, in
   a tar stream. ERR_NOT_FOUND as above, ERR_UNSUPPORTED where its family has no
   such form. */
enum err engine_folder_new(struct engine_stream **out, struct engine *engine,
    const char *collection, int64_t generation, struct fault *fault) NODISCARD;

/* A switch that was done (job_id 0), or the job that does it. */
struct engine_switch {
    int64_t generation; /* live now, or to be */
    int64_t job_id;
};
/* Make a kept generation live. Already live: done. ERR_CONFLICT while a job
   of the collection runs (extra_id), ERR_NOT_FOUND for an unknown one,
   ERR_CONFLICT for one of which only the report is kept. */
enum err engine_generation_promote(struct engine *engine,
    const char *collection, int64_t generation, struct engine_switch *out,
    struct fault *fault) NODISCARD;
/* Promote the previous one; ERR_CONFLICT when there is none. */
enum err engine_rollback(struct engine *engine, const char *collection,
    struct engine_switch *out, struct fault *fault) NODISCARD;

/* ---- imported encoders --------------------------------------------------- */

/* A published encoder, imported under a name. Collections that name it as
   their "encoder" start from it; their generations refer to its weights. */
struct engine_encoder {
    const char *name;
    const char *family; /* "transformer" */
    const char *reads;  /* "text" */
    size_t dims;
    size_t max_tokens;
    uint64_t n_params;
    uint64_t weights_bytes;
    char fingerprint[SHA256_HEX]; /* of the encoder */
    const char *config_json;
    const char *card_json; /* what its publisher says: source, license, ...;
                              {} when nothing is known */
    int64_t created_ms;
    size_t n_collections; /* that have a kept generation of it */
};
/*
 * engine_encoder_import - the folder of a published encoder into the file.
 *
 *   name  as of collections; not "static", "vision", "transformer", "external"
 *   dir   the folder; it may go afterwards
 *
 * The same encoder under the same name is confirmed (created false), another is
 * ERR_CONFLICT; ERR_INVALID for the name, ERR_UNSUPPORTED for dimensions that
 * no collection has. Else errors as of published_import.
 */
enum err engine_encoder_import(struct engine *engine, const char *name,
    const char *dir, bool *created, struct arena *arena,
    struct engine_encoder *out, struct fault *fault) NODISCARD;
enum err engine_encoders_list(struct engine *engine, struct arena *arena,
    struct engine_encoder **out, size_t *n, struct fault *fault) NODISCARD;
enum err engine_encoder_get(struct engine *engine, const char *name,
    struct arena *arena, struct engine_encoder *out,
    struct fault *fault) NODISCARD;
/* ERR_CONFLICT while a kept generation refers to it, with the collection.
   Others that did have only their reports from then on. */
enum err engine_encoder_delete(
    struct engine *engine, const char *name, struct fault *fault) NODISCARD;

/* ---- jobs ---------------------------------------------------------------- */

/* Queue a training round. options_json: object or NULL for the defaults.
   ERR_CONFLICT with the running job's id in extra_id; ERR_INVALID with both
   numbers when there are not enough pairs. */
enum err engine_train(struct engine *engine, const char *collection,
    const char *options_json, int64_t *job_id, struct fault *fault) NODISCARD;

struct engine_job {
    int64_t id;
    const char *kind;       /* "train", "reembed", "backup" */
    const char *collection; /* "" for backups */
    const char *state;      /* "queued", "running", "promoted", "refused",
                               "done", "failed", "cancelled" */
    const char *phase;
    double progress;    /* 0..1 */
    double eta_seconds; /* < 0: unknown */
    const char *options_json;
    /* {"columns": ["step", "loss", ...], "rows": [[1, 3.2, ...], ...]} */
    const char *curve_json;
    const char *result_json; /* "null" until it ended */
    const char *error;       /* NULL: none */
    int64_t created_ms;
    int64_t started_ms;  /* 0: not yet */
    int64_t finished_ms; /* 0: not yet */
};
/* Newest first; collection NULL for all; before 0 for the newest page. */
enum err engine_jobs_list(struct engine *engine, const char *collection,
    int64_t before, size_t limit, struct arena *arena, struct engine_job **out,
    size_t *n, int64_t *next_before, struct fault *fault) NODISCARD;
enum err engine_job_get(struct engine *engine, int64_t job_id,
    struct arena *arena, struct engine_job *out, struct fault *fault) NODISCARD;
/* Ask it to stop; it is cancelled soon after. ERR_CONFLICT when it has
   ended. */
enum err engine_job_cancel(
    struct engine *engine, int64_t job_id, struct fault *fault) NODISCARD;

struct engine_event {
    int64_t id;       /* of this job, from 1 */
    const char *type; /* "progress", "metrics", "log", "end" */
    const char *data; /* JSON, one line */
};
typedef void engine_event_fn(void *arg, const struct engine_event *event);
/*
 * engine_job_events - the events after after_id that are still remembered (the
 * last 256 of a job), through fn. Any thread, at once for a job of this run;
 * *ended is set when no more will follow. A job that ended before the start of
 * the daemon has one event, its end.
 * engine_job_wait_events - the same, but waits up to timeout_ms for the first.
 */
enum err engine_job_events(struct engine *engine, int64_t job_id,
    int64_t after_id, engine_event_fn *fn, void *arg, bool *ended,
    struct fault *fault) NODISCARD;
enum err engine_job_wait_events(struct engine *engine, int64_t job_id,
    int64_t after_id, int64_t timeout_ms, engine_event_fn *fn, void *arg,
    bool *ended, struct fault *fault) NODISCARD;

/* ---- backup -------------------------------------------------------------- */

struct engine_backup {
    const char *name;
    uint64_t bytes;
    int64_t created_ms;
};
/* Queue a consistent copy under DATA/backups, named by the engine. */
enum err engine_backup_start(
    struct engine *engine, int64_t *job_id, struct fault *fault) NODISCARD;
enum err engine_backups_list(struct engine *engine, struct arena *arena,
    struct engine_backup **out, size_t *n, struct fault *fault) NODISCARD;
/* The file's bytes; name as listed, nothing else is opened. */
enum err engine_backup_open(struct engine_stream **out, struct engine *engine,
    const char *name, struct fault *fault) NODISCARD;

/* ---- repeated requests --------------------------------------------------- */

/* An answer kept under an Idempotency-Key for 24 hours. */
struct engine_reply {
    int status;
    const char *content_type;
    const char *location; /* "" for none */
    struct engine_text body;
};
/* key: the header's value with the caller's scope in front; request: a digest
   of method, path and body. ERR_NOT_FOUND: new, go on. OK: out is the answer
   that was given. ERR_INVALID: the key was used with another request. */
enum err engine_reply_get(struct engine *engine, const char *key,
    const uint8_t request[SHA256_BYTES], struct arena *arena,
    struct engine_reply *out, struct fault *fault) NODISCARD;
enum err engine_reply_put(struct engine *engine, const char *key,
    const uint8_t request[SHA256_BYTES], const struct engine_reply *reply,
    struct fault *fault) NODISCARD;

#endif
