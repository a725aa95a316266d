/*
 * buf.h - a growable byte buffer with a maximum, and the JSON that is written
 * into it.
 *
 * A failed append (out of memory or over the maximum) makes the buffer failed:
 * later appends do nothing, and buf_status says why. So a writer appends
 * without looking and checks once at its end. The data always has a NUL after
 * len bytes.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

struct buf {
    char *data; /* len bytes and a NUL; NULL while empty */
    size_t len;
    size_t cap;
    size_t max_bytes;
    enum err err;
};

void buf_init(struct buf *buf, size_t max_bytes);
void buf_release(struct buf *buf);
void buf_clear(struct buf *buf); /* keeps the memory, clears a failure */
enum err buf_status(const struct buf *buf) NODISCARD;

/* Hand the bytes over: the caller frees with mem_free; the buffer is empty. */
char *buf_take(struct buf *buf, size_t *len);

void buf_add(struct buf *buf, const void *bytes, size_t n);
void buf_add_str(struct buf *buf, const char *s);
void buf_add_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *buf, const char *fmt, va_list ap)
    PRINTF_LIKE(2, 0);

/* JSON: a quoted, escaped string of UTF-8 (bad bytes become U+FFFD); numbers
   in the shortest form that reads back the same; null for NaN and infinity. */
void buf_json_string(struct buf *buf, const char *s, size_t len);
void buf_json_cstr(struct buf *buf, const char *s);
void buf_json_double(struct buf *buf, double v);
void buf_json_float(struct buf *buf, float v);
void buf_json_int(struct buf *buf, int64_t v);

#endif
