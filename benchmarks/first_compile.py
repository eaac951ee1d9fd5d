"""What compiling the kernels takes, once: `python benchmarks/first_compile.py [--save]`.

Training VGG16 on one image of 224x224, and Faster R-CNN with VGG16 end to end on images of 600x800,
each in two processes: the first finds no kernel on disk (NUMBA_CACHE_DIR is an empty folder), the
second finds the first one's. Prints for each process the seconds of its first iteration and the
median of five later ones. --save also writes benchmarks/results/first_compile.txt.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Report, machine

WHAT = {"vgg16": "VGG16 224x224", "faster_rcnn": "Faster R-CNN VGG16 600x800"}


def train(what):
    """Seconds of six iterations."""
    from cases import Case
    from detection_cases import DetectorCase
    from detection_sides import Ours
    from ours import Demitasse

    threads = len(os.sched_getaffinity(0))
    if what == "vgg16":
        side = Demitasse(Case("vgg16", "train", 1), threads)
    else:
        side = Ours(DetectorCase("vgg16", "train"), threads)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        side.run()
        seconds.append(time.perf_counter() - start)
    return seconds


def main():
    """Run both trainings in processes of their own, twice each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help="write to benchmarks/results/ too")
    parser.add_argument("--train", choices=WHAT, help=argparse.SUPPRESS)  # such a process
    o = parser.parse_args()
    if o.train:
        print(*train(o.train))
        return
    path = Path(__file__).parent / "results" / "first_compile.txt"
    report = Report(path if o.save else None)
    machine(report)
    report(f"\n{'seconds':28}{'kernels':>16}{'first iteration':>18}{'later, median':>16}")
    for what, title in WHAT.items():
        with tempfile.TemporaryDirectory() as folder:
            for kernels in ("none on disk", "on disk"):
                command = [sys.executable, __file__, "--train", what]
                printed = subprocess.run(
                    command, env={**os.environ, "NUMBA_CACHE_DIR": folder}, check=True,
                    stdout=subprocess.PIPE, text=True,
                ).stdout  # fmt: skip
                first, *later = map(float, printed.splitlines()[-1].split())
                report(f"{title:28}{kernels:>16}{first:>18.2f}{statistics.median(later):>16.2f}")


if __name__ == "__main__":
    main()
