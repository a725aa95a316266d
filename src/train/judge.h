/*
 * judge.h - is the candidate better than the live generation? Ranks, measures
 * with a paired bootstrap, and the calibration of the serving temperature.
 *
 * A question is an anchor with its known positives among the items of an
 * index. Its rank list is the whole index by cosine, the anchor's own item
 * left out. Both generations answer the same questions; the bootstrap draws
 * whole groups, because questions of one group are alike.
 */
#ifndef TRAIN_JUDGE_H
#define TRAIN_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "ann/ann.h"
#include "base/buf.h"
#include "base/pool.h"

#define JUDGE_BINS 4096 /* of cosine, over [-1, 1] */
#define JUDGE_RESAMPLES 2000
#define JUDGE_ABSENT UINT32_MAX /* rank of a positive that is not indexed */

struct judge_question {
    const uint32_t *relevant; /* [n_relevant] ordinals; borrowed */
    size_t n_relevant;        /* > 0 */
    uint32_t skip;            /* the anchor's own item, or ANN_NONE */
    uint64_t group;
};

/* What one generation answered. */
struct judge_ranks {
    size_t n;       /* questions */
    size_t *start;  /* [n + 1] into rank and cosine */
    uint32_t *rank; /* 0 is the top; JUDGE_ABSENT */
    float *cosine;  /* of the positives */
    float *top;     /* [n] greatest cosine of all candidates */
    uint32_t *bins; /* [n, JUDGE_BINS] histogram, or NULL */
};

/*
 * judge_rank - the rank of every positive of every question.
 *
 *   vectors  [n, D] of the anchors under the index's generation
 *   out      judge_ranks_release; bins only when with_bins
 *
 * Of the candidates within 1e-6 of a positive's cosine half outrank it (rounded
 * down), so that an encoder that puts all texts in one place finds nothing.
 * Cost: n x items x D multiplications on the pool; memory 16 KiB a question
 * with bins. Errors: ERR_NOMEM.
 */
enum err judge_rank(struct judge_ranks *out, const struct ann *index,
    const float *vectors, const struct judge_question *questions, size_t n,
    bool with_bins, struct pool *pool) NODISCARD;
void judge_ranks_release(struct judge_ranks *ranks);

enum judge_measure {
    JUDGE_NDCG_10,
    JUDGE_MRR_10,
    JUDGE_RECALL_1,
    JUDGE_RECALL_10,
    JUDGE_RECALL_100,
    JUDGE_MEASURES
};
extern const char *const judge_measure_names[JUDGE_MEASURES];
/* The measure of that name, or JUDGE_MEASURES. */
enum judge_measure judge_measure_find(const char *name);

/* The mean over the questions. */
double judge_mean(const struct judge_ranks *ranks, enum judge_measure measure);

/* One question's value, in [0, 1]. nDCG with binary gains. */
double judge_value(const struct judge_ranks *ranks, size_t question,
    enum judge_measure measure);

struct judge_difference {
    double before, after; /* means */
    double gain;          /* after - before */
    double low, high;     /* 95% interval of the gain */
    size_t n_questions, n_groups;
};

/*
 * judge_compare - the gain of one generation over another with its interval:
 * the percentiles of JUDGE_RESAMPLES draws of groups with replacement (Efron &
 * Tibshirani 1993, ch. 13). The same seed gives the same interval.
 * Errors: ERR_NOMEM.
 */
enum err judge_compare(struct judge_difference *out,
    const struct judge_ranks *before, const struct judge_ranks *after,
    const struct judge_question *questions, enum judge_measure measure,
    uint64_t seed) NODISCARD;

struct judge_calibration {
    double temperature;
    double nll;   /* mean negative log-likelihood of the positives */
    double error; /* expected calibration error of the top hit, 10 bins */
};

/* Both figures at a given temperature, from ranks with bins. */
void judge_calibration_at(struct judge_calibration *out,
    const struct judge_ranks *ranks, double temperature);

/* The temperature in [0.005, 1] with the least NLL (Guo et al. 2017,
   arXiv:1706.04599, sec. 4.2), by golden section on its logarithm. */
void judge_calibrate(
    struct judge_calibration *out, const struct judge_ranks *ranks);

#endif
