/*
 * steps.h - the steps of a tokenizer.json's normalizer or pre-tokenizer: an
 * object with a "type", or a "Sequence" of such, in each other.
 */
#ifndef TEXT_STEPS_H
#define TEXT_STEPS_H

#include "base/err.h"
#include "base/json.h"

/* One step, with its type and its place in the document. */
typedef enum err steps_fn(void *arg, const char *type, const struct json *node,
    const char *at, struct fault *fault);

/*
 * steps_read - call fn for each step in its order, until one fails.
 *
 *   node  NULL or null: none
 *   at    JSON pointer of node
 *   list  the member of a Sequence that holds its steps
 *
 * Sequences in each other are as deep as JSON may be. Errors: ERR_INVALID where
 * a step is no object or has no type, a Sequence no list; those of fn.
 */
enum err steps_read(const struct json *node, const char *at, const char *list,
    steps_fn *fn, void *arg, struct fault *fault) NODISCARD;

#endif
