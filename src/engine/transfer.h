/*
 * transfer.h - the lines of an export, read again.
 *
 *   {"kindred_export": 1, "collection": "docs", "fingerprint": "...",
 *    "settings": {...}}                                       first
 *   {"item": {"id": "...", "title": "...", "text": "...",
 *             "metadata": {...}, "image": "<base64 of the file>",
 *             "vector": "<base64 of f32, little-endian>"}}
 *   {"pair": {"anchor": {...}, "positive": {...}, "negatives": [...],
 *             "weight": 1, "group": "..."}}
 *
 * Of a collection with "images": "vector" the items have their vectors and no
 * pictures; they are taken only into such a collection of the same fingerprint,
 * as nothing could embed them again. What was known of their pictures (type,
 * size, hash) is not in the export.
 *
 * What a line gave is valid until the next is read. One thread at a time.
 */
#ifndef ENGINE_TRANSFER_H
#define ENGINE_TRANSFER_H

#include <stddef.h>
#include "base/err.h"
#include "engine/engine.h"

#define TRANSFER_VERSION 1
/* A picture of 48 MiB in base64, and the rest of its item. */
#define TRANSFER_LINE_BYTES_MAX ((size_t)72 << 20)

struct collection;
struct transfer_line;

enum transfer_kind { TRANSFER_NOTHING, TRANSFER_ITEM, TRANSFER_PAIR };

enum err transfer_line_new(
    struct transfer_line **out, struct collection *c) NODISCARD;
void transfer_line_free(struct transfer_line *line);
/* Read a line. The first line of an export, and an empty one, are nothing. */
enum err transfer_line_read(struct transfer_line *line, const char *text,
    size_t len, enum transfer_kind *kind, struct fault *fault) NODISCARD;
const struct engine_item *transfer_line_item(const struct transfer_line *line);
const struct engine_pair *transfer_line_pair(const struct transfer_line *line);
/* Of the space whose vectors the export has; "" until it is known. Constant
   address. */
const char *transfer_line_fingerprint(const struct transfer_line *line);

#endif
