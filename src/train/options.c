#include "train/run.h"

const char *const train_mechanism_names[TRAIN_MECHANISMS] = {
    "in_batch", "momentum_queue", "memory_bank"};
const char *const train_update_names[TRAIN_UPDATES] = {
    "full", "last", "lora", "adapter"};
const char *const train_loss_names[TRAIN_LOSSES] = {
    "infonce", "symmetric", "four_way", "nt_xent", "dcl", "supcon"};

static void
text_defaults(struct train_options *o)
{
    o->batch = 1024;
    o->epochs = o->pretext == TRAIN_INSTANCES ? 1 : 3;
    o->schedule.lr = 0.03f;
    o->optimizer.weight_decay = 0;
    o->temperature = 0.03f;
    o->token_dropout = 0.1f;
    o->feature_dropout = 0.25f;
    o->group_share = 0.5f;
    o->momentum = 0.9f;
}

static void
image_defaults(struct train_options *o, uint32_t channels)
{
    o->loss = o->pretext == TRAIN_INSTANCES ? TRAIN_NT_XENT : TRAIN_SYMMETRIC;
    o->batch = 256;
    o->micro_batch = 256;
    o->epochs = 20;
    o->min_steps = 600;
    o->schedule.lr = 0.002f;
    o->optimizer.weight_decay = 0.01f;
    o->temperature = 0.1f;
    o->momentum = 0.99f;
    o->head_dims = 128;
    augment_options_default(&o->views, channels);
}

void
train_options_default(struct train_options *options, enum train_pretext pretext,
    enum train_mechanism mechanism, enum encoder_reads reads, uint32_t channels)
{
    struct train_options o = {.pretext = pretext,
        .mechanism = mechanism,
        .loss = TRAIN_SYMMETRIC,
        .seed = 1,
        .schedule = {.kind = SCHEDULE_COSINE, .warmup = 0.1f},
        .queue = 4096,
        .bank_sample = 4096,
        .layers = 1,
        .lora = {.rank = 8,
            .alpha = 16,
            .targets = {[LORA_QUERY] = true, [LORA_VALUE] = true}}};

    optimizer_options_default(&o.optimizer, OPTIMIZER_ADAMW);
    if (reads == ENCODER_READS_IMAGE)
        image_defaults(&o, channels);
    else
        text_defaults(&o);
    /* the gradient reaches queries only: one direction, anchor to key */
    if (mechanism != TRAIN_IN_BATCH)
        o.loss = TRAIN_INFONCE;
    *options = o;
}

void
train_options_pretrained(struct train_options *o)
{
    o->batch = 64;
    o->schedule.lr = 1e-4f;
    o->optimizer.weight_decay = 0.01f;
    o->temperature = 0.05f;
    o->token_dropout = 0.1f;
    o->feature_dropout = 0;
    o->momentum = 0.99f;
}

void
train_options_update(struct train_options *o, enum train_update update)
{
    o->update = update;
    if (update == TRAIN_LORA) /* Hu et al. 2021, table 9 */
        o->schedule.lr = 5e-4f;
    if (update != TRAIN_ADAPTER)
        return;
    o->batch = 256;
    o->micro_batch = 0;
    o->epochs = 20;
    o->min_steps = 300;
    o->schedule.lr = 3e-4f;
    o->temperature = 0.05f;
}

enum err
train_options_check_parts(
    const struct train_options *o, size_t n_parts, struct fault *fault)
{
    bool of_layers = o->update == TRAIN_LAST || o->update == TRAIN_LORA;

    if (of_layers && n_parts < 2)
        return fault_set(fault, ERR_INVALID, "/update",
            "\"%s\" is for the layers of a published transformer; this "
            "collection's encoder has none: \"full\" or \"adapter\"",
            train_update_names[o->update]);
    if (o->update == TRAIN_LAST && (o->layers < 1 || o->layers >= n_parts))
        return fault_set(fault, ERR_INVALID, "/layers",
            "layers must be from 1 to %zu, the layers that the encoder has",
            n_parts - 1);
    return OK;
}

bool
run_between_views(const struct train_options *o)
{
    return o->mechanism == TRAIN_IN_BATCH && o->loss != TRAIN_INFONCE &&
           o->loss != TRAIN_SYMMETRIC;
}

/* Do a step's masks fit, should all of its rows and keys be known to be the
   same? batch.h has the bound. */
static enum err
check_masks(const struct train_options *o, struct fault *fault)
{
    size_t given = o->pretext == TRAIN_PAIRS ? RUN_NEGATIVES_MAX : 0;
    size_t sides = run_between_views(o) ? 2 : 1;
    size_t batch_max = (BATCH_MASKS_SIDE - given) / sides;

    if (o->batch > batch_max)
        return fault_set(fault, ERR_INVALID, "/batch",
            "the pairs that are no negatives of each other may take more than "
            "2 GiB in a batch of %zu with the loss \"%s\": at most %zu",
            o->batch, train_loss_names[o->loss], batch_max);
    if (o->mechanism == TRAIN_IN_BATCH)
        return OK;
    bool queue = o->mechanism == TRAIN_MOMENTUM_QUEUE;
    size_t kept = queue ? o->queue : o->bank_sample;
    size_t most = BATCH_MASKS_MAX / o->batch - o->batch - given;
    if (kept > most)
        return fault_set(fault, ERR_INVALID, queue ? "/queue" : "/bank_sample",
            "the pairs that are no negatives of each other may take more than "
            "2 GiB with a batch of %zu and %zu keys beside it: at most %zu, "
            "or a smaller batch",
            o->batch, kept, most);
    return OK;
}

enum err
train_options_check(const struct train_options *o, struct fault *fault)
{
    bool queue = o->mechanism == TRAIN_MOMENTUM_QUEUE;

    if (o->batch < 2)
        return fault_set(fault, ERR_INVALID, "/batch",
            "a batch holds at least 2 examples: they are each other's "
            "negatives");
    if (!(o->temperature > 0))
        return fault_set(
            fault, ERR_INVALID, "/temperature", "the temperature is above 0");
    if (queue && o->queue < o->batch)
        return fault_set(fault, ERR_INVALID, "/queue",
            "the queue holds at least a batch: %zu keys or more, not %zu",
            o->batch, o->queue);
    if (queue && !(o->momentum >= 0 && o->momentum < 1))
        return fault_set(fault, ERR_INVALID, "/momentum",
            "the momentum is in [0, 1): with 1 the key encoder never learns");
    if (o->mechanism != TRAIN_IN_BATCH &&
        (o->loss == TRAIN_FOUR_WAY || o->loss == TRAIN_NT_XENT ||
            (o->loss == TRAIN_SYMMETRIC && !queue)))
        return fault_set(fault, ERR_INVALID, "/loss",
            "the loss \"%s\" compares all sides of a batch with each other, "
            "which needs the mechanism \"in_batch\"",
            train_loss_names[o->loss]);
    if (o->head_layers > 3)
        return fault_set(fault, ERR_INVALID, "/head_layers",
            "a projection head has 0 to 3 layers");
    return check_masks(o, fault);
}

enum err
train_options_check_dims(
    const struct train_options *o, size_t D, struct fault *fault)
{
    size_t P = o->head_layers > 0 ? o->head_dims : D;
    size_t max = TRAIN_QUEUE_BYTES_MAX / (P * sizeof(float));

    if (o->mechanism == TRAIN_MOMENTUM_QUEUE && o->queue > max)
        return fault_set(fault, ERR_INVALID, "/queue",
            "a queue of %zu keys of %zu dims does not fit into %zu GiB: at "
            "most %zu, or a projection head of less dims",
            o->queue, P, TRAIN_QUEUE_BYTES_MAX >> 30, max);
    return OK;
}
