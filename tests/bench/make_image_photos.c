/*
 * make_image_photos.c - a folder of JPEG files that cost what photographs cost:
 * a drawn scene (sky, ground, some shaded bodies), texture with a 1/f spectrum
 * on everything, a little noise of the sensor, quality 85.
 *
 * usage: make_image_photos FOLDER N [SIDE=500 [SEED=1]]
 *
 * FOLDER/album-00/photo-00000.jpg ...: 500 to an album. The longer side has
 * SIDE pixels, the other 2/3 or 3/4 of it, every fourth picture is upright.
 * The same seed gives the same pictures. Prints their number and mean size.
 */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
/* after stdio.h, which it needs */
#include <jpeglib.h>
#include "base/alloc.h"
#include "base/pool.h"
#include "base/rng.h"

#define ALBUM 500
#define OCTAVES 7
#define SCENE_BODIES 9
#define SIDE_MAX 4000

struct work {
    const char *folder;
    uint64_t seed;
    size_t n;
    uint32_t side;
    atomic_size_t bytes;
};

struct body {
    float x, y, rx, ry; /* an ellipse, in pixels */
    float cos, sin;     /* of its turn */
    float colour[3];
    float rough; /* how strong its texture is */
    bool box;
};

static void
die(const char *what)
{
    fprintf(stderr, "make_image_photos: %s\n", what);
    exit(1);
}

static float
uniform(struct rng *rng, float low, float high)
{
    return low + (high - low) * rng_float(rng);
}

/* Texture [h, w]: octaves of smoothed random grids, each weaker and twice as
   fine as the one before. */
static void
make_texture(float *out, uint32_t w, uint32_t h, struct rng *rng)
{
    float grid[(4 << OCTAVES) + 2][2]; /* two rows of a grid, as they pass */
    float amplitude = 1;
    memset(out, 0, sizeof *out * w * h);
    for (int octave = 0; octave < OCTAVES; octave++, amplitude *= 0.8F) {
        uint32_t cells = 4U << octave;
        int row = -1;
        for (uint32_t x = 0; x <= cells + 1; x++)
            grid[x][1] = uniform(rng, -1, 1);
        for (uint32_t y = 0; y < h; y++) {
            float fy = (float)y * (float)cells / (float)w;
            int iy = (int)fy;
            for (; row < iy; row++)
                for (uint32_t x = 0; x <= cells + 1; x++) {
                    grid[x][0] = grid[x][1];
                    grid[x][1] = uniform(rng, -1, 1);
                }
            fy -= (float)iy;
            for (uint32_t x = 0; x < w; x++) {
                float fx = (float)x * (float)cells / (float)w;
                uint32_t ix = (uint32_t)fx;
                fx -= (float)ix;
                float a = grid[ix][0] + fx * (grid[ix + 1][0] - grid[ix][0]);
                float b = grid[ix][1] + fx * (grid[ix + 1][1] - grid[ix][1]);
                out[(size_t)y * w + x] += amplitude * (a + fy * (b - a));
            }
        }
    }
}

static void
make_scene(struct body *bodies, uint32_t w, uint32_t h, struct rng *rng)
{
    for (int i = 0; i < SCENE_BODIES; i++) {
        struct body *b = &bodies[i];
        float size = uniform(rng, 0.04F, 0.28F) * (float)w;
        *b = (struct body){.x = uniform(rng, 0, (float)w),
            .y = uniform(rng, 0.2F, 1) * (float)h,
            .rx = size,
            .ry = size * uniform(rng, 0.5F, 1.6F),

            .rough = uniform(rng, 15, 65),
            .box = rng_below(rng, 3) == 0};
        float turn = uniform(rng, -0.7F, 0.7F);
        b->cos = cosf(turn);
        b->sin = sinf(turn);
        for (int c = 0; c < 3; c++)
            b->colour[c] = uniform(rng, 20, 235);
    }
}

/* How much a body covers a pixel, 0 to 1, and its shade. */
static float
cover(const struct body *b, float x, float y, float *shade)
{
    float u = (b->cos * (x - b->x) + b->sin * (y - b->y)) / b->rx;
    float v = (b->cos * (y - b->y) - b->sin * (x - b->x)) / b->ry;
    float d = b->box ? fmaxf(fabsf(u), fabsf(v)) : sqrtf(u * u + v * v);
    *shade = 1 - 0.35F * (u + v) * 0.7F;
    return fminf(fmaxf((1 - d) * fminf(b->rx, b->ry), 0), 1);
}

static void
paint(
    uint8_t *out, uint32_t w, uint32_t h, const float *texture, struct rng *rng)
{
    struct body bodies[SCENE_BODIES];
    float sky[3], ground[3], horizon = uniform(rng, 0.3F, 0.7F) * (float)h;
    for (int c = 0; c < 3; c++) {
        sky[c] = uniform(rng, 90, 240);
        ground[c] = uniform(rng, 30, 170);
    }
    make_scene(bodies, w, h, rng);
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++) {
            float t = texture[(size_t)y * w + x];
            bool up = (float)y < horizon + 12 * t;
            const float *base = up ? sky : ground;
            float light = up ? 1 - 0.3F * (float)y / (float)h : 0.9F;
            float rough = up ? 14 : 55, colour[3];
            for (int c = 0; c < 3; c++)
                colour[c] = base[c] * light + rough * t;
            for (int i = 0; i < SCENE_BODIES; i++) {
                const struct body *b = &bodies[i];
                float shade, dx = (float)x - b->x, dy = (float)y - b->y;
                float reach = 1.5F * fmaxf(b->rx, b->ry);
                if (fabsf(dx) > reach || fabsf(dy) > reach)
                    continue;
                float a = cover(b, (float)x, (float)y, &shade);
                for (int c = 0; c < 3; c++)
                    colour[c] +=
                        a * (b->colour[c] * shade + b->rough * t - colour[c]);
            }
            uint64_t bits = rng_u64(rng);
            for (int c = 0; c < 3; c++) {
                /* the sum of two bytes: a triangle about 0 */
                float noise = (float)(bits & 255) + (float)(bits >> 8 & 255);
                bits >>= 16;
                float v = colour[c] + (noise - 255) * 0.03F + 0.5F;
                out[((size_t)y * w + x) * 3 + (size_t)c] =
                    (uint8_t)fminf(fmaxf(v, 0), 255);
            }
        }
}

static size_t
write_jpeg(const char *path, uint8_t *pixels, uint32_t w, uint32_t h)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors; /* its default ends the program */
    FILE *f = fopen(path, "wb");
    if (f == NULL)
        die(path);
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_stdio_dest(&jpeg, f);
    jpeg.image_width = w;
    jpeg.image_height = h;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 85, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    for (uint32_t y = 0; y < h; y++) {
        JSAMPROW row = pixels + (size_t)y * w * 3;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    long size = ftell(f);
    if (size < 0 || fclose(f) != 0)
        die(path);
    return (size_t)size;
}

static void
make_photo(void *arg, size_t i, size_t thread_i)
{
    struct work *work = arg;
    struct rng rng;
    char path[600];
    (void)thread_i;
    rng_seed_stream(&rng, work->seed, i);
    uint32_t w = work->side;
    uint32_t h = i % 2 == 0 ? w * 2 / 3 : w * 3 / 4;
    if (i % 4 == 3) {
        w = h;
        h = work->side;
    }
    float *texture = mem_alloc((size_t)w * h, sizeof *texture);
    uint8_t *pixels = mem_alloc((size_t)w * h, 3);
    if (texture == NULL || pixels == NULL)
        die("out of memory");
    make_texture(texture, w, h, &rng);
    paint(pixels, w, h, texture, &rng);
    snprintf(path, sizeof path, "%.500s/album-%02zu/photo-%05zu.jpg",
        work->folder, i / ALBUM, i);
    atomic_fetch_add(&work->bytes, write_jpeg(path, pixels, w, h));
    mem_free(texture);
    mem_free(pixels);
}

int
main(int argc, char **argv)
{
    struct work work = {.side = 500, .seed = 1};
    struct pool *pool;
    char path[600];
    if (argc < 3 || argc > 5)
        die("usage: FOLDER N [SIDE=500 [SEED=1]]");
    work.folder = argv[1];
    work.n = (size_t)strtoul(argv[2], NULL, 10);
    if (argc > 3)
        work.side = (uint32_t)strtoul(argv[3], NULL, 10);
    if (argc > 4)
        work.seed = strtoull(argv[4], NULL, 10);
    if (work.n == 0 || work.side < 16 || work.side > SIDE_MAX)
        die("N is at least 1, SIDE 16 to 4000");
    for (size_t i = 0; i <= (work.n - 1) / ALBUM; i++) {
        snprintf(path, sizeof path, "%.500s/album-%02zu", work.folder, i);
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            die(path);
    }
    if (pool_new(&pool, 2, false) != OK)
        die("no threads");
    pool_run(pool, work.n, make_photo, &work);
    pool_free(pool);
    printf("%zu JPEG files of %u pixels, %.1f KB each\n", work.n, work.side,
        (double)atomic_load(&work.bytes) / (double)work.n / 1000);
    return 0;
}
