"""Columns of a convolution, packed as its products of matrices read them.

The columns of one group are a matrix (depth, images * output positions): row (c, k) holds what
weight k of input channel c meets at each position of each image, zero where that is padding. Only a
few columns at a time are ever written: a panel (depth, width) of neighbours, `width` being their
number rounded up to LANES. What follows the last column is zero.
"""

from collections import namedtuple

from numba import njit

from .im2col import inside, line_of
from .simd import LANES, copy_fourth, copy_lanes, copy_second, prefetch

# A convolution as products see it: `inputs` and `outputs` are channels of one group, `lines` and
# `across` the window's lines and width, `in_count` and `count` positions of input and output, and
# start, offset, size those of `ConvGeometry.lines`.
Layout = namedtuple(
    "Layout", "batch group inputs outputs lines across in_count in_width count out_width stride "
    "pad dilation pointwise start offset size"
)  # fmt: skip


def layout(g):
    """The `Layout` of a `ConvGeometry`."""
    start, offset, size = g.lines
    return Layout(
        g.batch, g.group, g.channels // g.group, g.num_output // g.group, offset.shape[1],
        g.kernel[-1], g.in_count, g.in_size[-1], g.out_count, g.out_size[-1], g.stride[-1],
        g.pad[-1], g.dilation[-1], g.is_pointwise, start, offset, size,
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
            copy_lanes(x, place + i, panel, target + i, min(n - i, LANES))
        place += s.in_count
        target += width


@njit
def _pack_line(x, s, place, channels, r, begin, n, panel, target, width):
    # Columns [begin, begin + n) of output line r.
    for k in range(s.lines):
        line = line_of(s.start, s.offset, s.size, r, k)
        for j in range(s.across):
            shift = j * s.dilation - s.pad
            low, high = inside(shift, s.stride, s.in_width, s.out_width)
            a = min(max(low, begin), begin + n) if line >= 0 else begin + n
            z = max(min(high, begin + n), a)
            source = place + line * s.in_width + a * s.stride + shift
            row = target + (k * s.across + j) * width
            for _ in range(channels):
                for i in range(row, row + a - begin):
                    panel[i] = 0
                if s.lines * s.across == 1:
                    # No other line of the window asks for what is needed next.
                    for i in range(0, (z - a) * s.stride, LANES):
                        prefetch(x, source + s.stride * s.in_width + i)
                _copy(x, source, s.stride, z - a, panel, row + a - begin)
                for i in range(row + z - begin, row + n):
                    panel[i] = 0
                source += s.in_count
                row += s.lines * s.across * width


@njit
def _copy(x, source, stride, count, panel, target):
    for i in range(0, count, LANES):
        n = min(count - i, LANES)
        if stride == 1:
            copy_lanes(x, source + i, panel, target + i, n)
        elif stride == 2:
            copy_second(x, source + 2 * i, panel, target + i, n)
        elif stride == 4:
            copy_fourth(x, source + 4 * i, panel, target + i, n)
        else:
            for k in range(i, i + n):
                panel[target + k] = x[source + k * stride]
