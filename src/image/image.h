/*
 * image.h - pictures in memory, and what is done to them before an encoder
 * sees them.
 *
 * Pixels are 8 bits a channel, rows from the top, channels interleaved, in the
 * sRGB values of the file: no colour profile is applied. Grey has one channel,
 * colour three (R, G, B); transparency is laid over white.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

#define IMAGE_SIDE_MAX 65535

struct image {
    uint32_t width, height;
    uint32_t channels; /* 1 or 3 */
    uint8_t *pixels;   /* [height, width, channels] */
};

/* A blank (zero) picture on the heap; image_release. ERR_NOMEM. */
enum err image_new(struct image *out, uint32_t width, uint32_t height,
    uint32_t channels) NODISCARD;
/* All-zero is releasable, and so is a released one. */
void image_release(struct image *image);

/*
 * image_resize - in to the size of out, both of the same channels, by
 * averaging over the area of each pixel where it shrinks and bilinear where it
 * grows, each axis for itself. out's pixels are the caller's, overwritten, and
 * not those of in. Within 1/2 + 1e-3 of exact arithmetic. Allocates nothing;
 * linear in the pixels of both.
 */
void image_resize(struct image *out, const struct image *in);

/*
 * image_fit - what an encoder of side x side pixels sees of a picture: the
 * greatest centred square, resized; channels converted (grey by Rec. 601 luma,
 * colour by repetition). A picture that is side x side already is copied.
 *
 *   out  [side, side, channels], the caller's, overwritten
 */
void image_fit(
    uint8_t *out, uint32_t side, uint32_t channels, const struct image *in);

/* Append the picture as a PNG file. ERR_NOMEM; ERR_TOO_LARGE over the maximum
   of out, which then holds a part of the file. */
enum err image_write_png(const struct image *image, struct buf *out) NODISCARD;

#endif
