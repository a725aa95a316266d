#include "base/fsio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/failpoint.h"

static _Atomic uint64_t fail_n;
static _Atomic uint64_t seen_n;

uint64_t
fsio_fail_at(uint64_t n)
{
    atomic_store(&fail_n, 0);
    uint64_t seen = atomic_exchange(&seen_n, 0);
    atomic_store(&fail_n, n);
    return seen;
}

static bool
must_fail(void)
{
    uint64_t at = atomic_load_explicit(&fail_n, memory_order_relaxed);

    if (at == 0 || atomic_fetch_add(&seen_n, 1) + 1 != at) {
        return false;
    }
    errno = EIO;
    return true;
}

/* The code and the sentence of a failed system call; errno is read first. */
static enum err
refuse(struct fault *fault, const char *step, const char *path)
{
    int number = errno;
    enum err err = ERR_IO;
    char words[128] = "";

    if (number == ENOSPC || number == EDQUOT) {
        err = ERR_FULL;
    } else if (number == ENOENT || number == ENOTDIR) {
        err = ERR_NOT_FOUND;
    } else if (number == ENOMEM) {
        err = ERR_NOMEM;
    }
    if (strerror_r(number, words, sizeof(words)) != 0) {
        snprintf(words, sizeof(words), "error %d", number);
    }
    return fault_set(fault, err, "", "cannot %s %s: %s", step, path, words);
}

static int
open_retry(const char *path, int flags, mode_t mode)
{
    int fd;

    do {
        fd = open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

enum err
fsio_read(const char *path, struct buf *out, struct fault *fault)
{
    size_t len_before = out->len;
    char block[16384];
    enum err err = OK;
    ssize_t n;
    int fd;

    fd = open_retry(path, O_RDONLY, 0);
    if (fd < 0) {
        return refuse(fault, "open", path);
    }
    while ((n = read(fd, block, sizeof(block))) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            err = refuse(fault, "read", path);
            break;
        }
        buf_add(out, block, (size_t)n);
        err = buf_status(out);
        if (err == ERR_TOO_LARGE) {
            fault_set(fault, err, "", "%s is larger than %zu bytes", path,
                out->max_bytes - len_before);
        }
        if (err != OK) {
            break;
        }
    }
    close(fd);
    if (err != OK) {
        out->len = len_before;
        out->err = OK;
        if (out->data != NULL) {
            out->data[len_before] = '\0';
        }
        if (err == ERR_NOMEM) {
            fault_set(fault, err, "", "out of memory while reading %s", path);
        }
    }
    return err;
}

static int
write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = must_fail() ? -1 : write(fd, p, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return -1;
        }
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* A failed fsync is not tried again: the kernel may have dropped the pages and
   would then answer that all is well. */
static int
sync_fd(int fd)
{
    return must_fail() ? -1 : fsync(fd);
}

/* The folder that holds path, in out. */
static enum err
parent_of(const char *path, char out[PATH_MAX], struct fault *fault)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);

    if (len + 2 > PATH_MAX) {
        return fault_set(fault, ERR_INVALID, "", "a path is too long");
    }
    if (slash == NULL) {
        out[0] = '.';
        len = 1;
    } else if (len == 0) {
        out[0] = '/';
        len = 1;
    } else {
        memcpy(out, path, len);
    }
    out[len] = '\0';
    return OK;
}

static enum err
sync_parent(const char *path, struct fault *fault)
{
    char dir[PATH_MAX];
    enum err err = parent_of(path, dir, fault);
    int fd;

    if (err != OK) {
        return err;
    }
    fd = open_retry(dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return refuse(fault, "open the folder", dir);
    }
    if (sync_fd(fd) != 0) {
        err = refuse(fault, "sync the folder", dir);
    }
    close(fd);
    return err;
}

struct fsio_out {
    int fd; /* < 0: closed */
    enum err err;
    char path[PATH_MAX];
    char beside[PATH_MAX];
};

enum err
fsio_out_open(struct fsio_out **out, const char *path, struct fault *fault)
{
    struct fsio_out *o = mem_alloc(1, sizeof(*o));
    int len, beside;

    if (o == NULL) {
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    o->err = OK;
    len = snprintf(o->path, sizeof(o->path), "%s", path);
    beside = snprintf(o->beside, sizeof(o->beside), "%s.tmp", path);
    if (len < 0 || beside < 0 || (size_t)beside >= sizeof(o->beside)) {
        mem_free(o);
        return fault_set(fault, ERR_INVALID, "", "a path is too long");
    }
    o->fd =
        open_retry(o->beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (o->fd < 0) {
        enum err err = refuse(fault, "create", o->beside);
        mem_free(o);
        return err;
    }
    *out = o;
    return OK;
}

enum err
fsio_out_write(
    struct fsio_out *o, const void *bytes, size_t n, struct fault *fault)
{
    if (o->err == OK && write_all(o->fd, bytes, n) != 0) {
        o->err = refuse(fault, "write", o->beside);
    }
    return o->err;
}

enum err
fsio_out_commit(struct fsio_out *o, struct fault *fault)
{
    if (o->err == OK && sync_fd(o->fd) != 0) {
        o->err = refuse(fault, "sync", o->beside);
    }
    int closed = close(o->fd);
    o->fd = -1;
    if (closed != 0 && o->err == OK) {
        o->err = refuse(fault, "close", o->beside);
    }
    failpoint("fsio-before-rename");
    if (o->err == OK && (must_fail() || rename(o->beside, o->path) != 0)) {
        o->err = refuse(fault, "rename", o->beside);
    }
    if (o->err != OK) {
        (void)unlink(o->beside);
        return o->err;
    }
    failpoint("fsio-after-rename");
    return sync_parent(o->path, fault);
}

void
fsio_out_free(struct fsio_out *o)
{
    if (o != NULL && o->fd >= 0) {
        close(o->fd);
        (void)unlink(o->beside);
    }
    mem_free(o);
}

enum err
fsio_write_atomic(
    const char *path, const void *bytes, size_t n, struct fault *fault)
{
    struct fsio_out *out = NULL;
    enum err err = fsio_out_open(&out, path, fault);

    if (err == OK) {
        err = fsio_out_write(out, bytes, n, fault);
    }
    if (err == OK) {
        err = fsio_out_commit(out, fault);
    }
    fsio_out_free(out);
    return err;
}

enum err
fsio_make_dir(const char *path, struct fault *fault)
{
    char part[PATH_MAX];
    size_t len = strlen(path);
    struct stat st;

    if (len == 0 || len >= sizeof(part)) {
        return fault_set(fault, ERR_INVALID, "",
            len == 0 ? "a path is empty" : "a path is too long");
    }
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0') {
            continue;
        }
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            return refuse(fault, "make the folder", part);
        }
        part[i] = path[i];
    }
    if (stat(path, &st) != 0) {
        return refuse(fault, "look at", path);
    }
    if (!S_ISDIR(st.st_mode)) {
        return fault_set(
            fault, ERR_EXISTS, "", "%s exists and is not a folder", path);
    }
    return OK;
}

static long
read_pid(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n <= 0) {
        return 0;
    }
    text[n] = '\0';
    return strtol(text, NULL, 10);
}

enum err
fsio_lock_dir(const char *dir, int *fd_out, struct fault *fault)
{
    char path[PATH_MAX];
    char pid[32];
    int fd, len;
    enum err err;

    len = snprintf(path, sizeof(path), "%s/lock", dir);
    if (len < 0 || (size_t)len >= sizeof(path)) {
        return fault_set(fault, ERR_INVALID, "", "a path is too long");
    }
    fd = open_retry(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return refuse(fault, "open", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            err = fault_set(fault, ERR_LOCKED, "",
                "the folder %s is in use by process %ld", dir, read_pid(fd));
        } else {
            err = refuse(fault, "lock", path);
        }
        close(fd);
        return err;
    }
    len = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || write_all(fd, pid, (size_t)len) != 0) {
        err = refuse(fault, "write", path);
        close(fd);
        return err;
    }
    *fd_out = fd;
    return OK;
}

void
fsio_unlock(int fd)
{
    if (fd >= 0) {
        /* The file stays: removing it would let two daemons lock two files of
           one name. */
        close(fd);
    }
}
