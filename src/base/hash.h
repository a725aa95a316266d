/*
 * hash.h - a fast 64-bit hash for tables and features, and SHA-256.
 *
 * hash_bytes is fixed for ever: feature hashing, pair splits and the built-in
 * document frequencies depend on its values (a test pins them). It reads 8
 * bytes at a time and mixes by a 64 x 64 -> 128 bit multiplication.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define SHA256_HEX 65 /* with the NUL */

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);
uint64_t hash_u64(uint64_t v); /* a bijective finaliser (splitmix64) */

struct sha256 {
    _Alignas(16) unsigned char state[128]; /* nettle's context */
};
void sha256_start(struct sha256 *ctx);
void sha256_add(struct sha256 *ctx, const void *p, size_t n);
void sha256_finish(struct sha256 *ctx, uint8_t out[SHA256_BYTES]);
void sha256_of(const void *p, size_t n, uint8_t out[SHA256_BYTES]);
void sha256_hex(const uint8_t digest[SHA256_BYTES], char out[SHA256_HEX]);

#endif
