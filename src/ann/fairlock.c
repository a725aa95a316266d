#include "ann/fairlock.h"

#include "base/check.h"

void
fairlock_init(struct fairlock *lock)
{
    *lock = (struct fairlock){.phase = 0};
    ASSERT(pthread_mutex_init(&lock->mutex, NULL) == 0);
    ASSERT(pthread_cond_init(&lock->readers_may, NULL) == 0);
    ASSERT(pthread_cond_init(&lock->writer_may, NULL) == 0);
}

void
fairlock_release(struct fairlock *lock)
{
    ASSERT(lock->n_reading == 0 && !lock->writing);
    pthread_mutex_destroy(&lock->mutex);
    pthread_cond_destroy(&lock->readers_may);
    pthread_cond_destroy(&lock->writer_may);
}

void
fairlock_read(struct fairlock *lock)
{
    pthread_mutex_lock(&lock->mutex);
    if (lock->writing || lock->n_writers_waiting > 0) {
        size_t phase = lock->phase;

        /* the writer that leaves counts us in */
        lock->n_readers_waiting++;
        while (lock->phase == phase)
            pthread_cond_wait(&lock->readers_may, &lock->mutex);
    } else {
        lock->n_reading++;
    }
    pthread_mutex_unlock(&lock->mutex);
}

void
fairlock_read_done(struct fairlock *lock)
{
    pthread_mutex_lock(&lock->mutex);
    ASSERT(lock->n_reading > 0);
    lock->n_reading--;
    if (lock->n_reading == 0 && lock->n_writers_waiting > 0)
        pthread_cond_signal(&lock->writer_may);
    pthread_mutex_unlock(&lock->mutex);
}

void
fairlock_write(struct fairlock *lock)
{
    pthread_mutex_lock(&lock->mutex);
    lock->n_writers_waiting++;
    while (lock->writing || lock->n_reading > 0)
        pthread_cond_wait(&lock->writer_may, &lock->mutex);
    lock->n_writers_waiting--;
    lock->writing = true;
    pthread_mutex_unlock(&lock->mutex);
}

void
fairlock_write_done(struct fairlock *lock)
{
    pthread_mutex_lock(&lock->mutex);
    ASSERT(lock->writing);
    lock->writing = false;
    lock->phase++;
    if (lock->n_readers_waiting > 0) {
        lock->n_reading = lock->n_readers_waiting;
        lock->n_readers_waiting = 0;
        pthread_cond_broadcast(&lock->readers_may);
    } else if (lock->n_writers_waiting > 0) {
        pthread_cond_signal(&lock->writer_may);
    }
    pthread_mutex_unlock(&lock->mutex);
}
