"""Exp: powers of a base."""

import math

import numpy as np

from ..engine.layer import register
from .elementwise import Elementwise


@register("Exp")
class Exp(Elementwise):
    """y = base ^ (shift + scale * x); dx = dy * y * scale * ln(base) (Caffe: ExpLayer).

    The base is e if it is -1, the default.
    """

    def setup(self, bottom, top):
        p = self.param.exp_param
        if p.base != -1 and p.base <= 0:
            raise self.error("exp_param.base above 0, or -1 for e", p.base)
        log_base = 1.0 if p.base == -1 else math.log(p.base)
        self.inner = log_base * p.scale
        self.outer = float(np.exp(log_base * p.shift))

    def function(self, x, y):
        xp = self.device.xp
        xp.multiply(x, self.inner, out=y)
        xp.exp(y, out=y)
        if self.outer != 1:
            y *= self.outer

    def gradient(self, x, y, dy, dx):
        self.device.xp.multiply(dy, y, out=dx)
        if self.inner != 1:
            dx *= self.inner
