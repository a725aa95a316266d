#include "nn/infonce.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kern/gemm.h"
#include "kern/kern.h"

/* The shards are fixed, whatever the number of threads. */
#define ROWS_A_SHARD 64
#define COLS_A_SHARD 128

/*
 * Workspace: logits S [B, M], which become g; per shard of rows the column
 * maxima, then the column sums [n_shards, M]; column log-sums [M]; five
 * doubles' worth of per-row figures [B, 5].
 */
#define ROW_FIGURES 5

struct task {
    const struct infonce_in *in;
    struct infonce_out *out;
    float *S;      /* [B, M] */
    float *by_col; /* [n_shards, M] */
    float *col;    /* [M] log-sum of a column */
    float *row;    /* [B, ROW_FIGURES] */
    float total;   /* sum of weights */
};

enum { ROW_LOSS, ROW_HIT, ROW_POSITIVE, ROW_NEGATIVE, ROW_SCALE };

static size_t
row_shards(size_t B)
{
    return (B + ROWS_A_SHARD - 1) / ROWS_A_SHARD;
}

size_t
infonce_workspace_floats(size_t B, size_t M)
{
    return B * M + row_shards(B) * M + M + B * ROW_FIGURES;
}

static float
weight(const struct infonce_in *in, size_t i)
{
    return in->weight == NULL ? 1.0f : in->weight[i];
}

/* First entry of the mask whose row is at least row. */
static size_t
mask_from(const struct infonce_in *in, size_t row)
{
    size_t low = 0, high = in->n_mask;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (in->mask[mid].row < row)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* S = q k^T / tau for the shard's rows; masked -inf; column maxima. */
static void
logits_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t first = shard_i * ROWS_A_SHARD;
    size_t n = MIN(in->B - first, (size_t)ROWS_A_SHARD);
    float *S = t->S + first * in->M;
    float *top = t->by_col + shard_i * in->M;

    (void)thread_i;
    gemm_f32(S, in->M, in->q + first * in->D, in->D, false, in->k, in->D, true,
        n, in->M, in->D, 1.0f / in->tau, 0);
    size_t m = mask_from(in, first);
    for (; m < in->n_mask && in->mask[m].row < first + n; m++)
        t->S[in->mask[m].row * in->M + in->mask[m].col] = -INFINITY;
    if (!in->symmetric)
        return;
    memcpy(top, S, in->M * sizeof *top);
    for (size_t i = 1; i < n; i++) {
        for (size_t j = 0; j < in->M; j++)
            top[j] = MAX(top[j], S[i * in->M + j]);
    }
}

/* Column sums of exp(S - column maximum), per shard of rows. A term below
   e^-87 counts as nothing. */
static void
col_sum_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t first = shard_i * ROWS_A_SHARD;
    size_t end = MIN(in->B, first + ROWS_A_SHARD);
    float *sum = t->by_col + shard_i * in->M;
    float x[256];

    (void)thread_i;
    memset(sum, 0, in->B * sizeof *sum);
    for (size_t i = first; i < end; i++) {
        const float *S = t->S + i * in->M;
        for (size_t j0 = 0; j0 < in->B; j0 += ARRAY_LEN(x)) {
            size_t n = MIN(in->B - j0, ARRAY_LEN(x));
            for (size_t j = 0; j < n; j++)
                x[j] = S[j0 + j] - t->col[j0 + j];
            (void)kern()->exp_shift(x, 0, n);
            for (size_t j = 0; j < n; j++)
                sum[j0 + j] += x[j];
        }
    }
}

/* Row log-sums, losses, and S -> g. */
static void
gradient_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t M = in->M;
    size_t first = shard_i * ROWS_A_SHARD;
    size_t end = MIN(in->B, first + ROWS_A_SHARD);
    float c = in->symmetric ? 0.5f : 0.0f;
    float x[256];

    (void)thread_i;
    for (size_t i = first; i < end; i++) {
        float *S = t->S + i * M;
        float *row = t->row + i * ROW_FIGURES;
        float w = weight(in, i) / t->total;
        float top = kern()->max(S, M);
        float own = S[i];
        double sum = 0, scale = 0, negative = 0;
        size_t n_negative = 0;

        for (size_t j0 = 0; j0 < M; j0 += ARRAY_LEN(x)) {
            size_t n = MIN(M - j0, ARRAY_LEN(x));
            memcpy(x, S + j0, n * sizeof *x);
            sum += (double)kern()->exp_shift(x, top, n);
        }
        float row_log = top + (float)log(sum);
        float loss = (1 - c) * (row_log - own);
        if (in->symmetric)
            loss += c * (t->col[i] - own);
        row[ROW_LOSS] = w * loss;
        row[ROW_HIT] = own >= top;
        row[ROW_POSITIVE] = own * in->tau;
        /* g_ij = w_i (1 - c) p_ij + c w_j p'_ij - [i = j] w_i */
        for (size_t j0 = 0; j0 < M; j0 += ARRAY_LEN(x)) {
            size_t n = MIN(M - j0, ARRAY_LEN(x));
            float p[ARRAY_LEN(x)];
            memcpy(p, S + j0, n * sizeof *p);
            (void)kern()->exp_shift(p, row_log, n);
            for (size_t j = 0; j < n; j++)
                p[j] *= w * (1 - c);
            if (in->symmetric && j0 < in->B) {
                size_t m = MIN(n, in->B - j0);
                for (size_t j = 0; j < m; j++)
                    x[j] = S[j0 + j] - t->col[j0 + j];
                (void)kern()->exp_shift(x, 0, m);
                for (size_t j = 0; j < m; j++)
                    p[j] += c * weight(in, j0 + j) / t->total * x[j];
            }
            if (i >= j0 && i < j0 + n)
                p[i - j0] -= w;
            for (size_t j = 0; j < n; j++) {
                float s = S[j0 + j];
                if (s > -INFINITY) {
                    scale += (double)(p[j] * s);
                    negative += (double)s;
                    n_negative++;
                }
                S[j0 + j] = p[j];
            }
        }
        row[ROW_SCALE] = (float)scale;
        row[ROW_NEGATIVE] =
            n_negative > 1
                ? (float)((negative - (double)own) / (double)(n_negative - 1)) *
                      in->tau
                : 0;
    }
}

/* dq = g k / tau for the shard's rows */
static void
dq_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t first = shard_i * ROWS_A_SHARD;
    size_t n = MIN(in->B - first, (size_t)ROWS_A_SHARD);
    (void)thread_i;
    gemm_f32(t->out->dq + first * in->D, in->D, t->S + first * in->M, in->M,
        false, in->k, in->D, false, n, in->D, in->M, 1.0f / in->tau, 0);
}

/* dk = g^T q / tau for the shard's columns */
static void
dk_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t first = shard_i * COLS_A_SHARD;
    size_t n = MIN(in->M - first, (size_t)COLS_A_SHARD);
    (void)thread_i;
    gemm_f32(t->out->dk + first * in->D, in->D, t->S + first, in->M, true,
        in->q, in->D, false, n, in->D, in->B, 1.0f / in->tau, 0);
}

void
infonce(const struct infonce_in *in, struct infonce_out *out, float *workspace,
    struct pool *pool)
{
    size_t n_shards = row_shards(in->B);
    struct task t = {.in = in, .out = out, .S = workspace};

    ASSERT(in->B > 0 && in->M >= in->B && in->tau > 0);
    t.by_col = t.S + in->B * in->M;
    t.col = t.by_col + n_shards * in->M;
    t.row = t.col + in->M;
    for (size_t i = 0; i < in->B; i++)
        t.total += weight(in, i);
    pool_run(pool, n_shards, logits_worker, &t);
    if (in->symmetric) {
        for (size_t j = 0; j < in->B; j++) {
            t.col[j] = t.by_col[j];
            for (size_t s = 1; s < n_shards; s++)
                t.col[j] = MAX(t.col[j], t.by_col[s * in->M + j]);
        }
        pool_run(pool, n_shards, col_sum_worker, &t);
        for (size_t j = 0; j < in->B; j++) {
            double sum = 0;
            for (size_t s = 0; s < n_shards; s++)
                sum += (double)t.by_col[s * in->M + j];
            t.col[j] += (float)log(sum);
        }
    }
    pool_run(pool, n_shards, gradient_worker, &t);
    out->loss = out->d_log_scale = out->accuracy = 0;
    out->positive = out->negative = 0;
    for (size_t i = 0; i < in->B; i++) {
        const float *row = t.row + i * ROW_FIGURES;
        out->loss += (double)row[ROW_LOSS];
        out->d_log_scale += (double)row[ROW_SCALE];
        out->accuracy += (double)row[ROW_HIT] / (double)in->B;
        out->positive += (double)row[ROW_POSITIVE] / (double)in->B;
        out->negative += (double)row[ROW_NEGATIVE] / (double)in->B;
    }
    if (out->dq == NULL)
        return;
    pool_run(pool, n_shards, dq_worker, &t);
    pool_run(pool, (in->M + COLS_A_SHARD - 1) / COLS_A_SHARD, dk_worker, &t);
}
