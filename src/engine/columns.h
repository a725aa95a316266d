/*
 * columns.h - typed columns over the items' metadata, for filters.
 *
 * A column holds the value that each item (by ordinal) has at one dotted path
 * of its metadata: a number, a string, true or false, null, or several values
 * where the path meets an array (also an array of objects on its way).
 * Strings are interned per column, numbers are doubles, so a column takes 9
 * bytes an item and a filter scans it at memory speed.
 *
 * Columns are derived and made when a filter first asks for a path: the
 * collection registers it (columns_add), walks the stored metadata
 * (columns_fill) and opens it (columns_ready), while writes go on: what
 * ingest sets in between wins over the walk. A column whose garbage (strings
 * no item has any more) outweighs its content is dropped, to be made again; so
 * is the one used longest ago when there are COLUMNS_MAX.
 *
 * Threads: carries its own read-write lock. columns_set, columns_clear run in
 * the store's writer thread; a build in one thread at a time.
 */
#ifndef ENGINE_COLUMNS_H
#define ENGINE_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/json.h"

#define COLUMNS_MAX 64
#define COLUMN_PATH_BYTES_MAX 256
#define COLUMN_PATH_PARTS_MAX 16
#define COLUMN_VALUES_MAX 1024 /* of one item; the rest is not looked at */

enum column_tag {
    COLUMN_ABSENT,
    COLUMN_NULL,
    COLUMN_BOOL,   /* value 0 or 1 */
    COLUMN_NUMBER, /* value: the bits of a double */
    COLUMN_STRING, /* value: a string's number in this column */
    COLUMN_OTHER,  /* an object: it exists, nothing equals it */
    COLUMN_MANY    /* value: where its values start in `many` */
};

struct columns;

enum err columns_new(struct columns **out) NODISCARD;
void columns_free(struct columns *columns);
size_t columns_bytes(struct columns *columns);
bool columns_any(struct columns *columns);

/* Is there an open column of this path? */
bool columns_has(struct columns *columns, const char *path);

/* Register a path, closed; ERR_NOMEM. One that is there is emptied. */
enum err columns_add(struct columns *columns, const char *path) NODISCARD;
/* What the walk found: skipped where columns_set came since columns_add.
   Not for a closed column that was dropped meanwhile (then nothing). */
enum err columns_fill(struct columns *columns, const char *path, uint32_t ord,
    const struct json *metadata) NODISCARD;
void columns_ready(struct columns *columns, const char *path);

/* An item's metadata has changed (NULL: it has none) or it is gone. When
   memory is out the columns concerned are dropped, not wrong. */
void columns_set(
    struct columns *columns, uint32_t ord, const struct json *metadata);
void columns_clear(struct columns *columns, uint32_t ord);
/* Drop all of them: memory was out before a change could be told. */
void columns_forget(struct columns *columns);

/* ---- for filter.c -------------------------------------------------------- */

struct column_view {
    const uint8_t *tags; /* [span] */
    const uint64_t *values;
    size_t span;
    const uint64_t *many; /* at a COLUMN_MANY's value: n, then n x (tag,
                             value) */
    char *const *strings; /* by number */
    const uint32_t *string_lens;
    size_t n_strings;
};
/* Between lock and unlock a view stays valid. False: there is none, open. */
void columns_lock(struct columns *columns);
void columns_unlock(struct columns *columns);
bool columns_view(
    struct columns *columns, const char *path, struct column_view *out);

#endif
