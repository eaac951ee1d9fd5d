"""pycaffe, without Caffe: nets, solvers and files of Caffe in pure Python.

For example:

    net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
    net.blobs["data"].data[...] = image
    net.forward()["prob"].argmax()
"""

from demitasse.engine import device as _device
from demitasse.engine.layer import layer_types as _layer_types
from demitasse.engine.phase import Phase
from demitasse.engine.random import set_default_seed as _set_default_seed
from demitasse.layers.python import PythonLayer as Layer
from demitasse.layers.python import allow_python_layers

from . import coord_map, io, proto
from .classifier import Classifier
from .detector import Detector
from .log import init_log, log
from .net_spec import NetSpec, layers, params, to_proto
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

__version__ = "1.0.0"  # of the Caffe whose behaviour this package has

TRAIN, TEST = Phase.TRAIN, Phase.TEST

_gpu_index = 0


def set_mode_cpu():
    """Build nets for the CPU from now on."""
    _device.set_default_device(_device.CPU)


def set_mode_gpu():
    """Build nets for the GPU chosen by `set_device` (0 by default) from now on."""
    _device.set_default_device(_device.gpu_device(_gpu_index))


def set_device(index):
    """Choose the GPU that `set_mode_gpu` uses."""
    global _gpu_index
    _gpu_index = int(index)
    if _device.default_device() is not _device.CPU:
        set_mode_gpu()


def set_random_seed(seed):
    """Seed the fillers and random layers of nets that are built from now on."""
    _set_default_seed(seed)


def layer_type_list():
    """The names of all layer types."""
    return _layer_types()


__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "allow_python_layers",
    "coord_map",
    "get_solver",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "params",
    "proto",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
    "to_proto",
]  # fmt: skip
