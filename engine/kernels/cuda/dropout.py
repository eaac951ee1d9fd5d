"""Dropout by random numbers that are computed where they are used, the same as on the CPU.

See kernels/cpu/dropout.py for the generator and for which number counts where.
"""

import numpy as np

from .launch import blocks, launch, number

_CHUNK = 4096  # elements of a block
_BLOCK = 256


def apply(x, key, ratio, scale, out):
    """out = x * scale, or x * 0 with probability `ratio`, a function of `key` and the place alone.

    Args:
        x, out: arrays of one shape and dtype; `out` may be `x`.
        key: (seed, stream), integers of 64 bits.
    """
    seed, stream = (np.uint64(k) for k in key)
    threshold = np.uint64(round(ratio * 2**32))
    args = seed, stream, threshold, number(scale, x), x.size
    launch("dropout.cu", "apply", (x, out), (blocks(x.size, _CHUNK),), (_BLOCK,), args)
