"""Whole networks beside PyTorch, ONNX Runtime and OpenCV 4: time and memory, a command a table.

    python benchmarks/networks.py nets      each network of prototxt/ at its own image size, batch 1
                                            and 16: forward (TEST) and a training step
    python benchmarks/networks.py body      VGG16's 13 convolutions with ReLU and pooling, at
                                            600x800 and 224x224: forward, and forward + backward
    python benchmarks/networks.py sizes     the same, from 224x224 to 1200x1200
    python benchmarks/networks.py batches   the same at 224x224, batch 1 to 32
    python benchmarks/networks.py threads   the same at 600x800, with 1 and 2 threads

A training step is forward, backward and an update by SGD with momentum and weight decay. Before a
line is measured, outputs, loss and gradients of the sides are compared (Dropout off for that); the
line is left out if they differ by more than 1e-3, and `error` is how much outputs and loss do. The
sides then take turns (side_by_side.py), each in a process of its own. A cell has the minimum and
the median of its passes, and the peak of its process's resident memory (ru_maxrss: weights,
activations, libraries, and what compiling a kernel for the first time takes: run a table twice).
The ratio is the median of the faster layout of PyTorch to ours: above 1 ours is faster.

Peers take part as far as they are installed (requirements.txt): torch; onnxruntime (with torch and
onnx); OpenCV 4.x.
--save also writes what is printed to benchmarks/results/networks_TABLE.txt.
"""

import argparse
import itertools
import os
import sys
from pathlib import Path

from cases import Case
from peers import SIDES
from report import Report, listed, machine, size
from side_by_side import Disagreement, available, compare, headings, line, measure

NETWORKS = ("squeezenet", "googlenet", "alexnet", "caffenet", "zf", "resnet50", "vgg16")
BODY = {"network": "vgg16", "last": "pool5"}


def nets(o):
    """The cases of the table `nets`."""
    modes = o.modes or ["forward", "train"]
    for network, batch, mode in itertools.product(o.nets or NETWORKS, o.batches or [1, 16], modes):
        yield Case(network, mode, batch, keep=o.keep)


def _bodies(o, sizes, batches):
    modes = o.modes or ["forward", "backward"]
    for (h, w), batch, mode in itertools.product(o.sizes or sizes, o.batches or batches, modes):
        yield Case(mode=mode, batch=batch, height=h, width=w, keep=o.keep, **BODY)


TABLES = {
    "nets": nets,
    "body": lambda o: _bodies(o, [(600, 800), (224, 224)], [1]),
    "sizes": lambda o: _bodies(o, [(n, n) for n in (224, 400, 600, 800, 1000, 1200)], [1]),
    "batches": lambda o: _bodies(o, [(224, 224)], [1, 2, 4, 8, 16, 32]),
    "threads": lambda o: _bodies(o, [(600, 800)], [1]),
}


def table(o, report):
    """Measure and print one table; returns how many lines were left out."""
    machine(report)
    kinds = available(o.sides, SIDES, report)
    for heading in headings(f"{'':34}{'batch':>5} {'mode':9}{'threads':>7}", kinds, "ms"):
        report(heading)
    left_out = 0
    for case, threads in itertools.product(TABLES[o.table](o), o.threads):
        try:
            error = compare(case, kinds, threads, report.note)
        except Disagreement as e:
            report(f"  LEFT OUT: {e}")
            left_out += 1
            continue
        measured = measure(case, kinds, threads, o.seconds, o.repeat, report.note)
        label = f"{case.label():34}{case.batch:>5} {case.mode:9}{threads:>7}"
        report(line(label, kinds, measured, error, 1e3, 1))
    return left_out


def options():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    add = parser.add_argument
    add("--nets", type=listed(str), help=f"for `nets`; default: {','.join(NETWORKS)}")
    add("--batches", type=listed(int), help="batch sizes, as 1,16")
    add("--sizes", type=listed(size), help="for all but `nets`: image sizes, as 600x800,224x224")
    add("--modes", type=listed(str), help="of forward, backward, train")
    add("--threads", type=listed(int), help="default: all cores; 1,2 for `threads`")
    add("--sides", type=listed(str), default=list(SIDES), help=f"of {','.join(SIDES)}")
    add("--seconds", type=float, default=60, help="about how long a line may take (60)")
    add("--repeat", type=int, help="rounds, in place of --seconds")
    add("--keep", choices=["minimal"], help="open our nets with keep=...")
    add("--save", action="store_true", help="write to benchmarks/results/ too")
    o = parser.parse_args()
    for name, known in (("sides", SIDES), ("nets", NETWORKS)):
        unknown = [v for v in getattr(o, name) or () if v not in known]
        if unknown:
            parser.error(f"--{name}: expected some of {', '.join(known)}, found {unknown[0]!r}")
    o.threads = o.threads or ([1, 2] if o.table == "threads" else [len(os.sched_getaffinity(0))])
    return o


def main():
    """Run the table that the command line asks for."""
    o = options()
    suffix = f"_{o.keep}" if o.keep else ""
    path = Path(__file__).parent / "results" / f"networks_{o.table}{suffix}.txt"
    sys.exit(1 if table(o, Report(path if o.save else None)) else 0)


if __name__ == "__main__":
    main()
