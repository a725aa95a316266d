#!/usr/bin/python3
"""The same network and the same training step as bench_model_vision, by
PyTorch (Debian: python3-torch; here oneDNN does its convolutions): forward,
backward from a fixed gradient of the output, AdamW.

usage: peer_vision.py [KEY=VALUE ...]   keys as of bench_model_vision, and
                                        layout=channels_first|channels_last
                                        norm=group|batch
"""
import statistics
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F

opt = dict(input=32, channels=3, width=16, blocks=2, stages=2, stem_stride=2,
           grid=8, dims=512, batch=256, threads=2, rounds=5, steps=4,
           layout="channels_first", norm="group")


class Conv(nn.Conv2d):
    """Weight standardisation."""

    def __init__(self, ic, oc, kernel, stride):
        super().__init__(ic, oc, kernel, stride, kernel // 2, bias=False)

    def forward(self, x):
        w = self.weight.flatten(1)
        w = w - w.mean(1, keepdim=True)
        w = w * (w.square().sum(1, keepdim=True) + 1e-6).rsqrt()
        return F.conv2d(x, w.view_as(self.weight), None, self.stride,
                        self.padding)


def norm(channels):
    if opt["norm"] == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // 16, channels)


class Block(nn.Module):
    def __init__(self, ic, oc, stride):
        super().__init__()
        self.conv1, self.norm1 = Conv(ic, oc, 3, stride), norm(oc)
        self.conv2, self.norm2 = Conv(oc, oc, 3, 1), norm(oc)
        self.shortcut = None
        if stride > 1:
            self.shortcut = nn.Sequential(Conv(ic, oc, 1, stride), norm(oc))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        kernel = {1: 3, 2: 5, 4: 7}[opt["stem_stride"]]
        width = opt["width"]
        layers = [Conv(opt["channels"], width, kernel, opt["stem_stride"]),
                  norm(width), nn.ReLU(inplace=True)]
        ic = width
        for stage in range(opt["stages"]):
            for block in range(opt["blocks"]):
                oc = width << stage
                layers.append(
                    Block(ic, oc, 2 if stage > 0 and block == 0 else 1))
                ic = oc
        self.body = nn.Sequential(*layers)
        self.linear = nn.Linear(ic * opt["grid"] ** 2, opt["dims"])

    def forward(self, x):
        cells = F.adaptive_avg_pool2d(self.body(x), opt["grid"])
        return F.normalize(self.linear(cells.flatten(1)))


def main():
    for arg in sys.argv[1:]:
        key, value = arg.split("=")
        opt[key] = value if isinstance(opt[key], str) else int(value)
    torch.set_num_threads(opt["threads"])
    torch.manual_seed(1)
    net = Net()
    side = opt["input"]
    images = torch.randint(0, 256, (opt["batch"], opt["channels"], side, side),
                           dtype=torch.uint8)
    if opt["layout"] == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    d_out = 0.01 * torch.randn(opt["batch"], opt["dims"])
    adamw = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=1e-4)

    def step():
        x = (images.float() / 255 - 0.5) / 0.25
        if opt["layout"] == "channels_last":
            x = x.contiguous(memory_format=torch.channels_last)
        adamw.zero_grad(set_to_none=True)
        net(x).backward(d_out)
        adamw.step()

    step()
    rates, cpu = [], []
    for _ in range(opt["rounds"]):
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in range(opt["steps"]):
            step()
        cpu.append(opt["batch"] * opt["steps"] /
                   (time.process_time() - cpu_start))
        rates.append(opt["batch"] * opt["steps"] /
                     (time.perf_counter() - start))
    with torch.no_grad():
        one = ((images[:1].float() / 255 - 0.5) / 0.25)
        many = ((images.float() / 255 - 0.5) / 0.25)
        net(one), net(many)
        start = time.perf_counter()
        for _ in range(50):
            net(one)
        latency = (time.perf_counter() - start) / 50
        start = time.perf_counter()
        for _ in range(4):
            net(many)
        encode = 4 * opt["batch"] / (time.perf_counter() - start)
    print(f"PyTorch {torch.__version__} ({opt['layout']}, {opt['norm']} norm): "
          f"train {statistics.median(rates):.0f} views/s median, "
          f"{max(rates):.0f} best; {statistics.median(cpu):.0f} per processor "
          f"second median, {max(cpu):.0f} best; encode {encode:.0f} pictures/s, "
          f"latency {latency * 1e3:.2f} ms")


main()
