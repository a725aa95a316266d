#include "server/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/clock.h"

static struct sockaddr_un address;
static socklen_t address_len;
static int64_t watchdog_ms;

void
notify_init(void)
{
    address_len = 0;
    watchdog_ms = 0;
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path || (path[0] != '/' && path[0] != '@') || path[1] == '\0' ||
        strlen(path) >= sizeof(address.sun_path))
        return;
    size_t len = strlen(path);
    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* the abstract name space */
    address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    if (usec && (!pid || strtoll(pid, NULL, 10) == (long long)getpid())) {
        /* Twice as often as asked, so that one late wake-up is no harm. */
        watchdog_ms = strtoll(usec, NULL, 10) / 2000;
        if (watchdog_ms < 0)
            watchdog_ms = 0;
    }
}

void
notify_send(const char *state)
{
    if (address_len == 0)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* A manager that does not listen is its own problem. */
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL,
        (const struct sockaddr *)(const void *)&address, address_len);
    (void)close(fd);
}

void
notify_reloading(void)
{
    char text[80];
    (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld",
        (long long)(clock_mono_ns() / 1000));
    notify_send(text);
}

int64_t
notify_watchdog_ms(void)
{
    return watchdog_ms;
}
