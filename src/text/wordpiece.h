/*
 * wordpiece.h - a word into the longest pieces, from its beginning.
 *
 * Pieces inside of a word carry a prefix ("##"); a word that cannot be
 * covered, or has more than chars_max characters, is the unknown piece.
 * Source: Schuster and Nakajima 2012; the search by a walk over a trie that
 * holds both kinds of pieces, after Song et al. 2021 (arXiv:2012.15524), who
 * add failure links, which words this short do not repay.
 */
#ifndef TEXT_WORDPIECE_H
#define TEXT_WORDPIECE_H

#include <stddef.h>
#include <stdint.h>
#include "text/pieces.h"

/* Where numbers of pieces go: the first cap are kept, all are counted. */
struct piece_sink {
    uint32_t *ids;
    size_t cap;
    size_t n;
};

static inline void
piece_sink_put(struct piece_sink *sink, uint32_t id)
{
    if (sink->n < sink->cap)
        sink->ids[sink->n] = id;
    sink->n++;
}

struct wordpiece {
    uint32_t unknown_id;
    size_t chars_max;
    uint32_t inside; /* the trie's node behind the prefix */
    bool has_inside; /* some piece begins with the prefix */
};

/* From pieces that are built, whose unknown piece is unknown_id. */
void wordpiece_init(struct wordpiece *out, const struct pieces *pieces,
    uint32_t unknown_id, const char *prefix, size_t prefix_len,
    size_t chars_max);

/* The pieces of one word, 0 < len; valid UTF-8. Allocates nothing. */
void wordpiece_encode(const struct wordpiece *model,
    const struct pieces *pieces, const char *word, size_t len,
    struct piece_sink *sink);

#endif
