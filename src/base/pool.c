#define _GNU_SOURCE /* SCHED_IDLE */

#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"

/*
 * How a call is handed out. `ticket` holds the call's number in its high half
 * and the shards not yet claimed in its low half. A thread that sees a
 * remainder over 0 reads fn, arg and n_shards, and claims a shard by an
 * exchange of the whole ticket for one with a remainder less by one. The
 * caller changes those three only while the remainder is 0, and every call
 * has a new number; so a successful exchange proves that they were read while
 * this very call was open, however long the thread slept in between.
 *
 * A thread without work spins some microseconds (a learner's steps and a
 * server's scans follow each other closely) and then sleeps on a condition.
 * A sleeper counts itself before it looks at the ticket for the last time, and
 * the caller writes the ticket before it looks at the count (both sequentially
 * consistent), so one of them sees the other.
 */
#define SPINS 400

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ __volatile__("isb" ::: "memory")
#else
#define RELAX() ((void)0)
#endif

struct worker {
    struct pool *pool;
    size_t thread_i;
    pthread_t thread;
};

struct pool {
    size_t n_threads; /* that work; immutable, as the next three */
    size_t n_workers; /* ours: all of them when idle, else all but the caller */
    bool idle;
    int spins;
    struct worker *workers;

    pthread_mutex_t call_lock; /* held by the call in progress */

    _Atomic uint64_t ticket;
    _Atomic size_t n_shards;
    _Atomic(pool_fn *) fn;
    _Atomic(void *) arg;
    _Atomic size_t n_done;

    pthread_mutex_t sleep_lock; /* around the conditions */
    pthread_cond_t work;
    pthread_cond_t done;
    _Atomic size_t n_sleepers;
    _Atomic bool caller_sleeps;
    _Atomic bool stop;
};

#define TICKET_LEFT(t) ((t)&UINT64_C(0xffffffff))
#define TICKET_CALL ((uint64_t)1 << 32)

/* Claim and run one shard; false when none is left. */
static bool
work_once(struct pool *pool, size_t thread_i)
{
    uint64_t ticket = atomic_load(&pool->ticket);

    while (TICKET_LEFT(ticket) > 0) {
        pool_fn *fn = atomic_load_explicit(&pool->fn, memory_order_acquire);
        void *arg = atomic_load_explicit(&pool->arg, memory_order_acquire);
        size_t n = atomic_load_explicit(&pool->n_shards, memory_order_acquire);

        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - 1)) {
            continue;
        }
        fn(arg, n - (size_t)TICKET_LEFT(ticket), thread_i);
        if (atomic_fetch_add(&pool->n_done, 1) + 1 == n &&
            atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->sleep_lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->sleep_lock);
        }
        return true;
    }
    return false;
}

static bool
is_call_open(struct pool *pool)
{
    return TICKET_LEFT(atomic_load(&pool->ticket)) > 0;
}

static void
sleep_until_work(struct pool *pool)
{
    for (int i = 0; i < pool->spins; i++) {
        if (is_call_open(pool) || atomic_load(&pool->stop)) {
            return;
        }
        RELAX();
    }
    pthread_mutex_lock(&pool->sleep_lock);
    atomic_fetch_add(&pool->n_sleepers, 1);
    while (!is_call_open(pool) && !atomic_load(&pool->stop)) {
        pthread_cond_wait(&pool->work, &pool->sleep_lock);
    }
    atomic_fetch_sub(&pool->n_sleepers, 1);
    pthread_mutex_unlock(&pool->sleep_lock);
}

static void *
worker_main(void *arg)
{
    struct worker *worker = arg;
    struct pool *pool = worker->pool;

    if (pool->idle) {
#ifdef SCHED_IDLE
        struct sched_param param = {0};
        /* Where that is not allowed the work is done all the same. */
        (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &param);
#endif
    }
    while (!atomic_load(&pool->stop)) {
        if (!work_once(pool, worker->thread_i)) {
            sleep_until_work(pool);
        }
    }
    return NULL;
}

/* Start the workers with every signal blocked: signals are main's. */
static enum err
start_workers(struct pool *pool)
{
    sigset_t all, before;
    enum err err = OK;
    size_t want = pool->idle ? pool->n_threads : pool->n_threads - 1;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->n_workers < want) {
        struct worker *worker = &pool->workers[pool->n_workers];
        worker->pool = pool;
        worker->thread_i = pool->n_workers + (pool->idle ? 0 : 1);
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            err = ERR_NOMEM;
            break;
        }
        pool->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

enum err
pool_new(struct pool **out, size_t n_threads, bool idle)
{
    struct pool *pool;
    enum err err;

    ASSERT(n_threads > 0);
    pool = mem_calloc(1, sizeof(*pool));
    if (pool == NULL) {
        return ERR_NOMEM;
    }
    pool->workers = mem_calloc(n_threads, sizeof(*pool->workers));
    if (pool->workers == NULL) {
        mem_free(pool);
        return ERR_NOMEM;
    }
    pool->n_threads = n_threads;
    pool->idle = idle;
    /* Spinning only helps while the other side has a processor to itself. */
    if (!idle && sysconf(_SC_NPROCESSORS_ONLN) >= (long)n_threads) {
        pool->spins = SPINS;
    }
    pthread_mutex_init(&pool->call_lock, NULL);
    pthread_mutex_init(&pool->sleep_lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    err = start_workers(pool);
    if (err != OK) {
        pool_free(pool);
        return err;
    }
    *out = pool;
    return OK;
}

void
pool_free(struct pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->sleep_lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->sleep_lock);
    for (size_t i = 0; i < pool->n_workers; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->sleep_lock);
    pthread_mutex_destroy(&pool->call_lock);
    mem_free(pool->workers);
    mem_free(pool);
}

size_t
pool_threads(const struct pool *pool)
{
    return pool == NULL ? 1 : pool->n_threads;
}

/* Wake as many sleepers as there are shards for them. */
static void
wake_workers(struct pool *pool, size_t n_wanted)
{
    size_t n = atomic_load(&pool->n_sleepers);

    if (n == 0) {
        return;
    }
    pthread_mutex_lock(&pool->sleep_lock);
    if (n_wanted >= n) {
        pthread_cond_broadcast(&pool->work);
    } else {
        for (size_t i = 0; i < n_wanted; i++) {
            pthread_cond_signal(&pool->work);
        }
    }
    pthread_mutex_unlock(&pool->sleep_lock);
}

static void
wait_done(struct pool *pool, size_t n_shards)
{
    for (int i = 0; i < pool->spins; i++) {
        if (atomic_load(&pool->n_done) == n_shards) {
            return;
        }
        RELAX();
    }
    pthread_mutex_lock(&pool->sleep_lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->n_done) != n_shards) {
        pthread_cond_wait(&pool->done, &pool->sleep_lock);
    }
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->sleep_lock);
}

static void
run_alone(size_t n_shards, pool_fn *fn, void *arg)
{
    for (size_t i = 0; i < n_shards; i++) {
        fn(arg, i, 0);
    }
}

void
pool_run(struct pool *pool, size_t n_shards, pool_fn *fn, void *arg)
{
    if (pool == NULL) {
        run_alone(n_shards, fn, arg);
        return;
    }
    ASSERT(n_shards <= UINT32_MAX);
    pthread_mutex_lock(&pool->call_lock);
    if (pool->n_workers == 0 || n_shards == 0 ||
        (n_shards == 1 && !pool->idle)) {
        run_alone(n_shards, fn, arg);
        pthread_mutex_unlock(&pool->call_lock);
        return;
    }
    uint64_t call = atomic_load(&pool->ticket) + TICKET_CALL;
    ASSERT(TICKET_LEFT(call) == 0);
    atomic_store(&pool->fn, fn);
    atomic_store(&pool->arg, arg);
    atomic_store(&pool->n_shards, n_shards);
    atomic_store(&pool->n_done, 0);
    atomic_store(&pool->ticket, call + n_shards);
    wake_workers(pool, pool->idle ? n_shards : n_shards - 1);
    while (!pool->idle && work_once(pool, 0)) {
    }
    wait_done(pool, n_shards);
    pthread_mutex_unlock(&pool->call_lock);
}

void
pool_give_way(void)
{
#ifdef __linux__
    (void)setpriority(PRIO_PROCESS, 0, 10);
#endif
}
