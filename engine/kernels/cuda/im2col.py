"""im2col and col2im for any number of spatial axes; see kernels/cpu/im2col.py for the columns."""

import functools

import numpy as np

from ...device import device_of
from .launch import BLOCK, blocks, launch

_ROWS = 65535  # as many as a grid has along its second axis


def im2col(x, geometry, col, first=0):
    """Fill the columns for output positions `first` on.

    Args:
        x: images (B, C, *in_size), C-contiguous.
        col: to be filled, (C * window positions, B, count); position p of the block is position
            first + p of the output, flattened.
    """
    _run("gather", x, col, (x, col), geometry, first, col.shape[-1], len(col) * len(x))


def col2im(col, geometry, x, first=0):
    """Add columns to the image positions that they were taken from (the transpose of im2col)."""
    planes = len(x) * geometry.channels
    _run("scatter", x, col, (col, x), geometry, first, geometry.in_count, planes)


def _run(name, x, col, ends, g, first, places, lines):
    read, written = ends
    table = _axes(device_of(x), _sizes(g))
    window = len(col) // g.channels
    launch(
        "columns.cu", name, (read, table, written),
        (blocks(places, BLOCK), min(lines, _ROWS)), (BLOCK,),
        (np.int32(g.channels), np.int32(window), g.in_count, np.int32(len(x)), first,
         col.shape[-1]),
        defines=(("AXES", len(g.kernel)),),
    )  # fmt: skip


def _sizes(g):
    return tuple(zip(g.in_size, g.out_size, g.kernel, g.stride, g.pad, g.dilation))


@functools.lru_cache(1024)
def _axes(device, sizes):
    """Sizes along each axis where kernels find them; uploaded once."""
    return device.to_device(np.array(sizes, np.int32))
