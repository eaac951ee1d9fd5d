"""Softmax along the middle axis of arrays (outer, C, inner); outputs may be inputs.

A block of neighbouring positions, or one item where there is only one position, is worked on while
it is in the cache.
"""

import numpy as np
from numba import njit, prange

from . import PARALLEL_FROM, parallel_njit, sums
from .exponential import exp

_BLOCK = 256  # positions
_FASTMATH = {"contract", "reassoc", "nsz"}  # not for what meets NaN or infinities


def forward(x, y):
    """y = exp(x) / sum(exp(x)), the largest x subtracted first so that nothing overflows."""
    if x.size:
        (_forward if x.size >= PARALLEL_FROM else _forward_few)(x, y)


def backward(y, dy, dx):
    """dx = y * (dy - sum(y * dy))."""
    if y.size:
        (_backward if y.size >= PARALLEL_FROM else _backward_few)(y, dy, dx)


@njit(cache=True, nogil=True, fastmath=_FASTMATH | {"nnan"})
def _largest(x):
    # Whatever comes of NaN here, it makes all of the results NaN by itself.
    most = x[0]
    for i in range(len(x)):
        most = x[i] if x[i] > most else most
    return most


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _item(x, y):
    # x, y: (C,)
    most = _largest(x)
    for i in range(len(x)):
        y[i] = exp(x[i] - most)
    share = x.dtype.type(1) / sums.total(y)
    for i in range(len(x)):
        y[i] *= share


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _positions(x, y, low):
    # x, y: (C, inner), of which the positions from `low` on
    high = min(low + _BLOCK, x.shape[1])
    most = np.full(high - low, -np.inf, x.dtype)
    total = np.zeros(high - low, x.dtype)
    for c in range(len(x)):
        line = x[c, low:high]
        for i in range(len(line)):
            most[i] = line[i] if line[i] > most[i] else most[i]
    for c in range(len(x)):
        line, out = x[c, low:high], y[c, low:high]
        for i in range(len(line)):
            e = exp(line[i] - most[i])
            out[i] = e
            total[i] += e
    for i in range(len(total)):
        total[i] = x.dtype.type(1) / total[i]
    for c in range(len(x)):
        out = y[c, low:high]
        for i in range(len(out)):
            out[i] *= total[i]


@njit(cache=True, nogil=True)
def _item_backward(y, dy, dx):
    dot = sums.dot(y, dy)
    for i in range(len(y)):
        dx[i] = y[i] * (dy[i] - dot)


@njit(cache=True, nogil=True)
def _positions_backward(y, dy, dx, low):
    high = min(low + _BLOCK, y.shape[1])
    dot = np.zeros(high - low, y.dtype)
    for c in range(len(y)):
        a, b = y[c, low:high], dy[c, low:high]
        for i in range(len(a)):
            dot[i] += a[i] * b[i]
    for c in range(len(y)):
        a, b, out = y[c, low:high], dy[c, low:high], dx[c, low:high]
        for i in range(len(a)):
            out[i] = a[i] * (b[i] - dot[i])


@njit(cache=True, nogil=True)
def _part(x, y, item):
    # Part `item` of all: an item with one position, or a block of positions.
    blocks = (x.shape[2] + _BLOCK - 1) // _BLOCK
    if x.shape[2] == 1:
        shape = x.shape[:2]  # one row, contiguous
        _item(x.reshape(shape)[item], y.reshape(shape)[item])
    else:
        _positions(x[item // blocks], y[item // blocks], item % blocks * _BLOCK)


@njit(cache=True, nogil=True)
def _part_backward(y, dy, dx, item):
    blocks = (y.shape[2] + _BLOCK - 1) // _BLOCK
    if y.shape[2] == 1:
        shape = y.shape[:2]
        _item_backward(y.reshape(shape)[item], dy.reshape(shape)[item], dx.reshape(shape)[item])
    else:
        n = item // blocks
        _positions_backward(y[n], dy[n], dx[n], item % blocks * _BLOCK)


@parallel_njit
def _forward(x, y):
    for item in prange(x.shape[0] * ((x.shape[2] + _BLOCK - 1) // _BLOCK)):
        _part(x, y, item)


@njit(cache=True, nogil=True)
def _forward_few(x, y):
    for item in range(x.shape[0] * ((x.shape[2] + _BLOCK - 1) // _BLOCK)):
        _part(x, y, item)


@parallel_njit
def _backward(y, dy, dx):
    for item in prange(y.shape[0] * ((y.shape[2] + _BLOCK - 1) // _BLOCK)):
        _part_backward(y, dy, dx, item)


@njit(cache=True, nogil=True)
def _backward_few(y, dy, dx):
    for item in range(y.shape[0] * ((y.shape[2] + _BLOCK - 1) // _BLOCK)):
        _part_backward(y, dy, dx, item)
