"""ELU: the exponential linear unit (Clevert et al. 2015)."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("ELU")
class ELU(Elementwise):
    """y = x where x > 0, alpha * (exp(x) - 1) elsewhere (Caffe: ELULayer).

    dx = dy where x > 0, dy * (y + alpha) elsewhere.
    """

    def setup(self, bottom, top):
        self.alpha = self.param.elu_param.alpha
        self.keeps_input = self.alpha < 0  # otherwise y has the sign of x

    def function(self, x, y):
        xp = self.device.xp
        below = xp.minimum(x, 0)
        xp.expm1(below, out=below)
        below *= self.alpha
        xp.maximum(x, 0, out=y)
        y += below

    def gradient(self, x, y, dy, dx):
        xp = self.device.xp
        slope = y + self.alpha
        xp.copyto(slope, 1, where=x > 0)
        xp.multiply(dy, slope, out=dx)
