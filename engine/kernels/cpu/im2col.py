"""im2col and col2im for any number of spatial axes.

An image (C, *size) is seen as (C, lines, width), lines along its last axis. The columns are
(C * window positions, images * output positions): row (c, k) holds what weight k of channel c
meets at each output position, zero where that is padding.
"""

import numba

from . import parallel_njit


def im2col(x, geometry, col, first=0):
    """Fill the columns for output positions `first` on.

    Args:
        x: images (B, C, *in_size), C-contiguous.
        col: to be filled, (C * window positions, B, count); position p of the block is position
            first + p of the output, flattened.
    """
    _gather(*_views(x, geometry, col), *_last_axis(geometry), first)


def col2im(col, geometry, x, first=0):
    """Add columns to the image positions that they were taken from (the transpose of im2col)."""
    _scatter(*_views(x, geometry, col), *_last_axis(geometry), first)


def _views(x, g, col):
    images = x.shape[0]
    width, window = g.in_size[-1], g.kernel[-1]
    start, offset, size = g.lines
    x = x.reshape(images, g.channels, g.in_count // width, width)
    # (C * K, B, count) -> (C, window lines, window width, B, count)
    col = col.reshape(g.channels, offset.shape[1], window, images, col.shape[-1])
    return x, col, start, offset, size


def _last_axis(g):
    return g.out_size[-1], g.stride[-1], g.pad[-1], g.dilation[-1]


@numba.njit(inline="always")
def line_of(start, offset, size, r, k):
    # The line that window line k meets at output line r, or -1 in the padding.
    line = 0
    for axis in range(len(size)):
        place = start[axis, r] + offset[axis, k]
        if place < 0 or place >= size[axis]:
            return -1
        line = line * size[axis] + place
    return line


@numba.njit(inline="always")
def inside(shift, stride, width, out_width):
    # Output columns [low, high) whose input column, stride * column + shift, is in [0, width).
    low = min(max((stride - 1 - shift) // stride, 0), out_width)
    high = max(min((width - 1 - shift) // stride + 1, out_width), low)
    return low, high


@parallel_njit
def _gather(x, col, start, offset, size, out_width, stride, pad, dilation, first):
    channels, window_lines, window_width, images, count = col.shape
    width = x.shape[3]
    for row in numba.prange(channels * window_lines * window_width):
        c = row // (window_lines * window_width)
        k = row // window_width % window_lines
        j = row % window_width
        shift = j * dilation - pad
        low, high = inside(shift, stride, width, out_width)
        for b in range(images):
            done = 0
            while done < count:
                # The rest of output line r, from column `begin` on.
                r = (first + done) // out_width
                begin = (first + done) % out_width
                end = min(out_width, begin + count - done)
                out = col[c, k, j, b, done : done + end - begin]
                line = line_of(start, offset, size, r, k)
                a = min(max(low, begin), end) if line >= 0 else end
                z = max(min(high, end), a)
                for q in range(a - begin):
                    out[q] = 0
                if stride == 1:
                    values = x[b, c, line, a + shift : z + shift]
                    body = out[a - begin :]
                    for q in range(len(values)):
                        body[q] = values[q]
                else:
                    for q in range(a, z):
                        out[q - begin] = x[b, c, line, q * stride + shift]
                for q in range(z - begin, end - begin):
                    out[q] = 0
                done += end - begin


@parallel_njit
def _scatter(x, col, start, offset, size, out_width, stride, pad, dilation, first):
    _, window_lines, window_width, images, count = col.shape
    channels, width = x.shape[1], x.shape[3]
    for plane in numba.prange(images * channels):
        b = plane // channels
        c = plane % channels
        for k in range(window_lines):
            for j in range(window_width):
                shift = j * dilation - pad
                low, high = inside(shift, stride, width, out_width)
                done = 0
                while done < count:
                    r = (first + done) // out_width
                    begin = (first + done) % out_width
                    end = min(out_width, begin + count - done)
                    line = line_of(start, offset, size, r, k)
                    if line >= 0:
                        a = min(max(low, begin), end)
                        z = max(min(high, end), a)
                        values = col[c, k, j, b, done + a - begin : done + z - begin]
                        if stride == 1:
                            out = x[b, c, line, a + shift : z + shift]
                            for q in range(len(values)):
                                out[q] += values[q]
                        else:
                            out = x[b, c, line]
                            for q in range(len(values)):
                                out[(a + q) * stride + shift] += values[q]
                    done += end - begin
