/*
 * fairlock.h - a readers/writer lock that starves neither side.
 *
 * A reader that comes while a writer waits or writes waits for that one
 * writer; a writer that comes waits for the readers inside. When a writer
 * leaves, every reader that waited goes in before the next writer (phase-fair:
 * Brandenburg & Anderson 2010, doi:10.1007/s11241-010-9097-2). So a reader
 * waits for at most one writer and the readers before it. Nobody spins.
 * Not recursive.
 */
#ifndef ANN_FAIRLOCK_H
#define ANN_FAIRLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct fairlock {
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t readers_may;
    pthread_cond_t writer_may;
    size_t n_reading;
    size_t n_readers_waiting;
    size_t n_writers_waiting;
    size_t phase; /* writers that have left */
    bool writing;
};

void fairlock_init(struct fairlock *lock);
void fairlock_release(struct fairlock *lock);
void fairlock_read(struct fairlock *lock);
void fairlock_read_done(struct fairlock *lock);
void fairlock_write(struct fairlock *lock);
void fairlock_write_done(struct fairlock *lock);

#endif
