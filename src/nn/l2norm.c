#include "nn/l2norm.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kern/kern.h"

#define ROWS_A_SHARD 64
#define NORM_MIN 1e-30

struct rows {
    float *out;
    const float *x, *y, *dy;
    float *norm;
    const float *norm_const;
    size_t n, D;
};

static void
forward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct rows *r = arg;
    size_t D = r->D, end = MIN(r->n, (shard_i + 1) * ROWS_A_SHARD);

    (void)thread_i;
    for (size_t i = shard_i * ROWS_A_SHARD; i < end; i++) {
        const float *x = r->x + i * D;
        float *y = r->out + i * D;
        double norm = sqrt(kern()->dot_f64(x, x, D));
        float inverse = norm > NORM_MIN ? (float)(1 / norm) : 0;
        if (y != x)
            memcpy(y, x, D * sizeof *y);
        kern()->scale(y, inverse, D);
        r->norm[i] = (float)norm;
    }
}

void
l2norm_forward(float *y, float *norm, const float *x, size_t n, size_t D,
    struct pool *pool)
{
    struct rows r = {.out = y, .x = x, .norm = norm, .n = n, .D = D};
    pool_run(pool, (n + ROWS_A_SHARD - 1) / ROWS_A_SHARD, forward_worker, &r);
}

/* of y = x / |x| */
static void
backward_worker(void *arg, size_t shard_i, size_t thread_i)
{
    const struct rows *r = arg;
    size_t D = r->D, end = MIN(r->n, (shard_i + 1) * ROWS_A_SHARD);

    (void)thread_i;
    for (size_t i = shard_i * ROWS_A_SHARD; i < end; i++) {
        const float *y = r->y + i * D, *dy = r->dy + i * D;
        float *dx = r->out + i * D;
        float along = (float)kern()->dot_f64(y, dy, D);
        float norm = r->norm_const[i];
        if (dx != dy)
            memcpy(dx, dy, D * sizeof *dx);
        kern()->axpy(dx, -along, y, D);
        kern()->scale(dx, norm > (float)NORM_MIN ? 1 / norm : 0, D);
    }
}

void
l2norm_backward(float *dx, const float *dy, const float *y, const float *norm,
    size_t n, size_t D, struct pool *pool)
{
    struct rows r = {
        .out = dx, .y = y, .dy = dy, .norm_const = norm, .n = n, .D = D};
    pool_run(pool, (n + ROWS_A_SHARD - 1) / ROWS_A_SHARD, backward_worker, &r);
}
