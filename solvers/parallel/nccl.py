"""Ranks on GPUs: sums over NCCL, messages between hosts over something else."""

from .communicator import Communicator, Request


class NcclCommunicator(Communicator):
    """One rank a GPU.

    Args:
        messages: a Communicator that carries messages, and NCCL's unique id to begin with: MPI's,
            the hub's, or `ALONE` for a single rank.
        device: this rank's GPU.
    """

    sums = True

    def __init__(self, messages, device):
        self.rank, self.size = messages.rank, messages.size
        self._messages = messages
        nccl = device.kernels.nccl
        unique_id = messages.share(nccl.unique_id() if messages.is_root else None)
        self._group = nccl.Group(device, unique_id, self.rank, self.size)

    def gather(self, value):
        return self._messages.gather(value)

    def begin_sum(self, array):
        return _Sum(self._group, self._group.begin_sum(array))

    def close(self):
        self._messages.close()
        self._group.close()


class _Sum(Request):
    def __init__(self, group, ticket):
        self._group, self._ticket = group, ticket

    def wait(self):
        self._group.wait(self._ticket)
