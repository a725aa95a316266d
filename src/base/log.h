/*
 * log.h - one line an event on stderr: "module: event key=value".
 *
 * error = the operator must act; warn = degraded; info = lifecycle; debug =
 * off unless asked. Never called under a lock or in a kernel, never given a
 * user's text. The sink (level, format) is set before threads start; the
 * level may change later (SIGHUP). log_limited drops lines of one call site
 * beyond 5 a second and says how many it dropped.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include "base/check.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_setup(enum log_level level, bool json);
void log_set_level(enum log_level level);

/* module: "store"; fmt makes "event key=value ...". */
void log_write(enum log_level level, const char *module, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

struct log_limit {
    _Atomic long long window_ms;
    _Atomic unsigned seen;
};
void log_limited(struct log_limit *limit, enum log_level level,
    const char *module, const char *fmt, ...) PRINTF_LIKE(4, 5);

#define log_error(module, ...) log_write(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_write(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_write(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_write(LOG_DEBUG, module, __VA_ARGS__)

#endif
