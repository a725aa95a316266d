/*
 * impressions.h - what was answered lately, so that a pick can become a pair.
 *
 * A ring of the last answers in memory, bounded in number and in bytes: the
 * query (its text or its item's id) and the numbers of the items that it got.
 * Search ids are random, so that one caller cannot guess another's. Carries
 * its own lock.
 */
#ifndef ENGINE_IMPRESSIONS_H
#define ENGINE_IMPRESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/err.h"
#include "engine/engine.h"

#define IMPRESSIONS_BYTES_MAX ((size_t)8 << 20)

struct impressions;

enum err impressions_new(struct impressions **out, size_t max) NODISCARD;
void impressions_free(struct impressions *impressions);
size_t impressions_bytes(struct impressions *impressions);

struct impression {
    int64_t collection;
    struct engine_text text; /* of the query, or */
    const char *id;          /* its item; both absent: cannot be a pair */
    bool by_image;           /* because it was a picture */
    const int64_t *items;    /* best first */
    size_t n_items;
};

/* Remember a copy of it; gives its search id. An answer that finds no memory
   or no room is not remembered, and still gets an id. */
void impressions_add(struct impressions *impressions,
    const struct impression *impression,
    char search_id[ENGINE_SEARCH_ID_BYTES]);

/* Copied into the arena; ERR_NOT_FOUND, ERR_NOMEM. */
enum err impressions_get(struct impressions *impressions, const char *search_id,
    struct arena *arena, struct impression *out) NODISCARD;

#endif
