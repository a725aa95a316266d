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
#define LEARN_INSTANCE_SHARES 10 /* one judges, one tunes, the rest train */
#define LEARN_LABEL_BYTES_MAX 128
#define LEARN_TEXT_BYTES_MAX ((size_t)4 << 30)
#define LEARN_PICTURE_BYTES_MAX ((size_t)1 << 30) /* pixels of examples */

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

/* What the encoder is given of an item. */
struct learn_form {
    enum encoder_reads reads;
    uint32_t side, channels; /* of pictures, else 0 */
    size_t dims;
    bool pretrained; /* a published network */
    size_t n_parts;  /* of its own that may stay frozen; 0: none */
};
void learn_form_of(const struct encoder *encoder, struct learn_form *out);
size_t learn_picture_bytes(const struct learn_form *form);

/* What the defaults depend on beside the options themselves. */
struct learn_setting {
    enum learn_pretext pretext; /* what "auto" comes to; LEARN_AUTO: pairs */
    enum encoder_reads reads;
    uint32_t channels;
    bool pretrained;
    size_t n_parts;
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

/* Where the two sides of an example stand, ANN_NONE: a text. */
struct learn_ords {
    uint32_t anchor, positive;
};

/* A side of a pair with an item on the pair's other side. */
struct learn_known {
    uint64_t side; /* learn_side */
    uint32_t ord;
};

/* A given negative that is a positive of the same anchor elsewhere. */
struct learn_contradiction {
    uint32_t example;
    struct encoder_input negative;
};
#define LEARN_CONTRADICTIONS 5 /* kept */

struct learn_data {
    struct arena arena; /* owns all below */
    struct learn_form form;
    struct batch_example *examples;
    struct learn_ords *ords; /* [n_examples] */
    size_t n_examples;
    size_t n_new, n_replayed; /* pairs of the train split */
    size_t n_left_out;        /* examples, and given negatives, that did not
                                 fit into memory */
    size_t negative_bytes;    /* pixels of given negatives */
    size_t n_absent;          /* without text or picture */
    struct learn_contradiction contradictory[LEARN_CONTRADICTIONS];
    size_t n_contradictory;    /* in all */
    struct learn_known *known; /* [n_known] sorted; of all pairs of the train
                                  split, those that are not replayed too */
    size_t n_known;
    uint64_t *barred; /* [n_barred] keys of tuned and judged sides, sorted */
    size_t n_barred;
    struct learn_questions tune, judge;
    bool views;         /* items judge themselves */
    int64_t pairs_upto; /* highest pair id that was looked at */
    int64_t pairs_seen; /* of the last promoted round */
};

/* Of pictures at most so many bytes for the train split
   (LEARN_PICTURE_BYTES_MAX), and half of it each for its given negatives, for
   tune and for judge. Sets it and returns what it was: for tests. */
size_t learn_picture_room(size_t bytes);

/* What an interrupted round must find as it was. All zero: a new round. */
struct learn_resume {
    bool known;
    enum learn_pretext pretext; /* what "auto" came to */
    bool views;                 /* items judge themselves */
    int64_t pairs_seen;         /* of the last promoted round */
    int64_t pairs_upto;         /* take pairs up to this id */
    int64_t items_upto;         /* and instances up to this number */
};

/*
 * learn_plan - settle a round's options: what "auto" comes to, and then the
 * defaults; and what stands until its end, whatever is written meanwhile.
 *
 *   resume  completed, unless it is known
 *
 * ERR_INVALID with both numbers when there are not enough pairs or items, or
 * when an option does not fit the encoder.
 */
enum err learn_plan(struct engine *engine, struct collection *c,
    const struct learn_form *form, const char *options_json,
    struct learn_resume *resume, struct learn_options *out,
    struct fault *fault) NODISCARD;

/*
 * learn_collect - read everything that a round needs.
 *
 *   options  settled by learn_plan; the seed chooses among more than fit
 *
 * Errors: ERR_INVALID with both numbers when there are not enough, ERR_NOMEM,
 * those of the store. Release in any case.
 */
enum err learn_collect(struct learn_data *out, struct engine *engine,
    struct collection *c, const struct learn_form *form,
    const struct learn_options *options, const struct learn_resume *resume,
    struct fault *fault) NODISCARD;
void learn_data_release(struct learn_data *data);

/* The part of it for instances (learn_instances.c). */
enum err learn_collect_instances(struct engine *engine, struct collection *c,
    struct learn_data *data, const struct learn_options *options,
    int64_t items_upto, struct fault *fault) NODISCARD;
/* Room for n questions in the arena. */
enum err learn_questions_alloc(
    struct learn_data *data, struct learn_questions *out, size_t n) NODISCARD;

/* ---- what is learned from (learn_inputs.c) ------------------------------- */

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

/* The same for pictures, side x side pixels each, decoded on the tuner's
   threads; an item without one gives .image NULL. */
enum err learn_pictures(struct engine *engine, struct collection *c,
    const struct learn_form *form, const int64_t *items, size_t n,
    struct arena *arena, struct encoder_input *out) NODISCARD;

/* What names one side of a pair: its item, or without one its text. */
uint64_t learn_side(uint32_t ord, const struct encoder_input *input);
/* Did a pair of the train split put the side and the item together? */
bool learn_is_known(const struct learn_data *data, uint64_t side, uint32_t ord);

/* Whichever the form asks for. */
enum err learn_inputs(struct engine *engine, struct collection *c,
    const struct learn_form *form, const int64_t *items, size_t n,
    struct arena *arena, struct encoder_input *out) NODISCARD;

/* Nothing to encode? */
bool learn_is_absent(const struct encoder_input *input);
/* Hash of the content, as batch_side.key; of a text without the white space
   around it. */
uint64_t learn_key(const struct encoder_input *input);

/*
 * learn_labels - hashes of the values that distinct items have in a metadata
 * field of the first level; 0 where there is none (field "": everywhere).
 */
enum err learn_labels(struct engine *engine, const char *field,
    const int64_t *items, size_t n, uint64_t *out) NODISCARD;

#endif
