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
    float ratio;              /* sides' ratio up to this, >= 1; log-uniform */
    float flip;               /* probability */
    float jitter;             /* probability of the four below together */
    float brightness; /* factor in [1 - x, 1 + x], x <= 1; so the next two */
    float contrast;
    float saturation;
    float hue;  /* turn of the colour circle in [-x, x], x <= 0.5 */
    float grey; /* probability; colour pictures only */
    float blur; /* probability; sigma in [0.1, 2] pixels at side 224, scaled */
    float solarise; /* probability; values from 128 on are inverted */
    float rotate;   /* degrees, uniform in [-x, x], x <= 180 */
    float erase;    /* probability that a random box is set to its mean */
};

/*
 * What measurement found for pictures of one thing in the middle; channels 1
 * or 3. Colour: crops of 0.5..1 of the area, flip 1/2, jitter 0.8 with 0.4 0.4
 * 0.4 0.1, grey 0.2 (SimCLR's strengths, with a larger crop). Grey: crops of
 * 0.6..1, brightness and contrast 0.8, turns of 8 degrees, a box erased in
 * half of the views. No blur: small pictures do not gain from it (Chen et al.
 * 2020, app. B.9).
 */
void augment_options_default(
    struct augment_options *options, uint32_t channels);

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
 * 1. Crop: share of the area uniform in [crop_min, crop_max], ratio of the
 *    sides log-uniform in [1 / ratio, ratio], place uniform; what does not
 *    fit is drawn again up to ten times, then the greatest centred square is
 *    taken. So crop 1..1 at ratio 1 is image_fit. The crop, the flip and the
 *    rotation (about the crop's centre; what lies outside of the picture is
 *    its edge, repeated) are one sampling of the picture.
 * 2. Brightness b, contrast c, saturation s and hue (a rotation in YIQ), in
 *    this order, and grey, as one map of a pixel v:
 *      v' = H S (c b v + (1 - c) b m),  m the mean luma of the crop,
 *    clamped to 0..255 once at the end, where the source clamps after each.
 *    Of a grey picture only b and c apply.
 * 3. Blur: a separable Gaussian, sigma uniform in [0.1, 2] side / 224.
 * 4. Solarise: v -> 255 - v for v >= 128.
 * 5. Erase: a box of 2..33 % of the view, ratio of sides up to 3, is set to
 *    its own mean. (After Zhong et al. 2020, arXiv:1708.04896.)
 *
 * Rotation samples at most 8 x 8 points for a pixel of out, the axis-parallel
 * crop is exact (resample.h). Options out of their bounds give odd views, no
 * more. Allocates nothing, cannot fail. Cost: linear in the pixels of out, and
 * in those of the crop; the blur's in side^3. Any thread.
 */
void augment(uint8_t *out, uint32_t side, uint32_t channels,
    const struct image *in, const struct augment_options *options,
    struct rng *rng, float *workspace);

#endif
