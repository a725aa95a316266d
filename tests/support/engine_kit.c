#include "tests/support/engine_kit.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "kern/kern.h"

static void
start(struct engine_kit *kit)
{
    struct engine_config config = {.data_dir = kit->dir, .n_threads = 2};
    struct fault fault = {.err = OK};
    enum err err = engine_open(&kit->engine, &config, &fault);
    if (err) {
        fail_msg("engine_open: %s: %s", err_text(err), fault.detail);
    }
}

void
engine_kit_open(struct engine_kit *kit)
{
    log_setup(LOG_WARN, false);
    kern_init();
    snprintf(kit->dir, sizeof(kit->dir), "/tmp/kindred-engine-XXXXXX");
    assert_non_null(mkdtemp(kit->dir));
    arena_init(&kit->arena, SIZE_MAX / 2);
    start(kit);
}

void
engine_kit_reopen(struct engine_kit *kit)
{
    engine_close(kit->engine);
    kit->engine = NULL;
    start(kit);
}

/* The folder and the one below it: nothing else is made. */
static void
remove_folder(const char *path, int depth)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char inner[512];
        if (strcmp(entry->d_name, ".") == 0 ||
            strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (unlink(inner) && depth > 0) {
            remove_folder(inner, depth - 1);
        }
    }
    if (dir) {
        closedir(dir);
    }
    (void)rmdir(path);
}

void
engine_kit_close(struct engine_kit *kit)
{
    engine_close(kit->engine);
    arena_release(&kit->arena);
    remove_folder(kit->dir, 1);
}

void
engine_kit_fresh(struct engine_kit *kit)
{
    arena_release(&kit->arena);
    arena_init(&kit->arena, SIZE_MAX / 2);
}

struct engine_text
engine_kit_text(const char *s)
{
    return (struct engine_text){.s = s, .len = s ? strlen(s) : 0};
}

void
engine_kit_collection(struct engine_kit *kit, const char *name)
{
    bool created = false;
    struct engine_collection_info info;
    struct fault fault = {.err = OK};
    enum err err = engine_collection_put(kit->engine, name,
        "{\"dims\":64,\"encoder_config\":{\"buckets\":4096}}", &created,
        &kit->arena, &info, &fault);
    if (err) {
        fail_msg("collection: %s %s", fault.pointer, fault.detail);
    }
}

void
engine_kit_put(struct engine_kit *kit, const char *collection, const char *id,
    const char *text, const char *metadata)
{
    struct engine_item item = {.id = id,
        .text = engine_kit_text(text),
        .metadata = engine_kit_text(metadata)};
    struct engine_outcome outcome;
    struct fault fault = {.err = OK};
    enum err err =
        engine_item_put(kit->engine, collection, &item, NULL, &outcome, &fault);
    if (err) {
        fail_msg("put %s: %s %s", id, fault.pointer, fault.detail);
    }
}

struct engine_answer
engine_kit_search(struct engine_kit *kit, const char *collection,
    const char *text, int64_t k, const char *filter_json)
{
    struct engine_query query = ENGINE_QUERY_DEFAULT;
    struct engine_answer answer = {.n_hits = 0};
    struct fault fault = {.err = OK};
    query.text = engine_kit_text(text);
    query.k = k;
    query.filter_json = filter_json;
    enum err err = engine_search(
        kit->engine, collection, &query, &kit->arena, &answer, &fault);
    if (err) {
        fail_msg("search: %s %s", fault.pointer, fault.detail);
    }
    return answer;
}
