/*
 * optimizer.h - optimisers over the touched segments of a flat block of
 * parameters, and the schedule of their learning rate.
 *
 * With g the gradient, p the parameters, lr the step's rate times the
 * segment's lr_scale, d the weight decay (0 where no_decay):
 *
 *   AdamW  m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
 *          p -= lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + d p)
 *   SGD    v = momentum v + g,  p -= lr (v + d p)
 *   LARS   v = momentum v + lr r (g + d p),  p -= v,
 *          r = trust |p| / (|g| + d |p|) over the segment; 1 where no_decay
 *          and where a norm is 0
 *
 * Sources: Loshchilov & Hutter 2019 (arXiv:1711.05101), alg. 2 (AdamW) and
 * alg. 1 (SGD; we keep the learning rate out of the velocity, so that a
 * schedule acts at once); You et al. 2017 (arXiv:1708.03888), alg. 1.
 *
 * All are "lazy", as is usual for tables of embeddings: moments, velocity and
 * weight decay of a parameter move only in steps whose gradient lists its
 * segment. The velocity of a row that comes once in a hundred batches is thus
 * carried whole to its next batch. AdamW's bias correction counts all steps.
 * LARS takes a listed segment for a layer: a row of a sparse table is a layer
 * of its own, and moves by about lr * trust of its own length whatever the
 * size of its gradient. LARS is meant for dense layers.
 */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "base/pool.h"
#include "model/encoder.h"

enum optimizer_kind {
    OPTIMIZER_ADAMW,
    OPTIMIZER_SGD,
    OPTIMIZER_LARS,
    OPTIMIZER_KINDS
};
extern const char *const optimizer_names[OPTIMIZER_KINDS];

struct optimizer_options {
    enum optimizer_kind kind;
    float beta1, beta2, eps; /* AdamW; betas in [0, 1) */
    float momentum;          /* SGD, LARS; [0, 1) */
    float trust;             /* LARS: eta, 0.001 as published */
    float weight_decay;
};

struct optimizer; /* two floats a parameter (AdamW) or one */

/* What is usual for the kind: AdamW 0.9, 0.999, 1e-8, decay 0.01; momentum
   0.9; decay 1e-3 (SGD: the 1e-4 that is usual within the velocity adds up
   ten times there) and 1e-6 (LARS, as Chen et al. 2020). */
void optimizer_options_default(
    struct optimizer_options *options, enum optimizer_kind kind);

enum err optimizer_new(struct optimizer **out, size_t n_params,
    const struct optimizer_options *options) NODISCARD;
void optimizer_free(struct optimizer *optimizer);

/*
 * optimizer_step - one step of all listed segments.
 *
 *   params  [n_params]  updated
 *   grads               its d_params become zero; the segments stay listed
 *                       until encoder_grads_clear
 *   lr                  learning rate of this step
 *
 * A segment whose lr_scale is 0 is not touched, nor are its moments; one with
 * no_decay takes no weight decay and, in LARS, no trust ratio. Allocates
 * nothing, cannot fail; the same bits for any pool.
 */
void optimizer_step(struct optimizer *optimizer, float *params,
    struct encoder_grads *grads, float lr, struct pool *pool);

/* Its state as floats, for a checkpoint: a count of steps and the moments.
   What is written there is in force with the next step. It fits an optimizer
   of the same kind and n_params. */
size_t optimizer_state_floats(const struct optimizer *optimizer);
float *optimizer_state(struct optimizer *optimizer);

enum schedule_kind {
    SCHEDULE_COSINE,
    SCHEDULE_STEP,
    SCHEDULE_CONSTANT,
    SCHEDULE_KINDS
};
extern const char *const schedule_names[SCHEDULE_KINDS];

struct schedule_options {
    enum schedule_kind kind;
    float lr;     /* peak */
    float warmup; /* share of the steps, linear */
};

/* The learning rate of a step, which counts from 0: linear warm-up, then half
   a cosine to 0, or a tenth after 60% and a hundredth after 80% of the steps,
   or constant. In (0, lr]. */
float schedule_rate(
    const struct schedule_options *options, size_t step, size_t n_steps);

#endif
