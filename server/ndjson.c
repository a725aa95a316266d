#include "server/ndjson.h"

#include <string.h>

void
ndjson_init(struct ndjson *nd, size_t line_bytes_max)
{
    memset(nd, 0, sizeof(*nd));
    buf_init(&nd->pending, SIZE_MAX / 8); /* the caller bounds it */
    nd->line_bytes_max = line_bytes_max;
}

void
ndjson_release(struct ndjson *nd)
{
    buf_release(&nd->pending);
    nd->at = nd->scanned = 0;
}

/* Move what is left to the front. */
static void
ndjson_compact(struct ndjson *nd)
{
    if (nd->at == 0)
        return;
    size_t left = nd->pending.len - nd->at;
    if (left > 0)
        memmove(nd->pending.data, nd->pending.data + nd->at, left);
    nd->pending.len = left;
    nd->scanned -= nd->at;
    nd->at = 0;
}

enum err
ndjson_feed(struct ndjson *nd, const char *bytes, size_t n)
{
    ASSERT(!nd->ended);
    ndjson_compact(nd);
    if (nd->skipping) {
        /* Only the newline of an over-long line is of interest. */
        const char *nl = memchr(bytes, '\n', n);
        if (!nl)
            return OK;
        n -= (size_t)(nl - bytes);
        bytes = nl;
    }
    buf_add(&nd->pending, bytes, n);
    return buf_status(&nd->pending);
}

void
ndjson_end(struct ndjson *nd)
{
    nd->ended = true;
}

static bool
is_blank(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
            return false;
    return true;
}

bool
ndjson_next(struct ndjson *nd, struct ndjson_line *line)
{
    for (;;) {
        if (nd->pending.len == 0 && !nd->skipping)
            return false;
        size_t left = nd->pending.len - nd->scanned;
        const char *nl =
            left > 0 ? memchr(nd->pending.data + nd->scanned, '\n', left)
                     : NULL;
        size_t len;
        if (nl) {
            len = (size_t)(nl - (nd->pending.data + nd->at));
        } else {
            nd->scanned = nd->pending.len;
            len = nd->pending.len - nd->at;
            if (!nd->ended) {
                if (len > nd->line_bytes_max + 1) { /* + 1: a \r */
                    nd->skipping = true;
                    nd->at = nd->scanned = nd->pending.len;
                }
                return false;
            }
            if (len == 0 && !nd->skipping)
                return false;
        }
        bool too_long = nd->skipping;
        const char *text = too_long ? NULL : nd->pending.data + nd->at;
        nd->skipping = false;
        nd->at += len + (nl ? 1 : 0);
        nd->scanned = nd->at;
        nd->line_no++;
        if (!too_long) {
            if (len > 0 && text[len - 1] == '\r')
                len--;
            /* The length first: it must not matter how the bytes came. */
            too_long = len > nd->line_bytes_max;
            if (!too_long && is_blank(text, len))
                continue;
        }
        line->text = too_long ? NULL : text;
        line->len = too_long ? 0 : len;
        line->line_no = nd->line_no;
        line->too_long = too_long;
        return true;
    }
}

void
ndjson_skip_line(struct ndjson *nd)
{
    if (nd->pending.len == nd->at)
        return;
    nd->skipping = true;
    nd->at = nd->scanned = nd->pending.len;
}

void
ndjson_shrink(struct ndjson *nd)
{
    ASSERT(nd->at == nd->pending.len);
    buf_release(&nd->pending);
    nd->at = nd->scanned = 0;
}
