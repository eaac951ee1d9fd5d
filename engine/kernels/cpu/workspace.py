"""Memory that kernels use while they run, kept from call to call.

Fresh memory costs more than many a kernel: the system clears each page at its first use.
"""

import math
import threading

import numpy as np

_LINE = 128  # bytes of two lines of the cache
_local = threading.local()


def workspace(dtype, *shapes):
    """Arrays of the given shapes, with any content, each beginning at a line of the cache.

    They are parts of one buffer, which the calling thread keeps and which is as large as the most
    that was ever asked for. The next call on the same thread hands out the same memory.
    """
    dtype = np.dtype(dtype)
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    places = [0]
    for size in sizes:
        places.append(places[-1] + -(-size // _LINE) * _LINE)
    buffer = _buffer(places[-1])
    return [
        buffer[place : place + size].view(dtype).reshape(shape)
        for place, size, shape in zip(places, sizes, shapes)
    ]


def _buffer(size):
    buffer = getattr(_local, "buffer", None)
    if buffer is None or buffer.size < size:
        _local.buffer = None  # the old one may go before the new one comes
        whole = np.zeros(size + _LINE, np.uint8)
        begin = -whole.ctypes.data % _LINE
        buffer = _local.buffer = whole[begin : begin + size]
    return buffer
