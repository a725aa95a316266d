/*
 * input.h - items and pairs from files, one JSON line after the other.
 *
 * Five formats, told by the file's name or its first character unless the
 * user names one: NDJSON and a JSON array are passed through; TSV columns and
 * plain lines are turned into items or pairs; a folder gives one item for each
 * .txt and .md file in it. Memory is bounded by the longest record.
 */
#ifndef KINDRED_INPUT_H
#define KINDRED_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "args.h"
#include "base/buf.h"

#define INPUT_RECORD_MAX ((size_t)64 << 20)
#define INPUT_FIELDS_MAX 256

enum input_format {
    INPUT_AUTO,
    INPUT_NDJSON,
    INPUT_ARRAY,
    INPUT_TSV,
    INPUT_LINES,
    INPUT_FOLDER
};

/* How TSV columns become an item or a pair. A column is named by its heading
   or its number from 1; any name makes the first line a heading. */
struct input_options {
    bool pairs;            /* make pairs, not items */
    bool told;             /* what of the folders cannot be read was told */
    const char *format;    /* NULL or "auto" to guess */
    bool heading;          /* the first TSV line is a heading */
    const char *id;        /* items */
    const char *title;     /* items */
    const char *text;      /* items; several joined by newlines: "3,4" */
    struct text_list meta; /* items: "COL", "NAME=COL", several by commas */
    const char *id_prefix; /* of ids made from line numbers */
    const char *anchor;    /* pairs */
    const char *positive;  /* pairs */
    const char *group;     /* pairs */
    bool anchor_is_id;     /* pairs */
    bool positive_is_text; /* pairs */
};

struct input;

/* paths: borrowed; n == 0 or "-" reads standard input. NULL after a message
   on stderr (with *usage set when the command line is at fault). */
struct input *input_open(const struct input_options *options,
    char *const *paths, size_t n, bool *usage);
/* The pictures of pictures.h as items; borrowed. */
struct pictures;
struct input *input_of_pictures(struct pictures *pictures);
void input_close(struct input *input);

enum input_got { INPUT_END, INPUT_RECORD, INPUT_FAILED };

/* Append the next record and a newline to out. INPUT_FAILED: a message has
   been printed. */
enum input_got input_next(struct input *input, struct buf *out);

/* Of the record last given: its file, and its line or element number (0: the
   file is the record). */
const char *input_file(const struct input *input);
size_t input_file_i(const struct input *input);
const char *input_file_name(const struct input *input, size_t file_i);
uint64_t input_line(const struct input *input);

/* What was left out of folders because it cannot be read. */
size_t input_n_unread(const struct input *input);
uint64_t input_bytes_read(const struct input *input);
uint64_t input_bytes_total(const struct input *input); /* 0: unknown */

/* Lines of a file, read in blocks, longest INPUT_RECORD_MAX. */
struct lines;
struct lines *lines_open(const char *path); /* "-": stdin; NULL: errno */
void lines_close(struct lines *lines);
/* The next line without its end, out cleared first; INPUT_FAILED: too long or
   unreadable, a message has been printed. */
enum input_got lines_next(struct lines *lines, struct buf *out);
uint64_t lines_number(const struct lines *lines); /* from 1 */
uint64_t lines_bytes(const struct lines *lines);

/* Cut a TSV line into fields in place; returns their number, at most max. */
size_t tsv_split(char *line, char **fields, size_t max);

#endif
