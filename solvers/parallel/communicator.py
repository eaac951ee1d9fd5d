"""How ranks talk to each other, and the one rank of a process that trains alone."""

import json

from ...engine.errors import DemitasseError


class ParallelError(DemitasseError, ValueError):
    """Ranks that cannot be started, cannot find each other, or do not agree."""


class Request:
    """A sum that is being computed; this one is done already."""

    def wait(self):
        """Return when the sum is there: for what runs on the device, not for the host."""


class Communicator:
    """How the ranks of one training talk. This class is the only rank of a process on its own.

    Every rank makes the same calls in the same order.

    Attributes:
        rank: 0, 1, ...; size: how many ranks there are.
        sums: whether gradients are to be summed over the ranks.
    """

    rank, size = 0, 1
    sums = False

    @property
    def is_root(self):
        """Whether this is rank 0, which alone writes files and says something."""
        return self.rank == 0

    def gather(self, value):
        """[value of rank 0, value of rank 1, ...], on every rank; values that JSON can hold."""
        return [value]

    def share(self, value=None):
        """Rank 0's value, on every rank; those of others do not count.

        Waiting ranks sleep, so that rank 0 may have worked for hours on it.
        """
        return self.gather(value if self.is_root else None)[0]

    def mean(self, numbers):
        """The means over all ranks of a list of numbers; plain sums in order of ranks."""
        rows = self.gather([float(n) for n in numbers])
        return [sum(column) / self.size for column in zip(*rows)]

    def begin_sum(self, array):
        """Begin to sum a flat device array over all ranks, in place; returns a `Request`.

        The array must stay as it is until the request has been waited for.
        """
        return Request()

    def progress(self):
        """Let sums that have begun go on; called now and then while this rank computes."""

    def close(self):
        """Wait until all ranks have come here."""
        self.share()


ALONE = Communicator()


def encode(value):
    """A value as bytes of JSON."""
    return json.dumps(value).encode()


def decode(data):
    """The value of `encode`'s bytes."""
    return json.loads(bytes(data))
