"""What the GPU benchmarks share: what is missing here, clocks, versions, tables."""

import argparse
import importlib
import importlib.util
import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER)]  # for the files beside this one, which are run as scripts too

MATHS = ("tf32", "float32", "float16", "bfloat16")


def missing(*packages):
    """Why nothing can be measured here, in words; "" if it can."""
    for name in ("demitasse", "numpy", "cupy", *packages):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    from demitasse.engine.device import gpu_count

    return "" if gpu_count() else "there is no NVIDIA GPU, or no driver for it"


def torch_or_none(math, say):
    """PyTorch, set to compute in the same precision, or None if it cannot be measured."""
    if importlib.util.find_spec("torch") is None:
        say("without PyTorch: not installed")
        return None
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        say("without PyTorch: it sees no GPU")
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = math != "float32"
    torch.backends.cudnn.benchmark = True
    return torch


def autocast(torch, math):
    """A context in which PyTorch computes with halves where it does so safely, if asked to."""
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(math)
    return torch.autocast("cuda", dtype, enabled=dtype is not None)


def use_gpu(math):
    """Compute on GPU 0 with this precision from now on; returns the device."""
    from demitasse.engine import device, precision

    os.environ[precision.VARIABLE] = math  # of nets that are built without a setting
    precision.use(precision.Precision(math))
    device.set_default_device(device.gpu_device(0))
    return device.default_device()


class Report:
    """Prints lines, and writes them to a file too if there is one."""

    def __init__(self, path=None):
        self.path, self.lines = path, []

    def __call__(self, line=""):
        print(line, flush=True)
        self.lines.append(line)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("\n".join(self.lines) + "\n")


def machine(report, math):
    """Print date, device and versions."""
    import cupy

    from demitasse.engine.kernels.cuda import cudnn_library

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    runtime = cupy.cuda.runtime
    library = cudnn_library.library_of(
        importlib.import_module("demitasse.engine.device").gpu_device(0)
    )
    report(f"{time.strftime('%Y-%m-%d')}, {properties['name'].decode()}, "
           f"driver for CUDA {runtime.driverGetVersion()}, {platform.system()}")  # fmt: skip
    cudnn = library.frontend.backend_version() if library else "none: im2col and cuBLAS"
    versions = [f"cuDNN {cudnn}"]
    for package in ("nvidia-cudnn-frontend", "cupy-cuda13x", "cupy-cuda12x", "torch", "torchvision",
                    "numpy"):  # fmt: skip
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    report(f"Python {platform.python_version()}, {', '.join(versions)}")
    report(f"products in {math}; milliseconds, minimum / median of passes; the ratio is the median "
           "of PyTorch's faster layout to ours: above 1 ours is faster")  # fmt: skip


def synchronize():
    """Wait for the GPU, whoever has asked it for something."""
    import cupy

    cupy.cuda.runtime.deviceSynchronize()


def take_turns(sides, seconds=0.5, rounds=7, least=2e-3):
    """Times of several functions in turn: {name: [milliseconds of one call, ...]}.

    A call is repeated until it takes `least` seconds before the GPU is waited for, so that what is
    measured of a short one is the GPU's time or the host's, whichever is more.
    """
    counts = {}
    for name, function in sides.items():
        for _ in range(3):  # plans, kernels and memory
            function()
        counts[name] = max(1, min(200, round(least / max(_time(function, 1), 1e-6))))
    taken = {name: [] for name in sides}
    begin = time.perf_counter()
    for turn in range(rounds):
        for name, function in sides.items():
            taken[name].append(1e3 * _time(function, counts[name]))
        if turn >= 2 and time.perf_counter() - begin > seconds * len(sides):
            break
    return taken


def _time(function, count):
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        function()
    synchronize()
    return (time.perf_counter() - start) / count


def cells(taken, names, width=20):
    """A table's cells: minimum and median of each name, then the ratio."""
    median = {name: statistics.median(values) for name, values in taken.items()}
    text = ""
    for name in names:
        cell = f"{min(taken[name]):.3f} / {median[name]:.3f}" if name in taken else "-"
        text += f"{cell:>{width}}"
    others = [median[n] for n in names[1:] if n in median]
    ours = median.get(names[0])
    return text + (f"{min(others) / ours:>8.2f}" if others and ours else f"{'-':>8}")


def heads(label, names, width=20):
    """The line above the cells."""
    return f"{label:44}" + "".join(f"{n:>{width}}" for n in names) + f"{'ratio':>8}"


def options(doc, **more):
    """The command line: --math, --only, --save, --seconds, and more flags with their defaults."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--math", choices=MATHS, default="tf32", help="precision of products")
    parser.add_argument("--only", default="", help="lines whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.5, help="a side and line, about")
    parser.add_argument("--save", action="store_true", help="write to benchmarks/results too")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def main(name, doc, measure, needs=(), **more):
    """Run `measure(options, report, torch)` if it can be; returns the exit status."""
    o = options(doc, **more)
    reason = missing(*needs)
    if reason:
        print(f"{name}: skipped, because {reason}")
        return 0
    path = FOLDER / "results" / f"{name}_{o.math}.txt" if o.save else None
    report = Report(path)
    use_gpu(o.math)
    torch = torch_or_none(o.math, report)
    machine(report, o.math)
    return measure(o, report, torch) or 0


def attempt(report, label, work):
    """`work()`, or a line that says why not: one line's failure must not cost all others."""
    try:
        return work()
    except Exception as error:  # of any library, on a machine seen for the first time
        report(f"{label:44}  FAILED: {type(error).__name__}: {str(error)[:300]}")
        return None
