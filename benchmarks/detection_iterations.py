"""Faster R-CNN beside PyTorch: seconds and memory of an iteration and of an image.

    python benchmarks/detection_iterations.py train     one iteration of approximate joint training
    python benchmarks/detection_iterations.py test      one image, from its pixels to detections
    python benchmarks/detection_iterations.py layers    where our time goes in training, by type

VGG16 and ZF on images of 600x800 with 10 objects, 21 classes, 9 anchors at each place, random
weights; 128 RoIs are learnt from, 300 proposals tested. Ours is the job of tools/train_net.py: it
reads and prepares images, proposes regions, samples targets, and updates all weights by SGD with
momentum and weight decay. PyTorch does the same arithmetic: the convolutions, the RPN, RoI pooling,
fully connected layers, four losses, gradients, SGD. What is to be learnt is given to it, and for
`test` the proposals, so it does without the work of our Python layers. `frozen` is training with
ImageNet weights, whose first layers stay as they are.

First losses (1e-3) and gradients (1e-1: where rounding tips a ReLU or another maximum they differ)
of the sides are compared, Dropout off; `error` is the largest of the losses or outputs. The sides
then take turns, each in a process of its own. A cell has the minimum and the median of the passes
and the peak of the process's resident memory (with what compiling a kernel for the first time
takes: run a table twice). The ratio is the median of the faster layout of PyTorch to ours. Below a
line of training is how long an iteration of ours waits for images.
--save also writes what is printed to benchmarks/results/detection_iterations_TABLE.txt.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from detection_cases import PYTHON_LAYERS, DetectorCase
from detection_sides import SIDES, WAITS, Ours
from report import Report, listed, machine, size
from side_by_side import Disagreement, available, check, headings, line, measure
from workers import Workers, set_threads

NETWORKS = ("vgg16", "zf")
VERBS = ("reshape", "forward", "backward", "forward_relu", "backward_relu")


def cases(o):
    """The cases of a table."""
    height, width = o.size
    mode = "test" if o.table == "test" else "train"
    for network in o.nets:
        yield DetectorCase(network, mode, False, height, width)
        if mode == "train" and network == "vgg16":  # ZF's are not frozen
            yield DetectorCase(network, mode, True, height, width)


# ---- beside PyTorch


def side_by_side(o, kinds, report):
    """Measure and print a table; returns how many lines were left out."""
    for heading in headings(f"{'':36}{'threads':>7}", kinds, "s"):
        report(heading)
    left_out = 0
    for case in cases(o):
        with tempfile.TemporaryDirectory() as folder:
            case = replace(case, given=os.path.join(folder, "given.npz"))
            try:
                error = compare(case, kinds, o.threads, report.note)
            except Disagreement as e:
                report(f"  LEFT OUT: {e}")
                left_out += 1
                continue
            measured = measure(case, kinds, o.threads, o.seconds, o.repeat, report.note)
        label = f"{case.label():36}{o.threads:>7}"
        report(line(label, kinds, measured, error, 1, 2))
        if "ours" in measured and measured["ours"].waited is not None:
            report(f"{'':4}{waiting(measured['ours'].waited, WAITS)}")
    return left_out


def waiting(seconds, rounds):
    """What to say of the mean time that `rounds` iterations in a row wait for images."""
    return f"ours waits {1e3 * seconds:.2f} ms for images, mean of {rounds} iterations in a row"


def compare(case, kinds, threads, note):
    """Have ours write what the others are given, and compare what comes out, as `check` does."""
    case = replace(case, dropout=False)
    results = {}
    for side, kind in ({"ours": Ours} | kinds).items():
        with Workers(case, {side: kind}, threads, note) as workers:
            workers.live(lambda w: results.update({w.title: w.ask("results")}))
    return check(case, results)


# ---- by layer


def by_layer(o, report):
    """Print where the time of training iterations goes, by layer type; returns 0."""
    set_threads(o.threads)
    for case in cases(o):
        side = Ours(case, o.threads)
        for _ in range(2):
            side.run()
        seconds = time_layers(side.net)
        waited, rounds = side.wait_seconds(), o.repeat or 10
        begin = time.perf_counter()
        for _ in range(rounds):
            side.run()
        total = (time.perf_counter() - begin) / rounds
        waited = (side.wait_seconds() - waited) / rounds
        report(f"\n{case.label()}: mean of {rounds} iterations {total:.3f} s, {o.threads} threads")
        table = {name: [t / rounds for t in times] for name, times in seconds.items()}
        for text in layer_lines(table, total):
            report(text)
        report(waiting(waited, rounds))
    return 0


def time_layers(net):
    """Have a net's layers add up their time from now on: {type: [forward, backward] seconds}."""
    seconds = defaultdict(lambda: [0.0, 0.0])

    def timed(function, sums, k):
        def run(*args, **kwargs):
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                sums[k] += time.perf_counter() - begin

        return run

    for node in net.nodes:
        layer, sums = node.layer, seconds[type(node.layer).__name__]
        for verb in VERBS:
            if hasattr(layer, verb):
                setattr(layer, verb, timed(getattr(layer, verb), sums, "backward" in verb))
        if node.fused:
            node.forward_fused = timed(node.forward_fused, sums, 0)
    return seconds


def layer_lines(table, total):
    """The lines of a breakdown: {type: [forward, backward] seconds} of `total` seconds."""
    rows = sorted(table.items(), key=lambda item: -sum(item[1]))
    rows.append(("update and loop", (total - sum(map(sum, table.values())), 0)))
    python = [table.get(name, (0, 0)) for name in PYTHON_LAYERS]
    rows.append((f"the Python layers {', '.join(PYTHON_LAYERS)}", [sum(t) for t in zip(*python)]))
    yield f"{'':72}{'forward':>9}{'backward':>10}{'share':>8}"
    for name, (forward, backward) in rows:
        share = (forward + backward) / total
        yield f"{name:72}{1e3 * forward:>6.1f} ms{1e3 * backward:>7.1f} ms{share:>8.1%}"


# ---- the command line


def options():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("train", "test", "layers"))
    add = parser.add_argument
    add("--nets", type=listed(str), default=list(NETWORKS), help="default: vgg16,zf")
    add("--size", type=size, default=(600, 800), help="of the images (600x800)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    add("--sides", type=listed(str), default=list(SIDES), help=f"of {','.join(SIDES)}")
    add("--seconds", type=float, default=90, help="about how long a line may take (90)")
    add("--repeat", type=int, help="rounds, in place of --seconds")
    add("--save", action="store_true", help="write to benchmarks/results/ too")
    o = parser.parse_args()
    unknown = [side for side in o.sides if side not in SIDES]
    if unknown:
        parser.error(f"--sides: expected some of {', '.join(SIDES)}, found {unknown[0]!r}")
    return o


def main():
    """Run the table that the command line asks for."""
    o = options()
    path = Path(__file__).parent / "results" / f"detection_iterations_{o.table}.txt"
    report = Report(path if o.save else None)
    machine(report)
    kinds = available(o.sides, SIDES, report)
    failed = by_layer(o, report) if o.table == "layers" else side_by_side(o, kinds, report)
    report(f"load of the machine: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
