"""Im2col: the windows of a convolution, written out."""

import math

from ..engine.layer import Layer, register
from .window import conv_geometry, read_window


@register("Im2col")
class Im2col(Layer):
    """What each weight of a convolution would meet (Caffe: Im2colLayer).

    Bottom (M..., C, *size) -> top (M..., C * window positions, *out size), zero in the padding.
    Of `convolution_param` it reads axis, kernel, stride, pad and dilation.
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        self.axis = self.axis_of(bottom[0], self.param.convolution_param.axis)
        self.spatial_axes = len(bottom[0].shape) - self.axis - 1
        if self.spatial_axes < 1:
            raise self.error(
                "at least one spatial axis after convolution_param.axis",
                f"axis {self.axis} of bottom shape {bottom[0].shape}",
            )  # fmt: skip
        self.window = read_window(self, self.spatial_axes)
        self.bottom_shape = None

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        if shape != self.bottom_shape:
            if len(shape) != self.axis + 1 + self.spatial_axes:
                raise self.error(f"{self.axis + 1 + self.spatial_axes} axes", f"shape {shape}")
            images, channels = math.prod(shape[: self.axis]), shape[self.axis]
            size = shape[self.axis + 1 :]
            self.geometry = conv_geometry(self, images, channels, 1, size, self.window)
            self.bottom_shape = shape
            rows = channels * math.prod(self.window.kernel)
            self.top_shape = (*shape[: self.axis], rows, *self.geometry.out_size)
        top[0].reshape(*self.top_shape)

    def forward(self, bottom, top):
        x, y = self._images(bottom[0].array), self._columns(top[0].array)
        # (images, rows, positions) -> (rows, images, positions)
        col = self.device.xp.empty_like(y.swapaxes(0, 1), order="C")
        self.device.kernels.im2col.im2col(x, self.geometry, col)
        y[...] = col.swapaxes(0, 1)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        dx, dy = self._images(bottom[0].grad), self._columns(top[0].grad)
        dx[...] = 0
        # (images, rows, positions) -> (rows, images, positions)
        col = self.device.xp.ascontiguousarray(dy.swapaxes(0, 1))
        self.device.kernels.im2col.col2im(col, self.geometry, dx)

    def _images(self, x):
        return x.reshape(self.geometry.in_shape)

    def _columns(self, y):
        # (M..., rows, *out size) -> (images, rows, positions), a view
        return y.reshape(self.geometry.batch, y.shape[self.axis], self.geometry.out_count)
