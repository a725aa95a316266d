/*
 * scratch.h - a growable block of bytes that a caller keeps from one text to
 * the next, so that tokenizing allocates only while texts still get longer.
 *
 * A failed append (memory out, or over max_bytes) makes the block failed:
 * later appends do nothing, and err says why. Owned by one thread. All-zero
 * with a max_bytes is an empty one.
 */
#ifndef TEXT_SCRATCH_H
#define TEXT_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/err.h"

struct scratch {
    char *data;
    size_t len;
    size_t cap;
    size_t max_bytes;
    enum err err;
};

void scratch_init(struct scratch *scratch, size_t max_bytes);
void scratch_release(struct scratch *scratch);

/* Empty it and forget a failure; the memory stays. */
void scratch_clear(struct scratch *scratch);

/* Make room for n bytes more behind len; false when the block has failed. */
bool scratch_grow(struct scratch *scratch, size_t n) NODISCARD;

static inline bool
scratch_room(struct scratch *scratch, size_t n)
{
    return (scratch->err == OK && scratch->cap - scratch->len >= n) ||
           scratch_grow(scratch, n);
}

static inline void
scratch_add(struct scratch *scratch, const char *bytes, size_t n)
{
    if (n > 0 && scratch_room(scratch, n)) {
        memcpy(scratch->data + scratch->len, bytes, n);
        scratch->len += n;
    }
}

#endif
