/*
 * Goal: the queue of keys is first in, first out, and the momentum encoder
 * follows by exactly m k + (1 - m) q.
 *
 * Method: random pushes against a plain list that is shortened from its front;
 * the rows of queue and batch as one matrix; the update against one float
 * expression, bit by bit, with every pool.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/pool.h"
#include "base/rng.h"
#include "train/key_queue.h"
#include "train/momentum.h"

#define D 3
#define FRONT 40

/* Row number i of all that were ever pushed. */
static void
write_row(struct key_queue *q, float *row, size_t at, uint64_t number)
{
    for (size_t d = 0; d < D; d++)
        row[d] = (float)(number * D + d);
    q->keys[at] = 7 * number;
    q->labels[at] = 9 * number;
}

static void
test_against_a_list(void **state)
{
    static const size_t sizes[] = {1, 2, 7, 64};

    (void)state;
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        size_t K = sizes[s], n_list = 0;
        uint64_t list[8 * FRONT], when[8 * FRONT], number = 0;
        struct key_queue q;
        struct rng rng;
        assert_int_equal(key_queue_init(&q, K, FRONT, D), OK);
        rng_seed(&rng, s);
        assert_true(key_queue_age(&q, 5) <= 0);
        for (uint64_t step = 0; step < 200; step++) {
            size_t front = 1 + (size_t)rng_below(&rng, FRONT);
            size_t n = 1 + (size_t)rng_below(&rng, front);
            float *rows = key_queue_front(&q, front);
            /* the batch's rows stand right before the queue's */
            assert_ptr_equal(rows + front * D, q.rows + FRONT * D);
            for (size_t i = 0; i < front; i++)
                write_row(&q, rows + i * D, FRONT - front + i, number + i);
            key_queue_push(&q, front, n, step);
            for (size_t i = 0; i < n; i++) {
                when[n_list] = step;
                list[n_list++] = number + i;
            }
            number += front;
            if (n_list > K) { /* the oldest go */
                memmove(list, list + n_list - K, K * sizeof *list);
                memmove(when, when + n_list - K, K * sizeof *when);
                n_list = K;
            }
            assert_int_equal(q.n, n_list);
            double age = 0;
            for (size_t i = 0; i < n_list; i++) {
                /* the oldest is where the next one goes, once it is full */
                size_t at = q.n < K ? i : (q.next + i) % K;
                const float *row = q.rows + (FRONT + at) * D;
                for (size_t d = 0; d < D; d++)
                    assert_true(row[d] >= (float)(list[i] * D + d) &&
                                row[d] <= (float)(list[i] * D + d));
                assert_int_equal(q.keys[FRONT + at], 7 * list[i]);
                assert_int_equal(q.labels[FRONT + at], 9 * list[i]);
                assert_int_equal(q.steps[at], when[i]);
                age += (double)(step + 1 - when[i]) / (double)n_list;
            }
            double got = key_queue_age(&q, step + 1);
            assert_true(got >= age - 1e-9 && got <= age + 1e-9);
        }
        key_queue_release(&q);
        key_queue_release(&q);
    }
}

static void
test_momentum_is_exact(void **state)
{
    enum { N = 200000 };
    static const float ms[] = {0, 0.5f, 0.99f, 0.999f};
    float *k = malloc(N * sizeof *k), *q = malloc(N * sizeof *q);
    float *want = malloc(N * sizeof *want);
    struct rng rng;

    (void)state;
    assert_true(k != NULL && q != NULL && want != NULL);
    for (size_t threads = 0; threads < 4; threads++) {
        struct pool *pool = NULL;
        if (threads > 0)
            assert_int_equal(pool_new(&pool, threads, false), OK);
        for (size_t c = 0; c < ARRAY_LEN(ms); c++) {
            rng_seed(&rng, c);
            for (size_t i = 0; i < N; i++) {
                k[i] = (float)rng_normal(&rng);
                q[i] = (float)rng_normal(&rng);
                float own = ms[c] * k[i], other = (1 - ms[c]) * q[i];
                want[i] = own + other;
            }
            momentum_update(k, q, N, ms[c], pool);
            assert_memory_equal(k, want, N * sizeof *k);
        }
        pool_free(pool);
    }
    free(k);
    free(q);
    free(want);
}

static void
test_memory_runs_out(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct key_queue q = {0};
        alloc_fail_at(n);
        enum err err = key_queue_init(&q, 8, 4, D);
        uint64_t seen = alloc_fail_at(0);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        key_queue_release(&q);
        if (err == OK)
            break;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_list),
        cmocka_unit_test(test_momentum_is_exact),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
