"""Power: a power of a linear function."""

import numpy as np

from ..engine.layer import register
from .elementwise import Elementwise


@register("Power")
class Power(Elementwise):
    """y = (shift + scale * x) ^ power (Caffe: PowerLayer).

    dx = dy * power * scale * (shift + scale * x) ^ (power - 1), which is 0 wherever power or
    scale is 0, and 0 ^ 0 is 1.
    """

    def setup(self, bottom, top):
        p = self.param.power_param
        self.power, self.scale, self.shift = p.power, p.scale, p.shift
        self.slope = p.power * p.scale
        self.keeps_input = p.power != 1 and self.slope != 0

    def _base(self, x, out):
        self.device.xp.multiply(x, self.scale, out=out)
        if self.shift != 0:
            out += self.shift
        return out

    def function(self, x, y):
        if self.slope == 0:
            y[...] = np.power(self.dtype.type(self.shift), self.power)
            return
        self._base(x, y)
        if self.power == 2:
            self.device.xp.square(y, out=y)
        elif self.power != 1:
            self.device.xp.power(y, self.power, out=y)

    def gradient(self, x, y, dy, dx):
        xp = self.device.xp
        if self.slope == 0:
            dx[...] = 0
            return
        if self.power == 1:
            xp.multiply(dy, self.slope, out=dx)
            return
        # NOTE: Caffe divides y by the base instead, which makes the slope NaN where that is 0.
        factor = self._base(x, xp.empty_like(x))
        if self.power != 2:
            xp.power(factor, self.power - 1, out=factor)
        factor *= self.slope
        xp.multiply(dy, factor, out=dx)
