/*
 * kern_tokens_scalar.c - what a transformer does between and in its matrix
 * products: the reference, plain C.
 */
#include "kern/tables.h"

#include <math.h>
#include <string.h>

void
product_scalar(
    float *C, const float *A, const float *B, const struct kern_product *p)
{
    for (size_t i = 0; i < p->M; i++) {
        float *row = C + i * p->ldc;

        if (!p->add)
            memset(row, 0, p->N * sizeof *row);
        for (size_t k = 0; k < p->K; k++) {
            float a = A[i * p->a_row + k * p->a_col];

            for (size_t j = 0; j < p->N; j += KERN_PANEL) {
                const float *b = B + j / KERN_PANEL * p->b_panel + k * p->b_row;

                for (size_t l = 0; l < KERN_PANEL; l++)
                    row[j + l] += a * b[l];
            }
        }
    }
}

static float
of_bf16(uint16_t v)
{
    uint32_t bits = (uint32_t)v << 16;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

void
product_bf16_scalar(
    float *C, const float *A, const uint16_t *B, const struct kern_product *p)
{
    for (size_t i = 0; i < p->M; i++) {
        float *row = C + i * p->ldc;

        if (!p->add)
            memset(row, 0, p->N * sizeof *row);
        for (size_t k = 0; k < p->K; k++) {
            float a = A[i * p->a_row + k];

            for (size_t j = 0; j < p->N; j++)
                row[j] +=
                    a *
                    of_bf16(
                        B[j / KERN_PANEL * p->b_panel + k / 2 * 2 * KERN_PANEL +
                            2 * (j % KERN_PANEL) + k % 2]);
        }
    }
}

int32_t
code_row_scalar(uint8_t *row, const float *x, float inv_step, size_t n)
{
    uint8_t *out = row + n + 8;
    int32_t total = 0, most = 0;

    kern_scalar.quantize((int8_t *)row, x, inv_step, 127, n, n);
    for (size_t seg = 0; seg < n; seg += KERN_STRIP_DIMS) {
        int32_t sum[2] = {0, 0}, square[2] = {0, 0};

        for (size_t k = seg; k < n && k < seg + KERN_STRIP_DIMS; k++) {
            int32_t code = (int8_t)row[k];

            sum[k / 2 % 2] += code;
            square[k / 2 % 2] += code * code;
            if (!(fabsf(x[k] * inv_step) <= 128))
                most = INT32_MAX;
        }
        for (size_t strip = 0; strip < 2; strip++) {
            uint16_t less = (uint16_t)(-KERN_WEIGHT_MAX * sum[strip]);

            memcpy(out, &less, 2);
            out += 2;
            most = square[strip] > most ? square[strip] : most;
        }
        total += sum[0] + sum[1];
    }
    total *= -KERN_WEIGHT_MAX;
    memcpy(row + n + 4, &total, 4);
    return most == INT32_MAX ? -1 : most;
}

void
product_codes_scalar(
    float *C, const uint8_t *A, const uint8_t *B, const struct kern_codes *p)
{
    for (size_t i = 0; i < p->M; i++, A += KERN_ROW_BYTES(p->K)) {
        float step;

        memcpy(&step, A + p->K, 4);
        for (size_t j = 0; j < p->N; j++) {
            const uint8_t *b =
                B + j / KERN_PANEL * KERN_PANEL * p->K + 4 * (j % KERN_PANEL);
            int32_t sum = 0;

            for (size_t k = 0; k < p->K; k++)
                sum += (int8_t)A[k] *
                       (b[k / 4 * 4 * KERN_PANEL + k % 4] - KERN_WEIGHT_MAX);
            C[i * p->ldc + j] = (float)sum * (step * p->step[j]);
        }
    }
}

void
softmax_scalar(float *x, size_t ld, float scale, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows; r++, x += ld) {
        float top = -INFINITY;

        for (size_t i = 0; i < n; i++) {
            x[i] *= scale;
            top = fmaxf(top, x[i]);
        }
        float sum = kern_scalar.exp_shift(x, top, n);
        for (size_t i = 0; i < n; i++)
            x[i] *= 1.0f / sum;
    }
}

void
softmax_grad_scalar(
    float *dp, const float *p, size_t ld, float scale, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows; r++, dp += ld, p += ld) {
        float along = kern_scalar.dot_f32(p, dp, n);

        for (size_t i = 0; i < n; i++)
            dp[i] = scale * p[i] * (dp[i] - along);
    }
}

#define SQRT_HALF 0.70710678f
#define DENSITY_0 0.39894228f  /* 1 / sqrt(2 pi) */
#define TANH_SCALE 0.79788456f /* sqrt(2 / pi) */
#define TANH_CUBE 0.044715f

/* act(u), and its derivative in *slope. */
static float
act_of(float u, enum kern_act act, float *slope)
{
    float cdf, inner;

    switch (act) {
    case KERN_ACT_RELU:
        *slope = u > 0 ? 1.0f : 0.0f;
        return u > 0 ? u : 0;
    case KERN_ACT_GELU:
        cdf = 0.5f + 0.5f * erff(SQRT_HALF * u);
        *slope = cdf + u * DENSITY_0 * expf(-0.5f * u * u);
        return u * cdf;
    case KERN_ACT_GELU_TANH:
        inner = TANH_SCALE * (u + TANH_CUBE * u * u * u);
        cdf = 0.5f + 0.5f * tanhf(inner);
        *slope = cdf + 2 * u * cdf * (1 - cdf) * TANH_SCALE *
                           (1 + 3 * TANH_CUBE * u * u);
        return u * cdf;
    case KERN_ACT_NONE:
        break;
    }
    *slope = 1;
    return u;
}

void
activate_scalar(float *y, float *u, size_t ld, const float *bias,
    enum kern_act act, size_t n_rows, size_t n)
{
    float slope;

    for (size_t r = 0; r < n_rows; r++, y += ld, u += ld)
        for (size_t i = 0; i < n; i++) {
            if (bias != NULL)
                u[i] += bias[i];
            y[i] = act_of(u[i], act, &slope);
        }
}

void
activate_grad_scalar(
    float *du, float *y, const float *u, enum kern_act act, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float slope;

        y[i] = act_of(u[i], act, &slope);
        du[i] *= slope;
    }
}

void
layernorm_scalar(float *y, float *stats, float *x, const float *add,
    const float *add_bias, const struct kern_norm *norm, size_t n_rows)
{
    size_t n = norm->n;

    for (size_t r = 0; r < n_rows; r++, x += n, y += n) {
        double sum = 0, square = 0;

        for (size_t i = 0; i < n; i++) {
            x[i] += (add != NULL ? add[r * n + i] : 0) +
                    (add_bias != NULL ? add_bias[i] : 0);
            sum += (double)x[i];
        }
        double mu = sum / (double)n;
        for (size_t i = 0; i < n; i++)
            square += ((double)x[i] - mu) * ((double)x[i] - mu);
        float mean = (float)mu;
        float inv = (float)(1 / sqrt(square / (double)n + (double)norm->eps));
        for (size_t i = 0; i < n; i++)
            y[i] = norm->gain[i] * ((x[i] - mean) * inv) + norm->bias[i];
        if (stats != NULL) {
            stats[2 * r] = mean;
            stats[2 * r + 1] = inv;
        }
    }
}

void
layernorm_grad_scalar(float *dx, float *dgain, float *dbias, const float *dy,
    const float *x, const float *stats, const struct kern_norm *norm,
    size_t n_rows, int add)
{
    size_t n = norm->n;

    for (size_t r = 0; r < n_rows; r++, dx += n, dy += n, x += n) {
        float mean = stats[2 * r], inv = stats[2 * r + 1];
        double sum = 0, along = 0;

        for (size_t i = 0; i < n; i++) {
            float h = (x[i] - mean) * inv, g = norm->gain[i] * dy[i];

            sum += (double)g;
            along += (double)g * (double)h;
            dgain[i] += dy[i] * h;
            dbias[i] += dy[i];
        }
        float m = (float)(sum / (double)n), a = (float)(along / (double)n);
        for (size_t i = 0; i < n; i++) {
            float h = (x[i] - mean) * inv;
            float d = inv * (norm->gain[i] * dy[i] - m - h * a);

            dx[i] = add ? dx[i] + d : d;
        }
    }
}
