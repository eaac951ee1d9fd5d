"""Shapes and windows of the spatial layers, the same for every device.

Pure functions of sizes: no array of activations is touched here.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np


def window_extent(kernel, dilation):
    """How many elements a window spans along one axis, gaps included."""
    return dilation * (kernel - 1) + 1


def conv_size(size, kernel, stride, pad, dilation):
    """Output size of a convolution along one axis; below 1 where the window does not fit.

    Rounded towards zero, as C divides: a window that is wider than the padded image by less than
    the stride fits once, and what sticks out of the image is zero (Caffe: ConvolutionLayer).
    """
    room = size + 2 * pad - window_extent(kernel, dilation)
    return (room // stride if room >= 0 else -(-room // stride)) + 1


def deconv_size(size, kernel, stride, pad, dilation):
    """Output size of a deconvolution along one axis; it may come out below 1."""
    return stride * (size - 1) + window_extent(kernel, dilation) - 2 * pad


@dataclass(frozen=True)
class ConvGeometry:
    """One convolution: its sizes along any number (at least one) of spatial axes.

    A deconvolution is described by the convolution that it transposes: the input is its top.

    Attributes:
        batch: number of images; channels, num_output: of input and output, all groups together.
        in_size, out_size, kernel, stride, pad, dilation: tuples, an entry for each spatial axis.
    """

    batch: int
    channels: int
    num_output: int
    in_size: tuple
    out_size: tuple
    kernel: tuple
    stride: tuple
    pad: tuple
    dilation: tuple
    group: int = 1

    @cached_property
    def in_shape(self):
        """Shape of the input: (batch, channels, *in_size)."""
        return (self.batch, self.channels, *self.in_size)

    @cached_property
    def out_shape(self):
        """Shape of the output: (batch, num_output, *out_size)."""
        return (self.batch, self.num_output, *self.out_size)

    @cached_property
    def in_count(self):
        """Positions in an input image."""
        return math.prod(self.in_size)

    @cached_property
    def out_count(self):
        """Positions in an output image."""
        return math.prod(self.out_size)

    @cached_property
    def kernel_count(self):
        """Weights for one output channel: channels per group times window positions."""
        return self.channels // self.group * math.prod(self.kernel)

    @cached_property
    def is_pointwise(self):
        """Whether every output position is a function of the same input position alone."""
        one, none = (1,) * len(self.kernel), (0,) * len(self.kernel)
        return self.kernel == one and self.stride == one and self.pad == none

    def by_group(self, weight):
        """Weights (O, C/group, *kernel), seen as (group, O/group, K)."""
        return weight.reshape(self.group, self.num_output // self.group, self.kernel_count)

    def by_channel(self, y, channels):
        """An array (N, channels, *size), seen as (N, channels, positions)."""
        return y.reshape(self.batch, channels, y.size // max(self.batch * channels, 1))

    @cached_property
    def lines(self):
        """Where windows fall on all spatial axes but the last: `(start, offset, size)`.

        An image is seen as lines along its last axis. On outer axis a, the window position k of
        output line r lies at start[a, r] + offset[a, k], which is inside if it is in
        [0, size[a]). start is (A, output lines), offset (A, window lines), size (A,), all int64.
        """
        outer = len(self.kernel) - 1
        start = _positions(self.out_size[:outer], self.stride, self.pad)
        offset = _positions(self.kernel[:outer], self.dilation, (0,) * outer)
        return start, offset, np.array(self.in_size[:outer], np.int64)


def _positions(counts, step, pad):
    # All index tuples below `counts`, in C order, scaled: (axes, product of counts).
    index = np.indices(counts, np.int64).reshape(len(counts), math.prod(counts))
    for axis, row in enumerate(index):
        row *= step[axis]
        row -= pad[axis]
    return index


def pool_sizes(size, kernel, stride, pad, ceil):
    """Output sizes of pooling, an entry for each axis as in the arguments.

    Rounded up (`ceil`) or down. With any padding, the last windows of all axes must begin before
    size + pad (Caffe: PoolingLayer::Reshape).
    """
    pooled = []
    for n, k, s, p in zip(size, kernel, stride, pad):
        room = n + 2 * p - k
        count = (-(-room // s) if ceil else room // s) + 1
        if any(pad) and (count - 1) * s >= n + p:
            count -= 1
        pooled.append(count)
    return tuple(pooled)


@dataclass(frozen=True)
class PoolGeometry:
    """One pooling over images: its sizes as (height, width) pairs.

    The bins are the windows clipped to the image, as (1, pooled, 2) int32 arrays of begin and end;
    a window that lies outside is empty (end <= begin).
    """

    in_size: tuple
    out_size: tuple
    kernel: tuple
    stride: tuple
    pad: tuple

    @cached_property
    def is_global(self):
        """Whether there is one window, of the whole image."""
        return self.kernel == self.in_size and self.out_size == (1, 1) and not any(self.pad)

    @cached_property
    def bins(self):
        """The bins of both axes."""
        return tuple(
            np.clip(self._windows(a), 0, self.in_size[a]).astype(np.int32)[None] for a in (0, 1)
        )

    @cached_property
    def lengths(self):
        """Per axis, the window lengths that an average divides by: clipped at size + pad."""
        return tuple(
            np.diff(np.minimum(self._windows(a), self.in_size[a] + self.pad[a]))[:, 0]
            for a in (0, 1)
        )

    @cached_property
    def windows(self):
        """The windows as those of a convolution over one plane."""
        return ConvGeometry(
            1, 1, 1, self.in_size, self.out_size, self.kernel, self.stride, self.pad, (1, 1)
        )

    def _windows(self, axis):
        begin = np.arange(self.out_size[axis], dtype=np.int64) * self.stride[axis] - self.pad[axis]
        return np.stack([begin, begin + self.kernel[axis]], axis=1)


def round_half_away(xp, x):
    """x rounded to whole numbers, halves away from zero (C's `round`)."""
    whole = xp.trunc(x)
    return whole + xp.sign(x) * (xp.abs(x - whole) >= 0.5)


def roi_corners(xp, rois, spatial_scale):
    """x1, y1, x2, y2 of RoIs (R, 5) in feature coordinates, ends included: int64 (R, 4)."""
    far = 2.0**30  # no map is that large, and sums of corners stay within int64
    corners = round_half_away(xp, rois[:, 1:] * rois.dtype.type(spatial_scale))
    return corners.clip(-far, far).astype(xp.int64)


def roi_images(xp, rois, spatial_scale):
    """The image that each RoI sends its gradient to, int32; -1 if the RoI ends before it begins.

    NOTE: Caffe pools such a RoI as one pixel, but gives this pixel no gradient; so do we.
    """
    corners = roi_corners(xp, rois, spatial_scale)
    formed = (corners[:, :2] <= corners[:, 2:]).all(axis=1)
    return xp.where(formed, rois[:, 0], -1).astype(xp.int32)


def roi_bins(xp, rois, spatial_scale, pooled, size):
    """The bins that RoI pooling takes the maximum over (fast-rcnn: ROIPoolingLayer).

    Computed in the RoIs' own dtype, on which the place of a bin's border can depend.

    Args:
        rois: (R, 5) of image index, x1, y1, x2, y2, in image coordinates, ends included.
        spatial_scale: from image to feature coordinates.
        pooled, size: (height, width) of the output and of the feature map.

    Returns:
        image (R,); and the bins of both axes, (R, pooled_h, 2) and (R, pooled_w, 2), clipped to
        the map: begin and end, end <= begin where a bin lies outside. All int32.
    """
    corners = roi_corners(xp, rois, spatial_scale)
    bins = []
    for axis, (first, last) in enumerate(((1, 3), (0, 2))):
        begin = corners[:, first, None]
        # A malformed RoI (end before begin) counts as one pixel.
        length = xp.maximum(corners[:, last, None] - begin + 1, 1)
        step = length.astype(rois.dtype) / rois.dtype.type(pooled[axis])  # (R, 1)
        place = xp.arange(pooled[axis] + 1, dtype=rois.dtype)
        low = xp.floor(place[:-1] * step).astype(xp.int64) + begin  # (R, pooled)
        high = xp.ceil(place[1:] * step).astype(xp.int64) + begin
        bins.append(xp.stack([low, high], axis=2).clip(0, size[axis]).astype(xp.int32))
    return rois[:, 0].astype(xp.int32), bins[0], bins[1]
