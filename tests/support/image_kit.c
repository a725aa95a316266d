#include "tests/support/image_kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include "base/alloc.h"
#include "base/rng.h"

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);         \
            abort();                                                           \
        }                                                                      \
    } while (0)

static const struct image_kit plain;

void
image_kit_paint(struct image *out, uint32_t width, uint32_t height,
    uint32_t channels, uint64_t seed)
{
    struct rng rng;
    double wave[3][4], disc[4][6];

    rng_seed(&rng, seed);
    for (size_t c = 0; c < 3; c++) {
        for (size_t k = 0; k < 4; k++) {
            wave[c][k] = rng_double(&rng);
        }
    }
    for (size_t k = 0; k < 4; k++) {
        for (size_t j = 0; j < 6; j++) {
            disc[k][j] = rng_double(&rng);
        }
    }
    MUST(image_new(out, width, height, channels) == OK);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            double u = (x + 0.5) / width, v = (y + 0.5) / height;
            for (uint32_t c = 0; c < channels; c++) {
                const double *w = wave[c];
                double p = 0.5 + 0.4 * sin(6.3 * (u * (0.3 + w[0]) + w[1])) *
                                     cos(6.3 * (v * (0.3 + w[2]) + w[3]));
                for (size_t k = 0; k < 4; k++) {
                    double du = u - disc[k][0], dv = v - disc[k][1];
                    if (du * du + dv * dv < 0.04 * disc[k][2]) {
                        p = disc[k][3 + c];
                    }
                }
                out->pixels[((size_t)y * width + x) * channels + c] =
                    (uint8_t)(p * 255.0 + 0.5);
            }
        }
    }
}

static void
add_number(struct buf *out, uint32_t v, int n_bytes, bool big_endian)
{
    for (int i = 0; i < n_bytes; i++) {
        int shift = 8 * (big_endian ? n_bytes - 1 - i : i);
        buf_add_char(out, (char)(v >> shift & 0xFF));
    }
}

void
image_kit_insert(struct buf *out, size_t at, const void *data, size_t n)
{
    buf_add(out, data, n);
    MUST(buf_status(out) == OK);
    memmove(out->data + at + n, out->data + at, out->len - n - at);
    memcpy(out->data + at, data, n);
}

/* A directory of two entries, the second of which is the orientation. */
void
image_kit_exif(struct buf *out, uint32_t orientation, bool big_endian)
{
    buf_add_str(out, big_endian ? "MM" : "II");
    add_number(out, 42, 2, big_endian);
    add_number(out, 8, 4, big_endian);
    add_number(out, 2, 2, big_endian);
    add_number(out, 0x0100, 2, big_endian); /* width, LONG */
    add_number(out, 4, 2, big_endian);
    add_number(out, 1, 4, big_endian);
    add_number(out, 8, 4, big_endian);
    add_number(out, 0x0112, 2, big_endian); /* orientation, SHORT */
    add_number(out, 3, 2, big_endian);
    add_number(out, 1, 4, big_endian);
    add_number(out, orientation, 2, big_endian);
    add_number(out, 0, 2, big_endian);
    add_number(out, 0, 4, big_endian); /* no further directory */
}

/* ---- JPEG ------------------------------------------------------------------
 */

size_t
image_kit_jpeg_marker(const struct buf *file, uint8_t marker)
{
    for (size_t i = 0; i + 1 < file->len; i++) {
        if ((uint8_t)file->data[i] == 0xFF &&
            (uint8_t)file->data[i + 1] == marker) {
            return i;
        }
    }
    fprintf(stderr, "no marker %02x in the file\n", marker);
    abort();
}

enum { SCANS_MAX = 379 };

/* DC of all channels, then every coefficient for itself without its lowest
   bit, then these bits; fewer scans are a poorer picture. */
static void
scan_script(jpeg_scan_info *scans, int n_channels)
{
    *scans = (jpeg_scan_info){.comps_in_scan = n_channels};
    for (int i = 0; i < n_channels; i++) {
        scans->component_index[i] = i;
    }
    scans++;
    for (int bit = 1; bit >= 0; bit--) {
        for (int i = 0; i < n_channels; i++) {
            for (int k = 1; k < 64; k++) {
                *scans++ = (jpeg_scan_info){
                    .comps_in_scan = 1,
                    .component_index = {i},
                    .Ss = k,
                    .Se = k,
                    .Ah = bit == 0 ? 1 : 0,
                    .Al = bit,
                };
            }
        }
    }
}

void
image_kit_jpeg(
    struct buf *out, const struct image *image, const struct image_kit *kit)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors; /* its default exits */
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    size_t from = out->len;
    jpeg_scan_info scans[SCANS_MAX];
    bool four;

    kit = kit == NULL ? &plain : kit;
    four = kit->cmyk || kit->ycck;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &n);
    jpeg.image_width = image->width;
    jpeg.image_height = image->height;
    jpeg.input_components = four ? 4 : (int)image->channels;
    jpeg.in_color_space = four                   ? JCS_CMYK
                          : image->channels == 1 ? JCS_GRAYSCALE
                                                 : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    if (kit->ycck) {
        jpeg_set_colorspace(&jpeg, JCS_YCCK);
    }
    jpeg_set_quality(&jpeg, kit->quality == 0 ? 90 : kit->quality, TRUE);
    if (!kit->subsampled && !four) {
        jpeg.comp_info[0].h_samp_factor = 1;
        jpeg.comp_info[0].v_samp_factor = 1;
    }
    if (kit->interlaced) {
        jpeg_simple_progression(&jpeg);
    }
    if (kit->scans != 0) {
        scan_script(scans, jpeg.num_components);
        jpeg.scan_info = scans;
        jpeg.num_scans = MIN((int)kit->scans, 1 + 2 * 63 * jpeg.num_components);
    }
    jpeg_start_compress(&jpeg, TRUE);
    uint8_t *row = mem_calloc(image->width, 4);
    MUST(row != NULL);
    for (uint32_t y = 0; y < image->height; y++) {
        size_t stride = (size_t)image->width * image->channels;
        const uint8_t *in = image->pixels + y * stride;
        JSAMPROW rows[1] = {row};
        for (uint32_t x = 0; four && x < image->width; x++) {
            memcpy(row + (size_t)x * 4, in + (size_t)x * image->channels,
                image->channels);
        }
        if (!four) {
            memcpy(row, in, stride);
        }
        (void)jpeg_write_scanlines(&jpeg, rows, 1);
    }
    mem_free(row);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    buf_add(out, bytes, n);
    free(bytes);
    if (kit->orientation != 0) {
        struct buf app;
        buf_init(&app, 4096);
        buf_add(&app, "\xFF\xE1\0\0Exif\0\0", 10);
        image_kit_exif(&app, kit->orientation, kit->big_endian);
        app.data[3] = (char)(app.len - 2);
        image_kit_insert(out, from + 2, app.data, app.len);
        buf_release(&app);
    }
    MUST(buf_status(out) == OK);
}

/* ---- PNG -------------------------------------------------------------------
 */

static void
png_append(png_structp png, png_bytep bytes, size_t n)
{
    buf_add(png_get_io_ptr(png), bytes, n);
}

static void
png_flushed(png_structp png)
{
    (void)png;
}

/* The colour of a 6 x 6 x 6 cube that is nearest, as its number. */
static uint8_t
cube_of(const uint8_t *p)
{
    return (uint8_t)((p[0] + 25) / 51 * 36 + (p[1] + 25) / 51 * 6 +
                     (p[2] + 25) / 51);
}

/* One row of the picture in the form of the file; returns nothing wider than
   8 bytes a pixel. */
static void
png_row(uint8_t *row, const struct image *image, uint32_t y,
    const struct image_kit *kit)
{
    uint32_t C = image->channels, depth = kit->depth == 0 ? 8 : kit->depth;

    for (uint32_t x = 0; x < image->width; x++) {
        const uint8_t *p = image->pixels + ((size_t)y * image->width + x) * C;
        if (kit->palette) {
            *row++ = cube_of(p);
            continue;
        }
        if (depth < 8) { /* grey; png_set_packing takes one a byte */
            *row++ = (uint8_t)(*p >> (8 - depth));
            continue;
        }
        for (uint32_t c = 0; c < C + (kit->alpha ? 1 : 0); c++) {
            *row++ = c < C ? p[c] : (uint8_t)(x + y);
            if (depth == 16) {
                *row++ = 0x55;
            }
        }
    }
}

static void
png_palette(png_structp png, png_infop info, const struct image_kit *kit)
{
    png_color cube[216];
    png_byte alpha[216];

    for (unsigned i = 0; i < 216; i++) {
        cube[i].red = (png_byte)(i / 36 * 51);
        cube[i].green = (png_byte)(i / 6 % 6 * 51);
        cube[i].blue = (png_byte)(i % 6 * 51);
        alpha[i] = (png_byte)i;
    }
    png_set_PLTE(png, info, cube, 216);
    if (kit->alpha) {
        png_set_tRNS(png, info, alpha, 216, NULL);
    }
}

static void
png_file(struct buf *out, const struct image *image,
    const struct image_kit *kit, const uint8_t *one_row)
{
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png == NULL ? NULL : png_create_info_struct(png);
    bool alpha = kit->alpha && !kit->palette;
    int colour = kit->palette           ? PNG_COLOR_TYPE_PALETTE
                 : image->channels == 1 ? PNG_COLOR_TYPE_GRAY
                                        : PNG_COLOR_TYPE_RGB;

    MUST(info != NULL);
    if (setjmp(png_jmpbuf(png)) != 0) {
        abort();
    }
    png_set_write_fn(png, out, png_append, png_flushed);
    png_set_IHDR(png, info, image->width, image->height,
        kit->depth == 0 ? 8 : (int)kit->depth,
        colour | (alpha ? PNG_COLOR_MASK_ALPHA : 0),
        kit->interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
        PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (kit->palette) {
        png_palette(png, info, kit);
    }
    png_write_info(png, info);
    png_set_packing(png);
    int n_passes = png_set_interlace_handling(png);
    uint8_t *row = mem_calloc(image->width, 8);
    MUST(row != NULL);
    for (int pass = 0; pass < n_passes; pass++) {
        for (uint32_t y = 0; y < image->height; y++) {
            if (one_row == NULL) {
                png_row(row, image, y, kit);
            }
            png_write_row(png, one_row == NULL ? row : one_row);
        }
    }
    mem_free(row);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    MUST(buf_status(out) == OK);
}

void
image_kit_png(
    struct buf *out, const struct image *image, const struct image_kit *kit)
{
    size_t from = out->len;

    kit = kit == NULL ? &plain : kit;
    png_file(out, image, kit, NULL);
    if (kit->orientation != 0) {
        struct buf exif, chunk;
        buf_init(&exif, 4096);
        buf_init(&chunk, 4096);
        image_kit_exif(&exif, kit->orientation, kit->big_endian);
        image_kit_png_chunk(&chunk, "eXIf", exif.data, exif.len);
        image_kit_insert(out, from + 33, chunk.data, chunk.len);
        buf_release(&exif);
        buf_release(&chunk);
    }
}

void
image_kit_png_black(
    struct buf *out, uint32_t width, uint32_t height, bool interlaced)
{
    struct image image = {width, height, 3, NULL};
    struct image_kit kit = {.interlaced = interlaced};
    uint8_t *row = mem_calloc(width, 3);

    MUST(row != NULL);
    png_file(out, &image, &kit, row);
    mem_free(row);
}

void
image_kit_png_chunk(
    struct buf *out, const char *type, const void *data, size_t n)
{
    uint32_t crc = 0xFFFFFFFF;
    size_t from;

    add_number(out, (uint32_t)n, 4, true);
    from = out->len;
    buf_add(out, type, 4);
    buf_add(out, data, n);
    for (size_t i = from; i < out->len; i++) {
        crc ^= (uint8_t)out->data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
        }
    }
    add_number(out, ~crc, 4, true);
    MUST(buf_status(out) == OK);
}

void
image_kit_png_header(struct buf *out, uint32_t width, uint32_t height,
    uint8_t depth, uint8_t colour, uint8_t interlace)
{
    struct buf data;

    buf_init(&data, 64);
    add_number(&data, width, 4, true);
    add_number(&data, height, 4, true);
    add_number(&data, depth, 1, true);
    add_number(&data, colour, 1, true);
    add_number(&data, 0, 2, true);
    add_number(&data, interlace, 1, true);
    buf_add(out, "\x89PNG\r\n\x1A\n", 8);
    image_kit_png_chunk(out, "IHDR", data.data, data.len);
    buf_release(&data);
}

/* ---- WebP ------------------------------------------------------------------
 */

/* An EXIF chunk at the end, announced in VP8X, which is added when the file is
   of the simple form. */
static void
webp_orient(struct buf *out, size_t from, const struct image *image,
    const struct image_kit *kit)
{
    struct buf part;

    buf_init(&part, 4096);
    if (memcmp(out->data + from + 12, "VP8X", 4) != 0) {
        buf_add_str(&part, "VP8X");
        add_number(&part, 10, 4, false);
        add_number(&part, kit->alpha ? 0x10 : 0, 4, false);
        add_number(&part, image->width - 1, 3, false);
        add_number(&part, image->height - 1, 3, false);
        image_kit_insert(out, from + 12, part.data, part.len);
        buf_clear(&part);
    }
    out->data[from + 20] = (char)(out->data[from + 20] | 0x08);
    image_kit_exif(&part, kit->orientation, kit->big_endian);
    buf_add_str(out, "EXIF");
    add_number(out, (uint32_t)part.len, 4, false);
    buf_add(out, part.data, part.len);
    MUST(part.len % 2 == 0);
    buf_clear(&part);
    add_number(&part, (uint32_t)(out->len - from - 8), 4, false);
    memcpy(out->data + from + 4, part.data, 4);
    buf_release(&part);
}

void
image_kit_webp(
    struct buf *out, const struct image *image, const struct image_kit *kit)
{
    size_t n_pixels = (size_t)image->width * image->height;
    uint8_t *rgba = mem_alloc(n_pixels, 4), *bytes = NULL;
    int width = (int)image->width, height = (int)image->height;
    size_t from = out->len, n = 0;

    MUST(rgba != NULL);
    kit = kit == NULL ? &plain : kit;
    float quality = kit->quality == 0 ? 90.0F : (float)kit->quality;
    int C = kit->alpha ? 4 : 3;
    for (size_t i = 0; i < n_pixels; i++) {
        for (size_t c = 0; c < 3; c++) {
            rgba[i * (size_t)C + c] =
                image->pixels[i * image->channels + c % image->channels];
        }
        if (kit->alpha) {
            rgba[i * 4 + 3] = (uint8_t)(i % image->width + i / image->width);
        }
    }
    if (kit->lossless) {
        n = kit->alpha
                ? WebPEncodeLosslessRGBA(rgba, width, height, width * C, &bytes)
                : WebPEncodeLosslessRGB(rgba, width, height, width * C, &bytes);
    } else {
        n = kit->alpha ? WebPEncodeRGBA(
                             rgba, width, height, width * C, quality, &bytes)
                       : WebPEncodeRGB(
                             rgba, width, height, width * C, quality, &bytes);
    }
    MUST(n > 0);
    buf_add(out, bytes, n);
    WebPFree(bytes);
    mem_free(rgba);
    if (kit->orientation != 0) {
        webp_orient(out, from, image, kit);
    }
    MUST(buf_status(out) == OK);
}
