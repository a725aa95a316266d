/*
 * Goal: products by bfloat16 and by integer codes compute what kern.h and
 * panels.h say, exactly where they say so, in every kernel table.
 *
 * Method: each table that the processor can run, against plain loops written
 * here. Products in bfloat16 of every small shape around the tiles, in double.
 * Rows of codes to the byte, at lengths around a segment, with values beyond
 * the step and values that are no numbers. Sums of codes at the edge of what a
 * strip may hold (all weights of one sign, rows as long as they may be), as
 * integers. Packed products against double within the stated bounds, among
 * them rows that must take a wider step, of nothing, and of NaN; parts of the
 * outputs to the bit. Guard words behind outputs catch writes past the end.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/check.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "kern/panels.h"

#define EPS 0x1p-23
#define GUARD 12345.0f
#define M_MAX 27
#define N_MAX 64

typedef void case_fn(const struct kern *k, struct rng *rng);

static void
for_all(case_fn *fn)
{
    const struct kern *k;

    for (size_t i = 0; (k = kern_supported(i)) != NULL; i++) {
        struct rng rng;

        rng_seed(&rng, 3);
        fn(k, &rng);
    }
}

static void
fill(float *x, size_t n, struct rng *rng)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(rng);
}

/* ------------------------------------------------------------ bfloat16 */

#define K_MAX 40
#define LDC (N_MAX + 3)

static double
of_bf16(uint16_t v)
{
    uint32_t bits = (uint32_t)v << 16;
    float x;

    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

static void
check_bf16(const struct kern *k, struct rng *rng, size_t M, size_t N, size_t K,
    bool add)
{
    static float A[M_MAX * K_MAX], C[M_MAX * LDC], before[M_MAX * LDC];
    static uint16_t B[K_MAX * N_MAX];
    struct kern_product p = {.M = M,
        .N = N,
        .K = K,
        .ldc = LDC,
        .a_row = K_MAX,
        .a_col = 1,
        .b_panel = K * KERN_PANEL,
        .add = add};

    fill(A, ARRAY_LEN(A), rng);
    /* numbers around 1 of both signs */
    for (size_t i = 0; i < ARRAY_LEN(B); i++)
        B[i] = (uint16_t)(0x3f00 + rng_below(rng, 256) +
                          (rng_below(rng, 2) << 15));
    for (size_t i = 0; i < ARRAY_LEN(C); i++)
        C[i] = GUARD;
    memcpy(before, C, sizeof C);
    k->product_bf16(C, A, B, &p);
    for (size_t i = 0; i < ARRAY_LEN(C); i++) {
        size_t row = i / LDC, col = i % LDC;

        if (row >= M || col >= N) {
            assert_true(C[i] == GUARD);
            continue;
        }
        double sum = add ? (double)before[i] : 0, mass = fabs(sum);
        for (size_t s = 0; s < K; s++) {
            double term = (double)A[row * K_MAX + s] *
                          of_bf16(B[col / KERN_PANEL * p.b_panel + s / 2 * 32 +
                                    2 * (col % KERN_PANEL) + s % 2]);
            sum += term;
            mass += fabs(term);
        }
        assert_true(fabs((double)C[i] - sum) <= (double)(K + 1) * EPS * mass);
    }
}

static void
case_bf16(const struct kern *k, struct rng *rng)
{
    static const size_t depths[] = {0, 2, 16, K_MAX};

    for (size_t M = 0; M <= M_MAX; M++)
        for (size_t N = 0; N <= N_MAX; N += KERN_PANEL)
            for (size_t d = 0; d < ARRAY_LEN(depths); d++)
                for (int add = 0; add < 2; add++)
                    check_bf16(k, rng, M, N, depths[d], add != 0);
}

static void
products_in_bf16(void **state)
{
    (void)state;
    for_all(case_bf16);
}

/* --------------------------------------------------------------- rows */

#define ROW_MAX 160

/* What a row must be but for its step; the largest squared norm of a strip. */
static int32_t
ref_row(uint8_t *row, const float *x, float inv_step, size_t n)
{
    int32_t most = 0, total = 0;
    uint8_t *less = row + n + 8;

    for (size_t k = 0; k < n; k++) {
        float v = fminf(fmaxf(x[k] * inv_step, -127), 127);
        int32_t code = (int32_t)nearbyintf(v);

        row[k] = (uint8_t)code;
        total -= 64 * code;
    }
    memcpy(row + n + 4, &total, 4);
    for (size_t i = 0; i < n; i += 32)
        for (size_t strip = 0; strip < 2; strip++, less += 2) {
            int32_t sum = 0, square = 0;
            for (size_t k = i; k < MIN(n, i + 32); k++)
                if (k / 2 % 2 == strip) {
                    sum += (int8_t)row[k];
                    square += (int8_t)row[k] * (int8_t)row[k];
                }
            uint16_t bits = (uint16_t)(-64 * sum);
            memcpy(less, &bits, 2);
            most = MAX(most, square);
        }
    return most;
}

static void
case_rows(const struct kern *k, struct rng *rng)
{
    enum { BYTES = KERN_ROW_BYTES(ROW_MAX) + 4 };
    static float x[ROW_MAX];
    uint8_t row[BYTES], want[BYTES];

    for (size_t n = 16; n <= ROW_MAX; n += 16)
        for (int large = 0; large < 2; large++) {
            fill(x, n, rng);
            memset(row, 77, sizeof row);
            memset(want, 77, sizeof want);
            float inv = large ? 60 : 20; /* some beyond 127 */
            int32_t norm = ref_row(want, x, inv, n);
            int32_t got = k->code_row(row, x, inv, n);
            bool in = true;
            for (size_t i = 0; i < n; i++)
                in = in && fabsf(x[i] * inv) <= 128;
            assert_int_equal(got, in ? norm : -1);
            assert_memory_equal(row, want, sizeof row);
            x[rng_below(rng, n)] = n % 32 == 0 ? NAN : -INFINITY;
            assert_int_equal(k->code_row(row, x, 20, n), -1);
        }
}

static void
rows_of_codes(void **state)
{
    (void)state;
    for_all(case_rows);
}

/* ------------------------------------------------------ sums of codes */

/* A row whose strips are as long as weights of norm w_norm allow: values alike,
   or one of 127 and the rest small. */
static void
extreme_row(uint8_t *row, size_t K, double w_norm, size_t i)
{
    double left = 32767 / w_norm;
    float x[ROW_MAX];
    float flat = (float)floor(MIN(left / 4, 127.0));
    float small = (float)floor(sqrt(MAX(left * left - 127 * 127, 0) / 15));

    for (size_t k = 0; k < K; k++) {
        float v = i % 2 == 0 || left < 127 ? flat : small;
        if (i % 2 != 0 && left >= 127 && k % 32 / 4 == 0 && k % 2 == 0)
            v = 127;
        x[k] = i % 4 < 2 ? v : -v;
    }
    float one = 1;
    assert_true((double)ref_row(row, x, 1, K) <= left * left);
    memcpy(row + K, &one, 4);
}

static void
check_codes(const struct kern *k, struct rng *rng, size_t M, size_t N, size_t K,
    bool extreme)
{
    static uint8_t A[M_MAX * KERN_ROW_BYTES(ROW_MAX)], B[N_MAX * ROW_MAX];
    static float C[M_MAX * LDC], step[N_MAX];
    size_t stride = KERN_ROW_BYTES(K);
    struct kern_codes p = {M, N, K, LDC, step};

    for (size_t j = 0; j < N; j++)
        step[j] = j % 3 == 0 ? 1 : 0.5f;
    for (size_t i = 0; i < N * K; i++)
        B[i] = (uint8_t)(extreme ? i / 5 % 7 == 0 ? 0 : 128
                                 : 64 - 20 + rng_below(rng, 41));
    for (size_t i = 0; i < M; i++)
        extreme_row(A + i * stride, K, extreme ? 256 : 80, i);
    for (size_t i = 0; i < ARRAY_LEN(C); i++)
        C[i] = GUARD;
    k->product_codes(C, A, B, &p);
    for (size_t i = 0; i < ARRAY_LEN(C); i++) {
        size_t row = i / LDC, col = i % LDC;
        int64_t sum = 0;

        if (row >= M || col >= N) {
            assert_true(C[i] == GUARD);
            continue;
        }
        for (size_t s = 0; s < K; s++)
            sum +=
                (int64_t)(int8_t)A[row * stride + s] *
                (B[col / 16 * 16 * K + s / 4 * 64 + col % 16 * 4 + s % 4] - 64);
        assert_true(C[i] == (float)sum * step[col]);
    }
}

static void
case_codes(const struct kern *k, struct rng *rng)
{
    static const size_t depths[] = {16, 32, 48, 96, ROW_MAX};

    for (size_t M = 0; M <= M_MAX; M++)
        for (size_t N = 0; N <= N_MAX; N += KERN_PANEL)
            for (size_t d = 0; d < ARRAY_LEN(depths); d++)
                for (int extreme = 0; extreme < 2; extreme++)
                    check_codes(k, rng, M, N, depths[d], extreme != 0);
}

static void
sums_of_codes_are_exact(void **state)
{
    (void)state;
    for_all(case_codes);
}

/* ------------------------------------------------------------- panels */

#define ROWS 9
#define OUT 48
#define IN 912

/* Rows of all kinds: normal, one large value, all alike (their strips are too
   long for the finest step), nothing, hardly anything, nothing but one. */
static void
fill_rows(float *X, struct rng *rng)
{
    fill(X, ROWS * IN, rng);
    X[1 * IN + 100] = 300;
    for (size_t k = 0; k < IN; k++) {
        X[2 * IN + k] = k % 3 == 0 ? -5.0f : 5.0f;
        X[3 * IN + k] = 0;
        X[4 * IN + k] *= 1e-42f;
        X[5 * IN + k] = k == 7 ? 2 : 0;
    }
}

/* |error| of an output, as stated; what is 0 is 0 in codes too. */
static double
bound(enum panels_type type, const float *x, const float *w, double s, double t)
{
    double mass = 0, error = 0;

    for (size_t k = 0; k < IN; k++) {
        mass += fabs((double)x[k] * (double)w[k]);
        if (fpclassify(x[k]) == FP_ZERO)
            continue;
        error +=
            s / 2 * fabs((double)w[k]) + t / 2 * fabs((double)x[k]) + s * t / 4;
    }
    switch (type) {
    case PANELS_BF16:
        return mass * (0x1p-8 + IN * EPS * 1.01);
    case PANELS_INT8: /* a value is rounded after its product by 1 / step */
        return error * (1 + 1e-4) + 3 * 0x1p-24 * (mass + error) + 1e-37;
    case PANELS_F32:
        break;
    }
    return mass * IN * EPS;
}

static void
check_packed(enum panels_type type, const float *W, const float *X)
{
    static float C[ROWS * OUT], part[ROWS * OUT];
    struct panels p = {.type = type, .N = OUT, .K = IN};
    size_t bytes = panels_work_bytes(type, ROWS, IN);
    uint8_t *work = aligned_alloc(PANELS_ALIGN, bytes + PANELS_ALIGN);

    p.data = aligned_alloc(PANELS_ALIGN, panels_bytes(type, OUT, IN));
    memset(work, 7, bytes + PANELS_ALIGN);
    panels_pack(&p, W);
    panels_begin(&p, work, X, IN, ROWS);
    assert_int_equal(work[bytes], 7);
    panels_product(C, OUT, &p, 0, OUT, X, IN, work, ROWS);
    for (size_t i = 0; i < ROWS * OUT; i++) {
        const float *x = X + i / OUT * IN, *w = W + i % OUT * IN;
        double sum = 0, top = 0;
        float step = 0;

        for (size_t k = 0; k < IN; k++) {
            sum += (double)x[k] * (double)w[k];
            top = fmax(top, fabs((double)w[k]));
        }
        if (type == PANELS_INT8)
            memcpy(&step, work + i / OUT * KERN_ROW_BYTES(IN) + IN, 4);
        double far = fabs((double)C[i] - sum);
        double most = bound(type, x, w, (double)step, top / 64);
        if (!(far <= most))
            print_error(
                "%zu: %g, not %g, bound %g\n", i, (double)C[i], sum, most);
        assert_true(far <= most);
    }
    panels_product(part, 16, &p, 32, 16, X, IN, work, ROWS);
    for (size_t i = 0; i < ROWS * 16; i++)
        assert_memory_equal(&part[i], &C[i / 16 * OUT + 32 + i % 16], 4);
    free(p.data);
    free(work);
}

static void
packed_products(void **state)
{
    static float W[OUT * IN], X[ROWS * IN];
    struct rng rng;
    (void)state;

    rng_seed(&rng, 8);
    for (int kind = 0; kind < 2; kind++) {
        fill(W, OUT * IN, &rng);
        fill_rows(X, &rng);
        for (size_t k = 0; k < IN; k++)
            W[k] = kind == 0 ? 0 : 0.25f;
        W[10 * IN + 7] = 9; /* the largest of its output: 64 steps */
        check_packed(PANELS_F32, W, X);
        check_packed(PANELS_BF16, W, X);
        check_packed(PANELS_INT8, W, X);
    }
}

/* The finest step is 127 to the largest value, and a strip's limit costs no
   more than it must. */
static void
steps_are_fine(void **state)
{
    static float W[OUT * IN], X[ROWS * IN];
    static _Alignas(PANELS_ALIGN) uint8_t data[OUT * IN + OUT * 4 + 64];
    static _Alignas(PANELS_ALIGN) uint8_t work[ROWS * KERN_ROW_BYTES(IN) + 64];
    struct panels p = {.type = PANELS_INT8, .N = OUT, .K = IN, .data = data};
    struct rng rng;
    float step[ROWS];
    (void)state;

    rng_seed(&rng, 9);
    fill(W, OUT * IN, &rng);
    fill_rows(X, &rng);
    panels_pack(&p, W);
    panels_begin(&p, work, X, IN, ROWS);
    for (size_t i = 0; i < ROWS; i++)
        memcpy(&step[i], work + i * KERN_ROW_BYTES(IN) + IN, 4);
    assert_true(fabsf(step[1] - 300.0f / 127) <= 1e-5f);
    /* 16 codes alike: of norm row_norm at most, and not far below */
    assert_true(5 / step[2] * 4 <= p.row_norm + 4);
    assert_true(5 / step[2] * 4 >= p.row_norm * 0.95f - 4);
    assert_true(step[3] == 0 && step[4] == 0);
}

static void
no_numbers_give_no_numbers(void **state)
{
    static float W[OUT * IN], X[ROWS * IN], C[ROWS * OUT];
    static _Alignas(PANELS_ALIGN) uint8_t data[OUT * IN + OUT * 4 + 64];
    static _Alignas(PANELS_ALIGN) uint8_t work[ROWS * KERN_ROW_BYTES(IN) + 64];
    struct panels p = {.type = PANELS_INT8, .N = OUT, .K = IN, .data = data};
    struct rng rng;
    (void)state;

    rng_seed(&rng, 10);
    fill(W, OUT * IN, &rng);
    fill(X, ROWS * IN, &rng);
    X[1 * IN + 5] = NAN;
    X[2 * IN + 911] = INFINITY;
    X[3 * IN] = -INFINITY;
    X[3 * IN + 1] = NAN;
    panels_pack(&p, W);
    panels_begin(&p, work, X, IN, ROWS);
    panels_product(C, OUT, &p, 0, OUT, X, IN, work, ROWS);
    for (size_t i = 0; i < ROWS * OUT; i++)
        assert_true((isnan(C[i]) != 0) == (i / OUT >= 1 && i / OUT <= 3));
}

/* -------------------------------------------------------- the self-test */

static void
wrong_bf16(
    float *C, const float *A, const uint16_t *B, const struct kern_product *p)
{
    kern_available(0)->product_bf16(C, A, B, p);
    if (p->M > 6 && p->N > 0)
        C[6 * p->ldc + p->N - 1] *= 1.001f;
}

static int32_t
wrong_row(uint8_t *row, const float *x, float inv_step, size_t n)
{
    int32_t norm = kern_available(0)->code_row(row, x, inv_step, n);
    row[n + 8 + 4 * (n / 64) + 2]++;
    return norm;
}

static void
wrong_codes(
    float *C, const uint8_t *A, const uint8_t *B, const struct kern_codes *p)
{
    kern_available(0)->product_codes(C, A, B, p);
    if (p->M > 0 && p->N > 0)
        C[p->N - 1] *= 1.00001f;
}

static void
self_test_finds_wrong_entries(void **state)
{
    struct kern wrong = *kern_available(0);
    (void)state;

    assert_int_equal(kern_self_test(&wrong), 0);
    wrong.product_bf16 = wrong_bf16;
    assert_int_equal(kern_self_test(&wrong), 14);
    wrong = *kern_available(0);
    wrong.code_row = wrong_row;
    assert_int_equal(kern_self_test(&wrong), 14);
    wrong = *kern_available(0);
    wrong.product_codes = wrong_codes;
    assert_int_equal(kern_self_test(&wrong), 14);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_in_bf16),
        cmocka_unit_test(rows_of_codes),
        cmocka_unit_test(sums_of_codes_are_exact),
        cmocka_unit_test(packed_products),
        cmocka_unit_test(steps_are_fine),
        cmocka_unit_test(no_numbers_give_no_numbers),
        cmocka_unit_test(self_test_finds_wrong_entries),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
