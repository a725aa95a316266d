/*
 * pairs.h - the confirmed positives that the service learns from.
 *
 * A pair's two sides are each a text or an item (by the client's id). Its
 * split is given at intake and never changes. The key is the caller's hash
 * over what makes two pairs the same; posting a key again adds the weights.
 * Pair ids rise with time and are never used again; "new" pairs are those with
 * an id over the collection's pairs_seen.
 *
 * A pair one of whose items was deleted or changed is set aside, with the
 * reason, and is left out of learning until it is brought back.
 */
#ifndef STORE_PAIRS_H
#define STORE_PAIRS_H

#include "store/store.h"

#define PAIR_KEY_BYTES 16

/* Values are on disk. */
enum pair_split { PAIR_TRAIN = 0, PAIR_TUNE = 1, PAIR_JUDGE = 2 };
#define PAIR_SPLITS 3

enum pair_state { PAIR_ACTIVE = 0, PAIR_SET_ASIDE = 1 };

enum pair_reason {
    PAIR_REASON_NONE = 0,
    PAIR_ITEM_DELETED = 1,
    PAIR_ITEM_CHANGED = 2,
    PAIR_CONTRADICTED = 3, /* by the operator or the learner */
    PAIR_BARRED = 4        /* copy or reverse of a judged pair */
};

struct pair_put {
    uint8_t key[PAIR_KEY_BYTES];
    struct store_text anchor_id, anchor_text;     /* exactly one present */
    struct store_text positive_id, positive_text; /* exactly one present */
    struct store_text negatives;                  /* JSON text or absent */
    struct store_text group;                      /* or absent */
    struct store_text origin; /* "api", "feedback", ...; or absent */
    uint64_t group_hash;      /* what the split came from */
    double weight;            /* > 0 */
    enum pair_split split;
    enum pair_reason reason; /* not NONE: stored as set aside at once */
};

struct pair_result {
    int64_t pair;
    bool created;
    double weight; /* after adding */
};

struct pair_row {
    int64_t pair;
    uint8_t key[PAIR_KEY_BYTES];
    struct store_text anchor_id, anchor_text;
    struct store_text positive_id, positive_text;
    struct store_text negatives;
    struct store_text group;
    struct store_text origin;
    uint64_t group_hash;
    double weight;
    enum pair_split split;
    enum pair_state state;
    enum pair_reason reason;
    int64_t created_ms;
};

/* Rows are borrowed until the function returns; not OK stops the walk and is
   passed up. */
typedef enum err pair_row_fn(void *ctx, const struct pair_row *row);

/*
 * pairs_put - insert n pairs, or add to the weight of those known.
 *
 *   results  [n], overwritten
 *
 * Of a known pair nothing but the weight changes, except that one set aside
 * because of an item (deleted or changed) becomes active again when the put
 * itself has no reason: posting it again confirms it. ERR_INVALID when a side
 * has both or neither of id and text.
 */
enum err pairs_put(struct db *db, int64_t collection,
    const struct pair_put *puts, size_t n, int64_t now_ms,
    struct pair_result *results) NODISCARD;

/* One pair, copied into arena; ERR_NOT_FOUND. */
enum err pairs_get(struct db *db, int64_t collection, int64_t pair,
    struct arena *arena, struct pair_row *out) NODISCARD;

/* The pair with this key, or ERR_NOT_FOUND. */
enum err pairs_find(struct db *db, int64_t collection,
    const uint8_t key[PAIR_KEY_BYTES], int64_t *pair,
    enum pair_split *split) NODISCARD;

/* All pairs, of any state and split, with an id over after_pair. */
enum err pairs_list(struct db *db, int64_t collection, int64_t after_pair,
    size_t limit, pair_row_fn *fn, void *ctx) NODISCARD;

/* Active pairs of one split with after_pair < id <= upto_pair, by id. */
enum err pairs_walk(struct db *db, int64_t collection, enum pair_split split,
    int64_t after_pair, int64_t upto_pair, size_t limit, pair_row_fn *fn,
    void *ctx) NODISCARD;

struct pair_counts {
    int64_t active[PAIR_SPLITS];
    int64_t active_new[PAIR_SPLITS]; /* id over since_pair */
    int64_t set_aside;
    int64_t judge_groups; /* distinct group_hash of the active judge split */
    int64_t last_pair;    /* the highest id, 0 when none */
};

/* Counts over the collection's pairs from an index: about 10 ms a 100,000. */
enum err pairs_count(struct db *db, int64_t collection, int64_t since_pair,
    struct pair_counts *out) NODISCARD;

/* ERR_NOT_FOUND. */
enum err pairs_delete(
    struct db *db, int64_t collection, int64_t pair) NODISCARD;

/* Set aside one pair (by the learner), or bring it back with REASON_NONE. */
enum err pairs_set_reason(struct db *db, int64_t collection, int64_t pair,
    enum pair_reason reason) NODISCARD;

/*
 * pairs_set_aside - set aside the active pairs of which one of these items is
 * the anchor or the positive. n_pairs (may be NULL) gives how many. Pairs
 * already set aside as changed become deleted when that is the reason.
 */
enum err pairs_set_aside(struct db *db, int64_t collection,
    const struct store_text *ext_ids, size_t n, enum pair_reason reason,
    size_t *n_pairs) NODISCARD;

/*
 * pairs_bring_back - make the pairs active again that were set aside because
 * one of these items was deleted, if their other item (if any) is there. Costs
 * an index probe an id, next to nothing when no pair is set aside.
 */
enum err pairs_bring_back(struct db *db, int64_t collection,
    const struct store_text *ext_ids, size_t n, size_t *n_pairs) NODISCARD;

#endif
