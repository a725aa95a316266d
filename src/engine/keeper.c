/* The keeper: one thread for what must happen now and then. It removes what
   was marked as gone, lets old replies expire, and starts training rounds by
   the collections' policies. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/pairs.h"
#include "store/purge.h"
#include "store/replies.h"
#include "engine/internal.h"
#include "engine/learn.h"

#define TICK_MS 1000
#define EXPIRE_EVERY_MS 60000
#define EXPIRE_ROWS 1000

struct keeper {
    struct engine *engine;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool woken;
    atomic_bool stop;
    int64_t expired_ms;
};

/* ---- training by policy -------------------------------------------------- */

static enum err
count_pairs(struct collection *c, struct pair_counts *counts,
    struct collection_row *row, struct arena *arena)
{
    struct db *db;
    enum err err = store_read_begin(c->engine->store, &db);
    if (!err) {
        err = collections_get(db, c->id, arena, row);
        if (!err) {
            int64_t since = MAX(row->pairs_seen, c->policy_pairs_upto);
            err = pairs_count(db, c->id, since, counts);
        }
        store_read_end(c->engine->store, db);
    }
    return err;
}

/* A round is due: after N new train pairs since the last one, or after T
   seconds if there is at least one. */
static void
apply_policy(struct collection *c)
{
    struct train_policy policy;
    collection_policy(c, &policy);
    int64_t now = clock_mono_ms();
    if (atomic_exchange(&c->policy_round_ended, false)) {
        c->policy_last_ms = now;
    }
    if (!policy.every_pairs && !policy.every_seconds) {
        return;
    }
    if (jobs_of_collection(c->engine->jobs, c->id)) {
        return;
    }
    bool time_due = policy.every_seconds &&
                    now - c->policy_last_ms >= policy.every_seconds * 1000;
    if (!time_due && !policy.every_pairs) {
        return;
    }
    struct arena arena;
    struct pair_counts counts;
    struct collection_row row;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = count_pairs(c, &counts, &row, &arena);
    arena_release(&arena);
    int64_t fresh = err ? 0 : counts.active_new[PAIR_TRAIN];
    bool pairs_due = policy.every_pairs && fresh >= policy.every_pairs;
    if (err || fresh == 0 || (!time_due && !pairs_due)) {
        return;
    }
    struct fault fault = {.err = OK};
    int64_t job;
    err = engine_train(c->engine, c->name, NULL, &job, &fault);
    if (!err) {
        c->policy_pairs_upto = counts.last_pair;
        log_info("engine", "policy round collection=%lld job=%lld",
            (long long)c->id, (long long)job);
    } else if (err == ERR_INVALID || err == ERR_UNSUPPORTED) {
        /* Too few as yet, or nothing to train on: look again when there are
           more. */
        c->policy_last_ms = now;
        c->policy_pairs_upto = counts.last_pair;
    }
}

static void
apply_policies(struct engine *engine)
{
    for (size_t i = 0;; i++) {
        pthread_rwlock_rdlock(&engine->registry);
        struct collection *c = i < engine->n_collections
                                   ? collection_ref(engine->collections[i])
                                   : NULL;
        pthread_rwlock_unlock(&engine->registry);
        if (!c) {
            return;
        }
        apply_policy(c);
        collection_unref(c);
    }
}

/* ---- the thread ---------------------------------------------------------- */

static enum err
run_expire(struct db *db, void *arg)
{
    return replies_expire(db, clock_wall_ms(), EXPIRE_ROWS, arg);
}

static void
expire_replies(struct keeper *k)
{
    size_t n = EXPIRE_ROWS;
    while (n == EXPIRE_ROWS && !k->stop) {
        n = 0;
        if (store_run(k->engine->store, run_expire, &n)) {
            return;
        }
    }
}

static void *
keeper_thread(void *arg)
{
    struct keeper *k = arg;
    while (!k->stop) {
        struct timespec when;
        clock_gettime(CLOCK_MONOTONIC, &when);
        when.tv_sec += TICK_MS / 1000;
        pthread_mutex_lock(&k->lock);
        if (!k->woken && !k->stop) {
            (void)pthread_cond_timedwait(&k->cond, &k->lock, &when);
        }
        bool woken = k->woken;
        k->woken = false;
        pthread_mutex_unlock(&k->lock);
        if (k->stop || store_is_read_only(k->engine->store)) {
            continue;
        }
        if (woken) {
            enum err err = purge_run(k->engine->store, &k->stop, NULL);
            if (err && err != ERR_CANCELLED) {
                log_warn("engine", "purge err=%s", err_text(err));
            }
        }
        int64_t now = clock_mono_ms();
        if (now - k->expired_ms >= EXPIRE_EVERY_MS) {
            k->expired_ms = now;
            expire_replies(k);
        }
        apply_policies(k->engine);
    }
    return NULL;
}

enum err
keeper_start(struct keeper **out, struct engine *engine)
{
    struct keeper *k = mem_calloc(1, sizeof(*k));
    if (!k) {
        return ERR_NOMEM;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->cond, &attr);
    pthread_condattr_destroy(&attr);
    k->engine = engine;
    k->woken = true; /* what a crash left to purge */
    k->expired_ms = clock_mono_ms();
    if (pthread_create(&k->thread, NULL, keeper_thread, k)) {
        pthread_mutex_destroy(&k->lock);
        pthread_cond_destroy(&k->cond);
        mem_free(k);
        return ERR_NOMEM;
    }
    *out = k;
    return OK;
}

void
keeper_stop(struct keeper *k)
{
    if (!k) {
        return;
    }
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_cond_signal(&k->cond);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->cond);
    mem_free(k);
}

void
keeper_wake(struct keeper *k)
{
    if (k) {
        pthread_mutex_lock(&k->lock);
        k->woken = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
    }
}
