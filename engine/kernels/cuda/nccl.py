"""Sums over several GPUs with NCCL (through CuPy), one process a GPU.

Sums run on a stream of their own beside the computation: a sum waits for what the compute stream
has been given before it, and the compute stream waits for the sum where `wait` is called. The host
waits for neither.
"""

from ...errors import DeviceError

_TYPES = {
    "float16": "NCCL_FLOAT16", "bfloat16": "NCCL_BFLOAT16", "float32": "NCCL_FLOAT32",
    "float64": "NCCL_FLOAT64",
}  # fmt: skip


def load():
    """CuPy's module for NCCL.

    Raises: DeviceError if the library is not there.
    """
    from cupy.cuda import nccl

    if not nccl.available:
        raise DeviceError(
            "training on several GPUs", "the library NCCL", "none that CuPy can load",
            "pip install nvidia-nccl-cu13, or nvidia-nccl-cu12 with a CuPy for CUDA 12.",
        )  # fmt: skip
    return nccl


def unique_id():
    """The name of a new group of GPUs, as text; made by rank 0, for the `Group` of every rank."""
    return load().get_unique_id().hex()  # 128 bytes, since CuPy 14


class Group:
    """This process's GPU among those of all ranks.

    Args:
        device: the GPU.
        name: of `unique_id`.
        rank, size: of this process.

    Raises: DeviceError if NCCL cannot connect the GPUs.
    """

    def __init__(self, device, name, rank, size):
        import cupy

        self._cuda, self._nccl = cupy.cuda, load()
        device.activate()
        try:
            self._communicator = self._nccl.NcclCommunicator(size, bytes.fromhex(name), rank)
        except self._nccl.NcclError as e:
            raise DeviceError(
                f"NCCL, rank {rank} of {size} on {device}", "a connection between the GPUs", e,
                "NCCL_DEBUG=INFO in the environment has NCCL say more.",
            ) from e  # fmt: skip
        self._stream = cupy.cuda.Stream(non_blocking=True)

    def begin_sum(self, array):
        """Begin to sum a contiguous device array over all ranks, in place; for `wait`."""
        compute = self._cuda.get_current_stream()
        self._stream.wait_event(compute.record(self._event()))
        pointer = array.data.ptr
        self._communicator.allReduce(
            pointer, pointer, array.size, self._type(array), self._nccl.NCCL_SUM, self._stream.ptr
        )
        # The array stays referenced: the pool must not hand its memory out before the sum is done.
        return array, self._stream.record(self._event())

    def wait(self, ticket):
        """Have the compute stream wait for a sum that `begin_sum` has begun."""
        _, done = ticket
        self._cuda.get_current_stream().wait_event(done)

    def close(self):
        """End when all sums are done."""
        self._stream.synchronize()
        self._communicator.destroy()

    def _event(self):
        return self._cuda.Event(disable_timing=True)

    def _type(self, array):
        if array.dtype.name not in _TYPES:
            raise DeviceError("NCCL", f"gradients of {', '.join(_TYPES)}", array.dtype)
        return getattr(self._nccl, _TYPES[array.dtype.name])
