"""A device without hardware: it takes the GPU's path, on the host, and is strict about it.

Arrays are StrictArrays, which raise wherever host and device would be mixed. Kernels are those of
the GPU: their CUDA text is compiled as C++ for the host. Tests run whole trainings on it.
"""

import contextlib

import numpy as np

from . import strict_array
from .device import CPU, Kernels
from .strict_array import StrictArray, StrictModule


class StrictDevice:
    """Stands in for a GPU.

    Args:
        memory: bytes that may be asked for in one go before a MemoryError, as a GPU has.
        kernels: what to use for `kernels`; the GPU's, compiled for the host, by default.

    Attributes: as of `GpuDevice`.
    """

    name = "strict"
    is_host = False
    normalises_convolutions = False

    def __init__(self, memory=1 << 40, kernels=None):
        self.memory = memory
        self.xp = StrictModule(self)
        self.kernels = kernels or Kernels(f"{__package__}.kernels.cuda")
        self.transfers = None
        self._waits = 0

    def activate(self):
        """There is one thread's worth of hardware: nothing to choose."""

    def zeros(self, count, dtype):
        """A flat array of zeros."""
        size = count * np.dtype(dtype).itemsize
        if size > self.memory:
            raise MemoryError(f"Out of memory allocating {size:,} bytes")
        return StrictArray(CPU.zeros(count, dtype), self)

    def to_host(self, array, out=None):
        """The values of a device array as a NumPy array, in `out` if given."""
        self.note("download", array.nbytes)
        if out is None:
            return array.held.copy()
        out[...] = array.held
        return out

    def to_device(self, array, out=None):
        """The values of a NumPy array as a device array, in `out` if given."""
        array = np.asarray(array)
        self.note("upload", array.nbytes)
        if out is None:
            return StrictArray(array.copy(), self)
        out.held[...] = array.reshape(out.shape)
        return out

    def read_later(self, array):
        """As of `GpuDevice`. Reading waits, unless something has waited since."""
        values, before = array.held.copy(), self._waits

        def read():
            if self._waits == before:
                self.note("wait")
            return values

        return read

    def compile(self, source, options=()):
        """As of `GpuDevice`, by the host's C++ compiler."""
        from .kernels.cuda import host

        return _Module(host.compile_module(source, tuple(options)))

    def synchronize(self):
        """Everything is computed when a call returns; counted all the same."""
        self.note("wait")

    def stream(self):
        """No stream."""
        return None

    # ---- for StrictArray

    def note(self, kind, size=0):
        """Take down a transfer while somebody watches."""
        self._waits += kind != "upload"
        if self.transfers is not None:
            self.transfers.note(kind, size)

    def reading_told(self):
        """StrictArrays always tell when they are read."""
        return contextlib.nullcontext()

    def call(self, function, args, kwargs):
        """The result of a NumPy function on arrays of this device."""
        return strict_array.call(self, function, args, kwargs)

    def __repr__(self):
        return "StrictDevice()"


class _Module:
    """Kernels compiled for the host, which take StrictArrays."""

    def __init__(self, module):
        self._module = module

    def get_function(self, name):
        """A kernel f(grid, block, args, shared_mem=0)."""
        function = self._module.get_function(name)

        def kernel(grid, block, args, shared_mem=0):
            for k, arg in enumerate(args):
                if isinstance(arg, np.ndarray):
                    raise TypeError(f"kernel {name}, argument {k}: a NumPy array on the device")
            held = [arg.held if isinstance(arg, StrictArray) else arg for arg in args]
            function(grid, block, held, shared_mem)

        return kernel
