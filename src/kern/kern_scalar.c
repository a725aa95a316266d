/*
 * kern_scalar.c - the reference table: plain C, written to be read. Its sums
 * run in eight lanes, both for the error and so that a compiler may use
 * whatever vectors the baseline has.
 */
#include "kern/tables.h"

#include <math.h>
#include <string.h>

#define LANES 8

/* Beyond this the exponential leaves the normal floats. */
#define EXP_ARG_MAX 87.0f

static float
sum_lanes(const float s[LANES])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static float
dot_f32(const float *a, const float *b, size_t n)
{
    float s[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            s[l] += a[i + l] * b[i + l];
    for (size_t l = 0; i < n; i++, l++)
        s[l] += a[i] * b[i];
    return sum_lanes(s);
}

static double
dot_f64(const float *a, const float *b, size_t n)
{
    double s[4] = {0};
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        for (size_t l = 0; l < 4; l++)
            s[l] += (double)a[i + l] * (double)b[i + l];
    for (size_t l = 0; i < n; i++, l++)
        s[l] += (double)a[i] * (double)b[i];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

static void
axpy(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void
gather(float *y, const float *rows, size_t stride, const uint32_t *idx,
    const float *w, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows; r++)
        axpy(y, w[r], rows + (size_t)idx[r] * stride, n);
}

static void
scale(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= a;
}

static float
absmax(const float *x, size_t n)
{
    float m = 0.0f;

    for (size_t i = 0; i < n; i++)
        m = fmaxf(m, fabsf(x[i]));
    return m;
}

static void
quantize(int8_t *code, const float *x, float inv_step, int max, size_t n,
    size_t n_padded)
{
    float limit = (float)max;

    for (size_t i = 0; i < n; i++) {
        float v = fminf(fmaxf(x[i] * inv_step, -limit), limit);

        code[i] = (int8_t)lrintf(v);
    }
    if (n_padded > n)
        memset(code + n, 0, n_padded - n);
}

static void
scan(int32_t *out, size_t out_stride, const uint8_t *blocks, size_t n_blocks,
    const uint8_t *queries, size_t n_queries, size_t n)
{
    for (size_t b = 0; b < n_blocks; b++) {
        const uint8_t *block = blocks + b * n * KERN_BLOCK_ROWS;

        for (size_t q = 0; q < n_queries; q++) {
            const uint8_t *query = queries + q * KERN_QUERY_BYTES(n);
            int32_t *dst = out + q * out_stride + b * KERN_BLOCK_ROWS;

            for (size_t r = 0; r < KERN_BLOCK_ROWS; r++) {
                int32_t sum = 0;

                for (size_t d = 0; d < n; d++) {
                    size_t at = (d / 4 * KERN_BLOCK_ROWS + r) * 4 + d % 4;

                    sum += (int8_t)query[d] * ((int)block[at] - 128);
                }
                dst[r] = sum;
            }
        }
    }
}

static size_t
select_rows(uint32_t *rows, double *sum, const int32_t *dots,
    const float *row_scale, size_t n, const struct kern_select *opt)
{
    size_t n_rows = 0;
    double total = 0.0;

    for (size_t r = 0; r < n; r++) {
        float v = (float)dots[r] * row_scale[r] * opt->q_scale;

        if (v >= opt->threshold)
            rows[n_rows++] = (uint32_t)r;
        if (opt->inv_temperature > 0.0f) {
            float arg = (v - opt->shift) * opt->inv_temperature;

            arg = fminf(fmaxf(arg, -EXP_ARG_MAX), EXP_ARG_MAX);
            total += (double)expf(arg);
        }
    }
    if (opt->inv_temperature > 0.0f)
        *sum = total;
    return n_rows;
}

static float
exp_shift(float *x, float shift, size_t n)
{
    float s[LANES] = {0};

    for (size_t i = 0; i < n; i++) {
        float arg = x[i] - shift;

        x[i] = arg < -EXP_ARG_MAX ? 0.0f : expf(fminf(arg, EXP_ARG_MAX));
        s[i % LANES] += x[i];
    }
    return sum_lanes(s);
}

static float
max(const float *x, size_t n)
{
    float m = -INFINITY;

    for (size_t i = 0; i < n; i++)
        m = fmaxf(m, x[i]);
    return m;
}

/* Plain C has no way to say it. */
static void
fetch(const void *p, size_t n)
{
    (void)p;
    (void)n;
}

static void
adamw(float *p, const float *g, float *m, float *v, size_t n,
    const struct kern_adamw *opt)
{
    float keep1 = 1.0f - opt->beta1;
    float keep2 = 1.0f - opt->beta2;
    float decay = 1.0f - opt->lr * opt->weight_decay;

    for (size_t i = 0; i < n; i++) {
        m[i] = opt->beta1 * m[i] + keep1 * g[i];
        v[i] = opt->beta2 * v[i] + keep2 * g[i] * g[i];
        p[i] = decay * p[i] - opt->lr * (m[i] * opt->correct1) /
                                  (sqrtf(v[i] * opt->correct2) + opt->eps);
    }
}

static void
rows_moments(float *sum, float *square, const float *x, float shift,
    size_t n_rows, size_t b)
{
    for (size_t l = 0; l < b; l++)
        sum[l] = square[l] = 0;
    for (size_t r = 0; r < n_rows; r++, x += b)
        for (size_t l = 0; l < b; l++) {
            float v = x[l] - shift;

            sum[l] += v;
            square[l] += v * v;
        }
}

static void
rows_affine(float *y, const float *x, const float *residual, const float *scl,
    const float *add, int relu, size_t n_rows, size_t b)
{
    for (size_t r = 0; r < n_rows; r++, y += b, x += b)
        for (size_t l = 0; l < b; l++) {
            float v = scl[l] * x[l] + add[l];

            if (residual != NULL)
                v += residual[r * b + l];
            y[l] = relu && v < 0 ? 0 : v;
        }
}

static void
rows_grad_sums(float *sum, float *sum_x, float *dy, const float *y,
    const float *x, float shift, size_t n_rows, size_t b)
{
    for (size_t l = 0; l < b; l++)
        sum[l] = sum_x[l] = 0;
    for (size_t r = 0; r < n_rows; r++, dy += b, x += b)
        for (size_t l = 0; l < b; l++) {
            if (y != NULL && !(y[r * b + l] > 0))
                dy[l] = 0;
            sum[l] += dy[l];
            sum_x[l] += dy[l] * (x[l] - shift);
        }
}

static void
rows_grad(float *dx, const float *dy, const float *x, const float *scl,
    float slope, float add, size_t n_rows, size_t b)
{
    for (size_t r = 0; r < n_rows; r++, dx += b, dy += b, x += b)
        for (size_t l = 0; l < b; l++)
            dx[l] = scl[l] * dy[l] + (slope * x[l] + add);
}

const struct kern kern_scalar = {
    .name = "scalar",
    .query_max = 127,
    .query_norm = INT16_MAX,
    .row_norm = INT16_MAX,
    .dot_f32 = dot_f32,
    .dot_f64 = dot_f64,
    .axpy = axpy,
    .gather = gather,
    .scale = scale,
    .absmax = absmax,
    .quantize = quantize,
    .scan = scan,
    .select = select_rows,
    .exp_shift = exp_shift,
    .max = max,
    .fetch = fetch,
    .adamw = adamw,
    .rows_moments = rows_moments,
    .rows_affine = rows_affine,
    .rows_grad_sums = rows_grad_sums,
    .rows_grad = rows_grad,
    .product = product_scalar,
    .product_bf16 = product_bf16_scalar,
    .code_row = code_row_scalar,
    .product_codes = product_codes_scalar,
    .softmax = softmax_scalar,
    .softmax_grad = softmax_grad_scalar,
    .activate = activate_scalar,
    .activate_grad = activate_grad_scalar,
    .layernorm = layernorm_scalar,
    .layernorm_grad = layernorm_grad_scalar,
};
