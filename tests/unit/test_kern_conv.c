/*
 * Goal: every pass of a convolution is the sum of its definition, by the
 * library's kernels and by the plain loops, and weights come back as they were
 * packed.
 *
 * Method: a reference in double over the definition's indices, on unblocked
 * arrays; shapes with every kernel size and stride that encoders use, sides
 * that the stride divides and that it does not, one and several blocks of
 * channels, pictures of one and three. The bound is that of the header. The
 * library must have kernels for the shapes that cost most.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/rng.h"
#include "kern/conv.h"

static const struct conv_shape shapes[] = {{2, 32, 16, 7, 3, 1},
    {1, 16, 32, 9, 3, 2}, {3, 16, 16, 8, 3, 2}, {2, 32, 16, 7, 1, 2},
    {1, 16, 16, 5, 1, 1}, {2, 1, 32, 28, 5, 2}, {2, 3, 16, 32, 5, 2},
    {1, 3, 16, 29, 7, 4}, {1, 1, 16, 28, 7, 4}, {2, 3, 16, 9, 3, 1},
    {1, 1, 16, 6, 3, 1}, {1, 16, 16, 1, 3, 1}, {1, 16, 16, 2, 3, 2}};

struct arrays {
    struct conv_shape s;
    size_t P, n_x, n_y, n_w;
    float *x, *y, *w;       /* [N, C, H, W], [O, I, K, K] */
    float *bx, *by, *bw[2]; /* as kernels have them; bw by pass */
    double *ref, *bound;    /* of the largest array */
    float *out;
};

/* The place of channel c, pixel p of image n in the blocked form. */
static size_t
blocked(size_t n, size_t c, size_t p, size_t C, size_t HW)
{
    size_t b = conv_block();
    if (C % b != 0)
        return (n * C + c) * HW + p;
    return ((n * C + c) / b * HW + p) * b + c % b;
}

static void
block_maps(float *out, const float *in, size_t n, size_t C, size_t HW)
{
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < C; c++)
            for (size_t p = 0; p < HW; p++)
                out[blocked(i, c, p, C, HW)] = in[(i * C + c) * HW + p];
}

static float *
noise(size_t n, struct rng *rng)
{
    float *p = mem_alloc_aligned(n, sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_normal(rng);
    return p;
}

static void
open_arrays(struct arrays *a, const struct conv_shape *s)
{
    struct rng rng;
    rng_seed(&rng, 11);
    a->s = *s;
    a->P = conv_side_out(s);
    a->n_x = (size_t)s->n * s->ic * s->side * s->side;
    a->n_y = (size_t)s->n * s->oc * a->P * a->P;
    a->n_w = conv_weights_floats(s);
    size_t most = MAX(MAX(a->n_x, a->n_y), a->n_w);
    a->x = noise(a->n_x, &rng);
    a->y = noise(a->n_y, &rng);
    a->w = noise(a->n_w, &rng);
    a->bx = noise(a->n_x, &rng);
    a->by = noise(a->n_y, &rng);
    block_maps(a->bx, a->x, s->n, s->ic, (size_t)s->side * s->side);
    block_maps(a->by, a->y, s->n, s->oc, a->P * a->P);
    for (size_t i = 0; i < 2; i++) {
        a->bw[i] = noise(a->n_w, &rng);
        conv_pack(a->bw[i], a->w, s, (enum conv_pass)i);
    }
    a->ref = mem_alloc(most, sizeof *a->ref);
    a->bound = mem_alloc(most, sizeof *a->bound);
    a->out = noise(most, &rng);
}

static void
close_arrays(struct arrays *a)
{
    mem_free(a->x);
    mem_free(a->y);
    mem_free(a->w);
    mem_free(a->bx);
    mem_free(a->by);
    mem_free(a->bw[0]);
    mem_free(a->bw[1]);
    mem_free(a->ref);
    mem_free(a->bound);
    mem_free(a->out);
}

/* The pass by its definition: sums and sums of sizes. */
static void
reference(struct arrays *a, enum conv_pass pass, size_t n_out)
{
    const struct conv_shape *s = &a->s;
    size_t H = s->side, K = s->kernel, pad = K / 2;

    for (size_t i = 0; i < n_out; i++)
        a->ref[i] = a->bound[i] = 0;
    for (size_t n = 0; n < s->n; n++)
        for (size_t o = 0; o < s->oc; o++)
            for (size_t r = 0; r < a->P; r++)
                for (size_t c = 0; c < a->P; c++)
                    for (size_t i = 0; i < s->ic; i++)
                        for (size_t k = 0; k < K; k++)
                            for (size_t l = 0; l < K; l++) {
                                size_t row = r * s->stride + k;
                                size_t col = c * s->stride + l;
                                if (row < pad || row >= H + pad || col < pad ||
                                    col >= H + pad)
                                    continue;
                                size_t xi =
                                    ((n * s->ic + i) * H + row - pad) * H +
                                    col - pad;
                                size_t yi =
                                    ((n * s->oc + o) * a->P + r) * a->P + c;
                                size_t wi = ((o * s->ic + i) * K + k) * K + l;
                                size_t to = pass == CONV_FORWARD         ? yi
                                            : pass == CONV_BACKWARD_DATA ? xi
                                                                         : wi;
                                double v =
                                    pass == CONV_FORWARD
                                        ? (double)a->x[xi] * (double)a->w[wi]
                                    : pass == CONV_BACKWARD_DATA
                                        ? (double)a->y[yi] * (double)a->w[wi]
                                        : (double)a->y[yi] * (double)a->x[xi];
                                a->ref[to] += v;
                                a->bound[to] += fabs(v);
                            }
}

static void
check_pass(struct arrays *a, enum conv_pass pass, const char *kernel)
{
    const struct conv_shape *s = &a->s;
    size_t n_out = pass == CONV_FORWARD         ? a->n_y
                   : pass == CONV_BACKWARD_DATA ? a->n_x
                                                : a->n_w;
    size_t C = pass == CONV_FORWARD ? s->oc : s->ic;
    size_t HW = pass == CONV_FORWARD ? a->P * a->P : (size_t)s->side * s->side;
    /* of weights: summed over images and pixels */
    double terms = pass == CONV_BACKWARD_WEIGHTS
                       ? (double)(s->n * a->P * a->P)
                       : (double)(MAX(s->oc, s->ic) * s->kernel * s->kernel);
    float *plain = NULL;

    if (pass == CONV_BACKWARD_WEIGHTS) {
        plain = mem_alloc(a->n_w, sizeof *plain);
        conv_unpack(plain, a->out, s);
    }
    for (size_t i = 0; i < n_out; i++) {
        size_t at =
            plain != NULL ? i : blocked(i / HW / C, i / HW % C, i % HW, C, HW);
        double got = (double)(plain != NULL ? plain[at] : a->out[at]);
        if (!(fabs(got - a->ref[i]) <= terms * 0x1p-23 * a->bound[i]))
            print_error("%u->%u side %u kernel %u stride %u, pass %d, %s: "
                        "%zu is %g, not %g\n",
                s->ic, s->oc, s->side, s->kernel, s->stride, (int)pass, kernel,
                i, got, a->ref[i]);
        assert_true(fabs(got - a->ref[i]) <= terms * 0x1p-23 * a->bound[i]);
    }
    mem_free(plain);
}

static void
passes_are_their_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct arrays a;
        struct conv *conv;
        unsigned passes = shapes[i].ic < 4 ? 5 : 7;

        open_arrays(&a, &shapes[i]);
        assert_int_equal(conv_new(&conv, &shapes[i], passes), OK);
        void *work = mem_alloc_aligned(conv_workspace_bytes(conv) + 1, 1);
        const float *in[CONV_PASSES][2] = {
            {a.bx, a.bw[0]}, {a.by, a.bw[1]}, {a.bx, a.by}};
        size_t n_out[] = {a.n_y, a.n_x, a.n_w};
        for (unsigned pass = 0; pass < CONV_PASSES; pass++) {
            enum conv_pass p = (enum conv_pass)pass;
            if (!(passes & (1u << pass)))
                continue;
            reference(&a, p, n_out[pass]);
            assert_int_equal(
                conv_run(conv, p, a.out, in[pass][0], in[pass][1], work), OK);
            check_pass(&a, p, conv_kernel(conv, p));
            memset(a.out, 0xFF, n_out[pass] * sizeof *a.out);
            conv_plain(&shapes[i], p, a.out, in[pass][0], in[pass][1]);
            check_pass(&a, p, "plain");
        }
        mem_free(work);
        conv_free(conv);
        close_arrays(&a);
    }
}

static void
packing_goes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct arrays a;
        open_arrays(&a, &shapes[i]);
        conv_unpack(a.out, a.bw[0], &shapes[i]);
        assert_memory_equal(a.out, a.w, a.n_w * sizeof *a.w);
        close_arrays(&a);
    }
}

#if defined(__x86_64__) && !defined(KINDRED_CBLAS)
/* Not a matter of right or wrong, but ten times slower without. */
static void
costly_shapes_have_kernels(void **state)
{
    const struct conv_shape costly[] = {
        {8, 32, 32, 14, 3, 1}, {8, 32, 64, 14, 3, 2}, {1, 64, 64, 7, 3, 1}};
    (void)state;
    if (!__builtin_cpu_supports("avx2"))
        skip();
    for (size_t i = 0; i < ARRAY_LEN(costly); i++) {
        struct conv *conv;
        assert_int_equal(conv_new(&conv, &costly[i], 7), OK);
        for (unsigned pass = 0; pass < CONV_PASSES; pass++)
            assert_string_not_equal(
                conv_kernel(conv, (enum conv_pass)pass), "plain");
        conv_free(conv);
    }
}
#endif

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_are_their_definition),
        cmocka_unit_test(packing_goes_back),
#if defined(__x86_64__) && !defined(KINDRED_CBLAS)
        cmocka_unit_test(costly_shapes_have_kernels),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
