#include "image/decode.h"

#include <inttypes.h>
#include <string.h>

#include "image/decode_parts.h"

#define SHRINK_MAX 8
/* For each pixel of a row: the band that is turned, and what codecs keep of
   some rows, of a JPEG most. */
#define ROWS_BYTES_A_PIXEL (3 * DECODE_BAND + 128)
#define CODEC_BYTES ((uint64_t)256 << 10) /* state, tables, windows */

static const uint8_t png_magic[] = {
    0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

enum image_format
image_format_of(const void *bytes, size_t n)
{
    const uint8_t *b = bytes;

    if (n >= 3 && b[0] == 0xFF && b[1] == 0xD8 && b[2] == 0xFF) {
        return IMAGE_JPEG;
    }
    if (n >= sizeof(png_magic) &&
        memcmp(b, png_magic, sizeof(png_magic)) == 0) {
        return IMAGE_PNG;
    }
    if (n >= 12 && memcmp(b, "RIFF", 4) == 0 && memcmp(b + 8, "WEBP", 4) == 0) {
        return IMAGE_WEBP;
    }
    return IMAGE_UNKNOWN;
}

const char *
image_format_type(enum image_format format)
{
    switch (format) {
    case IMAGE_JPEG:
        return "image/jpeg";
    case IMAGE_PNG:
        return "image/png";
    case IMAGE_WEBP:
        return "image/webp";
    case IMAGE_UNKNOWN:
        break;
    }
    return NULL;
}

enum err
decode_truncated(const struct decode_file *file, const char *format)
{
    return fault_set(file->fault, ERR_INVALID, "",
        "the %s file is truncated: it ends after %zu bytes", format, file->n);
}

enum err
decode_no_memory(const struct decode_file *file)
{
    return fault_set(file->fault, ERR_NOMEM, "",
        "not enough memory for a picture of %" PRIu64 " x %" PRIu64 " pixels",
        file->header.width, file->header.height);
}

static enum err
refuse_unknown(const struct decode_file *file)
{
    const char *name = decode_name_other(file->bytes, file->n);

    if (name != NULL) {
        return fault_set(file->fault, ERR_UNSUPPORTED, "",
            "this is %s; a picture is a JPEG, PNG or WebP file", name);
    }
    return fault_set(file->fault, ERR_UNSUPPORTED, "",
        "this is neither a JPEG nor a PNG nor a WebP file");
}

/* By the numbers of the header alone. */
static enum err
check_size(const struct decode_file *file, uint64_t pixels_max)
{
    uint64_t w = file->header.width, h = file->header.height;

    if (w == 0 || h == 0) {
        return fault_set(file->fault, ERR_INVALID, "",
            "the picture has no pixels: %" PRIu64 " x %" PRIu64, w, h);
    }
    if (w > IMAGE_SIDE_MAX || h > IMAGE_SIDE_MAX) {
        return fault_set(file->fault, ERR_TOO_LARGE, "",
            "the picture has %" PRIu64 " x %" PRIu64
            " pixels; a side has at most %d",
            w, h, IMAGE_SIDE_MAX);
    }
    if (w * h > pixels_max) {
        return fault_set(file->fault, ERR_TOO_LARGE, "",
            "the picture has %" PRIu64 " x %" PRIu64 " = %" PRIu64
            " pixels; the limit is %" PRIu64,
            w, h, w * h, pixels_max);
    }
    if (file->header.bytes_least > file->n) {
        return fault_set(file->fault, ERR_INVALID, "",
            "the header says %" PRIu64 " x %" PRIu64 " pixels, which a file "
            "of %zu bytes cannot hold: truncated, or made to mislead",
            w, h, file->n);
    }
    return OK;
}

static void
choose_shrink(struct decode_file *file, const struct image_limits *limits)
{
    uint64_t side = MIN(file->header.width, file->header.height);

    file->shrink = 1;
    if (limits != NULL && limits->side_wanted != 0) {
        while (file->shrink < SHRINK_MAX &&
               side / (file->shrink * 2) >= limits->side_wanted) {
            file->shrink *= 2;
        }
    }
}

static uint64_t
decode_bytes(const struct decode_file *file)
{
    const struct decode_header *h = &file->header;
    uint64_t width = (h->width + file->shrink - 1) / file->shrink;
    uint64_t height = (h->height + file->shrink - 1) / file->shrink;

    return width * height * (h->channels + h->codec_pixel_bytes) +
           h->codec_bytes + h->width * ROWS_BYTES_A_PIXEL + CODEC_BYTES;
}

/* Format, header and how far it is shrunk. */
static enum err
inspect(enum image_format *format, struct decode_file *file,
    const struct image_limits *limits)
{
    size_t bytes_max = IMAGE_BYTES_MAX;
    uint64_t pixels_max = IMAGE_PIXELS_MAX;
    enum err err = ERR_UNSUPPORTED;

    if (limits != NULL && limits->bytes_max != 0) {
        bytes_max = limits->bytes_max;
    }
    if (limits != NULL && limits->pixels_max != 0) {
        pixels_max = limits->pixels_max;
    }
    if (file->n == 0) {
        return fault_set(file->fault, ERR_INVALID, "", "the file is empty");
    }
    if (file->n > bytes_max) {
        return fault_set(file->fault, ERR_TOO_LARGE, "",
            "the file has %zu bytes; the limit is %zu", file->n, bytes_max);
    }
    *format = image_format_of(file->bytes, file->n);
    switch (*format) {
    case IMAGE_JPEG:
        err = decode_jpeg_inspect(file);
        break;
    case IMAGE_PNG:
        err = decode_png_inspect(file);
        break;
    case IMAGE_WEBP:
        err = decode_webp_inspect(file);
        break;
    case IMAGE_UNKNOWN:
        return refuse_unknown(file);
    }
    if (err == OK) {
        err = check_size(file, pixels_max);
    }
    if (err == OK) {
        choose_shrink(file, limits);
    }
    return err;
}

enum err
image_inspect(struct image_facts *out, const void *bytes, size_t n,
    const struct image_limits *limits, struct fault *fault)
{
    struct decode_file file = {.bytes = bytes, .n = n, .fault = fault};
    enum image_format format = IMAGE_UNKNOWN;
    enum err err = inspect(&format, &file, limits);

    if (err != OK) {
        return err;
    }
    bool turned = file.header.orientation >= 5;
    uint32_t w = (uint32_t)file.header.width, h = (uint32_t)file.header.height;
    *out = (struct image_facts){
        .format = format,
        .width = turned ? h : w,
        .height = turned ? w : h,
        .channels = file.header.channels,
        .decode_bytes = decode_bytes(&file),
    };
    return OK;
}

enum err
image_decode(struct image *out, const void *bytes, size_t n,
    const struct image_limits *limits, struct fault *fault)
{
    struct decode_file file = {.bytes = bytes, .n = n, .fault = fault};
    enum image_format format = IMAGE_UNKNOWN;
    enum err err = inspect(&format, &file, limits);

    if (err != OK) {
        return err;
    }
    switch (format) {
    case IMAGE_JPEG:
        return decode_jpeg(out, &file);
    case IMAGE_PNG:
        return decode_png(out, &file);
    case IMAGE_WEBP:
        return decode_webp(out, &file);
    case IMAGE_UNKNOWN:
        break;
    }
    return ERR_INTERNAL;
}
