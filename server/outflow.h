/*
 * outflow.h - replies that are made while they are sent.
 *
 * The event loop's reader takes bytes from a buffer; when it is empty the
 * connection is suspended and a worker asked for the next piece. So a slow
 * reader holds one piece of memory and no thread.
 */
#ifndef SERVER_OUTFLOW_H
#define SERVER_OUTFLOW_H

#include "server/http.h"

struct MHD_Response;

/* The library's response for req->reply.next. Takes the reply's state: done
   is called when the response is destroyed, or at once on failure (NULL).
   Loop only. */
struct MHD_Response *outflow_new(struct request *req);

/* Make the next piece. Worker only. */
void outflow_work(struct request *req);

#endif
