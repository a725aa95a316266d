#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "cli.h"

#define FOLDERS_MAX 64

bool
ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s);
    size_t m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static int
by_name(const void *a, const void *b)
{
    char *const *x = a;
    char *const *y = b;
    return strcmp(*x, *y);
}

static bool
walk(
    const char *path, size_t root_len, int depth, folder_file_fn *fn, void *arg)
{
    if (depth > FOLDERS_MAX) {
        complain("%s: folders nested too deep", path);
        return false;
    }
    DIR *dir = opendir(path);
    if (dir == NULL) {
        complain("%s: %s", path, strerror(errno));
        return false;
    }
    char **names = NULL;
    size_t n = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        names = must_realloc(names, n + 1, sizeof(*names));
        names[n++] = must_strdup(entry->d_name);
    }
    closedir(dir);
    if (n > 1)
        qsort(names, n, sizeof(*names), by_name);
    bool good = true;
    for (size_t i = 0; i < n; i++) {
        struct buf full;
        struct stat st;
        buf_init(&full, 1 << 16);
        buf_printf(&full, "%s/%s", path, names[i]);
        if (good && buf_status(&full) == OK && lstat(full.data, &st) == 0) {
            if (S_ISDIR(st.st_mode))
                good = walk(full.data, root_len, depth + 1, fn, arg);
            else if (S_ISREG(st.st_mode))
                fn(arg, full.data, full.data + root_len + 1,
                    (uint64_t)st.st_size);
        }
        buf_release(&full);
        mem_free(names[i]);
    }
    mem_free(names);
    return good;
}

bool
folder_walk(const char *path, folder_file_fn *fn, void *arg)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    char *root = must_strdup(path);
    root[len] = '\0';
    bool good = walk(root, len, 0, fn, arg);
    mem_free(root);
    return good;
}
