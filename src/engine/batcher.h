/*
 * batcher.h - texts of requests that wait at the same time, encoded in one
 * call.
 *
 * A network reads its weights once a call, whatever the number of texts, so
 * that texts together cost less than one by one. At most n_lanes calls run at
 * a time, each on the thread of one of the requests. A request that finds a
 * lane free goes at once: nothing waits for company. When all are taken it
 * waits, and who gets the next lane takes along the others that wait for the
 * same encoder, the oldest first, up to BATCHER_BYTES of text, which bounds
 * what being taken along may add to an answer's time. Encoders that are no
 * networks (static: tens of microseconds a text) pass through, and so do
 * BATCHER_ALONE texts or more of one request, which the pool shares.
 */
#ifndef ENGINE_BATCHER_H
#define ENGINE_BATCHER_H

#include <stddef.h>
#include "base/err.h"
#include "model/encoder.h"

#define BATCHER_BYTES 2048 /* about 500 tokens */
#define BATCHER_ALONE 8

struct batcher;

/* n_lanes: the processors, or less; pool is borrowed. ERR_NOMEM. */
enum err batcher_new(
    struct batcher **out, size_t n_lanes, struct pool *pool) NODISCARD;
void batcher_free(
    struct batcher *batcher); /* not while calls run; NULL: fine */

/* As encoder_encode, on the calling thread or another request's. A text's
   vector differs by rounding with what it was taken along with. */
enum err batcher_encode(struct batcher *batcher, const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info) NODISCARD;

#endif
