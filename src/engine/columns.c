#include "engine/columns.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/hash.h"

struct column {
    char *path;
    const char *parts[COLUMN_PATH_PARTS_MAX]; /* into parts_text */
    size_t n_parts;
    char *parts_text;
    bool open;
    uint8_t *tags;
    uint64_t *values;
    uint64_t *touched; /* bits: set since columns_add; while closed */
    size_t span;       /* rows that have storage */
    uint64_t *many;
    size_t many_n;
    size_t many_cap;
    size_t many_dead; /* words of `many` that belong to no row */
    char **strings;
    uint32_t *string_lens;
    uint32_t *string_uses; /* rows and elements that have it */
    size_t n_strings;
    size_t cap_strings;
    size_t n_unused;
    size_t string_bytes;
    uint32_t *table; /* open addressing over strings */
    size_t table_size;
    _Atomic uint64_t used_at; /* columns->clock when last viewed */
};

struct columns {
    pthread_rwlock_t lock;
    struct column *columns[COLUMNS_MAX];
    size_t n;
    uint64_t seed;
    _Atomic uint64_t clock;
};

/* One value as extracted. */
struct cell {
    enum column_tag tag;
    uint64_t value;
    const char *s; /* COLUMN_STRING, before it is interned */
    size_t len;
};

struct cells {
    struct cell v[COLUMN_VALUES_MAX];
    size_t n;
    bool many; /* an array was met */
};

enum err
columns_new(struct columns **out)
{
    struct columns *c = mem_calloc(1, sizeof(*c));
    if (!c) {
        return ERR_NOMEM;
    }
    pthread_rwlock_init(&c->lock, NULL);
    c->seed = hash_u64((uint64_t)(uintptr_t)c);
    *out = c;
    return OK;
}

static void
column_free(struct column *col)
{
    if (!col) {
        return;
    }
    for (size_t i = 0; i < col->n_strings; i++) {
        mem_free(col->strings[i]);
    }
    mem_free(col->strings);
    mem_free(col->string_lens);
    mem_free(col->string_uses);
    mem_free(col->table);
    mem_free(col->many);
    mem_free(col->tags);
    mem_free(col->values);
    mem_free(col->touched);
    mem_free(col->parts_text);
    mem_free(col->path);
    mem_free(col);
}

void
columns_free(struct columns *c)
{
    if (!c) {
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        column_free(c->columns[i]);
    }
    pthread_rwlock_destroy(&c->lock);
    mem_free(c);
}

static void
drop(struct columns *c, size_t i)
{
    column_free(c->columns[i]);
    c->columns[i] = c->columns[--c->n];
}

static size_t
find(const struct columns *c, const char *path)
{
    for (size_t i = 0; i < c->n; i++) {
        if (strcmp(c->columns[i]->path, path) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* ---- values out of metadata ---------------------------------------------- */

static void
collect(struct cells *cells, const struct json *node, const char *const *parts,
    size_t n_parts)
{
    if (json_kind(node) == JSON_KIND_ARRAY) {
        cells->many = true;
        size_t n = json_count(node);
        for (size_t i = 0; i < n && cells->n < COLUMN_VALUES_MAX; i++) {
            const struct json *item = json_item(node, i);
            /* An array within an array is one opaque value, not a list. */
            if (json_kind(item) != JSON_KIND_ARRAY) {
                collect(cells, item, parts, n_parts);
            } else if (n_parts == 0) {
                cells->v[cells->n++] = (struct cell){.tag = COLUMN_OTHER};
            }
        }
        return;
    }
    if (n_parts > 0) {
        const struct json *member = json_find(node, parts[0]);
        if (member) {
            collect(cells, member, parts + 1, n_parts - 1);
        }
        return;
    }
    if (cells->n >= COLUMN_VALUES_MAX) {
        return;
    }
    struct cell cell = {.tag = COLUMN_OTHER};
    double number;
    switch (json_kind(node)) {
    case JSON_KIND_NULL:
        cell.tag = COLUMN_NULL;
        break;
    case JSON_KIND_BOOL:
        cell.tag = COLUMN_BOOL;
        cell.value = json_bool(node);
        break;
    case JSON_KIND_INT:
    case JSON_KIND_REAL:
        cell.tag = COLUMN_NUMBER;
        number = json_f64(node);
        number = number == 0 ? 0 : number; /* -0 and 0 are one value */
        memcpy(&cell.value, &number, sizeof(number));
        break;
    case JSON_KIND_STRING:
        cell.tag = COLUMN_STRING;
        cell.s = json_str(node, &cell.len);
        break;
    case JSON_KIND_ARRAY:
    case JSON_KIND_OBJECT:
        break;
    }
    cells->v[cells->n++] = cell;
}

/* ---- interned strings ---------------------------------------------------- */

static bool
grow(void *pointer, size_t cap, size_t size)
{
    void *p;
    memcpy(&p, pointer, sizeof(p));
    void *q = mem_realloc(p, cap, size);
    if (q) {
        memcpy(pointer, &q, sizeof(q));
    }
    return q != NULL;
}

static bool
rehash(struct column *col, uint64_t seed)
{
    size_t size = MAX(64, col->table_size * 2);
    uint32_t *table = mem_alloc(size, sizeof(*table));
    if (!table) {
        return false;
    }
    memset(table, 0xff, size * sizeof(*table));
    for (size_t i = 0; i < col->n_strings; i++) {
        size_t at =
            hash_bytes(col->strings[i], col->string_lens[i], seed) & (size - 1);
        while (table[at] != UINT32_MAX) {
            at = (at + 1) & (size - 1);
        }
        table[at] = (uint32_t)i;
    }
    mem_free(col->table);
    col->table = table;
    col->table_size = size;
    return true;
}

static bool
intern(struct column *col, uint64_t seed, const char *s, size_t len,
    uint64_t *number)
{
    if (col->n_strings * 2 >= col->table_size && !rehash(col, seed)) {
        return false;
    }
    size_t mask = col->table_size - 1;
    size_t at = hash_bytes(s, len, seed) & mask;
    for (; col->table[at] != UINT32_MAX; at = (at + 1) & mask) {
        uint32_t i = col->table[at];
        if (col->string_lens[i] == len &&
            memcmp(col->strings[i], s, len) == 0) {
            col->n_unused -= col->string_uses[i] == 0;
            col->string_uses[i]++;
            *number = i;
            return true;
        }
    }
    if (col->n_strings == col->cap_strings) {
        size_t cap = col->cap_strings + col->cap_strings / 2 + 16;
        if (!grow(&col->strings, cap, sizeof(*col->strings)) ||
            !grow(&col->string_lens, cap, sizeof(*col->string_lens)) ||
            !grow(&col->string_uses, cap, sizeof(*col->string_uses))) {
            return false;
        }
        col->cap_strings = cap;
    }
    char *copy = mem_strndup(s, len);
    if (!copy) {
        return false;
    }
    size_t i = col->n_strings++;
    col->strings[i] = copy;
    col->string_lens[i] = (uint32_t)len;
    col->string_uses[i] = 1;
    col->string_bytes += len + 1;
    col->table[at] = (uint32_t)i;
    *number = i;
    return true;
}

/* ---- rows ---------------------------------------------------------------- */

static bool
reserve_rows(struct column *col, size_t n)
{
    if (n <= col->span) {
        return true;
    }
    size_t span = (MAX(n, col->span + col->span / 4 + 64) + 63) / 64 * 64;
    if (!grow(&col->tags, span, sizeof(*col->tags)) ||
        !grow(&col->values, span, sizeof(*col->values)) ||
        !grow(&col->touched, span / 64, sizeof(*col->touched))) {
        return false;
    }
    memset(col->tags + col->span, COLUMN_ABSENT, span - col->span);
    memset(
        col->values + col->span, 0, (span - col->span) * sizeof(*col->values));
    memset(col->touched + col->span / 64, 0,
        (span - col->span) / 64 * sizeof(*col->touched));
    col->span = span;
    return true;
}

static void
unuse(struct column *col, enum column_tag tag, uint64_t value)
{
    if (tag == COLUMN_STRING) {
        col->string_uses[value]--;
        col->n_unused += col->string_uses[value] == 0;
    }
}

static void
clear_row(struct column *col, uint32_t ord)
{
    if (ord >= col->span) {
        return;
    }
    enum column_tag tag = col->tags[ord];
    uint64_t value = col->values[ord];
    if (tag == COLUMN_MANY) {
        uint64_t n = col->many[value];
        for (uint64_t i = 0; i < n; i++) {
            unuse(col, (enum column_tag)col->many[value + 1 + 2 * i],
                col->many[value + 2 + 2 * i]);
        }
        col->many_dead += 1 + 2 * n;
    } else {
        unuse(col, tag, value);
    }
    col->tags[ord] = COLUMN_ABSENT;
    col->values[ord] = 0;
}

/* Intern a cell's string; its value is then complete. */
static bool
settle(struct column *col, uint64_t seed, struct cell *cell)
{
    return cell->tag != COLUMN_STRING ||
           intern(col, seed, cell->s, cell->len, &cell->value);
}

static bool
set_row(struct column *col, uint64_t seed, uint32_t ord,
    const struct json *metadata)
{
    struct cells cells;
    cells.n = 0;
    cells.many = false;
    if (metadata) {
        collect(&cells, metadata, col->parts, col->n_parts);
    }
    if (!reserve_rows(col, (size_t)ord + 1)) {
        return false;
    }
    clear_row(col, ord);
    if (!cells.many) {
        if (cells.n == 1) {
            if (!settle(col, seed, &cells.v[0])) {
                return false;
            }
            col->tags[ord] = (uint8_t)cells.v[0].tag;
            col->values[ord] = cells.v[0].value;
        }
        return true;
    }
    size_t need = 1 + 2 * cells.n;
    if (col->many_n + need > col->many_cap) {
        size_t cap = MAX(col->many_n + need, col->many_cap * 3 / 2 + 64);
        if (!grow(&col->many, cap, sizeof(*col->many))) {
            return false;
        }
        col->many_cap = cap;
    }
    size_t at = col->many_n;
    for (size_t i = 0; i < cells.n; i++) {
        if (!settle(col, seed, &cells.v[i])) {
            return false;
        }
        col->many[at + 1 + 2 * i] = cells.v[i].tag;
        col->many[at + 2 + 2 * i] = cells.v[i].value;
    }
    col->many[at] = cells.n;
    col->many_n += need;
    col->tags[ord] = COLUMN_MANY;
    col->values[ord] = at;
    return true;
}

static bool
mostly_garbage(const struct column *col)
{
    return (col->n_unused > 4096 && col->n_unused * 2 > col->n_strings) ||
           (col->many_dead > 65536 && col->many_dead * 2 > col->many_n);
}

/* ---- the set of columns -------------------------------------------------- */

bool
columns_any(struct columns *c)
{
    pthread_rwlock_rdlock(&c->lock);
    bool any = c->n > 0;
    pthread_rwlock_unlock(&c->lock);
    return any;
}

bool
columns_has(struct columns *c, const char *path)
{
    pthread_rwlock_rdlock(&c->lock);
    size_t i = find(c, path);
    bool has = i != SIZE_MAX && c->columns[i]->open;
    pthread_rwlock_unlock(&c->lock);
    return has;
}

static struct column *
column_new(const char *path)
{
    struct column *col = mem_calloc(1, sizeof(*col));
    if (!col) {
        return NULL;
    }
    col->path = mem_strdup(path);
    col->parts_text = mem_strdup(path);
    if (!col->path || !col->parts_text) {
        column_free(col);
        return NULL;
    }
    char *s = col->parts_text;
    while (s && col->n_parts < COLUMN_PATH_PARTS_MAX) {
        col->parts[col->n_parts++] = s;
        s = strchr(s, '.');
        if (s) {
            *s++ = '\0';
        }
    }
    return col;
}

enum err
columns_add(struct columns *c, const char *path)
{
    struct column *col = column_new(path);
    if (!col) {
        return ERR_NOMEM;
    }
    pthread_rwlock_wrlock(&c->lock);
    size_t i = find(c, path);
    if (i != SIZE_MAX) {
        drop(c, i);
    } else if (c->n == COLUMNS_MAX) {
        size_t oldest = 0;
        for (size_t j = 1; j < c->n; j++) {
            if (c->columns[j]->used_at < c->columns[oldest]->used_at) {
                oldest = j;
            }
        }
        drop(c, oldest);
    }
    col->used_at = ++c->clock;
    c->columns[c->n++] = col;
    pthread_rwlock_unlock(&c->lock);
    return OK;
}

enum err
columns_fill(struct columns *c, const char *path, uint32_t ord,
    const struct json *metadata)
{
    enum err err = OK;
    pthread_rwlock_wrlock(&c->lock);
    size_t i = find(c, path);
    if (i != SIZE_MAX && !c->columns[i]->open) {
        struct column *col = c->columns[i];
        if (!reserve_rows(col, (size_t)ord + 1)) {
            err = ERR_NOMEM;
        } else if (!(col->touched[ord >> 6] >> (ord & 63) & 1) &&
                   !set_row(col, c->seed, ord, metadata)) {
            err = ERR_NOMEM;
        }
        if (err) {
            drop(c, i);
        }
    }
    pthread_rwlock_unlock(&c->lock);
    return err;
}

void
columns_ready(struct columns *c, const char *path)
{
    pthread_rwlock_wrlock(&c->lock);
    size_t i = find(c, path);
    if (i != SIZE_MAX) {
        c->columns[i]->open = true;
    }
    pthread_rwlock_unlock(&c->lock);
}

void
columns_set(struct columns *c, uint32_t ord, const struct json *metadata)
{
    pthread_rwlock_wrlock(&c->lock);
    for (size_t i = c->n; i-- > 0;) {
        struct column *col = c->columns[i];
        if (!set_row(col, c->seed, ord, metadata) || mostly_garbage(col)) {
            drop(c, i);
        } else {
            col->touched[ord >> 6] |= UINT64_C(1) << (ord & 63);
        }
    }
    pthread_rwlock_unlock(&c->lock);
}

void
columns_clear(struct columns *c, uint32_t ord)
{
    pthread_rwlock_wrlock(&c->lock);
    for (size_t i = c->n; i-- > 0;) {
        struct column *col = c->columns[i];
        if (!reserve_rows(col, (size_t)ord + 1)) {
            drop(c, i);
            continue;
        }
        clear_row(col, ord);
        col->touched[ord >> 6] |= UINT64_C(1) << (ord & 63);
    }
    pthread_rwlock_unlock(&c->lock);
}

void
columns_forget(struct columns *c)
{
    pthread_rwlock_wrlock(&c->lock);
    while (c->n > 0) {
        drop(c, c->n - 1);
    }
    pthread_rwlock_unlock(&c->lock);
}

size_t
columns_bytes(struct columns *c)
{
    size_t n = sizeof(*c);
    pthread_rwlock_rdlock(&c->lock);
    for (size_t i = 0; i < c->n; i++) {
        const struct column *col = c->columns[i];
        n += sizeof(*col) + col->span * 9 + col->span / 8 +
             col->many_cap * sizeof(*col->many) +
             col->cap_strings * (sizeof(*col->strings) + 8) +
             col->string_bytes + col->table_size * sizeof(*col->table);
    }
    pthread_rwlock_unlock(&c->lock);
    return n;
}

void
columns_lock(struct columns *c)
{
    pthread_rwlock_rdlock(&c->lock);
}

void
columns_unlock(struct columns *c)
{
    pthread_rwlock_unlock(&c->lock);
}

bool
columns_view(struct columns *c, const char *path, struct column_view *out)
{
    size_t i = find(c, path);
    if (i == SIZE_MAX || !c->columns[i]->open) {
        return false;
    }
    struct column *col = c->columns[i];
    atomic_store(&col->used_at, atomic_fetch_add(&c->clock, 1) + 1);
    *out = (struct column_view){.tags = col->tags,
        .values = col->values,
        .span = col->span,
        .many = col->many,
        .strings = col->strings,
        .string_lens = col->string_lens,
        .n_strings = col->n_strings};
    return true;
}
