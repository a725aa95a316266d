/*
 * safetensors.h - files of named tensors, checked before they are believed.
 *
 * Format: 8 bytes, little endian, the length of a JSON header; the header, one
 * object {"__metadata__": {name: text, ...}, name: {"dtype": "F32", "shape":
 * [...], "data_offsets": [begin, end]}, ...}, spaces behind it; then the bytes
 * of the tensors, the offsets counted from the first of them, little endian,
 * rows first. Source: the README of github.com/huggingface/safetensors.
 *
 * What is read has a header of at most SAFETENSORS_HEADER_MAX bytes that is
 * valid JSON without a name twice, at most SAFETENSORS_RANK_MAX dimensions,
 * known types, shapes whose products fit, and tensors that follow one another
 * without overlap or gap to the end of the file. Everything else is
 * ERR_CORRUPT, with a fault that names the tensor.
 *
 * The header alone (safetensors_parse) is for whoever has the bytes from
 * elsewhere; safetensors_open is for files.
 */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

#define SAFETENSORS_HEADER_MAX ((size_t)1 << 20)
#define SAFETENSORS_RANK_MAX 8

/* X(name, bytes) */
#define SAFETENSORS_TYPES(X)                                                   \
    X(F32, 4)                                                                  \
    X(F16, 2)                                                                  \
    X(BF16, 2)                                                                 \
    X(F64, 8)                                                                  \
    X(F8_E4M3, 1)                                                              \
    X(F8_E5M2, 1)                                                              \
    X(I64, 8)                                                                  \
    X(I32, 4)                                                                  \
    X(I16, 2)                                                                  \
    X(I8, 1)                                                                   \
    X(U64, 8)                                                                  \
    X(U32, 4)                                                                  \
    X(U16, 2)                                                                  \
    X(U8, 1)                                                                   \
    X(BOOL, 1)

#define SAFETENSORS_ENUM(name, bytes) SAFETENSORS_##name,
enum safetensors_type { SAFETENSORS_TYPES(SAFETENSORS_ENUM) };
#undef SAFETENSORS_ENUM

struct safetensors_tensor {
    const char *name; /* borrowed from the header */
    enum safetensors_type type;
    size_t rank;
    uint64_t shape[SAFETENSORS_RANK_MAX];
    uint64_t n;          /* product of the shape; 1 for none */
    uint64_t start, end; /* bytes, from the first of all tensors */
};

/* All zero: nothing, which may be released. */
struct safetensors {
    struct json *header;
    struct safetensors_tensor *tensors; /* [n] ascending by start */
    size_t n;
    int fd; /* of safetensors_open */
    bool is_open;
    uint64_t data; /* where the tensors' bytes begin in the file */
};

/* The length of the header from the file's first 8 bytes. ERR_CORRUPT for one
   that does not fit the file or is over SAFETENSORS_HEADER_MAX. */
enum err safetensors_header_bytes(const uint8_t first[8], uint64_t n_file,
    size_t *n_header, struct fault *fault) NODISCARD;

/*
 * safetensors_parse - a header, checked.
 *
 *   header, len  without the 8 bytes; borrowed for the call
 *   n_data       bytes behind the header
 *   out          all zero before; released by safetensors_release
 */
enum err safetensors_parse(struct safetensors *out, const char *header,
    size_t len, uint64_t n_data, struct fault *fault) NODISCARD;

/*
 * safetensors_open - a file's header, checked; the file stays open.
 *
 * The faults do not repeat path, which is to be a regular file.
 * ERR_NOT_FOUND, ERR_IO, ERR_INVALID (no regular file), ERR_CORRUPT,
 * ERR_NOMEM.
 */
enum err safetensors_open(
    struct safetensors *out, const char *path, struct fault *fault) NODISCARD;
void safetensors_release(struct safetensors *st);

/* A tensor by its name, or NULL; linear in their number. */
const struct safetensors_tensor *safetensors_find(
    const struct safetensors *st, const char *name);

/*
 * safetensors_read - a tensor of an open file as floats.
 *
 *   out  [tensor->n]  overwritten, in part also on failure
 *
 * ERR_UNSUPPORTED for another type than F32, F16 and BF16; ERR_CORRUPT for a
 * NaN or an infinity and a file that became shorter; ERR_IO.
 */
enum err safetensors_read(const struct safetensors *st,
    const struct safetensors_tensor *tensor, float *out,
    struct fault *fault) NODISCARD;

/* The size of a type's value and its name. */
size_t safetensors_type_bytes(enum safetensors_type type);
const char *safetensors_type_name(enum safetensors_type type);

/*
 * A header is written by begin, a meta for every member of the metadata, an
 * add for every tensor in the order of their bytes, and end; then text holds
 * the 8 bytes and the header, of a length that is a multiple of 8.
 */
struct safetensors_head {
    struct buf text;
    uint64_t at; /* bytes of tensors so far */
    size_t n_meta, n_tensors;
};

void safetensors_begin(struct safetensors_head *head);
void safetensors_meta(
    struct safetensors_head *head, const char *name, const char *text);
void safetensors_add(struct safetensors_head *head, const char *name,
    enum safetensors_type type, const size_t *shape, size_t rank);
enum err safetensors_end(struct safetensors_head *head) NODISCARD;
void safetensors_head_release(struct safetensors_head *head);

#endif
