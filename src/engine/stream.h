/*
 * stream.h - what stands behind an engine_stream: something that gives its
 * bytes piece by piece and holds nothing between pieces.
 */
#ifndef ENGINE_STREAM_H
#define ENGINE_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

#define STREAM_PIECE_BYTES ((size_t)128 << 10)

/* Append a piece; *end when nothing follows. */
typedef enum err stream_next_fn(
    void *state, struct buf *chunk, bool *end, struct fault *fault);
typedef void stream_free_fn(void *state);

struct engine_stream {
    stream_next_fn *next;
    stream_free_fn *free;
    void *state;
    int64_t bytes; /* -1: not known */
};

/* Takes state, also on failure (it is freed then). */
enum err stream_new(struct engine_stream **out, stream_next_fn *next,
    stream_free_fn *free_fn, void *state, int64_t bytes) NODISCARD;

/* At start: remove the files and folders that a crash left half-streamed. */
void stream_sweep(const char *data_dir);

#endif
