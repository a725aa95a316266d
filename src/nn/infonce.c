/*
 * infonce.c - one matrix of logits, cut into panels of rows, a panel into
 * shards of rows for the pool. All sizes follow from B and M alone.
 *
 * The rows' softmax needs one row at a time, so a panel at a time is enough.
 * The columns' softmax (symmetric, VIEWS) needs all rows first: then a first
 * pass over the panels finds the log-sums and the second makes the logits
 * again, unless there is one panel only. In VIEWS the matrix is its own
 * transpose: a column's log-sum is the row's, and g k is the whole gradient.
 */
#include "nn/infonce.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kern/gemm.h"
#include "kern/kern.h"

#define PANEL_FLOATS ((size_t)1 << 22)
#define PANEL_ROWS_MIN 64
#define COLS_A_SHARD 128
#define BLOCK 256 /* logits of a row that are worked on at a time */

enum { ROW_LOSS, ROW_HIT, ROW_POSITIVE, ROW_NEGATIVE, ROW_SCALE, ROW_FIGURES };

struct shape {
    size_t panel_rows;
    size_t shard_rows;
    size_t panel_shards;
};

/* The softmaxes of one direction, by row or by column: weight a of each,
   share a / |P|, and with top the largest logit and Z the sum of exp(s - top):
   inv = a / Z, gap = top + log Z - s of the own positive. */
struct side {
    float *weight, *share, *top, *inv, *gap;
};
#define SIDE_ARRAYS 5

struct task {
    const struct infonce_in *in;
    struct infonce_out *out;
    struct shape shape;
    size_t R;       /* rows */
    size_t anchors; /* the first rows */
    size_t n_cols;  /* the first columns, which have a softmax of their own */
    const float *k; /* [M, D] */
    const uint64_t *label, *key_label;
    /* workspace */
    float *S;             /* [panel_rows, M] logits, then g */
    float *by_col;        /* [panel_shards, M] maxima, then sums of a shard */
    float *col_sum;       /* [M] sum of exp(s - top) so far */
    struct side row, col; /* [R], [n_cols]; one and the same in VIEWS */
    float *own;           /* [R] logit of the own positive */
    float *figures;       /* [R, ROW_FIGURES] */
    size_t first;         /* row of the panel in hand */
    size_t n;             /* and its rows */
    float ones[BLOCK];
};

static struct shape
shape_of(size_t R, size_t M)
{
    struct shape s;
    size_t rows = PANEL_FLOATS / M / PANEL_ROWS_MIN * PANEL_ROWS_MIN;
    s.panel_rows = MIN(R, MAX(rows, (size_t)PANEL_ROWS_MIN));
    /* few rows in shards that still occupy some threads */
    s.shard_rows = s.panel_rows >= 256 ? 64 : 16;
    s.panel_shards = (s.panel_rows + s.shard_rows - 1) / s.shard_rows;
    return s;
}

size_t
infonce_workspace_floats(size_t n_rows, size_t M)
{
    /* bounds of what shape_of makes of as many rows and keys, or fewer: wider
       panels have fewer rows, so a smaller call may have the larger panel */
    size_t panel = MIN(n_rows * M, MAX(PANEL_FLOATS, PANEL_ROWS_MIN * M));
    size_t few = (MIN(n_rows, (size_t)256) + 15) / 16;
    size_t by_col = MAX(few * M, panel / 64 + M);
    return panel + by_col + (1 + SIDE_ARRAYS) * M +
           (SIDE_ARRAYS + 1 + ROW_FIGURES) * n_rows;
}

static float *
place_side(struct side *side, float *at, size_t n)
{
    side->weight = at;
    side->share = at + n;
    side->top = at + 2 * n;
    side->inv = at + 3 * n;
    side->gap = at + 4 * n;
    return at + SIDE_ARRAYS * n;
}

static void
task_init(struct task *t, const struct infonce_in *in, struct infonce_out *out,
    float *workspace)
{
    bool views = in->layout == INFONCE_VIEWS;
    size_t M = in->M;
    float *at;

    *t = (struct task){.in = in,
        .out = out,
        .R = views ? M : in->B,
        .anchors = views ? 2 * in->B : in->B,
        .n_cols = views           ? M
                  : in->symmetric ? in->B
                                  : 0,
        .k = views ? in->q : in->k,
        .label = in->label,
        .key_label = views ? in->label : in->key_label,
        .S = workspace};
    t->shape = shape_of(t->R, M);
    t->by_col = t->S + t->shape.panel_rows * M;
    t->col_sum = t->by_col + t->shape.panel_shards * M;
    at = place_side(&t->col, t->col_sum + M, M);
    at = place_side(&t->row, at, t->R);
    if (views)
        t->col = t->row;
    t->own = at;
    t->figures = t->own + t->R;
    for (size_t i = 0; i < BLOCK; i++)
        t->ones[i] = 1;
}

/* The column of row i's own positive; M when it is in none. */
static size_t
own_column(const struct task *t, size_t i)
{
    size_t B = t->in->B;
    if (t->in->layout == INFONCE_KEYS)
        return i;
    if (t->in->layout == INFONCE_APART || i >= 2 * B)
        return t->in->M;
    return i < B ? i + B : i - B;
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

/* Rows of shard shard_i of the panel. */
static size_t
shard_rows(const struct task *t, size_t shard_i, size_t *first)
{
    *first = t->first + shard_i * t->shape.shard_rows;
    return MIN(t->first + t->n - *first, t->shape.shard_rows);
}

static float *
row_of(const struct task *t, size_t i)
{
    return t->S + (i - t->first) * t->in->M;
}

/* ---- weights ------------------------------------------------------------ */

static bool
same_label(const struct task *t, size_t i, size_t j)
{
    return t->label[i] != 0 && t->label[i] == t->key_label[j];
}

/* Divide the shares of rows by the number of their positives; count those of
   the columns that have a softmax (in VIEWS they are the rows). */
static void
count_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    bool views = in->layout == INFONCE_VIEWS;
    size_t first = shard_i * COLS_A_SHARD;
    size_t end = first + COLS_A_SHARD;

    (void)thread_i;
    for (size_t i = first; i < MIN(end, t->anchors); i++) {
        size_t n = 1, own = own_column(t, i);
        if (t->label[i] == 0)
            continue;
        for (size_t j = 0; j < in->M; j++)
            n += t->label[i] == t->key_label[j];
        n -= views; /* itself */
        n -= own < in->M && same_label(t, i, own);
        size_t m = mask_from(in, i);
        for (; m < in->n_mask && in->mask[m].row == i; m++)
            n -= same_label(t, i, in->mask[m].col);
        t->row.share[i] /= (float)n;
    }
    for (size_t j = first; !views && j < MIN(end, t->n_cols); j++) {
        size_t n = 1;
        for (size_t i = 0; i < in->B && t->key_label[j] != 0; i++)
            n += t->label[i] == t->key_label[j];
        n -= same_label(t, j, j);
        t->col.gap[j] = (float)n; /* before masks */
    }
}

static void
set_weights(struct task *t, struct pool *pool)
{
    const struct infonce_in *in = t->in;
    float total = 0, part = in->symmetric ? 0.5f : 1;

    for (size_t i = 0; i < in->B; i++)
        total += in->weight == NULL ? 1.0f : in->weight[i];
    if (in->layout == INFONCE_VIEWS)
        total *= 2;
    for (size_t i = 0; i < t->R; i++) {
        float w = 0;
        if (i < t->anchors)
            w = in->weight == NULL ? 1.0f : in->weight[i % in->B];
        t->row.weight[i] = t->row.share[i] = w / total * part;
    }
    for (size_t j = 0; j < t->n_cols; j++)
        t->col.weight[j] = t->col.share[j] = t->row.weight[j];
    if (t->label != NULL)
        pool_run(
            pool, (t->R + COLS_A_SHARD - 1) / COLS_A_SHARD, count_worker, t);
    if (t->label == NULL || in->layout == INFONCE_VIEWS)
        return;
    for (size_t m = 0; m < in->n_mask; m++) {
        size_t j = in->mask[m].col;
        if (j < t->n_cols && same_label(t, in->mask[m].row, j))
            t->col.gap[j] -= 1;
    }
    for (size_t j = 0; j < t->n_cols; j++)
        t->col.share[j] /= t->col.gap[j];
}

/* ---- logits and log-sums ------------------------------------------------- */

/* S = q k^T / tau for the shard's rows; own positives noted; what is not in
   A(i) becomes -inf. */
static void
logits_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t M = in->M, D = in->D, first;
    size_t n = shard_rows(t, shard_i, &first);
    float *S = row_of(t, first);

    (void)thread_i;
    gemm_f32(S, M, in->q + first * D, D, false, t->k, D, true, n, M, D,
        1.0f / in->tau, 0);
    size_t m = mask_from(in, first);
    for (; m < in->n_mask && in->mask[m].row < first + n; m++)
        row_of(t, in->mask[m].row)[in->mask[m].col] = -INFINITY;
    for (size_t i = first; i < first + n; i++) {
        size_t own = own_column(t, i);
        if (in->layout == INFONCE_VIEWS)
            row_of(t, i)[i] = -INFINITY;
        if (own < M) {
            t->own[i] = row_of(t, i)[own];
            if (in->decoupled)
                row_of(t, i)[own] = -INFINITY;
        } else if (in->layout == INFONCE_APART) {
            t->own[i] =
                kern()->dot_f32(in->q + i * D, in->positive + i * D, D) /
                in->tau;
        }
    }
}

/* The softmax of row i: its top, inv and gap. */
static void
sum_row(const struct task *t, size_t i)
{
    const float *S = row_of(t, i);
    size_t M = t->in->M;
    bool apart = t->in->layout == INFONCE_APART && !t->in->decoupled;
    float top = kern()->max(S, M);
    float x[BLOCK];
    double sum = 0;

    if (apart)
        top = MAX(top, t->own[i]);
    t->row.top[i] = top > -INFINITY ? top : 0;
    if (top <= -INFINITY || i >= t->anchors) {
        /* no candidate, or no anchor: no say */
        t->row.weight[i] = t->row.share[i] = 0;
        t->row.inv[i] = t->row.gap[i] = 0;
        return;
    }
    for (size_t j0 = 0; j0 < M; j0 += BLOCK) {
        size_t n = MIN(M - j0, (size_t)BLOCK);
        memcpy(x, S + j0, n * sizeof *x);
        sum += (double)kern()->exp_shift(x, top, n);
    }
    if (apart)
        sum += exp((double)t->own[i] - (double)top);
    t->row.inv[i] = (float)((double)t->row.weight[i] / sum);
    t->row.gap[i] = (float)((double)top - (double)t->own[i] + log(sum));
}

static void
sum_rows_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    size_t first, n = shard_rows(t, shard_i, &first);

    (void)thread_i;
    for (size_t i = first; i < first + n; i++)
        sum_row(t, i);
}

/* A pair's two rows take half of the sum of both, which makes p what the
   header says; the gap is that of the whole sum. */
static void
join_rows(struct task *t)
{
    size_t B = t->in->B;
    for (size_t i = 0; i < B; i++) {
        double weight = 0, most = -INFINITY, sum = 0;
        for (size_t r = i; r < t->anchors; r += B) {
            if (t->row.inv[r] > 0) {
                weight = (double)t->row.weight[r];
                most = MAX(most, (double)t->row.top[r]);
            }
        }
        for (size_t r = i; r < t->anchors; r += B) {
            if (t->row.inv[r] > 0)
                sum += weight / (double)t->row.inv[r] *
                       exp((double)t->row.top[r] - most);
        }
        for (size_t r = i; sum > 0 && r < t->anchors; r += B) {
            if (!(t->row.inv[r] > 0)) /* alone without a candidate */
                t->row.weight[r] = t->row.share[r] = (float)weight;
            t->row.top[r] = (float)most;
            t->row.inv[r] = (float)(2 * weight / sum);
            t->row.gap[r] = (float)(most - (double)t->own[r] + log(sum));
        }
    }
}

static void
col_top_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    size_t first, n = shard_rows(t, shard_i, &first);
    float *top = t->by_col + shard_i * t->in->M;

    (void)thread_i;
    memcpy(top, row_of(t, first), t->n_cols * sizeof *top);
    for (size_t i = first + 1; i < first + n; i++) {
        const float *S = row_of(t, i);
        for (size_t j = 0; j < t->n_cols; j++)
            top[j] = MAX(top[j], S[j]);
    }
}

/* Column sums of exp(S - column maximum), per shard of rows. A term below
   e^-87 counts as nothing. */
static void
col_sum_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    size_t first, n = shard_rows(t, shard_i, &first);
    float *sum = t->by_col + shard_i * t->in->M;
    float x[BLOCK];

    (void)thread_i;
    memset(sum, 0, t->n_cols * sizeof *sum);
    for (size_t i = first; i < first + n; i++) {
        const float *S = row_of(t, i);
        for (size_t j0 = 0; j0 < t->n_cols; j0 += BLOCK) {
            size_t m = MIN(t->n_cols - j0, (size_t)BLOCK);
            for (size_t j = 0; j < m; j++)
                x[j] = S[j0 + j] - t->col.top[j0 + j];
            (void)kern()->exp_shift(x, 0, m);
            for (size_t j = 0; j < m; j++)
                sum[j0 + j] += x[j];
        }
    }
}

/* Add the panel's column sums to those of the panels before. A column without
   a candidate yet has LOWEST as its top, so that no infinities meet. */
#define LOWEST (-1e30f)
static void
add_columns(struct task *t, size_t n_shards, struct pool *pool)
{
    size_t M = t->in->M;
    bool later = t->first > 0;

    pool_run(pool, n_shards, col_top_worker, t);
    for (size_t j = 0; j < t->n_cols; j++) {
        float top = later ? t->col.top[j] : LOWEST;
        double sum = 0;
        for (size_t s = 0; s < n_shards; s++)
            top = MAX(top, t->by_col[s * M + j]);
        if (later)
            sum = (double)t->col_sum[j] *
                  exp((double)t->col.top[j] - (double)top);
        t->col.top[j] = top;
        t->col_sum[j] = (float)sum;
    }
    pool_run(pool, n_shards, col_sum_worker, t);
    for (size_t j = 0; j < t->n_cols; j++) {
        double sum = (double)t->col_sum[j];
        for (size_t s = 0; s < n_shards; s++)
            sum += (double)t->by_col[s * M + j];
        t->col_sum[j] = (float)sum;
    }
}

static void
end_columns(struct task *t)
{
    for (size_t j = 0; j < t->n_cols; j++) {
        double sum = (double)t->col_sum[j];
        t->col.inv[j] = t->col.gap[j] = 0;
        if (sum > 0) {
            t->col.inv[j] = (float)((double)t->col.weight[j] / sum);
            t->col.gap[j] =
                (float)((double)t->col.top[j] - (double)t->own[j] + log(sum));
        } else {
            t->col.weight[j] = t->col.share[j] = 0;
        }
    }
}

/* ---- gradient ------------------------------------------------------------ */

/* What a row adds up on its way through the blocks. */
struct row_sums {
    double scale;    /* sum_j g_ij s_ij */
    double all;      /* sum of s over the row's unmasked keys */
    double positive; /* sum of s of the other positives, by share in the loss */
    double others;   /* the same, plain */
    size_t n_others;
    float top; /* of the negatives; with labels only */
};

/* The positives by label in a block of row i, but for the own one. */
static void
label_block(const struct task *t, size_t i, size_t j0, size_t n, const float *S,
    float *g, struct row_sums *sums)
{
    size_t own = own_column(t, i);
    bool views = t->in->layout == INFONCE_VIEWS;

    for (size_t j = 0; j < n; j++) {
        if (S[j] <= -INFINITY || j0 + j == own)
            continue;
        if (!same_label(t, i, j0 + j)) {
            sums->top = MAX(sums->top, S[j]);
            continue;
        }
        float share = t->row.share[i];
        float other = j0 + j < t->n_cols ? t->col.share[j0 + j] : 0;
        g[j] -= share + other;
        sums->positive += (double)((views ? share : share + other) * S[j]);
        sums->others += (double)S[j];
        sums->n_others++;
    }
}

/* g of a block of row i, in place of its logits S. */
static void
gradient_block(const struct task *t, size_t i, size_t j0, size_t n, float *S,
    struct row_sums *sums)
{
    size_t own = own_column(t, i);
    float g[BLOCK], x[BLOCK];

    memset(g, 0, n * sizeof *g);
    if (t->row.inv[i] > 0) {
        memcpy(g, S, n * sizeof *g);
        (void)kern()->exp_shift(g, t->row.top[i], n);
        for (size_t j = 0; j < n; j++)
            g[j] *= t->row.inv[i];
    }
    if (j0 < t->n_cols) {
        size_t m = MIN(n, t->n_cols - j0);
        for (size_t j = 0; j < m; j++)
            x[j] = S[j] - t->col.top[j0 + j];
        (void)kern()->exp_shift(x, 0, m);
        for (size_t j = 0; j < m; j++)
            g[j] += t->col.inv[j0 + j] * x[j];
    }
    if (t->label != NULL)
        label_block(t, i, j0, n, S, g, sums);
    for (size_t j = 0; j < n; j++)
        x[j] = S[j] > -INFINITY ? S[j] : 0;
    sums->all += (double)kern()->dot_f32(x, t->ones, n);
    if (own >= j0 && own < j0 + n) {
        g[own - j0] -=
            t->row.share[i] + (own < t->n_cols ? t->col.share[own] : 0);
        x[own - j0] = t->own[i];
    }
    sums->scale += (double)kern()->dot_f32(g, x, n);
    memcpy(S, g, n * sizeof *g);
}

/* The figures of anchor i, from the sums over its row. */
static void
set_figures(const struct task *t, size_t i, const struct row_sums *sums)
{
    const struct infonce_in *in = t->in;
    float *figures = t->figures + i * ROW_FIGURES;
    bool views = in->layout == INFONCE_VIEWS;
    bool in_matrix = in->layout != INFONCE_APART;
    double own = (double)t->own[i];
    double rest = (double)t->row.weight[i] - (double)t->row.share[i];
    double loss = (double)t->row.weight[i] * (double)t->row.gap[i];
    size_t n = in->M - sums->n_others - in_matrix - views;

    if (!views && i < t->n_cols) {
        loss += (double)t->col.weight[i] * (double)t->col.gap[i];
        rest += (double)t->col.weight[i] - (double)t->col.share[i];
    }
    /* the gap is from the own positive, which has a share only */
    figures[ROW_LOSS] = (float)(loss + rest * own - sums->positive);
    figures[ROW_HIT] = t->own[i] >= sums->top;
    figures[ROW_POSITIVE] = t->own[i] * in->tau;
    figures[ROW_NEGATIVE] = 0;
    size_t m = mask_from(in, i);
    for (; m < in->n_mask && in->mask[m].row == i; m++)
        n--;
    double negative = sums->all - sums->others;
    if (in_matrix && !in->decoupled)
        negative -= own;
    if (n > 0)
        figures[ROW_NEGATIVE] = (float)(negative / (double)n) * in->tau;
}

/* Losses, figures, and S -> g. */
static void
gradient_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t M = in->M, first;
    size_t end = shard_rows(t, shard_i, &first);

    (void)thread_i;
    end += first;
    for (size_t i = first; i < end; i++) {
        float *S = row_of(t, i);
        struct row_sums sums = {.top = -INFINITY};
        if (in->layout != INFONCE_VIEWS)
            sum_row(t, i);
        if (t->label == NULL)
            sums.top = kern()->max(S, M);
        for (size_t j0 = 0; j0 < M; j0 += BLOCK)
            gradient_block(t, i, j0, MIN(M - j0, (size_t)BLOCK), S + j0, &sums);
        float g = 0;
        if (in->layout == INFONCE_APART) {
            if (!in->decoupled)
                g = t->row.inv[i] *
                    (float)exp((double)t->own[i] - (double)t->row.top[i]);
            g -= t->row.share[i];
            sums.scale += (double)g * (double)t->own[i];
        }
        /* in VIEWS g holds the rows' part and, across, the columns' */
        t->figures[i * ROW_FIGURES + ROW_SCALE] =
            (float)(in->layout == INFONCE_VIEWS ? sums.scale / 2 : sums.scale);
        if (i < t->anchors)
            set_figures(t, i, &sums);
        if (in->layout == INFONCE_APART)
            t->own[i] = g; /* what dq_worker needs of it */
    }
}

/* dq = g k / tau for the shard's rows, with the positives that stand apart */
static void
dq_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t D = in->D, first;
    size_t n = shard_rows(t, shard_i, &first);
    float *dq = t->out->dq;

    (void)thread_i;
    gemm_f32(dq + first * D, D, row_of(t, first), in->M, false, t->k, D, false,
        n, D, in->M, 1.0f / in->tau, 0);
    if (in->layout != INFONCE_APART)
        return;
    for (size_t i = first; i < first + n; i++)
        kern()->axpy(dq + i * D, t->own[i] / in->tau, in->positive + i * D, D);
}

static size_t
n_dk(const struct task *t)
{
    if (t->out->dk == NULL || t->in->layout == INFONCE_VIEWS)
        return 0;
    return t->out->n_dk == 0 ? t->in->M : t->out->n_dk;
}

/* dk (+)= g^T q / tau for the shard's columns and the panel's rows */
static void
dk_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct task *t = arg;
    const struct infonce_in *in = t->in;
    size_t D = in->D, first = shard_i * COLS_A_SHARD;
    size_t n = MIN(n_dk(t) - first, (size_t)COLS_A_SHARD);

    (void)thread_i;
    gemm_f32(t->out->dk + first * D, D, t->S + first, in->M, true,
        in->q + t->first * D, D, false, n, D, t->n, 1.0f / in->tau,
        t->first > 0 ? 1 : 0);
}

/* ---- the whole ------------------------------------------------------------
 */

/* Take the next panel in hand; false when there is none. */
static bool
next_panel(struct task *t, size_t *n_shards)
{
    t->first += t->n;
    if (t->first >= t->R)
        return false;
    t->n = MIN(t->R - t->first, t->shape.panel_rows);
    *n_shards = (t->n + t->shape.shard_rows - 1) / t->shape.shard_rows;
    return true;
}

/* What the columns' softmax needs before any gradient. */
static void
first_pass(struct task *t, struct pool *pool)
{
    size_t n_shards;

    t->first = t->n = 0;
    while (next_panel(t, &n_shards)) {
        pool_run(pool, n_shards, logits_worker, t);
        if (t->in->layout == INFONCE_VIEWS)
            pool_run(pool, n_shards, sum_rows_worker, t);
        else
            add_columns(t, n_shards, pool);
    }
    if (t->in->layout != INFONCE_VIEWS)
        end_columns(t);
    else if (t->in->joint)
        join_rows(t);
}

static void
second_pass(struct task *t, struct pool *pool)
{
    bool made = t->n_cols > 0 && t->shape.panel_rows == t->R;
    size_t n_shards;

    t->first = t->n = 0;
    while (next_panel(t, &n_shards)) {
        if (!made)
            pool_run(pool, n_shards, logits_worker, t);
        pool_run(pool, n_shards, gradient_worker, t);
        if (t->out->dq == NULL)
            continue;
        pool_run(pool, n_shards, dq_worker, t);
        pool_run(
            pool, (n_dk(t) + COLS_A_SHARD - 1) / COLS_A_SHARD, dk_worker, t);
    }
}

void
infonce(const struct infonce_in *in, struct infonce_out *out, float *workspace,
    struct pool *pool)
{
    struct task t;
    bool views = in->layout == INFONCE_VIEWS;

    ASSERT(in->B > 0 && in->M > 0 && in->tau > 0);
    ASSERT(in->layout != INFONCE_KEYS || in->M >= in->B);
    ASSERT(!views || in->M >= 2 * in->B);
    ASSERT(!in->symmetric || in->layout == INFONCE_KEYS);
    ASSERT(!in->joint || views);
    ASSERT(!in->decoupled || in->label == NULL);
    ASSERT(in->label == NULL || views || in->key_label != NULL);
    task_init(&t, in, out, workspace);
    set_weights(&t, pool);
    if (t.n_cols > 0)
        first_pass(&t, pool);
    second_pass(&t, pool);
    out->loss = out->d_log_scale = out->accuracy = 0;
    out->positive = out->negative = 0;
    for (size_t i = 0; i < t.R; i++)
        out->d_log_scale += (double)t.figures[i * ROW_FIGURES + ROW_SCALE];
    for (size_t i = 0; i < t.anchors; i++) {
        const float *figures = t.figures + i * ROW_FIGURES;
        out->loss += (double)figures[ROW_LOSS];
        out->accuracy += (double)figures[ROW_HIT] / (double)t.anchors;
        out->positive += (double)figures[ROW_POSITIVE] / (double)t.anchors;
        out->negative += (double)figures[ROW_NEGATIVE] / (double)t.anchors;
    }
}
