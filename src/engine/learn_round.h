/*
 * learn_round.h - a round of learning as its states share it (learn.h names
 * them): learn_train.c trains, with learn_vectors.c, learn_choose.c chooses on
 * the tune split, learn_judge.c calibrates and judges, learn_report.c says in
 * words what came of it, learn.c leads from one to the next.
 *
 * Threads: a round belongs to the job's thread.
 */
#ifndef ENGINE_LEARN_ROUND_H
#define ENGINE_LEARN_ROUND_H

#include "engine/learn_data.h"
#include "engine/learn_mine.h"

#define LEARN_REPORT_BYTES_MAX ((size_t)1 << 20)
#define LEARN_TUNE_MIN 10 /* questions; fewer choose and calibrate nothing */
#define LEARN_SHOWN LEARN_CONTRADICTIONS /* examples in the report */

/* Shares of a round's progress at which its states begin. */
#define LEARN_AT_TRAIN 0.03
#define LEARN_AT_CHOOSE 0.55
#define LEARN_AT_SAVE 0.65
#define LEARN_AT_REEMBED 0.70
#define LEARN_AT_JUDGE 0.92

struct learn_chosen {
    double blend;
    double before, after; /* of the metric on the pool, live and blended */
    size_t n_pool;
};

/* Measures that need no pairs; [0] live, [1] candidate. */
struct learn_measures {
    double alignment[2], uniformity[2];
    double knn[2];                      /* accuracy by label */
    size_t n_aligned, n_uniform, n_knn; /* 0: not measured */
};

struct learn_round {
    struct engine *engine;
    struct collection *c;
    struct job *job;
    struct learn_options options;
    struct learn_form form;
    struct learn_resume resume;
    struct learn_data data;
    struct snapshot *live, *shadow;
    struct encoder *candidate;
    struct batch_example *vectors; /* [n_vectors] of an adapter's round: the
                                      examples that it learns from */
    size_t n_vectors;
    size_t n_moved;       /* parameters that training changed */
    bool adapter_dropped; /* the parent has one, the candidate has none */
    struct train_result trained;
    double train_seconds; /* 0: a part was in an earlier run */
    struct learn_mined mined;
    struct learn_chosen chosen;
    bool resumed; /* trained in an earlier run of the daemon */
    struct judge_calibration calibrated[3]; /* live, as trained, calibrated */
    struct judge_difference difference[JUDGE_MEASURES];
    double frozen_before, frozen_after;
    size_t n_frozen;
    double overlap; /* of the two generations' nearest neighbours */
    size_t n_changed;
    struct learn_measures measures;
    int64_t judge_uses;
    int64_t start_ms;
    struct buf report;
    struct fault fault;
};

/* learn_train.c: a candidate from the live encoder; trained says what came of
   it. A collapse is ERR_INVALID with trained.collapsed. */
enum err learn_train_candidate(struct learn_round *r) NODISCARD;

/* learn_vectors.c: r->vectors, and the vectors of the anchors that tune and
   judge. Of at most LEARN_VECTOR_BYTES_MAX; ERR_INVALID when no pairs are of
   use, ERR_CANCELLED. */
#define LEARN_VECTOR_BYTES_MAX ((size_t)1 << 30)
enum err learn_vectors(struct learn_round *r) NODISCARD;

/* learn_choose.c: blends the candidate with the live weights. */
enum err learn_choose(struct learn_round *r) NODISCARD;
/* Vectors [n, D] of a set of questions' anchors; NULL when memory is out. */
float *learn_encode_anchors(struct learn_round *r,
    const struct encoder *encoder, const struct learn_questions *q);

/* learn_judge.c: these need the shadow's whole index. learn_judge appends its
   examples of gains and losses to the report. */
enum err learn_calibrate(struct learn_round *r) NODISCARD;
enum err learn_judge(struct learn_round *r) NODISCARD;
/* learn_measure.c: measures, from the judged anchors' vectors. */
enum err learn_measure(struct learn_round *r, const float *of_live,
    const float *of_shadow) NODISCARD;

/* learn_report.c: whether to promote, and why, in words. */
bool learn_verdict(const struct learn_round *r, char *reason, size_t n);
/* An anchor as a JSON string: a text, cut; a picture by its item's id. */
void learn_report_text(
    struct learn_round *r, const struct encoder_input *input, uint32_t ord);
/* The part that needs no judge; members without the braces around them. */
void learn_report_training(struct learn_round *r);
void learn_report_judgement(
    struct learn_round *r, const char *reason, bool promote);
/* {"reason", "generation", "judge": report} */
void learn_report_result(const struct learn_round *r, const char *reason,
    int64_t generation, struct buf *out);

#endif
