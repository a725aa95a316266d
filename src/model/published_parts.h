/*
 * published_parts.h - what the files of a published folder say, between the
 * parts of published.h.
 *
 * Files are read through a source, so that what they say is understood
 * without a file system; their faults begin with the file's path in the
 * folder.
 */
#ifndef MODEL_PUBLISHED_PARTS_H
#define MODEL_PUBLISHED_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "model/encoder.h"

#define PUBLISHED_PATH_MAX 256 /* with the NUL */
#define PUBLISHED_FILE_MAX ((size_t)1 << 20)
#define PUBLISHED_CARD_MAX                                                     \
    ((size_t)4 << 20) /* of README.md; more: not read                          \
                       */
#define PUBLISHED_SETTINGS_MAX 16384
#define PUBLISHED_MODULES_MAX 16

/* Appends a file of the folder to out; its fault need not name it. */
typedef enum err published_read_fn(
    void *arg, const char *path, struct buf *out, struct fault *fault);
struct published_source {
    published_read_fn *read;
    void *arg;
};

/* The types of config.json that other programs know, and what they call things;
   NULL: it has no such member. */
struct published_type {
    const char *name;
    const char *architecture;
    const char *layers, *hidden, *heads, *ffn, *act;
    const char *token_types, *norm_eps; /* NULL: none, 1e-12 */
    bool offset; /* positions begin behind pad_token_id */
};

#define PUBLISHED_TYPES 4
extern const struct published_type published_types[PUBLISHED_TYPES];
/* Is it the one whose tensors have names of their own? */
bool published_is_distilbert(const struct published_type *type);

/* What modules.json and the configurations of its modules say. */
struct published_modules {
    bool listed; /* false: there is no modules.json */
    char transformer[PUBLISHED_PATH_MAX];
    const char *pooling; /* constant: "mean", "cls", "max" */
    bool include_prompt;
    bool has_dense;
    char dense[PUBLISHED_PATH_MAX];
    int64_t dense_in, dense_out;
    bool dense_tanh, dense_bias;
    bool normalise;
};

/* A folder, understood so far as its configurations go. */
struct published_plan {
    struct published_modules modules;
    const struct published_type *type; /* NULL: "kindred" */
    bool lowercase;                    /* texts, before the tokenizer */
    struct buf settings;               /* of the family, JSON */
    struct buf source;                 /* _name_or_path */
};

/*
 * published_plan_read - modules.json, config.json and what they lead to.
 *
 *   plan  released by published_plan_release, also after a failure
 */
enum err published_plan_read(struct published_plan *plan,
    const struct published_source *source, struct fault *fault) NODISCARD;
void published_plan_release(struct published_plan *plan);

/* The tokenizer.json of the folder, or one that says what its vocab.txt and
   tokenizer_config.json do, appended to out. */
enum err published_tokenizer_read(struct buf *out,
    const struct published_plan *plan, const struct published_source *source,
    struct fault *fault) NODISCARD;

/* The card, a JSON object, appended to out. */
enum err published_card_read(struct buf *out, const struct published_plan *plan,
    const struct published_source *source, struct fault *fault) NODISCARD;

/* All parameters of an encoder from the folder's safetensors files. */
enum err published_weights_read(struct encoder *encoder, const char *dir,
    const struct published_plan *plan, struct fault *fault) NODISCARD;
/* The same the other way; dense: NULL, or the folder of the dense head. */
enum err published_weights_write(const struct encoder *encoder, const char *dir,
    const struct published_type *type, const char *dense,
    struct fault *fault) NODISCARD;

/* ---------------------------------------------------------------- shared */

/* Put the file before the reason; ERR_SYNTAX becomes ERR_INVALID. */
enum err published_blame(
    enum err err, const char *file, struct fault *fault) NODISCARD;

/* FOLDER/NAME, or NAME where folder is empty. ERR_INVALID: too long. */
enum err published_path(char out[PUBLISHED_PATH_MAX], const char *folder,
    const char *name, struct fault *fault) NODISCARD;

/* A JSON object of the folder. *out is NULL where it is optional and not
   there; released by json_free. */
enum err published_json(struct json **out, const struct published_source *from,
    const char *folder, const char *name, enum json_need need,
    struct fault *fault) NODISCARD;

/* tokenizer_config.json, whose numbers may be larger than any integer: those
   are cut to 18 digits. */
enum err published_tokenizer_config(struct json **out,
    const struct published_source *from, const char *folder,
    struct fault *fault) NODISCARD;

#endif
