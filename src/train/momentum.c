#include "train/momentum.h"

#include "base/check.h"

#define FLOATS_A_SHARD 65536

struct update {
    float *k;
    const float *q;
    size_t n;
    float m;
};

static void
update_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct update *u = arg;
    size_t first = shard_i * FLOATS_A_SHARD;
    size_t end = MIN(u->n, first + FLOATS_A_SHARD);
    float m = u->m, rest = 1 - u->m;

    (void)thread_i;
    for (size_t i = first; i < end; i++)
        u->k[i] = m * u->k[i] + rest * u->q[i];
}

void
momentum_update(float *k, const float *q, size_t n, float m, struct pool *pool)
{
    struct update u = {.k = k, .q = q, .n = n, .m = m};
    pool_run(
        pool, (n + FLOATS_A_SHARD - 1) / FLOATS_A_SHARD, update_worker, &u);
}
