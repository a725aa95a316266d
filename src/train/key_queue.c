#include "train/key_queue.h"

#include <string.h>

#include "base/alloc.h"

enum err
key_queue_init(struct key_queue *q, size_t K, size_t front, size_t D)
{
    *q = (struct key_queue){.cap = K, .front = front, .D = D};
    q->rows = mem_alloc_aligned((front + K) * D, sizeof *q->rows);
    q->keys = mem_calloc(front + K, sizeof *q->keys);
    q->labels = mem_calloc(front + K, sizeof *q->labels);
    q->steps = mem_calloc(K, sizeof *q->steps);
    if (q->rows == NULL || q->keys == NULL || q->labels == NULL ||
        q->steps == NULL) {
        key_queue_release(q);
        return ERR_NOMEM;
    }
    return OK;
}

void
key_queue_release(struct key_queue *q)
{
    mem_free(q->rows);
    mem_free(q->keys);
    mem_free(q->labels);
    mem_free(q->steps);
    *q = (struct key_queue){0};
}

size_t
key_queue_bytes(const struct key_queue *q)
{
    return (q->front + q->cap) *
               (q->D * sizeof *q->rows + sizeof *q->keys + sizeof *q->labels) +
           q->cap * sizeof *q->steps;
}

float *
key_queue_front(struct key_queue *q, size_t n)
{
    ASSERT(n <= q->front);
    return q->rows + (q->front - n) * q->D;
}

void
key_queue_push(struct key_queue *q, size_t n_front, size_t n, uint64_t step)
{
    size_t from = q->front - n_front;

    ASSERT(n <= n_front && n_front <= q->front);
    if (n > q->cap) {
        from += n - q->cap;
        n = q->cap;
    }
    for (size_t i = 0; i < n; i++) {
        size_t to = q->front + q->next;
        memcpy(q->rows + to * q->D, q->rows + (from + i) * q->D,
            q->D * sizeof *q->rows);
        q->keys[to] = q->keys[from + i];
        q->labels[to] = q->labels[from + i];
        q->steps[q->next] = step;
        q->next = (q->next + 1) % q->cap;
        q->n = MIN(q->n + 1, q->cap);
    }
}

double
key_queue_age(const struct key_queue *q, uint64_t step)
{
    double sum = 0;
    for (size_t i = 0; i < q->n; i++)
        sum += (double)(step - q->steps[i]);
    return q->n == 0 ? 0 : sum / (double)q->n;
}

void
key_queue_state(struct key_queue *q, struct state *s)
{
    uint64_t at[2] = {q->n, q->next};

    state_bytes(s, at, sizeof at);
    if (s->err == OK && (at[0] > q->cap || at[1] >= q->cap))
        s->err = ERR_CORRUPT;
    if (s->err != OK)
        return;
    q->n = (size_t)at[0];
    q->next = (size_t)at[1];
    state_bytes(s, q->rows + q->front * q->D, q->n * q->D * sizeof *q->rows);
    state_bytes(s, q->keys + q->front, q->n * sizeof *q->keys);
    state_bytes(s, q->labels + q->front, q->n * sizeof *q->labels);
    state_bytes(s, q->steps, q->n * sizeof *q->steps);
}
