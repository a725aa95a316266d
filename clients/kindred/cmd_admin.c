/* status, create, delete: the collections themselves. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli.h"
#include "http.h"
#include "judge.h"
#include "settings.h"
#include "term.h"

static double
number_of(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static const char *
text_of(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return s != NULL ? s : "";
}

/* A count that may stand under one of two names, as text; "" without. */
static const char *
count_of(
    char *out, size_t max, const json_t *object, const char *a, const char *b)
{
    const json_t *value = json_object_get(object, a);
    if (value == NULL)
        value = json_object_get(object, b);
    if (json_is_object(value))
        value = json_object_get(value, "total");
    out[0] = '\0';
    if (json_is_number(value))
        snprintf(out, max, "%.0f", json_number_value(value));
    return out;
}

static json_t *
list_of(json_t *answer, const char *name)
{
    return json_is_array(answer) ? answer : json_object_get(answer, name);
}

static void
print_collections(const json_t *collections)
{
    struct table table;
    size_t i;
    const json_t *collection;
    table_init(&table, "lrrrrrl", "collection", "items", "pairs", "new", "dims",
        "generation", "aliases");
    json_array_foreach(collections, i, collection)
    {
        char items[32];
        char pairs[32];
        char fresh[32];
        char dims[32];
        char generation[32];
        struct buf aliases;
        size_t j;
        const json_t *alias;
        buf_init(&aliases, 1 << 16);
        json_array_foreach(json_object_get(collection, "aliases"), j, alias)
            buf_printf(&aliases, "%s%s", j > 0 ? " " : "",
                json_is_string(alias) ? json_string_value(alias) : "");
        count_of(items, sizeof(items), collection, "items", "n_items");
        count_of(pairs, sizeof(pairs), collection, "pairs", "n_pairs");
        const json_t *nested = json_object_get(collection, "pairs");
        count_of(fresh, sizeof(fresh),
            json_is_object(nested) ? nested : collection,
            json_is_object(nested) ? "new" : "pairs_new", "n_pairs_new");
        count_of(dims, sizeof(dims), collection, "dims", "dimensions");
        count_of(
            generation, sizeof(generation), collection, "generation", "live");
        table_row(&table, text_of(collection, "name"), items, pairs, fresh,
            dims, generation, aliases.data != NULL ? aliases.data : "");
        buf_release(&aliases);
    }
    table_print(&table);
    table_release(&table);
}

static void
print_generations(const json_t *generations)
{
    struct table table;
    size_t i;
    const json_t *generation;
    table_init(&table, "rlrl", "generation", "state", "temperature", "report");
    json_array_foreach(generations, i, generation)
    {
        char number[32];
        char temperature[32];
        const json_t *report = json_object_get(generation, "report");
        const char *reason = text_of(report, "reason");
        snprintf(number, sizeof(number), "%.0f",
            number_of(generation, "generation"));
        snprintf(temperature, sizeof(temperature), "%.4f",
            number_of(generation, "temperature"));
        table_row(
            &table, number, text_of(generation, "state"), temperature, reason);
    }
    table_print(&table);
    table_release(&table);
}

/* One collection with its lineage. */
static int
status_one(struct cli *cli, const char *name)
{
    struct buf path;
    json_t *collection = NULL;
    json_t *generations = NULL;
    buf_init(&path, 1 << 16);
    path_collection(&path, name, "");
    int rc = http_json(cli->http, "GET", path.data, NULL, &collection, NULL);
    if (rc != EXIT_DONE)
        goto out;
    path_collection(&path, name, "/generations");
    rc = http_json(cli->http, "GET", path.data, NULL, &generations, NULL);
    if (rc != EXIT_DONE)
        goto out;
    if (cli->global.json) {
        json_t *both = json_object();
        json_object_set(both, "collection", collection);
        json_object_set(both, "generations",
            (json_t *)json_object_get(generations, "generations"));
        print_json(both);
        json_decref(both);
        goto out;
    }
    const char *key;
    json_t *value;
    json_object_foreach(collection, key, value)
    {
        char *text = json_dumps(
            value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        char clean[2000];
        term_clean(clean, sizeof(clean),
            json_is_string(value) ? json_string_value(value)
            : text != NULL        ? text
                                  : "");
        printf("%-22s %s\n", key, clean);
        free(text);
    }
    puts("");
    print_generations(list_of(generations, "generations"));
out:
    json_decref(generations);
    json_decref(collection);
    buf_release(&path);
    return rc;
}

static int
status_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    (void)opts;
    if (n_args > 0)
        return status_one(cli, args[0]);
    json_t *info = NULL;
    json_t *collections = NULL;
    json_t *jobs = NULL;
    int rc = http_json(cli->http, "GET", "/v1/info", NULL, &info, NULL);
    if (rc == EXIT_DONE)
        rc = http_json(
            cli->http, "GET", "/v1/collections", NULL, &collections, NULL);
    if (rc == EXIT_DONE)
        rc = http_json(cli->http, "GET", "/v1/jobs", NULL, &jobs, NULL);
    if (rc != EXIT_DONE)
        goto out;
    if (cli->global.json) {
        json_t *all = json_object();
        json_object_set(all, "info", info);
        json_object_set(
            all, "collections", list_of(collections, "collections"));
        json_object_set(all, "jobs", list_of(jobs, "jobs"));
        print_json(all);
        json_decref(all);
        goto out;
    }
    const json_t *kernels = json_object_get(info, "kernels");
    if (json_is_object(kernels))
        kernels = json_object_get(kernels, "name");
    printf("kindred %s at %s, kernels %s\n", text_of(info, "version"),
        http_url(cli->http),
        json_is_string(kernels) ? json_string_value(kernels) : "?");
    const json_t *list = list_of(collections, "collections");
    if (json_array_size(list) > 0) {
        puts("");
        print_collections(list);
    } else {
        puts("no collections; kindred index FILE makes the first");
    }
    const json_t *job_list = list_of(jobs, "jobs");
    if (json_array_size(job_list) > 0) {
        puts("");
        judge_print_jobs(job_list);
    }
out:
    json_decref(info);
    json_decref(collections);
    json_decref(jobs);
    return rc;
}

const struct command command_status = {.name = "status",
    .synopsis = "[COLLECTION]",
    .summary = "what the daemon holds: collections, generations, jobs",
    .detail = "With a collection's name: its settings, counts and lineage.\n",
    .args_max = 1,
    .run = status_run};

struct create_opts {
    const char *encoder;
    long long dims;
    const char *item_template;
    const char *description;
    struct text_list set;
};
static const struct create_opts create_defaults = {.dims = ARGS_INT_UNSET};

#define CREATE(field) offsetof(struct create_opts, field)
static const struct opt create_opts[] = {
    {"encoder", 0, OPT_TEXT, CREATE(encoder), "NAME",
        "static for texts (default), vision for pictures, external for "
        "vectors of your own, or one that kindred encoders lists"},
    {"dims", 'd', OPT_INT, CREATE(dims), "N", "dimensions of the vectors"},
    {"template", 0, OPT_TEXT, CREATE(item_template), "TEXT",
        "what of an item is embedded (default title, newline, text)"},
    {"description", 0, OPT_TEXT, CREATE(description), "TEXT", "for people"},
    {"set", 's', OPT_LIST, CREATE(set), "KEY=VALUE",
        "any other setting; dots nest: train.every_pairs=500"},
};

static int
create_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct create_opts *want = opts;
    const char *name = n_args > 0 ? args[0] : cli->global.collection;
    struct buf path;
    json_t *body = json_object();
    json_t *made = NULL;
    long status = 0;
    int rc = EXIT_USAGE;
    buf_init(&path, 1 << 16);
    if (want->encoder != NULL)
        json_object_set_new(body, "encoder", json_string(want->encoder));
    if (want->dims != ARGS_INT_UNSET)
        json_object_set_new(body, "dims", json_integer(want->dims));
    if (want->item_template != NULL)
        json_object_set_new(body, "template", json_string(want->item_template));
    if (want->description != NULL)
        json_object_set_new(
            body, "description", json_string(want->description));
    if (!settings_add(body, &want->set))
        goto out;
    path_collection(&path, name, "");
    rc = http_json(cli->http, "PUT", path.data, body, &made, &status);
    if (rc != EXIT_DONE)
        goto out;
    if (cli->global.json)
        print_json(made);
    else
        printf("collection %s %s\n", name,
            status == 201 ? "made" : "is there already, with these settings");
out:
    json_decref(body);
    json_decref(made);
    buf_release(&path);
    return rc;
}

const struct command command_create = {.name = "create",
    .synopsis = "[NAME]",
    .summary = "make a collection",
    .detail = "Encoder, dimensions and template are fixed for ever. Making one "
              "that exists\nwith the same settings is no error.\n",
    .opts = create_opts,
    .n_opts = ARRAY_LEN(create_opts),
    .defaults = &create_defaults,
    .opts_bytes = sizeof(struct create_opts),
    .args_max = 1,
    .run = create_run};

struct delete_opts {
    bool yes;
    struct text_list items;
};

#define DELETE(field) offsetof(struct delete_opts, field)
static const struct opt delete_opts[] = {
    {"yes", 'y', OPT_FLAG, DELETE(yes), NULL, "do not ask"},
    {"item", 0, OPT_LIST, DELETE(items), "ID",
        "only this item, from the collection; may be repeated"},
};

static int
delete_items(struct cli *cli, const struct delete_opts *want, const char *name)
{
    struct buf path;
    int rc = EXIT_DONE;
    buf_init(&path, 1 << 20);
    for (size_t i = 0; i < want->items.n && rc == EXIT_DONE; i++) {
        path_collection(&path, name, "/items/");
        path_add_segment(&path, want->items.v[i]);
        rc = http_json(cli->http, "DELETE", path.data, NULL, NULL, NULL);
        if (rc == EXIT_DONE)
            say(cli, "%s deleted", want->items.v[i]);
    }
    buf_release(&path);
    return rc;
}

static int
delete_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct delete_opts *want = opts;
    if (want->items.n > 0)
        return delete_items(
            cli, want, n_args > 0 ? args[0] : cli->global.collection);
    /* Never the default by accident: the name must be said. */
    if (n_args == 0) {
        complain("delete: which collection?");
        return EXIT_USAGE;
    }
    if (!want->yes) {
        char line[16];
        if (!isatty(STDIN_FILENO)) {
            complain("delete: say --yes to delete %s and all that is in it",
                args[0]);
            return EXIT_USAGE;
        }
        fprintf(stderr, "delete %s, its items, pairs and generations? [y/N] ",
            args[0]);
        if (fgets(line, sizeof(line), stdin) == NULL ||
            (line[0] != 'y' && line[0] != 'Y')) {
            complain("nothing deleted");
            return EXIT_REFUSED;
        }
    }
    struct buf path;
    buf_init(&path, 1 << 16);
    path_collection(&path, args[0], "");
    int rc = http_json(cli->http, "DELETE", path.data, NULL, NULL, NULL);
    if (rc == EXIT_DONE)
        say(cli, "collection %s deleted", args[0]);
    buf_release(&path);
    return rc;
}

const struct command command_delete = {.name = "delete",
    .synopsis = "COLLECTION [--item ID ...]",
    .summary = "delete a collection, or items of it",
    .opts = delete_opts,
    .n_opts = ARRAY_LEN(delete_opts),
    .opts_bytes = sizeof(struct delete_opts),
    .args_max = 1,
    .run = delete_run};
