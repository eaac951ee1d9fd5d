"""An NVIDIA GPU. What imports CuPy, and says what is missing where that fails, is device.py."""

import contextlib
import functools
from collections import deque

import numpy as np


class GpuDevice:
    """An NVIDIA GPU: CuPy arrays, kernels in CUDA, cuBLAS and cuDNN.

    Everything runs on CuPy's current stream and takes memory from CuPy's pool.

    Args: index: the GPU's number. cupy: the module. kernels: as of `CpuDevice`.

    Attributes:
        index; xp, kernels, is_host, normalises_convolutions: as of `CpuDevice`.
        transfers: what counts copies and waits while somebody watches (`transfers.watch`), or None.
    """

    name = "gpu"
    is_host = False
    normalises_convolutions = False

    def __init__(self, index, cupy, kernels):
        self.index = index
        self.xp = cupy
        self.kernels = kernels
        self.transfers = None
        self._device = cupy.cuda.Device(index)
        self._modules = {}
        self._staging = _Staging(cupy, self._wait_for)

    @property
    def description(self):
        """The GPU's name and memory."""
        found = self.xp.cuda.runtime.getDeviceProperties(self.index)
        return f"{found['name'].decode()}, {found['totalGlobalMem'] / 2**30:.0f} GiB"

    def activate(self):
        """Have the calling thread compute here; CuPy keeps the choice for each thread."""
        self._device.use()

    def zeros(self, count, dtype):
        """A flat array of zeros."""
        with self._device:
            return self.xp.zeros(count, dtype)

    def to_host(self, array, out=None):
        """The values of a device array as a NumPy array; waits for the GPU.

        Args: out: a contiguous NumPy array of that shape and dtype to write them to.
        """
        with self._device:
            return array.get(out=out)

    def to_device(self, array, out=None):
        """The values of a NumPy array as a device array; does not wait for the GPU.

        The caller may overwrite `array` as soon as this returns.

        Args: out: a contiguous device array of as many elements to write to; a new one if None.
        """
        array = np.asarray(array)
        self._note("upload", array.nbytes)
        with self._device:
            if out is None:
                out = self.xp.empty(array.shape, array.dtype)
            if array.nbytes > self._staging.LARGEST:
                self._note("wait")
            self._staging.upload(array, out)
        return out

    def read_later(self, array):
        """Begin to copy a small contiguous array to the host, without waiting.

        Returns: a function that gives its values as a NumPy array, and waits if it must.
        """
        cuda = self.xp.cuda
        with self._device:
            memory = cuda.alloc_pinned_memory(array.nbytes)
            array.data.copy_to_host_async(memory.ptr, array.nbytes, self.stream())
            event = cuda.Event(disable_timing=True)
            event.record(self.stream())

        def read():
            self._wait_for(event)
            return np.frombuffer(memory, array.dtype, array.size).reshape(array.shape).copy()

        return read

    def _wait_for(self, event):
        if not event.done:
            self._note("wait")
            event.synchronize()

    def _note(self, kind, size=0):
        if self.transfers is not None:
            self.transfers.note(kind, size)

    def compile(self, source, options=()):
        """The module of a CUDA C++ text, compiled by NVRTC once for these options.

        Returns: an object whose get_function(name) gives a kernel f(grid, block, args,
            shared_mem=0), `grid` and `block` being tuples and `args` one of device arrays and
            NumPy scalars.
        """
        key = source, tuple(options)
        if key not in self._modules:
            self._modules[key] = _Module(self.xp.RawModule(code=source, options=key[1]))
        return self._modules[key]

    def synchronize(self):
        """Wait until everything asked for has been computed."""
        self._note("wait")
        with self._device:
            self.stream().synchronize()

    def stream(self):
        """CuPy's current stream."""
        return self.xp.cuda.get_current_stream()

    def reading_told(self):
        """A context in which CuPy's arrays tell `transfers` when they are read."""
        return _telling(self)

    def __repr__(self):
        return f"GpuDevice({self.index})"


class _Module:
    """A compiled text; its kernels are looked up once."""

    def __init__(self, module):
        self.get_function = functools.cache(module.get_function)


class _Staging:
    """Page-locked memory that uploads pass through.

    From such memory alone the GPU fetches while the host goes on. A buffer serves again when the
    GPU has fetched what was last in it.
    """

    LARGEST = 1 << 26  # bytes; for larger ones (weights, at the beginning) the host waits
    BUFFERS = 8

    def __init__(self, cupy, wait_for):
        self.cupy, self._wait_for = cupy, wait_for
        self._used = deque()  # (memory, event), the oldest first

    def upload(self, array, out):
        """Copy a host array to a contiguous device array, in the order of the current stream."""
        array = np.ascontiguousarray(array, out.dtype).reshape(out.shape)
        if not array.nbytes:
            return
        if array.nbytes > self.LARGEST:
            out.set(array)
            return
        cuda = self.cupy.cuda
        stream = cuda.get_current_stream()
        memory = self._buffer(array.nbytes)
        staged = np.frombuffer(memory, np.uint8, array.nbytes)
        staged[...] = array.reshape(-1).view(np.uint8)
        out.data.copy_from_host_async(memory.ptr, array.nbytes, stream)
        event = cuda.Event(disable_timing=True)
        event.record(stream)
        self._used.append((memory, event))

    def _buffer(self, size):
        """Page-locked memory of at least this size that the GPU does not read any more."""
        if self._used and (len(self._used) >= self.BUFFERS or self._used[0][1].done):
            memory, event = self._used.popleft()
            self._wait_for(event)
            if memory.size() >= size:
                return memory
        return self.cupy.cuda.alloc_pinned_memory(size)


_READERS = ("get", "item", "tolist", "__bool__", "__int__", "__float__")


@contextlib.contextmanager
def _telling(device):
    """Have CuPy's arrays tell when they are read, and its functions when they are given NumPy's.

    What CuPy does within itself is told too: that of nonzero(), say, is that it reads a number.
    """
    cupy, inside = device.xp, []

    def tell(kind, size, work):
        if not inside and device.transfers is not None:
            device.transfers.note(kind, size)
        inside.append(kind)  # one reader calls another
        try:
            return work()
        finally:
            inside.pop()

    def reader(name, original):
        @functools.wraps(original)
        def method(self, *args, **kwargs):
            kind, size = ("download", self.nbytes) if name == "get" else ("wait", 0)
            return tell(kind, size, lambda: original(self, *args, **kwargs))

        return method

    def maker(original):
        @functools.wraps(original)
        def function(values, *args, **kwargs):
            if isinstance(values, cupy.ndarray):
                return original(values, *args, **kwargs)
            size = getattr(values, "nbytes", 0)
            return tell("upload", size, lambda: original(values, *args, **kwargs))

        return function

    makers = {name: getattr(cupy, name) for name in ("array", "asarray")}
    for name in _READERS:
        setattr(cupy.ndarray, name, reader(name, getattr(cupy.ndarray, name)))
    for name, original in makers.items():
        setattr(cupy, name, maker(original))
    try:
        yield
    finally:
        for name in _READERS:
            delattr(cupy.ndarray, name)  # what is below it is CuPy's own
        for name, original in makers.items():
            setattr(cupy, name, original)
