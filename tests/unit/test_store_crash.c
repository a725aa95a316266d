/*
 * Goal: after kill -9 at any moment every acknowledged operation is there
 * whole, none is there in part, and every rule of the file holds; a full
 * disk refuses writes, keeps reads, and is left behind when space returns.
 * Method: a forked child ingests, retrains (in outline), switches and deletes,
 * and tells the parent through a pipe what was acknowledged; the parent kills
 * it at a random time (or a failpoint does), opens the folder again and
 * compares. KINDRED_TIER=full does 200 cycles. The disk is a small tmpfs, which
 * only root can mount; else that test is skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "store/db.h"
#include "store/encoders.h"
#include "store/purge.h"
#include "store/weights.h"
#include "tests/support/store_kit.h"

#define BATCH 7

/* What the child reports, each after its acknowledgement. */
struct report {
    char what; /* 'i': batch n is in; 'd': batch n lost its item 0;
                  'g': generation n is live */
    int n;
};

static void
tell(int fd, char what, int n)
{
    struct report report = {.what = what, .n = n};

    if (write(fd, &report, sizeof(report)) != (ssize_t)sizeof(report)) {
        _exit(3);
    }
}

static void
must(bool ok)
{
    if (!ok) {
        _exit(2);
    }
}

static enum err
create_encoder(struct db *db, void *arg)
{
    struct encoder_facts facts = {.name = store_text_of("e"),
        .family = store_text_of("transformer"),
        .config = store_text_of("{}"),
        .dims = KIT_DIMS};

    return encoders_create(db, &facts, 1, arg);
}

static enum err
delete_encoder(struct db *db, void *arg)
{
    int64_t collection;

    return encoders_delete(db, *(const int64_t *)arg, &collection);
}

static enum err
discard_encoders(struct db *db, void *arg)
{
    (void)arg;
    return encoders_discard_partial(db);
}

static void
run_import(struct kit *kit, const char *bytes, size_t n)
{
    struct weights_writer *writer = NULL;
    int64_t id = 0;

    must(store_run(kit->store, create_encoder, &id) == OK);
    must(encoder_weights_create(&writer, kit->store, id) == OK);
    must(weights_add(writer, bytes, n) == OK);
    must(weights_finish(writer, NULL) == OK);
    must(store_run(kit->store, delete_encoder, &id) == OK);
}

/* A round in outline: weights, backfill, switch, purge; and an import. */
static void
run_round(struct kit *kit, int fd, uint8_t fingerprint)
{
    static char bytes[2 * WEIGHTS_CHUNK_BYTES + 99];
    int64_t id, number, space;

    run_import(kit, bytes, sizeof(bytes));

    kit_make_generation(kit, fingerprint, &id, &number, &space);
    must(weights_save(kit->store, id, bytes, sizeof(bytes)) == OK);
    (void)kit_backfill(kit, space);
    must(kit_publish(kit, number, kit->generation) == OK);
    kit->space = space;
    kit->generation = number;
    tell(fd, 'g', (int)number);
    must(purge_run(kit->store, NULL, NULL) == OK);
}

/* Never returns: writes until it is killed. */
static void
child(const char *dir, int fd)
{
    struct store_options options = {.checkpoint_pages = 64};
    struct kit kit = {0};
    struct fault fault;

    arena_init(&kit.arena, 1 << 20);
    snprintf(kit.dir, sizeof(kit.dir), "%s", dir);
    must(store_open(&kit.store, dir, &options, &fault) == OK);
    kit_make_collection(&kit, "c");
    for (int n = 0; n < 100000; n++) {
        char prefix[24], id[32];
        snprintf(prefix, sizeof(prefix), "b%d-", n);
        must(kit_put_items(&kit, prefix, BATCH, 1, true) == OK);
        tell(fd, 'i', n);
        if (n % 3 == 2) {
            snprintf(id, sizeof(id), "b%d-0", n - 1);
            must(kit_delete_item(&kit, id) == OK);
            tell(fd, 'd', n - 1);
        }
        if (n % 10 == 9) {
            run_round(&kit, fd, (uint8_t)(2 + n / 10 % 200));
        }
    }
    _exit(0);
}

/* Start a child; kill it after delay_ms (-1: wait for its own end). */
static size_t
run_child(const char *dir, const char *failpoint, int delay_ms,
    struct report *reports, size_t max)
{
    char fd_text[16];
    int fds[2], status = 0;
    size_t n = 0;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        if (failpoint != NULL) {
            setenv("KINDRED_FAILPOINT", failpoint, 1);
        }
        /* A fresh process: what this one knows of failpoints is not its. */
        snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
        execl("/proc/self/exe", "test_store_crash", "--child", dir, fd_text,
            (char *)NULL);
        _exit(4);
    }
    close(fds[1]);
    if (delay_ms >= 0) {
        clock_sleep_ms(delay_ms);
        kill(pid, SIGKILL);
    }
    while (n < max && read(fds[0], &reports[n], sizeof(*reports)) ==
                          (ssize_t)sizeof(*reports)) {
        n++;
    }
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    /* Killed, not ended by a failure of its own. */
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return n;
}

static int64_t
find_item(struct db *db, int64_t collection, int batch, int i)
{
    struct item_row row;
    char id[32];
    struct store_text text;

    snprintf(id, sizeof(id), "b%d-%d", batch, i);
    text = store_text_of(id);
    assert_int_equal(items_find(db, collection, &text, 1, &row), OK);
    return row.item;
}

static enum err
note_encoder(void *ctx, const struct encoder_row *row)
{
    *(int64_t *)ctx = row->id;
    return OK;
}

/* Rows of encoders that no name finds. */
static int64_t
count_half_made(struct store *store)
{
    static const struct store_text first = {.s = NULL};
    int64_t rows = 0, named = 0;
    struct db *db = NULL;

    assert_int_equal(store_read_begin(store, &db), OK);
    assert_int_equal(
        db_get_int(db, "SELECT count(*) FROM encoders", &rows), OK);
    assert_int_equal(encoders_list(db, first, 9, note_encoder, &named), OK);
    store_read_end(store, db);
    return rows - (named != 0);
}

static void
verify(const char *dir, const struct report *reports, size_t n)
{
    struct collection_row row = {0};
    struct kit kit = {0};
    struct fault fault = {0};
    struct db *db = NULL;
    int last_batch = -1, live = 0;
    bool deleted[4096] = {false};

    arena_init(&kit.arena, 1 << 20);
    if (store_open(&kit.store, dir, NULL, &fault) != OK) {
        fail_msg("%s", fault.detail);
    }
    if (store_check(kit.store, &fault) != OK) {
        fail_msg("%s", fault.detail);
    }
    for (size_t i = 0; i < n; i++) {
        switch (reports[i].what) {
        case 'i':
            last_batch = reports[i].n;
            break;
        case 'd':
            assert_true(reports[i].n < 4096);
            deleted[reports[i].n] = true;
            break;
        default:
            live = reports[i].n;
        }
    }
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    enum err err = collections_find(db, store_text_of("c"), &kit.arena, &row);
    if (n == 0 && err == ERR_NOT_FOUND) {
        goto out;
    }
    assert_int_equal(err, OK);
    assert_true(row.live_generation == live ||
                row.live_generation == live + 1 || live == 0);
    for (int b = 0; b <= last_batch; b++) {
        /* The deletion after the last report may or may not be there. */
        bool may_be_gone = b >= last_batch - 2;
        for (int i = 0; i < BATCH; i++) {
            bool there = find_item(db, row.id, b, i) != 0;
            if (i == 0 && deleted[b]) {
                assert_false(there);
            } else if (!(i == 0 && may_be_gone)) {
                assert_true(there);
            }
        }
    }
    /* A batch that was not acknowledged is there whole or not at all. */
    int n_there = 0;
    for (int i = 0; i < BATCH; i++) {
        n_there += find_item(db, row.id, last_batch + 1, i) != 0;
    }
    assert_true(n_there == 0 || n_there == BATCH);
    assert_int_equal(find_item(db, row.id, last_batch + 2, 0), 0);
out:
    store_read_end(kit.store, db);
    /* What was half-made can be cleared away. */
    assert_int_equal(store_run(kit.store, discard_encoders, NULL), OK);
    assert_int_equal(purge_run(kit.store, NULL, NULL), OK);
    assert_int_equal(count_half_made(kit.store), 0);
    if (store_check(kit.store, &fault) != OK) {
        fail_msg("%s", fault.detail);
    }
    store_close(kit.store);
    arena_release(&kit.arena);
}

static struct report reports[16384];

static void
test_kill(void **state)
{
    const char *tier = getenv("KINDRED_TIER");
    int cycles = tier != NULL && strcmp(tier, "full") == 0 ? 200 : 12;
    size_t n_reports = 0;
    struct rng rng;
    (void)state;

    rng_seed(&rng, 11);
    for (int c = 0; c < cycles; c++) {
        char dir[128];
        kit_make_dir(dir, sizeof(dir));
        size_t n = run_child(dir, NULL, (int)rng_below(&rng, 150), reports,
            sizeof(reports) / sizeof(reports[0]));
        verify(dir, reports, n);
        n_reports += n;
        kit_remove_dir(dir);
    }
    assert_true(n_reports > 0);
}

static void
test_kill_at_failpoints(void **state)
{
    (void)state;
#ifdef KINDRED_FAILPOINTS
    static const char *const POINTS[] = {"store_before_commit:1",
        "store_before_commit:2", "store_before_commit:30",
        "store_after_commit:1", "store_after_commit:31", "store_publish:1",
        "store_publish:2", "store_publish:3", "store_weights_chunk:1",
        "store_weights_chunk:2", "store_weights_chunk:3",
        "store_weights_chunk:5", "store_reembed_commit:1",
        "store_reembed_commit:3"};

    for (size_t i = 0; i < sizeof(POINTS) / sizeof(POINTS[0]); i++) {
        char dir[128];
        kit_make_dir(dir, sizeof(dir));
        size_t n = run_child(
            dir, POINTS[i], -1, reports, sizeof(reports) / sizeof(reports[0]));
        verify(dir, reports, n);
        kit_remove_dir(dir);
    }
#else
    print_message("SKIPPED: built without -DKINDRED_FAILPOINTS\n");
    skip();
#endif
}

static void
test_small_tmpfs(void **state)
{
    struct store_options options = {.checkpoint_pages = 64};
    char dir[128], filler[160];
    struct kit kit = {0};
    struct fault fault = {0};
    struct store_stats stats;
    int64_t n = 0, n_before = 0;
    enum err err = OK;
    FILE *f;
    (void)state;

    kit_make_dir(dir, sizeof(dir));
    if (mount("none", dir, "tmpfs", 0, "size=12m") != 0) {
        print_message("SKIPPED: cannot mount a tmpfs (needs root)\n");
        kit_remove_dir(dir);
        skip();
    }
    snprintf(filler, sizeof(filler), "%s/filler", dir);
    f = fopen(filler, "w");
    for (int i = 0; i < 4 << 20; i++) {
        fputc('x', f);
    }
    fclose(f);
    arena_init(&kit.arena, 1 << 20);
    if (store_open(&kit.store, dir, &options, &fault) != OK) {
        fail_msg("%s", fault.detail);
    }
    kit_make_collection(&kit, "c");
    for (int i = 0; err == OK && i < 10000; i++) {
        char prefix[24];
        snprintf(prefix, sizeof(prefix), "t%d-", i);
        err = kit_put_items(&kit, prefix, 100, 1, true);
        n_before += err == OK ? 100 : 0;
    }
    assert_int_equal(err, ERR_FULL);
    store_get_stats(kit.store, &stats);
    assert_true(stats.disk_full);
    assert_false(stats.read_only);

    /* Reads go on, with all that was acknowledged. */
    struct db *db = NULL;
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    assert_int_equal(items_count(db, kit.collection, &n), OK);
    assert_int_equal(n, n_before);
    store_read_end(kit.store, db);

    /* A backup that does not fit leaves nothing. */
    int64_t bytes = 0;
    assert_int_equal(
        store_backup(kit.store, "full", NULL, NULL, &bytes, &fault), ERR_FULL);

    /* Space returns. */
    unlink(filler);
    assert_int_equal(kit_put_items(&kit, "more", 100, 1, true), OK);
    store_get_stats(kit.store, &stats);
    assert_false(stats.disk_full);
    if (store_check(kit.store, &fault) != OK) {
        fail_msg("%s", fault.detail);
    }
    store_close(kit.store);
    arena_release(&kit.arena);
    assert_int_equal(umount(dir), 0);
    kit_remove_dir(dir);
}

int
main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--child") == 0) {
        child(argv[2], (int)strtol(argv[3], NULL, 10));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_kill_at_failpoints),
        cmocka_unit_test(test_small_tmpfs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
