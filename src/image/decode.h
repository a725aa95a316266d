/*
 * decode.h - JPEG, PNG and WebP files from anybody into pixels, in bounded
 * memory and time.
 *
 * The header is read first and everything is refused by it that is refused by
 * size; only then is memory taken. The format is told by the file's first
 * bytes, never by its name. EXIF orientation is applied. An animation is
 * refused. A picture is shrunk while it is decoded (to 1/2, 1/4 or 1/8, a rest
 * being a pixel of its own) as far as side_wanted allows, alike in all three
 * formats, so that the same picture looks the same.
 */
#ifndef IMAGE_DECODE_H
#define IMAGE_DECODE_H

#include "image/image.h"

#define IMAGE_BYTES_MAX ((size_t)32 << 20)    /* of a file, default */
#define IMAGE_PIXELS_MAX ((uint64_t)64000000) /* width x height, default */

/*
 * What keeps time in bounds whatever the limits are: the scans of a JPEG, each
 * of which goes over the whole picture (encoders make 10), their number times
 * the pixels, and the pixels of an interlaced PNG. The worst files found under
 * the default limits take about a second (tests/bench/bench_image.c).
 */
#define IMAGE_JPEG_SCANS_MAX 100
#define IMAGE_JPEG_PIXEL_SCANS_MAX ((uint64_t)400000000)
#define IMAGE_PNG_INTERLACED_MAX ((uint64_t)16000000)

enum image_format { IMAGE_UNKNOWN, IMAGE_JPEG, IMAGE_PNG, IMAGE_WEBP };

/* By the first bytes; n may be 0. */
enum image_format image_format_of(const void *bytes, size_t n);
/* "image/jpeg", ...; NULL for IMAGE_UNKNOWN. */
const char *image_format_type(enum image_format format);

struct image_limits {
    size_t bytes_max;     /* 0: IMAGE_BYTES_MAX */
    uint64_t pixels_max;  /* 0: IMAGE_PIXELS_MAX */
    uint32_t side_wanted; /* a result whose shorter side has at least this many
                             pixels is enough; 0: the whole picture */
};

struct image_facts {
    enum image_format format;
    uint32_t width, height; /* as shown: after orientation */
    uint32_t channels;      /* of the decoded form */
    uint64_t decode_bytes;  /* of memory that image_decode takes at most under
                               the same limits, the result counted */
};

/* What the header says, within the limits, without decoding. Errors as
   image_decode; a file whose later bytes are damaged may still pass. */
enum err image_inspect(struct image_facts *out, const void *bytes, size_t n,
    const struct image_limits *limits, struct fault *fault) NODISCARD;

/*
 * image_decode - a whole picture file.
 *
 *   out     image_release
 *   bytes   [n] borrowed
 *   limits  NULL: the defaults
 *   fault   detail says what is wrong in words for the sender; its pointer is
 *           the caller's to set
 *
 * Errors: ERR_UNSUPPORTED for another format (a text, a GIF, named where it is
 * known), animation, 16 bits a channel, CMYK, arithmetic coding; ERR_TOO_LARGE
 * over a limit, with both numbers; ERR_INVALID for an empty, damaged or
 * truncated file, and for one that is too short for what its header says;
 * ERR_NOMEM. Bytes after the picture's end are tolerated and not looked at, as
 * cameras append previews; so are unknown segments and bytes between them.
 * Cost: linear in the picture's pixels and the file's bytes. Memory: the
 * result and some rows; beside these, of the whole picture, 2 bytes a sample
 * for a JPEG of several scans, 2 to 4 bytes a pixel for an interlaced PNG, 5
 * for a lossless WebP and 6 for a lossy one with alpha, both with the tables
 * of as many codes as the file has room for, and 3 or 4 bytes a shrunk pixel
 * for any WebP. image_inspect has the sum. Any thread.
 */
enum err image_decode(struct image *out, const void *bytes, size_t n,
    const struct image_limits *limits, struct fault *fault) NODISCARD;

#endif
