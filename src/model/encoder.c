/*
 * encoder.c - what all families share: configuration, the asset, the flat
 * parameters, the fingerprint, gradients.
 */
#include "model/encoder.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "model/adapter.h"

static const struct encoder_family *const families[] = {&static_encoder_family,
    &vision_encoder_family, &transformer_encoder_family};

static const struct encoder_family *
find_family(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (strcmp(families[i]->name, name) == 0)
            return families[i];
    }
    return NULL;
}

/* The members but one, each with a comma behind it. */
static void
add_others(const struct json *tree, const char *but, struct buf *out)
{
    for (void *it = json_first(tree); it != NULL; it = json_next(tree, it)) {
        if (strcmp(json_it_key(it), but) == 0)
            continue;
        buf_json_cstr(out, json_it_key(it));
        buf_add_char(out, ':');
        json_dump(json_it_value(it), out);
        buf_add_char(out, ',');
    }
}

/* Settings as text, with or without an adapter: the last of the members. */
#define WITH_ADAPTER ",\"adapter\":true}"

static void
close_config(struct buf *config, bool adapter)
{
    config->len--;
    buf_add_str(config, adapter ? WITH_ADAPTER : "}");
}

/* How many of its bytes stand before what closes it. */
static size_t
config_body(const struct encoder *encoder)
{
    size_t tail = encoder->n_adapter > 0 && encoder->n_params > 0
                      ? sizeof WITH_ADAPTER - 1
                      : 1;
    return strlen(encoder->config_json) - tail;
}

/* What no family knows of: the tree without it. */
static enum err
take_adapter(struct json **tree, bool fill, bool *adapter, struct fault *fault)
{
    struct json *rest = NULL;
    struct buf others;
    enum err err =
        json_get_bool(*tree, "", "adapter", JSON_OPTIONAL, adapter, fault);

    if (err != OK || json_find(*tree, "adapter") == NULL)
        return err;
    if (*adapter && fill)
        return fault_set(fault, ERR_INVALID, "/adapter",
            "an adapter comes with its weights: a round of training with "
            "\"update\": \"adapter\" makes one");
    buf_init(&others, ENCODER_CONFIG_MAX_BYTES);
    buf_add_char(&others, '{');
    add_others(*tree, "adapter", &others);
    if (others.len > 1)
        others.len--;
    buf_add_char(&others, '}');
    err = buf_status(&others);
    if (err == OK)
        err = json_parse(
            others.data, others.len, ENCODER_CONFIG_MAX_BYTES, &rest, fault);
    if (err == OK) {
        json_free(*tree);
        *tree = rest;
    }
    buf_release(&others);
    return err;
}

/* Room behind the family's parameters, for the identity or what will be read.
 */
static enum err
add_adapter(struct encoder *encoder)
{
    size_t D = encoder->n_dims, n = encoder->n_params;
    float *params = mem_alloc_aligned(n + D * D, sizeof *params);

    if (params == NULL)
        return ERR_NOMEM;
    memcpy(params, encoder->params, n * sizeof *params);
    adapter_identity(params + n, D);
    mem_free(encoder->params);
    encoder->params = params;
    encoder->n_adapter = D * D;
    return OK;
}

enum err
encoder_make(struct encoder **out, const char *family, const char *config_json,
    bool fill, struct buf *config, struct fault *fault)
{
    const struct encoder_family *f = find_family(family);
    struct json *tree = NULL;
    struct encoder *encoder = NULL;
    struct buf canonical;
    bool adapter = false;
    size_t len;
    enum err err;

    if (f == NULL)
        return fault_set(fault, ERR_UNSUPPORTED, "/family",
            "there is no encoder family \"%.40s\" in this version; there are "
            "\"static\" and \"transformer\" for texts and \"vision\" for "
            "pictures",
            family);
    buf_init(&canonical, ENCODER_CONFIG_MAX_BYTES);
    err = json_parse(config_json, strlen(config_json), ENCODER_CONFIG_MAX_BYTES,
        &tree, fault);
    if (err == OK && json_kind(tree) != JSON_KIND_OBJECT)
        err = fault_set(
            fault, ERR_INVALID, "", "an encoder's settings are a JSON object");
    if (err == OK)
        err = take_adapter(&tree, fill, &adapter, fault);
    if (err == OK)
        err = f->make(&encoder, tree, fill, &canonical, fault);
    if (err == OK && adapter) {
        close_config(&canonical, true);
        err = add_adapter(encoder);
    }
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

/* ---------------------------------------------------------------- asset */

static void
asset_unref(struct encoder_asset *asset)
{
    if (asset == NULL || atomic_fetch_sub(&asset->refs, 1) != 1)
        return;
    if (asset->made != NULL)
        asset->free_made(asset->made);
    mem_free(asset->bytes);
    mem_free(asset);
}

/* Room for an asset of n bytes, which the caller fills and then has taken. */
enum err
encoder_asset_new(struct encoder *encoder, size_t n)
{
    struct encoder_asset *asset = mem_calloc(1, sizeof *asset);
    if (asset == NULL)
        return ERR_NOMEM;
    atomic_init(&asset->refs, 1);
    encoder->asset = asset;
    asset->n = n;
    asset->bytes = mem_alloc(n + 1, 1);
    if (asset->bytes == NULL)
        return ERR_NOMEM;
    asset->bytes[n] = '\0';
    return OK;
}

/* The settings with the asset's digest in them. */
enum err
encoder_config_with_asset(const char *config_json, const char *member,
    const void *asset, size_t n_asset, struct buf *out, struct fault *fault)
{
    struct json *tree = NULL;
    const char *given = NULL;
    char pointer[FAULT_POINTER_MAX];
    char hex[SHA256_HEX];
    uint8_t digest[SHA256_BYTES];
    enum err err = json_parse(config_json, strlen(config_json),
        ENCODER_CONFIG_MAX_BYTES, &tree, fault);

    sha256_of(asset, n_asset, digest);
    sha256_hex(digest, hex);
    json_pointer(pointer, "", member);
    if (err == OK)
        err =
            json_get_str(tree, "", member, JSON_OPTIONAL, &given, NULL, fault);
    if (err == OK && given != NULL && strcmp(given, hex) != 0)
        err = fault_set(fault, ERR_INVALID, pointer,
            "the %s has another SHA-256 than the settings say", member);
    if (err == OK) {
        buf_add_char(out, '{');
        add_others(tree, member, out);
        buf_json_cstr(out, member);
        buf_printf(out, ":\"%s\"}", hex);
        err = buf_status(out);
    }
    json_free(tree);
    return err;
}

enum err
encoder_build(struct encoder **out, const char *family, const char *config_json,
    const void *asset, size_t n_asset, struct fault *fault)
{
    const struct encoder_family *f = find_family(family);
    struct encoder *encoder = NULL;
    struct buf config;
    enum err err = OK;

    if (f == NULL || f->asset == NULL)
        return fault_set(fault, ERR_UNSUPPORTED, "/family",
            "no encoder of family \"%.40s\" is made of parts", family);
    if (n_asset > ENCODER_ASSET_MAX_BYTES)
        return fault_set(fault, ERR_TOO_LARGE, "",
            "the %s has %zu bytes, at most %zu", f->asset, n_asset,
            ENCODER_ASSET_MAX_BYTES);
    buf_init(&config, ENCODER_CONFIG_MAX_BYTES);
    err = encoder_config_with_asset(
        config_json, f->asset, asset, n_asset, &config, fault);
    if (err == OK)
        err = encoder_make(&encoder, family, config.data, false, NULL, fault);
    if (err == OK)
        err = encoder_asset_new(encoder, n_asset);
    if (err == OK) {
        memcpy(encoder->asset->bytes, asset, n_asset);
        err = f->take_asset(encoder, fault);
    }
    if (err == OK) {
        encoder->trained = true;
        encoder->unsealed = true;
        *out = encoder;
    } else {
        encoder_free(encoder);
    }
    buf_release(&config);
    return err;
}

const void *
encoder_asset(const struct encoder *encoder, size_t *n)
{
    *n = encoder->asset == NULL ? 0 : encoder->asset->n;
    return encoder->asset == NULL ? NULL : encoder->asset->bytes;
}

/* ----------------------------------------------------------------- life */

enum err
encoder_new(struct encoder **out, const char *family, const char *config_json,
    struct buf *config, struct fault *fault)
{
    return encoder_make(out, family, config_json, true, config, fault);
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
    asset_unref(encoder->asset);
    mem_free(encoder->cache);
    mem_free(encoder->params);
    mem_free(encoder->config_json);
    mem_free(encoder);
}

/* A copy of the family's parameters and, where it is asked for, of the adapter.
 */
static enum err
copy_encoder(struct encoder **out, const struct encoder *encoder, bool adapter)
{
    size_t n = encoder->n_params + (adapter ? encoder->n_adapter : 0);
    struct encoder *copy = mem_alloc(1, encoder->struct_bytes);
    struct buf config;
    size_t len;

    if (copy == NULL)
        return ERR_NOMEM;
    memcpy(copy, encoder, encoder->struct_bytes);
    buf_init(&config, ENCODER_CONFIG_MAX_BYTES);
    if (adapter || encoder->n_adapter == 0) {
        buf_add_str(&config, encoder->config_json);
    } else {
        buf_add(&config, encoder->config_json, config_body(encoder) + 1);
        close_config(&config, false);
    }
    copy->n_adapter = adapter ? encoder->n_adapter : 0;
    copy->cache = mem_calloc(1, sizeof *copy->cache);
    copy->params = mem_alloc_aligned(n, sizeof(float));
    copy->config_json =
        buf_status(&config) == OK ? buf_take(&config, &len) : NULL;
    buf_release(&config);
    if (copy->asset != NULL)
        atomic_fetch_add(&copy->asset->refs, 1);
    if (copy->cache == NULL || copy->params == NULL ||
        copy->config_json == NULL) {
        encoder_free(copy);
        return ERR_NOMEM;
    }
    memcpy(copy->params, encoder->params, n * sizeof *encoder->params);
    *out = copy;
    return OK;
}

enum err
encoder_clone(struct encoder **out, const struct encoder *encoder)
{
    return copy_encoder(out, encoder, true);
}

enum err
encoder_with_adapter(struct encoder **out, const struct encoder *encoder)
{
    struct encoder *copy = NULL;
    struct buf config;
    size_t len;
    enum err err = copy_encoder(&copy, encoder, true);

    if (err != OK || copy->n_adapter > 0) {
        *out = err == OK ? copy : *out;
        return err;
    }
    buf_init(&config, ENCODER_CONFIG_MAX_BYTES);
    buf_add_str(&config, copy->config_json);
    close_config(&config, true);
    err = buf_status(&config);
    if (err == OK)
        err = add_adapter(copy);
    if (err == OK) {
        mem_free(copy->config_json);
        copy->config_json = buf_take(&config, &len);
        copy->trained = true; /* it has weights to save */
        *out = copy;
    } else {
        encoder_free(copy);
    }
    buf_release(&config);
    return err;
}

/* Does it have just the parameters that its settings give? */
static enum err
is_as_made(const struct encoder *encoder, bool *out)
{
    struct encoder *fresh = NULL;
    enum err err = encoder_new(
        &fresh, encoder->family->name, encoder->config_json, NULL, NULL);

    if (err == ERR_UNSUPPORTED) /* its weights are a publisher's */
        err = OK;
    if (err == OK)
        *out = fresh != NULL && memcmp(fresh->params, encoder->params,
                                    fresh->n_params * sizeof(float)) == 0;
    encoder_free(fresh);
    return err;
}

enum err
encoder_without_adapter(struct encoder **out, const struct encoder *encoder)
{
    struct encoder *copy = NULL;
    bool as_made = false;
    enum err err = copy_encoder(&copy, encoder, false);

    if (err == OK)
        err = is_as_made(copy, &as_made);
    if (err != OK) {
        encoder_free(copy);
        return err;
    }
    copy->trained = !as_made;
    *out = copy;
    return OK;
}

float *
encoder_adapter(struct encoder *encoder)
{
    return encoder->n_adapter > 0 ? encoder->params + encoder->n_params : NULL;
}

const float *
encoder_adapter_const(const struct encoder *encoder)
{
    return encoder->n_adapter > 0 ? encoder->params + encoder->n_params : NULL;
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
    size_t bytes = encoder->struct_bytes +
                   (encoder->n_params + encoder->n_adapter) * sizeof(float);

    if (encoder->cache != NULL && atomic_load(encoder->cache) != NULL)
        bytes += encoder->family->cache_bytes(encoder);
    return bytes;
}

enum err
encoder_encode_plain(const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info, struct pool *pool)
{
    size_t D = encoder->n_dims;

    if (n == 0 || inputs[0].vector == NULL)
        return encoder->family->encode(encoder, inputs, n, out, info, pool);
    for (size_t i = 0; i < n; i++) {
        memcpy(out + i * D, inputs[i].vector, D * sizeof *out);
        if (info != NULL)
            info[i] = (struct encoder_info){.empty = false};
    }
    return OK;
}

enum err
encoder_encode(const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info, struct pool *pool)
{
    const float *A = encoder_adapter_const(encoder);
    enum err err = encoder_encode_plain(encoder, inputs, n, out, info, pool);

    if (err == OK && A != NULL)
        err = adapter_map(A, encoder->n_dims, inputs, n, out, pool);
    return err;
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
    *n_params = encoder->n_params + encoder->n_adapter;
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
    *n_params = encoder->n_params + encoder->n_adapter;
    return encoder->params;
}

size_t
encoder_tensors(
    const struct encoder *encoder, struct encoder_tensor *out, size_t max)
{
    size_t n = encoder->family->tensors(encoder, out, max), D = encoder->n_dims;

    if (encoder->n_adapter == 0)
        return n;
    if (out != NULL && n < max)
        out[n] = (struct encoder_tensor){
            .name = ADAPTER_TENSOR, .start = encoder->n_params, .dims = {D, D}};
    return n + 1;
}

void
encoder_fingerprint(const struct encoder *encoder, uint8_t out[SHA256_BYTES])
{
    static const char head[] = "kindred encoder 1";
    struct sha256 ctx;

    sha256_start(&ctx);
    sha256_add(&ctx, head, sizeof head);
    sha256_add(&ctx, encoder->family->name, strlen(encoder->family->name) + 1);
    sha256_add(&ctx, encoder->config_json, config_body(encoder));
    sha256_add(&ctx, "}", sizeof "}");
    sha256_add(
        &ctx, encoder->params, encoder->n_params * sizeof *encoder->params);
    sha256_finish(&ctx, out);
}

/* ------------------------------------------------------------ training */

size_t
encoder_n_parts(const struct encoder *encoder)
{
    const struct encoder_family *family = encoder->family;
    return family->n_parts == NULL ? 0 : family->n_parts(encoder);
}

void
encoder_freeze(struct encoder *encoder, size_t n_last)
{
    size_t n = encoder_n_parts(encoder);
    encoder->n_frozen = n_last < n ? n - n_last : 0;
}

enum err
encoder_tape_new(struct encoder_tape **out, const struct encoder *encoder)
{
    return encoder->n_adapter > 0 ? adapter_tape_new(out)
                                  : encoder->family->tape_new(out, encoder);
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
encoder_tape_input_bytes(
    const struct encoder *encoder, const struct encoder_input *input)
{
    const struct encoder_family *family = encoder->family;
    return family->tape_input_bytes == NULL || encoder->n_adapter > 0
               ? 0
               : family->tape_input_bytes(encoder, input);
}

enum err
encoder_forward(const struct encoder *encoder, struct encoder_tape *tape,
    const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool)
{
    if (encoder->n_adapter > 0)
        return adapter_forward(encoder, tape, inputs, n, out, pool);
    return encoder->family->forward(encoder, tape, inputs, n, noise, out, pool);
}

enum err
encoder_backward(const struct encoder *encoder, struct encoder_tape *tape,
    const float *d_out, struct encoder_grads *grads, struct pool *pool)
{
    if (encoder->n_adapter > 0)
        return adapter_backward(encoder, tape, d_out, grads, pool);
    return encoder->family->backward(encoder, tape, d_out, grads, pool);
}

enum err
encoder_grads_new(struct encoder_grads **out, const struct encoder *encoder)
{
    struct encoder_grads *grads = mem_calloc(1, sizeof *grads);
    size_t n = encoder->n_params + encoder->n_adapter;
    if (grads == NULL)
        return ERR_NOMEM;
    grads->n_marks = encoder->family->n_marks(encoder);
    grads->marks = mem_calloc(grads->n_marks, 1);
    grads->segments = mem_alloc(
        encoder->family->n_segments_max(encoder), sizeof *grads->segments);
    grads->d_params = mem_alloc_aligned(n, sizeof(float));
    if (grads->marks == NULL || grads->segments == NULL ||
        grads->d_params == NULL) {
        encoder_grads_free(grads);
        return ERR_NOMEM;
    }
    memset(grads->d_params, 0, n * sizeof(float));
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
