#include "server/preload.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine.h"

#define ARENA_BYTES_MAX (16u << 20) /* of one encoder's description */

struct wanted {
    char name[CONFIG_TEXT_MAX];
    char dir[CONFIG_TEXT_MAX];
};

/* Copy [s, s + n) without blanks at its ends. */
static void
copy_trimmed(char out[CONFIG_TEXT_MAX], const char *s, size_t n)
{
    while (n > 0 && (*s == ' ' || *s == '\t')) {
        s++;
        n--;
    }
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    memcpy(out, s, n);
    out[n] = '\0';
}

/* The next of the list; false: none is left, or it is malformed. */
static bool
next(const char **at, struct wanted *out, enum err *err, struct fault *fault)
{
    *err = OK;
    if (**at == '\0')
        return false;
    size_t n = strcspn(*at, ",");
    const char *equals = memchr(*at, '=', n);
    size_t name_len = equals ? (size_t)(equals - *at) : 0;
    copy_trimmed(out->name, *at, name_len);
    copy_trimmed(
        out->dir, equals ? equals + 1 : "", equals ? n - name_len - 1 : 0);
    if (out->name[0] == '\0' || out->dir[0] == '\0')
        *err = fault_set(fault, ERR_INVALID, "",
            "encoder: \"%.*s\" is not NAME=FOLDER", (int)n, *at);
    *at += n;
    *at += **at == ',';
    return *err == OK;
}

enum err
preload_check(const struct config *config, struct fault *fault)
{
    const char *at = config->encoder;
    struct wanted wanted;
    enum err err;
    while (next(&at, &wanted, &err, fault))
        continue;
    return err;
}

static enum err
import(struct engine *engine, const struct wanted *wanted, struct arena *arena,
    struct fault *fault)
{
    struct engine_encoder encoder;
    struct fault why = {0};
    bool created = false;
    int64_t from_ms = clock_mono_ms();
    enum err err =
        engine_encoder_get(engine, wanted->name, arena, &encoder, &why);
    if (err == OK)
        return OK;
    if (err == ERR_NOT_FOUND)
        err = engine_encoder_import(
            engine, wanted->name, wanted->dir, &created, arena, &encoder, &why);
    if (err != OK)
        return fault_set(fault, err, "", "encoder: %.64s=%.160s: %.280s",
            wanted->name, wanted->dir,
            why.detail[0] ? why.detail : err_text(err));
    log_info("main", "encoder_imported name=%s ms=%lld", wanted->name,
        (long long)(clock_mono_ms() - from_ms));
    return OK;
}

enum err
preload_run(
    const struct config *config, struct engine *engine, struct fault *fault)
{
    const char *at = config->encoder;
    struct wanted wanted;
    enum err err;
    while (next(&at, &wanted, &err, fault)) {
        struct arena arena;
        arena_init(&arena, ARENA_BYTES_MAX);
        err = import(engine, &wanted, &arena, fault);
        arena_release(&arena);
        if (err != OK)
            return err;
    }
    return err;
}
