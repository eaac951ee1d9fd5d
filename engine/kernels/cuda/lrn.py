"""Local response normalisation (Krizhevsky et al. 2012, section 3.3).

y = x * s ** -beta with s = k + alpha * sum of x^2 over a neighbourhood: the `size` channels around
(fewer at the ends), for arrays (images, channels, pixels); or the `size` by `size` pixels around,
for arrays (planes, H, W). In both cases

    dx = dy * s ** -beta - 2 * alpha * beta * x * (the same sum of dy * x * s ** (-beta - 1))

Results do not go where the operands are.
"""

import numpy as np

from ...device import device_of
from .launch import BLOCK, blocks, launch, number


def across_forward(x, size, alpha, beta, k, out):
    """y of the formula above, across channels, to `out`."""
    _run("across_forward", (x, out), (alpha, beta, k), _channels(x, size))


def across_backward(x, dy, size, alpha, beta, k, dx):
    """dx of the formula above, across channels."""
    direct, ratio = _scratch(x), _scratch(x)
    line = _channels(x, size)
    _run("across_slopes", (x, dy, direct, ratio), (alpha, beta, k), line)
    _run("finish", (x, direct, ratio, dx), (2 * alpha * beta,), line)


def within_forward(x, size, alpha, beta, k, out):
    """y of the formula above, within channels, to `out`."""
    sums, (rows, columns) = _scratch(x), _pixels(x, size)
    _run("row_squares", (x, sums), (), rows)
    _run("within_forward", (x, sums, out), (alpha, beta, k), columns)


def within_backward(x, dy, size, alpha, beta, k, dx):
    """dx of the formula above, within channels."""
    sums, direct, ratio = _scratch(x), _scratch(x), _scratch(x)
    rows, columns = _pixels(x, size)
    _run("row_squares", (x, sums), (), rows)
    _run("within_slopes", (x, dy, sums, direct, ratio), (alpha, beta, k), columns)
    _run("row_sums", (ratio, sums), (), rows, x.dtype)
    _run("finish", (x, direct, sums, dx), (2 * alpha * beta,), columns)


def _channels(x, size):
    # The axis that sums go along: its length, the distance of neighbours, how far to either side.
    channels, pixels = x.shape[1:]
    return channels, pixels, min(size // 2, channels)


def _pixels(x, size):
    # The same along rows, and along columns.
    height, width = x.shape[1:]
    return (width, 1, min(size // 2, width)), (height, width, min(size // 2, height))


def _scratch(x):
    # An array like x of the dtype that is computed in.
    return device_of(x).xp.empty(x.shape, number(0, x).dtype)


def _run(name, arrays, numbers, line, dtype=None):
    x = arrays[0]
    args = [number(v, x) for v in numbers] + [np.int32(v) for v in line]
    grid = (blocks(x.size, BLOCK),)
    launch("lrn.cu", name, arrays, grid, (BLOCK,), (*args, x.size), dtype=dtype)
