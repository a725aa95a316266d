#include "server/problem.h"

#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "server/http.h"

struct problem_kind {
    int status;
    const char *slug;
    const char *title;
    const char *openai_type;
};

/* Every status that the daemon refuses with; the first of a status is its
   general form. */
static const struct problem_kind kinds[] = {
    {400, "malformed", "Malformed request", "invalid_request_error"},
    {401, "unauthorized", "Key missing or unknown", "authentication_error"},
    {403, "forbidden", "Key does not allow this", "permission_error"},
    {404, "not-found", "Not found", "invalid_request_error"},
    {405, "method-not-allowed", "Method not allowed", "invalid_request_error"},
    {408, "too-slow", "Request came too slowly", "invalid_request_error"},
    {409, "conflict", "Conflict with the present state",
        "invalid_request_error"},
    {412, "precondition-failed", "Precondition failed",
        "invalid_request_error"},
    {413, "too-large", "Over a limit", "invalid_request_error"},
    {414, "target-too-long", "Request target too long",
        "invalid_request_error"},
    {415, "unsupported-media-type", "Content-Type not taken",
        "invalid_request_error"},
    {417, "expectation-failed", "Expectation not met", "invalid_request_error"},
    {422, "invalid", "Value not allowed", "invalid_request_error"},
    {429, "too-many", "Too many requests", "rate_limit_error"},
    {500, "internal", "Internal error", "server_error"},
    {501, "not-in-this-version", "Not in this version", "server_error"},
    {503, "unavailable", "Not available now", "server_error"},
    {507, "storage-full", "No space left", "server_error"},
};

static const struct problem_kind *
kind_of(int status)
{
    const struct problem_kind *internal = NULL;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].status == status)
            return &kinds[i];
        if (kinds[i].status == 500)
            internal = &kinds[i];
    }
    return internal;
}

int
problem_status(enum err err)
{
    switch (err) {
    case OK:
        return 200;
    case ERR_SYNTAX:
        return 400;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_EXISTS:
    case ERR_CONFLICT:
        return 409;
    case ERR_PRECONDITION:
        return 412;
    case ERR_TOO_LARGE:
        return 413;
    case ERR_INVALID:
        return 422;
    case ERR_UNSUPPORTED:
        return 501;
    case ERR_FULL:
        return 507;
    case ERR_NOMEM:
    case ERR_BUSY:
    case ERR_LOCKED:
    case ERR_TIMEOUT:
    case ERR_CANCELLED:
    case ERR_READ_ONLY:
        return 503;
    case ERR_IO:
    case ERR_CORRUPT:
    case ERR_NEWER:
    case ERR_INTERNAL:
    case ERR_COUNT:
        return 500;
    }
    return 500;
}

int
problem_fault_status(const struct fault *fault)
{
    static const char image[] = "/image";
    size_t len = strlen(fault->pointer);
    size_t n = sizeof(image) - 1;
    if (fault->err != ERR_UNSUPPORTED)
        return problem_status(fault->err);
    if (len >= n && strcmp(fault->pointer + len - n, image) == 0)
        return 422;
    return len == 0 ? 409 : problem_status(fault->err);
}

int
problem_retry_after(int status)
{
    return status == 503 ? 1 : status == 429 ? 60 : 0;
}

void
problem_write(struct buf *out, int status, const struct fault *fault,
    const char *request_id)
{
    if (status == 0)
        status = problem_fault_status(fault);
    const struct problem_kind *kind = kind_of(status);
    buf_printf(out,
        "{\"type\":\"urn:kindred:problem:%s\",\"title\":\"%s\","
        "\"status\":%d,\"detail\":",
        kind->slug, kind->title, status);
    buf_json_cstr(out, fault->detail);
    buf_add_str(out, ",\"errors\":[");
    if (fault->pointer[0] != '\0') {
        buf_add_str(out, "{\"pointer\":");
        buf_json_cstr(out, fault->pointer);
        buf_add_str(out, ",\"detail\":");
        buf_json_cstr(out, fault->detail);
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
    if (fault->extra_id != 0 && status == 409)
        buf_printf(out, ",\"job\":%lld", fault->extra_id);
    if (request_id) {
        buf_add_str(out, ",\"request_id\":");
        buf_json_cstr(out, request_id);
    }
    buf_add_char(out, '}');
}

static void
openai_write(struct buf *out, int status, const struct fault *fault)
{
    const struct problem_kind *kind = kind_of(status);
    buf_add_str(out, "{\"error\":{\"message\":");
    buf_json_cstr(out, fault->detail);
    buf_printf(out, ",\"type\":\"%s\",\"param\":", kind->openai_type);
    /* OpenAI names a parameter, not a pointer: "input", "dimensions". */
    if (fault->pointer[0] == '/') {
        const char *name = fault->pointer + 1;
        buf_json_string(out, name, strcspn(name, "/"));
    } else {
        buf_add_str(out, "null");
    }
    buf_add_str(out, ",\"code\":");
    if (status == 404)
        buf_add_str(out, "\"model_not_found\"");
    else if (status == 401)
        buf_add_str(out, "\"invalid_api_key\"");
    else
        buf_printf(out, "\"%s\"", kind->slug);
    buf_add_str(out, "}}");
}

static void
reply_with(struct request *req, int status, const struct fault *fault)
{
    reply_reset(req);
    bool openai = req->route && (req->route->flags & ROUTE_OPENAI);
    struct buf *out = reply_json(req, status);
    req->reply.refusal =
        arena_strndup(&req->arena, fault->detail, strlen(fault->detail));
    if (openai) {
        openai_write(out, status, fault);
    } else {
        req->reply.content_type = "application/problem+json";
        problem_write(out, status, fault, req->id);
    }
    static const char *const seconds[] = {"1", "60"};
    int after = problem_retry_after(status);
    if (after != 0)
        reply_header(req, "Retry-After", seconds[after == 60]);
    if (status == 401)
        reply_header(req, "WWW-Authenticate", "Bearer realm=\"kindred\"");
    if (status == 409 && fault->extra_id > 0)
        reply_header_f(req, "Location", "/v1/jobs/%lld", fault->extra_id);
}

void
problem_reply(struct request *req, const struct fault *fault)
{
    static struct log_limit limit;
    struct fault safe = *fault;
    if (safe.err == OK) { /* a refusal that forgot its reason */
        safe.err = ERR_INTERNAL;
        safe.detail[0] = '\0';
    }
    if (safe.detail[0] == '\0')
        (void)snprintf(
            safe.detail, sizeof(safe.detail), "%s", err_text(safe.err));
    int status = problem_fault_status(&safe);
    if (status == 500)
        log_limited(&limit, LOG_ERROR, "http",
            "internal_error request=%s route=%s code=%d", req->id,
            req->route ? req->route->name : "-", (int)safe.err);
    reply_with(req, status, &safe);
}

void
problem_reply_as(struct request *req, int status, const struct fault *fault)
{
    reply_with(req, status, fault);
}

void
problem_reply_status(struct request *req, int status, const char *detail)
{
    struct fault fault = {0};
    (void)snprintf(fault.detail, sizeof(fault.detail), "%s", detail);
    reply_with(req, status, &fault);
}
