#include "args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* The option that a word names; *value is set when it is part of the word. */
static const struct opt *
opt_find(const char *word, const struct opt *opts, size_t n, const char **value)
{
    *value = NULL;
    if (word[0] != '-' || word[1] == '\0')
        return NULL;
    if (word[1] != '-') {
        for (size_t i = 0; i < n; i++) {
            if (opts[i].letter == 0 || opts[i].letter != word[1])
                continue;
            if (word[2] != '\0') {
                if (opts[i].kind == OPT_FLAG)
                    return NULL;
                *value = word + 2;
            }
            return &opts[i];
        }
        return NULL;
    }
    const char *name = word + 2;
    size_t len = strcspn(name, "=");
    for (size_t i = 0; i < n; i++) {
        if (strncmp(opts[i].name, name, len) != 0 || opts[i].name[len] != '\0')
            continue;
        if (name[len] == '=')
            *value = name + len + 1;
        return &opts[i];
    }
    return NULL;
}

size_t
args_width(const char *word, const struct opt *opts, size_t n)
{
    const char *value;
    const struct opt *opt = opt_find(word, opts, n, &value);
    if (opt == NULL)
        return 0;
    return opt->kind == OPT_FLAG || value != NULL ? 1 : 2;
}

static bool
opt_store(const struct opt *opt, void *into, const char *value)
{
    char *field = (char *)into + opt->offset;
    char *end = NULL;
    errno = 0;
    switch (opt->kind) {
    case OPT_FLAG: {
        bool yes = true;
        memcpy(field, &yes, sizeof(yes));
        return true;
    }
    case OPT_TEXT:
        memcpy(field, &value, sizeof(value));
        return true;
    case OPT_INT: {
        long long v = strtoll(value, &end, 10);
        if (errno != 0 || end == value || *end != '\0' || v < 0) {
            complain(
                "--%s: \"%s\" is no whole number from 0 up", opt->name, value);
            return false;
        }
        memcpy(field, &v, sizeof(v));
        return true;
    }
    case OPT_NUMBER: {
        double v = strtod(value, &end);
        if (errno != 0 || end == value || *end != '\0') {
            complain("--%s: \"%s\" is no number", opt->name, value);
            return false;
        }
        memcpy(field, &v, sizeof(v));
        return true;
    }
    case OPT_LIST: {
        struct text_list list;
        memcpy(&list, field, sizeof(list));
        if (list.n == ARGS_LIST_MAX) {
            complain(
                "--%s: given more than %d times", opt->name, ARGS_LIST_MAX);
            return false;
        }
        list.v[list.n++] = value;
        memcpy(field, &list, sizeof(list));
        return true;
    }
    }
    return false;
}

bool
args_parse(size_t n, char **argv, const struct opt_group *groups,
    size_t n_groups, const char *name, size_t *n_args)
{
    size_t kept = 0;
    bool options = true;
    for (size_t i = 0; i < n; i++) {
        char *word = argv[i];
        if (!options || word[0] != '-' || word[1] == '\0') {
            argv[kept++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            options = false;
            continue;
        }
        const struct opt *opt = NULL;
        const char *value = NULL;
        size_t g = 0;
        for (; g < n_groups && opt == NULL; g++)
            opt = opt_find(word, groups[g].opts, groups[g].n, &value);
        if (opt == NULL) {
            complain("%s%sno option %.*s; see kindred help%s%s",
                name != NULL ? name : "", name != NULL ? ": " : "",
                (int)strcspn(word, "="), word, name != NULL ? " " : "",
                name != NULL ? name : "");
            return false;
        }
        if (opt->kind == OPT_FLAG && value != NULL) {
            complain("--%s takes no value", opt->name);
            return false;
        }
        if (opt->kind != OPT_FLAG && value == NULL) {
            if (i + 1 == n) {
                complain("--%s needs a value (%s)", opt->name, opt->value);
                return false;
            }
            value = argv[++i];
        }
        if (!opt_store(opt, groups[g - 1].into, value))
            return false;
    }
    *n_args = kept;
    return true;
}

#define HELP_COLUMN 28
#define HELP_WIDTH 80

/* Words of text from column HELP_COLUMN, wrapped; cursor is where we are. */
static void
print_wrapped(const char *text, int cursor)
{
    if (cursor >= HELP_COLUMN) {
        putchar('\n');
        cursor = 0;
    }
    printf("%*s", HELP_COLUMN - cursor, "");
    int at = HELP_COLUMN;
    while (*text != '\0') {
        int len = (int)strcspn(text, " ");
        if (at + len > HELP_WIDTH - 1) {
            printf("\n%*s", HELP_COLUMN, "");
            at = HELP_COLUMN;
        }
        printf("%.*s", len, text);
        at += len;
        text += len;
        while (*text == ' ') {
            text++;
            if (at < HELP_WIDTH - 1 && *text != ' ' && *text != '\0' &&
                at + 1 + (int)strcspn(text, " ") <= HELP_WIDTH - 1) {
                putchar(' ');
                at++;
            } else {
                at = HELP_WIDTH;
            }
        }
    }
    putchar('\n');
}

void
args_print(const struct opt *opts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char left[96];
        char letter[8] = "    ";
        if (opts[i].letter != 0)
            snprintf(letter, sizeof(letter), "-%c, ", opts[i].letter);
        int at = snprintf(left, sizeof(left), "  %s--%s%s%s", letter,
            opts[i].name, opts[i].value != NULL ? " " : "",
            opts[i].value != NULL ? opts[i].value : "");
        fputs(left, stdout);
        print_wrapped(opts[i].help, at);
    }
}
