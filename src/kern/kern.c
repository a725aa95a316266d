/*
 * kern.c - the choice of a kernel table, its self-test, and the small parts
 * of the scan's code format that no processor needs help with.
 *
 * The self-test runs every entry of a table on fixed pseudo-random inputs at
 * lengths around the vector widths and compares it with the scalar table
 * within the stated bounds; integer kernels must agree to the bit. It takes
 * about a millisecond, and is what keeps a table that a compiler or a
 * processor got wrong from being used.
 */
#include "kern/kern.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"
#include "base/log.h"
#include "kern/tables.h"

#define TEST_MAX 200 /* floats of a self-test vector */
#define TEST_SCAN_DIMS_MAX 144
#define TEST_BLOCKS 5
#define TEST_QUERIES 13
#define FLOAT_EPS 1.1920929e-7 /* 2^-23 */
#define EXP_ERR 1.2e-5         /* of two kernels, one 1e-5 off and one exact */

#define STRIPE_CODES 32

static const struct kern *chosen = &kern_scalar;

const struct kern *
kern(void)
{
    return chosen;
}

/* --- the code format ------------------------------------------------------ */

int32_t
kern_stripe_norm2(const int8_t *code, size_t n)
{
    int32_t most = 0;

    for (size_t seg = 0; seg < n; seg += KERN_SEG_DIMS) {
        size_t end = MIN(seg + KERN_SEG_DIMS, n);
        int32_t sum[2] = {0, 0};

        for (size_t d = seg; d < end; d += 4) {
            sum[0] += code[d] * code[d] + code[d + 1] * code[d + 1];
            sum[1] += code[d + 2] * code[d + 2] + code[d + 3] * code[d + 3];
        }
        most = MAX(most, MAX(sum[0], sum[1]));
    }
    return most;
}

/* Behind the codes: -128 times the sum of all as int32, then for each segment
   the same of its two stripes, as two int16 (modulo 2^16). */
void
kern_scan_prepare(uint8_t *query, size_t n)
{
    uint8_t *out = query + n + 4;
    int32_t total = 0;

    for (size_t seg = 0; seg < n; seg += KERN_SEG_DIMS) {
        size_t end = MIN(seg + KERN_SEG_DIMS, n);
        int32_t sum[2] = {0, 0};

        for (size_t d = seg; d < end; d++)
            sum[d / 2 % 2] += (int8_t)query[d];
        for (size_t stripe = 0; stripe < 2; stripe++) {
            uint16_t less = (uint16_t)(-128 * sum[stripe]);

            memcpy(out, &less, 2);
            out += 2;
        }
        total += sum[0] + sum[1];
    }
    total *= -128;
    memcpy(query + n, &total, 4);
}

void
kern_block_put(uint8_t *block, size_t row, const int8_t *code, size_t n)
{
    uint8_t *to = block + 4 * row;

    for (size_t d = 0; d < n; d += 4, to += 4 * KERN_BLOCK_ROWS)
        for (size_t i = 0; i < 4; i++)
            to[i] = (uint8_t)((code != NULL ? code[d + i] : 0) + 128);
}

void
kern_block_move(uint8_t *to_block, size_t to_row, const uint8_t *from_block,
    size_t from_row, size_t n)
{
    for (size_t at = 0; at < n * KERN_BLOCK_ROWS; at += 4 * KERN_BLOCK_ROWS)
        memcpy(to_block + at + 4 * to_row, from_block + at + 4 * from_row, 4);
}

/* --- the self-test -------------------------------------------------------- */

static const size_t test_lengths[] = {
    0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 100, TEST_MAX};

/* A fixed sequence of floats, mostly near 1 in size and now and then large:
   kern may not use base/rng's distributions for a constant of its own. */
static float
next_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    float v = (float)(int32_t)*state * 0x1p-31f;

    return (*state >> 8) % 17 == 0 ? v * 100.0f : v;
}

static void
fill(float *x, size_t n, uint32_t *state)
{
    for (size_t i = 0; i < n; i++)
        x[i] = next_value(state);
}

static bool
near(double a, double b, double bound)
{
    return fabs(a - b) <= bound;
}

static bool
near_all(
    const float *a, const float *b, size_t n, double relative, double absolute)
{
    for (size_t i = 0; i < n; i++)
        if (!near((double)a[i], (double)b[i],
                relative * fabs((double)b[i]) + absolute))
            return false;
    return true;
}

static double
sum_abs_products(const float *a, const float *b, size_t n)
{
    double s = 0.0;

    for (size_t i = 0; i < n; i++)
        s += fabs((double)a[i] * (double)b[i]);
    return s;
}

/* The float kernels at one length, at an odd offset. Entry number or 0. */
static int
test_floats(const struct kern *t, size_t n, uint32_t *state)
{
    float a_store[TEST_MAX + 1], b_store[TEST_MAX + 1];
    float y_store[TEST_MAX + 1], z[TEST_MAX], rows[3 * TEST_MAX];
    float *a = a_store + 1, *b = b_store + 1, *y = y_store + 1;
    const struct kern *ref = &kern_scalar;
    static const uint32_t idx[] = {2, 0, 1, 2, 0, 1, 1};
    static const float w[] = {0.5f, -1.5f, 2.0f, 0.25f, 1.0f, -3.0f, 0.125f};
    int8_t code[TEST_MAX + 8], code_ref[TEST_MAX + 8];

    fill(a, n, state);
    fill(b, n, state);
    fill(z, n, state);
    fill(rows, 3 * n, state);

    double mass = sum_abs_products(a, b, n);

    if (!near((double)t->dot_f32(a, b, n), (double)ref->dot_f32(a, b, n),
            2.0 * (double)n * FLOAT_EPS * mass))
        return 1;
    if (!near(t->dot_f64(a, b, n), ref->dot_f64(a, b, n),
            2.0 * (double)n * 0x1p-53 * mass))
        return 2;
    memcpy(y, z, n * sizeof(*y));
    t->axpy(y, 0.75f, a, n);
    ref->axpy(z, 0.75f, a, n);
    if (!near_all(y, z, n, 0.0, 4.0 * FLOAT_EPS * 200.0))
        return 3;
    memcpy(y, z, n * sizeof(*y));
    t->gather(y, rows, n, idx, w, ARRAY_LEN(w), n);
    ref->gather(z, rows, n, idx, w, ARRAY_LEN(w), n);
    if (!near_all(y, z, n, 0.0, 16.0 * FLOAT_EPS * 1200.0))
        return 4;
    memcpy(y, z, n * sizeof(*y));
    t->scale(y, -1.25f, n);
    ref->scale(z, -1.25f, n);
    if (!near_all(y, z, n, FLOAT_EPS, 0.0))
        return 5;
    if (!near((double)t->absmax(a, n), (double)ref->absmax(a, n), 0.0))
        return 6;
    t->quantize(code, a, 90.3f, 120, n, n + 5);
    ref->quantize(code_ref, a, 90.3f, 120, n, n + 5);
    if (memcmp(code, code_ref, n + 5) != 0)
        return 7;
    float top = t->max(b, n);
    if (n > 0 && !near((double)top, (double)ref->max(b, n), 0.0))
        return 11;
    memcpy(y, b, n * sizeof(*y));
    memcpy(z, b, n * sizeof(*z));
    double sum = (double)t->exp_shift(y, n > 0 ? top : 0.0f, n);
    double sum_ref = (double)ref->exp_shift(z, n > 0 ? top : 0.0f, n);
    if (!near_all(y, z, n, EXP_ERR, 0x1p-126) ||
        !near(sum, sum_ref, (EXP_ERR + (double)n * FLOAT_EPS) * sum_ref))
        return 10;
    return 0;
}

static bool
test_adamw(const struct kern *t, size_t n, uint32_t *state)
{
    float p[2][TEST_MAX] = {0}, m[2][TEST_MAX] = {0}, v[2][TEST_MAX] = {0};
    float g[TEST_MAX] = {0};
    const struct kern_adamw opt = {.lr = 0.01f,
        .beta1 = 0.9f,
        .beta2 = 0.98f,
        .eps = 1e-6f,
        .weight_decay = 0.1f,
        .correct1 = 1.0f / (1.0f - 0.729f),
        .correct2 = 1.0f / (1.0f - 0.941192f)};

    fill(p[0], n, state);
    fill(g, n, state);
    fill(m[0], n, state);
    fill(v[0], n, state);
    for (size_t i = 0; i < n; i++)
        v[0][i] = fabsf(v[0][i]);
    memcpy(p[1], p[0], sizeof(p[0]));
    memcpy(m[1], m[0], sizeof(m[0]));
    memcpy(v[1], v[0], sizeof(v[0]));
    kern_scalar.adamw(p[0], g, m[0], v[0], n, &opt);
    t->adamw(p[1], g, m[1], v[1], n, &opt);
    return near_all(p[1], p[0], n, 4 * FLOAT_EPS, 1e-5) &&
           near_all(m[1], m[0], n, 4 * FLOAT_EPS, 1e-5) &&
           near_all(v[1], v[0], n, 4 * FLOAT_EPS, 1e-3);
}

static bool
test_rows(const struct kern *t, size_t n, size_t b, uint32_t *state)
{
    const struct kern *ref = &kern_scalar;
    float x[TEST_MAX], y[TEST_MAX], z[2][TEST_MAX], scale[16], add[16];
    float sum[2][16], other[2][16];
    size_t rows = n / b;
    double bound = 4.0 * (double)(rows + 1) * FLOAT_EPS * 1e4 * (double)rows;

    n = rows * b;
    fill(x, n, state);
    fill(y, n, state);
    for (size_t i = 0; i < n; i += 5)
        y[i] = 0;
    fill(z[0], n, state);
    fill(scale, b, state);
    fill(add, b, state);
    memcpy(z[1], z[0], n * sizeof(float));
    t->rows_moments(sum[0], other[0], x, 0.5f, rows, b);
    ref->rows_moments(sum[1], other[1], x, 0.5f, rows, b);
    if (!near_all(sum[0], sum[1], b, 0.0, bound) ||
        !near_all(other[0], other[1], b, 0.0, bound))
        return false;
    t->rows_grad_sums(sum[0], other[0], z[0], y, x, 0.5f, rows, b);
    ref->rows_grad_sums(sum[1], other[1], z[1], y, x, 0.5f, rows, b);
    if (!near_all(sum[0], sum[1], b, 0.0, bound) ||
        !near_all(other[0], other[1], b, 0.0, bound) ||
        memcmp(z[0], z[1], n * sizeof(float)) != 0)
        return false;
    t->rows_grad(z[0], z[0], x, scale, 0.25f, -1.5f, rows, b);
    ref->rows_grad(z[1], z[1], x, scale, 0.25f, -1.5f, rows, b);
    if (!near_all(z[0], z[1], n, FLOAT_EPS, 4.0 * FLOAT_EPS * 1e4))
        return false;
    for (int relu = 0; relu < 2; relu++) {
        const float *residual = relu ? y : NULL;

        t->rows_affine(z[0], x, residual, scale, add, relu, rows, b);
        ref->rows_affine(z[1], x, residual, scale, add, relu, rows, b);
        if (!near_all(z[0], z[1], n, FLOAT_EPS, 4.0 * FLOAT_EPS * 1e4))
            return false;
    }
    return true;
}

/* The product by strides: A as it is and transposed, B in panels and row-major,
   set and added. */
static bool
test_product(const struct kern *t, size_t M, uint32_t *state)
{
    enum { N = 48, K = 20, ROWS = 29 };
    float A[ROWS * K], B[K * N], C[2][ROWS * N], mass[ROWS * N];
    float A_abs[ROWS * K], B_abs[K * N];

    ASSERT(M <= ROWS);
    fill(A, ROWS * K, state);
    fill(B, K * N, state);
    fill(C[0], ROWS * N, state);
    memcpy(C[1], C[0], sizeof C[0]);
    for (size_t i = 0; i < ROWS * N; i++)
        mass[i] = fabsf(C[0][i]);
    for (size_t i = 0; i < ROWS * K; i++)
        A_abs[i] = fabsf(A[i]);
    for (size_t i = 0; i < K * N; i++)
        B_abs[i] = fabsf(B[i]);
    for (int way = 0; way < 4; way++) {
        bool turned = way % 2 != 0, rows = way / 2 != 0;
        struct kern_product p = {.M = M,
            .N = N,
            .K = K,
            .ldc = N,
            .a_row = turned ? 1 : K,
            .a_col = turned ? ROWS : 1,
            .b_row = rows ? N : KERN_PANEL,
            .b_panel = rows ? KERN_PANEL : K * KERN_PANEL,
            .add = way == 1 || way == 2};

        t->product(C[0], A, B, &p);
        kern_scalar.product(C[1], A, B, &p);
        kern_scalar.product(mass, A_abs, B_abs, &p);
        for (size_t i = 0; i < ROWS * N; i++)
            if (!near((double)C[0][i], (double)C[1][i],
                    4.0 * K * FLOAT_EPS * (double)mass[i]))
                return false;
    }
    return true;
}

static bool
test_bf16(const struct kern *t, size_t M, uint32_t *state)
{
    enum { N = 48, K = 20, ROWS = 29 };
    float A[ROWS * K], C[2][ROWS * N], mass[ROWS * N], A_abs[ROWS * K];
    uint16_t B[K * N], B_abs[K * N];
    struct kern_product p = {.M = M,
        .N = N,
        .K = K,
        .ldc = N,
        .a_row = K,
        .a_col = 1,
        .b_panel = K * KERN_PANEL};

    ASSERT(M <= ROWS);
    fill(A, ROWS * K, state);
    for (size_t i = 0; i < ROWS * K; i++)
        A_abs[i] = fabsf(A[i]);
    for (size_t i = 0; i < K * N; i++) {
        *state = *state * 1664525u + 1013904223u;
        B_abs[i] = (uint16_t)(0x3f00u + (*state >> 24));
        B[i] = (uint16_t)(B_abs[i] | (*state & 0x8000u));
    }
    fill(C[0], ROWS * N, state);
    for (size_t i = 0; i < ROWS * N; i++)
        mass[i] = fabsf(C[0][i]);
    memcpy(C[1], C[0], sizeof C[0]);
    for (p.add = 0; p.add < 2; p.add++) {
        t->product_bf16(C[0], A, B, &p);
        kern_scalar.product_bf16(C[1], A, B, &p);
        kern_scalar.product_bf16(mass, A_abs, B_abs, &p);
        for (size_t i = 0; i < ROWS * N; i++)
            if (!near((double)C[0][i], (double)C[1][i],
                    4.0 * K * FLOAT_EPS * (double)mass[i]))
                return false;
    }
    return true;
}

/* Rows and weights whose strips are as long as they may be, and half of them
   of one sign; to the bit. */
static bool
test_codes(const struct kern *t, size_t M, uint32_t *state)
{
    enum { N = 48, K = 80, ROWS = 29, STRIDE = KERN_ROW_BYTES(K) };
    uint8_t A[2][ROWS * STRIDE] = {{0}}, B[K * N];
    float x[K], step[N], C[2][ROWS * N] = {{0}};
    const struct kern_codes p = {M, N, K, N, step};

    ASSERT(M <= ROWS);
    fill(step, N, state);
    for (size_t i = 0; i < K * N; i++) {
        *state = *state * 1664525u + 1013904223u;
        B[i] = (uint8_t)(i / (4 * KERN_PANEL) % 4 != 0 ? 128
                                                       : (*state >> 8) % 129);
    }
    for (size_t i = 0; i < M; i++) {
        for (size_t k = 0; k < K; k++) {
            *state = *state * 1664525u + 1013904223u;
            x[k] = (float)((*state >> 9) % 62) * 0.5f;
            x[k] = i % 2 != 0 && (*state & 256) != 0 ? -x[k] : x[k];
        }
        for (size_t way = 0; way < 2; way++) {
            const struct kern *by = way == 0 ? t : &kern_scalar;
            uint8_t *row = A[way] + i * STRIDE;

            if (by->code_row(row, x, 1.0f, K) < 0)
                return false;
            memcpy(row + K, &x[i % K], sizeof(float));
        }
    }
    if (memcmp(A[0], A[1], sizeof A[0]) != 0)
        return false;
    t->product_codes(C[0], A[0], B, &p);
    kern_scalar.product_codes(C[1], A[1], B, &p);
    return memcmp(C[0], C[1], sizeof C[0]) == 0;
}

static bool
test_softmax(const struct kern *t, size_t n, uint32_t *state)
{
    float p[2][2 * TEST_MAX] = {{0}}, d[2][2 * TEST_MAX] = {{0}};

    if (n == 0)
        return true;
    fill(p[0], 2 * n, state);
    fill(d[0], 2 * n, state);
    memcpy(p[1], p[0], 2 * n * sizeof(float));
    memcpy(d[1], d[0], 2 * n * sizeof(float));
    t->softmax(p[0], n, 0.25f, 2, n);
    kern_scalar.softmax(p[1], n, 0.25f, 2, n);
    t->softmax_grad(d[0], p[1], n, 0.25f, 2, n);
    kern_scalar.softmax_grad(d[1], p[1], n, 0.25f, 2, n);
    return near_all(p[0], p[1], 2 * n, 2 * EXP_ERR, 0x1p-126) &&
           near_all(d[0], d[1], 2 * n, 0.0, 400.0 * FLOAT_EPS * 100.0);
}

static bool
test_activate(const struct kern *t, enum kern_act act, uint32_t *state)
{
    enum { N = 96 };
    float u[2][2 * N], y[2][2 * N], d[2][2 * N], bias[N];

    fill(u[0], 2 * N, state);
    fill(bias, N, state);
    fill(d[0], 2 * N, state);
    for (size_t i = 0; i < N; i++)
        u[0][i] = 6.0f * u[0][i];
    memcpy(u[1], u[0], sizeof u[0]);
    memcpy(d[1], d[0], sizeof d[0]);
    t->activate(y[0], u[0], N, bias, act, 2, N);
    kern_scalar.activate(y[1], u[1], N, bias, act, 2, N);
    for (size_t i = 0; i < 2 * N; i++)
        if (!near((double)y[0][i], (double)y[1][i],
                1e-6 * (fabs((double)u[1][i]) + 1e-6)))
            return false;
    t->activate_grad(d[0], y[0], u[1], act, 2 * N);
    kern_scalar.activate_grad(d[1], y[1], u[1], act, 2 * N);
    for (size_t i = 0; i < 2 * N; i++)
        if (!near((double)y[0][i], (double)y[1][i],
                1e-6 * (fabs((double)u[1][i]) + 1e-6)) ||
            !near((double)d[0][i], (double)d[1][i], 100.0 * 4e-6))
            return false;
    return true;
}

static bool
test_layernorm(const struct kern *t, size_t n, uint32_t *state)
{
    enum { ROWS = 3 };
    float x[2][ROWS * TEST_MAX], y[2][ROWS * TEST_MAX], more[ROWS * TEST_MAX];
    float stats[2][2 * ROWS], sums[2][2 * TEST_MAX] = {{0}}, gain[TEST_MAX];
    const struct kern_norm norm = {.gain = gain,
        .bias = gain,
        .eps = 1e-6f,
        .n = n / KERN_PANEL * KERN_PANEL};

    n = norm.n;
    if (n == 0)
        return true;
    fill(x[0], ROWS * n, state);
    fill(more, ROWS * n, state);
    fill(gain, n, state);
    memcpy(x[1], x[0], ROWS * n * sizeof(float));
    t->layernorm(y[0], stats[0], x[0], more, gain, &norm, ROWS);
    kern_scalar.layernorm(y[1], stats[1], x[1], more, gain, &norm, ROWS);
    if (!near_all(x[0], x[1], ROWS * n, 0.0, 4.0 * FLOAT_EPS * 300.0) ||
        !near_all(y[0], y[1], ROWS * n, 0.0, 2e-5 * 1500.0))
        return false;
    for (int add = 0; add < 2; add++) {
        t->layernorm_grad(
            y[0], sums[0], sums[0] + n, more, x[1], stats[1], &norm, ROWS, add);
        kern_scalar.layernorm_grad(
            y[1], sums[1], sums[1] + n, more, x[1], stats[1], &norm, ROWS, add);
        if (!near_all(y[0], y[1], ROWS * n, 1e-5, 2e-3) ||
            !near_all(sums[0], sums[1], 2 * n, 1e-5, 2e-3))
            return false;
    }
    return true;
}

static bool
test_tokens(const struct kern *t, size_t n, uint32_t *state)
{
    return test_product(t, n % 30, state) && test_bf16(t, n % 30, state) &&
           test_codes(t, n % 30, state) && test_softmax(t, n, state) &&
           test_activate(t, KERN_ACT_NONE, state) &&
           test_activate(t, KERN_ACT_RELU, state) &&
           test_activate(t, KERN_ACT_GELU, state) &&
           test_activate(t, KERN_ACT_GELU_TANH, state) &&
           test_layernorm(t, n, state);
}

/* Codes as large as the format allows: every stripe as near to the norm as
   equal codes can be, signs such that the sums grow. */
static void
fill_codes(int8_t *code, size_t n, int max, int norm, uint32_t *state)
{
    for (size_t i = 0; i < n; i++) {
        *state = *state * 1664525u + 1013904223u;

        int span = MIN(max, norm / 6);

        code[i] =
            (int8_t)((int)((*state >> 9) % (unsigned)(2 * span + 1)) - span);
        if (i % KERN_SEG_DIMS == 5)
            code[i] = (int8_t)((*state & 256) != 0 ? max : -max);
    }
    while (kern_stripe_norm2(code, n) > norm * norm)
        for (size_t i = 0; i < n; i++)
            code[i] = (int8_t)(code[i] * 7 / 8);
}

static bool
test_scan(const struct kern *t, size_t n, size_t n_queries, uint32_t *state)
{
    uint8_t blocks[TEST_BLOCKS * KERN_BLOCK_ROWS * TEST_SCAN_DIMS_MAX];
    uint8_t queries[TEST_QUERIES * KERN_QUERY_BYTES(TEST_SCAN_DIMS_MAX)];
    int32_t out[TEST_QUERIES * TEST_BLOCKS * KERN_BLOCK_ROWS];
    int32_t ref[TEST_QUERIES * TEST_BLOCKS * KERN_BLOCK_ROWS];
    int8_t code[TEST_SCAN_DIMS_MAX];
    size_t stride = TEST_BLOCKS * KERN_BLOCK_ROWS;

    ASSERT(n <= TEST_SCAN_DIMS_MAX);

    for (size_t r = 0; r < stride; r++) {
        fill_codes(code, n, KERN_ROW_MAX, MIN(t->row_norm, 1024), state);
        kern_block_put(blocks + r / KERN_BLOCK_ROWS * KERN_BLOCK_ROWS * n,
            r % KERN_BLOCK_ROWS, code, n);
    }
    for (size_t q = 0; q < n_queries; q++) {
        uint8_t *query = queries + q * KERN_QUERY_BYTES(n);

        fill_codes(
            (int8_t *)query, n, t->query_max, MIN(t->query_norm, 1024), state);
        kern_scan_prepare(query, n);
    }
    t->scan(out, stride, blocks, TEST_BLOCKS, queries, n_queries, n);
    kern_scalar.scan(ref, stride, blocks, TEST_BLOCKS, queries, n_queries, n);
    return memcmp(out, ref, n_queries * stride * sizeof(*out)) == 0;
}

static bool
test_select(const struct kern *t, size_t n, uint32_t *state)
{
    int32_t dots[TEST_MAX];
    float row_scale[TEST_MAX];
    uint32_t rows[2][TEST_MAX];
    double sum[2] = {0.0, 0.0};
    struct kern_select opt = {.q_scale = 0.0078125f,
        .threshold = 0.25f,
        .shift = 1.0f,
        .inv_temperature = 20.0f};

    /* dots and scales that float holds exactly, so that no row stands at the
       threshold by a rounding */
    for (size_t r = 0; r < n; r++) {
        dots[r] = (int32_t)(next_value(state) * 512.0f);
        row_scale[r] = (float)(1 + r % 4) * 0.125f;
    }
    size_t n_rows = t->select(rows[0], &sum[0], dots, row_scale, n, &opt);
    size_t n_ref =
        kern_scalar.select(rows[1], &sum[1], dots, row_scale, n, &opt);

    if (n_rows != n_ref || memcmp(rows[0], rows[1], n_rows * 4) != 0)
        return false;
    if (!near(sum[0], sum[1], 3.0 * EXP_ERR * sum[1]))
        return false;
    opt.inv_temperature = 0.0f;
    n_rows = t->select(rows[0], NULL, dots, row_scale, n, &opt);
    return n_rows == n_ref && memcmp(rows[0], rows[1], n_rows * 4) == 0;
}

int
kern_self_test(const struct kern *table)
{
    uint32_t state = 20260117u;

    for (size_t i = 0; i < ARRAY_LEN(test_lengths); i++) {
        int entry = test_floats(table, test_lengths[i], &state);

        if (entry != 0)
            return entry;
        if (!test_select(table, test_lengths[i], &state))
            return 9;
        if (!test_adamw(table, test_lengths[i], &state))
            return 12;
        if (!test_rows(table, test_lengths[i], 8, &state) ||
            !test_rows(table, test_lengths[i], 16, &state))
            return 13;
        if (!test_tokens(table, test_lengths[i], &state))
            return 14;
    }
    for (size_t n = 16; n <= TEST_SCAN_DIMS_MAX; n += 64)
        for (size_t n_queries = 1; n_queries <= TEST_QUERIES; n_queries++)
            if (!test_scan(table, n, n_queries, &state))
                return 8;
    return 0;
}

/* --- the choice ----------------------------------------------------------- */

/* Best last. */
static const struct kern *const tables[] = {
    &kern_scalar,
#ifdef __x86_64__
    &kern_avx2,
    &kern_avx512vnni,
#endif
};

static bool
supported(const struct kern *table)
{
#ifdef __x86_64__
    if (table == &kern_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (table == &kern_avx512vnni)
        return __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("fma");
#endif
    return table == &kern_scalar;
}

const struct kern *
kern_supported(size_t i)
{
    for (size_t t = 0; t < ARRAY_LEN(tables); t++)
        if (supported(tables[t]) && i-- == 0)
            return tables[t];
    return NULL;
}

const struct kern *
kern_available(size_t i)
{
    const struct kern *table;

    for (size_t t = 0; (table = kern_supported(t)) != NULL; t++)
        if ((t == 0 || kern_self_test(table) == 0) && i-- == 0)
            return table;
    return NULL;
}

void
kern_init(void)
{
    const char *wanted = getenv("KINDRED_KERNELS");
    const struct kern *best = &kern_scalar;
    const struct kern *named = NULL;

    for (size_t t = 1; t < ARRAY_LEN(tables); t++) {
        if (!supported(tables[t]))
            continue;

        int entry = kern_self_test(tables[t]);

        if (entry == 0)
            best = tables[t];
        else
            log_warn("kern", "self_test_failed table=%s entry=%d",
                tables[t]->name, entry);
    }
    if (wanted != NULL && wanted[0] != '\0') {
        const struct kern *table;

        for (size_t i = 0; (table = kern_available(i)) != NULL; i++)
            if (strcmp(table->name, wanted) == 0)
                named = table;
        if (named == NULL)
            log_warn("kern", "ignored KINDRED_KERNELS: no such table here");
    }
    chosen = named != NULL ? named : best;
}
