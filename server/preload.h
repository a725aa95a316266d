/*
 * preload.h - the setting "encoder": published encoders that are imported at
 * the start, where their name is not there yet.
 */
#ifndef SERVER_PRELOAD_H
#define SERVER_PRELOAD_H

#include "base/err.h"
#include "server/config.h"

struct engine;

/* Is it a list of NAME=FOLDER? ERR_INVALID says what is not. */
enum err preload_check(
    const struct config *config, struct fault *fault) NODISCARD;

/* Import them, one after the other; the fault names the first that could not
   be. */
enum err preload_run(const struct config *config, struct engine *engine,
    struct fault *fault) NODISCARD;

#endif
