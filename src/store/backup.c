/*
 * The copy is made from the writer's own connection, a few pages at a time
 * between transactions: SQLite then carries every later change over to the
 * copy as well, so that it never has to start again, no long reader keeps the
 * write-ahead log from being reset, and the result is the database as of the
 * last step.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/failpoint.h"
#include "base/fsio.h"
#include "base/log.h"
#include "store/internal.h"
#include "store/writer.h"

#define STEP_PAGES 64 /* 1 MiB */
#define SUFFIX ".db"
#define SUFFIX_UNFINISHED ".part"

static const char SET_NO_LOG[] = "PRAGMA journal_mode = DELETE";
static const char SET_NO_SYNC[] = "PRAGMA synchronous = OFF";
static const char QUICK_CHECK[] = "PRAGMA quick_check(1)";

static bool
is_name(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n <= STORE_BACKUP_NAME_MAX && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                        "0123456789._-") == n;
}

/* DIR/backups/NAME and an ending, in a new block. */
static char *
backup_path(const struct store *store, const char *name, const char *ending)
{
    size_t n = strlen(store->dir) + strlen(name) + strlen(ending) + 16;
    char *path = mem_alloc(n, 1);

    if (path != NULL) {
        snprintf(path, n, "%s/backups/%s%s", store->dir, name, ending);
    }
    return path;
}

/* ---- copying ------------------------------------------------------------- */

struct copy {
    sqlite3_backup *backup;
    struct db *to;
    enum err err;
    bool finished;
    int64_t done, total;
};

/* The four below run in the writer thread, outside of transactions. */

static enum err
copy_start(struct db *db, void *arg)
{
    struct copy *copy = arg;

    copy->backup = sqlite3_backup_init(copy->to->sql, "main", db->sql, "main");
    return copy->backup == NULL
               ? db_error(copy->to, sqlite3_extended_errcode(copy->to->sql))
               : OK;
}

static enum err
copy_step(struct db *db, void *arg)
{
    struct copy *copy = arg;
    int rc = sqlite3_backup_step(copy->backup, STEP_PAGES);

    (void)db;
    copy->total = sqlite3_backup_pagecount(copy->backup);
    copy->done = copy->total - sqlite3_backup_remaining(copy->backup);
    if (rc == SQLITE_DONE) {
        copy->finished = true;
        return OK;
    }
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return OK;
    case SQLITE_FULL:
        return ERR_FULL;
    case SQLITE_NOMEM:
        return ERR_NOMEM;
    case SQLITE_CORRUPT:
        return ERR_CORRUPT;
    default:
        return ERR_IO;
    }
}

static enum err
copy_end(struct db *db, void *arg)
{
    struct copy *copy = arg;
    int rc = sqlite3_backup_finish(copy->backup);

    copy->backup = NULL;
    db->n_backups--;
    return rc == SQLITE_OK ? OK : ERR_IO;
}

static enum err
copy_all(
    struct store *store, struct db *to, store_progress_fn *progress, void *ctx)
{
    struct copy copy = {.to = to};
    enum err err = writer_run_outside(store->writer, copy_start, &copy);
    enum err end;

    if (err != OK) {
        return err;
    }
    while (err == OK && !copy.finished) {
        err = writer_run_outside(store->writer, copy_step, &copy);
        failpoint("store_backup_step");
        if (err == OK && progress != NULL &&
            !progress(ctx, copy.done, copy.total)) {
            err = ERR_CANCELLED;
        }
    }
    end = writer_run_outside(store->writer, copy_end, &copy);
    return err == OK ? end : err;
}

/* ---- the finished file --------------------------------------------------- */

static enum err
check_structure(struct db *db)
{
    struct query q;

    query_start(&q, db, QUICK_CHECK);
    if (query_row(&q)) {
        struct store_text word = query_get_text(&q, 0);
        if (word.s == NULL || strcmp(word.s, "ok") != 0) {
            q.err = ERR_CORRUPT;
        }
    }
    return query_end(&q);
}

static enum err
make_copy(struct store *store, const char *path, store_progress_fn *progress,
    void *ctx, struct fault *fault)
{
    struct db *to = NULL;
    enum err err = db_open(&to, path, DB_PLAIN, fault);

    if (err != OK) {
        return err;
    }
    /* It is synced once, as a whole, before it gets its name. */
    err = db_run(to, SET_NO_SYNC);
    if (err == OK) {
        err = copy_all(store, to, progress, ctx);
    }
    if (err == OK) {
        err = db_run(to, SET_NO_LOG);
    }
    if (err == OK) {
        err = check_structure(to);
    }
    db_close(to);
    return err;
}

static void
remove_all(const char *path)
{
    char beside[4096];
    static const char *const ENDINGS[] = {"", "-journal", "-wal", "-shm"};

    for (size_t i = 0; i < ARRAY_LEN(ENDINGS); i++) {
        int n = snprintf(beside, sizeof(beside), "%s%s", path, ENDINGS[i]);
        if (n > 0 && (size_t)n < sizeof(beside)) {
            (void)unlink(beside);
        }
    }
}

enum err
store_backup(struct store *store, const char *name, store_progress_fn *progress,
    void *ctx, int64_t *bytes, struct fault *fault)
{
    char *path = NULL, *unfinished = NULL, *folder = NULL;
    struct stat file = {0};
    enum err err = OK;

    if (!is_name(name)) {
        return fault_set(fault, ERR_INVALID, "/name",
            "a backup's name has 1 to %d of A-Z a-z 0-9 . _ - and does not"
            " start with a dot",
            STORE_BACKUP_NAME_MAX);
    }
    path = backup_path(store, name, SUFFIX);
    unfinished = backup_path(store, name, SUFFIX_UNFINISHED);
    folder = backup_path(store, "", "");
    if (path == NULL || unfinished == NULL || folder == NULL) {
        err = fault_set(fault, ERR_NOMEM, "", "out of memory");
        goto out;
    }
    err = fsio_make_dir(folder, fault);
    if (err != OK) {
        goto out;
    }
    if (access(path, F_OK) == 0) {
        err = fault_set(fault, ERR_EXISTS, "/name",
            "there is a backup named %s already", name);
        goto out;
    }
    remove_all(unfinished);
    err = make_copy(store, unfinished, progress, ctx, fault);
    if (err == OK) {
        err = store_sync_path(unfinished, false);
    }
    if (err == OK && stat(unfinished, &file) != 0) {
        err = ERR_IO;
    }
    if (err == OK && rename(unfinished, path) != 0) {
        err = ERR_IO;
    }
    failpoint("store_backup_renamed");
    if (err == OK) {
        err = store_sync_path(folder, true);
    }
    if (err != OK) {
        remove_all(unfinished);
        fault_set(
            fault, err, "", "backup %s was not made: %s", name, err_text(err));
        goto out;
    }
    *bytes = file.st_size;
    log_info(
        "store", "backup name=%s bytes=%lld", name, (long long)file.st_size);
out:
    mem_free(folder);
    mem_free(unfinished);
    mem_free(path);
    return err;
}

/* An unfinished copy, or what SQLite keeps beside it while it writes. */
static bool
is_unfinished(const char *file_name)
{
    static const char *const ENDINGS[] = {SUFFIX_UNFINISHED,
        SUFFIX_UNFINISHED "-journal", SUFFIX_UNFINISHED "-wal",
        SUFFIX_UNFINISHED "-shm"};
    size_t n = strlen(file_name);

    for (size_t i = 0; i < ARRAY_LEN(ENDINGS); i++) {
        size_t n_ending = strlen(ENDINGS[i]);
        if (n > n_ending && strcmp(file_name + n - n_ending, ENDINGS[i]) == 0) {
            return true;
        }
    }
    return false;
}

void
store_sweep_backups(const struct store *store)
{
    char *folder = backup_path(store, "", "");
    DIR *dir = folder == NULL ? NULL : opendir(folder);
    const struct dirent *entry;

    mem_free(folder);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char *path = is_unfinished(entry->d_name)
                         ? backup_path(store, entry->d_name, "")
                         : NULL;
        if (path != NULL && unlink(path) == 0) {
            log_info("store", "unfinished backup removed: %s", entry->d_name);
        }
        mem_free(path);
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* ---- listing ------------------------------------------------------------- */

static int
compare_info(const void *a, const void *b)
{
    const struct store_backup_info *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* Fill in one entry of the folder; false when it is no finished backup. */
static bool
read_info(const struct store *store, const char *file_name,
    struct store_backup_info *info)
{
    size_t n = strlen(file_name), n_suffix = strlen(SUFFIX);
    struct stat file;
    char *path;
    bool ok;

    if (n <= n_suffix || n - n_suffix > STORE_BACKUP_NAME_MAX ||
        strcmp(file_name + n - n_suffix, SUFFIX) != 0) {
        return false;
    }
    *info = (struct store_backup_info){0};
    memcpy(info->name, file_name, n - n_suffix);
    if (!is_name(info->name)) {
        return false;
    }
    path = backup_path(store, file_name, "");
    ok = path != NULL && stat(path, &file) == 0 && S_ISREG(file.st_mode);
    mem_free(path);
    if (ok) {
        info->bytes = file.st_size;
        info->created_ms = (int64_t)file.st_mtim.tv_sec * 1000 +
                           file.st_mtim.tv_nsec / 1000000;
    }
    return ok;
}

enum err
store_list_backups(
    struct store *store, struct store_backup_info **out, size_t *n)
{
    struct store_backup_info *list = NULL, info;
    char *folder = backup_path(store, "", "");
    size_t n_list = 0;
    enum err err = OK;
    struct dirent *entry;
    DIR *dir;

    if (folder == NULL) {
        return ERR_NOMEM;
    }
    dir = opendir(folder);
    mem_free(folder);
    if (dir == NULL) {
        if (errno != ENOENT) {
            return ERR_IO;
        }
        *out = NULL;
        *n = 0;
        return OK;
    }
    while ((entry = readdir(dir)) != NULL) {
        struct store_backup_info *grown;
        if (!read_info(store, entry->d_name, &info)) {
            continue;
        }
        grown = mem_realloc(list, n_list + 1, sizeof(*list));
        if (grown == NULL) {
            err = ERR_NOMEM;
            break;
        }
        list = grown;
        list[n_list++] = info;
    }
    closedir(dir);
    if (err != OK) {
        mem_free(list);
        return err;
    }
    if (n_list > 1) {
        qsort(list, n_list, sizeof(*list), compare_info);
    }
    *out = list;
    *n = n_list;
    return OK;
}

enum err
store_backup_path(
    struct store *store, const char *name, char *path, size_t path_bytes)
{
    char *full;
    bool there, fits;

    if (!is_name(name)) {
        return ERR_INVALID;
    }
    full = backup_path(store, name, SUFFIX);
    if (full == NULL) {
        return ERR_NOMEM;
    }
    there = access(full, F_OK) == 0;
    fits = strlen(full) < path_bytes;
    if (there && fits) {
        memcpy(path, full, strlen(full) + 1);
    }
    mem_free(full);
    if (!there) {
        return ERR_NOT_FOUND;
    }
    return fits ? OK : ERR_TOO_LARGE;
}
