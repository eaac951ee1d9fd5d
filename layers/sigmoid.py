"""Sigmoid: the logistic function."""

from ..engine.layer import register
from .elementwise import Elementwise


def sigmoid(xp, x, out):
    """out = 1 / (1 + exp(-x)), by the hyperbolic tangent, which cannot overflow."""
    xp.multiply(x, 0.5, out=out)
    xp.tanh(out, out=out)
    out *= 0.5
    out += 0.5
    return out


@register("Sigmoid")
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x)); dx = dy * y * (1 - y) (Caffe: SigmoidLayer)."""

    def function(self, x, y):
        sigmoid(self.device.xp, x, y)

    def gradient(self, x, y, dy, dx):
        slope = 1 - y
        slope *= y
        self.device.xp.multiply(dy, slope, out=dx)
