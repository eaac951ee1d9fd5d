"""Sigmoid: the logistic function."""

from ..engine.layer import register
from .elementwise import Elementwise


def sigmoid(xp, x, out):
    """out = 1 / (1 + exp(-x)), by the hyperbolic tangent, which cannot overflow; returns `out`.

    `out` may be `x`.
    """
    xp.multiply(x, 0.5, out=out)
    xp.tanh(out, out=out)
    out *= 0.5
    out += 0.5
    return out


@register("Sigmoid")
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x)); dx = dy * y * (1 - y) (Caffe: SigmoidLayer)."""

    def function(self, x, y):
        self.device.kernels.activations.sigmoid(x.reshape(-1), y.reshape(-1))

    def gradient(self, x, y, dy, dx):
        self.device.kernels.activations.sigmoid_backward(
            y.reshape(-1), dy.reshape(-1), dx.reshape(-1)
        )
