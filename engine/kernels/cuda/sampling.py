"""A random sample of boxes: what `boxes.sampling.sample` chooses, by the very numbers of NumPy.

The numbers are functions of a key and of their place in the sequence, and are computed where they
are used: how many are needed depends on how many boxes there are to choose from.
"""

import numpy as np

from ...device import device_of
from .launch import blocks, launch

FOREGROUND, BACKGROUND = 1, 2
_LANES = 1024  # threads of the one block
_PER_COUNTER = 8  # random numbers of 32 bits
_SPARE = 64  # random numbers beyond those that are surely needed
_SHUFFLED_FROM, _SHUFFLED_PART = 10000, 20  # as in sampling.cu
_WORD = 32


def sample(flags, count, foreground, key, found):
    """Choose `count` of the flags, at most `foreground` of them FOREGROUND; the others are cleared.

    Args:
        flags: (n,) int8 of FOREGROUND and BACKGROUND, or both, or neither.
        key: (seed, stream) of a generator (`RandomStream.key`).
        found: (2,) int32, set to how many of either are left.

    Returns: int32, the places of those left, ascending, foreground first; what comes after them is
    not set.
    """
    xp, n = device_of(flags).xp, flags.size
    count, foreground = min(count, 2 * n), min(foreground, 2 * n)
    ready = _PER_COUNTER * blocks(count + _SPARE, _PER_COUNTER)
    shuffled = n if n > _SHUFFLED_FROM and count > _SHUFFLED_FROM // _SHUFFLED_PART else 0
    scratch = xp.empty(ready + 2 * blocks(n, _WORD) + shuffled, np.uint32)
    kept = xp.empty(count, np.int32)
    args = [np.int32(v) for v in (n, count, foreground, ready)] + [np.uint64(k) for k in key]
    arrays = flags, kept, found, scratch
    launch("sampling.cu", "sample", arrays, (1,), (_LANES,), args, dtype=np.float32)
    return kept
