#include "base/arena.h"

#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

#define ALIGN ((size_t)16)
#define CHUNK_FIRST ((size_t)4096)
#define CHUNK_MAX ((size_t)256 * 1024)

struct arena_chunk {
    struct arena_chunk *next;
    size_t size; /* of the whole chunk with this header */
    size_t used; /* with this header; a multiple of ALIGN */
};

#define HEADER ((sizeof(struct arena_chunk) + ALIGN - 1) & ~(ALIGN - 1))

void
arena_init(struct arena *arena, size_t max_bytes)
{
    arena->head = NULL;
    arena->used_bytes = 0;
    arena->max_bytes = max_bytes;
}

void
arena_release(struct arena *arena)
{
    struct arena_chunk *chunk, *next;

    if (arena == NULL) {
        return;
    }
    for (chunk = arena->head; chunk != NULL; chunk = next) {
        next = chunk->next;
        mem_free(chunk);
    }
    arena->head = NULL;
    arena->used_bytes = 0;
}

/* A chunk with room for `need` bytes in front of the list; sizes double, so
   that a large request takes few chunks and a small one little memory. */
static struct arena_chunk *
add_chunk(struct arena *arena, size_t need)
{
    size_t left = arena->max_bytes - arena->used_bytes;
    size_t want = arena->head == NULL ? CHUNK_FIRST : arena->head->size * 2;
    struct arena_chunk *chunk;

    if (need > left || HEADER > left - need) {
        return NULL;
    }
    want = MIN(want, CHUNK_MAX);
    want = MAX(want, HEADER + need);
    want = MIN(want, left);
    chunk = mem_alloc(want, 1);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->next = arena->head;
    chunk->size = want;
    chunk->used = HEADER;
    arena->head = chunk;
    arena->used_bytes += want;
    return chunk;
}

void *
arena_alloc(struct arena *arena, size_t n, size_t size)
{
    struct arena_chunk *chunk = arena->head;
    size_t need;
    void *p;

    if (size != 0 && n > (SIZE_MAX / 2) / size) {
        return NULL;
    }
    need = n * size;
    need = need == 0 ? ALIGN : (need + ALIGN - 1) & ~(ALIGN - 1);
    if (chunk == NULL || need > chunk->size - chunk->used) {
        chunk = add_chunk(arena, need);
        if (chunk == NULL) {
            return NULL;
        }
    }
    p = (char *)chunk + chunk->used;
    chunk->used += need;
    return p;
}

void *
arena_calloc(struct arena *arena, size_t n, size_t size)
{
    void *p = arena_alloc(arena, n, size);

    if (p != NULL) {
        memset(p, 0, n * size);
    }
    return p;
}

char *
arena_strndup(struct arena *arena, const char *s, size_t len)
{
    char *copy;

    if (len == SIZE_MAX) {
        return NULL;
    }
    copy = arena_alloc(arena, len + 1, 1);
    if (copy == NULL) {
        return NULL;
    }
    if (len > 0) {
        memcpy(copy, s, len);
    }
    copy[len] = '\0';
    return copy;
}
