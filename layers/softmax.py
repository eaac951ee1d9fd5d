"""Softmax: scores to probabilities along one axis."""

from ..engine.layer import Layer, register


def softmax(xp, x, axis, out):
    """out = exp(x) / sum(exp(x)), the sum along `axis`; `out` has x's shape and may be `x`.

    The largest score is subtracted first, so that large scores do not overflow.
    """
    if x.size == 0:
        return
    xp.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    xp.exp(out, out=out)
    out /= out.sum(axis=axis, keepdims=True)


def softmax_backward(xp, y, dy, axis, out):
    """out = y * (dy - sum(y * dy)), the gradient by x for y = softmax(x); `out` may be `dy`."""
    dot = (y * dy).sum(axis=axis, keepdims=True)
    xp.subtract(dy, dot, out=out)
    out *= y


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
        softmax(self.device.xp, bottom[0].array, self.axis, top[0].array)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            softmax_backward(self.device.xp, top[0].array, top[0].grad, self.axis, bottom[0].grad)
