"""Columns of a convolution, packed as its products of matrices read them.

The columns of one group are a matrix (depth, images * output positions): row (c, k) holds what
weight k of input channel c meets at each position of each image, zero where that is padding. Only a
few columns at a time are ever written: a panel (depth, width) of neighbours, `width` being their
number rounded up to LANES. What follows the last column is zero.
"""

import functools
from collections import namedtuple

import numpy as np
from numba import njit

from .im2col import inside, line_of
from .simd import LANES, prefetch
from .simd_copy import copy_fourth, copy_lanes, copy_second

# A convolution as products see it: `inputs` and `outputs` are channels of one group, `lines` and
# `across` the window's lines and width, `in_count` and `count` positions of input and output. For
# column j of the window, `ends[j]` are the first output column that meets the image and the one
# behind the last, `shift[j]` the column of the image that output column 0 meets; between `low` and
# `high` all columns of the window meet the image. start, offset, size are those of
# `ConvGeometry.lines`.
Layout = namedtuple(
    "Layout", "batch group inputs outputs lines across in_count in_width count out_width stride "
    "ends low high shift pointwise start offset size"
)  # fmt: skip


@functools.lru_cache(1024)
def layout(g):
    """The `Layout` of a `ConvGeometry`."""
    start, offset, size = g.lines
    width, out_width, stride = g.in_size[-1], g.out_size[-1], g.stride[-1]
    shift = np.arange(g.kernel[-1]) * g.dilation[-1] - g.pad[-1]
    ends = np.array([inside.py_func(j, stride, width, out_width) for j in shift.tolist()])
    low, high = int(ends[:, 0].max()), int(ends[:, 1].min())
    return Layout(
        g.batch, g.group, g.channels // g.group, g.num_output // g.group, offset.shape[1],
        g.kernel[-1], g.in_count, width, g.out_count, out_width, stride, ends, low, high, shift,
        g.is_pointwise, start, offset, size,
    )  # fmt: skip


def plain(s):
    """The `Layout` by which the outputs of `s` are packed as they are."""
    return s._replace(
        inputs=s.outputs, outputs=s.inputs, lines=1, across=1, in_count=s.count, pointwise=True
    )


@njit
def rounded(columns):
    """The number of columns, rounded up to LANES."""
    return (columns + LANES - 1) // LANES * LANES


@njit
def pack(x, s, g, first, last, low, high, panel):
    """Write the columns [low, high) for input channels [first, last) of group g."""
    width, done = rounded(high - low), 0
    while done < high - low:
        image, position = (low + done) // s.count, (low + done) % s.count
        place = ((image * s.group + g) * s.inputs + first) * s.in_count
        if s.pointwise:
            n = min(high - low - done, s.count - position)
            _pack_positions(x, s, place + position, last - first, n, panel, done, width)
        else:
            r, begin = position // s.out_width, position % s.out_width
            n = min(high - low - done, s.out_width - begin)
            _pack_line(x, s, place, last - first, r, begin, n, panel, done, width)
        done += n
    if done < width:
        for row in range((last - first) * s.lines * s.across):
            for i in range(row * width + done, (row + 1) * width):
                panel[i] = 0


@njit
def _pack_positions(x, s, place, channels, n, panel, target, width):
    # n positions from `place` on, and of the next ones the lines of the cache are fetched.
    for _ in range(channels):
        for i in range(0, n, LANES):
            prefetch(x, place + n + i)
            count = min(n - i, LANES)
            copy_lanes(x, place + i, panel, target + i, 0, count, count)
        place += s.in_count
        target += width


@njit
def _pack_line(x, s, place, channels, r, begin, n, panel, target, width):
    # Columns [begin, begin + n) of output line r.
    for k in range(s.lines):
        line = line_of(s.start, s.offset, s.size, r, k)
        for i in range(0, n, LANES):
            column, row = begin + i, target + k * s.across * width + i
            source = place + line * s.in_width + column * s.stride
            count = min(n - i, LANES)
            inner = s.low <= column and column + LANES <= s.high
            if line >= 0 and inner and count == LANES:
                _pack_inner(x, source, s, channels, panel, row, width)
                continue
            for j in range(s.across):
                low = min(max(s.ends[j, 0] - column, 0), LANES)
                high = max(min(s.ends[j, 1] - column, count), low)
                first = source + s.shift[j]
                if line < 0 or low == high:
                    first, high = place, low
                at = row + j * width
                _pack_lanes(x, first, s, channels, panel, at, width, low, high, count)


@njit
def _pack_inner(x, source, s, channels, panel, target, width):
    # LANES columns of a line of the window, none of which is padding.
    # Where no other line of the window asks for what is needed next, it is fetched.
    ahead = s.stride * s.in_width if s.lines * s.across == 1 else 0
    for _ in range(channels):
        if ahead > 0:
            for v in range(s.stride):
                prefetch(x, source + ahead + v * LANES)
        row = target
        for j in range(s.across):
            _copy(x, source + s.shift[j], s.stride, panel, row, 0, LANES, LANES)
            row += width
        source += s.in_count
        target += s.lines * s.across * width


@njit
def _pack_lanes(x, source, s, channels, panel, target, width, low, high, count):
    # For each channel `count` columns, of which [low, high) are not padding.
    for _ in range(channels):
        _copy(x, source, s.stride, panel, target, low, high, count)
        source += s.in_count
        target += s.lines * s.across * width


@njit(inline="always")
def _copy(x, source, stride, panel, target, low, high, count):
    if stride == 1:
        copy_lanes(x, source, panel, target, low, high, count)
    elif stride == 2:
        copy_second(x, source, panel, target, low, high, count)
    elif stride == 4:
        copy_fourth(x, source, panel, target, low, high, count)
    else:
        for i in range(count):
            panel[target + i] = x[source + i * stride] if low <= i < high else 0
