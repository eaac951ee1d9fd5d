"""Stochastic pooling (Zeiler and Fergus 2013), by columns of windows, a block at a time.

Elements of a map are numbered h * width + w.
"""

import numpy as np

from .im2col import col2im, im2col

SMALLEST = float(np.finfo(np.float32).tiny)  # keeps a window of zeros from dividing by zero
BLOCK_BYTES = 4 << 20  # of columns at a time


def stochastic_forward(x, geometry, chance, y, argmax):
    """y = one element of each window, drawn with a probability proportional to its value.

    Args: `chance`, like y, uniform in (0, 1]; the rest as in `pooling.max_forward`. A window
    without elements gives 0.
    """
    kernel_w, (height, width) = geometry.kernel[1], geometry.in_size
    top, left = np.indices(geometry.out_size) * np.reshape(geometry.stride, (2, 1, 1))
    corner = (top * width + left).reshape(-1)  # (P,)
    outside = ((top >= height) | (left >= width)).reshape(-1)
    y, argmax, chance = _flat(y), _flat(argmax), _flat(chance)  # (N * C, P)
    for block, col in _windows(x, geometry):
        total = np.cumsum(col, axis=1)
        pick = (total >= chance[block, None] * total[:, -1:]).argmax(axis=1)
        y[block] = np.take_along_axis(col, pick[:, None], axis=1)[:, 0]
        argmax[block] = corner + pick // kernel_w * width + pick % kernel_w
    argmax[:, outside] = -1  # windows without elements


def expected_forward(x, geometry, y):
    """y = each window's mean weighted by the values themselves: what stochastic pooling expects."""
    y = _flat(y)
    for block, col in _windows(x, geometry):
        y[block] = (col * col).sum(axis=1) / (col.sum(axis=1) + col.dtype.type(SMALLEST))


def expected_backward(x, y, dy, geometry, dx):
    """dx = the gradient of `expected_forward`: (2 x - y) / sum, window by window."""
    y, dy = _flat(y), _flat(dy)
    dx[...] = 0
    out = _planes(dx)[:, None]
    for block, col in _windows(x, geometry):
        total = col.sum(axis=1) + col.dtype.type(SMALLEST)
        slopes = (2 * col - y[block, None]) * (dy[block] / total)[:, None]
        # (planes, K, P) -> (K, planes, P)
        col2im(np.ascontiguousarray(slopes.swapaxes(0, 1)), geometry.windows, out[block])


def _windows(x, g):
    # Blocks of planes with what their windows hold, (planes, K, P), zero outside of the image.
    planes = _planes(x)[:, None]
    size, count = g.kernel[0] * g.kernel[1], g.out_size[0] * g.out_size[1]
    step = max(BLOCK_BYTES // (size * count * x.itemsize), 1)
    for n in range(0, len(planes), step):
        block = slice(n, min(n + step, len(planes)))
        col = np.empty((size, block.stop - block.start, count), x.dtype)
        im2col(planes[block], g.windows, col)
        yield block, col.swapaxes(0, 1)


def _planes(x):
    # (N, C, H, W) -> (N * C, H, W)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _flat(x):
    # (N, C, H, W) -> (N * C, H * W)
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
