#include "tests/support/train_kit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "image/image.h"

static char anchors[TRAIN_KIT_N][64], positives[TRAIN_KIT_N][64];
static char titles[TRAIN_KIT_N][128];
static uint8_t pixels[TRAIN_KIT_N][TRAIN_KIT_SIDE * TRAIN_KIT_SIDE];
static struct image images[TRAIN_KIT_N];

static struct batch_side
side_of(const char *s)
{
    size_t len = strlen(s);
    return (struct batch_side){
        .input = {.text = s, .len = len}, .key = hash_bytes(s, len, 1)};
}

static struct batch_example
example_of(size_t i, struct batch_side anchor, struct batch_side positive)
{
    return (struct batch_example){.anchor = anchor,
        .positive = positive,
        .weight = 1,
        .label = i / 8 + 1};
}

void
train_kit_pairs(struct batch_example *out)
{
    for (size_t i = 0; i < TRAIN_KIT_N; i++) {
        snprintf(anchors[i], sizeof anchors[i], "a%zub c%zud shared", i, i);
        snprintf(positives[i], sizeof positives[i], "x%zuy z%zuw common", i, i);
        out[i] = example_of(i, side_of(anchors[i]), side_of(positives[i]));
    }
}

void
train_kit_items(struct batch_example *out)
{
    for (size_t i = 0; i < TRAIN_KIT_N; i++) {
        snprintf(titles[i], sizeof titles[i],
            "title%zu of %zu\nthe body%zu says many%zu things about %zu", i, i,
            i, i, i);
        out[i] = example_of(i, side_of(titles[i]), side_of(titles[i]));
    }
}

/* Four blobs each, at places of their own. */
void
train_kit_pictures(struct batch_example *out)
{
    for (size_t i = 0; i < TRAIN_KIT_N; i++) {
        struct rng rng;
        double x[4], y[4];
        rng_seed(&rng, 500 + i);
        for (size_t b = 0; b < 4; b++) {
            x[b] = TRAIN_KIT_SIDE * rng_double(&rng);
            y[b] = TRAIN_KIT_SIDE * rng_double(&rng);
        }
        for (size_t p = 0; p < sizeof pixels[i]; p++) {
            double value = 0;
            for (size_t b = 0; b < 4; b++) {
                double dx = (double)(p % TRAIN_KIT_SIDE) - x[b];
                double dy = (double)p / TRAIN_KIT_SIDE - y[b];
                value += 200 * exp(-(dx * dx + dy * dy) / 12);
            }
            pixels[i][p] = (uint8_t)fmin(value, 255);
        }
        images[i] = (struct image){.width = TRAIN_KIT_SIDE,
            .height = TRAIN_KIT_SIDE,
            .channels = 1,
            .pixels = pixels[i]};
        struct batch_side side = {.input = {.image = &images[i]},
            .key = hash_bytes(pixels[i], sizeof pixels[i], 1)};
        out[i] = example_of(i, side, side);
    }
}
