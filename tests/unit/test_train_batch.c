/*
 * Goal: batches are full and hold distinct examples, every example comes once
 * an epoch, groups come side by side, and masks are the pairs that
 * batch.h calls no negatives.
 *
 * Method: random sets of examples with few texts, so that they collide in
 * every way; the masks against the header's definition, by breadth-first
 * search and by comparing all with all.
 */
#include <limits.h>
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
#include "base/check.h"
#include "base/hash.h"
#include "base/rng.h"
#include "train/batch.h"

#define N_MAX 600

static struct batch_example examples[N_MAX];

/* Keys as a caller has them: hashes; equal numbers are equal texts. */
static struct batch_side
text(uint64_t number)
{
    return (struct batch_side){
        .input = {.text = "t", .len = 1}, .key = hash_u64(number + 1000)};
}

static void
fill_distinct(size_t n, size_t group_size)
{
    for (size_t i = 0; i < n; i++)
        examples[i] = (struct batch_example){.anchor = text(2 * i),
            .positive = text(2 * i + 1),
            .weight = 1,
            .group = group_size == 0 ? 0 : hash_u64(i / group_size + 7)};
}

static void
fill_colliding(struct rng *rng, size_t n, size_t n_texts)
{
    for (size_t i = 0; i < n; i++)
        examples[i] =
            (struct batch_example){.anchor = text(rng_below(rng, n_texts)),
                .positive = text(rng_below(rng, n_texts)),
                .weight = 1,
                .group = rng_below(rng, 3)};
}

static struct batch_plan *
plan_of(size_t n, size_t size, float share, uint64_t seed)
{
    struct batch_plan *plan = NULL;
    assert_int_equal(batch_plan_new(&plan, examples, n, size, share, seed), OK);
    return plan;
}

static size_t
next(struct batch_plan *plan, uint32_t *copy)
{
    const uint32_t *index;
    size_t n;
    assert_int_equal(batch_plan_next(plan, &index, &n), OK);
    memcpy(copy, index, n * sizeof *index);
    return n;
}

static void
check_distinct(const uint32_t *index, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct batch_example *a = &examples[index[i]];
            const struct batch_example *b = &examples[index[j]];
            assert_true(a->anchor.key != b->anchor.key);
            assert_true(a->positive.key != b->positive.key);
        }
    }
}

static void
test_every_example_once(void **state)
{
    static const struct {
        size_t n, size;
    } sizes[] = {{100, 10}, {100, 7}, {64, 64}, {65, 32}, {2, 2}, {500, 128}};
    uint32_t index[N_MAX];

    (void)state;
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        size_t n = sizes[s].n, total = 0;
        unsigned times[N_MAX] = {0};
        fill_distinct(n, 5);
        struct batch_plan *plan = plan_of(n, sizes[s].size, 0.5f, s);
        while (total < 5 * n) {
            unsigned least = UINT_MAX, most = 0;
            size_t got = next(plan, index);
            assert_int_equal(got, sizes[s].size); /* batches stay full */
            check_distinct(index, got);
            for (size_t i = 0; i < got; i++) {
                assert_true(index[i] < n);
                times[index[i]]++;
            }
            total += got;
            for (size_t i = 0; i < n; i++) {
                least = MIN(least, times[i]);
                most = MAX(most, times[i]);
            }
            /* the epochs follow each other; a batch may lie across */
            assert_true(most - least <= (n % sizes[s].size == 0 ? 1U : 2U));
            assert_true(least + 1 >= total / n);
            if (n % sizes[s].size == 0 && total % n == 0)
                assert_true(least == most);
        }
        batch_plan_free(plan);
    }
}

/* Examples that collide are put off to a later batch of the same epoch. */
static void
test_put_off(void **state)
{
    uint32_t index[N_MAX];
    unsigned char seen[N_MAX] = {0};
    size_t n = 120, total = 0;

    (void)state;
    fill_distinct(n, 0);
    for (size_t i = 0; i < n; i++) /* each anchor six times */
        examples[i].anchor = text(10000 + i / 6);
    struct batch_plan *plan = plan_of(n, 12, 0, 3);
    while (total < n) {
        size_t got = next(plan, index);
        if (got == 0)
            break;
        check_distinct(index, got);
        for (size_t i = 0; i < got; i++) {
            if (seen[index[i]])
                goto out; /* the next epoch */
            seen[index[i]] = 1;
            total++;
        }
    }
out:
    /* at the end what is left may be copies of one anchor only */
    assert_true(total >= n - 5);
    batch_plan_free(plan);
}

static void
test_collisions(void **state)
{
    uint32_t index[N_MAX];
    struct rng rng;

    (void)state;
    for (uint64_t round = 0; round < 40; round++) {
        rng_seed(&rng, round);
        size_t n = 2 + (size_t)rng_below(&rng, 100);
        size_t size = 2 + (size_t)rng_below(&rng, n - 1);
        fill_colliding(&rng, n, 2 + (size_t)rng_below(&rng, 80));
        struct batch_plan *plan = plan_of(n, size, 0.5f, round);
        for (int b = 0; b < 60; b++) {
            size_t got = next(plan, index);
            if (got == 0)
                break;
            assert_true(got >= 2 && got <= size);
            check_distinct(index, got);
        }
        batch_plan_free(plan);
    }
}

static void
test_nothing_distinct(void **state)
{
    uint32_t index[N_MAX];

    (void)state;
    fill_distinct(20, 0);
    for (size_t i = 0; i < 20; i++)
        examples[i].positive = text(1);
    struct batch_plan *plan = plan_of(20, 4, 0.5f, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(next(plan, index), 0);
    batch_plan_free(plan);
    batch_plan_free(NULL);
}

/* Neighbours of one group, against the share that stays. */
static double
neighbours(float share)
{
    uint32_t index[N_MAX];
    size_t n = 500, same = 0, all = 0;

    fill_distinct(n, 10);
    struct batch_plan *plan = plan_of(n, 50, share, 5);
    for (int b = 0; b < 10; b++) {
        size_t got = next(plan, index);
        for (size_t i = 1; i < got; i++) {
            same += examples[index[i]].group == examples[index[i - 1]].group;
            all++;
        }
    }
    batch_plan_free(plan);
    return (double)same / (double)all;
}

static void
test_groups_side_by_side(void **state)
{
    (void)state;
    assert_true(neighbours(1) > 0.85);
    assert_true(neighbours(0) < 0.1);
    double half = neighbours(0.5f);
    assert_true(half > 0.15 && half < 0.6);
}

static void
test_seed_decides(void **state)
{
    uint32_t a[N_MAX], b[N_MAX];
    bool differs = false;

    (void)state;
    fill_distinct(300, 4);
    struct batch_plan *one = plan_of(300, 32, 0.5f, 9);
    struct batch_plan *two = plan_of(300, 32, 0.5f, 9);
    struct batch_plan *other = plan_of(300, 32, 0.5f, 10);
    for (int i = 0; i < 30; i++) {
        size_t n = next(one, a);
        assert_int_equal(next(two, b), n);
        assert_memory_equal(a, b, n * sizeof *a);
        differs =
            differs || next(other, b) != n || memcmp(a, b, n * sizeof *a) != 0;
    }
    assert_true(differs);
    batch_plan_free(one);
    batch_plan_free(two);
    batch_plan_free(other);
}

/* ---------------------------------------------------------------- masks */

/* Which texts are connected with a text by pairs: out[t] for each of the
   distinct keys; returns how many. */
static size_t
connected(const uint64_t *keys, size_t n_keys, size_t n, uint64_t from,
    unsigned char *out)
{
    size_t count = 0;
    bool more = true;

    for (size_t t = 0; t < n_keys; t++)
        out[t] = keys[t] == from;
    while (more) {
        more = false;
        for (size_t i = 0; i < n; i++) {
            size_t a = 0, b = 0;
            while (keys[a] != examples[i].anchor.key)
                a++;
            while (keys[b] != examples[i].positive.key)
                b++;
            more = more || out[a] != out[b];
            out[a] = out[b] = out[a] | out[b];
        }
    }
    for (size_t t = 0; t < n_keys; t++)
        count += out[t];
    return count;
}

static bool
no_negative(const uint64_t *keys, size_t n_keys, size_t n, uint64_t anchor,
    uint64_t key)
{
    static unsigned char component[2 * N_MAX];
    size_t size = connected(keys, n_keys, n, anchor, component);
    if (key == anchor)
        return true;
    if (size <= MAX(n_keys / 20, (size_t)2)) {
        for (size_t t = 0; t < n_keys; t++) {
            if (keys[t] == key)
                return component[t];
        }
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (examples[i].anchor.key == anchor && examples[i].positive.key == key)
            return true;
    }
    return false;
}

static size_t
distinct_keys(size_t n, uint64_t *keys)
{
    size_t n_keys = 0;
    for (size_t i = 0; i < 2 * n; i++) {
        uint64_t key =
            i < n ? examples[i].anchor.key : examples[i - n].positive.key;
        size_t t = 0;
        while (t < n_keys && keys[t] != key)
            t++;
        if (t == n_keys)
            keys[n_keys++] = key;
    }
    return n_keys;
}

static void
check_masks(struct rng *rng, size_t n, size_t n_texts, size_t *n_listed)
{
    static uint64_t texts[2 * N_MAX];
    uint32_t index[N_MAX];
    uint64_t keys[2 * N_MAX];
    static unsigned char listed[N_MAX][2 * N_MAX];
    const struct infonce_mask *masks = NULL;
    size_t n_masks = 0;
    size_t n_distinct = distinct_keys(n, texts);
    struct batch_plan *plan = plan_of(n, MIN(n, (size_t)16), 0.5f, 1);

    for (int b = 0; b < 4; b++) {
        size_t B = next(plan, index), M = B;
        for (size_t i = 0; i < B; i++)
            keys[i] = examples[index[i]].positive.key;
        for (; B > 0 && M < B + 12; M++) /* given negatives, some unknown */
            keys[M] = text(rng_below(rng, 2 * n_texts)).key;
        assert_int_equal(
            batch_masks(plan, index, B, keys, M, &masks, &n_masks), OK);
        memset(listed, 0, sizeof listed);
        for (size_t m = 0; m < n_masks; m++) {
            assert_true(masks[m].row < B && masks[m].col < M);
            assert_true(masks[m].row != masks[m].col);
            assert_true(m == 0 || masks[m].row >= masks[m - 1].row);
            assert_false(listed[masks[m].row][masks[m].col]);
            listed[masks[m].row][masks[m].col] = 1;
        }
        for (size_t i = 0; i < B; i++) {
            uint64_t anchor = examples[index[i]].anchor.key;
            for (size_t j = 0; j < M; j++) {
                bool want = i != j &&
                            no_negative(texts, n_distinct, n, anchor, keys[j]);
                assert_int_equal(listed[i][j], want);
            }
        }
        *n_listed += n_masks;
    }
    batch_plan_free(plan);
}

static void
test_masks(void **state)
{
    struct rng rng;
    size_t n_listed = 0;

    (void)state;
    for (uint64_t round = 0; round < 60; round++) {
        rng_seed(&rng, round);
        size_t n = 2 + (size_t)rng_below(&rng, 60);
        size_t n_texts = 2 + (size_t)rng_below(&rng, 6 * n);
        fill_colliding(&rng, n, n_texts);
        check_masks(&rng, n, n_texts, &n_listed);
    }
    assert_true(n_listed > 500);
}

static bool
either_way(
    const uint64_t *keys, size_t n_keys, size_t n, uint64_t a, uint64_t b)
{
    return no_negative(keys, n_keys, n, a, b) ||
           no_negative(keys, n_keys, n, b, a);
}

/* With positives as rows, a known pair counts from its other side. */
static void
check_masks_back(size_t n)
{
    static uint64_t texts[2 * N_MAX];
    static unsigned char listed[N_MAX][N_MAX];
    uint32_t index[N_MAX];
    uint64_t keys[N_MAX];
    const struct infonce_mask *masks = NULL;
    size_t n_masks = 0, n_distinct = distinct_keys(n, texts);
    struct batch_plan *plan = plan_of(n, MIN(n, (size_t)16), 0.5f, 1);
    size_t B = next(plan, index);

    for (size_t i = 0; i < B; i++)
        keys[i] = examples[index[i]].anchor.key;
    assert_int_equal(
        batch_masks_back(plan, index, B, keys, B, &masks, &n_masks), OK);
    memset(listed, 0, sizeof listed);
    for (size_t m = 0; m < n_masks; m++) {
        assert_true(masks[m].row != masks[m].col);
        assert_true(m == 0 || masks[m].row >= masks[m - 1].row);
        assert_false(listed[masks[m].row][masks[m].col]);
        listed[masks[m].row][masks[m].col] = 1;
    }
    for (size_t i = 0; i < B; i++) {
        for (size_t j = 0; j < B; j++) {
            bool want = i != j && no_negative(texts, n_distinct, n, keys[j],
                                      examples[index[i]].positive.key);
            /* one text on both sides is the row's own */
            want =
                want || (i != j && keys[j] == examples[index[i]].positive.key);
            assert_int_equal(listed[i][j], want);
        }
    }
    batch_plan_free(plan);
}

/* Between views all texts are rows and columns. */
static void
check_masks_views(struct rng *rng, size_t n, size_t n_texts, size_t *n_listed)
{
    static uint64_t texts[2 * N_MAX];
    static unsigned char listed[N_MAX][N_MAX];
    uint32_t index[N_MAX];
    uint64_t keys[N_MAX];
    const struct infonce_mask *masks = NULL;
    size_t n_masks = 0, n_distinct = distinct_keys(n, texts);
    struct batch_plan *plan = plan_of(n, MIN(n, (size_t)16), 0.5f, 1);
    size_t B = next(plan, index), M = 2 * B;

    for (size_t i = 0; i < B; i++) {
        keys[i] = examples[index[i]].anchor.key;
        keys[B + i] = examples[index[i]].positive.key;
    }
    for (; B > 0 && M < 2 * B + 9; M++)
        keys[M] = text(rng_below(rng, 2 * n_texts)).key;
    assert_int_equal(batch_masks_views(plan, B, keys, M, &masks, &n_masks), OK);
    memset(listed, 0, sizeof listed);
    for (size_t m = 0; m < n_masks; m++) {
        assert_true(m == 0 || masks[m].row >= masks[m - 1].row);
        assert_false(listed[masks[m].row][masks[m].col]);
        listed[masks[m].row][masks[m].col] = 1;
    }
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j < M; j++) {
            bool own = i == j || (i < 2 * B && j < 2 * B && i % B == j % B);
            bool want =
                !own && either_way(texts, n_distinct, n, keys[i], keys[j]);
            assert_int_equal(listed[i][j], want);
            assert_int_equal(listed[i][j], listed[j][i]);
        }
    }
    *n_listed += n_masks;
    batch_plan_free(plan);
}

static void
test_masks_of_both_sides(void **state)
{
    struct rng rng;
    size_t n_listed = 0;

    (void)state;
    for (uint64_t round = 0; round < 60; round++) {
        rng_seed(&rng, 1000 + round);
        size_t n = 2 + (size_t)rng_below(&rng, 60);
        size_t n_texts = 2 + (size_t)rng_below(&rng, 6 * n);
        fill_colliding(&rng, n, n_texts);
        check_masks_back(n);
        check_masks_views(&rng, n, n_texts, &n_listed);
    }
    assert_true(n_listed > 500);
}

/* Chains of pairs inside a large set: small components mask as a whole. */
static void
test_masks_of_classes(void **state)
{
    struct rng rng;
    size_t n_listed = 0, n = 200;

    (void)state;
    rng_seed(&rng, 2);
    fill_distinct(n, 0);
    for (size_t i = 0; i < n; i++) {
        /* classes of five texts: 0-1, 1-2, 2-3, 3-4 */
        examples[i].anchor = text(i / 4 * 5 + i % 4);
        examples[i].positive = text(i / 4 * 5 + i % 4 + 1);
    }
    check_masks(&rng, n, 250, &n_listed);
    assert_true(n_listed > 10);
}

static void
test_memory_runs_out(void **state)
{
    (void)state;
    fill_distinct(100, 5);
    for (size_t i = 0; i < 50; i++)
        examples[i].positive = examples[99 - i].anchor;
    for (uint64_t n = 1;; n++) {
        struct batch_plan *plan = NULL;
        const uint32_t *index = NULL;
        const struct infonce_mask *masks;
        uint64_t keys[N_MAX];
        size_t B = 0, n_masks = 0;
        alloc_fail_at(n);
        enum err err = batch_plan_new(&plan, examples, 100, 40, 0.5f, 1);
        if (err == OK)
            err = batch_plan_next(plan, &index, &B);
        for (size_t i = 0; i < B; i++)
            keys[i] = examples[index[i]].positive.key;
        if (err == OK)
            err = batch_masks(plan, index, B, keys, B, &masks, &n_masks);
        if (err == OK)
            err = batch_masks_back(plan, index, B, keys, B, &masks, &n_masks);
        if (err == OK)
            err = batch_masks_views(plan, B / 2, keys, B, &masks, &n_masks);
        uint64_t seen = alloc_fail_at(0);
        batch_plan_free(plan);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        if (seen < n)
            break;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_example_once),
        cmocka_unit_test(test_put_off),
        cmocka_unit_test(test_collisions),
        cmocka_unit_test(test_nothing_distinct),
        cmocka_unit_test(test_groups_side_by_side),
        cmocka_unit_test(test_seed_decides),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_masks_of_both_sides),
        cmocka_unit_test(test_masks_of_classes),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
