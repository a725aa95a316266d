/*
 * Goal: every kernel table that this machine can run computes what kern.h
 * says, within the stated bounds.
 *
 * Method: each entry of each table that the processor can run (a table that
 * fails its self-test would not be used, so it must not be skipped here), at
 * lengths 0..130 and some large ones, from
 * unaligned addresses, on heavy-tailed values, against plain double
 * arithmetic written here. Integer kernels must agree to the bit, also with
 * codes at the very limits of the format. Guard words around outputs catch
 * writes past the end.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/rng.h"
#include "kern/kern.h"

#define N_MAX 3000
#define GUARD 4
#define EPS 0x1p-23

static const size_t large[] = {255, 256, 300, 384, 511, 768, 1024, 1100, 2999};

/* Every length of the test: 0..130, then the large ones. */
static size_t
length_at(size_t i)
{
    return i <= 130 ? i : large[i - 131];
}

#define N_LENGTHS (131 + sizeof(large) / sizeof(large[0]))

/* Cubes of normals: a few values carry most of the norm. */
static void
fill_heavy(float *x, size_t n, struct rng *rng)
{
    for (size_t i = 0; i < n; i++) {
        double v = rng_normal(rng);

        x[i] = (float)(v * v * v);
    }
}

static double
mass(const float *a, const float *b, size_t n)
{
    double s = 0.0;

    for (size_t i = 0; i < n; i++)
        s += fabs((double)a[i] * (double)b[i]);
    return s;
}

static double
exact_dot(const float *a, const float *b, size_t n)
{
    long double s = 0.0L;

    for (size_t i = 0; i < n; i++)
        s += (long double)a[i] * (long double)b[i];
    return (double)s;
}

typedef void case_fn(
    const struct kern *k, size_t n, size_t offset, struct rng *rng);

static void
for_all(case_fn *fn)
{
    const struct kern *k;

    for (size_t t = 0; (k = kern_supported(t)) != NULL; t++) {
        struct rng rng;

        rng_seed(&rng, 7);
        for (size_t i = 0; i < N_LENGTHS; i++)
            for (size_t offset = 0; offset < 3; offset++)
                fn(k, length_at(i), offset, &rng);
    }
}

static float buf_a[N_MAX + 64], buf_b[N_MAX + 64], buf_c[N_MAX + 64],
    buf_d[N_MAX + 64], buf_e[N_MAX + 64];

static void
guard(float *x, size_t n)
{
    for (size_t i = 0; i < GUARD; i++)
        x[n + i] = 12345.0f;
}

static void
check_guard(const float *x, size_t n)
{
    for (size_t i = 0; i < GUARD; i++)
        assert_true(x[n + i] == 12345.0f);
}

static void
case_dots(const struct kern *k, size_t n, size_t offset, struct rng *rng)
{
    float *a = buf_a + offset, *b = buf_b + 2 * offset;

    fill_heavy(a, n, rng);
    fill_heavy(b, n, rng);

    double want = exact_dot(a, b, n), m = mass(a, b, n);

    assert_true(
        fabs((double)k->dot_f32(a, b, n) - want) <= (double)n * EPS * m);
    assert_true(
        fabs(k->dot_f64(a, b, n) - want) <= (double)(n + 1) * 0x1p-53 * m);
}

static void
case_elementwise(const struct kern *k, size_t n, size_t offset, struct rng *rng)
{
    float *x = buf_a + offset, *y = buf_b + offset, *before = buf_c;
    float f = (float)rng_normal(rng);

    fill_heavy(x, n, rng);
    fill_heavy(y, n, rng);
    guard(y, n);
    memcpy(before, y, n * sizeof(*y));
    k->axpy(y, f, x, n);
    for (size_t i = 0; i < n; i++) {
        double want = (double)before[i] + (double)f * (double)x[i];
        double size = fabs((double)before[i]) + fabs((double)f * (double)x[i]);

        assert_true(fabs((double)y[i] - want) <= EPS * size);
    }
    check_guard(y, n);
    memcpy(before, y, n * sizeof(*y));
    k->scale(y, f, n);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs((double)y[i] - (double)f * (double)before[i]) <=
                    EPS * fabs((double)f * (double)before[i]));
    check_guard(y, n);

    double top = 0.0, max = -INFINITY;

    for (size_t i = 0; i < n; i++) {
        top = fmax(top, fabs((double)x[i]));
        max = fmax(max, (double)x[i]);
    }
    assert_true((double)k->absmax(x, n) == top);
    assert_true((double)k->max(x, n) == max);
}

static void
case_gather(const struct kern *k, size_t n, size_t offset, struct rng *rng)
{
    enum { ROWS = 11 };
    static float rows[7 * (N_MAX + 3)];
    uint32_t idx[ROWS];
    float w[ROWS];
    size_t stride = n + 3, n_rows = rng_below(rng, ROWS + 1);
    float *y = buf_b + offset, *before = buf_c;

    fill_heavy(rows, 7 * stride, rng);
    fill_heavy(y, n, rng);
    guard(y, n);
    memcpy(before, y, n * sizeof(*y));
    for (size_t r = 0; r < n_rows; r++) {
        idx[r] = (uint32_t)rng_below(rng, 7);
        w[r] = (float)rng_normal(rng);
    }
    k->gather(y, rows, stride, idx, w, n_rows, n);
    for (size_t i = 0; i < n; i++) {
        double want = (double)before[i], size = fabs(want);

        for (size_t r = 0; r < n_rows; r++) {
            double term = (double)w[r] * (double)rows[idx[r] * stride + i];

            want += term;
            size += fabs(term);
        }
        assert_true(
            fabs((double)y[i] - want) <= (double)(n_rows + 1) * EPS * size);
    }
    check_guard(y, n);
}

static void
case_quantize(const struct kern *k, size_t n, size_t offset, struct rng *rng)
{
    static int8_t code[N_MAX + 200];
    float *x = buf_a + offset;
    const int maxima[] = {127, 64, 1};

    for (size_t m = 0; m < 3; m++) {
        size_t n_padded = n + rng_below(rng, 40);
        float inv_step = (float)maxima[m] * (0.3f + rng_float(rng));

        fill_heavy(x, n, rng);
        for (size_t i = 0; i < n; i += 5) /* halves: ties to even */
            x[i] = ((float)rng_below(rng, 9) - 4.5f) / inv_step;
        memset(code, 77, sizeof(code));
        k->quantize(code, x, inv_step, maxima[m], n, n_padded);
        for (size_t i = 0; i < n; i++) {
            double v = nearbyint((double)(x[i] * inv_step));

            v = fmin(fmax(v, -maxima[m]), maxima[m]);
            assert_int_equal(code[i], (int)v);
        }
        for (size_t i = n; i < n_padded; i++)
            assert_int_equal(code[i], 0);
        assert_int_equal(code[n_padded], 77);
    }
}

static void
case_exp_shift(const struct kern *k, size_t n, size_t offset, struct rng *rng)
{
    float *x = buf_a + offset, *before = buf_c;
    float shift = (float)(3.0 * rng_normal(rng));
    double want_sum = 0.0;

    for (size_t i = 0; i < n; i++)
        x[i] = shift - 100.0f * rng_float(rng) * rng_float(rng);
    if (n > 2) {
        x[0] = shift;
        x[1] = shift + 87.0f;
        x[2] = shift - 88.0f;
    }
    guard(x, n);
    memcpy(before, x, n * sizeof(*x));

    double sum = (double)k->exp_shift(x, shift, n);

    check_guard(x, n);
    for (size_t i = 0; i < n; i++) {
        double arg = (double)(before[i] - shift);
        double want = arg < -87.0 ? 0.0 : exp(arg);

        assert_true(fabs((double)x[i] - want) <= 4e-7 * want);
        want_sum += want;
    }
    assert_true(fabs(sum - want_sum) <= (4e-7 + (double)n * EPS) * want_sum);
}

static void
case_adamw(const struct kern *k, size_t n, size_t offset, struct rng *rng)
{
    float *p = buf_a + offset, *g = buf_b + offset, *m = buf_c + offset,
          *v = buf_d + offset;
    float *p0 = buf_e;
    static float m0[N_MAX], v0[N_MAX];
    const struct kern_adamw o = {.lr = 0.003f,
        .beta1 = 0.9f,
        .beta2 = 0.98f,
        .eps = 1e-6f,
        .weight_decay = 0.05f,
        .correct1 = 3.69f,
        .correct2 = 17.0f};

    fill_heavy(p, n, rng);
    fill_heavy(g, n, rng);
    fill_heavy(m, n, rng);
    fill_heavy(v, n, rng);
    for (size_t i = 0; i < n; i++)
        v[i] = fabsf(v[i]);
    if (n > 0)
        g[0] = m[0] = v[0] = 0.0f;
    guard(p, n);
    memcpy(p0, p, n * sizeof(*p));
    memcpy(m0, m, n * sizeof(*m));
    memcpy(v0, v, n * sizeof(*v));
    k->adamw(p, g, m, v, n, &o);
    check_guard(p, n);
    for (size_t i = 0; i < n; i++) {
        double gi = (double)g[i];
        double mi =
            (double)o.beta1 * (double)m0[i] + (1.0 - (double)o.beta1) * gi;
        double vi =
            (double)o.beta2 * (double)v0[i] + (1.0 - (double)o.beta2) * gi * gi;
        double step =
            (double)o.lr * (mi * (double)o.correct1 /
                               (sqrt(vi * (double)o.correct2) + (double)o.eps));
        double want = (double)p0[i] -
                      (double)o.lr * (double)o.weight_decay * (double)p0[i] -
                      step;
        double m_size = fabs((double)m0[i]) + fabs(gi);

        assert_true(fabs((double)m[i] - mi) <= 4.0 * EPS * m_size);
        assert_true(
            fabs((double)v[i] - vi) <= 8.0 * EPS * ((double)v0[i] + gi * gi));
        /* the step's error: that of m through the quotient, and relative */
        assert_true(fabs((double)p[i] - want) <=
                    4.0 * EPS * fabs((double)p0[i]) + 1e-5 * fabs(step) +
                        4.0 * EPS * m_size * (double)o.lr * (double)o.correct1 /
                            (sqrt(vi * (double)o.correct2) + (double)o.eps));
    }
}

/* --- the scan ------------------------------------------------------------- */

#define SCAN_BLOCKS 3
#define SCAN_QUERIES 15

enum code_kind { RANDOM_CODES, EQUAL_CODES, TALL_CODES, N_CODE_KINDS };

/* Codes up to the limits: random; all equal, so that a stripe is as long as
   it may be and every product has one sign; a few at the maximum. */
static void
fill_codes(int8_t *code, size_t n, int max, int norm, enum code_kind kind,
    struct rng *rng)
{
    int sign = rng_below(rng, 2) != 0 ? 1 : -1;
    int equal = 1;

    while (equal < max && (equal + 1) * (equal + 1) * 32 <= norm * norm)
        equal++;
    for (size_t i = 0; i < n; i++) {
        int v = 0;

        if (kind == RANDOM_CODES)
            v = (int)rng_below(rng, (uint64_t)(2 * max + 1)) - max;
        else if (kind == EQUAL_CODES)
            v = sign * equal;
        else if (i % 64 % 34 == 1)
            v = sign * max;
        code[i] = (int8_t)v;
    }
    while (kern_stripe_norm2(code, n) > norm * norm)
        for (size_t i = 0; i < n; i++)
            code[i] = (int8_t)(code[i] - (code[i] > 0) + (code[i] < 0));
}

static void
scan_once(const struct kern *k, size_t n, size_t n_queries, size_t n_blocks,
    enum code_kind kind, struct rng *rng)
{
    static uint8_t block_store[SCAN_BLOCKS * KERN_BLOCK_ROWS * 2048 + 1];
    static uint8_t query_store[SCAN_QUERIES * KERN_QUERY_BYTES(2048) + 1];
    static int8_t codes[SCAN_BLOCKS * KERN_BLOCK_ROWS][2048];
    static int32_t out[SCAN_QUERIES * SCAN_BLOCKS * KERN_BLOCK_ROWS + 64];
    size_t n_rows = n_blocks * KERN_BLOCK_ROWS, stride = n_rows + 1;
    uint8_t *blocks = block_store + 1, *queries = query_store + 1;

    for (size_t r = 0; r < n_rows; r++) {
        fill_codes(codes[r], n, KERN_ROW_MAX, k->row_norm, kind, rng);
        kern_block_put(blocks + r / KERN_BLOCK_ROWS * KERN_BLOCK_ROWS * n,
            r % KERN_BLOCK_ROWS, codes[r], n);
    }
    for (size_t q = 0; q < n_queries; q++) {
        fill_codes((int8_t *)queries + q * KERN_QUERY_BYTES(n), n, k->query_max,
            k->query_norm, kind, rng);
        kern_scan_prepare(queries + q * KERN_QUERY_BYTES(n), n);
    }
    memset(out, 0x55, sizeof(out));
    k->scan(out, stride, blocks, n_blocks, queries, n_queries, n);
    for (size_t q = 0; q < n_queries; q++) {
        const int8_t *query = (const int8_t *)queries + q * KERN_QUERY_BYTES(n);

        for (size_t r = 0; r < n_rows; r++) {
            int32_t want = 0;

            for (size_t d = 0; d < n; d++)
                want += query[d] * codes[r][d];
            assert_int_equal(out[q * stride + r], want);
        }
        assert_int_equal(out[q * stride + n_rows], 0x55555555);
    }
}

static void
scan_is_exact(void **state)
{
    static const size_t dims[] = {
        16, 32, 48, 64, 80, 112, 128, 144, 256, 272, 400, 1104, 2048};
    const struct kern *k;

    (void)state;
    for (size_t t = 0; (k = kern_supported(t)) != NULL; t++) {
        struct rng rng;

        rng_seed(&rng, 11);
        for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++)
            for (size_t q = 0; q <= SCAN_QUERIES; q++)
                for (int kind = 0; kind < N_CODE_KINDS; kind++)
                    if (dims[i] < 300 || q == 1 || q == 13)
                        scan_once(k, dims[i], q, q % (SCAN_BLOCKS + 1),
                            (enum code_kind)kind, &rng);
    }
}

static void
rows_move_between_blocks(void **state)
{
    enum { N = 80 };
    uint8_t a[KERN_BLOCK_ROWS * N], b[KERN_BLOCK_ROWS * N];
    int8_t code[N];
    struct rng rng;

    (void)state;
    rng_seed(&rng, 3);
    memset(b, 0, sizeof(b));
    for (size_t r = 0; r < KERN_BLOCK_ROWS; r++) {
        for (size_t i = 0; i < N; i++)
            code[i] = (int8_t)((int)rng_below(&rng, 255) - 127);
        kern_block_put(a, r, code, N);
        kern_block_move(b, KERN_BLOCK_ROWS - 1 - r, a, r, N);
        for (size_t i = 0; i < N; i++)
            assert_int_equal((int)b[i / 4 * 4 * KERN_BLOCK_ROWS +
                                    4 * (KERN_BLOCK_ROWS - 1 - r) + i % 4] -
                                 128,
                code[i]);
    }
}

static void
case_select(const struct kern *k, size_t n, size_t offset, struct rng *rng)
{
    static int32_t dot_store[N_MAX + 8];
    static uint32_t rows[N_MAX + 8];
    int32_t *dots = dot_store + offset;
    float *row_scale = buf_a + 2 * offset;
    const float inv_temperatures[] = {20.0f, 1.0f, 400.0f};

    for (size_t t = 0; t < 3; t++) {
        struct kern_select opt = {.q_scale = 0.002f,
            .shift = 0.5f,
            .inv_temperature = inv_temperatures[t]};
        double sum = -1.0, want = 0.0, slack = 0.0;
        size_t n_listed, at = 0;

        for (size_t r = 0; r < n; r++) {
            dots[r] = (int32_t)rng_below(rng, 400001) - 200000;
            row_scale[r] = 0.002f * rng_float(rng);
        }
        opt.threshold = (float)(0.4 * rng_normal(rng));
        for (size_t i = 0; i < 8; i++)
            rows[n + i] = 99;
        n_listed = k->select(rows, &sum, dots, row_scale, n, &opt);
        assert_true(n_listed <= n);
        assert_int_equal(rows[n], 99);
        for (size_t r = 0; r < n; r++) {
            double v =
                (double)dots[r] * (double)row_scale[r] * (double)opt.q_scale;
            double near = 4.0 * 0x1p-24 * fabs(v);
            bool listed = at < n_listed && rows[at] == r;
            double arg = (v - (double)opt.shift) * (double)opt.inv_temperature;
            double term = exp(fmin(fmax(arg, -87.0), 87.0));

            at += listed;
            if (v > (double)opt.threshold + near)
                assert_true(listed);
            if (v < (double)opt.threshold - near)
                assert_false(listed);
            want += term;
            slack +=
                term * (1e-5 + 4.0 * 0x1p-24 * (fabs(v) + (double)opt.shift) *
                                   (double)opt.inv_temperature);
        }
        assert_int_equal(at, n_listed);
        assert_true(fabs(sum - want) <= 1.01 * slack + 1e-6 * want);
        opt.inv_temperature = 0.0f;
        assert_int_equal(
            k->select(rows, NULL, dots, row_scale, n, &opt), n_listed);
    }
}

#define FOR_ALL(name)                                                          \
    static void all_##name(void **state)                                       \
    {                                                                          \
        (void)state;                                                           \
        for_all(case_##name);                                                  \
    }
FOR_ALL(dots)
FOR_ALL(elementwise)
FOR_ALL(gather)
FOR_ALL(quantize)
FOR_ALL(exp_shift)
FOR_ALL(adamw)
FOR_ALL(select)

/* --- the choice ----------------------------------------------------------- */

static float
wrong_dot(const float *a, const float *b, size_t n)
{
    return kern_available(0)->dot_f32(a, b, n > 0 ? n - 1 : 0);
}

static void
wrong_scan(int32_t *out, size_t out_stride, const uint8_t *blocks,
    size_t n_blocks, const uint8_t *queries, size_t n_queries, size_t n)
{
    kern_available(0)->scan(
        out, out_stride, blocks, n_blocks, queries, n_queries, n);
    if (n_queries == 7 && n_blocks > 0)
        out[6 * out_stride + 3]++;
}

static size_t
wrong_select(uint32_t *rows, double *sum, const int32_t *dots,
    const float *row_scale, size_t n, const struct kern_select *opt)
{
    size_t n_rows =
        kern_available(0)->select(rows, sum, dots, row_scale, n, opt);

    if (sum != NULL && opt->inv_temperature > 0.0f)
        *sum *= 1.001;
    return n_rows;
}

static void
every_table_passes_its_self_test(void **state)
{
    const struct kern *k;

    (void)state;
    for (size_t t = 0; (k = kern_supported(t)) != NULL; t++)
        assert_int_equal(kern_self_test(k), 0);
}

static void
self_test_finds_wrong_entries(void **state)
{
    struct kern bad = *kern_available(0);

    (void)state;
    assert_int_equal(kern_self_test(&bad), 0);
    bad.dot_f32 = wrong_dot;
    assert_int_equal(kern_self_test(&bad), 1);
    bad = *kern_available(0);
    bad.scan = wrong_scan;
    assert_int_equal(kern_self_test(&bad), 8);
    bad = *kern_available(0);
    bad.select = wrong_select;
    assert_int_equal(kern_self_test(&bad), 9);
}

static void
a_table_is_chosen_by_name(void **state)
{
    const struct kern *k;

    (void)state;
    assert_string_equal(kern_available(0)->name, "scalar");
    for (size_t t = 0; (k = kern_available(t)) != NULL; t++) {
        assert_int_equal(setenv("KINDRED_KERNELS", k->name, 1), 0);
        kern_init();
        assert_string_equal(kern()->name, k->name);
    }
    assert_int_equal(setenv("KINDRED_KERNELS", "none-such", 1), 0);
    kern_init();
    size_t last = 0;
    while (kern_available(last + 1) != NULL)
        last++;
    assert_string_equal(kern()->name, kern_available(last)->name);
    assert_int_equal(unsetenv("KINDRED_KERNELS"), 0);
    kern_init();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_dots),
        cmocka_unit_test(all_elementwise),
        cmocka_unit_test(all_gather),
        cmocka_unit_test(all_quantize),
        cmocka_unit_test(all_exp_shift),
        cmocka_unit_test(all_adamw),
        cmocka_unit_test(all_select),
        cmocka_unit_test(scan_is_exact),
        cmocka_unit_test(rows_move_between_blocks),
        cmocka_unit_test(every_table_passes_its_self_test),
        cmocka_unit_test(self_test_finds_wrong_entries),
        cmocka_unit_test(a_table_is_chosen_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
