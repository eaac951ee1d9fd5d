"""All figures and tests of the GPU in one go, on a bare machine: python -m benchmarks.gpu_all

    python -m benchmarks.gpu_all [--wheels FOLDER] [--out FOLDER] [--minutes 8] [--only NAME]

Needs an NVIDIA GPU, CuPy, PyTorch with torchvision, and pytest; nothing is fetched from a network,
and the package need not be installed. Wheels in FOLDER (nvidia_cudnn_frontend-1.28.0, and whatever
else is missing there) are unpacked into a temporary folder first. What is missing is skipped by
name.
Steps run one after the other, each for a share of the time that is left, so that all is done in
`--minutes`; what they print goes to FOLDER too (benchmarks/results by default), a file a step.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEEL = "nvidia_cudnn_frontend-1.28.0"
# -P: no imports from the working folder, whose `demitasse` lacks what is installed beneath it.
PYTHON = (sys.executable, "-P")
OURS = ("numpy", "cupy", "google.protobuf", "yaml", "numba", "cv2")  # what the package imports
# Name, arguments of Python's -m, modules that it cannot do without, at most so many seconds.
STEPS = [
    ("tests", ["pytest", "-q", "-m", "gpu", "tests/cuda", "tests/test_golden.py",
               "tests/parallel/test_nccl.py", "-p", "no:cacheprovider", "--tb=short",
               "--continue-on-collection-errors"],
     ("pytest", *OURS), 150),
    ("detection_tf32", ["benchmarks.gpu_detection", "--math", "tf32"], OURS, 90),
    ("kernels_tf32", ["benchmarks.gpu_kernels", "--math", "tf32", "--seconds", "0.1"], OURS, 90),
    ("networks_tf32", ["benchmarks.gpu_networks", "--math", "tf32", "--seconds", "0.4"], OURS, 90),
    ("detection_float16", ["benchmarks.gpu_detection", "--math", "float16"], OURS, 60),
    ("detection_float32", ["benchmarks.gpu_detection", "--math", "float32"], OURS, 60),
]  # fmt: skip


def main():
    """Run all steps; returns how many failed."""
    o = options()
    end = time.monotonic() + 60 * o.minutes
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="demitasse-gpu-") as site:
        environment = prepare(Path(site), o.wheels)
        if not any(Path(site).glob("cudnn")) and importlib.util.find_spec("cudnn") is None:
            print(f"nvidia-cudnn-frontend: not installed, and no {WHEEL}*.whl in --wheels: "
                  "convolutions go through im2col and cuBLAS")  # fmt: skip
        for name, arguments, modules, most in STEPS:
            if o.only and o.only not in name:
                continue
            why = lacking(modules, environment)
            left = end - time.monotonic()
            if why or left < 10:
                print(f"== {name}: skipped, because {why or 'the time is up'}", flush=True)
                continue
            if name == "tests" and not lacking(("xdist",), environment):
                arguments = [*arguments, "-n", "8"]  # what takes long is to compile, on the host
            print(f"== {name}: {' '.join(arguments)}", flush=True)
            if not run(arguments, environment, min(most, left), out / f"gpu_{name}.txt"):
                failed.append(name)
    print(f"done, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}; "
          f"{o.minutes * 60 - (end - time.monotonic()):.0f} s")  # fmt: skip
    return len(failed)


def options():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", help="a folder of wheels to use beside what is installed")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results"))
    parser.add_argument("--minutes", type=float, default=7.75, help="for all steps together")
    parser.add_argument("--only", default="", help="steps whose name contains this")
    return parser.parse_args()


def prepare(site, wheels):
    """The environment of the steps: our packages under their installed names, and the wheels."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        folders = tomllib.load(file)["tool"]["setuptools"]["package-dir"]
    # First `demitasse` itself, then what is beneath it.
    for package, folder in sorted(folders.items()):
        target = site.joinpath(*package.split("."))
        if "." in package or package != "demitasse":
            target.symlink_to(ROOT / folder, target_is_directory=True)
        else:
            target.mkdir()
            for file in (ROOT / folder).glob("*.py"):
                (target / file.name).symlink_to(file)
    if wheels:
        found = sorted(map(str, Path(wheels).glob("*.whl")))
        if found:
            subprocess.run(
                [*PYTHON, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
                 "--target", str(site), *found],
                check=False,
            )  # fmt: skip
    path = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1"}


def lacking(modules, environment):
    """Which of the modules cannot be found, in words; "" for none."""
    text = """
import importlib.util, sys
for name in sys.argv[1:]:
    parts = name.split(".")
    names = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
    if any(importlib.util.find_spec(part) is None for part in names):
        print(name)
"""
    done = subprocess.run(
        [*PYTHON, "-c", text, *modules], env=environment, cwd=ROOT, capture_output=True,
        text=True,
    )  # fmt: skip
    found = done.stdout.split()
    return f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'} missing" if found else ""


def run(arguments, environment, seconds, path):
    """Run one step, showing and keeping what it prints; whether it ended well and in time."""
    with open(path, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*PYTHON, "-m", *arguments], env=environment, cwd=ROOT, stdout=file,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            status = f"stopped after {seconds:.0f} s"
    text = path.read_text(encoding="utf-8", errors="replace")
    print(text[-20000:], end="" if text.endswith("\n") else "\n")
    print(f"-- {path.name}: {status}", flush=True)
    return status == 0


def _end(process):
    """Stop a step as Ctrl-C does, which has pytest say what failed so far; then by force."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(min(main(), 1))
