"""What the benchmark commands share: what they print, the machine's line, kinds of options."""

import os
import platform
from datetime import date
from importlib import metadata
from pathlib import Path


class Report:
    """Prints lines, and writes them to a file too if there is one."""

    def __init__(self, path=None):
        self.path, self.lines, self.noted = path, [], set()

    def __call__(self, line=""):
        print(line, flush=True)
        self.lines.append(line)
        if self.path:
            self.path.write_text("\n".join(self.lines) + "\n")

    def note(self, line):
        """Print a remark, once."""
        if line not in self.noted:
            self.noted.add(line)
            self(f"  ({line})")


def machine(report):
    """Print date, machine and versions."""
    cores = len(os.sched_getaffinity(0))
    report(f"{date.today()}, {cpu_name()}, {cores} cores, {platform.system()} {platform.release()}")
    versions = [f"Python {platform.python_version()}"]
    for package in ("demitasse", "numpy", "numba", "torch", "onnxruntime"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    report(", ".join([*versions, f"OpenCV {opencv_version() or 'none'}"]))


def cpu_name():
    """The processor, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def opencv_version():
    """The version of the OpenCV package that is installed, "" without one."""
    for kind in ("contrib-python-headless", "python-headless", "contrib-python", "python"):
        try:
            return metadata.version(f"opencv-{kind}")
        except metadata.PackageNotFoundError:
            continue
    return ""


# ---- kinds of options


def size(text):
    """600x800 as (600, 800)."""
    height, width = text.lower().split("x")
    return int(height), int(width)


def listed(kind):
    """What reads 1,2,3 as a list of `kind`."""
    return lambda text: [kind(part) for part in text.split(",")]
