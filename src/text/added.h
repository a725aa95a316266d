/*
 * added.h - the tokens that a tokenizer file lists under "added_tokens":
 * found in a text as they are, the longest first, before or (normalized) after
 * normalisation, and taken out of it before anything else is done.
 *
 * The number that an added token has in the file must be that of the piece of
 * the same text, if the vocabulary has one.
 *
 * Immutable once made; threads may share it.
 */
#ifndef TEXT_ADDED_H
#define TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/json.h"
#include "text/normalizer.h"
#include "text/pieces.h"
#include "text/trie.h"

#define ADDED_MAX 4096

struct added_token {
    uint32_t id;
    bool single_word, left, right; /* left, right: takes white space along */
};

/* The tokens that are looked for in one stage. */
struct added_set {
    struct trie trie; /* to indexes of tokens */
    bool begins[256]; /* bytes that a token begins with */
    int only;         /* the one such byte; -1: not just one */
    size_t n;
};

struct added {
    struct added_token *tokens;
    size_t n;
    struct added_set raw, normalized;
};

/* A part of a text: a token's number, or text between tokens. */
struct added_part {
    const char *s;
    size_t len;
    bool is_token;
    uint32_t id;
};

/*
 * added_from_json - from the member "added_tokens" of a tokenizer file (NULL:
 * none), and their pieces into the vocabulary.
 *
 *   pieces  built; numbers that it lacks are added, for pieces_get alone
 *   work    to normalise the tokens that are looked for normalised
 */
enum err added_from_json(struct added *out, const struct json *list,
    struct pieces *pieces, const struct normalizer *normalizer,
    struct normalizer_work *work, const char *at,
    struct fault *fault) NODISCARD;

/* Tokens that are looked for as they are written, by their numbers. */
enum err added_from_ids(struct added *out, const uint32_t *ids, size_t n,
    const struct pieces *pieces) NODISCARD;
void added_release(struct added *added);

/*
 * added_next - the next part of a text.
 *
 *   *i  where to go on, 0 at first, len at the end; moved
 *
 * Returns false at the end; true gives *text, the part before the token (its
 * len may be 0), and *token, whose is_token is false where none follows.
 */
bool added_next(const struct added *added, const struct added_set *set,
    const char *s, size_t len, size_t *i, struct added_part *text,
    struct added_part *token);

#endif
