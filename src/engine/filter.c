#include "engine/filter.h"

#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/json.h"

enum op {
    OP_AND,
    OP_OR,
    OP_NOT,
    OP_EQ,
    OP_IN,
    OP_GT,
    OP_GTE,
    OP_LT,
    OP_LTE,
    OP_EXISTS
};

struct operand {
    enum column_tag tag; /* COLUMN_BOOL, _NUMBER or _STRING */
    double number;
    bool truth;
    const char *s;
    size_t len;
};

struct node {
    enum op op;
    struct node *child; /* AND, OR, NOT */
    struct node *next;
    size_t path_i; /* comparisons */
    struct operand *operands;
    size_t n_operands;
};

struct filter {
    struct node *root;
    const char **paths;
    size_t n_paths;
    size_t cap_paths;
    size_t n_nodes;
    size_t n_values;
};

struct compiler {
    struct arena *arena;
    struct filter *filter;
    struct fault *fault;
    unsigned depth;
};

static enum err compile_object(struct compiler *c, const struct json *object,
    const char *pointer, struct node **out);

static enum err
new_node(struct compiler *c, enum op op, const char *pointer, struct node **out)
{
    if (++c->filter->n_nodes > FILTER_NODES_MAX) {
        return fault_set(c->fault, ERR_TOO_LARGE, pointer,
            "a filter has at most %d conditions", FILTER_NODES_MAX);
    }
    struct node *node = arena_calloc(c->arena, 1, sizeof(*node));
    if (!node) {
        return fault_set(c->fault, ERR_NOMEM, pointer, "out of memory");
    }
    node->op = op;
    *out = node;
    return OK;
}

static enum err
check_path(struct compiler *c, const char *path, const char *pointer)
{
    size_t len = strlen(path), parts = 1;
    bool empty_part = len == 0 || path[0] == '.' || path[len - 1] == '.' ||
                      strstr(path, "..");
    for (const char *s = path; *s; s++) {
        parts += *s == '.';
    }
    if (empty_part) {
        return fault_set(c->fault, ERR_INVALID, pointer,
            "a field is a dotted path without empty parts");
    }
    if (len > COLUMN_PATH_BYTES_MAX || parts > COLUMN_PATH_PARTS_MAX) {
        return fault_set(c->fault, ERR_TOO_LARGE, pointer,
            "a field's path has at most %d bytes and %d parts",
            COLUMN_PATH_BYTES_MAX, COLUMN_PATH_PARTS_MAX);
    }
    return OK;
}

static enum err
use_path(
    struct compiler *c, const char *path, const char *pointer, size_t *path_i)
{
    struct filter *f = c->filter;
    for (size_t i = 0; i < f->n_paths; i++) {
        if (strcmp(f->paths[i], path) == 0) {
            *path_i = i;
            return OK;
        }
    }
    enum err err = check_path(c, path, pointer);
    if (err) {
        return err;
    }
    if (f->n_paths == COLUMNS_MAX / 2) {
        return fault_set(c->fault, ERR_TOO_LARGE, pointer,
            "a filter names at most %d fields", COLUMNS_MAX / 2);
    }
    const char *copy = arena_strndup(c->arena, path, strlen(path));
    if (!copy) {
        return fault_set(c->fault, ERR_NOMEM, pointer, "out of memory");
    }
    f->paths[f->n_paths] = copy;
    *path_i = f->n_paths++;
    return OK;
}

static enum err
read_operand(struct compiler *c, const struct json *value, bool ordered,
    const char *pointer, struct operand *out)
{
    if (++c->filter->n_values > FILTER_VALUES_MAX) {
        return fault_set(c->fault, ERR_TOO_LARGE, pointer,
            "a filter compares with at most %d values", FILTER_VALUES_MAX);
    }
    const char *s;
    switch (json_kind(value)) {
    case JSON_KIND_STRING:
        s = json_str(value, &out->len);
        out->tag = COLUMN_STRING;
        out->s = arena_strndup(c->arena, s, out->len);
        return out->s
                   ? OK
                   : fault_set(c->fault, ERR_NOMEM, pointer, "out of memory");
    case JSON_KIND_INT:
    case JSON_KIND_REAL:
        out->tag = COLUMN_NUMBER;
        out->number = json_f64(value);
        return OK;
    case JSON_KIND_BOOL:
        if (!ordered) {
            out->tag = COLUMN_BOOL;
            out->truth = json_bool(value);
            return OK;
        }
        break;
    case JSON_KIND_NULL:
    case JSON_KIND_ARRAY:
    case JSON_KIND_OBJECT:
        break;
    }
    return fault_set(c->fault, ERR_INVALID, pointer,
        ordered ? "an order is asked of a number or a string"
                : "a value to compare with is a string, a number or a boolean "
                  "(for a missing field use $exists)");
}

static enum err
compile_in(struct compiler *c, const struct json *value, const char *pointer,
    struct node *node)
{
    if (json_kind(value) != JSON_KIND_ARRAY) {
        return fault_set(
            c->fault, ERR_INVALID, pointer, "$in takes an array of values");
    }
    size_t n = json_count(value);
    node->operands = arena_calloc(c->arena, MAX(n, 1), sizeof(*node->operands));
    if (!node->operands) {
        return fault_set(c->fault, ERR_NOMEM, pointer, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        char at[FAULT_POINTER_MAX], index[24];
        size_t digits = sizeof(index), v = i;
        index[--digits] = '\0';
        do {
            index[--digits] = (char)('0' + v % 10);
            v /= 10;
        } while (v);
        json_pointer(at, pointer, index + digits);
        enum err err =
            read_operand(c, json_item(value, i), false, at, &node->operands[i]);
        if (err) {
            return err;
        }
    }
    node->n_operands = n;
    return OK;
}

/* One operator of a field: {"$gte": 5}. */
static enum err
compile_operator(struct compiler *c, const char *path, const char *name,
    const struct json *value, const char *pointer, struct node **out)
{
    static const struct {
        const char *name;
        enum op op;
    } known[] = {{"$eq", OP_EQ}, {"$ne", OP_NOT}, {"$in", OP_IN},
        {"$gt", OP_GT}, {"$gte", OP_GTE}, {"$lt", OP_LT}, {"$lte", OP_LTE},
        {"$exists", OP_EXISTS}};
    size_t i = 0;
    while (i < ARRAY_LEN(known) && strcmp(known[i].name, name) != 0) {
        i++;
    }
    if (i == ARRAY_LEN(known)) {
        return fault_set(c->fault, ERR_INVALID, pointer,
            "unknown operator; a field takes $eq $ne $gt $gte $lt $lte $in "
            "$exists");
    }
    enum op op = known[i].op;
    struct node *node;
    enum err err = new_node(c, op == OP_NOT ? OP_EQ : op, pointer, &node);
    if (err) {
        return err;
    }
    err = use_path(c, path, pointer, &node->path_i);
    if (err) {
        return err;
    }
    if (op == OP_IN) {
        err = compile_in(c, value, pointer, node);
    } else if (op == OP_EXISTS) {
        if (json_kind(value) != JSON_KIND_BOOL) {
            err = fault_set(
                c->fault, ERR_INVALID, pointer, "$exists takes true or false");
        } else if (!json_bool(value)) {
            op = OP_NOT;
        }
    } else {
        node->operands = arena_calloc(c->arena, 1, sizeof(*node->operands));
        node->n_operands = 1;
        err = node->operands
                  ? read_operand(c, value, op != OP_EQ && op != OP_NOT, pointer,
                        node->operands)
                  : fault_set(c->fault, ERR_NOMEM, pointer, "out of memory");
    }
    if (!err && op == OP_NOT) {
        struct node *negation;
        err = new_node(c, OP_NOT, pointer, &negation);
        if (!err) {
            negation->child = node;
            node = negation;
        }
    }
    if (!err) {
        *out = node;
    }
    return err;
}

/* A field's condition: a value, or an object of operators. */
static enum err
compile_field(struct compiler *c, const char *path, const struct json *value,
    const char *pointer, struct node **out)
{
    if (json_kind(value) != JSON_KIND_OBJECT) {
        return compile_operator(c, path, "$eq", value, pointer, out);
    }
    if (json_count(value) == 0) {
        return fault_set(c->fault, ERR_INVALID, pointer,
            "an empty object is no condition; write {\"$exists\": true}");
    }
    struct node *all;
    enum err err = new_node(c, OP_AND, pointer, &all);
    if (err) {
        return err;
    }
    struct node **link = &all->child;
    for (void *it = json_first(value); it; it = json_next(value, it)) {
        char at[FAULT_POINTER_MAX];
        json_pointer(at, pointer, json_it_key(it));
        err = compile_operator(
            c, path, json_it_key(it), json_it_value(it), at, link);
        if (err) {
            return err;
        }
        link = &(*link)->next;
    }
    *out = all;
    return OK;
}

/* $and and $or: an array of filters. */
static enum err
compile_list(struct compiler *c, enum op op, const struct json *value,
    const char *pointer, struct node **out)
{
    if (json_kind(value) != JSON_KIND_ARRAY || json_count(value) == 0) {
        return fault_set(c->fault, ERR_INVALID, pointer,
            "$and and $or take an array of at least one filter");
    }
    struct node *list;
    enum err err = new_node(c, op, pointer, &list);
    if (err) {
        return err;
    }
    struct node **link = &list->child;
    size_t n = json_count(value);
    for (size_t i = 0; i < n; i++) {
        char at[FAULT_POINTER_MAX];
        struct buf index;
        buf_init(&index, 32);
        buf_printf(&index, "%zu", i);
        json_pointer(at, pointer, index.data ? index.data : "");
        buf_release(&index);
        err = compile_object(c, json_item(value, i), at, link);
        if (err) {
            return err;
        }
        link = &(*link)->next;
    }
    *out = list;
    return OK;
}

static enum err
compile_member(struct compiler *c, const char *key, const struct json *value,
    const char *pointer, struct node **out)
{
    if (key[0] != '$') {
        return compile_field(c, key, value, pointer, out);
    }
    if (strcmp(key, "$and") == 0) {
        return compile_list(c, OP_AND, value, pointer, out);
    }
    if (strcmp(key, "$or") == 0) {
        return compile_list(c, OP_OR, value, pointer, out);
    }
    if (strcmp(key, "$not") == 0) {
        struct node *negation;
        enum err err = new_node(c, OP_NOT, pointer, &negation);
        if (!err) {
            err = compile_object(c, value, pointer, &negation->child);
        }
        if (!err) {
            *out = negation;
        }
        return err;
    }
    return fault_set(c->fault, ERR_INVALID, pointer,
        "unknown operator; between filters stand $and $or $not");
}

static enum err
compile_object(struct compiler *c, const struct json *object,
    const char *pointer, struct node **out)
{
    if (json_kind(object) != JSON_KIND_OBJECT) {
        return fault_set(
            c->fault, ERR_INVALID, pointer, "a filter is an object");
    }
    if (++c->depth > FILTER_DEPTH_MAX) {
        return fault_set(c->fault, ERR_TOO_LARGE, pointer,
            "filters nest at most %d deep", FILTER_DEPTH_MAX);
    }
    struct node *all;
    enum err err = new_node(c, OP_AND, pointer, &all);
    if (err) {
        return err;
    }
    struct node **link = &all->child;
    for (void *it = json_first(object); it; it = json_next(object, it)) {
        char at[FAULT_POINTER_MAX];
        json_pointer(at, pointer, json_it_key(it));
        err = compile_member(c, json_it_key(it), json_it_value(it), at, link);
        if (err) {
            return err;
        }
        link = &(*link)->next;
    }
    c->depth--;
    *out = all;
    return OK;
}

enum err
filter_compile(struct arena *arena, const char *text, const char *pointer,
    struct filter **out, struct fault *fault)
{
    struct json *root = NULL;
    struct fault why = {.err = OK};
    enum err err =
        json_parse(text, strlen(text), FILTER_BYTES_MAX, &root, &why);
    if (err) {
        return fault_set(fault, err, pointer, "%s", why.detail);
    }
    struct filter *filter = arena_calloc(arena, 1, sizeof(*filter));
    struct compiler c = {.arena = arena, .filter = filter, .fault = fault};
    if (filter) {
        filter->paths =
            arena_calloc(arena, COLUMNS_MAX / 2, sizeof(*filter->paths));
    }
    if (!filter || !filter->paths) {
        err = fault_set(fault, ERR_NOMEM, pointer, "out of memory");
    } else {
        err = compile_object(&c, root, pointer, &filter->root);
    }
    json_free(root);
    if (!err) {
        *out = filter;
    }
    return err;
}

size_t
filter_paths(const struct filter *filter, const char *const **paths)
{
    *paths = filter->paths;
    return filter->n_paths;
}

/* ---- evaluation ---------------------------------------------------------- */

struct evaluator {
    const struct filter *filter;
    struct column_view *views; /* by path */
    size_t n_words;
};

/* Which strings of a column a comparison accepts, by number. */
static uint8_t *
accepted_strings(const struct node *node, const struct column_view *view)
{
    uint8_t *accept = mem_calloc(MAX(view->n_strings, 1), 1);
    if (!accept) {
        return NULL;
    }
    for (size_t i = 0; i < node->n_operands; i++) {
        const struct operand *o = &node->operands[i];
        if (o->tag != COLUMN_STRING) {
            continue;
        }
        for (size_t j = 0; j < view->n_strings; j++) {
            size_t len = view->string_lens[j];
            int order = memcmp(view->strings[j], o->s, MIN(len, o->len));
            if (order == 0) {
                order = (len > o->len) - (len < o->len);
            }
            bool ok = false;
            switch (node->op) {
            case OP_EQ:
            case OP_IN:
                ok = order == 0;
                break;
            case OP_GT:
                ok = order > 0;
                break;
            case OP_GTE:
                ok = order >= 0;
                break;
            case OP_LT:
                ok = order < 0;
                break;
            case OP_LTE:
                ok = order <= 0;
                break;
            case OP_AND:
            case OP_OR:
            case OP_NOT:
            case OP_EXISTS:
                break;
            }
            accept[j] |= ok;
        }
    }
    return accept;
}

static bool
number_matches(const struct node *node, uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof(v));
    for (size_t i = 0; i < node->n_operands; i++) {
        const struct operand *o = &node->operands[i];
        if (o->tag != COLUMN_NUMBER) {
            continue;
        }
        /* Equality of two numbers as they were written, not of results. */
        bool less = v<o->number, more = v> o->number;
        bool ok = false;
        switch (node->op) {
        case OP_EQ:
        case OP_IN:
            ok = !less && !more;
            break;
        case OP_GT:
            ok = more;
            break;
        case OP_GTE:
            ok = !less;
            break;
        case OP_LT:
            ok = less;
            break;
        case OP_LTE:
            ok = !more;
            break;
        case OP_AND:
        case OP_OR:
        case OP_NOT:
        case OP_EXISTS:
            break;
        }
        if (ok) {
            return true;
        }
    }
    return false;
}

static bool
cell_matches(const struct node *node, const uint8_t *accept, uint64_t tag,
    uint64_t value)
{
    switch (tag) {
    case COLUMN_STRING:
        return accept[value];
    case COLUMN_NUMBER:
        return number_matches(node, value);
    case COLUMN_BOOL:
        if (node->op == OP_EQ || node->op == OP_IN) {
            for (size_t i = 0; i < node->n_operands; i++) {
                if (node->operands[i].tag == COLUMN_BOOL &&
                    node->operands[i].truth == (value != 0)) {
                    return true;
                }
            }
        }
        return false;
    default:
        return false;
    }
}

static enum err
eval_comparison(
    const struct evaluator *e, const struct node *node, uint64_t *bits)
{
    const struct column_view *view = &e->views[node->path_i];
    size_t n = MIN(view->span, e->n_words * 64);
    memset(bits, 0, e->n_words * sizeof(*bits));
    if (node->op == OP_EXISTS) {
        for (size_t i = 0; i < n; i++) {
            bits[i >> 6] |= (uint64_t)(view->tags[i] != COLUMN_ABSENT)
                            << (i & 63);
        }
        return OK;
    }
    uint8_t *accept = accepted_strings(node, view);
    if (!accept) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        uint8_t tag = view->tags[i];
        bool ok = false;
        if (tag == COLUMN_MANY) {
            const uint64_t *many = view->many + view->values[i];
            for (uint64_t j = 0; j < many[0] && !ok; j++) {
                ok = cell_matches(
                    node, accept, many[1 + 2 * j], many[2 + 2 * j]);
            }
        } else if (tag != COLUMN_ABSENT) {
            ok = cell_matches(node, accept, tag, view->values[i]);
        }
        bits[i >> 6] |= (uint64_t)ok << (i & 63);
    }
    mem_free(accept);
    return OK;
}

static enum err
eval_node(const struct evaluator *e, const struct node *node, uint64_t *bits)
{
    if (node->op > OP_NOT) {
        return eval_comparison(e, node, bits);
    }
    if (node->op == OP_NOT) {
        enum err err = eval_node(e, node->child, bits);
        for (size_t w = 0; !err && w < e->n_words; w++) {
            bits[w] = ~bits[w];
        }
        return err;
    }
    memset(bits, node->op == OP_AND ? 0xff : 0, e->n_words * sizeof(*bits));
    if (!node->child) {
        return OK; /* only AND may be empty: all pass */
    }
    if (!node->child->next) {
        return eval_node(e, node->child, bits);
    }
    uint64_t *part = mem_alloc(MAX(e->n_words, 1), sizeof(*part));
    if (!part) {
        return ERR_NOMEM;
    }
    enum err err = OK;
    for (const struct node *m = node->child; m && !err; m = m->next) {
        err = eval_node(e, m, part);
        for (size_t w = 0; !err && w < e->n_words; w++) {
            bits[w] =
                node->op == OP_AND ? bits[w] & part[w] : bits[w] | part[w];
        }
    }
    mem_free(part);
    return err;
}

enum err
filter_eval(const struct filter *filter, struct columns *columns,
    uint64_t *bits, const uint64_t *live, size_t n_words)
{
    struct column_view views[COLUMNS_MAX / 2];
    struct evaluator e = {.filter = filter, .views = views, .n_words = n_words};
    enum err err = OK;
    columns_lock(columns);
    for (size_t i = 0; i < filter->n_paths && !err; i++) {
        if (!columns_view(columns, filter->paths[i], &views[i])) {
            err = ERR_NOT_FOUND;
        }
    }
    if (!err) {
        err = eval_node(&e, filter->root, bits);
    }
    columns_unlock(columns);
    for (size_t w = 0; !err && w < n_words; w++) {
        bits[w] &= live[w];
    }
    return err;
}
