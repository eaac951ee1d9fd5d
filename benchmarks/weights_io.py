"""Time and memory of loading and saving weights as many as VGG16's (138 million, 553 MB).

    python benchmarks/weights_io.py [--folder DIR] [--repeat N]

Each line is one process: "moving the bytes" reads (writes) a file of the same size into (from)
arrays that exist already, and is what the disk and the memory cost anyway; the other lines do what
a net does, which is copying each blob from the file into its own array, or saving its arrays.
"beyond the arrays" is the peak of resident memory less the arrays themselves and the imports.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VGG16 = [
    *[(f"conv{i}", (out, inputs, 3, 3)) for i, (inputs, out) in enumerate(
        [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512),
         (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)])],
    ("fc6", (4096, 25088)),
    ("fc7", (4096, 4096)),
    ("fc8", (1000, 4096)),
]  # fmt: skip
BINARY, HDF5, PLAIN = "vgg16.caffemodel", "vgg16.caffemodel.h5", "vgg16.bytes"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, help="where to write (2 GB); default: temporary")
    options.add_argument("--repeat", type=int, default=3, help="runs of each; the best counts")
    options.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.task:
        print(json.dumps(measure(TASKS[arguments.task], arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        compare(folder, arguments.repeat)


def compare(folder, repeat):
    """Runs the tasks in processes of their own, in turn, and prints the best of each."""
    best = {}
    for _ in range(repeat):
        for task in TASKS:
            result = run(task, folder)
            if task not in best or result["seconds"] < best[task]["seconds"]:
                best[task] = result
    size = os.path.getsize(folder / BINARY)
    print(f"{sum(map(count, VGG16)) / 1e6:.1f} million parameters, {size / 1e6:.0f} MB")
    print(f"{'':34}{'seconds':>9}{'more than moving':>18}{'beyond the arrays':>19}")
    for task, result in best.items():
        base = best["write the bytes" if task.startswith(("save", "write")) else "read the bytes"]
        more = f"{result['seconds'] - base['seconds']:+.2f} s"
        extra = f"{result['extra'] / size:.2f} x file"
        print(f"{task:34}{result['seconds']:9.2f}{more:>18}{extra:>19}")


def run(task, folder):
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(task, folder):
    """Runs one task on arrays that exist; {"seconds": .., "extra": bytes beyond the arrays}."""
    import demitasse.engine.caffemodel
    import demitasse.engine.hdf5  # noqa: F401

    if "hdf5" in task.__name__:
        import h5py  # noqa: F401
    loads = task.__name__.startswith(("load", "read"))
    before = resident("VmRSS")
    arrays = make_arrays(fill=2 if loads else 1)
    began = time.perf_counter()
    task(folder, arrays)
    seconds = time.perf_counter() - began
    peak = resident("VmHWM")
    blobs = [blob for layer in arrays.values() for blob in layer]
    if not all((blob == 1).all() for blob in blobs):
        raise SystemExit(f"{task.__name__}: wrong numbers")
    return {"seconds": seconds, "extra": max(0, peak - before - sum(b.nbytes for b in blobs))}


def count(layer):
    shape = layer[1]
    return math.prod(shape) + shape[0]


def make_arrays(fill):
    """The arrays of a net, every page of them touched."""
    import numpy as np

    return {
        name: [np.full(s, fill, np.float32) for s in (shape, shape[0])] for name, shape in VGG16
    }


def resident(key):
    """A memory figure of this process in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


# ----------------------------------------------------------------------------------------- tasks


def write_bytes(folder, arrays):
    with open(folder / PLAIN, "wb") as file:
        for blobs in arrays.values():
            for blob in blobs:
                file.write(memoryview(blob).cast("B"))
        file.flush()
        os.fsync(file.fileno())


def save_binary(folder, arrays):
    from demitasse.engine import caffemodel
    from demitasse.engine.proto import caffe_pb2

    net = caffe_pb2.NetParameter(name="vgg16", layer=[{"name": name} for name in arrays])
    caffemodel.write_weights(folder / BINARY, net, arrays.values())


def save_hdf5(folder, arrays):
    from demitasse.engine import hdf5

    layers = ((name, dict(enumerate(blobs))) for name, blobs in arrays.items())
    hdf5.write_weights_h5(folder / HDF5, layers)


def read_bytes(folder, arrays):
    with open(folder / PLAIN, "rb") as file:
        for blobs in arrays.values():
            for blob in blobs:
                file.readinto(memoryview(blob).cast("B"))


def load_binary(folder, arrays):
    from demitasse.engine import caffemodel

    for name, _, blobs in caffemodel.read_weights(folder / BINARY):
        for target, blob in zip(arrays[name], blobs):
            target[...] = blob.data


def load_hdf5(folder, arrays):
    from demitasse.engine import hdf5

    for name, blobs in hdf5.read_weights_h5(folder / HDF5):
        for i, blob in blobs.items():
            arrays[name][i][...] = blob.data


TASKS = {
    "write the bytes": write_bytes,
    "save .caffemodel": save_binary,
    "save .caffemodel.h5": save_hdf5,
    "read the bytes": read_bytes,
    "load .caffemodel": load_binary,
    "load .caffemodel.h5": load_hdf5,
}

if __name__ == "__main__":
    main()
