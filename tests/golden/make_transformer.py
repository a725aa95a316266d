#!/usr/bin/python3
"""Make transformer.h: a small network of BERT's shape by PyTorch.

usage: make_transformer.py >transformer.h    (Debian: python3-torch)

Weights, token ids and the pairs of the training steps are formulas, which
test_model_transformer_golden.c and test_train_transformer_golden.c have too.
Encoder layers are torch.nn.TransformerEncoderLayer; embeddings are made in
double, training in float with torch.optim.AdamW.
"""
import torch
from torch import nn

LAYERS, HIDDEN, HEADS, FFN = 2, 64, 2, 96
VOCAB, POSITIONS, TYPES, EPS = 24, 9, 2, 1e-6
PAIRS, STEPS, TAU, RATE, DECAY = 6, 10, 0.1, 2e-4, 10


def noise(n, at):
    """Uniform in [-1/2, 1/2), parameter `at` and the n - 1 behind it."""
    i = torch.arange(at, at + n, dtype=torch.int64)
    x = (i * 2654435761 + 12345) % 2**32
    x = ((x ^ (x >> 15)) * 2246822519) % 2**32
    return ((x >> 8).double() / 2**24 - 0.5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.word = nn.Embedding(VOCAB, HIDDEN)
        self.position = nn.Embedding(POSITIONS, HIDDEN)
        self.types = nn.Embedding(TYPES, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN, eps=EPS)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                HIDDEN, HEADS, FFN, dropout=0.0, activation="gelu",
                layer_norm_eps=EPS, batch_first=True)
            for _ in range(LAYERS))

    def parts(self):
        """The parameters in the order of the block."""
        yield self.word.weight, "table"
        yield self.position.weight, "table"
        yield self.types.weight, "table"
        yield self.norm.weight, "gain"
        yield self.norm.bias, "bias"
        for layer in self.layers:
            yield layer.self_attn.in_proj_weight, "matrix"
            yield layer.self_attn.in_proj_bias, "bias"
            yield layer.self_attn.out_proj.weight, "matrix"
            yield layer.self_attn.out_proj.bias, "bias"
            yield layer.norm1.weight, "gain"
            yield layer.norm1.bias, "bias"
            yield layer.linear1.weight, "matrix"
            yield layer.linear1.bias, "bias"
            yield layer.linear2.weight, "matrix"
            yield layer.linear2.bias, "bias"
            yield layer.norm2.weight, "gain"
            yield layer.norm2.bias, "bias"

    def fill(self):
        at = 0
        for p, kind in self.parts():
            x = noise(p.numel(), at)
            at += p.numel()
            x = 1 + x / 2 if kind == "gain" else x * (
                2 if kind == "table" else 0.5)
            p.data = x.float().reshape(p.shape).to(p.dtype)

    def embed(self, ids):
        ids = torch.tensor(ids)
        x = self.word(ids) + self.position(torch.arange(len(ids)))
        x = self.norm(x + self.types.weight[0])[None]
        for layer in self.layers:
            x = layer(x)
        x = x[0].mean(0)
        return x / x.norm()


def sequences(step):
    """Twice PAIRS of them: the anchors, then the keys."""
    at, out = 0, []
    for i in range(2 * PAIRS):
        n = 1 + (5 * i + step) % POSITIONS
        out.append([(7 * (at + t) + step) % VOCAB for t in range(n)])
        at += n
    return out


def table(name, values):
    print(f"static const double {name}[] = {{")
    for i in range(0, len(values), 5):
        print("    " + " ".join(f"{v:.9g}," for v in values[i:i + 5]))
    print("};\n")


def embeddings(net):
    with torch.no_grad():
        return torch.cat([net.embed(s) for s in sequences(0)[:PAIRS]]).tolist()


def loss_of(net, step):
    x = torch.stack([net.embed(s) for s in sequences(step)])
    logits = x[:PAIRS] @ x[PAIRS:].T / TAU
    return nn.functional.cross_entropy(logits, torch.arange(PAIRS))


def gradients(net):
    """The norm of each part's gradient in the first step."""
    loss_of(net, 0).backward()
    return [p.grad.norm().item() for p, _ in net.parts()]


def train(net):
    groups = [{"params": [p for p, kind in net.parts()
                          if kind in ("table", "matrix")],
               "weight_decay": DECAY},
              {"params": [p for p, kind in net.parts()
                          if kind not in ("table", "matrix")],
               "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-6)
    losses = []
    for step in range(STEPS):
        loss = loss_of(net, step)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


print("/* Made by make_transformer.py. */")
print("#ifndef TESTS_GOLDEN_TRANSFORMER_H")
print("#define TESTS_GOLDEN_TRANSFORMER_H\n")
print("/* clang-format off */")
net = Net()
net.fill()
table("golden_before", embeddings(net.double()))
table("golden_gradient", gradients(net))
net = Net()
net.fill()
table("golden_loss", train(net))
table("golden_after", embeddings(net.double()))
print("/* clang-format on */\n\n#endif")
