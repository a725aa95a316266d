/*
 * Goal: pictures whose decoding takes much memory take turns, in the order of
 * their coming; queries by picture and views beyond a number do not wait, so
 * searches are served; no read is open while stored pictures are decoded; and
 * what cannot be made again goes through an export and an import.
 * Method: a test that holds the gate stands for a picture being decoded; who
 * waits is counted; all read connections are taken meanwhile.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "store/store.h"
#include "engine/internal.h"
#include "engine/pictures.h"
#include "tests/support/engine_kit.h"
#include "tests/support/image_kit.h"

#define WAIT_MS 20000
#define READERS 8 /* store_options.read_connections */

/* *state becomes at least want, or the test fails. */
static void
wait_for(atomic_int *state, int want)
{
    for (int i = 0; i < WAIT_MS && *state < want; i++) {
        clock_sleep_ms(1);
    }
    assert_true(*state >= want);
}

static void
wait_for_waiting(struct picture_gate *gate, size_t want)
{
    for (int i = 0; i < WAIT_MS && picture_gate_waiting(gate) != want; i++) {
        clock_sleep_ms(1);
    }
    assert_int_equal(picture_gate_waiting(gate), want);
}

/* ---- the gate ------------------------------------------------------------ */

struct guest {
    struct picture_gate *gate;
    uint64_t bytes;
    atomic_int *n_in; /* how many came in before */
    int place;
};

static void *
visit(void *arg)
{
    struct guest *g = arg;
    enum err err = picture_gate_enter(g->gate, g->bytes, false);
    g->place = err ? -1 : (*g->n_in)++;
    picture_gate_leave(g->gate, g->bytes);
    return NULL;
}

static void
turns(void **state)
{
    (void)state;
    enum { N = 3 };
    struct picture_gate *gate;
    struct guest guests[N];
    pthread_t threads[N];
    atomic_int n_in = 0;
    assert_int_equal(picture_gate_new(&gate, 0), OK);
    /* They fit beside each other, exactly. */
    assert_int_equal(picture_gate_enter(gate, 1, true), OK);
    assert_int_equal(
        picture_gate_enter(gate, PICTURES_LARGE_BYTES - 1, true), OK);
    assert_int_equal(picture_gate_enter(gate, 1, true), ERR_BUSY);
    picture_gate_leave(gate, 1);
    /* The largest waits until it is alone, and no small one that comes later
       slips in before it. */
    for (int i = 0; i < N; i++) {
        guests[i] = (struct guest){.gate = gate,
            .bytes = i == 0 ? 2 * PICTURES_LARGE_BYTES : 1,
            .n_in = &n_in};
        assert_int_equal(
            pthread_create(&threads[i], NULL, visit, &guests[i]), 0);
        wait_for_waiting(gate, (size_t)i + 1);
    }
    assert_int_equal(picture_gate_enter(gate, 1, true), ERR_BUSY);
    picture_gate_leave(gate, PICTURES_LARGE_BYTES - 1);
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(guests[0].place, 0);
    assert_int_equal(n_in, N);
    /* Empty again: more than the whole is let in. */
    assert_int_equal(
        picture_gate_enter(gate, 2 * PICTURES_LARGE_BYTES, true), OK);
    picture_gate_free(gate);
    picture_gate_free(NULL);
}

/* ---- queries ------------------------------------------------------------- */

static const char settings[] =
    "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28,\"dims\":32,"
    "\"width\":16,\"blocks\":1,\"stages\":2}}";

static void
open_photos(struct engine_kit *kit, size_t waits_max)
{
    bool created;
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    engine_kit_open(kit);
    engine_close(kit->engine);
    struct engine_config config = {
        .data_dir = kit->dir, .n_threads = 2, .picture_waits_max = waits_max};
    assert_int_equal(engine_open(&kit->engine, &config, &fault), OK);
    assert_int_equal(engine_collection_put(kit->engine, "photos", settings,
                         &created, &kit->arena, &info, &fault),
        OK);
}

/* A progressive JPEG that takes more than 8 MiB to be decoded, and a baseline
   one of the same size, which is shrunk and takes little. */
static void
draw(struct buf *out, bool progressive, uint64_t seed)
{
    struct image image;
    buf_init(out, SIZE_MAX / 2);
    image_kit_paint(&image, 1800, 1000, 3, seed);
    image_kit_jpeg(out, &image, &(struct image_kit){.interlaced = progressive});
    image_release(&image);
}

static void
put_picture(struct engine_kit *kit, const char *id, const struct buf *file)
{
    struct engine_image image = {.bytes = file->data, .n = file->len};
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    assert_int_equal(engine_image_put(kit->engine, "photos", id, &image, NULL,
                         &outcome, &fault),
        OK);
}

static enum err
ask(struct engine_kit *kit, const struct buf *file)
{
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    struct engine_answer answer;
    struct fault fault = {.err = OK};
    struct arena arena;
    arena_init(&arena, SMALL_ARENA_BYTES);
    query.image = (struct engine_image){.bytes = file->data, .n = file->len};
    enum err err =
        engine_search(kit->engine, "photos", &query, &arena, &answer, &fault);
    arena_release(&arena);
    return err;
}

static enum err
ask_for_views(struct engine_kit *kit, const char *id)
{
    struct buf sheet;
    struct fault fault = {.err = OK};
    buf_init(&sheet, SIZE_MAX / 2);
    enum err err = engine_item_views(
        kit->engine, "photos", id, 2, NULL, 1, &sheet, &fault);
    buf_release(&sheet);
    return err;
}

struct asker {
    struct engine_kit *kit;
    const struct buf *file;
    enum err err;
};

static void *
ask_once(void *arg)
{
    struct asker *a = arg;
    a->err = ask(a->kit, a->file);
    return NULL;
}

static void
searches_are_served(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct buf large, plain;
    pthread_t thread;
    open_photos(&kit, 1);
    struct picture_gate *gate = kit.engine->gate;
    draw(&large, true, 1);
    draw(&plain, false, 2);
    put_picture(&kit, "large", &large);
    assert_int_equal(ask(&kit, &large), OK);
    /* Another picture has all the memory. */
    assert_int_equal(picture_gate_enter(gate, PICTURES_LARGE_BYTES, false), OK);
    struct asker asker = {.kit = &kit, .file = &large};
    assert_int_equal(pthread_create(&thread, NULL, ask_once, &asker), 0);
    wait_for_waiting(gate, 1);
    assert_int_equal(ask(&kit, &large), ERR_BUSY);
    assert_int_equal(ask_for_views(&kit, "large"), ERR_BUSY);
    /* What takes little memory does not wait at all. */
    assert_int_equal(ask(&kit, &plain), OK);
    picture_gate_leave(gate, PICTURES_LARGE_BYTES);
    pthread_join(thread, NULL);
    assert_int_equal(asker.err, OK);
    assert_int_equal(ask(&kit, &large), OK);
    assert_int_equal(ask_for_views(&kit, "large"), OK);
    buf_release(&large);
    buf_release(&plain);
    engine_kit_close(&kit);
}

/* ---- re-embedding -------------------------------------------------------- */

struct reembedding {
    struct collection *c;
    struct snapshot *shadow;
    enum err err;
};

static void *
reembed(void *arg)
{
    struct reembedding *r = arg;
    struct reembed_options options = {.pool = NULL};
    r->err = reembed_run(r->c, r->shadow, &options);
    return NULL;
}

struct readers {
    struct store *store;
    atomic_int n;
};

/* All read connections at once: none is left for anybody else. */
static void *
take_readers(void *arg)
{
    struct readers *r = arg;
    struct db *db[READERS];
    for (int i = 0; i < READERS; i++) {
        if (store_read_begin(r->store, &db[i])) {
            abort();
        }
        r->n++;
    }
    for (int i = 0; i < READERS; i++) {
        store_read_end(r->store, db[i]);
    }
    return NULL;
}

static void
decoded_without_a_read(void **state)
{
    (void)state;
    enum { N = 5 };
    static const char *const ids[N] = {"a", "b", "c", "d", "e"};
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct buf files[N];
    pthread_t thread, taker;
    open_photos(&kit, 1);
    struct picture_gate *gate = kit.engine->gate;
    for (size_t i = 0; i < N; i++) {
        draw(&files[i], true, i);
        put_picture(&kit, ids[i], &files[i]);
    }
    engine_kit_put(&kit, "photos", "bare", "no picture", NULL);
    struct collection *c;
    assert_int_equal(collection_find(kit.engine, "photos", &c, &fault), OK);
    struct snapshot *live = collection_live(c), *shadow;
    struct candidate candidate = {.temperature = 0.07, .seed = 3};
    assert_int_equal(
        encoder_clone(&candidate.encoder, encoder_ref_get(live->encoder)), OK);
    size_t n;
    encoder_params(candidate.encoder, &n)[0] *= 1.1f;
    assert_int_equal(lineage_register(c, &candidate, 0, &shadow, &fault), OK);
    snapshot_unref(live);

    assert_int_equal(picture_gate_enter(gate, PICTURES_LARGE_BYTES, false), OK);
    struct reembedding r = {.c = c, .shadow = shadow};
    assert_int_equal(pthread_create(&thread, NULL, reembed, &r), 0);
    wait_for_waiting(gate, 1);
    struct readers readers = {.store = kit.engine->store};
    assert_int_equal(pthread_create(&taker, NULL, take_readers, &readers), 0);
    wait_for(&readers.n, READERS);
    pthread_join(taker, NULL);
    picture_gate_leave(gate, PICTURES_LARGE_BYTES);
    pthread_join(thread, NULL);
    assert_int_equal(r.err, OK);
    assert_int_equal(
        lineage_publish(c, shadow, 0.07, NULL, NULL, JOB_DONE, NULL, &fault),
        OK);
    for (size_t i = 0; i < N; i++) {
        struct engine_query query = ENGINE_QUERY_DEFAULT;
        struct engine_answer answer;
        query.image =
            (struct engine_image){.bytes = files[i].data, .n = files[i].len};
        assert_int_equal(engine_search(kit.engine, "photos", &query, &kit.arena,
                             &answer, &fault),
            OK);
        assert_string_equal(answer.hits[0].id, ids[i]);
        assert_true(answer.hits[0].cosine > 1 - 1e-4);
        buf_release(&files[i]);
    }
    snapshot_unref(shadow);
    collection_unref(c);
    engine_kit_close(&kit);
}

/* ---- export -------------------------------------------------------------- */

#define VECTOR_ONLY(width)                                                     \
    "{\"encoder\":\"vision\",\"images\":\"vector\",\"encoder_config\":{"       \
    "\"input\":28,\"dims\":32,\"width\":" width ",\"blocks\":1,\"stages\":2}}"

static void
make(struct engine_kit *kit, const char *name, const char *config)
{
    bool created;
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    assert_int_equal(engine_collection_put(kit->engine, name, config, &created,
                         &kit->arena, &info, &fault),
        OK);
}

static void
export_all(struct engine_kit *kit, bool no_images, struct buf *out)
{
    struct engine_export_options options = {
        .items = true, .no_images = no_images};
    struct engine_stream *stream;
    struct fault fault = {.err = OK};
    bool end = false;
    assert_int_equal(
        engine_export_new(&stream, kit->engine, "alone", &options, &fault), OK);
    buf_init(out, SIZE_MAX / 2);
    while (!end) {
        struct buf chunk;
        buf_init(&chunk, 1 << 20);
        assert_int_equal(engine_stream_next(stream, &chunk, &end, &fault), OK);
        buf_add(out, chunk.data ? chunk.data : "", chunk.len);
        buf_release(&chunk);
    }
    buf_add_char(out, '\0');
    engine_stream_free(stream);
}

struct refusals {
    size_t n;
    char detail[FAULT_DETAIL_MAX];
};

static void
take_outcome(void *arg, const struct engine_outcome *outcome)
{
    struct refusals *r = arg;
    if (outcome->status == ENGINE_REFUSED) {
        assert_int_equal(outcome->fault.err, ERR_CONFLICT);
        assert_string_equal(outcome->fault.pointer, "/item/vector");
        memcpy(r->detail, outcome->fault.detail, sizeof(r->detail));
        r->n++;
    }
}

static struct refusals
import_all(struct engine_kit *kit, const char *name, const char *text)
{
    struct refusals refusals = {.n = 0};
    struct engine_bulk *bulk;
    struct fault fault = {.err = OK};
    assert_int_equal(engine_bulk_new(&bulk, kit->engine, name,
                         ENGINE_BULK_IMPORT, take_outcome, &refusals, &fault),
        OK);
    while (*text) {
        size_t len = strcspn(text, "\n");
        assert_int_equal(engine_bulk_line(bulk, text, len, &fault), OK);
        text += len + (text[len] == '\n');
    }
    assert_int_equal(engine_bulk_finish(bulk, NULL, NULL, &fault), OK);
    engine_bulk_free(bulk);
    return refusals;
}

static void
expect_first(struct engine_kit *kit, const char *name, const struct buf *file,
    const char *id)
{
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    struct engine_answer answer;
    struct fault fault = {.err = OK};
    query.image = (struct engine_image){.bytes = file->data, .n = file->len};
    assert_int_equal(
        engine_search(kit->engine, name, &query, &kit->arena, &answer, &fault),
        OK);
    assert_string_equal(answer.hits[0].id, id);
    assert_true(answer.hits[0].cosine > 1 - 1e-4);
}

/* Vectors whose pictures are not kept: an export has them unasked, and they are
   taken where they mean something, twice in a row. */
static void
vectors_are_not_lost(void **state)
{
    (void)state;
    enum { N = 3 };
    static const char *const ids[N] = {"a", "b", "c"};
    struct engine_kit kit, other;
    struct engine_item_view view;
    struct fault fault = {.err = OK};
    struct buf files[N], text, again, bare;
    engine_kit_open(&kit);
    make(&kit, "alone", VECTOR_ONLY("16"));
    for (size_t i = 0; i < N; i++) {
        struct engine_outcome outcome;
        draw(&files[i], false, i);
        struct engine_item item = {.id = ids[i],
            .text = engine_kit_text("kept"),
            .image = {.bytes = files[i].data, .n = files[i].len}};
        assert_int_equal(
            engine_item_put(kit.engine, "alone", &item, NULL, &outcome, &fault),
            OK);
    }
    engine_kit_put(&kit, "alone", "bare", "no picture", NULL);
    export_all(&kit, false, &text);
    export_all(&kit, true, &bare);
    assert_null(strstr(bare.data, "\"vector\":\""));

    engine_kit_open(&other);
    make(&other, "alone", VECTOR_ONLY("16"));
    assert_int_equal(import_all(&other, "alone", text.data).n, 0);
    for (size_t i = 0; i < N; i++) {
        expect_first(&other, "alone", &files[i], ids[i]);
        assert_int_equal(engine_item_get(other.engine, "alone", ids[i], false,
                             &other.arena, &view, &fault),
            OK);
        assert_string_equal(view.text.s, "kept");
        assert_null(view.image.type);
    }
    export_all(&other, false, &again);
    assert_string_equal(again.data, text.data);

    /* Elsewhere they are refused, and what has none is taken. */
    make(&other, "wide", VECTOR_ONLY("32"));
    struct refusals r = import_all(&other, "wide", text.data);
    assert_int_equal(r.n, N);
    assert_non_null(strstr(r.detail, "another encoder"));
    make(&other, "keep", settings);
    r = import_all(&other, "keep", text.data);
    assert_int_equal(r.n, N);
    assert_non_null(strstr(r.detail, "\"images\": \"vector\""));
    assert_int_equal(engine_item_get(other.engine, "keep", "bare", false,
                         &other.arena, &view, &fault),
        OK);
    for (size_t i = 0; i < N; i++) {
        buf_release(&files[i]);
    }
    buf_release(&text);
    buf_release(&again);
    buf_release(&bare);
    engine_kit_close(&kit);
    engine_kit_close(&other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns),
        cmocka_unit_test(searches_are_served),
        cmocka_unit_test(decoded_without_a_read),
        cmocka_unit_test(vectors_are_not_lost),
    };
    (void)alarm(120); /* where somebody waits for ever */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
