"""Deconvolution: convolution with its two passes exchanged."""

from ..engine.layer import register
from .convolution import Convolution


@register("Deconvolution")
class Deconvolution(Convolution):
    """The transpose of a convolution, which enlarges (Caffe: DeconvolutionLayer).

    Bottoms (M..., channels, *size) -> tops (M..., num_output, *out size) with, on each axis,
    out = stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad. Parameters: weight
    (channels, num_output / group, *kernel); bias (num_output,) unless `bias_term: false`.
    """

    transposed = True
    fuses_relu = fuses_relu_gradient = False

    def forward(self, bottom, top):
        kernels = self.device.kernels.convolution
        for b, t in zip(bottom, top):
            kernels.backward_data(b.array, self.blobs[0].array, t.array, self.geometry)
            if self.bias_term:
                kernels.add_bias(t.array, self.blobs[1].array, self.geometry)

    def backward(self, top, propagate_down, bottom):
        kernels = self.device.kernels.convolution
        for t, propagate, b in zip(top, propagate_down, bottom):
            if self.bias_term and self.param_propagate_down[1]:
                kernels.backward_bias(t.grad, self.blobs[1].grad, self.geometry)
            if self.param_propagate_down[0]:
                kernels.backward_weight(t.grad, b.array, self.blobs[0].grad, self.geometry)
            if propagate:
                kernels.forward(t.grad, self.blobs[0].array, None, b.grad, self.geometry)
