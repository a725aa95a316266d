/* What the commands do with pictures: index takes folders of them, search asks
   by one, views shows what training makes of one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "http.h"
#include "pictures.h"
#include "send.h"
#include "settings.h"
#include "term.h"

/* Until the service has said its own. */
#define LINE_MAX_GUESS ((size_t)2 << 20)

/* ---- index: pictures or documents? --------------------------------------- */

/* What the collection's encoder reads, "" when there is no collection, and how
   many items it has, with a picture or without. */
static int
collection_reads(struct cli *cli, char *reads, size_t max, long long *n_items)
{
    struct answer answer;
    struct buf path;
    answer_init(&answer);
    buf_init(&path, 1 << 16);
    path_collection(&path, cli->global.collection, "");
    reads[0] = '\0';
    *n_items = 0;
    int rc = http_call(cli->http, "GET", path.data, NULL, 0, &answer);
    if (rc == EXIT_DONE && answer.status != 404) {
        rc = http_check(cli->http, &answer);
        json_t *info = rc == EXIT_DONE ? json_loadb(answer.body.data,
                                             answer.body.len, 0, NULL)
                                       : NULL;
        const char *s = json_string_value(json_object_get(info, "reads"));
        snprintf(reads, max, "%s", s != NULL ? s : "text");
        *n_items =
            (long long)json_integer_value(json_object_get(info, "items"));
        json_decref(info);
    }
    buf_release(&path);
    answer_release(&answer);
    return rc;
}

int
pictures_wanted(struct cli *cli, const struct picture_opts *opts,
    char *const *paths, size_t n, struct pictures *pictures, bool *take)
{
    char reads[32];
    long long n_items;
    *take = false;
    memset(pictures, 0, sizeof(*pictures));
    for (size_t i = 0; i < n; i++)
        if (strcmp(paths[i], "-") == 0)
            n = 0; /* standard input is never a picture */
    if (opts->none || n == 0) {
        if (opts->only)
            complain("index: --pictures needs a folder or files");
        return opts->only ? EXIT_USAGE : EXIT_DONE;
    }
    if (!pictures_find(pictures, paths, n))
        return EXIT_REFUSED;
    if (pictures->n == 0) {
        if (opts->only)
            complain("no picture (JPEG, PNG, WebP) in %s", paths[0]);
        return opts->only ? EXIT_REFUSED : EXIT_DONE;
    }
    *take = true;
    if (opts->only)
        return EXIT_DONE;
    int rc = collection_reads(cli, reads, sizeof(reads), &n_items);
    if (rc == EXIT_DONE)
        /* A folder of pictures alone is never taken for documents: where it
           cannot go, that is said. */
        *take = strcmp(reads, "image") == 0 || pictures->n_documents == 0 ||
                (reads[0] == '\0' && pictures->n > pictures->n_documents);
    return rc;
}

/* ---- index --------------------------------------------------------------- */

static int
collection_make(struct cli *cli, const struct picture_opts *opts)
{
    struct buf path;
    json_t *made = NULL;
    json_t *config = json_object();
    json_t *body = json_object();
    buf_init(&path, 1 << 16);
    path_collection(&path, cli->global.collection, "");
    json_object_set_new(body, "encoder", json_string("vision"));
    if (opts->side != ARGS_INT_UNSET)
        json_object_set_new(config, "input", json_integer(opts->side));
    if (opts->grey)
        json_object_set_new(config, "channels", json_integer(1));
    if (json_object_size(config) > 0)
        json_object_set(body, "encoder_config", config);
    int rc = http_json(cli->http, "PUT", path.data, body, &made, NULL);
    if (rc == EXIT_DONE) {
        const json_t *settings = json_object_get(made, "settings");
        char *text = json_dumps(json_object_get(settings, "encoder_config"),
            JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
        say(cli, "collection %s made: encoder vision, %lld dimensions, %s",
            cli->global.collection,
            (long long)json_integer_value(json_object_get(made, "dims")),
            text != NULL ? text : "all defaults");
        free(text);
    }
    json_decref(made);
    json_decref(config);
    json_decref(body);
    buf_release(&path);
    return rc;
}

static int
collection_ready(
    struct cli *cli, const struct picture_opts *opts, long long *n_items)
{
    char reads[32];
    int rc = collection_reads(cli, reads, sizeof(reads), n_items);
    if (rc != EXIT_DONE)
        return rc;
    if (reads[0] == '\0') {
        if (opts->create)
            return collection_make(cli, opts);
        complain(
            "there is no collection %s (--no-create)", cli->global.collection);
        return EXIT_REFUSED;
    }
    if (strcmp(reads, "image") != 0) {
        complain("collection %s reads %s; pictures need one of their own: "
                 "-c NAME, which is made, or kindred create NAME --encoder "
                 "vision",
            cli->global.collection, reads);
        return EXIT_REFUSED;
    }
    if (opts->side != ARGS_INT_UNSET || opts->grey)
        say(cli,
            "collection %s is there: --input-side and --grey are for a "
            "new one",
            cli->global.collection);
    return EXIT_DONE;
}

static void
known_take(void *arg, json_t *item)
{
    const json_t *image = json_object_get(item, "image");
    const char *id = json_string_value(json_object_get(item, "id"));
    const char *hash = json_string_value(json_object_get(image, "sha256"));
    char text[128];
    snprintf(text, sizeof(text), "%lld %s",
        (long long)json_integer_value(json_object_get(image, "bytes")),
        hash != NULL ? hash : "");
    if (id != NULL)
        json_object_set_new(arg, id, json_string(text));
}

/* Which bytes the service has, id by id. */
static int
known_read(struct cli *cli, struct pictures *pictures)
{
    pictures->known = json_object();
    return http_pages(cli->http, cli->global.collection, "items", "comparing",
        known_take, pictures->known);
}

/* One picture by itself: what is known of the item beside it stays. */
static int
picture_put(struct cli *cli, const struct picture *picture,
    struct answer *answer, uint64_t *n_bytes)
{
    struct buf path;
    struct buf bytes;
    buf_init(&path, 1 << 16);
    buf_init(&bytes, (size_t)1 << 30);
    int rc = EXIT_REFUSED;
    path_collection(&path, cli->global.collection, "/items/");
    path_add_segment(&path, picture->id);
    buf_add_str(&path, "/image");
    if (file_read(picture->path, (size_t)1 << 30, &bytes)) {
        rc = http_send(cli->http, "PUT", path.data, "application/octet-stream",
            bytes.data != NULL ? bytes.data : "", bytes.len, answer);
        *n_bytes += bytes.len;
    }
    buf_release(&path);
    buf_release(&bytes);
    return rc;
}

static int
aside_send(struct cli *cli, const struct picture_opts *opts,
    const struct pictures *pictures, struct send_counts *counts)
{
    struct answer answer;
    struct progress progress;
    size_t sent = 0;
    int rc = EXIT_DONE;
    answer_init(&answer);
    progress_start(&progress, "one by one");
    for (size_t i = 0; rc == EXIT_DONE && i < pictures->n; i++) {
        if (!pictures->v[i].aside)
            continue;
        rc = picture_put(cli, &pictures->v[i], &answer, &counts->bytes);
        if (rc != EXIT_DONE)
            break;
        counts->records++;
        if (answer.status >= 400) {
            json_t *problem =
                json_loadb(answer.body.data != NULL ? answer.body.data : "",
                    answer.body.len, 0, NULL);
            const char *why = problem_text(problem);
            char clean[1000];
            term_clean(clean, sizeof(clean), why != NULL ? why : "refused");
            progress_clear();
            if (counts->failed++ < opts->show_max)
                fprintf(stderr, "%s: %s (%ld)\n", pictures->v[i].path, clean,
                    answer.status);
            json_decref(problem);
        }
        char tail[64];
        sent++;
        snprintf(tail, sizeof(tail), "%zu of %zu", sent, pictures->n_aside);
        progress_show(
            &progress, (double)sent / (double)pictures->n_aside, tail, false);
    }
    counts->seconds += progress_seconds(&progress);
    progress_clear();
    answer_release(&answer);
    return rc == EXIT_DONE && counts->failed > 0 ? EXIT_SOME_FAILED : rc;
}

static void
report(const struct cli *cli, const struct pictures *pictures,
    const struct send_counts *counts)
{
    size_t skipped = pictures->n_documents + pictures->n_other;
    if (cli->global.json) {
        printf("{\"pictures\":%zu,\"sent\":%llu,\"unchanged\":%zu,"
               "\"skipped\":%zu,\"refused\":%llu,\"unread\":%llu,"
               "\"bytes\":%llu,\"seconds\":%.3f}\n",
            pictures->n, (unsigned long long)counts->records,
            pictures->n_unchanged, skipped, (unsigned long long)counts->failed,
            (unsigned long long)counts->unread,
            (unsigned long long)counts->bytes, counts->seconds);
        return;
    }
    char bytes[32];
    char more[200] = "";
    size_t len = 0;
    if (pictures->n_unchanged > 0)
        len += (size_t)snprintf(more + len, sizeof(more) - len,
            ", %zu unchanged", pictures->n_unchanged);
    if (counts->failed > 0)
        len += (size_t)snprintf(more + len, sizeof(more) - len,
            ", %llu refused", (unsigned long long)counts->failed);
    if (counts->unread > 0)
        len += (size_t)snprintf(more + len, sizeof(more) - len,
            ", %llu could not be read", (unsigned long long)counts->unread);
    if (skipped > 0)
        (void)snprintf(more + len, sizeof(more) - len,
            ", %zu other files left alone", skipped);
    double rate =
        counts->seconds > 0.0 ? (double)counts->records / counts->seconds : 0.0;
    say(cli, "%llu pictures indexed%s: %s in %.1f s (%.0f/s) into %s",
        (unsigned long long)(counts->records - counts->failed), more,
        term_bytes(bytes, sizeof(bytes), (double)counts->bytes),
        counts->seconds, rate, cli->global.collection);
}

int
pictures_index(
    struct cli *cli, const struct picture_opts *opts, struct pictures *pictures)
{
    long long n_items = 0;
    json_t *info = NULL;
    struct buf path;
    struct send_counts counts = {0};
    buf_init(&path, 1 << 16);
    int rc = collection_ready(cli, opts, &n_items);
    if (rc == EXIT_DONE)
        rc = http_json(cli->http, "GET", "/v1/info", NULL, &info, NULL);
    if (rc == EXIT_DONE && n_items > 0)
        rc = known_read(cli, pictures);
    if (rc != EXIT_DONE)
        goto out;
    json_int_t line = json_integer_value(
        json_object_get(json_object_get(info, "limits"), "line_bytes"));
    pictures->line_max = line > 0 ? (size_t)line : LINE_MAX_GUESS;
    pictures->field = opts->field;
    struct input *input = input_of_pictures(pictures);
    path_collection(&path, cli->global.collection, "/items?outcomes=errors");
    rc = send_input(cli, input, path.data, "pictures", opts->errors_to,
        opts->show_max, &counts);
    input_close(input);
    if ((rc == EXIT_DONE || rc == EXIT_SOME_FAILED) && pictures->n_aside > 0) {
        int aside = aside_send(cli, opts, pictures, &counts);
        rc = aside != EXIT_DONE ? aside : rc;
    }
    if (rc == EXIT_DONE || rc == EXIT_SOME_FAILED)
        report(cli, pictures, &counts);
out:
    json_decref(info);
    buf_release(&path);
    return rc;
}

/* ---- search -------------------------------------------------------------- */

int
pictures_search(struct cli *cli, const char *collection, const char *file,
    const char *args, json_t **out)
{
    struct answer answer;
    struct buf path;
    struct buf bytes;
    int rc = EXIT_REFUSED;
    answer_init(&answer);
    buf_init(&path, 1 << 20);
    buf_init(&bytes, (size_t)1 << 30);
    if (!file_read(file, (size_t)1 << 30, &bytes))
        goto out;
    path_collection(&path, collection, "/search/image");
    buf_add_str(&path, args);
    rc = http_send(cli->http, "POST", path.data, "application/octet-stream",
        bytes.data != NULL ? bytes.data : "", bytes.len, &answer);
    if (rc == EXIT_DONE)
        rc = http_check(cli->http, &answer);
    if (rc != EXIT_DONE)
        goto out;
    *out = json_loadb(answer.body.data, answer.body.len, 0, NULL);
    if (*out == NULL) {
        complain("the answer is no JSON; is this a kindred daemon?");
        rc = EXIT_REFUSED;
    }
out:
    answer_release(&answer);
    buf_release(&path);
    buf_release(&bytes);
    return rc;
}

/* ---- views --------------------------------------------------------------- */

struct views_opts {
    const char *output;
    long long n;
    long long seed;
    struct text_list set;
};
static const struct views_opts views_defaults = {
    .n = 8, .seed = ARGS_INT_UNSET};

#define VIEWS(field) offsetof(struct views_opts, field)
static const struct opt views_opts[] = {
    {"output", 'o', OPT_TEXT, VIEWS(output), "FILE",
        "write the sheet here (default: standard output, if it is no "
        "terminal)"},
    {"n", 'n', OPT_INT, VIEWS(n), "N", "how many views (default 8)"},
    {"seed", 0, OPT_INT, VIEWS(seed), "N",
        "the same seed gives the same views"},
    {"set", 's', OPT_LIST, VIEWS(set), "KEY=VALUE",
        "a strength that is not the default's: crop_min, crop_max, ratio, "
        "flip, jitter, brightness, contrast, saturation, hue, grey, blur, "
        "solarise, rotate, erase; may be repeated"},
};

static int
views_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct views_opts *want = opts;
    const char *collection = n_args == 2 ? args[0] : cli->global.collection;
    struct buf path;
    uint64_t bytes = 0;
    int rc = EXIT_USAGE;
    buf_init(&path, 1 << 16);
    if (want->output == NULL && term_stdout_is_tty()) {
        complain("views: a picture is no text for a terminal; -o sheet.png");
        goto out;
    }
    path_collection(&path, collection, "/items/");
    path_add_segment(&path, args[n_args - 1]);
    buf_printf(&path, "/views?n=%lld", want->n);
    if (want->seed != ARGS_INT_UNSET)
        buf_printf(&path, "&seed=%lld", want->seed);
    for (size_t i = 0; i < want->set.n; i++) {
        const char *word = want->set.v[i];
        const char *equals = strchr(word, '=');
        if (equals == NULL || equals == word) {
            complain("\"%s\" is not of the form key=value", word);
            goto out;
        }
        char *key = must_strdup(word);
        key[equals - word] = '\0';
        buf_add_char(&path, '&');
        path_add_segment(&path, key);
        buf_add_char(&path, '=');
        path_add_segment(&path, equals + 1);
        mem_free(key);
    }
    rc = download_to(cli, path.data, want->output, "views", &bytes);
    if (rc == EXIT_DONE && want->output != NULL) {
        char size[32];
        say(cli, "%s: the picture and %lld views, %s", want->output, want->n,
            term_bytes(size, sizeof(size), (double)bytes));
    }
out:
    buf_release(&path);
    return rc;
}

const struct command command_views = {.name = "views",
    .synopsis = "[COLLECTION] ID -o FILE",
    .summary = "draw what training makes of an item's picture",
    .detail = "One PNG: the picture as the encoder sees it, then random views "
              "of it: cropped,\nmirrored, recoloured. Two views of one picture "
              "are what the encoder is taught to\nfind alike, so whatever "
              "differs between them it learns to ignore.\n",
    .opts = views_opts,
    .n_opts = ARRAY_LEN(views_opts),
    .defaults = &views_defaults,
    .opts_bytes = sizeof(struct views_opts),
    .args_min = 1,
    .args_max = 2,
    .run = views_run};
