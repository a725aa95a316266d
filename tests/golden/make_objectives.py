#!/usr/bin/env python3
"""Write tests/golden/objectives.h: what src/nn/infonce.c must compute.

An implementation apart from the C one, in plain Python doubles: each objective
by its paper's own formula, in the paper's own arrangement, over two views u, v
of n samples (or queries, keys and a queue); gradients by Richardson's
extrapolation of central differences. Inputs are rounded to float first, so that
both sides start from the same numbers.

    python3 tests/golden/make_objectives.py >tests/golden/objectives.h
"""
import math
import random
import struct

N, K, D = 5, 6, 4
LABELS = (3, 1, 3, 0, 1)          # of the samples; 0: none
QUEUE_LABELS = (1, 2, 3, 0, 3, 1)
PAIR_MASK = ((0, 3), (2, 4))      # samples that are no negatives of each other
QUEUE_MASK = ((0, 1), (3, 0), (3, 5))


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


TAU = f32(0.2)
exp, log = math.exp, math.log


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def mean(values, weights):
    return sum(w * v for w, v in zip(weights, values)) / sum(weights)


def apart(i, j):
    return (min(i, j), max(i, j)) not in PAIR_MASK


# ------------------------------------------------------------ the papers

def nt_xent(x, s, weight):
    """SimCLR, eq. 1, over both orders of each pair."""
    z = x[:2 * N]

    def l(i, j):
        below = sum(exp(s * dot(z[i], z[k])) for k in range(2 * N)
                    if k != i and apart(i % N, k % N))
        return -log(exp(s * dot(z[i], z[j])) / below)
    return mean([(l(i, i + N) + l(i + N, i)) / 2 for i in range(N)], weight)


def four_way(x, s, weight):
    """GTE: query to document, query to query, document to query, document to
    document in one denominator."""
    q, d = x[:N], x[N:2 * N]
    values = []
    for i in range(N):
        others = [j for j in range(N) if j != i and apart(i, j)]
        Z = sum(exp(s * dot(q[i], d[j])) for j in others + [i])
        Z += sum(exp(s * dot(q[i], q[j])) for j in others)
        Z += sum(exp(s * dot(q[j], d[i])) for j in others + [i])
        Z += sum(exp(s * dot(d[j], d[i])) for j in others)
        values.append(-log(exp(s * dot(q[i], d[i])) / Z))
    return mean(values, weight)


def dcl(x, s, weight):
    """Decoupled: -s + log of the sum over both views of the other samples."""
    views = (x[:N], x[N:2 * N])

    def l(i, a):
        z = views[a][i]
        below = sum(exp(s * dot(z, views[b][j])) for b in range(2)
                    for j in range(N) if j != i and apart(i, j))
        return -s * dot(z, views[1 - a][i]) + log(below)
    return mean([(l(i, 0) + l(i, 1)) / 2 for i in range(N)], weight)


def supcon(x, s, weight):
    """SupCon, eq. 2 (L_out), over 2 n views."""
    z = x[:2 * N]

    def alike(i, p):
        same = LABELS[i % N] != 0 and LABELS[i % N] == LABELS[p % N]
        return i % N == p % N or same

    def l(i):
        A = [a for a in range(2 * N) if a != i and apart(i % N, a % N)]
        P = [p for p in A if alike(i, p)]
        Z = sum(exp(s * dot(z[i], z[a])) for a in A)
        return -sum(log(exp(s * dot(z[i], z[p])) / Z) for p in P) / len(P)
    return mean([(l(i) + l(i + N)) / 2 for i in range(N)], weight)


def moco(x, s, weight):
    """MoCo, alg. 1: cross entropy of [q . k, q . queue] with label 0."""
    q, k, queue = x[:N], x[N:2 * N], x[2 * N:]
    values = []
    for i in range(N):
        logits = [s * dot(q[i], k[i])]
        logits += [s * dot(q[i], queue[j]) for j in range(K)
                   if (i, j) not in QUEUE_MASK]
        values.append(log(sum(map(exp, logits))) - logits[0])
    return mean(values, weight)


def moco_labels(x, s, weight):
    """The same with the queue's keys of the query's label as positives."""
    q, k, queue = x[:N], x[N:2 * N], x[2 * N:]
    values = []
    for i in range(N):
        keys = [(k[i], True)]
        keys += [(queue[j], LABELS[i] != 0 and LABELS[i] == QUEUE_LABELS[j])
                 for j in range(K) if (i, j) not in QUEUE_MASK]
        Z = sum(exp(s * dot(q[i], key)) for key, _ in keys)
        P = [key for key, yes in keys if yes]
        values.append(-sum(log(exp(s * dot(q[i], p)) / Z) for p in P) / len(P))
    return mean(values, weight)


def pairs(x, s, weight):
    """InfoNCE of q against k and the queue."""
    q, keys = x[:N], x[N:]
    values = []
    for i in range(N):
        Z = sum(exp(s * dot(q[i], k)) for k in keys)
        values.append(-log(exp(s * dot(q[i], keys[i])) / Z))
    return mean(values, weight)


def clip(x, s, weight):
    """Both directions of a square of logits."""
    q, k = x[:N], x[N:2 * N]
    values = []
    for i in range(N):
        own = exp(s * dot(q[i], k[i]))
        row = sum(exp(s * dot(q[i], k[j])) for j in range(N))
        column = sum(exp(s * dot(q[j], k[i])) for j in range(N))
        values.append(-(log(own / row) + log(own / column)) / 2)
    return mean(values, weight)


# -------------------------------------------------------------- gradients

def derivative(f, x):
    def central(h):
        return (f(x + h) - f(x - h)) / (2 * h)
    h = 1e-3
    a, b, c = central(h), central(h / 2), central(h / 4)
    ab, bc = (4 * b - a) / 3, (4 * c - b) / 3
    return (16 * bc - ab) / 15


def gradient(objective, x, weight):
    x = [list(row) for row in x]

    def at(i, d):
        def f(value):
            old, x[i][d] = x[i][d], value
            loss = objective(x, 1 / TAU, weight)
            x[i][d] = old
            return loss
        return derivative(f, x[i][d])
    dx = [at(i, d) for i in range(len(x)) for d in range(D)]
    d_log = derivative(lambda t: objective(x, exp(t), weight), -log(TAU))
    return dx, d_log


# ----------------------------------------------------------------- output

def put(kind, name, values):
    values = ["%.17g" % v for v in values]
    values = [v if "." in v or "e" in v else v + ".0" for v in values]
    if kind == "float":
        values = [v + "f" for v in values]
    print("static const %s %s[%d] = {" % (kind, name, len(values)))
    for i in range(0, len(values), 2):
        print("    %s," % ", ".join(values[i:i + 2]))
    print("};")


def main():
    rng = random.Random(5)
    x = []
    for i in range(2 * N + K):
        v = [rng.gauss(0, 1) for _ in range(D)]
        if N <= i < 2 * N:
            v = [a + b for a, b in zip(v, x[i - N])]
        norm = math.sqrt(dot(v, v))
        x.append([f32(a / norm) for a in v])
    weight = [1.0, 0.5, 2.0, 0.25, 1.5]
    print("/* Made by make_objectives.py: change that, not this. */")
    print("#ifndef GOLDEN_OBJECTIVES_H\n#define GOLDEN_OBJECTIVES_H\n")
    for name, value in (("N", N), ("K", K), ("D", D),
                        ("ROWS", 2 * N + K), ("TAU", "%.9gf" % TAU),
                        ("PAIR_MASKS", len(PAIR_MASK)),
                        ("QUEUE_MASKS", len(QUEUE_MASK))):
        print("#define GOLDEN_%s %s" % (name, value))
    for name, masks in (("pair", PAIR_MASK), ("queue", QUEUE_MASK)):
        print("static const unsigned golden_%s_mask[%d][2] = {%s};"
              % (name, len(masks), ", ".join("{%d, %d}" % m for m in masks)))
    for name, labels in (("label", LABELS), ("queue_label", QUEUE_LABELS)):
        print("static const unsigned golden_%s[%d] = {%s};"
              % (name, len(labels), ", ".join(map(str, labels))))
    put("float", "golden_weight", weight)
    put("float", "golden_x", [v for row in x for v in row])
    for objective in (pairs, clip, nt_xent, four_way, dcl, supcon, moco,
                      moco_labels):
        dx, d_log = gradient(objective, x, weight)
        put("double", "golden_%s" % objective.__name__,
            [objective(x, 1 / TAU, weight), d_log] + dx)
    print("\n#endif")


main()
