/*
 * writer.h - the one thread that changes the database, and its group commit.
 * Internal to this folder; see store.h for what callers may rely on.
 *
 * The thread takes the operations that wait, in order, and runs them in one
 * transaction, each inside a savepoint. When the transaction as a whole cannot
 * be kept (a full disk at one operation's step or at the commit) all of it is
 * undone and each operation is tried once more in a transaction of its own, so
 * that each gets the outcome that it alone deserves.
 *
 * After the acknowledgements, not before, the thread copies the write-ahead
 * log into the database when it is long: nobody waits for that, and an I/O
 * error of it is seen (SQLite's own automatic checkpoint swallows it).
 */
#ifndef STORE_WRITER_H
#define STORE_WRITER_H

#include "store/internal.h"

/* Takes db, the writer's connection (closed by writer_free, or here when the
   thread cannot be started). */
enum err writer_new(struct writer **out, struct db *db,
    const struct store_options *options) NODISCARD;

/* Runs what is queued, then ends the thread; NULL is fine. */
void writer_free(struct writer *writer);

enum err writer_run(struct writer *writer, const struct store_op *op) NODISCARD;
enum err writer_post(
    struct writer *writer, const struct store_op *op) NODISCARD;

/*
 * Run fn in the writer thread between transactions, alone, and wait for it: a
 * step of a backup. It may not change the database. Accepted also while the
 * queue is full or the store read-only; refused (ERR_CANCELLED) when closing.
 */
enum err writer_run_outside(
    struct writer *writer, store_op_fn *fn, void *arg) NODISCARD;

void writer_get_stats(struct writer *writer, struct store_stats *out);
bool writer_is_read_only(const struct writer *writer);
void writer_fail_commit_test(struct writer *writer);

#endif
