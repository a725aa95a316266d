/*
 * roster.h - which items a collection has, in memory: external id <-> ordinal
 * <-> item number, and each item's version.
 *
 * An ordinal is the small dense number under which the indexes of a
 * collection's spaces and its filter columns keep an item. Per item the roster
 * takes about 45 bytes beyond the id's text.
 *
 * Ordinals are used again after a removal, but never while a search that
 * began before the removal still runs: roster_enter and roster_leave bracket a
 * search, and a removed ordinal waits in limbo, its id still readable, until
 * all searches of its time have left. So an ordinal that a search was given
 * means the same item until the search leaves.
 *
 * Threads: carries its own read-write lock, held for the time of a table
 * look-up. Writers (add, remove) run in the store's writer thread only.
 */
#ifndef ENGINE_ROSTER_H
#define ENGINE_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/err.h"

#define ROSTER_NONE UINT32_MAX

struct roster;

/* What the roster knows of one item. */
struct roster_entry {
    uint32_t ord;
    int64_t item; /* the store's item number */
    int64_t version;
};

enum err roster_new(struct roster **out) NODISCARD;
void roster_free(struct roster *roster);

/* Room for n more items with id_bytes of id text, so that roster_put cannot
   fail for them. */
enum err roster_reserve(
    struct roster *roster, size_t n, size_t id_bytes) NODISCARD;

/*
 * roster_put - insert an item or note its new version; gives its ordinal.
 * created is set to whether the id was absent; may be NULL.
 * Errors: ERR_NOMEM (not after roster_reserve), ERR_TOO_LARGE past 2^32 - 2.
 */
enum err roster_put(struct roster *roster, const char *id, int64_t item,
    int64_t version, uint32_t *ord, bool *created) NODISCARD;

/* Remove an id; gives its ordinal, ROSTER_NONE when it was absent. */
uint32_t roster_remove(struct roster *roster, const char *id);

bool roster_find(
    struct roster *roster, const char *id, struct roster_entry *out);

/* The item of an ordinal given by a search between enter and leave; the id is
   copied to the arena. ERR_NOT_FOUND for a free ordinal. */
enum err roster_name(struct roster *roster, uint32_t ord, struct arena *arena,
    const char **id, int64_t *item) NODISCARD;

/* Byte order of two ordinals' ids, for ties; equal when either is free. */
int roster_compare(struct roster *roster, uint32_t a, uint32_t b);

/* n item numbers at once; 0 for a free ordinal or one in limbo. */
void roster_items(
    struct roster *roster, const uint32_t *ords, size_t n, int64_t *items);

/* Bits of the ordinals in use: words [n_words] as by roster_span. */
void roster_mark(struct roster *roster, uint64_t *words, size_t n_words);

size_t roster_count(struct roster *roster);
size_t roster_span(struct roster *roster); /* ordinals are below this */
size_t roster_bytes(struct roster *roster);

/* The bracket around a search; leave takes what enter gave. */
unsigned roster_enter(struct roster *roster);
void roster_leave(struct roster *roster, unsigned slot);

#endif
