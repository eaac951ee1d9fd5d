"""What pycaffe has in its compiled module: the settings of the whole process, and the names of
its classes, which programs import from here or compare types with."""

import time

from demitasse.engine import device as _device
from demitasse.engine.blob import Blob, BlobVec
from demitasse.engine.errors import DeviceError
from demitasse.engine.layer import layer_types
from demitasse.engine.random import set_default_seed
from demitasse.layers.python import PythonLayer as Layer
from demitasse.solvers.parallel.place import place

from .log import init_log, log
from .pycaffe import Net
from .solvers import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    Solver,
    get_solver,
)

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "Layer",
    "NesterovSolver",
    "Net",
    "RMSPropSolver",
    "RawBlobVec",
    "SGDSolver",
    "Solver",
    "Timer",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]  # fmt: skip

__version__ = "1.0.0"  # of the Caffe whose behaviour this package has

_gpu_index = 0


def set_mode_cpu():
    """Build nets for the CPU from now on."""
    _device.set_default_device(_device.CPU)


def set_mode_gpu():
    """Build nets for the GPU chosen by `set_device` (0 by default) from now on.

    Raises: DeviceError that says what is missing: CuPy, the driver, or the GPU.
    """
    _device.set_default_device(_device.gpu_device(_gpu_index))


def set_device(index):
    """Choose the GPU that `set_mode_gpu` uses.

    Raises: DeviceError for a number that no GPU can have; otherwise as `set_mode_gpu`.
    """
    global _gpu_index
    if int(index) != index or index < 0:
        raise DeviceError("caffe.set_device", "the number of a GPU, of at least 0", repr(index))
    device = _device.gpu_device(int(index))
    _gpu_index = int(index)
    if _device.default_device() is not _device.CPU:
        _device.set_default_device(device)


def set_random_seed(seed):
    """Seed the fillers and random layers of nets that are built from now on."""
    set_default_seed(seed)


def layer_type_list():
    """The names of all layer types."""
    return layer_types()


# ---- several devices


def has_nccl():
    """Whether a program can connect its solvers itself: no, but `caffe train -gpu 0,1` can."""
    return False


class NCCL:
    """In Caffe, what sums gradients over GPUs; here it refuses, as `has_nccl` announces."""

    def __init__(self, solver, uid):
        _one_device("NCCL", "a call")

    @staticmethod
    def new_uid():
        """In Caffe, the name of a new group of GPUs."""
        _one_device("NCCL.new_uid", "a call")


def solver_count():
    """How many ranks train together: 1, or as many as `caffe train -ranks`, `-gpu` or mpirun have
    started. A Python layer that reads data takes one batch in so many."""
    return place().size


def set_solver_count(count):
    """Accepts `solver_count()`. NOTE: Caffe without NCCL takes any number, and each solver trains
    on its own."""
    if count != solver_count():
        _one_device("set_solver_count", count)


def solver_rank():
    """The number of this process among the ranks, from 0."""
    return place().rank


def set_solver_rank(rank):
    """Accepts `solver_rank()`."""
    if rank != solver_rank():
        _one_device("set_solver_rank", rank)


def set_multiprocess(several):
    """Changes nothing: it is for solvers that share work over processes."""


def _one_device(function, found):
    raise DeviceError(
        f"caffe.{function}", "training on one device (caffe.has_nccl() is False)", found,
        "Use caffe.get_solver(file).solve() on one device, or `caffe train -gpu 0,1`.",
    )  # fmt: skip


# ---- small things


class Timer:
    """A stopwatch; `ms` is the time between `start()` and `stop()`, or until now if it runs."""

    def __init__(self):
        self._start = self._stop = None

    def start(self):
        """Start, from zero."""
        self._start, self._stop = time.perf_counter(), None

    def stop(self):
        """Stop, if it runs."""
        if self._stop is None and self._start is not None:
            self._stop = time.perf_counter()

    @property
    def ms(self):
        """Milliseconds; 0 if it was never started."""
        if self._start is None:
            return 0.0
        end = time.perf_counter() if self._stop is None else self._stop
        return 1e3 * (end - self._start)


class RawBlobVec(list):
    """The type that pycaffe gives to a layer's `bottom` and `top`."""
