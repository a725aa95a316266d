/*
 * purge.h - the removal of what was marked as gone, in short transactions:
 * rows of deleted collections, vectors of dead spaces, dropped weights, and
 * the free pages at the end of the file.
 *
 * What is to be removed is written in the file itself, so a crash loses no
 * work: after opening, and after each deletion, publishing and discarding,
 * call purge_run from a background thread.
 */
#ifndef STORE_PURGE_H
#define STORE_PURGE_H

#include <stdatomic.h>
#include "store/store.h"

/* One step in the caller's operation: removes about max_rows rows, of one
   kind. n gives how many; 0: nothing is left to remove. */
enum err purge_step(struct db *db, size_t max_rows, size_t *n) NODISCARD;

/*
 * purge_run - steps, each an operation of its own, until nothing is left.
 *
 *   stop    checked between steps; may be NULL. ERR_CANCELLED when set
 *   n_rows  gives the sum (may be NULL)
 */
enum err purge_run(
    struct store *store, const atomic_bool *stop, int64_t *n_rows) NODISCARD;

#endif
