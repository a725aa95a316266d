/*
 * notify.h - tell the service manager how we are (the sd_notify protocol).
 *
 * One datagram a message to the socket that $NOTIFY_SOCKET names; nothing
 * happens without it. Any thread.
 */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

#include <stdint.h>

/* Read the environment; before threads start. */
void notify_init(void);

/* "READY=1", "STOPPING=1", "WATCHDOG=1", ...; RELOADING also needs the
   monotonic time in microseconds, which notify_reloading adds. */
void notify_send(const char *state);
void notify_reloading(void);

/* How often WATCHDOG=1 is wanted, or 0 for never. */
int64_t notify_watchdog_ms(void);

#endif
