"""ReLU: the rectified linear unit, leaky with a negative slope."""

from ..engine.layer import register
from .elementwise import Elementwise


@register("ReLU")
class ReLU(Elementwise):
    """y = x where x > 0, negative_slope * x elsewhere (Caffe: ReLULayer).

    dx = dy where x > 0, negative_slope * dy elsewhere.
    """

    def setup(self, bottom, top):
        self.slope = self.param.relu_param.negative_slope
        self.is_plain_relu = self.slope == 0
        self.keeps_input = self.slope < 0  # otherwise y has the sign of x
        self.factor = self.dtype.type(self.slope)

    def function(self, x, y):
        self.device.kernels.activations.relu(x.reshape(-1), self.factor, y.reshape(-1))

    def gradient(self, x, y, dy, dx):
        self.device.kernels.activations.relu_backward(
            x.reshape(-1), dy.reshape(-1), self.factor, dx.reshape(-1)
        )
