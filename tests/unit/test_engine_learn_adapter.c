/*
 * Goal: a round with "update": "adapter" changes how questions are encoded and
 * nothing else: its generation is in its parent's space, no item is embedded
 * again, and what is asked by an item is answered as before; a restart, a
 * rollback and a further round keep or leave the adapter as they should; an
 * interruption changes no bit.
 * Method: questions that share words with items that are never right, which a
 * linear map can take out; pictures that are asked with; an imported network,
 * whose rounds of other kinds are looked at, too; the live encoder's parameters
 * against those of a twin that nobody interrupted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fsio.h"
#include "engine/internal.h"
#include "engine/learn_checkpoint.h"
#include "model/published.h"
#include "tests/support/engine_kit.h"
#include "tests/support/image_kit.h"
#include "tests/support/transformer_kit.h"

#define SUBJECTS 200
#define PICTURES 60
#define DIMS 64
#define WAIT_MS 120000
#define ADAPTER "{\"update\":\"adapter\",\"seed\":3}"

/* ---- collections --------------------------------------------------------- */

static void
make(struct engine_kit *kit, const char *settings)
{
    bool created = false;
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    assert_int_equal(engine_collection_put(kit->engine, "docs", settings,
                         &created, &kit->arena, &info, &fault),
        OK);
    assert_int_equal(engine_collection_patch(kit->engine, "docs",
                         "{\"train\":{\"min_pairs\":10,\"min_groups\":3}}",
                         &kit->arena, &info, &fault),
        OK);
}

static void
question(char out[96], int subject)
{
    snprintf(out, 96, "zorbly quixen farblat subject%d", subject);
}

/* Items that are right, and as many that only sound like the questions. */
static void
fill_texts(struct engine_kit *kit)
{
    char id[16], text[96];
    make(kit, "{\"dims\":64,\"encoder_config\":{\"buckets\":4096}}");
    for (int i = 0; i < SUBJECTS; i++) {
        snprintf(id, sizeof id, "i%d", i);
        snprintf(text, sizeof text, "subject%d with words of use", i);
        engine_kit_put(kit, "docs", id, text, NULL);
        snprintf(id, sizeof id, "d%d", i);
        snprintf(text, sizeof text, "zorbly quixen farblat note%d", i);
        engine_kit_put(kit, "docs", id, text, NULL);
    }
}

static void
post_pairs(struct engine_kit *kit, int n, bool by_id)
{
    struct fault fault = {.err = OK};
    for (int i = 0; i < n; i++) {
        char anchor[96], id[16], other[16];
        struct engine_outcome o;
        question(anchor, i);
        snprintf(id, sizeof id, "i%d", i);
        snprintf(other, sizeof other, "i%d", i ^ 1);
        struct engine_pair p = {.anchor = {.text = engine_kit_text(anchor)},
            .positive = {.id = id},
            .weight = 1};
        if (by_id)
            p.anchor = (struct engine_side){.id = other};
        enum err err = engine_pairs_add(kit->engine, "docs", &p, 1, &o, &fault);
        if (err)
            fail_msg("pair %d: %s %s", i, fault.pointer, fault.detail);
    }
}

/* ---- rounds -------------------------------------------------------------- */

static int64_t
begin(struct engine_kit *kit, const char *options)
{
    struct fault fault = {.err = OK};
    int64_t job = 0;
    enum err err = engine_train(kit->engine, "docs", options, &job, &fault);
    if (err)
        fail_msg("%s: %s %s", options, fault.pointer, fault.detail);
    return job;
}

static struct engine_job
wait_for_end(struct engine_kit *kit, int64_t id)
{
    int64_t until = clock_mono_ms() + WAIT_MS;
    struct engine_job job = {.id = 0};
    struct fault fault = {.err = OK};
    do {
        engine_kit_fresh(kit);
        assert_int_equal(
            engine_job_get(kit->engine, id, &kit->arena, &job, &fault), OK);
        if (job.finished_ms != 0)
            return job;
        clock_sleep_ms(20);
    } while (clock_mono_ms() < until);
    fail_msg("job %lld did not end: %s", (long long)id, job.phase);
    return job;
}

static struct engine_job
promoted(struct engine_kit *kit, const char *options)
{
    struct engine_job job = wait_for_end(kit, begin(kit, options));
    if (strcmp(job.state, "promoted") != 0)
        fail_msg("%s: %s %s %s", options, job.state, job.error ? job.error : "",
            job.result_json ? job.result_json : "");
    return job;
}

static void
must_hold(const char *json, const char *part, bool there)
{
    if ((strstr(json, part) != NULL) != there)
        fail_msg("%s %s in %s", there ? "no" : "a", part, json);
}

/* ---- what is served ------------------------------------------------------ */

/* The live generation, as far as a test compares it. */
struct live {
    int64_t generation;
    uint8_t space[SHA256_BYTES];
    const struct space_index *index; /* not to be followed */
    bool adapter;
    float *params;
    size_t n_params;
};

static struct live
look(struct engine_kit *kit)
{
    struct collection *c;
    assert_int_equal(collection_find(kit->engine, "docs", &c, NULL), OK);
    struct snapshot *s = collection_live(c);
    const struct encoder *encoder = encoder_ref_get(s->encoder);
    struct live live = {.generation = s->generation,
        .index = s->index,
        .adapter = encoder_adapter_const(encoder) != NULL};
    memcpy(live.space, s->index->fingerprint, SHA256_BYTES);
    const float *params = encoder_params_const(encoder, &live.n_params);
    live.params = malloc(live.n_params * sizeof *params);
    assert_non_null(live.params);
    memcpy(live.params, params, live.n_params * sizeof *params);
    bool config =
        strstr(encoder_config_json(encoder), "\"adapter\":true") != NULL;
    assert_int_equal(config, live.adapter);
    snapshot_unref(s);
    collection_unref(c);
    return live;
}

static bool
same_space(const struct live *a, const struct live *b)
{
    return memcmp(a->space, b->space, SHA256_BYTES) == 0;
}

static bool
same_params(const struct live *a, const struct live *b)
{
    return a->n_params == b->n_params &&
           memcmp(a->params, b->params, a->n_params * sizeof(float)) == 0;
}

/* How many of the first questions find their item first. */
static int
right_ones(struct engine_kit *kit)
{
    int n = 0;
    for (int i = 0; i < 40; i++) {
        char text[96], id[16];
        question(text, i);
        snprintf(id, sizeof id, "i%d", i);
        engine_kit_fresh(kit);
        struct engine_answer a = engine_kit_search(kit, "docs", text, 1, NULL);
        n += a.n_hits > 0 && strcmp(a.hits[0].id, id) == 0;
    }
    return n;
}

/* The neighbours of an item, and how near they are. */
static void
near_item(struct engine_kit *kit, char ids[5][16], double cosines[5])
{
    struct engine_answer a;
    struct fault fault = {.err = OK};
    struct engine_query q = {.id = "i7", .k = 5, .min_cosine = -1};
    assert_int_equal(
        engine_search(kit->engine, "docs", &q, &kit->arena, &a, &fault), OK);
    assert_int_equal(a.n_hits, 5);
    for (size_t i = 0; i < 5; i++) {
        memset(ids[i], 0, sizeof ids[i]);
        snprintf(ids[i], sizeof ids[i], "%s", a.hits[i].id);
        cosines[i] = a.hits[i].cosine;
    }
}

static uint64_t
reembedded(const struct engine_kit *kit)
{
    return kit->engine->totals.reembedded;
}

/* ---- tests --------------------------------------------------------------- */

static void
items_stay_where_they_are(void **state)
{
    struct engine_kit kit;
    char ids[5][16] = {""}, again[5][16] = {""};
    double cosines[5], cosines_again[5];
    struct engine_switch back;
    struct fault fault = {.err = OK};

    (void)state;
    engine_kit_open(&kit);
    fill_texts(&kit);
    post_pairs(&kit, SUBJECTS, false);
    struct live first = look(&kit);
    assert_false(first.adapter);
    int before = right_ones(&kit);
    near_item(&kit, ids, cosines);

    struct engine_job job = promoted(&kit, ADAPTER);
    must_hold(job.result_json, "\"update\":\"adapter\"", true);
    must_hold(job.result_json, "\"moved\":4096", true);
    must_hold(job.result_json, "adapter_dropped", false);
    must_hold(job.result_json, "token_dropout", false);
    struct live second = look(&kit);
    assert_int_equal(second.generation, 2);
    assert_true(second.adapter);
    assert_true(same_space(&first, &second));
    assert_ptr_equal(first.index, second.index);
    assert_int_equal(second.n_params, first.n_params + DIMS * DIMS);
    assert_memory_equal(
        second.params, first.params, first.n_params * sizeof(float));
    assert_int_equal(reembedded(&kit), 0);
    int after = right_ones(&kit);
    if (after < before + 10)
        fail_msg("%d of 40 before, %d after", before, after);
    near_item(&kit, again, cosines_again);
    assert_memory_equal(ids, again, sizeof ids);
    assert_memory_equal(cosines, cosines_again, sizeof cosines);

    /* what is written now is found by both */
    engine_kit_put(&kit, "docs", "late", "subject9000 with words", NULL);
    engine_kit_fresh(&kit);
    assert_string_equal(
        engine_kit_search(&kit, "docs", "subject9000", 1, NULL).hits[0].id,
        "late");
    engine_kit_reopen(&kit);
    struct live reopened = look(&kit);
    assert_true(same_params(&second, &reopened));
    assert_int_equal(right_ones(&kit), after);

    assert_int_equal(engine_rollback(kit.engine, "docs", &back, &fault), OK);
    assert_int_equal(back.job_id, 0);
    struct live third = look(&kit);
    assert_int_equal(third.generation, 1);
    assert_true(same_space(&first, &third) && same_params(&first, &third));
    assert_int_equal(right_ones(&kit), before);
    assert_int_equal(engine_rollback(kit.engine, "docs", &back, &fault), OK);
    assert_int_equal(right_ones(&kit), after);
    assert_int_equal(reembedded(&kit), 0);
    free(first.params);
    free(second.params);
    free(third.params);
    free(reopened.params);
    engine_kit_close(&kit);
}

static void
a_further_round_goes_on_or_drops_it(void **state)
{
    struct engine_kit kit;
    (void)state;
    engine_kit_open(&kit);
    fill_texts(&kit);
    post_pairs(&kit, SUBJECTS, false);
    (void)promoted(&kit, ADAPTER);
    struct live second = look(&kit);
    /* a rate that moves nothing shows where it begins */
    struct engine_job job = promoted(&kit,
        "{\"update\":\"adapter\",\"force\":true,\"lr\":1e-6,\"max_steps\":1,"
        "\"optimizer\":\"sgd\",\"hard_negatives\":2}");
    must_hold(job.result_json, "\"mined\":{\"negatives\":", true);
    struct live third = look(&kit);
    assert_true(third.adapter);
    assert_true(same_space(&second, &third));
    for (size_t i = 0; i < third.n_params; i++)
        assert_true(third.params[i] - second.params[i] <= 1e-3f &&
                    second.params[i] - third.params[i] <= 1e-3f);
    assert_int_equal(reembedded(&kit), 0);
    job = promoted(&kit, "{\"force\":true,\"max_steps\":3,\"batch\":16}");
    must_hold(job.result_json, "\"update\":\"full\"", true);
    must_hold(job.result_json, "\"adapter_dropped\":true", true);
    struct live fourth = look(&kit);
    assert_false(fourth.adapter);
    assert_false(same_space(&third, &fourth));
    assert_int_equal(fourth.n_params + DIMS * DIMS, third.n_params);
    assert_int_equal(reembedded(&kit), 2 * SUBJECTS);
    free(second.params);
    free(third.params);
    free(fourth.params);
    engine_kit_close(&kit);
}

static void
pictures_that_are_asked_with_are_mapped(void **state)
{
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    struct buf files[PICTURES];
    struct engine_answer a, b;
    (void)state;
    engine_kit_open(&kit);
    make(&kit,
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28,"
        "\"channels\":3,\"width\":16,\"blocks\":1,\"stages\":2,\"dims\":32}}");
    for (int i = 0; i < PICTURES; i++) {
        char id[16];
        struct image image;
        struct engine_outcome o;
        buf_init(&files[i], 1 << 20);
        image_kit_paint(&image, 40, 32, 3, (uint64_t)i);
        image_kit_png(&files[i], &image, NULL);
        snprintf(id, sizeof id, "i%d", i);
        struct engine_item item = {
            .id = id, .image = {.bytes = files[i].data, .n = files[i].len}};
        assert_int_equal(
            engine_item_put(kit.engine, "docs", &item, NULL, &o, &fault), OK);
        image_release(&image);
    }
    post_pairs(&kit, PICTURES, true);
    struct engine_query q = {
        .image = {.bytes = files[3].data, .n = files[3].len},
        .k = 1,
        .min_cosine = -1};
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &a, &fault), OK);
    assert_string_equal(a.hits[0].id, "i3");
    assert_true(a.hits[0].cosine > 0.9999);
    struct engine_job job = promoted(
        &kit, "{\"update\":\"adapter\",\"force\":true,\"pretext\":\"pairs\"}");
    must_hold(job.result_json, "\"views\":{\"crop", false);
    struct live live = look(&kit);
    assert_true(live.adapter);
    assert_int_equal(reembedded(&kit), 0);
    assert_int_equal(
        engine_search(kit.engine, "docs", &q, &kit.arena, &b, &fault), OK);
    assert_true(strcmp(b.hits[0].id, "i3") != 0 || b.hits[0].cosine < 0.999);
    for (int i = 0; i < PICTURES; i++)
        buf_release(&files[i]);
    free(live.params);
    engine_kit_close(&kit);
}

/* A tiny network by way of its folder, which lies in the kit's. */
static void
fill_network(struct engine_kit *kit)
{
    char dir[128], id[16], text[96];
    struct encoder *encoder = NULL;
    struct engine_encoder info;
    struct fault fault = {.err = OK};
    bool created;
    snprintf(dir, sizeof dir, "%s/folder", kit->dir);
    assert_int_equal(fsio_make_dir(dir, &fault), OK);
    assert_int_equal(
        transformer_kit_build(&encoder, TRANSFORMER_KIT_PREFIXES, 5, &fault),
        OK);
    enum err err = published_export(encoder, dir, "tiny", NULL, &fault);
    if (err == OK)
        err = engine_encoder_import(
            kit->engine, "tiny", dir, &created, &kit->arena, &info, &fault);
    if (err)
        fail_msg("%s: %s", err_text(err), fault.detail);
    encoder_free(encoder);
    make(kit, "{\"encoder\":\"tiny\"}");
    for (int i = 0; i < SUBJECTS; i++) {
        struct engine_outcome o;
        snprintf(id, sizeof id, "i%d", i);
        (void)transformer_kit_text(text, sizeof text, 6, (uint64_t)i);
        engine_kit_put(kit, "docs", id, text, NULL);
        (void)transformer_kit_text(text, sizeof text, 4, (uint64_t)i);
        struct engine_pair p = {.anchor = {.text = engine_kit_text(text)},
            .positive = {.id = id},
            .weight = 1};
        assert_int_equal(
            engine_pairs_add(kit->engine, "docs", &p, 1, &o, &fault), OK);
    }
}

static void
rounds_of_an_imported_network(void **state)
{
    static const struct {
        const char *options, *parts[2];
        bool same_space;
    } all[] = {
        {"{\"update\":\"lora\",\"force\":true,\"max_steps\":3,\"lr\":0.01}",
            {"\"update\":\"lora\",\"lora\":{\"rank\":8,\"alpha\":16,"
             "\"targets\":[\"query\",\"value\"]}",
                "\"factors\":2048"},
            false},
        {"{\"update\":\"adapter\",\"force\":true,\"max_steps\":30}",
            {"\"update\":\"adapter\"", "\"moved\":1024"}, true},
        {"{\"update\":\"last\",\"force\":true,\"max_steps\":3}",
            {"\"update\":\"last\",\"layers\":1", "\"adapter_dropped\":true"},
            false},
    };
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    int64_t id;
    (void)state;
    engine_kit_open(&kit);
    fill_network(&kit);
    assert_int_equal(engine_train(kit.engine, "docs",
                         "{\"update\":\"last\",\"layers\":3}", &id, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/layers");
    assert_non_null(strstr(fault.detail, "from 1 to 2"));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct live before = look(&kit);
        struct engine_job job = promoted(&kit, all[i].options);
        for (size_t k = 0; k < 2; k++)
            must_hold(job.result_json, all[i].parts[k], true);
        struct live after = look(&kit);
        assert_int_equal(same_space(&before, &after), all[i].same_space);
        engine_kit_reopen(&kit); /* the tokenizer lies behind the adapter */
        struct live again = look(&kit);
        assert_int_equal(again.generation, after.generation);
        assert_true(same_params(&after, &again));
        free(before.params);
        free(after.params);
        free(again.params);
    }
    engine_kit_close(&kit);
}

static void
refused(struct engine_kit *kit, const char *options, const char *pointer,
    const char *part)
{
    struct fault fault = {.err = OK};
    int64_t id;
    assert_int_equal(
        engine_train(kit->engine, "docs", options, &id, &fault), ERR_INVALID);
    assert_string_equal(fault.pointer, pointer);
    if (strstr(fault.detail, part) == NULL)
        fail_msg("%s: %s", options, fault.detail);
}

static void
what_it_cannot_learn_is_refused(void **state)
{
    struct engine_kit kit;
    (void)state;
    engine_kit_open(&kit);
    fill_texts(&kit);
    post_pairs(&kit, SUBJECTS, true); /* items alone */
    struct engine_job job = wait_for_end(&kit, begin(&kit, ADAPTER));
    assert_string_equal(job.state, "failed");
    must_hold(
        job.error, "an adapter learns from pairs whose anchor is asked", true);
    refused(&kit, "{\"update\":\"adapter\",\"mechanism\":\"momentum_queue\"}",
        "/mechanism", "in_batch");
    refused(&kit, "{\"update\":\"adapter\",\"pretext\":\"instances\"}",
        "/pretext", "pairs");
    refused(&kit, "{\"update\":\"last\"}", "/update", "has none");
    refused(&kit, "{\"update\":\"lora\"}", "/update", "has none");
    engine_kit_close(&kit);
}

/* ---- interruption -------------------------------------------------------- */

struct heard {
    size_t n;
    int64_t last_event;
};

static void
hear(void *arg, const struct engine_event *event)
{
    struct heard *h = arg;
    h->last_event = event->id;
    h->n += strcmp(event->type, "metrics") == 0;
}

static void
hear_points(struct engine_kit *kit, int64_t job, size_t n)
{
    struct heard h = {.n = 0};
    struct fault fault = {.err = OK};
    bool ended = false;
    while (h.n < n && !ended)
        assert_int_equal(engine_job_wait_events(kit->engine, job, h.last_event,
                             1000, hear, &h, &ended, &fault),
            OK);
    assert_false(ended);
}

static void
an_interruption_changes_no_bit(void **state)
{
    static const char options[] =
        "{\"update\":\"adapter\",\"force\":true,\"batch\":32,\"epochs\":1000,"
        "\"max_steps\":400}";
    struct engine_kit kit;
    (void)state;
    engine_kit_open(&kit);
    fill_texts(&kit);
    post_pairs(&kit, SUBJECTS, false);
    (void)promoted(&kit, options);
    struct live whole = look(&kit);
    engine_kit_close(&kit);

    engine_kit_open(&kit);
    fill_texts(&kit);
    post_pairs(&kit, SUBJECTS, false);
    int64_t before = learn_checkpoint_every_ms(0);
    int64_t job = begin(&kit, options);
    hear_points(&kit, job, 10);
    engine_close(kit.engine);
    kit.engine = NULL;
    (void)learn_checkpoint_every_ms(before);
    engine_kit_reopen(&kit);
    assert_string_equal(wait_for_end(&kit, job).state, "promoted");
    struct live pieces = look(&kit);
    assert_true(pieces.adapter);
    assert_true(same_params(&whole, &pieces));
    free(whole.params);
    free(pieces.params);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_stay_where_they_are),
        cmocka_unit_test(a_further_round_goes_on_or_drops_it),
        cmocka_unit_test(pictures_that_are_asked_with_are_mapped),
        cmocka_unit_test(rounds_of_an_imported_network),
        cmocka_unit_test(what_it_cannot_learn_is_refused),
        cmocka_unit_test(an_interruption_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
