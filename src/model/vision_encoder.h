/*
 * vision_encoder.h - pictures: a small residual convolutional network.
 *
 *   a      = (picture - mean) / std, a channel at a time
 *   x      = ReLU(N(stem * a))
 *   x'     = ReLU(N2(C2 * ReLU(N1(C1 * x))) + S(x))         a block
 *   f      = averages of x over grid x grid cells of the last map
 *   z      = y / |y|,  y = W f + bias, or f itself
 *
 * with * a convolution by standardised weights (nn/standardize.h), N group
 * normalisation with gain and bias (nn/groupnorm.h), S the identity or, where
 * a block changes the size, N(1 x 1 convolution). Stage i has width 2^i
 * channels; the first block of each stage after the first halves the map. The
 * gain of N2 starts at 0, so that an untrained block is its shortcut.
 * Nothing passes from one picture of a batch to another.
 * Source: He et al. 2015 (arXiv:1512.03385), sec. 3; weight standardisation
 * with group normalisation as in Kolesnikov et al. 2019 (arXiv:1912.11370),
 * sec. 3.2; the zero gain: Goyal et al. 2017 (arXiv:1706.02677), sec. 5.1.
 *
 * Pictures are worked on in runs: of `run` pictures while there are as many,
 * then of one. Within a run the maps of a layer stand side by side.
 *
 * Parameters, one block: for each convolution its weights [O, I, K, K], gain
 * [O] and bias [O]; W [D, F] and bias [D]; mean and std [channels], which
 * encoder_refit sets and no gradient moves.
 */
#ifndef MODEL_VISION_ENCODER_H
#define MODEL_VISION_ENCODER_H

#include "kern/conv.h"
#include "model/family.h"
#include "nn/groupnorm.h"

#define VISION_STAGES_MAX 4
#define VISION_GRID_MAX 32
#define VISION_BLOCKS_MAX 4 /* a stage */
#define VISION_CONVS_MAX                                                       \
    (1 + 2 * VISION_STAGES_MAX * VISION_BLOCKS_MAX + VISION_STAGES_MAX)
#define VISION_RUN_MAX 8
#define VISION_STD_MIN (1.0f / 255) /* of a channel, 1 being white */
#define VISION_PARAMS_MAX ((size_t)1 << 24)

/* One convolution and the normalisation behind it. */
struct vision_conv {
    uint32_t ic, oc, side, kernel, stride; /* side of its input */
    uint32_t side_out;
    size_t w_at, gain_at, bias_at; /* into params */
    size_t n_w;
    size_t stats_at; /* of a picture */
    size_t map;      /* floats of its output, of a picture */
};

struct vision_block {
    size_t conv1, conv2;
    size_t shortcut; /* 0: the identity */
};

/* Where the maps of a picture stand, times the pictures of the run. */
struct vision_places {
    size_t input;               /* the normalised picture */
    size_t c[VISION_CONVS_MAX]; /* a convolution's output */
    size_t x[1 + VISION_STAGES_MAX * VISION_BLOCKS_MAX]; /* of the stem, of
                                                            each block */
    size_t floats;
};

struct vision_encoder {
    struct encoder base;
    uint32_t width, n_blocks, n_stages, stem_stride;
    uint32_t grid; /* cells a side that the last map is averaged over */
    bool linear;
    uint64_t seed;
    size_t n_convs;
    struct vision_conv convs[VISION_CONVS_MAX]; /* [0] is the stem */
    size_t n_all_blocks;
    struct vision_block blocks[VISION_STAGES_MAX * VISION_BLOCKS_MAX];
    size_t n_features;                /* F */
    size_t linear_at, linear_bias_at; /* with linear */
    size_t mean_at, std_at;
    size_t n_stats;            /* floats of the statistics of a picture */
    size_t map_max;            /* floats of the largest map of a picture */
    size_t w_max;              /* floats of the largest weights */
    size_t run;                /* pictures of a run */
    struct vision_places keep; /* all maps, for backward */
    struct vision_places lean; /* for encoding alone */
};

static inline const struct vision_encoder *
vision_of(const struct encoder *encoder)
{
    return (const struct vision_encoder *)(const void *)encoder;
}

/* What follows from the parameters' values: the weights as the kernels want
   them; immutable while it is shared. */
struct vision_ready {
    struct conv *conv[VISION_CONVS_MAX][2]; /* of a run, of one picture */
    float *z;                               /* standardised, as in params */
    float *w;      /* standardised and packed, at w_at as in params */
    float *w_data; /* the same for backward by data; NULL without training */
    size_t workspace_bytes;
};

/* ERR_NOMEM. Its weights are set by vision_ready_weights. */
enum err vision_ready_new(struct vision_ready **out,
    const struct vision_encoder *e, bool train) NODISCARD;
void vision_ready_free(struct vision_ready *ready);
void vision_ready_weights(struct vision_ready *ready,
    const struct vision_encoder *e, struct pool *pool);

/* One thread's scratch. */
struct vision_scratch {
    float *maps[4];  /* [run * map_max] each; [0] alone without training */
    float *dw;       /* [w_max], with training */
    float *features; /* [run * F], as df */
    float *df;
    float *dy;        /* [run * D] */
    float *workspace; /* of the convolutions */
    uint8_t *pixels;  /* [side, side, channels] */
    float *act;       /* lean maps of a run; without training */
    float *stats;
    float *block; /* all of the above */
};

enum err vision_scratch_new(struct vision_scratch *s,
    const struct vision_encoder *e, const struct vision_ready *ready,
    bool train) NODISCARD;
void vision_scratch_free(struct vision_scratch *s);

/* The normalised picture, planes of channels; zeros without one. */
void vision_input(float *out, const struct vision_encoder *e,
    const struct image *image, uint8_t *pixels);

/*
 * vision_forward_run - n pictures (run or 1) through the network.
 *
 *   f      [n, F] overwritten: the features
 *   act    [n * places->floats], the inputs set; overwritten
 *   stats  [n, n_stats] overwritten
 */
enum err vision_forward_run(const struct vision_encoder *e,
    const struct vision_ready *ready, const struct vision_places *places,
    float *f, float *act, float *stats, size_t n,
    struct vision_scratch *s) NODISCARD;

/*
 * vision_backward_run - from df [n, F]; act and stats as forward left them, of
 * places e->keep.
 *
 *   lane   [n_params], the weights' part packed; accumulated (+=)
 */
enum err vision_backward_run(const struct vision_encoder *e,
    const struct vision_ready *ready, float *lane, const float *df, float *act,
    const float *stats, size_t n, struct vision_scratch *s) NODISCARD;

/* y = W f + bias, z = y / |y| and norm = |y| for n rows; a row without a
   finite norm is zero, as is its norm. */
void vision_head(float *z, float *norm, const struct vision_encoder *e,
    const float *f, size_t n);

/* vision_train.c */
enum err vision_tape_new(
    struct encoder_tape **out, const struct encoder *encoder) NODISCARD;
void vision_tape_free(struct encoder_tape *tape);
size_t vision_tape_input_bytes(
    const struct encoder *encoder, const struct encoder_input *input);
enum err vision_forward(const struct encoder *encoder,
    struct encoder_tape *tape, const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool) NODISCARD;
enum err vision_backward(const struct encoder *encoder,
    struct encoder_tape *tape, const float *d_out, struct encoder_grads *grads,
    struct pool *pool) NODISCARD;
size_t vision_n_marks(const struct encoder *encoder);
size_t vision_n_segments_max(const struct encoder *encoder);
enum err vision_refit(
    struct encoder *encoder, encoder_next_fn *next, void *arg) NODISCARD;

#endif
