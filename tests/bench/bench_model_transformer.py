"""How fast PyTorch encodes with a transformer of MiniLM's shape, random weights.

usage: bench_model_transformer.py [KEY=VALUE ...]    (Debian: python3-torch)

  tokens=4096 seconds=2 threads=1 length=0 (0: 16, 32 and 128)

f32 in batches of 32 sequences of one length, so nothing is padded, and int8
where PyTorch is built with FBGEMM (dynamic, linear layers); one: the latency of
one sequence. One thread by the processor time, more by the clock; medians.
"""
import statistics
import sys
import time

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, hidden=384, heads=12, ffn=1536):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(
            hidden, hidden)
        self.up, self.down = nn.Linear(hidden, ffn), nn.Linear(ffn, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    def forward(self, x):
        b, n, h = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(
            2, 0, 3, 1, 4)
        p = torch.softmax(q @ k.transpose(-1, -2) * (h / self.heads)**-0.5, -1)
        x = self.norm1(x + self.out((p @ v).transpose(1, 2).reshape(b, n, h)))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


class Net(nn.Module):
    def __init__(self, hidden=384):
        super().__init__()
        self.word, self.position = nn.Embedding(30522, hidden), nn.Embedding(
            512, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.layers = nn.Sequential(*(Layer(hidden) for _ in range(6)))

    def forward(self, ids):
        x = self.word(ids) + self.position(torch.arange(ids.shape[1]))
        return nn.functional.normalize(self.layers(self.norm(x)).mean(1))


def seconds(fn, budget, threads):
    clock = time.process_time if threads == 1 else time.perf_counter
    took = []
    fn()
    while sum(took) < budget or len(took) < 3:
        start = clock()
        fn()
        took.append(clock() - start)
    return statistics.median(took)


def main():
    opt = {"tokens": 4096, "seconds": 2.0, "threads": 1, "length": 0}
    for arg in sys.argv[1:]:
        key, value = arg.split("=")
        opt[key] = type(opt[key])(value)
    torch.set_num_threads(opt["threads"])
    torch.manual_seed(1)
    nets = {"f32": Net().eval()}
    if "fbgemm" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "fbgemm"
        nets["int8"] = torch.quantization.quantize_dynamic(
            nets["f32"], {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        for length in (opt["length"],) if opt["length"] else (16, 32, 128):
            n = opt["tokens"] // length
            ids = torch.randint(0, 30522, (n, length))
            for name, net in nets.items():
                took = seconds(lambda: [net(part) for part in ids.split(32)],
                               opt["seconds"], opt["threads"])
                one = seconds(lambda: net(ids[:1]), opt["seconds"] / 4,
                              opt["threads"])
                print(f"PyTorch {torch.__version__} threads {opt['threads']} "
                      f"length {length:3} {name}: {n / took:.1f} sentences/s; "
                      f"one {one * 1e3:.2f} ms", flush=True)


main()
