"""Convolution over any number of spatial axes."""

import math

from ..engine.layer import Layer, register
from .window import Window, conv_geometry, read_window

# A convolution without spatial axes is one over a single position.
POSITION = Window((1,), (1,), (0,), (1,))


@register("Convolution")
class Convolution(Layer):
    """Each bottom, convolved with the same weights (Caffe: ConvolutionLayer).

    Bottoms (M..., channels, *size) -> tops (M..., num_output, *out size), the channel axis being
    `convolution_param.axis`. Parameters: weight (num_output, channels / group, *kernel); bias
    (num_output,) unless `bias_term: false`. `engine` and `force_nd_im2col` change nothing.
    """

    min_bottom = min_top = 1
    equal_counts = True
    in_place = False
    transposed = False
    fuses_relu = fuses_relu_gradient = True

    def setup(self, bottom, top):
        p = self.param.convolution_param
        self.axis = self.axis_of(bottom[0], p.axis)
        self.channels, self.num_output = bottom[0].shape[self.axis], p.num_output
        self.spatial_axes = len(bottom[0].shape) - self.axis - 1
        self.window = read_window(self, self.spatial_axes)
        self.group, self.bias_term = p.group, p.bias_term
        self._check_channels()
        # As a convolution, a deconvolution's weights lead from its top to its bottom.
        ends = (self.channels, self.num_output)
        inputs, outputs = ends[::-1] if self.transposed else ends
        self.add_param((outputs, inputs // self.group, *self.window.kernel), p.weight_filler)
        if self.bias_term:
            self.add_param((self.num_output,), p.bias_filler)
        self.bottom_shape = None

    def _check_channels(self):
        if self.num_output < 1:
            raise self.error(
                "convolution_param.num_output of at least 1", self.num_output,
                "Write convolution_param { num_output: N ... }.",
            )  # fmt: skip
        if self.group < 1:
            raise self.error("convolution_param.group of at least 1", self.group)
        for name, count in (("bottom channels", self.channels), ("num_output", self.num_output)):
            if count % self.group or count == 0:
                raise self.error(
                    f"{name} divisible by group {self.group}", count,
                    "Correct convolution_param.group or num_output.",
                )  # fmt: skip

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        for b in bottom[1:]:
            if b.shape != shape:
                raise self.error(
                    f"bottoms of one shape, {shape}", b.shape,
                    "Use a layer each, with shared parameters.",
                )  # fmt: skip
        if shape != self.bottom_shape:
            self._set_geometry(shape)
        for t in top:
            t.reshape(*self.top_shape)

    def _set_geometry(self, shape):
        if len(shape) != self.axis + 1 + self.spatial_axes or shape[self.axis] != self.channels:
            raise self.error(
                f"{self.spatial_axes} spatial axes after {self.channels} channels on axis "
                f"{self.axis}, as when the layer was set up", f"bottom shape {shape}",
            )  # fmt: skip
        size = shape[self.axis + 1 :]
        self.geometry = conv_geometry(
            self, math.prod(shape[: self.axis]), self.channels, self.num_output,
            size or (1,), self.window if size else POSITION, self.group, self.transposed,
        )  # fmt: skip
        out = self.geometry.in_size if self.transposed else self.geometry.out_size
        self.top_shape = (*shape[: self.axis], self.num_output, *(out if size else ()))
        self.bottom_shape = shape

    def forward(self, bottom, top):
        self._forward(bottom, top, relu=False)

    def forward_relu(self, bottom, top):
        """`forward`, and max(x, 0) of the tops."""
        self._forward(bottom, top, relu=True)

    def fuses_norm(self, norm, scale):
        """Whether this layer can do the work of a BatchNorm in place, and of a Scale after it."""
        able = self.device.normalises_convolutions and not self.transposed and self.axis == 1
        return able and norm.folds_scale(scale)

    def forward_norm(self, bottom, top, norm, scale, relu):
        """`forward`, that of the layers `norm` and `scale` in place, and max(x, 0) if `relu`."""
        norm.reshape(top, top)
        self._forward(bottom, top, relu, norm=norm.coefficients(top, scale))

    def _forward(self, bottom, top, relu, **norm):
        kernels = self.device.kernels.convolution
        weight = self.blobs[0].array
        bias = self.blobs[1].array if self.bias_term else None
        for b, t in zip(bottom, top):
            kernels.forward(b.array, weight, bias, t.array, self.geometry, relu=relu, **norm)

    def backward(self, top, propagate_down, bottom):
        self._backward(top, propagate_down, bottom, [None] * len(bottom))

    def backward_relu(self, top, propagate_down, bottom):
        """`backward`, and that of the ReLU in place whose results the bottoms are."""
        self._backward(top, propagate_down, bottom, [b.array for b in bottom])

    def _backward(self, top, propagate_down, bottom, gates):
        kernels, g = self.device.kernels.convolution, self.geometry
        with_bias = self.bias_term and self.param_propagate_down[1]
        for t, propagate, b, gate in zip(top, propagate_down, bottom, gates):
            db = self.blobs[1].grad if with_bias else None
            if self.param_propagate_down[0]:
                dw, add = self.blobs[0].grad_to_add_to()
                kernels.backward_weight(b.array, t.grad, dw, g, db=db, add=add)
            elif with_bias:
                kernels.backward_bias(t.grad, db, g)
            if propagate:
                kernels.backward_data(t.grad, self.blobs[0].array, b.grad, g, gate=gate)
