/*
 * Goal: the transformer computes its formulas, whatever the batch and the
 * threads, and refuses configurations and batches that it cannot serve.
 *
 * Method: the whole forward pass in plain loops in double, one sequence at a
 * time, for configurations that differ in everything the network can do, over
 * sequences of lengths 1 to 70, odd ones among them; |error| <= 2e-5 of unit
 * vectors (linear layers in bf16 5e-3, in int8 2.5e-2), five times as much of
 * the largest value of others. The same sequences alone and in company; one
 * thread and three, to the bit. Every allocation fails once.
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
#include "model/transformer.h"

#define VOCAB 97
#define N 9
#define TOKENS_MAX 256
#define WIDTH 256

static const size_t lengths[N] = {1, 7, 0, 16, 33, 2, 70, 17, 13};

static const struct transformer_config bert = {.layers = 2,
    .hidden = 64,
    .heads = 2,
    .ffn = 112,
    .vocab = VOCAB,
    .max_positions = 80,
    .token_types = 2,
    .embedding_scale = 1,
    .embedding_norm = true,
    .norm_eps = 1e-6f,
    .act = KERN_ACT_GELU,
    .pooling = TOKENPOOL_MEAN,
    .normalise = true};

/* Configuration i, or false past the last. */
static bool
config_at(size_t i, struct transformer_config *c)
{
    *c = bert;
    switch (i) {
    case 0:
        return true;
    case 1: /* RoBERTa's positions, the first token, heads of 64 */
        c->position_offset = 2;
        c->hidden = 128;
        c->pooling = TOKENPOOL_CLS;
        c->act = KERN_ACT_GELU_TANH;
        return true;
    case 2: /* as use-lite */
        c->embedding = 32;
        c->norm = TRANSFORMER_NORM_PRE;
        c->positions = TRANSFORMER_POSITIONS_SINUSOIDAL;
        c->embedding_norm = false;
        c->embedding_scale = 2;
        c->token_types = 0;
        c->act = KERN_ACT_RELU;
        c->dense = 48;
        c->dense_tanh = true;
        return true;
    case 3: /* a projection under a norm, the maximum, nothing normalised */
        c->embedding = 96;
        c->heads = 2;
        c->layers = 3;
        c->pooling = TOKENPOOL_MAX;
        c->normalise = false;
        c->dense = 32;
        return true;
    default: /* heads of 128, one layer, pre without a dense head */
        c->layers = 1;
        c->hidden = 256;
        c->norm = TRANSFORMER_NORM_PRE;
        return i == 4;
    }
}

/* ----------------------------------------------------------- reference */

static const float *
tensor(const struct transformer *t, const float *params, const char *format,
    size_t layer)
{
    static struct encoder_tensor all[64];
    char name[96];
    size_t n = transformer_tensors(t, all, ARRAY_LEN(all));

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(name, sizeof name, format, layer);
#pragma GCC diagnostic pop
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].name, name) == 0)
            return params + all[i].start;
    return NULL;
}

static void
ref_linear(double *y, const double *x, const float *w, const float *b,
    size_t n_out, size_t n_in)
{
    for (size_t o = 0; o < n_out; o++) {
        y[o] = (double)b[o];
        for (size_t i = 0; i < n_in; i++)
            y[o] += (double)w[o * n_in + i] * x[i];
    }
}

static void
ref_norm(double *y, const double *x, const float *gain, const float *bias,
    size_t n, double eps)
{
    double mean = 0, var = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++)
        y[i] =
            (double)gain[i] * (x[i] - mean) / sqrt(var + eps) + (double)bias[i];
}

static double
ref_act(double u, enum kern_act act)
{
    if (act == KERN_ACT_RELU)
        return fmax(u, 0);
    if (act == KERN_ACT_GELU)
        return u * 0.5 * erfc(-u / sqrt(2));
    return 0.5 * u *
           (1 + tanh(sqrt(2 / 3.14159265358979323846) *
                     (u + 0.044715 * u * u * u)));
}

static void
ref_attention(double *o, double (*q)[WIDTH], double (*k)[WIDTH],
    double (*v)[WIDTH], size_t t, size_t L, size_t W, size_t heads)
{
    size_t d = W / heads;
    for (size_t h = 0; h < heads; h++) {
        double p[TOKENS_MAX], sum = 0;
        for (size_t s = 0; s < L; s++) {
            double dot = 0;
            for (size_t i = h * d; i < (h + 1) * d; i++)
                dot += q[t][i] * k[s][i];
            p[s] = exp(dot / sqrt((double)d));
            sum += p[s];
        }
        for (size_t i = h * d; i < (h + 1) * d; i++) {
            o[i] = 0;
            for (size_t s = 0; s < L; s++)
                o[i] += p[s] / sum * v[s][i];
        }
    }
}

static double ref_x[TOKENS_MAX][WIDTH], ref_y[TOKENS_MAX][WIDTH],
    ref_q[TOKENS_MAX][WIDTH], ref_k[TOKENS_MAX][WIDTH],
    ref_v[TOKENS_MAX][WIDTH];

#define L_ "encoder.layer.%zu."

static void
ref_layer(const struct transformer *t, const float *p, size_t l, size_t L)
{
    const struct transformer_config *c = &t->config;
    size_t W = l == 0 ? t->embedding : c->hidden, H = c->hidden;
    bool pre = c->norm == TRANSFORMER_NORM_PRE;
    double eps = (double)c->norm_eps;
    const char *norm1 = pre ? L_ "attention.LayerNorm.weight"
                            : L_ "attention.output.LayerNorm.weight";
    const char *norm2 =
        pre ? L_ "intermediate.LayerNorm.weight" : L_ "output.LayerNorm.weight";
    const float *gain1 = tensor(t, p, norm1, l),
                *gain2 = tensor(t, p, norm2, l);
    size_t n1 = pre ? W : H;

    for (size_t i = 0; i < L; i++) {
        if (pre)
            ref_norm(ref_y[i], ref_x[i], gain1, gain1 + n1, n1, eps);
        else
            memcpy(ref_y[i], ref_x[i], sizeof ref_y[i]);
        ref_linear(ref_q[i], ref_y[i],
            tensor(t, p, L_ "attention.self.query.weight", l),
            tensor(t, p, L_ "attention.self.query.bias", l), W, W);
        ref_linear(ref_k[i], ref_y[i],
            tensor(t, p, L_ "attention.self.key.weight", l),
            tensor(t, p, L_ "attention.self.key.bias", l), W, W);
        ref_linear(ref_v[i], ref_y[i],
            tensor(t, p, L_ "attention.self.value.weight", l),
            tensor(t, p, L_ "attention.self.value.bias", l), W, W);
    }
    for (size_t i = 0; i < L; i++) {
        double o[WIDTH], s[WIDTH], r[WIDTH], y[WIDTH], u[WIDTH];
        ref_attention(o, ref_q, ref_k, ref_v, i, L, W, c->heads);
        ref_linear(s, o, tensor(t, p, L_ "attention.output.dense.weight", l),
            tensor(t, p, L_ "attention.output.dense.bias", l), H, W);
        memcpy(r, ref_x[i], sizeof r);
        if (W != H)
            ref_linear(r, ref_x[i],
                tensor(t, p, L_ "attention.output.residual.weight", l),
                tensor(t, p, L_ "attention.output.residual.bias", l), H, W);
        for (size_t j = 0; j < H; j++)
            s[j] += r[j];
        if (!pre)
            ref_norm(s, s, gain1, gain1 + H, H, eps);
        if (pre)
            ref_norm(y, s, gain2, gain2 + H, H, eps);
        else
            memcpy(y, s, sizeof y);
        ref_linear(u, y, tensor(t, p, L_ "intermediate.dense.weight", l),
            tensor(t, p, L_ "intermediate.dense.bias", l), c->ffn, H);
        for (size_t j = 0; j < c->ffn; j++)
            u[j] = ref_act(u[j], c->act);
        ref_linear(y, u, tensor(t, p, L_ "output.dense.weight", l),
            tensor(t, p, L_ "output.dense.bias", l), H, c->ffn);
        for (size_t j = 0; j < H; j++)
            ref_x[i][j] = s[j] + y[j];
        if (!pre)
            ref_norm(ref_x[i], ref_x[i], gain2, gain2 + H, H, eps);
    }
}

static void
ref_embed(
    const struct transformer *t, const float *p, const uint32_t *ids, size_t L)
{
    const struct transformer_config *c = &t->config;
    size_t E = t->embedding;
    const float *word = tensor(t, p, "embeddings.word_embeddings.weight", 0);
    const float *pos = tensor(t, p, "embeddings.position_embeddings.weight", 0);
    const float *type =
        tensor(t, p, "embeddings.token_type_embeddings.weight", 0);
    const float *gain = tensor(t, p, "embeddings.LayerNorm.weight", 0);

    for (size_t i = 0; i < L; i++) {
        for (size_t j = 0; j < E; j++) {
            double at = (double)(i + c->position_offset);
            double x =
                (double)c->embedding_scale * (double)word[ids[i] * E + j];
            if (pos != NULL)
                x += (double)pos[(i + c->position_offset) * E + j];
            else if (j < E / 2)
                x += sin(at * pow(1e-4, (double)j / (double)(E / 2 - 1)));
            else
                x += cos(
                    at * pow(1e-4, (double)(j - E / 2) / (double)(E / 2 - 1)));
            ref_x[i][j] = x + (type != NULL ? (double)type[j] : 0);
        }
        if (c->embedding_norm)
            ref_norm(
                ref_x[i], ref_x[i], gain, gain + E, E, (double)c->norm_eps);
    }
}

static void
reference(double *out, const struct transformer *t, const float *p,
    const uint32_t *ids, size_t L)
{
    const struct transformer_config *c = &t->config;
    double f[WIDTH], norm = 0;

    memset(out, 0, t->n_dims * sizeof *out);
    if (L == 0)
        return;
    ref_embed(t, p, ids, L);
    for (size_t l = 0; l < c->layers; l++)
        ref_layer(t, p, l, L);
    for (size_t j = 0; j < c->hidden; j++) {
        f[j] = ref_x[0][j];
        for (size_t i = 1; i < L && c->pooling != TOKENPOOL_CLS; i++)
            f[j] = c->pooling == TOKENPOOL_MAX ? fmax(f[j], ref_x[i][j])
                                               : f[j] + ref_x[i][j];
        if (c->pooling == TOKENPOOL_MEAN)
            f[j] /= (double)L;
    }
    memcpy(out, f, t->n_dims * sizeof *out);
    if (c->dense > 0)
        ref_linear(out, f, tensor(t, p, "linear.weight", 0),
            tensor(t, p, "linear.bias", 0), c->dense, c->hidden);
    for (size_t j = 0; j < t->n_dims; j++) {
        out[j] = c->dense_tanh ? tanh(out[j]) : out[j];
        norm += out[j] * out[j];
    }
    for (size_t j = 0; j < t->n_dims && c->normalise; j++)
        out[j] /= sqrt(norm);
}

/* -------------------------------------------------------------- checks */

struct net {
    enum transformer_compute compute;
    struct transformer t;
    float *params, *out;
    struct transformer_ready *ready;
    struct transformer_work *work;
    uint32_t ids[N * TOKENS_MAX];
    size_t offsets[N + 1];
    struct transformer_batch batch;
};

/* Weights large enough that attention has preferences, gains and biases of all
   kinds. */
static void
net_open(struct net *net, const struct transformer_config *config,
    enum transformer_compute compute)
{
    struct rng rng;
    rng_seed(&rng, 11);
    net->compute = compute;
    assert_int_equal(transformer_plan(&net->t, config, NULL), OK);
    net->params = calloc(net->t.n_params, sizeof *net->params);
    net->out = calloc(N * net->t.n_dims, sizeof *net->out);
    transformer_init(&net->t, net->params, &rng);
    for (size_t i = 0; i < net->t.n_params; i++)
        net->params[i] = 4 * net->params[i] + 0.1f * (float)rng_normal(&rng) -
                         (net->params[i] > 0.5f ? 3.0f : 0.0f);
    assert_int_equal(transformer_ready_new(&net->ready, &net->t, compute), OK);
    assert_int_equal(transformer_work_new(&net->work), OK);
    transformer_ready_weights(net->ready, &net->t, net->params, NULL);
    net->offsets[0] = 0;
    for (size_t i = 0; i < N; i++)
        net->offsets[i + 1] = net->offsets[i] + lengths[i];
    for (size_t i = 0; i < net->offsets[N]; i++)
        net->ids[i] = (uint32_t)rng_below(&rng, VOCAB);
    net->batch = (struct transformer_batch){net->ids, net->offsets, N};
}

static void
net_close(struct net *net)
{
    transformer_ready_free(net->ready);
    transformer_work_free(net->work);
    free(net->params);
    free(net->out);
}

static void
encode(struct net *net, const struct transformer_batch *batch, float *out,
    struct pool *pool)
{
    assert_int_equal(transformer_encode(&net->t, net->params, net->ready,
                         net->work, batch, out, pool),
        OK);
}

/* Of a component, by the way to compute. */
static const double bounds[] = {[TRANSFORMER_F32] = 2e-5,
    [TRANSFORMER_BF16] = 5e-3,
    [TRANSFORMER_INT8] = 2.5e-2};

static void
check_rows(const struct net *net, const float *out, size_t first, size_t n)
{
    double want[WIDTH];
    for (size_t i = first; i < first + n; i++) {
        double top = 0;
        reference(
            want, &net->t, net->params, net->ids + net->offsets[i], lengths[i]);
        for (size_t j = 0; j < net->t.n_dims; j++)
            top = fmax(top, fabs(want[j]));
        for (size_t j = 0; j < net->t.n_dims; j++) {
            double err =
                fabs((double)out[(i - first) * net->t.n_dims + j] - want[j]);
            double bound =
                bounds[net->compute] * (net->t.config.normalise ? 1 : 5 * top);
            if (!(err <= bound))
                print_error("sequence %zu dim %zu: %g, not %g\n", i, j,
                    (double)out[(i - first) * net->t.n_dims + j], want[j]);
            assert_true(err <= bound);
        }
    }
}

static void
check_forward(
    const struct transformer_config *config, enum transformer_compute compute)
{
    static struct net net;

    net_open(&net, config, compute);
    encode(&net, &net.batch, net.out, NULL);
    check_rows(&net, net.out, 0, N);
    /* each alone; the work has grown for more */
    for (size_t j = 0; j < N; j++) {
        size_t offsets[] = {0, lengths[j]};
        struct transformer_batch one = {net.ids + net.offsets[j], offsets, 1};
        encode(&net, &one, net.out, NULL);
        check_rows(&net, net.out, j, 1);
    }
    net_close(&net);
}

static void
forward_is_the_formula(void **state)
{
    struct transformer_config config;
    (void)state;

    for (size_t i = 0; config_at(i, &config); i++)
        for (size_t c = 0; c < ARRAY_LEN(bounds); c++)
            check_forward(&config, (enum transformer_compute)c);
}

static void
threads_change_no_bit(void **state)
{
    static struct net net;
    struct transformer_config config;
    struct pool *pool;
    float *again = calloc(N * WIDTH, sizeof *again);
    (void)state;

    assert_int_equal(pool_new(&pool, 3, false), OK);
    for (size_t i = 0; config_at(i, &config); i++)
        for (size_t c = 0; c < ARRAY_LEN(bounds); c++) {
            net_open(&net, &config, (enum transformer_compute)c);
            encode(&net, &net.batch, net.out, NULL);
            transformer_ready_weights(net.ready, &net.t, net.params, pool);
            encode(&net, &net.batch, again, pool);
            assert_memory_equal(
                again, net.out, N * net.t.n_dims * sizeof *net.out);
            net_close(&net);
        }
    pool_free(pool);
    free(again);
}

/* Weights of a byte are a quarter and a little; those of two are half. */
static void
packed_weights_are_smaller(void **state)
{
    struct transformer t;
    struct transformer_config config = bert;
    (void)state;

    config.hidden = 256;
    config.ffn = 1024;
    assert_int_equal(transformer_plan(&t, &config, NULL), OK);
    size_t f32 = transformer_ready_bytes(&t, TRANSFORMER_F32);
    assert_true(f32 >= (size_t)2 * 12 * 256 * 256 * 4);
    assert_int_equal(2 * transformer_ready_bytes(&t, TRANSFORMER_BF16), f32);
    size_t int8 = transformer_ready_bytes(&t, TRANSFORMER_INT8);
    assert_true(4 * int8 > f32 && 4 * int8 < f32 + f32 / 32);
}

static void
taped_forward_is_the_same(void **state)
{
    static struct net net;
    struct transformer_config config;
    struct transformer_tape *tape;
    (void)state;

    for (size_t i = 0; config_at(i, &config); i++) {
        for (size_t frozen = 0; frozen <= config.layers + 1; frozen++) {
            net_open(&net, &config, TRANSFORMER_F32);
            assert_int_equal(transformer_tape_new(&tape, &net.t, frozen), OK);
            assert_int_equal(transformer_forward(&net.t, net.params, tape,
                                 &net.batch, net.out, NULL),
                OK);
            check_rows(&net, net.out, 0, N);
            transformer_tape_free(tape);
            net_close(&net);
        }
    }
}

static void
tensors_cover_the_parameters(void **state)
{
    struct transformer_config config;
    struct transformer t;
    struct encoder_tensor all[128];
    (void)state;

    for (size_t i = 0; config_at(i, &config); i++) {
        assert_int_equal(transformer_plan(&t, &config, NULL), OK);
        size_t n = transformer_tensors(&t, all, ARRAY_LEN(all)), at = 0;
        assert_true(n < ARRAY_LEN(all));
        for (size_t j = 0; j < n; j++) {
            assert_int_equal(all[j].start, at);
            at += all[j].dims[0] * MAX(all[j].dims[1], (size_t)1);
            for (size_t k = 0; k < j; k++)
                assert_string_not_equal(all[j].name, all[k].name);
        }
        assert_int_equal(at, t.n_params);
    }
    /* all-MiniLM-L6-v2 without its pooler */
    config = bert;
    config.layers = 6;
    config.hidden = 384;
    config.heads = 12;
    config.ffn = 1536;
    config.vocab = 30522;
    config.max_positions = 512;
    assert_int_equal(transformer_plan(&t, &config, NULL), OK);
    assert_int_equal(t.n_params, 22713216 - 384 * 385);
}

static void
bad_configurations_are_refused(void **state)
{
    struct transformer t;
    struct fault fault;
    struct transformer_config c;
    (void)state;

#define REFUSED(field, value, pointer_)                                        \
    c = bert;                                                                  \
    c.field = value;                                                           \
    memset(&fault, 0, sizeof fault);                                           \
    assert_int_equal(transformer_plan(&t, &c, &fault), ERR_INVALID);           \
    assert_string_equal(fault.pointer, pointer_)

    REFUSED(layers, 0, "/layers");
    REFUSED(layers, 1000000000, "/layers");
    REFUSED(hidden, 8192, "/hidden");
    REFUSED(hidden, 72, "/hidden");
    REFUSED(heads, 0, "/heads");
    REFUSED(heads, 3, "/heads");
    REFUSED(heads, 64, "/heads");
    REFUSED(ffn, 100, "/ffn");
    REFUSED(ffn, 1u << 30, "/ffn");
    REFUSED(vocab, 0, "/vocab");
    REFUSED(vocab, 1u << 31, "/vocab");
    REFUSED(max_positions, 1u << 20, "/max_positions");
    REFUSED(position_offset, 80, "/position_offset");
    REFUSED(token_types, 17, "/token_types");
    REFUSED(norm_eps, 0, "/norm_eps");
    REFUSED(norm_eps, NAN, "/norm_eps");
    REFUSED(embedding_scale, INFINITY, "/embedding_scale");
    REFUSED(dense, 20, "/dense");
    REFUSED(act, (enum kern_act)9, "/act");
    c = bert;
    c.layers = TRANSFORMER_LAYERS_MAX;
    c.hidden = TRANSFORMER_WIDTH_MAX;
    c.heads = 32;
    c.ffn = TRANSFORMER_FFN_MAX;
    assert_int_equal(transformer_plan(&t, &c, &fault), ERR_TOO_LARGE);
}

static void
bad_batches_are_refused(void **state)
{
    static struct net net;
    size_t offsets[] = {0, 81};
    struct transformer_batch one = {net.ids, offsets, 1};
    (void)state;

    net_open(&net, &bert, TRANSFORMER_F32);
    assert_int_equal(transformer_encode(&net.t, net.params, net.ready, net.work,
                         &one, net.out, NULL),
        ERR_INVALID);
    offsets[1] = 3;
    net.ids[2] = VOCAB;
    assert_int_equal(transformer_encode(&net.t, net.params, net.ready, net.work,
                         &one, net.out, NULL),
        ERR_INVALID);
    one.n = 0;
    encode(&net, &one, net.out, NULL);
    net_close(&net);
}

/* Encode, forward and backward with objects of their own; ERR_NOMEM at the
   first that finds no memory. */
static enum err
whole_life(struct net *net, float *d_params, uint8_t *marks)
{
    struct transformer_ready *ready = NULL;
    struct transformer_work *work = NULL;
    struct transformer_tape *tape = NULL;
    const struct transformer *t = &net->t;
    enum err err = transformer_ready_new(&ready, t, net->compute);

    if (err == OK)
        err = transformer_work_new(&work);
    if (err == OK) {
        transformer_ready_weights(ready, t, net->params, NULL);
        err = transformer_encode(
            t, net->params, ready, work, &net->batch, net->out, NULL);
    }
    if (err == OK)
        err = transformer_tape_new(&tape, t, 0);
    if (err == OK)
        err = transformer_forward(
            t, net->params, tape, &net->batch, net->out, NULL);
    if (err == OK)
        err = transformer_backward(
            t, net->params, tape, net->out, d_params, marks, NULL);
    transformer_ready_free(ready);
    transformer_work_free(work);
    transformer_tape_free(tape);
    return err;
}

static void
memory_that_is_out_is_told(void **state)
{
    static struct net net;
    struct transformer_config config;
    uint8_t marks[VOCAB];
    enum err err = ERR_NOMEM;
    size_t n = 0;
    (void)state;

    assert_true(config_at(2, &config));
    net_open(&net, &config, TRANSFORMER_INT8);
    float *d_params = calloc(net.t.n_params, sizeof *d_params);
    while (err != OK) {
        (void)alloc_fail_at(++n);
        err = whole_life(&net, d_params, marks);
        (void)alloc_fail_at(0);
        assert_true(err == OK || err == ERR_NOMEM);
    }
    assert_true(n > 10);
    free(d_params);
    net_close(&net);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_is_the_formula),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(packed_weights_are_smaller),
        cmocka_unit_test(taped_forward_is_the_same),
        cmocka_unit_test(tensors_cover_the_parameters),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(bad_batches_are_refused),
        cmocka_unit_test(memory_that_is_out_is_told),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
