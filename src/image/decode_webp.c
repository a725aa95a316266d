/*
 * decode_webp.c - WebP through libwebp, which decodes whole pictures, shrunk
 * where that is wanted. Its own memory (malloc) is some rows for the lossy
 * form; for the lossless one, and for alpha coded like it, the whole picture
 * and the tables of its codes.
 */
#include <inttypes.h>
#include <string.h>

#include <webp/decode.h>

#include "base/alloc.h"
#include "image/decode_parts.h"

/*
 * What the lossless form takes of memory: 4 bytes a pixel, its transforms and
 * the map of its codes (a word for 4 x 4 pixels each, 3 of them). The map
 * chooses among groups of 5 codes, at most 65,536; a group has 20 bits in the
 * file at least, and its tables take 20 KiB with the largest colour cache.
 */
#define LOSSLESS_PIXEL_BYTES 5
#define GROUPS_MAX 65536
#define GROUP_BITS 20
#define GROUP_BYTES 20584
/* Beside it, of alpha: its plane. */
#define ALPHA_PIXEL_BYTES (LOSSLESS_PIXEL_BYTES + 1)
enum { MIXED, LOSSY, LOSSLESS }; /* a file's format, as libwebp says it */

static uint32_t
little_endian(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 |
           p[0];
}

static enum err
refuse(const struct decode_file *file, VP8StatusCode status)
{
    switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
        return decode_no_memory(file);
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return decode_truncated(file, "WebP");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return fault_set(file->fault, ERR_UNSUPPORTED, "",
            "a WebP file with a feature that is not read");
    default:
        return fault_set(file->fault, ERR_INVALID, "", "damaged WebP file");
    }
}

/* The EXIF chunk of the container: each chunk is its type, its length, its
   data, padded to even. Some writers keep JPEG's "Exif\0\0" before it. */
static uint32_t
orientation_of(const uint8_t *bytes, size_t n)
{
    size_t at = 12;

    while (at <= n && n - at >= 8) {
        size_t len = little_endian(bytes + at + 4);
        if (len > n - at - 8) {
            break;
        }
        if (memcmp(bytes + at, "EXIF", 4) == 0) {
            const uint8_t *data = bytes + at + 8;
            bool prefixed = len >= 6 && memcmp(data, "Exif\0\0", 6) == 0;
            return decode_exif_orientation(
                data + (prefixed ? 6 : 0), len - (prefixed ? 6 : 0));
        }
        at += 8 + len + (len & 1);
    }
    return 1;
}

/* Memory for the whole picture, beside the pixels that it gives. */
static uint64_t
codec_bytes(const WebPBitstreamFeatures *features, size_t n)
{
    uint64_t w = (uint64_t)features->width, h = (uint64_t)features->height;

    if (features->format == LOSSY && !features->has_alpha) {
        return 0;
    }
    uint64_t n_groups = MIN((w + 3) / 4 * ((h + 3) / 4), (uint64_t)GROUPS_MAX);
    n_groups = MIN(n_groups, (uint64_t)n * 8 / GROUP_BITS);
    return n_groups * GROUP_BYTES + w * h *
                                        (features->format == LOSSLESS
                                                ? LOSSLESS_PIXEL_BYTES
                                                : ALPHA_PIXEL_BYTES);
}

enum err
decode_webp_inspect(struct decode_file *file)
{
    WebPBitstreamFeatures features;
    uint32_t riff_bytes = little_endian(file->bytes + 4);

    if (riff_bytes > file->n - 8) {
        return decode_truncated(file, "WebP");
    }
    VP8StatusCode status = WebPGetFeatures(file->bytes, file->n, &features);
    if (status != VP8_STATUS_OK) {
        return refuse(file, status);
    }
    if (features.has_animation) {
        return fault_set(file->fault, ERR_UNSUPPORTED, "",
            "an animated WebP; one picture is wanted");
    }
    file->header = (struct decode_header){
        .width = (uint64_t)features.width,
        .height = (uint64_t)features.height,
        .channels = 3,
        .orientation = orientation_of(file->bytes, file->n),
        .codec_bytes = codec_bytes(&features, file->n),
        .codec_pixel_bytes = features.has_alpha ? 4 : 3,
    };
    return OK;
}

/* Pixels [height, width, channels] as stored, but shrunk. */
static enum err
read_pixels(uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels,
    const struct decode_file *file)
{
    WebPDecoderConfig config;
    VP8StatusCode status;

    if (!WebPInitDecoderConfig(&config)) {
        return fault_set(
            file->fault, ERR_INTERNAL, "", "another libwebp than built with");
    }
    if (file->shrink > 1) {
        config.options.use_scaling = 1;
        config.options.scaled_width = (int)width;
        config.options.scaled_height = (int)height;
        config.options.no_fancy_upsampling = 1;
    }
    config.output.colorspace = channels == 4 ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = pixels;
    config.output.u.RGBA.stride = (int)(width * channels);
    config.output.u.RGBA.size = (size_t)width * height * channels;
    status = WebPDecode(file->bytes, file->n, &config);
    WebPFreeDecBuffer(&config.output);
    return status == VP8_STATUS_OK ? OK : refuse(file, status);
}

enum err
decode_webp(struct image *out, const struct decode_file *file)
{
    WebPBitstreamFeatures features;
    struct decode_sink sink = {0};
    uint32_t shrink = file->shrink;
    uint32_t width = ((uint32_t)file->header.width + shrink - 1) / shrink;
    uint32_t height = ((uint32_t)file->header.height + shrink - 1) / shrink;
    uint8_t *pixels = NULL;
    enum err err = OK;

    if (WebPGetFeatures(file->bytes, file->n, &features) != VP8_STATUS_OK) {
        return refuse(file, VP8_STATUS_BITSTREAM_ERROR);
    }
    uint32_t channels = features.has_alpha ? 4 : 3;
    size_t stride = (size_t)width * channels;
    pixels = mem_alloc(height, stride);
    if (pixels == NULL) {
        return decode_no_memory(file);
    }
    err = read_pixels(pixels, width, height, channels, file);
    if (err == OK) {
        err = decode_sink_init(
            &sink, width, height, channels, 1, file->header.orientation);
        if (err != OK) {
            err = decode_no_memory(file);
        }
    }
    for (size_t y = 0; err == OK && y < height; y++) {
        decode_sink_put(&sink, pixels + y * stride);
    }
    if (err == OK) {
        decode_sink_take(&sink, out);
    }
    decode_sink_release(&sink);
    mem_free(pixels);
    return err;
}
