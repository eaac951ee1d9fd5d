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
        self.slopes = self.device.xp.full(1, self.slope, self.dtype)

    def function(self, x, y):
        kernels = self.device.kernels.channelwise
        kernels.relu(kernels.rows(x), self.slopes, kernels.rows(y))

    def gradient(self, x, y, dy, dx):
        kernels = self.device.kernels.channelwise
        kernels.relu_backward(kernels.rows(x), kernels.rows(dy), self.slopes, kernels.rows(dx))
