/*
 * term.h - what the program draws: tables, bars, sparklines and progress.
 *
 * Block characters and colours only where the terminal takes them (a UTF-8
 * locale, no NO_COLOR); control characters in texts never reach the terminal.
 */
#ifndef KINDRED_TERM_H
#define KINDRED_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Call once, before anything is drawn. */
void term_setup(bool quiet);

bool term_stdout_is_tty(void);
size_t term_columns(void); /* of stdout; 100 in a pipe without COLUMNS */

/* Copy s with control characters and bad bytes as spaces, cut at max. */
void term_clean(char *out, size_t max, const char *s);

/* How many columns a clean text takes. */
size_t term_width(const char *s);

/* Append s cut to width columns (with an ellipsis) and padded to it. */
void term_add_cell(struct buf *out, const char *s, size_t width, bool right);

/* share in [0, 1] as a bar of width columns. */
void term_add_bar(struct buf *out, double share, size_t width);

/* The n values as a line of little columns, low to high. */
void term_add_spark(struct buf *out, const double *v, size_t n, size_t width);

/* Escape sequences, "" where colour is off. */
const char *term_bold(void);
const char *term_dim(void);
const char *term_plain(void);

/* 1.2 k, 3.4 M; 12 MB; 1:05. Into out, which is returned. */
const char *term_count(char *out, size_t max, double n);
const char *term_bytes(char *out, size_t max, double n);
const char *term_duration(char *out, size_t max, double seconds);

/*
 * A progress bar on stderr: redrawn in place on a terminal, one plain line
 * every few seconds in a pipe if it says something new, nothing when quiet.
 */
struct progress {
    const char *label;
    int64_t start_ms;
    int64_t drawn_ms;
    uint64_t drawn_hash; /* of the text last drawn */
};
void progress_start(struct progress *progress, const char *label);

/* share in [0, 1], or negative when unknown; tail is free text after it. */
void progress_show(
    struct progress *progress, double share, const char *tail, bool force);
double progress_seconds(const struct progress *progress);

/* Erase the bar, so that other text can be printed. */
void progress_clear(void);

/* A table: columns sized by content, the last one cut to the terminal. */
#define TABLE_COLUMNS_MAX 12
struct table {
    size_t n_columns;
    size_t n_rows;
    size_t cap;
    bool right[TABLE_COLUMNS_MAX];
    char **cells; /* n_rows * n_columns, owned; row 0 is the heading */
};
/* right: a string of 'l' and 'r', one per column. */
void table_init(struct table *table, const char *right, ...);
void table_row(struct table *table, ...); /* n_columns const char * */
void table_cell_row(struct table *table, const char *const *cells);
void table_print(const struct table *table);
void table_release(struct table *table);

#endif
