"""RoI pooling (fast-rcnn): the maximum over the bins of each region of interest."""

import numpy as np

from ...device import device_of
from .launch import BLOCK, NULL, blocks, launch, number

_GROUP = 32  # channels that a block pools of a RoI
_SHARED = 48 << 10  # bytes of memory that a block surely has for itself
_MOST_LANES = 256


def forward(x, rois, spatial_scale, y, argmax):
    """y[r, c] = the maxima of channel c over the bins of RoI r; 0 for a bin outside the map.

    NOTE: a RoI with a number that is not finite, or an image that x does not have, gives NaN here.

    Args:
        x: (N, C, H, W). rois: (R, 5), see geometry.roi_bins; image indices are in [0, N).
        y: (R, C, pooled_h, pooled_w).
        argmax: int32 like y, set to the element that won, h * W + w, or -1. None where nobody
            needs it.
    """
    if not y.size or not x.size:
        _empty(y, argmax)
        return
    sizes = (*x.shape, *y.shape[2:], _GROUP)
    launch(
        "roi_pooling.cu", "forward", (x, rois, y, NULL if argmax is None else argmax),
        (len(rois) * blocks(x.shape[1], _GROUP),), (BLOCK,),
        (number(spatial_scale, rois), *map(np.int32, sizes)), 8 * sum(y.shape[2:]),
    )  # fmt: skip


def _empty(y, argmax):
    # All bins lie outside of a map without elements.
    y.fill(0)
    if argmax is not None:
        argmax.fill(-1)


def backward(dy, argmax, rois, spatial_scale, dx):
    """dx = dy sent back to the elements that won, summed in the order of the RoIs."""
    images, channels, height, width = dx.shape
    cells = dy.shape[2] * dy.shape[3]
    lanes = min(32 * blocks(cells, 32), _MOST_LANES)
    held = number(0, dx).itemsize
    shared = lanes * (held + 4)
    in_shared = shared + height * width * held <= _SHARED
    if in_shared:
        shared += height * width * held
    sums = NULL if in_shared else _sums_of(dx)
    arrays = dy, argmax, _images(rois, spatial_scale, images), sums, dx
    sizes = len(rois), channels, height * width, cells
    grid = (images * channels if dx.size else 0,)
    launch("roi_pooling.cu", "backward", arrays, grid, (lanes,), map(np.int32, sizes), shared)


def _sums_of(dx):
    # Where sums are formed: dx itself, or for halves an array that holds them all.
    dtype = number(0, dx).dtype
    return dx if dx.dtype == dtype else device_of(dx).xp.empty(dx.shape, dtype)


def _images(rois, spatial_scale, images):
    # (R,), the image that each RoI sends its gradient to, -1 for none.
    out = device_of(rois).xp.empty(len(rois), np.int32)
    args = number(spatial_scale, rois), np.int32(len(rois)), np.int32(images)
    launch("roi_pooling.cu", "roi_images", (rois, out), (blocks(len(rois), BLOCK),), (BLOCK,), args)
    return out
