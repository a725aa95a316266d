/* encoders, import-encoder, export-encoder: published encoders, in and out. */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/tarball.h"
#include "cli.h"
#include "http.h"
#include "settings.h"
#include "term.h"

static const char *
text_of(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return s != NULL ? s : "";
}

static double
number_of(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static void
path_encoder(struct buf *path, const char *before, const char *name)
{
    buf_clear(path);
    buf_add_str(path, before);
    path_add_segment(path, name);
}

/* ---- encoders ------------------------------------------------------------ */

struct encoders_opts {
    const char *delete;
};

static const struct opt encoders_opts[] = {
    {"delete", 0, OPT_TEXT, offsetof(struct encoders_opts, delete), "NAME",
        "remove an imported one that no collection needs"},
};

/* The numbers of a row; "" for what a family that is built in has not. */
static void
add_row(struct table *table, const json_t *encoder)
{
    char dims[32];
    char tokens[32] = "";
    char parameters[32] = "";
    char size[32] = "";
    char uses[32] = "";
    const json_t *card = json_object_get(encoder, "card");
    const json_t *range = json_object_get(encoder, "dims");
    bool built_in = json_is_object(range);
    snprintf(dims, sizeof(dims), "%.0f",
        built_in ? number_of(range, "default") : json_number_value(range));
    if (!built_in) {
        snprintf(
            tokens, sizeof(tokens), "%.0f", number_of(encoder, "max_tokens"));
        term_count(
            parameters, sizeof(parameters), number_of(encoder, "parameters"));
        term_bytes(size, sizeof(size), number_of(encoder, "weights_bytes"));
        snprintf(uses, sizeof(uses), "%.0f", number_of(encoder, "collections"));
    }
    table_row(table, text_of(encoder, "name"), text_of(encoder, "reads"), dims,
        tokens, parameters, size, uses,
        built_in ? "built in" : text_of(card, "license"));
}

static int
encoders_list(struct cli *cli)
{
    json_t *answer = NULL;
    int rc = http_json(cli->http, "GET", "/v1/encoders", NULL, &answer, NULL);
    if (rc != EXIT_DONE)
        return rc;
    if (cli->global.json) {
        print_json(answer);
    } else {
        static const char *const lists[] = {"encoders", "families"};
        struct table table;
        table_init(&table, "llrrrrrl", "encoder", "reads", "dims", "tokens",
            "parameters", "size", "collections", "license");
        for (size_t l = 0; l < ARRAY_LEN(lists); l++) {
            size_t i;
            const json_t *encoder;
            json_array_foreach(json_object_get(answer, lists[l]), i, encoder)
                add_row(&table, encoder);
        }
        table_print(&table);
        table_release(&table);
    }
    json_decref(answer);
    return rc;
}

static int
encoders_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct encoders_opts *want = opts;
    struct buf path;
    (void)n_args;
    (void)args;
    if (want->delete == NULL)
        return encoders_list(cli);
    buf_init(&path, 1 << 16);
    path_encoder(&path, "/v1/admin/encoders/", want->delete);
    int rc = http_json(cli->http, "DELETE", path.data, NULL, NULL, NULL);
    if (rc == EXIT_DONE)
        say(cli, "encoder %s deleted", want->delete);
    buf_release(&path);
    return rc;
}

const struct command command_encoders = {.name = "encoders",
    .synopsis = "[--delete NAME]",
    .summary = "list the encoders that collections can be made with",
    .opts = encoders_opts,
    .n_opts = ARRAY_LEN(encoders_opts),
    .opts_bytes = sizeof(struct encoders_opts),
    .run = encoders_run};

/* ---- import-encoder ------------------------------------------------------ */

static bool
is_there(const char *folder, const char *name)
{
    struct buf path;
    struct stat st;
    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s/%s", folder, name);
    bool there = buf_status(&path) == OK && stat(path.data, &st) == 0;
    buf_release(&path);
    return there;
}

/* The mistakes that need no daemon to be told. */
static bool
looks_right(const char *folder)
{
    struct stat st;
    if (stat(folder, &st) != 0) {
        complain("%s: %s", folder, strerror(errno));
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        complain("%s: is no folder; give the one that holds the model's "
                 "config.json",
            folder);
        return false;
    }
    if (!is_there(folder, "config.json") && !is_there(folder, "modules.json")) {
        complain("%s: has no config.json; is it the folder of a "
                 "sentence-transformers model?",
            folder);
        return false;
    }
    if (is_there(folder, "pytorch_model.bin") &&
        !is_there(folder, "model.safetensors")) {
        complain("%s: has pytorch_model.bin, which is not read, and no "
                 "model.safetensors; it is made there by",
            folder);
        fprintf(stderr, "  python3 -c 'import torch, safetensors.torch as s; "
                        "s.save_file({k: v.clone().contiguous() for k, v in "
                        "torch.load(\"pytorch_model.bin\", \"cpu\", "
                        "weights_only=True).items()}, \"model.safetensors\", "
                        "{\"format\": \"pt\"})'\n");
        return false;
    }
    return true;
}

/* A folder on its way: a child packs it into a pipe that is read here. */
struct upload {
    int fd;
    pid_t child;
    uint64_t sent;
    uint64_t total;
    struct progress progress;
};

static enum err
write_pipe(void *arg, const void *bytes, size_t n)
{
    const int *fd = arg;
    const char *at = bytes;
    while (n > 0) {
        ssize_t done = write(*fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return ERR_CANCELLED; /* nobody reads any more, and knows why */
        at += done;
        n -= (size_t)done;
    }
    return OK;
}

NORETURN static void
pack_and_exit(const char *folder, int fd)
{
    struct fault fault = {0};
    enum err err = tarball_pack(folder, write_pipe, &fd, &fault);
    if (err != OK && err != ERR_CANCELLED)
        complain("%s", fault.detail);
    fflush(stderr);
    _exit(err == OK ? 0 : 1);
}

static bool
upload_start(struct upload *upload, const char *folder)
{
    int ends[2];
    struct fault fault = {0};
    if (tarball_bytes(folder, &upload->total, &fault) != OK) {
        complain("%s", fault.detail);
        return false;
    }
    fflush(NULL);
    if (pipe(ends) != 0) {
        complain("no pipe: %s", strerror(errno));
        return false;
    }
    upload->fd = ends[0];
    upload->child = fork();
    if (upload->child == 0) {
        close(ends[0]);
        pack_and_exit(folder, ends[1]);
    }
    close(ends[1]);
    if (upload->child > 0)
        return true;
    complain("no process: %s", strerror(errno));
    close(ends[0]);
    return false;
}

/* The child's end: true when it has packed everything. */
static bool
upload_end(struct upload *upload)
{
    int status = 1;
    if (upload->child == 0)
        return true;
    close(upload->fd); /* a child that still writes ends by it */
    while (waitpid(upload->child, &status, 0) < 0 && errno == EINTR)
        continue;
    upload->child = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static size_t
on_upload(void *arg, char *out, size_t max)
{
    struct upload *upload = arg;
    ssize_t n = 0;
    if (upload->child == 0)
        return 0;
    do
        n = read(upload->fd, out, max);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        upload->sent += (uint64_t)n;
        return (size_t)n;
    }
    return upload_end(upload) && n == 0 ? 0 : HTTP_READ_ABORT;
}

static void
on_upload_tick(void *arg)
{
    struct upload *upload = arg;
    char sent[32];
    char total[32];
    char tail[100];
    term_bytes(sent, sizeof(sent), (double)upload->sent);
    term_bytes(total, sizeof(total), (double)upload->total);
    if (upload->sent < upload->total)
        snprintf(tail, sizeof(tail), "%s of %s", sent, total);
    else
        snprintf(tail, sizeof(tail), "%s  the daemon checks it", total);
    progress_show(&upload->progress,
        (double)upload->sent / (double)upload->total, tail, false);
}

static void
print_line(const char *name, const char *text)
{
    char clean[500];
    term_clean(clean, sizeof(clean), text);
    if (clean[0] != '\0')
        printf("  %-12s %s\n", name, clean);
}

static void
print_encoder(const json_t *encoder)
{
    char line[200];
    char parameters[32];
    char size[32];
    struct buf languages;
    size_t i;
    const json_t *language;
    const json_t *card = json_object_get(encoder, "card");
    buf_init(&languages, 1 << 16);
    json_array_foreach(json_object_get(card, "languages"), i, language)
        buf_printf(&languages, "%s%s", i > 0 ? " " : "",
            json_is_string(language) ? json_string_value(language) : "");
    snprintf(line, sizeof(line), "%s, reads %s", text_of(encoder, "family"),
        text_of(encoder, "reads"));
    print_line("family", line);
    snprintf(line, sizeof(line), "%.0f dimensions, %.0f tokens at most",
        number_of(encoder, "dims"), number_of(encoder, "max_tokens"));
    print_line("vectors", line);
    snprintf(line, sizeof(line), "%s parameters, %s",
        term_count(
            parameters, sizeof(parameters), number_of(encoder, "parameters")),
        term_bytes(size, sizeof(size), number_of(encoder, "weights_bytes")));
    print_line("weights", line);
    print_line("source", text_of(card, "source"));
    print_line("license", text_of(card, "license"));
    print_line("languages", languages.data != NULL ? languages.data : "");
    print_line("fingerprint", text_of(encoder, "fingerprint"));
    buf_release(&languages);
}

/* Send the folder; *encoder is what the daemon answers, *made if it is new. */
static int
upload_folder(struct cli *cli, const char *folder, const char *path,
    json_t **encoder, bool *made)
{
    struct upload upload = {0};
    struct answer answer;
    int rc = EXIT_REFUSED;
    answer_init(&answer);
    if (!upload_start(&upload, folder))
        goto out;
    progress_start(&upload.progress, "encoder");
    struct http_stream stream = {.method = "PUT",
        .path = path,
        .content_type = "application/x-tar",
        .read = on_upload,
        .length = upload.total,
        .tick = on_upload_tick,
        .arg = &upload};
    rc = http_stream(cli->http, &stream, &answer);
    upload_end(&upload);
    progress_clear();
    if (rc == EXIT_DONE)
        rc = http_check(cli->http, &answer);
    if (rc != EXIT_DONE)
        goto out;
    *made = answer.status == 201;
    *encoder = json_loadb(answer.body.data, answer.body.len, 0, NULL);
    if (*encoder == NULL) {
        complain("the answer is no JSON; is this a kindred daemon?");
        rc = EXIT_REFUSED;
    }
out:
    answer_release(&answer);
    return rc;
}

struct import_opts {
    const char *name;
};

static const struct opt import_opts[] = {
    {"name", 'n', OPT_TEXT, offsetof(struct import_opts, name), "NAME",
        "what collections call it"},
};

static int
import_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct import_opts *want = opts;
    struct buf path;
    json_t *encoder = NULL;
    bool made = false;
    (void)n_args;
    if (want->name == NULL) {
        complain("import-encoder: give it a name, with --name NAME");
        return EXIT_USAGE;
    }
    if (!looks_right(args[0]))
        return EXIT_REFUSED;
    buf_init(&path, 1 << 16);
    path_encoder(&path, "/v1/admin/encoders/", want->name);
    int rc = upload_folder(cli, args[0], path.data, &encoder, &made);
    if (rc == EXIT_DONE && cli->global.json) {
        print_json(encoder);
    } else if (rc == EXIT_DONE) {
        printf("encoder %s %s\n", want->name,
            made ? "imported" : "is there already, the same");
        print_encoder(encoder);
        say(cli, "use it: kindred create NAME --encoder %s", want->name);
    }
    json_decref(encoder);
    buf_release(&path);
    return rc;
}

const struct command command_import_encoder = {.name = "import-encoder",
    .synopsis = "FOLDER --name NAME",
    .summary = "import a published encoder from its folder",
    .detail =
        "FOLDER is that of a sentence-transformers model (config.json, "
        "model.safetensors,\ntokenizer.json or vocab.txt, ...). It is sent as "
        "it is, links followed, names that\nbegin with a dot left out; "
        "nothing of it is run. Sending it again does no harm.\n",
    .opts = import_opts,
    .n_opts = ARRAY_LEN(import_opts),
    .opts_bytes = sizeof(struct import_opts),
    .args_min = 1,
    .args_max = 1,
    .run = import_run};

/* ---- export-encoder ------------------------------------------------------ */

/* An empty folder to unpack into; *made if it is new. */
static bool
folder_ready(const char *folder, bool *made)
{
    *made = mkdir(folder, 0777) == 0;
    if (*made)
        return true;
    DIR *dir = errno == EEXIST ? opendir(folder) : NULL;
    if (dir == NULL) {
        complain("%s: %s", folder, strerror(errno));
        return false;
    }
    size_t n = 0;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    if (n > 2) /* . and .. */
        complain("%s: is not empty", folder);
    return n <= 2;
}

/* The stream goes to a file without a name first, so that a broken one leaves
   nothing. */
struct fetching {
    FILE *file;
    uint64_t bytes;
    bool failed;
    struct progress progress;
};

static bool
on_fetch(void *arg, const char *bytes, size_t n)
{
    struct fetching *fetching = arg;
    fetching->failed = fwrite(bytes, 1, n, fetching->file) != n;
    if (fetching->failed)
        complain("cannot write: %s", strerror(errno));
    fetching->bytes += n;
    return !fetching->failed;
}

static void
on_fetch_tick(void *arg)
{
    struct fetching *fetching = arg;
    char size[32];
    term_bytes(size, sizeof(size), (double)fetching->bytes);
    progress_show(&fetching->progress, -1.0, size, false);
}

static FILE *
nameless_file(const char *folder)
{
    struct buf path;
    FILE *file = NULL;
    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s/.part-XXXXXX", folder);
    int fd = buf_status(&path) == OK ? mkstemp(path.data) : -1;
    if (fd >= 0) {
        unlink(path.data);
        file = fdopen(fd, "w+");
    }
    if (file == NULL)
        complain("%s: %s", folder, strerror(errno));
    buf_release(&path);
    return file;
}

static int
fetch_folder(
    struct cli *cli, const char *path, const char *folder, uint64_t *bytes)
{
    struct fetching fetching = {.file = nameless_file(folder)};
    struct answer answer;
    struct fault fault = {0};
    int rc = EXIT_REFUSED;
    answer_init(&answer);
    if (fetching.file == NULL)
        goto out;
    progress_start(&fetching.progress, "encoder");
    struct http_stream stream = {.method = "GET",
        .path = path,
        .write = on_fetch,
        .tick = on_fetch_tick,
        .arg = &fetching};
    rc = http_stream(cli->http, &stream, &answer);
    progress_clear();
    if (rc == EXIT_DONE)
        rc = fetching.failed ? EXIT_REFUSED : http_check(cli->http, &answer);
    if (rc != EXIT_DONE)
        goto out;
    if (fflush(fetching.file) != 0 ||
        lseek(fileno(fetching.file), 0, SEEK_SET) != 0) {
        complain("%s: %s", folder, strerror(errno));
        rc = EXIT_REFUSED;
    } else if (tarball_unpack(fileno(fetching.file), folder, fetching.bytes,
                   &fault) != OK) {
        complain("%s", fault.detail);
        rc = EXIT_REFUSED;
    }
    *bytes = fetching.bytes;
out:
    if (fetching.file != NULL)
        fclose(fetching.file);
    answer_release(&answer);
    return rc;
}

struct export_opts {
    long long generation;
};
static const struct export_opts export_defaults = {ARGS_INT_UNSET};

static const struct opt export_opts[] = {
    {"generation", 'g', OPT_INT, offsetof(struct export_opts, generation), "N",
        "default: the live one"},
};

static int
live_generation(struct cli *cli, const char *collection, long long *out)
{
    struct buf path;
    json_t *answer = NULL;
    buf_init(&path, 1 << 16);
    path_collection(&path, collection, "");
    int rc = http_json(cli->http, "GET", path.data, NULL, &answer, NULL);
    if (rc == EXIT_DONE)
        *out = json_integer_value(json_object_get(answer, "generation"));
    json_decref(answer);
    buf_release(&path);
    return rc;
}

static int
export_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    struct export_opts *want = opts;
    const char *folder = args[1];
    struct buf path;
    char suffix[64];
    char size[32];
    uint64_t bytes = 0;
    bool made = false;
    (void)n_args;
    int rc = EXIT_DONE;
    if (want->generation == ARGS_INT_UNSET)
        rc = live_generation(cli, args[0], &want->generation);
    if (rc != EXIT_DONE)
        return rc;
    if (!folder_ready(folder, &made))
        return EXIT_REFUSED;
    snprintf(
        suffix, sizeof(suffix), "/generations/%lld/folder", want->generation);
    buf_init(&path, 1 << 16);
    path_collection(&path, args[0], suffix);
    rc = fetch_folder(cli, path.data, folder, &bytes);
    if (rc == EXIT_DONE)
        say(cli, "%s: generation %lld of %s, %s", folder, want->generation,
            args[0], term_bytes(size, sizeof(size), (double)bytes));
    else if (made)
        tarball_discard(folder);
    buf_release(&path);
    return rc;
}

const struct command command_export_encoder = {.name = "export-encoder",
    .synopsis = "COLLECTION FOLDER [--generation N]",
    .summary = "write a collection's encoder as a folder, as it was trained",
    .detail = "FOLDER, absent or empty, becomes one that sentence-transformers "
              "loads and that\nimport-encoder takes.\n",
    .opts = export_opts,
    .n_opts = ARRAY_LEN(export_opts),
    .defaults = &export_defaults,
    .opts_bytes = sizeof(struct export_opts),
    .args_min = 2,
    .args_max = 2,
    .run = export_run};
