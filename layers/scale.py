"""Scale: multiplies each channel by a coefficient, or by another blob, and may add a bias."""

from ..engine.layer import Layer, register
from ..engine.proto import caffe_pb2
from .broadcast import broadcast_view, coefficient_shape


@register("Scale")
class Scale(Layer):
    """y = x * s, plus b with `bias_term`; s and b broadcast along x's axes from `axis` on.

    s is the second bottom, or else a parameter with the shape of `num_axes` axes of x (-1: all
    from `axis` on; 0: one number), 1 unless `filler` says otherwise. b is a parameter of the
    shape of s. dx = dy * s; ds = sum of dy * x; db = sum of dy, over the axes they were broadcast
    along (Caffe: ScaleLayer).
    """

    min_bottom, max_bottom = 1, 2
    num_top = 1

    is_scale = True

    def setup(self, bottom, top):
        p = self.param.scale_param
        self.axis, self.has_bias = p.axis, p.bias_term
        if len(bottom) == 1:
            shape = coefficient_shape(self, bottom[0], p.axis, p.num_axes)
            one = caffe_pb2.FillerParameter(type="constant", value=1)
            self.add_param(shape, p.filler if p.HasField("filler") else one)
        else:
            shape = bottom[1].shape
        if self.has_bias:
            self.add_param(shape, p.bias_filler)
        self.is_learned = len(bottom) == 1
        self.kept = self._blob()
        self.norm = None  # the BatchNorm that has done this layer's forward
        self.zeros = self.device.xp.zeros(0, self.dtype)

    def _scale(self, bottom):
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    def coefficients(self, bottom):
        """s and b as flat arrays."""
        s = self._scale(bottom).array.reshape(-1)
        return s, self.blobs[-1].array.reshape(-1) if self.has_bias else self.zeros

    def reshape(self, bottom, top):
        scale = self._scale(bottom)
        self.view = broadcast_view(self, bottom[0], scale.shape, self.axis)
        if self.has_bias and self.blobs[-1].shape != scale.shape:
            raise self.error(
                f"a second bottom of the bias's shape {self.blobs[-1].shape}", scale.shape
            )
        if self.zeros.size != scale.count:
            self.zeros = self.device.xp.zeros(scale.count, self.dtype)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        x = bottom[0].array
        self.norm = None
        if top[0] is bottom[0] and self.needs_backward:
            self.kept.reshape_like(bottom[0])
            self.device.kernels.copies.copy(x, self.kept.array)
        s, b = self.coefficients(bottom)
        x, y = x.reshape(self.view), top[0].array.reshape(self.view)
        self.device.kernels.channelwise.affine(x, self.zeros, s, b, y)

    @property
    def needs_input(self):
        """Whether `backward` looks at x."""
        return self.needs_backward and any(self.param_propagate_down)

    def backward(self, top, propagate_down, bottom):
        scale, dy = self._scale(bottom), top[0].grad.reshape(self.view)
        # The coefficients first: in place, dx overwrites dy.
        self._coefficient_gradients(top, propagate_down, bottom, scale, dy)
        if propagate_down[0]:
            s, dx = scale.array.reshape(-1), bottom[0].grad.reshape(self.view)
            self.device.kernels.channelwise.affine(dy, self.zeros, s, self.zeros, dx)

    def _coefficient_gradients(self, top, propagate_down, bottom, scale, dy):
        learned = self.is_learned
        if not (any(self.param_propagate_down) or (not learned and propagate_down[1])):
            return
        x = self._input(top, bottom).array.reshape(self.view)
        if self.view[0] * self.view[2] == 1:  # a coefficient for each element: nothing to sum
            total, dot = dy, dy * x
        else:
            total, dot = self.device.kernels.channelwise.sums(dy, self.zeros, x, self.zeros)
        if not learned and propagate_down[1]:
            scale.grad[...] = dot.reshape(scale.shape).astype(scale.dtype)
        self.add_gradients(total, dot)

    def _input(self, top, bottom):
        if top[0] is not bottom[0]:
            return bottom[0]
        if self.norm:
            self.kept.reshape_like(bottom[0])
            self.norm.normalise_again(self.kept.array)
        return self.kept

    def add_gradients(self, total, dot):
        """Add the parameters' gradients, from the sums of dy and of dy * x."""
        sums = [dot] * self.is_learned + [total] * self.has_bias
        for blob, value, wanted in zip(self.blobs, sums, self.param_propagate_down):
            if wanted:
                blob.grad[...] += value.reshape(blob.shape).astype(blob.dtype)
