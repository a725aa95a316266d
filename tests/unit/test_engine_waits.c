/*
 * Goal: an encoder that takes long to load or to encode keeps nobody waiting
 * who does not use it: another encoder, the default model, the ordinals of
 * removed items. What a batch says of its time holds its encoding.
 * Method: an encoder whose weights cannot be read because the test has all
 * readers of the file; a batcher of the test's own, which writes and deletes
 * while a search encodes.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/batcher.h"
#include "engine/internal.h"
#include "tests/support/engine_kit.h"

#define TOO_LONG_S 60 /* somebody waits for ever */
#define READERS 8     /* of the file, at one time (store.h) */

/* ---- a batcher in which things happen ------------------------------------ */

static struct engine_kit *during; /* NULL: nothing happens */
static const size_t churn = 50;

enum err
batcher_new(struct batcher **out, size_t n_lanes, struct pool *pool)
{
    (void)n_lanes;
    (void)pool;
    *out = NULL;
    return OK;
}

void
batcher_free(struct batcher *batcher)
{
    (void)batcher;
}

enum err
batcher_encode(struct batcher *batcher, const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info)
{
    struct engine_kit *kit = during;
    (void)batcher;
    during = NULL; /* items are encoded here as well */
    for (size_t i = 0; i < churn && kit; i++) {
        engine_kit_put(kit, "c", "short-lived", "a green pear", NULL);
        assert_int_equal(
            engine_item_delete(kit->engine, "c", "short-lived", NULL, NULL),
            OK);
    }
    if (kit) {
        clock_sleep_ms(5);
    }
    return encoder_encode(encoder, inputs, n, out, info, NULL);
}

static size_t
span(struct engine_kit *kit)
{
    struct collection *c;
    assert_int_equal(collection_find(kit->engine, "c", &c, NULL), OK);
    size_t n = roster_span(c->roster);
    collection_unref(c);
    return n;
}

/* An ordinal is used again while a search of its time still encodes. */
static void
test_ordinals(void **state)
{
    struct engine_kit kit;
    (void)state;

    engine_kit_open(&kit);
    engine_kit_collection(&kit, "c");
    engine_kit_put(&kit, "c", "pear", "a green pear", NULL);
    during = &kit;
    engine_kit_search(&kit, "c", "a pear", 1, NULL);
    assert_null(during);
    assert_in_range(span(&kit), 1, churn / 2);
    engine_kit_close(&kit);
}

/* Of a batch each answer has the time of all its texts, as the totals do. */
static void
test_times(void **state)
{
    struct engine_counters before, after;
    struct engine_query queries[2] = {
        ENGINE_QUERY_DEFAULT, ENGINE_QUERY_DEFAULT};
    struct engine_answer answers[2];
    struct fault faults[2], fault;
    struct engine_kit kit;
    (void)state;

    engine_kit_open(&kit);
    engine_kit_collection(&kit, "c");
    engine_kit_put(&kit, "c", "pear", "a green pear", NULL);
    queries[0].text = engine_kit_text("a pear");
    queries[1].text = engine_kit_text("something green");
    engine_counters(kit.engine, &before);
    during = &kit;
    assert_int_equal(engine_search_batch(kit.engine, "c", queries, 2,
                         &kit.arena, answers, faults, &fault),
        OK);
    engine_counters(kit.engine, &after);
    assert_true(after.encode_ns - before.encode_ns >= 5000000);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(faults[i].err, OK);
        assert_true(answers[i].encode_ms >= 5);
        assert_true(answers[i].took_ms >= answers[i].encode_ms);
    }
    engine_kit_close(&kit);
}

/* ---- a file that cannot be read -------------------------------------------
 */

static struct db *readers[READERS];

static void
take_readers(struct engine_kit *kit)
{
    for (size_t i = 0; i < READERS; i++) {
        assert_int_equal(store_read_begin(kit->engine->store, &readers[i]), OK);
    }
}

static void
give_readers(struct engine_kit *kit)
{
    for (size_t i = 0; i < READERS; i++) {
        store_read_end(kit->engine->store, readers[i]);
    }
}

struct caller {
    pthread_t thread;
    struct engine_kit *kit;
    enum err (*call)(struct engine_kit *kit);
    enum err err;
    atomic_bool over;
};

static void *
run_caller(void *arg)
{
    struct caller *caller = arg;
    caller->err = caller->call(caller->kit);
    caller->over = true;
    return NULL;
}

/* A thread that waits for a reader. */
static void
start(struct caller *caller)
{
    assert_int_equal(
        pthread_create(&caller->thread, NULL, run_caller, caller), 0);
    clock_sleep_ms(100);
    assert_false(caller->over);
}

static enum err
load(struct engine_kit *kit)
{
    struct encoder_source source = {.family = "transformer",
        .config_json = "{}",
        .store = kit->engine->store,
        .imported = 1};
    struct encoder_ref *ref;
    return encoder_ref_share(&ref, &kit->engine->encoders, &source, NULL, NULL);
}

static enum err
make_collection(struct engine_kit *kit)
{
    struct engine_collection_info info;
    struct arena arena;
    bool created;
    arena_init(&arena, 1 << 20);
    enum err err = engine_collection_put(kit->engine, "new",
        "{\"encoder\":\"none\"}", &created, &arena, &info, NULL);
    arena_release(&arena);
    return err;
}

static void
expect_default_model(struct engine_kit *kit)
{
    struct engine_text text = engine_kit_text("a pear");
    struct engine_embeddings out;
    struct fault fault;
    assert_int_equal(engine_embed(kit->engine, "static", &text, 1, 0, false,
                         &kit->arena, &out, &fault),
        OK);
}

/* Two threads want the encoder that is being loaded: each learns that it is
   not there. Meanwhile others are taken. */
static void
test_loading(void **state)
{
    struct engine_kit kit;
    struct caller callers[2];
    (void)state;

    engine_kit_open(&kit);
    take_readers(&kit);
    for (size_t i = 0; i < 2; i++) {
        callers[i] = (struct caller){.kit = &kit, .call = load};
        start(&callers[i]);
    }
    expect_default_model(&kit);
    assert_int_equal(encoder_registry_bytes(&kit.engine->encoders), 0);
    give_readers(&kit);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
        assert_int_equal(callers[i].err, ERR_NOT_FOUND);
    }
    engine_kit_close(&kit);
}

static void
test_creating(void **state)
{
    struct engine_kit kit;
    struct caller caller = {.kit = &kit, .call = make_collection};
    (void)state;

    engine_kit_open(&kit);
    take_readers(&kit);
    start(&caller);
    expect_default_model(&kit);
    give_readers(&kit);
    assert_int_equal(pthread_join(caller.thread, NULL), 0);
    assert_int_equal(caller.err, ERR_INVALID);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordinals),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_loading),
        cmocka_unit_test(test_creating),
    };
    alarm(TOO_LONG_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
