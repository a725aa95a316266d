/*
 * Goal: the roster keeps ids, ordinals and versions apart and together, and
 * gives no ordinal again while a search of its time runs; templates render as
 * written; settings are completed, compared, patched, refused by field.
 * Method: each module alone; the roster against arrays under random changes.
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
#include "engine/document.h"
#include "engine/impressions.h"
#include "engine/roster.h"
#include "engine/settings.h"
#include "tests/support/engine_kit.h"

#define N 2000

static void
name_of(char out[600], size_t i)
{
    /* Some ids are long, to fill chunks. */
    snprintf(out, 600, "%s%zu", i % 3 ? "id" : "", i);
    if (i % 7 == 0) {
        memset(out + strlen(out), 'x', 400);
        out[strlen(out) < 500 ? 400 : 500] = '\0';
    }
}

static void
roster_equals_arrays(void **state)
{
    (void)state;
    struct roster *r;
    struct rng rng;
    static uint32_t ords[N];
    static bool there[N];
    static int64_t versions[N];
    rng_seed(&rng, 3);
    memset(ords, 0, sizeof(ords));
    memset(there, 0, sizeof(there));
    assert_int_equal(roster_new(&r), OK);
    struct arena arena;
    arena_init(&arena, 1 << 24);
    size_t live = 0;
    for (int step = 0; step < 60000; step++) {
        char id[600] = {0};
        size_t i = rng_below(&rng, N);
        name_of(id, i);
        struct roster_entry e;
        assert_int_equal(roster_find(r, id, &e), there[i]);
        if (rng_below(&rng, 5) < 3) {
            bool created;
            uint32_t ord;
            versions[i] = step + 1;
            assert_int_equal(
                roster_put(r, id, (int64_t)i + 1, versions[i], &ord, &created),
                OK);
            assert_int_equal(created, !there[i]);
            assert_true(created || ord == ords[i]);
            live += !there[i];
            there[i] = true;
            ords[i] = ord;
        } else {
            uint32_t ord = roster_remove(r, id);
            assert_int_equal(ord, there[i] ? ords[i] : ROSTER_NONE);
            live -= there[i];
            there[i] = false;
        }
        assert_int_equal(roster_count(r), live);
    }
    /* Ordinals are dense: removed ones came again. */
    assert_true(roster_span(r) < N + 16);
    for (size_t i = 0; i < N; i++) {
        if (there[i]) {
            char id[600] = {0};
            const char *name;
            int64_t item;
            name_of(id, i);
            assert_int_equal(roster_name(r, ords[i], &arena, &name, &item), OK);
            assert_string_equal(name, id);
            assert_int_equal(item, i + 1);
        }
    }
    arena_release(&arena);
    roster_free(r);
}

static void
ordinals_wait_for_searches(void **state)
{
    (void)state;
    struct roster *r;
    struct arena arena;
    uint32_t a, b;
    const char *name;
    int64_t item;
    arena_init(&arena, 1 << 20);
    assert_int_equal(roster_new(&r), OK);
    assert_int_equal(roster_put(r, "a", 1, 1, &a, NULL), OK);
    unsigned search = roster_enter(r);
    assert_int_equal(roster_remove(r, "a"), a);
    /* Whatever is removed and put meanwhile, the ordinal stays "a". */
    for (int i = 0; i < 10; i++) {
        char id[16];
        snprintf(id, sizeof(id), "b%d", i);
        assert_int_equal(roster_put(r, id, 2 + i, 1, &b, NULL), OK);
        assert_int_not_equal(b, a);
        (void)roster_remove(r, id);
    }
    assert_int_equal(roster_name(r, a, &arena, &name, &item), OK);
    assert_string_equal(name, "a");
    roster_leave(r, search);
    bool again = false;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(roster_put(r, "c", 99, 1, &b, NULL), OK);
        again = again || b == a;
        (void)roster_remove(r, "c");
    }
    assert_true(again);
    roster_free(r);
    arena_release(&arena);
}

static void
templates(void **state)
{
    (void)state;
    static const struct {
        const char *template_text;
        const char *expect; /* NULL: refused */
    } cases[] = {{"{title}\n{text}", "T\nbody"}, {"{text}{{x}}", "body{x}"},
        {"{metadata.a.b}", "1 two true"}, {"<{metadata.none}>", "<>"},
        {"{metadata.o}|", "|"}, {"{titel}", NULL}, {"{text", NULL},
        {"text}", NULL}, {"plain", NULL}, {"", NULL}, {"{metadata.}", NULL}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct document_template *t = NULL;
        struct fault fault = {.err = OK};
        enum err err =
            document_template_new(&t, cases[i].template_text, &fault);
        if (!cases[i].expect) {
            assert_int_equal(err, ERR_INVALID);
            assert_string_equal(fault.pointer, "/template");
            continue;
        }
        assert_int_equal(err, OK);
        struct buf out;
        buf_init(&out, 4096);
        assert_int_equal(
            document_render(t, engine_kit_text("T"), engine_kit_text("body"),
                engine_kit_text(
                    "{\"a\":{\"b\":[1,\"two\",true,null,{}]},\"o\":{\"c\":1}}"),
                &out),
            OK);
        assert_string_equal(out.data ? out.data : "", cases[i].expect);
        buf_release(&out);
        document_template_free(t);
    }
}

static enum err
find_nothing(void *arg, const char *name, struct settings_imported *out,
    struct fault *fault)
{
    (void)arg;
    (void)out;
    return fault_set(fault, ERR_INVALID, "/encoder", "no \"%s\"", name);
}

static void
settings(void **state)
{
    (void)state;
    static const struct settings_finder finder = {.find = find_nothing};
    static const struct {
        const char *body;
        const char *pointer; /* NULL: fine */
    } cases[] = {{"{\"dims\":64,\"encoder_config\":{\"buckets\":1024}}", NULL},
        {"{\"encoder\":\"external\",\"dims\":8}", NULL},
        {"{\"encoder\":\"nope\"}", "/encoder"}, {"{\"dims\":0}", "/dims"},
        {"{\"dims\":\"x\"}", "/dims"},
        {"{\"dims\":64,\"encoder_config\":{\"dims\":32}}",
            "/encoder_config/dims"},
        {"{\"encoder_config\":{\"bucket\":1}}", "/encoder_config/bucket"},
        {"{\"encoder\":\"external\",\"encoder_config\":{\"a\":1}}",
            "/encoder_config"},
        {"{\"template\":7}", "/template"}, {"[]", ""}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct settings_fixed fixed = {.dims = 0}, again = {.dims = 0};
        struct encoder *encoder = NULL;
        struct fault fault = {.err = OK};
        enum err err = settings_fixed_parse(
            cases[i].body, NULL, &finder, &fixed, &encoder, &fault);
        if (cases[i].pointer) {
            assert_int_not_equal(err, OK);
            assert_string_equal(fault.pointer, cases[i].pointer);
            continue;
        }
        assert_int_equal(err, OK);
        struct buf out;
        buf_init(&out, 1 << 16);
        settings_fixed_write(&fixed, &out);
        assert_int_equal(settings_fixed_read(out.data, out.len, &again), OK);
        assert_true(settings_fixed_equal(&fixed, &again));
        again.dims++;
        assert_false(settings_fixed_equal(&fixed, &again));
        buf_release(&out);
        settings_fixed_release(&fixed);
        settings_fixed_release(&again);
        encoder_free(encoder);
    }
    struct buf one, two, options;
    struct train_policy policy;
    buf_init(&one, 1 << 16);
    buf_init(&two, 1 << 16);
    buf_init(&options, 1 << 16);
    assert_int_equal(settings_patch(NULL,
                         "{\"train\":{\"every_pairs\":5,\"options\":{\"seed\":"
                         "1}}}",
                         &one, NULL),
        OK);
    assert_int_equal(
        settings_patch(one.data,
            "{\"train\":{\"min_pairs\":9},\"description\":\"d\"}", &two, NULL),
        OK);
    assert_int_equal(settings_policy(two.data, &policy, &options, NULL), OK);
    assert_int_equal(policy.every_pairs, 5);
    assert_int_equal(policy.min_pairs, 9);
    assert_int_equal(policy.min_groups, 50);
    assert_string_equal(options.data, "{\"seed\":1}");
    struct fault fault = {.err = OK};
    buf_clear(&one);
    assert_int_equal(
        settings_patch(two.data, "{\"train\":{\"min_pairs\":0}}", &one, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/train/min_pairs");
    buf_release(&one);
    buf_release(&two);
    buf_release(&options);
}

static void
impressions_are_bounded(void **state)
{
    (void)state;
    struct impressions *im;
    struct arena arena;
    char ids[300][ENGINE_SEARCH_ID_BYTES];
    arena_init(&arena, 1 << 24);
    assert_int_equal(impressions_new(&im, 100), OK);
    for (int64_t i = 0; i < 300; i++) {
        char text[32];
        int64_t items[3] = {i, i + 1, i + 2};
        snprintf(text, sizeof(text), "query %lld", (long long)i);
        struct impression in = {.collection = 1,
            .text = engine_kit_text(text),
            .items = items,
            .n_items = 3};
        impressions_add(im, &in, ids[i]);
    }
    for (int64_t i = 0; i < 300; i++) {
        struct impression out;
        enum err err = impressions_get(im, ids[i], &arena, &out);
        assert_int_equal(err, i < 200 ? ERR_NOT_FOUND : OK);
        if (!err) {
            assert_int_equal(out.items[1], i + 1);
            assert_int_equal(strtol(out.text.s + 6, NULL, 10), i);
        }
    }
    static char big[1 << 20];
    memset(big, 'x', sizeof(big) - 1);
    for (int i = 0; i < 50; i++) {
        struct impression in = {.text = {.s = big, .len = 400000}};
        impressions_add(im, &in, ids[0]);
        assert_true(impressions_bytes(im) < IMPRESSIONS_BYTES_MAX + 100000);
    }
    impressions_free(im);
    arena_release(&arena);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roster_equals_arrays),
        cmocka_unit_test(ordinals_wait_for_searches),
        cmocka_unit_test(templates),
        cmocka_unit_test(settings),
        cmocka_unit_test(impressions_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
