/*
 * Goal: after any sequence of writes each item has the text and the picture
 * that writing line after line would have left, and, where the encoder reads
 * pictures, the vector of that picture; a damaged picture refuses its line and
 * nothing else; after a restart the same.
 * Method: random puts, streams with repeated ids, pictures alone, removals,
 * patches and restarts over few ids and few pictures, against a naive model,
 * in a collection of texts and in one of pictures.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "store/store.h"
#include "engine/internal.h"
#include "tests/support/engine_kit.h"
#include "tests/support/image_kit.h"

#define N_IDS 12
#define N_FILES 6 /* the last is damaged */
#define DAMAGED (N_FILES - 1)
#define ROUNDS 40
#define LINES_MAX 30
#define DIMS 16

/* What a line says of the picture: a file, or: */
#define KEEPS (-1)
#define TAKES_AWAY (-2)

struct model {
    struct engine_kit kit;
    struct rng rng;
    bool pictures; /* the encoder reads them */
    struct buf files[N_FILES];
    float vectors[N_FILES][DIMS];
    struct {
        bool there;
        int text, file; /* file KEEPS: none */
    } items[N_IDS];
};

struct line {
    uint64_t id;
    int text, file;
    char name[16], words[16];
    enum engine_status status;
};

static void
draw_files(struct model *m)
{
    for (size_t i = 0; i < N_FILES; i++) {
        struct image image;
        buf_init(&m->files[i], SIZE_MAX / 2);
        image_kit_paint(&image, 40, 40, 3, i);
        image_kit_jpeg(&m->files[i], &image, NULL);
        image_release(&image);
    }
    m->files[DAMAGED].len = m->files[DAMAGED].len * 2 / 3;
}

static struct engine_image
file_of(const struct model *m, int file)
{
    return (struct engine_image){
        .bytes = m->files[file].data, .n = m->files[file].len};
}

static void
random_line(struct model *m, struct line *line)
{
    line->id = rng_below(&m->rng, N_IDS);
    line->text = (int)rng_below(&m->rng, 4);
    line->file = (int)rng_below(&m->rng, N_FILES + 4);
    if (line->file >= N_FILES) {
        line->file = line->file == N_FILES ? TAKES_AWAY : KEEPS;
    }
    snprintf(line->name, sizeof(line->name), "id%d", (int)line->id);
    snprintf(line->words, sizeof(line->words), "word%d", line->text);
}

static struct engine_item
item_of(const struct model *m, const struct line *line)
{
    struct engine_item item = {.id = line->name,
        .text = engine_kit_text(line->words),
        .no_image = line->file == TAKES_AWAY};
    if (line->file >= 0) {
        item.image = file_of(m, line->file);
    }
    return item;
}

/* What the line leaves, had it been written alone. */
static void
apply(struct model *m, const struct line *line)
{
    if (line->file == DAMAGED) {
        return;
    }
    if (!m->items[line->id].there) {
        m->items[line->id].file = KEEPS;
    }
    m->items[line->id].there = true;
    m->items[line->id].text = line->text;
    if (line->file != KEEPS) {
        m->items[line->id].file = line->file == TAKES_AWAY ? KEEPS : line->file;
    }
}

static void
take(void *arg, const struct engine_outcome *outcome)
{
    struct line *lines = arg;
    lines[outcome->line - 1].status = outcome->status;
}

static void
stream(struct model *m)
{
    struct line lines[LINES_MAX];
    struct fault fault = {.err = OK};
    struct engine_bulk *bulk;
    size_t n = 1 + rng_below(&m->rng, LINES_MAX);
    assert_int_equal(engine_bulk_new(&bulk, m->kit.engine, "c",
                         ENGINE_BULK_ITEMS, take, lines, &fault),
        OK);
    for (size_t i = 0; i < n; i++) {
        random_line(m, &lines[i]);
        struct engine_item item = item_of(m, &lines[i]);
        apply(m, &lines[i]);
        assert_int_equal(engine_bulk_item(bulk, &item, &fault), OK);
        if (rng_below(&m->rng, 10) == 0) {
            assert_int_equal(engine_bulk_flush(bulk, &fault), OK);
        }
    }
    assert_int_equal(engine_bulk_finish(bulk, NULL, NULL, &fault), OK);
    engine_bulk_free(bulk);
    for (size_t i = 0; i < n; i++) {
        /* A superseded picture may go unseen. */
        if (lines[i].status != ENGINE_SUPERSEDED) {
            assert_int_equal(
                lines[i].status == ENGINE_REFUSED, lines[i].file == DAMAGED);
        }
    }
}

static void
put_one(struct model *m)
{
    struct line line;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    random_line(m, &line);
    struct engine_item item = item_of(m, &line);
    enum err err =
        engine_item_put(m->kit.engine, "c", &item, NULL, &outcome, &fault);
    assert_int_equal(err, line.file == DAMAGED ? ERR_INVALID : OK);
    apply(m, &line);
}

/* The picture alone, given or taken away. */
static void
picture_alone(struct model *m)
{
    struct line line;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    random_line(m, &line);
    bool had = m->items[line.id].there && m->items[line.id].file != KEEPS;
    if (line.file < 0) {
        assert_int_equal(engine_image_delete(m->kit.engine, "c", line.name,
                             NULL, &outcome, &fault),
            had ? OK : ERR_NOT_FOUND);
        m->items[line.id].file = had ? KEEPS : m->items[line.id].file;
        return;
    }
    struct engine_image image = file_of(m, line.file);
    enum err err = engine_image_put(
        m->kit.engine, "c", line.name, &image, NULL, &outcome, &fault);
    assert_int_equal(err, line.file == DAMAGED ? ERR_INVALID : OK);
    if (!err) {
        line.text = m->items[line.id].there ? m->items[line.id].text : -1;
        apply(m, &line);
    }
}

static void
remove_one(struct model *m)
{
    struct line line;
    struct fault fault = {.err = OK};
    random_line(m, &line);
    assert_int_equal(
        engine_item_delete(m->kit.engine, "c", line.name, NULL, &fault),
        m->items[line.id].there ? OK : ERR_NOT_FOUND);
    m->items[line.id].there = false;
}

static void
patch_one(struct model *m)
{
    struct line line;
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    random_line(m, &line);
    assert_int_equal(engine_item_patch(m->kit.engine, "c", line.name,
                         "{\"n\":1}", NULL, &outcome, &fault),
        m->items[line.id].there ? OK : ERR_NOT_FOUND);
}

static void
check(struct model *m)
{
    static const float zero[DIMS];
    int64_t n_images = 0;
    struct fault fault = {.err = OK};
    for (uint64_t i = 0; i < N_IDS; i++) {
        struct engine_item_view view;
        struct engine_image_facts facts;
        struct buf bytes;
        int64_t version;
        char id[16];
        snprintf(id, sizeof(id), "id%d", (int)i);
        enum err err = engine_item_get(
            m->kit.engine, "c", id, true, &m->kit.arena, &view, &fault);
        assert_int_equal(err, m->items[i].there ? OK : ERR_NOT_FOUND);
        if (err) {
            continue;
        }
        char words[16];
        snprintf(words, sizeof(words), "word%d", m->items[i].text);
        if (m->items[i].text < 0) {
            assert_null(view.text.s);
        } else {
            assert_string_equal(view.text.s, words);
        }
        int file = m->items[i].file;
        const float *want = file == KEEPS ? zero : m->vectors[file];
        for (size_t d = 0; d < DIMS && m->pictures; d++) {
            assert_true(fabsf(view.vector[d] - want[d]) < 1e-5f);
        }
        assert_int_equal(view.image.type != NULL, file != KEEPS);
        if (file == KEEPS) {
            continue;
        }
        n_images++;
        buf_init(&bytes, SIZE_MAX / 2);
        assert_int_equal(engine_image_get(m->kit.engine, "c", id, &facts,
                             &version, &bytes, &fault),
            OK);
        assert_int_equal(bytes.len, m->files[file].len);
        assert_memory_equal(bytes.data, m->files[file].data, bytes.len);
        buf_release(&bytes);
    }
    struct engine_collection_info info;
    assert_int_equal(
        engine_collection_get(m->kit.engine, "c", &m->kit.arena, &info, &fault),
        OK);
    assert_int_equal(info.n_images, n_images);
    if (store_check(m->kit.engine->store, &fault)) {
        fail_msg("store_check: %s", fault.detail);
    }
    engine_kit_fresh(&m->kit);
}

static void
run(const char *settings, bool pictures, uint64_t seed)
{
    static struct model m;
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    bool created;
    memset(&m, 0, sizeof(m));
    rng_seed(&m.rng, seed);
    m.pictures = pictures;
    draw_files(&m);
    engine_kit_open(&m.kit);
    enum err err = engine_collection_put(
        m.kit.engine, "c", settings, &created, &m.kit.arena, &info, &fault);
    if (err) {
        fail_msg("collection: %s %s", fault.pointer, fault.detail);
    }
    /* What each picture's vector is, the first time that it is seen. */
    for (int i = 0; i < DAMAGED && pictures; i++) {
        struct engine_outcome outcome;
        struct engine_item_view view;
        struct engine_image image = file_of(&m, i);
        assert_int_equal(engine_image_put(m.kit.engine, "c", "id0", &image,
                             NULL, &outcome, &fault),
            OK);
        assert_int_equal(engine_item_get(m.kit.engine, "c", "id0", true,
                             &m.kit.arena, &view, &fault),
            OK);
        memcpy(m.vectors[i], view.vector, sizeof(m.vectors[i]));
        m.items[0].there = true;
        m.items[0].text = -1;
        m.items[0].file = i;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 6; i++) {
            switch (rng_below(&m.rng, 8)) {
            case 0:
            case 1:
            case 2:
                stream(&m);
                break;
            case 3:
            case 4:
                put_one(&m);
                break;
            case 5:
                picture_alone(&m);
                break;
            case 6:
                remove_one(&m);
                break;
            default:
                patch_one(&m);
                break;
            }
        }
        if (round % 10 == 9) {
            engine_kit_reopen(&m.kit);
        }
        check(&m);
    }
    for (size_t i = 0; i < N_FILES; i++) {
        buf_release(&m.files[i]);
    }
    engine_kit_close(&m.kit);
}

static void
beside_texts(void **state)
{
    (void)state;
    run("{\"dims\":32,\"encoder_config\":{\"buckets\":1024}}", false, 1);
}

static void
embedded(void **state)
{
    (void)state;
    run("{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28,\"width\":16,"
        "\"blocks\":1,\"stages\":1,\"stem_stride\":4,\"dims\":16}}",
        true, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_texts),
        cmocka_unit_test(embedded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
