/*
 * image_kit_hostile.c - files that lie, end early, are something else, or only
 * look odd.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "tests/support/image_kit.h"

enum { SIDE = 40 };

/* ---- good files to damage --------------------------------------------------
 */

static void
good(struct buf *out,
    void (*encode)(
        struct buf *, const struct image *, const struct image_kit *),
    const struct image_kit *kit)
{
    struct image image;

    image_kit_paint(&image, SIDE, SIDE, 3, 7);
    encode(out, &image, kit);
    image_release(&image);
}

static void
jpeg(struct buf *out)
{
    good(out, image_kit_jpeg, NULL);
}

static void
png(struct buf *out)
{
    good(out, image_kit_png, NULL);
}

static void
webp(struct buf *out)
{
    good(out, image_kit_webp, NULL);
}

static void
cut(struct buf *out, size_t n)
{
    out->len = n;
}

static void
put(struct buf *out, size_t at, const char *bytes, size_t n)
{
    if (at + n > out->len) {
        abort();
    }
    memcpy(out->data + at, bytes, n);
}

/* ---- JPEG ------------------------------------------------------------------
 */

static void
jpeg_magic(struct buf *out)
{
    buf_add(out, "\xFF\xD8\xFF", 3);
}

static void
jpeg_half(struct buf *out)
{
    jpeg(out);
    cut(out, out->len / 2);
}

static void
jpeg_in_header(struct buf *out)
{
    jpeg(out);
    cut(out, image_kit_jpeg_marker(out, 0xC0) + 6);
}

static void
jpeg_in_scan(struct buf *out)
{
    jpeg(out);
    cut(out, image_kit_jpeg_marker(out, 0xDA) + 20);
}

static void
jpeg_no_end(struct buf *out)
{
    jpeg(out);
    cut(out, out->len - 2);
}

/* The frame header: FF C0, length 2, precision 1, height 2, width 2, n 1, then
   for each channel its number, sampling, table. */
static void
jpeg_frame(struct buf *out, size_t offset, const char *bytes, size_t n)
{
    jpeg(out);
    put(out, image_kit_jpeg_marker(out, 0xC0) + offset, bytes, n);
}

static void
jpeg_huge(struct buf *out)
{
    jpeg_frame(out, 5, "\xFD\xE8\xFD\xE8", 4); /* 65,000 each */
}

static void
jpeg_over_side(struct buf *out)
{
    jpeg_frame(out, 5, "\xFF\xFF\x00\x01", 4);
}

static void
jpeg_lying(struct buf *out)
{
    jpeg_frame(out, 5, "\x1F\x40\x1F\x40", 4);
}

static void
jpeg_lying_a_little(struct buf *out)
{
    jpeg_frame(out, 5, "\0\x50\0\x50", 4);
}

static void
jpeg_no_height(struct buf *out)
{
    jpeg_frame(out, 5, "\0\0", 2);
}

static void
jpeg_no_width(struct buf *out)
{
    jpeg_frame(out, 7, "\0\0", 2);
}

static void
jpeg_12_bits(struct buf *out)
{
    jpeg_frame(out, 4, "\x0C", 1);
}

static void
jpeg_sampling_0(struct buf *out)
{
    jpeg_frame(out, 11, "\0", 1);
}

static void
jpeg_sampling_5(struct buf *out)
{
    jpeg_frame(out, 11, "\x55", 1);
}

static void
jpeg_arithmetic(struct buf *out)
{
    jpeg_frame(out, 1, "\xC9", 1);
}

static void
jpeg_spectral(struct buf *out)
{
    jpeg_frame(out, 1, "\xC3", 1);
}

static void
jpeg_cmyk(struct buf *out)
{
    good(out, image_kit_jpeg, &(struct image_kit){.cmyk = true});
}

static void
jpeg_ycck(struct buf *out)
{
    good(out, image_kit_jpeg, &(struct image_kit){.ycck = true});
}

/* As of Motion JPEG: the tables of the standard are taken. */
static void
jpeg_no_huffman(struct buf *out)
{
    jpeg(out);
    put(out, image_kit_jpeg_marker(out, 0xC4), "\xFF\xFE", 2);
}

static void
jpeg_bad_huffman(struct buf *out)
{
    jpeg(out);
    put(out, image_kit_jpeg_marker(out, 0xC4) + 5,
        "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8);
}

static void
jpeg_no_quantizer(struct buf *out)
{
    jpeg(out);
    put(out, image_kit_jpeg_marker(out, 0xDB), "\xFF\xFE", 2);
}

/* Every bit string is a picture, of noise, as long as it lasts. */
static void
jpeg_noise(struct buf *out)
{
    struct rng rng;

    jpeg(out);
    rng_seed(&rng, 1);
    for (size_t i = image_kit_jpeg_marker(out, 0xDA) + 14; i + 2 < out->len;
         i++) {
        out->data[i] = (char)rng_below(&rng, 255); /* no marker */
    }
}

static void
jpeg_two_frames(struct buf *out)
{
    jpeg(out);
    size_t at = image_kit_jpeg_marker(out, 0xC0);
    char frame[19];
    memcpy(frame, out->data + at, sizeof(frame));
    image_kit_insert(out, at, frame, sizeof(frame));
}

/* A progressive JPEG whose first scan comes again. */
static void
jpeg_again(struct buf *out, int n_times)
{
    struct buf scan;
    size_t from, to;

    good(out, image_kit_jpeg, &(struct image_kit){.interlaced = true});
    from = image_kit_jpeg_marker(out, 0xDA);
    for (to = from + 2;
         (uint8_t)out->data[to] != 0xFF || out->data[to + 1] == 0; to++) {
    }
    buf_init(&scan, 1 << 20);
    buf_add(&scan, out->data + from, to - from);
    for (int i = 0; i < n_times; i++) {
        image_kit_insert(out, from, scan.data, scan.len);
    }
    buf_release(&scan);
}

static void
jpeg_scans(struct buf *out)
{
    jpeg_again(out, 1000);
}

static void
jpeg_progression(struct buf *out)
{
    jpeg_again(out, 2);
}

static void
jpeg_trailing(struct buf *out)
{
    jpeg(out);
    buf_add_str(out, "and here begins something else");
}

static void
jpeg_padded(struct buf *out)
{
    jpeg(out);
    image_kit_insert(out, 2, "\xFF\xFF\xFF\xFF", 4);
}

static void
jpeg_exif_far(struct buf *out)
{
    jpeg(out);
    image_kit_insert(out, 2,
        "\xFF\xE1\0\x14"
        "Exif\0\0"
        "MM\0*\xFF\xFF\xFF\xFE\0\1\x01\x12",
        22);
}

static void
jpeg_exif_many(struct buf *out)
{
    jpeg(out);
    image_kit_insert(out, 2,
        "\xFF\xE1\0\x14"
        "Exif\0\0"
        "II*\0\x08\0\0\0\xFF\xFF\x12\x01",
        22);
}

static void
jpeg_exif_nine(struct buf *out)
{
    good(out, image_kit_jpeg, &(struct image_kit){.orientation = 9});
}

/* ---- PNG -------------------------------------------------------------------
 */

static void
png_magic_alone(struct buf *out)
{
    buf_add(out, "\x89PNG\r\n\x1A\n", 8);
}

static void
png_half(struct buf *out)
{
    png(out);
    cut(out, out->len / 2);
}

static void
png_no_end(struct buf *out)
{
    png(out);
    cut(out, out->len - 12);
}

static void
png_end(struct buf *out)
{
    image_kit_png_chunk(out, "IEND", NULL, 0);
}

static void
png_wide(struct buf *out)
{
    image_kit_png_header(out, 1000000000, 1, 8, 2, 0);
    image_kit_png_chunk(out, "IDAT", "\x78\x9C", 2);
    png_end(out);
}

static void
png_tall(struct buf *out)
{
    image_kit_png_header(out, 1, 1000000000, 1, 0, 0);
    image_kit_png_chunk(out, "IDAT", "\x78\x9C", 2);
    png_end(out);
}

static void
png_square(struct buf *out)
{
    image_kit_png_header(out, 0x7FFFFFFF, 0x7FFFFFFF, 8, 6, 0);
    image_kit_png_chunk(out, "IDAT", "\x78\x9C", 2);
    png_end(out);
}

static void
png_overflowing(struct buf *out)
{
    image_kit_png_header(out, 0xFFFFFFFF, 0xFFFFFFFF, 8, 6, 0);
    image_kit_png_chunk(out, "IDAT", "\x78\x9C", 2);
    png_end(out);
}

static void
png_bomb(struct buf *out)
{
    image_kit_png_black(out, 30000, 3000, false); /* 90 million */
}

static void
png_lying(struct buf *out)
{
    png(out);
    struct buf header;
    buf_init(&header, 64);
    image_kit_png_header(&header, 7000, 7000, 8, 2, 0);
    put(out, 0, header.data, header.len);
    buf_release(&header);
}

static void
png_lying_a_little(struct buf *out)
{
    png(out);
    struct buf header;
    buf_init(&header, 64);
    image_kit_png_header(&header, SIDE, SIDE + 10, 8, 2, 0);
    put(out, 0, header.data, header.len);
    buf_release(&header);
}

static void
png_of(struct buf *out, uint32_t w, uint32_t h, uint8_t depth, uint8_t colour,
    uint8_t interlace)
{
    image_kit_png_header(out, w, h, depth, colour, interlace);
    image_kit_png_chunk(out, "IDAT", "\x78\x9C\3\0\0\0\0\1", 8);
    png_end(out);
}

static void
png_no_width(struct buf *out)
{
    png_of(out, 0, 10, 8, 2, 0);
}

static void
png_no_height(struct buf *out)
{
    png_of(out, 10, 0, 8, 2, 0);
}

static void
png_depth_3(struct buf *out)
{
    png_of(out, 10, 10, 3, 0, 0);
}

static void
png_colour_5(struct buf *out)
{
    png_of(out, 10, 10, 8, 5, 0);
}

static void
png_interlace_7(struct buf *out)
{
    png_of(out, 10, 10, 8, 2, 7);
}

static void
png_no_palette(struct buf *out)
{
    png_of(out, 10, 10, 8, 3, 0);
}

static void
png_no_data(struct buf *out)
{
    image_kit_png_header(out, 10, 10, 8, 2, 0);
    png_end(out);
}

static void
png_short_data(struct buf *out)
{
    png_of(out, 10, 10, 8, 2, 0);
}

static void
png_not_first(struct buf *out)
{
    buf_add(out, "\x89PNG\r\n\x1A\n", 8);
    image_kit_png_chunk(out, "tEXt", "Title\0before", 12);
    struct buf rest;
    buf_init(&rest, 1 << 20);
    png(&rest);
    buf_add(out, rest.data + 8, rest.len - 8);
    buf_release(&rest);
}

static void
png_bad_header_sum(struct buf *out)
{
    png(out);
    put(out, 29, "\0\0\0\0", 4);
}

static void
png_bad_data_sum(struct buf *out)
{
    png(out);
    put(out, out->len - 16, "\0\0\0\0", 4);
}

static void
png_noise(struct buf *out)
{
    struct buf noise;

    buf_init(&noise, 4096);
    for (int i = 0; i < 2000; i++) {
        buf_add_char(&noise, (char)(i * 37));
    }
    image_kit_png_header(out, 10, 10, 8, 2, 0);
    image_kit_png_chunk(out, "IDAT", noise.data, noise.len);
    png_end(out);
    buf_release(&noise);
}

static void
png_long_chunk(struct buf *out)
{
    png(out);
    put(out, 33, "\xFF\xFF\xFF\xFF", 4);
}

static void
png_16_bits(struct buf *out)
{
    good(out, image_kit_png, &(struct image_kit){.depth = 16});
}

static void
png_with(struct buf *out, const char *type, const void *data, size_t n)
{
    struct buf chunk;

    png(out);
    buf_init(&chunk, 4 << 20);
    image_kit_png_chunk(&chunk, type, data, n);
    image_kit_insert(out, 33, chunk.data, chunk.len);
    buf_release(&chunk);
}

static void
png_animated(struct buf *out)
{
    png_with(out, "acTL", "\0\0\0\2\0\0\0\0", 8);
}

/* A text that says it unpacks: what follows is deflate of nothing much, and
   is never looked at. */
static void
png_text(struct buf *out)
{
    png_with(out, "zTXt", "Comment\0\0\x78\x9C\xED\xC1\x01\x0D\0\0\0\xC2", 19);
}

static void
png_profile(struct buf *out)
{
    png_with(out, "iCCP", "p\0\0\x78\x9C\xED\xC1\x01\x0D\0\0\0\xC2", 13);
}

static void
png_critical(struct buf *out)
{
    png_with(out, "QQQQ", "?", 1);
}

static void
png_exif_bad(struct buf *out)
{
    png_with(out, "eXIf", "MM\0*\xFF\xFF\xFF\xFF", 8);
}

static void
png_trailing(struct buf *out)
{
    png(out);
    buf_add_str(out, "and here begins something else");
}

/* ---- WebP ------------------------------------------------------------------
 */

static void
webp_magic(struct buf *out)
{
    buf_add(out, "RIFF\4\0\0\0WEBP", 12);
}

static void
webp_half(struct buf *out)
{
    webp(out);
    cut(out, out->len / 2);
}

/* As the last, but the container agrees with its length. */
static void
webp_short(struct buf *out)
{
    webp(out);
    cut(out, out->len / 4 * 2);
    put(out, 4,
        (char[]){(char)(out->len - 8), (char)((out->len - 8) >> 8), 0, 0}, 4);
}

static void
webp_lossless_half(struct buf *out)
{
    good(out, image_kit_webp, &(struct image_kit){.lossless = true});
    cut(out, out->len / 2);
}

static void
webp_long(struct buf *out)
{
    webp(out);
    put(out, 4, "\xFF\xFF\xFF\x7F", 4);
}

static void
webp_noise(struct buf *out)
{
    webp(out);
    memset(out->data + 20, 0x55, out->len - 20);
}

static void
webp_lossless_noise(struct buf *out)
{
    good(out, image_kit_webp, &(struct image_kit){.lossless = true});
    memset(out->data + 25, 0x55, out->len - 25);
}

static void
webp_canvas(struct buf *out, const char *canvas, char flags)
{
    buf_add(out, "RIFF\x1E\0\0\0WEBPVP8X\x0A\0\0\0", 20);
    buf_add_char(out, flags);
    buf_add(out, "\0\0\0", 3);
    buf_add(out, canvas, 6);
    buf_add(out, "ANIM\0\0\0\0", 8);
}

static void
webp_animated(struct buf *out)
{
    webp_canvas(out, "\x27\0\0\x27\0\0", 2);
}

static void
webp_huge(struct buf *out)
{
    webp_canvas(out, "\xFF\xFF\xFF\xFF\xFF\xFF", 0);
}

static void
webp_empty(struct buf *out)
{
    webp_canvas(out, "\x27\0\0\x27\0\0", 0);
}

/* The canvas of the container is not the size of the picture in it. */
static void
webp_other_size(struct buf *out)
{
    good(out, image_kit_webp, &(struct image_kit){.orientation = 1});
    put(out, 24, "\x30\0\0\x30\0\0", 6);
}

static void
webp_trailing(struct buf *out)
{
    webp(out);
    buf_add_str(out, "and here begins something else");
}

/* ---- something else --------------------------------------------------------
 */

#define OTHER(name, ...)                                                       \
    static void name(struct buf *out)                                          \
    {                                                                          \
        static const char bytes[] = __VA_ARGS__;                               \
        buf_add(out, bytes, sizeof(bytes) - 1);                                \
    }

OTHER(other_empty, "")
OTHER(other_byte, "\xFF")
OTHER(other_gif, "GIF89a\1\0\1\0\0\0\0;")
OTHER(other_bmp, "BM\x3A\0\0\0\0\0\0\0\x36\0\0\0")
OTHER(other_tiff, "II*\0\x08\0\0\0\0\0")
OTHER(other_tiff_big, "MM\0*\0\0\0\x08\0\0")
OTHER(other_heic, "\0\0\0\x18"
                  "ftypheic\0\0\0\0mif1heic")
OTHER(other_avif, "\0\0\0\x1C"
                  "ftypavif\0\0\0\0mif1avif")
OTHER(other_film, "\0\0\0\x18"
                  "ftypmp42\0\0\0\0mp42isom")
OTHER(other_svg, "<?xml version=\"1.0\"?>\n<svg width=\"10\"/>\n")
OTHER(other_html, "<!DOCTYPE html><html><img src=\"x.png\"></html>")
OTHER(other_text, "A cat sits on a mat.\n")
OTHER(other_latin1, "Eine K\xFC"
                    "che mit Katze.\n")
OTHER(other_bm, "BM is how this text begins\n")
OTHER(other_json, " {\"id\": \"a\", \"image\": null}")
OTHER(other_base64, "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ")
OTHER(other_data_url, "data:image/jpeg;base64,/9j/4AAQSkZJRg==")
OTHER(other_pdf, "%PDF-1.7\n%\xE2\xE3\xCF\xD3\n")
OTHER(other_zip, "PK\3\4\x14\0\0\0\x08\0")
OTHER(other_jxl, "\xFF\x0A\xFA\x1F\x01\x90\x08")
OTHER(other_jp2, "\0\0\0\x0CjP  \r\n\x87\n")
OTHER(other_wave, "RIFF\x24\0\0\0WAVEfmt \x10\0\0\0")
OTHER(other_noise, "\x01\x02\x03\x80\xFE\xDC\0\0\0\x17\x99")

/* ---- the set ---------------------------------------------------------------
 */

static const struct {
    const char *name;
    void (*make)(struct buf *out);
    enum err want;
    const char *word; /* of the detail */
} files[] = {
    {"jpeg-magic", jpeg_magic, ERR_INVALID, "truncated"},
    {"jpeg-half", jpeg_half, ERR_INVALID, "truncated"},
    {"jpeg-in-header", jpeg_in_header, ERR_INVALID, "truncated"},
    {"jpeg-in-scan", jpeg_in_scan, ERR_INVALID, "truncated"},
    {"jpeg-no-end", jpeg_no_end, ERR_INVALID, "truncated"},
    {"jpeg-huge", jpeg_huge, ERR_TOO_LARGE, "4225000000"},
    {"jpeg-over-side", jpeg_over_side, ERR_TOO_LARGE, "65500"},
    {"jpeg-lying", jpeg_lying, ERR_INVALID, "cannot hold"},
    {"jpeg-lying-a-little", jpeg_lying_a_little, ERR_INVALID, "damaged"},
    {"jpeg-no-height", jpeg_no_height, ERR_INVALID, "no pixels"},
    {"jpeg-no-width", jpeg_no_width, ERR_INVALID, "no pixels"},
    {"jpeg-12-bits", jpeg_12_bits, ERR_UNSUPPORTED, "12 bits"},
    {"jpeg-sampling-0", jpeg_sampling_0, ERR_INVALID, "sampling"},
    {"jpeg-sampling-5", jpeg_sampling_5, ERR_INVALID, "sampling"},
    {"jpeg-arithmetic", jpeg_arithmetic, ERR_UNSUPPORTED, "arithmetic"},
    {"jpeg-lossless", jpeg_spectral, ERR_UNSUPPORTED, "SOF"},
    {"jpeg-cmyk", jpeg_cmyk, ERR_UNSUPPORTED, "CMYK"},
    {"jpeg-ycck", jpeg_ycck, ERR_UNSUPPORTED, "CMYK"},
    {"jpeg-no-huffman", jpeg_no_huffman, OK, ""},
    {"jpeg-bad-huffman", jpeg_bad_huffman, ERR_INVALID, "Huffman"},
    {"jpeg-no-quantizer", jpeg_no_quantizer, ERR_INVALID, "Quantization"},
    {"jpeg-noise", jpeg_noise, OK, ""},
    {"jpeg-two-frames", jpeg_two_frames, ERR_INVALID, "SOF"},
    {"jpeg-scans", jpeg_scans, ERR_TOO_LARGE, "scans"},
    {"jpeg-progression", jpeg_progression, ERR_INVALID, "progression"},
    {"jpeg-trailing", jpeg_trailing, OK, ""},
    {"jpeg-padded", jpeg_padded, OK, ""},
    {"jpeg-exif-far", jpeg_exif_far, OK, ""},
    {"jpeg-exif-many", jpeg_exif_many, OK, ""},
    {"jpeg-exif-nine", jpeg_exif_nine, OK, ""},
    {"png-magic", png_magic_alone, ERR_INVALID, "truncated"},
    {"png-half", png_half, ERR_INVALID, "truncated"},
    {"png-no-end", png_no_end, ERR_INVALID, "truncated"},
    {"png-wide", png_wide, ERR_TOO_LARGE, "65535"},
    {"png-tall", png_tall, ERR_TOO_LARGE, "1000000000"},
    {"png-square", png_square, ERR_TOO_LARGE, "65535"},
    {"png-overflowing", png_overflowing, ERR_TOO_LARGE, "65535"},
    {"png-bomb", png_bomb, ERR_TOO_LARGE, "90000000"},
    {"png-lying", png_lying, ERR_INVALID, "cannot hold"},
    {"png-lying-a-little", png_lying_a_little, ERR_INVALID, "damaged"},
    {"png-no-width", png_no_width, ERR_INVALID, "no pixels"},
    {"png-no-height", png_no_height, ERR_INVALID, "no pixels"},
    {"png-depth-3", png_depth_3, ERR_INVALID, "3 bits"},
    {"png-colour-5", png_colour_5, ERR_INVALID, "type 5"},
    {"png-interlace-7", png_interlace_7, ERR_INVALID, "damaged"},
    {"png-no-palette", png_no_palette, ERR_INVALID, "damaged"},
    {"png-no-data", png_no_data, ERR_INVALID, "damaged"},
    {"png-short-data", png_short_data, ERR_INVALID, "damaged"},
    {"png-not-first", png_not_first, ERR_INVALID, "header"},
    {"png-bad-header-sum", png_bad_header_sum, ERR_INVALID, "CRC"},
    {"png-bad-data-sum", png_bad_data_sum, ERR_INVALID, "CRC"},
    {"png-noise", png_noise, ERR_INVALID, "damaged"},
    {"png-long-chunk", png_long_chunk, ERR_INVALID, "truncated"},
    {"png-16-bits", png_16_bits, ERR_UNSUPPORTED, "16 bits"},
    {"png-animated", png_animated, ERR_UNSUPPORTED, "animated"},
    {"png-text", png_text, OK, ""},
    {"png-profile", png_profile, OK, ""},
    {"png-critical", png_critical, ERR_INVALID, "damaged"},
    {"png-exif-bad", png_exif_bad, OK, ""},
    {"png-trailing", png_trailing, OK, ""},
    {"webp-magic", webp_magic, ERR_INVALID, "WebP"},
    {"webp-half", webp_half, ERR_INVALID, "truncated"},
    {"webp-short", webp_short, ERR_INVALID, "WebP"},
    {"webp-lossless-half", webp_lossless_half, ERR_INVALID, "truncated"},
    {"webp-long", webp_long, ERR_INVALID, "truncated"},
    {"webp-noise", webp_noise, ERR_INVALID, "damaged"},
    {"webp-lossless-noise", webp_lossless_noise, ERR_INVALID, "WebP"},
    {"webp-animated", webp_animated, ERR_UNSUPPORTED, "animated"},
    {"webp-huge", webp_huge, ERR_INVALID, "damaged"},
    {"webp-empty", webp_empty, ERR_INVALID, "WebP"},
    {"webp-other-size", webp_other_size, ERR_INVALID, "damaged"},
    {"webp-trailing", webp_trailing, OK, ""},
    {"empty", other_empty, ERR_INVALID, "empty"},
    {"byte", other_byte, ERR_UNSUPPORTED, "neither"},
    {"gif", other_gif, ERR_UNSUPPORTED, "GIF"},
    {"bmp", other_bmp, ERR_UNSUPPORTED, "BMP"},
    {"tiff", other_tiff, ERR_UNSUPPORTED, "TIFF"},
    {"tiff-big-endian", other_tiff_big, ERR_UNSUPPORTED, "TIFF"},
    {"heic", other_heic, ERR_UNSUPPORTED, "HEIC"},
    {"avif", other_avif, ERR_UNSUPPORTED, "AVIF"},
    {"film", other_film, ERR_UNSUPPORTED, "film"},
    {"svg", other_svg, ERR_UNSUPPORTED, "SVG"},
    {"html", other_html, ERR_UNSUPPORTED, "web page"},
    {"text", other_text, ERR_UNSUPPORTED, "text, not a picture"},
    {"latin1", other_latin1, ERR_UNSUPPORTED, "text, not a picture"},
    {"bm", other_bm, ERR_UNSUPPORTED, "text, not a picture"},
    {"json", other_json, ERR_UNSUPPORTED, "JSON, not a picture"},
    {"base64", other_base64, ERR_UNSUPPORTED, "base64"},
    {"data-url", other_data_url, ERR_UNSUPPORTED, "base64"},
    {"pdf", other_pdf, ERR_UNSUPPORTED, "PDF"},
    {"zip", other_zip, ERR_UNSUPPORTED, "ZIP"},
    {"jpeg-xl", other_jxl, ERR_UNSUPPORTED, "JPEG XL"},
    {"jpeg-2000", other_jp2, ERR_UNSUPPORTED, "JPEG 2000"},
    {"wave", other_wave, ERR_UNSUPPORTED, "neither"},
    {"noise", other_noise, ERR_UNSUPPORTED, "neither"},
};

const char *
image_kit_hostile(size_t i, struct buf *out, enum err *want, const char **word)
{
    if (i >= ARRAY_LEN(files)) {
        return NULL;
    }
    files[i].make(out);
    *want = files[i].want;
    *word = files[i].word;
    if (buf_status(out) != OK) {
        abort();
    }
    return files[i].name;
}
