"""InnerProduct: a fully connected layer."""

import math

from ..engine.layer import Layer, register


@register("InnerProduct")
class InnerProduct(Layer):
    """Y = X W^T + b, X being the bottom flattened from `axis` on (Caffe: InnerProductLayer).

    Bottom (M..., K...) -> top (M..., N). Parameters: weight (N, K), or (K, N) with `transpose`;
    bias (N,) unless `bias_term: false`. dX = dY W; dW = dY^T X; db = the sum of dY's rows.
    """

    num_bottom = num_top = 1
    in_place = False
    fuses_relu = True

    def setup(self, bottom, top):
        p = self.param.inner_product_param
        if p.num_output < 1:
            raise self.error(
                "inner_product_param.num_output of at least 1", p.num_output,
                "Write inner_product_param { num_output: N }.",
            )  # fmt: skip
        self.num_output, self.transpose = p.num_output, p.transpose
        self.axis = self.axis_of(bottom[0], p.axis)
        self.inputs = bottom[0].count_from(self.axis)
        shape = (self.inputs, self.num_output) if p.transpose else (self.num_output, self.inputs)
        self.add_param(shape, p.weight_filler)
        if p.bias_term:
            self.add_param((self.num_output,), p.bias_filler)
        self.zero = self.dtype.type(0)

    def reshape(self, bottom, top):
        inputs = bottom[0].count_from(self.axis)
        if inputs != self.inputs:
            raise self.error(
                f"{self.inputs} inputs from axis {self.axis} on, as when it was set up",
                f"{inputs}, from bottom shape {bottom[0].shape}",
                "The image size of a net with InnerProduct layers is fixed.",
            )  # fmt: skip
        self.rows = math.prod(bottom[0].shape[: self.axis])
        top[0].reshape(*bottom[0].shape[: self.axis], self.num_output)

    def forward(self, bottom, top):
        self._forward(bottom, top, relu=False)

    def forward_relu(self, bottom, top):
        """`forward`, and max(x, 0) of the top."""
        self._forward(bottom, top, relu=True)

    def _forward(self, bottom, top, relu):
        x = bottom[0].array.reshape(self.rows, self.inputs)
        y = top[0].array.reshape(self.rows, self.num_output)
        w = self.blobs[0].array
        self.device.kernels.blas.matmul(x, w if self.transpose else w.T, y)
        if len(self.blobs) > 1:
            self.device.kernels.channelwise.add_rows(y, self.blobs[1].array, relu)
        elif relu:
            y = y.reshape(-1)
            self.device.kernels.activations.relu(y, self.zero, y)

    def backward(self, top, propagate_down, bottom):
        x = bottom[0].array.reshape(self.rows, self.inputs)
        dy = top[0].grad.reshape(self.rows, self.num_output)
        if self.param_propagate_down[0]:
            a, b = (x.T, dy) if self.transpose else (dy.T, x)
            dw, add = self.blobs[0].grad_to_add_to()
            self.device.kernels.blas.matmul(a, b, dw, add=add)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            self.blobs[1].grad[...] += dy.sum(axis=0)
        if propagate_down[0]:
            w = self.blobs[0].array
            dx = bottom[0].grad.reshape(self.rows, self.inputs)
            self.device.kernels.blas.matmul(dy, w.T if self.transpose else w, dx)
