"""What crosses between host and device, and who waits for it: a mode for finding what is slow.

    with transfers.watch(solver.net.device) as log:
        solver.step(3)
    print(log.report())

A copy to the host waits for the device to finish all that was asked of it, and so does whatever
needs a number from there, like `if array.any():`. Both are called synchronisations here. A copy to
the device does not wait.
"""

import contextlib
import os
import sys
from collections import Counter
from dataclasses import dataclass

from .layer import Layer

_HERE = os.path.dirname(__file__)
# Files through which others copy: who made a copy is the first line outside of them.
_BETWEEN = {
    os.path.join(_HERE, f"{name}.py")
    for name in ("blob", "device", "gpu", "storage", "strict_array", "strict_device", "transfers")
}


@dataclass(frozen=True)
class Transfer:
    """One copy or wait.

    Attributes:
        kind: "upload" (to the device), "download" (to the host), or "wait" (for a number or a
            shape, without a copy of ours).
        size: bytes, 0 for a wait.
        layer: "name (type)" of the layer that was running, or "".
        place: file, line and function.
    """

    kind: str
    size: int
    layer: str
    place: str

    @property
    def synchronises(self):
        """Whether the host waited for the device."""
        return self.kind != "upload"


class TransferLog:
    """The transfers of each iteration since watching began. A solver counts its iterations itself.

    Attributes:
        iterations: a list of `Transfer`s an iteration; the last one is still going on.
    """

    def __init__(self):
        self.iterations = [[]]

    def note(self, kind, size):
        """Take down a transfer, with the layer and the line that made it."""
        self.iterations[-1].append(Transfer(kind, size, *_who()))

    def next_iteration(self):
        """Count anew from here on."""
        self.iterations.append([])

    def synchronisations(self):
        """The transfers that waited for the device, a list an iteration."""
        return [[t for t in iteration if t.synchronises] for iteration in self.iterations]

    def report(self):
        """A table of what happened in which iteration, the same transfers counted."""
        lines = []
        going_on = len(self.iterations) > 1 and not self.iterations[-1]
        for number, iteration in enumerate(self.iterations[: -1 if going_on else None]):
            waits = sum(t.synchronises for t in iteration)
            size = sum(t.size for t in iteration)
            lines.append(
                f"iteration {number}: {len(iteration)} transfer(s), {waits} synchronisation(s), "
                f"{size} bytes"
            )
            for t, count in Counter(iteration).most_common():
                lines.append(f"  {count} x {t.kind} of {t.size} bytes  {t.layer}  {t.place}")
        return "\n".join(lines)


@contextlib.contextmanager
def watch(device):
    """Count the transfers of a device while the block runs; gives a `TransferLog`.

    On a GPU, CuPy's own arrays are made to tell when they are read, for the time being.
    """
    log = TransferLog()
    before, device.transfers = device.transfers, log
    try:
        with device.reading_told():
            yield log
    finally:
        device.transfers = before


def _who():
    """(layer, place) of the code that made a copy."""
    place = layer = ""
    frame = sys._getframe(2)
    while frame is not None and not layer:
        code = frame.f_code
        if not place and not _is_between(code.co_filename):
            place = f"{_short(code.co_filename)}:{frame.f_lineno} {code.co_name}"
        owner = frame.f_locals.get("self")
        if isinstance(owner, Layer):
            layer = f"{owner.name} ({owner.type})"
        frame = frame.f_back
    return layer, place


def _is_between(path):
    return path in _BETWEEN or f"{os.sep}cupy{os.sep}" in path


def _short(path):
    return os.sep.join(path.split(os.sep)[-2:])
