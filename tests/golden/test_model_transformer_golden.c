/*
 * Goal: the transformer's vectors are those of independent implementations.
 *
 * Method: a random network of BERT's shape against PyTorch
 * (make_transformer.py), and the published weights of use-lite with the vectors
 * that come with them, below KINDRED_DATA; cosine distance at most 1e-10. The
 * same with linear layers in bf16 and int8: at most 4e-5 and 4e-3 from f32,
 * half of that in the mean.
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
#include "tests/golden/use_lite.h"

#define DISTANCE 1e-10
#define LITE_TEXTS 13

static void
encode(const struct transformer *t, enum transformer_compute compute,
    const float *params, const struct transformer_batch *batch, float *out)
{
    struct transformer_ready *ready;
    struct transformer_work *work;
    assert_int_equal(transformer_ready_new(&ready, t, compute), OK);
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
    encode(&t, TRANSFORMER_F32, params, &batch, out);
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

/* Cosine distances from the vectors in f32: at most `worst`, half in the mean.
 */
static void
check_near(const struct transformer *t, const float *params,
    const struct transformer_batch *batch, const float *f32,
    enum transformer_compute compute, double worst)
{
    static float out[LITE_TEXTS * LITE_DIMS];
    double most = 0, sum = 0;

    encode(t, compute, params, batch, out);
    for (size_t i = 0; i < batch->n; i++) {
        double want[LITE_DIMS];
        if (batch->offsets[i + 1] == batch->offsets[i])
            continue;
        for (size_t j = 0; j < LITE_DIMS; j++)
            want[j] = (double)f32[i * LITE_DIMS + j];
        double far = golden_distance(out + i * LITE_DIMS, want, LITE_DIMS);
        most = fmax(most, far);
        sum += far;
    }
    print_message("compute %d: cosine distance from f32 %.2g at most, %.2g "
                  "in the mean\n",
        (int)compute, most, sum / (double)batch->n);
    assert_true(most <= worst);
    assert_true(sum / (double)batch->n <= worst / 2);
}

static void
use_lite(void **state)
{
    struct transformer t;
    struct buf file;
    struct json *texts;
    uint32_t ids[LITE_TEXTS * LITE_TOKENS];
    size_t offsets[LITE_TEXTS + 1] = {0};
    static float out[LITE_TEXTS * LITE_DIMS];
    struct transformer_batch batch = {ids, offsets, LITE_TEXTS};
    (void)state;

    read_lite("model.safetensors", &file);
    float *params = lite_load(&t, &file);
    buf_release(&file);
    read_lite("golden.json", &file);
    assert_int_equal(
        json_parse(file.data, file.len, file.len, &texts, NULL), OK);
    assert_int_equal(json_count(texts), LITE_TEXTS);
    for (size_t i = 0; i < LITE_TEXTS; i++) {
        const struct json *list = json_find(json_item(texts, i), "ids");
        size_t n = json_count(list);
        assert_true(n <= LITE_TOKENS);
        for (size_t j = 0; j < n; j++)
            ids[offsets[i] + j] = (uint32_t)json_i64(json_item(list, j));
        offsets[i + 1] = offsets[i] + n;
    }
    encode(&t, TRANSFORMER_F32, params, &batch, out);
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
    check_near(&t, params, &batch, out, TRANSFORMER_BF16, 4e-5);
    check_near(&t, params, &batch, out, TRANSFORMER_INT8, 4e-3);
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
