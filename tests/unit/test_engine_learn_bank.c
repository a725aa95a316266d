/*
 * Goal: the memory bank holds what is stored of the items that neither tune
 * nor judge, and no example's own content under another key.
 * Method: a small collection with a train pair, an item that holds the same
 * as its positive, a judged pair, and an item that came later.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "engine/internal.h"
#include "engine/learn_bank.h"
#include "tests/support/engine_kit.h"

#define N_OTHERS 12

static uint32_t
ord_of(struct collection *c, const char *id)
{
    struct roster_entry entry;
    assert_true(roster_find(c->roster, id, &entry));
    return entry.ord;
}

static struct batch_side
side(const char *text)
{
    struct batch_side s = {.input = {.text = text, .len = strlen(text)}};
    s.key = learn_key(&s.input);
    return s;
}

static void
fill_data(struct learn_data *data, struct collection *c)
{
    *data = (struct learn_data){
        .form = {.reads = ENCODER_READS_TEXT}, .n_examples = 1};
    arena_init(&data->arena, 1 << 20);
    data->examples = arena_calloc(&data->arena, 1, sizeof *data->examples);
    data->ords = arena_calloc(&data->arena, 1, sizeof *data->ords);
    data->examples[0] = (struct batch_example){.anchor = side("a question"),
        .positive = side("boats on the sea"),
        .weight = 1};
    data->ords[0] = (struct learn_ords){ANN_NONE, ord_of(c, "positive")};
    assert_int_equal(learn_questions_alloc(data, &data->judge, 1), OK);
    uint32_t *relevant = arena_alloc(&data->arena, 1, sizeof *relevant);
    assert_non_null(relevant);
    *relevant = ord_of(c, "judged");
    data->judge.questions[0] = (struct judge_question){
        .relevant = relevant, .n_relevant = 1, .skip = ord_of(c, "asks")};
    data->judge.n = 1;
}

/* Rows whose vector is that of an item; *key is the last one's. */
static size_t
rows_of(const struct learn_bank *bank, struct snapshot *live, uint32_t ord,
    uint64_t *key)
{
    size_t D = ann_dims(live->index->ann), n = 0;
    float *v = mem_alloc(D, sizeof *v);
    assert_non_null(v);
    assert_int_equal(ann_get(live->index->ann, ord, v), OK);
    for (size_t i = 0; i < bank->train.n; i++) {
        if (memcmp(v, bank->train.vectors + i * D, D * sizeof *v) == 0) {
            *key = bank->train.keys[i];
            n++;
        }
    }
    mem_free(v);
    return n;
}

static void
who_is_in_the_bank(void **state)
{
    struct engine_kit kit;
    struct collection *c;
    struct roster_entry last;
    struct learn_data data;
    struct learn_bank bank;
    struct fault fault = {.err = OK};
    char id[16], text[64];
    uint64_t key = 0;

    (void)state;
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    engine_kit_put(&kit, "docs", "twin", "boats on the sea", NULL);
    engine_kit_put(&kit, "docs", "positive", "boats on the sea", NULL);
    engine_kit_put(&kit, "docs", "judged", "a house on a hill", NULL);
    engine_kit_put(&kit, "docs", "asks", "where is the house", NULL);
    for (int i = 0; i < N_OTHERS; i++) {
        snprintf(id, sizeof id, "o%d", i);
        snprintf(text, sizeof text, "thing %d of number %d", i, i);
        engine_kit_put(&kit, "docs", id, text, NULL);
    }
    assert_int_equal(collection_find(kit.engine, "docs", &c, NULL), OK);
    assert_true(roster_find(c->roster, "o11", &last));
    engine_kit_put(&kit, "docs", "late", "this came later", NULL);
    struct snapshot *live = collection_live(c);
    fill_data(&data, c);
    assert_int_equal(
        learn_bank_load(&bank, &data, c, live, 1, last.item, &fault), OK);
    assert_int_equal(bank.train.n, 2 + N_OTHERS);
    assert_int_equal(rows_of(&bank, live, ord_of(c, "judged"), &key), 0);
    assert_int_equal(rows_of(&bank, live, ord_of(c, "asks"), &key), 0);
    assert_int_equal(rows_of(&bank, live, ord_of(c, "late"), &key), 0);
    assert_int_equal(rows_of(&bank, live, ord_of(c, "positive"), &key), 2);
    size_t n_of_side = 0;
    for (size_t i = 0; i < bank.train.n; i++) {
        bool own = bank.train.keys[i] == data.examples[0].positive.key;
        n_of_side += own;
        for (size_t j = 0; j < i && !own; j++)
            assert_true(bank.train.keys[i] != bank.train.keys[j]);
    }
    assert_int_equal(n_of_side, 2);
    learn_bank_release(&bank);
    learn_data_release(&data);
    snapshot_unref(live);
    collection_unref(c);
    engine_kit_close(&kit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_in_the_bank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
