"""Loss scaling: training with gradients that pass through float16.

Small gradients would be zero in float16. The loss's own gradient is multiplied by a scale, so all
are that much larger until the update divides by it again; scales are powers of two, which changes
no digit. Where one is too large for float16, the update is left out and the scale halved; after a
while without that it is doubled (Micikevicius et al., Mixed Precision Training, ICLR 2018). A GPU
leaves the update out by itself, so that nothing waits to know: the scale follows one update later.
"""

import logging
from dataclasses import dataclass

import numpy as np

from ..engine.blob import Blob
from ..engine.errors import SolverError
from ..engine.precision import Precision

log = logging.getLogger("demitasse.solver")

FLOAT16_SCALE = 2.0**16


@dataclass(frozen=True)
class LossScale:
    """How a solver scales losses; one of the settings that it is given.

    Attributes:
        initial: the scale to begin with, a power of two. None is 2^16 for nets on a GPU whose
            `Precision.math` is "float16", and no scaling for all others.
        every: after how many updates in a row the scale is doubled; 0 keeps it as it is.
    """

    initial: float | None = None
    every: int = 2000

    def __post_init__(self):
        if self.initial is not None and not (
            self.initial >= 1 and float(np.frexp(self.initial)[0]) == 0.5
        ):
            raise SolverError("LossScale.initial", "a power of two from 1 on", self.initial)
        if self.every < 0:
            raise SolverError("LossScale.every", "a number of updates, or 0", self.every)


class Scaler:
    """The loss scale of one training net.

    Attributes:
        state: Blob of the scale and of how many updates it has served, for snapshots; None if
            nothing is scaled.
    """

    def __init__(self, net):
        settings = net.context.get(LossScale)
        self.net, self.every = net, settings.every
        halves = not net.device.is_host and net.context.get(Precision).math == "float16"
        initial = settings.initial or (FLOAT16_SCALE if halves else None)
        self.state = None
        self._unread = None  # of the last update on a GPU: (what reads its norm, its scale)
        if initial is not None:
            self.state = Blob((2,))
            self.state.data[...] = initial, 0
            self.apply()

    @property
    def scale(self):
        """What gradients are multiplied by now."""
        return 1.0 if self.state is None else float(self.state.data[0])

    def apply(self):
        """Have the gradients of the losses begin with the scale."""
        if self.state is None:
            return
        scale = self.scale
        for node in self.net.nodes:
            for weight, top in zip(node.loss_weights, node.tops):
                if weight:
                    top.fill_diff(lambda flat, value=weight * scale: flat.fill(value))

    def follow(self, clipping):
        """Set the next scale by what an update has found.

        Args: clipping: what `Optimizer.update` has returned.
        """
        if self.state is None or clipping is None:
            return
        if self.net.device.is_host:
            self._set(np.isfinite(clipping[1]), self.scale)
            return
        scale = self.scale  # of this update; reading about the one before may change it
        self.settle()
        self._unread = self.net.device.read_later(clipping), scale

    def settle(self):
        """Read what is still unread."""
        if self._unread is not None:
            (read, scale), self._unread = self._unread, None
            self._set(np.isfinite(read()[1]), scale)

    def restored(self):
        """After `state` has been set: what an update before found does not count any more."""
        self._unread = None
        self.apply()

    def _set(self, finite, scale_then):
        scale, count = before, _ = float(self.state.data[0]), int(self.state.data[1])
        if finite:
            count += 1
            if self.every and count >= self.every:
                scale, count = before * 2, 0
        elif scale_then == before:  # otherwise it has been lowered since
            scale, count = max(before / 2, 1.0), 0
            log.info("Gradients overflow: no update; loss scale %g from now on", scale)
        self.state.data[...] = scale, count
        if scale != before:
            self.apply()
