#include "server/incoming.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fsio.h"
#include "base/tarball.h"

static void
parent(const char *data, char out[INCOMING_PATH_MAX])
{
    (void)snprintf(out, INCOMING_PATH_MAX, "%s/incoming", data);
}

void
incoming_clear(const char *data)
{
    char path[INCOMING_PATH_MAX];
    parent(data, path);
    tarball_discard(path);
}

enum err
incoming_make(
    const char *data, char out[INCOMING_PATH_MAX], struct fault *fault)
{
    char path[INCOMING_PATH_MAX];
    parent(data, path);
    enum err err = fsio_make_dir(path, fault);
    if (err != OK)
        return err;
    (void)snprintf(out, INCOMING_PATH_MAX, "%.570s/folder-XXXXXX", path);
    if (mkdtemp(out))
        return OK;
    return fault_set(fault, errno == ENOSPC ? ERR_FULL : ERR_IO, "",
        "no folder can be made below the data folder");
}
