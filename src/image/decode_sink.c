/*
 * decode_sink.c - rows of a codec become the upright picture.
 */
#include <string.h>

#include "base/alloc.h"
#include "image/decode_parts.h"

static uint32_t
ceil_div(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

enum err
decode_sink_init(struct decode_sink *sink, uint32_t width, uint32_t height,
    uint32_t channels, uint32_t shrink, uint32_t orientation)
{
    uint32_t C = channels <= 2 ? 1 : 3;
    uint32_t out_width = ceil_div(width, shrink);
    uint32_t out_height = ceil_div(height, shrink);
    bool turned = orientation >= 5;

    ASSERT(orientation >= 1 && orientation <= 8);
    *sink = (struct decode_sink){
        .width = width,
        .height = height,
        .channels = channels,
        .shrink = shrink,
        .orientation = orientation,
        .out_width = out_width,
    };
    if (shrink > 1) {
        sink->sums = mem_calloc((size_t)out_width * C, sizeof(*sink->sums));
        if (sink->sums == NULL) {
            return ERR_NOMEM;
        }
    }
    sink->band = mem_alloc((size_t)DECODE_BAND * out_width, C);
    if (sink->band == NULL) {
        return ERR_NOMEM;
    }
    return image_new(&sink->image, turned ? out_height : out_width,
        turned ? out_width : out_height, C);
}

void
decode_sink_release(struct decode_sink *sink)
{
    image_release(&sink->image);
    mem_free(sink->sums);
    mem_free(sink->band);
    sink->sums = NULL;
    sink->band = NULL;
}

void
decode_sink_take(struct decode_sink *sink, struct image *out)
{
    ASSERT(sink->row == sink->height);
    *out = sink->image;
    sink->image = (struct image){0};
}

static uint8_t
over_white(uint32_t v, uint32_t alpha)
{
    return (uint8_t)((v * alpha + 255 * (255 - alpha) + 127) / 255);
}

/* [n, C + 1] to [n, C] in place: writing never overtakes reading. */
static void
undo_transparency(uint8_t *row, size_t n, size_t C)
{
    const uint8_t *in = row;

    for (size_t i = 0; i < n; i++, in += C + 1, row += C) {
        uint32_t alpha = in[C];
        for (size_t c = 0; c < C; c++) {
            row[c] = alpha == 255 ? in[c] : over_white(in[c], alpha);
        }
    }
}

static void
add_to_sums(struct decode_sink *sink, const uint8_t *row)
{
    uint32_t C = sink->image.channels, *sum = sink->sums;

    for (uint32_t x = 0; x < sink->width; x += sink->shrink, sum += C) {
        uint32_t n = MIN(sink->shrink, sink->width - x);
        for (uint32_t i = 0; i < n; i++, row += C) {
            for (uint32_t c = 0; c < C; c++) {
                sum[c] += row[c];
            }
        }
    }
}

/* The mean of the n_rows in the sums, which are zero again. */
static void
take_sums(struct decode_sink *sink, uint8_t *out, uint32_t n_rows)
{
    uint32_t C = sink->image.channels, *sum = sink->sums;

    for (uint32_t x = 0; x < sink->width; x += sink->shrink) {
        uint32_t n = MIN(sink->shrink, sink->width - x) * n_rows;
        for (uint32_t c = 0; c < C; c++) {
            *out++ = (uint8_t)((*sum + n / 2) / n);
            *sum++ = 0;
        }
    }
}

/*
 * The band's rows, the last of which is row sink->out_row - 1 of the stored
 * picture, to their place in the upright one: pixel (x, y) goes to (x, y), or
 * (y, x) from orientation 5 on, counted from the right for 2, 3, 6, 7 and from
 * below for 3, 4, 7, 8.
 */
static void
place_band(struct decode_sink *sink, uint32_t n_rows)
{
    struct image *image = &sink->image;
    uint32_t o = sink->orientation;
    ptrdiff_t C = image->channels, row_bytes = C * sink->out_width;
    ptrdiff_t right = C, below = C * image->width; /* a step in the result */
    ptrdiff_t first = sink->out_row - n_rows;
    uint8_t *corner = image->pixels;

    if (o == 2 || o == 3 || o == 6 || o == 7) {
        corner += below - right;
        right = -right;
    }
    if (o == 3 || o == 4 || o == 7 || o == 8) {
        corner += (ptrdiff_t)(image->height - 1) * C * image->width;
        below = -below;
    }
    /* along a stored row, and from one to the next */
    ptrdiff_t step_x = o >= 5 ? below : right;
    ptrdiff_t step_y = o >= 5 ? right : below;
    corner += first * step_y;
    for (ptrdiff_t x = 0; x < sink->out_width; x++) {
        const uint8_t *from = sink->band + x * C;
        uint8_t *to = corner + x * step_x;
        if (C == 1) {
            for (uint32_t j = 0; j < n_rows; j++) {
                to[j * step_y] = from[j * row_bytes];
            }
        } else {
            for (uint32_t j = 0; j < n_rows; j++) {
                memcpy(to + j * step_y, from + j * row_bytes, 3);
            }
        }
    }
}

void
decode_sink_put(struct decode_sink *sink, uint8_t *row)
{
    size_t C = sink->image.channels;
    uint32_t slot = sink->out_row % DECODE_BAND;
    size_t row_bytes = sink->out_width * C;
    uint8_t *to = sink->orientation == 1
                      ? sink->image.pixels + sink->out_row * row_bytes
                      : sink->band + slot * row_bytes;

    ASSERT(sink->row < sink->height);
    if (sink->channels != C) {
        undo_transparency(row, sink->width, C);
    }
    sink->row++;
    bool last = sink->row == sink->height;
    if (sink->shrink > 1) {
        uint32_t n_rows = (sink->row - 1) % sink->shrink + 1;
        add_to_sums(sink, row);
        if (n_rows < sink->shrink && !last) {
            return;
        }
        take_sums(sink, to, n_rows);
    } else {
        memcpy(to, row, sink->width * C);
    }
    sink->out_row++;
    if (sink->orientation != 1 && (slot + 1 == DECODE_BAND || last)) {
        place_band(sink, slot + 1);
    }
}
