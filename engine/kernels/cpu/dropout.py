"""Dropout by random numbers that are computed where they are used.

The generator is Philox 4x32 (Salmon et al. 2011) with 10 rounds: a function of a key, the seed, and
of a counter, the stream and a number. Backward computes the same numbers again, so that no mask is
kept, and neither threads nor devices change them.
"""

import numpy as np
from numba import njit, prange

from . import parallel_njit

_LANE = 1024
_CHUNK = 4 * _LANE  # elements; a counter gives four numbers, for places _LANE apart
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_BUMPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def apply(x, key, ratio, scale, out):
    """out = x * scale, or x * 0 with probability `ratio`, a function of `key` and the place alone.

    Args:
        x, out: arrays of one shape and dtype; `out` may be `x`.
        key: (seed, stream), integers of 64 bits.
    """
    seed, stream = (np.uint64(k) for k in key)
    threshold = np.uint64(round(ratio * 2**32))
    kernel = _apply if x.size > 16 * _CHUNK else _apply_few
    kernel(x.reshape(-1), seed, stream, threshold, x.dtype.type(scale), out.reshape(-1))


@njit(inline="always")
def _philox(number, stream, seed):
    # Four numbers of 32 bits, each in 64.
    a, b = number & _LOW, number >> _HALF
    c, d = stream & _LOW, stream >> _HALF
    low, high = seed & _LOW, seed >> _HALF
    for _ in range(10):
        p, q = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (q >> _HALF) ^ b ^ low, q & _LOW, (p >> _HALF) ^ d ^ high, p & _LOW
        low, high = (low + _BUMPS[0]) & _LOW, (high + _BUMPS[1]) & _LOW
    return a, b, c, d


@njit(cache=True, nogil=True)
def _chunk(x, item, seed, stream, threshold, scale, out):
    none = x.dtype.type(0)
    factor = np.empty(_CHUNK, x.dtype)
    first = np.uint64(item * _LANE)
    for j in range(_LANE):
        a, b, c, d = _philox(first + np.uint64(j), stream, seed)
        factor[j] = scale if a >= threshold else none
        factor[j + _LANE] = scale if b >= threshold else none
        factor[j + 2 * _LANE] = scale if c >= threshold else none
        factor[j + 3 * _LANE] = scale if d >= threshold else none
    low = item * _CHUNK
    xs, ys = x[low : low + _CHUNK], out[low : low + _CHUNK]
    for i in range(len(xs)):
        ys[i] = xs[i] * factor[i]


@parallel_njit
def _apply(x, seed, stream, threshold, scale, out):
    for item in prange((x.size + _CHUNK - 1) // _CHUNK):
        _chunk(x, item, seed, stream, threshold, scale, out)


@njit(cache=True, nogil=True)
def _apply_few(x, seed, stream, threshold, scale, out):
    for item in range((x.size + _CHUNK - 1) // _CHUNK):
        _chunk(x, item, seed, stream, threshold, scale, out)
