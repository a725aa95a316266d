/*
 * decode_jpeg.c - JPEG through libjpeg (its API as of version 6b, so
 * libjpeg-turbo).
 *
 * The library reports errors by a call that must not return: it jumps back to
 * guarded(). What it only warns of is an error here when data were lost, else
 * it is ignored. Memory is the library's own (malloc): a JPEG of one scan takes
 * some rows, one of several scans two bytes a sample, which their limits
 * bound.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "base/alloc.h"
#include "image/decode_parts.h"

struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    const struct decode_file *file;
    enum err err; /* of the step that jumped */
    struct decode_sink sink;
    uint8_t *row;
};

/* ---- errors ----------------------------------------------------------------
 */

NORETURN static void
fail(struct reader *reader, enum err err)
{
    reader->err = err;
    longjmp(reader->jump, 1);
}

NORETURN static void
fail_by_message(struct reader *reader)
{
    const struct decode_file *file = reader->file;
    char text[JMSG_LENGTH_MAX] = "";
    enum err err = ERR_INVALID;

    switch (reader->jpeg.err->msg_code) {
    case JERR_OUT_OF_MEMORY:
        fail(reader, decode_no_memory(file));
    case JERR_INPUT_EOF:
    case JWRN_JPEG_EOF:
        fail(reader, decode_truncated(file, "JPEG"));
    case JERR_EMPTY_IMAGE:
        fail(reader,
            fault_set(file->fault, ERR_INVALID, "",
                "the picture has no pixels: its JPEG header says %u x %u",
                reader->jpeg.image_width, reader->jpeg.image_height));
    case JERR_NO_BACKING_STORE:
    case JERR_IMAGE_TOO_BIG:
    case JERR_WIDTH_OVERFLOW:
        err = ERR_TOO_LARGE;
        break;
    case JERR_BAD_PRECISION:
        fail(reader, fault_set(file->fault, ERR_UNSUPPORTED, "",
                         "a JPEG of %d bits a channel; 8 are read",
                         reader->jpeg.data_precision));
    case JERR_SOF_UNSUPPORTED:
    case JERR_ARITH_NOTIMPL:
    case JERR_CCIR601_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
        err = ERR_UNSUPPORTED;
        break;
    default:
        break;
    }
    reader->jpeg.err->format_message((j_common_ptr)&reader->jpeg, text);
    fail(reader, fault_set(file->fault, err, "", "%s JPEG file: %s",
                     err == ERR_INVALID ? "damaged" : "unusual", text));
}

static void
on_error(j_common_ptr jpeg)
{
    fail_by_message(jpeg->client_data);
}

/* A warning has level -1; others are chatter. */
static void
on_message(j_common_ptr jpeg, int level)
{
    if (level >= 0) {
        return;
    }
    switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_BOGUS_PROGRESSION:
    case JWRN_NOT_SEQUENTIAL:
        fail_by_message(jpeg->client_data);
    default: /* bytes between segments, unknown revisions */
        break;
    }
}

static void
on_output(j_common_ptr jpeg)
{
    (void)jpeg;
}

static uint64_t
scans_max(const struct jpeg_decompress_struct *jpeg)
{
    uint64_t n_pixels = (uint64_t)jpeg->image_width * jpeg->image_height;

    return MIN((uint64_t)IMAGE_JPEG_SCANS_MAX,
        IMAGE_JPEG_PIXEL_SCANS_MAX / MAX(n_pixels, 1));
}

static enum err
refuse_scans(const struct reader *reader)
{
    return fault_set(reader->file->fault, ERR_TOO_LARGE, "",
        "the JPEG has more than %u scans, the limit for %u x %u pixels",
        (unsigned)scans_max(&reader->jpeg), reader->jpeg.image_width,
        reader->jpeg.image_height);
}

/* Called for every row of blocks of every scan: n_scans counted right, and
   this is never the one to refuse. */
static void
on_progress(j_common_ptr common)
{
    struct reader *reader = common->client_data;
    int n_scans = reader->jpeg.input_scan_number;

    if (n_scans > 1 && (uint64_t)n_scans > scans_max(&reader->jpeg)) {
        fail(reader, refuse_scans(reader));
    }
}

/* step, or false with the error in reader->err. No variable of this frame
   lives over the jump. */
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
reader_open(struct reader *reader, const struct decode_file *file)
{
    reader->file = file;
    reader->err = OK;
    reader->row = NULL;
    reader->sink = (struct decode_sink){0};
    reader->jpeg = (struct jpeg_decompress_struct){0};
    reader->jpeg.err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = on_error;
    reader->errors.emit_message = on_message;
    reader->errors.output_message = on_output;
    reader->jpeg.client_data = reader;
    reader->progress =
        (struct jpeg_progress_mgr){.progress_monitor = on_progress};
}

static void
reader_close(struct reader *reader)
{
    jpeg_destroy_decompress(&reader->jpeg);
    decode_sink_release(&reader->sink);
    mem_free(reader->row);
}

/* ---- the header ------------------------------------------------------------
 */

/* The first EXIF block before the first scan: an APP1 segment "Exif\0\0". */
static uint32_t
orientation_of(const uint8_t *bytes, size_t n)
{
    static const uint8_t exif[6] = {'E', 'x', 'i', 'f', 0, 0};
    size_t at = 2;

    while (at + 4 <= n && bytes[at] == 0xFF) {
        uint8_t marker = bytes[at + 1];
        if (marker == 0xFF) { /* padding */
            at++;
            continue;
        }
        if (marker == 0xDA || marker == 0xD9) {
            break;
        }
        size_t len = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (len < 2 || len > n - at - 2) {
            break;
        }
        const uint8_t *data = bytes + at + 4;
        if (marker == 0xE1 && len >= 2 + sizeof(exif) &&
            memcmp(data, exif, sizeof(exif)) == 0) {
            return decode_exif_orientation(
                data + sizeof(exif), len - 2 - sizeof(exif));
        }
        at += 2 + len;
    }
    return 1;
}

static void
read_header(struct reader *reader)
{
    const struct decode_file *file = reader->file;

    jpeg_create_decompress(&reader->jpeg);
    reader->jpeg.progress = &reader->progress;
    jpeg_mem_src(&reader->jpeg, file->bytes, (unsigned long)file->n);
    (void)jpeg_read_header(&reader->jpeg, TRUE);
}

/* How often a scan begins, from the first on. Within a scan FF is followed by
   0 or a restart marker; between scans are segments with their length. */
static uint64_t
count_scans(const uint8_t *bytes, size_t n)
{
    const uint8_t *at = bytes + 2, *end = bytes + n, *ff;
    uint64_t n_scans = 0;

    while (
        (ff = memchr(at, 0xFF, (size_t)(end - at))) != NULL && end - ff >= 4) {
        size_t len = (size_t)ff[2] << 8 | ff[3];
        uint8_t marker = ff[1];
        at = ff + 1;
        if (marker == 0xD9) {
            break;
        }
        if (marker == 0 || marker == 0xFF ||
            (marker >= 0xD0 && marker <= 0xD7)) {
            continue;
        }
        n_scans += marker == 0xDA;
        if (len > (size_t)(end - ff) - 2) {
            break;
        }
        at = ff + 2 + len;
    }
    return n_scans;
}

/*
 * In a scan of all components, Huffman coded and sequential, a block has two
 * codes at least (DC, end of block) of one bit. Of several scans nothing is
 * known.
 */
static uint64_t
bytes_least(const struct jpeg_decompress_struct *jpeg)
{
    uint64_t n_blocks = 0;

    if (jpeg->progressive_mode || jpeg->comps_in_scan != jpeg->num_components) {
        return 0;
    }
    for (int i = 0; i < jpeg->num_components; i++) {
        n_blocks += (uint64_t)jpeg->comp_info[i].width_in_blocks *
                    jpeg->comp_info[i].height_in_blocks;
    }
    return n_blocks / 4;
}

static uint64_t
round_up(uint64_t n, int multiple)
{
    uint64_t m = (uint64_t)multiple;
    return (n + m - 1) / m * m;
}

/* The coefficients of a picture of several scans, which are all kept: 64 to a
   block, in whole MCUs. */
static uint64_t
coefficient_bytes(const struct jpeg_decompress_struct *jpeg)
{
    uint64_t bytes = 0;

    if (!jpeg->progressive_mode &&
        jpeg->comps_in_scan == jpeg->num_components) {
        return 0;
    }
    for (int i = 0; i < jpeg->num_components; i++) {
        const jpeg_component_info *c = &jpeg->comp_info[i];
        bytes += round_up(c->width_in_blocks, c->h_samp_factor) *
                 round_up(c->height_in_blocks, c->v_samp_factor) *
                 sizeof(JBLOCK);
    }
    return bytes;
}

static enum err
header_of(struct reader *reader, struct decode_header *out)
{
    const struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    struct fault *fault = reader->file->fault;
    int n = jpeg->num_components;

    if (n == 4) {
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "a JPEG of four channels (CMYK, for print); convert it to RGB");
    }
    if (n != 1 && n != 3) {
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "a JPEG of %d channels; 1 (grey) and 3 (colour) are read", n);
    }
    if (jpeg->arith_code) {
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "a JPEG in arithmetic coding; the Huffman coded ones are read");
    }
    if ((jpeg->progressive_mode || jpeg->comps_in_scan != n) &&
        count_scans(reader->file->bytes, reader->file->n) > scans_max(jpeg)) {
        return refuse_scans(reader);
    }
    *out = (struct decode_header){
        .width = jpeg->image_width,
        .height = jpeg->image_height,
        .channels = (uint32_t)n,
        .orientation = orientation_of(reader->file->bytes, reader->file->n),
        .bytes_least = bytes_least(jpeg),
        .codec_bytes = coefficient_bytes(jpeg),
    };
    return OK;
}

enum err
decode_jpeg_inspect(struct decode_file *file)
{
    struct reader reader;
    enum err err;

    reader_open(&reader, file);
    if (guarded(&reader, read_header)) {
        err = header_of(&reader, &file->header);
    } else {
        err = reader.err;
    }
    reader_close(&reader);
    return err;
}

/* ---- the picture -----------------------------------------------------------
 */

static void
read_picture(struct reader *reader)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    const struct decode_file *file = reader->file;
    bool grey = file->header.channels == 1;

    jpeg->scale_num = 1;
    jpeg->scale_denom = file->shrink;
    jpeg->out_color_space = grey ? JCS_GRAYSCALE : JCS_RGB;
    jpeg->do_block_smoothing = FALSE;
    /* Where rows are averaged anyway, colour need not be interpolated. */
    jpeg->do_fancy_upsampling = file->shrink == 1 ? TRUE : FALSE;
    (void)jpeg_start_decompress(jpeg);
    enum err err =
        decode_sink_init(&reader->sink, jpeg->output_width, jpeg->output_height,
            file->header.channels, 1, file->header.orientation);
    if (err == OK) {
        reader->row = mem_alloc(jpeg->output_width, file->header.channels);
    }
    if (err != OK || reader->row == NULL) {
        fail(reader, decode_no_memory(file));
    }
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = reader->row;
        (void)jpeg_read_scanlines(jpeg, &row, 1);
        decode_sink_put(&reader->sink, row);
    }
    (void)jpeg_finish_decompress(jpeg);
}

enum err
decode_jpeg(struct image *out, const struct decode_file *file)
{
    struct reader reader;
    enum err err = OK;

    reader_open(&reader, file);
    if (guarded(&reader, read_header) && guarded(&reader, read_picture)) {
        decode_sink_take(&reader.sink, out);
    } else {
        err = reader.err;
    }
    reader_close(&reader);
    return err;
}
