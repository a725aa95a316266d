#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES_MAX 512 /* longer numbers are refused */

static const double pow10_table[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7,
    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22};

static bool
is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

static const char *
skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }
    return p;
}

/* Digits into *v; *v wraps beyond 19, which the caller notices by counting. */
static const char *
read_digits(const char *p, const char *end, uint64_t *v)
{
    uint64_t sum = *v;

    while (p < end && is_digit(*p)) {
        sum = sum * 10 + (uint64_t)(unsigned char)(*p - '0');
        p++;
    }
    *v = sum;
    return p;
}

/*
 * digits * 10^exponent as a float, when that is safe without strtod.
 *
 * digits < 10^19 and 10^|exponent| is exact, so the double d below is off by
 * at most three roundings, under 2 units in its last place (1.5 + a little).
 * The float it rounds to is that of the exact double unless a tie between two
 * floats lies in that distance; a tie has the low 29 bits 1000...0. So within
 * 4 units of one, and outside of the normal floats, the answer is "no".
 */
static bool
quick_float(uint64_t digits, int exponent, float *out)
{
    double d;
    uint64_t bits;

    if (digits == 0) {
        *out = 0.0F;
        return true;
    }
    if (exponent < -22 || exponent > 22) {
        return false;
    }
    d = exponent < 0 ? (double)digits / pow10_table[-exponent]
                     : (double)digits * pow10_table[exponent];
    if (!(d > 1e-37 && d < 1e38)) {
        return false;
    }
    memcpy(&bits, &d, sizeof(bits));
    if ((bits & 0x1fffffff) - 0x0ffffffc <= 8) {
        return false;
    }
    *out = (float)d;
    return true;
}

/* strtod wants a NUL behind the number, so it gets a copy. Its decimal point
   is '.', because nothing here calls setlocale. */
static bool
exact_float(const char *p, size_t len, float *out)
{
    char text[NUMBER_BYTES_MAX + 1];
    float v;

    memcpy(text, p, len);
    text[len] = '\0';
    v = (float)strtod(text, NULL);
    if (!isfinite(v)) {
        return false;
    }
    *out = v;
    return true;
}

static enum err
refuse(struct fault *fault, enum err err, size_t i, const char *what)
{
    char pointer[32];

    snprintf(pointer, sizeof(pointer), "/%zu", i);
    return fault_set(fault, err, pointer, "element %zu %s", i, what);
}

/* What stands where a number should begin. */
static enum err
refuse_start(struct fault *fault, size_t i, const char *p, const char *end)
{
    size_t left = (size_t)(end - p);

    if (left > 0 && (*p == '"' || *p == '[' || *p == '{' ||
                        (left >= 4 && memcmp(p, "null", 4) == 0) ||
                        (left >= 4 && memcmp(p, "true", 4) == 0) ||
                        (left >= 5 && memcmp(p, "false", 5) == 0))) {
        return refuse(fault, ERR_INVALID, i, "must be a number");
    }
    return refuse(fault, ERR_SYNTAX, i, "is not JSON");
}

/* One number by JSON's grammar; *at moves behind it. */
static enum err
read_number(
    const char **at, const char *end, size_t i, float *out, struct fault *fault)
{
    const char *start = *at, *p = start, *first, *mark;
    uint64_t digits = 0;
    size_t n_digits;
    int exponent = 0;
    bool negative = p < end && *p == '-';

    p += negative;
    first = p;
    p = read_digits(p, end, &digits);
    n_digits = (size_t)(p - first);
    if (n_digits == 0) {
        return refuse_start(fault, i, start, end);
    }
    if (n_digits > 1 && *first == '0') {
        return refuse(fault, ERR_SYNTAX, i, "has a leading zero");
    }
    if (p < end && *p == '.') {
        mark = ++p;
        p = read_digits(p, end, &digits);
        if (p == mark) {
            return refuse(fault, ERR_SYNTAX, i, "lacks digits after the point");
        }
        n_digits += (size_t)(p - mark);
        exponent = p - mark > 1000 ? -1000 : -(int)(p - mark);
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        bool down = false;
        uint64_t e = 0;
        p++;
        if (p < end && (*p == '+' || *p == '-')) {
            down = *p == '-';
            p++;
        }
        mark = p;
        p = read_digits(p, end, &e);
        if (p == mark) {
            return refuse(fault, ERR_SYNTAX, i, "lacks digits of its exponent");
        }
        /* Past 8 digits e may have wrapped; strtod decides. */
        e = p - mark > 8 ? 100000000 : e;
        exponent += down ? -(int)e : (int)e;
    }
    if ((size_t)(p - start) > NUMBER_BYTES_MAX) {
        return refuse(fault, ERR_INVALID, i, "is too long a number");
    }
    if (n_digits <= 19 && quick_float(digits, exponent, out)) {
        *out = negative ? -*out : *out;
    } else if (!exact_float(start, (size_t)(p - start), out)) {
        return refuse(fault, ERR_INVALID, i, "is infinite as a 32-bit float");
    }
    *at = p;
    return OK;
}

enum err
json_read_floats(const char *s, size_t len, float *out, size_t max, size_t *n,
    const char **end_out, struct fault *fault)
{
    const char *end = s + len;
    const char *p = skip_space(s, end);
    size_t i = 0;

    if (p == end || *p != '[') {
        return fault_set(fault, p == end ? ERR_SYNTAX : ERR_INVALID, "",
            "must be an array of numbers");
    }
    p = skip_space(p + 1, end);
    if (p < end && *p == ']') {
        p++;
        goto out;
    }
    for (;;) {
        float v;
        enum err err = read_number(&p, end, i, &v, fault);

        if (err != OK) {
            return err;
        }
        if (i == max) {
            return fault_set(
                fault, ERR_TOO_LARGE, "", "more than %zu numbers", max);
        }
        out[i++] = v;
        if (p < end && *p != ',' && *p != ']') {
            p = skip_space(p, end);
        }
        if (p == end || (*p != ',' && *p != ']')) {
            return refuse(fault, ERR_SYNTAX, i - 1,
                "is not followed by a comma or a bracket");
        }
        if (*p++ == ']') {
            break;
        }
        p = skip_space(p, end);
    }
out:
    *n = i;
    if (end_out != NULL) {
        *end_out = p;
    }
    return OK;
}
