#include "base/buf.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define CAP_FIRST 256

void
buf_init(struct buf *buf, size_t max_bytes)
{
    buf->data = NULL;
    buf->len = 0;
    buf->cap = 0;
    /* Doubling a capacity below this cannot overflow. */
    buf->max_bytes = MIN(max_bytes, SIZE_MAX / 4);
    buf->err = OK;
}

void
buf_release(struct buf *buf)
{
    if (buf == NULL) {
        return;
    }
    mem_free(buf->data);
    buf->data = NULL;
    buf->len = 0;
    buf->cap = 0;
    buf->err = OK;
}

void
buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->err = OK;
    if (buf->data != NULL) {
        buf->data[0] = '\0';
    }
}

enum err
buf_status(const struct buf *buf)
{
    return buf->err;
}

char *
buf_take(struct buf *buf, size_t *len)
{
    char *data = buf->data;

    if (len != NULL) {
        *len = buf->len;
    }
    buf->data = NULL;
    buf->len = 0;
    buf->cap = 0;
    buf->err = OK;
    return data;
}

/* Room for n more bytes and the NUL; false leaves the buffer failed. */
static bool
reserve(struct buf *buf, size_t n)
{
    size_t cap;
    char *data;

    if (buf->err != OK) {
        return false;
    }
    if (n < buf->cap - buf->len) {
        return true;
    }
    if (n > buf->max_bytes - buf->len) {
        buf->err = ERR_TOO_LARGE;
        return false;
    }
    cap = MAX(buf->cap * 2, CAP_FIRST);
    cap = MAX(cap, buf->len + n + 1);
    cap = MIN(cap, buf->max_bytes + 1);
    data = mem_realloc(buf->data, cap, 1);
    if (data == NULL) {
        buf->err = ERR_NOMEM;
        return false;
    }
    data[buf->len] = '\0';
    buf->data = data;
    buf->cap = cap;
    return true;
}

void
buf_add(struct buf *buf, const void *bytes, size_t n)
{
    if (!reserve(buf, n)) {
        return;
    }
    if (n > 0) {
        memcpy(buf->data + buf->len, bytes, n);
        buf->len += n;
        buf->data[buf->len] = '\0';
    }
}

void
buf_add_str(struct buf *buf, const char *s)
{
    buf_add(buf, s, strlen(s));
}

void
buf_add_char(struct buf *buf, char c)
{
    if (reserve(buf, 1)) {
        buf->data[buf->len++] = c;
        buf->data[buf->len] = '\0';
    }
}

void
buf_vprintf(struct buf *buf, const char *fmt, va_list ap)
{
    va_list again;
    int n;

    if (!reserve(buf, 0)) {
        return;
    }
    va_copy(again, ap);
    n = vsnprintf(buf->data + buf->len, buf->cap - buf->len, fmt, ap);
    if (n < 0) {
        buf->err = ERR_INTERNAL;
    } else if ((size_t)n < buf->cap - buf->len) {
        buf->len += (size_t)n;
    } else if (reserve(buf, (size_t)n)) {
        vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, again);
        buf->len += (size_t)n;
    }
    if (buf->err != OK && buf->data != NULL) {
        buf->data[buf->len] = '\0'; /* not the cut text of the first try */
    }
    va_end(again);
}

void
buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(buf, fmt, ap);
    va_end(ap);
}

/* The bytes of the well-formed UTF-8 sequence at s (Unicode 15, table 3-7),
   or 0 when there is none. */
static size_t
utf8_sequence(const unsigned char *s, size_t len)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t n;

    if (s[0] < 0x80) {
        return 1;
    }
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        n = 2;
    } else if (s[0] >= 0xe0 && s[0] <= 0xef) {
        n = 3;
        low = s[0] == 0xe0 ? 0xa0 : 0x80;  /* overlong */
        high = s[0] == 0xed ? 0x9f : 0xbf; /* surrogates */
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        n = 4;
        low = s[0] == 0xf0 ? 0x90 : 0x80;
        high = s[0] == 0xf4 ? 0x8f : 0xbf; /* past U+10FFFF */
    } else {
        return 0;
    }
    if (len < n || s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if (s[i] < 0x80 || s[i] > 0xbf) {
            return 0;
        }
    }
    return n;
}

static void
add_escape(struct buf *buf, unsigned char c)
{
    switch (c) {
    case '"':
        buf_add(buf, "\\\"", 2);
        break;
    case '\\':
        buf_add(buf, "\\\\", 2);
        break;
    case '\n':
        buf_add(buf, "\\n", 2);
        break;
    case '\r':
        buf_add(buf, "\\r", 2);
        break;
    case '\t':
        buf_add(buf, "\\t", 2);
        break;
    default:
        buf_printf(buf, "\\u%04x", c);
    }
}

void
buf_json_string(struct buf *buf, const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t start = 0; /* of the run that is copied as it is */
    size_t i = 0;

    reserve(buf, len > SIZE_MAX - 2 ? len : len + 2);
    buf_add_char(buf, '"');
    while (i < len) {
        unsigned char c = s[i];
        size_t n = 1;

        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            i++;
            continue;
        }
        if (c >= 0x80 && (n = utf8_sequence(s + i, len - i)) > 0) {
            i += n;
            continue;
        }
        buf_add(buf, text + start, i - start);
        if (n == 0) {
            buf_add(buf, "\xef\xbf\xbd", 3);
        } else {
            add_escape(buf, c);
        }
        start = ++i;
    }
    if (start < len) {
        buf_add(buf, text + start, len - start);
    }
    buf_add_char(buf, '"');
}

void
buf_json_cstr(struct buf *buf, const char *s)
{
    buf_json_string(buf, s, strlen(s));
}

/* Decimal digits of v, most significant first; how many. */
static size_t
put_digits(char *out, uint64_t v)
{
    char reversed[20];
    size_t n = 0;

    do {
        reversed[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    for (size_t i = 0; i < n; i++) {
        out[i] = reversed[n - 1 - i];
    }
    return n;
}

void
buf_json_int(struct buf *buf, int64_t v)
{
    char text[21];
    size_t n = 0;

    if (v < 0) {
        text[n++] = '-';
    }
    n += put_digits(text + n, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    buf_add(buf, text, n);
}

/* Zero and integers below the limit, where all their digits count; minus zero
   keeps its sign as -0.0. */
static bool
add_if_integer(struct buf *buf, double v, double limit)
{
    if (!(fabs(v) < limit) || v != floor(v)) {
        return false;
    }
    if (v == 0.0 && signbit(v)) {
        buf_add(buf, "-0.0", 4);
    } else {
        buf_json_int(buf, (int64_t)v);
    }
    return true;
}

/* The C library's numbers use a decimal point here, because the daemon never
   calls setlocale. */
void
buf_json_double(struct buf *buf, double v)
{
    char text[40];

    if (!isfinite(v)) {
        buf_add(buf, "null", 4);
        return;
    }
    if (add_if_integer(buf, v, 1e15)) {
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (digits == 17 || strtod(text, NULL) == v) {
            break;
        }
    }
    buf_add_str(buf, text);
}

static const double pow10_table[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7,
    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22};

/*
 * The fewest digits (6 to 9) and the power with digits / 10^power == v for a
 * reader that rounds once to float as well as for one that goes through
 * double. False when 9 are not enough by this simple arithmetic.
 *
 *   v  in [1e-7, 1e7), not an integer
 *
 * 10^power <= 1e16 and digits < 2^53 are exact, so the quotient is rounded
 * once. It is refused when it is a tie between two floats: only there could
 * the two readers differ.
 */
static bool
find_digits(double v, uint64_t *digits, int *power)
{
    int whole = 0; /* v < 10^whole, as near as matters */

    if (v >= 1.0) {
        while (v >= pow10_table[whole]) {
            whole++;
        }
    } else {
        while (whole > -6 && v * pow10_table[1 - whole] < 1.0) {
            whole--;
        }
    }
    for (int n = 6; n <= 9; n++) {
        int k = n - whole;
        uint64_t bits;
        double back;

        if (k < 1) {
            continue;
        }
        *digits = (uint64_t)(v * pow10_table[k] + 0.5);
        back = (double)*digits / pow10_table[k];
        memcpy(&bits, &back, sizeof(bits));
        if ((float)back == (float)v && (bits & 0x1fffffff) != 0x10000000) {
            *power = k;
            return true;
        }
    }
    return false;
}

void
buf_json_float(struct buf *buf, float v)
{
    char text[40];
    double abs = fabs((double)v);
    uint64_t digits;
    int power;
    size_t n = 0;

    if (!isfinite(v)) {
        buf_add(buf, "null", 4);
        return;
    }
    if (add_if_integer(buf, (double)v, 1e7)) {
        return;
    }
    if (abs < 1e-7 || abs >= 1e7 || !find_digits(abs, &digits, &power)) {
        for (int d = 6; d <= 9; d++) {
            snprintf(text, sizeof(text), "%.*g", d, (double)v);
            if (d == 9 ||
                (strtof(text, NULL) == v && (float)strtod(text, NULL) == v)) {
                break;
            }
        }
        buf_add_str(buf, text);
        return;
    }
    while (digits % 10 == 0) {
        digits /= 10;
        power--;
    }
    if (v < 0.0F) {
        text[n++] = '-';
    }
    char shown[20];
    int n_digits = (int)put_digits(shown, digits);
    if (n_digits <= power) { /* 0.00ddd */
        text[n++] = '0';
        text[n++] = '.';
        for (int i = n_digits; i < power; i++) {
            text[n++] = '0';
        }
        memcpy(text + n, shown, (size_t)n_digits);
        n += (size_t)n_digits;
    } else { /* dd.ddd */
        size_t before = (size_t)(n_digits - power);
        memcpy(text + n, shown, before);
        n += before;
        text[n++] = '.';
        memcpy(text + n, shown + before, (size_t)power);
        n += (size_t)power;
    }
    buf_add(buf, text, n);
}
