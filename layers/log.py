"""Log: logarithms to a base."""

import math

from ..engine.layer import register
from .elementwise import Elementwise


@register("Log")
class Log(Elementwise):
    """y = log_base(shift + scale * x); dx = dy * scale / (ln(base) * (shift + scale * x)).

    The base is e if it is -1, the default (Caffe: LogLayer).
    """

    keeps_input = True

    def setup(self, bottom, top):
        p = self.param.log_param
        if p.base != -1 and (p.base <= 0 or p.base == 1):
            raise self.error("log_param.base above 0 and not 1, or -1 for e", p.base)
        self.scale, self.shift = p.scale, p.shift
        self.log_base = 1.0 if p.base == -1 else math.log(p.base)

    def function(self, x, y):
        xp = self.device.xp
        xp.multiply(x, self.scale, out=y)
        y += self.shift
        xp.log(y, out=y)
        if self.log_base != 1:
            y /= self.log_base

    def gradient(self, x, y, dy, dx):
        argument = x * self.scale
        argument += self.shift
        self.device.xp.divide(dy, argument, out=dx)
        dx *= self.scale / self.log_base
