/*
 * trie.h - byte strings to numbers, as a double array that is walked a byte
 * at a time.
 *
 * A unit of 32 bits is a node: bits 0..7 are the byte that leads to it, bit 8
 * is set in units that are no node (free ones, and those that hold a value),
 * bit 9 says that a string ends here, bits 10..31 are the base. The child for
 * byte c is unit base ^ c if its low nine bits are c, and the value of a
 * string is in the upper bits of unit base ^ 0. No two nodes share a base, so
 * the byte alone tells whose child a unit is (Yata et al. 2007). Children of a
 * node lie in one block of 256 units, and there are only whole blocks: no walk
 * leaves the array.
 *
 * Immutable once built; threads may share it.
 */
#ifndef TEXT_TRIE_H
#define TEXT_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

#define TRIE_VALUE_MAX ((1U << 22) - 1)
#define TRIE_ENDS_BIT 0x200U

struct trie {
    uint32_t *units;
    size_t n_units;
    uint32_t root; /* the node of the empty string */
};

struct trie_key {
    const char *s; /* no NUL inside; borrowed during the build */
    uint32_t len;  /* > 0 */
    uint32_t value;
};

/*
 * trie_build - a trie of n keys.
 *
 *   keys  sorted by their bytes (trie_sort), no two alike
 *   out   overwritten; released with trie_release
 *
 * n may be 0. ERR_TOO_LARGE past 2^22 units, ERR_NOMEM.
 */
enum err trie_build(
    struct trie *out, const struct trie_key *keys, size_t n) NODISCARD;
void trie_release(struct trie *trie);

/* Sort keys by their bytes. Returns the index of the second of two keys that
   are alike, or n. */
size_t trie_sort(struct trie_key *keys, size_t n);

/* From a node over byte c to the next; false, and *node untouched, when no
   string goes on so. */
static inline bool
trie_step(const struct trie *trie, uint32_t *node, unsigned char c)
{
    uint32_t unit = trie->units[(*node >> 10) ^ c];
    if ((unit & 0x1FF) != c)
        return false;
    *node = unit;
    return true;
}

static inline bool
trie_ends(uint32_t node)
{
    return (node & TRIE_ENDS_BIT) != 0;
}

/* The value of the string that ends at node; only where trie_ends. */
static inline uint32_t
trie_value(const struct trie *trie, uint32_t node)
{
    return trie->units[node >> 10] >> 10;
}

/* The longest string of the trie at the beginning of s: its length, 0 when
   there is none, and its value. */
size_t trie_longest(
    const struct trie *trie, const char *s, size_t len, uint32_t *value);

/* Whether s as a whole is in the trie, and its value. */
bool trie_find(
    const struct trie *trie, const char *s, size_t len, uint32_t *value);

#endif
