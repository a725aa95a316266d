/*
 * published_card.c - what a publisher says of a model, from the head of its
 * README.md: lines between two of "---", of which "license" and "language" are
 * read. A value stands behind its key, or is a list, in brackets or of lines
 * that begin with "- ".
 */
#include "model/published_parts.h"

#include <string.h>

#define SOURCE_MAX 256
#define VALUE_MAX 64
#define LANGUAGES_MAX 64

/* Text between two places. */
struct span {
    const char *s;
    size_t len;
};

static struct span
trim(struct span t)
{
    while (t.len > 0 && (t.s[0] == ' ' || t.s[0] == '\t'))
        t = (struct span){t.s + 1, t.len - 1};
    while (t.len > 0 && (t.s[t.len - 1] == ' ' || t.s[t.len - 1] == '\t' ||
                            t.s[t.len - 1] == '\r'))
        t.len--;
    if (t.len >= 2 && (t.s[0] == '"' || t.s[0] == '\'') &&
        t.s[t.len - 1] == t.s[0])
        t = (struct span){t.s + 1, t.len - 2};
    return t;
}

/* The next line of the text at *i; false at its end. */
static bool
next_line(const struct buf *text, size_t *i, struct span *line)
{
    if (*i >= text->len)
        return false;
    const char *s = text->data + *i, *end = memchr(s, '\n', text->len - *i);
    *line = (struct span){s, end == NULL ? text->len - *i : (size_t)(end - s)};
    *i += line->len + 1;
    if (line->len > 0 && s[line->len - 1] == '\r')
        line->len--;
    return true;
}

/* Where a list of values goes. */
struct values {
    struct buf *to; /* JSON strings with commas */
    size_t n, max;
};

static bool
has_control(struct span t)
{
    for (size_t i = 0; i < t.len; i++) {
        if ((unsigned char)t.s[i] < ' ')
            return true;
    }
    return false;
}

static void
put_value(struct values *values, struct span value)
{
    value = trim(value);
    if (value.len == 0 || value.len > VALUE_MAX || values->n == values->max ||
        has_control(value))
        return;
    if (values->n++ > 0)
        buf_add_char(values->to, ',');
    buf_json_string(values->to, value.s, value.len);
}

/* A value, or values within brackets. */
static void
put_values(struct values *values, struct span text)
{
    text = trim(text);
    if (text.len < 2 || text.s[0] != '[' || text.s[text.len - 1] != ']') {
        put_value(values, text);
        return;
    }
    text = (struct span){text.s + 1, text.len - 2};
    while (text.len > 0) {
        const char *comma = memchr(text.s, ',', text.len);
        size_t n = comma == NULL ? text.len : (size_t)(comma - text.s);
        put_value(values, (struct span){text.s, n});
        n = MIN(n + 1, text.len);
        text = (struct span){text.s + n, text.len - n};
    }
}

static bool
has_key(struct span line, const char *key, struct span *rest)
{
    size_t n = strlen(key);

    if (line.len <= n || memcmp(line.s, key, n) != 0 || line.s[n] != ':')
        return false;
    *rest = (struct span){line.s + n + 1, line.len - n - 1};
    return true;
}

/* "- value": an item of the list that the last key began. */
static bool
is_item(struct span line, struct span *value)
{
    line = trim(line);
    if (line.len < 2 || line.s[0] != '-' || line.s[1] != ' ')
        return false;
    *value = (struct span){line.s + 2, line.len - 2};
    return true;
}

static void
read_head(
    const struct buf *text, struct values *license, struct values *languages)
{
    struct values *open = NULL; /* of the last key */
    struct span line, rest;
    size_t i = 0;

    if (!next_line(text, &i, &line) || line.len != 3 ||
        memcmp(line.s, "---", 3) != 0)
        return;
    while (next_line(text, &i, &line) &&
           !(line.len == 3 && memcmp(line.s, "---", 3) == 0)) {
        if (is_item(line, &rest)) {
            if (open != NULL)
                put_values(open, rest);
            continue;
        }
        open = has_key(line, "license", &rest)    ? license
               : has_key(line, "language", &rest) ? languages
                                                  : NULL;
        if (open != NULL)
            put_values(open, rest);
    }
}

enum err
published_card_read(struct buf *out, const struct published_plan *plan,
    const struct published_source *source, struct fault *fault)
{
    struct buf text, license, languages;
    enum err err;

    buf_init(&text, PUBLISHED_CARD_MAX);
    buf_init(&license, PUBLISHED_FILE_MAX);
    buf_init(&languages, PUBLISHED_FILE_MAX);
    struct values first = {&license, 0, 1};
    struct values all = {&languages, 0, LANGUAGES_MAX};
    err = source->read(source->arg, "README.md", &text, fault);
    if (err == OK)
        read_head(&text, &first, &all);
    buf_add_str(out, "{\"source\":");
    if (plan->source.len > 0 && plan->source.len <= SOURCE_MAX)
        buf_json_string(out, plan->source.data, plan->source.len);
    else
        buf_add_str(out, "null");
    buf_add_str(out, ",\"license\":");
    buf_add_str(out, license.len > 0 ? license.data : "null");
    buf_add_str(out, ",\"languages\":[");
    buf_add_str(out, languages.len > 0 ? languages.data : "");
    buf_add_str(out, "]}");
    /* a card that is not there, or too long for one, says nothing */
    if (err == ERR_NOT_FOUND || err == ERR_TOO_LARGE)
        err = OK;
    err = published_blame(err, "README.md", fault);
    if (err == OK)
        err = buf_status(&license);
    if (err == OK)
        err = buf_status(&languages);
    if (err == OK)
        err = buf_status(out);
    buf_release(&text);
    buf_release(&license);
    buf_release(&languages);
    return err;
}
