/*
 * engine_kit.h - an engine over a temporary data folder, for tests.
 *
 * kit_engine_reopen closes and opens it again, as a restart does. Failures of
 * set-up fail the test.
 */
#ifndef SUPPORT_ENGINE_KIT_H
#define SUPPORT_ENGINE_KIT_H

#include "base/arena.h"
#include "engine/engine.h"

struct engine_kit {
    char dir[64];
    struct engine *engine;
    struct arena arena; /* for results; emptied by engine_kit_fresh */
};

void engine_kit_open(struct engine_kit *kit);
void engine_kit_reopen(struct engine_kit *kit);
void engine_kit_close(struct engine_kit *kit); /* removes the folder */
void engine_kit_fresh(struct engine_kit *kit);

/* A collection with small dimensions and a small table, quick to make. */
void engine_kit_collection(struct engine_kit *kit, const char *name);
/* Write one item; metadata may be NULL. */
void engine_kit_put(struct engine_kit *kit, const char *collection,
    const char *id, const char *text, const char *metadata);
/* Search by text; the answer lives in the kit's arena. */
struct engine_answer engine_kit_search(struct engine_kit *kit,
    const char *collection, const char *text, int64_t k,
    const char *filter_json);

struct engine_text engine_kit_text(const char *s);

#endif
