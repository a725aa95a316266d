#!/usr/bin/python3
"""Writes vision.h: what an independent implementation (PyTorch, in double)
gives for small vision encoders: vectors, and the gradient of their projection.

usage: make_vision.py >vision.h

Parameters are not those of a seed but a formula of their place, so that both
sides have the same; so are the pictures and the projection.
"""
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
N = 9
NETWORKS = [
    dict(input=28, channels=1, width=16, stages=2, blocks=1, stem_stride=2,
         grid=1, dims=8),
    dict(input=29, channels=3, width=32, stages=1, blocks=2, stem_stride=4,
         grid=3, dims=16),
]


def wave(i, step):
    """In [-1, 1), the same bits in float on both sides."""
    return ((i * step) % 1021).to(torch.float64) / 512 - 1


def network(c):
    """The tensors in the order of the parameters: (name, shape, is gain)."""
    kernel = {1: 3, 2: 5, 4: 7}[c["stem_stride"]]
    convs = [("stem", c["width"], c["channels"], kernel)]
    ic = c["width"]
    for s in range(c["stages"]):
        for b in range(c["blocks"]):
            oc = c["width"] << s
            name = f"stage{s}.block{b}"
            convs.append((name + ".conv1", oc, ic, 3))
            convs.append((name + ".conv2", oc, oc, 3))
            if s > 0 and b == 0:
                convs.append((name + ".shortcut", oc, ic, 1))
            ic = oc
    tensors = []
    for name, o, i, k in convs:
        tensors += [(name + ".weight", (o, i, k, k)), (name + ".gain", (o,)),
                    (name + ".bias", (o,))]
    features = ic * c["grid"] ** 2
    return tensors + [("linear.weight", (c["dims"], features)),
                      ("linear.bias", (c["dims"],))]


def conv_norm(p, name, x, stride, pad):
    w = p[name + ".weight"]
    z = w.flatten(1)
    z = z - z.mean(1, keepdim=True)
    z = z / (z.square().sum(1, keepdim=True) + 1e-6).sqrt()
    y = F.conv2d(x, z.view_as(w), None, stride, pad)
    return F.group_norm(y, w.shape[0] // 16, p[name + ".gain"],
                        p[name + ".bias"], 1e-5)


def forward(c, p, x):
    kernel = p["stem.weight"].shape[2]
    x = F.relu(conv_norm(p, "stem", x, c["stem_stride"], kernel // 2))
    for s in range(c["stages"]):
        for b in range(c["blocks"]):
            name = f"stage{s}.block{b}"
            stride = 2 if s > 0 and b == 0 else 1
            y = F.relu(conv_norm(p, name + ".conv1", x, stride, 1))
            y = conv_norm(p, name + ".conv2", y, 1, 1)
            if stride > 1:
                x = conv_norm(p, name + ".shortcut", x, stride, 0)
            x = F.relu(x + y)
    f = F.adaptive_avg_pool2d(x, c["grid"])  # [N, C, G, G]
    f = f.permute(0, 2, 3, 1).flatten(1)
    return F.normalize(f @ p["linear.weight"].T + p["linear.bias"])


def numbers(values):
    text, line = "", "   "
    for v in values:
        item = f" {v:.9g},"
        if len(line) + len(item) > 78:
            text, line = text + line + "\n", "   "
        line += item
    return text + line


def main():
    print("/* Made by make_vision.py with PyTorch, in double. */")
    for number, c in enumerate(NETWORKS):
        at, p, tensors = 0, {}, network(c)
        for name, shape in tensors:
            n = torch.Size(shape).numel()
            value = wave(torch.arange(at, at + n), 37)
            if name.endswith(".gain"):
                value = 1 + value / 2
            p[name] = value.view(shape).requires_grad_()
            at += n
        side, ch = c["input"], c["channels"]
        i = torch.arange(N * side * side * ch)
        pixels = (i * 31 + i // 7 * 3 + i // 300 * 11) % 256
        pixels = pixels.view(N, side, side, ch).permute(0, 3, 1, 2)
        z = forward(c, p, (pixels / 255.0 - 0.5) / 0.25)
        d = wave(torch.arange(z.numel()), 91).view_as(z)
        (z * d).sum().backward()
        print(f"static const double vectors_{number}[] = {{")
        print(numbers(z[::4].flatten().tolist()) + "};")
        print("/* of each tensor: the gradient times wave(i, 53), and its "
              "norm */")
        print(f"static const double gradients_{number}[] = {{")
        out = []
        for name, _ in tensors:
            g = p[name].grad.flatten()
            out += [(g * wave(torch.arange(len(g)), 53)).sum().item(),
                    g.norm().item()]
        print(numbers(out) + "};")


main()
