/*
 * make_lengths - how many tokens real texts have, one number a line.
 *
 *   make_lengths TOKENIZER FILE.tsv COLUMN TOKENS [ROWS]
 *
 *   TOKENIZER  a tokenizer.json or the folder that has it
 *   FILE.tsv   - is the standard input
 *   COLUMN     a name of the first line, or the column's number from 1 in a
 *              file without such a line
 *   TOKENS     longer texts are cut, as an encoder with so many would
 *   ROWS       only so many, all without it; empty texts are no rows
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fsio.h"
#include "text/tokenizer.h"

static void
die(const char *what, const char *detail)
{
    (void)fprintf(stderr, "make_lengths: %s: %s\n", what, detail);
    exit(1);
}

static struct tokenizer *
open_tokenizer(const char *path)
{
    struct tokenizer *tokenizer = NULL;
    struct fault fault = {0};
    struct buf name, file;

    buf_init(&name, 4096);
    buf_init(&file, TOKENIZER_FILE_BYTES_MAX);
    buf_add_str(&name, path);
    if (strstr(path, ".json") == NULL)
        buf_add_str(&name, "/tokenizer.json");
    if (buf_status(&name) != OK)
        die("too long", path);
    enum err err = fsio_read(name.data, &file, &fault);
    if (err == OK)
        err = tokenizer_from_json(file.data, file.len, &tokenizer, &fault);
    if (err != OK)
        die(name.data, fault.detail);
    buf_release(&name);
    buf_release(&file);
    return tokenizer;
}

static size_t
number(const char *s)
{
    char *end;
    size_t n = strtoul(s, &end, 10);
    return *end == '\0' ? n : 0;
}

/* Column i from 1 of a line, or NULL. */
static const char *
cell(const char *line, size_t i, size_t *len)
{
    for (; i > 1 && line != NULL; i--)
        if ((line = strchr(line, '\t')) != NULL)
            line++;
    *len = line == NULL ? 0 : strcspn(line, "\t\r\n");
    return line;
}

static size_t
column_named(const char *line, const char *name)
{
    const char *s;
    size_t len;

    for (size_t i = 1; (s = cell(line, i, &len)) != NULL; i++)
        if (len == strlen(name) && memcmp(s, name, len) == 0)
            return i;
    die("no such column", name);
    return 0;
}

static void
write_lengths(FILE *in, const struct tokenizer *tokenizer, const char *column,
    size_t max_tokens, size_t rows)
{
    struct tokenizer_workspace *workspace = tokenizer_workspace_new();
    uint32_t *ids = calloc(max_tokens, sizeof *ids);
    size_t room = 0, len, n, n_full, at = number(column);
    char *line = NULL;

    if (workspace == NULL || ids == NULL)
        die("out of memory", "a tokenizer's workspace");
    while (rows > 0 && getline(&line, &room, in) >= 0) {
        if (at == 0) {
            at = column_named(line, column);
            continue;
        }
        const char *text = cell(line, at, &len);
        if (len == 0)
            continue;
        enum err err = tokenizer_encode(
            tokenizer, text, len, max_tokens, workspace, ids, &n, &n_full);
        if (err != OK)
            die("a text", err_text(err));
        printf("%zu\n", n);
        rows--;
    }
    free(line);
    free(ids);
    tokenizer_workspace_free(workspace);
}

int
main(int argc, char **argv)
{
    if (argc != 5 && argc != 6) {
        (void)fprintf(stderr,
            "usage: make_lengths TOKENIZER FILE.tsv COLUMN TOKENS [ROWS]\n");
        return 2;
    }
    struct tokenizer *tokenizer = open_tokenizer(argv[1]);
    FILE *in = strcmp(argv[2], "-") == 0 ? stdin : fopen(argv[2], "r");
    size_t max_tokens = number(argv[4]);

    if (in == NULL)
        die(argv[2], "cannot be read");
    if (max_tokens <= tokenizer_n_special(tokenizer))
        die(argv[4], "too few tokens");
    write_lengths(in, tokenizer, argv[3], max_tokens,
        argc == 6 ? number(argv[5]) : SIZE_MAX);
    if (in != stdin)
        (void)fclose(in);
    tokenizer_free(tokenizer);
    return 0;
}
