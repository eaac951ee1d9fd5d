"""VGG16's convolutions, layer by layer: ours beside PyTorch's, where PyTorch is installed.

    python benchmarks/convolution.py [--sizes 600x800 224x224] [--batch 1] [--repeat 7]

One process, in turn: ours, PyTorch on NCHW, PyTorch on channels_last, again and again, so that all
meet the same state of the machine. Results are compared before times are. Each figure is the
minimum and the median in milliseconds; a ratio is PyTorch's median by ours. Layers of the same
shape are measured once and count as often as VGG16 has them.
"""

import argparse
import os
import platform
import statistics
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from report import cpu_name

# Name, input and output channels, by how much the image was pooled, and how many there are.
LAYERS = [
    ("conv1_1", 3, 64, 1, 1), ("conv1_2", 64, 64, 1, 1),
    ("conv2_1", 64, 128, 2, 1), ("conv2_2", 128, 128, 2, 1),
    ("conv3_1", 128, 256, 4, 1), ("conv3_2-3", 256, 256, 4, 2),
    ("conv4_1", 256, 512, 8, 1), ("conv4_2-3", 512, 512, 8, 2),
    ("conv5_1-3", 512, 512, 16, 3),
]  # fmt: skip
PASSES = ("forward", "backward data", "backward weight")
PAUSE = 0.02  # seconds between two sides: threads of OpenMP wait actively for a while
TOLERANCE = 1e-4


class Ours:
    """Our kernels, on arrays as blobs have them; `dw` is only added to."""

    name = "ours"

    def __init__(self, x, weight, bias, dy, threads):
        import numba

        from demitasse.engine.device import CPU
        from demitasse.engine.kernels.cpu import convolution
        from demitasse.engine.kernels.geometry import ConvGeometry

        numba.set_num_threads(threads)
        size, one = x.shape[2:], (1, 1)
        g = ConvGeometry(
            len(x), x.shape[1], len(weight), size, size, (3, 3), one, one, one
        )  # fmt: skip

        def blob(array, fill=True):
            made = CPU.zeros(array.size, array.dtype).reshape(array.shape)
            made[...] = array if fill else 0
            return made

        x, weight, bias, dy = map(blob, (x, weight, bias, dy))
        y, dx, dw = (blob(a, fill=False) for a in (dy, x, weight))
        self.results = y, dx, dw
        self.run = {
            "forward": lambda: convolution.forward(x, weight, bias, y, g),
            "backward data": lambda: convolution.backward_data(dy, weight, dx, g),
            "backward weight": lambda: convolution.backward_weight(x, dy, dw, g),
        }


class Torch:
    """PyTorch on arrays that are in its preferred order from the start."""

    name, layout = "torch NCHW", "contiguous_format"

    def __init__(self, x, weight, bias, dy, threads):
        import torch

        torch.set_num_threads(threads)
        layout = {"memory_format": getattr(torch, self.layout)}
        bias = torch.from_numpy(bias)
        x, weight, dy = (torch.from_numpy(a).contiguous(**layout) for a in (x, weight, dy))
        self.results = [None] * 3
        one, none = [1, 1], [0, 0]

        def forward():
            with torch.no_grad():
                self.results[0] = torch.nn.functional.conv2d(x, weight, bias, padding=1)

        def backward(index):
            mask = [index == k for k in range(3)]
            gradients = torch.ops.aten.convolution_backward(
                dy, x, weight, [len(bias)], one, one, one, False, none, 1, mask
            )
            self.results[1 + index] = gradients[index]

        steps = forward, lambda: backward(0), lambda: backward(1)
        self.run = dict(zip(PASSES, steps))


class TorchChannelsLast(Torch):
    name, layout = "torch channels_last", "channels_last"


def sides():
    """What is compared; ours comes first."""
    try:
        version("torch")
    except PackageNotFoundError:
        return [Ours]
    return [Ours, Torch, TorchChannelsLast]


def arrays(inputs, outputs, height, width, batch):
    """x, weight, bias and dy of a layer; activations keep their size."""
    rng = np.random.default_rng(inputs + outputs)
    normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)  # noqa: E731
    weight = normal(outputs, inputs, 3, 3) / np.float32(3 * inputs**0.5)
    return normal(batch, inputs, height, width), weight, normal(outputs), normal(
        batch, outputs, height, width
    )  # fmt: skip


def measure(layer, size, batch, threads, repeat):
    """Seconds of every pass of every side: {(pass, side): [seconds, ...]}."""
    name, inputs, outputs, pooled, _ = layer
    height, width = (-(-n // pooled) for n in size)
    made = [s(*arrays(inputs, outputs, height, width, batch), threads) for s in sides()]
    passes = [p for p in PASSES if inputs > 3 or p != "backward data"]
    times = {(p, side.name): [] for p in passes for side in made}
    for turn in range(repeat + 1):  # the first one warms up
        for p in passes:
            for side in made:
                time.sleep(PAUSE)
                begin = time.perf_counter()
                side.run[p]()
                if turn:
                    times[p, side.name].append(time.perf_counter() - begin)
        if turn == 0:
            compare(name, made)
    return times


def compare(name, made):
    """Stops where the sides' results differ."""
    for other in made[1:]:
        for ours, theirs in zip(made[0].results, other.results):
            if theirs is not None:
                theirs = theirs.numpy()
                error = np.abs(ours - theirs).max() / np.abs(theirs).max()
                if not error < TOLERANCE:
                    raise SystemExit(f"{name}: {other.name} differs by {error:.1e} of the largest")


def table(title, times, names):
    """Print one pass: lines of layers and their sum over VGG16."""
    print(f"\n{title:18}" + "".join(f"{name:>24}" for name in names) + f"{'ratio':>8}")
    totals = {name: [0, 0] for name in names}
    for (label, *_, count), seconds in zip(LAYERS, times):
        row = {n: (min(seconds[title, n]), statistics.median(seconds[title, n])) for n in names
               if (title, n) in seconds}  # fmt: skip
        if row:
            print(line(label, row))
        for name, figures in row.items():
            for k in (0, 1):
                totals[name][k] += count * figures[k]
    print(line("all 13", totals))
    return totals


def line(label, row):
    """One line of a table; the ratio is to the better of the others."""
    cells = "".join(f"{1e3 * low:12.2f} /{1e3 * mid:9.2f} " for low, mid in row.values())
    ours, *others = (mid for _, mid in row.values())
    return f"{label:18}{cells}" + (f"{min(others) / ours:8.2f}" if others else "")


def machine(threads):
    """Date, processor, load and versions, in a few lines."""
    packages = []
    for package in ("numpy", "numba", "llvmlite", "torch"):
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            packages.append(f"no {package}")
    load = f", load {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{date.today()}, {cpu_name()}, {threads} threads{load}\n"
        f"Python {platform.python_version()}, {', '.join(packages)}"
    )


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sizes", nargs="+", default=["600x800", "224x224"])
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--repeat", type=int, default=7)
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = options.parse_args()
    names = [side.name for side in sides()]
    print(machine(arguments.threads))
    for text in arguments.sizes:
        size = tuple(int(n) for n in text.split("x"))
        measured = [
            measure(layer, size, arguments.batch, arguments.threads, arguments.repeat)
            for layer in LAYERS
        ]
        print(f"\n== {arguments.batch} x 3 x {size[0]} x {size[1]}: min / median ms")
        totals = [table(p, measured, names) for p in PASSES]
        whole = {n: [sum(t[n][k] for t in totals) for k in (0, 1)] for n in names}
        print("\n" + line("whole step", whole))
    print("\n" + machine(arguments.threads).splitlines()[0])


if __name__ == "__main__":
    main()
