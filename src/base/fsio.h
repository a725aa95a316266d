/*
 * fsio.h - files: whole reads with a limit, atomic durable writes, the lock
 * of a data folder.
 *
 * ERR_FULL means no space (or quota) left, ERR_NOT_FOUND no such path, ERR_IO
 * everything else; the fault names the step, the path and the system's words.
 */
#ifndef BASE_FSIO_H
#define BASE_FSIO_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

/* Append the whole file to out; ERR_TOO_LARGE past out's maximum. On failure
   out is as long as it was (and not failed). */
enum err fsio_read(
    const char *path, struct buf *out, struct fault *fault) NODISCARD;

/* Write beside (PATH.tmp, mode 0600), fsync, rename over path, fsync the
   folder. Until the rename the old file is untouched, and after OK the new one
   survives a power cut. One writer for a path at a time. */
enum err fsio_write_atomic(const char *path, const void *bytes, size_t n,
    struct fault *fault) NODISCARD;

/*
 * The same in pieces, for what is too large to hold: open, write until done,
 * commit. Until the commit path is untouched; after OK the new file survives a
 * power cut. fsio_out_free before it leaves nothing; NULL is fine. The first
 * error stays: later writes and the commit return it.
 */
struct fsio_out;
enum err fsio_out_open(
    struct fsio_out **out, const char *path, struct fault *fault) NODISCARD;
enum err fsio_out_write(struct fsio_out *out, const void *bytes, size_t n,
    struct fault *fault) NODISCARD;
enum err fsio_out_commit(struct fsio_out *out, struct fault *fault) NODISCARD;
void fsio_out_free(struct fsio_out *out);

/* Make a folder and its parents, mode 0700; one that exists is fine. */
enum err fsio_make_dir(const char *path, struct fault *fault) NODISCARD;

/*
 * Take the folder's lock (flock on DIR/lock, which then holds our pid).
 * ERR_LOCKED with the holder's pid in the fault. Gives a descriptor to pass
 * to fsio_unlock. A second lock in the same process is refused too.
 */
enum err fsio_lock_dir(const char *dir, int *fd, struct fault *fault) NODISCARD;
void fsio_unlock(int fd);

/* Tests only: let the n-th write, fsync or rename from now fail with EIO,
   once (1 is the next); 0 ends the experiment. Returns how many were seen
   since last set. */
uint64_t fsio_fail_at(uint64_t n);

#endif
