#include "base/rng.h"

#include <math.h>

#include "base/check.h"
#include "base/hash.h"

__extension__ typedef unsigned __int128 u128;

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio */

static uint64_t
rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

/* splitmix64's next value: a Weyl sequence through the finaliser. */
static uint64_t
next_seed(uint64_t *x)
{
    *x += GOLDEN;
    return hash_u64(*x);
}

void
rng_seed(struct rng *rng, uint64_t seed)
{
    /* Four values of a bijection of distinct inputs: never all zero. */
    for (size_t i = 0; i < 4; i++) {
        rng->s[i] = next_seed(&seed);
    }
}

void
rng_seed_stream(struct rng *rng, uint64_t seed, uint64_t stream)
{
    /* Both go through the finaliser before they meet, so that neighbouring
       seeds and neighbouring streams do not share splitmix sequences. */
    rng_seed(rng, hash_u64(hash_u64(seed + GOLDEN) ^ rotl(stream, 32)));
}

uint64_t
rng_u64(struct rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t
rng_below(struct rng *rng, uint64_t n)
{
    u128 m;
    uint64_t low;

    ASSERT(n > 0);
    m = (u128)rng_u64(rng) * n;
    low = (uint64_t)m;
    if (low < n) {
        /* The first 2^64 mod n values of the low half are over-full. */
        uint64_t threshold = (0 - n) % n;
        while (low < threshold) {
            m = (u128)rng_u64(rng) * n;
            low = (uint64_t)m;
        }
    }
    return (uint64_t)(m >> 64);
}

double
rng_double(struct rng *rng)
{
    return (double)(rng_u64(rng) >> 11) * 0x1p-53;
}

float
rng_float(struct rng *rng)
{
    return (float)(rng_u64(rng) >> 40) * 0x1p-24F;
}

/*
 * Natural logarithm of x in (0, 1), from +, * and / only: libm's may differ in
 * the last bit between machines (it picks a variant with fused multiply-add at
 * run time), and the sequence must not.
 *
 * x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh(t) with
 * t = (m - 1) / (m + 1), |t| < 0.172, by its series up to t^21: the first term
 * left out is under 2e-19.
 */
static double
portable_log(double x)
{
    int e;
    double m = frexp(x, &e);

    if (m < 0.70710678118654752440) {
        m *= 2.0;
        e--;
    }
    double t = (m - 1.0) / (m + 1.0);
    double t2 = t * t;
    double sum = 0.0;
    for (int k = 21; k >= 1; k -= 2) {
        sum = sum * t2 + 1.0 / k;
    }
    return 2.0 * t * sum + (double)e * 0.69314718055994530942;
}

double
rng_normal(struct rng *rng)
{
    /* Marsaglia's polar method; the second value is thrown away, so that the
       state is the four words and nothing more. */
    for (;;) {
        double u = 2.0 * rng_double(rng) - 1.0;
        double v = 2.0 * rng_double(rng) - 1.0;
        double s = u * u + v * v;
        if (s > 0.0 && s < 1.0) {
            return u * sqrt(-2.0 * portable_log(s) / s);
        }
    }
}

void
rng_shuffle_u32(struct rng *rng, uint32_t *v, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)rng_below(rng, i);
        uint32_t t = v[i - 1];
        v[i - 1] = v[j];
        v[j] = t;
    }
}
