/*
 * base64.h - RFC 4648 base64 with the standard alphabet and padding.
 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stddef.h>
#include "base/buf.h"
#include "base/err.h"

/* Characters of n bytes' encoding, without a NUL. */
size_t base64_encoded_len(size_t n);

/* Append the encoding of n bytes; a failure is the buffer's. */
void base64_encode(struct buf *out, const void *bytes, size_t n);

/*
 * base64_decode - strictly: padding is required, white space is refused, and
 * so are bits that no encoder sets (each byte string has one spelling).
 *
 *   s, len  the text, no NUL needed; borrowed
 *   out     max bytes; overwritten, in part also on failure
 *   n       the number of bytes decoded
 *
 * ERR_SYNTAX, or ERR_TOO_LARGE when more than max bytes would come.
 */
enum err base64_decode(
    const char *s, size_t len, void *out, size_t max, size_t *n) NODISCARD;

#endif
