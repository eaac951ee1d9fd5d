"""Solvers from solver files."""

import os

from ..engine.device import CPU, default_device, gpu_device
from ..engine.proto import caffe_pb2
from ..engine.prototxt import read_solver
from .solver import Solver


def make_solver(param, path=None, **options):
    """The solver of a SolverParameter, or of the solver file at a path.

    Args:
        param: a SolverParameter or a path.
        path: where the SolverParameter was read from, if it was.
        options: of `Solver`.
    """
    if isinstance(param, (str, os.PathLike)):
        path, param = param, read_solver(param)
    folder = None if path is None else os.path.dirname(path) or "."
    return Solver(param, folder, path=path, **options)


def device_of(param):
    """The device that a SolverParameter's solver_mode and device_id ask for, if they are written.

    `Solver` itself does not ask: in pycaffe the program chooses (caffe.set_mode_gpu), and
    solver_mode is read by the command `caffe train` alone.

    Raises:
        DeviceError: it asks for a GPU, and there is none.
    """
    if not param.HasField("solver_mode"):
        return default_device()
    if param.solver_mode == caffe_pb2.SolverParameter.GPU:
        return gpu_device(param.device_id)
    return CPU
