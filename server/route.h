/*
 * route.h - the one table of endpoints.
 *
 * Everything that differs between endpoints and is not their work stands
 * here: method, pattern, key, body, which threads answer, the name that
 * metrics and openapi.json use. A test compares the table with openapi.json.
 */
#ifndef SERVER_ROUTE_H
#define SERVER_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include "server/uri.h"

struct request;

typedef void ep_fn(struct request *req);

/* What a key allows; each includes those before it. */
enum scope { SCOPE_NONE, SCOPE_READ, SCOPE_WRITE, SCOPE_ADMIN };

enum body_kind {
    BODY_NONE,   /* a body is refused unless it is empty */
    BODY_JSON,   /* application/json */
    BODY_LINES,  /* application/json, or application/x-ndjson as a stream */
    BODY_STREAM, /* application/x-ndjson only */
    BODY_IMAGE,  /* a picture's bytes, with a limit of their own */
    BODY_TAR     /* application/x-tar, into a file, with a limit of its own */
};

enum work_pool {
    POOL_QUICK, /* never blocks: answered on the event loop */
    POOL_READ,
    POOL_WRITE
};

enum lines_kind { LINES_NONE, LINES_ITEMS, LINES_PAIRS, LINES_IMPORT };

#define ROUTE_IDEMPOTENT 1u /* POST that honours Idempotency-Key */
#define ROUTE_OPENAI 2u     /* errors in OpenAI's shape */
#define ROUTE_BODY_OPTIONAL 4u

struct route {
    const char *method;
    const char *pattern;
    const char *name; /* operationId */
    enum scope scope;
    enum body_kind body;
    enum work_pool pool;
    enum lines_kind lines;
    unsigned flags;
    ep_fn *fn;
};

extern const struct route routes[];
extern const size_t n_routes;

/*
 * route_find - the route of a method and an undecoded path.
 *
 *   params, n_params  as uri_match gives them
 *   allow             [cap] gets the methods of the path, "GET, HEAD, ...",
 *                     empty when no pattern matches
 *
 * NULL when the path is unknown (allow empty) or the method is not offered.
 * HEAD finds GET's route. A literal segment wins over a {name}.
 */
const struct route *route_find(const char *method, const char *path,
    size_t path_len, struct uri_slice params[URI_PARAMS_MAX], size_t *n_params,
    char *allow, size_t cap);

#endif
