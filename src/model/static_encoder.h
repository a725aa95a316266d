/*
 * static_encoder.h - the default encoder: hashed words and n-grams.
 *
 * A word u has features f: the word itself and its character n-grams
 * (text/hashed.h). A feature's vector is cut into P parts; part p is a row of
 * table p at the bucket that an independent hash gives, so that two features
 * meet in all parts only with probability buckets^-P (the idea of hash
 * embeddings: Svenstrup et al. 2017, arXiv:1709.03933, sec. 2, with parts
 * concatenated where they add weighted rows). A feature's gain is learned:
 *
 *   l_f  = phi_f + theta_f       phi: log idf, refitted from a corpus
 *                                theta: learned, starts at 0
 *   W(u) = e^(l_u) R_u + beta sum_n e^(l_n) R_n    over its n-grams n
 *   y    = sum_u s(c_u) e^(rho_b(u)) W(u),   z = y / |y|
 *
 * with s(c) = 1 + ln c for a word that occurs c times (sublinear frequency)
 * and a learned weight rho for the position of its first occurrence, by
 * bucket b. Untrained rows are random signs: cosine then estimates the
 * weighted overlap of features with standard deviation about D^-1/2.
 *
 * Parameters, one block: P tables [buckets, D/P]; theta [n_weights]; rho
 * [STATIC_POSITIONS]; phi [n_weights].
 */
#ifndef MODEL_STATIC_ENCODER_H
#define MODEL_STATIC_ENCODER_H

#include <math.h>

#include "model/bag.h"
#include "model/family.h"
#include "text/prior.h"

#define STATIC_POSITIONS 16
#define STATIC_PARTS 2
#define STATIC_BETA 1.0f      /* share of the n-grams against the word */
#define STATIC_IDF_POWER 0.7f /* phi = power * ln idf */
#define STATIC_THETA_LR 1.0f  /* learning rates relative to the rows' */
#define STATIC_RHO_LR 0.5f
/* rho starts at 0 for the first 16 words, then falls by this a bucket */
#define STATIC_RHO_FLAT 8
#define STATIC_RHO_STEP (-0.1f)
#define STATIC_LINE 16 /* floats of theta that share a mark and a segment */

struct static_encoder {
    struct encoder base;
    size_t n_buckets; /* power of two */
    size_t part_dims; /* D / P */
    size_t n_weights; /* power of two */
    unsigned n_min, n_max;
    uint64_t seed;
    size_t theta_at, rho_at, phi_at; /* into params */
};

static inline const struct static_encoder *
self_of(const struct encoder *encoder)
{
    return (const struct static_encoder *)(const void *)encoder;
}

static inline size_t
bucket_of(const struct static_encoder *e, uint64_t feature, size_t part)
{
    static const uint64_t odd[STATIC_PARTS] = {
        0x9E3779B97F4A7C15ull, 0xC2B2AE3D27D4EB4Full};
    return (size_t)((feature * odd[part]) >> 32) & (e->n_buckets - 1);
}

static inline const float *
static_row(const struct static_encoder *e, size_t part, size_t bucket)
{
    return e->base.params + (part * e->n_buckets + bucket) * e->part_dims;
}

static inline size_t
weight_of(const struct static_encoder *e, uint64_t feature)
{
    return (size_t)prior_slot_bits(feature) & (e->n_weights - 1);
}

static inline size_t
position_bucket(uint32_t position)
{
    /* two buckets an octave: 0 1 2 3 4-5 6-7 8-11 12-15 16-23 ... */
    if (position < 4)
        return position;
    size_t log2 = BIT_HIGHEST32(position);
    size_t half = (position >> (log2 - 1)) & 1;
    return MIN(2 * log2 + half, (size_t)STATIC_POSITIONS - 1);
}

static inline float
log_gain(const struct static_encoder *e, uint64_t feature)
{
    size_t w = weight_of(e, feature);
    return e->base.params[e->theta_at + w] + e->base.params[e->phi_at + w];
}

static inline float
entry_coef(const struct static_encoder *e, const struct bag_entry *entry)
{
    float tf = entry->count == 1 ? 1.0f : 1.0f + logf((float)entry->count);
    return tf *
           expf(e->base.params[e->rho_at + position_bucket(entry->position)]);
}

/* Gains of one word's n features; with rng an n-gram is left out (gain 0) with
   probability dropout and the others grow by 1 / (1 - dropout). */
void static_word_gains(const struct static_encoder *e, const uint64_t *features,
    size_t n, float *gains, struct rng *rng, float dropout);

/* W [D] = sum over features of gain x row; idx and weight: [n] scratch. */
void static_word_sum(const struct static_encoder *e, const uint64_t *features,
    const float *gains, size_t n, float *W, uint32_t *idx, float *weight);

/* y = y / |y|, a zero y stays zero; returns |y|. */
float static_normalize(float *y, size_t n);

/* static_train.c */
enum err static_tape_new(
    struct encoder_tape **out, const struct encoder *encoder) NODISCARD;
void static_tape_free(struct encoder_tape *tape);
enum err static_forward(const struct encoder *encoder,
    struct encoder_tape *tape, const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool) NODISCARD;
enum err static_backward(const struct encoder *encoder,
    struct encoder_tape *tape, const float *d_out, struct encoder_grads *grads,
    struct pool *pool) NODISCARD;
size_t static_n_marks(const struct encoder *encoder);
size_t static_n_segments_max(const struct encoder *encoder);
enum err static_refit(
    struct encoder *encoder, encoder_next_fn *next, void *arg) NODISCARD;

#endif
