/*
 * media.h - what a route takes as its body: the Content-Type and the size, told
 * before the body is read.
 */
#ifndef SERVER_MEDIA_H
#define SERVER_MEDIA_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"
#include "server/config.h"
#include "server/route.h"

/* The media type without its parameters is this one. */
bool media_is(const char *value, const char *name);
bool media_is_ndjson(const char *value);

/* A body of this type is taken in while it comes (intake.h). */
bool media_is_stream(const struct route *route, const char *type);

/* The longest body of the route, NDJSON apart. */
size_t media_body_max(const struct route *route, const struct config *config);

/* The longest line of its NDJSON. An import takes what an export made, so there
   the largest picture has room in base64, and whatever else an item holds. */
size_t media_line_max(const struct route *route, const struct config *config);

/* What the sender says of a body, from its header. */
struct media_body {
    const char *type;         /* "" when there is none */
    bool present;             /* chunked, or longer than 0 */
    long long content_length; /* 0 when chunked */
};

/*
 * media_check - may this body come?
 *
 *   detail  [FAULT_DETAIL_MAX] the sentence, when it may not
 *
 * Returns 0, or the status of the refusal: 415, 413.
 */
int media_check(const struct route *route, const struct config *config,
    const struct media_body *body, char *detail);

#endif
