#include "base/json.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"

/* A struct json is a json_t under another name: the type is never completed,
   and only these two functions convert. Trees are read-only, but jansson's
   iterators take a pointer to non-const; hence the way over uintptr_t. */
static json_t *
inner(const struct json *node)
{
    return (json_t *)(uintptr_t)node;
}

static const struct json *
outer(const json_t *node)
{
    return (const struct json *)(const void *)node;
}

/* jansson reports many failed allocations as a syntax error, so the allocator
   notes them for the call in progress in this thread. */
static _Thread_local bool out_of_memory;

static void *
lib_alloc(size_t n)
{
    void *p = mem_alloc(n, 1);

    if (p == NULL) {
        /* jansson's scanner stops the program when a token's buffer cannot
           grow, so one more try lets it go on to its end; the call fails all
           the same. */
        out_of_memory = true;
        p = mem_alloc(n, 1);
    }
    return p;
}

/* jansson on our allocator, so that the torture tests reach it. mem_free
   frees what malloc gave, so values made before are no trouble. */
static void
use_our_memory(void)
{
    json_set_alloc_funcs(lib_alloc, mem_free);
}

/* How deep the brackets outside strings go; jansson's own limit is 2,048 and
   it recurses, so this comes first. */
static size_t
depth_of(const char *s, size_t len)
{
    size_t depth = 0, deepest = 0;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            depth++;
            deepest = MAX(deepest, depth);
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return deepest;
}

static enum err
parse_fault(const json_error_t *error, struct fault *fault)
{
    if (out_of_memory) {
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    }
    switch (json_error_code(error)) {
    case json_error_numeric_overflow:
    case json_error_duplicate_key:
        return fault_set(fault, ERR_INVALID, "", "line %d, column %d: %s",
            error->line, error->column, error->text);
    default:
        return fault_set(fault, ERR_SYNTAX, "",
            "not JSON: line %d, column %d: %s", error->line, error->column,
            error->text);
    }
}

enum err
json_parse(const char *s, size_t len, size_t max_bytes, struct json **out,
    struct fault *fault)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    json_error_t error;
    json_t *root;

    pthread_once(&once, use_our_memory);
    if (len > max_bytes) {
        return fault_set(fault, ERR_TOO_LARGE, "",
            "%zu bytes of JSON; the limit is %zu", len, max_bytes);
    }
    if (memchr(s, '\0', len) != NULL) {
        /* jansson would take it for the end of the text. */
        return fault_set(fault, ERR_SYNTAX, "", "not JSON: a NUL byte");
    }
    if (depth_of(s, len) > JSON_DEPTH_MAX) {
        return fault_set(fault, ERR_INVALID, "",
            "JSON nested deeper than %d levels", JSON_DEPTH_MAX);
    }
    out_of_memory = false;
    root = json_loadb(s, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (root != NULL && out_of_memory) {
        /* jansson drops a byte of a long token when its buffer cannot grow. */
        json_decref(root);
        root = NULL;
    }
    if (root == NULL) {
        return parse_fault(&error, fault);
    }
    *out = (struct json *)(void *)root;
    return OK;
}

void
json_free(struct json *root)
{
    if (root != NULL) {
        json_decref(inner(root));
    }
}

enum json_kind
json_kind(const struct json *node)
{
    switch (json_typeof(inner(node))) {
    case JSON_OBJECT:
        return JSON_KIND_OBJECT;
    case JSON_ARRAY:
        return JSON_KIND_ARRAY;
    case JSON_STRING:
        return JSON_KIND_STRING;
    case JSON_INTEGER:
        return JSON_KIND_INT;
    case JSON_REAL:
        return JSON_KIND_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return JSON_KIND_BOOL;
    case JSON_NULL:
        break;
    }
    return JSON_KIND_NULL;
}

bool
json_bool(const struct json *node)
{
    ASSERT(json_is_boolean(inner(node)));
    return json_is_true(inner(node));
}

int64_t
json_i64(const struct json *node)
{
    ASSERT(json_is_integer(inner(node)));
    return json_integer_value(inner(node));
}

double
json_f64(const struct json *node)
{
    ASSERT(json_is_number(inner(node)));
    return json_number_value(inner(node));
}

const char *
json_str(const struct json *node, size_t *len)
{
    ASSERT(json_is_string(inner(node)));
    if (len != NULL) {
        *len = json_string_length(inner(node));
    }
    return json_string_value(inner(node));
}

size_t
json_count(const struct json *node)
{
    return json_is_object(inner(node)) ? json_object_size(inner(node))
                                       : json_array_size(inner(node));
}

const struct json *
json_find(const struct json *object, const char *key)
{
    return outer(json_object_get(inner(object), key));
}

const struct json *
json_item(const struct json *array, size_t i)
{
    const json_t *item = json_array_get(inner(array), i);

    ASSERT(item != NULL);
    return outer(item);
}

void *
json_first(const struct json *object)
{
    return json_object_iter(inner(object));
}

void *
json_next(const struct json *object, void *it)
{
    return json_object_iter_next(inner(object), it);
}

const char *
json_it_key(void *it)
{
    return json_object_iter_key(it);
}

const struct json *
json_it_value(void *it)
{
    return outer(json_object_iter_value(it));
}

/* ---- getters ------------------------------------------------------------ */

void
json_pointer(char out[FAULT_POINTER_MAX], const char *at, const char *key)
{
    size_t n = 0;

    for (; *at != '\0' && n < FAULT_POINTER_MAX - 1; at++) {
        out[n++] = *at;
    }
    if (n < FAULT_POINTER_MAX - 1) {
        out[n++] = '/';
    }
    for (; *key != '\0'; key++) {
        bool escape = *key == '~' || *key == '/';
        if (n + (escape ? 2 : 1) >= FAULT_POINTER_MAX) {
            break;
        }
        if (escape) {
            out[n++] = '~';
            out[n++] = *key == '~' ? '0' : '1';
        } else {
            out[n++] = *key;
        }
    }
    out[n] = '\0';
}

static enum err
refuse(struct fault *fault, const char *at, const char *key, const char *what)
{
    char pointer[FAULT_POINTER_MAX];

    json_pointer(pointer, at, key);
    return fault_set(fault, ERR_INVALID, pointer, "%s %s", key, what);
}

/* The member, NULL when it is absent and may be. */
static enum err
look_up(const struct json *object, const char *at, const char *key,
    enum json_need need, json_t **out, struct fault *fault)
{
    if (!json_is_object(inner(object))) {
        return fault_set(
            fault, ERR_INVALID, at, "must be an object with %s", key);
    }
    *out = json_object_get(inner(object), key);
    if (*out == NULL && need == JSON_REQUIRED) {
        return refuse(fault, at, key, "is missing");
    }
    return OK;
}

enum err
json_get_str(const struct json *object, const char *at, const char *key,
    enum json_need need, const char **out, size_t *len, struct fault *fault)
{
    json_t *node;
    enum err err = look_up(object, at, key, need, &node, fault);

    if (err != OK || node == NULL) {
        return err;
    }
    if (!json_is_string(node)) {
        return refuse(fault, at, key, "must be a string");
    }
    *out = json_string_value(node);
    if (len != NULL) {
        *len = json_string_length(node);
    }
    return OK;
}

enum err
json_get_i64(const struct json *object, const char *at, const char *key,
    enum json_need need, int64_t min, int64_t max, int64_t *out,
    struct fault *fault)
{
    json_t *node;
    enum err err = look_up(object, at, key, need, &node, fault);

    if (err != OK || node == NULL) {
        return err;
    }
    if (!json_is_integer(node)) {
        return refuse(fault, at, key, "must be an integer");
    }
    if (json_integer_value(node) < min || json_integer_value(node) > max) {
        char what[96];
        snprintf(what, sizeof(what), "must be from %lld to %lld",
            (long long)min, (long long)max);
        return refuse(fault, at, key, what);
    }
    *out = json_integer_value(node);
    return OK;
}

enum err
json_get_f64(const struct json *object, const char *at, const char *key,
    enum json_need need, const struct json_range *range, double *out,
    struct fault *fault)
{
    json_t *node;
    enum err err = look_up(object, at, key, need, &node, fault);
    double v;

    if (err != OK || node == NULL) {
        return err;
    }
    if (!json_is_number(node)) {
        return refuse(fault, at, key, "must be a number");
    }
    v = json_number_value(node);
    if (!isfinite(v)) {
        return refuse(fault, at, key, "must be finite");
    }
    if (range != NULL && range->fits_float && !isfinite((float)v)) {
        return refuse(fault, at, key, "is too large for a 32-bit float");
    }
    if (range != NULL && !(v >= range->min && v <= range->max)) {
        char what[96];
        snprintf(what, sizeof(what), "must be from %.10g to %.10g", range->min,
            range->max);
        return refuse(fault, at, key, what);
    }
    *out = v;
    return OK;
}

enum err
json_get_bool(const struct json *object, const char *at, const char *key,
    enum json_need need, bool *out, struct fault *fault)
{
    json_t *node;
    enum err err = look_up(object, at, key, need, &node, fault);

    if (err != OK || node == NULL) {
        return err;
    }
    if (!json_is_boolean(node)) {
        return refuse(fault, at, key, "must be true or false");
    }
    *out = json_is_true(node);
    return OK;
}

enum err
json_get_object(const struct json *object, const char *at, const char *key,
    enum json_need need, const struct json **out, struct fault *fault)
{
    json_t *node;
    enum err err = look_up(object, at, key, need, &node, fault);

    if (err != OK || node == NULL) {
        return err;
    }
    if (!json_is_object(node)) {
        return refuse(fault, at, key, "must be an object");
    }
    *out = outer(node);
    return OK;
}

enum err
json_get_array(const struct json *object, const char *at, const char *key,
    enum json_need need, const struct json **out, struct fault *fault)
{
    json_t *node;
    enum err err = look_up(object, at, key, need, &node, fault);

    if (err != OK || node == NULL) {
        return err;
    }
    if (!json_is_array(node)) {
        return refuse(fault, at, key, "must be an array");
    }
    *out = outer(node);
    return OK;
}

enum err
json_only_keys(const struct json *object, const char *at,
    const char *const *keys, size_t n, struct fault *fault)
{
    if (!json_is_object(inner(object))) {
        return fault_set(fault, ERR_INVALID, at, "must be an object");
    }
    for (void *it = json_first(object); it != NULL;
         it = json_next(object, it)) {
        const char *key = json_it_key(it);
        size_t i = 0;
        while (i < n && strcmp(keys[i], key) != 0) {
            i++;
        }
        if (i == n) {
            char pointer[FAULT_POINTER_MAX];
            json_pointer(pointer, at, key);
            return fault_set(fault, ERR_INVALID, pointer, "unknown field");
        }
    }
    return OK;
}

/* ---- writing ------------------------------------------------------------ */

static int
compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void dump(const json_t *node, struct buf *out);

static void
dump_object(const json_t *node, struct buf *out)
{
    size_t n = json_object_size(node), i = 0;
    const char **keys = mem_alloc(n, sizeof(*keys));

    if (keys == NULL) {
        out->err = out->err == OK ? ERR_NOMEM : out->err;
        return;
    }
    for (void *it = json_first(outer(node)); it != NULL;
         it = json_next(outer(node), it)) {
        keys[i++] = json_object_iter_key(it);
    }
    qsort(keys, n, sizeof(*keys), compare_keys);
    buf_add_char(out, '{');
    for (i = 0; i < n; i++) {
        if (i > 0) {
            buf_add_char(out, ',');
        }
        buf_json_cstr(out, keys[i]);
        buf_add_char(out, ':');
        dump(json_object_get(node, keys[i]), out);
    }
    buf_add_char(out, '}');
    mem_free(keys);
}

/* Recursion is bounded: json_parse made the tree, JSON_DEPTH_MAX deep. */
static void
dump(const json_t *node, struct buf *out)
{
    switch (json_typeof(node)) {
    case JSON_OBJECT:
        dump_object(node, out);
        break;
    case JSON_ARRAY:
        buf_add_char(out, '[');
        for (size_t i = 0; i < json_array_size(node); i++) {
            if (i > 0) {
                buf_add_char(out, ',');
            }
            dump(json_array_get(node, i), out);
        }
        buf_add_char(out, ']');
        break;
    case JSON_STRING:
        buf_json_string(out, json_string_value(node), json_string_length(node));
        break;
    case JSON_INTEGER:
        buf_json_int(out, json_integer_value(node));
        break;
    case JSON_REAL:
        buf_json_double(out, json_real_value(node));
        break;
    case JSON_TRUE:
        buf_add(out, "true", 4);
        break;
    case JSON_FALSE:
        buf_add(out, "false", 5);
        break;
    case JSON_NULL:
        buf_add(out, "null", 4);
        break;
    }
}

void
json_dump(const struct json *node, struct buf *out)
{
    dump(inner(node), out);
}
