"""Passes over arrays with one coefficient a channel, each reading and writing memory once.

Arrays have the shape (outer, channels, inner) and vectors (channels,); all share one dtype.
`out` may be one of the inputs. Rows are dealt to threads; a row is summed in a fixed order, so
results do not depend on how many threads there are.
"""

import numpy as np
from numba import prange

from . import adaptive_njit, parallel_njit
from .simd_norm import normalise_to
from .simd_sums import norm_sums_to, sums_to
from .sums import dot as dot_of
from .sums import total as total_of

# No fastmath: NaN must pass, and a negative number times zero plus zero is 0, not -0.

_PART = 1 << 10  # elements that are summed in their own dtype


def rows(array):
    """`array` of any shape as (rows, 1, row length), for the functions here."""
    split = min(2, array.ndim - 1) if array.ndim else 0
    count = 1
    for d in array.shape[:split]:
        count *= d
    return array.reshape(count, 1, array.size // count if count else 0)


@parallel_njit
def relu(x, slope, out):
    """out = x where x > 0, slope * x elsewhere."""
    outer, channels, inner = x.shape
    zero = x.dtype.type(0)
    for row in prange(outer * channels):
        n, c = row // channels, row % channels
        s = slope[c]
        for i in range(inner):
            v = x[n, c, i]
            out[n, c, i] = v if v > zero else v * s + zero


@parallel_njit
def relu_backward(x, dy, slope, out):
    """out = dy where x > 0, slope * dy elsewhere."""
    outer, channels, inner = x.shape
    zero = x.dtype.type(0)
    for row in prange(outer * channels):
        n, c = row // channels, row % channels
        s = slope[c]
        for i in range(inner):
            d = dy[n, c, i]
            out[n, c, i] = d if x[n, c, i] > zero else d * s


@adaptive_njit
def add_rows(y, b, relu):
    """y += b for each row of y (rows, columns); negative results become 0 if `relu`."""
    zero = y.dtype.type(0)
    for row in prange(len(y)):
        line = y[row]
        if relu:
            for i in range(len(b)):
                v = line[i] + b[i]
                line[i] = v if v > zero else v * zero + zero  # as `relu` does
        else:
            for i in range(len(b)):
                line[i] += b[i]


@parallel_njit
def affine(x, centre, scale, offset, out):
    """out = (x - centre) * scale + offset."""
    outer, channels, inner = x.shape
    for row in prange(outer * channels):
        n, c = row // channels, row % channels
        a, s, b = centre[c], scale[c], offset[c]
        for i in range(inner):
            out[n, c, i] = (x[n, c, i] - a) * s + b


@parallel_njit
def _normalise(x, norm, relu, kept, out):
    outer, channels, inner = x.shape
    xs, keeps, outs = x.reshape(-1), kept.reshape(-1), out.reshape(-1)
    for row in prange(outer * channels):
        place = row * inner
        if keeps.size:
            for i in range(place, place + inner):
                keeps[i] = xs[i]
        normalise_to(xs, place, outs, place, inner, norm, row % channels, channels, relu)


def normalise(x, centre, factor, scale, offset, relu, out, kept=None):
    """out = (x - centre) * factor * scale + offset; negative results become 0 if `relu`.

    Args: kept: becomes a copy of x, if it is given.
    """
    kept = np.empty((0, 0, 0), x.dtype) if kept is None else kept
    _normalise(x, np.stack((centre, factor, scale, offset)), relu, kept, out)


@parallel_njit
def combine(x, x_centre, x_scale, y, y_centre, y_scale, out):
    """out = (x - x_centre) * x_scale + (y - y_centre) * y_scale."""
    outer, channels, inner = x.shape
    for row in prange(outer * channels):
        n, c = row // channels, row % channels
        a, s, b, t = x_centre[c], x_scale[c], y_centre[c], y_scale[c]
        for i in range(inner):
            out[n, c, i] = (x[n, c, i] - a) * s + (y[n, c, i] - b) * t


@parallel_njit
def _row_sums(x, x_centre, y, y_centre, parts, sums, dots):
    outer, channels, inner = x.shape
    xs, ys = x.reshape(-1), y.reshape(-1)
    for n in prange(outer * channels):
        c = n % channels
        total = dot = 0.0
        for low in range(n * inner, (n + 1) * inner, _PART):
            count = min(_PART, (n + 1) * inner - low)
            sums_to(xs, low, x_centre[c], ys, low, y_centre[c], count, parts, 2 * n)
            total += parts[2 * n]
            dot += parts[2 * n + 1]
        sums[n // channels, c] = total
        dots[n // channels, c] = dot


def sums(x, x_centre, y, y_centre):
    """For each channel the sums of x' = x - x_centre and of x' * (y - y_centre), in float64."""
    total = np.empty(x.shape[:2])
    dot = np.empty(x.shape[:2])
    parts = np.empty(2 * total.size, x.dtype)
    _row_sums(x, x_centre, y, y_centre, parts, total, dot)
    return total.sum(axis=0), dot.sum(axis=0)


@parallel_njit
def _row_norm_sums(dz, scale, x, mean, factor, parts, sums):
    outer, channels, inner = x.shape
    dzs, xs = dz.reshape(-1), x.reshape(-1)
    for n in prange(outer * channels):
        c = n % channels
        a = b = d = e = 0.0
        for low in range(n * inner, (n + 1) * inner, _PART):
            count = min(_PART, (n + 1) * inner - low)
            norm_sums_to(dzs, low, scale[c], xs, low, mean[c], factor[c], count, parts, 4 * n)
            a += parts[4 * n]
            b += parts[4 * n + 1]
            d += parts[4 * n + 2]
            e += parts[4 * n + 3]
        row = n // channels
        sums[0, row, c], sums[1, row, c], sums[2, row, c], sums[3, row, c] = a, b, d, e


def norm_sums(dz, scale, x, mean, factor):
    """What the gradients of z = scale * y + offset with y = (x - mean) * factor need: for each
    channel the sums of dz, dz * y, dy = dz * scale and dy * (x - mean), four arrays in float64."""
    total = np.empty((4, *x.shape[:2]))
    _row_norm_sums(dz, scale, x, mean, factor, np.empty(2 * total.size, x.dtype), total)
    return [rows.sum(axis=0) for rows in total]


@parallel_njit
def norm_backward(dz, scale, dy_mean, factor, x, mean, slope, out):
    """out = (dz * scale - dy_mean) * factor + (x - mean) * slope."""
    outer, channels, inner = x.shape
    for row in prange(outer * channels):
        n, c = row // channels, row % channels
        s, a, f, b, t = scale[c], dy_mean[c], factor[c], mean[c], slope[c]
        for i in range(inner):
            out[n, c, i] = (dz[n, c, i] * s - a) * f + (x[n, c, i] - b) * t


@parallel_njit
def _row_slopes(x, dy, total):
    outer, channels, inner = x.shape
    zero = x.dtype.type(0)
    for row in prange(outer * channels):
        xs, dys = x[row // channels, row % channels], dy[row // channels, row % channels]
        whole = 0.0
        part = np.empty(min(_PART, inner), x.dtype)
        for low in range(0, inner, _PART):
            count = min(_PART, inner - low)
            for i in range(count):
                part[i] = zero if xs[low + i] > zero else xs[low + i]
            whole += dot_of(part[:count], dys[low : low + count])
        total[row // channels, row % channels] = whole


def slope_sums(x, dy):
    """For each channel the sum of min(x, 0) * dy, in float64: the gradient of `relu`'s slope."""
    total = np.empty(x.shape[:2])
    _row_slopes(x, dy, total)
    return total.sum(axis=0)


@parallel_njit
def _row_totals(x, total):
    outer, channels, inner = x.shape
    for row in prange(outer * channels):
        line = x[row // channels, row % channels]
        whole = 0.0
        for low in range(0, inner, _PART):
            whole += total_of(line[low : low + _PART])
        total[row // channels, row % channels] = whole


def totals(x):
    """For each channel the sum of x, in float64."""
    total = np.empty(x.shape[:2])
    _row_totals(x, total)
    return total.sum(axis=0)
