/*
 * events.h - Server-Sent Events of jobs, without a thread for each stream.
 *
 * One thread serves all streams: the engine's hook or the clock wakes it, it
 * reads the new events of each stream's job into the stream's buffer and
 * resumes the connection. A stream whose client does not read gets no more
 * than a bounded buffer; events beyond the engine's memory are skipped, which
 * the ids show.
 */
#ifndef SERVER_EVENTS_H
#define SERVER_EVENTS_H

#include <stdint.h>
#include "base/err.h"
#include "server/http.h"

struct events;
struct MHD_Response;

enum err events_new(struct events **out, struct daemon *daemon) NODISCARD;
/* End every stream and join the thread; before http_stop ends the loops. */
void events_stop(struct events *events);
void events_free(struct events *events);

/* An engine_event_hook; arg is the struct events. */
void events_hook(void *arg, int64_t job_id);

/* True while another stream is allowed. */
bool events_has_room(struct events *events);

/* The library's response for req->reply.events_job; NULL when memory is out.
   Loop only. */
struct MHD_Response *events_response(
    struct events *events, struct request *req);

#endif
