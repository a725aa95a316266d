#include "base/hash.h"

#include <string.h>

#include <nettle/sha2.h>

#include "base/check.h"

__extension__ typedef unsigned __int128 u128;

/*
 * hash_bytes, which shall never change. With le(i, k) the k bytes at i as a
 * little-endian number, n the length, and
 *   fold(a, b) = low 64 bits of a b  xor  high 64 bits of a b,
 *
 *   s = seed xor K0
 *   n > 16: s = fold(le(i, 8) xor K1, le(i + 8, 8) xor s) for i = 0, 16, ...
 *           while more than 16 bytes are left; then a = the last 16 bytes'
 *           first 8, b = their last 8 (they may overlap what was read)
 *   8..16:  a = le(0, 8), b = le(n - 8, 8)
 *   4..7:   a = le(0, 4), b = le(n - 4, 4)
 *   1..3:   a = first, middle and last byte, b = 0
 *   0:      a = b = 0
 *   p = (a xor K1) (b xor s), 128 bits
 *   result = fold(low(p) xor K2 xor n, high(p) xor K3)
 *
 * The second fold hides a factor of zero in the first, which an input can
 * reach only by knowing the seed. Constants: fractions of the square roots of
 * 2, 3, 5 and 7, made odd.
 */
#define K0 UINT64_C(0x6a09e667f3bcc909)
#define K1 UINT64_C(0xbb67ae8584caa73b)
#define K2 UINT64_C(0x3c6ef372fe94f82b)
#define K3 UINT64_C(0xa54ff53a5f1d36f1)

static inline uint64_t
load8(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline uint64_t
load4(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v;
}

static inline uint64_t
fold(uint64_t a, uint64_t b)
{
    u128 m = (u128)a * b;

    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t
hash_bytes(const void *bytes, size_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t s = seed ^ K0;
    uint64_t a = 0;
    uint64_t b = 0;

    if (n >= 8) {
        const unsigned char *end = p + n;
        if (n > 16) {
            do {
                s = fold(load8(p) ^ K1, load8(p + 8) ^ s);
                p += 16;
            } while (end - p > 16);
            p = end - 16;
        }
        a = load8(p);
        b = load8(end - 8);
    } else if (n >= 4) {
        a = load4(p);
        b = load4(p + n - 4);
    } else if (n > 0) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[n >> 1] << 8 | p[n - 1];
    }
    u128 m = (u128)(a ^ K1) * (b ^ s);
    return fold((uint64_t)m ^ K2 ^ n, (uint64_t)(m >> 64) ^ K3);
}

uint64_t
hash_u64(uint64_t v)
{
    v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
    return v ^ (v >> 31);
}

/* The header holds nettle's context as bytes, so that nobody else needs
   nettle's headers. */
_Static_assert(sizeof(struct sha256_ctx) <= sizeof(struct sha256),
    "struct sha256 is too small for nettle's context");

static struct sha256_ctx *
context(struct sha256 *ctx)
{
    return (struct sha256_ctx *)(void *)ctx->state;
}

void
sha256_start(struct sha256 *ctx)
{
    sha256_init(context(ctx));
}

void
sha256_add(struct sha256 *ctx, const void *p, size_t n)
{
    if (n > 0) {
        sha256_update(context(ctx), n, p);
    }
}

void
sha256_finish(struct sha256 *ctx, uint8_t out[SHA256_BYTES])
{
    sha256_digest(context(ctx), SHA256_BYTES, out);
}

void
sha256_of(const void *p, size_t n, uint8_t out[SHA256_BYTES])
{
    struct sha256 ctx;

    sha256_start(&ctx);
    sha256_add(&ctx, p, n);
    sha256_finish(&ctx, out);
}

void
sha256_hex(const uint8_t digest[SHA256_BYTES], char out[SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < SHA256_BYTES; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[SHA256_HEX - 1] = '\0';
}
