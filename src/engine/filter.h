/*
 * filter.h - a filter over metadata: compiled once a query, evaluated over
 * typed columns into a set of ordinals.
 *
 *   {"lang": "en", "price": {"$gte": 5, "$lt": 9}, "tags": {"$in": [..]},
 *    "$or": [{..}, {..}], "$and": [..], "$not": {..},
 *    "by.name": {"$exists": true}}
 *
 * All members of an object must hold. A key is a dotted path into the metadata
 * (a dot always separates). Values are strings, numbers and booleans; values
 * of different types are never equal and never ordered. Where the path meets
 * arrays, a comparison holds when any element does. $ne is the opposite of
 * $eq, so it also holds where the field is missing; $not is the opposite of
 * its filter. Strings are ordered by their bytes; $gt and its like take
 * numbers and strings.
 */
#ifndef ENGINE_FILTER_H
#define ENGINE_FILTER_H

#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/err.h"
#include "engine/columns.h"

#define FILTER_BYTES_MAX 262144
#define FILTER_DEPTH_MAX 16
#define FILTER_NODES_MAX 1000
#define FILTER_VALUES_MAX 1000 /* compared values in all */

struct filter;

/*
 * filter_compile - check a filter and compile it into the arena.
 *
 *   text     NUL-terminated JSON
 *   pointer  where it stands in the request, e.g. "/filter"; borrowed
 *
 * An empty object gives a filter that all pass. Errors: ERR_SYNTAX,
 * ERR_INVALID, ERR_TOO_LARGE, ERR_NOMEM, each with the pointer of the part.
 */
enum err filter_compile(struct arena *arena, const char *text,
    const char *pointer, struct filter **out, struct fault *fault) NODISCARD;

/* Distinct paths that it compares. */
size_t filter_paths(const struct filter *filter, const char *const **paths);

/*
 * filter_eval - the ordinals that pass, among those in live.
 *
 *   bits [n_words]  overwritten
 *   live [n_words]  bits of the ordinals in use
 *
 * ERR_NOT_FOUND when a column is missing (build it, try again), ERR_NOMEM.
 */
enum err filter_eval(const struct filter *filter, struct columns *columns,
    uint64_t *bits, const uint64_t *live, size_t n_words) NODISCARD;

#endif
