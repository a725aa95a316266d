/*
 * Goal: resizing is the area average or the bilinear value, fitting is the
 * centred square of it, and a written PNG holds the picture's pixels.
 *
 * Method: against a reference in double, pixel by pixel over the definition,
 * for sizes that shrink, grow, do both, and have one row or column; exact
 * copies at equal size; the PNG read back; the n-th allocation failing.
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
#include "base/rng.h"
#include "image/decode.h"
#include "image/resample.h"
#include "tests/support/image_kit.h"

static void
fill_noise(
    struct image *image, uint32_t w, uint32_t h, uint32_t C, uint64_t seed)
{
    struct rng rng;

    rng_seed(&rng, seed);
    assert_int_equal(image_new(image, w, h, C), OK);
    for (size_t i = 0; i < (size_t)w * h * C; i++) {
        image->pixels[i] = (uint8_t)rng_below(&rng, 256);
    }
}

/* The weight of source pixel j in result pixel i of an axis of n_in pixels
   from `start`, of which the result has n_out. */
static double
weight(uint32_t i, uint32_t n_out, uint32_t start, uint32_t n_in, uint32_t j)
{
    double step = (double)n_in / n_out;

    if (j < start || j >= start + n_in)
        return 0.0;
    double at = j - start;
    if (step > 1.0) {
        double low = fmax(at, i * step), high = fmin(at + 1, (i + 1) * step);
        return high > low ? (high - low) / step : 0.0;
    }
    double centre = fmin(fmax((i + 0.5) * step - 0.5, 0.0), n_in - 1.0);
    return fmax(0.0, 1.0 - fabs(centre - at));
}

static double
reference(const struct image *in, const uint32_t box[4], uint32_t w, uint32_t h,
    uint32_t x, uint32_t y, uint32_t c)
{
    double sum = 0.0;

    for (uint32_t j = 0; j < in->height; j++) {
        double wy = weight(y, h, box[1], box[3], j);
        if (wy == 0.0)
            continue;
        for (uint32_t i = 0; i < in->width; i++) {
            sum += wy * weight(x, w, box[0], box[2], i) *
                   in->pixels[((size_t)j * in->width + i) * in->channels + c];
        }
    }
    return sum;
}

static void
near(double got, double want)
{
    if (!(fabs(got - want) <= 0.501))
        print_error("%g, not %g\n", got, want);
    assert_true(fabs(got - want) <= 0.501);
}

static void
test_resize(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {1, 40}, {40, 1}, {7, 5},
        {13, 29}, {64, 64}, {65, 3}, {131, 90}};

    for (size_t a = 0; a < ARRAY_LEN(sizes); a++) {
        for (size_t b = 0; b < ARRAY_LEN(sizes); b++) {
            for (uint32_t C = 1; C <= 3; C += 2) {
                struct image in, out;
                uint32_t w = sizes[b][0], h = sizes[b][1];
                fill_noise(&in, sizes[a][0], sizes[a][1], C, a);
                fill_noise(&out, w, h, C, 99);
                uint32_t box[4] = {0, 0, in.width, in.height};
                image_resize(&out, &in);
                if (a == b) {
                    assert_memory_equal(
                        out.pixels, in.pixels, (size_t)w * h * C);
                }
                for (uint32_t y = 0; y < h; y += 1 + h / 9) {
                    for (uint32_t x = 0; x < w; x += 1 + w / 9) {
                        size_t at = ((size_t)y * w + x) * C + C - 1;
                        near(out.pixels[at],
                            reference(&in, box, w, h, x, y, C - 1));
                    }
                }
                image_release(&in);
                image_release(&out);
            }
        }
    }
}

static void
test_fit(void **state)
{
    (void)state;
    static const uint32_t cases[][3] = {{50, 30, 8}, {30, 50, 8}, {9, 31, 20},
        {20, 20, 20}, {31, 20, 20}, {1, 1, 5}, {1, 7, 3}, {300, 2, 5}};

    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        for (int from = 1; from <= 3; from += 2) {
            for (int to = 1; to <= 3; to += 2) {
                struct image in;
                uint8_t out[20 * 20 * 3];
                uint32_t side = cases[k][2], C = (uint32_t)to;
                fill_noise(&in, cases[k][0], cases[k][1], (uint32_t)from, k);
                uint32_t s = MIN(in.width, in.height);
                uint32_t box[4] = {
                    (in.width - s) / 2, (in.height - s) / 2, s, s};
                image_fit(out, side, C, &in);
                for (uint32_t i = 0; i < side * side * C; i++) {
                    uint32_t x = i / C % side, y = i / C / side;
                    double v[3], want;
                    for (uint32_t c = 0; c < in.channels; c++)
                        v[c] = reference(&in, box, side, side, x, y, c);
                    want = from == 1 ? v[0] : v[i % C];
                    if (from == 3 && to == 1)
                        want = 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2];
                    near(out[i], want);
                }
                image_release(&in);
            }
        }
    }
}

/* A box anywhere, of any real size: the mean of a constant picture is the
   constant, and a ramp stays a ramp with the box's centre in its middle. */
static void
test_boxes(void **state)
{
    (void)state;
    struct image flat, ramp;
    struct rng rng;

    rng_seed(&rng, 3);
    assert_int_equal(image_new(&flat, 90, 70, 3), OK);
    assert_int_equal(image_new(&ramp, 90, 70, 1), OK);
    memset(flat.pixels, 137, 90 * 70 * 3);
    for (size_t i = 0; i < 90 * 70; i++)
        ramp.pixels[i] = (uint8_t)(i % 90);
    for (int round = 0; round < 500; round++) {
        struct resample_box box = {
            .w = 0.1 + 89.9 * rng_double(&rng),
            .h = 0.1 + 69.9 * rng_double(&rng),
            .flip = round % 2 == 1,
        };
        float out[11 * 11 * 3];
        box.x = (90.0 - box.w) * rng_double(&rng);
        box.y = (70.0 - box.h) * rng_double(&rng);
        resample_floats(out, 11, 11, &flat, &box);
        for (size_t i = 0; i < 11 * 11 * 3; i++)
            assert_true(fabs((double)out[i] - 137.0) < 1e-3);
        resample_floats(out, 11, 11, &ramp, &box);
        for (size_t x = 0; x < 11; x++) {
            double u = (double)(box.flip ? 10 - x : x) + 0.5;
            double want = box.x + u * box.w / 11 - 0.5;
            /* An average begins and ends within steps of the ramp; at the
               ends, and of a few pixels everywhere, values are clamped. */
            bool inside = x > 0 && x < 10 && box.w > 11;
            double slack = inside ? 0.126 : 0.51;
            assert_true(fabs((double)out[55 + x] - want) <= slack);
        }
    }
    image_release(&flat);
    image_release(&ramp);
}

static void
test_png_round_trip(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {1, 300}, {300, 1}, {61, 47}};

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (uint32_t C = 1; C <= 3; C += 2) {
            struct image in, out;
            struct buf file;
            uint64_t n = 0;
            enum err err = ERR_NOMEM;
            fill_noise(&in, sizes[i][0], sizes[i][1], C, i);
            while (err == ERR_NOMEM) {
                buf_init(&file, 1 << 20);
                (void)alloc_fail_at(++n);
                err = image_write_png(&in, &file);
                (void)alloc_fail_at(0);
                if (err != OK)
                    buf_release(&file);
            }
            assert_int_equal(err, OK);
            assert_true(n > 3);
            assert_int_equal(
                image_decode(&out, file.data, file.len, NULL, NULL), OK);
            assert_int_equal(out.width, in.width);
            assert_int_equal(out.height, in.height);
            assert_int_equal(out.channels, C);
            assert_memory_equal(
                out.pixels, in.pixels, (size_t)in.width * in.height * C);
            size_t len = file.len;
            buf_release(&file);
            buf_init(&file, len - 1);
            assert_int_equal(image_write_png(&in, &file), ERR_TOO_LARGE);
            buf_release(&file);
            image_release(&in);
            image_release(&out);
        }
    }
}

static void
test_new_and_release(void **state)
{
    (void)state;
    struct image image = {0};

    image_release(NULL);
    image_release(&image);
    (void)alloc_fail_at(1);
    assert_int_equal(image_new(&image, 5, 5, 3), ERR_NOMEM);
    (void)alloc_fail_at(0);
    assert_null(image.pixels);
    assert_int_equal(image_new(&image, 5, 4, 3), OK);
    for (size_t i = 0; i < 60; i++)
        assert_int_equal(image.pixels[i], 0);
    image_release(&image);
    image_release(&image);
    assert_int_equal(image.width, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_boxes),
        cmocka_unit_test(test_png_round_trip),
        cmocka_unit_test(test_new_and_release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
