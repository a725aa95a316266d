/*
 * settings.h - a collection's settings: what is fixed at its creation and what
 * may be patched.
 *
 *   fixed    {"encoder": "static",       or an imported one's name, then
 *             "family": "transformer",    its family
 *             "dims": 512, "template": "...",
 *             "encoder_config": {...},    complete
 *             "images": "keep"}           or "vector"
 *   patched  {"description": "...", "train": {"every_pairs": 0,
 *             "every_seconds": 0, "min_pairs": 200, "min_groups": 50,
 *             "budget_seconds": 0, "options": {...}}}
 *
 * A collection whose encoder reads pictures has no template: what is embedded
 * is the picture. Only it may keep the vectors of its pictures alone.
 */
#ifndef ENGINE_SETTINGS_H
#define ENGINE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "model/encoder.h"

#define SETTINGS_BYTES_MAX 65536
#define SETTINGS_EXTERNAL "external"
#define SETTINGS_EXTERNAL_DIMS 512

/* What is embedded of an item. */
enum settings_reads {
    SETTINGS_READS_TEXT,
    SETTINGS_READS_IMAGE,
    SETTINGS_READS_NOTHING /* external */
};
extern const char *const settings_reads_names[3];

/* When a collection trains itself, and what a round needs. */
struct train_policy {
    int64_t every_pairs;    /* new train pairs since the last round; 0 never */
    int64_t every_seconds;  /* since the last round ended; 0 never */
    int64_t min_pairs;      /* of the train split, else a round is refused */
    int64_t min_groups;     /* of the judge split */
    int64_t budget_seconds; /* a round that takes longer is cancelled; 0: no
                               limit */
};

struct settings_fixed {
    char *encoder; /* family, SETTINGS_EXTERNAL, or an imported one's name */
    char *family;  /* of the encoder; its name where it is not imported */
    size_t dims;
    char *template_text;
    char *config_json; /* of the encoder; "{}" when external */
    bool vector_only;  /* the bytes of pictures are not kept */
};
void settings_fixed_release(struct settings_fixed *fixed);

/* SETTINGS_READS_NOTHING for an unknown family. */
enum settings_reads settings_family_reads(const char *family);
/* Is it a family, whose name no imported encoder may have? */
bool settings_is_family(const char *name);
enum settings_reads settings_reads(const struct settings_fixed *fixed);

/* What settings need to know of an imported encoder; borrowed. */
struct settings_imported {
    const char *family;
    const char *config_json; /* complete */
    size_t dims;
};
/* How one is found by its name; a fault at "/encoder" when there is none. What
   it gives lives until the finder's owner says otherwise. */
struct settings_finder {
    enum err (*find)(void *arg, const char *name, struct settings_imported *out,
        struct fault *fault);
    void *arg;
};

/*
 * settings_fixed_parse - check the fixed part of a PUT body and complete it.
 *
 *   text     JSON object; members of the patchable part are skipped
 *   base     NULL, or settings whose values stand for what text leaves out
 *   finder   of imported encoders
 *   encoder  gives the untrained encoder that the settings describe, NULL when
 *            external or imported; encoder_free
 *
 * Of an imported encoder's settings only those of use may differ: compute,
 * max_tokens, the prefixes. They are merged here, and proved by whoever loads
 * the encoder with them.
 */
enum err settings_fixed_parse(const char *text,
    const struct settings_fixed *base, const struct settings_finder *finder,
    struct settings_fixed *out, struct encoder **encoder,
    struct fault *fault) NODISCARD;
/* Is the encoder imported? */
bool settings_is_imported(const struct settings_fixed *fixed);

/* As stored; the reverse, for text that was stored. */
void settings_fixed_write(const struct settings_fixed *fixed, struct buf *out);
enum err settings_fixed_read(
    const char *text, size_t len, struct settings_fixed *out) NODISCARD;
bool settings_fixed_equal(
    const struct settings_fixed *a, const struct settings_fixed *b);

/*
 * settings_patch - apply a body's "description" and "train" to the patched
 * settings (NULL: the defaults) and write the result, complete. Members of
 * the fixed part are skipped.
 */
enum err settings_patch(const char *present, const char *body, struct buf *out,
    struct fault *fault) NODISCARD;
/* Read a complete patched text; options appended when not NULL. */
enum err settings_policy(const char *patched, struct train_policy *policy,
    struct buf *options, struct fault *fault) NODISCARD;

/* Refuse members that no settings have. */
enum err settings_check_keys(const char *body, struct fault *fault) NODISCARD;

#endif
