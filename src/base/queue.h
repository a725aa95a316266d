/*
 * queue.h - a bounded first-in first-out queue of pointers between threads.
 *
 * Carries its own lock. After queue_close, pushes fail and pops drain what is
 * left, then return NULL.
 */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

struct queue;

enum err queue_new(struct queue **out, size_t max_entries) NODISCARD;
void queue_free(struct queue *queue); /* must be empty and unused */

/* ERR_BUSY when full, ERR_CANCELLED when closed; never blocks. */
enum err queue_try_push(struct queue *queue, void *entry) NODISCARD;
/* Waits for room. */
enum err queue_push(struct queue *queue, void *entry) NODISCARD;
/* Waits until an entry comes; NULL once closed and empty. */
void *queue_pop(struct queue *queue);
/* NULL on time-out too. */
void *queue_pop_timed(struct queue *queue, int64_t timeout_ms);
/* NULL when empty; never blocks. */
void *queue_try_pop(struct queue *queue);
size_t queue_length(struct queue *queue);
void queue_close(struct queue *queue);

#endif
