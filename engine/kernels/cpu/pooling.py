"""Pooling: maximum and average, and stochastic, which is in a file of its own.

The usual windows have kernels of their own (windows.py); others are taken as bins with a begin and
an end along each axis. Elements of a map are numbered h * width + w.
"""

import numba
import numpy as np

from . import parallel_njit, sums
from .stochastic_pooling import expected_backward, expected_forward, stochastic_forward
from .windows import KINDS, LANES, make_maximum, make_total

__all__ = [
    "average_backward", "average_forward", "expected_backward", "expected_forward", "max_backward",
    "max_forward", "stochastic_forward",
]  # fmt: skip

LOWEST = float(np.finfo(np.float32).min)  # an empty or all-NaN window's maximum, as in Caffe

_NOTHING = np.empty(0, np.int32)
_max_22, _max_23, _max_13 = (make_maximum(*kind, LOWEST) for kind in KINDS)
_sum_22, _sum_23, _sum_13 = (make_total(*kind) for kind in KINDS)


def max_forward(x, geometry, y, argmax):
    """y = the maximum of each window.

    Args:
        x: (N, C, H, W). y: (N, C, PH, PW). geometry: a PoolGeometry.
        argmax: int32 like y, set to the element that won: the first of equals, -1 for none. None
            where nobody needs it.
    """
    kind = _kind(geometry)
    if kind >= 0 and y.size:
        kept = _NOTHING if argmax is None else argmax.reshape(-1)
        _max_windows(x.reshape(-1), *_sizes(geometry), kind, y.reshape(-1), kept)
        return
    argmax = np.empty(y.shape, np.int32) if argmax is None else argmax
    _max_over_bins(_planes(x), *geometry.bins, _planes(y), _planes(argmax))


def max_backward(dy, argmax, geometry, dx, gate=None):
    """dx = dy sent back to the elements that maximum or stochastic pooling picked.

    `gate`: an array like dy, which is taken times 0 where this is not positive. With the maxima
    of a ReLU's results, dx is then the gradient of that ReLU. None for none.
    """
    gate = dy if gate is None else gate
    bottoms = geometry.bins[0][0, :, 1]
    _max_backward(_planes(dy), _planes(argmax), bottoms, _planes(gate), gate is not dy, _planes(dx))


def average_forward(x, geometry, y):
    """y = the sum of each window over its length, which counts padding up to size + pad."""
    if geometry.is_global:
        _means(_flat(x), y.reshape(-1))
    elif _kind(geometry) >= 0 and y.size:
        sizes, kind = _sizes(geometry), _kind(geometry)
        _average_windows(x.reshape(-1), *sizes, kind, *geometry.lengths, y.reshape(-1))
    else:
        _average_forward(_planes(x), *geometry.bins, *geometry.lengths, _planes(y))


def average_backward(dy, geometry, dx):
    """dx = the gradient of average pooling."""
    if geometry.is_global:
        _spread(dy.reshape(-1), _flat(dx))
    else:
        _average_backward(_planes(dy), *geometry.bins, *geometry.lengths, _planes(dx))


def _planes(x):
    # (N, C, H, W) -> (N * C, H, W)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _kind(g):
    # The number of the kind in KINDS, or -1.
    kind = (g.stride[1], g.kernel[1])
    return KINDS.index(kind) if kind in KINDS else -1


def _sizes(g):
    # What the kernels for the usual windows take: (H, W), (PH, PW) and, down the columns, the
    # window's height, stride and padding; then the padding along rows.
    return g.in_size, g.out_size, (g.kernel[0], g.stride[0], g.pad[0]), g.pad[1]


def _flat(x):
    # (N, C, H, W) -> (N * C, H * W)
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])


@parallel_njit
def _max_windows(x, in_size, out_size, down, pad, kind, y, argmax):
    height, width = in_size
    lines, pooled = out_size
    keep = int(argmax.size > 0)
    for item in numba.prange(y.size // pooled):
        image = item // lines * height * width
        top = item % lines * down[1] - down[2]
        bottom = min(top + down[0], height)
        top = max(top, 0)
        for q in range(0, pooled, LANES):
            place, count = item * pooled + q, pooled - q
            if kind == 0:
                left = q * 2 - pad
                _max_22(x, image, width, top, bottom, left, y, argmax, place, count, keep)
            elif kind == 1:
                left = q * 2 - pad
                _max_23(x, image, width, top, bottom, left, y, argmax, place, count, keep)
            else:
                left = q - pad
                _max_13(x, image, width, top, bottom, left, y, argmax, place, count, keep)


@parallel_njit
def _max_over_bins(x, h_bins, w_bins, y, argmax):
    width = x.shape[2]
    first, last = w_bins[0, 0, 0], max(w_bins[0, -1, 1], w_bins[0, 0, 0])
    for i in numba.prange(len(y)):
        # First down the columns, which is many elements at once, then across the few winners.
        best = np.empty(last - first, x.dtype)
        where = np.empty(last - first, np.int32)
        for p in range(y.shape[1]):
            top, bottom = h_bins[0, p]
            best[:] = LOWEST
            where[:] = -1
            for h in range(top, bottom):
                line = x[i, h, first:last]
                for w in range(len(line)):
                    above = line[w] > best[w]
                    best[w] = line[w] if above else best[w]
                    where[w] = h if above else where[w]
            for q in range(y.shape[2]):
                left, right = w_bins[0, q, 0] - first, w_bins[0, q, 1] - first
                value = x.dtype.type(LOWEST)
                line_of = np.int32(-1)
                column = np.int32(-1)
                for w in range(left, right):
                    # Of equals the first line wins, within it the first column.
                    above = best[w] > value or (best[w] == value and where[w] < line_of)
                    value = best[w] if above else value
                    line_of = where[w] if above else line_of
                    column = w if above else column
                y[i, p, q] = value
                argmax[i, p, q] = line_of * width + first + column if line_of >= 0 else -1


@parallel_njit
def _max_backward(dy, argmax, bottoms, gate, gated, dx):
    width, zero = dx.shape[2], dx.dtype.type(0)
    for i in numba.prange(len(dx)):
        out = dx[i].reshape(-1)
        # A window's lines are cleared just before they are added to, while they are in the cache.
        cleared = 0
        for p in range(dy.shape[1] + 1):
            end = bottoms[p] * width if p < dy.shape[1] else len(out)
            if end > cleared:
                out[cleared:end] = 0
                cleared = end
            if p < dy.shape[1]:
                for q in range(dy.shape[2]):
                    winner, d = argmax[i, p, q], dy[i, p, q]
                    if gated:
                        d = d if gate[i, p, q] > zero else d * zero
                    if winner >= 0:
                        out[winner] += d


@parallel_njit
def _average_windows(x, in_size, out_size, down, pad, kind, h_length, w_length, y):
    height, width = in_size
    lines, pooled = out_size
    for item in numba.prange(y.size // pooled):
        image = item // lines * height * width
        top = item % lines * down[1] - down[2]
        bottom = min(top + down[0], height)
        top = max(top, 0)
        for q in range(0, pooled, LANES):
            place, count = item * pooled + q, pooled - q
            if kind == 0:
                _sum_22(x, image, width, top, bottom, q * 2 - pad, y, place, count)
            elif kind == 1:
                _sum_23(x, image, width, top, bottom, q * 2 - pad, y, place, count)
            else:
                _sum_13(x, image, width, top, bottom, q - pad, y, place, count)
        line = y[item * pooled : (item + 1) * pooled]
        for q in range(pooled):
            length = max(h_length[item % lines] * w_length[q], 1)  # see _average_forward
            line[q] /= x.dtype.type(length)


@parallel_njit
def _means(x, y):
    for i in numba.prange(len(x)):
        y[i] = sums.total(x[i]) / x.dtype.type(x.shape[1])


@parallel_njit
def _spread(dy, dx):
    for i in numba.prange(len(dx)):
        dx[i] = dy[i] / dx.dtype.type(dx.shape[1])


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
