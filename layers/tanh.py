"""TanH: the hyperbolic tangent."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("TanH")
class TanH(Elementwise):
    """y = tanh(x); dx = dy * (1 - y^2) (Caffe: TanHLayer)."""

    def function(self, x, y):
        self.device.xp.tanh(x, out=y)

    def gradient(self, x, y, dy, dx):
        self.device.kernels.activations.tanh_backward(y.reshape(-1), dy.reshape(-1), dx.reshape(-1))
