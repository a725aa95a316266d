/*
 * image_kit.h - picture files for tests, made in memory by the codecs' own
 * encoders or byte by byte: good ones of every form that is read, and hostile
 * ones. A failure aborts: the tests' own mistake.
 */
#ifndef TESTS_IMAGE_KIT_H
#define TESTS_IMAGE_KIT_H

#include <stdbool.h>
#include "base/buf.h"
#include "image/image.h"

/* A smooth scene with edges, different for every seed; *out is released with
   mem_free(out->pixels) or image_release. */
void image_kit_paint(struct image *out, uint32_t width, uint32_t height,
    uint32_t channels, uint64_t seed);

/* All zero: a plain file of quality 90. */
struct image_kit {
    int quality;          /* 1..100; 0: 90 */
    bool interlaced;      /* progressive JPEG, Adam7 PNG */
    uint32_t orientation; /* EXIF's 1..8 in the file; 0: no EXIF */
    bool big_endian;      /* of the EXIF block */
    uint32_t scans;       /* JPEG, progressive: so many, 2..379 */
    bool lossless;        /* WebP */
    bool alpha;           /* PNG, WebP: alpha is (x + y) mod 256 */
    bool cmyk, ycck;      /* JPEG of four channels */
    uint32_t depth;       /* PNG: 1, 2, 4 (grey), 8, 16; 0: 8 */
    bool palette;         /* PNG: colour by a 6 x 6 x 6 cube */
    bool subsampled;      /* JPEG: half of the colour both ways */
};

/* Append the file; NULL: all zero. */
void image_kit_jpeg(
    struct buf *out, const struct image *image, const struct image_kit *kit);
void image_kit_png(
    struct buf *out, const struct image *image, const struct image_kit *kit);
void image_kit_webp(
    struct buf *out, const struct image *image, const struct image_kit *kit);

/* Pieces of files made by hand. */
void image_kit_exif(struct buf *out, uint32_t orientation, bool big_endian);
void image_kit_png_chunk(
    struct buf *out, const char *type, const void *data, size_t n);
/* Signature and header alone. */
void image_kit_png_header(struct buf *out, uint32_t width, uint32_t height,
    uint8_t depth, uint8_t colour, uint8_t interlace);
/* Bytes put in at a place of the file so far. */
void image_kit_insert(struct buf *out, size_t at, const void *data, size_t n);
/* Where a JPEG's frame header begins (its FF), its scan's FF DA. */
size_t image_kit_jpeg_marker(const struct buf *file, uint8_t marker);

/* A black PNG of any size, small: a decompression bomb when it is large. */
void image_kit_png_black(
    struct buf *out, uint32_t width, uint32_t height, bool interlaced);

/*
 * The hostile set: the i-th file is appended, with what it shall be answered
 * (OK for what looks odd and is read) and a word of the answer. Returns its
 * name, NULL past the last.
 */
const char *image_kit_hostile(
    size_t i, struct buf *out, enum err *want, const char **word);

#endif
