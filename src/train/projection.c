#include "train/projection.h"
struct projection {
    int x;
};
enum err
projection_new(struct projection **out, size_t n_layers, size_t D, size_t P,
    size_t n_max, uint64_t seed, const struct optimizer_options *optimizer)
{
    (void)out;
    (void)n_layers;
    (void)D;
    (void)P;
    (void)n_max;
    (void)seed;
    (void)optimizer;
    return ERR_UNSUPPORTED;
}
void
projection_free(struct projection *head)
{
    (void)head;
}
size_t
projection_bytes(const struct projection *head)
{
    (void)head;
    return 0;
}
void
projection_forward(struct projection *head, const float *e, size_t n, float *z,
    struct pool *pool)
{
    (void)head;
    (void)e;
    (void)n;
    (void)z;
    (void)pool;
}
void
projection_backward(
    struct projection *head, const float *dz, float *de, struct pool *pool)
{
    (void)head;
    (void)dz;
    (void)de;
    (void)pool;
}
void
projection_step(struct projection *head, float lr, struct pool *pool)
{
    (void)head;
    (void)lr;
    (void)pool;
}
enum err
projection_encode(struct projection *head, const float *params, const float *e,
    size_t n, float *z, struct pool *pool)
{
    (void)head;
    (void)params;
    (void)e;
    (void)n;
    (void)z;
    (void)pool;
    return OK;
}
float *
projection_params(struct projection *head, size_t *n_params)
{
    (void)head;
    (void)n_params;
    return 0;
}
void
projection_state(struct projection *head, struct state *s)
{
    (void)head;
    (void)s;
}
