/*
 * Goal: what is written is found at once, by every kind of query, survives a
 * restart, and goes when it is deleted; bad input is refused with its field
 * and changes nothing.
 * Method: a small collection by hand through the engine's public calls.
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

#include "tests/support/engine_kit.h"

static void
fill(struct engine_kit *kit)
{
    engine_kit_collection(kit, "docs");
    engine_kit_put(kit, "docs", "cat", "a cat sleeps on the warm sofa",
        "{\"kind\":\"animal\",\"legs\":4,\"tags\":[\"pet\",\"soft\"]}");
    engine_kit_put(kit, "docs", "dog", "a dog runs in the park with a ball",
        "{\"kind\":\"animal\",\"legs\":4,\"tags\":[\"pet\"]}");
    engine_kit_put(kit, "docs", "gcc", "the GNU compiler collection for C",
        "{\"kind\":\"program\",\"free\":true}");
    engine_kit_put(kit, "docs", "lib", "a library to decode images in C", NULL);
}

static void
found_at_once_and_after_restart(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    fill(&kit);
    for (int round = 0; round < 2; round++) {
        struct engine_answer a =
            engine_kit_search(&kit, "docs", "sleeping cat on a sofa", 2, NULL);
        assert_int_equal(a.n_hits, 2);
        assert_string_equal(a.hits[0].id, "cat");
        assert_true(a.exact);
        assert_int_equal(a.generation, 1);
        assert_true(a.hits[0].cosine > a.hits[1].cosine);
        assert_true(a.hits[0].probability > a.hits[1].probability);
        double whole = 0;
        a = engine_kit_search(&kit, "docs", "a dog", 10, NULL);
        assert_int_equal(a.n_hits, 4);
        for (size_t i = 0; i < a.n_hits; i++) {
            whole += a.hits[i].probability;
        }
        assert_true(fabs(whole - 1) < 1e-3 + a.probability_error);
        engine_kit_reopen(&kit);
    }
    engine_kit_close(&kit);
}

static void
every_kind_of_query(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    fill(&kit);
    struct fault fault = {.err = OK};
    struct engine_answer a;
    struct engine_query q = ENGINE_QUERY_DEFAULT;
    q.id = "cat";
    q.with_text = q.with_metadata = q.with_vector = true;
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault), OK);
    assert_int_equal(a.n_hits, 3);
    for (size_t i = 0; i < a.n_hits; i++) {
        assert_string_not_equal(a.hits[i].id, "cat");
        assert_non_null(a.hits[i].text.s);
        assert_non_null(a.hits[i].metadata_json);
        assert_non_null(a.hits[i].vector);
    }
    struct engine_item_view item;
    assert_int_equal(engine_item_get(kit.engine, "docs", "gcc", true,
                         &kit.arena, &item, &fault),
        OK);
    q = ENGINE_QUERY_DEFAULT;
    q.vector = item.vector;
    q.n_vector = item.n_vector;
    q.k = 1;
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault), OK);
    assert_string_equal(a.hits[0].id, "gcc");
    assert_true(fabs(a.hits[0].cosine - 1) < 1e-5);
    const char *likes[] = {"cat", "dog"};
    const char *dislikes[] = {"gcc"};
    q = ENGINE_QUERY_DEFAULT;
    q.positive = likes;
    q.n_positive = 2;
    q.negative = dislikes;
    q.n_negative = 1;
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault), OK);
    assert_int_equal(a.n_hits, 1);
    assert_string_equal(a.hits[0].id, "lib");
    struct engine_query batch[3] = {q, q, q};
    struct engine_answer answers[3];
    struct fault faults[3];
    batch[1].k = 0;
    assert_int_equal(engine_search_batch(kit.engine, "docs", batch, 3,
                         &kit.arena, answers, faults, &fault),
        OK);
    assert_int_equal(faults[0].err, OK);
    assert_int_equal(faults[1].err, ERR_INVALID);
    assert_string_equal(faults[1].pointer, "/k");
    assert_string_equal(answers[2].hits[0].id, "lib");
    engine_kit_close(&kit);
}

static void
filters(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    fill(&kit);
    static const struct {
        const char *filter;
        size_t n;
    } cases[] = {{"{}", 4}, {"{\"kind\":\"animal\"}", 2},
        {"{\"kind\":{\"$ne\":\"animal\"}}", 2}, {"{\"legs\":{\"$gte\":4}}", 2},
        {"{\"legs\":{\"$gt\":4}}", 0}, {"{\"tags\":\"soft\"}", 1},
        {"{\"tags\":{\"$in\":[\"soft\",\"pet\"]}}", 2}, {"{\"free\":true}", 1},
        {"{\"free\":{\"$exists\":false}}", 3},
        {"{\"$or\":[{\"free\":true},{\"tags\":\"soft\"}]}", 2},
        {"{\"$not\":{\"kind\":\"animal\"}}", 2},
        {"{\"kind\":{\"$gt\":\"b\"}}", 1}};
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            struct engine_answer a =
                engine_kit_search(&kit, "docs", "a dog", 10, cases[i].filter);
            if (a.n_hits != cases[i].n) {
                fail_msg("%s: %zu", cases[i].filter, a.n_hits);
            }
        }
        engine_kit_reopen(&kit);
    }
    /* Columns follow changes. */
    (void)engine_kit_search(&kit, "docs", "a dog", 10, "{\"kind\":\"x\"}");
    engine_kit_put(&kit, "docs", "lib", "a library to decode images in C",
        "{\"kind\":\"x\"}");
    struct engine_answer a =
        engine_kit_search(&kit, "docs", "a dog", 10, "{\"kind\":\"x\"}");
    assert_int_equal(a.n_hits, 1);
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    assert_int_equal(engine_item_patch(kit.engine, "docs", "lib",
                         "{\"kind\":null,\"n\":1}", NULL, &outcome, &fault),
        OK);
    a = engine_kit_search(&kit, "docs", "a dog", 10, "{\"kind\":\"x\"}");
    assert_int_equal(a.n_hits, 0);
    int64_t deleted, missing;
    assert_int_equal(engine_items_delete(kit.engine, "docs", NULL, 0,
                         "{\"kind\":\"animal\"}", &deleted, &missing, &fault),
        OK);
    assert_int_equal(deleted, 2);
    a = engine_kit_search(&kit, "docs", "a dog", 10, NULL);
    assert_int_equal(a.n_hits, 2);
    engine_kit_close(&kit);
}

static void
conditions_and_versions(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    fill(&kit);
    struct fault fault = {.err = OK};
    struct engine_outcome o;
    struct engine_item item = {
        .id = "cat", .text = engine_kit_text("another cat")};
    struct engine_condition absent = {.must_be_absent = true};
    assert_int_equal(
        engine_item_put(kit.engine, "docs", &item, &absent, &o, &fault),
        ERR_PRECONDITION);
    struct engine_item_view view;
    assert_int_equal(engine_item_get(kit.engine, "docs", "cat", false,
                         &kit.arena, &view, &fault),
        OK);
    int64_t stale = view.version + 100, version = view.version;
    struct engine_condition match = {.versions = &stale, .n_versions = 1};
    assert_int_equal(
        engine_item_put(kit.engine, "docs", &item, &match, &o, &fault),
        ERR_PRECONDITION);
    match.versions = &version;
    assert_int_equal(
        engine_item_put(kit.engine, "docs", &item, &match, &o, &fault), OK);
    assert_int_equal(o.status, ENGINE_UPDATED);
    assert_true(o.version > version);
    assert_int_equal(
        engine_item_put(kit.engine, "docs", &item, NULL, &o, &fault), OK);
    assert_int_equal(o.status, ENGINE_UNCHANGED);
    assert_int_equal(
        engine_item_delete(kit.engine, "docs", "cat", &match, &fault),
        ERR_PRECONDITION);
    assert_int_equal(
        engine_item_delete(kit.engine, "docs", "cat", NULL, &fault), OK);
    assert_int_equal(
        engine_item_delete(kit.engine, "docs", "cat", NULL, &fault),
        ERR_NOT_FOUND);
    struct engine_item two[3] = {{.id = "x", .text = engine_kit_text("one")},
        {.id = "y", .text = engine_kit_text("two")},
        {.id = "x", .text = engine_kit_text("three")}};
    struct engine_outcome outcomes[3];
    assert_int_equal(
        engine_items_put(kit.engine, "docs", two, 3, outcomes, &fault), OK);
    assert_int_equal(outcomes[0].status, ENGINE_SUPERSEDED);
    assert_int_equal(outcomes[0].superseded_by, 3);
    assert_int_equal(outcomes[2].supersedes, 1);
    assert_int_equal(engine_item_get(kit.engine, "docs", "x", false, &kit.arena,
                         &view, &fault),
        OK);
    assert_string_equal(view.text.s, "three");
    engine_kit_close(&kit);
}

static void
refusals(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    fill(&kit);
    struct fault fault = {.err = OK};
    struct engine_answer a;
    struct engine_query q = ENGINE_QUERY_DEFAULT;
    q.text = engine_kit_text("...");
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/text");
    q.text = engine_kit_text("dog");
    q.k = 1001;
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/k");
    q.k = 1;
    q.filter_json = "{\"a\":{\"$near\":1}}";
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/filter/a/$near");
    q = ENGINE_QUERY_DEFAULT;
    float short_vector[3] = {1, 2, 3};
    q.vector = short_vector;
    q.n_vector = 3;
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault),
        ERR_CONFLICT);
    assert_string_equal(fault.pointer, "/vector");
    struct engine_outcome o;
    struct engine_item bad = {.id = "a\nb", .text = engine_kit_text("x")};
    assert_int_equal(
        engine_item_put(kit.engine, "docs", &bad, NULL, &o, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/id");
    char *big = calloc(1, 3 << 20);
    memset(big, 'x', (3 << 20) - 1);
    bad = (struct engine_item){.id = "big", .text = engine_kit_text(big)};
    assert_int_equal(
        engine_item_put(kit.engine, "docs", &bad, NULL, &o, &fault),
        ERR_TOO_LARGE);
    assert_non_null(strstr(fault.detail, "1048576"));
    free(big);
    bad = (struct engine_item){.id = "m",
        .text = engine_kit_text("x"),
        .metadata = engine_kit_text("[1]")};
    assert_int_equal(
        engine_item_put(kit.engine, "docs", &bad, NULL, &o, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/metadata");
    struct engine_item list[2] = {
        {.id = "good", .text = engine_kit_text("x")}, bad};
    struct engine_outcome outcomes[2];
    assert_int_equal(
        engine_items_put(kit.engine, "docs", list, 2, outcomes, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/1/metadata");
    struct engine_item_view view;
    assert_int_equal(engine_item_get(kit.engine, "docs", "good", false,
                         &kit.arena, &view, &fault),
        ERR_NOT_FOUND);
    assert_int_equal(engine_item_get(kit.engine, "nodocs", "good", false,
                         &kit.arena, &view, &fault),
        ERR_NOT_FOUND);
    engine_kit_close(&kit);
}

static void
collections_and_aliases(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    struct fault fault = {.err = OK};
    struct engine_collection_info info;
    bool created;
    static const char settings[] =
        "{\"dims\":64,\"encoder_config\":{\"buckets\":4096}}";
    assert_int_equal(engine_collection_put(kit.engine, "a", settings, &created,
                         &kit.arena, &info, &fault),
        OK);
    assert_true(created);
    assert_int_equal(info.dims, 64);
    assert_int_equal(engine_collection_put(kit.engine, "a", settings, &created,
                         &kit.arena, &info, &fault),
        OK);
    assert_false(created);
    assert_int_equal(engine_collection_put(kit.engine, "a", "{}", &created,
                         &kit.arena, &info, &fault),
        OK);
    assert_int_equal(engine_collection_put(kit.engine, "a", "{\"dims\":32}",
                         &created, &kit.arena, &info, &fault),
        ERR_CONFLICT);
    assert_string_equal(fault.pointer, "/dims");
    assert_int_equal(engine_collection_put(kit.engine, "b", "{\"nope\":1}",
                         &created, &kit.arena, &info, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/nope");
    assert_int_equal(engine_collection_patch(kit.engine, "a",
                         "{\"description\":\"d\",\"train\":{\"min_pairs\":7}}",
                         &kit.arena, &info, &fault),
        OK);
    assert_non_null(strstr(info.settings_json, "\"min_pairs\":7"));
    assert_int_equal(
        engine_alias_put(kit.engine, "front", "a", &created, &fault), OK);
    assert_true(created);
    assert_int_equal(
        engine_alias_put(kit.engine, "a", "a", &created, &fault), ERR_CONFLICT);
    engine_kit_put(&kit, "front", "i", "text", NULL);
    engine_kit_reopen(&kit);
    assert_int_equal(
        engine_collection_get(kit.engine, "front", &kit.arena, &info, &fault),
        OK);
    assert_string_equal(info.name, "a");
    assert_int_equal(info.n_items, 1);
    assert_int_equal(info.n_aliases, 1);
    assert_non_null(strstr(info.settings_json, "\"min_pairs\":7"));
    assert_int_equal(engine_collection_put(kit.engine, "ext",
                         "{\"encoder\":\"external\",\"dims\":8}", &created,
                         &kit.arena, &info, &fault),
        OK);
    float v[8] = {0, 3, 4};
    struct engine_item item = {.id = "v", .vector = v, .n_vector = 8};
    struct engine_outcome o;
    assert_int_equal(
        engine_item_put(kit.engine, "ext", &item, NULL, &o, &fault), OK);
    struct engine_query q = ENGINE_QUERY_DEFAULT;
    struct engine_answer a;
    q.vector = v;
    q.n_vector = 8;
    assert_int_equal(
        engine_search(kit.engine, "ext", &q, &kit.arena, &a, &fault), OK);
    assert_int_equal(a.n_hits, 1);
    assert_int_equal(engine_collection_delete(kit.engine, "a", &fault), OK);
    assert_int_equal(
        engine_collection_get(kit.engine, "front", &kit.arena, &info, &fault),
        ERR_NOT_FOUND);
    engine_kit_reopen(&kit);
    struct engine_collection_info *all;
    size_t n;
    assert_int_equal(
        engine_collections_list(kit.engine, &kit.arena, &all, &n, &fault), OK);
    assert_int_equal(n, 1);
    engine_kit_close(&kit);
}

static void
pages(void **state)
{
    (void)state;
    struct engine_kit kit;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    for (int i = 0; i < 25; i++) {
        char id[16], metadata[32];
        snprintf(id, sizeof(id), "i%d", i);
        snprintf(metadata, sizeof(metadata), "{\"n\":%d}", i);
        engine_kit_put(&kit, "docs", id, "some text", metadata);
    }
    static const struct {
        const char *filter;
        size_t n;
    } cases[] = {{NULL, 25}, {"{\"n\":{\"$lt\":13}}", 13}};
    for (size_t c = 0; c < 2; c++) {
        struct engine_item_page page = {.next_cursor = NULL};
        size_t n = 0;
        do {
            struct fault fault = {.err = OK};
            assert_int_equal(
                engine_items_list(kit.engine, "docs", page.next_cursor, 5,
                    cases[c].filter, true, &kit.arena, &page, &fault),
                OK);
            for (size_t i = 0; i < page.n; i++) {
                char id[16];
                snprintf(id, sizeof(id), "i%zu", n++);
                assert_string_equal(page.items[i].id, id);
                assert_non_null(page.items[i].vector);
            }
        } while (page.next_cursor);
        assert_int_equal(n, cases[c].n);
    }
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_at_once_and_after_restart),
        cmocka_unit_test(every_kind_of_query),
        cmocka_unit_test(filters),
        cmocka_unit_test(conditions_and_versions),
        cmocka_unit_test(refusals),
        cmocka_unit_test(collections_and_aliases),
        cmocka_unit_test(pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
