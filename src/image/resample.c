#include "image/resample.h"

#include <math.h>
#include <string.h>

/* Columns of a result that are made together: their taps and sums lie on the
   stack, whatever the picture's width. */
enum { TILE = 64 };

/* Rec. 601 luma. */
#define LUMA_R 0.299F
#define LUMA_G 0.587F
#define LUMA_B 0.114F

/* What one row or column of the result takes from the picture: the pixels
   first..last, all but these two with weight w_mid. The weights sum to 1. */
struct tap {
    uint32_t first, last;
    float w_first, w_mid, w_last;
};

/* The i-th of n_out over [start, start + length) of an axis. */
static struct tap
tap_of(double start, double length, uint32_t n_out, uint32_t i, uint32_t n_in)
{
    double step = length / n_out;
    double low = floor(start);
    double high = fmin(ceil(start + length), n_in) - 1.0;
    struct tap tap = {.w_first = 1.0F};

    high = fmax(high, 0.0);
    low = fmin(fmax(low, 0.0), high);
    if (step > 1.0) {
        double a = fmax(start + i * step, low);
        double b = fmin(start + (i + 1.0) * step, high + 1.0);
        a = fmin(a, high);
        tap.first = (uint32_t)a;
        double last = fmax(ceil(b) - 1.0, tap.first);
        tap.last = (uint32_t)fmin(last, high);
        if (tap.last > tap.first) {
            double share = 1.0 / (b - a);
            tap.w_first = (float)((tap.first + 1.0 - a) * share);
            tap.w_last = (float)((b - tap.last) * share);
            tap.w_mid = (float)share;
        }
        return tap;
    }
    double centre = start + (i + 0.5) * step - 0.5;
    centre = fmin(fmax(centre, low), high);
    tap.first = (uint32_t)centre;
    tap.last = tap.first < (uint32_t)high ? tap.first + 1 : tap.first;
    tap.w_last = (float)(centre - tap.first);
    tap.w_first = 1.0F - tap.w_last;
    return tap;
}

static void
column_taps(struct tap *taps, uint32_t from, uint32_t n, uint32_t width,
    uint32_t in_width, const struct resample_box *box)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = box->flip ? width - 1 - (from + i) : from + i;
        taps[i] = tap_of(box->x, box->w, width, x, in_width);
    }
}

/* acc [n, C] += weight times the taps of one row of the picture. */
static inline void
add_row_of(float *acc, const struct tap *taps, uint32_t n, const uint8_t *row,
    float weight, const uint32_t C)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct tap *tap = &taps[i];
        const uint8_t *p = row + (size_t)tap->first * C;
        const uint8_t *last = row + (size_t)tap->last * C;
        float v[3];
        for (uint32_t c = 0; c < C; c++) {
            v[c] = tap->w_first * p[c] + tap->w_last * last[c];
        }
        if (tap->last - tap->first > 1) {
            uint32_t sum[3] = {0};
            for (p += C; p < last; p += C) {
                for (uint32_t c = 0; c < C; c++) {
                    sum[c] += p[c];
                }
            }
            for (uint32_t c = 0; c < C; c++) {
                v[c] += tap->w_mid * (float)sum[c];
            }
        }
        for (uint32_t c = 0; c < C; c++) {
            acc[(size_t)i * C + c] += weight * v[c];
        }
    }
}

static void
add_row(float *acc, const struct tap *taps, uint32_t n, const uint8_t *row,
    float weight, uint32_t channels)
{
    if (channels == 1) {
        add_row_of(acc, taps, n, row, weight, 1);
    } else {
        add_row_of(acc, taps, n, row, weight, 3);
    }
}

/* acc [n, channels] = the columns of taps in the result's row y. */
static void
make_row(float *acc, const struct tap *taps, uint32_t n, uint32_t y,
    uint32_t height, const struct image *in, const struct resample_box *box)
{
    struct tap tap = tap_of(box->y, box->h, height, y, in->height);
    size_t stride = (size_t)in->width * in->channels;

    memset(acc, 0, (size_t)n * in->channels * sizeof(*acc));
    for (uint32_t j = tap.first; j <= tap.last; j++) {
        float weight = j == tap.first  ? tap.w_first
                       : j == tap.last ? tap.w_last
                                       : tap.w_mid;
        if (weight > 0.0F) {
            add_row(
                acc, taps, n, in->pixels + j * stride, weight, in->channels);
        }
    }
}

/* To the nearest; the sums exceed 0..255 by rounding at most. */
static uint8_t
to_byte(float v)
{
    return (uint8_t)(v + 0.5F);
}

static void
store_row(uint8_t *out, uint32_t out_channels, const float *acc, uint32_t n,
    uint32_t channels)
{
    if (channels == out_channels) {
        for (uint32_t i = 0; i < n * channels; i++) {
            out[i] = to_byte(acc[i]);
        }
    } else if (channels == 1) {
        for (uint32_t i = 0; i < n; i++) {
            memset(out + (size_t)i * 3, to_byte(acc[i]), 3);
        }
    } else {
        for (uint32_t i = 0; i < n; i++) {
            const float *v = acc + (size_t)i * 3;
            out[i] = to_byte(LUMA_R * v[0] + LUMA_G * v[1] + LUMA_B * v[2]);
        }
    }
}

void
resample_bytes(uint8_t *out, uint32_t width, uint32_t height,
    uint32_t out_channels, const struct image *in,
    const struct resample_box *box)
{
    struct tap taps[TILE];
    float acc[TILE * 3];

    for (uint32_t x = 0; x < width; x += TILE) {
        uint32_t n = MIN(width - x, (uint32_t)TILE);
        column_taps(taps, x, n, width, in->width, box);
        for (uint32_t y = 0; y < height; y++) {
            make_row(acc, taps, n, y, height, in, box);
            store_row(out + ((size_t)y * width + x) * out_channels,
                out_channels, acc, n, in->channels);
        }
    }
}

void
resample_floats(float *out, uint32_t width, uint32_t height,
    const struct image *in, const struct resample_box *box)
{
    struct tap taps[TILE];

    for (uint32_t x = 0; x < width; x += TILE) {
        uint32_t n = MIN(width - x, (uint32_t)TILE);
        column_taps(taps, x, n, width, in->width, box);
        for (uint32_t y = 0; y < height; y++) {
            make_row(out + ((size_t)y * width + x) * in->channels, taps, n, y,
                height, in, box);
        }
    }
}
