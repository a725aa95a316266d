/*
 * Goal: a queue keeps its order and its bound, hands each entry to exactly one
 * thread, and lets everyone go when it is closed.
 * Method: one thread for order and codes; four producers and four consumers
 * over a queue of three for the rest.
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

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/queue.h"

static int values[100000];

static void
test_one_thread(void **state)
{
    (void)state;
    struct queue *q = NULL;

    assert_int_equal(queue_new(&q, 3), OK);
    assert_null(queue_try_pop(q));
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++) {
            assert_int_equal(queue_try_push(q, &values[i]), OK);
        }
        assert_int_equal(queue_length(q), 3);
        assert_int_equal(queue_try_push(q, &values[9]), ERR_BUSY);
        assert_ptr_equal(queue_pop(q), &values[0]);
        assert_int_equal(queue_push(q, &values[3]), OK);
        assert_ptr_equal(queue_try_pop(q), &values[1]);
        assert_ptr_equal(queue_pop_timed(q, 1000), &values[2]);
        assert_ptr_equal(queue_pop_timed(q, 0), &values[3]);
    }
    int64_t before = clock_mono_ms();
    assert_null(queue_pop_timed(q, 30));
    assert_true(clock_mono_ms() - before >= 29);
    assert_null(queue_pop_timed(q, 0));
    assert_null(queue_pop_timed(q, -1));

    assert_int_equal(queue_push(q, &values[0]), OK);
    queue_close(q);
    assert_int_equal(queue_try_push(q, &values[1]), ERR_CANCELLED);
    assert_int_equal(queue_push(q, &values[1]), ERR_CANCELLED);
    assert_ptr_equal(queue_pop(q), &values[0]); /* drained first */
    assert_null(queue_pop(q));
    assert_null(queue_pop_timed(q, 10000));
    queue_free(q);
    queue_free(NULL);
}

static struct queue *shared;
static _Atomic int taken[100000];
static _Atomic int next_value;

static void *
produce(void *arg)
{
    (void)arg;
    for (;;) {
        int i = atomic_fetch_add(&next_value, 1);
        if (i >= 100000) {
            return NULL;
        }
        assert_int_equal(queue_push(shared, &values[i]), OK);
    }
}

static void *
consume(void *arg)
{
    bool timed = arg != NULL;
    for (;;) {
        int *v = timed ? queue_pop_timed(shared, 10000) : queue_pop(shared);
        if (v == NULL) {
            return NULL;
        }
        atomic_fetch_add(&taken[v - values], 1);
    }
}

static void
test_many_threads(void **state)
{
    (void)state;
    pthread_t producers[4], consumers[4];

    assert_int_equal(queue_new(&shared, 3), OK);
    for (size_t i = 0; i < 4; i++) {
        pthread_create(&producers[i], NULL, produce, NULL);
        pthread_create(&consumers[i], NULL, consume, i % 2 ? values : NULL);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(producers[i], NULL);
    }
    queue_close(shared);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(consumers[i], NULL);
    }
    for (size_t i = 0; i < 100000; i++) {
        assert_int_equal(atomic_load(&taken[i]), 1);
    }
    queue_free(shared);
}

static void *
push_into_full(void *arg)
{
    enum err *err = arg;

    *err = queue_push(shared, &values[1]);
    return NULL;
}

static void
test_close_frees_a_waiting_producer(void **state)
{
    (void)state;
    pthread_t thread;
    enum err err = OK;

    assert_int_equal(queue_new(&shared, 1), OK);
    assert_int_equal(queue_push(shared, &values[0]), OK);
    pthread_create(&thread, NULL, push_into_full, &err);
    clock_sleep_ms(20);
    queue_close(shared);
    pthread_join(thread, NULL);
    assert_int_equal(err, ERR_CANCELLED);
    assert_ptr_equal(queue_pop(shared), &values[0]);
    queue_free(shared);
}

static void
test_no_memory(void **state)
{
    (void)state;
    struct queue *q = NULL;

    for (uint64_t n = 1; n <= 2; n++) {
        alloc_fail_at(n);
        assert_int_equal(queue_new(&q, 8), ERR_NOMEM);
        alloc_fail_at(0);
        assert_null(q);
    }
    assert_int_equal(queue_new(&q, SIZE_MAX / 4), ERR_NOMEM);
    assert_null(q);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_close_frees_a_waiting_producer),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
