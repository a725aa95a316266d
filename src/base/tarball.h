/*
 * tarball.h - a folder as one stream of bytes: tar (ustar, pax, GNU), not
 * compressed, through libarchive.
 *
 * Names that begin with a dot (.git, .cache, ._config.json) are no part of a
 * folder here: they are neither packed nor unpacked.
 */
#ifndef BASE_TARBALL_H
#define BASE_TARBALL_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

#define TARBALL_ENTRIES_MAX 1000
#define TARBALL_DEPTH_MAX 4 /* names in a path */

/*
 * tarball_unpack - the regular files of a stream into an empty folder.
 *
 *   fd         read from where it stands to its end
 *   dir        a folder that is there; files are made with mode 0600, folders
 *              with 0700
 *   bytes_max  of all files together
 *
 * One folder around everything ("name/config.json") is taken off. ERR_INVALID
 * for what is no tar, an entry that is neither file nor folder, a sparse file,
 * a path that is absolute, has "..", or occurs twice; ERR_TOO_LARGE over a
 * limit; ERR_IO, ERR_FULL, ERR_NOMEM. The fault names the entry. On failure
 * files may be left in dir.
 */
enum err tarball_unpack(
    int fd, const char *dir, uint64_t bytes_max, struct fault *fault) NODISCARD;

/*
 * tarball_pack - the files below a folder as a stream (links are followed).
 *
 *   write  is given the bytes in order; its error is passed on
 *
 * The same files give the same bytes: sorted by name, no owner, no time.
 * ERR_NOT_FOUND, ERR_TOO_LARGE (entries, depth), ERR_INVALID (neither file nor
 * folder; a path over 255 bytes), ERR_IO, ERR_NOMEM.
 */
typedef enum err tarball_write_fn(void *arg, const void *bytes, size_t n);
enum err tarball_pack(const char *dir, tarball_write_fn *write, void *arg,
    struct fault *fault) NODISCARD;

/* How many bytes tarball_pack will give, from the sizes of the files; errors
   as there. */
enum err tarball_bytes(
    const char *dir, uint64_t *bytes, struct fault *fault) NODISCARD;

/* Remove a folder and all that is in it, as far as that goes; links in it are
   removed, not followed. One that is not there is fine. */
void tarball_discard(const char *dir);

#endif
