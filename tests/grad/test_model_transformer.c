/*
 * Goal: the transformer's backward pass is the derivative of its forward pass,
 * for every parameter, and says truly what it touched.
 *
 * Method: a random projection of the output is the objective; central
 * differences over the step really taken, for some parameters of every tensor,
 * relative error with a floor; configurations with both orders of norms, all
 * poolings, activations, a projection, a dense head, sequences of length 0, 1
 * and more than a tile. Backward twice doubles; threads change no bit; frozen
 * layers get no gradient and the others the same; segments cover what is not
 * zero.
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
#include "base/check.h"
#include "model/transformer.h"

#define VOCAB 41
#define N 5
#define TOKENS 64
#define TOLERANCE 0.01
#define STEP 2e-3f
#define FLOOR 0.2
#define PROBES 5 /* of a tensor */

static const size_t lengths[N] = {1, 19, 0, 7, 34};

static const struct transformer_config base = {.layers = 2,
    .hidden = 32,
    .heads = 2,
    .ffn = 48,
    .vocab = VOCAB,
    .max_positions = 40,
    .token_types = 2,
    .embedding_scale = 1,
    .embedding_norm = true,
    .norm_eps = 1e-3f,
    .act = KERN_ACT_GELU,
    .pooling = TOKENPOOL_MEAN,
    .normalise = true};

static bool
config_at(size_t i, struct transformer_config *c)
{
    *c = base;
    switch (i) {
    case 0:
        return true;
    case 1:
        c->position_offset = 2;
        c->pooling = TOKENPOOL_CLS;
        c->act = KERN_ACT_GELU_TANH;
        c->normalise = false;
        return true;
    case 2: /* as use-lite, but smooth */
        c->embedding = 64;
        c->norm = TRANSFORMER_NORM_PRE;
        c->positions = TRANSFORMER_POSITIONS_SINUSOIDAL;
        c->embedding_norm = false;
        c->embedding_scale = 2;
        c->token_types = 0;
        c->dense = 16;
        c->dense_tanh = true;
        return true;
    case 3:
        c->embedding = 64;
        c->dense = 48;
        c->embedding_norm = false;
        return true;
    default:
        c->norm = TRANSFORMER_NORM_PRE;
        c->pooling = TOKENPOOL_MAX;
        return i == 4;
    }
}

struct net {
    struct transformer t;
    struct transformer_tape *tape;
    float *params, *d, *out, *d_out;
    uint8_t marks[VOCAB];
    uint32_t ids[TOKENS];
    size_t offsets[N + 1];
    struct transformer_batch batch;
};

static void
net_open(
    struct net *net, const struct transformer_config *config, size_t n_frozen)
{
    struct rng rng;
    rng_seed(&rng, 5);
    memset(net->marks, 0, sizeof net->marks);
    assert_int_equal(transformer_plan(&net->t, config, NULL), OK);
    net->params = calloc(net->t.n_params, sizeof(float));
    net->d = calloc(net->t.n_params, sizeof(float));
    net->out = calloc(N * net->t.n_dims, sizeof(float));
    net->d_out = calloc(N * net->t.n_dims, sizeof(float));
    transformer_init(&net->t, net->params, &rng);
    for (size_t i = 0; i < net->t.n_params; i++)
        net->params[i] = 8 * net->params[i] + 0.1f * (float)rng_normal(&rng) -
                         (net->params[i] > 0.5f ? 7.0f : 0.0f);
    for (size_t i = 0; i < N * net->t.n_dims; i++)
        net->d_out[i] = (float)rng_normal(&rng);
    assert_int_equal(transformer_tape_new(&net->tape, &net->t, n_frozen), OK);
    net->offsets[0] = 0;
    for (size_t i = 0; i < N; i++)
        net->offsets[i + 1] = net->offsets[i] + lengths[i];
    /* the last ids are never used */
    for (size_t i = 0; i < net->offsets[N]; i++)
        net->ids[i] = (uint32_t)rng_below(&rng, VOCAB - 5);
    net->batch = (struct transformer_batch){net->ids, net->offsets, N};
}

static void
net_close(struct net *net)
{
    transformer_tape_free(net->tape);
    free(net->params);
    free(net->d);
    free(net->out);
    free(net->d_out);
}

static double
loss(struct net *net)
{
    double sum = 0;
    assert_int_equal(transformer_forward(&net->t, net->params, net->tape,
                         &net->batch, net->out, NULL),
        OK);
    for (size_t i = 0; i < N * net->t.n_dims; i++)
        sum += (double)net->out[i] * (double)net->d_out[i];
    return sum;
}

static void
backward(struct net *net, struct pool *pool)
{
    assert_int_equal(transformer_backward(&net->t, net->params, net->tape,
                         net->d_out, net->d, net->marks, pool),
        OK);
}

/* Probe i of n_all parameters from start on: spread, and the largest. */
static size_t
probe(const struct net *net, size_t start, size_t n, size_t i)
{
    size_t top = start;
    if (i > 0)
        return start + (n * i) / PROBES;
    for (size_t j = start; j < start + n; j++)
        if (fabsf(net->d[j]) > fabsf(net->d[top]))
            top = j;
    return top;
}

static void
check_tensor(struct net *net, const struct encoder_tensor *tensor)
{
    size_t n = tensor->dims[0] * MAX(tensor->dims[1], (size_t)1);
    for (size_t i = 0; i < PROBES; i++) {
        size_t at = probe(net, tensor->start, n, i);
        float *p = &net->params[at], keep = *p;
        double exact = (double)net->d[at];

        *p = keep + STEP;
        double high = (double)*p, up = loss(net);
        *p = keep - STEP;
        double low = (double)*p, down = loss(net);
        *p = keep;
        double numeric = (up - down) / (high - low);
        double err = fabs(numeric - exact) /
                     fmax(fmax(fabs(numeric), fabs(exact)), FLOOR);
        if (!(err <= TOLERANCE))
            print_error("%s %zu: %g by differences, %g by backward\n",
                tensor->name, at - tensor->start, numeric, exact);
        assert_true(err <= TOLERANCE);
    }
}

static void
backward_is_the_derivative(void **state)
{
    static struct net net;
    struct transformer_config config;
    struct encoder_tensor tensors[64];
    (void)state;

    for (size_t i = 0; config_at(i, &config); i++) {
        net_open(&net, &config, 0);
        (void)loss(&net);
        backward(&net, NULL);
        size_t n = transformer_tensors(&net.t, tensors, ARRAY_LEN(tensors));
        for (size_t j = 0; j < n; j++)
            check_tensor(&net, &tensors[j]);
        net_close(&net);
    }
}

static void
twice_is_double(void **state)
{
    static struct net net;
    struct transformer_config config;
    struct pool *pool;
    (void)state;

    assert_int_equal(pool_new(&pool, 3, false), OK);
    for (size_t i = 0; config_at(i, &config); i++) {
        net_open(&net, &config, 0);
        size_t bytes = net.t.n_params * sizeof(float);
        float *once = malloc(bytes);
        (void)loss(&net);
        backward(&net, NULL);
        memcpy(once, net.d, bytes);
        backward(&net, NULL);
        for (size_t j = 0; j < net.t.n_params; j++)
            assert_true(
                fabsf(net.d[j] - 2 * once[j]) <= 1e-5f * (fabsf(once[j]) + 1));
        /* more threads than the forward pass had, and the same bits */
        memset(net.d, 0, bytes);
        backward(&net, pool);
        assert_memory_equal(net.d, once, bytes);
        free(once);
        net_close(&net);
    }
    pool_free(pool);
}

static void
frozen_layers_have_no_gradient(void **state)
{
    static struct net net;
    struct transformer_config config;
    (void)state;

    for (size_t i = 0; config_at(i, &config); i++) {
        float *whole = NULL;
        for (size_t frozen = 0; frozen <= config.layers + 1; frozen++) {
            net_open(&net, &config, frozen);
            size_t n = net.t.n_params;
            size_t segments_max = transformer_n_segments_max(&net.t);
            struct encoder_segment *s = calloc(segments_max, sizeof *s);
            uint8_t *covered = calloc(n, 1);
            (void)loss(&net);
            backward(&net, NULL);
            size_t n_segments =
                transformer_segments(&net.t, frozen, net.marks, s);
            assert_true(n_segments <= segments_max);
            for (size_t j = 0; j < n_segments; j++) {
                assert_true(s[j].n > 0);
                assert_true(
                    j == 0 || s[j].start >= s[j - 1].start + s[j - 1].n);
                memset(covered + s[j].start, 1, s[j].n);
            }
            if (whole == NULL) {
                whole = malloc(n * sizeof(float));
                memcpy(whole, net.d, n * sizeof(float));
                /* the words that are never used */
                size_t unused = net.t.word + (VOCAB - 5) * net.t.embedding;
                assert_false(covered[unused]);
                assert_true(covered[unused + 5 * net.t.embedding]);
            }
            for (size_t j = 0; j < n; j++)
                assert_true(covered[j] ? memcmp(&net.d[j], &whole[j], 4) == 0
                                       : fpclassify(net.d[j]) == FP_ZERO);
            free(s);
            free(covered);
            net_close(&net);
        }
        free(whole);
    }
}

/* Matrices decay, vectors do not. */
static void
segments_know_gains_and_biases(void **state)
{
    static struct net net;
    struct transformer_config config;
    struct encoder_tensor tensors[64];
    (void)state;

    for (size_t i = 0; config_at(i, &config); i++) {
        net_open(&net, &config, 0);
        struct encoder_segment *s =
            calloc(transformer_n_segments_max(&net.t), sizeof *s);
        memset(net.marks, 1, sizeof net.marks);
        size_t n = transformer_tensors(&net.t, tensors, ARRAY_LEN(tensors));
        size_t n_segments = transformer_segments(&net.t, 0, net.marks, s);
        for (size_t j = 0; j < n; j++) {
            size_t k = 0, size = tensors[j].dims[0] *
                                 MAX(tensors[j].dims[1], (size_t)1);
            while (
                k < n_segments && s[k].start + s[k].n < tensors[j].start + size)
                k++;
            assert_true(k < n_segments && s[k].start <= tensors[j].start);
            assert_int_equal(s[k].no_decay, tensors[j].dims[1] == 0);
        }
        free(s);
        net_close(&net);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backward_is_the_derivative),
        cmocka_unit_test(twice_is_double),
        cmocka_unit_test(frozen_layers_have_no_gradient),
        cmocka_unit_test(segments_know_gains_and_biases),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
