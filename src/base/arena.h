/*
 * arena.h - a capped bump allocator for what lives as long as one request.
 *
 * Owned by one thread. Nothing is freed singly; arena_release frees all.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>
#include "base/check.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *head;
    size_t used_bytes; /* sum over all chunks */
    size_t max_bytes;
};

void arena_init(struct arena *arena, size_t max_bytes);
void arena_release(struct arena *arena);

/* n * size bytes aligned to 16, uninitialised; NULL over the cap or when
   memory is out. Valid until arena_release. */
void *arena_alloc(struct arena *arena, size_t n, size_t size) NODISCARD;
void *arena_calloc(struct arena *arena, size_t n, size_t size) NODISCARD;
char *arena_strndup(struct arena *arena, const char *s, size_t len) NODISCARD;

#endif
