"""RoI pooling (fast-rcnn): the maximum over the bins of each region of interest.

The map is first laid out so that BLOCK channels of a position are neighbours: then a bin, however
narrow, is taken from many channels at once.
"""

import numba
import numpy as np

from ..geometry import roi_bins, roi_images
from . import parallel_njit
from .pooling import LOWEST
from .windows import LANES, make_cell_maximum

BLOCK = 2 * LANES  # channels
_GROUP = 8  # channels whose gradients a thread sums at a time

_NOTHING = np.empty((0, 0, 0), np.int32)
_cell_maximum = make_cell_maximum(BLOCK // LANES, LOWEST)


def forward(x, rois, spatial_scale, y, argmax):
    """y[r, c] = the maxima of channel c over the bins of RoI r; 0 for a bin outside the map.

    Args:
        x: (N, C, H, W). rois: (R, 5), see `roi_bins`; image indices are in [0, N).
        y: (R, C, pooled_h, pooled_w).
        argmax: int32 like y, set to the element that won, h * W + w, or -1. None where nobody
            needs it.
    """
    images, channels, height, width = x.shape
    bins = roi_bins(np, rois, spatial_scale, y.shape[2:], x.shape[2:])
    if y.size == 0:
        return
    blocks = np.empty((images, -(-channels // BLOCK), height * width, BLOCK), x.dtype)
    _to_blocks(_maps(x), blocks)
    _forward(blocks, width, *bins, _maps(y), _NOTHING if argmax is None else _maps(argmax))


def backward(dy, argmax, rois, spatial_scale, dx):
    """dx = dy sent back to the elements that won, summed in the order of the RoIs."""
    _backward(_maps(dy), _maps(argmax), roi_images(np, rois, spatial_scale), _maps(dx))


def _maps(x):
    # (N, C, H, W) -> (N, C, H * W)
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


@numba.njit(cache=True, inline="always")
def _block(channels, k):
    # Of block k, the first channel and how many there are.
    return k * BLOCK, min(BLOCK, channels - k * BLOCK)


@parallel_njit
def _to_blocks(x, blocks):
    for item in numba.prange(blocks.shape[0] * blocks.shape[1]):
        n, k = item // blocks.shape[1], item % blocks.shape[1]
        first, count = _block(x.shape[1], k)
        out = blocks[n, k]
        if count < BLOCK:
            out[:] = 0
        for low in range(0, x.shape[2], LANES):
            for c in range(count):
                for i in range(low, min(low + LANES, x.shape[2])):
                    out[i, c] = x[n, first + c, i]


@parallel_njit
def _forward(blocks, width, image, h_bins, w_bins, y, argmax):
    channels, bins = y.shape[1:]
    source = blocks.reshape(-1)
    size = blocks.shape[2] * BLOCK
    # A thread stays with a block of channels, which fits its cache, for many RoIs.
    for item in numba.prange(blocks.shape[1] * len(y)):
        k, r = item // len(y), item % len(y)
        best = np.empty(bins * BLOCK, y.dtype)
        where = np.empty(bins * BLOCK, np.int32)
        base = (image[r] * blocks.shape[1] + k) * size
        place = 0
        for p in range(h_bins.shape[1]):
            top, bottom = h_bins[r, p]
            for q in range(w_bins.shape[1]):
                left, right = w_bins[r, q]
                number = top * width + left
                _cell_maximum(
                    source, base + number * BLOCK, bottom - top, right - left, width * BLOCK,
                    width, number, best, where, place,
                )  # fmt: skip
                if bottom <= top or right <= left:
                    best[place : place + BLOCK] = 0
                place += BLOCK
        first, count = _block(channels, k)
        for c in range(count):
            for i in range(bins):
                y[r, first + c, i] = best[i * BLOCK + c]
        if argmax.size:
            for c in range(count):
                for i in range(bins):
                    argmax[r, first + c, i] = where[i * BLOCK + c]


@parallel_njit
def _backward(dy, argmax, image, dx):
    # A thread owns its channels: no two add to the same element, and the order is fixed.
    channels = dx.shape[1]
    for k in numba.prange((channels + _GROUP - 1) // _GROUP):
        first, last = k * _GROUP, min((k + 1) * _GROUP, channels)
        for n in range(dx.shape[0]):
            dx[n, first:last] = 0
        for r in range(len(dy)):
            if image[r] < 0:
                continue
            for c in range(first, last):
                out = dx[image[r], c]
                for i in range(dy.shape[2]):
                    winner = argmax[r, c, i]
                    if winner >= 0:
                        out[winner] += dy[r, c, i]
