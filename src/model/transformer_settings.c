/* The settings of a transformer, read and written. */
#include <string.h>
#include "base/check.h"
#include "model/transformer_encoder.h"

static const char *const positions_names[] = {"learned", "sinusoidal"};
static const char *const norm_names[] = {"post", "pre"};
static const char *const act_names[] = {"relu", "gelu", "gelu_tanh"};
static const char *const pooling_names[] = {"cls", "mean", "max"};
static const char *const compute_names[] = {"f32", "bf16", "int8"};

_Static_assert(
    TRANSFORMER_POSITIONS_LEARNED == 0 && TRANSFORMER_NORM_POST == 0 &&
        TOKENPOOL_CLS == 0 && TOKENPOOL_MEAN == 1 && TOKENPOOL_MAX == 2 &&
        TRANSFORMER_F32 == 0 && TRANSFORMER_BF16 == 1 &&
        TRANSFORMER_INT8 == 2 && KERN_ACT_GELU == KERN_ACT_RELU + 1 &&
        KERN_ACT_GELU_TANH == KERN_ACT_RELU + 2,
    "the names stand in the order of the values");

static enum err
read_name(const struct json *config, const char *key, const char *const *names,
    size_t n, uint32_t *value, struct fault *fault)
{
    const char *name = names[*value];
    char pointer[FAULT_POINTER_MAX];
    enum err err =
        json_get_str(config, "", key, JSON_OPTIONAL, &name, NULL, fault);

    if (err != OK)
        return err;
    for (*value = 0; *value < n; ++*value)
        if (strcmp(name, names[*value]) == 0)
            return OK;
    json_pointer(pointer, "", key);
    return fault_set(fault, ERR_INVALID, pointer,
        "\"%.40s\" is none of the %zu that %s may be, \"%s\" to \"%s\"", name,
        n, key, names[0], names[n - 1]);
}

/* The numbers of the settings, by name; the network's limits are checked by
   transformer_plan. */
struct number {
    const char *key;
    uint32_t *value; /* holds the default */
    enum json_need need;
};

static enum err
read_numbers(const struct json *config, struct transformer_config *c,
    uint32_t *max_tokens, struct fault *fault)
{
    const struct number numbers[] = {{"layers", &c->layers, JSON_REQUIRED},
        {"hidden", &c->hidden, JSON_REQUIRED},
        {"heads", &c->heads, JSON_REQUIRED}, {"ffn", &c->ffn, JSON_REQUIRED},
        {"vocab", &c->vocab, JSON_REQUIRED},
        {"max_positions", &c->max_positions, JSON_REQUIRED},
        {"embedding", &c->embedding, JSON_OPTIONAL},
        {"position_offset", &c->position_offset, JSON_OPTIONAL},
        {"token_types", &c->token_types, JSON_OPTIONAL},
        {"dense", &c->dense, JSON_OPTIONAL},
        {"max_tokens", max_tokens, JSON_OPTIONAL}};
    enum err err = OK;

    for (size_t i = 0; i < ARRAY_LEN(numbers) && err == OK; i++) {
        int64_t value = *numbers[i].value;
        err = json_get_i64(config, "", numbers[i].key, numbers[i].need, 0,
            UINT32_MAX, &value, fault);
        *numbers[i].value = (uint32_t)value;
    }
    return err;
}

static enum err
read_names(const struct json *config, struct transformer_config *c,
    enum transformer_compute *compute, struct fault *fault)
{
    uint32_t positions = 0, norm = 0, act = 1, pooling = TOKENPOOL_MEAN,
             way = 0;
    const struct {
        const char *key;
        const char *const *names;
        size_t n;
        uint32_t *value;
    } choices[] = {
        {"positions", positions_names, ARRAY_LEN(positions_names), &positions},
        {"norm", norm_names, ARRAY_LEN(norm_names), &norm},
        {"act", act_names, ARRAY_LEN(act_names), &act},
        {"pooling", pooling_names, ARRAY_LEN(pooling_names), &pooling},
        {"compute", compute_names, ARRAY_LEN(compute_names), &way}};
    enum err err = OK;

    for (size_t i = 0; i < ARRAY_LEN(choices) && err == OK; i++)
        err = read_name(config, choices[i].key, choices[i].names, choices[i].n,
            choices[i].value, fault);
    c->positions = (enum transformer_positions)positions;
    c->norm = (enum transformer_norm)norm;
    c->act = (enum kern_act)(KERN_ACT_RELU + act);
    c->pooling = (enum tokenpool)pooling;
    *compute = (enum transformer_compute)way;
    return err;
}

static enum err
read_rest(const struct json *config, struct transformer_config *c,
    struct fault *fault)
{
    const struct json_range range = {
        .min = -1e6, .max = 1e6, .fits_float = true};
    double scale = 1, eps = 1e-12;
    enum err err = json_get_f64(
        config, "", "embedding_scale", JSON_OPTIONAL, &range, &scale, fault);

    if (err == OK)
        err = json_get_f64(
            config, "", "norm_eps", JSON_OPTIONAL, &range, &eps, fault);
    if (err == OK)
        err = json_get_bool(config, "", "embedding_norm", JSON_OPTIONAL,
            &c->embedding_norm, fault);
    if (err == OK)
        err = json_get_bool(
            config, "", "dense_tanh", JSON_OPTIONAL, &c->dense_tanh, fault);
    if (err == OK)
        err = json_get_bool(
            config, "", "normalise", JSON_OPTIONAL, &c->normalise, fault);
    c->embedding_scale = (float)scale;
    c->norm_eps = (float)eps;
    return err;
}

static enum err
read_prefixes(const struct json *config, struct transformer_encoder *e,
    struct fault *fault)
{
    static const char *const keys[] = {"item_prefix", "query_prefix"};

    for (size_t side = 0; side < 2; side++) {
        const char *prefix = "";
        char pointer[FAULT_POINTER_MAX];
        size_t len = 0;
        enum err err = json_get_str(
            config, "", keys[side], JSON_OPTIONAL, &prefix, &len, fault);
        if (err != OK)
            return err;
        json_pointer(pointer, "", keys[side]);
        if (len > TRANSFORMER_PREFIX_MAX || strlen(prefix) != len)
            return fault_set(fault, ERR_INVALID, pointer,
                "a prefix has at most %d bytes, and no NUL",
                TRANSFORMER_PREFIX_MAX);
        memcpy(e->prefix[side], prefix, len);
        e->prefix_len[side] = len;
    }
    return OK;
}

static enum err
check_keys(const struct json *config, struct fault *fault)
{
    static const char *const keys[] = {"act", "compute", "dense", "dense_tanh",
        "dims", "embedding", "embedding_norm", "embedding_scale", "ffn",
        "heads", "hidden", "item_prefix", "layers", "max_positions",
        "max_tokens", "norm", "norm_eps", "normalise", "pooling",
        "position_offset", "positions", "query_prefix", "token_types",
        "tokenizer", "vocab"};
    const char *tokenizer;

    if (json_find(config, "tokenizer") == NULL)
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "a transformer comes with its tokenizer and its weights: import "
            "one");
    enum err err = json_get_str(
        config, "", "tokenizer", JSON_REQUIRED, &tokenizer, NULL, fault);
    if (err != OK)
        return err;
    return json_only_keys(config, "", keys, ARRAY_LEN(keys), fault);
}

enum err
transformer_settings_read(struct transformer_encoder *e,
    const struct json *config, struct fault *fault)
{
    struct transformer_config c = {
        .embedding_norm = true, .dense_tanh = true, .normalise = true};
    uint32_t max_tokens = 0;
    int64_t dims = 0;
    enum err err = check_keys(config, fault);

    if (err == OK)
        err = read_numbers(config, &c, &max_tokens, fault);
    if (err == OK)
        err = read_names(config, &c, &e->compute, fault);
    if (err == OK)
        err = read_rest(config, &c, fault);
    if (err == OK)
        err = read_prefixes(config, e, fault);
    if (err == OK)
        err = transformer_plan(&e->net, &c, fault);
    if (err == OK)
        err = json_get_i64(
            config, "", "dims", JSON_OPTIONAL, 0, UINT32_MAX, &dims, fault);
    if (err != OK)
        return err;
    if (json_find(config, "dims") != NULL && (size_t)dims != e->net.n_dims)
        return fault_set(fault, ERR_INVALID, "/dims",
            "the vectors have %zu dims, not %lld", e->net.n_dims,
            (long long)dims);
    if (max_tokens > e->net.max_tokens ||
        (max_tokens == 0 && json_find(config, "max_tokens") != NULL))
        return fault_set(fault, ERR_INVALID, "/max_tokens",
            "max_tokens is %u, not within 1 and %zu", (unsigned)max_tokens,
            e->net.max_tokens);
    e->base.n_dims = e->net.n_dims;
    e->base.max_tokens = max_tokens == 0 ? e->net.max_tokens : max_tokens;
    e->base.n_params = e->net.n_params;
    return OK;
}

static const char *
truth(bool value)
{
    return value ? "true" : "false";
}

void
transformer_settings_write(const struct transformer_encoder *e,
    const struct json *config, struct buf *out)
{
    const struct transformer_config *c = &e->net.config;

    buf_printf(out,
        "{\"act\":\"%s\",\"compute\":\"%s\",\"dense\":%u,\"dense_tanh\":%s,"
        "\"dims\":%zu,\"embedding\":%zu,\"embedding_norm\":%s,"
        "\"embedding_scale\":",
        act_names[c->act - KERN_ACT_RELU], compute_names[e->compute],
        (unsigned)c->dense, truth(c->dense_tanh), e->net.n_dims,
        e->net.embedding, truth(c->embedding_norm));
    buf_json_float(out, c->embedding_scale);
    buf_printf(out, ",\"ffn\":%u,\"heads\":%u,\"hidden\":%u,\"item_prefix\":",
        (unsigned)c->ffn, (unsigned)c->heads, (unsigned)c->hidden);
    buf_json_string(out, e->prefix[0], e->prefix_len[0]);
    buf_printf(out,
        ",\"layers\":%u,\"max_positions\":%u,\"max_tokens\":%zu,"
        "\"norm\":\"%s\",\"norm_eps\":",
        (unsigned)c->layers, (unsigned)c->max_positions, e->base.max_tokens,
        norm_names[c->norm]);
    buf_json_float(out, c->norm_eps);
    buf_printf(out,
        ",\"normalise\":%s,\"pooling\":\"%s\",\"position_offset\":%u,"
        "\"positions\":\"%s\",\"query_prefix\":",
        truth(c->normalise), pooling_names[c->pooling],
        (unsigned)c->position_offset, positions_names[c->positions]);
    buf_json_string(out, e->prefix[1], e->prefix_len[1]);
    buf_printf(
        out, ",\"token_types\":%u,\"tokenizer\":", (unsigned)c->token_types);
    buf_json_cstr(out, json_str(json_find(config, "tokenizer"), NULL));
    buf_printf(out, ",\"vocab\":%u}", (unsigned)c->vocab);
}
