"""Where arrays live and who computes on them. The only file that may import CuPy."""

import importlib

import numpy as np

from .errors import DeviceError

_LINE = 64  # bytes of a line of the cache


class _Kernels:
    """The heavy operations of one device, a module each, imported at first use."""

    def __init__(self, package):
        self._package = package

    def __getattr__(self, name):
        try:
            module = importlib.import_module(f"{self._package}.{name}")
        except ModuleNotFoundError as e:
            raise AttributeError(f"no kernel module {name!r} in {self._package}") from e
        setattr(self, name, module)
        return module


class CpuDevice:
    """The host: NumPy arrays, kernels in Numba and BLAS.

    Attributes:
        xp: the array module that layers compute with.
        kernels: `kernels.<module>.<function>`, for example `kernels.pooling.max_forward`.
        normalises_convolutions: whether `kernels.convolution.forward` takes `norm`.
    """

    name = "cpu"
    xp = np
    normalises_convolutions = True

    def __init__(self):
        self.kernels = _Kernels(f"{__package__}.kernels.cpu")

    def zeros(self, count, dtype):
        """A flat array of zeros; pages are taken from the system when first written.

        It begins at a line of the cache, so that vectors do not straddle two.
        """
        size = count * np.dtype(dtype).itemsize
        memory = np.zeros(size + _LINE, np.uint8)
        begin = -memory.ctypes.data % _LINE
        return memory[begin : begin + size].view(dtype)

    def __repr__(self):
        return "CpuDevice()"


CPU = CpuDevice()
_default = CPU


def default_device():
    """The device of nets that are built without naming one."""
    return _default


def set_default_device(device):
    """Set the device of nets built from now on."""
    global _default
    _default = device


def gpu_count():
    """The number of usable NVIDIA GPUs; 0 without CuPy or without a driver."""
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount()
    except Exception:
        return 0


def gpu_device(index):
    """The GPU with the given number."""
    raise DeviceError(
        f"GPU {index}",
        "a build with GPU kernels",
        "CPU kernels only",
        "Use caffe.set_mode_cpu(), solver_mode: CPU, or --cpu.",
    )
