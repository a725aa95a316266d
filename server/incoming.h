/*
 * incoming.h - folders below the data folder for what comes in: DATA/incoming/.
 *
 * Each is removed by who made it (tarball_discard); what a crash has left there
 * goes at the next start.
 */
#ifndef SERVER_INCOMING_H
#define SERVER_INCOMING_H

#include "base/err.h"

#define INCOMING_PATH_MAX 600

/* Remove what is left; only while the data folder is ours. */
void incoming_clear(const char *data);

/* Make an empty folder; its path goes to out. ERR_IO, ERR_FULL. */
enum err incoming_make(const char *data, char out[INCOMING_PATH_MAX],
    struct fault *fault) NODISCARD;

#endif
