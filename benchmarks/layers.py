"""Each layer type alone, beside PyTorch's same operation and beside a copy of memory.

    python benchmarks/layers.py [--save] [--only Pooling] [--batches 1] [--threads 2]

Sizes are those of blobs of VGG16 (600x800), AlexNet, GoogLeNet and ResNet-50. Passes: `test`, a
forward pass where no backward pass follows; `train`, a forward pass where one does; `backward`,
gradients of bottoms and parameters; `update`, what the solver does to a parameter. PyTorch runs in
a process of its own, and all take turns. A pass that is short is repeated until it takes 2 ms, and
its mean counts. Results of the sides are compared first; where they differ, a line says so.

Cells have the minimum and the median, in milliseconds. `ratio` is PyTorch's median to ours, above 1
ours is faster; `of copy` is the time of a copy, by NUMBA_NUM_THREADS threads, of as many bytes as
the layer must at least read and write, to ours (medians): 100 % is the speed of memory. Arrays
that fit the caches are copied, and computed on, within them. Where another process computes,
PyTorch's short passes wait for its threads: run it on a machine that does nothing else.
--save also writes what is printed to benchmarks/results/layers.txt.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import numpy as np
from layer_cases import CASES, UPDATE, sample
from layer_peer import serve
from report import Report, machine
from workers import set_threads

MODES = ("test", "train", "backward", "update")
TOLERANCE = 1e-3
SHORTEST = 2e-3  # seconds
PAUSE = 0.005  # for threads of OpenMP, which wait actively for a while


class Ours:
    """One of our layers, alone."""

    def __init__(self, case, batch, mode):
        from demitasse.engine.gradient_check import make_layer
        from demitasse.engine.proto import caffe_pb2

        phase = caffe_pb2.TEST if mode == "test" else caffe_pb2.TRAIN
        text = case.text + "".join(f' top: "t{k}"' for k in range(case.tops))
        layer, bottom, top = make_layer(text, case.inputs(batch), phase, "float32")
        layer.needs_backward = mode != "test"
        wanted = [k < case.sources for k in range(len(bottom))]
        if case.kind == "batch_norm":  # whose stored statistics are of no images yet
            for blob in layer.blobs:
                blob.array[...] = 1
        self.arrays = [blob.array.copy() for blob in layer.blobs]
        layer.forward(bottom, top)
        if mode == "backward":
            for blob in (*bottom, *layer.blobs):
                blob.grad[...] = 0
            for blob in top:
                blob.grad[...] = case.slopes(blob.shape)
            self.run = lambda: layer.backward(top, wanted, bottom)
            learnt = [] if case.kind == "batch_norm" else layer.blobs
            self._computed = [b.grad for b in (*bottom[: case.sources], *learnt)]
            self.bytes = _backward_bytes(layer, bottom, top, wanted, case)
        else:
            self.run = lambda: layer.forward(bottom, top)
            self._computed = [b.array for b in top]
            self.bytes = sum(b.array.nbytes for b in [*bottom, *top])
            self.bytes += _weight_bytes(layer, top, case)

    def results(self):
        """Samples of what a first pass computes: tops, or gradients."""
        self.run()
        return [sample(array) for array in self._computed]


class Update:
    """The solver's update of one parameter."""

    def __init__(self, case, batch, mode):
        from demitasse.engine.device import CPU
        from demitasse.engine.proto import caffe_pb2
        from demitasse.solvers import updates

        o = case.options
        rule = updates.rule_of(caffe_pb2.SolverParameter(type="SGD", momentum=o["momentum"]))
        (data,) = case.inputs(batch)
        diff, history = case.slopes(data.shape), np.zeros_like(data)
        constants, decay = rule.constants(o["lr"], 0), (o["weight_decay"], False)
        self.run = lambda: updates.update(
            rule, CPU, data, diff, [history], (1.0, 1.0), decay, constants
        )
        self.arrays, self._computed = [], [data]
        self.bytes = 2 * (data.nbytes + diff.nbytes + history.nbytes)

    results = Ours.results


def _backward_bytes(layer, bottom, top, wanted, case):
    # dy is read and dx is written; x or y is read where the slope depends on it.
    count = sum(t.array.nbytes for t in top)
    count += sum(b.array.nbytes for b, w in zip(bottom, wanted) if w)
    linear = (
        "average_pool", "concat", "slice", "split", "eltwise_sum", "dropout", "reduction"
    )  # fmt: skip
    if case.kind in ("max_pool", "roi"):
        count += top[0].array.nbytes  # the winners
    elif case.kind == "smooth_l1":
        count += bottom[0].array.nbytes  # the slope
    elif case.kind not in linear:
        count += sum(b.array.nbytes for b in bottom)
    return count + 3 * _weight_bytes(layer, top, case)  # W read, dW read and written


def _weight_bytes(layer, top, case):
    # Of a table, only the rows that are looked up are read.
    blobs = top if case.kind == "embed" else layer.blobs
    return sum(b.array.nbytes for b in blobs)


def make_copy(bytes_moved):
    """A function that copies half as many bytes, on all threads."""
    from numba import prange

    from demitasse.engine.kernels.cpu import parallel_njit

    global _copy
    if _copy is None:

        @parallel_njit(cache=False)
        def _copy(a, b):
            chunk = (len(a) + 63) // 64
            for i in prange(64):
                b[i * chunk : (i + 1) * chunk] = a[i * chunk : (i + 1) * chunk]

    a = np.ones(max(bytes_moved // 8, 1), np.float32)
    b = np.zeros_like(a)

    def run():
        if a.nbytes < 1 << 16:
            b[:] = a
        else:
            _copy(a, b)

    return run


_copy = None


def seconds(function, count):
    """The mean time of `count` calls."""
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count


class Peer:
    """The process of PyTorch; absent, it does nothing."""

    def __init__(self, threads):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, threads), daemon=True).start()
        theirs.close()

    def ask(self, *command):
        self.connection.send(command)
        return self.connection.recv()


def measure(case, batch, mode, peer, rounds):
    """Bytes to be moved, seconds a pass (a list for each side), and the error or None."""
    ours = (Update if mode == "update" else Ours)(case, batch, mode)
    copy = make_copy(ours.bytes)
    sides = {"ours": lambda n: seconds(ours.run, n), "copy": lambda n: seconds(copy, n)}
    error = None
    if peer and peer.ask("case", case, batch, mode, ours.arrays):
        sides["torch"] = lambda n: peer.ask("run", n)
        if case.kind != "dropout" or mode == "test":  # else each side draws numbers of its own
            error = largest_error(case, ours.results(), peer.ask("results"))
    counts = {}
    for name, side in sides.items():
        side(2)  # kernels are compiled, memory is taken
        counts[name] = max(1, min(1000, round(SHORTEST / side(1))))
    taken = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            time.sleep(PAUSE)
            taken[name].append(side(counts[name]))
    return ours.bytes, taken, error


def largest_error(case, ours, theirs):
    """Of any of two sides' arrays, max|a - b| / max|b|."""
    if case.kind == "lstm":  # the gates' order differs, and all of them bear on the first array
        ours, theirs = ours[:1], theirs[:1]
    return max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
        for a, b in zip(ours, theirs, strict=True)
    )


def line(case, batch, mode, bytes_moved, taken, error):
    """One line of the table, and another if the sides disagree."""
    shape = "x".join(map(str, (batch, *case.shapes[0])))
    text = f"{case.name:27}{shape:17}{mode:9}{bytes_moved / 1e6:>8.2f}"
    median = {name: statistics.median(values) for name, values in taken.items()}
    for name in ("ours", "torch", "copy"):
        cell = f"{1e3 * min(taken[name]):.3f}/{1e3 * median[name]:.3f}" if name in taken else "-"
        text += f"{cell:>18}"
    ratio = f"{median['torch'] / median['ours']:.2f}" if "torch" in taken else "-"
    text += f"{ratio:>8}{100 * median['copy'] / median['ours']:>11.0f}"
    if error is not None and not error <= TOLERANCE:
        text += f"\n  PyTorch's result differs by {error:.1e} of the largest"
    return text


def options():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", help="layers whose name contains this")
    add("--modes", default=",".join(MODES), help=f"of {','.join(MODES)}")
    add("--batches", help="batch sizes, as 1,16; default: all")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    add("--rounds", type=int, default=9, help="how often all take their turn (9)")
    add("--without-torch", action="store_true", help="ours and the copy only")
    add("--save", action="store_true", help="write to benchmarks/results/layers.txt too")
    return parser.parse_args()


def main():
    """Print the table."""
    o = options()
    set_threads(o.threads)
    report = Report(Path(__file__).parent / "results" / "layers.txt" if o.save else None)
    machine(report)
    report(f"{o.threads} threads; milliseconds, minimum/median")
    heads = "".join(f"{name:>18}" for name in ("ours", "PyTorch", "copy"))
    report(f"\n{'':27}{'bottom':17}{'pass':9}{'MB':>8}{heads}{'ratio':>8}{'of copy %':>11}")
    report(f"load average at the start: {os.getloadavg()[0]:.2f}")
    peer = None if o.without_torch else Peer(o.threads)
    asked = [int(b) for b in o.batches.split(",")] if o.batches else None
    for case in (*CASES, UPDATE):
        if o.only and o.only.lower() not in case.name.lower():
            continue
        for batch in case.batches:
            for mode in case.modes:
                if (not asked or batch in asked) and mode in o.modes.split(","):
                    report(line(case, batch, mode, *measure(case, batch, mode, peer, o.rounds)))


if __name__ == "__main__":
    main()
