/* search and embed: asking. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli.h"
#include "http.h"
#include "lines.h"
#include "pictures.h"
#include "settings.h"
#include "term.h"

#define BAR_COLUMNS 10
#define METADATA_COLUMNS 36

struct search_opts {
    const char *id;
    const char *image;
    struct text_list like;
    struct text_list unlike;
    long long k;
    const char *filter;
    double min_cosine;
    double min_probability;
    bool exact;
    bool explain;
    bool full;
    bool tsv;
};
static const struct search_opts search_defaults = {
    .k = 10, .min_cosine = -2.0, .min_probability = -1.0};

#define SEARCH(field) offsetof(struct search_opts, field)
static const struct opt search_opts[] = {
    {"k", 'k', OPT_INT, SEARCH(k), "N", "how many answers (default 10)"},
    {"id", 0, OPT_TEXT, SEARCH(id), "ID",
        "what is like this item, instead of a text"},
    {"image", 'i', OPT_TEXT, SEARCH(image), "FILE",
        "what is like this picture (- is standard input)"},
    {"like", 0, OPT_LIST, SEARCH(like), "ID",
        "what is like these items; may be repeated"},
    {"unlike", 0, OPT_LIST, SEARCH(unlike), "ID",
        "and not like these; may be repeated"},
    {"filter", 'f', OPT_TEXT, SEARCH(filter), "JSON",
        "over metadata: '{\"lang\":\"en\",\"year\":{\"$gte\":2020}}'"},
    {"min-cosine", 0, OPT_NUMBER, SEARCH(min_cosine), "X",
        "leave out what is farther"},
    {"min-probability", 0, OPT_NUMBER, SEARCH(min_probability), "X",
        "leave out what is less likely"},
    {"exact", 0, OPT_FLAG, SEARCH(exact), NULL,
        "ask for the provably exact answer"},
    {"explain", 0, OPT_FLAG, SEARCH(explain), NULL,
        "say how the answer was found"},
    {"full", 'l', OPT_FLAG, SEARCH(full), NULL,
        "print each answer with its whole text"},
    {"tsv", 0, OPT_FLAG, SEARCH(tsv), NULL,
        "print rank, id, cosine, probability, title or text, for scripts"},
};

/* {"section":"utils"} as "section=utils". */
static void
add_metadata(struct buf *out, json_t *metadata)
{
    const char *key;
    json_t *value;
    bool first = true;
    json_object_foreach(metadata, key, value)
    {
        if (!first)
            buf_add_char(out, ' ');
        first = false;
        buf_printf(out, "%s=", key);
        if (json_is_string(value)) {
            buf_add_str(out, json_string_value(value));
        } else {
            char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
            buf_add_str(out, text != NULL ? text : "");
            free(text);
        }
    }
}

static void
print_full(const json_t *hits)
{
    size_t i;
    const json_t *hit;
    json_array_foreach(hits, i, hit)
    {
        const char *id = json_string_value(json_object_get(hit, "id"));
        const char *title = json_string_value(json_object_get(hit, "title"));
        const char *text = json_string_value(json_object_get(hit, "text"));
        struct buf meta;
        buf_init(&meta, 1 << 20);
        add_metadata(&meta, json_object_get(hit, "metadata"));
        char line[4096];
        term_clean(line, sizeof(line), id != NULL ? id : "");
        printf("%s%zu. %s%s  cosine %.4f, probability %.1f%%\n", term_bold(),
            i + 1, line, term_plain(),
            json_number_value(json_object_get(hit, "cosine")),
            json_number_value(json_object_get(hit, "probability")) * 100.0);
        if (meta.len > 0 && buf_status(&meta) == OK) {
            term_clean(line, sizeof(line), meta.data);
            printf("   %s%s%s\n", term_dim(), line, term_plain());
        }
        if (title != NULL && title[0] != '\0') {
            term_clean(line, sizeof(line), title);
            printf("   %s\n", line);
        }
        while (text != NULL && *text != '\0') {
            size_t len = strcspn(text, "\n");
            size_t take = len < sizeof(line) - 1 ? len : sizeof(line) - 1;
            char part[sizeof(line)];
            memcpy(part, text, take);
            part[take] = '\0';
            term_clean(line, sizeof(line), part);
            printf("   %s\n", line);
            text += len + (text[len] == '\n' ? 1 : 0);
        }
        buf_release(&meta);
    }
}

static void
print_hits(const json_t *hits)
{
    struct table table;
    size_t i;
    const json_t *hit;
    bool any_metadata = false;
    json_array_foreach(hits, i, hit) any_metadata =
        any_metadata || json_object_size(json_object_get(hit, "metadata")) > 0;
    if (any_metadata)
        table_init(&table, "rlrlll", "#", "id", "cosine", "probability",
            "metadata", "text");
    else
        table_init(&table, "rlrll", "#", "id", "cosine", "probability", "text");
    json_array_foreach(hits, i, hit)
    {
        const char *title = json_string_value(json_object_get(hit, "title"));
        const char *text = json_string_value(json_object_get(hit, "text"));
        double probability =
            json_number_value(json_object_get(hit, "probability"));
        char rank[32];
        char cosine[32];
        struct buf bar;
        struct buf meta;
        struct buf meta_all;
        struct buf what;
        buf_init(&bar, 1 << 12);
        buf_init(&meta, 1 << 12);
        buf_init(&meta_all, 1 << 20);
        buf_init(&what, 1 << 24);
        snprintf(rank, sizeof(rank), "%zu", i + 1);
        snprintf(cosine, sizeof(cosine), "%.4f",
            json_number_value(json_object_get(hit, "cosine")));
        term_add_bar(&bar, probability, BAR_COLUMNS);
        buf_printf(&bar, " %5.1f%%", probability * 100.0);
        add_metadata(&meta_all, json_object_get(hit, "metadata"));
        size_t width = meta_all.data != NULL ? term_width(meta_all.data) : 0;
        if (width > METADATA_COLUMNS)
            term_add_cell(&meta, meta_all.data, METADATA_COLUMNS, false);
        else if (width > 0)
            buf_add_str(&meta, meta_all.data);
        if (title != NULL && title[0] != '\0')
            buf_printf(&what, "%s%s", title, text != NULL ? ": " : "");
        if (text != NULL)
            buf_add_str(&what, text);
        const char *id = json_string_value(json_object_get(hit, "id"));
        const char *meta_text = meta.data != NULL ? meta.data : "";
        const char *what_text = what.data != NULL ? what.data : "";
        if (any_metadata)
            table_row(&table, rank, id, cosine, bar.data, meta_text, what_text);
        else
            table_row(&table, rank, id, cosine, bar.data, what_text);
        buf_release(&bar);
        buf_release(&meta);
        buf_release(&meta_all);
        buf_release(&what);
    }
    table_print(&table);
    table_release(&table);
}

/* One line a hit, tabs between; a title or text of many lines is one. */
static void
print_tsv(const json_t *hits)
{
    size_t i;
    const json_t *hit;
    json_array_foreach(hits, i, hit)
    {
        const char *id = json_string_value(json_object_get(hit, "id"));
        const char *text = json_string_value(json_object_get(hit, "title"));
        char what[1024];
        char name[1024];
        if (text == NULL || text[0] == '\0')
            text = json_string_value(json_object_get(hit, "text"));
        term_clean(name, sizeof(name), id != NULL ? id : "");
        term_clean(what, sizeof(what), text != NULL ? text : "");
        printf("%zu\t%s\t%.4f\t%.4f\t%s\n", i + 1, name,
            json_number_value(json_object_get(hit, "cosine")),
            json_number_value(json_object_get(hit, "probability")), what);
    }
}

static json_t *
ids_of(const struct text_list *list)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < list->n; i++)
        json_array_append_new(ids, json_string(list->v[i]));
    return ids;
}

/* The query as JSON, or NULL after a message. */
static json_t *
query_make(const struct cli *cli, const struct search_opts *want, size_t n_args,
    char **args)
{
    size_t kinds = (n_args > 0 ? 1U : 0U) + (want->id != NULL ? 1U : 0U) +
                   (want->like.n + want->unlike.n > 0 ? 1U : 0U);
    if (kinds != 1) {
        complain("search: give one of a text, --image, --id, or --like");
        return NULL;
    }
    json_t *query = json_object();
    if (n_args > 0) {
        struct buf text;
        buf_init(&text, 1 << 24);
        for (size_t i = 0; i < n_args; i++)
            buf_printf(&text, "%s%s", i > 0 ? " " : "", args[i]);
        json_object_set_new(query, "text", json_string(text.data));
        buf_release(&text);
        if (json_object_get(query, "text") == NULL) {
            complain("search: the text is not UTF-8");
            goto fail;
        }
    } else if (want->id != NULL) {
        json_object_set_new(query, "id", json_string(want->id));
    } else {
        json_t *examples = json_object();
        json_object_set_new(examples, "positive", ids_of(&want->like));
        if (want->unlike.n > 0)
            json_object_set_new(examples, "negative", ids_of(&want->unlike));
        json_object_set_new(query, "examples", examples);
    }
    json_object_set_new(query, "k", json_integer(want->k));
    if (want->filter != NULL) {
        json_error_t error;
        json_t *filter = json_loads(want->filter, 0, &error);
        if (filter == NULL) {
            complain(
                "--filter: no JSON: %s (column %d)", error.text, error.column);
            goto fail;
        }
        json_object_set_new(query, "filter", filter);
    }
    if (want->min_cosine >= -1.0)
        json_object_set_new(query, "min_cosine", json_real(want->min_cosine));
    if (want->min_probability >= 0.0)
        json_object_set_new(
            query, "min_probability", json_real(want->min_probability));
    if (want->exact)
        json_object_set_new(query, "exact", json_true());
    if (want->explain)
        json_object_set_new(query, "explain", json_true());
    (void)cli;
    json_object_set_new(query, "with", json_pack("[s, s]", "text", "metadata"));
    return query;
fail:
    json_decref(query);
    return NULL;
}

/* The picture is the body, the rest of the query stands in the path. */
static int
search_image(struct cli *cli, const struct search_opts *want, size_t n_args,
    char **args, json_t **answer)
{
    struct buf query;
    int rc = EXIT_USAGE;
    if (n_args > 1 || want->id != NULL || want->like.n + want->unlike.n > 0) {
        complain("search: give one of a text, --image, --id, or --like");
        return rc;
    }
    buf_init(&query, 1 << 20);
    buf_printf(&query, "?k=%lld&with=text,metadata", want->k);
    if (want->filter != NULL) {
        buf_add_str(&query, "&filter=");
        path_add_segment(&query, want->filter);
    }
    if (want->min_cosine >= -1.0)
        buf_printf(&query, "&min_cosine=%.9g", want->min_cosine);
    if (want->min_probability >= 0.0)
        buf_printf(&query, "&min_probability=%.9g", want->min_probability);
    if (want->exact)
        buf_add_str(&query, "&exact=true");
    if (want->explain)
        buf_add_str(&query, "&explain=true");
    rc = pictures_search(cli, n_args == 1 ? args[0] : cli->global.collection,
        want->image, query.data, answer);
    buf_release(&query);
    return rc;
}

static int
search_ask(struct cli *cli, const struct search_opts *want, size_t n_args,
    char **args, json_t **answer)
{
    struct buf path;
    if (want->image != NULL)
        return search_image(cli, want, n_args, args, answer);
    json_t *query = query_make(cli, want, n_args, args);
    if (query == NULL)
        return EXIT_USAGE;
    buf_init(&path, 1 << 16);
    path_collection(&path, cli->global.collection, "/search");
    int rc = http_json(cli->http, "POST", path.data, query, answer, NULL);
    json_decref(query);
    buf_release(&path);
    return rc;
}

static int
search_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct search_opts *want = opts;
    json_t *answer = NULL;
    int rc = search_ask(cli, want, n_args, args, &answer);
    if (rc != EXIT_DONE)
        goto out;
    if (cli->global.json) {
        print_json(answer);
        goto out;
    }
    const json_t *hits = json_object_get(answer, "hits");
    if (want->tsv) {
        print_tsv(hits);
        goto out;
    }
    if (json_array_size(hits) == 0)
        puts("nothing found");
    else if (want->full)
        print_full(hits);
    else
        print_hits(hits);
    const json_t *explain = json_object_get(answer, "explain");
    if (json_is_object(explain)) {
        char *text = json_dumps(explain, JSON_COMPACT | JSON_REAL_PRECISION(4));
        printf("%s\n", text != NULL ? text : "");
        free(text);
    }
    say(cli, "%s%.2f ms, generation %lld, %s, temperature %.4f%s%s", term_dim(),
        json_number_value(json_object_get(answer, "took_ms")),
        (long long)json_integer_value(json_object_get(answer, "generation")),
        json_is_true(json_object_get(answer, "exact")) ? "exact"
                                                       : "approximate",
        json_number_value(json_object_get(answer, "temperature")),
        json_is_true(json_object_get(answer, "truncated"))
            ? ", the query was too long and is cut"
            : "",
        term_plain());
out:
    json_decref(answer);
    return rc;
}

const struct command command_search = {.name = "search",
    .synopsis = "TEXT | [COLLECTION] --image FILE | --id ID | --like ID ...",
    .summary = "find what is similar to a text, a picture, or items",
    .detail = "Answers have a cosine and a probability: the share of the whole "
              "(filtered)\ncollection's softmax at the collection's "
              "calibrated temperature.\n",
    .opts = search_opts,
    .n_opts = ARRAY_LEN(search_opts),
    .defaults = &search_defaults,
    .opts_bytes = sizeof(struct search_opts),
    .args_max = 1000000,
    .run = search_run};

#define EMBED_BATCH 64

struct embed_opts {
    const char *model;
    long long dimensions;
};
static const struct embed_opts embed_defaults = {.dimensions = ARGS_INT_UNSET};

#define EMBED(field) offsetof(struct embed_opts, field)
static const struct opt embed_opts[] = {
    {"model", 'm', OPT_TEXT, EMBED(model), "NAME",
        "a collection or an encoder (default the collection)"},
    {"dimensions", 'd', OPT_INT, EMBED(dimensions), "N",
        "only the first N, normalised again"},
};

/* One request of the texts gathered; one line each on stdout. */
static int
embed_batch(struct cli *cli, const struct embed_opts *want, json_t *input)
{
    json_t *body = json_object();
    json_t *answer = NULL;
    json_object_set_new(body, "model",
        json_string(
            want->model != NULL ? want->model : cli->global.collection));
    json_object_set(body, "input", input);
    if (want->dimensions != ARGS_INT_UNSET)
        json_object_set_new(body, "dimensions", json_integer(want->dimensions));
    int rc =
        http_json(cli->http, "POST", "/v1/embeddings", body, &answer, NULL);
    if (rc == EXIT_DONE) {
        size_t i;
        const json_t *row;
        json_array_foreach(json_object_get(answer, "data"), i, row)
        {
            json_t *line = json_object();
            json_object_set(line, "text", json_array_get(input, i));
            json_object_set(
                line, "embedding", json_object_get(row, "embedding"));
            char *text = json_dumps(line,
                JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
            puts(text != NULL ? text : "");
            free(text);
            json_decref(line);
        }
    }
    json_decref(answer);
    json_decref(body);
    return rc;
}

static int
embed_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct embed_opts *want = opts;
    json_t *input = json_array();
    int rc = EXIT_DONE;
    struct lines *lines = NULL;
    struct buf line;
    buf_init(&line, INPUT_RECORD_MAX * 2);
    bool from_stdin = n_args == 0 || (n_args == 1 && strcmp(args[0], "-") == 0);
    if (from_stdin)
        lines = lines_open("-");
    for (size_t i = 0; rc == EXIT_DONE; i++) {
        const char *text = NULL;
        if (from_stdin) {
            enum input_got got = lines_next(lines, &line);
            if (got == INPUT_FAILED)
                rc = EXIT_REFUSED;
            if (got == INPUT_RECORD)
                text = line.data != NULL ? line.data : "";
        } else if (i < n_args) {
            text = args[i];
        }
        if (text == NULL)
            break;
        json_t *value = json_string(text);
        if (value == NULL) {
            complain("embed: text %zu is not UTF-8", i + 1);
            rc = EXIT_REFUSED;
            break;
        }
        json_array_append_new(input, value);
        if (json_array_size(input) == EMBED_BATCH) {
            rc = embed_batch(cli, want, input);
            json_array_clear(input);
        }
    }
    if (rc == EXIT_DONE && json_array_size(input) > 0)
        rc = embed_batch(cli, want, input);
    lines_close(lines);
    json_decref(input);
    buf_release(&line);
    return rc;
}

const struct command command_embed = {.name = "embed",
    .synopsis = "[TEXT ... | -]",
    .summary = "print the vectors of texts, one JSON line each",
    .detail = "Without a text, or with -, each line of standard input is a "
              "text.\n",
    .opts = embed_opts,
    .n_opts = ARRAY_LEN(embed_opts),
    .defaults = &embed_defaults,
    .opts_bytes = sizeof(struct embed_opts),
    .args_max = 1000000,
    .run = embed_run};
