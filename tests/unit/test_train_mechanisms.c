/*
 * Goal: every mechanism learns from pairs and from instances, texts and
 * pictures, with every loss that it takes; each is its parts in the order of
 * its source, and the gradient goes where the header says.
 *
 * Method: small tasks that need learning; a queue and a bank written down
 * again naively, step by step, against the run's parameters; what must have
 * been refused, and what it says.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/pool.h"
#include "kern/kern.h"
#include "tests/support/train_kit.h"
#include "train/loop.h"
#include "train/run.h"

#define N TRAIN_KIT_N
#define D 32

static struct batch_example examples[N];

static struct encoder *
make(bool pictures)
{
    struct encoder *encoder = NULL;
    assert_int_equal(
        encoder_new(&encoder, pictures ? "vision" : "static",
            pictures ? TRAIN_KIT_PICTURES : TRAIN_KIT_TEXT, NULL, NULL),
        OK);
    return encoder;
}

/* The bank of all items, by the encoder as it is. */
struct bank {
    float vectors[N * D];
    uint64_t keys[N];
    struct train_bank bank;
};

static struct train_bank *
bank_of(struct bank *b, const struct encoder *encoder)
{
    struct encoder_input inputs[N];
    for (size_t i = 0; i < N; i++) {
        inputs[i] = examples[i].positive.input;
        b->keys[i] = examples[i].positive.key;
    }
    assert_int_equal(
        encoder_encode(encoder, inputs, N, b->vectors, NULL, NULL), OK);
    b->bank =
        (struct train_bank){.vectors = b->vectors, .keys = b->keys, .n = N};
    return &b->bank;
}

struct seen {
    struct train_point first, last;
    size_t n_points;
};

static bool
watch(void *arg, const struct train_point *point)
{
    struct seen *seen = arg;
    if (point == NULL)
        return true;
    assert_true(isfinite(point->loss) && isfinite(point->positive) &&
                isfinite(point->negative));
    assert_true(point->spread >= 0 && point->spread <= 1.0001);
    assert_true(point->staleness >= 0);
    if (seen->n_points++ == 0)
        seen->first = *point;
    seen->last = *point;
    return true;
}

static void
run(struct encoder *encoder, const struct train_options *o,
    struct train_bank *bank, struct pool *pool, struct seen *seen,
    struct train_result *result)
{
    struct fault fault = {0};
    memset(seen, 0, sizeof *seen);
    enum err err = train_run(
        encoder, examples, N, o, bank, NULL, pool, watch, seen, result, &fault);
    if (err != OK)
        print_error("%s: %s\n", err_text(err), fault.detail);
    assert_int_equal(err, OK);
}

static struct train_options
small_run(
    enum train_pretext pretext, enum train_mechanism mechanism, bool pictures)
{
    struct train_options o;
    train_options_default(&o, pretext, mechanism,
        pictures ? ENCODER_READS_IMAGE : ENCODER_READS_TEXT, pictures ? 1 : 0);
    o.batch = 12;
    o.epochs = 16;
    o.min_steps = 0;
    o.temperature = 0.1f;
    o.queue = 20;
    o.momentum = 0.5f;
    o.bank_sample = 20;
    o.head_dims = 16;
    if (pictures) {
        o.schedule.lr = 0.01f;
        o.epochs = 30;
        o.views.crop_min = 0.6f;
        o.views.jitter = o.views.blur = o.views.erase = 0;
    } else {
        o.schedule.lr = 0.1f;
    }
    return o;
}

static bool
takes(enum train_mechanism mechanism, enum train_loss loss)
{
    bool of_views = loss == TRAIN_FOUR_WAY || loss == TRAIN_NT_XENT;
    return mechanism == TRAIN_IN_BATCH ||
           (!of_views &&
               (loss != TRAIN_SYMMETRIC || mechanism == TRAIN_MOMENTUM_QUEUE));
}

static void
check_learns(bool pictures, enum train_pretext pretext, bool head)
{
    static struct bank bank;
    for (int m = 0; m < TRAIN_MECHANISMS; m++) {
        for (int loss = 0; loss < TRAIN_LOSSES; loss++) {
            struct encoder *encoder = make(pictures);
            struct train_options o =
                small_run(pretext, (enum train_mechanism)m, pictures);
            struct train_result result;
            struct seen seen;
            o.loss = (enum train_loss)loss;
            o.head_layers = head ? 2 : 0;
            if (pictures && !head)
                o.epochs = 8; /* a head takes longer */
            /* the pictures' labels have no meaning to learn */
            if (!takes(o.mechanism, o.loss) ||
                (pictures && o.loss == TRAIN_SUPCON)) {
                encoder_free(encoder);
                continue;
            }
            run(encoder, &o, bank_of(&bank, encoder), NULL, &seen, &result);
            double before = seen.first.positive - seen.first.negative;
            double after = seen.last.positive - seen.last.negative;
            if (!(after > before + 0.02))
                print_error("%s %s: %.3f to %.3f\n", train_mechanism_names[m],
                    train_loss_names[loss], before, after);
            assert_true(after > before + 0.02);
            assert_int_equal(result.collapsed, false);
            assert_int_equal(result.n_views,
                result.n_steps * o.batch *
                    (m == TRAIN_IN_BATCH || loss == TRAIN_SYMMETRIC ? 2 : 1));
            if (m == TRAIN_IN_BATCH)
                assert_true(result.staleness <= 0);
            else
                assert_true(result.staleness > 0.5);
            encoder_free(encoder);
        }
    }
}

static void
test_learns_pairs_of_texts(void **state)
{
    (void)state;
    train_kit_pairs(examples);
    check_learns(false, TRAIN_PAIRS, false);
    check_learns(false, TRAIN_PAIRS, true);
}

static void
test_learns_instances_of_texts(void **state)
{
    (void)state;
    train_kit_items(examples);
    check_learns(false, TRAIN_INSTANCES, false);
}

static void
test_learns_pictures(void **state)
{
    (void)state;
    train_kit_pictures(examples);
    check_learns(true, TRAIN_INSTANCES, true);
    check_learns(true, TRAIN_PAIRS, false);
}

static void
fingerprint_of(uint8_t out[SHA256_BYTES], const struct train_options *o,
    bool pictures, struct pool *pool)
{
    static struct bank bank;
    struct encoder *encoder = make(pictures);
    struct train_result result;
    struct seen seen;
    run(encoder, o, bank_of(&bank, encoder), pool, &seen, &result);
    encoder_fingerprint(encoder, out);
    encoder_free(encoder);
}

static void
test_same_bits_for_any_pool(void **state)
{
    (void)state;
    for (int pictures = 0; pictures < 2; pictures++) {
        if (pictures)
            train_kit_pictures(examples);
        else
            train_kit_items(examples);
        for (int m = 0; m < TRAIN_MECHANISMS; m++) {
            struct train_options o =
                small_run(TRAIN_INSTANCES, (enum train_mechanism)m, pictures);
            uint8_t want[SHA256_BYTES], got[SHA256_BYTES];
            o.max_steps = 5;
            o.micro_batch = 7;
            o.char_noise = 0.2f;
            fingerprint_of(want, &o, pictures, NULL);
            for (size_t threads = 1; threads <= 3; threads++) {
                struct pool *pool;
                assert_int_equal(pool_new(&pool, threads, false), OK);
                fingerprint_of(got, &o, pictures, pool);
                assert_memory_equal(got, want, sizeof got);
                pool_free(pool);
            }
            o.seed++;
            fingerprint_of(got, &o, pictures, NULL);
            assert_memory_not_equal(got, want, sizeof got);
        }
    }
}

/* Every option of a mechanism that should matter does. */
static void
test_options_matter(void **state)
{
    struct train_options o[12];
    uint8_t prints[ARRAY_LEN(o)][SHA256_BYTES];
    size_t n = 0;

    (void)state;
    train_kit_items(examples);
    for (int m = 0; m < TRAIN_MECHANISMS; m++) {
        struct train_options usual =
            small_run(TRAIN_INSTANCES, (enum train_mechanism)m, false);
        usual.max_steps = 6;
        o[n++] = usual;
        o[n] = usual;
        o[n++].char_noise = 0.5f;
        o[n] = usual;
        o[n++].head_layers = 1;
        if (m == TRAIN_MOMENTUM_QUEUE) {
            o[n] = usual;
            o[n++].momentum = 0.9f;
            o[n] = usual;
            o[n++].queue = 40;
        } else if (m == TRAIN_MEMORY_BANK) {
            o[n] = usual;
            o[n++].bank_sample = 30;
        }
    }
    assert_int_equal(n, ARRAY_LEN(o));
    for (size_t i = 0; i < n; i++) {
        fingerprint_of(prints[i], &o[i], false, NULL);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(prints[i], prints[j], SHA256_BYTES);
    }
}

/* ------------------------------------------------- against plain versions */

/* What one step of a plain version needs. */
struct plain {
    struct encoder *encoder;
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct optimizer *optimizer;
    struct batch_plan *plan;
    size_t n_params;
    float *params;
};

static void
plain_init(struct plain *p, const struct train_options *o)
{
    p->encoder = make(false);
    assert_int_equal(encoder_tape_new(&p->tape, p->encoder), OK);
    assert_int_equal(encoder_grads_new(&p->grads, p->encoder), OK);
    p->params = encoder_params(p->encoder, &p->n_params);
    assert_int_equal(
        optimizer_new(&p->optimizer, p->n_params, &o->optimizer), OK);
    assert_int_equal(batch_plan_new(&p->plan, examples, N, o->batch,
                         o->group_share, o->seed),
        OK);
}

static void
plain_release(struct plain *p)
{
    batch_plan_free(p->plan);
    optimizer_free(p->optimizer);
    encoder_grads_free(p->grads);
    encoder_tape_free(p->tape);
    encoder_free(p->encoder);
}

/* Anchors against keys [M, D], gradient on the anchors; then the optimiser. */
static void
plain_step(struct plain *p, const struct train_options *o,
    const uint32_t *index, size_t B, const float *keys, const uint64_t *key,
    size_t M, size_t step, size_t n_steps)
{
    struct encoder_input inputs[64] = {{0}};
    float z[64 * D], dz[64 * D] = {0};
    double sum_w = (double)B;

    for (size_t i = 0; i < B; i++)
        inputs[i] = examples[index[i]].anchor.input;
    assert_int_equal(
        encoder_forward(p->encoder, p->tape, inputs, B, NULL, z, NULL), OK);
    for (size_t i = 0; i < B; i++) {
        double e[256], total = 0;
        for (size_t j = 0; j < M; j++) {
            const struct batch_example *own = &examples[index[i]];
            bool masked = j != i && (key[j] == own->anchor.key ||
                                        key[j] == own->positive.key);
            e[j] = masked ? 0
                          : exp(kern()->dot_f64(z + i * D, keys + j * D, D) /
                                (double)o->temperature);
            total += e[j];
        }
        for (size_t j = 0; j < M; j++) {
            double g = (e[j] / total - (j == i)) / sum_w;
            for (size_t d = 0; d < D; d++)
                dz[i * D + d] += (float)(g / (double)o->temperature *
                                         (double)keys[j * D + d]);
        }
    }
    encoder_grads_clear(p->grads);
    assert_int_equal(
        encoder_backward(p->encoder, p->tape, dz, p->grads, NULL), OK);
    optimizer_step(p->optimizer, p->params, p->grads,
        schedule_rate(&o->schedule, step, n_steps), NULL);
}

static void
same_params(const struct encoder *got, const struct plain *want)
{
    size_t n;
    const float *p = encoder_params_const(got, &n);
    double d = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        d += pow((double)(p[i] - want->params[i]), 2);
        norm += pow((double)want->params[i], 2);
    }
    assert_true(sqrt(d / norm) <= 1e-4);
}

static struct train_options
plain_options(enum train_mechanism mechanism)
{
    struct train_options o = small_run(TRAIN_PAIRS, mechanism, false);
    o.token_dropout = o.feature_dropout = 0;
    optimizer_options_default(&o.optimizer, OPTIMIZER_SGD);
    o.schedule.lr = 1;
    o.max_steps = 14;
    return o;
}

/* Keys of theta_k, a list from which the oldest go, momentum after the step. */
static void
test_queue_against_plain(void **state)
{
    enum { STEPS = 14, B = 12, K = 20 };
    struct train_options o = plain_options(TRAIN_MOMENTUM_QUEUE);
    struct encoder *got = make(false), *theta_k = make(false);
    struct plain p;
    struct train_result result;
    struct seen seen;
    float keys[(B + K + B) * D];
    uint64_t key[B + K + B];
    size_t n_list = 0, n_params, index_n;
    const uint32_t *index;

    (void)state;
    train_kit_pairs(examples);
    plain_init(&p, &o);
    float *k_params = encoder_params(theta_k, &n_params);
    for (size_t step = 0; step < STEPS; step++) {
        struct encoder_input inputs[B];
        assert_int_equal(batch_plan_next(p.plan, &index, &index_n), OK);
        assert_int_equal(index_n, B);
        /* the list is newest first, this batch before it */
        memmove(keys + B * D, keys, n_list * D * sizeof *keys);
        memmove(key + B, key, n_list * sizeof *key);
        for (size_t i = 0; i < B; i++) {
            inputs[i] = examples[index[i]].positive.input;
            key[i] = examples[index[i]].positive.key;
        }
        assert_int_equal(
            encoder_encode(theta_k, inputs, B, keys, NULL, NULL), OK);
        plain_step(&p, &o, index, B, keys, key, B + n_list, step, STEPS);
        for (size_t i = 0; i < n_params; i++)
            k_params[i] =
                o.momentum * k_params[i] + (1 - o.momentum) * p.params[i];
        /* of a batch in its order, the last is the newest: turn it over */
        for (size_t i = 0; i < B / 2; i++) {
            float row[D];
            uint64_t t = key[i];
            memcpy(row, keys + i * D, sizeof row);
            memcpy(keys + i * D, keys + (B - 1 - i) * D, sizeof row);
            memcpy(keys + (B - 1 - i) * D, row, sizeof row);
            key[i] = key[B - 1 - i];
            key[B - 1 - i] = t;
        }
        n_list = MIN(n_list + B, (size_t)K);
    }
    run(got, &o, NULL, NULL, &seen, &result);
    assert_int_equal(result.n_steps, STEPS);
    same_params(got, &p);
    /* at the end the queue held 12 of the step before and 8 of age 2 */
    assert_true(fabs(result.staleness - (12 * 1 + 8 * 2) / 20.0) <= 1e-9);
    plain_release(&p);
    encoder_free(got);
    encoder_free(theta_k);
}

/* All rows of the bank beside the batch's own keys, refreshed after a step. */
static void
test_bank_against_plain(void **state)
{
    enum { STEPS = 14, B = 12 };
    static struct bank bank, want;
    struct train_options o = plain_options(TRAIN_MEMORY_BANK);
    struct encoder *got = make(false);
    struct plain p;
    struct train_result result;
    struct seen seen;
    static float keys[(B + N) * D];
    uint64_t key[B + N];
    size_t made[N] = {0}, n;
    double age = 0;
    const uint32_t *index;

    (void)state;
    o.bank_sample = 1000; /* all */
    train_kit_pairs(examples);
    plain_init(&p, &o);
    (void)bank_of(&want, got);
    for (size_t step = 0; step < STEPS; step++) {
        struct encoder_input inputs[B];
        assert_int_equal(batch_plan_next(p.plan, &index, &n), OK);
        for (size_t i = 0; i < B; i++) {
            inputs[i] = examples[index[i]].positive.input;
            key[i] = examples[index[i]].positive.key;
        }
        assert_int_equal(
            encoder_encode(p.encoder, inputs, B, keys, NULL, NULL), OK);
        memcpy(keys + B * D, want.vectors, sizeof want.vectors);
        memcpy(key + B, want.keys, sizeof want.keys);
        plain_step(&p, &o, index, B, keys, key, B + N, step, STEPS);
        age = 0;
        for (size_t i = 0; i < N; i++)
            age += (double)(step - made[i]) / N;
        for (size_t i = 0; i < B; i++) {
            memcpy(want.vectors + index[i] * D, keys + i * D, D * sizeof *keys);
            made[index[i]] = step;
        }
    }
    run(got, &o, bank_of(&bank, got), NULL, &seen, &result);
    same_params(got, &p);
    assert_true(fabs(result.staleness - age) <= 1e-9);
    for (size_t i = 0; i < N * D; i++)
        assert_true(fabsf(bank.vectors[i] - want.vectors[i]) <= 1e-4f);
    plain_release(&p);
    encoder_free(got);
}

/* Half of the bank a step: no row twice, other ones in other steps, known
   positives never against their anchors. With one anchor repeated in many
   pairs and a bank of its positives alone, nothing but the batch is left. */
static void
test_bank_masks_known_positives(void **state)
{
    static struct bank bank;
    struct encoder *encoder = make(false);
    struct train_options o = plain_options(TRAIN_MEMORY_BANK);
    struct train_result result;
    struct seen with, without;

    (void)state;
    train_kit_pairs(examples);
    for (size_t i = 0; i < N; i += 2) { /* pairs of texts of one meaning */
        examples[i + 1].anchor = examples[i].anchor;
        examples[i].positive.input = examples[i + 1].positive.input;
    }
    o.max_steps = 1;
    o.bank_sample = 1000;
    /* the bank holds every positive twice over: own and known ones masked, the
       loss is that of a bank without them */
    run(encoder, &o, bank_of(&bank, encoder), NULL, &with, &result);
    encoder_free(encoder);
    encoder = make(false);
    (void)bank_of(&bank, encoder);
    for (size_t i = 0; i < N; i++)
        bank.keys[i] = hash_u64(i); /* strangers: nothing is masked */
    run(encoder, &o, &bank.bank, NULL, &without, &result);
    assert_true(with.last.loss < without.last.loss - 0.01);
    encoder_free(encoder);
}

/* Items of one word have twice the same view: then both directions are the
   same, and their mean is either. */
static void
test_both_directions(void **state)
{
    static char words[N][16];
    struct encoder *one = make(false), *both = make(false);
    struct train_options o = plain_options(TRAIN_MOMENTUM_QUEUE);
    struct train_result result;
    struct seen seen_one, seen_both;
    double d = 0, norm = 0;
    size_t n;

    (void)state;
    for (size_t i = 0; i < N; i++) {
        int len = snprintf(words[i], sizeof words[i], "w%zuord", i * i);
        examples[i] = (struct batch_example){.weight = 1};
        examples[i].anchor.input =
            (struct encoder_input){.text = words[i], .len = (size_t)len};
        examples[i].anchor.key = hash_u64(i);
        examples[i].positive = examples[i].anchor;
    }
    o.pretext = TRAIN_INSTANCES;
    run(one, &o, NULL, NULL, &seen_one, &result);
    o.loss = TRAIN_SYMMETRIC;
    run(both, &o, NULL, NULL, &seen_both, &result);
    const float *p = encoder_params_const(one, &n);
    const float *q = encoder_params_const(both, &n);
    for (size_t i = 0; i < n; i++) {
        d += pow((double)(p[i] - q[i]), 2);
        norm += pow((double)p[i], 2);
    }
    assert_true(sqrt(d / norm) <= 1e-5);
    assert_true(fabs(seen_one.last.loss - seen_both.last.loss) <= 1e-4);
    assert_true(fabs(seen_one.last.positive - seen_both.last.positive) <= 1e-4);
    encoder_free(one);
    encoder_free(both);
}

/* Keys of the anchor's own item in the queue are masked: instances of few
   items, each of which is in the queue many times. */
static void
test_queue_masks_own_item(void **state)
{
    struct encoder *encoder = make(false);
    struct train_options o =
        small_run(TRAIN_INSTANCES, TRAIN_MOMENTUM_QUEUE, false);
    struct train_result result;
    struct fault fault = {0};
    struct seen seen = {0};

    (void)state;
    train_kit_items(examples);
    for (size_t i = 0; i < N; i++)
        examples[i] = examples[i % 4];
    o.batch = 4;
    o.queue = 40;
    o.temperature = 0.05f;
    o.epochs = 4;
    assert_int_equal(train_run(encoder, examples, N, &o, NULL, NULL, NULL,
                         watch, &seen, &result, &fault),
        OK);
    /* 44 keys, of which 11 are one's own: unmasked, no anchor could come
       below log 11 */
    assert_true(seen.last.loss < 1);
    encoder_free(encoder);
}

/* ------------------------------------------------------------- refusals */

static void
test_refusals(void **state)
{
    static const struct {
        const char *pointer;
        enum train_mechanism mechanism;
        enum train_loss loss;
        size_t batch, queue, head_layers;
        float momentum, temperature;
    } bad[] = {{"/batch", 0, 0, 1, 4096, 0, 0.9f, 1},
        {"/temperature", 0, 0, 8, 4096, 0, 0.9f, 0},
        {"/temperature", 0, 0, 8, 4096, 0, 0.9f, NAN},
        {"/queue", TRAIN_MOMENTUM_QUEUE, 0, 8, 7, 0, 0.9f, 1},
        {"/momentum", TRAIN_MOMENTUM_QUEUE, 0, 8, 8, 0, 1, 1},
        {"/momentum", TRAIN_MOMENTUM_QUEUE, 0, 8, 8, 0, NAN, 1},
        {"/loss", TRAIN_MOMENTUM_QUEUE, TRAIN_NT_XENT, 8, 8, 0, 0.9f, 1},
        {"/loss", TRAIN_MEMORY_BANK, TRAIN_FOUR_WAY, 8, 8, 0, 0.9f, 1},
        {"/loss", TRAIN_MEMORY_BANK, TRAIN_SYMMETRIC, 8, 8, 0, 0.9f, 1},
        {"/head_layers", 0, 0, 8, 8, 4, 0.9f, 1}};
    struct encoder *encoder = make(false);

    (void)state;
    train_kit_pairs(examples);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct train_options o =
            small_run(TRAIN_PAIRS, bad[i].mechanism, false);
        struct train_result result;
        struct fault fault = {0};
        o.loss = bad[i].loss;
        o.batch = bad[i].batch;
        o.queue = bad[i].queue;
        o.head_layers = bad[i].head_layers;
        o.momentum = bad[i].momentum;
        o.temperature = bad[i].temperature;
        assert_int_equal(train_options_check(&o, &fault), ERR_INVALID);
        assert_string_equal(fault.pointer, bad[i].pointer);
        assert_true(strlen(fault.detail) > 20);
        assert_int_equal(train_run(encoder, examples, N, &o, NULL, NULL, NULL,
                             NULL, NULL, &result, NULL),
            ERR_INVALID);
    }
    for (int m = 0; m < TRAIN_MECHANISMS; m++) {
        for (int t = 0; t < 4; t++) {
            struct train_options o;
            train_options_default(&o, t % 2 ? TRAIN_PAIRS : TRAIN_INSTANCES,
                (enum train_mechanism)m,
                t / 2 ? ENCODER_READS_IMAGE : ENCODER_READS_TEXT, 3);
            assert_int_equal(train_options_check(&o, NULL), OK);
        }
    }
    encoder_free(encoder);
}

/* A step's masks are bounded by its rows times its keys. */
static void
test_masks_are_bounded(void **state)
{
    static const struct {
        enum train_pretext pretext;
        enum train_mechanism mechanism;
        enum train_loss loss;
        size_t batch, kept, most; /* most: as the refusal names it; 0: fits */
        const char *pointer;
    } all[] = {{TRAIN_PAIRS, TRAIN_IN_BATCH, TRAIN_SYMMETRIC, 8192, 1, 0, ""},
        {TRAIN_PAIRS, TRAIN_IN_BATCH, TRAIN_NT_XENT, 7680, 1, 0, ""},
        {TRAIN_PAIRS, TRAIN_IN_BATCH, TRAIN_NT_XENT, 7681, 1, 7680, "/batch"},
        {TRAIN_INSTANCES, TRAIN_IN_BATCH, TRAIN_DCL, 8192, 1, 0, ""},
        {TRAIN_INSTANCES, TRAIN_IN_BATCH, TRAIN_DCL, 8193, 1, 8192, "/batch"},
        {TRAIN_PAIRS, TRAIN_IN_BATCH, TRAIN_SUPCON, SIZE_MAX, 1, 7680,
            "/batch"},
        {TRAIN_INSTANCES, TRAIN_MOMENTUM_QUEUE, TRAIN_INFONCE, 255, 1048576, 0,
            ""},
        {TRAIN_INSTANCES, TRAIN_MOMENTUM_QUEUE, TRAIN_INFONCE, 256, 1048576,
            1048320, "/queue"},
        {TRAIN_PAIRS, TRAIN_MOMENTUM_QUEUE, TRAIN_SYMMETRIC, 8192, 23552, 0,
            ""},
        {TRAIN_PAIRS, TRAIN_MOMENTUM_QUEUE, TRAIN_SYMMETRIC, 8192, 23553, 23552,
            "/queue"},
        {TRAIN_PAIRS, TRAIN_MOMENTUM_QUEUE, TRAIN_INFONCE, SIZE_MAX, SIZE_MAX,
            15360, "/batch"},
        {TRAIN_PAIRS, TRAIN_MEMORY_BANK, TRAIN_INFONCE, 1024, 65536, 0, ""},
        {TRAIN_PAIRS, TRAIN_MEMORY_BANK, TRAIN_DCL, 8192, 65536, 23552,
            "/bank_sample"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct train_options o =
            small_run(all[i].pretext, all[i].mechanism, false);
        struct fault fault = {0};
        char most[32];
        o.loss = all[i].loss;
        o.batch = all[i].batch;
        o.queue = o.bank_sample = all[i].kept;
        snprintf(most, sizeof most, "at most %zu", all[i].most);
        assert_int_equal(train_options_check(&o, &fault),
            all[i].most == 0 ? OK : ERR_INVALID);
        assert_string_equal(fault.pointer, all[i].pointer);
        if (all[i].most > 0)
            assert_non_null(strstr(fault.detail, most));
    }
}

/* What a run would take is bounded before any is taken: queues of many keys by
   their dims, pictures by what their tape holds. */
static void
test_memory_is_bounded(void **state)
{
    static const struct {
        size_t queue, layers, head_dims, dims, fits;
    } queues[] = {{1048576, 0, 128, 512, 1}, {1048576, 0, 128, 513, 0},
        {1048576, 2, 128, 4096, 1}, {1048576, 2, 4096, 32, 0},
        {131072, 2, 4096, 32, 1}, {131073, 2, 4096, 32, 0}};
    struct train_options o = small_run(TRAIN_PAIRS, TRAIN_MOMENTUM_QUEUE, true);
    struct encoder *small = make(true), *large = NULL, *text = make(false);
    struct train_result result;
    struct fault fault = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
        fault = (struct fault){0};
        o.queue = queues[i].queue;
        o.head_layers = queues[i].layers;
        o.head_dims = queues[i].head_dims;
        assert_int_equal(train_options_check_dims(&o, queues[i].dims, &fault),
            queues[i].fits ? OK : ERR_INVALID);
        assert_string_equal(fault.pointer, queues[i].fits ? "" : "/queue");
    }
    train_kit_pairs(examples);
    assert_int_equal(train_run(text, examples, N, &o, NULL, NULL, NULL, NULL,
                         NULL, &result, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/queue");
    o.mechanism = TRAIN_IN_BATCH;
    assert_int_equal(train_options_check_dims(&o, 4096, NULL), OK);

    assert_int_equal(encoder_new(&large, "vision",
                         "{\"input\":224,\"stem_stride\":2}", NULL, NULL),
        OK);
    size_t each = encoder_tape_input_bytes(large, NULL);
    for (size_t micro = 0; micro <= 8192; micro += 8192) {
        o.micro_batch = micro;
        size_t piece = run_piece(large, &o, 16384);
        assert_true(piece > 8 && piece < 256);
        assert_true(piece * each <= GRADCACHE_TAPE_BYTES);
        assert_true((piece + 1) * each > GRADCACHE_TAPE_BYTES);
        /* what is small is as it was asked for */
        assert_int_equal(run_piece(small, &o, 16384), micro == 0 ? 256 : micro);
        assert_int_equal(run_piece(small, &o, 24), 24);
        assert_int_equal(
            run_piece(text, &o, 16384), micro == 0 ? 16384 : micro);
    }
    encoder_free(small);
    encoder_free(large);
    encoder_free(text);
}

/* Everything in one place: texts that the encoder cannot tell apart, though
   their keys differ. The run stops itself and says why; an untrained encoder
   on texts that differ is far from that. */
static void
test_collapse_stops_the_run(void **state)
{
    struct encoder *encoder = make(false);
    struct train_options o = small_run(TRAIN_PAIRS, TRAIN_IN_BATCH, false);
    struct train_result result = {0};
    struct fault fault = {0};
    struct seen seen = {0};

    (void)state;
    train_kit_pairs(examples);
    o.token_dropout = o.feature_dropout = 0;
    run(encoder, &o, NULL, NULL, &seen, &result);
    assert_true(seen.first.spread > 0.5 && seen.last.spread > 0.5);
    encoder_free(encoder);
    encoder = make(false);
    for (size_t i = 0; i < N; i++)
        examples[i].anchor.input = examples[i].positive.input =
            examples[0].anchor.input;
    memset(&seen, 0, sizeof seen);
    assert_int_equal(train_run(encoder, examples, N, &o, NULL, NULL, NULL,
                         watch, &seen, &result, &fault),
        ERR_INVALID);
    assert_true(result.collapsed);
    assert_non_null(strstr(fault.detail, "collapsed"));
    assert_true(seen.last.spread < 0.1);
    assert_true(seen.last.step < seen.last.n_steps);
    /* not before a tenth of the run: untrained ones may be close */
    assert_true(10 * seen.last.step > seen.last.n_steps);
    encoder_free(encoder);
}

static void
test_memory_runs_out(void **state)
{
    static struct bank bank;

    (void)state;
    train_kit_pairs(examples);
    for (int m = 0; m < TRAIN_MECHANISMS; m++) {
        for (uint64_t n = 1;; n++) {
            struct encoder *encoder = make(false);
            struct train_options o =
                small_run(TRAIN_PAIRS, (enum train_mechanism)m, false);
            struct train_result result;
            struct fault fault = {0};
            o.max_steps = 2;
            o.batch = 6;
            o.head_layers = 2;
            o.char_noise = 0.1f;
            o.loss = m == TRAIN_IN_BATCH         ? TRAIN_NT_XENT
                     : m == TRAIN_MOMENTUM_QUEUE ? TRAIN_SYMMETRIC
                                                 : TRAIN_INFONCE;
            struct train_bank *b = bank_of(&bank, encoder);
            alloc_fail_at(n);
            enum err err = train_run(encoder, examples, 12, &o, b, NULL, NULL,
                NULL, NULL, &result, &fault);
            uint64_t seen = alloc_fail_at(0);
            encoder_free(encoder);
            assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
            if (err == OK)
                break;
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_pairs_of_texts),
        cmocka_unit_test(test_learns_instances_of_texts),
        cmocka_unit_test(test_learns_pictures),
        cmocka_unit_test(test_same_bits_for_any_pool),
        cmocka_unit_test(test_options_matter),
        cmocka_unit_test(test_queue_against_plain),
        cmocka_unit_test(test_bank_against_plain),
        cmocka_unit_test(test_bank_masks_known_positives),
        cmocka_unit_test(test_both_directions),
        cmocka_unit_test(test_queue_masks_own_item),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_masks_are_bounded),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_collapse_stops_the_run),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
