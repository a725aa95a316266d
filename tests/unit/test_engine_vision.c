/*
 * Goal: where the encoder reads pictures, what is embedded is the picture and
 * nothing else: found by picture and by id, made anew when the picture changes
 * and only then, kept over a restart, embedded for a candidate; text is refused
 * where a vector would have to come of it.
 * Method: pictures drawn by a kit in three of its forms; a small network, whose
 * vectors of two files are compared with those that it gives directly.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "image/decode.h"
#include "store/store.h"
#include "engine/ingest.h"
#include "engine/internal.h"
#include "engine/pictures.h"
#include "tests/support/engine_kit.h"
#include "tests/support/image_kit.h"

#define N_PICTURES 60
#define DIMS 32

static const char *const SETTINGS =
    "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28,\"channels\":3,"
    "\"width\":16,\"blocks\":1,\"stages\":2,\"dims\":32}}";

static void
make(struct engine_kit *kit, const char *settings)
{
    bool created = false;
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    enum err err = engine_collection_put(
        kit->engine, "photos", settings, &created, &kit->arena, &info, &fault);
    if (err) {
        fail_msg("collection: %s %s", fault.pointer, fault.detail);
    }
    assert_true(created);
    assert_int_equal(info.dims, DIMS);
    assert_string_equal(info.reads, "image");
}

/* Scene i as a JPEG, PNG or WebP file. */
static void
draw(struct buf *out, size_t i)
{
    struct image image;
    buf_init(out, SIZE_MAX / 2);
    image_kit_paint(&image, 30 + (uint32_t)(i * 7 % 90),
        30 + (uint32_t)(i * 13 % 70), i % 5 == 4 ? 1 : 3, i);
    if (i % 3 == 0) {
        image_kit_jpeg(out, &image, NULL);
    } else if (i % 3 == 1) {
        image_kit_png(out, &image, NULL);
    } else {
        image_kit_webp(out, &image, NULL);
    }
    image_release(&image);
}

static struct engine_image
file_of(const struct buf *buf)
{
    return (struct engine_image){.bytes = buf->data, .n = buf->len};
}

static void
name_of(char out[16], size_t i)
{
    snprintf(out, 16, "p%zu", i);
}

static void
take(void *arg, const struct engine_outcome *outcome)
{
    size_t *n = arg;
    *n += outcome->status == ENGINE_CREATED;
}

static void
fill(struct engine_kit *kit, size_t n)
{
    struct fault fault = {.err = OK};
    struct engine_bulk *bulk;
    size_t n_created = 0;
    assert_int_equal(engine_bulk_new(&bulk, kit->engine, "photos",
                         ENGINE_BULK_ITEMS, take, &n_created, &fault),
        OK);
    for (size_t i = 0; i < n; i++) {
        struct buf file;
        char id[16];
        draw(&file, i);
        name_of(id, i);
        struct engine_item item = {.id = id, .image = file_of(&file)};
        assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
        buf_release(&file);
    }
    assert_int_equal(engine_bulk_finish(bulk, NULL, NULL, &fault), OK);
    engine_bulk_free(bulk);
    assert_int_equal(n_created, n);
}

static struct engine_answer
search(struct engine_kit *kit, struct engine_query query)
{
    struct engine_answer answer = {.n_hits = 0};
    struct fault fault = {.err = OK};
    enum err err = engine_search(
        kit->engine, "photos", &query, &kit->arena, &answer, &fault);
    if (err) {
        fail_msg("search: %s %s", fault.pointer, fault.detail);
    }
    return answer;
}

static struct engine_answer
search_picture(struct engine_kit *kit, size_t i, int64_t k)
{
    struct buf file;
    draw(&file, i);
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    query.image = file_of(&file);
    query.k = k;
    struct engine_answer answer = search(kit, query);
    buf_release(&file);
    return answer;
}

static struct engine_item_view
view_of(struct engine_kit *kit, const char *id)
{
    struct engine_item_view view;
    struct fault fault = {.err = OK};
    assert_int_equal(engine_item_get(kit->engine, "photos", id, true,
                         &kit->arena, &view, &fault),
        OK);
    return view;
}

static void
check_file(struct engine_kit *kit)
{
    struct fault fault = {.err = OK};
    if (store_check(kit->engine->store, &fault)) {
        fail_msg("store_check: %s", fault.detail);
    }
}

/* What the live encoder makes of scene i, by its own hands. */
static void
embed(struct engine_kit *kit, const struct snapshot *of, size_t i, float *out)
{
    (void)kit;
    const struct encoder *encoder = encoder_ref_get(of->encoder);
    struct buf file;
    struct image whole;
    struct fault fault = {.err = OK};
    static uint8_t pixels[28 * 28 * 3];
    struct image_limits limits = {.side_wanted = 28};
    draw(&file, i);
    assert_int_equal(
        image_decode(&whole, file.data, file.len, &limits, &fault), OK);
    image_fit(pixels, 28, 3, &whole);
    struct image fitted = {
        .width = 28, .height = 28, .channels = 3, .pixels = pixels};
    struct encoder_input input = {.image = &fitted};
    assert_int_equal(encoder_encode(encoder, &input, 1, out, NULL, NULL), OK);
    image_release(&whole);
    buf_release(&file);
}

static void
expect_near(const float *a, const float *b)
{
    for (size_t i = 0; i < DIMS; i++) {
        assert_true(fabsf(a[i] - b[i]) < 1e-4f);
    }
}

static struct collection *
find(struct engine_kit *kit)
{
    struct collection *c;
    assert_int_equal(collection_find(kit->engine, "photos", &c, NULL), OK);
    return c;
}

static void
found_by_picture(void **state)
{
    (void)state;
    struct engine_kit kit;
    float want[DIMS];
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    fill(&kit, N_PICTURES);
    for (int round = 0; round < 2; round++) {
        struct collection *c = find(&kit);
        struct snapshot *live = collection_live(c);
        for (size_t i = 0; i < N_PICTURES; i++) {
            char id[16];
            name_of(id, i);
            struct engine_answer a = search_picture(&kit, i, 3);
            assert_int_equal(a.n_hits, 3);
            assert_string_equal(a.hits[0].id, id);
            assert_true(a.hits[0].cosine > 1 - 1e-4);
            embed(&kit, live, i, want);
            expect_near(view_of(&kit, id).vector, want);
        }
        struct engine_query query = ENGINE_QUERY_DEFAULT;
        query.id = "p7";
        struct engine_answer a = search(&kit, query);
        assert_int_equal(a.n_hits, ENGINE_K_DEFAULT);
        snapshot_unref(live);
        collection_unref(c);
        engine_kit_fresh(&kit);
        engine_kit_reopen(&kit);
    }
    check_file(&kit);
    engine_kit_close(&kit);
}

static uint64_t
decoded(struct engine_kit *kit)
{
    struct engine_counters counters;
    engine_counters(kit->engine, &counters);
    return counters.images_decoded;
}

/* The vector follows the picture, and nothing else. */
static void
what_is_embedded(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    struct buf one, two;
    float zero[DIMS] = {0}, before[DIMS];
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    draw(&one, 1);
    draw(&two, 2);
    /* Without a picture: the zero vector, which no query finds. */
    struct engine_item item = {
        .id = "x", .title = engine_kit_text("later"), .metadata = {.s = NULL}};
    assert_int_equal(
        engine_item_put(kit.engine, "photos", &item, NULL, &outcome, &fault),
        OK);
    assert_memory_equal(view_of(&kit, "x").vector, zero, sizeof(zero));
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    query.id = "x";
    struct engine_answer answer;
    assert_int_equal(engine_search(kit.engine, "photos", &query, &kit.arena,
                         &answer, &fault),
        ERR_INVALID);
    /* It comes. */
    struct engine_image image = file_of(&one);
    assert_int_equal(engine_image_put(kit.engine, "photos", "x", &image, NULL,
                         &outcome, &fault),
        OK);
    memcpy(before, view_of(&kit, "x").vector, sizeof(before));
    assert_true(fabsf(before[0]) > 0 || fabsf(before[1]) > 0);
    /* Other words and the same picture: the vector stays, nothing is
       decoded. */
    uint64_t n = decoded(&kit);
    item.title = engine_kit_text("words");
    item.image = image;
    assert_int_equal(
        engine_item_put(kit.engine, "photos", &item, NULL, &outcome, &fault),
        OK);
    assert_int_equal(outcome.status, ENGINE_UPDATED);
    item.image.bytes = NULL;
    item.title = engine_kit_text("more words");
    assert_int_equal(
        engine_item_put(kit.engine, "photos", &item, NULL, &outcome, &fault),
        OK);
    assert_int_equal(outcome.status, ENGINE_UPDATED);
    assert_int_equal(
        engine_item_put(kit.engine, "photos", &item, NULL, &outcome, &fault),
        OK);
    assert_int_equal(outcome.status, ENGINE_UNCHANGED);
    assert_int_equal(engine_item_patch(kit.engine, "photos", "x", "{\"a\":1}",
                         NULL, &outcome, &fault),
        OK);
    assert_int_equal(decoded(&kit), n);
    assert_memory_equal(view_of(&kit, "x").vector, before, sizeof(before));
    assert_string_equal(view_of(&kit, "x").title.s, "more words");
    /* Another picture; the vector is another. */
    image = file_of(&two);
    assert_int_equal(engine_image_put(kit.engine, "photos", "x", &image, NULL,
                         &outcome, &fault),
        OK);
    assert_int_equal(decoded(&kit), n + 1);
    assert_memory_not_equal(view_of(&kit, "x").vector, before, sizeof(before));
    assert_string_equal(view_of(&kit, "x").title.s, "more words");
    /* None again. */
    assert_int_equal(
        engine_image_delete(kit.engine, "photos", "x", NULL, &outcome, &fault),
        OK);
    assert_memory_equal(view_of(&kit, "x").vector, zero, sizeof(zero));
    check_file(&kit);
    buf_release(&one);
    buf_release(&two);
    engine_kit_close(&kit);
}

static void
text_is_refused(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct engine_answer answer;
    struct engine_outcome outcome;
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    fill(&kit, 4);
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    query.text = engine_kit_text("a cat");
    assert_int_equal(engine_search(kit.engine, "photos", &query, &kit.arena,
                         &answer, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/text");
    assert_non_null(strstr(fault.detail, "reads pictures"));
    struct engine_pair pair = {.anchor = {.text = engine_kit_text("a cat")},
        .positive = {.id = "p1"},
        .weight = 1};
    assert_int_equal(
        engine_pairs_add(kit.engine, "photos", &pair, 1, &outcome, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/0/anchor/text");
    pair.anchor = (struct engine_side){.id = "p0"};
    assert_int_equal(
        engine_pairs_add(kit.engine, "photos", &pair, 1, &outcome, &fault), OK);
    struct engine_text text = engine_kit_text("a cat");
    static const char *const models[] = {"photos", "vision"};
    for (size_t i = 0; i < 2; i++) {
        struct engine_embeddings rows;
        struct engine_token *tokens;
        double cosine;
        size_t n;
        assert_int_equal(engine_embed(kit.engine, models[i], &text, 1, 0, false,
                             &kit.arena, &rows, &fault),
            ERR_INVALID);
        assert_string_equal(fault.pointer, "/model");
        assert_int_equal(engine_tokenize(kit.engine, models[i], &text,
                             &kit.arena, &tokens, &n, &fault),
            ERR_INVALID);
        assert_int_equal(engine_similarity(kit.engine, models[i], &text, &text,
                             1, &cosine, &fault),
            ERR_INVALID);
    }
    bool created;
    struct engine_collection_info info;
    assert_int_equal(engine_collection_put(kit.engine, "other",
                         "{\"encoder\":\"vision\",\"template\":\"{text}\"}",
                         &created, &kit.arena, &info, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/template");
    /* Its own settings confirm it. */
    assert_int_equal(
        engine_collection_get(kit.engine, "photos", &kit.arena, &info, &fault),
        OK);
    assert_null(strstr(info.settings_json, "template"));
    assert_int_equal(
        engine_collection_put(kit.engine, "photos", info.settings_json,
            &created, &kit.arena, &info, &fault),
        OK);
    assert_int_equal(
        engine_collection_put(kit.engine, "photos", "{\"images\":\"vector\"}",
            &created, &kit.arena, &info, &fault),
        ERR_CONFLICT);
    assert_string_equal(fault.pointer, "/images");
    engine_kit_close(&kit);
}

static void
picks(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct engine_outcome outcome;
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    fill(&kit, 8);
    struct engine_answer a = search_picture(&kit, 3, 5);
    assert_int_equal(engine_feedback(kit.engine, "photos", a.search_id,
                         a.hits[1].id, 1, &kit.arena, &outcome, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/search_id");
    assert_non_null(strstr(fault.detail, "store the picture"));
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    query.id = "p3";
    a = search(&kit, query);
    assert_int_equal(engine_feedback(kit.engine, "photos", a.search_id,
                         a.hits[0].id, 1, &kit.arena, &outcome, &fault),
        OK);
    engine_kit_close(&kit);
}

static void
vectors_alone(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct engine_image_facts facts;
    struct engine_outcome outcome;
    struct buf bytes, one;
    char settings[512];
    int64_t version, job;
    engine_kit_open(&kit);
    snprintf(settings, sizeof(settings), "%.*s,\"images\":\"vector\"}",
        (int)strlen(SETTINGS) - 1, SETTINGS);
    make(&kit, settings);
    fill(&kit, 5);
    buf_init(&bytes, SIZE_MAX / 2);
    for (int round = 0; round < 2; round++) {
        struct engine_item_view view = view_of(&kit, "p3");
        assert_string_equal(view.image.type, "image/jpeg");
        assert_false(view.image.kept);
        assert_true(view.image.n_bytes > 0);
        assert_int_equal(engine_image_get(kit.engine, "photos", "p3", &facts,
                             &version, &bytes, &fault),
            ERR_NOT_FOUND);
        assert_non_null(strstr(fault.detail, "only the vectors"));
        struct engine_answer a = search_picture(&kit, 3, 2);
        assert_string_equal(a.hits[0].id, "p3");
        assert_int_equal(engine_train(kit.engine, "photos", NULL, &job, &fault),
            ERR_UNSUPPORTED);
        assert_non_null(strstr(fault.detail, "\"images\": \"vector\""));
        engine_kit_reopen(&kit);
    }
    struct engine_collection_info info;
    assert_int_equal(
        engine_collection_get(kit.engine, "photos", &kit.arena, &info, &fault),
        OK);
    assert_int_equal(info.n_images, 5);
    assert_int_equal(info.image_bytes, 0);
    /* The same picture is known without its bytes. */
    draw(&one, 3);
    struct engine_item item = {.id = "p3", .image = file_of(&one)};
    uint64_t n = decoded(&kit);
    assert_int_equal(
        engine_item_put(kit.engine, "photos", &item, NULL, &outcome, &fault),
        OK);
    assert_int_equal(outcome.status, ENGINE_UNCHANGED);
    assert_int_equal(decoded(&kit), n);
    check_file(&kit);
    buf_release(&bytes);
    buf_release(&one);
    engine_kit_close(&kit);
}

static void
views(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct buf a, b, c, still;
    struct image sheet, same;
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    fill(&kit, 3);
    buf_init(&a, SIZE_MAX / 2);
    buf_init(&b, SIZE_MAX / 2);
    buf_init(&c, SIZE_MAX / 2);
    buf_init(&still, SIZE_MAX / 2);
    assert_int_equal(
        engine_item_views(kit.engine, "photos", "p0", 8, NULL, 5, &a, &fault),
        OK);
    assert_int_equal(
        engine_item_views(kit.engine, "photos", "p0", 8, NULL, 5, &b, &fault),
        OK);
    assert_int_equal(
        engine_item_views(kit.engine, "photos", "p0", 8, NULL, 6, &c, &fault),
        OK);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    assert_true(a.len != c.len || memcmp(a.data, c.data, a.len) != 0);
    /* Nine tiles of 28 x 4 pixels, three in a row. */
    assert_int_equal(image_decode(&sheet, a.data, a.len, NULL, &fault), OK);
    assert_int_equal(sheet.width, 3 * (28 * 4 + 4) + 4);
    assert_int_equal(sheet.height, sheet.width);
    assert_int_equal(sheet.channels, 3);
    /* Views that change nothing are the picture. */
    enum err err = engine_item_views(kit.engine, "photos", "p0", 1,
        "{\"crop_min\":1,\"crop_max\":1,\"ratio\":1,\"flip\":0,\"jitter\":0,"
        "\"grey\":0,\"blur\":0,\"solarise\":0,\"rotate\":0,\"erase\":0}",
        5, &still, &fault);
    if (err) {
        fail_msg("views: %s %s", fault.pointer, fault.detail);
    }
    assert_int_equal(
        image_decode(&same, still.data, still.len, NULL, &fault), OK);
    assert_int_equal(same.width, 2 * (28 * 4 + 4) + 4);
    for (uint32_t y = 0; y < 112; y++) {
        const uint8_t *row = same.pixels + ((4 + y) * same.width + 4) * 3;
        for (uint32_t x = 0; x < 112 * 3; x++) {
            assert_in_range(row[x] + 1 - row[x + 116 * 3], 0, 2);
        }
    }
    /* And what is wrong. */
    assert_int_equal(engine_item_views(kit.engine, "photos", "p0", 1,
                         "{\"flip\":2}", 5, &a, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/views/flip");
    assert_int_equal(
        engine_item_views(kit.engine, "photos", "p0", 0, NULL, 5, &a, &fault),
        ERR_INVALID);
    assert_int_equal(engine_item_views(kit.engine, "photos", "nobody", 1, NULL,
                         5, &a, &fault),
        ERR_NOT_FOUND);
    image_release(&sheet);
    image_release(&same);
    buf_release(&a);
    buf_release(&b);
    buf_release(&c);
    buf_release(&still);
    engine_kit_close(&kit);
}

/* A damaged picture among many refuses its line; in an array, the array. */
static void
damaged_among_many(void **state)
{
    (void)state;
    enum { N = 40, BAD = 23 };
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct buf files[N];
    struct engine_item items[N];
    struct engine_outcome outcomes[N];
    char ids[N][16];
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    for (size_t i = 0; i < N; i++) {
        draw(&files[i], i);
        name_of(ids[i], i);
        items[i] = (struct engine_item){.id = ids[i]};
        items[i].image = file_of(&files[i]);
    }
    items[BAD].image.n = items[BAD].image.n * 2 / 3;
    items[BAD + 2].image.n = items[BAD + 2].image.n * 2 / 3;
    assert_int_equal(
        engine_items_put(kit.engine, "photos", items, N, outcomes, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/23/image");
    size_t n_created = 0;
    struct engine_bulk *bulk;
    assert_int_equal(engine_bulk_new(&bulk, kit.engine, "photos",
                         ENGINE_BULK_ITEMS, take, &n_created, &fault),
        OK);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(engine_bulk_item(bulk, &items[i], &fault), OK);
    }
    uint64_t n_refused;
    assert_int_equal(engine_bulk_finish(bulk, NULL, &n_refused, &fault), OK);
    engine_bulk_free(bulk);
    assert_int_equal(n_refused, 2);
    assert_int_equal(n_created, N - 2);
    for (size_t i = 0; i < N; i++) {
        if (i != BAD && i != BAD + 2) {
            struct engine_answer a = search_picture(&kit, i, 1);
            assert_string_equal(a.hits[0].id, ids[i]);
        }
        buf_release(&files[i]);
    }
    check_file(&kit);
    engine_kit_close(&kit);
}

/* Lines with one id, in one batch and in two. */
static void
lines_with_one_id(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct buf files[3];
    size_t n_created = 0;
    uint64_t n_refused;
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    for (size_t i = 0; i < 3; i++) {
        draw(&files[i], i);
    }
    struct engine_bulk *bulk;
    assert_int_equal(engine_bulk_new(&bulk, kit.engine, "photos",
                         ENGINE_BULK_ITEMS, take, &n_created, &fault),
        OK);
    /* A damaged one gives way to the one before it. */
    struct engine_item item = {.id = "p0", .image = file_of(&files[0])};
    assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
    item.image = file_of(&files[1]);
    item.image.n = item.image.n * 2 / 3;
    assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
    /* A picture, and its words in the same batch; then in the next one, while
       this one may be on its way. */
    item = (struct engine_item){.id = "p1", .image = file_of(&files[1])};
    assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
    item = (struct engine_item){.id = "p1", .text = engine_kit_text("one")};
    assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
    item = (struct engine_item){.id = "p2", .image = file_of(&files[2])};
    assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
    for (int i = 0; i < 1100; i++) {
        char id[16];
        snprintf(id, sizeof(id), "bare%d", i);
        item = (struct engine_item){.id = id};
        assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
    }
    item = (struct engine_item){.id = "p2", .text = engine_kit_text("two")};
    assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
    assert_int_equal(engine_bulk_finish(bulk, NULL, &n_refused, &fault), OK);
    engine_bulk_free(bulk);
    assert_int_equal(n_refused, 1);
    for (size_t i = 0; i < 3; i++) {
        char id[16];
        name_of(id, i);
        struct engine_answer a = search_picture(&kit, i, 1);
        assert_string_equal(a.hits[0].id, id);
        assert_true(a.hits[0].cosine > 1 - 1e-4);
        buf_release(&files[i]);
    }
    assert_string_equal(view_of(&kit, "p1").text.s, "one");
    assert_string_equal(view_of(&kit, "p2").text.s, "two");
    check_file(&kit);
    engine_kit_close(&kit);
}

/* Another picture comes, or the first, between the look at the present row and
   the commit of words alone. */
static void
between_look_and_commit(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    struct buf files[2];
    float want[DIMS];
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    fill(&kit, 1);
    struct collection *c = find(&kit);
    struct snapshot *live = collection_live(c);
    static const char *const ids[] = {"p0", "new"};
    for (size_t i = 0; i < 2; i++) {
        struct ingest_options options = {.all_or_nothing = true};
        struct ingest *batch;
        struct engine_counters before, after;
        engine_counters(kit.engine, &before);
        draw(&files[i], i + 1);
        struct engine_item item = {
            .id = ids[i], .text = engine_kit_text("words")};
        struct engine_image image = file_of(&files[i]);
        assert_int_equal(ingest_new(&batch, c, &options), OK);
        assert_int_equal(ingest_add(batch, &item, 1, "", &fault), OK);
        assert_int_equal(ingest_encode(batch, NULL, &fault), OK);
        assert_int_equal(engine_image_put(kit.engine, "photos", ids[i], &image,
                             NULL, &outcome, &fault),
            OK);
        assert_int_equal(ingest_submit(batch, &fault), OK);
        assert_int_equal(ingest_wait(batch, &fault), OK);
        ingest_free(batch);
        engine_counters(kit.engine, &after);
        assert_int_equal(after.commit_conflicts, before.commit_conflicts + 1);
        struct engine_item_view view = view_of(&kit, ids[i]);
        embed(&kit, live, i + 1, want);
        expect_near(view.vector, want);
        assert_string_equal(view.text.s, "words");
        assert_int_equal(view.image.n_bytes, files[i].len);
        buf_release(&files[i]);
    }
    snapshot_unref(live);
    collection_unref(c);
    check_file(&kit);
    engine_kit_close(&kit);
}

struct writer {
    struct engine_kit *kit;
    struct buf *files;
    int kind;
    atomic_int *failed;
};

/* Pictures alone, words alone, or both, over and over the same few items. */
static void *
write_on(void *arg)
{
    struct writer *w = arg;
    struct rng rng;
    rng_seed(&rng, (uint64_t)w->kind);
    for (int i = 0; i < 60; i++) {
        struct fault fault = {.err = OK};
        struct engine_outcome outcome;
        char id[16], words[32];
        name_of(id, rng_below(&rng, 3));
        snprintf(words, sizeof(words), "words %d of %d", i, w->kind);
        struct engine_image image = file_of(&w->files[rng_below(&rng, 4)]);
        struct engine_item item = {.id = id, .text = engine_kit_text(words)};
        if (w->kind == 2 && i % 4 == 0) {
            item.no_image = true;
        } else if (w->kind == 2) {
            item.image = image;
        }
        enum err err = w->kind == 0 ? engine_image_put(w->kit->engine, "photos",
                                          id, &image, NULL, &outcome, &fault)
                                    : engine_item_put(w->kit->engine, "photos",
                                          &item, NULL, &outcome, &fault);
        *w->failed += err != OK;
    }
    return NULL;
}

/* Whoever wrote last: the vector is that of the picture that is there. */
static void
writers_at_once(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct buf files[4];
    float vectors[4][DIMS], zero[DIMS] = {0};
    struct writer writers[4];
    pthread_t threads[4];
    atomic_int failed = 0;
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    struct collection *c = find(&kit);
    struct snapshot *live = collection_live(c);
    for (size_t i = 0; i < 4; i++) {
        draw(&files[i], i);
        embed(&kit, live, i, vectors[i]);
    }
    for (int i = 0; i < 4; i++) {
        writers[i] = (struct writer){
            .kit = &kit, .files = files, .kind = i % 3, .failed = &failed};
        assert_int_equal(
            pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(failed, 0);
    for (size_t i = 0; i < 3; i++) {
        struct engine_image_facts facts;
        struct fault fault = {.err = OK};
        struct buf bytes;
        int64_t version;
        char id[16];
        const float *want = zero;
        name_of(id, i);
        buf_init(&bytes, SIZE_MAX / 2);
        enum err err = engine_image_get(
            kit.engine, "photos", id, &facts, &version, &bytes, &fault);
        for (size_t f = 0; f < 4 && !err; f++) {
            if (bytes.len == files[f].len &&
                memcmp(bytes.data, files[f].data, bytes.len) == 0) {
                want = vectors[f];
            }
        }
        assert_true(err == ERR_NOT_FOUND || want != zero);
        expect_near(view_of(&kit, id).vector, want);
        buf_release(&bytes);
    }
    for (size_t i = 0; i < 4; i++) {
        buf_release(&files[i]);
    }
    snapshot_unref(live);
    collection_unref(c);
    check_file(&kit);
    engine_kit_close(&kit);
}

/* A candidate gets every picture embedded, those written meanwhile too. */
static void
embedded_anew(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    float want[DIMS];
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    fill(&kit, N_PICTURES);
    engine_kit_put(&kit, "photos", "bare", "no picture", NULL);
    struct collection *c = find(&kit);
    struct snapshot *live = collection_live(c), *shadow;
    struct candidate candidate = {.temperature = 0.07, .seed = 3};
    assert_int_equal(
        encoder_clone(&candidate.encoder, encoder_ref_get(live->encoder)), OK);
    size_t n;
    float *params = encoder_params(candidate.encoder, &n);
    for (size_t i = 0; i < n; i += 2) {
        params[i] *= 1.1f;
    }
    assert_int_equal(lineage_register(c, &candidate, 0, &shadow, &fault), OK);
    snapshot_unref(live);
    /* Between registering and backfill. */
    struct buf file;
    struct engine_outcome outcome;
    draw(&file, N_PICTURES);
    struct engine_image image = file_of(&file);
    assert_int_equal(engine_image_put(kit.engine, "photos", "new", &image, NULL,
                         &outcome, &fault),
        OK);
    assert_int_equal(engine_image_put(kit.engine, "photos", "p5", &image, NULL,
                         &outcome, &fault),
        OK);
    buf_release(&file);
    struct reembed_options options = {.pool = kit.engine->tuner_pool};
    assert_int_equal(reembed_run(c, shadow, &options), OK);
    assert_int_equal(
        lineage_publish(c, shadow, 0.07, NULL, NULL, JOB_DONE, NULL, &fault),
        OK);
    for (size_t i = 0; i <= N_PICTURES; i++) {
        char id[16];
        name_of(id, i);
        if (i == 5) {
            continue; /* it has the new picture */
        }
        embed(&kit, shadow, i, want);
        expect_near(view_of(&kit, i < N_PICTURES ? id : "new").vector, want);
    }
    expect_near(view_of(&kit, "p5").vector, want);
    float zero[DIMS] = {0};
    assert_memory_equal(view_of(&kit, "bare").vector, zero, sizeof(zero));
    snapshot_unref(shadow);
    collection_unref(c);
    check_file(&kit);
    engine_kit_reopen(&kit);
    engine_kit_close(&kit);
}

/* What training is given: the pictures of numbers, in their places. */
static void
loaded_by_number(void **state)
{
    (void)state;
    enum { N = 300, SIDE = 28 };
    struct engine_kit kit;
    int64_t items[N];
    struct image out[N];
    uint8_t *pixels = calloc(N, SIDE * SIDE * 3);
    static uint8_t want[SIDE * SIDE * 3];
    engine_kit_open(&kit);
    make(&kit, SETTINGS);
    fill(&kit, 40);
    engine_kit_put(&kit, "photos", "bare", "no picture", NULL);
    struct collection *c = find(&kit);
    for (size_t i = 0; i < N; i++) {
        struct roster_entry in;
        char id[16];
        name_of(id, i % 40);
        assert_true(roster_find(c->roster, i % 41 == 40 ? "bare" : id, &in));
        items[i] = i % 43 == 42 ? 0 : in.item;
    }
    assert_int_equal(pictures_load(c, items, N, SIDE, 3,
                         kit.engine->encode_pool, pixels, out),
        OK);
    for (size_t i = 0; i < N; i++) {
        if (i % 41 == 40 || i % 43 == 42) {
            assert_null(out[i].pixels);
            continue;
        }
        struct buf file;
        struct image whole;
        struct fault fault = {.err = OK};
        struct image_limits limits = {.side_wanted = SIDE};
        draw(&file, i % 40);
        assert_int_equal(
            image_decode(&whole, file.data, file.len, &limits, &fault), OK);
        image_fit(want, SIDE, 3, &whole);
        assert_ptr_equal(out[i].pixels, pixels + i * sizeof(want));
        assert_memory_equal(out[i].pixels, want, sizeof(want));
        image_release(&whole);
        buf_release(&file);
    }
    collection_unref(c);
    free(pixels);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_by_picture),
        cmocka_unit_test(what_is_embedded),
        cmocka_unit_test(text_is_refused),
        cmocka_unit_test(picks),
        cmocka_unit_test(vectors_alone),
        cmocka_unit_test(views),
        cmocka_unit_test(damaged_among_many),
        cmocka_unit_test(lines_with_one_id),
        cmocka_unit_test(between_look_and_commit),
        cmocka_unit_test(writers_at_once),
        cmocka_unit_test(embedded_anew),
        cmocka_unit_test(loaded_by_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
