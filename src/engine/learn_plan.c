/*
 * learn_plan.c - is there enough to learn from, and what a round's options
 * come to.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/learn.h"
#include "engine/learn_data.h"
#include "store/pairs.h"

struct facts {
    struct pair_counts counts;
    struct train_policy policy;
    int64_t n_items; /* that the encoder can read */
    int64_t last_item;
    int64_t pairs_seen;
};

/* The highest item number of the collection. */
static enum err
find_last_item(struct collection *c, int64_t *out)
{
    struct item_map map;
    enum err err = item_map_new(&map, c->roster);

    if (err == OK) {
        *out = map.n > 0 ? map.items[map.n - 1] : 0;
        item_map_release(&map);
    }
    return err;
}

static enum err
read_facts(struct engine *engine, struct collection *c,
    const struct learn_form *form, struct facts *out)
{
    struct collection_row row;
    int64_t image_bytes;
    struct arena arena;
    struct db *db;
    enum err err = store_read_begin(engine->store, &db);

    if (err != OK)
        return err;
    arena_init(&arena, SMALL_ARENA_BYTES);
    err = collections_get(db, c->id, &arena, &row);
    if (err == OK) {
        out->pairs_seen = row.pairs_seen;
        err = pairs_count(db, c->id, row.pairs_seen, &out->counts);
    }
    out->n_items = (int64_t)roster_count(c->roster);
    if (err == OK && form->reads == ENCODER_READS_IMAGE)
        err = images_count(db, c->id, &out->n_items, &image_bytes);
    store_read_end(engine->store, db);
    arena_release(&arena);
    collection_policy(c, &out->policy);
    if (err == OK)
        err = find_last_item(c, &out->last_item);
    return err;
}

static bool
pairs_can_judge(const struct facts *f)
{
    return f->counts.judge_groups >= f->policy.min_groups;
}

static bool
pairs_suffice(const struct facts *f)
{
    return pairs_can_judge(f) &&
           f->counts.active[PAIR_TRAIN] >= f->policy.min_pairs;
}

static enum err
check_enough(const struct facts *f, enum encoder_reads reads,
    enum learn_pretext asked, enum learn_pretext taken, struct fault *fault)
{
    bool some = f->counts.active[PAIR_TRAIN] > 0 && asked == LEARN_AUTO;

    if (pairs_suffice(f))
        return OK;
    if (taken == LEARN_PAIRS || some)
        return fault_set(fault, ERR_INVALID, "",
            "training on pairs needs at least %" PRId64
            " train pairs and %" PRId64 " judged groups; there are %" PRId64
            " and %" PRId64,
            f->policy.min_pairs, f->policy.min_groups,
            f->counts.active[PAIR_TRAIN], f->counts.judge_groups);
    if (!pairs_can_judge(f) &&
        f->n_items / LEARN_INSTANCE_SHARES < f->policy.min_groups)
        return fault_set(fault, ERR_INVALID, "",
            "training needs pairs (at least %" PRId64
            " in the train split, there are %" PRId64
            ") or, on instances, %" PRId64 " %s; there are %" PRId64,
            f->policy.min_pairs, f->counts.active[PAIR_TRAIN],
            f->policy.min_groups * LEARN_INSTANCE_SHARES,
            reads == ENCODER_READS_IMAGE ? "pictures" : "items", f->n_items);
    return OK;
}

enum err
learn_plan(struct engine *engine, struct collection *c,
    const struct learn_form *form, const char *options_json,
    struct learn_resume *resume, struct learn_options *out, struct fault *fault)
{
    struct learn_setting setting = {.reads = form->reads,
        .channels = form->channels,
        .pretrained = form->pretrained,
        .n_parts = form->n_parts};
    struct learn_options options;
    struct learn_resume r = *resume;
    struct facts facts;
    enum err err = learn_options_parse(options_json, NULL, &options, fault);

    if (err == OK)
        err = read_facts(engine, c, form, &facts);
    if (err != OK)
        return err;
    if (!r.known) {
        r.pretext = options.pretext != LEARN_AUTO ? options.pretext
                    : pairs_suffice(&facts)       ? LEARN_PAIRS
                                                  : LEARN_INSTANCES;
        r.views = r.pretext == LEARN_INSTANCES && !pairs_can_judge(&facts);
        r.pairs_seen = facts.pairs_seen;
        r.pairs_upto = facts.counts.last_pair;
        r.items_upto = facts.last_item;
        r.known = true;
        err = check_enough(
            &facts, form->reads, options.pretext, r.pretext, fault);
    }
    setting.pretext = r.pretext;
    if (err == OK)
        err = learn_options_parse(options_json, &setting, &options, fault);
    if (err == OK)
        err = train_options_check_dims(&options.train, form->dims, fault);
    if (err == OK) {
        *resume = r;
        *out = options;
    }
    return err;
}

enum err
learn_check_options(const char *options_json, struct fault *fault)
{
    struct learn_options options;
    return learn_options_parse(options_json, NULL, &options, fault);
}

enum err
learn_check_data(struct engine *engine, struct collection *c,
    const char *options_json, struct fault *fault)
{
    struct snapshot *live = collection_live(c);
    struct learn_resume resume = {.known = false};
    struct learn_options options;
    struct learn_form form;
    enum err err = OK;

    if (encoder_ref_get(live->encoder) == NULL)
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "a collection of external vectors has no encoder to train");
    if (err == OK) {
        learn_form_of(encoder_ref_get(live->encoder), &form);
        err = learn_plan(
            engine, c, &form, options_json, &resume, &options, fault);
    }
    snapshot_unref(live);
    return err;
}
