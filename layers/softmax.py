"""Softmax: scores to probabilities along one axis."""

import math

from ..engine.layer import Layer, register


def softmax(device, x, axis, out):
    """out = exp(x) / sum(exp(x)), the sum along `axis`; `out` has x's shape and may be `x`."""
    view = _view(x, axis)
    device.kernels.softmax.forward(x.reshape(view), out.reshape(view))


def softmax_backward(device, y, dy, axis, out):
    """out = y * (dy - sum(y * dy)), the gradient by x for y = softmax(x); `out` may be `dy`."""
    view = _view(y, axis)
    device.kernels.softmax.backward(y.reshape(view), dy.reshape(view), out.reshape(view))


def _view(x, axis):
    # (outer, C, inner), C being along `axis`
    axis %= x.ndim
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


@register("Softmax")
class Softmax(Layer):
    """y = exp(x) / sum(exp(x)) along `softmax_param.axis` (Caffe: SoftmaxLayer)."""

    num_bottom = num_top = 1

    def setup(self, bottom, top):
        self.given_axis = self.param.softmax_param.axis

    def reshape(self, bottom, top):
        self.axis = self.axis_of(bottom[0], self.given_axis)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        softmax(self.device, bottom[0].array, self.axis, top[0].array)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            softmax_backward(self.device, top[0].array, top[0].grad, self.axis, bottom[0].grad)
