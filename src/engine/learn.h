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
 * seed, the highest pair and item that it may use and, of a long run, its
 * state (learn_checkpoint.h): a round that is interrupted before goes on from
 * there, or starts again, and makes the same bits. From save on the candidate
 * is the collection's shadow and the round goes on where it was.
 */
#ifndef ENGINE_LEARN_H
#define ENGINE_LEARN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "engine/jobs.h"
#include "image/augment.h"

struct engine;
struct collection;

/*
 * learn_check_options - is this a valid set of options for a round?
 *
 * The object's members and their ranges stand in server/API.md ("Training").
 * What depends on the encoder is left to learn_check_data. Errors: ERR_INVALID
 * with a pointer to the member and its range.
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

/*
 * Views of pictures: the "views" object of a round's options.
 *
 * learn_views_read - the given members over what options has.
 * learn_views_parse - the given members of a JSON text over the defaults for
 * pictures of 1 or 3 channels.
 * learn_views_write - complete.
 *
 * at is the pointer that leads to the object ("/views"). ERR_INVALID names the
 * member and its range; options and out are then untouched.
 */
enum err learn_views_read(const struct json *views, const char *at,
    struct augment_options *options, struct fault *fault) NODISCARD;
enum err learn_views_parse(const char *json, const char *at, uint32_t channels,
    struct augment_options *out, struct fault *fault) NODISCARD;
void learn_views_write(const struct augment_options *options, struct buf *out);

/* The body of a "train" job; ends the job itself. */
enum err learn_run(
    struct engine *engine, struct collection *c, struct job *job) NODISCARD;

#endif
