"""Swish: x times its sigmoid (Ramachandran et al. 2017)."""

from ..engine.layer import register
from .elementwise import Elementwise
from .sigmoid import sigmoid


@register("Swish")
class Swish(Elementwise):
    """y = x * s, s = sigmoid(beta * x); dx = dy * s * (1 + beta * x * (1 - s)).

    (Caffe: SwishLayer.)
    """

    keeps_input = True

    def setup(self, bottom, top):
        self.beta = self.param.swish_param.beta

    def function(self, x, y):
        scaled = x * self.beta
        self.device.xp.multiply(x, sigmoid(self.device.xp, scaled, scaled), out=y)

    def gradient(self, x, y, dy, dx):
        xp = self.device.xp
        scaled = x * self.beta
        s = sigmoid(xp, scaled, xp.empty_like(x))
        scaled *= 1 - s
        scaled += 1
        scaled *= s
        xp.multiply(dy, scaled, out=dx)
