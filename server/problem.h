/*
 * problem.h - refusals: from an enum err to a status, a title and a document.
 *
 * The only place where an error code becomes HTTP. Bodies are RFC 9457
 * problem documents:
 *
 *     {"type": "urn:kindred:problem:invalid", "title": "Value not allowed",
 *      "status": 422, "detail": "k is 0; it must be within 1..1000",
 *      "errors": [{"pointer": "/k", "detail": "..."}], "request_id": "..."}
 *
 * and on the OpenAI route {"error": {"message", "type", "param", "code"}}.
 */
#ifndef SERVER_PROBLEM_H
#define SERVER_PROBLEM_H

#include "base/buf.h"
#include "base/err.h"

struct request;

int problem_status(enum err err);
/* The same of a whole fault. ERR_UNSUPPORTED is told apart: a picture of a
   kind that is not taken is refused for good (422); without a pointer it is the
   collection that is fixed as one that does not do this (409); else it is for
   a later version (501). */
int problem_fault_status(const struct fault *fault);

/* Seconds for Retry-After, or 0 when the status has none. */
int problem_retry_after(int status);

/* Append the document of a fault; status 0: the one of fault->err. */
void problem_write(struct buf *out, int status, const struct fault *fault,
    const char *request_id);

/* Make the refusal the request's reply, in the route's shape, with the headers
   that belong to it. Whatever the handler made before is dropped. */
void problem_reply(struct request *req, const struct fault *fault);
/* The same with another status than the code's. */
void problem_reply_as(
    struct request *req, int status, const struct fault *fault);
/* The same with a status that no error code has (401, 405, 415, ...). */
void problem_reply_status(struct request *req, int status, const char *detail);

#endif
