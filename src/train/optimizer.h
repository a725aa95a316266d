/*
 * optimizer.h - optimisers over the touched segments of a flat block of
 * parameters, and the schedule of their learning rate.
 *
 * Moments of a parameter move only in steps that touch it ("lazy" Adam, as is
 * usual for tables of embeddings); the bias correction counts all steps.
 * Source: Loshchilov & Hutter 2019, arXiv:1711.05101, alg. 2.
 */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "base/pool.h"
#include "model/encoder.h"

enum optimizer_kind {
    OPTIMIZER_ADAMW,
    OPTIMIZER_SGD,  /* momentum, decoupled weight decay */
    OPTIMIZER_LARS, /* You et al. 2017, arXiv:1708.03888, alg. 1 */
    OPTIMIZER_KINDS
};
extern const char *const optimizer_names[OPTIMIZER_KINDS];

struct optimizer_options {
    enum optimizer_kind kind;
    float beta1, beta2, eps; /* AdamW */
    float momentum;          /* SGD, LARS */
    float trust;             /* LARS: eta, 0.001 as published */
    float weight_decay;
};

struct optimizer; /* one or two floats a parameter */

/* What is usual for the kind. */
void optimizer_options_default(
    struct optimizer_options *options, enum optimizer_kind kind);

enum err optimizer_new(struct optimizer **out, size_t n_params,
    const struct optimizer_options *options) NODISCARD;
void optimizer_free(struct optimizer *optimizer);

/* params -= lr * step, then the gradient is zero again (its segments stay
   listed until encoder_grads_clear). A segment is LARS's layer; one whose
   lr_scale is 0 is not touched, one with no_decay takes no weight decay and,
   in LARS, no trust ratio. */
void optimizer_step(struct optimizer *optimizer, float *params,
    struct encoder_grads *grads, float lr, struct pool *pool);

/* Its state as floats, for a checkpoint: a count of steps and moments. */
size_t optimizer_state_floats(const struct optimizer *optimizer);
float *optimizer_state(struct optimizer *optimizer);

enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_STEP, SCHEDULE_CONSTANT,
    SCHEDULE_KINDS };
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
