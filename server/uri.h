/*
 * uri.h - taking request targets apart, byte for byte.
 *
 * The HTTP library hands over the target undecoded, and only this file decodes
 * it, so that an id with %2F, %00 or + in it is either taken whole or refused
 * and never changed on the way. In a path + is a plain plus; in a query it is
 * a space, as forms write it.
 */
#ifndef SERVER_URI_H
#define SERVER_URI_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"

#define URI_PARAMS_MAX 4 /* {name} segments in one pattern */
#define URI_QUERY_MAX 16 /* arguments in one query */

/* Bytes inside the decoded text of a request; NUL-terminated. */
struct uri_param {
    const char *name; /* of the pattern or the query; not NUL-terminated for
                         a pattern: name_len bytes */
    size_t name_len;
    char *value;
    size_t value_len;
};

/*
 * uri_decode - percent-decode n bytes in place or into another buffer.
 *
 *   out        [n + 1] bytes, may be equal to in; gets a NUL
 *   out_len    decoded length
 *   plus       decode + as a space (queries)
 *
 * ERR_SYNTAX for a broken escape, an escaped or plain NUL.
 */
enum err uri_decode(
    char *out, size_t *out_len, const char *in, size_t n, bool plus) NODISCARD;

/*
 * uri_match - compare an undecoded path with a pattern such as
 * "/v1/collections/{collection}/items/{id}".
 *
 *   params    [URI_PARAMS_MAX] gets the undecoded segments that stand for
 *             {names}, borrowed from pattern and path (value not terminated)
 *   n_params  how many
 *
 * True when every segment agrees. Literal segments are compared undecoded. A
 * {name} takes one non-empty segment. Allocates nothing.
 */
struct uri_slice {
    const char *name;
    size_t name_len;
    const char *raw;
    size_t raw_len;
};
bool uri_match(const char *pattern, const char *path, size_t path_len,
    struct uri_slice params[URI_PARAMS_MAX], size_t *n_params);

/*
 * uri_query - split "a=1&b=2" and decode both sides.
 *
 *   text      [len + 1] writable, decoded in place; the results point into it
 *   args      [URI_QUERY_MAX]
 *
 * ERR_SYNTAX for a broken escape, ERR_TOO_LARGE for too many arguments,
 * ERR_INVALID for a name given twice.
 */
enum err uri_query(
    char *text, size_t len, struct uri_param *args, size_t *n_args) NODISCARD;

/* Append s to out [cap] percent-encoded as one path segment; false if it does
   not fit (out then holds the empty string). */
bool uri_encode(char *out, size_t cap, const char *s, size_t len);

#endif
