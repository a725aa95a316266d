/*
 * spool.h - text that is kept until it can be sent: in memory up to a bound,
 * beyond it in a file of the data folder that has no name any more.
 *
 * Owned by one thread at a time.
 */
#ifndef SERVER_SPOOL_H
#define SERVER_SPOOL_H

#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

struct spool {
    struct buf memory;
    const char *dir; /* borrowed */
    size_t memory_max;
    int fd; /* -1 until it is needed */
    uint64_t file_bytes;
    enum err err; /* the first failure; later text is dropped */
};

void spool_init(struct spool *spool, const char *dir, size_t memory_max);
void spool_release(struct spool *spool);

/* Where to append; call spool_commit after each record. */
struct buf *spool_text(struct spool *spool);
void spool_commit(struct spool *spool);

/* All text is to be sent now: in memory alone (*fd < 0, take it from
   spool_text), or in the file, which is given. */
enum err spool_finish(struct spool *spool, int *fd, uint64_t *bytes) NODISCARD;

#endif
