/*
 * decode_parts.h - what the codecs share behind decode.h; for decode*.c only.
 *
 * Decoding a file is: inspect its header (no memory is taken by its numbers),
 * refuse by it, then decode row by row into a sink, which lays transparency
 * over white, shrinks, turns the picture upright and owns its pixels.
 */
#ifndef IMAGE_DECODE_PARTS_H
#define IMAGE_DECODE_PARTS_H

#include <stdbool.h>
#include "image/decode.h"

/* What a header says, as stored: before orientation. */
struct decode_header {
    uint64_t width, height;
    uint32_t channels;          /* of the result, 1 or 3 */
    uint32_t orientation;       /* EXIF's, 1..8 */
    uint64_t bytes_least;       /* a file of so many pixels has; 0: not known */
    uint64_t codec_bytes;       /* of memory that the codec takes for the whole
                                   picture, however it is shrunk; rows aside */
    uint32_t codec_pixel_bytes; /* and for each pixel of the shrunk one */
};

struct decode_file {
    const uint8_t *bytes;
    size_t n;
    struct decode_header header;
    uint32_t shrink; /* 1, 2, 4 or 8: every side is divided by it */
    struct fault *fault;
};

/* Fill file->header; refuse what is not supported whatever its size. */
enum err decode_jpeg_inspect(struct decode_file *file) NODISCARD;
enum err decode_png_inspect(struct decode_file *file) NODISCARD;
enum err decode_webp_inspect(struct decode_file *file) NODISCARD;

/* The picture of an inspected file within the limits. out is untouched on
   failure. */
enum err decode_jpeg(
    struct image *out, const struct decode_file *file) NODISCARD;
enum err decode_png(
    struct image *out, const struct decode_file *file) NODISCARD;
enum err decode_webp(
    struct image *out, const struct decode_file *file) NODISCARD;

/* ERR_INVALID, ERR_NOMEM, ... with their words, for all three formats. */
enum err decode_truncated(const struct decode_file *file, const char *format);
enum err decode_no_memory(const struct decode_file *file);

/*
 * The orientation in an EXIF block that begins with its TIFF header: the tag
 * 0x0112 of the first directory, 1 when there is none or the block is damaged.
 * It is read here, in bounds and without memory, rather than by libexif: that
 * library builds a tree of every tag, makers' notes included, for this number.
 */
uint32_t decode_exif_orientation(const uint8_t *tiff, size_t n);

/* What a file of no known format is, to end the sentence "this is ...":
   "a GIF file", "text"; NULL when nothing is known. */
const char *decode_name_other(const uint8_t *bytes, size_t n);

/* ---- the sink --------------------------------------------------------------
 */

struct decode_sink {
    struct image image; /* the result, upright */
    uint32_t width;     /* pixels of a row that is put */
    uint32_t height;    /* rows that will be put */
    uint32_t channels;  /* of a row that is put: 1, 2, 3 or 4, even: alpha */
    uint32_t shrink, orientation;
    uint32_t row;       /* rows put */
    uint32_t out_width; /* before orientation */
    uint32_t out_row;   /* rows made, before orientation */
    uint32_t *sums;     /* [out_width, image.channels], when it shrinks */
    uint8_t *band;      /* [DECODE_BAND, out_width, image.channels] */
};

#define DECODE_BAND 64 /* rows that are turned together */

/* Memory for a picture of width x height pixels; ERR_NOMEM leaves *sink
   releasable. */
enum err decode_sink_init(struct decode_sink *sink, uint32_t width,
    uint32_t height, uint32_t channels, uint32_t shrink,
    uint32_t orientation) NODISCARD;
void decode_sink_release(struct decode_sink *sink);
/* row [width, channels]; its transparency is undone in place. */
void decode_sink_put(struct decode_sink *sink, uint8_t *row);
/* After the last row: gives the picture. */
void decode_sink_take(struct decode_sink *sink, struct image *out);

#endif
