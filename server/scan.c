#include "server/scan.h"

#include <stdbool.h>
#include <string.h>

#define DEPTH_MAX 64

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

char
scan_first(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!is_space(s[i]))
            return s[i];
    return 0;
}

/* Behind the closing quote of the string that opens at i, or len. */
static size_t
skip_string(const char *s, size_t len, size_t i)
{
    for (i++; i < len; i++) {
        if (s[i] == '\\')
            i++;
        else if (s[i] == '"')
            return i + 1;
    }
    return len;
}

static size_t
skip_space(const char *s, size_t len, size_t i)
{
    while (i < len && is_space(s[i]))
        i++;
    return i;
}

/* Behind the bracket that closes the one at i, or len. */
static size_t
skip_array(const char *s, size_t len, size_t i)
{
    size_t depth = 0;
    while (i < len) {
        char c = s[i];
        if (c == '"') {
            i = skip_string(s, len, i);
            continue;
        }
        if (c == '[' || c == '{')
            depth++;
        else if ((c == ']' || c == '}') && --depth == 0)
            return i + 1;
        i++;
    }
    return len;
}

/* The open containers, outermost first, as '{' and '['. */
struct nest {
    char open[DEPTH_MAX];
    size_t depth;
};

static bool
is_our_object(const struct nest *nest, enum scan_shape shape)
{
    if (shape == SCAN_PLAIN)
        return false;
    if (shape == SCAN_OBJECT)
        return nest->depth == 1 && nest->open[0] == '{';
    return nest->depth == 3 && memcmp(nest->open, "{[{", 3) == 0;
}

struct cutter {
    struct scan_slice *slices;
    size_t n;
    size_t cap;
    size_t n_bytes; /* of all slices */
};

static bool
note_slice(struct cutter *cut, const char *s, size_t from, size_t to,
    struct arena *arena)
{
    if (cut->n == cut->cap) {
        size_t cap = cut->cap ? cut->cap * 2 : 8;
        struct scan_slice *more = arena_alloc(arena, cap, sizeof(*more));
        if (!more)
            return false;
        if (cut->n > 0)
            memcpy(more, cut->slices, cut->n * sizeof(*more));
        cut->slices = more;
        cut->cap = cap;
    }
    cut->slices[cut->n].s = s + from;
    cut->slices[cut->n].len = to - from;
    cut->n++;
    cut->n_bytes += to - from;
    return true;
}

/* The text with each slice replaced by [i]. */
static bool
without_slices(const struct cutter *cut, const char *s, size_t len,
    struct arena *arena, struct scan_slice *out)
{
    /* A length has at most 20 digits, and two brackets. */
    char *text = arena_alloc(arena, len - cut->n_bytes + 22 * cut->n + 1, 1);
    size_t made = 0;
    const char *copied = s;
    if (!text)
        return false;
    for (size_t i = 0; i < cut->n; i++) {
        const struct scan_slice *slice = &cut->slices[i];
        memcpy(text + made, copied, (size_t)(slice->s - copied));
        made += (size_t)(slice->s - copied);
        char digits[24];
        size_t n_digits = 0;
        size_t v = i;
        do {
            digits[n_digits++] = (char)('0' + v % 10);
            v /= 10;
        } while (v > 0);
        text[made++] = '[';
        while (n_digits > 0)
            text[made++] = digits[--n_digits];
        text[made++] = ']';
        copied = slice->s + slice->len;
    }
    memcpy(text + made, copied, (size_t)(s + len - copied));
    out->s = text;
    out->len = made + (size_t)(s + len - copied);
    return true;
}

/*
 * The string at [i, end) names a member whose value is cut, and a colon and
 * such a value follow: where the value starts; else 0. A vector is cut when it
 * is an array; an image when it is a string, and also when it is an array, so
 * that nobody's [0] can be taken for one of ours.
 */
static size_t
cut_value(const char *s, size_t len, size_t i, size_t end)
{
    static const char vector[] = "\"vector\"";
    static const char image[] = "\"image\"";
    bool is_image =
        end - i == sizeof(image) - 1 && memcmp(s + i, image, end - i) == 0;
    if (!is_image &&
        (end - i != sizeof(vector) - 1 || memcmp(s + i, vector, end - i) != 0))
        return 0;
    size_t at = skip_space(s, len, end);
    if (at >= len || s[at] != ':')
        return 0;
    at = skip_space(s, len, at + 1);
    bool ours = at < len && (s[at] == '[' || (is_image && s[at] == '"'));
    return ours ? at : 0;
}

enum err
scan_cut(const char *s, size_t len, enum scan_shape shape, size_t values_max,
    struct arena *arena, struct scan_slice *out, struct scan_slice **slices,
    size_t *n_slices, struct fault *fault)
{
    struct nest nest = {.depth = 0};
    struct cutter cut = {0};
    size_t values = 0;
    size_t i = 0;
    while (i < len) {
        char c = s[i];
        if (c == '"') {
            size_t end = skip_string(s, len, i);
            size_t value =
                is_our_object(&nest, shape) ? cut_value(s, len, i, end) : 0;
            if (value > 0) {
                end = s[value] == '"' ? skip_string(s, len, value)
                                      : skip_array(s, len, value);
                if (!note_slice(&cut, s, value, end, arena))
                    return fault_set(fault, ERR_NOMEM, "", "out of memory");
            }
            i = end;
            continue;
        }
        if (c == '{' || c == '[') {
            if (nest.depth == DEPTH_MAX)
                return fault_set(fault, ERR_INVALID, "",
                    "the JSON is nested deeper than %d", DEPTH_MAX);
            nest.open[nest.depth++] = c;
            values++;
        } else if (c == '}' || c == ']') {
            if (nest.depth == 0 ||
                nest.open[nest.depth - 1] != (c == '}' ? '{' : '['))
                return fault_set(fault, ERR_SYNTAX, "",
                    "malformed JSON: unexpected '%c' at byte %zu", c, i);
            nest.depth--;
        } else if (c == ',') {
            values++;
        }
        if (values > values_max)
            return fault_set(fault, ERR_TOO_LARGE, "",
                "the JSON holds more than %zu values", values_max);
        i++;
    }
    out->s = s;
    out->len = len;
    if (cut.n > 0 && !without_slices(&cut, s, len, arena, out))
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    *slices = cut.slices;
    *n_slices = cut.n;
    return OK;
}

enum err
scan_elements(const char *s, size_t len, size_t max, struct arena *arena,
    struct scan_slice **elements, size_t *n, struct fault *fault)
{
    struct scan_slice *list = NULL;
    size_t cap = 0;
    size_t count = 0;
    size_t i = skip_space(s, len, 0);
    if (i >= len || s[i] != '[')
        return fault_set(fault, ERR_INVALID, "", "the body must be an array");
    i = skip_space(s, len, i + 1);
    bool closed = i < len && s[i] == ']';
    while (!closed) {
        size_t from = i;
        size_t depth = 0;
        while (i < len) {
            char c = s[i];
            if (c == '"') {
                i = skip_string(s, len, i);
                continue;
            }
            if (depth == 0 && (c == ',' || c == ']'))
                break;
            if (c == '[' || c == '{')
                depth++;
            else if (c == ']' || c == '}') {
                if (depth == 0)
                    break;
                depth--;
            }
            i++;
        }
        if (i >= len || (s[i] != ',' && s[i] != ']'))
            return fault_set(fault, ERR_SYNTAX, "",
                "malformed JSON: the array of the body is not closed");
        if (count == max)
            return fault_set(fault, ERR_TOO_LARGE, "",
                "the array has more than %zu elements; send several requests, "
                "or NDJSON, which has no limit",
                max);
        if (count == cap) {
            cap = cap ? cap * 2 : 16;
            struct scan_slice *more = arena_alloc(arena, cap, sizeof(*more));
            if (!more)
                return fault_set(fault, ERR_NOMEM, "", "out of memory");
            if (count > 0)
                memcpy(more, list, count * sizeof(*more));
            list = more;
        }
        list[count].s = s + from;
        list[count].len = i - from;
        count++;
        closed = s[i] == ']';
        if (!closed)
            i = skip_space(s, len, i + 1);
    }
    if (skip_space(s, len, i + 1) != len)
        return fault_set(fault, ERR_SYNTAX, "",
            "malformed JSON: something follows the array");
    *elements = list;
    *n = count;
    return OK;
}
