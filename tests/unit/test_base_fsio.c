/*
 * Goal: a file is read whole or refused, written whole or not at all, and a
 * folder belongs to one process.
 * Method: a temporary folder; the n-th write, fsync or rename fails, for each
 * n; locks from a second descriptor and a child process; failpoints where the
 * build has them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/failpoint.h"
#include "base/fsio.h"

static char dir[] = "/tmp/kindred-fsio-XXXXXX";
static char path[128];

static int
make_dir(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/file", dir);
    return 0;
}

static int
remove_dir(void **state)
{
    (void)state;
    static const char *const names[] = {
        "file", "file.tmp", "lock", "a/b/c", "a/b", "a", "plain"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char inside[160];
        snprintf(inside, sizeof(inside), "%s/%s", dir, names[i]);
        if (unlink(inside) != 0) {
            (void)rmdir(inside);
        }
    }
    return rmdir(dir);
}

static void
assert_holds(const char *want)
{
    struct buf buf;

    buf_init(&buf, 1 << 20);
    assert_int_equal(fsio_read(path, &buf, NULL), OK);
    assert_int_equal(buf.len, strlen(want));
    assert_memory_equal(buf.len == 0 ? "" : buf.data, want, buf.len);
    buf_release(&buf);
}

/* In pieces: nothing is seen before the commit, nothing stays without it. */
static void
test_pieces(void **state)
{
    (void)state;
    struct fsio_out *out = NULL;
    char beside[160];

    snprintf(beside, sizeof(beside), "%s.tmp", path);
    assert_int_equal(fsio_write_atomic(path, "old", 3, NULL), OK);
    assert_int_equal(fsio_out_open(&out, path, NULL), OK);
    assert_int_equal(fsio_out_write(out, "ne", 2, NULL), OK);
    assert_holds("old");
    fsio_out_free(out);
    assert_holds("old");
    assert_int_equal(access(beside, F_OK), -1);
    assert_int_equal(fsio_out_open(&out, path, NULL), OK);
    assert_int_equal(fsio_out_write(out, "ne", 2, NULL), OK);
    assert_int_equal(fsio_out_write(out, "w", 1, NULL), OK);
    assert_int_equal(fsio_out_commit(out, NULL), OK);
    fsio_out_free(out);
    assert_holds("new");
    /* the first failure stays */
    assert_int_equal(fsio_out_open(&out, path, NULL), OK);
    (void)fsio_fail_at(1);
    assert_int_equal(fsio_out_write(out, "x", 1, NULL), ERR_IO);
    (void)fsio_fail_at(0);
    assert_int_equal(fsio_out_write(out, "y", 1, NULL), ERR_IO);
    assert_int_equal(fsio_out_commit(out, NULL), ERR_IO);
    fsio_out_free(out);
    assert_int_equal(access(beside, F_OK), -1);
    assert_holds("new");
}

static void
test_write_and_read(void **state)
{
    (void)state;
    struct stat st;

    assert_int_equal(fsio_write_atomic(path, "one", 3, NULL), OK);
    assert_holds("one");
    assert_int_equal(fsio_write_atomic(path, "", 0, NULL), OK);
    assert_holds("");
    assert_int_equal(fsio_write_atomic(path, "three", 5, NULL), OK);
    assert_holds("three");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void
test_read_limits_and_faults(void **state)
{
    (void)state;
    struct buf buf;
    struct fault fault = {0};
    static char big[100000];

    memset(big, 'b', sizeof(big));
    assert_int_equal(fsio_write_atomic(path, big, sizeof(big), NULL), OK);
    buf_init(&buf, sizeof(big) + 1);
    buf_add_str(&buf, "x");
    assert_int_equal(fsio_read(path, &buf, &fault), OK);
    assert_int_equal(buf.len, sizeof(big) + 1);
    buf_release(&buf);

    buf_init(&buf, sizeof(big));
    buf_add_str(&buf, "x");
    assert_int_equal(fsio_read(path, &buf, &fault), ERR_TOO_LARGE);
    assert_int_equal(fault.err, ERR_TOO_LARGE);
    assert_string_equal(buf.data, "x"); /* as it was */
    assert_int_equal(buf_status(&buf), OK);

    assert_int_equal(
        fsio_read("/nonexistent/file", &buf, &fault), ERR_NOT_FOUND);
    assert_non_null(strstr(fault.detail, "/nonexistent/file"));
    assert_int_equal(fsio_read(dir, &buf, &fault), ERR_IO);
    uint64_t n = 0;
    enum err err;
    do {
        alloc_fail_at(++n);
        buf_release(&buf);
        buf_init(&buf, sizeof(big));
        err = fsio_read(path, &buf, NULL);
        alloc_fail_at(0);
        assert_true(err == OK || (err == ERR_NOMEM && buf.len == 0));
    } while (err != OK);
    assert_true(n > 2);
    buf_release(&buf);
}

static void
test_a_failed_write_changes_nothing(void **state)
{
    (void)state;
    char beside[160];
    uint64_t n = 0;
    enum err err;

    snprintf(beside, sizeof(beside), "%s.tmp", path);
    do {
        struct fault fault = {0};
        assert_int_equal(fsio_write_atomic(path, "old", 3, NULL), OK);
        fsio_fail_at(++n);
        err = fsio_write_atomic(path, "new", 3, &fault);
        uint64_t seen = fsio_fail_at(0);
        assert_int_not_equal(access(beside, F_OK), 0);
        if (err == OK) {
            assert_holds("new");
        } else {
            assert_int_equal(err, ERR_IO);
            assert_int_equal(fault.err, ERR_IO);
            assert_int_equal(seen, n);
            /* Only the folder's own sync comes after the rename. */
            assert_holds(n == 4 ? "new" : "old");
        }
    } while (err != OK);
    assert_int_equal(n, 5); /* write, fsync, rename, the folder's fsync */
}

static void
test_a_full_disk(void **state)
{
    (void)state;
    struct fault fault = {0};

    /* /dev/full answers every write so; the name of its neighbour must be
       writable, hence a link. */
    char beside[160];
    snprintf(beside, sizeof(beside), "%s.tmp", path);
    assert_int_equal(symlink("/dev/full", beside), 0);
    enum err err = fsio_write_atomic(path, "x", 1, &fault);
    assert_int_equal(err, ERR_IO); /* a link is not followed */
    unlink(beside);
    assert_int_equal(
        fsio_write_atomic("/nonexistent/x", "x", 1, &fault), ERR_NOT_FOUND);
}

static void
test_folders(void **state)
{
    (void)state;
    char deep[160], plain[160];
    struct fault fault = {0};
    struct stat st;

    snprintf(deep, sizeof(deep), "%s/a/b/c", dir);
    assert_int_equal(fsio_make_dir(deep, &fault), OK);
    assert_int_equal(fsio_make_dir(deep, &fault), OK);
    assert_int_equal(stat(deep, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(deep, sizeof(deep), "%s/a//b/", dir);
    assert_int_equal(fsio_make_dir(deep, &fault), OK);
    snprintf(plain, sizeof(plain), "%s/plain", dir);
    assert_int_equal(fsio_write_atomic(plain, "", 0, NULL), OK);
    assert_int_equal(fsio_make_dir(plain, &fault), ERR_EXISTS);
    snprintf(plain, sizeof(plain), "%s/plain/below", dir);
    assert_true(fsio_make_dir(plain, &fault) != OK);
    assert_int_equal(fsio_make_dir("", &fault), ERR_INVALID);
}

static void
test_the_lock(void **state)
{
    (void)state;
    struct fault fault = {0};
    char pid[32];
    int fd = -1, other = -1, status;

    assert_int_equal(fsio_lock_dir(dir, &fd, &fault), OK);
    assert_int_equal(fsio_lock_dir(dir, &other, &fault), ERR_LOCKED);
    snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    assert_non_null(strstr(fault.detail, pid));
    assert_int_equal(other, -1);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct fault f = {0};
        _exit(fsio_lock_dir(dir, &other, &f) == ERR_LOCKED &&
                      strstr(f.detail, pid) != NULL
                  ? 0
                  : 1);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    fsio_unlock(fd);
    assert_int_equal(fsio_lock_dir(dir, &fd, &fault), OK);
    fsio_unlock(fd);
    fsio_unlock(-1);
    assert_int_equal(fsio_lock_dir("/nonexistent", &fd, &fault), ERR_NOT_FOUND);
}

static void
test_failpoints(void **state)
{
    (void)state;
#ifndef KINDRED_FAILPOINTS
    failpoint("anything"); /* is nothing */
#else
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        /* A new process, because the environment is read once. */
        setenv("KINDRED_FAILPOINT", "third:3", 1);
        execl("/proc/self/exe", "test", path, (char *)NULL);
        _exit(3);
    }
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_holds("alive");
#endif
}

#ifdef KINDRED_FAILPOINTS
/* The child of test_failpoints: dies by SIGKILL between two writes. */
static int
pass_failpoints(const char *file)
{
    failpoint("other");
    failpoint("third");
    failpoint("third");
    failpoint("other");
    if (fsio_write_atomic(file, "alive", 5, NULL) != OK) {
        return 1;
    }
    failpoint("third");
    return fsio_write_atomic(file, "too late", 8, NULL) == OK ? 2 : 1;
}
#endif

int
main(int argc, char **argv)
{
#ifdef KINDRED_FAILPOINTS
    if (argc == 2) {
        return pass_failpoints(argv[1]);
    }
#else
    (void)argc;
    (void)argv;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_and_read),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_read_limits_and_faults),
        cmocka_unit_test(test_a_failed_write_changes_nothing),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_the_lock),
        cmocka_unit_test(test_failpoints),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
