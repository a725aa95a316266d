/*
 * encoder_saved.c - the saved form of an encoder.
 *
 * Safetensors: safetensors. 8 bytes, little endian, the length of a JSON
 * header; the header: {"__metadata__": {"family", "config"}, name: {"dtype":
 * "F32", "shape": [...], "data_offsets": [begin, end]}, ...}; then the
 * tensors' bytes in the order of the family's list, with no gap; behind them
 * the asset where the family has one, of dtype "U8". Its name is also the
 * member of the settings that holds its SHA-256. An adapter is the last tensor
 * before the asset; no fingerprint has it, so its SHA-256 stands in the
 * metadata as "adapter" and is checked when it is read.
 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "model/adapter.h"

#define HEADER_MAX_BYTES ((size_t)1 << 20)
#define IO_BYTES (1u << 20)

static size_t
tensor_floats(const struct encoder_tensor *tensor)
{
    return tensor->dims[0] * (tensor->dims[1] > 0 ? tensor->dims[1] : 1);
}

/* The list of the tensors, on the heap; NULL: out of memory. */
static struct encoder_tensor *
list_tensors(const struct encoder *encoder, size_t *n)
{
    *n = encoder_tensors(encoder, NULL, 0);
    struct encoder_tensor *list = mem_alloc(*n, sizeof *list);
    if (list != NULL)
        (void)encoder_tensors(encoder, list, *n);
    return list;
}

/* SHA-256 of the adapter. */
static void
sum_adapter(const struct encoder *encoder, char hex[SHA256_HEX])
{
    uint8_t sum[SHA256_BYTES];
    sha256_of(encoder_adapter_const(encoder),
        encoder->n_adapter * sizeof(float), sum);
    sha256_hex(sum, hex);
}

/* The header, padded with spaces to a multiple of 8. */
static enum err
write_header(const struct encoder *encoder,
    const struct encoder_tensor *tensors, size_t n, struct buf *out)
{
    size_t at = 0;

    buf_add_str(out, "{\"__metadata__\":{\"family\":");
    buf_json_cstr(out, encoder->family->name);
    buf_add_str(out, ",\"config\":");
    buf_json_cstr(out, encoder->config_json);
    if (encoder->n_adapter > 0) {
        char hex[SHA256_HEX];
        sum_adapter(encoder, hex);
        buf_printf(out, ",\"adapter\":\"%s\"", hex);
    }
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
    if (encoder->asset != NULL) {
        buf_add_char(out, ',');
        buf_json_cstr(out, encoder->family->asset);
        buf_printf(out,
            ":{\"dtype\":\"U8\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}",
            encoder->asset->n, at, at + encoder->asset->n);
    }
    buf_add_char(out, '}');
    while (out->err == OK && out->len % 8 != 0)
        buf_add_char(out, ' ');
    return buf_status(out);
}

static uint64_t
asset_bytes(const struct encoder *encoder)
{
    return encoder->asset == NULL ? 0 : encoder->asset->n;
}

uint64_t
encoder_save_bytes(const struct encoder *encoder)
{
    struct encoder_tensor *tensors;
    struct buf header;
    uint64_t bytes = 0;
    size_t n;

    if (!encoder->trained)
        return 0;
    buf_init(&header, HEADER_MAX_BYTES);
    tensors = list_tensors(encoder, &n);
    if (tensors != NULL && write_header(encoder, tensors, n, &header) == OK)
        bytes = 8 + header.len +
                (encoder->n_params + encoder->n_adapter) * sizeof(float) +
                asset_bytes(encoder);
    buf_release(&header);
    mem_free(tensors);
    return bytes;
}

static enum err
write_bytes(encoder_write_fn *write, void *arg, const void *bytes, size_t n)
{
    const char *p = bytes;
    enum err err = OK;

    while (n > 0 && err == OK) {
        size_t step = MIN(n, (size_t)IO_BYTES);
        err = write(arg, p, step);
        p += step;
        n -= step;
    }
    return err;
}

enum err
encoder_save(const struct encoder *encoder, encoder_write_fn *write, void *arg)
{
    struct encoder_tensor *tensors;
    struct buf header;
    uint8_t length[8];
    size_t n;
    enum err err;

    if (!encoder->trained)
        return OK;
    buf_init(&header, HEADER_MAX_BYTES);
    tensors = list_tensors(encoder, &n);
    err = tensors == NULL ? ERR_NOMEM
                          : write_header(encoder, tensors, n, &header);
    for (size_t i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header.len >> (8 * i));
    if (err == OK)
        err = write(arg, length, sizeof length);
    if (err == OK)
        err = write(arg, header.data, header.len);
    for (size_t i = 0; i < n && err == OK; i++)
        err = write_bytes(write, arg, encoder->params + tensors[i].start,
            tensor_floats(&tensors[i]) * sizeof(float));
    if (err == OK && encoder->asset != NULL)
        err = write_bytes(write, arg, encoder->asset->bytes, encoder->asset->n);
    buf_release(&header);
    mem_free(tensors);
    return err;
}

/* Does the entry lie at these bytes? */
static enum err
check_offsets(const struct json *entry, const char *name, int64_t at,
    int64_t end, struct fault *fault)
{
    const struct json *offsets;

    if (json_get_array(
            entry, "", "data_offsets", JSON_REQUIRED, &offsets, NULL) != OK ||
        json_count(offsets) != 2 ||
        json_kind(json_item(offsets, 0)) != JSON_KIND_INT ||
        json_kind(json_item(offsets, 1)) != JSON_KIND_INT ||
        json_i64(json_item(offsets, 0)) != at ||
        json_i64(json_item(offsets, 1)) != end)
        return fault_set(fault, ERR_CORRUPT, "",
            "tensor \"%s\" does not lie at bytes %" PRId64 " to %" PRId64, name,
            at, end);
    return OK;
}

/* Does the header's entry describe this tensor at these offsets? */
static enum err
check_tensor(const struct json *header, const struct encoder_tensor *tensor,
    int64_t at, struct fault *fault)
{
    const struct json *entry = json_find(header, tensor->name);
    const struct json *shape;
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
    return check_offsets(entry, tensor->name, at, end, fault);
}

/* The asset's bytes: what lies behind the tensors. */
static enum err
check_asset(const struct json *header, const char *name, int64_t at,
    uint64_t n_data_bytes, size_t *n_asset, struct fault *fault)
{
    const struct json *entry = json_find(header, name), *shape;
    const char *dtype;

    if (entry == NULL || json_kind(entry) != JSON_KIND_OBJECT)
        return fault_set(
            fault, ERR_CORRUPT, "", "the weights lack the \"%s\"", name);
    if (json_get_str(entry, "", "dtype", JSON_REQUIRED, &dtype, NULL, NULL) !=
            OK ||
        strcmp(dtype, "U8") != 0)
        return fault_set(
            fault, ERR_CORRUPT, "", "the \"%s\" is not of type U8", name);
    if (n_data_bytes < (uint64_t)at ||
        n_data_bytes - (uint64_t)at > ENCODER_ASSET_MAX_BYTES)
        return fault_set(fault, ERR_CORRUPT, "",
            "the \"%s\" does not fit the weights", name);
    *n_asset = (size_t)(n_data_bytes - (uint64_t)at);
    if (json_get_array(entry, "", "shape", JSON_REQUIRED, &shape, NULL) != OK ||
        json_count(shape) != 1 ||
        json_kind(json_item(shape, 0)) != JSON_KIND_INT ||
        json_i64(json_item(shape, 0)) != (int64_t)*n_asset)
        return fault_set(fault, ERR_CORRUPT, "",
            "the \"%s\" does not have the shape [%zu]", name, *n_asset);
    return check_offsets(entry, name, at, (int64_t)n_data_bytes, fault);
}

/* What a header says of the bytes that follow, beside the tensors. */
struct announced {
    size_t n_asset;
    char adapter[SHA256_HEX]; /* "": nothing */
};

static void
read_sum(const struct json *header, char out[SHA256_HEX])
{
    const struct json *metadata;
    const char *hex;

    out[0] = '\0';
    if (json_get_object(
            header, "", "__metadata__", JSON_REQUIRED, &metadata, NULL) == OK &&
        json_get_str(
            metadata, "", "adapter", JSON_REQUIRED, &hex, NULL, NULL) == OK &&
        strlen(hex) == SHA256_HEX - 1)
        memcpy(out, hex, SHA256_HEX);
}

static enum err
check_header(const struct encoder *encoder,
    const struct encoder_tensor *tensors, size_t n, const char *text,
    size_t len, uint64_t n_data_bytes, struct announced *out,
    struct fault *fault)
{
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
    out->n_asset = 0;
    read_sum(header, out->adapter);
    if (encoder->family->asset != NULL) {
        n_extra++;
        if (err == OK)
            err = check_asset(header, encoder->family->asset, at, n_data_bytes,
                &out->n_asset, fault);
        at += (int64_t)out->n_asset;
    }
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

/* The asset, which must have the digest that the settings name. */
static enum err
read_asset(struct encoder *encoder, size_t n_asset, encoder_read_fn *read,
    void *arg, struct fault *fault)
{
    struct buf config;
    char *bytes;
    size_t left = n_asset;
    enum err err = encoder_asset_new(encoder, n_asset);

    if (err != OK)
        return err;
    bytes = encoder->asset->bytes;
    while (left > 0 && err == OK) {
        size_t step = MIN(left, (size_t)IO_BYTES);
        err = read(arg, bytes + (n_asset - left), step);
        left -= step;
    }
    if (err != OK)
        return err;
    buf_init(&config, ENCODER_CONFIG_MAX_BYTES);
    err = encoder_config_with_asset(encoder->config_json,
        encoder->family->asset, bytes, n_asset, &config, fault);
    buf_release(&config);
    if (err == ERR_INVALID)
        err = fault_set(fault, ERR_CORRUPT, "",
            "the \"%s\" is not the one that the settings name",
            encoder->family->asset);
    if (err == OK)
        err = encoder->family->take_asset(encoder, fault);
    return err;
}

static enum err
read_params(struct encoder *encoder, const struct encoder_tensor *tensors,
    size_t n, encoder_read_fn *read, void *arg, struct fault *fault)
{
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

static enum err
check_adapter(
    const struct encoder *encoder, const char *want, struct fault *fault)
{
    char hex[SHA256_HEX];

    if (encoder->n_adapter == 0)
        return OK;
    sum_adapter(encoder, hex);
    if (strcmp(hex, want) != 0)
        return fault_set(fault, ERR_CORRUPT, "",
            "the tensor \"%s\" does not have the SHA-256 of the header",
            ADAPTER_TENSOR);
    return OK;
}

enum err
encoder_load(struct encoder **out, const char *family, const char *config_json,
    encoder_read_fn *read, void *arg, uint64_t n_bytes, struct fault *fault)
{
    struct encoder *encoder = NULL;
    struct encoder_tensor *tensors = NULL;
    char *header = NULL;
    uint8_t length[8];
    uint64_t n_header = 0;
    struct announced announced = {.n_asset = 0};
    size_t n;
    enum err err;

    err =
        encoder_make(&encoder, family, config_json, n_bytes == 0, NULL, fault);
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
    tensors = list_tensors(encoder, &n);
    if (header == NULL || tensors == NULL) {
        err = ERR_NOMEM;
        goto out;
    }
    err = read(arg, header, n_header);
    if (err == OK)
        err = check_header(encoder, tensors, n, header, n_header,
            n_bytes - 8 - n_header, &announced, fault);
    if (err == OK)
        err = read_params(encoder, tensors, n, read, arg, fault);
    if (err == OK)
        err = check_adapter(encoder, announced.adapter, fault);
    if (err == OK && encoder->family->asset != NULL)
        err = read_asset(encoder, announced.n_asset, read, arg, fault);
    if (err == OK)
        encoder->trained = true;
out:
    mem_free(header);
    mem_free(tensors);
    if (err != OK)
        encoder_free(encoder);
    else
        *out = encoder;
    return err;
}
