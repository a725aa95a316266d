/*
 * learn_checkpoint.h - the state of a long training run on disk, so that a
 * daemon that is killed or stopped goes on where it was.
 *
 * One file a job, DATA/checkpoints/job-ID, written beside and renamed, holding
 * the stream that train/loop.h gives (which carries its own checksum). The
 * clock decides when to save, never what is computed: a run with and without
 * checkpoints makes the same bits. It is a convenience: a state that cannot be
 * written is logged and the run goes on without; one that does not fit (the
 * live generation is another one now, or other kernels made it) is not used,
 * and the run starts from its beginning.
 *
 * Threads: a checkpoint belongs to the job's thread.
 */
#ifndef ENGINE_LEARN_CHECKPOINT_H
#define ENGINE_LEARN_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/hash.h"
#include "engine/jobs.h"
#include "train/loop.h"

#define LEARN_CHECKPOINT_MS 60000 /* of training between two saves */

struct learn_checkpoint;

/* origin: of the generation that the round began from. borrows data_dir and
   job. ERR_NOMEM. */
enum err learn_checkpoint_open(struct learn_checkpoint **out,
    const char *data_dir, const uint8_t origin[SHA256_BYTES],
    struct job *job) NODISCARD;
/* Closes what is open; what is on disk stays. NULL is fine. */
void learn_checkpoint_close(struct learn_checkpoint *checkpoint);

/* For train_run; load is NULL when there is no state to start from. Valid
   until close. */
const struct train_checkpoint *learn_checkpoint_train(
    struct learn_checkpoint *checkpoint);
/* The state does not fit: start from the beginning. */
void learn_checkpoint_forget(struct learn_checkpoint *checkpoint);

/* The job has ended, or what it trained is stored: remove its file. */
void learn_checkpoint_remove(const char *data_dir, int64_t job_id);
/* At start: remove every file but those of these jobs. */
void learn_checkpoint_sweep(
    const char *data_dir, const int64_t *jobs, size_t n);

/* Tests only: another time between two saves, 0 saves after every step;
   returns the one before. */
int64_t learn_checkpoint_every_ms(int64_t ms);

#endif
