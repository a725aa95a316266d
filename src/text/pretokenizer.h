/*
 * pretokenizer.h - the steps that a tokenizer file lists under
 * "pre_tokenizer": they cut a normalised text into what the model sees.
 *
 * Supported: WhitespaceSplit, BertPreTokenizer, Metaspace (once, with
 * replacement, prepend_scheme or add_prefix_space, split), and Sequence of
 * them. Anything else is refused by its name (ERR_UNSUPPORTED).
 *
 * Punctuation is libutf8proc's; the published implementation has Unicode 8's,
 * so 129 younger marks are letters to it.
 */
#ifndef TEXT_PRETOKENIZER_H
#define TEXT_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"
#include "base/json.h"
#include "text/scratch.h"

#define PRETOKENIZER_STEPS_MAX 8

enum pretokenizer_kind {
    PRETOKENIZER_WHITESPACE,
    PRETOKENIZER_BERT,
    PRETOKENIZER_METASPACE
};

enum pretokenizer_prepend {
    PRETOKENIZER_ALWAYS,
    PRETOKENIZER_FIRST, /* only at the beginning of the original text */
    PRETOKENIZER_NEVER
};

struct pretokenizer_step {
    enum pretokenizer_kind kind;
    /* Metaspace */
    char mark[4]; /* the replacement of a space */
    size_t mark_len;
    enum pretokenizer_prepend prepend;
    bool split;
};

struct pretokenizer {
    struct pretokenizer_step steps[PRETOKENIZER_STEPS_MAX];
    size_t n_steps;
};

/* What is cut off; valid for the call. */
typedef void pretoken_fn(void *arg, const char *s, size_t len);

/* From the member "pre_tokenizer" of a tokenizer file (null: no steps). */
enum err pretokenizer_from_json(struct pretokenizer *out,
    const struct json *node, const char *at, struct fault *fault) NODISCARD;

/* The one step BertPreTokenizer. */
void pretokenizer_bert(struct pretokenizer *out);

/*
 * pretokenizer_split - call fn for every part of a text, in order.
 *
 *   s, len   valid UTF-8, normalised
 *   first    s begins where the original text does
 *   scratch  for a Metaspace's copy; its failure is that of the call
 */
void pretokenizer_split(const struct pretokenizer *pretokenizer, const char *s,
    size_t len, bool first, struct scratch *scratch, pretoken_fn *fn,
    void *arg);

#endif
