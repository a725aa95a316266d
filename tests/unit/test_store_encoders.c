/*
 * Goal: an imported encoder is found by its name only when it is there whole;
 * nothing deletes one that a kept generation needs, and what needed it later
 * says that its weights are gone; what is half-written or deleted is purged;
 * the check finds what breaks the rules; a file of the version before gets on.
 * Method: blobs of sizes around the chunk, generations walked through their
 * states by hand, rows changed by hand, a copy, a file of version 2.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sqlite3.h>

#include "base/alloc.h"
#include "base/embed.h"
#include "base/rng.h"
#include "store/encoders.h"
#include "store/purge.h"
#include "tests/support/store_kit.h"

struct call {
    const struct encoder_facts *facts;
    int64_t id, collection;
};

static enum err
op_create(struct db *db, void *arg)
{
    struct call *c = arg;

    return encoders_create(db, c->facts, 5000, &c->id);
}

static enum err
op_discard(struct db *db, void *arg)
{
    return encoders_discard(db, ((struct call *)arg)->id);
}

static enum err
op_discard_partial(struct db *db, void *arg)
{
    (void)arg;
    return encoders_discard_partial(db);
}

static enum err
op_delete(struct db *db, void *arg)
{
    struct call *c = arg;

    return encoders_delete(db, c->id, &c->collection);
}

static struct encoder_facts
facts_of(const char *name)
{
    struct encoder_facts facts = {.name = store_text_of(name),
        .family = store_text_of("transformer"),
        .config = store_text_of("{\"layers\":2}"),
        .dims = KIT_DIMS,
        .max_tokens = 128,
        .n_params = 1000};

    memset(facts.fingerprint, 7, sizeof(facts.fingerprint));
    return facts;
}

static int64_t
create(struct kit *kit, const char *name)
{
    struct encoder_facts facts = facts_of(name);
    struct call call = {.facts = &facts};

    assert_int_equal(store_run(kit->store, op_create, &call), OK);
    return call.id;
}

static enum err
write_bytes(struct kit *kit, int64_t id, const void *bytes, size_t n)
{
    struct weights_writer *writer = NULL;
    enum err err = encoder_weights_create(&writer, kit->store, id);

    if (err == OK) {
        assert_int_equal(weights_add(writer, bytes, n), OK);
        err = weights_finish(writer, NULL);
    }
    return err;
}

static int64_t
import(struct kit *kit, const char *name)
{
    int64_t id = create(kit, name);

    assert_int_equal(write_bytes(kit, id, "weights", 7), OK);
    return id;
}

static enum err
get(struct kit *kit, const char *name, struct encoder_row *out)
{
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    enum err err = encoders_get(db, store_text_of(name), &kit->arena, out);
    store_read_end(kit->store, db);
    return err;
}

static enum err
note_name(void *ctx, const struct encoder_row *row)
{
    char *names = ctx;

    snprintf(
        names + strlen(names), 64 - strlen(names), "%s ", row->facts.name.s);
    return OK;
}

static void
expect_names(struct kit *kit, const char *expected)
{
    char names[64] = "";
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    assert_int_equal(encoders_list(db, (struct store_text){.s = NULL}, 100,
                         note_name, names),
        OK);
    store_read_end(kit->store, db);
    assert_string_equal(names, expected);
}

static int64_t
ask(const struct kit *kit, const char *sql)
{
    char path[256];
    sqlite3 *raw = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t n = 0;

    snprintf(path, sizeof(path), "%s/kindred.db", kit->dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    sqlite3_busy_timeout(raw, 5000);
    assert_int_equal(sqlite3_prepare_v2(raw, sql, -1, &stmt, NULL), SQLITE_OK);
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        n = sqlite3_column_int64(stmt, 0);
    }
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    sqlite3_close(raw);
    return n;
}

/* ---- there whole or not at all ------------------------------------------- */

static void
test_import(void **state)
{
    struct encoder_facts facts = facts_of("minilm");
    struct call call = {.facts = &facts};
    struct encoder_row row;
    struct db *db = NULL;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    facts.card = store_text_of("{\"source\":null}");
    assert_int_equal(store_run(kit.store, op_create, &call), OK);
    assert_int_equal(get(&kit, "minilm", &row), ERR_NOT_FOUND);
    expect_names(&kit, "");
    assert_int_equal(
        encoder_weights_read(kit.store, call.id, NULL, NULL), ERR_NOT_FOUND);
    assert_int_equal(write_bytes(&kit, call.id, "weights", 7), OK);
    assert_int_equal(get(&kit, "minilm", &row), OK);
    assert_int_equal(row.id, call.id);
    assert_string_equal(row.facts.family.s, "transformer");
    assert_string_equal(row.facts.config.s, "{\"layers\":2}");
    assert_string_equal(row.facts.card.s, "{\"source\":null}");
    assert_int_equal(row.facts.dims, KIT_DIMS);
    assert_int_equal(row.facts.max_tokens, 128);
    assert_int_equal(row.facts.n_params, 1000);
    assert_memory_equal(row.facts.fingerprint, facts.fingerprint, SHA256_BYTES);
    assert_int_equal(row.created_ms, 5000);
    assert_int_equal(row.weights_bytes, 7);
    assert_int_equal(row.n_collections, 0);
    /* Written once. */
    assert_int_equal(write_bytes(&kit, call.id, "w", 1), ERR_CONFLICT);
    assert_int_equal(write_bytes(&kit, 99, "w", 1), ERR_NOT_FOUND);
    assert_int_equal(store_run(kit.store, op_discard, &call), ERR_NOT_FOUND);

    /* Another of that name: only its last step can tell. */
    int64_t second = create(&kit, "minilm");
    assert_int_equal(write_bytes(&kit, second, "other", 5), ERR_EXISTS);
    int64_t third = import(&kit, "e5");
    expect_names(&kit, "e5 minilm ");
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    assert_int_equal(encoders_get_by_id(db, third, &kit.arena, &row), OK);
    assert_string_equal(row.facts.name.s, "e5");
    assert_null(row.facts.card.s);
    assert_int_equal(
        encoders_get_by_id(db, second, &kit.arena, &row), ERR_NOT_FOUND);
    store_read_end(kit.store, db);
    kit_check(&kit);
    kit_close(&kit);
}

struct reading {
    const uint8_t *bytes;
    size_t at;
};

static enum err
compare(void *ctx, const void *bytes, size_t n)
{
    struct reading *r = ctx;

    assert_memory_equal(bytes, r->bytes + r->at, n);
    r->at += n;
    return OK;
}

static void
test_bytes(void **state)
{
    static const size_t SIZES[] = {1, WEIGHTS_CHUNK_BYTES - 1,
        WEIGHTS_CHUNK_BYTES, WEIGHTS_CHUNK_BYTES + 1,
        3 * WEIGHTS_CHUNK_BYTES + 17};
    size_t max = SIZES[4];
    uint8_t *bytes = mem_alloc(max, 1), *again = mem_alloc(max, 1);
    struct rng rng;
    struct kit kit;
    (void)state;

    rng_seed(&rng, 5);
    for (size_t i = 0; i < max; i++) {
        bytes[i] = (uint8_t)rng_below(&rng, 256);
    }
    kit_open(&kit, NULL);
    for (size_t i = 0; i < sizeof(SIZES) / sizeof(*SIZES); i++) {
        struct reading reading = {.bytes = bytes};
        struct weights_reader *reader = NULL;
        uint64_t n = 0;
        char name[8] = {(char)('a' + i), '\0'};
        int64_t id = create(&kit, name);
        assert_int_equal(write_bytes(&kit, id, bytes, SIZES[i]), OK);
        assert_int_equal(
            encoder_weights_read(kit.store, id, compare, &reading), OK);
        assert_int_equal(reading.at, SIZES[i]);
        assert_int_equal(encoder_weights_open(&reader, kit.store, id, &n), OK);
        assert_int_equal(n, SIZES[i]);
        assert_int_equal(weights_next(reader, again, n), OK);
        assert_memory_equal(again, bytes, n);
        assert_int_equal(weights_next(reader, again, 1), ERR_CORRUPT);
        weights_close(reader);
    }
    kit_check(&kit);
    mem_free(bytes);
    mem_free(again);
    kit_close(&kit);
}

/* What a crash or a failure left half-written is no one's, and goes. */
static void
test_partial(void **state)
{
    static uint8_t bytes[2 * WEIGHTS_CHUNK_BYTES + 5];
    struct weights_writer *writer = NULL;
    struct call call = {.id = 0};
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    int64_t whole = import(&kit, "whole");
    call.id = create(&kit, "given up");
    assert_int_equal(encoder_weights_create(&writer, kit.store, call.id), OK);
    assert_int_equal(weights_add(writer, bytes, sizeof(bytes)), OK);
    assert_int_equal(store_run(kit.store, op_discard, &call), OK);
    assert_int_equal(weights_finish(writer, NULL), ERR_CONFLICT);

    call.id = create(&kit, "left");
    assert_int_equal(encoder_weights_create(&writer, kit.store, call.id), OK);
    assert_int_equal(weights_add(writer, bytes, sizeof(bytes)), OK);
    weights_abort(writer);
    assert_int_equal(ask(&kit, "SELECT count(*) FROM encoder_weights"), 5);
    kit_check(&kit);
    kit_reopen(&kit, NULL);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    assert_int_equal(ask(&kit, "SELECT count(*) FROM encoder_weights"), 3);
    assert_int_equal(store_run(kit.store, op_discard_partial, NULL), OK);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    assert_int_equal(ask(&kit, "SELECT count(*) FROM encoder_weights"), 1);
    assert_int_equal(ask(&kit, "SELECT sum(id) FROM encoders"), whole);
    expect_names(&kit, "whole ");
    kit_check(&kit);
    kit_close(&kit);
}

/* ---- generations that have an encoder's weights -------------------------- */

struct make {
    int64_t collection, encoder, number, space;
    int64_t id;
    uint8_t fingerprint;
};

static enum err
op_generation(struct db *db, void *arg)
{
    struct make *m = arg;
    struct generation_new first = {.dims = KIT_DIMS,
        .fingerprint = {m->fingerprint},
        .family = store_text_of("transformer"),
        .config = store_text_of("{}"),
        .encoder = m->encoder};

    return generations_create(
        db, m->collection, &first, 2000, &m->id, &m->number, &m->space);
}

static struct generation_row
get_generation(struct kit *kit, int64_t generation)
{
    struct generation_row row;
    struct db *db = NULL;

    assert_int_equal(store_read_begin(kit->store, &db), OK);
    assert_int_equal(
        generations_get(db, kit->collection, generation, &kit->arena, &row),
        OK);
    store_read_end(kit->store, db);
    return row;
}

static enum err
op_revive(struct db *db, void *arg)
{
    struct make *m = arg;

    return generations_revive(db, m->collection, m->number, &m->space);
}

static enum err
op_delete_collection(struct db *db, void *arg)
{
    return collections_delete(db, ((struct make *)arg)->collection);
}

static void
test_references(void **state)
{
    struct encoder_row row;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    assert_int_equal(kit_put_items(&kit, "i", 3, 1, true), OK);
    struct call call = {.id = import(&kit, "e5")};
    int64_t partial = create(&kit, "half");
    struct make make = {
        .collection = kit.collection, .encoder = partial, .fingerprint = 2};
    assert_int_equal(store_run(kit.store, op_generation, &make), ERR_NOT_FOUND);
    make.encoder = 99;
    assert_int_equal(store_run(kit.store, op_generation, &make), ERR_NOT_FOUND);
    make.encoder = call.id;
    assert_int_equal(store_run(kit.store, op_generation, &make), OK);
    assert_int_equal(get_generation(&kit, make.number).encoder, call.id);
    assert_int_equal(get_generation(&kit, 1).encoder, 0);

    /* Building, live, previous: it is needed. */
    assert_int_equal(store_run(kit.store, op_delete, &call), ERR_CONFLICT);
    assert_int_equal(call.collection, kit.collection);
    assert_int_equal(get(&kit, "e5", &row), OK);
    assert_int_equal(row.n_collections, 1);
    assert_int_equal(kit_backfill(&kit, make.space), 3);
    assert_int_equal(kit_publish(&kit, make.number, 1), OK);
    assert_int_equal(store_run(kit.store, op_delete, &call), ERR_CONFLICT);
    assert_int_equal(kit_publish(&kit, 1, make.number), OK);
    assert_int_equal(store_run(kit.store, op_delete, &call), ERR_CONFLICT);
    kit_check(&kit);

    /* Retired: it is not, and its generation says what it lost. */
    int64_t id, number, space;
    kit_make_generation(&kit, 3, &id, &number, &space);
    assert_int_equal(kit_backfill(&kit, space), 3);
    assert_int_equal(kit_publish(&kit, number, 1), OK);
    assert_int_equal(
        get_generation(&kit, make.number).state, GENERATION_RETIRED);
    assert_int_equal(get_generation(&kit, make.number).weights, WEIGHTS_NONE);
    assert_int_equal(get(&kit, "e5", &row), OK);
    assert_int_equal(row.n_collections, 0);
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(store_run(kit.store, op_delete, &call), ERR_NOT_FOUND);
    assert_int_equal(get(&kit, "e5", &row), ERR_NOT_FOUND);
    assert_int_equal(
        get_generation(&kit, make.number).weights, WEIGHTS_DROPPED);
    assert_int_equal(get_generation(&kit, 1).weights, WEIGHTS_NONE);
    assert_int_equal(store_run(kit.store, op_revive, &make), ERR_CONFLICT);
    kit_check(&kit);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    assert_int_equal(ask(&kit, "SELECT count(*) FROM encoders"), 1);
    kit_check(&kit);

    /* Of a deleted collection: not either. The name may be given again. */
    call.id = import(&kit, "e5");
    make.encoder = call.id;
    assert_int_equal(store_run(kit.store, op_generation, &make), OK);
    assert_int_equal(store_run(kit.store, op_delete, &call), ERR_CONFLICT);
    assert_int_equal(store_run(kit.store, op_delete_collection, &make), OK);
    assert_int_equal(store_run(kit.store, op_delete, &call), OK);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    kit_check(&kit);
    kit_close(&kit);
}

/* ---- the file ------------------------------------------------------------ */

#define FLIPPED "UPDATE encoder_weights SET bytes = x'77656967687474'"

/* A wrong bit does not get into an encoder. */
static void
test_damaged(void **state)
{
    struct weights_reader *reader = NULL;
    char bytes[7];
    uint64_t n = 0;
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    int64_t id = import(&kit, "e5");
    ask(&kit, FLIPPED);
    assert_int_equal(encoder_weights_open(&reader, kit.store, id, &n), OK);
    assert_int_equal(n, sizeof(bytes));
    assert_int_equal(weights_next(reader, bytes, n), ERR_CORRUPT);
    weights_close(reader);
    kit_close(&kit);
}

static void
test_check_finds(void **state)
{
    static const struct {
        const char *damage, *repair, *word;
    } CASES[] = {
        {"UPDATE encoder_weights SET bytes = x'61'",
            "UPDATE encoder_weights SET bytes = x'77656967687473'",
            "weights of encoder 1"},
        {FLIPPED, "UPDATE encoder_weights SET bytes = x'77656967687473'",
            "weights of encoder 1"},
        {"INSERT INTO encoder_weights VALUES (77 << 20, x'61')",
            "DELETE FROM encoder_weights WHERE key = 77 << 20",
            "unknown encoder 77"},
        {"UPDATE generations SET encoder = 5",
            "UPDATE generations SET encoder = 0",
            "generation row 1 has lost its encoder"},
    };
    struct kit kit;
    (void)state;

    kit_open(&kit, NULL);
    kit_make_collection(&kit, "c");
    import(&kit, "e5");
    kit_check(&kit);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        struct fault fault = {.err = OK};
        ask(&kit, CASES[i].damage);
        assert_int_equal(store_check(kit.store, &fault), ERR_CORRUPT);
        assert_non_null(strstr(fault.detail, CASES[i].word));
        ask(&kit, CASES[i].repair);
        kit_check(&kit);
    }
    kit_close(&kit);
}

static void
test_backup(void **state)
{
    char path[512], to[512], dir[128];
    struct reading reading = {.bytes = (const uint8_t *)"weights"};
    struct fault fault = {.err = OK};
    struct encoder_row row;
    struct kit kit, copy;
    int64_t bytes;
    (void)state;

    kit_open(&kit, NULL);
    int64_t id = import(&kit, "e5");
    assert_int_equal(
        store_backup(kit.store, "b", NULL, NULL, &bytes, &fault), OK);
    assert_int_equal(store_backup_path(kit.store, "b", path, sizeof(path)), OK);
    kit_make_dir(dir, sizeof(dir));
    snprintf(to, sizeof(to), "%s/kindred.db", dir);
    assert_int_equal(rename(path, to), 0);
    copy = kit;
    assert_int_equal(store_open(&copy.store, dir, NULL, &fault), OK);
    kit_check(&copy);
    assert_int_equal(get(&copy, "e5", &row), OK);
    assert_int_equal(
        encoder_weights_read(copy.store, id, compare, &reading), OK);
    assert_int_equal(reading.at, 7);
    store_close(copy.store);
    kit_remove_dir(dir);
    kit.arena = copy.arena;
    kit_close(&kit);
}

/* What the version before imported encoders left: that of version 1, brought
   up to 2, with a picture and a generation that has weights. */
static void
test_from_version_2(void **state)
{
    static const char MORE[] =
        "INSERT INTO images VALUES (1, 2, 4, 4, 2, zeroblob(32), NULL);"
        "UPDATE collections SET n_images = 1;"
        "INSERT INTO weights VALUES (1 << 20, x'77656967687473');"
        "UPDATE generations SET weights = 2, weights_bytes = 7";
    static char rows[8192];
    char dir[128], path[256], sum[2 * SHA256_BYTES + 1];
    uint8_t sha256[SHA256_BYTES];
    struct reading reading = {.bytes = (const uint8_t *)"weights"};
    struct fault fault = {.err = OK};
    sqlite3 *raw = NULL;
    struct kit kit = {.collection = 1};
    (void)state;

    FILE *f = fopen("tests/golden/store_v1.sql", "rb");
    if (f == NULL) {
        print_message("skipped: not run from the root of the tree\n");
        skip();
    }
    size_t len = fread(rows, 1, sizeof(rows) - 1, f);
    fclose(f);
    rows[len] = '\0';
    kit_make_dir(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/kindred.db", dir);
    assert_int_equal(sqlite3_open(path, &raw), SQLITE_OK);
    sha256_of("weights", 7, sha256);
    sha256_hex(sha256, sum);
    char set[256];
    snprintf(
        set, sizeof(set), "UPDATE generations SET weights_sha256 = x'%s'", sum);
    const char *const steps[] = {(const char *)embedded_schema[0].bytes, rows,
        (const char *)embedded_schema[1].bytes, MORE, set};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        assert_int_equal(
            sqlite3_exec(raw, steps[i], NULL, NULL, NULL), SQLITE_OK);
    }
    sqlite3_close(raw);

    assert_int_equal(store_open(&kit.store, dir, NULL, &fault), OK);
    arena_init(&kit.arena, 1 << 20);
    kit_check(&kit);
    struct generation_row row = get_generation(&kit, 1);
    assert_int_equal(row.encoder, 0);
    assert_int_equal(row.weights, WEIGHTS_COMPLETE);
    assert_int_equal(weights_read(kit.store, row.id, compare, &reading), OK);
    assert_int_equal(reading.at, 7);
    expect_names(&kit, "");
    import(&kit, "e5");
    expect_names(&kit, "e5 ");
    kit_check(&kit);
    arena_release(&kit.arena);
    store_close(kit.store);
    kit_remove_dir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_check_finds),
        cmocka_unit_test(test_backup),
        cmocka_unit_test(test_from_version_2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
