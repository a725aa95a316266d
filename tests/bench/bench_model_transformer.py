"""How fast PyTorch encodes and trains a transformer of MiniLM's shape.

usage: bench_model_transformer.py [KEY=VALUE ...]    (Debian: python3-torch)

  tokens=4096 seconds=2 threads=1 length=0 (0: 16, 32 and 128)
  train=PAIRS  a step of so many pairs of two sequences instead: forward, a
               gradient of noise, backward; no optimiser
  mix=FILE     real texts instead: FILE has their lengths in tokens, one a line
               (make_lengths)

Random weights. f32 in batches of 32 sequences, and int8 where PyTorch is built
with FBGEMM (dynamic, linear layers). Sequences of one length, so nothing is
padded; one: the latency of one sequence. Real texts are padded to the longest
of their batch, with an attention mask, and encoded once in the file's order and
once sorted by length, as sentence-transformers does; their making is not
counted. One thread by the processor time, more by the clock, training by both;
medians.
"""
import os
import statistics
import sys
import time

OPT = {"tokens": 4096, "seconds": 2.0, "threads": 1, "length": 0, "train": 0,
       "mix": ""}
for arg in sys.argv[1:]:
    key, value = arg.split("=", 1)
    OPT[key] = type(OPT[key])(value)
# Read as PyTorch is loaded. It does not tell OpenBLAS how many threads it has;
# and its own threads wait by spinning, which more than halves the speed of two
# where the machine does other work too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(OPT["threads"]))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
from torch import nn  # noqa: E402

BATCH = 32


class Layer(nn.Module):
    def __init__(self, hidden=384, heads=12, ffn=1536):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(
            hidden, hidden)
        self.up, self.down = nn.Linear(hidden, ffn), nn.Linear(ffn, hidden)
        self.norm1, self.norm2 = (nn.LayerNorm(hidden, eps=1e-12)
                                  for _ in range(2))

    def forward(self, x, bias):
        b, n, h = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(
            2, 0, 3, 1, 4)
        s = q @ k.transpose(-1, -2) * (h / self.heads)**-0.5
        p = torch.softmax(s if bias is None else s + bias, -1)
        x = self.norm1(x + self.out((p @ v).transpose(1, 2).reshape(b, n, h)))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


class Net(nn.Module):
    def __init__(self, hidden=384):
        super().__init__()
        self.word, self.position, self.kind = (nn.Embedding(rows, hidden)
                                               for rows in (30522, 512, 2))
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(6))

    def forward(self, ids, mask=None):
        """mask [b, n]: 1 for a token, 0 for padding; None: nothing is padded"""
        bias = None if mask is None else (1 - mask)[:, None, None] * -1e9
        x = self.norm(self.word(ids) + self.kind.weight[0] +
                      self.position.weight[:ids.shape[1]])
        for layer in self.layers:
            x = layer(x, bias)
        if mask is None:
            return nn.functional.normalize(x.mean(1))
        sums = (x * mask[:, :, None]).sum(1)
        return nn.functional.normalize(sums / mask.sum(1, keepdim=True))


def seconds(fn, budget):
    """The medians by the clock and by the processors' time."""
    wall, cpu = [], []
    fn()
    while sum(wall) < budget or len(wall) < 3:
        at, used = time.perf_counter(), time.process_time()
        fn()
        wall.append(time.perf_counter() - at)
        cpu.append(time.process_time() - used)
    return statistics.median(wall), statistics.median(cpu)


def show(what, figures):
    print(f"PyTorch {torch.__version__} threads {OPT['threads']} {what}: "
          f"{figures}", flush=True)


def with_int8(net):
    nets = {"f32": net.eval()}
    if "fbgemm" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "fbgemm"
        nets["int8"] = torch.quantization.quantize_dynamic(
            net, {nn.Linear}, dtype=torch.qint8)
    return nets


def encode(net, length):
    n, by = OPT["tokens"] // length, OPT["threads"] == 1
    ids = torch.randint(0, 30522, (n, length))
    with torch.no_grad():
        for name, one in with_int8(net).items():
            took = seconds(lambda: [one(part) for part in ids.split(BATCH)],
                           OPT["seconds"])[by]
            first = seconds(lambda: one(ids[:1]), OPT["seconds"] / 4)[by]
            show(f"length {length:3} {name}", f"{n / took:.1f} sentences/s; "
                 f"one {first * 1e3:.2f} ms")


def train(net, length):
    pairs = OPT["train"]
    ids = torch.randint(0, 30522, (2 * pairs, length))
    noise = 0.01 * torch.randn(2 * pairs, 384)

    def step():
        net.zero_grad(set_to_none=True)
        net(ids).backward(noise)

    wall, cpu = seconds(step, OPT["seconds"])
    show(f"length {length:3} f32", f"{pairs / wall:.1f} pairs/s, "
         f"{pairs / cpu:.1f} per processor second; step {wall:.2f} s")


def padded(lengths):
    """Batches of random ids with their masks."""
    batches = []
    for at in range(0, len(lengths), BATCH):
        part = torch.tensor(lengths[at:at + BATCH])[:, None]
        mask = (torch.arange(int(part.max())) < part).float()
        batches.append((torch.randint(1, 30522, mask.shape) * mask.long(),
                        mask))
    return batches


def mix(net, lengths):
    """One pass over all; nothing is repeated but the first batch."""
    orders = {"sorted": padded(sorted(lengths, reverse=True)),
              "unsorted": padded(lengths)}
    clock = time.process_time if OPT["threads"] == 1 else time.perf_counter
    with torch.no_grad():
        for name, one in with_int8(net).items():
            for order, batches in orders.items():
                one(*batches[0])
                start = clock()
                for batch in batches:
                    one(*batch)
                took = clock() - start
                cells = sum(mask.numel() for _, mask in batches)
                show(f"mix {name} {order}",
                     f"{len(lengths) / took:.1f} texts/s; "
                     f"{100 - 100 * sum(lengths) / cells:.0f}% padding")


def main():
    torch.set_num_threads(OPT["threads"])
    torch.manual_seed(1)
    net = Net()
    if OPT["mix"]:
        with open(OPT["mix"], encoding="ascii") as file:
            mix(net, [int(line) for line in file])
        return
    for length in (OPT["length"],) if OPT["length"] else (16, 32, 128):
        (train if OPT["train"] else encode)(net, length)


main()
