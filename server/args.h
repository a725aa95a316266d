/*
 * args.h - query arguments and conditional headers, read and refused in one
 * way by all endpoints.
 */
#ifndef SERVER_ARGS_H
#define SERVER_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "server/http.h"

struct engine_condition;

/* Refuse an argument whose name is none of the n. */
enum err args_only(const struct request *req, const char *const *names,
    size_t n, struct fault *fault) NODISCARD;

/* A whole number in [min, max]; untouched when absent. */
enum err args_int(const struct request *req, const char *name, int64_t min,
    int64_t max, int64_t *out, struct fault *fault) NODISCARD;

/* true, 1 or empty; false, 0; untouched when absent. */
enum err args_bool(const struct request *req, const char *name, bool *out,
    struct fault *fault) NODISCARD;

/* A finite number in [min, max]; untouched when absent. */
enum err args_f64(const struct request *req, const char *name, double min,
    double max, double *out, struct fault *fault) NODISCARD;

/* "wait" of a write: searchable or committed, which are the same here. */
enum err args_wait(const struct request *req, struct fault *fault) NODISCARD;

/* A path segment that is a number from 1; anything else is not found. */
enum err args_path_id(const struct request *req, const char *name, int64_t *out,
    struct fault *fault) NODISCARD;

/* If-Match and If-None-Match; the versions are in the request's arena. */
enum err args_condition(struct request *req, struct engine_condition *out,
    struct fault *fault) NODISCARD;

/* True when If-None-Match of a GET names this version (or is *). */
bool args_not_modified(const struct request *req, int64_t version);

#endif
