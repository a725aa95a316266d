#include "server/args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "engine/engine.h"

enum err
args_only(const struct request *req, const char *const *names, size_t n,
    struct fault *fault)
{
    for (size_t i = 0; i < req->n_query; i++) {
        bool known = false;
        for (size_t k = 0; k < n; k++)
            known = known || strcmp(req->query[i].name, names[k]) == 0;
        if (!known)
            return fault_set(fault, ERR_INVALID, "",
                "unknown query argument \"%.60s\"", req->query[i].name);
    }
    return OK;
}

enum err
args_int(const struct request *req, const char *name, int64_t min, int64_t max,
    int64_t *out, struct fault *fault)
{
    const char *value = request_query(req, name);
    if (!value)
        return OK;
    char *end = NULL;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || n < min || n > max) {
        char pointer[64];
        (void)snprintf(pointer, sizeof(pointer), "/%.60s", name);
        return fault_set(fault, ERR_INVALID, pointer,
            "%.60s must be a whole number within %lld..%lld", name,
            (long long)min, (long long)max);
    }
    *out = n;
    return OK;
}

enum err
args_bool(
    const struct request *req, const char *name, bool *out, struct fault *fault)
{
    const char *value = request_query(req, name);
    if (!value)
        return OK;
    if (value[0] == '\0' || strcmp(value, "true") == 0 ||
        strcmp(value, "1") == 0) {
        *out = true;
    } else if (strcmp(value, "false") == 0 || strcmp(value, "0") == 0) {
        *out = false;
    } else {
        char pointer[64];
        (void)snprintf(pointer, sizeof(pointer), "/%.60s", name);
        return fault_set(
            fault, ERR_INVALID, pointer, "%.60s must be true or false", name);
    }
    return OK;
}

enum err
args_f64(const struct request *req, const char *name, double min, double max,
    double *out, struct fault *fault)
{
    const char *value = request_query(req, name);
    if (!value)
        return OK;
    char *end = NULL;
    double v = strtod(value, &end);
    if (end == value || *end != '\0' || !(v >= min && v <= max)) {
        char pointer[64];
        (void)snprintf(pointer, sizeof(pointer), "/%.60s", name);
        return fault_set(fault, ERR_INVALID, pointer,
            "%.60s must be a number within %g..%g", name, min, max);
    }
    *out = v;
    return OK;
}

/* Every write waits until searches see it, so both values are kept. */
enum err
args_wait(const struct request *req, struct fault *fault)
{
    const char *wait = request_query(req, "wait");
    if (wait && strcmp(wait, "searchable") != 0 &&
        strcmp(wait, "committed") != 0)
        return fault_set(fault, ERR_INVALID, "/wait",
            "wait must be \"searchable\" or \"committed\"");
    return OK;
}

enum err
args_path_id(const struct request *req, const char *name, int64_t *out,
    struct fault *fault)
{
    const char *value = request_param(req, name);
    char *end = NULL;
    errno = 0;
    long long n = value ? strtoll(value, &end, 10) : 0;
    if (!value || value[0] < '0' || value[0] > '9' || errno != 0 ||
        *end != '\0' || n < 1)
        return fault_set(fault, ERR_NOT_FOUND, "", "there is no %s \"%.60s\"",
            name, value ? value : "");
    *out = n;
    return OK;
}

/* One entity tag at s: "123", perhaps weak. Returns what follows it, NULL when
   it is none; *version is -1 for a tag that cannot be one of ours. */
static const char *
read_tag(const char *s, int64_t *version)
{
    while (*s == ' ' || *s == '\t' || *s == ',')
        s++;
    bool weak = strncmp(s, "W/", 2) == 0;
    if (weak)
        s += 2;
    if (*s != '"')
        return NULL;
    const char *close = strchr(s + 1, '"');
    if (!close)
        return NULL;
    char *end = NULL;
    errno = 0;
    long long n = strtoll(s + 1, &end, 10);
    *version = !weak && errno == 0 && end == close && n > 0 ? n : -1;
    return close + 1;
}

enum err
args_condition(
    struct request *req, struct engine_condition *out, struct fault *fault)
{
    struct engine_condition got = {0};
    const char *match = req->headers.if_match;
    const char *none = req->headers.if_none_match;
    if (none[0] != '\0') {
        if (strcmp(none, "*") != 0)
            return fault_set(
                fault, ERR_INVALID, "", "If-None-Match takes only * here");
        got.must_be_absent = true;
    }
    if (strcmp(match, "*") == 0) {
        got.must_exist = true;
    } else if (match[0] != '\0') {
        size_t cap = 1;
        for (const char *s = match; *s; s++)
            cap += *s == ',';
        int64_t *versions = arena_alloc(&req->arena, cap, sizeof(*versions));
        if (!versions)
            return fault_set(fault, ERR_NOMEM, "", "out of memory");
        for (const char *s = match; *s && got.n_versions < cap;) {
            s = read_tag(s, &versions[got.n_versions]);
            if (!s)
                return fault_set(fault, ERR_INVALID, "",
                    "If-Match must be * or entity tags such as \"17\"");
            got.n_versions++;
        }
        got.versions = versions;
    }
    *out = got;
    return OK;
}

bool
args_not_modified(const struct request *req, int64_t version)
{
    const char *s = req->headers.if_none_match;
    if (strcmp(s, "*") == 0)
        return true;
    while (s && *s) {
        int64_t tag = -1;
        s = read_tag(s, &tag);
        if (s && tag == version)
            return true;
    }
    return false;
}
