"""Pooling: maximum, average, stochastic. Elements of a map are numbered h * width + w."""

import numpy as np

from .launch import BLOCK, NULL, blocks, launch

_MEAN_THREADS = 128  # that share a map of global pooling


def max_forward(x, geometry, y, argmax):
    """y = the maximum of each window.

    Args:
        x: (N, C, H, W). y: (N, C, PH, PW). geometry: a PoolGeometry.
        argmax: int32 like y, set to the element that won: the first of equals, -1 for none. None
            where nobody needs it.
    """
    _run("max_forward", (x, y, NULL if argmax is None else argmax), geometry, y)


def max_backward(dy, argmax, geometry, dx, gate=None):
    """dx = dy sent back to the elements that maximum or stochastic pooling picked.

    `gate`: an array like dy, which is taken times 0 where this is not positive. With the maxima
    of a ReLU's results, dx is then the gradient of that ReLU. None for none.
    """
    _run("max_backward", (dy, argmax, NULL if gate is None else gate, dx), geometry, dx)


def average_forward(x, geometry, y):
    """y = the sum of each window over its length, which counts padding up to size + pad."""
    if geometry.is_global:
        size = np.int32(geometry.in_size[0] * geometry.in_size[1])
        launch("pooling.cu", "means", (x, y), (y.size,), (_MEAN_THREADS,), (size,))
    else:
        _run("average_forward", (x, y), geometry, y)


def average_backward(dy, geometry, dx):
    """dx = the gradient of average pooling."""
    _run("average_backward", (dy, dx), geometry, dx)


def stochastic_forward(x, geometry, chance, y, argmax):
    """y = one element of each window, drawn with a probability proportional to its value.

    Args: `chance`, like y, uniform in (0, 1]; the rest as in `max_forward`. A window without
    elements gives 0.
    """
    _run("stochastic_forward", (x, chance, y, argmax), geometry, y)


def expected_forward(x, geometry, y):
    """y = each window's mean weighted by the values themselves: what stochastic pooling expects."""
    _run("expected_forward", (x, y), geometry, y)


def expected_backward(x, y, dy, geometry, dx):
    """dx = the gradient of `expected_forward`: (2 x - y) / sum, window by window."""
    _run("expected_backward", (x, y, dy, dx), geometry, dx)


def _run(name, arrays, g, result):
    pairs = (g.in_size, g.out_size, g.kernel, g.stride, g.pad)
    sizes = [np.int32(size) for pair in pairs for size in pair]
    grid = (blocks(result.size, BLOCK),)
    launch("pooling.cu", name, arrays, grid, (BLOCK,), (*sizes, result.size))
