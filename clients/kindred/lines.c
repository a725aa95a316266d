/* The block reader behind every format: lines of any length, read once. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli.h"
#include "lines.h"

struct lines *
lines_open(const char *path)
{
    int fd = STDIN_FILENO;
    bool own = strcmp(path, "-") != 0;
    if (own) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return NULL;
    }
    struct lines *lines = must_calloc(1, sizeof(*lines));
    lines->fd = fd;
    lines->own = own;
    lines->path = must_strdup(own ? path : "standard input");
    return lines;
}

void
lines_close(struct lines *lines)
{
    if (lines == NULL)
        return;
    if (lines->own)
        close(lines->fd);
    mem_free(lines->path);
    mem_free(lines);
}

int
lines_fill(struct lines *lines)
{
    if (lines->pos < lines->len)
        return 1;
    if (lines->ended)
        return 0;
    ssize_t got;
    do {
        got = read(lines->fd, lines->block, sizeof(lines->block));
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        complain("%s: %s", lines->path, strerror(errno));
        lines->ended = true;
        return -1;
    }
    if (got == 0) {
        lines->ended = true;
        return 0;
    }
    lines->pos = 0;
    lines->len = (size_t)got;
    lines->bytes += (uint64_t)got;
    return 1;
}

enum input_got
lines_next(struct lines *lines, struct buf *out)
{
    buf_clear(out);
    bool any = false;
    for (;;) {
        int filled = lines_fill(lines);
        if (filled < 0)
            return INPUT_FAILED;
        if (filled == 0)
            break;
        any = true;
        const char *from = lines->block + lines->pos;
        size_t n = lines->len - lines->pos;
        const char *end = memchr(from, '\n', n);
        size_t take = end != NULL ? (size_t)(end - from) : n;
        if (out->len + take > INPUT_RECORD_MAX) {
            complain("%s:%llu: line of more than %zu MB", lines->path,
                (unsigned long long)lines->number + 1, INPUT_RECORD_MAX >> 20);
            return INPUT_FAILED;
        }
        buf_add(out, from, take);
        lines->pos += take + (end != NULL ? 1 : 0);
        if (end != NULL)
            break;
    }
    if (buf_status(out) != OK) {
        complain("out of memory");
        return INPUT_FAILED;
    }
    if (!any)
        return INPUT_END;
    lines->number++;
    if (out->len > 0 && out->data[out->len - 1] == '\r')
        out->data[--out->len] = '\0';
    return INPUT_RECORD;
}

uint64_t
lines_number(const struct lines *lines)
{
    return lines->number;
}

uint64_t
lines_bytes(const struct lines *lines)
{
    return lines->bytes - (uint64_t)(lines->len - lines->pos);
}

size_t
tsv_split(char *line, char **fields, size_t max)
{
    size_t n = 0;
    char *p = line;
    while (n < max) {
        fields[n++] = p;
        p = strchr(p, '\t');
        if (p == NULL)
            break;
        *p++ = '\0';
    }
    return n;
}
