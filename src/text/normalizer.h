/*
 * normalizer.h - the steps that a tokenizer file lists under "normalizer".
 *
 * Supported, with the members of the published format: BertNormalizer, NFC,
 * NFD, NFKC, NFKD, Nmt, Lowercase, StripAccents, Strip, Prepend, Replace (a
 * string, or one of the regular expressions that are one: no operator in it,
 * or " {2,}"), Precompiled, and Sequence of them. Anything else is refused by
 * its name (ERR_UNSUPPORTED).
 *
 * Categories are those of libutf8proc's Unicode; the published implementation
 * has Unicode 8's for BertNormalizer, so it keeps the nonspacing marks (421)
 * and format characters (20) that are younger.
 *
 * Immutable once made; threads may share it, each with its own work.
 */
#ifndef TEXT_NORMALIZER_H
#define TEXT_NORMALIZER_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"
#include "base/json.h"
#include "text/charsmap.h"
#include "text/scratch.h"

#define NORMALIZER_STEPS_MAX 16
#define NORMALIZER_STRING_MAX 64 /* bytes of a Prepend, or in a Replace */

enum normalizer_kind {
    NORMALIZER_BERT,
    NORMALIZER_FORM, /* NFC and the like */
    NORMALIZER_NMT,
    NORMALIZER_LOWERCASE,
    NORMALIZER_STRIP_ACCENTS,
    NORMALIZER_STRIP,
    NORMALIZER_PREPEND,
    NORMALIZER_REPLACE,
    NORMALIZER_PRECOMPILED
};

struct normalizer_string {
    char bytes[NORMALIZER_STRING_MAX];
    size_t len;
};

struct normalizer_step {
    enum normalizer_kind kind;
    /* BertNormalizer */
    bool clean_text, ideographs, strip_accents, lowercase;
    char ascii[128]; /* what becomes of a character, 0: nothing */
    /* forms */
    bool compatible, compose;
    /* Strip */
    bool left, right;
    /* Replace: a run of at least run_min of pattern, which is one byte, or
       (0) the pattern; Prepend: content */
    size_t run_min;
    struct normalizer_string pattern, content;
    struct charsmap map;
};

struct normalizer {
    struct normalizer_step steps[NORMALIZER_STEPS_MAX];
    size_t n_steps;
};

/* One thread's blocks; init with the most bytes of a normalised text. */
struct normalizer_work {
    struct scratch text[2];
    struct scratch points;
};

/* Normalised text; borrowed from the work, or the input itself. */
struct normalized {
    const char *s;
    size_t len;
    bool lead_dropped; /* the text's first character was removed */
};

/* From the member "normalizer" of a tokenizer file (null: no steps). On
   failure *out is as it was. Released with normalizer_release. */
enum err normalizer_from_json(struct normalizer *out, const struct json *node,
    const char *at, struct fault *fault) NODISCARD;
void normalizer_release(struct normalizer *normalizer);

/* Steps that other sources than a tokenizer file have. */
void normalizer_add_bert(struct normalizer *normalizer, bool lowercase);
void normalizer_add_nfkc(struct normalizer *normalizer);
void normalizer_add_replace(
    struct normalizer *normalizer, const char *pattern, const char *content);
void normalizer_add_prepend(struct normalizer *normalizer, const char *content);

void normalizer_work_init(struct normalizer_work *work, size_t max_bytes);
void normalizer_work_release(struct normalizer_work *work);

/*
 * normalizer_apply - all steps in their order.
 *
 *   s, len  valid UTF-8, outside of work; borrowed
 *   out     valid until the next call with this work
 *
 * ERR_TOO_LARGE when a step's result is over the work's maximum; ERR_NOMEM.
 * Linear, whatever the order of the marks.
 */
enum err normalizer_apply(const struct normalizer *normalizer, const char *s,
    size_t len, struct normalizer_work *work, struct normalized *out) NODISCARD;

#endif
