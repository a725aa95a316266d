/*
 * learn_options.c - the options of a round, from JSON and back.
 *
 * Names come first (pretext, mechanism, loss, optimiser): the defaults of the
 * numbers depend on them and on what the encoder reads. Then the numbers, each
 * in its range, then what does not go together.
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "engine/learn.h"
#include "engine/learn_data.h"

#define BATCH_MAX 8192
#define QUEUE_MAX 1048576
#define BANK_SAMPLE_MAX 65536
#define HEAD_LAYERS_MAX 3
#define HEAD_DIMS 128 /* where the defaults have no head */
#define LAYERS_MAX 64
#define LORA_ALPHA_MIN 0.01
#define LORA_ALPHA_MAX 4096
#define OPTIONS_BYTES_MAX 65536

/* Published rates at a batch of 256, for an optimiser that is not the one the
   defaults were measured with: He et al. 2020, sec. 4; Chen et al. 2020,
   sec. 2.1. */
#define LR_SGD 0.03f
#define LR_LARS 0.3f
#define LR_ADAMW 0.001f
#define LR_BATCH 256.0f

/* ---- reading ------------------------------------------------------------- */

/* "KEY is one of A, B, C" */
static enum err
refuse_name(const char *at, const char *key, const char *const *names, size_t n,
    struct fault *fault)
{
    char list[160] = "", pointer[FAULT_POINTER_MAX];
    size_t len = 0;

    for (size_t i = 0; i < n && len < sizeof list; i++)
        len += (size_t)snprintf(
            list + len, sizeof list - len, "%s%s", i > 0 ? ", " : "", names[i]);
    json_pointer(pointer, at, key);
    return fault_set(fault, ERR_INVALID, pointer, "%s is one of %s", key, list);
}

/* The index of an optional member's value among n names; *index stays when the
   member is absent. */
static enum err
read_name(const struct json *root, const char *key, const char *const *names,
    size_t n, size_t *index, struct fault *fault)
{
    const char *name = NULL;
    enum err err =
        json_get_str(root, "", key, JSON_OPTIONAL, &name, NULL, fault);

    if (err != OK || name == NULL)
        return err;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            *index = i;
            return OK;
        }
    }
    return refuse_name("", key, names, n, fault);
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
read_size(const struct json *root, const char *at, const char *key, int64_t min,
    int64_t max, size_t *out, struct fault *fault)
{
    int64_t v = (int64_t)*out;
    enum err err =
        json_get_i64(root, at, key, JSON_OPTIONAL, min, max, &v, fault);
    if (err == OK)
        *out = (size_t)v;
    return err;
}

/* ---- names, and the defaults that follow from them ----------------------- */

static enum err
read_pretext(const struct json *root, const struct learn_setting *of,
    struct learn_options *o, size_t *pretext, struct fault *fault)
{
    static const char *const names[] = {"auto", "pairs", "instances"};
    size_t asked = LEARN_AUTO;
    enum err err =
        read_name(root, "pretext", names, ARRAY_LEN(names), &asked, fault);

    o->pretext = (enum learn_pretext)asked;
    if (asked == LEARN_AUTO && of != NULL)
        asked = of->pretext;
    *pretext = asked == LEARN_INSTANCES ? TRAIN_INSTANCES : TRAIN_PAIRS;
    return err;
}

/* "loss", or "symmetric" as it was called when there were two of them:
   collections may have it among their settings. */
static enum err
read_loss(const struct json *root, struct train_options *t, struct fault *fault)
{
    size_t loss = t->loss;
    bool symmetric = t->loss == TRAIN_SYMMETRIC;
    bool old = json_find(root, "symmetric") != NULL;
    enum err err =
        read_name(root, "loss", train_loss_names, TRAIN_LOSSES, &loss, fault);

    if (err == OK)
        err = json_get_bool(
            root, "", "symmetric", JSON_OPTIONAL, &symmetric, fault);
    if (err != OK)
        return err;
    if (old && json_find(root, "loss") != NULL)
        return fault_set(fault, ERR_INVALID, "/symmetric",
            "\"symmetric\" is the loss \"symmetric\" or \"infonce\": give one "
            "of the two members");
    if (old)
        loss = symmetric ? TRAIN_SYMMETRIC : TRAIN_INFONCE;
    t->loss = (enum train_loss)loss;
    return OK;
}

static enum err
read_optimizer(const struct json *root, struct learn_options *o,
    enum optimizer_kind *measured, struct fault *fault)
{
    struct train_options *t = &o->train;
    size_t kind = t->optimizer.kind, schedule = t->schedule.kind;
    enum err err = read_name(
        root, "optimizer", optimizer_names, OPTIMIZER_KINDS, &kind, fault);

    if (err == OK)
        err = read_name(
            root, "schedule", schedule_names, SCHEDULE_KINDS, &schedule, fault);
    if (err != OK)
        return err;
    *measured = t->optimizer.kind;
    if (kind != t->optimizer.kind)
        optimizer_options_default(&t->optimizer, (enum optimizer_kind)kind);
    t->schedule.kind = (enum schedule_kind)schedule;
    return OK;
}

static enum err
read_names(const struct json *root, const struct learn_setting *of,
    struct learn_options *o, enum optimizer_kind *measured, struct fault *fault)
{
    size_t pretext = TRAIN_PAIRS, mechanism = TRAIN_IN_BATCH;
    size_t update = TRAIN_FULL;
    enum err err = read_pretext(root, of, o, &pretext, fault);

    if (err == OK)
        err = read_name(root, "mechanism", train_mechanism_names,
            TRAIN_MECHANISMS, &mechanism, fault);
    if (err == OK)
        err = read_name(
            root, "update", train_update_names, TRAIN_UPDATES, &update, fault);
    if (err != OK)
        return err;
    train_options_default(&o->train, (enum train_pretext)pretext,
        (enum train_mechanism)mechanism,
        of != NULL ? of->reads : ENCODER_READS_TEXT,
        of != NULL ? of->channels : 0);
    if (of != NULL && of->pretrained)
        train_options_pretrained(&o->train);
    train_options_update(&o->train, (enum train_update)update);
    err = read_loss(root, &o->train, fault);
    if (err == OK)
        err = read_optimizer(root, o, measured, fault);
    return err;
}

/* ---- numbers ------------------------------------------------------------- */

static enum err
read_floats(
    const struct json *root, struct learn_options *o, struct fault *fault)
{
    struct train_options *t = &o->train;
    const struct json_range epochs = {0.01, 10000, false};
    const struct {
        const char *key;
        double min, max;
        float *out;
    } floats[] = {{"lr", 1e-6, 10, &t->schedule.lr},
        {"temperature", 0.005, 1, &t->temperature},
        {"warmup", 0, 0.9, &t->schedule.warmup},
        {"token_dropout", 0, 0.9, &t->token_dropout},
        {"feature_dropout", 0, 0.9, &t->feature_dropout},
        {"char_noise", 0, 0.9, &t->char_noise},
        {"group_share", 0, 1, &t->group_share},
        {"weight_decay", 0, 1, &t->optimizer.weight_decay}};
    enum err err = OK;

    for (size_t i = 0; i < ARRAY_LEN(floats) && err == OK; i++)
        err = read_float(root, floats[i].key, floats[i].min, floats[i].max,
            floats[i].out, fault);
    if (err == OK)
        err = json_get_f64(
            root, "", "epochs", JSON_OPTIONAL, &epochs, &t->epochs, fault);
    if (err == OK)
        err = json_get_bool(root, "", "learn_temperature", JSON_OPTIONAL,
            &t->learn_temperature, fault);
    return err;
}

static enum err
read_sizes(const struct json *root, const struct learn_setting *of,
    struct learn_options *o, struct fault *fault)
{
    struct train_options *t = &o->train;
    int64_t seed = 1;
    const struct {
        const char *key;
        int64_t min, max;
        size_t *out;
    } sizes[] = {{"batch", 2, BATCH_MAX, &t->batch},
        {"micro_batch", 0, BATCH_MAX, &t->micro_batch},
        {"min_steps", 0, 1000000000, &t->min_steps},
        {"max_steps", 0, 1000000000, &t->max_steps},
        {"queue", 2, QUEUE_MAX, &t->queue},
        {"bank_sample", 1, BANK_SAMPLE_MAX, &t->bank_sample},
        {"layers", 1, LAYERS_MAX, &t->layers},
        {"hard_negatives", 0, BATCH_NEGATIVES_MAX, &t->hard_negatives}};
    enum err err = json_get_i64(
        root, "", "seed", JSON_OPTIONAL, 0, INT64_MAX, &seed, fault);

    t->seed = (uint64_t)seed;
    if (of == NULL)
        t->batch = 2; /* the default is not known: nothing fails by it */
    if (json_find(root, "epochs") != NULL)
        t->min_steps = 0; /* unless given too */
    for (size_t i = 0; i < ARRAY_LEN(sizes) && err == OK; i++)
        err = read_size(root, "", sizes[i].key, sizes[i].min, sizes[i].max,
            sizes[i].out, fault);
    if (err == OK && t->micro_batch == 1)
        err = fault_set(fault, ERR_INVALID, "/micro_batch",
            "micro_batch must be 0 (as memory allows) or from 2 to %d",
            BATCH_MAX);
    if (err == OK && json_find(root, "queue") == NULL)
        t->queue = MAX(t->queue, t->batch);
    if (err == OK && t->queue < t->batch)
        err = fault_set(fault, ERR_INVALID, "/queue",
            "a queue of %zu is smaller than the batch of %zu: it must be from "
            "%zu to %d",
            t->queue, t->batch, t->batch, QUEUE_MAX);
    return err;
}

/* [0, 1): a key encoder of momentum 1 would never learn. */
static enum err
read_momentum(
    const struct json *root, struct train_options *t, struct fault *fault)
{
    double v = (double)t->momentum;
    enum err err =
        json_get_f64(root, "", "momentum", JSON_OPTIONAL, NULL, &v, fault);

    if (err == OK && !(v >= 0 && (float)v < 1))
        return fault_set(fault, ERR_INVALID, "/momentum",
            "momentum must be at least 0 and below 1");
    if (err == OK)
        t->momentum = (float)v;
    return err;
}

static enum err
read_head(const struct json *root, struct train_options *t, struct fault *fault)
{
    static const char *const keys[] = {"layers", "dims"};
    const struct json *head = NULL;
    enum err err =
        json_get_object(root, "", "head", JSON_OPTIONAL, &head, fault);

    if (err != OK || head == NULL)
        return err;
    if (t->head_dims == 0)
        t->head_dims = HEAD_DIMS;
    err = json_only_keys(head, "/head", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = read_size(head, "/head", "layers", 0, HEAD_LAYERS_MAX,
            &t->head_layers, fault);
    if (err == OK)
        err = read_size(head, "/head", "dims", ENCODER_DIMS_MIN,
            ENCODER_DIMS_MAX, &t->head_dims, fault);
    return err;
}

/* "targets": the matrices that are adapted, in place of the default ones. */
static enum err
read_targets(
    const struct json *lora, struct lora_options *out, struct fault *fault)
{
    const struct json *list = NULL;
    bool targets[LORA_TARGETS] = {false};
    enum err err =
        json_get_array(lora, "/lora", "targets", JSON_OPTIONAL, &list, fault);

    if (err != OK || list == NULL)
        return err;
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *item = json_item(list, i);
        bool string = json_kind(item) == JSON_KIND_STRING;
        const char *name = string ? json_str(item, NULL) : "";
        size_t t = 0;
        while (t < LORA_TARGETS && strcmp(lora_target_names[t], name) != 0)
            t++;
        if (t == LORA_TARGETS)
            return refuse_name(
                "/lora", "targets", lora_target_names, LORA_TARGETS, fault);
        targets[t] = true;
    }
    if (json_count(list) == 0)
        return fault_set(fault, ERR_INVALID, "/lora/targets",
            "targets must name a matrix at least");
    memcpy(out->targets, targets, sizeof targets);
    return OK;
}

static enum err
read_lora(
    const struct json *root, struct lora_options *out, struct fault *fault)
{
    static const char *const keys[] = {"rank", "alpha", "targets"};
    const struct json_range range = {LORA_ALPHA_MIN, LORA_ALPHA_MAX, false};
    const struct json *lora = NULL;
    double alpha = (double)out->alpha;
    enum err err =
        json_get_object(root, "", "lora", JSON_OPTIONAL, &lora, fault);

    if (err != OK || lora == NULL)
        return err;
    err = json_only_keys(lora, "/lora", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = read_size(
            lora, "/lora", "rank", 1, LORA_RANK_MAX, &out->rank, fault);
    if (err == OK)
        err = json_get_f64(
            lora, "/lora", "alpha", JSON_OPTIONAL, &range, &alpha, fault);
    if (err == OK)
        err = read_targets(lora, out, fault);
    if (err == OK)
        out->alpha = (float)alpha;
    return err;
}

static enum err
read_label(
    const struct json *root, struct learn_options *o, struct fault *fault)
{
    const char *label = NULL;
    size_t len = 0;
    enum err err =
        json_get_str(root, "", "label", JSON_OPTIONAL, &label, &len, fault);

    if (err != OK || label == NULL)
        return err;
    if (len == 0 || len > LEARN_LABEL_BYTES_MAX || strlen(label) != len)
        return fault_set(fault, ERR_INVALID, "/label",
            "label is the name of a metadata field, of 1 to %d bytes",
            LEARN_LABEL_BYTES_MAX);
    memcpy(o->label, label, len + 1);
    return OK;
}

static enum err
read_judging(
    const struct json *root, struct learn_options *o, struct fault *fault)
{
    const struct json_range margin = {0, 1, false};
    const struct json_range replay = {0, 100, false};
    size_t metric = JUDGE_NDCG_10;
    enum err err = read_name(
        root, "metric", judge_measure_names, JUDGE_MEASURES, &metric, fault);

    o->metric = (enum judge_measure)metric;
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

/* ---- what goes together -------------------------------------------------- */

/* A loss that needs the gradient of keys, which only a batch's own have; a
   queue has the keys of anchors too, for the other direction. */
static bool
is_of_batch(const struct train_options *t)
{
    return t->loss == TRAIN_FOUR_WAY || t->loss == TRAIN_NT_XENT ||
           (t->loss == TRAIN_SYMMETRIC && t->mechanism == TRAIN_MEMORY_BANK);
}

static enum err
check_loss(const struct learn_options *o, struct fault *fault)
{
    const struct train_options *t = &o->train;
    bool queue = t->mechanism == TRAIN_MOMENTUM_QUEUE;

    if (t->mechanism != TRAIN_IN_BATCH && is_of_batch(t))
        return fault_set(fault, ERR_INVALID, "/loss",
            "the loss \"%s\" compares all sides of a batch with each other: "
            "\"%s\" takes %sinfonce, dcl%s",
            train_loss_names[t->loss], train_mechanism_names[t->mechanism],
            queue ? "symmetric, " : "", queue ? " or supcon" : "");
    if (t->loss == TRAIN_SUPCON && t->mechanism == TRAIN_MEMORY_BANK)
        return fault_set(fault, ERR_INVALID, "/loss",
            "the loss \"supcon\" needs labels, which stored vectors do not "
            "have: \"in_batch\" or \"momentum_queue\"");
    if (t->loss == TRAIN_SUPCON && o->label[0] == '\0')
        return fault_set(fault, ERR_INVALID, "/label",
            "the loss \"supcon\" needs \"label\": the metadata field whose "
            "equal values make items positives of each other");
    if (t->hard_negatives > 0 && o->pretext == LEARN_INSTANCES)
        return fault_set(fault, ERR_INVALID, "/hard_negatives",
            "hard negatives are mined for pairs: among instances the nearest "
            "items may be the same thing");
    return OK;
}

/* An adapter learns from vectors that stay as they are. */
static enum err
check_adapter(const struct learn_options *o, struct fault *fault)
{
    const struct train_options *t = &o->train;

    if (t->update != TRAIN_ADAPTER)
        return OK;
    if (t->mechanism != TRAIN_IN_BATCH)
        return fault_set(fault, ERR_INVALID, "/mechanism",
            "an adapter learns \"in_batch\": the items' vectors do not "
            "change, and a batch of them may be as large as a queue");
    if (t->pretext != TRAIN_PAIRS)
        return fault_set(fault, ERR_INVALID, "/pretext",
            "an adapter learns from \"pairs\", of what is asked and what is "
            "right for it");
    return OK;
}

/* Members that this encoder has no use for: a person who gives them expects
   something that will not happen. */
static enum err
check_reads(
    const struct json *root, enum encoder_reads reads, struct fault *fault)
{
    static const char *const of_text[] = {
        "token_dropout", "feature_dropout", "char_noise"};
    char pointer[FAULT_POINTER_MAX];

    if (reads == ENCODER_READS_TEXT && json_find(root, "views") != NULL)
        return fault_set(fault, ERR_INVALID, "/views",
            "\"views\" are those of pictures; this collection's encoder reads "
            "text");
    for (size_t i = 0; reads == ENCODER_READS_IMAGE && i < ARRAY_LEN(of_text);
         i++) {
        if (json_find(root, of_text[i]) == NULL)
            continue;
        json_pointer(pointer, "", of_text[i]);
        return fault_set(fault, ERR_INVALID, pointer,
            "%s is for words; this collection's encoder reads pictures",
            of_text[i]);
    }
    return OK;
}

/* ---- the whole ----------------------------------------------------------- */

/* The published rate of an optimiser that the defaults do not use. */
static void
set_rate(struct train_options *t, enum optimizer_kind measured)
{
    float scale = (float)t->batch / LR_BATCH;
    if (t->optimizer.kind == measured)
        return;
    t->schedule.lr = t->optimizer.kind == OPTIMIZER_SGD    ? LR_SGD * scale
                     : t->optimizer.kind == OPTIMIZER_LARS ? LR_LARS * scale
                                                           : LR_ADAMW;
}

static enum err
read_all(const struct json *root, const struct learn_setting *of,
    struct learn_options *o, struct fault *fault)
{
    enum optimizer_kind measured = OPTIMIZER_ADAMW;
    const struct json *views = NULL;
    enum err err = read_names(root, of, o, &measured, fault);

    o->lr_given = json_find(root, "lr") != NULL;
    if (err == OK)
        err = read_sizes(root, of, o, fault);
    if (err == OK && !o->lr_given)
        set_rate(&o->train, measured);
    if (err == OK)
        err = read_floats(root, o, fault);
    if (o->train.update == TRAIN_ADAPTER) /* it sees vectors, no words */
        o->train.token_dropout = o->train.feature_dropout =
            o->train.char_noise = 0;
    if (err == OK)
        err = read_momentum(root, &o->train, fault);
    if (err == OK)
        err = read_head(root, &o->train, fault);
    if (err == OK)
        err = read_lora(root, &o->train.lora, fault);
    if (err == OK)
        err = read_label(root, o, fault);
    if (err == OK)
        err = json_get_object(root, "", "views", JSON_OPTIONAL, &views, fault);
    if (err == OK && views != NULL)
        err = learn_views_read(views, "/views", &o->train.views, fault);
    if (err == OK)
        err = read_judging(root, o, fault);
    if (err == OK)
        err = check_loss(o, fault);
    if (err == OK)
        err = check_adapter(o, fault);
    if (err == OK)
        err = train_options_check(&o->train, fault);
    if (err == OK && of != NULL)
        err = train_options_check_parts(&o->train, of->n_parts, fault);
    if (err == OK && of != NULL)
        err = check_reads(root, of->reads, fault);
    return err;
}

enum err
learn_options_parse(const char *json, const struct learn_setting *of,
    struct learn_options *out, struct fault *fault)
{
    static const char *const keys[] = {"pretext", "mechanism", "loss",
        "symmetric", "seed", "batch", "micro_batch", "epochs", "min_steps",
        "max_steps", "optimizer", "schedule", "lr", "warmup", "weight_decay",
        "temperature", "learn_temperature", "token_dropout", "feature_dropout",
        "char_noise", "group_share", "queue", "momentum", "bank_sample", "head",
        "hard_negatives", "views", "label", "replay", "metric", "margin",
        "force", "update", "layers", "lora"};
    struct learn_options o = {.replay = 1, .margin = 0.01};
    struct json *root;
    enum err err =
        json_parse(json, strlen(json), OPTIONS_BYTES_MAX, &root, fault);

    if (err != OK)
        return err;
    if (json_kind(root) != JSON_KIND_OBJECT)
        err = fault_set(fault, ERR_INVALID, "",
            "the options of a training round are a JSON object");
    if (err == OK)
        err = json_only_keys(root, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = read_all(root, of, &o, fault);
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
    enum err err = json_parse(
        of_settings, strlen(of_settings), OPTIONS_BYTES_MAX, &base, fault);

    if (err == OK)
        err = json_parse(
            of_request, strlen(of_request), OPTIONS_BYTES_MAX, &over, fault);
    if (err == OK && json_kind(over) != JSON_KIND_OBJECT)
        err = fault_set(fault, ERR_INVALID, "",
            "the options of a training round are a JSON object");
    if (err == OK) {
        /* one thing of two names: the request's word replaces the other */
        bool loss = json_find(over, "loss") != NULL ||
                    json_find(over, "symmetric") != NULL;
        struct buf members;
        buf_init(&members, out->max_bytes - start);
        buf_add_char(&members, '{');
        for (void *it = json_first(base); it != NULL;
             it = json_next(base, it)) {
            const char *key = json_it_key(it);
            bool of_loss =
                strcmp(key, "loss") == 0 || strcmp(key, "symmetric") == 0;
            if (json_find(over, key) == NULL && !(loss && of_loss))
                add_member(&members, key, json_it_value(it));
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

/* ---- writing ------------------------------------------------------------- */

struct number {
    const char *key;
    double value;
    bool is_float; /* shortest that gives the same float */
};

static void
write_numbers(const struct number *numbers, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, ",\"%s\":", numbers[i].key);
        if (numbers[i].is_float)
            buf_json_float(out, (float)numbers[i].value);
        else
            buf_json_double(out, numbers[i].value);
    }
}

/* What the mechanism alone has. */
static void
write_mechanism(const struct train_options *t, struct buf *out)
{
    if (t->mechanism == TRAIN_MOMENTUM_QUEUE) {
        buf_printf(out, ",\"queue\":%zu,\"momentum\":", t->queue);
        buf_json_float(out, t->momentum);
    }
    if (t->mechanism == TRAIN_MEMORY_BANK)
        buf_printf(out, ",\"bank_sample\":%zu", t->bank_sample);
    buf_printf(out, ",\"head\":{\"layers\":%zu", t->head_layers);
    if (t->head_layers > 0)
        buf_printf(out, ",\"dims\":%zu", t->head_dims);
    buf_add_char(out, '}');
}

/* Which parameters, and what that needs. */
static void
write_update(const struct train_options *t, struct buf *out)
{
    const char *comma = "";

    buf_printf(out, ",\"update\":\"%s\"", train_update_names[t->update]);
    if (t->update == TRAIN_LAST)
        buf_printf(out, ",\"layers\":%zu", t->layers);
    if (t->update != TRAIN_LORA)
        return;
    buf_printf(out, ",\"lora\":{\"rank\":%zu,\"alpha\":", t->lora.rank);
    buf_json_float(out, t->lora.alpha);
    buf_add_str(out, ",\"targets\":[");
    for (size_t i = 0; i < LORA_TARGETS; i++) {
        if (!t->lora.targets[i])
            continue;
        buf_printf(out, "%s\"%s\"", comma, lora_target_names[i]);
        comma = ",";
    }
    buf_add_str(out, "]}");
}

void
learn_options_write(
    const struct learn_options *o, enum encoder_reads reads, struct buf *out)
{
    const struct train_options *t = &o->train;
    bool vectors = t->update == TRAIN_ADAPTER; /* neither words nor pixels */
    const struct number numbers[] = {{"seed", (double)t->seed, false},
        {"batch", (double)t->batch, false},
        {"micro_batch", (double)t->micro_batch, false},
        {"epochs", t->epochs, false},
        {"min_steps", (double)t->min_steps, false},
        {"max_steps", (double)t->max_steps, false},
        {"lr", (double)t->schedule.lr, true},
        {"warmup", (double)t->schedule.warmup, true},
        {"weight_decay", (double)t->optimizer.weight_decay, true},
        {"temperature", (double)t->temperature, true}};
    const struct number of_pairs[] = {
        {"group_share", (double)t->group_share, true},
        {"replay", o->replay, false},
        {"hard_negatives", (double)t->hard_negatives, false}};
    const struct number of_text[] = {
        {"token_dropout", (double)t->token_dropout, true},
        {"feature_dropout", (double)t->feature_dropout, true},
        {"char_noise", (double)t->char_noise, true}};

    buf_printf(out,
        "{\"pretext\":\"%s\",\"mechanism\":\"%s\",\"loss\":\"%s\","
        "\"optimizer\":\"%s\",\"schedule\":\"%s\"",
        t->pretext == TRAIN_PAIRS ? "pairs" : "instances",
        train_mechanism_names[t->mechanism], train_loss_names[t->loss],
        optimizer_names[t->optimizer.kind], schedule_names[t->schedule.kind]);
    write_update(t, out);
    write_numbers(numbers, ARRAY_LEN(numbers), out);
    if (t->pretext == TRAIN_PAIRS)
        write_numbers(of_pairs, ARRAY_LEN(of_pairs), out);
    if (reads == ENCODER_READS_TEXT && !vectors)
        write_numbers(of_text, ARRAY_LEN(of_text), out);
    write_mechanism(t, out);
    if (reads == ENCODER_READS_IMAGE && !vectors) {
        buf_add_str(out, ",\"views\":");
        learn_views_write(&t->views, out);
    }
    if (o->label[0] != '\0') {
        buf_add_str(out, ",\"label\":");
        buf_json_cstr(out, o->label);
    }
    buf_printf(out, ",\"learn_temperature\":%s,\"metric\":\"%s\",\"margin\":",
        t->learn_temperature ? "true" : "false",
        judge_measure_names[o->metric]);
    buf_json_double(out, o->margin);
    buf_printf(out, ",\"force\":%s}", o->force ? "true" : "false");
}
