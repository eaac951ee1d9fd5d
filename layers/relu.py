"""ReLU: the rectified linear unit, leaky with a negative slope."""

from ..engine.layer import Layer, register


def relu(xp, x, slope, out):
    """out = max(x, 0) + slope * min(x, 0), element by element; `out` may be `x`."""
    if slope == 0:
        xp.maximum(x, 0, out=out)
    else:
        xp.multiply(x, xp.where(x > 0, x.dtype.type(1), x.dtype.type(slope)), out=out)


@register("ReLU")
class ReLU(Layer):
    """y = x where x > 0, negative_slope * x elsewhere (Caffe: ReLULayer)."""

    num_bottom = num_top = 1

    def setup(self, bottom, top):
        self.slope = self.param.relu_param.negative_slope

    def reshape(self, bottom, top):
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        relu(self.device.xp, bottom[0].array, self.slope, top[0].array)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        # In place, the bottom holds the result; its sign is that of the input for slopes >= 0.
        x, dy = bottom[0].array, top[0].grad
        factor = (x > 0).astype(dy.dtype)
        if self.slope:
            factor += (x <= 0) * dy.dtype.type(self.slope)
        self.device.xp.multiply(dy, factor, out=bottom[0].grad)
