/*
 * kindred - the command line of a kindred daemon. It speaks the HTTP API and
 * nothing else, so whatever it does, curl can do.
 */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli.h"
#include "http.h"
#include "input.h"
#include "lines.h"
#include "term.h"

#define GLOBAL(field) offsetof(struct globals, field)
const struct opt global_opts[] = {
    {"url", 0, OPT_TEXT, GLOBAL(url), "URL",
        "the daemon; default KINDRED_URL or " DEFAULT_URL},
    {"collection", 'c', OPT_TEXT, GLOBAL(collection), "NAME",
        "the collection; default KINDRED_COLLECTION or \"default\""},
    {"key-file", 0, OPT_TEXT, GLOBAL(key_file), "FILE",
        "holds the key; default KINDRED_KEY_FILE, or the key itself in "
        "KINDRED_KEY"},
    {"json", 0, OPT_FLAG, GLOBAL(json), NULL, "print JSON, for programs"},
    {"quiet", 'q', OPT_FLAG, GLOBAL(quiet), NULL,
        "no progress and no remarks, only results and errors"},
    {"help", 'h', OPT_FLAG, GLOBAL(help), NULL, "explain the command"},
    {"version", 0, OPT_FLAG, GLOBAL(version), NULL, "print the version"},
};
const size_t n_global_opts = ARRAY_LEN(global_opts);

const struct command *const command_table[] = {&command_create, &command_index,
    &command_search, &command_pairs, &command_train, &command_rollback,
    &command_promote, &command_jobs, &command_status, &command_eval,
    &command_views, &command_embed, &command_export, &command_import,
    &command_encoders, &command_import_encoder, &command_export_encoder,
    &command_backup, &command_delete, &command_completion, &command_version,
    &command_help};
const size_t n_commands = ARRAY_LEN(command_table);

const struct command *
command_find(const char *name)
{
    for (size_t i = 0; i < n_commands; i++)
        if (strcmp(command_table[i]->name, name) == 0)
            return command_table[i];
    return NULL;
}

void
complain(const char *fmt, ...)
{
    va_list ap;
    progress_clear();
    fflush(stdout);
    fputs("kindred: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void
say(const struct cli *cli, const char *fmt, ...)
{
    if (cli->global.quiet)
        return;
    va_list ap;
    progress_clear();
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

NORETURN static void
out_of_memory(void)
{
    complain("out of memory");
    exit(EXIT_REFUSED);
}

void *
must_alloc(size_t n, size_t size)
{
    void *p = mem_alloc(n, size);
    if (p == NULL)
        out_of_memory();
    return p;
}

void *
must_calloc(size_t n, size_t size)
{
    void *p = mem_calloc(n, size);
    if (p == NULL)
        out_of_memory();
    return p;
}

void *
must_realloc(void *p, size_t n, size_t size)
{
    void *bigger = mem_realloc(p, n, size);
    if (bigger == NULL)
        out_of_memory();
    return bigger;
}

char *
must_strdup(const char *s)
{
    char *copy = mem_strdup(s);
    if (copy == NULL)
        out_of_memory();
    return copy;
}

/* The first line of a key file. Keys are never given as arguments: those are
   seen by every user of the machine. */
static bool
key_read(const char *path, struct buf *key)
{
    struct lines *lines = lines_open(path);
    if (lines == NULL) {
        complain("%s: %s", path, strerror(errno));
        return false;
    }
    enum input_got got = lines_next(lines, key);
    lines_close(lines);
    if (got == INPUT_END || (got == INPUT_RECORD && key->len == 0))
        complain("%s: holds no key", path);
    return got == INPUT_RECORD && key->len > 0;
}

static const char *
env_or(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : otherwise;
}

/* The word that names the command: the first that is no global option. */
static size_t
command_word(size_t n, char **argv)
{
    size_t i = 0;
    while (i < n && argv[i][0] == '-' && argv[i][1] != '\0') {
        size_t width = args_width(argv[i], global_opts, n_global_opts);
        if (width == 0)
            break;
        i += width;
    }
    return i < n ? i : n;
}

static int
run_command(struct cli *cli, const struct command *command, size_t n_args,
    char **args, void *opts)
{
    struct buf key;
    buf_init(&key, INPUT_RECORD_MAX * 2);
    const char *key_text = env_or("KINDRED_KEY", NULL);
    const char *key_file = cli->global.key_file != NULL
                               ? cli->global.key_file
                               : env_or("KINDRED_KEY_FILE", NULL);
    int rc = EXIT_USAGE;
    if (key_file != NULL && (cli->global.key_file != NULL || !key_text)) {
        if (!key_read(key_file, &key))
            goto out;
        key_text = key.data;
    }
    rc = EXIT_DONE;
    if (!command->offline)
        rc = http_open(&cli->http, cli->global.url, key_text);
    if (rc == EXIT_DONE)
        rc = command->run(cli, opts, n_args, args);
    http_close(cli->http);
    progress_clear();
    if (fflush(stdout) != 0 || ferror(stdout)) {
        complain("standard output: %s", strerror(errno));
        rc = rc == EXIT_DONE ? EXIT_REFUSED : rc;
    }
out:
    buf_release(&key);
    return rc;
}

int
main(int argc, char **argv)
{
    struct cli cli = {
        .global = {.url = env_or("KINDRED_URL", DEFAULT_URL),
            .collection = env_or("KINDRED_COLLECTION", "default")}};
    /* A broken pipe ends as an error of write, with its exit code. */
    signal(SIGPIPE, SIG_IGN);
    size_t n = argc > 0 ? (size_t)argc - 1 : 0;
    char **words = argv + 1;
    size_t at = command_word(n, words);
    const struct command *command = NULL;
    if (at < n) {
        command = command_find(words[at]);
        if (command == NULL) {
            complain("no %s \"%s\"; see kindred help",
                words[at][0] == '-' ? "option" : "command", words[at]);
            return EXIT_USAGE;
        }
        for (size_t i = at; i + 1 < n; i++)
            words[i] = words[i + 1];
        n--;
    }
    void *opts = NULL;
    struct opt_group groups[2] = {
        {global_opts, n_global_opts, &cli.global}, {NULL, 0, NULL}};
    size_t n_groups = 1;
    if (command != NULL && command->opts_bytes > 0) {
        opts = must_calloc(1, command->opts_bytes);
        if (command->defaults != NULL)
            memcpy(opts, command->defaults, command->opts_bytes);
        /* The command's own come first: -k, --id mean what it says. */
        groups[1] = groups[0];
        groups[0] = (struct opt_group){command->opts, command->n_opts, opts};
        n_groups = 2;
    }
    int rc = EXIT_USAGE;
    size_t n_args = 0;
    if (!args_parse(n, words, groups, n_groups,
            command != NULL ? command->name : NULL, &n_args))
        goto out;
    term_setup(cli.global.quiet);
    rc = EXIT_DONE;
    if (cli.global.version) {
        printf("kindred %s\n", KINDRED_VERSION);
    } else if (command == NULL && cli.global.help) {
        command_print_overview();
    } else if (command == NULL) {
        command_print_overview();
        rc = EXIT_USAGE;
    } else if (cli.global.help) {
        command_print_help(command);
    } else if (n_args < command->args_min || n_args > command->args_max) {
        complain("usage: kindred %s %s", command->name, command->synopsis);
        rc = EXIT_USAGE;
    } else {
        rc = run_command(&cli, command, n_args, words, opts);
    }
out:
    mem_free(opts);
    return rc;
}
