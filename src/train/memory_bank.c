/*
 * memory_bank.c - the negatives are vectors as they are stored; the gradient
 * reaches the queries alone.
 *
 * A step draws rows of the bank without replacement and compares them with the
 * anchors beside the batch's own keys, which the encoder makes anew without a
 * gradient; what it made takes the place of the stored row. With a head the
 * bank's rows go through it as it is now. A row's age counts the optimiser
 * steps since it was encoded; at the start all rows are new.
 * Source: Wu et al. 2018 (arXiv:1805.01978), sec. 3.1, with InfoNCE in the
 * place of its noise-contrastive estimate.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "train/run.h"

#define SAMPLE_SALT 0x62616e6bULL

struct bank_slot {
    uint64_t key;
    uint32_t row;
};

struct bank_run {
    struct bank_slot *slots; /* [n] by key */
    uint32_t *refreshed;     /* [n] the step whose parameters made a row */
    uint32_t *drawn;         /* [n] 1 + the step that drew a row last */
    uint32_t *rows;          /* [n_sample] drawn in this step */
    size_t n_sample;
    float *embeddings; /* [B + N + n_sample, D] keys without a head */
    float *vectors;    /* [B + N + n_sample, P] */
    uint64_t *keys;    /* [B + N + n_sample] */
    uint64_t *labels;  /* [B + N + n_sample] of the bank's rows: none */
};

static int
compare_slots(const void *a, const void *b)
{
    const struct bank_slot *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static void
release(struct run *r)
{
    struct bank_run *own = r->own;
    if (own == NULL)
        return;
    mem_free(own->slots);
    mem_free(own->refreshed);
    mem_free(own->drawn);
    mem_free(own->rows);
    if (own->vectors != own->embeddings)
        mem_free(own->vectors);
    mem_free(own->embeddings);
    mem_free(own->keys);
    mem_free(own->labels);
    mem_free(own);
    r->own = NULL;
}

static enum err
init(struct run *r)
{
    struct bank_run *own = mem_calloc(1, sizeof *own);
    const struct train_bank *bank = r->bank;

    if (own == NULL)
        return ERR_NOMEM;
    r->own = own;
    own->n_sample = MIN(r->options->bank_sample, bank->n);
    size_t M = r->B_max + r->max_negatives + own->n_sample;
    own->slots = mem_alloc(bank->n, sizeof *own->slots);
    own->refreshed = mem_calloc(bank->n, sizeof *own->refreshed);
    own->drawn = mem_calloc(bank->n, sizeof *own->drawn);
    own->rows = mem_alloc(own->n_sample, sizeof *own->rows);
    own->embeddings = mem_alloc_aligned(M * r->D, sizeof *own->embeddings);
    own->vectors = r->head == NULL
                       ? own->embeddings
                       : mem_alloc_aligned(M * r->P, sizeof *own->vectors);
    own->keys = mem_alloc(M, sizeof *own->keys);
    own->labels = mem_calloc(M, sizeof *own->labels);
    if (own->slots == NULL || own->refreshed == NULL || own->drawn == NULL ||
        own->rows == NULL || own->embeddings == NULL || own->vectors == NULL ||
        own->keys == NULL || own->labels == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < bank->n; i++)
        own->slots[i] =
            (struct bank_slot){.key = bank->keys[i], .row = (uint32_t)i};
    qsort(own->slots, bank->n, sizeof *own->slots, compare_slots);
    r->bytes += bank->n * (sizeof *own->slots + 2 * sizeof(uint32_t)) +
                M * (r->D + r->P) * sizeof(float);
    return run_reserve(r, r->B_max, M);
}

static size_t
n_rows(const struct run *r)
{
    return r->B;
}

/* Which rows this step sees: by the seed and the step alone. */
static void
draw_rows(struct run *r)
{
    struct bank_run *own = r->own;
    uint32_t stamp = (uint32_t)r->step + 1;
    struct rng rng;

    if (own->n_sample == r->bank->n) {
        for (size_t i = 0; i < own->n_sample; i++)
            own->rows[i] = (uint32_t)i;
        return;
    }
    rng_seed_stream(&rng, r->options->seed, hash_u64(SAMPLE_SALT + r->step));
    /* Floyd's: element j is i's stand-in when i is drawn already */
    for (size_t j = r->bank->n - own->n_sample, k = 0; j < r->bank->n;
         j++, k++) {
        size_t i = (size_t)rng_below(&rng, j + 1);
        if (own->drawn[i] == stamp)
            i = j;
        own->drawn[i] = stamp;
        own->rows[k] = (uint32_t)i;
    }
}

static enum err
make_keys(struct run *r)
{
    struct bank_run *own = r->own;
    enum err err = gradcache_encode(
        r->cache, r->encoder, r->inputs, r->B, r->M, own->embeddings, r->pool);
    double age = 0;

    if (err != OK)
        return err;
    draw_rows(r);
    memcpy(own->keys, inputs_key(r->inputs), r->M * sizeof *own->keys);
    memset(own->labels, 0, r->M * sizeof *own->labels);
    memcpy(own->labels, r->labels, r->B * sizeof *own->labels);
    for (size_t i = 0; i < own->n_sample; i++) {
        size_t row = own->rows[i];
        memcpy(own->embeddings + (r->M + i) * r->D,
            r->bank->vectors + row * r->D, r->D * sizeof(float));
        own->keys[r->M + i] = r->bank->keys[row];
        age += (double)(r->step - own->refreshed[row]);
    }
    r->staleness = own->n_sample == 0 ? 0 : age / (double)own->n_sample;
    if (r->head != NULL)
        projection_encode(r->head, NULL, own->embeddings, r->M + own->n_sample,
            own->vectors, r->pool);
    return err;
}

static enum err
loss(struct run *r, struct infonce_out *out)
{
    struct bank_run *own = r->own;
    enum train_loss kind = r->options->loss;
    struct infonce_in in = {.layout = INFONCE_KEYS,
        .B = r->B,
        .M = r->M + own->n_sample,
        .D = r->P,
        .q = r->z,
        .k = own->vectors,
        .weight = r->weight,
        .label = kind == TRAIN_SUPCON ? r->labels : NULL,
        .key_label = own->labels,
        .tau = r->tau,
        .decoupled = kind == TRAIN_DCL};
    enum err err = batch_masks(
        r->plan, r->index, r->B, own->keys, in.M, &in.mask, &in.n_mask);

    out->dq = r->dz;
    out->dk = NULL;
    if (err == OK)
        infonce(&in, out, r->workspace, r->pool);
    return err;
}

/* The stored rows of what was encoded in this step, by its content. */
static void
after(struct run *r)
{
    struct bank_run *own = r->own;
    const float *made = own->embeddings;

    for (size_t i = 0; i < r->M; i++) {
        size_t low = 0, n = r->bank->n;
        while (n > 0) { /* first slot of the key */
            size_t half = n / 2;
            if (own->slots[low + half].key < own->keys[i]) {
                low += half + 1;
                n -= half + 1;
            } else {
                n = half;
            }
        }
        for (; low < r->bank->n && own->slots[low].key == own->keys[i]; low++) {
            size_t row = own->slots[low].row;
            memcpy(r->bank->vectors + row * r->D, made + i * r->D,
                r->D * sizeof(float));
            own->refreshed[row] = (uint32_t)r->step;
        }
    }
}

static enum err
state(struct run *r, struct state *s)
{
    struct bank_run *own = r->own;
    state_aside(s, r->bank->vectors, r->bank->n * r->D * sizeof(float));
    state_bytes(s, own->refreshed, r->bank->n * sizeof *own->refreshed);
    return s->err;
}

const struct mechanism mechanism_memory_bank = {.init = init,
    .release = release,
    .n_rows = n_rows,
    .keys = make_keys,
    .loss = loss,
    .after = after,
    .state = state};
