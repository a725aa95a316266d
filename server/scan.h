/*
 * scan.h - one look at JSON text before a tree is made of it.
 *
 * Vectors and pictures are long and a tree makes them slow, so they are cut
 * out here and read directly from the body; and a short text can hide a large
 * tree ("[[],[],..."), so its values are counted before memory is spent. The
 * scanner does not check syntax beyond strings and nesting: what passes it
 * still goes through the parser.
 */
#ifndef SERVER_SCAN_H
#define SERVER_SCAN_H

#include <stddef.h>
#include "base/arena.h"
#include "base/err.h"

#define SCAN_VALUES_MAX 65536 /* of one tree */

struct scan_slice {
    const char *s;
    size_t len;
};

/* Where a "vector" or "image" member is one of ours and not a user's own
   data. */
enum scan_shape {
    SCAN_PLAIN,  /* nowhere: only count; needs no arena */
    SCAN_OBJECT, /* {"vector": ...} */
    SCAN_QUERIES /* {"queries": [{"vector": ...}]} */
};

/*
 * scan_cut - the text with each vector array and image string replaced by [i].
 *
 *   out     the text to parse: the input itself when nothing was cut, else in
 *           the arena, without what was cut
 *   slices  the i-th array with its brackets or string with its quotes;
 *           borrowed from s, the list in the arena
 *
 * ERR_TOO_LARGE: over values_max values; ERR_SYNTAX: nesting that does not
 * close; ERR_NOMEM.
 */
enum err scan_cut(const char *s, size_t len, enum scan_shape shape,
    size_t values_max, struct arena *arena, struct scan_slice *out,
    struct scan_slice **slices, size_t *n_slices,
    struct fault *fault) NODISCARD;

/*
 * scan_elements - the elements of a top-level array, undecoded.
 *
 * ERR_SYNTAX when the text is no array or something follows it, ERR_TOO_LARGE
 * for more than max elements, ERR_NOMEM.
 */
enum err scan_elements(const char *s, size_t len, size_t max,
    struct arena *arena, struct scan_slice **elements, size_t *n,
    struct fault *fault) NODISCARD;

/* The first byte that is not white space, or 0. */
char scan_first(const char *s, size_t len);

#endif
