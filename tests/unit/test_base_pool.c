/*
 * Goal: pool_run runs every shard exactly once before it returns, names
 * threads within bounds, serves callers one after another, and sleeps when
 * there is nothing to do.
 * Method: tens of thousands of small calls of random sizes over pools of 1 to
 * 8 threads; three callers at once; the process's CPU time over a rest.
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
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"

enum { SHARDS_MAX = 64 };

struct call {
    _Atomic int runs[SHARDS_MAX];
    _Atomic int busy[16]; /* a thread runs one shard at a time */
    _Atomic int bad;
    size_t n_threads;
};

static void
count_shard(void *arg, size_t shard_i, size_t thread_i)
{
    struct call *call = arg;

    if (thread_i >= call->n_threads) {
        atomic_fetch_add(&call->bad, 1);
        return;
    }
    if (atomic_fetch_add(&call->busy[thread_i], 1) != 0) {
        atomic_fetch_add(&call->bad, 1);
    }
    atomic_fetch_add(&call->runs[shard_i], 1);
    atomic_fetch_sub(&call->busy[thread_i], 1);
}

static void
run_calls(struct pool *pool, uint64_t seed, int n_calls)
{
    struct rng rng;
    struct call call;

    rng_seed(&rng, seed);
    for (int round = 0; round < n_calls; round++) {
        size_t n = (size_t)rng_below(&rng, SHARDS_MAX + 1);
        memset(&call, 0, sizeof(call));
        call.n_threads = pool_threads(pool);
        pool_run(pool, n, count_shard, &call);
        for (size_t i = 0; i < SHARDS_MAX; i++) {
            assert_int_equal(atomic_load(&call.runs[i]), i < n);
        }
        assert_int_equal(atomic_load(&call.bad), 0);
    }
}

static void
test_every_shard_once(void **state)
{
    (void)state;
    run_calls(NULL, 1, 100);
    assert_int_equal(pool_threads(NULL), 1);
    for (size_t n = 1; n <= 8; n += n < 3 ? 1 : 5) {
        for (int idle = 0; idle < 2; idle++) {
            struct pool *pool = NULL;
            assert_int_equal(pool_new(&pool, n, idle != 0), OK);
            assert_int_equal(pool_threads(pool), n);
            run_calls(pool, n, idle ? 500 : 5000);
            pool_free(pool);
        }
    }
    pool_free(NULL);
}

static void *
caller(void *arg)
{
    run_calls(arg, (uint64_t)(uintptr_t)&arg, 1000);
    return NULL;
}

static void
test_callers_take_turns(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 3; n++) {
        struct pool *pool = NULL;
        pthread_t threads[3];
        assert_int_equal(pool_new(&pool, n, false), OK);
        for (size_t i = 0; i < 3; i++) {
            pthread_create(&threads[i], NULL, caller, pool);
        }
        for (size_t i = 0; i < 3; i++) {
            pthread_join(threads[i], NULL);
        }
        pool_free(pool);
    }
}

static _Atomic unsigned long threads_seen;

static void
note_thread(void *arg, size_t shard_i, size_t thread_i)
{
    (void)arg;
    (void)shard_i;
    atomic_fetch_or(&threads_seen, 1UL << thread_i);
    clock_sleep_ms(5);
}

static void
test_threads_share_the_work(void **state)
{
    (void)state;
    struct pool *pool = NULL;

    assert_int_equal(pool_new(&pool, 4, false), OK);
    clock_sleep_ms(20); /* asleep by now */
    pool_run(pool, 32, note_thread, NULL);
    assert_int_equal(atomic_load(&threads_seen), 15);
    pool_free(pool);
}

static void
test_a_resting_pool_is_quiet(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    struct timespec before, after;

    assert_int_equal(pool_new(&pool, 4, false), OK);
    run_calls(pool, 1, 10);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    clock_sleep_ms(300);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    double used = (double)(after.tv_sec - before.tv_sec) +
                  1e-9 * (double)(after.tv_nsec - before.tv_nsec);
    assert_true(used < 0.1);
    pool_free(pool);
}

static void
test_no_memory(void **state)
{
    (void)state;
    struct pool *pool = NULL;

    for (uint64_t n = 1; n <= 2; n++) {
        alloc_fail_at(n);
        assert_int_equal(pool_new(&pool, 2, false), ERR_NOMEM);
        alloc_fail_at(0);
        assert_null(pool);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_shard_once),
        cmocka_unit_test(test_callers_take_turns),
        cmocka_unit_test(test_threads_share_the_work),
        cmocka_unit_test(test_a_resting_pool_is_quiet),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
