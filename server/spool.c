#include "server/spool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"

void
spool_init(struct spool *spool, const char *dir, size_t memory_max)
{
    memset(spool, 0, sizeof(*spool));
    spool->dir = dir;
    spool->memory_max = memory_max;
    spool->fd = -1;
    /* One record over the bound is held until it is written. */
    buf_init(&spool->memory, memory_max + (1u << 20));
}

void
spool_release(struct spool *spool)
{
    buf_release(&spool->memory);
    if (spool->fd >= 0)
        (void)close(spool->fd);
    spool->fd = -1;
}

struct buf *
spool_text(struct spool *spool)
{
    return &spool->memory;
}

static enum err
spool_fail(struct spool *spool, int why)
{
    static struct log_limit limit;
    spool->err = why == ENOSPC || why == EDQUOT ? ERR_FULL : ERR_IO;
    log_limited(&limit, LOG_WARN, "http", "spool_failed errno=%d", why);
    return spool->err;
}

static enum err
spool_open(struct spool *spool)
{
    char path[600];
    int n = snprintf(path, sizeof(path), "%s/spool-XXXXXX", spool->dir);
    if (n < 0 || (size_t)n >= sizeof(path))
        return spool_fail(spool, ENAMETOOLONG);
    spool->fd = mkstemp(path);
    if (spool->fd < 0)
        return spool_fail(spool, errno);
    (void)unlink(path);
    return OK;
}

static void
spool_flush(struct spool *spool)
{
    if (spool->err == OK && spool->fd < 0 && spool_open(spool) != OK)
        return;
    size_t at = 0;
    while (spool->err == OK && at < spool->memory.len) {
        ssize_t n =
            write(spool->fd, spool->memory.data + at, spool->memory.len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            (void)spool_fail(spool, errno);
        else
            at += (size_t)n;
    }
    spool->file_bytes += at;
    buf_clear(&spool->memory);
}

void
spool_commit(struct spool *spool)
{
    if (buf_status(&spool->memory) != OK && spool->err == OK)
        spool->err = buf_status(&spool->memory);
    if (spool->err != OK) {
        buf_clear(&spool->memory);
        return;
    }
    if (spool->memory.len > spool->memory_max)
        spool_flush(spool);
}

enum err
spool_finish(struct spool *spool, int *fd, uint64_t *bytes)
{
    spool_commit(spool);
    if (spool->err == OK && spool->fd >= 0)
        spool_flush(spool);
    if (spool->err != OK)
        return spool->err;
    *fd = spool->fd;
    *bytes = spool->file_bytes;
    spool->fd = -1;
    return OK;
}
