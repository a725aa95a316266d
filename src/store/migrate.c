#include "store/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const char GET_VERSION[] = "PRAGMA user_version";
static const char GET_APPLICATION[] = "PRAGMA application_id";
static const char COUNT_PAGES[] = "PRAGMA page_count";
static const char COUNT_OBJECTS[] = "SELECT count(*) FROM sqlite_schema";
static const char BEGIN[] = "BEGIN EXCLUSIVE";
static const char COMMIT[] = "COMMIT";
static const char ROLLBACK[] = "ROLLBACK";

static int
number_of(const struct embedded_file *file)
{
    return (int)strtol(file->name, NULL, 10);
}

int
migrate_version(const struct embedded_file *files)
{
    int version = 0;

    for (; files->name != NULL; files++) {
        version = number_of(files);
    }
    return version;
}

enum err
migrate_check(struct db *db, const char *path, struct fault *fault)
{
    int64_t version = 0, application = 0, pages = 0, objects = 0;
    int newest = migrate_version(embedded_schema);
    enum err err = db_get_int(db, COUNT_PAGES, &pages);

    if (err == OK) {
        err = db_get_int(db, GET_APPLICATION, &application);
    }
    if (err == OK) {
        err = db_get_int(db, GET_VERSION, &version);
    }
    if (err == OK) {
        err = db_get_int(db, COUNT_OBJECTS, &objects);
    }
    /* "Unsupported file format" and the like have no code of their own. */
    if (err == ERR_INTERNAL) {
        err = ERR_CORRUPT;
    }
    if (err != OK) {
        return fault_set(fault, err, "", "cannot read %s: %s", path,
            err == ERR_CORRUPT ? "it is damaged or not a database"
                               : err_text(err));
    }
    /* A file that was created but never migrated has nothing in it. */
    if (objects == 0 && version == 0 && application == 0) {
        return OK;
    }
    if (application != DB_APPLICATION_ID) {
        return fault_set(fault, ERR_CORRUPT, "",
            "%s was not made by kindred (application id %lld)", path,
            (long long)application);
    }
    if (version > newest) {
        return fault_set(fault, ERR_NEWER, "",
            "%s has schema version %lld; this program knows versions up to %d",
            path, (long long)version, newest);
    }
    if (version < 1) {
        return fault_set(fault, ERR_CORRUPT, "",
            "%s has the impossible schema version %lld", path,
            (long long)version);
    }
    return OK;
}

static enum err
apply(struct db *db, const struct embedded_file *file, struct fault *fault)
{
    int64_t version = 0;
    enum err err = db_run(db, BEGIN);

    if (err == OK) {
        int rc =
            sqlite3_exec(db->sql, (const char *)file->bytes, NULL, NULL, NULL);
        err = db_error(db, rc);
    }
    if (err == OK) {
        err = db_get_int(db, GET_VERSION, &version);
    }
    if (err == OK && version != number_of(file)) {
        err = ERR_INTERNAL;
    }
    if (err == OK) {
        err = db_run(db, COMMIT);
    }
    if (err != OK) {
        fault_set(fault, err, "", "schema file %s cannot be applied: %s",
            file->name, err == ERR_INTERNAL ? "it failed" : err_text(err));
        if (!sqlite3_get_autocommit(db->sql)) {
            db_try(db, ROLLBACK);
        }
        return err;
    }
    log_info("store", "migrated version=%lld", (long long)version);
    return OK;
}

enum err
migrate_run(
    struct db *db, const struct embedded_file *files, struct fault *fault)
{
    int64_t version = 0;
    enum err err = db_get_int(db, GET_VERSION, &version);

    if (err != OK) {
        return fault_set(fault, err, "", "cannot read the schema version: %s",
            err_text(err));
    }
    for (; files->name != NULL && err == OK; files++) {
        if (number_of(files) > version) {
            err = apply(db, files, fault);
        }
    }
    return err;
}
