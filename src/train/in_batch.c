/*
 * in_batch.c - the negatives are the other examples of the batch; the
 * gradient reaches both sides. Anchors against keys (infonce, symmetric), or
 * all views against each other (nt_xent, four_way, dcl, supcon).
 * Source: Chen et al. 2020 (arXiv:2002.05709), alg. 1; the losses:
 * nn/infonce.h.
 */
#include "base/alloc.h"
#include "train/run.h"

/* Between views every row has a key and a label. */
struct views_run {
    uint64_t *keys;   /* [2 B + N] */
    uint64_t *labels; /* [2 B + N] */
};

static void
release(struct run *r)
{
    struct views_run *own = r->own;
    if (own == NULL)
        return;
    mem_free(own->keys);
    mem_free(own->labels);
    mem_free(own);
    r->own = NULL;
}

static enum err
init(struct run *r)
{
    size_t rows = 2 * r->B_max + r->max_negatives;

    if (!run_between_views(r->options))
        return run_reserve(r, r->B_max, r->B_max + r->max_negatives);
    struct views_run *own = mem_calloc(1, sizeof *own);
    if (own == NULL)
        return ERR_NOMEM;
    r->own = own;
    own->keys = mem_alloc(rows, sizeof *own->keys);
    own->labels = mem_alloc(rows, sizeof *own->labels);
    if (own->keys == NULL || own->labels == NULL)
        return ERR_NOMEM;
    r->bytes += 2 * rows * sizeof(uint64_t);
    return run_reserve(r, rows, rows);
}

static size_t
n_rows(const struct run *r)
{
    return r->B + r->M;
}

static enum err
loss_of_keys(struct run *r, struct infonce_out *out)
{
    struct infonce_in in = {.layout = INFONCE_KEYS,
        .B = r->B,
        .M = r->M,
        .D = r->P,
        .q = r->z,
        .k = r->z + r->B * r->P,
        .weight = r->weight,
        .tau = r->tau,
        .symmetric = r->options->loss == TRAIN_SYMMETRIC};
    enum err err = batch_masks(r->plan, r->index, r->B, inputs_key(r->inputs),
        r->M, &in.mask, &in.n_mask);

    out->dq = r->dz;
    out->dk = r->dz + r->B * r->P;
    if (err == OK)
        infonce(&in, out, r->workspace, r->pool);
    return err;
}

static enum err
loss(struct run *r, struct infonce_out *out)
{
    enum train_loss kind = r->options->loss;
    struct views_run *own = r->own;
    size_t B = r->B, rows = B + r->M;

    if (!run_between_views(r->options))
        return loss_of_keys(r, out);
    for (size_t i = 0; i < B; i++) {
        own->keys[i] = r->examples[r->index[i]].anchor.key;
        own->labels[i] = own->labels[B + i] = r->labels[i];
    }
    for (size_t j = 0; j < r->M; j++)
        own->keys[B + j] = inputs_key(r->inputs)[j];
    for (size_t j = 2 * B; j < rows; j++)
        own->labels[j] = 0;
    struct infonce_in in = {.layout = INFONCE_VIEWS,
        .B = B,
        .M = rows,
        .D = r->P,
        .q = r->z,
        .weight = r->weight,
        .label = kind == TRAIN_SUPCON ? own->labels : NULL,
        .tau = r->tau,
        .decoupled = kind == TRAIN_DCL,
        .joint = kind == TRAIN_FOUR_WAY};
    enum err err =
        batch_masks_views(r->plan, B, own->keys, rows, &in.mask, &in.n_mask);
    out->dq = r->dz;
    if (err == OK)
        infonce(&in, out, r->workspace, r->pool);
    return err;
}

const struct mechanism mechanism_in_batch = {
    .init = init, .release = release, .n_rows = n_rows, .loss = loss};
