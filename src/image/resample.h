/*
 * resample.h - a rectangle of a picture at another size; what image_resize,
 * image_fit and augment share.
 *
 * Each axis for itself: where it shrinks, a pixel of the result is the average
 * over the interval that it covers (edge pixels by their share); where it
 * grows or keeps its size, it is the bilinear value at its centre. Values are
 * clamped at the pixels that the rectangle touches, so nothing outside of it
 * is seen.
 */
#ifndef IMAGE_RESAMPLE_H
#define IMAGE_RESAMPLE_H

#include <stdbool.h>
#include "image/image.h"

/* In pixels of the picture, within it; w and h > 0, need not be whole. */
struct resample_box {
    double x, y, w, h;
    bool flip; /* left and right exchanged */
};

/*
 * resample_bytes, resample_floats - box of in as width x height pixels.
 *
 *   out           [height, width, out_channels] or [.., in->channels],
 *                 overwritten; floats in 0..255, not rounded
 *   out_channels  1 (of colour: Rec. 601 luma) or 3 (of grey: repeated)
 *
 * Sums are kept in float: within 1e-3 of exact arithmetic. Allocates nothing,
 * cannot fail. Cost: O(pixels of out + pixels of box).
 */
void resample_bytes(uint8_t *out, uint32_t width, uint32_t height,
    uint32_t out_channels, const struct image *in,
    const struct resample_box *box);
void resample_floats(float *out, uint32_t width, uint32_t height,
    const struct image *in, const struct resample_box *box);

#endif
