#include "model/static_encoder.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kern/kern.h"
#include "text/hashed.h"
#include "text/prior.h"
#include "text/words.h"

#define ENCODE_SHARD 128   /* texts of one piece of work */
#define BAG_WORDS_MAX 8192 /* distinct words that encode holds at once */

void
static_word_gains(const struct static_encoder *e, const uint64_t *features,
    size_t n, float *gains, struct rng *rng, float dropout)
{
    gains[0] = expf(log_gain(e, features[0]));
    for (size_t i = 1; i < n; i++)
        gains[i] = STATIC_BETA * expf(log_gain(e, features[i]));
    if (rng == NULL || dropout <= 0)
        return;
    float scale = 1.0f / (1.0f - dropout);
    for (size_t i = 1; i < n; i++)
        gains[i] = rng_float(rng) < dropout ? 0 : gains[i] * scale;
}

void
static_word_sum(const struct static_encoder *e, const uint64_t *features,
    const float *gains, size_t n, float *W, uint32_t *idx, float *weight)
{
    const struct kern *k = kern();
    memset(W, 0, e->base.n_dims * sizeof *W);
    for (size_t p = 0; p < STATIC_PARTS; p++) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++) {
            if (gains[i] <= 0)
                continue;
            idx[kept] = (uint32_t)bucket_of(e, features[i], p);
            weight[kept++] = gains[i];
        }
        k->gather(W + p * e->part_dims,
            e->base.params + p * e->n_buckets * e->part_dims, e->part_dims, idx,
            weight, kept, e->part_dims);
    }
}

float
static_normalize(float *y, size_t n)
{
    double square = kern()->dot_f64(y, y, n);
    float norm = (float)sqrt(square);
    if (!(norm > 0))
        return 0;
    kern()->scale(y, 1.0f / norm, n);
    return norm;
}

/* ------------------------------------------------------------- encode */

struct encode_job {
    const struct static_encoder *e;
    const struct encoder_input *inputs;
    size_t n;
    float *out;
    struct encoder_info *info;
    _Atomic int nomem;
};

/* The vectors of the texts of one bag: out [n_texts, D], info [n_texts] or
   NULL. */
static enum err
encode_bag(const struct static_encoder *e, const struct bag *bag, float *out,
    struct encoder_info *info)
{
    size_t D = e->base.n_dims;
    size_t widest = 0;
    enum err err = ERR_NOMEM;

    for (size_t t = 0; t < bag->n_texts; t++)
        widest =
            MAX(widest, (size_t)(bag->text_start[t + 1] - bag->text_start[t]));
    for (size_t u = 0; u < bag->n_words; u++)
        widest = MAX(widest,
            (size_t)(bag->feature_start[u + 1] - bag->feature_start[u]));
    float *W = mem_alloc_aligned(bag->n_words * D + D, sizeof *W);
    uint32_t *idx = mem_alloc(widest + 1, sizeof *idx);
    float *weight = mem_alloc(2 * widest + 2, sizeof *weight);
    if (W == NULL || idx == NULL || weight == NULL)
        goto out;
    for (size_t u = 0; u < bag->n_words; u++) {
        const uint64_t *features = bag->features + bag->feature_start[u];
        size_t m = bag->feature_start[u + 1] - bag->feature_start[u];
        static_word_gains(e, features, m, weight + widest + 1, NULL, 0);
        static_word_sum(
            e, features, weight + widest + 1, m, W + u * D, idx, weight);
    }
    for (size_t t = 0; t < bag->n_texts; t++) {
        float *y = out + t * D;
        size_t start = bag->text_start[t];
        size_t m = bag->text_start[t + 1] - start;
        memset(y, 0, D * sizeof *y);
        for (size_t i = 0; i < m; i++) {
            idx[i] = bag->entries[start + i].word;
            weight[i] = entry_coef(e, &bag->entries[start + i]);
        }
        kern()->gather(y, W, D, idx, weight, m, D);
        float norm = static_normalize(y, D);
        if (info != NULL)
            info[t] = (struct encoder_info){.n_tokens = bag->text_words[t],
                .n_tokens_full = bag->text_words_full[t],
                .empty = !(norm > 0)};
    }
    err = OK;
out:
    mem_free(W);
    mem_free(idx);
    mem_free(weight);
    return err;
}

/* Texts share a bag until it holds BAG_WORDS_MAX words, so that memory stays
   within that and one text's own words. */
static enum err
encode_shard(const struct encode_job *job, size_t first, size_t n)
{
    const struct static_encoder *e = job->e;
    struct bag bag;
    struct bag_options options = {.n_min = e->n_min,
        .n_max = e->n_max,
        .max_words = (uint32_t)e->base.max_tokens};
    enum err err = OK;

    bag_init(&bag);
    for (size_t t = first; t < first + n && err == OK; t++) {
        const struct encoder_input *in = &job->inputs[t];
        err = bag_add(&bag, in->text, in->len, &options);
        if (err != OK || (bag.n_words < BAG_WORDS_MAX && t + 1 < first + n))
            continue;
        size_t at = t + 1 - bag.n_texts;
        err = encode_bag(e, &bag, job->out + at * e->base.n_dims,
            job->info == NULL ? NULL : job->info + at);
        bag_clear(&bag);
    }
    bag_release(&bag);
    return err;
}

static void
encode_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct encode_job *job = arg;
    size_t first = shard_i * ENCODE_SHARD;
    (void)thread_i;
    if (encode_shard(job, first, MIN(job->n - first, (size_t)ENCODE_SHARD)) !=
        OK)
        job->nomem = 1;
}

static enum err
static_encode(const struct encoder *encoder, const struct encoder_input *inputs,
    size_t n, float *out, struct encoder_info *info, struct pool *pool)
{
    struct encode_job job = {.e = self_of(encoder),
        .inputs = inputs,
        .n = n,
        .out = out,
        .info = info};
    pool_run(n > ENCODE_SHARD ? pool : NULL,
        (n + ENCODE_SHARD - 1) / ENCODE_SHARD, encode_worker, &job);
    return job.nomem ? ERR_NOMEM : OK;
}

struct token_job {
    encoder_token_fn *fn;
    void *arg;
};

static void
emit_token(void *arg, const char *word, size_t len, int spaceless)
{
    struct token_job *job = arg;
    (void)spaceless;
    job->fn(
        job->arg, word, len, (uint32_t)(hash_bytes(word, len, 0) & 0x7FFFFFFF));
}

static enum err
static_tokenize(const struct encoder *encoder, const char *text, size_t len,
    encoder_token_fn *fn, void *arg)
{
    struct token_job job = {.fn = fn, .arg = arg};
    (void)encoder;
    return words_split(text, len, emit_token, &job);
}

/* ---------------------------------------------------- making and naming */

static size_t
static_tensors(
    const struct encoder *encoder, struct encoder_tensor *out, size_t max)
{
    const struct static_encoder *e = self_of(encoder);
    const struct encoder_tensor tensors[] = {
        {"table.0", 0, {e->n_buckets, e->part_dims}},
        {"table.1", e->n_buckets * e->part_dims, {e->n_buckets, e->part_dims}},
        {"feature_weight", e->theta_at, {e->n_weights, 0}},
        {"position_weight", e->rho_at, {STATIC_POSITIONS, 0}},
        {"log_idf", e->phi_at, {e->n_weights, 0}}};
    _Static_assert(STATIC_PARTS == 2, "one tensor a part");
    if (out == NULL)
        return ARRAY_LEN(tensors);
    ASSERT(ARRAY_LEN(tensors) <= max);
    memcpy(out, tensors, sizeof tensors);
    return ARRAY_LEN(tensors);
}

/* phi from the built-in table (text/prior.h). Where the encoder has fewer
   weights than the table slots, a weight takes its most frequent slot. */
static void
fill_prior(struct static_encoder *e)
{
    float *phi = e->base.params + e->phi_at;
    size_t n_slots = prior_slots();

    for (size_t w = 0; w < e->n_weights; w++) {
        float idf = 1;
        for (size_t s = w & (n_slots - 1); s < n_slots; s += e->n_weights)
            idf = fminf(idf, prior_idf(s));
        phi[w] = STATIC_IDF_POWER * logf(idf);
    }
}

/* The untrained parameters: rows of random signs, no learned weight. */
static void
fill_untrained(struct static_encoder *e)
{
    struct rng rng;
    float *row = e->base.params;

    rng_seed(&rng, e->seed);
    for (size_t i = 0; i < e->theta_at; i += 64) {
        uint64_t bits = rng_u64(&rng);
        for (size_t j = 0; j < 64 && i + j < e->theta_at; j++)
            row[i + j] = (bits >> j) & 1 ? 1.0f : -1.0f;
    }
    memset(
        row + e->theta_at, 0, (e->base.n_params - e->theta_at) * sizeof *row);
    for (size_t b = 0; b < STATIC_POSITIONS; b++)
        row[e->rho_at + b] =
            b < STATIC_RHO_FLAT
                ? 0
                : STATIC_RHO_STEP * (float)(b + 1 - STATIC_RHO_FLAT);
    fill_prior(e);
}

struct settings {
    int64_t dims, buckets, n_min, n_max, max_words, seed;
};

static enum err
read_settings(
    struct settings *s, const struct json *config, struct fault *fault)
{
    static const char *const keys[] = {
        "dims", "buckets", "ngram_min", "ngram_max", "max_words", "seed"};
    *s = (struct settings){512, 65536, 3, 5, 8192, 1};
    enum err err = json_only_keys(config, "", keys, ARRAY_LEN(keys), fault);
    if (err == OK)
        err = json_get_i64(config, "", "dims", JSON_OPTIONAL, 32,
            ENCODER_DIMS_MAX, &s->dims, fault);
    if (err == OK && s->dims % 32 != 0)
        err = fault_set(fault, ERR_INVALID, "/dims",
            "dims is a multiple of 32, not %lld", (long long)s->dims);
    if (err == OK)
        err = json_get_i64(config, "", "buckets", JSON_OPTIONAL, 1024, 1 << 20,
            &s->buckets, fault);
    if (err == OK && (s->buckets & (s->buckets - 1)) != 0)
        err = fault_set(fault, ERR_INVALID, "/buckets",
            "buckets is a power of two, not %lld", (long long)s->buckets);
    if (err == OK)
        err = json_get_i64(config, "", "ngram_min", JSON_OPTIONAL, HASHED_N_MIN,
            HASHED_N_MAX, &s->n_min, fault);
    if (err == OK)
        err = json_get_i64(config, "", "ngram_max", JSON_OPTIONAL, 0,
            HASHED_N_MAX, &s->n_max, fault);
    if (err == OK)
        err = json_get_i64(config, "", "max_words", JSON_OPTIONAL, 1, 65536,
            &s->max_words, fault);
    if (err == OK)
        err = json_get_i64(
            config, "", "seed", JSON_OPTIONAL, 0, INT64_MAX, &s->seed, fault);
    return err;
}

static enum err
static_make(struct encoder **out, const struct json *config, bool fill,
    struct buf *canonical, struct fault *fault)
{
    struct settings s;
    enum err err = read_settings(&s, config, fault);
    if (err != OK)
        return err;
    struct static_encoder *e = mem_calloc(1, sizeof *e);
    if (e == NULL)
        return ERR_NOMEM;
    e->base.n_dims = (size_t)s.dims;
    e->base.max_tokens = (size_t)s.max_words;
    e->base.struct_bytes = sizeof *e;
    e->n_buckets = (size_t)s.buckets;
    e->part_dims = (size_t)s.dims / STATIC_PARTS;
    e->n_weights = 4 * e->n_buckets;
    e->n_min = (unsigned)s.n_min;
    e->n_max = (unsigned)s.n_max;
    e->seed = (uint64_t)s.seed;
    e->theta_at = e->n_buckets * e->base.n_dims;
    e->rho_at = e->theta_at + e->n_weights;
    e->phi_at = e->rho_at + STATIC_POSITIONS;
    e->base.n_params = e->phi_at + e->n_weights;
    e->base.params = mem_alloc_aligned(e->base.n_params, sizeof(float));
    if (e->base.params == NULL) {
        mem_free(e);
        return ERR_NOMEM;
    }
    if (fill)
        fill_untrained(e);
    buf_printf(canonical,
        "{\"buckets\":%lld,\"dims\":%lld,\"max_words\":%lld,"
        "\"ngram_max\":%lld,\"ngram_min\":%lld,\"seed\":%lld}",
        (long long)s.buckets, (long long)s.dims, (long long)s.max_words,
        (long long)s.n_max, (long long)s.n_min, (long long)s.seed);
    *out = &e->base;
    return OK;
}

const struct encoder_family static_encoder_family = {.name = "static",
    .make = static_make,
    .tensors = static_tensors,
    .encode = static_encode,
    .tokenize = static_tokenize,
    .tape_new = static_tape_new,
    .tape_free = static_tape_free,
    .forward = static_forward,
    .backward = static_backward,
    .n_marks = static_n_marks,
    .n_segments_max = static_n_segments_max,
    .refit = static_refit};
