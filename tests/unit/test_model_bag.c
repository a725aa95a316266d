/*
 * Goal: a bag holds for each text its words with counts and positions, and
 * for each distinct word its features once; merging equals adding.
 *
 * Method: a text counted by hand; random texts added one by one against bags
 * of parts that are merged; the limit of words; dropout; and every allocation
 * failed once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/rng.h"
#include "model/bag.h"
#include "text/hashed.h"

static const struct bag_options plain = {
    .n_min = 3, .n_max = 5, .max_words = 1000};

static void
add(struct bag *bag, const char *text, const struct bag_options *options)
{
    assert_int_equal(bag_add(bag, text, strlen(text), options), OK);
}

static void
check_entry(const struct bag *bag, size_t i, const char *word, uint32_t count,
    uint32_t position)
{
    const struct bag_entry *entry = &bag->entries[i];
    assert_true(bag->word_hash[entry->word] == hashed_word(word, strlen(word)));
    assert_int_equal(entry->count, count);
    assert_int_equal(entry->position, position);
}

static void
test_by_hand(void **state)
{
    struct bag bag;
    uint64_t features[HASHED_FEATURES_MAX];

    (void)state;
    bag_init(&bag);
    add(&bag, "the fox sees The Fox; the end", &plain);
    add(&bag, "", &plain);
    add(&bag, "end fox", &plain);
    assert_int_equal(bag.n_texts, 3);
    assert_int_equal(bag.n_words, 4);
    assert_int_equal(bag.n_entries, 6);
    assert_int_equal(bag.text_start[0], 0);
    assert_int_equal(bag.text_start[1], 4);
    assert_int_equal(bag.text_start[2], 4);
    assert_int_equal(bag.text_start[3], 6);
    check_entry(&bag, 0, "the", 3, 0);
    check_entry(&bag, 1, "fox", 2, 1);
    check_entry(&bag, 2, "sees", 1, 2);
    check_entry(&bag, 3, "end", 1, 6);
    check_entry(&bag, 4, "end", 1, 0);
    check_entry(&bag, 5, "fox", 1, 1);
    assert_int_equal(bag.text_words[0], 7);
    assert_int_equal(bag.text_words[1], 0);
    assert_int_equal(bag.text_words[2], 2);
    size_t n = hashed_features(features, "sees", 4, 3, 5);
    assert_int_equal(bag.feature_start[3] - bag.feature_start[2], n);
    assert_memory_equal(
        bag.features + bag.feature_start[2], features, n * sizeof *features);
    assert_int_equal(bag.feature_start[0], 0);
    assert_int_equal(bag.feature_start[4], bag.n_features);
    bag_release(&bag);
    bag_release(&bag); /* twice is fine */
}

/* A word of a script without spaces has itself as its only feature. */
static void
test_spaceless(void **state)
{
    struct bag bag;

    (void)state;
    bag_init(&bag);
    add(&bag, "\xE5\x8C\x97\xE4\xBA\xAC", &plain);
    assert_int_equal(bag.n_words, 3);
    assert_int_equal(bag.n_features, 3);
    bag_release(&bag);
}

static void
test_max_words(void **state)
{
    const struct bag_options three = {.n_min = 3, .n_max = 5, .max_words = 3};
    struct bag bag;

    (void)state;
    bag_init(&bag);
    add(&bag, "a b a c a b d", &three);
    assert_int_equal(bag.n_entries, 2);
    check_entry(&bag, 0, "a", 2, 0);
    check_entry(&bag, 1, "b", 1, 1);
    assert_int_equal(bag.text_words[0], 3);
    assert_int_equal(bag.text_words_full[0], 7);
    add(&bag, "x y z", &three);
    assert_int_equal(bag.text_words[1], 3);
    assert_int_equal(bag.text_words_full[1], 3);
    bag_release(&bag);
}

static void
random_text(struct rng *rng, char *text, size_t n_vocabulary)
{
    size_t n = (size_t)rng_below(rng, 30);
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += (size_t)sprintf(text + len, "w%llu ",
            (unsigned long long)rng_below(rng, n_vocabulary));
    text[len] = '\0';
}

static void
check_same(const struct bag *a, const struct bag *b)
{
    assert_int_equal(a->n_texts, b->n_texts);
    assert_int_equal(a->n_words, b->n_words);
    assert_int_equal(a->n_entries, b->n_entries);
    assert_int_equal(a->n_features, b->n_features);
    assert_memory_equal(
        a->text_start, b->text_start, (a->n_texts + 1) * sizeof *a->text_start);
    assert_memory_equal(
        a->text_words, b->text_words, a->n_texts * sizeof *a->text_words);
    assert_memory_equal(a->text_words_full, b->text_words_full,
        a->n_texts * sizeof *a->text_words_full);
    assert_memory_equal(
        a->entries, b->entries, a->n_entries * sizeof *a->entries);
    assert_memory_equal(
        a->word_hash, b->word_hash, a->n_words * sizeof *a->word_hash);
    assert_memory_equal(a->feature_start, b->feature_start,
        (a->n_words + 1) * sizeof *a->feature_start);
    assert_memory_equal(
        a->features, b->features, a->n_features * sizeof *a->features);
}

static void
test_merge_equals_add(void **state)
{
    struct rng rng;
    struct bag all, merged, part;
    char text[400];

    (void)state;
    bag_init(&all);
    bag_init(&merged);
    bag_init(&part);
    for (uint64_t round = 0; round < 60; round++) {
        rng_seed(&rng, round);
        bag_clear(&all);
        bag_clear(&merged);
        size_t n_parts = 1 + (size_t)rng_below(&rng, 5);
        for (size_t p = 0; p < n_parts; p++) {
            bag_clear(&part);
            for (size_t n = (size_t)rng_below(&rng, 40); n > 0; n--) {
                random_text(&rng, text, 10 + 100 * round);
                add(&all, text, &plain);
                add(&part, text, &plain);
            }
            assert_int_equal(bag_merge(&merged, &part), OK);
        }
        if (all.n_texts > 0 && all.n_words > 0)
            check_same(&all, &merged);
        /* adding after a merge finds the merged words */
        size_t n_words = merged.n_words;
        random_text(&rng, text, 10 + 100 * round);
        add(&all, text, &plain);
        add(&merged, text, &plain);
        assert_true(merged.n_words >= n_words);
        if (all.n_words > 0)
            check_same(&all, &merged);
    }
    bag_release(&all);
    bag_release(&merged);
    bag_release(&part);
}

/* Dropped words keep their place; about the share that was asked for. */
static void
test_token_dropout(void **state)
{
    struct rng rng;
    struct bag_options options = plain;
    struct bag bag;
    char text[4000];
    size_t len = 0;

    (void)state;
    for (int i = 0; i < 500; i++)
        len += (size_t)sprintf(text + len, "w%d ", i);
    rng_seed(&rng, 1);
    options.rng = &rng;
    options.token_dropout = 0.3f;
    bag_init(&bag);
    add(&bag, text, &options);
    assert_true(bag.n_entries > 300 && bag.n_entries < 400);
    assert_int_equal(bag.text_words_full[0], 500);
    for (size_t i = 0; i < bag.n_entries; i++) {
        char word[16];
        int n = snprintf(word, sizeof word, "w%u", bag.entries[i].position);
        assert_true(
            bag.word_hash[bag.entries[i].word] == hashed_word(word, (size_t)n));
    }
    bag_release(&bag);
}

static void
test_memory_runs_out(void **state)
{
    struct rng rng;
    char texts[20][400];

    (void)state;
    rng_seed(&rng, 4);
    for (size_t i = 0; i < 20; i++)
        random_text(&rng, texts[i], 1000);
    for (uint64_t n = 1;; n++) {
        struct bag bag, merged;
        enum err err = OK;
        bag_init(&bag);
        bag_init(&merged);
        alloc_fail_at(n);
        for (size_t i = 0; i < 20 && err == OK; i++)
            err = bag_add(&bag, texts[i], strlen(texts[i]), &plain);
        if (err == OK)
            err = bag_merge(&merged, &bag);
        uint64_t seen = alloc_fail_at(0);
        bool failed = seen >= n;
        assert_int_equal(err, failed ? ERR_NOMEM : OK);
        /* fit for clear, and as good as new after it */
        bag_clear(&bag);
        add(&bag, texts[0], &plain);
        assert_int_equal(bag.n_texts, 1);
        bag_release(&bag);
        bag_release(&merged);
        if (!failed)
            break;
        assert_true(n < 1000);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_spaceless),
        cmocka_unit_test(test_max_words),
        cmocka_unit_test(test_merge_equals_add),
        cmocka_unit_test(test_token_dropout),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
