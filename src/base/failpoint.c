#include "base/failpoint.h"

#include <stddef.h>

#ifdef KINDRED_FAILPOINTS

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[64];        /* "" means none */
static _Atomic long long left; /* passes until the kill */

static void
read_environment(void)
{
    const char *text = getenv("KINDRED_FAILPOINT");
    const char *colon = text == NULL ? NULL : strrchr(text, ':');
    size_t len;

    if (colon == NULL) {
        return;
    }
    len = (size_t)(colon - text);
    if (len == 0 || len >= sizeof(wanted)) {
        return;
    }
    atomic_store(&left, strtoll(colon + 1, NULL, 10));
    memcpy(wanted, text, len);
}

void
failpoint(const char *name)
{
    pthread_once(&once, read_environment);
    if (wanted[0] != '\0' && strcmp(name, wanted) == 0 &&
        atomic_fetch_sub(&left, 1) == 1) {
        raise(SIGKILL);
    }
}

#endif
