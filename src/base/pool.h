/*
 * pool.h - a fixed set of threads that run the shards of one loop.
 *
 * The work of a call is cut by the caller into shards; which thread runs a
 * shard is not defined, so a result must not depend on it: reductions combine
 * per-shard results in shard order. A pool serves one call at a time (callers
 * queue on its lock), so a shard must not call pool_run on its own pool. The
 * calling thread works too, as thread 0, so a pool of 1 thread starts none; of
 * an idle pool it only waits. Threads without work spin some microseconds and
 * then sleep. Everything that the shards wrote is visible to the caller after
 * pool_run.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"

struct pool;

/* Work on shard shard_i of n_shards; thread_i < pool_threads names scratch. */
typedef void pool_fn(void *arg, size_t shard_i, size_t thread_i);

/*
 * pool_new - n_threads > 0 threads that work.
 *
 * idle false: the caller of pool_run is one of them. idle true: all are ours,
 * under SCHED_IDLE where that is allowed, and the caller only waits, so that
 * nothing of a shard runs at its priority. ERR_NOMEM.
 */
enum err pool_new(struct pool **out, size_t n_threads, bool idle) NODISCARD;
void pool_free(struct pool *pool);
size_t pool_threads(const struct pool *pool); /* NULL counts as 1 */

/* Run fn for every shard and return when all are done. A NULL pool runs them
   in the caller, in order. */
void pool_run(struct pool *pool, size_t n_shards, pool_fn *fn, void *arg);

/* Let the calling thread give way to others (nice 10, on Linux for the thread
   alone): for one that leads idle work, yet takes locks that others wait for,
   so that it must not be idle itself. */
void pool_give_way(void);

#endif
