/*
 * published_config.c - modules.json and the configurations: which network a
 * folder has, as the settings of the family "transformer".
 */
#include "model/published_parts.h"

#include <string.h>

#include "model/transformer.h"

#define ROBERTA_PAD 1 /* pad_token_id where it is not said */

#define BERT_NAMES                                                             \
    "num_hidden_layers", "hidden_size", "num_attention_heads",                 \
        "intermediate_size", "hidden_act", "type_vocab_size", "layer_norm_eps"

const struct published_type published_types[PUBLISHED_TYPES] = {
    {"bert", "BertModel", BERT_NAMES, false},
    {"roberta", "RobertaModel", BERT_NAMES, true},
    {"xlm-roberta", "XLMRobertaModel", BERT_NAMES, true},
    {"distilbert", "DistilBertModel", "n_layers", "dim", "n_heads",
        "hidden_dim", "activation", NULL, NULL, false},
};

bool
published_is_distilbert(const struct published_type *type)
{
    return type != NULL && type->token_types == NULL;
}

/* ------------------------------------------------------------- modules.json */

/* A path stays inside: relative, without "..". */
static enum err
check_path(const char *path, const char *at, struct fault *fault)
{
    const char *part = path;

    if (path[0] == '/')
        return fault_set(
            fault, ERR_INVALID, at, "an absolute path: %.64s", path);
    if (strlen(path) >= PUBLISHED_PATH_MAX)
        return fault_set(
            fault, ERR_INVALID, at, "a path of %zu bytes", strlen(path));
    for (; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == 0))
            return fault_set(fault, ERR_INVALID, at,
                "a path that leaves the folder: %.64s", path);
    }
    return OK;
}

/* A pooling's constant name; NULL: not known here. */
static const char *
pooling_named(const char *name)
{
    static const char *const known[] = {"mean", "cls", "max"};

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(name, known[i]) == 0)
            return known[i];
    }
    return NULL;
}

/* "pooling_mode_mean_tokens": the mode that the key switches on. */
static const char *
pooling_switched(const char *key)
{
    static const struct {
        const char *key, *mode;
    } known[] = {{"pooling_mode_cls_token", "cls"},
        {"pooling_mode_mean_tokens", "mean"},
        {"pooling_mode_max_tokens", "max"}};

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(key, known[i].key) == 0)
            return known[i].mode;
    }
    return NULL;
}

static enum err
read_pooling_mode(
    struct published_modules *m, const struct json *config, struct fault *fault)
{
    const struct json *name = json_find(config, "pooling_mode");

    if (name != NULL) {
        if (json_kind(name) != JSON_KIND_STRING ||
            pooling_named(json_str(name, NULL)) == NULL)
            return fault_set(fault, ERR_UNSUPPORTED, "/pooling_mode",
                "the pooling \"%.64s\"; cls, mean and max are known",
                json_kind(name) == JSON_KIND_STRING ? json_str(name, NULL)
                                                    : "no text");
        m->pooling = pooling_named(json_str(name, NULL));
        return OK;
    }
    for (void *it = json_first(config); it != NULL;
         it = json_next(config, it)) {
        const char *key = json_it_key(it);
        const struct json *value = json_it_value(it);
        if (strncmp(key, "pooling_mode_", 13) != 0 ||
            json_kind(value) != JSON_KIND_BOOL || !json_bool(value))
            continue;
        if (pooling_switched(key) == NULL)
            return fault_set(fault, ERR_UNSUPPORTED, "",
                "%.64s; cls, mean and max are known", key);
        if (m->pooling != NULL)
            return fault_set(fault, ERR_UNSUPPORTED, "",
                "several poolings at once: %s and %s", m->pooling,
                pooling_switched(key));
        m->pooling = pooling_switched(key);
    }
    if (m->pooling == NULL)
        return fault_set(fault, ERR_INVALID, "", "no pooling is switched on");
    return OK;
}

static enum err
read_pooling(
    struct published_modules *m, const struct json *config, struct fault *fault)
{
    enum err err = read_pooling_mode(m, config, fault);

    m->include_prompt = true;
    if (err == OK)
        err = json_get_bool(config, "", "include_prompt", JSON_OPTIONAL,
            &m->include_prompt, fault);
    return err;
}

static enum err
read_dense(
    struct published_modules *m, const struct json *config, struct fault *fault)
{
    const char *act = "Tanh", *last;
    enum err err = json_get_i64(config, "", "in_features", JSON_REQUIRED, 1,
        TRANSFORMER_WIDTH_MAX, &m->dense_in, fault);

    if (err == OK)
        err = json_get_i64(config, "", "out_features", JSON_REQUIRED, 1,
            TRANSFORMER_WIDTH_MAX, &m->dense_out, fault);
    m->dense_bias = true;
    if (err == OK)
        err = json_get_bool(
            config, "", "bias", JSON_OPTIONAL, &m->dense_bias, fault);
    if (err == OK)
        err = json_get_str(config, "", "activation_function", JSON_OPTIONAL,
            &act, NULL, fault);
    if (err != OK)
        return err;
    last = strrchr(act, '.') == NULL ? act : strrchr(act, '.') + 1;
    m->dense_tanh = strcmp(last, "Tanh") == 0;
    if (!m->dense_tanh && strcmp(last, "Identity") != 0)
        return fault_set(fault, ERR_UNSUPPORTED, "/activation_function",
            "the activation \"%.64s\"; Tanh and Identity are known", act);
    m->has_dense = true;
    return OK;
}

/* The modules in the only order that is known, and what reads their
   config.json. */
enum stage {
    STAGE_NONE,
    STAGE_TRANSFORMER,
    STAGE_POOLING,
    STAGE_DENSE,
    STAGE_NORMALIZE
};
static const struct {
    const char *type;
    enum err (*read)(struct published_modules *m, const struct json *config,
        struct fault *fault);
} stages[] = {[STAGE_NONE] = {"nothing", NULL},
    [STAGE_TRANSFORMER] = {"Transformer", NULL},
    [STAGE_POOLING] = {"Pooling", read_pooling},
    [STAGE_DENSE] = {"Dense", read_dense},
    [STAGE_NORMALIZE] = {"Normalize", NULL}};

/* The stage of sentence_transformers.(...).TYPE. */
static enum err
find_stage(enum stage *out, const char *type, struct fault *fault)
{
    const char *last = strrchr(type, '.');

    for (size_t i = 1; i < ARRAY_LEN(stages); i++) {
        if (last != NULL && strcmp(last + 1, stages[i].type) == 0 &&
            strncmp(type, "sentence_transformers.", 22) == 0) {
            *out = (enum stage)i;
            return OK;
        }
    }
    return fault_set(fault, ERR_UNSUPPORTED, "/type",
        "the module \"%.128s\"; Transformer, Pooling, Dense and Normalize are "
        "known",
        type);
}

static enum err
read_module(struct published_modules *m, const struct json *entry,
    enum stage *at, const struct published_source *from, struct fault *fault)
{
    const char *type, *path = "";
    struct json *config = NULL;
    enum stage stage = STAGE_NONE;
    enum err err =
        json_get_str(entry, "", "type", JSON_REQUIRED, &type, NULL, fault);

    if (err == OK)
        err =
            json_get_str(entry, "", "path", JSON_OPTIONAL, &path, NULL, fault);
    if (err == OK)
        err = check_path(path, "/path", fault);
    if (err == OK)
        err = find_stage(&stage, type, fault);
    if (err == OK && (stage <= *at || (*at == STAGE_NONE && stage != 1) ||
                         (*at == STAGE_TRANSFORMER && stage != STAGE_POOLING)))
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "%s behind %s; known is Transformer, Pooling, and then Dense and "
            "Normalize or one of them or none",
            stages[stage].type, stages[*at].type);
    if (err != OK)
        return published_blame(err, "modules.json", fault);
    *at = stage;
    if (stage == STAGE_TRANSFORMER)
        memcpy(m->transformer, path, strlen(path) + 1);
    if (stage == STAGE_DENSE)
        memcpy(m->dense, path, strlen(path) + 1);
    m->normalise = m->normalise || stage == STAGE_NORMALIZE;
    if (stages[stage].read == NULL)
        return OK;
    err = published_json(
        &config, from, path, "config.json", JSON_REQUIRED, fault);
    if (err == OK) {
        char file[PUBLISHED_PATH_MAX];
        err = published_path(file, path, "config.json", fault);
        if (err == OK)
            err = published_blame(
                stages[stage].read(m, config, fault), file, fault);
    }
    json_free(config);
    return err;
}

static enum err
read_modules(struct published_modules *m, const struct published_source *from,
    struct fault *fault)
{
    struct buf file;
    struct json *list = NULL;
    enum stage at = STAGE_NONE;
    enum err err;

    buf_init(&file, PUBLISHED_FILE_MAX);
    err = from->read(from->arg, "modules.json", &file, fault);
    m->listed = err == OK;
    if (err == OK)
        err = json_parse(file.len == 0 ? "" : file.data, file.len,
            PUBLISHED_FILE_MAX, &list, fault);
    buf_release(&file);
    if (err == ERR_NOT_FOUND) {
        m->pooling = "mean";
        m->include_prompt = m->normalise = true;
        return OK;
    }
    if (err == OK && json_kind(list) != JSON_KIND_ARRAY)
        err = fault_set(fault, ERR_INVALID, "", "not a list of modules");
    if (err == OK && json_count(list) > PUBLISHED_MODULES_MAX)
        err = fault_set(fault, ERR_TOO_LARGE, "", "%zu modules, at most %d",
            json_count(list), PUBLISHED_MODULES_MAX);
    err = published_blame(err, "modules.json", fault);
    for (size_t i = 0; err == OK && i < json_count(list); i++)
        err = read_module(m, json_item(list, i), &at, from, fault);
    if (err == OK && at < STAGE_POOLING)
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "modules.json: no Transformer with a Pooling");
    json_free(list);
    return err;
}

/* -------------------------------------------------------------- config.json */

/* Members that change what the network computes and are not known here. */
static enum err
refuse_unknown(const struct json *config, struct fault *fault)
{
    static const char *const flags[] = {"is_decoder", "add_cross_attention"};
    static const char *const objects[] = {
        "auto_map", "quantization_config", "pruned_heads"};
    const char *positions = "absolute";
    enum err err = json_get_str(config, "", "position_embedding_type",
        JSON_OPTIONAL, &positions, NULL, fault);

    if (err == OK && strcmp(positions, "absolute") != 0)
        err = fault_set(fault, ERR_UNSUPPORTED, "/position_embedding_type",
            "positions \"%.64s\"; \"absolute\" ones are known", positions);
    for (size_t i = 0; err == OK && i < ARRAY_LEN(flags); i++) {
        bool on = false;
        err = json_get_bool(config, "", flags[i], JSON_OPTIONAL, &on, fault);
        if (err == OK && on)
            err = fault_set(
                fault, ERR_UNSUPPORTED, "", "%s is not known here", flags[i]);
    }
    for (size_t i = 0; err == OK && i < ARRAY_LEN(objects); i++) {
        if (json_count(json_find(config, objects[i])) > 0)
            err = fault_set(
                fault, ERR_UNSUPPORTED, "", "%s is not known here", objects[i]);
    }
    return err;
}

/* The family's name of an activation. */
static enum err
read_act(const struct json *config, const struct published_type *type,
    const char **out, struct fault *fault)
{
    static const struct {
        const char *theirs, *ours;
    } known[] = {{"gelu", "gelu"}, {"gelu_new", "gelu_tanh"},
        {"gelu_pytorch_tanh", "gelu_tanh"}, {"relu", "relu"}};
    const char *name = "gelu";
    enum err err =
        json_get_str(config, "", type->act, JSON_OPTIONAL, &name, NULL, fault);

    if (err != OK)
        return err;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(name, known[i].theirs) == 0) {
            *out = known[i].ours;
            return OK;
        }
    }
    return fault_set(fault, ERR_UNSUPPORTED, "",
        "%s \"%.64s\"; gelu, gelu_new, gelu_pytorch_tanh and relu are known",
        type->act, name);
}

/* What a config.json of a published type says. */
struct network {
    int64_t layers, hidden, heads, ffn, vocab, positions, offset, token_types;
    double norm_eps;
    const char *act, *compute;
};

static enum err
read_network(struct network *net, const struct json *config,
    const struct published_type *type, struct fault *fault)
{
    const struct {
        const char *key;
        int64_t min, max, *to;
    } sizes[] = {
        {type->layers, 1, TRANSFORMER_LAYERS_MAX, &net->layers},
        {type->hidden, 1, TRANSFORMER_WIDTH_MAX, &net->hidden},
        {type->heads, 1, TRANSFORMER_WIDTH_MAX, &net->heads},
        {type->ffn, 1, TRANSFORMER_FFN_MAX, &net->ffn},
        {"vocab_size", 1, TRANSFORMER_VOCAB_MAX, &net->vocab},
        {"max_position_embeddings", 1, TRANSFORMER_POSITIONS_MAX,
            &net->positions},
    };
    const struct json_range eps = {.min = 0, .max = 1, .fits_float = true};
    int64_t pad = ROBERTA_PAD;
    enum err err = refuse_unknown(config, fault);

    *net =
        (struct network){.token_types = 2, .norm_eps = 1e-12, .compute = "f32"};
    for (size_t i = 0; err == OK && i < ARRAY_LEN(sizes); i++)
        err = json_get_i64(config, "", sizes[i].key, JSON_REQUIRED,
            sizes[i].min, sizes[i].max, sizes[i].to, fault);
    if (err == OK)
        err = read_act(config, type, &net->act, fault);
    if (err == OK && type->token_types == NULL)
        net->token_types = 0;
    else if (err == OK)
        err = json_get_i64(config, "", type->token_types, JSON_OPTIONAL, 1,
            TRANSFORMER_TYPES_MAX, &net->token_types, fault);
    if (err == OK && type->norm_eps != NULL)
        err = json_get_f64(config, "", type->norm_eps, JSON_OPTIONAL, &eps,
            &net->norm_eps, fault);
    if (err == OK && type->offset)
        err = json_get_i64(config, "", "pad_token_id", JSON_OPTIONAL, 0,
            TRANSFORMER_POSITIONS_MAX, &pad, fault);
    net->offset = type->offset ? pad + 1 : 0;
    if (err == OK && net->offset >= net->positions)
        err = fault_set(fault, ERR_INVALID, "/max_position_embeddings",
            "%lld positions, and the first token has that of number %lld",
            (long long)net->positions, (long long)net->offset);
    if (err == OK)
        err = json_get_str(config, "", "kindred_compute", JSON_OPTIONAL,
            &net->compute, NULL, fault);
    return err;
}

/* ------------------------------------------------- lengths and prompts */

/* A folder says how long texts are in one of these. */
static const char *const length_files[] = {"sentence_bert_config.json",
    "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_xlm-roberta_config.json"};

/* *max_tokens becomes at most the length that the folder says. */
static enum err
read_length(struct published_plan *plan, const struct published_source *from,
    int64_t *max_tokens, struct fault *fault)
{
    const char *folder = plan->modules.transformer, *key = "max_seq_length";
    const char *name = "tokenizer_config.json";
    struct json *config = NULL;
    int64_t n = INT64_MAX;
    enum err err = OK;

    for (size_t i = 0;
         err == OK && config == NULL && i < ARRAY_LEN(length_files); i++) {
        name = length_files[i];
        err = published_json(&config, from, folder, name, JSON_OPTIONAL, fault);
    }
    if (err == OK && config != NULL)
        err = published_blame(json_get_bool(config, "", "do_lower_case",
                                  JSON_OPTIONAL, &plan->lowercase, fault),
            name, fault);
    const struct json *given = json_find(config, key);
    if (err == OK && (given == NULL || json_kind(given) == JSON_KIND_NULL)) {
        json_free(config);
        name = "tokenizer_config.json";
        key = "model_max_length";
        err = published_tokenizer_config(&config, from, folder, fault);
        given = json_find(config, key);
    }
    if (err == OK && given != NULL && json_kind(given) == JSON_KIND_INT)
        err = published_blame(json_get_i64(config, "", key, JSON_REQUIRED, 1,
                                  INT64_MAX, &n, fault),
            name, fault);
    else if (err == OK && given != NULL && json_kind(given) != JSON_KIND_NULL &&
             json_kind(given) != JSON_KIND_REAL)
        err =
            fault_set(fault, ERR_INVALID, "", "%s: %s is no number", name, key);
    json_free(config);
    *max_tokens = MIN(*max_tokens, n);
    return err;
}

/* The first of the names that has a prompt, else the default one's; borrowed;
   "" for none. */
static enum err
find_prompt(const struct json *prompts, const char *const *names, size_t n,
    const char *otherwise, const char **out, struct fault *fault)
{
    *out = "";
    for (size_t i = 0; i <= n; i++) {
        const char *name = i < n ? names[i] : otherwise;
        if (name != NULL && json_find(prompts, name) != NULL)
            return json_get_str(
                prompts, "/prompts", name, JSON_REQUIRED, out, NULL, fault);
    }
    return OK;
}

static enum err
read_prompts(
    struct published_plan *plan, const struct json *config, struct fault *fault)
{
    static const char *const queries[] = {"query"};
    static const char *const items[] = {
        "document", "passage", "corpus", "item"};
    const struct json *prompts = json_find(config, "prompts");
    const struct json *name = json_find(config, "default_prompt_name");
    const char *otherwise = NULL, *query = "", *item = "";
    enum err err = OK;

    if (name != NULL && json_kind(name) != JSON_KIND_NULL)
        err = json_get_str(config, "", "default_prompt_name", JSON_REQUIRED,
            &otherwise, NULL, fault);
    if (err == OK && prompts != NULL && json_kind(prompts) != JSON_KIND_NULL)
        err = json_get_object(
            config, "", "prompts", JSON_REQUIRED, &prompts, fault);
    if (err == OK && otherwise != NULL && json_find(prompts, otherwise) == NULL)
        err = fault_set(fault, ERR_INVALID, "/default_prompt_name",
            "there is no prompt \"%.64s\"", otherwise);
    if (err == OK)
        err = find_prompt(
            prompts, queries, ARRAY_LEN(queries), otherwise, &query, fault);
    if (err == OK)
        err = find_prompt(
            prompts, items, ARRAY_LEN(items), otherwise, &item, fault);
    if (err == OK && !plan->modules.include_prompt &&
        (query[0] != '\0' || item[0] != '\0'))
        err = fault_set(fault, ERR_UNSUPPORTED, "/prompts",
            "prompts that the pooling leaves out (include_prompt)");
    buf_add_str(&plan->settings, ",\"query_prefix\":");
    buf_json_cstr(&plan->settings, query);
    buf_add_str(&plan->settings, ",\"item_prefix\":");
    buf_json_cstr(&plan->settings, item);
    return err;
}

/* ------------------------------------------------------------- settings */

static void
put_network(struct published_plan *plan, const struct network *net)
{
    struct buf *to = &plan->settings;

    buf_printf(to,
        "{\"layers\":%lld,\"hidden\":%lld,\"heads\":%lld,\"ffn\":%lld,"
        "\"vocab\":%lld,\"max_positions\":%lld,\"position_offset\":%lld,"
        "\"token_types\":%lld,\"act\":\"%s\",\"norm_eps\":",
        (long long)net->layers, (long long)net->hidden, (long long)net->heads,
        (long long)net->ffn, (long long)net->vocab, (long long)net->positions,
        (long long)net->offset, (long long)net->token_types, net->act);
    buf_json_double(to, net->norm_eps);
    buf_add_str(to, ",\"compute\":");
    buf_json_cstr(to, net->compute);
}

static void
put_modules(struct published_plan *plan)
{
    const struct published_modules *m = &plan->modules;
    struct buf *to = &plan->settings;

    buf_printf(to, ",\"pooling\":\"%s\",\"normalise\":%s", m->pooling,
        m->normalise ? "true" : "false");
    if (m->has_dense)
        buf_printf(to, ",\"dense\":%lld,\"dense_tanh\":%s",
            (long long)m->dense_out, m->dense_tanh ? "true" : "false");
}

static enum err
read_published(struct published_plan *plan, const struct json *config,
    const struct published_source *from, struct fault *fault)
{
    struct network net;
    struct json *said = NULL;
    int64_t max_tokens;
    enum err err = read_network(&net, config, plan->type, fault);

    if (err == OK && plan->modules.has_dense &&
        plan->modules.dense_in != net.hidden)
        err = fault_set(fault, ERR_INVALID, "",
            "%s is %lld, and the dense head's in_features %lld",
            plan->type->hidden, (long long)net.hidden,
            (long long)plan->modules.dense_in);
    err = published_blame(err, "config.json", fault);
    if (err != OK)
        return err;
    max_tokens = net.positions - net.offset;
    err = read_length(plan, from, &max_tokens, fault);
    if (err != OK)
        return err;
    put_network(plan, &net);
    put_modules(plan);
    buf_printf(&plan->settings, ",\"max_tokens\":%lld", (long long)max_tokens);
    err = published_json(&said, from, "", "config_sentence_transformers.json",
        JSON_OPTIONAL, fault);
    if (err == OK && said != NULL)
        err = published_blame(read_prompts(plan, said, fault),
            "config_sentence_transformers.json", fault);
    json_free(said);
    buf_add_char(&plan->settings, '}');
    return err;
}

/* The modules say what a "kindred" config.json does. */
static enum err
check_agreement(const struct published_modules *m, const struct json *config,
    struct fault *fault)
{
    const char *pooling = "mean";
    bool normalise = true, tanh = true;
    int64_t dense = 0;
    enum err err = json_get_str(
        config, "", "pooling", JSON_OPTIONAL, &pooling, NULL, fault);

    if (err == OK)
        err = json_get_bool(
            config, "", "normalise", JSON_OPTIONAL, &normalise, fault);
    if (err == OK)
        err = json_get_bool(
            config, "", "dense_tanh", JSON_OPTIONAL, &tanh, fault);
    if (err == OK)
        err = json_get_i64(config, "", "dense", JSON_OPTIONAL, 0,
            TRANSFORMER_WIDTH_MAX, &dense, fault);
    if (err == OK && m->listed &&
        (strcmp(pooling, m->pooling) != 0 || normalise != m->normalise ||
            dense != (m->has_dense ? m->dense_out : 0) ||
            (m->has_dense && tanh != m->dense_tanh)))
        err = fault_set(fault, ERR_INVALID, "",
            "pooling, dense, dense_tanh and normalise are not what "
            "modules.json says");
    return err;
}

static enum err
read_kindred(
    struct published_plan *plan, const struct json *config, struct fault *fault)
{
    static const char *const others[] = {
        "model_type", "_name_or_path", "architectures"};
    struct buf *to = &plan->settings;

    buf_add_char(to, '{');
    for (void *it = json_first(config); it != NULL;
         it = json_next(config, it)) {
        bool other = false;
        for (size_t i = 0; i < ARRAY_LEN(others); i++)
            other = other || strcmp(json_it_key(it), others[i]) == 0;
        if (other)
            continue;
        if (to->len > 1)
            buf_add_char(to, ',');
        buf_json_cstr(to, json_it_key(it));
        buf_add_char(to, ':');
        json_dump(json_it_value(it), to);
    }
    buf_add_char(to, '}');
    return published_blame(
        check_agreement(&plan->modules, config, fault), "config.json", fault);
}

/* The type, NULL for "kindred", and where the model comes from. */
static enum err
read_type(
    struct published_plan *plan, const struct json *config, struct fault *fault)
{
    const char *name, *source = "";
    enum err err = json_get_str(
        config, "", "model_type", JSON_REQUIRED, &name, NULL, fault);

    if (err == OK)
        err = json_get_str(
            config, "", "_name_or_path", JSON_OPTIONAL, &source, NULL, fault);
    buf_add_str(&plan->source, source);
    if (err != OK || strcmp(name, "kindred") == 0)
        return err;
    for (size_t i = 0; i < PUBLISHED_TYPES && plan->type == NULL; i++) {
        if (strcmp(name, published_types[i].name) == 0)
            plan->type = &published_types[i];
    }
    if (plan->type == NULL)
        return fault_set(fault, ERR_UNSUPPORTED, "/model_type",
            "the model type \"%.64s\"; bert, roberta, xlm-roberta, distilbert "
            "and kindred are known",
            name);
    return OK;
}

enum err
published_plan_read(struct published_plan *plan,
    const struct published_source *source, struct fault *fault)
{
    struct json *config = NULL;
    enum err err;

    *plan = (struct published_plan){0};
    buf_init(&plan->settings, PUBLISHED_SETTINGS_MAX);
    buf_init(&plan->source, PUBLISHED_FILE_MAX);
    err = read_modules(&plan->modules, source, fault);
    if (err == OK)
        err = published_json(&config, source, plan->modules.transformer,
            "config.json", JSON_REQUIRED, fault);
    if (err == OK)
        err = published_blame(
            read_type(plan, config, fault), "config.json", fault);
    if (err == OK)
        err = plan->type == NULL ? read_kindred(plan, config, fault)
                                 : read_published(plan, config, source, fault);
    json_free(config);
    if (err == OK && plan->settings.err != OK)
        err = plan->settings.err == ERR_NOMEM
                  ? ERR_NOMEM
                  : fault_set(fault, plan->settings.err, "",
                        "config.json: the settings have more than %d bytes",
                        PUBLISHED_SETTINGS_MAX);
    return err == OK ? buf_status(&plan->source) : err;
}

void
published_plan_release(struct published_plan *plan)
{
    buf_release(&plan->settings);
    buf_release(&plan->source);
}
