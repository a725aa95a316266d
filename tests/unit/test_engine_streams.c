/*
 * Goal: bulk streams answer every line once and in order, in bounded batches;
 * pairs get a split for ever, refuse what is wrong, follow their items;
 * feedback becomes pairs; an export imports to the same collection.
 * Method: streams of a few thousand lines with known outcomes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/engine_kit.h"

struct seen {
    uint64_t last; /* line */
    uint64_t count[ENGINE_REFUSED + 1];
};

static void
take(void *arg, const struct engine_outcome *outcome)
{
    struct seen *seen = arg;
    assert_true(outcome->line > seen->last);
    seen->last = outcome->line;
    seen->count[outcome->status]++;
    if (outcome->status == ENGINE_REFUSED) {
        assert_int_not_equal(outcome->fault.err, OK);
    }
}

static void
bulk_items(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    struct fault fault = {.err = OK};
    struct seen seen = {.last = 0};
    struct engine_bulk *bulk;
    assert_int_equal(engine_bulk_new(&bulk, kit.engine, "docs",
                         ENGINE_BULK_ITEMS, take, &seen, &fault),
        OK);
    for (int i = 0; i < 5000; i++) {
        char id[16], text[64];
        /* line 10 k + 1 repeats the id of the line before */
        snprintf(id, sizeof(id), "i%d", i % 10 == 1 ? i - 1 : i);
        snprintf(
            text, sizeof(text), "item number %d about topic %d", i, i % 37);
        struct engine_item item = {
            .id = i % 100 == 5 ? "" : id, .text = engine_kit_text(text)};
        enum err err;
        if (i % 100 == 7) {
            struct fault why = {.err = ERR_SYNTAX};
            err = engine_bulk_refused(bulk, NULL, &why, &fault);
        } else {
            err = engine_bulk_item(bulk, &item, &fault);
        }
        assert_int_equal(err, OK);
    }
    uint64_t lines, refused;
    assert_int_equal(engine_bulk_finish(bulk, &lines, &refused, &fault), OK);
    engine_bulk_free(bulk);
    assert_int_equal(lines, 5000);
    assert_int_equal(refused, 100);
    assert_int_equal(seen.last, 5000);
    /* Of two lines with one id the second wins, in one batch or in two. */
    assert_int_equal(
        seen.count[ENGINE_SUPERSEDED] + seen.count[ENGINE_UPDATED], 500);
    assert_int_equal(seen.count[ENGINE_CREATED], 4400);
    struct engine_item_view view;
    assert_int_equal(engine_item_get(kit.engine, "docs", "i4990", false,
                         &kit.arena, &view, &fault),
        OK);
    assert_string_equal(view.text.s, "item number 4991 about topic 33");
    struct engine_answer a = engine_kit_search(
        &kit, "docs", "item number 4998 about topic 3", 1, NULL);
    assert_string_equal(a.hits[0].id, "i4998");
    engine_kit_close(&kit);
}

static struct engine_pair
by_text(const char *anchor, const char *positive)
{
    return (struct engine_pair){.anchor = {.text = engine_kit_text(anchor)},
        .positive = {.id = positive},
        .weight = 1};
}

static void
pairs(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    engine_kit_put(&kit, "docs", "a", "alpha text", NULL);
    engine_kit_put(&kit, "docs", "b", "beta text", NULL);
    struct fault fault = {.err = OK};
    struct engine_outcome o[4];
    struct engine_pair list[4] = {by_text("what is alpha", "a"),
        by_text("What is  ALPHA?", "a"), by_text("what is beta", "b"),
        {.anchor = {.id = "a"},
            .positive = {.id = "b"},
            .weight = 2,
            .group = "g"}};
    assert_int_equal(
        engine_pairs_add(kit.engine, "docs", list, 4, o, &fault), OK);
    assert_int_equal(o[0].status, ENGINE_CREATED);
    assert_int_equal(o[1].status, ENGINE_UPDATED); /* the same, normalised */
    assert_int_equal(o[0].pair_id, o[1].pair_id);
    assert_string_equal(o[0].split, o[1].split);
    struct engine_pair_view view;
    assert_int_equal(engine_pair_get(kit.engine, "docs", o[0].pair_id,
                         &kit.arena, &view, &fault),
        OK);
    assert_true(view.weight > 1.5);
    static const struct {
        struct engine_pair pair;
        enum err err;
        const char *pointer;
    } bad[] = {
        {{.anchor = {.id = "a"}, .positive = {.id = "nope"}, .weight = 1},
            ERR_NOT_FOUND, "/0/positive/id"},
        {{.anchor = {.id = "a"}, .positive = {.id = "a"}, .weight = 1},
            ERR_INVALID, "/0/positive"},
        {{.anchor = {.id = "a"}, .positive = {.id = "b"}, .weight = 0},
            ERR_INVALID, "/0/weight"},
        {{.anchor = {.id = NULL}, .positive = {.id = "b"}, .weight = 1},
            ERR_INVALID, "/0/anchor"}};
    for (size_t i = 0; i < 4; i++) {
        struct engine_outcome out;
        assert_int_equal(
            engine_pairs_add(kit.engine, "docs", &bad[i].pair, 1, &out, &fault),
            bad[i].err);
        assert_string_equal(fault.pointer, bad[i].pointer);
    }
    /* A pair whose item changes or goes is set aside, and comes back. */
    engine_kit_put(&kit, "docs", "b", "other text", NULL);
    assert_int_equal(engine_pair_get(kit.engine, "docs", o[2].pair_id,
                         &kit.arena, &view, &fault),
        OK);
    assert_non_null(view.aside);
    assert_int_equal(
        engine_item_delete(kit.engine, "docs", "a", NULL, &fault), OK);
    engine_kit_put(&kit, "docs", "a", "alpha text", NULL);
    struct engine_collection_info info;
    assert_int_equal(
        engine_collection_get(kit.engine, "docs", &kit.arena, &info, &fault),
        OK);
    assert_int_equal(info.n_pairs + info.n_pairs_aside, 3);
    /* Groups keep together. */
    const char *split = NULL;
    for (int i = 0; i < 20; i++) {
        char text[32];
        snprintf(text, sizeof(text), "question %d", i);
        struct engine_pair p = by_text(text, "a");
        p.group = "one group";
        assert_int_equal(
            engine_pairs_add(kit.engine, "docs", &p, 1, o, &fault), OK);
        split = split ? split : o[0].split;
        assert_string_equal(split, o[0].split);
    }
    struct engine_pair_page page;
    assert_int_equal(engine_pairs_list(kit.engine, "docs", NULL, 10, &kit.arena,
                         &page, &fault),
        OK);
    assert_int_equal(page.n, 10);
    assert_non_null(page.next_cursor);
    assert_int_equal(
        engine_pair_delete(kit.engine, "docs", o[0].pair_id, &fault), OK);
    assert_int_equal(
        engine_pair_delete(kit.engine, "docs", o[0].pair_id, &fault),
        ERR_NOT_FOUND);
    engine_kit_close(&kit);
}

/* Reverses of pairs in other splits are kept but barred. */
static void
reverses_are_barred(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    struct fault fault = {.err = OK};
    size_t barred = 0, differ = 0;
    for (int i = 0; i < 60; i++) {
        char a[32], b[32];
        snprintf(a, sizeof(a), "left side %d", i);
        snprintf(b, sizeof(b), "right side %d", i);
        struct engine_pair p = {.anchor = {.text = engine_kit_text(a)},
            .positive = {.text = engine_kit_text(b)},
            .weight = 1};
        struct engine_pair r = {
            .anchor = p.positive, .positive = p.anchor, .weight = 1};
        struct engine_outcome one, two;
        assert_int_equal(
            engine_pairs_add(kit.engine, "docs", &p, 1, &one, &fault), OK);
        assert_int_equal(
            engine_pairs_add(kit.engine, "docs", &r, 1, &two, &fault), OK);
        assert_null(one.aside);
        bool other = strcmp(one.split, two.split) != 0;
        assert_int_equal(other, two.aside != NULL);
        barred += two.aside != NULL;
        differ += other;
    }
    assert_true(barred > 5 && barred == differ);
    engine_kit_close(&kit);
}

static void
feedback(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    engine_kit_put(&kit, "docs", "a", "alpha text", NULL);
    engine_kit_put(&kit, "docs", "b", "beta words", NULL);
    struct fault fault = {.err = OK};
    struct engine_outcome o;
    struct engine_answer a = engine_kit_search(&kit, "docs", "alpha", 1, NULL);
    assert_int_equal(engine_feedback(kit.engine, "docs", a.search_id, "a", 1,
                         &kit.arena, &o, &fault),
        OK);
    assert_int_equal(o.status, ENGINE_CREATED);
    struct engine_pair_view view;
    assert_int_equal(engine_pair_get(kit.engine, "docs", o.pair_id, &kit.arena,
                         &view, &fault),
        OK);
    assert_string_equal(view.anchor.text.s, "alpha");
    assert_string_equal(view.positive.id, "a");
    assert_string_equal(view.origin, "feedback");
    assert_int_equal(engine_feedback(kit.engine, "docs", a.search_id, "b", 1,
                         &kit.arena, &o, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/item_id");
    assert_int_equal(engine_feedback(kit.engine, "docs", "s0123456789abcdef",
                         "a", 1, &kit.arena, &o, &fault),
        ERR_NOT_FOUND);
    assert_string_equal(fault.pointer, "/search_id");
    engine_kit_close(&kit);
}

/* Send an export line by line to another collection. */
static void
send(struct engine_kit *kit, const char *from, const char *to, bool vectors,
    struct seen *seen)
{
    struct fault fault = {.err = OK};
    struct engine_stream *stream;
    struct engine_bulk *bulk;
    struct engine_export_options options = {
        .items = true, .pairs = true, .vectors = vectors};
    assert_int_equal(
        engine_export_new(&stream, kit->engine, from, &options, &fault), OK);
    assert_int_equal(engine_bulk_new(&bulk, kit->engine, to, ENGINE_BULK_IMPORT,
                         take, seen, &fault),
        OK);
    bool end = false;
    struct buf chunk;
    buf_init(&chunk, 1 << 22);
    while (!end) {
        buf_clear(&chunk);
        assert_int_equal(engine_stream_next(stream, &chunk, &end, &fault), OK);
        for (size_t at = 0; at < chunk.len;) {
            char *nl = memchr(chunk.data + at, '\n', chunk.len - at);
            assert_non_null(nl);
            size_t len = (size_t)(nl - (chunk.data + at));
            assert_int_equal(
                engine_bulk_line(bulk, chunk.data + at, len, &fault), OK);
            at += len + 1;
        }
    }
    uint64_t lines, refused;
    assert_int_equal(engine_bulk_finish(bulk, &lines, &refused, &fault), OK);
    assert_int_equal(refused, 0);
    buf_release(&chunk);
    engine_stream_free(stream);
    engine_bulk_free(bulk);
}

static void
export_and_import(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "from");
    engine_kit_collection(&kit, "to");
    engine_kit_collection(&kit, "with");
    struct fault fault = {.err = OK};
    for (int i = 0; i < 600; i++) {
        char id[24], text[64], anchor[32];
        snprintf(id, sizeof(id), "id \"%d\"", i);
        snprintf(
            text, sizeof(text), "text %d with \"quotes\" and \\ %d", i, i * 7);
        engine_kit_put(
            &kit, "from", id, text, i % 2 ? "{\"n\":[1,2.5]}" : NULL);
        snprintf(anchor, sizeof(anchor), "question %d", i);
        struct engine_pair p = by_text(anchor, id);
        struct engine_outcome o;
        assert_int_equal(
            engine_pairs_add(kit.engine, "from", &p, 1, &o, &fault), OK);
    }
    struct seen seen = {.last = 0};
    send(&kit, "from", "to", false, &seen);
    assert_int_equal(seen.count[ENGINE_CREATED], 1200);
    memset(&seen, 0, sizeof(seen));
    struct engine_counters before, after;
    engine_counters(kit.engine, &before);
    send(&kit, "from", "with", true, &seen);
    engine_counters(kit.engine, &after);
    assert_int_equal(after.texts_encoded, before.texts_encoded);
    const char *names[] = {"to", "with"};
    struct engine_answer a =
        engine_kit_search(&kit, "from", "text 77 with", 5, NULL);
    for (int i = 0; i < 2; i++) {
        struct engine_answer b =
            engine_kit_search(&kit, names[i], "text 77 with", 5, NULL);
        for (size_t j = 0; j < 5; j++) {
            assert_string_equal(a.hits[j].id, b.hits[j].id);
        }
        struct engine_collection_info info;
        assert_int_equal(engine_collection_get(
                             kit.engine, names[i], &kit.arena, &info, &fault),
            OK);
        assert_int_equal(info.n_items, 600);
        assert_int_equal(info.n_pairs, 600);
    }
    engine_kit_close(&kit);
}

static void
replies_and_encoding(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    struct fault fault = {.err = OK};
    uint8_t request[SHA256_BYTES] = {1}, other[SHA256_BYTES] = {2};
    struct engine_reply reply = {.status = 201,
                            .content_type = "application/json",
                            .body = engine_kit_text("{\"a\":1}")},
                        got;
    assert_int_equal(
        engine_reply_get(kit.engine, "k", request, &kit.arena, &got, &fault),
        ERR_NOT_FOUND);
    assert_int_equal(
        engine_reply_put(kit.engine, "k", request, &reply, &fault), OK);
    assert_int_equal(
        engine_reply_get(kit.engine, "k", request, &kit.arena, &got, &fault),
        OK);
    assert_int_equal(got.status, 201);
    assert_string_equal(got.body.s, "{\"a\":1}");
    assert_int_equal(
        engine_reply_get(kit.engine, "k", other, &kit.arena, &got, &fault),
        ERR_INVALID);
    struct engine_embeddings e;
    struct engine_text inputs[2] = {
        engine_kit_text("one text"), engine_kit_text("two texts")};
    assert_int_equal(engine_embed(kit.engine, "docs", inputs, 2, 16, false,
                         &kit.arena, &e, &fault),
        OK);
    assert_int_equal(e.dims, 16);
    double square = 0;
    for (size_t i = 0; i < 16; i++) {
        square += (double)e.rows[1].vector[i] * (double)e.rows[1].vector[i];
    }
    assert_true(square > 0.999 && square < 1.001);
    double cosines[2];
    assert_int_equal(engine_similarity(kit.engine, "docs", &inputs[0], inputs,
                         2, cosines, &fault),
        OK);
    assert_true(cosines[0] > 0.999 && cosines[1] < 0.999);
    struct engine_token *tokens;
    size_t n;
    assert_int_equal(engine_tokenize(kit.engine, "docs", &inputs[1], &kit.arena,
                         &tokens, &n, &fault),
        OK);
    assert_int_equal(n, 2);
    assert_int_equal(engine_embed(kit.engine, "nope", inputs, 2, 0, false,
                         &kit.arena, &e, &fault),
        ERR_NOT_FOUND);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bulk_items),
        cmocka_unit_test(pairs),
        cmocka_unit_test(reverses_are_barred),
        cmocka_unit_test(feedback),
        cmocka_unit_test(export_and_import),
        cmocka_unit_test(replies_and_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
