/*
 * run.h - the parts of one training run; for the files of train/ alone.
 *
 * A step: the plan gives a batch, the inputs are its views, the mechanism
 * encodes the keys that take no gradient, the cache encodes the rows that do,
 * the head projects them, the mechanism asks for the loss, and the gradient
 * goes back the same way; then the optimisers step, and the mechanism does what
 * follows a step. A run belongs to one thread.
 */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "nn/infonce.h"
#include "train/gradcache.h"
#include "train/loop.h"
#include "train/projection.h"
#include "train/state.h"

struct run;

/* Where the negative keys come from. */
struct mechanism {
    /* its memory; r is complete but for it */
    enum err (*init)(struct run *r);
    void (*release)(struct run *r);
    /* how many rows of a step take a gradient: the first ones */
    size_t (*n_rows)(const struct run *r);
    /* encode the keys that take none; NULL: there are none */
    enum err (*keys)(struct run *r);
    /* r->dz and the figures of out, from r->z */
    enum err (*loss)(struct run *r, struct infonce_out *out);
    /* after the optimisers' step; NULL: nothing */
    void (*after)(struct run *r);
    /* its part of a checkpoint; NULL: it has none */
    enum err (*state)(struct run *r, struct state *s);
};

struct run {
    struct encoder *encoder;
    const struct batch_example *examples;
    size_t n_examples;
    const struct train_options *options;
    struct train_bank *bank;
    struct pool *pool;
    const struct mechanism *mechanism;
    void *own; /* the mechanism's */

    size_t B_max;         /* examples a step */
    size_t max_negatives; /* given ones a step */
    size_t piece;         /* rows encoded at once */
    size_t D, P;          /* dims of embeddings, and of what is compared */
    size_t n_params;

    struct batch_plan *plan;
    struct inputs *inputs;
    struct gradcache *cache;
    struct encoder_grads *grads;
    struct optimizer *optimizer; /* of the encoder's parameters, or */
    struct lora *lora;           /* in their stead; the other is NULL */
    struct projection *head;     /* NULL: none */
    float *e, *de;    /* [2 B + N, D] embeddings and their gradient */
    float *z, *dz;    /* [2 B + N, P] what is compared; e, de without a head */
    float *scratch;   /* [piece, D] */
    float *weight;    /* [B] */
    uint64_t *labels; /* [B] */
    float *workspace; /* of the loss; the mechanism's init asks for its size */
    size_t n_workspace;

    /* this step */
    const uint32_t *index; /* [B] */
    size_t B, M;           /* examples; positives and given negatives */
    size_t n_rows;         /* that take a gradient */
    size_t step;           /* from 0 */
    float tau;
    double staleness; /* mean age of the keys that were kept; 0 */

    /* what goes on from step to step */
    struct rng rng;   /* views of texts and noise */
    double log_scale; /* ln(1 / tau) */
    double scale_m, scale_v;
    double loss, accuracy, positive, negative, stale; /* since the last point */
    uint64_t n_sum, n_pairs, n_views, n_collapsed;
    uint64_t total_ns, view_ns;
    uint64_t bytes; /* heap of the run */
};

extern const struct mechanism mechanism_in_batch;
extern const struct mechanism mechanism_momentum_queue;
extern const struct mechanism mechanism_memory_bank;

#define RUN_NEGATIVES_MAX ((size_t)1024) /* given ones that fit in a step */

/* Are rows and keys all views of a step: an in-batch loss but for those of
   anchors against keys. */
bool run_between_views(const struct train_options *options);

/* How many of a step's rows are encoded at once at most: as the options ask, as
   long as the tape of pictures stays within GRADCACHE_TAPE_BYTES. */
size_t run_piece(const struct encoder *encoder,
    const struct train_options *options, size_t rows);

/* Scratch for a loss over at most B anchors and M keys. ERR_NOMEM. */
enum err run_reserve(struct run *r, size_t B, size_t M) NODISCARD;

/* Save or load the whole state (checkpoint.c). */
enum err checkpoint_save(
    struct run *r, const struct train_checkpoint *checkpoint) NODISCARD;
enum err checkpoint_load(struct run *r,
    const struct train_checkpoint *checkpoint, struct fault *fault) NODISCARD;

#endif
