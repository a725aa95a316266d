/*
 * generations.h - the lineage of a collection's encoders.
 *
 * State: building -> live | refused | discarded; live -> previous -> retired,
 * and back to live by publishing again. Exactly one generation is live. Kept
 * whole (weights and vectors): live, previous, building, and pinned ones. Of
 * the others the row with its report stays for ever; weights go, except those
 * of a refused generation that is still the newest (so that an operator may
 * force it), and a space goes when no kept generation names it.
 */
#ifndef STORE_GENERATIONS_H
#define STORE_GENERATIONS_H

#include "store/store.h"
#include "store/vectors.h"

/* Values are on disk. */
enum generation_state {
    GENERATION_BUILDING = 0,
    GENERATION_LIVE = 1,
    GENERATION_PREVIOUS = 2,
    GENERATION_REFUSED = 3,
    GENERATION_RETIRED = 4,
    GENERATION_DISCARDED = 5
};

/* "building", "live", ... */
const char *generation_state_name(enum generation_state state);

/* What the file holds of a generation's weights. */
enum weights_state {
    WEIGHTS_NONE = 0,     /* nothing: the seed and the config say all, or the
                             weights are an imported encoder's */
    WEIGHTS_PARTIAL = 1,  /* being written; unreadable */
    WEIGHTS_COMPLETE = 2, /* readable, checksummed */
    WEIGHTS_DROPPED = 3   /* were complete, removed when retired */
};

struct generation_new {
    int64_t parent;                               /* number, 0 for the first */
    uint8_t fingerprint[SPACE_FINGERPRINT_BYTES]; /* of its space */
    int dims;
    double temperature;
    struct store_text family; /* encoder family: "static", ... */
    struct store_text config; /* JSON text of the encoder */
    struct store_text report; /* JSON text or absent */
    uint64_t seed;
    int64_t job;        /* that makes it, 0: none */
    int64_t pairs_upto; /* highest pair id that was collected for it */
    int64_t encoder;    /* imported one whose weights it has, 0: none */
};

struct generation_row {
    int64_t id;         /* of the row, over all collections */
    int64_t generation; /* number within the collection, from 1 */
    int64_t collection;
    int64_t parent;
    int64_t space;
    int dims;
    uint8_t fingerprint[SPACE_FINGERPRINT_BYTES];
    bool space_kept; /* its space is still there */
    enum generation_state state;
    bool pinned;
    double temperature;
    struct store_text family;
    struct store_text config;
    struct store_text report; /* absent until set */
    uint64_t seed;
    int64_t job; /* that made it, 0: none */
    int64_t pairs_upto;
    int64_t encoder;    /* imported one whose weights it has while its own are
                           WEIGHTS_NONE, 0: none */
    int64_t judge_uses; /* rounds that have looked at the judge split so far */
    int64_t created_ms;
    int64_t published_ms; /* last time it became live, 0 = never */
    enum weights_state weights;
    int64_t weights_bytes; /* of its own, or of the encoder's */
    uint8_t weights_sha256[32];
};

/* Rows are borrowed until the function returns; not OK stops the list and is
   passed up. */
typedef enum err generation_row_fn(void *ctx, const struct generation_row *row);

/*
 * generations_create - a new generation in state building, with the
 * collection's next number and the space of its fingerprint (made when
 * missing; when it exists, the vectors are shared).
 *
 *   id          gives the row id (for weights.h)
 *   generation  gives the number
 *   space       gives the space
 *
 * ERR_NOT_FOUND without the collection or the imported encoder, ERR_CONFLICT
 * when the fingerprint exists with other dims, ERR_TOO_LARGE when 64 spaces are
 * kept (unpin some).
 */
enum err generations_create(struct db *db, int64_t collection,
    const struct generation_new *new_generation, int64_t now_ms, int64_t *id,
    int64_t *generation, int64_t *space) NODISCARD;

/* By number, copied into arena; ERR_NOT_FOUND. */
enum err generations_get(struct db *db, int64_t collection, int64_t generation,
    struct arena *arena, struct generation_row *out) NODISCARD;

/* Those with a number over `after`, rising. */
enum err generations_list(struct db *db, int64_t collection, int64_t after,
    size_t limit, generation_row_fn *fn, void *ctx) NODISCARD;

/*
 * generations_set_shadow - from this commit on every write must be embedded
 * for this generation as well (collections_expect enforces it); 0 ends that.
 * Gives the collection's change_seq at this point (S0): what has a greater one
 * was embedded by ingest. ERR_NOT_FOUND; ERR_CONFLICT when it is not building,
 * previous or pinned.
 */
enum err generations_set_shadow(struct db *db, int64_t collection,
    int64_t generation, int64_t *change_seq) NODISCARD;

/*
 * generations_end - a building generation ends as refused or discarded (as
 * retired, when it has been live before); its shadow role ends with it.
 * Sweeps. ERR_CONFLICT when it is not building.
 */
enum err generations_end(struct db *db, int64_t collection, int64_t generation,
    enum generation_state state) NODISCARD;

/*
 * generations_revive - make a generation building again whose vectors are gone
 * but whose weights are not (refused and still the newest, or without weights
 * of its own), so that it can be embedded anew and published.
 *
 *   space  gives its space, made when missing
 *
 * ERR_CONFLICT when it is live, previous or building, or its weights are
 * dropped.
 */
enum err generations_revive(struct db *db, int64_t collection,
    int64_t generation, int64_t *space) NODISCARD;

/* Replace the report (JSON text). */
enum err generations_set_report(struct db *db, int64_t collection,
    int64_t generation, struct store_text report) NODISCARD;
enum err generations_set_temperature(struct db *db, int64_t collection,
    int64_t generation, double temperature) NODISCARD;
/* Pin, or unpin (then it is swept like any other). ERR_CONFLICT when pinning
   one that is not kept whole any more. */
enum err generations_set_pinned(struct db *db, int64_t collection,
    int64_t generation, bool pinned) NODISCARD;
/* judge_uses += 1; gives the new count (may be NULL). */
enum err generations_count_judge(struct db *db, int64_t collection,
    int64_t generation, int64_t *judge_uses) NODISCARD;

/*
 * generations_publish - the switch: promotion, rollback, first generation.
 *
 *   expected_live  number that must be live now (0: none), else ERR_CONFLICT
 *   job            0, or a job that ends as job_state (a jobs.h state) with
 *                  job_result in the same transaction
 *
 * The generation becomes live, the live one previous, the one that was
 * previous retired (unless it is the one published); shadow is cleared;
 * pairs_seen is raised to the generation's pairs_upto; sweeps.
 *
 * ERR_NOT_FOUND; ERR_CONFLICT unless the generation is kept whole: weights
 * none or complete, its space there, and a vector in it for every item of the
 * collection (finish the backfill and try again). OK and no change when it is
 * live already (the job is still ended). Failpoint store_publish.
 */
struct generation_publish {
    int64_t collection;
    int64_t generation;
    int64_t expected_live;
    int64_t job;
    int job_state;
    struct store_text job_result;
    int64_t now_ms;
};
enum err generations_publish(
    struct db *db, const struct generation_publish *publish) NODISCARD;

/*
 * generations_sweep - mark for purge what no kept generation needs. Called by
 * the functions above; call it once after opening.
 */
enum err generations_sweep(struct db *db, int64_t collection) NODISCARD;

/*
 * generations_discard_building - at start: every building generation of all
 * collections but those in keep (row ids, [n_keep]) is discarded, and shadow
 * roles of discarded ones end. n (may be NULL) gives how many.
 */
enum err generations_discard_building(
    struct db *db, const int64_t *keep, size_t n_keep, size_t *n) NODISCARD;

#endif
