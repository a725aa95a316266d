/*
 * momentum_queue.c - the negatives are earlier keys, made by a momentum
 * encoder; the gradient reaches the queries alone.
 *
 * The momentum encoder (and head) encodes the positives and the given
 * negatives of a batch; after the optimiser's step it follows by momentum, and
 * the positives' keys enter the queue in the place of the oldest ones. The
 * queue begins empty, and only what is filled counts.
 * With the symmetric loss both sides take their turn as queries, and the loss
 * is the mean of both directions. Source: He et al. 2020 (arXiv:1911.05722),
 * alg. 1; the head: Chen et al. 2020 (arXiv:2003.04297). We depart from it in
 * one thing: the batch's other keys are negatives too, as if they were in the
 * queue already, so that the first step has some.
 */
#include <string.h>

#include "base/alloc.h"
#include "train/key_queue.h"
#include "train/momentum.h"
#include "train/run.h"

struct queue_run {
    struct encoder *encoder; /* theta_k */
    float *head;             /* its head's parameters; NULL: none */
    size_t n_head;
    struct key_queue queue;
    float *embeddings; /* [2 B + N, D] of theta_k; keys without a head */
    float *keys;       /* [2 B + N, P] */
};

static bool
both_sides(const struct run *r)
{
    return r->options->loss == TRAIN_SYMMETRIC;
}

static void
release(struct run *r)
{
    struct queue_run *own = r->own;
    if (own == NULL)
        return;
    encoder_free(own->encoder);
    mem_free(own->head);
    key_queue_release(&own->queue);
    if (own->keys != own->embeddings)
        mem_free(own->keys);
    mem_free(own->embeddings);
    mem_free(own);
    r->own = NULL;
}

static enum err
init(struct run *r)
{
    struct queue_run *own = mem_calloc(1, sizeof *own);
    size_t rows = 2 * r->B_max + r->max_negatives;
    size_t front = r->B_max + r->max_negatives;

    if (own == NULL)
        return ERR_NOMEM;
    r->own = own;
    enum err err = encoder_clone(&own->encoder, r->encoder);
    if (err == OK)
        err = key_queue_init(&own->queue, r->options->queue, front, r->P);
    if (err == OK)
        err = run_reserve(r, r->B_max, front + r->options->queue);
    if (err != OK)
        return err;
    own->embeddings = mem_alloc_aligned(rows * r->D, sizeof *own->embeddings);
    own->keys = own->embeddings;
    if (r->head != NULL) {
        const float *params = projection_params(r->head, &own->n_head);
        own->keys = mem_alloc_aligned(rows * r->P, sizeof *own->keys);
        own->head = mem_alloc_aligned(own->n_head, sizeof *own->head);
        if (own->head != NULL)
            memcpy(own->head, params, own->n_head * sizeof *own->head);
    }
    if (own->embeddings == NULL || own->keys == NULL ||
        (r->head != NULL && own->head == NULL))
        return ERR_NOMEM;
    r->bytes += r->n_params * sizeof(float) + key_queue_bytes(&own->queue) +
                rows * (r->D + r->P) * sizeof(float);
    return OK;
}

static size_t
n_rows(const struct run *r)
{
    return both_sides(r) ? 2 * r->B : r->B;
}

/* theta_k's keys of the rows that are keys: all, or all but the anchors. */
static enum err
make_keys(struct run *r)
{
    struct queue_run *own = r->own;
    size_t first = both_sides(r) ? 0 : r->B;
    size_t n = r->B + r->M - first;
    float *embeddings = own->embeddings + first * r->D;
    enum err err = gradcache_encode(
        r->cache, own->encoder, r->inputs, first, n, embeddings, r->pool);

    if (err == OK && r->head != NULL)
        projection_encode(r->head, own->head, embeddings, n,
            own->keys + first * r->P, r->pool);
    return err;
}

/* One direction: anchors find their positives among n_keys keys of the batch
   and the queue, or back, positives their anchors. */
static enum err
one_direction(struct run *r, bool back, size_t n_keys, struct infonce_out *out)
{
    size_t q = back ? r->B : 0, k = back ? 0 : r->B;
    struct queue_run *own = r->own;
    struct key_queue *queue = &own->queue;
    size_t front = queue->front - n_keys;
    enum train_loss kind = r->options->loss;
    struct infonce_in in = {.layout = INFONCE_KEYS,
        .B = r->B,
        .M = n_keys + queue->n,
        .D = r->P,
        .q = r->z + q * r->P,
        .k = key_queue_front(queue, n_keys),
        .weight = r->weight,
        .label = kind == TRAIN_SUPCON ? r->labels : NULL,
        .key_label = queue->labels + front,
        .tau = r->tau,
        .decoupled = kind == TRAIN_DCL};

    memcpy(key_queue_front(queue, n_keys), own->keys + k * r->P,
        n_keys * r->P * sizeof(float));
    for (size_t i = 0; i < n_keys; i++)
        queue->keys[front + i] = back ? r->examples[r->index[i]].anchor.key
                                      : inputs_key(r->inputs)[i];
    memset(queue->labels + front, 0, n_keys * sizeof *queue->labels);
    memcpy(queue->labels + front, r->labels, r->B * sizeof *queue->labels);
    enum err err = (back ? batch_masks_back : batch_masks)(r->plan, r->index,
        r->B, queue->keys + front, in.M, &in.mask, &in.n_mask);
    out->dq = r->dz + q * r->P;
    out->dk = NULL;
    if (err == OK)
        infonce(&in, out, r->workspace, r->pool);
    return err;
}

static enum err
loss(struct run *r, struct infonce_out *out)
{
    struct queue_run *own = r->own;
    struct infonce_out back = {0};
    enum err err = OK;

    r->staleness = key_queue_age(&own->queue, r->step);
    if (both_sides(r)) {
        err = one_direction(r, true, r->B, &back);
        if (err != OK)
            return err;
    }
    /* last, so that the positives' keys stay before the queue */
    err = one_direction(r, false, r->M, out);
    if (err != OK || !both_sides(r))
        return err;
    out->loss = (out->loss + back.loss) / 2;
    out->d_log_scale = (out->d_log_scale + back.d_log_scale) / 2;
    out->accuracy = (out->accuracy + back.accuracy) / 2;
    out->positive = (out->positive + back.positive) / 2;
    out->negative = (out->negative + back.negative) / 2;
    for (size_t i = 0; i < 2 * r->B * r->P; i++)
        r->dz[i] *= 0.5f;
    return OK;
}

static void
after(struct run *r)
{
    struct queue_run *own = r->own;
    size_t n;
    const float *theta_q = encoder_params_const(r->encoder, &n);
    float m = r->options->momentum;

    momentum_update(
        encoder_params(own->encoder, &n), theta_q, r->n_params, m, r->pool);
    if (own->head != NULL)
        momentum_update(
            own->head, projection_params(r->head, &n), own->n_head, m, r->pool);
    key_queue_push(&own->queue, r->M, r->B, r->step);
}

static enum err
state(struct run *r, struct state *s)
{
    struct queue_run *own = r->own;
    size_t n;

    state_bytes(
        s, encoder_params(own->encoder, &n), r->n_params * sizeof(float));
    state_bytes(s, own->head, own->n_head * sizeof(float));
    key_queue_state(&own->queue, s);
    return s->err;
}

const struct mechanism mechanism_momentum_queue = {.init = init,
    .release = release,
    .n_rows = n_rows,
    .keys = make_keys,
    .loss = loss,
    .after = after,
    .state = state};
