/*
 * Goal: every objective of infonce.h (the positive apart, views, joint,
 * decoupled, labels) has the loss of the header and that loss's gradient, is
 * related to the others as the papers say, and stays so when the logits do not
 * fit in one panel.
 *
 * Method: the loss is written down again in double by sets A(i) and P(i), one
 * anchor at a time; central differences by every input on small sizes, along
 * random directions on sizes past a panel. Weights with zeros, masks, learned
 * temperature. Identities: NT-Xent is InfoNCE of both views against both, MoCo
 * is InfoNCE of each query alone against [its key, the queue], exp(InfoNCE) =
 * 1 + exp(DCL), labels that differ change nothing, equal rows give the log of
 * the number of candidates.
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
#include "base/alloc.h"
#include "base/check.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "nn/infonce.h"

#define DIMS 8
#define TOLERANCE 2e-5 /* of a gradient, relative to the gradients' scale */

enum { MASKS = 1, LABELS = 2, DECOUPLED = 4, JOINT = 8, SYMMETRIC = 16 };

struct problem {
    struct infonce_in in;
    struct infonce_out out;
    size_t rows; /* of q */
    float *q, *k, *positive, *weight, *dq, *dk, *workspace;
    double *q64, *k64, *positive64; /* what the reference reads */
    struct infonce_mask *mask;
    uint64_t *label, *key_label;
    unsigned char *masked; /* [rows, M] */
    double log_scale;
};

static void *
take(size_t n, size_t size)
{
    void *p = mem_calloc(n + 1, size);
    assert_non_null(p);
    return p;
}

static void
drop(struct problem *p)
{
    void *all[] = {p->q, p->k, p->positive, p->weight, p->dq, p->dk,
        p->workspace, p->q64, p->k64, p->positive64, p->mask, p->label,
        p->key_label, p->masked};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]);
}

static void
unit_rows(struct rng *rng, float *x, const float *near_to, size_t n)
{
    for (size_t i = 0; i < n * DIMS; i += DIMS) {
        double square = 0;
        for (size_t d = i; d < i + DIMS; d++) {
            x[d] = (float)rng_normal(rng);
            if (near_to != NULL)
                x[d] += 1.5f * near_to[d];
            square += (double)x[d] * (double)x[d];
        }
        for (size_t d = i; d < i + DIMS; d++)
            x[d] = (float)((double)x[d] / sqrt(square));
    }
}

static void
widen(double *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (double)from[i];
}

/* The column of the own positive of row i, M for none. */
static size_t
own_of(const struct problem *p, size_t i)
{
    size_t B = p->in.B;
    if (p->in.layout == INFONCE_VIEWS)
        return i < B ? i + B : i < 2 * B ? i - B : p->in.M;
    return p->in.layout == INFONCE_KEYS ? i : p->in.M;
}

static void
set_mask(struct problem *p, size_t i, size_t j)
{
    if (own_of(p, i) == j || (p->in.layout == INFONCE_VIEWS && i == j))
        return;
    p->masked[i * p->in.M + j] = 1;
    if (p->in.layout == INFONCE_VIEWS)
        p->masked[j * p->in.M + i] = 1;
}

static void
list_masks(struct problem *p)
{
    p->in.n_mask = 0;
    for (size_t i = 0; i < p->rows; i++) {
        for (size_t j = 0; j < p->in.M; j++) {
            if (p->masked[i * p->in.M + j])
                p->mask[p->in.n_mask++] = (struct infonce_mask){
                    .row = (uint32_t)i, .col = (uint32_t)j};
        }
    }
}

static void
make(struct problem *p, enum infonce_layout layout, size_t B, size_t M,
    double tau, unsigned how, uint64_t seed)
{
    struct rng rng;
    size_t rows = layout == INFONCE_VIEWS ? M : B;

    memset(p, 0, sizeof *p);
    rng_seed(&rng, seed);
    p->rows = rows;
    p->q = take(rows * DIMS, sizeof(float));
    p->k = take(M * DIMS, sizeof(float));
    p->positive = take(B * DIMS, sizeof(float));
    p->weight = take(B, sizeof(float));
    p->dq = take(rows * DIMS, sizeof(float));
    p->dk = take(M * DIMS, sizeof(float));
    p->workspace = take(infonce_workspace_floats(rows, M), sizeof(float));
    p->q64 = take(rows * DIMS, sizeof(double));
    p->k64 = take(M * DIMS, sizeof(double));
    p->positive64 = take(B * DIMS, sizeof(double));
    p->label = take(rows, sizeof(uint64_t));
    p->key_label = take(M, sizeof(uint64_t));
    p->masked = take(rows * M, 1);
    p->in = (struct infonce_in){.layout = layout,
        .B = B,
        .M = M,
        .D = DIMS,
        .q = p->q,
        .k = layout == INFONCE_VIEWS ? NULL : p->k,
        .positive = layout == INFONCE_APART ? p->positive : NULL,
        .weight = p->weight,
        .tau = (float)tau,
        .symmetric = how & SYMMETRIC,
        .decoupled = how & DECOUPLED,
        .joint = how & JOINT};
    p->out = (struct infonce_out){.dq = p->dq, .dk = p->dk};
    unit_rows(&rng, p->q, NULL, rows);
    unit_rows(&rng, p->k, NULL, M);
    unit_rows(&rng, p->positive, p->q, B);
    if (layout == INFONCE_KEYS)
        unit_rows(&rng, p->k, p->q, B);
    if (layout == INFONCE_VIEWS)
        unit_rows(&rng, p->q + B * DIMS, p->q, B);
    for (size_t i = 0; i < B; i++)
        p->weight[i] = i % 3 == 2 ? 0 : 0.25f + 2 * rng_float(&rng);
    for (size_t n = 0; (how & MASKS) && n < rows; n++)
        set_mask(p, (size_t)rng_below(&rng, rows), (size_t)rng_below(&rng, M));
    size_t n_mask = 0;
    for (size_t i = 0; i < rows * M; i++)
        n_mask += p->masked[i];
    p->mask = take(n_mask, sizeof *p->mask);
    p->in.mask = p->mask;
    list_masks(p);
    if (how & LABELS) {
        for (size_t i = 0; i < rows; i++)
            p->label[i] = rng_below(&rng, 4);
        for (size_t i = 0; i < M; i++)
            p->key_label[i] = rng_below(&rng, 4);
        p->in.label = p->label;
        if (layout != INFONCE_VIEWS)
            p->in.key_label = p->key_label;
    }
    p->log_scale = -log((double)p->in.tau);
    widen(p->q64, p->q, rows * DIMS);
    widen(p->k64, p->k, M * DIMS);
    widen(p->positive64, p->positive, B * DIMS);
}

/* ---- the header's formulas ------------------------------------------------
 */

static double
dot(const double *a, const double *b)
{
    double sum = 0;
    for (size_t d = 0; d < DIMS; d++)
        sum += a[d] * b[d];
    return sum;
}

static double
cosine(const struct problem *p, size_t i, size_t j)
{
    const double *keys = p->in.layout == INFONCE_VIEWS ? p->q64 : p->k64;
    return dot(p->q64 + i * DIMS, keys + j * DIMS);
}

static bool
is_positive(const struct problem *p, size_t i, size_t j)
{
    const uint64_t *key_label =
        p->in.layout == INFONCE_VIEWS ? p->label : p->key_label;
    if (own_of(p, i) == j)
        return true;
    return p->in.label != NULL && p->label[i] != 0 &&
           p->label[i] == key_label[j];
}

/* A row's (or, transposed, a column's) sum over A and mean over P. */
static double
sum_of(const struct problem *p, size_t a, bool column, double *mean)
{
    size_t n = column ? p->in.B : p->in.M, n_positive = 0;
    double sum = 0, positive = 0, scale = exp(p->log_scale);

    for (size_t b = 0; b < n; b++) {
        size_t i = column ? b : a, j = column ? a : b;
        if (p->masked[i * p->in.M + j] ||
            (p->in.layout == INFONCE_VIEWS && i == j))
            continue;
        double s = cosine(p, i, j) * scale;
        bool yes = is_positive(p, i, j);
        if (yes) {
            positive += s;
            n_positive++;
        }
        if (!yes || !p->in.decoupled)
            sum += exp(s);
    }
    if (p->in.layout == INFONCE_APART) {
        double s = dot(p->q64 + a * DIMS, p->positive64 + a * DIMS) * scale;
        positive += s;
        n_positive++;
        if (!p->in.decoupled)
            sum += exp(s);
    }
    *mean = positive / (double)n_positive;
    return sum;
}

static double
reference(const struct problem *p)
{
    double loss = 0, total = 0, mean, other;
    size_t B = p->in.B;

    for (size_t i = 0; i < B; i++) {
        double w = (double)p->weight[i];
        double sum = sum_of(p, i, false, &mean), l = 0;
        if (p->in.layout == INFONCE_VIEWS) {
            double sum_b = sum_of(p, i + B, false, &other);
            if (p->in.joint) {
                if (sum + sum_b > 0)
                    l = log(sum + sum_b) - (mean + other) / 2;
            } else {
                l = sum > 0 ? (log(sum) - mean) / 2 : 0;
                l += sum_b > 0 ? (log(sum_b) - other) / 2 : 0;
            }
        } else {
            l = sum > 0 ? log(sum) - mean : 0;
            if (p->in.symmetric) {
                double column = sum_of(p, i, true, &other);
                l = l / 2 + (column > 0 ? (log(column) - other) / 2 : 0);
            }
        }
        loss += w * l;
        total += w;
    }
    return loss / total;
}

static double
difference(const struct problem *p, double *x, double step)
{
    double at = *x;
    *x = at + step;
    double up = reference(p);
    *x = at - step;
    double down = reference(p);
    *x = at;
    return (up - down) / (2 * step);
}

static void
near(double got, double want, double scale, const char *what, size_t i)
{
    double err = fabs(got - want) / fmax(fabs(want), scale);
    if (!(err <= TOLERANCE))
        print_error("%s %zu: got %.9g, want %.9g\n", what, i, got, want);
    assert_true(err <= TOLERANCE);
}

/* ---- gradients ------------------------------------------------------------
 */

static double
top_of(const float *x, size_t n)
{
    double top = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)x[i]));
    return top;
}

static void
check(struct problem *p)
{
    double floor = 0.02 / (double)p->in.tau;
    size_t M = p->in.M;

    infonce(&p->in, &p->out, p->workspace, NULL);
    near(p->out.loss, reference(p), 1, "loss", 0);
    double top = fmax(top_of(p->dq, p->rows * DIMS), floor);
    for (size_t i = 0; i < p->rows * DIMS; i++)
        near((double)p->dq[i], difference(p, &p->q64[i], 1e-5), top, "dq", i);
    top = fmax(top_of(p->dk, M * DIMS), floor);
    for (size_t i = 0; p->in.k != NULL && i < M * DIMS; i++)
        near((double)p->dk[i], difference(p, &p->k64[i], 1e-5), top, "dk", i);
    near(p->out.d_log_scale, difference(p, &p->log_scale, 1e-5), 0.1 + floor,
        "d_log_scale", 0);
}

static void
test_small(void **state)
{
    static const struct {
        enum infonce_layout layout;
        size_t B, M;
        unsigned allowed;
    } forms[] = {
        {INFONCE_KEYS, 5, 5, MASKS | LABELS | DECOUPLED | SYMMETRIC},
        {INFONCE_KEYS, 4, 9, MASKS | LABELS | DECOUPLED | SYMMETRIC},
        {INFONCE_APART, 4, 7, MASKS | LABELS | DECOUPLED},
        {INFONCE_APART, 3, 1, LABELS},
        {INFONCE_VIEWS, 4, 8, MASKS | LABELS | DECOUPLED | JOINT},
        {INFONCE_VIEWS, 3, 10, MASKS | LABELS | DECOUPLED | JOINT},
        {INFONCE_VIEWS, 2, 4, MASKS | LABELS | DECOUPLED | JOINT},
    };
    static const double taus[] = {0.05, 0.2, 1};

    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        for (unsigned how = 0; how < 32; how++) {
            bool two = (how & LABELS) && (how & DECOUPLED);
            if ((how & ~forms[f].allowed) != 0 || two)
                continue;
            for (size_t t = 0; t < ARRAY_LEN(taus); t++) {
                struct problem p;
                make(&p, forms[f].layout, forms[f].B, forms[f].M, taus[t], how,
                    100 * f + how);
                check(&p);
                drop(&p);
            }
        }
    }
}

/* Along one direction of all inputs and the temperature at once. */
static void
check_along(struct problem *p, struct pool *pool)
{
    size_t n_q = p->rows * DIMS, n_k = p->in.k == NULL ? 0 : p->in.M * DIMS;
    double *u = take(n_q + n_k, sizeof(double)), want = 0, scale = 0;
    struct rng rng;

    infonce(&p->in, &p->out, p->workspace, pool);
    near(p->out.loss, reference(p), 1, "loss", 0);
    rng_seed(&rng, 8);
    for (size_t i = 0; i < n_q + n_k; i++) {
        double g = i < n_q ? (double)p->dq[i] : (double)p->dk[i - n_q];
        /* along the gradient, mostly: it must have the right length */
        u[i] = g + 0.1 * top_of(p->dq, 10) * rng_normal(&rng);
        want += u[i] * g;
        scale += u[i] * u[i];
    }
    double up, down, step = 1e-4 / sqrt(scale), d_log = sqrt(scale);
    want += d_log * p->out.d_log_scale;
    for (size_t i = 0; i < n_q + n_k; i++)
        *(i < n_q ? &p->q64[i] : &p->k64[i - n_q]) += step * u[i];
    p->log_scale += step * d_log;
    up = reference(p);
    for (size_t i = 0; i < n_q + n_k; i++)
        *(i < n_q ? &p->q64[i] : &p->k64[i - n_q]) -= 2 * step * u[i];
    p->log_scale -= 2 * step * d_log;
    down = reference(p);
    near((up - down) / (2 * step), want, 1e-6, "along", 0);
    mem_free(u);
}

/* Past 2^22 logits: several panels, the same bits for any pool. */
static void
test_panels(void **state)
{
    static const struct {
        enum infonce_layout layout;
        size_t B, M;
        unsigned how;
    } forms[] = {
        {INFONCE_KEYS, 2100, 2100, SYMMETRIC | MASKS},
        {INFONCE_APART, 70, 66000, LABELS},
        {INFONCE_VIEWS, 1100, 2300, MASKS},
        {INFONCE_VIEWS, 1100, 2200, JOINT},
    };
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(&pool, 3, false), OK);
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        struct problem p;
        make(&p, forms[f].layout, forms[f].B, forms[f].M, 0.1, forms[f].how, f);
        check_along(&p, NULL);
        size_t n_q = p.rows * DIMS;
        size_t n_k = p.in.k == NULL ? 0 : p.in.M * DIMS;
        float *dq = take(n_q, sizeof *dq), *dk = take(n_k, sizeof *dk);
        struct infonce_out out = {.dq = dq, .dk = dk};
        infonce(&p.in, &out, p.workspace, pool);
        assert_memory_equal(&out.loss, &p.out.loss, sizeof out.loss);
        assert_memory_equal(dq, p.dq, n_q * sizeof *dq);
        assert_memory_equal(dk, p.dk, n_k * sizeof *dk);
        mem_free(dq);
        mem_free(dk);
        drop(&p);
    }
    pool_free(pool);
}

static void
test_memory_is_flat(void **state)
{
    size_t n = 4096;

    (void)state;
    /* the matrix alone would be 256 and 64 MiB */
    assert_true(infonce_workspace_floats(2 * n, 2 * n) < 5 << 20);
    assert_true(infonce_workspace_floats(n, n) < 5 << 20);
    assert_true(infonce_workspace_floats(512, 65536) < 6 << 20);
}

/* ---- identities -----------------------------------------------------------
 */

/* NT-Xent: both views against both, each masked from itself. */
static void
test_nt_xent_is_infonce(void **state)
{
    struct problem views, pairs;
    size_t B = 6;

    (void)state;
    make(&views, INFONCE_VIEWS, B, 2 * B, 0.2, 0, 1);
    make(&pairs, INFONCE_KEYS, 2 * B, 2 * B, 0.2, 0, 2);
    mem_free(pairs.mask);
    pairs.mask = take(2 * B, sizeof *pairs.mask);
    pairs.in.mask = pairs.mask;
    for (size_t i = 0; i < 2 * B; i++) {
        size_t j = (i + B) % (2 * B);
        memcpy(pairs.q + i * DIMS, views.q + i * DIMS, DIMS * sizeof(float));
        memcpy(pairs.k + i * DIMS, views.q + j * DIMS, DIMS * sizeof(float));
        pairs.weight[i] = views.weight[i % B];
        pairs.masked[i * 2 * B + j] = 1;
    }
    list_masks(&pairs);
    infonce(&views.in, &views.out, views.workspace, NULL);
    infonce(&pairs.in, &pairs.out, pairs.workspace, NULL);
    near(views.out.loss, pairs.out.loss, 1, "loss", 0);
    near(views.out.accuracy, pairs.out.accuracy, 1, "accuracy", 0);
    near(views.out.positive, pairs.out.positive, 1, "positive", 0);
    near(views.out.negative, pairs.out.negative, 1, "negative", 0);
    for (size_t i = 0; i < 2 * B * DIMS; i++) {
        size_t other = (i + B * DIMS) % (2 * B * DIMS);
        near((double)views.dq[i], (double)pairs.dq[i] + (double)pairs.dk[other],
            1, "dz", i);
    }
    drop(&views);
    drop(&pairs);
}

/* MoCo: the logits of a query are [q . k+, q . queue] and no others. */
static void
test_moco_is_infonce_of_each(void **state)
{
    struct problem moco, one;
    size_t B = 5, M = 9;
    double loss = 0, total = 0, accuracy = 0, negative = 0;

    (void)state;
    make(&moco, INFONCE_APART, B, M, 0.2, 0, 3);
    infonce(&moco.in, &moco.out, moco.workspace, NULL);
    for (size_t i = 0; i < B; i++)
        total += (double)moco.weight[i];
    for (size_t i = 0; i < B; i++) {
        double w = (double)moco.weight[i];
        make(&one, INFONCE_KEYS, 1, M + 1, 0.2, 0, 4);
        memcpy(one.q, moco.q + i * DIMS, DIMS * sizeof(float));
        memcpy(one.k, moco.positive + i * DIMS, DIMS * sizeof(float));
        memcpy(one.k + DIMS, moco.k, M * DIMS * sizeof(float));
        infonce(&one.in, &one.out, one.workspace, NULL);
        loss += w * one.out.loss / total;
        accuracy += one.out.accuracy / (double)B;
        negative += one.out.negative / (double)B;
        for (size_t d = 0; d < DIMS; d++)
            near((double)moco.dq[i * DIMS + d], w / total * (double)one.dq[d],
                1, "dq", d);
        drop(&one);
    }
    near(moco.out.loss, loss, 1, "loss", 0);
    near(moco.out.accuracy, accuracy, 1, "accuracy", 0);
    near(moco.out.negative, negative, 1, "negative", 0);
    drop(&moco);
}

/* exp(l) = 1 + exp(l_DCL) for each anchor: DCL is the lower, and unbounded. */
static void
test_dcl_is_below_infonce(void **state)
{
    struct problem p;

    (void)state;
    for (size_t layout = 0; layout < 3; layout++) {
        make(&p, (enum infonce_layout)layout, 1, 5, 0.2, 0, layout);
        p.weight[0] = 1;
        infonce(&p.in, &p.out, p.workspace, NULL);
        double full = p.out.loss;
        if (layout == INFONCE_VIEWS) { /* two anchors: only their bound */
            p.in.decoupled = true;
            infonce(&p.in, &p.out, p.workspace, NULL);
            assert_true(p.out.loss < full);
        } else {
            p.in.decoupled = true;
            infonce(&p.in, &p.out, p.workspace, NULL);
            near(exp(full), 1 + exp(p.out.loss), 1, "dcl", layout);
        }
        drop(&p);
    }
}

/* Decoupled and all negatives masked: nothing to learn, and no NaN. */
static void
test_no_candidate(void **state)
{
    struct problem p;

    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        bool views = how >= 2;
        make(&p, views ? INFONCE_VIEWS : INFONCE_KEYS, 3, views ? 6 : 3, 0.2,
            DECOUPLED | (how == 1 ? SYMMETRIC : 0) | (how == 3 ? JOINT : 0),
            how);
        mem_free(p.mask);
        p.mask = take(p.rows * p.in.M, sizeof *p.mask);
        p.in.mask = p.mask;
        for (size_t j = 0; j < p.in.M; j++)
            set_mask(&p, 0, j);
        list_masks(&p);
        check(&p);
        for (size_t i = 0; i < p.rows; i++) {
            for (size_t j = 0; j < p.in.M; j++)
                set_mask(&p, i, j);
        }
        list_masks(&p);
        check(&p);
        assert_true(p.out.loss == 0 && p.out.d_log_scale == 0);
        assert_true(top_of(p.dq, p.rows * DIMS) == 0);
        drop(&p);
    }
}

/* The figures count only negatives as such, in every layout. */
static void
test_figures(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 12; c++) {
        static const enum infonce_layout layouts[] = {
            INFONCE_KEYS, INFONCE_APART, INFONCE_VIEWS};
        enum infonce_layout layout = layouts[c / 4];
        unsigned how = MASKS | (c & 1 ? LABELS : 0) | (c & 2 ? DECOUPLED : 0);
        double accuracy = 0, positive = 0, negative = 0;
        struct problem p;
        if ((c & 3) == 3)
            continue;
        make(&p, layout, 5, 11, 0.2, how, c);
        infonce(&p.in, &p.out, p.workspace, NULL);
        size_t n = layout == INFONCE_VIEWS ? 10 : 5;
        for (size_t i = 0; i < n; i++) {
            double own, sum = 0, count = 0;
            bool hit = true;
            if (layout == INFONCE_APART)
                own = dot(p.q64 + i * DIMS, p.positive64 + i * DIMS);
            else
                own = cosine(&p, i, own_of(&p, i));
            for (size_t j = 0; j < p.in.M; j++) {
                if (p.masked[i * p.in.M + j] || is_positive(&p, i, j) ||
                    (layout == INFONCE_VIEWS && i == j))
                    continue;
                sum += cosine(&p, i, j);
                count++;
                hit = hit && own >= cosine(&p, i, j);
            }
            accuracy += hit / (double)n;
            positive += own / (double)n;
            negative += sum / count / (double)n;
        }
        near(p.out.accuracy, accuracy, 1, "accuracy", c);
        near(p.out.positive, positive, 1, "positive", c);
        near(p.out.negative, negative, 1, "negative", c);
        drop(&p);
    }
}

/* Labels that are all different are no news; one label for all makes every
   other row a positive. */
static void
test_labels(void **state)
{
    struct problem p, plain;
    size_t B = 4;

    (void)state;
    make(&plain, INFONCE_VIEWS, B, 2 * B, 0.2, 0, 5);
    infonce(&plain.in, &plain.out, plain.workspace, NULL);
    make(&p, INFONCE_VIEWS, B, 2 * B, 0.2, LABELS, 5);
    for (size_t i = 0; i < 2 * B; i++)
        p.label[i] = 1 + i % B;
    infonce(&p.in, &p.out, p.workspace, NULL);
    near(p.out.loss, plain.out.loss, 1, "loss", 0);
    for (size_t i = 0; i < 2 * B * DIMS; i++)
        near((double)p.dq[i], (double)plain.dq[i], 1, "dz", i);
    near(p.out.negative, plain.out.negative, 1, "negative", 0);
    near(p.out.accuracy, plain.out.accuracy, 1, "accuracy", 0);
    for (size_t i = 0; i < 2 * B; i++)
        p.label[i] = 7;
    infonce(&p.in, &p.out, p.workspace, NULL);
    near(p.out.loss, reference(&p), 1, "loss", 1);
    /* no negative is left to be above the positive, or to have a mean */
    assert_true(p.out.accuracy > 0.999 && p.out.negative == 0);
    drop(&p);
    drop(&plain);
}

/* What is no difference cannot be told: the log of the candidates' number. */
static void
test_equal_rows(void **state)
{
    static const struct {
        enum infonce_layout layout;
        unsigned how;
        double candidates;
    } forms[] = {
        {INFONCE_KEYS, 0, 8},
        {INFONCE_KEYS, DECOUPLED, 7},
        {INFONCE_APART, 0, 9},
        {INFONCE_APART, DECOUPLED, 8},
        {INFONCE_VIEWS, 0, 7},
        {INFONCE_VIEWS, LABELS, 7},
        {INFONCE_VIEWS, DECOUPLED, 6},
        {INFONCE_VIEWS, JOINT, 14},
    };

    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        struct problem p;
        make(&p, forms[f].layout, 4, 8, 0.05, forms[f].how, f);
        for (size_t i = 0; i < 8; i++) {
            memcpy(p.k + i * DIMS, p.q, DIMS * sizeof(float));
            if (i < p.rows)
                memcpy(p.q + i * DIMS, p.q, DIMS * sizeof(float));
            if (i < 4)
                memcpy(p.positive + i * DIMS, p.q, DIMS * sizeof(float));
        }
        infonce(&p.in, &p.out, p.workspace, NULL);
        near(p.out.loss, log(forms[f].candidates), 1, "loss", f);
        drop(&p);
    }
}

/* Only the first keys' gradient, or none. */
static void
test_wanted_gradients(void **state)
{
    struct problem p;
    float dk[10 * DIMS];

    (void)state;
    make(&p, INFONCE_KEYS, 4, 10, 0.2, SYMMETRIC, 6);
    infonce(&p.in, &p.out, p.workspace, NULL);
    for (size_t i = 0; i < ARRAY_LEN(dk); i++)
        dk[i] = 77;
    struct infonce_out out = {.dq = p.dq, .dk = dk, .n_dk = 4};
    infonce(&p.in, &out, p.workspace, NULL);
    for (size_t i = 0; i < ARRAY_LEN(dk); i++) {
        if (i < 4 * DIMS)
            near((double)dk[i], (double)p.dk[i], 1, "dk", i);
        else
            assert_true(dk[i] == 77);
    }
    out = (struct infonce_out){.dq = p.dq};
    infonce(&p.in, &out, p.workspace, NULL);
    out = (struct infonce_out){.dq = NULL};
    infonce(&p.in, &out, p.workspace, NULL);
    assert_memory_equal(&out.loss, &p.out.loss, sizeof out.loss);
    drop(&p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_panels),
        cmocka_unit_test(test_memory_is_flat),
        cmocka_unit_test(test_nt_xent_is_infonce),
        cmocka_unit_test(test_moco_is_infonce_of_each),
        cmocka_unit_test(test_dcl_is_below_infonce),
        cmocka_unit_test(test_no_candidate),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_equal_rows),
        cmocka_unit_test(test_wanted_gradients),
    };
    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
