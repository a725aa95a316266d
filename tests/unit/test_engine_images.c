/*
 * Goal: a picture is kept with its item, bytes and facts, through every way of
 * writing, over a restart, an export and an import; what is wrong with one is
 * refused with its place and changes nothing else.
 * Method: pictures drawn by a kit, in a collection whose encoder reads text;
 * the kit's hostile files; streams whose lines supersede each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "image/decode.h"
#include "store/store.h"
#include "engine/internal.h"
#include "tests/support/engine_kit.h"
#include "tests/support/image_kit.h"

/* A JPEG file of a scene. */
static void
draw(struct buf *out, uint32_t width, uint32_t height, uint64_t seed)
{
    struct image image;
    buf_init(out, SIZE_MAX / 2);
    image_kit_paint(&image, width, height, 3, seed);
    image_kit_jpeg(out, &image, NULL);
    image_release(&image);
}

static struct engine_image
file_of(const struct buf *buf)
{
    return (struct engine_image){.bytes = buf->data, .n = buf->len};
}

static enum err
put(struct engine_kit *kit, const struct engine_item *item,
    struct engine_outcome *outcome, struct fault *fault)
{
    *fault = (struct fault){.err = OK};
    return engine_item_put(kit->engine, "docs", item, NULL, outcome, fault);
}

static struct engine_item_view
view_of(struct engine_kit *kit, const char *id)
{
    struct engine_item_view view;
    struct fault fault = {.err = OK};
    assert_int_equal(engine_item_get(kit->engine, "docs", id, false,
                         &kit->arena, &view, &fault),
        OK);
    return view;
}

/* The item's picture is this file. */
static void
expect_picture(struct engine_kit *kit, const char *id, const struct buf *want)
{
    struct engine_image_facts facts;
    struct fault fault = {.err = OK};
    struct buf got;
    int64_t version = 0;
    buf_init(&got, SIZE_MAX / 2);
    assert_int_equal(engine_image_get(kit->engine, "docs", id, &facts, &version,
                         &got, &fault),
        OK);
    assert_int_equal(got.len, want->len);
    assert_memory_equal(got.data, want->data, want->len);
    assert_int_equal(facts.n_bytes, want->len);
    assert_int_equal(version, view_of(kit, id).version);
    buf_release(&got);
}

static uint64_t
decoded(struct engine_kit *kit)
{
    struct engine_counters counters;
    engine_counters(kit->engine, &counters);
    return counters.images_decoded;
}

static void
check_file(struct engine_kit *kit)
{
    struct fault fault = {.err = OK};
    if (store_check(kit->engine->store, &fault)) {
        fail_msg("store_check: %s", fault.detail);
    }
}

static void
kept_beside_a_text(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct engine_outcome outcome;
    struct fault fault;
    struct buf one, two;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    draw(&one, 40, 30, 1);
    draw(&two, 20, 20, 2);
    struct engine_item item = {.id = "cat",
        .text = engine_kit_text("a cat on the sofa"),
        .image = file_of(&one)};
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    assert_int_equal(outcome.status, ENGINE_CREATED);
    struct engine_item_view view = view_of(&kit, "cat");
    assert_string_equal(view.image.type, "image/jpeg");
    assert_int_equal(view.image.width, 40);
    assert_int_equal(view.image.height, 30);
    assert_int_equal(view.image.n_bytes, one.len);
    assert_true(view.image.kept);
    assert_int_equal(strlen(view.image.sha256), 64);
    expect_picture(&kit, "cat", &one);
    struct engine_answer a = engine_kit_search(&kit, "docs", "cat", 1, NULL);
    assert_string_equal(a.hits[0].id, "cat");

    /* The same again: nothing is written, nothing decoded. */
    uint64_t before = decoded(&kit);
    assert_int_equal(before, 1);
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    assert_int_equal(outcome.status, ENGINE_UNCHANGED);
    assert_int_equal(outcome.version, view.version);
    /* Another text, the same picture. */
    item.text = engine_kit_text("two cats on the sofa");
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    assert_int_equal(outcome.status, ENGINE_UPDATED);
    assert_int_equal(decoded(&kit), before);
    /* Nothing said of the picture keeps it. */
    item.image.bytes = NULL;
    item.text = engine_kit_text("three cats");
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    expect_picture(&kit, "cat", &one);
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    assert_int_equal(outcome.status, ENGINE_UNCHANGED);
    /* Another picture alone is a change, and no change of what is embedded. */
    item.image = file_of(&two);
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    assert_int_equal(outcome.status, ENGINE_UPDATED);
    expect_picture(&kit, "cat", &two);
    check_file(&kit);
    engine_kit_reopen(&kit);
    expect_picture(&kit, "cat", &two);
    /* Metadata alone keeps it too. */
    assert_int_equal(engine_item_patch(kit.engine, "docs", "cat", "{\"n\":1}",
                         NULL, &outcome, &fault),
        OK);
    expect_picture(&kit, "cat", &two);
    /* Taken away, and again. */
    item.image.bytes = NULL;
    item.no_image = true;
    item.metadata = engine_kit_text("{\"n\":1}");
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    assert_int_equal(outcome.status, ENGINE_UPDATED);
    assert_null(view_of(&kit, "cat").image.type);
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    assert_int_equal(outcome.status, ENGINE_UNCHANGED);
    /* A page shows it. */
    item = (struct engine_item){.id = "bare", .image = file_of(&one)};
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    struct engine_item_page page;
    assert_int_equal(engine_items_list(kit.engine, "docs", NULL, 0, NULL, false,
                         &kit.arena, &page, &fault),
        OK);
    assert_int_equal(page.n, 2);
    assert_null(page.items[0].image.type);
    assert_string_equal(page.items[1].image.type, "image/jpeg");
    struct engine_collection_info info;
    assert_int_equal(
        engine_collection_get(kit.engine, "docs", &kit.arena, &info, &fault),
        OK);
    assert_int_equal(info.n_images, 1);
    assert_int_equal(info.image_bytes, one.len);
    assert_string_equal(info.reads, "text");
    /* It goes with its item. */
    assert_int_equal(
        engine_item_delete(kit.engine, "docs", "bare", NULL, &fault), OK);
    check_file(&kit);
    buf_release(&one);
    buf_release(&two);
    engine_kit_close(&kit);
}

static void
pictures_alone(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    struct engine_image_facts facts;
    struct buf one, two, none;
    int64_t version;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    draw(&one, 40, 30, 1);
    draw(&two, 20, 20, 2);
    buf_init(&none, SIZE_MAX / 2);
    struct engine_image image = file_of(&one);
    engine_kit_put(&kit, "docs", "cat", "a cat", "{\"legs\":4}");
    assert_int_equal(engine_image_get(kit.engine, "docs", "cat", &facts,
                         &version, &none, &fault),
        ERR_NOT_FOUND);
    assert_non_null(strstr(fault.detail, "no picture"));
    assert_int_equal(engine_image_put(kit.engine, "docs", "cat", &image, NULL,
                         &outcome, &fault),
        OK);
    assert_int_equal(outcome.status, ENGINE_UPDATED);
    assert_string_equal(outcome.id, "cat");
    expect_picture(&kit, "cat", &one);
    struct engine_item_view view = view_of(&kit, "cat");
    assert_string_equal(view.text.s, "a cat");
    assert_string_equal(view.metadata_json, "{\"legs\":4}");
    assert_int_equal(view.version, outcome.version);
    assert_int_equal(engine_image_put(kit.engine, "docs", "cat", &image, NULL,
                         &outcome, &fault),
        OK);
    assert_int_equal(outcome.status, ENGINE_UNCHANGED);
    assert_int_equal(outcome.version, view.version);

    /* Conditions. */
    int64_t old = view.version - 1;
    struct engine_condition condition = {.versions = &old, .n_versions = 1};
    image = file_of(&two);
    assert_int_equal(engine_image_put(kit.engine, "docs", "cat", &image,
                         &condition, &outcome, &fault),
        ERR_PRECONDITION);
    old++;
    assert_int_equal(engine_image_put(kit.engine, "docs", "cat", &image,
                         &condition, &outcome, &fault),
        OK);
    condition = (struct engine_condition){.must_be_absent = true};
    assert_int_equal(engine_image_put(kit.engine, "docs", "cat", &image,
                         &condition, &outcome, &fault),
        ERR_PRECONDITION);
    condition = (struct engine_condition){.must_exist = true};
    assert_int_equal(engine_image_put(kit.engine, "docs", "new", &image,
                         &condition, &outcome, &fault),
        ERR_PRECONDITION);
    /* An item that is not there is made. */
    assert_int_equal(engine_image_put(kit.engine, "docs", "new", &image, NULL,
                         &outcome, &fault),
        OK);
    assert_int_equal(outcome.status, ENGINE_CREATED);
    view = view_of(&kit, "new");
    assert_null(view.text.s);
    assert_null(view.title.s);
    expect_picture(&kit, "new", &two);

    /* Taken away. */
    assert_int_equal(
        engine_image_delete(kit.engine, "docs", "new", NULL, &outcome, &fault),
        OK);
    assert_null(view_of(&kit, "new").image.type);
    assert_int_equal(
        engine_image_delete(kit.engine, "docs", "new", NULL, &outcome, &fault),
        ERR_NOT_FOUND);
    assert_int_equal(engine_image_delete(
                         kit.engine, "docs", "nobody", NULL, &outcome, &fault),
        ERR_NOT_FOUND);
    assert_non_null(strstr(fault.detail, "no item"));
    /* Nothing at all, and something else. */
    image = (struct engine_image){.bytes = NULL};
    assert_int_equal(engine_image_put(kit.engine, "docs", "cat", &image, NULL,
                         &outcome, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/image");
    image = (struct engine_image){.bytes = "just a text", .n = 11};
    assert_int_equal(engine_image_put(kit.engine, "docs", "cat", &image, NULL,
                         &outcome, &fault),
        ERR_UNSUPPORTED);
    expect_picture(&kit, "cat", &two);
    check_file(&kit);
    buf_release(&one);
    buf_release(&two);
    buf_release(&none);
    engine_kit_close(&kit);
}

/* Every hostile file that its decoder refuses is refused here, in its place,
   and the item before and after it are written. */
static void
hostile_files(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct engine_outcome outcomes[3];
    struct fault fault;
    struct buf good;
    size_t n_refused = 0;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    draw(&good, 24, 24, 3);
    for (size_t i = 0;; i++) {
        struct buf file;
        enum err want = OK;
        const char *word = NULL;
        buf_init(&file, SIZE_MAX / 2);
        const char *name = image_kit_hostile(i, &file, &want, &word);
        if (!name) {
            buf_release(&file);
            break;
        }
        struct engine_item items[] = {
            {.id = "before", .text = engine_kit_text("before")},
            {.id = "bad",
                .image = {.bytes = file.data ? file.data : "", .n = file.len}},
            {.id = "after", .image = file_of(&good)}};
        fault = (struct fault){.err = OK};
        enum err err =
            engine_items_put(kit.engine, "docs", items, 3, outcomes, &fault);
        if (err != want) {
            fail_msg("%s: %s, not %s", name, err_text(err), err_text(want));
        }
        struct engine_collection_info info;
        assert_int_equal(engine_collection_get(
                             kit.engine, "docs", &kit.arena, &info, &fault),
            OK);
        if (want) {
            n_refused++;
            assert_string_equal(fault.pointer, "/1/image");
            assert_true(strlen(fault.detail) > 0);
            assert_int_equal(info.n_items, 0);
        } else {
            int64_t n_deleted, n_missing;
            assert_int_equal(info.n_items, 3);
            assert_int_equal(engine_items_delete(kit.engine, "docs", NULL, 0,
                                 "{}", &n_deleted, &n_missing, &fault),
                OK);
        }
        engine_kit_fresh(&kit);
        buf_release(&file);
    }
    assert_true(n_refused > 5);
    check_file(&kit);
    buf_release(&good);
    engine_kit_close(&kit);
}

struct line {
    enum engine_status status;
    uint64_t supersedes, superseded_by;
    struct fault fault;
};

static void
take(void *arg, const struct engine_outcome *outcome)
{
    struct line *lines = arg;
    lines[outcome->line] = (struct line){.status = outcome->status,
        .supersedes = outcome->supersedes,
        .superseded_by = outcome->superseded_by,
        .fault = outcome->fault};
}

static void
send(struct engine_kit *kit, const struct engine_item *items, size_t n,
    struct line *lines)
{
    struct fault fault = {.err = OK};
    struct engine_bulk *bulk;
    assert_int_equal(engine_bulk_new(&bulk, kit->engine, "docs",
                         ENGINE_BULK_ITEMS, take, lines, &fault),
        OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(engine_bulk_item(bulk, &items[i], &fault), OK);
    }
    assert_int_equal(engine_bulk_finish(bulk, NULL, NULL, &fault), OK);
    engine_bulk_free(bulk);
}

/* A damaged picture refuses its line, late, as if the line had never been. */
static void
lines_that_supersede(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct buf one, two, cut, low;
    struct line lines[16] = {0};
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    draw(&one, 40, 30, 1);
    draw(&two, 20, 20, 2);
    draw(&cut, 64, 64, 3);
    cut.len = cut.len * 2 / 3; /* its header is whole */
    draw(&low, 64, 64, 4);
    low.len = low.len * 2 / 3;
    const struct engine_item items[] = {
        /* a damaged picture after a good line with the same id */
        {.id = "a", .text = engine_kit_text("first"), .image = file_of(&one)},
        {.id = "a", .text = engine_kit_text("second"), .image = file_of(&cut)},
        /* a picture that the next line keeps */
        {.id = "b", .text = engine_kit_text("first"), .image = file_of(&two)},
        {.id = "b", .text = engine_kit_text("second")},
        /* a damaged one that the next lines would keep */
        {.id = "c", .text = engine_kit_text("first"), .image = file_of(&cut)},
        {.id = "c", .text = engine_kit_text("second")},
        {.id = "c", .text = engine_kit_text("third")},
        /* given and taken away */
        {.id = "d", .text = engine_kit_text("first"), .image = file_of(&one)},
        {.id = "d", .text = engine_kit_text("second"), .no_image = true},
        {.id = "e", .text = engine_kit_text("other"), .image = file_of(&one)},
        /* damaged both */
        {.id = "f", .text = engine_kit_text("first"), .image = file_of(&cut)},
        {.id = "f", .text = engine_kit_text("second"), .image = file_of(&low)},
    };
    send(&kit, items, 12, lines);
    assert_int_equal(lines[11].status, ENGINE_REFUSED);
    assert_int_equal(lines[12].status, ENGINE_REFUSED);
    assert_int_equal(lines[1].status, ENGINE_CREATED);
    assert_int_equal(lines[1].superseded_by, 0);
    assert_int_equal(lines[2].status, ENGINE_REFUSED);
    assert_string_equal(lines[2].fault.pointer, "/image");
    assert_int_equal(lines[2].fault.err, ERR_INVALID);
    assert_string_equal(view_of(&kit, "a").text.s, "first");
    expect_picture(&kit, "a", &one);
    assert_int_equal(lines[3].status, ENGINE_SUPERSEDED);
    assert_int_equal(lines[4].status, ENGINE_CREATED);
    assert_string_equal(view_of(&kit, "b").text.s, "second");
    expect_picture(&kit, "b", &two);
    assert_int_equal(lines[5].status, ENGINE_REFUSED);
    assert_int_equal(lines[6].status, ENGINE_SUPERSEDED);
    assert_int_equal(lines[6].supersedes, 0);
    assert_int_equal(lines[7].status, ENGINE_CREATED);
    assert_string_equal(view_of(&kit, "c").text.s, "third");
    assert_null(view_of(&kit, "c").image.type);
    assert_int_equal(lines[9].status, ENGINE_CREATED);
    assert_null(view_of(&kit, "d").image.type);
    assert_int_equal(lines[10].status, ENGINE_CREATED);
    expect_picture(&kit, "e", &one);
    check_file(&kit);
    buf_release(&one);
    buf_release(&two);
    buf_release(&cut);
    buf_release(&low);
    engine_kit_close(&kit);
}

/* However many lines of one id are damaged, a picture is decoded once. */
static void
many_damaged_lines(void **state)
{
    (void)state;
    enum { N = 40 };
    struct engine_kit kit;
    struct buf good, cut;
    struct line lines[N + 2] = {0};
    struct engine_item items[N + 1];
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    draw(&good, 40, 30, 1);
    draw(&cut, 64, 64, 3);
    cut.len = cut.len * 2 / 3;
    items[0] = (struct engine_item){.id = "good", .image = file_of(&good)};
    for (size_t i = 1; i <= N; i++) {
        items[i] = (struct engine_item){.id = "bad", .image = file_of(&cut)};
    }
    uint64_t before = decoded(&kit);
    send(&kit, items, N + 1, lines);
    assert_int_equal(lines[1].status, ENGINE_CREATED);
    for (size_t i = 2; i <= N + 1; i++) {
        assert_int_equal(lines[i].status, ENGINE_REFUSED);
    }
    assert_int_equal(decoded(&kit) - before, N + 1);
    buf_release(&good);
    buf_release(&cut);
    engine_kit_close(&kit);
}

/* A vector that comes along does not excuse a damaged picture. */
static void
beside_a_vector(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct engine_collection_info info;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    struct buf good, cut;
    bool created;
    static const float vector[8] = {1};
    engine_kit_open(&kit);
    assert_int_equal(engine_collection_put(kit.engine, "docs",
                         "{\"encoder\":\"external\",\"dims\":8}", &created,
                         &kit.arena, &info, &fault),
        OK);
    draw(&good, 40, 30, 1);
    draw(&cut, 64, 64, 3);
    cut.len = cut.len * 2 / 3;
    struct engine_item item = {
        .id = "a", .vector = vector, .n_vector = 8, .image = file_of(&cut)};
    assert_int_equal(put(&kit, &item, &outcome, &fault), ERR_INVALID);
    assert_string_equal(fault.pointer, "/image");
    item.image = file_of(&good);
    assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    expect_picture(&kit, "a", &good);
    buf_release(&good);
    buf_release(&cut);
    engine_kit_close(&kit);
}

static void
append_stream(struct engine_stream *stream, struct buf *out, size_t *pieces)
{
    bool end = false;
    struct fault fault = {.err = OK};
    for (*pieces = 0; !end; (*pieces)++) {
        struct buf chunk;
        buf_init(&chunk, 1 << 20);
        assert_int_equal(engine_stream_next(stream, &chunk, &end, &fault), OK);
        buf_add(out, chunk.data ? chunk.data : "", chunk.len);
        buf_release(&chunk);
    }
    engine_stream_free(stream);
}

/* Pictures of all sizes, one larger than any piece of a stream. */
static void
export_and_import(void **state)
{
    (void)state;
    static struct line lines[32];
    struct engine_kit kit, other;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    struct buf files[5], text, bare;
    struct engine_stream *stream;
    struct image large;
    size_t pieces;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    for (size_t i = 0; i < 4; i++) {
        draw(&files[i], 20 + 60 * (uint32_t)i, 30, i);
    }
    buf_init(&files[4], SIZE_MAX / 2);
    image_kit_paint(&large, 700, 700, 3, 9);
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t i = 0; i < (size_t)700 * 700 * 3; i++) {
        large.pixels[i] = (uint8_t)rng_below(&rng, 256);
    }
    image_kit_png(&files[4], &large, NULL);
    image_release(&large);
    assert_true(files[4].len > 1 << 20);
    engine_kit_put(&kit, "docs", "plain", "no picture", NULL);
    for (size_t i = 0; i < 5; i++) {
        char id[8];
        snprintf(id, sizeof(id), "p%zu", i);
        struct engine_item item = {
            .id = id, .text = engine_kit_text(id), .image = file_of(&files[i])};
        assert_int_equal(put(&kit, &item, &outcome, &fault), OK);
    }

    struct engine_export_options options = {.items = true, .vectors = true};
    buf_init(&text, SIZE_MAX / 2);
    buf_init(&bare, SIZE_MAX / 2);
    assert_int_equal(
        engine_export_new(&stream, kit.engine, "docs", &options, &fault), OK);
    append_stream(stream, &text, &pieces);
    assert_true(pieces > 8);
    options.no_images = true;
    assert_int_equal(
        engine_export_new(&stream, kit.engine, "docs", &options, &fault), OK);
    append_stream(stream, &bare, &pieces);
    assert_null(strstr(bare.data, "image\":\""));
    assert_true(bare.len < files[0].len + 20000);

    engine_kit_open(&other);
    engine_kit_collection(&other, "docs");
    struct engine_bulk *bulk;
    assert_int_equal(engine_bulk_new(&bulk, other.engine, "docs",
                         ENGINE_BULK_IMPORT, take, lines, &fault),
        OK);
    for (char *at = text.data; *at;) {
        size_t len = strcspn(at, "\n");
        assert_int_equal(engine_bulk_line(bulk, at, len, &fault), OK);
        at += len + (at[len] == '\n');
    }
    /* A line whose picture is none. */
    const char *bad = "{\"item\":{\"id\":\"x\",\"image\":\"AAAA\"}}";
    assert_int_equal(engine_bulk_line(bulk, bad, strlen(bad), &fault), OK);
    bad = "{\"item\":{\"id\":\"x\",\"image\":\"not base64\"}}";
    assert_int_equal(engine_bulk_line(bulk, bad, strlen(bad), &fault), OK);
    uint64_t n_lines, n_refused;
    assert_int_equal(
        engine_bulk_finish(bulk, &n_lines, &n_refused, &fault), OK);
    engine_bulk_free(bulk);
    assert_int_equal(n_refused, 2);
    assert_int_equal(lines[8].fault.err, ERR_UNSUPPORTED);
    assert_int_equal(lines[9].fault.err, ERR_INVALID);
    assert_string_equal(lines[9].fault.pointer, "/item/image");
    for (size_t i = 0; i < 5; i++) {
        char id[8];
        snprintf(id, sizeof(id), "p%zu", i);
        expect_picture(&other, id, &files[i]);
        buf_release(&files[i]);
    }
    assert_null(view_of(&other, "plain").image.type);
    check_file(&other);
    buf_release(&text);
    buf_release(&bare);
    engine_kit_close(&kit);
    engine_kit_close(&other);
}

static void
a_text_encoder_reads_no_picture(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct engine_answer answer;
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    struct buf one, sheet;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    draw(&one, 40, 30, 1);
    buf_init(&sheet, SIZE_MAX / 2);
    query.image = file_of(&one);
    assert_int_equal(
        engine_search(kit.engine, "docs", &query, &kit.arena, &answer, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/image");
    query.text = engine_kit_text("and a text");
    assert_int_equal(
        engine_search(kit.engine, "docs", &query, &kit.arena, &answer, &fault),
        ERR_INVALID);
    assert_non_null(strstr(fault.detail, "exactly one"));
    assert_int_equal(
        engine_item_views(kit.engine, "docs", "x", 4, NULL, 1, &sheet, &fault),
        ERR_UNSUPPORTED);
    bool created;
    struct engine_collection_info info;
    assert_int_equal(
        engine_collection_put(kit.engine, "other", "{\"images\":\"vector\"}",
            &created, &kit.arena, &info, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/images");
    buf_release(&one);
    buf_release(&sheet);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_beside_a_text),
        cmocka_unit_test(pictures_alone),
        cmocka_unit_test(hostile_files),
        cmocka_unit_test(lines_that_supersede),
        cmocka_unit_test(many_damaged_lines),
        cmocka_unit_test(beside_a_vector),
        cmocka_unit_test(export_and_import),
        cmocka_unit_test(a_text_encoder_reads_no_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
