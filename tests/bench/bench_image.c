/*
 * bench_image - what pictures cost on one core: decoding of each format by the
 * side that is wanted, beside the decoder alone; resizing; views; and the
 * worst files under the default limits. Medians of 5 rounds; nothing here is a
 * test. With an argument, only the parts whose name begins so: decode, resize,
 * views, worst.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <jpeglib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "image/augment.h"
#include "image/decode.h"
#include "tests/support/image_kit.h"

#define ROUNDS 5
#define FILE_MAX ((size_t)512 << 20)

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

typedef void bench_fn(void *arg);

/* Milliseconds that this program computed: its work is of one thread, and a
   busy machine does not show. */
static double
cpu_ms(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return 1e3 * (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-3 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Milliseconds of one call, from rounds of at least 50. */
static double
measure(bench_fn *fn, void *arg)
{
    double ms[ROUNDS];
    double start = cpu_ms();

    fn(arg);
    double first = cpu_ms() - start;
    size_t n = first > 50.0 ? 1 : (size_t)(50.0 / (first + 1e-3)) + 1;
    for (size_t round = 0; round < ROUNDS; round++) {
        start = cpu_ms();
        for (size_t i = 0; i < n; i++) {
            fn(arg);
        }
        ms[round] = (cpu_ms() - start) / (double)n;
    }
    qsort(ms, ROUNDS, sizeof(ms[0]), compare);
    return ms[ROUNDS / 2];
}

static void
report(const char *name, double ms)
{
    printf("%-52s %9.3f ms %10.0f /s\n", name, ms, 1000.0 / ms);
}

/* ---- decoding --------------------------------------------------------------
 */

struct job {
    struct buf file;
    struct image_limits limits;
    enum err err;
    char detail[FAULT_DETAIL_MAX];
};

static void
decode(void *arg)
{
    struct job *job = arg;
    struct image image = {0};
    struct fault fault = {0};

    job->err = image_decode(
        &image, job->file.data, job->file.len, &job->limits, &fault);
    memcpy(job->detail, fault.detail, sizeof(job->detail));
    image_release(&image);
}

/* The library with nothing around it: rows into one buffer, shrunk to what the
   limits want of a 500 x 375 picture. */
static void
decode_bare(void *arg)
{
    struct job *job = arg;
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    uint8_t *row = mem_alloc(65536, 3);

    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(
        &jpeg, (const uint8_t *)job->file.data, (unsigned long)job->file.len);
    (void)jpeg_read_header(&jpeg, TRUE);
    while (
        job->limits.side_wanted != 0 && jpeg.scale_denom < 8 &&
        jpeg.image_height / (jpeg.scale_denom * 2) >= job->limits.side_wanted) {
        jpeg.scale_denom *= 2;
    }
    jpeg.do_fancy_upsampling = jpeg.scale_denom == 1;
    (void)jpeg_start_decompress(&jpeg);
    while (jpeg.output_scanline < jpeg.output_height) {
        (void)jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    mem_free(row);
}

/* A picture with grain, so that files are as long as a camera's. */
static void
photograph(struct image *image, uint32_t width, uint32_t height)
{
    struct rng rng;

    rng_seed(&rng, 4);
    image_kit_paint(image, width, height, 3, 5);
    for (size_t i = 0; i < (size_t)width * height * 3; i++) {
        int v = image->pixels[i] + (int)(rng_normal(&rng) * 9.0);
        image->pixels[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

typedef void encode_fn(
    struct buf *out, const struct image *image, const struct image_kit *kit);

static void
bench_decode(void)
{
    static const struct {
        const char *name;
        encode_fn *encode;
        struct image_kit kit;
    } forms[] = {
        {"JPEG q 85", image_kit_jpeg, {.quality = 85, .subsampled = true}},
        {"progressive JPEG q 85", image_kit_jpeg,
            {.quality = 85, .subsampled = true, .interlaced = true}},
        {"PNG", image_kit_png, {0}},
        {"WebP q 80", image_kit_webp, {.quality = 80}},
        {"lossless WebP", image_kit_webp, {.lossless = true}},
    };
    static const uint32_t sides[] = {64, 224, 0};
    struct image image;

    photograph(&image, 500, 375);
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        struct job job = {0};
        char name[128];
        buf_init(&job.file, FILE_MAX);
        forms[f].encode(&job.file, &image, &forms[f].kit);
        for (size_t s = 0; s < ARRAY_LEN(sides); s++) {
            job.limits.side_wanted = sides[s];
            snprintf(name, sizeof(name), "decode %s 500 x 375 (%zu KB) to %u",
                forms[f].name, job.file.len / 1024, sides[s]);
            report(name, measure(decode, &job));
            if (f == 0) {
                report("   libjpeg alone", measure(decode_bare, &job));
            }
        }
        buf_release(&job.file);
    }
    image_release(&image);
}

/* ---- resizing --------------------------------------------------------------
 */

struct fit {
    struct image in;
    uint8_t *out;
    uint32_t side;
};

static void
fit(void *arg)
{
    struct fit *job = arg;

    image_fit(job->out, job->side, job->in.channels, &job->in);
}

static void
bench_resize(void)
{
    static const uint32_t cases[][4] = {{500, 375, 3, 224}, {250, 188, 3, 64},
        {125, 94, 3, 64}, {28, 28, 1, 32}, {64, 64, 3, 224}};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const uint32_t *c = cases[i];
        struct fit job = {.side = c[3]};
        char name[128];
        image_kit_paint(&job.in, c[0], c[1], c[2], 1);
        job.out = mem_alloc((size_t)c[3] * c[3], 3);
        snprintf(name, sizeof(name), "resize %u x %u x %u to %u", c[0], c[1],
            c[2], c[3]);
        report(name, measure(fit, &job));
        mem_free(job.out);
        image_release(&job.in);
    }
}

/* ---- views -----------------------------------------------------------------
 */

struct view {
    struct image in;
    struct augment_options options;
    struct rng rng;
    uint8_t *out;
    float *workspace;
    uint32_t side;
};

static void
make_view(void *arg)
{
    struct view *job = arg;

    augment(job->out, job->side, job->in.channels, &job->in, &job->options,
        &job->rng, job->workspace);
}

static void
bench_views(void)
{
    static const struct {
        uint32_t in, side, channels;
        float blur, rotate;
    } cases[] = {
        {28, 28, 1, 0, 0},
        {32, 32, 3, 0, 0},
        {64, 64, 3, 0, 0},
        {96, 64, 3, 0, 0},
        {64, 64, 3, 0, 10},
        {224, 224, 3, 0, 0},
        {256, 224, 3, 0.5F, 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t in = cases[i].in, side = cases[i].side;
        uint32_t C = cases[i].channels;
        struct view job = {.side = side};
        char name[128];
        image_kit_paint(&job.in, in, in, C, 1);
        augment_options_default(&job.options, C);
        job.options.blur = cases[i].blur;
        job.options.rotate = cases[i].rotate;
        rng_seed(&job.rng, 1);
        job.out = mem_alloc((size_t)side * side, C);
        job.workspace =
            mem_alloc(augment_workspace_floats(side, C), sizeof(float));
        snprintf(name, sizeof(name),
            "views %u x %u x %u of %u (blur %.1f, turn %.0f)", side, side, C,
            in, (double)cases[i].blur, (double)cases[i].rotate);
        report(name, measure(make_view, &job));
        mem_free(job.out);
        mem_free(job.workspace);
        image_release(&job.in);
    }
}

/* ---- the worst files -------------------------------------------------------
 */

static void
worst(const char *name, struct job *job)
{
    static const uint32_t sides[] = {64, 0};

    for (size_t s = 0; s < ARRAY_LEN(sides); s++) {
        struct rusage usage;
        job->limits.side_wanted = sides[s];
        double start = cpu_ms();
        decode(job);
        double ms = cpu_ms() - start;
        getrusage(RUSAGE_SELF, &usage);
        printf("worst %-38s to %2u %8.0f ms, %7zu KB, peak %4ld MB, %s\n", name,
            sides[s], ms, job->file.len / 1024, usage.ru_maxrss / 1024,
            job->err == OK ? "ok" : job->detail);
        fflush(stdout);
    }
    buf_clear(&job->file);
}

static void
bench_worst(void)
{
    struct job job = {0};
    struct image image;

    buf_init(&job.file, FILE_MAX);
    image_kit_png_black(&job.file, 8000, 8000, false);
    worst("black PNG 8,000 x 8,000", &job);
    image_kit_png_black(&job.file, 4000, 4000, true);
    worst("black interlaced PNG 4,000 x 4,000", &job);
    if (image_new(&image, 8000, 8000, 3) != OK) {
        return;
    }
    image_kit_jpeg(&job.file, &image, NULL);
    worst("black JPEG 8,000 x 8,000", &job);
    image_kit_jpeg(&job.file, &image, &(struct image_kit){.orientation = 6});
    worst("black JPEG 8,000 x 8,000, turned", &job);
    image_kit_jpeg(
        &job.file, &image, &(struct image_kit){.scans = IMAGE_JPEG_SCANS_MAX});
    worst("black JPEG 8,000 x 8,000, most scans", &job);
    image_kit_webp(&job.file, &image, NULL);
    worst("black WebP 8,000 x 8,000", &job);
    image_kit_webp(&job.file, &image, &(struct image_kit){.lossless = true});
    worst("black lossless WebP 8,000 x 8,000", &job);
    image_release(&image);

    if (image_new(&image, 6300, 6300, 3) != OK) {
        return;
    }
    image_kit_jpeg(&job.file, &image, &(struct image_kit){.interlaced = true});
    worst("black progressive JPEG 6,300 x 6,300", &job);
    image.width = image.height = 2000;
    image_kit_jpeg(
        &job.file, &image, &(struct image_kit){.scans = IMAGE_JPEG_SCANS_MAX});
    worst("black JPEG 2,000 x 2,000, most scans", &job);
    image_release(&image);

    photograph(&image, 5000, 5000);
    image_kit_jpeg(&job.file, &image, &(struct image_kit){.quality = 95});
    worst("JPEG 5,000 x 5,000 q 95", &job);
    image_kit_jpeg(&job.file, &image,
        &(struct image_kit){.quality = 95, .interlaced = true});
    worst("progressive JPEG 5,000 x 5,000 q 95", &job);
    image_kit_webp(&job.file, &image, &(struct image_kit){.quality = 90});
    worst("WebP 5,000 x 5,000 q 90", &job);
    image_release(&image);
    buf_release(&job.file);
}

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {
        {"decode", bench_decode},
        {"resize", bench_resize},
        {"views", bench_views},
        {"worst", bench_worst},
    };

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (argc < 2 || strncmp(parts[i].name, argv[1], strlen(argv[1])) == 0) {
            parts[i].run();
        }
    }
    return 0;
}
