"""Pooling: maximum, average, stochastic.

The maximum is taken over bins given as begin and end along each axis, so that ordinary pooling,
pyramids and RoI pooling share a kernel. Elements of a map are numbered h * width + w.
"""

import numba
import numpy as np

from . import parallel_njit
from .im2col import col2im, im2col

LOWEST = float(np.finfo(np.float32).min)  # an empty or all-NaN window's maximum, as in Caffe
SMALLEST = float(np.finfo(np.float32).tiny)  # keeps a window of zeros from dividing by zero
BLOCK_BYTES = 4 << 20  # of columns at a time in stochastic pooling


def max_forward(x, geometry, y, argmax):
    """y = the maximum of each window.

    Args:
        x: (N, C, H, W). y: (N, C, PH, PW). geometry: a PoolGeometry.
        argmax: int32 like y, set to the element that won: the first of equals, -1 for none.
    """
    image = np.arange(len(x), dtype=np.int32)
    max_over_bins(x, image, *geometry.bins, LOWEST, y, argmax)


def max_over_bins(x, image, h_bins, w_bins, empty, y, argmax):
    """y[r, c] = the maximum of x[image[r], c] over each bin; `empty` for a bin without elements.

    Args:
        x: (N, C, H, W). image: (R,) int32. y, argmax: (R, C, PH, PW).
        h_bins, w_bins: int32 (R or 1, PH, 2) and (R or 1, PW, 2); with 1, all r share them.
    """
    _max_over_bins(x, image, h_bins, w_bins, x.dtype.type(empty), y, argmax)


def pick_backward(dy, argmax, image, dx):
    """dx = dy sent back to the elements that were picked, summed in the order of dy's rows.

    Args:
        dy, argmax: (R, C, PH, PW).
        image: (R,) int32, the image that each row was taken from, or -1 to leave the row out.
        dx: (N, C, H, W).
    """
    _pick_backward(_maps(dy), _maps(argmax), image, _maps(dx))


def max_backward(dy, argmax, dx):
    """dx = the gradient of ordinary maximum or stochastic pooling."""
    pick_backward(dy, argmax, np.arange(len(dx), dtype=np.int32), dx)


def average_forward(x, geometry, y):
    """y = the sum of each window over its length, which counts padding up to size + pad."""
    _average_forward(_planes(x), *geometry.bins, *geometry.lengths, _planes(y))


def average_backward(dy, geometry, dx):
    """dx = the gradient of average pooling."""
    _average_backward(_planes(dy), *geometry.bins, *geometry.lengths, _planes(dx))


def stochastic_forward(x, geometry, chance, y, argmax):
    """y = one element of each window, drawn with a probability proportional to its value.

    Args: `chance`, like y, uniform in (0, 1]; the rest as in `max_forward`. A window without
    elements gives 0.
    """
    kernel_w, (height, width) = geometry.kernel[1], geometry.in_size
    top, left = np.indices(geometry.out_size) * np.reshape(geometry.stride, (2, 1, 1))
    corner = (top * width + left).reshape(-1)  # (P,)
    outside = ((top >= height) | (left >= width)).reshape(-1)
    y, argmax, chance = _flat(y), _flat(argmax), _flat(chance)  # (N * C, P)
    for block, col in _windows(x, geometry):
        total = np.cumsum(col, axis=1)
        pick = (total >= chance[block, None] * total[:, -1:]).argmax(axis=1)
        y[block] = np.take_along_axis(col, pick[:, None], axis=1)[:, 0]
        argmax[block] = corner + pick // kernel_w * width + pick % kernel_w
    argmax[:, outside] = -1  # windows without elements


def expected_forward(x, geometry, y):
    """y = each window's mean weighted by the values themselves: what stochastic pooling expects."""
    y = _flat(y)
    for block, col in _windows(x, geometry):
        y[block] = (col * col).sum(axis=1) / (col.sum(axis=1) + col.dtype.type(SMALLEST))


def expected_backward(x, y, dy, geometry, dx):
    """dx = the gradient of `expected_forward`: (2 x - y) / sum, window by window."""
    y, dy = _flat(y), _flat(dy)
    dx[...] = 0
    out = _planes(dx)[:, None]
    for block, col in _windows(x, geometry):
        total = col.sum(axis=1) + col.dtype.type(SMALLEST)
        slopes = (2 * col - y[block, None]) * (dy[block] / total)[:, None]
        # (planes, K, P) -> (K, planes, P)
        col2im(np.ascontiguousarray(slopes.swapaxes(0, 1)), geometry.windows, out[block])


def _windows(x, g):
    # Blocks of planes with what their windows hold, (planes, K, P), zero outside of the image.
    planes = _planes(x)[:, None]
    size, count = g.kernel[0] * g.kernel[1], g.out_size[0] * g.out_size[1]
    step = max(BLOCK_BYTES // (size * count * x.itemsize), 1)
    for n in range(0, len(planes), step):
        block = slice(n, min(n + step, len(planes)))
        col = np.empty((size, block.stop - block.start, count), x.dtype)
        im2col(planes[block], g.windows, col)
        yield block, col.swapaxes(0, 1)


def _planes(x):
    # (N, C, H, W) -> (N * C, H, W)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _maps(x):
    # (N, C, H, W) -> (N, C, H * W)
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


def _flat(x):
    # (N, C, H, W) -> (N * C, H * W)
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])


@parallel_njit
def _max_over_bins(x, image, h_bins, w_bins, empty, y, argmax):
    rows, channels, pooled_h, pooled_w = y.shape
    width = x.shape[3]
    for i in numba.prange(rows * channels):
        r = i // channels
        c = i % channels
        map_ = x[image[r], c]
        h_bin = h_bins[r % len(h_bins)]
        w_bin = w_bins[r % len(w_bins)]
        # First down the columns, which is many elements at once, then across the few winners.
        first, last = w_bin[0, 0], max(w_bin[-1, 1], w_bin[0, 0])
        best = np.empty(last - first, x.dtype)
        where = np.empty(last - first, np.int32)
        for p in range(pooled_h):
            top, bottom = h_bin[p]
            best[:] = LOWEST
            where[:] = -1
            for h in range(top, bottom):
                line = map_[h, first:last]
                for w in range(len(line)):
                    above = line[w] > best[w]
                    best[w] = line[w] if above else best[w]
                    where[w] = h if above else where[w]
            for q in range(pooled_w):
                left = w_bin[q, 0] - first
                right = w_bin[q, 1] - first
                value = x.dtype.type(LOWEST)
                line_of = np.int32(-1)
                column = np.int32(-1)
                for w in range(left, right):
                    # Of equals the first line wins, within it the first column.
                    above = best[w] > value or (best[w] == value and where[w] < line_of)
                    value = best[w] if above else value
                    line_of = where[w] if above else line_of
                    column = w if above else column
                inside = bottom > top and right > left
                y[r, c, p, q] = value if inside else empty
                argmax[r, c, p, q] = line_of * width + first + column if line_of >= 0 else -1


@parallel_njit
def _pick_backward(dy, argmax, image, dx):
    # A thread owns a channel: no two threads add to the same element, and the order is fixed.
    for c in numba.prange(dx.shape[1]):
        for n in range(dx.shape[0]):
            for i in range(dx.shape[2]):
                dx[n, c, i] = 0
        for r in range(len(dy)):
            if image[r] < 0:
                continue
            out = dx[image[r], c]
            for i in range(dy.shape[2]):
                winner = argmax[r, c, i]
                if winner >= 0:
                    out[winner] += dy[r, c, i]


@parallel_njit
def _average_forward(x, h_bins, w_bins, h_length, w_length, y):
    for i in numba.prange(len(x)):
        line = np.empty(x.shape[2], x.dtype)
        for p in range(y.shape[1]):
            line[:] = 0
            for h in range(h_bins[0, p, 0], h_bins[0, p, 1]):
                for w in range(len(line)):
                    line[w] += x[i, h, w]
            for q in range(y.shape[2]):
                total = x.dtype.type(0)
                left, right = w_bins[0, q]
                for w in range(left, right):
                    total += line[w]
                # NOTE: Caffe divides an empty window by its length, zero or below: NaN or -0.
                length = max(h_length[p] * w_length[q], 1)
                y[i, p, q] = total / x.dtype.type(length)


@parallel_njit
def _average_backward(dy, h_bins, w_bins, h_length, w_length, dx):
    for i in numba.prange(len(dx)):
        line = np.empty(dx.shape[2], dx.dtype)
        dx[i] = 0
        for p in range(dy.shape[1]):
            line[:] = 0
            for q in range(dy.shape[2]):
                length = max(h_length[p] * w_length[q], 1)
                share = dy[i, p, q] / dy.dtype.type(length)
                left, right = w_bins[0, q]
                for w in range(left, right):
                    line[w] += share
            for h in range(h_bins[0, p, 0], h_bins[0, p, 1]):
                for w in range(len(line)):
                    dx[i, h, w] += line[w]
