/*
 * Goal: the transformer's vectors are those of independent implementations.
 *
 * Method: a random network of BERT's shape against PyTorch
 * (make_transformer.py), and the published weights of use-lite with the vectors
 * that come with them, below KINDRED_DATA; cosine distance at most 1e-10.
 * use-lite has matrices [in, out], so they are transposed here.
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
#include "base/buf.h"
#include "base/fsio.h"
#include "base/json.h"
#include "tests/golden/transformer.h"
#include "tests/golden/transformer_net.h"

#define DISTANCE 1e-10
#define LITE_DIMS 512
#define LITE_TEXTS 13

static void
encode(const struct transformer *t, const float *params,
    const struct transformer_batch *batch, float *out)
{
    struct transformer_ready *ready;
    struct transformer_work *work;
    assert_int_equal(transformer_ready_new(&ready, t, TRANSFORMER_F32), OK);
    assert_int_equal(transformer_work_new(&work), OK);
    transformer_ready_weights(ready, t, params, NULL);
    assert_int_equal(
        transformer_encode(t, params, ready, work, batch, out, NULL), OK);
    transformer_ready_free(ready);
    transformer_work_free(work);
}

static void
bert_by_pytorch(void **state)
{
    enum { D = 64 };
    struct transformer t;
    uint32_t ids[GOLDEN_TOKENS];
    size_t offsets[2 * GOLDEN_PAIRS + 1];
    struct transformer_batch batch = golden_sequences(0, ids, offsets);
    float out[2 * GOLDEN_PAIRS * D];
    (void)state;

    assert_int_equal(transformer_plan(&t, &golden_config, NULL), OK);
    float *params = calloc(t.n_params, sizeof *params);
    golden_fill(&t, params);
    encode(&t, params, &batch, out);
    for (size_t i = 0; i < GOLDEN_PAIRS; i++) {
        double far = golden_distance(out + i * D, golden_before + i * D, D);
        if (!(far <= DISTANCE))
            print_error("sequence %zu: %g away\n", i, far);
        assert_true(far <= DISTANCE);
    }
    free(params);
}

/* ------------------------------------------------------------ use-lite */

/* FILE of use-lite below KINDRED_DATA, or skip. */
static void
read_lite(const char *file, struct buf *out)
{
    char path[4096];
    const char *data = getenv("KINDRED_DATA");
    buf_init(out, (size_t)64 << 20);
    (void)snprintf(path, sizeof path, "%s/models/use-lite/%s",
        data == NULL ? "" : data, file);
    if (data == NULL || fsio_read(path, out, NULL) != OK) {
        print_message("SKIPPED: KINDRED_DATA does not name a folder with "
                      "models/use-lite/%s\n",
            file);
        skip();
    }
}

struct tensors {
    struct json *header;
    const char *data;
    size_t n; /* bytes of data */
};

/* A tensor of rows x cols values to its place, [in, out] to [out, in] when
   turned; cols 0 for a vector. */
static void
lite_copy(const struct tensors *from, float *to, const char *name, size_t rows,
    size_t cols, bool turned)
{
    const struct json *entry = json_find(from->header, name);
    assert_non_null(entry);
    const struct json *at = json_find(entry, "data_offsets");
    size_t start = (size_t)json_i64(json_item(at, 0));
    size_t n = rows * MAX(cols, (size_t)1);

    assert_int_equal(json_i64(json_item(at, 1)), start + 4 * n);
    assert_true(start + 4 * n <= from->n);
    for (size_t i = 0; i < n; i++) {
        size_t k = turned ? i % cols * rows + i / cols : i;
        memcpy(&to[i], from->data + start + 4 * k, 4);
    }
}

static void
lite_layer(const struct tensors *from, const struct transformer *t,
    float *params, size_t i)
{
    const struct transformer_layer *l = &t->layers[i];
    size_t W = l->in, H = t->config.hidden, F = t->config.ffn;
    const struct {
        const char *name;
        size_t at, rows, cols; /* rows = out */
    } parts[] = {{"attn_ln.scale", l->norm1, W, 0},
        {"attn_ln.bias", l->norm1 + W, W, 0},
        {"qkv.weight", l->qkv_w, 3 * W, W}, {"qkv.bias", l->qkv_b, 3 * W, 0},
        {"attn_out.weight", l->out_w, H, W}, {"attn_out.bias", l->out_b, H, 0},
        {"ffn_ln.scale", l->norm2, H, 0}, {"ffn_ln.bias", l->norm2 + H, H, 0},
        {"ffn1.weight", l->up_w, F, H}, {"ffn1.bias", l->up_b, F, 0},
        {"ffn2.weight", l->down_w, H, F}, {"ffn2.bias", l->down_b, H, 0},
        {"residual.weight", l->res_w, H, W}, {"residual.bias", l->res_b, H, 0}};
    size_t n = ARRAY_LEN(parts) - (l->res_w == 0 ? 2 : 0);
    char name[64];

    for (size_t j = 0; j < n; j++) {
        (void)snprintf(name, sizeof name, "layer%zu.%s", i, parts[j].name);
        lite_copy(from, params + parts[j].at, name, parts[j].rows,
            parts[j].cols, parts[j].cols > 0);
    }
}

static float *
lite_load(struct transformer *t)
{
    static const struct transformer_config config = {.layers = 2,
        .hidden = 512,
        .heads = 4,
        .ffn = 1536,
        .vocab = 8002,
        .embedding = 256,
        .positions = TRANSFORMER_POSITIONS_SINUSOIDAL,
        .max_positions = 128,
        .embedding_scale = 2,
        .norm = TRANSFORMER_NORM_PRE,
        .norm_eps = 1e-6f,
        .act = KERN_ACT_RELU,
        .pooling = TOKENPOOL_MEAN,
        .dense = LITE_DIMS,
        .dense_tanh = true,
        .normalise = true};
    struct tensors from;
    struct buf file;
    uint64_t len;

    read_lite("model.safetensors", &file);
    assert_true(file.len > 8);
    memcpy(&len, file.data, 8);
    assert_true(len < file.len - 8);
    assert_int_equal(
        json_parse(file.data + 8, len, 1 << 20, &from.header, NULL), OK);
    from.data = file.data + 8 + len;
    from.n = file.len - 8 - len;
    assert_int_equal(transformer_plan(t, &config, NULL), OK);
    /* theirs and the 128 rates of the sines */
    assert_int_equal(t->n_params + 128, 6975872);
    float *params = calloc(t->n_params, sizeof *params);
    lite_copy(&from, params + t->word, "embeddings", 8002, 256, false);
    for (size_t i = 0; i < config.layers; i++)
        lite_layer(&from, t, params, i);
    lite_copy(&from, params + t->dense_w, "head.weight", 512, 512, true);
    lite_copy(&from, params + t->dense_b, "head.bias", 512, 0, false);
    json_free(from.header);
    buf_release(&file);
    return params;
}

static void
use_lite(void **state)
{
    struct transformer t;
    struct buf file;
    struct json *texts;
    uint32_t ids[LITE_TEXTS * 128];
    size_t offsets[LITE_TEXTS + 1] = {0};
    static float out[LITE_TEXTS * LITE_DIMS];
    struct transformer_batch batch = {ids, offsets, LITE_TEXTS};
    (void)state;

    float *params = lite_load(&t);
    read_lite("golden.json", &file);
    assert_int_equal(
        json_parse(file.data, file.len, file.len, &texts, NULL), OK);
    assert_int_equal(json_count(texts), LITE_TEXTS);
    for (size_t i = 0; i < LITE_TEXTS; i++) {
        const struct json *list = json_find(json_item(texts, i), "ids");
        size_t n = json_count(list);
        assert_true(n <= 128);
        for (size_t j = 0; j < n; j++)
            ids[offsets[i] + j] = (uint32_t)json_i64(json_item(list, j));
        offsets[i + 1] = offsets[i] + n;
    }
    encode(&t, params, &batch, out);
    for (size_t i = 0; i < LITE_TEXTS; i++) {
        const struct json *list = json_find(json_item(texts, i), "embedding");
        double want[LITE_DIMS];
        for (size_t j = 0; j < LITE_DIMS; j++)
            want[j] = json_f64(json_item(list, j));
        if (offsets[i + 1] == offsets[i]) {
            for (size_t j = 0; j < LITE_DIMS; j++)
                assert_true(fpclassify(out[i * LITE_DIMS + j]) == FP_ZERO);
            continue;
        }
        double far = golden_distance(out + i * LITE_DIMS, want, LITE_DIMS);
        if (!(far <= DISTANCE))
            print_error("text %zu: %g away\n", i, far);
        assert_true(far <= DISTANCE);
    }
    json_free(texts);
    buf_release(&file);
    free(params);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bert_by_pytorch),
        cmocka_unit_test(use_lite),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
