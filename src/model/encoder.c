/*
 * encoder.c - what all families share: configuration, the flat parameters,
 * their saved form, the fingerprint, gradients.
 *
 * Saved form: safetensors. 8 bytes, little endian, the length of a JSON
 * header; the header: {"__metadata__": {"family", "config"}, name: {"dtype":
 * "F32", "shape": [...], "data_offsets": [begin, end]}, ...}; then the
 * tensors' bytes in the order of the family's list, with no gap.
 */
#include "model/encoder.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "model/family.h"

#define CONFIG_MAX_BYTES 4096
#define HEADER_MAX_BYTES 65536
#define TENSORS_MAX 128
#define IO_BYTES (1u << 20)

static const struct encoder_family *const families[] = {
    &static_encoder_family, &vision_encoder_family};

static const struct encoder_family *
find_family(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (strcmp(families[i]->name, name) == 0)
            return families[i];
    }
    return NULL;
}

static enum err
make_encoder(struct encoder **out, const char *family, const char *config_json,
    bool fill, struct buf *config, struct fault *fault)
{
    const struct encoder_family *f = find_family(family);
    struct json *tree = NULL;
    struct encoder *encoder = NULL;
    struct buf canonical;
    size_t len;
    enum err err;

    if (f == NULL)
        return fault_set(fault, ERR_UNSUPPORTED, "/family",
            "there is no encoder family \"%.40s\" in this version; there are "
            "\"static\" for texts and \"vision\" for pictures",
            family);
    buf_init(&canonical, CONFIG_MAX_BYTES);
    err = json_parse(
        config_json, strlen(config_json), CONFIG_MAX_BYTES, &tree, fault);
    if (err == OK && json_kind(tree) != JSON_KIND_OBJECT)
        err = fault_set(
            fault, ERR_INVALID, "", "an encoder's settings are a JSON object");
    if (err == OK)
        err = f->make(&encoder, tree, fill, &canonical, fault);
    if (err == OK)
        err = buf_status(&canonical);
    if (err == OK && config != NULL) {
        buf_add(config, canonical.data, canonical.len);
        err = buf_status(config);
    }
    if (err == OK) {
        encoder->cache = mem_calloc(1, sizeof *encoder->cache);
        encoder->family = f;
        if (encoder->cache == NULL)
            err = ERR_NOMEM;
    }
    if (err == OK) {
        encoder->config_json = buf_take(&canonical, &len);
        *out = encoder;
        encoder = NULL;
    }
    encoder_free(encoder);
    json_free(tree);
    buf_release(&canonical);
    return err;
}

enum err
encoder_new(struct encoder **out, const char *family, const char *config_json,
    struct buf *config, struct fault *fault)
{
    return make_encoder(out, family, config_json, true, config, fault);
}

static void
drop_cache(struct encoder *encoder)
{
    if (encoder->cache == NULL || atomic_load(encoder->cache) == NULL)
        return;
    encoder->family->cache_free(atomic_exchange(encoder->cache, NULL));
}

void
encoder_free(struct encoder *encoder)
{
    if (encoder == NULL)
        return;
    drop_cache(encoder);
    mem_free(encoder->cache);
    mem_free(encoder->params);
    mem_free(encoder->config_json);
    mem_free(encoder);
}

enum err
encoder_clone(struct encoder **out, const struct encoder *encoder)
{
    struct encoder *copy = mem_alloc(1, encoder->struct_bytes);
    if (copy == NULL)
        return ERR_NOMEM;
    memcpy(copy, encoder, encoder->struct_bytes);
    copy->cache = mem_calloc(1, sizeof *copy->cache);
    copy->params = mem_alloc_aligned(encoder->n_params, sizeof(float));
    copy->config_json = mem_strdup(encoder->config_json);
    if (copy->cache == NULL || copy->params == NULL ||
        copy->config_json == NULL) {
        encoder_free(copy);
        return ERR_NOMEM;
    }
    memcpy(copy->params, encoder->params,
        encoder->n_params * sizeof *encoder->params);
    *out = copy;
    return OK;
}

const char *
encoder_family(const struct encoder *encoder)
{
    return encoder->family->name;
}

enum encoder_reads
encoder_reads(const struct encoder *encoder)
{
    return encoder->family->reads;
}

uint32_t
encoder_image_side(const struct encoder *encoder)
{
    return encoder->image_side;
}

uint32_t
encoder_image_channels(const struct encoder *encoder)
{
    return encoder->image_channels;
}

size_t
encoder_dims(const struct encoder *encoder)
{
    return encoder->n_dims;
}

size_t
encoder_max_tokens(const struct encoder *encoder)
{
    return encoder->max_tokens;
}

bool
encoder_is_trained(const struct encoder *encoder)
{
    return encoder->trained;
}

const char *
encoder_config_json(const struct encoder *encoder)
{
    return encoder->config_json;
}

size_t
encoder_bytes(const struct encoder *encoder)
{
    size_t bytes = encoder->struct_bytes + encoder->n_params * sizeof(float);

    if (encoder->cache != NULL && atomic_load(encoder->cache) != NULL)
        bytes += encoder->family->cache_bytes(encoder);
    return bytes;
}

enum err
encoder_encode(const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info, struct pool *pool)
{
    return encoder->family->encode(encoder, inputs, n, out, info, pool);
}

enum err
encoder_tokenize(const struct encoder *encoder, const char *text, size_t len,
    encoder_token_fn *fn, void *arg)
{
    return encoder->family->tokenize(encoder, text, len, fn, arg);
}

float *
encoder_params(struct encoder *encoder, size_t *n_params)
{
    drop_cache(encoder);
    encoder->trained = true;
    encoder->unsealed = true;
    *n_params = encoder->n_params;
    return encoder->params;
}

void
encoder_seal(struct encoder *encoder)
{
    encoder->unsealed = false;
}

const float *
encoder_params_const(const struct encoder *encoder, size_t *n_params)
{
    *n_params = encoder->n_params;
    return encoder->params;
}

void
encoder_fingerprint(const struct encoder *encoder, uint8_t out[SHA256_BYTES])
{
    static const char head[] = "kindred encoder 1";
    struct sha256 ctx;

    sha256_start(&ctx);
    sha256_add(&ctx, head, sizeof head);
    sha256_add(&ctx, encoder->family->name, strlen(encoder->family->name) + 1);
    sha256_add(&ctx, encoder->config_json, strlen(encoder->config_json) + 1);
    sha256_add(
        &ctx, encoder->params, encoder->n_params * sizeof *encoder->params);
    sha256_finish(&ctx, out);
}

/* ---------------------------------------------------------- saved form */

static size_t
tensor_floats(const struct encoder_tensor *tensor)
{
    return tensor->dims[0] * (tensor->dims[1] > 0 ? tensor->dims[1] : 1);
}

/* The header, padded with spaces to a multiple of 8. */
static enum err
write_header(const struct encoder *encoder, struct buf *out)
{
    struct encoder_tensor tensors[TENSORS_MAX];
    size_t n = encoder->family->tensors(encoder, tensors, TENSORS_MAX);
    size_t at = 0;

    buf_add_str(out, "{\"__metadata__\":{\"family\":");
    buf_json_cstr(out, encoder->family->name);
    buf_add_str(out, ",\"config\":");
    buf_json_cstr(out, encoder->config_json);
    buf_add_char(out, '}');
    for (size_t i = 0; i < n; i++) {
        size_t bytes = tensor_floats(&tensors[i]) * sizeof(float);
        buf_add_char(out, ',');
        buf_json_cstr(out, tensors[i].name);
        buf_printf(
            out, ":{\"dtype\":\"F32\",\"shape\":[%zu", tensors[i].dims[0]);
        if (tensors[i].dims[1] > 0)
            buf_printf(out, ",%zu", tensors[i].dims[1]);
        buf_printf(out, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    buf_add_char(out, '}');
    while (out->err == OK && out->len % 8 != 0)
        buf_add_char(out, ' ');
    return buf_status(out);
}

uint64_t
encoder_save_bytes(const struct encoder *encoder)
{
    struct buf header;
    uint64_t bytes = 0;

    if (!encoder->trained)
        return 0;
    buf_init(&header, HEADER_MAX_BYTES);
    if (write_header(encoder, &header) == OK)
        bytes = 8 + header.len + encoder->n_params * sizeof(float);
    buf_release(&header);
    return bytes;
}

enum err
encoder_save(const struct encoder *encoder, encoder_write_fn *write, void *arg)
{
    struct encoder_tensor tensors[TENSORS_MAX];
    struct buf header;
    uint8_t length[8];
    enum err err;

    if (!encoder->trained)
        return OK;
    size_t n = encoder->family->tensors(encoder, tensors, TENSORS_MAX);
    buf_init(&header, HEADER_MAX_BYTES);
    err = write_header(encoder, &header);
    for (size_t i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header.len >> (8 * i));
    if (err == OK)
        err = write(arg, length, sizeof length);
    if (err == OK)
        err = write(arg, header.data, header.len);
    for (size_t i = 0; i < n && err == OK; i++) {
        const char *p = (const char *)(encoder->params + tensors[i].start);
        size_t left = tensor_floats(&tensors[i]) * sizeof(float);
        while (left > 0 && err == OK) {
            size_t step = MIN(left, (size_t)IO_BYTES);
            err = write(arg, p, step);
            p += step;
            left -= step;
        }
    }
    buf_release(&header);
    return err;
}

/* Does the header's entry describe this tensor at these offsets? */
static enum err
check_tensor(const struct json *header, const struct encoder_tensor *tensor,
    int64_t at, struct fault *fault)
{
    const struct json *entry = json_find(header, tensor->name);
    const struct json *shape, *offsets;
    const char *dtype;
    size_t rank = tensor->dims[1] > 0 ? 2 : 1;
    int64_t end = at + (int64_t)(tensor_floats(tensor) * sizeof(float));

    if (entry == NULL || json_kind(entry) != JSON_KIND_OBJECT)
        return fault_set(fault, ERR_CORRUPT, "",
            "the weights lack the tensor \"%s\"", tensor->name);
    if (json_get_str(entry, "", "dtype", JSON_REQUIRED, &dtype, NULL, NULL) !=
            OK ||
        strcmp(dtype, "F32") != 0)
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%s\" is not of type F32", tensor->name);
    if (json_get_array(entry, "", "shape", JSON_REQUIRED, &shape, NULL) != OK ||
        json_count(shape) != rank)
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%s\" has a shape of another rank", tensor->name);
    for (size_t i = 0; i < rank; i++) {
        const struct json *dim = json_item(shape, i);
        if (json_kind(dim) != JSON_KIND_INT ||
            json_i64(dim) != (int64_t)tensor->dims[i])
            return fault_set(fault, ERR_CORRUPT, "",
                "tensor \"%s\" does not have %zu in dimension %zu",
                tensor->name, tensor->dims[i], i);
    }
    if (json_get_array(
            entry, "", "data_offsets", JSON_REQUIRED, &offsets, NULL) != OK ||
        json_count(offsets) != 2 ||
        json_kind(json_item(offsets, 0)) != JSON_KIND_INT ||
        json_kind(json_item(offsets, 1)) != JSON_KIND_INT ||
        json_i64(json_item(offsets, 0)) != at ||
        json_i64(json_item(offsets, 1)) != end)
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%s\" does not lie at bytes %" PRId64 " to %" PRId64,
            tensor->name, at, end);
    return OK;
}

static enum err
check_header(const struct encoder *encoder, const char *text, size_t len,
    uint64_t n_data_bytes, struct fault *fault)
{
    struct encoder_tensor tensors[TENSORS_MAX];
    size_t n = encoder->family->tensors(encoder, tensors, TENSORS_MAX);
    struct json *header = NULL;
    int64_t at = 0;
    enum err err = json_parse(text, len, HEADER_MAX_BYTES, &header, NULL);

    if (err == ERR_NOMEM)
        return err;
    if (err != OK || json_kind(header) != JSON_KIND_OBJECT) {
        json_free(header);
        return fault_set(
            fault, ERR_CORRUPT, "", "the weights' header is not JSON");
    }
    err = OK;
    for (size_t i = 0; i < n && err == OK; i++) {
        err = check_tensor(header, &tensors[i], at, fault);
        at += (int64_t)(tensor_floats(&tensors[i]) * sizeof(float));
    }
    size_t n_extra = json_find(header, "__metadata__") != NULL ? 1 : 0;
    if (err == OK && json_count(header) != n + n_extra)
        err = fault_set(fault, ERR_CORRUPT, "",
            "the weights have %zu tensors, not %zu",
            json_count(header) - n_extra, n);
    if (err == OK && (uint64_t)at != n_data_bytes)
        err = fault_set(fault, ERR_CORRUPT, "",
            "the weights have %" PRIu64 " bytes of tensors, not %" PRId64,
            n_data_bytes, at);
    json_free(header);
    return err;
}

static enum err
read_params(struct encoder *encoder, encoder_read_fn *read, void *arg,
    struct fault *fault)
{
    struct encoder_tensor tensors[TENSORS_MAX];
    size_t n = encoder->family->tensors(encoder, tensors, TENSORS_MAX);
    enum err err = OK;

    for (size_t i = 0; i < n; i++) {
        float *p = encoder->params + tensors[i].start;
        size_t left = tensor_floats(&tensors[i]);
        while (left > 0) {
            size_t step = MIN(left, (size_t)IO_BYTES / sizeof(float));
            float sum = 0;
            err = read(arg, p, step * sizeof *p);
            if (err != OK)
                return err;
            for (size_t j = 0; j < step; j++)
                sum += p[j] * 0; /* NaN and infinity stay NaN */
            if (!(sum == 0))
                return fault_set(fault, ERR_CORRUPT, "",
                    "tensor \"%s\" holds a NaN or an infinity",
                    tensors[i].name);
            p += step;
            left -= step;
        }
    }
    return OK;
}

enum err
encoder_load(struct encoder **out, const char *family, const char *config_json,
    encoder_read_fn *read, void *arg, uint64_t n_bytes, struct fault *fault)
{
    struct encoder *encoder = NULL;
    char *header = NULL;
    uint8_t length[8];
    uint64_t n_header = 0;
    enum err err;

    err =
        make_encoder(&encoder, family, config_json, n_bytes == 0, NULL, fault);
    if (err != OK || n_bytes == 0)
        goto out;
    if (n_bytes < 8) {
        err = fault_set(fault, ERR_CORRUPT, "", "the weights are cut short");
        goto out;
    }
    err = read(arg, length, sizeof length);
    if (err != OK)
        goto out;
    for (size_t i = 0; i < 8; i++)
        n_header |= (uint64_t)length[i] << (8 * i);
    if (n_header > HEADER_MAX_BYTES || n_header > n_bytes - 8) {
        err = fault_set(fault, ERR_CORRUPT, "",
            "the weights' header claims %" PRIu64 " bytes", n_header);
        goto out;
    }
    header = mem_alloc(n_header + 1, 1);
    if (header == NULL) {
        err = ERR_NOMEM;
        goto out;
    }
    err = read(arg, header, n_header);
    if (err == OK)
        err = check_header(
            encoder, header, n_header, n_bytes - 8 - n_header, fault);
    if (err == OK)
        err = read_params(encoder, read, arg, fault);
    if (err == OK)
        encoder->trained = true;
out:
    mem_free(header);
    if (err != OK)
        encoder_free(encoder);
    else
        *out = encoder;
    return err;
}

/* ------------------------------------------------------------ training */

enum err
encoder_tape_new(struct encoder_tape **out, const struct encoder *encoder)
{
    return encoder->family->tape_new(out, encoder);
}

void
encoder_tape_free(struct encoder_tape *tape)
{
    if (tape != NULL)
        tape->family->tape_free(tape);
}

size_t
encoder_tape_bytes(const struct encoder_tape *tape)
{
    return tape->bytes;
}

size_t
encoder_tape_input_bytes(const struct encoder *encoder)
{
    const struct encoder_family *family = encoder->family;
    return family->tape_input_bytes == NULL ? 0
                                            : family->tape_input_bytes(encoder);
}

enum err
encoder_forward(const struct encoder *encoder, struct encoder_tape *tape,
    const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool)
{
    return encoder->family->forward(encoder, tape, inputs, n, noise, out, pool);
}

enum err
encoder_backward(const struct encoder *encoder, struct encoder_tape *tape,
    const float *d_out, struct encoder_grads *grads, struct pool *pool)
{
    return encoder->family->backward(encoder, tape, d_out, grads, pool);
}

enum err
encoder_grads_new(struct encoder_grads **out, const struct encoder *encoder)
{
    struct encoder_grads *grads = mem_calloc(1, sizeof *grads);
    if (grads == NULL)
        return ERR_NOMEM;
    grads->n_marks = encoder->family->n_marks(encoder);
    grads->marks = mem_calloc(grads->n_marks, 1);
    grads->segments = mem_alloc(
        encoder->family->n_segments_max(encoder), sizeof *grads->segments);
    grads->d_params = mem_alloc_aligned(encoder->n_params, sizeof(float));
    if (grads->marks == NULL || grads->segments == NULL ||
        grads->d_params == NULL) {
        encoder_grads_free(grads);
        return ERR_NOMEM;
    }
    memset(grads->d_params, 0, encoder->n_params * sizeof(float));
    *out = grads;
    return OK;
}

void
encoder_grads_free(struct encoder_grads *grads)
{
    if (grads == NULL)
        return;
    mem_free(grads->marks);
    mem_free(grads->segments);
    mem_free(grads->d_params);
    mem_free(grads);
}

void
encoder_grads_clear(struct encoder_grads *grads)
{
    for (size_t i = 0; i < grads->n_segments; i++)
        memset(grads->d_params + grads->segments[i].start, 0,
            grads->segments[i].n * sizeof(float));
    memset(grads->marks, 0, grads->n_marks);
    grads->n_segments = 0;
}

enum err
encoder_refit(struct encoder *encoder, encoder_next_fn *next, void *arg)
{
    drop_cache(encoder);
    enum err err = encoder->family->refit(encoder, next, arg);
    if (err == OK)
        encoder->trained = true;
    return err;
}
