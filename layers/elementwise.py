"""The base of layers that apply one function to every element."""

from ..engine.layer import Layer


class Elementwise(Layer):
    """y = f(x), element by element; top and bottom have one shape and may be one blob.

    Subclasses define two functions of arrays: `function(x, y)` writes y, and
    `gradient(x, y, dy, dx)` writes dx = dy * f'(x). In place `y` is `x` and `dx` is `dy`.
    """

    num_bottom = num_top = 1
    # Whether `gradient` needs x itself, of which a copy is kept when y takes its place.
    # NOTE: Caffe keeps none and, in place, takes y for x in the gradient; here it stays right.
    keeps_input = False
    _kept = None

    def reshape(self, bottom, top):
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        x = bottom[0].array
        if self.keeps_input and self.needs_backward and top[0] is bottom[0]:
            self._kept = self._kept or self._blob()
            self._kept.reshape_like(bottom[0])
            self._kept.array[...] = x
        self.function(*self._arrays(x, top[0].array))

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            x = (self._kept or bottom[0]).array
            self.gradient(*self._arrays(x, top[0].array, top[0].grad, bottom[0].grad))

    def _arrays(self, *arrays):
        # NumPy turns results of shape () into scalars, which nothing can be written into.
        return self.device.xp.atleast_1d(*arrays)
