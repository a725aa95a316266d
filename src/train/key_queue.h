/*
 * key_queue.h - a first-in, first-out queue of key vectors.
 *
 * Room for K rows; a push beyond it takes the place of the oldest. Its rows lie
 * side by side (in the order of the ring, not of their age), with room for n
 * further rows right before them, so that a batch's keys and the queue's are
 * one matrix without a copy. Owned by one thread.
 */
#ifndef TRAIN_KEY_QUEUE_H
#define TRAIN_KEY_QUEUE_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "train/state.h"

struct key_queue {
    size_t cap, front, D; /* K, rows of room before it, dims */
    size_t n, next;       /* rows that are filled; where the next one goes */
    float *rows;          /* [front + cap, D] */
    uint64_t *keys;       /* [front + cap] content's hashes beside the rows */
    uint64_t *labels;     /* [front + cap] */
    uint64_t *steps;      /* [cap] when a row came in */
};

/* ERR_NOMEM. */
enum err key_queue_init(
    struct key_queue *q, size_t K, size_t front, size_t D) NODISCARD;
void key_queue_release(struct key_queue *q);
size_t key_queue_bytes(const struct key_queue *q);

/* The room for the last n of the rows before the queue. */
float *key_queue_front(struct key_queue *q, size_t n);

/* Put the first n of the rows of key_queue_front(q, n_front) in, in their
   order. When n is more than K the last K remain. */
void key_queue_push(
    struct key_queue *q, size_t n_front, size_t n, uint64_t step);

/* Mean of step - (step of the row); 0 when empty. */
double key_queue_age(const struct key_queue *q, uint64_t step);

void key_queue_state(struct key_queue *q, struct state *s);

#endif
