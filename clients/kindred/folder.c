#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
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

struct walking {
    folder_file_fn *fn;
    void *arg;
    bool tell;
    size_t root_len;
    size_t n_unread;
};

static void
leave_out(struct walking *w, const char *path, const char *why)
{
    w->n_unread++;
    if (w->tell)
        complain("%s: %s", path, why);
}

/* The names in a folder that are not hidden, sorted; false: errno. */
static bool
read_names(const char *path, char ***names, size_t *n)
{
    const struct dirent *entry;
    DIR *dir = opendir(path);
    *names = NULL;
    *n = 0;
    if (dir == NULL)
        return false;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        *names = must_realloc(*names, *n + 1, sizeof(**names));
        (*names)[(*n)++] = must_strdup(entry->d_name);
    }
    closedir(dir);
    if (*n > 1)
        qsort(*names, *n, sizeof(**names), by_name);
    return true;
}

static void
walk(struct walking *w, const char *path, int depth)
{
    char **names;
    size_t n;
    if (depth > FOLDERS_MAX) {
        leave_out(w, path, "folders nested too deep");
        return;
    }
    if (!read_names(path, &names, &n)) {
        leave_out(w, path, strerror(errno));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        size_t bytes = strlen(path) + strlen(names[i]) + 2;
        char *full = must_alloc(bytes, 1);
        snprintf(full, bytes, "%s/%s", path, names[i]);
        if (lstat(full, &st) != 0)
            leave_out(w, full, strerror(errno));
        else if (S_ISDIR(st.st_mode))
            walk(w, full, depth + 1);
        else if (S_ISREG(st.st_mode))
            w->fn(w->arg, full, full + w->root_len + 1, (uint64_t)st.st_size);
        mem_free(full);
        mem_free(names[i]);
    }
    mem_free(names);
}

size_t
folder_walk(const char *path, folder_file_fn *fn, void *arg, bool tell)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    struct walking w = {.fn = fn, .arg = arg, .tell = tell, .root_len = len};
    char *root = must_strdup(path);
    root[len] = '\0';
    walk(&w, root, 0);
    mem_free(root);
    return w.n_unread;
}
