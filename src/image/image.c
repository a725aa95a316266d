#include "image/image.h"

#include <string.h>

#include "base/alloc.h"
#include "image/resample.h"

enum err
image_new(struct image *out, uint32_t width, uint32_t height, uint32_t channels)
{
    uint8_t *pixels;

    ASSERT(width > 0 && width <= IMAGE_SIDE_MAX);
    ASSERT(height > 0 && height <= IMAGE_SIDE_MAX);
    ASSERT(channels == 1 || channels == 3);
    pixels = mem_calloc((size_t)width * height, channels);
    if (pixels == NULL) {
        return ERR_NOMEM;
    }
    *out = (struct image){width, height, channels, pixels};
    return OK;
}

void
image_release(struct image *image)
{
    if (image == NULL) {
        return;
    }
    mem_free(image->pixels);
    *image = (struct image){0};
}

void
image_resize(struct image *out, const struct image *in)
{
    struct resample_box all = {.w = in->width, .h = in->height};

    ASSERT(out->channels == in->channels);
    if (out->width == in->width && out->height == in->height) {
        memcpy(out->pixels, in->pixels,
            (size_t)in->width * in->height * in->channels);
        return;
    }
    resample_bytes(
        out->pixels, out->width, out->height, out->channels, in, &all);
}

void
image_fit(
    uint8_t *out, uint32_t side, uint32_t channels, const struct image *in)
{
    uint32_t square = MIN(in->width, in->height);
    uint32_t x = (in->width - square) / 2, y = (in->height - square) / 2;
    struct resample_box box = {x, y, square, square, false};

    ASSERT(side > 0 && (channels == 1 || channels == 3));
    if (square == side && in->channels == channels) {
        size_t row_bytes = (size_t)side * channels;
        for (size_t i = 0; i < side; i++) {
            memcpy(out + i * row_bytes,
                in->pixels + ((y + i) * in->width + x) * channels, row_bytes);
        }
        return;
    }
    resample_bytes(out, side, side, channels, in, &box);
}
