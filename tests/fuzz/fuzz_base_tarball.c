/*
 * fuzz_base_tarball - tarball_unpack of any bytes, into a folder of its own.
 *
 * Checked beside the absence of crashes and leaks: a refusal has its reason and
 * is a documented one; what came out is regular files and folders within the
 * limits; nothing was made beside the folder.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/tarball.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BYTES_MAX 65536

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

struct found {
    size_t entries;
    uint64_t bytes;
};

static void
look(struct found *found, int at, const char *name, int depth)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    DIR *dir = fdopendir(fd);
    const struct dirent *entry;
    MUST(dir != NULL && depth <= TARBALL_DEPTH_MAX + 1);
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        MUST(fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
        MUST(S_ISDIR(st.st_mode) || S_ISREG(st.st_mode));
        MUST(entry->d_name[0] != '.');
        found->entries++;
        if (S_ISDIR(st.st_mode))
            look(found, fd, entry->d_name, depth + 1);
        else
            found->bytes += (uint64_t)st.st_size;
    }
    closedir(dir);
}

/* How many names the folder has. */
static size_t
count(const char *path)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    MUST(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char base[] = "/tmp/kindred-fuzz-tar-XXXXXX";
    char dir[sizeof(base) + 4];
    struct fault fault = {0};
    struct found found = {0};
    FILE *f = tmpfile();
    MUST(f && mkdtemp(base));
    (void)snprintf(dir, sizeof(dir), "%s/in", base);
    MUST(mkdir(dir, 0700) == 0);
    MUST(fwrite(data, 1, size, f) == size && fflush(f) == 0);
    rewind(f);
    enum err err = tarball_unpack(fileno(f), dir, BYTES_MAX, &fault);
    fclose(f);
    MUST(err == OK || err == ERR_INVALID || err == ERR_TOO_LARGE ||
         err == ERR_NOMEM);
    MUST(fault.err == err && (err == OK || fault.detail[0] != '\0'));
    look(&found, AT_FDCWD, dir, 0);
    MUST(found.bytes <= BYTES_MAX);
    /* Folders that only paths name are not entries. */
    MUST(found.entries <= TARBALL_ENTRIES_MAX * (TARBALL_DEPTH_MAX + 1));
    MUST(count(base) == 3);
    tarball_discard(base);
    return 0;
}
