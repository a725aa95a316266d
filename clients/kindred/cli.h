/*
 * cli.h - what every command of the command line shares: the global options,
 * the table of commands, the exit codes, and memory that never fails softly.
 *
 * The program is one thread and short-lived. A function that returns int gives
 * an exit code: EXIT_DONE, or another one after the reason has been printed on
 * stderr, so that callers pass it up unchanged.
 */
#ifndef KINDRED_CLI_H
#define KINDRED_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "args.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/version.h"

#define DEFAULT_URL "http://127.0.0.1:8420"

/* Documented in kindred(1) and in `kindred help`; scripts rely on them. */
enum exit_code {
    EXIT_DONE = 0,         /* done; a training round was promoted */
    EXIT_REFUSED = 1,      /* the service or the input said no */
    EXIT_USAGE = 2,        /* the command line itself was wrong */
    EXIT_NOT_PROMOTED = 3, /* the judge kept the live generation */
    EXIT_UNREACHABLE = 4,  /* no daemon answered */
    EXIT_SOME_FAILED = 5,  /* some was refused or unread, the rest stored */
    EXIT_JOB_FAILED = 6    /* a job ended as failed or cancelled */
};

struct http;

/* The global options, valid before and after the command's name. */
struct globals {
    const char *url;
    const char *key_file;
    const char *collection;
    bool json;
    bool quiet;
    bool help;
    bool version;
};

struct cli {
    struct globals global;
    struct http *http; /* open for the length of the command */
};

/* One command; opts points into a struct of opts_bytes whose initial content
   is defaults (NULL for zeroes). */
struct command {
    const char *name;
    const char *synopsis; /* after the name: "[FILE...]" */
    const char *summary;  /* one line, no full stop */
    const char *detail;   /* paragraphs for --help and nothing else */
    const struct opt *opts;
    size_t n_opts;
    const void *defaults;
    size_t opts_bytes;
    size_t args_min;
    size_t args_max;
    bool hidden;  /* left out of the list */
    bool offline; /* needs no daemon */
    int (*run)(struct cli *cli, void *opts, size_t n_args, char **args);
};

extern const struct command *const command_table[];
extern const size_t n_commands;
extern const struct opt global_opts[];
extern const size_t n_global_opts;

extern const struct command command_index;
extern const struct command command_search;
extern const struct command command_pairs;
extern const struct command command_train;
extern const struct command command_rollback;
extern const struct command command_promote;
extern const struct command command_jobs;
extern const struct command command_eval;
extern const struct command command_status;
extern const struct command command_views;
extern const struct command command_create;
extern const struct command command_delete;
extern const struct command command_export;
extern const struct command command_import;
extern const struct command command_backup;
extern const struct command command_encoders;
extern const struct command command_import_encoder;
extern const struct command command_export_encoder;
extern const struct command command_embed;
extern const struct command command_completion;
extern const struct command command_version;
extern const struct command command_help;

/* The named command, or NULL. */
const struct command *command_find(const char *name);

/* The usage of one command, or of all, on stdout. */
void command_print_help(const struct command *command);
void command_print_overview(void);

/* "kindred: ..." and a newline on stderr, clearing a progress bar first. */
void complain(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* Progress that a person may want to read; nothing with --quiet. */
void say(const struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* As in base/alloc.h, but out of memory ends the program with a message. */
void *must_alloc(size_t n, size_t size);
void *must_calloc(size_t n, size_t size);
void *must_realloc(void *p, size_t n, size_t size);
char *must_strdup(const char *s);

#endif
