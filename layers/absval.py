"""AbsVal: the absolute value."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("AbsVal")
class AbsVal(Elementwise):
    """y = |x|; dx = dy * sign(x), 0 at 0 (Caffe: AbsValLayer, which refuses to run in place)."""

    keeps_input = True

    def function(self, x, y):
        self.device.xp.abs(x, out=y)

    def gradient(self, x, y, dy, dx):
        xp = self.device.xp
        xp.multiply(dy, xp.sign(x), out=dx)
