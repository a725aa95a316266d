/*
 * idempotency.h - a POST that is sent again gets the answer it got before.
 *
 * The answer is kept by the engine for a day under the caller's key, with a
 * digest of method, path, query and body. Only answers that are final are
 * kept: those of success, and refusals of the request itself; not 429 and 5xx.
 * Two at the same time: the second gets 409 while the first runs.
 */
#ifndef SERVER_IDEMPOTENCY_H
#define SERVER_IDEMPOTENCY_H

struct request;

/* Run the route's handler, or repeat the answer. Worker only. */
void idempotency_run(struct request *req);

#endif
