/*
 * Goal: the encoder's forward pass, InfoNCE and AdamW compute what an
 * implementation in another language computes from the same description.
 *
 * Method: the numbers of learning.h, made by make_learning.py beside it; every
 * kernel table of this machine that KINDRED_KERNELS can choose is covered by
 * its own test, here the chosen one runs.
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
#include "kern/kern.h"
#include "model/encoder.h"
#include "model/static_encoder.h"
#include "nn/infonce.h"
#include "tests/golden/learning.h"
#include "train/optimizer.h"

#define TOLERANCE 1e-6

static void
near(double got, double want, double tolerance, const char *what, size_t i)
{
    double err = fabs(got - want) / fmax(fabs(want), 1);
    if (!(err <= tolerance))
        print_error("%s %zu: got %.9g, want %.9g\n", what, i, got, want);
    assert_true(err <= tolerance);
}

static void
test_static_forward(void **state)
{
    struct encoder *encoder;
    struct encoder_input inputs[GOLDEN_TEXTS];
    float out[GOLDEN_TEXTS * GOLDEN_DIMS];
    size_t n_params;

    (void)state;
    assert_int_equal(
        encoder_new(&encoder, "static", GOLDEN_CONFIG, NULL, NULL), OK);
    float *params = encoder_params(encoder, &n_params);
    const struct static_encoder *e = self_of(encoder);
    for (size_t w = 0; w < e->n_weights; w++) {
        params[e->theta_at + w] = (float)(((double)(w % 13) - 6) / 20);
        params[e->phi_at + w] = (float)(-(double)(w % 7) / 10);
    }
    for (size_t b = 0; b < STATIC_POSITIONS; b++)
        params[e->rho_at + b] = (float)(-(double)b / 10);
    for (size_t i = 0; i < GOLDEN_TEXTS; i++)
        inputs[i] = (struct encoder_input){
            .text = golden_text[i], .len = strlen(golden_text[i])};
    assert_int_equal(
        encoder_encode(encoder, inputs, GOLDEN_TEXTS, out, NULL, NULL), OK);
    for (size_t i = 0; i < GOLDEN_TEXTS * GOLDEN_DIMS; i++)
        near((double)out[i], golden_vector[i], TOLERANCE, "vector", i);
    encoder_free(encoder);
}

static void
check_infonce(bool symmetric, const double *loss, const double *want_dq,
    const double *want_dk)
{
    float dq[GOLDEN_B * GOLDEN_D], dk[GOLDEN_M * GOLDEN_D];
    float workspace[512];
    struct infonce_mask mask[GOLDEN_MASKS];
    struct infonce_in in = {.B = GOLDEN_B,
        .M = GOLDEN_M,
        .D = GOLDEN_D,
        .q = golden_q,
        .k = golden_k,
        .weight = golden_weight,
        .mask = mask,
        .n_mask = GOLDEN_MASKS,
        .tau = GOLDEN_TAU,
        .symmetric = symmetric};
    struct infonce_out out = {.dq = dq, .dk = dk};

    assert_true(infonce_workspace_floats(GOLDEN_B, GOLDEN_M) <= 512);
    for (size_t i = 0; i < GOLDEN_MASKS; i++)
        mask[i] = (struct infonce_mask){golden_mask[i][0], golden_mask[i][1]};
    infonce(&in, &out, workspace, NULL);
    near(out.loss, loss[0], TOLERANCE, "loss", 0);
    near(out.d_log_scale, loss[1], TOLERANCE, "d_log_scale", 0);
    for (size_t i = 0; i < GOLDEN_B * GOLDEN_D; i++)
        near((double)dq[i], want_dq[i], TOLERANCE, "dq", i);
    for (size_t i = 0; i < GOLDEN_M * GOLDEN_D; i++)
        near((double)dk[i], want_dk[i], TOLERANCE, "dk", i);
}

static void
test_infonce(void **state)
{
    (void)state;
    check_infonce(false, golden_loss_one, golden_dq_one, golden_dk_one);
    check_infonce(true, golden_loss_both, golden_dq_both, golden_dk_both);
}

static void
test_adamw(void **state)
{
    static const struct optimizer_options options = {.kind = OPTIMIZER_ADAMW,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .eps = 1e-8f,
        .weight_decay = 0.01f};
    float params[GOLDEN_PARAMS], d_params[GOLDEN_PARAMS];
    struct encoder_segment all = {.n = GOLDEN_PARAMS, .lr_scale = 1};
    struct encoder_grads grads = {
        .d_params = d_params, .segments = &all, .n_segments = 1};
    struct optimizer *optimizer;

    (void)state;
    memcpy(params, golden_params, sizeof params);
    assert_int_equal(optimizer_new(&optimizer, GOLDEN_PARAMS, &options), OK);
    for (size_t t = 0; t < GOLDEN_STEPS; t++) {
        memcpy(d_params, golden_grads + t * GOLDEN_PARAMS, sizeof d_params);
        optimizer_step(optimizer, params, &grads, 0.03f, NULL);
        for (size_t i = 0; t == 0 && i < GOLDEN_PARAMS; i++)
            near((double)params[i], golden_first[i], TOLERANCE, "first", i);
    }
    for (size_t i = 0; i < GOLDEN_PARAMS; i++)
        near((double)params[i], golden_last[i], TOLERANCE, "last", i);
    optimizer_free(optimizer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_static_forward),
        cmocka_unit_test(test_infonce),
        cmocka_unit_test(test_adamw),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
