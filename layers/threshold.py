"""Threshold: which values exceed a threshold."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("Threshold")
class Threshold(Elementwise):
    """y = 1 where x > threshold, 0 elsewhere; it has no gradient (Caffe: ThresholdLayer)."""

    def setup(self, bottom, top):
        self.threshold = self.param.threshold_param.threshold

    def function(self, x, y):
        y[...] = x > self.threshold

    def gradient(self, x, y, dy, dx):
        raise self.error(
            "no gradient to be asked for", "a layer before it that learns, or force_backward",
            "Set `propagate_down: false` in this layer.",
        )  # fmt: skip
