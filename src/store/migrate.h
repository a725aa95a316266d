/*
 * migrate.h - the schema of the file, brought up to date. Internal to this
 * folder.
 *
 * A migration is one file of schema/, NNNN_name.sql; its number is the
 * user_version that it leaves and sets as its last statement. Forward only,
 * each in a transaction of its own: a crash leaves the version before it.
 */
#ifndef STORE_MIGRATE_H
#define STORE_MIGRATE_H

#include "base/embed.h"
#include "store/db.h"

/*
 * migrate_check - is the open file one of ours that this program can use?
 *
 * Changes nothing. ERR_NEWER with both versions, ERR_CORRUPT for a file that is
 * not ours or cannot be read.
 */
enum err migrate_check(
    struct db *db, const char *path, struct fault *fault) NODISCARD;

/* Apply what is missing. files: as embedded_schema (tests pass their own). */
enum err migrate_run(struct db *db, const struct embedded_file *files,
    struct fault *fault) NODISCARD;

/* The number of the last file. */
int migrate_version(const struct embedded_file *files);

#endif
