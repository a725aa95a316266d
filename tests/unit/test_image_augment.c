/*
 * Goal: views are what augment.h says: the same for the same state, each step
 * by its formula and as often as its probability, nothing out of bounds.
 *
 * Method: options that switch on one step at a time, compared with that step
 * computed here in double; crops measured from ramps; rates over thousands of
 * views against five standard deviations; pictures of 1 x 1 and 1 x N under
 * every option, beside guards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "base/alloc.h"
#include "image/augment.h"
#include "tests/support/image_kit.h"

/* Every step off: the view is image_fit. */
static const struct augment_options identity = {
    .crop_min = 1.0F, .crop_max = 1.0F, .ratio = 1.0F};

enum { SIDE_MAX = 128 };
static uint8_t view[SIDE_MAX * SIDE_MAX * 3];
static float workspace[2 * SIDE_MAX * SIDE_MAX * 3];

static void
make(uint32_t side, const struct image *in, const struct augment_options *o,
    struct rng *rng)
{
    assert_true(
        augment_workspace_floats(side, in->channels) <= ARRAY_LEN(workspace));
    augment(view, side, in->channels, in, o, rng, workspace);
}

static void
test_identity_is_the_fit(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {
        {28, 28}, {64, 40}, {40, 64}, {9, 5}, {1, 1}, {1, 33}, {200, 150}};

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (uint32_t C = 1; C <= 3; C += 2) {
            struct image in;
            struct rng rng;
            uint8_t want[28 * 28 * 3];
            rng_seed(&rng, i);
            image_kit_paint(&in, sizes[i][0], sizes[i][1], C, i);
            make(28, &in, &identity, &rng);
            image_fit(want, 28, C, &in);
            assert_memory_equal(view, want, 28 * 28 * C);
            image_release(&in);
        }
    }
}

static struct augment_options
everything(void)
{
    struct augment_options o;

    augment_options_default(&o, 3);
    o.blur = o.solarise = o.erase = o.grey = 0.5F;
    o.rotate = 30.0F;
    return o;
}

static void
test_same_state_same_view(void **state)
{
    (void)state;
    struct augment_options o = everything();
    struct image in;
    uint8_t first[64 * 64 * 3];
    size_t n_same = 0;

    image_kit_paint(&in, 80, 70, 3, 1);
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rng rng, twin;
        rng_seed(&rng, seed);
        twin = rng;
        make(64, &in, &o, &rng);
        memcpy(first, view, sizeof(first));
        memset(workspace, 0xFF, sizeof(workspace)); /* NaN */
        make(64, &in, &o, &twin);
        assert_memory_equal(first, view, sizeof(first));
        assert_memory_equal(&rng, &twin, sizeof(rng));
        make(64, &in, &o, &rng); /* another */
        n_same += memcmp(first, view, sizeof(first)) == 0;
    }
    assert_int_equal(n_same, 0);
    image_release(&in);
}

/* ---- crops and flips -------------------------------------------------------
 */

/* A picture whose first channel is x and second y, in 0..249. */
static void
coordinates(struct image *image)
{
    assert_int_equal(image_new(image, 250, 250, 3), OK);
    for (size_t i = 0; i < 250 * 250; i++) {
        image->pixels[i * 3] = (uint8_t)(i % 250);
        image->pixels[i * 3 + 1] = (uint8_t)(i / 250);
    }
}

/* The rectangle that a view of `coordinates` shows, from two of its pixels
   away from the edge. */
static void
seen(uint32_t side, double *x, double *y, double *w, double *h)
{
    size_t a = side / 4, b = side - 1 - side / 4;
    const uint8_t *p = view + (a * side + a) * 3;
    const uint8_t *q = view + (b * side + b) * 3;

    *w = (q[0] - p[0]) * (double)side / (double)(b - a);
    *h = (q[1] - p[1]) * (double)side / (double)(b - a);
    *x = p[0] + 0.5 - *w * ((double)a + 0.5) / side;
    *y = p[1] + 0.5 - *h * ((double)a + 0.5) / side;
}

static void
test_crops(void **state)
{
    (void)state;
    enum { N = 4000 };
    struct augment_options o = identity;
    struct image in;
    struct rng rng;
    double areas = 0.0, logs = 0.0, lefts = 0.0;
    double low = 1.0, high = 0.0, ratio_high = 0.0;

    o.crop_min = 0.2F;
    o.crop_max = 0.6F;
    o.ratio = 1.5F;
    rng_seed(&rng, 1);
    coordinates(&in);
    for (int i = 0; i < N; i++) {
        double x, y, w, h;
        make(32, &in, &o, &rng);
        seen(32, &x, &y, &w, &h);
        assert_true(x > -4 && y > -4 && x + w < 254 && y + h < 254);
        double area = w * h / 62500, ratio = log(w / h);
        low = fmin(low, area);
        high = fmax(high, area);
        ratio_high = fmax(ratio_high, fabs(ratio));
        areas += area / N;
        logs += ratio / N;
        lefts += x / (250 - w) / N;
    }
    assert_true(low > 0.17 && low < 0.23);
    assert_true(high > 0.57 && high < 0.63);
    assert_true(fabs(areas - 0.4) < 5 * 0.4 / sqrt(12.0 * N) + 0.005);
    assert_true(fabs(logs) < 5 * 0.82 / sqrt(12.0 * N));
    assert_true(ratio_high > 0.35 && ratio_high < 0.45);
    assert_true(fabs(lefts - 0.5) < 5 / sqrt(12.0 * N) + 0.005);
    image_release(&in);
}

static void
test_flip_rate(void **state)
{
    (void)state;
    enum { N = 4000 };
    struct augment_options o = identity;
    struct image in;
    struct rng rng;
    int n = 0;

    o.flip = 0.3F;
    rng_seed(&rng, 2);
    coordinates(&in);
    for (int i = 0; i < N; i++) {
        make(16, &in, &o, &rng);
        bool flipped = view[0] > 128;
        for (uint32_t x = 0; x < 16; x++) {
            uint8_t fit[16 * 16 * 3];
            if (i == 0 || i == 1)
                image_fit(fit, 16, 3, &in);
            else
                break;
            assert_int_equal(view[x * 3], fit[(flipped ? 15 - x : x) * 3]);
        }
        n += flipped;
    }
    assert_true(fabs(n - 0.3 * N) < 5 * sqrt(0.21 * N));
    image_release(&in);
}

/* A turned view of `coordinates` shows a turned square about the centre. */
static void
test_rotation(void **state)
{
    (void)state;
    struct augment_options o = identity;
    struct image in;
    struct rng rng;
    double largest = 0.0;

    o.rotate = 25.0F;
    rng_seed(&rng, 3);
    coordinates(&in);
    for (int i = 0; i < 300; i++) {
        make(33, &in, &o, &rng);
        const uint8_t *centre = view + (16 * 33 + 16) * 3;
        const uint8_t *right = view + (16 * 33 + 26) * 3;
        const uint8_t *below = view + (26 * 33 + 16) * 3;
        assert_true(abs(centre[0] - 124) <= 1 && abs(centre[1] - 124) <= 1);
        double dx = right[0] - centre[0], dy = right[1] - centre[1];
        double angle = atan2(dy, dx) * 180 / 3.14159265358979;
        largest = fmax(largest, fabs(angle));
        assert_true(fabs(hypot(dx, dy) - 10 * 250.0 / 33) < 2.0);
        assert_true(abs((below[0] - centre[0]) + (right[1] - centre[1])) <= 2);
        assert_true(abs((below[1] - centre[1]) - (right[0] - centre[0])) <= 2);
    }
    assert_true(largest > 23.0 && largest < 26.0);
    image_release(&in);
}

/* ---- colour ----------------------------------------------------------------
 */

static double
luma_of(const double v[3])
{
    return 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2];
}

/* Middling values, so that clamping does not hide a step. */
static void
middling(struct image *in, uint32_t C)
{
    image_kit_paint(in, 24, 24, C, 8);
    for (size_t i = 0; i < 24 * 24 * C; i++)
        in->pixels[i] = (uint8_t)(100 + in->pixels[i] / 8);
}

/* The factor that a jitter of one kind used, from its pixel of most effect;
   then every pixel must follow. */
static void
test_each_jitter(void **state)
{
    (void)state;
    for (int step = 0; step < 3; step++) {
        for (uint32_t C = step == 2 ? 3 : 1; C <= 3; C += 2) {
            struct augment_options o = identity;
            struct image in;
            struct rng rng;
            double mean = 0.0, low = 9.0, high = -9.0;
            o.jitter = 1.0F;
            o.brightness = step == 0 ? 0.3F : 0.0F;
            o.contrast = step == 1 ? 0.3F : 0.0F;
            o.saturation = step == 2 ? 0.3F : 0.0F;
            rng_seed(&rng, 4);
            middling(&in, C);
            for (size_t i = 0; i < 24 * 24; i++) {
                const uint8_t *p = in.pixels + i * C;
                double v[3] = {p[0], p[C / 2], p[C - 1]};
                mean += (C == 1 ? v[0] : luma_of(v)) / (24 * 24);
            }
            for (int round = 0; round < 200; round++) {
                double best = 0.0, factor = 1.0;
                make(24, &in, &o, &rng);
                for (int pass = 0; pass < 2; pass++) {
                    for (size_t i = 0; i < 24 * 24 * C; i++) {
                        const uint8_t *p = in.pixels + i / C * C;
                        double v[3] = {p[0], p[C / 2], p[C - 1]};
                        double base = step == 0   ? 0.0
                                      : step == 1 ? mean
                                                  : luma_of(v);
                        double from = in.pixels[i] - base;
                        if (pass == 0 && fabs(from) > best) {
                            best = fabs(from);
                            factor = (view[i] - base) / from;
                        }
                        if (pass == 1) {
                            assert_true(fabs(base + factor * from - view[i]) <
                                        0.51 + 0.51 * fabs(from) / best);
                        }
                    }
                }
                low = fmin(low, factor);
                high = fmax(high, factor);
            }
            double slack = step == 0 ? 0.02 : 0.05;
            assert_true(low > 0.7 - slack && low < 0.7 + slack);
            assert_true(high > 1.3 - slack && high < 1.3 + slack);
            image_release(&in);
        }
    }
}

/* Hue keeps luma and the length of (I, Q), and turns red by no more than
   asked; grey pictures stay. */
static void
test_hue_turns(void **state)
{
    (void)state;
    struct augment_options o = identity;
    struct image in;
    struct rng rng;
    double largest = 0.0;

    o.jitter = 1.0F;
    o.hue = 0.2F;
    rng_seed(&rng, 5);
    middling(&in, 3);
    memset(in.pixels, 120, 3);
    for (int round = 0; round < 300; round++) {
        make(24, &in, &o, &rng);
        assert_int_equal(view[0], 120);
        assert_int_equal(view[2], 120);
        for (size_t i = 1; i < 24 * 24; i++) {
            double yiq[2][3];
            for (int k = 0; k < 2; k++) {
                const uint8_t *p = (k == 0 ? in.pixels : view) + i * 3;
                double v[3] = {p[0], p[1], p[2]}, Y = luma_of(v);
                yiq[k][0] = Y;
                yiq[k][1] = 0.74 * (v[0] - Y) - 0.27 * (v[2] - Y);
                yiq[k][2] = 0.48 * (v[0] - Y) + 0.41 * (v[2] - Y);
            }
            double a = hypot(yiq[0][1], yiq[0][2]);
            double b = hypot(yiq[1][1], yiq[1][2]);
            assert_true(fabs(yiq[0][0] - yiq[1][0]) < 0.6);
            assert_true(fabs(a - b) < 1.1);
            if (a > 12.0) {
                double turn =
                    atan2(yiq[1][2], yiq[1][1]) - atan2(yiq[0][2], yiq[0][1]);
                turn = fabs(remainder(turn / 6.283185307, 1.0));
                largest = fmax(largest, turn);
            }
        }
    }
    assert_true(largest > 0.19 && largest < 0.22);
    image_release(&in);
}

/* How often: nothing of jitter but its probability, grey and solarise. */
static void
test_rates(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct augment_options o = identity;
    struct image in;
    struct rng rng;
    int n_jitter = 0, n_grey = 0, n_solarise = 0;

    o.jitter = 0.8F;
    o.brightness = 0.5F;
    o.grey = 0.2F;
    o.solarise = 0.4F;
    rng_seed(&rng, 6);
    assert_int_equal(image_new(&in, 4, 4, 3), OK);
    for (size_t i = 0; i < 16; i++) /* too dark to be solarised but for one */
        memcpy(in.pixels + i * 3, i == 0 ? "\xFF\xFF\xFF" : "\x32\x1E\x0A", 3);
    for (int i = 0; i < N; i++) {
        make(4, &in, &o, &rng);
        bool grey = view[3] == view[4] && view[4] == view[5];
        n_grey += grey;
        n_solarise += view[0] < 128;
        n_jitter += !grey && (view[3] != 0x32 || view[5] != 0x0A);
        if (grey && view[3] == 34) /* 0.299 50 + 0.587 30 + 0.114 10 = 33.7 */
            assert_int_equal(view[5], 34);
    }
    assert_true(fabs(n_grey - 0.2 * N) < 5 * sqrt(0.16 * N));
    assert_true(fabs(n_solarise - 0.4 * N) < 5 * sqrt(0.24 * N) + 30);
    assert_true(fabs(n_jitter - 0.8 * 0.8 * N) < 5 * sqrt(0.23 * N) + 60);
    image_release(&in);
}

static void
test_solarise(void **state)
{
    (void)state;
    struct augment_options o = identity;
    struct image in;
    struct rng rng;

    o.solarise = 1.0F;
    rng_seed(&rng, 9);
    assert_int_equal(image_new(&in, 16, 16, 1), OK);
    for (size_t i = 0; i < 256; i++)
        in.pixels[i] = (uint8_t)i;
    make(16, &in, &o, &rng);
    for (size_t i = 0; i < 256; i++)
        assert_int_equal(view[i], i < 128 ? i : 255 - i);
    image_release(&in);
}

/* ---- blur, erase -----------------------------------------------------------
 */

/* A point becomes a Gaussian of the drawn sigma: its variance, the same in both
   directions, gives sigma; an edge at the border is as if repeated. */
static void
test_blur(void **state)
{
    (void)state;
    struct augment_options o = identity;
    struct image in, flat;
    struct rng rng;
    double low = 99.0, high = 0.0;

    o.blur = 1.0F;
    rng_seed(&rng, 7);
    assert_int_equal(image_new(&in, 112, 112, 1), OK);
    assert_int_equal(image_new(&flat, 112, 112, 3), OK);
    memset(flat.pixels, 77, 112 * 112 * 3);
    memset(in.pixels, 255, 112 * 112);
    for (size_t y = 56; y < 112; y++) /* a step edge, in y */
        memset(in.pixels + y * 112, 0, 112);
    for (int round = 0; round < 200; round++) {
        double moment = 0.0, total = 0.0;
        make(112, &in, &o, &rng);
        for (size_t y = 1; y < 112; y++) {
            double d = view[(y - 1) * 112 + 5] - view[y * 112 + 5];
            assert_true(d >= 0.0);
            assert_int_equal(view[y * 112], view[y * 112 + 111]);
            total += d;
            moment += d * pow((double)y - 56, 2);
        }
        assert_int_equal(total, 255);
        double sigma = sqrt(moment / total);
        low = fmin(low, sigma);
        high = fmax(high, sigma);
        make(112, &flat, &o, &rng);
        for (size_t i = 0; i < 112 * 112 * 3; i++)
            assert_int_equal(view[i], 77);
    }
    assert_true(low < 0.2);
    assert_true(high > 0.9 && high < 1.02); /* 2 at side 224 */
    image_release(&in);
    image_release(&flat);
}

static void
test_erase(void **state)
{
    (void)state;
    struct augment_options o = identity;
    struct image in;
    struct rng rng;
    double low = 1.0, high = 0.0;

    o.erase = 1.0F;
    rng_seed(&rng, 8);
    assert_int_equal(image_new(&in, 40, 40, 1), OK);
    for (size_t i = 0; i < 1600; i++) /* no two neighbours alike */
        in.pixels[i] = (uint8_t)(i % 40 * 3 + i / 40 * 3);
    for (int round = 0; round < 500; round++) {
        size_t n = 0;
        size_t left = 40, right = 0, top = 40, bottom = 0;
        double sum = 0.0;
        make(40, &in, &o, &rng);
        for (size_t y = 0; y < 40; y++) {
            for (size_t x = 0; x < 40; x++) {
                if (view[y * 40 + x] != in.pixels[y * 40 + x]) {
                    left = MIN(left, x);
                    right = MAX(right, x);
                    top = MIN(top, y);
                    bottom = MAX(bottom, y);
                }
            }
        }
        assert_true(left <= right);
        uint8_t value = view[top * 40 + left];
        for (size_t y = top; y <= bottom; y++) {
            for (size_t x = left; x <= right; x++, n++) {
                assert_int_equal(view[y * 40 + x], value);
                sum += in.pixels[y * 40 + x];
            }
        }
        assert_true(fabs(sum / (double)n - value) <= 3.0);
        low = fmin(low, (double)n / 1600);
        high = fmax(high, (double)n / 1600);
    }
    assert_true(low < 0.05 && high > 0.28 && high < 0.36);
    image_release(&in);
}

/* ---- bounds ----------------------------------------------------------------
 */

/* Blocks of the exact size, so that a sanitizer sees a byte too far. */
static void
test_tiny_pictures_in_bounds(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {
        {1, 1}, {1, 2}, {2, 1}, {1, 300}, {300, 1}, {3, 3}, {65, 2}};
    static const uint32_t sides[] = {1, 2, 3, 64, 65};

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t s = 0; s < ARRAY_LEN(sides); s++) {
            for (uint32_t C = 1; C <= 3; C += 2) {
                uint32_t side = sides[s];
                struct augment_options o = everything();
                struct image in;
                struct rng rng;
                size_t n = (size_t)side * side * C;
                uint8_t *out = mem_alloc(n, 1);
                float *work =
                    mem_alloc(augment_workspace_floats(side, C), sizeof(*work));
                assert_non_null(out);
                assert_non_null(work);
                rng_seed(&rng, i);
                image_kit_paint(&in, sizes[i][0], sizes[i][1], C, i);
                memset(in.pixels, 200, (size_t)in.width * in.height * C);
                for (int round = 0; round < 60; round++) {
                    o.rotate = round % 2 == 0 ? 180.0F : 0.0F;
                    o.crop_min = round % 3 == 0 ? 1e-6F : 0.3F;
                    augment(out, side, C, &in, &o, &rng, work);
                }
                o = identity; /* one colour stays one, however sampled */
                o.rotate = 180.0F;
                o.crop_min = 1e-6F;
                o.ratio = 10.0F;
                for (int round = 0; round < 60; round++) {
                    augment(out, side, C, &in, &o, &rng, work);
                    for (size_t k = 0; k < n; k++)
                        assert_int_equal(out[k], 200);
                }
                image_release(&in);
                mem_free(out);
                mem_free(work);
            }
        }
    }
}

static void
test_defaults(void **state)
{
    (void)state;
    struct augment_options grey, colour;

    augment_options_default(&grey, 1);
    augment_options_default(&colour, 3);
    /* what a grey picture has not is not changed */
    assert_true(grey.saturation == 0.0F && grey.hue == 0.0F);
    assert_true(grey.grey == 0.0F && grey.brightness > colour.brightness);
    assert_true(colour.hue > 0.0F && colour.grey > 0.0F);
    assert_true(colour.erase == 0.0F && colour.rotate == 0.0F);
    assert_true(colour.blur == 0.0F);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity_is_the_fit),
        cmocka_unit_test(test_same_state_same_view),
        cmocka_unit_test(test_crops),
        cmocka_unit_test(test_flip_rate),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_each_jitter),
        cmocka_unit_test(test_hue_turns),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_solarise),
        cmocka_unit_test(test_blur),
        cmocka_unit_test(test_erase),
        cmocka_unit_test(test_tiny_pictures_in_bounds),
        cmocka_unit_test(test_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
