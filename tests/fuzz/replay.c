/*
 * replay.c - the main of a fuzz target without libFuzzer: every file of the
 * folders (or every file) on the command line is given to the target once, so
 * that `make check` runs the committed seeds with any compiler. A missing
 * folder is an empty one.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILE_BYTES_MAX ((size_t)64 * 1024 * 1024)

static unsigned long n_files;

static int
replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t len = 0, cap = 0, n;

    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    do {
        if (len == cap) {
            cap = cap == 0 ? 4096 : cap * 2;
            uint8_t *grown = cap > FILE_BYTES_MAX ? NULL : realloc(data, cap);
            if (grown == NULL) {
                fprintf(stderr, "%s: too large\n", path);
                free(data);
                fclose(file);
                return 1;
            }
            data = grown;
        }
        n = fread(data + len, 1, cap - len, file);
        len += n;
    } while (n > 0);
    fclose(file);
    /* A block of the exact size, so that a sanitizer sees reads past it. */
    uint8_t *exact = malloc(len == 0 ? 1 : len);
    if (exact == NULL) {
        free(data);
        return 1;
    }
    memcpy(exact, data, len);
    free(data);
    (void)LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    n_files++;
    return 0;
}

static int
replay(const char *path)
{
    struct stat st;
    struct dirent *entry;
    char inside[4096];
    int bad = 0;
    DIR *dir;

    if (stat(path, &st) != 0) {
        return errno == ENOENT ? 0 : 1;
    }
    if (!S_ISDIR(st.st_mode)) {
        return replay_file(path);
    }
    dir = opendir(path);
    if (dir == NULL) {
        return 1;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(inside, sizeof(inside), "%s/%s", path, entry->d_name);
        bad |= replay(inside);
    }
    closedir(dir);
    return bad;
}

int
main(int argc, char **argv)
{
    int bad = 0;

    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        bad |= replay(argv[i]);
    }
    printf("replayed %lu seeds\n", n_files);
    return bad;
}
