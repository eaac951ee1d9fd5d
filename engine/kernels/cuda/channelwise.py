"""Passes over arrays with one coefficient a channel, each reading and writing memory once.

Arrays have the shape (outer, channels, inner) and vectors (channels,); all share one dtype.
`out` may be one of the inputs. Sums are taken in double precision, in an order that depends on the
shape alone.
"""

import numpy as np

from ...device import device_of
from .copies import copy
from .launch import BLOCK, blocks, elementwise_grid, launch

_FILE = "channelwise.cu"
_SHORT = 32  # rows of fewer elements are summed as columns
_PARTS = 2048  # blocks that keep a GPU of any size busy
_LEAST = 4096  # elements of a part that are worth a block
_LEAST_ROWS = 64  # as many rows of a part of columns


def relu(x, slope, out):
    """out = x where x > 0, slope * x elsewhere."""
    _pass("relu", x, slope, out)


def relu_backward(x, dy, slope, out):
    """out = dy where x > 0, slope * dy elsewhere."""
    _pass("relu_backward", x, dy, slope, out)


def add_rows(y, b, relu):
    """y += b for each row of y (rows, columns); negative results become 0 if `relu`."""
    if y.size:
        args = np.int32(relu), b.size, y.size
        launch(_FILE, "add_rows", (y, b), elementwise_grid(y), (BLOCK,), args)


def affine(x, centre, scale, offset, out):
    """out = (x - centre) * scale + offset."""
    _pass("affine", x, centre, scale, offset, out)


def normalise(x, centre, factor, scale, offset, relu, out, kept=None):
    """out = (x - centre) * factor * scale + offset; negative results become 0 if `relu`.

    Args: kept: becomes a copy of x, if it is given.
    """
    if kept is not None:
        copy(x, kept)
    _pass("normalise", x, centre, factor, scale, offset, out, flags=(np.int32(relu),))


def combine(x, x_centre, x_scale, y, y_centre, y_scale, out):
    """out = (x - x_centre) * x_scale + (y - y_centre) * y_scale."""
    _pass("combine", x, x_centre, x_scale, y, y_centre, y_scale, out)


def _pass(name, *arrays, flags=()):
    out = arrays[-1]
    args = (*flags, out.shape[1], out.shape[2], out.size)
    launch(_FILE, name, arrays, elementwise_grid(out), (BLOCK,), args)


def sums(x, x_centre, y, y_centre):
    """For each channel the sums of x' = x - x_centre and of x' * (y - y_centre), in float64."""
    both = _sums("centred_sums", 2, x, x_centre, y, y_centre)
    return both[0], both[1]


def slope_sums(x, dy):
    """For each channel the sum of min(x, 0) * dy, in float64: the gradient of `relu`'s slope."""
    return _sums("slope_sums", 1, x, dy)[0]


def totals(x):
    """For each channel the sum of x, in float64."""
    return _sums("totals", 1, x)[0]


def _sums(name, lists, *arrays):
    # The first `lists` of the two lists of sums that the kernel makes, as (lists, channels).
    x = arrays[0]
    outer, channels, inner = x.shape
    xp = device_of(x).xp
    if not x.size:
        return xp.zeros((lists, channels), np.float64)
    grid, block, parts = _deal(outer, channels, inner)
    places = inner if len(block) > 1 else 1
    partial = xp.empty((2, parts, channels, places), np.float64)
    launch(_FILE, name, (*arrays, partial), grid, block, (*x.shape, parts))
    if parts * places == 1:
        return partial.reshape(2, channels)[:lists]
    out = xp.empty((lists, channels), np.float64)
    grid = (blocks(32 * out.size, BLOCK),)
    args = lists, parts, channels, places
    launch(_FILE, "fold", (partial, out), grid, (BLOCK,), args, dtype=x.dtype)
    return out


def _deal(outer, channels, inner):
    """Grid, block, and how many parts a channel is cut into."""
    if inner < _SHORT:
        columns = blocks(channels * inner, 32)
        parts = max(1, min(_PARTS // columns, blocks(outer, _LEAST_ROWS)))
        return (columns, parts), (32, BLOCK // 32), parts
    parts = max(1, min(_PARTS // channels, blocks(outer * inner, _LEAST)))
    return (channels * parts,), (BLOCK,), parts
