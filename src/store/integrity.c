/*
 * store_check: what must be true of the file as a whole. Each rule is a query
 * that gives the rows that break it, so the first row is the report.
 */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "store/generations.h"
#include "store/images.h"
#include "store/internal.h"
#include "store/weights_internal.h"

static const char INTEGRITY[] = "PRAGMA integrity_check(1)";
static const char FOREIGN_KEYS[] = "PRAGMA foreign_key_check";
static const char BEGIN[] = "BEGIN";
static const char COMMIT[] = "COMMIT";

/* Each gives one number that names the offender. */
static const struct {
    const char *sql;
    const char *words;
} RULES[] = {
    {"SELECT c.id FROM collections c WHERE c.deleted = 0"
     " AND c.live_generation <> ifnull((SELECT g.generation"
     " FROM generations g WHERE g.collection = c.id AND g.state = 1), 0)",
        "collection %lld does not name its live generation"},
    {"SELECT c.id FROM collections c WHERE c.deleted = 0"
     " AND c.previous_generation <> ifnull((SELECT g.generation"
     " FROM generations g WHERE g.collection = c.id AND g.state = 2), 0)",
        "collection %lld does not name its previous generation"},
    {"SELECT c.id FROM collections c WHERE c.deleted = 0"
     " AND c.live_generation = 0 AND EXISTS (SELECT 1 FROM generations g"
     " WHERE g.collection = c.id AND g.published_ms > 0)",
        "collection %lld has lost its live generation"},
    {"SELECT c.id FROM collections c WHERE c.deleted = 0"
     " AND c.shadow_generation <> 0 AND NOT EXISTS (SELECT 1"
     " FROM generations g WHERE g.collection = c.id"
     " AND g.generation = c.shadow_generation"
     " AND (g.state IN (0, 2) OR g.pinned = 1))",
        "collection %lld has a shadow that is not being built"},
    {"SELECT g.id FROM generations g JOIN collections c"
     " ON c.id = g.collection WHERE c.deleted = 0 AND g.state IN (0, 1, 2)"
     " AND NOT EXISTS (SELECT 1 FROM spaces s WHERE s.space = g.space"
     " AND s.dead = 0 AND s.collection = g.collection"
     " AND s.dims = g.dims AND s.fingerprint = g.fingerprint)",
        "generation row %lld is kept without its space"},
    {"SELECT i.item FROM items i JOIN collections c ON c.id = i.collection"
     " JOIN generations g ON g.collection = c.id AND g.state = 1"
     " WHERE c.deleted = 0 AND NOT EXISTS (SELECT 1 FROM embeddings e"
     " WHERE e.key = (g.space << 40 | i.item))",
        "item %lld has no vector in the live space"},
    {"SELECT e.key >> 40 FROM embeddings e WHERE NOT EXISTS"
     " (SELECT 1 FROM spaces s WHERE s.space = e.key >> 40)",
        "there are vectors of the unknown space %lld"},
    {"SELECT e.key & 1099511627775 FROM embeddings e"
     " JOIN spaces s ON s.space = e.key >> 40 AND s.dead = 0"
     " JOIN collections c ON c.id = s.collection AND c.deleted = 0"
     " WHERE NOT EXISTS (SELECT 1 FROM items i"
     " WHERE i.item = (e.key & 1099511627775)"
     " AND i.collection = s.collection)",
        "there is a vector of the missing item %lld"},
    {"SELECT e.key & 1099511627775 FROM embeddings e"
     " JOIN spaces s ON s.space = e.key >> 40"
     " WHERE length(e.vector) <> 4 * s.dims",
        "the vector of item %lld has another size than its space"},
    {"SELECT s.space FROM spaces s JOIN collections c"
     " ON c.id = s.collection AND c.deleted = 0 WHERE s.dead = 0"
     " AND s.n_vectors <> (SELECT count(*) FROM embeddings e"
     " WHERE e.key >= s.space << 40 AND e.key < (s.space + 1) << 40)",
        "the counter of space %lld is wrong"},
    {"SELECT c.id FROM collections c WHERE c.deleted = 0 AND c.n_items <>"
     " (SELECT count(*) FROM items i WHERE i.collection = c.id)",
        "the counter of items of collection %lld is wrong"},
    {"SELECT c.id FROM collections c WHERE c.deleted = 0 AND"
     " (c.n_images <> (SELECT count(*) FROM items i JOIN images p"
     " ON p.item = i.item WHERE i.collection = c.id) OR c.image_bytes <>"
     " (SELECT ifnull(sum(p.n_bytes), 0) FROM items i JOIN images p"
     " ON p.item = i.item WHERE i.collection = c.id"
     " AND p.bytes IS NOT NULL))",
        "the counters of pictures of collection %lld are wrong"},
    {"SELECT item FROM images WHERE bytes IS NOT NULL"
     " AND length(bytes) <> n_bytes",
        "the picture of item %lld has another size than it says"},
    {"SELECT i.item FROM items i JOIN collections c ON c.id = i.collection"
     " WHERE c.deleted = 0 AND i.change_seq > c.change_seq",
        "item %lld is newer than its collection"},
    {"SELECT m FROM (SELECT max(item) AS m FROM items) WHERE m >"
     " (SELECT value FROM counters WHERE name = 'item')",
        "item %lld is over the counter of items"},
    {"SELECT w.key >> 20 FROM weights w WHERE NOT EXISTS (SELECT 1"
     " FROM generations g WHERE g.id = w.key >> 20)",
        "there are weights of the unknown generation row %lld"},
    {"SELECT w.key >> 20 FROM encoder_weights w WHERE NOT EXISTS (SELECT 1"
     " FROM encoders e WHERE e.id = w.key >> 20)",
        "there are weights of the unknown encoder %lld"},
    {"SELECT g.id FROM generations g JOIN collections c"
     " ON c.id = g.collection WHERE c.deleted = 0 AND g.encoder <> 0"
     " AND g.weights = 0 AND NOT EXISTS (SELECT 1 FROM encoders e"
     " WHERE e.id = g.encoder AND e.weights = 2)",
        "generation row %lld has lost its encoder"},
};

/* Whose weights are compared with their checksum. */
static const struct complete {
    const struct weights_table *table;
    const char *next;
    const char *what;
} COMPLETE[] = {{&weights_of_generations,
                    "SELECT id FROM generations WHERE weights = 2 AND id > ?1"
                    " ORDER BY id LIMIT 1",
                    "generation row"},
    {&weights_of_encoders,
        "SELECT id FROM encoders WHERE weights = 2 AND id > ?1"
        " ORDER BY id LIMIT 1",
        "encoder"}};

static enum err
check_sqlite(struct db *db, struct fault *fault)
{
    char words[256] = "";
    struct query q;
    enum err err;

    query_start(&q, db, INTEGRITY);
    if (query_row(&q)) {
        struct store_text text = query_get_text(&q, 0);
        if (text.s != NULL && strcmp(text.s, "ok") != 0) {
            size_t n = MIN(text.len, sizeof(words) - 1);
            memcpy(words, text.s, n);
            words[n] = '\0';
            q.err = ERR_CORRUPT;
        }
    }
    err = query_end(&q);
    if (err != OK) {
        return fault_set(fault, err, "", "the file is damaged: %s", words);
    }
    query_start(&q, db, FOREIGN_KEYS);
    if (query_row(&q)) {
        q.err = ERR_CORRUPT;
    }
    err = query_end(&q);
    if (err != OK) {
        return fault_set(fault, err, "", "a row refers to a missing one");
    }
    return OK;
}

static enum err
check_rules(struct db *db, struct fault *fault)
{
    for (size_t i = 0; i < ARRAY_LEN(RULES); i++) {
        int64_t id = 0;
        enum err err = db_get_int(db, RULES[i].sql, &id);
        if (err == ERR_NOT_FOUND) {
            continue;
        }
        if (err != OK) {
            return fault_set(
                fault, err, "", "the file cannot be read: %s", err_text(err));
        }
        char number[32];
        const char *at = strstr(RULES[i].words, "%lld");
        ASSERT(at != NULL);
        (void)snprintf(number, sizeof(number), "%lld", (long long)id);
        return fault_set(fault, ERR_CORRUPT, "", "%.*s%s%s",
            (int)(at - RULES[i].words), RULES[i].words, number, at + 4);
    }
    return OK;
}

static enum err
check_weights(
    struct db *db, const struct complete *complete, struct fault *fault)
{
    int64_t id = 0;

    for (;;) {
        struct query q;
        bool found;
        enum err err;
        query_start(&q, db, complete->next);
        query_int(&q, id);
        found = query_row(&q);
        if (found) {
            id = query_get_int(&q, 0);
        }
        err = query_end(&q);
        if (err == OK && found) {
            err = weights_check(db, complete->table, id);
        }
        if (err != OK) {
            return fault_set(fault, err, "", "the weights of %s %lld: %s",
                complete->what, (long long)id, err_text(err));
        }
        if (!found) {
            return OK;
        }
    }
}

static const char LIST_IMAGES[] =
    "SELECT item, sha256, bytes FROM images WHERE bytes IS NOT NULL"
    " ORDER BY item";

/* The bytes of every picture against their checksum. */
static enum err
check_images(struct db *db, struct fault *fault)
{
    int64_t item = 0;
    struct query q;

    query_start(&q, db, LIST_IMAGES);
    while (query_row(&q)) {
        uint8_t stored[SHA256_BYTES], now[SHA256_BYTES];
        item = query_get_int(&q, 0);
        query_get_bytes(&q, 1, stored, sizeof(stored));
        struct store_text bytes = query_get_blob(&q, 2);
        if (q.err == OK) {
            sha256_of(bytes.s, bytes.len, now);
            if (memcmp(stored, now, sizeof(now)) != 0) {
                q.err = ERR_CORRUPT;
            }
        }
    }
    enum err err = query_end(&q);
    if (err != OK) {
        return fault_set(fault, err, "", "the picture of item %lld: %s",
            (long long)item, err_text(err));
    }
    return OK;
}

enum err
store_check(struct store *store, struct fault *fault)
{
    struct db *db = NULL;
    enum err err = store_open_reader(store, &db, fault);

    if (err != OK) {
        return err;
    }
    err = db_run(db, BEGIN);
    if (err == OK) {
        err = check_sqlite(db, fault);
    }
    if (err == OK) {
        err = check_rules(db, fault);
    }
    for (size_t i = 0; i < ARRAY_LEN(COMPLETE) && err == OK; i++) {
        err = check_weights(db, &COMPLETE[i], fault);
    }
    if (err == OK) {
        err = check_images(db, fault);
    }
    if (!sqlite3_get_autocommit(db->sql)) {
        db_try(db, COMMIT);
    }
    db_close(db);
    return err;
}
