"""Where arrays live and who computes on them. The only file that may import CuPy."""

import functools
import importlib

import numpy as np

from .errors import DeviceError
from .gpu import GpuDevice

_LINE = 64  # bytes of a line of the cache
_OLD_DRIVER, _NO_DEVICE = 35, 100  # cudaErrorInsufficientDriver, cudaErrorNoDevice


class Kernels:
    """The heavy operations of one device, a module each, imported at first use."""

    def __init__(self, package):
        self._package = package

    def __getattr__(self, name):
        full_name = f"{self._package}.{name}"
        try:
            module = importlib.import_module(full_name)
        except ModuleNotFoundError as e:
            if e.name != full_name:
                raise  # the module is there, and misses another
            raise AttributeError(f"no kernel module {name!r} in {self._package}") from e
        setattr(self, name, module)
        return module


class CpuDevice:
    """The host: NumPy arrays, kernels in Numba and BLAS.

    Attributes:
        xp: the array module that layers compute with.
        kernels: `kernels.<module>.<function>`, for example `kernels.pooling.max_forward`.
        normalises_convolutions: whether `kernels.convolution.forward` takes `norm`.
        is_host: whether its arrays are NumPy's.
        transfers: None, because nothing is copied.
    """

    name = "cpu"
    xp = np
    normalises_convolutions = True
    is_host = True
    transfers = None

    def __init__(self):
        self.kernels = Kernels(f"{__package__}.kernels.cpu")

    def zeros(self, count, dtype):
        """A flat array of zeros; pages are taken from the system when first written.

        It begins at a line of the cache, so that vectors do not straddle two.
        """
        size = count * np.dtype(dtype).itemsize
        memory = np.zeros(size + _LINE, np.uint8)
        begin = -memory.ctypes.data % _LINE
        return memory[begin : begin + size].view(dtype)

    def activate(self):
        """Before a thread computes: nothing to choose here."""

    def to_host(self, array):
        """The array itself, which is on the host."""
        return array

    def to_device(self, array, out=None):
        """The array itself, or its values in `out`."""
        if out is None:
            return array
        out[...] = array
        return out

    def synchronize(self):
        """Computation is done when a call returns."""

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


@functools.cache
def gpu_device(index):
    """The GPU with the given number.

    Raises: DeviceError that tells apart a missing CuPy, a missing or old driver, and a missing GPU.
    """
    where = f"GPU {index}"
    cupy = _import_cupy(where)
    count = _count_gpus(cupy, where)
    if not 0 <= index < count:
        raise DeviceError(
            where, f"a number from 0 to {count - 1}", f"{count} GPU(s)",
            "nvidia-smi lists them; CUDA_VISIBLE_DEVICES may hide some.",
        )  # fmt: skip
    device = GpuDevice(index, cupy, Kernels(f"{__package__}.kernels.cuda"))
    device.activate()
    return device


_OR_CPU = "Or compute on the CPU: caffe.set_mode_cpu(), solver_mode: CPU, or --cpu."


def _import_cupy(where):
    try:
        import cupy
    except ModuleNotFoundError as e:
        if e.name != "cupy":
            raise
        raise DeviceError(
            where, "CuPy", "that it is not installed",
            f'pip install "demitasse[gpu]", which needs a driver for CUDA 13 (580 or later); for '
            f"one for CUDA 12: pip install cupy-cuda12x. {_OR_CPU}",
        ) from None  # fmt: skip
    except ImportError as e:
        raise DeviceError(
            where, "CuPy", f"an installation that does not load: {e}",
            f"Install exactly one of cupy-cuda13x and cupy-cuda12x anew. {_OR_CPU}",
        ) from e  # fmt: skip
    return cupy


def _count_gpus(cupy, where):
    """The number of GPUs, at least 1."""
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as e:
        _refuse_driver(runtime, e, where)
    if not count:
        _refuse_no_gpu(where)
    return count


def _refuse_driver(runtime, error, where):
    if error.status == _NO_DEVICE:
        _refuse_no_gpu(where)
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if error.status == _OLD_DRIVER and not driver:
        raise DeviceError(
            where, "an NVIDIA driver", "none",
            f"Install NVIDIA's driver and check it with nvidia-smi. {_OR_CPU}",
        ) from error  # fmt: skip
    if error.status == _OLD_DRIVER:
        raise DeviceError(
            where, f"a driver for CUDA {_version(needed)}, which CuPy was built for",
            f"one for CUDA {_version(driver)}",
            f"Update NVIDIA's driver, or install the CuPy of the older CUDA: pip install "
            f"cupy-cuda{driver // 1000}x in place of the present one. {_OR_CPU}",
        ) from error  # fmt: skip
    raise DeviceError(
        where, "CUDA to start", str(error), f"Check the driver with nvidia-smi. {_OR_CPU}"
    ) from error


def _refuse_no_gpu(where):
    raise DeviceError(
        where, "an NVIDIA GPU", "a driver that sees none",
        f"nvidia-smi lists them; CUDA_VISIBLE_DEVICES may hide them. {_OR_CPU}",
    ) from None  # fmt: skip


def _version(number):
    return f"{number // 1000}.{number % 1000 // 10}"


def device_of(array):
    """The device on which an array lies."""
    if isinstance(array, np.ndarray):
        return CPU
    device = array.device
    return device if hasattr(device, "kernels") else gpu_device(device.id)
