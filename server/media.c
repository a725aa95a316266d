#include "server/media.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Metadata, a vector, names; a text with escapes has twice its bytes. */
#define IMPORT_REST ((size_t)1 << 20)

bool
media_is(const char *value, const char *name)
{
    size_t len = strcspn(value, "; \t");
    return len == strlen(name) && strncasecmp(value, name, len) == 0;
}

bool
media_is_ndjson(const char *value)
{
    return media_is(value, "application/x-ndjson") ||
           media_is(value, "application/ndjson") ||
           media_is(value, "application/jsonl");
}

/* A picture's type is told by its bytes, so that none and octet-stream do. */
static bool
media_is_picture(const char *value)
{
    static const char *const names[] = {"image/jpeg", "image/jpg", "image/png",
        "image/webp", "application/octet-stream"};
    if (value[0] == '\0')
        return true;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (media_is(value, names[i]))
            return true;
    return false;
}

bool
media_is_stream(const struct route *route, const char *type)
{
    return route->body == BODY_TAR ||
           (route->lines != LINES_NONE && media_is_ndjson(type));
}

size_t
media_body_max(const struct route *route, const struct config *config)
{
    if (route->body == BODY_TAR)
        return (size_t)config->encoder_bytes_max;
    if (route->body != BODY_IMAGE)
        return (size_t)config->body_bytes_max;
    /* One that could never come in is refused for good, not for now. */
    return (size_t)MIN(config->image_bytes_max, config->body_memory_bytes);
}

size_t
media_line_max(const struct route *route, const struct config *config)
{
    size_t max = (size_t)config->line_bytes_max;
    if (route->lines != LINES_IMPORT)
        return max;
    size_t picture = (size_t)config->image_bytes_max / 3 * 4 + 4;
    return MAX(max, picture + 2 * (size_t)config->text_bytes_max + IMPORT_REST);
}

static int
refuse(char *detail, int status, const char *sentence)
{
    (void)snprintf(detail, FAULT_DETAIL_MAX, "%s", sentence);
    return status;
}

int
media_check(const struct route *route, const struct config *config,
    const struct media_body *body, char *detail)
{
    bool ndjson = media_is_ndjson(body->type);
    bool takes_lines = route->body == BODY_LINES || route->body == BODY_STREAM;
    if (route->body == BODY_NONE)
        return 0; /* a body without meaning is read and thrown away */
    if (ndjson && takes_lines)
        return 0;
    if (route->body == BODY_STREAM)
        return refuse(detail, 415,
            "send Content-Type: application/x-ndjson, one JSON object a line");
    if (route->body == BODY_TAR && !media_is(body->type, "application/x-tar"))
        return refuse(detail, 415,
            "send the folder as a tar stream, not compressed, with "
            "Content-Type: application/x-tar");
    if (!body->present)
        return 0;
    if (route->body == BODY_IMAGE) {
        if (!media_is_picture(body->type))
            return refuse(detail, 415,
                "send the picture's bytes with Content-Type: image/jpeg, "
                "image/png, image/webp or application/octet-stream");
    } else if (route->body != BODY_TAR &&
               !media_is(body->type, "application/json")) {
        return refuse(detail, 415,
            route->body == BODY_LINES
                ? "send Content-Type: application/json or application/x-ndjson"
                : "send Content-Type: application/json");
    }
    size_t max = media_body_max(route, config);
    if (body->content_length > 0 && (size_t)body->content_length > max) {
        (void)snprintf(detail, FAULT_DETAIL_MAX,
            "the body has %lld bytes; the limit is %zu%s", body->content_length,
            max, route->body == BODY_LINES ? " (none for NDJSON)" : "");
        return 413;
    }
    return 0;
}
