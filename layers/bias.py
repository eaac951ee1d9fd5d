"""Bias: adds a coefficient to each channel, or another blob."""

from ..engine.layer import Layer, register
from .broadcast import broadcast_view, coefficient_shape


@register("Bias")
class Bias(Layer):
    """y = x + b, b broadcast along x's axes from `axis` on (Caffe: BiasLayer).

    b is the second bottom, or else a parameter with the shape of `num_axes` axes of x (-1: all
    from `axis` on; 0: one number). dx = dy; db = sum of dy over the axes b was broadcast along.
    """

    min_bottom, max_bottom = 1, 2
    num_top = 1

    def setup(self, bottom, top):
        p = self.param.bias_param
        self.axis = p.axis
        if len(bottom) == 1:
            self.add_param(coefficient_shape(self, bottom[0], p.axis, p.num_axes), p.filler)

    def _bias(self, bottom):
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    def reshape(self, bottom, top):
        bias = self._bias(bottom)
        self.view = broadcast_view(self, bottom[0], bias.shape, self.axis)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        b = self._bias(bottom).array.reshape(-1, 1)
        x, y = bottom[0].array.reshape(self.view), top[0].array.reshape(self.view)
        self.device.xp.add(x, b, out=y)

    def backward(self, top, propagate_down, bottom):
        learned = len(bottom) == 1
        bias, dy = self._bias(bottom), top[0].grad
        if self.param_propagate_down[0] if learned else propagate_down[1]:
            db = dy.reshape(self.view).sum(axis=(0, 2)).reshape(bias.shape)
            if learned:
                db += bias.grad
            bias.grad[...] = db
        if propagate_down[0] and top[0] is not bottom[0]:
            bottom[0].grad[...] = dy
