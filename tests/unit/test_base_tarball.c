/*
 * Goal: a folder goes into a stream and comes out the same; what is no folder
 *   of files, and what is over a limit, is refused by name; nothing is written
 *   outside the folder.
 * Method: folders made here, packed and unpacked; streams made byte by byte,
 *   each with one thing wrong; limits from both sides; the n-th allocation
 *   fails, for each n.
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

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fsio.h"
#include "base/tarball.h"

static char base[64];
static char from[96];
static char to[96];

static int
setup(void **state)
{
    (void)state;
    snprintf(base, sizeof(base), "/tmp/kindred-tar-XXXXXX");
    if (!mkdtemp(base))
        return -1;
    snprintf(from, sizeof(from), "%s/from", base);
    snprintf(to, sizeof(to), "%s/to", base);
    return mkdir(from, 0755) + mkdir(to, 0755);
}

static int
teardown(void **state)
{
    (void)state;
    tarball_discard(base);
    return access(base, F_OK) == 0;
}

static void
empty_to(void)
{
    tarball_discard(to);
    assert_int_equal(mkdir(to, 0755), 0);
}

static const char *
in(const char *dir, const char *name)
{
    static char path[2][4096];
    static int turn;
    turn ^= 1;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

static void
put(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(in(from, name), "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void
assert_file(const char *name, const char *text, size_t n)
{
    struct buf got;
    struct stat st;
    buf_init(&got, 1 << 20);
    assert_int_equal(fsio_read(in(to, name), &got, NULL), OK);
    assert_int_equal(got.len, n);
    if (n > 0)
        assert_memory_equal(got.data, text, n);
    buf_release(&got);
    assert_int_equal(lstat(in(to, name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

/* ---- streams byte by byte ------------------------------------------------ */

struct entry {
    const char *name;
    char type;        /* '0' file, '5' folder, '1' '2' links, '3' device */
    const char *data; /* NULL: none */
    const char *link;
    uint64_t size; /* claimed; 0: that of data */
};

static void
add_entry(struct buf *tar, const struct entry *e)
{
    char head[512];
    size_t n = e->data ? strlen(e->data) : 0;
    unsigned long long size = e->size ? e->size : n;
    unsigned sum = 0;
    memset(head, 0, sizeof(head));
    strncpy(head, e->name, 100);
    memcpy(head + 100,
        "0000644\0"
        "0000000\0"
        "0000000",
        24);
    (void)snprintf(head + 124, 12, "%011llo", size);
    memcpy(head + 136, "00000000000", 12);
    memset(head + 148, ' ', 8);
    head[156] = e->type;
    if (e->link)
        strncpy(head + 157, e->link, 100);
    memcpy(head + 257,
        "ustar\0"
        "00",
        8);
    for (size_t i = 0; i < sizeof(head); i++)
        sum += (unsigned char)head[i];
    (void)snprintf(head + 148, 8, "%06o", sum);
    buf_add(tar, head, sizeof(head));
    static const char zeros[512];
    buf_add(tar, e->data, n);
    if (n % 512 != 0)
        buf_add(tar, zeros, 512 - n % 512);
}

static void
add_end(struct buf *tar)
{
    static const char zeros[1024];
    buf_add(tar, zeros, sizeof(zeros));
}

static enum err
unpack(const struct buf *tar, uint64_t bytes_max, struct fault *fault)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(fwrite(tar->data, 1, tar->len, f), tar->len);
    assert_int_equal(fflush(f), 0);
    rewind(f);
    assert_int_equal(lseek(fileno(f), 0, SEEK_SET), 0);
    memset(fault, 0, sizeof(*fault));
    enum err err = tarball_unpack(fileno(f), to, bytes_max, fault);
    assert_int_equal(fault->err, err);
    fclose(f);
    return err;
}

static enum err
unpack_entries(
    const struct entry *entries, uint64_t bytes_max, struct fault *fault)
{
    struct buf tar;
    buf_init(&tar, 1 << 22);
    for (size_t i = 0; entries[i].name; i++)
        add_entry(&tar, &entries[i]);
    add_end(&tar);
    assert_int_equal(buf_status(&tar), OK);
    empty_to();
    enum err err = unpack(&tar, bytes_max, fault);
    buf_release(&tar);
    return err;
}

/* ---- there and back ------------------------------------------------------ */

static enum err
collect(void *arg, const void *bytes, size_t n)
{
    buf_add(arg, bytes, n);
    return buf_status(arg);
}

static void
test_there_and_back(void **state)
{
    (void)state;
    static char large[70001];
    struct buf tar, again;
    struct fault fault;
    struct stat st;
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof(large); i++)
        large[i] = (char)(i * 7 + i / 512);
    put("config.json", "{}", 2);
    put("empty", "", 0);
    put("model.safetensors", large, sizeof(large));
    put(".hidden", "no", 2);
    assert_int_equal(mkdir(in(from, "1_Pooling"), 0755), 0);
    assert_int_equal(mkdir(in(from, "2_Normalize"), 0755), 0);
    assert_int_equal(mkdir(in(from, ".git"), 0755), 0);
    put("1_Pooling/config.json", "{\"a\":1}", 7);
    assert_int_equal(symlink("../config.json", in(from, "1_Pooling/link")), 0);
    assert_int_equal(chmod(in(from, "empty"), 0777), 0);
    buf_init(&tar, 1 << 20);
    buf_init(&again, 1 << 20);
    assert_int_equal(tarball_pack(from, collect, &tar, &fault), OK);
    assert_int_equal(tarball_pack(from, collect, &again, &fault), OK);
    assert_int_equal(tar.len, again.len);
    assert_memory_equal(tar.data, again.data, tar.len);
    assert_int_equal(tarball_bytes(from, &bytes, &fault), OK);
    assert_int_equal(bytes, tar.len);
    /* By name: a folder and what is in it, a file of two bytes, an empty one.
     */
    assert_string_equal(tar.data, "1_Pooling/");
    assert_string_equal(tar.data + 512, "1_Pooling/config.json");
    assert_string_equal(tar.data + 5 * 512, "2_Normalize/");
    assert_string_equal(tar.data + 6 * 512, "config.json");
    assert_string_equal(tar.data + 8 * 512, "empty");

    assert_int_equal(unpack(&tar, 1 << 20, &fault), OK);
    assert_file("config.json", "{}", 2);
    assert_file("empty", "", 0);
    assert_file("model.safetensors", large, sizeof(large));
    assert_file("1_Pooling/config.json", "{\"a\":1}", 7);
    assert_file("1_Pooling/link", "{}", 2);
    assert_int_equal(access(in(to, ".hidden"), F_OK), -1);
    assert_int_equal(access(in(to, ".git"), F_OK), -1);
    assert_int_equal(lstat(in(to, "2_Normalize"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    buf_release(&tar);
    buf_release(&again);
}

static void
test_one_folder_around(void **state)
{
    (void)state;
    struct fault fault;
    /* Its files may be called as it is, and as it is called meanwhile. */
    const struct entry wrapped[] = {{"./", '5', NULL, NULL, 0},
        {"./m/", '5', NULL, NULL, 0}, {"m/config.json", '0', "{}", NULL, 0},
        {"m/m", '0', "x", NULL, 0}, {"m/0/a", '0', "y", NULL, 0},
        {"m/1/b/c/d", '0', "z", NULL, 0}, {".DS_Store", '0', "h", NULL, 0},
        {"._m", '0', "h", NULL, 0}, {"m/._config.json", '0', "h", NULL, 0},
        {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(wrapped, 100, &fault), OK);
    assert_file("config.json", "{}", 2);
    assert_file("m", "x", 1);
    assert_file("0/a", "y", 1);
    assert_file("1/b/c/d", "z", 1);
    assert_int_equal(access(in(to, "._config.json"), F_OK), -1);
    const struct entry numbered[] = {
        {"0/a", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(numbered, 100, &fault), OK);
    assert_file("a", "x", 1);
    const struct entry two[] = {{"m/a", '0', "x", NULL, 0},
        {"n/a", '0', "y", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(two, 100, &fault), OK);
    assert_file("m/a", "x", 1);
    assert_file("n/a", "y", 1);
    const struct entry file[] = {
        {"m", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(file, 100, &fault), OK);
    assert_file("m", "x", 1);
    const struct entry none[] = {{NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(none, 100, &fault), OK);
}

/* A name in a pax header, beyond ASCII. */
static void
test_pax_names(void **state)
{
    (void)state;
    struct fault fault;
    const struct entry entries[] = {{"x", 'x',
                                        "16 path=gr\xc3\xb6\xc3\x9f"
                                        "e\n",
                                        NULL, 0},
        {"plain", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(entries, 100, &fault), OK);
    assert_file("gr\xc3\xb6\xc3\x9f"
                "e",
        "x", 1);
}

/* ---- refusals ------------------------------------------------------------ */

static void
test_refused_entries(void **state)
{
    (void)state;
    static const struct {
        struct entry entries[3];
        const char *says;
    } cases[] = {
        {{{"/etc/x", '0', "x", NULL, 0}}, "/etc/x: the path is absolute"},
        {{{"a/../../x", '0', "x", NULL, 0}}, "a/../../x: the path has .."},
        {{{"..", '5', NULL, NULL, 0}}, "..: the path has .."},
        {{{"l", '2', NULL, "/etc", 0}, {"l/x", '0', "x", NULL, 0}},
            "l is a symbolic link"},
        {{{"a", '0', "x", NULL, 0}, {"h", '1', NULL, "a", 0}},
            "h is a hard link"},
        {{{"dev", '3', NULL, NULL, 0}}, "dev is a device"},
        {{{"block", '4', NULL, NULL, 0}}, "block is a device"},
        {{{"pipe", '6', NULL, NULL, 0}}, "pipe is a pipe"},
        {{{"a", '0', "x", NULL, 0}, {"./a", '0', "y", NULL, 0}},
            "a: the path occurs twice"},
        {{{"a", '0', "x", NULL, 0}, {"a/b", '0', "y", NULL, 0}},
            "a: the path occurs twice"},
        {{{"a/b", '0', "x", NULL, 0}, {"a", '0', "y", NULL, 0}},
            "a: the path occurs twice"},
        {{{"p", 'x', "22 GNU.sparse.size=99\n24 GNU.sparse.map=0,2\n", NULL, 0},
             {"a", '0', "xy", NULL, 0}},
            "a is a sparse file"},
        {{{"p", 'x', "26 GNU.sparse.map=0,1,9,1\n", NULL, 0},
             {"a", '0', "xy", NULL, 0}},
            "a is a sparse file"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fault fault;
        enum err err = unpack_entries(cases[i].entries, 100, &fault);
        if (err != ERR_INVALID || !strstr(fault.detail, cases[i].says))
            print_error("%s: %d %s\n", cases[i].says, (int)err, fault.detail);
        assert_int_equal(err, ERR_INVALID);
        assert_non_null(strstr(fault.detail, cases[i].says));
    }
    /* Longer than any path that is taken, through a pax header. */
    char pax[1200] = "1111 path=";
    memset(pax + 10, 'b', 1100);
    pax[1110] = '\n';
    const struct entry longer[] = {{"x", 'x', pax, NULL, 0},
        {"a", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    struct fault fault;
    assert_int_equal(unpack_entries(longer, 100, &fault), ERR_INVALID);
    assert_non_null(strstr(fault.detail, "longer than"));
}

static void
test_refused_streams(void **state)
{
    (void)state;
    struct fault fault;
    struct buf tar;
    buf_init(&tar, 1 << 20);
    static const char gzip[] = "\x1f\x8b\x08\0\0\0\0\0\0\3abcdefghijklmnopqrst";
    static const char *const texts[] = {"", "hello", "PK\3\4zip", gzip};
    for (size_t i = 0; i < 4; i++) {
        buf_clear(&tar);
        buf_add(&tar, texts[i], i == 3 ? sizeof(gzip) : strlen(texts[i]));
        empty_to();
        assert_int_equal(unpack(&tar, 100, &fault), ERR_INVALID);
        assert_non_null(strstr(fault.detail, "no whole tar"));
    }
    /* Cut anywhere inside an entry; the marks of the end may be missing. */
    const struct entry one = {"a", '0', "hello", NULL, 0};
    const struct entry two = {"b", '0', "world", NULL, 0};
    buf_clear(&tar);
    add_entry(&tar, &one);
    add_entry(&tar, &two);
    static const size_t cuts[] = {100, 511, 512, 514, 1100, 1536, 1540};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct buf cut = tar;
        cut.len = cuts[i];
        empty_to();
        if (unpack(&cut, 100, &fault) != ERR_INVALID)
            print_error("cut at %zu\n", cuts[i]);
        assert_int_equal(fault.err, ERR_INVALID);
    }
    tar.data[3] = 'x'; /* the sum is wrong */
    empty_to();
    assert_int_equal(unpack(&tar, 100, &fault), ERR_INVALID);
    buf_release(&tar);
    assert_int_equal(tarball_unpack(-1, to, 100, &fault), ERR_IO);
    assert_int_equal(
        tarball_unpack(0, in(base, "none"), 100, &fault), ERR_NOT_FOUND);
}

static enum err
unpack_many(size_t n, struct fault *fault)
{
    struct buf tar;
    buf_init(&tar, 1 << 22);
    for (size_t i = 0; i < n; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "f%zu", i);
        const struct entry e = {name, '0', NULL, NULL, 0};
        add_entry(&tar, &e);
        (void)snprintf(name, sizeof(name), ".h%zu", i);
        add_entry(&tar, &e);
    }
    add_end(&tar);
    empty_to();
    enum err err = unpack(&tar, 0, fault);
    buf_release(&tar);
    return err;
}

static void
test_limits(void **state)
{
    (void)state;
    struct fault fault;
    const struct entry two[] = {{"a", '0', "hello", NULL, 0},
        {"b", '0', "world", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(two, 10, &fault), OK);
    assert_int_equal(unpack_entries(two, 9, &fault), ERR_TOO_LARGE);
    assert_non_null(strstr(fault.detail, "b: "));
    const struct entry claims[] = {
        {"a", '0', "hello", NULL, 1ULL << 32}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(
        unpack_entries(claims, (1ULL << 32) - 1, &fault), ERR_TOO_LARGE);
    assert_int_equal(unpack_many(TARBALL_ENTRIES_MAX, &fault), OK);
    assert_int_equal(
        unpack_many(TARBALL_ENTRIES_MAX + 1, &fault), ERR_TOO_LARGE);
    const struct entry deep[] = {{"a/b/c/d", '0', "x", NULL, 0},
        {"e", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(deep, 10, &fault), OK);
    const struct entry deeper[] = {{"a/b/c/d/e", '0', "x", NULL, 0},
        {"e", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(deeper, 10, &fault), ERR_TOO_LARGE);
    const struct entry around[] = {
        {"a/b/c/d/e", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(around, 10, &fault), OK);
    const struct entry deepest[] = {
        {"a/b/c/d/e/f", '0', "x", NULL, 0}, {NULL, 0, NULL, NULL, 0}};
    assert_int_equal(unpack_entries(deepest, 10, &fault), ERR_TOO_LARGE);
}

/* ---- packing's refusals -------------------------------------------------- */

static enum err
full(void *arg, const void *bytes, size_t n)
{
    size_t *left = arg;
    (void)bytes;
    if (n > *left)
        return ERR_FULL;
    *left -= n;
    return OK;
}

static void
test_pack_refusals(void **state)
{
    (void)state;
    struct fault fault = {0};
    size_t left = 70000;
    uint64_t bytes = 7;
    static char large[200000];
    assert_int_equal(
        tarball_pack(in(base, "none"), full, &left, &fault), ERR_NOT_FOUND);
    put("large", large, sizeof(large));
    assert_int_equal(tarball_pack(from, full, &left, &fault), ERR_FULL);

    assert_int_equal(symlink("nowhere", in(from, "z")), 0);
    left = SIZE_MAX;
    assert_int_equal(tarball_pack(from, full, &left, &fault), ERR_NOT_FOUND);
    assert_non_null(strstr(fault.detail, "from/z"));
    assert_int_equal(tarball_bytes(from, &bytes, &fault), ERR_NOT_FOUND);
    assert_int_equal(bytes, 7);
    assert_int_equal(unlink(in(from, "z")), 0);

    assert_int_equal(mkfifo(in(from, "z"), 0600), 0);
    assert_int_equal(tarball_pack(from, full, &left, &fault), ERR_INVALID);
    assert_non_null(strstr(fault.detail, "neither a file nor a folder"));
    assert_int_equal(unlink(in(from, "z")), 0);

    /* A link that leads up ends at the depth. */
    assert_int_equal(symlink(".", in(from, "z")), 0);
    assert_int_equal(tarball_pack(from, full, &left, &fault), ERR_TOO_LARGE);
    assert_non_null(strstr(fault.detail, "nested"));
    assert_int_equal(unlink(in(from, "z")), 0);

    for (size_t i = 0; i < TARBALL_ENTRIES_MAX - 1; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "f%zu", i);
        put(name, "", 0);
    }
    assert_int_equal(tarball_pack(from, full, &left, &fault), OK);
    put("one-more", "", 0);
    assert_int_equal(tarball_pack(from, full, &left, &fault), ERR_TOO_LARGE);
}

static void
test_no_memory(void **state)
{
    (void)state;
    struct fault fault;
    struct buf tar;
    put("a", "hello", 5);
    assert_int_equal(mkdir(in(from, "b"), 0755), 0);
    put("b/c", "world", 5);
    enum err err = ERR_NOMEM;
    uint64_t n = 0;
    while (err != OK) {
        size_t left = SIZE_MAX;
        alloc_fail_at(++n);
        err = tarball_pack(from, full, &left, &fault);
        (void)alloc_fail_at(0);
        assert_true(err == OK || err == ERR_NOMEM);
    }
    assert_true(n > 5);
    buf_init(&tar, 1 << 20);
    assert_int_equal(tarball_pack(from, collect, &tar, &fault), OK);
    for (err = ERR_NOMEM, n = 0; err != OK;) {
        empty_to();
        FILE *f = tmpfile();
        assert_non_null(f);
        assert_int_equal(fwrite(tar.data, 1, tar.len, f), tar.len);
        rewind(f);
        alloc_fail_at(++n);
        err = tarball_unpack(fileno(f), to, 100, &fault);
        (void)alloc_fail_at(0);
        fclose(f);
        assert_true(err == OK || err == ERR_NOMEM);
    }
    assert_true(n > 1);
    buf_release(&tar);
}

static void
test_discard(void **state)
{
    (void)state;
    put("keep", "x", 1);
    assert_int_equal(mkdir(in(to, "a"), 0755), 0);
    assert_int_equal(mkdir(in(to, "a/.b"), 0755), 0);
    assert_int_equal(symlink(from, in(to, "a/.b/link")), 0);
    tarball_discard(to);
    assert_int_equal(access(to, F_OK), -1);
    assert_int_equal(access(in(from, "keep"), F_OK), 0);
    tarball_discard(to);
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {CASE(test_there_and_back),
        CASE(test_one_folder_around), CASE(test_pax_names),
        CASE(test_refused_entries), CASE(test_refused_streams),
        CASE(test_limits), CASE(test_pack_refusals), CASE(test_no_memory),
        CASE(test_discard)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
