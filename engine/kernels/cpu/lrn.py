"""Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3).

With s[c] = k + alpha * sum of x^2 over the `size` channels around c (fewer at the ends):
y = x * s ** -beta. Arrays have the shape (images, channels, pixels); a block of pixels that fits
the cache is worked on at a time.
"""

import numpy as np
from numba import njit, prange

from . import parallel_njit

_BLOCK = 256  # pixels
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_POWERS = {"contract", "nsz", "arcp"}  # reassociated, s * sqrt(s) would be formed, and overflow


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


@parallel_njit(fastmath=_POWERS)
def across_forward(x, size, alpha, beta, k, out):
    """Write y of the formula above into `out`, which is not `x`; scalars have x's dtype."""
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


@parallel_njit(fastmath=_POWERS)
def across_backward(x, dy, size, alpha, beta, k, dx):
    """dx = dy * s ** -beta - 2 * alpha * beta * x * (window sum of dy * x * s ** (-beta - 1))."""
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
