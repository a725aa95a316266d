/*
 * Goal: low-rank factors get the gradient of their formula, and only the
 * matrices that are asked for move, by a difference of their rank; the last
 * layers alone move where they alone are asked for; all of it learns.
 * Method: an objective that is linear in W, so that differences are exact; runs
 * of a tiny transformer, whose parameters are compared tensor by tensor.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/pool.h"
#include "kern/kern.h"
#include "tests/support/train_kit.h"
#include "tests/support/transformer_kit.h"
#include "train/loop.h"

#define N TRAIN_KIT_N
#define TENSORS_MAX 64

static struct batch_example examples[N];

/* An anchor and its positive share half of their words. */
static void
fill(void)
{
    static char texts[2 * N][128];
    train_kit_items(examples);
    for (size_t i = 0; i < 2 * N; i++) {
        struct batch_side *side =
            i % 2 == 0 ? &examples[i / 2].anchor : &examples[i / 2].positive;
        size_t len = transformer_kit_text(texts[i], 128, 3, i / 2);
        texts[i][len++] = ' ';
        len += transformer_kit_text(texts[i] + len, 128 - len, 3, 1000 + i);
        side->input.len = len;
        side->input.text = texts[i];
        side->key = i + 1;
    }
}

static struct encoder *
make(void)
{
    struct encoder *encoder = NULL;
    assert_int_equal(
        transformer_kit_build(&encoder, TRANSFORMER_KIT_CONFIG, 3, NULL), OK);
    return encoder;
}

static struct train_options
options_of(enum train_update update)
{
    struct train_options o;
    train_options_default(
        &o, TRAIN_PAIRS, TRAIN_IN_BATCH, ENCODER_READS_TEXT, 0);
    train_options_pretrained(&o);
    train_options_update(&o, update);
    o.batch = 16;
    o.token_dropout = 0;
    o.epochs = 100;
    o.max_steps = 12;
    o.schedule.lr = 0.01f;
    return o;
}

/* ---- the factors' gradient ----------------------------------------------- */

static double
objective(struct lora *lora, float *params, const float *g, size_t n)
{
    double sum = 0;
    lora_merge(lora, params, NULL);
    for (size_t i = 0; i < n; i++)
        sum += (double)g[i] * (double)params[i];
    return sum;
}

/* The objective is linear in each factor: a difference of any size is exact
   but for rounding. */
static void
check_factor(struct lora *lora, float *params, const float *g, size_t n,
    float *factor, const float *gradient, size_t n_factor)
{
    for (size_t i = 0; i < n_factor; i += 13) {
        float was = factor[i];
        factor[i] = was + 1;
        double a = objective(lora, params, g, n);
        factor[i] = was - 1;
        double b = objective(lora, params, g, n);
        factor[i] = was;
        double want = (a - b) / 2;
        assert_true(
            fabs((double)gradient[i] - want) <= 1e-3 * fmax(fabs(want), 1));
    }
}

static void
factors_have_the_gradient_of_their_formula(void **state)
{
    struct encoder *encoder = make();
    struct lora_options options = {.rank = 5, .alpha = 7};
    struct optimizer_options adamw;
    struct lora *lora;
    struct lora_part part;
    struct pool *pool;
    struct rng rng;
    size_t n, n_factors = 0, i = 0;
    float *params = encoder_params(encoder, &n);
    float *g = malloc(n * sizeof *g), *before = malloc(n * sizeof *before);

    (void)state;
    assert_non_null(g);
    assert_non_null(before);
    memcpy(before, params, n * sizeof *params);
    rng_seed(&rng, 1);
    for (size_t j = 0; j < n; j++)
        g[j] = (float)rng_normal(&rng);
    for (size_t t = 0; t < LORA_TARGETS; t++)
        options.targets[t] = true;
    assert_int_equal(pool_new(&pool, 3, false), OK);
    optimizer_options_default(&adamw, OPTIMIZER_ADAMW);
    assert_int_equal(lora_new(&lora, encoder, &options, &adamw, 9, NULL), OK);
    lora_merge(lora, params, pool); /* B is zero */
    assert_memory_equal(params, before, n * sizeof *params);
    for (; lora_part(lora, i, &part); i++) {
        n_factors += options.rank * (part.in + part.out);
        double square = 0;
        for (size_t j = 0; j < options.rank * part.in; j++)
            square += (double)part.a[j] * (double)part.a[j];
        square *= 3.0 / (double)options.rank; /* deviation 1 / sqrt(3 in) */
        assert_true(square > 0.6 && square < 1.5);
        for (size_t j = 0; j < part.out * options.rank; j++)
            part.b[j] = (float)rng_normal(&rng);
    }
    assert_int_equal(i, 2 * LORA_TARGETS); /* of two layers */
    assert_int_equal(lora_n_factors(lora), n_factors);
    lora_gradient(lora, g, pool);
    for (i = 0; lora_part(lora, i, &part); i++) {
        check_factor(
            lora, params, g, n, part.a, part.da, options.rank * part.in);
        check_factor(
            lora, params, g, n, part.b, part.db, part.out * options.rank);
    }
    lora_free(lora);
    pool_free(pool);
    encoder_free(encoder);
    free(g);
    free(before);
}

/* ---- what moves ---------------------------------------------------------- */

struct moved {
    struct encoder_tensor tensors[TENSORS_MAX];
    bool moved[TENSORS_MAX];
    size_t n;
    float *before;
    struct encoder *encoder;
    struct train_result result;
};

static bool
keep_on(void *arg, const struct train_point *point)
{
    double *loss = arg;
    if (point != NULL && !(loss[0] > 0))
        loss[0] = point->loss;
    return true;
}

static size_t
floats_of(const struct encoder_tensor *t)
{
    return t->dims[0] * (t->dims[1] > 0 ? t->dims[1] : 1);
}

static void
train(struct moved *m, const struct train_options *o)
{
    struct fault fault = {.err = OK};
    double first = 0;
    size_t n;

    fill();
    m->encoder = make();
    float *params = encoder_params(m->encoder, &n);
    m->before = malloc(n * sizeof *params);
    assert_non_null(m->before);
    memcpy(m->before, params, n * sizeof *params);
    enum err err = train_run(m->encoder, examples, N, o, NULL, NULL, NULL,
        keep_on, &first, &m->result, &fault);
    if (err != OK)
        fail_msg("%s %s", fault.pointer, fault.detail);
    assert_true(m->result.loss < first);
    m->n = encoder_tensors(m->encoder, m->tensors, TENSORS_MAX);
    assert_in_range(m->n, 1, TENSORS_MAX);
    for (size_t i = 0; i < m->n; i++)
        m->moved[i] = memcmp(params + m->tensors[i].start,
                          m->before + m->tensors[i].start,
                          floats_of(&m->tensors[i]) * sizeof *params) != 0;
}

static void
release(struct moved *m)
{
    free(m->before);
    encoder_free(m->encoder);
}

/* Any two rows and columns of W - W0 have determinant 0. */
static void
check_rank_one(const struct moved *m, size_t i)
{
    const struct encoder_tensor *t = &m->tensors[i];
    size_t n_params, cols = t->dims[1];
    const float *p = encoder_params_const(m->encoder, &n_params);
    double largest = 0, most = 0;

    for (size_t r = 1; r < t->dims[0]; r++) {
        for (size_t c = 1; c < cols; c++) {
            size_t at[4] = {0, c, r * cols, r * cols + c};
            double d[4];
            for (size_t k = 0; k < 4; k++)
                d[k] = (double)p[t->start + at[k]] -
                       (double)m->before[t->start + at[k]];
            largest = fmax(largest, fabs(d[0] * d[3] - d[1] * d[2]));
            most = fmax(most, fabs(d[3]) * fabs(d[3]));
        }
    }
    assert_true(most > 1e-6);
    assert_true(largest <= 1e-3 * most + 1e-9);
}

static void
targets_alone_move(void **state)
{
    static const char *const suffix[LORA_TARGETS] = {"self.query.weight",
        "self.key.weight", "self.value.weight", "attention.output.dense.weight",
        "intermediate.dense.weight", ".output.dense.weight"};
    (void)state;
    for (size_t t = 0; t < LORA_TARGETS; t++) {
        struct train_options o = options_of(TRAIN_LORA);
        struct moved m;
        size_t n_moved = 0, n_factors = 0;
        memset(o.lora.targets, 0, sizeof o.lora.targets);
        o.lora.targets[t] = true;
        o.lora.rank = 1;
        train(&m, &o);
        for (size_t i = 0; i < m.n; i++) {
            const char *name = m.tensors[i].name;
            size_t len = strlen(name), end = strlen(suffix[t]);
            bool target =
                len > end && strcmp(name + len - end, suffix[t]) == 0 &&
                !(t == LORA_DOWN && strstr(name, "attention") != NULL);
            if (m.moved[i] != target)
                fail_msg("%s: %s %s", lora_target_names[t], name,
                    target ? "stayed" : "moved");
            if (target) {
                n_moved++;
                n_factors += m.tensors[i].dims[0] + m.tensors[i].dims[1];
                check_rank_one(&m, i);
            }
        }
        assert_int_equal(n_moved, 2);
        assert_int_equal(m.result.n_factors, n_factors);
        release(&m);
    }
}

static void
the_last_layers_alone_move(void **state)
{
    struct train_options o = options_of(TRAIN_LAST);
    struct moved m;

    (void)state;
    train(&m, &o);
    assert_int_equal(m.result.n_factors, 0);
    for (size_t i = 0; i < m.n; i++) {
        const char *name = m.tensors[i].name;
        bool last = strncmp(name, "encoder.layer.1.", 16) == 0;
        if (m.moved[i] && !last)
            fail_msg("%s moved", name);
        /* a key's bias adds the same to all scores of a query */
        if (!m.moved[i] && last && strstr(name, "key.bias") == NULL)
            fail_msg("%s stayed", name);
    }
    /* and a round on what it left is not bound by it */
    struct train_result result;
    size_t n;
    o = options_of(TRAIN_FULL);
    assert_int_equal(train_run(m.encoder, examples, N, &o, NULL, NULL, NULL,
                         NULL, NULL, &result, NULL),
        OK);
    assert_memory_not_equal(encoder_params_const(m.encoder, &n), m.before,
        floats_of(&m.tensors[0]) * sizeof(float));
    release(&m);
}

/* ---- refusals ------------------------------------------------------------ */

static void
refused(struct encoder *encoder, const struct train_options *o,
    const char *pointer, const char *part)
{
    struct fault fault = {.err = OK};
    struct train_result result;
    assert_int_equal(train_run(encoder, examples, N, o, NULL, NULL, NULL, NULL,
                         NULL, &result, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, pointer);
    if (strstr(fault.detail, part) == NULL)
        fail_msg("%s", fault.detail);
}

static void
what_does_not_fit_is_refused(void **state)
{
    struct train_options o = options_of(TRAIN_LAST);
    struct encoder *encoder = make(), *bag = NULL;

    (void)state;
    fill();
    o.layers = 3;
    refused(encoder, &o, "/layers", "from 1 to 2");
    o.layers = 0;
    refused(encoder, &o, "/layers", "from 1 to 2");
    o = options_of(TRAIN_LORA);
    memset(o.lora.targets, 0, sizeof o.lora.targets);
    refused(encoder, &o, "/lora/targets", "none of the matrices");
    assert_int_equal(
        encoder_new(&bag, "static", TRAIN_KIT_TEXT, NULL, NULL), OK);
    o = options_of(TRAIN_LORA);
    refused(bag, &o, "/update", "\"lora\" is for the layers");
    o = options_of(TRAIN_LAST);
    refused(bag, &o, "/update", "\"last\" is for the layers");
    encoder_free(bag);
    encoder_free(encoder);
}

static void
memory_runs_out(void **state)
{
    struct train_options o = options_of(TRAIN_LORA);

    (void)state;
    fill();
    o.max_steps = 1;
    for (uint64_t n = 1;; n++) {
        struct encoder *encoder = make();
        struct train_result result;
        alloc_fail_at(n);
        enum err err = train_run(encoder, examples, N, &o, NULL, NULL, NULL,
            NULL, NULL, &result, NULL);
        uint64_t seen = alloc_fail_at(0);
        encoder_free(encoder);
        assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
        if (err == OK)
            break;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_have_the_gradient_of_their_formula),
        cmocka_unit_test(targets_alone_move),
        cmocka_unit_test(the_last_layers_alone_move),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
