/*
 * rng.h - seeded randomness, always passed in.
 *
 * xoshiro256** seeded through splitmix64 (Blackman & Vigna 2021,
 * doi:10.1145/3460772). The same seed gives the same sequence on every
 * machine.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *rng, uint64_t seed);

/* An independent stream: the same (seed, stream) gives the same sequence. */
void rng_seed_stream(struct rng *rng, uint64_t seed, uint64_t stream);

uint64_t rng_u64(struct rng *rng);

/* Uniform in [0, n), unbiased (Lemire 2019); n > 0. */
uint64_t rng_below(struct rng *rng, uint64_t n);

double rng_double(struct rng *rng); /* [0, 1), 53 bits */
float rng_float(struct rng *rng);   /* [0, 1), 24 bits */
double rng_normal(struct rng *rng); /* mean 0, variance 1 */

/* Fisher-Yates over n values. */
void rng_shuffle_u32(struct rng *rng, uint32_t *v, size_t n);

#endif
