/*
 * json.h - JSON text as a read-only tree, and a direct reader of number
 * arrays, for code outside the server's codec (reports, settings, metadata).
 *
 * A tree belongs to the caller of json_parse; every node and string in it is
 * borrowed and valid until json_free. A tree is not written after it is made,
 * so threads may read it together. To write JSON, append to a struct buf with
 * buf_json_*.
 *
 * Getters take the object, the JSON pointer that leads to it ("" for the
 * root; it only serves the fault) and a key. An absent key is ERR_INVALID
 * when JSON_REQUIRED, and OK with the output untouched when JSON_OPTIONAL, so
 * that a caller sets its default first. A value of another type, null too, is
 * ERR_INVALID. The fault's pointer names the member.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

#define JSON_DEPTH_MAX 32

struct json; /* a node, opaque */

enum json_kind {
    JSON_KIND_NULL,
    JSON_KIND_BOOL,
    JSON_KIND_INT,
    JSON_KIND_REAL,
    JSON_KIND_STRING,
    JSON_KIND_ARRAY,
    JSON_KIND_OBJECT
};

enum json_need { JSON_OPTIONAL, JSON_REQUIRED };

/*
 * json_parse - one JSON value of any kind, and nothing after it.
 *
 *   s, len     UTF-8 text, no NUL needed; borrowed
 *   max_bytes  the longest text that is looked at
 *   out        gives the tree; untouched on failure
 *
 * Refused: text over max_bytes (ERR_TOO_LARGE), more than JSON_DEPTH_MAX
 * containers in each other, a key twice in one object, a number that does not
 * fit an int64 or a double (all ERR_INVALID), and everything that is not JSON,
 * NaN, \u0000 and bad UTF-8 among it (ERR_SYNTAX).
 */
enum err json_parse(const char *s, size_t len, size_t max_bytes,
    struct json **out, struct fault *fault) NODISCARD;
void json_free(struct json *root);

/* A node's kind and, where the kind is right (asserted), its value. A real or
   an int is a number for json_f64. */
enum json_kind json_kind(const struct json *node);
bool json_bool(const struct json *node);
int64_t json_i64(const struct json *node);
double json_f64(const struct json *node);
const char *json_str(
    const struct json *node, size_t *len); /* len may be NULL */

/* Members of an object or elements of an array; 0 for other kinds. */
size_t json_count(const struct json *node);

/* A member, or NULL when there is none or the node is no object. */
const struct json *json_find(const struct json *object, const char *key);

/* Element i of an array, i < json_count. */
const struct json *json_item(const struct json *array, size_t i);

/* Walk an object's members in the order of the text:
       for (void *it = json_first(o); it != NULL; it = json_next(o, it)) */
void *json_first(const struct json *object);
void *json_next(const struct json *object, void *it);
const char *json_it_key(void *it);
const struct json *json_it_value(void *it);

/* The string with its length (len may be NULL); a NUL follows it. */
enum err json_get_str(const struct json *object, const char *at,
    const char *key, enum json_need need, const char **out, size_t *len,
    struct fault *fault) NODISCARD;

/* An integer in [min, max]. A number with a fraction or exponent is refused. */
enum err json_get_i64(const struct json *object, const char *at,
    const char *key, enum json_need need, int64_t min, int64_t max,
    int64_t *out, struct fault *fault) NODISCARD;

/* What json_get_f64 accepts; NULL in its place means any finite number. */
struct json_range {
    double min;
    double max;
    bool fits_float; /* refuse what is infinite as a float */
};
enum err json_get_f64(const struct json *object, const char *at,
    const char *key, enum json_need need, const struct json_range *range,
    double *out, struct fault *fault) NODISCARD;

enum err json_get_bool(const struct json *object, const char *at,
    const char *key, enum json_need need, bool *out,
    struct fault *fault) NODISCARD;

enum err json_get_object(const struct json *object, const char *at,
    const char *key, enum json_need need, const struct json **out,
    struct fault *fault) NODISCARD;

enum err json_get_array(const struct json *object, const char *at,
    const char *key, enum json_need need, const struct json **out,
    struct fault *fault) NODISCARD;

/* Refuse (ERR_INVALID) a member whose name is not among n keys. */
enum err json_only_keys(const struct json *object, const char *at,
    const char *const *keys, size_t n, struct fault *fault) NODISCARD;

/* AT/KEY with the escapes of RFC 6901, cut to fit. */
void json_pointer(char out[FAULT_POINTER_MAX], const char *at, const char *key);

/*
 * json_dump - the node in canonical form, appended to out: no white space,
 * keys sorted by their bytes, numbers as buf_json_double writes them. Equal
 * values give equal text (1, 1.0 and 1e0 are all 1). A failure is out's.
 */
void json_dump(const struct json *node, struct buf *out);

/*
 * json_read_floats - a JSON array of numbers, without a tree.
 *
 *   s, len  starts at '[' (white space before it is skipped); borrowed
 *   out     max floats; overwritten, in part also on failure
 *   n       how many there were
 *   end     just behind the ']'; may be NULL
 *   fault   its pointer is "/i" for element i, "" for the array
 *
 * Each value is (float)strtod(number): what a tree would have given, rounded
 * twice. ERR_SYNTAX for what is not JSON (NaN too); ERR_INVALID for an element
 * that is no number or is infinite as a float (1e300); ERR_TOO_LARGE for more
 * than max elements. Allocates nothing; about 10 ns a number.
 */
enum err json_read_floats(const char *s, size_t len, float *out, size_t max,
    size_t *n, const char **end, struct fault *fault) NODISCARD;

#endif
