/*
 * args.h - options of a command line, described by tables.
 *
 * Takes --name VALUE, --name=VALUE, -n VALUE, -nVALUE, and -- to end the
 * options. Options and arguments may be mixed.
 */
#ifndef KINDRED_ARGS_H
#define KINDRED_ARGS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define ARGS_LIST_MAX 64
#define ARGS_INT_UNSET LLONG_MIN

enum opt_kind {
    OPT_FLAG,   /* bool */
    OPT_TEXT,   /* const char *, borrows argv */
    OPT_INT,    /* long long, at least 0 */
    OPT_NUMBER, /* double */
    OPT_LIST    /* struct text_list: the option may be repeated */
};

struct text_list {
    size_t n;
    const char *v[ARGS_LIST_MAX];
};

struct opt {
    const char *name; /* without the dashes */
    char letter;      /* or 0 */
    enum opt_kind kind;
    size_t offset;     /* of the field in the struct that is filled */
    const char *value; /* what --help calls the value; NULL for a flag */
    const char *help;
};

/* One table and the struct that its offsets are in. */
struct opt_group {
    const struct opt *opts;
    size_t n;
    void *into;
};

/*
 * args_parse - fill the groups from argv and collect the other arguments.
 *
 *   argv    n words, without the program's name; reordered: on success the
 *           first *n_args words are the arguments that are no options
 *   name    the command, for messages; may be NULL
 *
 * Returns true, or false after a message on stderr.
 */
bool args_parse(size_t n, char **argv, const struct opt_group *groups,
    size_t n_groups, const char *name, size_t *n_args);

/* How many words the option at word takes in argv (1 or 2), 0 if unknown. */
size_t args_width(const char *word, const struct opt *opts, size_t n);

/* Print the table, aligned, on stdout. */
void args_print(const struct opt *opts, size_t n);

#endif
