/*
 * Goal: every form of JPEG, PNG and WebP that is offered is decoded to the
 * right pixels, upright, and everything else is refused with the right code
 * and words, before memory is taken by a number in a header.
 *
 * Method: pictures painted here go through the codecs' encoders and back,
 * compared exactly for lossless forms and by mean difference for lossy ones;
 * all eight orientations against a remapping by the definition; the hostile set
 * of image_kit_hostile.c; every file cut at every place; the n-th allocation
 * failing; limits by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "image/decode.h"
#include "tests/support/image_kit.h"

#define FILE_MAX ((size_t)64 << 20)

typedef void encode_fn(
    struct buf *out, const struct image *image, const struct image_kit *kit);

static const struct {
    const char *name;
    encode_fn *encode;
    enum image_format format;
} codecs[] = {
    {"jpeg", image_kit_jpeg, IMAGE_JPEG},
    {"png", image_kit_png, IMAGE_PNG},
    {"webp", image_kit_webp, IMAGE_WEBP},
};

static struct image
decode_with(const struct buf *file, const struct image_limits *limits)
{
    struct image image = {0};
    struct fault fault = {0};
    enum err err = image_decode(&image, file->data, file->len, limits, &fault);

    if (err != OK) {
        print_error("%s: %s\n", err_text(err), fault.detail);
    }
    assert_int_equal(err, OK);
    return image;
}

/* Mean absolute difference of values. */
static double
difference(const struct image *a, const struct image *b)
{
    size_t n = (size_t)a->width * a->height * a->channels;
    double sum = 0.0;

    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, b->channels);
    for (size_t i = 0; i < n; i++) {
        sum += abs(a->pixels[i] - b->pixels[i]);
    }
    return sum / (double)n;
}

/* ---- good files ------------------------------------------------------------
 */

static void
round_trip(encode_fn *encode, const struct image_kit *kit, uint32_t channels,
    double tolerance)
{
    static const uint32_t sizes[][2] = {
        {1, 1}, {1, 50}, {50, 1}, {7, 9}, {16, 16}, {33, 17}, {130, 99}};

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct image in, out;
        struct buf file;
        buf_init(&file, FILE_MAX);
        image_kit_paint(&in, sizes[i][0], sizes[i][1], channels, i);
        encode(&file, &in, kit);
        out = decode_with(&file, NULL);
        double found = difference(&in, &out);
        /* An edge is a larger part of a tiny picture. */
        if (in.width < 10 || in.height < 10)
            found /= 2.0;
        if (!(found <= tolerance)) {
            print_error("%u x %u: %g\n", in.width, in.height, found);
        }
        assert_true(found <= tolerance);
        image_release(&in);
        image_release(&out);
        buf_release(&file);
    }
}

static void
test_round_trips(void **state)
{
    (void)state;
    for (uint32_t channels = 1; channels <= 3; channels += 2) {
        round_trip(
            image_kit_jpeg, &(struct image_kit){.quality = 98}, channels, 2.0);
        round_trip(image_kit_jpeg,
            &(struct image_kit){.quality = 98, .interlaced = true}, channels,
            2.0);
        round_trip(image_kit_png, NULL, channels, 0.0);
        round_trip(image_kit_png, &(struct image_kit){.interlaced = true},
            channels, 0);
    }
    round_trip(image_kit_jpeg,
        &(struct image_kit){.quality = 98, .subsampled = true}, 3, 10.0);
    round_trip(image_kit_webp, &(struct image_kit){.lossless = true}, 3, 0.0);
    round_trip(image_kit_webp, &(struct image_kit){.quality = 95}, 3, 12.0);
}

/* Grey of few bits, a palette, and transparency of each kind, by formula. */
static void
test_forms_of_png_and_alpha(void **state)
{
    (void)state;
    static const struct image_kit kits[] = {
        {.depth = 1},
        {.depth = 2},
        {.depth = 4},
        {.depth = 4, .interlaced = true},
        {.palette = true},
        {.palette = true, .alpha = true},
        {.alpha = true},
        {.alpha = true, .interlaced = true},
        {.alpha = true, .lossless = true},
    };
    for (size_t k = 0; k < ARRAY_LEN(kits); k++) {
        const struct image_kit *kit = &kits[k];
        for (uint32_t C = 1; C <= 3; C += 2) {
            bool few = kit->depth != 0;
            if ((few && C == 3) || ((kit->palette || kit->lossless) && C == 1))
                continue;
            struct image in, out;
            struct buf file;
            buf_init(&file, FILE_MAX);
            image_kit_paint(&in, 61, 300, C, k);
            if (kit->lossless)
                image_kit_webp(&file, &in, kit);
            else
                image_kit_png(&file, &in, kit);
            out = decode_with(&file, NULL);
            assert_int_equal(out.width, in.width);
            assert_int_equal(out.height, in.height);
            assert_int_equal(out.channels, C);
            for (uint32_t i = 0; i < 61 * 300 * C; i++) {
                uint32_t x = i / C % 61, y = i / C / 61, c = i % C;
                double v = in.pixels[i];
                double alpha = kit->alpha ? (x + y) % 256 : 255;
                if (few) {
                    int top = (1 << kit->depth) - 1;
                    v = (in.pixels[i] >> (8 - kit->depth)) * 255.0 / top;
                }
                if (kit->palette) {
                    unsigned n = 0;
                    for (uint32_t j = 0; j < 3; j++)
                        n = n * 6 + (in.pixels[i - c + j] + 25U) / 51;
                    v = (in.pixels[i] + 25) / 51 * 51;
                    alpha = kit->alpha ? n : 255;
                }
                double want = v * alpha / 255 + 255 - alpha;
                assert_true(out.pixels[i] - want <= 0.51);
                assert_true(out.pixels[i] - want >= -0.51);
            }
            image_release(&in);
            image_release(&out);
            buf_release(&file);
        }
    }
}

/* Where pixel (x, y) of the stored w x h picture is seen, by EXIF's words for
   where row 0 and column 0 are. */
static void
seen_at(uint32_t orientation, uint32_t w, uint32_t h, uint32_t x, uint32_t y,
    uint32_t *X, uint32_t *Y)
{
    static const char *const row_0[] = {
        "top", "top", "bottom", "bottom", "left", "right", "right", "left"};
    static const char *const column_0[] = {
        "left", "right", "right", "left", "top", "top", "bottom", "bottom"};
    const char *row = row_0[orientation - 1], *col = column_0[orientation - 1];

    if (strcmp(row, "top") == 0)
        *Y = y;
    else if (strcmp(row, "bottom") == 0)
        *Y = h - 1 - y;
    else if (strcmp(row, "left") == 0)
        *X = y;
    else
        *X = h - 1 - y;
    if (strcmp(col, "left") == 0)
        *X = x;
    else if (strcmp(col, "right") == 0)
        *X = w - 1 - x;
    else if (strcmp(col, "top") == 0)
        *Y = x;
    else
        *Y = w - 1 - x;
}

static void
check_orientation(encode_fn *encode, struct image_kit kit, uint32_t channels,
    uint32_t side_wanted)
{
    struct image_limits limits = {.side_wanted = side_wanted};
    struct image_kit upright_kit = kit;
    struct image in, upright, turned;
    struct image_facts facts;
    struct buf file;

    buf_init(&file, FILE_MAX);
    image_kit_paint(&in, 67, 35, channels, 3);
    upright_kit.orientation = 0;
    encode(&file, &in, &upright_kit);
    upright = decode_with(&file, &limits);
    buf_clear(&file);
    encode(&file, &in, &kit);
    turned = decode_with(&file, &limits);
    assert_int_equal(
        image_inspect(&facts, file.data, file.len, &limits, NULL), OK);
    assert_int_equal(facts.width, kit.orientation >= 5 ? 35 : 67);
    assert_int_equal(facts.height, kit.orientation >= 5 ? 67 : 35);
    assert_int_equal(facts.channels, upright.channels);
    assert_int_equal(
        turned.width, kit.orientation >= 5 ? upright.height : upright.width);
    for (uint32_t y = 0; y < upright.height; y++) {
        for (uint32_t x = 0; x < upright.width; x++) {
            uint32_t X = 0, Y = 0, C = upright.channels;
            seen_at(
                kit.orientation, upright.width, upright.height, x, y, &X, &Y);
            assert_memory_equal(
                turned.pixels + ((size_t)Y * turned.width + X) * C,
                upright.pixels + ((size_t)y * upright.width + x) * C, C);
        }
    }
    image_release(&in);
    image_release(&upright);
    image_release(&turned);
    buf_release(&file);
}

static void
test_orientations(void **state)
{
    (void)state;
    for (uint32_t o = 1; o <= 8; o++) {
        for (int big_endian = 0; big_endian < 2; big_endian++) {
            struct image_kit kit = {
                .orientation = o, .big_endian = big_endian != 0};
            for (uint32_t side = 0; side <= 8; side += 8) {
                check_orientation(image_kit_jpeg, kit, 1, side);
                check_orientation(image_kit_jpeg, kit, 3, side);
                check_orientation(image_kit_png, kit, 1, side);
                check_orientation(image_kit_png, kit, 3, side);
                check_orientation(image_kit_webp, kit, 3, side);
            }
            kit.lossless = kit.alpha = true;
            check_orientation(image_kit_webp, kit, 3, 0);
            kit.lossless = false;
            check_orientation(image_kit_webp, kit, 3, 0);
            kit.interlaced = true;
            check_orientation(image_kit_png, kit, 3, 0);
        }
    }
}

/* The shorter side stays at or above what is wanted, and shrinks as far as a
   power of two to 8 allows; the picture is the same (a rest of the division is
   a pixel of its own, which stretches it a little). */
static void
check_shrinking(const struct image *in, double tolerance)
{
    static const struct {
        uint32_t wanted, factor;
    } cases[] = {{0, 1}, {1, 8}, {20, 8}, {21, 4}, {40, 4}, {41, 2}, {81, 1},
        {160, 1}, {5000, 1}};

    for (size_t c = 0; c < ARRAY_LEN(codecs); c++) {
        struct buf file;
        buf_init(&file, FILE_MAX);
        codecs[c].encode(
            &file, in, &(struct image_kit){.quality = 95, .lossless = true});
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            uint32_t f = cases[i].factor;
            struct image_limits limits = {.side_wanted = cases[i].wanted};
            struct image small, want;
            struct image out = decode_with(&file, &limits);
            assert_int_equal(out.width, (in->width + f - 1) / f);
            assert_int_equal(out.height, (in->height + f - 1) / f);
            assert_true(out.height >= MIN(cases[i].wanted, in->height));
            assert_int_equal(image_new(&small, 20, 20, 3), OK);
            assert_int_equal(image_new(&want, 20, 20, 3), OK);
            image_resize(&small, &out);
            image_resize(&want, in);
            double found = difference(&small, &want);
            if (!(found <= tolerance)) {
                print_error("%s by %u: %g\n", codecs[c].name, f, found);
            }
            assert_true(found <= tolerance);
            image_release(&small);
            image_release(&want);
            image_release(&out);
        }
        buf_release(&file);
    }
}

static void
test_shrinking(void **state)
{
    (void)state;
    struct image in;

    image_kit_paint(&in, 240, 160, 3, 11);
    check_shrinking(&in, 1.5);
    image_release(&in);
    image_kit_paint(&in, 241, 161, 3, 11);
    check_shrinking(&in, 10.0);
    image_release(&in);
}

/* ---- refusals --------------------------------------------------------------
 */

static void
test_hostile_files(void **state)
{
    (void)state;
    const char *name, *word;
    enum err want;
    size_t n = 0;

    for (;; n++) {
        struct buf file;
        struct image out = {0};
        struct image_facts facts = {0};
        struct fault fault = {0};
        buf_init(&file, FILE_MAX);
        name = image_kit_hostile(n, &file, &want, &word);
        if (name == NULL) {
            buf_release(&file);
            break;
        }
        /* A block of the exact size, so that a sanitizer sees reads past it. */
        uint8_t *exact = mem_alloc(file.len, 1);
        assert_non_null(exact);
        if (file.len > 0)
            memcpy(exact, file.data, file.len);
        enum err err = image_decode(&out, exact, file.len, NULL, &fault);
        if (err != want || strstr(fault.detail, word) == NULL) {
            print_error("%s: %s: \"%s\", not \"%s\"\n", name, err_text(err),
                fault.detail, word);
        }
        assert_int_equal(err, want);
        assert_non_null(strstr(fault.detail, word));
        assert_int_equal(out.pixels == NULL, want != OK);
        assert_int_equal(image_decode(&out, exact, 0, NULL, NULL), ERR_INVALID);
        err = image_inspect(&facts, exact, file.len, NULL, NULL);
        assert_true(err == want || (err == OK && want == ERR_INVALID));
        if (want == OK) {
            assert_int_equal(facts.width, out.width);
            assert_int_equal(facts.height, out.height);
            assert_int_equal(facts.channels, out.channels);
        }
        image_release(&out);
        mem_free(exact);
        buf_release(&file);
    }
    assert_true(n >= 40);
}

/* Every file cut anywhere is refused as damaged, or (nothing but the end of a
   container missing) never read past its end. */
static void
test_cut_anywhere(void **state)
{
    (void)state;
    struct image in;

    image_kit_paint(&in, 24, 20, 3, 2);
    for (size_t c = 0; c < ARRAY_LEN(codecs); c++) {
        for (int form = 0; form < 3; form++) {
            struct image_kit kit = {.interlaced = form == 1,
                .lossless = form == 1,
                .orientation = form == 2 ? 6 : 0};
            struct buf file;
            buf_init(&file, FILE_MAX);
            codecs[c].encode(&file, &in, &kit);
            for (size_t n = 0; n < file.len; n++) {
                struct image out = {0};
                uint8_t *exact = mem_alloc(n, 1);
                assert_non_null(exact);
                if (n > 0)
                    memcpy(exact, file.data, n);
                enum err err = image_decode(&out, exact, n, NULL, NULL);
                if (n >= 12)
                    assert_int_equal(err, ERR_INVALID);
                else
                    assert_true(err == ERR_INVALID || err == ERR_UNSUPPORTED);
                mem_free(exact);
            }
            buf_release(&file);
        }
    }
    image_release(&in);
}

/* Any answer, but no crash, no leak, and a picture of the size that its header
   says. */
static void
test_random_damage(void **state)
{
    (void)state;
    struct image in;
    struct rng rng;
    size_t n_read = 0, n_refused = 0;

    rng_seed(&rng, 5);
    image_kit_paint(&in, 40, 31, 3, 2);
    for (size_t c = 0; c < ARRAY_LEN(codecs); c++) {
        for (int form = 0; form < 2; form++) {
            struct image_kit kit = {
                .interlaced = form == 1, .lossless = form == 1, .alpha = true};
            struct image_limits limits = {.pixels_max = 100000};
            struct buf file;
            buf_init(&file, FILE_MAX);
            codecs[c].encode(&file, &in, &kit);
            for (int round = 0; round < 300; round++) {
                char *copy = mem_alloc(file.len, 1);
                struct image out = {0};
                assert_non_null(copy);
                memcpy(copy, file.data, file.len);
                for (uint64_t k = 1 + rng_below(&rng, 4); k > 0; k--) {
                    copy[rng_below(&rng, file.len)] =
                        (char)rng_below(&rng, 256);
                }
                if (image_decode(&out, copy, file.len, &limits, NULL) == OK) {
                    n_read++;
                    assert_true((uint64_t)out.width * out.height <= 100000);
                    image_release(&out);
                } else {
                    n_refused++;
                    assert_null(out.pixels);
                }
                mem_free(copy);
            }
            buf_release(&file);
        }
    }
    image_release(&in);
    assert_true(n_read > 0 && n_refused > 0);
}

static void
test_limits_are_exact(void **state)
{
    (void)state;
    struct image in;

    image_kit_paint(&in, 30, 20, 3, 2);
    for (size_t c = 0; c < ARRAY_LEN(codecs); c++) {
        struct buf file;
        struct image out = {0};
        struct fault fault = {0};
        buf_init(&file, FILE_MAX);
        codecs[c].encode(&file, &in, NULL);
        struct image_limits limits = {.bytes_max = file.len, .pixels_max = 600};
        out = decode_with(&file, &limits);
        image_release(&out);
        limits.pixels_max = 599;
        assert_int_equal(
            image_decode(&out, file.data, file.len, &limits, &fault),
            ERR_TOO_LARGE);
        assert_non_null(strstr(fault.detail, "600"));
        assert_non_null(strstr(fault.detail, "599"));
        limits.pixels_max = 0;
        limits.bytes_max = file.len - 1;
        assert_int_equal(
            image_decode(&out, file.data, file.len, &limits, &fault),
            ERR_TOO_LARGE);
        assert_int_equal(
            image_format_of(file.data, file.len), codecs[c].format);
        assert_non_null(
            strstr(image_format_type(codecs[c].format), codecs[c].name));
        buf_release(&file);
    }
    assert_null(image_format_type(IMAGE_UNKNOWN));
    assert_int_equal(image_format_of("", 0), IMAGE_UNKNOWN);
    image_release(&in);
}

/* A file of few pixels and many scans costs no more than one of many pixels:
   the number of scans has a limit, exact. */
static void
test_scans_are_counted(void **state)
{
    (void)state;
    struct image in, out = {0};

    image_kit_paint(&in, 40, 40, 3, 2);
    for (uint32_t more = 0; more < 2; more++) {
        struct fault fault = {0};
        struct buf file;
        buf_init(&file, FILE_MAX);
        image_kit_jpeg(&file, &in,
            &(struct image_kit){.scans = IMAGE_JPEG_SCANS_MAX + more});
        enum err err = image_decode(&out, file.data, file.len, NULL, &fault);
        assert_int_equal(err, more == 0 ? OK : ERR_TOO_LARGE);
        assert_true(more == 0 || strstr(fault.detail, "scans") != NULL);
        image_release(&out);
        buf_release(&file);
    }
    image_release(&in);
}

/* ---- memory ----------------------------------------------------------------
 */

/* A sanitizer's own memory is in a process's account. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PEAK_IS_TOLD false
#else
#define PEAK_IS_TOLD true
#endif

/* The most memory that decoding took, by a child's account of itself; 0: the
   machine does not tell. */
static uint64_t
peak_of(const struct buf *file, const struct image_limits *limits)
{
    uint64_t peak = 0;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rusage before, after;
        struct image out = {0};
        struct fault fault = {0};
        (void)malloc_trim(0);
        FILE *reset = fopen("/proc/self/clear_refs", "w");
        if (reset != NULL) {
            (void)fputs("5", reset); /* the peak begins anew */
            (void)fclose(reset);
        }
        (void)getrusage(RUSAGE_SELF, &before);
        enum err err =
            image_decode(&out, file->data, file->len, limits, &fault);
        (void)getrusage(RUSAGE_SELF, &after);
        peak = 1024 * (uint64_t)(after.ru_maxrss - before.ru_maxrss);
        bool told =
            err == OK && write(ends[1], &peak, sizeof(peak)) == sizeof(peak);
        _exit(told ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(read(ends[0], &peak, sizeof(peak)), sizeof(peak));
    (void)close(ends[0]);
    (void)close(ends[1]);
    return peak;
}

/* What image_inspect says beforehand holds, and is not far from what is taken
   (but for a lossless WebP, whose number of codes is not known before). */
static void
test_memory_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        encode_fn *encode;
        struct image_kit kit;
        uint64_t slack; /* told beyond what is taken */
    } forms[] = {
        {"jpeg", image_kit_jpeg, {.subsampled = true}, 0},
        {"jpeg turned", image_kit_jpeg, {.orientation = 6}, 0},
        {"jpeg progressive", image_kit_jpeg, {.interlaced = true}, 0},
        {"jpeg progressive, half of the colour", image_kit_jpeg,
            {.interlaced = true, .subsampled = true}, 0},
        {"png", image_kit_png, {.alpha = true}, 0},
        {"png interlaced", image_kit_png, {.interlaced = true}, 6 << 20},
        {"png interlaced, alpha", image_kit_png,
            {.interlaced = true, .alpha = true}, 0},
        {"webp", image_kit_webp, {.quality = 50}, 0},
        {"webp lossless", image_kit_webp, {.lossless = true}, UINT32_MAX * 8},
        {"webp alpha", image_kit_webp, {.alpha = true}, UINT32_MAX * 8},
    };
    struct image in;

    if (!PEAK_IS_TOLD) {
        print_message("not with a sanitizer\n");
        skip();
    }
    image_kit_paint(&in, 2048, 1536, 3, 5);
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        struct buf file;
        buf_init(&file, FILE_MAX);
        forms[i].encode(&file, &in, &forms[i].kit);
        for (uint32_t side = 0; side <= 64; side += 64) {
            struct image_limits limits = {.side_wanted = side};
            struct image_facts facts = {0};
            struct fault fault = {0};
            assert_int_equal(
                image_inspect(&facts, file.data, file.len, &limits, &fault),
                OK);
            uint64_t peak = peak_of(&file, &limits);
            if (peak == 0) {
                print_message("%s: the peak is not told here\n", forms[i].name);
                continue;
            }
            print_message("%s, side %u: told %.2f MB, taken %.2f MB\n",
                forms[i].name, side, (double)facts.decode_bytes / 1e6,
                (double)peak / 1e6);
            assert_true(peak <= facts.decode_bytes + ((uint64_t)256 << 10));
            assert_true(facts.decode_bytes <=
                        peak + peak / 4 + ((uint64_t)2 << 20) + forms[i].slack);
        }
        buf_release(&file);
    }
    image_release(&in);
}

/* ---- out of memory ---------------------------------------------------------
 */

static void
test_allocations_fail(void **state)
{
    (void)state;
    struct image in;

    image_kit_paint(&in, 60, 50, 3, 2);
    for (size_t c = 0; c < ARRAY_LEN(codecs); c++) {
        for (uint32_t side = 0; side <= 8; side += 8) {
            struct image_limits limits = {.side_wanted = side};
            struct image_kit kit = {.orientation = 6, .interlaced = true};
            struct buf file;
            enum err err = ERR_NOMEM;
            uint64_t n;
            buf_init(&file, FILE_MAX);
            codecs[c].encode(&file, &in, &kit);
            for (n = 1; err == ERR_NOMEM; n++) {
                struct image out = {0};
                struct fault fault = {0};
                (void)alloc_fail_at(n);
                err = image_decode(&out, file.data, file.len, &limits, &fault);
                (void)alloc_fail_at(0);
                if (err == OK) {
                    image_release(&out);
                } else {
                    assert_null(out.pixels);
                    assert_non_null(strstr(fault.detail, "60 x 50"));
                }
            }
            assert_int_equal(err, OK);
            assert_true(n > 3);
            buf_release(&file);
        }
    }
    image_release(&in);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_forms_of_png_and_alpha),
        cmocka_unit_test(test_orientations),
        cmocka_unit_test(test_shrinking),
        cmocka_unit_test(test_hostile_files),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_limits_are_exact),
        cmocka_unit_test(test_scans_are_counted),
        cmocka_unit_test(test_memory_is_told),
        cmocka_unit_test(test_allocations_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
