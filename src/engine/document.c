#include "engine/document.h"

#include <string.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "base/json.h"

enum part_kind { PART_LITERAL, PART_TITLE, PART_TEXT, PART_METADATA };

struct part {
    enum part_kind kind;
    char *s; /* literal bytes, or the dotted path */
    size_t len;
};

struct document_template {
    struct part *parts;
    size_t n;
    size_t cap;
    bool uses_metadata;
};

static enum err
add_part(
    struct document_template *t, enum part_kind kind, const char *s, size_t len)
{
    if (t->n == t->cap) {
        size_t cap = t->cap * 2 + 4;
        struct part *parts = mem_realloc(t->parts, cap, sizeof(*parts));
        if (!parts) {
            return ERR_NOMEM;
        }
        t->parts = parts;
        t->cap = cap;
    }
    char *copy = mem_strndup(s, len);
    if (!copy) {
        return ERR_NOMEM;
    }
    t->parts[t->n++] = (struct part){.kind = kind, .s = copy, .len = len};
    t->uses_metadata = t->uses_metadata || kind == PART_METADATA;
    return OK;
}

/* A field's name between braces. */
static enum err
add_field(
    struct document_template *t, const char *s, size_t len, struct fault *fault)
{
    static const char prefix[] = "metadata.";
    size_t n = sizeof(prefix) - 1;
    enum err err = ERR_INVALID;
    if (len == 5 && memcmp(s, "title", 5) == 0) {
        err = add_part(t, PART_TITLE, "", 0);
    } else if (len == 4 && memcmp(s, "text", 4) == 0) {
        err = add_part(t, PART_TEXT, "", 0);
    } else if (len > n && memcmp(s, prefix, n) == 0) {
        err = add_part(t, PART_METADATA, s + n, len - n);
    }
    if (err == ERR_INVALID) {
        return fault_set(fault, err, "/template",
            "unknown field {%.*s}; there are {title}, {text} and "
            "{metadata.path}",
            (int)(len < 64 ? len : 64), s);
    }
    return err;
}

static enum err
parse(struct document_template *t, const char *text, struct fault *fault)
{
    enum err err = OK;
    const char *at = text;
    while (*at && !err) {
        size_t plain = strcspn(at, "{}");
        if (plain > 0) {
            err = add_part(t, PART_LITERAL, at, plain);
            at += plain;
        } else if (at[0] == at[1]) {
            err = add_part(t, PART_LITERAL, at, 1);
            at += 2;
        } else if (*at == '}') {
            err = fault_set(fault, ERR_INVALID, "/template",
                "a closing brace without an opening one at byte %zu",
                (size_t)(at - text));
        } else {
            size_t len = strcspn(at + 1, "{}");
            if (at[1 + len] != '}') {
                err = fault_set(fault, ERR_INVALID, "/template",
                    "an opening brace without a closing one at byte %zu",
                    (size_t)(at - text));
            } else {
                err = add_field(t, at + 1, len, fault);
                at += len + 2;
            }
        }
    }
    return err;
}

enum err
document_template_new(
    struct document_template **out, const char *text, struct fault *fault)
{
    if (strlen(text) > DOCUMENT_TEMPLATE_BYTES_MAX) {
        return fault_set(fault, ERR_TOO_LARGE, "/template",
            "a template has at most %d bytes", DOCUMENT_TEMPLATE_BYTES_MAX);
    }
    struct document_template *t = mem_calloc(1, sizeof(*t));
    if (!t) {
        return fault_set(fault, ERR_NOMEM, "/template", "out of memory");
    }
    enum err err = parse(t, text, fault);
    bool field = false;
    for (size_t i = 0; i < t->n; i++) {
        field = field || t->parts[i].kind != PART_LITERAL;
    }
    if (!err && !field) {
        err = fault_set(fault, ERR_INVALID, "/template",
            "a template names at least one field, like {text}");
    }
    if (err) {
        document_template_free(t);
        return err;
    }
    *out = t;
    return OK;
}

void
document_template_free(struct document_template *t)
{
    if (!t) {
        return;
    }
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->parts[i].s);
    }
    mem_free(t->parts);
    mem_free(t);
}

bool
document_uses_metadata(const struct document_template *t)
{
    return t->uses_metadata;
}

static void
render_value(
    const struct json *node, const char *path, bool *first, struct buf *out)
{
    enum json_kind kind = json_kind(node);
    if (kind == JSON_KIND_ARRAY) {
        size_t n = json_count(node);
        for (size_t i = 0; i < n; i++) {
            render_value(json_item(node, i), path, first, out);
        }
        return;
    }
    if (path) {
        const char *dot = strchr(path, '.');
        size_t len = dot ? (size_t)(dot - path) : strlen(path);
        char key[512];
        if (len >= sizeof(key)) {
            return;
        }
        memcpy(key, path, len);
        key[len] = '\0';
        const struct json *member = json_find(node, key);
        if (member) {
            render_value(member, dot ? dot + 1 : NULL, first, out);
        }
        return;
    }
    if (kind == JSON_KIND_OBJECT || kind == JSON_KIND_NULL) {
        return;
    }
    if (!*first) {
        buf_add_char(out, ' ');
    }
    *first = false;
    if (kind == JSON_KIND_STRING) {
        size_t len;
        const char *s = json_str(node, &len);
        buf_add(out, s, len);
    } else {
        json_dump(node, out);
    }
}

enum err
document_render(const struct document_template *t, struct engine_text title,
    struct engine_text text, struct engine_text metadata, struct buf *out)
{
    struct json *tree = NULL;
    if (t->uses_metadata && metadata.s) {
        enum err err = json_parse(
            metadata.s, metadata.len, ENGINE_METADATA_BYTES_MAX, &tree, NULL);
        if (err) {
            return err;
        }
    }
    for (size_t i = 0; i < t->n; i++) {
        const struct part *part = &t->parts[i];
        bool first = true;
        switch (part->kind) {
        case PART_LITERAL:
            buf_add(out, part->s, part->len);
            break;
        case PART_TITLE:
            buf_add(out, title.s ? title.s : "", title.s ? title.len : 0);
            break;
        case PART_TEXT:
            buf_add(out, text.s ? text.s : "", text.s ? text.len : 0);
            break;
        case PART_METADATA:
            if (tree) {
                render_value(tree, part->s, &first, out);
            }
            break;
        }
    }
    json_free(tree);
    return buf_status(out);
}

void
document_hash(const void *bytes, size_t n, uint8_t out[DOCUMENT_HASH_BYTES])
{
    uint8_t digest[SHA256_BYTES];
    sha256_of(bytes, n, digest);
    memcpy(out, digest, DOCUMENT_HASH_BYTES);
}
