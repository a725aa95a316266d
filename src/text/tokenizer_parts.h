/*
 * tokenizer_parts.h - what a tokenizer is made of, for tokenizer.c, which runs
 * it, and tokenizer_load.c, which reads it.
 */
#ifndef TEXT_TOKENIZER_PARTS_H
#define TEXT_TOKENIZER_PARTS_H

#include "text/added.h"
#include "text/normalizer.h"
#include "text/pieces.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/unigram.h"
#include "text/wordpiece.h"

#define TOKENIZER_NORMALIZED_BYTES_MAX (4 * TOKENIZER_TEXT_BYTES_MAX)

enum tokenizer_model { TOKENIZER_WORDPIECE, TOKENIZER_UNIGRAM };

/* Special tokens at one end of a text. */
struct tokenizer_specials {
    uint32_t ids[TOKENIZER_SPECIALS_MAX];
    size_t n;
};

struct tokenizer {
    struct pieces pieces;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct added added;
    enum tokenizer_model model;
    struct wordpiece wordpiece;
    struct unigram unigram;
    struct tokenizer_specials before, behind;
};

struct tokenizer_workspace {
    struct scratch repaired; /* a text that was not UTF-8 */
    struct scratch pretokens;
    struct normalizer_work normalizer;
    struct unigram_work unigram;
};

/* An empty tokenizer, or NULL. */
struct tokenizer *tokenizer_new(void) NODISCARD;

#endif
