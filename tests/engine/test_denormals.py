"""Numbers next to zero: products take them for zero, and nothing else does."""

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import blas, convolution
from demitasse.engine.kernels.geometry import ConvGeometry

TINY = np.float32(1e-40)


def geometry(kernel, channels=16, size=24):
    pad = (kernel // 2,) * 2
    return ConvGeometry(
        1, channels, channels, (size, size), (size, size), (kernel, kernel), (1, 1), pad, (1, 1)
    )


def denormals_count():
    return TINY * np.float32(1e10) > 0 and np.float32(1e-30) * np.float32(1e-10) > 0


@pytest.mark.parametrize("shape", [(200, 300), (1, 1024), (1024, 1)])
def test_matmul(shape):
    rows, columns = shape
    a, b = np.full((rows, 512), TINY), np.full((columns, 512), 1e10, "f").T
    out = np.ones(shape, "f")
    blas.matmul(a, b, out)
    assert not out.any()
    assert denormals_count()


@pytest.mark.parametrize("kernel, algorithm", [(3, "winograd"), (3, "product"), (1, "product")])
def test_convolution(kernel, algorithm):
    g = geometry(kernel)
    x, dy = np.full(g.in_shape, TINY), np.full(g.out_shape, TINY)
    weight = np.full((16, 16, kernel, kernel), 1e10, "f")
    y, dx, dw = np.ones_like(dy), np.ones_like(x), np.ones_like(weight)
    convolution.forward(x, weight, None, y, g, algorithm)
    convolution.backward_data(dy, weight, dx, g, algorithm)
    convolution.backward_weight(x, np.full_like(dy, 1e10), dw, g, algorithm, add=False)
    for out in (y, dx, dw):
        assert not out.any()
    assert denormals_count()
