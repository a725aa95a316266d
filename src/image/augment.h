/*
 * augment.h - random views of a picture, for instance discrimination.
 *
 * A view says what the encoder shall ignore: where the thing stands in the
 * picture, its size, its mirror image, light and colour. Steps, in this order:
 * random resized crop, horizontal flip, colour jitter (brightness, contrast,
 * saturation, hue), grey, Gaussian blur, solarise. Source: Chen et al. 2020
 * (arXiv:2002.05709), app. A; solarise: Grill et al. 2020 (arXiv:2006.07733),
 * app. B.
 */
#ifndef IMAGE_AUGMENT_H
#define IMAGE_AUGMENT_H

#include "base/rng.h"
#include "image/image.h"

struct augment_options {
    float crop_min, crop_max; /* share of the area, (0, 1] */
    float ratio;      /* sides' ratio up to this, >= 1; log-uniform */
    float flip;       /* probability */
    float jitter;     /* probability of the four below together */
    float brightness; /* factor in [1 - x, 1 + x], as the next two */
    float contrast;
    float saturation;
    float hue;  /* turn of the colour circle in [-x, x], x <= 0.5 */
    float grey; /* probability; colour pictures only */
    float blur; /* probability; sigma in [0.1, 2] pixels at side 224, scaled */
    float solarise;     /* probability; values from 128 on are inverted */
    float rotate;       /* degrees, uniform in [-x, x], with the crop */
    float erase;        /* probability that a random box is set to its mean */
};

/* What measurement found best; see src/README.md. channels 1 or 3. */
void augment_options_default(struct augment_options *options,
    uint32_t channels);

/* Floats of scratch for pictures of side x side x channels. */
size_t augment_workspace_floats(uint32_t side, uint32_t channels);

/*
 * augment - one view.
 *
 *   out  [side, side, channels] overwritten
 *   in   any size, of the same channels; borrowed
 *   rng  advanced; the same state gives the same view on every machine up to
 *        the rounding of a pixel value
 *
 * Allocates nothing, cannot fail. Cost: linear in the pixels of out, and in
 * those of the crop.
 */
void augment(uint8_t *out, uint32_t side, uint32_t channels,
    const struct image *in, const struct augment_options *options,
    struct rng *rng, float *workspace);

#endif
