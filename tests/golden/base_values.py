#!/usr/bin/env python3
"""The fixed values of tests/unit/test_base_hash.c and test_base_rng.c.

An implementation apart from the C one: hash_bytes by the text at the head of
src/base/hash.c, xoshiro256** and splitmix64 by their papers. Prints C.
"""

M = (1 << 64) - 1
K0, K1, K2, K3 = (0x6A09E667F3BCC909, 0xBB67AE8584CAA73B,
                  0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1)
GOLDEN = 0x9E3779B97F4A7C15


def le(b, i, k):
    return int.from_bytes(b[i:i + k], "little")


def fold(a, b):
    p = a * b
    return (p & M) ^ (p >> 64)


def hash_bytes(b, seed):
    n, s, i = len(b), seed ^ K0, 0
    if n > 16:
        while n - i > 16:
            s = fold(le(b, i, 8) ^ K1, le(b, i + 8, 8) ^ s)
            i += 16
        x, y = le(b, n - 16, 8), le(b, n - 8, 8)
    elif n >= 8:
        x, y = le(b, 0, 8), le(b, n - 8, 8)
    elif n >= 4:
        x, y = le(b, 0, 4), le(b, n - 4, 4)
    elif n > 0:
        x, y = b[0] << 16 | b[n // 2] << 8 | b[n - 1], 0
    else:
        x = y = 0
    p = (x ^ K1) * (y ^ s)
    return fold((p & M) ^ K2 ^ n, (p >> 64) ^ K3)


def hash_u64(v):
    v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9 & M
    v = (v ^ v >> 27) * 0x94D049BB133111EB & M
    return v ^ v >> 31


def rotl(x, k):
    return (x << k | x >> 64 - k) & M


class Rng:
    def __init__(self, seed):
        self.s = []
        for _ in range(4):
            seed = seed + GOLDEN & M
            self.s.append(hash_u64(seed))

    def next(self):
        s = self.s
        r = rotl(s[1] * 5 & M, 7) * 9 & M
        t = s[1] << 17 & M
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)
        return r


def stream(seed, number):
    return Rng(hash_u64(hash_u64(seed + GOLDEN & M) ^ rotl(number, 32)))


text = bytes(range(1, 101))
for n in (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 49, 64,
          100):
    print("    {%d, UINT64_C(0x%016x), UINT64_C(0x%016x)}," %
          (n, hash_bytes(text[:n], 0), hash_bytes(text[:n], 42)))
for v in (0, 1, 2, M):
    print("hash_u64(0x%x) = 0x%016x" % (v, hash_u64(v)))
for name, r in (("seed 0", Rng(0)), ("seed 42", Rng(42)),
                ("stream 42, 0", stream(42, 0)),
                ("stream 42, 1", stream(42, 1))):
    print(name, ", ".join("UINT64_C(0x%016x)" % r.next() for _ in range(4)))
