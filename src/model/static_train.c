/*
 * static_train.c - the static encoder's forward pass with a tape, its
 * backward pass, and the refit of document frequencies.
 *
 * All sums gather: each output row collects its terms from an inverted list
 * made by a stable counting sort, so that the order of additions, and with it
 * every bit, is the same for any number of threads.
 */
#include "model/static_encoder.h"

#include <string.h>

#include "base/alloc.h"
#include "kern/kern.h"
#include "text/hashed.h"
#include "text/prior.h"

#define BAG_SHARDS 16 /* fixed: the order of words depends on it */
#define WORDS_A_SHARD 64
#define TEXTS_A_SHARD 32
#define ROWS_A_SHARD 256

/* An inverted list: for each key the entries that hold it, in order. */
struct inverted {
    uint32_t *start; /* [n_keys + 1] */
    uint32_t *item;  /* [n_items] */
    size_t cap_keys, cap_items;
};

struct static_tape {
    struct encoder_tape base;
    struct bag bag;
    struct bag shard_bags[BAG_SHARDS];
    float *W;         /* [n_words, D] */
    float *dW;        /* [n_words, D] */
    float *y;         /* [n_texts, D] unit rows z */
    float *dy;        /* [n_texts, D] */
    float *norm;      /* [n_texts] |y| */
    float *gains;     /* [n_features]; 0: left out */
    float *d_gain;    /* [n_features] d loss / d l_f of each use */
    uint32_t *owner;  /* [n_features] the word of a use */
    float *coef;      /* [n_entries] s(c) e^rho */
    float *d_coef;    /* [n_entries] d loss / d rho of each entry */
    uint32_t *text;   /* [n_entries] the text of an entry */
    uint32_t *bucket; /* [P, n_features] */
    size_t cap_words, cap_features, cap_entries, cap_texts;
    struct inverted by_word;                 /* entries of a word */
    struct inverted by_bucket[STATIC_PARTS]; /* uses of a row */
};

static struct static_tape *
tape_of(struct encoder_tape *tape)
{
    return (struct static_tape *)(void *)tape;
}

enum err
static_tape_new(struct encoder_tape **out, const struct encoder *encoder)
{
    struct static_tape *t = mem_calloc(1, sizeof *t);
    if (t == NULL)
        return ERR_NOMEM;
    t->base.family = encoder->family;
    bag_init(&t->bag);
    for (size_t i = 0; i < BAG_SHARDS; i++)
        bag_init(&t->shard_bags[i]);
    *out = &t->base;
    return OK;
}

static void
inverted_release(struct inverted *inv)
{
    mem_free(inv->start);
    mem_free(inv->item);
}

void
static_tape_free(struct encoder_tape *tape)
{
    struct static_tape *t = tape_of(tape);
    if (t == NULL)
        return;
    bag_release(&t->bag);
    for (size_t i = 0; i < BAG_SHARDS; i++)
        bag_release(&t->shard_bags[i]);
    mem_free(t->W);
    mem_free(t->dW);
    mem_free(t->y);
    mem_free(t->dy);
    mem_free(t->norm);
    mem_free(t->gains);
    mem_free(t->d_gain);
    mem_free(t->owner);
    mem_free(t->coef);
    mem_free(t->d_coef);
    mem_free(t->text);
    mem_free(t->bucket);
    inverted_release(&t->by_word);
    for (size_t p = 0; p < STATIC_PARTS; p++)
        inverted_release(&t->by_bucket[p]);
    mem_free(t);
}

/* Replace an array by a larger, uninitialised one. */
static bool
renew(void *array, size_t n, size_t size)
{
    void *p;
    memcpy(&p, array, sizeof p);
    mem_free(p);
    p = mem_alloc_aligned(n, size);
    memcpy(array, &p, sizeof p);
    return p != NULL;
}

static enum err
tape_reserve(struct static_tape *t, const struct static_encoder *e)
{
    const struct bag *b = &t->bag;
    size_t D = e->base.n_dims;
    if (b->n_words > t->cap_words) {
        size_t cap = b->n_words + b->n_words / 4;
        t->cap_words = 0;
        if (!renew(&t->W, cap * D, sizeof(float)) ||
            !renew(&t->dW, cap * D, sizeof(float)))
            return ERR_NOMEM;
        t->cap_words = cap;
    }
    if (b->n_texts > t->cap_texts) {
        t->cap_texts = 0;
        if (!renew(&t->y, b->n_texts * D, sizeof(float)) ||
            !renew(&t->dy, b->n_texts * D, sizeof(float)) ||
            !renew(&t->norm, b->n_texts, sizeof(float)))
            return ERR_NOMEM;
        t->cap_texts = b->n_texts;
    }
    if (b->n_entries > t->cap_entries) {
        size_t cap = b->n_entries + b->n_entries / 4;
        t->cap_entries = 0;
        if (!renew(&t->coef, cap, sizeof(float)) ||
            !renew(&t->d_coef, cap, sizeof(float)) ||
            !renew(&t->text, cap, sizeof(uint32_t)))
            return ERR_NOMEM;
        t->cap_entries = cap;
    }
    if (b->n_features > t->cap_features) {
        size_t cap = b->n_features + b->n_features / 4;
        t->cap_features = 0;
        if (!renew(&t->gains, cap, sizeof(float)) ||
            !renew(&t->d_gain, cap, sizeof(float)) ||
            !renew(&t->owner, cap, sizeof(uint32_t)) ||
            !renew(&t->bucket, cap * STATIC_PARTS, sizeof(uint32_t)))
            return ERR_NOMEM;
        t->cap_features = cap;
    }
    t->base.bytes =
        (2 * D * (t->cap_words + t->cap_texts) + t->cap_texts) * sizeof(float) +
        3 * t->cap_entries * sizeof(float) +
        (3 + STATIC_PARTS) * t->cap_features * sizeof(float);
    return OK;
}

/* Terms of one sum of rows, handed to the kernel a few at a time: it adds them
   in registers, so the output is read and written once for all of them. */
#define TERMS 64

struct terms {
    const float *rows;
    size_t stride;
    float *out;
    size_t n_dims;
    size_t n;
    uint32_t idx[TERMS];
    float weight[TERMS];
};

/* The arrays stay as they are: this is called once a row. */
static void
terms_start(struct terms *t, float *out, const float *rows, size_t stride,
    size_t n_dims)
{
    t->rows = rows;
    t->stride = stride;
    t->out = out;
    t->n_dims = n_dims;
    t->n = 0;
}

static void
terms_flush(struct terms *t)
{
    kern()->gather(
        t->out, t->rows, t->stride, t->idx, t->weight, t->n, t->n_dims);
    t->n = 0;
}

static void
terms_add(struct terms *t, uint32_t idx, float weight)
{
    if (t->n == TERMS)
        terms_flush(t);
    t->idx[t->n] = idx;
    t->weight[t->n++] = weight;
}

struct pass {
    const struct static_encoder *e;
    struct static_tape *t;
    const struct encoder_input *inputs;
    size_t n;
    const struct encoder_noise *noise;
    uint64_t noise_seed;
    float *out;
    const float *d_out;
    struct encoder_grads *grads;
    struct pool *pool;
    _Atomic int nomem;
};

/* ------------------------------------------------------------- forward */

static void
bag_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    const struct static_encoder *e = pass->e;
    struct bag *bag = &pass->t->shard_bags[shard_i];
    size_t first = pass->n * shard_i / BAG_SHARDS;
    size_t end = pass->n * (shard_i + 1) / BAG_SHARDS;
    struct rng rng;
    struct bag_options options = {.n_min = e->n_min,
        .n_max = e->n_max,
        .max_words = (uint32_t)e->base.max_tokens};

    (void)thread_i;
    bag_clear(bag);
    if (pass->noise != NULL && pass->noise->rng != NULL) {
        rng_seed_stream(&rng, pass->noise_seed, shard_i);
        options.rng = &rng;
        options.token_dropout = pass->noise->token_dropout;
    }
    for (size_t i = first; i < end; i++) {
        if (bag_add(bag, pass->inputs[i].text, pass->inputs[i].len, &options) !=
            OK)
            pass->nomem = 1;
    }
}

static void
word_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    const struct static_encoder *e = pass->e;
    struct static_tape *t = pass->t;
    const struct bag *bag = &t->bag;
    uint32_t idx[HASHED_FEATURES_MAX];
    float weight[HASHED_FEATURES_MAX];
    struct rng rng;
    struct rng *noise = NULL;
    float dropout = 0;
    size_t end = MIN(bag->n_words, (shard_i + 1) * WORDS_A_SHARD);

    (void)thread_i;
    if (pass->noise != NULL && pass->noise->rng != NULL) {
        rng_seed_stream(&rng, pass->noise_seed, 1000 + shard_i);
        noise = &rng;
        dropout = pass->noise->feature_dropout;
    }
    for (size_t u = shard_i * WORDS_A_SHARD; u < end; u++) {
        size_t at = bag->feature_start[u];
        size_t m = bag->feature_start[u + 1] - at;
        static_word_gains(
            e, bag->features + at, m, t->gains + at, noise, dropout);
        static_word_sum(e, bag->features + at, t->gains + at, m,
            t->W + u * e->base.n_dims, idx, weight);
        for (size_t i = at; i < at + m; i++) {
            t->owner[i] = (uint32_t)u;
            for (size_t p = 0; p < STATIC_PARTS; p++)
                t->bucket[p * bag->n_features + i] =
                    (uint32_t)bucket_of(e, bag->features[i], p);
        }
    }
}

static void
text_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    struct static_tape *t = pass->t;
    const struct bag *bag = &t->bag;
    size_t D = pass->e->base.n_dims;
    size_t end = MIN(bag->n_texts, (shard_i + 1) * TEXTS_A_SHARD);
    struct terms terms;

    (void)thread_i;
    for (size_t i = shard_i * TEXTS_A_SHARD; i < end; i++) {
        float *y = t->y + i * D;
        memset(y, 0, D * sizeof *y);
        terms_start(&terms, y, t->W, D, D);
        for (size_t j = bag->text_start[i]; j < bag->text_start[i + 1]; j++) {
            const struct bag_entry *entry = &bag->entries[j];
            t->coef[j] = entry_coef(pass->e, entry);
            t->text[j] = (uint32_t)i;
            terms_add(&terms, entry->word, t->coef[j]);
        }
        terms_flush(&terms);
        t->norm[i] = static_normalize(y, D);
        memcpy(pass->out + i * D, y, D * sizeof *y);
    }
}

static size_t
shards(size_t n, size_t per_shard)
{
    return (n + per_shard - 1) / per_shard;
}

enum err
static_forward(const struct encoder *encoder, struct encoder_tape *tape,
    const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool)
{
    struct static_tape *t = tape_of(tape);
    struct pass pass = {.e = self_of(encoder),
        .t = t,
        .inputs = inputs,
        .n = n,
        .noise = noise,
        .out = out};
    if (noise != NULL && noise->rng != NULL)
        pass.noise_seed = rng_u64(noise->rng);
    pool_run(pool, BAG_SHARDS, bag_worker, &pass);
    bag_clear(&t->bag);
    for (size_t i = 0; i < BAG_SHARDS && !pass.nomem; i++) {
        if (bag_merge(&t->bag, &t->shard_bags[i]) != OK)
            return ERR_NOMEM;
    }
    if (pass.nomem || tape_reserve(t, pass.e) != OK)
        return ERR_NOMEM;
    pool_run(pool, shards(t->bag.n_words, WORDS_A_SHARD), word_worker, &pass);
    pool_run(pool, shards(n, TEXTS_A_SHARD), text_worker, &pass);
    return OK;
}

/* ------------------------------------------------------------ backward */

/* Stable counting sort of n items by key[i] < n_keys. */
static enum err
invert(struct inverted *inv, size_t n_keys, size_t n, const uint32_t *key,
    size_t key_stride)
{
    if (n_keys + 2 > inv->cap_keys) {
        inv->cap_keys = 0;
        if (!renew(&inv->start, n_keys + n_keys / 4 + 2, sizeof(uint32_t)))
            return ERR_NOMEM;
        inv->cap_keys = n_keys + n_keys / 4 + 2;
    }
    if (n > inv->cap_items) {
        inv->cap_items = 0;
        if (!renew(&inv->item, n + n / 4, sizeof(uint32_t)))
            return ERR_NOMEM;
        inv->cap_items = n + n / 4;
    }
    memset(inv->start, 0, (n_keys + 2) * sizeof *inv->start);
    for (size_t i = 0; i < n; i++)
        inv->start[key[i * key_stride] + 2]++;
    for (size_t i = 2; i < n_keys + 2; i++)
        inv->start[i] += inv->start[i - 1];
    for (size_t i = 0; i < n; i++)
        inv->item[inv->start[key[i * key_stride] + 1]++] = (uint32_t)i;
    return OK;
}

/* forward: z = y / |y|  ->  dy = (dz - z (z . dz)) / |y|
   forward: y = sum coef_j W_j  ->  d rho_j = coef_j (dy . W_j) */
static void
d_text_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    struct static_tape *t = pass->t;
    const struct bag *bag = &t->bag;
    size_t D = pass->e->base.n_dims;
    size_t end = MIN(bag->n_texts, (shard_i + 1) * TEXTS_A_SHARD);

    (void)thread_i;
    for (size_t i = shard_i * TEXTS_A_SHARD; i < end; i++) {
        const float *z = t->y + i * D;
        const float *dz = pass->d_out + i * D;
        float *dy = t->dy + i * D;
        if (!(t->norm[i] > 0)) {
            memset(dy, 0, D * sizeof *dy);
        } else {
            float along = kern()->dot_f32(z, dz, D);
            memcpy(dy, dz, D * sizeof *dy);
            kern()->axpy(dy, -along, z, D);
            kern()->scale(dy, 1.0f / t->norm[i], D);
        }
        for (size_t j = bag->text_start[i]; j < bag->text_start[i + 1]; j++)
            t->d_coef[j] =
                t->coef[j] *
                kern()->dot_f32(dy, t->W + (size_t)bag->entries[j].word * D, D);
    }
}

/* forward: y += coef_j W  ->  dW = sum_j coef_j dy
   forward: W += e^(l_i) R_i  ->  d l_i = e^(l_i) (dW . R_i) */
static void
d_word_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    const struct static_encoder *e = pass->e;
    struct static_tape *t = pass->t;
    const struct bag *bag = &t->bag;
    size_t D = e->base.n_dims;
    size_t end = MIN(bag->n_words, (shard_i + 1) * WORDS_A_SHARD);
    struct terms terms;

    (void)thread_i;
    for (size_t u = shard_i * WORDS_A_SHARD; u < end; u++) {
        float *dW = t->dW + u * D;
        memset(dW, 0, D * sizeof *dW);
        terms_start(&terms, dW, t->dy, D, D);
        for (size_t k = t->by_word.start[u]; k < t->by_word.start[u + 1]; k++) {
            size_t j = t->by_word.item[k];
            terms_add(&terms, t->text[j], t->coef[j]);
        }
        terms_flush(&terms);
        size_t at = bag->feature_start[u];
        for (size_t i = at; i < bag->feature_start[u + 1]; i++) {
            float dot = 0;
            if (t->gains[i] > 0) {
                for (size_t p = 0; p < STATIC_PARTS; p++)
                    dot += kern()->dot_f32(dW + p * e->part_dims,
                        static_row(e, p, t->bucket[p * bag->n_features + i]),
                        e->part_dims);
            }
            t->d_gain[i] = t->gains[i] * dot;
        }
    }
}

/* forward: W += e^(l_i) R_i  ->  dR = sum over its uses e^(l_i) dW */
static void
d_row_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    const struct static_encoder *e = pass->e;
    struct static_tape *t = pass->t;
    size_t rows = STATIC_PARTS * e->n_buckets;
    size_t end = MIN(rows, (shard_i + 1) * ROWS_A_SHARD);
    struct terms terms;

    (void)thread_i;
    for (size_t r = shard_i * ROWS_A_SHARD; r < end; r++) {
        size_t p = r / e->n_buckets;
        size_t b = r % e->n_buckets;
        const struct inverted *inv = &t->by_bucket[p];
        if (inv->start[b] == inv->start[b + 1])
            continue;
        terms_start(&terms, pass->grads->d_params + r * e->part_dims,
            t->dW + p * e->part_dims, e->base.n_dims, e->part_dims);
        for (size_t k = inv->start[b]; k < inv->start[b + 1]; k++) {
            size_t i = inv->item[k];
            if (!(t->gains[i] > 0))
                continue;
            terms_add(&terms, t->owner[i], t->gains[i]);
            pass->grads->marks[r] = 1;
        }
        terms_flush(&terms);
    }
}

static void
invert_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct pass *pass = arg;
    struct static_tape *t = pass->t;
    size_t n = t->bag.n_features;
    (void)thread_i;
    if (invert(&t->by_bucket[shard_i], pass->e->n_buckets, n,
            t->bucket + shard_i * n, 1) != OK)
        pass->nomem = 1;
}

/* Marks: one a table row, one a line of theta, one for rho. */
size_t
static_n_marks(const struct encoder *encoder)
{
    const struct static_encoder *e = self_of(encoder);
    return STATIC_PARTS * e->n_buckets + e->n_weights / STATIC_LINE + 1;
}

size_t
static_n_segments_max(const struct encoder *encoder)
{
    return static_n_marks(encoder);
}

static void
list_segments(const struct static_encoder *e, struct encoder_grads *grads)
{
    size_t rows = STATIC_PARTS * e->n_buckets;
    size_t lines = e->n_weights / STATIC_LINE;
    size_t n = 0;
    for (size_t r = 0; r < rows; r++) {
        if (grads->marks[r])
            grads->segments[n++] = (struct encoder_segment){
                .start = r * e->part_dims, .n = e->part_dims, .lr_scale = 1};
    }
    for (size_t i = 0; i < lines; i++) {
        if (grads->marks[rows + i])
            grads->segments[n++] =
                (struct encoder_segment){.start = e->theta_at + i * STATIC_LINE,
                    .n = STATIC_LINE,
                    .lr_scale = STATIC_THETA_LR};
    }
    if (grads->marks[rows + lines])
        grads->segments[n++] = (struct encoder_segment){.start = e->rho_at,
            .n = STATIC_POSITIONS,
            .lr_scale = STATIC_RHO_LR};
    grads->n_segments = n;
}

enum err
static_backward(const struct encoder *encoder, struct encoder_tape *tape,
    const float *d_out, struct encoder_grads *grads, struct pool *pool)
{
    const struct static_encoder *e = self_of(encoder);
    struct static_tape *t = tape_of(tape);
    const struct bag *bag = &t->bag;
    struct pass pass = {.e = e, .t = t, .d_out = d_out, .grads = grads};
    size_t rows = STATIC_PARTS * e->n_buckets;

    if (bag->n_entries == 0) { /* texts without features move nothing */
        list_segments(e, grads);
        return OK;
    }
    if (invert(&t->by_word, bag->n_words, bag->n_entries, &bag->entries[0].word,
            sizeof *bag->entries / sizeof(uint32_t)) != OK)
        return ERR_NOMEM;
    pool_run(pool, STATIC_PARTS, invert_worker, &pass);
    if (pass.nomem)
        return ERR_NOMEM;
    pool_run(pool, shards(bag->n_texts, TEXTS_A_SHARD), d_text_worker, &pass);
    pool_run(pool, shards(bag->n_words, WORDS_A_SHARD), d_word_worker, &pass);
    pool_run(pool, shards(rows, ROWS_A_SHARD), d_row_worker, &pass);
    for (size_t i = 0; i < bag->n_features; i++) {
        size_t w = weight_of(e, bag->features[i]);
        grads->d_params[e->theta_at + w] += t->d_gain[i];
        grads->marks[rows + w / STATIC_LINE] = 1;
    }
    for (size_t j = 0; j < bag->n_entries; j++)
        grads
            ->d_params[e->rho_at + position_bucket(bag->entries[j].position)] +=
            t->d_coef[j];
    grads->marks[rows + e->n_weights / STATIC_LINE] = 1;
    list_segments(e, grads);
    return OK;
}

/* --------------------------------------------------------------- refit */

/* phi = power x ln idf (text/prior.h), features that share a weight counted
   together, once a text. */
enum err
static_refit(struct encoder *encoder, encoder_next_fn *next, void *arg)
{
    struct static_encoder *e = (struct static_encoder *)(void *)encoder;
    struct encoder_input text;
    struct bag bag;
    struct bag_options options = {.n_min = e->n_min,
        .n_max = e->n_max,
        .max_words = (uint32_t)e->base.max_tokens};
    uint32_t *df = mem_calloc(e->n_weights, sizeof *df);
    uint32_t *last = mem_calloc(e->n_weights, sizeof *last);
    uint32_t n = 0;
    enum err err = ERR_NOMEM;

    bag_init(&bag);
    if (df == NULL || last == NULL)
        goto out;
    while (next(arg, &text)) {
        /* a bag keeps its dictionary over many texts */
        if (bag.n_words > 65536 || bag.n_entries > 1u << 20)
            bag_clear(&bag);
        if (bag_add(&bag, text.text, text.len, &options) != OK)
            goto out;
        n++;
        size_t i = bag.n_texts - 1;
        for (size_t j = bag.text_start[i]; j < bag.text_start[i + 1]; j++) {
            size_t u = bag.entries[j].word;
            for (size_t f = bag.feature_start[u]; f < bag.feature_start[u + 1];
                 f++) {
                size_t w = weight_of(e, bag.features[f]);
                if (last[w] != n) {
                    last[w] = n;
                    df[w]++;
                }
            }
        }
    }
    for (size_t w = 0; n > 0 && w < e->n_weights; w++)
        e->base.params[e->phi_at + w] =
            STATIC_IDF_POWER * logf(prior_idf_of(df[w], n));
    err = OK;
out:
    bag_release(&bag);
    mem_free(df);
    mem_free(last);
    return err;
}
