"""BNLL: the binomial normal log likelihood, a soft ReLU."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("BNLL")
class BNLL(Elementwise):
    """y = log(1 + exp(x)); dx = dy / (1 + exp(-x)) (Caffe: BNLLLayer)."""

    keeps_input = True

    def function(self, x, y):
        # log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), where nothing overflows.
        xp = self.device.xp
        soft = xp.abs(x)
        xp.negative(soft, out=soft)
        xp.exp(soft, out=soft)
        xp.log1p(soft, out=soft)
        xp.maximum(x, 0, out=y)
        y += soft

    def gradient(self, x, y, dy, dx):
        # 1 / (1 + exp(-x)) as e / (1 + e) for negative x: small slopes keep their digits.
        xp = self.device.xp
        e = xp.exp(-xp.abs(x))
        slope = xp.where(x < 0, e, e.dtype.type(1))
        e += 1
        slope /= e
        xp.multiply(dy, slope, out=dx)
