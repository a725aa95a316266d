/*
 * settings.h - small things that several commands share.
 */
#ifndef KINDRED_SETTINGS_H
#define KINDRED_SETTINGS_H

#include <jansson.h>
#include <stdint.h>

#include "cli.h"

/* "key=value" into object: a value that is JSON as such, else as a string;
   dots in the key make nested objects. false after a message. */
bool setting_add(json_t *object, const char *word);
bool settings_add(json_t *object, const struct text_list *words);

/* Print a value indented, with a newline, on stdout. */
void print_json(const json_t *value);

/* GET path to a file (beside, then renamed) or to stdout when output is
   NULL. */
int download_to(struct cli *cli, const char *path, const char *output,
    const char *label, uint64_t *bytes);

/*
 * job_follow - watch a job until it has ended: bar, phases, loss.
 *
 *   job  the ended job; the caller json_decrefs
 */
int job_follow(struct cli *cli, json_int_t id, json_t **job);

/* The exit code of an ended job, after printing how it ended. */
int job_finish(struct cli *cli, const json_t *job);

/* The number at the end of a 202's Location or in its body; 0 if none. */
json_int_t job_id_of(const char *location, const json_t *body);

#endif
