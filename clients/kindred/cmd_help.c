/* help, version, completion: what needs no daemon. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

void
command_print_overview(void)
{
    printf("kindred %s: search by similarity that learns from your pairs\n\n"
           "usage: kindred [options] COMMAND [arguments]\n\ncommands:\n",
        KINDRED_VERSION);
    for (size_t i = 0; i < n_commands; i++)
        if (!command_table[i]->hidden)
            printf("  %-14s %s\n", command_table[i]->name,
                command_table[i]->summary);
    printf("\noptions of every command:\n");
    args_print(global_opts, n_global_opts);
    printf("\nexit codes: 0 done (training: promoted), 1 refused by the "
           "service or bad input,\n  2 wrong usage, 3 trained but not "
           "promoted, 4 no daemon answers, 5 some lines\n  refused, 6 a job "
           "failed or was cancelled\n\n"
           "kindred help COMMAND explains one command. First steps:\n"
           "  kindredd --data DIR &\n"
           "  kindred index articles.ndjson\n"
           "  kindred search \"how do I ...\"\n");
}

void
command_print_help(const struct command *command)
{
    printf("kindred %s: %s\n\nusage: kindred %s %s\n", command->name,
        command->summary, command->name, command->synopsis);
    if (command->detail != NULL)
        printf("\n%s", command->detail);
    if (command->n_opts > 0) {
        printf("\noptions:\n");
        args_print(command->opts, command->n_opts);
    }
    printf("\noptions of every command:\n");
    args_print(global_opts, n_global_opts);
}

static int
help_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    (void)cli;
    (void)opts;
    if (n_args == 0) {
        command_print_overview();
        return EXIT_DONE;
    }
    const struct command *command = command_find(args[0]);
    if (command == NULL) {
        complain("no command \"%s\"; see kindred help", args[0]);
        return EXIT_USAGE;
    }
    command_print_help(command);
    return EXIT_DONE;
}

const struct command command_help = {.name = "help",
    .synopsis = "[COMMAND]",
    .summary = "explain the program or one command",
    .args_max = 1,
    .offline = true,
    .run = help_run};

static int
version_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    (void)cli;
    (void)opts;
    (void)n_args;
    (void)args;
    printf("kindred %s\n", KINDRED_VERSION);
    return EXIT_DONE;
}

const struct command command_version = {.name = "version",
    .synopsis = "",
    .summary = "print the version of this program",
    .offline = true,
    .run = version_run};

/* Words after which a shell should offer file names. */
static bool
takes_file(const struct opt *opt)
{
    return opt->value != NULL && strcmp(opt->value, "FILE") == 0;
}

static bool
command_takes_files(const struct command *command)
{
    return strstr(command->synopsis, "FILE") != NULL ||
           strstr(command->synopsis, "FOLDER") != NULL ||
           strstr(command->synopsis, "PATH") != NULL;
}

static void
print_names(const struct opt *opts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf(" --%s", opts[i].name);
}

static void
completion_bash(void)
{
    printf("# bash completion for kindred; made by: kindred completion bash\n"
           "_kindred() {\n"
           "    local cur prev word cmd=\"\" opts files=\"\"\n"
           "    cur=${COMP_WORDS[COMP_CWORD]}\n"
           "    prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
           "    local commands=\"");
    for (size_t i = 0; i < n_commands; i++)
        printf("%s%s", i > 0 ? " " : "", command_table[i]->name);
    printf("\"\n    local globals=\"");
    print_names(global_opts, n_global_opts);
    printf("\"\n"
           "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
           "        case \" $commands \" in\n"
           "        *\" $word \"*) cmd=$word; break ;;\n"
           "        esac\n"
           "    done\n"
           "    case $cmd in\n"
           "    \"\") opts=\"$globals $commands\" ;;\n");
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *command = command_table[i];
        printf("    %s) opts=\"$globals", command->name);
        print_names(command->opts, command->n_opts);
        printf("\"%s ;;\n", command_takes_files(command) ? "; files=1" : "");
    }
    printf("    esac\n"
           "    case $cmd in\n"
           "    help) opts=\"$commands\" ;;\n"
           "    completion) opts=\"bash zsh fish\" ;;\n"
           "    esac\n"
           "    case $prev in\n"
           "    --*-file|--key-file|--errors|--output|-o)"
           " opts=\"\"; files=1 ;;\n"
           "    esac\n"
           "    mapfile -t COMPREPLY < <(compgen -W \"$opts\" -- \"$cur\")\n"
           "    if [[ -n $files && $cur != -* ]]; then\n"
           "        compopt -o filenames\n"
           "        mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY < "
           "<(compgen -f -- \"$cur\")\n"
           "    fi\n"
           "}\n"
           "complete -F _kindred kindred\n");
}

/* A description inside quotes of zsh's _arguments or fish. */
static void
print_description(const char *s)
{
    for (; *s != '\0'; s++)
        if (strchr("'[]:\\\"", *s) == NULL)
            putchar(*s);
}

static void
zsh_opts(const struct opt *opts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        printf(" \\\n            '%s--%s%s[",
            opts[i].kind == OPT_LIST ? "*" : "", opts[i].name,
            opts[i].kind == OPT_FLAG ? "" : "=");
        print_description(opts[i].help);
        printf("]%s'", opts[i].kind == OPT_FLAG ? ""
                       : takes_file(&opts[i])   ? ":file:_files"
                                                : ":value: ");
    }
}

static void
completion_zsh(void)
{
    printf("#compdef kindred\n"
           "# zsh completion for kindred; made by: kindred completion zsh\n"
           "_kindred() {\n"
           "    local -a commands\n"
           "    commands=(\n");
    for (size_t i = 0; i < n_commands; i++) {
        printf("        '%s:", command_table[i]->name);
        print_description(command_table[i]->summary);
        printf("'\n");
    }
    printf("    )\n"
           "    local cmd=\"\" word\n"
           "    for word in \"${(@)words[2,CURRENT-1]}\"; do\n"
           "        if (( ${commands[(I)${word}:*]} )); then\n"
           "            cmd=$word\n"
           "            break\n"
           "        fi\n"
           "    done\n"
           "    case $cmd in\n"
           "    '')\n"
           "        _describe command commands\n"
           "        _arguments");
    zsh_opts(global_opts, n_global_opts);
    printf("\n        ;;\n");
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *command = command_table[i];
        printf("    %s)\n        _arguments", command->name);
        zsh_opts(command->opts, command->n_opts);
        zsh_opts(global_opts, n_global_opts);
        if (strcmp(command->name, "completion") == 0)
            printf(" \\\n            '*:shell:(bash zsh fish)'");
        else if (strcmp(command->name, "help") == 0)
            printf(" \\\n            '*:command:(${commands%%%%:*})'");
        else if (command_takes_files(command))
            printf(" \\\n            '*:file:_files'");
        printf("\n        ;;\n");
    }
    printf("    esac\n"
           "}\n"
           "_kindred \"$@\"\n");
}

static void
fish_opts(const char *condition, const struct opt *opts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        printf("complete -c kindred%s -l %s", condition, opts[i].name);
        if (opts[i].letter != 0)
            printf(" -s %c", opts[i].letter);
        if (takes_file(&opts[i]))
            printf(" -rF");
        else if (opts[i].kind != OPT_FLAG)
            printf(" -x");
        printf(" -d '");
        print_description(opts[i].help);
        printf("'\n");
    }
}

static void
completion_fish(void)
{
    printf("# fish completion for kindred; made by: kindred completion fish\n"
           "complete -c kindred -f\n");
    fish_opts("", global_opts, n_global_opts);
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *command = command_table[i];
        printf("complete -c kindred -n __fish_use_subcommand -a %s -d '",
            command->name);
        print_description(command->summary);
        printf("'\n");
        char condition[128];
        snprintf(condition, sizeof(condition),
            " -n '__fish_seen_subcommand_from %s'", command->name);
        fish_opts(condition, command->opts, command->n_opts);
        if (command_takes_files(command))
            printf("complete -c kindred%s -F\n", condition);
    }
    printf("complete -c kindred -n '__fish_seen_subcommand_from completion' "
           "-a 'bash zsh fish'\n"
           "complete -c kindred -n '__fish_seen_subcommand_from help' -a '");
    for (size_t i = 0; i < n_commands; i++)
        printf("%s%s", i > 0 ? " " : "", command_table[i]->name);
    printf("'\n");
}

static int
completion_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    (void)cli;
    (void)opts;
    (void)n_args;
    if (strcmp(args[0], "bash") == 0) {
        completion_bash();
    } else if (strcmp(args[0], "zsh") == 0) {
        completion_zsh();
    } else if (strcmp(args[0], "fish") == 0) {
        completion_fish();
    } else {
        complain("completion: \"%s\" is none of bash, zsh, fish", args[0]);
        return EXIT_USAGE;
    }
    return EXIT_DONE;
}

const struct command command_completion = {.name = "completion",
    .synopsis = "bash|zsh|fish",
    .summary = "print the completion script of a shell",
    .detail = "bash:  source <(kindred completion bash)\n"
              "zsh:   kindred completion zsh > a folder of $fpath/_kindred\n"
              "fish:  kindred completion fish > "
              "~/.config/fish/completions/kindred.fish\n",
    .args_min = 1,
    .args_max = 1,
    .offline = true,
    .run = completion_run};
