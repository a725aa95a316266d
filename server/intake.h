/*
 * intake.h - a body that is worked on while it comes, so that its length costs
 * no memory: NDJSON in, outcomes out; or a tar, into a file.
 *
 * The event loop copies what it reads into a small buffer and, when that is
 * full and the worker has not taken it, leaves the rest unread and suspends
 * the connection. It holds no thread while it waits for bytes.
 *
 * Of NDJSON a worker cuts the bytes into lines and gives them to the engine's
 * bulk. One outcome a line goes to a spool (memory, then an unlinked file) and
 * is sent after the body, so that neither side needs memory for the other's
 * slowness.
 *
 * A bulk holds several batches in memory, so only bulk_streams of them are
 * open at once (the gate). Who waits for the gate is suspended, unread; who
 * has it and waits for the network gives it up when another asks.
 *
 * Of a tar (BODY_TAR) the bytes go to an unlinked file of the data folder; the
 * route's handler runs when it is whole.
 *
 * Locks: gate before request.
 */
#ifndef SERVER_INTAKE_H
#define SERVER_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"
#include "server/daemon.h"
#include "server/http.h"

struct intake;
struct gate;

enum err gate_new(struct gate **out, size_t places) NODISCARD;
void gate_free(struct gate *gate);

/* Start taking in the request's body. ERR_INVALID: ?outcomes= is neither "all"
   nor "errors"; ERR_NOMEM. Loop only. */
enum err intake_new(struct request *req) NODISCARD;
/* The last reference to the request is gone. */
void intake_free(struct intake *intake);

/* n bytes came; returns how many were taken. Fewer than n: the connection is
   suspended and the rest must stay unread. Loop only. */
size_t intake_bytes(struct request *req, const char *bytes, size_t n);

/* The reply was made before the end of the body: what still comes is thrown
   away. Loop only. */
bool intake_is_over(struct request *req);

/* The body is complete: the connection is suspended until the reply is done.
   Loop only. */
void intake_end(struct request *req);

/* The connection broke before the body was complete. Loop only. */
void intake_abort(struct request *req);

/* The body as a file without a name, from its start; -1 when it is empty. For
   the handler of a BODY_TAR route; the intake keeps it. */
int intake_file(const struct request *req);

/* Work on what has come. Worker only. */
void intake_work(struct request *req);

#endif
