#include "server/events.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "engine/engine.h"

#define STREAM_BYTES_MAX 65536 /* unsent text of one stream */
#define TICK_MS 500            /* the hook is a hint; the clock makes sure */

/*
 * One open stream. In the list from its response's making to its destruction.
 * The thread works on it with the list's lock held, which is enough to keep
 * it; text, at, ended belong to req->lock. Order: list before request.
 */
struct stream {
    struct stream *next;
    struct stream *prev;
    struct request *req; /* counted */
    struct events *events;
    struct buf text;
    size_t at;
    int64_t after_id; /* list lock: last event that was read */
    int64_t said_ms;  /* list lock: when something was last appended */
    bool ended;       /* no more will be appended */
};

struct events {
    struct daemon *daemon;
    pthread_t thread;
    pthread_mutex_t lock;
    struct stream *streams; /* lock */
    size_t n_streams;       /* lock */
    bool stopping;          /* lock */
    bool runs;
    /* The hook runs under the engine's locks, and the thread calls the engine
       with the list's lock held: so the hook has a lock of its own. */
    pthread_mutex_t wake_lock;
    pthread_cond_t wake;
    bool news; /* wake_lock */
};

static void
events_wake(struct events *events)
{
    pthread_mutex_lock(&events->wake_lock);
    events->news = true;
    pthread_cond_signal(&events->wake);
    pthread_mutex_unlock(&events->wake_lock);
}

void
events_hook(void *arg, int64_t job_id)
{
    (void)job_id;
    events_wake(arg);
}

struct reader {
    struct stream *stream;
    struct buf text;
    bool full;
};

static void
take_event(void *arg, const struct engine_event *event)
{
    struct reader *reader = arg;
    if (reader->full || event->id <= reader->stream->after_id)
        return;
    size_t before = reader->text.len;
    buf_printf(&reader->text,
        "id: %lld\nevent: %s\ndata: ", (long long)event->id, event->type);
    buf_add_str(&reader->text, event->data);
    buf_add_str(&reader->text, "\n\n");
    if (buf_status(&reader->text) != OK) {
        /* Not this one: it is read again when the client has caught up. */
        reader->text.err = OK;
        reader->text.len = before;
        reader->full = true;
        return;
    }
    reader->stream->after_id = event->id;
}

/* The list's lock is held. */
static void
stream_update(struct stream *stream, int64_t now_ms)
{
    struct events *events = stream->events;
    struct request *req = stream->req;
    struct reader reader = {.stream = stream};
    pthread_mutex_lock(&req->lock);
    size_t unsent = stream->text.len - stream->at;
    bool ended = stream->ended;
    pthread_mutex_unlock(&req->lock);
    if (ended)
        return;
    /* A client that does not read gets no more until it does. */
    buf_init(&reader.text, STREAM_BYTES_MAX);
    bool no_more = false;
    if (unsent < STREAM_BYTES_MAX / 2) {
        enum err err =
            engine_job_events(events->daemon->engine, req->reply.events_job,
                stream->after_id, take_event, &reader, &no_more, NULL);
        if (err != OK)
            no_more = true;
        if (reader.text.len == 0 && !no_more &&
            now_ms - stream->said_ms >=
                events->daemon->config.event_keep_alive_ms)
            buf_add_str(&reader.text, ": alive\n\n");
    }
    if (events->stopping)
        no_more = true;
    if (reader.text.len > 0 || no_more) {
        stream->said_ms = now_ms;
        pthread_mutex_lock(&req->lock);
        if (stream->at == stream->text.len) {
            buf_clear(&stream->text);
            stream->at = 0;
        }
        buf_add(&stream->text, reader.text.data ? reader.text.data : "",
            reader.text.len);
        if (buf_status(&stream->text) != OK)
            stream->ended = true;
        if (no_more && !reader.full)
            stream->ended = true;
        request_resume_locked(req);
        pthread_mutex_unlock(&req->lock);
    }
    buf_release(&reader.text);
}

static void
events_wait(struct events *events)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_mutex_lock(&events->wake_lock);
    int late = 0;
    while (!events->news && late == 0)
        late =
            pthread_cond_timedwait(&events->wake, &events->wake_lock, &until);
    events->news = false;
    pthread_mutex_unlock(&events->wake_lock);
}

static void *
events_main(void *arg)
{
    struct events *events = arg;
    bool last = false;
    while (!last) {
        events_wait(events);
        int64_t now_ms = clock_mono_ms();
        pthread_mutex_lock(&events->lock);
        last = events->stopping;
        for (struct stream *s = events->streams; s; s = s->next)
            stream_update(s, now_ms);
        pthread_mutex_unlock(&events->lock);
    }
    return NULL;
}

enum err
events_new(struct events **out, struct daemon *daemon)
{
    struct events *events = mem_calloc(1, sizeof(*events));
    if (!events)
        return ERR_NOMEM;
    events->daemon = daemon;
    pthread_mutex_init(&events->lock, NULL);
    pthread_mutex_init(&events->wake_lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&events->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    if (pthread_create(&events->thread, NULL, events_main, events) != 0) {
        events_free(events);
        return ERR_NOMEM;
    }
    events->runs = true;
    *out = events;
    return OK;
}

void
events_stop(struct events *events)
{
    if (!events || !events->runs)
        return;
    pthread_mutex_lock(&events->lock);
    events->stopping = true;
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
    (void)pthread_join(events->thread, NULL);
    events->runs = false;
}

void
events_free(struct events *events)
{
    if (!events)
        return;
    events_stop(events);
    ASSERT(events->streams == NULL);
    pthread_cond_destroy(&events->wake);
    pthread_mutex_destroy(&events->wake_lock);
    pthread_mutex_destroy(&events->lock);
    mem_free(events);
}

bool
events_has_room(struct events *events)
{
    pthread_mutex_lock(&events->lock);
    bool room =
        events->n_streams < (size_t)events->daemon->config.streams_max &&
        !events->stopping;
    pthread_mutex_unlock(&events->lock);
    return room;
}

static ssize_t
stream_read(void *cls, uint64_t pos, char *out, size_t max)
{
    (void)pos;
    struct stream *stream = cls;
    struct request *req = stream->req;
    ssize_t n = 0;
    pthread_mutex_lock(&req->lock);
    if (stream->at < stream->text.len) {
        n = (ssize_t)MIN(stream->text.len - stream->at, max);
        memcpy(out, stream->text.data + stream->at, (size_t)n);
        stream->at += (size_t)n;
    } else if (stream->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        request_suspend_locked(req);
    }
    pthread_mutex_unlock(&req->lock);
    /* What a stream waits for is news, not the client: only unsent bytes are
       subject to a deadline. */
    conn_phase_set(req->conn, CONN_REPLY,
        n > 0 ? req->daemon->config.keep_alive_ms : INT64_MAX / 4, req);
    return n;
}

static void
stream_done(void *cls)
{
    struct stream *stream = cls;
    struct events *events = stream->events;
    struct request *req = stream->req;
    pthread_mutex_lock(&events->lock);
    if (stream->prev)
        stream->prev->next = stream->next;
    else
        events->streams = stream->next;
    if (stream->next)
        stream->next->prev = stream->prev;
    events->n_streams--;
    pthread_mutex_unlock(&events->lock);
    buf_release(&stream->text);
    mem_free(stream);
    request_unref(req);
}

struct MHD_Response *
events_response(struct events *events, struct request *req)
{
    struct stream *stream = mem_calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->req = req;
    stream->events = events;
    stream->after_id = req->reply.events_after;
    stream->said_ms = clock_mono_ms();
    buf_init(&stream->text, 2 * STREAM_BYTES_MAX);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, 8192, stream_read, stream, stream_done);
    if (!response) {
        mem_free(stream);
        return NULL;
    }
    request_ref(req);
    pthread_mutex_lock(&events->lock);
    stream->ended = events->stopping;
    stream->next = events->streams;
    if (stream->next)
        stream->next->prev = stream;
    events->streams = stream;
    events->n_streams++;
    pthread_mutex_unlock(&events->lock);
    events_wake(events);
    return response;
}
