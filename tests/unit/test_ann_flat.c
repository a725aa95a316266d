/*
 * Goal: the exact index keeps what its header promises in the cases that have
 * a name: empty, one row, zero vectors, duplicates and their order, k beyond
 * the rows, replacing, removing, filters narrow and wide, skip, min_cosine,
 * the sum of exponentials at hot and cold temperatures, no memory, and
 * queries that come at once.
 *
 * Method: small collections with known answers, and (where codes must be
 * scanned rather than every row compared) 3,000 rows against a brute force in
 * double. The n-th allocation of a put and of a search fails, for every n.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ann/ann.h"
#include "ann/code.h"
#include "base/alloc.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"

#define DIMS 72
#define ROWS 3000
#define PUT_MANY 60

static float rows[ROWS][DIMS];

static double
exact_dot(const float *a, const float *b)
{
    double s = 0.0;

    for (size_t i = 0; i < DIMS; i++)
        s += (double)a[i] * (double)b[i];
    return s;
}

static void
make_unit(float *x, struct rng *rng)
{
    double norm;

    for (size_t i = 0; i < DIMS; i++)
        x[i] = (float)rng_normal(rng);
    norm = sqrt(exact_dot(x, x));
    for (size_t i = 0; i < DIMS; i++)
        x[i] = (float)((double)x[i] / norm);
}

/* An index of the first n of `rows`, ordinal = row. */
static struct ann *
index_of(size_t n)
{
    struct rng rng;
    struct ann *ann;

    rng_seed(&rng, 1);
    for (size_t r = 0; r < ROWS; r++)
        make_unit(rows[r], &rng);
    assert_int_equal(ann_new(&ann, DIMS, NULL), OK);
    for (size_t r = 0; r < n; r++)
        assert_int_equal(ann_put(ann, (uint32_t)r, rows[r]), OK);
    return ann;
}

static struct ann_query
query_for(const float *x, size_t k)
{
    return (struct ann_query){
        .vector = x, .k = k, .min_cosine = -2.0, .skip = ANN_NONE};
}

static void
an_empty_index_finds_nothing(void **state)
{
    struct ann *ann = index_of(0);
    struct ann_query query = query_for(rows[0], 3);
    struct ann_hit hits[3];
    struct ann_result result = {.hits = hits, .n_hits = 9};

    (void)state;
    query.temperature = 0.1;
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_int_equal(result.n_hits, 0);
    assert_true(result.exact);
    assert_true(isinf(result.log_sum_exp) && result.log_sum_exp < 0.0);
    assert_int_equal(ann_count(ann), 0);
    assert_int_equal(ann_dims(ann), DIMS);
    ann_remove(ann, 17);
    ann_free(ann);
    ann_free(NULL);
}

static void
put_get_replace_remove(void **state)
{
    struct ann *ann = index_of(600);
    struct ann_hit hit;
    struct ann_result result = {.hits = &hit};
    struct ann_query query;
    float out[DIMS];

    (void)state;
    assert_int_equal(ann_put(ann, 5, rows[2000]), OK);
    assert_int_equal(ann_count(ann), 600);
    assert_int_equal(ann_get(ann, 5, out), OK);
    assert_memory_equal(out, rows[2000], sizeof(out));
    query = query_for(rows[2000], 1);
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_int_equal(hit.ord, 5);
    /* the row that moves into the hole is found, the removed one is not */
    ann_remove(ann, 7);
    assert_int_equal(ann_get(ann, 7, out), ERR_NOT_FOUND);
    query = query_for(rows[599], 1);
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_int_equal(hit.ord, 599);
    query = query_for(rows[7], 1);
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_true(hit.ord != 7 && hit.cosine < 0.99);
    /* an ordinal far away is only another page of the map */
    assert_int_equal(ann_put(ann, 3000000000u, rows[7]), OK);
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_int_equal(hit.ord, 3000000000u);
    for (uint32_t o = 0; o < 600; o++)
        ann_remove(ann, o);
    assert_int_equal(ann_count(ann), 1);
    ann_free(ann);
}

/* Twins, and twins of twins, in every span. */
static void
equal_cosines_come_in_order(void **state)
{
    struct ann *ann = index_of(ROWS);
    enum { TWINS = 40 };
    struct ann_hit hits[TWINS];
    struct ann_result result = {.hits = hits};
    struct ann_query query = query_for(rows[100], TWINS / 2);

    (void)state;
    for (uint32_t i = 0; i < TWINS; i++)
        assert_int_equal(ann_put(ann, i * 70 + 3, rows[100]), OK);
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_int_equal(result.n_hits, TWINS / 2);
    /* 100 itself is there as well, and 40 * 70 + 3 rows before it are not */
    assert_int_equal(hits[0].ord, 3);
    assert_int_equal(hits[1].ord, 73);
    assert_int_equal(hits[2].ord, 100);
    for (uint32_t i = 3; i < TWINS / 2; i++)
        assert_int_equal(hits[i].ord, (i - 1) * 70 + 3);
    ann_free(ann);
}

static int
larger_first(void *arg, uint32_t a, uint32_t b)
{
    (*(size_t *)arg)++;
    return (a < b) - (a > b);
}

static void
the_callers_order_decides_ties(void **state)
{
    struct ann *ann = index_of(ROWS);
    struct ann_hit hits[4];
    struct ann_result result = {.hits = hits};
    struct ann_query query = query_for(rows[100], 4);
    size_t n_calls = 0;

    (void)state;
    for (uint32_t o = 200; o < 2900; o += 300)
        assert_int_equal(ann_put(ann, o, rows[100]), OK);
    query.tie = larger_first;
    query.tie_arg = &n_calls;
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_true(n_calls > 0);
    assert_int_equal(hits[0].ord, 2600);
    assert_int_equal(hits[1].ord, 2300);
    assert_int_equal(hits[3].ord, 1700);
    ann_free(ann);
}

static void
zero_vectors_have_cosine_zero(void **state)
{
    static const float zero[DIMS];
    struct ann *ann = index_of(ROWS);
    static struct ann_hit hits[ROWS + 7];
    struct ann_result result = {.hits = hits};
    struct ann_query query = query_for(zero, 2);

    (void)state;
    query.temperature = 0.05;
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_int_equal(result.n_hits, 2);
    assert_int_equal(hits[0].ord, 0);
    assert_int_equal(hits[1].ord, 1);
    assert_true(hits[0].cosine == 0.0);
    assert_true(fabs(result.log_sum_exp - log((double)ROWS)) <=
                result.log_sum_exp_error);
    assert_int_equal(ann_put(ann, 77, zero), OK);
    query = query_for(rows[1], ROWS + 7);
    assert_int_equal(ann_search(ann, &query, &result), OK);
    assert_int_equal(result.n_hits, ROWS);
    for (size_t i = 0; i < ROWS; i++)
        if (hits[i].ord == 77)
            assert_true(hits[i].cosine == 0.0);
    ann_free(ann);
}

/* What brute force says about a query. */
struct truth {
    double best;
    double lse;
    size_t n;
};

static struct truth
brute(const float *x, double t, const struct ann_filter *filter, uint32_t skip,
    size_t n_rows)
{
    struct truth truth = {.best = -INFINITY};
    double sum = 0.0;

    for (int pass = 0; pass < 2; pass++) {
        for (size_t r = 0; r < n_rows; r++) {
            if (r == skip ||
                (filter != NULL && (r / 64 >= filter->n_words ||
                                       !(filter->bits[r / 64] >> r % 64 & 1))))
                continue;

            double c = exact_dot(x, rows[r]);

            if (pass == 0) {
                truth.best = fmax(truth.best, c);
                truth.n++;
            } else {
                sum += exp((c - truth.best) / t);
            }
        }
    }
    truth.lse = truth.best / t + log(sum);
    return truth;
}

static void
filters_and_skip(void **state)
{
    struct ann *ann = index_of(ROWS);
    static uint64_t bits[ROWS / 64 + 1];
    static const size_t every[] = {1, 2, 3, 15, 17, 100, 1500};
    struct ann_hit hit;
    struct ann_result result = {.hits = &hit};

    (void)state;
    for (size_t e = 0; e < sizeof(every) / sizeof(every[0]); e++)
        for (size_t words = 1; words <= ROWS / 64 + 1; words += ROWS / 64) {
            struct ann_filter filter = {.bits = bits, .n_words = words};

            memset(bits, 0, sizeof(bits));
            for (size_t r = 0; r < words * 64; r += every[e]) {
                bits[r / 64] |= (uint64_t)1 << r % 64;
                filter.n_allowed++;
            }
            for (uint32_t q = 0; q < 40; q++) {
                struct ann_query query = query_for(rows[q], 1);

                query.filter = &filter;
                query.skip = q % 3 == 0 ? q : ANN_NONE;
                query.temperature = 0.05;

                struct truth truth =
                    brute(rows[q], 0.05, &filter, query.skip, ROWS);

                assert_int_equal(ann_search(ann, &query, &result), OK);
                assert_int_equal(result.n_hits, truth.n > 0);
                if (truth.n == 0)
                    continue;
                assert_true(fabs(hit.cosine - truth.best) <= 1e-12);
                assert_true(fabs(result.log_sum_exp - truth.lse) <=
                            result.log_sum_exp_error);
            }
        }
    ann_free(ann);
}

static void
min_cosine_is_a_bar(void **state)
{
    struct ann *ann = index_of(ROWS);
    struct ann_hit hits[50];
    struct ann_result result = {.hits = hits};
    struct ann_query query = query_for(rows[3], 50);

    (void)state;
    for (double bar = -0.2; bar <= 1.05; bar += 0.05) {
        size_t n = 0;

        for (size_t r = 0; r < ROWS; r++)
            n += exact_dot(rows[r], rows[3]) >= bar;
        query.min_cosine = bar;
        query.temperature = 0.05;
        assert_int_equal(ann_search(ann, &query, &result), OK);
        assert_int_equal(result.n_hits, n < 50 ? n : 50);

        struct truth truth = brute(rows[3], 0.05, NULL, ANN_NONE, ROWS);

        /* the bar is for hits, not for the sum */
        assert_true(
            fabs(result.log_sum_exp - truth.lse) <= result.log_sum_exp_error);
    }
    ann_free(ann);
}

static void
sums_at_every_temperature(void **state)
{
    struct ann *ann = index_of(ROWS);
    struct ann_hit hits[10];
    struct ann_result result = {.hits = hits};
    static const double t[] = {
        1e-5, 1e-4, 1e-3, 0.01, 0.0249, 0.025, 0.05, 0.2, 1.0, 100.0};

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
        for (uint32_t q = 0; q < 30; q++) {
            struct ann_query query = query_for(rows[q], 1 + q % 10);

            /* with the query's own row skipped, the best cosine is low */
            query.skip = q % 2 == 0 ? q : ANN_NONE;
            query.temperature = t[i];
            query.min_cosine = q % 5 == 0 ? 0.999 : -2.0;

            struct truth truth = brute(rows[q], t[i], NULL, query.skip, ROWS);

            assert_int_equal(ann_search(ann, &query, &result), OK);
            assert_true(fabs(result.log_sum_exp - truth.lse) <=
                        result.log_sum_exp_error);
            /* at most what the codes' bound gives, and little where one
               rescored row carries the sum */
            assert_true(result.log_sum_exp_error <= 1e-4 + 0.05 / t[i]);
            if (query.skip == ANN_NONE && q % 5 != 0 && t[i] < 0.03)
                assert_true(result.log_sum_exp_error <= 0.01);
        }
    ann_free(ann);
}

/* Dots of vectors of norm 5 are no cosines, but the answer holds all the same.
 */
static void
vectors_need_not_be_unit(void **state)
{
    struct ann *ann = index_of(ROWS);
    struct ann_hit hits[3];
    struct ann_result result = {.hits = hits};
    struct ann_query query = query_for(rows[4], 3);

    (void)state;
    for (uint32_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < DIMS; i++)
            rows[r][i] *= 5.0f;
        assert_int_equal(ann_put(ann, r, rows[r]), OK);
    }
    query.temperature = 0.03;
    for (uint32_t skip = 4; skip < 6; skip++) {
        struct truth truth = brute(rows[4], 0.03, NULL, skip, ROWS);

        query.skip = skip;
        query.k = skip == 4 ? 1 : 3;
        assert_int_equal(ann_search(ann, &query, &result), OK);
        assert_true(skip == 4 || hits[0].ord == 4);
        assert_true(fabs(hits[0].cosine - truth.best) <= 1e-11);
        assert_true(
            fabs(result.log_sum_exp - truth.lse) <= result.log_sum_exp_error);
        assert_true(result.log_sum_exp_error <= 2.0);
    }
    ann_free(ann);
}

/* codes: the bound itself, on every pair, without an index around it. */
static void
the_bound_holds(void **state)
{
    enum { N = 60 };
    static float x[N][DIMS];
    static int8_t code[N][KERN_CODE_DIMS(DIMS)];
    static uint8_t image[KERN_QUERY_BYTES(KERN_CODE_DIMS(DIMS))];
    struct code_of row[N], query;
    struct rng rng;
    double top = 0.0;

    (void)state;
    rng_seed(&rng, 4);
    for (size_t r = 0; r < N; r++) {
        make_unit(x[r], &rng);
        for (size_t i = 0; r % 3 == 1 && i < DIMS; i++)
            x[r][i] = x[r - 1][i] + 1e-3f * x[r][i]; /* near a neighbour */
        for (size_t i = 0; r % 5 == 2 && i < DIMS; i++)
            x[r][i] = i % 9 == 0 ? 0.3f : 1e-4f * x[r][i];
        for (size_t i = 0; r % 7 == 3 && i < DIMS; i++)
            x[r][i] = x[r][i] > 0.0f ? 0.117f : -0.117f;
        code_row(&row[r], code[r], x[r], DIMS);
        assert_true(kern_stripe_norm2(code[r], KERN_CODE_DIMS(DIMS)) <=
                    (int64_t)kern()->row_norm * kern()->row_norm);
        top = fmax(top, row[r].norm);
    }
    for (size_t q = 0; q < N; q++) {
        code_query(&query, image, x[q], DIMS);

        struct code_bounds bounds = code_bounds_of(&query, top);

        for (size_t r = 0; r < N; r++) {
            int32_t dot = 0;

            for (size_t i = 0; i < DIMS; i++)
                dot += (int8_t)image[i] * code[r][i];

            float a = (float)dot * row[r].scale * query.scale;
            double off = fabs((double)a - exact_dot(x[q], x[r]));
            double residual = (double)row[r].residual;
            double at = code_bound_at(&bounds, (double)a, residual);

            assert_true(off <= at);
            assert_true(at <= code_bound_any(&bounds, residual) * (1 + 1e-9));
        }
    }
}

static void
memory_may_run_out(void **state)
{
    struct ann *ann = index_of(500);
    struct ann_hit hits[2];
    struct ann_result result = {.hits = hits};
    struct ann_query query = query_for(rows[9], 2);
    static uint32_t ords[PUT_MANY];
    enum err err;

    (void)state;
    for (size_t i = 0; i < PUT_MANY; i++)
        ords[i] = (uint32_t)(100000 + i * 5000);
    for (uint64_t n = 1;; n++) {
        (void)alloc_fail_at(n);
        err = ann_put_many(ann, ords, rows[1000], PUT_MANY);
        (void)alloc_fail_at(0);
        if (err == OK)
            break;
        assert_int_equal(err, ERR_NOMEM);
        assert_int_equal(ann_count(ann), 500);
        assert_true(n < 1000);
    }
    assert_int_equal(ann_count(ann), 500 + PUT_MANY);
    for (uint64_t n = 1;; n++) {
        (void)alloc_fail_at(n);
        err = ann_search(ann, &query, &result);
        (void)alloc_fail_at(0);
        if (err == OK)
            break;
        assert_int_equal(err, ERR_NOMEM);
        assert_true(n < 100);
    }
    assert_int_equal(hits[0].ord, 9);
    for (uint64_t n = 1;; n++) {
        struct ann *other = NULL;

        (void)alloc_fail_at(n);
        err = ann_new(&other, 300, NULL);
        (void)alloc_fail_at(0);
        if (err == OK) {
            ann_free(other);
            break;
        }
        assert_null(other);
        assert_true(n < 100);
    }
    ann_free(ann);
}

struct at_once {
    struct ann *ann;
    uint32_t first;
};

static void *
search_some(void *arg)
{
    const struct at_once *a = arg;
    struct ann_hit hit;
    struct ann_result result = {.hits = &hit};

    for (uint32_t i = 0; i < 40; i++) {
        uint32_t want = (a->first + 7 * i) % ROWS;
        struct ann_query query = query_for(rows[want], 1);

        if (ann_search(a->ann, &query, &result) != OK || hit.ord != want)
            abort();
    }
    return NULL;
}

/* More threads than a pass takes, and blocks of queries larger than it. */
static void
queries_at_once(void **state)
{
    enum { THREADS = 70, MANY = 130 };
    struct ann *ann = index_of(ROWS);
    pthread_t threads[THREADS];
    struct at_once at_once[THREADS];
    struct ann_query queries[MANY];
    struct ann_result results[MANY];
    struct ann_hit hits[MANY];

    (void)state;
    for (uint32_t i = 0; i < THREADS; i++) {
        at_once[i] = (struct at_once){.ann = ann, .first = 41 * i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, search_some, &at_once[i]), 0);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        queries[i] = query_for(rows[i * 20], 1);
        results[i] = (struct ann_result){.hits = &hits[i]};
    }
    assert_int_equal(ann_search_many(ann, queries, results, MANY), OK);
    for (uint32_t i = 0; i < MANY; i++)
        assert_int_equal(hits[i].ord, i * 20);
    assert_int_equal(ann_search_many(ann, queries, results, 0), OK);
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    ann_free(ann);
}

struct walk {
    size_t n;
    size_t n_calls;
    size_t stop_after;
};

static bool
walk(void *arg, const uint32_t *ords, const float *vectors, size_t n)
{
    struct walk *w = arg;

    for (size_t i = 0; i < n; i++)
        assert_memory_equal(vectors + i * DIMS, rows[ords[i]], sizeof(rows[0]));
    w->n += n;
    return ++w->n_calls < w->stop_after;
}

static void
a_walk_sees_every_row(void **state)
{
    struct ann *ann = index_of(ROWS);
    struct walk w = {.stop_after = 1000};

    (void)state;
    ann_remove(ann, 0);
    ann_visit(ann, walk, &w);
    assert_int_equal(w.n, ROWS - 1);
    for (uint32_t o = 0; o < ROWS; o++)
        assert_int_equal(ann_put(ann, o + ROWS, rows[o]), OK);
    assert_int_equal(ann_reserve(ann, 20000), OK);
    assert_int_equal(ann_count(ann), 2 * ROWS - 1);
    assert_true(ann_bytes(ann) >= 20000 * DIMS * 5);
    ann_free(ann);
}

static void
a_pool_changes_nothing(void **state)
{
    struct pool *pool;
    struct ann *one = index_of(ROWS), *two;
    struct ann_query queries[60];
    struct ann_result a[60], b[60];
    static struct ann_hit hits_a[60][12], hits_b[60][12];

    (void)state;
    assert_int_equal(pool_new(&pool, 4, false), OK);
    assert_int_equal(ann_new(&two, DIMS, pool), OK);
    for (uint32_t o = 0; o < ROWS; o++)
        assert_int_equal(ann_put(two, o, rows[o]), OK);
    for (size_t i = 0; i < 60; i++) {
        queries[i] = query_for(rows[i], 12);
        queries[i].temperature = 0.05;
        a[i] = (struct ann_result){.hits = hits_a[i]};
        b[i] = (struct ann_result){.hits = hits_b[i]};
    }
    assert_int_equal(ann_search_many(one, queries, a, 60), OK);
    assert_int_equal(ann_search_many(two, queries, b, 60), OK);
    for (size_t i = 0; i < 60; i++) {
        assert_int_equal(a[i].n_hits, b[i].n_hits);
        for (size_t h = 0; h < 12; h++)
            assert_int_equal(hits_a[i][h].ord, hits_b[i][h].ord);
        assert_true(fabs(a[i].log_sum_exp - b[i].log_sum_exp) <= 1e-4);
        assert_int_equal(b[i].n_scanned, ROWS);
    }
    ann_free(one);
    ann_free(two);
    pool_free(pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_index_finds_nothing),
        cmocka_unit_test(put_get_replace_remove),
        cmocka_unit_test(equal_cosines_come_in_order),
        cmocka_unit_test(the_callers_order_decides_ties),
        cmocka_unit_test(zero_vectors_have_cosine_zero),
        cmocka_unit_test(filters_and_skip),
        cmocka_unit_test(min_cosine_is_a_bar),
        cmocka_unit_test(sums_at_every_temperature),
        cmocka_unit_test(vectors_need_not_be_unit),
        cmocka_unit_test(the_bound_holds),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(queries_at_once),
        cmocka_unit_test(a_walk_sees_every_row),
        cmocka_unit_test(a_pool_changes_nothing),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
