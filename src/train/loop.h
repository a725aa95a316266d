/*
 * loop.h - one training run: batches, forward, InfoNCE, backward, AdamW.
 *
 * The encoder is the caller's private clone and changes in place. The number
 * of steps is fixed at the start; nothing of the clock enters, so the same
 * encoder, examples, options and kernel table give the same bits with any
 * number of threads.
 */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include <stdbool.h>
#include "image/augment.h"
#include "model/encoder.h"
#include "train/batch.h"
#include "train/lora.h"
#include "train/optimizer.h"

enum train_pretext { TRAIN_PAIRS, TRAIN_INSTANCES };

/* Where the negative keys come from. */
enum train_mechanism {
    TRAIN_IN_BATCH,       /* the batch; the gradient reaches both sides */
    TRAIN_MOMENTUM_QUEUE, /* earlier keys of a momentum encoder (MoCo) */
    TRAIN_MEMORY_BANK,    /* the collection's stored vectors */
    TRAIN_MECHANISMS
};
extern const char *const train_mechanism_names[TRAIN_MECHANISMS];

enum train_loss {
    TRAIN_INFONCE,   /* anchor -> key */
    TRAIN_SYMMETRIC, /* both directions */
    TRAIN_FOUR_WAY,  /* one denominator over anchors and keys of both sides */
    TRAIN_NT_XENT,   /* 2N views, each against all others (SimCLR) */
    TRAIN_DCL,       /* decoupled: the positive is not in the denominator */
    TRAIN_SUPCON,    /* all keys of the anchor's label are positives */
    TRAIN_LOSSES
};
extern const char *const train_loss_names[TRAIN_LOSSES];

/* Which parameters learn. */
enum train_update {
    TRAIN_FULL,
    TRAIN_LAST,    /* the last layers (encoder_freeze) */
    TRAIN_LORA,    /* low-rank differences of some matrices (lora.h) */
    TRAIN_ADAPTER, /* the encoder's adapter, which all others are without */
    TRAIN_UPDATES
};
extern const char *const train_update_names[TRAIN_UPDATES];

struct train_options {
    enum train_pretext pretext;
    enum train_mechanism mechanism;
    enum train_loss loss;
    enum train_update update;
    size_t layers;            /* of TRAIN_LAST, below encoder_n_parts */
    struct lora_options lora; /* of TRAIN_LORA */
    uint64_t seed;
    size_t batch;       /* examples a step */
    size_t micro_batch; /* inputs encoded at once (GradCache when the batch has
                           more), of pictures fewer where their tape would
                           take more than 1 GiB; 0: what suits the encoder */
    double epochs;      /* over the examples */
    size_t min_steps;   /* more epochs when they are fewer steps than these */
    size_t max_steps;   /* 0: as the epochs say */
    struct optimizer_options optimizer;
    struct schedule_options schedule; /* holds the peak learning rate */
    float temperature;                /* tau, at the start if it is learned */
    bool learn_temperature;
    float token_dropout;   /* share of words left out of each text */
    float feature_dropout; /* share of n-grams left out */
    float char_noise;   /* share of the words of a view with a typing error */
    float group_share;  /* see batch.h */
    float momentum;     /* of the key encoder, [0, 1) */
    size_t queue;       /* keys kept, >= batch */
    size_t bank_sample; /* keys drawn from the bank a step */
    size_t head_layers; /* 0..3: projection head, dropped afterwards */
    size_t head_dims;   /* its width and output */
    size_t hard_negatives;        /* mined ones a pair, at most; 0: none */
    struct augment_options views; /* of pictures */
};

/* What measurement found best for the pretext, the mechanism and what the
   encoder reads; see src/README.md. */
void train_options_default(struct train_options *options,
    enum train_pretext pretext, enum train_mechanism mechanism,
    enum encoder_reads reads, uint32_t channels);

/* Then, for a published network: its weights are good already, and a batch
   costs more. */
void train_options_pretrained(struct train_options *options);

/* Then, what suits another update than TRAIN_FULL. */
void train_options_update(
    struct train_options *options, enum train_update update);

/* Are they options that train_run can use: ERR_INVALID with a pointer
   ("/queue") and a sentence with the allowed range. */
enum err train_options_check(
    const struct train_options *options, struct fault *fault) NODISCARD;

/* Do they fit an encoder of so many parts (encoder_n_parts): ERR_INVALID with
   "/update", or "/layers" and the range. */
enum err train_options_check_parts(const struct train_options *options,
    size_t n_parts, struct fault *fault) NODISCARD;

/* Does the queue fit into memory (TRAIN_QUEUE_BYTES_MAX) for an encoder of D
   dims: ERR_INVALID with "/queue" and how many keys do. */
#define TRAIN_QUEUE_BYTES_MAX ((size_t)2 << 30)
enum err train_options_check_dims(const struct train_options *options, size_t D,
    struct fault *fault) NODISCARD;

/* A moment of the run, for progress and for the curves of its record. */
struct train_point {
    size_t step, n_steps; /* step counts from 1 */
    double loss;          /* mean since the last point */
    double accuracy;      /* share of anchors that find their key first */
    double positive;      /* mean cosine of positives */
    double negative;      /* mean cosine of negatives */
    double spread;        /* standard deviation of the embeddings' members
                             times sqrt(D): 1 when spread over the sphere, 0
                             when collapsed */
    double staleness;     /* mean age of the queue's or bank's keys, in steps;
                             0 in batch */
    double temperature;
    double lr;
    double pairs_per_second;
};

/* Called after every step; false cancels. point is NULL except every few
   steps (about 200 times a run) and at the last. */
typedef bool train_progress_fn(void *arg, const struct train_point *point);

/* The stored vectors that TRAIN_MEMORY_BANK draws negatives from. */
struct train_bank {
    float *vectors;       /* [n, D] unit rows; refreshed in place */
    const uint64_t *keys; /* [n] as batch_side.key: finds an example's row */
    size_t n;
};

/*
 * The state of a run between two steps, so that a killed one goes on with the
 * same bits: parameters, optimiser, head, queue, momentum encoder, bank rows,
 * generators. due is asked after every step; when it says true the state is
 * written through save in pieces, then saved is told. load gives the state to
 * start from, NULL: from the beginning. A state that does not fit (other
 * options, examples, encoder, origin or kernels) is refused with ERR_CORRUPT
 * before anything changed, and the fault says what differs.
 */
struct train_checkpoint {
    uint8_t origin[SHA256_BYTES]; /* of what the encoder was made from */
    bool (*due)(void *arg);
    enum err (*begin)(void *arg);
    encoder_write_fn *save;
    enum err (*saved)(void *arg);
    encoder_read_fn *load;
    void *arg;
};

struct train_result {
    size_t n_steps;
    double loss;        /* of the last point */
    double temperature; /* at the end */
    double pairs_per_second;
    double staleness;
    size_t n_factors;    /* numbers that TRAIN_LORA trained, else 0 */
    size_t n_views;      /* inputs that were encoded with their gradient */
    double view_share;   /* of the time, spent on making views */
    bool collapsed;      /* it stopped itself, see train_run */
    uint64_t peak_bytes; /* heap that the run took, the clone apart */
};

/*
 * train_run - train encoder in place.
 *
 *   examples    [n]  n >= 2 distinct ones; for TRAIN_INSTANCES the anchor and
 *                    the positive are both the item itself
 *   bank        for TRAIN_MEMORY_BANK, else NULL
 *   checkpoint  NULL: none
 *
 * Errors: ERR_NOMEM, ERR_CANCELLED (the encoder is then half trained and
 * should be dropped), ERR_INVALID when no two examples differ, the loss stops
 * being a number (or, after the last step, a parameter), or the embeddings
 * collapse (result->collapsed: their spread stays below a tenth over several
 * points; the fault says so), ERR_CORRUPT. Source of the objective:
 * nn/infonce.h.
 */
enum err train_run(struct encoder *encoder,
    const struct batch_example *examples, size_t n,
    const struct train_options *options, struct train_bank *bank,
    const struct train_checkpoint *checkpoint, struct pool *pool,
    train_progress_fn *progress, void *arg, struct train_result *result,
    struct fault *fault) NODISCARD;

#endif
