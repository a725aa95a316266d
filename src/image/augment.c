#include "image/augment.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "image/resample.h"

#define PI 3.14159265358979323846
#define CROP_TRIES 10
#define SAMPLES_MAX 8 /* a rotated pixel's samples along one axis */
#define SOLARISE_FROM 128.0F
#define ERASE_MIN 0.02
#define ERASE_MAX 0.33
#define ERASE_RATIO 3.0
#define BLUR_SIDE 224.0F
#define SIGMA_MIN 0.1F
#define SIGMA_MAX 2.0F

static const float luma[3] = {0.299F, 0.587F, 0.114F};

void
augment_options_default(struct augment_options *options, uint32_t channels)
{
    *options = (struct augment_options){
        .crop_min = 0.5F,
        .crop_max = 1.0F,
        .ratio = 4.0F / 3.0F,
        .flip = 0.5F,
        .jitter = 0.8F,
        .brightness = 0.4F,
        .contrast = 0.4F,
        .saturation = 0.4F,
        .hue = 0.1F,
        .grey = 0.2F,
    };
    if (channels == 1) {
        options->crop_min = 0.6F;
        options->brightness = options->contrast = 0.8F;
        options->saturation = options->hue = options->grey = 0;
        options->rotate = 8.0F;
        options->erase = 0.5F;
    }
}

size_t
augment_workspace_floats(uint32_t side, uint32_t channels)
{
    /* the view, and the blur's picture between its two passes */
    return 2 * (size_t)side * side * channels;
}

/* ---- randomness ---------------------------------------------------------- */

static double
uniform(struct rng *rng, double low, double high)
{
    return low + (high - low) * rng_double(rng);
}

/* Nothing is drawn for a step that is off. */
static bool
happens(struct rng *rng, float probability)
{
    return probability > 0.0F && rng_float(rng) < probability;
}

/* ---- 1. geometry --------------------------------------------------------- */

static struct resample_box
draw_crop(
    const struct image *in, const struct augment_options *o, struct rng *rng)
{
    double W = in->width, H = in->height;
    double log_ratio = log(o->ratio);

    for (int i = 0; i < CROP_TRIES; i++) {
        double area = W * H * uniform(rng, o->crop_min, o->crop_max);
        double ratio = exp(uniform(rng, -log_ratio, log_ratio));
        double w = sqrt(area * ratio), h = sqrt(area / ratio);
        if (w <= W && h <= H) {
            return (struct resample_box){
                .x = uniform(rng, 0.0, W - w),
                .y = uniform(rng, 0.0, H - h),
                .w = w,
                .h = h,
            };
        }
    }
    uint32_t square = MIN(in->width, in->height);
    return (struct resample_box){
        .x = (in->width - square) / 2,
        .y = (in->height - square) / 2,
        .w = square,
        .h = square,
    };
}

/* sum [channels] += the bilinear value at (u, v), pixel centres being whole
   numbers; outside of the picture its edge. */
static void
add_sample(float *sum, const struct image *in, double u, double v)
{
    size_t C = in->channels;

    u = fmin(fmax(u, 0.0), in->width - 1.0);
    v = fmin(fmax(v, 0.0), in->height - 1.0);
    uint32_t x = (uint32_t)u, y = (uint32_t)v;
    float fx = (float)(u - x), fy = (float)(v - y);
    size_t right = x + 1 < in->width ? C : 0;
    const uint8_t *p = in->pixels + ((size_t)y * in->width + x) * C;
    const uint8_t *q = y + 1 < in->height ? p + (size_t)in->width * C : p;
    for (size_t c = 0; c < C; c++) {
        float above = p[c] + fx * (float)(p[c + right] - p[c]);
        float below = q[c] + fx * (float)(q[c + right] - q[c]);
        sum[c] += above + fy * (below - above);
    }
}

/* The crop turned about its centre; n x n samples for each pixel of out, as
   many as the crop has pixels there. */
static void
sample_rotated(float *out, uint32_t side, const struct image *in,
    const struct resample_box *box, double angle)
{
    double scale = fmax(box->w, box->h) / side;
    uint32_t n = (uint32_t)fmin(fmax(ceil(scale), 1.0), SAMPLES_MAX);
    double cosine = cos(angle), sine = sin(angle);
    double centre_x = box->x + box->w / 2 - 0.5;
    double centre_y = box->y + box->h / 2 - 0.5;
    double step_x = box->w / (side * n), step_y = box->h / (side * n);
    uint32_t C = in->channels;

    for (uint32_t y = 0; y < side; y++) {
        for (uint32_t x = 0; x < side; x++) {
            uint32_t from = box->flip ? side - 1 - x : x;
            float sum[3] = {0};
            for (uint32_t j = 0; j < n; j++) {
                double dy = (y * n + j + 0.5) * step_y - box->h / 2;
                for (uint32_t i = 0; i < n; i++) {
                    double dx = (from * n + i + 0.5) * step_x - box->w / 2;
                    add_sample(sum, in, centre_x + cosine * dx - sine * dy,
                        centre_y + sine * dx + cosine * dy);
                }
            }
            for (uint32_t c = 0; c < C; c++) {
                *out++ = sum[c] / (float)(n * n);
            }
        }
    }
}

/* ---- 2. colour ----------------------------------------------------------- */

/* v' = m v + offset of an (R, G, B) column. */
struct colour_map {
    float m[3][3];
    float offset;
};

static float
mean_luma(const float *v, size_t n_pixels, uint32_t channels)
{
    double sum[3] = {0};

    for (size_t i = 0; i < n_pixels; i++) {
        for (uint32_t c = 0; c < channels; c++) {
            sum[c] += v[i * channels + c];
        }
    }
    double mean = sum[0];
    if (channels == 3) {
        mean = (double)luma[0] * sum[0] + (double)luma[1] * sum[1] +
               (double)luma[2] * sum[2];
    }
    return (float)(mean / (double)n_pixels);
}

/* map = factor * map, of the matrices; a factor whose rows sum to 1 leaves the
   offset, which is grey, as it is. */
static void
compose(struct colour_map *map, float factor[3][3])
{
    float product[3][3];

    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            product[i][j] = factor[i][0] * map->m[0][j] +
                            factor[i][1] * map->m[1][j] +
                            factor[i][2] * map->m[2][j];
        }
    }
    memcpy(map->m, product, sizeof(product));
}

/* s v + (1 - s) luma(v): 1 is the identity, 0 is grey. */
static void
saturate(struct colour_map *map, float s)
{
    float factor[3][3];

    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            factor[i][j] = (1.0F - s) * luma[j] + (i == j ? s : 0.0F);
        }
    }
    compose(map, factor);
}

/*
 * A turn of the I-Q plane of YIQ about Y. With T the map from RGB to (Y, I, Q)
 * and R(a) the turn, the factor is T^-1 R(a) T = A + cos(a) (1 - A) + sin(a) D:
 * A has the luma in every row, and D = T^-1 R' T with R' the quarter turn of
 * (I, Q) alone. I = 0.74 (R - Y) - 0.27 (B - Y), Q = 0.48 (R - Y) + 0.41
 * (B - Y) (NTSC, FCC 1953). D's rows sum to 0.
 */
static void
turn_hue(struct colour_map *map, float turn)
{
    static const float d[3][3] = {
        {0.171274827F, 0.322646651F, -0.493921478F},
        {-0.332255796F, 0.039695150F, 0.292560646F},
        {1.261605081F, -1.050635104F, -0.210969977F},
    };
    float angle = turn * 2.0F * (float)PI;
    float cosine = cosf(angle), sine = sinf(angle);
    float factor[3][3];

    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            factor[i][j] = (1.0F - cosine) * luma[j] +
                           (i == j ? cosine : 0.0F) + sine * d[i][j];
        }
    }
    compose(map, factor);
}

static float
clamp(float v)
{
    return fminf(fmaxf(v, 0.0F), 255.0F);
}

static void
apply_map(
    float *v, size_t n_pixels, uint32_t channels, const struct colour_map *map)
{
    const float offset = map->offset;

    if (channels == 1) {
        float factor = map->m[0][0];
        for (size_t i = 0; i < n_pixels; i++) {
            v[i] = clamp(factor * v[i] + offset);
        }
        return;
    }
    struct colour_map k = *map;
    for (size_t i = 0; i < n_pixels; i++, v += 3) {
        float r = v[0], g = v[1], b = v[2];
        for (int c = 0; c < 3; c++) {
            v[c] =
                clamp(k.m[c][0] * r + k.m[c][1] * g + k.m[c][2] * b + offset);
        }
    }
}

static float
draw_factor(struct rng *rng, float x)
{
    return x > 0.0F ? (float)uniform(rng, 1.0 - (double)x, 1.0 + (double)x)
                    : 1.0F;
}

static void
change_colours(float *v, size_t n_pixels, uint32_t channels,
    const struct augment_options *o, struct rng *rng)
{
    struct colour_map map = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, 0.0F};
    bool any = false;

    if (happens(rng, o->jitter)) {
        float brightness = draw_factor(rng, o->brightness);
        float contrast = draw_factor(rng, o->contrast);
        for (int i = 0; i < 3; i++) {
            map.m[i][i] = brightness * contrast;
        }
        if (o->contrast > 0.0F) {
            map.offset = (1.0F - contrast) * brightness *
                         mean_luma(v, n_pixels, channels);
        }
        if (channels == 3) {
            if (o->saturation > 0.0F) {
                saturate(&map, draw_factor(rng, o->saturation));
            }
            if (o->hue > 0.0F) {
                turn_hue(
                    &map, (float)uniform(rng, -(double)o->hue, (double)o->hue));
            }
        }
        any = true;
    }
    if (channels == 3 && happens(rng, o->grey)) {
        saturate(&map, 0.0F);
        any = true;
    }
    if (any) {
        apply_map(v, n_pixels, channels, &map);
    }
}

/* ---- 3. blur ------------------------------------------------------------- */

/* Radius of three sigmas; a side of 1,000 stays within. */
enum { RADIUS_MAX = 32 };

/* half[k] is the weight at distance k; returns the radius. */
static uint32_t
blur_weights(float half[RADIUS_MAX + 1], float sigma)
{
    uint32_t radius = (uint32_t)fminf(ceilf(3.0F * sigma), RADIUS_MAX);
    float sum = 0.0F;

    for (uint32_t k = 0; k <= radius; k++) {
        float t = (float)k / sigma;
        half[k] = expf(-0.5F * t * t);
        sum += k == 0 ? half[k] : 2.0F * half[k];
    }
    for (uint32_t k = 0; k <= radius; k++) {
        half[k] /= sum;
    }
    return radius;
}

/* out [n] += weight (before + after) */
static void
add_pair(
    float *out, const float *before, const float *after, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] += weight * (before[i] + after[i]);
    }
}

static void
scale(float *out, const float *in, float weight, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = weight * in[i];
    }
}

/* The pixels from..to of a row, whose neighbours at distance k may lie beyond
   its ends: there its last pixel is repeated. */
static void
add_near_end(float *out, const float *in, float weight, size_t k, size_t from,
    size_t to, size_t side, size_t C)
{
    for (size_t x = from; x < to; x++) {
        const float *before = in + (x >= k ? x - k : 0) * C;
        const float *after = in + MIN(x + k, side - 1) * C;
        add_pair(out + x * C, before, after, weight, C);
    }
}

/* v [side, side, C] in place; the view's edge is repeated outside of it. */
static void
blur(float *v, float *between, size_t side, size_t C, float sigma)
{
    float half[RADIUS_MAX + 1];
    size_t radius = MIN(blur_weights(half, sigma), side - 1);
    size_t stride = side * C;

    for (size_t y = 0; y < side; y++) {
        float *out = between + y * stride;
        const float *in = v + y * stride;
        scale(out, in, half[0], stride);
        for (size_t k = 1; k <= radius; k++) {
            add_near_end(out, in, half[k], k, 0, k, side, C);
            if (side > 2 * k) {
                add_pair(out + k * C, in, in + 2 * k * C, half[k],
                    (side - 2 * k) * C);
            }
            add_near_end(out, in, half[k], k, MAX(k, side - k), side, side, C);
        }
    }
    for (size_t y = 0; y < side; y++) {
        float *out = v + y * stride;
        scale(out, between + y * stride, half[0], stride);
        for (size_t k = 1; k <= radius; k++) {
            add_pair(out, between + (y >= k ? y - k : 0) * stride,
                between + MIN(y + k, side - 1) * stride, half[k], stride);
        }
    }
}

/* ---- 4., 5. -------------------------------------------------------------- */

static void
solarise(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = v[i] >= SOLARISE_FROM ? 255.0F - v[i] : v[i];
    }
}

static void
erase(float *v, uint32_t side, uint32_t channels, struct rng *rng)
{
    double share = uniform(rng, ERASE_MIN, ERASE_MAX);
    double ratio = exp(uniform(rng, -log(ERASE_RATIO), log(ERASE_RATIO)));
    uint32_t w = (uint32_t)fmax(1.0, round(side * sqrt(share * ratio)));
    uint32_t h = (uint32_t)fmax(1.0, round(side * sqrt(share / ratio)));
    float mean[3] = {0};

    w = MIN(w, side);
    h = MIN(h, side);
    size_t left = (size_t)rng_below(rng, (uint64_t)(side - w) + 1);
    size_t top = (size_t)rng_below(rng, (uint64_t)(side - h) + 1);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t y = top; y < top + h; y++) {
            float *p = v + (y * side + left) * channels;
            for (size_t i = 0; i < (size_t)w * channels; i++) {
                if (pass == 0) {
                    mean[i % channels] += p[i];
                } else {
                    p[i] = mean[i % channels];
                }
            }
        }
        for (uint32_t c = 0; c < channels && pass == 0; c++) {
            mean[c] /= (float)w * (float)h;
        }
    }
}

void
augment(uint8_t *out, uint32_t side, uint32_t channels, const struct image *in,
    const struct augment_options *options, struct rng *rng, float *workspace)
{
    size_t n_pixels = (size_t)side * side, n = n_pixels * channels;
    float *v = workspace;

    ASSERT(side > 0 && in->channels == channels);
    struct resample_box box = draw_crop(in, options, rng);
    box.flip = happens(rng, options->flip);
    if (options->rotate > 0.0F) {
        double x = (double)options->rotate;
        sample_rotated(v, side, in, &box, uniform(rng, -x, x) * PI / 180.0);
    } else {
        resample_floats(v, side, side, in, &box);
    }
    change_colours(v, n_pixels, channels, options, rng);
    if (happens(rng, options->blur)) {
        float sigma = (float)uniform(rng, (double)SIGMA_MIN, (double)SIGMA_MAX);
        blur(v, workspace + n, side, channels, sigma * (float)side / BLUR_SIDE);
    }
    if (happens(rng, options->solarise)) {
        solarise(v, n);
    }
    if (happens(rng, options->erase)) {
        erase(v, side, channels, rng);
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (uint8_t)(v[i] + 0.5F);
    }
}
