"""Copies between arrays, and blocks of them (Concat, Slice), by all threads."""

from numba import njit, prange

from . import adaptive_njit, parallel_njit

PARALLEL_FROM = 1 << 17  # elements; NumPy copies by itself what one thread's cache holds
_PIECE = 1 << 14  # elements that a thread copies at a time


def copy(source, target):
    """Copy an array to another of the same size; both C-contiguous, of one dtype."""
    _copy_flat(source.reshape(-1), target.reshape(-1))


def clear(array):
    """Set a C-contiguous array to zero."""
    _clear_flat(array.reshape(-1))


@adaptive_njit
def _copy_flat(source, target):
    for i in prange(source.size):
        target[i] = source[i]


@adaptive_njit
def _clear_flat(array):
    zero = array.dtype.type(0)
    for i in prange(array.size):
        array[i] = zero


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
