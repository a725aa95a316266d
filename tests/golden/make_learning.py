#!/usr/bin/env python3
"""Write tests/golden/learning.h: what the learning code must compute.

An implementation apart from the C one, in plain Python doubles, by the texts
of the headers: hash_bytes by the head of src/base/hash.c, the static encoder
by src/model/static_encoder.h, InfoNCE by src/nn/infonce.h, AdamW by algorithm
2 of arXiv:1711.05101. Inputs are rounded to float first, so that both sides
start from the same numbers.

    python3 tests/golden/make_learning.py >tests/golden/learning.h
"""
import math
import struct
import sys

M64 = (1 << 64) - 1


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


# ---------------------------------------------------------------- base

K = (0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B,
     0xA54FF53A5F1D36F1)
GOLDEN = 0x9E3779B97F4A7C15


def le(b):
    return int.from_bytes(b, "little")


def fold(a, b):
    product = a * b
    return (product & M64) ^ (product >> 64)


def hash_bytes(b, seed):
    n, s = len(b), seed ^ K[0]
    if n > 16:
        at = 0
        while n - at > 16:
            s = fold(le(b[at:at + 8]) ^ K[1], le(b[at + 8:at + 16]) ^ s)
            at += 16
        x, y = le(b[-16:-8]), le(b[-8:])
    elif n >= 8:
        x, y = le(b[:8]), le(b[-8:])
    elif n >= 4:
        x, y = le(b[:4]), le(b[-4:])
    elif n > 0:
        x, y = b[0] << 16 | b[n // 2] << 8 | b[-1], 0
    else:
        x, y = 0, 0
    product = (x ^ K[1]) * (y ^ s)
    return fold((product & M64) ^ K[2] ^ n, (product >> 64) ^ K[3])


def finalise(v):
    v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9 & M64
    v = (v ^ v >> 27) * 0x94D049BB133111EB & M64
    return v ^ v >> 31


def rotl(x, k):
    return (x << k | x >> (64 - k)) & M64


def xoshiro(seed):
    s = []
    for _ in range(4):
        seed = (seed + GOLDEN) & M64
        s.append(finalise(seed))
    while True:
        yield rotl(s[1] * 5 & M64, 7) * 9 & M64
        t = s[1] << 17 & M64
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)


# ------------------------------------------------------ static encoder

DIMS, BUCKETS, N_MIN, N_MAX, SEED, PARTS = 32, 1024, 3, 4, 7, 2
WEIGHTS = 4 * BUCKETS
POSITIONS = 16
ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
TEXTS = (
    "A fox is a fox, and no other thing is a fox.",
    "Kindred spirits: 42 of them",
    "one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty one more",
)


def words_of(text):
    out, word = [], ""
    for c in text.lower() + " ":
        if c.isalnum():
            word += c
        elif word:
            out.append(word)
            word = ""
    return out


def features_of(word):
    b = word.encode()
    yield hash_bytes(b, 0x6B696E64), 1
    marked = b"<" + b + b">"
    for n in range(N_MIN, min(N_MAX, len(marked) - 1) + 1):
        for i in range(len(marked) - n + 1):
            yield hash_bytes(marked[i:i + n], 0x72656400), 1


def position_bucket(p):
    # two buckets an octave: 0 1 2 3 4-5 6-7 8-11 12-15 16-23 24-31 ...
    starts = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192]
    return max(b for b, start in enumerate(starts) if start <= p)


def encoder():
    rng = xoshiro(SEED)
    table = []
    while len(table) < BUCKETS * DIMS:
        bits = next(rng)
        table += [1.0 if bits >> j & 1 else -1.0 for j in range(64)]
    phi = [f32(-(w % 7) / 10) for w in range(WEIGHTS)]
    theta = [f32((w % 13 - 6) / 20) for w in range(WEIGHTS)]
    rho = [f32(-b / 10) for b in range(POSITIONS)]
    # what is learned or refitted is set by the test to the same formulas
    return table, phi, theta, rho


def encode(text, model):
    table, phi, theta, rho = model
    part = DIMS // PARTS
    y = [0.0] * DIMS
    words = words_of(text)
    for word in dict.fromkeys(words):
        W = [0.0] * DIMS
        for feature, beta in features_of(word):
            w = feature >> 24 & WEIGHTS - 1
            gain = beta * math.exp(phi[w] + theta[w])
            for p in range(PARTS):
                bucket = ((feature * ODD[p] & M64) >> 32) & BUCKETS - 1
                row = (p * BUCKETS + bucket) * part
                for d in range(part):
                    W[p * part + d] += gain * table[row + d]
        first = words.index(word)
        coef = ((1 + math.log(words.count(word))) *
                math.exp(rho[position_bucket(first)]))
        y = [a + coef * b for a, b in zip(y, W)]
    norm = math.sqrt(sum(v * v for v in y))
    return [v / norm for v in y]


# ------------------------------------------------------------- infonce

B, M, D = 4, 6, 5
MASK = ((0, 4), (1, 3), (3, 0))
TAU = f32(0.07)


def unit_rows(rng, n):
    rows = []
    for _ in range(n):
        v = [next(rng) / 2**64 - 0.5 for _ in range(D)]
        norm = math.sqrt(sum(x * x for x in v))
        rows.append([f32(x / norm) for x in v])
    return rows


def infonce(q, k, weight, log_scale, symmetric):
    """The loss alone, from the formula."""
    scale = math.exp(log_scale)
    c = 0.5 if symmetric else 0.0
    s = [[scale * sum(a * b for a, b in zip(x, y)) for y in k] for x in q]
    loss = 0.0
    for i in range(B):
        row = sum(math.exp(s[i][j]) for j in range(M) if (i, j) not in MASK)
        col = sum(math.exp(s[j][i]) for j in range(B) if (j, i) not in MASK)
        loss += weight[i] * ((1 - c) * (math.log(row) - s[i][i]) +
                             c * (math.log(col) - s[i][i]))
    return loss / sum(weight)


def derivative(f, x):
    """By Richardson's extrapolation of central differences: about 1e-10."""
    def central(h):
        return (f(x + h) - f(x - h)) / (2 * h)
    h = 1e-3
    a, b, c = central(h), central(h / 2), central(h / 4)
    ab, bc = (4 * b - a) / 3, (4 * c - b) / 3
    return (16 * bc - ab) / 15


def infonce_gradient(q, k, weight, symmetric):
    log_scale = -math.log(TAU)

    def at(rows, i, d):
        def f(x):
            old, rows[i][d] = rows[i][d], x
            loss = infonce(q, k, weight, log_scale, symmetric)
            rows[i][d] = old
            return loss
        return derivative(f, rows[i][d])
    dq = [[at(q, i, d) for d in range(D)] for i in range(B)]
    dk = [[at(k, i, d) for d in range(D)] for i in range(M)]
    d_log_scale = derivative(
        lambda x: infonce(q, k, weight, x, symmetric), log_scale)
    return dq, dk, d_log_scale


# --------------------------------------------------------------- AdamW

N_PARAMS, N_STEPS = 21, 3
BETA1, BETA2, EPS = f32(0.9), f32(0.999), f32(1e-8)
DECAY, LR = f32(0.01), f32(0.03)


def adamw(params, grads):
    m, v = [0.0] * N_PARAMS, [0.0] * N_PARAMS
    p = list(params)
    for t, g in enumerate(grads, 1):
        for i in range(N_PARAMS):
            m[i] = BETA1 * m[i] + (1 - BETA1) * g[i]
            v[i] = BETA2 * v[i] + (1 - BETA2) * g[i] ** 2
            mean = m[i] / (1 - BETA1 ** t)
            spread = math.sqrt(v[i] / (1 - BETA2 ** t))
            p[i] -= LR * (mean / (spread + EPS) + DECAY * p[i])
    return p


# -------------------------------------------------------------- output

def put(kind, name, values):
    values = ["%.17g" % v for v in values]
    values = [v if "." in v or "e" in v else v + ".0" for v in values]
    if kind == "float":
        values = [v + "f" for v in values]
    print("static const %s %s[%d] = {" % (kind, name, len(values)))
    for i in range(0, len(values), 2):
        print("    %s," % ", ".join(values[i:i + 2]))
    print("};")


def flat(rows):
    return [v for row in rows for v in row]


def main():
    print("/* Made by make_learning.py: change that, not this. */")
    print("#ifndef GOLDEN_LEARNING_H\n#define GOLDEN_LEARNING_H\n")
    print("#define GOLDEN_CONFIG \\")
    print('    "{\\"dims\\":%d,\\"buckets\\":%d,\\"ngram_min\\":%d," \\'
          % (DIMS, BUCKETS, N_MIN))
    print('    "\\"ngram_max\\":%d,\\"seed\\":%d}"' % (N_MAX, SEED))
    print("#define GOLDEN_DIMS %d\n#define GOLDEN_TEXTS %d"
          % (DIMS, len(TEXTS)))
    print("static const char *const golden_text[GOLDEN_TEXTS] = {")
    for text in TEXTS:
        print('    "%s",' % text)
    print("};")
    model = encoder()
    put("double", "golden_vector", flat(encode(t, model) for t in TEXTS))

    rng = xoshiro(11)
    q, k = unit_rows(rng, B), unit_rows(rng, M)
    weight = [1.0, 0.5, 2.0, 0.25]
    print("\n#define GOLDEN_B %d\n#define GOLDEN_M %d\n#define GOLDEN_D %d"
          % (B, M, D))
    print("#define GOLDEN_TAU %.9gf" % TAU)
    print("#define GOLDEN_MASKS %d" % len(MASK))
    print("static const unsigned golden_mask[GOLDEN_MASKS][2] = {%s};"
          % ", ".join("{%d, %d}" % m for m in MASK))
    put("float", "golden_q", flat(q))
    put("float", "golden_k", flat(k))
    put("float", "golden_weight", weight)
    for symmetric in (False, True):
        dq, dk, d_log_scale = infonce_gradient(q, k, weight, symmetric)
        loss = infonce(q, k, weight, -math.log(TAU), symmetric)
        tail = "_both" if symmetric else "_one"
        put("double", "golden_loss" + tail, [loss, d_log_scale])
        put("double", "golden_dq" + tail, flat(dq))
        put("double", "golden_dk" + tail, flat(dk))

    params = [f32(next(rng) / 2**63 - 1) for _ in range(N_PARAMS)]
    grads = [[f32((next(rng) / 2**63 - 1) * 10.0 ** (i % 5 - 3))
              for i in range(N_PARAMS)] for _ in range(N_STEPS)]
    print("\n#define GOLDEN_PARAMS %d\n#define GOLDEN_STEPS %d"
          % (N_PARAMS, N_STEPS))
    put("float", "golden_params", params)
    put("float", "golden_grads", flat(grads))
    put("double", "golden_first", adamw(params, grads[:1]))
    put("double", "golden_last", adamw(params, grads))
    print("\n#endif")


if __name__ == "__main__":
    sys.exit(main())
