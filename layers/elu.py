"""ELU: the exponential linear unit (Clevert et al. 2015)."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("ELU")
class ELU(Elementwise):
    """y = x where x > 0, alpha * (exp(x) - 1) elsewhere (Caffe: ELULayer).

    dx = dy where x > 0, dy * (y + alpha) elsewhere.
    """

    def setup(self, bottom, top):
        self.alpha = self.dtype.type(self.param.elu_param.alpha)
        self.keeps_input = self.alpha < 0  # otherwise y has the sign of x

    def function(self, x, y):
        self.device.kernels.activations.elu(x.reshape(-1), self.alpha, y.reshape(-1))

    def gradient(self, x, y, dy, dx):
        x, y, dy, dx = (a.reshape(-1) for a in (x, y, dy, dx))
        self.device.kernels.activations.elu_backward(x, y, self.alpha, dy, dx)
