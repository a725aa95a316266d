/*
 * Goal: ten steps of fine-tuning a transformer are those of an independent
 * implementation.
 *
 * Method: make_transformer.py trains the network of transformer_net.h with
 * PyTorch: InfoNCE within the batch over pairs of id sequences, AdamW with
 * decay of the matrices alone. Every word and position comes in every batch, so
 * that optimisers which leave out rows without gradient agree with those that
 * do not. The first step's gradients to 1e-4 of their norms, losses to 1e-5 of
 * each, and the vectors afterwards to 1e-8 of cosine distance; without the
 * training they are far from that.
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
#include "nn/infonce.h"
#include "tests/golden/transformer.h"
#include "tests/golden/transformer_net.h"
#include "train/optimizer.h"

#define DIMS 64
#define TAU 0.1f
#define RATE 2e-4f

/* The norms of the first step's gradients; q, k and v of a layer are one part
   there. */
static void
check_gradients(const struct transformer *t, const float *d)
{
    struct encoder_tensor all[64];
    size_t n = transformer_tensors(t, all, ARRAY_LEN(all)), part = 0;

    for (size_t i = 0; i < n; part++) {
        size_t tensors = strstr(all[i].name, "query") != NULL ? 3 : 1;
        size_t end = i + tensors < n ? all[i + tensors].start : t->n_params;
        double square = 0;

        for (size_t j = all[i].start; j < end; j++)
            square += (double)d[j] * (double)d[j];
        assert_true(part < ARRAY_LEN(golden_gradient));
        if (!(fabs(sqrt(square) - golden_gradient[part]) <=
                1e-4 * golden_gradient[part]))
            print_error("%s: gradient of norm %g, not %g\n", all[i].name,
                sqrt(square), golden_gradient[part]);
        assert_true(fabs(sqrt(square) - golden_gradient[part]) <=
                    1e-4 * golden_gradient[part]);
        i += tensors;
    }
    assert_int_equal(part, ARRAY_LEN(golden_gradient));
}

static void
ten_steps(void **state)
{
    struct transformer t;
    struct transformer_tape *tape;
    struct optimizer *optimizer;
    struct optimizer_options options;
    struct encoder_grads grads = {.n_marks = GOLDEN_VOCAB};
    uint32_t ids[GOLDEN_TOKENS];
    size_t offsets[2 * GOLDEN_PAIRS + 1];
    float out[2 * GOLDEN_PAIRS * DIMS], d_out[2 * GOLDEN_PAIRS * DIMS];
    struct infonce_in in = {.layout = INFONCE_KEYS,
        .B = GOLDEN_PAIRS,
        .M = GOLDEN_PAIRS,
        .D = DIMS,
        .q = out,
        .k = out + GOLDEN_PAIRS * DIMS,
        .tau = TAU};
    (void)state;

    assert_int_equal(transformer_plan(&t, &golden_config, NULL), OK);
    assert_int_equal(transformer_tape_new(&tape, &t, 0), OK);
    optimizer_options_default(&options, OPTIMIZER_ADAMW);
    options.eps = 1e-6f;
    options.weight_decay = 10; /* so that it shows in ten steps */
    assert_int_equal(optimizer_new(&optimizer, t.n_params, &options), OK);
    float *params = calloc(t.n_params, sizeof *params);
    float *work = calloc(
        infonce_workspace_floats(GOLDEN_PAIRS, GOLDEN_PAIRS), sizeof *work);
    grads.d_params = calloc(t.n_params, sizeof *params);
    grads.marks = calloc(GOLDEN_VOCAB, 1);
    grads.segments =
        calloc(transformer_n_segments_max(&t), sizeof *grads.segments);
    golden_fill(&t, params);
    for (size_t step = 0; step < ARRAY_LEN(golden_loss); step++) {
        struct transformer_batch batch = golden_sequences(step, ids, offsets);
        struct infonce_out loss = {
            .dq = d_out, .dk = d_out + GOLDEN_PAIRS * DIMS};
        assert_int_equal(
            transformer_forward(&t, params, tape, &batch, out, NULL), OK);
        infonce(&in, &loss, work, NULL);
        assert_true(
            fabs(loss.loss - golden_loss[step]) <= 1e-5 * golden_loss[step]);
        assert_int_equal(transformer_backward(&t, params, tape, d_out,
                             grads.d_params, grads.marks, NULL),
            OK);
        if (step == 0)
            check_gradients(&t, grads.d_params);
        grads.n_segments =
            transformer_segments(&t, 0, grads.marks, grads.segments);
        optimizer_step(optimizer, params, &grads, RATE, NULL);
    }
    struct transformer_batch batch = golden_sequences(0, ids, offsets);
    assert_int_equal(
        transformer_forward(&t, params, tape, &batch, out, NULL), OK);
    for (size_t i = 0; i < GOLDEN_PAIRS; i++) {
        assert_true(golden_distance(
                        out + i * DIMS, golden_after + i * DIMS, DIMS) <= 1e-8);
        assert_true(golden_distance(
                        out + i * DIMS, golden_before + i * DIMS, DIMS) > 1e-3);
    }
    optimizer_free(optimizer);
    transformer_tape_free(tape);
    free(params);
    free(work);
    free(grads.d_params);
    free(grads.marks);
    free(grads.segments);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ten_steps)};

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
