"""Copies between blocks of arrays (Concat, Slice) by all threads."""

from numba import njit, prange

from . import parallel_njit

PARALLEL_FROM = 1 << 17  # elements; NumPy copies by itself what one thread's cache holds
_PIECE = 1 << 14  # elements that a thread copies at a time


def copy_columns(source, source_start, target, target_start, count):
    """Copy `count` columns of each row, from and to the given first ones.

    Args:
        source, target: (rows, columns), as many rows but maybe not columns; C-contiguous.
    """
    if len(source) * count < PARALLEL_FROM:
        end = target_start + count
        target[:, target_start:end] = source[:, source_start : source_start + count]
    else:
        _copy(source, source_start, target, target_start, count)


@njit(cache=True, nogil=True)
def _copy_piece(source, target):
    for i in range(len(source)):
        target[i] = source[i]


@parallel_njit
def _copy(source, source_start, target, target_start, count):
    pieces = (count + _PIECE - 1) // _PIECE
    for item in prange(len(source) * pieces):
        row, low = item // pieces, item % pieces * _PIECE
        high = min(low + _PIECE, count)
        _copy_piece(
            source[row, source_start + low : source_start + high],
            target[row, target_start + low : target_start + high],
        )
