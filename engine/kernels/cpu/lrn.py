"""Local response normalisation (Krizhevsky et al. 2012, section 3.3).

y = x * s ** -beta with s = k + alpha * sum of x^2 over a neighbourhood: the `size` channels around
(fewer at the ends), for arrays (images, channels, pixels), of which a block of pixels that fits the
cache is worked on at a time; or the `size` by `size` pixels around, for arrays (planes, H, W).
In both cases

    dx = dy * s ** -beta - 2 * alpha * beta * x * (the same sum of dy * x * s ** (-beta - 1))

Scalars have the arrays' dtype, and results do not go where the operands are.
"""

import numpy as np
from numba import njit, prange

from . import parallel_njit

_BLOCK = 256  # pixels
_FASTMATH = {"contract", "nsz", "arcp"}  # reassociated, s * sqrt(s) would be formed, and overflow


@njit(cache=True, error_model="numpy", nogil=True, fastmath=_FASTMATH)
def _window_sums(values, half, sums):
    """sums[c] = values[c - half] + ... + values[c + half], for arrays (channels, pixels)."""
    channels, pixels = values.shape
    half = min(half, channels)  # a window of 2^32 channels must not take as many steps
    total = np.zeros(pixels)  # float64: adding and subtracting float32 would drift
    for head in range(channels + half):
        tail = head - 2 * half - 1
        if head < channels:
            for i in range(pixels):
                total[i] += values[head, i]
        if tail >= 0:
            for i in range(pixels):
                total[i] -= values[tail, i]
        if head >= half:
            for i in range(pixels):
                sums[head - half, i] = total[i]


@njit(inline="always")
def _decay(s, beta):
    # The usual beta of 3/4 by square roots, which are vectorised; powers are not.
    if beta == 0.75:
        root = np.sqrt(s)
        return np.reciprocal(root * np.sqrt(root))
    return s**-beta


@parallel_njit(fastmath=_FASTMATH)
def across_forward(x, size, alpha, beta, k, out):
    """y of the formula above, across channels, to `out`."""
    images, channels, pixels = x.shape
    blocks = (pixels + _BLOCK - 1) // _BLOCK
    for item in prange(images * blocks):
        n, low = item // blocks, item % blocks * _BLOCK
        xs = x[n, :, low : low + _BLOCK]
        ys = out[n, :, low : low + _BLOCK]
        s = np.empty(xs.shape, x.dtype)
        _window_sums(xs * xs, size // 2, s)
        for c in range(channels):
            for i in range(xs.shape[1]):
                ys[c, i] = xs[c, i] * _decay(k + alpha * s[c, i], beta)


@parallel_njit(fastmath=_FASTMATH)
def across_backward(x, dy, size, alpha, beta, k, dx):
    """dx of the formula above, across channels."""
    images, channels, pixels = x.shape
    blocks = (pixels + _BLOCK - 1) // _BLOCK
    mutual = x.dtype.type(2) * alpha * beta
    for item in prange(images * blocks):
        n, low = item // blocks, item % blocks * _BLOCK
        xs = x[n, :, low : low + _BLOCK]
        dys = dy[n, :, low : low + _BLOCK]
        dxs = dx[n, :, low : low + _BLOCK]
        s = np.empty(xs.shape, x.dtype)
        ratio = np.empty(xs.shape, x.dtype)
        _window_sums(xs * xs, size // 2, s)
        for c in range(channels):
            for i in range(xs.shape[1]):
                scale = k + alpha * s[c, i]
                power = _decay(scale, beta)
                dxs[c, i] = dys[c, i] * power
                ratio[c, i] = dys[c, i] * xs[c, i] * power / scale
        _window_sums(ratio, size // 2, s)
        for c in range(channels):
            for i in range(xs.shape[1]):
                dxs[c, i] -= mutual * xs[c, i] * s[c, i]


@njit(cache=True, error_model="numpy", nogil=True, fastmath=_FASTMATH)
def _box_sums(values, radius, sums):
    """sums[h, w] = the sum of values (H, W) over the pixels at most `radius` away in h and in w."""
    height, width = values.shape
    down, across = min(radius, height), min(radius, width)
    line = np.zeros(width + 2 * across, values.dtype)
    middle = line[across : across + width]
    for h in range(height):
        middle[:] = 0
        for near in range(max(h - down, 0), min(h + down + 1, height)):
            for w in range(width):
                middle[w] += values[near, w]
        out = sums[h]
        out[:] = 0
        for d in range(2 * across + 1):
            shifted = line[d : d + width]
            for w in range(width):
                out[w] += shifted[w]


@parallel_njit(fastmath=_FASTMATH)
def within_forward(x, size, alpha, beta, k, out):
    """y of the formula above, within channels, to `out`."""
    for plane in prange(len(x)):
        s, xs, ys = np.empty(x.shape[1:], x.dtype), x[plane], out[plane]
        _box_sums(xs * xs, size // 2, s)
        for h in range(len(xs)):
            for w in range(xs.shape[1]):
                ys[h, w] = xs[h, w] * _decay(k + alpha * s[h, w], beta)


@parallel_njit(fastmath=_FASTMATH)
def within_backward(x, dy, size, alpha, beta, k, dx):
    """dx of the formula above, within channels."""
    mutual = x.dtype.type(2) * alpha * beta
    for plane in prange(len(x)):
        s, ratio = np.empty(x.shape[1:], x.dtype), np.empty(x.shape[1:], x.dtype)
        xs, dys, dxs = x[plane], dy[plane], dx[plane]
        _box_sums(xs * xs, size // 2, s)
        for h in range(len(xs)):
            for w in range(xs.shape[1]):
                scale = k + alpha * s[h, w]
                dxs[h, w] = dys[h, w] * _decay(scale, beta)
                ratio[h, w] = dxs[h, w] * xs[h, w] / scale
        _box_sums(ratio, size // 2, s)
        for h in range(len(xs)):
            for w in range(xs.shape[1]):
                dxs[h, w] -= mutual * xs[h, w] * s[h, w]
