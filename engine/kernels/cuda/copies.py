"""Copies between arrays, and blocks of them (Concat, Slice)."""

import numpy as np

from .launch import BLOCK, blocks, launch

_FILE = "copies.cu"
_BYTES = 4 * 16 * BLOCK  # of a block


def copy(source, target):
    """Copy an array to another of the same size; both C-contiguous, of one dtype."""
    _run("copy", (source, target), source.nbytes, (source.size,))


def clear(array):
    """Set a C-contiguous array to zero."""
    _run("clear", (array,), array.nbytes, (array.size,))


def copy_columns(source, source_start, target, target_start, count):
    """Copy `count` columns of each row, from and to the given first ones.

    Args:
        source, target: (rows, columns), as many rows but maybe not columns; C-contiguous.
    """
    rows = len(source)
    args = rows, count, source_start, source.shape[1], target_start, target.shape[1]
    _run("copy_columns", (source, target), rows * count * source.itemsize, args)


def _run(name, arrays, size, args):
    # Elements are moved as integers of their size.
    dtype = np.dtype(f"u{arrays[0].itemsize}")
    launch(_FILE, name, arrays, (blocks(size, _BYTES),), (BLOCK,), args, dtype=dtype)
