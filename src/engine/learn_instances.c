/*
 * learn_instances.c - items as examples: two views of one item are a pair.
 *
 * Without pairs to judge by, a share of the items, by the hash of their
 * number, judges: a view of the item is the question, the item the answer. The
 * view is fixed by the item's content alone (of pictures: by the default
 * options), so that rounds of other options are judged alike.
 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "engine/learn_data.h"
#include "image/augment.h"
#include "train/views.h"

#define PICTURES_AT_ONCE 512
#define SEED_VIEW 0x766965

struct instances {
    struct learn_data *data;
    const struct learn_options *options;
    struct item_map map;
    int64_t items_upto;
    size_t cap;
    int64_t *items; /* [n_examples], for their labels */
    float *workspace;
    struct augment_options views;
    enum err err;
};

/* ---- questions ----------------------------------------------------------- */

static void
view_of_text(const struct encoder_input *input, struct encoder_input *out)
{
    struct view anchor;
    views_judge(input->text, input->len, &anchor);
    *out = (struct encoder_input){
        .text = anchor.text, .len = anchor.len, .query = true};
}

static enum err
view_of_picture(struct instances *in, const struct encoder_input *input,
    struct encoder_input *out)
{
    const struct learn_form *form = &in->data->form;
    struct image *image = arena_alloc(&in->data->arena, 1, sizeof *image);
    struct rng rng;

    if (image == NULL)
        return ERR_NOMEM;
    *image = *input->image;
    image->pixels = arena_alloc(&in->data->arena, learn_picture_bytes(form), 1);
    if (image->pixels == NULL)
        return ERR_NOMEM;
    rng_seed(&rng, learn_key(input) ^ SEED_VIEW);
    augment(image->pixels, form->side, form->channels, input->image, &in->views,
        &rng, in->workspace);
    *out = (struct encoder_input){.image = image, .query = true};
    return OK;
}

static enum err
add_question(struct instances *in, struct learn_questions *q, int64_t item,
    uint32_t ord, const struct encoder_input *input)
{
    uint32_t *relevant = arena_alloc(&in->data->arena, 1, sizeof *relevant);
    enum err err = relevant == NULL ? ERR_NOMEM : OK;

    if (err == OK && input->image != NULL)
        err = view_of_picture(in, input, &q->anchors[q->n]);
    else if (err == OK)
        view_of_text(input, &q->anchors[q->n]);
    if (err != OK)
        return err;
    *relevant = ord;
    q->questions[q->n++] = (struct judge_question){.relevant = relevant,
        .n_relevant = 1,
        .skip = ANN_NONE,
        .group = (uint64_t)item};
    return OK;
}

/* Which questions an item belongs to; NULL: it trains. */
static struct learn_questions *
questions_of(struct learn_data *data, int64_t item)
{
    uint64_t share = hash_u64((uint64_t)item) % LEARN_INSTANCE_SHARES;
    if (!data->views || share > 1)
        return NULL;
    return share == 0 ? &data->judge : &data->tune;
}

static size_t
questions_max(const struct learn_data *data, const struct learn_questions *q)
{
    return q == &data->judge ? LEARN_QUESTIONS_MAX : LEARN_TUNE_MAX;
}

/* ---- examples ------------------------------------------------------------ */

static void
add_example(struct instances *in, int64_t item, uint32_t ord,
    const struct encoder_input *input)
{
    struct learn_data *data = in->data;
    struct batch_side side = {.input = *input, .key = learn_key(input)};

    in->items[data->n_examples] = item;
    data->ords[data->n_examples] =
        (struct learn_ords){.anchor = ord, .positive = ord};
    data->examples[data->n_examples++] =
        (struct batch_example){.anchor = side, .positive = side, .weight = 1};
}

static bool
add_text(void *arg, int64_t item, const char *text, size_t len)
{
    struct instances *in = arg;
    struct learn_data *data = in->data;
    struct learn_questions *q = questions_of(data, item);
    struct encoder_input copy = {.len = len};
    uint32_t ord = item_map_find(&in->map, item);

    if (item > in->items_upto)
        return false;
    data->n_absent += len == 0;
    data->n_left_out += len > 0 && q == NULL && data->n_examples == in->cap;
    if (len == 0 || (q == NULL && data->n_examples == in->cap) ||
        (q != NULL && (ord == ANN_NONE || q->n == questions_max(data, q))))
        return true;
    copy.text = arena_strndup(&data->arena, text, len);
    in->err = copy.text == NULL ? ERR_NOMEM : OK;
    if (in->err == OK && q != NULL)
        in->err = add_question(in, q, item, ord, &copy);
    else if (in->err == OK)
        add_example(in, item, ord, &copy);
    return in->err == OK;
}

/* The items whose pictures are read: those that judge, and of the others as
   many as fit, by the seed. In the order of their numbers. */
static size_t
choose_pictures(struct instances *in, size_t *out)
{
    struct learn_data *data = in->data;
    size_t n = 0, n_train = 0, n_asked[2] = {0, 0}, kept = 0;
    struct rng rng;

    while (n < in->map.n && in->map.items[n] <= in->items_upto)
        n++;
    for (size_t i = 0; i < n; i++)
        n_train += questions_of(data, in->map.items[i]) == NULL;
    size_t left = n_train, take = MIN(n_train, in->cap);
    data->n_left_out = n_train - take;
    rng_seed_stream(&rng, in->options->train.seed, 4);
    for (size_t i = 0; i < n; i++) {
        struct learn_questions *q = questions_of(data, in->map.items[i]);
        if (q != NULL) {
            /* some have no picture: a few more than are asked for */
            size_t *asked = &n_asked[q == &data->judge];
            if (*asked < 2 * questions_max(data, q)) {
                out[kept++] = i;
                ++*asked;
            }
            continue;
        }
        if (rng_below(&rng, left--) < take) {
            out[kept++] = i;
            take--;
        }
    }
    return kept;
}

static enum err
add_pictures(struct instances *in, struct engine *engine, struct collection *c,
    const size_t *chosen, size_t n)
{
    struct learn_data *data = in->data;
    int64_t items[PICTURES_AT_ONCE];
    struct encoder_input inputs[PICTURES_AT_ONCE];
    enum err err = OK;

    for (size_t first = 0; first < n && err == OK; first += PICTURES_AT_ONCE) {
        size_t count = MIN(n - first, (size_t)PICTURES_AT_ONCE);
        for (size_t i = 0; i < count; i++)
            items[i] = in->map.items[chosen[first + i]];
        err = learn_pictures(
            engine, c, &data->form, items, count, &data->arena, inputs);
        for (size_t i = 0; i < count && err == OK; i++) {
            struct learn_questions *q = questions_of(data, items[i]);
            uint32_t ord = in->map.ords[chosen[first + i]];
            data->n_absent += inputs[i].image == NULL;
            if (inputs[i].image == NULL)
                continue;
            if (q == NULL)
                add_example(in, items[i], ord, &inputs[i]);
            else if (q->n < questions_max(data, q))
                err = add_question(in, q, items[i], ord, &inputs[i]);
        }
        engine_yield_to_searches(engine);
    }
    return err;
}

static enum err
walk_pictures(struct instances *in, struct engine *engine, struct collection *c)
{
    const struct learn_form *form = &in->data->form;
    size_t *chosen = mem_alloc(in->map.n, sizeof *chosen);
    enum err err;

    in->workspace = mem_alloc_aligned(
        augment_workspace_floats(form->side, form->channels) + 1,
        sizeof *in->workspace);
    if (chosen == NULL || in->workspace == NULL) {
        err = ERR_NOMEM;
    } else {
        augment_options_default(&in->views, form->channels);
        err = add_pictures(in, engine, c, chosen, choose_pictures(in, chosen));
    }
    mem_free(in->workspace);
    mem_free(chosen);
    return err;
}

/* ---- the whole ----------------------------------------------------------- */

static enum err
instances_init(struct instances *in, struct collection *c)
{
    struct learn_data *data = in->data;
    size_t bytes = learn_picture_bytes(&data->form);
    enum err err = item_map_new(&in->map, c->roster);

    if (err != OK)
        return err;
    in->cap = MIN(in->map.n, LEARN_EXAMPLES_MAX);
    if (bytes > 0)
        in->cap = MIN(in->cap, LEARN_PICTURE_BYTES_MAX / bytes);
    data->n_examples = 0;
    data->examples =
        arena_alloc(&data->arena, in->cap + 1, sizeof *data->examples);
    data->ords = arena_alloc(&data->arena, in->cap + 1, sizeof *data->ords);
    in->items = mem_alloc(in->cap + 1, sizeof *in->items);
    if (data->examples == NULL || data->ords == NULL || in->items == NULL)
        return ERR_NOMEM;
    if (!data->views)
        return OK;
    err = learn_questions_alloc(data, &data->judge, LEARN_QUESTIONS_MAX);
    return err != OK ? err
                     : learn_questions_alloc(data, &data->tune, LEARN_TUNE_MAX);
}

static enum err
add_labels(struct instances *in, struct engine *engine)
{
    struct learn_data *data = in->data;
    uint64_t *labels = mem_alloc(data->n_examples + 1, sizeof *labels);
    enum err err = labels == NULL ? ERR_NOMEM
                                  : learn_labels(engine, in->options->label,
                                        in->items, data->n_examples, labels);
    for (size_t i = 0; i < data->n_examples && err == OK; i++)
        data->examples[i].label = labels[i];
    mem_free(labels);
    return err;
}

enum err
learn_collect_instances(struct engine *engine, struct collection *c,
    struct learn_data *data, const struct learn_options *options,
    int64_t items_upto, struct fault *fault)
{
    struct instances in = {
        .data = data, .options = options, .items_upto = items_upto};
    enum err err = instances_init(&in, c);

    if (err == OK && data->form.reads == ENCODER_READS_IMAGE)
        err = walk_pictures(&in, engine, c);
    else if (err == OK)
        err = learn_walk_documents(engine, c, add_text, &in);
    if (err == OK)
        err = in.err;
    if (err == OK)
        err = add_labels(&in, engine);
    item_map_release(&in.map);
    mem_free(in.items);
    if (err == OK && data->views) {
        struct train_policy policy;
        collection_policy(c, &policy);
        data->judge.n_groups = data->judge.n;
        data->tune.n_groups = data->tune.n;
        if ((int64_t)data->judge.n < policy.min_groups)
            err = fault_set(fault, ERR_INVALID, "",
                "training on instances without pairs needs %" PRId64
                " items to judge by, a tenth of the collection; there are %zu",
                policy.min_groups, data->judge.n);
    }
    return err;
}
