/*
 * Goal: every mechanism and loss makes a round through to its end, over texts
 * and over pictures, with pairs and without, and its record has what it did;
 * a round that the daemon's stop interrupts goes on from its checkpoint and
 * makes the same bits, and from its beginning when the checkpoint is damaged;
 * no checkpoint outlives its job; a run that collapses is refused.
 * Method: small collections, a few steps a round, forced promotion. A round of
 * many steps that saves after each, or when it is stopped, is interrupted once
 * it has told of a few; the fingerprint afterwards is that of a twin that
 * nobody interrupted.
 */
#include <dirent.h>
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
#include "base/json.h"
#include "engine/internal.h"
#include "engine/learn_checkpoint.h"
#include "engine/learn_data.h"
#include "tests/support/engine_kit.h"
#include "tests/support/image_kit.h"

#define ITEMS 240
#define PICTURES 90
#define WAIT_MS 120000

/* ---- collections --------------------------------------------------------- */

static void
make(struct engine_kit *kit, const char *settings, const char *policy)
{
    bool created = false;
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    enum err err = engine_collection_put(
        kit->engine, "docs", settings, &created, &kit->arena, &info, &fault);
    if (err)
        fail_msg("collection: %s %s", fault.pointer, fault.detail);
    assert_int_equal(engine_collection_patch(kit->engine, "docs", policy,
                         &kit->arena, &info, &fault),
        OK);
}

static void
fill_texts(struct engine_kit *kit)
{
    struct fault fault = {.err = OK};
    struct engine_item *items = calloc(ITEMS, sizeof *items);
    struct engine_outcome *outcomes = calloc(ITEMS, sizeof *outcomes);
    char(*texts)[96] = calloc(ITEMS, 96);
    char(*metadata)[32] = calloc(ITEMS, 32);
    char(*ids)[16] = calloc(ITEMS, 16);

    make(kit, "{\"dims\":64,\"encoder_config\":{\"buckets\":4096}}",
        "{\"train\":{\"min_pairs\":10,\"min_groups\":3}}");
    for (int i = 0; i < ITEMS; i++) {
        snprintf(ids[i], 16, "i%d", i);
        snprintf(texts[i], 96,
            "topic%d subject%d filler words of use %d and %d", i / 4, i, i % 9,
            i % 7);
        snprintf(metadata[i], 32, "{\"kind\":\"k%d\",\"one\":1}", i / 4 % 5);
        items[i] = (struct engine_item){.id = ids[i],
            .text = engine_kit_text(texts[i]),
            .metadata = engine_kit_text(metadata[i])};
    }
    assert_int_equal(
        engine_items_put(kit->engine, "docs", items, ITEMS, outcomes, &fault),
        OK);
    free(items);
    free(outcomes);
    free(texts);
    free(metadata);
    free(ids);
}

/* An anchor for each item; with a negative that some pair calls a positive. */
static void
post_pairs(struct engine_kit *kit, int n, bool by_id)
{
    struct fault fault = {.err = OK};
    for (int i = 0; i < n; i++) {
        char anchor[64], id[16], other[16], group[16];
        struct engine_outcome o;
        snprintf(anchor, sizeof anchor, "question about subject%d", i / 2 * 2);
        snprintf(id, sizeof id, "i%d", i);
        snprintf(other, sizeof other, "i%d", i ^ 1);
        snprintf(group, sizeof group, "g%d", i / 4);
        struct engine_side wrong = {.id = other};
        struct engine_pair p = {.anchor = {.text = engine_kit_text(anchor)},
            .positive = {.id = id},
            .weight = 1,
            .group = group};
        if (by_id)
            p.anchor = (struct engine_side){.id = other};
        if (i % 8 == 0 && !by_id) {
            p.negatives = &wrong;
            p.n_negatives = 1;
        }
        enum err err = engine_pairs_add(kit->engine, "docs", &p, 1, &o, &fault);
        if (err)
            fail_msg("pair %d: %s %s", i, fault.pointer, fault.detail);
    }
}

static void
fill_pictures(struct engine_kit *kit)
{
    struct fault fault = {.err = OK};
    make(kit,
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28,"
        "\"channels\":3,\"width\":16,\"blocks\":1,\"stages\":2,\"dims\":32}}",
        "{\"train\":{\"min_pairs\":10,\"min_groups\":1}}");
    for (int i = 0; i < PICTURES; i++) {
        char id[16], metadata[32];
        struct image image;
        struct buf file;
        struct engine_outcome o;
        buf_init(&file, 1 << 20);
        image_kit_paint(&image, 40, 32, 3, (uint64_t)i);
        image_kit_png(&file, &image, NULL);
        snprintf(id, sizeof id, "i%d", i);
        snprintf(metadata, sizeof metadata, "{\"kind\":%d}", i % 3);
        struct engine_item item = {.id = id,
            .metadata = engine_kit_text(metadata),
            .image = {.bytes = file.data, .n = file.len}};
        if (i % 30 == 29)
            item.image = (struct engine_image){.n = 0}; /* has none */
        enum err err =
            engine_item_put(kit->engine, "docs", &item, NULL, &o, &fault);
        if (err)
            fail_msg("picture %d: %s %s", i, fault.pointer, fault.detail);
        image_release(&image);
        buf_release(&file);
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

static void
must_hold(const char *what, const char *json, const char *part)
{
    if (strstr(json, part) == NULL)
        fail_msg("%s: no %s in %s", what, part, json);
}

/* Rows of the curve, each of the columns' width; their number. */
static size_t
check_curve(const char *json)
{
    struct json *root;
    const struct json *columns = NULL, *rows = NULL;
    struct fault fault = {.err = OK};
    assert_int_equal(
        json_parse(json, strlen(json), 1 << 24, &root, &fault), OK);
    assert_int_equal(
        json_get_array(root, "", "columns", JSON_REQUIRED, &columns, &fault),
        OK);
    assert_int_equal(
        json_get_array(root, "", "rows", JSON_REQUIRED, &rows, &fault), OK);
    size_t n = json_count(rows);
    for (size_t i = 0; i < n; i++) {
        const struct json *row = json_item(rows, i);
        assert_int_equal(json_count(row), json_count(columns));
        if (i > 0)
            assert_true(json_i64(json_item(row, 0)) >
                        json_i64(json_item(json_item(rows, i - 1), 0)));
    }
    json_free(root);
    return n;
}

static struct engine_job
run_round(struct engine_kit *kit, const char *options)
{
    struct engine_job job = wait_for_end(kit, begin(kit, options));
    if (strcmp(job.state, "promoted") != 0)
        fail_msg("%s: %s %s %s", options, job.state, job.error ? job.error : "",
            job.result_json);
    assert_true(check_curve(job.curve_json) >= 4);
    return job;
}

static bool
has_checkpoints(const struct engine_kit *kit)
{
    char path[128];
    bool any = false;
    const struct dirent *entry;
    snprintf(path, sizeof path, "%s/checkpoints", kit->dir);
    DIR *dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL)
        any = any || strncmp(entry->d_name, "job-", 4) == 0;
    if (dir != NULL)
        (void)closedir(dir);
    return any;
}

#define SMALL "\"force\":true,\"max_steps\":6,\"batch\":16,"

static void
rounds_over_pairs_of_texts(void **state)
{
    static const struct {
        const char *options, *parts[4];
    } all[] = {
        {"{" SMALL "\"mechanism\":\"in_batch\",\"micro_batch\":4,"
         "\"char_noise\":0.1}",
            {"\"mechanism\":\"in_batch\"", "\"loss\":\"symmetric\"",
                "\"alignment\":{", "\"uniformity\":{"}},
        {"{" SMALL "\"loss\":\"four_way\",\"hard_negatives\":2}",
            {"\"loss\":\"four_way\"", "\"mined\":{\"negatives\":",
                "\"near_the_positive\":", "\"contradictory\":{\"pairs\":"}},
        {"{" SMALL "\"loss\":\"supcon\",\"label\":\"kind\"}",
            {"\"loss\":\"supcon\"", "\"label\":\"kind\"", "\"knn\":{", ""}},
        {"{" SMALL "\"mechanism\":\"momentum_queue\",\"queue\":64,"
         "\"head\":{\"layers\":2,\"dims\":16}}",
            {"\"mechanism\":\"momentum_queue\"", "\"queue\":64",
                "\"head\":{\"layers\":2,\"dims\":16}", "\"staleness\":"}},
        {"{" SMALL "\"mechanism\":\"memory_bank\",\"bank_sample\":50,"
         "\"optimizer\":\"sgd\",\"schedule\":\"constant\"}",
            {"\"mechanism\":\"memory_bank\"", "\"bank_sample\":50",
                "\"optimizer\":\"sgd\"", "\"staleness\":"}},
        {"{" SMALL "\"pretext\":\"instances\",\"loss\":\"nt_xent\"}",
            {"\"pretext\":\"instances\"", "\"judge\":\"pairs\"", "", ""}},
    };
    struct engine_kit kit;
    (void)state;
    engine_kit_open(&kit);
    fill_texts(&kit);
    post_pairs(&kit, ITEMS, false);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct engine_job job = run_round(&kit, all[i].options);
        for (size_t k = 0; k < 4 && all[i].parts[k] != NULL; k++)
            must_hold(all[i].options, job.result_json, all[i].parts[k]);
        must_hold(all[i].options, job.result_json, "\"views_per_second\":");
    }
    assert_false(has_checkpoints(&kit));
    engine_kit_close(&kit);
}

static void
rounds_over_pictures(void **state)
{
    static const char *const all[] = {
        "{" SMALL
        "\"micro_batch\":8,\"views\":{\"flip\":0},\"label\":\"kind\"}",
        "{" SMALL "\"mechanism\":\"momentum_queue\",\"queue\":32,"
        "\"momentum\":0.9}",
        "{" SMALL "\"mechanism\":\"memory_bank\",\"bank_sample\":20,"
        "\"loss\":\"dcl\"}",
    };
    struct engine_kit kit;
    struct engine_job job;
    struct fault fault = {.err = OK};
    int64_t id;
    (void)state;
    engine_kit_open(&kit);
    fill_pictures(&kit);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        job = run_round(&kit, all[i]);
        must_hold(all[i], job.result_json, "\"pretext\":\"instances\"");
        must_hold(all[i], job.result_json, "\"judge\":\"views\"");
        must_hold(all[i], job.result_json, "\"views\":{\"crop_min\":");
        must_hold(all[i], job.result_json, "\"absent\":");
        if (i == 0)
            must_hold(all[i], job.result_json, "\"knn\":{");
    }
    /* pictures that people put together */
    post_pairs(&kit, PICTURES, true);
    job = run_round(
        &kit, "{" SMALL "\"pretext\":\"pairs\",\"hard_negatives\":1}");
    must_hold("pairs", job.result_json, "\"pretext\":\"pairs\"");
    must_hold("pairs", job.result_json, "\"judge\":\"pairs\"");
    assert_int_equal(engine_train(kit.engine, "docs", "{\"token_dropout\":0.1}",
                         &id, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/token_dropout");
    assert_int_equal(engine_train(kit.engine, "docs",
                         "{\"mechanism\":\"momentum_queue\",\"queue\":1000000,"
                         "\"head\":{\"layers\":1,\"dims\":4096}}",
                         &id, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/queue");
    engine_kit_close(&kit);
}

/* Room for so many pictures a split: fewer examples, questions and given
   negatives, the same ones each time, and no anchor without all of its own. */
static void
pictures_that_do_not_fit(void **state)
{
    const size_t picture = (size_t)28 * 28 * 3;
    struct engine_kit kit;
    struct collection *c;
    struct learn_options options = {.replay = 1};
    struct learn_resume resume = {
        .known = true, .pretext = LEARN_PAIRS, .pairs_upto = INT64_MAX};
    struct learn_form form;
    struct learn_data all, few, again;
    struct fault fault = {.err = OK};
    (void)state;
    engine_kit_open(&kit);
    fill_pictures(&kit);
    for (int i = 0; i < PICTURES; i++) {
        char ids[4][16];
        struct engine_outcome o;
        for (int k = 0; k < 4; k++) /* two pairs an anchor */
            snprintf(
                ids[k], 16, "i%d", k == 0 ? i / 2 * 2 : (i + 7 * k) % PICTURES);
        struct engine_side wrong[2] = {{.id = ids[2]}, {.id = ids[3]}};
        struct engine_pair p = {.anchor = {.id = ids[0]},
            .positive = {.id = ids[1]},
            .negatives = wrong,
            .n_negatives = 2,
            .weight = 1};
        assert_int_equal(
            engine_pairs_add(kit.engine, "docs", &p, 1, &o, &fault), OK);
    }
    assert_int_equal(collection_find(kit.engine, "docs", &c, NULL), OK);
    struct snapshot *live = collection_live(c);
    learn_form_of(encoder_ref_get(live->encoder), &form);
    assert_int_equal(
        learn_collect(&all, kit.engine, c, &form, &options, &resume, &fault),
        OK);
    size_t room = learn_picture_room(2 * 10 * picture);
    assert_int_equal(
        learn_collect(&few, kit.engine, c, &form, &options, &resume, &fault),
        OK);
    assert_int_equal(
        learn_collect(&again, kit.engine, c, &form, &options, &resume, &fault),
        OK);
    (void)learn_picture_room(room);
    assert_true(all.judge.n > 2 && all.n_left_out == 0);
    assert_in_range(few.n_examples, 1, 10);
    assert_in_range(few.judge.n, 1, 5);
    assert_true(few.judge.n < all.judge.n);
    assert_true(few.n_left_out > 0);
    assert_in_range(few.negative_bytes, 1, 10 * picture);
    assert_int_equal(again.judge.n, few.judge.n);
    for (size_t i = 0; i < few.judge.n; i++) {
        const struct judge_question *q = &few.judge.questions[i];
        const struct judge_question *same = NULL;
        assert_int_equal(again.judge.questions[i].skip, q->skip);
        for (size_t j = 0; j < all.judge.n && same == NULL; j++) {
            if (all.judge.questions[j].skip == q->skip)
                same = &all.judge.questions[j];
        }
        assert_non_null(same);
        assert_int_equal(same->n_relevant, q->n_relevant);
    }
    learn_data_release(&all);
    learn_data_release(&few);
    learn_data_release(&again);
    snapshot_unref(live);
    collection_unref(c);
    engine_kit_close(&kit);
}

/* When everything is a positive of everything, one point is the best that an
   encoder can do. */
static void
a_collapse_is_refused(void **state)
{
    struct engine_kit kit;
    (void)state;
    engine_kit_open(&kit);
    fill_texts(&kit);
    struct engine_job job = wait_for_end(&kit,
        begin(&kit, "{\"force\":true,\"pretext\":\"instances\",\"batch\":32,"
                    "\"max_steps\":2000,\"epochs\":1000,\"lr\":0.5,"
                    "\"schedule\":\"constant\",\"loss\":\"supcon\","
                    "\"label\":\"one\"}"));
    if (strcmp(job.state, "refused") != 0)
        fail_msg("%s %s", job.state, job.error ? job.error : "");
    must_hold("collapse", job.result_json, "the embeddings collapsed");
    must_hold("collapse", job.result_json, "not promoted");
    must_hold("collapse", job.result_json, "\"collapsed\":true");
    assert_true(check_curve(job.curve_json) > 0);
    struct engine_answer a =
        engine_kit_search(&kit, "docs", "topic3 subject12", 1, NULL);
    assert_int_equal(a.generation, 1);
    engine_kit_close(&kit);
}

/* ---- interruptions ------------------------------------------------------- */

struct heard {
    size_t n;      /* metrics events */
    int64_t first; /* step of the first */
    int64_t last_event;
};

static void
hear(void *arg, const struct engine_event *event)
{
    struct heard *h = arg;
    h->last_event = event->id;
    if (strcmp(event->type, "metrics") == 0) {
        const char *at = strstr(event->data, "\"step\":");
        assert_non_null(at);
        if (h->n++ == 0)
            h->first = strtoll(at + 7, NULL, 10);
    }
}

/* Wait until a job has told of n points. */
static struct heard
hear_points(struct engine_kit *kit, int64_t job, size_t n)
{
    struct heard h = {.n = 0};
    struct fault fault = {.err = OK};
    bool ended = false;
    while (h.n < n && !ended)
        assert_int_equal(engine_job_wait_events(kit->engine, job, h.last_event,
                             1000, hear, &h, &ended, &fault),
            OK);
    return h;
}

static void
live_fingerprint(struct engine_kit *kit, char out[SHA256_HEX])
{
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    assert_int_equal(
        engine_collection_get(kit->engine, "docs", &kit->arena, &info, &fault),
        OK);
    memcpy(out, info.fingerprint, SHA256_HEX);
}

static void
stop(struct engine_kit *kit)
{
    engine_close(kit->engine);
    kit->engine = NULL;
}

/* Overwrite a byte in the middle of the job's checkpoint. */
static void
damage(const struct engine_kit *kit, int64_t job)
{
    char path[128];
    struct buf bytes;
    struct fault fault = {.err = OK};
    snprintf(
        path, sizeof path, "%s/checkpoints/job-%lld", kit->dir, (long long)job);
    buf_init(&bytes, 1 << 28);
    assert_int_equal(fsio_read(path, &bytes, &fault), OK);
    bytes.data[bytes.len / 2] ^= 1;
    assert_int_equal(
        fsio_write_atomic(path, bytes.data, bytes.len, &fault), OK);
    buf_release(&bytes);
}

static void
interrupted_as(const char *options, int64_t every_ms, bool damaged)
{
    struct engine_kit kit, twin;
    char whole[SHA256_HEX], pieces[SHA256_HEX];
    int64_t before;

    engine_kit_open(&twin);
    fill_texts(&twin);
    post_pairs(&twin, ITEMS, false);
    assert_string_equal(
        wait_for_end(&twin, begin(&twin, options)).state, "promoted");
    live_fingerprint(&twin, whole);
    engine_kit_close(&twin);

    engine_kit_open(&kit);
    fill_texts(&kit);
    post_pairs(&kit, ITEMS, false);
    before = learn_checkpoint_every_ms(every_ms);
    int64_t job = begin(&kit, options);
    (void)hear_points(&kit, job, 20);
    stop(&kit);
    (void)learn_checkpoint_every_ms(before);
    assert_true(has_checkpoints(&kit));
    if (damaged)
        damage(&kit, job);
    engine_kit_reopen(&kit);
    struct heard h = hear_points(&kit, job, 1);
    assert_true(h.n > 0);
    /* it went on where it was, or began again */
    if (damaged)
        assert_int_equal(h.first, 1);
    else
        assert_true(h.first > 20);
    struct engine_job ended = wait_for_end(&kit, job);
    assert_string_equal(ended.state, "promoted");
    size_t points = check_curve(ended.curve_json);
    assert_int_equal(points, 120);
    live_fingerprint(&kit, pieces);
    assert_string_equal(whole, pieces);
    assert_false(has_checkpoints(&kit));
    engine_kit_close(&kit);
}

#define LONG "\"force\":true,\"max_steps\":120,\"epochs\":100,\"batch\":32,"

static void
a_stop_changes_no_bit(void **state)
{
    (void)state;
    interrupted_as("{" LONG "\"mechanism\":\"momentum_queue\",\"queue\":96,"
                   "\"momentum\":0.9,\"head\":{\"layers\":1,\"dims\":32},"
                   "\"learn_temperature\":true}",
        0, false);
    /* here the stop alone saves */
    interrupted_as("{" LONG "\"mechanism\":\"memory_bank\","
                   "\"bank_sample\":40,\"hard_negatives\":2,"
                   "\"pretext\":\"pairs\"}",
        LEARN_CHECKPOINT_MS, false);
}

static void
a_damaged_checkpoint_is_not_used(void **state)
{
    (void)state;
    interrupted_as(
        "{" LONG "\"mechanism\":\"momentum_queue\",\"queue\":64}", 0, true);
}

static void
stale_checkpoints_are_swept(void **state)
{
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    char path[128];
    (void)state;
    engine_kit_open(&kit);
    snprintf(path, sizeof path, "%s/checkpoints", kit.dir);
    assert_int_equal(fsio_make_dir(path, &fault), OK);
    snprintf(path, sizeof path, "%s/checkpoints/job-77", kit.dir);
    assert_int_equal(fsio_write_atomic(path, "x", 1, &fault), OK);
    snprintf(path, sizeof path, "%s/checkpoints/job-3.tmp", kit.dir);
    assert_int_equal(fsio_write_atomic(path, "x", 1, &fault), OK);
    assert_true(has_checkpoints(&kit));
    engine_kit_reopen(&kit);
    assert_false(has_checkpoints(&kit));
    /* and a cancelled job leaves none */
    fill_texts(&kit);
    post_pairs(&kit, ITEMS, false);
    int64_t before = learn_checkpoint_every_ms(0);
    int64_t job = begin(&kit, "{" LONG "\"seed\":3}");
    (void)hear_points(&kit, job, 3);
    assert_int_equal(engine_job_cancel(kit.engine, job, &fault), OK);
    assert_string_equal(wait_for_end(&kit, job).state, "cancelled");
    (void)learn_checkpoint_every_ms(before);
    clock_sleep_ms(100);
    assert_false(has_checkpoints(&kit));
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_over_pairs_of_texts),
        cmocka_unit_test(rounds_over_pictures),
        cmocka_unit_test(pictures_that_do_not_fit),
        cmocka_unit_test(a_collapse_is_refused),
        cmocka_unit_test(a_stop_changes_no_bit),
        cmocka_unit_test(a_damaged_checkpoint_is_not_used),
        cmocka_unit_test(stale_checkpoints_are_swept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
