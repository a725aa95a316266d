/*
 * ndjson.h - cut a stream of bytes into lines, in bounded memory.
 *
 * Bytes are appended as they come; complete lines are taken out one by one.
 * A line over the limit is never held: its bytes are thrown away as they
 * come and it is reported once, as too long, when its end is seen. Lines end
 * with \n (a \r before it is dropped); the last may lack it. Blank lines are
 * counted but not reported.
 *
 * Owned by one thread at a time.
 */
#ifndef SERVER_NDJSON_H
#define SERVER_NDJSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

struct ndjson {
    struct buf pending; /* bytes not yet given out, from at on */
    size_t at;          /* start of the first line not given out */
    size_t scanned;     /* no newline in [at, scanned) */
    size_t line_bytes_max;
    int64_t line_no; /* of the line given out last, from 1 */
    bool skipping;   /* inside a line that is over the limit */
    bool ended;      /* no byte will follow */
};

struct ndjson_line {
    const char *text; /* NULL for a line over the limit; valid until the next
                         call that changes the splitter */
    size_t len;
    int64_t line_no;
    bool too_long;
};

/* line_bytes_max: without the newline. */
void ndjson_init(struct ndjson *nd, size_t line_bytes_max);
void ndjson_release(struct ndjson *nd);

/* Append n bytes; they are copied. ERR_NOMEM only. Keeps at most the bytes of
   the lines not yet taken: take all lines between two calls to stay within
   line_bytes_max + n. */
enum err ndjson_feed(struct ndjson *nd, const char *bytes, size_t n) NODISCARD;

/* Say that the body is complete: what is left is the last line. */
void ndjson_end(struct ndjson *nd);

/* The next complete line; false when more bytes are needed or all is taken.
   Several lines may be taken before the next feed: their texts stay valid
   until it. */
bool ndjson_next(struct ndjson *nd, struct ndjson_line *line);

/* Give up the line that is not complete: it will be reported as too long. */
void ndjson_skip_line(struct ndjson *nd);

/* Release the memory of lines that are gone; only while nothing is pending. */
void ndjson_shrink(struct ndjson *nd);

#endif
