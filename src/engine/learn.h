/*
 * learn.h - a round of online learning, as a job.
 *
 * The declared states of a round, each left only forwards:
 *
 *   collect -> train -> choose -> save -> reembed -> calibrate -> judge
 *                          |                                       |
 *                          +-> refused                 published <-+-> refused
 *
 * Up to the end of save nothing of the candidate is on disk but the job's
 * seed and the highest pair that it may use: a round that is interrupted
 * before starts again from them and makes the same bits. From save on the
 * candidate is the collection's shadow and the round goes on where it was.
 */
#ifndef ENGINE_LEARN_H
#define ENGINE_LEARN_H

#include "base/buf.h"
#include "base/err.h"
#include "engine/jobs.h"

struct engine;
struct collection;

/*
 * learn_check_options - is this a valid set of options for a round?
 *
 * The object's members and their ranges stand in server/API.md ("Training").
 * Errors: ERR_INVALID with a pointer to the member, ERR_UNSUPPORTED for a
 * mechanism that this version lacks.
 */
enum err learn_check_options(
    const char *options_json, struct fault *fault) NODISCARD;

/*
 * learn_merge_options - the options of a request over those that the
 * collection's settings give, as one object appended to out.
 */
enum err learn_merge_options(const char *of_settings, const char *of_request,
    struct buf *out, struct fault *fault) NODISCARD;

/*
 * learn_check_data - are there enough pairs for these options? ERR_INVALID
 * with both numbers; the policy's minima are the collection's.
 */
enum err learn_check_data(struct engine *engine, struct collection *c,
    const char *options_json, struct fault *fault) NODISCARD;

/* The body of a "train" job; ends the job itself. */
enum err learn_run(
    struct engine *engine, struct collection *c, struct job *job) NODISCARD;

#endif
