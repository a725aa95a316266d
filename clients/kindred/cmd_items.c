/* index, pairs, import, export: what moves many lines in one request. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli.h"
#include "http.h"
#include "pictures.h"
#include "send.h"
#include "settings.h"
#include "term.h"

struct load_opts {
    struct input_options input;
    const char *errors_to;
    long long show_max;
    bool no_create;
    struct picture_opts pictures; /* index alone */
};

static const struct load_opts load_defaults = {
    .show_max = 20, .pictures = {.side = ARGS_INT_UNSET}};

/* Make the collection when it is missing, so that a first index needs no
   preparation. */
static int
ensure_collection(struct cli *cli, bool create)
{
    struct answer answer;
    struct buf path;
    answer_init(&answer);
    buf_init(&path, 1 << 16);
    path_collection(&path, cli->global.collection, "");
    int rc = http_call(cli->http, "GET", path.data, NULL, 0, &answer);
    if (rc == EXIT_DONE && answer.status == 404 && create) {
        rc = http_call(cli->http, "PUT", path.data, "{}", 2, &answer);
        if (rc == EXIT_DONE && answer.status < 400)
            say(cli, "collection %s made, with all defaults",
                cli->global.collection);
    }
    if (rc == EXIT_DONE)
        rc = http_check(cli->http, &answer);
    buf_release(&path);
    answer_release(&answer);
    return rc;
}

/* What every load prints at its end. */
static void
report(const struct cli *cli, const char *what, const char *verb,
    const struct send_counts *counts)
{
    double rate =
        counts->seconds > 0.0 ? (double)counts->records / counts->seconds : 0.0;
    if (cli->global.json) {
        printf("{\"%s\":%llu,\"refused\":%llu,\"unread\":%llu,"
               "\"bytes\":%llu,\"seconds\":%.3f}\n",
            what, (unsigned long long)counts->records,
            (unsigned long long)counts->failed,
            (unsigned long long)counts->unread,
            (unsigned long long)counts->bytes, counts->seconds);
        return;
    }
    char bytes[32];
    char refused[100] = "";
    size_t len = 0;
    if (counts->failed > 0)
        len = (size_t)snprintf(refused, sizeof(refused), ", %llu refused",
            (unsigned long long)counts->failed);
    if (counts->unread > 0)
        snprintf(refused + len, sizeof(refused) - len,
            ", %llu could not be read", (unsigned long long)counts->unread);
    say(cli, "%llu %s %s%s: %s in %.1f s (%.0f/s) into %s",
        (unsigned long long)(counts->records - counts->failed), what, verb,
        refused, term_bytes(bytes, sizeof(bytes), (double)counts->bytes),
        counts->seconds, rate, cli->global.collection);
}

static int
load_run(struct cli *cli, struct load_opts *opts, size_t n_args, char **args,
    const char *what, const char *verb, const char *suffix, bool admin)
{
    bool usage = false;
    struct input *input = input_open(&opts->input, args, n_args, &usage);
    if (input == NULL)
        return usage ? EXIT_USAGE : EXIT_REFUSED;
    struct buf path;
    struct send_counts counts = {0};
    buf_init(&path, 1 << 16);
    int rc = ensure_collection(cli, !opts->no_create && !opts->input.pairs);
    if (rc == EXIT_DONE) {
        if (admin)
            path_admin(&path, cli->global.collection, suffix);
        else
            path_collection(&path, cli->global.collection, suffix);
        rc = send_input(cli, input, path.data, what, opts->errors_to,
            (uint64_t)opts->show_max, &counts);
        if (rc == EXIT_DONE || rc == EXIT_SOME_FAILED)
            report(cli, what, verb, &counts);
    }
    buf_release(&path);
    input_close(input);
    return rc;
}

#define LOAD(field) offsetof(struct load_opts, field)
#define LOAD_COMMON                                                            \
    {"format", 'f', OPT_TEXT, LOAD(input.format), "FORMAT",                    \
        "auto (default), ndjson, json (an array), tsv, lines"},                \
        {"heading", 0, OPT_FLAG, LOAD(input.heading), NULL,                    \
            "the first TSV line is a heading (so it is when a column is "      \
            "chosen by name)"},                                                \
        {"errors", 0, OPT_TEXT, LOAD(errors_to), "FILE",                       \
            "write the outcome of every refused line here, as NDJSON"},        \
    {                                                                          \
        "show", 0, OPT_INT, LOAD(show_max), "N",                               \
            "print at most N refused lines (default 20)"                       \
    }

static const struct opt index_opts[] = {
    {"id", 0, OPT_TEXT, LOAD(input.id), "COLUMN",
        "TSV: the id, by heading or number from 1"},
    {"title", 0, OPT_TEXT, LOAD(input.title), "COLUMN", "TSV: the title"},
    {"text", 0, OPT_TEXT, LOAD(input.text), "COLUMNS",
        "TSV: the text; several (\"3,4\") are joined by newlines"},
    {"meta", 0, OPT_LIST, LOAD(input.meta), "COLUMNS",
        "TSV: metadata; \"lang,year\" or \"NAME=COLUMN\"; may be repeated"},
    {"id-prefix", 0, OPT_TEXT, LOAD(input.id_prefix), "TEXT",
        "start of ids that are made from line numbers (default the file's "
        "name and a colon)"},
    {"no-create", 0, OPT_FLAG, LOAD(no_create), NULL,
        "refuse when the collection is missing"},
    {"pictures", 0, OPT_FLAG, LOAD(pictures.only), NULL,
        "take the pictures of a folder, whatever else is in it"},
    {"documents", 0, OPT_FLAG, LOAD(pictures.none), NULL,
        "take the .txt and .md files of a folder, whatever else is in it"},
    {"input-side", 0, OPT_INT, LOAD(pictures.side), "N",
        "pictures, new collection: the encoder sees N x N pixels"},
    {"grey", 0, OPT_FLAG, LOAD(pictures.grey), NULL,
        "pictures, new collection: the encoder sees no colours"},
    {"folder-field", 0, OPT_TEXT, LOAD(pictures.field), "FIELD",
        "pictures: metadata FIELD is the name of the folder it is in"},
    LOAD_COMMON,
};

static int
index_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    struct load_opts *load = opts;
    struct pictures pictures = {0};
    bool take = false;
    load->pictures.create = !load->no_create;
    load->pictures.errors_to = load->errors_to;
    load->pictures.show_max = (uint64_t)load->show_max;
    int rc =
        pictures_wanted(cli, &load->pictures, args, n_args, &pictures, &take);
    if (rc == EXIT_DONE && take)
        rc = pictures_index(cli, &load->pictures, &pictures);
    load->input.told = pictures.looked;
    pictures_release(&pictures);
    if (rc != EXIT_DONE || take)
        return rc;
    return load_run(cli, opts, n_args, args, "items", "indexed",
        "/items?outcomes=errors", false);
}

const struct command command_index = {.name = "index",
    .synopsis = "[FILE|FOLDER|- ...]",
    .summary = "put texts or pictures into a collection",
    .detail =
        "Formats, told by the name or the first character unless --format "
        "says:\n"
        "  .ndjson .jsonl  {\"id\": ..., \"title\": ..., \"text\": ..., "
        "\"metadata\": {...}}\n"
        "  a JSON array    of such objects\n"
        "  .tsv            columns chosen with --id --title --text --meta; "
        "alone: id, text\n"
        "  anything else   one item a line, its id FILE:LINE\n"
        "  a folder        one item for each .txt and .md file in it; a first\n"
        "                  \"# heading\" is the title\n"
        "  pictures        files, or a folder with more pictures than texts: "
        "JPEG, PNG,\n"
        "                  WebP, told by their first bytes; the id is the path "
        "below\n"
        "                  the folder. A missing collection is made with the "
        "encoder\n"
        "                  vision. Those that are there unchanged are not sent "
        "again\n"
        "Everything goes in one streaming request in bounded memory. Refused "
        "lines are\nprinted with file and line, the others are stored; sending "
        "a file again does no\nharm. Exit code 5 when lines were refused, or "
        "something in a folder could not be\nread: that is told and left "
        "out.\n",
    .opts = index_opts,
    .n_opts = ARRAY_LEN(index_opts),
    .defaults = &load_defaults,
    .opts_bytes = sizeof(struct load_opts),
    .args_max = 1000000,
    .run = index_run};

static const struct opt pairs_opts[] = {
    {"anchor", 0, OPT_TEXT, LOAD(input.anchor), "COLUMN",
        "TSV: the anchor (default column 1)"},
    {"positive", 0, OPT_TEXT, LOAD(input.positive), "COLUMN",
        "TSV: the positive (default column 2)"},
    {"group", 0, OPT_TEXT, LOAD(input.group), "COLUMN",
        "TSV: the group; pairs of a group stay on one side of the judge's "
        "split"},
    {"anchor-id", 0, OPT_FLAG, LOAD(input.anchor_is_id), NULL,
        "TSV: the anchor is an item's id, not a text"},
    {"positive-text", 0, OPT_FLAG, LOAD(input.positive_is_text), NULL,
        "TSV: the positive is a text, not an item's id"},
    LOAD_COMMON,
};

static int
pairs_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    struct load_opts *load = opts;
    load->input.pairs = true;
    return load_run(cli, load, n_args, args, "pairs", "taken",
        "/pairs?outcomes=errors", false);
}

const struct command command_pairs = {.name = "pairs",
    .synopsis = "[FILE|- ...]",
    .summary = "post positive pairs, from which the encoder learns",
    .detail =
        "  .ndjson .jsonl  {\"anchor\": {\"text\": ...} or {\"id\": ...}, "
        "\"positive\": {...},\n"
        "                  \"negatives\": [...], \"weight\": 1, \"group\": "
        "...}\n"
        "  a JSON array    of such objects\n"
        "  .tsv            anchor text, positive id; other columns with "
        "--anchor\n"
        "                  --positive --group, other kinds with --anchor-id\n"
        "                  --positive-text\n"
        "Exit code 5 when lines were refused.\n",
    .opts = pairs_opts,
    .n_opts = ARRAY_LEN(pairs_opts),
    .defaults = &load_defaults,
    .opts_bytes = sizeof(struct load_opts),
    .args_max = 1000000,
    .run = pairs_run};

static const struct opt import_opts[] = {
    {"errors", 0, OPT_TEXT, LOAD(errors_to), "FILE",
        "write the outcome of every refused line here, as NDJSON"},
    {"show", 0, OPT_INT, LOAD(show_max), "N",
        "print at most N refused lines (default 20)"},
    {"no-create", 0, OPT_FLAG, LOAD(no_create), NULL,
        "refuse when the collection is missing"},
};

static int
import_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    struct load_opts *load = opts;
    load->input.format = "ndjson";
    return load_run(cli, load, n_args, args, "lines", "imported",
        "/import?outcomes=errors", true);
}

const struct command command_import = {.name = "import",
    .synopsis = "[FILE|- ...]",
    .summary = "take in what export wrote: items, pairs, vectors",
    .opts = import_opts,
    .n_opts = ARRAY_LEN(import_opts),
    .defaults = &load_defaults,
    .opts_bytes = sizeof(struct load_opts),
    .args_max = 1000000,
    .run = import_run};

struct export_opts {
    const char *output;
    bool vectors;
    bool no_pairs;
    bool no_items;
};

#define EXPORT(field) offsetof(struct export_opts, field)
static const struct opt export_opts[] = {
    {"output", 'o', OPT_TEXT, EXPORT(output), "FILE",
        "write here (beside, then renamed); default standard output"},
    {"vectors", 0, OPT_FLAG, EXPORT(vectors), NULL,
        "each item with its vector"},
    {"no-pairs", 0, OPT_FLAG, EXPORT(no_pairs), NULL, "items alone"},
    {"no-items", 0, OPT_FLAG, EXPORT(no_items), NULL, "pairs alone"},
};

/* A download to a file or standard output, with its progress. */
struct download {
    FILE *file;
    uint64_t bytes;
    bool failed;
    struct progress progress;
};

static bool
on_download(void *arg, const char *bytes, size_t n)
{
    struct download *download = arg;
    if (fwrite(bytes, 1, n, download->file) != n) {
        complain("cannot write: %s", strerror(errno));
        download->failed = true;
        return false;
    }
    download->bytes += n;
    return true;
}

static void
on_download_tick(void *arg)
{
    struct download *download = arg;
    char size[32];
    char rate[32];
    char tail[100];
    double seconds = progress_seconds(&download->progress);
    term_bytes(size, sizeof(size), (double)download->bytes);
    term_bytes(rate, sizeof(rate),
        seconds > 0.0 ? (double)download->bytes / seconds : 0.0);
    snprintf(tail, sizeof(tail), "%s  %s/s", size, rate);
    progress_show(&download->progress, -1.0, tail, false);
}

int
download_to(struct cli *cli, const char *path, const char *output,
    const char *label, uint64_t *bytes)
{
    struct download download = {.file = stdout};
    struct answer answer;
    struct buf part;
    int rc = EXIT_REFUSED;
    answer_init(&answer);
    buf_init(&part, 1 << 16);
    if (output != NULL) {
        buf_printf(&part, "%s.part", output);
        download.file = fopen(part.data, "w");
        if (download.file == NULL) {
            complain("%s: %s", part.data, strerror(errno));
            goto out;
        }
    }
    progress_start(&download.progress, label);
    struct http_stream stream = {.method = "GET",
        .path = path,
        .write = on_download,
        .tick = on_download_tick,
        .arg = &download};
    rc = http_stream(cli->http, &stream, &answer);
    progress_clear();
    if (rc == EXIT_DONE)
        rc = download.failed ? EXIT_REFUSED : http_check(cli->http, &answer);
    *bytes = download.bytes;
out:
    if (output != NULL && download.file != NULL) {
        if (rc == EXIT_DONE &&
            (fflush(download.file) != 0 || fsync(fileno(download.file)) != 0)) {
            complain("%s: %s", part.data, strerror(errno));
            rc = EXIT_REFUSED;
        }
        fclose(download.file);
        if (rc == EXIT_DONE && rename(part.data, output) != 0) {
            complain("%s: %s", output, strerror(errno));
            rc = EXIT_REFUSED;
        }
        if (rc != EXIT_DONE)
            unlink(part.data);
    }
    buf_release(&part);
    answer_release(&answer);
    return rc;
}

static int
export_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct export_opts *want = opts;
    (void)n_args;
    (void)args;
    struct buf path;
    uint64_t bytes = 0;
    buf_init(&path, 1 << 16);
    path_admin(&path, cli->global.collection, "/export");
    char join = '?';
    if (want->vectors) {
        buf_printf(&path, "%cvectors=true", join);
        join = '&';
    }
    if (want->no_pairs) {
        buf_printf(&path, "%cpairs=false", join);
        join = '&';
    }
    if (want->no_items)
        buf_printf(&path, "%citems=false", join);
    int rc = download_to(cli, path.data, want->output, "export", &bytes);
    if (rc == EXIT_DONE && want->output != NULL) {
        char size[32];
        say(cli, "%s exported to %s: %s", cli->global.collection, want->output,
            term_bytes(size, sizeof(size), (double)bytes));
    }
    buf_release(&path);
    return rc;
}

const struct command command_export = {.name = "export",
    .synopsis = "[-o FILE]",
    .summary = "write items and pairs as NDJSON, re-importable",
    .opts = export_opts,
    .n_opts = ARRAY_LEN(export_opts),
    .opts_bytes = sizeof(struct export_opts),
    .run = export_run};
