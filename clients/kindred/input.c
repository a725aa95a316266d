#include "input.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "cli.h"
#include "folder.h"
#include "lines.h"
#include "pictures.h"

/* A chosen column: by number, or by a name until the heading is read. */
struct column {
    char *name;
    char *field; /* metadata: the key; else NULL */
    size_t i;    /* valid once resolved */
    bool found;
};

struct columns {
    struct column *v;
    size_t n;
};

struct input {
    struct input_options options;
    char **files; /* owned; folders are already unfolded */
    enum input_format *formats;
    char **ids; /* of a folder's file: its path below the folder */
    size_t n_files;
    size_t n_unread; /* left out of the folders */
    size_t file_i;   /* n_files: at the end */
    bool in_file;
    struct lines *lines;
    enum input_format format;
    uint64_t record; /* line or element number, from 1 */
    uint64_t done;   /* bytes of the files before this one */
    uint64_t total;  /* 0: unknown */
    size_t current;  /* file of the record last given */
    bool array_opened;
    struct columns id, title, text, meta, anchor, positive, group;
    struct buf line;
    struct pictures *pictures; /* then nothing of the above is used */
};

static void
file_add(struct input *input, const char *path, enum input_format format,
    const char *id)
{
    size_t n = input->n_files;
    input->files = must_realloc(input->files, n + 1, sizeof(*input->files));
    input->formats =
        must_realloc(input->formats, n + 1, sizeof(*input->formats));
    input->ids = must_realloc(input->ids, n + 1, sizeof(*input->ids));
    input->files[n] = must_strdup(path);
    input->formats[n] = format;
    input->ids[n] = id != NULL ? must_strdup(id) : NULL;
    input->n_files = n + 1;
}

/* Of the files below a folder the .txt and .md ones. */
static void
document_add(void *arg, const char *path, const char *below, uint64_t bytes)
{
    (void)bytes;
    if (ends_with(path, ".txt") || ends_with(path, ".md"))
        file_add(arg, path, INPUT_FOLDER, below);
}

/* "3", "name", "a,b", "key=name": append what spec chooses. */
static void
columns_add(struct columns *columns, const char *spec, bool keyed)
{
    while (spec != NULL && *spec != '\0') {
        size_t len = strcspn(spec, ",");
        char *word = must_alloc(len + 1, 1);
        memcpy(word, spec, len);
        word[len] = '\0';
        spec += len;
        if (*spec == ',')
            spec++;
        columns->v =
            must_realloc(columns->v, columns->n + 1, sizeof(*columns->v));
        struct column *column = &columns->v[columns->n++];
        memset(column, 0, sizeof(*column));
        char *equals = keyed ? strchr(word, '=') : NULL;
        if (equals != NULL) {
            *equals = '\0';
            column->field = must_strdup(word);
            column->name = must_strdup(equals + 1);
        } else {
            column->field = keyed ? must_strdup(word) : NULL;
            column->name = must_strdup(word);
        }
        mem_free(word);
    }
}

static bool
is_number(const char *s)
{
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++)
        if (!isdigit((unsigned char)*s))
            return false;
    return true;
}

static bool
columns_named(const struct columns *columns)
{
    for (size_t i = 0; i < columns->n; i++)
        if (!is_number(columns->v[i].name))
            return true;
    return false;
}

/* Numbers to positions; names through the heading, which may be NULL. */
static bool
columns_resolve(
    struct columns *columns, char **fields, size_t n_fields, const char *file)
{
    for (size_t i = 0; i < columns->n; i++) {
        struct column *column = &columns->v[i];
        column->found = false;
        for (size_t f = 0; fields != NULL && f < n_fields; f++) {
            if (strcmp(fields[f], column->name) == 0) {
                column->i = f;
                column->found = true;
                break;
            }
        }
        if (column->found)
            continue;
        if (!is_number(column->name) || strcmp(column->name, "0") == 0) {
            complain("%s: no column \"%s\" in the heading", file, column->name);
            return false;
        }
        column->i = (size_t)strtoul(column->name, NULL, 10) - 1;
        column->found = true;
        if (column->i >= INPUT_FIELDS_MAX) {
            complain("column %s: at most %d", column->name, INPUT_FIELDS_MAX);
            return false;
        }
    }
    return true;
}

static void
columns_release(struct columns *columns)
{
    for (size_t i = 0; i < columns->n; i++) {
        mem_free(columns->v[i].name);
        mem_free(columns->v[i].field);
    }
    mem_free(columns->v);
    memset(columns, 0, sizeof(*columns));
}

static bool
format_named(const char *name, enum input_format *format)
{
    static const struct {
        const char *name;
        enum input_format format;
    } names[] = {{"auto", INPUT_AUTO}, {"ndjson", INPUT_NDJSON},
        {"json", INPUT_ARRAY}, {"array", INPUT_ARRAY}, {"tsv", INPUT_TSV},
        {"lines", INPUT_LINES}, {"text", INPUT_LINES}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i].name, name) == 0) {
            *format = names[i].format;
            return true;
        }
    complain(
        "--format: \"%s\" is none of auto, ndjson, json, tsv, lines", name);
    return false;
}

struct input *
input_open(const struct input_options *options, char *const *paths, size_t n,
    bool *usage)
{
    static char dash[] = "-";
    static char *const only_dash[] = {dash};
    enum input_format format = INPUT_AUTO;
    *usage = true;
    if (options->format != NULL && !format_named(options->format, &format))
        return NULL;
    if (n == 0) {
        paths = only_dash;
        n = 1;
    }
    struct input *input = must_calloc(1, sizeof(*input));
    input->options = *options;
    buf_init(&input->line, INPUT_RECORD_MAX + 1024);
    columns_add(&input->id, options->id, false);
    columns_add(&input->title, options->title, false);
    columns_add(&input->text, options->text, false);
    columns_add(&input->anchor, options->anchor, false);
    columns_add(&input->positive, options->positive, false);
    columns_add(&input->group, options->group, false);
    for (size_t i = 0; i < options->meta.n; i++)
        columns_add(&input->meta, options->meta.v[i], true);
    /* Columns were chosen: what has no telling name is TSV. */
    bool any_column = input->id.n + input->title.n + input->text.n +
                          input->meta.n + input->anchor.n + input->positive.n +
                          input->group.n >
                      0;
    if (format == INPUT_AUTO && any_column)
        format = INPUT_TSV;

    *usage = false;
    bool known = true;
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        if (strcmp(paths[i], "-") == 0) {
            file_add(input, "-", format, NULL);
            known = false;
        } else if (stat(paths[i], &st) != 0) {
            complain("%s: %s", paths[i], strerror(errno));
            goto fail;
        } else if (S_ISDIR(st.st_mode)) {
            size_t before = input->n_files;
            if (options->pairs) {
                complain("%s: is a folder", paths[i]);
                goto fail;
            }
            input->n_unread +=
                folder_walk(paths[i], document_add, input, !options->told);
            if (input->n_files == before) {
                complain("%s: no .txt or .md file in it", paths[i]);
                goto fail;
            }
        } else {
            enum input_format guess = format;
            if (guess == INPUT_AUTO) {
                if (ends_with(paths[i], ".ndjson") ||
                    ends_with(paths[i], ".jsonl"))
                    guess = INPUT_NDJSON;
                else if (ends_with(paths[i], ".tsv"))
                    guess = INPUT_TSV;
            }
            file_add(input, paths[i], guess, NULL);
            known = known && S_ISREG(st.st_mode);
        }
    }
    for (size_t i = 0; known && i < input->n_files; i++) {
        struct stat st;
        if (stat(input->files[i], &st) == 0)
            input->total += (uint64_t)st.st_size;
    }
    return input;
fail:
    input_close(input);
    return NULL;
}

struct input *
input_of_pictures(struct pictures *pictures)
{
    struct input *input = must_calloc(1, sizeof(*input));
    buf_init(&input->line, 0);
    input->pictures = pictures;
    return input;
}

void
input_close(struct input *input)
{
    if (input == NULL)
        return;
    lines_close(input->lines);
    for (size_t i = 0; i < input->n_files; i++) {
        mem_free(input->files[i]);
        mem_free(input->ids[i]);
    }
    mem_free(input->files);
    mem_free(input->formats);
    mem_free(input->ids);
    columns_release(&input->id);
    columns_release(&input->title);
    columns_release(&input->text);
    columns_release(&input->meta);
    columns_release(&input->anchor);
    columns_release(&input->positive);
    columns_release(&input->group);
    buf_release(&input->line);
    mem_free(input);
}

/* The value of a chosen column; "" when the line is too short. */
static const char *
field_of(const struct column *column, char **fields, size_t n)
{
    return column->i < n ? fields[column->i] : "";
}

static void
add_key(struct buf *out, const char *key, bool *first)
{
    if (!*first)
        buf_add_char(out, ',');
    *first = false;
    buf_json_cstr(out, key);
    buf_add_char(out, ':');
}

/* The id of an item whose input names none. */
static void
add_made_id(struct input *input, struct buf *out)
{
    const char *file = input->files[input->file_i];
    const char *base = strrchr(file, '/');
    struct buf id;
    buf_init(&id, 1 << 16);
    if (input->options.id_prefix != NULL)
        buf_add_str(&id, input->options.id_prefix);
    else if (strcmp(file, "-") == 0)
        buf_add_str(&id, "line-");
    else
        buf_printf(&id, "%s:", base != NULL ? base + 1 : file);
    buf_printf(&id, "%llu", (unsigned long long)input->record);
    if (id.data != NULL)
        buf_json_string(out, id.data, id.len);
    buf_release(&id);
}

static void
add_joined(
    struct buf *out, const struct columns *columns, char **fields, size_t n)
{
    struct buf text;
    buf_init(&text, INPUT_RECORD_MAX);
    for (size_t i = 0; i < columns->n; i++) {
        if (i > 0)
            buf_add_char(&text, '\n');
        buf_add_str(&text, field_of(&columns->v[i], fields, n));
    }
    buf_json_string(out, text.data != NULL ? text.data : "", text.len);
    buf_release(&text);
}

static void
add_tsv_item(struct input *input, struct buf *out, char **fields, size_t n)
{
    bool first = true;
    buf_add_char(out, '{');
    add_key(out, "id", &first);
    if (input->id.n > 0)
        buf_json_cstr(out, field_of(&input->id.v[0], fields, n));
    else
        add_made_id(input, out);
    if (input->title.n > 0) {
        add_key(out, "title", &first);
        buf_json_cstr(out, field_of(&input->title.v[0], fields, n));
    }
    if (input->text.n > 0) {
        add_key(out, "text", &first);
        add_joined(out, &input->text, fields, n);
    }
    if (input->meta.n > 0) {
        add_key(out, "metadata", &first);
        buf_add_char(out, '{');
        bool first_meta = true;
        for (size_t i = 0; i < input->meta.n; i++) {
            add_key(out, input->meta.v[i].field, &first_meta);
            buf_json_cstr(out, field_of(&input->meta.v[i], fields, n));
        }
        buf_add_char(out, '}');
    }
    buf_add_str(out, "}\n");
}

static void
add_tsv_pair(struct input *input, struct buf *out, char **fields, size_t n)
{
    buf_add_str(out, input->options.anchor_is_id ? "{\"anchor\":{\"id\":"
                                                 : "{\"anchor\":{\"text\":");
    buf_json_cstr(out, field_of(&input->anchor.v[0], fields, n));
    buf_add_str(out, input->options.positive_is_text
                         ? "},\"positive\":{\"text\":"
                         : "},\"positive\":{\"id\":");
    buf_json_cstr(out, field_of(&input->positive.v[0], fields, n));
    buf_add_char(out, '}');
    if (input->group.n > 0 &&
        field_of(&input->group.v[0], fields, n)[0] != '\0') {
        buf_add_str(out, ",\"group\":");
        buf_json_cstr(out, field_of(&input->group.v[0], fields, n));
    }
    buf_add_str(out, "}\n");
}

/* Read the heading if there is one, and settle which column is which. */
static bool
tsv_begin(struct input *input)
{
    const char *file = input->files[input->file_i];
    struct columns *all[] = {&input->id, &input->title, &input->text,
        &input->meta, &input->anchor, &input->positive, &input->group};
    bool heading = input->options.heading;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        heading = heading || columns_named(all[i]);
    if (input->options.pairs) {
        if (input->anchor.n == 0)
            columns_add(&input->anchor, "1", false);
        if (input->positive.n == 0)
            columns_add(&input->positive, "2", false);
    } else if (input->text.n == 0 && input->title.n == 0) {
        /* The plain case: id and text. */
        if (input->id.n == 0) {
            columns_add(&input->id, "1", false);
            columns_add(&input->text, "2", false);
        } else {
            complain("%s: name the columns: --text COL, --title COL", file);
            return false;
        }
    }
    char *fields[INPUT_FIELDS_MAX];
    size_t n = 0;
    if (heading) {
        enum input_got got = lines_next(input->lines, &input->line);
        if (got == INPUT_FAILED)
            return false;
        if (got == INPUT_RECORD && input->line.len > 0)
            n = tsv_split(input->line.data, fields, INPUT_FIELDS_MAX);
    }
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (!columns_resolve(all[i], heading ? fields : NULL, n, file))
            return false;
    return true;
}

/* The first character that is no space, without taking it; 0 at the end. */
static int
peek(struct input *input, int *c)
{
    for (;;) {
        int filled = lines_fill(input->lines);
        if (filled <= 0) {
            *c = 0;
            return filled;
        }
        unsigned char at =
            (unsigned char)input->lines->block[input->lines->pos];
        if (!isspace(at)) {
            *c = at;
            return 1;
        }
        input->lines->pos++;
    }
}

static bool
file_begin(struct input *input)
{
    const char *path = input->files[input->file_i];
    input->lines = lines_open(path);
    if (input->lines == NULL) {
        complain("%s: %s", path, strerror(errno));
        return false;
    }
    input->record = 0;
    input->array_opened = false;
    input->format = input->formats[input->file_i];
    input->in_file = true;
    if (input->format == INPUT_AUTO) {
        int c = 0;
        /* Look without taking leading newlines: lines are counted. */
        int filled = lines_fill(input->lines);
        if (filled < 0)
            return false;
        size_t at = input->lines->pos;
        while (at < input->lines->len &&
               isspace((unsigned char)input->lines->block[at]))
            at++;
        c = at < input->lines->len ? input->lines->block[at] : 0;
        input->format = c == '['                ? INPUT_ARRAY
                        : c == '{' || c == '\0' ? INPUT_NDJSON
                                                : INPUT_LINES;
    }
    if (input->options.pairs && input->format == INPUT_LINES) {
        complain(
            "%s: pairs are NDJSON, a JSON array or TSV (see --format)", path);
        return false;
    }
    return input->format != INPUT_TSV || tsv_begin(input);
}

static void
file_end(struct input *input)
{
    input->done += lines_bytes(input->lines);
    lines_close(input->lines);
    input->lines = NULL;
    input->in_file = false;
    input->file_i++;
}

/* The next element of a JSON array as one line. Only brackets and strings are
   looked at; whether it is JSON the service says, with this element's number.
 */
static enum input_got
array_next(struct input *input, struct buf *out)
{
    const char *file = input->files[input->file_i];
    int c = 0;
    if (peek(input, &c) < 0)
        return INPUT_FAILED;
    if (!input->array_opened) {
        if (c != '[') {
            complain("%s: no JSON array", file);
            return INPUT_FAILED;
        }
        input->lines->pos++;
        input->array_opened = true;
        if (peek(input, &c) < 0)
            return INPUT_FAILED;
    } else if (c == ',') {
        input->lines->pos++;
        if (peek(input, &c) < 0)
            return INPUT_FAILED;
    }
    if (c == ']')
        return INPUT_END;
    input->record++;
    size_t depth = 0;
    bool in_string = false;
    bool escaped = false;
    size_t start = out->len;
    for (;;) {
        int filled = lines_fill(input->lines);
        if (filled < 0)
            return INPUT_FAILED;
        if (filled == 0) {
            complain("%s: the array ends inside element %llu", file,
                (unsigned long long)input->record);
            return INPUT_FAILED;
        }
        char b = input->lines->block[input->lines->pos];
        if (!in_string && depth == 0 && (b == ',' || b == ']'))
            break;
        input->lines->pos++;
        if (in_string) {
            if (escaped)
                escaped = false;
            else if (b == '\\')
                escaped = true;
            else if (b == '"')
                in_string = false;
        } else if (b == '"') {
            in_string = true;
        } else if (b == '{' || b == '[') {
            depth++;
        } else if (b == '}' || b == ']') {
            depth--;
        }
        buf_add_char(out, b == '\n' || b == '\r' ? ' ' : b);
        if (out->len - start > INPUT_RECORD_MAX) {
            complain("%s: element %llu has more than %zu MB", file,
                (unsigned long long)input->record, INPUT_RECORD_MAX >> 20);
            return INPUT_FAILED;
        }
    }
    buf_add_char(out, '\n');
    return INPUT_RECORD;
}

static bool
blank(const struct buf *line)
{
    for (size_t i = 0; i < line->len; i++)
        if (!isspace((unsigned char)line->data[i]))
            return false;
    return true;
}

/* A whole file of a folder as one item: its first heading is the title. */
static enum input_got
document_next(struct input *input, struct buf *out)
{
    if (input->record > 0)
        return INPUT_END;
    input->record = 1;
    const char *id = input->ids[input->file_i];
    struct buf text;
    buf_init(&text, INPUT_RECORD_MAX);
    char *title = NULL;
    bool markdown = ends_with(id, ".md");
    enum input_got got;
    while ((got = lines_next(input->lines, &input->line)) == INPUT_RECORD) {
        const char *s = input->line.data != NULL ? input->line.data : "";
        if (markdown && title == NULL && s[0] == '#') {
            s += strspn(s, "# ");
            title = must_strdup(s);
            continue;
        }
        if (text.len == 0 && blank(&input->line))
            continue;
        buf_add(&text, s, input->line.len);
        buf_add_char(&text, '\n');
    }
    if (got != INPUT_FAILED) {
        const char *base = strrchr(id, '/');
        base = base != NULL ? base + 1 : id;
        buf_add_str(out, "{\"id\":");
        buf_json_cstr(out, id);
        buf_add_str(out, ",\"title\":");
        if (title != NULL)
            buf_json_cstr(out, title);
        else
            buf_json_string(out, base, strcspn(base, "."));
        buf_add_str(out, ",\"text\":");
        buf_json_string(out, text.data != NULL ? text.data : "", text.len);
        buf_add_str(out, "}\n");
        got = INPUT_RECORD;
    }
    if (buf_status(&text) != OK) {
        complain("%s: more than %zu MB", input->files[input->file_i],
            INPUT_RECORD_MAX >> 20);
        got = INPUT_FAILED;
    }
    mem_free(title);
    buf_release(&text);
    return got;
}

static enum input_got
line_record(struct input *input, struct buf *out)
{
    for (;;) {
        enum input_got got = lines_next(input->lines, &input->line);
        if (got != INPUT_RECORD)
            return got;
        if (!blank(&input->line))
            break;
    }
    input->record = lines_number(input->lines);
    char *line = input->line.data;
    if (input->format == INPUT_NDJSON) {
        buf_add(out, line, input->line.len);
        buf_add_char(out, '\n');
    } else if (input->format == INPUT_TSV) {
        char *fields[INPUT_FIELDS_MAX];
        size_t n = tsv_split(line, fields, INPUT_FIELDS_MAX);
        if (input->options.pairs)
            add_tsv_pair(input, out, fields, n);
        else
            add_tsv_item(input, out, fields, n);
    } else {
        buf_add_str(out, "{\"id\":");
        add_made_id(input, out);
        buf_add_str(out, ",\"text\":");
        buf_json_string(out, line, input->line.len);
        buf_add_str(out, "}\n");
    }
    return INPUT_RECORD;
}

enum input_got
input_next(struct input *input, struct buf *out)
{
    if (input->pictures != NULL) {
        enum input_got got = pictures_next(input->pictures, out);
        input->current = input->pictures->at - (got == INPUT_RECORD ? 1 : 0);
        if (got == INPUT_RECORD && buf_status(out) != OK) {
            complain("%s: the file is too large", input_file(input));
            got = INPUT_FAILED;
        }
        return got;
    }
    while (input->file_i < input->n_files) {
        if (!input->in_file && !file_begin(input))
            return INPUT_FAILED;
        enum input_got got =
            input->format == INPUT_ARRAY    ? array_next(input, out)
            : input->format == INPUT_FOLDER ? document_next(input, out)
                                            : line_record(input, out);
        if (got == INPUT_RECORD && buf_status(out) != OK) {
            complain("%s: record %llu is too large",
                input->files[input->file_i], (unsigned long long)input->record);
            return INPUT_FAILED;
        }
        input->current = input->file_i;
        if (got != INPUT_END)
            return got;
        file_end(input);
    }
    return INPUT_END;
}

const char *
input_file_name(const struct input *input, size_t file_i)
{
    if (input->pictures != NULL && file_i < input->pictures->n)
        return input->pictures->v[file_i].path;
    const char *file =
        file_i < input->n_files ? input->files[file_i] : "(nothing)";
    return strcmp(file, "-") == 0 ? "standard input" : file;
}

size_t
input_file_i(const struct input *input)
{
    return input->current;
}

const char *
input_file(const struct input *input)
{
    return input_file_name(input, input->current);
}

uint64_t
input_line(const struct input *input)
{
    return input->record;
}

size_t
input_n_unread(const struct input *input)
{
    return input->pictures != NULL ? input->pictures->n_unread
                                   : input->n_unread;
}

uint64_t
input_bytes_read(const struct input *input)
{
    if (input->pictures != NULL)
        return input->pictures->done;
    return input->done + (input->lines != NULL ? lines_bytes(input->lines) : 0);
}

uint64_t
input_bytes_total(const struct input *input)
{
    return input->pictures != NULL ? input->pictures->bytes : input->total;
}
