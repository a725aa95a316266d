/*
 * decode_png.c - PNG through libpng.
 *
 * The chunks are walked here first, without memory: header, sizes, animation,
 * orientation, the end. libpng then sees a file whose chunks are whole, reads
 * only those that pixels need, and takes its memory from base/alloc.h; its
 * errors jump back to guarded().
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

#include "base/alloc.h"
#include "image/decode_parts.h"

#define HEADER_END 33          /* signature and IHDR */
#define DEFLATE_RATIO_MAX 1032 /* bytes out of a byte (zlib's manual) */
#define CHUNK_MEMORY_MAX 65536 /* of a chunk that libpng keeps: PLTE, tRNS */

enum { GREY = 0, COLOUR = 2, PALETTE = 3, GREY_ALPHA = 4, COLOUR_ALPHA = 6 };

/* ---- the header ------------------------------------------------------------
 */

static uint32_t
big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
           p[3];
}

static bool
is_chunk(const uint8_t *chunk, const char *type)
{
    return memcmp(chunk + 4, type, 4) == 0;
}

/* Bits of a pixel as stored; 0 for what the format does not have. */
static uint32_t
pixel_bits(uint32_t colour, uint32_t depth)
{
    switch (colour) {
    case GREY:
        return depth <= 16 && BIT_COUNT64(depth) == 1 ? depth : 0;
    case PALETTE:
        return depth <= 8 && BIT_COUNT64(depth) == 1 ? depth : 0;
    case COLOUR:
        return depth == 8 || depth == 16 ? 3 * depth : 0;
    case GREY_ALPHA:
        return depth == 8 || depth == 16 ? 2 * depth : 0;
    case COLOUR_ALPHA:
        return depth == 8 || depth == 16 ? 4 * depth : 0;
    default:
        return 0;
    }
}

/* Bytes of a pixel once it is expanded; any may have got alpha by tRNS. */
static uint32_t
expanded(uint32_t colour)
{
    return colour == GREY || colour == GREY_ALPHA ? 2 : 4;
}

/*
 * The chunks after the header: *orientation and *data_bytes (of IDAT). Each is
 * its length, its type, its data, its checksum. What follows IEND is not
 * looked at.
 */
static enum err
walk(
    const struct decode_file *file, uint32_t *orientation, uint64_t *data_bytes)
{
    size_t at = HEADER_END;

    *orientation = 1;
    *data_bytes = 0;
    while (file->n - at >= 12) {
        const uint8_t *chunk = file->bytes + at;
        size_t len = big_endian(chunk);
        if (len > file->n - at - 12) {
            break;
        }
        if (is_chunk(chunk, "IEND")) {
            return OK;
        }
        if (is_chunk(chunk, "IDAT")) {
            *data_bytes += len;
        } else if (is_chunk(chunk, "acTL")) {
            return fault_set(file->fault, ERR_UNSUPPORTED, "",
                "an animated PNG; one picture is wanted");
        } else if (is_chunk(chunk, "eXIf")) {
            *orientation = decode_exif_orientation(chunk + 8, len);
        }
        at += 12 + len;
    }
    return decode_truncated(file, "PNG");
}

enum err
decode_png_inspect(struct decode_file *file)
{
    const uint8_t *b = file->bytes;
    uint32_t orientation;
    uint64_t data_bytes;

    if (file->n < HEADER_END) {
        return decode_truncated(file, "PNG");
    }
    if (big_endian(b + 8) != 13 || !is_chunk(b + 8, "IHDR")) {
        return fault_set(file->fault, ERR_INVALID, "",
            "damaged PNG file: it does not begin with a header");
    }
    uint64_t width = big_endian(b + 16), height = big_endian(b + 20);
    uint32_t depth = b[24], colour = b[25];
    uint32_t bits = pixel_bits(colour, depth);
    if (bits == 0) {
        return fault_set(file->fault, ERR_INVALID, "",
            "damaged PNG file: no colour type %u of %u bits", colour, depth);
    }
    if (depth == 16) {
        return fault_set(file->fault, ERR_UNSUPPORTED, "",
            "a PNG of 16 bits a channel; convert it to 8");
    }
    enum err err = walk(file, &orientation, &data_bytes);
    if (err != OK) {
        return err;
    }
    if (b[28] != 0 && width * height > IMAGE_PNG_INTERLACED_MAX &&
        width <= IMAGE_SIDE_MAX && height <= IMAGE_SIDE_MAX) {
        return fault_set(file->fault, ERR_TOO_LARGE, "",
            "an interlaced PNG of %u x %u pixels; the limit is %u (of others "
            "it is higher)",
            (unsigned)width, (unsigned)height,
            (unsigned)IMAGE_PNG_INTERLACED_MAX);
    }
    /* Beside the other chunks, the pixels at the best ratio there is. */
    uint64_t bytes_least = 0;
    if (width <= IMAGE_SIDE_MAX && height <= IMAGE_SIDE_MAX) {
        bytes_least = file->n - data_bytes +
                      (width * bits + 7) / 8 * height / DEFLATE_RATIO_MAX;
    }
    file->header = (struct decode_header){
        .width = width,
        .height = height,
        .channels = colour == GREY || colour == GREY_ALPHA ? 1 : 3,
        .orientation = orientation,
        .bytes_least = bytes_least,
        .codec_bytes = b[28] != 0 ? width * height * expanded(colour) : 0,
    };
    return OK;
}

/* ---- the picture -----------------------------------------------------------
 */

struct reader {
    const struct decode_file *file;
    size_t at;
    enum err err;
    jmp_buf jump;
    png_structp png;
    png_infop info;
    struct decode_sink sink;
    uint8_t *rows; /* one, or all of an interlaced picture */
};

static png_voidp
png_take(png_structp png, png_alloc_size_t size)
{
    struct reader *reader = png_get_mem_ptr(png);
    void *p = mem_alloc(size, 1);

    if (p == NULL) {
        reader->err = ERR_NOMEM;
    }
    return p;
}

static void
png_give(png_structp png, png_voidp p)
{
    (void)png;
    mem_free(p);
}

NORETURN static void
fail(struct reader *reader, enum err err)
{
    reader->err = err;
    longjmp(reader->jump, 1);
}

NORETURN static void
on_error(png_structp png, png_const_charp message)
{
    struct reader *reader = png_get_error_ptr(png);

    if (reader->err == ERR_NOMEM) {
        fail(reader, decode_no_memory(reader->file));
    }
    fail(reader, fault_set(reader->file->fault, ERR_INVALID, "",
                     "damaged PNG file: %s", message));
}

static void
on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void
read_bytes(png_structp png, png_bytep out, size_t n)
{
    struct reader *reader = png_get_io_ptr(png);

    if (n > reader->file->n - reader->at) {
        fail(reader, decode_truncated(reader->file, "PNG"));
    }
    memcpy(out, reader->file->bytes + reader->at, n);
    reader->at += n;
}

/* As for JPEG: no variable of this frame lives over the jump. */
static bool
guarded(struct reader *reader, void (*step)(struct reader *reader))
{
    if (setjmp(reader->jump) != 0) {
        return false;
    }
    step(reader);
    return true;
}

static void
read_header(struct reader *reader)
{
    reader->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, reader,
        on_error, on_warning, reader, png_take, png_give);
    if (reader->png == NULL) {
        fail(reader, decode_no_memory(reader->file));
    }
    png_structp png = reader->png;
    reader->info = png_create_info_struct(png);
    if (reader->info == NULL) {
        fail(reader, decode_no_memory(reader->file));
    }
    png_set_read_fn(png, reader, read_bytes);
    png_set_user_limits(png, IMAGE_SIDE_MAX, IMAGE_SIDE_MAX);
    png_set_chunk_malloc_max(png, CHUNK_MEMORY_MAX);
    /* No profile and no text is unpacked. */
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(png, reader->info);
    /* 8 bits a channel; a palette becomes colour, tRNS alpha. */
    png_set_expand(png);
}

static void
read_picture(struct reader *reader)
{
    const struct decode_file *file = reader->file;
    png_structp png = reader->png;
    int n_passes = png_set_interlace_handling(png);

    png_read_update_info(png, reader->info);
    uint32_t width = png_get_image_width(png, reader->info);
    uint32_t height = png_get_image_height(png, reader->info);
    size_t stride = png_get_rowbytes(png, reader->info);
    uint32_t channels = png_get_channels(png, reader->info);
    ASSERT(stride == (size_t)width * channels);

    enum err err = decode_sink_init(&reader->sink, width, height, channels,
        file->shrink, file->header.orientation);
    if (err == OK) {
        reader->rows =
            n_passes == 1 ? mem_alloc(stride, 1) : mem_calloc(height, stride);
    }
    if (err != OK || reader->rows == NULL) {
        fail(reader, decode_no_memory(file));
    }
    for (int pass = 0; pass < n_passes; pass++) {
        for (size_t y = 0; y < height; y++) {
            uint8_t *row = reader->rows + (n_passes == 1 ? 0 : y * stride);
            png_read_row(png, row, NULL);
            if (pass == n_passes - 1) {
                decode_sink_put(&reader->sink, row);
            }
        }
    }
    png_read_end(png, NULL);
}

enum err
decode_png(struct image *out, const struct decode_file *file)
{
    struct reader reader = {.file = file};
    enum err err = OK;

    if (guarded(&reader, read_header) && guarded(&reader, read_picture)) {
        decode_sink_take(&reader.sink, out);
    } else {
        err = reader.err;
    }
    png_destroy_read_struct(&reader.png, &reader.info, NULL);
    decode_sink_release(&reader.sink);
    mem_free(reader.rows);
    return err;
}
