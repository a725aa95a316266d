/*
 * Goal: a power cut loses nothing acknowledged and damages nothing; a write,
 * sync or truncation that fails, at whatever call, makes the store read-only
 * (or refuses for want of space) and loses nothing acknowledged.
 * Method: a VFS of our own between SQLite and the disk. It keeps, for every
 * file, what a sync has made durable and the writes since; at many calls it
 * puts a crash image together in which each sector of those writes is kept or
 * dropped at random. It also makes the n-th call fail, once or for ever after.
 * The images are then opened and compared with what had been acknowledged.
 * KINDRED_TIER=full takes 2,000 images and fails every call.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/rng.h"
#include "store/purge.h"
#include "store/weights.h"
#include "tests/support/store_kit.h"

#define SECTOR 512
#define BATCH 7
#define IMAGES_MAX 100

/* ---- what the disk holds ------------------------------------------------- */

struct pending {
    struct pending *next;
    int64_t at;
    int64_t n; /* -1: truncation to at */
    unsigned char bytes[];
};

/* One file by its name; shared by all connections. Under disk_lock. */
struct tracked {
    struct tracked *next;
    char path[300];
    unsigned char *durable;
    int64_t n_durable;
    struct pending *first, *last;
};

static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static struct tracked *disk;
static bool tracking;

static struct {
    char dir[128]; /* of the images */
    int every;     /* an image about every so many calls; 0: none */
    int n;
    int acknowledged[IMAGES_MAX];
    struct rng rng;
} images;

static atomic_int acknowledged; /* batches */

enum failure { FAIL_NOT, FAIL_ONCE, FAIL_STICKY, FAIL_FULL };
static struct {
    enum failure kind;
    atomic_int left; /* calls until the failure */
    atomic_bool met;
} failing;

static void
resize(struct tracked *file, int64_t n)
{
    if (n > file->n_durable) {
        unsigned char *grown = realloc(file->durable, (size_t)n);
        assert_non_null(grown);
        memset(grown + file->n_durable, 0, (size_t)(n - file->n_durable));
        file->durable = grown;
    }
    file->n_durable = n;
}

static void
apply(struct tracked *file, const struct pending *p)
{
    if (p->n < 0) {
        if (p->at < file->n_durable) {
            file->n_durable = p->at;
        }
        return;
    }
    if (p->at + p->n > file->n_durable) {
        resize(file, p->at + p->n);
    }
    memcpy(file->durable + p->at, p->bytes, (size_t)p->n);
}

static void
forget_pending(struct tracked *file)
{
    while (file->first != NULL) {
        struct pending *p = file->first;
        file->first = p->next;
        free(p);
    }
    file->last = NULL;
}

static void
note(struct tracked *file, int64_t at, const void *bytes, int64_t n)
{
    struct pending *p = malloc(sizeof(*p) + (size_t)(n < 0 ? 0 : n));

    assert_non_null(p);
    *p = (struct pending){.at = at, .n = n};
    if (n > 0) {
        memcpy(p->bytes, bytes, (size_t)n);
    }
    if (file->last == NULL) {
        file->first = p;
    } else {
        file->last->next = p;
    }
    file->last = p;
}

static void
sync_tracked(struct tracked *file)
{
    for (struct pending *p = file->first; p != NULL; p = p->next) {
        apply(file, p);
    }
    forget_pending(file);
}

static void
clear_disk(void)
{
    while (disk != NULL) {
        struct tracked *file = disk;
        disk = file->next;
        forget_pending(file);
        free(file->durable);
        free(file);
    }
}

/* The file as it could be after a power cut now. */
static void
write_image_of(const struct tracked *file, const char *dir)
{
    struct tracked image = {.n_durable = file->n_durable};
    const char *name = strrchr(file->path, '/');
    char path[512];
    FILE *f;

    image.durable = malloc((size_t)file->n_durable + 1);
    assert_non_null(image.durable);
    if (file->n_durable > 0) {
        memcpy(image.durable, file->durable, (size_t)file->n_durable);
    }
    /* One cut in three keeps all, or nothing, of what was not synced. */
    uint64_t mood = rng_below(&images.rng, 6);
    for (const struct pending *p = file->first; p != NULL; p = p->next) {
        if (p->n < 0) {
            if (mood == 0 || (mood > 1 && rng_below(&images.rng, 2) == 0)) {
                apply(&image, p);
            }
            continue;
        }
        for (int64_t s = 0; s < p->n; s += SECTOR) {
            int64_t part = p->n - s < SECTOR ? p->n - s : SECTOR;
            bool keep =
                mood == 0 || (mood > 1 && rng_below(&images.rng, 2) == 0);
            if (!keep) {
                continue;
            }
            if (p->at + s + part > image.n_durable) {
                resize(&image, p->at + s + part);
            }
            memcpy(image.durable + p->at + s, p->bytes + s, (size_t)part);
        }
    }
    snprintf(path, sizeof(path), "%s%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    if (image.n_durable > 0) {
        assert_int_equal(fwrite(image.durable, 1, (size_t)image.n_durable, f),
            image.n_durable);
    }
    fclose(f);
    free(image.durable);
}

/* Under disk_lock. */
static void
maybe_take_image(void)
{
    char dir[256];

    if (images.every == 0 || images.n == IMAGES_MAX ||
        rng_below(&images.rng, (uint64_t)images.every) != 0) {
        return;
    }
    snprintf(dir, sizeof(dir), "%s/%d", images.dir, images.n);
    assert_int_equal(mkdir(dir, 0700), 0);
    images.acknowledged[images.n] = atomic_load(&acknowledged);
    for (const struct tracked *file = disk; file != NULL; file = file->next) {
        write_image_of(file, dir);
    }
    images.n++;
}

/* SQLITE_OK, or the error that this call is to meet. */
static int
must_fail(int code)
{
    if (failing.kind == FAIL_NOT) {
        return SQLITE_OK;
    }
    int left = atomic_fetch_sub(&failing.left, 1);
    if (left == 1 || (failing.kind != FAIL_ONCE && left < 1)) {
        atomic_store(&failing.met, true);
        return failing.kind == FAIL_FULL ? SQLITE_FULL : code;
    }
    return SQLITE_OK;
}

/* ---- the VFS ------------------------------------------------------------- */

struct shim {
    sqlite3_file base;
    struct tracked *tracked;
    sqlite3_file *real; /* right behind this struct */
};

static sqlite3_vfs *unix_vfs;
static sqlite3_vfs shim_vfs;

#define REAL(f) (((struct shim *)(f))->real)

static int
x_close(sqlite3_file *f)
{
    return REAL(f)->pMethods->xClose(REAL(f));
}

static int
x_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    return REAL(f)->pMethods->xRead(REAL(f), to, n, at);
}

static int
x_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
    struct shim *shim = (struct shim *)f;
    int rc = must_fail(SQLITE_IOERR_WRITE);

    if (rc != SQLITE_OK) {
        return rc;
    }
    if (shim->tracked != NULL) {
        pthread_mutex_lock(&disk_lock);
        maybe_take_image();
        note(shim->tracked, at, from, n);
        pthread_mutex_unlock(&disk_lock);
    }
    return REAL(f)->pMethods->xWrite(REAL(f), from, n, at);
}

static int
x_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    struct shim *shim = (struct shim *)f;
    int rc = must_fail(SQLITE_IOERR_TRUNCATE);

    if (rc != SQLITE_OK && rc != SQLITE_FULL) {
        return rc;
    }
    if (shim->tracked != NULL) {
        pthread_mutex_lock(&disk_lock);
        maybe_take_image();
        note(shim->tracked, n, NULL, -1);
        pthread_mutex_unlock(&disk_lock);
    }
    return REAL(f)->pMethods->xTruncate(REAL(f), n);
}

/* The real sync is left out: nobody pulls the plug of this machine. */
static int
x_sync(sqlite3_file *f, int flags)
{
    struct shim *shim = (struct shim *)f;
    int rc = must_fail(SQLITE_IOERR_FSYNC);

    (void)flags;
    if (rc != SQLITE_OK && rc != SQLITE_FULL) {
        return rc;
    }
    if (shim->tracked != NULL) {
        pthread_mutex_lock(&disk_lock);
        maybe_take_image();
        sync_tracked(shim->tracked);
        maybe_take_image();
        pthread_mutex_unlock(&disk_lock);
    }
    return SQLITE_OK;
}

static int
x_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return REAL(f)->pMethods->xFileSize(REAL(f), n);
}

static int
x_lock(sqlite3_file *f, int level)
{
    return REAL(f)->pMethods->xLock(REAL(f), level);
}

static int
x_unlock(sqlite3_file *f, int level)
{
    return REAL(f)->pMethods->xUnlock(REAL(f), level);
}

static int
x_reserved(sqlite3_file *f, int *out)
{
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}

static int
x_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}

static int
x_sector(sqlite3_file *f)
{
    (void)f;
    return 4096;
}

/* A disk that promises nothing. */
static int
x_promises(sqlite3_file *f)
{
    (void)f;
    return 0;
}

static int
x_shm_map(sqlite3_file *f, int i, int n, int extend, void volatile **p)
{
    return REAL(f)->pMethods->xShmMap(REAL(f), i, n, extend, p);
}

static int
x_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return REAL(f)->pMethods->xShmLock(REAL(f), offset, n, flags);
}

static void
x_shm_barrier(sqlite3_file *f)
{
    REAL(f)->pMethods->xShmBarrier(REAL(f));
}

static int
x_shm_unmap(sqlite3_file *f, int remove)
{
    return REAL(f)->pMethods->xShmUnmap(REAL(f), remove);
}

static const sqlite3_io_methods METHODS = {
    .iVersion = 2,
    .xClose = x_close,
    .xRead = x_read,
    .xWrite = x_write,
    .xTruncate = x_truncate,
    .xSync = x_sync,
    .xFileSize = x_size,
    .xLock = x_lock,
    .xUnlock = x_unlock,
    .xCheckReservedLock = x_reserved,
    .xFileControl = x_control,
    .xSectorSize = x_sector,
    .xDeviceCharacteristics = x_promises,
    .xShmMap = x_shm_map,
    .xShmLock = x_shm_lock,
    .xShmBarrier = x_shm_barrier,
    .xShmUnmap = x_shm_unmap,
};

static struct tracked *
track(const char *path)
{
    struct tracked *file;

    pthread_mutex_lock(&disk_lock);
    for (file = disk; file != NULL; file = file->next) {
        if (strcmp(file->path, path) == 0) {
            break;
        }
    }
    if (file == NULL) {
        file = calloc(1, sizeof(*file));
        assert_non_null(file);
        snprintf(file->path, sizeof(file->path), "%s", path);
        file->next = disk;
        disk = file;
    }
    pthread_mutex_unlock(&disk_lock);
    return file;
}

static int
x_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags,
    int *out_flags)
{
    struct shim *shim = (struct shim *)f;
    int rc;

    (void)vfs;
    memset(shim, 0, sizeof(*shim));
    shim->real = (sqlite3_file *)(shim + 1);
    rc = unix_vfs->xOpen(unix_vfs, path, shim->real, flags, out_flags);
    if (shim->real->pMethods != NULL) {
        shim->base.pMethods = &METHODS;
    }
    if (rc == SQLITE_OK && tracking && path != NULL &&
        (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL |
                     SQLITE_OPEN_MAIN_JOURNAL)) != 0) {
        shim->tracked = track(path);
    }
    return rc;
}

static int
x_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    (void)vfs;
    pthread_mutex_lock(&disk_lock);
    for (struct tracked *file = disk; file != NULL; file = file->next) {
        if (strcmp(file->path, path) == 0) {
            forget_pending(file);
            file->n_durable = 0;
        }
    }
    pthread_mutex_unlock(&disk_lock);
    return unix_vfs->xDelete(unix_vfs, path, sync_dir);
}

static void
use_shim(void)
{
    unix_vfs = sqlite3_vfs_find("unix");
    assert_non_null(unix_vfs);
    shim_vfs = *unix_vfs;
    shim_vfs.pNext = NULL;
    shim_vfs.zName = "shim";
    shim_vfs.szOsFile = (int)sizeof(struct shim) + unix_vfs->szOsFile;
    shim_vfs.xOpen = x_open;
    shim_vfs.xDelete = x_delete;
    assert_int_equal(sqlite3_vfs_register(&shim_vfs, 1), SQLITE_OK);
}

static void
use_unix(void)
{
    assert_int_equal(sqlite3_vfs_unregister(&shim_vfs), SQLITE_OK);
    assert_int_equal(sqlite3_vfs_register(unix_vfs, 1), SQLITE_OK);
}

/* ---- the work ------------------------------------------------------------ */

/* Batches with, now and then, a round in outline. Stops at the first error and
   gives it. */
static enum err
work(struct kit *kit, int n_batches)
{
    static char bytes[WEIGHTS_CHUNK_BYTES + 99];
    enum err err = OK;

    atomic_store(&acknowledged, 0);
    for (int n = 0; n < n_batches && err == OK; n++) {
        char prefix[24];
        snprintf(prefix, sizeof(prefix), "b%d-", n);
        err = kit_put_items(kit, prefix, BATCH, 1, true);
        if (err == OK) {
            atomic_store(&acknowledged, n + 1);
        }
        if (err == OK && n % 12 == 11) {
            err = weights_save(
                kit->store, kit->generation_id + 1, bytes, sizeof(bytes));
        }
        if (err == OK && n % 12 == 5) {
            err = purge_run(kit->store, NULL, NULL);
        }
    }
    return err;
}

/* Opens, makes the collection and a second, building generation. */
static void
begin_work(struct kit *kit)
{
    struct store_options options = {.checkpoint_pages = 40};
    int64_t id, number, space;

    kit_open(kit, &options);
    kit_make_collection(kit, "c");
    kit_make_generation(kit, 2, &id, &number, &space);
}

/* All acknowledged batches are there, each batch whole or not at all. */
static void
verify(const char *dir, int n_acknowledged)
{
    struct collection_row row = {0};
    struct store *store = NULL;
    struct fault fault = {0};
    struct arena arena;
    struct db *db = NULL;

    arena_init(&arena, 1 << 20);
    if (store_open(&store, dir, NULL, &fault) != OK) {
        fail_msg("%s", fault.detail);
    }
    if (store_check(store, &fault) != OK) {
        fail_msg("%s", fault.detail);
    }
    assert_int_equal(store_read_begin(store, &db), OK);
    assert_int_equal(
        collections_find(db, store_text_of("c"), &arena, &row), OK);
    for (int b = 0; b < n_acknowledged + 2; b++) {
        int n = 0;
        for (int i = 0; i < BATCH; i++) {
            struct item_row item;
            char id[32];
            snprintf(id, sizeof(id), "b%d-%d", b, i);
            struct store_text text = store_text_of(id);
            assert_int_equal(items_find(db, row.id, &text, 1, &item), OK);
            n += item.item != 0;
        }
        assert_true(n == BATCH || (n == 0 && b >= n_acknowledged));
    }
    store_read_end(store, db);
    store_close(store);
    arena_release(&arena);
}

static bool
is_full_tier(void)
{
    const char *tier = getenv("KINDRED_TIER");

    return tier != NULL && strcmp(tier, "full") == 0;
}

static void
test_power_cuts(void **state)
{
    int rounds = is_full_tier() ? 20 : 1, n_images = 0;
    (void)state;

    rng_seed(&images.rng, 17);
    for (int round = 0; round < rounds; round++) {
        struct kit kit;
        kit_make_dir(images.dir, sizeof(images.dir));
        images.n = 0;
        use_shim();
        tracking = true;
        begin_work(&kit);
        images.every = is_full_tier() ? 12 : 25;
        assert_int_equal(work(&kit, 80), OK);
        images.every = 0;
        kit_close(&kit);
        tracking = false;
        clear_disk();
        use_unix();
        for (int i = 0; i < images.n; i++) {
            char dir[256];
            snprintf(dir, sizeof(dir), "%s/%d", images.dir, i);
            verify(dir, images.acknowledged[i]);
        }
        n_images += images.n;
        kit_remove_dir(images.dir);
    }
    assert_true(n_images > 15 * rounds);
}

/* ---- calls that fail ----------------------------------------------------- */

/* True when the failure was met. */
static bool
run_failing(enum failure kind, int at)
{
    struct store_stats stats;
    struct kit kit;
    struct db *db = NULL;
    int64_t n = -1;
    enum err err;
    bool met;

    use_shim();
    begin_work(&kit);
    atomic_store(&failing.left, at);
    atomic_store(&failing.met, false);
    failing.kind = kind;
    err = work(&kit, 40);
    failing.kind = FAIL_NOT;
    met = atomic_load(&failing.met);
    store_get_stats(kit.store, &stats);
    if (!met) {
        assert_int_equal(err, OK);
    } else if (kind == FAIL_FULL) {
        /* A checkpoint that finds no space just comes again later. */
        assert_true(err == ERR_FULL || err == OK);
        assert_false(stats.read_only);
        assert_int_equal(kit_put_items(&kit, "later", 3, 1, true), OK);
    } else {
        assert_true(err == ERR_IO || err == ERR_READ_ONLY || err == OK);
        assert_true(stats.read_only);
        assert_int_equal(
            kit_put_items(&kit, "later", 3, 1, true), ERR_READ_ONLY);
    }
    /* Reads go on. */
    assert_int_equal(store_read_begin(kit.store, &db), OK);
    assert_int_equal(items_count(db, kit.collection, &n), OK);
    assert_true(n >= (int64_t)atomic_load(&acknowledged) * BATCH);
    store_read_end(kit.store, db);
    store_close(kit.store);
    kit.store = NULL;
    use_unix();
    verify(kit.dir, atomic_load(&acknowledged));
    kit_close(&kit);
    return met;
}

static void
run_all_failing(enum failure kind)
{
    int stride = is_full_tier() ? 1 : 61;

    for (int at = 1; run_failing(kind, at); at += stride) {
        assert_true(at < 100000);
    }
}

static void
test_fails_once(void **state)
{
    (void)state;
    run_all_failing(FAIL_ONCE);
}

static void
test_fails_for_ever(void **state)
{
    (void)state;
    run_all_failing(FAIL_STICKY);
}

static void
test_no_space_at_call(void **state)
{
    (void)state;
    run_all_failing(FAIL_FULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_fails_once),
        cmocka_unit_test(test_fails_for_ever),
        cmocka_unit_test(test_no_space_at_call),
    };

    /* What is durable is decided here and not by the disk: memory will do. */
    if (access("/dev/shm", W_OK) == 0) {
        setenv("TMPDIR", "/dev/shm", 0);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
