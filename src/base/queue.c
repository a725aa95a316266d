#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "base/alloc.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty;
    pthread_cond_t not_full;
    void **ring;  /* lock */
    size_t max;   /* immutable */
    size_t first; /* lock */
    size_t n;     /* lock */
    bool closed;  /* lock */
};

enum err
queue_new(struct queue **out, size_t max_entries)
{
    struct queue *queue;
    pthread_condattr_t attr;

    ASSERT(max_entries > 0);
    queue = mem_calloc(1, sizeof(*queue));
    if (queue == NULL) {
        return ERR_NOMEM;
    }
    queue->ring = mem_alloc(max_entries, sizeof(*queue->ring));
    if (queue->ring == NULL) {
        mem_free(queue);
        return ERR_NOMEM;
    }
    queue->max = max_entries;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->not_full, NULL);
    /* A timed pop must not notice that somebody set the wall clock. */
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->not_empty, &attr);
    pthread_condattr_destroy(&attr);
    *out = queue;
    return OK;
}

void
queue_free(struct queue *queue)
{
    if (queue == NULL) {
        return;
    }
    ASSERT(queue->n == 0);
    pthread_cond_destroy(&queue->not_empty);
    pthread_cond_destroy(&queue->not_full);
    pthread_mutex_destroy(&queue->lock);
    mem_free(queue->ring);
    mem_free(queue);
}

static void
put(struct queue *queue, void *entry)
{
    size_t at = queue->first + queue->n;

    queue->ring[at >= queue->max ? at - queue->max : at] = entry;
    queue->n++;
    pthread_cond_signal(&queue->not_empty);
}

static void *
take(struct queue *queue)
{
    void *entry = queue->ring[queue->first];

    queue->first = queue->first + 1 == queue->max ? 0 : queue->first + 1;
    queue->n--;
    pthread_cond_signal(&queue->not_full);
    return entry;
}

enum err
queue_try_push(struct queue *queue, void *entry)
{
    enum err err = OK;

    ASSERT(entry != NULL);
    pthread_mutex_lock(&queue->lock);
    if (queue->closed) {
        err = ERR_CANCELLED;
    } else if (queue->n == queue->max) {
        err = ERR_BUSY;
    } else {
        put(queue, entry);
    }
    pthread_mutex_unlock(&queue->lock);
    return err;
}

enum err
queue_push(struct queue *queue, void *entry)
{
    enum err err = OK;

    ASSERT(entry != NULL);
    pthread_mutex_lock(&queue->lock);
    while (!queue->closed && queue->n == queue->max) {
        pthread_cond_wait(&queue->not_full, &queue->lock);
    }
    if (queue->closed) {
        err = ERR_CANCELLED;
    } else {
        put(queue, entry);
    }
    pthread_mutex_unlock(&queue->lock);
    return err;
}

void *
queue_pop(struct queue *queue)
{
    void *entry = NULL;

    pthread_mutex_lock(&queue->lock);
    while (queue->n == 0 && !queue->closed) {
        pthread_cond_wait(&queue->not_empty, &queue->lock);
    }
    if (queue->n > 0) {
        entry = take(queue);
    }
    pthread_mutex_unlock(&queue->lock);
    return entry;
}

void *
queue_pop_timed(struct queue *queue, int64_t timeout_ms)
{
    void *entry = NULL;
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms > 0) {
        until.tv_sec += (time_t)(timeout_ms / 1000);
        until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
    }
    pthread_mutex_lock(&queue->lock);
    while (queue->n == 0 && !queue->closed && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&queue->not_empty, &queue->lock, &until);
    }
    if (queue->n > 0) {
        entry = take(queue);
    }
    pthread_mutex_unlock(&queue->lock);
    return entry;
}

void *
queue_try_pop(struct queue *queue)
{
    void *entry = NULL;

    pthread_mutex_lock(&queue->lock);
    if (queue->n > 0) {
        entry = take(queue);
    }
    pthread_mutex_unlock(&queue->lock);
    return entry;
}

size_t
queue_length(struct queue *queue)
{
    size_t n;

    pthread_mutex_lock(&queue->lock);
    n = queue->n;
    pthread_mutex_unlock(&queue->lock);
    return n;
}

void
queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_cond_broadcast(&queue->not_full);
    pthread_mutex_unlock(&queue->lock);
}
