/*
 * Goal: every objective and its gradients are those of the papers to 1e-6.
 *
 * Method: the numbers of objectives.h, which make_objectives.py beside it makes
 * in doubles by each paper's own formula, with weights, masks, labels and the
 * temperature's gradient.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/check.h"
#include "kern/kern.h"
#include "nn/infonce.h"
#include "tests/golden/objectives.h"

#define TOLERANCE 1e-6

static void
near(double got, double want, const char *what, size_t i)
{
    double err = fabs(got - want) / fmax(fabs(want), 1);
    if (!(err <= TOLERANCE))
        print_error("%s %zu: got %.9g, want %.9g\n", what, i, got, want);
    assert_true(err <= TOLERANCE);
}

/* want holds the loss, the temperature's gradient, then that of all rows in
   the order anchors, their keys, the queue. */
static void
check(struct infonce_in *in, const double *want, const char *what)
{
    static float workspace[4096];
    float dq[GOLDEN_ROWS * GOLDEN_D] = {0}, dk[GOLDEN_ROWS * GOLDEN_D] = {0};
    struct infonce_out out = {.dq = dq, .dk = dk};
    bool views = in->layout == INFONCE_VIEWS;
    size_t rows = views ? in->M : in->B;
    size_t n_q = rows * GOLDEN_D, n_k = views ? 0 : in->M * GOLDEN_D;
    const double *dx = want + 2;

    assert_true(infonce_workspace_floats(rows, in->M) <= ARRAY_LEN(workspace));
    in->D = GOLDEN_D;
    in->tau = GOLDEN_TAU;
    in->weight = golden_weight;
    infonce(in, &out, workspace, NULL);
    near(out.loss, want[0], what, 0);
    near(out.d_log_scale, want[1], what, 1);
    for (size_t i = 0; i < n_q; i++)
        near((double)dq[i], dx[i], what, 2 + i);
    if (in->layout == INFONCE_APART) /* the positives have none */
        dx += GOLDEN_N * GOLDEN_D;
    for (size_t i = 0; i < n_k; i++)
        near((double)dk[i], dx[n_q + i], what, 2 + n_q + i);
}

static const float *const queries = golden_x;
static const float *const keys = golden_x + GOLDEN_N * GOLDEN_D;
static const float *const queue = golden_x + 2 * GOLDEN_N * GOLDEN_D;

static void
test_pairs(void **state)
{
    struct infonce_in in = {.layout = INFONCE_KEYS,
        .B = GOLDEN_N,
        .M = GOLDEN_N + GOLDEN_K,
        .q = queries,
        .k = keys};
    (void)state;
    check(&in, golden_pairs, "pairs");
    in.M = GOLDEN_N;
    in.symmetric = true;
    check(&in, golden_clip, "clip");
}

/* Samples that are no negatives of each other, in all four ways of meeting. */
static size_t
view_masks(struct infonce_mask *out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < 2 * GOLDEN_N; i++) {
        for (uint32_t j = 0; j < 2 * GOLDEN_N; j++) {
            uint32_t a = MIN(i % GOLDEN_N, j % GOLDEN_N);
            uint32_t b = MAX(i % GOLDEN_N, j % GOLDEN_N);
            for (size_t m = 0; m < GOLDEN_PAIR_MASKS; m++) {
                if (golden_pair_mask[m][0] == a && golden_pair_mask[m][1] == b)
                    out[n++] = (struct infonce_mask){.row = i, .col = j};
            }
        }
    }
    return n;
}

static void
test_views(void **state)
{
    struct infonce_mask mask[4 * GOLDEN_N * GOLDEN_N];
    uint64_t label[2 * GOLDEN_N];
    struct infonce_in in = {.layout = INFONCE_VIEWS,
        .B = GOLDEN_N,
        .M = 2 * GOLDEN_N,
        .q = golden_x,
        .mask = mask,
        .n_mask = view_masks(mask)};

    (void)state;
    for (size_t i = 0; i < 2 * GOLDEN_N; i++)
        label[i] = golden_label[i % GOLDEN_N];
    check(&in, golden_nt_xent, "nt_xent");
    in.joint = true;
    check(&in, golden_four_way, "four_way");
    in.joint = false;
    in.decoupled = true;
    check(&in, golden_dcl, "dcl");
    in.decoupled = false;
    in.label = label;
    check(&in, golden_supcon, "supcon");
}

static void
test_moco(void **state)
{
    struct infonce_mask mask[GOLDEN_QUEUE_MASKS];
    uint64_t label[GOLDEN_N], queue_label[GOLDEN_K];
    struct infonce_in in = {.layout = INFONCE_APART,
        .B = GOLDEN_N,
        .M = GOLDEN_K,
        .q = queries,
        .positive = keys,
        .k = queue,
        .mask = mask,
        .n_mask = GOLDEN_QUEUE_MASKS};

    (void)state;
    for (size_t i = 0; i < GOLDEN_QUEUE_MASKS; i++)
        mask[i] = (struct infonce_mask){
            golden_queue_mask[i][0], golden_queue_mask[i][1]};
    for (size_t i = 0; i < GOLDEN_N; i++)
        label[i] = golden_label[i];
    for (size_t i = 0; i < GOLDEN_K; i++)
        queue_label[i] = golden_queue_label[i];
    check(&in, golden_moco, "moco");
    in.label = label;
    in.key_label = queue_label;
    check(&in, golden_moco_labels, "moco_labels");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_moco),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
