#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

#define BLOCK_BYTES ((size_t)65536)

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
#define TYPE_ROW(name, bytes) {#name, bytes},
    SAFETENSORS_TYPES(TYPE_ROW)
#undef TYPE_ROW
};

size_t
safetensors_type_bytes(enum safetensors_type type)
{
    return types[type].bytes;
}

const char *
safetensors_type_name(enum safetensors_type type)
{
    return types[type].name;
}

/* -------------------------------------------------------------- a tensor */

static enum err
read_type(
    struct safetensors_tensor *t, const struct json *entry, struct fault *fault)
{
    const char *name;

    if (json_get_str(entry, "", "dtype", JSON_REQUIRED, &name, NULL, NULL) !=
        OK)
        return fault_set(
            fault, ERR_CORRUPT, "", "tensor \"%.64s\" has no dtype", t->name);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strcmp(name, types[i].name) == 0) {
            t->type = (enum safetensors_type)i;
            return OK;
        }
    }
    return fault_set(fault, ERR_CORRUPT, "",
        "tensor \"%.64s\" has the unknown type \"%.16s\"", t->name, name);
}

/* A count that is no negative number. */
static bool
is_count(const struct json *node)
{
    return json_kind(node) == JSON_KIND_INT && json_i64(node) >= 0;
}

static enum err
read_shape(
    struct safetensors_tensor *t, const struct json *entry, struct fault *fault)
{
    const struct json *shape;

    if (json_get_array(entry, "", "shape", JSON_REQUIRED, &shape, NULL) != OK ||
        json_count(shape) > SAFETENSORS_RANK_MAX)
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%.64s\" has no shape of at most %d dimensions", t->name,
            SAFETENSORS_RANK_MAX);
    t->rank = json_count(shape);
    t->n = 1;
    for (size_t i = 0; i < t->rank; i++) {
        if (!is_count(json_item(shape, i)))
            return fault_set(fault, ERR_CORRUPT, "",
                "dimension %zu of tensor \"%.64s\" is no number", i, t->name);
        t->shape[i] = (uint64_t)json_i64(json_item(shape, i));
        /* so that bytes, too, fit an int64 */
        if (t->shape[i] > 0 && t->n > INT64_MAX / 8 / t->shape[i])
            return fault_set(fault, ERR_CORRUPT, "",
                "the shape of tensor \"%.64s\" overflows", t->name);
        t->n *= t->shape[i];
    }
    return OK;
}

static enum err
read_offsets(struct safetensors_tensor *t, const struct json *entry,
    uint64_t n_data, struct fault *fault)
{
    const struct json *at;
    uint64_t bytes = t->n * types[t->type].bytes;

    if (json_get_array(entry, "", "data_offsets", JSON_REQUIRED, &at, NULL) !=
            OK ||
        json_count(at) != 2 || !is_count(json_item(at, 0)) ||
        !is_count(json_item(at, 1)))
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%.64s\" has no two data_offsets", t->name);
    t->start = (uint64_t)json_i64(json_item(at, 0));
    t->end = (uint64_t)json_i64(json_item(at, 1));
    if (t->start > t->end || t->end > n_data)
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%.64s\" lies at bytes %" PRIu64 " to %" PRIu64
            " of %" PRIu64,
            t->name, t->start, t->end, n_data);
    if (t->end - t->start != bytes)
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%.64s\" has %" PRIu64
            " bytes, its shape asks for %" PRIu64,
            t->name, t->end - t->start, bytes);
    return OK;
}

/* ------------------------------------------------------------ the header */

enum err
safetensors_header_bytes(const uint8_t first[8], uint64_t n_file,
    size_t *n_header, struct fault *fault)
{
    uint64_t n = 0;

    for (size_t i = 0; i < 8; i++)
        n |= (uint64_t)first[i] << (8 * i);
    if (n_file < 8 || n > n_file - 8)
        return fault_set(fault, ERR_CORRUPT, "",
            "the header claims %" PRIu64 " bytes of a file of %" PRIu64, n,
            n_file);
    if (n > SAFETENSORS_HEADER_MAX)
        return fault_set(fault, ERR_CORRUPT, "",
            "the header has %" PRIu64 " bytes, at most %zu", n,
            SAFETENSORS_HEADER_MAX);
    *n_header = (size_t)n;
    return OK;
}

static enum err
check_meta(const struct json *meta, struct fault *fault)
{
    for (void *it = json_first(meta); it != NULL; it = json_next(meta, it)) {
        if (json_kind(json_it_value(it)) != JSON_KIND_STRING)
            return fault_set(fault, ERR_CORRUPT, "",
                "\"%.64s\" of the metadata is no text", json_it_key(it));
    }
    if (json_kind(meta) != JSON_KIND_OBJECT)
        return fault_set(fault, ERR_CORRUPT, "", "__metadata__ is no object");
    return OK;
}

static enum err
read_entries(struct safetensors *st, uint64_t n_data, struct fault *fault)
{
    enum err err = OK;

    for (void *it = json_first(st->header); it != NULL && err == OK;
         it = json_next(st->header, it)) {
        struct safetensors_tensor *t = &st->tensors[st->n];
        const struct json *entry = json_it_value(it);

        if (strcmp(json_it_key(it), "__metadata__") == 0) {
            err = check_meta(entry, fault);
            continue;
        }
        t->name = json_it_key(it);
        err = read_type(t, entry, fault);
        if (err == OK)
            err = read_shape(t, entry, fault);
        if (err == OK)
            err = read_offsets(t, entry, n_data, fault);
        st->n++;
    }
    return err;
}

static int
by_start(const void *left, const void *right)
{
    const struct safetensors_tensor *a = left, *b = right;

    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

/* The tensors, sorted, follow one another from 0 to n_data. */
static enum err
check_places(const struct safetensors *st, uint64_t n_data, struct fault *fault)
{
    uint64_t at = 0;

    for (size_t i = 0; i < st->n; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        if (t->start < at)
            return fault_set(fault, ERR_CORRUPT, "",
                "tensors \"%.64s\" and \"%.64s\" overlap", t->name,
                st->tensors[i - 1].name);
        if (t->start > at)
            return fault_set(fault, ERR_CORRUPT, "",
                "a gap of %" PRIu64 " bytes before tensor \"%.64s\"",
                t->start - at, t->name);
        at = t->end;
    }
    if (at != n_data)
        return fault_set(fault, ERR_CORRUPT, "",
            "%" PRIu64 " bytes behind the last tensor", n_data - at);
    return OK;
}

enum err
safetensors_parse(struct safetensors *out, const char *header, size_t len,
    uint64_t n_data, struct fault *fault)
{
    struct safetensors st = {0};
    struct fault why = {0};
    enum err err =
        json_parse(header, len, SAFETENSORS_HEADER_MAX, &st.header, &why);

    if (err == ERR_NOMEM)
        return err;
    if (err != OK)
        return fault_set(
            fault, ERR_CORRUPT, "", "the header: %.200s", why.detail);
    if (json_kind(st.header) != JSON_KIND_OBJECT)
        err = fault_set(fault, ERR_CORRUPT, "", "the header is no JSON object");
    st.tensors = mem_calloc(json_count(st.header), sizeof *st.tensors);
    if (err == OK && st.tensors == NULL)
        err = ERR_NOMEM;
    if (err == OK)
        err = read_entries(&st, n_data, fault);
    if (err == OK) {
        qsort(st.tensors, st.n, sizeof *st.tensors, by_start);
        err = check_places(&st, n_data, fault);
    }
    if (err == OK)
        *out = st;
    else
        safetensors_release(&st);
    return err;
}

void
safetensors_release(struct safetensors *st)
{
    if (st->is_open)
        (void)close(st->fd);
    mem_free(st->tensors);
    json_free(st->header);
    *st = (struct safetensors){0};
}

const struct safetensors_tensor *
safetensors_find(const struct safetensors *st, const char *name)
{
    for (size_t i = 0; i < st->n; i++) {
        if (strcmp(st->tensors[i].name, name) == 0)
            return &st->tensors[i];
    }
    return NULL;
}

/* --------------------------------------------------------------- a file */

/* n bytes at a place of the file. */
static enum err
read_at(int fd, uint64_t at, void *bytes, size_t n, struct fault *fault)
{
    char *p = bytes;

    while (n > 0) {
        ssize_t got = pread(fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fault_set(fault, ERR_IO, "", "cannot be read");
        if (got == 0)
            return fault_set(fault, ERR_CORRUPT, "", "cut short");
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return OK;
}

/* A regular file, opened, and its size. */
static enum err
open_regular(const char *path, int *fd, uint64_t *n, struct fault *fault)
{
    struct stat info;

    /* a FIFO would wait for its writer */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return fault_set(fault, ERR_NOT_FOUND, "", "not there");
    if (*fd < 0)
        return fault_set(fault, ERR_IO, "", "cannot be opened");
    if (fstat(*fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)close(*fd);
        return fault_set(fault, ERR_INVALID, "", "not a regular file");
    }
    *n = (uint64_t)info.st_size;
    return OK;
}

enum err
safetensors_open(struct safetensors *out, const char *path, struct fault *fault)
{
    struct safetensors st = {0};
    uint8_t first[8] = {0};
    char *header = NULL;
    uint64_t n_file = 0;
    size_t n_header = 0;
    int fd;
    enum err err = open_regular(path, &fd, &n_file, fault);

    if (err != OK)
        return err;
    err = read_at(fd, 0, first, sizeof first, fault);
    if (err == OK)
        err = safetensors_header_bytes(first, n_file, &n_header, fault);
    if (err == OK) {
        header = mem_alloc(n_header, 1);
        err = header == NULL ? ERR_NOMEM
                             : read_at(fd, 8, header, n_header, fault);
    }
    if (err == OK)
        err = safetensors_parse(
            &st, header, n_header, n_file - 8 - n_header, fault);
    mem_free(header);
    if (err != OK) {
        (void)close(fd);
        return err;
    }
    st.fd = fd;
    st.is_open = true;
    st.data = 8 + n_header;
    *out = st;
    return OK;
}

/* ---------------------------------------------------------------- floats */

static float
float_of(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* IEEE 754 binary16, exactly. */
static float
from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 31, fraction = h & 0x3FF;
    float value;

    if (exponent == 31)
        return float_of(sign | 0x7F800000 | fraction << 13);
    if (exponent > 0)
        return float_of(sign | (exponent + 112) << 23 | fraction << 13);
    value = (float)fraction * 0x1p-24f;
    return sign != 0 ? -value : value;
}

/* n values; whether all are finite. */
static bool
widen(float *out, const uint8_t *bytes, size_t n, enum safetensors_type type)
{
    float sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        if (type == SAFETENSORS_F32) {
            memcpy(&out[i], bytes + 4 * i, sizeof *out);
        } else {
            memcpy(&half, bytes + 2 * i, sizeof half);
            out[i] = type == SAFETENSORS_F16 ? from_f16(half)
                                             : float_of((uint32_t)half << 16);
        }
        sum += out[i] * 0; /* NaN and infinity stay NaN */
    }
    return sum == 0;
}

enum err
safetensors_read(const struct safetensors *st,
    const struct safetensors_tensor *tensor, float *out, struct fault *fault)
{
    uint8_t *block;
    size_t size = types[tensor->type].bytes;
    uint64_t at = st->data + tensor->start, left = tensor->n;
    enum err err = OK;

    if (tensor->type > SAFETENSORS_BF16)
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "tensor \"%.64s\" is of type %s; F32, F16 and BF16 are read",
            tensor->name, types[tensor->type].name);
    block = mem_alloc(BLOCK_BYTES, 1);
    if (block == NULL)
        return ERR_NOMEM;
    while (left > 0 && err == OK) {
        size_t n = (size_t)MIN(left, (uint64_t)(BLOCK_BYTES / size));
        err = read_at(st->fd, at, block, n * size, fault);
        if (err == OK && !widen(out, block, n, tensor->type))
            err = fault_set(fault, ERR_CORRUPT, "",
                "tensor \"%.64s\" holds a NaN or an infinity", tensor->name);
        at += n * size;
        out += n;
        left -= n;
    }
    mem_free(block);
    return err;
}

/* --------------------------------------------------------------- writing */

void
safetensors_begin(struct safetensors_head *head)
{
    *head = (struct safetensors_head){0};
    buf_init(&head->text, 8 + SAFETENSORS_HEADER_MAX);
    buf_add(&head->text, "\0\0\0\0\0\0\0\0{", 9);
}

void
safetensors_meta(
    struct safetensors_head *head, const char *name, const char *text)
{
    ASSERT(head->n_tensors == 0);
    buf_add_str(&head->text, head->n_meta == 0 ? "\"__metadata__\":{" : ",");
    buf_json_cstr(&head->text, name);
    buf_add_char(&head->text, ':');
    buf_json_cstr(&head->text, text);
    head->n_meta++;
}

/* Close the metadata before the first tensor, and at the end without one. */
static void
end_meta(struct safetensors_head *head)
{
    if (head->n_tensors == 0 && head->n_meta > 0)
        buf_add_char(&head->text, '}');
}

void
safetensors_add(struct safetensors_head *head, const char *name,
    enum safetensors_type type, const size_t *shape, size_t rank)
{
    struct buf *text = &head->text;
    uint64_t bytes = types[type].bytes;

    end_meta(head);
    if (head->n_tensors + head->n_meta > 0)
        buf_add_char(text, ',');
    head->n_tensors++;
    buf_json_cstr(text, name);
    buf_printf(text, ":{\"dtype\":\"%s\",\"shape\":[", types[type].name);
    for (size_t i = 0; i < rank; i++) {
        buf_printf(text, i == 0 ? "%zu" : ",%zu", shape[i]);
        bytes *= shape[i];
    }
    buf_printf(text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", head->at,
        head->at + bytes);
    head->at += bytes;
}

enum err
safetensors_end(struct safetensors_head *head)
{
    struct buf *text = &head->text;

    end_meta(head);
    buf_add_char(text, '}');
    while (text->err == OK && text->len % 8 != 0)
        buf_add_char(text, ' ');
    for (size_t i = 0; text->err == OK && i < 8; i++)
        text->data[i] = (char)((text->len - 8) >> (8 * i) & 0xFF);
    return buf_status(text);
}

void
safetensors_head_release(struct safetensors_head *head)
{
    buf_release(&head->text);
}
