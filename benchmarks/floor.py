"""What a network must at least compute and move, and how far its measured times are from that.

    python benchmarks/floor.py [--save]

Reads the tables benchmarks/results/networks_TABLE.txt (networks.py --save) of the machine it runs
on, counts each line's work, and measures the machine: the rate of a matrix product that stays in
the caches, and of a copy of memory, both on two threads.

`G` are multiplications and additions, in 10^9, of the direct way; `least G` with F(4x4, 3x3) of
Winograd wherever it applies (a quarter, in whole tiles). `MB` is what passes between layers and
memory if each value is written once and read once by each layer that is not in place: weights,
values, in training gradients of both, and the update's parameters, gradients and momentum. `floor`
is the sum over layers of whichever takes longer, the products or the bytes; it is no bound where
values stay in the caches, as those of one small image do. `ours` is the median of the table.
--save also writes what is printed to benchmarks/results/floor.txt.
"""

import argparse
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import threadpoolctl
from cases import Case, net_parameter
from report import Report, machine
from workers import set_threads

RESULTS = Path(__file__).resolve().parent / "results"
TABLES = ("nets", "body", "sizes", "batches")
LINE = re.compile(
    r"^(?P<network>\w+)(?: to (?P<last>\w+))?(?: (?P<h>\d+)x(?P<w>\d+))? +(?P<batch>\d+) "
    r"(?P<mode>forward|backward|train) +(?P<threads>\d+) +[\d.]+/(?P<median>[\d.]+), "
)
TILE, WINDOW = 4, 3
ITEM = 4  # bytes
UPDATE = 5  # passes over a parameter's size: w, dw and h are read, w and h are written


# ---- the work


class Work:
    """Multiplications and additions, the direct way and at least, and bytes."""

    def __init__(self, direct=0, least=0, moved=0):
        self.direct, self.least, self.moved = direct, least, moved

    def seconds(self, rates):
        """The least time, of (products, bytes) a second."""
        return max(2 * self.least / rates[0], self.moved / rates[1])


def works(case):
    """The `Work` of each layer, in each pass and in the update."""
    from demitasse.engine.net import Net
    from demitasse.engine.phase import TEST, TRAIN

    net = Net(net_parameter(case), TEST if case.mode == "forward" else TRAIN)
    for node in net.nodes:
        direct, least = products(node)
        below, above = (bytes_of(blobs) for blobs in (node.bottoms, node.tops))
        if node.tops and node.bottoms and node.tops[0] is node.bottoms[0]:
            below = above = 0  # with the layer before, in one pass
        weights = bytes_of(node.layer.blobs)
        yield Work(direct, least, below + above + weights)
        if case.mode == "forward" or not node.needs_backward:
            continue
        if any(node.propagate_down):
            yield Work(direct, least, below + above + weights)
        if weights:
            yield Work(direct, least, below + above + weights)
        if case.mode == "train":
            yield Work(moved=UPDATE * weights)


def bytes_of(blobs):
    """Of float32 values."""
    return ITEM * sum(blob.count for blob in blobs)


def products(node):
    """Multiplications (each with an addition) of a layer's forward pass: directly, and at least."""
    if node.type not in ("Convolution", "InnerProduct"):
        return 0, 0
    weight, y = node.layer.blobs[0], node.tops[0]
    if node.type == "InnerProduct":
        direct = node.bottoms[0].count // weight.shape[1] * weight.count
        return direct, direct
    outputs, inputs, *window = weight.shape
    size = y.shape[2:]
    direct = y.shape[0] * int(np.prod(size)) * weight.count
    p = node.param.convolution_param
    plain = (
        window == [WINDOW, WINDOW] and p.group == 1
        and not any(s > 1 for s in [*p.stride, *p.dilation])
    )  # fmt: skip
    if not plain:
        return direct, direct
    tiles = y.shape[0] * int(np.prod([-(-n // TILE) for n in size]))
    return direct, min(direct, tiles * (TILE + WINDOW - 1) ** 2 * outputs * inputs)


# ---- the machine


def product_rate(threads, side=768, seconds=2):
    """Floating-point operations a second of float32 matrix products, one on each thread."""
    rng = np.random.default_rng(0)
    counts = [0] * threads
    end = time.perf_counter() + seconds

    def work(k):
        a, b = rng.random((2, side, side), np.float32)
        out = np.empty_like(a)
        while time.perf_counter() < end:
            np.dot(a, b, out=out)
            counts[k] += 1

    workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
    begin = time.perf_counter()
    with threadpoolctl.threadpool_limits(1, "blas"):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return sum(counts) * 2 * side**3 / (time.perf_counter() - begin)


def copy_rate(repeat=9):
    """Bytes a second that a copy of 256 MB on all threads reads and writes."""
    from layers import make_copy

    size = 1 << 29
    copy = make_copy(size)
    copy()
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        copy()
        times.append(time.perf_counter() - begin)
    return size / min(times)


# ---- the table


def lines(path, threads):
    """(Case, our median in ms) of each line of a table of networks.py."""
    for text in path.read_text().splitlines():
        found = LINE.match(text)
        if found and int(found["threads"]) == threads:
            height, width = (int(found[key]) if found[key] else None for key in "hw")
            case = Case(
                found["network"], found["mode"], int(found["batch"]), height, width, found["last"]
            )
            yield case, float(found["median"])


def main():
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true")
    o = parser.parse_args()
    set_threads(o.threads)
    report = Report(RESULTS / "floor.txt" if o.save else None)
    machine(report)
    rates = product_rate(o.threads), copy_rate()
    report(f"matrix products {rates[0] / 1e9:.0f} GFLOP/s, copy {rates[1] / 1e9:.1f} GB/s "
           f"read and written, {o.threads} threads")  # fmt: skip
    report()
    report(f"{'':34}{'batch':>5} {'mode':9}{'G':>8}{'least G':>9}{'MB':>8}{'floor ms':>10}"
           f"{'ours ms':>10}{'floor/ours':>12}")  # fmt: skip
    for table in TABLES:
        path = RESULTS / f"networks_{table}.txt"
        if not path.exists():
            report(f"  (no {path.name}: networks.py {table} --save)")
            continue
        for case, ours in lines(path, o.threads):
            found = list(works(case))
            direct, least, moved = (
                sum(getattr(work, name) for work in found) for name in ("direct", "least", "moved")
            )
            floor = 1e3 * sum(work.seconds(rates) for work in found)
            report(
                f"{case.label():34}{case.batch:>5} {case.mode:9}{direct / 1e9:>8.2f}"
                f"{least / 1e9:>9.2f}{moved / 1e6:>8.0f}{floor:>10.1f}{ours:>10.1f}"
                f"{floor / ours:>12.0%}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
