#include "base/tarball.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

#define BLOCK 65536
#define TAR_BLOCK 512
#define PATH_BYTES_MAX 1024 /* of an entry, beyond any that is taken */

/* ---- what both ways share ------------------------------------------------ */

static enum err
refuse_call(struct fault *fault, const char *step, const char *path, int why)
{
    enum err err = why == ENOSPC || why == EDQUOT ? ERR_FULL
                   : why == ENOENT                ? ERR_NOT_FOUND
                   : why == ENOMEM                ? ERR_NOMEM
                                                  : ERR_IO;
    char words[128] = "";
    if (strerror_r(why, words, sizeof(words)) != 0)
        (void)snprintf(words, sizeof(words), "error %d", why);
    return fault_set(fault, err, "", "cannot %s %.200s: %s", step, path, words);
}

static enum err
refuse_memory(struct fault *fault)
{
    return fault_set(fault, ERR_NOMEM, "", "out of memory");
}

static enum err
refuse_count(struct fault *fault)
{
    return fault_set(fault, ERR_TOO_LARGE, "",
        "the folder has more than %d files and folders", TARBALL_ENTRIES_MAX);
}

static enum err
refuse_depth(struct fault *fault, const char *path)
{
    return fault_set(fault, ERR_TOO_LARGE, "",
        "%.200s: folders are nested more than %d deep", path,
        TARBALL_DEPTH_MAX);
}

static char *
join(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = mem_alloc(n, 1);
    if (path)
        (void)snprintf(path, n, "%s%s%s", dir, dir[0] != '\0' ? "/" : "", name);
    return path;
}

/* ---- unpacking ----------------------------------------------------------- */

struct unpacking {
    struct archive *archive;
    struct fault *fault;
    int fd;
    int dir; /* descriptor of the folder */
    int why; /* errno of a failed read of fd; 0: none */
    uint64_t bytes_left;
    size_t n_entries;
    size_t depth;     /* names of the longest path */
    bool wrapped;     /* all so far is below one first name */
    bool top_is_file; /* which then is no folder around everything */
    char top[256];    /* that name; "" at first */
    char block[BLOCK];
};

static la_ssize_t
take_block(struct archive *archive, void *arg, const void **bytes)
{
    struct unpacking *u = arg;
    ssize_t n;
    (void)archive;
    do
        n = read(u->fd, u->block, sizeof(u->block));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        u->why = errno;
    *bytes = u->block;
    return n < 0 ? -1 : n;
}

/* What libarchive says of a stream that it cannot go on with. */
static enum err
refuse_stream(struct unpacking *u)
{
    const char *said = archive_error_string(u->archive);
    if (u->why != 0)
        return refuse_call(u->fault, "read", "the stream", u->why);
    if (archive_errno(u->archive) == ENOMEM)
        return refuse_memory(u->fault);
    return fault_set(u->fault, ERR_INVALID, "",
        "this is no whole tar stream without compression (%.200s)",
        said ? said : "no reason");
}

/* A path in parts: what it holds once "." and doubled slashes are gone. */
struct parts {
    char text[PATH_BYTES_MAX]; /* names with one slash between */
    size_t n;                  /* of names */
    size_t top_len;            /* of the first */
    bool hidden;
};

static enum err
split_path(struct unpacking *u, const char *path, struct parts *parts)
{
    size_t len = 0;
    memset(parts, 0, sizeof(*parts));
    if (path[0] == '/')
        return fault_set(
            u->fault, ERR_INVALID, "", "%.200s: the path is absolute", path);
    if (strlen(path) >= sizeof(parts->text))
        return fault_set(u->fault, ERR_INVALID, "",
            "%.200s...: the path is longer than %d bytes", path,
            PATH_BYTES_MAX - 1);
    for (const char *at = path; *at != '\0';) {
        size_t n = strcspn(at, "/");
        if (n == 2 && memcmp(at, "..", 2) == 0)
            return fault_set(
                u->fault, ERR_INVALID, "", "%.200s: the path has ..", path);
        if (n > 0 && !(n == 1 && at[0] == '.')) {
            if (n >= sizeof(u->top))
                return fault_set(u->fault, ERR_INVALID, "",
                    "%.200s...: a name is longer than 255 bytes", path);
            if (at[0] == '.')
                parts->hidden = true;
            if (parts->n > 0)
                parts->text[len++] = '/';
            memcpy(parts->text + len, at, n);
            len += n;
            if (parts->n++ == 0)
                parts->top_len = n;
        }
        at += n;
        at += strspn(at, "/");
    }
    return OK;
}

static enum err
make_folder(struct unpacking *u, const char *path)
{
    struct stat st;
    if (mkdirat(u->dir, path, 0700) == 0)
        return OK;
    if (errno != EEXIST && errno != ENOTDIR)
        return refuse_call(u->fault, "make", path, errno);
    if (errno == EEXIST &&
        fstatat(u->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(st.st_mode))
        return OK;
    return fault_set(u->fault, ERR_INVALID, "",
        "%.200s: the path occurs twice, as a file and as a folder", path);
}

/* The folders that a file lies in. */
static enum err
make_parents(struct unpacking *u, const char *path)
{
    char above[PATH_BYTES_MAX];
    enum err err = OK;
    for (const char *at = strchr(path, '/'); err == OK && at;
         at = strchr(at + 1, '/')) {
        (void)snprintf(above, sizeof(above), "%.*s", (int)(at - path), path);
        err = make_folder(u, above);
    }
    return err;
}

static enum err
write_all(
    struct unpacking *u, int fd, const char *path, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t done = write(fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return refuse_call(u->fault, "write", path, errno);
        at += done;
        n -= (size_t)done;
    }
    return OK;
}

static enum err
refuse_bytes(struct unpacking *u, const char *path)
{
    return fault_set(u->fault, ERR_TOO_LARGE, "",
        "%.200s: the files are larger than the limit", path);
}

/* The data of the entry, without holes, into its file. */
static enum err
copy_data(struct unpacking *u, int fd, const char *path, la_int64_t size)
{
    la_int64_t at = 0;
    for (;;) {
        const void *bytes;
        size_t n;
        la_int64_t offset;
        int got = archive_read_data_block(u->archive, &bytes, &n, &offset);
        if (got != ARCHIVE_OK && got != ARCHIVE_EOF)
            return refuse_stream(u);
        if (got == ARCHIVE_EOF && at == size)
            return OK;
        if (got == ARCHIVE_EOF || offset != at)
            return fault_set(
                u->fault, ERR_INVALID, "", "%.200s is a sparse file", path);
        if (n > u->bytes_left)
            return refuse_bytes(u, path);
        enum err err = write_all(u, fd, path, bytes, n);
        if (err != OK)
            return err;
        at += (la_int64_t)n;
        u->bytes_left -= n;
    }
}

static enum err
take_file(struct unpacking *u, struct archive_entry *entry, const char *path)
{
    la_int64_t size = archive_entry_size(entry);
    if (size < 0 || (uint64_t)size > u->bytes_left)
        return refuse_bytes(u, path);
    enum err err = make_parents(u, path);
    if (err != OK)
        return err;
    int fd = openat(u->dir, path,
        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EEXIST || errno == ENOTDIR))
        return fault_set(
            u->fault, ERR_INVALID, "", "%.200s: the path occurs twice", path);
    if (fd < 0)
        return refuse_call(u->fault, "make", path, errno);
    err = copy_data(u, fd, path, size);
    if (close(fd) != 0 && err == OK)
        err = refuse_call(u->fault, "write", path, errno);
    return err;
}

/* What an entry is called that is not taken; NULL: it is one that is. */
static const char *
kind_refused(struct archive_entry *entry)
{
    if (archive_entry_hardlink(entry))
        return "a hard link";
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
    case AE_IFDIR:
        return NULL;
    case AE_IFLNK:
        return "a symbolic link";
    case AE_IFCHR:
    case AE_IFBLK:
        return "a device";
    case AE_IFIFO:
        return "a pipe";
    default:
        return "of an unknown kind";
    }
}

static void
note_top(struct unpacking *u, const struct parts *parts, bool folder)
{
    if (u->top[0] == '\0')
        (void)snprintf(
            u->top, sizeof(u->top), "%.*s", (int)parts->top_len, parts->text);
    else if (strlen(u->top) != parts->top_len ||
             memcmp(u->top, parts->text, parts->top_len) != 0)
        u->wrapped = false;
    if (parts->n == 1 && !folder)
        u->top_is_file = true;
    u->depth = MAX(u->depth, parts->n);
}

static enum err
take_entry(struct unpacking *u, struct archive_entry *entry)
{
    struct parts parts;
    const char *path = archive_entry_pathname(entry);
    if (!path)
        path = archive_entry_pathname_utf8(entry);
    if (!path || path[0] == '\0')
        return fault_set(
            u->fault, ERR_INVALID, "", "an entry has no name that can be read");
    enum err err = split_path(u, path, &parts);
    if (err != OK || parts.n == 0 || parts.hidden)
        return err;
    const char *kind = kind_refused(entry);
    if (kind)
        return fault_set(u->fault, ERR_INVALID, "",
            "%.200s is %s; only files and folders are taken (tar -h packs "
            "what links lead to)",
            path, kind);
    if (++u->n_entries > TARBALL_ENTRIES_MAX)
        return refuse_count(u->fault);
    /* One more for the folder that may be around everything. */
    if (parts.n > TARBALL_DEPTH_MAX + 1)
        return refuse_depth(u->fault, path);
    bool folder = archive_entry_filetype(entry) == AE_IFDIR;
    note_top(u, &parts, folder);
    if (!folder)
        return take_file(u, entry, parts.text);
    err = make_parents(u, parts.text);
    return err == OK ? make_folder(u, parts.text) : err;
}

/* Move what is in the folder around everything one up. */
static enum err
unwrap(struct unpacking *u)
{
    char aside[16];
    unsigned i = 0;
    int top =
        openat(u->dir, u->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (top < 0)
        return refuse_call(u->fault, "open", u->top, errno);
    /* One of its own files may have its name: it goes by another. */
    do
        (void)snprintf(aside, sizeof(aside), "%u", i++);
    while (faccessat(top, aside, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
    DIR *names = NULL;
    enum err err = OK;
    if (strcmp(aside, u->top) != 0 &&
        renameat(u->dir, u->top, u->dir, aside) != 0)
        err = refuse_call(u->fault, "move", u->top, errno);
    else if ((names = fdopendir(top)) == NULL)
        err = refuse_call(u->fault, "read", u->top, errno);
    const struct dirent *name;
    while (err == OK && (name = readdir(names)) != NULL)
        if (name->d_name[0] != '.' &&
            renameat(top, name->d_name, u->dir, name->d_name) != 0)
            err = refuse_call(u->fault, "move", name->d_name, errno);
    if (names)
        (void)closedir(names);
    else
        (void)close(top);
    if (err == OK && unlinkat(u->dir, aside, AT_REMOVEDIR) != 0)
        err = refuse_call(u->fault, "remove", u->top, errno);
    return err;
}

static enum err
unpack_entries(struct unpacking *u)
{
    struct archive_entry *entry;
    enum err err = OK;
    if (archive_read_support_format_tar(u->archive) != ARCHIVE_OK ||
        archive_read_open(u->archive, u, NULL, take_block, NULL) != ARCHIVE_OK)
        return refuse_stream(u);
    while (err == OK) {
        int got = archive_read_next_header(u->archive, &entry);
        if (got == ARCHIVE_EOF)
            break;
        /* A warning is about what is not used here: owners, times. */
        err = got == ARCHIVE_OK || got == ARCHIVE_WARN ? take_entry(u, entry)
                                                       : refuse_stream(u);
    }
    if (err != OK)
        return err;
    if (u->wrapped && u->top[0] != '\0' && !u->top_is_file)
        return unwrap(u);
    return u->depth > TARBALL_DEPTH_MAX ? refuse_depth(u->fault, "the tar")
                                        : OK;
}

enum err
tarball_unpack(int fd, const char *dir, uint64_t bytes_max, struct fault *fault)
{
    struct unpacking *u = mem_calloc(1, sizeof(*u));
    if (!u)
        return refuse_memory(fault);
    u->fault = fault;
    u->fd = fd;
    u->bytes_left = bytes_max;
    u->wrapped = true;
    u->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum err err = OK;
    if (u->dir < 0)
        err = refuse_call(fault, "open", dir, errno);
    else if ((u->archive = archive_read_new()) == NULL)
        err = refuse_memory(fault);
    else
        err = unpack_entries(u);
    (void)archive_read_free(u->archive);
    if (u->dir >= 0)
        (void)close(u->dir);
    mem_free(u);
    return err;
}

/* ---- packing ------------------------------------------------------------- */

typedef enum err each_fn(void *arg, const char *path, const char *below,
    const struct stat *st, struct fault *fault);

struct walking {
    each_fn *each;
    void *arg;
    struct fault *fault;
    size_t n_entries;
};

static int
by_name(const void *a, const void *b)
{
    char *const *x = a;
    char *const *y = b;
    return strcmp(*x, *y);
}

static void
free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mem_free(names[i]);
    mem_free(names);
}

/* The names in a folder, sorted. */
static enum err
read_names(const char *path, char ***out, size_t *n_out, struct fault *fault)
{
    const struct dirent *entry;
    char **names = NULL;
    size_t n = 0;
    enum err err = OK;
    DIR *dir = opendir(path);
    if (!dir)
        return refuse_call(fault, "read", path, errno);
    while (err == OK && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        char **more = NULL;
        if (n == TARBALL_ENTRIES_MAX) {
            err = refuse_count(fault);
        } else if ((more = mem_realloc(names, n + 1, sizeof(*names))) == NULL) {
            err = refuse_memory(fault);
        } else {
            names = more;
            names[n] = mem_strdup(entry->d_name);
            if (names[n])
                n++;
            else
                err = refuse_memory(fault);
        }
    }
    (void)closedir(dir);
    if (err != OK) {
        free_names(names, n);
        return err;
    }
    if (n > 1)
        qsort(names, n, sizeof(*names), by_name);
    *out = names;
    *n_out = n;
    return OK;
}

static enum err walk(
    struct walking *w, const char *path, const char *below, int depth);

static enum err
walk_one(struct walking *w, const char *path, const char *below, int depth)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return refuse_call(w->fault, "find", path, errno);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return fault_set(w->fault, ERR_INVALID, "",
            "%.200s is neither a file nor a folder", path);
    if (++w->n_entries > TARBALL_ENTRIES_MAX)
        return refuse_count(w->fault);
    if (depth > TARBALL_DEPTH_MAX)
        return refuse_depth(w->fault, path);
    enum err err = w->each(w->arg, path, below, &st, w->fault);
    return err == OK && S_ISDIR(st.st_mode) ? walk(w, path, below, depth) : err;
}

/* What is in a folder, folder by folder, by name; below: its path in the
   stream. */
static enum err
walk(struct walking *w, const char *path, const char *below, int depth)
{
    char **names = NULL;
    size_t n = 0;
    enum err err = read_names(path, &names, &n, w->fault);
    for (size_t i = 0; err == OK && i < n; i++) {
        char *full = join(path, names[i]);
        char *inside = join(below, names[i]);
        err = full && inside ? walk_one(w, full, inside, depth + 1)
                             : refuse_memory(w->fault);
        mem_free(full);
        mem_free(inside);
    }
    free_names(names, n);
    return err;
}

struct packing {
    struct archive *archive;
    struct archive_entry *entry;
    tarball_write_fn *write;
    void *arg;
    enum err err; /* of write, or why there is no more to be given */
    char block[BLOCK];
};

static la_ssize_t
give_block(struct archive *archive, void *arg, const void *bytes, size_t n)
{
    struct packing *p = arg;
    if (p->err == OK)
        p->err = p->write(p->arg, bytes, n);
    if (p->err == OK)
        return (la_ssize_t)n;
    archive_set_error(archive, EIO, "the stream is not taken");
    return -1;
}

static enum err
refuse_packing(struct packing *p, const char *path, struct fault *fault)
{
    const char *said = archive_error_string(p->archive);
    if (p->err != OK)
        return p->err;
    if (archive_errno(p->archive) == ENOMEM)
        return refuse_memory(fault);
    return fault_set(fault, ERR_INVALID, "", "%.200s: %.200s", path,
        said ? said : "it cannot be packed");
}

static enum err
pack_data(struct packing *p, const char *path, uint64_t n, struct fault *fault)
{
    enum err err = OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return refuse_call(fault, "read", path, errno);
    while (err == OK && n > 0) {
        ssize_t got = read(fd, p->block, (size_t)MIN(n, (uint64_t)BLOCK));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            err = refuse_call(fault, "read", path, errno);
        else if (got == 0)
            err = fault_set(fault, ERR_IO, "",
                "%.200s became shorter while it was read", path);
        else if (archive_write_data(p->archive, p->block, (size_t)got) != got)
            err = refuse_packing(p, path, fault);
        else
            n -= (uint64_t)got;
    }
    (void)close(fd);
    return err;
}

static enum err
pack_one(void *arg, const char *path, const char *below, const struct stat *st,
    struct fault *fault)
{
    struct packing *p = arg;
    bool folder = S_ISDIR(st->st_mode);
    archive_entry_clear(p->entry);
    archive_entry_set_pathname(p->entry, below);
    archive_entry_set_filetype(p->entry, folder ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(p->entry, folder ? 0755 : 0644);
    archive_entry_set_size(p->entry, folder ? 0 : st->st_size);
    if (archive_write_header(p->archive, p->entry) != ARCHIVE_OK)
        return refuse_packing(p, path, fault);
    enum err err =
        folder ? OK : pack_data(p, path, (uint64_t)st->st_size, fault);
    if (err == OK && archive_write_finish_entry(p->archive) != ARCHIVE_OK)
        err = refuse_packing(p, path, fault);
    return err;
}

static enum err
pack_entries(struct packing *p, const char *dir, struct fault *fault)
{
    struct walking w = {.each = pack_one, .arg = p, .fault = fault};
    /* No padding at the end beyond tar's own: tarball_bytes counts on it. */
    if (archive_write_set_format_ustar(p->archive) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(p->archive, BLOCK) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(p->archive, 1) != ARCHIVE_OK ||
        archive_write_open(p->archive, p, NULL, give_block, NULL) != ARCHIVE_OK)
        return refuse_packing(p, dir, fault);
    enum err err = walk(&w, dir, "", 0);
    if (err == OK && archive_write_close(p->archive) != ARCHIVE_OK)
        err = refuse_packing(p, dir, fault);
    return err;
}

enum err
tarball_pack(
    const char *dir, tarball_write_fn *write, void *arg, struct fault *fault)
{
    struct packing *p = mem_calloc(1, sizeof(*p));
    if (!p)
        return refuse_memory(fault);
    p->write = write;
    p->arg = arg;
    p->archive = archive_write_new();
    p->entry = archive_entry_new();
    enum err err = p->archive && p->entry ? pack_entries(p, dir, fault)
                                          : refuse_memory(fault);
    /* Closing gives the end of the stream, which a failed one has not. */
    p->err = err;
    if (p->archive)
        (void)archive_write_close(p->archive);
    (void)archive_write_free(p->archive);
    archive_entry_free(p->entry);
    mem_free(p);
    return err;
}

static enum err
count_one(void *arg, const char *path, const char *below, const struct stat *st,
    struct fault *fault)
{
    uint64_t *bytes = arg;
    uint64_t size = S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size;
    (void)path;
    (void)below;
    (void)fault;
    *bytes += TAR_BLOCK + (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    return OK;
}

enum err
tarball_bytes(const char *dir, uint64_t *bytes, struct fault *fault)
{
    uint64_t n = 2 * TAR_BLOCK; /* the end */
    struct walking w = {.each = count_one, .arg = &n, .fault = fault};
    enum err err = walk(&w, dir, "", 0);
    if (err == OK)
        *bytes = n;
    return err;
}

/* ---- removing ------------------------------------------------------------ */

/* at: the folder that name is in. */
static void
discard(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 &&
            strcmp(entry->d_name, "..") != 0 &&
            unlinkat(fd, entry->d_name, 0) != 0)
            discard(fd, entry->d_name);
    if (dir)
        (void)closedir(dir);
    else if (fd >= 0)
        (void)close(fd);
    (void)unlinkat(at, name, AT_REMOVEDIR);
}

void
tarball_discard(const char *dir)
{
    discard(AT_FDCWD, dir);
}
