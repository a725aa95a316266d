/*
 * pieces.h - a tokenizer's pieces by their numbers, and the trie of them.
 *
 * Filled with pieces_add, then closed with pieces_build; immutable after it.
 * Numbers may have holes.
 */
#ifndef TEXT_PIECES_H
#define TEXT_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "text/scratch.h"
#include "text/trie.h"

#define PIECES_MAX ((size_t)1 << 20)        /* numbers are below it */
#define PIECES_BYTES_MAX ((size_t)64 << 20) /* of all pieces together */
#define PIECE_BYTES_MAX 512

struct piece_place {
    uint32_t start; /* in bytes; UINT32_MAX: no piece has this number */
    uint32_t len : 31;
    uint32_t hidden : 1; /* known by number, never found in a text */
};

struct pieces {
    struct piece_place *places;
    size_t n; /* the highest number + 1 */
    size_t cap;
    struct scratch bytes;
    struct trie trie;
};

void pieces_init(struct pieces *pieces);
void pieces_release(struct pieces *pieces);

/*
 * pieces_add - the piece of a number.
 *
 *   s, len  UTF-8 without NUL, 1 to PIECE_BYTES_MAX bytes; copied
 *   hidden  leave it out of the trie
 *   at      JSON pointer or place, for the fault
 *
 * ERR_INVALID for a number that has a piece already or is out of bounds, and
 * for bytes that are no piece.
 */
enum err pieces_add(struct pieces *pieces, int64_t id, const char *s,
    size_t len, bool hidden, const char *at, struct fault *fault) NODISCARD;

/* Make the trie. ERR_INVALID when two numbers have the same piece. */
enum err pieces_build(
    struct pieces *pieces, const char *at, struct fault *fault) NODISCARD;

/* The piece of a number, or NULL; no NUL follows it. */
const char *pieces_get(const struct pieces *pieces, size_t id, size_t *len);

#endif
