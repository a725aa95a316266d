/*
 * Goal: the vision encoder and its gradient are those of an independent
 * implementation.
 *
 * Method: two small networks whose parameters, pictures and projection are
 * formulas (make_vision.py); vectors to 1e-5, and of every tensor's gradient
 * its norm and one projection to 1e-4 of the norm.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/check.h"
#include "image/image.h"
#include "kern/kern.h"
#include "model/encoder.h"
#include "tests/golden/vision.h"

#define N 9

static double
wave(size_t i, size_t step)
{
    return (double)(i * step % 1021) / 512 - 1;
}

/* Segments come as weight, gain, bias of each convolution; then the linear
   layer's two. */
static void
set_params(struct encoder *e, const struct encoder_grads *grads)
{
    size_t n;
    float *p = encoder_params(e, &n);
    for (size_t s = 0; s < grads->n_segments; s++) {
        struct encoder_segment seg = grads->segments[s];
        bool gain = s % 3 == 1 && s + 2 < grads->n_segments;
        for (size_t i = seg.start; i < seg.start + seg.n; i++)
            p[i] = (float)(gain ? 1 + wave(i, 37) / 2 : wave(i, 37));
    }
}

static void
check_network(const char *config, const double *vectors, size_t n_vectors,
    const double *gradients, size_t n_gradients)
{
    struct encoder *e;
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct image images[N];
    struct encoder_input inputs[N];

    assert_int_equal(encoder_new(&e, "vision", config, NULL, NULL), OK);
    assert_int_equal(encoder_tape_new(&tape, e), OK);
    assert_int_equal(encoder_grads_new(&grads, e), OK);
    size_t side = encoder_image_side(e), D = encoder_dims(e);
    size_t bytes = side * side * encoder_image_channels(e);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(image_new(&images[i], (uint32_t)side, (uint32_t)side,
                             encoder_image_channels(e)),
            OK);
        for (size_t j = 0; j < bytes; j++) {
            size_t at = i * bytes + j;
            images[i].pixels[j] =
                (uint8_t)((at * 31 + at / 7 * 3 + at / 300 * 11) % 256);
        }
        inputs[i] = (struct encoder_input){.image = &images[i]};
    }
    float *z = mem_calloc(N * D, sizeof *z), *d = mem_calloc(N * D, sizeof *d);
    for (size_t i = 0; i < N * D; i++)
        d[i] = (float)wave(i, 91);
    /* once for the list of segments */
    assert_int_equal(encoder_forward(e, tape, inputs, N, NULL, z, NULL), OK);
    assert_int_equal(encoder_backward(e, tape, d, grads, NULL), OK);
    set_params(e, grads);
    encoder_grads_clear(grads);
    assert_int_equal(encoder_forward(e, tape, inputs, N, NULL, z, NULL), OK);
    assert_int_equal(encoder_backward(e, tape, d, grads, NULL), OK);

    assert_int_equal(n_vectors, 3 * D);
    for (size_t i = 0; i < n_vectors; i++) {
        double got = (double)z[i / D * 4 * D + i % D];
        if (!(fabs(got - vectors[i]) <= 1e-5))
            print_error("vector %zu: %g, not %g\n", i, got, vectors[i]);
        assert_true(fabs(got - vectors[i]) <= 1e-5);
    }
    assert_int_equal(n_gradients, 2 * grads->n_segments);
    for (size_t s = 0; s < grads->n_segments; s++) {
        struct encoder_segment seg = grads->segments[s];
        double along = 0, square = 0;
        for (size_t i = 0; i < seg.n; i++) {
            double g = (double)grads->d_params[seg.start + i];
            along += g * wave(i, 53);
            square += g * g;
        }
        double want = gradients[2 * s], norm = gradients[2 * s + 1];
        if (!(fabs(along - want) <= 1e-4 * norm &&
                fabs(sqrt(square) - norm) <= 1e-4 * norm))
            print_error("segment %zu: %g of norm %g, not %g of norm %g\n", s,
                along, sqrt(square), want, norm);
        assert_true(fabs(along - want) <= 1e-4 * norm);
        assert_true(fabs(sqrt(square) - norm) <= 1e-4 * norm);
    }
    mem_free(z);
    mem_free(d);
    for (size_t i = 0; i < N; i++)
        image_release(&images[i]);
    encoder_grads_free(grads);
    encoder_tape_free(tape);
    encoder_free(e);
}

static void
networks(void **state)
{
    (void)state;
    check_network("{\"input\":28,\"channels\":1,\"width\":16,\"stages\":2,"
                  "\"blocks\":1,\"stem_stride\":2,\"grid\":1,\"dims\":8}",
        vectors_0, ARRAY_LEN(vectors_0), gradients_0, ARRAY_LEN(gradients_0));
    check_network("{\"input\":29,\"channels\":3,\"width\":32,\"stages\":1,"
                  "\"blocks\":2,\"stem_stride\":4,\"grid\":3,\"dims\":16}",
        vectors_1, ARRAY_LEN(vectors_1), gradients_1, ARRAY_LEN(gradients_1));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(networks)};
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
