/*
 * internal.h - the parts of a store that its files share. Internal to this
 * folder.
 */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/db.h"

struct writer;

struct store {
    char *dir;
    char *path;                   /* of the database file */
    struct store_options options; /* with the defaults filled in */
    int lock_fd;                  /* of the folder's lock; -1: none */
    int schema_version;
    struct writer *writer;

    pthread_mutex_t readers_lock; /* the fields below */
    pthread_cond_t reader_free;
    bool readers_ready; /* the two above were made */
    struct db *free_readers;
    size_t n_readers; /* open, free or taken */
    size_t n_taken;
};

/* A new read connection outside of the pool, for long reads of ours. */
enum err store_open_reader(
    struct store *store, struct db **out, struct fault *fault) NODISCARD;

/* Store the path DIR/NAME in a new block. */
char *store_join_path(const char *dir, const char *name) NODISCARD;

/* Remove what a crash left of unfinished backups; at opening. */
void store_sweep_backups(const struct store *store);

/* fsync a file or folder by its path. */
enum err store_sync_path(const char *path, bool is_dir) NODISCARD;

#endif
