#include <string.h>

#include "base/json.h"
#include "engine/learn.h"
#include "engine/learn_data.h"

static enum err
read_pretext(
    const struct json *root, struct learn_options *o, struct fault *fault)
{
    const char *name = "auto";
    enum err err =
        json_get_str(root, "", "pretext", JSON_OPTIONAL, &name, NULL, fault);
    if (err != OK)
        return err;
    if (strcmp(name, "auto") == 0)
        o->pretext = LEARN_AUTO;
    else if (strcmp(name, "pairs") == 0)
        o->pretext = LEARN_PAIRS;
    else if (strcmp(name, "instances") == 0)
        o->pretext = LEARN_INSTANCES;
    else
        return fault_set(fault, ERR_INVALID, "/pretext",
            "pretext is \"auto\", \"pairs\" or \"instances\"");
    name = "in_batch";
    err =
        json_get_str(root, "", "mechanism", JSON_OPTIONAL, &name, NULL, fault);
    if (err != OK)
        return err;
    if (strcmp(name, "momentum_queue") == 0 || strcmp(name, "memory_bank") == 0)
        return fault_set(fault, ERR_UNSUPPORTED, "/mechanism",
            "the mechanism \"%s\" is not in this version; there is "
            "\"in_batch\"",
            name);
    if (strcmp(name, "in_batch") != 0)
        return fault_set(
            fault, ERR_INVALID, "/mechanism", "mechanism is \"in_batch\"");
    return OK;
}

static enum err
read_float(const struct json *root, const char *key, double min, double max,
    float *out, struct fault *fault)
{
    const struct json_range range = {min, max, true};
    double v = (double)*out;
    enum err err =
        json_get_f64(root, "", key, JSON_OPTIONAL, &range, &v, fault);
    if (err == OK)
        *out = (float)v;
    return err;
}

static enum err
read_training(
    const struct json *root, struct learn_options *o, struct fault *fault)
{
    struct train_options *t = &o->train;
    const struct json_range epochs = {0.01, 100, false};
    const struct {
        const char *key;
        double min, max;
        float *out;
    } floats[] = {{"lr", 1e-6, 10, &t->schedule.lr},
        {"temperature", 0.005, 1, &t->temperature},
        {"warmup", 0, 0.9, &t->schedule.warmup},
        {"token_dropout", 0, 0.9, &t->token_dropout},
        {"feature_dropout", 0, 0.9, &t->feature_dropout},
        {"group_share", 0, 1, &t->group_share},
        {"weight_decay", 0, 1, &t->optimizer.weight_decay}};
    int64_t seed = 1, batch = (int64_t)t->batch, steps = 0;
    enum err err = OK;

    for (size_t i = 0; i < ARRAY_LEN(floats) && err == OK; i++)
        err = read_float(root, floats[i].key, floats[i].min, floats[i].max,
            floats[i].out, fault);
    if (err == OK)
        err = json_get_i64(
            root, "", "seed", JSON_OPTIONAL, 0, INT64_MAX, &seed, fault);
    if (err == OK)
        err = json_get_i64(
            root, "", "batch", JSON_OPTIONAL, 2, 8192, &batch, fault);
    if (err == OK)
        err = json_get_i64(
            root, "", "max_steps", JSON_OPTIONAL, 0, 1000000000, &steps, fault);
    if (err == OK)
        err = json_get_f64(
            root, "", "epochs", JSON_OPTIONAL, &epochs, &t->epochs, fault);
    if (err == OK)
        err = json_get_bool(root, "", "learn_temperature", JSON_OPTIONAL,
            &t->learn_temperature, fault);
    bool symmetric = t->loss == TRAIN_SYMMETRIC;
    if (err == OK)
        err = json_get_bool(
            root, "", "symmetric", JSON_OPTIONAL, &symmetric, fault);
    t->loss = symmetric ? TRAIN_SYMMETRIC : TRAIN_INFONCE;
    t->seed = (uint64_t)seed;
    t->batch = (size_t)batch;
    t->max_steps = (size_t)steps;
    o->lr_given = json_find(root, "lr") != NULL;
    o->epochs_given = json_find(root, "epochs") != NULL;
    return err;
}

static enum err
read_judging(
    const struct json *root, struct learn_options *o, struct fault *fault)
{
    const struct json_range margin = {0, 1, false};
    const struct json_range replay = {0, 100, false};
    const char *metric = judge_measure_names[JUDGE_NDCG_10];
    enum err err =
        json_get_str(root, "", "metric", JSON_OPTIONAL, &metric, NULL, fault);

    if (err == OK) {
        o->metric = judge_measure_find(metric);
        if (o->metric == JUDGE_MEASURES)
            return fault_set(fault, ERR_INVALID, "/metric",
                "metric is one of ndcg_10, mrr_10, recall_1, recall_10, "
                "recall_100");
    }
    if (err == OK)
        err = json_get_f64(
            root, "", "margin", JSON_OPTIONAL, &margin, &o->margin, fault);
    if (err == OK)
        err = json_get_f64(
            root, "", "replay", JSON_OPTIONAL, &replay, &o->replay, fault);
    if (err == OK)
        err = json_get_bool(root, "", "force", JSON_OPTIONAL, &o->force, fault);
    return err;
}

enum err
learn_options_parse(
    const char *json, struct learn_options *out, struct fault *fault)
{
    static const char *const keys[] = {"pretext", "mechanism", "seed", "batch",
        "epochs", "max_steps", "lr", "warmup", "temperature",
        "learn_temperature", "symmetric", "token_dropout", "feature_dropout",
        "group_share", "weight_decay", "replay", "metric", "margin", "force"};
    struct learn_options o = {.replay = 1, .margin = 0.01};
    struct json *root;
    enum err err;

    train_options_default(
        &o.train, TRAIN_PAIRS, TRAIN_IN_BATCH, ENCODER_READS_TEXT, 0);
    err = json_parse(json, strlen(json), 65536, &root, fault);
    if (err != OK)
        return err;
    if (json_kind(root) != JSON_KIND_OBJECT)
        err = fault_set(fault, ERR_INVALID, "",
            "the options of a training round are a JSON object");
    if (err == OK)
        err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = read_pretext(root, &o, fault);
    if (err == OK)
        err = read_training(root, &o, fault);
    if (err == OK)
        err = read_judging(root, &o, fault);
    json_free(root);
    if (err == OK)
        *out = o;
    return err;
}

static void
add_member(struct buf *out, const char *key, const struct json *value)
{
    if (out->len > 1)
        buf_add_char(out, ',');
    buf_json_cstr(out, key);
    buf_add_char(out, ':');
    json_dump(value, out);
}

enum err
learn_merge_options(const char *of_settings, const char *of_request,
    struct buf *out, struct fault *fault)
{
    struct json *base = NULL, *over = NULL;
    size_t start = out->len;
    enum err err =
        json_parse(of_settings, strlen(of_settings), 65536, &base, fault);

    if (err == OK)
        err = json_parse(of_request, strlen(of_request), 65536, &over, fault);
    if (err == OK && json_kind(over) != JSON_KIND_OBJECT)
        err = fault_set(fault, ERR_INVALID, "",
            "the options of a training round are a JSON object");
    if (err == OK) {
        struct buf members;
        buf_init(&members, out->max_bytes - start);
        buf_add_char(&members, '{');
        for (void *it = json_first(base); it != NULL;
             it = json_next(base, it)) {
            if (json_find(over, json_it_key(it)) == NULL)
                add_member(&members, json_it_key(it), json_it_value(it));
        }
        for (void *it = json_first(over); it != NULL; it = json_next(over, it))
            add_member(&members, json_it_key(it), json_it_value(it));
        buf_add_char(&members, '}');
        err = buf_status(&members);
        if (err == OK)
            buf_add(out, members.data, members.len);
        buf_release(&members);
    }
    json_free(base);
    json_free(over);
    return err == OK ? buf_status(out) : err;
}

void
learn_options_write(const struct learn_options *o, struct buf *out)
{
    const struct train_options *t = &o->train;
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"seed", (double)t->seed}, {"batch", (double)t->batch},
        {"epochs", t->epochs}, {"max_steps", (double)t->max_steps},
        {"warmup", (double)t->schedule.warmup}, {"replay", o->replay},
        {"margin", o->margin}};
    const struct {
        const char *key;
        float value;
    } floats[] = {{"lr", t->schedule.lr}, {"temperature", t->temperature},
        {"token_dropout", t->token_dropout},
        {"feature_dropout", t->feature_dropout},
        {"group_share", t->group_share},
        {"weight_decay", t->optimizer.weight_decay}};

    buf_printf(out, "{\"pretext\":\"%s\",\"mechanism\":\"in_batch\"",
        t->pretext == TRAIN_PAIRS ? "pairs" : "instances");
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        buf_printf(out, ",\"%s\":", numbers[i].key);
        buf_json_double(out, numbers[i].value);
    }
    for (size_t i = 0; i < ARRAY_LEN(floats); i++) {
        buf_printf(out, ",\"%s\":", floats[i].key);
        buf_json_float(out, floats[i].value);
    }
    buf_printf(out,
        ",\"learn_temperature\":%s,\"symmetric\":%s,\"metric\":\"%s\","
        "\"force\":%s}",
        t->learn_temperature ? "true" : "false",
        t->loss == TRAIN_SYMMETRIC ? "true" : "false",
        judge_measure_names[o->metric], o->force ? "true" : "false");
}
