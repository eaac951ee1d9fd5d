"""Sums in a fixed order: 64 lanes, each of which adds up every 64th element, then the lanes.

The order is written out, because a compiler that may choose one (fastmath's "reassoc") chooses
differently for a kernel that it has just compiled and for the same one read from the cache on disk.
"""

import numpy as np
from numba import njit

_LANES = 64


@njit(nogil=True, error_model="numpy")
def total(x):
    """The sum of x (n,), in its dtype."""
    lanes = np.zeros(_LANES, x.dtype)
    whole = len(x) // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for j in range(_LANES):
            lanes[j] += x[i + j]
    for i in range(whole, len(x)):
        lanes[i - whole] += x[i]
    return _over(lanes)


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def dot(x, y):
    """The sum of x * y, both (n,), in their dtype."""
    lanes = np.zeros(_LANES, x.dtype)
    whole = len(x) // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for j in range(_LANES):
            lanes[j] += x[i + j] * y[i + j]
    for i in range(whole, len(x)):
        lanes[i - whole] += x[i] * y[i]
    return _over(lanes)


@njit(nogil=True, error_model="numpy")
def _over(lanes):
    width = len(lanes) // 2
    while width:
        for j in range(width):
            lanes[j] += lanes[j + width]
        width //= 2
    return lanes[0]
