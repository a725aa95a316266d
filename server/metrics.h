/*
 * metrics.h - counters of the HTTP side, and the Prometheus text.
 *
 * Counting is a few relaxed atomic additions, any thread; reading may see a
 * request counted in one series and not yet in another.
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "server/daemon.h"
#include "server/route.h"

struct metrics;

enum err metrics_new(struct metrics **out) NODISCARD;
void metrics_free(struct metrics *metrics);

/* A request is over. route NULL: none matched; status 0: the connection broke
   before an answer. */
void metrics_count(struct metrics *metrics, const struct route *route,
    int status, int64_t duration_ns);

/* Append the whole page. Blocks on the engine (per collection figures). */
enum err metrics_write(struct daemon *daemon, struct arena *arena,
    struct buf *out, struct fault *fault) NODISCARD;

#endif
