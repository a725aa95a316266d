/*
 * http.h - one keep-alive connection to one daemon.
 *
 * Every function returns an exit code; when it is not EXIT_DONE the reason has
 * been printed. An answer of any status is EXIT_DONE for http_call and
 * http_stream (the caller may expect a 404); http_check and http_json turn a
 * status of 400 and above into the printed problem document and EXIT_REFUSED.
 */
#ifndef KINDRED_HTTP_H
#define KINDRED_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define HTTP_ANSWER_MAX ((size_t)1 << 30)
#define HTTP_READ_ABORT ((size_t)-1)

struct http;

struct answer {
    long status;
    struct buf body;
    char location[512];
    char request_id[128];
    char retry_after[32];
};

void answer_init(struct answer *answer);
void answer_release(struct answer *answer);

/* url without a final slash is borrowed; key may be NULL. */
int http_open(struct http **out, const char *url, const char *key);
void http_close(struct http *http);
const char *http_url(const struct http *http);

/*
 * http_call - one whole exchange.
 *
 *   body, len  JSON text, or NULL for none
 *   answer     initialised; overwritten
 */
int http_call(struct http *http, const char *method, const char *path,
    const char *body, size_t len, struct answer *answer);

/* The same with a body of any type. */
int http_send(struct http *http, const char *method, const char *path,
    const char *content_type, const char *body, size_t len,
    struct answer *answer);

/* A body that is made while it is sent, an answer that is read while it
   comes. Bodies of error answers go to answer->body instead of write. */
struct http_stream {
    const char *method;
    const char *path;
    const char *content_type; /* of the body; NULL without one */
    const char *last_event_id;
    const char *accept;
    /* Up to max bytes; 0 at the end; HTTP_READ_ABORT to give up. */
    size_t (*read)(void *arg, char *out, size_t max);
    uint64_t length; /* of the body; 0: not known before its end */
    /* false to stop reading: no error then, and answer->status is kept. */
    bool (*write)(void *arg, const char *bytes, size_t n);
    void (*tick)(void *arg); /* several times a second; may be NULL */
    void *arg;
    bool quiet; /* say nothing when the connection breaks */
};
int http_stream(
    struct http *http, const struct http_stream *stream, struct answer *answer);

/* EXIT_DONE below 400; else print the problem document, EXIT_REFUSED. */
int http_check(const struct http *http, const struct answer *answer);

/*
 * http_json - call with a JSON body and parse a JSON answer.
 *
 *   body    borrowed, or NULL
 *   out     the caller json_decrefs; NULL if the answer is of no interest
 *   status  of the answer; may be NULL
 */
int http_json(struct http *http, const char *method, const char *path,
    const json_t *body, json_t **out, long *status);

/*
 * http_pages - every element of a collection's list, page by page.
 *
 *   member  "items" or "pairs": the last part of the path, and the array
 *   label   of the progress that is shown; NULL: none
 */
typedef void http_element_fn(void *arg, json_t *element);
int http_pages(struct http *http, const char *collection, const char *member,
    const char *label, http_element_fn *fn, void *arg);

/* Append s percent-encoded as one path segment. */
void path_add_segment(struct buf *path, const char *s);

/* "/v1/collections/NAME" + suffix, "/v1/admin/collections/NAME" + suffix. */
void path_collection(struct buf *path, const char *name, const char *suffix);
void path_admin(struct buf *path, const char *name, const char *suffix);

/* The sentence of a problem document or an error line: its detail, title,
   OpenAI message, whichever there is. Valid as long as problem. */
const char *problem_text(const json_t *problem);

#endif
