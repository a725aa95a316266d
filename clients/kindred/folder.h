/*
 * folder.h - the files below a folder.
 */
#ifndef KINDRED_FOLDER_H
#define KINDRED_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file: its path, the part of it below the folder, its size. */
typedef void folder_file_fn(
    void *arg, const char *path, const char *below, uint64_t bytes);

/*
 * folder_walk - call fn for every regular file below path, folder by folder,
 * in the order of their names. Hidden names and links are left out: a link
 * that leads up would never end.
 *
 *   tell  complain of what cannot be read
 *
 * A folder that cannot be read, is nested too deep, or a name that is gone
 * when its turn comes does not stop the walk. Gives their number.
 */
size_t folder_walk(const char *path, folder_file_fn *fn, void *arg, bool tell);

/* Is tail the end of s? */
bool ends_with(const char *s, const char *tail);

#endif
