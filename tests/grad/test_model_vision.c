/*
 * Goal: the vision encoder's backward pass is the derivative of its forward
 * pass, for every tensor, whatever the shape of the network.
 *
 * Method: a random projection of the output is the objective, so its gradient
 * by the output is the projection. Each tensor is moved along its own gradient
 * and along a random direction, by central differences over the step really
 * taken; the error is relative to the larger number with a floor. Parameters
 * start away from their initial values, so that no derivative is special.
 * Nine pictures are a run of eight and one of one; one of them is none.
 * Networks: with and without a linear layer, mean and grid, one to three
 * stages, each stride of the stem, grey and colour.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/pool.h"
#include "base/rng.h"
#include "image/image.h"
#include "kern/kern.h"
#include "model/encoder.h"

#define N 9
#define NONE 4 /* the input without a picture */
#define TOLERANCE 0.02
#define FLOOR 0.1

struct bench {
    struct encoder *encoder;
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct image images[N];
    struct encoder_input inputs[N];
    float *out, *projection, *params;
    size_t n_params, n_out;
};

static void
open_bench(struct bench *b, const char *config)
{
    struct rng rng;

    memset(b, 0, sizeof *b);
    rng_seed(&rng, 5);
    assert_int_equal(
        encoder_new(&b->encoder, "vision", config, NULL, NULL), OK);
    assert_int_equal(encoder_tape_new(&b->tape, b->encoder), OK);
    assert_int_equal(encoder_grads_new(&b->grads, b->encoder), OK);
    b->params = encoder_params(b->encoder, &b->n_params);
    for (size_t i = 0; i < b->n_params; i++)
        b->params[i] += 0.2f * rng_float(&rng) + 0.05f;
    b->n_out = N * encoder_dims(b->encoder);
    b->out = mem_alloc(b->n_out, sizeof *b->out);
    b->projection = mem_alloc(b->n_out, sizeof *b->projection);
    for (size_t i = 0; i < b->n_out; i++)
        b->projection[i] = (float)rng_normal(&rng);
    for (size_t i = 0; i < N; i++) {
        uint32_t side = encoder_image_side(b->encoder);
        uint32_t channels = encoder_image_channels(b->encoder);
        assert_int_equal(image_new(&b->images[i], side, side, channels), OK);
        for (size_t j = 0; j < (size_t)side * side * channels; j++)
            b->images[i].pixels[j] = (uint8_t)rng_below(&rng, 256);
        b->inputs[i].image = i == NONE ? NULL : &b->images[i];
    }
}

static void
close_bench(struct bench *b)
{
    for (size_t i = 0; i < N; i++)
        image_release(&b->images[i]);
    mem_free(b->out);
    mem_free(b->projection);
    encoder_grads_free(b->grads);
    encoder_tape_free(b->tape);
    encoder_free(b->encoder);
}

static double
objective(struct bench *b, struct pool *pool)
{
    double sum = 0;
    assert_int_equal(
        encoder_forward(b->encoder, b->tape, b->inputs, N, NULL, b->out, pool),
        OK);
    for (size_t i = 0; i < b->n_out; i++)
        sum += (double)b->out[i] * (double)b->projection[i];
    return sum;
}

static void
backward(struct bench *b, struct pool *pool)
{
    assert_int_equal(
        encoder_backward(b->encoder, b->tape, b->projection, b->grads, pool),
        OK);
}

/* The objective's slope along direction [n] from parameter start. */
static double
slope(struct bench *b, size_t start, size_t n, const double *direction,
    double step)
{
    float *p = b->params + start;
    float *at = mem_alloc(n, sizeof *at);
    double moved = 0, high, low;

    memcpy(at, p, n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)((double)at[i] + step * direction[i]);
    for (size_t i = 0; i < n; i++)
        moved += ((double)p[i] - (double)at[i]) * direction[i];
    high = objective(b, NULL);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)((double)at[i] - step * direction[i]);
    for (size_t i = 0; i < n; i++)
        moved -= ((double)p[i] - (double)at[i]) * direction[i];
    low = objective(b, NULL);
    memcpy(p, at, n * sizeof *p);
    mem_free(at);
    return (high - low) / moved; /* directions have norm 1 */
}

static void
compare(struct bench *b, const float *grad, struct encoder_segment seg,
    const double *direction, const char *what)
{
    double exact = 0, norm = 0;
    for (size_t i = 0; i < seg.n; i++) {
        exact += (double)grad[seg.start + i] * direction[i];
        norm +=
            (double)b->params[seg.start + i] * (double)b->params[seg.start + i];
    }
    /* a long step meets the corners of the ReLUs, a short one the rounding of
       the output; a wrong derivative fails with all */
    static const double steps[] = {3e-3, 3e-4, 1e-4, 3e-5};
    double err = INFINITY, numeric = 0;
    for (size_t i = 0; i < ARRAY_LEN(steps) && !(err <= TOLERANCE); i++) {
        numeric = slope(b, seg.start, seg.n, direction, steps[i] * sqrt(norm));
        err = fabs(numeric - exact) /
              fmax(fmax(fabs(numeric), fabs(exact)), FLOOR);
    }
    if (!(err <= TOLERANCE))
        print_error("%s at %zu (%zu): %g by differences, %g by backward\n",
            what, seg.start, seg.n, numeric, exact);
    assert_true(err <= TOLERANCE);
}

static void
check_network(const char *config)
{
    struct bench b;
    struct rng rng;

    open_bench(&b, config);
    rng_seed(&rng, 6);
    objective(&b, NULL);
    backward(&b, NULL);
    assert_true(b.grads->n_segments > 8);
    float *grad = mem_alloc(b.n_params, sizeof *grad);
    memcpy(grad, b.grads->d_params, b.n_params * sizeof *grad);
    double *direction = mem_alloc(b.n_params, sizeof *direction);
    for (size_t s = 0; s < b.grads->n_segments; s++) {
        struct encoder_segment seg = b.grads->segments[s];
        double norm = 0, random = 0;
        if (s > 0)
            assert_true(seg.start >= b.grads->segments[s - 1].start +
                                         b.grads->segments[s - 1].n);
        for (size_t i = 0; i < seg.n; i++)
            norm += (double)grad[seg.start + i] * (double)grad[seg.start + i];
        assert_true(norm > 0);
        for (size_t i = 0; i < seg.n; i++)
            direction[i] = (double)grad[seg.start + i] / sqrt(norm);
        compare(&b, grad, seg, direction, "along the gradient");
        for (size_t i = 0; i < seg.n; i++) {
            direction[i] += rng_normal(&rng) / sqrt((double)seg.n);
            random += direction[i] * direction[i];
        }
        for (size_t i = 0; i < seg.n; i++)
            direction[i] /= sqrt(random);
        compare(&b, grad, seg, direction, "beside the gradient");
    }
    mem_free(direction);
    mem_free(grad);
    close_bench(&b);
}

static void
networks(void **state)
{
    (void)state;
    check_network("{\"input\":28,\"channels\":1,\"width\":16,\"blocks\":1,"
                  "\"stages\":2,\"dims\":16}");
    check_network("{\"input\":32,\"width\":16,\"blocks\":2,\"stages\":1,"
                  "\"stem_stride\":4,\"grid\":2,\"dims\":24}");
    check_network("{\"input\":28,\"width\":16,\"blocks\":1,\"stages\":3,"
                  "\"stem_stride\":4,\"linear\":false}");
    check_network("{\"input\":29,\"channels\":1,\"width\":32,\"blocks\":1,"
                  "\"stages\":1,\"stem_stride\":1,\"dims\":8}");
}

/* Backward twice doubles; the same bits with any pool. */
static void
sums_and_threads(void **state)
{
    struct bench b;
    struct pool *pools[3];
    float *first, *out;
    (void)state;

    open_bench(&b, "{\"input\":28,\"width\":16,\"blocks\":1,\"dims\":16}");
    first = mem_alloc(b.n_params, sizeof *first);
    out = mem_alloc(b.n_out, sizeof *out);
    objective(&b, NULL);
    memcpy(out, b.out, b.n_out * sizeof *out);
    backward(&b, NULL);
    memcpy(first, b.grads->d_params, b.n_params * sizeof *first);
    backward(&b, NULL);
    for (size_t i = 0; i < b.n_params; i++)
        assert_true(fabsf(b.grads->d_params[i] - 2 * first[i]) <=
                    1e-5f * fabsf(first[i]) + 1e-7f);
    for (size_t t = 0; t < 3; t++) {
        assert_int_equal(pool_new(&pools[t], t + 1, false), OK);
        encoder_grads_clear(b.grads);
        objective(&b, pools[t]);
        assert_memory_equal(out, b.out, b.n_out * sizeof *out);
        backward(&b, pools[t]);
        assert_memory_equal(
            first, b.grads->d_params, b.n_params * sizeof *first);
        pool_free(pools[t]);
    }
    mem_free(first);
    mem_free(out);
    close_bench(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks),
        cmocka_unit_test(sums_and_threads),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
