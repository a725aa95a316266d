/*
 * learn_data.h - what a round learns from and is judged on: options, the
 * pairs of each split with their texts, or items that judge themselves.
 */
#ifndef ENGINE_LEARN_DATA_H
#define ENGINE_LEARN_DATA_H

#include "base/arena.h"
#include "engine/internal.h"
#include "train/judge.h"
#include "train/loop.h"

#define LEARN_EXAMPLES_MAX ((size_t)1 << 20) /* the newest are taken */
#define LEARN_QUESTIONS_MAX 2000             /* of the judge split */
#define LEARN_TUNE_MAX 1000                  /* of the tune split */
#define LEARN_LABEL_BYTES_MAX 128
#define LEARN_TEXT_BYTES_MAX ((size_t)4 << 30)

enum learn_pretext { LEARN_AUTO, LEARN_PAIRS, LEARN_INSTANCES };

struct learn_options {
    enum learn_pretext pretext;
    struct train_options train;
    bool lr_given;
    char label[LEARN_LABEL_BYTES_MAX + 1]; /* a metadata field, or "" */
    double replay;                         /* earlier pairs for every new one */
    enum judge_measure metric;             /* that decides */
    double margin; /* that the frozen regression set may lose */
    bool force;    /* promote whatever the judge says */
};

/* What the defaults depend on beside the options themselves. */
struct learn_setting {
    enum learn_pretext pretext; /* what "auto" comes to; LEARN_AUTO: pairs */
    enum encoder_reads reads;
    uint32_t channels;
};

/* Every member is optional. of NULL: not known, what depends on it is not
   checked. The pointers of refusals start at "". */
enum err learn_options_parse(const char *json, const struct learn_setting *of,
    struct learn_options *out, struct fault *fault) NODISCARD;
/* For the report: what was used, complete; members that had no part in it are
   left out. */
void learn_options_write(const struct learn_options *options,
    enum encoder_reads reads, struct buf *out);

/* A question with what is shown of it. */
struct learn_questions {
    struct judge_question *questions; /* [n] */
    struct encoder_input *anchors;    /* [n] */
    bool *frozen; /* [n] older than the last promoted round */
    size_t n;
    size_t n_groups;
};

struct learn_data {
    struct arena arena; /* owns all below */
    struct batch_example *examples;
    size_t n_examples;
    size_t n_new, n_replayed; /* pairs of the train split */
    struct learn_questions tune, judge;
    bool views;         /* items judge themselves */
    int64_t pairs_upto; /* highest pair id that was looked at */
    int64_t pairs_seen; /* of the last promoted round */
};

/*
 * learn_collect - read everything that a round needs.
 *
 *   pairs_upto  take pairs up to this id; 0: all there are
 *   seed        chooses among more than fit
 *
 * Errors: ERR_INVALID with both numbers when there are not enough, ERR_NOMEM,
 * those of the store. Release in any case.
 */
enum err learn_collect(struct learn_data *out, struct engine *engine,
    struct collection *c, struct learn_options *options, int64_t pairs_upto,
    struct fault *fault) NODISCARD;
void learn_data_release(struct learn_data *data);

/*
 * learn_walk_documents - call fn for every item's document, by item number.
 * No reader is held while fn runs; fn returns false to stop.
 */
typedef bool learn_document_fn(
    void *arg, int64_t item, const char *text, size_t len);
enum err learn_walk_documents(struct engine *engine, struct collection *c,
    learn_document_fn *fn, void *arg) NODISCARD;

/* The documents of n item numbers (0: none), in the arena; an item that is
   gone gives .text NULL. */
enum err learn_documents(struct engine *engine, struct collection *c,
    const int64_t *items, size_t n, struct arena *arena,
    struct encoder_input *out) NODISCARD;

#endif
