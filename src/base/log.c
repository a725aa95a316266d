#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

#define TEXT_MAX 1024       /* of one event; longer ones are cut */
#define EVENT_MAX 64        /* of its name */
#define LINE_MAX_BYTES 8192 /* a cut text in which every byte is escaped */
#define LIMIT_WINDOW_MS 1000
#define LIMIT_LINES 5

static _Atomic int log_level_now = LOG_INFO;
static _Atomic bool log_json;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void
log_setup(enum log_level level, bool json)
{
    atomic_store(&log_level_now, (int)level);
    atomic_store(&log_json, json);
}

void
log_set_level(enum log_level level)
{
    atomic_store(&log_level_now, (int)level);
}

static bool
is_on(enum log_level level)
{
    return (int)level <=
           atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

/* "2026-01-31T23:59:59.123Z" */
static void
write_time(char *out, size_t size)
{
    int64_t ms = clock_wall_ms();
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char day[32];

    gmtime_r(&seconds, &tm);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, size, "%s.%03dZ", day, (int)(ms % 1000));
}

/* One write for a line, so that the lines of threads do not mix. A log that
   cannot be written is lost: there is nobody to tell. */
static void
put_line(const char *line, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, line, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return;
        }
        line += n;
        len -= (size_t)n;
    }
}

static size_t
escape_json(char *out, const char *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else if (c < 0x20 || c >= 0x7f) {
            /* Ours to write, so ASCII; anything else is told by its byte. */
            n += (size_t)snprintf(out + n, 7, "\\u%04x", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n] = '\0';
    return n;
}

static void log_vwrite(enum log_level level, const char *module,
    const char *fmt, va_list ap) PRINTF_LIKE(3, 0);

static void
log_vwrite(
    enum log_level level, const char *module, const char *fmt, va_list ap)
{
    char text[TEXT_MAX];
    char line[LINE_MAX_BYTES];
    char escaped[TEXT_MAX * 6 + 1];
    char event[EVENT_MAX * 6 + 1];
    char when[48];
    int n;
    int saved_errno = errno;

    write_time(when, sizeof(when));
    n = vsnprintf(text, sizeof(text), fmt, ap);
    if (n < 0) {
        return;
    }
    for (char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20) {
            *p = ' '; /* one event is one line */
        }
    }
    if (atomic_load_explicit(&log_json, memory_order_relaxed)) {
        size_t event_len = strcspn(text, " ");
        const char *rest = text + event_len;
        rest += *rest == ' ';
        escape_json(event, text, MIN(event_len, EVENT_MAX));
        escape_json(escaped, rest, strlen(rest));
        n = snprintf(line, sizeof(line),
            "{\"time\":\"%s\",\"level\":\"%s\",\"module\":\"%s\","
            "\"event\":\"%s\",\"detail\":\"%s\"}\n",
            when, level_names[level], module, event, escaped);
    } else {
        n = snprintf(line, sizeof(line), "%s %-5s %s: %s\n", when,
            level_names[level], module, text);
    }
    if (n > 0) {
        put_line(line, MIN((size_t)n, sizeof(line) - 1));
    }
    errno = saved_errno;
}

void
log_write(enum log_level level, const char *module, const char *fmt, ...)
{
    va_list ap;

    if (!is_on(level)) {
        return;
    }
    va_start(ap, fmt);
    log_vwrite(level, module, fmt, ap);
    va_end(ap);
}

void
log_limited(struct log_limit *limit, enum log_level level, const char *module,
    const char *fmt, ...)
{
    long long now = clock_mono_ms();
    long long start = atomic_load(&limit->window_ms);
    va_list ap;

    if (!is_on(level)) {
        return;
    }
    /* Whoever moves the window on reports what the last one dropped. A line
       of another thread that lands between the two steps is counted to the
       old window; the limit is then off by one, no more. */
    if ((start == 0 || now - start >= LIMIT_WINDOW_MS) &&
        atomic_compare_exchange_strong(&limit->window_ms, &start, now)) {
        unsigned before = atomic_exchange(&limit->seen, 0);
        if (before > LIMIT_LINES) {
            log_write(level, module, "lines_dropped n=%u like=\"%.40s\"",
                before - LIMIT_LINES, fmt);
        }
    }
    if (atomic_fetch_add(&limit->seen, 1) >= LIMIT_LINES) {
        return;
    }
    va_start(ap, fmt);
    log_vwrite(level, module, fmt, ap);
    va_end(ap);
}
