#include "engine/jdoc.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    struct arena *arena;
    const char *at;
    const char *end;
    const char *start;
    const char *pointer;
    struct fault *fault;
    unsigned depth;
};

static enum err parse_value(struct parser *p, struct jnode *node);

static enum err
refuse(struct parser *p, const char *what)
{
    return fault_set(p->fault, ERR_SYNTAX, p->pointer,
        "malformed JSON at byte %zu: %s", (size_t)(p->at - p->start), what);
}

static enum err
no_memory(struct parser *p)
{
    return fault_set(p->fault, ERR_NOMEM, p->pointer, "out of memory");
}

static void
skip_blanks(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' ||
                                 *p->at == '\r' || *p->at == '\t')) {
        p->at++;
    }
}

/* Bytes of the well-formed UTF-8 sequence at s (Unicode, table 3-7), or 0. */
static size_t
utf8_length(const unsigned char *s, size_t n)
{
    unsigned char a = s[0];
    if (a < 0x80) {
        return 1;
    }
    size_t len = a >= 0xf0 ? 4 : a >= 0xe0 ? 3 : 2;
    if (a < 0xc2 || a > 0xf4 || n < len) {
        return 0;
    }
    unsigned char lo = 0x80, hi = 0xbf;
    if (a == 0xe0) {
        lo = 0xa0;
    } else if (a == 0xed) {
        hi = 0x9f;
    } else if (a == 0xf0) {
        lo = 0x90;
    } else if (a == 0xf4) {
        hi = 0x8f;
    }
    if (s[1] < lo || s[1] > hi) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if (s[i] < 0x80 || s[i] > 0xbf) {
            return 0;
        }
    }
    return len;
}

static bool
read_hex4(struct parser *p, unsigned *out)
{
    if (p->end - p->at < 4) {
        return false;
    }
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p->at[i];
        unsigned d;
        if (c >= '0' && c <= '9') {
            d = (unsigned)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            d = (unsigned)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            d = (unsigned)(c - 'A') + 10;
        } else {
            return false;
        }
        v = v * 16 + d;
    }
    p->at += 4;
    *out = v;
    return true;
}

static char *
put_utf8(char *out, unsigned cp)
{
    if (cp < 0x80) {
        *out++ = (char)cp;
    } else if (cp < 0x800) {
        *out++ = (char)(0xc0 | (cp >> 6));
        *out++ = (char)(0x80 | (cp & 0x3f));
    } else if (cp < 0x10000) {
        *out++ = (char)(0xe0 | (cp >> 12));
        *out++ = (char)(0x80 | ((cp >> 6) & 0x3f));
        *out++ = (char)(0x80 | (cp & 0x3f));
    } else {
        *out++ = (char)(0xf0 | (cp >> 18));
        *out++ = (char)(0x80 | ((cp >> 12) & 0x3f));
        *out++ = (char)(0x80 | ((cp >> 6) & 0x3f));
        *out++ = (char)(0x80 | (cp & 0x3f));
    }
    return out;
}

/* The escape after a backslash. */
static enum err
parse_escape(struct parser *p, char **out)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    char c = *p->at++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        *(*out)++ = to[known - from];
        return OK;
    }
    unsigned cp, low;
    if (c != 'u' || !read_hex4(p, &cp)) {
        return refuse(p, "unknown escape in a string");
    }
    if (cp == 0) {
        return refuse(p, "\\u0000 is not allowed");
    }
    if (cp >= 0xdc00 && cp <= 0xdfff) {
        return refuse(p, "lone surrogate in a string");
    }
    if (cp >= 0xd800 && cp <= 0xdbff) {
        if (p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u') {
            return refuse(p, "lone surrogate in a string");
        }
        p->at += 2;
        if (!read_hex4(p, &low) || low < 0xdc00 || low > 0xdfff) {
            return refuse(p, "lone surrogate in a string");
        }
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    }
    *out = put_utf8(*out, cp);
    return OK;
}

/* A string from after its opening quote. */
static enum err
parse_string(struct parser *p, const char **s, size_t *len)
{
    /* Find the end first: the decoded text is never longer. */
    const char *q = p->at;
    while (q < p->end && *q != '"') {
        q += *q == '\\' ? 2 : 1;
    }
    if (q >= p->end) {
        return refuse(p, "a string without its end");
    }
    char *text = arena_alloc(p->arena, (size_t)(q - p->at) + 1, 1);
    if (!text) {
        return no_memory(p);
    }
    char *out = text;
    while (p->at < q) {
        unsigned char c = (unsigned char)*p->at;
        if (c == '\\') {
            p->at++;
            enum err err = parse_escape(p, &out);
            if (err) {
                return err;
            }
        } else if (c < 0x20) {
            return refuse(p, "control character in a string");
        } else {
            size_t n =
                utf8_length((const unsigned char *)p->at, (size_t)(q - p->at));
            if (n == 0) {
                return refuse(p, "invalid UTF-8");
            }
            memcpy(out, p->at, n);
            out += n;
            p->at += n;
        }
    }
    if (p->at != q) {
        return refuse(p, "a string without its end");
    }
    p->at++;
    *out = '\0';
    *s = text;
    *len = (size_t)(out - text);
    return OK;
}

static enum err
parse_number(struct parser *p, struct jnode *node)
{
    const char *q = p->at;
    bool fraction = false;
    q += q < p->end && *q == '-';
    const char *digits = q;
    while (q < p->end && *q >= '0' && *q <= '9') {
        q++;
    }
    if (q == digits || (*digits == '0' && q > digits + 1)) {
        return refuse(p, "malformed number");
    }
    if (q < p->end && *q == '.') {
        fraction = true;
        const char *after = ++q;
        while (q < p->end && *q >= '0' && *q <= '9') {
            q++;
        }
        if (q == after) {
            return refuse(p, "malformed number");
        }
    }
    if (q < p->end && (*q == 'e' || *q == 'E')) {
        fraction = true;
        q++;
        q += q < p->end && (*q == '+' || *q == '-');
        const char *after = q;
        while (q < p->end && *q >= '0' && *q <= '9') {
            q++;
        }
        if (q == after) {
            return refuse(p, "malformed number");
        }
    }
    size_t n = (size_t)(q - p->at);
    const char *text = arena_strndup(p->arena, p->at, n);
    if (!text) {
        return no_memory(p);
    }
    node->number = strtod(text, NULL);
    if (!isfinite(node->number)) {
        return refuse(p, "number out of range");
    }
    node->type = J_NUMBER;
    node->s = text;
    node->len = n;
    if (!fraction) {
        errno = 0;
        node->integer = strtoll(text, NULL, 10);
        node->is_int = errno == 0;
    }
    p->at = q;
    return OK;
}

static bool
take_word(struct parser *p, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0) {
        return false;
    }
    p->at += n;
    return true;
}

static enum err
parse_key(struct parser *p, const struct jnode *object, struct jnode *member)
{
    if (p->at >= p->end || *p->at != '"') {
        return refuse(p, "a member's name must be a string");
    }
    p->at++;
    enum err err = parse_string(p, &member->key, &member->key_len);
    if (err) {
        return err;
    }
    for (const struct jnode *m = object->child; m; m = m->next) {
        if (m->key_len == member->key_len &&
            memcmp(m->key, member->key, m->key_len) == 0) {
            return refuse(p, "the same name twice in one object");
        }
    }
    skip_blanks(p);
    if (p->at >= p->end || *p->at != ':') {
        return refuse(p, "':' expected");
    }
    p->at++;
    return OK;
}

/* The inside of an array or object, from after its opening bracket. */
static enum err
parse_children(struct parser *p, struct jnode *node, char close)
{
    struct jnode **link = &node->child;
    skip_blanks(p);
    if (p->at < p->end && *p->at == close) {
        p->at++;
        return OK;
    }
    for (;;) {
        struct jnode *child = arena_calloc(p->arena, 1, sizeof(*child));
        if (!child) {
            return no_memory(p);
        }
        skip_blanks(p);
        enum err err = OK;
        if (node->type == J_OBJECT) {
            if (node->n >= JDOC_MEMBERS_MAX) {
                return fault_set(p->fault, ERR_TOO_LARGE, p->pointer,
                    "an object has more than %d members", JDOC_MEMBERS_MAX);
            }
            err = parse_key(p, node, child);
        }
        if (!err) {
            err = parse_value(p, child);
        }
        if (err) {
            return err;
        }
        *link = child;
        link = &child->next;
        node->n++;
        skip_blanks(p);
        if (p->at < p->end && *p->at == ',') {
            p->at++;
            continue;
        }
        if (p->at < p->end && *p->at == close) {
            p->at++;
            return OK;
        }
        return refuse(p, "',' or the end of a list expected");
    }
}

static enum err
parse_value(struct parser *p, struct jnode *node)
{
    skip_blanks(p);
    if (p->at >= p->end) {
        return refuse(p, "a value expected");
    }
    char c = *p->at;
    if (c == '"') {
        p->at++;
        node->type = J_STRING;
        return parse_string(p, &node->s, &node->len);
    }
    if (c == '{' || c == '[') {
        if (++p->depth > JDOC_DEPTH_MAX) {
            return fault_set(p->fault, ERR_TOO_LARGE, p->pointer,
                "JSON nested deeper than %d", JDOC_DEPTH_MAX);
        }
        p->at++;
        node->type = c == '{' ? J_OBJECT : J_ARRAY;
        enum err err = parse_children(p, node, c == '{' ? '}' : ']');
        p->depth--;
        return err;
    }
    if (take_word(p, "true")) {
        node->type = J_BOOL;
        node->truth = true;
        return OK;
    }
    if (take_word(p, "false")) {
        node->type = J_BOOL;
        return OK;
    }
    if (take_word(p, "null")) {
        node->type = J_NULL;
        return OK;
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return parse_number(p, node);
    }
    return refuse(p, "a value expected");
}

enum err
jdoc_parse(struct arena *arena, const char *text, size_t len,
    struct jnode **out, const char *pointer, struct fault *fault)
{
    struct parser p = {.arena = arena,
        .at = text,
        .end = text + len,
        .start = text,
        .pointer = pointer,
        .fault = fault};
    struct jnode *root = arena_calloc(arena, 1, sizeof(*root));
    if (!root) {
        return no_memory(&p);
    }
    enum err err = parse_value(&p, root);
    if (err) {
        return err;
    }
    skip_blanks(&p);
    if (p.at != p.end) {
        return refuse(&p, "something follows the value");
    }
    *out = root;
    return OK;
}

struct jnode *
jdoc_get(const struct jnode *node, const char *key)
{
    if (!node || node->type != J_OBJECT) {
        return NULL;
    }
    for (struct jnode *m = node->child; m; m = m->next) {
        if (strcmp(m->key, key) == 0) {
            return m;
        }
    }
    return NULL;
}

void
jdoc_write(struct buf *out, const struct jnode *node)
{
    switch (node->type) {
    case J_NULL:
        buf_add_str(out, "null");
        break;
    case J_BOOL:
        buf_add_str(out, node->truth ? "true" : "false");
        break;
    case J_NUMBER:
        buf_add(out, node->s, node->len);
        break;
    case J_STRING:
        buf_json_string(out, node->s, node->len);
        break;
    case J_ARRAY:
    case J_OBJECT:
        buf_add_char(out, node->type == J_ARRAY ? '[' : '{');
        for (const struct jnode *m = node->child; m; m = m->next) {
            if (m->key) {
                buf_json_string(out, m->key, m->key_len);
                buf_add_char(out, ':');
            }
            jdoc_write(out, m);
            if (m->next) {
                buf_add_char(out, ',');
            }
        }
        buf_add_char(out, node->type == J_ARRAY ? ']' : '}');
        break;
    }
}

const char *
jdoc_type_name(enum jtype type)
{
    static const char *const names[] = {"null", "true or false", "a number",
        "a string", "an array", "an object"};
    return names[type];
}

void
jdoc_pointer(char out[FAULT_POINTER_MAX], const char *prefix, const char *key)
{
    char text[FAULT_POINTER_MAX];
    size_t n = 0;
    for (const char *c = prefix; *c && n < FAULT_POINTER_MAX - 1; c++) {
        text[n++] = *c;
    }
    if (n < FAULT_POINTER_MAX - 1) {
        text[n++] = '/';
    }
    for (const char *c = key; *c && n < FAULT_POINTER_MAX - 3; c++) {
        if (*c == '~' || *c == '/') {
            text[n++] = '~';
            text[n++] = *c == '~' ? '0' : '1';
        } else {
            text[n++] = *c;
        }
    }
    text[n] = '\0';
    memcpy(out, text, n + 1);
}
