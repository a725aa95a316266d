#include "term.h"

#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "cli.h"

#define PIPE_COLUMNS 100
#define REDRAW_MS 100
#define PIPE_LINE_MS 4000
#define BAR_COLUMNS 24
#define CELL_MAX 4096

/* Set by term_setup before anything is drawn; bar_drawn by progress_show. */
static struct {
    bool quiet;
    bool utf8;
    bool color;
    bool out_tty;
    bool err_tty;
    bool bar_drawn;
} term;

void
term_setup(bool quiet)
{
    setlocale(LC_CTYPE, "");
    const char *codeset = nl_langinfo(CODESET);
    const char *kind = getenv("TERM");
    bool dumb = kind == NULL || strcmp(kind, "dumb") == 0;
    term.quiet = quiet;
    term.utf8 = codeset != NULL && strcmp(codeset, "UTF-8") == 0;
    term.out_tty = isatty(STDOUT_FILENO) != 0;
    term.err_tty = isatty(STDERR_FILENO) != 0 && !dumb;
    const char *no_color = getenv("NO_COLOR");
    term.color =
        term.out_tty && !dumb && (no_color == NULL || no_color[0] == '\0');
}

bool
term_stdout_is_tty(void)
{
    return term.out_tty;
}

static size_t
columns_of(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    long n = columns != NULL ? strtol(columns, NULL, 10) : 0;
    return n >= 20 && n < 10000 ? (size_t)n : PIPE_COLUMNS;
}

size_t
term_columns(void)
{
    return columns_of(STDOUT_FILENO);
}

/* The length of the UTF-8 sequence at s and its code point; 0 if bad. */
static size_t
utf8_next(const char *s, uint32_t *point)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80   ? 1
               : p[0] < 0xc2 ? 0
               : p[0] < 0xe0 ? 2
               : p[0] < 0xf0 ? 3
               : p[0] < 0xf5 ? 4
                             : 0;
    static const unsigned char first[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    if (n == 0)
        return 0;
    uint32_t c = p[0] & first[n];
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    *point = c;
    return n;
}

void
term_clean(char *out, size_t max, const char *s)
{
    size_t at = 0;
    while (*s != '\0') {
        uint32_t c = 0;
        size_t n = utf8_next(s, &c);
        /* C0, DEL, C1, and the marks that turn the direction of a line. */
        bool bad = n == 0 || c < 0x20 || (c >= 0x7f && c < 0xa0) ||
                   (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
        if (n == 0)
            n = 1;
        if (at + (bad ? 1 : n) >= max)
            break;
        if (bad) {
            if (at > 0 && out[at - 1] != ' ')
                out[at++] = ' ';
        } else {
            memcpy(out + at, s, n);
            at += n;
        }
        s += n;
    }
    if (max > 0)
        out[at] = '\0';
}

static size_t
point_width(uint32_t c)
{
    if (c == 0x200b || c == 0x200d || (c >= 0x300 && c < 0x370) ||
        (c >= 0xfe00 && c <= 0xfe0f))
        return 0;
    bool wide = (c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf) ||
                (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
                (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) ||
                (c >= 0x1f300 && c <= 0x1faff) ||
                (c >= 0x20000 && c <= 0x3fffd);
    return wide ? 2 : 1;
}

size_t
term_width(const char *s)
{
    size_t width = 0;
    while (*s != '\0') {
        uint32_t c = ' ';
        size_t n = utf8_next(s, &c);
        width += point_width(c);
        s += n != 0 ? n : 1;
    }
    return width;
}

static void
add_spaces(struct buf *out, size_t n)
{
    while (n-- > 0)
        buf_add_char(out, ' ');
}

void
term_add_cell(struct buf *out, const char *s, size_t width, bool right)
{
    char text[CELL_MAX];
    term_clean(text, sizeof(text), s);
    size_t full = term_width(text);
    if (full <= width) {
        if (right)
            add_spaces(out, width - full);
        buf_add_str(out, text);
        if (!right)
            add_spaces(out, width - full);
        return;
    }
    size_t dots = term.utf8 ? 1 : width >= 3 ? 3 : 0;
    size_t used = 0;
    const char *p = text;
    while (*p != '\0') {
        uint32_t c = ' ';
        size_t n = utf8_next(p, &c);
        if (n == 0)
            n = 1;
        if (used + point_width(c) + dots > width)
            break;
        buf_add(out, p, n);
        used += point_width(c);
        p += n;
    }
    if (dots > 0)
        buf_add_str(out, term.utf8 ? "\xe2\x80\xa6" : "...");
    add_spaces(out, width - used - dots);
}

void
term_add_bar(struct buf *out, double share, size_t width)
{
    static const char *const eighths[] = {"", "\xe2\x96\x8f", "\xe2\x96\x8e",
        "\xe2\x96\x8d", "\xe2\x96\x8c", "\xe2\x96\x8b", "\xe2\x96\x8a",
        "\xe2\x96\x89"};
    if (!(share > 0.0))
        share = 0.0;
    if (share > 1.0)
        share = 1.0;
    size_t parts = (size_t)(share * (double)width * 8.0 + 0.5);
    size_t full = parts / 8;
    size_t rest = parts % 8;
    for (size_t i = 0; i < full; i++)
        buf_add_str(out, term.utf8 ? "\xe2\x96\x88" : "#");
    size_t used = full;
    if (rest > 0 && used < width) {
        buf_add_str(out, term.utf8 ? eighths[rest] : rest >= 4 ? "-" : ".");
        used++;
    }
    for (; used < width; used++)
        buf_add_str(out, term.utf8 ? "\xe2\x94\x80" : ".");
}

void
term_add_spark(struct buf *out, const double *v, size_t n, size_t width)
{
    static const char *const steps[] = {"\xe2\x96\x81", "\xe2\x96\x82",
        "\xe2\x96\x83", "\xe2\x96\x84", "\xe2\x96\x85", "\xe2\x96\x86",
        "\xe2\x96\x87", "\xe2\x96\x88"};
    static const char plain[] = "_.-=+*%#";
    if (n == 0)
        return;
    if (width > n)
        width = n;
    double low = v[0];
    double high = v[0];
    for (size_t i = 1; i < n; i++) {
        low = v[i] < low ? v[i] : low;
        high = v[i] > high ? v[i] : high;
    }
    for (size_t i = 0; i < width; i++) {
        size_t from = i * n / width;
        size_t to = (i + 1) * n / width;
        double sum = 0.0;
        for (size_t j = from; j < to; j++)
            sum += v[j];
        double mean = sum / (double)(to - from);
        double share = high > low ? (mean - low) / (high - low) : 0.5;
        int step = (int)(share * 7.0 + 0.5);
        if (term.utf8)
            buf_add_str(out, steps[step]);
        else
            buf_add_char(out, plain[step]);
    }
}

const char *
term_bold(void)
{
    return term.color ? "\033[1m" : "";
}

const char *
term_dim(void)
{
    return term.color ? "\033[2m" : "";
}

const char *
term_plain(void)
{
    return term.color ? "\033[0m" : "";
}

const char *
term_count(char *out, size_t max, double n)
{
    if (n < 1e4)
        snprintf(out, max, "%.0f", n);
    else if (n < 1e6)
        snprintf(out, max, "%.1fk", n / 1e3);
    else
        snprintf(out, max, "%.2fM", n / 1e6);
    return out;
}

const char *
term_bytes(char *out, size_t max, double n)
{
    if (n < 1e3)
        snprintf(out, max, "%.0f B", n);
    else if (n < 1e6)
        snprintf(out, max, "%.1f kB", n / 1e3);
    else if (n < 1e9)
        snprintf(out, max, "%.1f MB", n / 1e6);
    else
        snprintf(out, max, "%.2f GB", n / 1e9);
    return out;
}

const char *
term_duration(char *out, size_t max, double seconds)
{
    if (!(seconds >= 0.0) || seconds > 1e8) {
        snprintf(out, max, "?");
        return out;
    }
    long s = (long)(seconds + 0.5);
    if (s < 60)
        snprintf(out, max, "%ld s", s);
    else if (s < 3600)
        snprintf(out, max, "%ld:%02ld min", s / 60, s % 60);
    else
        snprintf(out, max, "%ld:%02ld h", s / 3600, s / 60 % 60);
    return out;
}

void
progress_start(struct progress *progress, const char *label)
{
    progress->label = label;
    progress->start_ms = clock_mono_ms();
    progress->drawn_ms = progress->start_ms;
    progress->drawn_hash = 0;
}

double
progress_seconds(const struct progress *progress)
{
    return (double)(clock_mono_ms() - progress->start_ms) / 1000.0;
}

void
progress_clear(void)
{
    if (!term.bar_drawn)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    term.bar_drawn = false;
}

void
progress_show(
    struct progress *progress, double share, const char *tail, bool force)
{
    if (term.quiet)
        return;
    int64_t now = clock_mono_ms();
    int64_t pause = term.err_tty ? REDRAW_MS : PIPE_LINE_MS;
    if (!force && now - progress->drawn_ms < pause)
        return;
    progress->drawn_ms = now;
    struct buf line;
    buf_init(&line, 1 << 16);
    buf_add_str(&line, progress->label);
    if (share >= 0.0) {
        if (term.err_tty) {
            buf_add_str(&line, " ");
            term_add_bar(&line, share, BAR_COLUMNS);
        }
        buf_printf(&line, " %3.0f%%", floor(share * 100.0));
    }
    buf_add_str(&line, "  ");
    buf_add_str(&line, tail);
    uint64_t hash = hash_bytes(line.data, line.len, 1);
    if (buf_status(&line) == OK &&
        (term.err_tty || hash != progress->drawn_hash)) {
        progress->drawn_hash = hash;
        if (term.err_tty) {
            struct buf cell;
            buf_init(&cell, 1 << 16);
            term_add_cell(
                &cell, line.data, columns_of(STDERR_FILENO) - 1, false);
            if (buf_status(&cell) == OK)
                fprintf(stderr, "\r%s", cell.data);
            buf_release(&cell);
            term.bar_drawn = true;
        } else {
            fprintf(stderr, "%s\n", line.data);
        }
        fflush(stderr);
    }
    buf_release(&line);
}

static void
table_take(struct table *table, va_list ap)
{
    const char *cells[TABLE_COLUMNS_MAX];
    for (size_t i = 0; i < table->n_columns; i++)
        cells[i] = va_arg(ap, const char *);
    table_cell_row(table, cells);
}

void
table_init(struct table *table, const char *right, ...)
{
    memset(table, 0, sizeof(*table));
    table->n_columns = strlen(right);
    ASSERT(table->n_columns <= TABLE_COLUMNS_MAX);
    for (size_t i = 0; i < table->n_columns; i++)
        table->right[i] = right[i] == 'r';
    va_list ap;
    va_start(ap, right);
    table_take(table, ap);
    va_end(ap);
}

void
table_row(struct table *table, ...)
{
    va_list ap;
    va_start(ap, table);
    table_take(table, ap);
    va_end(ap);
}

void
table_cell_row(struct table *table, const char *const *cells)
{
    size_t n = table->n_columns;
    if ((table->n_rows + 1) * n > table->cap) {
        table->cap = table->cap * 2 + 16 * n;
        table->cells =
            must_realloc(table->cells, table->cap, sizeof(*table->cells));
    }
    for (size_t i = 0; i < n; i++) {
        char text[CELL_MAX];
        term_clean(text, sizeof(text), cells[i] != NULL ? cells[i] : "");
        table->cells[table->n_rows * n + i] = must_strdup(text);
    }
    table->n_rows++;
}

void
table_print(const struct table *table)
{
    size_t n = table->n_columns;
    size_t width[TABLE_COLUMNS_MAX] = {0};
    for (size_t r = 0; r < table->n_rows; r++)
        for (size_t c = 0; c < n; c++) {
            size_t w = term_width(table->cells[r * n + c]);
            width[c] = w > width[c] ? w : width[c];
        }
    size_t room = term_columns();
    size_t used = 0;
    for (size_t c = 0; c + 1 < n; c++)
        used += width[c] + 2;
    if (n > 0 && used + width[n - 1] > room)
        width[n - 1] = used + 12 < room ? room - used : 12;
    for (size_t r = 0; r < table->n_rows; r++) {
        struct buf line;
        buf_init(&line, 1 << 20);
        for (size_t c = 0; c < n; c++) {
            if (c > 0)
                buf_add_str(&line, "  ");
            term_add_cell(
                &line, table->cells[r * n + c], width[c], table->right[c]);
        }
        while (line.len > 0 && line.data[line.len - 1] == ' ')
            line.data[--line.len] = '\0';
        printf("%s%s%s\n", r == 0 ? term_bold() : "",
            buf_status(&line) == OK && line.data != NULL ? line.data : "",
            r == 0 ? term_plain() : "");
        buf_release(&line);
    }
}

void
table_release(struct table *table)
{
    for (size_t i = 0; i < table->n_rows * table->n_columns; i++)
        mem_free(table->cells[i]);
    mem_free(table->cells);
    memset(table, 0, sizeof(*table));
}
