/*
 * Goal: hard negatives are the nearest items that no guard keeps out, at most
 * so many a pair, the same ones every time.
 * Method: the choice alone over tables; then a small collection whose texts
 * make one item near for each reason a guard has; then pairs of an earlier
 * round, which do not train again but are true.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/internal.h"
#include "engine/learn_mine.h"
#include "tests/support/engine_kit.h"

static void
the_choice(void **state)
{
    (void)state;
    const struct learn_candidate all[] = {
        {.cosine = 0.97},                  /* above the positive */
        {.cosine = 0.90, .known = true},   /* a positive */
        {.cosine = 0.77},                  /* within 5% of .8 */
        {.cosine = 0.759, .barred = true}, /* judged */
        {.cosine = 0.759},                 /* just below 0.76: taken */
        {.cosine = 0.70},                  /* taken */
        {.cosine = 0.60},                  /* over the cap of 2 */
    };
    uint32_t out[8] = {9, 9, 9, 9, 9, 9, 9, 9};
    struct learn_mine_counts counts = {0};
    assert_int_equal(learn_mine_choose(all, 7, 0.8, 2, out, &counts), 2);
    assert_int_equal(out[0], 4);
    assert_int_equal(out[1], 5);
    assert_int_equal(out[2], 9);
    assert_int_equal(counts.near, 2);
    assert_int_equal(counts.known, 1);
    assert_int_equal(counts.barred, 1);
    /* 5% of a negative score is below it, too */
    const struct learn_candidate low[] = {
        {.cosine = -0.20}, {.cosine = -0.205}, {.cosine = -0.22}};
    assert_int_equal(learn_mine_choose(low, 3, -0.2, 8, out, &counts), 1);
    assert_int_equal(out[0], 2);
    assert_int_equal(learn_mine_choose(all, 7, 0.8, 0, out, &counts), 0);
    assert_int_equal(learn_mine_choose(all, 0, 0.8, 4, out, &counts), 0);
}

#define N_OTHERS 40

static struct batch_side
side(const char *text)
{
    struct batch_side s = {.input = {.text = text, .len = strlen(text)}};
    s.key = learn_key(&s.input);
    return s;
}

static uint32_t
ord_of(struct collection *c, const char *id)
{
    struct roster_entry entry;
    assert_true(roster_find(c->roster, id, &entry));
    return entry.ord;
}

static bool
has_negative(const struct batch_example *e, const char *text)
{
    for (size_t i = 0; i < e->n_negatives; i++) {
        if (e->negatives[i].key == side(text).key)
            return true;
    }
    return false;
}

static const char positive[] = "boats with red sails on the sea";
static const char other_positive[] = "a red boat on the sea";
static const char judged[] = "red boats on the sea and a lake";
static const char same[] = "red boats on the sea";
static const char wrong[] = "red boats";
static const char late[] = "red boats on the river";

/* Three examples, two of one anchor. */
static void
fill_data(struct learn_data *data, struct collection *c)
{
    *data = (struct learn_data){
        .form = {.reads = ENCODER_READS_TEXT}, .n_examples = 3};
    arena_init(&data->arena, 1 << 24);
    data->examples = arena_calloc(&data->arena, 3, sizeof *data->examples);
    data->ords = arena_calloc(&data->arena, 3, sizeof *data->ords);
    data->barred = arena_calloc(&data->arena, 1, sizeof *data->barred);
    data->barred[0] = side(judged).key;
    data->n_barred = 1;
    data->examples[0] = (struct batch_example){
        .anchor = side(same), .positive = side(positive), .weight = 1};
    data->ords[0] = (struct learn_ords){ANN_NONE, ord_of(c, "positive")};
    data->examples[1] = (struct batch_example){
        .anchor = side(same), .positive = side(other_positive), .weight = 1};
    data->ords[1] = (struct learn_ords){ANN_NONE, ord_of(c, "other")};
    data->examples[2] = (struct batch_example){.anchor = side("thing 7"),
        .positive = side("thing 7 of number 7 kind"),
        .weight = 1};
    data->ords[2] = (struct learn_ords){ANN_NONE, ord_of(c, "o7")};
}

static void
over_a_collection(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct collection *c;
    struct learn_options options = {.train = {.hard_negatives = 2}};
    struct learn_mined first = {0}, again = {0};
    char id[16], text[64];

    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    engine_kit_put(&kit, "docs", "positive", positive, NULL);
    engine_kit_put(&kit, "docs", "other", other_positive, NULL);
    engine_kit_put(&kit, "docs", "judged", judged, NULL);
    engine_kit_put(&kit, "docs", "same", same, NULL);
    for (int i = 0; i < N_OTHERS; i++) {
        snprintf(id, sizeof id, "o%d", i);
        snprintf(text, sizeof text, "thing %d of number %d kind", i, i);
        engine_kit_put(&kit, "docs", id, text, NULL);
    }
    engine_kit_put(&kit, "docs", "wrong", wrong, NULL);
    assert_int_equal(collection_find(kit.engine, "docs", &c, NULL), OK);
    struct roster_entry last;
    assert_true(roster_find(c->roster, "wrong", &last));
    engine_kit_put(&kit, "docs", "late", late, NULL);
    struct snapshot *live = collection_live(c);
    struct learn_data data, twice;
    fill_data(&data, c);
    fill_data(&twice, c);
    assert_int_equal(
        learn_mine(&first, &data, c, live, &options, last.item, NULL), OK);
    assert_int_equal(
        learn_mine(&again, &twice, c, live, &options, last.item, NULL), OK);
    assert_int_equal(first.n_pairs, 3);
    assert_true(first.n_negatives > 3);
    for (size_t i = 0; i < 3; i++) {
        const struct batch_example *e = &data.examples[i];
        assert_in_range(e->n_negatives, 1, 2);
        for (size_t k = 0; k < e->n_negatives; k++)
            assert_int_equal(
                e->negatives[k].key, twice.examples[i].negatives[k].key);
        assert_false(has_negative(e, judged));
        assert_false(has_negative(e, same));
        assert_false(has_negative(e, late));
        assert_false(has_negative(e, positive));
        assert_false(has_negative(e, other_positive));
    }
    assert_true(first.refused.known >= 2);
    assert_true(first.refused.barred >= 1);
    assert_memory_equal(&first.refused, &again.refused, sizeof first.refused);
    assert_true(
        has_negative(&data.examples[2], "thing 7 of number 7 kind") == false);
    learn_data_release(&data);
    learn_data_release(&twice);
    snapshot_unref(live);
    collection_unref(c);
    engine_kit_close(&kit);
}

#define N_TOPICS 16

static int64_t
post(struct engine_kit *kit, int topic, const char *what, bool *trains)
{
    char anchor[80], id[16], group[16];
    struct engine_outcome o;
    snprintf(anchor, sizeof anchor, "alpha%d beta%d gamma%d delta%d", topic,
        topic, topic, topic);
    snprintf(id, sizeof id, "%s%d", what, topic);
    snprintf(group, sizeof group, "g%d", topic);
    const struct engine_pair p = {.anchor = {.text = engine_kit_text(anchor)},
        .positive = {.id = id},
        .weight = 1,
        .group = group};
    assert_int_equal(
        engine_pairs_add(kit->engine, "docs", &p, 1, &o, NULL), OK);
    *trains = strcmp(o.split, "train") == 0;
    return o.pair_id;
}

/* Each topic has a positive of an earlier round and one of this, which is
   nearer to the anchor: the earlier one would be the best of negatives. */
static void
earlier_pairs_are_known(void **state)
{
    struct engine_kit kit;
    struct collection *c;
    struct learn_options options = {.train = {.hard_negatives = 4}};
    struct learn_resume resume = {.known = true, .pretext = LEARN_PAIRS};
    struct learn_mined mined = {0};
    struct learn_data data;
    struct fault fault = {.err = OK};
    char id[16], text[80];
    size_t n_train = 0, n_near = 0;
    bool trains;

    (void)state;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    for (int i = 0; i < N_TOPICS; i++) {
        snprintf(id, sizeof id, "old%d", i);
        snprintf(text, sizeof text, "alpha%d beta%d zeta%d eta%d", i, i, i, i);
        engine_kit_put(&kit, "docs", id, text, NULL);
        snprintf(id, sizeof id, "far%d", i);
        snprintf(text, sizeof text, "alpha%d iota%d kappa%d", i, i, i);
        engine_kit_put(&kit, "docs", id, text, NULL);
        snprintf(id, sizeof id, "new%d", i);
        snprintf(text, sizeof text, "alpha%d beta%d gamma%d delta%d epsilon%d",
            i, i, i, i, i);
        engine_kit_put(&kit, "docs", id, text, NULL);
    }
    for (int i = 0; i < N_TOPICS; i++)
        resume.pairs_seen = post(&kit, i, "old", &trains);
    for (int i = 0; i < N_TOPICS; i++) {
        resume.pairs_upto = post(&kit, i, "new", &trains);
        n_train += trains;
    }
    resume.items_upto = INT64_MAX;
    assert_int_equal(collection_find(kit.engine, "docs", &c, NULL), OK);
    struct snapshot *live = collection_live(c);
    const struct learn_form form = {.reads = ENCODER_READS_TEXT};
    assert_int_equal(
        learn_collect(&data, kit.engine, c, &form, &options, &resume, &fault),
        OK);
    assert_true(n_train > 4);
    assert_int_equal(data.n_examples, n_train);
    assert_int_equal(
        learn_mine(&mined, &data, c, live, &options, INT64_MAX, NULL), OK);
    for (size_t i = 0; i < n_train; i++) {
        const struct batch_example *e = &data.examples[i];
        int topic = 0;
        assert_int_equal(sscanf(e->anchor.input.text, "alpha%d", &topic), 1);
        snprintf(text, sizeof text, "alpha%d beta%d zeta%d eta%d", topic, topic,
            topic, topic);
        assert_false(has_negative(e, text));
        snprintf(
            text, sizeof text, "alpha%d iota%d kappa%d", topic, topic, topic);
        n_near += has_negative(e, text);
    }
    assert_true(n_near > 0);
    assert_true(mined.refused.known >= n_train);
    learn_data_release(&data);
    snapshot_unref(live);
    collection_unref(c);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_choice),
        cmocka_unit_test(over_a_collection),
        cmocka_unit_test(earlier_pairs_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
